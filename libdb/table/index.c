/* index.c - the index of a table's blocks: see index.h. */
#include "table/index.h"

static int malformed(const struct table_index *x)
{
    return err_set(SHALE_CORRUPT, "%s: index: malformed", x->tail->name);
}

static inline uint64_t head_at(const struct table_index *x, uint32_t i)
{
    return get_u64(x->heads + (size_t)i * 8);
}

static uint32_t groups_of(uint32_t count)
{
    return count / INDEX_GROUP + (count % INDEX_GROUP != 0);
}

int index_open(struct table_index *x, const struct table_tail *tail, const unsigned char *data, uint64_t size)
{
    *x = (struct table_index){.tail = tail};
    if (size < INDEX_HEADER) {
        return malformed(x);
    }
    int rc = tail_need(tail, data, INDEX_HEADER);
    if (rc != SHALE_OK) {
        return rc;
    }
    uint32_t count = get_u32(data), prefix = get_u32(data + 4), separators = get_u32(data + 8);
    uint64_t first = INDEX_HEADER + (uint64_t)groups_of(count) * 8 + align_up(prefix, 8);
    uint64_t arrays = (uint64_t)count * (8 + sizeof(struct index_entry) + 4);
    if (count == 0 || get_u32(data + 12) != 0 || first + arrays + separators != size) {
        return malformed(x);
    }
    x->count = count;
    x->groups = groups_of(count);
    x->prefix_size = prefix;
    x->separators_size = separators;
    x->tops = data + INDEX_HEADER;
    x->prefix = x->tops + (size_t)x->groups * 8;
    x->heads = data + first;
    x->entries = x->heads + (size_t)count * 8;
    x->ends = x->entries + (size_t)count * sizeof(struct index_entry);
    x->separators = x->ends + (size_t)count * 4;
    return tail_need(tail, data, (size_t)first);
}

int index_at(const struct table_index *x, uint32_t i, struct index_entry *e)
{
    const unsigned char *p = x->entries + (size_t)i * sizeof *e;
    int rc = tail_need(x->tail, p, sizeof *e);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    memcpy(e, p, sizeof *e);
    uint64_t data_size = x->tail->from; /* the tail begins where the data ends */
    bool inside = e->offset <= data_size && e->stored <= e->raw &&
                  (uint64_t)e->stored + sizeof(struct table_trailer) <= data_size - e->offset;
    return BASE_LIKELY(inside) ? SHALE_OK : malformed(x);
}

/* Separator i without the prefix. */
static int separator_at(const struct table_index *x, uint32_t i, struct slice *suffix)
{
    const unsigned char *p = x->ends + (size_t)i * 4;
    int rc = tail_need(x->tail, i == 0 ? p : p - 4, i == 0 ? 4 : 8);
    if (rc != SHALE_OK) {
        return rc;
    }
    uint32_t from = i == 0 ? 0 : get_u32(p - 4), to = get_u32(p);
    if (from > to || to > x->separators_size) {
        return malformed(x);
    }
    *suffix = slice_make(x->separators + from, to - from);
    return from != to ? tail_need(x->tail, suffix->data, suffix->size) : SHALE_OK;
}

/* The first of n > 0 heads that is >= h, or n. Without branches: which way a search turns cannot be
 * predicted. */
static inline uint32_t heads_from(const unsigned char *heads, uint32_t n, uint64_t h)
{
    uint32_t base = 0;
    while (n > 1) {
        uint32_t half = n / 2;
        base += (uint32_t)(get_u64(heads + (size_t)(base + half - 1) * 8) < h) * half;
        n -= half;
    }
    return base + (uint32_t)(get_u64(heads + (size_t)base * 8) < h);
}

/* The first block whose head is >= h, or count; its head may be read. group: the first whose top is >= h. */
static int first_from(const struct table_index *x, uint32_t group, uint64_t h, uint32_t *at)
{
    if (group == x->groups) {
        *at = x->count;
        return SHALE_OK;
    }
    uint32_t from = group * INDEX_GROUP;
    uint32_t n = x->count - from < INDEX_GROUP ? x->count - from : INDEX_GROUP;
    const unsigned char *heads = x->heads + (size_t)from * 8;
    int rc = tail_need(x->tail, heads, (size_t)n * 8);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    uint32_t i = heads_from(heads, n, h);
    *at = from + i;
    return BASE_LIKELY(i < n) ? SHALE_OK : malformed(x); /* its top said otherwise */
}

/* Among the separators [lo, hi), whose heads equal the suffix's. */
static int search_ties(const struct table_index *x, struct slice suffix, uint32_t lo, uint32_t hi,
                       uint32_t *block)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        struct slice s = {NULL, 0};
        int rc = separator_at(x, mid, &s);
        if (rc != SHALE_OK) {
            return rc;
        }
        bool behind = slice_compare(s, suffix) < 0;
        lo = behind ? mid + 1 : lo;
        hi = behind ? hi : mid;
    }
    *block = lo;
    return SHALE_OK;
}

void index_find_begin(const struct table_index *x, struct slice key, struct index_search *s)
{
    struct slice prefix = slice_make(x->prefix, x->prefix_size);
    if (prefix.size != 0 && (key.size < prefix.size || memcmp(key.data, prefix.data, prefix.size) != 0)) {
        bool before = slice_compare(key, prefix) < 0;
        s->suffix = slice_make(key.data, 0); /* not behind any separator */
        s->head = 0;
        s->group = before ? 0 : x->groups;
        return;
    }
    s->suffix = slice_make(key.data + prefix.size, key.size - prefix.size);
    s->head = key_head(s->suffix);
    s->group = heads_from(x->tops, x->groups, s->head);
    const unsigned char *heads = x->heads + (size_t)s->group * INDEX_GROUP * 8;
    for (size_t i = 0; i < INDEX_GROUP * 8; i += BASE_CACHELINE) {
        BASE_PREFETCH(heads + i);
    }
}

