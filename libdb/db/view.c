/* view.c - taking a view: which version, which memtables, up to which sequence number.
 *
 * With no lock and no system call when nothing moved:
 *
 *     do { e = epoch; a = active segment; v = the cached view if it is of (e, a), else adopt;
 *          s = visible_seq; } while (epoch != e || active segment != a);
 *
 * [I-9] While e and a stood, every entry with seq <= s was in v. The loads are acquire, and a fence stands
 * before the second look: without it the processor may take s from after the move and the epoch from before.
 *
 * Threads find the current view through hazard pointers (Michael, 2004): a thread publishes the view that it
 * is about to read in a line of its own and looks again whether it is still current; who replaces a view
 * frees it only when no line names it. So the read path writes no line that threads share. A thread beyond
 * the table takes a counted reference instead.
 *
 * Adopting opens what the new view needs beyond the old one. A file that is not there (ENOENT, or a segment
 * that carries another number) means that the epoch moved: start again. If it did not move, the directory is
 * damaged.
 */
#include "db/db.h"

#include <stdlib.h>

#define GIVEN_UP_MOST 16 /* no maintenance thread for so long: who adopts frees them */

/* ---- a number for every thread of the process ---- */

static pthread_mutex_t numbers_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned char numbers_used[DB_MAX_HAZARDS];
static _Atomic unsigned numbers_top; /* hazards at and above were never used */
static pthread_key_t numbers_key;
static pthread_once_t numbers_once = PTHREAD_ONCE_INIT;
static _Thread_local int thread_number = -1; /* -1: not yet asked; -2: none was free */

static void number_free(void *value)
{
    size_t n = (size_t)(uintptr_t)value - 1;
    os_mutex_lock(&numbers_mutex);
    numbers_used[n] = 0;
    os_mutex_unlock(&numbers_mutex);
}

static void numbers_init(void)
{
    (void)pthread_key_create(&numbers_key, number_free);
}

static int number_take(void)
{
    (void)pthread_once(&numbers_once, numbers_init);
    int found = -2;
    os_mutex_lock(&numbers_mutex);
    for (int i = 0; i < DB_MAX_HAZARDS; i++) {
        if (!numbers_used[i]) {
            numbers_used[i] = 1;
            found = i;
            break;
        }
    }
    if (found >= 0 && atomic_load(&numbers_top) <= (unsigned)found) {
        atomic_store(&numbers_top, (unsigned)found + 1);
    }
    os_mutex_unlock(&numbers_mutex);
    if (found >= 0 && pthread_setspecific(numbers_key, (void *)(uintptr_t)((size_t)found + 1)) != 0) {
        number_free((void *)(uintptr_t)((size_t)found + 1));
        found = -2;
    }
    thread_number = found;
    return found;
}

/* ---- views ---- */

struct db_view *db_view_ref(struct db_view *view)
{
    atomic_fetch_add_explicit(&view->refs, 1, memory_order_relaxed);
    return view;
}

void db_view_link(shale_db *db, struct db_view *view)
{
    os_mutex_lock(&db->views_mutex);
    view->db = db;
    view->born = os_fork_generation();
    view->older = db->views;
    view->linked = &db->views;
    if (view->older != NULL) {
        view->older->linked = &view->older;
    }
    db->views = view;
    os_mutex_unlock(&db->views_mutex);
}

/* In a forked child the mutex may be locked for ever, by a thread that is not there. */
static void view_unlink(struct db_view *view)
{
    if (view->db == NULL || view->born != os_fork_generation()) {
        return;
    }
    os_mutex_lock(&view->db->views_mutex);
    *view->linked = view->older;
    if (view->older != NULL) {
        view->older->linked = view->linked;
    }
    os_mutex_unlock(&view->db->views_mutex);
}

void db_view_unref(struct db_view *view)
{
    if (view == NULL || atomic_fetch_sub_explicit(&view->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    view_unlink(view);
    for (unsigned i = 0; i < view->mem_count; i++) {
        db_mem_unref(view->db, view->mem[i]);
    }
    version_unref(view->version);
    free(view);
}

int db_view_pin(shale_db *db, struct db_view *view)
{
    if (BASE_LIKELY(atomic_load_explicit(&view->pinned, memory_order_acquire))) {
        return SHALE_OK;
    }
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        const struct version_level *level = &view->version->level[l];
        for (uint32_t i = 0; i < level->count; i++) {
            struct table *t;
            int rc =
                version_table_open(level->tables[i], db->dirfd, db->cache, db->options.verify_checksums, &t);
            if (rc != SHALE_OK) {
                return rc;
            }
        }
    }
    atomic_store_explicit(&view->pinned, true, memory_order_release); /* what is open stays so */
    return SHALE_OK;
}

/* ---- adopting ---- */

/* The second look: is STATE still what the view was made from? The fence keeps what was read before it before
 * it. */
static bool view_moved(const struct state *s, const struct db_view *v)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&s->epoch, memory_order_relaxed) != v->epoch || db_active(s) != v->active ||
           atomic_load_explicit(&s->generation, memory_order_relaxed) != v->generation;
}

