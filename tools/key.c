/* key.c - keys as they are typed and printed: as they are, in hexadecimal digits, or with --tuple as tuples.
 * A key that is no tuple is then x"HH..", in both directions, so that every key in a database can be seen and
 * named. */
#include "tool.h"

#include <shale/tuple.h>
#include <stdio.h>
#include <string.h>

/* x"HH..": what is printed for a key that is no tuple. */
static bool is_raw(const char *arg)
{
    size_t n = strlen(arg);
    return n >= 3 && strncmp(arg, "x\"", 2) == 0 && arg[n - 1] == '"';
}

static int parse_tuple(const struct tool *t, const char *arg, struct text *out)
{
    shale_tuple *tuple = NULL;
    size_t len;
    int status = shale_tuple_create(&tuple);
    if (status == SHALE_OK) {
        status = shale_tuple_parse(arg, tuple, NULL);
    }
    if (status == SHALE_OK) {
        const void *packed = shale_tuple_data(tuple, &len);
        text_append(out, packed, len);
    }
    shale_tuple_destroy(tuple);
    return status == SHALE_INVALID ? tool_usage(t, "%.300s: %s", arg, shale_errmsg())
           : status != SHALE_OK    ? tool_report(t, status, "cannot read the key")
                                   : 0;
}

bool tool_is_tuple(const struct tool *t, const char *arg)
{
    return t->tuple && strcmp(arg, "-") != 0 && !is_raw(arg);
}

int tool_key(const struct tool *t, const char *arg, struct text *out)
{
    if (!t->tuple || strcmp(arg, "-") == 0) {
        return tool_bytes(t, arg, out);
    }
    text_reserve(out, 1);
    if (!is_raw(arg)) {
        return parse_tuple(t, arg, out);
    }
    return text_unhex(out, arg + 2, strlen(arg) - 3)
               ? 0
               : tool_usage(t, "not hexadecimal digits, two a byte, in x\"...\": %.300s", arg);
}

static void put_tuple(struct text *out, const void *data, size_t size)
{
    size_t need = 0;
    text_reserve(out, 2 * size + 32);
    int status = shale_tuple_format(data, size, (char *)out->data + out->size, out->cap - out->size, &need);
    if (status == SHALE_TOOBIG) {
        text_reserve(out, need + 1);
        status = shale_tuple_format(data, size, (char *)out->data + out->size, out->cap - out->size, &need);
    }
    if (status == SHALE_OK) {
        out->size += need;
        return;
    }
    text_string(out, "x\"");
    text_hex(out, data, size);
    text_string(out, "\"");
}

void tool_name_key(const struct tool *t, struct text *out, const void *data, size_t size)
{
    if (t->tuple) {
        put_tuple(out, data, size);
    } else {
        text_escape(out, data, size);
    }
}

void tool_put_field(const struct tool *t, struct text *out, const void *data, size_t size)
{
    if (t->json) {
        text_json(out, data, size);
    } else if (t->hex) {
        text_hex(out, data, size);
    } else {
        text_escape(out, data, size);
    }
}

void tool_put_key(const struct tool *t, struct text *out, const void *data, size_t size)
{
    struct text tuple = {0};
    if (t->tuple && t->json) {
        put_tuple(&tuple, data, size);
        text_json(out, tuple.data, tuple.size);
    } else if (t->tuple) {
        put_tuple(out, data, size);
    } else {
        tool_put_field(t, out, data, size);
    }
    text_release(&tuple);
}
