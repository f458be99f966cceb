#include "lockq_agent.h"

#include "agent.h"
#include "lib/lib.h"
#include "lockq/queue.h"
#include "torture.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define NAMESPACE_ARGUMENT "--in-a-namespace"
#define TURN_NS            250000
#define MOST_TICKETS       2048

static struct lockq *queue;
static shale_lockq *handle;
static shale_held *held;
static int dirfd = -1, lock_fd = -1;
static char path[PATH_MAX];
static struct lockq_lock the_lock;
static struct lockq_claim the_claim;
static struct lockq_ticket *tickets[MOST_TICKETS];

static int open_dir(const char *dir)
{
    snprintf(path, sizeof path, "%s", dir);
    int rc = os_open_dir(dir, &dirfd);
    if (rc == SHALE_OK) {
        rc = os_open(dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &lock_fd);
    }
    if (rc == SHALE_OK) {
        rc = lockq_open(dirfd, dir, 0600, &queue);
    }
    return rc == SHALE_OK ? shale_lockq_open(dir, 0600, &handle) : rc;
}

/* open DIR */
static void cmd_open(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    agent_status(open_dir(line->word[0]));
}

/* NAME (-: the write lock) [shared] [turn] */
static void describe(const struct agent_line *line)
{
    static char name[256];
    static uint64_t owner;
    bool write = strcmp(line->word[0], "-") == 0;
    if (owner == 0) {
        os_random(&owner, sizeof owner);
        owner |= 1;
    }
    snprintf(name, sizeof name, "%s", line->word[0]);
    the_lock = (struct lockq_lock){.slot = lockq_slot(queue, write ? NULL : name),
                                   .name = write ? NULL : name,
                                   .fd = lock_fd,
                                   .start = write ? OS_BYTE_WRITE : lockq_named_byte(name, strlen(name)),
                                   .length = write ? 2 : 1,
                                   .exclusive = !agent_flag(line, "shared"),
                                   .turn_ns = agent_flag(line, "turn") ? TURN_NS : 0,
                                   .owner = owner,
                                   .label = "agent"};
}

static int take(const struct agent_line *line)
{
    struct os_wait wait = os_wait_ms((int64_t)agent_number(line, "ms", (uint64_t)-1), NULL);
    enum lockq_how how = agent_flag(line, "once")      ? LOCKQ_ONCE
                         : agent_flag(line, "backoff") ? LOCKQ_BACKOFF
                                                       : LOCKQ_QUEUE;
    return lockq_take(queue, &the_lock, how, &wait, &the_claim);
}

/* take NAME [shared] [turn] [once|backoff] [ms=N]: the place in the order of all who took a lock */
static void cmd_take(struct agent_self *a, const struct agent_line *line)
{
    describe(line);
    int rc = take(line);
    if (rc == SHALE_OK) {
        agent_ok("%llu", (unsigned long long)atomic_fetch_add(&a->board->counter[LOCKQ_SEQUENCE].started, 1));
    } else {
        agent_status(rc);
    }
}

static void cmd_free(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    lockq_free(queue, &the_lock, &the_claim);
    agent_status(SHALE_OK);
}

/* Increments the guarded counter as nobody could who is not alone. */
static bool alone(struct board *b)
{
    _Atomic uint64_t *word = &b->counter[LOCKQ_GUARDED].started;
    uint64_t before = atomic_load_explicit(word, memory_order_relaxed);
    for (int i = 0; i < 100; i++) {
        atomic_signal_fence(memory_order_seq_cst);
    }
    atomic_store_explicit(word, before + 1, memory_order_relaxed);
    return atomic_load_explicit(word, memory_order_relaxed) == before + 1;
}

/* Under the lock: is the order of tickets kept? */
static void note_order(struct board *b)
{
    _Atomic uint64_t *highest = &b->counter[LOCKQ_TICKET].started;
    uint64_t before = atomic_load(highest);
    if (the_claim.ticket != 0 && the_claim.ticket < before) {
        atomic_fetch_add(&b->counter[LOCKQ_LATE].started, 1);
    } else if (the_claim.ticket != 0) {
        atomic_store(highest, the_claim.ticket);
    }
}

static const char *run_loop(struct board *b, struct board_agent *row, const struct agent_line *line)
{
    uint64_t last = 0;
    describe(line);
    while (atomic_load(&b->stop) == 0) {
        int rc = take(line);
        if (rc == SHALE_BUSY) {
            continue;
        }
        if (rc != SHALE_OK) {
            return shale_errmsg();
        }
        bool sound = !the_lock.exclusive || alone(b);
        note_order(b);
        bool grows = the_claim.number > last || the_claim.number == 0 || agent_flag(line, "damage");
        last = the_claim.number;
        atomic_fetch_add(&row->ops, 1); /* while it is held: who has it alone sees none grow */
        lockq_free(queue, &the_lock, &the_claim);
        if (!sound) {
            return "two holders at once";
        }
        if (!grows) {
            return "the fencing number does not grow";
        }
    }
    return NULL;
}

