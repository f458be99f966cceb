/* write.c - a commit under WRITE: into the log, into the index, published.
 *
 *     put -> group.c: WRITE in its turn -> here: room, append, index, publish -> release WRITE -> sync
 *
 * Publishing one record is plain stores [I-4]:
 *
 *     in_flight = its LSN; the record into the log; its entries into the index;
 *     wal_end = its end; visible_seq = its last; in_flight = 0
 *
 * A process killed between any two of these leaves in_flight set, and the next holder of WRITE finishes or
 * wipes the record [I-12].
 *
 * A transaction that commits holds WRITE throughout: it may exceed the limits by one batch, and prepares
 * under WRITE: the one exception [I-3].
 */
#include "db/write.h"

#define SMALL_SEGMENT (1u << 20)
#define TELL_STEP     (64u << 10)

bool db_wants_sync(const shale_db *db, unsigned flags)
{
    if ((flags & (SHALE_SYNC | SHALE_NOSYNC)) != 0) {
        return (flags & SHALE_SYNC) != 0;
    }
    return db->options.durable == SHALE_DURABLE_COMMIT;
}

/* ---- under WRITE ---- */

/* From where on the next segment is due. To make one takes milliseconds, in which a busy writer fills half of
 * a small one. */
static uint32_t prepare_offset(const struct wal_segment *seg)
{
    return (uint32_t)(seg->size > SMALL_SEGMENT ? seg->size / 2 : seg->size / 8);
}

void db_prepare_know(shale_db *db)
{
    uint64_t known = atomic_load_explicit(&db->prepare_at, memory_order_relaxed);
    uint32_t active = db_active(db->state);
    struct mem_index *mem = NULL;
    if (wal_lsn_number(known) != active && db_mem_get(db, active, &mem) == SHALE_OK) {
        uint64_t at = wal_lsn(active, prepare_offset(mem->seg));
        (void)atomic_compare_exchange_strong(&db->prepare_at, &known,
                                             at); /* else a thread writes, and knows */
        mem_unref(mem);
    }
}

/* Makes `number` the memtable that this handle writes to, if it is mapped already (may_open: or maps it now).
 */
