/* test_faults.c - a system call fails in one process: what that one says, what the others do, and how it
 * ends. */
#include "lib/lib.h"

#include <errno.h>
#include <signal.h>

enum { MAX = 8 };

static char *dir;
static struct board *board;
static struct agent a, b;

static void setup(void)
{
    dir = scratch_dir("faults");
    board = proc_board();
    agent_start(&a, 0);
    agent_must(&a, "open %s", dir);
    agent_start(&b, 1);
    agent_must(&b, "open %s", dir);
}

static void teardown(void)
{
    agent_quit(&a);
    agent_quit(&b);
    board_close(board);
    free(dir);
}

static void refused_with(struct agent *x, const char *status, const char *command)
{
    const char *text = agent_ask(x, "%s", command);
    ck_assert_msg(strncmp(text, status, strlen(status)) == 0, "%s: %s instead of %s", command, text, status);
}

/* Every entry of the fill command is there, read by a process that has not been there yet. */
static void check_afresh(const char *key, const char *value, unsigned entries)
{
    struct agent fresh = {0};
    agent_start(&fresh, MAX);
    agent_must(&fresh, "open %s", dir);
    ck_assert_str_eq(agent_must(&fresh, "get %s", key), value);
    ck_assert_int_eq(atoi(agent_must(&fresh, "scan")), (int)entries);
    agent_must(&fresh, "verify");
    agent_quit(&fresh);
}

START_TEST(h24_failed_sync_of_one_stops_everybody_until_it_is_cured)
{
    agent_must(&a, "put before 1 sync");
    agent_must(&a, "errno-at FDATASYNC 1 %d", EIO);
    refused_with(&a, "SHALE_PANIC", "put k 1 sync");
    ck_assert_str_eq(agent_must(&a, "errno-off"), "1");
    refused_with(&a, "SHALE_PANIC", "put l 1 sync"); /* it is not tried again */
    refused_with(&b, "SHALE_PANIC", "put l 1 sync"); /* others know */
    refused_with(&b, "SHALE_PANIC", "put l 1");
    ck_assert_str_eq(agent_must(&b, "get before"), "1"); /* reading goes on */
    agent_must(&b, "flush");                             /* new files, every record verified */
    agent_must(&b, "put after 1 sync");
    agent_must(&a, "put after 2 sync");
    check_afresh("before", "1", 3); /* before, after, and k: its record was there to be verified */
}
END_TEST

START_TEST(h24_failed_sync_is_over_after_everybody_left)
{
    agent_must(&a, "put before 1 sync");
    agent_must(&a, "errno-at FDATASYNC 1 %d", EIO);
    refused_with(&a, "SHALE_PANIC", "put k 1 sync");
    agent_must(&a, "errno-off");
    agent_must(&b, "close");
    (void)agent_ask(&a, "close");
    agent_must(&a, "open %s", dir);
    agent_must(&b, "open %s", dir);
    agent_must(&b, "put after 1 sync");
    agent_must(&a, "put after 2 sync");
    check_afresh("before", "1", 3);
}
END_TEST

/* The loop index chooses the call. */
static const struct {
    const char *op, *command;
} full[] = {
    {"ALLOCATE", "flush"},
    {"WRITE", "flush"},
    {"ALLOCATE", "compact"},
    {"WRITE", "compact"},
};

START_TEST(h23_full_device_stops_the_work_and_no_more)
{
    agent_must(&a, "fill x 0 200 300");
    agent_must(&a, "flush");
    agent_must(&a, "fill x 100 200 300");
    agent_must(&a, "errno-at %s 1 %d always", full[_i].op, ENOSPC);
    refused_with(&a, "SHALE_NOSPC", full[_i].command);
    ck_assert_int_eq(atoi(agent_must(&a, "scan")), 300); /* reading goes on, there and elsewhere */
    ck_assert_int_eq(atoi(agent_must(&b, "scan")), 300);
    agent_must(&b, "verify");
    ck_assert_int_gt(atoi(agent_must(&a, "errno-off")), 0);
    agent_must(&a, "put k 1"); /* room again: without reopening */
    agent_must(&a, "%s", full[_i].command);
    agent_must(&b, "compact");
    check_afresh("k", "1", 301);
}
END_TEST

