/* test_db_fork.c - what other processes inherit, and what happens to the directory under a living handle:
 * forks, exec, stray opens of our files, the directory renamed, removed, replaced. */
#include "lib/lib.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char *dir;

static void setup(void)
{
    dir = scratch_name("open");
}

static void teardown(void)
{
    free(dir);
}

/* Runs in the child of a process that has db open: what every call says. 0, or the line that was wrong. */
static int forked_child(shale_db *db, shale_snapshot *snap, shale_iter *it, shale_value *v, const char *path)
{
    shale_value got = {0};
    if (shale_put(db, "child", 5, "x", 1, 0) != SHALE_FORKED) {
        return __LINE__;
    }
    if (shale_get(db, NULL, "k", 1, &got) != SHALE_FORKED ||
        shale_get(db, snap, "k", 1, &got) != SHALE_FORKED) {
        return __LINE__;
    }
    if (shale_iter_next(it) != SHALE_FORKED || shale_iter_valid(it)) {
        return __LINE__;
    }
    if (shale_flush(db) != SHALE_FORKED || shale_sync(db) != SHALE_FORKED) {
        return __LINE__;
    }
    shale_snapshot_release(snap);
    shale_iter_destroy(it);
    shale_value_release(v);
    (void)shale_close(db);
    shale_options o = small_options();
    if (shale_open(path, &o, &db) != SHALE_OK) {
        return __LINE__;
    }
    if (shale_put(db, "child", 5, "y", 1, 0) != SHALE_OK || shale_close(db) != SHALE_OK) {
        return __LINE__;
    }
    return 0;
}

static int open_segments(void)
{
    char path[64], target[PATH_MAX];
    int n = 0;
    for (int fd = 0; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length > 0) {
            target[length] = '\0';
            n += strstr(target, ".wal") != NULL;
        }
    }
    return n;
}

/* Each stands for the lock that keeps a segment from being recycled, and for its space when it has lost its
 * name: the handle's own, one that only a snapshot maps, one that waits to be given up. */
START_TEST(h6_forked_child_keeps_no_segment_open)
{
    shale_db *db = open_small(dir);
    shale_snapshot *snap = NULL, *other = NULL;
    int status;
    put(db, "k", "1");
    assert_ok(shale_snapshot_create(db, &snap));
    assert_ok(shale_flush(db));
    put(db, "k", "2");
    assert_ok(shale_snapshot_create(db, &other));
    assert_ok(shale_flush(db));
    expect(db, NULL, "k", "2");
    shale_snapshot_release(other);
    ck_assert_int_ge(open_segments(), 2);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(open_segments());
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    expect(db, snap, "k", "1");
    shale_snapshot_release(snap);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h6_forked_child_gets_forked_and_disturbs_nobody)
{
    shale_options o = small_options();
    o.threads = 1;
    shale_db *db = open_with(dir, &o);
    shale_snapshot *snap = NULL;
    shale_iter *it = NULL;
    shale_value v = {0};
    int status;
    put(db, "k", "1");
    put(db, "l", "1");
    assert_ok(shale_snapshot_create(db, &snap));
    assert_ok(shale_iter_create(db, NULL, NULL, &it));
    assert_ok(shale_iter_first(it));
    assert_ok(shale_get(db, NULL, "k", 1, &v));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(forked_child(db, snap, it, &v, dir) == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "child: status %#x", status);
    put(db, "k", "2"); /* the parent's locks and memory are as they were */
    expect(db, NULL, "child", "y");
    expect(db, snap, "k", "1");
    assert_ok(shale_iter_next(it));
    shale_iter_destroy(it);
    shale_value_release(&v);
    shale_snapshot_release(snap);
    assert_ok(shale_close(db));
}
END_TEST

struct scribbler {
    shale_db *db;
    _Atomic bool stop;
    unsigned bad, done;
};

static void *scribble(void *ctx)
{
    struct scribbler *s = ctx;
    for (unsigned i = 0; !atomic_load(&s->stop); i++) {
        char key[16];
        snprintf(key, sizeof key, "%u", i % 500);
        s->bad += shale_put(s->db, key, strlen(key), "some value of a few bytes", 25, 0) != SHALE_OK;
        s->bad += i % 100 == 99 && shale_flush(s->db) != SHALE_OK;
        s->done++;
    }
    return NULL;
}

