/* fields.c - payloads of manifest records: fields of a varint tag and the values that the tag has.
 *
 * A field has no length of its own, so a tag that is not known cannot be skipped: only a newer library can
 * have written it (the checksum says that the bytes are as written), and the database is refused, not guessed
 * at. A whole version lists its tables so that adding them one by one, each L0 table in front, gives the
 * version back.
 */
#include "version/manifest.h"

#define KEY_MAX 65535
#define SEQ_MAX ((UINT64_C(1) << 56) - 1)

/* ---- writing ---- */

static int put_numbers(struct buf *out, const uint64_t *numbers, size_t count)
{
    int st = buf_reserve(out, count * VARINT64_MAX);
    for (size_t i = 0; i < count && st == SHALE_OK; i++) {
        out->size = (size_t)(varint_put(out->data + out->size, numbers[i]) - out->data);
    }
    return st;
}

static int put_bytes(struct buf *out, const void *data, size_t size)
{
    uint64_t n = size;
    int st = put_numbers(out, &n, 1);
    return st != SHALE_OK || size == 0 ? st : buf_append(out, data, size);
}

static int put_field(struct buf *out, uint64_t tag, uint64_t value)
{
    return put_numbers(out, (uint64_t[]){tag, value}, 2);
}

static int put_table(struct buf *out, unsigned level, const struct table_info *t)
{
    const uint64_t numbers[] = {MANIFEST_FIELD_ADD, level,      t->number,  t->size,     t->entries,
                                t->deletes,         t->min_seq, t->max_seq, t->raw_bytes};
    int st = put_numbers(out, numbers, BASE_COUNT(numbers));
    if (st == SHALE_OK) {
        st = put_bytes(out, t->smallest.data, t->smallest.size);
    }
    if (st == SHALE_OK) {
        st = put_bytes(out, t->largest.data, t->largest.size);
    }
    return st;
}

int manifest_put_edit(struct buf *out, const struct version_edit *e)
{
    int st = SHALE_OK;
    if (e->has_oldest) {
        st = put_field(out, MANIFEST_FIELD_OLDEST, e->oldest);
    }
    if (e->has_last_seq && st == SHALE_OK) {
        st = put_field(out, MANIFEST_FIELD_LAST_SEQ, e->last_seq);
    }
    for (size_t i = 0; i < e->removed_count && st == SHALE_OK; i++) {
        const struct version_edit_remove *r = &e->removed[i];
        st = put_numbers(out, (uint64_t[]){MANIFEST_FIELD_REMOVE, r->level, r->number}, 3);
    }
    for (size_t i = 0; i < e->added_count && st == SHALE_OK; i++) {
        st = put_table(out, e->added[i].level, &e->added[i].info);
    }
    return st;
}

/* What this library can work with. */
static bool options_fit(const struct version_options *o)
{
    return o->block_bytes >= 1 && o->block_bytes <= UINT64_C(1) << 30 && o->target_table_bytes >= 1 &&
           o->target_table_bytes <= UINT64_C(1) << 40 && o->bloom_bits <= 64 && o->level_ratio >= 2 &&
           o->level_ratio <= 1000 &&
           (o->compression == SHALE_COMPRESS_NONE || o->compression == SHALE_COMPRESS_LZ4) &&
           strncmp(o->comparator, "bytes", sizeof o->comparator) == 0;
}

static int put_options(struct buf *out, const struct version_options *o)
{
    if (!options_fit(o)) {
        return err_set(SHALE_INVALID, "options that shape files are out of range");
    }
    uint64_t compression =
        o->compression == SHALE_COMPRESS_LZ4 ? MANIFEST_COMPRESS_LZ4 : MANIFEST_COMPRESS_NONE;
    const uint64_t numbers[] = {MANIFEST_FIELD_OPTIONS, o->block_bytes, o->target_table_bytes,
                                o->bloom_bits,          compression,    o->level_ratio};
    int st = put_numbers(out, numbers, BASE_COUNT(numbers));
    return st != SHALE_OK ? st : put_bytes(out, o->comparator, strnlen(o->comparator, sizeof o->comparator));
}

