/* test_kill_points.c - every place in the source where a process may be made to stop (os_mark: each is a
 * point of its own), and at each of them, for the first passes, the process is killed, or stands still.
 *
 * Each scenario is run once to see which points it passes. Then for each of these, and n small, the same
 * again, and at the n-th pass the victim dies; or it parks there, is stopped by a signal, and later goes on.
 * Meanwhile another process, which was there before, reads whole groups and writes. A dead victim delays
 * nobody; a stopped one only those who want the lock that it holds, and they are told so when their time is
 * over. Then a fresh process opens the database, checks every group in every way of reading, and now and then
 * verifies every byte.
 *
 * The last test demands that every point of the library was reached.
 */
#include "lib/lib.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { VICTIM, OTHER, HELPER, FRESH, AGENTS };
enum { GROUPS = 6, OTHERS_GROUP = 3 };
enum how { HOW_COUNT, HOW_KILL, HOW_STOP };

struct tally {
    _Atomic uint64_t reached[BOARD_POINTS], killed[BOARD_POINTS], stopped[BOARD_POINTS];
};
static struct tally *tally;
static size_t points;

static char *dir;
static struct board *board;
static struct agent victim, other, helper;
static bool hit; /* the victim is dead, or stands still */
static enum how how;

/* ---- what the victim does ---- */

/* One command (what is written outside of the groups are deletes: their readers know every key); false: it
 * was hit, there is no answer. Any answer will do: what was acknowledged is on the board. */
