/* test_commit.c - committing edits: killed at every step, and under the eyes of readers.
 *
 * The program runs itself as the processes it needs: test_commit --agent DIR COMMAND [N].
 */
#include "version_db.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

static const char *self;

/* ---- agents ---- */

static unsigned marks_left;

static void count_mark(enum os_mark mark)
{
    if (mark == OS_MARK_MANIFEST && marks_left > 0 && --marks_left == 0) {
        (void)raise(SIGKILL);
    }
}

/* One commit. */
static int agent_commit(struct lib *l)
{
    struct version *v, *next;
    struct version_edit e;
    bool unknown;
    int st = version_begin(&l->log, NULL, &v);
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "begin: %s\n", shale_errmsg());
        return 80;
    }
    (void)generation_of(v);
    next_edit(v, &e);
    st = version_commit(&l->log, v, &e, &next, &unknown);
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "commit: %s\n", shale_errmsg());
        return 81;
    }
    version_edit_release(&e);
    version_unref(v);
    version_unref(next);
    return 0;
}

/* After a kill: what is published, what is on disk and what begin makes of it agree; and it goes on. The
 * victim may have committed generation g. */
static int agent_check(struct lib *l, uint64_t g)
{
    struct version *v;
    struct stat sb;
    char name[MANIFEST_NAME_SIZE];
    uint64_t published, cold = read_cold(l);
    if (!read_published(l, &published) || (published != g && published != g - 1) || cold < published ||
        cold > g) {
        return 85;
    }
    if (version_begin(&l->log, NULL, &v) != SHALE_OK) {
        (void)fprintf(stderr, "begin: %s\n", shale_errmsg());
        return 86;
    }
    uint64_t now = generation_of(v);
    if (now < published || now > cold || read_cold(l) != now || !read_published(l, &published) ||
        published != now) {
        return 87;
    }
    manifest_name(v->manifest, name);
    bool exact = os_stat_at(l->place.dirfd, name, &sb) == SHALE_OK && (uint64_t)sb.st_size == v->length;
    exact = exact && manifest_sweep(l->place.dirfd, v->manifest) == SHALE_OK && read_cold(l) == now;
    version_unref(v);
    return exact ? agent_commit(l) : 88;
}

static int agent_loop(struct lib *l, bool writer)
{
    for (uint64_t g, last = 0;;) {
        int st = writer ? agent_commit(l) : 0;
        if (st != 0 || getppid() == 1) {
            return st;
        }
        if (!writer && read_published(l, &g)) {
            if (g < last) {
                return 89;
            }
            last = g;
        }
    }
}

static int agent(char **argv)
{
    struct lib l;
    (void)snprintf(l.place.path, sizeof l.place.path, "%s", argv[0]);
    place_open(&l.place);
    lib_attach(&l, false);
    unsigned n = argv[2] != NULL ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    if (strcmp(argv[1], "commit") == 0) {
        marks_left = n;
        os_mark_hook = count_mark;
        return agent_commit(&l);
    }
    if (strcmp(argv[1], "check") == 0) {
        return agent_check(&l, n);
    }
    return agent_loop(&l, strcmp(argv[1], "write") == 0);
}

static pid_t start(const struct lib *l, const char *command, uint64_t n)
{
    char number[24];
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)n);
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl(self, self, "--agent", l->place.path, command, number, (char *)NULL);
        _exit(99);
    }
    ck_assert_int_gt(pid, 0);
    return pid;
}

