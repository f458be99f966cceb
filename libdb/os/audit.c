/* audit.c - debug builds watch every thread's role locks, because byte-range locks have no deadlock
 * detection.
 *
 * Each thread has a list of what it holds: role, handle, and whether the bytes behind the mutex are locked.
 * Rules:
 *   - [I-3] who holds a role waits only for one of a higher rank; nobody waits for WRITE while holding
 * anything;
 *   - [I-4] under WRITE or NESTED there is no wait for another role, no sync and no sleep;
 *   - what is unlocked was held by this thread; at the end of an API call nothing is left.
 * A violation is a bug of ours that no input can cause: it prints the list and aborts, so that the test
 * fails.
 *
 * A write transaction keeps WRITE from call to call, and may move to another thread. os_audit_exempt(+1)
 * takes what it holds off the thread's list and parks it in one that all threads share; it is found there
 * when it is given back. */
#include "os/call.h"

#ifdef SHALE_DEBUG

#include <stdio.h>
#include <stdlib.h>

#define AUDIT_DEPTH  32
#define AUDIT_PARKED 1024

struct audit_entry {
    const struct os_roles *roles;
    unsigned role; /* OS_ROLE_COUNT + level: compaction */
    int fd;
    bool bytes;
};

static const struct {
    uint64_t first, bytes;
    unsigned rank;
} audit_roles[OS_ROLE_COUNT] = {
#define X(name, first, bytes, rank, text) {first, bytes, rank},
    OS_ROLES(X)
#undef X
};

static _Thread_local struct audit_entry held[AUDIT_DEPTH];
static _Thread_local unsigned held_count;

static pthread_mutex_t parked_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the next two */
static struct audit_entry parked[AUDIT_PARKED];
static unsigned parked_count;

static void audit_abort(const char *what, const char *object)
{
    (void)fprintf(stderr, "lock audit: %s %s; this thread holds:%s\n", what, object,
                  held_count == 0 ? " nothing" : "");
    for (unsigned i = 0; i < held_count; i++) {
        const struct audit_entry *e = &held[i];
        if (e->role >= OS_ROLE_COUNT) {
            (void)fprintf(stderr, "  COMPACT from level %u, descriptor %d\n", e->role - OS_ROLE_COUNT, e->fd);
        } else {
            (void)fprintf(stderr, "  %s, descriptor %d%s\n", os_role_name((enum os_role)e->role), e->fd,
                          e->bytes ? "" : " (mutex only)");
        }
    }
    abort();
}

static bool is_write(const struct audit_entry *e)
{
    return e->role == OS_ROLE_WRITE || e->role == OS_ROLE_NESTED;
}

/* Drops the first of them that fits, keeping the order of the rest. */
static bool remove_entry(struct audit_entry *list, unsigned *count, const struct os_roles *r, unsigned role)
{
    for (unsigned i = 0; i < *count; i++) {
        if (list[i].roles == r && list[i].role == role) {
            memmove(&list[i], &list[i + 1], (*count - i - 1) * sizeof list[0]);
            (*count)--;
            return true;
        }
    }
    return false;
}

void os_audit_push(const struct os_roles *r, unsigned role, int fd)
{
    if (held_count == AUDIT_DEPTH) {
        audit_abort("too many locks, one more is", os_role_name((enum os_role)role));
    }
    held[held_count++] = (struct audit_entry){r, role, fd, role >= OS_ROLE_COUNT};
}

void os_audit_pop(const struct os_roles *r, unsigned role)
{
    if (remove_entry(held, &held_count, r, role)) {
        return;
    }
    os_mutex_lock(&parked_mutex);
    bool found = remove_entry(parked, &parked_count, r, role);
    os_mutex_unlock(&parked_mutex);
    if (!found) {
        audit_abort("unlocks what it does not hold:", os_role_name((enum os_role)role));
    }
}

void os_audit_bytes(int fd, uint64_t start, uint64_t length, bool locked)
{
    for (unsigned i = 0; i < held_count; i++) {
        struct audit_entry *e = &held[i];
        if (e->fd == fd && e->role < OS_ROLE_COUNT && audit_roles[e->role].first == start &&
            audit_roles[e->role].bytes == length) {
            e->bytes = locked;
        }
    }
}

/* The handle goes away, with all that it holds. */
void os_audit_forget(const struct os_roles *r)
{
    for (unsigned role = 0; role < OS_ROLE_COUNT + OS_COMPACT_LEVELS; role++) {
        (void)remove_entry(held, &held_count, r, role);
        os_mutex_lock(&parked_mutex);
        (void)remove_entry(parked, &parked_count, r, role);
        os_mutex_unlock(&parked_mutex);
    }
}

void os_audit_wait(unsigned rank, const char *what)
{
    for (unsigned i = 0; i < held_count; i++) {
        const struct audit_entry *e = &held[i];
        unsigned mine = e->role < OS_ROLE_COUNT ? audit_roles[e->role].rank : 0;
        if (rank == 1 || is_write(e)) {
            audit_abort("[I-3] [I-4] must not wait for", what);
        }
        if (rank != 0 && mine >= rank) {
            audit_abort("[I-3] waits out of order for", what);
        }
    }
}

void os_audit_slow(const char *what)
{
    for (unsigned i = 0; i < held_count; i++) {
        if (is_write(&held[i]) && held[i].bytes) {
            audit_abort("[I-4] under the write lock:", what);
        }
    }
}

void os_audit_kept(enum os_role role)
{
    for (unsigned i = 0; i < held_count; i++) {
        held[i].bytes |= held[i].role == role;
    }
}

void os_audit_held(enum os_role role)
{
    bool found = false;
    for (unsigned i = 0; i < held_count; i++) {
        found |= held[i].role == role && held[i].bytes;
    }
    os_mutex_lock(&parked_mutex);
    for (unsigned i = 0; i < parked_count; i++) {
        found |= parked[i].role == role;
    }
    os_mutex_unlock(&parked_mutex);
    if (!found) {
        audit_abort("should hold", os_role_name(role));
    }
}

void os_audit_clean(const char *where)
{
    if (held_count != 0) {
        audit_abort("something is left behind at", where);
    }
}

void os_audit_exempt(int delta)
{
    os_mutex_lock(&parked_mutex);
    for (unsigned i = 0; delta > 0 && i < held_count;) {
        if (is_write(&held[i]) && parked_count < AUDIT_PARKED) {
            parked[parked_count++] = held[i];
            (void)remove_entry(held, &held_count, held[i].roles, held[i].role);
        } else {
            i++;
        }
    }
    os_mutex_unlock(&parked_mutex);
}

#else

/* A translation unit must declare something. */
typedef int os_audit_is_off;

#endif
