/* test_db_order.c - which of several entries of a key a read sees: every combination of absent, put and
 * deleted in the active memtable, a sealed one, a new and an old table of level 0, and a deeper level. */
#include "lib/lib.h"

enum { LAYERS = 5, KINDS = 3, KEYS = 243 }; /* 3^5 */
static const char *const layer_name[LAYERS] = {"deep", "old-l0", "new-l0", "sealed", "active"};

static char *dir;
static shale_db *db;
static int lock_fd = -1;

static void setup(void)
{
    shale_options o = small_options();
    dir = scratch_dir("order");
    o.l0_compact = 50; /* nothing moves unasked */
    o.l0_stop = 100;
    o.max_sealed = 50;
    db = open_with(dir, &o);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    close(lock_fd);
    free(dir);
}

/* What key i does in a layer: 0 nothing, 1 put, 2 delete. */
static int kind(int i, int layer)
{
    for (int k = 0; k < layer; k++) {
        i /= KINDS;
    }
    return i % KINDS;
}

static void key_name(int i, char key[16])
{
    snprintf(key, 16, "key%03d", i);
}

/* The value after the first n layers; NULL: none. */
static const char *value_after(int i, int n)
{
    for (int layer = n; layer-- > 0;) {
        if (kind(i, layer) != 0) {
            return kind(i, layer) == 1 ? layer_name[layer] : NULL;
        }
    }
    return NULL;
}

static void write_layer(int layer)
{
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        key_name(i, key);
        if (kind(i, layer) == 1) {
            put(db, key, layer_name[layer]);
        } else if (kind(i, layer) == 2) {
            del(db, key);
        }
    }
}

/* Who holds FLUSH keeps sealed memtables sealed. */
static void hold_flush(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/LOCK", dir);
    lock_fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(lock_fd, 0);
    assert_ok(os_lock_try(lock_fd, 5, 1, true));
}

/* Fills the active memtable until it is sealed. */
static void seal(void)
{
    static char filler[4096];
    for (int i = 0; i < 10000 && STAT(db, sealed_memtables) == 0; i++) {
        assert_ok(shale_put(db, "filler", 6, filler, sizeof filler, 0));
    }
    ck_assert_uint_gt(STAT(db, sealed_memtables), 0);
    del(db, "filler");
}

static void check_iterator(const shale_snapshot *snap, int n, bool back)
{
    shale_iter *it = NULL;
    char key[16];
    size_t klen, vlen;
    assert_ok(shale_iter_range(db, snap, "key", 3, NULL, 0, 0, &it));
    int rc = back ? shale_iter_last(it) : shale_iter_first(it);
    for (int j = 0; j < KEYS; j++) {
        int i = back ? KEYS - 1 - j : j;
        const char *want = value_after(i, n);
        if (want == NULL) {
            continue;
        }
        key_name(i, key);
        ck_assert_msg(rc == SHALE_OK, "after %d layers: %s is missing", n, key);
        const char *k = shale_iter_key(it, &klen), *v = shale_iter_value(it, &vlen);
        ck_assert_msg(klen == strlen(key) && memcmp(k, key, klen) == 0, "after %d layers: %.*s instead of %s",
                      n, (int)klen, k, key);
        ck_assert_msg(vlen == strlen(want) && memcmp(v, want, vlen) == 0,
                      "after %d layers: %s: %.*s instead of %s", n, key, (int)vlen, v, want);
        rc = back ? shale_iter_prev(it) : shale_iter_next(it);
    }
    assert_status(rc, SHALE_NOTFOUND);
    shale_iter_destroy(it);
}

static void check(const shale_snapshot *snap, int n)
{
    char key[16];
    for (int i = 0; i < KEYS; i++) {
        key_name(i, key);
        expect(db, snap, key, value_after(i, n));
    }
    check_iterator(snap, n, false);
    check_iterator(snap, n, true);
}

