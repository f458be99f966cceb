/* options.h - the options of a database handle as one table: name, kind, default, range, meaning.
 *
 * Setting by name, range checks, error texts, --help and the manual all come from here. Kinds:
 *   BOOL   0 or 1
 *   COUNT  a plain number
 *   SIZE   bytes, with K, M, G, KiB ... by 1024
 *   TIME   milliseconds, with ms, s, min, h
 *   FD     a file descriptor; -1: none
 *   MODE   permission bits, octal
 *   DURABLE, WAIT, COMPRESSION  one of the words that options.c lists
 *   PATH   an absolute path, kept in the struct itself; empty: none
 *   CALL   a function or its context, not to be set by name
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "base/base.h"

#define OPTIONS_KIB INT64_C(1024)
#define OPTIONS_MIB (OPTIONS_KIB * 1024)
#define OPTIONS_GIB (OPTIONS_MIB * 1024)

/*    field               kind   default                minimum            maximum             meaning */
#define BASE_OPTIONS(X)                                                                                      \
    X(create, BOOL, 1, 0, 1, "make the database when there is none")                                         \
    X(error_if_exists, BOOL, 0, 0, 1, "refuse a database that is there already")                             \
    X(readonly, BOOL, 0, 0, 1, "write nothing; read permission is enough")                                   \
    X(verify_checksums, BOOL, 1, 0, 1, "verify each block on its first use by this process")                 \
    X(mode, MODE, 0600, 0600, 0777, "permission bits of new files")                                          \
    X(durable, DURABLE, SHALE_DURABLE_COMMIT, SHALE_DURABLE_COMMIT, SHALE_DURABLE_OFF,                       \
      "when a commit is on disk: before its call returns, at intervals, or whenever")                        \
    X(sync_interval_ms, TIME, 1000, 1, 3600000, "the interval of durable=interval")                          \
    X(wait, WAIT, SHALE_WAIT_QUEUE, SHALE_WAIT_QUEUE, SHALE_WAIT_NONE,                                       \
      "how to wait for the write lock: in turn, by trying again, or not at all")                             \
    X(timeout_ms, TIME, -1, -1, OPTIONS_TIMEOUT_MAX,                                                         \
      "bound on all waiting before a commit is published; -1: none, 0: try once")                            \
    X(lock_fd, FD, -1, -1, INT32_MAX, "descriptor of LOCK that holds the write lock for this handle")        \
    X(threads, COUNT, 1, 0, 64, "maintenance threads; 0: the callers do that work")                          \
    X(memtable_bytes, SIZE, 64 * OPTIONS_MIB, 64 * OPTIONS_KIB, 2 * OPTIONS_GIB, "size of a full memtable")  \
    X(max_sealed, COUNT, 3, 1, 64, "sealed memtables at which writers stall")                                \
    X(block_bytes, SIZE, 4096, 256, OPTIONS_MIB, "entries in a table block, before compression")             \
    X(bloom_bits, COUNT, 10, 0, 32, "filter bits a key; 0: no filters")                                      \
    X(compression, COMPRESSION, SHALE_COMPRESS_LZ4, SHALE_COMPRESS_NONE, SHALE_COMPRESS_LZ4,                 \
      "of blocks from level 2 down, once the database outgrows 1/16 of memory")                              \
    X(cache_bytes, SIZE, 256 * OPTIONS_MIB, 0, INT64_C(1) << 46, "decompressed blocks kept by a process")    \
    X(target_table_bytes, SIZE, 64 * OPTIONS_MIB, 64 * OPTIONS_KIB, 4 * OPTIONS_GIB, "size of a full table") \
    X(level_ratio, COUNT, 10, 2, 100, "size of a level in sizes of the one above it")                        \
    X(l0_compact, COUNT, 4, 1, 100, "tables in level 0 that start a compaction")                             \
    X(l0_stop, COUNT, 20, 2, 1000, "tables in level 0 at which writers stall; more than l0_compact")         \
    X(log, CALL, 0, 0, 0, "receives lines about what the database does")                                     \
    X(log_ctx, CALL, 0, 0, 0, "passed to log")                                                               \
    X(mem_dir, PATH, 0, 0, 0, "directory in memory (/dev/shm) for the memtables' indices")

/* Some 292 years would overflow the nanoseconds; a tenth of that is enough for everybody. */
#define OPTIONS_TIMEOUT_MAX INT64_C(900000000000)

/* The options that hold for a handle: the caller's over the defaults, whatever size the caller's struct has.
 * NULL: the defaults. SHALE_INVALID names the field, its value and what is allowed. */
int options_check(const shale_options *in, shale_options *out);

/* One row of the table as text, for help and documentation. */
struct option_text {
    const char *name, *meaning;
    char value[32];    /* the default */
    char allowed[128]; /* "64 KiB to 2 GiB", "commit, interval, off" */
};
/* Calls fn for each option that can be set by name; nonzero stops and is returned. */
int options_each(int (*fn)(void *ctx, const struct option_text *option), void *ctx);

#endif
