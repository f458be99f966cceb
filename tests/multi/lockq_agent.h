/* lockq_agent.h - a process that takes locks of the queue as a test tells it. */
#ifndef TESTS_MULTI_LOCKQ_AGENT_H
#define TESTS_MULTI_LOCKQ_AGENT_H

#include <stdbool.h>

/* Was this program started as such an agent (also inside a namespace)? Then *status is its exit status. */
bool lockq_agent_ran(int argc, char **argv, int *status);

/* Counters of the board that the agents use. */
enum {
    LOCKQ_GUARDED,  /* incremented under the lock, and not atomically: two holders at once lose some */
    LOCKQ_SEQUENCE, /* of the grants */
    LOCKQ_TICKET,   /* the highest that had the lock, in loops */
    LOCKQ_LATE      /* tickets that had it after a higher one */
};

#endif
