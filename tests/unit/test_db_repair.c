/* test_db_repair.c - salvaging: everything of a sound directory, and of a damaged one everything but what was
 * damaged; the damaged one stays as it is. */
#include "db_copy.h"
#include "version/manifest.h"

static char *dir, *into;
static shale_db *was; /* an undamaged copy, open, to compare with */

/* What repair told. */
static char told[16384];
static unsigned losses;

static void take_line(void *ctx, int level, const char *line)
{
    (void)ctx;
    losses += level == 1;
    size_t n = strlen(told);
    snprintf(told + n, sizeof told - n, "%s\n", line);
}

static int repair(const char *from, const char *to, shale_progress progress, void *ctx)
{
    shale_options o = small_options();
    o.log = take_line;
    told[0] = '\0';
    losses = 0;
    return shale_repair(from, to, &o, progress, ctx);
}

static void setup(void)
{
    char *sound = scratch_name("repair-sound");
    dir = scratch_dir("repair");
    into = scratch_name("repair-into");
    shale_db *db = open_small(dir);
    copy_fill(db);
    assert_ok(shale_close(db));
    ck_assert_int_eq(scratch_copy(dir, sound), 0);
    was = open_small(sound);
    free(sound);
}

static void teardown(void)
{
    assert_ok(shale_close(was));
    free(into);
    free(dir);
}

static shale_db *open_repaired(void)
{
    shale_options o = small_options();
    o.create = false;
    shale_db *db = open_with(into, &o);
    assert_ok(shale_verify(db, NULL, NULL));
    return db;
}

static void check_whole(void)
{
    shale_db *db = open_repaired();
    copy_same(was, NULL, db);
    ck_assert_uint_eq(STAT(db, seq), STAT(was, seq));
    put(db, "goes on", "1");
    copy_write(db, 5, 0, 1500);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    expect(db, NULL, "goes on", "1");
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
}

static void lose_manifests(void)
{
    char **names = scratch_names(dir, "");
    for (char **p = names; *p != NULL; p++) {
        if (strncmp(*p, "MANIFEST-", 9) == 0) {
            copy_lose(dir, *p);
        }
    }
    scratch_names_free(names);
}

/* Name n of those with the suffix, from the front or (-1) the back. */
static const char *name_of(const char *suffix, int n)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(dir, suffix);
    int count = (int)copy_count(dir, suffix);
    ck_assert_int_gt(count, 0);
    snprintf(name, sizeof name, "%s", names[n < 0 ? count + n : n]);
    scratch_names_free(names);
    return name;
}

/* The segment that holds what was written last: one that was made ready stands behind it. */
static const char *last_log(void)
{
    const char *name = NULL;
    for (int n = -1; n >= -(int)copy_count(dir, ".wal"); n--) {
        unsigned char *data = NULL;
        size_t size = 0;
        name = name_of(".wal", n);
        ck_assert_int_eq(scratch_read(dir, name, &data, &size), 0);
        bool here = memmem(data, size, "key000950round 3", 16) != NULL;
        free(data);
        if (here) {
            return name;
        }
    }
    ck_abort_msg("no segment holds what was written last");
}

START_TEST(sound_directory_is_salvaged_whole_and_left_alone)
{
    uint64_t before = copy_fingerprint(dir);
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses == 0, "%s", told);
    ck_assert_uint_eq(copy_fingerprint(dir), before);
    check_whole();
}
END_TEST

START_TEST(without_options_and_into_an_empty_directory)
{
    ck_assert_int_eq(mkdir(into, 0700), 0);
    assert_ok(shale_repair(dir, into, NULL, NULL, NULL));
    check_whole();
}
END_TEST

START_TEST(lost_shared_memory_does_not_matter)
{
    copy_lose(dir, "STATE");
    copy_lose(dir, "LOCK");
    copy_lose(dir, "LIVE");
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_uint_eq(losses, 0);
    check_whole();
}
END_TEST

START_TEST(current_lost_or_garbled)
{
    if (_i == 0) {
        copy_lose(dir, "CURRENT");
    } else {
        ck_assert_int_eq(scratch_noise(dir, "CURRENT", 0, 30, 7), 0);
    }
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_uint_eq(losses, 1);
    ck_assert_ptr_nonnull(strstr(told, "CURRENT"));
    check_whole();
}
END_TEST

