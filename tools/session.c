/* session.c - a command's dealings with the world: opening and closing the database, signals, messages, exit
 * statuses.
 *
 * A killed command harms nobody, but the next opener then has to recover. So SIGINT, SIGTERM and SIGHUP only
 * interrupt the library's waits and the command's loops; the database is closed in order, and then the signal
 * is raised again. They are caught from open to close only: before that there is nothing to close. A reader
 * of our output that goes away (EPIPE) ends the command in the same way, quietly.
 */
#include "tool.h"

#include "base/errors.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- messages ---- */

static int exit_status(int status)
{
    switch (status) {
#define X(name, code, exit, text)                                                                            \
    case SHALE_##name: return exit;
        BASE_ERRORS(X)
#undef X
    default: return EX_SOFTWARE;
    }
}

static const char *hint(int status)
{
    static const struct {
        int status;
        const char *text;
    } hints[] = {
        {SHALE_BUSY,
         "try again, or allow more time with --wait; lockd status shows who holds the lock and who waits"},
        {SHALE_CORRUPT, "restore the directory from a copy, or save what can be read with shale repair"},
        {SHALE_INUSE, "do it outside lockd run, or without the shared lock"},
        {SHALE_MISMATCH, "use the version of shale that wrote it"},
        {SHALE_NODB, "put and load make one"},
        {SHALE_NOSPC, "free space on the device; nothing was written"},
        {SHALE_PANIC, "whether the last write is on disk is not known: read it back"},
        {SHALE_PERM, "check the owner and the mode of the directory and its files"},
        {SHALE_UNSUPPORTED, "use a directory on a local file system"},
    };
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        if (hints[i].status == status) {
            return hints[i].text;
        }
    }
    return NULL;
}

int tool_report(const struct tool *t, int status, const char *what)
{
    const char *why = shale_errmsg(), *todo = hint(status);
    size_t n = strlen(t->dir);
    if (strncmp(why, t->dir, n) == 0 && strncmp(why + n, ": ", 2) == 0) {
        why += n + 2; /* once is enough */
    }
    if (why[0] == '\0') {
        why = shale_strerror(status);
    }
    fprintf(stderr, "shale: %s: %s: %s", t->dir, what, why);
    fprintf(stderr, todo != NULL ? " (%s)\n" : "\n", todo);
    return exit_status(status);
}

int tool_complain(const struct tool *t, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "shale: %s: %s: ", t->dir, t->command);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

int tool_usage(const struct tool *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, t->command != NULL ? "shale %s: " : "shale: ", t->command);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, t->command != NULL ? " (shale %s --help)\n" : " (shale --help)\n", t->command);
    va_end(ap);
    return EX_USAGE;
}

/* ---- signals ---- */

static shale_db *volatile interruptible;
static volatile sig_atomic_t caught;

static void on_signal(int sig)
{
    shale_db *db = interruptible;
    caught = sig;
    if (db != NULL) {
        shale_interrupt(db);
    }
}

static void catch_signals(void (*handler)(int))
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction old, new = {.sa_handler = handler};
        /* What is ignored stays ignored: nohup. */
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(signals[i], &new, NULL);
        }
    }
}

bool tool_interrupted(void)
{
    return caught != 0;
}

void tool_catch_signals(struct tool *t)
{
    interruptible = t->db;
    catch_signals(on_signal);
}

/* ---- open, close ---- */

static int open_database(struct tool *t, enum tool_access access)
{
    int status = shale_open(t->dir, t->options, &t->db);
    if (status != SHALE_PERM || access != TOOL_READ) {
        return status;
    }
    /* May not write there: reading takes no more than read permission. The first text stays the better one if
     * this doesn't work either, but the library keeps the last; they name the same file or its neighbour. */
    int again = shale_options_set(t->options, "readonly", "1");
    return again == SHALE_OK ? shale_open(t->dir, t->options, &t->db) : again;
}

int tool_open(struct tool *t, enum tool_access access, const char *threads)
{
    struct stat st;
    bool missing = access == TOOL_WRITE && stat(t->dir, &st) != 0;
    int status = shale_options_set(t->options, "create", access == TOOL_WRITE ? "1" : "0");
    if (status == SHALE_OK && !t->options_given) {
        status = shale_options_set(t->options, "threads", threads);
    }
    if (status == SHALE_OK) {
        status = open_database(t, access);
    }
    if (status != SHALE_OK) {
        bool cannot_create = missing && (status == SHALE_PERM || status == SHALE_IO || status == SHALE_NODB);
        int code = tool_report(t, status, cannot_create ? "cannot create" : "cannot open");
        return cannot_create ? EX_CANTCREAT : code;
    }
    tool_catch_signals(t);
    return 0;
}

/* Flushes stdout and finds out whether everything was written. */
static int close_output(const struct tool *t, int status)
{
    errno = 0;
    bool broken = ferror(stdout) != 0;
    if (fclose(stdout) != 0 || broken) {
        if (errno != EPIPE && errno != 0) {
            tool_complain(t, EX_IOERR, "cannot write the output: %s", strerror(errno));
        } else if (errno == 0 && !broken) {
            tool_complain(t, EX_IOERR, "cannot write the output");
        }
        return status == 0 ? EX_IOERR : status;
    }
    return status;
}

int tool_close(struct tool *t, int status)
{
    interruptible = NULL;
    int closed = t->db != NULL ? shale_close(t->db) : SHALE_OK;
    t->db = NULL;
    if (closed != SHALE_OK) {
        int code = tool_report(t, closed, "cannot close");
        status = status == 0 ? code : status;
    }
    status = close_output(t, status);
    catch_signals(SIG_DFL);
    if (caught != 0) {
        raise(caught);
    }
    return status;
}

/* ---- data ---- */

/* One byte more than a value may have, so that the library can say that it is too big. */
#define STDIN_MOST ((UINT64_C(256) << 20) + 1)

static int read_stdin(const struct tool *t, struct text *out)
{
    static bool used;
    if (used) {
        return tool_usage(t, "standard input (-) can be read once");
    }
    used = true;
    while (out->size < STDIN_MOST) {
        text_reserve(out, 65536);
        size_t n = fread(out->data + out->size, 1, 65536, stdin);
        out->size += n;
        if (n == 0) {
            return ferror(stdin)
                       ? tool_complain(t, EX_IOERR, "cannot read standard input: %s", strerror(errno))
                       : 0;
        }
    }
    return 0;
}

int tool_bytes(const struct tool *t, const char *arg, struct text *out)
{
    text_reserve(out, 1);
    if (strcmp(arg, "-") == 0) {
        return read_stdin(t, out);
    }
    if (!t->hex) {
        text_string(out, arg);
        return 0;
    }
    return text_unhex(out, arg, strlen(arg)) ? 0
                                             : tool_usage(t, "not hexadecimal digits, two a byte: %s", arg);
}

bool tool_put(const struct text *out)
{
    if (out->size != 0) {
        fwrite(out->data, 1, out->size, stdout);
    }
    return ferror(stdout) == 0;
}
