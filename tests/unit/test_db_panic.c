/* test_db_panic.c - after a failed fdatasync of the log [I-13]: what verifies is written to new files, what
 * does not is dropped with all that follows it, and from then on everything is as before: what is
 * acknowledged later is not lost. */
#include "db/db.h"
#include "db_copy.h"

static char *dir;
static shale_db *db;
static bool broken;
static void (*meanwhile)(void); /* once, while a sync is about to fail */

static int syncs_fail(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (broken && op == OS_OP_FDATASYNC && meanwhile != NULL) {
        void (*now)(void) = meanwhile;
        meanwhile = NULL;
        now();
    }
    return broken && op == OS_OP_FDATASYNC ? EIO : 0;
}

static void setup(void)
{
    shale_options o = small_options();
    o.max_sealed = 8;
    dir = scratch_dir("panic");
    db = open_with(dir, &o);
    broken = false;
    os_door_hook = syncs_fail;
}

static void teardown(void)
{
    os_door_hook = NULL;
    assert_ok(shale_close(db));
    free(dir);
}

/* As if the page that holds the bytes had not reached the disk. */
static void damage(const char *bytes)
{
    unsigned found = 0;
    char **names = scratch_names(dir, ".wal");
    for (char **p = names; *p != NULL; p++) {
        unsigned char *data = NULL, *at;
        size_t size = 0;
        ck_assert_int_eq(scratch_read(dir, *p, &data, &size), 0);
        at = memmem(data, size, bytes, strlen(bytes));
        if (at != NULL) {
            ck_assert_int_eq(scratch_flip_bit(dir, *p, (uint64_t)(at - data) * 8), 0);
            found++;
        }
        free(data);
    }
    scratch_names_free(names);
    ck_assert_uint_eq(found, 1);
}

static void run_into_panic(const char *key, const char *value)
{
    broken = true;
    assert_status(shale_put(db, key, strlen(key), value, strlen(value), SHALE_SYNC), SHALE_PANIC);
    assert_status(shale_put(db, "refused", 7, "1", 1, 0), SHALE_PANIC);
    broken = false;
    assert_status(shale_put(db, "refused", 7, "1", 1, 0), SHALE_PANIC); /* for everybody, until it is cured */
}

/* All is in order again: a durable commit survives a crash, and flush, verify and checkpoint agree. */
static void check_cured(void)
{
    char *crashed = scratch_name("panic-crashed"), *copy = scratch_name("panic-copy");
    assert_ok(shale_put(db, "later", 5, "acknowledged", 12, SHALE_SYNC));
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    ck_assert_int_eq(scratch_copy(dir, crashed), 0);
    copy_lose(crashed, "STATE");
    for (int i = 0; i < 2; i++) {
        shale_db *c = open_small(i == 0 ? crashed : copy);
        expect(c, NULL, "later", "acknowledged");
        expect(c, NULL, "refused", NULL);
        copy_same(db, NULL, c);
        assert_ok(shale_close(c));
    }
    assert_ok(shale_flush(db));
    expect(db, NULL, "later", "acknowledged");
    assert_ok(shale_verify(db, NULL, NULL));
    free(crashed);
    free(copy);
}

START_TEST(nothing_is_lost_that_verifies)
{
    put(db, "a", "1");
    run_into_panic("b", "2");
    assert_ok(shale_flush(db));
    expect(db, NULL, "a", "1");
    expect(db, NULL, "b", "2");
    check_cured();
}
END_TEST

START_TEST(what_does_not_verify_is_dropped_and_the_log_goes_on)
{
    put(db, "a", "1");
    put(db, "b", "does not reach the disk");
    put(db, "c", "behind it");
    run_into_panic("d", "behind it");
    damage("does not reach the disk");
    assert_ok(shale_flush(db));
    expect(db, NULL, "a", "1");
    expect(db, NULL, "b", NULL);
    expect(db, NULL, "c", NULL);
    expect(db, NULL, "d", NULL);
    check_cured();
}
END_TEST

START_TEST(first_record_lost)
{
    put(db, "b", "does not reach the disk");
    run_into_panic("d", "behind it");
    damage("does not reach the disk");
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(count_entries(db, NULL), 0);
    check_cured();
}
END_TEST

/* Who holds FLUSH keeps sealed memtables sealed. */
static int hold_flush(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/LOCK", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    assert_ok(os_lock_try(fd, 5, 1, true));
    return fd;
}

START_TEST(all_suspect_segments_behind_the_loss_go_together)
{
    static char filler[4096];
    memset(filler, 'f', sizeof filler);
    put(db, "a", "1");
    assert_ok(shale_sync(db));
    int fd = hold_flush();
    put(db, "b", "does not reach the disk");
    for (int i = 0; i < 10000 && STAT(db, sealed_memtables) < 2; i++) {
        assert_ok(shale_put(db, "filler", 6, filler, sizeof filler, 0));
    }
    ck_assert_uint_eq(STAT(db, sealed_memtables), 2);
    put(db, "c", "in the last segment");
    run_into_panic("d", "in the last segment too");
    damage("does not reach the disk");
    close(fd);
    assert_ok(shale_flush(db));
    expect(db, NULL, "a", "1");
    ck_assert_uint_eq(count_entries(db, NULL), 1); /* a prefix of the commits */
    check_cured();
}
END_TEST