/* What a flush frees is what the next segment lacks. */
START_TEST(h23_no_space_for_a_segment_does_not_keep_from_flushing)
{
    agent_must(&a, "fill x 0 100 300");
    agent_must(&b, "park-at FLUSH 1");
    agent_tell(&b, "flush");
    ck_assert(agent_parked(&b, 20000)); /* one is sealed */
    agent_must(&a, "errno-at ALLOCATE 1 %d always", ENOSPC);
    agent_must(&a, "fill y 0 500 300"); /* the active one is half full: the next is due */
    ck_assert_int_gt(atoi(agent_must(&a, "errno-off")), 0);
    agent_kill(&b);
    int before = atoi(agent_must(&a, "stat flushes"));
    agent_must(&a, "errno-at ALLOCATE 1 %d", ENOSPC);
    agent_must(&a, "work");
    ck_assert_int_eq(atoi(agent_must(&a, "errno-off")), 1);
    ck_assert_int_gt(atoi(agent_must(&a, "stat flushes")), before);
    ck_assert_str_eq(agent_must(&a, "scan"), "600");
    agent_start(&b, 1);
}
END_TEST

/* A record that could not be written whole is none, and what follows stands where it would have. */
START_TEST(refused_append_leaves_nothing)
{
    agent_must(&a, "put before 1");
    agent_must(&a, "errno-at WRITE 1 %d", EIO);
    refused_with(&a, "SHALE_IO", "put k 1 sync");
    agent_must(&a, "errno-off");
    ck_assert_str_eq(agent_ask(&b, "get k"), "SHALE_NOTFOUND ");
    agent_must(&b, "put after 1 sync");
    check_afresh("after", "1", 2);
    agent_kill(&b);
    agent_kill(&a);
    check_afresh("before", "1", 2);
    agent_start(&a, 0);
    agent_start(&b, 1);
}
END_TEST

START_TEST(opens_that_fail_leave_nothing_behind)
{
    static const char *const ops[] = {"OPEN", "MAP", "LOCK", "READ", "STAT"};
    agent_must(&a, "fill x 0 100 300");
    agent_must(&a, "close");
    for (size_t i = 0; i < BASE_COUNT(ops); i++) {
        unsigned hits = 0;
        for (unsigned n = 1; n <= 12; n++) {
            agent_must(&a, "errno-at %s %u %d", ops[i], n, ENFILE);
            const char *text = agent_ask(&a, "open %s", dir);
            bool open = strncmp(text, "ok", 2) == 0;
            ck_assert_msg(open || strncmp(text, "SHALE_", 6) == 0, "%s", text);
            hits += atoi(agent_must(&a, "errno-off")) != 0;
            if (open) {
                agent_must(&a, "close");
            }
            ck_assert_str_eq(agent_must(&b, "stat handles"), "1"); /* b alone */
            agent_must(&b, "put k %u", n);
        }
        ck_assert_uint_gt(hits, 0);
    }
    check_afresh("k", "12", 101);
}
END_TEST

/* Not by a killer from outside: the process is gone before the next instruction. */
START_TEST(h12_killed_after_publishing_before_unlocking)
{
    agent_must(&a, "die-at UNLOCK 1");
    agent_tell(&a, "put k 1");
    agent_reap(&a);
    ck_assert_str_eq(agent_must(&b, "get k"), "1");
    agent_must(&b, "put l 1");
    check_afresh("k", "1", 2);
    agent_start(&a, 0);
}
END_TEST

/* Out of descriptors, it cannot sync what another wrote into a segment that it does not map. No fdatasync has
 * failed: nothing is in doubt for anybody else, nor for itself afterwards. */
