/* driver.c - the stores that are built in, and how each is set up. See driver.h.
 *
 * Everywhere: 64 MiB of writes before they are flushed or the log is checkpointed, 256 MiB of cache a
 * process, 10 bits of Bloom filter a key, lz4 where there is a choice. "off" is what a commit without sync
 * means: the process may die, nothing acknowledged is lost. After a power loss shale and the stores with a
 * log have a prefix of the commits; LMDB without sync may then be damaged.
 */
#include "driver.h"

#include <stdio.h>

static const struct entry_of_list {
    const struct driver *driver;
    const char *settings, *cannot;
} drivers[] = {
    {&driver_shale, "as opened by default; -o changes it", ""},
    {&driver_lmdb, "map 64 GiB; off: MDB_NOSYNC; commit: plain", ""},
    {&driver_lmdb_writemap, "the same with MDB_WRITEMAP", ""},
#ifdef AGENT_ROCKSDB
    {&driver_rocksdb,
     "write buffer 64 MiB, 4 of them; LRU cache 256 MiB; full Bloom filters of 10 bits; lz4; dynamic level "
     "sizes; off: "
     "the log without sync",
     "one process at a time"},
#endif
#ifdef AGENT_LEVELDB
    {&driver_leveldb,
     "write buffer 64 MiB; cache 256 MiB; Bloom filters of 10 bits; snappy (it has no lz4); 5000 open files; "
     "off: the "
     "log without sync",
     "one process at a time"},
#endif
#ifdef AGENT_SQLITE
    {&driver_sqlite,
     "WAL, checkpoint every 64 MiB; cache 256 MiB and a connection a thread; mmap 2 GiB; WITHOUT ROWID; off: "
     "synchronous=OFF; commit: FULL",
     ""},
#endif
#ifdef AGENT_BDB
    {&driver_bdb,
     "transactional btree; cache 256 MiB, shared; log buffer 8 MiB, checkpoint every 64 MiB, old logs "
     "removed; off: "
     "DB_TXN_WRITE_NOSYNC",
     ""},
#endif
#ifdef AGENT_TDB
    {&driver_tdb, "hash of 20011 chains; each commit a transaction; off: TDB_NOSYNC",
     "no threads, no order, 4 GiB"},
#endif
};

const struct driver *driver_find(const char *name)
{
    for (size_t i = 0; i < BASE_COUNT(drivers); i++) {
        if (strcmp(drivers[i].driver->name, name) == 0) {
            return drivers[i].driver;
        }
    }
    return NULL;
}

void driver_list(void)
{
    for (size_t i = 0; i < BASE_COUNT(drivers); i++) {
        char version[64];
        drivers[i].driver->version(version, sizeof version);
        printf("%s\t%s\t%s\t%s\n", drivers[i].driver->name, version,
               drivers[i].cannot[0] != '\0' ? drivers[i].cannot : "-", drivers[i].settings);
    }
}
