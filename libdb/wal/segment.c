/* segment.c - the segment as a file: its names, its header, opening it.
 *
 *   0        64                 4096 (WAL_FIRST)                                size
 *   | header | zero             | record | record | ... | whatever was there before |
 *
 * Space is allocated whole before anybody maps the file, and the file is never truncated, replaced or moved
 * while it is mapped: a store through the mapping always hits the same blocks.
 *
 * [I-11] Every mapping holds a shared lock on byte 0 of its own open file. The lock is taken before the
 * header is read: as long as it stands no recycler can write another header, so the number that was read
 * stays true for the life of the mapping. An opener that lost the race sees the byte taken or another number,
 * and is told SHALE_NOTFOUND. The lock belongs to the open file, which the mapping keeps alive: a reader
 * closes its descriptor and is protected all the same. A forked child must not inherit that protection, it
 * could outlive everybody: hence os_map_dontfork.
 */
#include "wal/segment.h"

#include <stdio.h>
#include <stdlib.h>

void wal_name(uint32_t number, char name[WAL_NAME_SIZE])
{
    (void)strcpy(digits_decimal(name, number, 6), ".wal");
}

/* "000012.KIND", where the number is written the one way that we write it; what follows, or NULL. */
static const char *parse_start(const char *name, const char *kind, uint32_t *number)
{
    uint64_t v = 0;
    size_t n = 0;
    while (name[n] >= '0' && name[n] <= '9' && n < 11) {
        v = v * 10 + (uint64_t)(name[n] - '0');
        n++;
    }
    if (n < 6 || v > UINT32_MAX || (n > 6 && name[0] == '0')) {
        return NULL;
    }
    if (name[n] != '.' || strncmp(name + n + 1, kind, strlen(kind)) != 0) {
        return NULL;
    }
    *number = (uint32_t)v;
    return name + n + 1 + strlen(kind);
}

bool wal_parse_kind(const char *name, const char *kind, uint32_t *number)
{
    uint32_t n;
    const char *rest = parse_start(name, kind, &n);
    if (rest == NULL || *rest != '\0') {
        return false;
    }
    *number = n;
    return true;
}

bool wal_parse_name(const char *name, uint32_t *number)
{
    return wal_parse_kind(name, "wal", number);
}

void wal_tmp_name(uint32_t number, const char *kind, char name[WAL_TMP_NAME_SIZE])
{
    uint64_t r;
    os_random(&r, sizeof r);
    (void)snprintf(name, WAL_TMP_NAME_SIZE, "%06u.%s.tmp-%016llx", number, kind, (unsigned long long)r);
}

bool wal_parse_tmp_name(const char *name, const char *kind, uint32_t *number)
{
    static const char middle[] = ".tmp-";
    uint32_t n;
    const char *rest = parse_start(name, kind, &n);
    if (rest == NULL || strncmp(rest, middle, sizeof middle - 1) != 0) {
        return false;
    }
    rest += sizeof middle - 1;
    if (strlen(rest) != 16 || strspn(rest, "0123456789abcdef") != 16) {
        return false;
    }
    *number = n;
    return true;
}

int wal_sweep_tmp(int dirfd, const char *name)
{
    int fd = -1;
    int rc = os_open(dirfd, name, O_RDWR, 0, &fd);
    if (rc == SHALE_NOTFOUND) {
        return SHALE_OK;
    }
    /* Between the lock and the unlink its maker cannot have finished: it holds the byte until it is done. One
     * that had finished before the lock has taken the name away, and there is nothing left to unlink. */
    if (rc == SHALE_OK) {
        rc = os_lock_try(fd, WAL_MAKING_BYTE, 1, true);
    }
    if (rc == SHALE_OK) {
        rc = os_unlink(dirfd, name);
    }
    os_close(&fd);
    return rc;
}

/* ---- header ---- */

uint64_t wal_header_checksum(const struct wal_header *h)
{
    return checksum(h, offsetof(struct wal_header, checksum), WAL_MAGIC);
}

/* What a header must be whatever its number. The checksum comes first, in every format: a flipped bit in the
 * format field is damage, not a newer version. */
static int check_header(const struct wal_header *h, const unsigned char *uuid, uint64_t file_size,
                        const char *name)
{
    if (h->magic != WAL_MAGIC) {
        return err_set(SHALE_CORRUPT, "%s: header at 0: not a log segment", name);
    }
    if (h->checksum != wal_header_checksum(h)) {
        return err_set(SHALE_CORRUPT, "%s: header at 0: checksum mismatch", name);
    }
    if (h->format != WAL_FORMAT || h->incompat != 0) {
        return err_set(SHALE_MISMATCH, "%s: format %u with features %llx, this library reads format %u", name,
                       h->format, (unsigned long long)h->incompat, WAL_FORMAT);
    }
    if (uuid != NULL && memcmp(h->uuid, uuid, sizeof h->uuid) != 0) {
        return err_set(SHALE_MISMATCH, "%s: belongs to another database", name);
    }
    if (h->size > file_size || !wal_size_valid(h->size)) {
        return err_set(SHALE_CORRUPT, "%s: header at 0: size %llu, the file has %llu", name,
                       (unsigned long long)h->size, (unsigned long long)file_size);
    }
    return SHALE_OK;
}

