/* read.c - point reads and snapshots.
 *
 * The newest entry decides: active memtable, sealed ones newest first, L0 newest first, then at most one
 * table a level. One key hash serves every filter on the way. The path writes no line that threads share: the
 * view is held through a hazard, counters are the thread's own. What is handed out is a copy when it is
 * small, which costs less than a shared reference count; a large value is pinned where it lies.
 */
#include "db/db.h"

#include <stdlib.h>

#define COPY_MAX 4096 /* bytes of a value that are copied rather than pinned */

/* ---- looking up ---- */

static int hit_from(uint8_t type, struct slice value, struct table *t, struct db_hit *hit)
{
    hit->type = type;
    hit->value = value;
    hit->table = t;
    return type == TABLE_PUT ? SHALE_OK : SHALE_NOTFOUND;
}

/* Where a key may be below the memtables: in any table of L0, and in at most one of each level. */
struct below {
    uint64_t hash;
    uint32_t tables; /* in which it may be */
    struct version_table *at[VERSION_LEVELS];
};

static void ask_for_filter(const struct version_table *vt, uint64_t hash)
{
    const struct table *t = atomic_load_explicit(&vt->reader, memory_order_acquire);
    if (t != NULL) {
        table_prefetch(t, hash);
    }
}

/* Done before the memtables are searched: meanwhile the lines of all filters come from memory at the same
 * time, instead of one after the other. */
static void look_ahead(const struct db_view *view, struct slice key, struct below *b)
{
    const struct version *v = view->version;
    b->hash = key_hash(key);
    for (unsigned i = 0; i < view->mem_count; i++) {
        mem_filter_prefetch(view->mem[i], b->hash);
    }
    b->tables = v->level[0].count;
    for (uint32_t i = 0; i < v->level[0].count; i++) {
        ask_for_filter(v->level[0].tables[i], b->hash);
    }
    for (unsigned l = 1; l < VERSION_LEVELS; l++) {
        b->at[l] = v->level[l].count != 0 ? version_find(v, l, key) : NULL;
        if (b->at[l] != NULL) {
            b->tables++;
            ask_for_filter(b->at[l], b->hash);
        }
    }
}

static int look_in_table(shale_db *db, struct version_table *vt, struct slice key, const struct below *b,
                         struct db_hit *hit, bool *decided, bool *gone)
{
    struct table *t;
    struct table_hit th;
    int rc = version_table_open(vt, db->dirfd, db->cache, db->options.verify_checksums, &t);
    if (rc != SHALE_OK) {
        *gone = rc == SHALE_NOTFOUND;
        *decided = true;
        return rc;
    }
    rc = b->tables == 1 ? table_get(t, key, b->hash, &db->table_counters, &th, &hit->pin)
                        : table_get_unlikely(t, key, b->hash, &db->table_counters, &th, &hit->pin);
    *decided = rc != SHALE_NOTFOUND;
    return rc == SHALE_OK ? hit_from(th.type, th.value, t, hit) : rc;
}

static int look_in_tables(shale_db *db, const struct version *v, struct slice key, const struct below *b,
                          struct db_hit *hit, bool *gone)
{
    bool decided = false;
    for (uint32_t i = 0; i < v->level[0].count; i++) {
        struct version_table *vt = v->level[0].tables[i];
        if (slice_compare(key, buf_slice(&vt->info.smallest)) < 0 ||
            slice_compare(key, buf_slice(&vt->info.largest)) > 0) {
            continue;
        }
        int rc = look_in_table(db, vt, key, b, hit, &decided, gone);
        if (decided) {
            return rc;
        }
    }
    for (unsigned l = 1; l < VERSION_LEVELS; l++) {
        if (b->at[l] != NULL) {
            int rc = look_in_table(db, b->at[l], key, b, hit, &decided, gone);
            if (decided) {
                return rc;
            }
        }
    }
    return SHALE_NOTFOUND;
}

int db_view_lookup(shale_db *db, struct db_view *view, uint64_t seq, struct slice key, struct db_hit *hit,
                   bool *gone)
{
    struct below below;
    hit->pin = (struct table_pin){0};
    *gone = false;
    look_ahead(view, key, &below);
    for (unsigned i = 0; i < view->mem_count; i++) {
        struct mem_hit mh;
        if (!mem_may_hold(view->mem[i], below.hash)) {
            continue;
        }
        int rc = mem_get(view->mem[i], key, seq, &mh);
        if (rc == SHALE_OK) {
            return hit_from(mh.type, mh.value, NULL, hit);
        }
        if (rc != SHALE_NOTFOUND) {
            return rc;
        }
    }
    return look_in_tables(db, view->version, key, &below, hit, gone);
}

/* ---- values ---- */

/* What keeps a value's bytes: a copy, a cached block, or a view. */
struct value_pin {
    shale_db *db; /* its cache must outlive the block */
    struct table_pin block;
    struct db_view *view;
    unsigned char bytes[];
};

