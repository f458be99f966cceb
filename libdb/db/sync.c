/* sync.c - making commits durable: group commit across processes.
 *
 * My commit ends at LSN x. Durable so far is max(synced_lsn, start of the oldest segment): what a retired
 * segment held is durable in its table. If that covers x, done. Else SYNC; look again, also at panic; raise
 * sync_attempt to wal_end; fdatasync every segment up to it; store synced_lsn; release; wake all. One
 * fdatasync thus serves every commit that was published before it began, of any process. When groups of late
 * had several commits, the leader yields up to 60 us until as many are waiting as the largest of them had:
 * that costs a fraction of one fdatasync and saves most of them.
 *
 * SYNC is an optimisation: its holder may be stopped, so after max(100 ms, 4 times the slowest recent sync) a
 * waiter syncs by itself, unless the holder is a thread of its own handle. synced_lsn only grows.
 *
 * [I-13] A failed fdatasync is never retried: the kernel has marked the pages clean. panic = the newest
 * segment of the attempt, and writes return SHALE_PANIC until `oldest` has passed it, that is until
 * everything in doubt was written to new files. An error is reported once to each descriptor that was open: a
 * syncer that died with its report is why a handle that finds sync_attempt > synced_lsn, just after it opened
 * a segment, rewrites that range before its first fdatasync.
 */
#include "db/db.h"

#define GROUP_UNIT 16 /* durable_group counts sixteenths of a commit */

static uint64_t durable_lsn(const shale_db *db)
{
    const struct state *s = db->state;
    struct state_view tuple;
    uint64_t synced = atomic_load_explicit(&s->synced_lsn, memory_order_acquire);
    state_load_tuple(s, &tuple);
    uint64_t retired = wal_lsn(tuple.oldest, 0);
    return synced > retired ? synced : retired;
}

int db_panic(shale_db *db)
{
    const struct state *s = db->state;
    uint64_t panic = atomic_load_explicit(&s->panic, memory_order_acquire);
    if (BASE_LIKELY(panic == 0)) {
        return SHALE_OK;
    }
    struct state_view tuple;
    state_load_tuple(s, &tuple);
    if (panic < tuple.oldest) {
        return SHALE_OK;
    }
    return err_set(SHALE_PANIC,
                   "%s: fdatasync of the log failed: what it covered may be lost; shale_flush, or closing "
                   "and reopening, "
                   "writes what is left to new files and ends this state",
                   db->path);
}

/* Was the log removed under us? Then what we synced is worth nothing. A segment that was retired while we
 * synced it has lost its name by right: its table is durable. */
static int check_names(shale_db *db, const struct wal_segment *seg)
{
    unsigned names = 1;
    int rc = db_check_removed(db);
    if (rc == SHALE_OK) {
        rc = os_links(seg->fd, &names);
    }
    if (rc == SHALE_OK && names == 0 && wal_lsn_number(durable_lsn(db)) <= seg->number) {
        rc = err_set(SHALE_IO, "%s: the directory was removed", db->path);
    }
    return rc;
}

static struct db_mem *find_mem(shale_db *db, const struct wal_segment *seg)
{
    for (unsigned i = 0; i < db->mem_count; i++) {
        if (db->mems[i].mem->seg == seg) {
            return &db->mems[i];
        }
    }
    return NULL;
}

/* What an earlier syncer attempted before this handle had the segment open is made dirty again; where that
 * fails it remains to be done. */
static int rewrite_suspect(shale_db *db, struct wal_segment *seg)
{
    uint64_t from = 0, to = 0, first = wal_lsn(seg->number, WAL_FIRST),
             last = wal_lsn(seg->number, (uint32_t)seg->size);
    os_mutex_lock(&db->mems_mutex);
    struct db_mem *m = find_mem(db, seg);
    if (m != NULL) {
        from = m->suspect_from > first ? m->suspect_from : first;
        to = m->suspect_to < last ? m->suspect_to : last;
    }
    os_mutex_unlock(&db->mems_mutex);
    if (from >= to) {
        return SHALE_OK;
    }
    int rc = wal_rewrite(seg, wal_lsn_offset(from), wal_lsn_offset(to));
    os_mutex_lock(&db->mems_mutex);
    m = find_mem(db, seg);
    if (rc == SHALE_OK && m != NULL) {
        m->suspect_to = m->suspect_from;
    }
    os_mutex_unlock(&db->mems_mutex);
    return rc;
}

/* fdatasync of one segment. SHALE_NOTFOUND (no text): it is retired. *tried: what it held may be lost. */
static int sync_segment(shale_db *db, uint32_t number, bool *tried)
{
    struct mem_index *mem;
    int rc = db_mem_get(db, number, &mem);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = rewrite_suspect(db, mem->seg);
    if (rc != SHALE_OK) {
        mem_unref(mem);
        return rc;
    }
    *tried = true;
    rc = wal_sync(mem->seg);
    DB_COUNT(db, fsyncs, 1);
    if (rc == SHALE_OK) {
        rc = check_names(db, mem->seg);
    } else {
        os_mark(OS_MARK_SYNC);
        state_raise(&db->state->panic, number);
        os_mark(OS_MARK_SYNC);
    }
    mem_unref(mem);
    return rc;
}

