/* version.c - version objects: shared, immutable once sealed, searched by level.
 *
 * A version owns a reference to each of its tables; versions that follow each other share most of them, and
 * with them the readers that somebody has opened. While it is being built (loading, applying an edit) exactly
 * one thread has it; version_seal ends that.
 */
#include "version/manifest.h"

#include <stdlib.h>

/* ---- tables ---- */

int version_table_create(const struct table_info *info, struct version_table **out)
{
    struct version_table *vt = base_calloc(1, sizeof *vt);
    if (vt == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&vt->refs, 1);
    atomic_init(&vt->reader, NULL);
    os_mutex_init(&vt->opening);
    vt->info = *info;
    vt->info.smallest = vt->info.largest = (struct buf){0};
    int st = buf_set(&vt->info.smallest, info->smallest.data, info->smallest.size);
    if (st == SHALE_OK) {
        st = buf_set(&vt->info.largest, info->largest.data, info->largest.size);
    }
    if (st != SHALE_OK) {
        version_table_unref(vt);
        return st;
    }
    *out = vt;
    return SHALE_OK;
}

struct version_table *version_table_ref(struct version_table *vt)
{
    atomic_fetch_add_explicit(&vt->refs, 1, memory_order_relaxed);
    return vt;
}

void version_table_unref(struct version_table *vt)
{
    /* acq_rel: the last one must see everything that the others did with it */
    if (vt == NULL || atomic_fetch_sub_explicit(&vt->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    table_unref(atomic_load_explicit(&vt->reader, memory_order_relaxed));
    table_info_release(&vt->info);
    os_mutex_destroy(&vt->opening);
    free(vt);
}

int version_table_compare(const struct version_table *a, const struct version_table *b)
{
    return slice_compare(buf_slice(&a->info.smallest), buf_slice(&b->info.smallest));
}

int version_table_open(struct version_table *vt, int dirfd, struct cache *cache, bool verify,
                       struct table **t)
{
    struct table *reader = atomic_load_explicit(&vt->reader, memory_order_acquire);
    int st = SHALE_OK;
    if (BASE_LIKELY(reader != NULL)) {
        *t = reader;
        return SHALE_OK;
    }
    os_mutex_lock(&vt->opening);
    reader = atomic_load_explicit(&vt->reader, memory_order_relaxed);
    if (reader == NULL) {
        st = table_open(dirfd, vt->info.number, vt->info.size, cache, verify, &reader);
        if (st == SHALE_OK) {
            atomic_store_explicit(&vt->reader, reader, memory_order_release);
        }
    }
    os_mutex_unlock(&vt->opening);
    if (st == SHALE_OK) {
        *t = reader;
    }
    return st;
}

/* ---- life of a version ---- */

int version_create(const unsigned char uuid[VERSION_UUID_SIZE], const struct version_options *options,
                   uint32_t oldest, struct version **out)
{
    struct version *v = base_calloc(1, sizeof *v);
    if (v == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&v->refs, 1);
    memcpy(v->uuid, uuid, sizeof v->uuid);
    v->options = *options;
    v->oldest = oldest;
    v->next_table = 1;
    *out = v;
    return SHALE_OK;
}

struct version *version_ref(struct version *v)
{
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void version_unref(struct version *v)
{
    if (v == NULL || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        struct version_level *l = &v->level[level];
        for (uint32_t i = 0; i < l->count; i++) {
            version_table_unref(l->tables[i]);
        }
        free(l->tables);
        free(l->heads);
    }
    free(v);
}

int version_clone(const struct version *base, struct version **out)
{
    struct version *v;
    int st = version_create(base->uuid, &base->options, base->oldest, &v);
    if (st != SHALE_OK) {
        return st;
    }
    v->manifest = base->manifest;
    v->length = base->length;
    v->base_length = base->base_length;
    v->ro_compat = base->ro_compat;
    v->compat = base->compat;
    v->last_seq = base->last_seq;
    v->next_table = base->next_table;
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        const struct version_level *from = &base->level[level];
        struct version_level *to = &v->level[level];
        if (from->count == 0) {
            continue;
        }
        to->tables = base_calloc(from->count, sizeof *to->tables);
        if (to->tables == NULL) {
            version_unref(v);
            return SHALE_NOMEM;
        }
        for (; to->count < from->count; to->count++) {
            to->tables[to->count] = version_table_ref(from->tables[to->count]);
        }
        to->bytes = from->bytes;
    }
    *out = v;
    return SHALE_OK;
}

/* ---- checking ---- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int check_unique(const struct version *v)
{
    size_t n = 0, total = 0;
    int st = SHALE_OK;
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        total += v->level[level].count;
    }
    uint64_t *numbers = total != 0 ? base_calloc(total, sizeof *numbers) : NULL;
    if (numbers == NULL) {
        return total != 0 ? SHALE_NOMEM : SHALE_OK;
    }
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        for (uint32_t i = 0; i < v->level[level].count; i++) {
            numbers[n++] = v->level[level].tables[i]->info.number;
        }
    }
    qsort(numbers, n, sizeof *numbers, compare_numbers);
    for (size_t i = 1; i < n && st == SHALE_OK; i++) {
        if (numbers[i] == numbers[i - 1]) {
            st = err_set(SHALE_CORRUPT, "table %llu is there twice", (unsigned long long)numbers[i]);
        }
    }
    if (st == SHALE_OK && numbers[n - 1] >= v->next_table) {
        st = err_set(SHALE_CORRUPT, "table %llu is not below the next number %llu",
                     (unsigned long long)numbers[n - 1], (unsigned long long)v->next_table);
    }
    free(numbers);
    return st;
}

static int check_table(unsigned level, const struct table_info *info)
{
    if (info->number == 0 || info->deletes > info->entries || info->min_seq > info->max_seq ||
        slice_compare(buf_slice(&info->smallest), buf_slice(&info->largest)) > 0) {
        return err_set(SHALE_CORRUPT,
                       "level %u: table %llu: its counts or its key range contradict each other", level,
                       (unsigned long long)info->number);
    }
    return SHALE_OK;
}

int version_check(const struct version *v)
{
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        const struct version_level *l = &v->level[level];
        for (uint32_t i = 0; i < l->count; i++) {
            const struct table_info *info = &l->tables[i]->info;
            int st = check_table(level, info);
            if (st != SHALE_OK) {
                return st;
            }
            if (level > 0 && i > 0 &&
                slice_compare(buf_slice(&l->tables[i - 1]->info.largest), buf_slice(&info->smallest)) >= 0) {
                return err_set(SHALE_CORRUPT, "level %u: tables %llu and %llu overlap", level,
                               (unsigned long long)l->tables[i - 1]->info.number,
                               (unsigned long long)info->number);
            }
        }
    }
    return check_unique(v);
}

bool version_has(const struct version *v, uint64_t table)
{
    for (unsigned l = 0; l < VERSION_LEVELS; l++) {
        for (uint32_t i = 0; i < v->level[l].count; i++) {
            if (v->level[l].tables[i]->info.number == table) {
                return true;
            }
        }
    }
    return false;
}

int version_check_writable(const struct version *v)
{
    uint64_t unknown = v->ro_compat & ~MANIFEST_KNOWN_RO_COMPAT;
    return unknown == 0
               ? SHALE_OK
               : err_set(SHALE_MISMATCH,
                         "the database has features (0x%llx) with which this library may read it, but not "
                         "write (open it read-only, or with a newer version)",
                         (unsigned long long)unknown);
}

int version_seal(struct version *v)
{
    for (unsigned level = 1; level < VERSION_LEVELS; level++) {
        struct version_level *l = &v->level[level];
        uint64_t *heads = l->count != 0 ? base_calloc(l->count, sizeof *heads) : NULL;
        if (l->count != 0 && heads == NULL) {
            return SHALE_NOMEM;
        }
        for (uint32_t i = 0; i < l->count; i++) {
            heads[i] = key_head(buf_slice(&l->tables[i]->info.largest));
        }
        free(l->heads);
        l->heads = heads;
    }
    return version_check(v);
}

/* ---- sharing what is open ---- */

static int compare_tables(const void *a, const void *b)
{
    const struct version_table *x = *(struct version_table *const *)a, *y = *(struct version_table *const *)b;
    return compare_numbers(&x->info.number, &y->info.number);
}

void version_share(struct version *v, const struct version *known)
{
    size_t n = 0, total = 0;
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        total += known->level[level].count;
    }
    struct version_table **sorted = total != 0 ? base_calloc(total, sizeof(struct version_table *)) : NULL;
    if (sorted == NULL) {
        return; /* each opens its own: slower, and right */
    }
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        for (uint32_t i = 0; i < known->level[level].count; i++) {
            sorted[n++] = known->level[level].tables[i];
        }
    }
    qsort(sorted, n, sizeof(struct version_table *), compare_tables);
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        for (uint32_t i = 0; i < v->level[level].count; i++) {
            struct version_table **mine = &v->level[level].tables[i];
            struct version_table **same =
                bsearch(mine, sorted, n, sizeof(struct version_table *), compare_tables);
            if (same != NULL && *same != *mine && (*same)->info.size == (*mine)->info.size) {
                version_table_unref(*mine);
                *mine = version_table_ref(*same);
            }
        }
    }
    free(sorted);
}

