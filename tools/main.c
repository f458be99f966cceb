/* main.c - shale COMMAND DIR [ARG...]: the commands and the options, each in one table, from which help,
 * parsing and checking come. */
#include "tool.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
    const char *name, *args;
    int least, most; /* arguments behind DIR */
    int (*run)(struct tool *t);
    const char *help;
};

#define ANY 1000000
static const struct command commands[] = {
    {"get", "KEY...", 1, ANY, cmd_get, "print the values of keys, each and a newline"},
    {"put", "KEY VALUE", 2, 2, cmd_put, "store a value; makes the database if there is none"},
    {"del", "KEY...", 1, ANY, cmd_del, "delete keys, all in one step"},
    {"scan", "", 0, 0, cmd_scan, "print keys and values in order of the keys, KEY<tab>VALUE"},
    {"load", "[FILE]", 0, 1, cmd_load, "store what a dump holds; makes the database if there is none"},
    {"dump", "", 0, 0, cmd_dump, "print everything in the format of mdb_dump and db_dump"},
    {"stat", "", 0, 0, cmd_stat, "print sizes and counters"},
    {"who", "", 0, 0, cmd_who, "print who has it open, and what they are doing"},
    {"verify", "", 0, 0, cmd_verify, "read and check every byte of every durable file"},
    {"compact", "", 0, 0, cmd_compact, "merge everything down to one sorted run a level"},
    {"checkpoint", "NEW", 1, 1, cmd_checkpoint, "make a consistent copy in a new directory, by hard links"},
    {"repair", "--into NEW", 0, 0, cmd_repair, "save what can be read of a damaged one as a new one"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

enum { F_PREFIX = 256, F_FROM, F_TO, F_PROGRESS, F_DURABLE, F_INTO, F_MAPSIZE };
struct flag {
    const char *name;
    int code; /* the short form, or one of the above */
    const char *arg;
    const char *in; /* " get put ": the commands that take it; NULL: all */
    const char *help;
};
static const struct flag flags[] = {
    {"durable", F_DURABLE, NULL, " load ", "sync each batch (else once, at the end)"},
    {"from", F_FROM, "KEY", " scan compact ", "from this key on"},
    {"help", 'h', NULL, NULL, "this text"},
    {"hex", 'x', NULL, " get put del scan compact ", "keys and values as hexadecimal digits, in and out"},
    {"into", F_INTO, "NEW", " repair ", "the new directory"},
    {"json", 'j', NULL, " get scan stat who ",
     "one JSON object a line; {\"b64\": ...} where the bytes are not UTF-8"},
    {"keys-only", 'k', NULL, " scan ", "keys without values"},
    {"limit", 'l', "N", " scan ", "N records at most"},
    {"mapsize", F_MAPSIZE, NULL, " dump ", "with the header line that mdb_load needs for more than 1 MiB"},
    {"no-newline", 'n', NULL, " get ", "nothing behind a value"},
    {"option", 'o', "NAME=VALUE", NULL, "any option of the library: -o memtable_bytes=16M"},
    {"prefix", F_PREFIX, "KEY", " scan ", "keys that begin so"},
    {"print", 'p', NULL, " dump ", "printable characters as they are"},
    {"progress", F_PROGRESS, NULL, " load dump verify compact checkpoint repair ",
     "a progress line even where stderr is no terminal"},
    {"quiet", 'q', NULL, " get verify compact checkpoint repair ", "no text for a missing key; no summary"},
    {"reverse", 'r', NULL, " scan ", "last key first"},
    {"to", F_TO, "KEY", " scan compact ", "up to this key, without it"},
    {"tuple", 't', NULL, " get put del scan compact ",
     "keys are tuples: (\"user\", 42, null, b\"\\x00\", 1.5d)"},
    {"version", 'V', NULL, NULL, "print the version"},
    {"wait", 'w', "SECS", NULL, "wait so long for others at most (0: not at all; the default: for ever)"},
};
#define FLAGS (sizeof flags / sizeof flags[0])

static bool takes(const char *command, const struct flag *f)
{
    char word[32];
    snprintf(word, sizeof word, " %s ", command);
    return f->in == NULL || strstr(f->in, word) != NULL;
}

/* ---- help ---- */

static void print_flags(const char *command)
{
    for (size_t i = 0; i < FLAGS; i++) {
        if (command == NULL ? flags[i].in != NULL : !takes(command, &flags[i])) {
            continue;
        }
        char text[48], brief[4] = {'-', (char)flags[i].code, ',', '\0'};
        snprintf(text, sizeof text, "%3s --%s%s%s", flags[i].code < 256 ? brief : "", flags[i].name,
                 flags[i].arg != NULL ? " " : "", flags[i].arg != NULL ? flags[i].arg : "");
        printf("  %-26s %s\n", text, flags[i].help);
    }
}

static int print_help(const struct command *c)
{
    if (c != NULL) {
        printf("usage: shale %s DIR %s%s[OPTION...]\n%s\n\n", c->name, c->args, c->args[0] != '\0' ? " " : "",
               c->help);
        print_flags(c->name);
        if (c->args[0] == 'K') {
            printf("\nA KEY or VALUE - is read from standard input, to its end, as it is.\n");
        }
        return 0;
    }
    printf("usage: shale COMMAND DIR [ARG...] [OPTION...]\nAn ordered key-value store that several processes "
           "share.\n\n");
    for (size_t i = 0; i < COMMANDS; i++) {
        printf("  %-10s %-12s %s\n", commands[i].name, commands[i].args, commands[i].help);
    }
    printf("\nEvery command:\n");
    print_flags(NULL);
    printf("\nshale COMMAND --help tells a command's options. Exit status: 0 done, 1 no such key, 64 usage,\n"
           "65 damaged, 66 no database, 70 a bug, 71 system, 73 cannot create or no space, 74 input/output,\n"
           "75 busy, 77 permission, 78 other version or unsupported.\n");
    return 0;
}

/* ---- options ---- */

static int set_option(struct tool *t, const char *arg)
{
    const char *equals = strchr(arg, '=');
    char name[64];
    if (equals == NULL || equals == arg || (size_t)(equals - arg) >= sizeof name) {
        return tool_usage(t, "-o takes NAME=VALUE, not %s", arg);
    }
    memcpy(name, arg, (size_t)(equals - arg));
    name[equals - arg] = '\0';
    if (shale_options_set(t->options, name, equals + 1) != SHALE_OK) {
        return tool_usage(t, "-o %s: %s", arg, shale_errmsg());
    }
    t->options_given = t->options_given || strcmp(name, "threads") == 0;
    return 0;
}

static int set_wait(struct tool *t, const char *arg)
{
    char *end, ms[32];
    double seconds = strtod(arg, &end);
    if (end == arg || *end != '\0' || !(seconds >= 0 && seconds < 1e12)) {
        return tool_usage(t, "--wait takes seconds, not %s", arg);
    }
    snprintf(ms, sizeof ms, "%lld",
             (long long)(seconds * 1000 + 0.999)); /* up: 0.0001 s is not "not at all" */
    return shale_options_set(t->options, "timeout_ms", ms) == SHALE_OK
               ? 0
               : tool_usage(t, "--wait: %s", shale_errmsg());
}

static int set_limit(struct tool *t, const char *arg)
{
    char *end;
    unsigned long long n = strtoull(arg, &end, 10);
    if (arg[0] < '0' || arg[0] > '9' || *end != '\0') {
        return tool_usage(t, "--limit takes a number, not %s", arg);
    }
    t->limit = n;
    return 0;
}

/* Keys are kept as typed until --hex and --tuple are known. */
struct raw_keys {
    const char *prefix, *from, *to;
};

static int set_flag(struct tool *t, int code, const char *arg, struct raw_keys *raw)
{
    switch (code) {
    case 'x': t->hex = true; break;
    case 'j': t->json = true; break;
    case 'k': t->keys_only = true; break;
    case 'n': t->no_newline = true; break;
    case 'p': t->print = true; break;
    case 'q': t->quiet = true; break;
    case 'r': t->reverse = true; break;
    case 't': t->tuple = true; break;
    case F_PROGRESS: t->progress = true; break;
    case F_DURABLE: t->durable = true; break;
    case F_MAPSIZE: t->mapsize = true; break;
    case F_INTO: t->into = arg; break;
    case F_PREFIX: raw->prefix = arg; break;
    case F_FROM: raw->from = arg; break;
    case F_TO: raw->to = arg; break;
    case 'l': return set_limit(t, arg);
    case 'w': return set_wait(t, arg);
    case 'o': return set_option(t, arg);
    default: return EX_SOFTWARE;
    }
    return 0;
}

static int parse_range(struct tool *t, const char *arg, struct range_arg *out)
{
    out->given = arg != NULL;
    out->tuple = arg != NULL && tool_is_tuple(t, arg);
    return arg != NULL ? tool_key(t, arg, &out->bytes) : 0;
}

/* The tables in getopt's form. A leading ':' makes it tell a missing argument from an unknown option. */
static void getopt_tables(struct option *longs, char *shorts)
{
    *shorts++ = ':';
    for (size_t i = 0; i < FLAGS; i++) {
        longs[i] = (struct option){flags[i].name, flags[i].arg != NULL, NULL, flags[i].code};
        if (flags[i].code < 256) {
            *shorts++ = (char)flags[i].code;
            if (flags[i].arg != NULL) {
                *shorts++ = ':';
            }
        }
    }
    *shorts = '\0';
    longs[FLAGS] = (struct option){0};
}

static const struct flag *find_flag(int code)
{
    size_t i = 0;
    while (i < FLAGS - 1 && flags[i].code != code) {
        i++;
    }
    return &flags[i];
}

/* -1: go on; else the exit status. */
static int parse(struct tool *t, const struct command *c, int argc, char **argv)
{
    struct option longs[FLAGS + 1];
    char shorts[2 * FLAGS + 2];
    struct raw_keys raw = {NULL, NULL, NULL};
    int code, status = 0;
    getopt_tables(longs, shorts);
    opterr = 0;
    while (status == 0 && (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        if (code == '?' || code == ':') {
            const char *what = code == ':' ? "needs an argument" : "no such option (-- ends the options)";
            return tool_usage(t, "%s: %s", argv[optind - 1], what);
        }
        if (code == 'h' || code == 'V') {
            return code == 'h' ? print_help(c) : printf("shale %s\n", shale_version()) < 0;
        }
        if (c != NULL && !takes(c->name, find_flag(code))) {
            return tool_usage(t, "--%s is not an option of %s", find_flag(code)->name, c->name);
        }
        status = set_flag(t, code, optarg, &raw);
    }
    if (status == 0) {
        status = parse_range(t, raw.prefix, &t->prefix);
    }
    if (status == 0) {
        status = parse_range(t, raw.from, &t->from);
    }
    if (status == 0) {
        status = parse_range(t, raw.to, &t->to);
    }
    return status == 0 ? -1 : status;
}

static int run(struct tool *t, const struct command *c, int argc, char **argv)
{
    int status = parse(t, c, argc, argv);
    if (status >= 0) {
        return status;
    }
    t->nargs = argc - optind - 1;
    if (t->nargs < 0) {
        return tool_usage(t, "which directory?");
    }
    t->dir = argv[optind];
    t->args = argv + optind + 1;
    if (t->nargs < c->least || t->nargs > c->most) {
        return tool_usage(t, "takes DIR %s, not %d argument%s behind DIR",
                          c->args[0] != '\0' ? c->args : "alone", t->nargs, t->nargs == 1 ? "" : "s");
    }
    if (t->hex && t->json) {
        return tool_usage(t, "--hex or --json, not both");
    }
    return c->run(t);
}

int main(int argc, char **argv)
{
    struct tool t = {.limit = UINT64_MAX};
    const struct command *c = NULL;
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        return tool_usage(&t, "which command?");
    }
    if (shale_options_create(&t.options) != SHALE_OK) {
        t.dir = argv[1];
        return tool_report(&t, SHALE_NOMEM, "options");
    }
    for (size_t i = 0; i < COMMANDS; i++) {
        c = strcmp(argv[1], commands[i].name) == 0 ? &commands[i] : c;
    }
    int status;
    if (c != NULL) {
        t.command = c->name;
        status = run(&t, c, argc - 1, argv + 1);
    } else if (argv[1][0] == '-') {
        status = parse(&t, NULL, argc, argv);
        status = status < 0 ? tool_usage(&t, "options go behind the command") : status;
    } else {
        status = tool_usage(&t, "%s: no such command", argv[1]);
    }
    shale_options_destroy(t.options);
    text_release(&t.prefix.bytes);
    text_release(&t.from.bytes);
    text_release(&t.to.bytes);
    return status;
}
