/* format.h - the bytes of a table file that are not inside a block. doc/format-table.md describes all of
 * them.
 *
 *   0                                                                                      file_size
 *   | block | trailer | .. | 0 | filter | 0 | index | sums | trailer | properties | trailer | footer |
 *                          |<-- pages with sums ->|
 *                            ^ zeros up to a multiple of 64
 *
 * The footer holds only sizes: where a section begins follows from them, so sections can neither overlap
 * nor leave a gap, and every byte of the file is under a checksum. Filter and index have one for each page
 * of the file (tail.h); those stand in the section sums.
 *
 * A trailer's checksum covers the stored bytes and the trailer up to the checksum, and is seeded with table
 * number and offset: a block of another table, or one read from another place, does not verify. The
 * footer's covers the footer, which carries number and file size itself, so that a renamed file can be told
 * from a damaged one.
 */
#ifndef TABLE_FORMAT_H
#define TABLE_FORMAT_H

#include "table/table.h"

/* "shletbl1", little-endian */
#define TABLE_MAGIC    UINT64_C(0x316c6274656c6873)
#define TABLE_FORMAT   1u
#define TABLE_INCOMPAT UINT64_C(0) /* the incompatible features that this library knows */
#define TABLE_PAGE     4096u       /* of the file, not of the machine: what one sum covers */
#define TABLE_ALIGN    64u         /* of filter and index: a filter line is a cache line */

#define TABLE_MAX_KEY   65535u
#define TABLE_MAX_VALUE (256u << 20)
#define TABLE_MAX_SEQ   ((UINT64_C(1) << 56) - 1)

enum table_kind { TABLE_DATA = 1, TABLE_SUMS, TABLE_PROPERTIES };
enum table_packing { TABLE_RAW = 0, TABLE_LZ4 };

struct table_trailer {
    uint32_t raw_size; /* of the block's bytes once unpacked */
    uint8_t kind;      /* enum table_kind */
    uint8_t packing;   /* enum table_packing */
    uint16_t zero;
    uint64_t checksum;
};
_Static_assert(sizeof(struct table_trailer) == 16, "doc/format says 16");

struct table_footer {
    uint64_t magic;
    uint32_t format;
    uint32_t filter_probes; /* 0 without a filter */
    uint64_t number;
    uint64_t file_size;
    uint64_t compat, readonly_compat; /* feature flags that a reader may ignore */
    uint64_t incompat;                /* an unknown one is SHALE_MISMATCH */
    uint64_t data_size;               /* of all data blocks with their trailers */
    uint64_t filter_size;             /* 0: no filter */
    uint64_t index_size;
    uint64_t properties_size; /* without its trailer */
    uint64_t zero[3];
    uint64_t checksum; /* of the 112 bytes before */
};
_Static_assert(sizeof(struct table_footer) == 120, "doc/format says 120");

/* The fixed part of the properties block; the smallest key, the largest key and the creator's name follow. */
struct table_fixed_properties {
    uint64_t entries, deletes;
    uint64_t min_seq, max_seq;
    uint64_t raw_bytes;   /* keys and values */
    uint64_t block_bytes; /* the option that it was built with */
    uint32_t bloom_bits;  /* likewise */
    uint32_t smallest_size, largest_size, creator_size;
};
_Static_assert(sizeof(struct table_fixed_properties) == 64, "doc/format says 64");

/* Where the sections begin, from the footer's sizes. false: they do not make up the file. */
struct table_layout {
    uint64_t filter, index, sums, properties, footer;
    uint64_t pages; /* from data_size to sums */
};
bool table_layout(const struct table_footer *f, uint64_t file_size, struct table_layout *at);

/* Writes the trailer behind the `size` stored bytes at p, which will stand at `offset` of table `number`. */
void table_seal(unsigned char *p, uint64_t size, uint64_t raw_size, enum table_kind kind,
                enum table_packing packing, uint64_t number, uint64_t offset);
/* Does the trailer behind p match? SHALE_CORRUPT, with a text that does not name the place yet. */
int table_unseal(const unsigned char *p, uint64_t size, uint64_t raw_size, enum table_kind kind,
                 enum table_packing packing, uint64_t number, uint64_t offset);
uint64_t table_footer_checksum(const struct table_footer *f);

#endif
