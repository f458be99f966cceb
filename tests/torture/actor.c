#include "actor.h"

#include "lib/scratch.h"

#include <shale/lockq.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int hand_refused(struct hand *h, const char *what, int status)
{
    if (status == SHALE_OK) {
        return 0;
    }
    snprintf(h->err, sizeof h->err, "%s: %s: %s", what, shale_errname(status), shale_errmsg());
    groups_status = status;
    return -1;
}

int hand_wrong(struct hand *h, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(h->err, sizeof h->err, fmt, ap);
    va_end(ap);
    groups_status = SHALE_OK;
    return -1;
}

int actor_progress(void *ctx, uint64_t done, uint64_t total)
{
    struct actor *a = ctx;
    (void)done, (void)total;
    atomic_fetch_add_explicit(&a->self->row->ops, 1, memory_order_relaxed);
    return 0;
}

bool actor_excuses(const struct actor *a, int status)
{
    struct stage *s = a->stage;
    int64_t now = os_now();
    switch (status) {
    case SHALE_BUSY: return !a->patient;
    case SHALE_NOSPC: return now < atomic_load(&s->full_until);
    case SHALE_PANIC: return now < atomic_load(&s->panic_until) || now < atomic_load(&a->fault_until);
    case SHALE_IO: return now < atomic_load(&a->fault_until);
    case SHALE_CANCELLED: return atomic_load(&a->interrupted);
    default: return false;
    }
}

/* After a refusal: count it, and do what its reader is told to do. */
static void bear(struct actor *a, int status)
{
    struct stage *s = a->stage;
    switch (status) {
    case SHALE_BUSY: stage_count(s, STAGE_busy); return;
    case SHALE_CANCELLED: stage_count(s, STAGE_cancelled); return;
    case SHALE_NOSPC: stage_count(s, STAGE_no_space); break;
    default:
        stage_count(s, STAGE_panics);
        if (a->db != NULL && !a->readonly && shale_flush(a->db) != SHALE_OK) {
            atomic_store(&a->reopen, true);
        }
        break;
    }
    os_nap(5000000);
}

static bool fits(const struct hand *h, const struct deed *deed)
{
    const struct actor *a = h->actor;
    return ((deed->needs & DEED_WRITES) == 0 || !a->readonly) &&
           ((deed->needs & DEED_RING) == 0 || h->ring.ring < STAGE_RINGS) &&
           ((deed->needs & DEED_FULL) == 0 || a->full) && ((deed->needs & DEED_BREAKS) == 0 || a->breaks) &&
           ((deed->needs & DEED_THREADS) == 0 || a->hands > 1);
}

static const struct deed *choose(struct hand *h)
{
    uint64_t sum = 0;
    for (const struct deed *d = deeds; d->name != NULL; d++) {
        sum += fits(h, d) ? d->weight : 0;
    }
    uint64_t left = hand_dice(h, sum);
    for (const struct deed *d = deeds;; d++) {
        uint64_t weight = fits(h, d) ? d->weight : 0;
        if (left < weight) {
            return d;
        }
        left -= weight;
    }
}

static void *act(void *ctx)
{
    struct hand *h = ctx;
    struct actor *a = h->actor;
    struct agent_self *self = a->self;
    for (; h->rounds > 0 && atomic_load(&self->board->stop) == 0 && atomic_load(&self->row->broken) == 0 &&
           !atomic_load(&a->reopen);
         h->rounds--) {
        const struct deed *deed = choose(h);
        h->nowait = false;
        atomic_store(&a->stage->actor[self->id].doing[h->index], (uint32_t)(deed - deeds) + 1);
        if (deed->run(h) != 0) {
            bool waited = (deed->needs & DEED_MAY_BUSY) == 0 && !h->nowait;
            if (groups_status == SHALE_OK ||
                !(actor_excuses(a, groups_status) || (groups_status == SHALE_BUSY && !waited))) {
                h->wrong = true;
                char text[GROUPS_ERR];
                snprintf(text, sizeof text, "%s: %.*s", deed->name, GROUPS_ERR - 32, h->err);
                snprintf(h->err, sizeof h->err, "%s", text);
                atomic_store(&self->row->broken, 1);
                break;
            }
            bear(a, groups_status);
        }
        (void)actor_progress(a, 0, 0);
        if (h->index == 0 && atomic_load(&a->shut_until) != 0 && os_now() > atomic_load(&a->shut_until)) {
            (void)agent_door_open();
            atomic_store(&a->shut_until, 0);
        }
    }
    atomic_store(&a->stage->actor[self->id].doing[h->index], 0);
    return NULL;
}

/* ---- one opening ---- */

