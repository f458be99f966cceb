/* test_db_checkpoint.c - consistent copies by hard links: complete, independent, made while others write,
 * and never half of one. */
#include "db_copy.h"

#include <sys/wait.h>

static char *dir, *copy;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("checkpoint");
    copy = scratch_name("checkpoint-copy");
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(copy);
    free(dir);
}

START_TEST(checkpoint_opens_with_everything_that_was_visible)
{
    copy_fill(db);
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    shale_options o = small_options();
    o.readonly = true;
    shale_db *c = open_with(copy, &o); /* replays privately */
    copy_same(db, NULL, c);
    ck_assert_uint_eq(STAT(c, seq), STAT(db, seq));
    assert_ok(shale_close(c));
    o.readonly = false;
    o.create = false;
    c = open_with(copy, &o);
    copy_same(db, NULL, c);
    assert_ok(shale_verify(c, NULL, NULL));
    assert_ok(shale_close(c));
}
END_TEST

START_TEST(checkpoint_and_database_go_their_own_ways)
{
    copy_fill(db);
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    size_t n = count_entries(db, NULL);
    shale_db *c = open_small(copy);
    copy_write(c, 9, 0, 1500);
    assert_ok(shale_compact_range(c, NULL, 0, NULL, 0, NULL, NULL));
    expect(db, NULL, "key000001",
           "round 1 of 1, and so on: "
           "000000000000000000000000000000000000000000000000000000000000000000000000000"
           "0000000000000000000007919");
    ck_assert_uint_eq(count_entries(db, NULL), n);
    put(db, "only here", "1");
    expect(c, NULL, "only here", NULL);
    n = count_entries(c, NULL);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_close(db));
    assert_ok(shale_destroy(dir)); /* takes its names, not the copy's */
    ck_assert_uint_eq(count_entries(c, NULL), n);
    assert_ok(shale_verify(c, NULL, NULL));
    assert_ok(shale_close(c));
    c = open_small(copy);
    ck_assert_uint_eq(count_entries(c, NULL), n);
    assert_ok(shale_close(c));
    db = open_small(dir);
}
END_TEST

START_TEST(tables_are_linked_and_the_log_is_copied)
{
    copy_fill(db);
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        char **names = scratch_names(copy, i == 0 ? ".sst" : ".wal");
        ck_assert_ptr_nonnull(names[0]);
        for (char **p = names; *p != NULL; p++) {
            char path[PATH_MAX];
            struct stat a, b;
            snprintf(path, sizeof path, "%s/%s", copy, *p);
            ck_assert_int_eq(stat(path, &a), 0);
            snprintf(path, sizeof path, "%s/%s", dir, *p);
            ck_assert_int_eq(stat(path, &b), 0);
            ck_assert_int_eq(a.st_ino == b.st_ino, i == 0);
        }
        scratch_names_free(names);
    }
    ck_assert_uint_eq(copy_count(copy, ".mem"), 0);
    ck_assert_uint_eq(copy_count(copy, "STATE"), 0);
}
END_TEST

/* As on another file system: no link can be made. */
static int no_links(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    return op == OS_OP_LINK ? EXDEV : 0;
}

START_TEST(tables_are_copied_where_no_link_leads)
{
    copy_fill(db);
    os_door_hook = no_links;
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    os_door_hook = NULL;
    char **names = scratch_names(copy, ".sst");
    ck_assert_ptr_nonnull(names[0]);
    for (char **p = names; *p != NULL; p++) {
        unsigned char *a = NULL, *b = NULL;
        size_t an = 0, bn = 0;
        ck_assert_int_eq(scratch_read(dir, *p, &a, &an), 0);
        ck_assert_int_eq(scratch_read(copy, *p, &b, &bn), 0);
        ck_assert(an == bn && memcmp(a, b, an) == 0);
        free(a);
        free(b);
    }
    scratch_names_free(names);
    assert_ok(shale_close(db));
    assert_ok(shale_destroy(dir));
    shale_db *c = open_small(copy);
    assert_ok(shale_verify(c, NULL, NULL));
    assert_ok(shale_close(c));
    db = open_small(dir);
}
END_TEST

START_TEST(empty_database_has_a_checkpoint_too)
{
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    shale_db *c = open_small(copy);
    ck_assert_uint_eq(count_entries(c, NULL), 0);
    put(c, "a", "1");
    assert_ok(shale_close(c));
}
END_TEST

START_TEST(checkpoint_of_a_checkpoint)
{
    char *third = scratch_name("checkpoint-third");
    copy_fill(db);
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    shale_db *c = open_small(copy);
    put(c, "more", "1");
    assert_ok(shale_checkpoint(c, third, NULL, NULL));
    shale_db *d = open_small(third);
    copy_same(c, NULL, d);
    assert_ok(shale_close(d));
    assert_ok(shale_close(c));
    free(third);
}
END_TEST

