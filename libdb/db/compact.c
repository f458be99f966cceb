/* compact.c - merging tables of a level into the next: one compaction, from inputs to a committed edit.
 *
 * [I-18] Inputs come from a view taken after the level bytes were had. The newest entry of a key goes on, and
 * a tombstone only while something older may lie below. Outputs are cut at target_table_bytes, or where they
 * would overlap too much of the level below the next, which would make their own compaction dear. Commit,
 * under MANIFEST: every input must still be in the version, else the outputs are dropped; after the epoch
 * moved the inputs are unlinked. On an unknown outcome nothing is deleted.
 *
 * Giving way. A compaction between deeper levels takes seconds, and where it holds the level that L0 goes to,
 * L0 may fill up meanwhile. So when L0 presses it ends early: between two tables of its lower level, behind
 * which nothing has been read yet, it commits what it has; what is left of the upper table becomes a table of
 * its own, in the upper level.
 */
#include "db/compact.h"

/* Between looks at progress, cancelling and flushing: entries, and bytes. */
#define CHECK_EVERY     1024
#define CHECK_BYTES     (UINT64_C(1) << 20)
#define GIVE_WAY_TABLES 2 /* of the lower level: where fewer are left it is as well to go on */

/* A close waits for what is done by then, and no more than twice as long. */
#ifdef SHALE_DEBUG
int64_t db_close_wait_ns = 500000000;
#else
static const int64_t db_close_wait_ns = 500000000;
#endif

struct output {
    shale_db *db;
    struct compaction *c;
    const struct version *v;
    struct version_edit *edit;
    struct table_builder *builder;
    struct table_options table_options;
    uint32_t below[VERSION_LEVELS]; /* per level: first table that may still hold a key */
    uint32_t grandparent;           /* table of level to + 1 that the keys have reached */
    uint64_t grandparent_bytes;     /* overlapped by the current output */
    uint64_t read, written, entries;
    uint64_t looked;      /* `read`, at the last look */
    uint64_t raw;         /* what `read` will come to */
    int64_t began, until; /* until: 0, or when the close of the handle has waited long enough */
    uint32_t lower;       /* tables of the lower level that end before the keys that were reached */
    bool flush_failed, gives_way;
};

/* ---- cutting ---- */

static int output_finish(struct output *o)
{
    struct table_info info = {0};
    if (o->builder == NULL) {
        return SHALE_OK;
    }
    int rc = table_build_finish(o->builder, &info);
    o->builder = NULL;
    o->grandparent_bytes = 0;
    if (rc == SHALE_OK) {
        o->written += info.size;
        rc = version_edit_add(o->edit, o->c->to, &info);
    }
    table_info_release(&info);
    return rc;
}

/* Steps over tables of the grandparent level that end before key; their bytes count as overlapped. */
static bool too_much_below(struct output *o, struct slice key)
{
    unsigned level = o->c->to + 1;
    if (level >= VERSION_LEVELS) {
        return false;
    }
    const struct version_level *l = &o->v->level[level];
    while (o->grandparent < l->count &&
           slice_compare(buf_slice(&l->tables[o->grandparent]->info.largest), key) < 0) {
        if (o->builder != NULL) {
            o->grandparent_bytes += l->tables[o->grandparent]->info.size;
        }
        o->grandparent++;
    }
    return o->grandparent_bytes > 10 * (uint64_t)o->db->options.target_table_bytes;
}

static int output_add(struct output *o, const struct db_entry *e)
{
    bool cut = o->builder != NULL && (table_build_size(o->builder) >= o->db->options.target_table_bytes ||
                                      too_much_below(o, e->key));
    int rc = cut ? output_finish(o) : SHALE_OK;
    if (rc == SHALE_OK && o->builder == NULL) {
        uint64_t number = atomic_fetch_add(&o->db->state->next_table, 1);
        rc = table_build_start(o->db->dirfd, number, &o->table_options, &o->builder);
    }
    return rc == SHALE_OK ? table_build_add(o->builder, e->key, e->seq, e->type, e->value) : rc;
}

