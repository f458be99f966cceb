/* test_os.c - files, directories, mappings, and the door that can make any of them go
 * wrong. */
#include "os/os.h"
#include "tempdir.h"

#include <check.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

static char dir_path[TEMPDIR_MAX];
static int dir = -1;

static void setup(void)
{
    tempdir_make(dir_path);
    ck_assert_int_eq(os_open_dir(dir_path, &dir), SHALE_OK);
}

static void teardown(void)
{
    os_door_hook = NULL;
    os_close(&dir);
    ck_assert_uint_eq(os_open_files(), 0);
    ck_assert_uint_eq(os_mapped_bytes(), 0);
    tempdir_remove(dir_path);
}

static int create(const char *name)
{
    int fd = -1;
    ck_assert_int_eq(os_open(dir, name, O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    return fd;
}

static const char *path_of(const char *name)
{
    static char path[TEMPDIR_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/%s", dir_path, name);
    return path;
}

static unsigned mode_of(const char *name)
{
    struct stat st;
    ck_assert_int_eq(os_stat_at(dir, name, &st), SHALE_OK);
    return st.st_mode & 07777;
}

/* ---- the door's hook of these tests ---- */

static struct {
    enum os_op op;
    int countdown; /* the call that it happens at; negative: every one */
    int err;
    size_t cut; /* to so many bytes; SIZE_MAX: not */
    int seen;
} plan;

static int hook(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset;
    if (op != plan.op) {
        return 0;
    }
    plan.seen++;
    if (plan.countdown >= 0 && plan.seen != plan.countdown) {
        return 0;
    }
    if (length != NULL && *length > plan.cut) {
        *length = plan.cut;
    }
    return plan.err;
}

static void plan_door(enum os_op op, int countdown, int err, size_t cut)
{
    plan.op = op;
    plan.countdown = countdown;
    plan.err = err;
    plan.cut = cut;
    plan.seen = 0;
    os_door_hook = hook;
}

/* ---- open ---- */

START_TEST(a_missing_directory_is_no_database)
{
    int fd = -7;
    ck_assert_int_eq(os_open_dir(path_of("missing"), &fd), SHALE_NODB);
    int file = create("file");
    ck_assert_int_eq(os_open_dir(path_of("file"), &fd), SHALE_INVALID);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "is not a directory"));
    ck_assert_int_eq(fd, -7);
    os_close(&file);
    ck_assert_int_eq(file, -1);
    os_close(&file);
}
END_TEST

START_TEST(missing_and_existing_files_are_answers_without_text)
{
    int fd = -7;
    err_clear();
    ck_assert_int_eq(os_open(dir, "f", O_RDONLY, 0, &fd), SHALE_NOTFOUND);
    ck_assert_int_eq(fd, -7);
    int made = create("f");
    ck_assert_int_eq(os_open(dir, "f", O_RDWR | O_CREAT | O_EXCL, 0600, &fd), SHALE_EXISTS);
    ck_assert_int_eq(fd, -7);
    ck_assert_str_eq(shale_errmsg(), "");
    ck_assert((fcntl(made, F_GETFD) & FD_CLOEXEC) != 0);
    os_close(&made);
}
END_TEST

START_TEST(a_new_file_has_exactly_the_mode_asked_for)
{
    int fd;
    mode_t saved = umask(077);
    ck_assert_int_eq(os_open(dir, "wide", O_RDWR | O_CREAT, 0666, &fd), SHALE_OK);
    os_close(&fd);
    ck_assert_int_eq(os_open(dir, "exclusive", O_RDWR | O_CREAT | O_EXCL, 0640, &fd), SHALE_OK);
    os_close(&fd);
    ck_assert_int_eq(os_make_dir_at(dir, "sub", 0755), SHALE_OK);
    (void)umask(saved);
    ck_assert_uint_eq(mode_of("wide"), 0666);
    ck_assert_uint_eq(mode_of("exclusive"), 0640);
    ck_assert_uint_eq(mode_of("sub"), 0755);
}
END_TEST

START_TEST(what_is_opened_is_told_of_without_another_question)
{
    struct stat opened = {.st_size = -7}, asked;
    int fd = -7;
    mode_t saved = umask(077);
    ck_assert_int_eq(os_open_stat(dir, "f", O_RDWR, 0, &fd, &opened), SHALE_NOTFOUND);
    ck_assert_int_eq(opened.st_size, -7);
    ck_assert_int_eq(os_open_stat(dir, "f", O_RDWR | O_CREAT, 0664, &fd, &opened), SHALE_OK);
    (void)umask(saved);
    ck_assert_int_eq(os_stat(fd, &asked), SHALE_OK);
    ck_assert_mem_eq(&opened, &asked, sizeof opened);
    ck_assert_int_eq(os_pwrite(fd, "1234", 4, 0), SHALE_OK);
    os_close(&fd);
    ck_assert_int_eq(os_open_stat(dir, "f", O_RDONLY, 0, &fd, &opened), SHALE_OK);
    ck_assert_int_eq(opened.st_size, 4);
    os_close(&fd);
    ck_assert_int_eq(mkfifoat(dir, "fifo", 0600), 0);
    ck_assert_int_eq(os_open_stat(dir, "fifo", O_RDONLY, 0, &fd, &opened), SHALE_INVALID);
    ck_assert_int_eq(opened.st_size, 4);
}
END_TEST

START_TEST(an_existing_file_keeps_its_mode)
{
    int fd;
    ck_assert_int_eq(os_open(dir, "f", O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    os_close(&fd);
    ck_assert_int_eq(os_open(dir, "f", O_RDWR | O_CREAT, 0666, &fd), SHALE_OK);
    os_close(&fd);
    ck_assert_uint_eq(mode_of("f"), 0600);
    ck_assert_int_eq(os_make_dir_at(dir, "sub", 0700), SHALE_OK);
    ck_assert_int_eq(os_make_dir_at(dir, "sub", 0755), SHALE_OK);
    ck_assert_uint_eq(mode_of("sub"), 0700);
    ck_assert_int_eq(os_make_dir(path_of("f"), 0700), SHALE_INVALID);
}
END_TEST

START_TEST(symbolic_links_are_not_followed)
{
    int target = create("target"), fd = -7;
    os_close(&target);
    ck_assert_int_eq(symlinkat("target", dir, "link"), 0);
    ck_assert_int_eq(symlinkat("nowhere", dir, "dangling"), 0);
    ck_assert_int_eq(os_open(dir, "link", O_RDONLY, 0, &fd), SHALE_IO);
    ck_assert_int_eq(os_open(dir, "link", O_RDWR | O_CREAT, 0600, &fd), SHALE_IO);
    ck_assert_int_eq(os_open(dir, "dangling", O_RDWR | O_CREAT, 0600, &fd), SHALE_IO);
    struct stat st;
    ck_assert_int_eq(os_stat_at(dir, "nowhere", &st), SHALE_NOTFOUND);
    ck_assert_int_eq(os_stat_at(dir, "link", &st), SHALE_OK);
    ck_assert(S_ISLNK(st.st_mode));
    ck_assert_int_eq(fd, -7);
}
END_TEST

START_TEST(a_fifo_under_a_files_name_does_not_hang)
{
    int fd = -7;
    ck_assert_int_eq(mkfifoat(dir, "fifo", 0600), 0);
    ck_assert_int_eq(os_open(dir, "fifo", O_RDONLY, 0, &fd), SHALE_INVALID);
    ck_assert_int_eq(os_open(dir, "fifo", O_RDWR | O_CREAT, 0600, &fd), SHALE_INVALID);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "is not a regular file"));
    ck_assert_int_eq(fd, -7);
}
END_TEST

/* ---- bytes ---- */

START_TEST(reads_end_at_the_end_of_the_file)
{
    char buf[16];
    size_t got = 99;
    int fd = create("f");
    ck_assert_int_eq(os_pwrite(fd, "0123456789", 10, 0), SHALE_OK);
    ck_assert_int_eq(os_pread(fd, buf, 16, 4, &got), SHALE_OK);
    ck_assert_uint_eq(got, 6);
    ck_assert_mem_eq(buf, "456789", 6);
    ck_assert_int_eq(os_pread(fd, buf, 16, 100, &got), SHALE_OK);
    ck_assert_uint_eq(got, 0);
    got = 99;
    ck_assert_int_eq(os_pread(-1, buf, 1, 0, &got), SHALE_IO);
    ck_assert_uint_eq(got, 99);
    ck_assert_int_eq(os_pwrite(-1, buf, 1, 0), SHALE_IO);
    ck_assert_int_eq(os_pwrite(-1, buf, 0, 0), SHALE_OK);
    os_close(&fd);
}
END_TEST

START_TEST(h36_short_reads_and_writes_go_on)
{
    char text[4000], back[4000];
    size_t got;
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (char)('a' + i % 23);
    }
    int fd = create("f");
    plan_door(OS_OP_WRITE, -1, 0, 7);
    ck_assert_int_eq(os_pwrite(fd, text, sizeof text, 100), SHALE_OK);
    ck_assert_int_eq(plan.seen, (int)(sizeof text + 6) / 7);
    plan_door(OS_OP_READ, -1, 0, 13);
    ck_assert_int_eq(os_pread(fd, back, sizeof back, 100, &got), SHALE_OK);
    ck_assert_uint_eq(got, sizeof back);
    ck_assert_mem_eq(back, text, sizeof text);
    os_close(&fd);
}
END_TEST

