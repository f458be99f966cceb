/* recover.c - cold open: nobody is connected, and what the last ones left in shared memory is not to be
 * relied on.
 *
 * [I-19] In this order, so that a process killed anywhere leaves a directory from which the next one starts
 * over:
 *
 *   1  CURRENT and its manifest: the version
 *   2  replay the segments from `oldest` on, each record verified; what they hold goes to new tables in L0,
 * fsynced 3  every .mem goes: a new life makes new ones (memdir.c: where) 4  a new segment with a fresh salt
 * 5  a new manifest that names tables and segment; CURRENT is renamed onto it: this is the commit 6  every
 * other segment that was found, and orphans, go 7  STATE is initialised in place, magic last [I-1]
 *
 * Nothing replayed stays in a log, so nothing that a failed sync left in the page cache is ever built on, and
 * a segment that was found is never appended to. [I-14] Replay goes segment by segment; the first record of a
 * segment continues the last of the one before; at a gap it stops: what follows was never acknowledged as
 * durable.
 *
 * Creating a database is the same with an empty version: CURRENT comes last.
 *
 * A read-only handle that finds no usable STATE replays into memory of its own instead, and writes nothing.
 */
#include "db/replay.h"

#include <stdlib.h>

/* ---- what is in the directory ---- */

struct found {
    uint32_t first_segment, last_segment; /* 0: none */
    uint64_t last_table, last_manifest;
    bool any_table;
};

static int note_name(void *ctx, const char *name)
{
    struct found *f = ctx;
    uint32_t segment;
    uint64_t number;
    bool tmp;
    if (wal_parse_name(name, &segment)) {
        f->last_segment = segment > f->last_segment ? segment : f->last_segment;
        f->first_segment = f->first_segment == 0 || segment < f->first_segment ? segment : f->first_segment;
    } else if (table_parse_name(name, &number, &tmp)) {
        f->last_table = number > f->last_table ? number : f->last_table;
        f->any_table = f->any_table || !tmp;
    } else if (manifest_parse_name(name, &number)) {
        f->last_manifest = number > f->last_manifest ? number : f->last_manifest;
    }
    return 0;
}

static int has_record(shale_db *db, uint32_t number)
{
    struct wal_segment *seg = NULL;
    struct wal_view rec;
    int rc = wal_open(db->dirfd, NULL, number, false, &seg);
    if (rc == SHALE_OK) {
        rc = wal_read(seg, WAL_FIRST, &rec);
    }
    wal_unref(seg);
    return rc;
}

int db_check_empty(shale_db *db)
{
    struct found f = {0};
    int rc = os_list(db->dirfd, note_name, &f);
    if (rc != SHALE_OK) {
        return rc;
    }
    bool data = f.any_table;
    for (uint32_t n = f.first_segment; !data && n != 0 && n <= f.last_segment; n++) {
        data = has_record(db, n) == SHALE_OK;
    }
    uint64_t manifest;
    if (data && current_read(db->dirfd, &manifest) != SHALE_NODB) {
        return SHALE_EXISTS; /* the data came after it, and it came after the caller had looked */
    }
    if (data) {
        return err_set(
            SHALE_CORRUPT,
            "%s: CURRENT is missing, but there are tables or log records: restore CURRENT from a backup, or "
            "salvage with repair; nothing was changed",
            db->path);
    }
    return SHALE_OK;
}

/* ---- cold ---- */

