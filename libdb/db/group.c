/* group.c - the write group: of the threads that commit through one handle, one takes WRITE for all.
 *
 *     head                            tail
 *      A  ->  B  ->  C  ->  D  ->  E          A leads: it takes WRITE, publishes itself, then B and C, ...
 *      \_ published, taken _/                  D comes too late, or there is no room left
 *
 *     join -> leader? -> WRITE in its turn -> publish self, then those behind it -> release WRITE
 *          -> D leads from here on -> sync for those who want it -> tell B and C
 *
 * Each is published as a record of its own, so that a batch stays the unit of atomicity. The leader stays the
 * head of the queue until all of them are published: whoever comes meanwhile stands behind it. Who has been
 * taken may not leave before it is told; who has not, may, when its time is over.
 *
 * A writer that is alone, which most are, passes the mutex twice and looks at one pointer.
 *
 * What keeps the leader from publishing (a stall, the next segment, a segment to map) is waited for without
 * WRITE: it releases WRITE, does that, and queues again [I-3].
 */
#include "db/write.h"

#include <stdio.h>

enum { WRITER_WAITS, WRITER_LEADS, WRITER_DONE };
#define GROUP_BYTES (1u << 20)

struct db_writer {
    _Atomic(struct db_writer *) next; /* under group_mutex; the leader may look without */
    struct slice payload;
    uint32_t count;
    bool durable;
    bool taken;             /* a leader is publishing it; under group_mutex */
    _Atomic uint32_t phase; /* also the word its thread sleeps on */
    int status;
    char text[256]; /* of an error that the leader met */
};

/* What a leader has published: itself and those behind it, up to last. */
struct group {
    struct db_writer *last; /* NULL: nobody */
    unsigned durable;
    uint64_t bytes, end;
    enum write_blocked why; /* why the leader itself was not published */
    unsigned max_sealed;    /* its handle's, unless others go on beyond it */
    bool rotated;
};

/* ---- the queue ---- */

static struct db_writer *behind(const struct db_writer *w)
{
    return atomic_load_explicit(&w->next, memory_order_acquire);
}

static void set_behind(struct db_writer *w, struct db_writer *next)
{
    atomic_store_explicit(&w->next, next, memory_order_release);
}

