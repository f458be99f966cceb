/* fs.c - on which file systems a database may live.
 *
 * What is needed: byte-range locks, shared mappings and wake words that all processes see at once, which no
 * network file system gives to processes on different machines. They are refused by type, because the failure
 * would be silent. FUSE may be anything, so it is refused too.
 *
 * An overlay is fine for files that were made in it: they are ordinary files of its upper layer. A file that
 * comes from a lower layer is not: it is copied up when somebody first opens it for writing, and who opened
 * or mapped it before goes on looking at the old one; and processes outside of this overlay share the
 * original, not the copy. So a directory in an overlay is accepted only when nothing in it comes from below:
 *   - a directory that has no lower part (st_nlink of a merged one reads 1; a pure one's is 2 or more on most
 * upper layers) has only upper files, whatever was put into it;
 *   - else each file is asked for its overlay file handle, whose flag says "upper"; a kernel that gives no
 * handle (before 6.6) leaves an empty directory as the only good answer. */
#include "os/call.h"

#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

static const struct os_fs fs_rows[] = {
    /* magic, name, refused, overwrites in place */
    {0xef53, "ext2/ext3/ext4", false, true},
    {0x58465342, "xfs", false, true},
    {0x01021994, "tmpfs", false, true},
    {0x858458f6, "ramfs", false, true},
    {0x3153464a, "jfs", false, true},
    {0x52654973, "reiserfs", false, true},
    {0x9123683e, "btrfs", false, false},
    {0x2fc12fc1, "zfs", false, false},
    {0xca451a4e, "bcachefs", false, false},
    {0xf2f52010, "f2fs", false, false},
    {0x3434, "nilfs2", false, false},
    {0x794c7630, "overlayfs", false, false},
    {0x6969, "NFS", true, false},
    {0x517b, "SMB", true, false},
    {0xff534d42, "CIFS", true, false},
    {0xfe534d42, "SMB2", true, false},
    {0x564c, "NCP", true, false},
    {0x01021997, "9p", true, false},
    {0x65735546, "FUSE", true, false},
    {0x00c36400, "Ceph", true, false},
    {0x5346414f, "AFS", true, false},
    {0x6b414653, "AFS", true, false},
    {0x73757245, "Coda", true, false},
    {0x7461636f, "OCFS2", true, false},
    {0x01161970, "GFS2", true, false},
    {0x0bd00bd0, "Lustre", true, false},
    {0x47504653, "GPFS", true, false},
    {0x19830326, "BeeGFS", true, false},
    {0x20030528, "OrangeFS", true, false},
    {0xaad7aaea, "PanFS", true, false},
    {0xbeefdead, "SNFS", true, false},
    {0x786f4256, "vboxsf", true, false},
    {0xbacbacbc, "vmhgfs", true, false},
    {0x7c7c6673, "prl_fs", true, false},
    {0x00c0ffee, "hostfs", true, false},
};

const struct os_fs *os_fs_find(uint32_t magic)
{
    for (size_t i = 0; i < BASE_COUNT(fs_rows); i++) {
        if (fs_rows[i].magic == magic) {
            return &fs_rows[i];
        }
    }
    return NULL;
}

/* ---- overlay ---- */

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID AT_REMOVEDIR /* since Linux 6.6; the kernel's own value */
#endif

/* The handle's bytes, from the kernel's format: 3 of padding, then version, magic, length, flags. */
enum {
    OVERLAY_HANDLE_TYPE = 0xf8,
    OVERLAY_MAGIC_AT = 4,
    OVERLAY_MAGIC = 0xfb,
    OVERLAY_FLAGS_AT = 6,
    OVERLAY_UPPER = 4
};

enum layer { LAYER_UPPER, LAYER_LOWER, LAYER_UNKNOWN };

static enum layer file_layer(int dirfd, const char *name)
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle;
    int mount;
    memset(&handle, 0, sizeof handle);
    handle.head.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(dirfd, name, &handle.head, &mount, AT_HANDLE_FID) != 0) {
        return errno == ENOENT ? LAYER_UPPER : LAYER_UNKNOWN; /* gone meanwhile: no matter */
    }
    const unsigned char *p = handle.head.f_handle;
    if (handle.head.handle_type != OVERLAY_HANDLE_TYPE || handle.head.handle_bytes <= OVERLAY_FLAGS_AT ||
        p[OVERLAY_MAGIC_AT] != OVERLAY_MAGIC) {
        return LAYER_UNKNOWN;
    }
    return (p[OVERLAY_FLAGS_AT] & OVERLAY_UPPER) != 0 ? LAYER_UPPER : LAYER_LOWER;
}

static int check_layer(void *ctx, const char *name)
{
    const int *dirfd = ctx;
    switch (file_layer(*dirfd, name)) {
    case LAYER_UPPER: return SHALE_OK;
    case LAYER_LOWER:
        return err_set(SHALE_UNSUPPORTED,
                       "%s comes from a lower layer of an overlay file system (copy the database to a "
                       "new directory, or use a volume)",
                       name);
    default:
        return err_set(SHALE_UNSUPPORTED,
                       "cannot tell whether %s comes from a lower layer of an overlay file system (use a "
                       "directory made inside of it, or a volume)",
                       name);
    }
}

static int check_overlay(int dirfd, const struct statfs *sfs)
{
    struct stat st;
    if ((sfs->f_flags & ST_RDONLY) != 0) {
        return SHALE_OK; /* nothing can be copied up: what is there stays what it is */
    }
    int rc = os_stat(dirfd, &st);
    if (rc != SHALE_OK) {
        return rc;
    }
    return os_list(dirfd, check_layer, &dirfd);
}

int os_check_fs(int dirfd, bool *overwrites_in_place)
{
    struct statfs sfs;
    int rc;
    OS_CALL(rc, OS_OP_STAT, dirfd, NULL, 0, NULL, fstatfs(dirfd, &sfs));
    if (rc != 0) {
        return err_sys("statfs");
    }
    const struct os_fs *fs = os_fs_find((uint32_t)sfs.f_type);
    if (fs != NULL && fs->refused) {
        return err_set(SHALE_UNSUPPORTED,
                       "the directory is on %s, a network or user-space file system; a database "
                       "needs a local one (ext4, xfs, btrfs, tmpfs)",
                       fs->name);
    }
    if (fs != NULL && fs->magic == OVERLAYFS_SUPER_MAGIC) {
        rc = check_overlay(dirfd, &sfs);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    *overwrites_in_place = fs != NULL && fs->in_place;
    return SHALE_OK;
}
