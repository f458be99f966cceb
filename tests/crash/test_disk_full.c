/* test_disk_full.c - a real file system of a few MiB fills up, by the writers themselves or by somebody
 * else's file: who writes is told so, whoever reads goes on, nothing crashes (a store into a mapping that has
 * no block would be a SIGBUS), and it ends when there is room again, without a reopen.
 *
 * Each case runs on a tmpfs and on an ext4 in a loop device, in a mount namespace of its own, which goes with
 * the process. Where mounting is not permitted, it says so.
 */
#include "lib/lib.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { A, B, C, AGENTS };
enum { VALUE = 1000, MOST = 1000000 };

static const struct {
    const char *name;
    const char *make; /* sh -c, with the image and the directory */
} systems[] = {
    {"tmpfs", "mount -t tmpfs -o size=16m none \"$2\""},
    {"ext4", "dd if=/dev/zero of=\"$1\" bs=1M count=24 status=none && mkfs.ext4 -q -F -m 0 \"$1\" && "
             "mount -o loop \"$1\" \"$2\""},
};

static struct board *board;
static struct agent agent[AGENTS];
static char *root, *dir;

static bool mounted(size_t which)
{
    char command[3 * PATH_MAX];
    root = scratch_dir("full");
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) {
        return false;
    }
    snprintf(command, sizeof command, "set -- '%s.img' '%s'; { %s; } 2>/dev/null", root, root,
             systems[which].make);
    return system(command) == 0; /* NOLINT: the command is ours */
}

/* false: not permitted here. */
static bool start(size_t which)
{
    if (!mounted(which)) {
        printf("skip: no %s can be mounted here\n", systems[which].name);
        fflush(stdout);
        return false;
    }
    size_t size = strlen(root) + 4;
    dir = malloc(size);
    ck_assert_ptr_nonnull(dir);
    snprintf(dir, size, "%s/db", root);
    board = proc_board();
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s compression=none", dir);
    }
    return true;
}

static void stop(void)
{
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_quit(&agent[i]);
    }
    board_close(board);
    (void)umount2(root, MNT_DETACH);
    free(dir);
    free(root);
}

static uint64_t free_bytes(void)
{
    struct statvfs s;
    ck_assert_int_eq(statvfs(root, &s), 0);
    return (uint64_t)s.f_bavail * s.f_frsize;
}

/* Fills what is left, to the last block. */
static void ballast(void)
{
    static const char zeros[65536];
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/ballast", root);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    for (size_t n = sizeof zeros; n >= 512; n /= 2) {
        while (write(fd, zeros, n) == (ssize_t)n) {
        }
    }
    (void)fsync(fd);
    close(fd);
}

static void drop_ballast(void)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/ballast", root);
    ck_assert_int_eq(unlink(path), 0);
    sync();
}

/* Puts until it is told that there is no room; how many were acknowledged. */
static unsigned fill_up(struct agent *a, const char *prefix, const char *flags)
{
    uint64_t before = atomic_load(&board->agent[a->id].ops);
    const char *text = agent_ask(a, "fill %s 0 %d %d %s", prefix, MOST, VALUE, flags);
    ck_assert_msg(strncmp(text, "SHALE_NOSPC", 11) == 0, "%s", text);
    ck_assert_msg(strstr(text, dir) != NULL, "it does not name the database: %s", text);
    return (unsigned)(atomic_load(&board->agent[a->id].ops) - before - 1); /* the last one was refused */
}

static void everybody_reads(unsigned entries)
{
    for (unsigned i = 0; i < AGENTS; i++) {
        ck_assert_int_eq(atoi(agent_must(&agent[i], "scan")), (int)entries);
        agent_must(&agent[i], "verify");
    }
}

static void everybody_writes(unsigned count)
{
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_must(&agent[i], "fill w%u 0 %u %d", i, count, VALUE);
        agent_must(&agent[i], "put again %u sync", i);
    }
}

