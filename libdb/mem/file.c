/* file.c - the index as a file: made, found, mapped, given up; and the private one in anonymous memory.
 *
 * The file is complete when it gets its name, so nobody ever sees half a header, and the name is never given
 * to a second file while the first may be in use: an index that is the segment's own (same number, same salt)
 * stays, however late a second maker wakes up. A leftover of an earlier segment of that number is removed
 * under an exclusive lock on its own byte 0, after a look that the name still means that file: else two
 * makers, each about to remove the leftover, could remove the one that the other has just put there.
 */
#include "mem/arena.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME_TRIES 100

void mem_name(uint32_t number, char name[MEM_NAME_SIZE])
{
    (void)strcpy(digits_decimal(name, number, 6), ".mem");
}

bool mem_parse_name(const char *name, uint32_t *number)
{
    return wal_parse_kind(name, "mem", number);
}

bool mem_parse_tmp_name(const char *name, uint32_t *number)
{
    return wal_parse_tmp_name(name, "mem", number);
}

static uint64_t header_checksum(const struct mem_header *h)
{
    return checksum(h, offsetof(struct mem_header, checksum), MEM_MAGIC);
}

static uint64_t file_size(const struct wal_segment *seg)
{
    return mem_filter_offset(seg->size) + mem_filter_size(seg->size);
}

static void fill_header(struct mem_header *h, const struct wal_segment *seg, uint64_t size)
{
    memset(h, 0, sizeof *h);
    h->magic = MEM_MAGIC;
    h->format = MEM_FORMAT;
    h->number = seg->number;
    h->salt = seg->salt;
    h->size = size;
    h->checksum = header_checksum(h);
    atomic_init(&h->end, MEM_FIRST / MEM_UNIT);
}

/* Is the open file the index of this very segment? */
static int is_own(int fd, const struct stat *st, const struct wal_segment *seg, bool *own)
{
    struct mem_header h;
    size_t got = 0;
    int rc = os_pread(fd, &h, sizeof h, 0, &got);
    if (rc == SHALE_OK) {
        *own = got == sizeof h && h.magic == MEM_MAGIC && h.checksum == header_checksum(&h) &&
               h.format == MEM_FORMAT && h.number == seg->number && h.salt == seg->salt &&
               h.size == (uint64_t)st->st_size && h.size == file_size(seg) && seg->size >= 2 * MEM_FIRST &&
               seg->size <= MEM_SIZE_MAX;
    }
    return rc;
}

/* Removes what stands under the name, unless it is seg's own: SHALE_EXISTS. SHALE_BUSY: another is at it. */
static int remove_leftover(int dirfd, const char *name, const struct wal_segment *seg)
{
    struct stat st, named;
    bool own = false;
    int fd = -1;
    int rc = os_open_stat(dirfd, name, O_RDWR, 0, &fd, &st);
    if (rc != SHALE_OK) {
        return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
    }
    rc = is_own(fd, &st, seg, &own);
    if (rc != SHALE_OK || own) {
        rc = rc != SHALE_OK ? rc : SHALE_EXISTS;
        goto out;
    }
    rc = os_lock_try(fd, 0, 1, true);
    if (rc == SHALE_OK) {
        rc = os_stat_at(dirfd, name, &named);
        if (rc == SHALE_OK && named.st_ino == st.st_ino && named.st_dev == st.st_dev) {
            rc = os_unlink(dirfd, name);
        } else if (rc == SHALE_NOTFOUND) {
            rc = SHALE_OK;
        }
    }
out:
    os_close(&fd);
    return rc;
}

static int make_tmp(int dirfd, const struct wal_segment *seg, unsigned mode, char tmp[WAL_TMP_NAME_SIZE],
                    int *fd)
{
    struct mem_header h;
    int rc = wal_create_tmp(dirfd, seg->number, "mem", mode, tmp, fd);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_allocate(*fd, 0, file_size(seg));
    if (rc == SHALE_OK) {
        fill_header(&h, seg, file_size(seg));
        rc = os_pwrite(*fd, &h, sizeof h, 0);
    }
    if (rc != SHALE_OK) {
        (void)os_unlink(dirfd, tmp);
    }
    return rc;
}

/* Gives the file its name, as soon as no leftover stands there. */
static int give_name(int dirfd, const struct wal_segment *seg, const char *tmp, const char *name)
{
    int rc = SHALE_BUSY;
    for (int i = 0; i < NAME_TRIES; i++) {
        rc = remove_leftover(dirfd, name, seg);
        if (rc == SHALE_OK) {
            rc = os_rename_noreplace(dirfd, tmp, name);
            if (rc != SHALE_EXISTS) {
                return rc;
            }
        } else if (rc != SHALE_BUSY) {
            return rc;
        }
        os_yield();
    }
    return err_set(SHALE_BUSY, "another process keeps a leftover of that name locked");
}

