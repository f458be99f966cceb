/* test_table_cache.c - filter rates, the block cache, many threads on one table, sequential reading. */
#include "unit/table_fixture.h"

#include <sys/wait.h>

#define THREADS 4u

/* ---- filter ---- */

/* Keys as they come: counted numbers, dense, so that a weak use of the hash would show. */
static double false_rate(unsigned bits, uint64_t keys)
{
    struct buf lines = {NULL, 0, 0};
    struct table_filter f;
    uint64_t *hashes = malloc(keys * sizeof *hashes), found = 0, tries = 200000;
    ck_assert_ptr_nonnull(hashes);
    for (uint64_t i = 0; i < keys; i++) {
        hashes[i] = key_hash(slice_make(&i, sizeof i));
    }
    ok(filter_build(hashes, keys, bits, &lines));
    ck_assert(filter_open(&f, lines.data, lines.size, filter_probes(bits)));
    for (uint64_t i = 0; i < keys; i++) {
        ck_assert(filter_may_hold(&f, hashes[i]));
    }
    for (uint64_t i = keys; i < keys + tries; i++) {
        found += filter_may_hold(&f, key_hash(slice_make(&i, sizeof i)));
    }
    free(hashes);
    buf_release(&lines);
    return (double)found / (double)tries;
}

START_TEST(filter_is_as_good_as_its_bits)
{
    static const struct {
        unsigned bits;
        double most;
    } rates[] = {{1, 0.70}, {5, 0.13}, {10, 0.025}, {16, 0.005}, {32, 0.001}};
    for (size_t i = 0; i < BASE_COUNT(rates); i++) {
        double rate = false_rate(rates[i].bits, 100000);
        ck_assert_msg(rate <= rates[i].most, "%u bits a key: %.4f", rates[i].bits, rate);
    }
    ck_assert_double_le(false_rate(10, 1), 0.025);
    ck_assert_double_le(false_rate(10, 60), 0.03);
}
END_TEST

START_TEST(filter_saves_look_ups_and_is_counted)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    table_rows_make(&rows, TABLE_STYLE_BINARY, 1000, 4);
    struct table *t = make(&rows, &plain, NULL);
    for (uint64_t i = 0; i < 6400; i++) {
        struct slice key = slice_make(&i, sizeof i);
        struct table_hit hit;
        struct table_pin pin;
        ck_assert_int_eq(table_get(t, key, key_hash(key), &counters, &hit, &pin), SHALE_NOTFOUND);
    }
    ck_assert_uint_eq(atomic_load(&counters.bloom_checks), 6400);
    ck_assert_uint_ge(atomic_load(&counters.bloom_useful), 6100);
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

/* ---- cache ---- */

static const struct table_options packed = {.block_bytes = 1024, .bloom_bits = 10, .lz4 = true, .mode = 0600};

/* Every key once; returns the blocks that had to be unpacked. */
static uint64_t get_all(struct table *t, const struct table_rows *rows, struct table_counters *counters)
{
    uint64_t before = atomic_load(&counters->cache_misses);
    for (size_t i = 0; i < rows->count; i++) {
        const struct table_row *r = &rows->row[i];
        struct table_hit hit;
        struct table_pin pin;
        ok(table_get(t, r->key, key_hash(r->key), counters, &hit, &pin));
        ck_assert(slice_equal(hit.value, r->value));
        table_pin_release(&pin);
    }
    return atomic_load(&counters->cache_misses) - before;
}

START_TEST(cache_unpacks_a_block_once)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 2000, 6);
    struct cache *cache = cache_ref(16 << 20);
    struct table *t = make(&rows, &packed, cache);
    uint64_t blocks = get_all(t, &rows, &counters);
    ck_assert_uint_eq(blocks, t->index.count);
    ck_assert_uint_eq(get_all(t, &rows, &counters), 0);
    ck_assert_uint_gt(cache_used(cache), blocks * 512);
    table_unref(t);
    ck_assert_uint_eq(cache_used(cache), 0);
    cache_unref(cache);
    table_rows_release(&rows);
}
END_TEST

