/* logkit.h - what the tests of the log and of the memtable share: a fresh directory for every test, segments
 * and records with little ado, this program run again as another process that dies at a chosen mark. */
#ifndef TESTS_UNIT_LOGKIT_H
#define TESTS_UNIT_LOGKIT_H

#include "mem/filter.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define assert_ok(e)                                                                                         \
    do {                                                                                                     \
        int rc_ = (e);                                                                                       \
        ck_assert_msg(rc_ == SHALE_OK, "%s: %d: %s", #e, rc_, shale_errmsg());                               \
    } while (0)
#define assert_told(what)                                                                                    \
    ck_assert_msg(strstr(shale_errmsg(), (what)) != NULL, "\"%s\" does not name %s", shale_errmsg(), (what))

extern const unsigned char kit_uuid[16];
extern int kit_dirfd; /* the test's own directory */

/* The body of main: the agent when the program was started as one, else the suite. Exit status. */
int kit_main(int argc, char **argv, Suite *(*suite)(void),
             int (*agent)(const char *what, const char *argument));
/* A case of tests, each with a directory of its own. */
void kit_add(Suite *s, const char *name, const TTest *const *tests, size_t n);

static inline struct slice text(const char *s)
{
    return slice_make(s, strlen(s));
}
struct wal_segment *make_and_open(uint32_t number, uint64_t size);
/* Appends a record with one put (value.data NULL: a delete); returns where the next one goes. */
uint32_t append_one(struct wal_segment *seg, uint32_t at, uint64_t seq, struct slice key, struct slice value,
                    bool through_file);
/* Overwrites bytes of a file. */
void write_at(const char *name, const void *data, size_t size, uint64_t offset);

/* A segment, its index, and where the next record goes. */
#define SEQ_MAX (UINT64_MAX >> 8)
struct pair {
    struct wal_segment *seg;
    struct mem_index *mem;
    uint32_t at;
    uint64_t seq;
};
struct pair pair_make(uint64_t size, bool private); /* of segment 1 */
void pair_release(struct pair *p);                  /* demands a sound index */
/* A commit of one entry; value.data NULL: a delete. */
void pair_put(struct pair *p, struct slice key, struct slice value);
/* What a snapshot finds; NULL: nothing. */
void pair_expect(const struct pair *p, struct slice key, uint64_t seq, const char *value);

/* What lies in the directory; the name of one temporary file. */
struct names {
    unsigned files, tmps;
    char tmp[WAL_TMP_NAME_SIZE];
};
struct names names_there(void);
void sweep_all(void);

/* Another process: this program again, in the test's directory. */
struct agent {
    pid_t pid;
    int to, from;
};
struct agent agent_start(const char *what, const char *argument);
void agent_expect(const struct agent *a, char said);
int agent_end(struct agent *a);  /* closes its input, for which it may wait; returns the wait status */
int agent_kill(struct agent *a); /* SIGKILL */
/* In an agent: die at the n-th mark from now. */
void kit_die_at(unsigned n);

/* Lets the n-th call through the door go wrong (but for close, unlink and unmap), until kit_mend, which says
 * whether it came to that. */
void kit_break_call(unsigned n, int error);
bool kit_mend(void);

#endif
