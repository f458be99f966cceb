/* cmd_scan.c - scan: keys and values in order, one record a line. What is printed is one moment of the
 * database, however long the printing takes. */
#include "tool.h"

#include <stdio.h>

static int open_range(struct tool *t, shale_iter **it)
{
    shale_iter_options o;
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

static void format_field(const struct tool *t, struct text *out, const void *data, size_t size)
{
    if (t->json) {
        text_json(out, data, size);
    } else if (t->hex) {
        text_hex(out, data, size);
    } else {
        text_escape(out, data, size);
    }
}

static void format_record(const struct tool *t, const shale_iter *it, struct text *out)
{
    size_t size;
    const void *data = shale_iter_key(it, &size);
    out->size = 0;
    text_string(out, t->json ? "{\"key\":" : "");
    format_field(t, out, data, size);
    if (!t->keys_only) {
        text_string(out, t->json ? ",\"value\":" : "\t");
        data = shale_iter_value(it, &size);
        format_field(t, out, data, size);
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
