/* test_db_compact.c - who compacts a range by hand gets a busy level: it says that it waits, and work that
 * others would begin of themselves stays away for a while. What form the blocks of its tables have; how all
 * of a database is compacted, and what goes on meanwhile and afterwards. */
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

/* ---- all of it ---- */

#define ENTRIES 6000

static void open_anew(uint64_t memtable_bytes)
{
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    o.memtable_bytes = memtable_bytes;
    o.target_table_bytes = 64 << 10;
    o.l0_compact = 2;
    o.l0_stop = 100;
    o.compression = SHALE_COMPRESS_NONE;
    free(dir);
    dir = scratch_dir("compact-all");
    assert_ok(shale_close(db));
    assert_ok(shale_open(dir, &o, &db));
}

static void fill_from(unsigned from, unsigned count, unsigned step, size_t size, char mark)
{
    char key[16], value[1024];
    memset(value, mark, sizeof value);
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof key, "%08u", from + i * step);
        assert_ok(shale_put(db, key, 8, value, size, 0));
    }
}

static uint64_t compactions(void)
{
    return atomic_load(&db->row->counters.compactions);
}

/* Something in the bottom level, the one above it, and level 0. */
static void make_levels(unsigned count, size_t size)
{
    open_anew(1 << 20);
    fill_from(0, count, 1, size, 'a');
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    for (unsigned i = 0; i < 2; i++) {
        fill_from(i, count / 4, 4, size, 'b');
        assert_ok(shale_flush(db));
    }
    while (tables(0) > 0) {
        assert_ok(shale_work(db, SHALE_WORK_COMPACT, 0, NULL));
    }
    ck_assert_uint_gt(tables(VERSION_LEVELS - 2), 0);
    assert_ok(shale_delete(db, "00000000", 8, 0));
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(tables(0), 1);
}

static void check_levels(unsigned count, size_t size)
{
    char key[16], value[1024];
    size_t length;
    for (unsigned l = 0; l + 1 < VERSION_LEVELS; l++) {
        ck_assert_uint_eq(tables(l), 0);
    }
    assert_status(shale_get_copy(db, NULL, "00000000", 8, value, sizeof value, &length), SHALE_NOTFOUND);
    for (unsigned i = 1; i < count; i++) {
        snprintf(key, sizeof key, "%08u", i);
        assert_ok(shale_get_copy(db, NULL, key, 8, value, sizeof value, &length));
        ck_assert_uint_eq(length, size);
        ck_assert_int_eq(value[0], i % 4 < 2 && i / 4 < count / 4 ? 'b' : 'a');
    }
    struct db_view *view;
    uint64_t seq, deletes = 0;
    assert_ok(db_view_get(db, &view, &seq));
    const struct version_level *l = &view->version->level[VERSION_LEVELS - 1];
    for (uint32_t i = 0; i < l->count; i++) {
        deletes += l->tables[i]->info.deletes;
    }
    db_view_unref(view);
    ck_assert_uint_eq(deletes, 0);
}

START_TEST(everything_is_compacted_in_one_merge)
{
    make_levels(ENTRIES, 100);
    uint64_t before = compactions();
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_eq(compactions(), before + 1);
    check_levels(ENTRIES, 100);
}
END_TEST

/* More than level 0 may be held up for: level by level, but several tables at a time. */
START_TEST(more_is_compacted_level_by_level)
{
    make_levels(ENTRIES, 1000);
    uint64_t before = compactions(), upper = tables(VERSION_LEVELS - 3) + tables(VERSION_LEVELS - 2);
    ck_assert_uint_gt(upper, 30);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_gt(compactions(), before + 2);
    ck_assert_uint_lt(compactions(), before + upper * 2 / 3);
    check_levels(ENTRIES, 1000);
}
END_TEST

