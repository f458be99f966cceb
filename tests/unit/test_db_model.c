/* test_db_model.c - random operations, compared with the oracle at every step.
 *
 * Two handles of one process on one directory take turns at random; a few hundred keys of awkward shapes are
 * written, read, scanned, snapshotted, changed in transactions, flushed and compacted; the database is closed
 * and opened again, warm or without its shared memory. Old snapshots, iterators and values are held and must
 * not change. The seed is printed when something is wrong: SHALE_TEST_SEED=N repeats it.
 */
#include "lib/lib.h"

enum { HANDLES = 2, SNAPSHOTS = 6, ITERS = 4, VALUES = 8, KEYS = 400 };

struct held_snapshot {
    shale_snapshot *snap;
    int handle;
    uint64_t at;
};
struct held_iter {
    shale_iter *it;
    int handle;
    struct oracle_range range;
    struct buf lower, upper;
};
struct held_value {
    shale_value value;
    struct buf copy;
};

struct model {
    char *dir;
    uint64_t seed;
    struct oracle oracle;
    shale_db *db[HANDLES];
    struct held_snapshot snap[SNAPSHOTS];
    struct held_iter iter[ITERS];
    struct held_value value[VALUES];
    uint64_t steps;
    const char *doing;
};

static struct model m;

static uint64_t below(uint64_t n)
{
    return prng_next(&m.seed) % n;
}

#define check_that(c, ...)                                                                                   \
    do {                                                                                                     \
        if (!(c)) {                                                                                          \
            char why_[256];                                                                                  \
            snprintf(why_, sizeof why_, __VA_ARGS__);                                                        \
            ck_abort_msg("step %llu, %s: %s: %s (%s)", (unsigned long long)m.steps, m.doing, #c, why_,       \
                         shale_errmsg());                                                                    \
        }                                                                                                    \
    } while (0)
#define must(e) check_that((e) == SHALE_OK, " ")

/* Few keys, many shapes: short, long, prefixes of each other, 0x00 and 0xff, common beginnings. */
static struct slice random_key(struct buf *b)
{
    static const char *const shapes[] = {"",     "a",        "ab", "common/prefix/of/some/length/",
                                         "\xff", "\xff\xff", "k"};
    unsigned char tail[8];
    uint64_t n = below(KEYS), shape = n % BASE_COUNT(shapes);
    size_t len = (size_t)(n % 5);
    must(buf_set(b, shapes[shape], strlen(shapes[shape])));
    for (size_t i = 0; i < len; i++) {
        tail[i] = (unsigned char)(n / 7 * (i + 1) % 5 == 0 ? 0xff : n / 5 % 7 == 0 ? 0 : '0' + n / 3 % 60);
    }
    must(buf_append(b, tail, len));
    if (n == 11) { /* and a very long one */
        must(buf_reserve(b, 30000));
        memset(b->data + b->size, 'x', 30000);
        b->size += 30000;
    }
    return buf_slice(b);
}

static struct slice random_value(struct buf *b)
{
    static const size_t sizes[] = {0, 1, 10, 100, 100, 300, 1000, 5000};
    size_t size = sizes[below(BASE_COUNT(sizes))];
    size = size < 2 ? size : size + (size_t)below(size);
    if (below(2000) == 0) {
        size = 300000; /* more than the first segment holds */
    }
    b->size = 0;
    must(buf_reserve(b, size + 1));
    for (size_t i = 0; i < size; i++) {
        b->data[i] = (unsigned char)(i % 2 == 0 ? 'v' : prng_next(&m.seed));
    }
    b->size = size;
    return slice_make(b->data, size);
}

static shale_db *any(void)
{
    return m.db[below(HANDLES)];
}

static void open_handles(void)
{
    for (unsigned i = 0; i < HANDLES; i++) {
        shale_options o = small_options();
        o.threads = i; /* one does everything itself, one has a maintenance thread */
        o.max_sealed = 2;
        o.memtable_bytes = (size_t)(64 << 10) << below(4);
        o.l0_compact = 2 + (unsigned)below(3);
        must(shale_open(m.dir, &o, &m.db[i]));
    }
}

