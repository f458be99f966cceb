/* segment.h - what the files of this folder share: names and headers of segments. */
#ifndef WAL_SEGMENT_H
#define WAL_SEGMENT_H

#include "wal/wal.h"

#include <stddef.h>

_Static_assert(offsetof(struct wal_header, number) == 12, "doc/format");
_Static_assert(offsetof(struct wal_header, salt) == 16, "doc/format");
_Static_assert(offsetof(struct wal_header, size) == 24, "doc/format");
_Static_assert(offsetof(struct wal_header, uuid) == 32, "doc/format");
_Static_assert(offsetof(struct wal_header, incompat) == 48, "doc/format");
_Static_assert(offsetof(struct wal_header, checksum) == 56, "doc/format");
_Static_assert(offsetof(struct wal_record, length) == 8, "doc/format");
_Static_assert(offsetof(struct wal_record, count) == 12, "doc/format");
_Static_assert(offsetof(struct wal_record, first_seq) == 16, "doc/format");

#define WAL_PAGE 4096u

/* Offsets are 32 bits and the mapping is made of whole pages. */
static inline bool wal_size_valid(uint64_t size)
{
    return size >= 2 * WAL_PAGE && size <= WAL_MAX_SIZE && size % WAL_PAGE == 0;
}

/* A fresh random name. */
void wal_tmp_name(uint32_t number, const char *kind, char name[WAL_TMP_NAME_SIZE]);
uint64_t wal_header_checksum(const struct wal_header *h);
/* Reads and checks the header of an open file; its number is the caller's to compare. st: what os_open_stat
 * said of it, since a segment has its size before it has its name, and keeps it. */
int wal_read_header(int fd, const struct stat *st, const unsigned char *uuid, const char *name,
                    struct wal_header *out);

#endif
