/* edit.c - version edits: what changes from one version to the next, and applying it.
 *
 * An edit is one step: all removals, then all additions, so a table may leave a level and enter another (a
 * trivial move) and keeps its open reader. Loading a manifest applies one edit after the other to a version
 * that nobody else has.
 */
#include "version/manifest.h"

#include <stdlib.h>

void version_edit_release(struct version_edit *e)
{
    for (size_t i = 0; i < e->added_count; i++) {
        table_info_release(&e->added[i].info);
    }
    free(e->added);
    free(e->removed);
    *e = (struct version_edit){0};
}

/* Room for one more in an array that doubles. */
static int grow(void **array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap) {
        return SHALE_OK;
    }
    size_t more = *cap != 0 ? *cap * 2 : 4;
    void *p = base_realloc(*array, more * size);
    if (p == NULL) {
        return SHALE_NOMEM;
    }
    *array = p;
    *cap = more;
    return SHALE_OK;
}

int version_edit_add(struct version_edit *e, unsigned level, struct table_info *info)
{
    void *array = e->added;
    int st = grow(&array, e->added_count, &e->added_cap, sizeof *e->added);
    if (st != SHALE_OK) {
        return st;
    }
    e->added = array;
    e->added[e->added_count++] = (struct version_edit_add){.level = level, .info = *info};
    *info = (struct table_info){0};
    return SHALE_OK;
}

int version_edit_remove(struct version_edit *e, unsigned level, uint64_t number)
{
    void *array = e->removed;
    int st = grow(&array, e->removed_count, &e->removed_cap, sizeof *e->removed);
    if (st != SHALE_OK) {
        return st;
    }
    e->removed = array;
    e->removed[e->removed_count++] = (struct version_edit_remove){.level = level, .number = number};
    return SHALE_OK;
}

/* ---- applying ---- */

/* Takes the table out of its level; the reference goes to *gone. */
static int level_remove(struct version *v, const struct version_edit_remove *r, struct version_table **gone)
{
    struct version_level *l = r->level < VERSION_LEVELS ? &v->level[r->level] : NULL;
    for (uint32_t i = 0; l != NULL && i < l->count; i++) {
        if (l->tables[i]->info.number == r->number) {
            *gone = l->tables[i];
            l->bytes -= l->tables[i]->info.size;
            memmove(&l->tables[i], &l->tables[i + 1], (l->count - i - 1) * sizeof(struct version_table *));
            l->count--;
            return SHALE_OK;
        }
    }
    return err_set(SHALE_CORRUPT, "an edit removes table %llu from level %u, which does not have it",
                   (unsigned long long)r->number, r->level);
}

/* Where a new table goes: in front of L0; else before the first one that begins behind it. */
static uint32_t level_place(const struct version_level *l, unsigned level, const struct version_table *vt)
{
    uint32_t lo = 0, hi = level == 0 ? 0 : l->count;
    if (hi > 0 && version_table_compare(l->tables[hi - 1], vt) <= 0) {
        return hi; /* a whole version lists them in order */
    }
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (version_table_compare(l->tables[mid], vt) <= 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* Puts it into its level, which has room. Takes the reference over. */
static void level_insert(struct version *v, unsigned level, struct version_table *vt)
{
    struct version_level *l = &v->level[level];
    uint32_t at = level_place(l, level, vt);
    memmove(&l->tables[at + 1], &l->tables[at], (l->count - at) * sizeof(struct version_table *));
    l->tables[at] = vt;
    l->count++;
    l->bytes += vt->info.size;
}

/* Room for everything that the edit adds. */
static int reserve_levels(struct version *v, const struct version_edit *e)
{
    uint32_t more[VERSION_LEVELS] = {0};
    for (size_t i = 0; i < e->added_count; i++) {
        if (e->added[i].level >= VERSION_LEVELS) {
            return err_set(SHALE_CORRUPT, "an edit adds table %llu to level %u, which there is not",
                           (unsigned long long)e->added[i].info.number, e->added[i].level);
        }
        more[e->added[i].level]++;
    }
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        struct version_level *l = &v->level[level];
        if (more[level] == 0) {
            continue;
        }
        void *p = base_realloc(l->tables, ((size_t)l->count + more[level]) * sizeof(struct version_table *));
        if (p == NULL) {
            return SHALE_NOMEM;
        }
        l->tables = p;
    }
    return SHALE_OK;
}

/* The table that an addition means: one that the same edit removed elsewhere, with its reader, or a new one.
 */
static int added_table(const struct version_edit_add *a, struct version_table **gone, size_t gone_count,
                       struct version_table **vt)
{
    for (size_t i = 0; i < gone_count; i++) {
        if (gone[i]->info.number == a->info.number) {
            if (gone[i]->info.size != a->info.size) {
                return err_set(SHALE_CORRUPT, "an edit moves table %llu and changes its size",
                               (unsigned long long)a->info.number);
            }
            *vt = version_table_ref(gone[i]);
            return SHALE_OK;
        }
    }
    return version_table_create(&a->info, vt);
}

/* The counters of a version only grow: an edit that takes one back was not made from this version. */
static int change_numbers(struct version *v, const struct version_edit *e)
{
    if (e->has_oldest && e->oldest < v->oldest) {
        return err_set(SHALE_CORRUPT, "an edit takes the oldest memtable back from %u to %u", v->oldest,
                       e->oldest);
    }
    if (e->has_last_seq && e->last_seq < v->last_seq) {
        return err_set(SHALE_CORRUPT, "an edit takes the last sequence number back from %llu to %llu",
                       (unsigned long long)v->last_seq, (unsigned long long)e->last_seq);
    }
    v->oldest = e->has_oldest ? e->oldest : v->oldest;
    v->last_seq = e->has_last_seq ? e->last_seq : v->last_seq;
    return SHALE_OK;
}

int version_change(struct version *v, const struct version_edit *e)
{
    struct version_table **gone = base_calloc(e->removed_count + 1, sizeof(struct version_table *));
    size_t gone_count = 0;
    int st = gone == NULL ? SHALE_NOMEM : change_numbers(v, e);
    if (st == SHALE_OK) {
        st = reserve_levels(v, e);
    }
    for (size_t i = 0; i < e->removed_count && st == SHALE_OK; i++) {
        st = level_remove(v, &e->removed[i], &gone[gone_count]);
        gone_count += st == SHALE_OK;
    }
    for (size_t i = 0; i < e->added_count && st == SHALE_OK; i++) {
        const struct version_edit_add *a = &e->added[i];
        struct version_table *vt;
        st = added_table(a, gone, gone_count, &vt);
        if (st == SHALE_OK) {
            level_insert(v, a->level, vt);
            v->next_table = v->next_table > a->info.number ? v->next_table : a->info.number + 1;
        }
    }
    while (gone_count > 0) {
        version_table_unref(gone[--gone_count]);
    }
    free(gone);
    return st;
}

int version_apply(const struct version *base, const struct version_edit *e, struct version **out)
{
    struct version *v;
    int st = version_clone(base, &v);
    if (st != SHALE_OK) {
        return st;
    }
    st = version_change(v, e);
    if (st == SHALE_OK) {
        st = version_seal(v);
    }
    if (st != SHALE_OK) {
        version_unref(v);
        return st;
    }
    *out = v;
    return SHALE_OK;
}
