/* run.c - lockd run: a command under a lock.
 *
 *      lockd: take the lock in its turn, through a descriptor of LOCK
 *        \__ CMD inherits the descriptor; SHALE_LOCK_FD (the write lock) or LOCKD_HELD (a named one) says
 *            which it is
 *      lockd: CMD ends -> unlock, whoever else has inherited it -> exit with CMD's status
 *
 * The lock lives in the open file: if lockd is killed, it lasts until CMD and its heirs are gone, so CMD
 * never runs without it. The write lock is lent: byte 1 alone, so that those inside who write can have byte
 * 2, one after the other.
 *
 * Signals are blocked and waited for, so that none is lost between the fork and the wait. What the terminal
 * sends reaches CMD by its process group and is not passed on again (si_code tells); what somebody sends to
 * lockd is. */
#include "lockd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#define LONG_HOLD_S  10 /* the write lock held so long: say that writers wait */
#define LOOK_AGAIN_S 1  /* there were none yet */

/* ---- the command line ---- */

/* CMD, or -c STRING: before DIR as everything else, or behind it, as with flock. */
static int parse_command(struct request *r)
{
    static char shell[] = "/bin/sh", dash_c[] = "-c";
    static char *command[4];
    char **rest = r->rest;
    int count = r->rest_count;
    if (r->shell == NULL && count == 2 && (strcmp(rest[0], "-c") == 0 || strcmp(rest[0], "--command") == 0)) {
        r->shell = rest[1];
        count = 0;
    }
    if (count > 0 && strcmp(rest[0], "--") == 0) {
        rest++;
        count--;
    }
    if (r->shell != NULL) {
        if (count > 0) {
            return usage_error("run: either -c or a command");
        }
        command[0] = shell;
        command[1] = dash_c;
        command[2] = base_strdup(r->shell);
        rest = command;
        count = command[2] != NULL ? 3 : 0;
    }
    r->rest = rest;
    return count > 0 ? 0 : usage_error("run: a command is needed");
}

static int parse(int argc, char **argv, struct request *r)
{
    int status = request_parse(argc, argv, CMD_RUN, r);
    if (status == 0) {
        status = parse_command(r);
    }
    if (status == 0 && r->close && r->no_fork) {
        return usage_error("run: with -F the lock lives in CMD, so -o would leave none");
    }
    if (status == 0 && r->label == NULL) {
        const char *slash = strrchr(r->rest[0], '/');
        r->label = r->shell != NULL ? r->shell : slash != NULL ? slash + 1 : r->rest[0];
    }
    return status;
}

/* ---- the command ---- */

static int append_env(const char *variable, int fd)
{
    struct stat st;
    struct buf value = {0};
    const char *old = getenv(variable);
    int rc = os_stat(fd, &st);
    if (rc == SHALE_OK) {
        rc = buf_printf(&value, "%s%s%d:%llu:%llu", old != NULL ? old : "",
                        old != NULL && old[0] != '\0' ? "," : "", fd, (unsigned long long)st.st_dev,
                        (unsigned long long)st.st_ino);
    }
    if (rc == SHALE_OK) {
        rc = buf_append(&value, "", 1);
    }
    if (rc == SHALE_OK && setenv(variable, (const char *)value.data, 1) != 0) {
        rc = SHALE_NOMEM;
    }
    buf_release(&value);
    return rc;
}

/* Becomes CMD; returns only the exit status of a failure. fd -1: no lock of ours goes with CMD. */
static int execute(const struct request *r, int fd, uint64_t number)
{
    char text[32];
    sigset_t none;
    int rc = SHALE_OK;
    if (fd >= 0) {
        rc = append_env(r->target.name == NULL ? "SHALE_LOCK_FD" : "LOCKD_HELD", fd);
        (void)fcntl(fd, F_SETFD, 0);
    }
    if (number != 0) {
        (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
        rc = setenv("LOCKD_NUMBER", text, 1) == 0 ? rc : SHALE_NOMEM;
    }
    if (rc != SHALE_OK) {
        complain("cannot set the environment: %s", shale_strerror(rc));
        return EXIT_SYSTEM;
    }
    for (int sig = 1; sig < NSIG; sig++) {
        (void)signal(sig, SIG_DFL);
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execvp(r->rest[0], r->rest);
    int err = errno;
    complain("%s: %s", r->rest[0], strerror(err));
    return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
}

static int count_waiter(void *ctx, const shale_ticket *t)
{
    *(unsigned *)ctx += !t->holder;
    return 0;
}

/* Has it been said that writers wait? */
static bool say_long_hold(const struct request *r, shale_lockq *q, int64_t held_ns)
{
    unsigned waiters = 0;
    if (shale_lockq_list(q, "", count_waiter, &waiters) != SHALE_OK || waiters == 0) {
        return false;
    }
    complain("%s: has held the write lock for %lld s; %u wait for it", r->target.dir,
             (long long)(held_ns / 1000000000), waiters);
    return true;
}

/* Signals that lockd waits for while CMD runs. */
static void block_signals(sigset_t *set)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2,
                                  SIGTSTP, SIGCONT, SIGINT, SIGQUIT};
    (void)sigemptyset(set);
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        (void)sigaddset(set, signals[i]);
    }
    (void)sigprocmask(SIG_BLOCK, set, NULL);
    (void)signal(SIGCHLD, SIG_DFL); /* inherited as ignored, it would eat CMD's status */
}

