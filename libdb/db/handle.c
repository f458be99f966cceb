/* handle.c - what every call does at the door: is the handle open, ours, and writable; and its small change:
 * the time-out, the interrupt, log lines, what `who` shows. */
#include "db/db.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int db_check(shale_db *db)
{
    if (db == NULL) {
        return err_set(SHALE_INVALID, "the database handle is NULL");
    }
    if (BASE_UNLIKELY(atomic_load_explicit(&db->closed, memory_order_acquire))) {
        return err_set(SHALE_INVALID, "%s: the handle is closed", db->path);
    }
    if (BASE_UNLIKELY(atomic_load_explicit(&db->forked, memory_order_relaxed))) {
        return err_set(
            SHALE_FORKED,
            "%s: the handle was opened by the parent process: open the database again in the child",
            db->path);
    }
    if (BASE_UNLIKELY(atomic_load_explicit(&db->calls_alone, memory_order_relaxed) != 0)) {
        db_threads_call(db);
    }
    return SHALE_OK;
}

int db_check_write(shale_db *db)
{
    int rc = db_check(db);
    if (rc == SHALE_OK && db->readonly) {
        rc = err_set(SHALE_READONLY, "%s: the handle was opened read-only", db->path);
    }
    return rc;
}

/* A read-only handle has no lock file open: its directory tells. */
int db_check_removed(const shale_db *db)
{
    unsigned names = 1;
    int rc = os_links(db->fresh_fd >= 0 ? db->fresh_fd : db->dirfd, &names);
    if (rc == SHALE_OK && names == 0) {
        rc = err_set(SHALE_IO, "%s: the directory was removed", db->path);
    }
    return rc;
}

shale_db *db_ref(shale_db *db)
{
    atomic_fetch_add_explicit(&db->refs, 1, memory_order_relaxed);
    return db;
}

void db_unref(shale_db *db)
{
    if (atomic_fetch_sub_explicit(&db->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    db_mems_free(db, false);
    cache_unref(db->cache);
    os_mutex_destroy(&db->adopt_mutex);
    os_mutex_destroy(&db->views_mutex);
    os_mutex_destroy(&db->mems_mutex);
    os_mutex_destroy(&db->group_mutex);
    os_mutex_destroy(&db->threads_mutex);
    os_mutex_destroy(&db->compact_mutex);
    os_unmap(atomic_load_explicit(&db->far_hazards, memory_order_relaxed), DB_FAR_SIZE);
    free(db->near_hazards);
    free(db->own_row);
    free(db->path);
    free(db);
}

struct os_wait db_wait_ms(shale_db *db, int64_t timeout_ms)
{
    return os_wait_ms(timeout_ms, &db->interrupts);
}

struct os_wait db_wait(shale_db *db)
{
    return db_wait_ms(db, atomic_load_explicit(&db->timeout_ms, memory_order_relaxed));
}

void db_log(shale_db *db, int level, const char *fmt, ...)
{
    if (db->options.log == NULL) {
        return;
    }
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    db->options.log(db->options.log_ctx, level, line);
}

void db_doing(shale_db *db, const char *fmt, ...)
{
    char text[sizeof db->row->doing] = "";
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    /* Several threads of a handle may tell at once, and anybody may read: whole words, so that at worst two
     * texts are mixed. */
    for (size_t i = 0; i < sizeof text; i += sizeof(uint64_t)) {
        atomic_store_explicit((_Atomic uint64_t *)(void *)(db->row->doing + i), get_u64(text + i),
                              memory_order_relaxed);
    }
    db_progress(db, 0, 0);
}

void db_progress(shale_db *db, uint64_t done, uint64_t total)
{
    atomic_store_explicit(&db->row->done, done, memory_order_relaxed);
    atomic_store_explicit(&db->row->total, total, memory_order_relaxed);
}

int shale_set_timeout(shale_db *db, int64_t timeout_ms)
{
    int rc = db_check(db);
    if (rc == SHALE_OK && timeout_ms < -1) {
        rc =
            err_set(SHALE_INVALID, "timeout_ms is %lld: -1 is for ever, 0 tries once", (long long)timeout_ms);
    }
    if (rc == SHALE_OK) {
        atomic_store_explicit(&db->timeout_ms, timeout_ms, memory_order_relaxed);
    }
    return rc;
}

void shale_interrupt(shale_db *db)
{
    if (db != NULL) {
        atomic_fetch_add_explicit(&db->interrupts, 1, memory_order_relaxed);
    }
}