static int value_copy(struct slice from, shale_value *val)
{
    struct value_pin *p = base_alloc(sizeof *p + from.size + 1);
    if (p == NULL) {
        return SHALE_NOMEM;
    }
    p->db = NULL;
    p->block = (struct table_pin){0};
    p->view = NULL;
    if (from.size != 0) {
        memcpy(p->bytes, from.data, from.size);
    }
    *val = (shale_value){p->bytes, from.size, p};
    return SHALE_OK;
}

/* Takes hit's pin over. */
static int value_pin(shale_db *db, struct db_view *view, struct db_hit *hit, shale_value *val)
{
    struct value_pin *p = base_alloc(sizeof *p);
    if (p == NULL) {
        return SHALE_NOMEM;
    }
    p->db = db_ref(db);
    p->block = hit->pin;
    p->view = db_view_ref(view);
    hit->pin = (struct table_pin){0};
    *val = (shale_value){hit->value.data, hit->value.size, p};
    return SHALE_OK;
}

int db_value_make(shale_db *db, struct db_view *view, struct db_hit *hit, shale_value *val)
{
    return hit->value.size <= COPY_MAX ? value_copy(hit->value, val) : value_pin(db, view, hit, val);
}

int db_value_copy(struct slice from, shale_value *val)
{
    return value_copy(from, val);
}

void shale_value_release(shale_value *val)
{
    if (val == NULL || val->pin == NULL) {
        return;
    }
    struct value_pin *p = val->pin;
    table_pin_release(&p->block);
    db_view_unref(p->view);
    if (p->db != NULL) {
        db_unref(p->db);
    }
    free(p);
    *val = (shale_value){0};
}

/* ---- a read: in a snapshot, or now ---- */

struct read {
    struct db_guard guard; /* now */
    struct db_view *view;
    uint64_t seq;
    bool guarded;
};

static int read_begin(shale_db *db, const shale_snapshot *snap, struct read *r)
{
    r->guarded = snap == NULL;
    if (snap != NULL) {
        r->view = snap->view;
        r->seq = snap->seq;
        return SHALE_OK;
    }
    int rc = db_view_enter(db, &r->guard, &r->seq);
    if (rc == SHALE_OK) {
        r->view = r->guard.view;
    }
    return rc;
}

static void read_end(shale_db *db, struct read *r)
{
    if (r->guarded) {
        db_view_leave(db, &r->guard);
    }
}

static void count_get(shale_db *db, const struct read *r, bool found)
{
    if (r->guarded && r->guard.hazard != NULL) {
        /* the thread's own line: a plain increment */
        struct db_hazard *h = r->guard.hazard;
        atomic_store_explicit(&h->gets, atomic_load_explicit(&h->gets, memory_order_relaxed) + 1,
                              memory_order_relaxed);
        atomic_store_explicit(&h->gets_found,
                              atomic_load_explicit(&h->gets_found, memory_order_relaxed) + found,
                              memory_order_relaxed);
    } else {
        DB_COUNT(db, gets, 1);
        DB_COUNT(db, gets_found, found);
    }
}

static int check_read(shale_db *db, const shale_snapshot *snap, const void *key, size_t keylen)
{
    int rc = db_check(db);
    if (rc == SHALE_OK && snap != NULL && snap->db != db) {
        rc = err_set(SHALE_INVALID, "the snapshot belongs to another handle");
    }
    if (rc == SHALE_OK && key == NULL && keylen != 0) {
        rc = err_set(SHALE_INVALID, "a key of non-zero length has no data");
    }
    return rc;
}

/* A table of the view is gone: because the view is no longer the current one, or because it was lost? */
static bool view_is_stale(shale_db *db, struct db_view *view)
{
    if (view->private_replay) {
        return db_replay_moved(db, view);
    }
    return atomic_load_explicit(&db->state->epoch, memory_order_acquire) != view->epoch;
}

/* SHALE_CORRUPT, naming the first one. */
static int table_missing(shale_db *db, const struct db_view *view)
{
    struct stat st;
    char name[TABLE_NAME_SIZE] = "a table of the current version";
    bool found = false;
    for (unsigned l = 0; l < VERSION_LEVELS && !found; l++) {
        const struct version_level *level = &view->version->level[l];
        for (uint32_t i = 0; i < level->count && !found; i++) {
            char one[TABLE_NAME_SIZE];
            table_name(level->tables[i]->info.number, one);
            found = os_stat_at(db->dirfd, one, &st) == SHALE_NOTFOUND;
            if (found) {
                memcpy(name, one, sizeof name);
            }
        }
    }
    return err_set(SHALE_CORRUPT, "%s: %s is missing: restore it from a backup, or salvage with repair",
                   db->path, name);
}

/* Looks key up, and uses the hit while it is held. */
typedef int (*use_hit)(void *ctx, shale_db *db, struct db_view *view, struct db_hit *hit);

static int get_with(shale_db *db, const shale_snapshot *snap, struct slice key, use_hit use, void *ctx)
{
    for (;;) {
        struct read r;
        struct db_hit hit;
        bool gone;
        int rc = read_begin(db, snap, &r);
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = db_view_lookup(db, r.view, r.seq, key, &hit, &gone);
        if (rc == SHALE_OK || rc == SHALE_NOTFOUND) {
            count_get(db, &r, rc == SHALE_OK);
        }
        if (rc == SHALE_OK) {
            rc = use(ctx, db, r.view, &hit);
        }
        bool lost = gone && (snap != NULL || !view_is_stale(db, r.view));
        rc = lost ? table_missing(db, r.view) : rc;
        table_pin_release(&hit.pin);
        read_end(db, &r);
        if (!gone || lost) {
            return rc;
        }
    }
}

