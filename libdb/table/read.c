/* read.c - from a key to its value: filter, index, block.
 *
 * A mapped raw block is used where it lies. Before its first use by this process its pages, or all around
 * them, are faulted in with a system call that reports an I/O error as an error, where a plain load would be
 * a SIGBUS (fault.h), and the checksum is verified; a bit a block remembers. From then on a get makes no
 * system call and writes nothing that others read.
 *
 * Everything else (lz4, no mapping) goes through the cache, or into memory of its own where there is none.
 *
 * A matching checksum proves nothing about the structure: all positions from the file are checked against
 * its bounds where they are used, so that no file, however it came about, makes a reader leave its memory.
 */
#include "table/read.h"

#include <lz4.h>

#define PREFETCH_MOST ((uint64_t)16 << 10) /* more would push out what was asked for first */

int table_wrap(const struct table *t, uint64_t offset, int rc)
{
    return rc == SHALE_OK ? rc : err_wrap(rc, "%s: block at %llu", t->name, (unsigned long long)offset);
}

int table_damaged(const struct table *t, uint64_t offset, const char *what)
{
    return err_set(SHALE_CORRUPT, "%s: block at %llu: %s", t->name, (unsigned long long)offset, what);
}

static int unseal(const struct table *t, const struct index_entry *e, const unsigned char *stored)
{
    return table_wrap(
        t, e->offset,
        table_unseal(stored, e->stored, e->raw, TABLE_DATA, table_packing_of(e), t->number, e->offset));
}

/* relaxed: the bits guard no memory that this process wrote; the file does not change. */
static bool bit_test(const _Atomic uint64_t *bits, uint32_t i)
{
    return (atomic_load_explicit(&bits[i / 64], memory_order_relaxed) >> i % 64 & 1) != 0;
}

static void bit_set(_Atomic uint64_t *bits, uint32_t i)
{
    atomic_fetch_or_explicit(&bits[i / 64], UINT64_C(1) << i % 64, memory_order_relaxed);
}

static int first_use(struct table *t, uint32_t i, const struct index_entry *e, const struct table_load *load)
{
    uint64_t end = e->offset + e->stored + sizeof(struct table_trailer);
    uint64_t from = load->from < e->offset ? load->from : e->offset;
    uint64_t to = load->to > end ? load->to : end;
    int rc = faults_need(&t->faults, from, to);
    if (rc != SHALE_OK &&
        (from < e->offset || to > end)) { /* a bad page next door is not this block's trouble */
        rc = faults_need(&t->faults, e->offset, end);
    }
    rc = table_wrap(t, e->offset, rc);
    if (rc == SHALE_OK && t->verify) {
        for (uint64_t at = 0; at < e->stored && at < PREFETCH_MOST; at += BASE_CACHELINE) {
            BASE_PREFETCH(t->map + e->offset + at);
        }
        rc = unseal(t, e, t->map + e->offset);
    }
    if (rc == SHALE_OK) {
        bit_set(t->seen, i);
    }
    return rc;
}

int table_unpack(const struct table *t, const struct index_entry *e, const unsigned char *stored,
                 struct cache_block **out)
{
    if (e->stored > LZ4_MAX_INPUT_SIZE || e->raw > LZ4_MAX_INPUT_SIZE || e->raw / 255 > e->stored) {
        return table_damaged(t, e->offset, "sizes that no compression has");
    }
    struct cache_block *b = cache_block_new(e->raw);
    if (b == NULL) {
        return SHALE_NOMEM;
    }
    int n = LZ4_decompress_safe((const char *)stored, (char *)b->data, (int)e->stored, (int)e->raw);
    if (n < 0 || (uint32_t)n != e->raw) {
        cache_block_release(b);
        return table_damaged(t, e->offset, "does not unpack");
    }
    *out = b;
    return SHALE_OK;
}

