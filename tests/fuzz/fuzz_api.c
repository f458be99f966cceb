/* fuzz_api.c - the input decides which public functions are called, and with what; an ordered map does the
 * same, and every answer must be the map's.
 *
 * Two handles of one process on one small database: writes of every kind, snapshots and iterators that are
 * held meanwhile, flush, compaction and single units of work, handles closed and opened again warm, without
 * the shared memory, or on a copy as a crash of everybody would leave it, read-only handles, checkpoints.
 */
#include "../lib/oracle.h"
#include "../lib/scratch.h"
#include "fuzz.h"

#include <unistd.h>

enum { HANDLES = 2, SNAPSHOTS = 3, MAX_STEPS = 300, MAX_BYTES = 4 << 20, MAX_HEAVY = 12 };

static struct world {
    struct fuzz_input in;
    char dir[PATH_MAX], copy[PATH_MAX];
    struct oracle oracle;
    shale_db *db[HANDLES];
    shale_snapshot *snap[SNAPSHOTS];
    shale_db *snap_db[SNAPSHOTS];
    uint64_t snap_at[SNAPSHOTS];
    shale_iter *it;
    struct oracle_range range; /* of the iterator; its bounds are in the buffers */
    struct buf lower, upper;
    size_t written, heavy; /* what is left of these ends the input */
} w;

#define ok(e) fuzz_must((e) == SHALE_OK)

static uint32_t below(uint32_t n)
{
    return fuzz_below(&w.in, n);
}

/* ---- what the input means ---- */

/* Short ones of few letters, so that they meet; some are prefixes of others, one is long. */
static struct slice some_key(struct buf *b)
{
    static const char *const shapes[] = {"", "a", "b", "common/prefix/of/keys/", "\xff", "\xff\xff"};
    uint32_t n = fuzz_byte(&w.in);
    if (n == 255) { /* any bytes */
        struct slice s = fuzz_bytes(&w.in, fuzz_byte(&w.in) % 40);
        ok(buf_set(b, s.data, s.size));
    } else {
        char tail = (char)("\0001k\xff"[n / 8 % 4]);
        const char *shape = shapes[n % BASE_COUNT(shapes)];
        ok(buf_set(b, shape, strlen(shape)));
        for (uint32_t i = n / 32; i > 0; i--) {
            ok(buf_append(b, &tail, 1));
        }
        if (n == 77) {
            ok(buf_reserve(b, 5000));
            memset(b->data + b->size, 'x', 5000);
            b->size += 5000;
        }
    }
    ok(buf_reserve(b, 1));
    return slice_make(b->data, b->size);
}

/* Told apart by their beginning; some compress, some do not. */
static struct slice some_value(struct buf *b)
{
    static const uint16_t sizes[] = {0, 1, 8, 30, 100, 100, 1000, 5000};
    uint32_t n = fuzz_byte(&w.in);
    uint64_t seed = w.oracle.tick * 256 + n;
    size_t size = sizes[n % BASE_COUNT(sizes)];
    b->size = 0;
    ok(buf_reserve(b, size + 1));
    for (size_t i = 0; i < size; i++) {
        b->data[i] = (unsigned char)(n >= 128 && i >= 8 ? 'v' : prng_next(&seed));
    }
    b->size = size;
    w.written += size;
    return slice_make(b->data, size);
}

static shale_db *any(void)
{
    shale_db *db = w.db[below(HANDLES)];
    return db != NULL ? db : w.db[0] != NULL ? w.db[0] : w.db[1];
}

static shale_options options(void)
{
    shale_options o;
    uint32_t n = fuzz_byte(&w.in);
    shale_options_init(&o);
    o.threads = 0;
    o.durable = n % 16 == 0 ? SHALE_DURABLE_COMMIT : n % 16 == 1 ? SHALE_DURABLE_INTERVAL : SHALE_DURABLE_OFF;
    o.memtable_bytes = (size_t)(64 << 10) << (n / 16 % 4);
    o.max_sealed = 1 + n / 64 % 4;
    o.block_bytes = 256u << (n / 4 % 4);
    o.target_table_bytes = 64 << 10;
    o.level_ratio = 4;
    o.l0_compact = 2;
    o.l0_stop = 6;
    o.bloom_bits = n % 3 * 6;
    o.compression = n % 2 == 0 ? SHALE_COMPRESS_LZ4 : SHALE_COMPRESS_NONE;
    o.cache_bytes = 1 << 20;
    return o;
}

