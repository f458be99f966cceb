#include "power.h"

#include <stdio.h>
#include <stdlib.h>

/* What a thread is in the midst of, from before a call until after it. */
struct pending {
    bool locked;
    uint32_t file, ops; /* a sync: of which file, or of how many changes of names */
    uint64_t stamp;
    unsigned char *bytes;
    size_t size;
};

static struct power *joined;
static uint32_t told[POWER_FILES]; /* failures that this process need not be told of */
static _Thread_local struct pending pending;

#define NO_FILE UINT32_MAX

static void broken(const char *what)
{
    fprintf(stderr, "power: %s: %s\n", what, strerror(errno));
    abort();
}

bool power_is_cache(const char *name)
{
    return strstr(name, ".mem") != NULL || strcmp(name, "STATE") == 0 || strcmp(name, "LOCK") == 0 ||
           strcmp(name, "LIVE") == 0 || strcmp(name, "queue") == 0 || strchr(name, '/') != NULL ||
           name[0] == '.' || strlen(name) >= POWER_NAME;
}

/* ---- the shared memory ---- */

static void lock(struct power *p)
{
    int rc = pthread_mutex_lock(&p->mutex);
    if (rc != 0) {
        /* who is killed in the midst of a recorded call leaves the journal behind the directory */
        errno = rc;
        broken("the recorder's lock");
    }
    pending.locked = true;
}

static void unlock(struct power *p)
{
    pending.locked = false;
    (void)pthread_mutex_unlock(&p->mutex);
}

static struct power *map(const char *path, int flags)
{
    int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ((flags & O_CREAT) != 0 && ftruncate(fd, sizeof(struct power)) != 0)) {
        return NULL;
    }
    void *got = mmap(NULL, sizeof(struct power), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    return got == MAP_FAILED ? NULL : got;
}

struct power *power_open(const char *path)
{
    return map(path, 0);
}

void power_close(struct power *p)
{
    (void)munmap(p, sizeof *p);
}

/* ---- files ---- */

static void store_name(const struct power *p, uint32_t file, const char *kind, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s/%u.%s", p->store, file, kind);
    if (n >= PATH_MAX) {
        errno = ENAMETOOLONG;
        broken(p->store);
    }
}

static void store_bytes(const struct power *p, uint32_t file, const char *kind, const void *bytes,
                        size_t size)
{
    char path[PATH_MAX];
    store_name(p, file, kind, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite(fd, bytes, size, 0) != (ssize_t)size || ftruncate(fd, (off_t)size) != 0) {
        broken(path);
    }
    (void)close(fd);
}

static unsigned char *read_file(int fd, size_t *size)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        broken("fstat");
    }
    unsigned char *bytes = malloc((size_t)st.st_size + 1);
    ssize_t got = bytes == NULL ? -1 : pread(fd, bytes, (size_t)st.st_size, 0);
    if (got < 0) {
        broken("read");
    }
    *size = (size_t)got;
    return bytes;
}

static uint32_t find_file(const struct power *p, uint64_t ino)
{
    for (uint32_t i = atomic_load(&p->file_count); i-- > 0;) {
        if (p->file[i].ino == ino) {
            return i;
        }
    }
    return NO_FILE;
}

static uint32_t new_file(struct power *p, uint64_t ino)
{
    uint32_t i = atomic_load(&p->file_count);
    if (i == POWER_FILES) {
        errno = ENOSPC;
        broken("too many files");
    }
    p->file[i].ino = ino;
    atomic_store(&p->file_count, i + 1);
    return i;
}

/* ---- names ---- */

static struct power_name *find_live(struct power *p, const char *name)
{
    for (unsigned i = 0; i < POWER_LIVE; i++) {
        if (strcmp(p->live[i].name, name) == 0) {
            return &p->live[i];
        }
    }
    return NULL;
}

static bool has_name(const struct power *p, uint32_t file)
{
    for (unsigned i = 0; i < POWER_LIVE; i++) {
        if (p->live[i].name[0] != '\0' && p->live[i].file == file) {
            return true;
        }
    }
    return false;
}