static void let_go(void)
{
    for (int i = 0; i < SNAPSHOTS; i++) {
        shale_snapshot_release(m.snap[i].snap);
        m.snap[i].snap = NULL;
    }
    for (int i = 0; i < ITERS; i++) {
        shale_iter_destroy(m.iter[i].it);
        m.iter[i].it = NULL;
    }
}

static void close_handles(void)
{
    let_go();
    for (unsigned i = 0; i < HANDLES; i++) {
        must(shale_close(m.db[i]));
        m.db[i] = NULL;
    }
}

static void check_value(const void *data, size_t size, struct slice want)
{
    check_that(size == want.size && (size == 0 || memcmp(data, want.data, size) == 0),
               "%zu bytes instead of %zu", size, want.size);
    check_that(data != NULL, "a value without data");
}

/* ---- steps ---- */

static void step_put(struct buf *k, struct buf *v)
{
    struct slice key = random_key(k), value = random_value(v);
    must(shale_put(any(), key.data, key.size, value.data, value.size, 0));
    oracle_put(&m.oracle, key, value);
}

static void step_delete(struct buf *k, struct buf *v)
{
    (void)v;
    struct slice key = random_key(k);
    must(shale_delete(any(), key.data, key.size, 0));
    oracle_delete(&m.oracle, key);
}

static void step_batch(struct buf *k, struct buf *v)
{
    shale_batch *b = NULL;
    must(shale_batch_create(&b));
    for (uint64_t n = below(20); n > 0; n--) {
        struct slice key = random_key(k), value = random_value(v);
        if (below(3) == 0) {
            must(shale_batch_delete(b, key.data, key.size));
            oracle_delete(&m.oracle, key);
        } else {
            must(shale_batch_put(b, key.data, key.size, value.data, value.size));
            oracle_put(&m.oracle, key, value);
        }
    }
    must(shale_write(any(), b, below(30) == 0 ? SHALE_SYNC : 0));
    shale_batch_destroy(b);
}

/* A snapshot of one handle, or none: *at is the tick it stands for, *db the handle to use. */
static const shale_snapshot *some_snapshot(uint64_t *at, shale_db **db)
{
    struct held_snapshot *h = &m.snap[below(SNAPSHOTS)];
    if (h->snap == NULL || below(2) == 0) {
        *at = m.oracle.tick;
        *db = any();
        return NULL;
    }
    *at = h->at;
    *db = m.db[h->handle];
    return h->snap;
}

static void step_get(struct buf *k, struct buf *v)
{
    (void)v;
    uint64_t at;
    shale_db *db;
    const shale_snapshot *snap = some_snapshot(&at, &db);
    struct slice key = random_key(k), want;
    shale_value value = {0};
    int rc = shale_get(db, snap, key.data, key.size, &value);
    bool there = oracle_get(&m.oracle, at, key, &want);
    check_that(rc == (there ? SHALE_OK : SHALE_NOTFOUND), "key %.*s: %s",
               (int)(key.size < 40 ? key.size : 40), (const char *)key.data, shale_errname(rc));
    if (there) {
        check_value(value.data, value.size, want);
    }
    struct held_value *h = &m.value[below(VALUES)];
    if (there && below(4) == 0) { /* keep it for later */
        shale_value_release(&h->value);
        h->value = value;
        must(buf_set(&h->copy, want.data, want.size));
    } else {
        shale_value_release(&value);
    }
}

