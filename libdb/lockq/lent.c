/* lent.c - the write lock held by an ancestor, through a descriptor that we inherited.
 *
 * An open-file-description lock travels with the descriptor through fork and exec. `lockd run DIR -- CMD`
 * takes byte 1 of LOCK and leaves its descriptor open; SHALE_LOCK_FD says which it is: a comma list of N or
 * N:dev:ino, an entry a database.
 *
 * Does N *hold* byte 1? Locking it through N could not tell "held" from "just taken". Testing can: GETLK
 * through a fresh open file sees a lock of N's, and GETLK through N does not see its own:
 *
 *      fresh sees one, N sees none     N holds it
 *      both see one                    another holds it
 *      neither                         nobody does
 *
 * That can be fooled for a moment, between the two looks, so it is asked more than once; and byte 2 alone is
 * what keeps writers apart: plain writers lock both bytes, a writer under a lent lock locks byte 2 and looks
 * again. */
#include "lockq/queue.h"

#include <stdlib.h>

/* What one entry says. */
struct entry {
    int fd;
    bool has_file;
    unsigned long long dev, ino;
};

/* Reads one entry of the list; false: it is not of that form. */
static bool parse_entry(const char *text, size_t size, struct entry *e)
{
    unsigned long long v[3];
    unsigned fields = 0;
    const char *p = text, *end = text + size;
    while (fields < 3) {
        const char *digits = p;
        unsigned long long value = 0;
        for (; p < end && *p >= '0' && *p <= '9'; p++) {
            unsigned digit = (unsigned)(*p - '0');
            if (value > (UINT64_MAX - digit) / 10) {
                return false;
            }
            value = value * 10 + digit;
        }
        if (p == digits) {
            return false;
        }
        v[fields++] = value;
        if (p == end) {
            break;
        }
        if (*p++ != ':') {
            return false;
        }
    }
    if (p != end || (fields != 1 && fields != 3) || v[0] > INT32_MAX) {
        return false;
    }
    *e = (struct entry){.fd = (int)v[0], .has_file = fields == 3};
    if (e->has_file) {
        e->dev = v[1];
        e->ino = v[2];
    }
    return true;
}

/* Does fd hold the byte in the way asked for: exclusively, or in any? */
static int holds(int fresh_fd, int fd, uint64_t byte, bool exclusively, bool *held)
{
    bool fresh_sees = false, own_sees = false;
    int rc = os_lock_test(fresh_fd, byte, 1, !exclusively, &fresh_sees);
    if (rc == SHALE_OK) {
        rc = os_lock_test(fd, byte, 1, !exclusively, &own_sees);
    }
    if (rc == SHALE_OK) {
        *held = fresh_sees && !own_sees;
    }
    return rc;
}

/* One look can be fooled: another's lock, seen through the fresh file, may be gone when N is asked. Whoever
 * holds is found to hold every time. */
#define LOOKS 8
static int holds_surely(int fresh_fd, int fd, uint64_t byte, bool exclusively, bool *held)
{
    int rc = holds(fresh_fd, fd, byte, exclusively, held);
    for (int i = 1; i < LOOKS && rc == SHALE_OK && *held; i++) {
        rc = holds(fresh_fd, fd, byte, exclusively, held);
    }
    return rc;
}

int lockq_lent_holds(int fresh_fd, int fd, bool *held)
{
    return holds(fresh_fd, fd, OS_BYTE_WRITE, true, held);
}

/* fd is this directory's LOCK. Where it is shared, every sharer looks alike from outside, and an entry for it
 * was made by an ancestor: it is the freeze. */