int wal_read_header(int fd, const struct stat *st, const unsigned char *uuid, const char *name,
                    struct wal_header *out)
{
    struct wal_header h;
    size_t got = 0;
    int rc = os_pread(fd, &h, sizeof h, 0, &got);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", name);
    }
    if (got != sizeof h) {
        return err_set(SHALE_CORRUPT, "%s: header at 0: the file ends after %zu bytes", name, got);
    }
    rc = check_header(&h, uuid, (uint64_t)st->st_size, name);
    if (rc == SHALE_OK) {
        *out = h;
    }
    return rc;
}

/* ---- opening ---- */

static int map_segment(struct wal_segment *s, const char *name)
{
    void *map = NULL;
    int rc = os_map(s->fd, (size_t)s->size, s->writable, &map);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", name);
    }
    os_map_dontfork(map, (size_t)s->size);
    s->born = os_fork_generation();
    s->map = map;
    if (!s->writable) {
        os_close(&s->fd);
    }
    return SHALE_OK;
}

int wal_open(int dirfd, const unsigned char uuid[16], uint32_t number, bool writable,
             struct wal_segment **seg)
{
    char name[WAL_NAME_SIZE];
    struct wal_header h;
    struct stat st;
    wal_name(number, name);
    struct wal_segment *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&s->refs, 1);
    s->fd = -1;
    s->number = number;
    s->writable = writable;

    int rc = os_open_stat(dirfd, name, writable ? O_RDWR : O_RDONLY, 0, &s->fd, &st);
    if (rc != SHALE_OK) {
        goto out;
    }
    rc = os_lock_try(s->fd, 0, 1, false);
    if (rc != SHALE_OK) {
        rc = rc == SHALE_BUSY ? SHALE_NOTFOUND : rc;
        goto out;
    }
    rc = wal_read_header(s->fd, &st, uuid, name, &h);
    if (rc == SHALE_OK && h.number != number) {
        rc = SHALE_NOTFOUND;
    }
    if (rc != SHALE_OK) {
        goto out;
    }
    s->salt = h.salt;
    s->size = h.size;
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    rc = map_segment(s, name);
out:
    if (rc != SHALE_OK) {
        wal_unref(s);
        return rc;
    }
    *seg = s;
    return SHALE_OK;
}

static int take_salt(struct wal_segment *s, const char *name)
{
    struct stat st;
    size_t got = 0;
    int rc = os_stat(s->fd, &st);
    if (rc == SHALE_OK) {
        rc = os_pread(s->fd, &s->salt, sizeof s->salt, offsetof(struct wal_header, salt), &got);
    }
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", name);
    }
    s->size = (uint64_t)st.st_size < WAL_MAX_SIZE ? (uint64_t)st.st_size : WAL_MAX_SIZE;
    return s->size >= WAL_FIRST + sizeof(struct wal_record)
               ? SHALE_OK
               : err_set(SHALE_CORRUPT, "%s: the file ends before its first record", name);
}

int wal_open_damaged(int dirfd, uint32_t number, struct wal_segment **seg)
{
    char name[WAL_NAME_SIZE];
    struct wal_segment *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    wal_name(number, name);
    atomic_init(&s->refs, 1);
    s->fd = -1;
    s->number = number;
    int rc = os_open(dirfd, name, O_RDONLY, 0, &s->fd);
    if (rc == SHALE_OK) {
        rc = os_lock_try(s->fd, 0, 1, false);
        rc = rc == SHALE_BUSY ? SHALE_NOTFOUND : rc;
    }
    if (rc == SHALE_OK) {
        rc = take_salt(s, name);
    }
    if (rc == SHALE_OK) {
        rc = map_segment(s, name);
    }
    if (rc != SHALE_OK) {
        wal_unref(s);
        return rc;
    }
    *seg = s;
    return SHALE_OK;
}

struct wal_segment *wal_ref(struct wal_segment *seg)
{
    atomic_fetch_add_explicit(&seg->refs, 1, memory_order_relaxed);
    return seg;
}

void wal_unref(struct wal_segment *seg)
{
    /* acq_rel: whatever any holder did with the mapping happens before the unmap. */
    if (seg == NULL || atomic_fetch_sub_explicit(&seg->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    /* In a forked child the address may belong to something else by now. */
    if (seg->map != NULL && seg->born == os_fork_generation()) {
        os_unmap(seg->map, (size_t)seg->size);
    }
    os_close(&seg->fd);
    free(seg);
}
