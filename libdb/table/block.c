/* block.c - data blocks: see block.h. */
#include "table/block.h"

static inline uint32_t head_at(const struct table_block *b, uint32_t i)
{
    return get_u32(b->heads + (size_t)i * 4);
}

bool block_open(struct table_block *b, const unsigned char *data, size_t size)
{
    if (size < BLOCK_HEADER || size > UINT32_MAX) {
        return false;
    }
    uint32_t count = get_u32(data), prefix = get_u16(data + 4);
    unsigned width = data[6];
    if (count == 0 || (width != 2 && width != 4) || data[7] != 0) {
        return false;
    }
    uint64_t entries = BLOCK_HEADER + (uint64_t)prefix + (uint64_t)count * (4 + width);
    if (entries > size) {
        return false;
    }
    b->data = data;
    b->size = (uint32_t)size;
    b->count = count;
    b->prefix_size = prefix;
    b->wide = width == 4;
    b->entries = (uint32_t)entries;
    b->heads = data + BLOCK_HEADER + prefix;
    b->offsets = b->heads + (size_t)count * 4;
    return true;
}

/* The first of [0, n) whose head is >= h. Without branches: which way a search turns cannot be predicted. */
static inline uint32_t heads_from(const struct table_block *b, uint32_t n, uint32_t h)
{
    uint32_t base = 0;
    while (n > 1) {
        uint32_t half = n / 2;
        base += (uint32_t)(head_at(b, base + half - 1) < h) * half;
        n -= half;
    }
    return base + (uint32_t)(head_at(b, base) < h);
}

/* Among entries whose heads equal the suffix's: [lo, hi) narrows until it is empty. *e: the entry, when
 * equal. */
static bool search_ties(const struct table_block *b, struct slice suffix, uint32_t lo, uint32_t hi,
                        uint32_t *at, bool *equal, struct block_entry *e)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (!block_at(b, mid, e)) {
            return false;
        }
        int c = slice_compare(e->suffix, suffix);
        if (c == 0) {
            *at = mid;
            *equal = true;
            return true;
        }
        lo = c < 0 ? mid + 1 : lo;
        hi = c < 0 ? hi : mid;
    }
    *at = lo;
    *equal = false;
    return true;
}

/* The key behind the block's prefix, and the entries [*lo, *hi) whose heads are the same: what is before them
 * is smaller, what is behind them larger. */
static struct slice search_heads(const struct table_block *b, struct slice key, uint32_t *lo, uint32_t *hi)
{
    struct slice prefix = block_prefix(b);
    if (prefix.size != 0 && (key.size < prefix.size || memcmp(key.data, prefix.data, prefix.size) != 0)) {
        *lo = *hi = slice_compare(key, prefix) < 0 ? 0 : b->count;
        return slice_make(key.data, 0);
    }
    struct slice suffix = slice_make(key.data + prefix.size, key.size - prefix.size);
    uint32_t h = block_head(suffix);
    *lo = *hi = heads_from(b, b->count, h);
    if (*lo < b->count && head_at(b, *lo) == h) {
        *hi = *lo + 1;
        if (*hi < b->count && head_at(b, *hi) == h) {
            *hi = h == UINT32_MAX ? b->count : heads_from(b, b->count, h + 1);
        }
    }
    return suffix;
}

bool block_search(const struct table_block *b, struct slice key, uint32_t *at, bool *equal)
{
    struct block_entry e;
    uint32_t lo, hi;
    struct slice suffix = search_heads(b, key, &lo, &hi);
    return search_ties(b, suffix, lo, hi, at, equal, &e);
}

int block_get(const struct table_block *b, struct slice key, struct block_entry *e)
{
    uint32_t lo, hi;
    bool equal;
    struct slice suffix = search_heads(b, key, &lo, &hi);
    if (lo < hi) { /* its value may begin in the next line, and go on in the one behind that */
        const unsigned char *p = b->data + block_offset(b, lo + (hi - lo) / 2);
        BASE_PREFETCH(p + BASE_CACHELINE);
        BASE_PREFETCH(p + (size_t)2 * BASE_CACHELINE);
    }
    if (!search_ties(b, suffix, lo, hi, &lo, &equal, e)) {
        return SHALE_CORRUPT;
    }
    return equal ? SHALE_OK : SHALE_NOTFOUND;
}

bool block_check(const struct table_block *b)
{
    struct block_entry e, before = {.suffix = {NULL, 0}};
    struct slice first = {NULL, 0};
    if (block_offset(b, 0) != b->entries || b->wide != (b->size > UINT16_MAX)) {
        return false;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        /* block_at checks that entry i ends exactly where i + 1 begins: no gaps. */
        if (!block_at(b, i, &e) || head_at(b, i) != block_head(e.suffix) ||
            (i != 0 && slice_compare(before.suffix, e.suffix) >= 0)) {
            return false;
        }
        first = i == 0 ? e.suffix : first;
        before = e;
    }
    if (b->count == 1) {
        return b->prefix_size == 0;
    }
    return first.size == 0 || e.suffix.size == 0 || first.data[0] != e.suffix.data[0];
}

