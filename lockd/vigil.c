/* vigil.c - what goes on beside a wait.
 *
 * The wait itself belongs to the library, in one call that keeps the place in the queue; so a thread watches
 * beside it. After a second on a terminal (at once, if asked for) it says who is waited for. When the process
 * that the lock is for has ended, it takes us out of the queue. */
#include "lockd.h"

#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

#define TELL_TERMINAL_MS   1000
#define TELL_VERBOSE_MS    50 /* most waits are over by then */
#define INTERRUPT_AGAIN_MS 100

struct queue_seen {
    struct buf holders;
    int64_t owner;
    unsigned waiters, ahead;
    bool found;
};

static int look_at(void *ctx, const shale_ticket *t)
{
    struct queue_seen *s = ctx;
    if (t->holder) {
        int rc = buf_printf(&s->holders, s->holders.size == 0 ? ", held by " : "; ");
        return rc == SHALE_OK ? who_append(&s->holders, t) : rc;
    }
    if (!s->found && t->pid == s->owner && t->pid_ns == os_self()->pid_ns) {
        s->found = true;
        s->ahead = s->waiters;
    }
    s->waiters++;
    return 0;
}

/* Whoever is not described yet has come last. */
static unsigned count_ahead(const struct queue_seen *s)
{
    return s->found ? s->ahead : s->waiters > 0 ? s->waiters - 1 : 0;
}

static void tell(const struct vigil *v)
{
    const struct target *t = &v->r->target;
    struct queue_seen s = {.owner = v->owner != 0 ? v->owner : os_self()->pid};
    struct buf lock = {0};
    int rc = lock_append(&lock, t->name);
    if (rc == SHALE_OK) {
        rc = shale_lockq_list(v->q, t->name != NULL ? t->name : "", look_at, &s);
    }
    if (rc == SHALE_OK) {
        complain("%s: waiting for %.*s%.*s; %u ahead in the queue", t->dir, (int)lock.size,
                 (const char *)lock.data, (int)s.holders.size,
                 s.holders.size > 0 ? (const char *)s.holders.data : "", count_ahead(&s));
    }
    buf_release(&lock);
    buf_release(&s.holders);
}

/* An interrupt counts only for a wait that has begun: until we are told to stop, it is repeated. */
static void take_out(struct vigil *v)
{
    struct pollfd stop = {.fd = v->stop, .events = POLLIN};
    atomic_store(&v->owner_gone, true);
    do {
        shale_lockq_interrupt(v->q);
    } while (poll(&stop, 1, INTERRUPT_AGAIN_MS) == 0);
}

static void *keep_vigil(void *ctx)
{
    struct vigil *v = ctx;
    struct pollfd events[2] = {{.fd = v->stop, .events = POLLIN}, {.fd = v->pidfd, .events = POLLIN}};
    int64_t due = os_now() + v->tell_ms * 1000000;
    bool to_tell = v->tell_ms >= 0;
    while (events[0].revents == 0) {
        int64_t left_ms = (due - os_now() + 999999) / 1000000;
        int n = poll(events, 2, !to_tell ? -1 : left_ms > 0 ? (int)left_ms : 0);
        if (n == 0) {
            tell(v);
            to_tell = false;
        } else if (n > 0 && events[1].revents != 0) {
            take_out(v);
            break;
        }
    }
    return NULL;
}

void vigil_begin(struct vigil *v, const struct request *r, shale_lockq *q, int64_t owner, int pidfd)
{
    *v = (struct vigil){.r = r, .q = q, .owner = owner, .pidfd = pidfd, .stop = -1, .tell_ms = -1};
    if (r->timeout_ms == 0) {
        return;
    }
    if (r->verbose) {
        v->tell_ms = TELL_VERBOSE_MS;
    } else if (!r->quiet && isatty(STDERR_FILENO)) {
        v->tell_ms = TELL_TERMINAL_MS;
    }
    if (v->tell_ms < 0 && pidfd < 0) {
        return;
    }
    v->stop = eventfd(0, EFD_CLOEXEC);
    /* Without it the wait is as good, only silent. */
    v->runs = v->stop >= 0 && os_thread_start(&v->thread, keep_vigil, v, "vigil") == SHALE_OK;
}

void vigil_end(struct vigil *v)
{
    if (v->runs) {
        (void)eventfd_write(v->stop, 1);
        os_thread_join(v->thread);
    }
    os_close(&v->stop);
}