START_TEST(newest_layer_decides_in_every_combination)
{
    shale_snapshot *snap[LAYERS];
    for (int layer = 0; layer < LAYERS; layer++) {
        if (layer == 3) {
            hold_flush();
        }
        write_layer(layer);
        assert_ok(shale_snapshot_create(db, &snap[layer]));
        check(NULL, layer + 1);
        if (layer == 0) {
            assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
        } else if (layer < 3) {
            assert_ok(shale_flush(db));
        } else if (layer == 3) {
            seal();
        }
        check(NULL, layer + 1);
    }
    shale_stats s = {.size = sizeof s};
    assert_ok(shale_stat(db, &s));
    ck_assert_uint_eq(s.level_tables[0], 2);
    uint64_t deep = 0;
    for (int level = 1; level < 8; level++) {
        deep += s.level_tables[level];
    }
    ck_assert_uint_gt(deep, 0);
    ck_assert_uint_gt(s.sealed_memtables, 0);
    for (int layer = 0; layer < LAYERS; layer++) {
        check(snap[layer], layer + 1);
    }
    assert_ok(os_unlock(lock_fd, 5, 1));
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    check(NULL, LAYERS);
    for (int layer = 0; layer < LAYERS; layer++) {
        check(snap[layer], layer + 1); /* the files are gone, the views are not */
        shale_snapshot_release(snap[layer]);
    }
    assert_ok(shale_stat(db, &s));
    ck_assert_uint_eq(s.level_tables[0], 0);
}
END_TEST

START_TEST(order_survives_reopening_without_shared_state)
{
    char path[PATH_MAX];
    for (int layer = 0; layer < LAYERS; layer++) {
        write_layer(layer);
        assert_ok(shale_close(db));
        snprintf(path, sizeof path, "%s/STATE", dir);
        if (layer % 2 == 1) {
            ck_assert_int_eq(unlink(path), 0);
        }
        db = open_small(dir);
        check(NULL, layer + 1);
    }
    assert_ok(shale_verify(db, NULL, NULL));
}
END_TEST

/* Keys of zeros alone, of 1 to 40 bytes: whatever is compared of them in pieces is alike; the shorter comes
 * first. Neighbours lie in different tables, and each key in two of them. */
START_TEST(keys_that_differ_only_in_zeros_at_their_end)
{
    enum { LENGTHS = 40, TABLES = 4 };
    static const char zeros[LENGTHS];
    shale_iter *it = NULL;
    size_t size;
    for (int table = 0; table < TABLES; table++) {
        for (size_t n = 1; n <= LENGTHS; n++) {
            if (n % TABLES == (size_t)table || (n + 1) % TABLES == (size_t)table) {
                assert_ok(shale_put(db, zeros, n, &table, sizeof table, 0));
            }
        }
        if (table < TABLES - 1) {
            assert_ok(shale_flush(db));
        }
    }
    assert_ok(shale_iter_create(db, NULL, NULL, &it));
    assert_ok(shale_iter_first(it));
    for (size_t n = 1; n <= LENGTHS; n++) {
        size_t newest = n % TABLES > (n + 1) % TABLES ? n % TABLES : (n + 1) % TABLES;
        (void)shale_iter_key(it, &size);
        ck_assert_uint_eq(size, n);
        ck_assert_int_eq(*(const char *)shale_iter_value(it, &size), (int)newest);
        assert_status(shale_iter_next(it), n < LENGTHS ? SHALE_OK : SHALE_NOTFOUND);
    }
    assert_ok(shale_iter_last(it));
    for (size_t n = LENGTHS; n >= 1; n--) {
        (void)shale_iter_key(it, &size);
        ck_assert_uint_eq(size, n);
        assert_status(shale_iter_prev(it), n > 1 ? SHALE_OK : SHALE_NOTFOUND);
    }
    for (size_t n = 1; n <= LENGTHS; n++) {
        assert_ok(shale_iter_seek(it, zeros, n));
        (void)shale_iter_key(it, &size);
        ck_assert_uint_eq(size, n);
    }
    shale_iter_destroy(it);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_order");
    TCase *t = tcase_create("order");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, newest_layer_decides_in_every_combination);
    tcase_add_test(t, order_survives_reopening_without_shared_state);
    tcase_add_test(t, keys_that_differ_only_in_zeros_at_their_end);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