static bool say(const char *fmt, ...) BASE_PRINTF(1, 2);
static bool say(const char *fmt, ...)
{
    char line[PATH_MAX + 64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (hit) {
        return false;
    }
    if (!agent_try_tell(&victim, "%s",
                        line)) { /* a point of its maintenance thread's, after the last answer */
        ck_assert_int_eq(how, HOW_KILL);
        agent_reap(&victim);
        hit = true;
        return false;
    }
    if (how == HOW_STOP && agent_parked(&victim, 50000)) {
        agent_stop(&victim);
        hit = true;
        return false;
    }
    hit = agent_last_words(&victim) == NULL;
    if (hit) {
        agent_reap(&victim);
    } else {
        ck_assert_msg(strncmp(victim.answer, "WRONG", 5) != 0, "%s: %s", line, victim.answer);
    }
    return !hit;
}

static void write_and_work(const char *options)
{
    if (say("open %s %s", dir, options)) {
        (void)say("write-groups 0 3 flush=9 compact=17 ops=40");
        (void)say("close");
    }
}

static void act_writes(void)
{
    write_and_work("");
}

static void act_durable(void)
{
    write_and_work("durable=commit");
}

/* More than groups hold: only the number of entries is looked at. */
static void act_fills(void)
{
    if (say("open %s durable=commit memtable_bytes=262144", dir)) {
        (void)say("fill v 0 1200 200");
        (void)say("fill v 1200 200 5001");
        (void)say("compact");
        (void)say("close");
    }
}

/* Retired segments are used again where they were synced and nobody else maps them. */
static void act_recycles(void)
{
    if (say("open %s durable=commit", dir)) {
        (void)say("write-groups 0 3 flush=3 ops=18");
        (void)say("close");
    }
}

/* A manifest whose fdatasync failed is followed by a new one. */
static void act_rolls(void)
{
    if (say("open %s", dir)) {
        (void)say("del victim");
        (void)say("errno-at FDATASYNC 1 %d", EIO);
        (void)say("flush"); /* the manifest's */
        (void)say("errno-off");
        (void)say("del victim");
        (void)say("flush");
        (void)say("close");
    }
}

/* What a dead one left in the manifest, or behind a new one. */
static void act_makes_right(void)
{
    if (!say("open %s", dir)) {
        return;
    }
    for (unsigned n = 3; n <= 9 && !hit; n++) {
        agent_start(&helper, HELPER);
        agent_must(&helper, "open %s", dir);
        agent_must(&helper, "del helper");
        if (n > 3) {
            agent_must(&helper, "errno-at FDATASYNC 1 %d", EIO);
            (void)agent_ask(&helper, "flush");
            agent_must(&helper, "errno-off");
        }
        agent_must(&helper, "die-at MANIFEST %u", n);
        agent_tell(&helper, "flush");
        if (agent_last_words(&helper) == NULL) {
            agent_reap(&helper);
        } else {
            agent_kill(&helper);
        }
        if (say("del victim")) {
            (void)say("flush");
        }
    }
    (void)say("close");
}

static void act_owes(void)
{
    if (say("open %s durable=interval sync_interval_ms=1", dir)) {
        (void)say("del victim");
        (void)say("del victim");
        (void)say("close");
    }
}

static void act_opens(void)
{
    if (say("open %s", dir)) {
        (void)say("write-groups 0 3 ops=2");
        (void)say("close");
    }
}

/* Indices in a directory of their own; the one of a life that ended by a kill is found and removed. */
static void act_moves_indices(void)
{
    agent_start(&helper, HELPER);
    agent_must(&helper, "open %s mem_dir=%s", dir, scratch_root());
    agent_kill(&helper);
    if (say("open %s mem_dir=%s", dir, scratch_root())) {
        (void)say("write-groups 0 3 ops=2");
        (void)say("close");
    }
}

/* What a dead one left half done, early and late in its commit. */
static void act_repairs(void)
{
    static const char *const where[] = {"APPEND 1", "PUBLISH 1"};
    if (!say("open %s", dir)) {
        return;
    }
    for (size_t i = 0; i < BASE_COUNT(where); i++) {
        agent_start(&helper, HELPER);
        agent_must(&helper, "open %s", dir);
        agent_must(&helper, "die-at %s", where[i]);
        agent_tell(&helper, "del helper");
        agent_reap(&helper);
        if (!say("del victim")) {
            return;
        }
    }
    (void)say("close");
}

static void act_meets_errors(void)
{
    if (say("open %s", dir)) {
        (void)say("errno-at WRITE 1 %d", EIO);
        (void)say("del victim sync");
        (void)say("errno-at FDATASYNC 1 %d", EIO);
        (void)say("del victim sync");
        (void)say("flush");
        (void)say("del victim sync");
        (void)say("close");
    }
}

/* The write lock is held for so long that who waits draws a ticket and says so. */
static void act_waits(void)
{
    agent_start(&helper, HELPER);
    agent_must(&helper, "open %s", dir);
    if (say("open %s", dir)) {
        agent_must(&helper, "txn begin");
        (void)say("timeout 60");
        (void)say("del victim");
        agent_must(&helper, "txn abort");
        (void)say("del victim");
        agent_tell(&helper, "write-groups 4 1 ops=400");
        (void)say("timeout -1");
        (void)say("write-groups 0 3 ops=200");
        if (how != HOW_STOP || !hit) {
            agent_done(&helper);
        }
        (void)say("close");
    }
    agent_kill(&helper);
}

/* Who commits all the time keeps the write lock in between, and gives it up when it does nothing. On a slow
 * machine a few hundred commits are perhaps no stream: then more. */
static void act_keeps(void)
{
    if (say("open %s threads=1 memtable_bytes=4194304", dir)) {
        for (unsigned i = 0; i < 20 && say("write-groups 0 3 ops=600"); i++) {
        }
        (void)say("close");
    }
}

static const struct scenario {
    const char *name;
    void (*act)(void);
    bool alone;  /* nobody else has it open */
    bool create; /* there is no database yet */
    bool cold;   /* STATE is gone */
    bool counts; /* entries, not groups */
} scenarios[] = {
    {"writes", act_writes, false, false, false, false},
    {"durable writes", act_durable, false, false, false, false},
    {"recycles", act_recycles, true, false, false, false},
    {"rolls the manifest", act_rolls, false, false, false, false},
    {"makes right", act_makes_right, false, false, false, false},
    {"fills", act_fills, true, true, false, true},
    {"owes a sync", act_owes, false, false, false, false},
    {"repairs", act_repairs, false, false, false, false},
    {"meets errors", act_meets_errors, false, false, false, false},
    {"waits", act_waits, false, false, false, false},
    {"keeps the lock", act_keeps, false, false, false, false},
    {"opens, warm", act_opens, true, false, false, false},
    {"opens, cold", act_opens, true, false, true, false},
    {"moves the indices", act_moves_indices, true, false, false, false},
    {"creates", act_opens, true, true, false, false},
};

/* ---- the others ---- */

static bool held(const char *file, uint64_t first, uint64_t bytes)
{
    char path[PATH_MAX];
    bool taken = false;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        ck_assert_int_eq(os_lock_test(fd, first, bytes, true, &taken), SHALE_OK);
        close(fd);
    }
    return taken;
}

