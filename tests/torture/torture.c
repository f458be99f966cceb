#include "torture.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define TICK_NS 5000000

static struct config {
    double seconds;
    uint64_t seed;
    unsigned procs;
    const char *disk;
} config = {.seconds = 5, .procs = 8};

/* ---- a phase ---- */

static unsigned some_ms(struct torture *t, unsigned percent, unsigned least)
{
    return torture_chance(t, percent) ? least << torture_dice(t, 7) : 0;
}

static void cast(struct torture *t)
{
    unsigned next = 0;
    t->count =
        torture_chance(t, 60) ? 3 + (unsigned)torture_dice(t, 8) : 3 + (unsigned)torture_dice(t, t->procs);
    t->count = t->count > t->procs ? t->procs : t->count;
    for (unsigned i = 0; i < t->count; i++) {
        struct victim *v = &t->victim[i];
        *v = (struct victim){.hands =
                                 torture_chance(t, 50) ? 1 : 1 + (unsigned)torture_dice(t, STAGE_THREADS)};
        v->readonly = i > 0 && torture_chance(t, 25);
        v->first = STAGE_RINGS;
        if (!v->readonly && next + v->hands <= STAGE_RINGS && torture_chance(t, 85)) {
            v->first = next;
            next += v->hands;
        }
    }
}

/* Everybody who lives gets on once more. */
static void settle(struct torture *t)
{
    bool all = false;
    ballast_drop(t);
    victims_continue(t, true);
    for (unsigned i = 0; i < t->count; i++) {
        t->victim[i].settled = atomic_load(&t->board->agent[i].ops);
    }
    while (!all) {
        all = true;
        torture_watch(t); /* ends it when somebody stands still */
        for (unsigned i = 0; i < t->count; i++) {
            all = all && (!t->victim[i].live || atomic_load(&t->board->agent[i].ops) > t->victim[i].settled);
        }
        os_nap(TICK_NS);
    }
}

static void see_off(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    struct pollfd p = {.fd = v->agent.from, .events = POLLIN};
    int64_t end = os_now() + INT64_C(100000000000);
    while (poll(&p, 1, 1000) != 1 || (p.revents & (POLLIN | POLLHUP)) == 0) {
        if (os_now() > end) {
            torture_broken(t, (int)i, "actor %u does not end when asked to", i);
        }
    }
    if ((p.revents & POLLIN) == 0) { /* gone without a word */
        int status = 0;
        waitpid(v->agent.pid, &status, 0);
        if (!v->mortal || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            torture_broken(t, -1, "actor %u ended with status %#x", i, (unsigned)status);
        }
        t->own_kills++;
        victim_died(t, i);
        return;
    }
    const char *text = agent_wait(&v->agent, 10000);
    if (text == NULL || strncmp(text, "ok", 2) != 0) {
        torture_broken(t, -1, "actor %u (%s), asked to end: %s", i, v->how, text != NULL ? text : "?");
    }
    kill(v->agent.pid, SIGCONT);
    close(v->agent.to); /* that is the end of its input */
    v->agent.to = -1;
    int status = 0;
    waitpid(v->agent.pid, &status, 0);
    if (status != 0 && !v->mortal) {
        torture_broken(t, -1, "actor %u ended with status %#x", i, (unsigned)status);
    }
    victim_died(t, i);
}

static void all_leave(struct torture *t)
{
    torture_log(t, "all leave");
    atomic_store(&t->board->stop, 1);
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live) {
            see_off(t, i);
        }
    }
    atomic_store(&t->board->stop, 0);
}

/* ---- one who was not there ---- */

static void take_over_counts(struct torture *t, uint64_t flushes, uint64_t compactions)
{
    if (flushes < t->stage->flushes || compactions < t->stage->compactions) { /* STATE began anew */
        t->flushes += t->stage->flushes;
        t->compactions += t->stage->compactions;
        atomic_store(&t->stage->flushes, flushes);
        atomic_store(&t->stage->compactions, compactions);
    }
}

