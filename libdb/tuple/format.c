/* format.c - bytes to text: ("user", 42, true, null, b"\x00ff", 1.5d). Whatever is printed is read back by
 * parse.c as the same bytes. No control character gets through, so a tuple is one line, and a terminal sees
 * no control sequence. */
#include "tuple/tuple.h"

static int put_bytes(struct buf *out, const struct tuple_token *t)
{
    int rc = buf_append(out, "b\"", 2);
    for (size_t i = 0; i < t->len && rc == SHALE_OK; i++) {
        unsigned char c = t->data[i];
        if (c == '"' || c == '\\') {
            rc = buf_printf(out, "\\%c", c);
        } else if (c >= 0x20 && c < 0x7f) {
            rc = buf_append(out, &c, 1);
        } else {
            rc = buf_printf(out, "\\x%02x", c);
        }
        i += c == 0; /* its ff */
    }
    return rc == SHALE_OK ? buf_append(out, "\"", 1) : rc;
}

/* The short escape of a character, as JSON has it; 0: none. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '\n': return 'n';
    case '\t': return 't';
    case '\r': return 'r';
    case '"':
    case '\\': return (char)c;
    default: return 0;
    }
}

static int put_string(struct buf *out, const struct tuple_token *t)
{
    int rc = buf_append(out, "\"", 1);
    for (size_t i = 0; i < t->len && rc == SHALE_OK; i++) {
        unsigned char c = t->data[i];
        char escape = short_escape(c);
        if (escape != 0) {
            rc = buf_printf(out, "\\%c", escape);
        } else if (c < 0x20 || c == 0x7f) {
            rc = buf_printf(out, "\\u%04x", c);
        } else if (c == 0xc2 &&
                   t->data[i + 1] < 0xa0) { /* U+0080 to U+009F: UTF-8 was checked, there is a next */
            rc = buf_printf(out, "\\u%04x", t->data[++i]);
        } else {
            rc = buf_append(out, &c, 1);
        }
        i += c == 0; /* its ff */
    }
    return rc == SHALE_OK ? buf_append(out, "\"", 1) : rc;
}

static int put_integer(struct buf *out, const struct tuple_token *t)
{
    unsigned char magnitude[TUPLE_INT_MAX];
    if (t->len <= 8) {
        return buf_printf(out, "%s%llu", t->negative ? "-" : "", (unsigned long long)tuple_magnitude(t));
    }
    for (size_t i = 0; i < t->len; i++) {
        magnitude[i] = t->negative ? (unsigned char)~t->data[i] : t->data[i];
    }
    int rc = t->negative ? buf_append(out, "-", 1) : SHALE_OK;
    return rc == SHALE_OK ? tuple_put_decimal(out, magnitude, t->len) : rc;
}

static int put_hex(struct buf *out, const struct tuple_token *t, const char *name, bool dashes)
{
    int rc = buf_printf(out, "%s\"", name);
    for (size_t i = 0; i < t->len && rc == SHALE_OK; i++) {
        bool dash = dashes && (i == 4 || i == 6 || i == 8 || i == 10);
        rc = buf_printf(out, "%s%02x", dash ? "-" : "", t->data[i]);
    }
    return rc == SHALE_OK ? buf_append(out, "\"", 1) : rc;
}

static int put_token(struct buf *out, const struct tuple_token *t)
{
    switch (t->type) {
    case TUPLE_END: return buf_append(out, ")", 1);
    case SHALE_TYPE_NULL: return buf_append(out, "null", 4);
    case SHALE_TYPE_BYTES: return put_bytes(out, t);
    case SHALE_TYPE_STRING: return put_string(out, t);
    case SHALE_TYPE_NESTED: return buf_append(out, "(", 1);
    case SHALE_TYPE_FLOAT: return tuple_put_float(out, tuple_float_bits(t));
    case SHALE_TYPE_DOUBLE: return tuple_put_double(out, tuple_double_bits(t));
    case SHALE_TYPE_BOOL: return buf_printf(out, t->data[-1] == TUPLE_TRUE ? "true" : "false");
    case SHALE_TYPE_UUID: return put_hex(out, t, "uuid", true);
    case SHALE_TYPE_VERSIONSTAMP: return put_hex(out, t, "versionstamp", false);
    default: return put_integer(out, t);
    }
}

static int put_tuple(struct buf *out, struct tuple_scan *s)
{
    struct tuple_token t;
    bool first = true;
    int rc = buf_append(out, "(", 1);
    while (rc == SHALE_OK && (rc = tuple_next(s, &t)) == SHALE_OK) {
        if (!first && t.type != TUPLE_END) {
            rc = buf_append(out, ", ", 2);
        }
        if (rc == SHALE_OK) {
            rc = put_token(out, &t);
        }
        first = t.type == SHALE_TYPE_NESTED;
    }
    return rc == SHALE_NOTFOUND ? buf_append(out, ")", 2) : rc; /* and the NUL */
}

int shale_tuple_format(const void *packed, size_t len, char *buf, size_t cap, size_t *need)
{
    struct tuple_scan s = {.bytes = packed, .size = len};
    struct buf out = {0};
    if (need != NULL) {
        *need = 0;
    }
    if ((packed == NULL && len != 0) || (buf == NULL && cap != 0)) {
        return err_set(SHALE_INVALID, "shale_tuple_format: %s",
                       packed == NULL ? "no bytes" : "no place for the text");
    }
    int rc = put_tuple(&out, &s);
    if (rc == SHALE_OK && need != NULL) {
        *need = out.size - 1;
    }
    if (rc == SHALE_OK && cap < out.size) {
        rc = err_set(SHALE_TOOBIG, "the tuple's text takes %zu bytes, there is room for %zu", out.size, cap);
    } else if (rc == SHALE_OK) {
        memcpy(buf, out.data, out.size);
    }
    buf_release(&out);
    return rc;
}