static void step_multi_get(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    enum { N = 12 };
    struct buf keys[N] = {0};
    const void *names[N];
    size_t lens[N];
    shale_value vals[N];
    int status[N];
    uint64_t at;
    shale_db *db;
    const shale_snapshot *snap = some_snapshot(&at, &db);
    for (int i = 0; i < N; i++) {
        struct slice key = random_key(&keys[i]);
        names[i] = key.data;
        lens[i] = key.size;
    }
    must(shale_multi_get(db, snap, N, names, lens, vals, status));
    for (int i = 0; i < N; i++) {
        struct slice want;
        bool there = oracle_get(&m.oracle, at, buf_slice(&keys[i]), &want);
        check_that(status[i] == (there ? SHALE_OK : SHALE_NOTFOUND), "key %d of %d", i, N);
        if (there) {
            check_value(vals[i].data, vals[i].size, want);
        }
        shale_value_release(&vals[i]);
        buf_release(&keys[i]);
    }
}

static void check_position(struct held_iter *h, int rc, size_t pos)
{
    check_that(rc == (pos == ORACLE_END ? SHALE_NOTFOUND : SHALE_OK), "%s", shale_errname(rc));
    check_that(shale_iter_valid(h->it) == (pos != ORACLE_END), " ");
    if (pos == ORACLE_END) {
        return;
    }
    size_t n;
    struct slice key = buf_slice(&m.oracle.keys[pos].key), want;
    const void *k = shale_iter_key(h->it, &n);
    check_that(n == key.size && (n == 0 || memcmp(k, key.data, n) == 0), "%.*s instead of %.*s",
               (int)(n < 40 ? n : 40), (const char *)k, (int)(key.size < 40 ? key.size : 40),
               (const char *)key.data);
    check_that(oracle_get(&m.oracle, h->range.at, key, &want), " ");
    const void *v = shale_iter_value(h->it, &n);
    check_value(v, n, want);
}

static void random_bounds(struct held_iter *h, shale_iter_options *o, struct buf *k)
{
    struct slice key;
    h->range.lower = h->range.upper = slice_make(NULL, 0);
    if (below(3) == 0) {
        key = random_key(k);
        must(buf_set(&h->lower, key.data, key.size < 10 ? key.size : 10));
        must(buf_reserve(&h->lower, 1));
        h->range.lower = buf_slice(&h->lower);
        o->prefix = h->lower.data, o->prefixlen = h->lower.size;
        if (oracle_prefix_end(buf_slice(&h->lower), &h->upper)) {
            h->range.upper = buf_slice(&h->upper);
        }
        return;
    }
    if (below(3) == 0) {
        key = random_key(k);
        must(buf_set(&h->lower, key.data, key.size));
        must(buf_reserve(&h->lower, 1));
        h->range.lower = buf_slice(&h->lower);
        o->lower = h->lower.data, o->lowerlen = h->lower.size;
    }
    key = random_key(k);
    if (key.size != 0 && below(3) == 0) {
        must(buf_set(&h->upper, key.data, key.size));
        h->range.upper = buf_slice(&h->upper);
        o->upper = h->upper.data, o->upperlen = h->upper.size;
    }
}

/* The oracle grows: the place where the iterator stands, by its key. */
static size_t current(const struct held_iter *h)
{
    size_t n;
    const void *k = shale_iter_key(h->it, &n);
    return oracle_seek(&m.oracle, &h->range, slice_make(k, n));
}

static void move_iter(struct held_iter *h, struct buf *k)
{
    struct slice key;
    switch (shale_iter_valid(h->it) ? below(12) : below(4)) {
    case 0: check_position(h, shale_iter_first(h->it), oracle_first(&m.oracle, &h->range)); break;
    case 1: check_position(h, shale_iter_last(h->it), oracle_last(&m.oracle, &h->range)); break;
    case 2:
        key = random_key(k);
        check_position(h, shale_iter_seek(h->it, key.data, key.size), oracle_seek(&m.oracle, &h->range, key));
        break;
    case 3:
        key = random_key(k);
        check_position(h, shale_iter_seek_for_prev(h->it, key.data, key.size),
                       oracle_seek_for_prev(&m.oracle, &h->range, key));
        break;
    case 4:
    case 5:
    case 6:
    case 7: {
        size_t pos = oracle_next(&m.oracle, &h->range, current(h));
        check_position(h, shale_iter_next(h->it), pos);
        break;
    }
    default: {
        size_t pos = oracle_prev(&m.oracle, &h->range, current(h));
        check_position(h, shale_iter_prev(h->it), pos);
        break;
    }
    }
}

