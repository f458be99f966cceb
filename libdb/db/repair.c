/* repair.c - what can be saved of a damaged directory, as a new database in another one. The damaged one is
 * only read.
 *
 *   which tables    those of the manifest; those of the whole directory only when no manifest can be read
 *                   (a table that no version names was replaced, and may hold what was deleted since)
 *   which log       every record that verifies behind what the tables hold, gaps or not
 *   then            salvage.c merges all of it; one new table run, an empty segment, a manifest, CURRENT
 *
 * A cold open stops at the first gap of the log, because what follows was never acknowledged as durable
 * [I-14]. Here the log may be damaged in its middle, long after it was written, so records behind a gap are
 * kept: each is a whole commit, but one that it was built upon may be missing. What is lost is told through
 * options.log, a line each.
 *
 * The role OPEN is held meanwhile where LOCK can be written, so that nobody opens the directory; and if LIVE
 * shows that somebody has it open, nothing is done.
 */
#include "db/salvage.h"

#include <stdio.h>
#include <stdlib.h>

struct repair {
    struct salvage s;
    struct os_roles roles;
    bool locked;
    struct version *v; /* NULL: no manifest could be read */
    uint32_t *segments;
    size_t segment_count, segment_cap;
    uint64_t *tables;
    size_t table_count, table_cap;
    uint64_t newest_manifest, newest_below; /* newest_below: look below this number only */
    bool any;                               /* there is something of a database */
};

/* ---- keeping others out ---- */

static int check_nobody(struct repair *r)
{
    bool taken = false;
    int fd = -1;
    int rc = os_open(r->s.dirfd, "LIVE", O_RDONLY, 0, &fd);
    if (rc == SHALE_OK) {
        rc = os_lock_test(fd, OS_LIVE_BYTE, 1, true, &taken);
    }
    os_close(&fd);
    if (taken) {
        return err_set(SHALE_BUSY, "%s: processes have it open: end them, then repair", r->s.from);
    }
    return rc == SHALE_NOTFOUND || rc == SHALE_PERM ? SHALE_OK : rc;
}

