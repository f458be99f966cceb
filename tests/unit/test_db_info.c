/* test_db_info.c - the public API: statistics, properties, sizes, who, waiting, interrupts, time limits,
 * work, threads. */
#include "lib/lib.h"

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("info");
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

static void fill(shale_db *d, unsigned n, size_t value_size)
{
    char key[16], *value = calloc(1, value_size + 1);
    uint64_t seed = n;
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "%08u", i);
        for (size_t j = 0; j < value_size; j += 2) {
            value[j] = (char)prng_next(&seed);
        }
        assert_ok(shale_put(d, key, 8, value, value_size, 0));
    }
    free(value);
}

START_TEST(stat_counts_what_was_done)
{
    shale_stats s = {.size = sizeof s};
    put(db, "a", "1");
    put(db, "b", "1");
    del(db, "a");
    expect(db, NULL, "a", NULL);
    expect(db, NULL, "b", "1");
    assert_ok(shale_stat(db, &s));
    ck_assert_uint_eq(s.puts, 2);
    ck_assert_uint_eq(s.deletes, 1);
    ck_assert_uint_eq(s.commits, 3);
    ck_assert_uint_eq(s.gets, 2);
    ck_assert_uint_eq(s.gets_found, 1);
    ck_assert_uint_eq(s.handles, 1);
    ck_assert_uint_eq(s.flushes, 0);
    uint64_t seq = s.seq, epoch = s.epoch;
    assert_ok(shale_flush(db));
    put(db, "c", "1");
    assert_ok(shale_stat(db, &s));
    ck_assert_uint_eq(s.seq, seq + 1);
    ck_assert_uint_gt(s.epoch, epoch);
    ck_assert_uint_eq(s.flushes, 1);
    ck_assert_uint_eq(s.level_tables[0], 1);
    ck_assert_uint_gt(s.level_bytes[0], 0);
    ck_assert_uint_gt(s.disk_bytes, 0);
    ck_assert_uint_gt(s.keys_estimate, 0);
}
END_TEST

START_TEST(stat_writes_no_more_than_the_caller_has_room_for)
{
    unsigned char room[sizeof(shale_stats)];
    shale_stats *s = (shale_stats *)(void *)room;
    memset(room, 0xaa, sizeof room);
    s->size = offsetof(shale_stats, disk_bytes);
    assert_ok(shale_stat(db, s));
    ck_assert_uint_eq(room[offsetof(shale_stats, disk_bytes)], 0xaa);
    ck_assert_uint_eq(room[sizeof room - 1], 0xaa);
    s->size = 0;
    assert_status(shale_stat(db, s), SHALE_INVALID);
}
END_TEST

START_TEST(properties_are_text_and_tell_the_room_they_need)
{
    char text[4096];
    size_t need = 0;
    assert_status(shale_property(db, "no-such-property", text, sizeof text, &need), SHALE_NOTFOUND);
    assert_ok(shale_property(db, "version", text, sizeof text, &need));
    ck_assert_uint_gt(need, 0);
    ck_assert_uint_le(need, sizeof text);
    size_t again = 0;
    assert_status(shale_property(db, "version", text, 1, &again), SHALE_TOOBIG);
    ck_assert_uint_eq(again, need);
}
END_TEST

/* A read-only handle that replays a log without records has no memtable to tell of. */
START_TEST(property_may_be_an_empty_text)
{
    shale_options o = small_options();
    char path[PATH_MAX], text[64] = "x";
    size_t need = 1;
    put(db, "k", "v");
    assert_ok(shale_flush(db));
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    o.readonly = true;
    db = open_with(dir, &o);
    assert_ok(shale_property(db, "memtables", text, sizeof text, &need));
    ck_assert_uint_eq(need, 0);
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(approximate_size_follows_the_data)
{
    uint64_t all = 0, half = 0, none = 99, mem = 0;
    fill(db, 4000, 200);
    assert_ok(shale_approximate_size(db, NULL, 0, NULL, 0, &mem));
    ck_assert_uint_gt(mem, 0); /* memtables too */
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_approximate_size(db, NULL, 0, NULL, 0, &all));
    assert_ok(shale_approximate_size(db, "00001000", 8, "00003000", 8, &half));
    assert_ok(shale_approximate_size(db, "x", 1, NULL, 0, &none));
    ck_assert_uint_ge(all, 4000 * 100);
    ck_assert_uint_le(all, 4000 * 300);
    ck_assert_uint_ge(half, all * 4 / 10);
    ck_assert_uint_le(half, all * 6 / 10);
    ck_assert_uint_le(none, 64 << 10);
}
END_TEST