START_TEST(h36_a_write_without_progress_is_an_error)
{
    int fd = create("f");
    plan_door(OS_OP_WRITE, 2, 0, 0);
    ck_assert_int_eq(os_pwrite(fd, "abc", 3, 0), SHALE_OK);
    ck_assert_int_eq(os_pwrite(fd, "def", 3, 3), SHALE_IO);
    ck_assert_int_eq(plan.seen, 2);
    os_close(&fd);
}
END_TEST

START_TEST(h36_eintr_is_retried_by_every_call)
{
    int fd = create("f");
    struct stat st;
    char buf[4];
    size_t got;
    bool taken;
    plan_door(OS_OP_READ, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_pread(fd, buf, 1, 0, &got), SHALE_OK);
    ck_assert_int_eq(plan.seen, 2);
    plan_door(OS_OP_WRITE, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_pwrite(fd, "x", 1, 0), SHALE_OK);
    ck_assert_int_eq(plan.seen, 2);
    plan_door(OS_OP_FDATASYNC, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_fdatasync(fd), SHALE_OK);
    plan_door(OS_OP_ALLOCATE, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_allocate(fd, 0, 1 << 20), SHALE_OK);
    ck_assert_int_ge(plan.seen, 3); /* in smaller steps */
    plan_door(OS_OP_LOCK, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_lock_try(fd, 0, 1, true), SHALE_OK);
    plan_door(OS_OP_TESTLOCK, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_lock_test(fd, 0, 1, true, &taken), SHALE_OK);
    plan_door(OS_OP_RENAME, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_rename(dir, "f", "g"), SHALE_OK);
    plan_door(OS_OP_OPEN, 1, EINTR, SIZE_MAX);
    os_close(&fd);
    fd = create("g");
    plan_door(OS_OP_STAT, 1, EINTR, SIZE_MAX);
    ck_assert_int_eq(os_stat(fd, &st), SHALE_OK);
    ck_assert_int_eq(st.st_size, 1 << 20);
    os_close(&fd);
}
END_TEST

