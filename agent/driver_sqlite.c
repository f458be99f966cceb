/* driver_sqlite.c - SQLite in WAL mode: one table, keyed by a blob, without rowid. A connection a thread, as
 * SQLite recommends; so a session opens its own.
 */
#include "driver.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PAGE_BYTES 4096
#define BUSY_MS    600000

enum { PUT, GET, DELETE, BEGIN, COMMIT, ROLLBACK, UP, DOWN, FROM, STATEMENTS };
static const char *const texts[STATEMENTS] = {
    [PUT] = "INSERT OR REPLACE INTO kv VALUES (?, ?)",
    [GET] = "SELECT v FROM kv WHERE k = ?",
    [DELETE] = "DELETE FROM kv WHERE k = ?",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ROLLBACK] = "ROLLBACK",
    [UP] = "SELECT k, v FROM kv ORDER BY k",
    [DOWN] = "SELECT k, v FROM kv ORDER BY k DESC",
    [FROM] = "SELECT k, v FROM kv WHERE k >= ? ORDER BY k",
};

struct store {
    char file[4096];
    bool durable;
};

struct session {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
    sqlite3_stmt *walk; /* the one that iterates; NULL: none stands */
};

static int lite_error(const struct session *s, const char *what)
{
    return err_set(SHALE_IO, "sqlite: %s: %s", what, s->db != NULL ? sqlite3_errmsg(s->db) : "no memory");
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        for (size_t i = 0; i < STATEMENTS; i++) {
            sqlite3_finalize(s->statements[i]);
        }
        sqlite3_close(s->db);
        free(s);
    }
}

static int configure(const struct session *s, bool durable)
{
    char text[512];
    snprintf(text, sizeof text,
             "PRAGMA journal_mode = WAL; PRAGMA synchronous = %s; PRAGMA cache_size = -%d;"
             "PRAGMA mmap_size = 2147418112; PRAGMA wal_autocheckpoint = %d;"
             "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID",
             durable ? "FULL" : "OFF", DRIVER_CACHE_BYTES / 1024, DRIVER_BUFFER_BYTES / PAGE_BYTES);
    return sqlite3_exec(s->db, text, NULL, NULL, NULL) == SQLITE_OK ? SHALE_OK : lite_error(s, "configure");
}

static int attach(void *db, void **session)
{
    const struct store *store = db;
    struct session *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, status = SHALE_OK;
    if (sqlite3_open_v2(store->file, &s->db, flags, NULL) != SQLITE_OK) {
        status = lite_error(s, "open");
    }
    if (status == SHALE_OK) {
        sqlite3_busy_timeout(s->db, BUSY_MS);
        status = configure(s, store->durable);
    }
    for (size_t i = 0; i < STATEMENTS && status == SHALE_OK; i++) {
        if (sqlite3_prepare_v3(s->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i], NULL) !=
            SQLITE_OK) {
            status = lite_error(s, texts[i]);
        }
    }
    if (status != SHALE_OK) {
        detach(s);
        return status;
    }
    *session = s;
    return SHALE_OK;
}

/* A first session makes the table before others come. */
static int open_lite(const struct driver_config *config, void **db)
{
    struct store *store = base_calloc(1, sizeof *store);
    void *first = NULL;
    if (store == NULL) {
        return SHALE_NOMEM;
    }
    mkdir(config->dir, 0700);
    store->durable = config->durable;
    int n = snprintf(store->file, sizeof store->file, "%s/kv.sqlite", config->dir), status;
    if (n < 0 || (size_t)n >= sizeof store->file) {
        status = err_set(SHALE_INVALID, "sqlite: %s: too long", config->dir);
    } else {
        struct stat st;
        status = stat(store->file, &st) == 0 ? SHALE_OK : attach(store, &first);
    }
    detach(first);
    if (status != SHALE_OK) {
        free(store);
        return status;
    }
    *db = store;
    return SHALE_OK;
}

static int close_lite(void *db)
{
    free(db);
    return SHALE_OK;
}

static void iterate_end(void *session)
{
    struct session *s = session;
    if (s->walk != NULL) {
        sqlite3_reset(s->walk);
        s->walk = NULL;
    }
}

/* Runs a statement that gives no rows. Not on top of a read that stands: where others have written since, its
 * snapshot cannot be written to (SQLITE_BUSY_SNAPSHOT). */
static int run(struct session *s, int statement)
{
    iterate_end(s);
    int rc = sqlite3_step(s->statements[statement]);
    int status = rc == SQLITE_DONE ? SHALE_OK : lite_error(s, texts[statement]);
    sqlite3_reset(s->statements[statement]);
    return status;
}

static void bind(sqlite3_stmt *statement, int at, struct slice s)
{
    sqlite3_bind_blob(statement, at, s.data, (int)s.size, SQLITE_STATIC);
}

static int put(void *session, struct slice key, struct slice value)
{
    struct session *s = session;
    bind(s->statements[PUT], 1, key);
    bind(s->statements[PUT], 2, value);
    return run(s, PUT);
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    bind(s->statements[DELETE], 1, key);
    return run(s, DELETE);
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    int status = run(s, BEGIN);
    if (status != SHALE_OK) {
        return status;
    }
    for (size_t i = 0; i < n && status == SHALE_OK; i++) {
        status = put(s, entries[i].key, entries[i].value);
    }
    if (status == SHALE_OK) {
        status = run(s, COMMIT);
    } else {
        sqlite3_step(s->statements[ROLLBACK]); /* the first error is what is told */
        sqlite3_reset(s->statements[ROLLBACK]);
    }
    return status;
}

static struct slice column(sqlite3_stmt *statement, int at)
{
    const void *data = sqlite3_column_blob(statement, at);
    return slice_make(data, (size_t)sqlite3_column_bytes(statement, at));
}

/* The statement stays where it is until the next call: what it gave out is its own. */
static int step(struct session *s, sqlite3_stmt *statement)
{
    s->walk = statement;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        return SHALE_OK;
    }
    int status = rc == SQLITE_DONE ? SHALE_NOTFOUND : lite_error(s, sqlite3_sql(statement));
    iterate_end(s);
    return status;
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    iterate_end(s);
    bind(s->statements[GET], 1, key);
    int status = step(s, s->statements[GET]);
    if (status == SHALE_OK) {
        *value = column(s->statements[GET], 0);
    }
    return status;
}

static int iterate(void *session)
{
    iterate_end(session);
    return SHALE_OK;
}

static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    struct session *s = session;
    sqlite3_stmt *walk = s->walk;
    if (how == MOVE_FIRST || how == MOVE_LAST || how == MOVE_SEEK) {
        iterate_end(s);
        walk = s->statements[how == MOVE_FIRST ? UP : how == MOVE_LAST ? DOWN : FROM];
        if (how == MOVE_SEEK) {
            bind(walk, 1, key);
        }
    }
    int status = walk != NULL ? step(s, walk) : SHALE_NOTFOUND;
    if (status == SHALE_OK) {
        *at = (struct entry){column(walk, 0), column(walk, 1)};
    }
    return status;
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%s", sqlite3_libversion());
}

const struct driver driver_sqlite = {
    .name = "sqlite",
    .can = DRIVER_PROCESSES | DRIVER_THREADS | DRIVER_ORDER,
    .open = open_lite,
    .close = close_lite,
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
