/* cache.h - blocks in private memory: unpacked, or read with pread where there is no mapping.
 *
 * A block has one reference for the cache, while it is linked there, and one for each pin. Whoever holds a
 * reference may read it; the last one frees it. Evicting a block that is pinned just unlinks it.
 */
#ifndef TABLE_CACHE_H
#define TABLE_CACHE_H

#include "table/table.h"

struct cache_block {
    _Atomic uint32_t refs;
    bool used; /* since the clock's hand last passed; under the shard's mutex, as all that follows */
    uint64_t table, offset;
    struct cache_block *chain;       /* next of the same bucket */
    struct cache_block *prev, *next; /* the clock */
    size_t size;                     /* of data; set before it is linked */
    unsigned char data[] BASE_ALIGNED(16);
};

/* A block that is nobody else's yet, one reference, data not filled in. NULL: no memory, with a text. */
struct cache_block *cache_block_new(size_t size);
void cache_block_release(void *block); /* a reference; fits table_pin */

/* An id for one open table: unique in the process. */
uint64_t cache_table_id(void);
/* A reference to the block, or NULL. */
struct cache_block *cache_find(struct cache *cache, uint64_t table, uint64_t offset);
/* Links b, evicts what is too much, and returns the block to use, which is another one when another thread
 * was faster (then b is released). It has the caller's reference. *added: it is in the cache now because of
 * this call. */
struct cache_block *cache_add(struct cache *cache, uint64_t table, uint64_t offset, struct cache_block *b,
                              bool *added);
void cache_remove(struct cache *cache, uint64_t table, uint64_t offset);
/* false in a forked child: the cache is its parent's, and its mutexes may be held by threads that do not
 * exist here. */
bool cache_usable(const struct cache *cache);

#endif
