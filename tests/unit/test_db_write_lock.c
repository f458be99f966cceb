/* test_db_write_lock.c - what is done under the write lock, for which all writers wait: no file is opened,
 * read, mapped or unmapped there [I-4]. Whatever others have made since is opened before. And what the
 * callers leave to others. */
#include "lib/lib.h"
#include "db/db.h"

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
        for (int i = 0; i < 1000 && unmapped_by_threads <= (unsigned)round; i++) {
            os_nap(1000000); /* on a busy machine the thread may have to wait */
        }
    }
    os_door_hook = NULL;
    ck_assert_uint_ge(unmapped_by_threads, 50);
    ck_assert_uint_eq(unmapped_by_caller, 0);
    assert_ok(shale_close(db));
    assert_ok(shale_close(compacter));
}
END_TEST

static uint32_t wakes(const shale_db *db)
{
    return atomic_load(&db->state->work);
}

/* While a process makes the next segment, which takes as long as a thousand commits, the idle threads of all
 * processes are told a few times, in case the maker dies, and not by every commit. */
START_TEST(a_segment_that_is_due_wakes_the_idle_a_few_times)
{
    shale_options o = small_options();
    char path[PATH_MAX], value[100];
    snprintf(path, sizeof path, "%s-due", dir);
    memset(value, 'v', sizeof value);
    o.threads = 1;
    shale_db *db = open_with(path, &o);
    static const off_t first[] = {
#define X(name, byte, bytes, rank, meaning) byte,
        OS_ROLES(X)
#undef X
    };
    /* as a process does that makes one; past the audit, which would take it for this thread's own */
    struct flock lock = {.l_type = F_WRLCK, .l_start = first[OS_ROLE_PREPARE], .l_len = 1};
    ck_assert_int_eq(fcntl(db->fresh_fd, F_OFD_SETLK, &lock), 0);
    while (!db_prepare_due(db)) {
        assert_ok(shale_put(db, "k", 1, value, sizeof value, 0));
    }
    uint32_t before = wakes(db);
    for (int i = 0; i < 1000; i++) { /* less than the other seven eighths */
        assert_ok(shale_put(db, "k", 1, value, sizeof value, 0));
    }
    ck_assert(db_prepare_due(db));
    ck_assert_uint_ge(wakes(db) - before, 1);
    ck_assert_uint_le(wakes(db) - before, 5);
    lock.l_type = F_UNLCK;
    ck_assert_int_eq(fcntl(db->fresh_fd, F_OFD_SETLK, &lock), 0);
    assert_ok(shale_close(db));
}
END_TEST

/* A maintenance thread that is busy finds what was given up when it is done. */
START_TEST(what_was_given_up_wakes_the_idle_once)
{
    shale_options o = small_options();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s-given-up", dir);
    o.threads = 1;
    shale_db *db = open_with(path, &o);
    atomic_store(&db->calls_alone, 100000); /* its thread is so busy that it is not there at all */
    put(db, "a", "1");
    uint32_t active = db_active(db->state);
    assert_ok(shale_flush(db));
    uint32_t before = wakes(db);
    for (int i = 0; i < 100; i++) {
        expect(db, NULL, "a", "1");
        put(db, "b", "1");
    }
    ck_assert_uint_ne(db_active(db->state), active);
    ck_assert_ptr_nonnull(atomic_load(&db->garbage));
    ck_assert_uint_le(wakes(db) - before, 2);
    assert_ok(shale_close(db));
}
END_TEST

static shale_db *closing;
static unsigned freed_first, freed_later;

static void see_unlock(enum os_mark mark)
{
    if (mark == OS_MARK_UNLOCK && pthread_equal(pthread_self(), main_thread)) {
        if (atomic_load(&closing->keep.stopping)) {
            freed_later++;
        } else {
            freed_first++;
        }
    }
}

/* A handle that keeps the lock between its commits and is closed gives it up before it waits for any thread
 * of its own: those may have to wait for a processor. */
START_TEST(who_closes_gives_the_kept_lock_up_first)
{
    shale_options o = small_options();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s-closed", dir);
    main_thread = pthread_self();
    o.threads = 1;
    for (int round = 0; round < 50 && freed_first + freed_later == 0; round++) {
        closing = open_with(path, &o);
        for (int i = 0; i < 20000 && !atomic_load(&closing->keep.kept); i++) {
            put(closing, "k", "v");
        }
        os_mark_hook = see_unlock; /* the keeper may be faster: then again */
        assert_ok(shale_close(closing));
        os_mark_hook = NULL;
    }
    ck_assert_uint_gt(freed_first, 0);
    ck_assert_uint_eq(freed_later, 0);
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
    tcase_add_test(t, a_segment_that_is_due_wakes_the_idle_a_few_times);
    tcase_add_test(t, what_was_given_up_wakes_the_idle_once);
    tcase_add_test(t, who_closes_gives_the_kept_lock_up_first);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