static int lock_out(struct repair *r)
{
    int fd = -1;
    int rc = os_open(r->s.dirfd, "LOCK", O_RDWR, 0, &fd);
    if (rc == SHALE_NOTFOUND || rc == SHALE_PERM) {
        return check_nobody(r);
    }
    if (rc == SHALE_OK) {
        rc = os_roles_init(&r->roles, fd);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_role_try(&r->roles, OS_ROLE_OPEN);
    r->locked = rc == SHALE_OK;
    if (rc == SHALE_BUSY) {
        return err_set(rc, "%s: another process is opening it", r->s.from);
    }
    return rc == SHALE_OK ? check_nobody(r) : rc;
}

/* ---- what is there ---- */

static int note_manifest(void *ctx, const char *name)
{
    struct repair *r = ctx;
    uint64_t number;
    if (manifest_parse_name(name, &number) && number < r->newest_below && number >= r->newest_manifest) {
        r->newest_manifest = number;
        r->any = true;
    }
    return SHALE_OK;
}

/* One that a newer library wrote is not damaged: it is for that library to repair. */
static int try_manifest(struct repair *r, uint64_t number)
{
    char text[256], name[MANIFEST_NAME_SIZE];
    manifest_name(number, name);
    int rc = manifest_load(r->s.dirfd, number, UINT64_MAX, &r->v);
    (void)snprintf(text, sizeof text, "%s", rc == SHALE_OK ? "" : shale_errmsg());
    if (rc == SHALE_NOTFOUND) {
        salvage_lost(&r->s, "CURRENT names %s, which is missing", name);
        return SHALE_OK;
    }
    if (salvage_is_damage(rc) && salvage_can_open(&r->s, name)) {
        salvage_lost(&r->s, "%s", text);
        return SHALE_OK;
    }
    return rc;
}

/* CURRENT's, else the newest that can be read: an older one only differs by edits, a table that has gone
 * since is missed and told. */
static int find_version(struct repair *r)
{
    uint64_t number = 0;
    int rc = current_read(r->s.dirfd, &number);
    if (rc == SHALE_OK) {
        r->any = true;
        rc = try_manifest(r, number);
    } else if (rc == SHALE_NODB || salvage_is_damage(rc)) {
        salvage_lost(&r->s, "%s", rc == SHALE_NODB ? "CURRENT is missing" : shale_errmsg());
        rc = SHALE_OK;
    }
    r->newest_below = UINT64_MAX;
    while (rc == SHALE_OK && r->v == NULL && r->newest_below != 0) {
        r->newest_manifest = 0;
        rc = os_list(r->s.dirfd, note_manifest, r);
        r->newest_below = r->newest_manifest;
        if (rc == SHALE_OK && r->newest_manifest != 0 && r->newest_manifest != number) {
            rc = try_manifest(r, r->newest_manifest);
        }
    }
    return rc;
}

static int push(void **array, size_t *count, size_t *cap, size_t size)
{
    if (*count == *cap) {
        size_t more = *cap == 0 ? 64 : 2 * *cap;
        void *p = base_realloc(*array, more * size);
        if (p == NULL) {
            return SHALE_NOMEM;
        }
        *array = p;
        *cap = more;
    }
    ++*count;
    return SHALE_OK;
}

static int note_file(void *ctx, const char *name)
{
    struct repair *r = ctx;
    uint64_t table;
    uint32_t segment;
    bool tmp;
    if (wal_parse_name(name, &segment)) {
        void *array = r->segments;
        int rc = push(&array, &r->segment_count, &r->segment_cap, sizeof segment);
        r->segments = array;
        if (rc == SHALE_OK) {
            r->segments[r->segment_count - 1] = segment;
        }
        return rc;
    }
    if (table_parse_name(name, &table, &tmp) && !tmp) {
        void *array = r->tables;
        int rc = push(&array, &r->table_count, &r->table_cap, sizeof table);
        r->tables = array;
        if (rc == SHALE_OK) {
            r->tables[r->table_count - 1] = table;
        }
        return rc;
    }
    return SHALE_OK;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static bool has_number(const uint64_t *numbers, size_t count, uint64_t number)
{
    size_t i = 0;
    while (i < count && numbers[i] != number) {
        i++;
    }
    return i < count;
}

/* The first table that the version names and that is not there; where the oldest segment is not there, its
 * last. A version that was current has neither: the edits are missing that followed. UINT64_MAX: all there.
 */
static uint64_t lost_from(const struct repair *r)
{
    uint64_t first = UINT64_MAX, last = 0;
    bool log = false;
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; i < r->v->level[l].count; i++) {
            uint64_t number = r->v->level[l].tables[i]->info.number;
            last = number > last ? number : last;
            if (number < first && !has_number(r->tables, r->table_count, number)) {
                first = number;
            }
        }
    }
    for (size_t i = 0; i < r->segment_count; i++) {
        log = log || r->segments[i] == r->v->oldest;
    }
    return first == UINT64_MAX && !log ? last : first;
}

/* What the missing edits have put in the place of what they removed. */
static int add_unnamed(struct repair *r)
{
    uint64_t from = lost_from(r);
    int rc = SHALE_OK;
    for (size_t i = 0; rc == SHALE_OK && i < r->table_count; i++) {
        if (r->tables[i] > from && !version_has(r->v, r->tables[i])) {
            salvage_lost(&r->s, "the manifest lacks its end: %06llu.sst is not in it, and is saved too",
                         (unsigned long long)r->tables[i]);
            rc = salvage_add_table(&r->s, r->tables[i]);
        }
    }
    return rc;
}

static int add_tables(struct repair *r)
{
    int rc = r->v != NULL ? add_unnamed(r) : SHALE_OK;
    for (size_t i = 0; r->v == NULL && rc == SHALE_OK && i < r->table_count; i++) {
        rc = salvage_add_table(&r->s, r->tables[i]);
    }
    for (unsigned l = 0; r->v != NULL && l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; rc == SHALE_OK && i < r->v->level[l].count; i++) {
            rc = salvage_add_table(&r->s, r->v->level[l].tables[i]->info.number);
        }
    }
    return rc;
}

/* ---- the log ---- */

/* The records behind `*seq`, up to which tables hold everything: memtables are flushed whole and in order.
 * Where no record stands the next place is looked at, up to the end: a checksum tells for sure what is one.
 */
