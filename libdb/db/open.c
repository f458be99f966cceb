/* open.c - opening and closing: create, attach, warm; recover.c does the cold case.
 *
 * Under OPEN. LIVE says who is connected, and nothing else does:
 *
 *   LIVE exclusively: no     others are connected: take it shared, check STATE, attach
 *                     yes    nobody is. CURRENT missing: create. STATE marked clean by the last closer, of
 * this boot and directory, and CURRENT names its manifest: warm, attach without replay. Else cold.
 *
 * LIVE is made shared before OPEN is released, so that nobody else finds the database empty in between. The
 * first attacher clears the clean mark; the last closer sets it, if it gets OPEN and LIVE by trying, after
 * the log is synced. A killed opener leaves nothing to repair: every step is idempotent and the next opener
 * starts over [I-19].
 */
#include "db/db.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- all handles of the process, for fork ---- */

static pthread_mutex_t handles_mutex = PTHREAD_MUTEX_INITIALIZER;
static shale_db *handles;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* No thread may be in the midst of changing what the child is going to walk. */
static void fork_prepare(void)
{
    os_mutex_lock(&handles_mutex);
    for (shale_db *db = handles; db != NULL; db = db->next_open) {
        os_mutex_lock(&db->views_mutex);
        os_mutex_lock(&db->mems_mutex);
    }
}

static void fork_over(void)
{
    for (shale_db *db = handles; db != NULL; db = db->next_open) {
        os_mutex_unlock(&db->mems_mutex);
        os_mutex_unlock(&db->views_mutex);
    }
    os_mutex_unlock(&handles_mutex);
}

/* The child's copies of lock descriptors would keep the parent's locks alive after its death: close them.
 * Nothing is unlocked, since the open files are the parent's as well. */
static void fork_child(void)
{
    for (shale_db *db = handles; db != NULL; db = db->next_open) {
        atomic_store(&db->forked, true);
        os_close(&db->roles.fd);
        os_close(&db->live_fd);
        os_close(&db->fresh_fd);
        for (unsigned i = 0; i < db->mem_count; i++) {
            os_close(&db->mems[i].mem->seg->fd);
        }
        for (struct db_view *v = db->views; v != NULL; v = v->older) {
            for (unsigned i = 0; i < v->mem_count; i++) {
                os_close(&v->mem[i]->seg->fd);
            }
        }
        for (struct mem_index *m = atomic_load(&db->garbage); m != NULL; m = m->next) {
            os_close(&m->seg->fd);
        }
    }
    fork_over();
}

static void fork_register(void)
{
    (void)pthread_atfork(fork_prepare, fork_over, fork_child);
}

static void handle_link(shale_db *db)
{
    (void)pthread_once(&fork_once, fork_register);
    os_mutex_lock(&handles_mutex);
    db->next_open = handles;
    handles = db;
    os_mutex_unlock(&handles_mutex);
}

static void handle_unlink(shale_db *db)
{
    os_mutex_lock(&handles_mutex);
    for (shale_db **p = &handles; *p != NULL; p = &(*p)->next_open) {
        if (*p == db) {
            *p = db->next_open;
            break;
        }
    }
    os_mutex_unlock(&handles_mutex);
}

/* ---- pieces ---- */

/* A read lock through a read-only descriptor would stop writers: lock files are readable only where they are
 * writable. */
static unsigned lock_mode(unsigned mode)
{
    return mode & ~(((~mode & 0222u) << 1));
}

static int handle_create(const char *dir, const shale_options *options, shale_db **out)
{
    shale_db *db = base_calloc(1, sizeof *db);
    if (db == NULL) {
        return SHALE_NOMEM;
    }
    db->dirfd = db->mem_dirfd = db->live_fd = db->fresh_fd = db->roles.fd = db->lent_fd = -1;
    db->row_index = -1;
    atomic_init(&db->refs, 1);
    db->options = *options;
    atomic_init(&db->timeout_ms, options->timeout_ms);
    db->readonly = options->readonly;
    if (db->readonly) {
        db->options.threads = 0; /* it may do none of their work, nor store the word that wakes them */
    }
    os_mutex_init(&db->adopt_mutex);
    os_mutex_init(&db->views_mutex);
    os_mutex_init(&db->mems_mutex);
    os_mutex_init(&db->group_mutex);
    os_mutex_init(&db->threads_mutex);
    os_mutex_init(&db->compact_mutex);
    do {
        os_random(&db->owner, sizeof db->owner);
    } while (db->owner == 0);
    db->path = base_strdup(dir);
    db->own_row = base_alloc_aligned(BASE_CACHELINE, sizeof *db->own_row);
    db->near_hazards = base_alloc_aligned(_Alignof(struct db_hazard), DB_NEAR_SIZE);
    db->cache = cache_ref(options->cache_bytes);
    if (db->path == NULL || db->own_row == NULL || db->near_hazards == NULL || db->cache == NULL) {
        db_unref(db);
        return err_set(SHALE_NOMEM, "%s: out of memory", dir);
    }
    memset(db->own_row, 0, sizeof *db->own_row);
    memset(db->near_hazards, 0, DB_NEAR_SIZE);
    db->row = db->own_row;
    *out = db;
    return SHALE_OK;
}

