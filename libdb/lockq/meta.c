/* meta.c - descriptions of waiters, in LMDB: queue/BOOT.mdb, a row {lock, number} -> who waits, since when,
 * why.
 *
 * For people only. A row counts only while its ticket is locked [I-6], so nobody has to remove one: whoever
 * writes a row sweeps some of the dead ones. Nothing waits for this file and nothing fails because of it: it
 * is opened by the first waiter that has waited long, every use is bounded by a millisecond, and a file that
 * is damaged or full is thrown away.
 *
 * LMDB's own mutexes, reader slots and POSIX locks would tie processes to each other, so they are not there
 * (MDB_NOLOCK): every transaction is a short write transaction, also for look-ups, under the QGATE byte of
 * LOCK, on an open file of its own, with a mutex of the process in front [I-2b]. LMDB must not be opened
 * twice in a process: there is one environment for each directory, shared by all handles on it; a forked
 * child forgets it.
 *
 * LMDB trusts its file: a wild page would crash us. So the lock-queue file says, under the gate, what the
 * file's bytes summed up to after the last transaction. A file that sums up otherwise - damaged, or left by a
 * process killed in the middle of a commit - is unlinked, and LMDB starts with an empty one. It is a few
 * pages: the sum costs microseconds.
 *
 *      gate, mutex -> same file as before? sum right? -> txn -> commit -> sum stored -> gate, mutex */
#include "lockq/queue.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#define META_MAP_SIZE (1u << 20)
#define META_SWEEP    16
#define META_WAIT_NS  1000000
#define META_RETRY_NS 50000

/* One a directory and process. */
struct lockq_meta {
    /* Under the module's mutex. */
    struct lockq_meta *next;
    unsigned users;
    dev_t dev; /* of queue/ */
    ino_t ino;
    /* Under mutex and gate. */
    pthread_mutex_t mutex;
    int gate; /* an open file of LOCK */
    int file; /* BOOT.mdb as we have it open, to look at its bytes; -1: none */
    MDB_env *env;
};

static struct lockq_meta *metas;

struct row_key {
    uint64_t slot, number; /* big-endian: LMDB orders bytes */
};

struct row_value {
    uint64_t since, pid_ns, start_time;
    int64_t pid;
    uint64_t shared;
    char program[32], label[64];
};

static struct row_key key_make(unsigned slot, uint64_t number)
{
    return (struct row_key){__builtin_bswap64(slot), __builtin_bswap64(number)};
}

/* ---- environments ---- */

static void close_file(struct lockq_meta *m)
{
    if (m->env != NULL) {
        mdb_env_close(m->env);
        m->env = NULL;
    }
    os_close(&m->file);
}

static void meta_destroy(struct lockq_meta *m)
{
    close_file(m);
    os_close(&m->gate);
    os_mutex_destroy(&m->mutex);
    free(m);
}

static struct lockq_meta *meta_new(struct lockq *q, const struct stat *st)
{
    struct lockq_meta *m = base_calloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    m->file = -1;
    m->dev = st->st_dev;
    m->ino = st->st_ino;
    if (os_open(q->dirfd, "LOCK", O_RDWR, 0, &m->gate) != SHALE_OK) {
        free(m);
        return NULL;
    }
    os_mutex_init(&m->mutex);
    return m;
}

/* The directory's environment, this handle counted among its users. */
static struct lockq_meta *meta_get(struct lockq *q)
{
    struct stat st;
    lockq_enter();
    if (q->meta == NULL && os_stat(q->queue_dir, &st) == SHALE_OK) {
        struct lockq_meta *m = metas;
        while (m != NULL && (m->dev != st.st_dev || m->ino != st.st_ino)) {
            m = m->next;
        }
        if (m == NULL) {
            m = meta_new(q, &st);
            if (m != NULL) {
                m->next = metas;
                metas = m;
            }
        }
        if (m != NULL) {
            m->users++;
            q->meta = m;
        }
    }
    struct lockq_meta *m = q->meta;
    lockq_leave();
    return m;
}

void lockq_meta_release(struct lockq *q)
{
    lockq_enter();
    struct lockq_meta *m = q->meta;
    q->meta = NULL;
    if (m != NULL && --m->users == 0) {
        struct lockq_meta **p = &metas;
        while (*p != m) {
            p = &(*p)->next;
        }
        *p = m->next;
    } else {
        m = NULL;
    }
    lockq_leave();
    if (m != NULL) {
        meta_destroy(m);
    }
}

/* The environment is the parent's. Its memory stays: LMDB has nothing that a child may call. The descriptors
 * go, so that a gate that the parent holds at this moment is not held on by us. */
void lockq_meta_forked(void)
{
    for (struct lockq_meta *m = metas; m != NULL; m = m->next) {
        os_close(&m->gate);
        os_close(&m->file);
    }
    metas = NULL;
}

/* ---- the gate ---- */