static int replay(struct repair *r, struct mem_index *mem, uint64_t *seq, uint64_t *bytes)
{
    struct wal_segment *seg = mem->seg;
    uint32_t offset = WAL_FIRST;
    struct wal_view rec;
    int rc = SHALE_OK;
    while (rc == SHALE_OK && offset < seg->size) {
        rc = wal_read(seg, offset, &rec);
        if (rc == SHALE_NOTFOUND) {
            offset += 8;
            rc = SHALE_OK;
            continue;
        }
        if (rc == SHALE_OK && rec.first_seq > *seq) {
            if (rec.first_seq != *seq + 1) {
                salvage_lost(&r->s, "%06u.wal: entries %llu to %llu are lost, before the record at %u",
                             seg->number, (unsigned long long)*seq + 1, (unsigned long long)rec.first_seq - 1,
                             offset);
            }
            rc = mem_insert_record(mem, &rec);
            *bytes += rec.payload.size;
            *seq = rec.first_seq + rec.count - 1;
        }
        if (salvage_is_damage(rc)) {
            salvage_lost(&r->s, "%s", shale_errmsg());
            rc = SHALE_OK;
        }
        offset = rec.end;
    }
    return rc;
}

static int add_segment(struct repair *r, uint32_t number, uint64_t *seq)
{
    struct wal_segment *seg = NULL;
    struct mem_index *mem = NULL;
    uint64_t bytes = 0;
    char text[256], name[WAL_NAME_SIZE];
    wal_name(number, name);
    int rc = wal_open(r->s.dirfd, r->v != NULL ? r->v->uuid : NULL, number, false, &seg);
    (void)snprintf(text, sizeof text, "%s",
                   rc == SHALE_NOTFOUND ? "it carries another number, or is locked" : shale_errmsg());
    if (rc == SHALE_CORRUPT && wal_open_damaged(r->s.dirfd, number, &seg) == SHALE_OK) {
        salvage_lost(&r->s, "%s: its records are saved as far as they verify", text);
        rc = SHALE_OK;
    }
    bool damaged = rc == SHALE_NOTFOUND || rc == SHALE_MISMATCH || salvage_is_damage(rc);
    if (damaged && salvage_can_open(&r->s, name)) {
        salvage_lost(&r->s, "%s is lost: %s", name, text);
        return SHALE_OK;
    }
    if (rc == SHALE_OK) {
        rc = mem_open_private(seg, &mem);
    }
    wal_unref(seg);
    if (rc == SHALE_OK) {
        rc = replay(r, mem, seq, &bytes);
    }
    if (rc != SHALE_OK) {
        mem_unref(mem);
        return rc;
    }
    return salvage_add_mem(&r->s, mem, bytes);
}

/* With a manifest: from its oldest segment on. Without: all; what is behind the newest entry of the tables
 * counts. */
static int add_log(struct repair *r)
{
    int rc = SHALE_OK;
    uint32_t expected = r->v != NULL ? r->v->oldest : 0;
    uint64_t seq = r->v != NULL ? r->v->last_seq : r->s.max_seq;
    if (r->segment_count != 0) {
        qsort(r->segments, r->segment_count, sizeof r->segments[0], by_number);
    }
    for (size_t i = 0; rc == SHALE_OK && i < r->segment_count; i++) {
        uint32_t number = r->segments[i];
        if (r->v != NULL && number < r->v->oldest) {
            continue;
        }
        if (expected != 0 && number != expected) {
            salvage_lost(&r->s, "%06u.wal is missing", expected);
        }
        expected = number + 1;
        rc = add_segment(r, number, &seq);
    }
    if (rc == SHALE_OK && r->v != NULL && expected == r->v->oldest) {
        salvage_lost(&r->s, "%06u.wal is missing", expected);
    }
    r->s.max_seq = seq > r->s.max_seq ? seq : r->s.max_seq;
    return rc;
}

/* ---- the new database ---- */

