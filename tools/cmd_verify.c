/* cmd_verify.c - verify and compact: long work on the whole database, with a progress line. */
#include "progress.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>

struct work {
    struct progress progress;
    uint64_t done;
};

static int note_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct work *w = ctx;
    w->done = done;
    return progress_callback(&w->progress, done, total);
}

static uint64_t sum(const uint64_t v[8])
{
    uint64_t n = 0;
    for (int i = 0; i < 8; i++) {
        n += v[i];
    }
    return n;
}

int cmd_verify(struct tool *t)
{
    struct work w = {.done = 0};
    shale_stats stats = {.size = sizeof stats};
    int result = tool_open(t, TOOL_READ, "0");
    if (result != 0) {
        return result;
    }
    progress_start(&w.progress, "verify", t->progress);
    int status = shale_verify(t->db, note_progress, &w);
    progress_end(&w.progress);
    if (status == SHALE_OK) {
        status = shale_stat(t->db, &stats);
    }
    if (status != SHALE_OK) {
        result = tool_report(t, status, "damaged or unreadable");
    } else if (!t->quiet) {
        printf("no damage: %" PRIu64 " bytes checked: manifest, log, %" PRIu64 " tables (%" PRIu64
               " bytes)\n",
               w.done, sum(stats.level_tables), sum(stats.level_bytes));
    }
    return tool_close(t, result);
}

int cmd_compact(struct tool *t)
{
    struct work w = {.done = 0};
    shale_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    const struct text *lo = &t->from.bytes, *hi = &t->to.bytes;
    int result = tool_open(t, TOOL_MAINTAIN, "1");
    if (result != 0) {
        return result;
    }
    progress_start(&w.progress, "compact", t->progress);
    int status = shale_stat(t->db, &before);
    if (status == SHALE_OK) {
        status = shale_compact_range(t->db, t->from.given ? lo->data : NULL, lo->size,
                                     t->to.given ? hi->data : NULL, hi->size, note_progress, &w);
    }
    progress_end(&w.progress);
    if (status == SHALE_OK) {
        status = shale_stat(t->db, &after);
    }
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot compact");
    } else if (!t->quiet) {
        printf("compacted: %" PRIu64 " tables, %" PRIu64 " bytes, were %" PRIu64 " tables, %" PRIu64
               " bytes\n",
               sum(after.level_tables), sum(after.level_bytes), sum(before.level_tables),
               sum(before.level_bytes));
    }
    return tool_close(t, result);
}