int manifest_put_version(struct buf *out, const struct version *v)
{
    int st = put_options(out, &v->options);
    st = st != SHALE_OK ? st : put_field(out, MANIFEST_FIELD_OLDEST, v->oldest);
    st = st != SHALE_OK ? st : put_field(out, MANIFEST_FIELD_LAST_SEQ, v->last_seq);
    st = st != SHALE_OK ? st : put_field(out, MANIFEST_FIELD_NEXT_TABLE, v->next_table);
    for (unsigned level = 0; level < VERSION_LEVELS; level++) {
        const struct version_level *l = &v->level[level];
        for (uint32_t i = 0; i < l->count && st == SHALE_OK; i++) {
            uint32_t at = level == 0 ? l->count - 1 - i : i;
            st = put_table(out, level, &l->tables[at]->info);
        }
    }
    return st;
}

/* ---- reading ---- */

/* p is NULL once the bytes ended early. */
struct cursor {
    const unsigned char *p, *end;
};

static uint64_t take_number(struct cursor *c)
{
    uint64_t v = 0;
    c->p = c->p != NULL ? varint_get64(c->p, c->end, &v) : NULL;
    return c->p != NULL ? v : 0;
}

static uint32_t take_small(struct cursor *c)
{
    uint64_t v = take_number(c);
    if (v > UINT32_MAX) {
        c->p = NULL;
        return 0;
    }
    return (uint32_t)v;
}

static struct slice take_bytes(struct cursor *c, size_t limit)
{
    uint64_t size = take_number(c);
    if (c->p == NULL || size > limit || size > (uint64_t)(c->end - c->p)) {
        c->p = NULL;
        return slice_make(NULL, 0);
    }
    struct slice s = slice_make(c->p, (size_t)size);
    c->p += size;
    return s;
}

static int bad_field(uint64_t tag)
{
    return err_set(SHALE_CORRUPT, "field %llu is malformed", (unsigned long long)tag);
}

static int parse_options(struct cursor *c, struct version_options *o)
{
    o->block_bytes = take_number(c);
    o->target_table_bytes = take_number(c);
    o->bloom_bits = take_small(c);
    uint64_t compression = take_number(c);
    o->level_ratio = take_small(c);
    struct slice comparator = take_bytes(c, 4096);
    if (c->p == NULL) {
        return bad_field(MANIFEST_FIELD_OPTIONS);
    }
    if (!slice_equal(comparator, slice_make("bytes", 5))) {
        return err_set(SHALE_MISMATCH, "keys are ordered by \"%.*s\", and this library only knows \"bytes\"",
                       (int)comparator.size, (const char *)comparator.data);
    }
    if (compression != MANIFEST_COMPRESS_NONE && compression != MANIFEST_COMPRESS_LZ4) {
        return err_set(SHALE_MISMATCH, "compression %llu is not known to this library",
                       (unsigned long long)compression);
    }
    o->compression = compression == MANIFEST_COMPRESS_LZ4 ? SHALE_COMPRESS_LZ4 : SHALE_COMPRESS_NONE;
    memcpy(o->comparator, "bytes", 6);
    return options_fit(o) ? SHALE_OK
                          : err_set(SHALE_MISMATCH, "stored options are beyond what this library can do");
}

