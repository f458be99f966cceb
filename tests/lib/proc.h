/* proc.h - agents: other processes that do what a test tells them.
 *
 * An agent is this program executed anew (fork and exec of /proc/self/exe), told one command a line over a
 * pipe and answering one line each: "ok ..." or "SHALE_BUSY text". It dies with its test. Everything here
 * fails the running test when an agent does not answer in time, or dies unasked; the message tells where it
 * was last.
 */
#ifndef TESTS_LIB_PROC_H
#define TESTS_LIB_PROC_H

#include "board.h"

#define PROC_ANSWER_MS 100000

struct agent {
    pid_t pid;    /* 0: none */
    int to, from; /* pipes */
    unsigned id;  /* its row on the board */
    struct board *board;
    size_t had; /* bytes of an answer that is not whole yet */
    char answer[4096];
};

/* The board that agents started from now on get, under the program's scratch root. */
struct board *proc_board(void);

void agent_start(struct agent *a, unsigned id);
/* As agent_start, but under another user (0: no change). */
void agent_start_as(struct agent *a, unsigned id, uid_t uid);
/* Sends a command; does not wait. */
void agent_tell(struct agent *a, const char *fmt, ...) BASE_PRINTF(2, 3);
/* As agent_tell to one that may be dead already, by the hand of a thread that works in the background: then
 * false. */
bool agent_try_tell(struct agent *a, const char *fmt, ...) BASE_PRINTF(2, 3);
/* The next answer; NULL when there is none within ms. */
const char *agent_wait(struct agent *a, int ms);
/* The next answer of one that may die first: then NULL. */
const char *agent_last_words(struct agent *a);
/* Sends, waits, returns the whole answer. */
const char *agent_ask(struct agent *a, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Sends, waits, demands "ok"; returns what follows it. */
const char *agent_must(struct agent *a, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Waits for the answer to an agent_tell and demands "ok". */
const char *agent_done(struct agent *a);

void agent_signal(struct agent *a, int sig);
void agent_stop(struct agent *a); /* SIGSTOP; returns when it has stopped */
void agent_kill(struct agent *a); /* SIGKILL, reaped */
void agent_reap(
    struct agent *a); /* after a death that was ordered otherwise (die-at): waits for SIGKILL's end */
void agent_quit(struct agent *a); /* asks it to end, demands exit status 0 */
/* Did it park within ms? No, at once, when it has answered instead. */
bool agent_parked(struct agent *a, int ms);
void agent_unpark(struct agent *a);
/* Demands that its ops grow by n within ms. */
void agent_progress(struct agent *a, uint64_t n, int ms);
/* Demands that nobody has reported anything broken. */
void agents_sound(struct board *b, unsigned n);

#endif
