/* build.c - values to bytes. Each function appends one element whole, or nothing. */
#include "tuple/tuple.h"

#include <stdlib.h>

int shale_tuple_create(shale_tuple **t)
{
    if (t == NULL) {
        return err_set(SHALE_INVALID, "shale_tuple_create: no place for the tuple");
    }
    *t = base_calloc(1, sizeof **t);
    return *t == NULL ? SHALE_NOMEM : SHALE_OK;
}

void shale_tuple_destroy(shale_tuple *t)
{
    if (t != NULL) {
        buf_release(&t->packed);
        free(t);
    }
}

void shale_tuple_clear(shale_tuple *t)
{
    if (t != NULL) {
        t->packed.size = 0;
        t->depth = 0;
    }
}

static int reserve(shale_tuple *t, size_t more)
{
    return t == NULL ? err_set(SHALE_INVALID, "the tuple is NULL: make one with shale_tuple_create")
                     : buf_reserve(&t->packed, more);
}

/* Room was reserved. */
static void put(shale_tuple *t, const void *data, size_t size)
{
    memcpy(t->packed.data + t->packed.size, data, size);
    t->packed.size += size;
}

static void put_byte(shale_tuple *t, unsigned byte)
{
    t->packed.data[t->packed.size++] = (unsigned char)byte;
}

/* A type code and size bytes behind it. */
static int put_fixed(shale_tuple *t, unsigned code, const void *data, size_t size)
{
    if (size != 0 && data == NULL) {
        return err_set(SHALE_INVALID, "an element of %zu bytes has no data", size);
    }
    int rc = reserve(t, 1 + size);
    if (rc == SHALE_OK) {
        put_byte(t, code);
        if (size != 0) {
            put(t, data, size);
        }
    }
    return rc;
}

int shale_tuple_null(shale_tuple *t)
{
    static const unsigned char escape[] = {TUPLE_ESCAPE};
    return put_fixed(t, TUPLE_NULL, escape, t != NULL && t->depth != 0);
}

int shale_tuple_bool(shale_tuple *t, bool v)
{
    return put_fixed(t, v ? TUPLE_TRUE : TUPLE_FALSE, NULL, 0);
}

int shale_tuple_uuid(shale_tuple *t, const uint8_t uuid[16])
{
    return put_fixed(t, TUPLE_UUID, uuid, 16);
}

int shale_tuple_versionstamp(shale_tuple *t, const uint8_t stamp[12])
{
    return put_fixed(t, TUPLE_VERSIONSTAMP, stamp, 12);
}

/* ---- strings ---- */

static int put_escaped(shale_tuple *t, unsigned code, const unsigned char *p, size_t len)
{
    size_t zeros = 0;
    for (size_t i = 0; i < len; i++) {
        zeros += p[i] == 0;
    }
    if (len > PTRDIFF_MAX / 4) {
        return err_set(SHALE_INVALID, "a string of %zu bytes: that is no length", len);
    }
    int rc = reserve(t, len + zeros + 2);
    if (rc != SHALE_OK) {
        return rc;
    }
    put_byte(t, code);
    while (len != 0) {
        const unsigned char *zero = zeros != 0 ? memchr(p, 0, len) : NULL;
        size_t n = zero != NULL ? (size_t)(zero - p) + 1 : len;
        put(t, p, n);
        if (zero != NULL) {
            put_byte(t, TUPLE_ESCAPE);
        }
        p += n;
        len -= n;
    }
    put_byte(t, 0);
    return SHALE_OK;
}

int shale_tuple_bytes(shale_tuple *t, const void *data, size_t len)
{
    if (data == NULL && len != 0) {
        return err_set(SHALE_INVALID, "a byte string of %zu bytes has no data", len);
    }
    return put_escaped(t, TUPLE_BYTES, data, len);
}

int shale_tuple_string(shale_tuple *t, const char *utf8, size_t len)
{
    if (utf8 == NULL && len != 0) {
        return err_set(SHALE_INVALID, "a string of %zu bytes has no data", len);
    }
    if (!tuple_utf8((const unsigned char *)utf8, len, false)) {
        return err_set(SHALE_INVALID, "the string is not UTF-8: pack it with shale_tuple_bytes");
    }
    return put_escaped(t, TUPLE_STRING, (const unsigned char *)utf8, len);
}

/* ---- nested tuples ---- */

int shale_tuple_begin(shale_tuple *t)
{
    int rc = put_fixed(t, TUPLE_NESTED, NULL, 0);
    if (rc == SHALE_OK) {
        t->depth++;
    }
    return rc;
}

int shale_tuple_end(shale_tuple *t)
{
    if (t != NULL && t->depth == 0) {
        return err_set(SHALE_INVALID, "no nested tuple is open: shale_tuple_begin opens one");
    }
    int rc = put_fixed(t, TUPLE_NULL, NULL, 0);
    if (rc == SHALE_OK) {
        t->depth--;
    }
    return rc;
}

