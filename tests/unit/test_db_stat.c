/* test_db_stat.c - what a database tells of itself when several handles and processes use it: counters that
 * outlive their handles, rows of the living only, properties, sizes. */
#include "lib/lib.h"

#include <sys/stat.h>

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("stat");
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
        for (size_t j = 0; j < value_size; j++) {
            value[j] = (char)prng_next(&seed);
        }
        assert_ok(shale_put(d, key, 8, value, value_size, 0));
    }
    free(value);
}

/* ---- counters ---- */

START_TEST(counters_are_of_all_handles_and_outlive_them)
{
    shale_db *other = open_small(dir);
    put(other, "a", "1");
    put(other, "b", "1");
    del(other, "a");
    expect(other, NULL, "b", "1");
    expect(other, NULL, "a", NULL);
    (void)STAT(other, seq); /* a thread's own counts reach the row when the handle is asked, or at close */
    ck_assert_uint_eq(STAT(db, puts), 2);
    ck_assert_uint_eq(STAT(db, deletes), 1);
    ck_assert_uint_eq(STAT(db, gets), 2);
    ck_assert_uint_eq(STAT(db, gets_found), 1);
    expect(other, NULL, "b", "1");
    assert_ok(shale_close(other));
    ck_assert_uint_eq(STAT(db, gets), 3);
    ck_assert_uint_eq(STAT(db, gets_found), 2);
    other = open_small(dir); /* takes the closed one's row over */
    expect(other, NULL, "b", "1");
    put(other, "c", "1");
    assert_ok(shale_close(other));
    ck_assert_uint_eq(STAT(db, gets), 4);
    ck_assert_uint_eq(STAT(db, puts), 3);
    ck_assert_uint_eq(STAT(db, commits), 4);
}
END_TEST

static void *get_some(void *ctx)
{
    shale_db *d = ctx;
    for (int i = 0; i < 500; i++) {
        expect(d, NULL, i % 2 == 0 ? "there" : "not there", i % 2 == 0 ? "1" : NULL);
    }
    return NULL;
}

START_TEST(gets_of_threads_that_ended_are_counted_once)
{
    enum { N = 4 };
    put(db, "there", "1");
    for (int round = 1; round <= 3; round++) {
        pthread_t t[N];
        for (int i = 0; i < N; i++) {
            assert_ok(os_thread_start(&t[i], get_some, db, "get"));
        }
        (void)STAT(db, gets);
        for (int i = 0; i < N; i++) {
            os_thread_join(t[i]);
        }
        ck_assert_uint_eq(STAT(db, gets), (uint64_t)round * N * 500);
        ck_assert_uint_eq(STAT(db, gets_found), (uint64_t)round * N * 250);
    }
}
END_TEST

static pthread_barrier_t together;

static void *get_together(void *ctx)
{
    (void)pthread_barrier_wait(&together);
    (void)get_some(ctx);
    (void)pthread_barrier_wait(&together);
    return NULL;
}

static int no_memory_maps(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)name, (void)offset, (void)length;
    return op == OS_OP_MAP && fd < 0 ? ENOMEM : 0;
}

/* The first threads of a process have a place in every handle; the others get theirs when they come, or none
 * where there is no memory for it. */
START_TEST(threads_that_come_late_read_while_views_are_replaced)
{
    enum { N = 30 };
    pthread_t t[N];
    put(db, "there", "1");
    ck_assert_int_eq(pthread_barrier_init(&together, NULL, N + 1), 0);
    os_door_hook = _i == 0 ? NULL : no_memory_maps;
    for (int i = 0; i < N; i++) {
        assert_ok(os_thread_start(&t[i], get_together, db, "get"));
    }
    (void)pthread_barrier_wait(&together);
    for (int i = 0; i < 20; i++) {
        put(db, "other", "1");
        assert_ok(shale_flush(db));
    }
    (void)pthread_barrier_wait(&together);
    for (int i = 0; i < N; i++) {
        os_thread_join(t[i]);
    }
    os_door_hook = NULL;
    (void)pthread_barrier_destroy(&together);
    ck_assert_uint_eq(STAT(db, gets), N * 500);
    ck_assert_uint_eq(STAT(db, gets_found), N * 250);
}
END_TEST

