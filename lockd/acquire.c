/* acquire.c - taking a lock through a descriptor of LOCK, and what is said when it is not had. */
#include "lockd.h"

#include <signal.h>

#define FIRST_LENT_FD 10 /* scripts use the low ones */

static shale_lockq *waiting; /* what a signal interrupts */
static volatile sig_atomic_t interrupted_by;

/* An interrupt counts only for a wait that has begun: until we are out, it is repeated. */
static void on_signal(int sig)
{
    if (sig != SIGALRM) {
        interrupted_by = sig;
    }
    shale_lockq_interrupt(waiting);
    (void)alarm(1);
}

int interrupted(void)
{
    return interrupted_by;
}

/* While we wait, a signal takes us out of the queue. What was ignored (nohup, a shell's background) stays
 * so. */
static void catch_signals(shale_lockq *q)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    struct sigaction action = {.sa_handler = on_signal}, old;
    waiting = q;
    (void)sigaction(SIGALRM, &action, NULL);
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            (void)sigaction(signals[i], &action, NULL);
        }
    }
}

int open_lock(const char *dir, int *fd)
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

static int not_had(const struct request *r, int rc, bool owner_gone)
{
    if (rc == SHALE_CANCELLED && interrupted_by != 0) {
        return EXIT_SIGNAL(interrupted_by);
    }
    if (rc == SHALE_CANCELLED && owner_gone) {
        complain("%s: process %lld has ended", r->target.dir, (long long)r->for_pid);
        return r->conflict_status;
    }
    if (rc != SHALE_BUSY) {
        return failure(r->target.dir, rc);
    }
    if (!r->quiet) {
        complain("%s: %s", r->target.dir, shale_errmsg());
    }
    return r->conflict_status;
}

bool acquire(const struct request *r, shale_lockq *q, int fd, int64_t owner, int pidfd, uint64_t *number,
             int *status)
{
    struct vigil vigil;
    const char *name = r->target.name;
    catch_signals(q);
    vigil_begin(&vigil, r, q, owner, pidfd);
    int rc = lockq_acquire_fd(q, name, r->mode, r->timeout_ms, r->label, fd, owner, number);
    vigil_end(&vigil);
    if (rc != SHALE_OK) {
        *status = not_had(r, rc, atomic_load(&vigil.owner_gone));
        return false;
    }
    if (interrupted_by != 0) { /* it came too late for the wait */
        (void)shale_lockq_release_fd(q, name, fd);
        *status = EXIT_SIGNAL(interrupted_by);
        return false;
    }
    if (r->verbose) {
        complain("%s: had, number %llu", r->target.dir, (unsigned long long)*number);
    }
    return true;
}