/* May an older entry of key lie below the output level? Keys come in order: each level's place only moves on.
 */
static bool lies_below(struct output *o, struct slice key)
{
    for (unsigned l = o->c->to + 1; l < VERSION_LEVELS; l++) {
        const struct version_level *level = &o->v->level[l];
        while (o->below[l] < level->count &&
               slice_compare(buf_slice(&level->tables[o->below[l]]->info.largest), key) < 0) {
            o->below[l]++;
        }
        if (o->below[l] < level->count &&
            slice_compare(buf_slice(&level->tables[o->below[l]]->info.smallest), key) <= 0) {
            return true;
        }
    }
    return false;
}

/* ---- packing ---- */

#ifdef SHALE_DEBUG
uint64_t db_pack_above = 0; /* tests are small, and are to meet packed blocks */
#endif

/* Are blocks to be packed in the tables that c makes of v? As long as keys and values are less than a
 * sixteenth of the machine's memory they stay raw: then the page cache holds all of them, once for all
 * processes, and a reader uses them where they lie, instead of unpacking its own copy of each.
 * doc/decisions/0013 */
static bool packs(const shale_db *db, const struct version *v, const struct compaction *c)
{
#ifdef SHALE_DEBUG
    uint64_t above = db_pack_above;
#else
    uint64_t above = os_memory_bytes() / 16;
#endif
    uint64_t bytes = 0;
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; i < v->level[l].count; i++) {
            bytes += v->level[l].tables[i]->info.raw_bytes;
        }
    }
    return c->to >= 2 && db->options.compression == SHALE_COMPRESS_LZ4 && bytes > above;
}

/* ---- flushing meanwhile ---- */

/* A compaction takes seconds, in which writers fill one memtable after the other. Where they have to wait for
 * a flush it is theirs to do, a quarter of a second each time; so it is done in between. */
static void flush_between(struct output *o)
{
    struct state_view tuple;
    uint64_t bytes;
    state_load_tuple(o->db->state, &tuple);
    if (o->flush_failed || (tuple.oldest == db_active(o->db->state) && !db_prepare_due(o->db))) {
        return;
    }
    int rc = db_work_one(o->db, SHALE_WORK_FLUSH, &bytes);
    bool goes_on =
        rc == SHALE_OK || rc == SHALE_BUSY || (rc == SHALE_NOTFOUND && db_panic(o->db) == SHALE_OK);
    o->flush_failed = !goes_on; /* who needs it will be told */
    db_doing(o->db, "compacting L%u to L%u", o->c->from, o->c->to);
}

/* ---- giving way ---- */

static void reach_lower(struct output *o, struct slice key)
{
    const struct compaction *c = o->c;
    while (o->lower < c->lower_count &&
           slice_compare(buf_slice(&c->lower[o->lower]->info.largest), key) < 0) {
        o->lower++;
    }
}

/* Does L0 press, or somebody stall whose limits are lower, and are levels held here that L0 needs? */
static bool should_give_way(struct output *o, struct slice key)
{
    const struct compaction *c = o->c;
    struct db_guard g;
    uint64_t seq;
    bool should = false;
    reach_lower(o, key);
    if (c->from == 0 || c->whole || c->lower_count - o->lower < GIVE_WAY_TABLES) {
        return false;
    }
    if (db_view_enter(o->db, &g, &seq) == SHALE_OK) {
        const struct version *v = g.view->version;
        bool stalled = atomic_load_explicit(&o->db->state->room_asleep, memory_order_relaxed) != 0;
        should = (db_level0_urgent(o->db, v) || (stalled && v->level[0].count != 0)) &&
                 db_level_output(o->db, v, 0) >= c->from;
        db_view_leave(o->db, &g);
    }
    return should;
}

/* Has all been read of the lower tables that begin before key, and are there others? */
static bool at_border(struct output *o, struct slice key)
{
    const struct compaction *c = o->c;
    reach_lower(o, key);
    return o->lower > 0 && o->lower < c->lower_count &&
           slice_compare(buf_slice(&c->lower[o->lower]->info.smallest), key) >= 0;
}

