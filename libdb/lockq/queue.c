/* queue.c - the ordered lock queue: who takes a lock next.
 *
 * fcntl gives safety and says who is alive; numbers give order; a futex gives speed; LMDB describes. Only the
 * first is trusted [I-5]: whatever stands in the lock-queue file, two holders are impossible, because the
 * lock is the kernel's.
 *
 *      next --> 17           the last number given out
 *               17  16  15  14  13  12 <-- served: every number up to it has had its turn, or is gone
 *               |T| |T|     |T| |T|        |T|: the ticket, a byte that its waiter keeps locked
 *                        ^ a killed waiter: the kernel has dropped its ticket, so it stands for nobody [I-6]
 *
 * 1. served == next, the lock's bytes can be had, served == next still: held. That is the whole uncontended
 * path: one system call here, one to free it. Where somebody queued meanwhile, the lock is given back and
 * that one woken.
 * 2. Else n = ++next, and the ticket n is locked.
 * 3. n is the head when no live ticket stands between max(served, skip_below) and n. Everybody else sleeps on
 * its wake word, and looks again after 25 ms, because all before it may have been killed at once; the head
 * looks every 2 ms, because a holder that is killed wakes nobody. (From rank 125 on it is 0.2 ms times the
 * rank, at most 1 s; and far behind, who was not woken looks first whether the lock is free at all, which is
 * cheaper than looking through thousands of tickets.) A waiter that finds n <= served was overtaken, between
 * number and ticket or while it was stopped: nobody will wake it and newcomers do not see it, so it tries the
 * lock once and then takes a new number.
 * 4. The head takes the lock as soon as it is free and the turn is over, raises served to n, frees its
 * ticket, wakes the next. Who frees a lock wakes the first live ticket, only that one.
 * 5. A stopped waiter must not stop the rest: pass.c. A stopped holder is never robbed.
 *
 * Turns. A hand-over costs two context switches; one for every commit would be the end of speed. So a lock
 * can be taken for a turn (250 us of one handle's commits): it is freed after each, but until turn_end only
 * the turn's owner takes it again. Three wakes keep this alive: the owner that finds its turn over, on the
 * way out or on the way in, clears `owner` and wakes the head; the new owner wakes the one behind it, which
 * then sleeps until turn_end + 100 us and takes the lock if it is free. So an owner that is idle, stopped or
 * dead holds nobody up. Clocks decide only how long to sleep: nobody sleeps more than 1 ms for a turn
 * whatever turn_end says (another time namespace's clock, noise), and no owner believes a turn longer than
 * its own. Without contention there is no turn, and no clock is read for one: the first commit that finds a
 * waiter behind it hands over.
 *
 * Who commits all the time keeps the bytes from one commit to the next, until somebody asks: keep.c.
 *
 * [I-7] First in, first out, by turns, among waiters that run; a newcomer, however it waits, never passes a
 * live ticket.
 *
 * Memory order: next and served are sequentially consistent, and between an enqueuer's ++next and its try at
 * the lock, and between a holder's unlock and its look at next, stands the kernel's lock on the list of the
 * file's locks: a try that found the lock held came before the unlock, so the look behind that unlock sees
 * the number. All the rest are hints that a bound backs up. */
#include "lockq/waiter.h"

#define HEAD_LOOK_NS      2000000  /* the head's sleep while the lock is held */
#define LOOK_NS           25000000 /* of those behind the head */
#define RANK_LOOK_NS      200000   /* times the rank, where that is more */
#define LOOK_MAX_NS       1000000000
#define FAR               16     /* this rank and more look at the lock before they look at the tickets */
#define TURN_GRACE_NS     100000 /* after turn_end the owner has had its chance */
#define TURN_SLEEP_MAX_NS 1000000
#define BACKOFF_MIN_NS    50000
#define BACKOFF_MAX_NS    20000000
#define UNORDERED_MAX_NS  2000000
#define MOMENT_NS         40000
#define DESCRIBE_NS       INT64_C(20000000) /* a wait that is worth a row in the metadata */
#define DESCRIBE_TRIES    8 /* each after a wait twice as long, where others are at the metadata */

#define RELAXED memory_order_relaxed

#ifdef SHALE_DEBUG
void (*lockq_step_hook)(const struct lockq_slot *slot, enum lockq_step step, uint64_t number);
#endif

