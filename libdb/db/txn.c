/* txn.c - write transactions: WRITE is taken, in its turn, at begin and held to the end, so what a
 * transaction reads cannot change under it; commit is one record.
 *
 * Its writes are kept in an overlay, over the view as it is when WRITE is had. A stall is waited out before
 * that [I-3]. The commit may exceed the limits by one batch and may prepare a segment under WRITE: the one
 * exception to [I-4]. The sync comes after WRITE is released, like any commit's.
 */
#include "db/iter.h"
#include "db/overlay.h"

#include <stdlib.h>

struct shale_txn {
    shale_db *db;
    struct shale_txn *next; /* db->txns, under group_mutex */
    unsigned flags;
    bool ended; /* aborted by close: WRITE is not held any more */
    struct db_view *view;
    uint64_t seq;
    struct overlay *overlay;
    uint32_t deletes; /* entries of the overlay */
};

/* ---- begin and end ---- */

static void txn_link(struct shale_txn *txn)
{
    shale_db *db = txn->db;
    os_mutex_lock(&db->group_mutex);
    txn->next = db->txns;
    db->txns = txn;
    os_mutex_unlock(&db->group_mutex);
}

static void txn_unlink(struct shale_txn *txn)
{
    shale_db *db = txn->db;
    os_mutex_lock(&db->group_mutex);
    for (struct shale_txn **p = &db->txns; *p != NULL; p = &(*p)->next) {
        if (*p == txn) {
            *p = txn->next;
            break;
        }
    }
    os_mutex_unlock(&db->group_mutex);
}

static void txn_free(struct shale_txn *txn)
{
    overlay_unref(txn->overlay);
    db_view_unref(txn->view);
    db_unref(txn->db);
    free(txn);
}

/* WRITE stays held between calls: the audit looks away meanwhile. */
static void keep_write(shale_db *db)
{
    lockq_thread_hold(db->lock_dev, db->lock_ino);
    os_audit_exempt(+1);
}

static void release_write(shale_db *db)
{
    os_audit_exempt(-1);
    lockq_thread_drop(db->lock_dev, db->lock_ino);
    db_write_unlock(db);
}

/* Adopts what moved and opens every table of it, so that next to nothing is left to do under WRITE [I-4]. */
static int warm_up(shale_db *db)
{
    struct db_view *view;
    uint64_t seq;
    int rc = db_snapshot_view(db, NULL, &view, &seq);
    if (rc == SHALE_OK) {
        db_view_unref(view);
    }
    return rc;
}

