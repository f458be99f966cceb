/* agent_hooks.c - parks, kills and fails an agent at the marks and doors that a debug build passes.
 *
 * Every mark is noted in the agent's row of the board: where a killed agent was is known afterwards. "park-at
 * MARK N" makes the thread that passes MARK for the n-th time from now sleep there, holding whatever it
 * holds, until it is killed or let go.
 */
#include "agent.h"

#include "lib/power.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { PLAN_NONE, PLAN_PARK, PLAN_DIE };

static struct board_agent *row;
static _Atomic int plan;
static _Atomic uint32_t plan_mark;
static _Atomic int64_t plan_left;

enum { ANY_OP = -2 };
enum { HOW_ERRNO, HOW_DIE, HOW_SHORT, HOW_PARK };

static _Atomic int door_op = -1;
static _Atomic int door_how;
static _Atomic int door_errno;
static _Atomic int64_t door_left;
static _Atomic bool door_always;
static _Atomic uint64_t door_hits;

void agent_park(uint32_t what)
{
    atomic_store(&row->let_go, 0);
    while (atomic_load(&row->let_go) == 0) {
        atomic_store(&row->parked, what); /* again: a plan that is made meanwhile clears it */
        struct timespec nap = {0, 500000};
        nanosleep(&nap, NULL); /* not os_nap: its audit would object, and rightly, to sleeping here */
    }
    atomic_store(&row->parked, 0);
}

static void at_mark(enum os_mark mark)
{
    atomic_store_explicit(&row->mark, mark, memory_order_relaxed);
    atomic_fetch_add_explicit(&row->passed[mark], 1, memory_order_relaxed);
    int p = atomic_load_explicit(&plan, memory_order_acquire);
    if (p == PLAN_NONE || atomic_load(&plan_mark) != mark || atomic_fetch_sub(&plan_left, 1) != 1) {
        return;
    }
    atomic_store(&plan, PLAN_NONE);
    if (p == PLAN_DIE) {
        kill(getpid(), SIGKILL);
    }
    agent_park(mark + 1);
}

static int plan_for(enum os_op op, int fd, size_t *length)
{
    int wanted = atomic_load_explicit(&door_op, memory_order_acquire);
    if (wanted != ANY_OP && (int)op != wanted) {
        return 0;
    }
    int64_t left = atomic_fetch_sub(&door_left, 1);
    if (left != 1 && (left > 1 || !atomic_load(&door_always))) {
        return 0;
    }
    atomic_fetch_add(&door_hits, 1);
    int how = atomic_load(&door_how);
    if (how == HOW_DIE) {
        if (op == OS_OP_FDATASYNC) {
            power_failed_sync(fd); /* and there is nobody to be told */
        }
        kill(getpid(), SIGKILL);
    } else if (how == HOW_PARK) {
        agent_park(OS_MARK_COUNT + 1);
        return 0;
    } else if (how == HOW_SHORT) {
        if (length != NULL && (op == OS_OP_READ || op == OS_OP_WRITE)) {
            *length = (*length + 1) / 2;
        }
        return 0;
    }
    return atomic_load(&door_errno);
}

/* The recorder sees only what is really called. */
static int at_door(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    int err = plan_for(op, fd, length);
    if (err == 0) {
        err = power_before(op, fd, name, offset, length);
    } else if (err != EINTR && (op == OS_OP_FDATASYNC || op == OS_OP_FSYNC)) {
        power_failed_sync(fd);
    }
    return err;
}

void agent_hooks_set(struct agent_self *a)
{
    row = a->row;
    os_mark_hook = at_mark;
    os_door_hook = at_door;
    os_done_hook = power_after;
    agent_faults_set(a);
}

static bool mark_by_name(const char *name, enum os_mark *mark)
{
    for (int i = 0; i < OS_MARK_COUNT; i++) {
        if (strcmp(os_mark_name((enum os_mark)i), name) == 0) {
            *mark = (enum os_mark)i;
            return true;
        }
    }
    return false;
}

