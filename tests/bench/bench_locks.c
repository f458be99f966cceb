/* bench_locks.c - P processes on one lock for some seconds: how fast, how fair, how long a wait.
 *
 *      bench_locks [-H] [-p PROCESSES] [-s SECONDS] [-w WORK_NS] [KIND...]
 *      bench_locks -u [-s SECONDS]
 *
 * One line a kind: acquisitions a second, slowest process against fastest, 50th and 99th percentile and
 * longest wait; -H leaves the header out. The critical section spins WORK_NS and counts in a plain variable:
 * it also proves exclusion. -u: what a lock costs that nobody else wants, against one bare lock and unlock of
 * a byte.
 */
#include "lockq/lockq.h"

#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>

#if __has_include(<sqlite3.h>)
#include <sqlite3.h>
#define HAVE_SQLITE 1
#endif

#define TURN_NS   250000
#define MAX_PROCS 256
#define FINE      8 /* buckets of the histogram of waits to a power of two nanoseconds */
#define BUCKETS   (64 * FINE)
_Static_assert(FINE == 8, "bucket_of takes three bits");

struct process {
    uint64_t all; /* acquisitions, those before the counting began too */
    uint64_t count, longest;
    uint64_t waits[BUCKETS];
};

/* Until all run, the first have the lock for themselves: that is not counted. */
enum { RUNNING = 1, COUNTING };
#define WARM_UP_NS 100000000

struct shared {
    _Atomic uint32_t go, stop, ready;
    uint64_t sum; /* plain: counts wrong when two are inside */
    pthread_mutex_t robust;
    struct process process[MAX_PROCS];
};

/* A lock under test: opened by each process for itself. */
struct door {
    struct shared *shared;
    int fd;
    struct lockq *queue;
    struct lockq_lock lock;
    struct lockq_claim claim;
    enum lockq_how how;
    void *database;
};

static int die(const char *what)
{
    (void)fprintf(stderr, "bench_locks: %s: %s\n", what, shale_errmsg());
    exit(71);
}

/* ---- the kinds ---- */

static void queue_open(struct door *d, int dirfd, const char *name, int64_t turn_ns, enum lockq_how how)
{
    if (lockq_open(dirfd, ".", 0600, &d->queue) != SHALE_OK) {
        die("lockq_open");
    }
    d->how = how;
    d->lock = (struct lockq_lock){.slot = lockq_slot(d->queue, name),
                                  .name = name,
                                  .fd = d->fd,
                                  .start = name == NULL ? OS_BYTE_WRITE : OS_BYTE_NAMED + 77,
                                  .length = name == NULL ? 2 : 1,
                                  .exclusive = true,
                                  .turn_ns = turn_ns,
                                  .owner = (uint64_t)getpid()};
}

static void turns_open(struct door *d, int dirfd)
{
    queue_open(d, dirfd, NULL, TURN_NS, LOCKQ_QUEUE);
}

static void named_open(struct door *d, int dirfd)
{
    queue_open(d, dirfd, "bench", 0, LOCKQ_QUEUE);
}

static void backoff_open(struct door *d, int dirfd)
{
    queue_open(d, dirfd, NULL, 0, LOCKQ_BACKOFF);
}

static void queue_take(struct door *d)
{
    struct os_wait wait = os_wait_forever();
    if (lockq_take(d->queue, &d->lock, d->how, &wait, &d->claim) != SHALE_OK) {
        die("lockq_take");
    }
}

static void queue_free(struct door *d)
{
    lockq_free(d->queue, &d->lock, &d->claim);
}

static void queue_close(struct door *d)
{
    lockq_close(d->queue);
}

static void plain_close(struct door *d)
{
    (void)d;
}

static void plain_open(struct door *d, int dirfd)
{
    (void)d, (void)dirfd;
}

static void fcntl_take(struct door *d)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
    if (fcntl(d->fd, F_OFD_SETLKW, &lock) != 0) {
        die("F_OFD_SETLKW");
    }
}

static void fcntl_free(struct door *d)
{
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 2};
    (void)fcntl(d->fd, F_OFD_SETLK, &lock);
}

static void flock_take(struct door *d)
{
    if (flock(d->fd, LOCK_EX) != 0) {
        die("flock");
    }
}

