#include "torture.h"

#include <dirent.h>
#include <poll.h>
#include <shale/lockq.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#define SAY_NS     INT64_C(10000000000)
#define STUCK_NS   INT64_C(60000000000)
#define SILENCE_NS INT64_C(120000000000)
#define LOOK_NS    INT64_C(100000000) /* a longer time between two looks is not held against anybody */

static void vlog(struct torture *t, const char *fmt, va_list ap) BASE_PRINTF(2, 0);
static void vlog(struct torture *t, const char *fmt, va_list ap)
{
    fprintf(t->log, "%9.3f ", (double)(os_now() - t->start) / 1e9);
    vfprintf(t->log, fmt, ap);
    fputc('\n', t->log);
    fflush(t->log);
}

void torture_log(struct torture *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vlog(t, fmt, ap);
    va_end(ap);
}

/* ---- when it is broken ---- */

static void log_file(struct torture *t, const char *path)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    close(fd);
    if (n > 0) {
        text[n] = '\0';
        torture_log(t, "  %s: %s", path, text);
    }
}

/* System calls, kernel stacks, and what gdb says, if it is there. */
static void log_stacks(struct torture *t, pid_t pid)
{
    static const char *const files[] = {"comm", "wchan", "syscall", "stack"};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        for (size_t i = 0; e->d_name[0] != '.' && i < BASE_COUNT(files); i++) {
            snprintf(path, sizeof path, "/proc/%d/task/%s/%s", (int)pid, e->d_name, files[i]);
            log_file(t, path);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    snprintf(path, sizeof path, "timeout 30 gdb -batch -p %d -ex 'thread apply all bt' >>%s.stacks 2>&1",
             (int)pid, t->log_path);
    if (system(path) == 0) {
        torture_log(t, "  gdb's view is in %s.stacks", t->log_path);
    }
}

static void log_victim(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    struct board_agent *row = &t->board->agent[i];
    char doing[STAGE_THREADS * 24] = "";
    for (unsigned h = 0; h < v->hands; h++) {
        size_t n = strlen(doing);
        snprintf(doing + n, sizeof doing - n, " %s", stage_doing(atomic_load(&t->stage->actor[i].doing[h])));
    }
    torture_log(t, "actor %u pid %d %s, last at %s, doing%s, %llu ops, stuck %.1f s, starving %.1f s%s%s", i,
                (int)v->agent.pid,
                !v->live     ? "dead"
                : v->stopped ? "stopped"
                             : "running",
                os_mark_name((enum os_mark)atomic_load(&row->mark)), doing,
                (unsigned long long)atomic_load(&row->ops), (double)v->stuck_ns / 1e9,
                (double)v->starving_ns / 1e9, row->broken != 0 ? ", WRONG: " : "",
                row->broken != 0 ? row->text : "");
}

static int log_ticket(void *ctx, const shale_ticket *k)
{
    torture_log(ctx, "lock \"%s\": %s %llu pid %lld%s %s", k->name, k->holder ? "held" : "waited for",
                (unsigned long long)k->number, (long long)k->pid, k->stopped ? " stopped" : "",
                k->exclusive ? "exclusive" : "shared");
    return 0;
}

static void log_everybody(struct torture *t)
{
    shale_lockq *q = NULL;
    for (unsigned i = 0; i < t->count; i++) {
        log_victim(t, i);
    }
    if (shale_lockq_open(t->dir, 0600, &q) == SHALE_OK) {
        (void)shale_lockq_list(q, NULL, log_ticket, t);
        shale_lockq_close(q);
    }
}

void torture_broken(struct torture *t, int suspect, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    torture_log(t, "BROKEN: %s", text);
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live) {
            kill(t->victim[i].agent.pid, SIGSTOP); /* the directory is to stay as it is */
        }
    }
    log_everybody(t);
    if (suspect >= 0 && t->victim[suspect].live) {
        log_stacks(t, t->victim[suspect].agent.pid);
    }
    ck_abort_msg("%s", text);
}

/* ---- watching ---- */

static void see_death(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    int status = 0;
    if (waitpid(v->agent.pid, &status, WNOHANG) != v->agent.pid) {
        return;
    }
    if (!v->mortal || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        torture_broken(t, -1, "actor %u (pid %d) ended unasked with status %#x (%s), last at %s", i,
                       (int)v->agent.pid, (unsigned)status,
                       WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit",
                       os_mark_name((enum os_mark)atomic_load(&t->board->agent[i].mark)));
    }
    torture_log(t, "%u killed itself at %s", i,
                os_mark_name((enum os_mark)atomic_load(&t->board->agent[i].mark)));
    t->own_kills++;
    victim_died(t, i);
}

static void see_answer(struct torture *t, unsigned i)
{
    struct victim *v = &t->victim[i];
    struct pollfd p = {.fd = v->agent.from, .events = POLLIN};
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0) {
        const char *text = agent_wait(&v->agent, 1000);
        torture_broken(t, -1, "actor %u (%s): %s", i, v->how, text != NULL ? text : "?");
    }
}

static bool anybody_stopped(const struct torture *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live && t->victim[i].stopped) {
            return true;
        }
    }
    return false;
}

/* A fault is on, or just over: who writes may have to wait. */
static bool trouble(const struct torture *t)
{
    int64_t now = os_now();
    return now < atomic_load(&t->stage->full_until) || now < atomic_load(&t->stage->panic_until);
}

