/* scan.c - the one walk over packed bytes. Reader and text form both stand on it, so what it lets pass is
 * what a tuple is.
 *
 * It is strict: an integer has its shortest form, a string is UTF-8, every nested tuple ends. So a value has
 * one encoding, and two keys with the same elements are the same key. One exception: FoundationDB's Python
 * binding writes 2^64-1 and its negative as integers of more than 8 bytes, with the length 8, where the other
 * bindings, and shale, use the short form. That is read too, or a database taken over from there would have
 * keys that cannot be read.
 */
#include "tuple/tuple.h"

/* The length of the character at p, 0 where there is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n < 2 || n > left) {
        return n == 1 ? 1 : 0;
    }
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

bool tuple_utf8(const unsigned char *p, size_t size, bool escaped)
{
    for (size_t i = 0, n; i < size; i += n) {
        n = utf8_length(p + i, size - i);
        if (n == 0) {
            return false;
        }
        n += escaped && p[i] == 0;
    }
    return true;
}

static uint64_t load_be(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

uint64_t tuple_magnitude(const struct tuple_token *t)
{
    uint64_t v = load_be(t->data, t->len);
    if (t->negative) {
        v = ~v & (t->len < 8 ? (UINT64_C(1) << (8 * t->len)) - 1 : UINT64_MAX);
    }
    return v;
}

uint32_t tuple_float_bits(const struct tuple_token *t)
{
    uint32_t bits = (uint32_t)load_be(t->data, 4);
    return bits >> 31 == 0 ? ~bits : bits ^ UINT32_C(1) << 31;
}

uint64_t tuple_double_bits(const struct tuple_token *t)
{
    uint64_t bits = load_be(t->data, 8);
    return bits >> 63 == 0 ? ~bits : bits ^ UINT64_C(1) << 63;
}

static int bad(const struct tuple_scan *s, const char *what)
{
    return err_set(SHALE_CORRUPT, "packed tuple: byte %zu: %s", s->pos, what);
}

/* size bytes, head bytes behind the type code. */
static int take_fixed(const struct tuple_scan *s, struct tuple_token *t, int type, size_t head, size_t size)
{
    size_t left = s->size - s->pos - 1;
    if (left < head + size) {
        return err_set(
            SHALE_CORRUPT,
            "packed tuple: byte %zu: type 0x%02x takes %zu more bytes, %zu are there (is it whole?)", s->pos,
            s->bytes[s->pos], head + size, left);
    }
    *t = (struct tuple_token){type, s->pos, s->bytes + s->pos + 1 + head, size, false};
    return SHALE_OK;
}

/* The 00 that no ff follows, or NULL. */
static const unsigned char *string_end(const unsigned char *p, const unsigned char *end)
{
    while (p < end && (p = memchr(p, 0, (size_t)(end - p))) != NULL) {
        if (end - p == 1 || p[1] != TUPLE_ESCAPE) {
            return p;
        }
        p += 2;
    }
    return NULL;
}

static int take_string(const struct tuple_scan *s, struct tuple_token *t, int type)
{
    const unsigned char *p = s->bytes + s->pos + 1, *end = string_end(p, s->bytes + s->size);
    if (end == NULL) {
        return bad(s, "a string without its end, a 00 that no ff follows (is it whole?)");
    }
    *t = (struct tuple_token){type, s->pos, p, (size_t)(end - p), false};
    if (type == SHALE_TYPE_STRING && !tuple_utf8(p, t->len, true)) {
        return bad(s, "the string is not UTF-8 (pack such bytes as a byte string)");
    }
    return SHALE_OK;
}

static int take_small_integer(const struct tuple_scan *s, struct tuple_token *t, unsigned code)
{
    bool negative = code < TUPLE_ZERO;
    int rc = take_fixed(s, t, SHALE_TYPE_INT, 0, negative ? TUPLE_ZERO - code : code - TUPLE_ZERO);
    if (rc == SHALE_OK && t->len != 0 && t->data[0] == (negative ? 0xff : 0)) {
        return bad(s, "an integer with a leading zero byte (write its shortest form)");
    }
    t->negative = negative;
    return rc;
}