static int set_active(shale_db *db, uint32_t number, bool may_open, enum write_blocked *why)
{
    if (BASE_LIKELY(db->active != NULL && db->active->seg->number == number)) {
        return SHALE_OK;
    }
    struct mem_index *mem = db_mem_cached(db, number);
    if (mem == NULL && !may_open) {
        *why = WRITE_MAP;
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
    atomic_store_explicit(&db->prepare_at, wal_lsn(number, prepare_offset(mem->seg)), memory_order_relaxed);
    return SHALE_OK;
}

uint64_t write_need_of(uint32_t length, uint32_t count)
{
    uint64_t log = wal_record_size(length), index = mem_need(count);
    return (log > index ? log : index) + WAL_FIRST;
}

static bool fits(const struct mem_index *mem, uint32_t offset, uint32_t length, uint32_t count)
{
    return offset + wal_record_size(length) <= mem->seg->size && mem_fits(mem, count);
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
static int rotate(shale_db *db, unsigned sealed_limit, bool may_open, enum write_blocked *why)
{
    struct state *s = db->state;
    uint32_t active = db_active(s);
    struct state_view tuple;
    state_load_tuple(s, &tuple);
    if (sealed_limit != 0 && active + 1 - tuple.oldest > sealed_limit) {
        *why = WRITE_STALLS;
        return SHALE_OK;
    }
    if (active + 2 - tuple.oldest >= DB_MAX_MEMS) {
        return err_set(SHALE_BUSY, "%s: %u memtables wait to be flushed: no more are possible", db->path,
                       active + 1 - tuple.oldest);
    }
    if (atomic_load_explicit(&s->ready, memory_order_acquire) <= active) {
        *why = WRITE_PREPARE;
        return SHALE_OK;
    }
    int rc = set_active(db, active + 1, may_open, why);
    if (rc != SHALE_OK || *why != WRITE_FREE) {
        return rc;
    }
    os_mark(OS_MARK_ROTATE);
    atomic_store_explicit(&s->wal_end, wal_lsn(active + 1, WAL_FIRST), memory_order_release);
    os_mark(OS_MARK_ROTATE);
    DB_COUNT(db, rotations, 1);
    return SHALE_OK;
}

int write_make_room(shale_db *db, uint32_t length, uint32_t count, unsigned sealed_limit, bool may_open,
                    enum write_blocked *why)
{
    *why = WRITE_FREE;
    for (;;) {
        uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
        int rc = check_end(db, end);
        if (rc == SHALE_OK) {
            rc = set_active(db, wal_lsn_number(end), may_open, why);
        }
        if (rc != SHALE_OK || *why != WRITE_FREE || fits(db->active, wal_lsn_offset(end), length, count)) {
            return rc;
        }
        rc = rotate(db, sealed_limit, may_open, why);
        if (rc != SHALE_OK || *why != WRITE_FREE) {
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
    if (BASE_LIKELY(db_is_calm(db))) {
        atomic_store_explicit(&s->calm_seq, first_seq + count - 1, memory_order_relaxed);
    }
    atomic_store_explicit(&s->in_flight, 0, memory_order_release);
    os_mark(OS_MARK_PUBLISH);
    return SHALE_OK;
}

int write_append(shale_db *db, struct slice payload, uint32_t count, bool through_file)
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

/* ---- WRITE is released ---- */

/* The next segment is due, and somebody who sleeps may make it: said again from time to time, for whoever is
 * at it may die; not by each commit, which would keep the idle threads of all processes busy. */
static bool prepare_to_tell(shale_db *db)
{
    if (BASE_LIKELY(!db_prepare_due(db))) {
        return false;
    }
    uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    if (end < atomic_load_explicit(&db->prepare_told, memory_order_relaxed)) {
        return false;
    }
    atomic_store_explicit(&db->prepare_told, end + TELL_STEP, memory_order_relaxed);
    return true;
}

void write_published(shale_db *db, uint64_t bytes, unsigned durable, bool rotated)
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
    if (rotated || prepare_to_tell(db)) {
        db_wake_work(db);
    }
    db_keep_start_due(db);
    db_delay(db, bytes);
}

void write_synced(shale_db *db)
{
    db_threads_look(db);
    if (db->options.threads == 0) {
        (void)db_work_inline(db); /* the commit stands whatever comes of it: a stall tells */
    }
}

int db_published(shale_db *db, uint64_t lsn, uint64_t bytes, bool durable, bool rotated)
{
    int rc = SHALE_OK;
    write_published(db, bytes, durable, rotated);
    if (durable) {
        struct os_wait forever = os_wait_forever();
        rc = db_sync(db, lsn, true, &forever);
    } else if (db->options.durable == SHALE_DURABLE_INTERVAL) {
        db_owe_sync(db);
    }
    write_synced(db);
    return rc;
}

/* ---- for who holds WRITE already ---- */

int db_commit_locked(shale_db *db, struct slice payload, uint32_t count, bool through_file, uint64_t *lsn)
{
    int rc = db_panic(db);
    while (rc == SHALE_OK) {
        enum write_blocked why;
        rc = write_make_room(db, (uint32_t)payload.size, count, 0, true, &why);
        if (rc == SHALE_OK && why == WRITE_FREE) {
            break;
        }
        if (rc == SHALE_OK) {
            struct os_wait forever = os_wait_forever();
            rc = db_prepare(db, write_need_of((uint32_t)payload.size, count), &forever);
        }
    }
    if (rc == SHALE_OK) {
        rc = write_append(db, payload, count, through_file);
    }
    *lsn = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    return rc;
}

int db_seal(shale_db *db, const struct os_wait *wait)
{
    for (;;) {
        enum write_blocked why = WRITE_FREE;
        int rc = db_write_lock(db, wait, LOCKQ_QUEUE);
        if (rc != SHALE_OK) {
            return rc;
        }
        uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
        uint64_t panic = atomic_load_explicit(&db->state->panic, memory_order_relaxed);
        rc = check_end(db, end);
        if (rc == SHALE_OK && (wal_lsn_offset(end) != WAL_FIRST || panic >= wal_lsn_number(end))) {
            rc = rotate(db, DB_MOST_SEALED, true, &why);
        }
        db_write_unlock(db);
        if (rc == SHALE_OK && why == WRITE_PREPARE) {
            rc = db_prepare(db, 0, wait);
        } else if (rc == SHALE_OK && why == WRITE_STALLS) {
            rc = db_stall_rotation(db, wait, NULL);
        } else {
            return rc;
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

int db_seal_empty(shale_db *db)
{
    struct os_wait once = {.deadline = 0};
    enum write_blocked why = WRITE_FREE;
    int rc = db_write_lock(db, &once, LOCKQ_QUEUE);
    if (rc != SHALE_OK) {
        return rc;
    }
    uint64_t end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    rc = check_end(db, end);
    if (rc == SHALE_OK) {
        rc = wal_lsn_offset(end) == WAL_FIRST ? rotate(db, DB_MOST_SEALED, true, &why) : SHALE_BUSY;
    }
    db_write_unlock(db);
    return rc == SHALE_OK && why != WRITE_FREE ? SHALE_BUSY : rc;
}
