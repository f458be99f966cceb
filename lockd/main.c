/* main.c - lockd: locks between processes for shell scripts. */
#include "lockd.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MOST 2000

static const char usage_text[] =
    "usage: lockd run [OPTION...] DIR[:NAME] [--] CMD [ARG...]    runs CMD under the lock\n"
    "       lockd lock [OPTION...] DIR[:NAME] FD       takes it on a descriptor: exec 9<>DIR/LOCK\n"
    "       lockd unlock [-N NAME] DIR[:NAME] FD\n"
    "       lockd hold [OPTION...] --for PID DIR[:NAME]    keeps it in the background while PID lives,\n"
    "                                                  prints its number\n"
    "       lockd drop [-N NAME] DIR[:NAME] NUMBER     lets it go\n"
    "       lockd status [--json] [--watch SECS] DIR[:NAME]    who holds, who waits, totals\n"
    "       lockd wait [OPTION...] DIR[:NAME]          until it is free\n"
    "       lockd path DIR                             the file to open\n"
    "       lockd --help | --version\n"
    "\n"
    "Without NAME: the write lock of the database in DIR; shale commands inside CMD write under it.\n"
    "\n"
    "  -x, --exclusive          the default\n"
    "  -s, --shared             with other sharers; on the write lock: no writes meanwhile\n"
    "  -n, --nonblock           do not wait\n"
    "  -w, --timeout SECS       wait at most so long\n"
    "  -E, --conflict-exit-code CODE   exit status when the lock is not had (75)\n"
    "  -N, --name NAME          the lock's name; DIR is then taken as it stands\n"
    "  -l, --label LABEL        shown to others (run: CMD)\n"
    "  -q, --quiet              nothing on stderr when the lock is not had\n"
    "  -v, --verbose            say what is waited for, and what was had\n"
    "run:\n"
    "  -o, --close              do not hand the lock to CMD\n"
    "  -F, --no-fork            become CMD; the lock ends with it and its heirs\n"
    "  -c, --command STRING     instead of CMD: sh -c STRING\n";

void complain(const char *fmt, ...)
{
    char text[TEXT_MOST];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    text_tame(text);                            /* names and labels are anybody's */
    (void)fprintf(stderr, "lockd: %s\n", text); /* one write: a line stays whole beside others' */
}

int usage_error(const char *fmt, ...)
{
    char text[TEXT_MOST];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    complain("%s (lockd --help)", text);
    return EXIT_USAGE;
}

int failure(const char *where, int rc)
{
    const char *text = shale_errmsg();
    complain("%s: %s", where, text[0] != '\0' ? text : shale_strerror(rc));
    return err_exit_status(rc);
}

int open_queue(const char *dir, shale_lockq **q)
{
    int rc = shale_lockq_open(dir, 0600, q);
    if (rc != SHALE_OK) {
        complain("%s", shale_errmsg()); /* it begins with the directory */
        return err_exit_status(rc);
    }
    return 0;
}

int flush_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return 0;
    }
    if (errno != EPIPE) { /* a reader that went away is no news */
        complain("standard output: %s", strerror(errno));
    }
    return EXIT_OUTPUT;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"drop", cmd_drop}, {"hold", cmd_hold},     {"lock", cmd_lock},     {"path", cmd_path},
                    {"run", cmd_run},   {"status", cmd_status}, {"unlock", cmd_unlock}, {"wait", cmd_wait}};

    (void)signal(SIGPIPE, SIG_IGN); /* nobody reads what we say: no reason to leave CMD alone */
    (void)os_fill_standard();       /* or a pipe, an event, a door would be what we print to */
    if (argc < 2) {
        return usage_error("a command is needed");
    }
    const char *next = argc > 2 ? argv[2] : "";
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(next, "--help") == 0) {
        (void)fputs(usage_text, stdout);
        return flush_output();
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("lockd %s\n", shale_version());
        return flush_output();
    }
    for (size_t i = 0; i < BASE_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return usage_error("there is no command \"%s\"", argv[1]);
}