static void open_one(unsigned i)
{
    shale_options o = options();
    ok(shale_open(w.dir, &o, &w.db[i]));
}

static void let_go(const shale_db *db)
{
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        if (w.snap_db[i] == db) {
            shale_snapshot_release(w.snap[i]);
            w.snap[i] = NULL;
            w.snap_db[i] = NULL;
        }
    }
    shale_iter_destroy(w.it);
    w.it = NULL;
}

static void close_one(unsigned i)
{
    if (w.db[i] != NULL) {
        let_go(w.db[i]);
        ok(shale_close(w.db[i]));
        w.db[i] = NULL;
    }
}

static const shale_snapshot *some_snapshot(shale_db **db, uint64_t *at)
{
    unsigned i = below(2 * SNAPSHOTS);
    if (i < SNAPSHOTS && w.snap[i] != NULL) {
        *db = w.snap_db[i];
        *at = w.snap_at[i];
        return w.snap[i];
    }
    *db = any();
    *at = w.oracle.tick;
    return NULL;
}

/* ---- comparing ---- */

static void check_value(const void *data, size_t size, struct slice want)
{
    fuzz_must(data != NULL && slice_equal(slice_make(data, size), want));
}

static void check_got(int rc, const shale_value *v, uint64_t at, struct slice key)
{
    struct slice want;
    bool there = oracle_get(&w.oracle, at, key, &want);
    fuzz_must(rc == (there ? SHALE_OK : SHALE_NOTFOUND));
    if (there) {
        check_value(v->data, v->size, want);
    }
}

static void check_position(shale_iter *it, int rc, const struct oracle_range *r, size_t pos)
{
    fuzz_must(rc == (pos == ORACLE_END ? SHALE_NOTFOUND : SHALE_OK));
    fuzz_must(shale_iter_valid(it) == (pos != ORACLE_END) && shale_iter_status(it) == SHALE_OK);
    if (pos != ORACLE_END) {
        size_t n;
        struct slice key = buf_slice(&w.oracle.keys[pos].key), want;
        const void *k = shale_iter_key(it, &n);
        fuzz_must(slice_equal(slice_make(k, n), key) && oracle_get(&w.oracle, r->at, key, &want));
        const void *v = shale_iter_value(it, &n);
        check_value(v, n, want);
    }
}

static void check_all_of(shale_iter *it, const struct oracle_range *r)
{
    size_t pos = oracle_first(&w.oracle, r);
    check_position(it, shale_iter_first(it), r, pos);
    while (pos != ORACLE_END) {
        pos = oracle_next(&w.oracle, r, pos);
        check_position(it, shale_iter_next(it), r, pos);
    }
    pos = oracle_last(&w.oracle, r);
    check_position(it, shale_iter_last(it), r, pos);
    while (pos != ORACLE_END) {
        pos = oracle_prev(&w.oracle, r, pos);
        check_position(it, shale_iter_prev(it), r, pos);
    }
}

static void check_all(shale_db *db, const shale_snapshot *snap, uint64_t at)
{
    struct oracle_range r = {.at = at};
    shale_iter *it = NULL;
    ok(shale_iter_create(db, snap, NULL, &it));
    check_all_of(it, &r);
    shale_iter_destroy(it);
}

/* ---- steps ---- */

static void step_put(struct buf *k, struct buf *v)
{
    struct slice key = some_key(k), value = some_value(v);
    ok(shale_put(any(), key.data, key.size, value.data, value.size, 0));
    oracle_put(&w.oracle, key, value);
}

static void step_delete(struct buf *k, struct buf *v)
{
    (void)v;
    struct slice key = some_key(k);
    ok(shale_delete(any(), key.data, key.size, 0));
    oracle_delete(&w.oracle, key);
}

static void step_batch(struct buf *k, struct buf *v)
{
    static const unsigned flags[] = {0, SHALE_NOSYNC, SHALE_SYNC, SHALE_NOWAIT};
    shale_batch *b = NULL;
    ok(shale_batch_create(&b));
    uint32_t n = below(24);
    for (uint32_t i = 0; i < n; i++) {
        struct slice key = some_key(k);
        if (below(3) == 0) {
            ok(shale_batch_delete(b, key.data, key.size));
            oracle_delete(&w.oracle, key);
        } else {
            struct slice value = some_value(v);
            ok(shale_batch_put(b, key.data, key.size, value.data, value.size));
            oracle_put(&w.oracle, key, value);
        }
    }
    fuzz_must(shale_batch_count(b) == n);
    shale_db *db = any();
    int rc = shale_write(db, b, flags[below(BASE_COUNT(flags))]);
    if (rc == SHALE_BUSY) { /* NOWAIT, and there is no room at once */
        rc = shale_write(db, b, 0);
    }
    ok(rc);
    shale_batch_destroy(b);
}