START_TEST(manifest_lost_or_noise)
{
    if (_i == 0) {
        lose_manifests();
    } else if (_i == 1) {
        lose_manifests();
        copy_lose(dir, "CURRENT");
    } else {
        char **names = scratch_names(dir, "");
        for (char **p = names; *p != NULL; p++) {
            if (strncmp(*p, "MANIFEST-", 9) == 0) {
                ck_assert_int_eq(scratch_noise(dir, *p, 0, 200, 7), 0);
            }
        }
        scratch_names_free(names);
    }
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_uint_ge(losses, 1);
    check_whole();
}
END_TEST

/* The keys that are not there, or not with the value that they had. */
static unsigned count_missing(shale_db *db)
{
    shale_iter *it = NULL;
    unsigned missing = 0;
    size_t kn, vn;
    assert_ok(shale_iter_create(was, NULL, NULL, &it));
    for (int rc = shale_iter_first(it); rc == SHALE_OK; rc = shale_iter_next(it)) {
        const void *k = shale_iter_key(it, &kn), *v = shale_iter_value(it, &vn);
        shale_value got = {0};
        rc = shale_get(db, NULL, k, kn, &got);
        ck_assert_msg(rc == SHALE_OK || rc == SHALE_NOTFOUND, "%s", shale_errmsg());
        missing += rc != SHALE_OK || got.size != vn || memcmp(got.data, v, vn) != 0;
        shale_value_release(&got);
    }
    shale_iter_destroy(it);
    return missing;
}

START_TEST(h38_damaged_block_costs_its_own_entries)
{
    const char *name = name_of(".sst", 0);
    ck_assert_int_eq(scratch_flip_bit(dir, name, (uint64_t)5000 * 8), 0);
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses == 1 && strstr(told, name) != NULL && strstr(told, "block at") != NULL, "%s", told);
    shale_db *db = open_repaired();
    unsigned missing = count_missing(db);
    ck_assert_uint_gt(missing, 0);
    ck_assert_uint_lt(missing, 20); /* a block of 1 KiB */
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h38_every_block_of_a_table_damaged_one_by_one)
{
    const char *name = name_of(".sst", -1);
    unsigned char *data = NULL;
    size_t size = 0, step = test_times(2311, 97);
    ck_assert_int_eq(scratch_read(dir, name, &data, &size), 0);
    for (size_t at = 7; at < size; at += step) {
        char *target = scratch_name("repair-each");
        ck_assert_int_eq(scratch_flip_bit(dir, name, at * 8 + 3), 0);
        assert_ok(repair(dir, target, NULL, NULL));
        shale_db *db = open_small(target);
        ck_assert_msg(losses != 0 || count_missing(db) == 0, "byte %zu: not told", at);
        assert_ok(shale_verify(db, NULL, NULL));
        assert_ok(shale_close(db));
        ck_assert_int_eq(scratch_remove(target), 0);
        ck_assert_int_eq(scratch_flip_bit(dir, name, at * 8 + 3), 0);
        free(target);
    }
    free(data);
}
END_TEST

START_TEST(unreadable_or_missing_table_costs_itself)
{
    char name[NAME_MAX + 1], path[PATH_MAX];
    snprintf(name, sizeof name, "%s", name_of(".sst", 0));
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (_i == 0) {
        copy_lose(dir, name);
    } else {
        ck_assert_int_eq(truncate(path, 3000), 0);
    }
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses == 1 && strstr(told, name) != NULL, "%s", told);
    shale_db *db = open_repaired();
    unsigned missing = count_missing(db);
    ck_assert_uint_gt(missing, 0);
    ck_assert_uint_lt(missing, 1400);
    expect(db, NULL, "empty", ""); /* the log is not concerned */
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(log_is_read_on_behind_a_damaged_record)
{
    const char *name = last_log();
    unsigned char *data = NULL, *at;
    size_t size = 0;
    ck_assert_int_eq(scratch_read(dir, name, &data, &size), 0);
    at = memmem(data, size, "key000950round 3", 16);
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(scratch_flip_bit(dir, name, (uint64_t)(at - data) * 8), 0);
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses == 1 && strstr(told, name) != NULL, "%s", told);
    shale_db *db = open_repaired();
    ck_assert_uint_eq(count_missing(db), 1); /* what round 2 wrote is there instead */
    expect(db, NULL, "empty", "");
    ck_assert_uint_eq(STAT(db, seq), STAT(was, seq));
    assert_ok(shale_close(db));
    free(data);
}
END_TEST

