/* test_every_call.c - each system call of each operation, one after the other, goes wrong: it fails in one
 * of the ways in which calls fail, it moves half of the bytes, or the process is gone before it. For every
 * operation n goes up until a run passes in which there was no n-th call. After each run, whatever the
 * operation said, its process is killed, and another one opens the database: every acknowledged entry is
 * there, what was not acknowledged is there whole or not at all, everything verifies, and it can be written.
 *
 * In the short form each n gets one of these ways, in turn; in the long form all, and there are operations on
 * indices in a directory of their own.
 *
 * The n-th allocation of each operation is refused in the same manner. Then the process lives on: it must say
 * SHALE_NOMEM or succeed, hold no lock afterwards, do the same on the same handle when there is memory again,
 * and have nothing open or mapped after its close.
 */
#include "lib/lib.h"

#include <errno.h>
#include <sys/stat.h>

enum { BASE = 290 }; /* entries of the template */
enum { LINE_SIZE = 2 * PATH_MAX };
enum { VICTIM, CHECKER, AGENTS = 2 }; /* rows of the board */

static const struct operation {
    const char *name;
    const char *open;           /* options of the victim's handle, opened before; NULL: not opened */
    const char *before[2];      /* what it does before */
    const char *act;            /* "open": of the directory; "checkpoint": to a copy beside it */
    unsigned before_adds, adds; /* entries, if it succeeds */
    unsigned least, allocs;     /* calls and allocations at least: fewer, and this test tests nothing */
    bool cold, fresh;           /* STATE was lost; there is no database yet */
} operations[] = {
    {"create", NULL, {NULL}, "open", 0, 0, 40, 20, false, true},
    {"open, warm", NULL, {NULL}, "open", 0, 0, 20, 25, false, false},
    {"open, cold", NULL, {NULL}, "open", 0, 0, 60, 60, true, false},
    {"open, mem_dir", NULL, {NULL}, "open", 0, 0, 70, 60, false, false},
    {"put", "", {NULL}, "put new 1", 0, 1, 2, 0, false, false},
    {"durable put", "", {NULL}, "put new 1 sync", 0, 1, 5, 0, false, false},
    {"batch", "", {NULL}, "batch put:new:1 put:newer:1 put:newest:1 sync", 0, 3, 5, 1, false, false},
    {"get", "", {NULL}, "get t00000007", 0, 0, 1, 4, false, false},
    {"scan", "", {NULL}, "scan", 0, 0, 1, 10, false, false},
    {"rotation", "", {"fill r 0 30 8000"}, "fill s 0 5 8000", 30, 5, 30, 100, false, false},
    {"rotation, durable", "", {"fill r 0 30 8000"}, "fill s 0 5 8000 sync", 30, 5, 40, 100, false, false},
    {"rotation, mem_dir", "", {"fill r 0 30 8000"}, "fill s 0 5 8000", 30, 5, 30, 100, true, false},
    {"flush", "", {"put new 1"}, "flush", 1, 0, 30, 20, false, false},
    {"compaction", "", {"flush", "put new 1"}, "compact", 1, 0, 50, 20, false, false},
    {"checkpoint", "", {"put new 1"}, "checkpoint", 1, 0, 30, 4, false, false},
    {"close", "", {"put new 1"}, "close", 1, 0, 10, 0, false, false},
};

static const char *const ways[] = {"5" /* EIO */,
                                   "28" /* ENOSPC */,
                                   "24" /* EMFILE */,
                                   "short",
                                   "12" /* ENOMEM */,
                                   "122" /* EDQUOT */,
                                   "4" /* EINTR */};

static struct board *board;
static struct agent victim, checker;
static char *template;

static void make_template(void)
{
    template = scratch_dir("template");
    agent_must(&checker, "open %s", template);
    agent_must(&checker, "fill t 0 200 100");
    agent_must(&checker, "flush");
    agent_must(&checker, "fill l 0 50 100");
    agent_must(&checker, "flush");
    agent_must(&checker, "fill m 0 40 100");
    agent_must(&checker, "close");
}

static void setup(void)
{
    ck_assert_int_eq(ENOSPC, 28);
    board = proc_board();
    agent_start(&checker, CHECKER);
    make_template();
}

static void teardown(void)
{
    agent_quit(&checker);
    board_close(board);
    free(template);
}

/* The indices lie in a directory of their own. */
static bool has_mem_dir(const struct operation *op)
{
    return strstr(op->name, "mem_dir") != NULL;
}

static const char *mem_option(const struct operation *op, const char *dir)
{
    static char text[PATH_MAX];
    snprintf(text, sizeof text, "mem_dir=%s-mems", dir);
    return has_mem_dir(op) ? text : "";
}

