/* verify.c - every byte of every durable file: CURRENT, the manifest, every table, every record of the log
 * that counts.
 *
 * It reads one view like any reader, so it may run beside writers. Damage does not stop it: it goes through
 * everything, logs each finding, and returns the first with the number of the others.
 */
#include "db/db.h"

#include <stdio.h>

struct verify {
    shale_db *db;
    shale_progress progress;
    void *ctx;
    uint64_t done, total;
    unsigned found;
    int first;
    char text[400];
};

/* Notes damage and goes on; anything else ends the run. */
static int note(struct verify *v, int rc)
{
    if (rc != SHALE_CORRUPT && rc != SHALE_IO && rc != SHALE_MISMATCH) {
        return rc;
    }
    db_log(v->db, 0, "%s: %s", v->db->path, shale_errmsg());
    if (v->found++ == 0) {
        v->first = rc;
        (void)snprintf(v->text, sizeof v->text, "%s", shale_errmsg());
    }
    return SHALE_OK;
}

static int advance(void *ctx, uint64_t bytes)
{
    struct verify *v = ctx;
    v->done += bytes;
    return v->progress != NULL ? v->progress(v->ctx, v->done < v->total ? v->done : v->total, v->total) : 0;
}

static int same_info(const struct table_info *said, const struct table_info *is)
{
    if (said->entries != is->entries || said->deletes != is->deletes || said->min_seq != is->min_seq ||
        said->max_seq != is->max_seq || !slice_equal(buf_slice(&said->smallest), buf_slice(&is->smallest)) ||
        !slice_equal(buf_slice(&said->largest), buf_slice(&is->largest))) {
        return err_set(SHALE_CORRUPT, "%06llu.sst: counts or key range are not what the manifest says",
                       (unsigned long long)said->number);
    }
    return SHALE_OK;
}

static int verify_table(struct verify *v, struct version_table *vt)
{
    struct table *t;
    int rc = version_table_open(vt, v->db->dirfd, v->db->cache, v->db->options.verify_checksums, &t);
    if (rc == SHALE_NOTFOUND) {
        return err_set(SHALE_CORRUPT, "%06llu.sst is missing", (unsigned long long)vt->info.number);
    }
    if (rc == SHALE_OK) {
        rc = table_verify(t, advance, v);
    }
    return rc == SHALE_OK ? same_info(&vt->info, table_properties(t)) : rc;
}

/* Every entry of a record must be found by its key and sequence number. (The index as a whole is not walked:
 * a writer may be inserting meanwhile.) */
