/* agent_loops.c - workloads that run until the board says stop, or for ops=N rounds.
 *
 * They count what they did in the agent's row of the board, so that a test sees who gets on; the first thing
 * that is wrong ends the loop, with the reason on the board.
 */
#include "agent.h"

#include <stdio.h>
#include <stdlib.h>

static bool going_on(const struct agent_self *a, const struct agent_line *line, uint64_t round)
{
    return atomic_load(&a->board->stop) == 0 && round < agent_number(line, "ops", UINT64_MAX);
}

static bool every(uint64_t round, uint64_t n)
{
    return n != 0 && round % n == n - 1;
}

static int housekeeping(struct agent_self *a, const struct agent_line *line, uint64_t round,
                        char err[GROUPS_ERR])
{
    const char *what = "shale_flush";
    int rc = SHALE_OK;
    if (every(round, agent_number(line, "flush", 0))) {
        rc = shale_flush(agent_db(a));
    }
    if (rc == SHALE_OK && every(round, agent_number(line, "compact", 0))) {
        what = "shale_compact_range";
        rc = shale_compact_range(agent_db(a), NULL, 0, NULL, 0, NULL, NULL);
    }
    if (rc == SHALE_OK && every(round, agent_number(line, "work", 0))) {
        uint64_t done;
        what = "shale_work";
        rc = shale_work(agent_db(a), SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, 1 << 20, &done);
    }
    if (rc == SHALE_OK || rc == SHALE_BUSY) {
        return 0;
    }
    snprintf(err, GROUPS_ERR, "%s: %s: %s", what, shale_errname(rc), shale_errmsg());
    return -1;
}

struct write_loop {
    struct agent_self *a;
    const struct agent_line *line;
    unsigned first, step, groups; /* this thread's: first, first + step, ... */
    uint64_t seed, rounds;
    char err[GROUPS_ERR];
    pthread_t thread;
};

static void *write_rounds(void *ctx)
{
    struct write_loop *w = ctx;
    struct agent_self *a = w->a;
    unsigned flags = agent_write_flags(w->line);
    bool txn = agent_flag(w->line, "txn");
    for (; going_on(a, w->line, w->rounds) && atomic_load(&a->row->broken) == 0; w->rounds++) {
        unsigned group = w->first + w->step * (unsigned)(prng_next(&w->seed) % w->groups);
        int rc = txn ? groups_write_txn(agent_db(a), a->board, group, flags, w->err)
                     : groups_write(agent_db(a), a->board, group, flags, w->err);
        if (rc != 0 || housekeeping(a, w->line, w->rounds, w->err) != 0) {
            return NULL;
        }
        atomic_fetch_add(&a->row->ops, 1);
    }
    return NULL;
}

/* write-groups FIRST COUNT [writers=N] [txn] [sync] [flush=N] [compact=N] [work=N] [ops=N] [seed=N]: batches
 * over groups that are this agent's own, each of N threads has some of them; with txn, read-change-write of
 * groups that it shares with others. */
static void loop_write(struct agent_self *a, const struct agent_line *line)
{
    enum { MOST = 8 };
    static struct write_loop w[MOST];
    unsigned first = (unsigned)atoi(line->word[0]), count = (unsigned)atoi(line->word[1]);
    unsigned n = (unsigned)agent_number(line, "writers", 1);
    uint64_t seed = agent_number(line, "seed", a->id + 1), rounds = 0;
    const char *wrong = NULL;
    n = n < 1 ? 1 : n > MOST ? MOST : n > count ? count : n;
    for (unsigned i = 0; i < n; i++) {
        w[i] = (struct write_loop){.a = a, .line = line, .first = first + i, .step = n, .seed = seed + i};
        w[i].groups = (count - i + n - 1) / n;
        if (i > 0 && os_thread_start(&w[i].thread, write_rounds, &w[i], "writer") != SHALE_OK) {
            snprintf(w[i].err, sizeof w[i].err, "no thread: %s", shale_errmsg());
            w[i].thread = pthread_self();
        }
    }
    (void)write_rounds(&w[0]);
    for (unsigned i = 0; i < n; i++) {
        if (i > 0 && !pthread_equal(w[i].thread, pthread_self())) {
            os_thread_join(w[i].thread);
        }
        rounds += w[i].rounds;
        wrong = wrong == NULL && w[i].err[0] != '\0' ? w[i].err : wrong;
    }
    if (wrong != NULL) {
        agent_wrong(a, wrong);
    } else {
        agent_ok("%llu", (unsigned long long)rounds);
    }
}

