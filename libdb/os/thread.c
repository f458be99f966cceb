/* thread.c - threads that never take an application's signals, and mutexes. */
#include "os/call.h"

#include <signal.h>
#include <stdio.h>

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

/* A thread inherits the mask of its creator: blocked here, not in the thread, so that there is no moment
 * without. */
int os_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx, const char *name)
{
    pthread_t started;
    sigset_t saved;
    int err = os_door(OS_OP_THREAD, -1, name, 0, NULL);
    if (err == 0) {
        block_signals(&saved);
        err = pthread_create(&started, NULL, run, ctx);
        (void)pthread_sigmask(SIG_SETMASK, &saved, NULL);
    }
    if (err != 0) {
        errno = err;
        return err_sys("start thread %s", name);
    }
    char short_name[16]; /* the kernel takes 15 characters and refuses more */
    (void)snprintf(short_name, sizeof short_name, "%s", name);
    (void)pthread_setname_np(started, short_name);
    *thread = started;
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
