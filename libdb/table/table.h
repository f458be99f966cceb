/* table.h - sstables: immutable sorted files, one entry a user key.
 *
 * [data blocks][filter][index][sums][properties][footer], each data block raw or lz4, with a trailer {type,
 * checksum} whose checksum covers table number, offset, type and bytes. Since a view pins whole files and
 * not sequence numbers [I-10], flush and compaction keep only the newest entry of a key: a table holds each
 * key once.
 *
 * Data block, for binary search without decoding: the prefix common to the whole block once, an array of
 * entry offsets, entries {seq << 8 | type, suffix, value}; forward and backward cost the same. Index: one
 * entry a block, {last key of the block or a shorter separator, offset, size}, with an array of 8-byte key
 * heads that is searched first. Filter: cache-line-blocked bloom, over user keys.
 *
 * A table is mapped; its raw blocks are used in place, its lz4 blocks go through a process-wide sharded
 * cache. A block's checksum is verified on its first use by this process (a bitmap), after its pages, or all
 * around them, were faulted in by MADV_POPULATE_READ (fault.h), so that an I/O error is an error and not
 * SIGBUS. Where mmap fails for lack of maps the descriptor is kept and blocks are read with pread.
 *
 * Who calls: db/ (flush, compaction, reads). Readers and iterators need no lock; a table is reference
 * counted.
 */
#ifndef TABLE_TABLE_H
#define TABLE_TABLE_H

#include "os/os.h"

#define TABLE_NAME_SIZE 32
enum { TABLE_PUT = 1, TABLE_DELETE = 2 }; /* the same numbers as in the log */

void table_name(uint64_t number, char name[TABLE_NAME_SIZE]);     /* "000034.sst" */
void table_tmp_name(uint64_t number, char name[TABLE_NAME_SIZE]); /* "000034.sst.tmp" */
bool table_parse_name(const char *name, uint64_t *number, bool *tmp);

/* ---- building (build.c) ---- */

struct table_options {
    size_t block_bytes;  /* of entries, before compression */
    unsigned bloom_bits; /* a key; 0: no filter */
    bool lz4;            /* a block that does not shrink by an eighth stays raw */
    unsigned mode;       /* of the new file */
};

/* What the manifest keeps of a table. */
struct table_info {
    uint64_t number, size; /* of the file */
    uint64_t entries, deletes;
    uint64_t min_seq, max_seq;
    uint64_t raw_bytes;           /* keys and values */
    struct buf smallest, largest; /* user keys */
};
void table_info_release(struct table_info *info);

struct table_builder;
/* Creates NNN.sst.tmp, exclusively, locks it (byte 0, exclusive) and checks that it still has a name
 * [I-17]. */
int table_build_start(int dirfd, uint64_t number, const struct table_options *options,
                      struct table_builder **b);
/* Keys strictly ascending, a delete without a value, else SHALE_INVALID. What has failed once fails from
 * then on. Allocates ahead and starts write-back every 2 MiB. */
int table_build_add(struct table_builder *b, struct slice key, uint64_t seq, uint8_t type,
                    struct slice value);
uint64_t table_build_size(const struct table_builder *b); /* bytes of the file so far, an estimate */
uint64_t table_build_entries(const struct table_builder *b);
/* Writes the rest, fsyncs, renames to NNN.sst. The directory is NOT yet synced: the caller does it once for
 * all its tables (os_sync_dir) before naming them in an edit. Fills info; b is gone, whatever is returned.
 * An error removes the file. A table without entries is SHALE_INVALID. */
int table_build_finish(struct table_builder *b, struct table_info *info);
void table_build_abandon(struct table_builder *b); /* removes the .tmp; NULL is fine */

/* ---- block cache (cache.c): decompressed blocks, one a process, shared by its handles ---- */

struct cache;
/* The process's cache, made on first use; its capacity is the largest that was asked for since it was last
 * without a reference. NULL: no memory. In a forked child the parent's cache is left alone. */
struct cache *cache_ref(size_t capacity);
void cache_unref(struct cache *cache);
size_t cache_used(const struct cache *cache);

/* ---- reading (read.c) ---- */

struct table;
/* What a handle counts. A thread adds its bloom checks 64 at a time, so that gets write no line that others
 * share. */
struct table_counters {
    _Atomic uint64_t bloom_checks, bloom_useful, cache_hits, cache_misses;
};
/* dirfd is also used later, to open the file again for sequential reading: it must stay open as long as
 * sequential iterators may start; what it then names is compared by device and inode. Opens and maps
 * NNN.sst, checks footer, properties and sums; pages of filter and index, and data blocks, are verified on
 * first use. size: as the manifest has it; another size is SHALE_CORRUPT; 0: not known (repair).
 * SHALE_NOTFOUND (no text): no such file. verify: check data blocks on first use. */
