/* api.c - shale/lockq.h on top of the queue: locks for programs, with or without a database.
 *
 * An acquisition has an open file of LOCK to itself: so threads of one process exclude each other as
 * processes do, and a shale_held may be released by any thread. Idle ones are kept for the next.
 *
 * A thread that holds a lock and asks for it again would wait for itself, and a program under a lock that an
 * ancestor lent it would wait for its ancestor: both get SHALE_INUSE. The first is seen in the list of this
 * process's holds, the second by the descriptors named in SHALE_LOCK_FD (the write lock, lent.c) and
 * LOCKD_HELD (named locks; the same form). */
#include "lockq/queue.h"

#include <stdlib.h>

#define IDLE_KEPT 16

struct shale_held {
    struct shale_held *next; /* of the process's holds; under the module's mutex */
    struct shale_lockq *q;
    pthread_t thread;
    int fd;   /* -1: closed, in a forked child */
    bool had; /* the lock is had, not only asked for */
    struct lockq_lock lock;
    struct lockq_claim claim;
    char name[LOCKQ_NAME + 1];
};

struct shale_lockq {
    struct shale_lockq *next_open; /* of the process's handles; under the module's mutex */
    int dirfd;
    int fresh; /* an open file of LOCK that never holds a lock: looks through it see everybody's */
    struct stat lock_file;
    struct lockq *queue;
    _Atomic uint32_t interrupts;
    uint64_t owner;
    /* Under the module's mutex. */
    int idle[IDLE_KEPT];
    unsigned idle_count;
};

static struct shale_lockq *open_handles;
static struct shale_held *holds;
static _Atomic unsigned hold_count;

/* ---- the handle ---- */

static void link_handle(struct shale_lockq *q)
{
    lockq_enter();
    q->next_open = open_handles;
    open_handles = q;
    lockq_leave();
}

/* One that was never linked is not found. */
static void unlink_handle(struct shale_lockq *q)
{
    lockq_enter();
    for (struct shale_lockq **p = &open_handles; *p != NULL; p = &(*p)->next_open) {
        if (*p == q) {
            *p = q->next_open;
            break;
        }
    }
    lockq_leave();
}

static int open_lock_file(struct shale_lockq *q, unsigned mode, int *fd)
{
    int rc = os_open(q->dirfd, "LOCK", O_RDWR | O_CREAT, lockq_file_mode(mode), fd);
    return rc == SHALE_NOTFOUND ? err_set(SHALE_UNSUPPORTED, "LOCK: no file can be made in here") : rc;
}

int shale_lockq_open(const char *dir, unsigned mode, shale_lockq **out)
{
    bool overwrites;
    if (dir == NULL || out == NULL || (mode & ~0777u) != 0) {
        return err_set(
            SHALE_INVALID,
            "shale_lockq_open: a directory, permission bits and a place for the handle are needed");
    }
    struct shale_lockq *q = base_calloc(1, sizeof *q);
    if (q == NULL) {
        return SHALE_NOMEM;
    }
    q->dirfd = -1;
    q->fresh = -1;
    int rc = os_open_dir(dir, &q->dirfd); /* its text begins with the directory */
    if (rc != SHALE_OK) {
        shale_lockq_close(q);
        return rc;
    }
    rc = os_check_fs(q->dirfd, &overwrites);
    if (rc == SHALE_OK) {
        rc = open_lock_file(q, mode, &q->fresh);
    }
    if (rc == SHALE_OK) {
        rc = os_stat(q->fresh, &q->lock_file);
    }
    if (rc == SHALE_OK) {
        (void)os_self(); /* looked up now, and not by a holder with the lock in its hand */
        rc = lockq_open(q->dirfd, dir, mode, &q->queue);
    }
    if (rc != SHALE_OK) {
        shale_lockq_close(q);
        return err_wrap(rc, "%s", dir);
    }
    os_random(&q->owner, sizeof q->owner);
    q->owner |= 1;
    link_handle(q);
    *out = q;
    return SHALE_OK;
}

void shale_lockq_close(shale_lockq *q)
{
    if (q == NULL) {
        return;
    }
    unlink_handle(q);
    lockq_close(q->queue);
    for (unsigned i = 0; i < q->idle_count; i++) {
        os_close(&q->idle[i]);
    }
    os_close(&q->fresh);
    os_close(&q->dirfd);
    free(q);
}

void shale_lockq_interrupt(shale_lockq *q)
{
    atomic_fetch_add_explicit(&q->interrupts, 1, memory_order_release);
}

/* ---- arguments ---- */

