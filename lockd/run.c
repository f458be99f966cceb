/* run.c - lockd run: a command under a lock.
 *
 *      lockd: take the lock in its turn, through a descriptor of LOCK
 *        \__ CMD inherits the descriptor; SHALE_LOCK_FD (the write lock) or LOCKD_HELD (a named one) says
 * which it is lockd: CMD ends -> unlock, whoever else has inherited it -> exit with CMD's status
 *
 * The lock lives in the open file: if lockd is killed, it lasts until CMD and its heirs are gone, so CMD
 * never runs without it. The write lock is lent: byte 1 alone, so that those inside who write can have byte
 * 2, one after the other.
 *
 * Signals are blocked and waited for, so that none is lost between the fork and the wait. What the terminal
 * sends reaches CMD by its process group and is not passed on again (si_code tells); what somebody sends to
 * lockd is. */
#include "lockd.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#define LONG_HOLD_S   10 /* the write lock held so long: say that writers wait */
#define FIRST_LENT_FD 10 /* scripts use the low ones */

struct run {
    struct target target;
    char **command;
    const char *label;
    int mode, conflict_status;
    int64_t timeout_ms;
    bool close, quiet, verbose;
};

/* ---- the command line ---- */

static bool parse_seconds(const char *text, int64_t *ms)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds >= 0 && seconds <= 1e9)) {
        return false;
    }
    *ms = (int64_t)(seconds * 1000.0 + 0.999);
    return true;
}

static bool parse_code(const char *text, int *code)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 0 || value > 255) {
        return false;
    }
    *code = (int)value;
    return true;
}

static int parse_option(struct run *r, int c)
{
    switch (c) {
    case 'x': r->mode = SHALE_LOCK_EXCLUSIVE; return 0;
    case 's': r->mode = SHALE_LOCK_SHARED; return 0;
    case 'n': r->timeout_ms = 0; return 0;
    case 'w':
        return parse_seconds(optarg, &r->timeout_ms)
                   ? 0
                   : usage_error("-w %s: a number of seconds is needed", optarg);
    case 'E':
        return parse_code(optarg, &r->conflict_status) ? 0 : usage_error("-E %s: 0 to 255 is needed", optarg);
    case 'o': r->close = true; return 0;
    case 'l': r->label = optarg; return 0;
    case 'q': r->quiet = true; return 0;
    case 'v': r->verbose = true; return 0;
    default: return EXIT_USAGE; /* getopt has said why */
    }
}

static int parse(int argc, char **argv, struct run *r)
{
    static const struct option options[] = {{"exclusive", no_argument, NULL, 'x'},
                                            {"shared", no_argument, NULL, 's'},
                                            {"nonblock", no_argument, NULL, 'n'},
                                            {"timeout", required_argument, NULL, 'w'},
                                            {"conflict-exit-code", required_argument, NULL, 'E'},
                                            {"close", no_argument, NULL, 'o'},
                                            {"label", required_argument, NULL, 'l'},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    *r = (struct run){.mode = SHALE_LOCK_EXCLUSIVE, .conflict_status = EXIT_CONFLICT, .timeout_ms = -1};
    int c, rc = 0;
    while (rc == 0 && (c = getopt_long(argc, argv, OPTIONS_FIRST "xsnw:E:ol:qv", options, NULL)) != -1) {
        rc = parse_option(r, c);
    }
    if (rc != 0) {
        return rc;
    }
    if (optind >= argc) {
        return usage_error("run: a directory is needed");
    }
    target_parse(argv[optind++], &r->target);
    if (optind < argc && strcmp(argv[optind], "--") == 0) {
        optind++;
    }
    if (optind >= argc) {
        return usage_error("run: a command is needed");
    }
    if (r->target.name != NULL && r->target.name[0] == '\0') {
        return usage_error("run: a lock's name is needed behind the ':'");
    }
    r->command = argv + optind;
    if (r->label == NULL) {
        const char *slash = strrchr(r->command[0], '/');
        r->label = slash != NULL ? slash + 1 : r->command[0];
    }
    return 0;
}

/* ---- the lock ---- */

static shale_lockq *waiting; /* what a signal interrupts */
static volatile sig_atomic_t interrupted_by;

static void on_signal(int sig)
{
    interrupted_by = sig;
    shale_lockq_interrupt(waiting);
}

/* While lockd waits, a signal takes it out of the queue. */
static void catch_signals(shale_lockq *q)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    struct sigaction action = {.sa_handler = on_signal};
    waiting = q;
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        (void)sigaction(signals[i], &action, NULL);
    }
}

/* A descriptor of LOCK above those that scripts use; inherited only where we say so. */
static int open_lock(const char *dir, int *fd)
{
    int dirfd = -1, low = -1;
    int rc = os_open_dir(dir, &dirfd);
    if (rc == SHALE_OK) {
        rc = os_open(dirfd, "LOCK", O_RDWR, 0, &low);
    }
    if (rc == SHALE_OK) {
        *fd = fcntl(low, F_DUPFD_CLOEXEC, FIRST_LENT_FD);
        rc = *fd >= 0 ? SHALE_OK : err_sys("LOCK: duplicate the descriptor");
    }
    os_close(&low);
    os_close(&dirfd);
    return rc;
}

