/* test_db_write_lock.c - what is done under the write lock, for which all writers wait: no file is opened,
 * read, mapped or unmapped there [I-4]. Whatever others have made since is opened before. And what the
 * callers leave to others. */
#include "lib/lib.h"

static char *dir;
static shale_db *late, *other; /* late has seen nothing yet of what other did */

static int probe_fd = -1;
static bool probing;
static unsigned calls, calls_under_write;

static int look(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    bool taken = false;
    (void)fd, (void)name, (void)offset, (void)length;
    if ((op == OS_OP_OPEN || op == OS_OP_READ || op == OS_OP_MAP || op == OS_OP_UNMAP) && !probing) {
        probing = true; /* the test of the lock passes this door, too */
        assert_ok(os_lock_test(probe_fd, OS_BYTE_WRITE, 2, true, &taken));
        calls++;
        calls_under_write += taken;
        probing = false;
    }
    return 0;
}

static void setup(void)
{
    shale_options o = small_options();
    char path[PATH_MAX], key[16], value[500];
    o.l0_compact = 90;
    o.l0_stop = 100;
    dir = scratch_dir("write_lock");
    other = open_with(dir, &o);
    late = open_with(dir, &o);
    put(late, "early", "1");
    memset(value, 'v', sizeof value);
    for (int i = 0; i < 5000; i++) { /* several segments and tables */
        snprintf(key, sizeof key, "%06d", i);
        assert_ok(shale_put(other, key, 6, value, sizeof value, 0));
    }
    snprintf(path, sizeof path, "%s/LOCK", dir);
    probe_fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(probe_fd, 0);
    os_door_hook = look;
}

static void teardown(void)
{
    os_door_hook = NULL;
    ck_assert_uint_gt(calls, 0);
    ck_assert_uint_eq(calls_under_write, 0);
    ck_assert_int_eq(close(probe_fd), 0);
    assert_ok(shale_close(late));
    assert_ok(shale_close(other));
    free(dir);
}

START_TEST(put_opens_what_it_needs_before)
{
    put(late, "k", "v");
    expect(other, NULL, "k", "v");
}
END_TEST

START_TEST(transaction_opens_what_it_reads_before)
{
    shale_txn *t = NULL;
    shale_value v = {0};
    assert_ok(shale_txn_begin(late, 0, -1, &t));
    assert_ok(shale_txn_get(t, "004321", 6, &v));
    shale_value_release(&v);
    assert_ok(shale_txn_put(t, "k", 1, "v", 1));
    assert_ok(shale_txn_commit(t));
    expect(other, NULL, "k", "v");
}
END_TEST

/* ---- what was replaced ---- */

static void make_dir(void)
{
    dir = scratch_dir("write_lock");
}

static void free_dir(void)
{
    os_door_hook = NULL;
    free(dir);
}

static pthread_t main_thread;
static _Thread_local bool calling;
static unsigned unmapped_by_caller;
static _Atomic unsigned unmapped_by_threads;

static int look_who(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_UNMAP) {
        unmapped_by_caller += calling;
        unmapped_by_threads += pthread_equal(pthread_self(), main_thread) == 0;
    }
    return 0;
}

/* With its last mapping a table that was removed gives its blocks back, which takes long: nothing for who
 * came to read or to write. */
START_TEST(what_was_replaced_is_given_back_by_a_maintenance_thread)
{
    shale_options o = small_options();
    char path[PATH_MAX];
    shale_db *db, *compacter;
    main_thread = pthread_self();
    snprintf(path, sizeof path, "%s-replaced", dir);
    compacter = open_with(path, &o);
    put(compacter, "a", "1");
    o.threads = 1;
    db = open_with(path, &o);
    os_door_hook = look_who;
    for (int round = 0; round < 50; round++) {
        put(compacter, "b", "2");
        assert_ok(shale_flush(compacter));
        calling = true;
        expect(db, NULL, "a", "1");
        calling = false;
        assert_ok(shale_compact_range(compacter, NULL, 0, NULL, 0, NULL, NULL));
        calling = true;
        put(db, "c", "3");
        expect(db, NULL, "a", "1");
        calling = false;
    }
    for (int i = 0; i < 1000 && unmapped_by_threads < 50; i++) {
        os_nap(10000000);
    }
    os_door_hook = NULL;
    ck_assert_uint_ge(unmapped_by_threads, 50);
    ck_assert_uint_eq(unmapped_by_caller, 0);
    assert_ok(shale_close(db));
    assert_ok(shale_close(compacter));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_write_lock");
    TCase *t = tcase_create("write_lock");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, put_opens_what_it_needs_before);
    tcase_add_test(t, transaction_opens_what_it_reads_before);
    suite_add_tcase(s, t);
    t = tcase_create("replaced");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, make_dir, free_dir);
    tcase_add_test(t, what_was_replaced_is_given_back_by_a_maintenance_thread);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