static void give_turn_up(struct lockq *q, const struct lockq_lock *lock)
{
    uint64_t me = lock->owner;
    if (atomic_compare_exchange_strong(&lock->slot->owner, &me, 0)) {
        lockq_wake_next(q, lock->slot);
    }
}

/* How long the head is to sleep for the turn of another; 0: it is over. */
static int64_t turn_left(struct waiter *w, int64_t now)
{
    uint64_t owner = atomic_load(&w->slot->owner);
    uint64_t end = atomic_load(&w->slot->turn_end);
    int64_t left = (int64_t)(end - (uint64_t)now);
    if (owner == 0 || owner == w->lock->owner || left <= -TURN_GRACE_NS) {
        return 0;
    }
    if (w->turn_since == 0 || w->turn_seen != end) {
        w->turn_seen = end;
        w->turn_since = now;
    }
    if (now - w->turn_since >= TURN_SLEEP_MAX_NS) {
        return 0;
    }
    left = left < TURN_SLEEP_MAX_NS ? left + TURN_GRACE_NS : TURN_SLEEP_MAX_NS;
    return left < TURN_SLEEP_MAX_NS ? left : TURN_SLEEP_MAX_NS;
}

/* ---- holding ---- */

/* The bytes are ours: says so. now: CLOCK_MONOTONIC. */
static void grant(struct lockq *q, const struct lockq_lock *lock, int64_t now, struct lockq_claim *claim)
{
    claim->since = now;
    lockq_record_store(q, lock, (uint64_t)(now + q->wall_offset), claim);
}

static int try_bytes(const struct lockq_lock *lock)
{
    return os_lock_try(lock->fd, lock->start, lock->length, lock->exclusive);
}

static int give_back(const struct lockq_lock *lock)
{
    return os_unlock(lock->fd, lock->start, lock->length);
}

/* Rule 1, and the owner of a turn on its way in. SHALE_BUSY: not to be had at once. */
static int take_at_once(struct lockq *q, const struct lockq_lock *lock, struct lockq_claim *claim)
{
    struct lockq_slot *slot = lock->slot;
    bool in_turn = false;
    if (!lockq_queue_empty(slot)) {
        if (!lockq_owns_turn(lock)) {
            return SHALE_BUSY;
        }
        in_turn = lockq_turn_lasts(lock, os_now());
        if (!in_turn) {
            give_turn_up(q, lock);
            return SHALE_BUSY;
        }
    }
    int rc = try_bytes(lock);
    if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(OS_MARK_QUEUE);
    if (BASE_LIKELY(in_turn || lockq_queue_empty(slot))) {
        grant(q, lock, os_now(), claim);
        return SHALE_OK;
    }
    (void)give_back(lock);
    lockq_wake_next(q, slot);
    return SHALE_BUSY;
}

/* A commit holds the lock for a few microseconds, less than a sleep costs. So where nobody has a ticket, a
 * commit that just missed it looks again a few times before it draws one: a group of durable commits that a
 * sync woke together goes through without a hand-over. Whoever draws a ticket ends that for all: no newcomer
 * passes it. */
static int take_in_a_moment(struct lockq *q, const struct lockq_lock *lock, struct lockq_claim *claim)
{
    int rc = take_at_once(q, lock, claim);
    if (BASE_LIKELY(rc != SHALE_BUSY)) {
        return rc;
    }
    lockq_want(lock->slot, lock->turn_ns == 0);
    if (lock->turn_ns == 0) {
        return rc;
    }
    int64_t until = os_now() + MOMENT_NS;
    while (rc == SHALE_BUSY && lockq_queue_empty(lock->slot) && os_now() < until) {
        os_yield();
        rc = take_at_once(q, lock, claim);
    }
    if (rc == SHALE_BUSY) {
        lockq_want(lock->slot, true);
    }
    return rc;
}

/* Who does not queue may take the lock when no live ticket is there, though numbers of the dead still stand.
 */
static int take_if_nobody_waits(struct lockq *q, const struct lockq_lock *lock, struct lockq_claim *claim)
{
    struct lockq_slot *slot = lock->slot;
    int rc = take_at_once(q, lock, claim);
    if (rc != SHALE_BUSY) {
        return rc;
    }
    lockq_want(slot, true);
    uint64_t next = atomic_load(&slot->next);
    unsigned index = lockq_slot_index(q, slot);
    if (lockq_ticket_alive(q, index, lockq_passed(slot) + 1, next)) {
        return SHALE_BUSY;
    }
    rc = try_bytes(lock);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (lockq_ticket_alive(q, index, lockq_passed(slot) + 1, atomic_load(&slot->next))) {
        (void)give_back(lock);
        lockq_wake_next(q, slot);
        return SHALE_BUSY;
    }
    if (atomic_load(&slot->skip_below) <= atomic_load(&slot->served)) {
        lockq_raise(&slot->served, next); /* they are all dead: the short way is open again */
    }
    grant(q, lock, os_now(), claim);
    return SHALE_OK;
}

