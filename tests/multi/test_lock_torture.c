/* test_lock_torture.c - sixteen who take two locks in all ways at random, while their processes are stopped,
 * continued, killed and started again, at random too. What must hold is said in torture.h; and no lock may
 * lie there free, while somebody who runs waits for it, for longer than a moment. */
#include "torture.h"

#include "lockq_scene.h"

#include <signal.h>

#define STALL_NS        INT64_C(200000000)    /* is told */
#define STALL_MOST_NS   INT64_C(2000000000)   /* fails: the machine may be busy */
#define STALL_STEP_NS   INT64_C(10000000)     /* of one look: when the torturer does not run, nobody may */
#define SLOW_MOST_NS    INT64_C(600000000000) /* until a slow machine has done enough */
#define EXCUSE_NS       INT64_C(500000000)    /* after a stop */
#define STOPPED_AT_MOST 3                     /* of the processes, at a time */

struct victim {
    bool stopped;
    int64_t continue_at, excused_until;
};

struct scene {
    unsigned processes, threads;
    uint64_t random;
    struct torture *shared;
    char *file;
    struct victim victim[TORTURE_WORKERS];
    int fresh; /* an open file of LOCK */
    unsigned kills, stops, stalls;
    int64_t longest_stall;
};

/* A lock as the torturer watches it. */
struct watch {
    struct lockq_slot *slot;
    uint64_t start, length;
    int64_t looked, stall; /* so long it has been free while somebody who runs waits */
    uint64_t count;
};

static uint64_t dice(struct scene *s, uint64_t sides)
{
    return prng_next(&s->random) % sides;
}

static void excuse(struct scene *s, unsigned process, bool yes)
{
    for (unsigned t = 0; t < s->threads; t++) {
        atomic_store(&s->shared->worker[process * s->threads + t].excused, yes);
    }
}

static void start_worker(struct scene *s, unsigned process)
{
    for (unsigned t = 0; t < s->threads; t++) {
        struct torture_worker *row = &s->shared->worker[process * s->threads + t];
        row->ticket = 0;
        row->inside = 0;
    }
    agent_start(&agent[process], process);
    excuse(s, process, false);
    agent_tell(&agent[process], "torture %s %s %u %u %llu", s->file, dir, process * s->threads, s->threads,
               (unsigned long long)prng_next(&s->random));
}

/* ---- what is done to them ---- */

static void stop_one(struct scene *s, unsigned process)
{
    excuse(s, process, true);
    s->victim[process].stopped = true;
    s->victim[process].continue_at = os_now() + (int64_t)dice(s, 250000000);
    agent_stop(&agent[process]);
    s->stops++;
}

static void kill_one(struct scene *s, unsigned process)
{
    excuse(s, process, true);
    s->victim[process] = (struct victim){0};
    agent_kill(&agent[process]);
    s->kills++;
    start_worker(s, process);
}

static void continue_those_due(struct scene *s, int64_t now)
{
    for (unsigned i = 0; i < s->processes; i++) {
        struct victim *v = &s->victim[i];
        if (v->stopped && now >= v->continue_at) {
            v->stopped = false;
            v->excused_until = now + EXCUSE_NS;
            agent_signal(&agent[i], SIGCONT);
        } else if (!v->stopped && v->excused_until != 0 && now >= v->excused_until) {
            v->excused_until = 0;
            excuse(s, i, false);
        }
    }
}

static void torment(struct scene *s)
{
    unsigned process = (unsigned)dice(s, s->processes), stopped = 0;
    for (unsigned i = 0; i < s->processes; i++) {
        stopped += s->victim[i].stopped;
    }
    if (dice(s, 2) == 0) {
        kill_one(s, process); /* also one that is stopped */
    } else if (!s->victim[process].stopped && stopped < STOPPED_AT_MOST) {
        stop_one(s, process);
    }
}

/* ---- what is seen ---- */

static bool somebody_waits(const struct scene *s, unsigned lock)
{
    bool any = false;
    for (unsigned i = 0; i < s->processes * s->threads; i++) {
        const struct torture_worker *row = &s->shared->worker[i];
        any = any || (row->lock == lock && row->ticket != 0 && row->excused == 0);
    }
    return any;
}

static void look_for_stalls(struct scene *s, struct watch *w, unsigned lock)
{
    bool taken = true;
    uint64_t count = atomic_load(&w->slot->acquisitions);
    ck_assert_int_eq(os_lock_test(s->fresh, w->start, w->length, true, &taken), SHALE_OK);
    int64_t now = os_now(), step = now - w->looked;
    w->looked = now;
    if (taken || count != w->count || !somebody_waits(s, lock)) {
        w->count = count;
        w->stall = 0;
        return;
    }
    w->stall += step < STALL_STEP_NS ? step : STALL_STEP_NS;
    if (w->stall > STALL_NS && s->longest_stall <= STALL_NS) {
        s->stalls++;
        lockq_slot_print(queue, lockq_slot_index(queue, w->slot));
    }
    s->longest_stall = w->stall > s->longest_stall ? w->stall : s->longest_stall;
    ck_assert_msg(w->stall < STALL_MOST_NS, "a lock lies there free, and a waiter runs");
}

