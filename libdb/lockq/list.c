/* list.c - who holds and who waits, and the counters: shale_lockq_list and shale_lockq_stat.
 *
 * Holders come from the holder records, and count only while the lock is seen held; waiters are the live
 * tickets, in order, whether LMDB knows who they are or not. Everything is a look at a moving queue: nothing
 * is locked for it. */
#include "lockq/queue.h"

#include <stdlib.h>

#define LIST_MOST                                                                                            \
    100000 /* numbers looked at for one lock: noise in the file must not keep us here for ever */

struct listing {
    struct lockq *q;
    int fresh;
    struct lockq_meta_row *rows;
    size_t row_count;
    int (*fn)(void *ctx, const shale_ticket *t);
    void *ctx;
};

static int report(const struct listing *l, const char *name, const struct lockq_who *who, uint64_t number,
                  bool holder)
{
    shale_ticket t = {.size = sizeof t,
                      .name = name,
                      .label = who->label,
                      .program = who->program,
                      .number = number,
                      .holder = holder,
                      .exclusive = !who->shared,
                      .stopped = os_is_stopped(who->pid, who->pid_ns, who->start_time),
                      .pid = who->pid,
                      .pid_ns = who->pid_ns,
                      .start_time = who->start_time,
                      .since_ns = who->since};
    return l->fn(l->ctx, &t);
}

static int list_holders(const struct listing *l, const struct lockq_lock *lock, const char *name)
{
    struct lockq_who who[LOCKQ_RECORDS];
    unsigned count = 0;
    enum lockq_state state = lockq_record_read(l->q, lock, who, &count);
    if (state != LOCKQ_FREE && count == 0) {
        who[0] =
            (struct lockq_who){.shared = state == LOCKQ_SHARED}; /* held, by somebody who left no record */
        count = 1;
    }
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++) {
        rc = report(l, name, &who[i], who[i].number, true);
    }
    return rc;
}

static const struct lockq_who *find_row(const struct listing *l, unsigned slot, uint64_t number)
{
    for (size_t i = 0; i < l->row_count; i++) {
        if (l->rows[i].slot == slot && l->rows[i].number == number) {
            return &l->rows[i].who;
        }
    }
    return NULL;
}

static int list_waiters(const struct listing *l, const struct lockq_lock *lock, const char *name)
{
    static const struct lockq_who unknown;
    unsigned index = lockq_slot_index(l->q, lock->slot);
    uint64_t next = atomic_load(&lock->slot->next), at = atomic_load(&lock->slot->served) + 1;
    int rc = 0;
    for (unsigned i = 0; i < LIST_MOST && at <= next && rc == 0; i++) {
        uint64_t number = lockq_ticket_first(l->q, index, at, next);
        if (number == 0) {
            break;
        }
        const struct lockq_who *who = find_row(l, index, number);
        rc = report(l, name, who != NULL ? who : &unknown, number, false);
        at = number + 1;
    }
    return rc;
}

static int list_slot(const struct listing *l, unsigned index)
{
    char name[LOCKQ_NAME + 1];
    struct lockq_slot *slot = lockq_slot_used(l->q, index);
    if (slot == NULL) {
        return 0;
    }
    struct lockq_lock lock = {.slot = slot, .fd = l->fresh, .start = OS_BYTE_WRITE, .length = 1};
    uint32_t size = atomic_load_explicit(&slot->name_size, memory_order_acquire);
    size = index == 0 ? 0 : size <= LOCKQ_NAME ? size : LOCKQ_NAME;
    memcpy(name, slot->name, size);
    name[size] = '\0';
    if (index != 0) {
        lock.name = name;
        /* The key is the name's hash: also right where the name was never written. */
        lock.start = OS_BYTE_NAMED + (atomic_load(&l->q->header->key[index]) - 1) % (UINT64_C(1) << 62);
    }
    int rc = list_holders(l, &lock, name);
    return rc == 0 ? list_waiters(l, &lock, name) : rc;
}

int lockq_list(struct lockq *q, int fresh_fd, const char *name, int (*fn)(void *ctx, const shale_ticket *t),
               void *ctx)
{
    struct listing l = {.q = q, .fresh = fresh_fd, .fn = fn, .ctx = ctx};
    int rc = 0;
    if (q->header == NULL) {
        return err_set(SHALE_UNSUPPORTED, "%s: there is no usable lock-queue file", q->path);
    }
    lockq_meta_rows(q, &l.rows, &l.row_count);
    if (name != NULL) {
        struct lockq_slot *slot = lockq_slot(q, name[0] != '\0' ? name : NULL);
        rc = slot != NULL ? list_slot(&l, lockq_slot_index(q, slot)) : 0;
    } else {
        for (unsigned i = 0; i < LOCKQ_SLOTS && rc == 0; i++) {
            rc = list_slot(&l, i);
        }
    }
    free(l.rows);
    return rc;
}

void lockq_stat(struct lockq *q, const char *name, shale_lock_stats *out)
{
    struct lockq_slot *slot = lockq_slot(q, name);
    size_t size = out->size < sizeof *out ? out->size : sizeof *out;
    shale_lock_stats s = {.size = size};
    if (slot != NULL) {
        s.acquisitions = slot->acquisitions;
        s.waits = slot->waits;
        s.timeouts = slot->timeouts;
        s.reaped = slot->reaped;
        s.skipped = slot->skipped;
        s.wait_ns_total = slot->wait_ns_total;
        s.wait_ns_max = slot->wait_ns_max;
    }
    memcpy(out, &s, size);
}
