/* waiter.h - inside the lock queue: one that waits, who wakes it (wake.c), and how it passes those that are
 * stopped (pass.c). */
#ifndef LOCKQ_WAITER_H
#define LOCKQ_WAITER_H

#include "lockq/queue.h"

/* One lock being waited for by one waiter. */
struct waiter {
    struct lockq *q;
    const struct lockq_lock *lock;
    struct lockq_slot *slot;
    unsigned index;
    uint64_t number; /* of the ticket */
    int64_t began;
    int64_t look_due; /* when it looks again though nobody wakes it; 0: not behind anybody */
    /* The turn that is being slept for, and since when: a turn seen for 1 ms is over, whatever the clocks
     * say. */
    uint64_t turn_seen;
    int64_t turn_since;
    /* pass.c: the lock was free, `idle_count` acquisitions old and in round `idle_round` at idle_since (0: it
     * is in use). */
    int64_t idle_since, idle_patience;
    uint64_t idle_count, idle_round;
    bool asked;
    unsigned described; /* how often it tried to say who it is */
};

/* ---- the numbers ---- */

/* Raises *word to value; it only grows. */
static inline void lockq_raise(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t old = atomic_load(word);
    while (old < value && !atomic_compare_exchange_weak(word, &old, value)) {
    }
}

/* Every number up to it holds nobody up. */
static inline uint64_t lockq_passed(const struct lockq_slot *slot)
{
    uint64_t served = atomic_load(&slot->served), skip = atomic_load(&slot->skip_below);
    return served > skip ? served : skip;
}

static inline bool lockq_queue_empty(const struct lockq_slot *slot)
{
    return atomic_load(&slot->served) == atomic_load(&slot->next);
}

/* ---- turns ---- */

static inline bool lockq_owns_turn(const struct lockq_lock *lock)
{
    return lock->turn_ns != 0 && atomic_load(&lock->slot->owner) == lock->owner;
}

/* Is there time left in my turn? More than a whole turn is noise, or another clock. */
static inline bool lockq_turn_lasts(const struct lockq_lock *lock, int64_t now)
{
    uint64_t end = atomic_load_explicit(&lock->slot->turn_end, memory_order_relaxed);
    int64_t left = (int64_t)(end - (uint64_t)now);
    return left > 0 && left <= lock->turn_ns;
}

/* ---- kept locks (keep.c) ---- */

/* It was not to be had at once. wake: nor in a moment; a keeper that is idle gives it up. */
void lockq_want(struct lockq_slot *slot, bool wake);

/* ---- wake words (wake.c) ---- */

struct os_word lockq_word(struct lockq_slot *slot, uint64_t number);
/* Wakes the first live ticket behind those that are served, only that one. */
void lockq_wake_next(struct lockq *q, struct lockq_slot *slot);
void lockq_wake_one(struct lockq_slot *slot, uint64_t number);
/* Everybody who waits before that number. */
void lockq_wake_before(struct lockq_slot *slot, uint64_t number);

/* ---- the stopped (pass.c) ---- */

/* I run: for whoever asks. */
void lockq_answer(struct waiter *w);
/* Rule 5. *sleep_ns is lowered where the next look is due sooner. */
void lockq_pass_stopped(struct waiter *w, int64_t now, int64_t *sleep_ns);
/* Rule 5, the other side: I was skipped, and I run. */
void lockq_take_place_back(struct waiter *w);

#endif