/* Many at once: memtables fill up, and tables have several blocks. */
static void step_bulk(struct buf *k, struct buf *v)
{
    shale_batch *b = NULL;
    uint32_t n = 1 + below(64), from = below(512);
    struct slice value = some_value(v);
    ok(shale_batch_create(&b));
    for (uint32_t i = 0; i < n; i++) {
        k->size = 0;
        ok(buf_printf(k, "bulk/%05u", from + i * 3));
        ok(shale_batch_put(b, k->data, k->size, value.data, value.size));
        oracle_put(&w.oracle, buf_slice(k), value);
    }
    w.written += n * value.size;
    ok(shale_write(any(), b, 0));
    shale_batch_destroy(b);
}

static void step_get(struct buf *k, struct buf *v)
{
    uint64_t at;
    shale_db *db;
    const shale_snapshot *snap = some_snapshot(&db, &at);
    struct slice key = some_key(k), want;
    shale_value value = {0};
    size_t len = 0;
    int rc = shale_get(db, snap, key.data, key.size, &value);
    check_got(rc, &value, at, key);
    shale_value_release(&value);
    ok(buf_reserve(v, 64));
    rc = shale_get_copy(db, snap, key.data, key.size, v->data, 64, &len);
    if (!oracle_get(&w.oracle, at, key, &want)) {
        fuzz_must(rc == SHALE_NOTFOUND);
    } else {
        fuzz_must(rc == (want.size > 64 ? SHALE_TOOBIG : SHALE_OK) && len == want.size);
        fuzz_must(want.size > 64 || slice_equal(slice_make(v->data, len), want));
    }
}

static void step_multi_get(struct buf *k, struct buf *v)
{
    (void)v, (void)k;
    enum { N = 6 };
    struct buf keys[N] = {0};
    const void *names[N];
    size_t lens[N];
    shale_value vals[N] = {0};
    int status[N];
    uint64_t at;
    shale_db *db;
    const shale_snapshot *snap = some_snapshot(&db, &at);
    for (int i = 0; i < N; i++) {
        struct slice key = some_key(&keys[i]);
        names[i] = key.data;
        lens[i] = key.size;
    }
    ok(shale_multi_get(db, snap, N, names, lens, vals, status));
    for (int i = 0; i < N; i++) {
        check_got(status[i], &vals[i], at, buf_slice(&keys[i]));
        shale_value_release(&vals[i]);
        buf_release(&keys[i]);
    }
}

static void step_snapshot(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    unsigned i = below(SNAPSHOTS);
    shale_snapshot_release(w.snap[i]);
    w.snap[i] = NULL;
    w.snap_db[i] = any();
    w.snap_at[i] = w.oracle.tick;
    ok(shale_snapshot_create(w.snap_db[i], &w.snap[i]));
}

static struct slice bound(struct buf *to, struct buf *k)
{
    struct slice key = some_key(k);
    ok(buf_set(to, key.data, key.size));
    ok(buf_reserve(to, 1));
    return slice_make(to->data, to->size);
}

static void some_bounds(shale_iter_options *o, struct buf *k)
{
    uint32_t how = below(8);
    w.range.lower = w.range.upper = slice_make(NULL, 0);
    shale_iter_options_init(o);
    o->no_fill_cache = (how & 4) != 0;
    if ((how & 3) == 3) {
        w.range.lower = bound(&w.lower, k);
        o->prefix = w.range.lower.data, o->prefixlen = w.range.lower.size;
        if (oracle_prefix_end(w.range.lower, &w.upper)) {
            w.range.upper = buf_slice(&w.upper);
        }
        return;
    }
    if ((how & 1) != 0) {
        w.range.lower = bound(&w.lower, k);
        o->lower = w.range.lower.data, o->lowerlen = w.range.lower.size;
    }
    if ((how & 2) != 0) {
        w.range.upper = bound(&w.upper, k);
        o->upper = w.range.upper.data, o->upperlen = w.range.upper.size;
    }
}

