/* iter.c - iterators: a block, and an entry in it.
 *
 * Faulting in. An iterator that enters block after block faults in more and more ahead, or behind when it
 * goes backwards: nothing beyond the block for the first two, then 16 KiB, doubling up to 256 KiB. A short
 * scan thus reads what it needs, and a long one makes few system calls. Blocks that this process has used
 * before cost nothing.
 *
 * From entry to entry the offsets tell where those ahead stand: each step asks for the lines of a later one,
 * since the processor's own prefetching ends with the page.
 */
#include "table/read.h"

#define RUN_QUIET     2u /* blocks before anything is faulted in ahead */
#define RUN_FIRST     (16u << 10)
#define RUN_DOUBLINGS 4u /* 16 KiB to 256 KiB */
#define STEP_AHEAD    8u /* entries between the one that is shown and the one that is asked for */
#define COPY_AT_ONCE  16u

void table_iter_init(struct table_iter *it, struct table *t, struct table_counters *counters)
{
    memset(it, 0, sizeof *it);
    it->table = table_ref(t);
    it->counters = counters;
    it->stretch.fd = -1;
}

void table_iter_release(struct table_iter *it)
{
    if (it->table == NULL) {
        return;
    }
    table_pin_release(&it->pin);
    stretch_release(&it->stretch);
    buf_release(&it->key_buf);
    table_unref(it->table);
    memset(it, 0, sizeof *it);
    it->stretch.fd = -1;
}

/* ---- blocks ---- */

/* Moving on in the direction of the last step makes the run longer, anything else ends it. */
static struct table_load plan(struct table_iter *it, uint32_t i, const struct index_entry *e)
{
    struct table_load load = {it->counters, e->offset, e->offset, it->fill_cache};
    bool forward = it->loaded && i == it->block + 1, backward = it->loaded && i + 1 == it->block;
    it->run = forward || backward ? it->run + 1 : 0;
    if (it->run < RUN_QUIET) {
        return load;
    }
    uint32_t doublings = it->run - RUN_QUIET < RUN_DOUBLINGS ? it->run - RUN_QUIET : RUN_DOUBLINGS;
    uint64_t ahead = (uint64_t)RUN_FIRST << doublings, end = it->table->footer.data_size;
    if (e->offset >= it->faulted_from && e->offset + e->stored < it->faulted_to) {
        return load;
    }
    if (forward) {
        load.to = ahead < end - e->offset ? e->offset + ahead : end;
    } else {
        load.from = e->offset > ahead ? e->offset - ahead : 0;
        load.to = e->offset + e->stored;
    }
    it->faulted_from = load.from;
    it->faulted_to = load.to;
    return load;
}

static int load(struct table_iter *it, uint32_t i)
{
    struct index_entry e;
    if (it->loaded && it->block == i) {
        return SHALE_OK;
    }
    int rc = index_at(&it->table->index, i, &e);
    if (rc != SHALE_OK) {
        it->loaded = false;
        it->block = i; /* where table_iter_skip goes on from */
        return rc;
    }
    struct table_load how = plan(it, i, &e);
    if (it->table->map != NULL && !it->sequential && table_packing_of(&e) == TABLE_RAW) {
        block_prefetch(it->table->map + e.offset, e.raw);
    }
    it->loaded = false;
    table_pin_release(&it->pin);
    rc = it->sequential ? stretch_load_block(it->table, &it->stretch, &e, &it->parts, &it->pin)
                        : table_load_block(it->table, i, &e, &how, &it->parts, &it->pin);
    if (rc == SHALE_OK) {
        rc = buf_set(&it->key_buf, block_prefix(&it->parts).data, it->parts.prefix_size);
    }
    it->loaded = rc == SHALE_OK;
    it->block = i;
    return rc;
}

static int malformed(const struct table_iter *it)
{
    struct index_entry where;
    int rc = index_at(&it->table->index, it->block, &where);
    return rc == SHALE_OK ? table_damaged(it->table, where.offset, "malformed") : rc;
}

/* it->key: the block's prefix, which key_buf begins with, and the suffix. Copying a few bytes more than there
 * are is quicker than counting them. */