static void take_signal(int number)
{
    (void)number;
}

/* Signals without SA_RESTART, more often than anything finishes. */
static void storm(bool on)
{
    struct sigaction action = {.sa_handler = take_signal};
    struct itimerval timer = {{0, on ? 200 : 0}, {0, on ? 200 : 0}};
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

START_TEST(h36_a_storm_of_signals_breaks_nothing)
{
    enum { SIZE = 4 << 20 };
    char *text = malloc(SIZE), *back = malloc(SIZE);
    size_t got;
    memset(text, 'x', SIZE);
    int fd = create("f");
    storm(true);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(os_allocate(fd, 0, SIZE), SHALE_OK);
        ck_assert_int_eq(os_pwrite(fd, text, SIZE, 0), SHALE_OK);
        ck_assert_int_eq(os_lock_try(fd, 0, 10, true), SHALE_OK);
        ck_assert_int_eq(os_pread(fd, back, SIZE, 0, &got), SHALE_OK);
        ck_assert_uint_eq(got, SIZE);
        ck_assert_int_eq(os_unlock(fd, 0, 10), SHALE_OK);
        ck_assert_mem_eq(text, back, SIZE);
        ck_assert_int_eq(os_truncate(fd, 0), SHALE_OK);
    }
    int64_t start = os_now();
    os_nap(20000000);
    ck_assert_int_ge(os_now() - start, 20000000);
    storm(false);
    free(text), free(back);
    os_close(&fd);
}
END_TEST