static void flock_free(struct door *d)
{
    (void)flock(d->fd, LOCK_UN);
}

static void robust_take(struct door *d)
{
    if (pthread_mutex_lock(&d->shared->robust) != 0) {
        die("pthread_mutex_lock");
    }
}

static void robust_free(struct door *d)
{
    (void)pthread_mutex_unlock(&d->shared->robust);
}

/* SQLite as it is installed, loaded when asked for: BEGIN IMMEDIATE and COMMIT with its busy handler. */
#ifdef HAVE_SQLITE
static struct {
    __typeof__(&sqlite3_open) open;
    __typeof__(&sqlite3_exec) exec;
    __typeof__(&sqlite3_busy_timeout) busy_timeout;
    __typeof__(&sqlite3_close) close;
} sqlite;

static bool sqlite_load(void)
{
    void *library = dlopen("libsqlite3.so.0", RTLD_NOW);
    if (library == NULL) {
        return false;
    }
    *(void **)&sqlite.open = dlsym(library, "sqlite3_open");
    *(void **)&sqlite.exec = dlsym(library, "sqlite3_exec");
    *(void **)&sqlite.busy_timeout = dlsym(library, "sqlite3_busy_timeout");
    *(void **)&sqlite.close = dlsym(library, "sqlite3_close");
    return sqlite.open != NULL && sqlite.exec != NULL && sqlite.busy_timeout != NULL && sqlite.close != NULL;
}

static void sqlite_run(struct door *d, const char *text)
{
    if (sqlite.exec(d->database, text, NULL, NULL, NULL) != SQLITE_OK) {
        die(text);
    }
}

static void sqlite_open(struct door *d, int dirfd)
{
    char where[64];
    (void)snprintf(where, sizeof where, "/proc/self/fd/%d/sqlite.db", dirfd);
    sqlite3 *db = NULL;
    if (sqlite.open(where, &db) != SQLITE_OK || sqlite.busy_timeout(db, 3600000) != SQLITE_OK) {
        die("sqlite3_open");
    }
    d->database = db;
    sqlite_run(d, "CREATE TABLE IF NOT EXISTS t (a)");
}

static void sqlite_take(struct door *d)
{
    sqlite_run(d, "BEGIN IMMEDIATE");
}

static void sqlite_free(struct door *d)
{
    sqlite_run(d, "COMMIT");
}

static void sqlite_close(struct door *d)
{
    (void)sqlite.close(d->database);
}
#endif

struct kind {
    const char *name;
    void (*open)(struct door *d, int dirfd);
    void (*take)(struct door *d);
    void (*free)(struct door *d);
    void (*close)(struct door *d);
};

static const struct kind kinds[] = {
    {"queue-turns", turns_open, queue_take, queue_free, queue_close},
    {"queue", named_open, queue_take, queue_free, queue_close},
    {"backoff", backoff_open, queue_take, queue_free, queue_close},
    {"fcntl", plain_open, fcntl_take, fcntl_free, plain_close},
    {"flock", plain_open, flock_take, flock_free, plain_close},
    {"robust-mutex", plain_open, robust_take, robust_free, plain_close},
#ifdef HAVE_SQLITE
    {"sqlite-busy", sqlite_open, sqlite_take, sqlite_free, sqlite_close},
#endif
};

static bool can_run(const struct kind *kind)
{
#ifdef HAVE_SQLITE
    return kind->open != sqlite_open || sqlite_load();
#else
    return kind != NULL;
#endif
}

/* ---- running ---- */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < FINE) {
        return (unsigned)ns;
    }
    unsigned power = (unsigned)(63 - __builtin_clzll(ns));
    return power * FINE + (unsigned)(ns >> (power - 3)) % FINE;
}

/* The middle of a bucket, in us. */
static double bucket_us(unsigned bucket)
{
    unsigned power = bucket / FINE;
    if (power < 3) {
        return (double)bucket / 1e3;
    }
    return (double)(UINT64_C(1) << (power - 3)) * ((double)(FINE + bucket % FINE) + 0.5) / 1e3;
}

