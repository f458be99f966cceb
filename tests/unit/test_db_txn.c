/* test_db_txn.c - write transactions: what they see, what others see, which thread they belong to, how they
 * end. */
#include "lib/lib.h"

#include <unistd.h>

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("txn");
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

static shale_txn *begin(void)
{
    shale_txn *t = NULL;
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    ck_assert_ptr_nonnull(t);
    return t;
}

static void txn_put(shale_txn *t, const char *key, const char *value)
{
    assert_ok(shale_txn_put(t, key, strlen(key), value, strlen(value)));
}

static void txn_expect(shale_txn *t, const char *key, const char *value)
{
    shale_value v = {0};
    int rc = shale_txn_get(t, key, strlen(key), &v);
    ck_assert_msg(rc == (value != NULL ? SHALE_OK : SHALE_NOTFOUND), "%s: %s", key, shale_errname(rc));
    ck_assert(value == NULL || (v.size == strlen(value) && memcmp(v.data, value, v.size) == 0));
    shale_value_release(&v);
}

/* ---- what it and others see ---- */

START_TEST(nothing_is_visible_before_commit_and_all_of_it_after)
{
    shale_db *other = open_small(dir);
    shale_snapshot *before = NULL;
    put(db, "a", "old");
    put(db, "b", "old");
    shale_txn *t = begin();
    txn_put(t, "a", "new");
    txn_put(t, "c", "new");
    assert_ok(shale_txn_delete(t, "b", 1));
    expect(other, NULL, "a", "old");
    expect(other, NULL, "b", "old");
    expect(other, NULL, "c", NULL);
    assert_ok(shale_snapshot_create(other, &before));
    uint64_t seq = STAT(db, seq);
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(STAT(db, seq), seq + 3);
    expect(other, NULL, "a", "new");
    expect(other, NULL, "b", NULL);
    expect(other, NULL, "c", "new");
    expect(other, before, "a", "old");
    expect(other, before, "b", "old");
    expect(other, before, "c", NULL);
    shale_snapshot_release(before);
    assert_ok(shale_close(other));
}
END_TEST

START_TEST(its_own_last_write_of_a_key_counts)
{
    put(db, "k", "0");
    shale_txn *t = begin();
    txn_expect(t, "k", "0");
    txn_put(t, "k", "1");
    txn_expect(t, "k", "1");
    assert_ok(shale_txn_delete(t, "k", 1));
    txn_expect(t, "k", NULL);
    txn_put(t, "k", "");
    txn_expect(t, "k", "");
    txn_put(t, "", "of the empty key");
    txn_expect(t, "", "of the empty key");
    assert_ok(shale_txn_commit(t));
    expect(db, NULL, "k", "");
    expect(db, NULL, "", "of the empty key");
    for (int i = 0; i < 2; i++) {
        assert_ok(shale_flush(db));
        expect(db, NULL, "k", "");
    }
}
END_TEST

START_TEST(reads_what_lies_in_every_run)
{
    put(db, "deep", "1");
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    put(db, "l0", "2");
    assert_ok(shale_flush(db));
    put(db, "mem", "3");
    shale_txn *t = begin();
    txn_expect(t, "deep", "1");
    txn_expect(t, "l0", "2");
    txn_expect(t, "mem", "3");
    assert_ok(shale_txn_delete(t, "deep", 4));
    txn_expect(t, "deep", NULL);
    shale_txn_abort(t);
    expect(db, NULL, "deep", "1");
}
END_TEST

START_TEST(abort_and_empty_commit_leave_nothing)
{
    uint64_t seq = STAT(db, seq), commits = STAT(db, commits);
    shale_txn *t = begin();
    txn_put(t, "a", "1");
    shale_txn_abort(t);
    assert_ok(shale_txn_commit(begin()));
    expect(db, NULL, "a", NULL);
    ck_assert_uint_eq(STAT(db, seq), seq);
    ck_assert_uint_eq(STAT(db, commits), commits);
    put(db, "a", "2"); /* and the lock is free */
}
END_TEST

START_TEST(puts_and_deletes_are_counted_apart)
{
    uint64_t puts = STAT(db, puts), deletes = STAT(db, deletes), commits = STAT(db, commits);
    shale_txn *t = begin();
    txn_put(t, "a", "1");
    txn_put(t, "b", "1");
    txn_put(t, "b", "2");
    assert_ok(shale_txn_delete(t, "a", 1));
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(STAT(db, puts), puts + 3);
    ck_assert_uint_eq(STAT(db, deletes), deletes + 1);
    ck_assert_uint_eq(STAT(db, commits), commits + 1);
}
END_TEST