static void *put_later(void *ctx)
{
    shale_db *d = ctx;
    os_nap(30000000);
    (void)shale_put(d, "later", 5, "1", 1, 0);
    return NULL;
}

START_TEST(wait_change_wakes_for_any_writer)
{
    shale_db *other = open_small(dir);
    uint64_t now = 0, seq = STAT(db, seq);
    assert_status(shale_wait_change(db, seq, 0, &now), SHALE_BUSY);
    assert_status(shale_wait_change(db, seq, 20, &now), SHALE_BUSY);
    pthread_t t;
    assert_ok(os_thread_start(&t, put_later, other, "later"));
    assert_ok(shale_wait_change(db, seq, 10000, &now));
    ck_assert_uint_eq(now, seq + 1);
    os_thread_join(t);
    assert_ok(shale_wait_change(db, seq, 0, &now)); /* it has passed already */
    assert_ok(shale_close(other));
}
END_TEST

/* Another process, in a write transaction. */
static void hold_write(struct agent *holder)
{
    (void)proc_board();
    agent_start(holder, 0);
    agent_must(holder, "open %s", dir);
    agent_must(holder, "txn begin");
}

static _Atomic bool waits;

/* Again and again: on a busy machine the wait may begin late, and an interrupt ends only those under way. */
static void *interrupt_later(void *ctx)
{
    while (atomic_load(&waits)) {
        os_nap(50000000);
        shale_interrupt(ctx);
    }
    return NULL;
}

START_TEST(interrupt_ends_every_wait)
{
    struct agent holder = {0};
    pthread_t thread;
    uint64_t now = 0;
    hold_write(&holder);
    for (int how = 0; how < 2; how++) {
        atomic_store(&waits, true);
        assert_ok(os_thread_start(&thread, interrupt_later, db, "interrupt"));
        int rc = how == 0 ? shale_wait_change(db, STAT(db, seq), -1, &now) : shale_put(db, "k", 1, "v", 1, 0);
        assert_status(rc, SHALE_CANCELLED);
        atomic_store(&waits, false);
        os_thread_join(thread);
    }
    agent_must(&holder, "txn abort");
    put(db, "k", "v"); /* later calls wait again */
    agent_quit(&holder);
}
END_TEST

START_TEST(time_limits_name_the_holder)
{
    struct agent holder = {0};
    shale_txn *mine = NULL;
    char pid[32];
    hold_write(&holder);
    snprintf(pid, sizeof pid, "pid %d", (int)holder.pid);
    assert_ok(shale_set_timeout(db, 50));
    int64_t start = os_now();
    assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_BUSY);
    ck_assert_int_ge(os_now() - start, 49 * 1000000);
    assert_told(pid);
    assert_ok(shale_set_timeout(db, -1));
    assert_status(shale_put(db, "k", 1, "v", 1, SHALE_NOWAIT), SHALE_BUSY);
    assert_status(shale_txn_begin(db, SHALE_NOWAIT, 100000, &mine), SHALE_BUSY);
    assert_status(shale_txn_begin(db, 0, 20, &mine), SHALE_BUSY);
    ck_assert_ptr_null(mine);
    assert_status(shale_set_timeout(db, -2), SHALE_INVALID);
    agent_must(&holder, "txn put k w");
    agent_must(&holder, "txn commit");
    expect(db, NULL, "k", "w");
    assert_ok(shale_put(db, "k", 1, "v", 1, SHALE_NOWAIT));
    agent_quit(&holder);
}
END_TEST

struct peers {
    int count, mine, stop_after;
};