static void check(struct torture *t, const char *command, const char *more)
{
    struct agent fresh = {0};
    unsigned long long flushes = 0, compactions = 0, bytes = 0;
    agent_start(&fresh, STAGE_CHECKER);
    const char *text = agent_ask(&fresh, "%s %s %s %s", command, t->stage_path, t->dir, more);
    if (sscanf(text, "ok %llu %llu %llu", &flushes, &compactions, &bytes) != 3) {
        torture_broken(t, -1, "%s: %s", command, text);
    }
    agent_quit(&fresh);
    t->checks++;
    torture_log(t, "%s: %s", command, text);
    if (more[0] == '\0') {
        take_over_counts(t, flushes, compactions);
    }
}

static void remove_copies(struct torture *t)
{
    char path[PATH_MAX];
    for (unsigned c = 0; c < STAGE_COPIES; c++) {
        struct stage_copy *copy = &t->stage->copy[c];
        if (atomic_load(&copy->word) != COPY_FREE) {
            stage_copy_path(t->dir, copy, path);
            (void)scratch_remove(path);
            atomic_store(&copy->word, COPY_FREE);
        }
    }
}

static void begin_anew(struct torture *t)
{
    int rc = shale_destroy(t->dir);
    if (rc != SHALE_OK) {
        torture_broken(t, -1, "shale_destroy: %s: %s", shale_errname(rc), shale_errmsg());
    }
    torture_log(t, "a new database");
    remove_copies(t);
    memset(t->board->group, 0, sizeof t->board->group);
    memset(t->board->counter, 0, sizeof t->board->counter);
    memset(t->stage->ring, 0, sizeof t->stage->ring);
    memset(t->stage->solo, 0, sizeof t->stage->solo);
    t->databases++;
    t->renew = false;
}

/* Nobody is there, but perhaps some who only read. */
static void inspect(struct torture *t, bool nobody)
{
    char path[PATH_MAX];
    if (nobody && t->phases % 6 == 5) {
        snprintf(path, sizeof path, "%s-repaired", t->dir);
        check(t, "repair-all", path);
        (void)scratch_remove(path);
        t->repairs++;
    }
    check(t, "check-all", "");
}

/* Its pace, and how long it is to be. */
static int64_t plan(struct torture *t)
{
    int64_t left = t->end - os_now(), most = (t->end - t->start) / 4;
    int64_t length = (int64_t)(2000 + torture_dice(t, 18000)) * 1000000;
    length = length > left ? left : length;
    length = length > most ? most : length;
    cast(t);
    t->kill_ms = some_ms(t, 80, 20);
    t->stop_ms = some_ms(t, 60, 20);
    t->at_once_ms = some_ms(t, 30, 200);
    t->full_ms = some_ms(t, 35, 200);
    t->full = torture_chance(t, 30);
    t->breaks = torture_chance(t, 15);
    torture_log(
        t,
        "phase %u: %u processes, %.1f s, kills %u ms, stops %u ms, all at once %u ms, full disks %u ms%s%s",
        t->phases, t->count, (double)length / 1e9, t->kill_ms, t->stop_ms, t->at_once_ms, t->full_ms,
        t->full ? ", some see a full disk" : "", t->breaks ? ", syncs fail" : "");
    return length;
}

static void end_phase(struct torture *t)
{
    bool killed = torture_chance(t, 60), writers_only = killed && torture_chance(t, 30);
    if (killed) {
        victims_kill(t, writers_only);
    } else {
        all_leave(t);
    }
    inspect(t, !writers_only);
    if (writers_only) {
        settle(t);
        victims_kill(t, false);
    }
    t->phases++;
    if (t->renew || torture_chance(t, 8)) {
        begin_anew(t);
    }
}

static void phase(struct torture *t)
{
    int64_t length = plan(t), now = os_now(), before = now, end = now + length;
    for (unsigned i = 0; i < t->count; i++) {
        victim_start(t, i);
    }
    for (; (now = os_now()) < end; before = now) {
        torture_watch(t);
        torment(t, now - before < 100000000 ? (now - before) / 1000000 : TICK_NS / 1000000);
        os_nap(TICK_NS);
    }
    settle(t);
    end_phase(t);
}

