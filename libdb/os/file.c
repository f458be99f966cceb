/* file.c - bytes of files: open, read, write, allocate, sync. Names and directories are in dir.c. */
#include "os/call.h"

#include <stdlib.h>

static _Atomic uint64_t open_files;

uint64_t os_open_files(void)
{
    return atomic_load_explicit(&open_files, memory_order_relaxed);
}

static void count_open(void)
{
    atomic_fetch_add_explicit(&open_files, 1, memory_order_relaxed);
}

/* 0, 1 and 2 are where a program reads and prints, also a program that was started with them closed: a file
 * of ours under such a number would be printed into. */
static int above_standard(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO) {
        return fd;
    }
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return high;
}

unsigned os_fill_standard(void)
{
    unsigned filled = 0;
    for (int fd = open("/", O_PATH | O_CLOEXEC); fd >= 0; fd = open("/", O_PATH | O_CLOEXEC)) {
        if (fd > STDERR_FILENO) {
            (void)close(fd);
            break;
        }
        filled |= 1u << fd;
    }
    return filled;
}

void os_clear_standard(unsigned filled)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if ((filled >> fd & 1) != 0) {
            (void)close(fd);
        }
    }
}

int os_open_dir(const char *path, int *fd)
{
    int got;
    OS_CALL(got, OS_OP_OPEN, -1, path, 0, NULL,
            above_standard(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
    if (got < 0) {
        if (errno == ENOENT) {
            return err_set(SHALE_NODB, "%s: no such directory", path);
        }
        if (errno == ENOTDIR) {
            return err_set(SHALE_INVALID, "%s: is not a directory", path);
        }
        return err_sys("%s: open", path);
    }
    count_open();
    *fd = got;
    return SHALE_OK;
}

/* Opens what there is, or creates it when there is nothing; *created tells which, because only what we
 * created gets our mode. Two processes may chase each other's create and unlink, so it loops. O_NONBLOCK: a
 * FIFO planted under one of our names must not hang us; it does nothing to a file, but for one that is leased
 * to somebody (EAGAIN), where waiting is right. */
static int open_or_create(int dirfd, const char *name, int flags, unsigned mode, bool *created)
{
    int extra = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
    int open_flags = flags & ~(O_CREAT | O_EXCL);
    for (;;) {
        int fd = -1;
        *created = false;
        if ((flags & O_EXCL) == 0) {
            OS_CALL(fd, OS_OP_OPEN, dirfd, name, 0, NULL,
                    above_standard(openat(dirfd, name, open_flags | extra)));
            if (fd < 0 && errno == EAGAIN && (extra & O_NONBLOCK) != 0) {
                extra &= ~O_NONBLOCK;
                continue;
            }
            if (fd >= 0 || errno != ENOENT || (flags & O_CREAT) == 0) {
                return fd;
            }
        }
        OS_CALL(fd, OS_OP_OPEN, dirfd, name, 0, NULL,
                above_standard(openat(dirfd, name, open_flags | O_CREAT | O_EXCL | extra, (mode_t)mode)));
        *created = fd >= 0;
        if (fd >= 0 || errno != EEXIST || (flags & O_EXCL) != 0) {
            return fd;
        }
    }
}

/* The umask took bits away from what open was told; a file of ours has exactly the mode asked for. */
static int prepare_opened(int fd, const char *name, int flags, unsigned mode, bool created, struct stat *st)
{
    int rc = os_stat(fd, st);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", name);
    }
    if (!S_ISREG(st->st_mode) && (flags & O_DIRECTORY) == 0) {
        return err_set(SHALE_INVALID, "%s: is not a regular file", name);
    }
    if (created && (st->st_mode & 07777) != mode) {
        if (fchmod(fd, (mode_t)mode) != 0) {
            return err_sys("%s: chmod", name);
        }
        st->st_mode = (st->st_mode & ~(mode_t)07777) | (mode_t)mode;
    }
    return SHALE_OK;
}

/* st NULL: nobody wants to know, and a directory needs no look to be told from a file. */
static int open_any(int dirfd, const char *name, int flags, unsigned mode, int *fd, struct stat *st)
{
    struct stat seen;
    bool created;
    int got = open_or_create(dirfd, name, flags, mode, &created);
    if (got < 0) {
        if (errno == ENOENT) {
            return SHALE_NOTFOUND;
        }
        if (errno == EEXIST) {
            return SHALE_EXISTS;
        }
        return err_sys("%s: open", name);
    }
    count_open();
    bool look = st != NULL || created || (flags & O_DIRECTORY) == 0;
    int rc = look ? prepare_opened(got, name, flags, mode, created, &seen) : SHALE_OK;
    if (rc != SHALE_OK) {
        os_close(&got);
        return rc;
    }
    *fd = got;
    if (st != NULL) {
        *st = seen;
    }
    return SHALE_OK;
}

int os_open_stat(int dirfd, const char *name, int flags, unsigned mode, int *fd, struct stat *st)
{
    return open_any(dirfd, name, flags, mode, fd, st);
}

int os_open(int dirfd, const char *name, int flags, unsigned mode, int *fd)
{
    return open_any(dirfd, name, flags, mode, fd, NULL);
}

void os_close(int *fd)
{
    if (*fd < 0) {
        return;
    }
    (void)os_door(OS_OP_CLOSE, *fd, NULL, 0, NULL);
    int saved = errno;
    (void)close(*fd); /* also after EINTR the descriptor is gone: never again */
    errno = saved;
    atomic_fetch_sub_explicit(&open_files, 1, memory_order_relaxed);
    *fd = -1;
}

int os_pread(int fd, void *buf, size_t size, uint64_t offset, size_t *got)
{
    size_t done = 0;
    while (done < size) {
        size_t length = size - done;
        ssize_t n;
        OS_CALL(n, OS_OP_READ, fd, NULL, offset + done, &length,
                pread(fd, (char *)buf + done, length, (off_t)(offset + done)));
        if (n < 0) {
            return err_sys("read of %zu bytes at %llu", size, (unsigned long long)offset);
        }
        if (n == 0) {
            break;
        }
        done += (size_t)n;
    }
    *got = done;
    return SHALE_OK;
}

/* A write that makes no progress is an error, or this would spin for ever. */
int os_pwrite(int fd, const void *buf, size_t size, uint64_t offset)
{
    size_t done = 0;
    while (done < size) {
        size_t length = size - done;
        ssize_t n;
        OS_CALL(n, OS_OP_WRITE, fd, NULL, offset + done, &length,
                length == 0 ? 0 : pwrite(fd, (const char *)buf + done, length, (off_t)(offset + done)));
        if (n == 0) {
            errno = EIO;
            n = -1;
        }
        if (n < 0) {
            return err_sys("write of %zu bytes at %llu (%zu done)", size, (unsigned long long)offset, done);
        }
        done += (size_t)n;
    }
    return SHALE_OK;
}

/* Where the file system has no fallocate: writes what stands there, and zeros behind the end. Whoever
 * allocates a file has it alone: files are allocated whole before anybody maps them. */
static int allocate_by_writing(int fd, uint64_t offset, uint64_t size)
{
    enum { CHUNK = 64 << 10 };
    char *chunk = base_alloc(CHUNK);
    int rc = chunk != NULL ? SHALE_OK : SHALE_NOMEM;
    while (rc == SHALE_OK && size > 0) {
        size_t n = size < CHUNK ? (size_t)size : CHUNK, got = 0;
        rc = os_pread(fd, chunk, n, offset, &got);
        if (rc == SHALE_OK) {
            memset(chunk + got, 0, n - got);
            rc = os_pwrite(fd, chunk, n, offset);
        }
        offset += n;
        size -= n;
    }
    free(chunk);
    return rc;
}

/* tmpfs gives a whole allocation up when a signal comes in: a process under a timer would never get through a
 * big one, so every EINTR halves the step. */
int os_allocate(int fd, uint64_t offset, uint64_t size)
{
    uint64_t step = size;
    while (size > 0) {
        uint64_t n = size < step ? size : step;
        int err = os_door(OS_OP_ALLOCATE, fd, NULL, offset, NULL);
        if (err == 0 && fallocate(fd, 0, (off_t)offset, (off_t)n) != 0) {
            err = errno;
        }
        if (err == EINTR) {
            step = n > (128 << 10) ? n / 2 : n;
        } else if (err == EOPNOTSUPP) {
            return allocate_by_writing(fd, offset, size);
        } else if (err != 0) {
            errno = err;
            return err_sys("allocate %llu bytes at %llu", (unsigned long long)n, (unsigned long long)offset);
        } else {
            offset += n;
            size -= n;
        }
    }
    return SHALE_OK;
}

int os_truncate(int fd, uint64_t size)
{
    int rc;
    OS_CALL(rc, OS_OP_TRUNCATE, fd, NULL, size, NULL, ftruncate(fd, (off_t)size));
    return rc == 0 ? SHALE_OK : err_sys("truncate to %llu bytes", (unsigned long long)size);
}

/* EINTR is no report about the data, so asking again is not the retry that [I-13] forbids. */
int os_fdatasync(int fd)
{
    int rc;
    os_audit_slow("fdatasync");
    OS_CALL(rc, OS_OP_FDATASYNC, fd, NULL, 0, NULL, fdatasync(fd));
    return rc == 0 ? SHALE_OK : err_sys("fdatasync");
}

int os_fsync(int fd)
{
    int rc;
    os_audit_slow("fsync");
    OS_CALL(rc, OS_OP_FSYNC, fd, NULL, 0, NULL, fsync(fd));
    return rc == 0 ? SHALE_OK : err_sys("fsync");
}

/* Only hints: what goes wrong here shows at the next sync, or does not matter. */
int os_start_writeback(int fd, uint64_t offset, uint64_t size)
{
    if (os_door(OS_OP_WRITEBACK, fd, NULL, offset, NULL) == 0) {
        (void)sync_file_range(fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE);
    }
    return SHALE_OK;
}

int os_read_file(int dirfd, const char *name, size_t limit, struct buf *out)
{
    struct buf content = {NULL, 0, 0};
    struct stat st;
    int fd = -1;
    int rc = os_open_stat(dirfd, name, O_RDONLY, 0, &fd, &st);
    if (rc != SHALE_OK) {
        return rc;
    }
    size_t size = (size_t)st.st_size, got = 0;
    if ((uint64_t)st.st_size > limit) {
        rc = err_set(SHALE_CORRUPT, "%s: longer than %zu bytes", name, limit);
    }
    if (rc == SHALE_OK) {
        rc = buf_reserve(&content, size);
    }
    if (rc == SHALE_OK) {
        rc = os_pread(fd, content.data, size, 0, &got);
    }
    if (rc == SHALE_OK) {
        content.size = got;
        buf_release(out);
        *out = content;
        content = (struct buf){NULL, 0, 0};
    }
    buf_release(&content);
    os_close(&fd);
    return rc;
}