static void writer_set(struct db_writer *w, uint32_t phase)
{
    atomic_store_explicit(&w->phase, phase, memory_order_release);
    os_wake(&w->phase, 1);
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

/* One that gives up: it does not lead, so there is one before it. */
static void queue_remove(shale_db *db, const struct db_writer *w)
{
    struct db_writer *before = db->group_head;
    while (before != NULL && behind(before) != w) {
        before = behind(before);
    }
    if (before != NULL) {
        set_behind(before, behind(w));
        db->group_tail = db->group_tail == w ? before : db->group_tail;
    }
}

/* The head and all up to last leave; the next one leads. */
static void queue_leave(shale_db *db, struct db_writer *last)
{
    os_mutex_lock(&db->group_mutex);
    struct db_writer *next = behind(last);
    set_behind(last, NULL);
    db->group_head = next;
    if (next == NULL) {
        db->group_tail = NULL;
    } else {
        writer_set(next, WRITER_LEADS);
    }
    os_mutex_unlock(&db->group_mutex);
}

/* Joins; returns when this writer leads, is done, or gave up (SHALE_BUSY, SHALE_CANCELLED). */
static int queue_join(shale_db *db, struct db_writer *w, const struct os_wait *wait)
{
    os_mutex_lock(&db->group_mutex);
    if (db->group_head == NULL) {
        db->group_head = db->group_tail = w;
        atomic_store_explicit(&w->phase, WRITER_LEADS, memory_order_relaxed);
    } else {
        set_behind(db->group_tail, w);
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
        queue_remove(db, w);
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

/* The writer behind the one that was published last, taken: from now on its thread may not leave. */
static struct db_writer *take_next(shale_db *db, const struct group *g)
{
    if (BASE_LIKELY(behind(g->last) == NULL)) {
        return NULL;
    }
    os_mutex_lock(&db->group_mutex);
    struct db_writer *w = behind(g->last);
    if (w != NULL && g->bytes + w->payload.size > GROUP_BYTES) {
        w = NULL;
    }
    if (w != NULL) {
        w->taken = true;
    }
    os_mutex_unlock(&db->group_mutex);
    return w;
}

static void put_back(shale_db *db, struct db_writer *w)
{
    os_mutex_lock(&db->group_mutex);
    w->taken = false;
    os_mutex_unlock(&db->group_mutex);
}

/* ---- under WRITE ---- */

static int append_one(shale_db *db, struct group *g, struct db_writer *w, bool may_open)
{
    int rc = write_make_room(db, (uint32_t)w->payload.size, w->count, g->max_sealed, may_open, &g->why);
    if (rc == SHALE_OK && g->why == WRITE_FREE) {
        rc = write_append(db, w->payload, w->count, w->durable);
    }
    if (rc == SHALE_OK && g->why == WRITE_FREE) {
        g->last = w;
        g->durable += w->durable;
        g->bytes += wal_record_size(w->payload.size);
    }
    return rc;
}

/* Publishes the leader and whoever is queued behind it, as long as there is room. */
static int group_append(shale_db *db, struct group *g, struct db_writer *self, bool may_open)
{
    uint32_t before = db_active(db->state);
    struct db_writer *w = self;
    int rc = db_panic(db);
    g->why = WRITE_FREE;
    while (rc == SHALE_OK && w != NULL) {
        rc = append_one(db, g, w, may_open);
        if (rc != SHALE_OK || g->why != WRITE_FREE) {
            if (w != self) {
                put_back(db, w);
            }
            break;
        }
        w = take_next(db, g);
    }
    if (g->last != NULL) {
        rc = SHALE_OK; /* the leader is published; who comes next meets the obstacle itself */
        g->why = WRITE_FREE;
    }
    g->end = atomic_load_explicit(&db->state->wal_end, memory_order_relaxed);
    g->rotated = db_active(db->state) != before;
    return rc;
}

/* ---- the leader ---- */

/* Waits for, or does, what keeps the leader from its turn. WRITE is not held. */
static int unblock(shale_db *db, struct group *g, const struct db_writer *w, const struct os_wait *wait)
{
    struct mem_index *mem = NULL;
    bool over = false;
    int rc;
    switch (g->why) {
    case WRITE_STALLS:
        rc = db_stall_rotation(db, wait, &over);
        if (over) { /* others go on, with higher limits: this once as they do */
            g->max_sealed = DB_MOST_SEALED;
        }
        return rc;
    case WRITE_PREPARE:
        db_write_end_turn(db);
        return db_prepare(db, write_need_of((uint32_t)w->payload.size, w->count), wait);
    case WRITE_MAP:
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
    g->max_sealed = db->options.max_sealed;
    for (unsigned tries = 0;; tries++) {
        int rc = db_write_lock(db, wait, how);
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = group_append(db, g, w, tries > 3);
        if (rc == SHALE_OK && g->why == WRITE_FREE && g->durable == 0 && !g->rotated) {
            db_write_unlock_keeping(db);
        } else {
            db_write_unlock(db);
        }
        db_mems_free_soon(db);
        if (rc != SHALE_OK || g->why == WRITE_FREE) {
            return rc;
        }
        rc = unblock(db, g, w, wait);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

/* The leader's last duty: sync for those who want it, then tell everybody. They have left the queue. */
static int group_finish(shale_db *db, struct group *g, struct db_writer *self)
{
    struct db_writer *durable = NULL, *next;
    int mine = SHALE_OK;
    for (struct db_writer *w = self; w != NULL; w = next) {
        next = behind(w);
        if (w->durable) {
            set_behind(w, durable);
            durable = w;
        } else if (w != self) {
            writer_finish(w, SHALE_OK);
        }
    }
    if (durable == NULL) {
        return mine;
    }
    struct os_wait forever = os_wait_forever();
    int rc = db_sync(db, g->end, true, &forever);
    for (struct db_writer *w = durable; w != NULL; w = next) {
        next = behind(w);
        if (w == self) {
            mine = rc;
        } else {
            writer_finish(w, rc);
        }
    }
    return mine;
}

static int commit_as_leader(shale_db *db, struct db_writer *w, const struct os_wait *wait, enum lockq_how how)
{
    struct group g = {0};
    int rc = group_lead(db, w, &g, wait, how);
    queue_leave(db, rc == SHALE_OK ? g.last : w);
    if (rc != SHALE_OK) {
        return rc;
    }
    write_published(db, g.bytes, g.durable, g.rotated);
    rc = group_finish(db, &g, w);
    write_synced(db);
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
        rc = queue_join(db, &w, &wait);
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