/* loop NAME ...: as take, until the board says stop */
static void cmd_loop(struct agent_self *a, const struct agent_line *line)
{
    const char *wrong = run_loop(a->board, a->row, line);
    if (wrong != NULL) {
        agent_wrong(a, wrong);
    } else {
        agent_status(SHALE_OK);
    }
}

/* namespace-loop NAME ...: the same by a child that is process 1 of a PID namespace of its own, with its own
 * /proc */
static void cmd_namespace_loop(struct agent_self *a, const struct agent_line *line)
{
    char self[PATH_MAX], board[PATH_MAX], row[16];
    const char *argv[16 + AGENT_WORDS] = {"unshare",          "-Ur", "--pid", "--fork", "--mount-proc", self,
                                          NAMESPACE_ARGUMENT, path,  board,   row};
    int n = 10, status;
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    self[size > 0 ? size : 0] = '\0';
    snprintf(board, sizeof board, "%s", getenv("LOCKQ_AGENT_BOARD"));
    snprintf(row, sizeof row, "%u", a->id);
    for (unsigned i = 0; i < line->count; i++) {
        argv[n++] = line->word[i];
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execvp(argv[0], (char **)(uintptr_t)argv);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        agent_wrong(a, "the loop in the namespace ended badly");
        return;
    }
    agent_status(SHALE_OK);
}

static int namespace_main(int argc, char **argv)
{
    struct agent_line line = {0};
    struct board *b = board_open(argv[3]);
    if (getpid() != 1 || b == NULL || open_dir(argv[2]) != SHALE_OK) {
        return 2;
    }
    for (int i = 5; i < argc; i++) {
        line.word[line.count++] = argv[i];
    }
    const char *wrong = run_loop(b, &b->agent[atoi(argv[4])], &line);
    if (wrong != NULL) {
        fprintf(stderr, "in the namespace: %s\n", wrong);
    }
    return wrong != NULL;
}

/* stand NAME N: N numbers, each with its ticket, and nobody behind them */
static void cmd_stand(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    unsigned n = (unsigned)atoi(line->word[1]);
    int rc = SHALE_OK;
    describe(line);
    for (unsigned i = 0; i < n && i < MOST_TICKETS && rc == SHALE_OK; i++) {
        uint64_t number = atomic_fetch_add(&the_lock.slot->next, 1) + 1;
        rc = lockq_ticket_take(queue, lockq_slot_index(queue, the_lock.slot), number, &tickets[i]);
    }
    agent_status(rc);
}

static _Atomic unsigned crowd_bad;

static void *crowd_one(void *ctx)
{
    shale_held *h = NULL;
    struct board *b = ctx;
    if (shale_lockq_acquire(handle, "crowd", SHALE_LOCK_EXCLUSIVE, -1, NULL, &h) != SHALE_OK || !alone(b) ||
        shale_lockq_release(h) != SHALE_OK) {
        atomic_fetch_add(&crowd_bad, 1);
    }
    return NULL;
}

/* switches: how often our threads went to sleep */
static void cmd_switches(struct agent_self *a, const struct agent_line *line)
{
    struct rusage usage;
    (void)a, (void)line;
    (void)getrusage(RUSAGE_SELF, &usage);
    agent_ok("%ld", usage.ru_nvcsw);
}

static pthread_t crowd_threads[MOST_TICKETS];
static unsigned crowd_started;

/* gather N: N threads go for the lock "crowd"; scatter: waits until each has had it */
static void cmd_gather(struct agent_self *a, const struct agent_line *line)
{
    unsigned n = (unsigned)atoi(line->word[0]);
    while (crowd_started < n && crowd_started < MOST_TICKETS &&
           os_thread_start(&crowd_threads[crowd_started], crowd_one, a->board, "crowd") == SHALE_OK) {
        crowd_started++;
    }
    agent_status(crowd_started == n ? SHALE_OK : SHALE_NOMEM);
}

static void cmd_scatter(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    while (crowd_started > 0) {
        os_thread_join(crowd_threads[--crowd_started]);
    }
    if (atomic_load(&crowd_bad) != 0) {
        agent_wrong(a, "not everybody in the crowd had the lock alone");
        return;
    }
    agent_status(SHALE_OK);
}

/* hold NAME: through the public interface */
static void cmd_hold(struct agent_self *a, const struct agent_line *line)
{
    (void)a;
    agent_status(shale_lockq_acquire(handle, line->word[0], SHALE_LOCK_EXCLUSIVE, 0, "held", &held));
}

/* release: what hold took */
static void cmd_release(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    agent_status(shale_lockq_release(held));
    held = NULL;
}

