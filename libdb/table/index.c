/* index.c - the index of a table's blocks: see index.h. */
#include "table/index.h"

static inline uint64_t head_at(const struct table_index *x, uint32_t i)
{
    return get_u64(x->heads + (size_t)i * 8);
}

bool index_open(struct table_index *x, const unsigned char *data, uint64_t size, uint64_t data_size)
{
    if (size < INDEX_HEADER) {
        return false;
    }
    uint32_t count = get_u32(data), prefix = get_u32(data + 4), separators = get_u32(data + 8);
    uint64_t arrays = (uint64_t)count * (8 + sizeof(struct index_entry) + 4);
    if (count == 0 || get_u32(data + 12) != 0 || INDEX_HEADER + arrays + prefix + separators != size) {
        return false;
    }
    x->count = count;
    x->prefix_size = prefix;
    x->separators_size = separators;
    x->heads = data + INDEX_HEADER;
    x->entries = x->heads + (size_t)count * 8;
    x->ends = x->entries + (size_t)count * sizeof(struct index_entry);
    x->prefix = x->ends + (size_t)count * 4;
    x->separators = x->prefix + prefix;
    x->data_size = data_size;
    return true;
}

bool index_at(const struct table_index *x, uint32_t i, struct index_entry *e)
{
    memcpy(e, x->entries + (size_t)i * sizeof *e, sizeof *e);
    return e->offset <= x->data_size && e->stored <= e->raw &&
           (uint64_t)e->stored + sizeof(struct table_trailer) <= x->data_size - e->offset;
}

bool index_separator(const struct table_index *x, uint32_t i, struct slice *suffix)
{
    uint32_t from = i == 0 ? 0 : get_u32(x->ends + ((size_t)i - 1) * 4);
    uint32_t to = get_u32(x->ends + (size_t)i * 4);
    if (from > to || to > x->separators_size) {
        return false;
    }
    *suffix = slice_make(x->separators + from, to - from);
    return true;
}

/* The first of all heads that is >= h, without branches. */
static uint32_t heads_from(const struct table_index *x, uint64_t h)
{
    uint32_t base = 0, n = x->count;
    while (n > 1) {
        uint32_t half = n / 2;
        base += (uint32_t)(head_at(x, base + half - 1) < h) * half;
        n -= half;
    }
    return base + (uint32_t)(head_at(x, base) < h);
}

bool index_find(const struct table_index *x, struct slice key, uint32_t *block)
{
    struct slice prefix = slice_make(x->prefix, x->prefix_size);
    if (prefix.size != 0 && (key.size < prefix.size || memcmp(key.data, prefix.data, prefix.size) != 0)) {
        *block = slice_compare(key, prefix) < 0 ? 0 : x->count;
        return true;
    }
    struct slice suffix = slice_make(key.data + prefix.size, key.size - prefix.size);
    uint64_t h = key_head(suffix);
    uint32_t lo = heads_from(x, h);
    uint32_t hi = lo;
    if (lo < x->count && head_at(x, lo) == h) {
        hi = h == UINT64_MAX ? x->count : heads_from(x, h + 1);
    }
    while (lo < hi) { /* heads tie: the separators decide */
        uint32_t mid = lo + (hi - lo) / 2;
        struct slice s;
        if (!index_separator(x, mid, &s)) {
            return false;
        }
        bool behind = slice_compare(s, suffix) < 0;
        lo = behind ? mid + 1 : lo;
        hi = behind ? hi : mid;
    }
    *block = lo;
    return true;
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

int index_finish(struct index_builder *b, struct buf *out)
{
    uint32_t n = b->count;
    size_t prefix = n > 1 ? common_prefix(separator(b, 0), separator(b, n - 1)) : 0;
    size_t separators = b->separators.size - prefix * n;
    size_t size = INDEX_HEADER + (size_t)n * (8 + sizeof(struct index_entry) + 4) + prefix + separators;
    out->size = 0;
    int rc = buf_reserve(out, size + sizeof(struct table_trailer));
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned char *heads = out->data + INDEX_HEADER;
    unsigned char *entries = heads + (size_t)n * 8;
    unsigned char *ends = entries + b->entries.size;
    unsigned char *p = ends + (size_t)n * 4;
    put_u32(out->data, n);
    put_u32(out->data + 4, (uint32_t)prefix);
    put_u32(out->data + 8, (uint32_t)separators);
    put_u32(out->data + 12, 0);
    memcpy(entries, b->entries.data, b->entries.size);
    if (prefix != 0) {
        memcpy(p, b->separators.data, prefix);
    }
    p += prefix;
    const unsigned char *first = p;
    for (uint32_t i = 0; i < n; i++) {
        struct slice s = separator(b, i);
        struct slice suffix = slice_make(s.data + prefix, s.size - prefix);
        put_u64(heads + (size_t)i * 8, key_head(suffix));
        if (suffix.size != 0) {
            memcpy(p, suffix.data, suffix.size);
        }
        p += suffix.size;
        put_u32(ends + (size_t)i * 4, (uint32_t)(p - first));
    }
    out->size = size;
    return SHALE_OK;
}