static int write_replayed(shale_db *db, const struct version *v, struct version_edit *edit, struct replay *r)
{
    *r = replay_start(v);
    for (;;) {
        struct mem_index *mem;
        int rc = replay_next(db, v, r, &mem);
        if (rc != SHALE_OK || mem == NULL) {
            return rc != SHALE_OK ? rc : replay_check(db, r);
        }
        os_mark(OS_MARK_RECOVER);
        if (mem_entries(mem) != 0) {
            struct table_info info = {0};
            rc = db_write_mem_table(db, mem, r->last_seq, &info);
            if (rc == SHALE_OK) {
                rc = version_edit_add(edit, 0, &info);
            }
            table_info_release(&info);
        }
        mem_unref(mem);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

static void fresh_version(shale_db *db, struct version *v)
{
    const shale_options *o = &db->options;
    *v = (struct version){.oldest = 1, .next_table = 1};
    atomic_init(&v->refs, 1);
    v->options = (struct version_options){.block_bytes = o->block_bytes,
                                          .target_table_bytes = o->target_table_bytes,
                                          .bloom_bits = o->bloom_bits,
                                          .compression = (uint32_t)o->compression,
                                          .level_ratio = o->level_ratio,
                                          .comparator = "bytes"};
    os_random(v->uuid, sizeof v->uuid);
}

/* The file-shaping options of an existing database, before tables are written. */
static void use_version_options(shale_db *db, const struct version_options *v)
{
    db->options.block_bytes = v->block_bytes;
    db->options.bloom_bits = v->bloom_bits;
    db->options.compression = (int)v->compression;
}

static int unlink_mem(void *ctx, const char *name)
{
    shale_db *db = ctx;
    uint32_t number;
    return mem_parse_name(name, &number) ? os_unlink(db->dirfd, name) : 0;
}

static int make_first_segment(shale_db *db, uint32_t number)
{
    struct wal_segment *seg = NULL;
    int rc = wal_make(db->dirfd, db->uuid, number, WAL_MIN_SIZE, db->options.mode, 0);
    if (rc == SHALE_EXISTS) {
        rc = err_set(SHALE_IO, "%s: segment %u appeared while it was being made", db->path, number);
    }
    if (rc == SHALE_OK) {
        rc = wal_open(db->dirfd, db->uuid, number, true, &seg);
    }
    if (rc == SHALE_OK) {
        rc = db_mem_make(db, seg);
    }
    wal_unref(seg);
    return rc;
}

static void fill_state(struct state *s, const struct version *v, uint64_t manifest, uint64_t length)
{
    uint64_t end = wal_lsn(v->oldest, WAL_FIRST);
    uint64_t epoch;
    /* An epoch of an earlier life must not come back: a read-only handle may still hold a view of it. */
    os_random(&epoch, sizeof epoch);
    atomic_store(&s->epoch, epoch >> 2);
    state_store_tuple(s, manifest, length, v->oldest);
    atomic_store(&s->wal_end, end);
    atomic_store(&s->visible_seq, v->last_seq);
    atomic_store(&s->sync_attempt, end);
    atomic_store(&s->synced_lsn, end);
    atomic_store(&s->synced_seq, v->last_seq);
    atomic_store(&s->ready, v->oldest);
    atomic_store(&s->durable_group, 0);
}

/* Steps 3 to 5. *next is the version that the new manifest holds. */
static int commit_recovered(shale_db *db, const struct version *v, struct version_edit *edit,
                            const struct found *f, struct version **next, uint64_t *manifest,
                            uint64_t *length)
{
    uint32_t segment = (f->last_segment > v->oldest ? f->last_segment : v->oldest) + 1;
    int rc = os_list(db->dirfd, unlink_mem, db);
    os_mark(OS_MARK_RECOVER);
    if (rc == SHALE_OK) {
        rc = make_first_segment(db, segment);
    }
    os_mark(OS_MARK_RECOVER);
    if (rc == SHALE_OK) {
        rc = os_sync_dir(db->dirfd); /* the tables' names */
    }
    edit->has_oldest = true;
    edit->oldest = segment;
    if (rc == SHALE_OK) {
        rc = version_apply(v, edit, next);
    }
    if (rc == SHALE_OK) {
        (*next)->next_table = atomic_load(&db->state_map.state->next_table);
        *manifest = (v->manifest > f->last_manifest ? v->manifest : f->last_manifest) + 1;
        rc = manifest_create(db->dirfd, *manifest, *next, db->options.mode, length);
    }
    return rc;
}

static int recover_version(shale_db *db, const struct version *v, const struct found *f, bool fresh)
{
    struct version_edit edit = {0};
    struct version *next = NULL;
    struct replay r = replay_start(v);
    uint64_t manifest, length;
    int rc = SHALE_OK;
    if (!fresh) {
        use_version_options(db, &v->options);
        rc = write_replayed(db, v, &edit, &r);
    }
    if (rc != SHALE_OK) {
        db_drop_outputs(db, &edit); /* who refuses to open changes nothing, however often it is asked */
    }
    edit.has_last_seq = true;
    edit.last_seq = r.last_seq;
    if (rc == SHALE_OK) {
        rc = commit_recovered(db, v, &edit, f, &next, &manifest, &length);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_RECOVER);
        rc = db_sweep_locked(db, next, v->next_table, true);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_RECOVER);
        fill_state(db->state_map.state, next, manifest, length);
        state_ready(&db->state_map);
        db->state = db->state_map.state;
        db_log(db, 2, "%s: recovered %llu entries from the log into %zu tables", db->path,
               (unsigned long long)(r.last_seq - v->last_seq), edit.added_count);
    }
    version_unref(next);
    version_edit_release(&edit);
    return rc;
}

