#include "torture.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>

#define STOPPED_AT_MOST 3

uint64_t torture_dice(struct torture *t, uint64_t sides)
{
    return prng_next(&t->dice) % sides;
}

bool torture_chance(struct torture *t, unsigned percent)
{
    return torture_dice(t, 100) < percent;
}

/* ---- how an actor is started ---- */

static void add(struct victim *v, const char *fmt, ...) BASE_PRINTF(2, 3);
static void add(struct victim *v, const char *fmt, ...)
{
    size_t n = strlen(v->how);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->how + n, sizeof v->how - n, fmt, ap);
    va_end(ap);
}

static void choose_options(struct torture *t, struct victim *v)
{
    static const char *const durable[] = {"commit", "interval", "off", "off"};
    unsigned l0 = 2 + (unsigned)torture_dice(t, 5);
    v->how[0] = '\0';
    v->patient = torture_chance(t, 80);
    add(v, "threads=%u durable=%s sync_interval_ms=%u",
        torture_chance(t, 50) ? 0 : 1 + (unsigned)torture_dice(t, 2),
        durable[torture_dice(t, BASE_COUNT(durable))], 5u << torture_dice(t, 8));
    add(v, " memtable_bytes=%uK max_sealed=%u l0_compact=%u l0_stop=%u", 64u << torture_dice(t, 7),
        1 + (unsigned)torture_dice(t, 4), l0, l0 + 1 + (unsigned)torture_dice(t, 12));
    add(v, " target_table_bytes=%uK level_ratio=%u block_bytes=%u bloom_bits=%u compression=%s",
        64u << torture_dice(t, 6), 2 + (unsigned)torture_dice(t, 9), 512u << torture_dice(t, 5),
        5 * (unsigned)torture_dice(t, 3), torture_chance(t, 70) ? "lz4" : "none");
    add(v, " cache_bytes=%uK verify_checksums=%u", torture_chance(t, 20) ? 0 : 64u << torture_dice(t, 8),
        (unsigned)torture_dice(t, 2));
    if (!v->patient) {
        add(v, " timeout_ms=%u", (unsigned)torture_dice(t, 200));
    }
    add(v, " wait=%s",
        torture_chance(t, 80)                 ? "queue"
        : v->patient || torture_chance(t, 50) ? "backoff"
                                              : "none");
    if (v->readonly) {
        add(v, " readonly=1");
    }
    if (t->full && torture_chance(t, 30)) {
        add(v, " full=1");
    }
    if (t->breaks && torture_chance(t, 30)) {
        add(v, " breaks=1");
    }
}

void victim_start(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    choose_options(t, v);
    v->mortal = t->kill_ms != 0 && torture_chance(t, 25);
    v->stopped = false;
    v->stuck_ns = v->starving_ns = 0;
    agent_start(&v->agent, i);
    v->live = true;
    atomic_store(&t->stage->actor[i].doomed, v->mortal);
    if (v->mortal) {
        enum os_mark mark = (enum os_mark)(1 + torture_dice(t, OS_MARK_COUNT - 1));
        unsigned n = 1 + (unsigned)torture_dice(t, 1u << torture_dice(t, 11));
        agent_must(&v->agent, "die-at %s %u", os_mark_name(mark), n);
        add(v, " (dies at %s %u)", os_mark_name(mark), n);
    }
    agent_tell(&v->agent, "act %s %s seed=%llu hands=%u first=%u %.*s", t->stage_path, t->dir,
               (unsigned long long)(torture_dice(t, UINT32_MAX)), v->hands, v->first,
               (int)strcspn(v->how, "("), v->how);
    torture_log(t, "start %u (pid %d): %s, %u hands from %u: %s", i, (int)v->agent.pid,
                v->readonly ? "reader" : "writer", v->hands, v->first, v->how);
}

/* ---- its end ---- */

void victim_died(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    close(v->agent.to);
    close(v->agent.from);
    v->agent.pid = 0;
    v->live = v->stopped = false;
    for (unsigned c = 0; c < STAGE_COPIES; c++) {
        struct stage_copy *copy = &t->stage->copy[c];
        uint32_t word = atomic_load(&copy->word);
        char path[PATH_MAX];
        if (word == COPY_WORD(COPY_MAKING, i)) {
            atomic_store(&copy->torn, 1);
            atomic_store(&copy->word, COPY_MADE);
        } else if (word == COPY_WORD(COPY_CHECKING, i)) {
            atomic_store(&copy->word, COPY_MADE);
        } else if (word == COPY_WORD(COPY_REMOVING, i)) {
            stage_copy_path(t->dir, copy, path);
            (void)scratch_remove(path);
            atomic_store(&copy->word, COPY_FREE);
        }
    }
    for (unsigned l = 0; l < STAGE_LOCKS; l++) {
        uint32_t its = i + 1;
        atomic_compare_exchange_strong(&t->stage->lock[l].inside, &its, 0);
    }
}

