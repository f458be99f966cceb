/* proc.c - worker processes. A worker is this program again, with --worker I behind the same arguments: a
 * process of its own from the first instruction, not a fork of one that has the database open. Its stdin and
 * stdout are pipes: it writes a byte when it is ready, reads a byte as the sign to start, and writes its
 * struct result at the end. Its descriptor BOARD_FD is the board. The first one is ready before the others
 * are started: where there is no database yet it makes it, and not every store can be made by several at
 * once.
 */
#include "agent.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

struct child {
    pid_t pid;
    int to, from; /* from -1: it is done */
};

int result_error(struct result *r, int status, const char *what)
{
    snprintf(r->text, sizeof r->text, "%s: %s", what,
             shale_errmsg()[0] != '\0' ? shale_errmsg() : shale_strerror(status));
    r->status = err_exit_status(status);
    r->status = r->status != 0 ? r->status : EX_SOFTWARE;
    return r->status;
}

struct own {
    int64_t pid;
    uint64_t flushes, compactions;
};

static int add_own(void *ctx, const shale_peer *p)
{
    struct own *o = ctx;
    if (p->pid == o->pid) {
        o->flushes += p->flushes;
        o->compactions += p->compactions;
    }
    return 0;
}

void own_counters(shale_db *db, uint64_t *flushes, uint64_t *compactions)
{
    struct own o = {.pid = getpid()};
    if (shale_who(db, add_own, &o) == SHALE_OK) {
        *flushes = o.flushes;
        *compactions = o.compactions;
    }
}

static bool write_whole(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size != 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool read_whole(int fd, void *data, size_t size)
{
    char *p = data;
    while (size != 0) {
        ssize_t n = read(fd, p, size);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return false;
        }
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

int worker_main(const struct job *job)
{
    struct result *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return EX_OSERR;
    }
    workload_run(job, r);
    int status = r->status;
    if (!r->ready) { /* the parent reads one byte first, whatever it is */
        write_whole(STDOUT_FILENO, "x", 1);
    }
    write_whole(STDOUT_FILENO, r, sizeof *r);
    free(r);
    return status;
}

static int spawn(const struct job *job, unsigned index, int board, struct child *c)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1}, err = EX_OSERR;
    char worker[24], program[4096];
    char **argv = calloc((size_t)job->argc + 2, sizeof *argv);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    /* By its own name: who shows what was executed, and /proc/self/exe would be "exe". */
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0 || argv == NULL || pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) {
        goto out;
    }
    program[n] = '\0';
    snprintf(worker, sizeof worker, "--worker=%u", index);
    /* In front of a "--" that may follow. */
    memcpy(argv, job->argv, (size_t)job->argc * sizeof *argv);
    memmove(argv + 2, argv + 1, (size_t)(job->argc - 1) * sizeof *argv);
    argv[1] = worker;
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, board, BOARD_FD);
    if (posix_spawn(&c->pid, program, &actions, NULL, argv, environ) == 0) {
        c->to = to[1];
        c->from = from[0];
        to[1] = from[0] = -1;
        err = 0;
    }
out:
    os_close(&to[0]);
    os_close(&to[1]);
    os_close(&from[0]);
    os_close(&from[1]);
    posix_spawn_file_actions_destroy(&actions);
    free(argv);
    return err;
}

static void collect(struct child *c, struct result *r)
{
    int status = 0;
    if (!read_whole(c->from, r, sizeof *r)) {
        *r = (struct result){.status = EX_SOFTWARE, .pid = c->pid};
        snprintf(r->text, sizeof r->text, "the process died");
    }
    os_close(&c->to);
    os_close(&c->from);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) {
        r->status = EX_SOFTWARE;
        snprintf(r->text, sizeof r->text, "killed by signal %d", WTERMSIG(status));
    }
}

/* The first one by itself, then all others. */
static int start_all(const struct job *job, int board, struct child *children, unsigned *started)
{
    int status = 0;
    char c;
    while (status == 0 && *started < job->processes) {
        status = spawn(job, *started, board, &children[*started]);
        *started += status == 0;
        if (status == 0 && *started == 1) {
            (void)!read_whole(children[0].from, &c, 1); /* ready, or gone */
        }
    }
    for (unsigned i = 1; i < *started; i++) {
        (void)!read_whole(children[i].from, &c, 1);
    }
    for (unsigned i = 0; i < *started && status == 0; i++) {
        (void)!write_whole(children[i].to, "g", 1);
    }
    return status;
}

/* Waits for a result or for the next tick, whichever comes first; the child whose result is there, or -1. */
static int next_event(const struct job *job, const struct child *children, struct pollfd *fds, int64_t tick)
{
    int64_t left = tick - os_now();
    for (unsigned i = 0; i < job->processes; i++) {
        fds[i] = (struct pollfd){.fd = children[i].from, .events = POLLIN};
    }
    poll(fds, job->processes, left > 0 ? (int)(left / 1000000) + 1 : 0);
    for (unsigned i = 0; i < job->processes; i++) {
        if (fds[i].fd >= 0 && fds[i].revents != 0) {
            return (int)i;
        }
    }
    return -1;
}

/* Results as they come, and the board in between. Where one has failed, all end. */
static int collect_all(const struct job *job, struct child *children, struct result *results,
                       struct board *board, struct series *series)
{
    struct pollfd *fds = calloc(job->processes, sizeof *fds);
    unsigned left = job->processes;
    int status = fds == NULL ? EX_OSERR : 0;
    int64_t tick = os_now() + BOARD_TICK_NS;
    while (left != 0 && fds != NULL) {
        if (os_now() >= tick) {
            board_tick(job, board, series);
            tick += BOARD_TICK_NS;
        }
        int i = next_event(job, children, fds, tick);
        if (i < 0) {
            continue;
        }
        left--;
        collect(&children[i], &results[i]);
        if (results[i].status != 0 && status == 0) {
            board_line_end(job);
            status = complain(job, results[i].status, "process %d: %s", i + 1, results[i].text);
            atomic_store_explicit(&board->stop, true, memory_order_relaxed);
        }
    }
    board_tick(job, board, series);
    board_line_end(job);
    free(fds);
    return status;
}

int proc_run(const struct job *job, struct result *results, struct series *series)
{
    struct child *children = calloc(job->processes, sizeof *children);
    struct board *board = NULL;
    unsigned started = 0;
    int fd = -1, status = children == NULL ? EX_OSERR : 0;
    if (status == 0 && board_create(job, &fd, &board) != SHALE_OK) {
        status = complain_library(job, SHALE_IO, "start");
    }
    if (status == 0) {
        atomic_store_explicit(&board->reading, (uint64_t)job->processes * job->threads - 1,
                              memory_order_relaxed);
        board_tick(job, board, series); /* nothing is done yet */
        status = start_all(job, fd, children, &started);
    }
    if (status == 0) {
        status = collect_all(job, children, results, board, series);
    } else {
        for (unsigned i = 0; i < started; i++) {
            os_close(&children[i].to); /* the end of its input: it gives up */
            collect(&children[i], &results[i]);
        }
    }
    os_close(&fd);
    board_detach(job, board);
    free(children);
    return status;
}
