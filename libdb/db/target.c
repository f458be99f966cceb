/* target.c - a directory in which a whole database is made at once (checkpoint, repair).
 *
 * It must be missing or empty. CURRENT comes last, so that what a killed process leaves is no database, and
 * says so when it is opened. What could not be finished is taken away again, and so is the directory, if it
 * was made here.
 */
#include "db/db.h"

#include <stdlib.h>

static int any_name(void *ctx, const char *name)
{
    return err_set(SHALE_EXISTS, "%s: is not empty (\"%s\"): name a new directory", (const char *)ctx, name);
}

static int open_empty(const char *path, int *fd)
{
    int rc = os_open_dir(path, fd);
    if (rc == SHALE_OK) {
        char *told = base_strdup(path);
        rc = told != NULL ? os_list(*fd, any_name, told) : SHALE_NOMEM;
        free(told);
    }
    return rc;
}

int db_target_make(const char *path, unsigned mode, struct db_target *t)
{
    *t = (struct db_target){.path = path, .fd = -1};
    int rc = os_make_new_dir(AT_FDCWD, path, db_dir_mode(mode));
    t->made = rc == SHALE_OK;
    if (rc == SHALE_OK || rc == SHALE_EXISTS) {
        rc = open_empty(path, &t->fd);
    }
    if (rc != SHALE_OK) {
        os_close(&t->fd);
    }
    if (rc != SHALE_OK && t->made) {
        (void)os_remove_dir(AT_FDCWD, path);
    }
    return rc;
}

/* The directory that path's last part stands in. */
static char *parent_of(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    char *parent = base_strdup(n == 0 ? "." : path);
    if (parent != NULL && n != 0) {
        parent[n] = '\0';
    }
    return parent;
}

int db_target_sync(const char *path)
{
    char *parent = parent_of(path);
    int fd = -1;
    int rc = parent != NULL ? os_open_dir(parent, &fd) : SHALE_NOMEM;
    if (rc == SHALE_OK) {
        rc = os_sync_dir(fd);
    }
    os_close(&fd);
    free(parent);
    return rc;
}

static int drop_name(void *ctx, const char *name)
{
    const int *fd = ctx;
    uint64_t number;
    uint32_t segment;
    bool tmp, ours = table_parse_name(name, &number, &tmp) || wal_parse_name(name, &segment) ||
                     wal_parse_tmp_name(name, "wal", &segment) || manifest_parse_name(name, &number) ||
                     strncmp(name, CURRENT_NAME, sizeof CURRENT_NAME - 1) == 0;
    return ours ? os_unlink(*fd, name) : SHALE_OK;
}

void db_target_clear(struct db_target *t)
{
    (void)os_unlink(t->fd, CURRENT_NAME);
    (void)os_list(t->fd, drop_name, &t->fd);
    os_close(&t->fd);
    if (t->made) {
        (void)os_remove_dir(AT_FDCWD, t->path);
    }
}
