/* mem.h - the memtable: a shared, position-independent index over one mapped WAL segment.
 *
 * The segment holds the bytes once; 000012.mem is a B-link tree over them, mapped by every process:
 * references are 32-bit arena positions, the keys' first 16 bytes stand in the nodes, and each key has a
 * record with a newest-first chain of versions {seq, WAL offset of the entry}, with jump pointers so that an
 * old snapshot finds its version in O(log n). One writer (who holds WRITE), any number of readers in any
 * process, no locks.
 *
 * [I-16] The arena's end is stored before anything is filled in; what is filled in is published with one
 * release store, and a split in an order that the next writer can finish (mem/insert.h): a writer killed
 * anywhere leaves a usable tree, and the next one overwrites nothing. Inserting what is there already (same
 * key, same seq) changes nothing: repair and replay just insert again. References read from shared memory are
 * bounds-checked before use: noise gives SHALE_CORRUPT or a miss, never a crash or an endless loop.
 *
 * A filter behind the arena tells cheaply of most keys that they are not in the index (mem/filter.h).
 *
 * The file is boot-scoped: never needed after a reboot [I-1]. A private index lives in anonymous memory
 * (recovery, read-only replay).
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "wal/wal.h"

#define MEM_LEVELS 12 /* at 7 in a node: enough for 7^12 keys */

struct mem_index {
    _Atomic uint32_t refs;
    struct wal_segment *seg;  /* a reference is held */
    unsigned char *arena;     /* the mapping; references are offsets into it */
    uint64_t size;            /* of the arena */
    uint64_t mapped;          /* with the filter behind it */
    _Atomic uint64_t *filter; /* filter.h */
    uint32_t filter_lines;
    /* the highest references at which a node and a version can stand; they count units of 8 bytes */
    uint32_t last_node, last_version;
    bool writable;
    /* writer's own, under WRITE: where the last insert went, from the leaf up; 0: unknown */
    uint32_t path[MEM_LEVELS];
    struct mem_index *next; /* of those that wait to be freed */
};

#define MEM_NAME_SIZE 24
void mem_name(uint32_t number, char name[MEM_NAME_SIZE]); /* "000012.mem" */
bool mem_parse_name(const char *name, uint32_t *number);

/* Makes the index file of seg (number and salt go into its header; an arena of the segment's size). A
 * leftover of that name is unlinked first: always a new inode. SHALE_EXISTS: seg's own index is there
 * already, it is left as it is (another one made it). SHALE_BUSY: another is removing the leftover. Made
 * under a temporary name, "000012.mem.tmp-0123456789abcdef", which a kill leaves behind: wal_sweep_tmp
 * removes it. */
int mem_make(int dirfd, const struct wal_segment *seg, unsigned mode);
bool mem_parse_tmp_name(const char *name, uint32_t *number);
/* Maps seg's index. SHALE_NOTFOUND (no text): missing, or its header is not of this number and salt. Keeps a
 * reference to seg. */
int mem_open(int dirfd, struct wal_segment *seg, bool writable, struct mem_index **mem);
/* An empty private index over seg, for replay; size 0: large enough for whatever the segment can hold
 * (reserved, not committed). */
int mem_open_private(struct wal_segment *seg, struct mem_index **mem);
struct mem_index *mem_ref(struct mem_index *mem);
void mem_unref(struct mem_index *mem);
/* mem_unref in two steps: gives a reference up; NULL unless it was the last, which then is to be freed, by
 * whoever has the time: the unmapping takes milliseconds. */
struct mem_index *mem_release(struct mem_index *mem);
void mem_free(struct mem_index *mem);

/* Arena bytes that make sure of `count` entries, whatever their keys and order, in an index that is empty. */
uint64_t mem_need(uint64_t count);
/* Are so many more sure of their room, whatever is there already? Few more need room for a split on every
 * level; of many, each can split one full node, but not more than there are. Caller holds WRITE. */
bool mem_fits(const struct mem_index *mem, uint64_t count);
/* Arena bytes that are free. Caller holds WRITE. */
uint64_t mem_room(const struct mem_index *mem);
/* Inserts the entry that stands at wal_offset. The caller made sure of the room and holds WRITE. Idempotent.
 * Sequence numbers of a key only grow: an older one that is not there already is SHALE_CORRUPT, repair and
 * replay go in order. SHALE_CORRUPT: the shared index is damaged (nothing is written out of bounds).
 * SHALE_NOMEM: no room. */
int mem_insert(struct mem_index *mem, struct slice key, uint64_t seq, uint32_t wal_offset);
/* Every entry of a verified record. */
int mem_insert_record(struct mem_index *mem, const struct wal_view *rec);

struct mem_hit {
    uint64_t seq;
    uint8_t type;       /* WAL_PUT, WAL_DELETE */
    struct slice value; /* in the segment's mapping */
};
/* The newest version with sequence number <= seq. SHALE_NOTFOUND (no text), SHALE_CORRUPT. */
int mem_get(const struct mem_index *mem, struct slice key, uint64_t seq, struct mem_hit *hit);

/* Entries and distinct keys, for estimates. */
uint64_t mem_entries(const struct mem_index *mem);
uint64_t mem_keys(const struct mem_index *mem);
uint64_t mem_used(const struct mem_index *mem);
/* About how many distinct keys lie in [lo, hi); hi NULL: no end. Exact where there are few. */
uint64_t mem_keys_between(const struct mem_index *mem, struct slice lo, struct slice hi);

/* One entry a key: the newest version with seq <= the iterator's. Plain struct, no allocation, nothing to
 * release; the index must outlive it. The moves return SHALE_OK, SHALE_NOTFOUND (past the end: not valid) or
 * SHALE_CORRUPT. */
struct mem_iter {
    const struct mem_index *mem;
    uint64_t seq;
    uint32_t record;  /* 0: not valid */
    struct slice key; /* in the segment's mapping */
    uint64_t entry_seq;
    uint8_t type;
    struct slice value;
    uint32_t entry_offset; /* in the segment */
    /* where the record was found; while the node's `perm` and `splits` are these, it is there still */
    uint32_t node, splits;
    uint64_t perm;
    unsigned pos;
};
void mem_iter_init(struct mem_iter *it, const struct mem_index *mem, uint64_t seq);
int mem_iter_first(struct mem_iter *it);
int mem_iter_last(struct mem_iter *it);
int mem_iter_seek(struct mem_iter *it, struct slice key);          /* first >= key */
int mem_iter_seek_for_prev(struct mem_iter *it, struct slice key); /* last <= key */
int mem_iter_next(struct mem_iter *it);
int mem_iter_prev(struct mem_iter *it);
/* How many versions the index has of the key where the iterator stands, whatever its own sequence number. */
uint64_t mem_iter_versions(const struct mem_iter *it);

/* Walks the whole structure: order, bounds, chains, keys that the segment really holds. SHALE_CORRUPT names
 * what is wrong. Nobody may be inserting meanwhile. */
int mem_check(const struct mem_index *mem);

#endif
