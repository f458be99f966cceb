/* test_db_kv.c - the public API: keys, values, batches, multi_get, snapshots, transactions, their limits and
 * errors. */
#include "lib/lib.h"

#include <dirent.h>

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("kv");
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

START_TEST(what_was_put_is_read_until_deleted)
{
    shale_value v = {0};
    expect(db, NULL, "a", NULL);
    put(db, "a", "1");
    put(db, "b", "2");
    expect(db, NULL, "a", "1");
    put(db, "a", "3");
    expect(db, NULL, "a", "3");
    del(db, "a");
    expect(db, NULL, "a", NULL);
    del(db, "never there");
    assert_status(shale_get(db, NULL, "a", 1, &v), SHALE_NOTFOUND);
    ck_assert_ptr_null(v.data);
    ck_assert_uint_eq(v.size, 0);
    shale_value_release(&v);
    expect(db, NULL, "b", "2");
}
END_TEST

START_TEST(empty_key_and_empty_value_are_values_like_others)
{
    shale_value v = {0};
    size_t len = 99;
    assert_ok(shale_put(db, "", 0, "of empty", 8, 0));
    assert_ok(shale_put(db, NULL, 0, "again", 5, 0));
    assert_ok(shale_put(db, "k", 1, "", 0, 0));
    assert_ok(shale_put(db, "l", 1, NULL, 0, 0));
    expect(db, NULL, "", "again");
    for (int round = 0; round < 2; round++) {
        assert_ok(shale_get(db, NULL, "k", 1, &v));
        ck_assert_ptr_nonnull(v.data);
        ck_assert_uint_eq(v.size, 0);
        shale_value_release(&v);
        assert_ok(shale_get_copy(db, NULL, "l", 1, NULL, 0, &len));
        ck_assert_uint_eq(len, 0);
        assert_ok(shale_flush(db));
    }
    expect(db, NULL, "", "again");
    assert_ok(shale_delete(db, "", 0, 0));
    expect(db, NULL, "", NULL);
}
END_TEST

START_TEST(get_copy_tells_the_size_it_needs)
{
    char buf[8] = "untouch";
    size_t len = 0;
    put(db, "k", "0123456789");
    assert_status(shale_get_copy(db, NULL, "k", 1, buf, 4, &len), SHALE_TOOBIG);
    ck_assert_uint_eq(len, 10);
    char room[10];
    assert_ok(shale_get_copy(db, NULL, "k", 1, room, sizeof room, &len));
    ck_assert_uint_eq(len, 10);
    ck_assert_mem_eq(room, "0123456789", 10);
    assert_status(shale_get_copy(db, NULL, "x", 1, room, sizeof room, &len), SHALE_NOTFOUND);
    ck_assert_uint_eq(len, 0);
}
END_TEST

START_TEST(limits_of_keys_and_values_are_enforced)
{
    size_t key_max = 65535, val_max = 256u << 20;
    char *key = malloc(key_max + 1), *val = calloc(1, val_max + 1);
    shale_batch *b = NULL;
    ck_assert(key != NULL && val != NULL);
    memset(key, 'k', key_max + 1);
    assert_ok(shale_put(db, key, key_max, "v", 1, 0));
    assert_status(shale_put(db, key, key_max + 1, "v", 1, 0), SHALE_TOOBIG);
    assert_status(shale_put(db, "k", 1, val, val_max + 1, 0), SHALE_TOOBIG);
    assert_status(shale_delete(db, key, key_max + 1, 0), SHALE_TOOBIG);
    assert_status(shale_put(db, NULL, 1, "v", 1, 0), SHALE_INVALID);
    assert_status(shale_put(db, "k", 1, NULL, 1, 0), SHALE_INVALID);
    assert_ok(shale_batch_create(&b));
    assert_status(shale_batch_put(b, key, key_max + 1, "v", 1), SHALE_TOOBIG);
    assert_status(shale_batch_put(b, "k", 1, val, val_max + 1), SHALE_TOOBIG);
    ck_assert_uint_eq(shale_batch_count(b), 0);
    shale_batch_destroy(b);
    shale_value v = {0};
    assert_ok(shale_get(db, NULL, key, key_max, &v));
    ck_assert_uint_eq(v.size, 1);
    shale_value_release(&v);
    ck_assert_uint_eq(count_entries(db, NULL), 1);
    free(key);
    free(val);
}
END_TEST

