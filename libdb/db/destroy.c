/* destroy.c - removing a database. LOCK, LIVE and queue/ stay: another process may be waiting on them at this
 * moment, and two processes that lock different files under one name exclude nobody (H3).
 *
 * The directory in memory that STATE names goes before STATE does.
 *
 * Under OPEN and LIVE, exclusively. CURRENT goes first: killed half way, what is left is reported as damaged,
 * never taken for a database, and destroying it again finishes the work.
 */
#include "db/db.h"

struct destroy {
    int dirfd;
    bool remove; /* else only look */
    bool found;
};

static bool is_ours(const char *name)
{
    uint32_t segment;
    uint64_t number;
    bool tmp;
    return wal_parse_name(name, &segment) || mem_parse_name(name, &segment) ||
           mem_parse_tmp_name(name, &segment) || wal_parse_tmp_name(name, "wal", &segment) ||
           table_parse_name(name, &number, &tmp) || manifest_parse_name(name, &number) ||
           strcmp(name, STATE_NAME) == 0 || strncmp(name, CURRENT_NAME, sizeof CURRENT_NAME - 1) == 0;
}

static int destroy_name(void *ctx, const char *name)
{
    struct destroy *d = ctx;
    if (!is_ours(name)) {
        return SHALE_OK;
    }
    d->found = true;
    return d->remove ? os_unlink(d->dirfd, name) : SHALE_OK;
}

static int destroy_mem_dir(int dirfd)
{
    struct state_map m = {0};
    struct stat lock;
    int rc = os_stat_at(dirfd, "LOCK", &lock);
    if (rc == SHALE_OK && state_map(dirfd, false, false, 0, &m) == SHALE_OK) {
        rc = db_mem_dir_remove(&m, &lock);
    }
    state_unmap(&m);
    return rc;
}

static int destroy_files(struct destroy *d)
{
    int rc = os_unlink(d->dirfd, CURRENT_NAME);
    if (rc == SHALE_OK) {
        rc = os_sync_dir(d->dirfd);
    }
    if (rc == SHALE_OK) {
        rc = destroy_mem_dir(d->dirfd);
    }
    d->remove = true;
    if (rc == SHALE_OK) {
        rc = os_list(d->dirfd, destroy_name, d);
    }
    return rc == SHALE_OK ? os_sync_dir(d->dirfd) : rc;
}

static int lock_out(int fd, uint64_t byte, const char *dir)
{
    int rc = os_lock_try(fd, byte, 1, true);
    return rc == SHALE_BUSY ? err_set(rc, "%s: busy: a process has the database open: end it first", dir)
                            : rc;
}

int shale_destroy(const char *dir)
{
    struct destroy d = {.dirfd = -1};
    int lock = -1, live = -1;
    int rc = dir == NULL ? err_set(SHALE_INVALID, "shale_destroy: no directory") : os_open_dir(dir, &d.dirfd);
    if (rc == SHALE_OK) {
        rc = os_list(d.dirfd, destroy_name, &d);
    }
    if (rc == SHALE_OK && !d.found) {
        rc = err_set(SHALE_NODB, "%s: no database there", dir);
    }
    if (rc == SHALE_OK) {
        rc = os_open(d.dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &lock);
    }
    if (rc == SHALE_OK) {
        rc = os_open(d.dirfd, "LIVE", O_RDWR | O_CREAT, 0600, &live);
    }
    if (rc == SHALE_OK) {
        rc = lock_out(lock, 0, dir);
    }
    if (rc == SHALE_OK) {
        rc = lock_out(live, OS_LIVE_BYTE, dir);
    }
    if (rc == SHALE_OK) {
        rc = destroy_files(&d);
    }
    os_close(&live);
    os_close(&lock);
    os_close(&d.dirfd);
    return rc;
}