static void drop_live(struct power *p, const char *name)
{
    struct power_name *n = find_live(p, name);
    if (n != NULL) {
        n->name[0] = '\0';
        if (!has_name(p, n->file)) {
            p->file[n->file].ino = 0;
        }
    }
}

static void add_live(struct power *p, const char *name, uint32_t file)
{
    struct power_name *n = find_live(p, name);
    if (n != NULL && n->file != file) { /* replaced by a rename */
        drop_live(p, name);
    }
    n = n != NULL ? n : find_live(p, "");
    if (n == NULL) {
        errno = ENOSPC;
        broken("too many names");
    }
    n->file = file;
    snprintf(n->name, sizeof n->name, "%s", name);
}

static void add_op(struct power *p, enum power_kind kind, uint32_t file, const char *from, const char *to)
{
    uint32_t i = atomic_load(&p->op_count);
    if (i == POWER_OPS) {
        errno = ENOSPC;
        broken("too many changes of names");
    }
    struct power_op *op = &p->op[i];
    op->kind = kind;
    op->file = file;
    snprintf(op->from, sizeof op->from, "%s", from);
    snprintf(op->to, sizeof op->to, "%s", to);
    atomic_store(&p->op_count, i + 1);
    if (from[0] != '\0' && to[0] != '\0') { /* keeps its inode while it is moved */
        add_live(p, to, file);
        drop_live(p, from);
    } else if (to[0] != '\0') {
        add_live(p, to, file);
    } else {
        drop_live(p, from);
    }
}

static bool is_ours(const struct power *p, int dirfd, const char *name)
{
    struct stat st;
    return name != NULL && !power_is_cache(name) && fstat(dirfd, &st) == 0 && st.st_ino == p->ino &&
           st.st_dev == p->dev;
}

/* ---- making one ---- */

static int take_name(void *ctx, const char *name)
{
    struct power *p = ctx;
    char path[PATH_MAX];
    size_t size;
    if (power_is_cache(name)) {
        return 0;
    }
    int fd =
        snprintf(path, sizeof path, "%s/%s", p->dir, name) < PATH_MAX ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        broken(path);
    }
    uint32_t file = new_file(p, st.st_ino);
    unsigned char *bytes = read_file(fd, &size);
    store_bytes(p, file, "durable", bytes, size);
    p->file[file].stamp = atomic_fetch_add(&p->clock, 1) + 1;
    atomic_store(&p->file[file].durable_size, size);
    free(bytes);
    (void)close(fd);
    add_op(p, POWER_CREATE, file, "", name);
    return 0;
}

struct power *power_make(const char *path, const char *dir)
{
    struct stat st;
    pthread_mutexattr_t attr;
    struct power *p = map(path, O_CREAT | O_EXCL);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p == NULL || fd < 0 || fstat(fd, &st) != 0) {
        broken(path);
    }
    p->dev = st.st_dev;
    p->ino = st.st_ino;
    if (snprintf(p->dir, sizeof p->dir, "%s", dir) >= PATH_MAX ||
        snprintf(p->store, sizeof p->store, "%s.store", path) >= PATH_MAX || mkdir(p->store, 0700) != 0) {
        broken(path);
    }
    (void)pthread_mutexattr_init(&attr);
    (void)pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    (void)pthread_mutex_init(&p->mutex, &attr);
    (void)pthread_mutexattr_destroy(&attr);
    (void)os_list(fd, take_name, p);
    (void)close(fd);
    atomic_store(&p->op_durable, atomic_load(&p->op_count));
    return p;
}

void power_join(struct power *p)
{
    joined = p;
}

/* ---- before a call ---- */

/* Whatever was stored up to here is on the disk when the sync has succeeded. The stamp comes first: one that
 * began earlier and ends later knows less. */
static int begin_sync(struct power *p, int fd)
{
    struct stat st;
    pending.file = NO_FILE;
    if (fstat(fd, &st) != 0 || st.st_dev != p->dev) {
        return 0;
    }
    lock(p);
    pending.file = find_file(p, st.st_ino);
    bool news = pending.file != NO_FILE && told[pending.file] < p->file[pending.file].failures;
    unlock(p);
    if (news) {
        told[pending.file] = p->file[pending.file].failures;
        return EIO;
    }
    if (pending.file != NO_FILE) {
        pending.stamp = atomic_fetch_add(&p->clock, 1) + 1;
        pending.bytes = read_file(fd, &pending.size);
    }
    return 0;
}

