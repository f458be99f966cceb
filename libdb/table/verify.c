/* verify.c - every byte of a table, and whether its parts agree.
 *
 * The bytes are read from the file, not from what was loaded at open. All of them lie in a data block
 * (checksum, then structure), in a page of the tail, in a section or in the footer; there are no gaps,
 * because blocks must follow each other from 0 to data_size and all places behind follow from the footer's
 * sizes.
 */
#include "table/read.h"

#include <stdlib.h>

struct verify {
    struct table *t;
    struct table_stretch stretch;
    int (*progress)(void *ctx, uint64_t bytes);
    void *ctx;
    uint64_t at; /* verified up to here */
    struct buf last_key, key;
    uint64_t entries, deletes, min_seq, max_seq, raw_bytes;
};

static int damaged(const struct verify *v, const char *what)
{
    return err_set(SHALE_CORRUPT, "%s: %s", v->t->name, what);
}

static int report(struct verify *v, uint64_t bytes)
{
    v->at += bytes;
    if (v->progress != NULL && v->progress(v->ctx, bytes) != 0) {
        return err_set(SHALE_CANCELLED, "%s: verification was cancelled", v->t->name);
    }
    return SHALE_OK;
}

/* SHALE_NOTFOUND: it does not. */
static int filter_holds(const struct verify *v, struct slice key)
{
    const struct table_filter *f = &v->t->filter;
    uint64_t hash = key_hash(key);
    int rc = f->lines != NULL ? tail_need(&v->t->tail, filter_line_of(f, hash), FILTER_LINE) : SHALE_OK;
    return rc != SHALE_OK || filter_may_hold(f, hash) ? rc : SHALE_NOTFOUND;
}

