/* lib.h - what every test of the database uses: Check, scratch directories, the oracle, agents, assertions
 * that show shale_errmsg(), and the main function's body. */
#ifndef TESTS_LIB_LIB_H
#define TESTS_LIB_LIB_H

#include "board.h"
#include "groups.h"
#include "oracle.h"
#include "proc.h"
#include "scratch.h"

#include <check.h>
#include <shale.h>
#include <stdio.h>
#include <stdlib.h>

#define AGENT_ARGUMENT "--be-an-agent"

/* The body of a test program's main: an agent when it was started as one, else the suite. Exit status. */
int test_run(int argc, char **argv, Suite *(*suite)(void));
int agent_main(int argc, char **argv);
/* SHALE_TEST_LONG=1: n times as much. */
unsigned test_times(unsigned n, unsigned n_long);
/* SHALE_TEST_SEED, else fixed; printed by the test that uses it. */
uint64_t test_seed(uint64_t seed);

#define assert_ok(e)                                                                                         \
    do {                                                                                                     \
        int rc_ = (e);                                                                                       \
        ck_assert_msg(rc_ == SHALE_OK, "%s: %s: %s", #e, shale_errname(rc_), shale_errmsg());                \
    } while (0)
#define assert_status(e, want)                                                                               \
    do {                                                                                                     \
        int rc_ = (e), want_ = (want);                                                                       \
        ck_assert_msg(rc_ == want_, "%s: %s instead of %s: %s", #e, shale_errname(rc_),                      \
                      shale_errname(want_), rc_ == SHALE_OK ? "" : shale_errmsg());                          \
    } while (0)
/* The thread's last failure names what. */
#define assert_told(what)                                                                                    \
    ck_assert_msg(strstr(shale_errmsg(), (what)) != NULL, "\"%s\" does not name %s", shale_errmsg(), (what))

/* ---- short forms, NUL-terminated keys and values; each demands success ---- */

/* Small everything, threads 0, not synced. */
shale_options small_options(void);
shale_db *open_small(const char *dir);
shale_db *open_with(const char *dir, const shale_options *o);
void put(shale_db *db, const char *key, const char *value);
void del(shale_db *db, const char *key);
/* Compares; value NULL: not there. */
void expect(shale_db *db, const shale_snapshot *snap, const char *key, const char *value);
uint64_t stat_of(shale_db *db, size_t offset);
#define STAT(db, field) stat_of((db), offsetof(shale_stats, field))
/* Every entry by a forward and a backward scan: their number, which must be the same. */
size_t count_entries(shale_db *db, const shale_snapshot *snap);

#endif
