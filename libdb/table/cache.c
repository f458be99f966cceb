/* cache.c - the process's cache of unpacked blocks.
 *
 * 32 shards by a hash of {table, offset}, each a hash table and a clock under a mutex that is held for a few
 * loads and stores; unpacking and reading happen outside. A hit sets the block's `used`, the clock's hand
 * clears it and evicts at the second visit: nearly LRU, without moving anything on a hit. The bytes in use
 * are counted for all shards together, so the capacity holds to the byte whatever the blocks' sizes; only
 * adding and evicting write that counter.
 *
 * The cache is never freed: the last cache_unref empties it, and the empty shell serves the next cache_ref.
 * That way the one global pointer needs no lock, which a fork could leave locked for ever: a forked child
 * sees that the shell is not its own, leaves it alone, and makes another one.
 */
#include "table/cache.h"

#include <stdlib.h>

#define CACHE_SHARDS  32u
#define CACHE_BUCKETS 64u /* a shard's, at first */

struct cache_shard {
    pthread_mutex_t mutex;
    struct cache_block **buckets;
    size_t bucket_count, blocks;
    struct cache_block *hand; /* NULL: empty */
} BASE_ALIGNED(BASE_CACHELINE);

struct cache {
    _Atomic uint64_t capacity, used;
    int64_t pid;
    struct cache *older;   /* the parent's: kept reachable, never touched */
    pthread_mutex_t mutex; /* of refs; capacity changes only under it. Taken before a shard's */
    uint32_t refs;
    struct cache_shard shards[CACHE_SHARDS];
};

static _Atomic(struct cache *) process_cache;
static _Atomic uint64_t last_table_id;

uint64_t cache_table_id(void)
{
    return atomic_fetch_add_explicit(&last_table_id, 1, memory_order_relaxed) + 1;
}

bool cache_usable(const struct cache *cache)
{
    return cache->pid == os_pid();
}

/* ---- blocks ---- */

struct cache_block *cache_block_new(size_t size)
{
    struct cache_block *b = base_alloc(sizeof *b + size);
    if (b != NULL) {
        atomic_init(&b->refs, 1);
        b->size = size;
    }
    return b;
}

void cache_block_release(void *block)
{
    struct cache_block *b = block;
    /* release: my reads are over; acquire: so are all others', before the memory is reused. */
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1) {
        free(b);
    }
}

static size_t charge(const struct cache_block *b)
{
    return sizeof *b + b->size;
}

/* ---- one shard, its mutex held ---- */

static uint64_t block_hash(uint64_t table, uint64_t offset)
{
    return checksum_seed(table, offset);
}

static struct cache_shard *shard_of(struct cache *c, uint64_t hash)
{
    return &c->shards[hash >> 32 & (CACHE_SHARDS - 1)];
}

static struct cache_block **bucket_of(const struct cache_shard *s, uint64_t hash)
{
    return &s->buckets[hash & (s->bucket_count - 1)];
}

static struct cache_block **shard_slot(const struct cache_shard *s, uint64_t hash, uint64_t table,
                                       uint64_t offset)
{
    struct cache_block **slot = bucket_of(s, hash);
    while (*slot != NULL && ((*slot)->offset != offset || (*slot)->table != table)) {
        slot = &(*slot)->chain;
    }
    return slot;
}

/* Twice the buckets, when they are as many as the blocks. No memory: chains grow longer, that is all. */
static void shard_grow(struct cache_shard *s)
{
    size_t n = s->bucket_count == 0 ? CACHE_BUCKETS : s->bucket_count * 2;
    struct cache_block **buckets = base_alloc_refused() ? NULL : calloc(n, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    struct cache_shard grown = {.buckets = buckets, .bucket_count = n};
    struct cache_block *b = s->hand;
    for (size_t i = 0; i < s->blocks; i++, b = b->next) {
        struct cache_block **slot = bucket_of(&grown, block_hash(b->table, b->offset));
        b->chain = *slot;
        *slot = b;
    }
    free(s->buckets);
    s->buckets = buckets;
    s->bucket_count = n;
}

static void shard_unlink(struct cache *c, struct cache_shard *s, struct cache_block **slot)
{
    struct cache_block *b = *slot;
    *slot = b->chain;
    b->prev->next = b->next;
    b->next->prev = b->prev;
    if (s->hand == b) {
        s->hand = b->next != b ? b->next : NULL;
    }
    s->blocks--;
    atomic_fetch_sub_explicit(&c->used, charge(b), memory_order_relaxed);
    cache_block_release(b);
}

/* Links behind the hand, where it comes by last. */
static void shard_link(struct cache *c, struct cache_shard *s, struct cache_block **slot,
                       struct cache_block *b)
{
    b->chain = NULL;
    *slot = b;
    if (s->hand == NULL) {
        s->hand = b->prev = b->next = b;
    } else {
        b->next = s->hand;
        b->prev = s->hand->prev;
        b->prev->next = b;
        b->next->prev = b;
    }
    s->blocks++;
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->used, charge(b), memory_order_relaxed);
}

static bool over(const struct cache *c)
{
    return atomic_load_explicit(&c->used, memory_order_relaxed) >
           atomic_load_explicit(&c->capacity, memory_order_relaxed);
}