START_TEST(segment_lost_or_its_header_garbled)
{
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%s", last_log());
    if (_i == 0) {
        copy_lose(dir, name);
    } else {
        ck_assert_int_eq(scratch_noise(dir, name, 8, 40, 7), 0);
    }
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses >= 1 && strstr(told, name) != NULL, "%s", told);
    shale_db *db = open_repaired();
    expect(db, NULL, "empty", NULL);
    ck_assert_uint_ge(count_entries(db, NULL), 1000);
    assert_ok(shale_close(db));
}
END_TEST

/* A table that was replaced and whose file is still there, as a killed process leaves it. */
START_TEST(table_that_no_version_names_is_not_resurrected)
{
    char name[NAME_MAX + 1];
    unsigned char *data = NULL;
    size_t size = 0;
    shale_db *db = open_small(dir);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    snprintf(name, sizeof name, "%s", name_of(".sst", 0));
    ck_assert_int_eq(scratch_read(dir, name, &data, &size), 0);
    for (unsigned i = 0; i < 1500; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%06u", i);
        del(db, key);
    }
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_close(db));
    ck_assert_int_eq(scratch_write(dir, name, data, size), 0);
    assert_ok(repair(dir, into, NULL, NULL));
    ck_assert_msg(losses == 0, "%s", told);
    db = open_repaired();
    ck_assert_uint_eq(count_entries(db, NULL), 2);
    assert_ok(shale_close(db));
    free(data);
}
END_TEST

/* Without a manifest nobody knows which table is newer: sequence numbers decide, entry by entry. */
START_TEST(newest_entry_wins_without_a_manifest)
{
    uint64_t seed = 42;
    shale_db *db = open_small(dir), *same;
    for (unsigned round = 10; round < 40; round++) {
        unsigned from = (unsigned)(prng_next(&seed) % 1400);
        copy_write(db, round, from, from + 100);
        copy_write(was, round, from, from + 100);
        if (round % 3 == 0) {
            assert_ok(shale_flush(db));
        }
        if (round % 8 == 0) {
            assert_ok(shale_compact_range(db, "key000300", 9, "key000700", 9, NULL, NULL));
        }
    }
    assert_ok(shale_close(db));
    lose_manifests();
    assert_ok(repair(dir, into, NULL, NULL));
    same = open_repaired();
    copy_same(was, NULL, same);
    assert_ok(shale_close(same));
}
END_TEST

START_TEST(repair_refuses_what_it_cannot_do)
{
    char *empty = scratch_dir("repair-empty"), *missing = scratch_name("repair-missing");
    assert_status(repair(NULL, into, NULL, NULL), SHALE_INVALID);
    assert_status(repair(dir, NULL, NULL, NULL), SHALE_INVALID);
    assert_status(repair("", into, NULL, NULL), SHALE_INVALID);
    assert_status(repair(missing, into, NULL, NULL), SHALE_NODB);
    assert_status(repair(empty, into, NULL, NULL), SHALE_NODB);
    struct stat st;
    ck_assert_int_ne(stat(into, &st), 0); /* nothing was made */
    ck_assert_uint_eq(copy_count(empty, ""), 0);
    assert_status(repair(dir, dir, NULL, NULL), SHALE_EXISTS);
    shale_db *db = open_small(dir);
    assert_status(repair(dir, into, NULL, NULL), SHALE_BUSY);
    assert_told("open");
    assert_ok(shale_close(db));
    assert_ok(repair(dir, into, NULL, NULL));
    uint64_t before = copy_fingerprint(into);
    assert_status(repair(dir, into, NULL, NULL), SHALE_EXISTS);
    ck_assert_uint_eq(copy_fingerprint(into), before);
    free(missing);
    free(empty);
}
END_TEST

START_TEST(h28_database_of_a_newer_format_is_left_to_its_library)
{
    char **names = scratch_names(dir, "");
    for (char **p = names; *p != NULL; p++) {
        unsigned char *data = NULL;
        size_t size = 0;
        if (strncmp(*p, "MANIFEST-", 9) == 0) {
            struct manifest_header h;
            ck_assert_int_eq(scratch_read(dir, *p, &data, &size), 0);
            memcpy(&h, data, sizeof h);
            h.incompat = UINT64_C(1) << 63;
            h.checksum = checksum(&h, offsetof(struct manifest_header, checksum), manifest_seed(h.number, 0));
            memcpy(data, &h, sizeof h);
            ck_assert_int_eq(scratch_write(dir, *p, data, size), 0);
            free(data);
        }
    }
    scratch_names_free(names);
    assert_status(repair(dir, into, NULL, NULL), SHALE_MISMATCH);
}
END_TEST