/* Stops, as CMD does: where nobody could let us go on (an orphaned process group) the kernel stops neither.
 */
static void stop_too(void)
{
    sigset_t stop;
    (void)sigemptyset(&stop);
    (void)sigaddset(&stop, SIGTSTP);
    (void)signal(SIGTSTP, SIG_DFL);
    (void)raise(SIGTSTP);
    (void)sigprocmask(SIG_UNBLOCK, &stop, NULL);
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
}

/* Passes on what was sent to lockd itself. */
static void pass_on(pid_t child, const siginfo_t *info)
{
    bool by_terminal = info->si_code == SI_KERNEL;
    int sig = info->si_signo;
    if (!by_terminal && sig != SIGCHLD && sig != SIGINT && sig != SIGQUIT) {
        (void)kill(child, sig);
    }
    if (sig == SIGTSTP) {
        stop_too();
    }
}

/* Until a signal, or until it is time to look whether writers wait (tell). */
static int next_signal(const sigset_t *signals, bool tell, int64_t look_at, siginfo_t *info)
{
    int64_t left = look_at - os_now();
    struct timespec limit = {.tv_sec = left > 0 ? left / 1000000000 : 0,
                             .tv_nsec = left > 0 ? (long)(left % 1000000000) : 0};
    return tell ? sigtimedwait(signals, info, &limit) : sigwaitinfo(signals, info);
}

static int wait_for(const struct request *r, shale_lockq *q, pid_t child, const sigset_t *signals)
{
    bool tell = q != NULL && r->target.name == NULL && !r->quiet;
    int64_t began = os_now(), look_at = began + LONG_HOLD_S * INT64_C(1000000000);
    int status = 0;
    siginfo_t info;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (next_signal(signals, tell, look_at, &info) > 0) {
            pass_on(child, &info);
        } else if (errno == EAGAIN) {
            tell = !say_long_hold(r, q, os_now() - began);
            look_at = os_now() + LOOK_AGAIN_S * INT64_C(1000000000);
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL(WTERMSIG(status));
}

/* q NULL: an ancestor has lent us the lock, CMD runs under that. */
static int run_command(const struct request *r, shale_lockq *q, int fd, uint64_t number)
{
    sigset_t signals;
    block_signals(&signals);
    if (interrupted() != 0) {
        return EXIT_SIGNAL(interrupted());
    }
    if (r->no_fork) {
        return execute(r, fd, number);
    }
    pid_t child = fork();
    if (child == 0) {
        _exit(execute(r, r->close ? -1 : fd, number));
    }
    if (child < 0) {
        complain("fork: %s", strerror(errno));
        return EXIT_SYSTEM;
    }
    return wait_for(r, q, child, &signals);
}

/* ---- the lock ---- */

/* Is the write lock lent to us already? */
static int find_lent(const char *dir, enum lockq_lent *kind)
{
    int fresh = -1, lent = -1;
    int rc = open_lock(dir, &fresh);
    if (rc == SHALE_OK) {
        rc = lockq_find_lent(fresh, -1, kind, &lent);
    }
    os_close(&fresh);
    return rc;
}

static int find_number(void *ctx, const shale_ticket *t)
{
    *(uint64_t *)ctx = t->holder ? t->number : *(uint64_t *)ctx;
    return 0;
}

/* The lock is the ancestor's, and so is the number: that of this lock, not of one taken in between. */
static int run_lent(const struct request *r, shale_lockq *q)
{
    uint64_t number = 0;
    (void)shale_lockq_list(q, "", find_number, &number);
    return run_command(r, NULL, -1, number);
}

static int run_locked(const struct request *r, shale_lockq *q)
{
    enum lockq_lent lent = LOCKQ_LENT_NONE;
    int fd = -1;
    uint64_t number = 0;
    int rc = r->target.name == NULL ? find_lent(r->target.dir, &lent) : SHALE_OK;
    if (rc == SHALE_OK &&
        (lent == LOCKQ_LENT_WRITE || (lent == LOCKQ_LENT_FROZEN && r->mode == SHALE_LOCK_SHARED))) {
        return run_lent(r, q);
    }
    if (rc == SHALE_OK) {
        rc = open_lock(r->target.dir, &fd);
    }
    if (rc != SHALE_OK) {
        return failure(r->target.dir, rc);
    }
    int status;
    if (acquire(r, q, fd, 0, -1, &number, &status)) {
        status = run_command(r, q, fd, number);
        (void)shale_lockq_release_fd(q, r->target.name, fd);
    }
    os_close(&fd);
    return status;
}

int cmd_run(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int status = parse(argc, argv, &r);
    if (status == 0) {
        status = open_queue(r.target.dir, &q);
    }
    if (status == 0) {
        status = run_locked(&r, q);
        shale_lockq_close(q);
    }
    return status;
}
