/* keep.c - a lock that is kept between two commits.
 *
 * Two system calls a commit, one to take the bytes and one to free them, cost as much as everything else that
 * a small commit does. So a holder that comes again and again may leave the bytes locked in between:
 *
 *     take  commit . commit . commit . commit  free        . the bytes stay locked; no system call
 *                                ^ somebody finds them taken: ++wanted
 *
 * Nobody needs to wait longer for that. A holder that commits looks at `wanted` and at the queue before and
 * behind each commit: at the next one it gives the bytes up, or hands its turn over, as if it had never kept
 * them. A holder that does nothing, for its program does something else, has a keeper: a thread that sleeps
 * on `wanted`, and is woken by whoever does not get the lock in a moment (`kept` says that there is one).
 * Unasked the keeper gives an idle lock up within milliseconds, so that a program that is stopped later, at
 * its prompt, holds nothing.
 *
 * A process that is stopped while it keeps the lock is a stopped holder: it is named, and not robbed. Killed,
 * it holds nothing, as ever. Both words are hints in shared memory: noise in them costs a wake, or the others
 * some milliseconds.
 *
 * The same idea is known from locks between threads as biased locking; there, a bias is revoked by stopping
 * its owner: K. Kawachiya, A. Koseki, T. Onodera, "Lock Reservation", OOPSLA 2002. */
#include "lockq/waiter.h"

void lockq_want(struct lockq_slot *slot, bool wake)
{
    atomic_fetch_add(&slot->wanted, 1);
    if (wake && atomic_load(&slot->kept) != 0) {
        os_wake(&slot->wanted, INT32_MAX);
    }
}

enum lockq_keep lockq_may_keep(const struct lockq_lock *lock, int64_t *now)
{
    const struct lockq_slot *slot = lock->slot;
    if (slot == NULL) {
        return LOCKQ_KEEP_NOT;
    }
    if (BASE_LIKELY(lockq_queue_empty(slot))) {
        return LOCKQ_KEEP_NOBODY;
    }
    if (!lockq_owns_turn(lock)) {
        return LOCKQ_KEEP_NOT;
    }
    *now = os_now();
    return lockq_turn_lasts(lock, *now) ? LOCKQ_KEEP_TURN : LOCKQ_KEEP_NOT;
}

uint32_t lockq_wanted(const struct lockq_lock *lock)
{
    return lock->slot != NULL ? atomic_load_explicit(&lock->slot->wanted, memory_order_acquire) : 0;
}

void lockq_note_kept(const struct lockq_lock *lock, bool kept)
{
    atomic_store_explicit(&lock->slot->kept, kept, memory_order_release);
}

void lockq_keeper_sleep(const struct lockq_lock *lock, uint32_t value, int64_t max_ns)
{
    struct os_wait forever = os_wait_forever();
    (void)os_sleep(&forever, &lock->slot->wanted, value, max_ns);
}
