/* record.c - records of a manifest file: making them, reading them back, telling a torn append from damage.
 *
 * Each edit is synced before the next one is appended, and a dead process's tail is cut before anything
 * follows it. So only the last record of a file can be one that a crash cut off [h36]; a record that does not
 * verify and has one behind it that does is damage. The last one is taken for torn only if it shows how a
 * crash tears: the file ends early, or a whole sector of it is zeros because it never reached the disk. A
 * flipped bit does neither, and is reported instead of silently taking the database back by one edit [h38].
 */
#include "version/manifest.h"

#define WINDOW     (64u << 10)
#define SECTOR     512u                 /* what a device writes whole or not at all */
#define SCAN_LIMIT (UINT64_C(64) << 20) /* bytes checksummed in search of records behind a bad one */

/* ---- making ---- */

void manifest_make_header(const struct version *v, uint64_t number, struct manifest_header *h)
{
    *h = (struct manifest_header){
        .magic = MANIFEST_MAGIC,
        .format = MANIFEST_FORMAT,
        .compat = v->compat,
        .number = number,
        .ro_compat = v->ro_compat,
    };
    memcpy(h->uuid, v->uuid, sizeof h->uuid);
    h->checksum = checksum(h, offsetof(struct manifest_header, checksum), manifest_seed(number, 0));
}

int manifest_begin_record(struct buf *out, size_t *at)
{
    static const struct manifest_record empty;
    size_t start = out->size;
    int st = buf_append(out, &empty, sizeof empty);
    if (st == SHALE_OK) {
        *at = start;
    }
    return st;
}

int manifest_seal_record(struct buf *out, size_t at, uint32_t kind, uint64_t number, uint64_t offset)
{
    static const unsigned char zeros[8];
    size_t length = out->size - at - sizeof(struct manifest_record);
    if (length > UINT32_MAX - 64) {
        return err_set(SHALE_TOOBIG, "a record of %zu bytes does not fit into a manifest", length);
    }
    int st = buf_append(out, zeros, (size_t)align_up(length, 8) - length);
    if (st != SHALE_OK) {
        return st;
    }
    unsigned char *p = out->data + at;
    put_u32(p + offsetof(struct manifest_record, length), (uint32_t)length);
    put_u32(p + offsetof(struct manifest_record, kind), kind);
    put_u64(p, checksum(p + 8, out->size - at - 8, manifest_seed(number, offset)));
    return SHALE_OK;
}

/* ---- reading ---- */

int manifest_reader_open(struct manifest_reader *r, int dirfd, uint64_t number)
{
    struct stat sb;
    *r = (struct manifest_reader){.fd = -1, .number = number};
    manifest_name(number, r->name);
    int st = os_open_stat(dirfd, r->name, O_RDONLY, 0, &r->fd, &sb);
    if (st != SHALE_OK) {
        return st == SHALE_NOTFOUND ? st : err_wrap(st, "%s", r->name);
    }
    r->size = sb.st_size > 0 ? (uint64_t)sb.st_size : 0;
    return SHALE_OK;
}

void manifest_reader_release(struct manifest_reader *r)
{
    os_close(&r->fd);
    buf_release(&r->window);
}

/* Bytes [offset, offset + size), which the caller knows to lie within the file. */
static int window(struct manifest_reader *r, uint64_t offset, size_t size, const unsigned char **p)
{
    if (offset < r->window_at || offset + size > r->window_at + r->window.size) {
        uint64_t rest = r->size - offset, want = rest < WINDOW ? rest : WINDOW;
        size_t got;
        r->window.size = 0;
        want = want > size ? want : size;
        int st = buf_reserve(&r->window, want);
        if (st == SHALE_OK) {
            st = os_pread(r->fd, r->window.data, want, offset, &got);
        }
        if (st == SHALE_OK && got < size) {
            st = err_set(SHALE_CORRUPT, "the file ends at %llu, and was %llu bytes long",
                         (unsigned long long)(offset + got), (unsigned long long)r->size);
        }
        if (st != SHALE_OK) {
            return st;
        }
        r->window_at = offset;
        r->window.size = got;
    }
    *p = r->window.data + (offset - r->window_at);
    return SHALE_OK;
}