/* Every segment up to target. One that cannot be opened, for want of a descriptor perhaps, or whose suspect
 * range cannot be written again, is this process's trouble alone: what stands before it is durable, and the
 * others go on. SHALE_PANIC: nobody goes on. */
static int sync_segments(shale_db *db, uint64_t from, uint64_t target)
{
    struct state *s = db->state;
    for (uint32_t n = wal_lsn_number(from); n <= wal_lsn_number(target); n++) {
        bool tried = false;
        int rc = sync_segment(db, n, &tried);
        if (rc == SHALE_OK || (rc == SHALE_NOTFOUND && wal_lsn_number(durable_lsn(db)) > n)) {
            continue;
        }
        if (rc == SHALE_NOTFOUND || tried) {
            state_raise(&s->panic, wal_lsn_number(target));
            return err_wrap(SHALE_PANIC, "%s: the log could not be synced: the commit's fate is open",
                            db->path);
        }
        if (n > wal_lsn_number(from)) {
            state_raise(&s->synced_lsn, wal_lsn(n, 0));
        }
        return rc;
    }
    return SHALE_OK;
}

/* Waits a moment for company, if lately there was some. */
static void dwell(const struct state *s)
{
    uint64_t group = atomic_load_explicit(&s->durable_group, memory_order_relaxed) / GROUP_UNIT;
    if (group <= 1) {
        return;
    }
    uint64_t want = atomic_load_explicit(&s->durable_synced, memory_order_relaxed) + group;
    int64_t until = os_now() + 60000;
    while (atomic_load_explicit(&s->durable_published, memory_order_relaxed) < want && os_now() < until) {
        os_yield();
    }
}

/* The largest group of late: a smaller one takes a sixteenth off what is expected of the next. */
static void note_group(struct state *s, uint64_t size)
{
    uint64_t before = atomic_load_explicit(&s->durable_group, memory_order_relaxed);
    uint64_t faded = before - (before + 15) / 16, seen = size * GROUP_UNIT;
    atomic_store_explicit(&s->durable_group, seen > faded ? seen : faded, memory_order_relaxed);
}

static void note_duration(struct state *s, int64_t ns)
{
    uint64_t slowest = atomic_load_explicit(&s->sync_slowest, memory_order_relaxed);
    uint64_t faded = slowest - slowest / 16;
    atomic_store_explicit(&s->sync_slowest, (uint64_t)ns > faded ? (uint64_t)ns : faded,
                          memory_order_relaxed);
}

/* One attempt over everything published. Holds SYNC, or goes without it past a stopped holder. */
static int sync_now(shale_db *db)
{
    struct state *s = db->state;
    uint64_t commits = atomic_load_explicit(&s->durable_published, memory_order_acquire);
    /* seq first: it is stored behind the end of the log that covers it */
    uint64_t seq = atomic_load_explicit(&s->visible_seq, memory_order_acquire);
    uint64_t target = atomic_load_explicit(&s->wal_end, memory_order_acquire);
    uint64_t from = durable_lsn(db);
    int64_t start = os_now();
    state_raise(&s->sync_attempt, target);
    os_mark(OS_MARK_SYNC);
    int rc = sync_segments(db, from, target);
    if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(OS_MARK_SYNC);
    state_raise(&s->synced_lsn, target);
    os_mark(OS_MARK_SYNC);
    state_raise(&s->synced_seq, seq);
    uint64_t before = atomic_load_explicit(&s->durable_synced, memory_order_relaxed);
    note_group(s, commits > before ? commits - before : 1);
    state_raise(&s->durable_synced, commits);
    os_mark(OS_MARK_SYNC);
    note_duration(s, os_now() - start);
    return SHALE_OK;
}

static int sync_in_turn(shale_db *db, uint64_t lsn, bool durable_commit, bool *had)
{
    int rc = os_role_try(&db->roles, OS_ROLE_SYNC);
    *had = rc == SHALE_OK;
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_panic(db);
    if (rc == SHALE_OK && durable_lsn(db) < lsn) {
        if (durable_commit) {
            dwell(db->state);
        }
        rc = sync_now(db);
    }
    os_role_unlock(&db->roles, OS_ROLE_SYNC);
    os_mark(OS_MARK_SYNC);
    state_wake(&db->state->sync_word, &db->state->sync_asleep);
    return rc;
}

