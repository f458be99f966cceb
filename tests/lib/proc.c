#include "lib.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct board *the_board;
static char board_path[PATH_MAX];

struct board *proc_board(void)
{
    snprintf(board_path, sizeof board_path, "%s/board-%d", scratch_root(), (int)getpid());
    unlink(board_path);
    the_board = board_make(board_path);
    ck_assert_ptr_nonnull(the_board);
    return the_board;
}

static void child(int in, int out, unsigned id, uid_t uid)
{
    char row[16], user[16];
    snprintf(row, sizeof row, "%u", id);
    snprintf(user, sizeof user, "%u", (unsigned)uid);
    in = fcntl(in, F_DUPFD, 10); /* out of the way of each other */
    out = fcntl(out, F_DUPFD, 10);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0) {
        _exit(126);
    }
    for (int fd = 3; fd < 256; fd++) {
        close(fd);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl("/proc/self/exe", "agent", AGENT_ARGUMENT, row, board_path, user, (char *)NULL);
    _exit(127);
}

void agent_start_as(struct agent *a, unsigned id, uid_t uid)
{
    int to[2], from[2];
    ck_assert_ptr_nonnull(the_board);
    ck_assert_uint_lt(id, BOARD_AGENTS);
    ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(from, O_CLOEXEC), 0);
    struct board_agent *row = &the_board->agent[id];
    atomic_store(&row->parked, 0);
    atomic_store(&row->let_go, 0);
    *a = (struct agent){.id = id, .board = the_board};
    a->pid = fork();
    ck_assert_int_ge(a->pid, 0);
    if (a->pid == 0) {
        child(to[0], from[1], id, uid);
    }
    close(to[0]);
    close(from[1]);
    a->to = to[1];
    a->from = from[0];
}

void agent_start(struct agent *a, unsigned id)
{
    agent_start_as(a, id, 0);
}

static bool tell(struct agent *a, bool may_be_gone, const char *fmt, va_list ap) BASE_PRINTF(3, 0);
static bool tell(struct agent *a, bool may_be_gone, const char *fmt, va_list ap)
{
    char line[4096];
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    ck_assert_int_gt(n, 0);
    ck_assert_int_lt(n, (int)sizeof line - 1);
    ck_assert_msg(a->pid != 0, "no agent %u to tell: %s", a->id, line);
    line[n] = '\n';
    ssize_t written = write(a->to, line, (size_t)n + 1);
    if (written < 0 && errno == EPIPE && may_be_gone) {
        return false;
    }
    ck_assert_msg(written == n + 1, "agent %u is gone, it cannot be told: %.*s", a->id, n, line);
    return true;
}

void agent_tell(struct agent *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)tell(a, false, fmt, ap);
    va_end(ap);
}

bool agent_try_tell(struct agent *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bool told = tell(a, true, fmt, ap);
    va_end(ap);
    return told;
}

/* How it ended, for a message. */
static void describe_end(struct agent *a, char *text, size_t size)
{
    int status = 0;
    pid_t pid = waitpid(a->pid, &status, WNOHANG);
    const char *mark = os_mark_name((enum os_mark)atomic_load(&a->board->agent[a->id].mark));
    if (pid != a->pid) {
        snprintf(text, size, "still alive, last at %s", mark);
    } else if (WIFSIGNALED(status)) {
        snprintf(text, size, "signal %d (%s), last at %s", WTERMSIG(status), strsignal(WTERMSIG(status)),
                 mark);
    } else {
        snprintf(text, size, "exit status %d, last at %s", WEXITSTATUS(status), mark);
    }
}

static int64_t now_ms(void)
{
    return os_now() / 1000000;
}

/* *ended: it is gone without an answer. What has come when the time is over is the beginning of what the next
 * call returns. */
static const char *wait_line(struct agent *a, int ms, bool *ended)
{
    int64_t end = now_ms() + ms;
    for (;;) {
        struct pollfd p = {.fd = a->from, .events = POLLIN};
        int64_t left = end - now_ms();
        int rc = left <= 0 ? 0 : poll(&p, 1, (int)left);
        if (rc <= 0) {
            return NULL;
        }
        ssize_t got = read(a->from, a->answer + a->had, 1);
        if (got <= 0) {
            *ended = true;
            return NULL;
        }
        if (a->answer[a->had] == '\n') {
            a->answer[a->had] = '\0';
            a->had = 0;
            return a->answer;
        }
        a->had = a->had + 1 < sizeof a->answer ? a->had + 1 : a->had;
    }
}

const char *agent_wait(struct agent *a, int ms)
{
    bool ended = false;
    const char *text = wait_line(a, ms, &ended);
    if (ended) {
        char how[128];
        os_nap(20000000);
        describe_end(a, how, sizeof how);
        a->pid = 0;
        ck_abort_msg("agent %u ended unasked: %s", a->id, how);
    }
    return text;
}

