/* os.h - the one door to the operating system: files by directory descriptor, mappings, byte-range locks,
 * futexes, clocks, threads, who we are. Nothing outside this folder includes fcntl.h, sys/mman.h or pthread.h
 * on its own.
 *
 * Every system call that can fail passes os_door() first: builds with SHALE_DEBUG can fail the n-th call, cut
 * a write short or die right there. Without SHALE_DEBUG the door is nothing at all.
 *
 * Locks are open-file-description locks (F_OFD_SETLK): they belong to the open file, not to the process. Two
 * handles in one process exclude each other, and a dead process's locks are dropped by the kernel. They do
 * not exclude threads that share an open file: so struct os_roles puts a gate in front of every role byte
 * [I-2b].
 *
 * All functions return SHALE_OK or a negative status with err_sys's text, unless they say otherwise.
 * EINTR is retried everywhere. Names are relative to a directory descriptor.
 */
#ifndef OS_OS_H
#define OS_OS_H

#include "base/base.h"
#include "os/roles.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

_Static_assert(sizeof(uint64_t) == sizeof(_Atomic uint64_t), "64-bit atomics must be plain words");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");

/* ---- the door (door.c) ---- */

/* clang-format off */
#define OS_OPS(X)                                                                                            \
    X(OPEN) X(CLOSE) X(READ) X(WRITE) X(ALLOCATE) X(TRUNCATE) X(FDATASYNC) X(FSYNC) X(SYNCDIR) X(STAT)       \
    X(RENAME) X(LINK) X(UNLINK) X(MKDIR) X(LIST) X(MAP) X(UNMAP) X(ADVISE) X(LOCK) X(UNLOCK) X(TESTLOCK)     \
    X(THREAD) X(WRITEBACK)
/* clang-format on */

enum os_op {
#define X(n) OS_OP_##n,
    OS_OPS(X)
#undef X
        OS_OP_COUNT
};
const char *os_op_name(enum os_op op);

/* Places in the protocols where a process may be made to stop or die: named after what has just been done or
 * is about to be done. Used by the crash tests, which count them. Each os_mark() in the source is also a
 * point of its own, in a table that the linker puts together: so a test can walk all of them, and say which
 * it did not reach. */
/* clang-format off */
#define OS_MARKS(X)                                                                                          \
    X(NONE) X(APPEND) X(INSERT) X(PUBLISH) X(UNLOCK) X(ROTATE) X(PREPARE) X(FLUSH) X(COMPACT)                \
    X(MANIFEST) X(RECYCLE) X(RECOVER) X(QUEUE) X(SYNC) X(OPEN) X(CLOSE) X(SLOT) X(GATE)
/* clang-format on */

enum os_mark {
#define X(n) OS_MARK_##n,
    OS_MARKS(X)
#undef X
        OS_MARK_COUNT
};
const char *os_mark_name(enum os_mark mark);

#ifdef SHALE_DEBUG
/* fd: of the file or the directory; name: where the call takes one; *length: of a read or write, may be
 * lowered to cut it short. Returns 0 to go on, or the errno to fail with. Set before any thread runs. */
extern int (*os_door_hook)(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length);
extern void (*os_mark_hook)(enum os_mark mark);
/* Told what became of a call that passed the door: to is the second name of a rename, result what the call
 * returned, -1: it went wrong. Not told of closing, unmapping and allocating. */
extern void (*os_done_hook)(enum os_op op, int fd, const char *name, const char *to, int64_t result);
static inline int os_door(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    return BASE_UNLIKELY(os_door_hook != NULL) ? os_door_hook(op, fd, name, offset, length) : 0;
}
static inline void os_done(enum os_op op, int fd, const char *name, const char *to, int64_t result)
{
    if (BASE_UNLIKELY(os_done_hook != NULL)) {
        int saved = errno;
        os_done_hook(op, fd, name, to, result);
        errno = saved;
    }
}
static inline void os_mark(enum os_mark mark)
{
    if (BASE_UNLIKELY(os_mark_hook != NULL)) {
        os_mark_hook(mark);
    }
}
/* The point's hook is told before the mark's. The table has a pointer a point, so that nothing lies between
 * two of them. */
struct os_point {
    const char *file, *function;
    unsigned line;
};
extern void (*os_point_hook)(const struct os_point *const *point);
const struct os_point *const *os_points(size_t *count);
static inline void os_mark_at(enum os_mark mark, const struct os_point *const *point)
{
    if (BASE_UNLIKELY(os_point_hook != NULL)) {
        os_point_hook(point);
    }
    os_mark(mark);
}
#define os_mark(mark)                                                                                        \
    do {                                                                                                     \
        static const struct os_point here_ = {__FILE__, __func__, __LINE__};                                 \
        static const struct os_point *const point_ __attribute__((section("os_points"), used)) = &here_;     \
        os_mark_at(mark, &point_);                                                                           \
    } while (0)