START_TEST(killed_process_is_listed_no_more_and_its_counts_stay)
{
    struct agent a = {0};
    (void)proc_board();
    agent_start(&a, 0);
    agent_must(&a, "open %s", dir);
    agent_must(&a, "put k v");
    ck_assert_uint_eq(STAT(db, handles), 2);
    agent_kill(&a);
    ck_assert_uint_eq(STAT(db, handles), 1);
    ck_assert_uint_eq(STAT(db, puts), 1);
    shale_db *other = open_small(dir); /* whoever takes its row over */
    ck_assert_uint_eq(STAT(other, handles), 2);
    ck_assert_uint_eq(STAT(other, puts), 1);
    assert_ok(shale_close(other));
}
END_TEST

START_TEST(disk_bytes_are_what_the_files_take)
{
    fill(db, 3000, 100);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    shale_stats s = {.size = sizeof s};
    uint64_t tables = 0, files = 0;
    assert_ok(shale_stat(db, &s));
    for (int l = 0; l < 8; l++) {
        tables += s.level_bytes[l];
    }
    char **names = scratch_names(dir, ".sst");
    for (char **p = names; *p != NULL; p++) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        ck_assert_int_eq(stat(path, &st), 0);
        files += (uint64_t)st.st_size;
    }
    scratch_names_free(names);
    ck_assert_uint_eq(tables, files);
    ck_assert_uint_gt(s.disk_bytes, tables);
    ck_assert_uint_eq(s.keys_estimate, 3000);
}
END_TEST

START_TEST(readonly_handle_tells_too)
{
    shale_options o = small_options();
    shale_stats s = {.size = sizeof s};
    uint64_t now = 0;
    put(db, "a", "1");
    o.readonly = true;
    shale_db *r = open_with(dir, &o);
    assert_ok(shale_stat(r, &s));
    ck_assert_uint_eq(s.seq, 1);
    ck_assert_uint_eq(s.puts, 1);
    assert_ok(shale_wait_change(r, 0, 0, &now));
    ck_assert_uint_eq(now, 1);
    assert_status(shale_wait_change(r, 1, 10, &now), SHALE_BUSY);
    ck_assert_uint_eq(now, 0);
    put(db, "b", "1");
    assert_ok(shale_wait_change(r, 1, 10000, &now));
    ck_assert_uint_eq(now, 2);
    assert_ok(shale_close(r));
}
END_TEST

/* ---- properties ---- */

static uint64_t number_of(const char *property)
{
    char text[64];
    assert_ok(shale_property(db, property, text, sizeof text, NULL));
    return strtoull(text, NULL, 10);
}

START_TEST(every_property_is_text_of_the_length_it_says)
{
    static const char *const names[] = {"counters",       "levels", "log",    "memtables",
                                        "unlinked-bytes", "uuid",   "version"};
    char text[16384], full[64];
    fill(db, 2000, 100);
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        size_t need = 0, again = 0;
        assert_status(shale_property(db, names[i], NULL, 0, &need), SHALE_TOOBIG);
        ck_assert_uint_gt(need, 0);
        ck_assert_uint_lt(need, sizeof text);
        memset(text, 'x', sizeof text);
        assert_status(shale_property(db, names[i], text, need, &again), SHALE_TOOBIG); /* no room for NUL */
        ck_assert_uint_eq(again, need);
        ck_assert_uint_eq(strlen(text), need - 1);
        ck_assert_int_eq(text[need], 'x');
        assert_ok(shale_property(db, names[i], text, need + 1, &again));
        ck_assert_uint_eq(strlen(text), need);
        snprintf(full, sizeof full, "shale.%s", names[i]);
        assert_ok(shale_property(db, full, text, sizeof text, NULL));
        assert_status(shale_property(db, full + 3, text, sizeof text, &again), SHALE_NOTFOUND);
        ck_assert_uint_eq(again, 0);
        assert_told(names[i]); /* the message lists what there is */
    }
    assert_status(shale_property(db, NULL, text, sizeof text, NULL), SHALE_INVALID);
    assert_status(shale_property(db, "uuid", NULL, 10, NULL), SHALE_INVALID);
    assert_status(shale_property(NULL, "uuid", text, sizeof text, NULL), SHALE_INVALID);
}
END_TEST