/* What the last life had in memory goes, for then its name is forgotten. Another user's, which may not be
 * removed, is not worth refusing the database. */
static int begin_life(shale_db *db, const struct stat *lock, const struct version *v)
{
    int rc = db_mem_dir_remove(&db->state_map, lock);
    if (rc == SHALE_PERM) {
        db_log(db, 1, "%s: indices of an earlier life stay behind: %s", db->path, shale_errmsg());
    } else if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(OS_MARK_RECOVER);
    state_begin(&db->state_map, lock, v->uuid);
    os_mark(OS_MARK_RECOVER);
    return SHALE_OK;
}

/* ---- a manifest that lost its end ---- */

struct lost_end {
    shale_db *db;
    const struct version *v;
    uint64_t missing, newer; /* tables; 0: none */
};

static int note_newer(void *ctx, const char *name)
{
    struct lost_end *l = ctx;
    uint64_t number;
    bool tmp;
    if (table_parse_name(name, &number, &tmp) && !tmp && number > l->missing && !version_has(l->v, number)) {
        l->newer = number;
    }
    return SHALE_OK;
}

/* A table that is missing is found by who needs it. But where a newer one is there that no version names, it
 * is the edit that is missing, which put the one in the other's place; and a sweep would remove it. */
static int check_lost_end(shale_db *db, const struct version *v)
{
    struct lost_end lost = {.db = db, .v = v};
    int rc = SHALE_OK;
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; rc == SHALE_OK && i < v->level[l].count; i++) {
            char name[TABLE_NAME_SIZE];
            struct stat st;
            uint64_t number = v->level[l].tables[i]->info.number;
            table_name(number, name);
            rc = os_stat_at(db->dirfd, name, &st);
            if (rc == SHALE_NOTFOUND) {
                lost.missing = lost.missing == 0 || number < lost.missing ? number : lost.missing;
                rc = SHALE_OK;
            }
        }
    }
    if (rc == SHALE_OK && lost.missing != 0) {
        rc = os_list(db->dirfd, note_newer, &lost);
    }
    if (rc == SHALE_OK && lost.newer != 0) {
        rc =
            err_set(SHALE_CORRUPT,
                    "%s: MANIFEST-%06llu: lacks its end: it names %06llu.sst, which is missing, and does not "
                    "name %06llu.sst: restore a backup, or salvage with repair; nothing was changed",
                    db->path, (unsigned long long)v->manifest, (unsigned long long)lost.missing,
                    (unsigned long long)lost.newer);
    }
    return rc;
}