START_TEST(target_must_be_new_or_empty)
{
    char *empty = scratch_dir("checkpoint-empty"), *missing = scratch_name("checkpoint-missing");
    char path[PATH_MAX];
    put(db, "a", "1");
    assert_ok(shale_checkpoint(db, empty, NULL, NULL));
    uint64_t before = copy_fingerprint(empty);
    assert_status(shale_checkpoint(db, empty, NULL, NULL), SHALE_EXISTS);
    assert_told(empty);
    ck_assert_uint_eq(copy_fingerprint(empty), before);
    assert_status(shale_checkpoint(db, dir, NULL, NULL), SHALE_EXISTS);
    expect(db, NULL, "a", "1");
    snprintf(path, sizeof path, "%s/CURRENT", empty);
    assert_status(shale_checkpoint(db, path, NULL, NULL), SHALE_INVALID);
    snprintf(path, sizeof path, "%s/below", missing);
    ck_assert_int_ne(shale_checkpoint(db, path, NULL, NULL), SHALE_OK);
    assert_status(shale_checkpoint(db, NULL, NULL, NULL), SHALE_INVALID);
    assert_status(shale_checkpoint(db, "", NULL, NULL), SHALE_INVALID);
    assert_status(shale_checkpoint(NULL, missing, NULL, NULL), SHALE_INVALID);
    free(missing);
    free(empty);
}
END_TEST

START_TEST(readonly_handle_makes_no_checkpoint)
{
    shale_options o = small_options();
    o.readonly = true;
    shale_db *r = open_with(dir, &o);
    assert_status(shale_checkpoint(r, copy, NULL, NULL), SHALE_READONLY);
    struct stat st;
    ck_assert_int_ne(stat(copy, &st), 0);
    assert_ok(shale_close(r));
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
    struct stat st;
    copy_fill(db);
    os_door_hook = _i == 0 ? NULL : no_links;
    assert_ok(shale_checkpoint(db, copy, watch, &p));
    ck_assert_uint_eq(p.last, p.total);
    int calls = p.calls;
    ck_assert_int_gt(calls, 1);
    for (int at = 1; at <= calls; at++) {
        char *target = scratch_name("checkpoint-cancelled");
        p = (struct progress){.cancel_at = at};
        assert_status(shale_checkpoint(db, target, watch, &p), SHALE_CANCELLED);
        ck_assert_int_ne(stat(target, &st), 0); /* nothing is left, and it can be tried again */
        assert_ok(shale_checkpoint(db, target, NULL, NULL));
        free(target);
    }
    os_door_hook = NULL;
}
END_TEST

START_TEST(h38_damaged_log_gives_no_checkpoint)
{
    put(db, "a", "1");
    put(db, "marker", "find me");
    char **names = scratch_names(dir, ".wal");
    unsigned char *data = NULL, *at;
    size_t size = 0;
    ck_assert_int_eq(scratch_read(dir, names[0], &data, &size), 0);
    at = memmem(data, size, "find me", 7);
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(scratch_flip_bit(dir, names[0], (uint64_t)(at - data) * 8), 0);
    assert_status(shale_checkpoint(db, copy, NULL, NULL), SHALE_CORRUPT);
    ck_assert_uint_eq(copy_count(copy, ""), 0);
    ck_assert_int_eq(scratch_flip_bit(dir, names[0], (uint64_t)(at - data) * 8), 0);
    assert_ok(shale_checkpoint(db, copy, NULL, NULL));
    free(data);
    scratch_names_free(names);
}
END_TEST

/* ---- faults ---- */

static uint64_t door_calls, door_at;
static int door_errno;

static int at_door(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_CLOSE || op == OS_OP_UNLOCK || op == OS_OP_UNMAP || ++door_calls != door_at) {
        return 0;
    }
    if (door_errno == 0) {
        kill(getpid(), SIGKILL);
    }
    return door_errno;
}

START_TEST(h23_whatever_call_goes_wrong_nothing_half_made_stays)
{
    unsigned done = 0, refused = 0;
    copy_fill(db);
    for (door_at = 1; done == 0; door_at++) {
        char *target = scratch_name("checkpoint-fault");
        door_calls = 0;
        door_errno = door_at % 2 == 0 ? ENOSPC : EIO;
        os_door_hook = at_door;
        int rc = shale_checkpoint(db, target, NULL, NULL);
        os_door_hook = NULL;
        struct stat st;
        if (rc == SHALE_OK) {
            shale_db *c = open_small(target);
            copy_same(db, NULL, c);
            assert_ok(shale_close(c));
            done = door_calls < door_at; /* no call was left to go wrong */
        } else {
            refused++;
            ck_assert_msg(stat(target, &st) != 0 || copy_count(target, "") == 0,
                          "call %llu: something stayed: %s", (unsigned long long)door_at, shale_errmsg());
        }
        free(target);
    }
    ck_assert_uint_gt(refused, 10);
    assert_ok(shale_verify(db, NULL, NULL));
}
END_TEST