/* Starts a child that does nothing and outlives us: its pid. */
static void start_child(bool exec)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (exec) {
            (void)execlp("sleep", "sleep", "60", (char *)NULL);
            _exit(127);
        }
        for (;;) {
            (void)pause();
        }
    }
    agent_ok("%d", (int)pid);
}

static void cmd_exec_child(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    start_child(true);
}

static void cmd_fork_child(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    start_child(false);
}

/* Uses what was opened before a fork: what the child is told. */
static void cmd_forked_status(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        shale_held *h = NULL;
        struct os_wait wait = os_wait_ms(0, NULL);
        bool ok = shale_lockq_acquire(handle, "x", SHALE_LOCK_EXCLUSIVE, 0, NULL, &h) == SHALE_FORKED &&
                  lockq_take(queue, &the_lock, LOCKQ_QUEUE, &wait, &the_claim) == SHALE_FORKED &&
                  shale_lockq_release(held) == SHALE_FORKED;
        _exit(ok ? 0 : 1);
    }
    bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    agent_status(ok ? SHALE_OK : SHALE_INVALID);
}

static int touch_file(void *ctx, const char *name)
{
    int fd = openat(*(int *)ctx, name, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
    }
    return 0;
}

/* stray: opens and closes LOCK and everything in queue/ */
static void cmd_stray(struct agent_self *a, const struct agent_line *line)
{
    (void)a, (void)line;
    int queue_dir = -1;
    (void)touch_file(&dirfd, "LOCK");
    int rc = os_open(dirfd, "queue", O_RDONLY | O_DIRECTORY, 0, &queue_dir);
    if (rc == SHALE_OK) {
        rc = os_list(queue_dir, touch_file, &queue_dir);
    }
    os_close(&queue_dir);
    agent_status(rc);
}

static void cmd_quit(struct agent_self *a, const struct agent_line *line)
{
    (void)line;
    shale_lockq_close(handle);
    lockq_close(queue);
    a->quit = true;
    agent_status(SHALE_OK);
}

static const struct agent_command commands[] = {
    {"open", 1, cmd_open},
    {"take", 1, cmd_take},
    {"free", 0, cmd_free},
    {"loop", 1, cmd_loop},
    {"namespace-loop", 1, cmd_namespace_loop},
    {"stand", 2, cmd_stand},
    {"switches", 0, cmd_switches},
    {"gather", 1, cmd_gather},
    {"scatter", 0, cmd_scatter},
    {"hold", 1, cmd_hold},
    {"exec-child", 0, cmd_exec_child},
    {"fork-child", 0, cmd_fork_child},
    {"release", 0, cmd_release},
    {"forked-status", 0, cmd_forked_status},
    {"stray", 0, cmd_stray},
    {"quit", 0, cmd_quit},
    {NULL, 0, NULL},
};

static const struct agent_command *find_command(const char *name)
{
    static const struct agent_command *const tables[] = {commands, torture_commands, agent_hooks};
    for (size_t i = 0; i < BASE_COUNT(tables); i++) {
        for (const struct agent_command *c = tables[i]; c->name != NULL; c++) {
            if (strcmp(c->name, name) == 0) {
                return c;
            }
        }
    }
    return NULL;
}

static void obey(struct agent_self *a, char *text)
{
    struct agent_line line = {0};
    char *rest = NULL, *word;
    const char *name = strtok_r(text, " \n", &rest);
    while (line.count < AGENT_WORDS && (word = strtok_r(NULL, " \n", &rest)) != NULL) {
        line.word[line.count++] = word;
    }
    const struct agent_command *c = name != NULL ? find_command(name) : NULL;
    if (c == NULL || line.count < c->words) {
        agent_status(SHALE_INVALID);
        return;
    }
    c->run(a, &line);
}

/* argv: agent, AGENT_ARGUMENT, row, path of the board, user. */
static int serve(char **argv)
{
    static char text[4096];
    struct agent_self a = {.id = (unsigned)atoi(argv[2]), .board = board_open(argv[3])};
    if (a.board == NULL) {
        return 2;
    }
    (void)setenv("LOCKQ_AGENT_BOARD", argv[3], 1);
    a.row = &a.board->agent[a.id];
    signal(SIGPIPE, SIG_IGN);
    agent_hooks_set(&a);
    while (!a.quit && fgets(text, sizeof text, stdin) != NULL) {
        obey(&a, text);
    }
    return 0;
}

bool lockq_agent_ran(int argc, char **argv, int *status)
{
    if (argc == 5 && strcmp(argv[1], AGENT_ARGUMENT) == 0) {
        *status = serve(argv);
        return true;
    }
    if (argc > 5 && strcmp(argv[1], NAMESPACE_ARGUMENT) == 0) {
        *status = namespace_main(argc, argv);
        return true;
    }
    return false;
}
