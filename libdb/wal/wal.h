/* wal.h - the write-ahead log: segments and records.
 *
 * A segment is one file, 000012.wal, space allocated ahead and mapped by every process; it belongs to the
 * memtable of the same number. Log sequence number (LSN) = segment number << 32 | offset. Records follow each
 * other from WAL_FIRST on, each at a multiple of 8. A record is one commit:
 *
 *   { u64 checksum, u32 length, u32 count, u64 first_seq } { entry } x count, zero padded to 8
 *   entry = u8 type, varint32 keylen, [put: varint32 vallen,] key, [put: value]
 *
 * The checksum covers everything behind itself to the first byte past the payload (length = payload bytes
 * without padding), seeded with the segment's salt and the record's LSN: an older record that a recycled
 * segment still carries never verifies, nor does one at another place. It is XXH3 of the payload, seeded with
 * XXH3 of the 16 bytes between checksum and payload, so that header and payload may lie apart. Entry i of the
 * record has sequence number first_seq + i.
 *
 * A segment is mapped only under a shared lock on byte 0 of its own file, kept as long as the mapping; who
 * wants to recycle it must get that byte exclusively [I-11].
 *
 * Who calls: db/ (append under WRITE; replay under OPEN; sync anywhere), mem/ (reads keys and values).
 */
#ifndef WAL_WAL_H
#define WAL_WAL_H

#include "os/os.h"

#define WAL_MAGIC       UINT64_C(0x316c6177656c6873) /* "shlewal1", little-endian */
#define WAL_FORMAT      1
#define WAL_FIRST       4096u /* offset of the first record */
#define WAL_MIN_SIZE    (256u << 10)
#define WAL_MAX_SIZE    UINT64_C(0xfffff000)
#define WAL_MAX_ENTRIES (16u << 20)

struct wal_header {
    uint64_t magic;
    uint32_t format;
    uint32_t number;
    uint64_t salt;
    uint64_t size;          /* of the file, a multiple of 4096 */
    unsigned char uuid[16]; /* of the database */
    uint64_t incompat;      /* feature flags; an unknown one is SHALE_MISMATCH */
    uint64_t checksum;      /* of the 56 bytes before */
};
_Static_assert(sizeof(struct wal_header) == 64, "doc/format says 64");

struct wal_record {
    uint64_t checksum;
    uint32_t length; /* of the payload */
    uint32_t count;
    uint64_t first_seq; /* 56 bits; the upper 8: see wal_note_durable */
};
_Static_assert(sizeof(struct wal_record) == 24, "doc/format says 24");

enum { WAL_PUT = 1, WAL_DELETE = 2 };

/* An open segment. Reference counted: views, the handle and iterators share it. */
struct wal_segment {
    _Atomic uint32_t refs;
    uint32_t number;
    uint64_t salt;
    uint64_t size;
    unsigned born; /* os_fork_generation() when it was mapped: a forked child has no mapping to take down */
    unsigned char *map; /* the whole file */
    bool writable;
    int fd; /* open for the segment's life where writable (pwrite, fdatasync), and it carries the shared lock;
               -1 when private */
    dev_t dev;
    ino_t ino;
};

static inline uint64_t wal_lsn(uint32_t number, uint32_t offset)
{
    return (uint64_t)number << 32 | offset;
}
static inline uint32_t wal_lsn_number(uint64_t lsn)
{
    return (uint32_t)(lsn >> 32);
}
static inline uint32_t wal_lsn_offset(uint64_t lsn)
{
    return (uint32_t)lsn;
}
/* Room that a record with this payload takes, header and padding included. */
static inline uint64_t wal_record_size(uint64_t payload)
{
    return align_up(sizeof(struct wal_record) + payload, 8);
}

#define WAL_NAME_SIZE 24
void wal_name(uint32_t number, char name[WAL_NAME_SIZE]); /* "000012.wal" */
bool wal_parse_name(const char *name, uint32_t *number);  /* exact form only */

/* Names of files in the making, "000012.wal.tmp-0123456789abcdef" (random), of segments and of whatever else
 * goes with a segment (kind: "wal", "mem"). Whoever makes one holds its byte 1; one whose byte can be had is
 * an orphan. wal_sweep_tmp removes an orphan; SHALE_BUSY (no text): its maker lives. */
#define WAL_MAKING_BYTE   1
#define WAL_TMP_NAME_SIZE 48
bool wal_parse_tmp_name(const char *name, const char *kind, uint32_t *number);
bool wal_parse_kind(const char *name, const char *kind, uint32_t *number); /* "000012.KIND" */
/* Creates one, exclusively, and locks its byte 1. */
int wal_create_tmp(int dirfd, uint32_t number, const char *kind, unsigned mode, char name[WAL_TMP_NAME_SIZE],
                   int *fd);
int wal_sweep_tmp(int dirfd, const char *name);

