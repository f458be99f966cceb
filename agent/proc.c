/* proc.c - worker processes. A worker is this program again, with --worker I behind the same arguments: a
 * process of its own from the first instruction, not a fork of one that has the database open. Its stdin and
 * stdout are pipes: it writes a byte when it is ready, reads a byte as the sign to start, and writes its
 * struct result at the end.
 */
#include "agent.h"
#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

struct child {
    pid_t pid;
    int to, from;
};

int result_error(struct result *r, int status, const char *what)
{
    snprintf(r->text, sizeof r->text, "%s: %s", what,
             shale_errmsg()[0] != '\0' ? shale_errmsg() : shale_strerror(status));
    r->status = err_exit_status(status);
    r->status = r->status != 0 ? r->status : EX_SOFTWARE;
    return r->status;
}

uint64_t memory_anonymous_kib(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/smaps_rollup", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "Anonymous: %llu", &kib) == 1) {
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return kib;
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

static int spawn(const struct job *job, unsigned index, struct child *c)
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

int proc_run(const struct job *job, struct result *results)
{
    struct child *children = calloc(job->processes, sizeof *children);
    unsigned started = 0;
    int status = children == NULL ? EX_OSERR : 0;
    while (status == 0 && started < job->processes) {
        status = spawn(job, started, &children[started]);
        started += status == 0;
    }
    char c;
    for (unsigned i = 0; i < started; i++) {
        (void)!read_whole(children[i].from, &c, 1); /* ready, or gone */
    }
    for (unsigned i = 0; i < started && status == 0; i++) {
        (void)!write_whole(children[i].to, "g", 1);
    }
    for (unsigned i = 0; i < started; i++) {
        if (status != 0) {
            os_close(&children[i].to); /* the end of its input: it gives up */
        }
        collect(&children[i], &results[i]);
        if (results[i].status != 0 && status == 0) {
            status = complain(job, results[i].status, "process %u: %s", i + 1, results[i].text);
        }
    }
    free(children);
    return status;
}