/* Nor where writers would stall before it is over. */
START_TEST(near_a_stall_is_compacted_level_by_level)
{
    make_levels(ENTRIES, 100);
    uint64_t before = compactions();
    db->options.l0_stop = 1;
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_gt(compactions(), before + 1);
    check_levels(ENTRIES, 100);
}
END_TEST

static int refuse_statfs(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)offset, (void)length;
    return op == OS_OP_STAT && fd == db->dirfd && name == NULL ? EIO : 0;
}

/* Everything at once needs its whole space once more. */
START_TEST(without_knowing_the_space_it_is_compacted_level_by_level)
{
    make_levels(ENTRIES, 100);
    uint64_t before = compactions();
    os_door_hook = refuse_statfs;
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    os_door_hook = NULL;
    ck_assert_uint_gt(compactions(), before + 1);
    check_levels(ENTRIES, 100);
}
END_TEST

static void *let_go_later(void *fd)
{
    os_nap(1500000000);
    assert_ok(os_unlock(*(int *)fd, OS_BYTE_COMPACT + VERSION_LEVELS - 1, 1));
    return NULL;
}

/* All levels at once may never be free: after a second the others are begun with. */
START_TEST(busy_level_is_not_waited_for_longer_than_a_second)
{
    pthread_t thread;
    int fd = -1;
    make_levels(ENTRIES, 100);
    uint64_t before = compactions();
    assert_ok(shale_set_timeout(db, -1));
    assert_ok(os_open(db->dirfd, "LOCK", O_RDWR, 0, &fd));
    assert_ok(os_lock_try(fd, OS_BYTE_COMPACT + VERSION_LEVELS - 1, 1, true));
    assert_ok(os_thread_start(&thread, let_go_later, &fd, "let-go"));
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    os_thread_join(thread);
    ck_assert_uint_gt(compactions(), before + 1);
    check_levels(ENTRIES, 100);
    os_close(&fd);
}
END_TEST

START_TEST(who_is_about_to_compact_all_is_left_the_work)
{
    uint64_t done;
    atomic_store(&db->compacting_all, 1);
    assert_ok(shale_work(db, SHALE_WORK_COMPACT, UINT64_MAX, &done));
    ck_assert_uint_eq(done, 0);
    ck_assert_uint_eq(tables(0), 3);
    db->options.l0_stop = 3; /* unless it may be waiting for us */
    assert_ok(shale_work(db, SHALE_WORK_COMPACT, UINT64_MAX, &done));
    ck_assert_uint_eq(tables(0), 0);
    atomic_store(&db->compacting_all, 0);
}
END_TEST

/* ---- what goes on meanwhile ---- */

struct beside {
    unsigned calls;
    uint64_t flushes; /* when the second memtable was sealed */
    bool flushed;     /* while the compaction ran */
};

static void *seal_one(void *ctx)
{
    struct os_wait forever = os_wait_forever();
    (void)ctx;
    assert_ok(shale_put(db, "z", 1, "z", 1, 0));
    assert_ok(db_seal(db, &forever));
    return NULL;
}

static int seal_beside(void *ctx, uint64_t done, uint64_t total)
{
    struct beside *b = ctx;
    pthread_t thread;
    ck_assert_uint_le(done, total);
    uint64_t flushes = atomic_load(&db->row->counters.flushes);
    if (b->calls++ == 0) { /* a thread: this one holds the levels, and may not wait for WRITE */
        assert_ok(os_thread_start(&thread, seal_one, NULL, "seal"));
        os_thread_join(thread);
        b->flushes = flushes;
    }
    b->flushed = b->flushed || (done < total && flushes > b->flushes);
    return 0;
}

START_TEST(memtable_is_flushed_while_a_compaction_runs)
{
    struct beside b = {0};
    make_levels(ENTRIES, 100);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, seal_beside, &b));
    ck_assert_uint_gt(b.calls, 2);
    ck_assert(b.flushed);
    ck_assert_uint_eq(tables(0), 1);
}
END_TEST

