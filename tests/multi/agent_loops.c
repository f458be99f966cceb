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

/* write-groups FIRST COUNT [txn] [sync] [flush=N] [compact=N] [work=N] [ops=N] [seed=N]: batches over groups
 * that are this agent's own; with txn, read-change-write of groups that it shares with others. */
static void loop_write(struct agent_self *a, const struct agent_line *line)
{
    unsigned first = (unsigned)atoi(line->word[0]), count = (unsigned)atoi(line->word[1]);
    unsigned flags = agent_write_flags(line);
    bool txn = agent_flag(line, "txn");
    uint64_t seed = agent_number(line, "seed", a->id + 1), round = 0;
    char err[GROUPS_ERR] = "";
    for (; going_on(a, line, round); round++) {
        unsigned group = first + (unsigned)(prng_next(&seed) % count);
        int rc = txn ? groups_write_txn(agent_db(a), a->board, group, flags, err)
                     : groups_write(agent_db(a), a->board, group, flags, err);
        if (rc != 0 || housekeeping(a, line, round, err) != 0) {
            agent_wrong(a, err);
            return;
        }
        atomic_fetch_add(&a->row->ops, 1);
    }
    agent_ok("%llu", (unsigned long long)round);
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
