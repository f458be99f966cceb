/* stat.c - what a database tells of itself: counters, who is connected, sizes, and the wait for a change.
 *
 * Counters live in each handle's row of STATE; rows and what closed handles left are summed. A thread's own
 * counters (point reads) are folded into the row now and then. A row is believed only while its byte of LIVE
 * is locked.
 */
#include "db/db.h"

#include <stdio.h>

/* ---- counters ---- */

/* What came since the last fold. Several threads may fold at once: each gets its own part. */
static uint64_t unfolded(const _Atomic uint64_t *count, _Atomic uint64_t *folded)
{
    uint64_t now = atomic_load_explicit(count, memory_order_relaxed);
    uint64_t before = atomic_load_explicit(folded, memory_order_relaxed);
    while (before < now && !atomic_compare_exchange_weak(folded, &before, now)) {
    }
    return before < now ? now - before : 0;
}

void db_fold_counters(shale_db *db)
{
    for (unsigned i = 0, top = db_hazards_top(); i < top; i++) {
        struct db_hazard *h = db_hazard(db, i);
        if (h != NULL) {
            DB_COUNT(db, gets, unfolded(&h->gets, &h->gets_folded));
            DB_COUNT(db, gets_found, unfolded(&h->gets_found, &h->found_folded));
        }
    }
}

/* Is row i somebody's? Our own locks are invisible to a test through our own descriptor. */
static bool row_is_live(const shale_db *db, unsigned i)
{
    bool taken = false;
    if ((int)i == db->row_index) {
        return true;
    }
    return os_lock_test(db->live_fd, OS_LIVE_SLOT + i, 1, true, &taken) == SHALE_OK && taken;
}

static uint32_t count_rows(const shale_db *db)
{
    uint32_t n = 0;
    for (unsigned i = 0; db->live_fd >= 0 && i < STATE_ROWS; i++) {
        n += row_is_live(db, i);
    }
    return n;
}

static uint64_t file_bytes(const shale_db *db, const char *name)
{
    struct stat st;
    return os_stat_at(db->dirfd, name, &st) == SHALE_OK ? (uint64_t)st.st_size : 0;
}

static void stat_view(shale_db *db, const struct db_view *view, shale_stats *st)
{
    const struct version *v = view->version;
    char name[MANIFEST_NAME_SIZE];
    manifest_name(v->manifest, name);
    st->disk_bytes = file_bytes(db, name);
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        st->level_tables[l] = v->level[l].count;
        st->level_bytes[l] = v->level[l].bytes;
        st->disk_bytes += v->level[l].bytes;
        for (uint32_t i = 0; i < v->level[l].count; i++) {
            st->keys_estimate += v->level[l].tables[i]->info.entries - v->level[l].tables[i]->info.deletes;
        }
    }
    for (unsigned i = 0; i < view->mem_count; i++) {
        st->memtable_bytes += mem_used(view->mem[i]);
        st->disk_bytes += view->mem[i]->seg->size;
        st->keys_estimate += mem_keys(view->mem[i]);
    }
    st->sealed_memtables = view->mem_count == 0 ? 0 : view->mem_count - 1;
}

static void stat_counters(shale_db *db, shale_stats *st)
{
    const struct state *s = db->state;
    struct state_totals t;
    if (s == NULL) {
        return;
    }
    state_sum(s, &t);
    st->epoch = atomic_load_explicit(&s->epoch, memory_order_acquire);
    st->synced_seq = atomic_load_explicit(&s->synced_seq, memory_order_acquire);
    st->puts = t.puts;
    st->deletes = t.deletes;
    st->gets = t.gets;
    st->gets_found = t.gets_found;
    st->seeks = t.seeks;
    st->commits = t.commits;
    st->fsyncs = t.fsyncs;
    st->stalls = t.stalls;
    st->stall_us = t.stall_us;
    st->flushes = t.flushes;
    st->flush_bytes = t.flush_bytes;
    st->compactions = t.compactions;
    st->compact_read_bytes = t.compact_read_bytes;
    st->compact_write_bytes = t.compact_write_bytes;
    st->queue_waits = t.queue_waits;
    st->queue_wait_us = t.queue_wait_us;
    st->queue_wait_max_us = t.queue_wait_max_us;
    st->handles = count_rows(db);
}

