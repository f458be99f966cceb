/* test_lockq_multi.c - the lock queue among processes: exclusion, order, the dead, the stopped, damage,
 * crowds, namespaces. */
#include "lockq_scene.h"

#include <signal.h>
#include <sys/wait.h>

/* Marks that one acquisition by way of the queue passes: behind the number, behind the ticket, before the
 * lock; behind it, served raised, the turn's end and its owner noted, the holder's identity, the record, the
 * ticket freed; then in the release before the unlock, and behind it. */
#define QUEUE_MARKS   12
#define WAITING_MARKS 3
#define HOLDING_MARKS 10
#define GATE_MARKS    3

/* ---- exclusion ---- */

static const char *const write_ways[] = {"- turn", "- turn", "- turn", "-", "- backoff", "- turn ms=1"};
static const char *const named_ways[] = {"job", "job", "job ms=1", "job backoff", "job once", "job turn"};

START_TEST(whoever_takes_it_in_whatever_way_is_alone)
{
    const char *const *ways = _i == 0 ? write_ways : named_ways;
    start_all(6);
    tell_loops(6, ways, 6);
    for (unsigned i = 0; i < 3; i++) {
        agent_progress(&agent[i], test_times(3000, 100000), PATIENCE_MS);
    }
    ck_assert_uint_eq(end_loops(6), guarded());
    assert_in_order(guarded());
    quit_all(6);
}
END_TEST

START_TEST(h9_processes_of_two_pid_namespaces_exclude_each_other_and_keep_order)
{
    ck_assert_msg(system("unshare -Ur --pid --fork --mount-proc true") == 0,
                  "this machine has no user namespaces");
    start_all(4);
    agent_tell(&agent[0], "namespace-loop - turn");
    agent_tell(&agent[1], "namespace-loop - turn");
    agent_tell(&agent[2], "namespace-loop -");
    agent_tell(&agent[3], "loop - turn");
    for (unsigned i = 0; i < 4; i++) {
        agent_progress(&agent[i], 200, PATIENCE_MS);
    }
    ck_assert_uint_eq(end_loops(4), guarded());
    assert_in_order(guarded());
    quit_all(4);
}
END_TEST

/* ---- order ---- */

START_TEST(waiters_are_served_in_the_order_of_their_tickets)
{
    static const unsigned order[] = {3, 1, 4, 2, 5};
    start_all(6);
    agent_must(&agent[0], "take job");
    for (unsigned i = 0; i < 5; i++) {
        agent_tell(&agent[order[i]], "take job");
        await_ticket("job", i + 1);
    }
    agent_must(&agent[0], "free");
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(strtoull(agent_done(&agent[order[i]]), NULL, 10), i + 1);
        agent_must(&agent[order[i]], "free");
    }
    quit_all(6);
}
END_TEST

START_TEST(sharers_behind_an_exclusive_waiter_wait_for_it_and_then_share)
{
    start_all(4);
    agent_must(&agent[0], "take job shared");
    agent_tell(&agent[1], "take job");
    await_ticket("job", 1);
    agent_tell(&agent[2], "take job shared");
    await_ticket("job", 2);
    agent_tell(&agent[3], "take job shared");
    await_ticket("job", 3);
    agent_must(&agent[0], "free");
    ck_assert_str_eq(agent_done(&agent[1]), "1");
    agent_must(&agent[1], "free");
    agent_done(&agent[2]); /* both, though neither frees it */
    agent_done(&agent[3]);
    agent_must(&agent[2], "free");
    agent_must(&agent[3], "free");
    agent_must(&agent[0], "take job ms=%d", PATIENCE_MS);
    quit_all(4);
}
END_TEST

START_TEST(neither_once_nor_backoff_passes_a_live_ticket)
{
    start_all(3);
    agent_must(&agent[0], "take job");
    agent_must(&agent[1], "park-at QUEUE 2"); /* its ticket locked, then nothing more */
    agent_tell(&agent[1], "take job");
    ck_assert(agent_parked(&agent[1], PATIENCE_MS));
    agent_must(&agent[0], "free");
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[2], "take job once"), "is waited for by others"));
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[2], "take job backoff ms=20"), "SHALE_BUSY"));
    agent_unpark(&agent[1]);
    agent_done(&agent[1]);
    agent_must(&agent[1], "free");
    agent_must(&agent[2], "take job once");
    quit_all(3);
}
END_TEST

