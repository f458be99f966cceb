/* agent.h - the agent: a process that does what a test tells it (tests/lib/proc.h is the other end).
 *
 * agent.c reads lines and dispatches; agent_commands.c has one function a command on one handle;
 * agent_loops.c the workloads that run until the board says stop; agent_hooks.c parks, kills and fails at the
 * marks and doors of a debug build; agent_faults.c refuses allocations, and kills at points; agent_power.c
 * works for the power-loss model.
 */
#ifndef TESTS_MULTI_AGENT_H
#define TESTS_MULTI_AGENT_H

#include "lib/board.h"
#include "lib/groups.h"

#define AGENT_WORDS     64
#define AGENT_SNAPSHOTS 8

struct agent_self {
    unsigned id;
    struct board *board;
    struct board_agent *row;
    shale_db *db[4];
    unsigned current; /* handle that commands mean */
    shale_snapshot *snap[AGENT_SNAPSHOTS];
    shale_txn *txn;
    shale_iter *iter;
    bool quit;
};

struct agent_line {
    unsigned count; /* words behind the command's name */
    const char *word[AGENT_WORDS];
};

/* Each answers itself, with one of these. */
void agent_ok(const char *fmt, ...) BASE_PRINTF(1, 2);
void agent_status(int status);                            /* "ok", or the error's name and text */
void agent_wrong(struct agent_self *a, const char *text); /* "WRONG text"; raises broken */

struct agent_command {
    const char *name;
    unsigned words; /* at least */
    void (*run)(struct agent_self *a, const struct agent_line *line);
};
extern const struct agent_command agent_commands[], agent_faults[], agent_loops[], agent_hooks[],
    agent_power[]; /* NULL-terminated */

extern const struct agent_command *agent_own; /* of the test program alone; NULL: none */

/* "name=12" among the words: 12, or otherwise. */
uint64_t agent_number(const struct agent_line *line, const char *name, uint64_t otherwise);
bool agent_flag(const struct agent_line *line, const char *name);
static inline shale_db *agent_db(const struct agent_self *a)
{
    return a->db[a->current];
}
void agent_hooks_set(struct agent_self *a);
/* From now on the n-th call of that kind by this process fails; always: and all later ones. */
void agent_door_shut(enum os_op op, int64_t n, int error, bool always);
uint64_t agent_door_open(void); /* how many did */
void agent_faults_set(struct agent_self *a);
void agent_park(uint32_t what); /* sleeps until it is let go; what: for the board, not 0 */
unsigned agent_write_flags(const struct agent_line *line);

#endif