static int txn_start(struct shale_txn *txn, int64_t timeout_ms)
{
    shale_db *db = txn->db;
    bool once = (txn->flags & SHALE_NOWAIT) != 0 || db->options.wait == SHALE_WAIT_NONE;
    struct os_wait wait = db_wait_ms(db, once ? 0 : timeout_ms);
    enum lockq_how how = once                                     ? LOCKQ_ONCE
                         : db->options.wait == SHALE_WAIT_BACKOFF ? LOCKQ_BACKOFF
                                                                  : LOCKQ_QUEUE;
    int rc = overlay_create(&txn->overlay);
    if (rc == SHALE_OK && !lockq_thread_holds(db->lock_dev, db->lock_ino)) {
        rc = db_stall(db, &wait);
        rc = rc == SHALE_OK ? warm_up(db) : rc;
    }
    if (rc == SHALE_OK) {
        rc = db_write_lock(db, &wait, how);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    keep_write(db);
    rc = db_panic(db);
    if (rc == SHALE_OK) {
        rc = db_snapshot_view(db, NULL, &txn->view, &txn->seq);
    }
    if (rc != SHALE_OK) {
        release_write(db);
    }
    return rc;
}

int shale_txn_begin(shale_db *db, unsigned flags, int64_t timeout_ms, shale_txn **out)
{
    int rc = db_check_write(db);
    if (rc == SHALE_OK && out == NULL) {
        rc = err_set(SHALE_INVALID, "shale_txn_begin: no place for the transaction");
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    *out = NULL;
    rc = db_check_flags(flags);
    if (rc == SHALE_OK && timeout_ms < -1) {
        rc =
            err_set(SHALE_INVALID, "timeout_ms is %lld: -1 is for ever, 0 tries once", (long long)timeout_ms);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct shale_txn *txn = base_calloc(1, sizeof *txn);
    if (txn == NULL) {
        return SHALE_NOMEM;
    }
    txn->db = db_ref(db);
    txn->flags = flags;
    rc = txn_start(txn, timeout_ms);
    if (rc != SHALE_OK) {
        txn_free(txn);
        return rc;
    }
    txn_link(txn);
    *out = txn;
    return SHALE_OK;
}

/* Every use moves the hold to the thread that makes it: a transaction may wander. */
static int check_txn(struct shale_txn *txn)
{
    if (txn == NULL) {
        return err_set(SHALE_INVALID, "the transaction is NULL");
    }
    int rc = db_check(txn->db);
    if (rc == SHALE_OK && txn->ended) {
        rc = err_set(SHALE_INVALID, "%s: the transaction was aborted when the handle was closed",
                     txn->db->path);
    }
    if (rc == SHALE_OK) {
        lockq_thread_hold(txn->db->lock_dev, txn->db->lock_ino);
    }
    return rc;
}

void shale_txn_abort(shale_txn *txn)
{
    if (txn == NULL) {
        return;
    }
    if (db_check(txn->db) == SHALE_OK && !txn->ended) {
        txn_unlink(txn);
        release_write(txn->db);
    }
    txn_free(txn);
}

void db_txn_abort_all(shale_db *db)
{
    os_mutex_lock(&db->group_mutex);
    struct shale_txn *txn = db->txns;
    db->txns = NULL;
    os_mutex_unlock(&db->group_mutex);
    for (; txn != NULL; txn = txn->next) { /* WRITE is exclusive: there is one at the most */
        txn->ended = true;
        release_write(db);
    }
}

int shale_txn_commit(shale_txn *txn)
{
    int rc = check_txn(txn);
    if (rc != SHALE_OK) {
        shale_txn_abort(txn);
        return rc;
    }
    shale_db *db = txn->db;
    uint32_t count = overlay_count(txn->overlay);
    if (count == 0) {
        shale_txn_abort(txn);
        return SHALE_OK;
    }
    bool durable = db_wants_sync(db, txn->flags);
    uint32_t active = db_active(db->state);
    uint64_t lsn;
    rc = db_commit_locked(db, overlay_payload(txn->overlay), count, durable, &lsn);
    txn_unlink(txn);
    release_write(db);
    if (rc == SHALE_OK) {
        DB_COUNT(db, puts, count - txn->deletes);
        DB_COUNT(db, deletes, txn->deletes);
        rc = db_published(db, lsn, overlay_payload(txn->overlay).size, durable,
                          db_active(db->state) != active);
    }
    txn_free(txn);
    return rc;
}

/* ---- reading and writing in it ---- */

int shale_txn_get(shale_txn *txn, const void *key, size_t keylen, shale_value *val)
{
    int rc = val == NULL ? err_set(SHALE_INVALID, "shale_txn_get: no place for the value") : check_txn(txn);
    struct wal_entry e;
    struct db_hit hit;
    bool gone;
    if (rc == SHALE_OK && key == NULL && keylen != 0) {
        rc = err_set(SHALE_INVALID, "a key of non-zero length has no data");
    }
    if (val != NULL) {
        *val = (shale_value){0};
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = overlay_get(txn->overlay, slice_make(key, keylen), &e);
    if (rc == SHALE_OK) {
        return e.type == WAL_PUT ? db_value_copy(e.value, val) : SHALE_NOTFOUND;
    }
    rc = db_view_lookup(txn->db, txn->view, txn->seq, slice_make(key, keylen), &hit, &gone);
    if (rc == SHALE_OK) {
        rc = db_value_make(txn->db, txn->view, &hit, val);
    }
    table_pin_release(&hit.pin);
    DB_COUNT(txn->db, gets, 1);
    DB_COUNT(txn->db, gets_found, rc == SHALE_OK);
    return rc;
}

static int txn_add(struct shale_txn *txn, uint8_t type, const void *key, size_t keylen, const void *val,
                   size_t vallen)
{
    int rc = check_txn(txn);
    if (rc == SHALE_OK) {
        rc = db_check_entry(keylen, key, vallen, val);
    }
    if (rc == SHALE_OK) {
        rc = db_check_room(overlay_payload(txn->overlay).size, overlay_count(txn->overlay), keylen + vallen,
                           1);
    }
    return rc != SHALE_OK ? rc
                          : overlay_add(txn->overlay, type, slice_make(key, keylen), slice_make(val, vallen));
}

int shale_txn_put(shale_txn *txn, const void *key, size_t keylen, const void *val, size_t vallen)
{
    return txn_add(txn, WAL_PUT, key, keylen, val, vallen);
}

int shale_txn_delete(shale_txn *txn, const void *key, size_t keylen)
{
    int rc = txn_add(txn, WAL_DELETE, key, keylen, NULL, 0);
    if (rc == SHALE_OK) {
        txn->deletes++;
    }
    return rc;
}

int shale_txn_iter(shale_txn *txn, const shale_iter_options *options, shale_iter **it)
{
    struct db_run run;
    int rc =
        it == NULL ? err_set(SHALE_INVALID, "shale_txn_iter: no place for the iterator") : check_txn(txn);
    if (it != NULL) {
        *it = NULL;
    }
    if (rc == SHALE_OK) {
        rc = overlay_run(txn->overlay, &run);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    return db_iter_make(txn->db, db_view_ref(txn->view), txn->seq, &run, overlay_run_release, options, it);
}