int db_recover(shale_db *db)
{
    struct found f = {0};
    struct version fresh, *loaded = NULL;
    const struct version *v = &fresh;
    struct stat lock = {.st_dev = db->lock_dev, .st_ino = db->lock_ino};
    uint64_t manifest = 0;
    int rc = current_read(db->dirfd, &manifest);
    bool create = rc == SHALE_NODB;
    if (create) {
        fresh_version(db, &fresh);
        rc = SHALE_OK;
    } else if (rc == SHALE_OK) {
        rc = manifest_load(db->dirfd, manifest, UINT64_MAX, &loaded);
        v = loaded;
        rc = rc == SHALE_NOTFOUND ? err_set(SHALE_CORRUPT,
                                            "%s: CURRENT names MANIFEST-%06llu, which is missing: restore it "
                                            "from a backup, or salvage with repair",
                                            db->path, (unsigned long long)manifest)
                                  : rc;
        rc = rc == SHALE_OK ? version_check_writable(v) : rc;
        rc = rc == SHALE_OK ? check_lost_end(db, v) : rc;
    }
    if (rc == SHALE_OK) {
        rc = os_list(db->dirfd, note_name, &f);
    }
    if (rc == SHALE_OK) {
        memcpy(db->uuid, v->uuid, sizeof db->uuid);
        rc = state_map(db->dirfd, true, true, db->options.mode, &db->state_map);
    }
    if (rc == SHALE_OK) {
        rc = begin_life(db, &lock, v);
    }
    if (rc == SHALE_OK) {
        uint64_t next = f.last_table + 1 > v->next_table ? f.last_table + 1 : v->next_table;
        atomic_store(&db->state_map.state->next_table, next);
        rc = db_mem_dir_make(db, db->state_map.state);
        if (rc == SHALE_OK) {
            rc = recover_version(db, v, &f, create);
        }
        if (rc != SHALE_OK) {
            db_mem_dir_drop(db, db->state_map.state);
        }
    }
    version_unref(loaded);
    return rc;
}

/* ---- read-only, without a STATE ---- */

/* The manifest's length tells of a flush by a writer whose STATE this handle cannot map. */
static int look_around(shale_db *db, struct db_seen *seen)
{
    struct stat st;
    *seen = (struct db_seen){0};
    int rc = os_stat_at(db->dirfd, STATE_NAME, &st);
    if (rc == SHALE_OK) {
        seen->state_ino = st.st_ino;
        if (db->state_map.state != NULL && db->state_map.ino == st.st_ino) {
            seen->mapped = true;
            seen->magic = atomic_load_explicit(&db->state_map.state->magic, memory_order_acquire);
            seen->generation = atomic_load_explicit(&db->state_map.state->generation, memory_order_acquire);
        }
        rc = SHALE_OK;
    } else if (rc == SHALE_NOTFOUND) {
        rc = SHALE_OK;
    }
    if (rc == SHALE_OK) {
        rc = current_read(db->dirfd, &seen->manifest);
    }
    if (rc == SHALE_OK) {
        char name[MANIFEST_NAME_SIZE];
        manifest_name(seen->manifest, name);
        rc = os_stat_at(db->dirfd, name, &st);
        seen->length = rc == SHALE_OK ? (uint64_t)st.st_size : 0;
        rc = rc == SHALE_NOTFOUND ? SHALE_OK : rc; /* whoever loads it says what that means */
    }
    return rc;
}

static bool same_look(const struct db_seen *a, const struct db_seen *b)
{
    return a->state_ino == b->state_ino && a->mapped == b->mapped && a->magic == b->magic &&
           a->generation == b->generation && a->manifest == b->manifest && a->length == b->length;
}

bool db_replay_moved(shale_db *db, const struct db_view *view)
{
    struct db_seen now;
    os_mutex_lock(&db->adopt_mutex);
    bool same = look_around(db, &now) == SHALE_OK && same_look(&now, &view->seen);
    os_mutex_unlock(&db->adopt_mutex);
    return !same;
}

/* A STATE that is there but could not be mapped may have become usable, and nothing would tell. */
bool db_replay_still_good(shale_db *db, const struct db_view *view)
{
    return (view->seen.mapped || view->seen.state_ino == 0) && !db_replay_moved(db, view);
}

/* Maps the STATE that is there now, if it is another one than the handle has. Old mappings stay until close:
 * views may use them. */