static int see_peer(void *ctx, const shale_peer *p)
{
    struct peers *s = ctx;
    ck_assert_ptr_nonnull(p->program);
    ck_assert_ptr_nonnull(p->doing);
    ck_assert_uint_ge(p->size, sizeof *p);
    s->count++;
    s->mine += p->pid == getpid() && p->pid_ns != 0 && p->since_ns != 0;
    return s->count == s->stop_after ? 7 : 0;
}

START_TEST(who_lists_every_handle)
{
    struct peers s = {0};
    shale_db *other = open_small(dir);
    put(other, "k", "v");
    assert_ok(shale_who(db, see_peer, &s));
    ck_assert_int_eq(s.count, 2);
    ck_assert_int_eq(s.mine, 2);
    s = (struct peers){.stop_after = 1};
    ck_assert_int_eq(shale_who(db, see_peer, &s), 7);
    ck_assert_int_eq(s.count, 1);
    assert_ok(shale_close(other));
    s = (struct peers){0};
    assert_ok(shale_who(db, see_peer, &s));
    ck_assert_int_eq(s.count, 1);
}
END_TEST

START_TEST(work_does_a_bounded_piece_at_a_time)
{
    uint64_t done = 0;
    fill(db, 6000, 150);
    assert_ok(shale_flush(db));
    int calls = 0;
    while (shale_work(db, SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, 1 << 16, &done) == SHALE_OK && done > 0) {
        ck_assert_int_lt(++calls, 10000);
    }
    ck_assert_uint_eq(STAT(db, sealed_memtables), 0);
    ck_assert_uint_lt(STAT(db, level_tables), 4);
    ck_assert_uint_eq(count_entries(db, NULL), 6000);
    assert_ok(shale_verify(db, NULL, NULL));
}
END_TEST

struct progress {
    uint64_t last, total;
    int calls, cancel_at;
};

static int watch(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;
    ck_assert_uint_ge(done, p->last);
    ck_assert_uint_le(done, total);
    p->last = done;
    p->total = total;
    return ++p->calls == p->cancel_at;
}

START_TEST(progress_is_told_and_can_cancel)
{
    struct progress p = {0};
    fill(db, 8000, 200);
    assert_ok(shale_flush(db));
    p.cancel_at = 1;
    assert_status(shale_compact_range(db, NULL, 0, NULL, 0, watch, &p), SHALE_CANCELLED);
    ck_assert_uint_eq(count_entries(db, NULL), 8000);
    p = (struct progress){0};
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, watch, &p));
    ck_assert_int_gt(p.calls, 0);
    p = (struct progress){0};
    assert_ok(shale_verify(db, watch, &p));
    ck_assert_int_gt(p.calls, 0);
    ck_assert_uint_eq(p.last, p.total);
    p = (struct progress){.cancel_at = 1};
    assert_status(shale_verify(db, watch, &p), SHALE_CANCELLED);
}
END_TEST

START_TEST(compact_range_of_a_part_and_of_nothing)
{
    fill(db, 4000, 100);
    assert_ok(shale_compact_range(db, "00001000", 8, "00002000", 8, NULL, NULL));
    ck_assert_uint_eq(count_entries(db, NULL), 4000);
    assert_ok(shale_compact_range(db, "z", 1, "a", 1, NULL, NULL));
    for (int i = 0; i < 4000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%08d", i);
        del(db, key);
    }
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_eq(count_entries(db, NULL), 0);
    shale_stats s = {.size = sizeof s};
    assert_ok(shale_stat(db, &s));
    for (int level = 0; level < 8; level++) { /* tombstones went with what they hid */
        ck_assert_uint_eq(s.level_tables[level], 0);
    }
}
END_TEST

struct crowd {
    shale_db *db;
    unsigned id, bad;
};

static int pass_peer(void *ctx, const shale_peer *p)
{
    (void)ctx;
    return p->pid != getpid();
}

