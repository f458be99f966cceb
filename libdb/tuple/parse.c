/* parse.c - text to bytes: what format.c prints, and a little more that a person may type.
 *
 *     tuple    ( element, ... )         spaces and a last comma are free; () is the empty tuple
 *     element  null  true  false
 *              "text"                   UTF-8; \" \\ \/ \b \f \n \r \t \uXXXX as in JSON
 *              b"bytes"                 ASCII; \" \\ \n \r \t \xHH
 *              uuid"8-4-4-4-12 digits"  versionstamp"24 digits", hexadecimal
 *              42  -7                   an integer of up to 255 bytes
 *              1.5d  2f  1e9  inff      double and float; without d or f, a number with . or e is a double
 *              nand  nanf  nan:BITS     BITS: 8 hexadecimal digits for a float, 16 for a double
 *              ( element, ... )         a nested tuple
 */
#include "tuple/tuple.h"

struct parser {
    const char *text;
    size_t at;        /* read so far; where an error is */
    shale_tuple *out; /* its depth is the parser's */
};

static int wrong(const struct parser *p, const char *what)
{
    return err_set(SHALE_INVALID, "tuple text: byte %zu: %s", p->at, what);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static void skip_spaces(struct parser *p)
{
    while (p->text[p->at] == ' ' || p->text[p->at] == '\t' || p->text[p->at] == '\n' ||
           p->text[p->at] == '\r') {
        p->at++;
    }
}

/* n hexadecimal digits at s; they end the text no later than the first that is none. */
static bool hex_number(const char *s, size_t n, uint64_t *v)
{
    uint64_t got = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = hex_digit(s[i]);
        if (digit < 0) {
            return false;
        }
        got = got << 4 | (unsigned)digit;
    }
    *v = got;
    return true;
}

/* ---- strings ---- */

static int put_utf8(struct buf *out, uint32_t c)
{
    unsigned char bytes[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 1; c >>= 6) {
        bytes[i] = (unsigned char)(0x80 | (c & 0x3f));
    }
    bytes[0] = (unsigned char)(lead[n] | c);
    return buf_append(out, bytes, n);
}

/* Behind \u: four digits, and the second half of a pair where the first is one. */
static int unicode_escape(struct parser *p, struct buf *out)
{
    uint64_t c, low;
    const char *s = p->text + p->at + 2;
    if (!hex_number(s, 4, &c)) {
        return wrong(p, "\\u takes four hexadecimal digits");
    }
    size_t used = 6;
    if (c >= 0xd800 && c <= 0xdbff && s[4] == '\\' && s[5] == 'u' && hex_number(s + 6, 4, &low) &&
        low >= 0xdc00 && low <= 0xdfff) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        used = 12;
    }
    if (c >= 0xd800 && c <= 0xdfff) {
        return wrong(p, "half of a surrogate pair (write \\uD83D\\uDE00, or the character itself)");
    }
    p->at += used;
    return put_utf8(out, (uint32_t)c);
}

static int escape(struct parser *p, struct buf *out, bool bytes)
{
    static const char names[] = "nrt\"\\bf/", values[] = "\n\r\t\"\\\b\f/";
    uint64_t v;
    char c = p->text[p->at + 1];
    const char *name = c != '\0' ? strchr(names, c) : NULL;
    if (name != NULL && (!bytes || name - names < 5)) {
        p->at += 2;
        return buf_append(out, &values[name - names], 1);
    }
    if (bytes) {
        if (c != 'x' || !hex_number(p->text + p->at + 2, 2, &v)) {
            return wrong(p, "in b\"...\" an escape is \\xHH, \\n, \\r, \\t, \\\" or \\\\");
        }
        p->at += 4;
        return buf_append(out, &(unsigned char){(unsigned char)v}, 1);
    }
    if (c != 'u') {
        return wrong(p, "in a string an escape is \\uXXXX, \\n, \\r, \\t, \\b, \\f, \\/, \\\" or \\\\ (bytes "
                        "are b\"\\xHH\")");
    }
    return unicode_escape(p, out);
}

