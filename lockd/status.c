/* status.c - lockd status: who holds and who waits, for people or (--json) for programs. */
#include "lockd.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct status {
    bool json;
    unsigned shown, rank;
};

/* Is it UTF-8? Anything else is printed byte by byte. */
static bool is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p != '\0') {
        unsigned more = *p < 0x80                 ? 0
                        : *p >= 0xc2 && *p < 0xe0 ? 1
                        : *p >= 0xe0 && *p < 0xf0 ? 2
                        : *p >= 0xf0 && *p < 0xf5 ? 3
                                                  : 4;
        if (more == 4) {
            return false;
        }
        for (p++; more > 0; more--, p++) {
            if ((*p & 0xc0) != 0x80) {
                return false;
            }
        }
    }
    return true;
}

static void print_json_text(const char *key, const char *text)
{
    bool utf8 = is_utf8(text);
    (void)printf(",\"%s\":\"", key);
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
        "\"start_time\":%llu,\"since_ns\":%llu",
        t->holder ? "true" : "false", t->exclusive ? "true" : "false", t->stopped ? "true" : "false",
        (unsigned long long)t->number, (long long)t->pid, (unsigned long long)t->pid_ns,
        (unsigned long long)t->start_time, (unsigned long long)t->since_ns);
    print_json_text("lock", t->name);
    print_json_text("program", t->program);
    print_json_text("label", t->label);
    (void)puts("}");
}

/* "cron-import (pid 4711) (stopped) since 12:03:04 (12.4 s), label "nightly"" */
static void print_who(const shale_ticket *t)
{
    char clock[16] = "?";
    struct tm tm;
    time_t seconds = (time_t)(t->since_ns / 1000000000u);
    if (t->pid == 0) {
        (void)fputs("another process", stdout); /* too new a waiter, or one that left no record */
        return;
    }
    if (localtime_r(&seconds, &tm) != NULL) {
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    }
    uint64_t now = os_wall();
    (void)printf("%s (pid %lld)%s since %s (%.1f s)", t->program, (long long)t->pid,
                 t->stopped ? " (stopped)" : "", clock,
                 now > t->since_ns ? (double)(now - t->since_ns) / 1e9 : 0.0);
    if (t->label[0] != '\0') {
        (void)printf(", label \"%s\"", t->label);
    }
}

static int print_ticket(void *ctx, const shale_ticket *t)
{
    struct status *s = ctx;
    s->shown++;
    if (s->json) {
        print_json(t);
        return 0;
    }
    s->rank = t->holder ? 0 : s->rank + 1;
    if (t->name[0] == '\0') {
        (void)fputs("the write lock: ", stdout);
    } else {
        (void)printf("%s: ", t->name);
    }
    if (t->holder) {
        (void)printf("held%s by ", t->exclusive ? "" : " shared");
    } else {
        (void)printf("waiter %u: ", s->rank);
    }
    print_who(t);
    (void)putchar('\n');
    return 0;
}

static int parse(int argc, char **argv, struct status *s, struct target *target)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
    int c;
    *s = (struct status){0};
    while ((c = getopt_long(argc, argv, OPTIONS_FIRST "", options, NULL)) != -1) {
        if (c != 'j') {
            return EXIT_USAGE;
        }
        s->json = true;
    }
    if (optind + 1 != argc) {
        return usage_error("status: one directory is needed");
    }
    target_parse(argv[optind], target);
    return 0;
}

int cmd_status(int argc, char **argv)
{
    struct status s;
    struct target target;
    shale_lockq *q = NULL;
    int status = parse(argc, argv, &s, &target);
    if (status != 0) {
        return status;
    }
    int rc = shale_lockq_open(target.dir, 0600, &q);
    if (rc != SHALE_OK) {
        complain("%s", shale_errmsg());
        return err_exit_status(rc);
    }
    rc = shale_lockq_list(q, target.name, print_ticket, &s);
    shale_lockq_close(q);
    if (rc != SHALE_OK) {
        return failure(target.dir, rc);
    }
    if (s.shown == 0 && !s.json) {
        (void)puts("nobody holds or waits");
    }
    return fflush(stdout) == 0 ? 0 : EXIT_SYSTEM;
}