/* The block's stored bytes and trailer, with pread. The caller's reference to *out. */
static int fetch(const struct table *t, const struct index_entry *e, struct cache_block **out)
{
    size_t size = (size_t)e->stored + sizeof(struct table_trailer), got;
    struct cache_block *b = cache_block_new(size);
    if (b == NULL) {
        return SHALE_NOMEM;
    }
    int rc = table_wrap(t, e->offset, os_pread(t->fd, b->data, size, e->offset, &got));
    if (rc == SHALE_OK && got != size) {
        rc = table_damaged(t, e->offset, "the file ends early");
    }
    if (rc == SHALE_OK && t->verify) {
        rc = unseal(t, e, b->data);
    }
    if (rc != SHALE_OK) {
        cache_block_release(b);
        return rc;
    }
    b->size = e->stored;
    *out = b;
    return SHALE_OK;
}

static int make_block(struct table *t, uint32_t i, const struct index_entry *e, const struct table_load *load,
                      struct cache_block **out)
{
    if (t->map != NULL) { /* raw ones do not come here */
        int rc = bit_test(t->seen, i) ? SHALE_OK : first_use(t, i, e, load);
        return rc == SHALE_OK ? table_unpack(t, e, t->map + e->offset, out) : rc;
    }
    struct cache_block *stored;
    int rc = fetch(t, e, &stored);
    if (rc != SHALE_OK || table_packing_of(e) == TABLE_RAW) {
        if (rc == SHALE_OK) {
            *out = stored;
        }
        return rc;
    }
    rc = table_unpack(t, e, stored->data, out);
    cache_block_release(stored);
    return rc;
}

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static int through_cache(struct table *t, uint32_t i, const struct index_entry *e,
                         const struct table_load *load, struct cache_block **out)
{
    struct cache_block *b = t->cache != NULL ? cache_find(t->cache, t->cache_id, e->offset) : NULL;
    if (load->counters != NULL) {
        count(b != NULL ? &load->counters->cache_hits : &load->counters->cache_misses);
    }
    if (b == NULL) {
        int rc = make_block(t, i, e, load, &b);
        if (rc != SHALE_OK) {
            return rc;
        }
        bool added = false;
        if (load->fill && t->cache != NULL) {
            b = cache_add(t->cache, t->cache_id, e->offset, b, &added);
        }
        if (added) {
            bit_set(t->cached, i);
        }
    }
    *out = b;
    return SHALE_OK;
}

int table_load_block(struct table *t, uint32_t i, const struct index_entry *e, const struct table_load *load,
                     struct table_block *parts, struct table_pin *pin)
{
    struct cache_block *b = NULL;
    int rc = SHALE_OK;
    if (BASE_LIKELY(t->map != NULL && table_packing_of(e) == TABLE_RAW)) {
        if (BASE_UNLIKELY(!bit_test(t->seen, i))) {
            rc = first_use(t, i, e, load);
        }
    } else {
        rc = through_cache(t, i, e, load, &b);
    }
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    const unsigned char *data = b != NULL ? b->data : t->map + e->offset;
    if (BASE_UNLIKELY(!block_open(parts, data, e->raw))) {
        if (b != NULL) {
            cache_block_release(b);
        }
        return table_damaged(t, e->offset, "malformed");
    }
    *pin = (struct table_pin){b, cache_block_release};
    return SHALE_OK;
}

/* ---- get ---- */

/* Every 64th time adds 64: the thread's own tick, no line that others write. A handle's count is off by a
 * few, at most. */
#define COUNT_BATCH 64u
static inline void count_batched(uint32_t *tick, _Atomic uint64_t *counter)
{
    if (BASE_UNLIKELY(++*tick % COUNT_BATCH == 0)) {
        atomic_fetch_add_explicit(counter, COUNT_BATCH, memory_order_relaxed);
    }
}

/* initial-exec: two words, and no call to find them from a shared library. */
static _Thread_local struct {
    uint32_t checks, useful;
} ticks __attribute__((tls_model("initial-exec")));

