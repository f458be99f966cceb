/* clean.c - what the last closer leaves, and whether the next one to open may go on with it ("warm").
 *
 * The closer syncs the log and stores in STATE's `clean` a checksum over all that a warm open would believe:
 * the words of STATE from the epoch up to the wake words, and inode, size and times of each index. Whoever
 * opens computes it again: one bit of those words, or an index that was replaced or written to meanwhile,
 * and STATE is made anew from the manifest and the log. So whatever happens to shared memory while nobody is
 * connected costs a replay, and nothing else [I-1]. (Times do not show what is stored through a mapping into
 * pages that are dirty already; nobody maps these files then.)
 */
#include "db/db.h"

#define CLEAN_FROM offsetof(struct state, epoch)
#define CLEAN_TO   offsetof(struct state, work)

/* SHALE_NOTFOUND: an index is missing. */
static int clean_sum(const shale_db *db, const struct state *s, uint64_t *sum)
{
    struct state_view tuple;
    state_load_tuple(s, &tuple);
    uint32_t active = db_active(s);
    if (active < tuple.oldest || active - tuple.oldest >= DB_MAX_MEMS) {
        return SHALE_NOTFOUND;
    }
    uint64_t h = checksum((const char *)s + CLEAN_FROM, CLEAN_TO - CLEAN_FROM,
                          atomic_load_explicit(&s->generation, memory_order_relaxed));
    for (uint32_t n = tuple.oldest; n <= active; n++) {
        char name[MEM_NAME_SIZE];
        struct os_stamp stamp;
        mem_name(n, name);
        int rc = os_stamp(db->mem_dirfd, name, &stamp);
        if (rc != SHALE_OK) {
            return rc;
        }
        h = checksum(&stamp, sizeof stamp, h);
    }
    *sum = h | 1; /* 0: not clean */
    return SHALE_OK;
}

/* The log and its indices are all there? The indices are needed by nobody [I-1]: whoever tidied them away
 * gets a replay, no error. */
static bool memtables_there(shale_db *db, const struct state_view *tuple)
{
    struct state *s = db->state_map.state;
    uint32_t active = db_active(s);
    bool there = true;
    memcpy(db->uuid, s->uuid, sizeof db->uuid);
    db->state = s;
    for (uint32_t n = tuple->oldest; there && n <= active; n++) {
        struct mem_index *mem = NULL;
        there = db_mem_get(db, n, &mem) == SHALE_OK;
        mem_unref(mem);
    }
    if (!there) {
        db_mems_prune(db, UINT32_MAX);
        db->state = NULL;
    }
    return there;
}

static bool state_is_clean(const shale_db *db, uint64_t manifest)
{
    const struct state *s = db->state_map.state;
    struct state_view tuple;
    struct stat st;
    char name[MANIFEST_NAME_SIZE];
    uint64_t sum;
    if (atomic_load(&s->clean) == 0 || (atomic_load(&s->generation) & 1) != 0 ||
        clean_sum(db, s, &sum) != SHALE_OK || sum != atomic_load(&s->clean)) {
        return false;
    }
    state_load_tuple(s, &tuple);
    manifest_name(manifest, name);
    return tuple.manifest == manifest && os_stat_at(db->dirfd, name, &st) == SHALE_OK &&
           (uint64_t)st.st_size >= tuple.length;
}

bool db_is_warm(shale_db *db, uint64_t manifest)
{
    struct stat lock = {.st_dev = db->lock_dev, .st_ino = db->lock_ino};
    struct state_view tuple;
    if (state_map(db->dirfd, true, false, db->options.mode, &db->state_map) != SHALE_OK) {
        return false;
    }
    bool warm = state_check(&db->state_map, &lock) == SHALE_OK &&
                !db_mem_dir_wanted(db, db->state_map.state) &&
                db_mem_dir_open(db, db->state_map.state) == SHALE_OK && state_is_clean(db, manifest);
    if (warm) {
        state_load_tuple(db->state_map.state, &tuple);
        warm = memtables_there(db, &tuple);
    }
    if (!warm) {
        db_mem_dir_close(db);
        state_unmap(&db->state_map);
    }
    return warm;
}

/* LIVE is held exclusively: nobody else is connected. */
static int leave_clean(shale_db *db)
{
    struct state *s = db->state;
    struct os_wait wait = os_wait_forever();
    uint64_t sum;
    if (atomic_load(&s->in_flight) != 0 || atomic_load(&s->bad_manifest) != 0 || db_panic(db) != SHALE_OK) {
        return SHALE_OK;
    }
    int rc = db_sync(db, atomic_load(&s->wal_end), false, &wait);
    if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(OS_MARK_CLOSE);
    atomic_store(&s->sync_due, 0);
    if (clean_sum(db, s, &sum) == SHALE_OK) { /* else the next open recovers */
        os_mark(OS_MARK_CLOSE);
        atomic_store(&s->clean, sum);
        os_mark(OS_MARK_CLOSE);
    }
    return SHALE_OK;
}

int db_mark_clean(shale_db *db)
{
    if (os_role_try(&db->roles, OS_ROLE_OPEN) != SHALE_OK) {
        return SHALE_OK;
    }
    int rc = SHALE_OK;
    if (os_lock_try(db->live_fd, OS_LIVE_BYTE, 1, true) == SHALE_OK) {
        os_mark(OS_MARK_CLOSE);
        rc = leave_clean(db);
        (void)os_unlock(db->live_fd, OS_LIVE_BYTE, 1); /* before OPEN: the next opener must find nobody */
        os_mark(OS_MARK_CLOSE);
    }
    os_role_unlock(&db->roles, OS_ROLE_OPEN);
    return rc;
}