/* ---- iterators ---- */

enum { BASE_KEYS = 60 };

static void key_of(unsigned i, char key[16])
{
    snprintf(key, 16, "key%04u", i);
}

/* The base has every even key; the transaction overwrites, adds and deletes. */
static void scatter(shale_txn *t, struct oracle *o, uint64_t *seed, unsigned n)
{
    char key[16], value[16];
    for (unsigned j = 0; j < n; j++) {
        key_of((unsigned)(prng_next(seed) % (2 * BASE_KEYS)), key);
        struct slice k = slice_make(key, strlen(key));
        if (prng_next(seed) % 3 == 0) {
            assert_ok(shale_txn_delete(t, key, strlen(key)));
            oracle_delete(o, k);
        } else {
            snprintf(value, sizeof value, "txn%u", j);
            txn_put(t, key, value);
            oracle_put(o, k, slice_make(value, strlen(value)));
        }
    }
}

static void check_at(const struct oracle *o, const shale_iter *it, int rc, size_t pos)
{
    struct slice want;
    size_t n;
    ck_assert_msg(rc == (pos == ORACLE_END ? SHALE_NOTFOUND : SHALE_OK), "%s", shale_errname(rc));
    ck_assert_int_eq(shale_iter_valid(it), pos != ORACLE_END);
    if (pos == ORACLE_END) {
        return;
    }
    const void *k = shale_iter_key(it, &n);
    ck_assert_msg(slice_equal(slice_make(k, n), buf_slice(&o->keys[pos].key)), "%.*s", (int)n,
                  (const char *)k);
    ck_assert(oracle_get(o, o->tick, buf_slice(&o->keys[pos].key), &want));
    const void *v = shale_iter_value(it, &n);
    ck_assert(slice_equal(slice_make(v, n), want));
}

static size_t where(const struct oracle *o, const struct oracle_range *r, const shale_iter *it)
{
    size_t n;
    const void *k = shale_iter_key(it, &n);
    return oracle_seek(o, r, slice_make(k, n));
}

/* Random moves, compared with the oracle; it must stand somewhere. */
static void wander(const struct oracle *o, shale_iter *it, uint64_t *seed, unsigned moves)
{
    struct oracle_range r = {.at = o->tick};
    char key[16];
    for (unsigned j = 0; j < moves; j++) {
        key_of((unsigned)(prng_next(seed) % (2 * BASE_KEYS + 2)), key);
        struct slice k = slice_make(key, strlen(key));
        switch (shale_iter_valid(it) ? prng_next(seed) % 10 : prng_next(seed) % 4) {
        case 0: check_at(o, it, shale_iter_first(it), oracle_first(o, &r)); break;
        case 1: check_at(o, it, shale_iter_last(it), oracle_last(o, &r)); break;
        case 2: check_at(o, it, shale_iter_seek(it, k.data, k.size), oracle_seek(o, &r, k)); break;
        case 3:
            check_at(o, it, shale_iter_seek_for_prev(it, k.data, k.size), oracle_seek_for_prev(o, &r, k));
            break;
        case 4:
        case 5:
        case 6: {
            size_t pos = oracle_next(o, &r, where(o, &r, it));
            check_at(o, it, shale_iter_next(it), pos);
            break;
        }
        default: {
            size_t pos = oracle_prev(o, &r, where(o, &r, it));
            check_at(o, it, shale_iter_prev(it), pos);
            break;
        }
        }
    }
}

START_TEST(iterator_shows_the_base_under_its_writes)
{
    struct oracle o = {0};
    uint64_t seed = test_seed(7 + (uint64_t)_i);
    char key[16];
    for (unsigned i = 0; i < BASE_KEYS; i++) {
        key_of(2 * i, key);
        put(db, key, "base");
        oracle_put(&o, slice_make(key, strlen(key)), slice_make("base", 4));
        if (i % 20 == 19) {
            assert_ok(i < 30 ? shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL) : shale_flush(db));
        }
    }
    shale_txn *t = begin();
    for (unsigned round = 0; round < 12; round++) {
        shale_iter *it = NULL;
        assert_ok(shale_txn_iter(t, NULL, &it));
        wander(&o, it, &seed, 200);
        shale_iter_destroy(it);
        scatter(t, &o, &seed, 8);
    }
    assert_ok(shale_txn_commit(t));
    shale_iter *it = NULL;
    assert_ok(shale_iter_create(db, NULL, NULL, &it));
    wander(&o, it, &seed, 500);
    shale_iter_destroy(it);
    oracle_release(&o);
}
END_TEST