int index_find_end(const struct table_index *x, const struct index_search *s, uint32_t *block)
{
    uint32_t lo, hi = x->count;
    int rc = first_from(x, s->group, s->head, &lo);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    if (lo == x->count || head_at(x, lo) != s->head) {
        *block = lo;
        return SHALE_OK;
    }
    if (s->head != UINT64_MAX) {
        rc = first_from(x, heads_from(x->tops, x->groups, s->head + 1), s->head + 1, &hi);
    }
    return rc == SHALE_OK ? search_ties(x, s->suffix, lo, hi, block) : rc;
}

int index_find(const struct table_index *x, struct slice key, uint32_t *block)
{
    struct index_search s;
    index_find_begin(x, key, &s);
    return index_find_end(x, &s, block);
}

/* ---- building ---- */

void index_builder_release(struct index_builder *b)
{
    buf_release(&b->entries);
    buf_release(&b->ends);
    buf_release(&b->separators);
}

static size_t common_prefix(struct slice a, struct slice b)
{
    size_t n = a.size < b.size ? a.size : b.size, i = 0;
    while (i < n && a.data[i] == b.data[i]) {
        i++;
    }
    return i;
}

/* How many bytes of last make, with the final one raised by one, something >= last and < next. 0: only last
 * itself does. */
static size_t short_separator(struct slice last, struct slice next)
{
    size_t shared = common_prefix(last, next);
    if (shared >= last.size) {
        return 0;
    }
    if (last.data[shared] + 1 < next.data[shared]) {
        return shared + 1;
    }
    for (size_t i = shared + 1; i < last.size; i++) {
        if (last.data[i] != 0xff) {
            return i + 1;
        }
    }
    return 0;
}

int index_add(struct index_builder *b, struct index_entry e, struct slice last, const struct slice *next)
{
    size_t cut = next != NULL ? short_separator(last, *next) : 0;
    struct slice s = slice_make(last.data, cut != 0 ? cut : last.size);
    if (b->count == UINT32_MAX || b->separators.size + s.size > UINT32_MAX) {
        return err_set(SHALE_TOOBIG, "too many blocks for one table");
    }
    uint32_t end = (uint32_t)(b->separators.size + s.size);
    int rc = buf_append(&b->entries, &e, sizeof e);
    if (rc == SHALE_OK) {
        rc = buf_append(&b->ends, &end, sizeof end);
    }
    if (rc == SHALE_OK) {
        rc = buf_reserve(&b->separators, s.size + 1); /* a pointer even where the only separator is empty */
    }
    if (rc == SHALE_OK) {
        rc = buf_append(&b->separators, s.data, s.size);
    }
    if (rc == SHALE_OK) {
        if (cut != 0) {
            b->separators.data[b->separators.size - 1]++;
        }
        b->count++;
    }
    return rc;
}

static struct slice separator(const struct index_builder *b, uint32_t i)
{
    uint32_t from = i == 0 ? 0 : get_u32(b->ends.data + ((size_t)i - 1) * 4);
    return slice_make(b->separators.data + from, get_u32(b->ends.data + (size_t)i * 4) - from);
}

/* heads and tops, and the separators without the prefix, at p. */
static void put_separators(const struct index_builder *b, size_t prefix, unsigned char *tops,
                           unsigned char *heads, unsigned char *ends, unsigned char *p)
{
    const unsigned char *first = p;
    for (uint32_t i = 0; i < b->count; i++) {
        struct slice s = separator(b, i);
        struct slice suffix = slice_make(s.data + prefix, s.size - prefix);
        put_u64(heads + (size_t)i * 8, key_head(suffix));
        put_u64(tops + (size_t)(i / INDEX_GROUP) * 8, key_head(suffix)); /* the group's last one stays */
        if (suffix.size != 0) {
            memcpy(p, suffix.data, suffix.size);
        }
        p += suffix.size;
        put_u32(ends + (size_t)i * 4, (uint32_t)(p - first));
    }
}

int index_finish(const struct index_builder *b, struct buf *out)
{
    size_t n = b->count;
    size_t prefix = n > 1 ? common_prefix(separator(b, 0), separator(b, b->count - 1)) : 0;
    size_t separators = b->separators.size - prefix * n;
    size_t tops = (size_t)groups_of(b->count) * 8, padded = (size_t)align_up(prefix, 8);
    size_t size = INDEX_HEADER + tops + padded + n * (8 + sizeof(struct index_entry) + 4) + separators;
    int rc = buf_reserve(out, size);
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned char *p = out->data + out->size;
    out->size += size;
    put_u32(p, b->count);
    put_u32(p + 4, (uint32_t)prefix);
    put_u32(p + 8, (uint32_t)separators);
    put_u32(p + 12, 0);
    unsigned char *at_tops = p + INDEX_HEADER, *at_prefix = at_tops + tops, *heads = at_prefix + padded;
    unsigned char *entries = heads + n * 8, *ends = entries + b->entries.size;
    memset(at_prefix, 0, padded);
    if (prefix != 0) {
        memcpy(at_prefix, b->separators.data, prefix);
    }
    memcpy(entries, b->entries.data, b->entries.size);
    put_separators(b, prefix, at_tops, heads, ends, ends + n * 4);
    return SHALE_OK;
}