/* Beside a dead one everything goes on; beside one that stands still everything that does not need its lock.
 */
static void other_goes_on(const char *where)
{
    const char *text = agent_ask(&other, "check-groups %d", GROUPS);
    ck_assert_msg(strncmp(text, "ok", 2) == 0, "%s: a reader says %s", where, text);
    bool stopped = how == HOW_STOP;
    bool excused = stopped && held("LOCK", 1, 2);
    agent_must(&other, "timeout %d", excused ? 100 : 20000);
    text = agent_ask(&other, "del other%s", stopped ? "" : " sync");
    ck_assert_msg(excused ? strncmp(text, "SHALE_BUSY", 10) == 0 || strncmp(text, "SHALE_PANIC", 11) == 0
                          : strncmp(text, "ok", 2) == 0 || strncmp(text, "SHALE_PANIC", 11) == 0,
                  "%s: a writer says %s", where, text);
    agent_must(&other, "timeout -1");
}

static void check_afresh(const char *where, const struct scenario *s)
{
    static unsigned round;
    struct agent fresh = {0};
    agent_start(&fresh, FRESH);
    const char *text = agent_ask(&fresh, "open %s", dir);
    ck_assert_msg(strncmp(text, "ok", 2) == 0, "%s: then an open says %s", where, text);
    if (s->counts) {
        uint64_t done = atomic_load(&board->agent[VICTIM].ops);
        uint64_t got = (uint64_t)atoi(agent_must(&fresh, "scan"));
        ck_assert_msg(got >= done && got <= done + 1, "%s: %llu of %llu entries are there", where,
                      (unsigned long long)got, (unsigned long long)done);
    } else {
        text = agent_ask(&fresh, "check-groups %d", GROUPS);
        ck_assert_msg(strncmp(text, "ok", 2) == 0, "%s: then a fresh reader says %s", where, text);
        agent_must(&fresh, "write-groups 0 3 ops=1 sync");
    }
    if (round++ % 8 == 0) {
        agent_must(&fresh, "verify");
    }
    agent_quit(&fresh);
}

/* ---- one run ---- */

static void prepare(const struct scenario *s)
{
    if (s->create) {
        ck_assert_int_eq(scratch_remove(dir), 0);
        for (unsigned i = 0; i < GROUPS; i++) {
            board->group[i] = (struct board_group){0};
        }
    } else if (s->cold) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/STATE", dir);
        ck_assert_int_eq(unlink(path), 0);
    }
    atomic_store(&board->agent[VICTIM].ops, 0);
    agent_start(&victim, VICTIM);
    hit = false;
}

static void let_go_on(void)
{
    agent_signal(&victim, SIGCONT);
    agent_unpark(&victim);
    (void)agent_last_words(&victim);
}

/* point < 0: nobody is hit. */
static void run(const struct scenario *s, int64_t point, unsigned n)
{
    char where[256] = "";
    prepare(s);
    if (point >= 0) {
        const struct os_point *p = os_points(&points)[point];
        snprintf(where, sizeof where, "%s, %s at %s:%u (%s), pass %u", s->name,
                 how == HOW_KILL ? "killed" : "stopped", p->file, p->line, p->function, n);
        agent_must(&victim, "point-at %lld %u %s", (long long)point, n, how == HOW_KILL ? "die" : "park");
    }
    s->act();
    if (hit) {
        atomic_fetch_add(how == HOW_KILL ? &tally->killed[point] : &tally->stopped[point], 1);
        if (!s->alone) {
            other_goes_on(where);
        }
    }
    if (hit && how == HOW_STOP) {
        let_go_on();
    }
    if (!hit || how == HOW_STOP) {
        agent_kill(&victim);
    }
    if (hit) {
        check_afresh(where, s);
    }
}

