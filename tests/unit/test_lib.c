/* test_lib.c - the tests' own tools: an oracle that is wrong, or an agent that cannot be killed, proves
 * nothing. */
#include "lib/lib.h"

#include <signal.h>
#include <sys/stat.h>

static struct slice text(const char *s)
{
    return slice_make(s, strlen(s));
}

START_TEST(oracle_reads_at_any_tick)
{
    struct oracle o = {0};
    struct slice v;
    oracle_put(&o, text("b"), text("1"));
    oracle_put(&o, text("a"), text("2"));
    uint64_t early = o.tick;
    oracle_delete(&o, text("b"));
    oracle_put(&o, text("a"), text("3"));
    ck_assert(oracle_get(&o, early, text("b"), &v) && slice_equal(v, text("1")));
    ck_assert(oracle_get(&o, early, text("a"), &v) && slice_equal(v, text("2")));
    ck_assert(!oracle_get(&o, o.tick, text("b"), &v));
    ck_assert(oracle_get(&o, o.tick, text("a"), &v) && slice_equal(v, text("3")));
    ck_assert(!oracle_get(&o, 0, text("a"), &v));
    ck_assert_uint_eq(oracle_count(&o, early), 2);
    ck_assert_uint_eq(oracle_count(&o, o.tick), 1);
    oracle_release(&o);
}
END_TEST

START_TEST(oracle_positions_respect_bounds)
{
    struct oracle o = {0};
    const char *keys[] = {"", "a", "aa", "b", "c"};
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        oracle_put(&o, text(keys[i]), text("v"));
    }
    oracle_delete(&o, text("aa"));
    struct oracle_range all = {.at = o.tick}, some = {.at = o.tick, .lower = text("a"), .upper = text("c")};
    ck_assert_uint_eq(oracle_first(&o, &all), 0);
    ck_assert_uint_eq(oracle_last(&o, &all), 4);
    ck_assert_uint_eq(oracle_first(&o, &some), 1);
    ck_assert_uint_eq(oracle_last(&o, &some), 3);
    ck_assert_uint_eq(oracle_next(&o, &some, 1), 3);
    ck_assert_uint_eq(oracle_prev(&o, &some, 3), 1);
    ck_assert_uint_eq(oracle_prev(&o, &some, 1), ORACLE_END);
    ck_assert_uint_eq(oracle_next(&o, &some, 3), ORACLE_END);
    ck_assert_uint_eq(oracle_seek(&o, &some, text("")), 1);
    ck_assert_uint_eq(oracle_seek(&o, &some, text("aa")), 3);
    ck_assert_uint_eq(oracle_seek_for_prev(&o, &some, text("zzz")), 3);
    ck_assert_uint_eq(oracle_seek_for_prev(&o, &all, text("aa")), 1);
    ck_assert_uint_eq(oracle_seek_for_prev(&o, &all, text("b")), 3);
    oracle_release(&o);
}
END_TEST

START_TEST(oracle_knows_where_a_prefix_ends)
{
    struct buf end = {0};
    ck_assert(oracle_prefix_end(text("ab"), &end) && slice_equal(buf_slice(&end), text("ac")));
    ck_assert(oracle_prefix_end(text("a\xff\xff"), &end) && slice_equal(buf_slice(&end), text("b")));
    ck_assert(!oracle_prefix_end(text("\xff\xff"), &end));
    ck_assert(!oracle_prefix_end(text(""), &end));
    buf_release(&end);
}
END_TEST

START_TEST(scratch_copies_flips_and_removes)
{
    char *from = scratch_dir("from"), *to = scratch_name("to");
    unsigned char *data;
    size_t size;
    ck_assert_int_eq(scratch_write(from, "x.sst", "abc", 3), 0);
    ck_assert_int_eq(scratch_write(from, "y.wal", "", 0), 0);
    ck_assert_int_eq(scratch_copy(from, to), 0);
    ck_assert_int_eq(scratch_flip_bit(to, "x.sst", 9), 0);
    ck_assert_int_eq(scratch_read(to, "x.sst", &data, &size), 0);
    ck_assert_uint_eq(size, 3);
    ck_assert_mem_eq(data, "a`c", 3);
    free(data);
    char **names = scratch_names(to, ".sst");
    ck_assert_str_eq(names[0], "x.sst");
    ck_assert_ptr_null(names[1]);
    scratch_names_free(names);
    ck_assert_int_eq(scratch_remove(to), 0);
    struct stat st;
    ck_assert_int_eq(stat(to, &st), -1);
    free(from);
    free(to);
}
END_TEST

START_TEST(agent_answers_and_dies_when_told)
{
    struct agent a = {0}, b = {0};
    struct board *board = proc_board();
    agent_start(&a, 0);
    agent_start(&b, 1);
    ck_assert_int_eq(atoi(agent_must(&a, "pid")), (int)a.pid);
    ck_assert_int_eq(atoi(agent_must(&b, "pid")), (int)b.pid);
    agent_kill(&a);
    ck_assert_str_eq(agent_ask(&b, "no-such-command"), "USAGE no such command");
    ck_assert_ptr_null(agent_wait(&b, 10));
    agent_stop(&b);
    agent_tell(&b, "pid");
    ck_assert_ptr_null(agent_wait(&b, 50));
    agent_signal(&b, SIGCONT);
    agent_done(&b);
    agent_quit(&b);
    board_close(board);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lib");
    TCase *t = tcase_create("lib");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, oracle_reads_at_any_tick);
    tcase_add_test(t, oracle_positions_respect_bounds);
    tcase_add_test(t, oracle_knows_where_a_prefix_ends);
    tcase_add_test(t, scratch_copies_flips_and_removes);
    tcase_add_test(t, agent_answers_and_dies_when_told);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