static void *crowd_member(void *ctx)
{
    struct crowd *c = ctx;
    char key[32], val[64];
    for (unsigned i = 0; i < 800; i++) {
        snprintf(key, sizeof key, "%u/%06u", c->id, i);
        snprintf(val, sizeof val, "%u", i);
        c->bad += shale_put(c->db, key, strlen(key), val, strlen(val), 0) != SHALE_OK;
        snprintf(key, sizeof key, "%u/%06u", c->id, i / 2);
        size_t len = 0;
        c->bad += shale_get_copy(c->db, NULL, key, strlen(key), val, sizeof val, &len) != SHALE_OK;
        val[len] = '\0';
        c->bad += (unsigned)atoi(val) != i / 2;
        if (i % 100 == 99) {
            shale_iter *it = NULL;
            unsigned n = 0;
            snprintf(key, sizeof key, "%u/", c->id);
            c->bad += shale_iter_range(c->db, NULL, key, strlen(key), NULL, 0, 0, &it) != SHALE_OK;
            for (int rc = shale_iter_first(it); rc == SHALE_OK && n <= i; rc = shale_iter_next(it)) {
                n++;
            }
            c->bad += n < i + 1;
            shale_iter_destroy(it);
        }
        if (i % 50 == 25) {
            shale_stats s = {.size = sizeof s};
            c->bad += shale_stat(c->db, &s) != SHALE_OK;
            c->bad += shale_who(c->db, pass_peer, NULL) != SHALE_OK;
        }
        if (i % 250 == c->id * 10) {
            c->bad += shale_flush(c->db) != SHALE_OK;
        }
    }
    return NULL;
}

/* The loop index is options.threads: none, one, two. */
START_TEST(threads_share_a_handle)
{
    enum { N = 6 };
    struct crowd c[N];
    pthread_t t[N];
    shale_options o = small_options();
    o.threads = (unsigned)_i;
    shale_db *d = open_with(dir, &o);
    for (unsigned i = 0; i < N; i++) {
        c[i] = (struct crowd){i % 3 == 2 ? db : d, i, 0}; /* and two handles at once */
        assert_ok(os_thread_start(&t[i], crowd_member, &c[i], "crowd"));
    }
    for (unsigned i = 0; i < N; i++) {
        os_thread_join(t[i]);
        ck_assert_msg(c[i].bad == 0, "thread %u: %u wrong", i, c[i].bad);
    }
    ck_assert_uint_eq(count_entries(d, NULL), N * 800);
    assert_ok(shale_verify(d, NULL, NULL));
    assert_ok(shale_close(d));
}
END_TEST

static void *commit_durably(void *ctx)
{
    struct crowd *c = ctx;
    for (unsigned i = 0; i < 60; i++) {
        shale_stats s = {.size = sizeof s};
        char key[16];
        snprintf(key, sizeof key, "%u", c->id);
        c->bad += shale_stat(c->db, &s) != SHALE_OK;
        uint64_t before = s.seq; /* our commit comes after it */
        c->bad += shale_put(c->db, key, strlen(key), "v", 1, SHALE_SYNC) != SHALE_OK;
        c->bad += shale_stat(c->db, &s) != SHALE_OK;
        c->bad += s.synced_seq <= before;
    }
    return NULL;
}

/* Also those whose record another thread of the group appended, and those that came while it did. */
START_TEST(durable_commit_is_synced_when_it_returns_whoever_led_it)
{
    enum { N = 6 };
    struct crowd c[N];
    pthread_t t[N];
    for (unsigned i = 0; i < N; i++) {
        c[i] = (struct crowd){db, i, 0};
        assert_ok(os_thread_start(&t[i], commit_durably, &c[i], "durable"));
    }
    for (unsigned i = 0; i < N; i++) {
        os_thread_join(t[i]);
        ck_assert_msg(c[i].bad == 0, "thread %u: %u wrong", i, c[i].bad);
    }
}
END_TEST