/* SHALE_NOTFOUND: the key is not there. SHALE_OK: it may be. */
static int ask_filter(const struct table *t, uint64_t hash, struct table_counters *counters)
{
    if (t->filter.lines == NULL) {
        return SHALE_OK;
    }
    int rc = tail_need(&t->tail, filter_line_of(&t->filter, hash), FILTER_LINE);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    bool may_hold = filter_may_hold(&t->filter, hash);
    if (counters != NULL) {
        count_batched(&ticks.checks, &counters->bloom_checks);
        if (!may_hold) {
            count_batched(&ticks.useful, &counters->bloom_useful);
        }
    }
    return may_hold ? SHALE_OK : SHALE_NOTFOUND;
}

void table_prefetch(const struct table *t, uint64_t hash)
{
    if (t->filter.lines != NULL) {
        BASE_PREFETCH(filter_line_of(&t->filter, hash));
    }
}

/* Block i, its bytes asked for as early as they can be. */
static int load_for_get(struct table *t, uint32_t i, struct table_counters *counters, struct index_entry *e,
                        struct table_block *parts, struct table_pin *pin)
{
    int rc = index_at(&t->index, i, e);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    if (BASE_LIKELY(t->map != NULL && table_packing_of(e) == TABLE_RAW)) {
        block_prefetch(t->map + e->offset, e->raw);
    }
    struct table_load load = {counters, e->offset, e->offset, true};
    return table_load_block(t, i, e, &load, parts, pin);
}

/* What takes time are the lines that are in no cache of the processor: the filter's, those of the index, of
 * the block, of the entry. Each is asked for as soon as its place is known, and the index's without waiting
 * for the filter, if the filter is likely to let the key pass. */
static inline int get(struct table *t, struct slice key, uint64_t hash, bool likely,
                      struct table_counters *counters, struct table_hit *hit, struct table_pin *pin)
{
    struct index_search search;
    key.data = key.data != NULL ? key.data : (const unsigned char *)"";
    if (likely) {
        table_prefetch(t, hash);
        index_find_begin(&t->index, key, &search);
    }
    uint32_t i = 0;
    int rc = ask_filter(t, hash, counters);
    if (rc == SHALE_OK) {
        if (!likely) {
            index_find_begin(&t->index, key, &search);
        }
        rc = index_find_end(&t->index, &search, &i);
    }
    if (rc != SHALE_OK || i == t->index.count) {
        return rc != SHALE_OK ? rc : SHALE_NOTFOUND;
    }
    struct index_entry e;
    struct table_block parts;
    struct block_entry entry;
    struct table_pin held = {NULL, NULL};
    rc = load_for_get(t, i, counters, &e, &parts, &held);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = block_get(&parts, key, &entry);
    if (rc == SHALE_OK) {
        *hit = (struct table_hit){entry.seq, entry.type, entry.value};
        *pin = held;
        return SHALE_OK;
    }
    table_pin_release(&held);
    return rc == SHALE_NOTFOUND ? rc : table_damaged(t, e.offset, "malformed");
}

int table_get(struct table *t, struct slice key, uint64_t hash, struct table_counters *counters,
              struct table_hit *hit, struct table_pin *pin)
{
    return get(t, key, hash, true, counters, hit, pin);
}

int table_get_unlikely(struct table *t, struct slice key, uint64_t hash, struct table_counters *counters,
                       struct table_hit *hit, struct table_pin *pin)
{
    return get(t, key, hash, false, counters, hit, pin);
}

uint64_t table_offset_of(const struct table *t, struct slice key)
{
    key.data = key.data != NULL ? key.data : (const unsigned char *)"";
    uint32_t i;
    struct index_entry e;
    if (index_find(&t->index, key, &i) != SHALE_OK || i == t->index.count ||
        index_at(&t->index, i, &e) != SHALE_OK) {
        return t->footer.data_size;
    }
    return e.offset;
}
