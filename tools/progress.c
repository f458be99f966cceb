/* progress.c - see progress.h. */
#include "progress.h"
#include "tool.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void progress_start(struct progress *p, const char *label, bool asked)
{
    *p = (struct progress){.label = label, .on = asked || isatty(STDERR_FILENO) == 1, .started = now()};
}

void progress_show(struct progress *p, uint64_t done, uint64_t total, uint64_t records)
{
    int64_t t = p->on ? now() : 0;
    if (!p->on || t < p->next) {
        return;
    }
    p->next = t + 250 * 1000000;
    double seconds = (double)(t - p->started) / 1e9, mib = (double)done / (1 << 20);
    fprintf(stderr, "\r\033[K%s: ", p->label);
    if (total != 0) {
        fprintf(stderr, "%3.0f %%, %.1f of %.1f MiB", 100 * (double)done / (double)total, mib,
                (double)total / (1 << 20));
    } else {
        fprintf(stderr, "%.1f MiB", mib);
    }
    if (records != 0) {
        fprintf(stderr, ", %llu records", (unsigned long long)records);
    }
    if (seconds > 0.5) {
        fprintf(stderr, ", %.1f MiB/s", mib / seconds);
        if (total > done && done != 0) {
            fprintf(stderr, ", %.0f s left", seconds * (double)(total - done) / (double)done);
        }
    }
    fflush(stderr);
    p->drawn = true;
}

void progress_end(struct progress *p)
{
    if (p->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        p->drawn = false;
    }
}

int progress_callback(void *ctx, uint64_t done, uint64_t total)
{
    progress_show(ctx, done, total, 0);
    return tool_interrupted();
}
