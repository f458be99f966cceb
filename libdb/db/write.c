/* write.c - the write path: threads form a write group, its leader takes WRITE for all of them.
 *
 *     join the group -> leader? -> [stall] -> WRITE in its turn -> for each writer: append, index, publish
 *         -> release WRITE -> pass the leadership on -> sync for those who want it
 *
 * Publishing one record, under WRITE, is plain stores [I-4]:
 *
 *     in_flight = its LSN; the record into the log; its entries into the index;
 *     wal_end = its end; visible_seq = its last; in_flight = 0
 *
 * A process killed between any two of these leaves in_flight set, and the next holder of WRITE finishes or
 * wipes the record [I-12]. Followers are appended as records of their own, so that a batch stays the unit of
 * atomicity.
 *
 * What may have to be waited for (a stall, the next segment, a segment to map) is waited for without WRITE:
 * the leader releases it, does that, and queues again [I-3]. A transaction that commits holds WRITE
 * throughout: it may exceed the limits by one batch, and prepares under WRITE: the one exception.
 */
#include "db/db.h"

#include <stdio.h>

enum { WRITER_WAITS, WRITER_LEADS, WRITER_DONE };
#define GROUP_BYTES (1u << 20)

struct db_writer {
    struct db_writer *next;
    struct slice payload;
    uint32_t count;
    bool durable;
    bool taken;             /* a leader is publishing it; under group_mutex */
    _Atomic uint32_t phase; /* also the word its thread sleeps on */
    int status;
    char text[256]; /* of an error that the leader met */
};

/* What keeps a record from being appended right now. */
enum blocked { BLOCKED_NOT, BLOCKED_STALL, BLOCKED_PREPARE, BLOCKED_MAP };

bool db_wants_sync(const shale_db *db, unsigned flags)
{
    if ((flags & (SHALE_SYNC | SHALE_NOSYNC)) != 0) {
        return (flags & SHALE_SYNC) != 0;
    }
    return db->options.durable == SHALE_DURABLE_COMMIT;
}

/* ---- under WRITE ---- */

/* Makes `number` the memtable that this handle writes to, if it is mapped already (may_open: or maps it now).
 */
