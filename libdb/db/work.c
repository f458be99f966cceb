/* work.c - who flushes and compacts, when, and what writers do that are ahead of it.
 *
 * Any process, any time. A maintenance thread sleeps on the `work` word of STATE; woken (a memtable was
 * sealed, a segment is due, an edit was committed), it tries FLUSH, then COMPACT: losing is fine,
 * another process does it. A handle without threads does a bounded piece in the call that sealed a memtable,
 * after releasing WRITE.
 *
 * [I-15] Stall: max_sealed sealed memtables, or l0_stop tables in L0. The writer first tries to do the work
 * itself, else waits for whoever holds that lock: if that process is killed, the waiter gets the lock and
 * does the work. There is no state in which everybody waits for nobody. Before a stall, growing delays, so
 * that there is no cliff. The limits are each handle's own: where others with higher ones go on writing
 * beside a stalled writer, level 0 may never sink below its limit, and its waiting serves nothing; then it
 * goes on after half a second, with each write anew.
 */
#include "db/db.h"

#include <stdlib.h>

#define IDLE_NS        1000000000
#define SWEEP_NS       (INT64_C(30) * 1000000000)
#define POPULATE_STEP  UINT64_C(65536)
#define RETRY_SPACE_NS UINT64_C(1000000000)
#define OVERTAKEN_NS   500000000
#define DELAY_NS       UINT64_C(64000)  /* for a KiB, about half way to a stall: 16 MB/s */
#define DELAY_LAST_NS  UINT64_C(512000) /* the longest: 2 MB/s */
#define DELAY_MOST_NS  100000000        /* for one commit */

void db_wake_work(shale_db *db)
{
    state_wake(&db->state->work, &db->state->work_asleep);
}

/* ---- one unit of work ---- */

/* Best effort: a page that is not there is faulted in by the store that needs it. */
static void populate(shale_db *db, void *map, uint64_t from, uint64_t size)
{
    struct db_breath breath = {.db = db};
    for (uint64_t at = from; at < size && atomic_load_explicit(&db->stopping, memory_order_relaxed) == 0;
         at += POPULATE_STEP) {
        uint64_t step = size - at < POPULATE_STEP ? size - at : POPULATE_STEP;
        if (os_map_populate_read(map, (size_t)at, (size_t)step) != SHALE_OK) {
            return;
        }
        db_breathe(&breath, POPULATE_STEP);
    }
}

/* The pages of the segment that comes next are made here, so that the writers, under WRITE, need not. Of its
 * index as many as the active one, filled so far, lets expect. */
static void populate_ready(shale_db *db)
{
    struct mem_index *active = NULL, *next = NULL;
    uint32_t ready = (uint32_t)atomic_load_explicit(&db->state->ready, memory_order_acquire);
    if (db_mem_get(db, db_active(db->state), &active) == SHALE_OK &&
        db_mem_get(db, ready, &next) == SHALE_OK && next->seg->number > active->seg->number) {
        uint64_t used = active->size - mem_room(active);
        uint64_t filled = wal_lsn_offset(atomic_load_explicit(&db->state->wal_end, memory_order_relaxed));
        uint64_t expected = used * next->seg->size / (filled > WAL_FIRST ? filled : WAL_FIRST);
        populate(db, next->seg->map, 0, next->seg->size);
        populate(db, next->arena, 0, expected < next->size ? expected : next->size);
        populate(db, next->arena, next->size, next->mapped);
    }
    mem_unref(active);
    mem_unref(next);
}

static int work_prepare(shale_db *db)
{
    db_prepare_know(db);
    if (!db_prepare_due(db)) {
        return SHALE_NOTFOUND;
    }
    struct os_wait once = {.deadline = 0};
    int rc = db_prepare(db, 0, &once);
    if (rc == SHALE_OK && db->options.threads != 0) {
        populate_ready(db);
    }
    return rc == SHALE_BUSY ? SHALE_NOTFOUND : rc; /* somebody is at it */
}