static int check_arguments(const char *what, const char *name, int mode, int64_t timeout_ms)
{
    if (name != NULL && (name[0] == '\0' || strnlen(name, LOCKQ_NAME + 1) > LOCKQ_NAME)) {
        return err_set(SHALE_INVALID, "%s: a lock's name has 1 to %d bytes", what, LOCKQ_NAME);
    }
    if (mode != SHALE_LOCK_SHARED && mode != SHALE_LOCK_EXCLUSIVE) {
        return err_set(SHALE_INVALID, "%s: mode %d is neither SHALE_LOCK_SHARED nor SHALE_LOCK_EXCLUSIVE",
                       what, mode);
    }
    if (timeout_ms < -1) {
        return err_set(SHALE_INVALID, "%s: timeout_ms is %lld; -1 waits for ever, 0 tries once", what,
                       (long long)timeout_ms);
    }
    return SHALE_OK;
}

/* lent: byte 1 of the write lock alone, so that those to whom it is lent can have byte 2. */
static struct lockq_lock describe(shale_lockq *q, const char *name, bool exclusive, bool lent)
{
    struct lockq_lock lock = {.slot = lockq_slot(q->queue, name),
                              .name = name,
                              .fd = -1,
                              .start = OS_BYTE_WRITE,
                              .length = lent || !exclusive ? 1 : 2,
                              .exclusive = exclusive,
                              .owner = q->owner};
    if (name != NULL) {
        lock.start = lockq_named_byte(name, strlen(name));
        lock.length = 1;
    }
    return lock;
}

/* ---- who holds it already ---- */

bool lockq_thread_acquired(dev_t dev, ino_t ino, uint64_t byte)
{
    bool found = false;
    if (atomic_load_explicit(&hold_count, memory_order_acquire) == 0) {
        return false;
    }
    lockq_enter();
    for (const struct shale_held *h = holds; h != NULL && !found; h = h->next) {
        const struct stat *file = &h->q->lock_file;
        found = h->had && h->lock.start == byte && file->st_dev == dev && file->st_ino == ino &&
                pthread_equal(h->thread, pthread_self());
    }
    lockq_leave();
    return found;
}

/* Also as a transaction. */
static bool thread_holds(const shale_lockq *q, const struct lockq_lock *lock)
{
    dev_t dev = q->lock_file.st_dev;
    ino_t ino = q->lock_file.st_ino;
    return lock->name == NULL ? lockq_thread_holds(dev, ino) : lockq_thread_acquired(dev, ino, lock->start);
}

static int check_ancestors(shale_lockq *q, const struct lockq_lock *lock)
{
    enum lockq_lent kind = LOCKQ_LENT_NONE;
    int fd = -1;
    if (lock->name != NULL) {
        if (lockq_find_named(q->fresh, lock->start, &fd)) {
            struct lockq_lock seen = *lock;
            seen.fd = q->fresh;
            (void)lockq_busy(q->queue, &seen);
            return err_wrap(SHALE_INUSE, "an ancestor of this process has it");
        }
        return SHALE_OK;
    }
    int rc = lockq_find_lent(q->fresh, -1, &kind, &fd);
    if (rc == SHALE_OK && kind != LOCKQ_LENT_NONE) {
        rc = err_set(SHALE_INUSE, "an ancestor of this process %s (descriptor %d)",
                     kind == LOCKQ_LENT_WRITE ? "holds the write lock and lends it"
                                              : "holds the write lock shared",
                     fd);
    }
    return rc;
}

static int check_in_use(shale_lockq *q, const struct lockq_lock *lock)
{
    if (thread_holds(q, lock)) {
        return err_set(SHALE_INUSE, "this thread holds %s already",
                       lock->name == NULL ? "the write lock" : lock->name);
    }
    return check_ancestors(q, lock);
}

/* ---- acquire and release ---- */

/* Gives h an open file and lists it, in one step under the mutex: a fork in between would leave the child
 * with a descriptor that nobody closes, and with it the lock. */
static int list_hold(struct shale_lockq *q, struct shale_held *h)
{
    int rc = SHALE_OK;
    h->thread = pthread_self();
    lockq_enter();
    if (q->idle_count > 0) {
        h->fd = q->idle[--q->idle_count];
    } else {
        rc = os_open(q->dirfd, "LOCK", O_RDWR, 0, &h->fd);
    }
    if (rc == SHALE_OK) {
        h->next = holds;
        holds = h;
    }
    lockq_leave();
    return rc == SHALE_NOTFOUND ? err_set(SHALE_IO, "LOCK: the file was removed") : rc;
}

