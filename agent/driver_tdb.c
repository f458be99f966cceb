/* driver_tdb.c - Samba's TDB: a hash, so nothing iterates by key; a process has a file open once, so there
 * are no threads. A store outside a transaction can be cut short by a kill: each commit is a transaction.
 */
#include "driver.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <tdb.h>

/* A transaction copies the heads of all chains, and a lookup walks one. */
#define CHAINS 20011

struct session {
    struct tdb_context *tdb;
    struct buf value; /* given out */
};

static int tdb_failure(struct tdb_context *tdb, const char *what)
{
    return err_set(SHALE_IO, "tdb: %s: %s", what, tdb_errorstr(tdb));
}

static int open_file(const struct driver_config *config, void **db)
{
    char file[4096];
    mkdir(config->dir, 0700);
    int n = snprintf(file, sizeof file, "%s/kv.tdb", config->dir);
    if (n < 0 || (size_t)n >= sizeof file) {
        return err_set(SHALE_INVALID, "tdb: %s: too long", config->dir);
    }
    int flags = TDB_INCOMPATIBLE_HASH | (config->durable ? 0 : TDB_NOSYNC);
    struct tdb_context *tdb = tdb_open(file, CHAINS, flags, O_RDWR | O_CREAT, 0600);
    if (tdb == NULL) {
        return err_sys("tdb: %s", file);
    }
    *db = tdb;
    return SHALE_OK;
}

static int close_file(void *db)
{
    return tdb_close(db) == 0 ? SHALE_OK : err_sys("tdb: close");
}

static int attach(void *db, void **session)
{
    struct session *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    s->tdb = db;
    *session = s;
    return SHALE_OK;
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        buf_release(&s->value);
        free(s);
    }
}

static TDB_DATA in(struct slice slice)
{
    union {
        const unsigned char *in;
        unsigned char *out; /* it only reads */
    } data = {slice.data};
    return (TDB_DATA){.dptr = data.out, .dsize = slice.size};
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    int rc = 0;
    if (tdb_transaction_start(s->tdb) != 0) {
        return tdb_failure(s->tdb, "begin");
    }
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = tdb_store(s->tdb, in(entries[i].key), in(entries[i].value), TDB_REPLACE);
    }
    if (rc != 0) {
        int status = tdb_failure(s->tdb, "store");
        tdb_transaction_cancel(s->tdb);
        return status;
    }
    return tdb_transaction_commit(s->tdb) == 0 ? SHALE_OK : tdb_failure(s->tdb, "commit");
}

static int put(void *session, struct slice key, struct slice value)
{
    return batch(session, &(struct entry){key, value}, 1);
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    if (tdb_transaction_start(s->tdb) != 0) {
        return tdb_failure(s->tdb, "begin");
    }
    if (tdb_delete(s->tdb, in(key)) != 0 && tdb_error(s->tdb) != TDB_ERR_NOEXIST) {
        int status = tdb_failure(s->tdb, "delete");
        tdb_transaction_cancel(s->tdb);
        return status;
    }
    return tdb_transaction_commit(s->tdb) == 0 ? SHALE_OK : tdb_failure(s->tdb, "commit");
}

static int copy_out(TDB_DATA key, TDB_DATA data, void *ctx)
{
    (void)key;
    return buf_set(ctx, data.dptr, data.dsize) == SHALE_OK ? 0 : -1;
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    if (tdb_parse_record(s->tdb, in(key), copy_out, &s->value) != 0) {
        return tdb_error(s->tdb) == TDB_ERR_NOEXIST ? SHALE_NOTFOUND : tdb_failure(s->tdb, "fetch");
    }
    *value = buf_slice(&s->value);
    return SHALE_OK;
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%s", AGENT_TDB); /* its header does not say */
}

const struct driver driver_tdb = {
    .name = "tdb",
    .can = DRIVER_PROCESSES,
    .open = open_file,
    .close = close_file,
    .attach = attach,
    .detach = detach,
    .put = put,
    .del = del,
    .get = get,
    .batch = batch,
    .version = version,
};