static void step_iter(struct buf *k, struct buf *v)
{
    (void)v;
    shale_iter_options o;
    shale_db *db;
    shale_iter_destroy(w.it);
    w.it = NULL;
    const shale_snapshot *snap = some_snapshot(&db, &w.range.at);
    some_bounds(&o, k);
    ok(shale_iter_create(db, snap, &o, &w.it));
}

static void move(struct buf *k)
{
    shale_iter *it = w.it;
    struct oracle *o = &w.oracle;
    uint32_t how = below(8);
    if (how >= 4 && shale_iter_valid(it)) {
        size_t n;
        const void *at = shale_iter_key(it, &n);
        size_t pos = oracle_seek(o, &w.range, slice_make(at, n)); /* the map has grown meanwhile */
        pos = how < 6 ? oracle_next(o, &w.range, pos) : oracle_prev(o, &w.range, pos);
        check_position(it, how < 6 ? shale_iter_next(it) : shale_iter_prev(it), &w.range, pos);
        return;
    }
    struct slice key = how % 4 >= 2 ? some_key(k) : slice_make("", 0);
    switch (how % 4) {
    case 0: check_position(it, shale_iter_first(it), &w.range, oracle_first(o, &w.range)); break;
    case 1: check_position(it, shale_iter_last(it), &w.range, oracle_last(o, &w.range)); break;
    case 2:
        check_position(it, shale_iter_seek(it, key.data, key.size), &w.range, oracle_seek(o, &w.range, key));
        break;
    default:
        check_position(it, shale_iter_seek_for_prev(it, key.data, key.size), &w.range,
                       oracle_seek_for_prev(o, &w.range, key));
        break;
    }
}

static void step_move(struct buf *k, struct buf *v)
{
    (void)v;
    for (uint32_t n = w.it != NULL ? 1 + below(16) : 0; n > 0; n--) {
        move(k);
    }
}

static void step_txn(struct buf *k, struct buf *v)
{
    shale_txn *t = NULL;
    uint64_t before = w.oracle.tick;
    shale_db *db = any();
    ok(shale_txn_begin(db, 0, -1, &t));
    for (uint32_t n = below(12); n > 0; n--) {
        uint32_t how = below(8);
        struct slice key = some_key(k);
        if (how < 3) {
            struct slice value = some_value(v);
            ok(shale_txn_put(t, key.data, key.size, value.data, value.size));
            oracle_put(&w.oracle, key, value);
        } else if (how < 5) {
            ok(shale_txn_delete(t, key.data, key.size));
            oracle_delete(&w.oracle, key);
        } else if (how < 7) {
            shale_value got = {0};
            int rc = shale_txn_get(t, key.data, key.size, &got);
            check_got(rc, &got, w.oracle.tick, key);
            shale_value_release(&got);
        } else {
            struct oracle_range r = {.at = w.oracle.tick};
            shale_iter *it = NULL;
            ok(shale_txn_iter(t, NULL, &it));
            check_all_of(it, &r);
            shale_iter_destroy(it);
        }
    }
    fuzz_must(shale_put(db, "k", 1, "v", 1, 0) == SHALE_INUSE);
    if (below(4) != 0) {
        ok(shale_txn_commit(t));
    } else {
        shale_txn_abort(t);
        oracle_undo(&w.oracle, before);
    }
}

static void step_work(struct buf *k, struct buf *v)
{
    static const unsigned what[] = {SHALE_WORK_FLUSH, SHALE_WORK_COMPACT,
                                    SHALE_WORK_FLUSH | SHALE_WORK_COMPACT};
    (void)k, (void)v;
    ok(shale_work(any(), what[below(3)], below(2) * 100000, NULL));
}

static void step_flush(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    ok(below(3) == 0 ? shale_sync(any()) : shale_flush(any()));
}

static void step_compact(struct buf *k, struct buf *v)
{
    uint32_t how = below(4);
    struct slice lo = (how & 1) != 0 ? some_key(k) : slice_make(NULL, 0);
    struct slice hi = (how & 2) != 0 ? some_key(v) : slice_make(NULL, 0);
    ok(shale_compact_range(any(), lo.data, lo.size, hi.data, hi.size, NULL, NULL));
}