static int load_version(shale_db *db, const struct db_view *cur, const struct state_view *tuple,
                        struct version **v)
{
    if (cur != NULL && cur->version->manifest == tuple->manifest) {
        if (cur->version->length == tuple->length) {
            *v = version_ref(cur->version);
            return SHALE_OK;
        }
        if (cur->version->length < tuple->length) {
            return manifest_advance(db->dirfd, cur->version, tuple->length, v);
        }
    }
    int rc = manifest_load(db->dirfd, tuple->manifest, tuple->length, v);
    if (rc == SHALE_OK && cur != NULL) {
        version_share(*v,
                      cur->version); /* a rolled manifest names the same tables: their readers stay open */
    }
    return rc;
}

/* A view of exactly this tuple and active segment. SHALE_NOTFOUND (no text): a file is not there. */
static int build_view(shale_db *db, const struct db_view *cur, const struct state_view *tuple,
                      const struct db_view *now, struct db_view **out)
{
    uint32_t active = now->active;
    unsigned count = active - tuple->oldest + 1;
    if (active < tuple->oldest || count > DB_MAX_MEMS) {
        return err_set(SHALE_CORRUPT, "%s: STATE: memtables %u to %u make no sense", db->path, tuple->oldest,
                       active);
    }
    struct db_view *view = base_calloc(1, sizeof *view + count * sizeof view->mem[0]);
    if (view == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&view->refs, 1);
    view->generation = now->generation;
    view->epoch = now->epoch;
    view->active = active;
    int rc = load_version(db, cur, tuple, &view->version);
    for (unsigned i = 0; rc == SHALE_OK && i < count; i++) {
        rc = db_mem_get(db, active - i, &view->mem[i]);
        if (rc == SHALE_OK) {
            view->mem_count = i + 1;
        }
    }
    if (rc != SHALE_OK) {
        db_view_unref(view);
        return rc;
    }
    db_view_link(db, view);
    *out = view;
    return SHALE_OK;
}

unsigned db_hazards_top(void)
{
    return atomic_load(&numbers_top);
}

static bool hazard_names(const shale_db *db, const struct db_view *view)
{
    unsigned top = db_hazards_top();
    for (unsigned i = 0; i < top; i++) {
        struct db_hazard *h = db_hazard(db, i);
        if (h != NULL && atomic_load_explicit(&h->view, memory_order_seq_cst) == view) {
            return true;
        }
    }
    return false;
}

/* Sets aside what no thread reads any more. Caller holds adopt_mutex. */
static void retired_scan(shale_db *db)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < db->retired_count; i++) {
        struct db_view *view = db->retired[i];
        if (hazard_names(db, view)) {
            db->retired[kept++] = view;
        } else {
            view->next_given_up = db->given_up;
            db->given_up = view;
            db->given_up_count++;
        }
    }
    db->retired_count = kept;
}

/* With the last view of a table that was removed goes its file, and to give 64 MiB of blocks back takes the
 * kernel a hundred milliseconds: nothing for the thread that came to write or to read, nor for those that
 * want to adopt meanwhile. So a maintenance thread does it; without one whoever adopted, behind the mutex. */
void db_views_free(shale_db *db, unsigned most)
{
    os_mutex_lock(&db->adopt_mutex);
    struct db_view *view = db->given_up_count > most ? db->given_up : NULL;
    if (view != NULL) {
        db->given_up = NULL;
        db->given_up_count = 0;
    }
    os_mutex_unlock(&db->adopt_mutex);
    while (view != NULL) {
        struct db_view *next = view->next_given_up;
        db_view_unref(view);
        view = next;
    }
}

static void views_free_soon(shale_db *db)
{
    bool helped =
        db->options.threads != 0 && atomic_load_explicit(&db->calls_alone, memory_order_relaxed) == 0;
    db_views_free(db, helped ? GIVEN_UP_MOST : 0);
}