START_TEST(positioned_iterator_sees_later_writes_of_its_transaction)
{
    struct oracle o = {0};
    uint64_t seed = test_seed(99);
    shale_iter *it = NULL;
    shale_txn *t = begin();
    scatter(t, &o, &seed, 30);
    assert_ok(shale_txn_iter(t, NULL, &it));
    for (unsigned round = 0; round < 30; round++) {
        wander(&o, it, &seed, 20);
        scatter(t, &o, &seed, 3);
        struct oracle_range r = {.at = o.tick};
        check_at(&o, it, shale_iter_first(it), oracle_first(&o, &r));
    }
    shale_iter_destroy(it);
    shale_txn_abort(t);
    ck_assert_uint_eq(count_entries(db, NULL), 0);
    oracle_release(&o);
}
END_TEST

START_TEST(bounds_hold_over_its_writes)
{
    shale_iter_options o;
    shale_iter *it = NULL;
    size_t n;
    put(db, "a/1", "base");
    put(db, "b/1", "base");
    put(db, "c/1", "base");
    shale_txn *t = begin();
    txn_put(t, "b/0", "mine");
    txn_put(t, "b/2", "mine");
    txn_put(t, "c/0", "mine");
    shale_iter_options_init(&o);
    o.prefix = "b/", o.prefixlen = 2;
    assert_ok(shale_txn_iter(t, &o, &it));
    assert_ok(shale_iter_first(it));
    ck_assert_mem_eq(shale_iter_key(it, &n), "b/0", 3);
    assert_ok(shale_iter_next(it));
    ck_assert_mem_eq(shale_iter_key(it, &n), "b/1", 3);
    assert_ok(shale_iter_next(it));
    ck_assert_mem_eq(shale_iter_key(it, &n), "b/2", 3);
    assert_status(shale_iter_next(it), SHALE_NOTFOUND);
    assert_ok(shale_iter_last(it));
    ck_assert_mem_eq(shale_iter_key(it, &n), "b/2", 3);
    assert_ok(shale_iter_seek_for_prev(it, "b/19", 4));
    ck_assert_mem_eq(shale_iter_key(it, &n), "b/1", 3);
    shale_iter_destroy(it);
    shale_txn_abort(t);
}
END_TEST

START_TEST(iterator_and_value_outlive_the_transaction)
{
    shale_iter *it = NULL;
    shale_value mine = {0}, base = {0};
    size_t n;
    put(db, "a", "base");
    shale_txn *t = begin();
    txn_put(t, "b", "mine");
    assert_ok(shale_txn_get(t, "a", 1, &base));
    assert_ok(shale_txn_get(t, "b", 1, &mine));
    assert_ok(shale_txn_iter(t, NULL, &it));
    assert_ok(shale_iter_first(it));
    if (_i == 0) {
        assert_ok(shale_txn_commit(t));
    } else {
        shale_txn_abort(t);
    }
    put(db, "a", "later");
    assert_ok(shale_flush(db));
    ck_assert_mem_eq(base.data, "base", 4);
    ck_assert_mem_eq(mine.data, "mine", 4);
    assert_ok(shale_iter_next(it));
    ck_assert_mem_eq(shale_iter_value(it, &n), "mine", 4);
    assert_ok(shale_iter_prev(it));
    ck_assert_mem_eq(shale_iter_value(it, &n), "base", 4);
    shale_iter_destroy(it);
    shale_value_release(&base);
    shale_value_release(&mine);
}
END_TEST

/* ---- threads ---- */

struct task {
    shale_txn *txn;
    const char *key;
    int rc;
};

static void *put_in_it(void *ctx)
{
    struct task *k = ctx;
    k->rc = shale_txn_put(k->txn, k->key, strlen(k->key), "1", 1);
    return NULL;
}

static void *commit_it(void *ctx)
{
    struct task *k = ctx;
    k->rc = shale_txn_commit(k->txn);
    if (k->rc == SHALE_OK) { /* this thread may write again at once */
        k->rc = shale_put(db, k->key, strlen(k->key), "2", 1, 0);
    }
    return NULL;
}

static void *abort_it(void *ctx)
{
    struct task *k = ctx;
    shale_txn_abort(k->txn);
    k->rc = shale_put(db, k->key, strlen(k->key), "2", 1, 0);
    return NULL;
}

