/* test_kill.c - processes killed at any instruction, one and all at once; the others go on, and nothing is
 * lost.
 *
 * Directed: a victim parks at the n-th pass of a mark, holding what it holds there, and is killed on the spot
 * (each second time after a SIGSTOP). Random: whoever runs is killed whenever. After each kill the survivors
 * must get on, and a fresh process opens, checks every group in every way of reading (lib/groups.h) and now
 * and then verifies every byte. Some ask for indices in a directory of their own, and of those there is never
 * more than one, whoever died.
 *
 * The kills are counted by phase, in memory that outlives the single test; the last test demands their
 * numbers.
 */
#include "lib/lib.h"

#include <signal.h>

enum { VICTIM = 0, WRITER = 1, READER = 2, CHECKER = 20, CROWD = 6 };
/* Sanitizers make everything several times slower, and see with a few kills what they can see. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { PER_PHASE = 5, KILLS = 80, ROUNDS = 15 };
#else
enum { PER_PHASE = 20, KILLS = 300, ROUNDS = 60 };
#endif
enum { GROUPS = 12, PER_AGENT = 3 };

/* A phase: the mark, how often it may be passed before the kill, and what the victim does to get there. */
static const struct phase {
    enum os_mark mark;
    unsigned most; /* n is 1..most */
    bool alone;    /* without survivors: they would be in the way */
    const char *open, *work;
} phases[] = {
    {OS_MARK_APPEND, 30, false, "", "flush=17 compact=41"},
    {OS_MARK_INSERT, 200, false, "", "flush=17 compact=41"},
    {OS_MARK_PUBLISH, 30, false, "", "flush=17 compact=41"},
    {OS_MARK_UNLOCK, 30, false, "", "flush=17 compact=41"},
    {OS_MARK_ROTATE, 3, false, "", "flush=3"},
    {OS_MARK_PREPARE, 12, false, "", "flush=3"},
    {OS_MARK_RECYCLE, 6, true, "", "flush=3"},
    {OS_MARK_FLUSH, 6, false, "", "flush=4"},
    {OS_MARK_COMPACT, 3, false, "l0_compact=2", "flush=3 compact=7"},
    {OS_MARK_MANIFEST, 12, false, "l0_compact=2", "flush=3 compact=5"},
    {OS_MARK_SYNC, 6, false, "durable=commit", "flush=19"},
    {OS_MARK_QUEUE, 20, false, "", ""},
    {OS_MARK_RECOVER, 12, true, NULL, NULL},
    {OS_MARK_OPEN, 1, true, NULL, NULL},
};

struct counts {
    _Atomic unsigned total, stopped, at_once, random[OS_MARK_COUNT], directed[OS_MARK_COUNT];
};
static struct counts *counts;

static char *dir, *mems;
static char mem_dir[PATH_MAX]; /* as an option */
static struct board *board;
static struct agent crowd[CROWD];

static void setup(void)
{
    dir = scratch_dir("kill");
    mems = scratch_dir("mems");
    snprintf(mem_dir, sizeof mem_dir, "mem_dir=%s", mems);
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(mems);
    free(dir);
}

static void count_kill(struct agent *a, bool directed)
{
    uint32_t parked = atomic_load(&board->agent[a->id].parked), last = atomic_load(&board->agent[a->id].mark);
    uint32_t mark = parked != 0 ? parked - 1 : last; /* other threads pass marks while one is parked */
    atomic_fetch_add(&counts->total, 1);
    atomic_fetch_add(directed ? &counts->directed[mark] : &counts->random[mark], 1);
}

static void kill_one(struct agent *a, bool stop, bool directed)
{
    if (stop) {
        agent_stop(a);
        atomic_fetch_add(&counts->stopped, 1);
    }
    count_kill(a, directed);
    agent_kill(a);
}

static void check_afresh(unsigned round)
{
    struct agent fresh = {0};
    agent_start(&fresh, CHECKER);
    agent_must(&fresh, "open %s", dir);
    char **names = scratch_names(mems, "");
    ck_assert_msg(names[0] == NULL || names[1] == NULL, "round %u: %s and %s", round, names[0], names[1]);
    scratch_names_free(names);
    agent_must(&fresh, "check-groups %d", GROUPS);
    if (round % 8 == 0) {
        agent_must(&fresh, "verify");
    }
    agent_quit(&fresh);
}

static void start_worker(struct agent *a, unsigned id, unsigned kind)
{
    static const char *const open[] = {"threads=0 max_sealed=2", "threads=1", "threads=0 durable=commit",
                                       "threads=1 l0_compact=2"};
    agent_start(a, id);
    if (kind == READER) {
        agent_must(a, "open %s readonly=%u", dir, id % 2);
        agent_tell(a, "read-groups %d", GROUPS);
    } else {
        agent_must(a, "open %s %s %s", dir, open[id % BASE_COUNT(open)], id % 2 ? mem_dir : "");
        /* groups of its own, and for one in four read-change-write of the last ones, which they share */
        bool shared = id % 4 == 3;
        agent_tell(a, "write-groups %u %d %s writers=%u flush=%u compact=%u seed=%llu",
                   shared ? GROUPS - PER_AGENT : id % 3 * PER_AGENT, PER_AGENT, shared ? "txn" : "",
                   1 + id % 3, 37 + id, 211 + 40 * id, (unsigned long long)os_now());
    }
}

/* ---- directed ---- */