START_TEST(allocated_space_reads_as_zeros_and_keeps_what_stood_there)
{
    struct stat st;
    char buf[8];
    size_t got;
    int fd = create("f");
    ck_assert_int_eq(os_pwrite(fd, "abc", 3, 0), SHALE_OK);
    if (_i == 1) { /* as on a file system without fallocate */
        plan_door(OS_OP_ALLOCATE, -1, EOPNOTSUPP, SIZE_MAX);
    }
    ck_assert_int_eq(os_allocate(fd, 0, 200000), SHALE_OK);
    ck_assert_int_eq(os_stat(fd, &st), SHALE_OK);
    ck_assert_int_eq(st.st_size, 200000);
    ck_assert_int_ge(st.st_blocks * 512, 200000);
    ck_assert_int_eq(os_pread(fd, buf, 8, 0, &got), SHALE_OK);
    ck_assert_mem_eq(buf, "abc\0\0\0\0\0", 8);
    ck_assert_int_eq(os_truncate(fd, 100), SHALE_OK);
    ck_assert_int_eq(os_stat(fd, &st), SHALE_OK);
    ck_assert_int_eq(st.st_size, 100);
    os_close(&fd);
}
END_TEST

/* Each call is made to fail with ENOSPC by the door, and by a descriptor that is not one. */
START_TEST(every_call_reports_its_error)
{
    struct stat st = {.st_size = 77};
    bool taken = true;
    void *map = &st;
    int fd = create("f"), none = -7;
    pthread_t thread;
#define INJECTED(op, call)                                                                                   \
    plan_door(op, 1, ENOSPC, SIZE_MAX);                                                                      \
    ck_assert_int_eq(call, SHALE_NOSPC);                                                                     \
    ck_assert_msg(strstr(shale_errmsg(), strerror(ENOSPC)) != NULL, "%s", shale_errmsg())
    INJECTED(OS_OP_OPEN, os_open(dir, "g", O_RDWR | O_CREAT, 0600, &none));
    INJECTED(OS_OP_OPEN, os_open_dir(dir_path, &none));
    INJECTED(OS_OP_WRITE, os_pwrite(fd, "x", 1, 0));
    INJECTED(OS_OP_ALLOCATE, os_allocate(fd, 0, 10));
    INJECTED(OS_OP_TRUNCATE, os_truncate(fd, 10));
    INJECTED(OS_OP_FDATASYNC, os_fdatasync(fd));
    INJECTED(OS_OP_FSYNC, os_fsync(fd));
    INJECTED(OS_OP_SYNCDIR, os_sync_dir(dir));
    INJECTED(OS_OP_STAT, os_stat(fd, &st));
    INJECTED(OS_OP_STAT, os_stat_at(dir, "f", &st));
    INJECTED(OS_OP_STAT, os_check_fs(dir, &taken));
    INJECTED(OS_OP_RENAME, os_rename(dir, "f", "g"));
    INJECTED(OS_OP_RENAME, os_rename_noreplace(dir, "f", "g"));
    INJECTED(OS_OP_LINK, os_link(dir, "f", dir, "g"));
    INJECTED(OS_OP_UNLINK, os_unlink(dir, "f"));
    INJECTED(OS_OP_MKDIR, os_make_dir_at(dir, "g", 0700));
    INJECTED(OS_OP_LIST, os_list(dir, NULL, NULL));
    INJECTED(OS_OP_MAP, os_map(fd, 4096, true, &map));
    INJECTED(OS_OP_LOCK, os_lock_try(fd, 0, 1, true));
    INJECTED(OS_OP_UNLOCK, os_unlock(fd, 0, 1));
    INJECTED(OS_OP_TESTLOCK, os_lock_test(fd, 0, 1, true, &taken));
    INJECTED(OS_OP_THREAD, os_thread_start(&thread, NULL, NULL, "none"));
    os_door_hook = NULL;
    ck_assert(taken && map == &st && none == -7 && st.st_size == 77);
    ck_assert_int_eq(os_truncate(-1, 0), SHALE_IO);
    ck_assert_int_eq(os_fdatasync(-1), SHALE_IO);
    ck_assert_int_eq(os_stat(-1, &st), SHALE_IO);
    ck_assert_int_eq(os_map(fd, 0, true, &map), SHALE_IO);
    ck_assert_int_eq(os_lock_try(-1, 0, 1, true), SHALE_IO);
    ck_assert_int_eq(os_stat_at(dir, "g", &st), SHALE_NOTFOUND);
    os_close(&fd);
}
END_TEST