static void run_process(const struct kind *kind, struct shared *shared, int dirfd, unsigned me,
                        int64_t work_ns)
{
    struct door d = {.shared = shared, .fd = -1};
    struct process *p = &shared->process[me];
    if (os_open(dirfd, "LOCK", O_RDWR, 0, &d.fd) != SHALE_OK) {
        die("LOCK");
    }
    kind->open(&d, dirfd);
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->go) == 0) {
        os_nap(100000);
    }
    while (atomic_load_explicit(&shared->stop, memory_order_relaxed) == 0) {
        int64_t asked = os_now();
        kind->take(&d);
        int64_t had = os_now();
        while (os_now() - had < work_ns) {
        }
        shared->sum++;
        kind->free(&d);
        uint64_t waited = (uint64_t)(had - asked);
        p->all++;
        if (atomic_load_explicit(&shared->go, memory_order_relaxed) < COUNTING) {
            continue;
        }
        p->count++;
        p->waits[bucket_of(waited)]++;
        p->longest = waited > p->longest ? waited : p->longest;
    }
    kind->close(&d);
    _exit(0);
}

static double percentile(const uint64_t *waits, uint64_t total, double part)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += waits[i];
        if ((double)seen >= (double)total * part) {
            return bucket_us(i);
        }
    }
    return 0.0;
}

static int print_result(const struct kind *kind, const struct shared *shared, unsigned procs, double seconds)
{
    uint64_t all = 0, total = 0, least = UINT64_MAX, most = 0, longest = 0, waits[BUCKETS] = {0};
    for (unsigned i = 0; i < procs; i++) {
        const struct process *p = &shared->process[i];
        all += p->all;
        total += p->count;
        least = p->count < least ? p->count : least;
        most = p->count > most ? p->count : most;
        longest = p->longest > longest ? p->longest : longest;
        for (unsigned b = 0; b < BUCKETS; b++) {
            waits[b] += p->waits[b];
        }
    }
    (void)printf("%-13s %3u %11.0f %9.3f %10.2f %10.2f %11.2f   %s\n", kind->name, procs,
                 (double)total / seconds, most != 0 ? (double)least / (double)most : 0.0,
                 percentile(waits, total, 0.5), percentile(waits, total, 0.99), (double)longest / 1e6,
                 shared->sum == all ? "exclusive" : "EXCLUSION BROKEN");
    (void)fflush(stdout);
    return shared->sum == all ? 0 : 1;
}

static void init_robust(struct shared *shared)
{
    pthread_mutexattr_t attr;
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    (void)pthread_mutex_init(&shared->robust, &attr);
}

static int run_kind(const struct kind *kind, int dirfd, unsigned procs, double seconds, int64_t work_ns)
{
    void *map = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        die("mmap");
    }
    struct shared *shared = map;
    init_robust(shared);
    for (unsigned i = 0; i < procs; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            run_process(kind, shared, dirfd, i, work_ns);
        } else if (pid < 0) {
            die("fork");
        }
    }
    while (atomic_load(&shared->ready) < procs) {
        os_nap(1000000);
    }
    atomic_store(&shared->go, RUNNING);
    os_nap(WARM_UP_NS);
    atomic_store(&shared->go, COUNTING);
    int64_t began = os_now();
    os_nap((int64_t)(seconds * 1e9));
    atomic_store(&shared->stop, 1);
    double took = (double)(os_now() - began) / 1e9;
    for (unsigned i = 0; i < procs; i++) {
        (void)wait(NULL);
    }
    int rc = print_result(kind, shared, procs, took);
    (void)munmap(map, sizeof(struct shared));
    return rc;
}

static bool asked_for(const char *name, char **names)
{
    bool any = *names == NULL;
    for (; *names != NULL && !any; names++) {
        any = strcmp(name, *names) == 0;
    }
    return any;
}

/* ---- alone ---- */

#define ALONE_ROUNDS 40

static void bare_take(struct door *d)
{
    if (os_lock_try(d->fd, OS_BYTE_WRITE, 2, true) != SHALE_OK) {
        die("bare lock");
    }
}

static void bare_free(struct door *d)
{
    (void)os_unlock(d->fd, OS_BYTE_WRITE, 2);
}

/* ns for one take and free: the best of all rounds is kept by the caller. */
static double time_pairs(const struct kind *kind, struct door *d, unsigned pairs)
{
    int64_t began = os_now();
    for (unsigned i = 0; i < pairs; i++) {
        kind->take(d);
        kind->free(d);
    }
    return (double)(os_now() - began) / pairs;
}

