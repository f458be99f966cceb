/* segment.c - log segments made ready ahead of need, and what becomes of them afterwards.
 *
 * Making one takes milliseconds (space, header, fsync, directory), so it happens under PREPARE, before WRITE
 * is taken: when the active one is half full, one of up to 1 MiB to an eighth, a maintenance thread does it,
 * or the writer that finds none ready. Order, so that a killed maker harms nobody:
 *
 *     000013.wal under a temporary name, synced, renamed NOREPLACE, directory synced     (wal_make)
 *     000013.mem                                                                         (mem_make)
 *     ready = 13                                                                         last
 *
 * Rotation looks at `ready` alone. Who finds the name but a lower `ready` met a dead maker: it syncs file and
 * directory, sees to the index, and raises it. PREPARE only avoids double work: after 100 ms (its holder may
 * be stopped) others prepare without it, and NOREPLACE decides.
 *
 * Each segment is twice the last up to memtable_bytes: a small database stays small on disk. A record that
 * fits none raises `need`, and the next one is made that much longer. One retired segment is kept as the
 * spare, to be recycled: its blocks are allocated and were written, so that a later fdatasync has no extents
 * to convert. But only where it was synced: else its pages are dirty still, and the fsync of its new header
 * would write all of them, for nothing; without a name they just go. [I-11] wal_make reuses it only if nobody
 * maps it any more.
 */
#include "db/db.h"

static uint64_t size_of(const shale_db *db, uint32_t number)
{
    char name[WAL_NAME_SIZE];
    struct stat st;
    wal_name(number, name);
    return os_stat_at(db->dirfd, name, &st) == SHALE_OK ? (uint64_t)st.st_size : 0;
}

/* What a log at rest may have: from there it is back at its full size after three segments. */
static uint64_t rest_size(const shale_db *db)
{
    uint64_t size = align_up(db->options.memtable_bytes / 8, 4096);
    return size > WAL_MIN_SIZE ? size : WAL_MIN_SIZE;
}

static uint64_t next_size(shale_db *db, uint32_t last, uint64_t need, bool rest)
{
    uint64_t most = align_up(db->options.memtable_bytes, 4096),
             size = rest ? rest_size(db) : 2 * size_of(db, last);
    size = size < most ? size : most;
    if (need > size) {
        size = need <= most ? need : most + need;
    }
    size = align_up(size > WAL_MIN_SIZE ? size : WAL_MIN_SIZE, 4096);
    return size < WAL_MAX_SIZE ? size : WAL_MAX_SIZE;
}

/* What a large record waits for. More than any record can need is no wish of anybody's. */
static uint64_t wanted(struct state *s)
{
    uint64_t need = atomic_load_explicit(&s->need, memory_order_acquire);
    uint64_t log = wal_record_size(DB_MAX_BATCH), index = mem_need(WAL_MAX_ENTRIES);
    if (need > (log > index ? log : index) + WAL_FIRST) {
        (void)atomic_compare_exchange_strong(&s->need, &need, 0);
        return 0;
    }
    return need;
}

/* The name is there, made by us or by another, perhaps a dead one: complete it. */
static int complete_segment(shale_db *db, uint32_t number, bool found)
{
    struct wal_segment *seg = NULL;
    struct mem_index *mem = NULL;
    int rc = wal_open(db->dirfd, db->uuid, number, true, &seg);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (found) {
        rc = os_fsync(seg->fd);
        if (rc == SHALE_OK) {
            rc = os_sync_dir(db->dirfd);
        }
    }
    if (rc == SHALE_OK) {
        rc = mem_open(db->mem_dirfd, seg, true, &mem);
    }
    if (rc == SHALE_NOTFOUND) {
        rc = db_mem_make(db, seg);
        rc = rc == SHALE_EXISTS ? SHALE_OK : rc;
    }
    os_mark(OS_MARK_PREPARE);
    if (rc == SHALE_OK) {
        state_raise(&db->state->ready, number);
        os_mark(OS_MARK_PREPARE);
    }
    mem_unref(mem);
    wal_unref(seg);
    return rc;
}

static int check_removed(const shale_db *db)
{
    int rc = db_check_removed(db);
    return rc != SHALE_OK ? rc : db_check_mem_dir(db);
}

/* What a large record waited for, and for which there is no room, stands in nobody else's way. */
static int no_room(shale_db *db, uint64_t need)
{
    (void)atomic_compare_exchange_strong(&db->state->need, &need, 0);
    return err_wrap(SHALE_NOSPC, "%s", db->path);
}

/* For one who makes a segment of it, or removes it. 0: there is none; or STATE names one that is no spare. */
static uint32_t take_spare(shale_db *db)
{
    struct state_view tuple;
    uint64_t spare = atomic_exchange_explicit(&db->state->spare, 0, memory_order_acq_rel);
    state_load_tuple(db->state, &tuple);
    return spare < tuple.oldest ? (uint32_t)spare : 0;
}

