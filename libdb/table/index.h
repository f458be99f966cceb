/* index.h - which block holds a key: one flat block for the whole table, used in place in the mapping.
 *
 *   u32 count | u32 prefix_size | u32 separators_size | u32 zero
 *   u64 head[count]                          first 8 bytes of the separator behind the prefix, as a
 * big-endian number {u64 offset, u32 stored, u32 raw}[count] the data block: where, its bytes in the file and
 * unpacked; equal: raw u32 end[count]                           where the separator ends among the separators
 *   prefix | separators
 *
 * Separator i is at least the last key of block i and smaller than the first of block i + 1, and as short as
 * that allows; the last one is the table's last key. So the block for a key is the first whose separator is
 * not smaller. Heads decide nearly always, and lie in one array: a search over 16,000 blocks stays inside the
 * second-level cache. A separator is looked at only where heads tie.
 */
#ifndef TABLE_INDEX_H
#define TABLE_INDEX_H

#include "table/format.h"

#define INDEX_HEADER 16u

struct index_entry {
    uint64_t offset;
    uint32_t stored, raw;
};
_Static_assert(sizeof(struct index_entry) == 16, "doc/format says 16");

struct table_index {
    uint32_t count, prefix_size, separators_size;
    const unsigned char *heads, *entries, *ends, *prefix, *separators;
    uint64_t data_size; /* of the data blocks: no entry may point beyond */
};

/* false: malformed. The bytes stay the caller's. */
bool index_open(struct table_index *x, const unsigned char *data, uint64_t size, uint64_t data_size);
/* Entry i < count, its block inside the data. false: malformed. */
bool index_at(const struct table_index *x, uint32_t i, struct index_entry *e);
/* The first block whose separator is >= key; count: the key lies behind all. false: malformed. */
bool index_find(const struct table_index *x, struct slice key, uint32_t *block);
/* Separator i without the prefix. false: malformed. */
bool index_separator(const struct table_index *x, uint32_t i, struct slice *suffix);

struct index_builder {
    struct buf entries, ends, separators;
    uint32_t count;
};
void index_builder_release(struct index_builder *b);
/* A block whose last key is `last`; next: the first key of the block behind it, NULL: there is none. */
int index_add(struct index_builder *b, struct index_entry e, struct slice last, const struct slice *next);
int index_finish(struct index_builder *b, struct buf *out); /* out is replaced, with room for a trailer */

#endif
