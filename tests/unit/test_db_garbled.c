/* test_db_garbled.c - words of shared memory that a stray store has changed while a handle is open: an error
 * that says so, in bounded time; nothing durable is built on it, and the log still has what it had.
 */
#include "lib/lib.h"

#include "db/db.h"
#include "mem/arena.h"

#include <unistd.h>

enum { KEYS = 20 };

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("garbled");
    db = open_small(dir);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[8];
        snprintf(key, sizeof key, "key%02u", i);
        put(db, key, "value");
    }
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

/* Everybody has gone, and the shared memory with them. */
static void lose_shared_memory(void)
{
    char path[PATH_MAX], **mems = scratch_names(dir, ".mem");
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    for (char **p = mems; *p != NULL; p++) {
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        ck_assert_int_eq(unlink(path), 0);
    }
    scratch_names_free(mems);
    db = open_small(dir);
}

/* Writes until it is refused; the memtable holds far less. */
static int fill(void)
{
    static char value[4096];
    int rc = SHALE_OK;
    for (unsigned i = 0; i < 1000 && rc == SHALE_OK; i++) {
        rc = shale_put(db, "fill", 4, value, sizeof value, 0);
    }
    return rc;
}

START_TEST(a_state_that_is_being_made_is_no_missing_key)
{
    shale_value v;
    atomic_fetch_add(&db->state->generation, 1);
    assert_status(shale_get(db, NULL, "key01", 5, &v), SHALE_CORRUPT);
    assert_told("STATE");
    assert_status(shale_flush(db), SHALE_CORRUPT);
    atomic_fetch_sub(&db->state->generation, 1);
    expect(db, NULL, "key01", "value");
}
END_TEST

START_TEST(segments_said_to_be_ready_are_not_looked_for_without_end)
{
    uint64_t ready = atomic_exchange(&db->state->ready, UINT64_MAX / 2);
    assert_status(fill(), SHALE_CORRUPT);
    atomic_store(&db->state->ready, ready);
    assert_ok(fill());
}
END_TEST

START_TEST(nothing_is_written_where_no_record_can_stand)
{
    static const uint32_t offsets[] = {0, 16, WAL_FIRST - 8, WAL_FIRST + 4};
    uint64_t end = atomic_load(&db->state->wal_end);
    for (size_t i = 0; i < BASE_COUNT(offsets); i++) {
        atomic_store(&db->state->wal_end, wal_lsn(wal_lsn_number(end), offsets[i]));
        assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_CORRUPT);
        assert_told("STATE");
    }
    atomic_store(&db->state->wal_end, end);
    put(db, "k", "v");
    lose_shared_memory();
    ck_assert_uint_eq(count_entries(db, NULL), KEYS + 1);
}
END_TEST

START_TEST(memtables_that_end_before_they_begin_are_no_reason_to_wait)
{
    struct state_tuple *t = &db->state->tuple[atomic_load(&db->state->epoch) & 1];
    uint64_t oldest = atomic_exchange(&t->oldest, 77);
    assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_CORRUPT);
    assert_status(shale_flush(db), SHALE_CORRUPT);
    atomic_store(&t->oldest, oldest);
    assert_ok(shale_flush(db));
}
END_TEST

START_TEST(no_segment_is_made_for_a_record_that_cannot_be)
{
    atomic_store(&db->state->need, UINT64_C(3) << 30);
    assert_ok(fill());
    ck_assert_uint_eq(atomic_load(&db->state->need), 0);
    ck_assert_uint_lt(scratch_disk_bytes(dir), 64u << 20);
}
END_TEST

/* The first slot of the first leaf counts as free. */
/* A spare is taken for the next segment, and its name is gone: not that of one whose commits are in no table.
 */
START_TEST(segment_that_is_no_spare_is_not_used_again)
{
    struct os_wait forever = os_wait_forever();
    atomic_store(&db->state->spare, db_active(db->state));
    assert_ok(db_prepare(db, 0, &forever));
    lose_shared_memory();
    expect(db, NULL, "key00", "value");
    ck_assert_uint_eq(count_entries(db, NULL), KEYS);
}
END_TEST

