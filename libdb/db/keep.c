/* keep.c - WRITE kept between two commits: when, and who gives it up. (lockq/keep.c: why, and what it costs.)
 *
 *     db_write_lock     gate -> kept, nobody queues? -> commit        no system call
 *                               kept, somebody does  -> free, wake -> the queue, as ever
 *     db_write_unlock   16 commits in a row, nobody asked lately?    -> kept = true -> gate
 *                       others queue, but my turn lasts?             -> kept = true -> gate
 *     the keeper        asked, or nothing happened for 2 ms -> gate, if no thread has it -> free, wake
 *
 * Kept or not is known behind the gate of WRITE alone, which the keeper too must pass: so the bytes are freed
 * by one, once. It is kept for the next commit only, never over a wait: who is going to sync, to stall or to
 * close gives it up first [I-3], [I-4], and a handle without threads never keeps anything.
 *
 * Who does not queue but tries (SHALE_WAIT_NONE, SHALE_WAIT_BACKOFF) would find the lock taken each time,
 * where before it would have met one of the gaps between commits. So once somebody asked, a handle leaves the
 * gaps there for 50 ms. In a turn that need not be: whoever tries is behind those who queue anyway.
 */
#include "db/db.h"

#define STREAK        16u      /* commits after which a handle is taken for a busy one */
#define STREAK_GAP_NS 100000   /* more between two of them ends the streak */
#define ASKED_NS      50000000 /* nothing is kept so long after somebody asked */
#define IDLE_NS       2000000  /* a kept lock that nobody used so long is given up */
#define CALM_LOOKS    32u      /* of the keeper, each after IDLE_NS, before it sleeps until it is woken */
#define ASLEEP_NS     INT64_C(60000000000)

/* ---- behind the gate ---- */

void db_keep_over(shale_db *db)
{
    struct db_keep *k = &db->keep;
    if (atomic_load_explicit(&k->kept, memory_order_relaxed)) {
        atomic_store_explicit(&k->kept, false, memory_order_relaxed);
        lockq_note_kept(&db->write_lock, false);
    }
}

static void free_kept(shale_db *db)
{
    os_audit_kept(OS_ROLE_WRITE);
    db_keep_over(db);
    os_mark(OS_MARK_UNLOCK);
    lockq_free(db->lockq, &db->write_lock, &db->claim);
}

/* Has anybody asked since we last looked? */
static bool was_asked(const shale_db *db)
{
    return lockq_wanted(&db->write_lock) != db->keep.wanted;
}

bool db_keep_resume(shale_db *db)
{
    struct db_keep *k = &db->keep;
    if (!atomic_load_explicit(&k->kept, memory_order_relaxed)) {
        return false;
    }
    /* Who asked without queueing is heard behind this commit. */
    if (lockq_may_keep(&db->write_lock, &k->last) == LOCKQ_KEEP_NOT) {
        free_kept(db);
        return false;
    }
    os_audit_kept(OS_ROLE_WRITE);
    uint32_t resumed = atomic_load_explicit(&k->resumed, memory_order_relaxed);
    atomic_store_explicit(&k->resumed, resumed + 1, memory_order_relaxed);
    return true;
}

void db_keep_had(shale_db *db)
{
    struct db_keep *k = &db->keep;
    int64_t now = db->claim.since, came = now - (int64_t)db->claim.waited_ns;
    k->streak = came - k->last < STREAK_GAP_NS ? k->streak + 1 : 0;
    k->last = now;
    if (was_asked(db)) {
        k->wanted = lockq_wanted(&db->write_lock);
        k->not_before = now + ASKED_NS;
    }
}

/* The phases of a keeper: made once in a handle's life, when it would first be of use. */
enum { KEEPER_NONE, KEEPER_DUE, KEEPER_MADE };

