/* pass.c - rule 5: stopped waiters (SIGSTOP, a debugger, a frozen container) must not stop the rest.
 *
 * A stopped process keeps its ticket, and nothing tells it from a slow one but that it does not answer:
 *
 *   the lock could be had, and nobody had it for 10 ms   somebody before me does not take it
 *   asked = round + 1, all before me are woken           who runs notes its number in `answered`, if lower
 *   30 ms later: skip_below = the lowest answer - 1      all before that one are passed in one step, and
 *                                                        that one (me, if nobody answered) is the head
 *
 * So who runs keeps its place, also the one that cannot have the lock yet: an exclusive waiter behind a long
 * shared holder, seen by a shared waiter that could have it at once. In that case the question is asked ever
 * more rarely.
 *
 * One that was skipped and runs again lowers skip_below below its own number, and has its place back, unless
 * it has been served past.
 *
 * An answer carries the last 16 bits of its round: so nothing is reset between rounds, and of two askers at a
 * time both take the later round's answers. Noise in these words can make somebody lose its place. */
#include "lockq/waiter.h"

#define IDLE_NS     10000000 /* free and unused so long: somebody before me may be stopped */
#define IDLE_MAX_NS 2000000000
#define ANSWER_NS   30000000

static uint16_t round_of(uint64_t answer)
{
    return (uint16_t)(answer >> LOCKQ_NUMBER_BITS);
}

static uint64_t number_of(uint64_t answer)
{
    return answer % LOCKQ_NUMBER_END;
}

void lockq_answer(struct waiter *w)
{
    uint64_t round = atomic_load(&w->slot->asked) & UINT16_MAX;
    uint64_t mine = round << LOCKQ_NUMBER_BITS | w->number;
    uint64_t old = atomic_load(&w->slot->answered);
    while ((round_of(old) != round || number_of(old) > w->number) &&
           !atomic_compare_exchange_weak(&w->slot->answered, &old, mine)) {
    }
}

/* The lowest number before mine that has answered since I asked, or mine. */
static uint64_t lowest_running(const struct waiter *w)
{
    uint64_t answer = atomic_load(&w->slot->answered);
    uint16_t newer = (uint16_t)(round_of(answer) - (uint16_t)w->idle_round);
    uint64_t number = number_of(answer);
    bool counts = newer < UINT16_MAX / 2 && number > atomic_load(&w->slot->served) && number < w->number;
    return counts ? number : w->number;
}

static void start_watch(struct waiter *w, int64_t now, int64_t patience)
{
    w->idle_since = now;
    w->idle_count = atomic_load(&w->slot->acquisitions);
    w->idle_round = atomic_load(&w->slot->asked);
    w->idle_patience = patience < IDLE_MAX_NS ? patience : IDLE_MAX_NS;
    w->asked = false;
}

/* Where another waiter has asked meanwhile, its answers are as good for me: the asker is one of them, and all
 * before it were woken. So it may die before it has drawn the conclusion. */
static void ask(struct waiter *w, int64_t now)
{
    uint64_t round = w->idle_round;
    bool first = atomic_compare_exchange_strong(&w->slot->asked, &round, round + 1);
    w->idle_round = first ? round + 1 : round;
    w->idle_since = now;
    w->asked = true;
    if (first) {
        lockq_answer(w);
        lockq_wake_before(w->slot, w->number);
    }
}

/* Passes those who did not answer. Were there none, the first runs; it has the lock in a moment, or waits for
 * sharers among whom I could be: then I ask ever more rarely. */
static bool skip_silent(struct waiter *w)
{
    struct lockq_slot *slot = w->slot;
    uint64_t running = lowest_running(w);
    if (!lockq_ticket_alive(w->q, w->index, lockq_passed(slot) + 1, running - 1)) {
        return false;
    }
    lockq_raise(&slot->skip_below, running - 1);
    atomic_fetch_add_explicit(&slot->skipped, 1, memory_order_relaxed);
    if (running < w->number) {
        lockq_wake_one(slot, running);
    }
    return true;
}

void lockq_pass_stopped(struct waiter *w, int64_t now, int64_t *sleep_ns)
{
    bool taken = true;
    if (os_lock_test(w->lock->fd, w->lock->start, w->lock->length, w->lock->exclusive, &taken) != SHALE_OK ||
        taken) {
        w->idle_since = 0;
        return;
    }
    if (w->idle_since == 0 || w->idle_count != atomic_load(&w->slot->acquisitions)) {
        start_watch(w, now, IDLE_NS);
    }
    int64_t left = w->idle_since + (w->asked ? ANSWER_NS : w->idle_patience) - now;
    if (left <= 0 && !w->asked) {
        ask(w, now);
        left = ANSWER_NS;
    } else if (left <= 0) {
        bool skipped = skip_silent(w);
        start_watch(w, now, skipped || w->lock->exclusive ? IDLE_NS : w->idle_patience * 2);
        left = skipped ? 0 : w->idle_patience;
    }
    *sleep_ns = left < *sleep_ns ? left : *sleep_ns;
}

void lockq_take_place_back(struct waiter *w)
{
    uint64_t skip = atomic_load(&w->slot->skip_below);
    while (skip >= w->number && !atomic_compare_exchange_weak(&w->slot->skip_below, &skip, w->number - 1)) {
    }
}