static void on_log(void *ctx, int level, const char *line)
{
    struct actor *a = ctx;
    (void)level;
    if (strstr(line, ": recovered ") != NULL) {
        stage_count(a->stage, STAGE_recoveries);
    }
}

/* The handle and the locks, however often it takes; false: stopped, or wrong. */
static bool open_all(struct actor *a, struct hand *h)
{
    for (;;) {
        int rc = shale_open(a->dir, a->options, &a->db);
        if (rc == SHALE_OK) {
            rc = shale_lockq_open(a->dir, 0600, &a->locks);
        }
        if (rc == SHALE_OK) {
            stage_count(a->stage, STAGE_opens);
            return true;
        }
        if (!actor_excuses(a, rc) && !(rc == SHALE_NODB && a->readonly)) {
            hand_refused(h, "shale_open", rc);
            h->wrong = true;
            return false;
        }
        (void)shale_close(a->db);
        a->db = NULL;
        os_nap(2000000);
        if (atomic_load(&a->self->board->stop) != 0) {
            return false;
        }
        if (atomic_load(&a->shut_until) != 0 && os_now() > atomic_load(&a->shut_until)) {
            (void)agent_door_open();
            atomic_store(&a->shut_until, 0);
        }
    }
}

static void release_held(struct hand *h)
{
    for (unsigned i = 0; i < ACTOR_HELD; i++) {
        shale_snapshot_release(h->held[i].snap);
        h->held[i].snap = NULL;
    }
}

static void close_all(struct actor *a, struct hand *hands)
{
    bool late = hand_dice(&hands[0], 2) == 0; /* snapshots may outlive their handle */
    for (unsigned i = 0; i < a->hands && !late; i++) {
        release_held(&hands[i]);
    }
    shale_lockq_close(a->locks);
    a->locks = NULL;
    int rc = shale_close(a->db);
    a->db = NULL;
    for (unsigned i = 0; i < a->hands && late; i++) {
        release_held(&hands[i]);
    }
    if (rc != SHALE_OK && !actor_excuses(a, rc) && !hands[0].wrong) {
        hand_refused(&hands[0], "shale_close", rc);
        hands[0].wrong = true;
    }
}

static bool any_wrong(const struct actor *a, const struct hand *hands)
{
    bool wrong = false;
    for (unsigned i = 0; i < a->hands; i++) {
        wrong = wrong || hands[i].wrong;
    }
    return wrong;
}

/* Opens, lets the hands work for some rounds, closes. */
static void appear(struct actor *a, struct hand *hands)
{
    if (!open_all(a, &hands[0])) {
        return;
    }
    uint64_t rounds = hand_dice(&hands[0], 3) == 0 ? UINT64_MAX : 30 + hand_dice(&hands[0], 3000);
    unsigned started = 1;
    atomic_store(&a->reopen, false);
    for (unsigned i = 0; i < a->hands; i++) {
        hands[i].rounds = rounds;
    }
    for (; started < a->hands; started++) {
        if (os_thread_start(&hands[started].thread, act, &hands[started], "hand") != SHALE_OK) {
            hand_wrong(&hands[0], "no thread: %s", shale_errmsg());
            hands[0].wrong = true;
            break;
        }
    }
    (void)act(&hands[0]);
    for (unsigned i = 1; i < started; i++) {
        os_thread_join(hands[i].thread);
    }
    close_all(a, hands);
}

/* ---- commands ---- */

static int set_options(struct actor *a, const struct agent_line *line)
{
    static const char *const own[] = {"seed", "hands", "first", "full", "breaks"};
    int rc = shale_options_create(&a->options);
    for (unsigned i = 2; i < line->count && rc == SHALE_OK; i++) {
        char name[64];
        bool mine = false;
        const char *eq = strchr(line->word[i], '=');
        snprintf(name, sizeof name, "%.*s", eq != NULL ? (int)(eq - line->word[i]) : 0, line->word[i]);
        for (size_t j = 0; j < BASE_COUNT(own); j++) {
            mine = mine || strcmp(name, own[j]) == 0;
        }
        rc = mine ? SHALE_OK : shale_options_set(a->options, name, eq != NULL ? eq + 1 : "");
    }
    if (rc == SHALE_OK) {
        a->readonly = a->options->readonly;
        a->patient = a->options->timeout_ms < 0 && a->options->wait != SHALE_WAIT_NONE;
        a->options->log = on_log;
        a->options->log_ctx = a;
    }
    return rc;
}

