/* test_security.c - what a user can do who may read the files of a database, and not write them: nothing that
 * stops the others. */
#include "lib/lib.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NOBODY = 65534, VALUES = 2500 };

/* Whatever can be opened is locked as a whole, for reading, and stays so. */
static unsigned lock_all(const char *dir)
{
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX], **names = scratch_names(dir, "");
    unsigned n = 0;
    for (char **p = names; *p != NULL; p++) {
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        int fd = open(path, O_RDONLY | O_NONBLOCK);
        n += fd >= 0 && fcntl(fd, F_OFD_SETLK, &l) == 0;
    }
    scratch_names_free(names);
    return n;
}

/* Another user's process that locks all it can, now and whenever it is told to; it says how many. */
static pid_t start_hoarder(const char *dir, int to[2], int from[2])
{
    ck_assert_int_eq(pipe(to), 0);
    ck_assert_int_eq(pipe(from), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        char c;
        close(to[1]);
        if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) {
            _exit(1);
        }
        while (read(to[0], &c, 1) == 1) {
            unsigned n = lock_all(dir);
            if (write(from[1], &n, sizeof n) != sizeof n) {
                break;
            }
        }
        _exit(0);
    }
    close(to[0]);
    close(from[1]);
    return pid;
}

static unsigned hoard(int to, int from)
{
    unsigned n = 0;
    ck_assert_int_eq(write(to, "x", 1), 1);
    ck_assert_int_eq(read(from, &n, sizeof n), (ssize_t)sizeof n);
    return n;
}

START_TEST(read_locks_of_another_user_stop_nobody)
{
    char *dir = scratch_dir("security"), key[24], value[200];
    int to[2], from[2];
    shale_options o = small_options();
    o.mode = 0644;
    o.timeout_ms = 20000;
    memset(value, 'v', sizeof value);
    ck_assert_int_eq(chmod(scratch_root(), 0755), 0);
    ck_assert_int_eq(chmod(dir, 0755), 0);
    shale_db *db = open_with(dir, &o);
    put(db, "a", "1");
    pid_t pid = start_hoarder(dir, to, from);
    unsigned locked = 0;
    for (unsigned i = 0; i < VALUES; i++) {
        if (i % 250 == 0) {
            locked += hoard(to[1], from[0]);
        }
        snprintf(key, sizeof key, "key%06u", i * 7919 % VALUES);
        assert_ok(shale_put(db, key, strlen(key), value, sizeof value, i % 50 == 0 ? SHALE_SYNC : 0));
    }
    ck_assert_uint_ge(locked, 20);
    assert_ok(shale_flush(db));
    hoard(to[1], from[0]);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_close(db));
    hoard(to[1], from[0]);
    db = open_with(dir, &o); /* warm */
    ck_assert_uint_eq(count_entries(db, NULL), VALUES + 1);
    assert_ok(shale_close(db));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    hoard(to[1], from[0]);
    db = open_with(dir, &o); /* cold */
    ck_assert_uint_eq(count_entries(db, NULL), VALUES + 1);
    put(db, "b", "2");
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
    close(to[1]);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    free(dir);
}
END_TEST

/* What locks are taken on cannot even be opened. */
START_TEST(files_of_locks_are_readable_only_where_they_are_writable)
{
    static const unsigned modes[] = {0600, 0640, 0644, 0660, 0664, 0666};
    for (size_t i = 0; i < BASE_COUNT(modes); i++) {
        char *dir = scratch_dir("security-modes"), path[PATH_MAX];
        static const char *const names[] = {"LOCK", "LIVE"};
        shale_options o = small_options();
        o.mode = modes[i];
        mode_t mask = umask(i % 2 == 0 ? 0 : 077);
        shale_db *db = open_with(dir, &o);
        put(db, "a", "1");
        umask(mask);
        for (size_t k = 0; k < BASE_COUNT(names); k++) {
            struct stat st;
            snprintf(path, sizeof path, "%s/%s", dir, names[k]);
            ck_assert_int_eq(stat(path, &st), 0);
            ck_assert_uint_eq(st.st_mode & 0444, (st.st_mode & 0222) << 1);
            ck_assert_uint_eq(st.st_mode & 0222, modes[i] & 0222);
        }
        assert_ok(shale_close(db));
        free(dir);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("security");
    TCase *t = tcase_create("security");
    tcase_set_timeout(t, 120);
    if (getuid() == 0) { /* else nobody can become another user */
        tcase_add_test(t, read_locks_of_another_user_stop_nobody);
    } else {
        puts("skipped: read_locks_of_another_user_stop_nobody: needs root");
    }
    tcase_add_test(t, files_of_locks_are_readable_only_where_they_are_writable);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