/* ---- the dead ---- */

/* Dies while another holds the lock: as a waiter. */
static void die_waiting(unsigned mark)
{
    agent_must(&agent[0], "take job");
    agent_must(&agent[3], "die-at QUEUE %u", mark);
    agent_tell(&agent[3], "take job");
    agent_reap(&agent[3]);
    uint64_t next = atomic_load(&slot_of("job")->next);
    agent_tell(&agent[1], "take job ms=%d", PATIENCE_MS);
    await_ticket("job", next + 1);
    agent_must(&agent[0], "free");
}

/* Dies with the lock: where it has just been had, or is about to be freed, or has just been freed. A dead
 * number sends it through the queue. */
static void die_holding(unsigned mark)
{
    struct lockq_slot *slot = slot_of("job");
    atomic_fetch_add(&slot->next, 1);
    agent_must(&agent[3], "die-at QUEUE %u", mark);
    agent_tell(&agent[3], "take job");
    if (mark <= HOLDING_MARKS) {
        agent_reap(&agent[3]);
        agent_tell(&agent[1], "take job ms=%d", PATIENCE_MS);
        return;
    }
    agent_done(&agent[3]);
    uint64_t next = atomic_load(&slot->next);
    agent_tell(&agent[1], "take job ms=%d", PATIENCE_MS);
    await_ticket("job", next + 1);
    agent_tell(&agent[3], "free");
    agent_reap(&agent[3]);
}

/* Whoever waits behind the victim, and whoever comes later, has the lock soon. */
START_TEST(h19_killed_at_any_mark_of_the_queue_it_is_gone_from_it)
{
    unsigned died[QUEUE_MARKS + 1] = {0};
    start_all(3);
    for (unsigned round = 0; round < QUEUE_MARKS * test_times(20, 100); round++) {
        unsigned mark = round % QUEUE_MARKS + 1;
        start(3);
        if (mark <= WAITING_MARKS) {
            die_waiting(mark);
        } else {
            die_holding(mark);
        }
        died[mark]++;
        agent_done(&agent[1]);
        agent_must(&agent[1], "free");
        agent_must(&agent[2], "take job once"); /* no trace is left */
        agent_must(&agent[2], "free");
    }
    for (unsigned mark = 1; mark <= QUEUE_MARKS; mark++) {
        ck_assert_uint_ge(died[mark], 20);
    }
    quit_all(3);
}
END_TEST

START_TEST(killed_waiters_do_not_hold_up_the_one_behind_them)
{
    start_all(6);
    agent_must(&agent[0], "take job");
    for (unsigned i = 1; i < 6; i++) {
        agent_tell(&agent[i], "take job");
        await_ticket("job", i);
    }
    for (unsigned i = 1; i < 5; i++) {
        agent_kill(&agent[i]);
    }
    agent_must(&agent[0], "free");
    agent_done(&agent[5]);
    ck_assert_uint_le(slot_of("job")->skipped, 0); /* the dead need no patience */
    agent_must(&agent[5], "free");
    agent_quit(&agent[0]);
    agent_quit(&agent[5]);
}
END_TEST

START_TEST(random_kills_leave_nobody_stuck)
{
    uint64_t random = test_seed(19);
    unsigned kills = test_times(60, 1000);
    start_all(5);
    tell_loops(5, write_ways, 3);
    for (unsigned i = 0; i < kills; i++) {
        unsigned victim = (unsigned)(prng_next(&random) % 4);
        os_nap((int64_t)(prng_next(&random) % 3000000));
        agent_kill(&agent[victim]);
        agents_sound(board, 5);
        start(victim);
        agent_tell(&agent[victim], "loop - turn");
        agent_progress(&agent[4], 1, PATIENCE_MS);
    }
    (void)end_loops(5);
    quit_all(5);
}
END_TEST

/* Agent 1 waits for agent 0, and describes itself after a while: seldom, where the gate is not its own
 * within a millisecond, as on a busy machine. */