static bool attach_readonly(shale_db *db)
{
    struct stat st, lock;
    if (os_stat_at(db->dirfd, STATE_NAME, &st) != SHALE_OK ||
        os_stat_at(db->dirfd, "LOCK", &lock) != SHALE_OK) {
        return false;
    }
    if (db->state_map.state == NULL || db->state_map.ino != st.st_ino) {
        struct state_map fresh = {0};
        if (state_map(db->dirfd, false, false, 0, &fresh) != SHALE_OK) {
            return false;
        }
        if (db->state_map.state != NULL) {
            if (db->old_state_count == BASE_COUNT(db->old_states)) {
                state_unmap(&fresh);
                return false;
            }
            db->old_states[db->old_state_count++] = db->state_map;
        }
        db->state_map = fresh;
        db->mem_generation = 0; /* another file's number: never that of a STATE that is in order */
    }
    uint64_t generation = atomic_load_explicit(&db->state_map.state->generation, memory_order_acquire);
    return (generation & 1) == 0 && state_check(&db->state_map, &lock) == SHALE_OK;
}

static int replay_all(shale_db *db, struct version *v, struct db_view **out)
{
    struct mem_index *mems[DB_MAX_MEMS];
    unsigned count = 0;
    struct replay r = replay_start(v);
    struct db_view *view = NULL;
    int rc = SHALE_OK;
    while (rc == SHALE_OK) {
        struct mem_index *mem;
        rc = replay_next(db, v, &r, &mem);
        if (rc != SHALE_OK || mem == NULL) {
            break;
        }
        if (mem_entries(mem) == 0) {
            mem_unref(mem);
        } else if (count == DB_MAX_MEMS) {
            mem_unref(mem);
            rc = err_set(SHALE_CORRUPT, "%s: more than %d log segments hold data", db->path, DB_MAX_MEMS);
        } else {
            mems[count++] = mem;
        }
    }
    if (rc == SHALE_OK) {
        rc = replay_check(db, &r);
    }
    if (rc == SHALE_OK) {
        view = base_calloc(1, sizeof *view + (count + 1) * sizeof view->mem[0]);
        rc = view == NULL ? SHALE_NOMEM : SHALE_OK;
    }
    if (rc != SHALE_OK) {
        while (count > 0) {
            mem_unref(mems[--count]);
        }
        return rc;
    }
    atomic_init(&view->refs, 1);
    view->private_replay = true;
    view->private_seq = r.last_seq;
    view->version = version_ref(v);
    view->mem_count = count;
    for (unsigned i = 0; i < count; i++) {
        view->mem[i] = mems[count - 1 - i];
    }
    db_view_link(db, view);
    *out = view;
    return SHALE_OK;
}

/* The first look comes before STATE is judged: a STATE that becomes usable after the judgement is another
 * look. */
int db_replay_private(shale_db *db, struct db_view **view)
{
    for (int tries = 0;; tries++) {
        struct db_seen before, after;
        struct version *v = NULL;
        int looked = look_around(db, &before), rc = looked;
        if (attach_readonly(db)) {
            memcpy(db->uuid, db->state_map.state->uuid, sizeof db->uuid);
            db->state = db->state_map.state;
            *view = NULL;
            return SHALE_OK;
        }
        if (rc == SHALE_NODB) {
            int empty = db_check_empty(db);
            if (empty == SHALE_EXISTS && tries < 100) {
                continue;
            }
            return empty != SHALE_OK ? empty : err_set(SHALE_NODB, "%s: no database there", db->path);
        }
        if (rc == SHALE_OK) {
            rc = manifest_load(db->dirfd, before.manifest, UINT64_MAX, &v);
        }
        if (rc == SHALE_OK) {
            memcpy(db->uuid, v->uuid, sizeof db->uuid);
            rc = replay_all(db, v, view);
        }
        version_unref(v);
        int again = look_around(db, &after);
        if (again == looked && same_look(&before, &after)) { /* also where CURRENT is damaged each time */
            if (rc == SHALE_OK) {
                (*view)->seen = before;
            }
            return rc;
        }
        if (rc == SHALE_OK) {
            db_view_unref(*view);
            *view = NULL;
        }
        if (tries == 100) {
            return err_set(SHALE_BUSY,
                           "%s: the database keeps changing hands while it is being read: try again",
                           db->path);
        }
        os_nap(1000000);
    }
}
