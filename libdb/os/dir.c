/* dir.c - names and directories: make, list, rename, link, unlink, sync. */
#include "os/call.h"

#include <dirent.h>
#include <stdio.h>

int os_make_dir(const char *path, unsigned mode)
{
    return os_make_dir_at(AT_FDCWD, path, mode);
}

/* Only the one who made it gives it the exact mode: another's directory is left as it is. */
int os_make_new_dir(int dirfd, const char *name, unsigned mode)
{
    int rc;
    OS_CALL(rc, OS_OP_MKDIR, dirfd, name, 0, NULL, mkdirat(dirfd, name, (mode_t)mode));
    if (rc == 0) {
        rc = fchmodat(dirfd, name, (mode_t)mode, 0);
        return rc == 0 ? SHALE_OK : err_sys("%s: chmod", name);
    }
    return errno == EEXIST ? SHALE_EXISTS : err_sys("%s: mkdir", name);
}

int os_make_dir_at(int dirfd, const char *name, unsigned mode)
{
    struct stat st;
    int rc = os_make_new_dir(dirfd, name, mode);
    if (rc != SHALE_EXISTS) {
        return rc;
    }
    if (fstatat(dirfd, name, &st, 0) == 0 && !S_ISDIR(st.st_mode)) {
        return err_set(SHALE_INVALID, "%s: is not a directory", name);
    }
    return SHALE_OK;
}

int os_sync_dir(int dirfd)
{
    int rc;
    os_audit_slow("fsync of a directory");
    OS_CALL(rc, OS_OP_SYNCDIR, dirfd, NULL, 0, NULL, fsync(dirfd));
    return rc == 0 ? SHALE_OK : err_sys("fsync of the directory");
}

int os_rename(int dirfd, const char *from, const char *to)
{
    int rc;
    OS_CALL_TO(rc, OS_OP_RENAME, dirfd, from, to, 0, NULL, renameat(dirfd, from, dirfd, to));
    return rc == 0 ? SHALE_OK : err_sys("%s: rename to %s", from, to);
}

/* Where the file system cannot do it in one step, link and unlink: killed in between, the file has both
 * names, and the temporary one is swept like any other leftover. */
int os_rename_noreplace(int dirfd, const char *from, const char *to)
{
    int rc;
    OS_CALL_TO(rc, OS_OP_RENAME, dirfd, from, to, 0, NULL,
               renameat2(dirfd, from, dirfd, to, RENAME_NOREPLACE));
    if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) {
        rc = os_link(dirfd, from, dirfd, to);
        return rc == SHALE_OK ? os_unlink(dirfd, from) : rc;
    }
    if (rc != 0) {
        return errno == EEXIST ? SHALE_EXISTS : err_sys("%s: rename to %s", from, to);
    }
    return SHALE_OK;
}

int os_link(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    int rc;
    OS_CALL(rc, OS_OP_LINK, to_dirfd, to, 0, NULL, linkat(from_dirfd, from, to_dirfd, to, 0));
    if (rc == 0 || errno == EEXIST) {
        return rc == 0 ? SHALE_OK : SHALE_EXISTS;
    }
    int err = errno, status = err_sys("%s: link to %s", from, to);
    bool never = err == EXDEV || err == EMLINK || err == EPERM || err == EOPNOTSUPP;
    return never ? SHALE_UNSUPPORTED : status;
}

int os_unlink(int dirfd, const char *name)
{
    int rc;
    OS_CALL(rc, OS_OP_UNLINK, dirfd, name, 0, NULL, unlinkat(dirfd, name, 0));
    return rc == 0 || errno == ENOENT ? SHALE_OK : err_sys("%s: unlink", name);
}

int os_remove_dir(int dirfd, const char *name)
{
    int rc;
    OS_CALL(rc, OS_OP_UNLINK, dirfd, name, 0, NULL, unlinkat(dirfd, name, AT_REMOVEDIR));
    return rc == 0 || errno == ENOENT ? SHALE_OK : err_sys("%s: rmdir", name);
}

static int list_open(DIR *dir, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int rc = SHALE_OK;
    while (rc == SHALE_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            return errno == 0 ? SHALE_OK : err_sys("read the directory");
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            rc = fn(ctx, entry->d_name);
        }
    }
    return rc;
}

/* On an open file of its own: a directory stream moves the position of the one it is given. */
int os_list(int dirfd, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int fd;
    OS_CALL(fd, OS_OP_LIST, dirfd, NULL, 0, NULL, openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0) {
        return err_sys("open the directory");
    }
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int rc = err_sys("read the directory");
        (void)close(fd);
        return rc;
    }
    int rc = list_open(dir, fn, ctx);
    (void)closedir(dir);
    return rc;
}
