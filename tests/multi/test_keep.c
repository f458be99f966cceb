/* test_keep.c - the write lock that a busy process keeps between its commits: it costs nobody anything,
 * whether the keeper goes on, has nothing to do, is stopped or is killed. */
#include "lib/lib.h"

#include <shale/lockq.h>
#include <signal.h>

#define PATIENCE_MS 20000
#define KEEPS       "threads=1 memtable_bytes=4194304"

static struct board *board;
static struct agent busy, other;
static char *dir;
static shale_lockq *queue;
static int lock_fd = -1;

static void setup(void)
{
    char path[PATH_MAX];
    board = proc_board();
    dir = scratch_dir("keep");
    agent_start(&busy, 0);
    agent_must(&busy, "open %s %s", dir, KEEPS);
    agent_start(&other, 1);
    snprintf(path, sizeof path, "%s/LOCK", dir);
    assert_ok(os_open(AT_FDCWD, path, O_RDWR, 0, &lock_fd));
    assert_ok(shale_lockq_open(dir, 0600, &queue));
}

static void teardown(void)
{
    shale_lockq_close(queue);
    os_close(&lock_fd);
    agent_quit(&busy);
    agent_quit(&other);
    agents_sound(board, 2);
    board_close(board);
    scratch_remove(dir);
    free(dir);
}

static uint64_t acquisitions(void)
{
    shale_lock_stats s = {.size = sizeof s};
    assert_ok(shale_lockq_stat(queue, NULL, &s));
    return s.acquisitions;
}

static bool held(void)
{
    bool taken = false;
    assert_ok(os_lock_test(lock_fd, OS_BYTE_WRITE, 2, true, &taken));
    return taken;
}

static void wait_until_free(void)
{
    for (int ms = 0; held(); ms++) {
        ck_assert_msg(ms < PATIENCE_MS, "the write lock is kept by a process that does nothing");
        os_nap(1000000);
    }
}

/* The machine may be so slow that commits are no stream; then again. */
static void fill_and_keep(void)
{
    const unsigned entries = 4000;
    for (int i = 0; i < 50; i++) {
        uint64_t before = acquisitions();
        agent_must(&busy, "fill k 0 %u 20", entries);
        if (acquisitions() - before < entries / 2) {
            return;
        }
    }
    ck_abort_msg("each of %u commits takes the write lock anew", entries);
}

/* Busy until the end of the test, for all that matters. */
static void begin_to_fill(void)
{
    fill_and_keep();
    agent_tell(&busy, "fill k 0 100000000 20");
    agent_progress(&busy, 1000, PATIENCE_MS);
}

static void restart(void)
{
    agent_kill(&busy);
    agent_start(&busy, 0);
}

START_TEST(who_commits_all_the_time_keeps_the_lock_and_an_idle_one_gives_it_up)
{
    fill_and_keep();
    wait_until_free();
    agent_must(&other, "open %s timeout_ms=0 wait=none", dir);
    agent_must(&other, "put k v");
}
END_TEST

START_TEST(a_handle_without_threads_keeps_nothing)
{
    agent_must(&busy, "close");
    agent_must(&busy, "open %s threads=0", dir);
    uint64_t before = acquisitions();
    agent_must(&busy, "fill k 0 4000 20");
    ck_assert_uint_ge(acquisitions() - before, 4000);
    ck_assert(!held());
}
END_TEST

static const char *const ways[] = {"queue", "backoff", "none"};

/* Who only tries meets the gaps between the commits, as if nothing were ever kept. */
START_TEST(others_write_beside_a_busy_one_however_they_wait)
{
    unsigned done = 0, tries = 0;
    agent_must(&other, "open %s wait=%s timeout_ms=%d", dir, ways[_i], PATIENCE_MS);
    begin_to_fill();
    int64_t until =
        os_now() + INT64_C(20000000000); /* on a busy machine the holder may have to wait itself */
    for (; done < 100 && os_now() < until; tries++) {
        const char *answer = agent_ask(&other, "put mine %u", done);
        bool ok = strncmp(answer, "ok", 2) == 0;
        ck_assert_msg(ok || (_i == 2 && strncmp(answer, "SHALE_BUSY", 10) == 0), "%s", answer);
        done += ok;
    }
    ck_assert_msg(done == 100, "of %u puts only %u were had", tries, done);
    agent_progress(&busy, 1000, PATIENCE_MS);
    restart();
}
END_TEST

START_TEST(a_user_of_the_queue_gets_the_lock_of_a_busy_one_and_of_an_idle_one)
{
    shale_held *lock;
    begin_to_fill();
    for (int i = 0; i < 20; i++) {
        assert_ok(shale_lockq_acquire(queue, NULL, SHALE_LOCK_EXCLUSIVE, PATIENCE_MS, NULL, &lock));
        assert_ok(shale_lockq_release(lock));
    }
    agent_progress(&busy, 1000, PATIENCE_MS);
    restart();
    agent_must(&busy, "open %s %s", dir, KEEPS);
    fill_and_keep(); /* and at once: */
    assert_ok(shale_lockq_acquire(queue, NULL, SHALE_LOCK_SHARED, PATIENCE_MS, NULL, &lock));
    assert_ok(shale_lockq_release(lock));
}
END_TEST

