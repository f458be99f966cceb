/* actor.h - inside an actor: one process with one handle, and its hands, the threads that use it.
 *
 * actor.c opens and closes the handle, runs the hands and judges what the library returned; deeds.c has one
 * function for each thing a hand can do.
 */
#ifndef TESTS_TORTURE_ACTOR_H
#define TESTS_TORTURE_ACTOR_H

#include "stage.h"

#define ACTOR_HELD 2

struct actor {
    struct agent_self *self;
    struct stage *stage;
    const char *dir;
    shale_options *options;
    shale_db *db;
    shale_lockq *locks;
    unsigned hands, first;  /* hand i writes ring and group first + i, if there is such a ring */
    bool readonly, patient; /* waits for ever, and in turn */
    bool full, breaks;      /* pretends a full disk; failing syncs */
    _Atomic bool interrupted;
    _Atomic bool reopen;         /* what it was told to do */
    _Atomic int64_t fault_until; /* until then its own faults may be felt */
    _Atomic int64_t shut_until;  /* the door; 0: open */
};

struct held { /* a snapshot, and what it showed the first time */
    shale_snapshot *snap;
    struct stage_bounds bounds;
};

struct hand {
    struct actor *actor;
    unsigned index;
    struct ring_hand ring;
    uint64_t seed, rounds;
    bool nowait; /* the present deed asked not to wait */
    struct held held[ACTOR_HELD];
    bool wrong;
    char err[GROUPS_ERR];
    pthread_t thread;
};

static inline uint64_t hand_dice(struct hand *h, uint64_t sides)
{
    return prng_next(&h->seed) % sides;
}

enum {
    DEED_WRITES = 1,
    DEED_RING = 2,
    DEED_MAY_BUSY = 4,
    DEED_FULL = 8,
    DEED_BREAKS = 16,
    DEED_THREADS = 32
};
struct deed {
    const char *name;
    unsigned weight, needs;
    int (*run)(struct hand *h); /* 0, or -1 with err and groups_status */
};
extern const struct deed deeds[]; /* NULL-terminated */

int hand_refused(struct hand *h, const char *what, int status); /* -1; 0 when the status is SHALE_OK */
int hand_wrong(struct hand *h, const char *fmt, ...) BASE_PRINTF(2, 3);
/* shale_progress of long calls: they count as getting on. ctx: the actor. */
int actor_progress(void *ctx, uint64_t done, uint64_t total);
/* Is that status to be expected now? */
bool actor_excuses(const struct actor *a, int status);

#endif