static bool gate_enter(struct lockq_meta *m)
{
    const struct os_wait wait = {os_now() + META_WAIT_NS, NULL, 0};
    while (!os_mutex_try(&m->mutex)) {
        if (os_sleep(&wait, NULL, 0, META_RETRY_NS) != SHALE_OK) {
            return false;
        }
    }
    int rc = os_lock_try(m->gate, 7, 1, true);
    while (rc == SHALE_BUSY && os_sleep(&wait, NULL, 0, META_RETRY_NS) == SHALE_OK) {
        rc = os_lock_try(m->gate, 7, 1, true);
    }
    if (rc != SHALE_OK) {
        os_mutex_unlock(&m->mutex);
    }
    return rc == SHALE_OK;
}

static void gate_leave(struct lockq_meta *m)
{
    (void)os_unlock(m->gate, 7, 1);
    os_mutex_unlock(&m->mutex);
}

/* ---- the file ---- */

static int sum_file(struct lockq_meta *m, uint64_t *size, uint64_t *sum)
{
    struct stat st;
    size_t got = 0;
    int rc = os_stat(m->file, &st);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (st.st_size < 0 || st.st_size > META_MAP_SIZE) {
        return SHALE_CORRUPT;
    }
    *size = (uint64_t)st.st_size;
    unsigned char *bytes = base_alloc((size_t)*size);
    if (bytes == NULL) {
        return SHALE_NOMEM;
    }
    rc = os_pread(m->file, bytes, (size_t)*size, 0, &got);
    if (rc == SHALE_OK && got != *size) {
        rc = SHALE_CORRUPT;
    }
    *sum = checksum(bytes, got, (uint64_t)st.st_ino);
    free(bytes);
    return rc;
}

static void store_sum(struct lockq *q, struct lockq_meta *m)
{
    uint64_t size = 0, sum = 0;
    bool ok = sum_file(m, &size, &sum) == SHALE_OK;
    atomic_store(&q->header->meta_size, ok ? size : 0);
    atomic_store(&q->header->meta_sum, sum);
}

static bool sum_right(struct lockq *q, struct lockq_meta *m)
{
    uint64_t size, sum;
    return sum_file(m, &size, &sum) == SHALE_OK && size == atomic_load(&q->header->meta_size) &&
           sum == atomic_load(&q->header->meta_sum);
}

/* Has the file that we have open still its name? Another process may have thrown it away. */
static bool still_there(struct lockq *q, struct lockq_meta *m)
{
    struct stat mine, named;
    return os_stat(m->file, &mine) == SHALE_OK &&
           os_stat_at(q->queue_dir, q->meta_name, &named) == SHALE_OK && mine.st_dev == named.st_dev &&
           mine.st_ino == named.st_ino;
}

static void discard(struct lockq *q, struct lockq_meta *m)
{
    close_file(m);
    (void)os_unlink(q->queue_dir, q->meta_name);
    atomic_store(&q->header->meta_size, 0);
}

static int open_env(struct lockq *q, struct lockq_meta *m)
{
    char path[64];
    /* By way of the descriptor: a renamed directory keeps working. */
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/%s", q->queue_dir, q->meta_name);
    int err = mdb_env_create(&m->env);
    if (err == 0) {
        err = mdb_env_set_mapsize(m->env, META_MAP_SIZE);
    }
    if (err == 0) {
        unsigned filled = os_fill_standard();
        err = mdb_env_open(m->env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC | MDB_NOMETASYNC,
                           lockq_file_mode(q->mode));
        os_clear_standard(filled);
    }
    return err == 0 ? SHALE_OK : SHALE_CORRUPT;
}

/* A file that verifies, open in LMDB; else an empty one in its place. */
static int prepare(struct lockq *q, struct lockq_meta *m)
{
    if (m->file >= 0 && !still_there(q, m)) {
        close_file(m);
    }
    if (m->file < 0) {
        int rc = os_open(q->queue_dir, q->meta_name, O_RDWR, 0, &m->file);
        if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
            return rc;
        }
    }
    if (m->file >= 0 && !sum_right(q, m)) {
        discard(q, m);
    }
    if (m->file < 0) {
        int rc = os_open(q->queue_dir, q->meta_name, O_RDWR | O_CREAT | O_EXCL, lockq_file_mode(q->mode),
                         &m->file);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    if (m->env == NULL && open_env(q, m) != SHALE_OK) {
        discard(q, m);
        return SHALE_CORRUPT;
    }
    return SHALE_OK;
}

/* Runs work in a transaction. An LMDB error throws the file away. false: somebody else is at it, try later.
 */
static bool with_txn(struct lockq *q, int (*work)(MDB_txn *txn, MDB_dbi dbi, void *ctx), void *ctx)
{
    MDB_txn *txn = NULL;
    MDB_dbi dbi = 0;
    struct lockq_meta *m = q->header != NULL && q->queue_dir >= 0 ? meta_get(q) : NULL;
    if (m == NULL) {
        return true;
    }
    if (!gate_enter(m)) {
        return false;
    }
    if (prepare(q, m) == SHALE_OK) {
        os_mark(OS_MARK_GATE);
        int err = mdb_txn_begin(m->env, NULL, 0, &txn);
        if (err == 0) {
            err = mdb_dbi_open(txn, NULL, 0, &dbi);
        }
        if (err == 0) {
            err = work(txn, dbi, ctx);
        }
        os_mark(OS_MARK_GATE);
        if (err == 0) {
            err = mdb_txn_commit(txn);
        } else if (txn != NULL) {
            mdb_txn_abort(txn);
        }
        os_mark(OS_MARK_GATE);
        if (err == 0) {
            store_sum(q, m);
        } else {
            discard(q, m);
        }
    }
    gate_leave(m);
    return true;
}

