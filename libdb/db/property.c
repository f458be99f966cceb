/* property.c - what a database tells of itself as text, by name: one table of names and the functions that
 * print them. */
#include "db/db.h"

#include <stdlib.h>

typedef int (*print_property)(shale_db *db, const struct db_view *view, struct buf *out);

static int print_levels(shale_db *db, const struct db_view *view, struct buf *out)
{
    (void)db;
    int rc = buf_printf(out, "level  tables  bytes  entries  tombstones\n");
    for (unsigned l = 0; rc == SHALE_OK && l < VERSION_LEVELS; l++) {
        const struct version_level *level = &view->version->level[l];
        uint64_t entries = 0, deletes = 0;
        for (uint32_t i = 0; i < level->count; i++) {
            entries += level->tables[i]->info.entries;
            deletes += level->tables[i]->info.deletes;
        }
        rc = buf_printf(out, "L%u  %u  %llu  %llu  %llu\n", l, level->count, (unsigned long long)level->bytes,
                        (unsigned long long)entries, (unsigned long long)deletes);
    }
    return rc;
}

static int print_counters(shale_db *db, const struct db_view *view, struct buf *out)
{
    (void)view;
    struct state_totals t = {0};
    if (db->state != NULL) {
        db_fold_counters(db);
        state_sum(db->state, &t);
    }
    int rc = SHALE_OK;
#define X(name, kind, text)                                                                                  \
    if (rc == SHALE_OK) {                                                                                    \
        rc = buf_printf(out, "%s %llu\n", #name, (unsigned long long)t.name);                                \
    }
    STATE_COUNTERS(X)
#undef X
    return rc;
}

static int print_version(shale_db *db, const struct db_view *view, struct buf *out)
{
    (void)db;
    return version_print(view->version, out);
}

static int print_memtables(shale_db *db, const struct db_view *view, struct buf *out)
{
    int rc = SHALE_OK;
    (void)db;
    for (unsigned i = 0; rc == SHALE_OK && i < view->mem_count; i++) {
        const struct mem_index *m = view->mem[i];
        rc = buf_printf(out, "%u  log %llu bytes  index used %llu bytes  keys %llu  entries %llu\n",
                        m->seg->number, (unsigned long long)m->seg->size, (unsigned long long)mem_used(m),
                        (unsigned long long)mem_keys(m), (unsigned long long)mem_entries(m));
    }
    return rc;
}

static int print_log(shale_db *db, const struct db_view *view, struct buf *out)
{
    const struct state *s = db->state;
    (void)view;
    if (s == NULL) {
        return buf_printf(out, "replayed privately\n");
    }
#define SHOW(name) #name " %llx\n"
#define LOAD(name) (unsigned long long)atomic_load_explicit(&s->name, memory_order_relaxed)
    return buf_printf(out,
                      SHOW(wal_end) SHOW(synced_lsn) SHOW(sync_attempt) SHOW(in_flight) SHOW(ready)
                          SHOW(panic) SHOW(spare),
                      LOAD(wal_end), LOAD(synced_lsn), LOAD(sync_attempt), LOAD(in_flight), LOAD(ready),
                      LOAD(panic), LOAD(spare));
#undef SHOW
#undef LOAD
}

/* ---- unlinked and still mapped ---- */

struct mapped {
    uint64_t number, size;
};

static int by_number(const void *a, const void *b)
{
    const struct mapped *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* The tables that views of this handle have opened, in order; those of several views more than once. */
static int list_mapped(shale_db *db, struct buf *out)
{
    int rc = SHALE_OK;
    os_mutex_lock(&db->views_mutex);
    for (struct db_view *view = db->views; view != NULL; view = view->older) {
        for (unsigned l = 0; l < VERSION_LEVELS; l++) {
            const struct version_level *level = &view->version->level[l];
            for (uint32_t i = 0; rc == SHALE_OK && i < level->count; i++) {
                struct mapped m = {level->tables[i]->info.number, level->tables[i]->info.size};
                if (atomic_load_explicit(&level->tables[i]->reader, memory_order_acquire) != NULL) {
                    rc = buf_append(out, &m, sizeof m);
                }
            }
        }
    }
    os_mutex_unlock(&db->views_mutex);
    if (rc == SHALE_OK && out->size != 0) {
        qsort(out->data, out->size / sizeof(struct mapped), sizeof(struct mapped), by_number);
    }
    return rc;
}

static int print_unlinked(shale_db *db, const struct db_view *view, struct buf *out)
{
    struct buf list = {0};
    uint64_t bytes = 0, last = 0;
    struct stat st;
    (void)view;
    int rc = list_mapped(db, &list);
    for (size_t at = 0; rc == SHALE_OK && at < list.size; at += sizeof(struct mapped)) {
        struct mapped m;
        char name[TABLE_NAME_SIZE];
        memcpy(&m, list.data + at, sizeof m);
        table_name(m.number, name);
        if (m.number != last && os_stat_at(db->dirfd, name, &st) == SHALE_NOTFOUND) {
            bytes += m.size;
        }
        last = m.number;
    }
    buf_release(&list);
    return rc == SHALE_OK ? buf_printf(out, "%llu\n", (unsigned long long)bytes) : rc;
}

static int print_uuid(shale_db *db, const struct db_view *view, struct buf *out)
{
    int rc = SHALE_OK;
    (void)db; /* what the handle knows may change while it looks for a STATE that is in order */
    for (size_t i = 0; rc == SHALE_OK && i < sizeof view->version->uuid; i++) {
        rc = buf_printf(out, "%02x", view->version->uuid[i]);
    }
    return rc == SHALE_OK ? buf_printf(out, "\n") : rc;
}

static const struct property {
    const char *name;
    print_property print;
} properties[] = {
    {"counters", print_counters},   {"levels", print_levels},           {"log", print_log},
    {"memtables", print_memtables}, {"unlinked-bytes", print_unlinked}, {"uuid", print_uuid},
    {"version", print_version},
};

static const struct property *find_property(const char *name)
{
    static const char prefix[] = "shale.";
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        name += sizeof prefix - 1;
    }
    for (size_t i = 0; i < BASE_COUNT(properties); i++) {
        if (strcmp(properties[i].name, name) == 0) {
            return &properties[i];
        }
    }
    return NULL;
}

/* The text, NUL-terminated, as far as cap allows; *need is its length without the NUL. SHALE_TOOBIG: cap is
 * not more than that. */
int shale_property(shale_db *db, const char *name, char *buf, size_t cap, size_t *need)
{
    int rc = db_check(db);
    if (need != NULL) {
        *need = 0;
    }
    if (rc == SHALE_OK && (name == NULL || (buf == NULL && cap != 0))) {
        rc = err_set(SHALE_INVALID, "shale_property: the name, or a buffer of non-zero size, is NULL");
    }
    const struct property *p = rc == SHALE_OK ? find_property(name) : NULL;
    if (rc == SHALE_OK && p == NULL) {
        return err_set(SHALE_NOTFOUND,
                       "no property \"%s\": counters, levels, log, memtables, unlinked-bytes, uuid and "
                       "version are there",
                       name);
    }
    struct db_view *view = NULL;
    struct buf text = {0};
    uint64_t seq;
    if (rc == SHALE_OK) {
        rc = db_view_get(db, &view, &seq);
    }
    if (rc == SHALE_OK) {
        rc = p->print(db, view, &text);
    }
    if (rc == SHALE_OK) {
        if (need != NULL) {
            *need = text.size;
        }
        size_t n = text.size < cap ? text.size : cap == 0 ? 0 : cap - 1;
        if (n != 0) {
            memcpy(buf, text.data, n); /* an empty text has no data */
        }
        if (cap != 0) {
            buf[n] = '\0';
        }
        if (text.size >= cap) {
            rc = err_set(SHALE_TOOBIG, "the property is %zu bytes long, the buffer %zu", text.size + 1, cap);
        }
    }
    buf_release(&text);
    db_view_unref(view);
    return rc;
}
