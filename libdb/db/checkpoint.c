/* checkpoint.c - a consistent copy of a living database, by hard links.
 *
 *   under MANIFEST   a view, and a link to each of its tables; one that cannot be linked is opened
 *   afterwards       what was only opened is copied, as on another file system
 *                    the log's bytes, from the view's own mappings, up to the view's sequence number
 *   last             a manifest of the view's version, and CURRENT
 *
 * While MANIFEST is held no edit is committed, so none of the view's tables can go: who removes a table does
 * so after its edit. Links are quick, and writers are not held up by them; the copying needs no lock, because
 * the view is pinned by its mappings [I-10], and an open table likewise. A segment is never linked: it is
 * still written to and recycled, while a table never changes. The copies keep number and salt, so that their
 * records verify; opening the checkpoint is a cold open, which replays them into tables and appends to none
 * [I-19].
 */
#include "db/db.h"

#include <stdlib.h>

#define COPY_PIECE (1u << 20)

struct checkpoint {
    shale_db *db;
    const char *path;
    int into; /* the target's */
    shale_progress progress;
    void *ctx;
    uint64_t done, total;
    struct db_view *view;
    uint64_t seq;
    uint32_t end[DB_MAX_MEMS]; /* of what counts in each of the view's segments */
    struct table **copies;     /* tables that no link leads to; the view's */
    size_t copy_count;
};

static int advance(struct checkpoint *c, uint64_t bytes)
{
    c->done += bytes;
    db_progress(c->db, c->done, c->total);
    if (c->progress != NULL && c->progress(c->ctx, c->done, c->total) != 0) {
        return err_set(SHALE_CANCELLED, "%s: checkpoint cancelled", c->path);
    }
    return SHALE_OK;
}

/* ---- tables ---- */

static int appeared(const struct checkpoint *c, const char *name)
{
    return err_set(SHALE_EXISTS, "%s: %s appeared while the checkpoint was being made", c->path, name);
}

/* Opened now, because its name may be gone as soon as MANIFEST is let go of. */
static int copy_later(struct checkpoint *c, struct version_table *vt)
{
    struct table *t = NULL;
    int rc = version_table_open(vt, c->db->dirfd, c->db->cache, c->db->options.verify_checksums, &t);
    if (rc == SHALE_OK) {
        c->copies[c->copy_count++] = t;
    }
    return rc;
}

static int take_table(struct checkpoint *c, struct version_table *vt)
{
    char name[TABLE_NAME_SIZE];
    struct stat st;
    table_name(vt->info.number, name);
    int rc = os_link(c->db->dirfd, name, c->into, name);
    if (rc == SHALE_UNSUPPORTED) {
        rc = copy_later(c, vt);
    }
    if (rc == SHALE_EXISTS) {
        return appeared(c, name);
    }
    if (rc != SHALE_OK && os_stat_at(c->db->dirfd, name, &st) == SHALE_NOTFOUND) {
        return err_set(SHALE_CORRUPT, "%s: %s is missing: restore it from a backup, or salvage with repair",
                       c->db->path, name);
    }
    return rc == SHALE_OK ? rc : err_wrap(rc, "%s", c->path);
}

/* Caller holds MANIFEST. */
static int link_tables(struct checkpoint *c)
{
    size_t count = 0;
    int rc = db_view_get(c->db, &c->view, &c->seq);
    for (unsigned l = 0; rc == SHALE_OK && l < VERSION_LEVELS; l++) {
        count += c->view->version->level[l].count;
    }
    c->copies = rc == SHALE_OK ? base_calloc(count + 1, sizeof(struct table *)) : NULL;
    rc = rc == SHALE_OK && c->copies == NULL ? SHALE_NOMEM : rc;
    for (unsigned l = 0; rc == SHALE_OK && l < VERSION_LEVELS; l++) {
        const struct version_level *level = &c->view->version->level[l];
        for (uint32_t i = 0; rc == SHALE_OK && i < level->count; i++) {
            rc = take_table(c, level->tables[i]);
            c->total += level->tables[i]->info.size;
        }
    }
    return rc;
}

static int take_tables(struct checkpoint *c)
{
    struct os_wait wait = db_wait(c->db);
    int rc = os_role_lock(&c->db->roles, OS_ROLE_MANIFEST, &wait, NULL);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s: another process is committing a version", c->db->path);
    }
    rc = link_tables(c);
    os_role_unlock(&c->db->roles, OS_ROLE_MANIFEST);
    return rc;
}

static int copied(void *ctx, uint64_t bytes)
{
    return advance(ctx, bytes);
}

static int create(struct checkpoint *c, const char *name, int *fd)
{
    int rc = os_open(c->into, name, O_RDWR | O_CREAT | O_EXCL, c->db->options.mode, fd);
    return rc == SHALE_EXISTS ? appeared(c, name) : rc;
}

static int copy_table(struct checkpoint *c, struct table *t)
{
    char name[TABLE_NAME_SIZE];
    int fd = -1;
    table_name(table_number(t), name);
    int rc = create(c, name, &fd);
    if (rc == SHALE_OK) {
        rc = table_copy(t, fd, copied, c);
    }
    os_close(&fd);
    return rc == SHALE_OK || rc == SHALE_EXISTS ? rc : err_wrap(rc, "%s", c->path);
}