static int work_flush(shale_db *db)
{
    struct state_view tuple;
    state_load_tuple(db->state, &tuple);
    if (tuple.oldest >= db_active(db->state)) {
        return SHALE_NOTFOUND;
    }
    int rc = os_role_try(&db->roles, OS_ROLE_FLUSH);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_flush_one(db);
    os_role_unlock(&db->roles, OS_ROLE_FLUSH);
    return rc;
}

/* After ENOSPC: again only after a while, so that a full disk is not hammered. A time to come is of another
 * time namespace, or noise: nobody rests until then. */
static bool resting(const shale_db *db)
{
    uint64_t since = atomic_load_explicit(&db->state->no_space, memory_order_relaxed);
    return since != 0 && (uint64_t)os_now() - since < RETRY_SPACE_NS;
}

int db_full(shale_db *db, int rc)
{
    if (rc != SHALE_NOSPC) {
        return rc;
    }
    atomic_store_explicit(&db->state->no_space, (uint64_t)os_now(), memory_order_relaxed);
    return strstr(shale_errmsg(), db->path) == NULL ? err_wrap(rc, "%s", db->path) : rc;
}

int db_work_one(shale_db *db, unsigned what, uint64_t *bytes)
{
    int rc = SHALE_NOTFOUND, busy = SHALE_NOTFOUND;
    bool full = false;
    *bytes = 0;
    if ((what & SHALE_WORK_FLUSH) != 0) {
        rc = work_prepare(db);
        full = rc == SHALE_NOSPC; /* then the rest is needed all the more: it gives space back */
        if (rc == SHALE_NOTFOUND || full) {
            rc = work_flush(db);
        }
    }
    if (rc == SHALE_BUSY) {
        busy = rc;
        rc = SHALE_NOTFOUND;
    }
    if (rc == SHALE_NOTFOUND && (what & SHALE_WORK_COMPACT) != 0) {
        rc = db_compact_one(db, bytes);
    }
    if (rc == SHALE_NOTFOUND && full) {
        return err_set(SHALE_NOSPC, "%s: no space for the next log segment", db->path);
    }
    return rc == SHALE_NOTFOUND ? busy : rc;
}

int db_work_inline(shale_db *db)
{
    uint64_t bytes;
    if (resting(db)) {
        return SHALE_OK;
    }
    (void)db_sync_due(db, false);
    struct state_view tuple;
    state_load_tuple(db->state, &tuple);
    if (tuple.oldest == db_active(db->state) && !db_prepare_due(db)) {
        return SHALE_OK;
    }
    int rc = db_work_one(db, SHALE_WORK_FLUSH, &bytes);
    if (rc == SHALE_OK) {
        rc = db_compact_one(db, &bytes);
    }
    return rc == SHALE_NOTFOUND || rc == SHALE_BUSY ? SHALE_OK : rc;
}

