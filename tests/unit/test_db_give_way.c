/* test_db_give_way.c - a compaction between deeper levels ends early when level 0 presses: what it has done
 * counts, what it has not stays as it was, and nothing is lost, doubled or brought back. */
#include "db/compact.h"
#include "lib/lib.h"

#define ENTRIES 6000
#define SPARSE  40 /* one key in so many is in the upper level */
#define DELETED 200
#define BOTTOM  (VERSION_LEVELS - 1)

static char *dir;
static shale_db *db;

static void put_one(unsigned i, char mark)
{
    char key[16], value[400];
    memset(value, mark, sizeof value);
    snprintf(key, sizeof key, "%08u", i);
    assert_ok(shale_put(db, key, 8, value, sizeof value, 0));
}

static struct db_view *view_now(void)
{
    struct db_view *view;
    uint64_t seq;
    assert_ok(db_view_get(db, &view, &seq));
    return view;
}

static unsigned tables(unsigned level)
{
    struct db_view *view = view_now();
    unsigned n = view->version->level[level].count;
    db_view_unref(view);
    return n;
}

/* The bottom level with every key, tables above it with some, and one in level 0. */
static void setup(void)
{
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    o.memtable_bytes = 8 << 20;
    o.target_table_bytes = 64 << 10;
    o.l0_compact = 90;
    o.l0_stop = 100;
    o.compression = SHALE_COMPRESS_NONE;
    dir = scratch_dir("give-way");
    assert_ok(shale_open(dir, &o, &db));
    for (unsigned i = 0; i < ENTRIES; i++) {
        put_one(i, 'a');
    }
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    for (unsigned i = 0; i < ENTRIES; i += SPARSE) {
        char key[16];
        snprintf(key, sizeof key, "%08u", i);
        if (i % DELETED == 0) {
            assert_ok(shale_delete(db, key, 8, 0));
        } else {
            put_one(i, 'b');
        }
    }
    assert_ok(shale_flush(db));
    db->options.l0_compact = 1;
    assert_ok(shale_work(db, SHALE_WORK_COMPACT, 0, NULL));
    db->options.l0_compact = 90;
    ck_assert_uint_eq(tables(0), 0);
    ck_assert_uint_gt(tables(BOTTOM - 1), 1);
    ck_assert_uint_gt(tables(BOTTOM), 30);
    put_one(1, 'c');
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(tables(0), 1);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

static void press(void)
{
    db->options.l0_compact = 1;
    db->options.l0_stop = 2;
}

static char expected(unsigned i)
{
    return i == 1 ? 'c' : i % DELETED == 0 ? 0 : i % SPARSE == 0 ? 'b' : 'a';
}

static void check_values(void)
{
    shale_iter *it;
    size_t length;
    assert_ok(shale_iter_create(db, NULL, NULL, &it));
    int rc = shale_iter_first(it);
    for (unsigned i = 0; i < ENTRIES; i++) {
        char key[16], value[400];
        snprintf(key, sizeof key, "%08u", i);
        int got = shale_get_copy(db, NULL, key, 8, value, sizeof value, &length);
        if (expected(i) == 0) {
            ck_assert_int_eq(got, SHALE_NOTFOUND);
            continue;
        }
        assert_ok(got);
        ck_assert_int_eq(value[0], expected(i));
        assert_ok(rc);
        ck_assert_mem_eq(shale_iter_key(it, &length), key, 8);
        ck_assert_int_eq(((const char *)shale_iter_value(it, &length))[0], expected(i));
        rc = shale_iter_next(it);
    }
    ck_assert_int_eq(rc, SHALE_NOTFOUND);
    shale_iter_destroy(it);
}

static void check_all(void)
{
    check_values();
    assert_ok(shale_verify(db, NULL, NULL));
}

/* The tables above the bottom level are merged into it: as it was picked, and as it was done. */
static void compact(bool by_hand, struct compaction *picked, struct compaction *done)
{
    assert_ok(os_compact_try(&db->roles, BOTTOM - 1, BOTTOM));
    struct db_view *view = view_now();
    db_compaction_pick_run(view->version, BOTTOM - 1, BOTTOM, 0, view->version->level[BOTTOM - 1].count,
                           UINT64_MAX, picked);
    picked->whole = by_hand;
    *done = *picked;
    assert_ok(db_compaction_run(db, view, done));
    os_compact_unlock(&db->roles, BOTTOM - 1, BOTTOM);
    db_view_unref(view);
}

START_TEST(compaction_ends_early_when_level_0_presses)
{
    struct compaction picked, done;
    unsigned before = tables(BOTTOM), above = tables(BOTTOM - 1);
    press();
    compact(false, &picked, &done);
    ck_assert_uint_eq(picked.lower_count, before);
    ck_assert_uint_gt(done.lower_count, 0);
    ck_assert_uint_lt(done.lower_count, picked.lower_count / 2);
    ck_assert_uint_lt(done.bytes, picked.bytes / 2);
    ck_assert_uint_eq(tables(BOTTOM - 1), above + 1 - done.upper_count);
    struct db_view *view = view_now();
    const struct version_level *upper = &view->version->level[BOTTOM - 1],
                               *lower = &view->version->level[BOTTOM];
    /* what is above now begins behind what was done, and holds deletes that are still needed */
    ck_assert_int_gt(memcmp(upper->tables[0]->info.smallest.data, "00001024", 8), 0);
    ck_assert_uint_gt(upper->tables[0]->info.deletes, 0);
    for (uint32_t i = 0; i < lower->count; i++) {
        ck_assert_uint_eq(lower->tables[i]->info.deletes, 0);
    }
    db_view_unref(view);
    check_all();
    db->options.l0_stop = 100;
    compact(false, &picked, &done); /* and the rest */
    ck_assert_uint_eq(done.lower_count, picked.lower_count);
    ck_assert_uint_eq(tables(BOTTOM - 1), 0);
    check_all();
}
END_TEST

/* Down to the end, whatever comes in between. */
START_TEST(compaction_goes_on_early_ending_or_not)
{
    struct compaction picked, done;
    press();
    for (unsigned round = 0; tables(BOTTOM - 1) != 0; round++) {
        ck_assert_uint_lt(round, 20);
        compact(false, &picked, &done);
        check_all();
    }
}
END_TEST

/* Somebody with lower limits than ours. */
START_TEST(h29_compaction_ends_early_for_who_stalls_sooner)
{
    struct compaction picked, done;
    atomic_store(&db->state->room_asleep, 1);
    compact(false, &picked, &done);
    ck_assert_uint_lt(done.lower_count, picked.lower_count / 2);
    check_all();
}
END_TEST

/* ---- failures on the way ---- */

static unsigned calls, refused;

static int refuse(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    switch (op) {
    case OS_OP_OPEN:
    case OS_OP_READ:
    case OS_OP_WRITE:
    case OS_OP_ALLOCATE:
    case OS_OP_FSYNC:
    case OS_OP_FDATASYNC:
    case OS_OP_SYNCDIR:
    case OS_OP_RENAME: return ++calls == refused ? ENOSPC : 0;
    default: return 0;
    }
}

/* Whichever call fails, and wherever it ends: all of it counts, or nothing. */
START_TEST(h23_early_end_that_fails_loses_nothing)
{
    unsigned failed = 0;
    press();
    for (refused = 1; refused < 400; refused += refused < 20 ? 1 : 3) {
        assert_ok(os_compact_try(&db->roles, BOTTOM - 1, BOTTOM));
        struct db_view *view = view_now();
        struct compaction c;
        db_compaction_pick_run(view->version, BOTTOM - 1, BOTTOM, 0, view->version->level[BOTTOM - 1].count,
                               UINT64_MAX, &c);
        c.whole = false;
        calls = 0;
        os_door_hook = refuse;
        int rc = db_compaction_run(db, view, &c);
        os_door_hook = NULL;
        os_compact_unlock(&db->roles, BOTTOM - 1, BOTTOM);
        db_view_unref(view);
        failed += rc != SHALE_OK;
        check_values();
        if (rc == SHALE_OK && calls < refused) {
            break;
        }
        if (tables(BOTTOM - 1) == 0) {
            break;
        }
    }
    ck_assert_uint_gt(failed, 10);
    check_all();
}
END_TEST

START_TEST(nothing_ends_early_without_need)
{
    struct compaction picked, done;
    if (_i == 0) {
        compact(false, &picked, &done); /* level 0 has room */
    } else {
        press();
        compact(true, &picked, &done);
    }
    ck_assert_uint_eq(done.lower_count, picked.lower_count);
    ck_assert_uint_eq(tables(BOTTOM - 1), 0);
    check_all();
}
END_TEST

/* ---- the handle is closed meanwhile ---- */

static int64_t naps[8]; /* at each mark of the compaction; the first is before it begins */
static unsigned marks;

static void nap_at_mark(enum os_mark mark)
{
    if (mark == OS_MARK_COMPACT && marks < 8) {
        os_nap(naps[marks++]);
    }
}

static int compact_while_closing(void)
{
    struct compaction c;
    assert_ok(os_compact_try(&db->roles, BOTTOM - 1, BOTTOM));
    struct db_view *view = view_now();
    db_compaction_pick_run(view->version, BOTTOM - 1, BOTTOM, 0, view->version->level[BOTTOM - 1].count,
                           UINT64_MAX, &c);
    marks = 0;
    os_mark_hook = nap_at_mark;
    atomic_store(&db->stopping, 1);
    int rc = db_compaction_run(db, view, &c);
    atomic_store(&db->stopping, 0);
    os_mark_hook = NULL;
    os_compact_unlock(&db->roles, BOTTOM - 1, BOTTOM);
    db_view_unref(view);
    return rc;
}

START_TEST(close_waits_for_what_is_nearly_done)
{
    db_close_wait_ns = INT64_C(600000000000); /* however slow the machine is */
    assert_ok(compact_while_closing());
    db_close_wait_ns = 500000000;
    ck_assert_uint_ge(marks, 5); /* looked up several times */
    ck_assert_uint_eq(tables(BOTTOM - 1), 0);
    check_all();
}
END_TEST

/* A sixth is done in 300 ms, or it takes longer than it seemed. */
START_TEST(close_does_not_wait_for_long)
{
    unsigned files = tables(BOTTOM);
    naps[1] = _i == 0 ? 300000000 : 0;
    naps[2] = naps[3] = _i == 0 ? 0 : 600000000;
    assert_status(compact_while_closing(), SHALE_CANCELLED);
    ck_assert(marks == 2 ||
              (_i == 1 && marks == 4)); /* 2: on a slow machine, or with a nap, at the first look */
    ck_assert_uint_eq(tables(BOTTOM), files);
    ck_assert_uint_gt(tables(BOTTOM - 1), 0);
    check_all();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_give_way");
    TCase *t = tcase_create("early");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, compaction_ends_early_when_level_0_presses);
    tcase_add_test(t, compaction_goes_on_early_ending_or_not);
    tcase_add_test(t, h29_compaction_ends_early_for_who_stalls_sooner);
    tcase_add_test(t, h23_early_end_that_fails_loses_nothing);
    tcase_add_loop_test(t, nothing_ends_early_without_need, 0, 2);
    tcase_add_test(t, close_waits_for_what_is_nearly_done);
    tcase_add_loop_test(t, close_does_not_wait_for_long, 0, 2);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