START_TEST(values_of_many_megabytes_travel_whole)
{
    size_t size = 20u << 20;
    unsigned char *big = malloc(size);
    uint64_t seed = 5;
    ck_assert_ptr_nonnull(big);
    for (size_t i = 0; i + 8 <= size; i += 8) {
        put_u64(big + i, prng_next(&seed));
    }
    assert_ok(shale_put(db, "big", 3, big, size, 0));
    for (int round = 0; round < 3; round++) {
        shale_value v = {0};
        assert_ok(shale_get(db, NULL, "big", 3, &v));
        ck_assert_uint_eq(v.size, size);
        ck_assert(memcmp(v.data, big, size) == 0);
        shale_value_release(&v);
        assert_ok(round == 0 ? shale_flush(db) : shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    }
    free(big);
}
END_TEST

struct seen {
    char text[256];
    int stop_after;
};

static int see_put(void *ctx, const void *key, size_t keylen, const void *val, size_t vallen)
{
    struct seen *s = ctx;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "%.*s=%.*s ", (int)keylen, (const char *)key, (int)vallen,
             (const char *)val);
    return --s->stop_after == 0 ? 42 : 0;
}

static int see_del(void *ctx, const void *key, size_t keylen)
{
    struct seen *s = ctx;
    size_t n = strlen(s->text);
    snprintf(s->text + n, sizeof s->text - n, "-%.*s ", (int)keylen, (const char *)key);
    return --s->stop_after == 0 ? 43 : 0;
}

START_TEST(batch_iterates_in_order_and_appends)
{
    shale_batch *a = NULL, *b = NULL;
    struct seen s = {.stop_after = -1};
    assert_ok(shale_batch_create(&a));
    assert_ok(shale_batch_create(&b));
    assert_ok(shale_batch_put(a, "x", 1, "1", 1));
    assert_ok(shale_batch_delete(a, "y", 1));
    assert_ok(shale_batch_put(b, "z", 1, "", 0));
    assert_ok(shale_batch_append(a, b));
    assert_ok(shale_batch_append(a, a));
    ck_assert_uint_eq(shale_batch_count(a), 6);
    assert_ok(shale_batch_iterate(a, see_put, see_del, &s));
    ck_assert_str_eq(s.text, "x=1 -y z= x=1 -y z= ");
    s = (struct seen){.stop_after = 2};
    ck_assert_int_eq(shale_batch_iterate(a, see_put, see_del, &s), 43);
    ck_assert_str_eq(s.text, "x=1 -y ");
    shale_batch_clear(a);
    ck_assert_uint_eq(shale_batch_count(a), 0);
    assert_ok(shale_write(db, a, 0));
    assert_ok(shale_write(db, b, 0));
    expect(db, NULL, "z", "");
    shale_batch_destroy(a);
    shale_batch_destroy(b);
    shale_batch_destroy(NULL);
}
END_TEST

START_TEST(last_entry_of_a_key_in_a_batch_wins)
{
    shale_batch *b = NULL;
    put(db, "gone", "old");
    assert_ok(shale_batch_create(&b));
    assert_ok(shale_batch_put(b, "k", 1, "first", 5));
    assert_ok(shale_batch_delete(b, "k", 1));
    assert_ok(shale_batch_put(b, "k", 1, "last", 4));
    assert_ok(shale_batch_put(b, "gone", 4, "x", 1));
    assert_ok(shale_batch_delete(b, "gone", 4));
    assert_ok(shale_write(db, b, 0));
    expect(db, NULL, "k", "last");
    expect(db, NULL, "gone", NULL);
    assert_ok(shale_write(db, b, 0)); /* a batch may be written again */
    expect(db, NULL, "k", "last");
    shale_batch_destroy(b);
    assert_ok(shale_flush(db));
    expect(db, NULL, "k", "last");
    expect(db, NULL, "gone", NULL);
    ck_assert_uint_eq(count_entries(db, NULL), 1);
}
END_TEST