static int open_directory(shale_db *db)
{
    int rc = os_open_dir(db->path, &db->dirfd);
    if (rc == SHALE_NODB && db->options.create && !db->readonly) {
        rc = os_make_dir(db->path, db_dir_mode(db->options.mode));
        if (rc == SHALE_OK) {
            rc = db_target_sync(db->path); /* what is made durable in it must be found after a power loss */
        }
        if (rc == SHALE_OK) {
            rc = os_open_dir(db->path, &db->dirfd);
        }
    }
    db->mem_dirfd = db->dirfd;
    return rc != SHALE_OK ? rc : os_check_fs(db->dirfd, &db->write_in_place);
}

/* No CURRENT and not to be created: nothing of ours may be made in that directory. */
static int check_present(shale_db *db)
{
    uint64_t manifest;
    int rc = current_read(db->dirfd, &manifest);
    if (rc == SHALE_NODB) {
        rc = db_check_empty(db);
        if (rc == SHALE_EXISTS) {
            rc = SHALE_OK;
        } else if (rc == SHALE_OK && !db->options.create) {
            rc = err_set(SHALE_NODB, "%s: no database there (open it with create=1 to make one)", db->path);
        }
    }
    return rc;
}

/* looked: check_present was asked, so the file may be made. */
static int open_lock_file(shale_db *db, const char *name, bool *looked, int *fd, struct stat *st)
{
    if (!*looked) {
        int rc = os_open_stat(db->dirfd, name, O_RDWR, 0, fd, st);
        if (rc == SHALE_NOTFOUND) {
            rc = check_present(db);
            *looked = rc == SHALE_OK;
        }
        if (!*looked) {
            return rc;
        }
    }
    return os_open_stat(db->dirfd, name, O_RDWR | O_CREAT, lock_mode(db->options.mode), fd, st);
}

/* With CURRENT, LOCK and LIVE a database is there to all appearances: what CURRENT says is read under the
 * lock. */
static int open_lock_files(shale_db *db)
{
    int fd = -1;
    struct stat st;
    bool looked = os_stat_at(db->dirfd, CURRENT_NAME, &st) != SHALE_OK;
    int rc = looked ? check_present(db) : SHALE_OK;
    if (rc == SHALE_OK) {
        rc = open_lock_file(db, "LOCK", &looked, &fd, &st);
    }
    if (rc == SHALE_OK) {
        rc = os_roles_init(&db->roles, fd);
    }
    if (rc == SHALE_OK) {
        db->lock_dev = st.st_dev;
        db->lock_ino = st.st_ino;
        rc = os_open(db->dirfd, "LOCK", O_RDWR, 0, &db->fresh_fd);
    }
    if (rc == SHALE_OK) {
        rc = open_lock_file(db, "LIVE", &looked, &db->live_fd, &st);
    }
    return rc;
}

/* With OPEN held: is the file that we locked still the one that others will find? */
static int check_lock_name(shale_db *db)
{
    struct stat st;
    int rc = os_stat_at(db->dirfd, "LOCK", &st);
    if (rc == SHALE_OK && (st.st_ino != db->lock_ino || st.st_dev != db->lock_dev)) {
        rc = SHALE_NOTFOUND;
    }
    return rc == SHALE_NOTFOUND
               ? err_set(SHALE_IO, "%s: the directory was removed or replaced while it was being opened",
                         db->path)
               : rc;
}

static int check_state(shale_db *db)
{
    struct stat lock = {.st_dev = db->lock_dev, .st_ino = db->lock_ino};
    return state_check(&db->state_map, &lock);
}

