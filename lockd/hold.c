/* hold.c - lockd hold and drop: a lock that a process in the background keeps while another one lives.
 *
 *      lockd hold --for PID DIR            the script named as holder, the number printed
 *        \__ the keeper: holds the open file; waits for PID's end (pidfd) or for somebody at the door
 *      lockd drop DIR NUMBER               knocks, and waits until the keeper has let go
 *
 * The door is a FIFO in queue/, named after the lock and the number: it works between PID namespaces, where a
 * pid would be somebody else's, and its permissions are those of the locks. A keeper that is killed leaves it
 * behind; it is removed by the next hold, or with everything else of an older boot. */
#include "lockd.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>

#define DOOR_NAME      64
#define DROP_WAIT_MS   5000
#define DOOR_ORPHAN_S  60 /* a door without a keeper: older than this, nobody is about to open it */
#define KEEPER_HIGH_FD 10

struct hold {
    const struct request *r;
    shale_lockq *q;
    int queue_dir, lock, pidfd, door;
    int ready[2]; /* a pipe: the keeper says that it keeps */
    uint64_t number;
    char name[DOOR_NAME];
};

/* ---- the door ---- */

/* SHALE_NOTFOUND, without a text: nobody has ever locked there. */
static int open_queue_dir(const char *dir, int *fd)
{
    int dirfd = -1;
    int rc = os_open_dir(dir, &dirfd);
    if (rc == SHALE_OK) {
        rc = os_open(dirfd, "queue", O_RDONLY | O_DIRECTORY, 0, fd);
    }
    os_close(&dirfd);
    return rc;
}

/* BOOT.hold-: files whose name begins with another boot's digits are removed at that boot. */
static int door_prefix(char *name, size_t size)
{
    unsigned char boot[16];
    os_boot_id(boot);
    return snprintf(name, size, "%02x%02x%02x%02x.hold-", boot[0], boot[1], boot[2], boot[3]);
}

static void door_name(const struct target *t, uint64_t number, char name[DOOR_NAME])
{
    uint64_t lock = t->name == NULL ? 0 : XXH3_64bits(t->name, strlen(t->name));
    int at = door_prefix(name, DOOR_NAME);
    (void)snprintf(name + at, DOOR_NAME - (size_t)at, "%016llx-%llu", (unsigned long long)lock,
                   (unsigned long long)number);
}

static int open_to_knock(int queue_dir, const char *name)
{
    return openat(queue_dir, name, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
}

static int remove_orphan(void *ctx, const char *name)
{
    int queue_dir = *(const int *)ctx;
    char prefix[DOOR_NAME];
    struct stat st;
    if (strncmp(name, prefix, (size_t)door_prefix(prefix, sizeof prefix)) != 0 ||
        os_stat_at(queue_dir, name, &st) != SHALE_OK || !S_ISFIFO(st.st_mode) ||
        time(NULL) - st.st_ctime < DOOR_ORPHAN_S) {
        return 0;
    }
    int fd = open_to_knock(queue_dir, name);
    if (fd < 0 && errno == ENXIO) {
        (void)os_unlink(queue_dir, name);
    }
    os_close(&fd);
    return 0;
}

/* Open for reading and writing, so that a visitor who leaves is no end of file. Who may take the lock may
 * knock. */
static int make_door(struct hold *h)
{
    struct stat st;
    int rc = h->number != 0 ? open_queue_dir(h->r->target.dir, &h->queue_dir) : SHALE_NOTFOUND;
    if (rc == SHALE_NOTFOUND) {
        rc = err_set(SHALE_UNSUPPORTED, "there is no usable lock-queue file, so there is no number to drop");
    }
    if (rc == SHALE_OK) {
        rc = os_stat(h->lock, &st);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    (void)os_list(h->queue_dir, remove_orphan, &h->queue_dir);
    door_name(&h->r->target, h->number, h->name);
    if (mkfifoat(h->queue_dir, h->name, 0600) != 0) {
        return err_sys("queue/%s", h->name);
    }
    h->door = openat(h->queue_dir, h->name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (h->door < 0 || fchmod(h->door, 0600 | (st.st_mode & 0022)) != 0) {
        rc = err_sys("queue/%s", h->name);
        (void)os_unlink(h->queue_dir, h->name);
    }
    return rc;
}

/* ---- the keeper ---- */

static volatile sig_atomic_t told_to_end;

static void on_end(int sig)
{
    (void)sig;
    told_to_end = 1;
}

/* SIG_BLOCK: none of them until the keeper waits. */
static void end_signals(sigset_t *old)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        (void)sigaddset(&set, signals[i]);
    }
    (void)sigprocmask(SIG_BLOCK, &set, old);
}

/* Out of the session, away from the terminal, and with no descriptor but the keeper's own: what the script
 * has open, other locks among it, must end with the script. */
static int let_go_of_terminal(struct hold *h)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int *mine[] = {&null, &null, &null, &h->lock, &h->pidfd, &h->door, &h->queue_dir, &h->ready[1]};
    int count = (int)BASE_COUNT(mine);
    (void)setsid();
    for (int i = 2; i < count; i++) { /* out of the way of the numbers to come */
        *mine[i] = fcntl(*mine[i], F_DUPFD_CLOEXEC, KEEPER_HIGH_FD);
    }
    for (int i = 0; i < count; i++) {
        if (dup2(*mine[i], i) < 0) {
            return err_sys("duplicate a descriptor");
        }
    }
    for (int i = 3; i < count; i++) {
        *mine[i] = i;
    }
    return close_range((unsigned)count, ~0u, 0) == 0 ? SHALE_OK : err_sys("close_range");
}