static int merge_into(struct output *o, struct db_merge *m, int rc);

/* What an upper table holds from key on, as a table of the same level. */
static int keep_rest(struct output *o, struct version_table *const *upper, struct slice key)
{
    unsigned level = o->c->from;
    struct compaction c = {
        .from = level, .to = level, .upper = upper, .upper_count = 1, .bytes = upper[0]->info.size};
    struct output rest = {.db = o->db,
                          .c = &c,
                          .v = o->v,
                          .edit = o->edit,
                          .table_options = o->table_options,
                          .raw = upper[0]->info.raw_bytes,
                          .began = os_now(),
                          .until = o->until};
    struct db_merge_options mo = {.fill_cache = false, .sequential = true};
    struct db_merge *m = NULL;
    rest.table_options.lz4 = packs(o->db, o->v, &c);
    int rc = db_merge_tables(o->db, &c, &mo, &m);
    if (rc == SHALE_OK) {
        rc = merge_into(&rest, m, db_merge_seek(m, key));
    }
    table_build_abandon(rest.builder);
    db_merge_release(m);
    o->written += rest.written;
    return rc;
}

/* Ends before key, at a border: the inputs are no more than what was read. */
static int give_way(struct output *o, struct slice key)
{
    struct compaction *c = o->c;
    uint32_t n = 0;
    int rc = output_finish(o);
    while (n < c->upper_count && slice_compare(buf_slice(&c->upper[n]->info.largest), key) < 0) {
        n++;
    }
    if (rc == SHALE_OK && n < c->upper_count &&
        slice_compare(buf_slice(&c->upper[n]->info.smallest), key) < 0) {
        rc = keep_rest(o, &c->upper[n], key);
        n++;
    }
    c->upper_count = n;
    c->lower_count = o->lower;
    c->bytes = db_tables_bytes(c->upper, c->upper_count) + db_tables_bytes(c->lower, c->lower_count);
    return rc;
}

/* ---- merging ---- */

/* Has the handle to be closed without it? What is nearly done is finished: else processes that come and go
 * would all begin the same work, and nobody would end it. */
static bool given_up(struct output *o)
{
    if (BASE_LIKELY(atomic_load_explicit(&o->db->stopping, memory_order_relaxed) == 0)) {
        return false;
    }
    int64_t now = os_now();
    if (o->until == 0) {
        double left = o->raw > o->read ? (double)(o->raw - o->read) : 0, done = (double)o->read + 1;
        bool soon = (double)(now - o->began) * left <= (double)db_close_wait_ns * done;
        o->until = soon ? now + 2 * db_close_wait_ns : now;
    }
    return now >= o->until;
}

static int look_up(struct output *o, struct slice key)
{
    struct compaction *c = o->c;
    uint64_t done = o->read < c->bytes ? o->read : c->bytes;
    o->looked = o->read;
    os_mark(OS_MARK_COMPACT);
    db_progress(o->db, done, c->bytes);
    if (given_up(o)) {
        return err_set(SHALE_CANCELLED, "%s: compaction cancelled: the handle is being closed", o->db->path);
    }
    if (o->until == 0) {
        flush_between(o);
    }
    o->gives_way = o->gives_way || should_give_way(o, key);
    if (c->progress != NULL &&
        c->progress(c->progress_ctx, c->progress_before + done, c->progress_total) != 0) {
        return err_set(SHALE_CANCELLED, "%s: compaction cancelled", o->db->path);
    }
    return SHALE_OK;
}

/* rc: of positioning m. */
static int merge_into(struct output *o, struct db_merge *m, int rc)
{
    struct db_breath breath = {.db = o->db};
    while (rc == SHALE_OK) {
        const struct db_entry *e = db_merge_entry(m);
        if (BASE_UNLIKELY(o->gives_way) && at_border(o, e->key)) {
            return give_way(o, e->key);
        }
        o->read += e->key.size + e->value.size;
        db_breathe(&breath, e->key.size + e->value.size);
        if (e->type == TABLE_PUT || lies_below(o, e->key)) {
            rc = output_add(o, e);
        }
        bool due = ++o->entries % CHECK_EVERY == 0 || o->read - o->looked >= CHECK_BYTES;
        if (rc == SHALE_OK && due) {
            rc = look_up(o, e->key);
        }
        if (rc == SHALE_OK) {
            rc = db_merge_next(m);
        } else if (rc == SHALE_NOTFOUND) {
            rc = SHALE_IO; /* a builder does not answer so */
        }
    }
    return rc == SHALE_NOTFOUND ? output_finish(o) : rc;
}