/* smallest and largest belong to the result, also when it is not good. */
static int parse_table(struct cursor *c, unsigned *level, struct table_info *t)
{
    *level = take_small(c);
    t->number = take_number(c);
    t->size = take_number(c);
    t->entries = take_number(c);
    t->deletes = take_number(c);
    t->min_seq = take_number(c);
    t->max_seq = take_number(c);
    t->raw_bytes = take_number(c);
    struct slice smallest = take_bytes(c, KEY_MAX), largest = take_bytes(c, KEY_MAX);
    /* Numbers and sizes are summed up later: far from any overflow. */
    if (c->p == NULL || *level >= VERSION_LEVELS || t->number == 0 || t->number > SEQ_MAX ||
        t->size > SEQ_MAX || t->max_seq > SEQ_MAX) {
        return bad_field(MANIFEST_FIELD_ADD);
    }
    int st = buf_set(&t->smallest, smallest.data, smallest.size);
    return st != SHALE_OK ? st : buf_set(&t->largest, largest.data, largest.size);
}

static int parse_add(struct cursor *c, struct version_edit *e)
{
    struct table_info info = {0};
    unsigned level = 0;
    int st = parse_table(c, &level, &info);
    if (st == SHALE_OK) {
        st = version_edit_add(e, level, &info);
    }
    table_info_release(&info);
    return st;
}

static int parse_remove(struct cursor *c, struct version_edit *e)
{
    unsigned level = take_small(c);
    uint64_t number = take_number(c);
    return c->p == NULL || level >= VERSION_LEVELS ? bad_field(MANIFEST_FIELD_REMOVE)
                                                   : version_edit_remove(e, level, number);
}

static int parse_field(struct cursor *c, struct manifest_content *out)
{
    uint64_t tag = take_number(c);
    switch (c->p != NULL ? tag : 0) {
    case MANIFEST_FIELD_OPTIONS: out->has_options = true; return parse_options(c, &out->options);
    case MANIFEST_FIELD_OLDEST:
        out->edit.has_oldest = true;
        out->edit.oldest = take_small(c);
        break;
    case MANIFEST_FIELD_LAST_SEQ:
        out->edit.has_last_seq = true;
        out->edit.last_seq = take_number(c);
        break;
    case MANIFEST_FIELD_NEXT_TABLE:
        out->has_next_table = true;
        out->next_table = take_number(c);
        break;
    case MANIFEST_FIELD_ADD: return parse_add(c, &out->edit);
    case MANIFEST_FIELD_REMOVE: return parse_remove(c, &out->edit);
    case 0: return bad_field(tag);
    default:
        return err_set(SHALE_MISMATCH, "field %llu is not known to this library (a newer version wrote it)",
                       (unsigned long long)tag);
    }
    bool fits = c->p != NULL && out->edit.last_seq <= SEQ_MAX && out->next_table <= SEQ_MAX + 1;
    return fits ? SHALE_OK : bad_field(tag);
}

int manifest_parse(struct slice payload, uint32_t kind, struct manifest_content *c)
{
    struct cursor cur = {payload.data, payload.data + payload.size};
    struct manifest_content parsed = {0};
    int st = SHALE_OK;
    if (kind != MANIFEST_WHOLE && kind != MANIFEST_EDIT) {
        return err_set(SHALE_MISMATCH,
                       "a record of kind %u is not known to this library (a newer version wrote it)", kind);
    }
    while (cur.p < cur.end && st == SHALE_OK) {
        st = parse_field(&cur, &parsed);
    }
    bool whole = parsed.has_options && parsed.has_next_table && parsed.edit.has_oldest &&
                 parsed.edit.has_last_seq && parsed.edit.removed_count == 0;
    bool part = !parsed.has_options && !parsed.has_next_table;
    if (st == SHALE_OK && !(kind == MANIFEST_WHOLE ? whole : part)) {
        st = err_set(SHALE_CORRUPT, "a record of kind %u has fields that it should not have, or lacks some",
                     kind);
    }
    if (st != SHALE_OK) {
        manifest_content_release(&parsed);
        return st;
    }
    *c = parsed;
    return SHALE_OK;
}

void manifest_content_release(struct manifest_content *c)
{
    version_edit_release(&c->edit);
    *c = (struct manifest_content){0};
}
