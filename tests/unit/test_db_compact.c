/* test_db_compact.c - who compacts a range by hand gets a busy level: it says that it waits, and work that
 * others would begin of themselves stays away for a while. And what form the blocks of its tables have. */
#include "db/compact.h"
#include "lib/lib.h"

static char *dir;
static shale_db *db;

/* Three tables that overlap: level 0 wants to be compacted. */
static void make_work(void)
{
    for (int i = 0; i < 3; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        assert_ok(shale_put(db, "a", 1, value, strlen(value), 0));
        assert_ok(shale_put(db, "b", 1, value, strlen(value), 0));
        assert_ok(shale_flush(db));
    }
}

static void setup(void)
{
    shale_options o;
    shale_options_init(&o);
    dir = scratch_dir("compact");
    o.threads = 0;
    o.l0_compact = 3;
    o.timeout_ms = 50;
    assert_ok(shale_open(dir, &o, &db));
    make_work();
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

static unsigned tables(unsigned level)
{
    struct db_view *view;
    uint64_t seq;
    assert_ok(db_view_get(db, &view, &seq));
    unsigned n = view->version->level[level].count;
    db_view_unref(view);
    return n;
}

/* A wish lasts 20 ms; a busy machine may look at it later. */
START_TEST(work_leaves_alone_a_level_that_somebody_waits_for)
{
    uint64_t done = 1;
    int rc = SHALE_OK;
    for (int round = 0; round < 10 && rc == SHALE_OK; round++) {
        if (round > 0) {
            make_work();
        }
        ck_assert_uint_eq(tables(0), 3);
        atomic_store(&db->state->wish[0], (uint64_t)os_now() + 20000000);
        rc = shale_work(db, SHALE_WORK_COMPACT, UINT64_MAX, &done);
    }
    assert_status(rc, SHALE_BUSY);
    ck_assert_uint_eq(tables(0), 3);
    ck_assert_uint_eq(done, 0);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL)); /* the one who waits is not hindered */
    ck_assert_uint_eq(tables(0), 0);
}
END_TEST

/* Its maker died, or the clock is another one's: it holds nobody up. */
START_TEST(wish_that_is_past_or_noise_holds_nobody_up)
{
    atomic_store(&db->state->wish[0], _i == 0 ? (uint64_t)os_now() - 1 : UINT64_MAX / 2);
    assert_ok(shale_work(db, SHALE_WORK_COMPACT, UINT64_MAX, NULL));
    ck_assert_uint_eq(tables(0), 0);
}
END_TEST

START_TEST(range_that_meets_a_busy_level_says_so)
{
    int fd = -1;
    assert_ok(os_open(db->dirfd, "LOCK", O_RDWR, 0, &fd));
    assert_ok(os_lock_try(fd, OS_BYTE_COMPACT, 2, true)); /* as another process that compacts level 0 */
    ck_assert_uint_eq(atomic_load(&db->state->wish[0]), 0);
    assert_status(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL), SHALE_BUSY);
    ck_assert_uint_ne(atomic_load(&db->state->wish[0]), 0);
    os_close(&fd);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_eq(tables(0), 0);
}
END_TEST

static int cancel(void *ctx, uint64_t done, uint64_t total)
{
    unsigned *calls = ctx;
    ck_assert_uint_le(done, total);
    return ++*calls == 3;
}

START_TEST(range_that_waits_for_a_busy_level_can_be_cancelled)
{
    int fd = -1;
    unsigned calls = 0;
    assert_ok(shale_set_timeout(db, -1));
    assert_ok(os_open(db->dirfd, "LOCK", O_RDWR, 0, &fd));
    assert_ok(os_lock_try(fd, OS_BYTE_COMPACT, 2, true));
    assert_status(shale_compact_range(db, NULL, 0, NULL, 0, cancel, &calls), SHALE_CANCELLED);
    ck_assert_uint_eq(calls, 3);
    os_close(&fd);
}
END_TEST

/* Of the one table of the bottom level. */
static const struct table_info *bottom(struct db_view *view)
{
    const struct version_level *l = &view->version->level[VERSION_LEVELS - 1];
    ck_assert_uint_eq(l->count, 1);
    return &l->tables[0]->info;
}

START_TEST(blocks_are_packed_only_where_there_is_more_than_memory_holds)
{
    char value[3000];
    struct db_view *view;
    uint64_t seq;
    bool pack = _i == 1;
    memset(value, 'v', sizeof value);
    assert_ok(shale_put(db, "c", 1, value, sizeof value, 0));
    assert_ok(shale_put(db, "d", 1, value, sizeof value, 0));
    assert_ok(shale_flush(db));
    db_pack_above = 2 * (1 + sizeof value) + 3 * 4 - pack; /* with what setup has put, three times */
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(db_view_get(db, &view, &seq));
    const struct table_info *info = bottom(view);
    if (pack) {
        ck_assert_uint_lt(info->size, sizeof value);
    } else {
        ck_assert_uint_gt(info->size, info->raw_bytes);
    }
    db_view_unref(view);
    db_pack_above = 0;
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_compact");
    TCase *t = tcase_create("wishes");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, work_leaves_alone_a_level_that_somebody_waits_for);
    tcase_add_loop_test(t, wish_that_is_past_or_noise_holds_nobody_up, 0, 2);
    tcase_add_test(t, range_that_meets_a_busy_level_says_so);
    tcase_add_test(t, range_that_waits_for_a_busy_level_can_be_cancelled);
    suite_add_tcase(s, t);
    t = tcase_create("packing");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, blocks_are_packed_only_where_there_is_more_than_memory_holds, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