static int acquire(const struct run *r, shale_lockq *q, int fd)
{
    int rc = SHALE_BUSY;
    if (r->verbose && r->timeout_ms != 0) {
        rc = shale_lockq_acquire_fd(q, r->target.name, r->mode, 0, r->label, fd, 0);
        if (rc == SHALE_BUSY) {
            complain("%s: waiting: %s", r->target.dir, shale_errmsg());
        }
    }
    if (rc == SHALE_BUSY) {
        rc = shale_lockq_acquire_fd(q, r->target.name, r->mode, r->timeout_ms, r->label, fd, 0);
    }
    return rc;
}

static int not_had(const struct run *r, int rc)
{
    if (rc == SHALE_CANCELLED && interrupted_by != 0) {
        return EXIT_SIGNAL(interrupted_by);
    }
    if (rc != SHALE_BUSY) {
        return failure(r->target.dir, rc);
    }
    if (!r->quiet) {
        complain("%s: %s", r->target.dir, shale_errmsg());
    }
    return r->conflict_status;
}

struct mine {
    uint64_t number;
};

static int find_mine(void *ctx, const shale_ticket *t)
{
    struct mine *mine = ctx;
    if (t->holder && t->pid == os_self()->pid && t->pid_ns == os_self()->pid_ns) {
        mine->number = t->number;
    }
    return 0;
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

/* In the child. fd -1: no lock of ours goes with CMD. */
static void execute(const struct run *r, int fd, uint64_t number)
{
    char text[32];
    sigset_t none;
    int rc = SHALE_OK;
    for (int sig = 1; sig < NSIG; sig++) {
        (void)signal(sig, SIG_DFL);
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
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
        _exit(EXIT_SYSTEM);
    }
    (void)execvp(r->command[0], r->command);
    int err = errno;
    complain("%s: %s", r->command[0], strerror(err));
    _exit(err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE);
}

static int count_waiter(void *ctx, const shale_ticket *t)
{
    *(unsigned *)ctx += !t->holder;
    return 0;
}

static void say_long_hold(const struct run *r, shale_lockq *q)
{
    unsigned waiters = 0;
    if (q != NULL && r->target.name == NULL && !r->quiet &&
        shale_lockq_list(q, "", count_waiter, &waiters) == SHALE_OK && waiters > 0) {
        complain("%s: has held the write lock for %d s; %u wait for it", r->target.dir, LONG_HOLD_S, waiters);
    }
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

/* Passes on what was sent to lockd itself. */
static void pass_on(pid_t child, const siginfo_t *info)
{
    bool by_terminal = info->si_code == SI_KERNEL;
    int sig = info->si_signo;
    if (!by_terminal && sig != SIGCHLD && sig != SIGINT && sig != SIGQUIT) {
        (void)kill(child, sig);
    }
    if (sig == SIGTSTP) {
        (void)raise(SIGSTOP); /* as CMD does */
    }
}

static int wait_for(const struct run *r, shale_lockq *q, pid_t child, const sigset_t *signals)
{
    struct timespec limit = {.tv_sec = LONG_HOLD_S};
    bool told = false;
    int status;
    siginfo_t info;
    while (waitpid(child, &status, WNOHANG) == 0) {
        int sig = told ? sigwaitinfo(signals, &info) : sigtimedwait(signals, &info, &limit);
        if (sig > 0) {
            pass_on(child, &info);
        } else if (errno == EAGAIN) {
            told = true;
            say_long_hold(r, q);
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL(WTERMSIG(status));
}

/* q NULL: an ancestor has lent us the lock, CMD runs under that. */
static int run_command(const struct run *r, shale_lockq *q, int fd)
{
    struct mine mine = {0};
    sigset_t signals;
    if (q != NULL) {
        (void)shale_lockq_list(q, r->target.name != NULL ? r->target.name : "", find_mine, &mine);
        if (r->verbose) {
            complain("%s: had, number %llu", r->target.dir, (unsigned long long)mine.number);
        }
    }
    block_signals(&signals);
    pid_t child = fork();
    if (child == 0) {
        execute(r, r->close ? -1 : fd, mine.number);
    }
    if (child < 0) {
        complain("fork: %s", strerror(errno));
        return EXIT_SYSTEM;
    }
    return wait_for(r, q, child, &signals);
}

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

static int run_locked(const struct run *r, shale_lockq *q)
{
    enum lockq_lent lent = LOCKQ_LENT_NONE;
    int fd = -1, status;
    int rc = r->target.name == NULL ? find_lent(r->target.dir, &lent) : SHALE_OK;
    if (rc == SHALE_OK &&
        (lent == LOCKQ_LENT_WRITE || (lent == LOCKQ_LENT_FROZEN && r->mode == SHALE_LOCK_SHARED))) {
        return run_command(r, NULL, -1);
    }
    if (rc == SHALE_OK) {
        rc = open_lock(r->target.dir, &fd);
    }
    if (rc == SHALE_OK) {
        catch_signals(q);
        rc = acquire(r, q, fd);
    }
    if (rc == SHALE_OK) {
        status = run_command(r, q, fd);
        (void)shale_lockq_release_fd(q, r->target.name, fd);
    } else {
        status = not_had(r, rc);
    }
    os_close(&fd);
    return status;
}

int cmd_run(int argc, char **argv)
{
    struct run r;
    shale_lockq *q = NULL;
    int status = parse(argc, argv, &r);
    if (status != 0) {
        return status;
    }
    int rc = shale_lockq_open(r.target.dir, 0600, &q);
    if (rc != SHALE_OK) {
        /* The text begins with the directory. */
        complain("%s", shale_errmsg());
        return err_exit_status(rc);
    }
    status = run_locked(&r, q);
    shale_lockq_close(q);
    return status;
}
