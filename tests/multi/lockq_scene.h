/* lockq_scene.h - one directory with a lock queue, and agents that take its locks. */
#ifndef TESTS_MULTI_LOCKQ_SCENE_H
#define TESTS_MULTI_LOCKQ_SCENE_H

#include "lib/lib.h"
#include "lockq/queue.h"
#include "lockq_agent.h"

#define MOST        20
#define PATIENCE_MS 20000

static struct board *board;
static struct agent agent[MOST];
static char *dir;
static int dirfd = -1;
static struct lockq *queue; /* the test's own look at it */

static inline void setup(void)
{
    board = proc_board();
    dir = scratch_dir("lockq");
    ck_assert_int_eq(os_open_dir(dir, &dirfd), SHALE_OK);
    ck_assert_int_eq(lockq_open(dirfd, dir, 0600, &queue), SHALE_OK);
}

static inline void teardown(void)
{
    agents_sound(board, MOST);
    lockq_close(queue);
    os_close(&dirfd);
    scratch_remove(dir);
    free(dir);
    board_close(board);
}

static inline void start(unsigned i)
{
    agent_start(&agent[i], i);
    agent_must(&agent[i], "open %s", dir);
}

static inline void start_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        start(i);
    }
}

static inline void quit_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        agent_quit(&agent[i]);
    }
}

static inline struct lockq_slot *slot_of(const char *name)
{
    struct lockq_slot *slot = lockq_slot(queue, strcmp(name, "-") == 0 ? NULL : name);
    ck_assert_ptr_nonnull(slot);
    return slot;
}

/* Waits until n live tickets stand there, the newest of them number `next`. */
static inline void await_ticket(const char *name, uint64_t number)
{
    struct lockq_slot *slot = slot_of(name);
    int64_t end = os_now() + PATIENCE_MS * INT64_C(1000000);
    while (!lockq_ticket_alive(queue, lockq_slot_index(queue, slot), number, number)) {
        ck_assert_msg(os_now() < end, "ticket %llu does not appear", (unsigned long long)number);
        os_nap(200000);
    }
}

static inline void tell_loops(unsigned n, const char *const *what, size_t kinds)
{
    for (unsigned i = 0; i < n; i++) {
        agent_tell(&agent[i], "loop %s", what[i % kinds]);
    }
}

/* Ends the loops; each must have found itself alone every time. */
static inline uint64_t end_loops(unsigned n)
{
    uint64_t ops = 0;
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < n; i++) {
        agent_done(&agent[i]);
        ops += atomic_load(&board->agent[i].ops);
    }
    return ops;
}

static inline uint64_t guarded(void)
{
    return atomic_load(&board->counter[LOCKQ_GUARDED].started);
}

/* Tickets that were served after a later one: only one who is preempted between its number and its ticket may
 * be. */
static inline void assert_in_order(uint64_t ops)
{
    uint64_t late = atomic_load(&board->counter[LOCKQ_LATE].started);
    ck_assert_msg(late * 100 <= ops, "%llu of %llu out of order", (unsigned long long)late,
                  (unsigned long long)ops);
}

#endif