struct progress {
    uint64_t last, total;
    int calls, cancel_at;
};

static int watch(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;
    ck_assert_uint_ge(done, p->last);
    ck_assert_uint_le(done, total);
    p->last = done;
    p->total = total;
    return ++p->calls == p->cancel_at;
}

START_TEST(progress_is_told_and_cancels)
{
    struct progress p = {0};
    assert_ok(repair(dir, into, watch, &p));
    ck_assert_uint_eq(p.last, p.total);
    int calls = p.calls;
    ck_assert_int_gt(calls, 2);
    for (int at = 1; at <= calls; at++) {
        char *target = scratch_name("repair-cancelled");
        p = (struct progress){.cancel_at = at};
        assert_status(repair(dir, target, watch, &p), SHALE_CANCELLED);
        ck_assert_uint_eq(copy_count(target, ""), 0);
        free(target);
    }
}
END_TEST

/* ---- faults ---- */

static uint64_t door_calls, door_at;

static int at_door(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    bool reads = op == OS_OP_READ || op == OS_OP_ADVISE || op == OS_OP_MAP; /* damage: other tests' affair */
    if (reads || op == OS_OP_CLOSE || op == OS_OP_UNLOCK || op == OS_OP_UNMAP || ++door_calls != door_at) {
        return 0;
    }
    return door_at % 2 == 0 ? ENOSPC : EMFILE;
}

START_TEST(h23_whatever_call_goes_wrong_nothing_half_made_stays)
{
    unsigned refused = 0;
    bool done = false;
    uint64_t before = copy_fingerprint(dir);
    for (door_at = 1; !done; door_at++) {
        char *target = scratch_name("repair-fault");
        struct stat st;
        door_calls = 0;
        os_door_hook = at_door;
        int rc = repair(dir, target, NULL, NULL);
        os_door_hook = NULL;
        if (rc == SHALE_OK) {
            shale_db *db = open_small(target);
            ck_assert_msg(losses != 0 || count_missing(db) == 0, "call %llu: entries are lost, and not told",
                          (unsigned long long)door_at);
            assert_ok(shale_close(db));
            done = door_calls < door_at;
        } else {
            refused++;
            ck_assert_msg(stat(target, &st) != 0 || copy_count(target, "") == 0,
                          "call %llu: something stayed: %s", (unsigned long long)door_at, shale_errmsg());
        }
        ck_assert_int_eq(scratch_remove(target), 0);
        free(target);
    }
    ck_assert_uint_gt(refused, 20);
    ck_assert_uint_eq(copy_fingerprint(dir), before);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_repair");
    TCase *t = tcase_create("repair");
    tcase_set_timeout(t, test_times(60, 600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, sound_directory_is_salvaged_whole_and_left_alone);
    tcase_add_test(t, without_options_and_into_an_empty_directory);
    tcase_add_test(t, lost_shared_memory_does_not_matter);
    tcase_add_loop_test(t, current_lost_or_garbled, 0, 2);
    tcase_add_loop_test(t, manifest_lost_or_noise, 0, 3);
    tcase_add_test(t, h38_damaged_block_costs_its_own_entries);
    tcase_add_test(t, h38_every_block_of_a_table_damaged_one_by_one);
    tcase_add_loop_test(t, unreadable_or_missing_table_costs_itself, 0, 2);
    tcase_add_test(t, log_is_read_on_behind_a_damaged_record);
    tcase_add_loop_test(t, segment_lost_or_its_header_garbled, 0, 2);
    tcase_add_test(t, table_that_no_version_names_is_not_resurrected);
    tcase_add_test(t, newest_entry_wins_without_a_manifest);
    tcase_add_test(t, repair_refuses_what_it_cannot_do);
    tcase_add_test(t, h28_database_of_a_newer_format_is_left_to_its_library);
    tcase_add_test(t, progress_is_told_and_cancels);
    tcase_add_test(t, h23_whatever_call_goes_wrong_nothing_half_made_stays);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
