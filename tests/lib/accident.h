/* accident.h - one closed database, with two levels of tables and records in the log, for accidents to happen
 * to.
 *
 * The accidents are done in the agent's absence, and the database is opened by the agent: a crash is the
 * agent's. The functions fail the running test. */
#ifndef TESTS_LIB_ACCIDENT_H
#define TESTS_LIB_ACCIDENT_H

#include "lib.h"

enum { TABLED = 400, LOGGED = 50 }; /* entries in tables, and in the log */

struct accident {
    char *dir;
    struct board *board;
    struct agent agent;
};
extern struct accident scene;

/* Fixtures of a test case. */
void scene_make(void);
void scene_clear(void);

const char *first_file(const char *suffix); /* valid until the next call */
const char *manifest_file(void);
uint64_t file_size(const char *name);
void lose(const char *name);
void cut(const char *name, uint64_t size);
void lose_state(void); /* as after a reboot: the next open is a cold one */

/* The open is refused with one of two statuses, the text names `what`, and nothing durable is touched. */
void refused(const char *status, const char *or_status, const char *what);
/* The open succeeds, so many entries are there and verify, and it can be written to. */
void sound(unsigned entries);

#endif
