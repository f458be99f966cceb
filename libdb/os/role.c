/* role.c - the role locks of one handle: a mutex for the threads that share it, then the bytes for everybody
 * else.
 *
 *     thread --> mutex of the role --> byte(s) of LOCK, through the handle's own open file
 *
 * Why both: a byte-range lock belongs to the open file, so a second thread's lock through the same one
 * succeeds, and the first unlock drops both [I-2b]. The mutex comes first and goes last: the bytes are
 * unlocked before the mutex, so whoever has the mutex finds the open file without the role. The mutexes are
 * private to the process: nothing of a dead process stays locked. Mutex waits go in slices, so that an
 * interrupt ends them too. */
#include "os/call.h"

#include <time.h>

#define ROLE_SLICE_NS   50000000 /* of a wait for the mutex: interrupts are noticed within this */
#define ROLE_WORD_NS    10000000 /* of a sleep on a word: its waker may be killed before it wakes */
#define ROLE_NAP_MIN_NS 50000
#define ROLE_NAP_MAX_NS 2000000

struct role_row {
    const char *name;
    uint64_t first, bytes;
    unsigned rank;
};

static const struct role_row role_rows[OS_ROLE_COUNT] = {
#define X(name, first, bytes, rank, text) {#name, first, bytes, rank},
    OS_ROLES(X)
#undef X
};

const char *os_role_name(enum os_role role)
{
    return (unsigned)role < OS_ROLE_COUNT ? role_rows[role].name : "COMPACT";
}

int os_roles_init(struct os_roles *r, int fd)
{
    r->fd = fd;
    r->compact_held = 0;
    os_mutex_init(&r->compact_mutex);
    for (unsigned i = 0; i < OS_ROLE_COUNT; i++) {
        os_mutex_init(&r->mutex[i]);
    }
    return SHALE_OK;
}

void os_roles_release(struct os_roles *r)
{
    os_audit_forget(r);
    os_close(&r->fd);
    os_mutex_destroy(&r->compact_mutex);
    for (unsigned i = 0; i < OS_ROLE_COUNT; i++) {
        os_mutex_destroy(&r->mutex[i]);
    }
}

static int busy_text(enum os_role role, const char *who)
{
    return err_set(SHALE_BUSY, "the lock %s is held by another %s", os_role_name(role), who);
}

/* The thread sanitizer does not know pthread_mutex_clocklock: it would see no lock at all. */
#if defined(__SANITIZE_THREAD__)
#define ROLE_CLOCK CLOCK_REALTIME
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ROLE_CLOCK CLOCK_REALTIME
#endif
#endif
#ifndef ROLE_CLOCK
#define ROLE_CLOCK CLOCK_MONOTONIC
#endif

/* The sanitizer's clock may jump, and so lengthen a slice; the monotonic one does not. */
static bool mutex_slice(pthread_mutex_t *m, int64_t now, int64_t slice)
{
    int64_t until = ROLE_CLOCK == CLOCK_MONOTONIC ? now + slice : (int64_t)os_wall() + slice;
    struct timespec ts = {(time_t)(until / 1000000000), (long)(until % 1000000000)};
    return (ROLE_CLOCK == CLOCK_MONOTONIC ? pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &ts)
                                          : pthread_mutex_timedlock(m, &ts)) == 0;
}

/* The mutex, within the wait's bounds. */
static int mutex_wait(pthread_mutex_t *m, enum os_role role, const struct os_wait *wait)
{
    if (pthread_mutex_trylock(m) == 0) {
        return SHALE_OK;
    }
    for (;;) {
        if (wait->interrupts != NULL &&
            atomic_load_explicit(wait->interrupts, memory_order_acquire) != wait->seen) {
            return err_set(SHALE_CANCELLED, "interrupted");
        }
        int64_t now = os_now();
        if (wait->deadline != OS_NEVER && now >= wait->deadline) {
            return busy_text(role, "thread");
        }
        int64_t slice = wait->deadline - now < ROLE_SLICE_NS ? wait->deadline - now : ROLE_SLICE_NS;
        if (mutex_slice(m, now, slice)) {
            return SHALE_OK;
        }
    }
}