#else
static inline int os_door(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)op, (void)fd, (void)name, (void)offset, (void)length;
    return 0;
}
#define os_done(op, fd, name, to, result) ((void)0)
static inline void os_mark(enum os_mark mark)
{
    (void)mark;
}
#endif

/* ---- files (file.c) ---- */

/* Opens DIR itself; SHALE_NODB when it is missing, SHALE_INVALID "is not a directory" when it is something
 * else. */
int os_open_dir(const char *path, int *fd);
/* mkdir; an existing directory is SHALE_OK. */
int os_make_dir(const char *path, unsigned mode);
int os_make_dir_at(int dirfd, const char *name, unsigned mode);
int os_make_new_dir(int dirfd, const char *name, unsigned mode); /* SHALE_EXISTS, without a text */
int os_remove_dir(int dirfd, const char *name);                  /* missing: SHALE_OK */
/* flags: O_RDONLY, O_RDWR, O_CREAT, O_EXCL; always O_CLOEXEC|O_NOFOLLOW. A missing file is SHALE_NOTFOUND and
 * one that exists with O_EXCL is SHALE_EXISTS, both without a text. mode is applied exactly (fchmod after
 * create), umask or not. What is no regular file is SHALE_INVALID, unless flags has O_DIRECTORY. */
int os_open(int dirfd, const char *name, int flags, unsigned mode, int *fd);
/* And what os_stat said of it when it was opened, since os_open has to ask. */
int os_open_stat(int dirfd, const char *name, int flags, unsigned mode, int *fd, struct stat *st);
void os_close(int *fd); /* -1: nothing; leaves -1 */
/* os_open gives no descriptor below 3. For code that opens by itself: fills those of 0, 1 and 2 that are
 * closed with what can neither be read nor written. Returns which, for os_clear_standard. */
unsigned os_fill_standard(void);
void os_clear_standard(unsigned filled);
/* Reads until size bytes or the end of the file: *got < size means the end. */
int os_pread(int fd, void *buf, size_t size, uint64_t offset, size_t *got);
int os_pwrite(int fd, const void *buf, size_t size, uint64_t offset);
int os_allocate(int fd, uint64_t offset,
                uint64_t size); /* space is really there afterwards, the size grows */
int os_truncate(int fd, uint64_t size);
int os_fdatasync(int fd);
int os_fsync(int fd);
int os_sync_dir(int dirfd);
int os_start_writeback(int fd, uint64_t offset, uint64_t size); /* sync_file_range(WRITE); best effort */
/* os_stat, os_stat_at and os_links leave the times alone (they are 0): see stat.c. */
int os_stat(int fd, struct stat *st);
int os_free_bytes(int dirfd, uint64_t *bytes);                /* that are left to this user */
int os_links(int fd, unsigned *count);                        /* how many names the file has */
int os_stat_at(int dirfd, const char *name, struct stat *st); /* missing: SHALE_NOTFOUND */
/* Changes with whatever changes the file, except stores through a mapping into pages that are dirty already.
 * SHALE_NOTFOUND (no text). */
struct os_stamp {
    uint64_t ino, size;
    int64_t mtime_s, ctime_s;
    uint32_t mtime_ns, ctime_ns;
};
int os_stamp(int dirfd, const char *name, struct os_stamp *stamp);
int os_rename(int dirfd, const char *from, const char *to);
int os_rename_noreplace(int dirfd, const char *from, const char *to); /* SHALE_EXISTS */
/* SHALE_EXISTS; SHALE_UNSUPPORTED: to another file system, one without links, or one link too many. */
int os_link(int from_dirfd, const char *from, int to_dirfd, const char *to);
int os_unlink(int dirfd, const char *name); /* missing: SHALE_OK */
/* Calls fn for every name but . and ..; nonzero stops and is returned. */
int os_list(int dirfd, int (*fn)(void *ctx, const char *name), void *ctx);
/* Reads a whole small file, as long as it is when it is opened (limit bytes at most, else SHALE_CORRUPT): for
 * files that are replaced and never written to. Missing: SHALE_NOTFOUND. */
int os_read_file(int dirfd, const char *name, size_t limit, struct buf *out);
/* SHALE_UNSUPPORTED, naming the type, when the directory lies on a network file system (NFS, SMB, CIFS, 9p,
 * FUSE, Ceph, AFS, ...) or has files that come from the lower layer of an overlay. *overwrites_in_place: a
 * mapped store hits the same blocks (ext2-4, xfs, tmpfs); false on copy-on-write systems (btrfs, zfs,
 * bcachefs, unknown ones). */