/* A daemon that was started with its streams closed prints into no file of ours. */
START_TEST(no_file_gets_the_number_of_a_standard_stream)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        int file = -1, again = -1;
        (void)close(0);
        (void)close(1);
        (void)close(2);
        bool fine = os_open_dir(dir_path, &again) == SHALE_OK &&
                    os_open(dir, "file", O_RDWR | O_CREAT, 0600, &file) == SHALE_OK && again > 2 && file > 2;
        fine = fine && os_fill_standard() == 7 && write(1, "x", 1) < 0 && errno == EBADF;
        os_clear_standard(5);
        fine = fine && os_fill_standard() == 5;
        _exit(fine ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(hints_never_fail_a_caller)
{
    int fd = create("f");
    ck_assert_int_eq(os_pwrite(fd, "abc", 3, 0), SHALE_OK);
    plan_door(OS_OP_WRITEBACK, 1, EIO, SIZE_MAX);
    ck_assert_int_eq(os_start_writeback(fd, 0, 3), SHALE_OK);
    ck_assert_int_eq(os_start_writeback(fd, 0, 3), SHALE_OK);
    ck_assert_int_eq(os_fsync(fd), SHALE_OK);
    os_close(&fd);
}
END_TEST

/* ---- names ---- */

START_TEST(renames_and_links_do_as_told)
{
    struct stat st;
    int a = create("a"), b = create("b");
    ck_assert_int_eq(os_pwrite(a, "a", 1, 0), SHALE_OK);
    if (_i == 1) { /* as on a file system that cannot do it in one step */
        plan_door(OS_OP_RENAME, -1, EINVAL, SIZE_MAX);
    }
    ck_assert_int_eq(os_rename_noreplace(dir, "a", "b"), SHALE_EXISTS);
    ck_assert_int_eq(os_rename_noreplace(dir, "a", "c"), SHALE_OK);
    ck_assert_int_eq(os_stat_at(dir, "a", &st), SHALE_NOTFOUND);
    os_door_hook = NULL;
    ck_assert_int_eq(os_rename(dir, "c", "b"), SHALE_OK);
    ck_assert_int_eq(os_stat_at(dir, "b", &st), SHALE_OK);
    ck_assert_int_eq(st.st_size, 1);
    ck_assert_int_eq(os_link(dir, "b", dir, "d"), SHALE_OK);
    ck_assert_int_eq(os_link(dir, "b", dir, "d"), SHALE_EXISTS);
    ck_assert_int_eq(os_link(dir, "missing", dir, "e"), SHALE_IO);
    ck_assert_int_eq(os_rename(dir, "missing", "e"), SHALE_IO);
    ck_assert_int_eq(os_unlink(dir, "d"), SHALE_OK);
    ck_assert_int_eq(os_unlink(dir, "d"), SHALE_OK);
    ck_assert_int_eq(os_sync_dir(dir), SHALE_OK);
    os_close(&a), os_close(&b);
}
END_TEST

static int count_name(void *ctx, const char *name)
{
    int *count = ctx;
    ck_assert(name[0] == 'f');
    return ++*count == 40 ? 123 : 0;
}

START_TEST(a_listing_names_every_file_once_and_can_be_stopped)
{
    for (int want = 39; want <= 45; want += 6) {
        int count = 0;
        for (int i = 0; i < want; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "f%d", i);
            int fd = create(name);
            os_close(&fd);
        }
        ck_assert_int_eq(os_list(dir, count_name, &count), want < 40 ? 0 : 123);
        ck_assert_int_eq(count, want < 40 ? want : 40);
    }
}
END_TEST