static bool park_and_kill(const struct phase *p, unsigned round, uint64_t *seed)
{
    struct agent *victim = &crowd[VICTIM];
    unsigned n = 1 + (unsigned)(prng_next(seed) % p->most);
    agent_start(victim, VICTIM);
    if (p->work != NULL) {
        agent_must(victim, "open %s threads=%u %s", dir, p->open[0] == '\0' ? round % 2 : 0, p->open);
        agent_must(victim, "park-at %s %u", os_mark_name(p->mark), n);
        agent_tell(victim, "write-groups 0 %d %s seed=%u", PER_AGENT, p->work, round);
    } else {
        agent_must(victim, "park-at %s %u", os_mark_name(p->mark), n);
        agent_tell(victim, "open %s %s", dir, round / 2 % 2 ? mem_dir : "");
    }
    bool parked = agent_parked(victim, p->work != NULL ? 3000 : 300);
    kill_one(victim, round % 2 == 1, parked);
    return parked;
}

START_TEST(others_go_on_after_a_kill_at)
{
    const struct phase *p = &phases[_i];
    uint64_t seed = test_seed(7) + (uint64_t)_i;
    unsigned want = test_times(PER_PHASE + 2, 10 * PER_PHASE), hit = 0;
    start_worker(&crowd[WRITER], WRITER, WRITER);
    agent_progress(&crowd[WRITER], 30, 20000);
    if (p->alone) {
        agent_kill(&crowd[WRITER]);
        atomic_store(&board->agent[WRITER].ops, 0);
    } else {
        start_worker(&crowd[READER], READER, READER);
    }
    for (unsigned round = 0; hit < want; round++) {
        ck_assert_msg(round < 3 * want + 10, "%s: reached %u times in %u rounds", os_mark_name(p->mark), hit,
                      round);
        hit += park_and_kill(p, round, &seed);
        if (!p->alone) {
            agent_progress(&crowd[WRITER], 1, 20000);
            agent_progress(&crowd[READER], 1, 20000);
            check_afresh(round);
        } else if (p->work != NULL || round % 3 == 2) { /* recovery is also killed twice in a row */
            check_afresh(round);
        }
    }
    atomic_store(&board->stop, 1);
    if (!p->alone) {
        agent_done(&crowd[WRITER]);
        agent_done(&crowd[READER]);
        agent_quit(&crowd[WRITER]);
        agent_quit(&crowd[READER]);
    }
    check_afresh(0);
}
END_TEST

/* ---- random ---- */

static void kill_all(void)
{
    for (unsigned i = 0; i < CROWD; i++) {
        count_kill(&crowd[i], false);
        agent_signal(&crowd[i], SIGKILL);
    }
    for (unsigned i = 0; i < CROWD; i++) {
        agent_reap(&crowd[i]);
    }
    atomic_fetch_add(&counts->at_once, 1);
}

static void start_all(void)
{
    for (unsigned i = 0; i < CROWD; i++) {
        start_worker(&crowd[i], i, i >= 4 ? READER : WRITER);
    }
}

START_TEST(random_kills_of_one_and_of_all)
{
    uint64_t seed = test_seed((uint64_t)os_now());
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    start_all();
    for (unsigned round = 0; round < test_times(ROUNDS, 3000); round++) {
        os_nap((int64_t)(1 + prng_next(&seed) % 40) * 1000000);
        agents_sound(board, CROWD);
        if (round % 10 == 9) {
            kill_all();
            check_afresh(round);
            start_all();
            continue;
        }
        unsigned i = (unsigned)(prng_next(&seed) % CROWD);
        kill_one(&crowd[i], prng_next(&seed) % 3 == 0, false);
        for (unsigned j = 0; j < CROWD; j++) {
            if (j != i) {
                agent_progress(&crowd[j], 1, 20000);
            }
        }
        if (round % 3 == 0) {
            check_afresh(round);
        }
        start_worker(&crowd[i], i, i >= 4 ? READER : WRITER);
    }
    kill_all();
    check_afresh(0);
}
END_TEST

/* ---- the count ---- */

START_TEST(enough_were_killed_in_every_phase)
{
    static const enum os_mark wanted[] = {OS_MARK_APPEND,  OS_MARK_PUBLISH, OS_MARK_ROTATE,
                                          OS_MARK_FLUSH,   OS_MARK_COMPACT, OS_MARK_MANIFEST,
                                          OS_MARK_RECYCLE, OS_MARK_RECOVER, OS_MARK_QUEUE};
    printf("%u kills, %u of them after a stop, %u times all at once\n", counts->total, counts->stopped,
           counts->at_once);
    for (int m = 0; m < OS_MARK_COUNT; m++) {
        if (counts->directed[m] != 0 || counts->random[m] != 0) {
            printf("  %-9s %4u there, %4u somewhere behind it\n", os_mark_name((enum os_mark)m),
                   counts->directed[m], counts->random[m]);
        }
    }
    fflush(stdout);
    ck_assert_uint_ge(counts->total, KILLS);
    for (size_t i = 0; i < BASE_COUNT(wanted); i++) {
        ck_assert_msg(counts->directed[wanted[i]] >= PER_PHASE, "%s: %u", os_mark_name(wanted[i]),
                      counts->directed[wanted[i]]);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("kill");
    TCase *directed = tcase_create("directed"), *random = tcase_create("random"),
          *count = tcase_create("count");
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) {
        abort();
    }
    tcase_set_timeout(directed, test_times(240, 3600));
    tcase_add_checked_fixture(directed, setup, teardown);
    tcase_add_loop_test(directed, others_go_on_after_a_kill_at, 0, (int)BASE_COUNT(phases));
    tcase_set_timeout(random, test_times(400, 7200));
    tcase_add_checked_fixture(random, setup, teardown);
    tcase_add_test(random, random_kills_of_one_and_of_all);
    tcase_set_timeout(count, 60);
    tcase_add_test(count, enough_were_killed_in_every_phase);
    suite_add_tcase(s, directed);
    suite_add_tcase(s, random);
    suite_add_tcase(s, count);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