const char *agent_last_words(struct agent *a)
{
    bool ended = false;
    const char *text = wait_line(a, PROC_ANSWER_MS, &ended);
    ck_assert_msg(text != NULL || ended, "agent %u neither answers nor ends", a->id);
    return text;
}

static const char *answer(struct agent *a)
{
    const char *text = agent_wait(a, PROC_ANSWER_MS);
    ck_assert_msg(text != NULL, "agent %u (pid %d) did not answer within %d s, last at %s", a->id,
                  (int)a->pid, PROC_ANSWER_MS / 1000,
                  os_mark_name((enum os_mark)atomic_load(&a->board->agent[a->id].mark)));
    return text;
}

const char *agent_ask(struct agent *a, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)tell(a, false, fmt, ap);
    va_end(ap);
    return answer(a);
}

const char *agent_done(struct agent *a)
{
    const char *text = answer(a);
    ck_assert_msg(strncmp(text, "ok", 2) == 0, "agent %u: %s", a->id, text);
    return text[2] == ' ' ? text + 3 : text + 2;
}

const char *agent_must(struct agent *a, const char *fmt, ...)
{
    char what[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    va_start(ap, fmt);
    (void)tell(a, false, fmt, ap);
    va_end(ap);
    const char *text = answer(a);
    ck_assert_msg(strncmp(text, "ok", 2) == 0, "agent %u, told %s: %s", a->id, what, text);
    return text[2] == ' ' ? text + 3 : text + 2;
}

void agent_signal(struct agent *a, int sig)
{
    ck_assert_int_gt(a->pid, 0);
    ck_assert_int_eq(kill(a->pid, sig), 0);
}

void agent_stop(struct agent *a)
{
    int status;
    agent_signal(a, SIGSTOP);
    ck_assert_int_eq(waitpid(a->pid, &status, WUNTRACED), a->pid);
    ck_assert_msg(WIFSTOPPED(status), "agent %u did not stop: status %#x", a->id, status);
}

static void forget(struct agent *a)
{
    close(a->to);
    close(a->from);
    a->pid = 0;
}

void agent_reap(struct agent *a)
{
    int status;
    ck_assert_int_eq(waitpid(a->pid, &status, 0), a->pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                  "agent %u was to be killed, but ended with status %#x", a->id, status);
    forget(a);
}

void agent_kill(struct agent *a)
{
    agent_signal(a, SIGKILL);
    agent_reap(a);
}

void agent_quit(struct agent *a)
{
    int status = 0;
    char last[64];
    agent_tell(a, "quit");
    (void)agent_wait(a, PROC_ANSWER_MS);
    pid_t got = 0;
    for (int i = 0; i < 3000 && got == 0; i++) {
        got = waitpid(a->pid, &status, WNOHANG);
        if (got == 0) {
            os_nap(i < 100 ? 1000000 : 10000000);
        }
    }
    snprintf(last, sizeof last, "%s", os_mark_name((enum os_mark)atomic_load(&a->board->agent[a->id].mark)));
    ck_assert_msg(got == a->pid, "agent %u does not end, last at %s", a->id, last);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "agent %u ended with status %#x", a->id,
                  status);
    forget(a);
}

static bool has_answered(const struct agent *a)
{
    struct pollfd p = {.fd = a->from, .events = POLLIN};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0;
}

bool agent_parked(struct agent *a, int ms)
{
    int64_t end = now_ms() + ms;
    while (atomic_load(&a->board->agent[a->id].parked) == 0) {
        int status;
        if (now_ms() >= end || has_answered(a)) {
            return false;
        }
        if (waitpid(a->pid, &status, WNOHANG) == a->pid) {
            a->pid = 0;
            ck_abort_msg("agent %u ended unasked with status %#x, last at %s", a->id, status,
                         os_mark_name((enum os_mark)atomic_load(&a->board->agent[a->id].mark)));
        }
        os_nap(200000);
    }
    return true;
}

void agent_unpark(struct agent *a)
{
    atomic_store(&a->board->agent[a->id].let_go, 1);
}

void agent_progress(struct agent *a, uint64_t n, int ms)
{
    struct board_agent *row = &a->board->agent[a->id];
    uint64_t want = atomic_load(&row->ops) + n;
    int64_t end = now_ms() + 5 * (int64_t)ms; /* ms is meant for a machine that has little else to do */
    while (atomic_load(&row->ops) < want) {
        ck_assert_msg(atomic_load(&row->broken) == 0, "agent %u: %s", a->id, row->text);
        ck_assert_msg(now_ms() < end, "agent %u does not get on: %d ms at %s", a->id, ms,
                      os_mark_name((enum os_mark)atomic_load(&row->mark)));
        os_nap(200000);
    }
}

void agents_sound(struct board *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert_msg(atomic_load(&b->agent[i].broken) == 0, "agent %u: %s", i, b->agent[i].text);
    }
}