static void act_line(const struct operation *op, const char *dir, char line[LINE_SIZE])
{
    bool path = strcmp(op->act, "open") == 0, copy = strcmp(op->act, "checkpoint") == 0;
    snprintf(line, LINE_SIZE, "%s %s%s %s", op->act, path || copy ? dir : "", copy ? "-copy" : "",
             path ? mem_option(op, dir) : "");
}

static void prepare(const struct operation *op, const char *dir)
{
    char path[PATH_MAX];
    if (!op->fresh) {
        ck_assert_int_eq(scratch_copy(template, dir), 0);
    }
    if (op->cold) {
        snprintf(path, sizeof path, "%s/STATE", dir);
        ck_assert_int_eq(unlink(path), 0);
    } else if (!op->fresh) {
        agent_must(&checker, "open %s", dir); /* a copy is cold: its own inodes */
        agent_must(&checker, "close");
    }
    if (has_mem_dir(op)) {
        snprintf(path, sizeof path, "%s-mems", dir);
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    agent_start(&victim, VICTIM);
    if (op->open != NULL) {
        agent_must(&victim, "open %s %s %s", dir, op->open, mem_option(op, dir));
    }
    for (size_t i = 0; i < BASE_COUNT(op->before) && op->before[i] != NULL; i++) {
        agent_must(&victim, "%s", op->before[i]);
    }
}

/* How many calls went wrong: 0 when the operation made fewer than n. *done: it said that it succeeded. */
static unsigned act(const struct operation *op, const char *dir, unsigned n, const char *way, bool *done)
{
    char line[LINE_SIZE];
    unsigned hits = 1;
    act_line(op, dir, line);
    agent_must(&victim, "call-at %u %s", n, way);
    agent_tell(&victim, "%s", line);
    const char *answer = agent_last_words(&victim);
    *done = answer != NULL && strncmp(answer, "ok", 2) == 0;
    if (strcmp(way, "die") == 0) {
        hits = answer == NULL;
    } else {
        ck_assert_msg(answer != NULL, "%s, call %u, %s: it died", op->name, n, way);
        hits = (unsigned)atoi(agent_must(&victim, "errno-off"));
        ck_assert_msg(*done || hits != 0, "%s failed by itself: %s", op->name, answer);
    }
    agent_kill(&victim);
    return hits;
}

static void check(const struct operation *op, const char *dir, unsigned n, const char *way, bool done)
{
    unsigned base = op->fresh ? 0 : BASE + op->before_adds;
    const char *answer = agent_ask(&checker, "open %s", dir);
    ck_assert_msg(strncmp(answer, "ok", 2) == 0, "%s, call %u, %s: then the open says %s", op->name, n, way,
                  answer);
    unsigned entries = (unsigned)atoi(agent_must(&checker, "scan"));
    bool batch = strncmp(op->act, "batch", 5) == 0;
    bool right = entries == base + op->adds ||
                 (!done && entries >= base && entries < base + op->adds && (!batch || entries == base));
    ck_assert_msg(right, "%s (%s), call %u, %s: %u entries, there were %u before and %u may have been added",
                  op->name, done ? "done" : "refused", n, way, entries, base, op->adds);
    answer = agent_ask(&checker, "verify");
    ck_assert_msg(strncmp(answer, "ok", 2) == 0, "%s, call %u, %s: verify says %s", op->name, n, way, answer);
    agent_must(&checker, "put after 1 sync");
    agent_must(&checker, "close");
}

/* What was in memory goes with the database. */
static void remove_all(const struct operation *op, const char *dir)
{
    char mems[PATH_MAX];
    if (has_mem_dir(op)) {
        snprintf(mems, sizeof mems, "%s-mems", dir);
        agent_must(&checker, "destroy %s", dir);
        ck_assert_msg(rmdir(mems) == 0, "%s: %m", mems);
    }
    (void)scratch_remove(dir);
}

/* true: there was no n-th call. */
static bool one_run(const struct operation *op, unsigned n, const char *way)
{
    char *dir = scratch_name("run"), copy[PATH_MAX];
    bool done = false;
    prepare(op, dir);
    unsigned hits = act(op, dir, n, way, &done);
    check(op, dir, n, way, done);
    snprintf(copy, sizeof copy, "%s-copy", dir);
    if (strcmp(op->name, "checkpoint") == 0 && done) {
        agent_must(&checker, "open %s", copy);
        ck_assert_int_eq(atoi(agent_must(&checker, "scan")), (int)(BASE + op->before_adds));
        agent_must(&checker, "close");
    }
    (void)scratch_remove(copy);
    remove_all(op, dir);
    free(dir);
    return hits == 0;
}

static unsigned runs;

/* way NULL: each call in another one. */
static unsigned until_untouched(const struct operation *op, const char *way)
{
    for (unsigned n = 1;; n++) {
        size_t turn = n + (size_t)(op - operations);
        ck_assert_uint_lt(n, 5000);
        runs++;
        if (one_run(op, n, way != NULL ? way : ways[turn % BASE_COUNT(ways)])) {
            return n - 1;
        }
    }
}

START_TEST(h15_h23_h36_every_call_of)
{
    const struct operation *op = &operations[_i];
    if (has_mem_dir(op) && test_times(0, 1) == 0) {
        return;
    }
    unsigned calls = until_untouched(op, NULL);
    ck_assert_msg(calls >= op->least, "%s makes %u calls", op->name, calls);
    for (size_t i = 0; i < test_times(0, BASE_COUNT(ways)); i++) {
        (void)until_untouched(op, ways[i]);
    }
    printf("%-18s %4u calls, %5u runs\n", op->name, calls, runs);
    fflush(stdout);
}
END_TEST

/* ---- allocations ---- */

/* No role, no named lock: nobody does anything. */
static void no_lock_is_held(const struct operation *op, const char *dir, unsigned n)
{
    char path[PATH_MAX];
    bool taken = true;
    snprintf(path, sizeof path, "%s/LOCK", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        return;
    }
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(os_lock_test(fd, 0, UINT64_C(1) << 62, true, &taken), SHALE_OK);
    ck_assert_msg(!taken, "%s, allocation %u: a lock is still held", op->name, n);
    close(fd);
}

/* What the victim says and leaves when its n-th allocation is refused, or (how) all from there on. Returns
 * how many were. */
static unsigned act_without_memory(const struct operation *op, const char *dir, unsigned n, const char *how)
{
    char line[LINE_SIZE];
    act_line(op, dir, line);
    agent_must(&victim, "alloc-at %u %s", n, how);
    const char *answer = agent_ask(&victim, "%s", line);
    bool done = strncmp(answer, "ok", 2) == 0;
    ck_assert_msg(done || strncmp(answer, "SHALE_NOMEM", 11) == 0, "%s, allocation %u: %s", op->name, n,
                  answer);
    unsigned refused = (unsigned)atoi(agent_must(&victim, "alloc-off"));
    ck_assert_msg(done || refused != 0, "%s failed by itself: %s", op->name, victim.answer);
    no_lock_is_held(op, dir, n);
    if (!done && strcmp(op->act, "close") != 0) {
        answer = agent_ask(&victim, "%s", line);
        ck_assert_msg(strncmp(answer, "ok", 2) == 0, "%s, allocation %u, and now there is memory: %s",
                      op->name, n, answer);
    }
    return refused;
}

static bool one_alloc(const struct operation *op, unsigned n, const char *how)
{
    char *dir = scratch_name("alloc"), copy[PATH_MAX];
    prepare(op, dir);
    unsigned refused = act_without_memory(op, dir, n, how);
    check(op, dir, n, "no memory", true); /* beside the victim, which still has it open */
    if (strcmp(op->act, "close") != 0) {
        agent_must(&victim, "put after 2");
        agent_must(&victim, "close");
    }
    ck_assert_str_eq(agent_must(&victim, "open-files"), "0 0");
    agent_quit(&victim);
    snprintf(copy, sizeof copy, "%s-copy", dir);
    (void)scratch_remove(copy);
    remove_all(op, dir);
    free(dir);
    return refused == 0;
}

/* The short form leaves out three of four of those behind the first thirty. */
START_TEST(every_allocation_of)
{
    const struct operation *op = &operations[_i];
    if (has_mem_dir(op) && test_times(0, 1) == 0) {
        return;
    }
    unsigned n = 1;
    while (!one_alloc(op, n, "")) {
        n += n < 30 ? 1 : test_times(4, 1);
        ck_assert_uint_lt(n, 5000);
    }
    ck_assert_msg(n - 1 >= op->allocs, "%s allocates %u times", op->name, n - 1);
    printf("%-18s %4u allocations\n", op->name, n - 1);
    fflush(stdout);
    for (unsigned i = test_times(n, 1); i < n; i++) {
        (void)one_alloc(op, i, "always");
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("every_call");
    TCase *t = tcase_create("calls");
    tcase_set_timeout(t, test_times(300, 7200));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, h15_h23_h36_every_call_of, 0, (int)BASE_COUNT(operations));
    suite_add_tcase(s, t);
    t = tcase_create("allocations");
    tcase_set_timeout(t, test_times(300, 7200));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, every_allocation_of, 0, (int)BASE_COUNT(operations));
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