START_TEST(nothing_is_ever_broken)
{
    static struct torture torture;
    struct torture *t = &torture;
    t->board = proc_board();
    t->stage_path = scratch_name("stage");
    t->stage = stage_map(t->stage_path, true);
    ck_assert_ptr_nonnull(t->stage);
    if (config.disk != NULL) {
        ck_assert_int_gt(asprintf(&t->dir, "%s/db", config.disk), 0);
        ck_assert_int_eq(mkdir(t->dir, 0755), 0);
    } else {
        t->dir = scratch_dir("db");
    }
    ck_assert_int_gt(asprintf(&t->log_path, "%s/torture.log", scratch_root()), 0);
    t->log = fopen(t->log_path, "we");
    ck_assert_ptr_nonnull(t->log);
    t->seed = t->dice = config.seed;
    t->procs = config.procs;
    t->disk = config.disk;
    t->databases = 1;
    t->start = t->said = t->looked = os_now();
    t->end = t->start + (int64_t)(config.seconds * 1e9);
    while (os_now() < t->end) {
        phase(t);
    }
    torture_summary(t);
    ck_assert_uint_gt(t->stage->count[STAGE_commits], 0);
    ck_assert_uint_gt(t->stage->count[STAGE_reads], 0);
    fclose(t->log);
    stage_unmap(t->stage);
    board_close(t->board);
    free(t->dir);
    free(t->stage_path);
    free(t->log_path);
}
END_TEST

/* ---- main ---- */

/* Check tells the parent of a test that it forked how many microseconds it took, in 32 bits. */
#define FORKED_MOST_S 3600

static Suite *suite(void)
{
    Suite *s = suite_create("torture");
    TCase *c = tcase_create("torture");
    tcase_set_timeout(c, config.seconds * 2 + 900);
    tcase_add_test(c, nothing_is_ever_broken);
    suite_add_tcase(s, c);
    return s;
}

static int usage(void)
{
    fprintf(stderr, "usage: torture [--minutes M] [--seconds S] [--seed S] [--procs N] [--disk DIR]\n");
    return 64;
}

static bool read_arguments(int argc, char **argv)
{
    static const struct option longs[] = {
        {"minutes", required_argument, NULL, 'm'}, {"seconds", required_argument, NULL, 's'},
        {"seed", required_argument, NULL, 'e'},    {"procs", required_argument, NULL, 'p'},
        {"disk", required_argument, NULL, 'd'},    {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'm': config.seconds = atof(optarg) * 60; break;
        case 's': config.seconds = atof(optarg); break;
        case 'e': config.seed = strtoull(optarg, NULL, 0); break;
        case 'p': config.procs = (unsigned)atoi(optarg); break;
        case 'd': config.disk = optarg; break;
        default: return false;
        }
    }
    return optind == argc && config.procs >= 3 && config.procs <= STAGE_ACTORS;
}

static void tell_how_it_broke(char **argv)
{
    char command[PATH_MAX + 64];
    fprintf(stderr, "BROKEN. seed %llu; the log is %s/torture.log, its end:\n",
            (unsigned long long)config.seed, scratch_root());
    snprintf(command, sizeof command, "tail -n 60 %s/torture.log >&2", scratch_root());
    (void)!system(command);
    fprintf(stderr, "again: %s --seconds %.0f --seed %llu --procs %u\n", argv[0], config.seconds,
            (unsigned long long)config.seed, config.procs);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], AGENT_ARGUMENT) == 0) {
        agent_own = stage_commands;
        return agent_main(argc, argv);
    }
    config.seed = test_seed((uint64_t)time(NULL));
    if (!read_arguments(argc, argv)) {
        return usage();
    }
    signal(SIGPIPE, SIG_IGN);
    if (scratch_root_make(argv[0]) != 0) {
        return 99;
    }
    printf("torture: seed %llu, %.0f s, in %s\n", (unsigned long long)config.seed, config.seconds,
           scratch_root());
    fflush(stdout);
    SRunner *runner = srunner_create(suite());
    if (config.seconds > FORKED_MOST_S) {
        srunner_set_fork_status(runner, CK_NOFORK);
    }
    srunner_run_all(runner, CK_ENV);
    int bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    if (bad != 0) {
        tell_how_it_broke(argv);
        setenv("SHALE_TEST_KEEP", "1", 1);
    }
    scratch_root_remove();
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
