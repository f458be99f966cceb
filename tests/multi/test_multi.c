/* test_multi.c - several processes on one directory: every batch whole, nothing acknowledged lost, nothing
 * invented.
 *
 * The workload and its oracle are lib/groups.h's. Everything here is true whatever the timing; how much
 * happens in the time given is not asserted, except that everybody gets on.
 */
#include "lib/lib.h"

#include <signal.h>

enum { MAX = 16, PER_WRITER = 6 };

static char *dir;
static struct board *board;
static struct agent agent[MAX];

static void setup(void)
{
    dir = scratch_dir("multi");
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(dir);
}

static void run_for(unsigned ms, unsigned agents)
{
    for (unsigned i = 0; i < ms / 10; i++) {
        os_nap(10000000);
        agents_sound(board, agents);
    }
}

static void stop_all(unsigned agents)
{
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < agents; i++) {
        agent_done(&agent[i]);
    }
    agents_sound(board, agents);
    atomic_store(&board->stop, 0);
}

/* A process that has not been there yet opens, checks, verifies. */
static void check_afresh(unsigned groups, bool cold)
{
    struct agent fresh = {0};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/STATE", dir);
    if (cold) {
        ck_assert_int_eq(unlink(path), 0);
    }
    agent_start(&fresh, MAX);
    agent_must(&fresh, "open %s create=0", dir);
    agent_must(&fresh, "check-groups %u", groups);
    agent_must(&fresh, "verify");
    agent_quit(&fresh);
}

struct mix {
    const char *name;
    unsigned writers, readers;
    const char *options, *how; /* of open; of write-groups */
    bool shared;               /* transactions over the same groups */
};
static const struct mix mixes[] = {
    {"not synced, callers do the work", 3, 2, "threads=0 max_sealed=2 l0_compact=3", "", false},
    {"not synced, maintenance threads", 3, 2, "threads=1", "flush=97 compact=701", false},
    {"durable", 3, 2, "threads=1 durable=commit", "flush=53", false},
    {"synced at intervals", 2, 2, "threads=1 durable=interval sync_interval_ms=5", "flush=101", false},
    {"threads of one handle, durable", 2, 1, "threads=1 durable=commit", "writers=3 flush=67 compact=301",
     false},
    {"threads of one handle, transactions", 2, 1, "threads=0", "writers=4 txn flush=67 compact=301", true},
    {"transactions on the same groups", 4, 2, "threads=0", "txn flush=71 compact=503", true},
    {"durable transactions, polling for the lock", 3, 1, "threads=0 wait=backoff durable=commit",
     "txn flush=41", true},
};

