/* test_commit_errors.c - committing edits where system calls do not succeed, and where the files are not as
 * they were left. */
#include "version_db.h"

#include <stdlib.h>
#include <sys/wait.h>

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
    /* The next one writes what was published elsewhere. */
    ck_assert_int_eq(commit_with(&l, OS_OP_COUNT, 0, &unknown), SHALE_OK);
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

static int die_at_sync(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_FDATASYNC) {
        _exit(7);
    }
    return 0;
}

/* The file has the right length then, and may have the tail again after a power loss. */
START_TEST(h37_killed_between_the_cut_of_a_tail_and_its_sync)
{
    struct lib l;
    struct version *v;
    struct state_view t;
    int fd = -1, status;
    lib_make(&l);
    state_load_tuple(l.map.state, &t);
    ck_assert_int_eq(os_open(l.place.dirfd, "MANIFEST-000001", O_RDWR, 0600, &fd), SHALE_OK);
    ck_assert_int_eq(os_pwrite(fd, "a tail", 6, t.length), SHALE_OK);
    os_close(&fd);
    pid_t pid = fork();
    if (pid == 0) {
        os_door_hook = die_at_sync;
        _exit(version_begin(&l.log, NULL, &v) == SHALE_OK);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_OK);
    state_load_tuple(l.map.state, &t);
    ck_assert_uint_eq(t.manifest, 2); /* a new one, that was synced before it was named */
    ck_assert_uint_eq(v->manifest, 2);
    ck_assert_uint_eq(atomic_load(&l.map.state->bad_manifest), 0);
    version_unref(v);
    lib_remove(&l);
}
END_TEST

START_TEST(h24_a_second_try_from_the_same_version_does_not_append_either)
{
    struct lib l;
    struct version *v, *next = NULL;
    struct version_edit e;
    struct state_view t;
    bool unknown;
    lib_make(&l);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_OK);
    next_edit(v, &e);
    fault.left = 1;
    fault.err = EIO;
    fault.only = OS_OP_FDATASYNC;
    os_door_hook = inject;
    ck_assert_int_eq(version_commit(&l.log, v, &e, &next, &unknown), SHALE_IO);
    os_door_hook = NULL;
    ck_assert(unknown);
    ck_assert_int_eq(version_commit(&l.log, v, &e, &next, &unknown), SHALE_OK);
    ck_assert(!unknown);
    state_load_tuple(l.map.state, &t);
    ck_assert_uint_eq(t.manifest, 2);
    ck_assert_uint_eq(generation_now(&l), 1);
    version_unref(next);
    next = NULL;
    /* and v is not current any more */
    ck_assert_int_eq(version_commit(&l.log, v, &e, &next, &unknown), SHALE_INVALID);
    ck_assert_ptr_null(next);
    version_edit_release(&e);
    version_unref(v);
    lib_remove(&l);
}
END_TEST

START_TEST(a_tuple_that_contradicts_its_manifest_is_damage)
{
    struct lib l;
    struct version *v = NULL;
    struct state_view t;
    lib_make(&l);
    state_load_tuple(l.map.state, &t);
    state_store_tuple(l.map.state, t.manifest, t.length, t.oldest + 1);
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_CORRUPT);
    ck_errmsg_has("oldest memtable");
    state_store_tuple(l.map.state, t.manifest + 1, t.length, t.oldest); /* CURRENT names an older one */
    ck_assert_int_eq(version_begin(&l.log, NULL, &v), SHALE_CORRUPT);
    ck_errmsg_has("CURRENT");
    ck_assert_ptr_null(v);
    lib_remove(&l);
}
END_TEST

/* ---- in which order ---- */

/* What passed the door: a letter a call that changes something, E where the epoch had moved meanwhile. */
static struct {
    const struct state *state;
    uint64_t epoch;
    char text[64];
    size_t length;
} trace;

static void trace_put(char c)
{
    uint64_t epoch = atomic_load(&trace.state->epoch);
    if (epoch != trace.epoch && trace.length < sizeof trace.text - 2) {
        trace.text[trace.length++] = 'E';
    }
    trace.epoch = epoch;
    if (c != 0 && trace.length < sizeof trace.text - 1) {
        trace.text[trace.length++] = c;
    }
}

