/* thread.c - threads that never take an application's signals, and mutexes. */
#include "os/call.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

/* Everything but the signals that a thread raises by its own fault: those cannot be taken by another one, and
 * blocked they would kill the process past any handler that wants to report them. */
static void block_signals(sigset_t *saved)
{
    static const int faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    sigset_t set;
    (void)sigfillset(&set);
    for (size_t i = 0; i < BASE_COUNT(faults); i++) {
        (void)sigdelset(&set, faults[i]);
    }
    (void)pthread_sigmask(SIG_BLOCK, &set, saved);
}

struct start {
    void *(*run)(void *ctx);
    void *ctx;
    char name[16]; /* the kernel takes 15 characters */
};

/* A thread names itself: to name another one is to open a file under /proc, which the end of that thread then
 * has to be taken out of. */
static void *named(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    (void)prctl(PR_SET_NAME, s.name);
    return s.run(s.ctx);
}

/* A thread inherits the mask of its creator: blocked here, not in the thread, so that there is no moment
 * without. */
int os_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx, const char *name)
{
    sigset_t saved;
    struct start *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    *s = (struct start){.run = run, .ctx = ctx};
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    int err = os_door(OS_OP_THREAD, -1, name, 0, NULL);
    if (err == 0) {
        block_signals(&saved);
        err = pthread_create(thread, NULL, named, s);
        (void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
    }
    if (err != 0) {
        free(s);
        errno = err;
        return err_sys("start thread %s", name);
    }
    return SHALE_OK;
}

void os_thread_join(pthread_t thread)
{
    (void)pthread_join(thread, NULL);
}

void os_mutex_init(pthread_mutex_t *m)
{
    (void)pthread_mutex_init(m, NULL);
}

void os_mutex_destroy(pthread_mutex_t *m)
{
    (void)pthread_mutex_destroy(m);
}

/* ---- fork ---- */

static _Atomic unsigned fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void next_generation(void)
{
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, next_generation);
}

unsigned os_fork_generation(void)
{
    (void)pthread_once(&fork_once, watch_forks);
    return atomic_load_explicit(&fork_generation, memory_order_relaxed);
}