START_TEST(h23_filled_by_others)
{
    if (!start((size_t)_i)) {
        return;
    }
    agent_must(&agent[A], "fill x 0 1000 %d", VALUE);
    ballast();
    unsigned n = fill_up(&agent[B], "y", "");
    unsigned m = fill_up(&agent[C], "z", "sync");
    everybody_reads(1000 + n + m);
    drop_ballast();
    everybody_writes(1000);
    everybody_reads(1000 + n + m + 3 * 1000 + 1);
    stop();
}
END_TEST

/* Nor does the room that it wished for stand in the way of others. */
START_TEST(h23_a_value_that_does_not_fit_stops_nobody)
{
    if (!start((size_t)_i)) {
        return;
    }
    agent_must(&agent[A], "fill x 0 1000 %d", VALUE);
    const char *text = agent_ask(&agent[A], "fill giant 0 1 %d", 40 << 20);
    ck_assert_msg(strncmp(text, "SHALE_NOSPC", 11) == 0, "%s", text);
    everybody_writes(1000);
    everybody_reads(1000 + 3 * 1000 + 1);
    stop();
}
END_TEST

START_TEST(h23_filled_by_its_writers)
{
    if (!start((size_t)_i)) {
        return;
    }
    agent_tell(&agent[A], "fill a 0 %d %d", MOST, VALUE);
    agent_tell(&agent[B], "fill b 0 %d %d", MOST, VALUE);
    const char *text = agent_wait(&agent[A], PROC_ANSWER_MS);
    ck_assert_msg(text != NULL && strncmp(text, "SHALE_NOSPC", 11) == 0, "%s", text);
    text = agent_wait(&agent[B], PROC_ANSWER_MS);
    ck_assert_msg(text != NULL && strncmp(text, "SHALE_NOSPC", 11) == 0, "%s", text);
    unsigned n = (unsigned)(atomic_load(&board->agent[A].ops) + atomic_load(&board->agent[B].ops)) - 2;
    n += fill_up(&agent[C], "c", "sync");
    everybody_reads(n);
    printf("%s: %u entries, %llu bytes left\n", systems[_i].name, n, (unsigned long long)free_bytes());
    stop();
}
END_TEST

/* After everybody was killed: the log is written to tables, and that takes room, too. Reading takes none. */
START_TEST(h23_opens_after_a_crash_on_a_full_disk)
{
    if (!start((size_t)_i)) {
        return;
    }
    agent_must(&agent[A], "fill x 0 1000 %d", VALUE);
    ballast();
    unsigned n = 1000 + fill_up(&agent[B], "b", "");
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_kill(&agent[i]);
        agent_start(&agent[i], i);
    }
    agent_must(&agent[A], "open %s readonly=1", dir);
    ck_assert_int_eq(atoi(agent_must(&agent[A], "scan")), (int)n);
    agent_must(&agent[A], "close");
    const char *text = agent_ask(&agent[A], "open %s", dir);
    ck_assert_msg(strncmp(text, "SHALE_NOSPC", 11) == 0 || strncmp(text, "ok", 2) == 0, "%s", text);
    drop_ballast();
    if (strncmp(text, "ok", 2) == 0) {
        agent_must(&agent[A], "close");
    }
    for (unsigned i = 0; i < AGENTS; i++) {
        agent_must(&agent[i], "open %s", dir);
    }
    everybody_reads(n);
    everybody_writes(100);
    stop();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("disk_full");
    TCase *t = tcase_create("full");
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, h23_filled_by_others, 0, (int)BASE_COUNT(systems));
    tcase_add_loop_test(t, h23_a_value_that_does_not_fit_stops_nobody, 0, (int)BASE_COUNT(systems));
    tcase_add_loop_test(t, h23_filled_by_its_writers, 0, (int)BASE_COUNT(systems));
    tcase_add_loop_test(t, h23_opens_after_a_crash_on_a_full_disk, 0, (int)BASE_COUNT(systems));
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
