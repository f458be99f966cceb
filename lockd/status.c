/* status.c - lockd status: who holds, who waits, and what has happened, for people or (--json) for programs.
 */
#include "lockd.h"

#include <stdio.h>
#include <stdlib.h>

struct status {
    const struct request *r;
    shale_lockq *q;
    unsigned shown, rank;
    char lock[256]; /* whose lines are being printed */
};

/* Is it UTF-8? Anything else is printed byte by byte. */
static bool is_utf8(const char *text)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    while (*p != '\0') {
        unsigned more = *p < 0x80 ? 0 : *p < 0xc0 ? 4 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf5 ? 3 : 4;
        if (more == 4) {
            return false;
        }
        uint32_t c = more == 0 ? *p : *p & (0x3fu >> more);
        unsigned left = more;
        for (p++; left > 0; left--, p++) {
            if ((*p & 0xc0) != 0x80) {
                return false;
            }
            c = c << 6 | (*p & 0x3fu);
        }
        if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
            return false;
        }
    }
    return true;
}

static void print_json_text(const char *key, const char *text)
{
    bool utf8 = is_utf8(text);
    (void)printf("\"%s\":\"", key);
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            (void)printf("\\%c", *p);
        } else if (*p < ' ' || (*p >= 0x80 && !utf8)) {
            (void)printf("\\u%04x", *p);
        } else {
            (void)putchar(*p);
        }
    }
    (void)putchar('"');
}

static void print_json(const shale_ticket *t)
{
    (void)printf(
        "{\"holder\":%s,\"exclusive\":%s,\"stopped\":%s,\"number\":%llu,\"pid\":%lld,\"pid_ns\":%llu,"
        "\"start_time\":%llu,\"since_ns\":%llu,",
        t->holder ? "true" : "false", t->exclusive ? "true" : "false", t->stopped ? "true" : "false",
        (unsigned long long)t->number, (long long)t->pid, (unsigned long long)t->pid_ns,
        (unsigned long long)t->start_time, (unsigned long long)t->since_ns);
    print_json_text("lock", t->name);
    (void)putchar(',');
    print_json_text("program", t->program);
    (void)putchar(',');
    print_json_text("label", t->label);
    (void)puts("}");
}

static void print_lock(const char *name)
{
    char text[sizeof((struct status *)0)->lock];
    (void)snprintf(text, sizeof text, "%s", name[0] == '\0' ? "the write lock" : name);
    text_tame(text);
    (void)printf("%s: ", text);
}

static int print_text(struct status *s, const shale_ticket *t)
{
    struct buf who = {0};
    int rc = who_append(&who, t);
    s->rank = t->holder ? 0 : s->rank + 1;
    if (rc == SHALE_OK) {
        print_lock(t->name);
        if (t->holder) {
            (void)printf("held%s by ", t->exclusive ? "" : " shared");
        } else {
            (void)printf("waiter %u%s: ", s->rank, t->exclusive ? "" : " (shared)");
        }
        (void)printf("%.*s\n", (int)who.size, (const char *)who.data);
    }
    buf_release(&who);
    return rc;
}

static void print_totals(struct status *s, const char *name)
{
    shale_lock_stats t = {.size = sizeof t};
    if (shale_lockq_stat(s->q, name, &t) != SHALE_OK) {
        return;
    }
    if (s->r->json) {
        (void)putchar('{');
        print_json_text("lock", name);
        (void)printf(",\"totals\":{\"acquisitions\":%llu,\"waits\":%llu,\"timeouts\":%llu,\"reaped\":%llu,"
                     "\"skipped\":%llu,\"wait_ns_total\":%llu,\"wait_ns_max\":%llu}}\n",
                     (unsigned long long)t.acquisitions, (unsigned long long)t.waits,
                     (unsigned long long)t.timeouts, (unsigned long long)t.reaped,
                     (unsigned long long)t.skipped, (unsigned long long)t.wait_ns_total,
                     (unsigned long long)t.wait_ns_max);
        return;
    }
    double mean = t.waits > 0 ? (double)t.wait_ns_total / (double)t.waits / 1e9 : 0;
    print_lock(name);
    (void)printf(
        "%llu acquisitions, %llu waits (mean %.3f s, longest %.3f s), %llu timeouts, %llu dead, %llu "
        "passed\n",
        (unsigned long long)t.acquisitions, (unsigned long long)t.waits, mean, (double)t.wait_ns_max / 1e9,
        (unsigned long long)t.timeouts, (unsigned long long)t.reaped, (unsigned long long)t.skipped);
}

static int print_ticket(void *ctx, const shale_ticket *t)
{
    struct status *s = ctx;
    if (s->shown > 0 && strcmp(s->lock, t->name) != 0) {
        print_totals(s, s->lock);
        s->rank = 0;
    }
    (void)snprintf(s->lock, sizeof s->lock, "%s", t->name);
    s->shown++;
    if (s->r->json) {
        print_json(t);
        return 0;
    }
    return print_text(s, t);
}

static int print_once(const struct request *r, shale_lockq *q)
{
    struct status s = {.r = r, .q = q};
    if (r->target.name != NULL) {
        (void)snprintf(s.lock, sizeof s.lock, "%s", r->target.name);
    }
    int rc = shale_lockq_list(q, r->target.name, print_ticket, &s);
    if (rc != SHALE_OK) {
        complain("%s", shale_errmsg()); /* it begins with the directory */
        return err_exit_status(rc);
    }
    if (s.shown == 0 && !r->json) {
        (void)puts("nobody holds or waits");
    }
    print_totals(&s, s.lock);
    return flush_output();
}

/* Again and again, until a signal ends it or nobody reads any more. */
static int watch(const struct request *r, shale_lockq *q)
{
    bool terminal = !r->json && isatty(STDOUT_FILENO);
    int status;
    for (;;) {
        if (terminal) {
            (void)fputs("\033[H\033[2J", stdout);
        }
        status = print_once(r, q);
        if (status != 0) {
            return status;
        }
        os_nap(r->watch_ms * 1000000);
        if (!terminal && !r->json) {
            (void)putchar('\n');
        }
    }
}

int cmd_status(int argc, char **argv)
{
    struct request r;
    shale_lockq *q = NULL;
    int status = request_parse(argc, argv, CMD_STATUS, &r);
    if (status == 0 && r.rest_count > 0) {
        status = usage_error("status: one directory is needed");
    }
    if (status == 0) {
        status = open_queue(r.target.dir, &q);
    }
    if (status == 0) {
        status = r.watch_ms > 0 ? watch(&r, q) : print_once(&r, q);
    }
    shale_lockq_close(q);
    return status;
}
