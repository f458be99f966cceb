/* test_commit_errors.c - committing edits where system calls do not succeed, and where the files are not as
 * they were left. */
#include "version_db.h"

#include <stdlib.h>

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
    tcase_add_test(t, h28_a_database_with_read_only_features_is_not_written);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
