/* progress.h - one line on stderr for long work, redrawn in place four times a second: on a terminal, or when
 * asked for. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *label; /* "verify" */
    bool on, drawn;
    int64_t started, next; /* CLOCK_MONOTONIC, ns */
};
void progress_start(struct progress *p, const char *label, bool asked);
/* total 0: not known. records: counted too, unless 0. */
void progress_show(struct progress *p, uint64_t done, uint64_t total, uint64_t records);
/* Wipes the line, so that what follows on stderr starts clean. */
void progress_end(struct progress *p);
/* A shale_progress callback; ctx is the struct progress. Cancels when a signal has come. */
int progress_callback(void *ctx, uint64_t done, uint64_t total);

#endif