static int count_calls(void *ctx, uint64_t done, uint64_t total)
{
    ck_assert_uint_le(done, total);
    ++*(unsigned *)ctx;
    return 0;
}

/* A thousand large values take seconds, too. */
START_TEST(compaction_of_large_values_looks_up_as_often)
{
    static char value[200000];
    unsigned calls = 0;
    for (unsigned i = 0; i < 30; i++) {
        char key[16];
        snprintf(key, sizeof key, "%04u", i);
        assert_ok(shale_put(db, key, strlen(key), value, sizeof value, 0));
    }
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, count_calls, &calls));
    ck_assert_uint_ge(calls, 5);
}
END_TEST

/* 64 us a KiB are 64 ms a MiB: not cut short, and not owed again. */
START_TEST(large_commit_is_delayed_as_much_as_small_ones)
{
    int64_t start = os_now();
    atomic_store(&db->delay_ns, 64000);
    db_delay(db, 1 << 20);
    db_delay(db, 100);
    ck_assert_int_ge(os_now() - start, 60000000);
    ck_assert_uint_lt(atomic_load(&db->delay_debt), 1000000);
    atomic_store(&db->delay_ns, 0);
}
END_TEST

/* With the square of how near the stall is, and more where one table is left. */
START_TEST(delay_grows_up_to_a_stall)
{
    static const uint64_t expected[] = {0, 0, 0, 64000 / (3 * 2), 64000 * 4 / (3 * 1)};
    int fd = -1;
    assert_ok(os_open(db->dirfd, "LOCK", O_RDWR, 0, &fd));
    assert_ok(os_lock_try(fd, OS_BYTE_COMPACT, OS_COMPACT_LEVELS, true));
    db->options.l0_compact = 2;
    db->options.l0_stop = 8; /* half way is 5 */
    for (unsigned n = 3; n < 8; n++) {
        ck_assert_uint_eq(tables(0), n);
        assert_ok(shale_put(db, "c", 1, "v", 1, 0));
        ck_assert_uint_eq(atomic_load(&db->delay_ns), expected[n - 3]);
        assert_ok(shale_flush(db));
    }
    os_close(&fd);
}
END_TEST

static off_t log_bytes(void)
{
    struct stat st;
    char name[WAL_NAME_SIZE];
    off_t sum = 0;
    for (uint32_t n = 1; n < db_active(db->state) + 3; n++) {
        wal_name(n, name);
        sum += os_stat_at(db->dirfd, name, &st) == SHALE_OK ? st.st_size : 0;
    }
    return sum;
}

/* With a spare as well: synced segments are kept to be used again. */
START_TEST(log_of_a_compacted_database_is_small)
{
    open_anew(1 << 20);
    struct os_wait forever = os_wait_forever();
    fill_from(0, 8000, 1, 1000, 'a');
    assert_ok(db_seal(db, &forever));
    assert_ok(shale_put(db, "a", 1, "a", 1, SHALE_SYNC)); /* and flushes what is sealed */
    ck_assert_uint_ne(atomic_load(&db->state->spare), 0);
    ck_assert_int_ge(log_bytes(), 2 << 20);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_int_eq(log_bytes(), WAL_MIN_SIZE);
    char name[WAL_NAME_SIZE], spare[WAL_NAME_SIZE];
    wal_name(db_active(db->state), name);
    wal_name(1, spare);
    ck_assert_int_eq(linkat(db->dirfd, name, db->dirfd, spare, 0), 0);
    atomic_store(&db->state->spare, 1);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_int_eq(log_bytes(), WAL_MIN_SIZE);
    fill_from(0, 2000, 1, 1000, 'b'); /* and grows again */
    assert_ok(shale_flush(db));
    ck_assert_int_ge(log_bytes(), 1 << 20);
}
END_TEST