/* act FILE DIR seed=N hands=N first=N [full=1] [breaks=1] [option=value...] */
static void cmd_act(struct agent_self *self, const struct agent_line *line)
{
    static struct actor a;
    static struct hand hands[STAGE_THREADS];
    a = (struct actor){.self = self, .dir = line->word[1], .stage = stage_map(line->word[0], false)};
    a.hands = (unsigned)agent_number(line, "hands", 1) % (STAGE_THREADS + 1);
    a.first = (unsigned)agent_number(line, "first", STAGE_RINGS);
    a.full = agent_number(line, "full", 0) != 0;
    a.breaks = agent_number(line, "breaks", 0) != 0;
    int rc = a.stage == NULL ? SHALE_IO : set_options(&a, line);
    if (rc != SHALE_OK) {
        agent_wrong(self, shale_errmsg());
        return;
    }
    memset(hands, 0, sizeof hands);
    for (unsigned i = 0; i < a.hands; i++) {
        hands[i].actor = &a;
        hands[i].index = i;
        hands[i].ring.ring = a.first < STAGE_RINGS ? a.first + i : STAGE_RINGS;
        hands[i].seed = agent_number(line, "seed", 1) * STAGE_THREADS + i;
    }
    while (atomic_load(&self->board->stop) == 0 && !any_wrong(&a, hands)) {
        appear(&a, hands);
    }
    (void)agent_door_open();
    shale_options_destroy(a.options);
    for (unsigned i = 0; i < a.hands; i++) {
        if (hands[i].wrong) {
            agent_wrong(self, hands[i].err);
            return;
        }
    }
    agent_ok("%llu", (unsigned long long)atomic_load(&self->row->ops));
}

/* ---- checking by one who was not there ---- */

static int check_rings(struct hand *h)
{
    struct actor *a = h->actor;
    struct stage_bounds bounds;
    int rc = 0;
    ring_note_low(a->stage, &bounds);
    ring_note_high(a->stage, &bounds);
    for (unsigned i = 0; i < STAGE_RINGS && rc == 0; i++) {
        for (int how = 0; how < RING_HOW_COUNT && rc == 0; how++) {
            rc = ring_read(a->db, NULL, i, (enum ring_how)how, &bounds, &h->seed, h->err);
        }
        if (rc == 0) {
            rc = ring_read_solo(a->db, a->stage, i, h->err);
        }
    }
    return rc;
}

static int check_everything(struct hand *h, const char *dir)
{
    struct actor *a = h->actor;
    struct board *b = a->self->board;
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    o.create = false;
    o.log = on_log;
    o.log_ctx = a;
    int rc = hand_refused(h, "shale_open", shale_open(dir, &o, &a->db));
    for (int how = 0; how < GROUPS_HOW_COUNT && rc == 0; how++) {
        rc = groups_check(a->db, b, STAGE_GROUPS, (enum groups_how)how, h->err);
    }
    if (rc == 0) {
        rc = counters_check(a->db, b, BOARD_COUNTERS, h->err);
    }
    if (rc == 0) {
        rc = check_rings(h);
    }
    if (rc == 0) {
        rc = hand_refused(h, "shale_verify", shale_verify(a->db, actor_progress, a));
    }
    return rc;
}

static void check_and_answer(struct agent_self *self, const struct agent_line *line, const char *dir,
                             const char *repair_from)
{
    struct actor a = {.self = self, .stage = stage_map(line->word[0], false)};
    struct hand h = {.actor = &a, .seed = 1};
    shale_stats stats = {.size = sizeof stats};
    int rc = a.stage == NULL ? hand_wrong(&h, "no stage") : 0;
    if (rc == 0 && repair_from != NULL) {
        rc = hand_refused(&h, "shale_repair", shale_repair(repair_from, dir, NULL, NULL, NULL));
    }
    if (rc == 0) {
        rc = check_everything(&h, dir);
    }
    if (rc == 0) {
        rc = hand_refused(&h, "shale_stat", shale_stat(a.db, &stats));
    }
    int closed = shale_close(a.db);
    if (rc != 0) {
        agent_wrong(self, h.err);
    } else if (closed != SHALE_OK) {
        agent_status(closed);
    } else {
        agent_ok("%llu %llu %llu", (unsigned long long)stats.flushes, (unsigned long long)stats.compactions,
                 (unsigned long long)stats.disk_bytes);
    }
}

/* check-all FILE DIR: everything in every way; answers flushes, compactions, bytes on disk */
static void cmd_check(struct agent_self *self, const struct agent_line *line)
{
    check_and_answer(self, line, line->word[1], NULL);
}

/* repair-all FILE DIR INTO: the same of what repair makes of it */
static void cmd_repair(struct agent_self *self, const struct agent_line *line)
{
    check_and_answer(self, line, line->word[2], line->word[1]);
}

const struct agent_command stage_commands[] = {
    {"act", 2, cmd_act},
    {"check-all", 2, cmd_check},
    {"repair-all", 3, cmd_repair},
    {NULL, 0, NULL},
};
