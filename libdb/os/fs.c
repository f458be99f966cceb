/* fs.c - on which file systems a database may live.
 *
 * What is needed: byte-range locks, shared mappings and wake words that all processes see at once, which no
 * network file system gives to processes on different machines. They are refused by type, because the failure
 * would be silent. FUSE may be anything, so it is refused too.
 *
 * An overlay is fine for files that were made in it: they are ordinary files of its upper layer. A file that
 * comes from a lower layer is not: the first open for writing copies it up, and who opened or mapped it for
 * reading before goes on looking at the old one; and processes outside of this overlay have the original, not
 * the copy. The check:
 *   - a kernel that gives overlay file handles (6.6 and later, mounted with privilege) is asked for every
 * name: a handle that lacks the flag "upper" means that the file is, or was, a lower one. Nothing else in the
 * directory matters.
 *   - else the directory itself must have no lower part: then whatever is in it is upper. The kernel reports
 * st_nlink 1 for a directory that is merged from both. One that is lower only would still show its own
 * number, so it is first made a merged one by creating an unnamed file in it. Who may not create one cannot
 * copy anything up either; and since every writer refuses lower files, what such a reader looks at stays what
 * it is. The answer does not depend on what the directory holds in the second case, so that a database that
 * could be made can be opened again. On an upper layer that always reports 1 (btrfs) the second case refuses.
 * On a read-only overlay nothing is ever copied up, and all is well. */
#include "os/call.h"

#include <linux/magic.h>
#include <stdio.h>
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
#define AT_HANDLE_FID AT_REMOVEDIR /* since Linux 6.6: the same bit */
#endif

/* A handle's bytes, in the kernel's format: 3 of padding, then version, magic, length, flags. */
enum {
    OVERLAY_HANDLE = 0xf8,
    OVERLAY_MAGIC_AT = 4,
    OVERLAY_MAGIC = 0xfb,
    OVERLAY_FLAGS_AT = 6,
    OVERLAY_FLAG_UPPER = 4
};

enum layer { LAYER_UPPER, LAYER_LOWER, LAYER_UNKNOWN };

static enum layer layer_of(int dirfd, const char *name)
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle;
    int mount;
    memset(&handle, 0, sizeof handle);
    handle.head.handle_bytes = MAX_HANDLE_SZ;
    if (name_to_handle_at(dirfd, name, &handle.head, &mount, AT_HANDLE_FID) != 0) {
        return errno == ENOENT ? LAYER_UPPER : LAYER_UNKNOWN; /* gone meanwhile: no matter where it was */
    }
    const unsigned char *p = (const unsigned char *)&handle + offsetof(struct file_handle, f_handle);
    if (handle.head.handle_type != OVERLAY_HANDLE || handle.head.handle_bytes <= OVERLAY_FLAGS_AT ||
        p[OVERLAY_MAGIC_AT] != OVERLAY_MAGIC) {
        return LAYER_UNKNOWN;
    }
    return (p[OVERLAY_FLAGS_AT] & OVERLAY_FLAG_UPPER) != 0 ? LAYER_UPPER : LAYER_LOWER;
}

static int check_layer(void *ctx, const char *name)
{
    const int *dirfd = ctx;
    if (layer_of(*dirfd, name) == LAYER_UPPER) {
        return SHALE_OK;
    }
    return err_set(
        SHALE_UNSUPPORTED,
        "%s comes from a lower layer of an overlay file system; copy the database to a new directory, "
        "or use a volume",
        name);
}

/* Creates a file and lets it go; older kernels have no unnamed ones in an overlay. false: not permitted. */
static bool probe_create(int dirfd)
{
    int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EOPNOTSUPP) {
        char name[32];
        uint64_t random;
        os_random(&random, sizeof random);
        (void)snprintf(name, sizeof name, ".probe-%016llx", (unsigned long long)random);
        fd = openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            (void)unlinkat(dirfd, name, 0);
        }
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0 || (errno != EACCES && errno != EPERM && errno != EROFS);
}

static int check_pure_directory(int dirfd)
{
    struct stat st;
    if (!probe_create(dirfd)) {
        return SHALE_OK;
    }
    int rc = os_stat(dirfd, &st);
    if (rc == SHALE_OK && st.st_nlink < 2) {
        return err_set(
            SHALE_UNSUPPORTED,
            "the directory comes from a lower layer of an overlay file system; use one that is made "
            "inside of the overlay, or a volume");
    }
    return rc;
}

static int check_overlay(int dirfd, const struct statfs *sfs)
{
    if ((sfs->f_flags & ST_RDONLY) != 0) {
        return SHALE_OK;
    }
    return layer_of(dirfd, ".") == LAYER_UNKNOWN ? check_pure_directory(dirfd)
                                                 : os_list(dirfd, check_layer, &dirfd);
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

int os_free_bytes(int dirfd, uint64_t *bytes)
{
    struct statfs sfs;
    int rc;
    OS_CALL(rc, OS_OP_STAT, dirfd, NULL, 0, NULL, fstatfs(dirfd, &sfs));
    if (rc != 0) {
        return err_sys("statfs");
    }
    *bytes = (uint64_t)sfs.f_bavail * (uint64_t)sfs.f_bsize;
    return SHALE_OK;
}
