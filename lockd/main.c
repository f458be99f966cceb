/* main.c - lockd: locks between processes for shell scripts. */
#include "lockd.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage_text[] =
    "usage: lockd run [-x|-s] [-n|-w SECS] [-E CODE] [-o] [-l LABEL] [-q|-v] DIR[:NAME] -- CMD [ARG...]\n"
    "       lockd status [--json] DIR[:NAME]\n"
    "       lockd --help | --version\n"
    "\n"
    "run     runs CMD while holding the lock NAME of the directory DIR; without NAME, the write lock of the\n"
    "        database in DIR, and the shale commands inside CMD write under it\n"
    "  -x, --exclusive          the default\n"
    "  -s, --shared             with other sharers; on the write lock: no writes meanwhile\n"
    "  -n, --nonblock           do not wait\n"
    "  -w, --timeout SECS       wait at most so long\n"
    "  -E, --conflict-exit-code CODE   exit status when the lock is not had (75)\n"
    "  -o, --close              do not hand the lock to CMD\n"
    "  -l, --label LABEL        shown to others (default: CMD)\n"
    "  -q, --quiet              nothing on stderr when the lock is not had\n"
    "  -v, --verbose            say what is waited for, and what was had\n"
    "status  who holds and who waits\n"
    "      --json               one object a line\n";

void complain(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("lockd: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

int usage_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)fputs("lockd: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputs(" (lockd --help)\n", stderr);
    va_end(args);
    return EXIT_USAGE;
}

int failure(const char *where, int rc)
{
    const char *text = shale_errmsg();
    complain("%s: %s", where, text[0] != '\0' ? text : shale_strerror(rc));
    return err_exit_status(rc);
}

void target_parse(char *text, struct target *t)
{
    char *slash = strrchr(text, '/');
    char *colon = strrchr(slash != NULL ? slash : text, ':');
    *t = (struct target){.dir = text};
    if (colon != NULL) {
        *colon = '\0';
        t->name = colon + 1;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {{"run", cmd_run}, {"status", cmd_status}};

    if (argc < 2) {
        return usage_error("a command is needed: run or status");
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        (void)fputs(usage_text, stdout);
        return fflush(stdout) == 0 ? 0 : EXIT_SYSTEM;
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void)printf("lockd %s\n", shale_version());
        return fflush(stdout) == 0 ? 0 : EXIT_SYSTEM;
    }
    for (size_t i = 0; i < BASE_COUNT(commands); i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    return usage_error("there is no command \"%s\"; there are run and status", argv[1]);
}