/* Until the cache is small enough or the shard is empty. Ends: a whole turn of the hand clears every `used`.
 */
static void shard_evict(struct cache *c, struct cache_shard *s)
{
    while (s->hand != NULL && over(c)) {
        struct cache_block *b = s->hand;
        if (b->used) {
            b->used = false;
            s->hand = b->next;
        } else {
            shard_unlink(c, s, shard_slot(s, block_hash(b->table, b->offset), b->table, b->offset));
        }
    }
}

/* ---- the cache ---- */

struct cache_block *cache_find(struct cache *c, uint64_t table, uint64_t offset)
{
    uint64_t hash = block_hash(table, offset);
    struct cache_shard *s = shard_of(c, hash);
    os_mutex_lock(&s->mutex);
    struct cache_block *b = s->buckets != NULL ? *shard_slot(s, hash, table, offset) : NULL;
    if (b != NULL) {
        b->used = true;
        atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    }
    os_mutex_unlock(&s->mutex);
    return b;
}

struct cache_block *cache_add(struct cache *c, uint64_t table, uint64_t offset, struct cache_block *b,
                              bool *added)
{
    *added = false;
    /* A block that would push out a quarter of the cache is not worth it. */
    if (charge(b) > atomic_load_explicit(&c->capacity, memory_order_relaxed) / 4) {
        return b;
    }
    uint64_t hash = block_hash(table, offset);
    struct cache_shard *s = shard_of(c, hash);
    b->table = table;
    b->offset = offset;
    b->used = false;
    os_mutex_lock(&s->mutex);
    if (s->blocks >= s->bucket_count) {
        shard_grow(s);
    }
    struct cache_block **slot = s->buckets != NULL ? shard_slot(s, hash, table, offset) : NULL;
    struct cache_block *other = slot != NULL ? *slot : NULL;
    if (other != NULL) {
        atomic_fetch_add_explicit(&other->refs, 1, memory_order_relaxed);
    } else if (slot != NULL) {
        shard_link(c, s, slot, b);
        *added = true;
    }
    os_mutex_unlock(&s->mutex);
    if (other != NULL) {
        cache_block_release(b);
        return other;
    }
    for (size_t i = 0, at = (size_t)(s - c->shards); over(c) && i < CACHE_SHARDS; i++) {
        struct cache_shard *victim = &c->shards[(at + i) % CACHE_SHARDS];
        os_mutex_lock(&victim->mutex);
        shard_evict(c, victim);
        os_mutex_unlock(&victim->mutex);
    }
    return b;
}

void cache_remove(struct cache *c, uint64_t table, uint64_t offset)
{
    uint64_t hash = block_hash(table, offset);
    struct cache_shard *s = shard_of(c, hash);
    os_mutex_lock(&s->mutex);
    struct cache_block **slot = s->buckets != NULL ? shard_slot(s, hash, table, offset) : NULL;
    if (slot != NULL && *slot != NULL) {
        shard_unlink(c, s, slot);
    }
    os_mutex_unlock(&s->mutex);
}

size_t cache_used(const struct cache *c)
{
    return atomic_load_explicit(&c->used, memory_order_relaxed);
}

static struct cache *cache_make(struct cache *older)
{
    struct cache *c = base_alloc_aligned(BASE_CACHELINE, sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    memset(c, 0, sizeof *c);
    c->pid = os_pid();
    c->older = older;
    os_mutex_init(&c->mutex);
    for (size_t i = 0; i < CACHE_SHARDS; i++) {
        os_mutex_init(&c->shards[i].mutex);
    }
    return c;
}

static void cache_discard(struct cache *c)
{
    for (size_t i = 0; i < CACHE_SHARDS; i++) {
        os_mutex_destroy(&c->shards[i].mutex);
    }
    os_mutex_destroy(&c->mutex);
    free(c);
}

struct cache *cache_ref(size_t capacity)
{
    struct cache *c = atomic_load_explicit(&process_cache, memory_order_acquire);
    while (c == NULL || !cache_usable(c)) {
        struct cache *made = cache_make(c);
        if (made == NULL) {
            return NULL;
        }
        if (atomic_compare_exchange_strong(&process_cache, &c, made)) {
            c = made;
        } else {
            cache_discard(made);
        }
    }
    os_mutex_lock(&c->mutex);
    c->refs++;
    if (capacity > atomic_load_explicit(&c->capacity, memory_order_relaxed)) {
        atomic_store_explicit(&c->capacity, capacity, memory_order_relaxed);
    }
    os_mutex_unlock(&c->mutex);
    return c;
}

static void cache_clear(struct cache *c)
{
    atomic_store_explicit(&c->capacity, 0, memory_order_relaxed);
    for (size_t i = 0; i < CACHE_SHARDS; i++) {
        struct cache_shard *s = &c->shards[i];
        os_mutex_lock(&s->mutex);
        shard_evict(c, s);
        free(s->buckets);
        s->buckets = NULL;
        s->bucket_count = 0;
        os_mutex_unlock(&s->mutex);
    }
}

void cache_unref(struct cache *c)
{
    if (c == NULL || !cache_usable(c)) {
        return;
    }
    os_mutex_lock(&c->mutex);
    if (--c->refs == 0) {
        cache_clear(c);
    }
    os_mutex_unlock(&c->mutex);
}