static int verify_entries(const struct mem_index *mem, const struct wal_view *rec)
{
    struct wal_entry e;
    struct mem_hit hit;
    uint32_t pos = 0;
    uint64_t entry_seq = rec->first_seq;
    int rc;
    while ((rc = wal_next_entry(rec->payload, &pos, &e)) == SHALE_OK) {
        rc = mem_may_hold(mem, key_hash(e.key)) ? mem_get(mem, e.key, entry_seq, &hit) : SHALE_NOTFOUND;
        if (rc == SHALE_NOTFOUND || (rc == SHALE_OK && (hit.seq != entry_seq || hit.type != e.type))) {
            rc = err_set(SHALE_CORRUPT, "%06u.mem: the entry with sequence number %llu is not in the index",
                         mem->seg->number, (unsigned long long)entry_seq);
        }
        if (rc != SHALE_OK) {
            return rc;
        }
        entry_seq++;
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

/* Records up to the sequence number that the view shows; what stands behind them somebody may be writing. */
static int verify_memtable(struct verify *v, const struct mem_index *mem, uint64_t seq, uint64_t *last)
{
    struct wal_view rec;
    uint32_t offset = WAL_FIRST;
    int rc = SHALE_OK;
    while (*last < seq && (rc = wal_read(mem->seg, offset, &rec)) == SHALE_OK) {
        if (rec.first_seq != *last + 1) {
            return err_set(SHALE_CORRUPT, "%06u.wal: record at %u: sequence number %llu, expected %llu",
                           mem->seg->number, offset, (unsigned long long)rec.first_seq,
                           (unsigned long long)*last + 1);
        }
        rc = verify_entries(mem, &rec);
        if (rc != SHALE_OK) {
            return rc;
        }
        *last = rec.first_seq + rec.count - 1;
        offset = rec.end;
        if (advance(v, rec.end - rec.offset) != 0) {
            return err_set(SHALE_CANCELLED, "%s: verify cancelled", v->db->path);
        }
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

/* A retired segment goes after the epoch has moved: the tuple tells that from a lost one. */
static bool segment_is_lost(struct verify *v, const struct db_view *view, uint32_t number)
{
    struct state_view tuple;
    if (view->private_replay) {
        return !db_replay_moved(v->db, view);
    }
    state_load_tuple(v->db->state, &tuple);
    return tuple.oldest <= number;
}

/* The name and the header, which this handle has not looked at since it mapped the segment. */
static int verify_segment(struct verify *v, const struct db_view *view, uint32_t number)
{
    struct wal_segment *again = NULL;
    char name[WAL_NAME_SIZE];
    int rc = wal_open(v->db->dirfd, view->version->uuid, number, false, &again);
    wal_unref(again);
    if (rc != SHALE_NOTFOUND) {
        return rc;
    }
    wal_name(number, name);
    return segment_is_lost(v, view, number) ? err_set(SHALE_CORRUPT, "%s is missing", name) : SHALE_OK;
}

static int verify_log(struct verify *v, const struct db_view *view, uint64_t seq)
{
    uint64_t last = view->version->last_seq;
    int rc = SHALE_OK;
    for (unsigned i = view->mem_count; rc == SHALE_OK && i-- > 0;) {
        rc = note(v, verify_segment(v, view, view->mem[i]->seg->number));
        if (rc == SHALE_OK) {
            rc = verify_memtable(v, view->mem[i], seq, &last);
        }
        if (rc == SHALE_OK && i == 0 && last < seq) {
            rc = err_set(SHALE_CORRUPT,
                         "%06u.wal: records verify up to sequence number %llu, %llu are visible",
                         view->mem[i]->seg->number, (unsigned long long)last, (unsigned long long)seq);
        }
    }
    return rc;
}

static int read_current(struct verify *v, uint64_t *number)
{
    int rc = current_read(v->db->dirfd, number);
    return rc == SHALE_NODB ? err_set(SHALE_CORRUPT, "%s: CURRENT is missing", v->db->path) : rc;
}

/* Unless it was rolled since the view was taken. */
static int verify_manifest(struct verify *v, const struct db_view *view)
{
    struct version *again = NULL;
    char name[MANIFEST_NAME_SIZE];
    uint64_t number;
    int rc = read_current(v, &number);
    if (rc != SHALE_OK || number != view->version->manifest) {
        return rc;
    }
    rc = manifest_load(v->db->dirfd, number, view->version->length, &again);
    if (rc == SHALE_OK) {
        rc = version_check(again);
    } else if (rc == SHALE_NOTFOUND) {
        manifest_name(number, name);
        rc = read_current(v, &number);
        if (rc == SHALE_OK && number == view->version->manifest) {
            rc = err_set(SHALE_CORRUPT, "%s is missing", name);
        }
    }
    version_unref(again);
    return rc;
}

static uint64_t total_bytes(const struct db_view *view)
{
    uint64_t sum = 0;
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        sum += view->version->level[l].bytes;
    }
    for (unsigned i = 0; i < view->mem_count; i++) {
        sum += view->mem[i]->seg->size;
    }
    return sum;
}

static int verify_all(struct verify *v, const struct db_view *view, uint64_t seq)
{
    int rc = note(v, verify_manifest(v, view));
    if (rc == SHALE_OK) {
        rc = note(v, verify_log(v, view, seq));
    }
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; rc == SHALE_OK && i < view->version->level[l].count; i++) {
            rc = note(v, verify_table(v, view->version->level[l].tables[i]));
        }
    }
    return rc;
}

int shale_verify(shale_db *db, shale_progress progress, void *ctx)
{
    struct verify v = {.db = db, .progress = progress, .ctx = ctx};
    struct db_view *view;
    uint64_t seq;
    int rc = db_check(db);
    if (rc == SHALE_OK) {
        rc = db_view_get(db, &view, &seq);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!db->readonly) {
        db_doing(db, "verifying");
    }
    rc = db_view_pin(db, view);
    while (rc == SHALE_NOTFOUND) { /* a compaction was faster: the next view has what replaced it */
        uint64_t epoch = view->epoch;
        db_view_unref(view);
        rc = db_view_get(db, &view, &seq);
        if (rc != SHALE_OK) {
            db_doing(db, "%s", "");
            return rc;
        }
        if (view->epoch == epoch) {
            break; /* missing for good: verify_table names it */
        }
        rc = db_view_pin(db, view);
    }
    v.total = total_bytes(view);
    rc = verify_all(&v, view, seq);
    if (rc == SHALE_OK && progress != NULL) {
        (void)progress(ctx, v.total, v.total);
    }
    db_view_unref(view);
    db_doing(db, "%s", "");
    if (rc == SHALE_OK && v.found != 0) {
        rc = v.found == 1 ? err_set(v.first, "%s", v.text)
                          : err_set(v.first, "%s (and %u more)", v.text, v.found - 1);
    }
    return rc;
}
