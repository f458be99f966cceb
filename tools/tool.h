/* tool.h - the command-line tool `shale`: what its files share.
 *
 *   main.c       the table of commands, the table of options, help
 *   session.c    opening and closing, signals, messages and exit statuses
 *   cmd_*.c      the commands
 *   key.c        keys, as they are typed and printed
 *   text.c       hexadecimal, JSON, escapes       dumpfile.c   the dump format       progress.c   the
 * progress line
 *
 * stdout is data, stderr is messages. A command returns an exit status: 0, 1 (no such key) or one of
 * sysexits.h; the status that goes with a failure of the library comes from the library's own table of
 * errors.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include "text.h"

#include <shale.h>
#include <stdint.h>
#include <sysexits.h>

enum { EX_NOKEY = 1 };

struct range_arg {
    bool given, tuple; /* tuple: the bytes are one, packed */
    struct text bytes;
};

struct tool {
    const char *command;
    const char *dir;
    char **args; /* behind DIR */
    int nargs;
    shale_options *options;
    bool options_given; /* -o threads=...: the command's own choice gives way */
    bool hex, json, tuple, keys_only, reverse, no_newline, quiet, progress, print, durable, mapsize;
    struct range_arg prefix, from, to;
    const char *into;
    uint64_t limit;
    shale_db *db;
};

/* ---- session.c ---- */

enum tool_access { TOOL_READ, TOOL_WRITE, TOOL_MAINTAIN };
/* READ: an existing database, read-only where that is all that is permitted. WRITE: made if missing.
 * MAINTAIN: existing, read-write. threads: what options.threads shall be unless -o said so. Reports, and
 * returns an exit status. */
int tool_open(struct tool *t, enum tool_access access, const char *threads);
/* Closes; keeps the exit status unless it is 0 and closing or writing to stdout went wrong. A signal that
 * ended the command is raised again, so that a calling shell sees it. */
int tool_close(struct tool *t, int status);
bool tool_interrupted(void);
/* tool_open does it; for long work without a handle. tool_close ends it. */
void tool_catch_signals(struct tool *t);

/* "shale: DIR: what: why (what to do)" from the library's status; returns the exit status that goes with it.
 */
int tool_report(const struct tool *t, int status, const char *what);
/* The same in our own words; returns status. */
int tool_complain(const struct tool *t, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int tool_usage(const struct tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The bytes that an argument stands for: itself, hexadecimal digits with --hex, or standard input where it is
 * "-". */
int tool_bytes(const struct tool *t, const char *arg, struct text *out);
/* Writes to stdout; false once stdout is broken (tool_close reports it). */
bool tool_put(const struct text *out);

/* ---- key.c ---- */

/* As tool_bytes, but with --tuple the packed bytes of the tuple that the text is, or those of x"HH..". */
int tool_key(const struct tool *t, const char *arg, struct text *out);
bool tool_is_tuple(const struct tool *t, const char *arg);
/* Appends a value, or a key, as scan prints it: escaped, with --hex or --json; a key with --tuple as a tuple.
 */
void tool_put_field(const struct tool *t, struct text *out, const void *data, size_t size);
void tool_put_key(const struct tool *t, struct text *out, const void *data, size_t size);
/* As messages name a key. */
void tool_name_key(const struct tool *t, struct text *out, const void *data, size_t size);

/* ---- the commands ---- */
int cmd_get(struct tool *t);
int cmd_put(struct tool *t);
int cmd_del(struct tool *t);
int cmd_scan(struct tool *t);
int cmd_load(struct tool *t);
int cmd_dump(struct tool *t);
int cmd_stat(struct tool *t);
int cmd_who(struct tool *t);
int cmd_verify(struct tool *t);
int cmd_compact(struct tool *t);
int cmd_checkpoint(struct tool *t);
int cmd_repair(struct tool *t);

#endif