/* ---- waiting ---- */

static void waiter_begin(struct waiter *w, struct lockq *q, const struct lockq_lock *lock)
{
    *w = (struct waiter){.q = q,
                         .lock = lock,
                         .slot = lock->slot,
                         .index = lock->slot != NULL ? lockq_slot_index(q, lock->slot) : 0,
                         .began = os_now()};
}

static bool overtaken(const struct waiter *w)
{
    return w->number <= atomic_load(&w->slot->served);
}

/* Rule 3. A head that finds only the dead before it says so, so that the one who frees the lock wakes the
 * right one. */
static bool is_head(struct waiter *w)
{
    uint64_t served = atomic_load(&w->slot->served), skip = atomic_load(&w->slot->skip_below);
    uint64_t from = (served > skip ? served : skip) + 1;
    lockq_step(w->slot, LOOK, from);
    if (w->number <= served) {
        return true;
    }
    if (lockq_ticket_alive(w->q, w->index, from, w->number - 1)) {
        return false;
    }
    if (skip <= served && from < w->number) {
        lockq_raise(&w->slot->served, w->number - 1);
        atomic_fetch_add_explicit(&w->slot->reaped, w->number - from, RELAXED);
    }
    return true;
}

static uint64_t rank_of(const struct waiter *w)
{
    uint64_t served = atomic_load(&w->slot->served);
    return w->number > served ? w->number - served - 1 : 0;
}

static int64_t rank_sleep(const struct waiter *w)
{
    uint64_t rank = rank_of(w);
    int64_t ns = rank < LOOK_MAX_NS / RANK_LOOK_NS ? (int64_t)rank * RANK_LOOK_NS : LOOK_MAX_NS;
    return ns > LOOK_NS ? ns : LOOK_NS;
}

/* Far behind, only awake because its time has come, and the lock is held: it need not know its place. */
static bool nothing_to_see(const struct waiter *w, int64_t now)
{
    bool taken = false;
    return now >= w->look_due && w->look_due != 0 && rank_of(w) >= FAR &&
           os_lock_test(w->lock->fd, w->lock->start, w->lock->length, w->lock->exclusive, &taken) ==
               SHALE_OK &&
           taken;
}

/* One look: SHALE_OK, the lock is had; SHALE_BUSY: sleep for *sleep_ns. */
static int look(struct waiter *w, int64_t *sleep_ns)
{
    int64_t now = os_now();
    lockq_take_place_back(w);
    lockq_answer(w);
    if (nothing_to_see(w, now) || !is_head(w)) {
        *sleep_ns = rank_sleep(w);
        lockq_pass_stopped(w, now, sleep_ns);
        w->look_due = now + *sleep_ns;
        return SHALE_BUSY;
    }
    w->look_due = 0;
    *sleep_ns = turn_left(w, now);
    if (*sleep_ns > 0) {
        return SHALE_BUSY;
    }
    *sleep_ns = HEAD_LOOK_NS;
    os_mark(OS_MARK_QUEUE);
    int rc = try_bytes(w->lock);
    if (rc == SHALE_BUSY) {
        lockq_want(w->slot, true);
    }
    return rc;
}

/* For people: after a while, and only when there is nothing better to do. */
static void describe(struct waiter *w)
{
    struct lockq_who who;
    if (w->described < DESCRIBE_TRIES && os_now() - w->began >= DESCRIBE_NS << w->described) {
        w->described++;
        lockq_who_self(w->lock, (uint64_t)(w->began + w->q->wall_offset), &who);
        if (lockq_meta_put(w->q, w->index, w->number, &who)) {
            w->described = DESCRIBE_TRIES;
        }
    }
}