int shale_work(shale_db *db, unsigned what, uint64_t max_bytes, uint64_t *done)
{
    int rc = db_check_write(db);
    uint64_t total = 0;
    if (done != NULL) {
        *done = 0;
    }
    if (rc == SHALE_OK && (what == 0 || (what & ~(unsigned)(SHALE_WORK_FLUSH | SHALE_WORK_COMPACT)) != 0)) {
        rc = err_set(SHALE_INVALID, "shale_work: what is 0x%x: SHALE_WORK_FLUSH, SHALE_WORK_COMPACT or both",
                     what);
    }
    if (rc == SHALE_OK) {
        rc = db_sync_due(db, false);
    }
    while (rc == SHALE_OK && total <= max_bytes) {
        uint64_t bytes;
        uint64_t before = atomic_load_explicit(&db->row->counters.flush_bytes, memory_order_relaxed);
        rc = db_work_one(db, what, &bytes);
        total += bytes + atomic_load_explicit(&db->row->counters.flush_bytes, memory_order_relaxed) - before;
        if (max_bytes == 0) {
            break; /* one unit */
        }
    }
    if (done != NULL) {
        *done = total;
    }
    if (rc == SHALE_BUSY) {
        return err_set(rc, "%s: another process or thread is doing it", db->path);
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

/* ---- stalls ---- */

struct pressure {
    unsigned sealed;
    uint32_t l0;
};

static void measure(shale_db *db, struct pressure *p)
{
    struct state_view tuple;
    state_load_tuple(db->state, &tuple);
    uint32_t active = db_active(db->state);
    p->sealed = active > tuple.oldest ? active - tuple.oldest : 0;
    p->l0 = 0;
    struct db_guard g;
    uint64_t seq;
    if (db_view_enter(db, &g, &seq) == SHALE_OK) {
        p->l0 = g.view->version->level[0].count;
        db_view_leave(db, &g);
    }
}

/* The memtable after the active one would exceed max_sealed only when the active one is full: sealed alone
 * may reach it. */
static bool must_stall(const shale_db *db, const struct pressure *p)
{
    return p->sealed > db->options.max_sealed || p->l0 >= db->options.l0_stop;
}

static bool sealed_full(const shale_db *db, const struct pressure *p)
{
    return p->sealed >= db->options.max_sealed;
}

static int help(shale_db *db)
{
    uint64_t bytes;
    struct pressure p;
    measure(db, &p);
    int rc = SHALE_BUSY;
    if (sealed_full(db, &p)) {
        rc = work_flush(db);
    }
    if (rc == SHALE_BUSY || rc == SHALE_NOTFOUND) {
        rc = p.l0 >= db->options.l0_stop ? db_compact_one(db, &bytes) : rc;
    }
    return rc;
}

static int stall_over(shale_db *db, int64_t start, int rc)
{
    DB_COUNT(db, stall_us, (os_now() - start) / 1000);
    if (rc == SHALE_BUSY) {
        return err_set(rc, "%s: busy: writers wait for flush or compaction, which other processes are doing",
                       db->path);
    }
    return rc == SHALE_CANCELLED
               ? err_set(rc, "%s: interrupted while waiting for flush or compaction", db->path)
               : rc;
}

struct sample {
    int64_t at; /* 0: none yet */
    uint64_t calm_seq;
};

/* Do others commit meanwhile who by their own limits need not wait? Not before the stall is half over: until
 * then those go by that looked before the limit was reached. What goes by for being overtaken itself does not
 * count, or stalled writers would let each other by. */
static bool overtaken(const struct state *s, int64_t start, struct sample *sample)
{
    int64_t now = os_now();
    if (now - start < OVERTAKEN_NS / 2) {
        return false;
    }
    uint64_t seq = atomic_load_explicit(&s->calm_seq, memory_order_relaxed);
    if (sample->at == 0) {
        *sample = (struct sample){now, seq};
    }
    return now - sample->at >= OVERTAKEN_NS / 2 && seq != sample->calm_seq;
}

/* rotation_blocked: the active memtable is full, so that max_sealed itself is the limit. *over: it ended
 * because others go on. */
static int stall(shale_db *db, const struct os_wait *wait, bool rotation_blocked, bool *over)
{
    struct state *s = db->state;
    struct pressure p;
    int64_t start = os_now();
    struct sample sample = {0};
    DB_COUNT(db, stalls, 1);
    db_write_end_turn(db);
    for (;;) {
        uint32_t word = atomic_load_explicit(&s->room, memory_order_acquire);
        measure(db, &p);
        if (!must_stall(db, &p) && !(rotation_blocked && sealed_full(db, &p))) {
            return stall_over(db, start, SHALE_OK);
        }
        if (overtaken(s, start, &sample)) {
            *over = true;
            return stall_over(db, start, SHALE_OK);
        }
        int rc = wait->deadline == 0 ? SHALE_BUSY : help(db);
        if (rc == SHALE_OK) {
            continue;
        }
        if (rc != SHALE_BUSY && rc != SHALE_NOTFOUND) {
            return stall_over(db, start, rc);
        }
        atomic_store_explicit(&s->room_asleep, 1, memory_order_seq_cst);
        rc = os_sleep(wait, &s->room, word, 20000000);
        if (rc != SHALE_OK) {
            return stall_over(db, start, rc);
        }
    }
}

/* The cheap look: nothing moved since this handle last looked, and then all was well. */
bool db_is_calm(shale_db *db)
{
    const struct state *s = db->state;
    return atomic_load_explicit(&db->calm_epoch, memory_order_relaxed) ==
               atomic_load_explicit(&s->epoch, memory_order_acquire) &&
           atomic_load_explicit(&db->calm_active, memory_order_relaxed) == db_active(s);
}

int db_stall(shale_db *db, const struct os_wait *wait)
{
    struct state *s = db->state;
    if (BASE_LIKELY(db_is_calm(db))) {
        return SHALE_OK;
    }
    bool unused;
    uint64_t epoch = atomic_load_explicit(&s->epoch, memory_order_acquire);
    uint64_t active = db_active(s);
    struct pressure p;
    measure(db, &p);
    if (must_stall(db, &p)) {
        return stall(db, wait, false, &unused);
    }
    atomic_store_explicit(&db->calm_epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&db->calm_active, active, memory_order_relaxed);
    unsigned from = (db->options.l0_compact + db->options.l0_stop) / 2;
    unsigned over = p.l0 > from ? p.l0 - from : 0;
    unsigned span = db->options.l0_stop > from ? db->options.l0_stop - from : 1;
    unsigned left = span > over ? span - over : 1; /* the last steps are long: a stall is longer */
    uint64_t delay = DELAY_NS * over * over / ((uint64_t)span * left);
    atomic_store_explicit(&db->delay_ns, delay < DELAY_LAST_NS ? delay : DELAY_LAST_NS, memory_order_relaxed);
    return SHALE_OK;
}

int db_stall_rotation(shale_db *db, const struct os_wait *wait, bool *over)
{
    bool unused;
    return stall(db, wait, true, over != NULL ? over : &unused);
}

/* delay_ns is for each KiB written; slept off in pieces of a millisecond. */
void db_delay(shale_db *db, uint64_t bytes)
{
    uint64_t rate = atomic_load_explicit(&db->delay_ns, memory_order_relaxed);
    if (BASE_LIKELY(rate == 0)) {
        return;
    }
    uint64_t debt = atomic_fetch_add_explicit(&db->delay_debt, rate * bytes / 1024 + 1, memory_order_relaxed);
    if (debt > 1000000) {
        debt = atomic_exchange_explicit(&db->delay_debt, 0, memory_order_relaxed);
        db_write_end_turn(db);
        os_nap((int64_t)(debt < DELAY_MOST_NS ? debt : DELAY_MOST_NS));
    }
}

/* ---- maintenance threads ----
 *
 * They start with the handle's second call, or as soon as it leaves work behind: a log segment to make, a
 * memtable to flush, a debt to sync. A process that comes for one operation would pay more for a thread that
 * finds nothing to do, and has to be waited for at close, than for all the rest. Until then a handle is to
 * the others what one with threads=0 is.
 */

static int64_t sleep_time(const shale_db *db)
{
    uint64_t due = atomic_load_explicit(&db->state->sync_due, memory_order_acquire);
    int64_t left = due == 0 ? IDLE_NS : (int64_t)due - os_now();
    return left < 0 ? 0 : left < IDLE_NS ? left : IDLE_NS;
}

static void sweep_sometimes(shale_db *db)
{
    int64_t now = os_now();
    os_mutex_lock(&db->compact_mutex);
    bool due = now - db->last_sweep > SWEEP_NS;
    if (due) {
        db->last_sweep = now;
    }
    os_mutex_unlock(&db->compact_mutex);
    if (due) {
        (void)db_sweep(db);
    }
}

static void log_trouble(shale_db *db, int rc)
{
    if (rc != SHALE_OK && rc != SHALE_NOTFOUND && rc != SHALE_BUSY && rc != SHALE_CANCELLED) {
        db_log(db, 0, "%s", shale_errmsg());
    }
}

static void *maintain(void *ctx)
{
    shale_db *db = ctx;
    struct state *s = db->state;
    struct os_wait forever = os_wait_forever();
    while (atomic_load(&db->stopping) == 0) {
        uint32_t word = atomic_load_explicit(&s->work, memory_order_acquire);
        uint64_t bytes;
        log_trouble(db, db_sync_due(db, false));
        int rc =
            resting(db) ? SHALE_NOTFOUND : db_work_one(db, SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, &bytes);
        log_trouble(db, rc);
        os_audit_clean("maintenance");
        db_views_free(db, 0);
        db_mems_free(db, true);
        if (rc == SHALE_OK) {
            continue;
        }
        db_drop_stale_view(db);
        db_fold_counters(db);
        sweep_sometimes(db);
        atomic_store_explicit(&s->work_asleep, 1, memory_order_seq_cst);
        if (atomic_load(&db->stopping) == 0 && atomic_load_explicit(&s->work, memory_order_seq_cst) == word) {
            (void)os_sleep(&forever, &s->work, word, sleep_time(db));
        }
    }
    return NULL;
}

/* Caller holds threads_mutex. As many as there can be. */
static void threads_start(shale_db *db)
{
    db->last_sweep = os_now();
    db->threads = base_calloc(db->options.threads, sizeof *db->threads);
    int rc = db->threads == NULL ? SHALE_NOMEM : SHALE_OK;
    while (rc == SHALE_OK && db->thread_count < db->options.threads) {
        rc = os_thread_start(&db->threads[db->thread_count], maintain, db, "shale-work");
        db->thread_count += rc == SHALE_OK;
    }
    log_trouble(db, rc);
    if (db->thread_count == 0) { /* the next call tries again */
        free(db->threads);
        db->threads = NULL;
        atomic_store(&db->calls_alone, 1);
    }
}

void db_threads_begin(shale_db *db)
{
    if (BASE_LIKELY(atomic_load_explicit(&db->calls_alone, memory_order_relaxed) == 0)) {
        return;
    }
    os_mutex_lock(&db->threads_mutex);
    if (atomic_exchange(&db->calls_alone, 0) != 0 && atomic_load(&db->stopping) == 0) {
        state_row_tell(db->row);
        if (db->options.threads != 0) {
            threads_start(db);
        }
    }
    os_mutex_unlock(&db->threads_mutex);
}

void db_threads_look(shale_db *db)
{
    if (BASE_LIKELY(atomic_load_explicit(&db->calls_alone, memory_order_relaxed) == 0)) {
        return;
    }
    struct state_view tuple;
    state_load_tuple(db->state, &tuple);
    if (tuple.oldest != db_active(db->state) || db_prepare_due(db)) {
        db_threads_begin(db);
    }
}

void db_threads_call(shale_db *db)
{
    uint32_t left = atomic_load_explicit(&db->calls_alone, memory_order_relaxed);
    while (left > 1 && !atomic_compare_exchange_weak_explicit(&db->calls_alone, &left, left - 1,
                                                              memory_order_relaxed, memory_order_relaxed)) {
    }
    if (left == 1) {
        db_threads_begin(db);
    }
}

void db_threads_stop(shale_db *db)
{
    db_keep_stop(db);
    os_mutex_lock(&db->threads_mutex);
    atomic_store(&db->stopping, 1);
    os_mutex_unlock(&db->threads_mutex);
    if (db->thread_count != 0) {
        atomic_fetch_add(&db->state->work, 1);
        os_wake(&db->state->work, INT32_MAX);
    }
    for (unsigned i = 0; i < db->thread_count; i++) {
        os_thread_join(db->threads[i]);
    }
    db->thread_count = 0;
    free(db->threads);
    db->threads = NULL;
}
