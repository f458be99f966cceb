/* dumpfile.h - the text format that mdb_dump, mdb_load, db_dump and db_load share.
 *
 *     VERSION=3
 *     format=bytevalue            or print
 *     type=btree
 *     HEADER=END
 *      6b6579                     a key: a space, then hexadecimal digits
 *      76616c7565                 its value
 *     DATA=END
 *
 * In the print format printable ASCII stands for itself, a backslash is \5c (or doubled), every other byte is
 * \HH. Other header lines describe the engine that wrote the file (mapsize, maxreaders, db_pagesize, ...) and
 * mean nothing here, except for those that say that the data isn't key and value pairs with one value a key.
 */
#ifndef TOOLS_DUMPFILE_H
#define TOOLS_DUMPFILE_H

#include "text.h"

#include <stdint.h>
#include <stdio.h>

struct dump_reader {
    FILE *file;     /* set by the caller */
    uint64_t line;  /* number of the line that was read last */
    uint64_t bytes; /* read so far */
    bool print, duplicates;
    struct text buffer, previous; /* the line; with duplicates, the key before */
    char error[160];              /* why DUMP_BAD; DUMP_IO leaves errno */
};
enum { DUMP_BAD = -2, DUMP_IO = -1, DUMP_END = 0, DUMP_MORE = 1 };

int dump_read_header(struct dump_reader *r); /* DUMP_MORE, DUMP_BAD, DUMP_IO */
int dump_read_pair(struct dump_reader *r, struct text *key, struct text *val); /* and DUMP_END */
void dump_reader_release(struct dump_reader *r);

/* mapsize: what mdb_load needs to know before it can hold much; 0: no such line (db_load refuses it). */
void dump_write_header(FILE *f, bool print, uint64_t mapsize);
void dump_write_item(FILE *f, bool print, const void *data, size_t size, struct text *scratch);
void dump_write_end(FILE *f);

#endif
