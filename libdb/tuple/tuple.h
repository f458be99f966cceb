/* tuple.h - typed keys: values packed so that byte order is value order.
 *
 * The encoding is the one that FoundationDB's tuple layer publishes, byte for byte. An element is a type code
 * and what follows from it; a tuple is its elements in a row, with nothing before, between or behind them:
 *
 *     00                          null at the top; 00 ff within a nested tuple, whose end is a bare 00
 *     01 bytes 00                 byte string, each 00 in it written 00 ff
 *     02 utf-8 00                 string, the same way
 *     05 elements 00              nested tuple
 *     0b ~n ~magnitude            integer of n = 9..255 bytes, negative: every bit is turned over
 *     0c..13 ~magnitude           integer of 8..1 bytes, negative
 *     14                          0
 *     15..1c magnitude            integer of 1..8 bytes, big-endian, no leading zero byte
 *     1d n magnitude              integer of n = 9..255 bytes
 *     20 float  21 double         IEEE 754, big-endian; sign bit turned over, or all bits of a negative one
 *     26 false  27 true
 *     30 uuid   33 versionstamp   16 and 12 bytes as they are
 *
 * So bytes order as elements do: by type code, then by value; a tuple stands before what extends it; and no
 * element's encoding begins another's but where a 00 ends a string or a nested tuple and an ff may follow,
 * which no type code is. That is what makes [packed, packed + ff) the range of a tuple and of all that extend
 * it.
 *
 *   build.c   values to bytes            scan.c    the one walk over packed bytes, which checks them
 *   read.c    bytes to values            format.c  bytes to text       parse.c  text to bytes
 *   number.c  numbers in decimal
 *
 * No locks, no I/O; a tuple or a reader is used by one thread at a time. Nothing here recurses: depth is a
 * counter, so nesting costs no stack, whatever the bytes or the text say.
 */
#ifndef TUPLE_TUPLE_H
#define TUPLE_TUPLE_H

#include "base/base.h"

enum tuple_code {
    TUPLE_NULL = 0x00,
    TUPLE_BYTES = 0x01,
    TUPLE_STRING = 0x02,
    TUPLE_NESTED = 0x05,
    TUPLE_BIG_NEGATIVE = 0x0b,
    TUPLE_ZERO = 0x14, /* an integer of n bytes is 14 + n, a negative one 14 - n */
    TUPLE_BIG_POSITIVE = 0x1d,
    TUPLE_FLOAT = 0x20,
    TUPLE_DOUBLE = 0x21,
    TUPLE_FALSE = 0x26,
    TUPLE_TRUE = 0x27,
    TUPLE_UUID = 0x30,
    TUPLE_VERSIONSTAMP = 0x33,
    TUPLE_ESCAPE = 0xff /* no type, for ever: see above */
};

#define TUPLE_INT_MAX 255 /* bytes of an integer's magnitude */

struct shale_tuple {
    struct buf packed;
    size_t depth; /* nested tuples that were begun and not ended */
};

/* ---- scan.c ---- */

enum { TUPLE_END = 0 }; /* a token's type, beside the public ones: the end of a nested tuple */

struct tuple_token {
    int type;  /* SHALE_TYPE_NESTED is the beginning of one; SHALE_TYPE_BIGINT is every integer but the small
                  ones */
    size_t at; /* of its first byte */
    /* The bytes that stand for the value, as they stand there: escaped, turned over. */
    const unsigned char *data;
    size_t len;
    bool negative; /* integers */
};

struct tuple_scan {
    const unsigned char *bytes;
    size_t size, pos, depth; /* pos: of the next token. depth: nested tuples around it */
};

/* The next token; SHALE_NOTFOUND behind the last; SHALE_CORRUPT, naming the byte, and nothing moves. */
int tuple_next(struct tuple_scan *s, struct tuple_token *t);
/* Is it UTF-8? escaped: a 00 is followed by its ff. At most U+10FFFF, no surrogates, nothing overlong. */
bool tuple_utf8(const unsigned char *p, size_t size, bool escaped);
/* The value of an integer of at most 8 bytes, without its sign. */
uint64_t tuple_magnitude(const struct tuple_token *t);
uint32_t tuple_float_bits(const struct tuple_token *t);
uint64_t tuple_double_bits(const struct tuple_token *t);

/* ---- number.c ---- */

/* Appends the magnitude, big-endian, in decimal. */
int tuple_put_decimal(struct buf *out, const unsigned char *magnitude, size_t len);
/* The magnitude of decimal digits; false: more than TUPLE_INT_MAX bytes. Its first byte is not 0; *len 0 is
 * zero. */
bool tuple_from_decimal(const char *digits, size_t n, unsigned char magnitude[TUPLE_INT_MAX], size_t *len);
/* Appends the shortest decimal form that reads back as the same number, and its suffix. A NaN keeps its bits.
 * Whatever the program's locale, there is a point in it. */
int tuple_put_float(struct buf *out, uint32_t bits);
int tuple_put_double(struct buf *out, uint64_t bits);
/* Reads what the two print, without the suffix and not a NaN; checked by the caller to be a decimal number.
 */
int tuple_get_double(const char *text, double *v);
int tuple_get_float(const char *text, float *v);

#endif
