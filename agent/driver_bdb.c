/* driver_bdb.c - Berkeley DB: a transactional btree in an environment that all processes share. Every so many
 * commits of a session it sees whether a checkpoint is due. Who is chosen to end a deadlock tries again.
 */
#include "driver.h"

#include <db.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define LOG_BUFFER_BYTES  (8 << 20)
#define LOCKS             200000 /* a batch may touch thousands of pages */
#define COMMITS_PER_CHECK 1024

struct store {
    DB_ENV *env;
    DB *db;
};

struct session {
    struct store *store;
    DBC *cursor;
    struct buf key, value; /* given out */
    unsigned commits;
};

static int bdb_error(int rc, const char *what)
{
    if (rc == 0 || rc == DB_NOTFOUND) {
        return rc == 0 ? SHALE_OK : SHALE_NOTFOUND;
    }
    return err_set(SHALE_IO, "bdb: %s: %s", what, db_strerror(rc));
}

static int close_bdb(void *db)
{
    struct store *s = db;
    int rc = 0, closed = 0;
    if (s != NULL) {
        rc = s->db != NULL ? s->db->close(s->db, DB_NOSYNC) : 0; /* the log has it */
        closed = s->env != NULL ? s->env->close(s->env, 0) : 0;
        free(s);
    }
    return bdb_error(rc != 0 ? rc : closed, "close");
}

static int open_env(struct store *s, const struct driver_config *config)
{
    static const u_int32_t flags =
        DB_CREATE | DB_INIT_MPOOL | DB_INIT_LOCK | DB_INIT_LOG | DB_INIT_TXN | DB_THREAD;
    int rc = db_env_create(&s->env, 0);
    if (rc != 0) {
        return rc;
    }
    DB_ENV *env = s->env;
    env->set_cachesize(env, 0, DRIVER_CACHE_BYTES, 1);
    env->set_lg_bsize(env, LOG_BUFFER_BYTES);
    env->set_lg_max(env, DRIVER_BUFFER_BYTES);
    env->set_lk_detect(env, DB_LOCK_DEFAULT);
    env->set_lk_max_locks(env, LOCKS);
    env->set_lk_max_objects(env, LOCKS);
    env->log_set_config(env, DB_LOG_AUTO_REMOVE, 1);
    if (!config->durable) {
        env->set_flags(env, DB_TXN_WRITE_NOSYNC, 1);
    }
    return env->open(env, config->dir, flags, 0600);
}

static int open_bdb(const struct driver_config *config, void **db)
{
    struct store *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    mkdir(config->dir, 0700);
    int rc = open_env(s, config);
    if (rc == 0) {
        rc = db_create(&s->db, s->env, 0);
    }
    if (rc == 0) {
        rc = s->db->open(s->db, NULL, "kv.db", NULL, DB_BTREE, DB_CREATE | DB_AUTO_COMMIT | DB_THREAD, 0600);
    }
    if (rc != 0) {
        close_bdb(s);
        return bdb_error(rc, "open");
    }
    *db = s;
    return SHALE_OK;
}

static void iterate_end(void *session)
{
    struct session *s = session;
    if (s->cursor != NULL) {
        s->cursor->close(s->cursor);
        s->cursor = NULL;
    }
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        iterate_end(s);
        buf_release(&s->key);
        buf_release(&s->value);
        free(s);
    }
}

static int attach(void *db, void **session)
{
    struct session *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    s->store = db;
    *session = s;
    return SHALE_OK;
}

static DBT in(struct slice slice)
{
    union {
        const void *in;
        void *out; /* it only reads */
    } data = {slice.data};
    return (DBT){.data = data.out, .size = (u_int32_t)slice.size};
}

static DBT out(struct buf *b)
{
    return (DBT){.data = b->data, .ulen = (u_int32_t)b->cap, .flags = DB_DBT_USERMEM};
}

/* DB_BUFFER_SMALL told how much is needed. */
static int grow(struct buf *b, const DBT *wanted)
{
    b->size = 0;
    return wanted->size > b->cap ? buf_reserve(b, wanted->size) : SHALE_OK;
}

