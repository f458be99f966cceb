/* cmd_stat.c - stat and who: what the shared state tells about the database and about those who have it open.
 */
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- stat ---- */

/* The counters in order of printing: field of shale_stats, kind (n number, B bytes, u microseconds), text. */
#define STATS(X)                                                                                             \
    X(keys_estimate, n, "keys, roughly")                                                                     \
    X(disk_bytes, B, "on disk")                                                                              \
    X(memtable_bytes, B, "in memtables")                                                                     \
    X(sealed_memtables, n, "sealed memtables")                                                               \
    X(seq, n, "sequence number")                                                                             \
    X(synced_seq, n, "synced up to")                                                                         \
    X(epoch, n, "epoch")                                                                                     \
    X(handles, n, "handles open")                                                                            \
    X(puts, n, "puts")                                                                                       \
    X(deletes, n, "deletes")                                                                                 \
    X(gets, n, "gets")                                                                                       \
    X(gets_found, n, "gets that found")                                                                      \
    X(seeks, n, "seeks")                                                                                     \
    X(commits, n, "commits")                                                                                 \
    X(fsyncs, n, "fdatasyncs of the log")                                                                    \
    X(stalls, n, "stalls")                                                                                   \
    X(stall_us, u, "time in stalls")                                                                         \
    X(queue_waits, n, "waits for the write lock")                                                            \
    X(queue_wait_us, u, "time in those waits")                                                               \
    X(queue_wait_max_us, u, "longest of them")                                                               \
    X(flushes, n, "flushes")                                                                                 \
    X(flush_bytes, B, "written by flushes")                                                                  \
    X(compactions, n, "compactions")                                                                         \
    X(compact_read_bytes, B, "read by compactions")                                                          \
    X(compact_write_bytes, B, "written by compactions")

static void print_number(char kind, uint64_t v)
{
    if (kind == 'B' && v >= 10240) {
        printf("%20" PRIu64 "  (%.1f MiB)\n", v, (double)v / (1 << 20));
    } else if (kind == 'u') {
        printf("%20.3f ms\n", (double)v / 1000);
    } else {
        printf("%20" PRIu64 "\n", v);
    }
}

static void stat_table(const shale_stats *s)
{
#define X(field, kind, text)                                                                                 \
    printf("%-26s", text);                                                                                   \
    print_number(*#kind, s->field);
    STATS(X)
#undef X
    printf("\n%-8s%10s%20s\n", "level", "tables", "bytes");
    for (int i = 0; i < 8; i++) {
        if (s->level_tables[i] != 0) {
            printf("L%-7d%10" PRIu64 "%20" PRIu64 "\n", i, s->level_tables[i], s->level_bytes[i]);
        }
    }
}

static void stat_json(const shale_stats *s)
{
    putchar('{');
#define X(field, kind, text) printf("\"%s\":%" PRIu64 ",", #field, (uint64_t)s->field);
    STATS(X)
#undef X
    printf("\"levels\":[");
    for (int i = 0; i < 8; i++) {
        printf("%s{\"tables\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", i != 0 ? "," : "", s->level_tables[i],
               s->level_bytes[i]);
    }
    printf("]}\n");
}

int cmd_stat(struct tool *t)
{
    shale_stats stats = {.size = sizeof stats};
    int result = tool_open(t, TOOL_READ, "0");
    if (result != 0) {
        return result;
    }
    int status = shale_stat(t->db, &stats);
    if (status != SHALE_OK) {
        result = tool_report(t, status, "cannot read the statistics");
    } else if (t->json) {
        stat_json(&stats);
    } else {
        stat_table(&stats);
    }
    return tool_close(t, result);
}

/* ---- who ---- */

struct who {
    const struct tool *t;
    struct text line;
    int peers;
};

static void format_time(uint64_t ns, char *out, size_t size)
{
    time_t seconds = (time_t)(ns / 1000000000);
    struct tm tm;
    if (localtime_r(&seconds, &tm) == NULL || strftime(out, size, "%Y-%m-%dT%H:%M:%S%z", &tm) == 0) {
        snprintf(out, size, "?");
    }
}

static void add_escaped(struct text *line, bool json, const char *s)
{
    s = s != NULL ? s : "";
    if (json) {
        text_json(line, s, strlen(s));
    } else {
        text_escape(line, s, strlen(s));
    }
}

static void who_json(struct who *w, const shale_peer *p, const char *since)
{
    char text[512];
    text_string(&w->line, "{\"program\":");
    add_escaped(&w->line, true, p->program);
    snprintf(text, sizeof text,
             ",\"pid\":%" PRId64 ",\"pid_ns\":%" PRIu64 ",\"since\":\"%s\",\"view_age_ms\":%" PRIu64
             ",\"puts\":%" PRIu64 ",\"gets\":%" PRIu64 ",\"flushes\":%" PRIu64 ",\"compactions\":%" PRIu64
             ",\"doing\":",
             p->pid, p->pid_ns, since, p->view_age_ms, p->puts, p->gets, p->flushes, p->compactions);
    text_string(&w->line, text);
    add_escaped(&w->line, true, p->doing);
    text_string(&w->line, "}\n");
}

static void who_table(struct who *w, const shale_peer *p, const char *since)
{
    char text[256];
    struct text program = {0};
    add_escaped(&program, false, p->program);
    if (w->peers == 0) {
        snprintf(text, sizeof text, "%8s %-16s %-24s %9s %12s %12s %8s %8s  %s\n", "PID", "PROGRAM", "SINCE",
                 "VIEW-MS", "PUTS", "GETS", "FLUSHES", "COMPACT", "DOING");
        text_string(&w->line, text);
    }
    snprintf(text, sizeof text,
             "%8" PRId64 " %-16.*s %-24s %9" PRIu64 " %12" PRIu64 " %12" PRIu64 " %8" PRIu64 " %8" PRIu64
             "  ",
             p->pid, (int)program.size, (const char *)program.data, since, p->view_age_ms, p->puts, p->gets,
             p->flushes, p->compactions);
    text_string(&w->line, text);
    add_escaped(&w->line, false, p->doing);
    text_string(&w->line, "\n");
    text_release(&program);
}

static int print_peer(void *ctx, const shale_peer *p)
{
    struct who *w = ctx;
    char since[40];
    if (p->pid == getpid() && strcmp(p->program, "shale") == 0) {
        return 0; /* this command's own handle */
    }
    w->line.size = 0;
    format_time(p->since_ns, since, sizeof since);
    if (w->t->json) {
        who_json(w, p, since);
    } else {
        who_table(w, p, since);
    }
    w->peers++;
    return tool_put(&w->line) ? 0 : 1;
}

int cmd_who(struct tool *t)
{
    struct who w = {.t = t};
    int result = tool_open(t, TOOL_READ, "0");
    if (result != 0) {
        return result;
    }
    int status = shale_who(t->db, print_peer, &w);
    if (status < 0) {
        result = tool_report(t, status, "cannot read who has it open");
    }
    text_release(&w.line);
    return tool_close(t, result);
}
