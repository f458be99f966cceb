/* lock.c - WRITE as the database takes it: in its turn, or NESTED under a WRITE that an ancestor lent; and
 * what the next holder owes a killed one.
 *
 * [I-12] Repair. A holder of WRITE who finds in_flight set parses the record there, not at wal_end: the dead
 * one may have stored wal_end already. Complete and verified: insert what is missing (idempotent), wal_end =
 * its end, visible_seq = its last seq unless already more. Torn: wipe its header, wal_end = in_flight. Then
 * in_flight = 0. So a sequence number is used exactly once, and no part of a batch is ever visible, in memory
 * or after recovery.
 */
#include "db/db.h"

static enum os_role write_role(const shale_db *db)
{
    return db->lent == LOCKQ_LENT_WRITE ? OS_ROLE_NESTED : OS_ROLE_WRITE;
}

/* Byte 2 excludes the siblings; that byte 1 is still lent to us must be looked at again once it is had. */
static int take_nested(shale_db *db, const struct os_wait *wait)
{
    int64_t nap = 20000;
    int rc;
    while ((rc = os_lock_try(db->roles.fd, OS_BYTE_NESTED, 1, true)) == SHALE_BUSY) {
        rc = os_sleep(wait, NULL, 0, nap);
        if (rc != SHALE_OK) {
            return rc == SHALE_BUSY
                       ? err_set(
                             SHALE_BUSY,
                             "%s: the write lock is lent to this process, and a sibling is writing under it",
                             db->path)
                       : err_set(rc, "%s: interrupted", db->path);
        }
        nap = nap < 1000000 ? nap * 2 : nap;
    }
    bool holds = false;
    if (rc == SHALE_OK) {
        rc = lockq_lent_holds(db->fresh_fd, db->lent_fd, &holds);
    }
    if (rc == SHALE_OK && !holds) {
        rc = err_set(SHALE_BUSY,
                     "%s: the write lock that was lent to this process (descriptor %d) is not held any more: "
                     "its lender has ended",
                     db->path, db->lent_fd);
    }
    if (rc != SHALE_OK) {
        (void)os_unlock(db->roles.fd, OS_BYTE_NESTED, 1);
    }
    return rc;
}

static int take_in_turn(shale_db *db, const struct os_wait *wait, enum lockq_how how)
{
    int rc = lockq_take(db->lockq, &db->write_lock, how, wait, &db->claim);
    if (rc == SHALE_OK && db->claim.waited) {
        uint64_t us = db->claim.waited_ns / 1000;
        DB_COUNT(db, queue_waits, 1);
        DB_COUNT(db, queue_wait_us, us);
        state_raise(&db->row->counters.queue_wait_max_us, us);
    }
    if (rc == SHALE_OK) {
        db_keep_had(db);
    }
    return rc;
}

/* Another thread of this handle is before us: it holds WRITE, or waits for whom the text then names. Looked
 * at through a descriptor that holds nothing, else our own lock could not be seen. */
int db_write_busy(shale_db *db)
{
    struct lockq_lock seen = db->write_lock;
    seen.fd = db->fresh_fd;
    return lockq_busy(db->lockq, &seen);
}

/* Looked up now, and not by a holder with the lock in its hand. */
static void know_self(shale_db *db)
{
    if (BASE_UNLIKELY(!atomic_load_explicit(&db->told_self, memory_order_relaxed))) {
        state_row_tell(db->row);
        atomic_store_explicit(&db->told_self, true, memory_order_relaxed);
    }
}