/* Links have cost nothing: they are done at once. */
static int copy_tables(struct checkpoint *c, uint64_t bytes)
{
    for (size_t i = 0; i < c->copy_count; i++) {
        bytes -= table_properties(c->copies[i])->size;
    }
    int rc = advance(c, bytes);
    for (size_t i = 0; rc == SHALE_OK && i < c->copy_count; i++) {
        rc = copy_table(c, c->copies[i]);
    }
    return rc;
}

/* ---- the log ---- */

/* Where the records of seg that the view shows end. Each is verified: rot is found here, not when the copy is
 * needed. What stands behind the last one is not looked at: somebody may be writing it. */
static int measure_segment(const struct checkpoint *c, const struct wal_segment *seg, uint64_t *last,
                           uint32_t *end)
{
    struct wal_view rec;
    int rc = SHALE_OK;
    *end = WAL_FIRST;
    while (*last < c->seq && (rc = wal_read(seg, *end, &rec)) == SHALE_OK) {
        if (rec.first_seq != *last + 1) {
            return err_set(SHALE_CORRUPT, "%s: %06u.wal: record at %u: sequence number %llu, expected %llu",
                           c->db->path, seg->number, *end, (unsigned long long)rec.first_seq,
                           (unsigned long long)*last + 1);
        }
        *last = rec.first_seq + rec.count - 1;
        *end = rec.end;
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

static int measure_log(struct checkpoint *c)
{
    uint64_t last = c->view->version->last_seq;
    int rc = SHALE_OK;
    for (unsigned i = c->view->mem_count; rc == SHALE_OK && i-- > 0;) { /* oldest first */
        rc = measure_segment(c, c->view->mem[i]->seg, &last, &c->end[i]);
        c->total += c->end[i];
    }
    if (rc == SHALE_OK && last < c->seq) {
        rc = err_set(
            SHALE_CORRUPT,
            "%s: the log's records verify up to sequence number %llu, %llu are visible: restore from a "
            "backup, or salvage with repair",
            c->db->path, (unsigned long long)last, (unsigned long long)c->seq);
    }
    return rc;
}

static int copy_bytes(struct checkpoint *c, const struct wal_segment *seg, uint32_t end, int fd)
{
    int rc = SHALE_OK;
    for (uint32_t at = 0; rc == SHALE_OK && at < end;) {
        uint32_t n = end - at < COPY_PIECE ? end - at : COPY_PIECE;
        rc = os_pwrite(fd, seg->map + at, n, at);
        at += n;
        if (rc == SHALE_OK) {
            rc = advance(c, n);
        }
    }
    return rc;
}

/* The header says how long the file is: the rest is a hole, in which no record stands. */
static int copy_segment(struct checkpoint *c, const struct wal_segment *seg, uint32_t end)
{
    char name[WAL_NAME_SIZE];
    int fd = -1;
    wal_name(seg->number, name);
    int rc = create(c, name, &fd);
    if (rc == SHALE_OK) {
        rc = copy_bytes(c, seg, end, fd);
    }
    if (rc == SHALE_OK) {
        rc = os_truncate(fd, seg->size);
    }
    if (rc == SHALE_OK) {
        rc = os_fsync(fd);
    }
    os_close(&fd);
    bool told = rc == SHALE_OK || rc == SHALE_CANCELLED || rc == SHALE_EXISTS;
    return told ? rc : err_wrap(rc, "%s: %s", c->path, name);
}

/* ---- all of it ---- */

/* manifest_create syncs the directory, and so the names of tables and segments, before CURRENT is there. */
static int make(struct checkpoint *c)
{
    uint64_t length;
    int rc = take_tables(c);
    uint64_t tables = c->total;
    if (rc == SHALE_OK) {
        rc = measure_log(c);
    }
    if (rc == SHALE_OK) {
        rc = copy_tables(c, tables);
    }
    for (unsigned i = 0; rc == SHALE_OK && i < c->view->mem_count; i++) {
        rc = copy_segment(c, c->view->mem[i]->seg, c->end[i]);
    }
    if (rc == SHALE_OK) {
        rc = manifest_create(c->into, 1, c->view->version, c->db->options.mode, &length);
    }
    if (rc == SHALE_OK) {
        rc = db_target_sync(c->path);
    }
    return rc;
}

int shale_checkpoint(shale_db *db, const char *dir, shale_progress progress, void *ctx)
{
    struct checkpoint c = {.db = db, .path = dir, .progress = progress, .ctx = ctx};
    struct db_target target;
    int rc = db_check_write(db);
    if (rc == SHALE_OK && (dir == NULL || dir[0] == '\0')) {
        rc = err_set(SHALE_INVALID, "shale_checkpoint: the directory is missing");
    }
    if (rc == SHALE_OK) {
        rc = db_target_make(dir, db->options.mode, &target);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    db_doing(db, "making a checkpoint");
    c.into = target.fd;
    rc = make(&c);
    if (rc != SHALE_OK && rc != SHALE_EXISTS) { /* else another is making something there */
        db_target_clear(&target);
    }
    db_doing(db, "%s", "");
    db_view_unref(c.view);
    free(c.copies);
    os_close(&target.fd);
    return rc;
}