START_TEST(h23_a_process_that_cannot_open_a_segment_stops_nobody)
{
    agent_must(&a, "put mine 1");
    agent_must(&b, "fill y 0 2000 300"); /* a newer segment */
    agent_must(&a, "errno-at OPEN 1 %d always", EMFILE);
    refused_with(&a, "SHALE_PANIC", "sync");
    ck_assert_int_gt(atoi(agent_must(&a, "errno-off")), 0);
    agent_must(&b, "put k 1 sync");
    agent_must(&b, "put l 1");
    agent_must(&a, "sync");
    agent_must(&a, "put m 1 sync");
    check_afresh("k", "1", 2004);
}
END_TEST

/* A syncer was killed with what the kernel may have told it; who syncs next must first write that range
 * again, and cannot. That one has told the kernel nothing: others, who can, go on. */
START_TEST(h23_a_process_that_cannot_write_again_stops_nobody)
{
    struct agent late = {0};
    agent_must(&a, "die-at SYNC 1");
    agent_tell(&a, "put k 1 sync");
    agent_reap(&a);
    agent_start(&late, 2);
    agent_must(&late, "open %s", dir);
    agent_must(&late, "errno-at WRITE 1 %d always", ENOSPC);
    refused_with(&late, "SHALE_PANIC", "sync");
    ck_assert_int_gt(atoi(agent_must(&late, "errno-off")), 0);
    agent_must(&b, "put l 1");
    agent_must(&late, "put m 1");
    agent_must(&late, "sync");
    agent_must(&b, "put n 1 sync");
    agent_quit(&late);
    check_afresh("k", "1", 4);
    agent_start(&a, 0);
    agent_must(&a, "open %s", dir);
}
END_TEST

/* A segment that its maker, now dead, has named, and that somebody keeps locked: time limits hold all the
 * same. */
START_TEST(a_segment_that_cannot_be_mapped_is_waited_for_in_bounds)
{
    char path[PATH_MAX];
    agent_must(&a, "die-at PREPARE 4"); /* it has its name, and is not ready */
    agent_tell(&a, "fill x 0 2000 300");
    agent_reap(&a);
    char **logs = scratch_names(dir, ".wal"), **last = logs;
    while (last[1] != NULL) {
        last++;
    }
    snprintf(path, sizeof path, "%s/%s", dir, *last);
    scratch_names_free(logs);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(os_lock_try(fd, 0, 1, true), SHALE_OK); /* nobody maps it yet */
    agent_must(&b, "timeout 200");
    agent_tell(&b, "fill y 0 2000 300");
    const char *text = agent_wait(&b, 20000);
    ck_assert_msg(text != NULL && strncmp(text, "SHALE_BUSY", 10) == 0, "%s",
                  text != NULL ? text : "no answer");
    ck_assert_int_eq(close(fd), 0);
    agent_must(&b, "timeout -1");
    agent_must(&b, "fill y 0 2000 300");
    agent_start(&a, 0);
    agent_must(&a, "open %s", dir);
    ck_assert_int_ge(atoi(agent_must(&a, "scan")), 2000);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("faults");
    TCase *t = tcase_create("faults");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h24_failed_sync_of_one_stops_everybody_until_it_is_cured);
    tcase_add_test(t, h24_failed_sync_is_over_after_everybody_left);
    tcase_add_loop_test(t, h23_full_device_stops_the_work_and_no_more, 0, (int)BASE_COUNT(full));
    tcase_add_test(t, h23_no_space_for_a_segment_does_not_keep_from_flushing);
    tcase_add_test(t, refused_append_leaves_nothing);
    tcase_add_test(t, opens_that_fail_leave_nothing_behind);
    tcase_add_test(t, h12_killed_after_publishing_before_unlocking);
    tcase_add_test(t, h23_a_process_that_cannot_open_a_segment_stops_nobody);
    tcase_add_test(t, h23_a_process_that_cannot_write_again_stops_nobody);
    tcase_add_test(t, a_segment_that_cannot_be_mapped_is_waited_for_in_bounds);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
