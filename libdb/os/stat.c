/* stat.c - what the kernel knows of a file, asked for without its times.
 *
 * A kernel that gives files fine-grained times (from 6.13 on) does so only for those whose time somebody has
 * looked at: the next write then gets a time of its own, the inode is dirty, and the fdatasync behind it has
 * one more block to write. So nobody here looks at the times but os_stamp.
 */
#include "os/call.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#define WITHOUT_TIMES (STATX_BASIC_STATS & ~(STATX_ATIME | STATX_MTIME | STATX_CTIME))

/* name "": fd itself. Returns as the system calls do. */
static int ask(int fd, const char *name, unsigned mask, struct statx *got)
{
    int flags = AT_SYMLINK_NOFOLLOW | (name[0] == '\0' ? AT_EMPTY_PATH : 0), rc;
    OS_CALL(rc, OS_OP_STAT, fd, name[0] == '\0' ? NULL : name, 0, NULL, statx(fd, name, flags, mask, got));
    return rc;
}

static void convert(const struct statx *got, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_dev = makedev(got->stx_dev_major, got->stx_dev_minor);
    st->st_ino = got->stx_ino;
    st->st_mode = got->stx_mode;
    st->st_nlink = got->stx_nlink;
    st->st_uid = got->stx_uid;
    st->st_gid = got->stx_gid;
    st->st_size = (off_t)got->stx_size;
    st->st_blocks = (blkcnt_t)got->stx_blocks;
    st->st_blksize = (blksize_t)got->stx_blksize;
}

int os_stat(int fd, struct stat *st)
{
    struct statx got;
    if (ask(fd, "", WITHOUT_TIMES, &got) != 0) {
        return err_sys("stat");
    }
    convert(&got, st);
    return SHALE_OK;
}

int os_stat_at(int dirfd, const char *name, struct stat *st)
{
    struct statx got;
    if (ask(dirfd, name, WITHOUT_TIMES, &got) != 0) {
        return errno == ENOENT ? SHALE_NOTFOUND : err_sys("%s: stat", name);
    }
    convert(&got, st);
    return SHALE_OK;
}

int os_links(int fd, unsigned *count)
{
    struct statx got;
    if (ask(fd, "", STATX_NLINK, &got) != 0) {
        return err_sys("stat");
    }
    *count = got.stx_nlink;
    return SHALE_OK;
}

int os_stamp(int dirfd, const char *name, struct os_stamp *stamp)
{
    struct statx got;
    if (ask(dirfd, name, STATX_INO | STATX_SIZE | STATX_MTIME | STATX_CTIME, &got) != 0) {
        return errno == ENOENT ? SHALE_NOTFOUND : err_sys("%s: stat", name);
    }
    *stamp = (struct os_stamp){.ino = got.stx_ino,
                               .size = got.stx_size,
                               .mtime_s = got.stx_mtime.tv_sec,
                               .ctime_s = got.stx_ctime.tv_sec,
                               .mtime_ns = got.stx_mtime.tv_nsec,
                               .ctime_ns = got.stx_ctime.tv_nsec};
    return SHALE_OK;
}
