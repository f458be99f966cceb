/* manifest.h - the manifest's bytes, for the files of this module only. doc/format describes them.
 *
 * File: a header, then records. A record is {checksum, length, kind}, its payload, zeros up to a multiple
 * of 8. The checksum covers everything of the record behind itself, padding included, and is seeded with the
 * manifest's number and the record's offset: a record does not verify in another manifest or at another
 * place. Payload: fields, each a varint tag and then the varints and byte strings that the tag has.
 */
#ifndef VERSION_MANIFEST_H
#define VERSION_MANIFEST_H

#include "version/version.h"

#define MANIFEST_MAGIC  UINT64_C(0x316e616d656c6873) /* "shleman1", little-endian */
#define MANIFEST_FORMAT 1

/* Feature flags that this library knows. compat: ignored; ro_compat: an unknown one allows reading only;
 * incompat: an unknown one refuses. */
#define MANIFEST_KNOWN_RO_COMPAT UINT64_C(0)
#define MANIFEST_KNOWN_INCOMPAT  UINT64_C(0)

struct manifest_header {
    uint64_t magic;
    uint32_t format;
    uint32_t compat;
    uint64_t number;
    unsigned char uuid[VERSION_UUID_SIZE];
    uint64_t ro_compat;
    uint64_t incompat;
    uint64_t checksum; /* of the 56 bytes before */
};
_Static_assert(sizeof(struct manifest_header) == 64, "doc/format says 64");
_Static_assert(offsetof(struct manifest_header, checksum) == 56, "doc/format says 56");

struct manifest_record {
    uint64_t checksum;
    uint32_t length; /* of the payload, without padding */
    uint32_t kind;
};
_Static_assert(sizeof(struct manifest_record) == 16, "doc/format says 16");

enum { MANIFEST_WHOLE = 1, MANIFEST_EDIT = 2 }; /* the first record is WHOLE, all others are EDITs */

/*        name        tag  values */
#define MANIFEST_FIELDS(X)                                                                                   \
    X(OPTIONS, 1, "block_bytes target_table_bytes bloom_bits compression level_ratio comparator")            \
    X(OLDEST, 2, "memtable")                                                                                 \
    X(LAST_SEQ, 3, "seq")                                                                                    \
    X(NEXT_TABLE, 4, "table")                                                                                \
    X(ADD, 5, "level number size entries deletes min_seq max_seq raw_bytes smallest largest")                \
    X(REMOVE, 6, "level number")

enum {
#define X(name, tag, values) MANIFEST_FIELD_##name = tag,
    MANIFEST_FIELDS(X)
#undef X
};
enum { MANIFEST_COMPRESS_NONE = 0, MANIFEST_COMPRESS_LZ4 = 1 }; /* on disk */

static inline uint64_t manifest_seed(uint64_t number, uint64_t offset)
{
    return checksum_seed(MANIFEST_MAGIC ^ number, offset);
}

/* ---- payloads (fields.c) ---- */

/* What a record says. Zero-valid; release it. */
struct manifest_content {
    struct version_edit edit;
    bool has_options, has_next_table;
    struct version_options options;
    uint64_t next_table;
};
/* Appends the payload that describes e, or v whole. */
int manifest_put_edit(struct buf *out, const struct version_edit *e);
int manifest_put_version(struct buf *out, const struct version *v);
/* SHALE_CORRUPT, or SHALE_MISMATCH where a newer library may have written it; whatever the bytes are. */
int manifest_parse(struct slice payload, uint32_t kind, struct manifest_content *c);
void manifest_content_release(struct manifest_content *c);

/* ---- records (record.c) ---- */

/* A verified record, in the reader's buffer until its next read. */
struct manifest_view {
    uint32_t kind;
    struct slice payload;
    uint64_t end; /* offset behind it */
};
struct manifest_reader {
    int fd;
    char name[MANIFEST_NAME_SIZE];
    uint64_t number, size; /* of the file as it was opened */
    struct buf window;     /* bytes of the file from window_at on */
    uint64_t window_at;
};
int manifest_reader_open(struct manifest_reader *r, int dirfd, uint64_t number);
void manifest_reader_release(struct manifest_reader *r);
int manifest_reader_header(struct manifest_reader *r, struct manifest_header *h);
/* SHALE_NOTFOUND (no text): no complete, verified record stands at offset and ends by limit. */
int manifest_reader_record(struct manifest_reader *r, uint64_t offset, uint64_t limit,
                           struct manifest_view *rec);
/* Nothing verifies at offset: is that an append that a crash cut off? Else it is damage. */
int manifest_reader_torn(struct manifest_reader *r, uint64_t offset, bool *torn);

void manifest_make_header(const struct version *v, uint64_t number, struct manifest_header *h);
/* Appends an empty record header to out; the payload follows; seal fills the header in and pads. at: where in
 * out it begins. */
int manifest_begin_record(struct buf *out, size_t *at);
int manifest_seal_record(struct buf *out, size_t at, uint32_t kind, uint64_t number, uint64_t offset);

/* ---- versions (version.c, edit.c) ---- */

/* A copy that shares the tables, and that only the caller has: it may change it, then must seal it. */
int version_clone(const struct version *base, struct version **out);
/* Applies e in place: a version that failed half way is good for version_unref only. */
int version_change(struct version *v, const struct version_edit *e);
/* After changes: prepares the search, and version_check. */
int version_seal(struct version *v);
int version_table_create(const struct table_info *info, struct version_table **vt);
struct version_table *version_table_ref(struct version_table *vt);
void version_table_unref(struct version_table *vt);
int version_table_compare(const struct version_table *a, const struct version_table *b); /* by smallest key */

/* ---- naming it (current.c) ---- */

/* manifest_create, and *named tells whether CURRENT may name the new one, also when it failed. */
int manifest_install(int dirfd, uint64_t number, const struct version *v, unsigned mode, uint64_t *length,
                     bool *named);

#endif
