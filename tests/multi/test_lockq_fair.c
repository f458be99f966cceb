/* test_lockq_fair.c - nobody who runs is passed by, nobody is held up for long by the dead or the stopped,
 * and a crowd drains. */
#include "lockq_scene.h"

#include <signal.h>

/* So long nothing may happen; rule 5 has looked several times by then. */
#define QUIET_MS 500
/* A scene is played so often before it is judged: the machine may be busy. */
#define ROUNDS 5

/* ---- shared and exclusive ---- */

static uint64_t shared_ops(void)
{
    return atomic_load(&board->agent[0].ops) + atomic_load(&board->agent[1].ops) +
           atomic_load(&board->agent[2].ops);
}

static unsigned live_tickets(void)
{
    struct lockq_slot *slot = slot_of("job");
    uint64_t next = atomic_load(&slot->next);
    unsigned live = 0;
    for (uint64_t n = atomic_load(&slot->served) + 1; n <= next; n++) {
        live += lockq_ticket_alive(queue, lockq_slot_index(queue, slot), n, n);
    }
    return live;
}

/* The stream ends when the exclusive waiter has its ticket: all others queue behind it. */
static uint64_t await_standstill(void)
{
    int64_t end = os_now() + PATIENCE_MS * INT64_C(1000000);
    uint64_t before, ops = shared_ops();
    do {
        ck_assert_msg(os_now() < end, "the sharers do not queue behind the exclusive waiter");
        before = ops;
        os_nap(20000000);
        ops = shared_ops();
    } while (ops != before || live_tickets() != 4);
    return ops;
}

/* Agents 0..2 share in a loop, agent 3 shares and holds on, agent 4 wants it alone. Was it never skipped? */
static bool wait_among_sharers(void)
{
    for (unsigned i = 0; i < 3; i++) {
        agent_progress(&agent[i], 20, PATIENCE_MS);
    }
    agent_must(&agent[3], "take job shared");
    uint64_t skipped = slot_of("job")->skipped;
    agent_tell(&agent[4], "take job");
    uint64_t ops = await_standstill();
    ck_assert_ptr_null(agent_wait(&agent[4], QUIET_MS)); /* it is held shared */
    skipped = slot_of("job")->skipped - skipped;
    ck_assert(skipped != 0 || shared_ops() == ops);
    agent_must(&agent[3], "free");
    agent_done(&agent[4]);
    ops = shared_ops();
    os_nap(20000000);
    ck_assert_uint_eq(shared_ops(), ops); /* alone it is */
    agent_must(&agent[4], "free");
    return skipped == 0;
}

/* On a busy machine it may be late with an answer; a wrong rule skips it in every round. */
START_TEST(h34_later_sharers_never_pass_an_exclusive_waiter)
{
    bool never = false;
    start_all(5);
    for (unsigned i = 0; i < 3; i++) {
        agent_tell(&agent[i], "loop job shared");
    }
    for (int round = 0; round < ROUNDS && !never; round++) {
        never = wait_among_sharers();
    }
    ck_assert(never);
    for (unsigned i = 0; i < 3; i++) {
        agent_progress(&agent[i], 20, PATIENCE_MS);
    }
    (void)end_loops(3);
    quit_all(5);
}
END_TEST

START_TEST(h34_a_stream_of_sharers_does_not_starve_an_exclusive_waiter)
{
    start_all(5);
    for (unsigned i = 0; i < 4; i++) {
        agent_tell(&agent[i], "loop job shared");
        agent_progress(&agent[i], 20, PATIENCE_MS);
    }
    for (unsigned i = 0; i < test_times(50, 2000); i++) {
        agent_must(&agent[4], "take job ms=%d", PATIENCE_MS);
        agent_must(&agent[4], "free");
    }
    for (unsigned i = 0; i < 4; i++) {
        agent_progress(&agent[i], 20, PATIENCE_MS);
    }
    (void)end_loops(4);
    quit_all(5);
}
END_TEST

START_TEST(h10_a_stopped_exclusive_waiter_does_not_keep_sharers_apart)
{
    start_all(3);
    agent_must(&agent[0], "take job shared");
    agent_tell(&agent[1], "take job");
    await_ticket("job", 1);
    agent_stop(&agent[1]);
    agent_must(&agent[2], "take job shared ms=%d", PATIENCE_MS); /* though the other never lets go */
    agent_signal(&agent[1], SIGCONT);
    ck_assert_ptr_null(agent_wait(&agent[1], 20));
    agent_must(&agent[0], "free");
    agent_must(&agent[2], "free");
    agent_done(&agent[1]);
    quit_all(3);
}
END_TEST

