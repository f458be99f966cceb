/* memdir.c - a directory in memory for the indices (option mem_dir).
 *
 * An index is needed by nobody after a crash [I-1], and yet the kernel writes it back every half minute while
 * it changes. Only memory behind which no device stands is spared that, and for processes that share nothing
 * but a directory that means a tmpfs:
 *
 *   DIR/STATE                                      names the directory, with its device and inode
 *   /dev/shm/shale-0123456789abcdef/000012.mem     instead of DIR/000012.mem
 *
 * A cold open makes it, under a random name that no other database ever has. Who attaches opens what STATE
 * names, whatever his own option says, and compares device and inode: where another mount stands in that
 * place he would see no index, or somebody else's.
 *
 * STATE has the name before the directory is there, so a process killed anywhere leaves nothing that the next
 * cold open does not find. That one removes the directory of the STATE that it replaces, as shale_destroy
 * does; but only if that STATE was made for this very DIR: a copy of DIR names the original's. Only indices
 * are removed from it, and then itself, if it is empty.
 */
#include "db/db.h"

#include <stdio.h>

#define NAME_PREFIX "/shale-"
#define NAME_SIZE   (sizeof NAME_PREFIX - 1 + 16)
#define NAME_TRIES  16

_Static_assert(sizeof((shale_options *)0)->mem_dir + NAME_SIZE <= STATE_MEM_DIR, "every allowed path fits");

struct place {
    char path[STATE_MEM_DIR]; /* "": beside the log */
    size_t base;              /* length of what stands before the name's slash */
    uint64_t dev, ino;
};

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

/* Whatever bytes stand there: true for "", and for an absolute path that ends as ours do. */
static bool place_load(const struct state *s, struct place *p)
{
    memcpy(p->path, s->mem_dir, sizeof p->path);
    p->dev = s->mem_dev;
    p->ino = s->mem_ino;
    const char *end = memchr(p->path, '\0', sizeof p->path);
    size_t length = end != NULL ? (size_t)(end - p->path) : 0;
    p->base = length > NAME_SIZE ? length - NAME_SIZE : 0;
    if (end == NULL || length == 0) {
        return end != NULL;
    }
    bool ours = p->path[0] == '/' && p->base > 0 &&
                memcmp(p->path + p->base, NAME_PREFIX, sizeof NAME_PREFIX - 1) == 0;
    for (size_t i = p->base + sizeof NAME_PREFIX - 1; ours && i < length; i++) {
        ours = is_hex(p->path[i]);
    }
    return ours;
}

/* The directory that the place means; SHALE_NOTFOUND (no text): none there, or another one. */
static int place_open(const struct place *p, int *fd)
{
    struct stat st;
    int got = -1;
    int rc = os_open_dir(p->path, &got);
    if (rc == SHALE_OK) {
        rc = os_stat(got, &st);
    }
    if (rc == SHALE_OK && p->ino != 0 && (p->ino != (uint64_t)st.st_ino || p->dev != (uint64_t)st.st_dev)) {
        rc = SHALE_NOTFOUND;
    }
    if (rc != SHALE_OK) {
        os_close(&got);
        return rc == SHALE_NODB || rc == SHALE_INVALID ? SHALE_NOTFOUND : rc;
    }
    *fd = got;
    return SHALE_OK;
}

/* ---- using it ---- */

void db_mem_dir_close(shale_db *db)
{
    if (db->mem_dirfd != db->dirfd) {
        os_close(&db->mem_dirfd);
    }
    db->mem_dirfd = db->dirfd;
}

int db_mem_dir_open(shale_db *db, const struct state *s)
{
    struct place p;
    int fd = -1;
    db_mem_dir_close(db);
    if (!place_load(s, &p)) {
        return err_set(SHALE_CORRUPT, "%s: STATE: the directory of the indices makes no sense", db->path);
    }
    if (p.path[0] == '\0') {
        return SHALE_OK;
    }
    int rc = place_open(&p, &fd);
    if (rc == SHALE_NOTFOUND) {
        return err_set(SHALE_MISMATCH,
                       "%s: its indices are in %s, which this process does not see (removed, or another "
                       "mount namespace): use it from where that directory is, or end every process that "
                       "uses it and then open it for writing without mem_dir",
                       db->path, p.path);
    }
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s: the directory of its indices", db->path);
    }
    db->mem_dirfd = fd;
    return SHALE_OK;
}

bool db_mem_dir_wanted(const shale_db *db, const struct state *s)
{
    return db->options.mem_dir[0] != '\0' && s->mem_dir[0] == '\0';
}

void db_mem_dir_tell(shale_db *db)
{
    struct place p;
    const char *want = db->options.mem_dir;
    if (want[0] == '\0' || db->state == NULL || !place_load(db->state, &p)) {
        return;
    }
    if (p.base != strlen(want) || memcmp(p.path, want, p.base) != 0) {
        db_log(db, 2, "%s: the indices are in %s until an open recovers (mem_dir asks for %s)", db->path,
               p.path[0] != '\0' ? p.path : "it", want);
    }
}

/* The log of a segment may have room where its index has none: the text says which of them is full. */
int db_mem_make(shale_db *db, const struct wal_segment *seg)
{
    int rc = mem_make(db->mem_dirfd, seg, db->options.mode);
    if (db->mem_dirfd != db->dirfd && rc != SHALE_OK && rc != SHALE_EXISTS && rc != SHALE_NOTFOUND) {
        rc = err_wrap(rc, "%.*s", STATE_MEM_DIR, db->state_map.state->mem_dir);
    }
    return rc;
}