/* ---- numbers ---- */

static void store_be(unsigned char *p, uint64_t v, size_t n)
{
    while (n-- != 0) {
        p[n] = (unsigned char)v;
        v >>= 8;
    }
}

/* One's complement below the code of 0: the further from 0, the longer, and the lower the code. */
static int put_integer(shale_tuple *t, bool negative, uint64_t magnitude)
{
    unsigned char bytes[8];
    size_t n = 0;
    while (n < sizeof bytes && magnitude >> (8 * n) != 0) {
        n++;
    }
    store_be(bytes, negative ? ~magnitude : magnitude, n);
    return put_fixed(t, (unsigned)(negative ? TUPLE_ZERO - n : TUPLE_ZERO + n), bytes, n);
}

int shale_tuple_int(shale_tuple *t, int64_t v)
{
    return put_integer(t, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

int shale_tuple_uint(shale_tuple *t, uint64_t v)
{
    return put_integer(t, false, v);
}

static int put_bigint(shale_tuple *t, bool negative, const unsigned char *p, size_t len)
{
    unsigned char turn = negative ? 0xff : 0;
    int rc = reserve(t, len + 2);
    if (rc == SHALE_OK) {
        put_byte(t, negative ? TUPLE_BIG_NEGATIVE : TUPLE_BIG_POSITIVE);
        put_byte(t, (unsigned)len ^ turn);
        for (size_t i = 0; i < len; i++) {
            put_byte(t, p[i] ^ turn);
        }
    }
    return rc;
}

int shale_tuple_bigint(shale_tuple *t, bool negative, const void *magnitude_be, size_t len)
{
    const unsigned char *p = magnitude_be;
    uint64_t v = 0;
    if (p == NULL && len != 0) {
        return err_set(SHALE_INVALID, "an integer of %zu bytes has no data", len);
    }
    while (len != 0 && p[0] == 0) {
        p++;
        len--;
    }
    if (len > TUPLE_INT_MAX) {
        return err_set(SHALE_INVALID, "an integer of %zu bytes: at most %u are possible", len, TUPLE_INT_MAX);
    }
    if (len > sizeof v) {
        return put_bigint(t, negative, p, len);
    }
    for (size_t i = 0; i < len; i++) {
        v = v << 8 | p[i];
    }
    return put_integer(t, negative && v != 0, v);
}

int shale_tuple_float(shale_tuple *t, float v)
{
    unsigned char bytes[4];
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits); /* a NaN too keeps every bit */
    store_be(bytes, bits >> 31 != 0 ? ~bits : bits ^ UINT32_C(1) << 31, sizeof bytes);
    return put_fixed(t, TUPLE_FLOAT, bytes, sizeof bytes);
}

int shale_tuple_double(shale_tuple *t, double v)
{
    unsigned char bytes[8];
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    store_be(bytes, bits >> 63 != 0 ? ~bits : bits ^ UINT64_C(1) << 63, sizeof bytes);
    return put_fixed(t, TUPLE_DOUBLE, bytes, sizeof bytes);
}

/* ---- what was built ---- */

const void *shale_tuple_data(const shale_tuple *t, size_t *len)
{
    if (len != NULL) {
        *len = 0;
    }
    if (t == NULL || len == NULL || t->depth != 0) {
        (void)err_set(SHALE_INVALID, t == NULL || len == NULL
                                         ? "shale_tuple_data: a tuple and a place for its length are needed"
                                         : "a nested tuple is open: end it with shale_tuple_end first");
        return NULL;
    }
    *len = t->packed.size;
    return t->packed.size != 0 ? (const void *)t->packed.data : "";
}

/* What extends the tuple goes on with a type code: never below 00, never ff. */
int shale_tuple_range(const shale_tuple *t, void *lo, size_t *lolen, void *hi, size_t *hilen)
{
    size_t size, lo_cap = lolen != NULL ? *lolen : 0, hi_cap = hilen != NULL ? *hilen : 0;
    if (lolen == NULL || hilen == NULL) {
        return err_set(SHALE_INVALID, "shale_tuple_range: capacities are needed, in *lolen and *hilen");
    }
    const void *data = shale_tuple_data(t, &size);
    if (data == NULL) {
        *lolen = *hilen = 0;
        return SHALE_INVALID;
    }
    *lolen = *hilen = size + 1;
    if (lo == NULL || hi == NULL || lo_cap <= size || hi_cap <= size) {
        return err_set(SHALE_TOOBIG, "the bounds are %zu bytes long, there is room for %zu and %zu", size + 1,
                       lo != NULL ? lo_cap : 0, hi != NULL ? hi_cap : 0);
    }
    memcpy(lo, data, size);
    memcpy(hi, data, size);
    ((unsigned char *)lo)[size] = 0;
    ((unsigned char *)hi)[size] = TUPLE_ESCAPE;
    return SHALE_OK;
}