static uint64_t had_least(const struct scene *s)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < s->processes * s->threads; i++) {
        uint64_t had = s->shared->worker[i].had;
        least = had < least ? had : least;
    }
    return least;
}

static void torture_for(struct scene *s, double seconds)
{
    struct watch watch[TORTURE_LOCKS] = {{.slot = slot_of("-"), .start = OS_BYTE_WRITE, .length = 2},
                                         {.slot = slot_of(TORTURE_NAME),
                                          .start = lockq_named_byte(TORTURE_NAME, strlen(TORTURE_NAME)),
                                          .length = 1}};
    int64_t now = os_now(), end = now + (int64_t)(seconds * 1e9), next = now;
    while ((now = os_now()) < end ||
           (now < end + SLOW_MOST_NS && (s->kills == 0 || s->stops == 0 || had_least(s) == 0))) {
        continue_those_due(s, now);
        if (now >= next) {
            torment(s);
            next = os_now() + (int64_t)dice(s, 30000000);
        }
        for (unsigned i = 0; i < TORTURE_LOCKS; i++) {
            look_for_stalls(s, &watch[i], i);
        }
        agents_sound(board, s->processes);
        os_nap(1000000);
    }
}

static void let_all_go_and_end(struct scene *s)
{
    continue_those_due(s, INT64_MAX / 2);
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < s->processes; i++) {
        agent_done(&agent[i]);
    }
    /* No trace is left: both can be had at once. */
    start(MOST - 1);
    agent_must(&agent[MOST - 1], "take - once");
    agent_must(&agent[MOST - 1], "free");
    agent_must(&agent[MOST - 1], "take " TORTURE_NAME " once");
    agent_must(&agent[MOST - 1], "free");
    agent_quit(&agent[MOST - 1]);
}

static void tell(const struct scene *s, double seconds, uint64_t seed)
{
    uint64_t had = 0, busy = 0, least = had_least(s);
    for (unsigned i = 0; i < s->processes * s->threads; i++) {
        had += s->shared->worker[i].had;
        busy += s->shared->worker[i].busy;
    }
    uint64_t skipped = slot_of("-")->skipped + slot_of(TORTURE_NAME)->skipped;
    printf("torture: %u x %u, %.1f s, seed %llu: %llu times had (least %llu), %llu busy, %u kills, %u stops, "
           "%llu times skipped, %llu too late with an answer, longest stall %.0f ms (%u over 200 ms)\n",
           s->processes, s->threads, seconds, (unsigned long long)seed, (unsigned long long)had,
           (unsigned long long)least, (unsigned long long)busy, s->kills, s->stops,
           (unsigned long long)skipped, (unsigned long long)s->shared->late, (double)s->longest_stall / 1e6,
           s->stalls);
    ck_assert_uint_gt(s->kills, 0);
    ck_assert_uint_gt(s->stops, 0);
    ck_assert_uint_gt(least, 0);
    ck_assert_uint_le(s->shared->late * 50, had); /* a busy machine answers late, too */
}

static void torture(unsigned processes, unsigned threads)
{
    const char *asked = getenv("SHALE_TORTURE_SECONDS");
    double seconds = asked != NULL ? atof(asked) : test_times(3, 120);
    uint64_t seed = test_seed(16 + threads);
    struct scene s = {.processes = processes, .threads = threads, .random = seed, .fresh = -1};
    s.file = scratch_name("torture");
    s.shared = torture_map(s.file, true);
    ck_assert_ptr_nonnull(s.shared);
    ck_assert_int_eq(os_open(dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &s.fresh), SHALE_OK);
    for (unsigned i = 0; i < processes; i++) {
        start_worker(&s, i);
    }
    torture_for(&s, seconds);
    let_all_go_and_end(&s);
    tell(&s, seconds, seed);
    os_close(&s.fresh);
    free(s.file);
}

START_TEST(sixteen_processes)
{
    torture(16, 1);
}
END_TEST

START_TEST(four_processes_of_four_threads)
{
    torture(4, 4);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lock_torture");
    TCase *c = tcase_create("torture");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 1800);
    tcase_add_test(c, sixteen_processes);
    tcase_add_test(c, four_processes_of_four_threads);
    suite_add_tcase(s, c);
    return s;
}

int main(int argc, char **argv)
{
    int status;
    return lockq_agent_ran(argc, argv, &status) ? status : test_run(argc, argv, suite);
}