static int keep(struct hold *h, const sigset_t *unblocked)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction action = {.sa_handler = on_end};
    struct pollfd events[2];
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        (void)sigaction(signals[i], &action, NULL);
    }
    if (let_go_of_terminal(h) != SHALE_OK || write(h->ready[1], "", 1) != 1) {
        return EXIT_SYSTEM;
    }
    os_close(&h->ready[1]);
    /* The parent's handle is not ours. Without one of our own the lock ends with this process, and the next
     * finds it free a little later. */
    shale_lockq *q = NULL;
    int rc = shale_lockq_open(h->r->target.dir, 0600, &q);
    (void)!chdir("/");
    events[0] = (struct pollfd){.fd = h->pidfd, .events = POLLIN};
    events[1] = (struct pollfd){.fd = h->door, .events = POLLIN};
    while (!told_to_end && (ppoll(events, 2, NULL, unblocked) < 0 && errno == EINTR)) {
    }
    if (rc == SHALE_OK) {
        (void)shale_lockq_release_fd(q, h->r->target.name, h->lock);
        shale_lockq_close(q);
    }
    (void)os_unlink(h->queue_dir, h->name);
    return 0;
}

/* ---- hold ---- */

static int open_pidfd(const struct request *r, int *pidfd)
{
    *pidfd = pidfd_open((pid_t)r->for_pid, 0);
    if (*pidfd >= 0) {
        return 0;
    }
    if (errno == ESRCH) {
        return usage_error("hold: there is no process %lld", (long long)r->for_pid);
    }
    complain("process %lld: %s", (long long)r->for_pid, strerror(errno));
    return EXIT_SYSTEM;
}

/* Waits until the keeper keeps. It may have died before. */
static bool keeper_is_ready(struct hold *h)
{
    char byte;
    ssize_t got;
    os_close(&h->ready[1]);
    do {
        got = read(h->ready[0], &byte, 1);
    } while (got < 0 && errno == EINTR);
    return got == 1;
}

static void let_go(struct hold *h)
{
    (void)shale_lockq_release_fd(h->q, h->r->target.name, h->lock);
    (void)os_unlink(h->queue_dir, h->name);
}

/* The door is there: leaves the lock with the keeper, and tells its number. */
static int start_keeper(struct hold *h)
{
    sigset_t old;
    end_signals(&old);
    pid_t keeper = pipe2(h->ready, O_CLOEXEC) == 0 ? fork() : -1;
    if (keeper == 0) {
        _exit(keep(h, &old));
    }
    if (keeper < 0 || !keeper_is_ready(h)) {
        complain("%s: the process that was to keep the lock did not start: %s", h->r->target.dir,
                 keeper < 0 ? strerror(errno) : "it ended");
        let_go(h);
        return EXIT_SYSTEM;
    }
    (void)printf("%llu\n", (unsigned long long)h->number);
    int status = flush_output();
    if (status != 0) { /* nobody could drop what nobody knows the number of */
        (void)kill(keeper, SIGTERM);
        (void)waitpid(keeper, NULL, 0);
    }
    return status;
}