static void begin_sync_dir(struct power *p, int fd)
{
    struct stat st;
    pending.ops = 0;
    if (fstat(fd, &st) == 0 && st.st_ino == p->ino && st.st_dev == p->dev) {
        lock(p);
        pending.ops = atomic_load(&p->op_count);
        unlock(p);
    }
}

/* What the kernel does: it reports the error, and takes the pages for clean. Only log segments are made to
 * meet it. */
void power_failed_sync(int fd)
{
    struct power *p = joined;
    struct stat st;
    size_t size, was;
    char path[PATH_MAX];
    if (p == NULL || fstat(fd, &st) != 0 || st.st_dev != p->dev) {
        return;
    }
    lock(p);
    uint32_t file = find_file(p, st.st_ino);
    if (file != NO_FILE && p->file[file].stamp != 0) {
        struct power_file *f = &p->file[file];
        store_name(p, file, "durable", path);
        int old = open(path, O_RDONLY | O_CLOEXEC);
        if (old < 0) {
            broken(path);
        }
        unsigned char *now = read_file(fd, &size), *durable = read_file(old, &was);
        (void)close(old);
        for (size_t i = 0; i < POWER_LOST && (i + 1) * POWER_PAGE <= size && (i + 1) * POWER_PAGE <= was;
             i++) {
            if (memcmp(now + i * POWER_PAGE, durable + i * POWER_PAGE, POWER_PAGE) != 0) {
                f->lost[i / 64] |= UINT64_C(1) << (i % 64);
            }
        }
        store_bytes(p, file, "failed", now, size);
        told[file] = ++f->failures;
        atomic_fetch_add(&p->failed, 1);
        free(now);
        free(durable);
    }
    unlock(p);
}

/* Dirty again: the next sync writes them. */
static void written(struct power *p, int fd, uint64_t offset, size_t length)
{
    struct stat st;
    if (atomic_load(&p->failed) == 0 || length == 0 || fstat(fd, &st) != 0 || st.st_dev != p->dev) {
        return;
    }
    lock(p);
    uint32_t file = find_file(p, st.st_ino);
    for (uint64_t i = offset / POWER_PAGE;
         file != NO_FILE && i <= (offset + length - 1) / POWER_PAGE && i < POWER_LOST; i++) {
        p->file[file].lost[i / 64] &= ~(UINT64_C(1) << (i % 64));
    }
    unlock(p);
}

/* A sync that succeeds: pages that an earlier one lost stay as they were on the disk, unless they look
 * otherwise now than then (stored to through a mapping). */
static void keep_lost(struct power *p, uint32_t file)
{
    struct power_file *f = &p->file[file];
    char failed[PATH_MAX], durable[PATH_MAX];
    size_t then_size, old_size;
    store_name(p, file, "failed", failed);
    store_name(p, file, "durable", durable);
    int a = open(failed, O_RDONLY | O_CLOEXEC), b = open(durable, O_RDONLY | O_CLOEXEC);
    if (a < 0 || b < 0) {
        broken(failed);
    }
    unsigned char *then = read_file(a, &then_size), *old = read_file(b, &old_size);
    for (size_t i = 0; i < POWER_LOST; i++) {
        uint64_t bit = UINT64_C(1) << (i % 64);
        size_t at = i * POWER_PAGE, end = at + POWER_PAGE;
        if ((f->lost[i / 64] & bit) == 0 || end > then_size || end > old_size || end > pending.size) {
            continue;
        }
        if (memcmp(pending.bytes + at, then + at, POWER_PAGE) == 0) {
            memcpy(pending.bytes + at, old + at, POWER_PAGE);
        } else {
            f->lost[i / 64] &= ~bit;
        }
    }
    free(then);
    free(old);
    (void)close(a);
    (void)close(b);
}