/* ---- committing ---- */

static bool level_has(const struct version *v, unsigned level, uint64_t number)
{
    for (uint32_t i = 0; i < v->level[level].count; i++) {
        if (v->level[level].tables[i]->info.number == number) {
            return true;
        }
    }
    return false;
}

static int still_there(void *ctx, const struct version *current)
{
    const struct version_edit *e = ctx;
    for (size_t i = 0; i < e->removed_count; i++) {
        if (!level_has(current, e->removed[i].level, e->removed[i].number)) {
            return SHALE_NOTFOUND;
        }
    }
    return SHALE_OK;
}

static int remove_inputs(const struct compaction *c, struct version_edit *e)
{
    int rc = SHALE_OK;
    for (uint32_t i = 0; rc == SHALE_OK && i < c->upper_count; i++) {
        rc = version_edit_remove(e, c->from, c->upper[i]->info.number);
    }
    for (unsigned l = c->from + 1; c->between != NULL && l < c->to; l++) {
        for (uint32_t i = 0; rc == SHALE_OK && i < c->between->level[l].count; i++) {
            rc = version_edit_remove(e, l, c->between->level[l].tables[i]->info.number);
        }
    }
    for (uint32_t i = 0; rc == SHALE_OK && i < c->lower_count; i++) {
        rc = version_edit_remove(e, c->to, c->lower[i]->info.number);
    }
    return rc;
}

static int copy_info(const struct table_info *from, struct table_info *to)
{
    *to = *from;
    to->smallest = to->largest = (struct buf){0};
    int rc = buf_set(&to->smallest, from->smallest.data, from->smallest.size);
    return rc == SHALE_OK ? buf_set(&to->largest, from->largest.data, from->largest.size) : rc;
}

/* A table with nothing to merge with is moved by the edit alone; not where it would escape compression. */
static bool is_trivial(const shale_db *db, const struct version *v, const struct compaction *c)
{
    bool changes_form = c->from < 2 && packs(db, v, c);
    return c->upper_count == 1 && c->lower_count == 0 && c->between == NULL && !changes_form &&
           c->upper[0]->info.deletes == 0;
}

static int move_table(shale_db *db, const struct compaction *c, struct version_edit *e)
{
    struct table_info info = {0};
    int rc = copy_info(&c->upper[0]->info, &info);
    if (rc == SHALE_OK) {
        rc = version_edit_add(e, c->to, &info);
    }
    table_info_release(&info);
    DB_COUNT(db, trivial_moves, rc == SHALE_OK);
    return rc;
}

static uint64_t raw_bytes(const struct compaction *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->upper_count; i++) {
        sum += c->upper[i]->info.raw_bytes;
    }
    for (uint32_t i = 0; i < c->lower_count; i++) {
        sum += c->lower[i]->info.raw_bytes;
    }
    return sum; /* by hand there may be more between them: nobody closes meanwhile */
}

static int rewrite_tables(shale_db *db, struct db_view *view, struct compaction *c, struct version_edit *e)
{
    struct output o = {
        .db = db, .c = c, .v = view->version, .edit = e, .raw = raw_bytes(c), .began = os_now()};
    struct db_merge_options mo = {.fill_cache = false, .sequential = true};
    struct db_merge *m = NULL;
    o.table_options = (struct table_options){.block_bytes = db->options.block_bytes,
                                             .bloom_bits = db->options.bloom_bits,
                                             .lz4 = packs(db, view->version, c),
                                             .mode = db->options.mode};
    int rc = db_merge_tables(db, c, &mo, &m);
    if (rc == SHALE_OK) {
        rc = merge_into(&o, m, db_merge_first(m));
    }
    table_build_abandon(o.builder);
    db_merge_release(m);
    if (rc == SHALE_OK && e->added_count != 0) {
        rc = os_sync_dir(db->dirfd);
    }
    if (rc == SHALE_OK) {
        DB_COUNT(db, compact_read_bytes, c->bytes);
        DB_COUNT(db, compact_write_bytes, o.written);
    }
    return rc;
}