bool db_keep(shale_db *db)
{
    struct db_keep *k = &db->keep;
    if (k->streak < STREAK) {
        return false;
    }
    if (BASE_UNLIKELY(!k->running)) {
        uint32_t none = KEEPER_NONE;
        (void)atomic_compare_exchange_strong(&k->phase, &none, KEEPER_DUE);
        return false;
    }
    enum lockq_keep may = lockq_may_keep(&db->write_lock, &k->last);
    if (may == LOCKQ_KEEP_NOT || (may == LOCKQ_KEEP_NOBODY && (k->last < k->not_before || was_asked(db)))) {
        return false;
    }
    if (!atomic_load_explicit(&k->kept, memory_order_relaxed)) {
        lockq_note_kept(&db->write_lock, true);
        atomic_store(&k->kept,
                     true); /* before `asleep` is looked at: the keeper does it the other way round */
        if (atomic_load(&k->asleep) != 0) {
            atomic_store(&k->asleep, 0);
            os_wake(&k->asleep, 1);
        }
    }
    return true;
}

/* ---- the keeper ---- */

void db_keep_end(shale_db *db)
{
    struct db_keep *k = &db->keep;
    /* A thread that has the gate is committing: it sees for itself. */
    if (atomic_load_explicit(&k->kept, memory_order_relaxed) &&
        os_role_claim_free(&db->roles, OS_ROLE_WRITE)) {
        if (atomic_load_explicit(&k->kept, memory_order_relaxed)) {
            free_kept(db);
        }
        os_role_unclaim(&db->roles, OS_ROLE_WRITE);
    }
}

/* Nothing has been kept for a while: until something is. */
static void sleep_long(struct db_keep *k)
{
    struct os_wait forever = os_wait_forever();
    atomic_store(&k->asleep, 1);
    while (!atomic_load(&k->kept) && !atomic_load(&k->stopping) && atomic_load(&k->asleep) != 0) {
        (void)os_sleep(&forever, &k->asleep, 1, ASLEEP_NS);
    }
    atomic_store(&k->asleep, 0);
}

static void *keeper(void *ctx)
{
    shale_db *db = ctx;
    struct db_keep *k = &db->keep;
    uint32_t before = 0, asked = 0;
    unsigned calm = 0;
    while (!atomic_load(&k->stopping)) {
        uint32_t wanted = lockq_wanted(&db->write_lock);
        uint32_t resumed = atomic_load_explicit(&k->resumed, memory_order_relaxed);
        bool kept = atomic_load(&k->kept);
        if (kept && (resumed == before || wanted != asked)) {
            db_keep_end(db);
        }
        calm = kept ? 0 : calm + 1;
        before = resumed;
        asked = wanted;
        if (calm < CALM_LOOKS) {
            lockq_keeper_sleep(&db->write_lock, wanted, IDLE_NS);
        } else {
            sleep_long(k);
        }
    }
    return NULL;
}

void db_keep_start_due(shale_db *db)
{
    struct db_keep *k = &db->keep;
    uint32_t due = KEEPER_DUE;
    if (BASE_LIKELY(atomic_load_explicit(&k->phase, memory_order_relaxed) != KEEPER_DUE) ||
        !atomic_compare_exchange_strong(&k->phase, &due, KEEPER_MADE) || db->options.threads == 0) {
        return;
    }
    struct os_wait forever = os_wait_forever();
    if (os_role_claim(&db->roles, OS_ROLE_WRITE, &forever) == SHALE_OK) {
        /* One that can't be had is no trouble: then each commit takes the lock by itself. */
        k->running = os_thread_start(&k->thread, keeper, db, "shale-keep") == SHALE_OK;
        os_role_unclaim(&db->roles, OS_ROLE_WRITE);
    }
}

void db_keep_stop(shale_db *db)
{
    struct db_keep *k = &db->keep;
    atomic_store(&k->phase, KEEPER_MADE);
    if (!k->running) {
        return;
    }
    db_keep_end(db); /* whoever waits need not wait for our thread to end, too */
    atomic_store(&k->stopping, true);
    atomic_store(&k->asleep, 0);
    os_wake(&k->asleep, 1);
    os_thread_join(k->thread);
    k->running = false;
    db_keep_end(db);
}
