/* torture.h - the torturer: tens of processes that do everything at random, killed, stopped and left without
 * room at random, until the time is over or a guarantee is broken.
 *
 * Time is divided into phases. A phase has so many actors, each with random options, and its own pace of
 * kills, stops and full disks; at its end everybody must have got on once more, then all or the writers are
 * killed, or all close, and one who was not there checks everything. Everything follows from one seed but
 * what the scheduler does.
 *
 * torture.c: main and the phases. torment.c: what is done to the actors. watch.c: what is seen of them:
 * deaths, answers, standstill; the log and the summary.
 */
#ifndef TESTS_TORTURE_TORTURE_H
#define TESTS_TORTURE_TORTURE_H

#include "lib/lib.h"
#include "stage.h"

struct victim { /* an actor, as the torturer sees it */
    struct agent agent;
    bool live, stopped, readonly, patient;
    bool mortal; /* may kill itself at a mark */
    unsigned first, hands;
    int64_t continue_at;
    uint64_t ops, commits;         /* at the last look that found them changed */
    int64_t stuck_ns, starving_ns; /* time in which others got on, and it didn't */
    uint64_t settled;              /* ops that it must exceed */
    char how[512];
};

struct torture {
    struct board *board;
    struct stage *stage;
    char *dir, *stage_path, *log_path;
    FILE *log;
    const char *disk; /* a small file system of our own; or NULL */
    uint64_t seed, dice;
    unsigned procs, count; /* at the most; of this phase */
    int64_t start, end, said, looked;
    uint64_t all_ops, all_commits; /* at the last look */
    int64_t silence_ns;
    struct victim victim[STAGE_ACTORS];
    int64_t ballast_until; /* 0: there is none */
    /* this phase's */
    unsigned kill_ms, stop_ms, at_once_ms, full_ms; /* mean time between; 0: never */
    bool full, breaks;
    /* for the summary */
    unsigned phases, kills, own_kills, at_once, stops, full_disks, checks, repairs, databases;
    uint64_t flushes, compactions, most_bytes;
    bool renew; /* the database is to be destroyed at the end of the phase */
};

uint64_t torture_dice(struct torture *t, uint64_t sides);
bool torture_chance(struct torture *t, unsigned percent);

/* ---- torment.c ---- */
void victim_start(struct torture *t, unsigned i);
void victim_kill(struct torture *t, unsigned i);
void victims_kill(struct torture *t, bool writers_only);
void victims_continue(struct torture *t, bool all);
void victim_died(struct torture *t, unsigned i); /* what it leaves on the stage */
void torment(struct torture *t, int64_t ms);     /* what is due after so many more milliseconds */
void ballast_drop(struct torture *t);

/* ---- watch.c ---- */
void torture_log(struct torture *t, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Logs, with the state of everybody, and ends the test. suspect: whose stacks are wanted; or -1. */
_Noreturn void torture_broken(struct torture *t, int suspect, const char *fmt, ...) BASE_PRINTF(3, 4);
/* Sees deaths, answers, standstill; says every 10 s how it goes. */
void torture_watch(struct torture *t);
void torture_summary(struct torture *t);

#endif
