/* record.c - records and the entries in them: writing, reading back, never trusting.
 *
 * A record is its header, the payload and zeros up to a multiple of 8. Nothing says where the log ends: it
 * ends where no record verifies. That makes the checksum the only judge, so it depends on everything that
 * tells this record from another: salt and number of the segment, the offset, and the header's own fields.
 * Bounds are checked before the checksum is computed, because a length that noise or a torn write left there
 * must not lead out of the mapping.
 *
 * Through the mapping the payload goes first and the header last: who dies in between leaves no record at
 * all, rather than one that must be computed to be found torn. Nothing depends on that order: after a power
 * loss the pages come back in any order, and only the checksum decides [I-12], [I-14].
 */
#include "wal/segment.h"

#define SEQ_BITS     56
#define SEQ_MAX      ((UINT64_C(1) << SEQ_BITS) - 1)
#define LAG_MIN      3 /* records stand at multiples of 8 */
#define LAG_MAX      32
#define SMALL_RECORD 4096u /* up to this size one pwrite carries the whole record */

static uint64_t record_checksum(const struct wal_segment *seg, uint32_t offset, const struct wal_record *r,
                                const void *payload)
{
    const unsigned char *fields = (const unsigned char *)r + sizeof r->checksum;
    uint64_t seed = checksum_seed(seg->salt, wal_lsn(seg->number, offset));
    return checksum(payload, r->length, checksum(fields, sizeof *r - sizeof r->checksum, seed));
}

void wal_seal(const struct wal_segment *seg, uint32_t offset, uint32_t count, uint64_t first_seq,
              const void *payload, uint32_t length, struct wal_record *out)
{
    out->length = length;
    out->count = count;
    out->first_seq = first_seq;
    out->checksum = record_checksum(seg, offset, out, payload);
}

/* ---- what was durable ---- */

uint64_t wal_note_durable(uint64_t first_seq, uint64_t lsn, uint64_t durable)
{
    uint64_t lag = LAG_MIN;
    if (durable > lsn || durable < wal_lsn(wal_lsn_number(lsn), WAL_FIRST)) {
        return first_seq;
    }
    while ((UINT64_C(1) << lag) < lsn - durable) {
        lag++;
    }
    return first_seq | lag << SEQ_BITS;
}

static bool lag_valid(uint64_t field)
{
    uint64_t lag = field >> SEQ_BITS;
    return lag == 0 || (lag >= LAG_MIN && lag <= LAG_MAX);
}

static uint32_t lag_durable(uint64_t field, uint32_t offset)
{
    uint64_t back = UINT64_C(1) << (field >> SEQ_BITS);
    if (field >> SEQ_BITS == 0) {
        return 0;
    }
    return offset - WAL_FIRST > back ? (uint32_t)(offset - back) : WAL_FIRST;
}

/* ---- writing ---- */

static void append_mapped(struct wal_segment *seg, uint32_t offset, const struct wal_record *header,
                          const void *payload)
{
    unsigned char *at = seg->map + offset;
    unsigned char *body = at + sizeof *header;
    size_t length = header->length, half = length / 2;
    memcpy(body, payload, half);
    os_mark(OS_MARK_APPEND);
    memcpy(body + half, (const unsigned char *)payload + half, length - half);
    memset(body + length, 0, (size_t)wal_record_size(length) - sizeof *header - length);
    os_mark(OS_MARK_APPEND);
    /* A compiler must not sink the payload below the header; between processors it may not matter (see
     * above). */
    atomic_signal_fence(memory_order_release);
    memcpy(at, header, sizeof *header);
    os_mark(OS_MARK_APPEND);
}

static int append_written(struct wal_segment *seg, uint32_t offset, const struct wal_record *header,
                          const void *payload)
{
    static const unsigned char zeros[8];
    unsigned char small[SMALL_RECORD];
    size_t length = header->length, whole = (size_t)wal_record_size(length);
    size_t pad = whole - sizeof *header - length;
    if (whole <= sizeof small) {
        memcpy(small, header, sizeof *header);
        memcpy(small + sizeof *header, payload, length);
        memset(small + sizeof *header + length, 0, pad);
        os_mark(OS_MARK_APPEND);
        int rc = os_pwrite(seg->fd, small, whole, offset);
        os_mark(OS_MARK_APPEND);
        return rc;
    }
    int rc = os_pwrite(seg->fd, payload, length, offset + sizeof *header);
    os_mark(OS_MARK_APPEND);
    if (rc == SHALE_OK && pad != 0) {
        rc = os_pwrite(seg->fd, zeros, pad, offset + sizeof *header + length);
    }
    if (rc == SHALE_OK) {
        rc = os_pwrite(seg->fd, header, sizeof *header, offset);
    }
    os_mark(OS_MARK_APPEND);
    return rc;
}

static int check_range(const struct wal_segment *seg, uint64_t offset, uint64_t size)
{
    if (!seg->writable || offset < WAL_FIRST || offset > seg->size || size > seg->size - offset) {
        return err_set(SHALE_INVALID, "%06u.wal: %llu bytes at %llu of %llu%s", seg->number,
                       (unsigned long long)size, (unsigned long long)offset, (unsigned long long)seg->size,
                       seg->writable ? "" : ", read-only");
    }
    return SHALE_OK;
}