START_TEST(sharers_in_a_row_share_at_once)
{
    start_all(6);
    agent_must(&agent[0], "take job");
    for (unsigned i = 1; i < 6; i++) {
        agent_tell(&agent[i], "take job shared");
        await_ticket("job", i);
    }
    agent_must(&agent[0], "free");
    for (unsigned i = 1; i < 6; i++) {
        agent_done(&agent[i]); /* none of them frees it */
    }
    ck_assert_ptr_nonnull(strstr(agent_ask(&agent[0], "take job once"), "is held shared by "));
    for (unsigned i = 1; i < 6; i++) {
        agent_must(&agent[i], "free");
    }
    agent_must(&agent[0], "take job once");
    quit_all(6);
}
END_TEST

/* ---- the dead and the stopped ---- */

#define SOON_NS INT64_C(300000000)

/* Twelve tickets of one process, and the holder: killed at the same moment, so that nobody is left to wake
 * the one behind them. */
START_TEST(killed_with_all_that_wait_before_it_the_holder_delays_nobody)
{
    int64_t best = INT64_MAX;
    start_all(1);
    for (int round = 0; round < ROUNDS; round++) {
        start(1);
        start(2);
        uint64_t next = atomic_load(&slot_of("crowd")->next);
        agent_must(&agent[2], "take crowd ms=%d", PATIENCE_MS);
        agent_must(&agent[1], "gather 12");
        await_ticket("crowd", next + 12);
        agent_tell(&agent[0], "take crowd");
        await_ticket("crowd", next + 13);
        os_nap(30000000); /* asleep, described, and asleep again */
        agent_signal(&agent[1], SIGKILL);
        int64_t began = os_now();
        agent_kill(&agent[2]);
        agent_done(&agent[0]);
        int64_t took = os_now() - began;
        best = took < best ? took : best;
        agent_reap(&agent[1]);
        agent_must(&agent[0], "free");
    }
    ck_assert_int_lt(best, SOON_NS);
    agent_quit(&agent[0]);
}
END_TEST

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Killed about when its turn comes: before it is awake, on its way, or with the lock. Half of the rounds must
 * be quick, so that a busy machine does not decide. */
START_TEST(killed_when_its_turn_comes_a_waiter_delays_the_next_by_little)
{
    enum { KILLS = 40 };
    int64_t took[KILLS];
    uint64_t random = test_seed(7);
    start_all(2);
    for (int i = 0; i < KILLS; i++) {
        start(2);
        uint64_t next = atomic_load(&slot_of("job")->next);
        agent_must(&agent[0], "take job");
        agent_tell(&agent[2], "take job");
        await_ticket("job", next + 1);
        agent_tell(&agent[1], "take job");
        await_ticket("job", next + 2);
        agent_tell(&agent[0], "free");
        os_nap((int64_t)(prng_next(&random) % 400000));
        int64_t began = os_now();
        agent_kill(&agent[2]);
        agent_done(&agent[1]);
        took[i] = os_now() - began;
        agent_done(&agent[0]);
        agent_must(&agent[1], "free");
        agent_must(&agent[0], "take job once"); /* no trace is left */
        agent_must(&agent[0], "free");
    }
    qsort(took, KILLS, sizeof *took, by_size);
    printf("killed when its turn came, the next had it after %.1f ms (half), %.1f ms (all)\n",
           (double)took[KILLS / 2] / 1e6, (double)took[KILLS - 1] / 1e6);
    ck_assert_int_lt(took[KILLS / 2], INT64_C(100000000));
    quit_all(2);
}
END_TEST

/* Agents 1 to 8 wait in this order, 1, 2, 3 and 5 of them stopped; each frees the lock when it has had it.
 * Have the running had it in their order, before those who are let go on, and were there two steps: past 1, 2
 * and 3, and past 5? */
