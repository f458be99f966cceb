/* driver_lmdb.c - LMDB, plain and with a writable map. A session keeps one read transaction and renews it for
 * each get, as LMDB's own documentation advises; the value is read where it lies in the map.
 */
#include "driver.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define READERS 4096 /* slots of the reader table */

struct store {
    MDB_env *env;
    MDB_dbi dbi;
};

struct session {
    struct store *store;
    MDB_txn *read;
    MDB_cursor *cursor; /* NULL: none was made yet */
    bool reading;       /* the transaction stands on a snapshot */
};

static int lmdb_error(int rc, const char *what)
{
    if (rc == MDB_NOTFOUND) {
        return SHALE_NOTFOUND;
    }
    return rc == 0 ? SHALE_OK : err_set(SHALE_IO, "lmdb: %s: %s", what, mdb_strerror(rc));
}

static int close_lmdb(void *db)
{
    struct store *store = db;
    if (store != NULL) {
        mdb_env_close(store->env);
        free(store);
    }
    return SHALE_OK;
}

static int open_dbi(struct store *store)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &store->dbi);
        if (rc == 0) {
            rc = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    return rc;
}

static int open_env(const struct driver_config *config, unsigned flags, void **db)
{
    struct store *store = base_calloc(1, sizeof *store);
    int rc = store != NULL ? mdb_env_create(&store->env) : ENOMEM;
    if (rc == 0) {
        rc = mdb_env_set_mapsize(store->env, DRIVER_MAP_BYTES);
    }
    if (rc == 0) {
        rc = mdb_env_set_maxreaders(store->env, READERS);
    }
    if (rc == 0) {
        mkdir(config->dir, 0700);
        rc = mdb_env_open(store->env, config->dir, flags | MDB_NOTLS | (config->durable ? 0 : MDB_NOSYNC),
                          0600);
    }
    if (rc == 0) {
        rc = open_dbi(store);
    }
    if (rc != 0) {
        close_lmdb(store);
        return lmdb_error(rc, "open");
    }
    *db = store;
    return SHALE_OK;
}

static int open_plain(const struct driver_config *config, void **db)
{
    return open_env(config, 0, db);
}

static int open_writemap(const struct driver_config *config, void **db)
{
    return open_env(config, MDB_WRITEMAP, db);
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        if (s->cursor != NULL) {
            mdb_cursor_close(s->cursor);
        }
        if (s->read != NULL) {
            mdb_txn_abort(s->read);
        }
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
    int rc = mdb_txn_begin(s->store->env, NULL, MDB_RDONLY, &s->read);
    if (rc != 0) {
        detach(s);
        return lmdb_error(rc, "attach");
    }
    mdb_txn_reset(s->read);
    *session = s;
    return SHALE_OK;
}

/* A snapshot that stands pins pages: let go of it before writing. */
static void stop_reading(struct session *s)
{
    if (s->reading) {
        mdb_txn_reset(s->read);
        s->reading = false;
    }
}

static int start_reading(struct session *s)
{
    stop_reading(s);
    int rc = mdb_txn_renew(s->read);
    s->reading = rc == 0;
    return rc;
}

static MDB_val val_of(struct slice slice)
{
    union {
        const void *in;
        void *out; /* LMDB writes to neither */
    } data = {slice.data};
    return (MDB_val){slice.size, data.out};
}

static struct slice slice_of(MDB_val v)
{
    return slice_make(v.mv_data, v.mv_size);
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    MDB_txn *txn = NULL;
    stop_reading(s);
    int rc = mdb_txn_begin(s->store->env, NULL, 0, &txn);
    if (rc != 0) {
        return lmdb_error(rc, "begin");
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        MDB_val key = val_of(entries[i].key), value = val_of(entries[i].value);
        rc = mdb_put(txn, s->store->dbi, &key, &value, 0);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return lmdb_error(rc, "put");
    }
    return lmdb_error(mdb_txn_commit(txn), "commit");
}

static int put(void *session, struct slice key, struct slice value)
{
    return batch(session, &(struct entry){key, value}, 1);
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    MDB_txn *txn = NULL;
    MDB_val k = val_of(key);
    stop_reading(s);
    int rc = mdb_txn_begin(s->store->env, NULL, 0, &txn);
    if (rc != 0) {
        return lmdb_error(rc, "begin");
    }
    rc = mdb_del(txn, s->store->dbi, &k, NULL);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc == MDB_NOTFOUND ? SHALE_OK : lmdb_error(rc, "delete");
    }
    return lmdb_error(mdb_txn_commit(txn), "commit");
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    MDB_val k = val_of(key), v;
    int rc = start_reading(s);
    if (rc == 0) {
        rc = mdb_get(s->read, s->store->dbi, &k, &v);
    }
    if (rc == 0) {
        *value = slice_of(v);
    }
    return lmdb_error(rc, "get");
}

static int iterate(void *session)
{
    struct session *s = session;
    int rc = start_reading(s);
    if (rc == 0) {
        rc = s->cursor == NULL ? mdb_cursor_open(s->read, s->store->dbi, &s->cursor)
                               : mdb_cursor_renew(s->read, s->cursor);
    }
    return lmdb_error(rc, "cursor");
}

static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    static const MDB_cursor_op ops[] = {[MOVE_FIRST] = MDB_FIRST,
                                        [MOVE_LAST] = MDB_LAST,
                                        [MOVE_SEEK] = MDB_SET_RANGE,
                                        [MOVE_NEXT] = MDB_NEXT,
                                        [MOVE_PREV] = MDB_PREV};
    struct session *s = session;
    MDB_val k = val_of(key), v;
    int rc = mdb_cursor_get(s->cursor, &k, &v, ops[how]);
    if (rc == 0) {
        *at = (struct entry){slice_of(k), slice_of(v)};
    }
    return lmdb_error(rc, "move");
}

static void iterate_end(void *session)
{
    stop_reading(session);
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%d.%d.%d", MDB_VERSION_MAJOR, MDB_VERSION_MINOR, MDB_VERSION_PATCH);
}

#define LMDB(NAME, OPEN)                                                                                     \
    {                                                                                                        \
        .name = NAME, .can = DRIVER_PROCESSES | DRIVER_THREADS | DRIVER_ORDER, .open = OPEN,                 \
        .close = close_lmdb, .attach = attach, .detach = detach, .put = put, .del = del, .get = get,         \
        .batch = batch, .iterate = iterate, .move = move, .iterate_end = iterate_end, .version = version     \
    }

const struct driver driver_lmdb = LMDB("lmdb", open_plain);
const struct driver driver_lmdb_writemap = LMDB("lmdb-writemap", open_writemap);