static void step_iter(struct buf *k, struct buf *v)
{
    (void)v;
    struct held_iter *h = &m.iter[below(ITERS)];
    if (h->it == NULL || below(20) == 0) {
        shale_iter_options o;
        shale_db *db;
        shale_iter_options_init(&o);
        shale_iter_destroy(h->it);
        h->it = NULL;
        const shale_snapshot *snap = some_snapshot(&h->range.at, &db);
        random_bounds(h, &o, k);
        o.no_fill_cache = below(2) == 0;
        must(shale_iter_create(db, snap, &o, &h->it));
    }
    for (uint64_t n = below(25); n > 0; n--) {
        move_iter(h, k);
    }
}

static void step_snapshot(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    struct held_snapshot *h = &m.snap[below(SNAPSHOTS)];
    shale_snapshot_release(h->snap);
    h->snap = NULL;
    h->handle = (int)below(HANDLES);
    h->at = m.oracle.tick;
    must(shale_snapshot_create(m.db[h->handle], &h->snap));
}

static void step_txn(struct buf *k, struct buf *v)
{
    struct buf keys[8] = {0};
    size_t n = (size_t)below(8);
    shale_txn *t = NULL;
    bool commit = below(4) != 0;
    uint64_t before = m.oracle.tick;
    must(shale_txn_begin(any(), 0, -1, &t));
    for (size_t i = 0; i < n; i++) {
        struct slice key = random_key(k), value = random_value(v), want;
        shale_value got = {0};
        int rc = shale_txn_get(t, key.data, key.size, &got);
        /* its own writes: later entries of this loop look them up among what it has written */
        bool there = oracle_get(&m.oracle, m.oracle.tick, key, &want);
        check_that(rc == (there ? SHALE_OK : SHALE_NOTFOUND), "%s", shale_errname(rc));
        if (there) {
            check_value(got.data, got.size, want);
        }
        shale_value_release(&got);
        if (below(3) == 0) {
            must(shale_txn_delete(t, key.data, key.size));
            oracle_delete(&m.oracle, key);
        } else {
            must(shale_txn_put(t, key.data, key.size, value.data, value.size));
            oracle_put(&m.oracle, key, value);
        }
        must(buf_set(&keys[i], key.data, key.size));
    }
    if (commit) {
        must(shale_txn_commit(t));
    } else {
        shale_txn_abort(t);
    }
    for (size_t i = 0; i < n; i++) { /* an aborted one is written back in the oracle: as it was before */
        struct slice was;
        if (!commit && oracle_get(&m.oracle, before, buf_slice(&keys[i]), &was)) {
            struct buf copy = {0};
            must(buf_set(&copy, was.data, was.size));
            oracle_put(&m.oracle, buf_slice(&keys[i]),
                       slice_make(copy.size == 0 ? (const unsigned char *)"" : copy.data, copy.size));
            buf_release(&copy);
        } else if (!commit) {
            oracle_delete(&m.oracle, buf_slice(&keys[i]));
        }
        buf_release(&keys[i]);
    }
}

static void step_flush(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    must(shale_flush(any()));
}

static void step_compact(struct buf *k, struct buf *v)
{
    (void)v;
    struct buf other = {0};
    struct slice lo = random_key(k), hi = random_key(&other);
    bool from = below(2) == 0, to = below(2) == 0;
    must(shale_compact_range(any(), from ? lo.data : NULL, from ? lo.size : 0, to ? hi.data : NULL,
                             to ? hi.size : 0, NULL, NULL));
    buf_release(&other);
}

static void step_work(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    uint64_t done;
    int rc = shale_work(any(), SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, below(1 << 20), &done);
    check_that(rc == SHALE_OK || rc == SHALE_BUSY, "%s", shale_errname(rc));
}

