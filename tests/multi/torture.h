/* torture.h - memory that a torturer of the lock queue and its workers share.
 *
 * A worker is a thread of an agent that takes two locks in every way at random. Who has a lock looks at all
 * other workers: nobody else may be inside, and nobody may be waiting whose ticket was locked before this one
 * began its last look, unless its process is stopped or dead. The order of such events is the order of one
 * counter, so this is exact: no clock judges it. */
#ifndef TESTS_MULTI_TORTURE_H
#define TESTS_MULTI_TORTURE_H

#include "agent.h"

#define TORTURE_WORKERS 16
#define TORTURE_NAME    "tortured"

enum { TORTURE_WRITE, TORTURE_NAMED, TORTURE_LOCKS };

struct torture_worker {
    BASE_ALIGNED(64)
    /* Written by the worker. */
    _Atomic uint64_t ticket; /* 0: does not wait */
    _Atomic uint64_t ticket_event;
    _Atomic uint64_t look_event, look_from; /* its last look for those before it */
    _Atomic uint32_t lock;                  /* TORTURE_: which one it wants or has */
    _Atomic uint32_t inside;                /* 1: shared, 2: alone */
    _Atomic uint64_t had, busy;
    /* Written by the torturer: its process is dead or stopped, or was a moment ago. */
    _Atomic uint32_t excused;
};

struct torture {
    _Atomic uint64_t events;
    _Atomic uint64_t guarded[TORTURE_LOCKS]; /* loaded, and later stored, by who is alone */
    _Atomic uint64_t late; /* passed because it did not answer in time, though it was not stopped */
    struct torture_worker worker[TORTURE_WORKERS];
};

struct torture *torture_map(const char *path, bool make);

/* torture FILE DIR FIRST THREADS SEED: workers FIRST.. until the board says stop */
extern const struct agent_command torture_commands[];

#endif
