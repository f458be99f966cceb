/* cmd_kv.c - get, put, del: single keys. One short visit each: no maintenance thread, and a write may do a
 * bounded piece of flush or compaction work itself. */
#include "tool.h"

#include <stdio.h>

/* ---- get ---- */

static void format_value(const struct tool *t, const struct text *key, const shale_value *val,
                         struct text *out)
{
    out->size = 0;
    if (t->json) {
        text_string(out, "{\"key\":");
        tool_put_key(t, out, key->data, key->size);
        text_string(out, ",\"value\":");
        text_json(out, val->data, val->size);
        text_string(out, "}");
    } else if (t->hex) {
        text_hex(out, val->data, val->size);
    } else {
        text_append(out, val->data, val->size);
    }
    if (!t->no_newline || t->json) {
        text_string(out, "\n");
    }
}

static int get_one(struct tool *t, const shale_snapshot *snap, const struct text *key)
{
    struct text out = {0};
    shale_value val = {0};
    int result = 0, status = shale_get(t->db, snap, key->data, key->size, &val);
    if (status == SHALE_OK) {
        format_value(t, key, &val, &out);
        result = tool_put(&out) ? 0 : EX_IOERR;
    } else if (status == SHALE_NOTFOUND) {
        tool_name_key(t, &out, key->data, key->size);
        result = t->quiet ? EX_NOKEY
                          : tool_complain(t, EX_NOKEY, "no such key: %.*s",
                                          (int)(out.size < 200 ? out.size : 200), (const char *)out.data);
    } else {
        result = tool_report(t, status, "cannot read");
    }
    shale_value_release(&val);
    text_release(&out);
    return result;
}

int cmd_get(struct tool *t)
{
    struct text key = {0};
    shale_snapshot *snap = NULL;
    int result = tool_open(t, TOOL_READ, "0"), missing = 0;
    if (result != 0) {
        return result;
    }
    int status = t->nargs > 1 ? shale_snapshot_create(t->db, &snap) : SHALE_OK;
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot read");
    }
    for (int i = 0; i < t->nargs && result == 0 && !tool_interrupted(); i++) {
        key.size = 0;
        result = tool_key(t, t->args[i], &key);
        if (result == 0) {
            result = get_one(t, snap, &key);
        }
        if (result == EX_NOKEY) { /* the other keys are printed all the same */
            missing = EX_NOKEY;
            result = 0;
        }
    }
    shale_snapshot_release(snap);
    text_release(&key);
    return tool_close(t, result != 0 ? result : missing);
}

/* ---- put, del ---- */

int cmd_put(struct tool *t)
{
    struct text key = {0}, val = {0};
    /* The input first: nobody waits for us while we wait for it. */
    int result = tool_key(t, t->args[0], &key);
    if (result == 0) {
        result = tool_bytes(t, t->args[1], &val);
    }
    if (result == 0) {
        result = tool_open(t, TOOL_WRITE, "0");
    }
    if (result == 0) {
        int status = shale_put(t->db, key.data, key.size, val.data, val.size, 0);
        result = tool_close(t, status != SHALE_OK ? tool_report(t, status, "cannot write") : 0);
    }
    text_release(&key);
    text_release(&val);
    return result;
}

int cmd_del(struct tool *t)
{
    struct text key = {0};
    shale_batch *batch = NULL;
    int result = 0, status = shale_batch_create(&batch);
    for (int i = 0; i < t->nargs && result == 0 && status == SHALE_OK; i++) {
        key.size = 0;
        result = tool_key(t, t->args[i], &key);
        if (result == 0) {
            status = shale_batch_delete(batch, key.data, key.size);
        }
    }
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot delete");
    } else if (result == 0 && (result = tool_open(t, TOOL_MAINTAIN, "0")) == 0) {
        status = shale_write(t->db, batch, 0);
        result = tool_close(t, status != SHALE_OK ? tool_report(t, status, "cannot delete") : 0);
    }
    shale_batch_destroy(batch);
    text_release(&key);
    return result;
}
