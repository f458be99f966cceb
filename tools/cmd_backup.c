/* cmd_backup.c - checkpoint and repair: another directory is made, and the first one stays as it is. */
#include "progress.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>

struct backup {
    struct progress progress;
    uint64_t done;
    uint64_t losses;
};

static int note_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct backup *b = ctx;
    b->done = done;
    return progress_callback(&b->progress, done, total);
}

int cmd_checkpoint(struct tool *t)
{
    struct backup b = {.done = 0};
    const char *into = t->args[0];
    int result = tool_open(t, TOOL_MAINTAIN, "0");
    if (result != 0) {
        return result;
    }
    progress_start(&b.progress, "checkpoint", t->progress);
    int status = shale_checkpoint(t->db, into, note_progress, &b);
    progress_end(&b.progress);
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot make the checkpoint");
    } else if (!t->quiet) {
        printf("checkpoint: %s: %" PRIu64 " bytes of tables and log\n", into, b.done);
    }
    return tool_close(t, result);
}

/* The library's lines: each loss is a warning, the sum at the end a note. */
static void note_line(void *ctx, int level, const char *line)
{
    struct backup *b = ctx;
    if (level <= 1) {
        b->losses++;
        progress_end(&b->progress);
        fprintf(stderr, "shale: %s\n", line);
    }
}

int cmd_repair(struct tool *t)
{
    struct backup b = {.done = 0};
    if (t->into == NULL) {
        return tool_usage(t, "--into NEW is missing: where is what can be saved to go?");
    }
    t->options->log = note_line;
    t->options->log_ctx = &b;
    tool_catch_signals(t);
    progress_start(&b.progress, "repair", t->progress);
    int result = 0, status = shale_repair(t->dir, t->into, t->options, note_progress, &b);
    progress_end(&b.progress);
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot repair");
    } else if (b.losses != 0) {
        result = tool_complain(t, EX_DATAERR, "%" PRIu64 " loss%s; everything else is in %s", b.losses,
                               b.losses == 1 ? "" : "es", t->into);
    } else if (!t->quiet) {
        printf("repaired: nothing is lost: %s: %" PRIu64 " bytes of keys and values\n", t->into, b.done);
    }
    return tool_close(t, result);
}
