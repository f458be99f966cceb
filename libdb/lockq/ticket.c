/* ticket.c - a place in the queue: the byte slot << 48 | number of the lock-queue file, locked while its
 * owner waits.
 *
 * [I-6] A number stands for a waiter only while its byte is locked. So a waiter that is killed anywhere is
 * gone from the queue at that instant, and there is nothing to repair. Why a byte on an inode of its own and
 * not one of LOCK: the kernel walks a list of the inode's locks, and two thousand tickets on LOCK would slow
 * every commit.
 *
 * An OFD lock belongs to the open file: two tickets of one process through one descriptor would not see each
 * other, and so every ticket that is out has an open file of its own [I-2b]. They are pooled: opening one
 * costs more than a hand-over.
 *
 * A forked child would keep its parent's tickets, and the parent's death would not free them: the child
 * closes them all before it does anything else. */
#include "lockq/queue.h"

#include <stdlib.h>

#define TICKETS_KEPT 64 /* idle ones a handle */

static pthread_mutex_t ticket_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct lockq *open_handles;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

void lockq_enter(void)
{
    os_mutex_lock(&ticket_mutex);
}

void lockq_leave(void)
{
    os_mutex_unlock(&ticket_mutex);
}

/* ---- fork ---- */

static void in_child(void)
{
    for (struct lockq *q = open_handles; q != NULL; q = q->next_open) {
        atomic_store(&q->forked, true);
        for (struct lockq_ticket *t = q->tickets; t != NULL; t = t->next) {
            os_close(&t->fd);
        }
    }
    lockq_holds_forked();
    lockq_threads_forked();
    lockq_meta_forked();
    lockq_leave();
}

static void set_fork_handlers(void)
{
    (void)pthread_atfork(lockq_enter, lockq_leave, in_child);
}

void lockq_register(struct lockq *q)
{
    (void)pthread_once(&fork_once, set_fork_handlers);
    lockq_enter();
    q->next_open = open_handles;
    open_handles = q;
    lockq_leave();
}

void lockq_unregister(struct lockq *q)
{
    lockq_enter();
    for (struct lockq **p = &open_handles; *p != NULL; p = &(*p)->next_open) {
        if (*p == q) {
            *p = q->next_open;
            break;
        }
    }
    while (q->tickets != NULL) {
        struct lockq_ticket *t = q->tickets;
        q->tickets = t->next;
        os_close(&t->fd);
        free(t);
    }
    q->idle = NULL;
    q->idle_count = 0;
    lockq_leave();
}

/* ---- the pool ---- */

/* Another open file of the very file that is mapped. When that one has lost its name there are no more
 * tickets: a byte of the file that took its place would be seen by nobody. */
static int open_again(struct lockq *q, int *fd)
{
    struct stat mapped, opened;
    int rc = os_open(q->queue_dir, q->queue_name, O_RDWR, 0, fd);
    if (rc == SHALE_OK) {
        rc = os_stat(q->probe, &mapped);
    }
    if (rc == SHALE_OK) {
        rc = os_stat(*fd, &opened);
    }
    if (rc == SHALE_OK && (opened.st_dev != mapped.st_dev || opened.st_ino != mapped.st_ino)) {
        rc = SHALE_NOTFOUND;
    }
    if (rc != SHALE_OK) {
        os_close(fd);
    }
    return rc;
}

static int ticket_new(struct lockq *q, struct lockq_ticket **ticket)
{
    struct lockq_ticket *t = base_calloc(1, sizeof *t);
    if (t == NULL) {
        return SHALE_NOMEM;
    }
    t->fd = -1;
    /* Opened and listed in one step: a child that is forked in between would have a descriptor that nobody
     * closes. */
    lockq_enter();
    int rc = open_again(q, &t->fd);
    if (rc == SHALE_OK) {
        t->next = q->tickets;
        q->tickets = t;
    }
    lockq_leave();
    if (rc != SHALE_OK) {
        free(t);
        return rc;
    }
    *ticket = t;
    return SHALE_OK;
}

static struct lockq_ticket *take_idle(struct lockq *q)
{
    lockq_enter();
    struct lockq_ticket *t = q->idle;
    if (t != NULL) {
        q->idle = t->next_idle;
        q->idle_count--;
    }
    lockq_leave();
    return t;
}

/* Keeps it for the next waiter, or closes it where there are plenty. */
static void put_idle(struct lockq *q, struct lockq_ticket *t)
{
    lockq_enter();
    if (q->idle_count < TICKETS_KEPT) {
        t->next_idle = q->idle;
        q->idle = t;
        q->idle_count++;
        lockq_leave();
        return;
    }
    struct lockq_ticket **p = &q->tickets;
    while (*p != t) {
        p = &(*p)->next;
    }
    *p = t->next;
    lockq_leave();
    os_close(&t->fd);
    free(t);
}

static uint64_t ticket_byte(unsigned slot, uint64_t number)
{
    return (uint64_t)slot << LOCKQ_NUMBER_BITS | number;
}

int lockq_ticket_take(struct lockq *q, unsigned slot, uint64_t number, struct lockq_ticket **ticket)
{
    struct lockq_ticket *t = take_idle(q);
    int rc = t != NULL ? SHALE_OK : ticket_new(q, &t);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_lock_try(t->fd, ticket_byte(slot, number), 1, true);
    if (rc != SHALE_OK) {
        put_idle(q, t);
        return rc;
    }
    *ticket = t;
    return SHALE_OK;
}

void lockq_ticket_free(struct lockq *q, unsigned slot, uint64_t number, struct lockq_ticket *ticket)
{
    (void)os_unlock(ticket->fd, ticket_byte(slot, number), 1);
    put_idle(q, ticket);
}

/* ---- looking ---- */

bool lockq_ticket_alive(struct lockq *q, unsigned slot, uint64_t from, uint64_t to)
{
    bool taken = true;
    if (from > to || from >= LOCKQ_NUMBER_END) {
        return false;
    }
    to = to < LOCKQ_NUMBER_END ? to : LOCKQ_NUMBER_END - 1;
    if (os_lock_test(q->probe, ticket_byte(slot, from), to - from + 1, true, &taken) != SHALE_OK) {
        return true;
    }
    return taken;
}

uint64_t lockq_ticket_first(struct lockq *q, unsigned slot, uint64_t from, uint64_t to)
{
    if (lockq_ticket_alive(q, slot, from, from)) {
        return from; /* nearly always */
    }
    if (!lockq_ticket_alive(q, slot, from, to)) {
        return 0;
    }
    to = to < LOCKQ_NUMBER_END ? to : LOCKQ_NUMBER_END - 1;
    while (from < to) {
        uint64_t middle = from + (to - from) / 2;
        if (lockq_ticket_alive(q, slot, from, middle)) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    return from;
}
