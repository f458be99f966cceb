/* role.c - the role locks of one handle: a gate for the threads that share it, then the bytes for everybody
 * else.
 *
 *     thread --> gate of the role --> byte(s) of LOCK, through the handle's own open file
 *
 * Why both: a byte-range lock belongs to the open file, so a second thread's lock through the same one
 * succeeds, and the first unlock drops both [I-2b]. The gate comes first and goes last: the bytes are
 * unlocked before it is opened, so whoever passes finds the open file without the role. The gates are private
 * to the process: nothing of a dead process stays locked. They are words and no mutexes, because a write
 * transaction may end in another thread than it began in, and a mutex belongs to the thread that locked
 * it. */
#include "os/call.h"

#define ROLE_SLICE_NS   50000000 /* of a sleep at the gate: interrupts are noticed within this */
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

static int busy_text(enum os_role role, const char *who)
{
    return err_set(SHALE_BUSY, "the lock %s is held by another %s", os_role_name(role), who);
}

/* ---- the gate of a role: for the threads of a handle ---- */

enum { GATE_FREE, GATE_TAKEN, GATE_WANTED }; /* wanted: taken, and somebody may be asleep */

static bool gate_try(_Atomic uint32_t *gate)
{
    uint32_t value = GATE_FREE;
    return atomic_compare_exchange_strong_explicit(gate, &value, GATE_TAKEN, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Within the wait's bounds. Who is woken tries before it looks at them, so no wake is lost on one that gives
 * up. */
static int gate_wait(_Atomic uint32_t *gate, enum os_role role, const struct os_wait *wait)
{
    if (gate_try(gate)) {
        return SHALE_OK;
    }
    int rc = wait->deadline == 0 ? SHALE_BUSY : SHALE_OK;
    while (rc == SHALE_OK) {
        if (atomic_exchange_explicit(gate, GATE_WANTED, memory_order_acquire) == GATE_FREE) {
            return SHALE_OK;
        }
        rc = os_sleep(wait, gate, GATE_WANTED, ROLE_SLICE_NS);
    }
    return rc == SHALE_BUSY ? busy_text(role, "thread") : rc;
}

static void gate_release(_Atomic uint32_t *gate)
{
    if (atomic_exchange_explicit(gate, GATE_FREE, memory_order_release) == GATE_WANTED) {
        os_wake(gate, 1);
    }
}

/* ---- roles ---- */

int os_roles_init(struct os_roles *r, int fd)
{
    r->fd = fd;
    r->compact_held = 0;
    os_mutex_init(&r->compact_mutex);
    for (unsigned i = 0; i < OS_ROLE_COUNT; i++) {
        atomic_init(&r->gate[i], GATE_FREE);
    }
    return SHALE_OK;
}

void os_roles_release(struct os_roles *r)
{
    os_audit_forget(r);
    os_close(&r->fd);
    os_mutex_destroy(&r->compact_mutex);
}

int os_role_claim(struct os_roles *r, enum os_role role, const struct os_wait *wait)
{
    os_audit_wait(role_rows[role].rank, os_role_name(role));
    int rc = gate_wait(&r->gate[role], role, wait);
    if (rc == SHALE_OK) {
        os_audit_push(r, role, r->fd);
    }
    return rc;
}

bool os_role_claim_free(struct os_roles *r, enum os_role role)
{
    if (!gate_try(&r->gate[role])) {
        return false;
    }
    os_audit_push(r, role, r->fd);
    return true;
}

void os_role_unclaim(struct os_roles *r, enum os_role role)
{
    os_audit_pop(r, role);
    gate_release(&r->gate[role]);
}

/* The bytes, behind the gate. The word is read before the try: what changes after it, ends the sleep. */
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
    if (!os_role_claim_free(r, role)) {
        return SHALE_BUSY;
    }
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