static bool a_waiter_is_described(void)
{
    struct lockq_meta_row *rows = NULL;
    size_t count = 0;
    bool found = false;
    uint64_t mine = atomic_load(&slot_of("job")->next) + 1;
    agent_tell(&agent[1], "take job");
    await_ticket("job", mine);
    for (int i = 0; i < 500 && !found; i++) {
        free(rows);
        os_nap(1000000);
        lockq_meta_rows(queue, &rows, &count);
        found = count > 0 && rows[count - 1].number == mine;
    }
    ck_assert(!found || rows[count - 1].who.pid == agent[1].pid);
    free(rows);
    agent_must(&agent[0], "free");
    agent_done(&agent[1]);
    agent_must(&agent[1], "free");
    agent_must(&agent[0], "take job");
    return found;
}

/* A process that is killed while it describes itself in LMDB leaves a gate that is free and a file that does
 * no harm. */
START_TEST(h14_killed_inside_a_metadata_transaction)
{
    unsigned died[GATE_MARKS] = {0};
    start_all(2);
    agent_must(&agent[0], "take job");
    for (unsigned round = 0; round < GATE_MARKS * 20; round++) {
        start(2);
        agent_must(&agent[2], "die-at GATE %u", round % GATE_MARKS + 1);
        agent_tell(&agent[2], "take job");
        agent_reap(&agent[2]);
        died[round % GATE_MARKS]++;
        bool described = round % 10 != 9;
        for (int i = 0; i < 10 && !described; i++) {
            described = a_waiter_is_described();
        }
        ck_assert(described);
    }
    for (unsigned i = 0; i < GATE_MARKS; i++) {
        ck_assert_uint_ge(died[i], 20);
    }
    quit_all(2);
}
END_TEST

/* ---- the stopped ---- */

START_TEST(h10_a_stopped_waiter_is_passed_and_has_its_turn_when_it_runs)
{
    start_all(4);
    agent_must(&agent[0], "take - turn");
    for (unsigned i = 1; i < 4; i++) {
        agent_tell(&agent[i], "take - turn");
        await_ticket("-", i);
    }
    agent_stop(&agent[1]);
    agent_stop(&agent[2]);
    agent_must(&agent[0], "free");
    agent_done(&agent[3]);
    ck_assert_uint_eq(slot_of("-")->skipped, 1); /* both in one step */
    agent_signal(&agent[1], SIGCONT);
    agent_signal(&agent[2], SIGCONT);
    ck_assert_ptr_null(agent_wait(&agent[1], 10)); /* it is held */
    agent_must(&agent[3], "free");
    /* Either may come first now: both were passed. */
    for (unsigned i = 1; i < 3; i++) {
        agent_tell(&agent[i], "free");
    }
    for (unsigned i = 1; i < 3; i++) {
        agent_done(&agent[i]); /* it has it */
        agent_done(&agent[i]);
    }
    quit_all(4);
}
END_TEST

START_TEST(h10_a_stopped_holder_is_named_and_never_robbed)
{
    char pid[32];
    start_all(3);
    agent_must(&agent[0], "take - turn");
    agent_stop(&agent[0]);
    (void)snprintf(pid, sizeof pid, "(pid %d) (stopped)", (int)agent[0].pid);
    static const char *const ways[] = {"- ms=300", "- turn ms=50", "- once", "- backoff ms=50"};
    for (size_t i = 0; i < BASE_COUNT(ways); i++) {
        const char *text = agent_ask(&agent[1 + i % 2], "take %s", ways[i]);
        ck_assert_msg(strstr(text, "SHALE_BUSY busy: the write lock is held by") != NULL, "%s", text);
        ck_assert_msg(strstr(text, pid) != NULL, "%s does not say %s", text, pid);
    }
    agent_signal(&agent[0], SIGCONT);
    agent_must(&agent[0], "free");
    agent_must(&agent[1], "take - once");
    quit_all(3);
}
END_TEST