START_TEST(h6_fork_while_another_thread_writes)
{
    shale_db *db = open_small(dir);
    struct scribbler s = {.db = db};
    pthread_t thread;
    put(db, "k", "v");
    assert_ok(os_thread_start(&thread, scribble, &s, "scribble"));
    fflush(NULL);
    for (int i = 0; i < 30; i++) {
        pid_t pid = fork();
        int status;
        if (pid == 0) {
            shale_options o = small_options();
            shale_db *mine = NULL;
            size_t len;
            char value[8];
            bool fine = shale_put(db, "k", 1, "x", 1, 0) == SHALE_FORKED &&
                        shale_open(dir, &o, &mine) == SHALE_OK &&
                        shale_get_copy(mine, NULL, "k", 1, value, sizeof value, &len) == SHALE_OK &&
                        value[0] == 'v' && shale_put(mine, "child", 5, "1", 1, 0) == SHALE_OK &&
                        shale_close(mine) == SHALE_OK;
            _exit(fine ? 0 : 1);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(status == 0, "child %d: status %#x", i, status);
    }
    atomic_store(&s.stop, true);
    os_thread_join(thread);
    ck_assert_uint_eq(s.bad, 0);
    ck_assert_uint_gt(s.done, 0);
    expect(db, NULL, "child", "1");
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h6_child_that_lives_on_holds_no_lock)
{
    shale_db *db = open_small(dir);
    shale_txn *t = NULL;
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    shale_txn_abort(t);
    assert_ok(shale_close(db));
    assert_ok(shale_destroy(dir)); /* nobody has it open: the child's copies hold nothing */
    shale_options o = small_options();
    o.timeout_ms = 5000;
    db = open_with(dir, &o);
    put(db, "k", "v");
    assert_ok(shale_close(db));
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}
END_TEST

/* It is the parent's transaction that is in its way, and no deadlock with itself. */
START_TEST(h6_child_of_a_thread_in_a_transaction_is_not_in_it)
{
    shale_db *db = open_small(dir);
    shale_txn *t = NULL;
    int status;
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        shale_options o = small_options();
        shale_db *mine = NULL;
        o.timeout_ms = 20;
        bool fine = shale_open(dir, &o, &mine) == SHALE_OK &&
                    shale_put(mine, "k", 1, "v", 1, 0) == SHALE_BUSY &&
                    strstr(shale_errmsg(), "is held by") != NULL && shale_close(mine) == SHALE_OK;
        _exit(fine ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    assert_status(shale_put(db, "k", 1, "v", 1, 0), SHALE_INUSE);
    shale_txn_abort(t);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h7_no_descriptor_survives_exec)
{
    shale_options o = small_options();
    o.threads = 1;
    shale_db *db = open_with(dir, &o);
    put(db, "k", "v");
    assert_ok(shale_flush(db));
    expect(db, NULL, "k", "v");
    int seen = 0;
    for (int fd = 3; fd < 1024; fd++) {
        char link[64], path[PATH_MAX];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n < 0) {
            continue;
        }
        path[n] = '\0';
        if (strncmp(path, dir, strlen(dir)) == 0) {
            seen++;
            ck_assert_msg((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0, "%s would leak through exec", path);
        }
    }
    ck_assert_int_gt(seen, 0);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h5_stray_open_and_close_drops_no_lock)
{
    struct agent other = {0};
    shale_db *a = open_small(dir);
    shale_txn *t = NULL;
    static const char *const names[] = {"LOCK", "LIVE", "STATE", "CURRENT"};
    assert_ok(shale_txn_begin(a, 0, -1, &t));
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        close(fd);
    }
    (void)proc_board();
    agent_start(&other, 0);
    agent_must(&other, "open %s", dir);
    const char *text = agent_ask(&other, "put k v nowait");
    ck_assert_msg(strncmp(text, "SHALE_BUSY", 10) == 0, "%s", text); /* a still holds the write lock */
    agent_must(&other, "close");
    assert_status(shale_destroy(dir), SHALE_BUSY); /* and is still connected */
    agent_must(&other, "open %s", dir);
    assert_ok(shale_txn_put(t, "k", 1, "w", 1));
    assert_ok(shale_txn_commit(t));
    ck_assert_str_eq(agent_must(&other, "get k"), "w");
    assert_ok(shale_close(a));
    agent_quit(&other);
}
END_TEST

START_TEST(h25_renamed_directory_keeps_working)
{
    char *to = scratch_name("renamed");
    shale_db *db = open_small(dir);
    put(db, "k", "1");
    ck_assert_int_eq(rename(dir, to), 0);
    for (int i = 0; i < 300; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        put(db, key, "v");
        if (i % 100 == 50) {
            assert_ok(shale_flush(db));
        }
    }
    assert_ok(shale_sync(db));
    shale_db *second = open_small(to);
    put(second, "l", "2");
    expect(db, NULL, "l", "2");
    assert_ok(shale_close(second));
    assert_ok(shale_close(db));
    db = open_small(to);
    ck_assert_uint_eq(count_entries(db, NULL), 302);
    assert_ok(shale_close(db));
    free(to);
}
END_TEST

START_TEST(h25_removed_directory_stops_durable_commits)
{
    shale_db *db = open_small(dir);
    put(db, "k", "1");
    ck_assert_int_eq(scratch_remove(dir), 0);
    expect(db, NULL, "k", "1"); /* what is mapped stays readable */
    int rc = shale_put(db, "k", 1, "2", 1, SHALE_SYNC);
    ck_assert_msg(rc == SHALE_IO || rc == SHALE_PANIC, "%s", shale_errname(rc));
    assert_told("removed");
    (void)shale_close(db);
    struct stat st;
    ck_assert_int_ne(stat(dir, &st), 0);
}
END_TEST

/* A writer that finds no next segment must not look for it for ever in a directory that is no more. */
START_TEST(h25_removed_directory_stops_commits_without_sync)
{
    shale_db *db = open_small(dir);
    char value[1000] = "";
    int rc = SHALE_OK;
    ck_assert_int_eq(scratch_remove(dir), 0);
    for (unsigned i = 0; rc == SHALE_OK && i < 100000; i++) {
        rc = shale_put(db, &i, sizeof i, value, sizeof value, SHALE_NOSYNC);
    }
    assert_status(rc, SHALE_IO);
    assert_told("removed");
    (void)shale_close(db);
}
END_TEST

START_TEST(h25_replaced_directory_is_not_confused_with_the_old_one)
{
    char *aside = scratch_name("aside");
    shale_db *old = open_small(dir);
    put(old, "k", "old");
    ck_assert_int_eq(rename(dir, aside), 0);
    shale_db *fresh = open_small(dir);
    expect(fresh, NULL, "k", NULL);
    put(fresh, "k", "new");
    put(old, "l", "old");
    expect(fresh, NULL, "l", NULL);
    expect(old, NULL, "k", "old");
    assert_ok(shale_close(old));
    assert_ok(shale_close(fresh));
    free(aside);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_fork");
    TCase *t = tcase_create("fork");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h6_forked_child_gets_forked_and_disturbs_nobody);
    tcase_add_test(t, h6_forked_child_keeps_no_segment_open);
    tcase_add_test(t, h6_fork_while_another_thread_writes);
    tcase_add_test(t, h6_child_that_lives_on_holds_no_lock);
    tcase_add_test(t, h6_child_of_a_thread_in_a_transaction_is_not_in_it);
    tcase_add_test(t, h7_no_descriptor_survives_exec);
    tcase_add_test(t, h5_stray_open_and_close_drops_no_lock);
    tcase_add_test(t, h25_renamed_directory_keeps_working);
    tcase_add_test(t, h25_removed_directory_stops_durable_commits);
    tcase_add_test(t, h25_removed_directory_stops_commits_without_sync);
    tcase_add_test(t, h25_replaced_directory_is_not_confused_with_the_old_one);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