START_TEST(maintenance_thread_flushes_and_compacts_unasked)
{
    shale_options o = small_options();
    o.threads = 1;
    shale_db *d = open_with(dir, &o);
    for (int round = 0; round < 6; round++) {
        fill(d, 3000, 150);
    }
    uint64_t flushes = 0, compactions = 0;
    for (int i = 0; i < 3000 && (flushes == 0 || compactions == 0); i++) {
        flushes = STAT(d, flushes);
        compactions = STAT(d, compactions);
        os_nap(10000000);
    }
    ck_assert_uint_gt(flushes, 0);
    ck_assert_uint_gt(compactions, 0);
    ck_assert_uint_eq(count_entries(d, NULL), 3000);
    assert_ok(shale_close(d));
}
END_TEST

START_TEST(h39_snapshot_held_under_load_keeps_the_log_bounded)
{
    shale_snapshot *snap = NULL;
    fill(db, 1000, 100);
    put(db, "old", "1");
    assert_ok(shale_snapshot_create(db, &snap));
    put(db, "old", "2");
    unsigned rounds = test_times(10, 100);
    for (unsigned r = 0; r < rounds; r++) {
        fill(db, 4000, 200);
    }
    expect(db, snap, "old", "1");
    expect(db, NULL, "old", "2");
    ck_assert_uint_eq(count_entries(db, snap), 1001);
    ck_assert_uint_eq(count_entries(db, NULL), 4001);
    char **logs = scratch_names(dir, ".wal");
    unsigned n = 0;
    for (char **p = logs; *p != NULL; p++) {
        n++;
    }
    scratch_names_free(logs);
    ck_assert_uint_le(n, 8);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_lt(scratch_disk_bytes(dir), 8 << 20); /* what the snapshot pins is unlinked already */
    expect(db, snap, "old", "1");
    shale_snapshot_release(snap);
}
END_TEST

START_TEST(ten_small_records_are_a_small_database)
{
    char *small = scratch_name("ten");
    shale_db *d = NULL;
    assert_ok(shale_open(small, NULL, &d));
    for (int i = 0; i < 10; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        put(d, key, "a small value");
    }
    ck_assert_uint_lt(scratch_disk_bytes(small), 2 << 20);
    assert_ok(shale_close(d));
    ck_assert_uint_lt(scratch_disk_bytes(small), 2 << 20);
    free(small);
}
END_TEST

START_TEST(h40_many_opens_and_closes)
{
    unsigned n = test_times(300, 10000);
    for (unsigned i = 0; i < n; i++) {
        shale_db *d = open_small(dir);
        char key[16];
        snprintf(key, sizeof key, "%u", i % 100);
        put(d, key, key);
        assert_ok(shale_close(d));
        if (i % 100 == 50) { /* and alone: warm */
            assert_ok(shale_close(db));
            db = open_small(dir);
        }
    }
    ck_assert_uint_eq(count_entries(db, NULL), n < 100 ? n : 100);
    ck_assert_uint_eq(STAT(db, handles), 1);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_info");
    TCase *t = tcase_create("info");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, stat_counts_what_was_done);
    tcase_add_test(t, stat_writes_no_more_than_the_caller_has_room_for);
    tcase_add_test(t, properties_are_text_and_tell_the_room_they_need);
    tcase_add_test(t, property_may_be_an_empty_text);
    tcase_add_test(t, approximate_size_follows_the_data);
    tcase_add_test(t, wait_change_wakes_for_any_writer);
    tcase_add_test(t, interrupt_ends_every_wait);
    tcase_add_test(t, time_limits_name_the_holder);
    tcase_add_test(t, who_lists_every_handle);
    tcase_add_test(t, work_does_a_bounded_piece_at_a_time);
    tcase_add_test(t, progress_is_told_and_can_cancel);
    tcase_add_test(t, compact_range_of_a_part_and_of_nothing);
    tcase_add_loop_test(t, threads_share_a_handle, 0, 3);
    tcase_add_test(t, durable_commit_is_synced_when_it_returns_whoever_led_it);
    tcase_add_test(t, maintenance_thread_flushes_and_compacts_unasked);
    tcase_add_test(t, h39_snapshot_held_under_load_keeps_the_log_bounded);
    tcase_add_test(t, ten_small_records_are_a_small_database);
    tcase_add_test(t, h40_many_opens_and_closes);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