static void *put_beside_it(void *ctx)
{
    struct task *k = ctx;
    char me[32];
    snprintf(me, sizeof me, "(pid %d)", (int)getpid());
    k->rc = shale_put(db, k->key, strlen(k->key), "1", 1, SHALE_NOWAIT);
    if (k->rc == SHALE_BUSY &&
        (strstr(shale_errmsg(), me) == NULL || strstr(shale_errmsg(), "since") == NULL)) {
        printf("does not name the holder: %s\n", shale_errmsg());
        k->rc = SHALE_INVALID;
    }
    return NULL;
}

static int in_thread(void *(*run)(void *), shale_txn *txn, const char *key)
{
    struct task k = {txn, key, SHALE_OK};
    pthread_t thread;
    assert_ok(os_thread_start(&thread, run, &k, "txn"));
    os_thread_join(thread);
    return k.rc;
}

START_TEST(transaction_may_wander_from_thread_to_thread)
{
    for (int i = 0; i < 2; i++) {
        shale_txn *t = begin();
        assert_ok(in_thread(put_in_it, t, "by another"));
        txn_put(t, "by me", "1");
        assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_INUSE);
        assert_ok(in_thread(i == 0 ? commit_it : abort_it, t, "after"));
        expect(db, NULL, "by another", i == 0 ? "1" : NULL);
        expect(db, NULL, "after", "2");
        put(db, "k", "v"); /* this one may write too: the transaction it began is over */
        del(db, "by another");
    }
}
END_TEST

START_TEST(other_threads_wait_or_are_told)
{
    shale_txn *t = begin();
    assert_status(in_thread(put_beside_it, NULL, "k"), SHALE_BUSY);
    assert_ok(shale_txn_commit(t));
    assert_ok(in_thread(put_beside_it, NULL, "k"));
}
END_TEST

START_TEST(what_would_wait_for_its_own_transaction_is_inuse)
{
    shale_batch *b = NULL;
    shale_db *other = open_small(dir);
    shale_txn *t = begin(), *second = NULL;
    assert_ok(shale_batch_create(&b));
    assert_ok(shale_batch_put(b, "k", 1, "v", 1));
    txn_put(t, "a", "1");
    assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_INUSE);
    assert_status(shale_delete(db, "k", 1, 0), SHALE_INUSE);
    assert_status(shale_write(db, b, 0), SHALE_INUSE);
    assert_status(shale_txn_begin(db, 0, -1, &second), SHALE_INUSE);
    assert_status(shale_put(other, "k", 1, "v", 1, 0), SHALE_INUSE); /* another handle of the same database */
    assert_status(shale_txn_begin(other, 0, -1, &second), SHALE_INUSE);
    assert_status(shale_flush(db), SHALE_INUSE);
    assert_status(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL), SHALE_INUSE);
    expect(db, NULL, "k", NULL); /* what reads does not wait */
    assert_ok(shale_verify(db, NULL, NULL));
    shale_txn_abort(t);
    shale_batch_destroy(b);
    assert_ok(shale_close(other));
}
END_TEST

START_TEST(transactions_on_two_databases_do_not_meet)
{
    char *second = scratch_dir("txn-second");
    shale_db *other = open_small(second);
    shale_txn *a = begin(), *b = NULL;
    put(other, "k", "v");
    assert_ok(shale_txn_begin(other, 0, -1, &b));
    txn_put(a, "k", "a");
    txn_put(b, "k", "b");
    assert_ok(shale_txn_commit(a));
    assert_status(shale_put(other, "k", 1, "v", 1, 0), SHALE_INUSE);
    put(db, "l", "1");
    assert_ok(shale_txn_commit(b));
    expect(db, NULL, "k", "a");
    expect(other, NULL, "k", "b");
    assert_ok(shale_close(other));
    free(second);
}
END_TEST

/* ---- limits and ends ---- */