START_TEST(snapshot_keeps_what_it_saw)
{
    shale_snapshot *s1 = NULL, *s2 = NULL;
    put(db, "a", "1");
    put(db, "b", "1");
    assert_ok(shale_snapshot_create(db, &s1));
    put(db, "a", "2");
    del(db, "b");
    put(db, "c", "2");
    assert_ok(shale_snapshot_create(db, &s2));
    ck_assert_uint_gt(shale_snapshot_seq(s2), shale_snapshot_seq(s1));
    put(db, "a", "3");
    for (int round = 0; round < 3; round++) {
        expect(db, s1, "a", "1");
        expect(db, s1, "b", "1");
        expect(db, s1, "c", NULL);
        expect(db, s2, "a", "2");
        expect(db, s2, "b", NULL);
        expect(db, s2, "c", "2");
        expect(db, NULL, "a", "3");
        ck_assert_uint_eq(count_entries(db, s1), 2);
        ck_assert_uint_eq(count_entries(db, s2), 2);
        assert_ok(round == 0 ? shale_flush(db) : shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    }
    shale_snapshot_release(s1);
    shale_snapshot_release(s2);
    shale_snapshot_release(NULL);
}
END_TEST

START_TEST(multi_get_reads_one_snapshot)
{
    const void *keys[] = {"a", "b", "c", "a"};
    size_t lens[] = {1, 1, 1, 1};
    shale_value vals[4];
    int status[4];
    shale_snapshot *s = NULL;
    put(db, "a", "1");
    put(db, "c", "3");
    assert_ok(shale_snapshot_create(db, &s));
    put(db, "a", "9");
    put(db, "b", "9");
    assert_ok(shale_multi_get(db, s, 4, keys, lens, vals, status));
    ck_assert_int_eq(status[0], SHALE_OK);
    ck_assert_int_eq(status[1], SHALE_NOTFOUND);
    ck_assert_int_eq(status[2], SHALE_OK);
    ck_assert_int_eq(status[3], SHALE_OK);
    ck_assert_mem_eq(vals[0].data, "1", 1);
    ck_assert_ptr_null(vals[1].data);
    ck_assert_mem_eq(vals[2].data, "3", 1);
    for (int i = 0; i < 4; i++) {
        shale_value_release(&vals[i]);
    }
    assert_ok(shale_multi_get(db, NULL, 0, keys, lens, vals, status));
    shale_snapshot_release(s);
}
END_TEST

START_TEST(transaction_reads_its_own_writes)
{
    shale_txn *t = NULL;
    shale_value v = {0};
    put(db, "a", "1");
    put(db, "b", "1");
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    assert_ok(shale_txn_put(t, "a", 1, "2", 1));
    assert_ok(shale_txn_delete(t, "b", 1));
    assert_ok(shale_txn_put(t, "c", 1, "2", 1));
    assert_ok(shale_txn_get(t, "a", 1, &v));
    ck_assert_mem_eq(v.data, "2", 1);
    shale_value_release(&v);
    assert_status(shale_txn_get(t, "b", 1, &v), SHALE_NOTFOUND);
    expect(db, NULL, "a", "1"); /* others do not see it yet */
    expect(db, NULL, "c", NULL);
    assert_ok(shale_txn_commit(t));
    expect(db, NULL, "a", "2");
    expect(db, NULL, "b", NULL);
    expect(db, NULL, "c", "2");
}
END_TEST

START_TEST(transaction_iterator_merges_its_own_writes)
{
    shale_txn *t = NULL;
    shale_iter *it = NULL;
    char seen[64] = "";
    put(db, "a", "1");
    put(db, "c", "1");
    put(db, "e", "1");
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    assert_ok(shale_txn_put(t, "b", 1, "2", 1));
    assert_ok(shale_txn_put(t, "c", 1, "2", 1));
    assert_ok(shale_txn_delete(t, "e", 1));
    assert_ok(shale_txn_iter(t, NULL, &it));
    size_t n, vn;
    for (int rc = shale_iter_first(it); rc == SHALE_OK; rc = shale_iter_next(it)) {
        const char *k = shale_iter_key(it, &n), *v = shale_iter_value(it, &vn);
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%.*s%.*s ", (int)n, k, (int)vn, v);
    }
    for (int rc = shale_iter_last(it); rc == SHALE_OK; rc = shale_iter_prev(it)) {
        const char *k = shale_iter_key(it, &n);
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%.*s", (int)n, k);
    }
    ck_assert_str_eq(seen, "a1 b2 c2 cba");
    shale_iter_destroy(it);
    shale_txn_abort(t);
    expect(db, NULL, "b", NULL);
    expect(db, NULL, "e", "1");
    ck_assert_uint_eq(count_entries(db, NULL), 3);
}
END_TEST

START_TEST(writing_beside_ones_own_transaction_is_inuse)
{
    shale_txn *t = NULL, *second = NULL;
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_INUSE);
    assert_status(shale_txn_begin(db, 0, -1, &second), SHALE_INUSE);
    ck_assert_ptr_null(second);
    expect(db, NULL, "k", NULL); /* reading is fine */
    shale_txn_abort(t);
    shale_txn_abort(NULL);
    put(db, "k", "v");
}
END_TEST