static shale_db *other;

/* The suspect segment is sealed, an empty one behind it, too, and a commit goes into the third. */
static void *go_on(void *ctx)
{
    struct os_wait forever = os_wait_forever();
    (void)ctx;
    assert_ok(db_seal(other, &forever));
    assert_ok(db_prepare(other, 0, &forever));
    assert_ok(db_seal_empty(other));
    assert_ok(shale_put(other, "e", 1, "behind the gap", 14, SHALE_NOSYNC));
    return NULL;
}

static void go_on_in_a_thread(void) /* this one holds SYNC */
{
    pthread_t thread;
    broken = false;
    assert_ok(os_thread_start(&thread, go_on, NULL, "go on"));
    os_thread_join(thread);
    broken = true;
}

START_TEST(empty_segment_behind_the_loss_hides_no_later_commit)
{
    put(db, "a", "1");
    assert_ok(shale_sync(db));
    shale_options o = small_options();
    o.max_sealed = 8;
    assert_ok(shale_open(dir, &o, &other));
    int fd = hold_flush();
    put(db, "b", "does not reach the disk");
    meanwhile = go_on_in_a_thread;
    run_into_panic("d", "behind it");
    damage("does not reach the disk");
    close(fd);
    assert_ok(shale_flush(db));
    expect(db, NULL, "a", "1");
    expect(db, NULL, "b", NULL);
    expect(db, NULL, "d", NULL);
    expect(db, NULL, "e", "behind the gap");
    assert_ok(shale_close(other));
    check_cured();
}
END_TEST

START_TEST(flush_ends_it_also_when_the_active_segment_is_empty)
{
    put(db, "a", "1");
    int fd = hold_flush();
    assert_ok(shale_set_timeout(db, 50));
    assert_status(shale_flush(db), SHALE_BUSY); /* sealed, not flushed */
    assert_ok(shale_set_timeout(db, -1));
    broken = true;
    assert_status(shale_sync(db), SHALE_PANIC);
    broken = false;
    close(fd);
    assert_ok(shale_flush(db));
    expect(db, NULL, "a", "1");
    check_cured();
}
END_TEST

/* Another handle is opened beside the one that met the failure: it need not know what shale_flush is for. */
START_TEST(open_beside_it_ends_it)
{
    shale_options o = small_options();
    shale_db *beside;
    put(db, "a", "1");
    run_into_panic("b", "2");
    assert_ok(shale_open(dir, &o, &beside));
    expect(beside, NULL, "a", "1");
    expect(beside, NULL, "b", "2");
    put(beside, "c", "3");
    put(db, "d", "4");
    assert_ok(shale_close(beside));
    check_cured();
}
END_TEST

/* It can't be ended now: the handle opens, reads, and says why it does not write. */
START_TEST(open_beside_it_works_where_the_cure_fails)
{
    shale_options o = small_options();
    shale_db *beside;
    put(db, "a", "1");
    run_into_panic("b", "2");
    broken = true;
    assert_ok(shale_open(dir, &o, &beside));
    expect(beside, NULL, "a", "1");
    assert_status(shale_put(beside, "refused", 7, "1", 1, 0), SHALE_PANIC);
    broken = false;
    assert_ok(shale_close(beside));
    assert_ok(shale_flush(db));
    check_cured();
}
END_TEST

START_TEST(it_may_happen_again)
{
    for (int i = 0; i < 4; i++) {
        char value[32];
        snprintf(value, sizeof value, "lost the %d. time", i);
        put(db, "x", value);
        run_into_panic("y", "2");
        if (i % 2 == 0) {
            damage(value);
        }
        assert_ok(shale_flush(db));
        expect(db, NULL, "y", i == 0 ? NULL : "2");
        check_cured();
        put(db, "y", "2");
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_panic");
    TCase *t = tcase_create("panic");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, nothing_is_lost_that_verifies);
    tcase_add_test(t, what_does_not_verify_is_dropped_and_the_log_goes_on);
    tcase_add_test(t, first_record_lost);
    tcase_add_test(t, all_suspect_segments_behind_the_loss_go_together);
    tcase_add_test(t, empty_segment_behind_the_loss_hides_no_later_commit);
    tcase_add_test(t, flush_ends_it_also_when_the_active_segment_is_empty);
    tcase_add_test(t, open_beside_it_ends_it);
    tcase_add_test(t, open_beside_it_works_where_the_cure_fails);
    tcase_add_test(t, it_may_happen_again);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