/* ---- building ---- */

void block_builder_release(struct block_builder *b)
{
    buf_release(&b->bytes);
    buf_release(&b->items);
}

size_t block_entry_size(struct slice key, struct slice value)
{
    return varint_size(key.size) + varint_size(value.size) + 8 + key.size + value.size + 4 + 2;
}

int block_add(struct block_builder *b, struct slice key, uint64_t seq, uint8_t type, struct slice value)
{
    struct block_item item = {.key = (uint32_t)b->bytes.size,
                              .key_size = (uint32_t)key.size,
                              .value_size = (uint32_t)value.size,
                              .packed = seq << 8 | type};
    int rc =
        buf_reserve(&b->bytes, key.size + value.size + 1); /* + 1: never a null pointer, also for nothing */
    if (rc == SHALE_OK) {
        rc = buf_append(&b->items, &item, sizeof item);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    (void)buf_append(&b->bytes, key.data, key.size);
    (void)buf_append(&b->bytes, value.data, value.size);
    b->count++;
    b->size += block_entry_size(key, value);
    return SHALE_OK;
}

static struct block_item item_at(const struct block_builder *b, uint32_t i)
{
    struct block_item item;
    memcpy(&item, b->items.data + (size_t)i * sizeof item, sizeof item);
    return item;
}

static struct slice item_key(const struct block_builder *b, uint32_t i)
{
    struct block_item item = item_at(b, i);
    return slice_make(b->bytes.data + item.key, item.key_size);
}

struct slice block_first_key(const struct block_builder *b)
{
    return item_key(b, 0);
}

struct slice block_last_key(const struct block_builder *b)
{
    return item_key(b, b->count - 1);
}

static uint32_t common_prefix(struct slice a, struct slice b)
{
    size_t n = a.size < b.size ? a.size : b.size, i = 0;
    while (i < n && a.data[i] == b.data[i]) {
        i++;
    }
    return (uint32_t)i;
}

/* Lays the entries out behind the arrays, and fills the arrays. Returns the block's end. */
static unsigned char *encode(const struct block_builder *b, unsigned char *data, uint32_t prefix,
                             unsigned width)
{
    unsigned char *heads = data + BLOCK_HEADER + prefix;
    unsigned char *offsets = heads + (size_t)b->count * 4;
    unsigned char *p = offsets + (size_t)b->count * width;
    for (uint32_t i = 0; i < b->count; i++) {
        struct block_item item = item_at(b, i);
        const unsigned char *from = b->bytes.data + item.key + prefix;
        uint32_t suffix = item.key_size - prefix, at = (uint32_t)(p - data);
        put_u32(heads + (size_t)i * 4, block_head(slice_make(from, suffix)));
        if (width == 2) {
            put_u16(offsets + (size_t)i * 2, (uint16_t)at);
        } else {
            put_u32(offsets + (size_t)i * 4, at);
        }
        p = varint_put(varint_put(p, suffix), item.value_size);
        put_u64(p, item.packed);
        memcpy(p + 8, from, (size_t)suffix + item.value_size);
        p += 8 + (size_t)suffix + item.value_size;
    }
    return p;
}

/* The size to the byte, as it would be with narrow offsets. */
static uint64_t encoded_size(const struct block_builder *b, uint32_t prefix)
{
    uint64_t size = BLOCK_HEADER + prefix + (uint64_t)b->count * (4 + 2 + 8);
    for (uint32_t i = 0; i < b->count; i++) {
        struct block_item item = item_at(b, i);
        uint32_t suffix = item.key_size - prefix;
        size += varint_size(suffix) + varint_size(item.value_size) + suffix + item.value_size;
    }
    return size;
}

int block_finish(struct block_builder *b, struct buf *out)
{
    uint32_t prefix = b->count > 1 ? common_prefix(block_first_key(b), block_last_key(b)) : 0;
    uint64_t size = encoded_size(b, prefix);
    unsigned width = 2;
    if (size > UINT16_MAX) {
        width = 4;
        size += (uint64_t)b->count * 2;
    }
    out->size = 0;
    int rc = buf_reserve(out, size + sizeof(struct table_trailer));
    if (rc != SHALE_OK) {
        return rc;
    }
    put_u32(out->data, b->count);
    put_u16(out->data + 4, (uint16_t)prefix);
    out->data[6] = (unsigned char)width;
    out->data[7] = 0;
    memcpy(out->data + BLOCK_HEADER, block_first_key(b).data, prefix);
    out->size = (size_t)(encode(b, out->data, prefix, width) - out->data);
    b->bytes.size = b->items.size = b->size = 0;
    b->count = 0;
    return SHALE_OK;
}
