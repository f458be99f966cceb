/* version.h - versions and the manifest: which tables make up the database.
 *
 * A version is an immutable set of tables by level, plus the number of the oldest memtable that is not yet in
 * a table. The manifest, MANIFEST-000005, is the log of version edits: a header, then one checksummed record
 * an edit; its first record is a whole version (and the options that shape files). CURRENT names the live one
 * and is replaced by rename.
 *
 * [I-18b] Who appends holds MANIFEST and first makes the manifest right: if CURRENT names another manifest
 * than the tuple, the process that rolled it died: validate, fsync it and the directory, publish that one. If
 * the file is longer than the tuple's length, the tail is a dead process's: cut it and fdatasync the cut,
 * before anything else. A manifest whose fdatasync failed (bad_manifest) is never appended to again: the next
 * committer rolls first.
 *
 * Who calls: db/. Versions are reference counted; any thread may read one.
 */
#ifndef VERSION_VERSION_H
#define VERSION_VERSION_H

#include "os/os.h"
#include "table/table.h"
#include "version/state.h"

#define VERSION_UUID_SIZE  16
#define CURRENT_NAME       "CURRENT"
#define MANIFEST_NAME_SIZE 32
void manifest_name(uint64_t number, char name[MANIFEST_NAME_SIZE]); /* "MANIFEST-000005" */
bool manifest_parse_name(const char *name, uint64_t *number);

/* Options that shape files: stored at creation, the same for every process. */
struct version_options {
    uint64_t block_bytes, target_table_bytes;
    uint32_t bloom_bits, compression, level_ratio; /* compression: SHALE_COMPRESS_ */
    char comparator[16];                           /* "bytes" */
};

/* A table as versions share it: what the manifest says, and its reader once somebody opened it. */
struct version_table {
    _Atomic uint32_t refs;
    struct table_info info;
    _Atomic(struct table *) reader;
    pthread_mutex_t opening;
};
/* The reader, opened on first use. SHALE_NOTFOUND (no text): the file is gone (the epoch must have moved).
 * The reference belongs to the version_table and lasts as long. */
int version_table_open(struct version_table *vt, int dirfd, struct cache *cache, bool verify,
                       struct table **t);

struct version_level {
    struct version_table **tables; /* L0: newest first; else by key */
    uint64_t *heads;               /* key_head of each one's largest key, searched first; L0: NULL */
    uint32_t count;
    uint64_t bytes;
};
struct version {
    _Atomic uint32_t refs;
    uint64_t manifest, length; /* read up to here */
    uint64_t base_length;      /* where the manifest's first record ends */
    uint64_t ro_compat;        /* feature flags of the manifest: an unknown one here refuses writers ... */
    uint32_t compat;           /* ... and one here nobody; kept when the manifest is rolled */
    uint32_t oldest;           /* memtable */
    uint64_t last_seq;         /* everything up to here is in tables */
    uint64_t next_table;       /* at least this, says the manifest */
    struct version_options options;
    unsigned char uuid[VERSION_UUID_SIZE];
    struct version_level level[VERSION_LEVELS];
};
/* A version without tables, next_table 1, last_seq 0: what a new database starts from. */
int version_create(const unsigned char uuid[VERSION_UUID_SIZE], const struct version_options *options,
                   uint32_t oldest, struct version **v);
struct version *version_ref(struct version *v);
void version_unref(struct version *v);
/* Checks that L1.. are sorted and disjoint, numbers unique. SHALE_CORRUPT says what is wrong. */
int version_check(const struct version *v);
bool version_has(const struct version *v, uint64_t table);
/* SHALE_MISMATCH when it uses a feature that allows this library to read only. */
int version_check_writable(const struct version *v);
/* Lets v, which nobody else has seen yet, use the tables that `known` has opened already. */
void version_share(struct version *v, const struct version *known);
int version_print(const struct version *v, struct buf *out); /* for people and gdb */
/* Tables of a level whose key range meets [lo, hi] (NULL data: unbounded): *first, *count for L1..; for L0
 * all is [0, count). */