static int write_version(struct repair *r)
{
    struct salvage *s = &r->s;
    unsigned char uuid[VERSION_UUID_SIZE];
    struct version *empty = NULL, *v = NULL;
    uint64_t length;
    os_random(uuid, sizeof uuid);
    int rc = wal_make(s->into, uuid, 1, WAL_MIN_SIZE, s->options.mode, 0);
    rc = rc == SHALE_EXISTS ? err_set(rc, "%s: a log segment appeared while it was being made", s->path) : rc;
    if (rc == SHALE_OK) {
        rc = version_create(uuid, &s->shape, 1, &empty);
    }
    s->edit.has_last_seq = true;
    s->edit.last_seq = s->max_seq;
    if (rc == SHALE_OK) {
        rc = version_apply(empty, &s->edit, &v);
    }
    if (rc == SHALE_OK) {
        v->next_table = s->next_table;
        rc = manifest_create(s->into, 1, v, s->options.mode, &length);
    }
    if (rc == SHALE_OK) {
        rc = db_target_sync(s->path);
    }
    version_unref(empty);
    version_unref(v);
    return rc;
}

/* The shape of files: as it was, if that is known. */
static void choose_shape(struct repair *r)
{
    const shale_options *o = &r->s.options;
    if (r->v != NULL) {
        r->s.shape = r->v->options;
        return;
    }
    r->s.shape = (struct version_options){.block_bytes = o->block_bytes,
                                          .target_table_bytes = o->target_table_bytes,
                                          .bloom_bits = o->bloom_bits,
                                          .compression = (uint32_t)o->compression,
                                          .level_ratio = o->level_ratio,
                                          .comparator = "bytes"};
}

static int gather(struct repair *r)
{
    int rc = lock_out(r);
    if (rc == SHALE_OK) {
        rc = find_version(r);
    }
    if (rc == SHALE_OK) {
        rc = os_list(r->s.dirfd, note_file, r);
    }
    if (rc == SHALE_OK && !r->any && r->segment_count == 0 && r->table_count == 0) {
        rc = err_set(SHALE_NODB, "%s: no database there, nor parts of one", r->s.from);
    }
    if (rc == SHALE_OK) {
        choose_shape(r);
        rc = add_tables(r);
    }
    return rc == SHALE_OK ? add_log(r) : rc;
}

static int make(struct repair *r)
{
    struct salvage *s = &r->s;
    struct db_target target;
    int rc = db_target_make(s->path, s->options.mode, &target);
    if (rc != SHALE_OK) {
        return rc;
    }
    s->into = target.fd;
    rc = salvage_run(s);
    if (rc == SHALE_OK) {
        rc = write_version(r);
    }
    if (rc != SHALE_OK && rc != SHALE_EXISTS) { /* else another is making something there */
        table_build_abandon(s->builder);
        s->builder = NULL;
        db_target_clear(&target);
        s->into = -1;
    }
    if (rc == SHALE_OK && s->options.log != NULL) {
        char line[256];
        (void)snprintf(line, sizeof line, "%s: %llu entries salvaged, %llu losses", s->path,
                       (unsigned long long)s->entries, (unsigned long long)s->losses);
        s->options.log(s->options.log_ctx, 2, line);
    }
    return rc;
}

int shale_repair(const char *dir, const char *into, const shale_options *options, shale_progress progress,
                 void *ctx)
{
    struct repair r = {
        .s = {.from = dir, .path = into, .dirfd = -1, .into = -1, .progress = progress, .ctx = ctx},
        .roles = {.fd = -1}};
    if (dir == NULL || dir[0] == '\0' || into == NULL || into[0] == '\0') {
        return err_set(SHALE_INVALID, "shale_repair: a directory is missing");
    }
    int rc = options_check(options, &r.s.options);
    if (rc == SHALE_OK) {
        rc = os_open_dir(dir, &r.s.dirfd);
    }
    if (rc == SHALE_OK) {
        rc = gather(&r);
    }
    if (rc == SHALE_OK) {
        rc = make(&r);
    }
    if (r.locked) {
        os_role_unlock(&r.roles, OS_ROLE_OPEN);
    }
    if (r.roles.fd >= 0) {
        os_roles_release(&r.roles);
    }
    salvage_release(&r.s);
    version_unref(r.v);
    free(r.segments);
    free(r.tables);
    os_close(&r.s.into);
    os_close(&r.s.dirfd);
    os_audit_clean("shale_repair");
    return rc;
}