START_TEST(h10_a_process_stopped_in_the_gate_delays_nobody)
{
    start_all(3);
    agent_must(&agent[0], "take job");
    agent_must(&agent[1], "park-at GATE 1");
    agent_tell(&agent[1], "take other"); /* does not wait, is not described */
    agent_done(&agent[1]);
    agent_tell(&agent[1], "take job ms=%d", PATIENCE_MS);
    ck_assert(agent_parked(&agent[1], PATIENCE_MS));
    agent_tell(&agent[2], "take job ms=%d", PATIENCE_MS);
    await_ticket("job", 2);
    int64_t best = INT64_MAX; /* of some: the machine may be busy */
    for (int i = 0; i < 5; i++) {
        struct lockq_meta_row *rows;
        size_t count;
        int64_t began = os_now();
        lockq_meta_rows(queue, &rows, &count);
        int64_t took = os_now() - began;
        best = took < best ? took : best;
        ck_assert_uint_eq(count, 0);
        free(rows);
    }
    ck_assert_int_lt(best, INT64_C(20000000));
    agent_must(&agent[0], "free");
    agent_done(&agent[2]); /* past the one in the gate, which does not run */
    agent_unpark(&agent[1]);
    agent_must(&agent[2], "free");
    agent_done(&agent[1]);
    quit_all(3);
}
END_TEST

/* ---- damage ---- */

START_TEST(h5_queue_files_deleted_and_garbled_under_the_processes)
{
    uint64_t random = test_seed(5);
    char where[64];
    start_all(5);
    static const char *const ways[] = {"- turn damage", "- damage", "- turn damage", "- backoff damage",
                                       "- ms=2 damage"};
    tell_loops(5, ways, 5);
    for (unsigned round = 0; round < test_times(40, 400); round++) {
        bool meta = round % 4 == 3;
        (void)snprintf(where, sizeof where, "%s/queue", dir);
        if (round % 8 == 0) {
            (void)os_unlink(queue->queue_dir, meta ? queue->meta_name : queue->queue_name);
            /* Half of them go on with the old one. */
            agent_kill(&agent[round / 8 % 2]);
            start(round / 8 % 2);
            agent_tell(&agent[round / 8 % 2], "loop - turn damage");
        } else {
            (void)scratch_noise(where, meta ? queue->meta_name : queue->queue_name,
                                round % 2 == 0 ? LOCKQ_HEADER_SIZE : 0, 256, prng_next(&random));
        }
        for (unsigned i = 0; i < 4; i++) {
            agent_progress(&agent[i], 1, PATIENCE_MS);
        }
    }
    (void)end_loops(5);
    quit_all(5);
}
END_TEST

START_TEST(h5_a_stray_open_and_close_of_the_files_drops_no_lock)
{
    start_all(3);
    agent_must(&agent[0], "take job");
    agent_must(&agent[0], "stray");
    agent_tell(&agent[1], "take job");
    await_ticket("job", 1);
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[2], "take job once"), "SHALE_BUSY"));
    agent_must(&agent[2], "stray");
    agent_must(&agent[0], "stray");
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[2], "take job ms=20"), "SHALE_BUSY"));
    agent_must(&agent[0], "free");
    agent_done(&agent[1]);
    quit_all(3);
}
END_TEST

/* ---- children ---- */

static void lock_dies_with_its_holder(const char *child_kind)
{
    start_all(2);
    agent_must(&agent[0], "hold job");
    agent_must(&agent[0], "take other");
    pid_t child = (pid_t)atoi(agent_must(&agent[0], "%s", child_kind));
    agent_kill(&agent[0]);
    ck_assert_int_eq(kill(child, 0), 0); /* it lives */
    agent_must(&agent[1], "take job ms=%d", PATIENCE_MS);
    agent_must(&agent[1], "free");
    kill(child, SIGKILL);
    agent_quit(&agent[1]);
}

START_TEST(h7_exec_leaks_no_lock)
{
    lock_dies_with_its_holder("exec-child");
}
END_TEST

START_TEST(h6_a_forked_child_that_outlives_its_parent_keeps_no_lock)
{
    lock_dies_with_its_holder("fork-child");
}
END_TEST