int os_role_claim(struct os_roles *r, enum os_role role, const struct os_wait *wait)
{
    os_audit_wait(role_rows[role].rank, os_role_name(role));
    int rc = mutex_wait(&r->mutex[role], role, wait);
    if (rc == SHALE_OK) {
        os_audit_push(r, role, r->fd);
    }
    return rc;
}

void os_role_unclaim(struct os_roles *r, enum os_role role)
{
    os_audit_pop(r, role);
    os_mutex_unlock(&r->mutex[role]);
}

/* The bytes, behind the mutex. The word is read before the try: what changes after it, ends the sleep. */
static int bytes_wait(struct os_roles *r, enum os_role role, const struct os_wait *wait,
                      _Atomic uint32_t *word)
{
    const struct role_row *row = &role_rows[role];
    int64_t nap = ROLE_NAP_MIN_NS;
    for (;;) {
        uint32_t value = word != NULL ? atomic_load_explicit(word, memory_order_acquire) : 0;
        int rc = os_lock_try(r->fd, row->first, row->bytes, true);
        if (rc != SHALE_BUSY) {
            return rc;
        }
        rc = os_sleep(wait, word, value, word != NULL ? ROLE_WORD_NS : nap);
        if (rc != SHALE_OK) {
            return rc == SHALE_BUSY ? busy_text(role, "handle") : rc;
        }
        nap = nap * 2 < ROLE_NAP_MAX_NS ? nap * 2 : ROLE_NAP_MAX_NS;
    }
}

int os_role_lock(struct os_roles *r, enum os_role role, const struct os_wait *wait, _Atomic uint32_t *word)
{
    int rc = os_role_claim(r, role, wait);
    if (rc == SHALE_OK) {
        rc = bytes_wait(r, role, wait, word);
        if (rc != SHALE_OK) {
            os_role_unclaim(r, role);
        }
    }
    return rc;
}

int os_role_try(struct os_roles *r, enum os_role role)
{
    const struct role_row *row = &role_rows[role];
    if (!os_mutex_try(&r->mutex[role])) {
        return SHALE_BUSY;
    }
    os_audit_push(r, role, r->fd);
    int rc = os_lock_try(r->fd, row->first, row->bytes, true);
    if (rc != SHALE_OK) {
        os_role_unclaim(r, role);
    }
    return rc;
}

/* An unlock that the kernel refuses (a descriptor gone bad) leaves nothing to do: closing the file drops the
 * lock. */
void os_role_unlock(struct os_roles *r, enum os_role role)
{
    (void)os_unlock(r->fd, role_rows[role].first, role_rows[role].bytes);
    os_role_unclaim(r, role);
}

static uint32_t compact_bits(unsigned from, unsigned to)
{
    return ((2u << (to - from)) - 1) << from;
}

int os_compact_try(struct os_roles *r, unsigned from, unsigned to)
{
    if (from > to || to >= OS_COMPACT_LEVELS) {
        return err_set(SHALE_INVALID, "levels %u to %u", from, to);
    }
    uint32_t bits = compact_bits(from, to);
    int rc = SHALE_BUSY;
    os_mutex_lock(&r->compact_mutex);
    if ((r->compact_held & bits) == 0) {
        rc = os_lock_try(r->fd, OS_BYTE_COMPACT + from, to - from + 1, true);
        if (rc == SHALE_OK) {
            r->compact_held |= bits;
        }
    }
    os_mutex_unlock(&r->compact_mutex);
    if (rc == SHALE_OK) {
        os_audit_push(r, OS_ROLE_COUNT + from, r->fd);
    }
    return rc;
}

void os_compact_unlock(struct os_roles *r, unsigned from, unsigned to)
{
    os_audit_pop(r, OS_ROLE_COUNT + from);
    os_mutex_lock(&r->compact_mutex);
    (void)os_unlock(r->fd, OS_BYTE_COMPACT + from, to - from + 1);
    r->compact_held &= ~compact_bits(from, to);
    os_mutex_unlock(&r->compact_mutex);
}