static void look_at(struct torture *t, unsigned i, int64_t ns, bool others, bool others_commit)
{
    struct victim *v = &t->victim[i];
    uint64_t ops = atomic_load(&t->board->agent[i].ops), commits = atomic_load(&t->stage->actor[i].commits);
    v->stuck_ns = ops != v->ops ? 0 : others ? v->stuck_ns + ns : v->stuck_ns;
    v->starving_ns = commits != v->commits || v->readonly || !v->patient || trouble(t) ? 0
                     : others_commit                                                   ? v->starving_ns + ns
                                                                                       : v->starving_ns;
    v->ops = ops;
    v->commits = commits;
    if (v->stuck_ns > STUCK_NS) {
        torture_broken(t, (int)i, "actor %u does not get on for %.0f s, while others do", i,
                       (double)v->stuck_ns / 1e9);
    }
    if (v->starving_ns > 2 * STUCK_NS) {
        torture_broken(t, (int)i, "actor %u commits nothing for %.0f s, while others do", i,
                       (double)v->starving_ns / 1e9);
    }
}

static void look_for_standstill(struct torture *t)
{
    int64_t now = os_now(), ns = now - t->looked;
    uint64_t ops = 0, commits = atomic_load(&t->stage->count[STAGE_commits]);
    if (ns < LOOK_NS) {
        return;
    }
    t->looked = now;
    ns = anybody_stopped(t) ? 0 : ns < 2 * LOOK_NS ? ns : LOOK_NS;
    for (unsigned i = 0; i < t->count; i++) {
        ops += atomic_load(&t->board->agent[i].ops);
    }
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live) {
            look_at(t, i, ns, ops != t->all_ops, commits != t->all_commits);
        }
    }
    t->silence_ns = ops != t->all_ops ? 0 : t->silence_ns + ns;
    if (t->silence_ns > SILENCE_NS) {
        torture_broken(t, 0, "nobody gets on for %.0f s", (double)t->silence_ns / 1e9);
    }
    t->all_ops = ops;
    t->all_commits = commits;
}

static void look_at_size(struct torture *t)
{
    struct statvfs vfs;
    uint64_t bytes = scratch_disk_bytes(t->dir);
    t->most_bytes = bytes > t->most_bytes ? bytes : t->most_bytes;
    if (t->disk == NULL) {
        t->renew = t->renew || bytes > UINT64_C(2) << 30;
    } else if (t->ballast_until == 0 && statvfs(t->disk, &vfs) == 0 && vfs.f_bavail < vfs.f_blocks / 5) {
        torture_log(t, "the disk gets full by itself: the database has %llu MiB",
                    (unsigned long long)bytes >> 20);
        stage_excuse(&t->stage->full_until, os_now() + STAGE_GRACE_NS);
        t->renew = true;
    }
}

static void say(struct torture *t)
{
    struct stage *s = t->stage;
    unsigned live = 0;
    for (unsigned i = 0; i < t->count; i++) {
        live += t->victim[i].live;
    }
    printf("%6.0f s: phase %u, %u processes; %llu commits, %llu reads, %u kills, %u stops, %llu recoveries, "
           "%llu "
           "checkpoints checked, %llu MiB\n",
           (double)(os_now() - t->start) / 1e9, t->phases, live, (unsigned long long)s->count[STAGE_commits],
           (unsigned long long)(s->count[STAGE_reads] + s->count[STAGE_rereads]), t->kills + t->own_kills,
           t->stops, (unsigned long long)s->count[STAGE_recoveries],
           (unsigned long long)s->count[STAGE_copies_checked],
           (unsigned long long)scratch_disk_bytes(t->dir) >> 20);
    fflush(stdout);
}

void torture_watch(struct torture *t)
{
    for (unsigned i = 0; i < t->count; i++) {
        if (t->victim[i].live) {
            see_answer(t, i);
        }
        if (t->victim[i].live) {
            see_death(t, i);
        }
    }
    look_for_standstill(t);
    if (os_now() - t->said > SAY_NS) {
        t->said = os_now();
        look_at_size(t);
        say(t);
    }
}

void torture_summary(struct torture *t)
{
    struct stage *s = t->stage;
    uint64_t rotations = 0;
    for (unsigned i = 0; i < BOARD_AGENTS; i++) {
        rotations += atomic_load(&t->board->agent[i].passed[OS_MARK_ROTATE]) / 2;
    }
    printf("torture: %.1f minutes, seed %llu, up to %u processes, %s: nothing broken\n",
           (double)(os_now() - t->start) / 60e9, (unsigned long long)t->seed, t->procs,
           t->disk != NULL ? "disk of its own" : "no disk of its own");
    printf("  %u phases, %u databases, %u kills (%u times all at once), %u killed themselves at a mark, %u "
           "stops, %u "
           "full disks, %u checks by who was not there, %u repairs\n",
           t->phases, t->databases, t->kills, t->at_once, t->own_kills, t->stops, t->full_disks, t->checks,
           t->repairs);
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        printf("  %s %llu", stage_count_names[i], (unsigned long long)s->count[i]);
    }
    printf("\n  flushes %llu  compactions %llu  rotations %llu  longest commit %.0f ms (stops included)  "
           "largest database "
           "%llu MiB\n",
           (unsigned long long)(t->flushes + s->flushes),
           (unsigned long long)(t->compactions + s->compactions), (unsigned long long)rotations,
           (double)s->longest_ns / 1e6, (unsigned long long)t->most_bytes >> 20);
    fflush(stdout);
}