START_TEST(unlinked_bytes_are_of_files_that_held_views_still_map)
{
    shale_snapshot *snap = NULL;
    shale_iter *it = NULL;
    fill(db, 3000, 100);
    assert_ok(shale_flush(db));
    ck_assert_uint_eq(number_of("unlinked-bytes"), 0);
    uint64_t held = 0;
    for (int l = 0; l < 8; l++) {
        held += stat_of(db, offsetof(shale_stats, level_bytes) + (size_t)l * sizeof(uint64_t));
    }
    assert_ok(shale_snapshot_create(db, &snap));
    assert_ok(shale_iter_create(db, snap, NULL, &it)); /* the same view: counted once */
    fill(db, 3000, 101);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_eq(number_of("unlinked-bytes"), held);
    shale_snapshot_release(snap);
    ck_assert_uint_eq(number_of("unlinked-bytes"), held);
    shale_iter_destroy(it);
    ck_assert_uint_eq(number_of("unlinked-bytes"), 0);
}
END_TEST

/* ---- sizes ---- */

START_TEST(approximate_size_of_part_of_a_large_memtable)
{
    shale_options o = small_options();
    char *big = scratch_dir("stat-big");
    uint64_t all = 0, part = 0, none = 9;
    o.memtable_bytes = 8 << 20;
    shale_db *d = open_with(big, &o);
    fill(d, 1000, 10000); /* segments have grown by now, and stay as large: not all is compacted */
    assert_ok(shale_compact_range(d, "0", 1, NULL, 0, NULL, NULL));
    for (unsigned i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%08u", i);
        del(d, key);
    }
    assert_ok(shale_compact_range(d, "0", 1, NULL, 0, NULL, NULL));
    uint64_t flushes = STAT(d, flushes);
    fill(d, 20000, 100);
    ck_assert_uint_eq(STAT(d, flushes), flushes);
    assert_ok(shale_approximate_size(d, NULL, 0, NULL, 0, &all));
    ck_assert_uint_ge(all, 20000 * 80);
    ck_assert_uint_le(all, 20000 * 150);
    assert_ok(shale_approximate_size(d, "00005000", 8, "00010000", 8, &part));
    ck_assert_uint_ge(part, all * 15 / 100); /* a quarter */
    ck_assert_uint_le(part, all * 40 / 100);
    assert_ok(shale_approximate_size(d, "00010000", 8, "00010010", 8, &part));
    ck_assert_uint_eq(part, 10 * 108);
    assert_ok(shale_approximate_size(d, "2", 1, "1", 1, &none));
    ck_assert_uint_eq(none, 0);
    assert_ok(shale_approximate_size(d, "9", 1, NULL, 0, &none));
    ck_assert_uint_eq(none, 0);
    assert_status(shale_approximate_size(d, NULL, 1, NULL, 0, &none), SHALE_INVALID);
    assert_status(shale_approximate_size(d, NULL, 0, NULL, 0, NULL), SHALE_INVALID);
    assert_ok(shale_close(d));
    free(big);
}
END_TEST

/* ---- who ---- */

struct peers {
    int count;
    char doing[64];
    uint64_t age;
};

static int see_peer(void *ctx, const shale_peer *p)
{
    struct peers *s = ctx;
    s->count++;
    if (p->doing[0] != '\0') {
        snprintf(s->doing, sizeof s->doing, "%s", p->doing);
    }
    s->age = p->view_age_ms > s->age ? p->view_age_ms : s->age;
    return 0;
}

