/* test_commit.c - committing edits: killed at every step, with every system call failing, and under the eyes
 * of readers.
 *
 * The content of the databases here follows from one number, the generation: generation g has made
 * tables 1..g and keeps the last two, in L0. So whatever a process finds tells which commit it is from, and
 * that it is whole.
 *
 * The program runs itself as the processes it needs: test_commit --agent DIR COMMAND [N].
 */
#include "version_lib.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

static const char *self;

/* ---- databases by generation ---- */

static void next_edit(const struct version *v, struct version_edit *e)
{
    uint64_t n = v->next_table;
    *e = (struct version_edit){.has_oldest = true, .has_last_seq = true};
    e->oldest = (uint32_t)n;
    e->last_seq = n;
    if (n > 2) {
        must(version_edit_remove(e, 0, n - 2) == SHALE_OK);
    }
    add_table(e, 0, n, "a", "z");
}

/* Which generation v is; exits when it is none. */
static uint64_t generation_of(const struct version *v)
{
    uint64_t g = v->next_table - 1;
    const struct version_level *l = &v->level[0];
    bool right = l->count == (g < 2 ? g : 2) && v->last_seq == g && v->oldest == (g < 1 ? 1 : g);
    for (uint32_t i = 0; i < l->count; i++) {
        right = right && l->tables[i]->info.number == g - i;
    }
    if (!right || version_check(v) != SHALE_OK) {
        char *text = printed(v);
        (void)fprintf(stderr, "a version that nobody committed:\n%s", text);
        exit(90);
    }
    return g;
}

struct lib {
    struct place place;
    struct state_map map;
    struct version_log log;
};

static void lib_attach(struct lib *l, bool create)
{
    struct stat lock;
    int fd = -1;
    must(os_open(l->place.dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &fd) == SHALE_OK);
    must(os_stat(fd, &lock) == SHALE_OK);
    os_close(&fd);
    must(state_map(l->place.dirfd, true, create, 0600, &l->map) == SHALE_OK);
    if (create) {
        state_begin(&l->map, &lock, lib_uuid);
        struct version *v = empty_version();
        uint64_t length;
        must(manifest_create(l->place.dirfd, 1, v, 0600, &length) == SHALE_OK);
        state_store_tuple(l->map.state, 1, length, 1);
        state_ready(&l->map);
        version_unref(v);
    }
    must(state_check(&l->map, &lock) == SHALE_OK);
    l->log =
        (struct version_log){.dirfd = l->place.dirfd, .state = l->map.state, .mode = 0600, .roll_bytes = 600};
}

static void lib_make(struct lib *l)
{
    place_make(&l->place);
    lib_attach(l, true);
}

static void lib_remove(struct lib *l)
{
    state_unmap(&l->map);
    place_remove(&l->place);
}

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

/* Loads what the tuple names, at any time. *g: its generation; false: it was gone, and the epoch had moved.
 */
static bool read_published(const struct lib *l, uint64_t *g)
{
    struct state_view t, again;
    struct version *v;
    state_load_tuple(l->map.state, &t);
    int st = manifest_load(l->place.dirfd, t.manifest, t.length, &v);
    state_load_tuple(l->map.state, &again);
    if (st == SHALE_NOTFOUND && again.epoch != t.epoch) {
        return false;
    }
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "load: %d %s\n", st, shale_errmsg());
        exit(82);
    }
    *g = generation_of(v);
    if (v->oldest != t.oldest) {
        (void)fprintf(stderr, "a mixed tuple\n");
        exit(83);
    }
    version_unref(v);
    return true;
}

/* What a cold open finds. */
static uint64_t read_cold(const struct lib *l)
{
    uint64_t number = 0;
    struct version *v = NULL;
    int st = current_read(l->place.dirfd, &number);
    st = st == SHALE_OK ? manifest_load(l->place.dirfd, number, UINT64_MAX, &v) : st;
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "cold: %d %s\n", st, shale_errmsg());
        exit(84);
    }
    uint64_t g = generation_of(v);
    version_unref(v);
    return g;
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

static uint64_t generation_now(const struct lib *l)
{
    uint64_t g;
    ck_assert(read_published(l, &g));
    return g;
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
        state_load_tuple(l.map.state, &before);
        for (unsigned n = 1;; n++) {
            if (!killed(&l, "commit", n)) {
                most = most > n ? most : n;
                break;
            }
            kills++;
            ck_assert(!killed(&l, "check", read_cold(&l)));
        }
        state_load_tuple(l.map.state, &after);
        rolls += after.manifest != before.manifest;
    }
    ck_assert_uint_ge(kills, 60);
    ck_assert_uint_ge(most, 8);
    ck_assert_uint_ge(rolls, 2);
    lib_remove(&l);
}
END_TEST