/* Caller holds adopt_mutex. The reference is taken over. */
static void replace_current(shale_db *db, struct db_view *view)
{
    struct db_view *old = atomic_exchange_explicit(&db->current, view, memory_order_seq_cst);
    if (old != NULL) {
        while (db->retired_count == BASE_COUNT(db->retired)) {
            retired_scan(db); /* a thread leaves its guard within one lookup: short */
            if (db->retired_count == BASE_COUNT(db->retired)) {
                os_yield();
            }
        }
        db->retired[db->retired_count++] = old;
    }
    retired_scan(db);
    atomic_store_explicit(&db->row->view_epoch, view != NULL ? view->epoch : 0, memory_order_relaxed);
    atomic_store_explicit(&db->row->view_since, os_wall(), memory_order_relaxed);
}

/* A read-only handle holds no LIVE: STATE may be made anew under it. Odd for 10 ms: its maker is slow or
 * dead. */
static int generation_settled(const struct state *s, uint64_t *generation)
{
    for (int i = 0; i < 100; i++) {
        *generation = atomic_load_explicit(&s->generation, memory_order_acquire);
        if ((*generation & 1) == 0) {
            return SHALE_OK;
        }
        os_nap(100000);
    }
    return SHALE_NOTFOUND;
}

/* A STATE that was made anew may name another directory. The other handles keep it from being made anew. */
static int follow_mem_dir(shale_db *db, const struct state *s, const struct db_view *now)
{
    if (!db->readonly || db->mem_generation == now->generation) {
        return SHALE_OK;
    }
    int rc = db_mem_dir_open(db, s);
    if (rc == SHALE_OK && !view_moved(s, now)) {
        db->mem_generation = now->generation;
    }
    return rc;
}

static int missing_file(shale_db *db, const struct state_view *tuple, uint32_t active)
{
    int rc = db_check_mems(db, tuple->oldest, active);
    return rc != SHALE_OK
               ? rc
               : err_set(SHALE_CORRUPT,
                         "%s: a file of the current version is missing (manifest %llu, memtables %u to %u): "
                         "restore it from a backup, or salvage with repair",
                         db->path, (unsigned long long)tuple->manifest, tuple->oldest, active);
}

/* SHALE_NOTFOUND (no text): STATE is being made. */
static int adopt_shared(shale_db *db)
{
    const struct state *s = db->state;
    for (;;) {
        uint64_t generation;
        if (generation_settled(s, &generation) != SHALE_OK) {
            return SHALE_NOTFOUND;
        }
        struct state_view tuple;
        state_load_tuple(s, &tuple);
        struct db_view now = {.generation = generation, .epoch = tuple.epoch, .active = db_active(s)};
        struct db_view *cur = atomic_load_explicit(&db->current, memory_order_acquire);
        if (cur != NULL && !cur->private_replay && !view_moved(s, cur)) {
            return SHALE_OK;
        }
        if (cur != NULL && (cur->private_replay || cur->generation != generation)) {
            db_mems_prune(db, UINT32_MAX); /* the numbers may mean other segments now */
            cur = NULL;
        }
        struct db_view *view = NULL;
        int rc = follow_mem_dir(db, s, &now);
        if (rc == SHALE_OK) {
            rc = build_view(db, cur, &tuple, &now, &view);
        }
        if (view_moved(s, &now)) {
            db_view_unref(view);
            continue;
        }
        if (rc == SHALE_NOTFOUND) {
            rc = missing_file(db, &tuple, now.active);
        }
        if (rc != SHALE_OK) {
            return rc;
        }
        replace_current(db, view);
        db_mems_prune(db, tuple.oldest);
        DB_COUNT(db, adoptions, 1);
        return SHALE_OK;
    }
}

int db_adopt(shale_db *db)
{
    os_mutex_lock(&db->adopt_mutex);
    int rc = db->readonly ? SHALE_NOTFOUND : adopt_shared(db);
    if (!db->readonly && rc == SHALE_NOTFOUND) { /* who holds LIVE keeps STATE from being made anew */
        rc = err_set(SHALE_CORRUPT,
                     "%s: STATE was overwritten while it is in use: end all processes that use the database, "
                     "and open it again",
                     db->path);
    }
    while (db->readonly && rc == SHALE_NOTFOUND) {
        struct db_view *view = NULL;
        rc = db_replay_private(db, &view);
        if (rc == SHALE_OK && view != NULL) {
            replace_current(db, view);
        } else if (rc == SHALE_OK) {
            rc = adopt_shared(db);
        }
    }
    os_mutex_unlock(&db->adopt_mutex);
    views_free_soon(db);
    db_mems_free_soon(db);
    return rc;
}