int table_open(int dirfd, uint64_t number, uint64_t size, struct cache *cache, bool verify, struct table **t);
struct table *table_ref(struct table *t);
void table_unref(struct table *t); /* the last one unmaps and drops its blocks from the cache; NULL is fine */
uint64_t table_number(const struct table *t);

/* Bytes that stay valid until unpinned: a mapping's (a table reference) or a cached block's, or nothing to
 * do. */
struct table_pin {
    void *object;
    void (*release)(void *object);
};
static inline void table_pin_release(struct table_pin *pin)
{
    if (pin->object != NULL) {
        pin->release(pin->object);
        pin->object = NULL;
    }
}
struct table_hit {
    uint64_t seq;
    uint8_t type;
    struct slice value;
};
/* hash: key_hash(key). Filter, index, block. SHALE_OK, SHALE_NOTFOUND (no text), SHALE_CORRUPT/SHALE_IO
 * "000034.sst: block at 40960: checksum mismatch". The value stays valid while the caller holds the table
 * AND *pin (pin may be empty for raw mapped blocks: then the table alone keeps it). No shared cache line is
 * written for a mapped raw block. */
int table_get(struct table *t, struct slice key, uint64_t hash, struct table_counters *counters,
              struct table_hit *hit, struct table_pin *pin);
/* The same where the filter is likely to say no: one of several tables in which the key may be. */
int table_get_unlikely(struct table *t, struct slice key, uint64_t hash, struct table_counters *counters,
                       struct table_hit *hit, struct table_pin *pin);
/* Asks for the line of the filter that a get of this hash will read first. */
void table_prefetch(const struct table *t, uint64_t hash);

/* A data block's parts (block.h); every one lies inside size. */
struct table_block {
    const unsigned char *data, *heads, *offsets;
    uint32_t size, count, prefix_size;
    uint32_t entries; /* where the first one begins */
    bool wide;        /* offsets of 4 bytes */
};
/* A stretch of the file that was read ahead (stretch.c). */
struct table_stretch {
    int fd;     /* -1: none could be had, blocks come from the mapping */
    bool asked; /* fd was looked for */
    uint64_t offset;
    struct buf bytes;
};

/* The iterator holds a reference to the table. key and value are valid until the next move. */
struct table_iter {
    struct table *table;
    struct table_counters *counters;
    bool fill_cache; /* else a decompressed block is private to the iterator */
    bool sequential; /* compaction: read ahead, stay out of the block cache, verify every block whether it was
                        before or not */
    bool valid;
    struct slice key, value;
    uint64_t seq;
    uint8_t type;
    /* position */
    bool loaded; /* parts and pin are of this block */
    uint32_t block, entry;
    struct table_block parts;
    struct table_pin pin;
    struct buf key_buf; /* prefix + suffix, where the block has a common prefix */
    uint32_t run;       /* blocks entered one after the other: how far to fault in ahead */
    uint64_t faulted_from, faulted_to;
    struct table_stretch stretch; /* sequential */
};
void table_iter_init(struct table_iter *it, struct table *t, struct table_counters *counters);
void table_iter_release(struct table_iter *it);
/* SHALE_OK (valid), SHALE_NOTFOUND (past the end, not valid), or the block's error (not valid). */
int table_iter_first(struct table_iter *it);
int table_iter_last(struct table_iter *it);
int table_iter_seek(struct table_iter *it, struct slice key);          /* first >= key */
int table_iter_seek_for_prev(struct table_iter *it, struct slice key); /* last <= key */
int table_iter_next(struct table_iter *it);
int table_iter_prev(struct table_iter *it);
/* After an error of first or next: on to the first entry behind the block that could not be read. */
int table_iter_skip(struct table_iter *it);

/* About how many bytes of the file lie before the key. */
uint64_t table_offset_of(const struct table *t, struct slice key);
const struct table_info *table_properties(const struct table *t);
/* Every byte of the file: all checksums, order of keys, counts against properties, filter has every key.
 * progress may be NULL; nonzero stops with SHALE_CANCELLED. */
int table_verify(struct table *t, int (*progress)(void *ctx, uint64_t bytes), void *ctx);
/* The file as it is, into fd, fsynced. progress as above. */
int table_copy(struct table *t, int fd, int (*progress)(void *ctx, uint64_t bytes), void *ctx);

#endif
