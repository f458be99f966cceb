/* lock.c - byte-range locks of an open file (F_OFD_SETLK).
 *
 * They belong to the open file description: two opens of one file exclude each other whoever holds them, a
 * descriptor inherited through fork or exec carries its locks, closing another descriptor of the file drops
 * nothing, and the kernel drops them with the last descriptor. Why not flock: no ranges. Why not POSIX fcntl
 * locks: they belong to the process, and any close of the file by any library in it drops them all. Why not
 * mutexes in shared memory: a robust mutex names its owner by a thread id, which means something else in
 * another PID namespace. */
#include "os/call.h"

static struct flock range(uint64_t start, uint64_t length, short type)
{
    /* l_pid stays 0, or the kernel refuses. */
    return (struct flock){
        .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
}

int os_lock_try(int fd, uint64_t start, uint64_t length, bool exclusive)
{
    int rc;
    struct flock lock = range(start, length, exclusive ? F_WRLCK : F_RDLCK);
    OS_CALL(rc, OS_OP_LOCK, fd, NULL, start, NULL, fcntl(fd, F_OFD_SETLK, &lock));
    if (rc != 0) {
        return errno == EAGAIN || errno == EACCES ? SHALE_BUSY
                                                  : err_sys("lock byte %llu", (unsigned long long)start);
    }
    os_audit_bytes(fd, start, length, true);
    return SHALE_OK;
}

int os_unlock(int fd, uint64_t start, uint64_t length)
{
    int rc;
    struct flock lock = range(start, length, F_UNLCK);
    os_audit_bytes(fd, start, length, false);
    OS_CALL(rc, OS_OP_UNLOCK, fd, NULL, start, NULL, fcntl(fd, F_OFD_SETLK, &lock));
    return rc == 0 ? SHALE_OK : err_sys("unlock byte %llu", (unsigned long long)start);
}

int os_lock_test(int fd, uint64_t start, uint64_t length, bool exclusive, bool *taken)
{
    int rc;
    struct flock lock = range(start, length, exclusive ? F_WRLCK : F_RDLCK);
    OS_CALL(rc, OS_OP_TESTLOCK, fd, NULL, start, NULL, fcntl(fd, F_OFD_GETLK, &lock));
    if (rc != 0) {
        return err_sys("test the lock of byte %llu", (unsigned long long)start);
    }
    *taken = lock.l_type != F_UNLCK;
    return SHALE_OK;
}