BASE_INLINE int join_key(struct table_iter *it, struct slice suffix)
{
    struct buf *b = &it->key_buf;
    size_t room = suffix.size < COPY_AT_ONCE ? COPY_AT_ONCE : suffix.size;
    if (BASE_UNLIKELY(b->cap - b->size < room)) {
        int rc = buf_reserve(b, room);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    unsigned char *to = b->data + b->size;
    if (BASE_LIKELY(suffix.size <= COPY_AT_ONCE &&
                    it->parts.data + it->parts.size - suffix.data >= (ptrdiff_t)COPY_AT_ONCE)) {
        memcpy(to, suffix.data, COPY_AT_ONCE);
    } else {
        memcpy(to, suffix.data, suffix.size);
    }
    it->key = slice_make(b->data, b->size + suffix.size);
    return SHALE_OK;
}

/* Makes entry `at` of the loaded block the current one. */
BASE_INLINE int show(struct table_iter *it, uint32_t at)
{
    struct block_entry e;
    if (BASE_UNLIKELY(!block_at(&it->parts, at, &e))) {
        return malformed(it);
    }
    it->key = e.suffix;
    if (it->key_buf.size != 0) {
        int rc = join_key(it, e.suffix);
        if (BASE_UNLIKELY(rc != SHALE_OK)) {
            return rc;
        }
    }
    it->value = e.value;
    it->seq = e.seq;
    it->type = e.type;
    it->entry = at;
    it->valid = true;
    return SHALE_OK;
}

/* Asks for entry `at`; behind the last one, for the next block. */
BASE_INLINE void ask_for(const struct table_block *b, uint32_t at)
{
    uintptr_t offset =
        at < b->count ? block_offset(b, at) : b->size + (uintptr_t)(at - b->count) * BASE_CACHELINE;
    uintptr_t p = (uintptr_t)b->data + offset;
    BASE_PREFETCH((const void *)p);
    BASE_PREFETCH((const void *)(p + BASE_CACHELINE));
}

BASE_INLINE void ask_behind(const struct table_block *b, uint32_t at)
{
    const unsigned char *p = at >= STEP_AHEAD ? b->data + block_offset(b, at - STEP_AHEAD)
                                              : b->data - (size_t)(STEP_AHEAD - at) * 2 * BASE_CACHELINE;
    BASE_PREFETCH(p);
    BASE_PREFETCH(p + BASE_CACHELINE);
}

static int show_first(struct table_iter *it, uint32_t block)
{
    if (block >= it->table->index.count) {
        return SHALE_NOTFOUND;
    }
    int rc = load(it, block);
    return rc == SHALE_OK ? show(it, 0) : rc;
}

static int show_last(struct table_iter *it, uint32_t block)
{
    int rc = load(it, block);
    return rc == SHALE_OK ? show(it, it->parts.count - 1) : rc;
}

/* ---- moves ---- */

int table_iter_first(struct table_iter *it)
{
    it->valid = false;
    return show_first(it, 0);
}

int table_iter_last(struct table_iter *it)
{
    it->valid = false;
    return show_last(it, it->table->index.count - 1);
}

/* Loads the block that holds the first entry >= key, *at in it; *at may be count: then it is the next
 * block's first. */
static int locate(struct table_iter *it, struct slice key, uint32_t *block, uint32_t *at, bool *equal)
{
    key.data = key.data != NULL ? key.data : (const unsigned char *)"";
    it->valid = false;
    int rc = index_find(&it->table->index, key, block);
    if (rc != SHALE_OK || *block == it->table->index.count) {
        return rc != SHALE_OK ? rc : SHALE_NOTFOUND;
    }
    rc = load(it, *block);
    return rc == SHALE_OK && !block_search(&it->parts, key, at, equal) ? malformed(it) : rc;
}

int table_iter_seek(struct table_iter *it, struct slice key)
{
    uint32_t block, at;
    bool equal;
    int rc = locate(it, key, &block, &at, &equal);
    if (rc != SHALE_OK) {
        return rc;
    }
    for (uint32_t i = 0; i < STEP_AHEAD; i++) { /* next comes next */
        ask_for(&it->parts, at + i);
    }
    return at < it->parts.count ? show(it, at) : show_first(it, block + 1);
}

int table_iter_seek_for_prev(struct table_iter *it, struct slice key)
{
    uint32_t block, at;
    bool equal;
    int rc = locate(it, key, &block, &at, &equal);
    if (rc == SHALE_NOTFOUND) { /* behind the last key */
        return table_iter_last(it);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    if (equal || at > 0) {
        return show(it, equal ? at : at - 1);
    }
    return block > 0 ? show_last(it, block - 1) : SHALE_NOTFOUND;
}

int table_iter_next(struct table_iter *it)
{
    if (BASE_UNLIKELY(!it->valid)) {
        return SHALE_NOTFOUND;
    }
    it->valid = false;
    uint32_t at = it->entry + 1;
    ask_for(&it->parts, at + STEP_AHEAD);
    return BASE_LIKELY(at < it->parts.count) ? show(it, at) : show_first(it, it->block + 1);
}

int table_iter_skip(struct table_iter *it)
{
    it->valid = false;
    return show_first(it, it->block + 1);
}

int table_iter_prev(struct table_iter *it)
{
    if (BASE_UNLIKELY(!it->valid)) {
        return SHALE_NOTFOUND;
    }
    it->valid = false;
    ask_behind(&it->parts, it->entry);
    if (BASE_LIKELY(it->entry > 0)) {
        return show(it, it->entry - 1);
    }
    return it->block > 0 ? show_last(it, it->block - 1) : SHALE_NOTFOUND;
}