static void unlist_hold(struct shale_lockq *q, struct shale_held *h)
{
    int fd = h->fd;
    lockq_enter();
    for (struct shale_held **p = &holds; *p != NULL; p = &(*p)->next) {
        if (*p == h) {
            *p = h->next;
            break;
        }
    }
    if (q->idle_count < IDLE_KEPT) {
        q->idle[q->idle_count++] = fd;
        fd = -1;
    }
    lockq_leave();
    os_close(&fd);
}

static void set_had(struct shale_held *h, bool had)
{
    lockq_enter();
    h->had = had;
    atomic_store_explicit(&hold_count, hold_count + (had ? 1u : -1u), memory_order_release);
    lockq_leave();
}

/* In a forked child, under the module's mutex: what the parent holds is not held on by us, nor what it will
 * hold through an open file that is idle now. */
void lockq_holds_forked(void)
{
    for (struct shale_lockq *q = open_handles; q != NULL; q = q->next_open) {
        while (q->idle_count > 0) {
            os_close(&q->idle[--q->idle_count]);
        }
    }
    for (struct shale_held *h = holds; h != NULL; h = h->next) {
        os_close(&h->fd);
        h->lock.fd = -1;
    }
    holds = NULL;
    atomic_store(&hold_count, 0);
}

int shale_lockq_acquire(shale_lockq *q, const char *name, int mode, int64_t timeout_ms, const char *label,
                        shale_held **held)
{
    int rc = check_arguments("shale_lockq_acquire", name, mode, timeout_ms);
    if (rc != SHALE_OK) {
        return rc;
    }
    struct shale_held *h = base_calloc(1, sizeof *h);
    if (h == NULL) {
        return SHALE_NOMEM;
    }
    h->q = q;
    h->fd = -1;
    if (name != NULL) {
        memcpy(h->name, name, strlen(name));
    }
    h->lock = describe(q, name != NULL ? h->name : NULL, mode == SHALE_LOCK_EXCLUSIVE, false);
    h->lock.label = label;
    rc = check_in_use(q, &h->lock);
    if (rc == SHALE_OK) {
        rc = list_hold(q, h);
    }
    if (rc == SHALE_OK) {
        struct os_wait wait = os_wait_ms(timeout_ms, &q->interrupts);
        h->lock.fd = h->fd;
        rc = lockq_take(q->queue, &h->lock, LOCKQ_QUEUE, &wait, &h->claim);
    }
    h->lock.label = NULL; /* the caller's */
    if (rc != SHALE_OK) {
        if (h->fd >= 0) {
            unlist_hold(q, h);
        }
        free(h);
        return rc;
    }
    set_had(h, true);
    *held = h;
    return SHALE_OK;
}

int shale_lockq_release(shale_held *h)
{
    if (h == NULL) {
        return SHALE_OK;
    }
    if (h->fd < 0) {
        free(h);
        return err_set(SHALE_FORKED, "the lock is held by this process's parent");
    }
    set_had(h, false);
    lockq_free(h->q->queue, &h->lock, &h->claim);
    unlist_hold(h->q, h);
    free(h);
    return SHALE_OK;
}

uint64_t shale_lockq_number(const shale_held *held)
{
    return held->claim.number;
}

/* ---- on a descriptor of the caller's ---- */

static int check_descriptor(shale_lockq *q, int fd)
{
    struct stat st;
    if (os_stat(fd, &st) != SHALE_OK) {
        return err_set(SHALE_INVALID, "descriptor %d is not open (open it with exec %d<>DIR/LOCK)", fd, fd);
    }
    int flags = fcntl(fd, F_GETFL);
    if (st.st_dev != q->lock_file.st_dev || st.st_ino != q->lock_file.st_ino || flags < 0 ||
        (flags & O_ACCMODE) != O_RDWR) {
        return err_set(SHALE_INVALID,
                       "descriptor %d is not the directory's LOCK, open for reading and writing (open it "
                       "with exec %d<>DIR/LOCK)",
                       fd, fd);
    }
    return SHALE_OK;
}

/* How the lock is held, and whether through this open file. Among several sharers its record tells; with more
 * sharers than records it may stay unknown: *held is false then. */
static int look_at_descriptor(shale_lockq *q, const struct lockq_lock *lock, enum lockq_state *state,
                              bool *held)
{
    bool any = false, exclusive = false, others = false;
    int rc = os_lock_test(q->fresh, lock->start, 1, true, &any);
    if (rc == SHALE_OK) {
        rc = os_lock_test(q->fresh, lock->start, 1, false, &exclusive);
    }
    if (rc == SHALE_OK) {
        rc = os_lock_test(lock->fd, lock->start, 1, true, &others);
    }
    if (rc == SHALE_OK) {
        struct lockq_lock shared = *lock;
        shared.exclusive = false;
        *state = exclusive ? LOCKQ_EXCLUSIVE : any ? LOCKQ_SHARED : LOCKQ_FREE;
        *held = any && !others;
        if (*state == LOCKQ_SHARED && others && lock->slot != NULL) {
            *held = lockq_record_find(q->queue, &shared, q->fresh) < LOCKQ_RECORDS;
        }
    }
    return rc;
}