/* Its bytes can't be read any more when the name is gone, and the name may come back. */
static void freeze(struct power *p, const char *name)
{
    char path[PATH_MAX];
    const struct power_name *n = find_live(p, name);
    int fd = n != NULL && snprintf(path, sizeof path, "%s/%s", p->dir, name) < PATH_MAX
                 ? open(path, O_RDONLY | O_CLOEXEC)
                 : -1;
    if (fd >= 0) {
        size_t size;
        unsigned char *bytes = read_file(fd, &size);
        store_bytes(p, n->file, "frozen", bytes, size);
        atomic_store(&p->file[n->file].frozen_size, size + 1);
        free(bytes);
        (void)close(fd);
    }
}

int power_before(enum os_op op, int fd, const char *name, uint64_t offset, const size_t *length)
{
    struct power *p = joined;
    if (p == NULL) {
        return 0;
    }
    switch (op) {
    case OS_OP_FSYNC:
    case OS_OP_FDATASYNC: return begin_sync(p, fd);
    case OS_OP_SYNCDIR: begin_sync_dir(p, fd); break;
    case OS_OP_WRITE: written(p, fd, offset, *length); break;
    case OS_OP_OPEN:
    case OS_OP_LINK:
    case OS_OP_RENAME:
    case OS_OP_UNLINK:
        if (is_ours(p, fd, name)) {
            lock(p);
            if (op == OS_OP_UNLINK) {
                freeze(p, name);
            }
        }
        break;
    default: break;
    }
    return 0;
}

/* ---- after it ---- */

static void end_sync(struct power *p, int64_t result)
{
    if (pending.file == NO_FILE) {
        return;
    }
    if (result == 0) {
        lock(p);
        struct power_file *f = &p->file[pending.file];
        if (f->failures != 0) {
            keep_lost(p, pending.file);
        }
        if (f->stamp < pending.stamp) {
            store_bytes(p, pending.file, "durable", pending.bytes, pending.size);
            atomic_store(&f->durable_size, pending.size);
            f->stamp = pending.stamp;
        }
        unlock(p);
        atomic_fetch_add(&p->syncs, 1);
    }
    free(pending.bytes);
    pending.bytes = NULL;
}

static void end_sync_dir(struct power *p, int64_t result)
{
    if (result == 0 && pending.ops != 0) {
        lock(p);
        if (atomic_load(&p->op_durable) < pending.ops) {
            atomic_store(&p->op_durable, pending.ops);
        }
        unlock(p);
        atomic_fetch_add(&p->dir_syncs, 1);
    }
}

/* A file that has come under the name by this call. */
static void end_new_name(struct power *p, int fd, const char *name)
{
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
        return;
    }
    const struct power_name *n = find_live(p, name);
    if (n == NULL || p->file[n->file].ino != st.st_ino) {
        uint32_t file = find_file(p, st.st_ino);
        add_op(p, POWER_CREATE, file != NO_FILE ? file : new_file(p, st.st_ino), "", name);
    } else {
        told[n->file] = p->file[n->file].failures; /* a descriptor hears only of what comes after its open */
    }
}

static void end_rename(struct power *p, const char *from, const char *to)
{
    const struct power_name *n = find_live(p, from);
    if (n != NULL) {
        add_op(p, POWER_RENAME, n->file, from, to);
    }
}

static void end_unlink(struct power *p, const char *name)
{
    const struct power_name *n = find_live(p, name);
    if (n != NULL) {
        add_op(p, POWER_UNLINK, n->file, name, "");
    }
}

void power_after(enum os_op op, int fd, const char *name, const char *to, int64_t result)
{
    struct power *p = joined;
    if (p == NULL) {
        return;
    }
    if (op == OS_OP_FSYNC || op == OS_OP_FDATASYNC) {
        end_sync(p, result);
    } else if (op == OS_OP_SYNCDIR) {
        end_sync_dir(p, result);
    } else if (pending.locked) {
        if (result >= 0 && (op == OS_OP_OPEN || op == OS_OP_LINK)) {
            end_new_name(p, fd, name);
        } else if (result == 0 && op == OS_OP_RENAME) {
            end_rename(p, name, to);
        } else if (result == 0 && op == OS_OP_UNLINK) {
            end_unlink(p, name);
        }
        unlock(p);
    }
}