static int kind_of(int fresh_fd, int fd, enum lockq_lent *kind)
{
    bool exclusive = false, any = false, others_exclude = false;
    int rc = holds_surely(fresh_fd, fd, OS_BYTE_WRITE, true, &exclusive);
    if (rc == SHALE_OK) {
        rc = os_lock_test(fresh_fd, OS_BYTE_WRITE, 1, true, &any);
    }
    if (rc == SHALE_OK) {
        rc = os_lock_test(fresh_fd, OS_BYTE_WRITE, 1, false, &others_exclude);
    }
    if (rc == SHALE_OK) {
        *kind = exclusive ? LOCKQ_LENT_WRITE : any && !others_exclude ? LOCKQ_LENT_FROZEN : LOCKQ_LENT_NONE;
    }
    return rc;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* One entry against this directory's LOCK. *kind stays LOCKQ_LENT_NONE when it is of no concern. */
static int look_at(int fresh_fd, const struct stat *lock, const struct entry *e, enum lockq_lent *kind)
{
    struct stat st;
    bool named = e->has_file && e->dev == (unsigned long long)lock->st_dev &&
                 e->ino == (unsigned long long)lock->st_ino;
    *kind = LOCKQ_LENT_NONE;
    if (e->has_file && !named) {
        return SHALE_OK; /* another database's */
    }
    if (os_stat(e->fd, &st) != SHALE_OK) {
        return err_set(SHALE_INVALID, "SHALE_LOCK_FD names descriptor %d, which is not open here", e->fd);
    }
    if (!same_file(&st, lock)) {
        return named ? err_set(SHALE_INVALID,
                               "SHALE_LOCK_FD: descriptor %d is not this database's LOCK any more", e->fd)
                     : SHALE_OK;
    }
    int rc = kind_of(fresh_fd, e->fd, kind);
    if (rc == SHALE_OK && *kind == LOCKQ_LENT_NONE && named) {
        return err_set(
            SHALE_INVALID,
            "SHALE_LOCK_FD: descriptor %d does not hold the write lock any more; who lent it has ended",
            e->fd);
    }
    return rc;
}

static int find_in_list(int fresh_fd, const struct stat *lock, const char *list, enum lockq_lent *kind,
                        int *fd)
{
    for (const char *p = list; *p != '\0';) {
        size_t size = strcspn(p, ",");
        struct entry e;
        if (size != 0) {
            if (!parse_entry(p, size, &e)) {
                return err_set(SHALE_INVALID, "SHALE_LOCK_FD: \"%.*s\" is not N or N:dev:ino",
                               (int)(size < 80 ? size : 80), p);
            }
            int rc = look_at(fresh_fd, lock, &e, kind);
            if (rc != SHALE_OK || *kind != LOCKQ_LENT_NONE) {
                *fd = e.fd;
                return rc;
            }
        }
        p += size;
        p += *p == ',';
    }
    return SHALE_OK;
}

/* options.lock_fd: it was named for this very database, so anything but a hold is an error. */
static int check_option(int fresh_fd, const struct stat *lock, int lock_fd, enum lockq_lent *kind)
{
    struct stat st;
    if (os_stat(lock_fd, &st) != SHALE_OK) {
        return err_set(SHALE_INVALID, "lock_fd: descriptor %d is not open", lock_fd);
    }
    if (!same_file(&st, lock)) {
        return err_set(SHALE_INVALID, "lock_fd: descriptor %d is not this database's LOCK", lock_fd);
    }
    int rc = kind_of(fresh_fd, lock_fd, kind);
    if (rc == SHALE_OK && *kind == LOCKQ_LENT_NONE) {
        rc = err_set(SHALE_INVALID, "lock_fd: descriptor %d does not hold the write lock", lock_fd);
    }
    return rc;
}

int lockq_find_lent(int fresh_fd, int lock_fd, enum lockq_lent *kind, int *fd)
{
    struct stat lock;
    enum lockq_lent found = LOCKQ_LENT_NONE;
    int found_fd = lock_fd;
    const char *list = secure_getenv("SHALE_LOCK_FD"); /* never in a set-user-id program */
    int rc = lock_fd >= 0 || list != NULL ? os_stat(fresh_fd, &lock) : SHALE_OK;
    if (rc == SHALE_OK && lock_fd >= 0) {
        rc = check_option(fresh_fd, &lock, lock_fd, &found);
    } else if (rc == SHALE_OK && list != NULL) {
        rc = find_in_list(fresh_fd, &lock, list, &found, &found_fd);
    }
    if (rc == SHALE_OK) {
        *kind = found;
        *fd = found == LOCKQ_LENT_NONE ? -1 : found_fd;
    }
    return rc;
}

bool lockq_find_named(int fresh_fd, uint64_t byte, int *fd)
{
    struct stat lock, st;
    bool found = false;
    const char *p = secure_getenv("LOCKD_HELD");
    if (p == NULL || os_stat(fresh_fd, &lock) != SHALE_OK) {
        return false;
    }
    while (*p != '\0' && !found) {
        size_t size = strcspn(p, ",");
        struct entry e;
        if (parse_entry(p, size, &e) && os_stat(e.fd, &st) == SHALE_OK && same_file(&st, &lock)) {
            found = holds_surely(fresh_fd, e.fd, byte, false, &found) == SHALE_OK && found;
            *fd = e.fd;
        }
        p += size;
        p += *p == ',';
    }
    return found;
}