int shale_stat(shale_db *db, shale_stats *stats)
{
    shale_stats st = {0};
    struct db_view *view;
    int rc = db_check(db);
    if (rc == SHALE_OK && (stats == NULL || stats->size < sizeof stats->size)) {
        rc = err_set(SHALE_INVALID, "shale_stat: set stats.size to sizeof(shale_stats) first");
    }
    if (rc == SHALE_OK) {
        rc = db_view_get(db, &view, &st.seq);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    db_fold_counters(db);
    stat_view(db, view, &st);
    db_view_unref(view);
    stat_counters(db, &st);
    st.bloom_checks = atomic_load_explicit(&db->table_counters.bloom_checks, memory_order_relaxed);
    st.bloom_useful = atomic_load_explicit(&db->table_counters.bloom_useful, memory_order_relaxed);
    st.cache_hits = atomic_load_explicit(&db->table_counters.cache_hits, memory_order_relaxed);
    st.cache_misses = atomic_load_explicit(&db->table_counters.cache_misses, memory_order_relaxed);
    st.size = stats->size < sizeof st ? stats->size : sizeof st;
    memcpy(stats, &st, st.size);
    return SHALE_OK;
}

/* ---- who ---- */

/* Shared memory may change while it is read: a bounded copy, by whole words as it is written, that ends in
 * NUL. */
static void copy_text(char *to, const char *from, size_t size)
{
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        put_u64(to + i, atomic_load_explicit((const _Atomic uint64_t *)(const void *)(from + i),
                                             memory_order_relaxed));
    }
    to[size - 1] = '\0';
}

static int tell_peer(shale_db *db, unsigned i, int (*fn)(void *ctx, const shale_peer *peer), void *ctx)
{
    const struct state_row *row = &db->state->rows[i];
    char program[sizeof row->program], text[sizeof row->doing], doing[sizeof row->doing + 16];
    copy_text(program, row->program, sizeof program);
    copy_text(text, row->doing, sizeof text);
    uint64_t done = atomic_load_explicit(&row->done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&row->total, memory_order_relaxed);
    if (text[0] != '\0' && total != 0) {
        unsigned percent = done >= total ? 100 : (unsigned)(done * 100 / total);
        (void)snprintf(doing, sizeof doing, "%s, %u %%", text, percent);
    } else {
        (void)snprintf(doing, sizeof doing, "%s", text);
    }
    uint64_t now = os_wall(), since = atomic_load_explicit(&row->view_since, memory_order_relaxed);
    uint64_t view_epoch = atomic_load_explicit(&row->view_epoch, memory_order_relaxed);
    bool stale =
        view_epoch != 0 && view_epoch != atomic_load_explicit(&db->state->epoch, memory_order_relaxed);
    shale_peer peer = {.size = sizeof peer,
                       .pid = (int64_t)atomic_load_explicit(&row->pid, memory_order_relaxed),
                       .pid_ns = atomic_load_explicit(&row->pid_ns, memory_order_relaxed),
                       .since_ns = atomic_load_explicit(&row->since, memory_order_relaxed),
                       .program = program,
                       .doing = doing,
                       .view_age_ms = stale && now > since ? (now - since) / 1000000 : 0,
                       .puts = atomic_load_explicit(&row->counters.puts, memory_order_relaxed),
                       .gets = atomic_load_explicit(&row->counters.gets, memory_order_relaxed),
                       .flushes = atomic_load_explicit(&row->counters.flushes, memory_order_relaxed),
                       .compactions = atomic_load_explicit(&row->counters.compactions, memory_order_relaxed)};
    return fn(ctx, &peer);
}

/* Read-only handles may not open LIVE for a lock test; they tell every row that says who it is, living or
 * not. */
int shale_who(shale_db *db, int (*fn)(void *ctx, const shale_peer *peer), void *ctx)
{
    int rc = db_check(db);
    if (rc == SHALE_OK && fn == NULL) {
        rc = err_set(SHALE_INVALID, "shale_who: no callback");
    }
    if (rc != SHALE_OK || db->state == NULL) {
        return rc;
    }
    db_fold_counters(db);
    state_row_tell(db->row);
    for (unsigned i = 0; i < STATE_ROWS; i++) {
        bool named = atomic_load_explicit(&db->state->rows[i].pid, memory_order_relaxed) != 0;
        if (named && (db->live_fd < 0 || row_is_live(db, i))) {
            rc = tell_peer(db, i, fn, ctx);
            if (rc != 0) {
                return rc;
            }
        }
    }
    return SHALE_OK;
}

/* ---- waiting for a change ---- */