START_TEST(h10_who_is_stopped_while_it_does_nothing_holds_nothing)
{
    agent_must(&other, "open %s timeout_ms=%d", dir, PATIENCE_MS);
    fill_and_keep();
    wait_until_free();
    agent_stop(&busy);
    agent_must(&other, "put k v");
    agent_signal(&busy, SIGCONT);
}
END_TEST

START_TEST(h10_who_is_stopped_while_it_keeps_the_lock_is_named)
{
    agent_must(&other, "open %s timeout_ms=50", dir);
    begin_to_fill();
    agent_stop(&busy);
    for (int i = 0; !held() && i < 200; i++) {
        agent_signal(&busy, SIGCONT);
        agent_progress(&busy, 10, PATIENCE_MS);
        agent_stop(&busy);
    }
    ck_assert(held());
    const char *answer = agent_ask(&other, "put k v");
    ck_assert_msg(strncmp(answer, "SHALE_BUSY", 10) == 0 && strstr(answer, "(stopped)") != NULL, "%s",
                  answer);
    agent_signal(&busy, SIGCONT);
    agent_must(&other, "timeout %d", PATIENCE_MS);
    agent_must(&other, "put k v");
    restart();
}
END_TEST

START_TEST(h12_who_is_killed_while_it_keeps_the_lock_delays_nobody_and_loses_nothing)
{
    agent_must(&other, "open %s timeout_ms=%d", dir, PATIENCE_MS);
    for (int i = 0; i < 20; i++) {
        begin_to_fill();
        uint64_t done = atomic_load(&board->agent[0].ops);
        agent_kill(&busy);
        agent_must(&other, "put z%02d v", i);
        ck_assert_uint_ge((uint64_t)atoi(agent_must(&other, "scan")), done < 4000 ? done : 4000);
        agent_start(&busy, 0);
        agent_must(&busy, "open %s %s", dir, KEEPS);
    }
}
END_TEST

static shale_db *open_keeping(void)
{
    shale_options o = small_options();
    o.threads = 1;
    o.memtable_bytes = 64 << 20;
    return open_with(dir, &o);
}

static void put_until_kept(shale_db *db)
{
    for (int i = 0; i < 4000 && (i < 500 || !held()); i++) {
        put(db, "k", "v");
    }
}

START_TEST(who_was_asked_keeps_nothing_for_a_while)
{
    shale_db *db = open_keeping();
    shale_held *lock;
    for (int i = 0; i < 20; i++) {
        put_until_kept(db);
        int64_t asked = os_now();
        int rc = shale_lockq_acquire(queue, NULL, SHALE_LOCK_EXCLUSIVE, 0, NULL, &lock);
        ck_assert(rc == SHALE_OK || rc == SHALE_BUSY);
        if (rc == SHALE_OK) {
            assert_ok(shale_lockq_release(lock));
        }
        for (int j = 0; rc == SHALE_BUSY && j < 100; j++) {
            put(db, "k", "w");
            bool kept = held();
            ck_assert(!kept || os_now() - asked > 40000000);
        }
    }
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(whatever_ends_the_keeping_the_next_commit_takes_the_lock_anew)
{
    shale_txn *txn;
    shale_db *db = open_keeping();
    for (int i = 0; i < 40; i++) {
        put_until_kept(db);
        if (i % 2 == 0) {
            assert_ok(i % 4 == 0 ? shale_put(db, "k", 1, "w", 1, SHALE_SYNC) : shale_flush(db));
        } else {
            assert_ok(shale_txn_begin(db, 0, -1, &txn));
            shale_txn_abort(txn);
        }
        assert_ok(os_lock_try(lock_fd, OS_BYTE_WRITE, 2, true));
        assert_status(shale_put(db, "k", 1, "x", 1, SHALE_NOWAIT), SHALE_BUSY);
        assert_ok(os_unlock(lock_fd, OS_BYTE_WRITE, 2));
    }
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(two_handles_of_a_process_do_not_wait_for_each_other)
{
    agent_must(&busy, "use 1");
    agent_must(&busy, "open %s %s", dir, KEEPS);
    for (unsigned i = 0; i < 50; i++) {
        agent_must(&busy, "use %u", i % 2);
        agent_must(&busy, "fill k 0 500 20");
    }
    agent_must(&busy, "close");
    agent_must(&busy, "use 0");
    fill_and_keep();
    agent_must(&busy, "close");
    ck_assert(!held());
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("keep");
    TCase *c = tcase_create("processes");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, test_times(180, 1800));
    tcase_add_test(c, who_commits_all_the_time_keeps_the_lock_and_an_idle_one_gives_it_up);
    tcase_add_test(c, a_handle_without_threads_keeps_nothing);
    tcase_add_loop_test(c, others_write_beside_a_busy_one_however_they_wait, 0, (int)BASE_COUNT(ways));
    tcase_add_test(c, a_user_of_the_queue_gets_the_lock_of_a_busy_one_and_of_an_idle_one);
    tcase_add_test(c, h10_who_is_stopped_while_it_does_nothing_holds_nothing);
    tcase_add_test(c, h10_who_is_stopped_while_it_keeps_the_lock_is_named);
    tcase_add_test(c, h12_who_is_killed_while_it_keeps_the_lock_delays_nobody_and_loses_nothing);
    tcase_add_test(c, who_was_asked_keeps_nothing_for_a_while);
    tcase_add_test(c, whatever_ends_the_keeping_the_next_commit_takes_the_lock_anew);
    tcase_add_test(c, two_handles_of_a_process_do_not_wait_for_each_other);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