void version_overlap(const struct version *v, unsigned level, struct slice lo, struct slice hi,
                     uint32_t *first, uint32_t *count);
/* The one table of a level >= 1 that may hold key, or NULL. */
struct version_table *version_find(const struct version *v, unsigned level, struct slice key);

/* An edit: zero-valid, grows. */
struct version_edit {
    struct version_edit_add {
        unsigned level;
        struct table_info info;
    } * added;
    size_t added_count, added_cap;
    struct version_edit_remove {
        unsigned level;
        uint64_t number;
    } * removed;
    size_t removed_count, removed_cap;
    bool has_oldest;
    uint32_t oldest;
    bool has_last_seq;
    uint64_t last_seq;
};
void version_edit_release(struct version_edit *e);
int version_edit_add(struct version_edit *e, unsigned level, struct table_info *info); /* takes info over */
int version_edit_remove(struct version_edit *e, unsigned level, uint64_t number);
/* base + e. An added L0 table goes in front. A removed table that is not there: SHALE_CORRUPT. Shares the
 * version_tables. */
int version_apply(const struct version *base, const struct version_edit *e, struct version **out);

/* ---- the manifest file (manifest.c) ---- */

/* All of these: SHALE_NOTFOUND (no text) when the manifest's file is missing (unlinked: the epoch must have
 * moved). */
/* Number that CURRENT names. SHALE_NODB (no text): no CURRENT. SHALE_CORRUPT: garbled. */
int current_read(int dirfd, uint64_t *manifest);
/* Reads a manifest from the start. length: bytes that count (SHALE_CORRUPT when less is there or verifies),
 * or UINT64_MAX: all whole records up to a torn append at the end; *v has the length that was read. An
 * unknown incompatible flag or comparator: SHALE_MISMATCH. */
int manifest_load(int dirfd, uint64_t number, uint64_t length, struct version **v);
/* From `base` on to length, the same manifest. */
int manifest_advance(int dirfd, const struct version *base, uint64_t length, struct version **v);
/* Writes a new manifest that holds v whole, fsyncs it, the directory, CURRENT (tmp + rename), the directory.
 * Exclusive creation; a leftover of that number that CURRENT does not name is unlinked first. Returns the
 * length; v->manifest and length are not changed. */
int manifest_create(int dirfd, uint64_t number, const struct version *v, unsigned mode, uint64_t *length);
/* Unlinks what killed processes left: every manifest but `keep`, which CURRENT names, and CURRENT's temporary
 * files. Caller holds MANIFEST, and version_begin has made it right. */
int manifest_sweep(int dirfd, uint64_t keep);

/* ---- committing (commit.c) ---- */

struct version_log {
    int dirfd;
    struct state *state;
    unsigned mode;
    uint64_t
        roll_bytes; /* a manifest longer than this, and than twice its first record, is rolled; 0: 8 KiB */
};
#ifdef SHALE_DEBUG
extern uint64_t version_roll_bytes; /* what 0 stands for: tests of the whole library make it small */
#endif
/* Both: caller holds MANIFEST (or initialises with LIVE held exclusively).
 * begin: [I-18b], then the version that is current now; known may be NULL or an older version to advance
 * from. A bad manifest is rolled here already: after begin, what is in no version is named by nothing on
 * disk. A cold open
 * makes a new manifest with manifest_create instead of appending, and so builds on nothing that a failed
 * fdatasync left in the page cache only. */
int version_begin(struct version_log *log, struct version *known, struct version **current);
/* Appends e to the manifest of `current` (rolls when long or bad), fdatasyncs, moves the epoch. *next is the
 * new version. Marks OS_MARK_MANIFEST between the steps. On failure nothing is published, and *unknown tells
 * whether the edit may be on disk all the same (then nothing that the edit names may be deleted, and
 * bad_manifest is set). The old manifest of a roll is unlinked after the epoch moved. */
int version_commit(struct version_log *log, struct version *current, const struct version_edit *e,
                   struct version **next, bool *unknown);

#endif