static int use_value(void *ctx, shale_db *db, struct db_view *view, struct db_hit *hit)
{
    return db_value_make(db, view, hit, ctx);
}

int shale_get(shale_db *db, const shale_snapshot *snap, const void *key, size_t keylen, shale_value *val)
{
    if (val == NULL) {
        return err_set(SHALE_INVALID, "shale_get: no place for the value");
    }
    *val = (shale_value){0};
    int rc = check_read(db, snap, key, keylen);
    return rc != SHALE_OK ? rc : get_with(db, snap, slice_make(key, keylen), use_value, val);
}

struct copy_out {
    void *buf;
    size_t cap, *vallen;
};

static int use_copy(void *ctx, shale_db *db, struct db_view *view, struct db_hit *hit)
{
    struct copy_out *out = ctx;
    (void)db;
    (void)view;
    if (out->vallen != NULL) {
        *out->vallen = hit->value.size;
    }
    if (hit->value.size > out->cap) {
        return err_set(SHALE_TOOBIG, "the value is %zu bytes long, the buffer %zu", hit->value.size,
                       out->cap);
    }
    if (hit->value.size != 0) {
        memcpy(out->buf, hit->value.data, hit->value.size);
    }
    return SHALE_OK;
}

int shale_get_copy(shale_db *db, const shale_snapshot *snap, const void *key, size_t keylen, void *buf,
                   size_t cap, size_t *vallen)
{
    struct copy_out out = {buf, cap, vallen};
    int rc = check_read(db, snap, key, keylen);
    if (rc == SHALE_OK && buf == NULL && cap != 0) {
        rc = err_set(SHALE_INVALID, "shale_get_copy: a buffer of non-zero size is NULL");
    }
    if (vallen != NULL) {
        *vallen = 0;
    }
    return rc != SHALE_OK ? rc : get_with(db, snap, slice_make(key, keylen), use_copy, &out);
}

/* All keys in one (view, seq): a snapshot of its own where none is given. */
int shale_multi_get(shale_db *db, const shale_snapshot *snap, size_t n, const void *const *keys,
                    const size_t *keylens, shale_value *vals, int *status)
{
    if (n != 0 && (keys == NULL || keylens == NULL || vals == NULL || status == NULL)) {
        return err_set(SHALE_INVALID, "shale_multi_get: an array is NULL");
    }
    for (size_t i = 0; i < n; i++) {
        vals[i] = (shale_value){0};
        status[i] = SHALE_INVALID;
    }
    shale_snapshot *own = NULL;
    int rc = check_read(db, snap, NULL, 0);
    if (rc == SHALE_OK && snap == NULL) {
        rc = shale_snapshot_create(db, &own);
        snap = own;
    }
    for (size_t i = 0; rc == SHALE_OK && i < n; i++) {
        status[i] = shale_get(db, snap, keys[i], keylens[i], &vals[i]);
    }
    shale_snapshot_release(own);
    return rc;
}

/* ---- snapshots ---- */

int db_snapshot_view(shale_db *db, const shale_snapshot *snap, struct db_view **view, uint64_t *seq)
{
    int rc = check_read(db, snap, NULL, 0);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (snap != NULL) {
        *view = db_view_ref(snap->view);
        *seq = snap->seq;
        return SHALE_OK;
    }
    for (;;) {
        rc = db_view_get(db, view, seq);
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = db_view_pin(db, *view);
        if (rc == SHALE_OK) {
            return SHALE_OK;
        }
        bool again = rc == SHALE_NOTFOUND && view_is_stale(db, *view);
        rc = rc == SHALE_NOTFOUND && !again ? table_missing(db, *view) : rc;
        db_view_unref(*view);
        *view = NULL;
        if (!again) {
            return rc;
        }
    }
}

int shale_snapshot_create(shale_db *db, shale_snapshot **snap)
{
    if (snap == NULL) {
        return err_set(SHALE_INVALID, "shale_snapshot_create: no place for the snapshot");
    }
    *snap = NULL;
    struct db_view *view;
    uint64_t seq;
    int rc = db_snapshot_view(db, NULL, &view, &seq);
    if (rc != SHALE_OK) {
        return rc;
    }
    shale_snapshot *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        db_view_unref(view);
        return SHALE_NOMEM;
    }
    s->db = db_ref(db);
    s->view = view;
    s->seq = seq;
    *snap = s;
    return SHALE_OK;
}

void shale_snapshot_release(shale_snapshot *snap)
{
    if (snap != NULL) {
        db_view_unref(snap->view);
        db_unref(snap->db);
        free(snap);
    }
}

uint64_t shale_snapshot_seq(const shale_snapshot *snap)
{
    return snap == NULL ? 0 : snap->seq;
}
