/* wake.c - who is woken: the one whose turn it is, out of thousands.
 *
 * A lock has 64 wake words, and a futex has 32 bits by which its sleepers can be told apart. Ticket n sleeps
 * on word n mod 64 by bit (n / 64) mod 32: so a wake reaches the one that is meant and those whose number is
 * a multiple of 2,048 away. By the word alone, every release among 5,000 waiters would wake 78 of them, and
 * each would look through thousands of tickets before it sleeps again.
 *
 * A wake is only a hint: whoever is not woken looks by itself (queue.c). */
#include "lockq/waiter.h"

struct os_word lockq_word(struct lockq_slot *slot, uint64_t number)
{
    return (struct os_word){&slot->word[number % LOCKQ_WORDS], UINT32_C(1) << (number / LOCKQ_WORDS % 32)};
}

void lockq_wake_one(struct lockq_slot *slot, uint64_t number)
{
    struct os_word word = lockq_word(slot, number);
    os_wake_bits(&word);
}

void lockq_wake_next(struct lockq *q, struct lockq_slot *slot)
{
    uint64_t from = lockq_passed(slot) + 1, next = atomic_load(&slot->next);
    if (from > next) {
        from = atomic_load(&slot->served) + 1; /* all of them were skipped */
    }
    if (from <= next) {
        uint64_t first = lockq_ticket_first(q, lockq_slot_index(q, slot), from, next);
        /* None: the newest number's ticket may not be locked yet. */
        lockq_wake_one(slot, first != 0 ? first : next);
    }
}

void lockq_wake_before(struct lockq_slot *slot, uint64_t number)
{
    uint64_t first = lockq_passed(slot) + 1;
    if (number > first && number - first > LOCKQ_WORDS) {
        for (unsigned i = 0; i < LOCKQ_WORDS; i++) {
            os_wake_all(&slot->word[i]);
        }
        return;
    }
    for (uint64_t n = first; n < number; n++) {
        lockq_wake_one(slot, n);
    }
}