/* Round by round, one kind after the other, so that a disturbance hits all. */
static void run_alone(int dirfd, double seconds)
{
    static const struct kind alone[] = {{"bare fcntl pair", plain_open, bare_take, bare_free, plain_close},
                                        {"queue-turns", turns_open, queue_take, queue_free, queue_close},
                                        {"queue", named_open, queue_take, queue_free, queue_close},
                                        {"backoff", backoff_open, queue_take, queue_free, queue_close}};
    struct door door[BASE_COUNT(alone)];
    double best[BASE_COUNT(alone)];
    for (size_t i = 0; i < BASE_COUNT(alone); i++) {
        door[i] = (struct door){.fd = -1};
        best[i] = 1e18;
        if (os_open(dirfd, "LOCK", O_RDWR, 0, &door[i].fd) != SHALE_OK) {
            die("LOCK");
        }
        alone[i].open(&door[i], dirfd);
    }
    unsigned pairs = (unsigned)(seconds * 1e9 / 700 / ALONE_ROUNDS / BASE_COUNT(alone)) + 1;
    for (unsigned round = 0; round < ALONE_ROUNDS; round++) {
        for (size_t i = 0; i < BASE_COUNT(alone); i++) {
            double ns = time_pairs(&alone[i], &door[i], pairs);
            best[i] = ns < best[i] ? ns : best[i];
        }
    }
    for (size_t i = 0; i < BASE_COUNT(alone); i++) {
        (void)printf("uncontended   %-16s %7.0f ns   %5.2f times the bare pair\n", alone[i].name, best[i],
                     best[i] / best[0]);
        alone[i].close(&door[i]);
        os_close(&door[i].fd);
    }
}

/* ---- the program ---- */

struct asked {
    unsigned procs;
    double seconds;
    int64_t work_ns;
    bool alone, header;
    char **kinds;
};

static bool parse(int argc, char **argv, struct asked *a)
{
    int c;
    *a = (struct asked){.procs = 8, .seconds = 3, .work_ns = 900, .header = true};
    while ((c = getopt(argc, argv, "Hp:s:uw:")) != -1) {
        switch (c) {
        case 'H': a->header = false; break;
        case 'p': a->procs = (unsigned)atoi(optarg); break;
        case 's': a->seconds = atof(optarg); break;
        case 'u': a->alone = true; break;
        case 'w': a->work_ns = atoll(optarg); break;
        default: return false;
        }
    }
    a->kinds = argv + optind;
    return a->procs >= 1 && a->procs <= MAX_PROCS && a->seconds > 0;
}

static int run(const struct asked *a, int dirfd)
{
    int rc = 0;
    if (a->alone) {
        run_alone(dirfd, a->seconds);
        return 0;
    }
    if (a->header) {
        (void)printf("%-13s %3s %11s %9s %10s %10s %11s\n", "lock", "P", "a second", "slow/fast", "p50 us",
                     "p99 us", "longest ms");
    }
    for (unsigned i = 0; i < BASE_COUNT(kinds); i++) {
        if (asked_for(kinds[i].name, a->kinds) && can_run(&kinds[i])) {
            rc |= run_kind(&kinds[i], dirfd, a->procs, a->seconds, a->work_ns);
        }
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct asked a;
    int dirfd = -1, fd = -1;
    if (!parse(argc, argv, &a)) {
        (void)fprintf(stderr, "usage: bench_locks [-H] [-p PROCESSES] [-s SECONDS] [-w WORK_NS] [KIND...]\n"
                              "       bench_locks -u [-s SECONDS]\n");
        return 64;
    }
    const char *tmp = getenv("TMPDIR");
    char dir[256], clean[300];
    (void)snprintf(dir, sizeof dir, "%s/bench-locks-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || os_open_dir(dir, &dirfd) != SHALE_OK ||
        os_open(dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &fd) != SHALE_OK) {
        die(dir);
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    int rc = run(&a, dirfd);
    (void)snprintf(clean, sizeof clean, "rm -rf '%s'", dir);
    return system(clean) != 0 ? 71 : rc;
}