int db_write_lock(shale_db *db, const struct os_wait *wait, enum lockq_how how)
{
    know_self(db);
    if (lockq_thread_holds(db->lock_dev, db->lock_ino)) {
        return err_set(
            SHALE_INUSE,
            "%s: this thread holds the write lock already (a transaction, or a lock of the queue): "
            "write through that, or end it first",
            db->path);
    }
    if (db->lent == LOCKQ_LENT_FROZEN) {
        return err_set(
            SHALE_BUSY,
            "%s: an ancestor of this process holds the write lock shared: writers are frozen until it ends",
            db->path);
    }
    enum os_role role = write_role(db);
    int rc = os_role_claim(&db->roles, role, wait);
    if (rc != SHALE_OK) {
        return rc == SHALE_BUSY ? db_write_busy(db) : rc;
    }
    if (role == OS_ROLE_NESTED) {
        rc = take_nested(db, wait);
    } else if (!db_keep_resume(db)) {
        rc = take_in_turn(db, wait, how);
    }
    if (rc == SHALE_OK &&
        BASE_UNLIKELY(atomic_load_explicit(&db->state->in_flight, memory_order_acquire) != 0)) {
        rc = db_write_repair(db);
        if (rc != SHALE_OK) {
            db_write_unlock(db);
            return rc;
        }
    }
    if (rc != SHALE_OK) {
        os_role_unclaim(&db->roles, role);
    }
    return rc;
}

void db_write_unlock(shale_db *db)
{
    enum os_role role = write_role(db);
    os_mark(OS_MARK_UNLOCK);
    if (role == OS_ROLE_NESTED) {
        (void)os_unlock(db->roles.fd, OS_BYTE_NESTED, 1);
    } else {
        db_keep_over(db);
        lockq_free(db->lockq, &db->write_lock, &db->claim);
    }
    os_role_unclaim(&db->roles, role);
}

void db_write_unlock_keeping(shale_db *db)
{
    if (write_role(db) == OS_ROLE_WRITE && db_keep(db)) {
        os_mark(OS_MARK_UNLOCK);
        os_role_unclaim(&db->roles, OS_ROLE_WRITE);
    } else {
        db_write_unlock(db);
    }
}

void db_write_end_turn(shale_db *db)
{
    if (db->lent != LOCKQ_LENT_WRITE && db->lockq != NULL) {
        db_keep_end(db);
        lockq_end_turn(db->lockq, &db->write_lock);
    }
}

int db_write_repair(shale_db *db)
{
    struct state *s = db->state;
    uint64_t lsn = atomic_load_explicit(&s->in_flight, memory_order_acquire);
    struct mem_index *mem = NULL;
    struct wal_view rec;
    int rc = db_mem_get(db, wal_lsn_number(lsn), &mem);
    if (rc == SHALE_NOTFOUND) {
        rc = db_check_mems(db, wal_lsn_number(lsn), wal_lsn_number(lsn));
        return rc != SHALE_OK ? rc
                              : err_set(SHALE_CORRUPT, "%s: the log segment %u of a half-done commit is gone",
                                        db->path, wal_lsn_number(lsn));
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = wal_read(mem->seg, wal_lsn_offset(lsn), &rec);
    if (rc == SHALE_OK) {
        rc = mem_insert_record(mem, &rec);
        if (rc == SHALE_OK) {
            os_mark(OS_MARK_PUBLISH);
            atomic_store_explicit(&s->wal_end, wal_lsn(mem->seg->number, rec.end), memory_order_release);
            os_mark(OS_MARK_PUBLISH);
            uint64_t last = rec.first_seq + rec.count - 1;
            if (last > atomic_load_explicit(&s->visible_seq, memory_order_relaxed)) {
                atomic_store_explicit(&s->visible_seq, last, memory_order_release);
            }
        }
    } else if (rc == SHALE_NOTFOUND) {
        rc = wal_wipe(mem->seg, wal_lsn_offset(lsn));
        if (rc == SHALE_OK) {
            os_mark(OS_MARK_APPEND);
            atomic_store_explicit(&s->wal_end, lsn, memory_order_release);
        }
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_PUBLISH);
        atomic_store_explicit(&s->in_flight, 0, memory_order_release);
        DB_COUNT(db, repairs, 1);
    }
    mem_unref(mem);
    return rc;
}
