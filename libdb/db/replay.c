/* replay.c - the log, read again after its index was lost.
 *
 * [I-14] Segment by segment; the first record of a segment continues the last of the one before; where no
 * record continues it replay stops. That is the end of the log, or an append that a power loss has torn: then
 * what follows was never acknowledged as durable, and is dropped, even where some of it reached the device.
 *
 * Or it is rot, and what follows must not be dropped in silence. A record tells the two apart that stands
 * behind that place and says that everything before itself, down to beyond that place, was durable when it
 * was written (wal_note_durable). Then nothing is touched, and repair saves what follows. The last records of
 * a log have no such witness: damage in them passes for a torn append.
 */
#include "db/replay.h"

/* Indexes the records of seg that continue last_seq. */
static int replay_segment(struct mem_index *mem, struct replay *r)
{
    struct wal_segment *seg = mem->seg;
    uint32_t offset = WAL_FIRST;
    struct wal_view rec;
    int rc;
    while ((rc = wal_read(seg, offset, &rec)) == SHALE_OK) {
        if (rec.first_seq != r->last_seq + 1) {
            r->gap = true;
            break;
        }
        rc = mem_insert_record(mem, &rec);
        if (rc != SHALE_OK) {
            return rc;
        }
        r->last_seq += rec.count;
        offset = rec.end;
    }
    /* A first record that verifies, and continues nothing: it is the segment before that lacks its end. */
    if (!r->gap || offset != WAL_FIRST) {
        r->stop_segment = seg->number;
        r->stop_offset = offset;
    }
    return SHALE_OK;
}

int replay_next(shale_db *db, const struct version *v, struct replay *r, struct mem_index **mem)
{
    struct wal_segment *seg = NULL;
    *mem = NULL;
    if (r->gap) {
        return SHALE_OK;
    }
    int rc = wal_open(db->dirfd, db->uuid, r->next, false, &seg);
    if (rc == SHALE_NOTFOUND) {
        if (r->next != v->oldest) {
            return SHALE_OK;
        }
        char name[WAL_NAME_SIZE];
        wal_name(r->next, name);
        return err_set(SHALE_CORRUPT,
                       "%s: %s is missing, and the manifest says that it holds data: restore it from a "
                       "backup, or salvage "
                       "with repair",
                       db->path, name);
    }
    if (rc == SHALE_OK) {
        rc = mem_open_private(seg, mem);
    }
    wal_unref(seg);
    if (rc == SHALE_OK) {
        rc = replay_segment(*mem, r);
    }
    if (rc != SHALE_OK) {
        mem_unref(*mem);
        *mem = NULL;
        return rc;
    }
    r->next++;
    return SHALE_OK;
}

/* ---- torn, or rotten? ---- */

struct witness {
    uint64_t most; /* sequence number that a record here can have: each entry takes two bytes at least */
    uint32_t segment;
    struct wal_view rec;
};

static bool is_witness(const struct replay *r, uint32_t segment, const struct wal_view *rec)
{
    return segment > r->stop_segment || rec->durable > r->stop_offset;
}

static int find_witness(const struct replay *r, const struct wal_segment *seg, struct witness *w)
{
    uint32_t from = seg->number == r->stop_segment ? r->stop_offset : WAL_FIRST;
    int rc = os_map_populate_read(seg->map, 0, (size_t)seg->size);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%06u.wal", seg->number);
    }
    w->most += seg->size / 2;
    w->segment = seg->number;
    while ((rc = wal_find(seg, from, r->last_seq, w->most, &w->rec)) == SHALE_OK) {
        if (is_witness(r, seg->number, &w->rec)) {
            return SHALE_OK;
        }
        from = w->rec.end;
    }
    return rc;
}

/* A read-only handle replays beside a writer: what was not there at first may be by now. */
static bool stands_now(const struct replay *r, const struct wal_segment *seg)
{
    struct wal_view rec;
    return seg->number == r->stop_segment && wal_read(seg, r->stop_offset, &rec) == SHALE_OK &&
           rec.first_seq == r->last_seq + 1;
}

static int note_last(void *ctx, const char *name)
{
    uint32_t *last = ctx, number;
    if (wal_parse_name(name, &number) && number > *last) {
        *last = number;
    }
    return SHALE_OK;
}

int replay_check(shale_db *db, const struct replay *r)
{
    struct witness w = {.most = r->last_seq};
    uint32_t last = 0;
    int rc = os_list(db->dirfd, note_last, &last);
    for (uint32_t n = r->stop_segment; rc == SHALE_OK && n <= last; n++) {
        struct wal_segment *seg = NULL;
        rc = wal_open(db->dirfd, db->uuid, n, false, &seg);
        if (rc == SHALE_OK) {
            rc = find_witness(r, seg, &w);
        }
        bool found = rc == SHALE_OK && !stands_now(r, seg);
        wal_unref(seg);
        if (found) {
            return err_set(
                SHALE_CORRUPT,
                "%s: %06u.wal: record at %u: damaged, or what should stand there is missing; it was durable "
                "when the one at %u of %06u.wal was written, with sequence number %llu: restore a backup, or "
                "salvage with repair; nothing was changed",
                db->path, r->stop_segment, r->stop_offset, w.rec.offset, w.segment,
                (unsigned long long)w.rec.first_seq);
        }
        rc = rc == SHALE_NOTFOUND ? SHALE_OK : rc;
    }
    return rc;
}
