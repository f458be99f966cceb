/* block.h - a data block: entries in key order, searched without being decoded.
 *
 *   u32 count | u16 prefix_size | u8 offset_size (2 or 4) | u8 zero | prefix | u32 head[count] |
 * offset[count] | entries entry = varint suffix_size, varint value_size, u64 seq << 8 | type, suffix, value
 *
 * The prefix is common to all keys and stands once. head[i] is the first four bytes of entry i's suffix as a
 * big-endian number (zero padded), stored little-endian: a search compares small integers that lie side by
 * side in two or three cache lines, and touches one entry, or the few whose heads tie. Offsets count from the
 * block's first byte, entry i ends where i + 1 begins. A block of one entry has no prefix, so that a big key
 * is used in place.
 *
 * Reading trusts nothing: a matching checksum says that the bytes are those that were written, not that
 * whoever wrote them was sane. block_open checks that the arrays lie inside, block_at that the one entry
 * does. block_check, for verify, checks all of it.
 */
#ifndef TABLE_BLOCK_H
#define TABLE_BLOCK_H

#include "table/format.h"

#define BLOCK_HEADER 8u

/* ---- reading; struct table_block is in table.h, because an iterator carries one ---- */

struct block_entry {
    struct slice suffix, value;
    uint64_t seq;
    uint8_t type;
};

/* false: malformed. The bytes stay the caller's. */
bool block_open(struct table_block *b, const unsigned char *data, size_t size);
static inline uint32_t block_offset(const struct table_block *b, uint32_t i)
{
    return b->wide ? get_u32(b->offsets + (size_t)i * 4) : get_u16(b->offsets + (size_t)i * 2);
}
#define BLOCK_ENTRY_MIN 10u /* two sizes of a byte, and the sequence number */
/* Entry i < count. false: malformed. */
BASE_INLINE bool block_at(const struct table_block *b, uint32_t i, struct block_entry *e)
{
    uint32_t at = block_offset(b, i);
    uint32_t until = i + 1 < b->count ? block_offset(b, i + 1) : b->size;
    if (BASE_UNLIKELY(at < b->entries || until > b->size || (uint64_t)at + BLOCK_ENTRY_MIN > until)) {
        return false;
    }
    const unsigned char *p = b->data + at, *end = b->data + until;
    uint32_t sizes = get_u16(p), suffix = sizes & 0xff, value = sizes >> 8;
    if (BASE_LIKELY((sizes & 0x8080) == 0)) { /* both of one byte */
        p += 2;
    } else {
        p = varint_get32(p, end, &suffix);
        p = p != NULL ? varint_get32(p, end, &value) : NULL;
        if (BASE_UNLIKELY(p == NULL)) {
            return false;
        }
    }
    if (BASE_UNLIKELY((uint64_t)suffix + value + 8 != (uint64_t)(end - p))) {
        return false;
    }
    uint64_t packed = get_u64(p);
    e->seq = packed >> 8;
    e->type = (uint8_t)packed;
    e->suffix = slice_make(p + 8, suffix);
    e->value = slice_make(p + 8 + suffix, value);
    return e->type == TABLE_PUT || (e->type == TABLE_DELETE && value == 0);
}
/* *at: the first entry whose key is >= key, or count. *equal: it is the key itself. false: malformed. */
bool block_search(const struct table_block *b, struct slice key, uint32_t *at, bool *equal);
/* The entry of that key: SHALE_OK, SHALE_NOTFOUND, or SHALE_CORRUPT (no text): malformed. */
int block_get(const struct table_block *b, struct slice key, struct block_entry *e);
/* A block of so many bytes is about to be searched: asks for header, heads and offsets, of a usual one. */
static inline void block_prefetch(const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < 4 * BASE_CACHELINE && i < size; i += BASE_CACHELINE) {
        BASE_PREFETCH(data + i);
    }
}
/* Whole structure: no gaps, heads right, keys strictly ascending, prefix as long as it can be. false:
 * malformed. */
bool block_check(const struct table_block *b);

static inline struct slice block_prefix(const struct table_block *b)
{
    return slice_make(b->data + BLOCK_HEADER, b->prefix_size);
}
static inline uint32_t block_head(struct slice suffix)
{
    return (uint32_t)(key_head(suffix) >> 32);
}

/* ---- building ---- */

struct block_item {
    uint32_t key, key_size; /* in bytes: where the key begins, its value right behind it */
    uint32_t value_size;
    uint64_t packed; /* seq << 8 | type */
};
struct block_builder {
    struct buf bytes; /* keys and values of the block that is being filled, in order */
    struct buf items; /* struct block_item */
    uint32_t count;
    size_t size; /* of the entries, as if there were no prefix */
};
void block_builder_release(struct block_builder *b);
/* The bytes that an entry takes, array elements included. */
size_t block_entry_size(struct slice key, struct slice value);
int block_add(struct block_builder *b, struct slice key, uint64_t seq, uint8_t type, struct slice value);
/* The last key that was added; count > 0. */
struct slice block_last_key(const struct block_builder *b);
struct slice block_first_key(const struct block_builder *b);
/* Encodes into out (replaced; with room for a trailer behind it) and starts a new block. */
int block_finish(struct block_builder *b, struct buf *out);

#endif