/* LIVE is held exclusively. */
static int open_alone(shale_db *db)
{
    uint64_t manifest = 0;
    int rc = current_read(db->dirfd, &manifest);
    if (rc == SHALE_OK && db->options.error_if_exists) {
        return err_set(SHALE_EXISTS, "%s: a database is there already", db->path);
    }
    if (rc != SHALE_OK && rc != SHALE_NODB) {
        return rc;
    }
    if (rc == SHALE_OK && db_is_warm(db, manifest)) {
        os_mark(OS_MARK_OPEN);
        atomic_store(&db->state_map.state->clean, 0);
        os_mark(OS_MARK_OPEN);
        db->state = db->state_map.state;
        return SHALE_OK;
    }
    if (rc == SHALE_NODB) {
        rc = check_present(db);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    return db_recover(db);
}

/* Others are connected, and LIVE is held shared. */
static int open_attach(shale_db *db)
{
    if (db->options.error_if_exists) {
        return err_set(SHALE_EXISTS, "%s: a database is there already", db->path);
    }
    int rc = state_map(db->dirfd, true, false, db->options.mode, &db->state_map);
    if (rc == SHALE_OK) {
        rc = check_state(db);
    }
    if (rc == SHALE_NOTFOUND) {
        return err_set(
            SHALE_CORRUPT,
            "%s: STATE was removed or overwritten while other processes use it: end them, then open again",
            db->path);
    }
    if (rc == SHALE_OK) {
        rc = db_mem_dir_open(db, db->state_map.state);
    }
    if (rc == SHALE_OK) {
        db->state = db->state_map.state;
        atomic_store(&db->state->clean, 0);
    }
    return rc;
}

static void claim_row(shale_db *db)
{
    for (unsigned i = 0; i < STATE_ROWS; i++) {
        if (os_lock_try(db->live_fd, OS_LIVE_SLOT + i, 1, true) == SHALE_OK) {
            os_mark(OS_MARK_SLOT);
            state_row_claim(db->state, i);
            db->row = &db->state->rows[i];
            db->row_index = (int)i;
            return;
        }
    }
    db_log(db, 2, "%s: all %d rows of STATE are taken: this handle works, but is not listed", db->path,
           STATE_ROWS);
}

static int open_under_lock(shale_db *db)
{
    int rc = check_lock_name(db);
    if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(OS_MARK_OPEN);
    rc = os_lock_try(db->live_fd, OS_LIVE_BYTE, 1, true);
    if (rc == SHALE_OK) {
        rc = open_alone(db);
        if (rc == SHALE_OK) {
            rc = os_lock_try(db->live_fd, OS_LIVE_BYTE, 1, false); /* exclusive to shared, at once */
        }
    } else if (rc == SHALE_BUSY) {
        rc = os_lock_try(db->live_fd, OS_LIVE_BYTE, 1, false);
        if (rc == SHALE_OK) {
            rc = open_attach(db);
        }
    }
    if (rc == SHALE_OK) {
        memcpy(db->uuid, db->state->uuid, sizeof db->uuid);
        claim_row(db);
    } else {
        (void)os_unlock(db->live_fd, OS_LIVE_BYTE,
                        1); /* before OPEN: the next opener must not find it taken */
    }
    return rc;
}

/* ---- options that shape files ---- */

static void take_stored(shale_db *db, const char *name, uint64_t ours, uint64_t stored)
{
    if (ours != stored) {
        db_log(db, 2, "%s: %s is %llu, as the database was created with (asked for: %llu)", db->path, name,
               (unsigned long long)stored, (unsigned long long)ours);
    }
}

static void adopt_stored_options(shale_db *db, const struct version_options *v)
{
    shale_options *o = &db->options;
    take_stored(db, "block_bytes", o->block_bytes, v->block_bytes);
    take_stored(db, "target_table_bytes", o->target_table_bytes, v->target_table_bytes);
    take_stored(db, "bloom_bits", o->bloom_bits, v->bloom_bits);
    take_stored(db, "level_ratio", o->level_ratio, v->level_ratio);
    take_stored(db, "compression", (uint64_t)o->compression, v->compression);
    o->block_bytes = v->block_bytes;
    o->target_table_bytes = v->target_table_bytes;
    o->bloom_bits = v->bloom_bits;
    o->level_ratio = v->level_ratio;
    o->compression = (int)v->compression;
}

/* May this library work with what the manifest says, and do manifest and STATE speak of the same database? */
static int check_version(shale_db *db, const struct version *v)
{
    if (memcmp(v->uuid, db->uuid, sizeof db->uuid) != 0) {
        return err_set(
            SHALE_CORRUPT,
            "%s: STATE belongs to another database than the manifest: remove STATE while no process uses the "
            "directory, and open again",
            db->path);
    }
    return db->readonly ? SHALE_OK : version_check_writable(v);
}

/* ---- open ---- */

static void set_write_lock(shale_db *db)
{
    db->write_slot = lockq_slot(db->lockq, NULL);
    db->write_lock = (struct lockq_lock){.slot = db->write_slot,
                                         .fd = db->roles.fd,
                                         .start = OS_BYTE_WRITE,
                                         .length = 2,
                                         .exclusive = true,
                                         .turn_ns = 250000,
                                         .owner = db->owner};
}

static int open_writable(shale_db *db)
{
    struct os_wait wait = db_wait(db);
    int rc = open_lock_files(db);
    if (rc == SHALE_OK) {
        rc = lockq_find_lent(db->fresh_fd, db->options.lock_fd, &db->lent, &db->lent_fd);
    }
    if (rc == SHALE_OK) {
        rc = lockq_open(db->dirfd, db->path, lock_mode(db->options.mode), &db->lockq);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    set_write_lock(db);
    rc = os_role_lock(&db->roles, OS_ROLE_OPEN, &wait, NULL);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s: another process is opening or recovering it", db->path);
    }
    rc = open_under_lock(db);
    os_role_unlock(&db->roles, OS_ROLE_OPEN);
    return rc;
}

/* Takes apart what an open has put together, whatever state it is in. */
static void release_parts(shale_db *db)
{
    db_threads_stop(db);
    db_views_release(db);
    db_mems_free(db, false);
    mem_unref(db->active);
    db->active = NULL;
    db->row = db->own_row;
    db->state = NULL;
    state_unmap(&db->state_map);
    while (db->old_state_count > 0) {
        state_unmap(&db->old_states[--db->old_state_count]);
    }
    lockq_close(db->lockq);
    db->lockq = NULL;
    os_close(&db->live_fd);
    os_roles_release(&db->roles);
    os_close(&db->fresh_fd);
    db_mem_dir_close(db);
    os_close(&db->dirfd);
    db->mem_dirfd = -1;
}

/* [I-13] A failed sync, met while others are connected: what it left in doubt is written anew, as by
 * shale_flush. If that can't be now, the handle opens all the same: reads work, and writes say why they do
 * not. */
static void cure(shale_db *db)
{
    if (BASE_UNLIKELY(db_panic(db) != SHALE_OK) && shale_flush(db) != SHALE_OK) {
        db_log(db, 1, "%s", shale_errmsg());
    }
}

int shale_open(const char *dir, const shale_options *options, shale_db **out)
{
    if (out == NULL || dir == NULL || dir[0] == '\0') {
        return err_set(SHALE_INVALID, "shale_open: the directory or the place for the handle is missing");
    }
    *out = NULL;
    shale_options checked;
    shale_db *db = NULL;
    int rc = options_check(options, &checked);
    if (rc == SHALE_OK) {
        rc = handle_create(dir, &checked, &db);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = open_directory(db);
    if (rc == SHALE_OK && !db->readonly) {
        rc = open_writable(db);
    }
    if (rc == SHALE_OK) {
        rc = db_adopt(db);
    }
    if (rc == SHALE_OK) {
        rc = check_version(db, atomic_load(&db->current)->version);
    }
    if (rc == SHALE_OK) {
        handle_link(db);
        adopt_stored_options(db, &atomic_load(&db->current)->version->options);
        db_mem_dir_tell(db);
    }
    if (rc == SHALE_OK && !db->readonly) {
        cure(db);
        atomic_store(&db->calls_alone, DB_CALLS_ALONE);
    }
    os_audit_clean("shale_open");
    if (rc != SHALE_OK) {
        release_parts(db);
        db_unref(db);
        return rc;
    }
    *out = db;
    return SHALE_OK;
}

/* ---- close ---- */

int shale_close(shale_db *db)
{
    if (db == NULL) {
        return SHALE_OK;
    }
    if (atomic_exchange(&db->closed, true)) {
        return err_set(SHALE_INVALID, "%s: the handle is closed already", db->path);
    }
    if (atomic_load(&db->forked)) {
        /* Another thread may have been anywhere in it when the process was forked: nothing of it is touched
         * again. It stays in the list of handles, with its lock descriptors closed. */
        return SHALE_OK;
    }
    int rc = SHALE_OK;
    handle_unlink(db);
    if (!db->readonly) {
        db_txn_abort_all(db);
        db_threads_stop(db);
        db_fold_counters(db);
        rc = db_sync_due(db, true);
        int clean = db_mark_clean(db);
        rc = rc != SHALE_OK ? rc : clean;
    }
    release_parts(db);
    os_audit_clean("shale_close");
    db_unref(db);
    return rc;
}