/* An open file that was idle at the fork, and holds the lock when its owner dies. */
START_TEST(h6_a_forked_child_keeps_no_lock_that_its_parent_takes_later)
{
    start_all(2);
    agent_must(&agent[0], "hold job");
    agent_must(&agent[0], "release");
    pid_t child = (pid_t)atoi(agent_must(&agent[0], "fork-child"));
    agent_must(&agent[0], "hold job");
    agent_kill(&agent[0]);
    ck_assert_int_eq(kill(child, 0), 0);
    agent_must(&agent[1], "take job ms=%d", PATIENCE_MS);
    agent_must(&agent[1], "free");
    kill(child, SIGKILL);
    agent_quit(&agent[1]);
}
END_TEST

START_TEST(h6_a_forked_child_is_told_that_the_queue_is_its_parents)
{
    start_all(1);
    agent_must(&agent[0], "take other");
    agent_must(&agent[0], "hold job");
    agent_must(&agent[0], "forked-status");
    agent_must(&agent[0], "free");
    agent_quit(&agent[0]);
}
END_TEST

/* A child that was forked while its parent had a ticket must not keep the place when the parent is dead. */
START_TEST(h6_a_forked_child_keeps_no_ticket)
{
    start_all(2);
    agent_must(&agent[0], "stand job 3");
    pid_t child = (pid_t)atoi(agent_must(&agent[0], "fork-child"));
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[1], "take job once"), "SHALE_BUSY"));
    agent_kill(&agent[0]);
    agent_must(&agent[1], "take job ms=20"); /* too short to pass a live one */
    kill(child, SIGKILL);
    agent_quit(&agent[1]);
}
END_TEST

/* ---- crowds ---- */

START_TEST(h33_thousands_of_tickets_vanish_at_once)
{
    unsigned each = 500;
    start_all(5);
    for (unsigned i = 0; i < 4; i++) {
        agent_must(&agent[i], "stand job %u", each);
    }
    agent_tell(&agent[4], "take job ms=%d", PATIENCE_MS);
    await_ticket("job", (uint64_t)each * 4 + 1);
    for (unsigned i = 0; i < 4; i++) {
        agent_kill(&agent[i]);
    }
    agent_done(&agent[4]);
    agent_must(&agent[4], "free");
    agent_must(&agent[4], "take job once");
    agent_quit(&agent[4]);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lockq_multi");
    TCase *c = tcase_create("processes");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, test_times(120, 1800));
    tcase_add_loop_test(c, whoever_takes_it_in_whatever_way_is_alone, 0, 2);
    tcase_add_test(c, h9_processes_of_two_pid_namespaces_exclude_each_other_and_keep_order);
    tcase_add_test(c, waiters_are_served_in_the_order_of_their_tickets);
    tcase_add_test(c, sharers_behind_an_exclusive_waiter_wait_for_it_and_then_share);
    tcase_add_test(c, neither_once_nor_backoff_passes_a_live_ticket);
    tcase_add_test(c, h19_killed_at_any_mark_of_the_queue_it_is_gone_from_it);
    tcase_add_test(c, killed_waiters_do_not_hold_up_the_one_behind_them);
    tcase_add_test(c, random_kills_leave_nobody_stuck);
    tcase_add_test(c, h14_killed_inside_a_metadata_transaction);
    tcase_add_test(c, h10_a_stopped_waiter_is_passed_and_has_its_turn_when_it_runs);
    tcase_add_test(c, h10_a_stopped_holder_is_named_and_never_robbed);
    tcase_add_test(c, h10_a_process_stopped_in_the_gate_delays_nobody);
    tcase_add_test(c, h5_queue_files_deleted_and_garbled_under_the_processes);
    tcase_add_test(c, h5_a_stray_open_and_close_of_the_files_drops_no_lock);
    tcase_add_test(c, h7_exec_leaks_no_lock);
    tcase_add_test(c, h6_a_forked_child_that_outlives_its_parent_keeps_no_lock);
    tcase_add_test(c, h6_a_forked_child_keeps_no_lock_that_its_parent_takes_later);
    tcase_add_test(c, h6_a_forked_child_is_told_that_the_queue_is_its_parents);
    tcase_add_test(c, h6_a_forked_child_keeps_no_ticket);
    tcase_add_test(c, h33_thousands_of_tickets_vanish_at_once);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    int status;
    return lockq_agent_ran(argc, argv, &status) ? status : test_run(argc, argv, suite);
}