static int judge_header(const struct manifest_reader *r, const struct manifest_header *h)
{
    if (h->magic != MANIFEST_MAGIC) {
        return err_set(SHALE_CORRUPT, "this is not a manifest");
    }
    if (h->checksum != checksum(h, offsetof(struct manifest_header, checksum), manifest_seed(h->number, 0))) {
        return err_set(SHALE_CORRUPT, "header: checksum mismatch");
    }
    if (h->format != MANIFEST_FORMAT) {
        return err_set(SHALE_MISMATCH, "format %u; this library knows %u (use a newer version)", h->format,
                       MANIFEST_FORMAT);
    }
    if ((h->incompat & ~MANIFEST_KNOWN_INCOMPAT) != 0) {
        return err_set(SHALE_MISMATCH, "features 0x%llx are not known to this library (use a newer version)",
                       (unsigned long long)(h->incompat & ~MANIFEST_KNOWN_INCOMPAT));
    }
    if (h->number != r->number) {
        return err_set(SHALE_CORRUPT, "the file is manifest %llu under another name",
                       (unsigned long long)h->number);
    }
    return SHALE_OK;
}

int manifest_reader_header(struct manifest_reader *r, struct manifest_header *out)
{
    struct manifest_header h;
    const unsigned char *p;
    if (r->size < sizeof h) {
        return err_set(SHALE_CORRUPT, "%llu bytes are too few for a manifest", (unsigned long long)r->size);
    }
    int st = window(r, 0, sizeof h, &p);
    if (st != SHALE_OK) {
        return st;
    }
    memcpy(&h, p, sizeof h);
    st = judge_header(r, &h);
    if (st == SHALE_OK) {
        *out = h;
    }
    return st;
}

/* Bytes that the record header at p claims for its record. */
static uint64_t claimed(const unsigned char *p)
{
    return sizeof(struct manifest_record) +
           align_up(get_u32(p + offsetof(struct manifest_record, length)), 8);
}

int manifest_reader_record(struct manifest_reader *r, uint64_t offset, uint64_t limit,
                           struct manifest_view *rec)
{
    const unsigned char *p;
    if (limit < offset || limit - offset < sizeof(struct manifest_record)) {
        return SHALE_NOTFOUND;
    }
    int st = window(r, offset, sizeof(struct manifest_record), &p);
    if (st != SHALE_OK) {
        return st;
    }
    uint64_t total = claimed(p);
    if (total > limit - offset) {
        return SHALE_NOTFOUND;
    }
    st = window(r, offset, (size_t)total, &p);
    if (st != SHALE_OK) {
        return st;
    }
    if (get_u64(p) != checksum(p + 8, (size_t)total - 8, manifest_seed(r->number, offset))) {
        return SHALE_NOTFOUND;
    }
    rec->kind = get_u32(p + offsetof(struct manifest_record, kind));
    rec->payload =
        slice_make(p + sizeof(struct manifest_record), get_u32(p + offsetof(struct manifest_record, length)));
    rec->end = offset + total;
    return SHALE_OK;
}

/* ---- torn, or damaged? ---- */

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Does the record at offset end early, or lack a sector? */
static int shows_tear(struct manifest_reader *r, uint64_t offset, bool *tear)
{
    const unsigned char *p;
    uint64_t rest = r->size - offset;
    *tear = true;
    if (rest < sizeof(struct manifest_record)) {
        return SHALE_OK;
    }
    int st = window(r, offset, sizeof(struct manifest_record), &p);
    if (st != SHALE_OK || claimed(p) > rest) {
        return st;
    }
    uint64_t end =
        offset + sizeof(struct manifest_record) + get_u32(p + offsetof(struct manifest_record, length));
    for (uint64_t from = offset; from < end;) {
        uint64_t to = align_up(from + 1, SECTOR) < end ? align_up(from + 1, SECTOR) : end;
        st = window(r, from, (size_t)(to - from), &p);
        if (st != SHALE_OK || all_zero(p, (size_t)(to - from))) {
            return st;
        }
        from = to;
    }
    *tear = false;
    return SHALE_OK;
}

int manifest_reader_torn(struct manifest_reader *r, uint64_t offset, bool *torn)
{
    struct manifest_view rec;
    uint64_t hashed = 0;
    bool tear;
    int st = shows_tear(r, offset, &tear);
    if (st != SHALE_OK) {
        return st;
    }
    for (uint64_t at = offset + 8;
         tear && r->size - offset > 8 && at + sizeof(struct manifest_record) <= r->size; at += 8) {
        const unsigned char *p;
        st = window(r, at, sizeof(struct manifest_record), &p);
        if (st != SHALE_OK) {
            return st;
        }
        uint32_t kind = get_u32(p + offsetof(struct manifest_record, kind));
        if ((kind != MANIFEST_WHOLE && kind != MANIFEST_EDIT) || claimed(p) > r->size - at) {
            continue;
        }
        hashed += claimed(p);
        st = manifest_reader_record(r, at, r->size, &rec);
        if (st != SHALE_OK && st != SHALE_NOTFOUND) {
            return st;
        }
        tear = st == SHALE_NOTFOUND && hashed < SCAN_LIMIT; /* more than that is nobody's torn append */
    }
    *torn = tear;
    return SHALE_OK;
}
