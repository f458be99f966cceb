/* range.c - compacting a range of keys by hand, beside those who compact what is due.
 *
 * Level by level, in units: all of L0, or as many neighbouring tables as make 16 with what they overlap
 * below. All of a database, if it is not too large, in one merge instead (doc/decisions/0016); afterwards its
 * log is made small.
 */
#include "db/compact.h"

/* Between tries at a level that others compact: short, because the moments in which it is free are, too. */
#define RANGE_NAP_NS     100000
#define RANGE_NAP_MAX_NS 2000000
#define WISH_NS          UINT64_C(20000000) /* ten naps */
/* A unit of a range compacted by hand: more at a time means fewer tables of the level below that two units
 * rewrite, and more space that is needed meanwhile. */
#define RANGE_TABLES 16
/* What may be merged in one go, while L0 can't be compacted: so many tables; and 8 times what still goes into
 * L0 before writers stall, so that it is over before a writer at full speed, slowed down as it is then, comes
 * there. */
#define ALL_TABLES   64
#define ALL_PER_ROOM 8
#define ALL_WAIT_NS  INT64_C(1000000000) /* all levels at once may never be free */

/* ---- wishes ----
 *
 * The lock bytes of the levels have no queue: who compacts a range by hand would, beside processes that find
 * work in the same levels all the time, hardly ever meet a moment in which they are free. So it says which
 * ones it waits for, and for a while nobody else begins anything there. A wish passes by itself: its maker
 * may be dead. */

static uint64_t wish(shale_db *db, unsigned level, unsigned to)
{
    uint64_t until = (uint64_t)os_now() + WISH_NS;
    for (unsigned l = level; l <= to; l++) {
        atomic_store_explicit(&db->state->wish[l], until, memory_order_relaxed);
    }
    return until;
}

/* By anybody whose wish is not `own`. */
bool db_wished_for(const shale_db *db, unsigned level, unsigned to, uint64_t own)
{
    for (unsigned l = level; l <= to; l++) {
        uint64_t until = atomic_load_explicit(&db->state->wish[l], memory_order_relaxed);
        if (until != 0 && until != own && until - (uint64_t)os_now() <= WISH_NS) { /* else past, or noise */
            return true;
        }
    }
    return false;
}

bool db_level0_presses(shale_db *db)
{
    struct db_guard g;
    uint64_t seq;
    bool urgent = false;
    if (db_view_enter(db, &g, &seq) == SHALE_OK) {
        urgent = db_level0_urgent(db, g.view->version);
        db_view_leave(db, &g);
    }
    return urgent;
}

/* ---- a range, by hand ---- */

struct range_work {
    shale_db *db;
    struct slice lo, hi; /* data NULL: unbounded */
    struct os_wait wait;
    shale_progress progress;
    void *ctx;
    uint64_t done, total;
    uint64_t wish;    /* the last one of its own */
    struct buf after; /* of the level: the largest key of the units that are done */
};

/* One unit of a level: all of L0, or the range's first tables. SHALE_NOTFOUND: nothing of the range is in
 * that level, or as many units were done as it held at first (*left, UINT32_MAX before): others go on filling
 * it, and a busy database would keep us for ever. */