START_TEST(cache_keeps_to_its_capacity)
{
    static const size_t capacities[] = {0, 100, 8 << 10, 100 << 10};
    struct table_rows rows;
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 6000, 7);
    struct table *t = NULL;
    for (size_t i = 0; i < BASE_COUNT(capacities); i++) {
        struct table_counters counters = {0};
        struct cache *cache = cache_ref(capacities[i]);
        t = make(&rows, &packed, cache);
        for (int round = 0; round < 2; round++) {
            ck_assert_uint_gt(get_all(t, &rows, &counters), t->index.count / 2);
            ck_assert_uint_le(cache_used(cache), capacities[i]);
        }
        ck_assert(capacities[i] < (8 << 10) || cache_used(cache) > capacities[i] / 2);
        table_unref(t);
        ok(os_unlink(dir, "000034.sst"));
        cache_unref(cache); /* the last one: the next capacity counts from nothing */
    }
    table_rows_release(&rows);
}
END_TEST

/* What is used again and again stays while a scan passes through. */
START_TEST(clock_keeps_what_is_used)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 6000, 8);
    struct cache *cache = cache_ref(64 << 10);
    struct table *t = make(&rows, &packed, cache);
    const struct table_row *hot = &rows.row[rows.count / 2];
    uint64_t hot_misses = 0;
    for (size_t i = 0; i < rows.count; i++) {
        struct table_hit hit;
        struct table_pin pin;
        ok(table_get(t, rows.row[i].key, key_hash(rows.row[i].key), &counters, &hit, &pin));
        table_pin_release(&pin);
        uint64_t before = atomic_load(&counters.cache_misses);
        ok(table_get(t, hot->key, key_hash(hot->key), &counters, &hit, &pin));
        table_pin_release(&pin);
        hot_misses += atomic_load(&counters.cache_misses) - before;
    }
    ck_assert_uint_gt(atomic_load(&counters.cache_misses), 64);
    ck_assert_uint_le(hot_misses, 4);
    table_unref(t);
    cache_unref(cache);
    table_rows_release(&rows);
}
END_TEST

START_TEST(pinned_value_outlives_cache_and_table)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 3000, 9);
    struct cache *cache = cache_ref(20 << 10);
    struct table *t = make(&rows, &packed, cache);
    const struct table_row *r = &rows.row[rows.count / 3];
    struct table_hit hit;
    struct table_pin pin;
    ok(table_get(t, r->key, key_hash(r->key), &counters, &hit, &pin));
    ck_assert_ptr_nonnull(pin.object);
    (void)get_all(t, &rows, &counters); /* evicts it */
    ck_assert(slice_equal(hit.value, r->value));
    table_unref(t);
    cache_unref(cache);
    ck_assert(slice_equal(hit.value, r->value));
    table_pin_release(&pin);
    ck_assert_ptr_null(pin.object);
    table_rows_release(&rows);
}
END_TEST

START_TEST(largest_capacity_that_was_asked_for_counts)
{
    struct cache *small = cache_ref(1 << 20), *large = cache_ref(3 << 20), *tiny = cache_ref(10);
    ck_assert(small == large && large == tiny);
    struct cache_block *b =
        cache_block_new(700 << 10); /* less than a quarter of the largest, more than of the others */
    bool added;
    ck_assert_ptr_eq(cache_add(small, 1, 0, b, &added), b);
    ck_assert(added);
    cache_block_release(b);
    cache_unref(tiny);
    cache_unref(small);
    ck_assert_uint_gt(cache_used(large), 700 << 10);
    cache_unref(large);
    ck_assert_uint_eq(cache_used(large), 0);
}
END_TEST

/* A child must neither wait for a mutex that a thread of its parent held at the fork, nor use the parent's
 * blocks. The other thread here is inside the cache nearly all the time. */
struct holder {
    struct cache *cache;
    _Atomic bool stop;
};

