/* stage.h - the torture: what the torturer (torture.c) and its actors (actor.c) share, and the rings.
 *
 * An actor is an agent that does everything the library can do, at random, in some threads, until the board
 * says stop. The torturer starts and kills them. The stage is memory beside the board, with the same
 * property: what it says was stored before or after the call into the library, and a SIGKILL takes nothing
 * from it.
 *
 * A ring is a sequence of operations whose i-th is known beforehand: it puts or deletes key i * RING_STEP mod
 * RING_KEYS, with a value made from i. Each commit does the next few and stores their last number in the
 * ring's head. So a view that shows head c must show exactly what the first c operations leave, in thousands
 * of keys and in as many levels as the tables have. One thread at a time goes on with a ring, from where its
 * head says.
 */
#ifndef TESTS_TORTURE_STAGE_H
#define TESTS_TORTURE_STAGE_H

#include "multi/agent.h"

#define STAGE_GROUPS  40 /* of the board's; the first STAGE_RINGS have one writer, the others have many */
#define STAGE_RINGS   24
#define STAGE_LOCKS   4
#define STAGE_COPIES  6
#define STAGE_THREADS 4
#define STAGE_ACTORS  60
#define STAGE_CHECKER (BOARD_AGENTS - 1) /* the row of who checks while nobody else is there */

#define STAGE_GRACE_NS INT64_C(15000000000) /* behind a fault, refusals are still excused */

/* What is counted, for the summary. */
/* clang-format off */
#define STAGE_COUNTS(X)                                                                                      \
    X(commits) X(synced) X(reads) X(holds) X(rereads) X(opens) X(recoveries) X(flushes_asked)               \
    X(ranges_compacted) X(verifies) X(copies) X(copies_checked) X(named_locks) X(write_locks) X(busy)        \
    X(no_space) X(panics) X(cancelled) X(forks)
/* clang-format on */
enum stage_count {
#define X(n) STAGE_##n,
    STAGE_COUNTS(X)
#undef X
        STAGE_COUNT
};

struct stage_bounds {
    struct groups_bounds groups;
    uint64_t ring_low[STAGE_RINGS], ring_high[STAGE_RINGS];
};

/* A checkpoint: made by one actor, checked by another. */
enum { COPY_FREE, COPY_MAKING, COPY_MADE, COPY_CHECKING, COPY_REMOVING };
#define COPY_WORD(state, id) ((uint32_t)(state) | ((id) + 1) << 8)
struct stage_copy {
    _Atomic uint32_t word; /* COPY_WORD: its state, and who is at it */
    _Atomic uint32_t torn; /* its maker was killed: perhaps it is none, and when it ended is unknown */
    uint64_t serial;
    struct stage_bounds bounds;
};

struct stage_lock {
    _Atomic uint32_t inside; /* row of who has it, + 1 */
    _Atomic uint64_t number; /* the last one's */
};

struct stage_actor {
    BASE_ALIGNED(64) _Atomic uint32_t doomed; /* it is being killed: its locks are not its own any more */
    _Atomic uint32_t doing[STAGE_THREADS];    /* index of the operation + 1; 0: none */
    _Atomic uint64_t commits;
};

struct stage {
    _Atomic uint64_t count[STAGE_COUNT], flushes, compactions; /* the two: as the present STATE counts them */
    _Atomic uint64_t longest_ns;                               /* commit, stops included */
    _Atomic uint64_t serial;
    /* Until then (os_now) that refusal is nothing strange. */
    _Atomic int64_t full_until, panic_until;
    struct board_group ring[STAGE_RINGS], solo[STAGE_RINGS];
    struct stage_lock lock[STAGE_LOCKS];
    struct stage_copy copy[STAGE_COPIES];
    struct stage_actor actor[BOARD_AGENTS];
};

struct stage *stage_map(const char *path, bool make);
void stage_unmap(struct stage *s);
static inline void stage_excuse(_Atomic int64_t *until, int64_t time)
{
    int64_t old = atomic_load(until);
    while (old < time && !atomic_compare_exchange_weak(until, &old, time)) {
    }
}
void stage_count(struct stage *s, enum stage_count what);
extern const char *const stage_count_names[STAGE_COUNT];
const char *stage_doing(uint32_t doing); /* the operation's name */
void stage_copy_path(const char *dir, const struct stage_copy *copy, char path[PATH_MAX]);

/* ---- rings (ring.c); 0, or -1 with err and groups_status, as in lib/groups.h ---- */

struct ring_hand { /* one that goes on with a ring */
    unsigned ring;
    bool known; /* at is the head */
    uint64_t at;
};
int ring_write(shale_db *db, struct stage *s, struct ring_hand *hand, unsigned count, unsigned flags,
               char err[GROUPS_ERR]);
/* One key that is put and deleted by itself, not in a batch. */
int ring_write_solo(shale_db *db, struct stage *s, unsigned ring, unsigned flags, char err[GROUPS_ERR]);
void ring_note_low(struct stage *s, struct stage_bounds *bounds);
void ring_note_high(struct stage *s, struct stage_bounds *bounds);
enum ring_how { RING_SCAN, RING_SCAN_BACK, RING_GET, RING_HOW_COUNT };
/* One ring in a view; narrows its bounds to what was found. */
int ring_read(shale_db *db, const shale_snapshot *snap, unsigned ring, enum ring_how how,
              struct stage_bounds *bounds, uint64_t *seed, char err[GROUPS_ERR]);
int ring_read_solo(shale_db *db, struct stage *s, unsigned ring, char err[GROUPS_ERR]);

/* act FILE DIR ...; check-all FILE DIR; repair-all FILE DIR INTO */
extern const struct agent_command stage_commands[];

#endif