static int set_active(shale_db *db, uint32_t number, bool may_open, enum blocked *why)
{
    if (BASE_LIKELY(db->active != NULL && db->active->seg->number == number)) {
        return SHALE_OK;
    }
    struct mem_index *mem = db_mem_cached(db, number);
    if (mem == NULL && !may_open) {
        *why = BLOCKED_MAP;
        return SHALE_OK;
    }
    if (mem == NULL) {
        int rc = db_mem_get(db, number, &mem);
        if (rc == SHALE_NOTFOUND) {
            rc = db_check_mems(db, number, number);
            return rc != SHALE_OK
                       ? rc
                       : err_set(SHALE_CORRUPT, "%s: the active log segment %u is missing", db->path, number);
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    db_mem_unref(db, db->active);
    db->active = mem;
    atomic_store_explicit(&db->prepare_at, wal_lsn(number, (uint32_t)(mem->seg->size / 2)),
                          memory_order_relaxed);
    return SHALE_OK;
}

static uint64_t need_of(uint32_t length, uint32_t count)
{
    uint64_t log = wal_record_size(length), index = mem_need(count);
    return (log > index ? log : index) + WAL_FIRST;
}

static bool fits(const struct mem_index *mem, uint32_t offset, uint32_t length, uint32_t count)
{
    return offset + wal_record_size(length) <= mem->seg->size && mem_need(count) <= mem_room(mem);
}

/* STATE is memory that others write to: what it says is looked at before anything is stored where it says. */
static int check_end(const shale_db *db, uint64_t end)
{
    struct state_view tuple;
    state_load_tuple(db->state, &tuple);
    uint32_t offset = wal_lsn_offset(end);
    if (wal_lsn_number(end) < tuple.oldest || offset < WAL_FIRST || offset % 8 != 0) {
        return err_set(SHALE_CORRUPT,
                       "%s: STATE: the log cannot end at %u of segment %u, the oldest is %u: %s", db->path,
                       offset, wal_lsn_number(end), tuple.oldest,
                       "end all processes that use the database, and open it again");
    }
    return SHALE_OK;
}

/* Seals the active memtable: one store. sealed_limit 0: whatever the number of sealed ones (a transaction).
 */
static int rotate(shale_db *db, unsigned sealed_limit, bool may_open, enum blocked *why)
{
    struct state *s = db->state;
    uint32_t active = db_active(s);
    struct state_view tuple;
    state_load_tuple(s, &tuple);
    if (sealed_limit != 0 && active + 1 - tuple.oldest > sealed_limit) {
        *why = BLOCKED_STALL;
        return SHALE_OK;
    }
    if (active + 2 - tuple.oldest >= DB_MAX_MEMS) {
        return err_set(SHALE_BUSY, "%s: %u memtables wait to be flushed: no more are possible", db->path,
                       active + 1 - tuple.oldest);
    }
    if (atomic_load_explicit(&s->ready, memory_order_acquire) <= active) {
        *why = BLOCKED_PREPARE;
        return SHALE_OK;
    }
    int rc = set_active(db, active + 1, may_open, why);
    if (rc != SHALE_OK || *why != BLOCKED_NOT) {
        return rc;
    }
    os_mark(OS_MARK_ROTATE);
    atomic_store_explicit(&s->wal_end, wal_lsn(active + 1, WAL_FIRST), memory_order_release);
    os_mark(OS_MARK_ROTATE);
    DB_COUNT(db, rotations, 1);
    return SHALE_OK;
}

/* Room for a record in the active memtable, sealing it if need be; *why tells what stands in the way. */
static int make_room(shale_db *db, uint32_t length, uint32_t count, unsigned sealed_limit, bool may_open,
                     enum blocked *why)
{
    *why = BLOCKED_NOT;
    for (;;) {
        uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
        int rc = check_end(db, end);
        if (rc == SHALE_OK) {
            rc = set_active(db, wal_lsn_number(end), may_open, why);
        }
        if (rc != SHALE_OK || *why != BLOCKED_NOT || fits(db->active, wal_lsn_offset(end), length, count)) {
            return rc;
        }
        rc = rotate(db, sealed_limit, may_open, why);
        if (rc != SHALE_OK || *why != BLOCKED_NOT) {
            return rc;
        }
    }
}

/* The append failed: wipes what is there, so that it is no record. If that fails too, in_flight stays, and
 * repair finishes it. */
static int append_undo(shale_db *db, struct wal_segment *seg, uint32_t offset, int status)
{
    if (wal_wipe(seg, offset) != SHALE_OK) {
        return err_wrap(SHALE_PANIC,
                        "%s: a write failed half way, the commit's fate is open: close and reopen", db->path);
    }
    os_mark(OS_MARK_APPEND);
    atomic_store_explicit(&db->state->in_flight, 0, memory_order_release);
    return status;
}

/* Indexes and publishes a record that stands complete in the log. */
static int publish(shale_db *db, struct slice payload, uint32_t offset, uint64_t first_seq, uint32_t count)
{
    struct state *s = db->state;
    struct wal_view rec = {
        .offset = offset,
        .end = offset + (uint32_t)wal_record_size(payload.size),
        .count = count,
        .first_seq = first_seq,
        .payload = slice_make(db->active->seg->map + offset + sizeof(struct wal_record), payload.size)};
    int rc = mem_insert_record(db->active, &rec);
    if (rc != SHALE_OK) {
        /* Nothing after a complete append may be taken back: the record is there. Only a damaged index comes
         * here. */
        return err_wrap(SHALE_PANIC, "%s: the memtable index is damaged: close and reopen", db->path);
    }
    os_mark(OS_MARK_PUBLISH);
    atomic_store_explicit(&s->wal_end, wal_lsn(db->active->seg->number, rec.end), memory_order_release);
    os_mark(OS_MARK_PUBLISH);
    atomic_store_explicit(&s->visible_seq, first_seq + count - 1, memory_order_release);
    os_mark(OS_MARK_PUBLISH);
    atomic_store_explicit(&s->in_flight, 0, memory_order_release);
    os_mark(OS_MARK_PUBLISH);
    return SHALE_OK;
}

/* Room has been made. */
static int append_record(shale_db *db, struct slice payload, uint32_t count, bool through_file)
{
    struct state *s = db->state;
    uint64_t end = atomic_load_explicit(&s->wal_end, memory_order_relaxed);
    uint64_t seq = atomic_load_explicit(&s->visible_seq, memory_order_relaxed) + 1;
    uint32_t offset = wal_lsn_offset(end);
    struct wal_segment *seg = db->active->seg;
    struct wal_record header;

    atomic_store_explicit(&s->in_flight, end, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* in_flight before any byte of the record */
    os_mark(OS_MARK_APPEND);
    uint64_t synced = atomic_load_explicit(&s->synced_lsn, memory_order_acquire);
    uint64_t noted = wal_note_durable(seq, end, synced);
    wal_seal(seg, offset, count, noted, payload.data, (uint32_t)payload.size, &header);
    int rc = wal_append(seg, offset, &header, payload.data, through_file || !db->write_in_place);
    if (rc != SHALE_OK) {
        return append_undo(db, seg, offset, rc);
    }
    os_mark(OS_MARK_INSERT);
    rc = publish(db, payload, offset, seq, count);
    if (rc == SHALE_OK) {
        DB_COUNT(db, commits, 1);
        DB_COUNT(db, write_bytes, wal_record_size(payload.size));
    }
    return rc;
}

/* ---- the group ---- */

static void writer_set(struct db_writer *w, uint32_t phase)
{
    atomic_store_explicit(&w->phase, phase, memory_order_release);
    if (phase != WRITER_WAITS) {
        os_wake(&w->phase, 1);
    }
}

static void writer_finish(struct db_writer *w, int status)
{
    w->status = status;
    if (status != SHALE_OK) {
        (void)snprintf(w->text, sizeof w->text, "%s", shale_errmsg());
    }
    /* w lives on its thread's stack: after this store it may be gone, so the wake goes to an address only */
    writer_set(w, WRITER_DONE);
}

static void group_remove(shale_db *db, struct db_writer *w)
{
    struct db_writer *prev = NULL;
    for (struct db_writer *i = db->group_head; i != NULL; prev = i, i = i->next) {
        if (i == w) {
            *(prev == NULL ? &db->group_head : &prev->next) = w->next;
            if (db->group_tail == w) {
                db->group_tail = prev;
            }
            break;
        }
    }
}

static void promote_head(shale_db *db)
{
    if (db->group_head != NULL) {
        writer_set(db->group_head, WRITER_LEADS);
    }
}

/* Joins; returns when this writer leads, is done, or gave up (SHALE_BUSY, SHALE_CANCELLED). */
static int group_join(shale_db *db, struct db_writer *w, const struct os_wait *wait)
{
    os_mutex_lock(&db->group_mutex);
    if (db->group_head == NULL) {
        db->group_head = db->group_tail = w;
        atomic_store_explicit(&w->phase, WRITER_LEADS, memory_order_relaxed);
    } else {
        db->group_tail->next = w;
        db->group_tail = w;
    }
    os_mutex_unlock(&db->group_mutex);
    int rc = SHALE_OK;
    while (rc == SHALE_OK && atomic_load_explicit(&w->phase, memory_order_acquire) == WRITER_WAITS) {
        rc = os_sleep(wait, &w->phase, WRITER_WAITS, 50000000);
    }
    if (rc == SHALE_OK) {
        return SHALE_OK;
    }
    os_mutex_lock(&db->group_mutex);
    bool mine = atomic_load_explicit(&w->phase, memory_order_acquire) == WRITER_WAITS && !w->taken;
    if (mine) {
        group_remove(db, w);
    }
    os_mutex_unlock(&db->group_mutex);
    if (mine) {
        return rc == SHALE_BUSY ? db_write_busy(db) : err_set(rc, "%s: interrupted", db->path);
    }
    struct os_wait forever = os_wait_forever(); /* a leader is publishing it: soon over */
    while (atomic_load_explicit(&w->phase, memory_order_acquire) == WRITER_WAITS) {
        (void)os_sleep(&forever, &w->phase, WRITER_WAITS, 50000000);
    }
    return SHALE_OK;
}

struct group {
    struct db_writer *first, *last; /* published, taken out of the queue */
    unsigned durable;
    uint64_t bytes, end;
    enum blocked why; /* why the leader itself was not published */
    bool rotated;
};

/* The next writer of the queue, taken: from now on its thread may not leave. One that came when the queue was
 * empty leads itself and waits for WRITE already: it is nobody else's to publish, since nobody would tell it.
 */
static struct db_writer *group_take(shale_db *db, const struct group *g, const struct db_writer *self)
{
    os_mutex_lock(&db->group_mutex);
    struct db_writer *w = db->group_head;
    if (w != NULL && g->first != NULL && g->bytes + w->payload.size > GROUP_BYTES) {
        w = NULL;
    }
    if (w != NULL && w != self && atomic_load_explicit(&w->phase, memory_order_relaxed) == WRITER_LEADS) {
        w = NULL;
    }
    if (w != NULL) {
        w->taken = true;
    }
    os_mutex_unlock(&db->group_mutex);
    return w;
}

static void group_put_back(shale_db *db, struct db_writer *w)
{
    os_mutex_lock(&db->group_mutex);
    w->taken = false;
    os_mutex_unlock(&db->group_mutex);
}

static void group_published(shale_db *db, struct group *g, struct db_writer *w)
{
    os_mutex_lock(&db->group_mutex);
    group_remove(db, w);
    os_mutex_unlock(&db->group_mutex);
    w->next = NULL;
    if (g->first == NULL) {
        g->first = w;
    } else {
        g->last->next = w;
    }
    g->last = w;
    g->durable += w->durable;
    g->bytes += wal_record_size(w->payload.size);
}

/* Under WRITE: publishes the leader and whoever is queued behind it, as long as there is room. */
static int group_append(shale_db *db, struct group *g, const struct db_writer *self, bool may_open)
{
    uint32_t before = db_active(db->state);
    struct db_writer *w;
    int rc = db_panic(db);
    g->why = BLOCKED_NOT;
    while (rc == SHALE_OK && (w = group_take(db, g, self)) != NULL) {
        uint32_t length = (uint32_t)w->payload.size;
        rc = make_room(db, length, w->count, db->options.max_sealed, may_open, &g->why);
        if (rc == SHALE_OK && g->why == BLOCKED_NOT) {
            rc = append_record(db, w->payload, w->count, w->durable);
        }
        if (rc != SHALE_OK || g->why != BLOCKED_NOT) {
            group_put_back(db, w);
            break;
        }
        group_published(db, g, w);
    }
    if (g->first != NULL) {
        rc = SHALE_OK; /* the leader is published; who comes next meets the obstacle itself */
        g->why = BLOCKED_NOT;
    }
    g->end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    g->rotated = db_active(db->state) != before;
    return rc;
}

/* Waits for, or does, what keeps the leader from its turn. WRITE is not held. */
static int unblock(shale_db *db, enum blocked why, const struct db_writer *w, const struct os_wait *wait)
{
    struct mem_index *mem = NULL;
    int rc;
    switch (why) {
    case BLOCKED_STALL: return db_stall_rotation(db, wait);
    case BLOCKED_PREPARE:
        db_write_end_turn(db);
        return db_prepare(db, need_of((uint32_t)w->payload.size, w->count), wait);
    case BLOCKED_MAP:
        for (uint32_t n = db_active(db->state), i = 0;
             i < DB_MAX_MEMS && n <= atomic_load_explicit(&db->state->ready, memory_order_acquire);
             n++, i++) { /* DB_MAX_MEMS: `ready` is shared memory, and may be anything */
            rc = db_mem_get(db, n, &mem);
            if (rc == SHALE_OK) {
                mem_unref(mem);
            } else if (rc != SHALE_NOTFOUND) {
                return rc;
            }
        }
        return SHALE_OK;
    default: return SHALE_OK;
    }
}

/* Leads until this writer's own record is published, or can't be. */
static int group_lead(shale_db *db, struct db_writer *w, struct group *g, const struct os_wait *wait,
                      enum lockq_how how)
{
    for (unsigned tries = 0;; tries++) {
        int rc = db_write_lock(db, wait, how);
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = group_append(db, g, w, tries > 3);
        if (rc == SHALE_OK && g->why == BLOCKED_NOT && g->durable == 0 && !g->rotated) {
            db_write_unlock_keeping(db);
        } else {
            db_write_unlock(db);
        }
        db_mems_free_soon(db);
        if (rc != SHALE_OK || g->why == BLOCKED_NOT) {
            return rc;
        }
        rc = unblock(db, g->why, w, wait);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

/* WRITE is released. Tells those who sleep on changes, and those who do the work. */
static void after_publish(shale_db *db, uint64_t bytes, unsigned durable, bool rotated)
{
    struct state *s = db->state;
    if (durable != 0) {
        atomic_fetch_add_explicit(&s->durable_published, durable, memory_order_release);
        DB_COUNT(db, durable_commits, durable);
    }
    atomic_thread_fence(
        memory_order_seq_cst); /* with the sleeper's: it sees the new seq, or we see it asleep */
    if (atomic_load_explicit(&s->change_asleep, memory_order_relaxed) != 0) {
        state_wake(&s->change, &s->change_asleep);
    }
    if (rotated || db_prepare_due(db)) {
        db_wake_work(db);
    }
    db_keep_start_due(db);
    db_delay(db, bytes);
}

static void after_sync(shale_db *db)
{
    if (db->options.threads == 0) {
        (void)db_work_inline(
            db); /* the commit stands, whatever becomes of the work; a stall reports what stays wrong */
    }
}

int db_published(shale_db *db, uint64_t lsn, uint64_t bytes, bool durable, bool rotated)
{
    int rc = SHALE_OK;
    after_publish(db, bytes, durable, rotated);
    if (durable) {
        struct os_wait forever = os_wait_forever();
        rc = db_sync(db, lsn, true, &forever);
    } else if (db->options.durable == SHALE_DURABLE_INTERVAL) {
        db_owe_sync(db);
    }
    after_sync(db);
    return rc;
}

/* The leader's last duty: sync for those who want it, then tell everybody. */
static int group_finish(shale_db *db, struct group *g, struct db_writer *self)
{
    struct db_writer *durable = NULL, *w = g->first;
    int mine = SHALE_OK;
    while (w != NULL) {
        struct db_writer *next = w->next;
        if (w->durable) {
            w->next = durable;
            durable = w;
        } else if (w != self) {
            writer_finish(w, SHALE_OK);
        }
        w = next;
    }
    if (durable == NULL) {
        return mine;
    }
    struct os_wait forever = os_wait_forever();
    int rc = db_sync(db, g->end, true, &forever);
    for (w = durable; w != NULL;) {
        struct db_writer *next = w->next;
        if (w == self) {
            mine = rc;
        } else {
            writer_finish(w, rc);
        }
        w = next;
    }
    return mine;
}

static int commit_as_leader(shale_db *db, struct db_writer *w, const struct os_wait *wait, enum lockq_how how)
{
    struct group g = {0};
    int rc = group_lead(db, w, &g, wait, how);
    os_mutex_lock(&db->group_mutex);
    if (rc != SHALE_OK) {
        group_remove(db, w);
    }
    promote_head(db);
    os_mutex_unlock(&db->group_mutex);
    if (rc != SHALE_OK) {
        return rc;
    }
    after_publish(db, g.bytes, g.durable, g.rotated);
    rc = group_finish(db, &g, w);
    after_sync(db);
    return rc;
}

int db_commit(shale_db *db, struct slice payload, uint32_t count, unsigned flags)
{
    bool once = (flags & SHALE_NOWAIT) != 0 || db->options.wait == SHALE_WAIT_NONE;
    struct os_wait wait = once ? db_wait_ms(db, 0) : db_wait(db);
    enum lockq_how how = once                                     ? LOCKQ_ONCE
                         : db->options.wait == SHALE_WAIT_BACKOFF ? LOCKQ_BACKOFF
                                                                  : LOCKQ_QUEUE;
    struct db_writer w = {.payload = payload, .count = count, .durable = db_wants_sync(db, flags)};
    if (lockq_thread_holds(db->lock_dev, db->lock_ino)) {
        return db_write_lock(db, &wait, how); /* says so: SHALE_INUSE */
    }
    int rc = db_stall(db, &wait);
    if (rc == SHALE_OK) {
        rc = group_join(db, &w, &wait);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    if (atomic_load_explicit(&w.phase, memory_order_acquire) == WRITER_LEADS) {
        rc = commit_as_leader(db, &w, &wait, how);
    } else {
        rc = w.status != SHALE_OK ? err_set(w.status, "%s", w.text) : SHALE_OK;
    }
    if (rc == SHALE_OK && !w.durable && db->options.durable == SHALE_DURABLE_INTERVAL) {
        db_owe_sync(db);
    }
    return rc;
}

/* ---- for who holds WRITE already ---- */

int db_commit_locked(shale_db *db, struct slice payload, uint32_t count, bool through_file, uint64_t *lsn)
{
    int rc = db_panic(db);
    while (rc == SHALE_OK) {
        enum blocked why;
        rc = make_room(db, (uint32_t)payload.size, count, 0, true, &why);
        if (rc == SHALE_OK && why == BLOCKED_NOT) {
            break;
        }
        if (rc == SHALE_OK) {
            struct os_wait forever = os_wait_forever();
            rc = db_prepare(db, need_of((uint32_t)payload.size, count), &forever);
        }
    }
    if (rc == SHALE_OK) {
        rc = append_record(db, payload, count, through_file);
    }
    *lsn = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    return rc;
}

int db_seal(shale_db *db, const struct os_wait *wait)
{
    for (;;) {
        enum blocked why = BLOCKED_NOT;
        int rc = db_write_lock(db, wait, LOCKQ_QUEUE);
        if (rc != SHALE_OK) {
            return rc;
        }
        uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
        uint64_t panic = atomic_load_explicit(&db->state->panic, memory_order_relaxed);
        rc = check_end(db, end);
        if (rc == SHALE_OK && (wal_lsn_offset(end) != WAL_FIRST || panic >= wal_lsn_number(end))) {
            rc = rotate(db, DB_MAX_MEMS - 4, true, &why);
        }
        db_write_unlock(db);
        if (rc == SHALE_OK && why == BLOCKED_PREPARE) {
            rc = db_prepare(db, 0, wait);
        } else if (rc == SHALE_OK && why == BLOCKED_STALL) {
            rc = db_stall_rotation(db, wait);
        } else {
            return rc;
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}