/* The one who repairs is killed too: after each mark of a commit, at each mark of the next. */
START_TEST(h15_a_repair_killed_at_every_step_is_repaired)
{
    struct lib l;
    unsigned pairs = 0;
    lib_make(&l);
    for (int warm = 0; warm < 6; warm++) {
        ck_assert(!killed(&l, "commit", 0)); /* near the length that rolls */
    }
    for (unsigned n = 1; n <= 16; n++) {
        for (unsigned m = 1; m <= 16; m++) {
            bool first = killed(&l, "commit", n), second = killed(&l, "commit", m);
            pairs += first && second;
            ck_assert(!killed(&l, "check", read_cold(&l)));
        }
    }
    ck_assert_uint_ge(pairs, 60);
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
        pid_t writer = start(&l, "write", 0);
        os_nap((int64_t)(prng_next(&rng) % 12000000));
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

/* ---- system calls that do not succeed ---- */

static struct {
    long left; /* calls until the one that is to go wrong */
    int err;
    enum os_op only; /* OS_OP_COUNT: any */
    unsigned hits;
} fault;

static int inject(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_CLOSE || (fault.only != OS_OP_COUNT && op != fault.only) || fault.left <= 0) {
        return 0;
    }
    if (--fault.left > 0) {
        return 0;
    }
    fault.hits++;
    return fault.err;
}

/* begin and commit with the n-th call going wrong; checks what must hold whatever happens. Returns whether it
 * was hit. */
static bool try_commit(struct lib *l, long n, int err)
{
    struct version *v = NULL, *next = NULL;
    struct version_edit e = {0};
    uint64_t g = generation_now(l);
    bool unknown = false;
    struct state_view before, after;
    state_load_tuple(l->map.state, &before);
    fault.left = n;
    fault.err = err;
    fault.only = OS_OP_COUNT;
    fault.hits = 0;
    os_door_hook = inject;
    int st = version_begin(&l->log, NULL, &v);
    if (st == SHALE_OK) {
        next_edit(v, &e);
        st = version_commit(&l->log, v, &e, &next, &unknown);
        version_edit_release(&e);
    }
    os_door_hook = NULL;
    state_load_tuple(l->map.state, &after);
    if (st == SHALE_OK) {
        ck_assert_uint_eq(generation_of(next), generation_now(l));
        ck_assert_uint_ge(generation_now(l), g + 1);
    } else {
        ck_assert_ptr_null(next);
        ck_assert_str_ne(shale_errmsg(), "");
        ck_assert_int_ne(st, SHALE_NOTFOUND);
        uint64_t cold = read_cold(l), now = generation_now(l);
        ck_assert_uint_ge(now, g); /* begin may have published a dead or unknown one */
        ck_assert(unknown ? cold == now || cold == now + 1 : v == NULL || cold == now);
        ck_assert(!unknown || atomic_load(&l->map.state->bad_manifest) >= after.manifest);
    }
    version_unref(v);
    version_unref(next);
    return fault.hits != 0;
}

START_TEST(h23_h24_whatever_system_call_goes_wrong_the_next_commit_starts_from_a_whole_version)
{
    struct lib l;
    unsigned hits = 0;
    lib_make(&l);
    const int errors[] = {EIO, ENOSPC};
    for (int round = 0; round < 12; round++) { /* so that it happens in appends and in rolls */
        for (long n = 1; try_commit(&l, n, errors[round % 2]); n++) {
            hits++;
        }
        struct version *v;
        ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_OK);
        ck_assert_uint_eq(generation_of(v), generation_now(&l));
        ck_assert_uint_eq(read_cold(&l), generation_now(&l));
        version_unref(v);
    }
    ck_assert_uint_ge(hits, 150);
    lib_remove(&l);
}
END_TEST

/* One commit in which `op` goes wrong the first time. */
static int commit_with(struct lib *l, enum os_op op, int err, bool *unknown)
{
    struct version *v, *next = NULL;
    struct version_edit e;
    ck_assert_int_eq(version_begin(&l->log, NULL, &v), SHALE_OK);
    next_edit(v, &e);
    fault.left = 1;
    fault.err = err;
    fault.only = op;
    os_door_hook = inject;
    int st = version_commit(&l->log, v, &e, &next, unknown);
    os_door_hook = NULL;
    version_edit_release(&e);
    version_unref(v);
    version_unref(next);
    return st;
}

START_TEST(h24_a_manifest_whose_fdatasync_went_wrong_is_never_appended_to_again)
{
    struct lib l;
    struct state_view before, after;
    struct version *v;
    struct stat sb;
    bool unknown;
    lib_make(&l);
    ck_assert_int_eq(commit_with(&l, OS_OP_COUNT, 0, &unknown), SHALE_OK);
    state_load_tuple(l.map.state, &before);
    ck_assert_int_eq(commit_with(&l, OS_OP_FDATASYNC, EIO, &unknown), SHALE_IO);
    ck_assert(unknown);
    ck_assert_uint_eq(atomic_load(&l.map.state->bad_manifest), before.manifest);
    state_load_tuple(l.map.state, &after);
    ck_assert_uint_eq(after.epoch, before.epoch);
    ck_assert_uint_eq(generation_now(&l), 1);
    /* The next one, in another process, writes what was published elsewhere. */
    ck_assert(!killed(&l, "commit", 0));
    state_load_tuple(l.map.state, &after);
    ck_assert_uint_eq(after.manifest, before.manifest + 1);
    ck_assert_uint_eq(generation_now(&l), 2);
    ck_assert_uint_eq(read_cold(&l), 2);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, "MANIFEST-000001", &sb), SHALE_NOTFOUND);
    ck_assert_uint_eq(atomic_load(&l.map.state->bad_manifest), 0);
    /* The same version goes on with appends. */
    state_load_tuple(l.map.state, &before);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_OK);
    version_unref(v);
    ck_assert_int_eq(commit_with(&l, OS_OP_COUNT, 0, &unknown), SHALE_OK);
    state_load_tuple(l.map.state, &after);
    ck_assert_uint_eq(after.manifest, before.manifest);
    lib_remove(&l);
}
END_TEST