static int range_unit(struct range_work *w, unsigned level, uint32_t *left)
{
    struct db_view *view;
    struct compaction c;
    uint32_t first, count;
    uint64_t seq;
    int rc = db_view_get(w->db, &view, &seq);
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned to = db_level_output(w->db, view->version, level);
    db_view_unref(view);
    rc = os_compact_try(&w->db->roles, level, to);
    if (rc == SHALE_BUSY) {
        w->wish = wish(w->db, level, to);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_view_get(w->db, &view, &seq);
    if (rc == SHALE_OK) {
        const struct version *v = view->version;
        bool begun = level != 0 && w->after.size != 0;
        version_overlap(v, level, begun ? buf_slice(&w->after) : w->lo, w->hi, &first, &count);
        *left = *left != UINT32_MAX ? *left : level == 0 ? 1 : count;
        if (count == 0 || *left == 0) {
            rc = SHALE_NOTFOUND;
        } else if (db_level_output(w->db, v, level) != to) {
            rc = SHALE_BUSY; /* the base level moved meanwhile: look again */
        } else {
            uint64_t most = RANGE_TABLES * (uint64_t)w->db->options.target_table_bytes;
            db_compaction_pick_run(v, level, to, first, count, most, &c);
            c.progress = w->progress;
            c.progress_ctx = w->ctx;
            c.progress_before = w->done;
            c.progress_total = w->total > w->done + c.bytes ? w->total : w->done + c.bytes;
            bool whole = true;
            while ((rc = db_compaction_run(w->db, view, &c)) == SHALE_NOSPC && db_compaction_halve(v, &c)) {
                whole = false; /* what is done frees its inputs, and the other half has more room */
            }
            w->done += rc == SHALE_OK ? c.bytes : 0;
            uint32_t units = level != 0 ? c.upper_count : whole;
            *left -= rc != SHALE_OK ? 0 : units < *left ? units : *left;
            if (rc == SHALE_OK && level != 0) {
                const struct buf *last = &c.upper[c.upper_count - 1]->info.largest;
                rc = buf_set(&w->after, last->data, last->size);
            }
            rc = rc == SHALE_NOTFOUND ? SHALE_BUSY : rc;
        }
        db_view_unref(view);
    }
    os_compact_unlock(&w->db->roles, level, to);
    return rc;
}

static unsigned bottom_level(shale_db *db, uint64_t *bytes)
{
    struct db_guard g;
    uint64_t seq;
    unsigned bottom = 0;
    *bytes = 0;
    if (db_view_enter(db, &g, &seq) == SHALE_OK) {
        for (unsigned l = 0; l < VERSION_LEVELS; l++) {
            *bytes += g.view->version->level[l].bytes;
            bottom = g.view->version->level[l].count != 0 ? l : bottom;
        }
        db_view_leave(db, &g);
    }
    return bottom;
}

/* Others keep the level busy. Their work ends; how long that takes nobody knows: the caller is asked
 * meanwhile. */
static int range_wait(struct range_work *w, unsigned level, int64_t nap)
{
    uint64_t total = w->total > w->done ? w->total : w->done;
    if (w->progress != NULL && w->progress(w->ctx, w->done, total) != 0) {
        return err_set(SHALE_CANCELLED, "%s: compaction cancelled", w->db->path);
    }
    int rc = os_sleep(&w->wait, NULL, 0, nap);
    if (rc == SHALE_BUSY) {
        return err_set(rc, "%s: busy: another process compacts level %u", w->db->path, level);
    }
    return rc == SHALE_OK ? rc : err_set(rc, "%s: interrupted", w->db->path);
}

/* Between its units it lets others in who compact ranges, for as long as their naps are, and who keep writers
 * from stalling; not those who would compact the same level by themselves, a table at a time. */
static void range_between(struct range_work *w, unsigned level)
{
    if (db_wished_for(w->db, level, level + 1, w->wish) || db_level0_presses(w->db)) {
        os_nap(2 * RANGE_NAP_MAX_NS);
    } else if (level != 0) {
        w->wish = wish(w->db, level, level + 1);
    }
}

static int range_level(struct range_work *w, unsigned level)
{
    int64_t nap = RANGE_NAP_NS;
    uint32_t left = UINT32_MAX;
    w->after.size = 0;
    for (;;) {
        int rc = range_unit(w, level, &left);
        if (rc == SHALE_NOTFOUND) {
            return SHALE_OK;
        }
        if (rc == SHALE_BUSY) {
            rc = range_wait(w, level, nap);
            nap = nap < RANGE_NAP_MAX_NS ? nap * 2 : nap;
        } else if (rc == SHALE_OK) {
            nap = RANGE_NAP_NS;
            w->wait = db_wait(w->db);
            range_between(w, level);
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

static bool range_is_all(const struct range_work *w)
{
    return w->lo.data == NULL && w->hi.data == NULL;
}

/* Does L0's way to the bottom lead through other tables, or over a level between, and can all be held up for
 * so long? Then one merge is better than two. */
static bool is_worth_all(const shale_db *db, const struct version *v, unsigned bottom, uint64_t bytes)
{
    uint32_t l0 = v->level[0].count;
    uint64_t room = db->options.l0_stop > l0 ? db->options.l0_stop - l0 : 0, space = 0;
    bool between = db_level_output(db, v, 0) != bottom;
    for (unsigned l = 1; l < bottom; l++) {
        between = between || v->level[l].count != 0;
    }
    return bottom != 0 && l0 != 0 && between &&
           bytes <= ALL_TABLES * (uint64_t)db->options.target_table_bytes &&
           bytes <= ALL_PER_ROOM * room * db->options.memtable_bytes &&
           os_free_bytes(db->dirfd, &space) == SHALE_OK && bytes + 4 * db->options.memtable_bytes <= space;
}

/* As things stand. */
static bool wants_all(struct range_work *w, unsigned bottom)
{
    struct db_view *view;
    uint64_t seq;
    if (db_view_get(w->db, &view, &seq) != SHALE_OK) {
        return false;
    }
    bool wants = is_worth_all(w->db, view->version, bottom, w->total);
    db_view_unref(view);
    return wants;
}

static int range_all_once(struct range_work *w)
{
    struct db_view *view;
    uint64_t seq;
    unsigned bottom = bottom_level(w->db, &w->total);
    if (!wants_all(w, bottom)) {
        return SHALE_NOTFOUND;
    }
    int rc = os_compact_try(&w->db->roles, 0, bottom);
    if (rc == SHALE_BUSY) {
        w->wish = wish(w->db, 0, bottom);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_view_get(w->db, &view, &seq);
    if (rc == SHALE_OK) {
        rc = SHALE_NOTFOUND;
        if (bottom_level(w->db, &w->total) == bottom &&
            is_worth_all(w->db, view->version, bottom, w->total)) {
            struct compaction c;
            db_compaction_pick_all(view->version, bottom, &c);
            c.progress = w->progress;
            c.progress_ctx = w->ctx;
            c.progress_total = c.bytes;
            rc = db_compaction_run(w->db, view, &c);
            w->done += rc == SHALE_OK ? c.bytes : 0;
        }
        db_view_unref(view);
    }
    os_compact_unlock(&w->db->roles, 0, bottom);
    return rc;
}

/* Everything at once. SHALE_NOTFOUND: not worth it, or there is not the space or the moment for that: level
 * by level needs less of either. */
static int range_all(struct range_work *w)
{
    int64_t nap = RANGE_NAP_NS, start = os_now(), patience = (w->wait.deadline - start) / 4;
    int rc;
    patience = patience < ALL_WAIT_NS ? patience : ALL_WAIT_NS;
    while ((rc = range_all_once(w)) == SHALE_BUSY && os_now() - start < patience &&
           (rc = range_wait(w, 0, nap)) == SHALE_OK) {
        nap = nap < RANGE_NAP_MAX_NS ? nap * 2 : nap;
    }
    return rc == SHALE_NOSPC || rc == SHALE_BUSY ? SHALE_NOTFOUND : rc;
}

static int range_levels(struct range_work *w)
{
    int rc = range_level(w, 0);
    unsigned bottom = bottom_level(w->db, &w->total);
    for (unsigned l = 1; rc == SHALE_OK && l < bottom; l++) {
        rc = range_level(w, l);
    }
    return rc;
}

/* What is in memory goes to tables first; on a full disk (*full) after what is in tables, which gives space
 * back. SHALE_NOTFOUND: the levels are to be gone through one by one. */
static int flush_and_all(struct range_work *w, bool *full)
{
    bool all = range_is_all(w);
    atomic_fetch_add(&w->db->compacting_all, all);
    int rc = shale_flush(w->db);
    *full = rc == SHALE_NOSPC;
    w->wait = db_wait(w->db); /* others have kept nothing busy yet */
    if (rc == SHALE_OK || *full) {
        rc = all ? range_all(w) : SHALE_NOTFOUND;
    }
    atomic_fetch_sub(&w->db->compacting_all, all);
    return rc;
}

int shale_compact_range(shale_db *db, const void *lo, size_t lolen, const void *hi, size_t hilen,
                        shale_progress progress, void *ctx)
{
    int rc = db_check_write(db);
    if (rc == SHALE_OK && ((lo == NULL && lolen != 0) || (hi == NULL && hilen != 0))) {
        rc = err_set(SHALE_INVALID, "shale_compact_range: a bound of non-zero length has no data");
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct range_work w = {.db = db,
                           .lo = slice_make(lo, lolen),
                           .hi = slice_make(hi, hilen),
                           .wait = db_wait(db),
                           .progress = progress,
                           .ctx = ctx};
    bool full = false;
    rc = flush_and_all(&w, &full);
    if (rc == SHALE_NOTFOUND) {
        rc = range_levels(&w);
    }
    if (rc == SHALE_OK && full) {
        rc = shale_flush(db);
        rc = rc == SHALE_OK ? range_levels(&w) : rc;
    }
    if (rc == SHALE_OK && range_is_all(&w)) {
        db_log_rest(db);
    }
    buf_release(&w.after);
    if (rc == SHALE_OK && progress != NULL) {
        (void)progress(ctx, w.done, w.done);
    }
    return rc;
}