static int sleep_for_change(shale_db *db, const struct os_wait *wait, uint64_t seq)
{
    struct state *s = db->state;
    if (db->readonly) {
        return os_sleep(wait, NULL, 0, 5000000); /* it can set no flag */
    }
    uint32_t word = atomic_load_explicit(&s->change, memory_order_seq_cst);
    atomic_store_explicit(&s->change_asleep, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&s->visible_seq, memory_order_seq_cst) > seq) {
        return SHALE_OK;
    }
    return os_sleep(wait, &s->change, word, 200000000);
}

int shale_wait_change(shale_db *db, uint64_t seq, int64_t timeout_ms, uint64_t *now)
{
    int rc = db_check(db);
    if (now != NULL) {
        *now = 0;
    }
    if (rc == SHALE_OK && timeout_ms < -1) {
        rc =
            err_set(SHALE_INVALID, "timeout_ms is %lld: -1 is for ever, 0 tries once", (long long)timeout_ms);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    db_threads_begin(db); /* this call may be a long one */
    struct os_wait wait = db_wait_ms(db, timeout_ms);
    for (;;) {
        struct db_guard g;
        uint64_t visible;
        rc = db_view_enter(db, &g, &visible);
        if (rc != SHALE_OK) {
            return rc;
        }
        db_view_leave(db, &g);
        if (visible > seq) {
            if (now != NULL) {
                *now = visible;
            }
            return SHALE_OK;
        }
        rc = sleep_for_change(db, &wait, seq);
        if (rc == SHALE_BUSY) {
            return err_set(rc, "%s: nothing was written within %lld ms", db->path, (long long)timeout_ms);
        }
        if (rc != SHALE_OK) {
            return err_set(rc, "%s: interrupted", db->path);
        }
    }
}

/* ---- sizes ---- */

static uint64_t table_share(shale_db *db, struct version_table *vt, struct slice lo, struct slice hi)
{
    struct table *t;
    if (slice_compare(lo, buf_slice(&vt->info.smallest)) <= 0 &&
        (hi.data == NULL || slice_compare(buf_slice(&vt->info.largest), hi) < 0)) {
        return vt->info.size;
    }
    if ((hi.data != NULL && slice_compare(hi, buf_slice(&vt->info.smallest)) <= 0) ||
        slice_compare(lo, buf_slice(&vt->info.largest)) > 0 ||
        version_table_open(vt, db->dirfd, db->cache, db->options.verify_checksums, &t) != SHALE_OK) {
        return 0;
    }
    uint64_t from = table_offset_of(t, lo), to = hi.data == NULL ? vt->info.size : table_offset_of(t, hi);
    return to > from ? to - from : 0;
}

/* Entries are looked at one by one, up to a bound; beyond it their average stands for all keys of the range.
 */
static uint64_t mem_share(const struct mem_index *mem, uint64_t seq, struct slice lo, struct slice hi)
{
    struct mem_iter it;
    uint64_t bytes = 0, n = 0;
    mem_iter_init(&it, mem, seq);
    int rc = mem_iter_seek(&it, lo);
    while (rc == SHALE_OK && n < 4096 && (hi.data == NULL || slice_compare(it.key, hi) < 0)) {
        bytes += it.key.size + it.value.size;
        n++;
        rc = mem_iter_next(&it);
    }
    uint64_t all = rc == SHALE_OK && n == 4096 ? mem_keys_between(mem, lo, hi) : n;
    return all > n ? bytes / n * all : bytes;
}

int shale_approximate_size(shale_db *db, const void *lo, size_t lolen, const void *hi, size_t hilen,
                           uint64_t *bytes)
{
    struct db_view *view;
    uint64_t seq, sum = 0;
    struct slice from = slice_make(lo, lolen), to = slice_make(hi, hilen);
    int rc = db_check(db);
    if (bytes != NULL) {
        *bytes = 0;
    }
    if (rc == SHALE_OK && (bytes == NULL || (lo == NULL && lolen != 0) || (hi == NULL && hilen != 0))) {
        rc = err_set(
            SHALE_INVALID,
            "shale_approximate_size: a bound of non-zero length, or the place for the answer, is missing");
    }
    if (rc == SHALE_OK) {
        rc = db_snapshot_view(db, NULL, &view, &seq);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    for (unsigned i = 0; i < view->mem_count; i++) {
        sum += mem_share(view->mem[i], seq, from, to);
    }
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; i < view->version->level[l].count; i++) {
            sum += table_share(db, view->version->level[l].tables[i], from, to);
        }
    }
    db_view_unref(view);
    *bytes = sum;
    return SHALE_OK;
}
