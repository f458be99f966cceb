/* index.h - which block holds a key: one flat block for the whole table, used in place in the mapping.
 *
 *   u32 count | u32 prefix_size | u32 separators_size | u32 zero
 *   u64 top[count / 64, rounded up]           the last head of each 64
 *   prefix                                    common to all separators; zeros up to a multiple of 8
 *   u64 head[count]                           first 8 bytes of the separator behind the prefix, big-endian
 *   {u64 offset, u32 stored, u32 raw}[count]  the data block: where, its bytes in the file, and unpacked
 *   u32 end[count]                            where the separator ends among the separators
 *   separators
 *
 * Separator i is at least the last key of block i and smaller than the first of block i + 1, and as short
 * as that allows; the last one is the table's last key. So the block for a key is the first whose separator
 * is not smaller. Heads decide nearly always; a separator is looked at only where heads tie. The search
 * goes through the tops, then through 64 heads that lie side by side: of a table that was just opened,
 * three or four pages are faulted in and verified, however large its index is.
 */
#ifndef TABLE_INDEX_H
#define TABLE_INDEX_H

#include "table/tail.h"

#define INDEX_HEADER 16u
#define INDEX_GROUP  64u

struct index_entry {
    uint64_t offset;
    uint32_t stored, raw;
};
_Static_assert(sizeof(struct index_entry) == 16, "doc/format says 16");

struct table_index {
    const struct table_tail *tail;
    uint32_t count, groups, prefix_size, separators_size;
    const unsigned char *tops, *prefix, *heads, *entries, *ends, *separators;
};

/* Of the index_size bytes at data, in the tail. The functions return SHALE_CORRUPT or SHALE_IO, with a
 * text, for what is malformed or cannot be read. */
int index_open(struct table_index *x, const struct table_tail *tail, const unsigned char *data,
               uint64_t size);
/* Entry i < count, its block inside the data. */
int index_at(const struct table_index *x, uint32_t i, struct index_entry *e);
/* The first block whose separator is >= key; count: the key lies behind all. */
int index_find(const struct table_index *x, struct slice key, uint32_t *block);
/* The same in two steps: the first one asks for the lines that the second one reads, so that they come from
 * memory while the caller looks at something else. The key's bytes stay until the second. */
struct index_search {
    struct slice suffix; /* the key behind the prefix */
    uint64_t head;       /* of the suffix */
    uint32_t group;      /* in which the search goes on; groups: behind all */
};
void index_find_begin(const struct table_index *x, struct slice key, struct index_search *s);
int index_find_end(const struct table_index *x, const struct index_search *s, uint32_t *block);

struct index_builder {
    struct buf entries, ends, separators;
    uint32_t count;
};
void index_builder_release(struct index_builder *b);
/* A block whose last key is `last`; next: the first key of the block behind it, NULL: there is none. */
int index_add(struct index_builder *b, struct index_entry e, struct slice last, const struct slice *next);
int index_finish(const struct index_builder *b, struct buf *out); /* appends */

#endif