/* read-groups N [ops=N] [how=N]: every way of reading in turn. */
static void loop_read(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]);
    uint64_t how = agent_number(line, "how", GROUPS_HOW_COUNT), round = 0;
    char err[GROUPS_ERR] = "";
    for (; going_on(a, line, round); round++) {
        enum groups_how h = (enum groups_how)(how < GROUPS_HOW_COUNT ? how : round % GROUPS_HOW_COUNT);
        if (groups_check(agent_db(a), a->board, n, h, err) != 0 ||
            counters_check(agent_db(a), a->board, BOARD_COUNTERS, err) != 0) {
            agent_wrong(a, err);
            return;
        }
        atomic_fetch_add(&a->row->ops, 1);
    }
    agent_ok("%llu", (unsigned long long)round);
}

/* count COUNTERS [ops=N] [sync]: increments in transactions. */
static void loop_count(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]);
    uint64_t seed = a->id + 77, round = 0;
    char err[GROUPS_ERR] = "";
    for (; going_on(a, line, round); round++) {
        unsigned counter = (unsigned)(prng_next(&seed) % n);
        if (counters_add(agent_db(a), a->board, counter, agent_write_flags(line), err) != 0 ||
            housekeeping(a, line, round, err) != 0) {
            agent_wrong(a, err);
            return;
        }
        atomic_fetch_add(&a->row->ops, 1);
    }
    agent_ok("%llu", (unsigned long long)round);
}

/* open-groups DIR N [ops=N] [option=value...]: opens, checks or writes, closes, again and again. */
static void loop_open(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[1]), group = (unsigned)agent_number(line, "group", BOARD_GROUPS);
    uint64_t round = 0;
    char err[GROUPS_ERR] = "";
    shale_options o;
    shale_options_init(&o);
    o.threads = (unsigned)agent_number(line, "threads", 0);
    o.memtable_bytes = 64 << 10;
    o.durable = SHALE_DURABLE_OFF;
    for (; going_on(a, line, round); round++) {
        shale_db *db = NULL;
        int rc = shale_open(line->word[0], &o, &db);
        if (rc != SHALE_OK) {
            snprintf(err, sizeof err, "shale_open: %s: %s", shale_errname(rc), shale_errmsg());
            break;
        }
        int bad = group < BOARD_GROUPS
                      ? groups_write(db, a->board, group, 0, err)
                      : groups_check(db, a->board, n, (enum groups_how)(round % GROUPS_HOW_COUNT), err);
        rc = shale_close(db);
        if (bad != 0 || rc != SHALE_OK) {
            break;
        }
        atomic_fetch_add(&a->row->ops, 1);
    }
    if (err[0] != '\0') {
        agent_wrong(a, err);
    } else {
        agent_ok("%llu", (unsigned long long)round);
    }
}

/* check-groups N: once, every way of reading. */
static void check_groups(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]);
    char err[GROUPS_ERR] = "";
    for (int how = 0; how < GROUPS_HOW_COUNT; how++) {
        if (groups_check(agent_db(a), a->board, n, (enum groups_how)how, err) != 0) {
            agent_wrong(a, err);
            return;
        }
    }
    if (counters_check(agent_db(a), a->board, BOARD_COUNTERS, err) != 0) {
        agent_wrong(a, err);
        return;
    }
    agent_status(SHALE_OK);
}

const struct agent_command agent_loops[] = {
    {"write-groups", 2, loop_write}, {"read-groups", 1, loop_read},     {"count", 1, loop_count},
    {"open-groups", 2, loop_open},   {"check-groups", 1, check_groups}, {NULL, 0, NULL},
};
