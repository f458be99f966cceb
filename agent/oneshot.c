/* oneshot.c - a process for each operation: it opens the database, gets or puts one key, closes, and is gone.
 * Each is a fork of a lane that has nothing open, so nobody pays for loading a program; the time is the
 * child's own, from before the open to behind the close.
 */
#include "agent.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* What the child leaves. */
struct visit {
    int status;
    int64_t ns;
    struct result r;
};

static int visit(struct lane *l, enum op op)
{
    const struct driver_config config = {l->job->dir, strcmp(l->job->sync, "commit") == 0, l->job->options};
    uint64_t done;
    void *db = NULL;
    int status = l->driver->open(&config, &db);
    if (status != SHALE_OK) {
        return status;
    }
    status = l->driver->attach(db, &l->session);
    if (status == SHALE_OK) {
        status = step_run(l, op, &done);
        l->driver->detach(l->session);
    }
    int closed = l->driver->close(db);
    return status == SHALE_OK ? closed : status;
}

static _Noreturn void child(struct lane *l, enum op op, struct visit *v)
{
    int64_t start = os_now();
    v->status = visit(l, op);
    v->ns = os_now() - start;
    if (v->status != SHALE_OK) {
        result_error(&l->r, v->status, "one-shot");
    }
    v->r = l->r;
    _exit(0);
}

/* Runs one, and takes over what it counted. */
static int run_one(struct lane *l, enum op op, struct visit *v)
{
    int state = 0;
    v->status = SHALE_IO;
    pid_t pid = fork();
    if (pid == 0) {
        child(l, op, v);
    }
    if (pid < 0) {
        return err_sys("fork");
    }
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(state)) {
        return err_set(SHALE_IO, "a one-shot process was killed by signal %d", WTERMSIG(state));
    }
    l->r = v->r;
    if (v->status != SHALE_OK) {
        return err_set(v->status, "%s", v->r.text);
    }
    lane_note(l, op == OP_GET ? READS : WRITES, os_now() - v->ns, 1);
    return SHALE_OK;
}

int oneshot_loop(struct lane *l)
{
    const struct job *job = l->job;
    uint64_t share = lane_share(l, job->ops);
    struct visit *v = mmap(NULL, sizeof *v, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (v == MAP_FAILED) {
        return err_sys("one-shot");
    }
    int status = SHALE_OK;
    while (status == SHALE_OK && l->r.ops < share && os_now() < l->end) {
        bool get = prng_next(&l->random) % 100 < job->read_percent;
        status = run_one(l, get ? OP_GET : OP_PUT, v);
        prng_next(&l->random); /* what the child drew */
    }
    munmap(v, sizeof *v);
    return status;
}
