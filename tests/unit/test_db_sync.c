/* test_db_sync.c - what durable means at the system calls: the log is synced before a durable call returns,
 * and a failed fdatasync is believed, by everybody, until its data was written anew [I-13]. The kernel tells
 * a descriptor of a failure once: what it says afterwards is worth nothing. */
#include "lib/lib.h"
#include "os/os.h"

#include <pthread.h>

static char *dir;
static shale_db *db;
static _Atomic unsigned syncs; /* fdatasyncs that passed the door */
static _Atomic bool broken;    /* they fail */

static int count_syncs(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op != OS_OP_FDATASYNC) {
        return 0;
    }
    atomic_fetch_add(&syncs, 1);
    return atomic_load(&broken) ? EIO : 0;
}

static void setup(void)
{
    dir = scratch_dir("sync");
    db = open_small(dir);
    atomic_store(&broken, false);
    os_door_hook = count_syncs;
}

static void teardown(void)
{
    os_door_hook = NULL;
    assert_ok(shale_close(db));
    free(dir);
}

/* One fdatasync of the log that takes long, fails, and is told to its caller: the descriptor has no more to
 * say. */
static _Atomic unsigned slow_phase; /* 1: the next sync is the slow one; 2: under way; 3: it was told */

static int tell_once(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    unsigned armed = 1;
    (void)fd, (void)name, (void)offset, (void)length;
    if (op != OS_OP_FDATASYNC) {
        return 0;
    }
    if (atomic_compare_exchange_strong(&slow_phase, &armed, 2)) {
        int64_t until = os_now() + INT64_C(400000000);
        while (os_now() < until) {
            os_yield();
        }
        atomic_store(&slow_phase, 3);
        until = os_now() + INT64_C(50000000); /* it has heard, and has not told the others yet */
        while (os_now() < until) {
            os_yield();
        }
        return EIO;
    }
    while (atomic_load(&slow_phase) == 2) {
        os_yield(); /* the same pages are being written */
    }
    return 0;
}

static int put_durably(const char *key, const char *value)
{
    return shale_put(db, key, strlen(key), value, strlen(value), SHALE_SYNC);
}

START_TEST(durable_commit_is_on_the_disk_when_it_returns)
{
    unsigned before = atomic_load(&syncs);
    put(db, "k", "not synced");
    ck_assert_uint_eq(atomic_load(&syncs), before);
    assert_ok(put_durably("k", "synced"));
    ck_assert_uint_gt(atomic_load(&syncs), before);
    put(db, "k", "later");
    before = atomic_load(&syncs);
    assert_ok(shale_sync(db));
    ck_assert_uint_gt(atomic_load(&syncs), before);
}
END_TEST

START_TEST(close_syncs_what_was_not)
{
    put(db, "k", "v");
    unsigned before = atomic_load(&syncs);
    assert_ok(shale_close(db));
    ck_assert_uint_gt(atomic_load(&syncs), before);
    db = open_small(dir);
    expect(db, NULL, "k", "v");
}
END_TEST

START_TEST(h24_a_failed_sync_stops_every_writer_until_all_was_written_anew)
{
    shale_options o = small_options();
    shale_db *other = open_with(dir, &o);
    put(db, "before", "1");
    atomic_store(&broken, true);
    assert_status(put_durably("k", "in doubt"), SHALE_PANIC);
    atomic_store(&broken, false);
    unsigned before = atomic_load(&syncs);
    assert_status(put_durably("k", "again"), SHALE_PANIC);
    assert_status(shale_put(other, "k", 1, "other", 5, SHALE_SYNC), SHALE_PANIC);
    assert_status(shale_put(other, "k", 1, "other", 5, 0), SHALE_PANIC);
    assert_status(shale_sync(other), SHALE_PANIC);
    ck_assert_uint_eq(atomic_load(&syncs), before); /* never tried again */
    expect(other, NULL, "before", "1");             /* reads go on */

    assert_ok(shale_flush(other));
    assert_ok(put_durably("k", "healthy"));
    expect(other, NULL, "k", "healthy");
    expect(other, NULL, "before", "1");
    assert_ok(shale_close(other));
}
END_TEST

static void *put_first(void *status)
{
    *(int *)status = put_durably("first", "1");
    return NULL;
}

/* Two threads share the handle's descriptors. The second one loses patience with the first, which holds SYNC.
 */
START_TEST(h24_a_thread_that_passes_a_slow_syncer_does_not_miss_its_error)
{
    pthread_t thread;
    int first = 0;
    atomic_store(&slow_phase, 1);
    os_door_hook = tell_once;
    ck_assert_int_eq(pthread_create(&thread, NULL, put_first, &first), 0);
    while (atomic_load(&slow_phase) == 1) {
        os_yield();
    }
    assert_status(put_durably("second", "2"), SHALE_PANIC);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(first, SHALE_PANIC);
    os_door_hook = count_syncs;
    assert_ok(shale_flush(db));
    assert_ok(put_durably("third", "3"));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_sync");
    TCase *t = tcase_create("sync");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, durable_commit_is_on_the_disk_when_it_returns);
    tcase_add_test(t, close_syncs_what_was_not);
    tcase_add_test(t, h24_a_failed_sync_stops_every_writer_until_all_was_written_anew);
    tcase_add_test(t, h24_a_thread_that_passes_a_slow_syncer_does_not_miss_its_error);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