static void *hammer(void *ctx)
{
    struct holder *h = ctx;
    for (uint64_t i = 0; !atomic_load(&h->stop); i++) {
        struct cache_block *b = cache_find(h->cache, UINT64_MAX, i);
        ck_assert_ptr_null(b);
    }
    return NULL;
}

static void child_of(struct cache *cache, struct table *t, uint64_t used)
{
    struct cache *mine = cache_ref(1 << 20);
    bool good = mine != NULL && mine != cache && cache_used(mine) == 0;
    table_unref(t);
    cache_unref(cache);
    good = good && cache_used(cache) == used;
    cache_unref(mine);
    _exit(good ? EXIT_SUCCESS : EXIT_FAILURE);
}

START_TEST(h06_forked_child_has_a_cache_of_its_own)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    pthread_t thread;
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 200, 10);
    struct holder h = {.cache = cache_ref(1 << 20)};
    struct table *t = make(&rows, &packed, h.cache);
    (void)get_all(t, &rows, &counters);
    uint64_t used = cache_used(h.cache);
    ok(os_thread_start(&thread, hammer, &h, "hammer"));
    for (int i = 0; i < 30; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            (void)alarm(10); /* a child that waits for such a mutex waits for ever */
            child_of(h.cache, t, used);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
    }
    atomic_store(&h.stop, true);
    os_thread_join(thread);
    table_unref(t);
    cache_unref(h.cache);
    table_rows_release(&rows);
}
END_TEST

/* ---- threads ---- */

struct reader {
    struct table *table;
    const struct table_rows *rows;
    struct table_counters *counters;
    uint64_t seed, wrong;
    pthread_t thread;
};

static void *read_randomly(void *ctx)
{
    struct reader *r = ctx;
    uint64_t state = r->seed;
    struct table_iter it;
    table_iter_init(&it, r->table, r->counters);
    it.fill_cache = r->seed % 2 == 0;
    for (int i = 0; i < 4000; i++) {
        const struct table_row *row = &r->rows->row[prng_next(&state) % r->rows->count];
        struct table_hit hit;
        struct table_pin pin = {NULL, NULL};
        if (table_get(r->table, row->key, key_hash(row->key), r->counters, &hit, &pin) != SHALE_OK ||
            !slice_equal(hit.value, row->value)) {
            r->wrong++;
        }
        table_pin_release(&pin);
        if (i % 8 == 0 &&
            (table_iter_seek(&it, row->key) != SHALE_OK || !slice_equal(it.value, row->value))) {
            r->wrong++;
        }
    }
    table_iter_release(&it);
    return NULL;
}

START_TEST(threads_read_one_table_at_once)
{
    struct table_rows rows;
    struct table_counters counters = {0};
    struct table_options o = packed;
    struct reader readers[THREADS];
    o.lz4 = _i % 2 != 0;
    os_door_hook = _i >= 2 ? no_maps : NULL;
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 3000, 12);
    struct cache *cache = cache_ref(40 << 10); /* small: eviction goes on all the time */
    struct table *t = make(&rows, &o, cache);
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.table = t, .rows = &rows, .counters = &counters, .seed = i + 1};
        ok(os_thread_start(&readers[i].thread, read_randomly, &readers[i], "reader"));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        os_thread_join(readers[i].thread);
        ck_assert_uint_eq(readers[i].wrong, 0);
    }
    ck_assert_uint_le(cache_used(cache), 40 << 10);
    table_unref(t);
    ck_assert_uint_eq(cache_used(cache), 0);
    cache_unref(cache);
    table_rows_release(&rows);
}
END_TEST

/* ---- sequential reading ---- */

static size_t resident_pages(void *map, size_t size)
{
    size_t pages = (size + os_page_size() - 1) / os_page_size(), n = 0;
    unsigned char *resident = calloc(pages, 1);
    ck_assert_ptr_nonnull(resident);
    ck_assert_int_eq(mincore(map, size, resident), 0);
    for (size_t i = 0; i < pages; i++) {
        n += resident[i] & 1;
    }
    free(resident);
    return n;
}

