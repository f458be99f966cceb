/* test_db_iter.c - the public API: iterators in both directions, bounds, prefixes, views. Every case runs
 * over a database whose entries lie in the memtable, in level 0, in deeper levels, and in all of them. */
#include "lib/lib.h"

static char *dir;
static shale_db *db;

/* Where the entries lie: the test's loop index. */
enum { IN_MEMTABLE, IN_L0, IN_LEVELS, IN_ALL, PLACES };

static void setup(void)
{
    dir = scratch_dir("iter");
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

static void load(const char *const *keys, size_t n, int place)
{
    for (size_t i = 0; i < n; i++) {
        put(db, keys[i], keys[i]);
        if (place == IN_ALL && i % 3 == 0) {
            assert_ok(i % 2 == 0 ? shale_flush(db) : shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
        }
    }
    if (place == IN_L0 || place == IN_LEVELS) {
        assert_ok(shale_flush(db));
    }
    if (place == IN_LEVELS) {
        assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    }
}

static shale_iter *iterate(const shale_iter_options *o)
{
    shale_iter *it = NULL;
    assert_ok(shale_iter_create(db, NULL, o, &it));
    return it;
}

static const char *here(shale_iter *it)
{
    static char text[128];
    size_t n, vn;
    if (!shale_iter_valid(it)) {
        return "end";
    }
    const char *k = shale_iter_key(it, &n), *v = shale_iter_value(it, &vn);
    ck_assert_uint_eq(n, vn);
    ck_assert(n == 0 || memcmp(k, v, n) == 0);
    snprintf(text, sizeof text, "%.*s", (int)n, k);
    return text;
}

#define assert_at(it, move, want)                                                                            \
    do {                                                                                                     \
        int moved_ = (move);                                                                                 \
        ck_assert_msg(moved_ == SHALE_OK || moved_ == SHALE_NOTFOUND, "%s: %s", #move, shale_errmsg());      \
        ck_assert_msg((moved_ == SHALE_OK) == shale_iter_valid(it), "%s: status and valid differ", #move);   \
        ck_assert_str_eq(here(it), (want));                                                                  \
        ck_assert_int_eq(shale_iter_status(it), SHALE_OK);                                                   \
    } while (0)

static const char *const five[] = {"d", "b", "e", "a", "c"};

START_TEST(walks_both_ways_and_turns_anywhere)
{
    load(five, 5, _i);
    shale_iter *it = iterate(NULL);
    ck_assert(!shale_iter_valid(it));
    assert_at(it, shale_iter_first(it), "a");
    assert_at(it, shale_iter_next(it), "b");
    assert_at(it, shale_iter_next(it), "c");
    assert_at(it, shale_iter_prev(it), "b");
    assert_at(it, shale_iter_next(it), "c");
    assert_at(it, shale_iter_prev(it), "b");
    assert_at(it, shale_iter_prev(it), "a");
    assert_at(it, shale_iter_prev(it), "end");
    assert_at(it, shale_iter_last(it), "e");
    assert_at(it, shale_iter_prev(it), "d");
    assert_at(it, shale_iter_next(it), "e");
    assert_at(it, shale_iter_next(it), "end");
    shale_iter_destroy(it);
    shale_iter_destroy(NULL);
}
END_TEST

START_TEST(seeks_to_the_neighbour)
{
    static const char *const keys[] = {"bb", "dd", "b", "d"};
    load(keys, 4, _i);
    shale_iter *it = iterate(NULL);
    assert_at(it, shale_iter_seek(it, "", 0), "b");
    assert_at(it, shale_iter_seek(it, "b", 1), "b");
    assert_at(it, shale_iter_seek(it, "ba", 2), "bb");
    assert_at(it, shale_iter_seek(it, "c", 1), "d");
    assert_at(it, shale_iter_next(it), "dd");
    assert_at(it, shale_iter_seek(it, "e", 1), "end");
    assert_at(it, shale_iter_seek_for_prev(it, "z", 1), "dd");
    assert_at(it, shale_iter_seek_for_prev(it, "d", 1), "d");
    assert_at(it, shale_iter_seek_for_prev(it, "c", 1), "bb");
    assert_at(it, shale_iter_prev(it), "b");
    assert_at(it, shale_iter_seek_for_prev(it, "a", 1), "end");
    assert_at(it, shale_iter_seek_for_prev(it, "", 0), "end");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(bounds_hold_in_both_directions)
{
    load(five, 5, _i);
    shale_iter_options o;
    shale_iter_options_init(&o);
    char lower[] = "b", upper[] = "d";
    o.lower = lower, o.lowerlen = 1;
    o.upper = upper, o.upperlen = 1;
    shale_iter *it = iterate(&o);
    memset(lower, 'x', 1); /* they were copied */
    memset(upper, 'x', 1);
    assert_at(it, shale_iter_first(it), "b");
    assert_at(it, shale_iter_next(it), "c");
    assert_at(it, shale_iter_next(it), "end");
    assert_at(it, shale_iter_last(it), "c");
    assert_at(it, shale_iter_prev(it), "b");
    assert_at(it, shale_iter_prev(it), "end");
    assert_at(it, shale_iter_seek(it, "a", 1), "b");
    assert_at(it, shale_iter_seek(it, "d", 1), "end");
    assert_at(it, shale_iter_seek_for_prev(it, "e", 1), "c");
    assert_at(it, shale_iter_seek_for_prev(it, "a", 1), "end");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(empty_ranges_hold_nothing)
{
    load(five, 5, _i);
    shale_iter *it = NULL;
    assert_ok(shale_iter_range(db, NULL, "d", 1, "b", 1, 0, &it));
    assert_at(it, shale_iter_first(it), "end");
    assert_at(it, shale_iter_last(it), "end");
    shale_iter_destroy(it);
    assert_ok(shale_iter_range(db, NULL, "c", 1, "c", 1, 0, &it));
    assert_at(it, shale_iter_first(it), "end");
    assert_at(it, shale_iter_seek_for_prev(it, "z", 1), "end");
    shale_iter_destroy(it);
    assert_ok(shale_iter_range(db, NULL, "x", 1, NULL, 0, 0, &it));
    assert_at(it, shale_iter_first(it), "end");
    assert_at(it, shale_iter_last(it), "end");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(range_without_bounds_is_everything)
{
    load(five, 5, _i);
    shale_iter *it = NULL;
    assert_ok(shale_iter_range(db, NULL, NULL, 0, NULL, 0, 0, &it));
    assert_at(it, shale_iter_first(it), "a");
    assert_at(it, shale_iter_last(it), "e");
    shale_iter_destroy(it);
    assert_ok(shale_iter_range(db, NULL, NULL, 0, "b", 1, 0, &it));
    assert_at(it, shale_iter_last(it), "a");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(prefix_of_ff_bytes_has_no_upper_end)
{
    static const char *const keys[] = {
        "", "a", "\xfe\xff", "\xff", "\xff\x01", "\xff\xff", "\xff\xff\xff", "b\xff", "b\xff\xff", "c"};
    shale_iter_options o;
    load(keys, BASE_COUNT(keys), _i);
    shale_iter_options_init(&o);
    o.prefix = "\xff", o.prefixlen = 1;
    shale_iter *it = iterate(&o);
    assert_at(it, shale_iter_first(it), "\xff");
    assert_at(it, shale_iter_next(it), "\xff\x01");
    assert_at(it, shale_iter_last(it), "\xff\xff\xff");
    assert_at(it, shale_iter_next(it), "end");
    assert_at(it, shale_iter_seek(it, "a", 1), "\xff");
    assert_at(it, shale_iter_prev(it), "end");
    shale_iter_destroy(it);
    o.prefix = "\xff\xff", o.prefixlen = 2;
    it = iterate(&o);
    assert_at(it, shale_iter_first(it), "\xff\xff");
    assert_at(it, shale_iter_last(it), "\xff\xff\xff");
    shale_iter_destroy(it);
    o.prefix = "b\xff", o.prefixlen = 2;
    it = iterate(&o);
    assert_at(it, shale_iter_first(it), "b\xff");
    assert_at(it, shale_iter_next(it), "b\xff\xff");
    assert_at(it, shale_iter_next(it), "end");
    assert_at(it, shale_iter_last(it), "b\xff\xff");
    assert_at(it, shale_iter_seek_for_prev(it, "c", 1), "b\xff\xff");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(prefix_and_bounds_narrow_each_other)
{
    static const char *const keys[] = {"pa", "pb", "pc", "pd", "q"};
    shale_iter_options o;
    load(keys, BASE_COUNT(keys), _i);
    shale_iter_options_init(&o);
    o.prefix = "p", o.prefixlen = 1;
    o.lower = "pb", o.lowerlen = 2;
    o.upper = "z", o.upperlen = 1;
    shale_iter *it = iterate(&o);
    assert_at(it, shale_iter_first(it), "pb");
    assert_at(it, shale_iter_last(it), "pd");
    shale_iter_destroy(it);
    o.lower = "a", o.lowerlen = 1;
    o.upper = "pc", o.upperlen = 2;
    it = iterate(&o);
    assert_at(it, shale_iter_first(it), "pa");
    assert_at(it, shale_iter_last(it), "pb");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(overwritten_and_deleted_entries_show_once_or_not)
{
    load(five, 5, _i);
    assert_ok(shale_flush(db));
    put(db, "c", "c");
    del(db, "a");
    del(db, "e");
    shale_iter *it = iterate(NULL);
    assert_at(it, shale_iter_first(it), "b");
    assert_at(it, shale_iter_next(it), "c");
    assert_at(it, shale_iter_next(it), "d");
    assert_at(it, shale_iter_next(it), "end");
    assert_at(it, shale_iter_last(it), "d");
    assert_at(it, shale_iter_seek(it, "a", 1), "b");
    assert_at(it, shale_iter_seek_for_prev(it, "e", 1), "d");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(iterator_holds_its_view)
{
    load(five, 5, _i);
    shale_iter *it = iterate(NULL);
    assert_at(it, shale_iter_seek(it, "b", 1), "b");
    put(db, "bb", "bb");
    del(db, "c");
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_at(it, shale_iter_next(it), "c");
    assert_at(it, shale_iter_prev(it), "b");
    assert_at(it, shale_iter_last(it), "e");
    shale_iter_destroy(it);
    it = iterate(NULL);
    assert_at(it, shale_iter_seek(it, "b", 1), "b");
    assert_at(it, shale_iter_next(it), "bb");
    assert_at(it, shale_iter_next(it), "d");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(keys_only_iterates_the_same_keys)
{
    load(five, 5, _i);
    shale_iter *it = NULL;
    size_t n;
    int seen = 0;
    assert_ok(shale_iter_range(db, NULL, NULL, 0, NULL, 0, SHALE_KEYS_ONLY | SHALE_NO_FILL_CACHE, &it));
    for (int rc = shale_iter_first(it); rc == SHALE_OK; rc = shale_iter_next(it)) {
        const char *k = shale_iter_key(it, &n);
        ck_assert_uint_eq(n, 1);
        ck_assert_int_eq(k[0], 'a' + seen++);
    }
    ck_assert_int_eq(seen, 5);
    shale_iter_destroy(it);
    assert_status(shale_iter_range(db, NULL, NULL, 0, NULL, 0, 1u << 20, &it), SHALE_INVALID);
}
END_TEST

START_TEST(empty_database_iterates_nothing)
{
    shale_iter *it = iterate(NULL);
    assert_at(it, shale_iter_first(it), "end");
    assert_at(it, shale_iter_last(it), "end");
    assert_at(it, shale_iter_seek(it, "a", 1), "end");
    assert_at(it, shale_iter_seek_for_prev(it, "a", 1), "end");
    shale_iter_destroy(it);
}
END_TEST

START_TEST(older_callers_options_struct_is_understood)
{
    load(five, 5, IN_MEMTABLE);
    shale_iter_options o;
    memset(&o, 0xaa, sizeof o);
    shale_iter_options_init_sized(&o, offsetof(shale_iter_options, prefix));
    ck_assert_uint_eq(o.size, offsetof(shale_iter_options, prefix));
    ck_assert_int_eq(((unsigned char *)&o)[offsetof(shale_iter_options, prefix)], 0xaa);
    o.lower = "c", o.lowerlen = 1;
    shale_iter *it = iterate(&o);
    assert_at(it, shale_iter_first(it), "c");
    assert_at(it, shale_iter_last(it), "e");
    shale_iter_destroy(it);
}
END_TEST

/* ---- every position, every turn ---- */

enum { MANY = 48 };

static void name_many(unsigned i, char key[16])
{
    snprintf(key, 16, "k%03u", i * 2);
}

/* Round r overwrites every r-th key: each run holds some keys that others hold too. Every fifth is deleted at
 * last. */
static void load_many(struct oracle *o)
{
    char key[16], value[16];
    for (unsigned round = 1; round <= 6; round++) {
        for (unsigned i = 0; i < MANY; i += round) {
            name_many(i, key);
            int n = snprintf(value, sizeof value, "round%u", round);
            if (round == 5) {
                del(db, key);
                oracle_delete(o, slice_make(key, strlen(key)));
            } else {
                put(db, key, value);
                oracle_put(o, slice_make(key, strlen(key)), slice_make(value, (size_t)n));
            }
        }
        if (round == 1 || round == 3) {
            assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
        } else if (round < 6) {
            assert_ok(shale_flush(db)); /* level 0 twice, the rest in the memtable */
        }
    }
}

static void assert_stands(const shale_iter *it, const struct oracle *o, const struct oracle_range *r,
                          int moved, size_t pos)
{
    struct slice want;
    size_t n;
    ck_assert_int_eq(moved, pos == ORACLE_END ? SHALE_NOTFOUND : SHALE_OK);
    ck_assert_int_eq(shale_iter_valid(it), pos != ORACLE_END);
    if (pos != ORACLE_END) {
        struct slice key = buf_slice(&o->keys[pos].key);
        const void *k = shale_iter_key(it, &n);
        ck_assert_msg(slice_equal(slice_make(k, n), key), "%.*s instead of %.*s", (int)n, (const char *)k,
                      (int)key.size, (const char *)key.data);
        ck_assert(oracle_get(o, r->at, key, &want));
        const void *v = shale_iter_value(it, &n);
        ck_assert(slice_equal(slice_make(v, n), want));
    }
}

/* From each position, by each way of getting there: every pattern of four steps. */
static void turn_everywhere(shale_iter *it, const struct oracle *o, const struct oracle_range *r)
{
    char key[16];
    for (unsigned i = 0; i < 2 * MANY + 2; i++) {
        snprintf(key, sizeof key, "k%03u", i);
        struct slice k = slice_make(key, strlen(key));
        for (unsigned pattern = 0; pattern < 32; pattern++) {
            bool back = (pattern & 16) != 0;
            size_t pos = back ? oracle_seek_for_prev(o, r, k) : oracle_seek(o, r, k);
            int rc =
                back ? shale_iter_seek_for_prev(it, k.data, k.size) : shale_iter_seek(it, k.data, k.size);
            assert_stands(it, o, r, rc, pos);
            for (unsigned step = 0; pos != ORACLE_END && step < 4; step++) {
                bool next = (pattern >> step & 1) != 0;
                pos = next ? oracle_next(o, r, pos) : oracle_prev(o, r, pos);
                assert_stands(it, o, r, next ? shale_iter_next(it) : shale_iter_prev(it), pos);
            }
        }
    }
}

START_TEST(turns_at_every_position_over_all_runs)
{
    struct oracle o = {0};
    shale_iter_options bounds;
    load_many(&o);
    struct oracle_range r = {.at = o.tick};
    shale_iter *it = iterate(NULL);
    turn_everywhere(it, &o, &r);
    shale_iter_destroy(it);
    shale_iter_options_init(&bounds);
    bounds.lower = "k013", bounds.lowerlen = 4; /* between keys, */
    bounds.upper = "k060", bounds.upperlen = 4; /* and one of them */
    r.lower = slice_make("k013", 4);
    r.upper = slice_make("k060", 4);
    it = iterate(&bounds);
    struct slice all = slice_make("", 0);
    assert_stands(it, &o, &r, shale_iter_first(it), oracle_seek(&o, &r, all));
    assert_stands(it, &o, &r, shale_iter_last(it), oracle_last(&o, &r));
    turn_everywhere(it, &o, &r);
    shale_iter_destroy(it);
    oracle_release(&o);
}
END_TEST

START_TEST(snapshot_turns_as_of_then_while_everything_is_rewritten)
{
    struct oracle o = {0};
    shale_snapshot *snap = NULL;
    shale_iter *it = NULL;
    load_many(&o);
    struct oracle_range r = {.at = o.tick};
    assert_ok(shale_snapshot_create(db, &snap));
    load_many(&o);
    del(db, "k000");
    put(db, "k001", "new");
    for (int round = 0; round < 2; round++) {
        assert_ok(shale_iter_create(db, snap, NULL, &it));
        turn_everywhere(it, &o, &r);
        shale_iter_destroy(it);
        assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    }
    shale_snapshot_release(snap);
    oracle_release(&o);
}
END_TEST

/* ---- what is not to be done, and what goes wrong ---- */

START_TEST(moves_that_make_no_sense_are_refused)
{
    load(five, 5, IN_ALL);
    shale_iter *it = iterate(NULL);
    size_t n = 9;
    assert_status(shale_iter_next(it), SHALE_INVALID);
    assert_status(shale_iter_prev(it), SHALE_INVALID);
    ck_assert(!shale_iter_valid(it));
    ck_assert_ptr_nonnull(shale_iter_key(it, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_ptr_nonnull(shale_iter_value(it, &n));
    assert_status(shale_iter_seek(it, NULL, 3), SHALE_INVALID);
    assert_status(shale_iter_seek_for_prev(it, NULL, 3), SHALE_INVALID);
    assert_ok(shale_iter_seek(it, NULL, 0)); /* the empty key */
    assert_ok(shale_iter_last(it));
    assert_status(shale_iter_next(it), SHALE_NOTFOUND);
    assert_status(shale_iter_next(it), SHALE_NOTFOUND); /* it stays there */
    assert_status(shale_iter_prev(it), SHALE_NOTFOUND);
    shale_iter_destroy(it);
    assert_status(shale_iter_first(NULL), SHALE_INVALID);
    assert_status(shale_iter_next(NULL), SHALE_INVALID);
    assert_status(shale_iter_status(NULL), SHALE_INVALID);
    ck_assert(!shale_iter_valid(NULL));
    shale_iter_options o;
    shale_iter_options_init(&o);
    o.lowerlen = 1;
    assert_status(shale_iter_create(db, NULL, &o, &it), SHALE_INVALID);
    ck_assert_ptr_null(it);
    o = (shale_iter_options){0};
    assert_status(shale_iter_create(db, NULL, &o, &it), SHALE_INVALID);
    assert_status(shale_iter_create(db, NULL, NULL, NULL), SHALE_INVALID);
}
END_TEST

START_TEST(empty_key_and_empty_value_have_data)
{
    shale_iter *it = NULL;
    size_t n = 9;
    for (int round = 0; round < 2; round++) {
        put(db, "", "");
        put(db, "z", "");
        it = iterate(NULL);
        assert_ok(shale_iter_first(it));
        ck_assert_ptr_nonnull(shale_iter_key(it, &n));
        ck_assert_uint_eq(n, 0);
        ck_assert_ptr_nonnull(shale_iter_value(it, &n));
        ck_assert_uint_eq(n, 0);
        assert_ok(shale_iter_next(it));
        assert_ok(shale_iter_prev(it));
        assert_status(shale_iter_prev(it), SHALE_NOTFOUND);
        shale_iter_destroy(it);
        assert_ok(shale_flush(db));
    }
}
END_TEST

/* One damaged block in the middle of the keys. */
START_TEST(h38_damaged_block_is_an_error_there_and_nowhere_else)
{
    char key[16], value[100];
    memset(value, 'v', sizeof value);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k%03u", i);
        assert_ok(shale_put(db, key, 4, value, sizeof value, 0));
    }
    assert_ok(shale_flush(db));
    assert_ok(shale_close(db));
    char **names = scratch_names(dir, ".sst");
    ck_assert_ptr_nonnull(names[0]);
    ck_assert_int_eq(scratch_flip_bit(dir, names[0], 10000 * 8), 0);
    db = open_small(dir);
    shale_iter *it = iterate(NULL);
    int seen = 0, rc = shale_iter_first(it);
    for (; rc == SHALE_OK; rc = shale_iter_next(it)) {
        seen++;
    }
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    assert_told(names[0]);
    ck_assert(!shale_iter_valid(it));
    ck_assert_int_eq(shale_iter_status(it), SHALE_CORRUPT);
    ck_assert_int_eq(shale_iter_next(it), SHALE_CORRUPT); /* no silent end */
    ck_assert_int_eq(shale_iter_prev(it), SHALE_CORRUPT);
    for (rc = shale_iter_last(it); rc == SHALE_OK; rc = shale_iter_prev(it)) {
        seen++;
    }
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    ck_assert_int_lt(seen, 200);
    ck_assert_int_gt(seen, 180);
    assert_ok(shale_iter_seek(it, "k002", 4)); /* the rest is fine */
    ck_assert_int_eq(shale_iter_status(it), SHALE_OK);
    assert_ok(shale_iter_next(it));
    shale_iter_destroy(it);
    scratch_names_free(names);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_iter");
    TCase *t = tcase_create("iter");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, walks_both_ways_and_turns_anywhere, 0, PLACES);
    tcase_add_loop_test(t, seeks_to_the_neighbour, 0, PLACES);
    tcase_add_loop_test(t, bounds_hold_in_both_directions, 0, PLACES);
    tcase_add_loop_test(t, empty_ranges_hold_nothing, 0, PLACES);
    tcase_add_loop_test(t, range_without_bounds_is_everything, 0, PLACES);
    tcase_add_loop_test(t, prefix_of_ff_bytes_has_no_upper_end, 0, PLACES);
    tcase_add_loop_test(t, prefix_and_bounds_narrow_each_other, 0, PLACES);
    tcase_add_loop_test(t, overwritten_and_deleted_entries_show_once_or_not, 0, PLACES);
    tcase_add_loop_test(t, iterator_holds_its_view, 0, PLACES);
    tcase_add_loop_test(t, keys_only_iterates_the_same_keys, 0, PLACES);
    tcase_add_test(t, empty_database_iterates_nothing);
    tcase_add_test(t, older_callers_options_struct_is_understood);
    tcase_add_test(t, turns_at_every_position_over_all_runs);
    tcase_add_test(t, snapshot_turns_as_of_then_while_everything_is_rewritten);
    tcase_add_test(t, moves_that_make_no_sense_are_refused);
    tcase_add_test(t, empty_key_and_empty_value_have_data);
    tcase_add_test(t, h38_damaged_block_is_an_error_there_and_nowhere_else);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
