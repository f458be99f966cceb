/* agent_power.c - an agent whose every call is recorded by the power-loss model (lib/power.h), and the
 * workload that tells it what the library has promised. */
#include "agent.h"

#include "lib/ledger.h"
#include "lib/power.h"
#include "version/version.h"

#include <stdio.h>
#include <stdlib.h>

static struct power *recorder;
static uint64_t own[POWER_WRITERS]; /* commits that were made through the open handle */

/* power PATH: records from now on. Manifests are rolled early. */
static void cmd_power(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    recorder = power_open(line->word[0]);
    version_roll_bytes = agent_number(line, "roll", version_roll_bytes);
    power_join(recorder);
    agent_ok("%s", recorder != NULL ? "" : strerror(errno));
}

/* How far everybody had come: whatever is made durable after this covers it. */
static void look_around(uint64_t acknowledged[POWER_WRITERS])
{
    for (unsigned w = 0; w < POWER_WRITERS; w++) {
        acknowledged[w] = atomic_load(&recorder->writer[w].acknowledged);
    }
}

static void promised(const uint64_t acknowledged[POWER_WRITERS])
{
    for (unsigned w = 0; w < POWER_WRITERS; w++) {
        board_raise(&recorder->writer[w].durable, acknowledged[w]);
    }
}

struct power_loop {
    struct agent_self *self;
    const struct agent_line *line;
    shale_db *db;
    unsigned writer;
    uint64_t seed, count;
    char err[LEDGER_ERR];
};

/* A sync has failed, here or elsewhere. What became of the last commit shows now. Not everybody gives up at
 * once: whoever tries again must not be told that it is durable. In the end shale_flush is the cure. */
static int cure(struct power_loop *l, int rc)
{
    uint64_t before[POWER_WRITERS];
    if (!agent_flag(l->line, "failing") || (rc != SHALE_PANIC && rc != SHALE_IO)) {
        return -1;
    }
    bool now = prng_next(&l->seed) / 64 % 16 == 0;
    for (unsigned tries = 0; now && rc != SHALE_OK && tries < 100; tries++) {
        look_around(before);
        rc = shale_flush(l->db);
        if (rc != SHALE_OK && rc != SHALE_PANIC && rc != SHALE_IO) {
            snprintf(l->err, sizeof l->err, "no cure: %s: %s", shale_errname(rc), shale_errmsg());
            return -1;
        }
    }
    if (rc == SHALE_OK) {
        promised(before);
    }
    l->err[0] = '\0';
    return ledger_count(l->db, l->writer, &l->count, l->err);
}

static int commit(struct power_loop *l)
{
    struct power_writer *w = &recorder->writer[l->writer];
    uint64_t before[POWER_WRITERS], r = prng_next(&l->seed);
    bool sync = r % 100 < agent_number(l->line, "sync", 10), nosync = !sync && r / 128 % 8 == 0;
    bool durable = sync || (!nosync && agent_flag(l->line, "durable"));
    unsigned flags = sync ? SHALE_SYNC : nosync ? SHALE_NOSYNC : 0;
    look_around(before);
    atomic_store(&w->started, l->count + 1);
    int rc = ledger_write(l->db, l->writer, l->count + 1, flags, r / 1024 % 4 == 0, l->err);
    if (rc != SHALE_OK) {
        return cure(l, rc);
    }
    board_raise(&w->acknowledged, ++l->count);
    own[l->writer] = l->count;
    if (durable) {
        before[l->writer] = l->count;
        promised(before);
    }
    return 0;
}

static int housekeeping(struct power_loop *l)
{
    uint64_t before[POWER_WRITERS], done, r = prng_next(&l->seed) % 1000;
    const char *what = "shale_sync";
    int rc;
    look_around(before);
    if (agent_flag(l->line, "lazy") && r >= 2 && r < 30) {
        return 0;
    }
    if (r < 20) {
        rc = shale_sync(l->db);
    } else if (r < 26) {
        what = "shale_flush";
        rc = shale_flush(l->db);
    } else if (r < 30) {
        what = "shale_compact_range"; /* flushes first */
        rc = shale_compact_range(l->db, NULL, 0, NULL, 0, NULL, NULL);
    } else {
        if (r < 60) {
            (void)shale_work(l->db, SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, 0, &done);
        }
        return 0;
    }
    if (rc == SHALE_OK) {
        promised(before);
        return 0;
    }
    snprintf(l->err, sizeof l->err, "%s: %s: %s", what, shale_errname(rc), shale_errmsg());
    return cure(l, rc);
}

static void *write_on(void *ctx)
{
    struct power_loop *l = ctx;
    uint64_t ops = agent_number(l->line, "ops", 100);
    int bad = ledger_count(l->db, l->writer, &l->count, l->err);
    for (uint64_t i = 0; i < ops && bad == 0; i++) {
        bad = commit(l);
        bad = bad == 0 ? housekeeping(l) : bad;
        atomic_fetch_add(&l->self->row->ops, 1);
    }
    return NULL;
}

/* power-write WRITER [writers=N] [ops=N] [sync=PERCENT] [durable] [lazy] [failing] [seed=N]: commits of N
 * writers, a thread each. lazy: hardly ever a sync or a flush. failing: a sync that fails is no surprise.
 * durable: what is not marked otherwise is, by the handle's options. */
static void loop_power(struct agent_self *a, const struct agent_line *line)
{
    struct power_loop l[POWER_WRITERS];
    pthread_t thread[POWER_WRITERS];
    unsigned first = (unsigned)atoi(line->word[0]), n = (unsigned)agent_number(line, "writers", 1);
    const char *wrong = NULL;
    n = first + n <= POWER_WRITERS ? n : 1;
    for (unsigned i = 0; i < n; i++) {
        l[i] = (struct power_loop){.self = a,
                                   .line = line,
                                   .db = agent_db(a),
                                   .writer = (first + i) % POWER_WRITERS,
                                   .seed = agent_number(line, "seed", 1) + i};
        if (i > 0 && os_thread_start(&thread[i], write_on, &l[i], "writer") != SHALE_OK) {
            snprintf(l[0].err, sizeof l[0].err, "no thread: %s", shale_errmsg());
            n = i;
        }
    }
    (void)write_on(&l[0]);
    for (unsigned i = 0; i < n; i++) {
        if (i > 0) {
            os_thread_join(thread[i]);
        }
        wrong = wrong == NULL && l[i].err[0] != '\0' ? l[i].err : wrong;
    }
    if (wrong != NULL) {
        agent_wrong(a, wrong);
    } else {
        agent_ok("%llu", (unsigned long long)l[0].count);
    }
}

/* power-close [interval]: whatever a handle with durable=interval owes is synced when it is closed. */
static void cmd_power_close(struct agent_self *a, const struct agent_line *line)
{
    int rc = shale_close(agent_db(a));
    a->db[a->current] = NULL;
    if (rc == SHALE_OK && agent_flag(line, "interval")) {
        promised(own);
    }
    memset(own, 0, sizeof own);
    agent_status(rc);
}

const struct agent_command agent_power[] = {
    {"power", 1, cmd_power},
    {"power-write", 1, loop_power},
    {"power-close", 0, cmd_power_close},
    {NULL, 0, NULL},
};