START_TEST(small_files_are_read_whole_or_refused)
{
    struct buf b = {NULL, 0, 0};
    char text[10000];
    memset(text, 'z', sizeof text);
    ck_assert_int_eq(buf_set(&b, "before", 6), SHALE_OK);
    ck_assert_int_eq(os_read_file(dir, "f", 100, &b), SHALE_NOTFOUND);
    int fd = create("f");
    ck_assert_int_eq(os_pwrite(fd, text, sizeof text, 0), SHALE_OK);
    ck_assert_int_eq(os_read_file(dir, "f", sizeof text - 1, &b), SHALE_CORRUPT);
    plan_door(OS_OP_READ, 1, EIO, SIZE_MAX);
    ck_assert_int_eq(os_read_file(dir, "f", sizeof text, &b), SHALE_IO);
    ck_assert(slice_equal(buf_slice(&b), slice_make("before", 6)));
    plan_door(OS_OP_READ, -1, 0, 999);
    ck_assert_int_eq(os_read_file(dir, "f", sizeof text, &b), SHALE_OK);
    ck_assert(slice_equal(buf_slice(&b), slice_make(text, sizeof text)));
    ck_assert_int_eq(os_truncate(fd, 0), SHALE_OK);
    ck_assert_int_eq(os_read_file(dir, "f", 0, &b), SHALE_OK);
    ck_assert_uint_eq(b.size, 0);
    buf_release(&b);
    os_close(&fd);
}
END_TEST

/* ---- mappings ---- */

START_TEST(mappings_share_the_files_bytes)
{
    void *one, *two, *three;
    char back[4];
    size_t got;
    int fd = create("f");
    ck_assert_int_eq(os_allocate(fd, 0, 65536), SHALE_OK);
    ck_assert_int_eq(os_map(fd, 65536, true, &one), SHALE_OK);
    ck_assert_int_eq(os_map(fd, 65536, false, &two), SHALE_OK);
    ck_assert_int_eq(os_map_anonymous(8192, &three), SHALE_OK);
    ck_assert_uint_eq(os_mapped_bytes(), 2 * 65536 + 8192);
    ck_assert_int_eq(os_map_populate_write(one, 100, 60000), SHALE_OK);
    memcpy((char *)one + 5000, "abcd", 4);
    ck_assert_int_eq(os_map_populate_read(two, 4999, 3), SHALE_OK);
    ck_assert_mem_eq((char *)two + 5000, "abcd", 4);
    ck_assert_int_eq(os_pread(fd, back, 4, 5000, &got), SHALE_OK);
    ck_assert_mem_eq(back, "abcd", 4);
    os_map_dontfork(one, 65536);
    os_map_sequential(two, 65536);
    os_unmap(one, 65536), os_unmap(two, 65536), os_unmap(three, 8192), os_unmap(NULL, 10);
    os_close(&fd);
}
END_TEST

