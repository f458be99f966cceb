/* lock_agent.h - the tests of locks: two open files of LOCK, and another process that locks too.
 *
 * The other process is the test program started again with the argument "agent": it reads commands of one
 * letter from its standard input and answers each with one. */
#ifndef TESTS_LOCK_AGENT_H
#define TESTS_LOCK_AGENT_H

#include "os/os.h"
#include "tempdir.h"

#include <check.h>
#include <signal.h>
#include <sys/wait.h>

#define MS INT64_C(1000000)

static char self_path[TEMPDIR_MAX];
static char dir_path[TEMPDIR_MAX];
static int dir = -1, lock_a = -1, lock_b = -1; /* two open files of LOCK */

static inline int open_lock(void)
{
    int fd = -1;
    ck_assert_int_eq(os_open(dir, "LOCK", O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    return fd;
}

static inline void setup(void)
{
    tempdir_make(dir_path);
    ck_assert_int_eq(os_open_dir(dir_path, &dir), SHALE_OK);
    lock_a = open_lock();
    lock_b = open_lock();
}

static inline void teardown(void)
{
    os_close(&lock_a), os_close(&lock_b), os_close(&dir);
    ck_assert_uint_eq(os_open_files(), 0);
    tempdir_remove(dir_path);
}

static inline bool taken(int fd, uint64_t start, uint64_t length, bool exclusive)
{
    bool is = false;
    ck_assert_int_eq(os_lock_test(fd, start, length, exclusive, &is), SHALE_OK);
    return is;
}

/* ---- the other process ---- */

struct agent {
    pid_t pid;
    int to, from;
};

static inline void agent_start(struct agent *a)
{
    int to[2], from[2];
    ck_assert(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    a->pid = fork();
    if (a->pid == 0) {
        (void)dup2(to[0], 0);
        (void)dup2(from[1], 1);
        (void)execl(self_path, self_path, "agent", dir_path, (char *)NULL);
        _exit(127);
    }
    ck_assert_int_gt(a->pid, 0);
    (void)close(to[0]), (void)close(from[1]);
    a->to = to[1];
    a->from = from[0];
}

static inline void agent_tell(const struct agent *a, char command)
{
    ck_assert_int_eq(write(a->to, &command, 1), 1);
}

static inline int agent_answer(const struct agent *a)
{
    char answer = '?';
    ck_assert_int_eq(read(a->from, &answer, 1), 1);
    return answer;
}

static inline int agent_ask(const struct agent *a, char command)
{
    agent_tell(a, command);
    return agent_answer(a);
}

static inline void agent_end(struct agent *a, int signal)
{
    int status;
    if (signal != 0) {
        ck_assert_int_eq(kill(a->pid, signal), 0);
    }
    (void)close(a->to), (void)close(a->from);
    ck_assert_int_eq(waitpid(a->pid, &status, 0), a->pid);
    ck_assert(signal != 0 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static inline char letter(int rc)
{
    return rc == SHALE_OK ? '+' : rc == SHALE_BUSY ? '-' : rc == SHALE_CANCELLED ? 'c' : 'e';
}

/* x, s: locks bytes 5-6 exclusively or shared; u: unlocks; w: waits for role FLUSH; f: frees it; z: sleeps on
 * the word of the mapped file until it is not 0. */
static inline int agent_main(const char *path)
{
    int fd = -1, lock = -1, words = -1;
    void *map = NULL;
    char command;
    struct os_roles roles;
    struct os_wait wait = os_wait_ms(20000, NULL);
    if (os_open_dir(path, &fd) != 0 || os_open(fd, "LOCK", O_RDWR, 0, &lock) != 0 ||
        os_roles_init(&roles, lock) != 0) {
        return 1;
    }
    while (read(0, &command, 1) == 1) {
        char answer = 'e';
        if (command == 'x' || command == 's') {
            answer = letter(os_lock_try(lock, 5, 2, command == 'x'));
        } else if (command == 'u') {
            answer = letter(os_unlock(lock, 5, 2));
        } else if (command == 'w') {
            answer = letter(os_role_lock(&roles, OS_ROLE_FLUSH, &wait, NULL));
        } else if (command == 'f') {
            os_role_unlock(&roles, OS_ROLE_FLUSH);
            answer = '+';
        } else if (command == 'z' && os_open(fd, "words", O_RDWR, 0, &words) == 0 &&
                   os_map(words, 4096, true, &map) == 0) {
            _Atomic uint32_t *word = map;
            int rc = SHALE_OK;
            while (rc == SHALE_OK && atomic_load(word) == 0) {
                atomic_store(word + 1, 1);
                rc = os_sleep(&wait, word, 0, 20000 * MS); /* only a wake ends this in time */
            }
            answer = letter(rc);
        }
        if (write(1, &answer, 1) != 1) {
            return 1;
        }
    }
    return 0;
}

/* The body of a test program's main. */
static inline int lock_test_main(int argc, char **argv, Suite *(*suite)(void))
{
    char root[TEMPDIR_MAX];
    if (argc == 3 && strcmp(argv[1], "agent") == 0) {
        return agent_main(argv[2]);
    }
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
    self_path[n > 0 ? n : 0] = '\0';
    tempdir_root(root);
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    tempdir_remove(root);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
