/* make.c - a new segment: made under a temporary name, from nothing or from an old segment, and named last.
 *
 *   new:       create tmp, lock it, allocate --> header, fsync --> rename --> sync the directory
 *   recycled:  lock old, rename it to tmp -----^
 *
 * Two makers of one number never harm each other: each has its own temporary name, and the rename does not
 * replace, so that the first one wins and the other gets SHALE_EXISTS. Killed before the rename, a maker
 * leaves an orphan under a temporary name, whose lock the kernel has dropped (wal_sweep_tmp); killed behind
 * it, a segment that is complete and whose header is durable, and whoever finds the name syncs the directory
 * once more.
 *
 * The lock on byte 0 of an old segment is held exclusively while its header changes [I-11], and made shared
 * before the file gets its name: who opens it from then on must not take it for one that is being recycled.
 * Byte 1 is the makers': who makes a file holds it, so that a sweeper knows that it is not an orphan. It is
 * another byte because a sweeper may come too late, and then holds it on a segment that is in use.
 *
 * A recycled segment still carries its old records. Their checksums were seeded with the old salt and number,
 * so none ever verifies again; to overwrite them would double the writes.
 */
#include "wal/segment.h"

#define MAKE_TRIES 16

struct making {
    int dirfd;
    int fd;
    bool named; /* tmp stands in the directory */
    uint64_t size;
    char tmp[WAL_TMP_NAME_SIZE];
};

int wal_create_tmp(int dirfd, uint32_t number, const char *kind, unsigned mode, char name[WAL_TMP_NAME_SIZE],
                   int *fd)
{
    for (int i = 0; i < MAKE_TRIES; i++) {
        struct stat st;
        int got = -1;
        wal_tmp_name(number, kind, name);
        int rc = os_open(dirfd, name, O_RDWR | O_CREAT | O_EXCL, mode, &got);
        if (rc == SHALE_EXISTS) {
            continue;
        }
        if (rc == SHALE_OK) {
            rc = os_lock_try(got, WAL_MAKING_BYTE, 1, true);
        }
        if (rc == SHALE_OK) {
            rc = os_stat(got, &st);
        }
        if (rc == SHALE_OK && st.st_nlink != 0) {
            *fd = got;
            return SHALE_OK;
        }
        os_close(&got);
        if (rc != SHALE_OK && rc != SHALE_BUSY) {
            (void)os_unlink(dirfd, name); /* an open that was refused may have made it */
            return rc;
        }
        /* A sweeper met it between the creation and the lock. */
    }
    return err_set(SHALE_BUSY, "%06u.%s: temporary files vanish as soon as they are made", number, kind);
}

static int start_new(struct making *m, uint32_t number, uint64_t size, unsigned mode)
{
    int rc = wal_create_tmp(m->dirfd, number, "wal", mode, m->tmp, &m->fd);
    if (rc != SHALE_OK) {
        return rc;
    }
    m->named = true;
    m->size = size;
    return os_allocate(m->fd, 0, size);
}

/* May the open file become another segment? It must still be the old one, under its name, of a fitting size,
 * and nobody may map it. */
static bool reusable(const struct making *m, const struct stat *st, const unsigned char *uuid, uint32_t old,
                     const char *name, uint64_t size)
{
    struct wal_header h;
    struct stat named;
    return os_lock_try(m->fd, 0, 1, true) == SHALE_OK &&
           wal_read_header(m->fd, st, uuid, name, &h) == SHALE_OK && h.number == old &&
           h.size == (uint64_t)st->st_size && h.size >= size && h.size <= 2 * size &&
           os_stat_at(m->dirfd, name, &named) == SHALE_OK && named.st_ino == st->st_ino &&
           named.st_dev == st->st_dev;
}

/* True: the old segment stands under the temporary name, locked. False, for whatever reason: it is left as it
 * was, and a new file will do. */
static bool start_recycled(struct making *m, const unsigned char *uuid, uint32_t number, uint64_t size,
                           uint32_t old)
{
    char name[WAL_NAME_SIZE];
    struct stat st;
    wal_name(old, name);
    if (os_open_stat(m->dirfd, name, O_RDWR, 0, &m->fd, &st) != SHALE_OK) {
        return false;
    }
    if (reusable(m, &st, uuid, old, name, size) && os_lock_try(m->fd, WAL_MAKING_BYTE, 1, true) == SHALE_OK) {
        wal_tmp_name(number, "wal", m->tmp);
        os_mark(OS_MARK_RECYCLE);
        if (os_rename(m->dirfd, name, m->tmp) == SHALE_OK) {
            m->named = true;
            m->size = (uint64_t)st.st_size;
            os_mark(OS_MARK_RECYCLE);
            return true;
        }
    }
    os_close(&m->fd);
    return false;
}

static int write_header(const struct making *m, const unsigned char *uuid, uint32_t number)
{
    struct wal_header h = {.magic = WAL_MAGIC, .format = WAL_FORMAT, .number = number, .size = m->size};
    os_random(&h.salt, sizeof h.salt);
    memcpy(h.uuid, uuid, sizeof h.uuid);
    h.checksum = wal_header_checksum(&h);
    int rc = os_pwrite(m->fd, &h, sizeof h, 0);
    return rc != SHALE_OK ? rc : os_fsync(m->fd);
}

/* From a locked file under the temporary name to a durable segment. */
static int finish(struct making *m, const unsigned char *uuid, uint32_t number, const char *name,
                  enum os_mark mark)
{
    int rc = write_header(m, uuid, number);
    if (rc != SHALE_OK) {
        return rc;
    }
    os_mark(mark);
    rc = os_lock_try(m->fd, 0, 1, false);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_rename_noreplace(m->dirfd, m->tmp, name);
    if (rc != SHALE_OK) {
        return rc;
    }
    m->named = false;
    os_mark(mark);
    rc = os_sync_dir(m->dirfd);
    os_mark(mark);
    return rc;
}

int wal_make(int dirfd, const unsigned char uuid[16], uint32_t number, uint64_t size, unsigned mode,
             uint32_t recycle)
{
    char name[WAL_NAME_SIZE];
    struct stat st;
    struct making m = {.dirfd = dirfd, .fd = -1};
    enum os_mark mark = OS_MARK_PREPARE;
    wal_name(number, name);
    size = align_up(size, WAL_PAGE);
    if (!wal_size_valid(size)) {
        return err_set(SHALE_TOOBIG, "%s: a segment of %llu bytes", name, (unsigned long long)size);
    }
    int rc = os_stat_at(dirfd, name, &st);
    if (rc != SHALE_NOTFOUND) {
        return rc == SHALE_OK ? SHALE_EXISTS : rc;
    }
    if (recycle != 0 && start_recycled(&m, uuid, number, size, recycle)) {
        mark = OS_MARK_RECYCLE;
    } else {
        rc = start_new(&m, number, size, mode);
        os_mark(mark);
        if (rc != SHALE_OK) {
            goto out;
        }
    }
    rc = finish(&m, uuid, number, name, mark);
out:
    if (m.named) {
        (void)os_unlink(dirfd, m.tmp);
    }
    os_close(&m.fd);
    return rc == SHALE_OK || rc == SHALE_EXISTS ? rc : err_wrap(rc, "%s", name);
}