int os_check_fs(int dirfd, bool *overwrites_in_place);
struct os_fs {
    uint32_t magic; /* f_type of statfs */
    const char *name;
    bool refused, in_place;
};
const struct os_fs *os_fs_find(uint32_t magic); /* NULL: not in the table, so accepted and not in place */

/* ---- mappings (map.c) ---- */

/* Maps [0, size) of fd. SHALE_NOMEM also where the map count is exhausted. */
int os_map(int fd, size_t size, bool writable, void **map);
int os_map_anonymous(size_t size, void **map);
void os_unmap(void *map, size_t size);
/* Drops the pages of a file's mapping (they stay in the file), piece by piece, so that others get to run in
 * between: what is left to the unmapping is quick. */
void os_map_let_go(void *map, size_t size);
void os_map_dontfork(void *map, size_t size);
void os_map_sequential(void *map, size_t size);
void os_map_random(void *map, size_t size); /* no read-ahead */
/* Faults the pages in for reading; an I/O error is SHALE_IO instead of a signal (MADV_POPULATE_READ). */
int os_map_populate_read(void *map, size_t offset, size_t size);
int os_map_populate_write(void *map, size_t offset, size_t size);
/* All pages of a file's mapping from offset, a page's, are in the page cache: faulting them in reads nothing.
 * false: not all, or it cannot be known. The kernel says true to whom it does not want to tell: who neither
 * owns the file nor may write it. */
bool os_map_resident(void *map, size_t offset, size_t size);
/* Does it tell this process the truth about the file? */
bool os_told_resident(int dirfd, const char *name, uid_t owner);

/* ---- byte-range locks (lock.c) ---- */

int os_lock_try(int fd, uint64_t start, uint64_t length,
                bool exclusive); /* SHALE_BUSY: another open file has it */
int os_unlock(int fd, uint64_t start, uint64_t length);
/* Would an exclusive (or shared) lock through fd meet another's lock? Never sees fd's own. */
int os_lock_test(int fd, uint64_t start, uint64_t length, bool exclusive, bool *taken);

/* ---- waiting (wait.c) ---- */

#define OS_NEVER INT64_MAX

/* What bounds a wait: a point of CLOCK_MONOTONIC in ns (OS_NEVER; 0: try once), and an interrupt counter that
 * ends it with SHALE_CANCELLED when it differs from `seen`. Interrupts are noticed within 50 ms. */
struct os_wait {
    int64_t deadline;
    const _Atomic uint32_t *interrupts; /* NULL: not interruptible */
    uint32_t seen;
};
static inline struct os_wait os_wait_forever(void)
{
    return (struct os_wait){OS_NEVER, NULL, 0};
}
/* From timeout_ms as the public API has it: -1 for ever, 0 try once. */
struct os_wait os_wait_ms(int64_t timeout_ms, const _Atomic uint32_t *interrupts);

/* Sleeps until *word != value, a wake, max_ns, or the wait's end. SHALE_OK: look again (also after max_ns);
 * SHALE_BUSY, without a text: the deadline has passed; SHALE_CANCELLED. word NULL: just sleeps. The word may
 * be shared between processes. */
int os_sleep(const struct os_wait *wait, _Atomic uint32_t *word, uint32_t value, int64_t max_ns);
void os_wake(_Atomic uint32_t *word, int count); /* does not change the word */
static inline void os_wake_all(_Atomic uint32_t *word)
{
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    os_wake(word, INT32_MAX);
}
/* A word whose sleepers are told apart: a wake reaches those that have a bit in common with it. */
struct os_word {
    _Atomic uint32_t *word;
    uint32_t bits; /* not 0 */
};
int os_sleep_bits(const struct os_wait *wait, const struct os_word *word, uint32_t value, int64_t max_ns);
void os_wake_bits(const struct os_word *word); /* changes the word, wakes all that have one of the bits */

/* ---- role locks of a handle (role.c) ---- */

enum os_role {
#define X(name, first, bytes, rank, text) OS_ROLE_##name,
    OS_ROLES(X)
#undef X
        OS_ROLE_COUNT
};

struct os_roles {
    int fd;                /* this handle's own open file of LOCK; -1: none */
    uint32_t compact_held; /* bits of the level bytes held through fd; under compact_mutex */
    pthread_mutex_t compact_mutex;
    _Atomic uint32_t gate[OS_ROLE_COUNT]; /* for the threads of this handle */
};
const char *os_role_name(enum os_role role);
int os_roles_init(struct os_roles *r, int fd); /* takes fd over */
void os_roles_release(struct os_roles *r);     /* closes fd: whatever it holds is dropped */
/* The role's gate, then its bytes. lock waits (in order of rank, audited), polling on word if given, else
 * with short sleeps; SHALE_BUSY after the deadline. try: SHALE_BUSY at once, without a text. */