static int trace_call(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    static const char letter[OS_OP_COUNT] = {
        [OS_OP_WRITE] = 'w',   [OS_OP_TRUNCATE] = 't', [OS_OP_FDATASYNC] = 'd', [OS_OP_FSYNC] = 'f',
        [OS_OP_SYNCDIR] = 's', [OS_OP_RENAME] = 'r',   [OS_OP_UNLINK] = 'u'};
    (void)fd, (void)name, (void)offset, (void)length;
    trace_put(letter[op]);
    return 0;
}

static void trace_start(const struct lib *l)
{
    memset(&trace, 0, sizeof trace);
    trace.state = l->map.state;
    trace.epoch = atomic_load(&l->map.state->epoch);
    os_door_hook = trace_call;
}

static const char *trace_end(void)
{
    trace_put(0);
    os_door_hook = NULL;
    return trace.text;
}

static struct version *traced_begin(struct lib *l, const char *calls)
{
    struct version *v = NULL;
    trace_start(l);
    int st = version_begin(&l->log, NULL, &v);
    ck_assert_str_eq(trace_end(), calls);
    ck_assert_int_eq(st, SHALE_OK);
    return v;
}

static void traced_commit(struct lib *l, struct version *v, const char *calls)
{
    struct version *next = NULL;
    struct version_edit e;
    bool unknown;
    next_edit(v, &e);
    trace_start(l);
    int st = version_commit(&l->log, v, &e, &next, &unknown);
    ck_assert_str_eq(trace_end(), calls);
    ck_assert_int_eq(st, SHALE_OK);
    version_edit_release(&e);
    version_unref(next);
    version_unref(v);
}

START_TEST(h37_everything_is_synced_before_it_is_published_and_published_before_anything_goes)
{
    struct lib l;
    uint64_t length;
    int fd;
    lib_make(&l);
    traced_commit(&l, traced_begin(&l, ""), "wdE");
    /* a dead process's tail: cut, and the cut synced */
    ck_assert_int_eq(os_open(l.place.dirfd, "MANIFEST-000001", O_RDWR, 0, &fd), SHALE_OK);
    ck_assert_int_eq(os_pwrite(fd, "tail", 4, 100000), SHALE_OK);
    os_close(&fd);
    struct version *v = traced_begin(&l, "td");
    /* a dead process's roll: file and name synced, published, the old one removed */
    ck_assert_int_eq(manifest_create(l.place.dirfd, 2, v, 0600, &length), SHALE_OK);
    version_unref(v);
    v = traced_begin(&l, "fsEu");
    /* a bad one: (a leftover goes,) the new file, its name, CURRENT, its name; published; the old one removed
     */
    version_unref(v);
    atomic_store(&l.map.state->bad_manifest, 2);
    v = traced_begin(&l, "uwfswfrsEu");
    /* the same where it has grown long */
    l.log.roll_bytes = 1;
    while (v->length <= 2 * v->base_length) {
        traced_commit(&l, v, "wdE");
        v = traced_begin(&l, "");
    }
    traced_commit(&l, v, "uwfswfrsEu");
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

int main(void)
{
    Suite *s = suite_create("commit errors");
    TCase *t = tcase_create("commit");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, h23_h24_whatever_system_call_goes_wrong_the_next_commit_starts_from_a_whole_version);
    tcase_add_test(t, h24_a_manifest_whose_fdatasync_went_wrong_is_never_appended_to_again);
    tcase_add_test(t, h23_without_space_nothing_is_published_and_the_file_is_as_before);
    tcase_add_test(t, a_tail_of_any_length_is_cut_and_a_short_manifest_is_damage);
    tcase_add_test(t, h37_everything_is_synced_before_it_is_published_and_published_before_anything_goes);
    tcase_add_test(t, h37_killed_between_the_cut_of_a_tail_and_its_sync);
    tcase_add_test(t, h24_a_second_try_from_the_same_version_does_not_append_either);
    tcase_add_test(t, a_tuple_that_contradicts_its_manifest_is_damage);
    tcase_add_test(t, h28_a_database_with_read_only_features_is_not_written);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
