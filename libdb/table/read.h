/* read.h - an open table from the inside: what get, iterators and verify share. */
#ifndef TABLE_READ_H
#define TABLE_READ_H

#include "table/block.h"
#include "table/cache.h"
#include "table/fault.h"
#include "table/filter.h"
#include "table/index.h"

struct table {
    _Atomic uint32_t refs;
    bool verify;
    uint64_t number, size;
    char name[TABLE_NAME_SIZE];
    int dirfd; /* borrowed; see table_open */
    dev_t dev;
    ino_t ino;
    uid_t owner;
    unsigned char *map; /* the whole file; NULL: blocks are read through fd */
    int fd;             /* -1 when mapped */
    unsigned char *end; /* data_size to the footer: in the mapping, or own memory
                           where there is none */
    struct table_faults faults;
    struct table_layout at;
    struct table_footer footer;
    struct table_tail tail;
    struct table_filter filter;
    struct table_index index;
    struct table_info info;
    struct cache *cache; /* NULL: none */
    uint64_t cache_id;
    /* A bit a block: faulted in and verified by this process; put into the cache by this table. */
    _Atomic uint64_t *seen, *cached;
};
_Static_assert(TABLE_PAGE == 4096, "doc/format says 4096");

/* Puts "000034.sst: block at 40960: " in front, or sets it with what. */
int table_wrap(const struct table *t, uint64_t offset, int rc);
int table_damaged(const struct table *t, uint64_t offset, const char *what);
static inline enum table_packing table_packing_of(const struct index_entry *e)
{
    return e->stored == e->raw ? TABLE_RAW : TABLE_LZ4;
}

/* Where the bytes of block i stand unpacked, to be read until pin is released (and while the table is
 * held). [from, to) around the block is faulted in if the block is new to this process. fill: a block that
 * had to be unpacked goes into the cache. Filled in only on success. */
struct table_load {
    struct table_counters *counters;
    uint64_t from, to;
    bool fill;
};
int table_load_block(struct table *t, uint32_t i, const struct index_entry *e, const struct table_load *load,
                     struct table_block *parts, struct table_pin *pin);
/* Unpacks stored, verified bytes into memory of its own. */
int table_unpack(const struct table *t, const struct index_entry *e, const unsigned char *stored,
                 struct cache_block **block);

/* Sequential reading (stretch.c): bytes [offset, offset + size) of the file, valid until the next call. */
int stretch_read(struct table *t, struct table_stretch *s, uint64_t offset, uint64_t size,
                 const unsigned char **p);
/* As table_load_block, but every block is read anew and verified. */
int stretch_load_block(struct table *t, struct table_stretch *s, const struct index_entry *e,
                       struct table_block *parts, struct table_pin *pin);
void stretch_release(struct table_stretch *s);

#endif