int os_role_lock(struct os_roles *r, enum os_role role, const struct os_wait *wait, _Atomic uint32_t *word);
int os_role_try(struct os_roles *r, enum os_role role);
void os_role_unlock(struct os_roles *r, enum os_role role);
/* WRITE and NESTED are taken in two steps: the gate of the handle here, the bytes by the lock queue. Another
 * thread than the one that claimed may unclaim. */
int os_role_claim(struct os_roles *r, enum os_role role, const struct os_wait *wait);
bool os_role_claim_free(struct os_roles *r, enum os_role role); /* only if no thread has it */
void os_role_unclaim(struct os_roles *r, enum os_role role);
/* The bytes of the levels from..to, tried only. */
int os_compact_try(struct os_roles *r, unsigned from, unsigned to);
void os_compact_unlock(struct os_roles *r, unsigned from, unsigned to);
#define OS_COMPACT_LEVELS 8

/* The audit (SHALE_DEBUG only): aborts with the list of what the thread holds. */
#ifdef SHALE_DEBUG
void os_audit_wait(unsigned rank, const char *what); /* may this thread wait for a lock of that rank? */
void os_audit_slow(const char *what);                /* fdatasync, sleeping: never under WRITE [I-4] */
void os_audit_held(enum os_role role);               /* this thread holds it */
void os_audit_kept(enum os_role role);               /* what it claimed has its bytes already */
void os_audit_clean(const char *where);              /* nothing is held any more */
/* A write transaction keeps WRITE between calls, may move to another thread, and may prepare a segment under
 * it: exempt (+1, when it holds WRITE or NESTED) and back (-1, before it gives it back). */
void os_audit_exempt(int delta);
#else
#define os_audit_wait(rank, what) ((void)0)
#define os_audit_slow(what)       ((void)0)
#define os_audit_held(role)       ((void)0)
#define os_audit_kept(role)       ((void)0)
#define os_audit_clean(where)     ((void)0)
#define os_audit_exempt(delta)    ((void)0)
#endif

/* ---- clocks, identity (ident.c) ---- */

int64_t os_now(void);    /* CLOCK_MONOTONIC, ns */
uint64_t os_wall(void);  /* CLOCK_REALTIME, ns; for people */
void os_nap(int64_t ns); /* plain sleep, audited */
void os_yield(void);     /* sched_yield */

struct os_identity {
    int64_t pid;         /* as the process sees itself */
    uint64_t start_time; /* clock ticks since boot, /proc/self/stat; 0 when unknown */
    uint64_t pid_ns;     /* inode of its PID namespace; 0 when unknown */
    char program[32];    /* /proc/self/comm, cut */
};
const struct os_identity *os_self(void); /* cached; read again in a forked child */
int64_t os_pid(void);                    /* as os_self()->pid, and never cached */
/* Pid and program alone: on the first thread without a look into /proc, which is a sixth of opening a
 * database, reading a key and closing it again. */
void os_self_brief(struct os_identity *id);
/* The 16 bytes of the boot id; zeros when unknown. */
void os_boot_id(unsigned char id[16]);
/* Is the process stopped (state T or t in /proc)? Only for texts shown to people; false when it cannot be
 * told. */
bool os_is_stopped(int64_t pid, uint64_t pid_ns, uint64_t start_time);
/* Has it ended, so that whoever inherited its descriptors has what it held? Only for texts, as well. */
bool os_has_ended(int64_t pid, uint64_t pid_ns, uint64_t start_time);
void os_random(void *buf, size_t size); /* getrandom; never fails */
size_t os_page_size(void);
uint64_t os_memory_bytes(void); /* of the machine; 0: not known */
unsigned os_cpus(void);

/* ---- threads (thread.c) ---- */

int os_thread_start(pthread_t *thread, void *(*run)(void *ctx), void *ctx,
                    const char *name); /* all signals blocked in it */
void os_thread_join(pthread_t thread);
/* Another number in a forked child than in its parent. What was mapped with os_map_dontfork under another
 * number is not there. */
unsigned os_fork_generation(void);
void os_mutex_init(pthread_mutex_t *m);
void os_mutex_destroy(pthread_mutex_t *m);
static inline void os_mutex_lock(pthread_mutex_t *m)
{
    (void)pthread_mutex_lock(m);
}
static inline bool os_mutex_try(pthread_mutex_t *m)
{
    return pthread_mutex_trylock(m) == 0;
}
static inline void os_mutex_unlock(pthread_mutex_t *m)
{
    (void)pthread_mutex_unlock(m);
}

/* Counts the mappings and descriptors that are open through this layer, for leak tests. */
uint64_t os_open_files(void);
uint64_t os_mapped_bytes(void);

#endif