/* ---- rows ---- */

struct put {
    struct lockq *q;
    unsigned slot;
    uint64_t number;
    const struct lockq_who *who;
};

/* Removes some rows of this lock whose waiter is gone. */
static int sweep(MDB_txn *txn, MDB_dbi dbi, const struct put *put)
{
    MDB_cursor *cursor;
    struct row_key first = key_make(put->slot, 0);
    MDB_val key = {sizeof first, &first}, value;
    int err = mdb_cursor_open(txn, dbi, &cursor);
    if (err != 0) {
        return err;
    }
    err = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (int i = 0; i < META_SWEEP && err == 0; i++) {
        struct row_key at;
        if (key.mv_size != sizeof at) {
            err = MDB_CORRUPTED;
            break;
        }
        memcpy(&at, key.mv_data, sizeof at);
        uint64_t number = __builtin_bswap64(at.number);
        if (at.slot != first.slot || number >= put->number) {
            break;
        }
        if (!lockq_ticket_alive(put->q, put->slot, number, number)) {
            err = mdb_cursor_del(cursor, 0);
        }
        if (err == 0) {
            err = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        }
    }
    mdb_cursor_close(cursor);
    return err == MDB_NOTFOUND ? 0 : err;
}

static int put_row(MDB_txn *txn, MDB_dbi dbi, void *ctx)
{
    struct put *put = ctx;
    const struct lockq_who *who = put->who;
    struct row_key row = key_make(put->slot, put->number);
    struct row_value v = {.since = who->since,
                          .pid_ns = who->pid_ns,
                          .start_time = who->start_time,
                          .pid = who->pid,
                          .shared = who->shared};
    memcpy(v.program, who->program, sizeof v.program);
    memcpy(v.label, who->label, sizeof v.label);
    MDB_val key = {sizeof row, &row}, value = {sizeof v, &v};
    int err = sweep(txn, dbi, put);
    return err == 0 ? mdb_put(txn, dbi, &key, &value, 0) : err;
}

bool lockq_meta_put(struct lockq *q, unsigned slot, uint64_t number, const struct lockq_who *who)
{
    struct put put = {q, slot, number, who};
    return with_txn(q, put_row, &put);
}

struct rows {
    struct lockq_meta_row *row;
    size_t count, cap;
};

static bool row_decode(const MDB_val *key, const MDB_val *value, struct lockq_meta_row *row)
{
    struct row_key k;
    struct row_value v;
    if (key->mv_size != sizeof k || value->mv_size != sizeof v) {
        return false;
    }
    memcpy(&k, key->mv_data, sizeof k);
    memcpy(&v, value->mv_data, sizeof v);
    uint64_t slot = __builtin_bswap64(k.slot);
    *row = (struct lockq_meta_row){.slot = (unsigned)(slot < LOCKQ_SLOTS ? slot : LOCKQ_SLOTS),
                                   .number = __builtin_bswap64(k.number),
                                   .who = {.since = v.since,
                                           .pid_ns = v.pid_ns,
                                           .start_time = v.start_time,
                                           .pid = v.pid,
                                           .shared = v.shared != 0}};
    memcpy(row->who.program, v.program, sizeof v.program);
    memcpy(row->who.label, v.label, sizeof v.label);
    text_tame(row->who.program);
    text_tame(row->who.label);
    return true;
}

static int read_rows(MDB_txn *txn, MDB_dbi dbi, void *ctx)
{
    struct rows *rows = ctx;
    MDB_cursor *cursor;
    MDB_val key, value;
    int err = mdb_cursor_open(txn, dbi, &cursor);
    if (err != 0) {
        return err;
    }
    while ((err = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (rows->count == rows->cap) {
            size_t cap = rows->cap != 0 ? rows->cap * 2 : 64;
            struct lockq_meta_row *more = base_realloc(rows->row, cap * sizeof *more);
            if (more == NULL) {
                break;
            }
            rows->row = more;
            rows->cap = cap;
        }
        if (!row_decode(&key, &value, &rows->row[rows->count])) {
            err = MDB_CORRUPTED;
            break;
        }
        rows->count++;
    }
    mdb_cursor_close(cursor);
    return err == MDB_NOTFOUND ? 0 : err;
}

void lockq_meta_rows(struct lockq *q, struct lockq_meta_row **row, size_t *count)
{
    struct rows rows = {0};
    (void)with_txn(q, read_rows, &rows);
    *row = rows.row;
    *count = rows.count;
}