static int take_big_integer(const struct tuple_scan *s, struct tuple_token *t, bool negative)
{
    unsigned char turn = negative ? 0xff : 0;
    int rc = take_fixed(s, t, SHALE_TYPE_BIGINT, 1, 0);
    if (rc == SHALE_OK) {
        rc = take_fixed(s, t, SHALE_TYPE_BIGINT, 1, s->bytes[s->pos + 1] ^ turn);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    t->negative = negative;
    bool shortest = t->len > 8 && (t->data[0] ^ turn) != 0;
    if (!shortest && !(t->len == 8 && tuple_magnitude(t) == UINT64_MAX)) {
        return bad(s, "an integer in more bytes than it needs (write its shortest form)");
    }
    return SHALE_OK;
}

/* A 00 at the top is null; within a nested tuple it ends that, unless an ff follows. */
static int take_zero(const struct tuple_scan *s, struct tuple_token *t)
{
    bool escaped = s->size - s->pos > 1 && s->bytes[s->pos + 1] == TUPLE_ESCAPE;
    bool end = s->depth != 0 && !escaped;
    *t = (struct tuple_token){end ? TUPLE_END : SHALE_TYPE_NULL, s->pos, s->bytes + s->pos + 1,
                              s->depth != 0 && escaped, false};
    return SHALE_OK;
}

static int take(const struct tuple_scan *s, struct tuple_token *t)
{
    unsigned code = s->bytes[s->pos];
    switch (code) {
    case TUPLE_NULL: return take_zero(s, t);
    case TUPLE_BYTES: return take_string(s, t, SHALE_TYPE_BYTES);
    case TUPLE_STRING: return take_string(s, t, SHALE_TYPE_STRING);
    case TUPLE_NESTED: return take_fixed(s, t, SHALE_TYPE_NESTED, 0, 0);
    case TUPLE_BIG_NEGATIVE: return take_big_integer(s, t, true);
    case TUPLE_BIG_POSITIVE: return take_big_integer(s, t, false);
    case TUPLE_FLOAT: return take_fixed(s, t, SHALE_TYPE_FLOAT, 0, 4);
    case TUPLE_DOUBLE: return take_fixed(s, t, SHALE_TYPE_DOUBLE, 0, 8);
    case TUPLE_FALSE:
    case TUPLE_TRUE: return take_fixed(s, t, SHALE_TYPE_BOOL, 0, 0);
    case TUPLE_UUID: return take_fixed(s, t, SHALE_TYPE_UUID, 0, 16);
    case TUPLE_VERSIONSTAMP: return take_fixed(s, t, SHALE_TYPE_VERSIONSTAMP, 0, 12);
    default: break;
    }
    if (code > TUPLE_BIG_NEGATIVE && code < TUPLE_BIG_POSITIVE) {
        return take_small_integer(s, t, code);
    }
    return err_set(SHALE_CORRUPT,
                   "packed tuple: byte %zu: no type has the code 0x%02x (is it a tuple at all?)", s->pos,
                   code);
}

int tuple_next(struct tuple_scan *s, struct tuple_token *t)
{
    if (s->pos == s->size) {
        return s->depth == 0
                   ? SHALE_NOTFOUND
                   : bad(s, "the end within a nested tuple, whose closing 00 is missing (is it whole?)");
    }
    int rc = take(s, t);
    if (rc == SHALE_OK) {
        bool string = t->type == SHALE_TYPE_BYTES || t->type == SHALE_TYPE_STRING;
        s->pos = (size_t)(t->data - s->bytes) + t->len + string;
        s->depth += t->type == SHALE_TYPE_NESTED;
        s->depth -= t->type == TUPLE_END;
    }
    return rc;
}
