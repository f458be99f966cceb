/* tables.c - see tables.h. */
#include "tables.h"

#include "table/read.h"

#include <stdlib.h>

/* ---- rows ---- */

static struct slice copy(const unsigned char *p, size_t size)
{
    unsigned char *data = malloc(size + 1);
    if (data == NULL) {
        abort();
    }
    memcpy(data, p, size);
    return slice_make(data, size);
}

static size_t make_key(enum table_style style, uint64_t *state, unsigned char key[256])
{
    static const char common[] = "a prefix that all keys of the table have in common/";
    size_t n = 0;
    if (style == TABLE_STYLE_BINARY) {
        for (; n < 16; n++) {
            key[n] = (unsigned char)prng_next(state);
        }
        return n;
    }
    if (style == TABLE_STYLE_PREFIX) {
        memcpy(key, common, sizeof common - 1);
        n = sizeof common - 1;
        if (prng_next(state) % 4 != 0) {
            memset(key + n, 'm', 20);
            n += 20;
        }
    }
    static const unsigned char letters[] = {'a', 'b', 0, 255};
    size_t more = prng_next(state) % (prng_next(state) % 8 == 0 ? 60 : 9);
    for (size_t i = 0; i < more; i++) {
        key[n++] = letters[prng_next(state) % sizeof letters];
    }
    return n;
}

static size_t make_value(enum table_style style, uint64_t *state, unsigned char value[2048])
{
    size_t n = prng_next(state) % (style == TABLE_STYLE_BINARY ? 2048 : 120);
    n = prng_next(state) % 8 == 0 ? 0 : n;
    for (size_t i = 0; i < n; i++) {
        value[i] = i < n / 3 ? (unsigned char)prng_next(state) : 'v'; /* compresses, but not to nothing */
    }
    return n;
}

static int compare_rows(const void *a, const void *b)
{
    const struct table_row *x = a, *y = b;
    return slice_compare(x->key, y->key);
}

static void row_release(struct table_row *row)
{
    free((void *)(uintptr_t)row->key.data);
    free((void *)(uintptr_t)row->value.data);
}

void table_rows_make(struct table_rows *rows, enum table_style style, size_t count, uint64_t seed)
{
    unsigned char key[256], value[2048];
    uint64_t state = seed;
    struct table_row *row = calloc(count, sizeof *row);
    if (row == NULL) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        bool gone = prng_next(&state) % 10 == 0;
        row[i].key = copy(key, make_key(style, &state, key));
        row[i].value = copy(value, gone ? 0 : make_value(style, &state, value));
        row[i].seq = 1 + prng_next(&state) % 1000000;
        row[i].type = gone ? TABLE_DELETE : TABLE_PUT;
    }
    qsort(row, count, sizeof *row, compare_rows);
    rows->row = row;
    rows->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows->count != 0 && slice_equal(row[rows->count - 1].key, row[i].key)) {
            row_release(&row[i]);
        } else {
            row[rows->count++] = row[i];
        }
    }
}

void table_rows_release(struct table_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        row_release(&rows->row[i]);
    }
    free(rows->row);
    *rows = (struct table_rows){NULL, 0};
}

