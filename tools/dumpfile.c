/* dumpfile.c - see dumpfile.h. The input comes from anywhere: every line is checked before it is used. */
#include "dumpfile.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int __attribute__((format(printf, 2, 3))) bad(struct dump_reader *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->error, sizeof r->error, fmt, ap);
    va_end(ap);
    return DUMP_BAD;
}

/* The next line without its newline, NUL behind it. DUMP_END: the file ends. */
static int read_line(struct dump_reader *r)
{
    char *line = (char *)r->buffer.data;
    ssize_t n = getline(&line, &r->buffer.cap, r->file);
    r->buffer.data = (unsigned char *)line;
    r->buffer.size = 0;
    if (n < 0) {
        return ferror(r->file) ? DUMP_IO : DUMP_END;
    }
    r->line++;
    r->bytes += (uint64_t)n;
    if (n > 0 && line[n - 1] == '\n') {
        line[--n] = '\0';
    }
    r->buffer.size = (size_t)n;
    return DUMP_MORE;
}

static int read_header_line(struct dump_reader *r, const char *line, const char *value)
{
    size_t n = (size_t)(value - line) - 1;
#define IS(name) (n == strlen(name) && memcmp(line, name, n) == 0)
    if (IS("VERSION") && strcmp(value, "3") != 0 && strcmp(value, "2") != 0) {
        return bad(r, "VERSION=%.20s is not known (3 is)", value);
    }
    if (IS("format")) {
        r->print = strcmp(value, "print") == 0;
        if (!r->print && strcmp(value, "bytevalue") != 0) {
            return bad(r, "format=%.20s is not known (bytevalue and print are)", value);
        }
    }
    if (IS("type") && strcmp(value, "btree") != 0 && strcmp(value, "hash") != 0) {
        return bad(r, "type=%.20s has no keys (btree and hash have)", value);
    }
    if (IS("keys") && strcmp(value, "0") == 0) {
        return bad(r, "keys=0: the keys are not in this file");
    }
    if ((IS("duplicates") || IS("dupsort")) && strcmp(value, "1") == 0) {
        r->duplicates = true;
    }
#undef IS
    return DUMP_MORE;
}

int dump_read_header(struct dump_reader *r)
{
    for (;;) {
        int got = read_line(r);
        if (got != DUMP_MORE) {
            return got == DUMP_END
                       ? bad(r, r->line == 0 ? "the input is empty" : "the header has no HEADER=END")
                       : got;
        }
        const char *line = (const char *)r->buffer.data, *equals = strchr(line, '=');
        if (strcmp(line, "HEADER=END") == 0) {
            return DUMP_MORE;
        }
        if (equals == NULL || (r->line == 1 && strncmp(line, "VERSION=", 8) != 0)) {
            return bad(r, r->line == 1 ? "not a dump: it does not begin with VERSION=3"
                                       : "not a header line (NAME=VALUE)");
        }
        if ((got = read_header_line(r, line, equals + 1)) != DUMP_MORE) {
            return got;
        }
    }
}

static bool decode_print(struct text *out, const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (p[i] != '\\') {
            text_append(out, p + i, 1);
        } else if (i + 1 < size && p[i + 1] == '\\') {
            text_append(out, p + i++, 1);
        } else if (i + 2 < size && text_unhex(out, p + i + 1, 2)) {
            i += 2;
        } else {
            return false;
        }
    }
    return true;
}

static int decode_line(struct dump_reader *r, struct text *out)
{
    const char *line = (const char *)r->buffer.data;
    size_t n = r->buffer.size;
    out->size = 0;
    if (n == 0 || line[0] != ' ') {
        return bad(r, "a data line begins with a space");
    }
    if (r->print && !decode_print(out, line + 1, n - 1)) {
        return bad(r, "a backslash without two hexadecimal digits behind it");
    }
    if (!r->print && !text_unhex(out, line + 1, n - 1)) {
        return bad(r, n % 2 == 0 ? "an odd number of hexadecimal digits" : "not a hexadecimal digit");
    }
    return DUMP_MORE;
}

/* DATA=END was read: nothing but empty lines may follow. */
static int read_rest(struct dump_reader *r)
{
    int got;
    while ((got = read_line(r)) == DUMP_MORE) {
        if (r->buffer.size != 0) {
            return bad(r, "something follows DATA=END (one database at a time: mdb_dump -s NAME)");
        }
    }
    return got;
}

int dump_read_pair(struct dump_reader *r, struct text *key, struct text *val)
{
    int got = read_line(r);
    if (got != DUMP_MORE) {
        return got == DUMP_END ? bad(r, "the input ends without DATA=END") : got;
    }
    if (strcmp((const char *)r->buffer.data, "DATA=END") == 0) {
        return read_rest(r);
    }
    if ((got = decode_line(r, key)) != DUMP_MORE) {
        return got;
    }
    /* One value a key: the second of two equal keys would silently replace the first. */
    if (r->duplicates) {
        if (r->previous.data != NULL && r->previous.size == key->size &&
            (key->size == 0 || memcmp(r->previous.data, key->data, key->size) == 0)) {
            return bad(r, "the same key again: a database with duplicates cannot be kept");
        }
        r->previous.size = 0;
        text_reserve(&r->previous, 1);
        text_append(&r->previous, key->data, key->size);
    }
    got = read_line(r);
    if (got != DUMP_MORE || strcmp((const char *)r->buffer.data, "DATA=END") == 0) {
        return got == DUMP_IO ? got : bad(r, "a key without a value");
    }
    return decode_line(r, val);
}

void dump_reader_release(struct dump_reader *r)
{
    text_release(&r->buffer);
    text_release(&r->previous);
}

void dump_write_header(FILE *f, bool print, uint64_t mapsize)
{
    fprintf(f, "VERSION=3\nformat=%s\ntype=btree\n", print ? "print" : "bytevalue");
    if (mapsize != 0) {
        fprintf(f, "mapsize=%llu\n", (unsigned long long)mapsize);
    }
    fputs("HEADER=END\n", f);
}

void dump_write_item(FILE *f, bool print, const void *data, size_t size, struct text *scratch)
{
    const unsigned char *p = data;
    scratch->size = 0;
    text_append(scratch, " ", 1);
    if (!print) {
        text_hex(scratch, p, size);
    }
    for (size_t i = 0; print && i < size; i++) {
        /* A backslash goes as \5c: every reader takes that, while mdb_load trips over some doubled ones. */
        if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\') {
            text_append(scratch, p + i, 1);
        } else {
            text_append(scratch, "\\", 1);
            text_hex(scratch, p + i, 1);
        }
    }
    text_append(scratch, "\n", 1);
    fwrite(scratch->data, 1, scratch->size, f);
}

void dump_write_end(FILE *f)
{
    fputs("DATA=END\n", f);
}