static bool pass_the_stopped(void)
{
    static const unsigned stopped[] = {1, 2, 3, 5}, running[] = {4, 6, 7, 8};
    struct lockq_slot *slot = slot_of("job");
    uint64_t skipped = slot->skipped, place = strtoull(agent_must(&agent[0], "take job"), NULL, 10);
    uint64_t next = atomic_load(&slot->next);
    for (unsigned i = 1; i < 9; i++) {
        agent_tell(&agent[i], "take job");
        agent_tell(&agent[i], "free");
        await_ticket("job", next + i);
        os_nap(6000000); /* who waits looks every 25 ms: now one is the first to look, now another */
    }
    for (size_t i = 0; i < BASE_COUNT(stopped); i++) {
        agent_stop(&agent[stopped[i]]);
    }
    agent_must(&agent[0], "free");
    bool in_order = true;
    for (size_t i = 0; i < BASE_COUNT(running); i++) {
        in_order = strtoull(agent_done(&agent[running[i]]), NULL, 10) == ++place && in_order;
        agent_done(&agent[running[i]]);
    }
    in_order = slot->skipped - skipped == 2 && in_order;
    for (size_t i = 0; i < BASE_COUNT(stopped); i++) {
        agent_signal(&agent[stopped[i]], SIGCONT);
        agent_done(&agent[stopped[i]]);
        agent_done(&agent[stopped[i]]);
    }
    return in_order;
}

/* The stopped are passed together, and one who runs among them is not passed: it has the lock before the one
 * that found them. On a busy machine it may be late with its answer, and where the first that runs finds them
 * no rule can go wrong: so most of the rounds decide. */
START_TEST(h10_many_stopped_waiters_are_passed_in_one_step_and_the_running_keep_their_order)
{
    int right = 0, wrong = 0;
    start_all(9);
    while (right <= ROUNDS && wrong <= ROUNDS) {
        bool in_order = pass_the_stopped();
        right += in_order;
        wrong += !in_order;
    }
    ck_assert_int_gt(right, wrong);
    quit_all(9);
}
END_TEST

/* ---- crowds ---- */

static uint64_t switches(unsigned agents)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < agents; i++) {
        sum += strtoull(agent_must(&agent[i], "switches"), NULL, 10);
    }
    return sum;
}

/* That a wake reaches one and not a crowd is shown in test_lockq; here it is told. */
START_TEST(h33_five_thousand_waiters_drain)
{
    enum { AGENTS = 10 };
    unsigned each = 500;
    uint64_t all = (uint64_t)each * AGENTS;
    start_all(AGENTS + 1);
    agent_must(&agent[AGENTS], "take crowd");
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_must(&agent[i], "gather %u", each);
    }
    await_ticket("crowd", all);
    uint64_t slept = switches(AGENTS);
    int64_t began = os_now();
    agent_must(&agent[AGENTS], "free");
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_must(&agent[i], "scatter");
    }
    double took = (double)(os_now() - began) / 1e9;
    slept = switches(AGENTS) - slept;
    printf("%llu waiters drained in %.2f s, %.1f sleeps each\n", (unsigned long long)all, took,
           (double)slept / (double)all);
    ck_assert_uint_eq(guarded(), all);
    quit_all(AGENTS + 1);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lockq_fair");
    TCase *c = tcase_create("processes"), *crowd = tcase_create("crowd");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, test_times(120, 1800));
    tcase_add_test(c, h34_later_sharers_never_pass_an_exclusive_waiter);
    tcase_add_test(c, h34_a_stream_of_sharers_does_not_starve_an_exclusive_waiter);
    tcase_add_test(c, h10_a_stopped_exclusive_waiter_does_not_keep_sharers_apart);
    tcase_add_test(c, sharers_in_a_row_share_at_once);
    tcase_add_test(c, killed_with_all_that_wait_before_it_the_holder_delays_nobody);
    tcase_add_test(c, killed_when_its_turn_comes_a_waiter_delays_the_next_by_little);
    tcase_add_test(c, h10_many_stopped_waiters_are_passed_in_one_step_and_the_running_keep_their_order);
    suite_add_tcase(s, c);
    tcase_add_checked_fixture(crowd, setup, teardown);
    tcase_set_timeout(crowd, test_times(120, 1800));
    tcase_add_test(crowd, h33_five_thousand_waiters_drain);
    suite_add_tcase(s, crowd);
    return s;
}

int main(int argc, char **argv)
{
    int status;
    return lockq_agent_ran(argc, argv, &status) ? status : test_run(argc, argv, suite);
}