int db_compaction_run(shale_db *db, struct db_view *view, struct compaction *c)
{
    struct version_edit edit = {0};
    bool unknown = false, trivial = is_trivial(db, view->version, c);
    db_doing(db, "compacting L%u to L%u", c->from, c->to);
    os_mark(OS_MARK_COMPACT);
    int rc = trivial ? move_table(db, c, &edit) : rewrite_tables(db, view, c, &edit);
    if (rc == SHALE_OK) {
        rc = remove_inputs(c, &edit);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_COMPACT);
        rc = db_commit_edit(db, &edit, still_there, &edit, &unknown);
    }
    if (rc == SHALE_OK) {
        DB_COUNT(db, compactions, 1);
    } else if (!unknown && !trivial) {
        db_drop_outputs(db, &edit);
    }
    db_doing(db, "%s", "");
    version_edit_release(&edit);
    return db_full(db, rc);
}

/* ---- the most urgent one ---- */

/* One level, if its bytes can be had and it is still wanted then. */
static int compact_level(shale_db *db, unsigned level, unsigned to, uint64_t *bytes)
{
    struct db_view *view;
    struct compaction c;
    unsigned order[VERSION_LEVELS];
    uint64_t seq;
    /* writers are about to stall: that comes before anybody's wish */
    bool leave = db_wished_for(db, level, to, 0) && (level != 0 || !db_level0_presses(db));
    int rc = leave ? SHALE_BUSY : os_compact_try(&db->roles, level, to);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = db_view_get(db, &view, &seq);
    if (rc == SHALE_OK) {
        const struct version *v = view->version;
        unsigned n = db_levels_wanted(db, v, order);
        bool wanted = false;
        for (unsigned i = 0; i < n; i++) {
            wanted = wanted || order[i] == level;
        }
        if (wanted && db_level_output(db, v, level) == to) {
            db_compaction_pick(v, level, to, 0, v->level[level].count, &c);
            rc = db_compaction_run(db, view, &c);
            *bytes = rc == SHALE_OK ? c.bytes : 0; /* fewer than picked, perhaps */
        } else {
            rc = SHALE_NOTFOUND;
        }
        db_view_unref(view);
    }
    os_compact_unlock(&db->roles, level, to);
    return rc;
}

int db_compact_one(shale_db *db, uint64_t *bytes)
{
    struct db_guard g;
    unsigned order[VERSION_LEVELS], to[VERSION_LEVELS], n;
    uint64_t seq;
    *bytes = 0;
    int rc = db_view_enter(db, &g, &seq);
    if (rc != SHALE_OK) {
        return rc;
    }
    n = db_levels_wanted(db, g.view->version, order);
    if (atomic_load_explicit(&db->compacting_all, memory_order_relaxed) != 0 &&
        g.view->version->level[0].count < db->options.l0_stop) {
        n = 0; /* it is about to be done, at once; unless what is to be flushed before that has to wait for us
                */
    }
    for (unsigned i = 0; i < n; i++) {
        to[i] = db_level_output(db, g.view->version, order[i]);
    }
    db_view_leave(db, &g);
    rc = SHALE_NOTFOUND;
    for (unsigned i = 0; i < n; i++) {
        int one = compact_level(db, order[i], to[i], bytes);
        if (one == SHALE_OK || one == SHALE_NOSPC || one == SHALE_PANIC || one == SHALE_CANCELLED) {
            return one;
        }
        /* a damaged table is in the way of its own level only */
        if (one != SHALE_NOTFOUND && (rc == SHALE_NOTFOUND || rc == SHALE_BUSY)) {
            rc = one;
        }
    }
    return rc;
}
