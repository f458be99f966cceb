/* driver.h - one small interface for shale and for each store beside it, so that the same workloads run on
 * all.
 *
 * A worker process opens the database once (open), each of its threads has a session of its own (attach). A
 * call returns a shale status; its text says whose error it is ("rocksdb: put: ..."). A put, a delete and a
 * batch are a commit each, durable or not as the configuration says. What get and move give out is valid
 * until the session's next call. An iterator goes on in the direction in which first, last or seek set it
 * out; a session has one at a time, and it sees what was there when iterate was called.
 *
 * driver.c has the list, and in it the settings. They are meant to be fair: for each store the best ones that
 * keep the same promise as shale: a commit that returned survives its process, and with --sync commit the
 * power, too.
 */
#ifndef AGENT_DRIVER_H
#define AGENT_DRIVER_H

#include "base/base.h"

#define DRIVER_BUFFER_BYTES (64 << 20)  /* of writes before they are flushed, or the log is checkpointed */
#define DRIVER_CACHE_BYTES  (256 << 20) /* a process */
#define DRIVER_BLOOM_BITS   10
#define DRIVER_MAP_BYTES    (UINT64_C(64) << 30) /* address space of a mapped file */

struct driver_config {
    const char *dir;
    bool durable;                 /* each commit */
    const shale_options *options; /* shale's own */
};

struct entry {
    struct slice key, value;
};

enum driver_move { MOVE_FIRST, MOVE_LAST, MOVE_SEEK, MOVE_NEXT, MOVE_PREV };

enum {
    DRIVER_PROCESSES = 1u << 0, /* several at once */
    DRIVER_THREADS = 1u << 1,
    DRIVER_ORDER = 1u << 2 /* iterates by key */
};

struct driver {
    const char *name;
    unsigned can;
    int (*open)(const struct driver_config *config, void **db); /* makes it where there is none */
    int (*close)(void *db);
    int (*attach)(void *db, void **session);
    void (*detach)(void *session); /* NULL: no-op */
    int (*put)(void *session, struct slice key, struct slice value);
    int (*del)(void *session, struct slice key); /* one that is missing: SHALE_OK */
    int (*get)(void *session, struct slice key, struct slice *value);
    int (*batch)(void *session, const struct entry *entries, size_t n);
    int (*iterate)(void *session);
    int (*move)(void *session, enum driver_move how, struct slice key, struct entry *at);
    void (*iterate_end)(void *session);
    int (*compact)(void *session); /* NULL: it has nothing to compact */
    void (*version)(char *text, size_t size);
};

/* NULL: there is none of this name, or its library was not there when the agent was built. */
const struct driver *driver_find(const char *name);
/* What is built in: name, version, what it cannot do, settings. */
void driver_list(void);

extern const struct driver driver_shale, driver_lmdb, driver_lmdb_writemap, driver_rocksdb, driver_leveldb,
    driver_sqlite, driver_bdb, driver_tdb;

#endif
