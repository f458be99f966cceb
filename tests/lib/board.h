/* board.h - memory that a test and its agents share, outside the database: where the oracle lives.
 *
 * A file that the test makes and every agent maps. It carries, for each agent, the mark that it passed last
 * (so that a killer knows where its victim died) and whether it is parked there; and for each group of keys,
 * how far its writers have come. A SIGKILL takes nothing from it: a store that was made is there.
 */
#ifndef TESTS_LIB_BOARD_H
#define TESTS_LIB_BOARD_H

#include "os/os.h"

#define BOARD_AGENTS   160
#define BOARD_GROUPS   64
#define BOARD_COUNTERS 8
#define BOARD_POINTS   256

struct board_agent {
    BASE_ALIGNED(64) _Atomic uint32_t mark; /* passed last */
    _Atomic uint32_t parked;                /* mark + 1 while it is parked there; 0: running */
    _Atomic uint32_t let_go;                /* a parked agent goes on when this is not 0 */
    _Atomic uint32_t broken;                /* text is valid: it found something wrong */
    _Atomic uint64_t ops;                   /* commits, or snapshots that were checked */
    _Atomic uint64_t passed[OS_MARK_COUNT];
    _Atomic uint64_t points[BOARD_POINTS]; /* how often it passed each (os_points) */
    char text[512];
};

/* A group of keys that is always written whole, with one counter in all of them. */
struct board_group {
    _Atomic uint64_t started;      /* raised before a commit with that counter is tried */
    _Atomic uint64_t acknowledged; /* raised after it was reported done */
    _Atomic uint64_t seen;         /* raised after somebody read it */
};

struct board {
    _Atomic uint32_t stop; /* run loops end */
    BASE_ALIGNED(64) struct board_group group[BOARD_GROUPS];
    struct board_group counter[BOARD_COUNTERS]; /* incremented in transactions */
    BASE_ALIGNED(64) struct board_agent agent[BOARD_AGENTS];
};

struct board *board_make(const char *path);
struct board *board_open(const char *path);
void board_close(struct board *b);

static inline void board_raise(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t old = atomic_load(word);
    while (old < value && !atomic_compare_exchange_weak(word, &old, value)) {
    }
}

#endif