START_TEST(h23_without_space_nothing_is_published_and_the_file_is_as_before)
{
    struct lib l;
    struct state_view before, after;
    struct stat sb;
    bool unknown;
    lib_make(&l);
    state_load_tuple(l.map.state, &before);
    ck_assert_int_eq(commit_with(&l, OS_OP_WRITE, ENOSPC, &unknown), SHALE_NOSPC);
    ck_assert(!unknown);
    state_load_tuple(l.map.state, &after);
    ck_assert_uint_eq(before.epoch, after.epoch);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, "MANIFEST-000001", &sb), SHALE_OK);
    ck_assert_uint_eq((uint64_t)sb.st_size, before.length);
    /* A manifest that has grown long is rolled; no room for that: the edit is appended all the same. */
    do {
        ck_assert_int_eq(commit_with(&l, OS_OP_COUNT, 0, &unknown), SHALE_OK);
        state_load_tuple(l.map.state, &after);
    } while (after.manifest == before.manifest && after.length <= 600);
    uint64_t g = generation_now(&l);
    state_load_tuple(l.map.state, &before);
    ck_assert_int_eq(commit_with(&l, OS_OP_WRITE, ENOSPC, &unknown), SHALE_OK);
    state_load_tuple(l.map.state, &after);
    ck_assert_uint_eq(before.manifest, after.manifest);
    ck_assert_uint_eq(generation_now(&l), g + 1);
    lib_remove(&l);
}
END_TEST

/* ---- what begin finds ---- */

START_TEST(a_tail_of_any_length_is_cut_and_a_short_manifest_is_damage)
{
    struct lib l;
    struct version *v = NULL;
    struct stat sb;
    bool unknown;
    int fd;
    lib_make(&l);
    ck_assert_int_eq(commit_with(&l, OS_OP_COUNT, 0, &unknown), SHALE_OK);
    struct state_view t;
    state_load_tuple(l.map.state, &t);
    ck_assert_int_eq(os_open(l.place.dirfd, "MANIFEST-000001", O_RDWR, 0, &fd), SHALE_OK);
    for (unsigned tail = 1; tail < 40; tail++) {
        char noise[40];
        memset(noise, (int)tail, sizeof noise);
        ck_assert_int_eq(os_pwrite(fd, noise, tail, t.length), SHALE_OK);
        ck_assert_int_eq(version_begin(&l.log, v, &v), SHALE_OK);
        ck_assert_int_eq(os_stat(fd, &sb), SHALE_OK);
        ck_assert_uint_eq((uint64_t)sb.st_size, t.length);
        ck_assert_uint_eq(generation_of(v), 1);
        version_unref(v);
        v = NULL;
    }
    ck_assert_int_eq(os_truncate(fd, t.length - 1), SHALE_OK);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_CORRUPT);
    ck_errmsg_has("MANIFEST-000001");
    os_close(&fd);
    ck_assert_int_eq(os_unlink(l.place.dirfd, "MANIFEST-000001"), SHALE_OK);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_CORRUPT);
    ck_errmsg_has("missing");
    ck_assert_int_eq(os_unlink(l.place.dirfd, CURRENT_NAME), SHALE_OK);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_CORRUPT);
    ck_errmsg_has("CURRENT");
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

START_TEST(h28_a_database_with_read_only_features_is_not_written)
{
    struct lib l;
    struct version *v, *none = NULL;
    uint64_t length;
    lib_make(&l);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_OK);
    v->ro_compat = 16;
    ck_assert_int_eq(manifest_create(l.place.dirfd, 2, v, 0600, &length), SHALE_OK);
    state_store_tuple(l.map.state, 2, length, 1);
    ck_assert_int_eq(version_begin(&l.log, NULL, &none), SHALE_MISMATCH);
    ck_errmsg_has("0x10");
    ck_assert_ptr_null(none);
    version_unref(v);
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
    tcase_add_test(t, h23_h24_whatever_system_call_goes_wrong_the_next_commit_starts_from_a_whole_version);
    tcase_add_test(t, h24_a_manifest_whose_fdatasync_went_wrong_is_never_appended_to_again);
    tcase_add_test(t, h23_without_space_nothing_is_published_and_the_file_is_as_before);
    tcase_add_test(t, a_tail_of_any_length_is_cut_and_a_short_manifest_is_damage);
    tcase_add_test(t, a_version_that_is_known_is_advanced_and_keeps_its_tables);
    tcase_add_test(t, h28_a_database_with_read_only_features_is_not_written);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