static int make_segment(shale_db *db, bool rest)
{
    struct state *s = db->state;
    uint32_t number = (uint32_t)atomic_load_explicit(&s->ready, memory_order_acquire) + 1;
    uint64_t need = wanted(s);
    uint32_t spare = need != 0 ? 0 : take_spare(db);
    os_mark(OS_MARK_PREPARE);
    int rc =
        wal_make(db->dirfd, db->uuid, number, next_size(db, number - 1, need, rest), db->options.mode, spare);
    bool found = rc == SHALE_EXISTS;
    bool reused = false;
    if (spare != 0) {
        char name[WAL_NAME_SIZE];
        struct stat st;
        wal_name(spare, name);
        reused = rc == SHALE_OK && os_stat_at(db->dirfd, name, &st) == SHALE_NOTFOUND;
        (void)os_unlink(db->dirfd,
                        name); /* in use by a reader, or of another size: it goes with its last mapping */
    }
    if (rc == SHALE_OK || found) {
        rc = complete_segment(db, number, found);
    }
    if (rc == SHALE_OK && need != 0) {
        (void)atomic_compare_exchange_strong(&s->need, &need, 0);
    }
    if (rc == SHALE_OK) {
        DB_COUNT(db, prepared, 1);
        DB_COUNT(db, recycled, reused);
    }
    if (rc == SHALE_NOSPC) {
        return no_room(db, need);
    }
    /* gone already: others made it, used it and retired it while this process stood still; unless everything
     * is gone */
    return rc == SHALE_NOTFOUND ? check_removed(db) : rc;
}

static bool segment_is_ready(const struct state *s)
{
    return atomic_load_explicit(&s->ready, memory_order_acquire) > db_active(s);
}

static int prepare(shale_db *db, uint64_t need, bool rest, const struct os_wait *wait)
{
    struct state *s = db->state;
    int64_t since = os_now();
    if (need > next_size(db, (uint32_t)atomic_load_explicit(&s->ready, memory_order_acquire), 0, false)) {
        state_raise(&s->need, need);
    }
    while (!segment_is_ready(s)) {
        int rc = os_role_try(&db->roles, OS_ROLE_PREPARE);
        bool held = rc == SHALE_OK;
        if (held || os_now() - since > 100000000) {
            rc = segment_is_ready(s) ? SHALE_OK : make_segment(db, rest);
            if (held) {
                os_role_unlock(&db->roles, OS_ROLE_PREPARE);
            }
            if (rc != SHALE_OK) {
                return rc;
            }
            if (segment_is_ready(s)) {
                break;
            }
        }
        rc = os_sleep(wait, NULL, 0, 500000);
        if (rc != SHALE_OK) {
            return rc == SHALE_BUSY
                       ? err_set(rc, "%s: busy: another process is making the next log segment", db->path)
                       : err_set(rc, "%s: interrupted", db->path);
        }
    }
    struct mem_index *mem;
    if (db_mem_get(db, (uint32_t)atomic_load(&s->ready), &mem) == SHALE_OK) {
        mem_unref(mem); /* mapped now, before WRITE is taken; if it can't be, the writer finds out */
    }
    return SHALE_OK;
}

int db_prepare(shale_db *db, uint64_t need, const struct os_wait *wait)
{
    return prepare(db, need, false, wait);
}

static bool log_is_empty(const struct state *s)
{
    return wal_lsn_offset(atomic_load_explicit(&s->wal_end, memory_order_relaxed)) == WAL_FIRST;
}

static void drop_spare(shale_db *db)
{
    char name[WAL_NAME_SIZE];
    uint32_t spare = take_spare(db);
    if (spare != 0) {
        wal_name(spare, name);
        (void)os_unlink(db->dirfd, name);
    }
}

/* Segment after segment is sealed, empty as it is, until a small one is the active one; what was ready had
 * the old size. Nothing is waited for: it ends where somebody writes, and where anything is busy or fails. */
void db_log_rest(shale_db *db)
{
    const struct state *s = db->state;
    struct os_wait once = {.deadline = 0};
    uint64_t bytes;
    int rc = SHALE_OK;
    bool sealed = false;
    for (unsigned i = 0;
         i < 3 && rc == SHALE_OK && log_is_empty(s) && size_of(db, db_active(s)) > rest_size(db); i++) {
        rc = prepare(db, 0, true, &once);
        rc = rc == SHALE_OK ? db_seal_empty(db) : rc;
        sealed = sealed || rc == SHALE_OK;
    }
    for (unsigned i = 0; i < 4 && sealed && db_work_one(db, SHALE_WORK_FLUSH, &bytes) == SHALE_OK; i++) {
    }
    if (log_is_empty(s) && size_of(db, db_active(s)) <= rest_size(db)) {
        drop_spare(db);
    }
    if (sealed) {
        db_wake_work(db); /* what we could not retire, others do */
    }
}

bool db_prepare_due(const shale_db *db)
{
    const struct state *s = db->state;
    uint64_t end = atomic_load_explicit(&s->wal_end, memory_order_relaxed);
    return end >= atomic_load_explicit(&db->prepare_at, memory_order_relaxed) &&
           atomic_load_explicit(&s->ready, memory_order_relaxed) <= wal_lsn_number(end);
}

void db_retire(shale_db *db, uint32_t from, uint32_t to)
{
    uint64_t synced = atomic_load_explicit(&db->state->synced_lsn, memory_order_acquire);
    for (uint32_t n = from; n < to; n++) {
        char name[WAL_NAME_SIZE];
        struct stat st;
        uint64_t none = 0;
        mem_name(n, name);
        (void)os_unlink(db->mem_dirfd, name); /* what can't be removed now, the next sweep removes */
        os_mark(OS_MARK_RECYCLE);
        wal_name(n, name);
        bool fit = synced >= wal_lsn(n + 1, 0) && os_stat_at(db->dirfd, name, &st) == SHALE_OK &&
                   (uint64_t)st.st_size >= db->options.memtable_bytes &&
                   (uint64_t)st.st_size <= 2 * db->options.memtable_bytes;
        if (!fit || !atomic_compare_exchange_strong(&db->state->spare, &none, n)) {
            (void)os_unlink(db->dirfd, name);
        }
        os_mark(OS_MARK_RECYCLE);
    }
}