void db_drop_stale_view(shale_db *db)
{
    struct db_view *cur = atomic_load_explicit(&db->current, memory_order_acquire);
    const struct state *s = db->state;
    if (cur == NULL || s == NULL) {
        return;
    }
    os_mutex_lock(&db->adopt_mutex);
    cur = atomic_load_explicit(&db->current, memory_order_acquire);
    if (cur != NULL && !cur->private_replay && view_moved(s, cur)) {
        (void)adopt_shared(db); /* an error shows itself to the next reader */
    } else {
        retired_scan(db);
    }
    os_mutex_unlock(&db->adopt_mutex);
}

void db_views_release(shale_db *db)
{
    os_mutex_lock(&db->adopt_mutex);
    replace_current(db, NULL);
    for (unsigned i = 0; i < db->retired_count; i++) {
        db_view_unref(db->retired[i]); /* no call is under way on a handle that is being closed */
    }
    db->retired_count = 0;
    os_mutex_unlock(&db->adopt_mutex);
    db_views_free(db, 0);
    db_mems_prune(db, UINT32_MAX);
}

/* ---- entering ---- */

/* A process of few threads, and above all one that reads a key and ends, needs no pages for all of them.
 * Under adopt_mutex: who looks for a view in the hazards has that, so a table that it does not see has no
 * view in it yet that was replaced before. */
static struct db_hazard *far_hazard(shale_db *db, unsigned number)
{
    void *map = NULL;
    os_mutex_lock(&db->adopt_mutex);
    if (atomic_load_explicit(&db->far_hazards, memory_order_relaxed) == NULL) {
        if (os_map_anonymous(DB_FAR_SIZE, &map) == SHALE_OK) {
            atomic_store_explicit(&db->far_hazards, map, memory_order_release);
        } else {
            err_clear(); /* a counted reference will do */
        }
    }
    os_mutex_unlock(&db->adopt_mutex);
    return db_hazard(db, number);
}

static struct db_hazard *own_hazard(shale_db *db)
{
    int n = thread_number != -1 ? thread_number : number_take();
    if (n < 0) {
        return NULL;
    }
    struct db_hazard *h = db_hazard(db, (unsigned)n);
    return BASE_LIKELY(h != NULL) ? h : far_hazard(db, (unsigned)n);
}

static struct db_view *hold_current(shale_db *db, struct db_guard *g)
{
    g->hazard = own_hazard(db);
    if (g->hazard == NULL) {
        os_mutex_lock(&db->adopt_mutex);
        struct db_view *v = atomic_load_explicit(&db->current, memory_order_acquire);
        g->view = v != NULL ? db_view_ref(v) : NULL;
        os_mutex_unlock(&db->adopt_mutex);
        return g->view;
    }
    struct db_view *v = atomic_load_explicit(&db->current, memory_order_acquire);
    for (;;) {
        atomic_store_explicit(&g->hazard->view, v, memory_order_seq_cst);
        struct db_view *again = atomic_load_explicit(&db->current, memory_order_seq_cst);
        if (again == v) {
            break;
        }
        v = again;
    }
    g->view = v;
    return v;
}

void db_view_leave(shale_db *db, struct db_guard *g)
{
    (void)db;
    if (g->hazard != NULL) {
        atomic_store_explicit(&g->hazard->view, NULL, memory_order_release);
    } else if (g->view != NULL) {
        db_view_unref(g->view);
    }
    g->view = NULL;
    g->hazard = NULL;
}

int db_view_enter(shale_db *db, struct db_guard *g, uint64_t *seq)
{
    for (bool adopted = false;; adopted = true) {
        struct db_view *v = hold_current(db, g);
        if (BASE_LIKELY(v != NULL && !v->private_replay)) {
            const struct state *s = db->state;
            uint64_t e = atomic_load_explicit(&s->epoch, memory_order_acquire);
            if (BASE_LIKELY(v->epoch == e && v->active == db_active(s))) {
                uint64_t visible = atomic_load_explicit(&s->visible_seq, memory_order_acquire);
                if (BASE_LIKELY(!view_moved(s, v))) {
                    *seq = visible;
                    return SHALE_OK;
                }
            }
        } else if (v != NULL &&
                   (adopted || db_replay_still_good(db, v))) { /* replayed within this call: good */
            *seq = v->private_seq;
            return SHALE_OK;
        }
        db_view_leave(db, g);
        int rc = db_adopt(db);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

int db_view_get(shale_db *db, struct db_view **view, uint64_t *seq)
{
    struct db_guard g;
    int rc = db_view_enter(db, &g, seq);
    if (rc == SHALE_OK) {
        *view = db_view_ref(g.view);
        db_view_leave(db, &g);
    }
    return rc;
}
