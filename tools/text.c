/* text.c - see text.h. */
#include "text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

void text_release(struct text *t)
{
    free(t->data);
    *t = (struct text){0};
}

void text_reserve(struct text *t, size_t more)
{
    if (t->cap - t->size >= more) {
        return;
    }
    size_t cap = t->cap < 64 ? 64 : t->cap;
    while (cap - t->size < more && cap <= SIZE_MAX / 2) {
        cap *= 2;
    }
    unsigned char *data = cap - t->size >= more ? realloc(t->data, cap) : NULL;
    if (data == NULL) {
        fprintf(stderr, "shale: out of memory\n");
        exit(EX_OSERR);
    }
    t->data = data;
    t->cap = cap;
}

void text_append(struct text *t, const void *data, size_t size)
{
    text_reserve(t, size);
    if (size != 0) {
        memcpy(t->data + t->size, data, size);
        t->size += size;
    }
}

void text_string(struct text *t, const char *s)
{
    text_append(t, s, strlen(s));
}

static void text_byte(struct text *t, unsigned char c)
{
    text_append(t, &c, 1);
}

int text_digit(int c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool text_unhex(struct text *t, const char *digits, size_t size)
{
    size_t start = t->size;
    if (size % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < size; i += 2) {
        int high = text_digit((unsigned char)digits[i]), low = text_digit((unsigned char)digits[i + 1]);
        if (high < 0 || low < 0) {
            t->size = start;
            return false;
        }
        text_byte(t, (unsigned char)(high * 16 + low));
    }
    return true;
}

static const char hex_digits[] = "0123456789abcdef";

void text_hex(struct text *t, const void *data, size_t size)
{
    const unsigned char *p = data;
    text_reserve(t, 2 * size);
    for (size_t i = 0; i < size; i++) {
        t->data[t->size++] = (unsigned char)hex_digits[p[i] >> 4];
        t->data[t->size++] = (unsigned char)hex_digits[p[i] & 15];
    }
}

/* The character at p: its code and length, or length 0 where the bytes are not UTF-8 (cut short, overlong, a
 * surrogate, beyond U+10FFFF). */
static size_t utf8_decode(const unsigned char *p, size_t left, uint32_t *code)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc0 ? 2 : 0;
    if (n == 0 || n > left || p[0] > 0xf4) {
        return 0;
    }
    uint32_t c = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        return 0;
    }
    *code = c;
    return n;
}

static bool is_utf8(const unsigned char *p, size_t size)
{
    uint32_t code;
    for (size_t i = 0, n; i < size; i += n) {
        if ((n = utf8_decode(p + i, size - i, &code)) == 0) {
            return false;
        }
    }
    return true;
}

static void base64(struct text *t, const unsigned char *p, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text_reserve(t, (size + 2) / 3 * 4);
    for (size_t i = 0; i < size; i += 3) {
        size_t n = size - i < 3 ? size - i : 3;
        uint32_t v = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        for (size_t d = 0; d < 4; d++) {
            t->data[t->size++] = d <= n ? (unsigned char)digits[v >> (18 - 6 * d) & 63] : '=';
        }
    }
}

void text_json(struct text *t, const void *data, size_t size)
{
    const unsigned char *p = data;
    if (!is_utf8(p, size)) {
        text_string(t, "{\"b64\":\"");
        base64(t, p, size);
        text_string(t, "\"}");
        return;
    }
    text_byte(t, '"');
    for (size_t i = 0; i < size; i++) {
        if (p[i] == '"' || p[i] == '\\') {
            text_byte(t, '\\');
            text_byte(t, p[i]);
        } else if (p[i] == '\n') {
            text_string(t, "\\n");
        } else if (p[i] == '\t') {
            text_string(t, "\\t");
        } else if (p[i] < 0x20 || p[i] == 0x7f) {
            text_string(t, "\\u00");
            text_hex(t, p + i, 1);
        } else {
            text_byte(t, p[i]);
        }
    }
    text_byte(t, '"');
}

void text_escape(struct text *t, const void *data, size_t size)
{
    const unsigned char *p = data;
    for (size_t i = 0, n; i < size; i += n) {
        uint32_t code = 0;
        n = utf8_decode(p + i, size - i, &code);
        const char *name = p[i] == '\t'   ? "\\t"
                           : p[i] == '\n' ? "\\n"
                           : p[i] == '\r' ? "\\r"
                           : p[i] == '\\' ? "\\\\"
                                          : NULL;
        if (name != NULL) {
            text_string(t, name);
        } else if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0)) {
            n = n == 0 ? 1 : n;
            for (size_t k = 0; k < n; k++) {
                text_string(t, "\\x");
                text_hex(t, p + i + k, 1);
            }
        } else {
            text_append(t, p + i, n);
        }
    }
}
