/* mems.c - the memtables that a handle maps: found by number, opened when first needed, given up.
 *
 * Giving one up unmaps two files of about memtable_bytes, and where nobody else maps them (they have lost
 * their names by then) the kernel gives their pages back at once: ten milliseconds. So the last reference is
 * not dropped where it is found to be the last, which may be under WRITE, or in a get: the memtable goes on a
 * list that the maintenance threads empty; without such threads, the next call that holds no lock.
 */
#include "db/db.h"

#define GARBAGE_MOST 16 /* no maintenance thread for so long: who brings more frees his own */

/* A view that nobody may ask about any more has no handle. */
void db_mem_unref(shale_db *db, struct mem_index *mem)
{
    mem = mem_release(mem);
    if (mem == NULL) {
        return;
    }
    if (db == NULL || atomic_load_explicit(&db->closed, memory_order_relaxed) ||
        atomic_fetch_add_explicit(&db->garbage_count, 1, memory_order_relaxed) >= GARBAGE_MOST) {
        mem_free(mem);
        return;
    }
    mem->next = atomic_load_explicit(&db->garbage, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&db->garbage, &mem->next, mem, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    atomic_store_explicit(&db->garbage_told, false, memory_order_release);
}

void db_mems_free(shale_db *db, bool gently)
{
    struct mem_index *mem = atomic_exchange_explicit(&db->garbage, NULL, memory_order_acquire);
    atomic_store_explicit(&db->garbage_count, 0, memory_order_relaxed);
    while (mem != NULL) {
        struct mem_index *next = mem->next;
        if (gently) {
            os_map_let_go(mem->arena, (size_t)mem->mapped);
            os_map_let_go(mem->seg->map, (size_t)mem->seg->size);
        }
        mem_free(mem);
        mem = next;
    }
}

void db_mems_free_soon(shale_db *db)
{
    if (BASE_LIKELY(atomic_load_explicit(&db->garbage, memory_order_relaxed) == NULL)) {
        return;
    }
    if (db->options.threads == 0) {
        db_mems_free(db, false);
    } else if (!atomic_load_explicit(&db->garbage_told, memory_order_relaxed) &&
               !atomic_exchange(&db->garbage_told, true)) {
        db_wake_work(db); /* once: a thread that is busy looks before it sleeps */
    }
}

void db_mems_prune(shale_db *db, uint32_t oldest)
{
    struct mem_index *drop[DB_MAX_MEMS];
    unsigned drops = 0, kept = 0;
    os_mutex_lock(&db->mems_mutex);
    for (unsigned i = 0; i < db->mem_count; i++) {
        if (db->mems[i].mem->seg->number < oldest) {
            drop[drops++] = db->mems[i].mem;
        } else {
            db->mems[kept++] = db->mems[i];
        }
    }
    db->mem_count = kept;
    os_mutex_unlock(&db->mems_mutex);
    for (unsigned i = 0; i < drops; i++) {
        db_mem_unref(db, drop[i]);
    }
}

/* Caller holds mems_mutex. */
static struct mem_index *mem_find(shale_db *db, uint32_t number)
{
    for (unsigned i = 0; i < db->mem_count; i++) {
        if (db->mems[i].mem->seg->number == number) {
            return mem_ref(db->mems[i].mem);
        }
    }
    return NULL;
}

struct mem_index *db_mem_cached(shale_db *db, uint32_t number)
{
    os_mutex_lock(&db->mems_mutex);
    struct mem_index *found = mem_find(db, number);
    os_mutex_unlock(&db->mems_mutex);
    return found;
}

/* A store into a page that was never touched must not read ahead: with a large window that zeroes megabytes,
 * for milliseconds, under WRITE. */
static int mem_open_pair(shale_db *db, uint32_t number, struct mem_index **mem)
{
    struct wal_segment *seg = NULL;
    int rc = wal_open(db->dirfd, db->uuid, number, !db->readonly, &seg);
    if (rc == SHALE_OK) {
        rc = mem_open(db->mem_dirfd, seg, !db->readonly, mem);
    }
    if (rc == SHALE_OK && !db->readonly) {
        os_map_random(seg->map, (size_t)seg->size);
        os_map_random((*mem)->arena, (size_t)(*mem)->mapped);
    }
    wal_unref(seg);
    return rc;
}

/* Another thread may have opened it meanwhile: then its one stays, since its suspect range is the earlier and
 * so the wider. */
static struct mem_index *mem_keep(shale_db *db, struct mem_index *mem, uint64_t from, uint64_t to)
{
    struct mem_index *other = NULL;
    os_mutex_lock(&db->mems_mutex);
    other = mem_find(db, mem->seg->number);
    if (other == NULL && db->mem_count < DB_MAX_MEMS) {
        db->mems[db->mem_count++] = (struct db_mem){mem_ref(mem), from, to};
    }
    os_mutex_unlock(&db->mems_mutex);
    if (other != NULL) {
        db_mem_unref(db, mem);
        return other;
    }
    return mem;
}

int db_mem_get(shale_db *db, uint32_t number, struct mem_index **mem)
{
    struct mem_index *found = db_mem_cached(db, number);
    if (found == NULL) {
        int rc = mem_open_pair(db, number, &found);
        if (rc != SHALE_OK) {
            return rc;
        }
        /* Looked at after the descriptor was opened: an attempt that is over by now was reported to its own
         * descriptor. */
        uint64_t attempt = atomic_load_explicit(&db->state->sync_attempt, memory_order_acquire);
        uint64_t synced = atomic_load_explicit(&db->state->synced_lsn, memory_order_acquire);
        found = mem_keep(db, found, synced, attempt > synced ? attempt : synced);
    }
    *mem = found;
    return SHALE_OK;
}
