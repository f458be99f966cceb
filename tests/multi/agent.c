#include "agent.h"

#include "lib/lib.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>

static void answer(const char *text)
{
    char line[4096];
    size_t n = 0;
    for (; *text != '\0' && n < sizeof line - 1; text++) {
        line[n++] = *text == '\n' ? ' ' : *text;
    }
    line[n++] = '\n';
    for (size_t done = 0; done < n;) {
        ssize_t written = write(STDOUT_FILENO, line + done, n - done);
        if (written < 0) {
            _exit(3); /* the test is gone */
        }
        done += (size_t)written;
    }
}

void agent_ok(const char *fmt, ...)
{
    char text[4000] = "ok ";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + 3, sizeof text - 3, fmt, ap);
    va_end(ap);
    answer(text);
}

void agent_status(int status)
{
    char text[4000];
    if (status == SHALE_OK) {
        answer("ok");
        return;
    }
    snprintf(text, sizeof text, "%s %s", shale_errname(status),
             status == SHALE_NOTFOUND ? "" : shale_errmsg());
    answer(text);
}

void agent_wrong(struct agent_self *a, const char *text)
{
    char line[700];
    snprintf(a->row->text, sizeof a->row->text, "%s", text);
    atomic_store(&a->row->broken, 1);
    snprintf(line, sizeof line, "WRONG %s", text);
    answer(line);
}

uint64_t agent_number(const struct agent_line *line, const char *name, uint64_t otherwise)
{
    size_t n = strlen(name);
    for (unsigned i = 0; i < line->count; i++) {
        if (strncmp(line->word[i], name, n) == 0 && line->word[i][n] == '=') {
            return strtoull(line->word[i] + n + 1, NULL, 0);
        }
    }
    return otherwise;
}

bool agent_flag(const struct agent_line *line, const char *name)
{
    for (unsigned i = 0; i < line->count; i++) {
        if (strcmp(line->word[i], name) == 0) {
            return true;
        }
    }
    return false;
}

unsigned agent_write_flags(const struct agent_line *line)
{
    return (agent_flag(line, "sync") ? SHALE_SYNC : 0u) | (agent_flag(line, "nosync") ? SHALE_NOSYNC : 0u) |
           (agent_flag(line, "nowait") ? SHALE_NOWAIT : 0u);
}

static bool dispatch(struct agent_self *a, const struct agent_command *table, const char *name,
                     const struct agent_line *line)
{
    for (const struct agent_command *c = table; c->name != NULL; c++) {
        if (strcmp(c->name, name) == 0) {
            if (line->count < c->words) {
                answer("USAGE too few words");
            } else {
                c->run(a, line);
            }
            return true;
        }
    }
    return false;
}

const struct agent_command *agent_own;

static void obey(struct agent_self *a, char *text)
{
    struct agent_line line = {0};
    char *rest = NULL, *name = strtok_r(text, " \n", &rest), *word;
    while (name != NULL && line.count < AGENT_WORDS && (word = strtok_r(NULL, " \n", &rest)) != NULL) {
        line.word[line.count++] = word;
    }
    if (name == NULL ||
        ((agent_own == NULL || !dispatch(a, agent_own, name, &line)) &&
         !dispatch(a, agent_commands, name, &line) && !dispatch(a, agent_loops, name, &line) &&
         !dispatch(a, agent_hooks, name, &line) && !dispatch(a, agent_faults, name, &line))) {
        answer("USAGE no such command");
    }
}

/* argv: agent, AGENT_ARGUMENT, row, path of the board, user. */
int agent_main(int argc, char **argv)
{
    static char text[4096];
    struct agent_self a = {0};
    if (argc != 5 || (a.board = board_open(argv[3])) == NULL) {
        return 2;
    }
    uid_t uid = (uid_t)atoi(argv[4]);
    if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0)) {
        return 4;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* again: a change of user forgets it */
    a.id = (unsigned)atoi(argv[2]);
    a.row = &a.board->agent[a.id];
    signal(SIGPIPE, SIG_IGN);
    agent_hooks_set(&a);
    while (!a.quit && fgets(text, sizeof text, stdin) != NULL) {
        obey(&a, text);
    }
    board_close(a.board);
    return 0;
}
