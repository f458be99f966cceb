/* test_waiting.c - the three ways in which a database's writers wait for each other: in the queue, by trying
 * again, not at all. None passes a waiting ticket, and whoever gives up is told who is in the way. */
#include "lib/lib.h"

#define PATIENCE_MS 20000

static struct board *board;
static struct agent agent[4];
static char *dir;
static char holder[64]; /* how agent 0 is named */

static void setup(void)
{
    board = proc_board();
    dir = scratch_dir("waiting");
    agent_start(&agent[0], 0);
    agent_must(&agent[0], "open %s", dir);
    snprintf(holder, sizeof holder, "(pid %d) since ", (int)agent[0].pid);
    for (unsigned i = 1; i < BASE_COUNT(agent); i++) {
        agent_start(&agent[i], i);
    }
}

static void teardown(void)
{
    for (unsigned i = 0; i < BASE_COUNT(agent); i++) {
        agent_quit(&agent[i]);
    }
    agents_sound(board, BASE_COUNT(agent));
    board_close(board);
    scratch_remove(dir);
    free(dir);
}

static void told_who(const char *answer)
{
    ck_assert_msg(strstr(answer, "SHALE_BUSY") != NULL, "%s", answer);
    ck_assert_msg(strstr(answer, "the write lock is held by ") != NULL, "%s", answer);
    ck_assert_msg(strstr(answer, holder) != NULL, "%s does not say %s", answer, holder);
}

START_TEST(a_writer_that_does_not_wait_is_told_at_once_who_writes)
{
    agent_must(&agent[1], "open %s wait=none", dir);
    agent_must(&agent[0], "txn begin");
    told_who(agent_ask(&agent[1], "put k v"));
    told_who(agent_ask(&agent[1], "txn begin"));
    agent_must(&agent[0], "txn abort");
    agent_must(&agent[1], "put k v");
}
END_TEST

static const char *const patient[] = {"queue", "backoff"};

START_TEST(a_writer_that_waits_has_its_turn_or_is_told_who_writes)
{
    agent_must(&agent[1], "open %s wait=%s timeout_ms=30", dir, patient[_i]);
    agent_must(&agent[2], "open %s wait=%s", dir, patient[_i]);
    agent_must(&agent[0], "txn begin");
    told_who(agent_ask(&agent[1], "put k v"));
    agent_tell(&agent[2], "put k w");
    ck_assert_ptr_null(agent_wait(&agent[2], 60));
    agent_must(&agent[0], "txn commit");
    agent_done(&agent[2]);
    ck_assert_str_eq(agent_must(&agent[1], "get k"), "w");
    agent_must(&agent[1], "put k v");
}
END_TEST

/* Agent 3 has a ticket and does not move; the lock is free. */
START_TEST(neither_trying_once_nor_trying_again_passes_a_waiting_writer)
{
    agent_must(&agent[1], "open %s wait=none", dir);
    agent_must(&agent[2], "open %s wait=backoff timeout_ms=20", dir);
    agent_must(&agent[3], "open %s", dir);
    agent_must(&agent[0], "txn begin");
    agent_must(&agent[3], "park-at QUEUE 2");
    agent_tell(&agent[3], "put k mine");
    ck_assert(agent_parked(&agent[3], PATIENCE_MS));
    agent_must(&agent[0], "txn abort");
    for (unsigned i = 1; i < 3; i++) {
        const char *answer = agent_ask(&agent[i], "put k passed");
        ck_assert_msg(strstr(answer, "SHALE_BUSY") != NULL, "%s", answer);
        ck_assert_msg(strstr(answer, "is waited for by others") != NULL, "%s", answer);
    }
    agent_unpark(&agent[3]);
    agent_done(&agent[3]);
    ck_assert_str_eq(agent_must(&agent[1], "get k"), "mine");
    agent_must(&agent[1], "put k next");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("waiting");
    TCase *c = tcase_create("processes");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, test_times(120, 1800));
    tcase_add_test(c, a_writer_that_does_not_wait_is_told_at_once_who_writes);
    tcase_add_loop_test(c, a_writer_that_waits_has_its_turn_or_is_told_who_writes, 0, BASE_COUNT(patient));
    tcase_add_test(c, neither_trying_once_nor_trying_again_passes_a_waiting_writer);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
