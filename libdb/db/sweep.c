/* sweep.c - orphans: what killed processes left behind. Tables that no version names, unfinished outputs,
 * segments below the oldest, indexes without a segment, manifests that CURRENT does not name.
 *
 * Who holds FLUSH, all COMPACT bytes and MANIFEST, each by one try, may sweep: then no output is under way
 * anywhere but a .tmp, and that is locked by its writer [I-17]. A cold open holds LIVE exclusively and needs
 * nothing else. Tables are removed only below the next number of a manifest that was read whole: a directory
 * with an old manifest put back must not lose its newer tables.
 */
#include "db/db.h"

struct sweep {
    shale_db *db;
    const struct version *v;
    uint64_t below_table;
    uint32_t spare;
    uint64_t ready;
    bool cold;
};

/* A temporary file belongs to whoever has its lock. */
static int unlink_if_unlocked(shale_db *db, const char *name)
{
    int fd = -1;
    int rc = os_open(db->dirfd, name, O_RDWR, 0, &fd);
    if (rc == SHALE_OK) {
        rc = os_lock_try(fd, 0, 1, true);
        if (rc == SHALE_OK) {
            rc = os_unlink(db->dirfd, name);
        }
    }
    os_close(&fd);
    return rc == SHALE_BUSY || rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

static bool is_old_segment(const struct sweep *s, uint32_t number)
{
    if (s->cold) {
        return number != s->v->oldest;
    }
    return number < s->v->oldest && number != s->spare;
}

static int sweep_name(void *ctx, const char *name)
{
    struct sweep *s = ctx;
    uint32_t segment;
    uint64_t number;
    bool tmp;
    if (table_parse_name(name, &number, &tmp)) {
        if (tmp) {
            return unlink_if_unlocked(s->db, name);
        }
        return number < s->below_table && !version_has(s->v, number) ? os_unlink(s->db->dirfd, name)
                                                                     : SHALE_OK;
    }
    if (wal_parse_name(name, &segment)) {
        return is_old_segment(s, segment) ? os_unlink(s->db->dirfd, name) : SHALE_OK;
    }
    if (mem_parse_name(name, &segment)) {
        return !s->cold && segment < s->v->oldest ? os_unlink(s->db->dirfd, name) : SHALE_OK;
    }
    if (wal_parse_tmp_name(name, "wal", &segment) || mem_parse_tmp_name(name, &segment)) {
        int rc = wal_sweep_tmp(s->db->dirfd, name);
        return rc == SHALE_BUSY ? SHALE_OK : rc;
    }
    return SHALE_OK;
}

/* In a directory of their own. A cold open has just made that one. */
static int sweep_mem_name(void *ctx, const char *name)
{
    struct sweep *s = ctx;
    uint32_t segment;
    int rc = SHALE_OK;
    if (mem_parse_name(name, &segment) && segment < s->v->oldest) {
        rc = os_unlink(s->db->mem_dirfd, name);
    } else if (mem_parse_tmp_name(name, &segment)) {
        rc = wal_sweep_tmp(s->db->mem_dirfd, name);
    }
    return rc == SHALE_BUSY ? SHALE_OK : rc;
}

int db_sweep_locked(shale_db *db, const struct version *v, uint64_t below_table, bool cold)
{
    struct sweep s = {.db = db, .v = v, .below_table = below_table, .cold = cold};
    if (!cold) {
        s.spare = (uint32_t)atomic_load(&db->state->spare);
    }
    uint64_t current;
    int rc = os_list(db->dirfd, sweep_name, &s);
    if (rc == SHALE_OK && !cold && db->mem_dirfd != db->dirfd && db_check_mem_dir(db) == SHALE_OK) {
        rc = os_list(db->mem_dirfd, sweep_mem_name, &s);
    }
    if (rc == SHALE_OK) {
        rc = current_read(db->dirfd, &current);
    }
    return rc == SHALE_OK ? manifest_sweep(db->dirfd, current) : rc;
}

int db_sweep(shale_db *db)
{
    struct db_view *view = NULL;
    uint64_t seq;
    int rc = os_role_try(&db->roles, OS_ROLE_FLUSH);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_compact_try(&db->roles, 0, VERSION_LEVELS - 1);
    if (rc == SHALE_OK) {
        rc = os_role_try(&db->roles, OS_ROLE_MANIFEST);
        if (rc == SHALE_OK) {
            struct version_log log = {.dirfd = db->dirfd, .state = db->state, .mode = db->options.mode};
            struct version *current = NULL;
            rc = db_view_get(db, &view, &seq);
            if (rc == SHALE_OK) {
                rc = version_begin(&log, view->version, &current);
            }
            if (rc == SHALE_OK) {
                rc = db_sweep_locked(db, current, atomic_load(&db->state->next_table), false);
            }
            version_unref(current);
            db_view_unref(view);
            os_role_unlock(&db->roles, OS_ROLE_MANIFEST);
        }
        os_compact_unlock(&db->roles, 0, VERSION_LEVELS - 1);
    }
    os_role_unlock(&db->roles, OS_ROLE_FLUSH);
    return rc;
}