size_t table_rows_find(const struct table_rows *rows, struct slice key)
{
    size_t lo = 0, hi = rows->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (slice_compare(rows->row[mid].key, key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

int table_rows_build(const struct table_rows *rows, int dirfd, uint64_t number,
                     const struct table_options *options, struct table_info *info)
{
    struct table_builder *b;
    int rc = table_build_start(dirfd, number, options, &b);
    if (rc != SHALE_OK) {
        return rc;
    }
    for (size_t i = 0; rc == SHALE_OK && i < rows->count; i++) {
        const struct table_row *r = &rows->row[i];
        rc = table_build_add(b, r->key, r->seq, r->type, r->value);
    }
    if (rc != SHALE_OK) {
        table_build_abandon(b);
        return rc;
    }
    return table_build_finish(b, info);
}

/* ---- forging ---- */

/* Whatever lies at [offset, offset + stored) becomes a block with a good trailer, if there is room for one.
 */
static void forge_block(unsigned char *bytes, size_t size, uint64_t number, uint64_t offset,
                        struct index_entry e, enum table_kind kind, enum table_packing packing)
{
    if (offset <= size && (uint64_t)e.stored + sizeof(struct table_trailer) <= size - offset) {
        table_seal(bytes + offset, e.stored, e.raw, kind, packing, number, offset);
    }
}

/* Filter and index first, so that the index can be read, then the blocks that it leads to. */
static void forge_tail(unsigned char *bytes, size_t size, uint64_t number, const struct table_layout *at,
                       const struct table_footer *f)
{
    _Atomic uint64_t *ready = calloc(at->pages / 64 + 1, sizeof *ready);
    struct table_tail tail = {.bytes = bytes + f->data_size,
                              .from = f->data_size,
                              .to = at->sums,
                              .sums = bytes + at->sums,
                              .ready = ready,
                              .number = number,
                              .name = ""};
    struct table_index index;
    struct index_entry e;
    for (uint64_t i = 0; ready != NULL && i < at->pages; i++) {
        struct tail_range r = tail_range(f->data_size, at->sums, i);
        put_u64(bytes + at->sums + i * 8, tail_sum(bytes + r.begin, r, number));
    }
    if (ready != NULL && index_open(&index, &tail, bytes + at->index, f->index_size) == SHALE_OK) {
        for (uint32_t i = 0; i < index.count; i++) {
            if (index_at(&index, i, &e) == SHALE_OK) {
                forge_block(bytes, size, number, e.offset, e, TABLE_DATA, table_packing_of(&e));
            }
        }
    }
    free(ready);
}

void table_forge(unsigned char *bytes, size_t size, uint64_t number)
{
    struct table_footer f;
    struct table_layout at;
    if (size < sizeof f) {
        return;
    }
    memcpy(&f, bytes + size - sizeof f, sizeof f);
    f.magic = TABLE_MAGIC;
    f.format = TABLE_FORMAT;
    f.number = number;
    f.file_size = size;
    f.incompat = 0;
    f.checksum = table_footer_checksum(&f);
    memcpy(bytes + size - sizeof f, &f, sizeof f);
    if (!table_layout(&f, size, &at)) {
        return;
    }
    forge_tail(bytes, size, number, &at, &f);
    const struct index_entry sums = {at.sums, (uint32_t)(at.pages * 8), (uint32_t)(at.pages * 8)};
    const struct index_entry properties = {at.properties, (uint32_t)f.properties_size,
                                           (uint32_t)f.properties_size};
    forge_block(bytes, size, number, at.sums, sums, TABLE_SUMS, TABLE_RAW);
    forge_block(bytes, size, number, at.properties, properties, TABLE_PROPERTIES, TABLE_RAW);
}

/* ---- exercise ---- */

static uint64_t touch(struct slice s)
{
    return s.size != 0 ? checksum(s.data, s.size, 0) : 0; /* reads every byte: a sanitizer sees a wild one */
}

static void exercise_key(struct table *t, struct table_iter *it, struct slice key)
{
    struct table_hit hit;
    struct table_pin pin = {NULL, NULL};
    if (table_get(t, key, key_hash(key), NULL, &hit, &pin) == SHALE_OK) {
        (void)touch(hit.value);
        table_pin_release(&pin);
    }
    if (table_iter_seek(it, key) == SHALE_OK && table_iter_prev(it) == SHALE_OK) {
        (void)touch(it->key);
    }
    if (table_iter_seek_for_prev(it, key) == SHALE_OK && table_iter_next(it) == SHALE_OK) {
        (void)touch(it->value);
    }
    (void)table_offset_of(t, key);
}

int table_exercise(struct table *t, uint64_t seed)
{
    struct table_iter it, probe;
    uint64_t state = seed;
    table_iter_init(&it, t, NULL);
    table_iter_init(&probe, t, NULL);
    it.sequential = seed % 3 == 0;
    probe.fill_cache = seed % 2 == 0;
    for (int rc = table_iter_first(&it); rc == SHALE_OK; rc = table_iter_next(&it)) {
        (void)touch(it.value);
        if (prng_next(&state) % 4 == 0) {
            exercise_key(t, &probe, it.key);
        }
    }
    for (int rc = table_iter_last(&it); rc == SHALE_OK; rc = table_iter_prev(&it)) {
        (void)touch(it.key);
    }
    exercise_key(t, &probe, slice_make(NULL, 0));
    for (int i = 0; i < 4; i++) {
        unsigned char key[8];
        put_u64(key, prng_next(&state));
        exercise_key(t, &probe, slice_make(key, prng_next(&state) % 9));
    }
    table_iter_release(&probe);
    table_iter_release(&it);
    return table_verify(t, NULL, NULL);
}
