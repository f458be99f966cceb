/* cmd_scan.c - scan: keys and values in order, one record a line. What is printed is one moment of the
 * database, however long the printing takes. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

/* The first key behind a tuple and all that extend it is the tuple and a byte ff. Its bytes alone are no
 * bound: those of ("a") also begin the key of a longer string, "a" and a NUL. */
static void bound_tuple(struct tool *t)
{
    struct text end = {0};
    text_append(&end, t->prefix.bytes.data, t->prefix.bytes.size);
    text_append(&end, "\377", 1);
    struct text *to = &t->to.bytes;
    size_t n = to->size < end.size ? to->size : end.size;
    int c = t->to.given && n != 0 ? memcmp(to->data, end.data, n) : 0;
    if (t->to.given && (c < 0 || (c == 0 && to->size <= end.size))) {
        text_release(&end);
        return;
    }
    text_release(to);
    t->to = (struct range_arg){.given = true, .bytes = end};
}

static int open_range(struct tool *t, shale_iter **it)
{
    shale_iter_options o;
    if (t->prefix.tuple) {
        bound_tuple(t);
    }
    shale_iter_options_init(&o);
    if (t->prefix.given) {
        o.prefix = t->prefix.bytes.data;
        o.prefixlen = t->prefix.bytes.size;
    }
    if (t->from.given) {
        o.lower = t->from.bytes.data;
        o.lowerlen = t->from.bytes.size;
    }
    if (t->to.given) {
        o.upper = t->to.bytes.data;
        o.upperlen = t->to.bytes.size;
    }
    o.keys_only = t->keys_only;
    o.no_fill_cache = true;
    return shale_iter_create(t->db, NULL, &o, it);
}

static void format_record(const struct tool *t, const shale_iter *it, struct text *out)
{
    size_t size;
    const void *data = shale_iter_key(it, &size);
    out->size = 0;
    text_string(out, t->json ? "{\"key\":" : "");
    tool_put_key(t, out, data, size);
    if (!t->keys_only) {
        text_string(out, t->json ? ",\"value\":" : "\t");
        data = shale_iter_value(it, &size);
        tool_put_field(t, out, data, size);
    }
    text_string(out, t->json ? "}\n" : "\n");
}

int cmd_scan(struct tool *t)
{
    struct text out = {0};
    shale_iter *it = NULL;
    int result = tool_open(t, TOOL_READ, "0");
    if (result != 0) {
        return result;
    }
    uint64_t left = t->limit;
    int status = open_range(t, &it);
    if (status == SHALE_OK) {
        status = t->reverse ? shale_iter_last(it) : shale_iter_first(it);
    }
    while (status == SHALE_OK && left-- != 0 && !tool_interrupted()) {
        format_record(t, it, &out);
        if (!tool_put(&out)) {
            break;
        }
        status = t->reverse ? shale_iter_prev(it) : shale_iter_next(it);
    }
    if (status != SHALE_OK && status != SHALE_NOTFOUND) {
        result = tool_report(t, status, "cannot read");
    }
    shale_iter_destroy(it);
    text_release(&out);
    return tool_close(t, result);
}