static int ended(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

/* Runs it; true: it killed itself at mark n; false: it finished before. */
static bool killed(const struct lib *l, const char *command, uint64_t n)
{
    int status = ended(start(l, command, n));
    if (WIFSIGNALED(status)) {
        ck_assert_int_eq(WTERMSIG(status), SIGKILL);
        return true;
    }
    ck_assert_msg(WEXITSTATUS(status) == 0, "%s %llu: exit status %d", command, (unsigned long long)n,
                  WEXITSTATUS(status));
    return false;
}

/* ---- killed ---- */

/* Kills one commit at each mark; a fresh process checks each time. Commits of both kinds come up: about every
 * fifth rolls. */
START_TEST(h15_a_commit_killed_at_every_step_is_whole_or_not_there)
{
    struct lib l;
    unsigned kills = 0, most = 0, rolls = 0;
    lib_make(&l);
    for (int round = 0; round < 16; round++) {
        struct state_view before, after;
        for (unsigned n = 1;; n++) {
            state_load_tuple(l.map.state, &before);
            if (round % 3 == 2) { /* then begin rolls, and may be killed in that */
                atomic_store(&l.map.state->bad_manifest, before.manifest);
            }
            if (!killed(&l, "commit", n)) {
                most = most > n ? most : n;
                break;
            }
            kills++;
            ck_assert(!killed(&l, "check", read_cold(&l)));
            state_load_tuple(l.map.state, &after);
            rolls += after.manifest != before.manifest;
        }
    }
    ck_assert_uint_ge(kills, 60);
    ck_assert_uint_ge(most, 8);
    ck_assert_uint_ge(rolls, 2);
    lib_remove(&l);
}
END_TEST

/* The one who repairs is killed too: after each mark of a commit, at every other mark of the next. */
START_TEST(h15_a_repair_killed_at_every_step_is_repaired)
{
    struct lib l;
    unsigned pairs = 0;
    lib_make(&l);
    for (int warm = 0; warm < 6; warm++) {
        ck_assert(!killed(&l, "commit", 0)); /* near the length that rolls */
    }
    for (unsigned n = 1; n <= 16; n++) {
        for (unsigned m = 1 + n % 2; m <= 16; m += 2) {
            bool first = killed(&l, "commit", n), second = killed(&l, "commit", m);
            pairs += first && second;
            ck_assert(!killed(&l, "check", read_cold(&l)));
        }
    }
    ck_assert_uint_ge(pairs, 30);
    lib_remove(&l);
}
END_TEST

START_TEST(h16_readers_load_whole_versions_while_writers_are_killed)
{
    struct lib l;
    uint64_t rng = 5;
    lib_make(&l);
    pid_t readers[2] = {start(&l, "read", 0), start(&l, "read", 0)};
    for (int i = 0; i < 40; i++) {
        uint64_t before = atomic_load(&l.map.state->epoch);
        pid_t writer = start(&l, "write", 0);
        while (atomic_load(&l.map.state->epoch) == before) { /* until it runs */
            os_nap(200000);
        }
        os_nap((int64_t)(prng_next(&rng) % 6000000));
        (void)kill(writer, SIGKILL);
        ck_assert(WIFSIGNALED(ended(writer)));
    }
    for (int i = 0; i < 2; i++) {
        int status;
        ck_assert_int_eq(waitpid(readers[i], &status, WNOHANG), 0); /* found nothing wrong so far */
        (void)kill(readers[i], SIGKILL);
        (void)ended(readers[i]);
    }
    ck_assert_uint_gt(generation_now(&l), 0);
    ck_assert(!killed(&l, "check", read_cold(&l)));
    lib_remove(&l);
}
END_TEST

START_TEST(a_version_that_is_known_is_advanced_and_keeps_its_tables)
{
    struct lib l;
    struct version *known = NULL, *v, *older;
    lib_make(&l);
    ck_assert_int_eq(version_begin(&l.log, NULL, &known), SHALE_OK);
    for (int i = 0; i < 30; i++) { /* past a roll or two */
        ck_assert(!killed(&l, "commit", 0));
        older = known;
        ck_assert_int_eq(version_begin(&l.log, older, &v), SHALE_OK);
        ck_assert_uint_eq(generation_of(v), (uint64_t)i + 1);
        if (i > 0) {
            ck_assert_ptr_eq(v->level[0].tables[1], older->level[0].tables[0]);
        }
        ck_assert_int_eq(version_begin(&l.log, v, &known), SHALE_OK);
        ck_assert_ptr_eq(known, v);
        version_unref(v);
        version_unref(older);
    }
    ck_assert_uint_gt(known->manifest, 1);
    version_unref(known);
    lib_remove(&l);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "--agent") == 0) {
        return agent(argv + 2);
    }
    self = "/proc/self/exe";
    Suite *s = suite_create("commit");
    TCase *t = tcase_create("commit");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, h15_a_commit_killed_at_every_step_is_whole_or_not_there);
    tcase_add_test(t, h15_a_repair_killed_at_every_step_is_repaired);
    tcase_add_test(t, h16_readers_load_whole_versions_while_writers_are_killed);
    tcase_add_test(t, a_version_that_is_known_is_advanced_and_keeps_its_tables);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