static struct peers told;

static int ask_meanwhile(void *ctx, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return shale_who(ctx, see_peer, &told);
}

START_TEST(who_tells_what_a_handle_is_doing_and_how_far)
{
    shale_db *other = open_small(dir);
    fill(db, 5000, 100);
    assert_ok(shale_flush(db));
    told = (struct peers){0};
    assert_ok(shale_verify(db, ask_meanwhile, other));
    ck_assert_int_gt(told.count, 1);
    ck_assert_msg(strstr(told.doing, "verifying") != NULL, "\"%s\"", told.doing);
    told = (struct peers){0};
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, ask_meanwhile, other));
    ck_assert_msg(strstr(told.doing, "compacting L") != NULL && strstr(told.doing, " %") != NULL, "\"%s\"",
                  told.doing);
    told = (struct peers){0};
    assert_ok(shale_who(other, see_peer, &told));
    ck_assert_str_eq(told.doing, "");
    assert_ok(shale_close(other));
}
END_TEST

START_TEST(who_tells_the_age_of_a_view_that_is_behind)
{
    shale_db *idle = open_small(dir);
    expect(idle, NULL, "a", NULL);
    put(db, "a", "1");
    assert_ok(shale_flush(db)); /* the epoch moved: idle keeps its view until its next call */
    for (int i = 0; i < 1000 && told.age == 0; i++) {
        os_nap(1000000);
        told = (struct peers){0};
        assert_ok(shale_who(db, see_peer, &told));
    }
    ck_assert_uint_gt(told.age, 0);
    expect(idle, NULL, "a", "1");
    expect(db, NULL, "a", "1");
    told = (struct peers){0};
    assert_ok(shale_who(db, see_peer, &told));
    ck_assert_uint_eq(told.age, 0);
    assert_ok(shale_close(idle));
}
END_TEST

/* ---- what comes with the second call, or the first write ---- */

static int see_namespace(void *ctx, const shale_peer *p)
{
    int *count = ctx;
    *count += p->pid == getpid() && p->pid_ns != 0;
    return 0;
}

/* Whose rows say all of who they are. */
static int told_whole(void)
{
    int count = 0;
    assert_ok(shale_who(db, see_namespace, &count));
    return count;
}

/* Who opens, reads a key and closes again does not pay for a look at itself in /proc. */
START_TEST(namespace_and_start_time_come_with_the_second_call_or_the_first_write)
{
    shale_db *other = open_small(dir);
    ck_assert_int_eq(told_whole(), 1);
    expect(other, NULL, "k", NULL);
    ck_assert_int_eq(told_whole(), 1);
    expect(other, NULL, "k", NULL);
    ck_assert_int_eq(told_whole(), 2);
    assert_ok(shale_close(other));

    other = open_small(dir);
    put(other, "k", "v");
    ck_assert_int_eq(told_whole(), 2);
    assert_ok(shale_close(other));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_stat");
    TCase *t = tcase_create("stat");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, counters_are_of_all_handles_and_outlive_them);
    tcase_add_test(t, gets_of_threads_that_ended_are_counted_once);
    tcase_add_loop_test(t, threads_that_come_late_read_while_views_are_replaced, 0, 2);
    tcase_add_test(t, killed_process_is_listed_no_more_and_its_counts_stay);
    tcase_add_test(t, disk_bytes_are_what_the_files_take);
    tcase_add_test(t, readonly_handle_tells_too);
    tcase_add_test(t, every_property_is_text_of_the_length_it_says);
    tcase_add_test(t, unlinked_bytes_are_of_files_that_held_views_still_map);
    tcase_add_test(t, approximate_size_of_part_of_a_large_memtable);
    tcase_add_test(t, who_tells_what_a_handle_is_doing_and_how_far);
    tcase_add_test(t, who_tells_the_age_of_a_view_that_is_behind);
    tcase_add_test(t, namespace_and_start_time_come_with_the_second_call_or_the_first_write);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