static void reap(struct torture *t, unsigned i)
{
    int status = 0;
    pid_t pid = t->victim[i].agent.pid;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        torture_broken(t, -1, "actor %u was to be killed, but ended with status %#x: %s", i, (unsigned)status,
                       t->board->agent[i].text);
    }
    victim_died(t, i);
}

void victim_kill(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    torture_log(t, "kill %u%s at %s", i, v->stopped ? ", stopped," : "",
                os_mark_name((enum os_mark)atomic_load(&t->board->agent[i].mark)));
    atomic_store(&t->stage->actor[i].doomed, 1);
    kill(v->agent.pid, SIGKILL);
    reap(t, i);
    t->kills++;
}

void victims_kill(struct torture *t, bool writers_only)
{
    torture_log(t, "kill all%s", writers_only ? " writers" : "");
    t->at_once++;
    for (unsigned i = 0; i < t->count; i++) {
        struct victim *v = &t->victim[i];
        if (v->live && !(writers_only && v->readonly)) {
            atomic_store(&t->stage->actor[i].doomed, 1);
            kill(v->agent.pid, SIGKILL);
        }
    }
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live && !(writers_only && t->victim[i].readonly)) {
            t->kills++;
            reap(t, i);
        }
    }
}

/* ---- stops ---- */

void victims_continue(struct torture *t, bool all)
{
    int64_t now = os_now();
    for (unsigned i = 0; i < t->count; i++) {
        struct victim *v = &t->victim[i];
        if (v->live && v->stopped && (all || now >= v->continue_at)) {
            v->stopped = false;
            kill(v->agent.pid, SIGCONT);
        }
    }
}

static void stop_one(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    unsigned stopped = 0, ms = 1u << torture_dice(t, 12);
    for (unsigned j = 0; j < t->count; j++) {
        stopped += t->victim[j].stopped;
    }
    if (v->stopped || stopped >= STOPPED_AT_MOST) {
        return;
    }
    torture_log(t, "stop %u for %u ms at %s", i, ms,
                os_mark_name((enum os_mark)atomic_load(&t->board->agent[i].mark)));
    kill(v->agent.pid, SIGSTOP);
    v->stopped = true;
    v->continue_at = os_now() + (int64_t)ms * 1000000;
    t->stops++;
}

/* ---- a full disk ---- */

/* Takes all the room that there is on our own file system. */
static void ballast_take(struct torture *t)
{
    char path[PATH_MAX];
    off_t at = 0;
    snprintf(path, sizeof path, "%s/ballast", t->disk);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    stage_excuse(&t->stage->full_until, os_now() + STAGE_GRACE_NS);
    for (off_t chunk = 256 << 20; chunk >= 4096;) {
        if (posix_fallocate(fd, at, chunk) == 0) {
            at += chunk;
        } else {
            chunk /= 2;
        }
    }
    close(fd);
    t->ballast_until = os_now() + (int64_t)(50 << torture_dice(t, 7)) * 1000000;
    t->full_disks++;
    torture_log(t, "the disk is full: %lld bytes taken, for %lld ms", (long long)at,
                (long long)(t->ballast_until - os_now()) / 1000000);
}

void ballast_drop(struct torture *t)
{
    char path[PATH_MAX];
    if (t->ballast_until != 0) {
        snprintf(path, sizeof path, "%s/ballast", t->disk);
        unlink(path);
        t->ballast_until = 0;
        torture_log(t, "room again");
        stage_excuse(&t->stage->full_until, os_now() + STAGE_GRACE_NS);
    }
}

/* ---- what is due ---- */

static bool due(struct torture *t, unsigned mean_ms, int64_t ms)
{
    return mean_ms != 0 && torture_dice(t, mean_ms) < (uint64_t)ms;
}

static void restart_dead(struct torture *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (!t->victim[i].live && torture_chance(t, 30)) {
            victim_start(t, i);
        }
    }
}

void torment(struct torture *t, int64_t ms)
{
    unsigned i = (unsigned)torture_dice(t, t->count);
    victims_continue(t, false);
    if (t->ballast_until != 0) {
        stage_excuse(&t->stage->full_until, os_now() + STAGE_GRACE_NS);
        if (os_now() >= t->ballast_until) {
            ballast_drop(t);
        }
    } else if (t->disk != NULL && due(t, t->full_ms, ms)) {
        ballast_take(t);
    }
    if (due(t, t->at_once_ms, ms)) {
        victims_kill(t, torture_chance(t, 30));
    } else if (t->victim[i].live && due(t, t->kill_ms, ms)) {
        victim_kill(t, i);
    } else if (t->victim[i].live && due(t, t->stop_ms, ms)) {
        stop_one(t, i);
    }
    restart_dead(t);
}