START_TEST(a_page_that_cannot_be_had_is_an_error_and_no_signal)
{
    void *map;
    int fd = create("f");
    ck_assert_int_eq(os_allocate(fd, 0, 4096), SHALE_OK);
    ck_assert_int_eq(os_map(fd, 65536, true, &map), SHALE_OK); /* what is behind the end would be SIGBUS */
    if (_i == 1) {
        plan_door(OS_OP_ADVISE, -1, EINVAL, SIZE_MAX); /* as a kernel that does not know how to populate */
    }
    ck_assert_int_eq(os_map_populate_read(map, 0, 4096), SHALE_OK);
    ck_assert_int_eq(os_map_populate_write(map, 0, 4096), SHALE_OK);
    ck_assert_int_eq(os_map_populate_read(map, 16, 8192), SHALE_IO);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), strerror(EIO)));
    os_unmap(map, 65536);
    os_close(&fd);
}
END_TEST

/* ---- names for people ---- */

START_TEST(names_of_calls_and_marks_are_printable)
{
    ck_assert_str_eq(os_op_name(OS_OP_OPEN), "OPEN");
    ck_assert_str_eq(os_op_name(OS_OP_COUNT), "?");
    ck_assert_str_eq(os_mark_name(OS_MARK_GATE), "GATE");
    ck_assert_str_eq(os_mark_name(OS_MARK_COUNT), "?");
}
END_TEST

static Suite *os_suite(void)
{
    Suite *suite = suite_create("os");
    TCase *files = tcase_create("files");
    suite_add_tcase(suite, files);
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_set_timeout(files, 30);
    tcase_add_test(files, a_missing_directory_is_no_database);
    tcase_add_test(files, missing_and_existing_files_are_answers_without_text);
    tcase_add_test(files, a_new_file_has_exactly_the_mode_asked_for);
    tcase_add_test(files, what_is_opened_is_told_of_without_another_question);
    tcase_add_test(files, an_existing_file_keeps_its_mode);
    tcase_add_test(files, symbolic_links_are_not_followed);
    tcase_add_test(files, a_fifo_under_a_files_name_does_not_hang);
    tcase_add_test(files, reads_end_at_the_end_of_the_file);
    tcase_add_test(files, h36_short_reads_and_writes_go_on);
    tcase_add_test(files, h36_a_write_without_progress_is_an_error);
    tcase_add_test(files, h36_eintr_is_retried_by_every_call);
    tcase_add_test(files, h36_a_storm_of_signals_breaks_nothing);
    tcase_add_loop_test(files, allocated_space_reads_as_zeros_and_keeps_what_stood_there, 0, 2);
    tcase_add_test(files, every_call_reports_its_error);
    tcase_add_test(files, no_file_gets_the_number_of_a_standard_stream);
    tcase_add_test(files, hints_never_fail_a_caller);
    tcase_add_loop_test(files, renames_and_links_do_as_told, 0, 2);
    tcase_add_test(files, a_listing_names_every_file_once_and_can_be_stopped);
    tcase_add_test(files, small_files_are_read_whole_or_refused);
    tcase_add_test(files, mappings_share_the_files_bytes);
    tcase_add_loop_test(files, a_page_that_cannot_be_had_is_an_error_and_no_signal, 0, 2);
    tcase_add_test(files, names_of_calls_and_marks_are_printable);
    return suite;
}

int main(void)
{
    char root[TEMPDIR_MAX];
    tempdir_root(root);
    SRunner *runner = srunner_create(os_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    tempdir_remove(root);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
