/* options.c - the command line: one table of options, each row with the commands that take it.
 *
 * `run` stops at DIR, for what follows is another program's command line; the others take their options
 * anywhere. */
#include "lockd.h"

#include <getopt.h>
#include <stdlib.h>

#define TAKES_LOCK (CMD_RUN | CMD_LOCK | CMD_HOLD)
#define WAITS      (TAKES_LOCK | CMD_WAIT)
#define ALL        (WAITS | CMD_UNLOCK | CMD_DROP | CMD_STATUS)

enum { OPTION_FOR = 256, OPTION_JSON, OPTION_WATCH }; /* no letter */

static const struct row {
    const char *name; /* NULL: the letter alone */
    int letter, argument;
    unsigned commands;
} rows[] = {
    {"close", 'o', no_argument, CMD_RUN},
    {"command", 'c', required_argument, CMD_RUN},
    {"conflict-exit-code", 'E', required_argument, WAITS},
    {"exclusive", 'x', no_argument, TAKES_LOCK},
    {"for", OPTION_FOR, required_argument, CMD_HOLD},
    {"json", OPTION_JSON, no_argument, CMD_STATUS},
    {"label", 'l', required_argument, TAKES_LOCK},
    {"name", 'N', required_argument, ALL},
    {"no-fork", 'F', no_argument, CMD_RUN},
    {"nonblock", 'n', no_argument, WAITS},
    {"quiet", 'q', no_argument, WAITS},
    {"shared", 's', no_argument, TAKES_LOCK},
    {"timeout", 'w', required_argument, WAITS},
    {"verbose", 'v', no_argument, WAITS},
    {"watch", OPTION_WATCH, required_argument, CMD_STATUS},
};

static bool parse_seconds(const char *text, int64_t *ms)
{
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds >= 0 && seconds <= 1e9)) {
        return false;
    }
    *ms = (int64_t)(seconds * 1000.0 + 0.999);
    return true;
}

static bool parse_integer(const char *text, long least, long most, int64_t *out)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
        return false;
    }
    *out = value;
    return true;
}

static int parse_option(struct request *r, int c)
{
    int64_t code;
    switch (c) {
    case 'x': r->mode = SHALE_LOCK_EXCLUSIVE; return 0;
    case 's': r->mode = SHALE_LOCK_SHARED; return 0;
    case 'n': r->timeout_ms = 0; return 0;
    case 'o': r->close = true; return 0;
    case 'F': r->no_fork = true; return 0;
    case 'c': r->shell = optarg; return 0;
    case 'l': r->label = optarg; return 0;
    case 'N': r->target.name = optarg; return 0;
    case 'q': r->quiet = true; return 0;
    case 'v': r->verbose = true; return 0;
    case OPTION_JSON: r->json = true; return 0;
    case 'w':
        return parse_seconds(optarg, &r->timeout_ms)
                   ? 0
                   : usage_error("-w %s: a number of seconds is needed", optarg);
    case OPTION_WATCH:
        return parse_seconds(optarg, &r->watch_ms) && r->watch_ms > 0
                   ? 0
                   : usage_error("--watch %s: a number of seconds is needed", optarg);
    case OPTION_FOR:
        return parse_integer(optarg, 1, INT32_MAX, &r->for_pid)
                   ? 0
                   : usage_error("--for %s: a process's number is needed", optarg);
    case 'E':
        if (!parse_integer(optarg, 0, 255, &code)) {
            return usage_error("-E %s: 0 to 255 is needed", optarg);
        }
        r->conflict_status = (int)code;
        return 0;
    default: return EXIT_USAGE;
    }
}

/* What getopt did not like: it has moved past the argument, but not always past a word of several letters. */
static int option_error(const char *command, char **argv, int c)
{
    const char *word = argv[optind - 1];
    if (c == ':') {
        return usage_error("%s: %s needs a value", command, word);
    }
    if (optopt != 0 && optopt < OPTION_FOR && strncmp(word, "--", 2) != 0) {
        return usage_error("%s: there is no option -%c", command, optopt);
    }
    return usage_error("%s: there is no option %s", command, word);
}

static int parse_options(int argc, char **argv, enum command command, struct request *r)
{
    struct option longs[BASE_COUNT(rows) + 1] = {{0}};
    char letters[2 * BASE_COUNT(rows) + 3] = "+:", *l = letters + 1;
    size_t n = 0;
    if (command == CMD_RUN) {
        l++; /* "+:": stop at the first argument that is no option */
    } else {
        letters[0] = ':';
    }
    for (const struct row *row = rows; row < rows + BASE_COUNT(rows); row++) {
        if ((row->commands & command) != 0) {
            longs[n++] = (struct option){row->name, row->argument, NULL, row->letter};
            if (row->letter < OPTION_FOR) {
                *l++ = (char)row->letter;
                if (row->argument == required_argument) {
                    *l++ = ':';
                }
            }
        }
    }
    *l = '\0';
    int c, rc = 0;
    opterr = 0;
    while (rc == 0 && (c = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        rc = c == '?' || c == ':' ? option_error(argv[0], argv, c) : parse_option(r, c);
    }
    return rc;
}

/* Takes text apart in place; with -N it is the directory as it stands. */
static int parse_target(const char *command, char *text, struct target *t)
{
    t->dir = text;
    if (t->name == NULL) {
        char *slash = strrchr(text, '/');
        char *colon = strrchr(slash != NULL ? slash : text, ':');
        if (colon != NULL) {
            *colon = '\0';
            t->name = colon + 1;
        }
    }
    if (text[0] == '\0') {
        return usage_error("%s: a directory is needed", command);
    }
    size_t size = t->name != NULL ? strlen(t->name) : 1;
    return size >= 1 && size <= 255
               ? 0
               : usage_error("%s: a lock's name has 1 to 255 bytes, this one has %zu", command, size);
}

int request_parse(int argc, char **argv, enum command command, struct request *r)
{
    *r = (struct request){
        .mode = SHALE_LOCK_EXCLUSIVE, .conflict_status = EXIT_CONFLICT, .timeout_ms = -1, .watch_ms = -1};
    int rc = parse_options(argc, argv, command, r);
    if (rc != 0) {
        return rc;
    }
    if (optind >= argc) {
        return usage_error("%s: a directory is needed", argv[0]);
    }
    if (command == CMD_PATH) {
        r->target.dir = argv[optind];
    } else {
        rc = parse_target(argv[0], argv[optind], &r->target);
    }
    r->rest = argv + optind + 1;
    r->rest_count = argc - optind - 1;
    return rc;
}