static void check_everything(void)
{
    struct held_iter h = {.range = {.at = m.oracle.tick}};
    must(shale_iter_create(any(), NULL, NULL, &h.it));
    size_t pos = oracle_first(&m.oracle, &h.range);
    check_position(&h, shale_iter_first(h.it), pos);
    while (pos != ORACLE_END) {
        pos = oracle_next(&m.oracle, &h.range, pos);
        check_position(&h, shale_iter_next(h.it), pos);
    }
    pos = oracle_last(&m.oracle, &h.range);
    check_position(&h, shale_iter_last(h.it), pos);
    while (pos != ORACLE_END) {
        pos = oracle_prev(&m.oracle, &h.range, pos);
        check_position(&h, shale_iter_prev(h.it), pos);
    }
    shale_iter_destroy(h.it);
    for (int i = 0; i < VALUES; i++) {
        if (m.value[i].value.data != NULL) {
            check_value(m.value[i].value.data, m.value[i].value.size, buf_slice(&m.value[i].copy));
        }
    }
}

static void step_reopen(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    bool cold = below(2) == 0;
    close_handles();
    if (cold) { /* as after a reboot: nothing of the shared memory is left */
        char path[PATH_MAX], **mems = scratch_names(m.dir, ".mem");
        snprintf(path, sizeof path, "%s/STATE", m.dir);
        check_that(unlink(path) == 0, "STATE");
        for (char **p = mems; *p != NULL; p++) {
            snprintf(path, sizeof path, "%s/%s", m.dir, *p);
            unlink(path);
        }
        scratch_names_free(mems);
    }
    open_handles();
    check_everything();
}

static void step_verify(struct buf *k, struct buf *v)
{
    (void)k, (void)v;
    must(shale_verify(any(), NULL, NULL));
    check_everything();
}

static const struct step {
    const char *name;
    unsigned weight;
    void (*run)(struct buf *k, struct buf *v);
} steps[] = {
    {"put", 300, step_put},
    {"delete", 100, step_delete},
    {"batch", 60, step_batch},
    {"get", 300, step_get},
    {"multi_get", 40, step_multi_get},
    {"iter", 120, step_iter},
    {"snapshot", 20, step_snapshot},
    {"txn", 25, step_txn},
    {"flush", 4, step_flush},
    {"compact", 3, step_compact},
    {"work", 4, step_work},
    {"reopen", 2, step_reopen},
    {"verify", 1, step_verify},
};

static const struct step *next_step(void)
{
    unsigned sum = 0;
    for (size_t i = 0; i < BASE_COUNT(steps); i++) {
        sum += steps[i].weight;
    }
    uint64_t n = below(sum);
    for (size_t i = 0;; i++) {
        if (n < steps[i].weight) {
            return &steps[i];
        }
        n -= steps[i].weight;
    }
}

START_TEST(random_operations_agree_with_an_ordered_map)
{
    struct buf k = {0}, v = {0};
    uint64_t seed = test_seed(1000 + (uint64_t)_i);
    m = (struct model){.dir = scratch_name("model"), .seed = seed, .doing = "open"};
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    open_handles();
    for (unsigned n = test_times(6000, 100000); m.steps < n; m.steps++) {
        const struct step *s = next_step();
        m.doing = s->name;
        s->run(&k, &v);
    }
    m.doing = "end";
    check_everything();
    close_handles();
    open_handles();
    check_everything();
    must(shale_verify(any(), NULL, NULL));
    close_handles();
    for (int i = 0; i < VALUES; i++) {
        shale_value_release(&m.value[i].value);
        buf_release(&m.value[i].copy);
    }
    for (int i = 0; i < ITERS; i++) {
        buf_release(&m.iter[i].lower);
        buf_release(&m.iter[i].upper);
    }
    oracle_release(&m.oracle);
    buf_release(&k);
    buf_release(&v);
    free(m.dir);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_model");
    TCase *t = tcase_create("model");
    tcase_set_timeout(t, test_times(120, 3600));
    tcase_add_loop_test(t, random_operations_agree_with_an_ordered_map, 0, (int)test_times(4, 20));
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