/* Sleeps until a sync is over. true: its holder takes too long. */
static bool wait_for_syncer(shale_db *db, uint64_t lsn, int64_t since, const struct os_wait *wait)
{
    struct state *s = db->state;
    uint32_t word = atomic_load_explicit(&s->sync_word, memory_order_acquire);
    atomic_store_explicit(&s->sync_asleep, 1, memory_order_seq_cst);
    if (durable_lsn(db) >= lsn) {
        return false;
    }
    (void)os_sleep(wait, &s->sync_word, word, 10000000);
    int64_t slow = 4 * (int64_t)atomic_load_explicit(&s->sync_slowest, memory_order_relaxed);
    int64_t patience = (slow > 100000000 ? slow : 100000000) + (int64_t)(db->owner % 16777216);
    return os_now() - since > patience;
}

/* Goes past a holder of SYNC that takes too long, but never past a thread of this handle: that one uses the
 * same descriptors, and the kernel tells a descriptor of an error once. Hence the mutex, and the look at
 * panic behind it. A thread of ours that stands still in fdatasync would keep us waiting in ours just as
 * well. */
static int sync_past_holder(shale_db *db, uint64_t lsn)
{
    struct os_wait forever = os_wait_forever();
    int rc = os_role_claim(&db->roles, OS_ROLE_SYNC, &forever);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_panic(db);
    if (rc == SHALE_OK && durable_lsn(db) < lsn) {
        rc = sync_now(db);
    }
    os_role_unclaim(&db->roles, OS_ROLE_SYNC);
    return rc;
}

/* The sync went wrong with rc. Where it was no fdatasync, lsn may be durable all the same. */
static int not_synced(shale_db *db, uint64_t lsn, int rc)
{
    if (rc == SHALE_PANIC) {
        return rc;
    }
    return durable_lsn(db) >= lsn
               ? SHALE_OK
               : err_wrap(SHALE_PANIC, "%s: the log was not synced: the commit is not known to be durable",
                          db->path);
}

int db_sync(shale_db *db, uint64_t lsn, bool durable_commit, const struct os_wait *wait)
{
    int64_t since = 0;
    if (durable_lsn(db) < lsn) {
        db_write_end_turn(db);
    }
    while (durable_lsn(db) < lsn) {
        bool had;
        int rc = db_panic(db);
        if (rc == SHALE_OK) {
            rc = sync_in_turn(db, lsn, durable_commit, &had);
        }
        if (rc == SHALE_OK) {
            continue;
        }
        if (rc != SHALE_BUSY) {
            return not_synced(db, lsn, rc);
        }
        since = since == 0 ? os_now() : since;
        if (wait_for_syncer(db, lsn, since, wait)) {
            rc = sync_past_holder(db, lsn);
            if (rc != SHALE_OK) {
                return not_synced(db, lsn, rc);
            }
        }
    }
    return SHALE_OK;
}

/* Due no later than this handle has promised: who noted the debt that is there may have promised less, or
 * have another clock. */
static bool note_debt(shale_db *db)
{
    uint64_t when = (uint64_t)os_now() + (uint64_t)db->options.sync_interval_ms * 1000000;
    uint64_t due = atomic_load_explicit(&db->state->sync_due, memory_order_acquire);
    while (due == 0 || due > when) {
        if (atomic_compare_exchange_strong(&db->state->sync_due, &due, when)) {
            db_wake_work(db);
            return true;
        }
    }
    return false;
}

void db_owe_sync(shale_db *db)
{
    struct state *s = db->state;
    state_raise(&db->owed_lsn, atomic_load_explicit(&s->wal_end, memory_order_acquire));
    db_threads_begin(db);
    if (!note_debt(db)) {
        (void)db_sync_due(db, false); /* without maintenance threads, the next call pays */
    }
}

/* Whoever takes the debt over clears it before it reads the log's end: a commit that comes in between owes
 * anew. It may be killed before it has paid. So a handle that finds its own commits unsynced notes them
 * again, and one that is being closed (now) pays for them itself. */
int db_sync_due(shale_db *db, bool now)
{
    struct state *s = db->state;
    struct os_wait forever = os_wait_forever();
    uint64_t owed = atomic_load_explicit(&db->owed_lsn, memory_order_relaxed);
    uint64_t due = atomic_load_explicit(&s->sync_due, memory_order_acquire);
    if (due != 0 && (now || (uint64_t)os_now() >= due) &&
        atomic_compare_exchange_strong(&s->sync_due, &due, 0)) {
        os_mark(OS_MARK_SYNC);
        return db_sync(db, atomic_load_explicit(&s->wal_end, memory_order_acquire), false, &forever);
    }
    if (now) {
        return db_sync(db, owed, false, &forever);
    }
    if (due == 0 && owed != 0 && durable_lsn(db) < owed && db_panic(db) == SHALE_OK) {
        (void)note_debt(db);
    }
    return SHALE_OK;
}

int shale_sync(shale_db *db)
{
    int rc = db_check_write(db);
    if (rc == SHALE_OK) {
        struct os_wait forever = os_wait_forever();
        rc = db_sync(db, atomic_load_explicit(&db->state->wal_end, memory_order_acquire), false, &forever);
    }
    return rc;
}
