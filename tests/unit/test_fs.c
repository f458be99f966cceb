/* test_fs.c - which file systems are refused, and what comes from the lower layer of an overlay. */
#include "os/os.h"
#include "tempdir.h"

#include <check.h>
#include <sched.h>
#include <sys/mount.h>
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
    os_close(&dir);
    tempdir_remove(dir_path);
}

START_TEST(h26_network_file_systems_are_refused_by_type)
{
    static const uint32_t refused[] = {0x6969,     0x517b,     0xff534d42, 0xfe534d42,
                                       0x01021997, 0x65735546, 0x00c36400, 0x5346414f,
                                       0x6b414653, 0x0bd00bd0, 0x01161970, 0x7461636f};
    static const uint32_t local[] = {0xef53,     0x58465342, 0x01021994, 0x9123683e,
                                     0x2fc12fc1, 0xf2f52010, 0x794c7630};
    for (size_t i = 0; i < BASE_COUNT(refused); i++) {
        ck_assert(os_fs_find(refused[i]) != NULL && os_fs_find(refused[i])->refused);
    }
    for (size_t i = 0; i < BASE_COUNT(local); i++) {
        ck_assert(os_fs_find(local[i]) != NULL && !os_fs_find(local[i])->refused);
        ck_assert_int_eq(os_fs_find(local[i])->in_place, i < 3);
    }
    ck_assert_ptr_null(os_fs_find(0x12345678));
}
END_TEST

START_TEST(a_local_directory_is_accepted)
{
    bool in_place;
    ck_assert_int_eq(os_check_fs(dir, &in_place), SHALE_OK);
}
END_TEST

static bool put_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    (void)close(fd);
    return done;
}

/* A mount namespace of its own; in a user namespace the kernel gives no overlay file handles. */
static bool enter_namespace(bool user)
{
    char uids[32], gids[32];
    (void)snprintf(uids, sizeof uids, "0 %u 1", (unsigned)geteuid());
    (void)snprintf(gids, sizeof gids, "0 %u 1", (unsigned)getegid());
    if (!user) {
        return unshare(CLONE_NEWNS) == 0;
    }
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && put_text("/proc/self/setgroups", "deny") &&
           put_text("/proc/self/uid_map", uids) && put_text("/proc/self/gid_map", gids);
}

/* How many directories got another answer than they should; 77: this machine does not permit the test. */
static int overlay_child(bool user)
{
    static const struct {
        const char *name;
        int status;
    } want[] = {{"made", SHALE_OK}, {"below", SHALE_UNSUPPORTED}, {"both", SHALE_UNSUPPORTED}};
    char options[4 * TEMPDIR_MAX];
    if (!enter_namespace(user)) {
        return 77;
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    (void)snprintf(options, sizeof options, "lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir_path,
                   dir_path, dir_path);
    /* not through the open directory: that stays in the old namespace */
    if (chdir(dir_path) != 0 || mount("overlay", "mnt", "overlay", 0, options) != 0 || chdir("mnt") != 0) {
        return 77;
    }
    (void)mkdirat(AT_FDCWD, "made", 0700);
    (void)close(openat(AT_FDCWD, "made/LOCK", O_CREAT | O_RDWR, 0600));
    (void)close(openat(AT_FDCWD, "both/new", O_CREAT | O_RDWR, 0600));
    (void)close(openat(AT_FDCWD, "both/old", O_RDWR)); /* copied up */
    int wrong = 0;
    for (size_t i = 0; i < BASE_COUNT(want); i++) {
        bool in_place = true;
        int fd = openat(AT_FDCWD, want[i].name, O_RDONLY | O_DIRECTORY);
        int rc = os_check_fs(fd, &in_place);
        wrong += rc != want[i].status || (rc == SHALE_OK && in_place);
        (void)close(fd);
    }
    return wrong;
}

START_TEST(h26_files_of_an_overlays_lower_layer_are_refused)
{
    static const char *const dirs[] = {"lower", "upper", "work", "mnt", "lower/below", "lower/both"};
    for (size_t i = 0; i < BASE_COUNT(dirs); i++) {
        ck_assert_int_eq(mkdirat(dir, dirs[i], 0700), 0);
    }
    int file, status;
    ck_assert_int_eq(os_open(dir, "lower/below/old", O_RDWR | O_CREAT, 0600, &file), SHALE_OK);
    os_close(&file);
    ck_assert_int_eq(os_open(dir, "lower/both/old", O_RDWR | O_CREAT, 0600, &file), SHALE_OK);
    os_close(&file);
    pid_t child = fork();
    if (child == 0) {
        _exit(overlay_child(_i == 1));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        (void)fprintf(stderr, "skip overlay: this machine does not let the test mount one\n");
    } else {
        ck_assert_int_eq(WEXITSTATUS(status), 0);
    }
}
END_TEST

int main(void)
{
    char root[TEMPDIR_MAX];
    tempdir_root(root);
    Suite *suite = suite_create("fs");
    TCase *fs = tcase_create("fs");
    tcase_set_timeout(fs, 60);
    suite_add_tcase(suite, fs);
    tcase_add_checked_fixture(fs, setup, teardown);
    tcase_add_test(fs, h26_network_file_systems_are_refused_by_type);
    tcase_add_test(fs, a_local_directory_is_accepted);
    tcase_add_loop_test(fs, h26_files_of_an_overlays_lower_layer_are_refused, 0, 2);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    tempdir_remove(root);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
