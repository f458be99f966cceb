/* lockd.h - the lock helper for shell scripts: one file a command, and what they share. */
#ifndef LOCKD_LOCKD_H
#define LOCKD_LOCKD_H

#include "lockq/lockq.h"

#define EXIT_NO_SUCH_HOLD 1
#define EXIT_USAGE        64
#define EXIT_DESCRIPTOR   65
#define EXIT_SYSTEM       71
#define EXIT_OUTPUT       74
#define EXIT_CONFLICT     75
#define EXIT_NOT_RUNNABLE 126
#define EXIT_NOT_FOUND    127
#define EXIT_SIGNAL(n)    (128 + (n))

/* ---- the command line (options.c) ---- */

/* A command is one bit, so that a row of the options' table can say who takes it. */
enum command {
    CMD_RUN = 1,
    CMD_LOCK = 2,
    CMD_UNLOCK = 4,
    CMD_HOLD = 8,
    CMD_DROP = 16,
    CMD_STATUS = 32,
    CMD_WAIT = 64,
    CMD_PATH = 128
};

/* DIR or DIR:NAME: the name follows the last ':' behind the last '/'. */
struct target {
    char *dir;
    const char *name; /* NULL: the write lock */
};

struct request {
    struct target target;
    char **rest; /* the arguments behind DIR */
    int rest_count;
    const char *label, *shell; /* -l; -c */
    int mode, conflict_status;
    int64_t timeout_ms, watch_ms; /* -1: none */
    int64_t for_pid;              /* 0: none */
    bool close, no_fork, quiet, verbose, json;
};
/* Reads the command line of one command, argv[0] being its name. 0, or 64 with the reason printed. */
int request_parse(int argc, char **argv, enum command command, struct request *r);

/* Prints "lockd: ..." to stderr. */
void complain(const char *fmt, ...) BASE_PRINTF(1, 2);
int usage_error(const char *fmt, ...) BASE_PRINTF(1, 2); /* 64 */
/* The exit status for a failure of the library, its text printed. */
int failure(const char *where, int rc);
/* Opens the queue of the directory: 0, or the exit status, the reason printed. */
int open_queue(const char *dir, shale_lockq **q);
/* stdout is written out: 0, or 74 with the reason printed. */
int flush_output(void);

/* ---- taking a lock (acquire.c) ---- */

/* A descriptor of LOCK above those that scripts use; inherited only where we say so. */
int open_lock(const char *dir, int *fd);
/* Takes what r asks for through fd, a descriptor of LOCK; owner: whom to name as the holder, 0: us. Signals
 * take us out of the queue, and so does the end of the process behind pidfd (-1: none). False: not had,
 * *status is the exit status (with -E 0 also 0), and the reason is printed. */
bool acquire(const struct request *r, shale_lockq *q, int fd, int64_t owner, int pidfd, uint64_t *number,
             int *status);
/* The signal that came since acquire began; 0: none. */
int interrupted(void);

/* ---- while waiting (vigil.c) ---- */

/* A thread beside a wait: says after a while who is waited for, and ends the wait when the process that the
 * lock is for has ended. */
struct vigil {
    const struct request *r;
    shale_lockq *q;
    int64_t owner;
    int pidfd, stop; /* stop: an event that ends the thread */
    int64_t tell_ms; /* -1: never */
    pthread_t thread;
    bool runs;
    _Atomic bool owner_gone;
};
void vigil_begin(struct vigil *v, const struct request *r, shale_lockq *q, int64_t owner, int pidfd);
void vigil_end(struct vigil *v);

/* ---- texts (who.c) ---- */

/* "cron-import (pid 4711) (stopped) since 12:03:04 (12.4 s), label "nightly"" */
int who_append(struct buf *text, const shale_ticket *t);
/* "the write lock", "the lock "job"" */
int lock_append(struct buf *text, const char *name);

/* ---- the commands: argv[0] is the command's name; they return the exit status ---- */

int cmd_drop(int argc, char **argv);
int cmd_hold(int argc, char **argv);
int cmd_lock(int argc, char **argv);
int cmd_path(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_unlock(int argc, char **argv);
int cmd_wait(int argc, char **argv);

#endif