static int wrap(const struct wal_segment *seg, int rc)
{
    return rc == SHALE_OK ? rc : err_wrap(rc, "%06u.wal", seg->number);
}

int wal_append(struct wal_segment *seg, uint32_t offset, const struct wal_record *header, const void *payload,
               bool through_file)
{
    int rc = check_range(seg, offset, wal_record_size(header->length));
    if (rc != SHALE_OK) {
        return rc;
    }
    if (through_file) {
        return wrap(seg, append_written(seg, offset, header, payload));
    }
    append_mapped(seg, offset, header, payload);
    return SHALE_OK;
}

int wal_wipe(struct wal_segment *seg, uint32_t offset)
{
    static const struct wal_record nothing;
    int rc = check_range(seg, offset, sizeof nothing);
    return rc != SHALE_OK ? rc : wrap(seg, os_pwrite(seg->fd, &nothing, sizeof nothing, offset));
}

int wal_rewrite(struct wal_segment *seg, uint32_t from, uint32_t to)
{
    unsigned char piece[16384];
    int rc = check_range(seg, from, to > from ? to - from : 0);
    for (uint32_t at = from; rc == SHALE_OK && at < to;) {
        size_t n = to - at < sizeof piece ? to - at : sizeof piece;
        memcpy(piece, seg->map + at, n);
        rc = wrap(seg, os_pwrite(seg->fd, piece, n, at));
        at += (uint32_t)n;
    }
    return rc;
}

int wal_sync(struct wal_segment *seg)
{
    if (!seg->writable) {
        return err_set(SHALE_INVALID, "%06u.wal: sync of a read-only segment", seg->number);
    }
    return wrap(seg, os_fdatasync(seg->fd));
}

/* ---- reading ---- */

int wal_read(const struct wal_segment *seg, uint32_t offset, struct wal_view *rec)
{
    struct wal_record h;
    if (offset < WAL_FIRST || offset % 8 != 0 || offset > seg->size - sizeof h) {
        return SHALE_NOTFOUND;
    }
    /* A copy: what is checked is what is used, even if the bytes change under us. */
    memcpy(&h, seg->map + offset, sizeof h);
    const unsigned char *payload = seg->map + offset + sizeof h;
    uint64_t first_seq = h.first_seq & SEQ_MAX;
    if (h.length > seg->size - offset - sizeof h || h.count == 0 || h.count > WAL_MAX_ENTRIES ||
        h.count > h.length / 2 || first_seq == 0 || first_seq > SEQ_MAX - h.count ||
        !lag_valid(h.first_seq)) {
        return SHALE_NOTFOUND;
    }
    if (h.checksum != record_checksum(seg, offset, &h, payload)) {
        return SHALE_NOTFOUND;
    }
    *rec = (struct wal_view){.offset = offset,
                             .end = (uint32_t)(offset + wal_record_size(h.length)),
                             .count = h.count,
                             .durable = lag_durable(h.first_seq, offset),
                             .first_seq = first_seq,
                             .payload = slice_make(payload, h.length)};
    return SHALE_OK;
}

int wal_find(const struct wal_segment *seg, uint32_t from, uint64_t seq, uint64_t most, struct wal_view *rec)
{
    for (uint64_t at = from; at + sizeof(struct wal_record) <= seg->size; at += 8) {
        /* Most of it is none: the checksum of what only looks like one is not worth its time. */
        uint64_t field = get_u64(seg->map + at + offsetof(struct wal_record, first_seq));
        if (field >> SEQ_BITS != 0 && (field & SEQ_MAX) > seq && (field & SEQ_MAX) <= most &&
            wal_read(seg, (uint32_t)at, rec) == SHALE_OK) {
            return SHALE_OK;
        }
    }
    return SHALE_NOTFOUND;
}

/* ---- entries ---- */

int wal_next_entry(struct slice payload, uint32_t *pos, struct wal_entry *entry)
{
    struct wal_entry e;
    if (*pos >= payload.size) {
        return SHALE_NOTFOUND;
    }
    if (!wal_decode_entry(payload.data + *pos, payload.data + payload.size, &e)) {
        return err_set(SHALE_CORRUPT, "log entry at %u of its record: malformed", *pos);
    }
    e.offset = *pos;
    *pos = (uint32_t)(e.value.data + e.value.size - payload.data);
    *entry = e;
    return SHALE_OK;
}

int wal_add_entry(struct buf *payload, uint8_t type, struct slice key, struct slice value)
{
    uint64_t room = WAL_MAX_SIZE - WAL_FIRST - sizeof(struct wal_record) - 8;
    size_t vallen = type == WAL_PUT ? value.size : 0;
    size_t most = 1 + 2 * VARINT32_MAX;
    if (key.size > room || vallen > room || payload->size + key.size + vallen + most > room) {
        return err_set(SHALE_TOOBIG, "a record of more than %llu bytes", (unsigned long long)room);
    }
    int rc = buf_reserve(payload, key.size + vallen + most);
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned char *p = payload->data + payload->size;
    *p++ = type;
    p = varint_put(p, key.size);
    if (type == WAL_PUT) {
        p = varint_put(p, vallen);
    }
    if (key.size != 0) {
        memcpy(p, key.data, key.size);
        p += key.size;
    }
    if (vallen != 0) {
        memcpy(p, value.data, vallen);
        p += vallen;
    }
    payload->size = (size_t)(p - payload->data);
    return SHALE_OK;
}