START_TEST(others_go_on_wherever_one_stands)
{
    const struct scenario *s = &scenarios[_i];
    uint64_t passes[BOARD_POINTS];
    unsigned kills = 0, stops = 0;
    if (!s->alone) {
        agent_start(&other, OTHER);
        agent_must(&other, "open %s", dir);
        agent_must(&other, "write-groups %d 1 ops=3", OTHERS_GROUP);
    }
    how = HOW_COUNT;
    memset(board->agent[VICTIM].points, 0, sizeof board->agent[VICTIM].points);
    run(s, -1, 0);
    check_afresh(s->name, s);
    for (size_t i = 0; i < points; i++) {
        passes[i] = atomic_load(&board->agent[VICTIM].points[i]);
        atomic_fetch_add(&tally->reached[i], passes[i]);
    }
    for (size_t i = 0; i < points; i++) {
        for (unsigned n = 1; n <= passes[i] && n <= test_times(1, 5); n++) {
            /* the short form goes only where no scenario has been before; but recovery dies everywhere */
            bool again = test_times(0, 1) != 0;
            if (again || s->cold || (s->create && !s->counts) || atomic_load(&tally->killed[i]) == 0) {
                how = HOW_KILL;
                run(s, (int64_t)i, n);
                kills++;
            }
            if (again || atomic_load(&tally->stopped[i]) == 0) {
                how = HOW_STOP;
                run(s, (int64_t)i, n);
                stops++;
            }
        }
    }
    if (!s->alone) {
        agent_quit(&other);
    }
    printf("%-20s %4u killed, %4u stopped\n", s->name, kills, stops);
    fflush(stdout);
}
END_TEST

/* As one whose own thread met its point after the last answer. */
START_TEST(who_is_dead_already_is_told_nothing)
{
    siginfo_t info;
    agent_start(&victim, VICTIM);
    agent_must(&victim, "open %s", dir);
    agent_signal(&victim, SIGKILL);
    ck_assert_int_eq(waitid(P_PID, (id_t)victim.pid, &info, WEXITED | WNOWAIT), 0);
    how = HOW_KILL;
    hit = false;
    ck_assert(!say("del victim"));
    ck_assert(hit);
    ck_assert_int_eq(victim.pid, 0);
}
END_TEST

START_TEST(every_point_was_reached)
{
    unsigned missing = 0;
    const struct os_point *const *all = os_points(&points);
    for (size_t i = 0; i < points; i++) {
        if (atomic_load(&tally->killed[i]) == 0 || atomic_load(&tally->stopped[i]) == 0) {
            printf("%s:%u (%s): %llu passes, %llu kills, %llu stops\n", all[i]->file, all[i]->line,
                   all[i]->function, (unsigned long long)atomic_load(&tally->reached[i]),
                   (unsigned long long)atomic_load(&tally->killed[i]),
                   (unsigned long long)atomic_load(&tally->stopped[i]));
            missing++;
        }
    }
    printf("%zu points\n", points);
    fflush(stdout);
    ck_assert_msg(missing == 0, "%u of %zu points were not reached", missing, points);
}
END_TEST

/* ---- the suite ---- */

static void make_dir(void)
{
    struct agent first = {0};
    dir = scratch_name("points");
    board = proc_board();
    agent_start(&first, FRESH);
    agent_must(&first, "open %s", dir);
    agent_must(&first, "write-groups 0 %d ops=30 flush=10", GROUPS);
    agent_quit(&first);
}

static void setup(void)
{
    (void)os_points(&points);
    ck_assert_uint_le(points, BOARD_POINTS);
    make_dir();
}

static void teardown(void)
{
    board_close(board);
    free(dir);
}

static Suite *suite(void)
{
    Suite *s = suite_create("kill_points");
    TCase *t = tcase_create("points");
    tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED) {
        abort();
    }
    tcase_set_timeout(t, test_times(300, 7200));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, others_go_on_wherever_one_stands, 0, (int)BASE_COUNT(scenarios));
    tcase_add_test(t, who_is_dead_already_is_told_nothing);
    tcase_add_test(t, every_point_was_reached);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
