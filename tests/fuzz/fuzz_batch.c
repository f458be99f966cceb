/* fuzz_batch.c - batches: built as the input says, or taken for one as it is.
 *
 * Built: what is iterated is what was put in, in order, whatever was appended and cleared in between; and as
 * the payload of a log record, indexed, each key's last entry wins. Taken: any bytes as a batch's payload are
 * walked to an error or to the end, and what was walked, put in again, is the same.
 */
#include "../lib/oracle.h"
#include "db/db.h"
#include "fuzz.h"

#define SEGMENT (256u << 10)

struct entries { /* what a batch should hold */
    struct entry {
        uint8_t type;
        struct slice key, value; /* of the input */
    } * entry;
    size_t count, cap, next;
};

static void add(struct entries *e, uint8_t type, struct slice key, struct slice value)
{
    if (e->count == e->cap) {
        e->cap = e->cap * 2 + 16;
        e->entry = realloc(e->entry, e->cap * sizeof *e->entry);
        fuzz_must(e->entry != NULL);
    }
    e->entry[e->count++] = (struct entry){type, key, value};
}

static int same(struct entries *e, uint8_t type, struct slice key, struct slice value)
{
    fuzz_must(e->next < e->count);
    const struct entry *want = &e->entry[e->next++];
    fuzz_must(type == want->type && slice_equal(key, want->key) && slice_equal(value, want->value));
    return 0;
}

static int same_put(void *e, const void *key, size_t keylen, const void *val, size_t vallen)
{
    return same(e, WAL_PUT, slice_make(key, keylen), slice_make(val, vallen));
}

static int same_delete(void *e, const void *key, size_t keylen)
{
    return same(e, WAL_DELETE, slice_make(key, keylen), slice_make(NULL, 0));
}

static void check_iterate(const shale_batch *b, struct entries *e)
{
    e->next = 0;
    fuzz_must(shale_batch_count(b) == e->count);
    fuzz_must(shale_batch_iterate(b, same_put, same_delete, e) == SHALE_OK && e->next == e->count);
}

static void check_hit(const struct mem_index *mem, const struct oracle *o, uint64_t at, uint64_t seq,
                      struct slice key)
{
    struct slice want;
    struct mem_hit hit = {0};
    int rc = mem_get(mem, key, seq, &hit);
    bool there = oracle_get(o, at, key, &want);
    fuzz_must(rc == SHALE_OK || (rc == SHALE_NOTFOUND && !there));
    fuzz_must(rc != SHALE_OK || (hit.type == WAL_PUT) == there);
    fuzz_must(!there || slice_equal(hit.value, want));
}

/* As a record of the log: the last entry of a key wins, and a snapshot in the midst sees the one before. */
static void check_indexed(const shale_batch *b, const struct entries *e)
{
    struct wal_segment seg = {.refs = 1, .number = 3, .salt = 5, .size = SEGMENT, .fd = -1, .writable = true};
    struct mem_index *mem = NULL;
    struct wal_record header;
    struct wal_view rec;
    uint64_t first = 7, middle = e->count / 2;
    seg.map = calloc(1, SEGMENT);
    fuzz_must(seg.map != NULL && mem_open_private(&seg, &mem) == SHALE_OK);
    wal_seal(&seg, WAL_FIRST, (uint32_t)b->count, first, b->payload.data, (uint32_t)b->payload.size, &header);
    fuzz_must(wal_append(&seg, WAL_FIRST, &header, b->payload.data, false) == SHALE_OK);
    fuzz_must(wal_read(&seg, WAL_FIRST, &rec) == SHALE_OK && rec.count == e->count);
    fuzz_must(mem_insert_record(mem, &rec) == SHALE_OK && mem_check(mem) == SHALE_OK);
    struct oracle o = {0};
    for (size_t i = 0; i < e->count; i++) {
        if (e->entry[i].type == WAL_PUT) {
            oracle_put(&o, e->entry[i].key, e->entry[i].value);
        } else {
            oracle_delete(&o, e->entry[i].key);
        }
    }
    for (size_t i = 0; i < 2 * o.count; i++) {
        uint64_t at = i % 2 == 0 ? e->count : middle;
        check_hit(mem, &o, at, first + at - 1, buf_slice(&o.keys[i / 2].key));
    }
    oracle_release(&o);
    mem_unref(mem);
    free(seg.map);
}

static void build(struct fuzz_input *in)
{
    struct entries e = {0};
    shale_batch *b = NULL, *other = NULL;
    fuzz_must(shale_batch_create(&b) == SHALE_OK && shale_batch_create(&other) == SHALE_OK);
    for (unsigned n = 0; n < 1000 && fuzz_left(in) != 0 && b->payload.size < SEGMENT / 4; n++) {
        uint32_t how = fuzz_byte(in);
        struct slice key = fuzz_bytes(in, how / 8 % 8), value = slice_make("", 0);
        switch (how % 8) {
        case 0:
            shale_batch_clear(b);
            e.count = 0;
            break;
        case 1: /* to itself: everything twice */
            fuzz_must(shale_batch_append(b, b) == SHALE_OK);
            for (size_t i = 0, half = e.count; i < half; i++) {
                add(&e, e.entry[i].type, e.entry[i].key, e.entry[i].value);
            }
            break;
        case 2:
            shale_batch_clear(other);
            fuzz_must(shale_batch_delete(other, key.data, key.size) == SHALE_OK);
            fuzz_must(shale_batch_append(b, other) == SHALE_OK);
            add(&e, WAL_DELETE, key, value);
            break;
        case 3:
            fuzz_must(shale_batch_delete(b, key.data, key.size) == SHALE_OK);
            add(&e, WAL_DELETE, key, value);
            break;
        default:
            value = fuzz_bytes(in, fuzz_byte(in));
            fuzz_must(shale_batch_put(b, key.data, key.size, value.data, value.size) == SHALE_OK);
            add(&e, WAL_PUT, key, value);
            break;
        }
    }
    check_iterate(b, &e);
    if (e.count != 0) {
        check_indexed(b, &e);
    }
    shale_batch_destroy(b);
    shale_batch_destroy(other);
    free(e.entry);
}

static int put_again(void *again, const void *key, size_t keylen, const void *val, size_t vallen)
{
    return shale_batch_put(again, key, keylen, val, vallen);
}

static int delete_again(void *again, const void *key, size_t keylen)
{
    return shale_batch_delete(again, key, keylen);
}

static void take(struct fuzz_input *in)
{
    shale_batch b = {0};
    shale_batch *again = NULL, *third = NULL;
    fuzz_must(buf_set(&b.payload, in->at, fuzz_left(in)) == SHALE_OK);
    fuzz_must(shale_batch_create(&again) == SHALE_OK && shale_batch_create(&third) == SHALE_OK);
    int rc = shale_batch_iterate(&b, put_again, delete_again, again);
    fuzz_must(rc == SHALE_OK || rc == SHALE_CORRUPT ||
              rc == SHALE_TOOBIG); /* a key longer than keys may be */
    fuzz_must(shale_batch_iterate(again, put_again, delete_again, third) == SHALE_OK);
    fuzz_must(slice_equal(buf_slice(&again->payload), buf_slice(&third->payload)));
    fuzz_must(again->count == third->count && again->deletes == third->deletes);
    shale_batch_destroy(again);
    shale_batch_destroy(third);
    buf_release(&b.payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    if (fuzz_byte(&in) % 2 == 0) {
        build(&in);
    } else {
        take(&in);
    }
    return 0;
}
