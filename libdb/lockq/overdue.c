/* overdue.c - does somebody wait for a lock whose turn is over, and has not been had since?
 *
 * The one who was woken is not running yet. A kernel that does not preempt leaves it waiting for the next
 * tick while long work of the same program keeps the processor: then it helps to yield. To yield all the time
 * would be worse: among many who can run, each yield costs all of their slices.
 */
#include "lockq/queue.h"

#define OVERDUE_MIN_NS 20000
#define OVERDUE_MAX_NS 1000000000 /* another clock, or noise */

bool lockq_overdue(const struct lockq_lock *lock)
{
    const struct lockq_slot *slot = lock->slot;
    if (slot == NULL || atomic_load_explicit(&slot->served, memory_order_relaxed) ==
                            atomic_load_explicit(&slot->next, memory_order_relaxed)) {
        return false;
    }
    uint64_t end = atomic_load_explicit(&slot->turn_end, memory_order_relaxed);
    int64_t over = (int64_t)((uint64_t)os_now() - end);
    return end != 0 && over > OVERDUE_MIN_NS && over < OVERDUE_MAX_NS;
}
