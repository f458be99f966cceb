/* read.c - bytes to values, one element a call. The reader has a copy of the bytes and undoes escapes and
 * complements in place, for what is undone is never longer: so what an element points to stays until the
 * reader goes. An element is changed only when it was checked to its end; a damaged one is reported, every
 * time it is asked for, as it was found. */
#include "tuple/tuple.h"

#include <stdlib.h>

struct shale_tuple_reader {
    struct tuple_scan scan;
    unsigned char bytes[];
};

int shale_tuple_reader_create(const void *packed, size_t len, shale_tuple_reader **r)
{
    if (r == NULL) {
        return err_set(SHALE_INVALID, "shale_tuple_reader_create: no place for the reader");
    }
    *r = NULL;
    if (packed == NULL && len != 0) {
        return err_set(SHALE_INVALID, "a tuple of %zu bytes has no data", len);
    }
    shale_tuple_reader *made = len <= PTRDIFF_MAX ? base_alloc(sizeof *made + len) : NULL;
    if (made == NULL) {
        return SHALE_NOMEM;
    }
    made->scan = (struct tuple_scan){.bytes = made->bytes, .size = len};
    if (len != 0) {
        memcpy(made->bytes, packed, len);
    }
    *r = made;
    return SHALE_OK;
}

void shale_tuple_reader_destroy(shale_tuple_reader *r)
{
    free(r);
}

/* The token's place in the reader's own bytes, which may be changed. */
static unsigned char *own(shale_tuple_reader *r, const unsigned char *p)
{
    return r->bytes + (p - r->bytes);
}

static void give_string(shale_tuple_reader *r, const struct tuple_token *t, shale_element *e)
{
    unsigned char *to = own(r, t->data);
    const unsigned char *from = t->data, *end = t->data + t->len;
    while (from < end) {
        const unsigned char *zero = memchr(from, 0, (size_t)(end - from));
        size_t n = zero != NULL ? (size_t)(zero - from) + 1 : (size_t)(end - from);
        memmove(to, from, n);
        to += n;
        from += n + (zero != NULL); /* without the ff */
    }
    e->data = t->data;
    e->len = (size_t)(to - t->data);
}

static void give_integer(shale_tuple_reader *r, const struct tuple_token *t, shale_element *e)
{
    e->negative = t->negative && t->len != 0;
    if (t->len <= 8) {
        uint64_t v = tuple_magnitude(t);
        if (v <= (uint64_t)INT64_MAX + e->negative) {
            e->type = SHALE_TYPE_INT;
            e->as.u = e->negative ? 0 - v : v;
            return;
        }
        if (!e->negative) {
            e->type = SHALE_TYPE_UINT;
            e->as.u = v;
            return;
        }
    }
    unsigned char *p = own(r, t->data);
    for (size_t i = 0; t->negative && i < t->len; i++) {
        p[i] = (unsigned char)~p[i];
    }
    e->type = SHALE_TYPE_BIGINT;
    e->data = p;
    e->len = t->len;
}

/* What it holds becomes a tuple of its own: its nulls lose their ff, those of tuples nested in it keep
 * theirs. */
static int give_nested(shale_tuple_reader *r, const struct tuple_token *begin, shale_element *e)
{
    struct tuple_scan s = r->scan;
    struct tuple_token t = *begin;
    size_t outside = s.depth - 1;
    int rc = SHALE_OK;
    while (rc == SHALE_OK && s.depth != outside) {
        rc = tuple_next(&s, &t);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned char *to = own(r, begin->data);
    e->data = to;
    for (s = r->scan; s.pos != t.at;) {
        struct tuple_token inner;
        (void)tuple_next(&s, &inner); /* which it could a moment ago */
        size_t n = s.pos - inner.at;
        if (inner.type == SHALE_TYPE_NULL && s.depth == outside + 1) {
            n = 1;
        }
        memmove(to, r->bytes + inner.at, n);
        to += n;
    }
    e->len = (size_t)(to - (unsigned char *)own(r, begin->data));
    r->scan.pos = t.at + 1;
    r->scan.depth = outside;
    return SHALE_OK;
}

static int give(shale_tuple_reader *r, const struct tuple_token *t, shale_element *e)
{
    uint32_t bits32;
    uint64_t bits64;
    e->type = t->type;
    switch (t->type) {
    case SHALE_TYPE_BYTES:
    case SHALE_TYPE_STRING: give_string(r, t, e); break;
    case SHALE_TYPE_NESTED: return give_nested(r, t, e);
    case SHALE_TYPE_INT:
    case SHALE_TYPE_BIGINT: give_integer(r, t, e); break;
    case SHALE_TYPE_FLOAT:
        bits32 = tuple_float_bits(t);
        memcpy(&e->as.f, &bits32, sizeof bits32);
        break;
    case SHALE_TYPE_DOUBLE:
        bits64 = tuple_double_bits(t);
        memcpy(&e->as.d, &bits64, sizeof bits64);
        break;
    case SHALE_TYPE_BOOL: e->as.b = r->bytes[t->at] == TUPLE_TRUE; break;
    case SHALE_TYPE_UUID:
        e->as.uuid = t->data;
        e->data = t->data;
        e->len = t->len;
        break;
    case SHALE_TYPE_VERSIONSTAMP:
        e->data = t->data;
        e->len = t->len;
        break;
    default: break;
    }
    return SHALE_OK;
}

int shale_tuple_read(shale_tuple_reader *r, shale_element *e)
{
    struct tuple_token t;
    shale_element read = {.size = sizeof read};
    if (r == NULL || e == NULL || e->size < sizeof e->size) {
        return err_set(SHALE_INVALID, "shale_tuple_read: set element.size to sizeof(shale_element) first");
    }
    struct tuple_scan before = r->scan;
    int rc = tuple_next(&r->scan, &t);
    if (rc == SHALE_OK) {
        rc = give(r, &t, &read);
    }
    if (rc != SHALE_OK) {
        r->scan = before;
        return rc;
    }
    read.size = e->size < sizeof read ? e->size : sizeof read;
    memcpy(e, &read, read.size);
    return SHALE_OK;
}
