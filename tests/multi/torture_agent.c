#include "torture.h"

#include "lib/lib.h"
#include "lockq/queue.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define TURN_NS 250000

static struct torture *shared;
static struct lockq *queue;
static shale_lockq *handle;
static int dirfd = -1;
static const struct lockq_slot *slots[TORTURE_LOCKS];

struct hand {
    struct torture_worker *row;
    struct agent_self *agent;
    uint64_t random;
    const char *wrong;
    uint64_t ticket; /* by which the lock was had; 0: without one */
    uint64_t served; /* when it looked last */
    /* The write lock, as a database's handle has it. */
    struct lockq_lock lock;
    struct lockq_claim claim;
    shale_held *held; /* the named one */
};
static _Thread_local struct hand *hand;

struct torture *torture_map(const char *path, bool make)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
    void *map = MAP_FAILED;
    if (fd >= 0 && (!make || ftruncate(fd, sizeof(struct torture)) == 0)) {
        map = mmap(NULL, sizeof(struct torture), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    return map == MAP_FAILED ? NULL : map;
}

/* ---- what a waiter does ---- */

static uint64_t event(void)
{
    return atomic_fetch_add(&shared->events, 1) + 1;
}

static void note_look(uint64_t from)
{
    hand->served = atomic_load(&slots[hand->row->lock]->served);
    hand->row->look_from = from;
    hand->row->look_event = event();
}

static void on_step(const struct lockq_slot *slot, enum lockq_step step, uint64_t number)
{
    (void)slot;
    if (hand == NULL) {
        return;
    }
    switch (step) {
    case LOCKQ_STEP_TICKET:
        hand->ticket = number;
        hand->row->ticket_event = event();
        hand->row->ticket = number;
        break;
    case LOCKQ_STEP_LOOK: note_look(number); break;
    case LOCKQ_STEP_LEFT: hand->row->ticket = 0; break;
    }
}

/* ---- what who has it sees ---- */

/* Was v waiting in front of me when I looked? The owner of a turn needs no ticket. Where I looked only from a
 * later number on, v had been skipped: *late. */
static bool passed_by_me(const struct torture_worker *v, bool *late)
{
    const struct torture_worker *me = hand->row;
    const struct lockq_slot *slot = slots[me->lock];
    uint64_t ticket = v->ticket;
    bool ordered = hand->ticket != 0 || me->lock != TORTURE_WRITE;
    bool before = ticket != 0 && v->lock == me->lock && (hand->ticket == 0 || ticket < hand->ticket);
    before = before && v->ticket_event < me->look_event;
    /* Without a ticket I looked when I came; a third one may have passed v since, and said so. */
    bool skipped = hand->ticket != 0
                       ? ticket < me->look_from
                       : ticket <= atomic_load(&slot->skip_below) || ticket <= atomic_load(&slot->served);
    bool overtaken = hand->ticket != 0 ? ticket <= hand->served : ticket < me->look_from;
    *late = skipped;
    return ordered && before && !overtaken && v->ticket == ticket && v->excused == 0;
}

/* Is it inside my lock, too? I may stand still between two looks: so first whether it is excused (a dead one
 * is until its successor has cleared `inside`), and at the end whether it is still at the same lock, and at
 * the same time of having one. */
static bool is_in_too(const struct torture_worker *v, bool alone)
{
    bool excused = v->excused != 0;
    uint64_t had = v->had;
    bool mine = v->lock == hand->row->lock;
    uint32_t inside = v->inside;
    return !excused && mine && (inside == 2 || (inside != 0 && alone)) && v->lock == hand->row->lock &&
           v->had == had;
}

static const char *look_around(bool alone)
{
    for (unsigned i = 0; i < TORTURE_WORKERS; i++) {
        const struct torture_worker *v = &shared->worker[i];
        if (v == hand->row) {
            continue;
        }
        if (is_in_too(v, alone)) {
            return "two holders at once";
        }
        bool late = false;
        if (passed_by_me(v, &late)) {
            if (!late) {
                return "a waiter that runs was passed";
            }
            atomic_fetch_add(&shared->late, 1);
        }
    }
    return NULL;
}

static const char *guard(void)
{
    _Atomic uint64_t *word = &shared->guarded[hand->row->lock];
    uint64_t before = atomic_load_explicit(word, memory_order_relaxed);
    for (int i = 0; i < 200; i++) {
        atomic_signal_fence(memory_order_seq_cst);
    }
    atomic_store_explicit(word, before + 1, memory_order_relaxed);
    bool alone = atomic_load_explicit(word, memory_order_relaxed) == before + 1;
    return alone ? NULL : "two holders at once: the counter";
}

static const char *be_inside(bool alone)
{
    uint64_t dice = prng_next(&hand->random) % 1000;
    hand->row->inside = alone ? 2 : 1;
    const char *wrong = look_around(alone);
    if (wrong == NULL && alone) {
        wrong = guard();
    }
    if (dice < 20) {
        os_nap(dice < 2 ? 3000000 : 100000);
    }
    hand->row->inside = 0;
    hand->row->had++;
    return wrong;
}

/* ---- one time ---- */

static int64_t some_limit(void)
{
    uint64_t dice = prng_next(&hand->random) % 100;
    return dice < 60 ? -1 : dice < 70 ? 0 : (int64_t)(dice % 6 + 1);
}

static void begin(unsigned lock)
{
    hand->ticket = 0;
    hand->row->lock = lock;
    note_look(atomic_load(&slots[lock]->served) + 1);
}

static int take_write(void)
{
    struct os_wait wait = os_wait_ms(some_limit(), NULL);
    enum lockq_how how = prng_next(&hand->random) % 8 == 0 ? LOCKQ_BACKOFF : LOCKQ_QUEUE;
    begin(TORTURE_WRITE);
    int rc = lockq_take(queue, &hand->lock, how, &wait, &hand->claim);
    if (rc == SHALE_OK) {
        hand->wrong = be_inside(true);
        lockq_free(queue, &hand->lock, &hand->claim);
    }
    return rc;
}

static int take_named(void)
{
    bool alone = prng_next(&hand->random) % 3 != 0;
    begin(TORTURE_NAMED);
    int rc = shale_lockq_acquire(handle, TORTURE_NAME, alone ? SHALE_LOCK_EXCLUSIVE : SHALE_LOCK_SHARED,
                                 some_limit(), "torture", &hand->held);
    if (rc == SHALE_OK) {
        hand->wrong = be_inside(alone);
        rc = shale_lockq_release(hand->held);
    }
    return rc;
}

static void *work(void *ctx)
{
    hand = ctx;
    struct board *b = hand->agent->board;
    while (atomic_load(&b->stop) == 0 && hand->wrong == NULL) {
        int rc = prng_next(&hand->random) % 2 == 0 ? take_write() : take_named();
        if (rc == SHALE_BUSY) {
            hand->row->busy++;
        } else if (rc != SHALE_OK) {
            hand->wrong = "a lock can't be had, and it is not busy";
        }
        if (prng_next(&hand->random) % 4 == 0) {
            os_nap((int64_t)(prng_next(&hand->random) % 300000));
        }
    }
    hand = NULL;
    return NULL;
}

/* ---- the command ---- */

static int open_locks(const char *dir)
{
    int rc = os_open_dir(dir, &dirfd);
    if (rc == SHALE_OK) {
        rc = lockq_open(dirfd, dir, 0600, &queue);
    }
    if (rc == SHALE_OK) {
        rc = shale_lockq_open(dir, 0600, &handle);
    }
    if (rc == SHALE_OK) {
        slots[TORTURE_WRITE] = lockq_slot(queue, NULL);
        slots[TORTURE_NAMED] = lockq_slot(queue, TORTURE_NAME);
    }
    return rc;
}

static int open_hand(struct hand *h)
{
    uint64_t owner = 0;
    os_random(&owner, sizeof owner);
    h->lock = (struct lockq_lock){.slot = lockq_slot(queue, NULL),
                                  .fd = -1,
                                  .start = OS_BYTE_WRITE,
                                  .length = 2,
                                  .exclusive = true,
                                  .turn_ns = TURN_NS,
                                  .owner = owner | 1};
    return os_open(dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &h->lock.fd);
}

static void cmd_torture(struct agent_self *a, const struct agent_line *line)
{
    static struct hand hands[TORTURE_WORKERS];
    pthread_t thread[TORTURE_WORKERS];
    unsigned first = (unsigned)atoi(line->word[2]), threads = (unsigned)atoi(line->word[3]), started = 0;
    uint64_t seed = strtoull(line->word[4], NULL, 10);
    shared = torture_map(line->word[0], false);
    int rc = shared != NULL ? open_locks(line->word[1]) : SHALE_IO;
    lockq_step_hook = on_step;
    while (rc == SHALE_OK && started < threads) {
        struct hand *h = &hands[started];
        *h = (struct hand){.row = &shared->worker[first + started], .agent = a, .random = seed + started};
        rc = open_hand(h);
        if (rc == SHALE_OK) {
            rc = os_thread_start(&thread[started], work, h, "torture");
        }
        started += rc == SHALE_OK;
    }
    for (unsigned i = 0; i < started; i++) {
        os_thread_join(thread[i]);
        if (hands[i].wrong != NULL) {
            agent_wrong(a, hands[i].wrong);
            return;
        }
    }
    agent_status(rc);
}

const struct agent_command torture_commands[] = {
    {"torture", 5, cmd_torture},
    {NULL, 0, NULL},
};