static int leave_with_keeper(struct hold *h)
{
    int rc = make_door(h);
    if (rc != SHALE_OK) {
        (void)shale_lockq_release_fd(h->q, h->r->target.name, h->lock);
        return failure(h->r->target.dir, rc);
    }
    return start_keeper(h);
}

int cmd_hold(int argc, char **argv)
{
    struct request r;
    struct hold h = {.r = &r, .queue_dir = -1, .lock = -1, .pidfd = -1, .door = -1, .ready = {-1, -1}};
    int status = request_parse(argc, argv, CMD_HOLD, &r);
    if (status == 0 && r.rest_count > 0) {
        status = usage_error("hold: one directory is needed");
    }
    if (status == 0 && r.for_pid == 0) {
        status = usage_error("hold: --for PID is needed: the lock is kept while that process lives");
    }
    if (status == 0) {
        status = open_pidfd(&r, &h.pidfd);
    }
    if (status == 0) {
        status = open_queue(r.target.dir, &h.q);
    }
    if (status == 0) {
        int rc = open_lock(r.target.dir, &h.lock);
        if (rc != SHALE_OK) {
            status = failure(r.target.dir, rc);
        } else if (acquire(&r, h.q, h.lock, r.for_pid, h.pidfd, &h.number, &status)) {
            status = leave_with_keeper(&h);
        }
    }
    shale_lockq_close(h.q);
    os_close(&h.ready[0]);
    os_close(&h.ready[1]);
    os_close(&h.door);
    os_close(&h.pidfd);
    os_close(&h.lock);
    os_close(&h.queue_dir);
    return status;
}

/* ---- drop ---- */

/* Until the keeper has closed the door behind it: then the lock is free. */
static int await_keeper(int door)
{
    struct pollfd event = {.fd = door};
    int64_t end = os_now() + DROP_WAIT_MS * INT64_C(1000000);
    for (;;) {
        int64_t left = (end - os_now()) / 1000000;
        int n = poll(&event, 1, left > 0 ? (int)left : 0);
        if (n > 0) {
            return 0;
        }
        if (n == 0) {
            return EXIT_CONFLICT;
        }
    }
}

static int no_such_hold(const struct request *r, uint64_t number)
{
    complain("%s: no hold has the number %llu", r->target.dir, (unsigned long long)number);
    return EXIT_NO_SUCH_HOLD;
}

static int knock(const struct request *r, int queue_dir, uint64_t number)
{
    char name[DOOR_NAME];
    struct stat st;
    door_name(&r->target, number, name);
    int door = open_to_knock(queue_dir, name);
    int err = errno, status;
    if (door < 0 && (err == ENOENT || err == ENXIO)) {
        (void)os_unlink(queue_dir, name); /* a number is never given out again */
        return no_such_hold(r, number);
    }
    if (door < 0) {
        return failure(r->target.dir, err_sys("queue/%s", name));
    }
    if (fstat(door, &st) != 0 || !S_ISFIFO(st.st_mode)) {
        status = no_such_hold(r, number);
    } else {
        (void)!write(door, "", 1); /* full: others have knocked */
        status = await_keeper(door);
        if (status != 0) {
            complain("%s: told the keeper of number %llu, but it does not let go; is it stopped?",
                     r->target.dir, (unsigned long long)number);
        }
    }
    os_close(&door);
    return status;
}

int cmd_drop(int argc, char **argv)
{
    struct request r;
    char *end;
    int queue_dir = -1;
    int status = request_parse(argc, argv, CMD_DROP, &r);
    if (status == 0 && r.rest_count != 1) {
        status = usage_error("drop: a directory and the number that hold printed are needed");
    }
    if (status != 0) {
        return status;
    }
    errno = 0;
    uint64_t number = strtoull(r.rest[0], &end, 10);
    if (errno != 0 || r.rest[0][0] < '0' || r.rest[0][0] > '9' || *end != '\0') {
        return usage_error("drop: %s is no number", r.rest[0]);
    }
    int rc = open_queue_dir(r.target.dir, &queue_dir);
    if (rc == SHALE_NODB) {
        complain("%s", shale_errmsg()); /* it begins with the directory */
        return err_exit_status(rc);
    }
    status = rc == SHALE_OK         ? knock(&r, queue_dir, number)
             : rc == SHALE_NOTFOUND ? no_such_hold(&r, number)
                                    : failure(r.target.dir, rc);
    os_close(&queue_dir);
    return status;
}