int mem_make(int dirfd, const struct wal_segment *seg, unsigned mode)
{
    char name[MEM_NAME_SIZE], tmp[WAL_TMP_NAME_SIZE];
    int fd = -1;
    mem_name(seg->number, name);
    int rc = make_tmp(dirfd, seg, mode, tmp, &fd);
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_PREPARE);
        rc = give_name(dirfd, seg, tmp, name);
        if (rc != SHALE_OK) {
            (void)os_unlink(dirfd, tmp);
        }
        os_mark(OS_MARK_PREPARE);
    }
    os_close(&fd);
    return rc == SHALE_OK || rc == SHALE_EXISTS ? rc : err_wrap(rc, "%s", name);
}

/* ---- opening ---- */

static int start(struct wal_segment *seg, bool writable, struct mem_index **mem)
{
    struct mem_index *m = base_calloc(1, sizeof *m);
    if (m == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&m->refs, 1);
    m->seg = wal_ref(seg);
    m->writable = writable;
    *mem = m;
    return SHALE_OK;
}

/* The filter is as large as a file's has to be, also behind the larger arena of a private index. */
static void set_arena(struct mem_index *m, void *map, uint64_t size)
{
    uint64_t filter = mem_filter_size(m->seg->size);
    m->arena = map;
    m->size = size;
    m->mapped = mem_filter_offset(size) + filter;
    m->filter = (_Atomic uint64_t *)(void *)(m->arena + mem_filter_offset(size));
    m->filter_lines = (uint32_t)(filter / FILTER_LINE);
    m->last_node = (uint32_t)((size - sizeof(struct mem_node)) / MEM_UNIT);
    m->last_version = (uint32_t)((size - sizeof(struct mem_version)) / MEM_UNIT);
}

int mem_open(int dirfd, struct wal_segment *seg, bool writable, struct mem_index **mem)
{
    char name[MEM_NAME_SIZE];
    struct mem_index *m = NULL;
    struct stat st;
    void *map = NULL;
    bool own = false;
    int fd = -1;
    mem_name(seg->number, name);
    int rc = os_open_stat(dirfd, name, writable ? O_RDWR : O_RDONLY, 0, &fd, &st);
    if (rc == SHALE_OK) {
        rc = is_own(fd, &st, seg, &own);
    }
    if (rc == SHALE_OK && !own) {
        rc = SHALE_NOTFOUND;
    }
    if (rc == SHALE_OK) {
        rc = start(seg, writable, &m);
    }
    if (rc == SHALE_OK) {
        rc = os_map(fd, (size_t)st.st_size, writable, &map);
    }
    os_close(&fd);
    if (rc != SHALE_OK) {
        mem_unref(m);
        return rc == SHALE_NOTFOUND ? rc : err_wrap(rc, "%s", name);
    }
    set_arena(m, map, seg->size);
    *mem = m;
    return SHALE_OK;
}

/* What is dearest in the index for its bytes in the log: all keys of two bytes, each once. An entry has 4
 * bytes then, a key of the index 16, and a seventh of a node and of those above it. (One short key over and
 * over has 24 bytes a version, 2 an entry; keys of one byte are few.) */
static uint64_t private_size(const struct wal_segment *seg)
{
    uint64_t size = align_up(seg->size * 24 + 16 * MEM_FIRST, MEM_FIRST);
    return size < MEM_SIZE_MAX ? size : MEM_SIZE_MAX;
}

int mem_open_private(struct wal_segment *seg, struct mem_index **mem)
{
    struct mem_index *m = NULL;
    void *map = NULL;
    uint64_t size = private_size(seg);
    int rc = start(seg, true, &m);
    if (rc == SHALE_OK) {
        rc = os_map_anonymous((size_t)(mem_filter_offset(size) + mem_filter_size(seg->size)), &map);
    }
    if (rc != SHALE_OK) {
        mem_unref(m);
        return err_wrap(rc, "%06u.mem", seg->number);
    }
    set_arena(m, map, size);
    fill_header(mem_header(m), seg, m->mapped);
    *mem = m;
    return SHALE_OK;
}

struct mem_index *mem_ref(struct mem_index *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

struct mem_index *mem_release(struct mem_index *m)
{
    /* acq_rel: what any holder read happens before the unmap. */
    return m != NULL && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1 ? m : NULL;
}

void mem_free(struct mem_index *m)
{
    if (m == NULL) {
        return;
    }
    if (m->arena != NULL) {
        os_unmap(m->arena, (size_t)m->mapped);
    }
    wal_unref(m->seg);
    free(m);
}

void mem_unref(struct mem_index *m)
{
    mem_free(mem_release(m));
}
