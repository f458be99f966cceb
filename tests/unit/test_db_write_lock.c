/* test_db_write_lock.c - what is done under the write lock, for which all writers wait: no file is opened,
 * read, mapped or unmapped there [I-4]. Whatever others have made since is opened before. */
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

static Suite *suite(void)
{
    Suite *s = suite_create("db_write_lock");
    TCase *t = tcase_create("write_lock");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, put_opens_what_it_needs_before);
    tcase_add_test(t, transaction_opens_what_it_reads_before);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