/* Who still writes needs the next segment as large as the last, and is waited for by nobody. */
START_TEST(log_that_is_in_use_is_left_alone)
{
    shale_txn *txn;
    open_anew(1 << 20);
    fill_from(0, 8000, 1, 1000, 'a');
    uint32_t active = db_active(db->state);
    db_log_rest(db);
    ck_assert_uint_eq(db_active(db->state), active);
    assert_ok(shale_flush(db));
    assert_ok(shale_put(db, "a", 1, "a", 1, 0));
    active = db_active(db->state);
    uint64_t ready = atomic_load(&db->state->ready);
    ck_assert_uint_eq(ready, active);
    db_log_rest(db);
    ck_assert_uint_eq(db_active(db->state), active);
    ck_assert_uint_eq(atomic_load(&db->state->ready), ready);
    assert_ok(shale_flush(db)); /* the next one is empty */
    active = db_active(db->state);
    assert_ok(shale_txn_begin(db, 0, -1, &txn));
    db_log_rest(db);
    ck_assert_uint_eq(db_active(db->state), active);
    shale_txn_abort(txn);
}
END_TEST

/* Nobody wrote, so nobody will soon need another segment. */
START_TEST(reader_makes_no_log_segment)
{
    shale_db *reader;
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    assert_ok(shale_open(dir, &o, &reader));
    uint64_t ready = atomic_load(&db->state->ready);
    ck_assert_uint_eq(ready, db_active(db->state));
    assert_ok(shale_work(reader, SHALE_WORK_FLUSH, UINT64_MAX, NULL));
    ck_assert_uint_eq(atomic_load(&db->state->ready), ready);
    char value[1000];
    memset(value, 'v', sizeof value);
    for (unsigned i = 0; i < 1500; i++) { /* half of it, and more */
        assert_ok(shale_put(reader, "c", 1, value, sizeof value, 0));
    }
    assert_ok(shale_work(reader, SHALE_WORK_FLUSH, UINT64_MAX, NULL));
    ck_assert_uint_eq(atomic_load(&db->state->ready), ready + 1);
    assert_ok(shale_close(reader));
}
END_TEST

/* Everybody who opens the database reads it. */
START_TEST(manifest_stays_short)
{
    struct db_view *view;
    uint64_t seq, first;
    for (unsigned i = 0; i < 150; i++) {
        make_work();
        assert_ok(shale_work(db, SHALE_WORK_COMPACT, UINT64_MAX, NULL));
    }
    assert_ok(db_view_get(db, &view, &seq));
    first = view->version->manifest;
    ck_assert_uint_le(view->version->length, 9 << 10);
    db_view_unref(view);
    ck_assert_uint_ge(first, 3);
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
    tcase_add_test(t, manifest_stays_short);
    tcase_add_test(t, delay_grows_up_to_a_stall);
    suite_add_tcase(s, t);
    t = tcase_create("packing");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, blocks_are_packed_only_where_there_is_more_than_memory_holds, 0, 2);
    suite_add_tcase(s, t);
    t = tcase_create("all");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, everything_is_compacted_in_one_merge);
    tcase_add_test(t, more_is_compacted_level_by_level);
    tcase_add_test(t, without_knowing_the_space_it_is_compacted_level_by_level);
    tcase_add_test(t, busy_level_is_not_waited_for_longer_than_a_second);
    tcase_add_test(t, who_is_about_to_compact_all_is_left_the_work);
    tcase_add_test(t, memtable_is_flushed_while_a_compaction_runs);
    tcase_add_test(t, log_of_a_compacted_database_is_small);
    tcase_add_test(t, log_that_is_in_use_is_left_alone);
    tcase_add_test(t, near_a_stall_is_compacted_level_by_level);
    tcase_add_test(t, compaction_of_large_values_looks_up_as_often);
    tcase_add_test(t, large_commit_is_delayed_as_much_as_small_ones);
    tcase_add_test(t, reader_makes_no_log_segment);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