/* Rule 4: the bytes are had. The turn begins, and the next in rank is told, to be ready when it ends. */
static void begin_turn(struct waiter *w, struct lockq_ticket *ticket, struct lockq_claim *claim)
{
    const struct lockq_lock *lock = w->lock;
    struct lockq_slot *slot = w->slot;
    int64_t now = os_now();
    os_mark(OS_MARK_QUEUE);
    lockq_raise(&slot->served, w->number);
    os_mark(OS_MARK_QUEUE);
    atomic_store(&slot->turn_end, lock->turn_ns != 0 ? (uint64_t)(now + lock->turn_ns) : 0);
    os_mark(OS_MARK_QUEUE);
    atomic_store(&slot->owner, lock->turn_ns != 0 ? lock->owner : 0);
    grant(w->q, lock, now, claim);
    os_mark(OS_MARK_QUEUE);
    lockq_step(slot, LEFT, w->number);
    lockq_ticket_free(w->q, w->index, w->number, ticket);
    os_mark(OS_MARK_QUEUE);
    if ((lock->turn_ns != 0 || !lock->exclusive) && !lockq_queue_empty(slot)) {
        lockq_wake_next(w->q, slot);
    }
}

/* Rule 2. SHALE_NOTFOUND: no ticket can be had, nothing was changed that matters. */
static int queue_up(struct waiter *w, struct lockq_ticket **ticket)
{
    /* served above next can only be noise; a number below it would be overtaken at once, for ever. */
    lockq_raise(&w->slot->next, atomic_load(&w->slot->served));
    w->number = atomic_fetch_add(&w->slot->next, 1) + 1;
    os_mark(OS_MARK_QUEUE);
    if (w->number == 0 || w->number >= LOCKQ_NUMBER_END ||
        lockq_ticket_take(w->q, w->index, w->number, ticket) != SHALE_OK) {
        return SHALE_NOTFOUND;
    }
    lockq_step(w->slot, TICKET, w->number);
    os_mark(OS_MARK_QUEUE);
    return SHALE_OK;
}

/* Sleeps and looks until the lock is had or the wait ends. SHALE_NOTFOUND: overtaken, take another number. */
static int wait_for_turn(struct waiter *w, const struct os_wait *wait)
{
    struct os_word word = lockq_word(w->slot, w->number);
    for (;;) {
        uint32_t value = atomic_load_explicit(word.word, memory_order_acquire);
        int64_t sleep_ns = 0;
        int rc = look(w, &sleep_ns);
        if (rc == SHALE_BUSY && overtaken(w)) {
            return SHALE_NOTFOUND;
        }
        if (rc == SHALE_BUSY && sleep_ns > 0) {
            describe(w);
            rc = os_sleep_bits(wait, &word, value,
                               w->described != 0 || sleep_ns < DESCRIBE_NS ? sleep_ns : DESCRIBE_NS);
            if (rc != SHALE_OK) {
                return rc;
            }
        } else if (rc != SHALE_BUSY) {
            return rc;
        }
    }
}

/* Rules 2 to 4. SHALE_NOTFOUND: no ticket can be had. */
static int take_in_queue(struct waiter *w, const struct os_wait *wait, struct lockq_claim *claim)
{
    struct lockq_ticket *ticket;
    for (;;) {
        int rc = queue_up(w, &ticket);
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = wait_for_turn(w, wait);
        if (rc == SHALE_OK) {
            claim->ticket = w->number;
            begin_turn(w, ticket, claim);
            return SHALE_OK;
        }
        lockq_step(w->slot, LEFT, w->number);
        lockq_ticket_free(w->q, w->index, w->number, ticket);
        if (rc != SHALE_NOTFOUND) {
            /* A wake may have been meant for me, and the one behind me may be the head now. */
            lockq_wake_next(w->q, w->slot);
            return rc;
        }
        w->described = 0;
    }
}

/* Exponential, full jitter. */
static int take_by_backoff(struct waiter *w, const struct os_wait *wait, struct lockq_claim *claim)
{
    int64_t most = BACKOFF_MIN_NS;
    uint64_t random = (uint64_t)w->began ^ w->lock->owner ^ w->q->token;
    for (;;) {
        int64_t sleep_ns = (int64_t)(prng_next(&random) % (uint64_t)most) + 1;
        int rc = os_sleep(wait, NULL, 0, sleep_ns);
        if (rc == SHALE_OK) {
            rc = take_if_nobody_waits(w->q, w->lock, claim);
        } else {
            return rc;
        }
        if (rc != SHALE_BUSY) {
            return rc;
        }
        w->number = atomic_load(&w->slot->next) + 1;
        lockq_pass_stopped(w, os_now(), &sleep_ns);
        most = most * 2 < BACKOFF_MAX_NS ? most * 2 : BACKOFF_MAX_NS;
    }
}