/* Another process opens the database and is killed at its n-th system call of the checkpoint. */
static bool killed_at(uint64_t n, const char *target)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        shale_options o = small_options();
        shale_db *d = NULL;
        int rc = shale_open(dir, &o, &d);
        door_calls = 0;
        door_at = n;
        door_errno = 0;
        os_door_hook = at_door;
        rc = rc == SHALE_OK ? shale_checkpoint(d, target, NULL, NULL) : rc;
        _exit(rc == SHALE_OK ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status)) {
        ck_assert_int_eq(WTERMSIG(status), SIGKILL);
        return true;
    }
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    return false;
}

START_TEST(h15_killed_checkpoint_is_none_or_whole)
{
    unsigned none = 0, whole = 0;
    bool killed = true;
    copy_fill(db);
    for (uint64_t n = 1; killed; n++) {
        char *target = scratch_name("checkpoint-killed");
        shale_options o = small_options();
        shale_db *c = NULL;
        killed = killed_at(n, target);
        o.create = false;
        int rc = shale_open(target, &o, &c);
        if (rc == SHALE_OK) {
            whole++;
            copy_same(db, NULL, c);
            assert_ok(shale_close(c));
        } else {
            none++;
            ck_assert_msg(rc == SHALE_CORRUPT || rc == SHALE_NODB, "%s", shale_errmsg());
        }
        put(db, "goes on", "1"); /* the dead one's locks are free */
        free(target);
    }
    ck_assert_uint_gt(none, 5);
    ck_assert_uint_gt(whole, 1);
}
END_TEST

/* ---- while others write ---- */

enum { WRITERS = 2, GROUPS = 4 };

START_TEST(checkpoints_under_writers_hold_whole_batches)
{
    struct agent agent[WRITERS], fresh = {0};
    struct board *board = proc_board(), *then = calloc(1, sizeof *then);
    char err[GROUPS_ERR] = "";
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s threads=1", dir);
        agent_tell(&agent[i], "write-groups %u %u flush=23 compact=91", i * GROUPS, GROUPS);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_progress(&agent[i], 20, 20000);
    }
    for (unsigned round = 0; round < test_times(6, 100); round++) {
        char *target = scratch_name("checkpoint-busy");
        for (unsigned g = 0; g < WRITERS * GROUPS; g++) {
            atomic_store(&then->group[g].acknowledged, atomic_load(&board->group[g].acknowledged));
            atomic_store(&then->group[g].seen, 0);
        }
        os_door_hook = round % 2 == 0 ? NULL : no_links;
        assert_ok(shale_checkpoint(db, target, NULL, NULL));
        os_door_hook = NULL;
        for (unsigned g = 0; g < WRITERS * GROUPS; g++) {
            atomic_store(&then->group[g].started, atomic_load(&board->group[g].started));
        }
        shale_db *c = open_small(target);
        ck_assert_msg(groups_check(c, then, WRITERS * GROUPS, GROUPS_SCAN, err) == 0, "%s", err);
        assert_ok(shale_close(c));
        agent_start(&fresh, WRITERS);
        agent_must(&fresh, "open %s create=0", target);
        agent_must(&fresh, "verify");
        agent_must(&fresh, "close");
        agent_quit(&fresh);
        assert_ok(shale_destroy(target));
        free(target);
    }
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_done(&agent[i]);
        agent_quit(&agent[i]);
    }
    agents_sound(board, WRITERS);
    free(then);
    board_close(board);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_checkpoint");
    TCase *t = tcase_create("checkpoint");
    tcase_set_timeout(t, test_times(60, 600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, checkpoint_opens_with_everything_that_was_visible);
    tcase_add_test(t, checkpoint_and_database_go_their_own_ways);
    tcase_add_test(t, tables_are_linked_and_the_log_is_copied);
    tcase_add_test(t, tables_are_copied_where_no_link_leads);
    tcase_add_test(t, empty_database_has_a_checkpoint_too);
    tcase_add_test(t, checkpoint_of_a_checkpoint);
    tcase_add_test(t, target_must_be_new_or_empty);
    tcase_add_test(t, readonly_handle_makes_no_checkpoint);
    tcase_add_loop_test(t, progress_is_told_and_cancels, 0, 2);
    tcase_add_test(t, h38_damaged_log_gives_no_checkpoint);
    tcase_add_test(t, h23_whatever_call_goes_wrong_nothing_half_made_stays);
    tcase_add_test(t, h15_killed_checkpoint_is_none_or_whole);
    tcase_add_test(t, checkpoints_under_writers_hold_whole_batches);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