static void set_plan(const struct agent_line *line, int what)
{
    enum os_mark mark;
    if (!mark_by_name(line->word[0], &mark)) {
        agent_status(SHALE_INVALID);
        return;
    }
    atomic_store(&row->parked, 0);
    atomic_store(&row->let_go, 0);
    atomic_store(&plan, PLAN_NONE);
    atomic_store(&plan_mark, (uint32_t)mark);
    atomic_store(&plan_left, atoll(line->word[1]));
    atomic_store_explicit(&plan, what, memory_order_release);
    agent_status(SHALE_OK);
}

/* park-at MARK N */
static void hook_park(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    set_plan(line, PLAN_PARK);
}

/* die-at MARK N: by SIGKILL, right there */
static void hook_die(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    set_plan(line, PLAN_DIE);
}

void agent_door_shut(enum os_op op, int64_t n, int error, bool always)
{
    atomic_store(&door_op, -1);
    atomic_store(&door_left, n);
    atomic_store(&door_errno, error);
    atomic_store(&door_how, HOW_ERRNO);
    atomic_store(&door_always, always);
    atomic_store(&door_hits, 0);
    atomic_store_explicit(&door_op, (int)op, memory_order_release);
}

uint64_t agent_door_open(void)
{
    atomic_store(&door_op, -1);
    return atomic_load(&door_hits);
}

/* errno-at OP N ERRNO [always]: the n-th call from now fails; with always, all later ones too */
static void hook_errno(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    for (int i = 0; i < OS_OP_COUNT; i++) {
        if (strcmp(os_op_name((enum os_op)i), line->word[0]) == 0) {
            agent_door_shut((enum os_op)i, atoll(line->word[1]), atoi(line->word[2]),
                            agent_flag(line, "always"));
            agent_status(SHALE_OK);
            return;
        }
    }
    agent_status(SHALE_INVALID);
}

static int op_by_name(const char *name)
{
    for (int i = 0; i < OS_OP_COUNT; i++) {
        if (strcmp(os_op_name((enum os_op)i), name) == 0) {
            return i;
        }
    }
    return ANY_OP;
}

/* call-at N ERRNO|die|short|park [OP]: the n-th call (of that kind) from now fails; or the process is gone
 * before it; or, if it is one that moves bytes, it moves half of them; or the thread sleeps before it, as at
 * a mark. */
static void hook_call(struct agent_self *a, const struct agent_line *line)
{
    int op = line->count > 2 ? op_by_name(line->word[2]) : ANY_OP;
    (void)a;
    atomic_store(&door_op, -1);
    atomic_store(&door_left, atoll(line->word[0]));
    atomic_store(&door_how, strcmp(line->word[1], "die") == 0     ? HOW_DIE
                            : strcmp(line->word[1], "short") == 0 ? HOW_SHORT
                            : strcmp(line->word[1], "park") == 0  ? HOW_PARK
                                                                  : HOW_ERRNO);
    atomic_store(&door_errno, atoi(line->word[1]));
    atomic_store(&door_always, false);
    atomic_store(&door_hits, 0);
    atomic_store(&row->parked, 0);
    atomic_store_explicit(&door_op, op, memory_order_release);
    agent_status(SHALE_OK);
}

/* errno-off: how many calls were made to fail */
static void hook_errno_off(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    agent_ok("%llu", (unsigned long long)agent_door_open());
}

/* plan-off: no mark and no call is a special one any more; who is parked stays so */
static void hook_plan_off(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    atomic_store(&plan, PLAN_NONE);
    atomic_store(&door_op, -1);
    agent_status(SHALE_OK);
}

const struct agent_command agent_hooks[] = {
    {"park-at", 2, hook_park}, {"die-at", 2, hook_die},          {"errno-at", 3, hook_errno},
    {"call-at", 2, hook_call}, {"errno-off", 0, hook_errno_off}, {"plan-off", 0, hook_plan_off},
    {NULL, 0, NULL},
};