START_TEST(an_index_that_lost_an_entry_is_not_made_a_table)
{
    struct mem_index *m = db->active;
    struct mem_node *n = mem_node_at(m, mem_root(m));
    while (mem_level(n) != 0) {
        n = mem_node_at(m, mem_ref_at(n, atomic_load(&n->perm), 0));
    }
    uint64_t perm = atomic_load(&n->perm), slots = perm >> 4;
    atomic_store(&n->perm, (slots >> 4 | (slots & 15) << 56) << 4 | (mem_count(perm) - 1));
    expect(db, NULL, "key00", NULL);
    assert_status(shale_flush(db), SHALE_CORRUPT);
    assert_told(".mem");
    lose_shared_memory();
    ck_assert_uint_eq(count_entries(db, NULL), KEYS);
}
END_TEST

/* The oldest version of an overwritten key: not what is flushed, but counted. */
START_TEST(an_index_with_overwritten_keys_is_made_a_table)
{
    for (unsigned i = 0; i < 100; i++) {
        put(db, i % 3 == 0 ? "key00" : "other", "again");
    }
    del(db, "key01");
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(STAT(db, level_tables[0]), 1);
    ck_assert_uint_eq(count_entries(db, NULL), KEYS);
}
END_TEST

/* CLOCK_MONOTONIC of another container may be ahead by any time. */
#define A_YEAR UINT64_C(31536000000000000)

START_TEST(h9_lack_of_space_in_times_to_come_stops_no_work)
{
    static char value[100000];
    atomic_store(&db->state->no_space, (uint64_t)os_now() + A_YEAR);
    for (unsigned i = 0; i < 20 && STAT(db, flushes) == 0; i++) {
        assert_ok(shale_put(db, "fill", 4, value, sizeof value, 0));
    }
    ck_assert_uint_gt(STAT(db, flushes), 0);
    ck_assert_uint_eq(STAT(db, stalls), 0); /* a stalled writer would have flushed all the same */
}
END_TEST

START_TEST(h9_a_debt_noted_by_another_clock_is_paid_in_time)
{
    shale_db *other = NULL;
    shale_options o = small_options();
    o.durable = SHALE_DURABLE_INTERVAL;
    o.sync_interval_ms = 50;
    assert_ok(shale_open(dir, &o, &other));
    atomic_store(&db->state->sync_due, (uint64_t)os_now() + A_YEAR);
    put(other, "k", "v");
    ck_assert_uint_le(atomic_load(&db->state->sync_due), (uint64_t)os_now() + 50000000);
    ck_assert_uint_ne(atomic_load(&db->state->sync_due), 0);
    assert_ok(shale_close(other));
    ck_assert_uint_ge(atomic_load(&db->state->synced_lsn), atomic_load(&db->state->wal_end));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_garbled");
    TCase *t = tcase_create("garbled");
    tcase_set_timeout(t, 30);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_state_that_is_being_made_is_no_missing_key);
    tcase_add_test(t, segments_said_to_be_ready_are_not_looked_for_without_end);
    tcase_add_test(t, nothing_is_written_where_no_record_can_stand);
    tcase_add_test(t, memtables_that_end_before_they_begin_are_no_reason_to_wait);
    tcase_add_test(t, no_segment_is_made_for_a_record_that_cannot_be);
    tcase_add_test(t, segment_that_is_no_spare_is_not_used_again);
    tcase_add_test(t, an_index_that_lost_an_entry_is_not_made_a_table);
    tcase_add_test(t, an_index_with_overwritten_keys_is_made_a_table);
    tcase_add_test(t, h9_lack_of_space_in_times_to_come_stops_no_work);
    tcase_add_test(t, h9_a_debt_noted_by_another_clock_is_paid_in_time);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