START_TEST(readers_see_whole_batches_and_every_acknowledged_one)
{
    const struct mix *mix = &mixes[_i];
    unsigned n = mix->writers + mix->readers, groups = mix->shared ? PER_WRITER : PER_WRITER * mix->writers;
    for (unsigned i = 0; i < n; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s %s", dir, mix->options);
    }
    for (unsigned i = 0; i < n; i++) {
        if (i < mix->writers) {
            agent_tell(&agent[i], "write-groups %u %u %s", mix->shared ? 0 : i * PER_WRITER, PER_WRITER,
                       mix->how);
        } else {
            agent_tell(&agent[i], "read-groups %u", groups);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        agent_progress(&agent[i], 20, 20000);
    }
    run_for(test_times(1500, 60000), n);
    for (unsigned i = 0; i < n; i++) {
        agent_progress(&agent[i], 1, 20000);
    }
    stop_all(n);
    for (unsigned i = 0; i < n; i++) {
        agent_quit(&agent[i]);
    }
    check_afresh(groups, false);
    check_afresh(groups, true);
}
END_TEST

START_TEST(increments_in_transactions_are_never_lost)
{
    enum { N = 4 };
    unsigned rounds = test_times(400, 20000);
    struct agent reader = {0};
    for (unsigned i = 0; i < N; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s threads=%u", dir, i % 2);
    }
    for (unsigned i = 0; i < N; i++) {
        agent_tell(&agent[i], "count 3 ops=%u flush=%u", rounds, 50 + i);
    }
    agent_start(&reader, N);
    agent_must(&reader, "open %s readonly=1", dir);
    agent_tell(&reader, "read-groups 0");
    for (unsigned i = 0; i < N; i++) {
        agent_done(&agent[i]);
    }
    atomic_store(&board->stop, 1);
    agent_done(&reader);
    agent_quit(&reader);
    uint64_t sum = 0, done = 0;
    for (unsigned i = 0; i < 3; i++) {
        char key[32];
        uint64_t c = 0;
        size_t len = 0;
        shale_options o = small_options();
        shale_db *db = open_with(dir, &o);
        snprintf(key, sizeof key, "counter/%u", i);
        assert_ok(shale_get_copy(db, NULL, key, strlen(key), &c, sizeof c, &len));
        assert_ok(shale_close(db));
        sum += c;
        done += atomic_load(&board->counter[i].acknowledged);
        ck_assert_uint_eq(c, atomic_load(&board->counter[i].acknowledged));
    }
    ck_assert_uint_eq(sum, (uint64_t)N * rounds);
    ck_assert_uint_eq(done, (uint64_t)N * rounds);
    for (unsigned i = 0; i < N; i++) {
        agent_quit(&agent[i]);
    }
}
END_TEST

START_TEST(h3_openers_and_last_closers_meet)
{
    enum { N = 4 };
    struct agent first = {0};
    agent_start(&first, N);
    agent_must(&first, "open %s", dir);
    agent_must(&first, "write-groups 0 %d ops=50", N);
    agent_quit(&first);
    for (unsigned i = 0; i < N; i++) {
        agent_start(&agent[i], i);
        /* two write their own group at each visit, two only look */
        agent_tell(&agent[i], i < 2 ? "open-groups %s %d group=%u threads=%u" : "open-groups %s %d", dir, N,
                   i, i);
    }
    for (unsigned i = 0; i < N; i++) {
        agent_progress(&agent[i], test_times(40, 5000), 60000);
    }
    stop_all(N);
    for (unsigned i = 0; i < N; i++) {
        agent_quit(&agent[i]);
    }
    check_afresh(N, false);
    check_afresh(N, true);
}
END_TEST

START_TEST(h27_readonly_processes_follow_writers_that_come_and_go)
{
    enum { READERS = 2 };
    struct agent writer = {0};
    agent_start(&writer, READERS);
    agent_must(&writer, "open %s", dir);
    agent_must(&writer, "write-groups 0 4 ops=20");
    for (unsigned i = 0; i < READERS; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s readonly=1", dir);
        agent_tell(&agent[i], "read-groups 4");
    }
    for (unsigned round = 0; round < test_times(12, 300); round++) {
        agent_must(&writer, "write-groups 0 4 ops=60 flush=20 compact=50 seed=%u", round);
        for (unsigned i = 0; i < READERS; i++) {
            agent_progress(&agent[i], 2, 20000);
        }
        if (round % 3 == 0) {
            agent_must(&writer, "close");
            agent_progress(&agent[0], 2, 20000);
        } else if (round % 3 == 1) {
            agent_kill(&writer);
            agent_progress(&agent[0], 2, 20000);
            agent_start(&writer, READERS);
        } else {
            continue;
        }
        agent_must(&writer, "open %s", dir);
    }
    stop_all(READERS);
    for (unsigned i = 0; i < READERS; i++) {
        agent_quit(&agent[i]);
    }
    agent_quit(&writer);
    check_afresh(4, true);
}
END_TEST

START_TEST(h16_reader_races_unlink)
{
    enum { READERS = 3 };
    struct agent writer = {0};
    agent_start(&writer, READERS);
    agent_must(&writer, "open %s l0_compact=2", dir);
    agent_must(&writer, "write-groups 0 6 ops=50 flush=10");
    for (unsigned i = 0; i < READERS; i++) {
        agent_start(&agent[i], i);
        if (i == 0) { /* opens anew each time: nothing is cached */
            agent_tell(&agent[i], "open-groups %s 6", dir);
        } else {
            agent_must(&agent[i], "open %s readonly=%u", dir, i - 1);
            agent_tell(&agent[i], "read-groups 6");
        }
    }
    agent_tell(&writer, "write-groups 0 6 flush=3 compact=7");
    run_for(test_times(1500, 60000), READERS + 1);
    for (unsigned i = 0; i < READERS; i++) {
        agent_progress(&agent[i], 1, 20000);
    }
    atomic_store(&board->stop, 1);
    agent_done(&writer);
    stop_all(READERS);
    ck_assert_int_gt(atoi(agent_must(&writer, "stat compactions")), 3);
    for (unsigned i = 0; i < READERS; i++) {
        agent_quit(&agent[i]);
    }
    agent_quit(&writer);
}
END_TEST

START_TEST(compact_range_ends_while_others_go_on_flushing)
{
    agent_start(&agent[0], 0);
    agent_must(&agent[0], "open %s l0_compact=50 l0_stop=100", dir);
    agent_start(&agent[1], 1);
    agent_must(&agent[1], "open %s l0_compact=50 l0_stop=100", dir);
    agent_tell(&agent[0], "write-groups 0 4 flush=1");
    agent_progress(&agent[0], 10, 20000);
    for (int i = 0; i < 5; i++) {
        agent_must(&agent[1], "compact");
        agent_progress(&agent[0], 1, 20000);
    }
    stop_all(1);
    agent_quit(&agent[0]);
    agent_quit(&agent[1]);
    check_afresh(4, false);
}
END_TEST

START_TEST(h40_crowd_of_processes)
{
    unsigned n = test_times(24, 128);
    struct agent *crowd = calloc(n, sizeof *crowd);
    for (unsigned i = 0; i < n; i++) {
        agent_start(&crowd[i], i);
        agent_tell(&crowd[i], "open %s", dir);
    }
    for (unsigned i = 0; i < n; i++) {
        agent_done(&crowd[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (i % 2 == 0) {
            agent_tell(&crowd[i], "write-groups %u 1 txn ops=60", i % 8);
        } else {
            agent_tell(&crowd[i], "read-groups 8 ops=15");
        }
    }
    for (unsigned i = 0; i < n; i++) {
        agent_done(&crowd[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        agent_quit(&crowd[i]);
    }
    free(crowd);
    agents_sound(board, n);
    check_afresh(8, false);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("multi");
    TCase *t = tcase_create("multi");
    tcase_set_timeout(t, test_times(240, 3600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, readers_see_whole_batches_and_every_acknowledged_one, 0, (int)BASE_COUNT(mixes));
    tcase_add_test(t, increments_in_transactions_are_never_lost);
    tcase_add_test(t, h3_openers_and_last_closers_meet);
    tcase_add_test(t, h27_readonly_processes_follow_writers_that_come_and_go);
    tcase_add_test(t, h16_reader_races_unlink);
    tcase_add_test(t, compact_range_ends_while_others_go_on_flushing);
    tcase_add_test(t, h40_crowd_of_processes);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