static int verify_entry(struct verify *v, const struct table_block *parts, uint32_t i, uint64_t offset)
{
    struct block_entry e;
    struct slice prefix = block_prefix(parts);
    if (!block_at(parts, i, &e)) {
        return table_damaged(v->t, offset, "malformed");
    }
    int rc = buf_set(&v->key, prefix.data, prefix.size);
    if (rc == SHALE_OK) {
        rc = buf_append(&v->key, e.suffix.data, e.suffix.size);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct slice key = slice_make(v->key.data != NULL ? v->key.data : (const unsigned char *)"", v->key.size);
    rc = filter_holds(v, key);
    if (rc != SHALE_OK || key.size > TABLE_MAX_KEY) {
        return rc != SHALE_OK && rc != SHALE_NOTFOUND
                   ? rc
                   : table_damaged(v->t, offset, "a key that the filter does not hold");
    }
    if (v->entries == 0 && !slice_equal(key, buf_slice(&v->t->info.smallest))) {
        return table_damaged(v->t, offset, "does not begin with the smallest key");
    }
    v->entries++;
    v->deletes += e.type == TABLE_DELETE;
    v->raw_bytes += key.size + e.value.size;
    v->min_seq = e.seq < v->min_seq ? e.seq : v->min_seq;
    v->max_seq = e.seq > v->max_seq ? e.seq : v->max_seq;
    struct buf swap = v->last_key;
    v->last_key = v->key;
    v->key = swap;
    return SHALE_OK;
}

/* Block i must be the one that the index leads to for its first and its last key: with what block_check sees
 * inside a block, that makes all keys of the table ascend. */
static int verify_index(const struct verify *v, const struct table_block *parts, uint32_t i, uint64_t offset)
{
    const uint32_t edges[] = {0, parts->count - 1};
    struct slice prefix = block_prefix(parts);
    struct buf key = {NULL, 0, 0};
    int rc = SHALE_OK;
    for (size_t k = 0; rc == SHALE_OK && k < BASE_COUNT(edges); k++) {
        struct block_entry e = {.suffix = {NULL, 0}};
        uint32_t found = 0;
        rc = block_at(parts, edges[k], &e) ? buf_set(&key, prefix.data, prefix.size)
                                           : table_damaged(v->t, offset, "malformed");
        if (rc == SHALE_OK) {
            rc = buf_append(&key, e.suffix.data, e.suffix.size);
        }
        struct slice s = slice_make(key.data != NULL ? key.data : (const unsigned char *)"", key.size);
        if (rc == SHALE_OK) {
            rc = index_find(&v->t->index, s, &found);
        }
        if (rc == SHALE_OK && found != i) {
            rc = table_damaged(v->t, offset, "the index leads elsewhere");
        }
    }
    buf_release(&key);
    return rc;
}

static int verify_block(struct verify *v, uint32_t i)
{
    struct index_entry e;
    struct table_block parts;
    struct table_pin pin = {NULL, NULL};
    int rc = index_at(&v->t->index, i, &e);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (e.offset != v->at) {
        return table_damaged(v->t, e.offset, "does not follow the block before");
    }
    rc = stretch_load_block(v->t, &v->stretch, &e, &parts, &pin);
    if (rc == SHALE_OK && !block_check(&parts)) {
        rc = table_damaged(v->t, e.offset, "malformed");
    }
    for (uint32_t k = 0; rc == SHALE_OK && k < parts.count; k++) {
        rc = verify_entry(v, &parts, k, e.offset);
    }
    if (rc == SHALE_OK) {
        rc = verify_index(v, &parts, i, e.offset);
    }
    table_pin_release(&pin);
    return rc == SHALE_OK ? report(v, (uint64_t)e.stored + sizeof(struct table_trailer)) : rc;
}

/* Filter and index, read anew. */
static int verify_pages(struct verify *v)
{
    const struct table *t = v->t;
    const unsigned char *p;
    int rc = SHALE_OK;
    for (uint64_t i = 0; rc == SHALE_OK && i < t->at.pages; i++) {
        struct tail_range r = tail_range(t->footer.data_size, t->at.sums, i);
        rc = stretch_read(v->t, &v->stretch, r.begin, r.end - r.begin, &p);
        if (rc == SHALE_OK && tail_sum(p, r, t->number) != get_u64(t->tail.sums + i * 8)) {
            rc = err_set(SHALE_CORRUPT, "checksum mismatch");
        }
        if (rc != SHALE_OK) {
            return err_wrap(rc, "%s: index page at %llu", t->name, (unsigned long long)r.begin);
        }
        rc = report(v, r.end - r.begin);
    }
    return rc;
}

static int verify_section(struct verify *v, uint64_t size, enum table_kind kind)
{
    const unsigned char *p;
    uint64_t whole = size + sizeof(struct table_trailer);
    int rc = stretch_read(v->t, &v->stretch, v->at, whole, &p);
    if (rc == SHALE_OK) {
        rc = table_unseal(p, size, size, kind, TABLE_RAW, v->t->number, v->at);
    }
    return rc == SHALE_OK ? report(v, whole) : table_wrap(v->t, v->at, rc);
}

static int verify_tail(struct verify *v)
{
    const struct table *t = v->t;
    const unsigned char *p;
    int rc = verify_pages(v);
    if (rc == SHALE_OK) {
        rc = verify_section(v, t->at.pages * 8, TABLE_SUMS);
    }
    if (rc == SHALE_OK) {
        rc = verify_section(v, t->footer.properties_size, TABLE_PROPERTIES);
    }
    if (rc == SHALE_OK) {
        rc = table_wrap(t, v->at, stretch_read(v->t, &v->stretch, v->at, sizeof t->footer, &p));
    }
    if (rc == SHALE_OK) {
        rc = memcmp(p, &t->footer, sizeof t->footer) == 0
                 ? report(v, sizeof t->footer)
                 : damaged(v, "the footer changed since it was opened");
    }
    return rc;
}

static int verify_totals(const struct verify *v)
{
    const struct table_info *info = &v->t->info;
    bool same = v->entries == info->entries && v->deletes == info->deletes && v->min_seq == info->min_seq &&
                v->max_seq == info->max_seq && v->raw_bytes == info->raw_bytes &&
                slice_equal(buf_slice(&v->last_key), buf_slice(&info->largest));
    return same ? SHALE_OK : damaged(v, "properties do not match the entries");
}

int table_verify(struct table *t, int (*progress)(void *ctx, uint64_t bytes), void *ctx)
{
    struct verify v = {
        .t = t, .stretch = {.fd = -1}, .progress = progress, .ctx = ctx, .min_seq = UINT64_MAX};
    int rc = SHALE_OK;
    for (uint32_t i = 0; rc == SHALE_OK && i < t->index.count; i++) {
        rc = verify_block(&v, i);
    }
    if (rc == SHALE_OK && v.at != t->footer.data_size) {
        rc = damaged(&v, "data behind the last block");
    }
    if (rc == SHALE_OK) {
        rc = verify_tail(&v);
    }
    if (rc == SHALE_OK) {
        rc = verify_totals(&v);
    }
    stretch_release(&v.stretch);
    buf_release(&v.last_key);
    buf_release(&v.key);
    return rc;
}