/* No lock-queue file: whoever comes at the right moment. */
static int take_unordered(const struct lockq_lock *lock, bool once, const struct os_wait *wait)
{
    int64_t sleep_ns = BACKOFF_MIN_NS;
    for (;;) {
        int rc = try_bytes(lock);
        if (rc != SHALE_BUSY || once) {
            return rc;
        }
        rc = os_sleep(wait, NULL, 0, sleep_ns);
        if (rc != SHALE_OK) {
            return rc;
        }
        sleep_ns = sleep_ns * 2 < UNORDERED_MAX_NS ? sleep_ns * 2 : UNORDERED_MAX_NS;
    }
}

static void count_wait(struct waiter *w, int rc, struct lockq_claim *claim)
{
    struct lockq_slot *slot = w->slot;
    claim->waited = true;
    claim->waited_ns = (uint64_t)(os_now() - w->began);
    if (slot != NULL) {
        atomic_fetch_add_explicit(&slot->waits, 1, RELAXED);
        atomic_fetch_add_explicit(&slot->wait_ns_total, claim->waited_ns, RELAXED);
        lockq_raise(&slot->wait_ns_max, claim->waited_ns);
        if (rc == SHALE_BUSY) {
            atomic_fetch_add_explicit(&slot->timeouts, 1, RELAXED);
        }
    }
}

static int take_waiting(struct lockq *q, const struct lockq_lock *lock, enum lockq_how how,
                        const struct os_wait *wait, struct lockq_claim *claim)
{
    struct waiter w;
    int rc = SHALE_NOTFOUND;
    waiter_begin(&w, q, lock);
    if (lock->slot == NULL) {
        rc = take_unordered(lock, false, wait);
    } else if (how == LOCKQ_QUEUE) {
        rc = take_in_queue(&w, wait, claim);
    }
    if (rc == SHALE_NOTFOUND) {
        rc = take_by_backoff(&w, wait, claim);
    }
    count_wait(&w, rc, claim);
    return rc;
}

/* ---- the interface ---- */

int lockq_take(struct lockq *q, const struct lockq_lock *lock, enum lockq_how how, const struct os_wait *wait,
               struct lockq_claim *claim)
{
    if (BASE_UNLIKELY(atomic_load_explicit(&q->forked, RELAXED))) {
        return err_set(SHALE_FORKED, "the lock queue was opened by this process's parent");
    }
    struct lockq_claim mine = {.record = LOCKQ_RECORDS};
    bool once = how == LOCKQ_ONCE || wait->deadline == 0;
    int rc;
    if (lock->slot == NULL) {
        rc = take_unordered(lock, true, wait);
    } else if (once) {
        rc = take_if_nobody_waits(q, lock, &mine);
    } else {
        rc = take_in_a_moment(q, lock, &mine);
    }
    if (rc == SHALE_BUSY && !once) {
        rc = take_waiting(q, lock, how, wait, &mine);
    } else if (rc == SHALE_BUSY && lock->slot != NULL) {
        atomic_fetch_add_explicit(&lock->slot->timeouts, 1, RELAXED);
    }
    if (BASE_LIKELY(rc == SHALE_OK)) {
        *claim = mine;
        return SHALE_OK;
    }
    return rc == SHALE_BUSY ? lockq_busy(q, lock) : rc;
}

void lockq_free(struct lockq *q, const struct lockq_lock *lock, const struct lockq_claim *claim)
{
    if (lock->slot == NULL) {
        (void)give_back(lock);
        return;
    }
    lockq_record_clear(q, lock, claim);
    os_mark(OS_MARK_QUEUE);
    (void)give_back(lock);
    os_mark(OS_MARK_QUEUE);
    if (BASE_LIKELY(lockq_queue_empty(lock->slot))) {
        return;
    }
    if (!lockq_owns_turn(lock)) {
        lockq_wake_next(q, lock->slot);
    } else if (!lockq_turn_lasts(lock, os_now())) {
        give_turn_up(q, lock);
    }
}

void lockq_end_turn(struct lockq *q, const struct lockq_lock *lock)
{
    if (lock->slot != NULL && lockq_owns_turn(lock)) {
        give_turn_up(q, lock);
    }
}