/* ---- searching ---- */

/* The first table of a level >= 1 whose largest key is not below key. */
static uint32_t first_reaching(const struct version_level *l, struct slice key)
{
    uint64_t head = key_head(key);
    uint32_t lo = 0, hi = l->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        bool below = l->heads[mid] != head ? l->heads[mid] < head
                                           : slice_compare(buf_slice(&l->tables[mid]->info.largest), key) < 0;
        if (below) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

void version_overlap(const struct version *v, unsigned level, struct slice lo, struct slice hi,
                     uint32_t *first, uint32_t *count)
{
    const struct version_level *l = &v->level[level];
    uint32_t begin = 0, end = l->count;
    if (level > 0 && lo.data != NULL) {
        begin = first_reaching(l, lo);
    }
    if (level > 0 && hi.data != NULL) {
        uint32_t a = begin;
        while (a < end) { /* the first table that begins behind hi */
            uint32_t mid = a + (end - a) / 2;
            if (slice_compare(buf_slice(&l->tables[mid]->info.smallest), hi) <= 0) {
                a = mid + 1;
            } else {
                end = mid;
            }
        }
    }
    *first = begin;
    *count = end > begin ? end - begin : 0;
}

struct version_table *version_find(const struct version *v, unsigned level, struct slice key)
{
    const struct version_level *l = &v->level[level];
    uint32_t i = first_reaching(l, key);
    if (i == l->count || slice_compare(buf_slice(&l->tables[i]->info.smallest), key) > 0) {
        return NULL;
    }
    return l->tables[i];
}

/* ---- showing ---- */

static int print_key(struct buf *out, struct slice key)
{
    int st = buf_printf(out, "\"");
    size_t shown = key.size < 32 ? key.size : 32;
    for (size_t i = 0; i < shown && st == SHALE_OK; i++) {
        unsigned char c = key.data[i];
        st = c >= 0x20 && c < 0x7f && c != '"' && c != '\\' ? buf_printf(out, "%c", c)
                                                            : buf_printf(out, "\\x%02x", c);
    }
    return st != SHALE_OK ? st : buf_printf(out, shown < key.size ? "\"..." : "\"");
}

static int print_table(struct buf *out, const struct table_info *info)
{
    char name[TABLE_NAME_SIZE];
    table_name(info->number, name);
    int st = buf_printf(out, "  %s %llu bytes, %llu entries, %llu deletes, seq %llu to %llu, keys ", name,
                        (unsigned long long)info->size, (unsigned long long)info->entries,
                        (unsigned long long)info->deletes, (unsigned long long)info->min_seq,
                        (unsigned long long)info->max_seq);
    st = st != SHALE_OK ? st : print_key(out, buf_slice(&info->smallest));
    st = st != SHALE_OK ? st : buf_printf(out, " to ");
    st = st != SHALE_OK ? st : print_key(out, buf_slice(&info->largest));
    return st != SHALE_OK ? st : buf_printf(out, "\n");
}

int version_print(const struct version *v, struct buf *out)
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(v->manifest, name);
    int st = buf_printf(out, "%s to %llu, oldest memtable %u, last seq %llu, next table %llu\n", name,
                        (unsigned long long)v->length, v->oldest, (unsigned long long)v->last_seq,
                        (unsigned long long)v->next_table);
    for (unsigned level = 0; level < VERSION_LEVELS && st == SHALE_OK; level++) {
        const struct version_level *l = &v->level[level];
        if (l->count == 0) {
            continue;
        }
        st = buf_printf(out, "L%u: %u tables, %llu bytes\n", level, l->count, (unsigned long long)l->bytes);
        for (uint32_t i = 0; i < l->count && st == SHALE_OK; i++) {
            st = print_table(out, &l->tables[i]->info);
        }
    }
    return st;
}