int db_check_mem_dir(const shale_db *db)
{
    unsigned names = 1;
    int rc = db->mem_dirfd != db->dirfd ? os_links(db->mem_dirfd, &names) : SHALE_OK;
    if (rc == SHALE_OK && names == 0) {
        rc = err_set(SHALE_IO,
                     "%s: %.*s, the directory of its indices, was removed: end every process that uses the "
                     "database, then open it again; nothing is lost",
                     db->path, STATE_MEM_DIR, db->state_map.state->mem_dir);
    }
    return rc;
}

int db_check_mems(const shale_db *db, uint32_t from, uint32_t to)
{
    int rc = db_check_mem_dir(db);
    for (uint32_t n = from; rc == SHALE_OK && n >= from && n <= to && n - from < DB_MAX_MEMS; n++) {
        char mem[MEM_NAME_SIZE], wal[WAL_NAME_SIZE];
        struct stat st;
        mem_name(n, mem);
        wal_name(n, wal);
        if (os_stat_at(db->dirfd, wal, &st) == SHALE_OK &&
            os_stat_at(db->mem_dirfd, mem, &st) == SHALE_NOTFOUND) {
            rc = err_set(SHALE_CORRUPT,
                         "%s: %s, the index of a log segment, was removed: end every process that uses the "
                         "database, then open it again; nothing is lost",
                         db->path, mem);
        }
    }
    return rc;
}

/* ---- making and removing it: OPEN and, exclusively, LIVE are held ---- */

static int drop_name(void *ctx, const char *name)
{
    const int *fd = ctx;
    uint32_t number;
    return mem_parse_name(name, &number) || mem_parse_tmp_name(name, &number) ? os_unlink(*fd, name)
                                                                              : SHALE_OK;
}

static int place_remove(const struct place *p)
{
    char base[STATE_MEM_DIR];
    int fd = -1, above = -1;
    (void)snprintf(base, sizeof base, "%.*s", (int)p->base, p->path);
    int rc = place_open(p, &fd);
    if (rc == SHALE_OK) {
        rc = os_list(fd, drop_name, &fd);
    }
    if (rc == SHALE_OK) {
        rc = os_open_dir(base, &above);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_RECOVER);
        rc = os_remove_dir(above, p->path + p->base + 1);
    }
    os_close(&above);
    os_close(&fd);
    return rc == SHALE_OK || rc == SHALE_NOTFOUND ? SHALE_OK : err_wrap(rc, "%s", p->path);
}

int db_mem_dir_remove(const struct state_map *m, const struct stat *lock)
{
    struct place p;
    if (!state_is_own(m, lock) || !place_load(m->state, &p) || p.path[0] == '\0') {
        return SHALE_OK;
    }
    return place_remove(&p);
}

static void place_store(struct state *s, const struct place *p)
{
    memcpy(s->mem_dir, p->path, sizeof s->mem_dir);
    s->mem_dev = p->dev;
    s->mem_ino = p->ino;
}

/* A directory of a name that nobody has, noted before it is made. */
static int make_named(shale_db *db, struct state *s, int above, struct place *p)
{
    int rc = SHALE_EXISTS;
    for (int i = 0; i < NAME_TRIES && rc == SHALE_EXISTS; i++) {
        uint64_t random;
        os_random(&random, sizeof random);
        p->base = strlen(db->options.mem_dir);
        (void)snprintf(p->path, sizeof p->path, "%s" NAME_PREFIX "%016llx", db->options.mem_dir,
                       (unsigned long long)random);
        place_store(s, p);
        os_mark(OS_MARK_RECOVER);
        rc = os_make_new_dir(above, p->path + p->base + 1, db_dir_mode(db->options.mode));
    }
    return rc == SHALE_EXISTS ? err_set(SHALE_IO, "%s: mkdir: every name is taken", p->path) : rc;
}

int db_mem_dir_make(shale_db *db, struct state *s)
{
    const char *dir = db->options.mem_dir;
    struct place p = {.path = ""};
    struct stat st;
    bool in_place;
    int above = -1, fd = -1;
    if (dir[0] == '\0') {
        return SHALE_OK;
    }
    int rc = os_open_dir(dir, &above);
    rc = rc == SHALE_NODB ? SHALE_INVALID : rc;
    if (rc == SHALE_OK) {
        rc = os_check_fs(above, &in_place);
    }
    if (rc == SHALE_OK) {
        rc = make_named(db, s, above, &p);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_RECOVER);
        rc = os_open(above, p.path + p.base + 1, O_RDONLY | O_DIRECTORY, 0, &fd);
    }
    if (rc == SHALE_OK) {
        rc = os_stat(fd, &st);
    }
    if (rc == SHALE_OK) {
        p.dev = (uint64_t)st.st_dev;
        p.ino = (uint64_t)st.st_ino;
        place_store(s, &p);
        os_mark(OS_MARK_RECOVER);
        db->mem_dirfd = fd;
        fd = -1;
    }
    os_close(&fd);
    os_close(&above);
    return rc == SHALE_OK
               ? rc
               : err_wrap(rc == SHALE_NOTFOUND ? SHALE_IO : rc, "%s: option mem_dir: %s", db->path, dir);
}

void db_mem_dir_drop(shale_db *db, struct state *s)
{
    struct place p;
    db_mem_dir_close(db);
    if (place_load(s, &p) && p.path[0] != '\0' && place_remove(&p) == SHALE_OK) {
        place_store(s, &(struct place){.path = ""});
    }
}
