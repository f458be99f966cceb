/* agent_faults.c - refuses an agent's allocations, and kills or parks it at a point: one place in the source
 * where the library passes a mark (os_point in os/os.h). A mark is a phase with many places; these are told
 * apart by their number, which test and agent share because they are the same program.
 */
#include "agent.h"

#include <signal.h>
#include <stdlib.h>

static struct board_agent *row;

/* ---- allocations ---- */

static _Atomic bool alloc_on, alloc_always;
static _Atomic int64_t alloc_left;
static _Atomic uint64_t alloc_hits;

static bool at_alloc(void)
{
    if (!atomic_load_explicit(&alloc_on, memory_order_acquire)) {
        return false;
    }
    int64_t left = atomic_fetch_sub(&alloc_left, 1);
    if (left > 1 || (left < 1 && !atomic_load(&alloc_always))) {
        return false;
    }
    atomic_fetch_add(&alloc_hits, 1);
    return true;
}

/* alloc-at N [always]: the n-th allocation from now is refused; with always, all later ones too */
static void fault_alloc(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    atomic_store(&alloc_on, false);
    atomic_store(&alloc_left, atoll(line->word[0]));
    atomic_store(&alloc_always, agent_flag(line, "always"));
    atomic_store(&alloc_hits, 0);
    atomic_store_explicit(&alloc_on, true, memory_order_release);
    agent_status(SHALE_OK);
}

/* alloc-off: how many were refused */
static void fault_alloc_off(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    atomic_store(&alloc_on, false);
    agent_ok("%llu", (unsigned long long)atomic_load(&alloc_hits));
}

/* open-files: how many the library has open, and how many bytes it maps */
static void fault_open_files(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    agent_ok("%llu %llu", (unsigned long long)os_open_files(), (unsigned long long)os_mapped_bytes());
}

/* ---- points ---- */

static _Atomic int64_t point_wanted = -1;
static _Atomic int64_t point_left;
static _Atomic bool point_parks;

static void at_point(const struct os_point *const *point)
{
    size_t n;
    int64_t i = point - os_points(&n);
    if (i < BOARD_POINTS) {
        atomic_fetch_add_explicit(&row->points[i], 1, memory_order_relaxed);
    }
    if (atomic_load_explicit(&point_wanted, memory_order_acquire) != i ||
        atomic_fetch_sub(&point_left, 1) != 1) {
        return;
    }
    atomic_store(&point_wanted, -1);
    if (!atomic_load(&point_parks)) {
        kill(getpid(), SIGKILL);
    }
    agent_park(OS_MARK_COUNT + 2);
}

/* point-at I N die|park: the n-th pass of point I from now */
static void fault_point(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    atomic_store(&point_wanted, -1);
    atomic_store(&row->parked, 0);
    atomic_store(&row->let_go, 0);
    atomic_store(&point_left, atoll(line->word[1]));
    atomic_store(&point_parks, strcmp(line->word[2], "park") == 0);
    atomic_store_explicit(&point_wanted, atoll(line->word[0]), memory_order_release);
    agent_status(SHALE_OK);
}

void agent_faults_set(struct agent_self *a)
{
    row = a->row;
    base_alloc_hook = at_alloc;
    os_point_hook = at_point;
}

const struct agent_command agent_faults[] = {
    {"alloc-at", 1, fault_alloc},
    {"alloc-off", 0, fault_alloc_off},
    {"open-files", 0, fault_open_files},
    {"point-at", 3, fault_point},
    {NULL, 0, NULL},
};