START_TEST(large_transaction_commits_whole)
{
    shale_txn *t = NULL;
    char key[16], val[100];
    memset(val, 'v', sizeof val);
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "%08d", (i * 7919) % 20000);
        assert_ok(shale_txn_put(t, key, 8, val, sizeof val));
    }
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(count_entries(db, NULL), 20000);
}
END_TEST

START_TEST(value_outlives_everything)
{
    shale_value mem = {0}, table = {0}, empty = {0};
    char *other = scratch_dir("kv-outlives");
    shale_db *d = open_small(other);
    put(d, "table", "from a table");
    assert_ok(shale_flush(d));
    put(d, "mem", "from a memtable");
    put(d, "empty", "");
    assert_ok(shale_get(d, NULL, "mem", 3, &mem));
    assert_ok(shale_get(d, NULL, "table", 5, &table));
    assert_ok(shale_get(d, NULL, "empty", 5, &empty));
    del(d, "mem");
    del(d, "table");
    assert_ok(shale_compact_range(d, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_close(d));
    assert_ok(shale_destroy(other));
    ck_assert_uint_eq(mem.size, 15);
    ck_assert_mem_eq(mem.data, "from a memtable", 15);
    ck_assert_uint_eq(table.size, 12);
    ck_assert_mem_eq(table.data, "from a table", 12);
    ck_assert_ptr_nonnull(empty.data);
    shale_value_release(&mem);
    shale_value_release(&table);
    shale_value_release(&empty);
    shale_value_release(&empty); /* a released one again: nothing */
    shale_value_release(NULL);
    free(other);
}
END_TEST

START_TEST(durable_modes_and_flags_are_counted_in_fsyncs)
{
    uint64_t before = STAT(db, fsyncs);
    for (int i = 0; i < 10; i++) {
        put(db, "k", "v"); /* durable=off */
    }
    ck_assert_uint_eq(STAT(db, fsyncs), before);
    assert_ok(shale_put(db, "k", 1, "w", 1, SHALE_SYNC));
    ck_assert_uint_gt(STAT(db, fsyncs), before);
    before = STAT(db, fsyncs);
    put(db, "k", "x");
    assert_ok(shale_sync(db));
    ck_assert_uint_gt(STAT(db, fsyncs), before);
    ck_assert_uint_eq(STAT(db, synced_seq), STAT(db, seq));
    before = STAT(db, fsyncs);
    assert_ok(shale_sync(db)); /* nothing is owed */
    ck_assert_uint_eq(STAT(db, fsyncs), before);
    shale_options o = small_options();
    o.durable = SHALE_DURABLE_COMMIT;
    shale_db *durable = open_with(dir, &o);
    before = STAT(db, fsyncs);
    put(durable, "k", "y");
    ck_assert_uint_gt(STAT(db, fsyncs), before);
    before = STAT(db, fsyncs);
    assert_ok(shale_put(durable, "k", 1, "z", 1, SHALE_NOSYNC));
    ck_assert_uint_eq(STAT(db, fsyncs), before);
    assert_ok(shale_close(durable));
}
END_TEST

START_TEST(flags_that_contradict_or_are_unknown_are_invalid)
{
    assert_status(shale_put(db, "k", 1, "v", 1, SHALE_SYNC | SHALE_NOSYNC), SHALE_INVALID);
    assert_status(shale_put(db, "k", 1, "v", 1, 1u << 30), SHALE_INVALID);
    assert_status(shale_delete(db, "k", 1, 1u << 30), SHALE_INVALID);
    expect(db, NULL, "k", NULL);
}
END_TEST

START_TEST(null_arguments_are_invalid)
{
    shale_value v = {0};
    shale_snapshot *s = NULL;
    assert_status(shale_put(NULL, "k", 1, "v", 1, 0), SHALE_INVALID);
    assert_status(shale_get(NULL, NULL, "k", 1, &v), SHALE_INVALID);
    assert_status(shale_get(db, NULL, NULL, 3, &v), SHALE_INVALID);
    assert_status(shale_get(db, NULL, "k", 1, NULL), SHALE_INVALID);
    assert_status(shale_write(db, NULL, 0), SHALE_INVALID);
    assert_status(shale_snapshot_create(NULL, &s), SHALE_INVALID);
    assert_status(shale_snapshot_create(db, NULL), SHALE_INVALID);
    assert_status(shale_batch_create(NULL), SHALE_INVALID);
    assert_status(shale_txn_begin(db, 0, -1, NULL), SHALE_INVALID);
    ck_assert_str_ne(shale_errmsg(), "");
}
END_TEST

START_TEST(h40_million_entries_in_one_batch)
{
    unsigned n = test_times(200000, 1000000);
    shale_batch *b = NULL;
    char key[16];
    assert_ok(shale_batch_create(&b));
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%010u", i);
        assert_ok(shale_batch_put(b, key, 10, "v", 1));
    }
    assert_ok(shale_write(db, b, 0));
    shale_batch_destroy(b);
    ck_assert_uint_eq(count_entries(db, NULL), n);
    put(db, "after", "1");
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(count_entries(db, NULL), n + 1);
}
END_TEST

