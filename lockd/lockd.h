/* lockd.h - the lock helper for shell scripts: one file a command. */
#ifndef LOCKD_LOCKD_H
#define LOCKD_LOCKD_H

#include "lockq/lockq.h"

#define EXIT_USAGE        64
#define EXIT_SYSTEM       71
#define EXIT_CONFLICT     75
#define EXIT_NOT_RUNNABLE 126
#define EXIT_NOT_FOUND    127
#define EXIT_SIGNAL(n)    (128 + (n))

/* DIR or DIR:NAME: the name follows the last ':' behind the last '/'. */
struct target {
    char *dir;
    const char *name; /* NULL: the write lock */
};
/* Takes text apart in place. */
void target_parse(char *text, struct target *t);

/* Prints "lockd: ..." to stderr. */
void complain(const char *fmt, ...) BASE_PRINTF(1, 2);
int usage_error(const char *fmt, ...) BASE_PRINTF(1, 2); /* 64 */
/* The exit status for a failure of the library, its text printed. */
int failure(const char *where, int rc);

/* argv[0] is the command's name. They return the exit status. */
int cmd_run(int argc, char **argv);
int cmd_status(int argc, char **argv);

/* Ends the program's options at the first argument that is none. */
#define OPTIONS_FIRST "+"

#endif