START_TEST(refused_entry_does_not_spoil_the_transaction)
{
    static char key[65536];
    shale_iter *it = NULL;
    shale_value v = {0};
    shale_txn *t = begin();
    txn_put(t, "a", "1");
    assert_status(shale_txn_put(t, key, sizeof key, "v", 1), SHALE_TOOBIG);
    assert_status(shale_txn_delete(t, key, sizeof key), SHALE_TOOBIG);
    assert_status(shale_txn_put(t, "k", 1, key, (256u << 20) + 1), SHALE_TOOBIG);
    assert_status(shale_txn_put(t, NULL, 1, "v", 1), SHALE_INVALID);
    assert_status(shale_txn_put(t, "k", 1, NULL, 1), SHALE_INVALID);
    assert_status(shale_txn_get(t, NULL, 1, &v), SHALE_INVALID);
    assert_status(shale_txn_get(t, "k", 1, NULL), SHALE_INVALID);
    assert_status(shale_txn_iter(t, NULL, NULL), SHALE_INVALID);
    assert_ok(shale_txn_put(t, key, sizeof key - 1, "longest", 7));
    txn_put(t, "b", "2");
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(count_entries(db, NULL), 3);
    assert_status(shale_txn_put(NULL, "k", 1, "v", 1), SHALE_INVALID);
    assert_status(shale_txn_delete(NULL, "k", 1), SHALE_INVALID);
    assert_status(shale_txn_get(NULL, "k", 1, &v), SHALE_INVALID);
    assert_status(shale_txn_iter(NULL, NULL, &it), SHALE_INVALID);
    assert_status(shale_txn_commit(NULL), SHALE_INVALID);
}
END_TEST

START_TEST(begin_checks_its_arguments)
{
    shale_txn *t = NULL;
    shale_options o = small_options();
    o.readonly = true;
    shale_db *r = open_with(dir, &o);
    assert_status(shale_txn_begin(db, 1u << 30, -1, &t), SHALE_INVALID);
    assert_status(shale_txn_begin(db, SHALE_SYNC | SHALE_NOSYNC, -1, &t), SHALE_INVALID);
    assert_status(shale_txn_begin(db, 0, -2, &t), SHALE_INVALID);
    assert_status(shale_txn_begin(NULL, 0, -1, &t), SHALE_INVALID);
    assert_status(shale_txn_begin(r, 0, -1, &t), SHALE_READONLY);
    ck_assert_ptr_null(t);
    assert_ok(shale_close(r));
    assert_ok(shale_txn_begin(db, SHALE_NOWAIT, 0, &t));
    shale_txn_abort(t);
    put(db, "the lock", "is free");
}
END_TEST

START_TEST(commit_is_synced_as_the_flags_say)
{
    shale_txn *t = NULL;
    uint64_t before = STAT(db, fsyncs);
    assert_ok(shale_txn_begin(db, SHALE_SYNC, -1, &t));
    txn_put(t, "a", "1");
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(STAT(db, fsyncs), before + 1);
    ck_assert_uint_eq(STAT(db, synced_seq), STAT(db, seq));
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    txn_put(t, "a", "2");
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(STAT(db, fsyncs), before + 1);
}
END_TEST

START_TEST(large_transaction_stays_quick_and_whole)
{
    unsigned n = test_times(100000, 1000000);
    char key[16];
    shale_txn *t = begin();
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%010u", (unsigned)((uint64_t)i * 7919 % n));
        txn_put(t, key, key);
    }
    for (unsigned i = 0; i < n; i += 100) {
        snprintf(key, sizeof key, "%010u", i);
        txn_expect(t, key, key);
    }
    assert_ok(shale_txn_commit(t));
    ck_assert_uint_eq(count_entries(db, NULL), n);
    assert_ok(shale_close(db));
    db = open_small(dir);
    ck_assert_uint_eq(count_entries(db, NULL), n);
    assert_ok(shale_verify(db, NULL, NULL));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_txn");
    TCase *t = tcase_create("txn");
    tcase_set_timeout(t, test_times(60, 600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, nothing_is_visible_before_commit_and_all_of_it_after);
    tcase_add_test(t, its_own_last_write_of_a_key_counts);
    tcase_add_test(t, reads_what_lies_in_every_run);
    tcase_add_test(t, abort_and_empty_commit_leave_nothing);
    tcase_add_test(t, puts_and_deletes_are_counted_apart);
    tcase_add_loop_test(t, iterator_shows_the_base_under_its_writes, 0, 4);
    tcase_add_test(t, positioned_iterator_sees_later_writes_of_its_transaction);
    tcase_add_test(t, bounds_hold_over_its_writes);
    tcase_add_loop_test(t, iterator_and_value_outlive_the_transaction, 0, 2);
    tcase_add_test(t, transaction_may_wander_from_thread_to_thread);
    tcase_add_test(t, other_threads_wait_or_are_told);
    tcase_add_test(t, what_would_wait_for_its_own_transaction_is_inuse);
    tcase_add_test(t, transactions_on_two_databases_do_not_meet);
    tcase_add_test(t, refused_entry_does_not_spoil_the_transaction);
    tcase_add_test(t, begin_checks_its_arguments);
    tcase_add_test(t, commit_is_synced_as_the_flags_say);
    tcase_add_test(t, large_transaction_stays_quick_and_whole);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