static int written(struct session *s, int rc, const char *what)
{
    if (rc == 0 && ++s->commits % COMMITS_PER_CHECK == 0) {
        rc = s->store->env->txn_checkpoint(s->store->env, DRIVER_BUFFER_BYTES / 1024, 0, 0);
    }
    return bdb_error(rc, what);
}

static int put(void *session, struct slice key, struct slice value)
{
    struct session *s = session;
    DB *db = s->store->db;
    DBT k = in(key), v = in(value);
    int rc;
    do {
        rc = db->put(db, NULL, &k, &v, 0);
    } while (rc == DB_LOCK_DEADLOCK);
    return written(s, rc, "put");
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    DB *db = s->store->db;
    DBT k = in(key);
    int rc;
    do {
        rc = db->del(db, NULL, &k, 0);
    } while (rc == DB_LOCK_DEADLOCK);
    return written(s, rc == DB_NOTFOUND ? 0 : rc, "delete");
}

static int try_batch(struct store *store, const struct entry *entries, size_t n)
{
    DB_TXN *txn = NULL;
    int rc = store->env->txn_begin(store->env, NULL, &txn, 0);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        DBT k = in(entries[i].key), v = in(entries[i].value);
        rc = store->db->put(store->db, txn, &k, &v, 0);
    }
    if (rc != 0) {
        txn->abort(txn);
        return rc;
    }
    return txn->commit(txn, 0);
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    int rc;
    do {
        rc = try_batch(s->store, entries, n);
    } while (rc == DB_LOCK_DEADLOCK);
    return written(s, rc, "batch");
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    DB *db = s->store->db;
    DBT k = in(key), v;
    int rc;
    do {
        v = out(&s->value);
        rc = db->get(db, NULL, &k, &v, 0);
        if (rc == DB_BUFFER_SMALL && grow(&s->value, &v) != SHALE_OK) {
            return SHALE_NOMEM;
        }
    } while (rc == DB_BUFFER_SMALL || rc == DB_LOCK_DEADLOCK);
    if (rc == 0) {
        *value = slice_make(v.data, v.size);
    }
    return bdb_error(rc, "get");
}

static int iterate(void *session)
{
    struct session *s = session;
    DB *db = s->store->db;
    return bdb_error(db->cursor(db, NULL, &s->cursor, 0), "cursor");
}

/* A cursor that is refused stays where it was: the same move again. */
static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    static const u_int32_t ops[] = {[MOVE_FIRST] = DB_FIRST,
                                    [MOVE_LAST] = DB_LAST,
                                    [MOVE_SEEK] = DB_SET_RANGE,
                                    [MOVE_NEXT] = DB_NEXT,
                                    [MOVE_PREV] = DB_PREV};
    struct session *s = session;
    DBT k, v;
    int rc;
    do {
        s->key.size = 0;
        if (how == MOVE_SEEK && buf_set(&s->key, key.data, key.size) != SHALE_OK) {
            return SHALE_NOMEM;
        }
        k = out(&s->key);
        k.size = (u_int32_t)s->key.size;
        v = out(&s->value);
        rc = s->cursor->get(s->cursor, &k, &v, ops[how]);
        if (rc == DB_BUFFER_SMALL && (grow(&s->key, &k) != SHALE_OK || grow(&s->value, &v) != SHALE_OK)) {
            return SHALE_NOMEM;
        }
    } while (rc == DB_BUFFER_SMALL || rc == DB_LOCK_DEADLOCK);
    if (rc == 0) {
        *at = (struct entry){slice_make(k.data, k.size), slice_make(v.data, v.size)};
    }
    return bdb_error(rc, "move");
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%d.%d.%d", DB_VERSION_MAJOR, DB_VERSION_MINOR, DB_VERSION_PATCH);
}

const struct driver driver_bdb = {
    .name = "bdb",
    .can = DRIVER_PROCESSES | DRIVER_THREADS | DRIVER_ORDER,
    .open = open_bdb,
    .close = close_bdb,
    .attach = attach,
    .detach = detach,
    .put = put,
    .del = del,
    .get = get,
    .batch = batch,
    .iterate = iterate,
    .move = move,
    .iterate_end = iterate_end,
    .version = version,
};