/* One look can be fooled: the first test sees another's lock, which is gone at the last. Whoever holds it is
 * found to hold it every time. */
#define LOOKS 8
static int descriptor_holds(shale_lockq *q, const struct lockq_lock *lock, enum lockq_state *state,
                            bool *held)
{
    int rc = look_at_descriptor(q, lock, state, held);
    for (int i = 1; i < LOOKS && rc == SHALE_OK && *held; i++) {
        rc = look_at_descriptor(q, lock, state, held);
    }
    return rc;
}

int lockq_acquire_fd(shale_lockq *q, const char *name, int mode, int64_t timeout_ms, const char *label,
                     int fd, int64_t owner_pid, uint64_t *number)
{
    enum lockq_state state;
    bool held = false;
    struct lockq_claim claim;
    int rc = check_arguments("shale_lockq_acquire_fd", name, mode, timeout_ms);
    if (rc == SHALE_OK) {
        rc = check_descriptor(q, fd);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct lockq_lock lock = describe(q, name, mode == SHALE_LOCK_EXCLUSIVE, true);
    lock.fd = fd;
    lock.label = label;
    lock.owner_pid = owner_pid;
    rc = check_in_use(q, &lock);
    if (rc == SHALE_OK) {
        rc = descriptor_holds(q, &lock, &state, &held);
    }
    if (rc == SHALE_OK && held) {
        rc = err_set(SHALE_INUSE, "descriptor %d holds the lock already", fd);
    }
    if (rc == SHALE_OK) {
        struct os_wait wait = os_wait_ms(timeout_ms, &q->interrupts);
        rc = lockq_take(q->queue, &lock, LOCKQ_QUEUE, &wait, &claim);
    }
    if (rc == SHALE_OK) {
        *number = claim.number;
    }
    return rc;
}

int shale_lockq_acquire_fd(shale_lockq *q, const char *name, int mode, int64_t timeout_ms, const char *label,
                           int fd, int64_t owner_pid)
{
    uint64_t number;
    return lockq_acquire_fd(q, name, mode, timeout_ms, label, fd, owner_pid, &number);
}

int shale_lockq_release_fd(shale_lockq *q, const char *name, int fd)
{
    enum lockq_state state = LOCKQ_FREE;
    bool held = false;
    struct lockq_claim claim = {0};
    int rc = check_arguments("shale_lockq_release_fd", name, SHALE_LOCK_EXCLUSIVE, 0);
    if (rc == SHALE_OK) {
        rc = check_descriptor(q, fd);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct lockq_lock lock = describe(q, name, true, true);
    lock.fd = fd;
    rc = descriptor_holds(q, &lock, &state, &held);
    if (rc == SHALE_OK && !held && state != LOCKQ_SHARED) {
        rc = err_set(SHALE_INVALID, "descriptor %d does not hold the lock", fd);
    }
    if (rc == SHALE_OK) {
        lock.exclusive = state == LOCKQ_EXCLUSIVE;
        claim.record = lock.slot != NULL ? lockq_record_find(q->queue, &lock, q->fresh) : LOCKQ_RECORDS;
        lockq_free(q->queue, &lock, &claim);
    }
    return rc;
}

/* ---- looking ---- */

int shale_lockq_list(shale_lockq *q, const char *name, int (*fn)(void *ctx, const shale_ticket *t), void *ctx)
{
    if (fn == NULL || (name != NULL && strnlen(name, LOCKQ_NAME + 1) > LOCKQ_NAME)) {
        return err_set(SHALE_INVALID,
                       "shale_lockq_list: a function is needed, and a name of at most %d bytes", LOCKQ_NAME);
    }
    return lockq_list(q->queue, q->fresh, name, fn, ctx);
}

int shale_lockq_stat(shale_lockq *q, const char *name, shale_lock_stats *stats)
{
    if (stats == NULL || stats->size < sizeof stats->size ||
        (name != NULL && strnlen(name, LOCKQ_NAME + 1) > LOCKQ_NAME)) {
        return err_set(SHALE_INVALID,
                       "shale_lockq_stat: stats->size is to be set, and a name has at most %d bytes",
                       LOCKQ_NAME);
    }
    lockq_stat(q->queue, name != NULL && name[0] != '\0' ? name : NULL, stats);
    return SHALE_OK;
}