static unsigned count_segments(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        n += strstr(e->d_name, ".wal") != NULL;
    }
    ck_assert_int_eq(closedir(d), 0);
    return n;
}

/* To make a segment takes longer than to fill a small one: its successor is made early. */
START_TEST(successor_of_a_small_segment_is_there_when_an_eighth_is_filled)
{
    char value[40000];
    memset(value, 'v', sizeof value);
    assert_ok(shale_put(db, "a", 1, value, 10000, 0));
    ck_assert_uint_eq(count_segments(), 1);
    assert_ok(shale_put(db, "b", 1, value, sizeof value, 0));
    ck_assert_uint_eq(count_segments(), 2);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_kv");
    TCase *t = tcase_create("kv");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, successor_of_a_small_segment_is_there_when_an_eighth_is_filled);
    tcase_add_test(t, what_was_put_is_read_until_deleted);
    tcase_add_test(t, empty_key_and_empty_value_are_values_like_others);
    tcase_add_test(t, get_copy_tells_the_size_it_needs);
    tcase_add_test(t, limits_of_keys_and_values_are_enforced);
    tcase_add_test(t, values_of_many_megabytes_travel_whole);
    tcase_add_test(t, batch_iterates_in_order_and_appends);
    tcase_add_test(t, last_entry_of_a_key_in_a_batch_wins);
    tcase_add_test(t, snapshot_keeps_what_it_saw);
    tcase_add_test(t, multi_get_reads_one_snapshot);
    tcase_add_test(t, transaction_reads_its_own_writes);
    tcase_add_test(t, transaction_iterator_merges_its_own_writes);
    tcase_add_test(t, writing_beside_ones_own_transaction_is_inuse);
    tcase_add_test(t, large_transaction_commits_whole);
    tcase_add_test(t, value_outlives_everything);
    tcase_add_test(t, durable_modes_and_flags_are_counted_in_fsyncs);
    tcase_add_test(t, flags_that_contradict_or_are_unknown_are_invalid);
    tcase_add_test(t, null_arguments_are_invalid);
    tcase_add_test(t, h40_million_entries_in_one_batch);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
