/* bench_locks.c - P processes on one lock for some seconds: how fast, how fair, how long a wait.
 *
 *      bench_locks [-p PROCESSES] [-s SECONDS] [-w WORK_NS] [KIND...]
 *
 * One line a kind: acquisitions a second, slowest process against fastest, 50th and 99th percentile and
 * longest wait. The critical section spins WORK_NS and counts in a plain variable: it also proves exclusion.
 */
#include "lockq/lockq.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>

#define TURN_NS   250000
#define MAX_PROCS 256
#define BUCKETS   64 /* of the logarithmic histogram of waits: powers of two of a nanosecond */

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

struct kind {
    const char *name;
    void (*open)(struct door *d, int dirfd);
    void (*take)(struct door *d);
    void (*free)(struct door *d);
};

static const struct kind kinds[] = {
    {"queue-turns", turns_open, queue_take, queue_free},
    {"queue", named_open, queue_take, queue_free},
    {"backoff", backoff_open, queue_take, queue_free},
    {"fcntl", plain_open, fcntl_take, fcntl_free},
    {"flock", plain_open, flock_take, flock_free},
    {"robust-mutex", plain_open, robust_take, robust_free},
};

/* ---- running ---- */

static unsigned bucket_of(uint64_t ns)
{
    return ns == 0 ? 0 : (unsigned)(63 - __builtin_clzll(ns));
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
    _exit(0);
}

static double percentile(const uint64_t *waits, uint64_t total, double part)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += waits[i];
        if ((double)seen >= (double)total * part) {
            return (double)(UINT64_C(1) << i) * 1.5 / 1e3;
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
    (void)printf("%-13s %3u  %9.0f/s  %5.3f  %8.1f us  %8.1f us  %8.2f ms  %s\n", kind->name, procs,
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

int main(int argc, char **argv)
{
    unsigned procs = 8;
    double seconds = 3;
    int64_t work_ns = 900;
    int c, rc = 0, dirfd = -1, fd = -1;
    while ((c = getopt(argc, argv, "p:s:w:")) != -1) {
        switch (c) {
        case 'p': procs = (unsigned)atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': work_ns = atoll(optarg); break;
        default:
            (void)fprintf(stderr, "usage: bench_locks [-p PROCESSES] [-s SECONDS] [-w WORK_NS] [KIND...]\n");
            return 64;
        }
    }
    procs = procs == 0 ? 1 : procs > MAX_PROCS ? MAX_PROCS : procs;
    const char *tmp = getenv("TMPDIR");
    char dir[256], clean[300];
    (void)snprintf(dir, sizeof dir, "%s/bench-locks-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || os_open_dir(dir, &dirfd) != SHALE_OK ||
        os_open(dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &fd) != SHALE_OK) {
        die(dir);
    }
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)printf("%-13s %3s  %11s  %5s  %11s  %11s  %11s\n", "lock", "P", "rate", "least", "p50", "p99",
                 "longest");
    for (unsigned i = 0; i < BASE_COUNT(kinds); i++) {
        if (asked_for(kinds[i].name, argv + optind)) {
            rc |= run_kind(&kinds[i], dirfd, procs, seconds, work_ns);
        }
    }
    (void)snprintf(clean, sizeof clean, "rm -rf '%s'", dir);
    return system(clean) != 0 ? 71 : rc;
}