static void walk(struct table *t, const struct table_rows *rows, bool sequential)
{
    struct table_iter it;
    size_t n = 0;
    table_iter_init(&it, t, NULL);
    it.sequential = sequential;
    for (int rc = table_iter_first(&it); rc == SHALE_OK; rc = table_iter_next(&it)) {
        ck_assert(slice_equal(it.value, rows->row[n].value));
        n++;
    }
    ck_assert_uint_eq(n, rows->count);
    table_iter_release(&it);
}

/* Compaction reads a table, and the pages that readers have mapped stay, in this process as in others. */
START_TEST(sequential_reading_leaves_readers_their_pages)
{
    struct table_rows rows;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 5000, 13);
    struct table *t = make(&rows, &plain, NULL);
    walk(t, &rows, false); /* a reader, whose pages are mapped now */
    size_t before = resident_pages(t->map, t->size);
    ck_assert_uint_gt(before, 1000);
    walk(t, &rows, true);
    ck_assert_uint_eq(resident_pages(t->map, t->size), before);
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

static unsigned hints, reads;
static int count_hints(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)name, (void)offset, (void)length;
    hints += op == OS_OP_ADVISE && fd >= 0;
    reads += op == OS_OP_READ;
    return 0;
}

/* To drop pages may wait for every processor. */
START_TEST(sequential_reading_gives_no_hints)
{
    struct table_rows rows;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 5000, 16);
    struct table *t = make(&rows, &plain, NULL);
    hints = reads = 0;
    os_door_hook = count_hints;
    walk(t, &rows, true);
    os_door_hook = NULL;
    ck_assert_uint_ge(reads, 4);
    ck_assert_uint_eq(hints, 0);
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

START_TEST(h16_sequential_reading_of_an_unlinked_table)
{
    struct table_rows rows;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 3000, 14);
    struct table *t = make(&rows, &plain, NULL);
    ok(os_unlink(dir, "000034.sst"));
    walk(t, &rows, true);
    int fd; /* another file takes the name: not to be read instead */
    ok(os_open(dir, "000034.sst", O_RDWR | O_CREAT | O_EXCL, 0600, &fd));
    os_close(&fd);
    walk(t, &rows, true);
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

START_TEST(sequential_reading_verifies_what_was_verified_before)
{
    struct table_rows rows;
    struct table_iter it;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 3000, 15);
    struct table *t = make(&rows, &plain, NULL);
    walk(t, &rows, false);
    ck_assert_int_eq(scratch_flip_bit(dir_path, "000034.sst", 8 * 100000), 0);
    table_iter_init(&it, t, NULL);
    it.sequential = true;
    int rc = table_iter_first(&it);
    while (rc == SHALE_OK) {
        rc = table_iter_next(&it);
    }
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    ck_assert(!it.valid);
    table_iter_release(&it);
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table_cache");
    TCase *c = tcase_create("cache");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, filter_is_as_good_as_its_bits);
    tcase_add_test(c, filter_saves_look_ups_and_is_counted);
    tcase_add_test(c, cache_unpacks_a_block_once);
    tcase_add_test(c, cache_keeps_to_its_capacity);
    tcase_add_test(c, clock_keeps_what_is_used);
    tcase_add_test(c, pinned_value_outlives_cache_and_table);
    tcase_add_test(c, largest_capacity_that_was_asked_for_counts);
    tcase_add_test(c, h06_forked_child_has_a_cache_of_its_own);
    tcase_add_loop_test(c, threads_read_one_table_at_once, 0, 4);
    tcase_add_test(c, sequential_reading_leaves_readers_their_pages);
    tcase_add_test(c, sequential_reading_gives_no_hints);
    tcase_add_test(c, h16_sequential_reading_of_an_unlinked_table);
    tcase_add_test(c, sequential_reading_verifies_what_was_verified_before);
    suite_add_tcase(suite, c);
    return run_suite("test_table_cache", suite);
}