/* Makes segment `number` ready under its name, durable on return: temporary name (000012.wal.tmp-HEX), space
 * allocated, header written and synced, renamed with NOREPLACE, directory synced. recycle: number of an old
 * segment to reuse when it is at least `size` long and not more than twice that, and its lock can be had
 * exclusively (then it is renamed away first, its salt is fresh), 0: none. An old one that cannot be reused
 * is left alone. SHALE_EXISTS (no text): somebody else made it. */
int wal_make(int dirfd, const unsigned char uuid[16], uint32_t number, uint64_t size, unsigned mode,
             uint32_t recycle);

/* Opens and maps. Takes the shared lock on the file's byte 0, then checks the header and that it carries
 * `number`: SHALE_NOTFOUND (no text): no such file, it is being recycled, or it carries another number.
 * SHALE_CORRUPT / SHALE_MISMATCH: the header is garbled / of another database or format. uuid NULL: not
 * compared. */
int wal_open(int dirfd, const unsigned char uuid[16], uint32_t number, bool writable,
             struct wal_segment **seg);
/* For repair: one whose header or size is damaged, read-only. Number and size are the file's, the salt is
 * taken as it stands: if it is right, records verify. SHALE_NOTFOUND (no text): no such file, or locked. */
int wal_open_damaged(int dirfd, uint32_t number, struct wal_segment **seg);
struct wal_segment *wal_ref(struct wal_segment *seg);
void wal_unref(struct wal_segment *seg); /* the last one unmaps and closes; NULL is fine */

/* Fills in a record header for the payload that is to stand at lsn. */
void wal_seal(const struct wal_segment *seg, uint32_t offset, uint32_t count, uint64_t first_seq,
              const void *payload, uint32_t length, struct wal_record *out);
/* first_seq, for wal_seal, with the note that everything in the log before `durable`, an LSN, is so when the
 * record at `lsn` is written; no note where that is in an earlier segment. Rounded down: kept is a power of
 * two, how far back. Replay tells rot by it: where nothing verifies before that place, no append was torn. */
uint64_t wal_note_durable(uint64_t first_seq, uint64_t lsn, uint64_t durable);
/* Puts header, payload and padding at offset; the caller made sure of the room and holds WRITE. through_file:
 * pwrite instead of stores through the mapping. On failure nothing is published; the caller wipes. */
int wal_append(struct wal_segment *seg, uint32_t offset, const struct wal_record *header, const void *payload,
               bool through_file);
/* Makes whatever stands at offset no record: zeroes 24 bytes, through the file. */
int wal_wipe(struct wal_segment *seg, uint32_t offset);
/* Rewrites [from, to) with pwrite of the same bytes: dirty again, so that the next fdatasync really writes
 * them. */
int wal_rewrite(struct wal_segment *seg, uint32_t from, uint32_t to);
int wal_sync(struct wal_segment *seg);

/* A verified record in the mapping. */
struct wal_view {
    uint32_t offset, end; /* end: where the next one would stand */
    uint32_t count;
    uint32_t durable; /* where what was durable when it was written ended, in this segment; 0: not known */
    uint64_t first_seq;
    struct slice payload;
};
/* SHALE_NOTFOUND (no text): no complete, verified record stands at offset (or no room for one). */
int wal_read(const struct wal_segment *seg, uint32_t offset, struct wal_view *rec);
/* The first record at or behind `from` that says what was durable and has a sequence number in (seq, most].
 * SHALE_NOTFOUND (no text). */
int wal_find(const struct wal_segment *seg, uint32_t from, uint64_t seq, uint64_t most, struct wal_view *rec);

struct wal_entry {
    uint8_t type;            /* WAL_PUT, WAL_DELETE */
    uint32_t offset;         /* in the payload, of the entry */
    struct slice key, value; /* a delete's value is empty */
};
/* Walks the entries of a payload; *pos starts at 0. SHALE_NOTFOUND at the end; SHALE_CORRUPT on malformed
 * bytes. */
int wal_next_entry(struct slice payload, uint32_t *pos, struct wal_entry *entry);
/* Decodes the entry at p (its first byte), which a checksum or the index vouches for; end bounds it. false:
 * malformed. */
static inline bool wal_decode_entry(const unsigned char *p, const unsigned char *end, struct wal_entry *e);
/* Appends one entry to a payload buffer. */
int wal_add_entry(struct buf *payload, uint8_t type, struct slice key, struct slice value);

static inline bool wal_decode_entry(const unsigned char *p, const unsigned char *end, struct wal_entry *e)
{
    uint32_t keylen, vallen = 0;
    if (p >= end) {
        return false;
    }
    e->type = *p++;
    p = varint_get32(p, end, &keylen);
    if (p != NULL && e->type == WAL_PUT) {
        p = varint_get32(p, end, &vallen);
    }
    if (p == NULL || (e->type != WAL_PUT && e->type != WAL_DELETE) ||
        (uint64_t)keylen + vallen > (uint64_t)(end - p)) {
        return false;
    }
    e->key = slice_make(p, keylen);
    e->value = slice_make(p + keylen, vallen);
    return true;
}

#endif