static void step_look(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    char text[8192];
    shale_stats s = {.size = sizeof s};
    uint64_t bytes;
    shale_db *db = any();
    ok(shale_stat(db, &s));
    ok(shale_property(db, "levels", text, sizeof text, NULL));
    ok(shale_approximate_size(db, "a", 1, "c", 1, &bytes));
    ok(shale_verify(db, NULL, NULL));
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        if (w.snap[i] != NULL) {
            check_all(w.snap_db[i], w.snap[i], w.snap_at[i]);
        }
    }
    check_all(db, NULL, w.oracle.tick);
}

/* A second handle comes or goes; never the last one. */
static void step_handle(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    unsigned i = below(HANDLES);
    if (w.db[i] == NULL) {
        open_one(i);
    } else if (w.db[1 - i] != NULL) {
        close_one(i);
    }
}

static void remove_shared_memory(const char *dir)
{
    char path[PATH_MAX], **mems = scratch_names(dir, ".mem");
    fuzz_must(snprintf(path, sizeof path, "%s/STATE", dir) > 0 && unlink(path) == 0);
    for (char **p = mems; *p != NULL; p++) {
        fuzz_must(snprintf(path, sizeof path, "%s/%s", dir, *p) > 0 && unlink(path) == 0);
    }
    scratch_names_free(mems);
}

static void step_reopen(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    bool cold = below(2) == 0;
    close_one(0);
    close_one(1);
    if (cold) {
        remove_shared_memory(w.dir);
    }
    open_one(0);
    check_all(w.db[0], NULL, w.oracle.tick);
}

static void open_and_check(const char *dir, bool readonly)
{
    shale_db *db = NULL;
    shale_options o = options();
    o.readonly = readonly;
    o.create = false;
    ok(shale_open(dir, &o, &db));
    check_all(db, NULL, w.oracle.tick);
    ok(shale_close(db));
}

static void step_readonly(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    open_and_check(w.dir, true);
}

/* What another machine would find, had this one stopped here with everything written back. */
static void step_crash(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    fuzz_must(scratch_copy(w.dir, w.copy) == 0);
    open_and_check(w.copy, below(2) == 0);
    fuzz_must(scratch_remove(w.copy) == 0);
}

static void step_checkpoint(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    ok(shale_checkpoint(any(), w.copy, NULL, NULL));
    open_and_check(w.copy, below(2) == 0);
    fuzz_must(scratch_remove(w.copy) == 0);
}

static const struct step {
    void (*run)(struct buf *k, struct buf *v);
    unsigned weight, heavy;
} steps[] = {
    {step_put, 6, 0},      {step_delete, 3, 0},    {step_batch, 3, 0},      {step_bulk, 3, 0},
    {step_get, 4, 0},      {step_multi_get, 1, 0}, {step_snapshot, 2, 0},   {step_iter, 3, 0},
    {step_move, 6, 0},     {step_txn, 3, 0},       {step_work, 2, 0},       {step_flush, 3, 0},
    {step_compact, 1, 1},  {step_look, 1, 1},      {step_handle, 1, 1},     {step_reopen, 1, 2},
    {step_readonly, 1, 1}, {step_crash, 1, 3},     {step_checkpoint, 1, 3},
};

static bool run_step(struct buf *k, struct buf *v)
{
    unsigned sum = 0;
    for (size_t i = 0; i < BASE_COUNT(steps); i++) {
        sum += steps[i].weight;
    }
    uint32_t n = below(sum);
    const struct step *s = steps;
    for (; n >= s->weight; s++) {
        n -= s->weight;
    }
    w.heavy += s->heavy;
    if (w.heavy > MAX_HEAVY || w.written > MAX_BYTES) {
        return false;
    }
    s->run(k, v);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf k = {0}, v = {0};
    w = (struct world){.in = {data, data + size}};
    (void)snprintf(w.dir, sizeof w.dir, "%s/db", fuzz_dir());
    (void)snprintf(w.copy, sizeof w.copy, "%s/copy", fuzz_dir());
    open_one(0);
    for (unsigned n = 0; n < MAX_STEPS && fuzz_left(&w.in) != 0 && run_step(&k, &v); n++) {
    }
    check_all(any(), NULL, w.oracle.tick);
    close_one(0);
    close_one(1);
    fuzz_must(scratch_remove(w.dir) == 0);
    oracle_release(&w.oracle);
    buf_release(&w.lower);
    buf_release(&w.upper);
    buf_release(&k);
    buf_release(&v);
    return 0;
}
