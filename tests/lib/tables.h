/* tables.h - what the tests and the fuzzer of tables share: entries made from a seed, a table built from
 * them, and a forger that makes every checksum of a damaged table right again. */
#ifndef TESTS_LIB_TABLES_H
#define TESTS_LIB_TABLES_H

#include "table/table.h"

struct table_row {
    struct slice key, value; /* from malloc */
    uint64_t seq;
    uint8_t type;
};
struct table_rows { /* in key order, keys distinct */
    struct table_row *row;
    size_t count;
};

enum table_style {
    TABLE_STYLE_MIXED,  /* short and long keys over few letters, the empty key, empty values, deletes */
    TABLE_STYLE_PREFIX, /* a long prefix common to all, another common to many */
    TABLE_STYLE_BINARY, /* random 16-byte keys with all byte values, values of up to 2 KiB */
    TABLE_STYLES
};
void table_rows_make(struct table_rows *rows, enum table_style style, size_t count, uint64_t seed);
void table_rows_release(struct table_rows *rows);
/* The first row whose key is >= key, or count. */
size_t table_rows_find(const struct table_rows *rows, struct slice key);

int table_rows_build(const struct table_rows *rows, int dirfd, uint64_t number,
                     const struct table_options *options, struct table_info *info);

/* Makes the file's footer whole (magic, format, number, size, checksum) and seals again whatever sections and
 * blocks it then leads to. bytes must have been made by malloc, or be any memory that may be written. */
void table_forge(unsigned char *bytes, size_t size, uint64_t number);
/* Gets, walks both ways, seeks and verifies, with the keys that the table shows and a few more; results do
 * not matter, only that nothing bad happens. Returns what verify said. */
int table_exercise(struct table *t, uint64_t seed);

#endif