/* From behind the opening quote to behind the closing one. */
static int quoted(struct parser *p, struct buf *out, bool bytes)
{
    size_t start = p->at - 1;
    for (;;) {
        size_t from = p->at;
        while (p->text[p->at] != '\0' && p->text[p->at] != '"' && p->text[p->at] != '\\' &&
               (!bytes || ((unsigned char)p->text[p->at] >= 0x20 && (unsigned char)p->text[p->at] < 0x7f))) {
            p->at++;
        }
        int rc = buf_append(out, p->text + from, p->at - from);
        if (rc != SHALE_OK) {
            return rc;
        }
        switch (p->text[p->at]) {
        case '"': p->at++; return SHALE_OK;
        case '\0': p->at = start; return wrong(p, "this quote is never closed");
        case '\\': rc = escape(p, out, bytes); break;
        default: rc = wrong(p, "in b\"...\" a byte that is not printable ASCII is \\xHH");
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

static int parse_string(struct parser *p, bool bytes)
{
    struct buf out = {0};
    size_t start = p->at;
    p->at += bytes ? 2 : 1;
    int rc = quoted(p, &out, bytes);
    if (rc == SHALE_OK && bytes) {
        rc = shale_tuple_bytes(p->out, out.data, out.size);
    } else if (rc == SHALE_OK && !tuple_utf8(out.data, out.size, false)) {
        p->at = start;
        rc = wrong(p, "the string is not UTF-8 (write bytes as b\"\\xHH\")");
    } else if (rc == SHALE_OK) {
        rc = shale_tuple_string(p->out, (const char *)out.data, out.size);
    }
    buf_release(&out);
    return rc;
}

/* size bytes as hexadecimal digits in quotes, with a UUID's four dashes, or none. */
static int fixed_digits(struct parser *p, unsigned char *bytes, size_t size, bool dashes)
{
    uint64_t v;
    for (size_t i = 0; i < size; i++) {
        if (dashes && (i == 4 || i == 6 || i == 8 || i == 10)) {
            if (p->text[p->at] != '-') {
                return wrong(p, "a UUID is written uuid\"01234567-89ab-cdef-0123-456789abcdef\"");
            }
            p->at++;
        }
        if (!hex_number(p->text + p->at, 2, &v)) {
            return wrong(p, dashes ? "a UUID is 32 hexadecimal digits, in groups of 8-4-4-4-12"
                                   : "a versionstamp is 24 hexadecimal digits");
        }
        bytes[i] = (unsigned char)v;
        p->at += 2;
    }
    if (p->text[p->at] != '"') {
        return wrong(p, "too many digits: a quote closes it here");
    }
    p->at++;
    return SHALE_OK;
}

static int parse_uuid(struct parser *p)
{
    unsigned char bytes[16];
    p->at += sizeof "uuid\"" - 1;
    int rc = fixed_digits(p, bytes, sizeof bytes, true);
    return rc == SHALE_OK ? shale_tuple_uuid(p->out, bytes) : rc;
}

static int parse_versionstamp(struct parser *p)
{
    unsigned char bytes[12];
    p->at += sizeof "versionstamp\"" - 1;
    int rc = fixed_digits(p, bytes, sizeof bytes, false);
    return rc == SHALE_OK ? shale_tuple_versionstamp(p->out, bytes) : rc;
}

/* ---- words and numbers ---- */

static size_t word_length(const char *s)
{
    size_t n = 0;
    while (is_digit(s[n]) || (s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || s[n] == '_' ||
           s[n] == '.' || s[n] == '+' || s[n] == '-' || s[n] == ':' || (unsigned char)s[n] >= 0x80) {
        n++;
    }
    return n;
}

static bool is_word(const char *s, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(s, word, n) == 0;
}

static int put_float_bits(shale_tuple *t, uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return shale_tuple_float(t, v);
}

static int put_double_bits(shale_tuple *t, uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return shale_tuple_double(t, v);
}

/* inf, nan, with a sign, and with d, f or nothing behind; false: none of them. */
static bool parse_special(struct parser *p, const char *s, size_t n, int *rc)
{
    uint64_t sign = n != 0 && s[0] == '-';
    s += sign;
    n -= sign;
    bool single = n == 4 && s[3] == 'f';
    if ((n != 3 && n != 4) || (n == 4 && !single && s[3] != 'd')) {
        return false;
    }
    bool nan = memcmp(s, "nan", 3) == 0;
    if (!nan && memcmp(s, "inf", 3) != 0) {
        return false;
    }
    uint32_t bits32 = (uint32_t)sign << 31 | (nan ? UINT32_C(0x7fc00000) : UINT32_C(0x7f800000));
    uint64_t bits64 = sign << 63 | (nan ? UINT64_C(0x7ff8000000000000) : UINT64_C(0x7ff0000000000000));
    *rc = single ? put_float_bits(p->out, bits32) : put_double_bits(p->out, bits64);
    return true;
}

static int parse_nan_bits(struct parser *p, const char *s, size_t n)
{
    uint64_t bits;
    n -= 4;
    if ((n != 8 && n != 16) || !hex_number(s + 4, n, &bits)) {
        return wrong(p, "nan: takes the bits, 8 hexadecimal digits for a float, 16 for a double");
    }
    uint64_t infinity = n == 8 ? UINT64_C(0x7f800000) : UINT64_C(0x7ff0000000000000);
    uint64_t sign = UINT64_C(1) << (4 * n - 1);
    if ((bits & ~sign) <= infinity) {
        return wrong(p, "these are not the bits of a NaN (write the number itself)");
    }
    return n == 8 ? put_float_bits(p->out, (uint32_t)bits) : put_double_bits(p->out, bits);
}

static int parse_real(struct parser *p, const char *s, bool single)
{
    double d = 0;
    float f = 0;
    int rc = single ? tuple_get_float(s, &f) : tuple_get_double(s, &d);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (single ? f - f != 0 : d - d != 0) { /* infinite */
        return wrong(p, single ? "too large for a float (write it as a double, with d, or write inff)"
                               : "too large for a double (write infd)");
    }
    return single ? shale_tuple_float(p->out, f) : shale_tuple_double(p->out, d);
}

static int parse_integer(struct parser *p, const char *s, size_t n)
{
    unsigned char magnitude[TUPLE_INT_MAX];
    size_t len, sign = s[0] == '-';
    if (!tuple_from_decimal(s + sign, n - sign, magnitude, &len)) {
        return wrong(p,
                     "an integer has 255 bytes at most, 614 digits or so (write it as a string or as bytes)");
    }
    return shale_tuple_bigint(p->out, sign != 0, magnitude, len);
}

static size_t digits(const char *s, size_t i)
{
    while (is_digit(s[i])) {
        i++;
    }
    return i;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?[df]? */
static int parse_number(struct parser *p, const char *s, size_t n)
{
    size_t first = s[0] == '-', i = digits(s, first), end = i;
    if (i == first) {
        return wrong(p, "a number is written 42, -7, 1.5d or 1e9f");
    }
    if (i - first > 1 && s[first] == '0') {
        return wrong(p, "a number does not begin with 0 (leave it out, or write a string in double quotes)");
    }
    if (s[i] == '.' && is_digit(s[i + 1])) {
        end = digits(s, i + 1);
    }
    size_t sign = s[end] == 'e' || s[end] == 'E' ? 1u + (s[end + 1] == '+' || s[end + 1] == '-') : 0;
    if (sign != 0 && is_digit(s[end + sign])) {
        end = digits(s, end + sign);
    }
    bool suffix = s[end] == 'd' || s[end] == 'f';
    if (end + suffix != n) {
        p->at += end;
        return wrong(p,
                     "this does not belong to a number (42, -7, 1.5d, 1e9f; text stands in double quotes)");
    }
    return end == i && !suffix ? parse_integer(p, s, n) : parse_real(p, s, suffix && s[end] == 'f');
}

static int parse_word(struct parser *p)
{
    const char *s = p->text + p->at;
    size_t n = word_length(s);
    int rc;
    if (is_word(s, n, "null")) {
        rc = shale_tuple_null(p->out);
    } else if (is_word(s, n, "true") || is_word(s, n, "false")) {
        rc = shale_tuple_bool(p->out, n == 4);
    } else if (n > 4 && memcmp(s, "nan:", 4) == 0) {
        rc = parse_nan_bits(p, s, n);
    } else if (!parse_special(p, s, n, &rc)) {
        rc = is_digit(s[0]) || s[0] == '-' ? parse_number(p, s, n)
                                           : wrong(p, "an element is expected: \"text\", b\"bytes\", a "
                                                      "number, null, true, false, uuid\"...\", "
                                                      "versionstamp\"...\" or (...)");
    }
    p->at += rc == SHALE_OK ? n : 0;
    return rc;
}

/* ---- the whole ---- */

static int parse_element(struct parser *p)
{
    const char *s = p->text + p->at;
    if (s[0] == '"') {
        return parse_string(p, false);
    }
    if (strncmp(s, "b\"", 2) == 0) {
        return parse_string(p, true);
    }
    if (strncmp(s, "uuid\"", 5) == 0) {
        return parse_uuid(p);
    }
    if (strncmp(s, "versionstamp\"", 13) == 0) {
        return parse_versionstamp(p);
    }
    return parse_word(p);
}

/* From behind the first parenthesis to behind its partner. */
static int parse_elements(struct parser *p)
{
    bool element = false; /* the last thing was one: a comma or the end must follow */
    for (;;) {
        int rc = SHALE_OK;
        skip_spaces(p);
        char c = p->text[p->at];
        if (c == ')') {
            p->at++;
            if (p->out->depth == 0) {
                return SHALE_OK;
            }
            rc = shale_tuple_end(p->out);
            element = true;
        } else if (c == '\0') {
            return wrong(p, "the text ends within a tuple: a ) is missing");
        } else if (element) {
            if (c != ',') {
                return wrong(p, "a comma or ) must follow an element");
            }
            p->at++;
            element = false;
        } else if (c == '(') {
            p->at++;
            rc = shale_tuple_begin(p->out);
        } else {
            rc = parse_element(p);
            element = true;
        }
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

static int parse_tuple(struct parser *p)
{
    skip_spaces(p);
    if (p->text[p->at] != '(') {
        return wrong(p, "a tuple begins with ( as in (\"user\", 42)");
    }
    p->at++;
    int rc = parse_elements(p);
    if (rc == SHALE_OK) {
        skip_spaces(p);
        if (p->text[p->at] != '\0') {
            rc = wrong(p, "nothing may follow the closing ) of the tuple");
        }
    }
    return rc;
}

int shale_tuple_parse(const char *text, shale_tuple *t, size_t *error_at)
{
    shale_tuple made = {{NULL, 0, 0}, 0};
    struct parser p = {.text = text, .out = &made};
    if (text == NULL || t == NULL) {
        return err_set(SHALE_INVALID, "shale_tuple_parse: %s is NULL",
                       text == NULL ? "the text" : "the tuple");
    }
    int rc = parse_tuple(&p);
    if (rc == SHALE_OK) {
        buf_release(&t->packed);
        *t = made;
    } else {
        buf_release(&made.packed);
        if (error_at != NULL) {
            *error_at = p.at;
        }
    }
    return rc;
}
