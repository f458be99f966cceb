/* rot.h - a small database with everything in it, and damage that is done to its files and undone. */
#ifndef TESTS_CRASH_ROT_H
#define TESTS_CRASH_ROT_H

#include "lib/lib.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wal/wal.h"

enum { KEYS = 700, LOGGED = 40, BIG = 9000 };

static char *dir, *origin;
static struct {
    char value[KEYS][24]; /* "": deleted */
    char older[KEYS][3][24];
    unsigned rounds[KEYS];
} is;
static struct logged {
    char file[WAL_NAME_SIZE];
    uint32_t from, to;
    unsigned key;
} logged[LOGGED];
static unsigned logged_count;

static size_t key_of(unsigned i, char out[24])
{
    return i == 0 ? 0 : (size_t)snprintf(out, 24, "key%06u", i);
}

static void change(shale_db *db, unsigned i, unsigned round, unsigned flags)
{
    char key[24], value[BIG];
    size_t n = key_of(i, key);
    memcpy(is.older[i][is.rounds[i]++], is.value[i], sizeof is.value[i]);
    if ((i + round) % 11 == 0) {
        is.value[i][0] = '\0';
        assert_ok(shale_delete(db, key, n, flags));
        return;
    }
    snprintf(is.value[i], sizeof is.value[i], "%u of %u", round, i);
    size_t size = i % 97 == 5 ? BIG : 24 + i % 50;
    memset(value, 'v', sizeof value);
    memcpy(value, is.value[i], strlen(is.value[i]) + 1);
    assert_ok(shale_put(db, key, n, value, size, flags));
}

static void lock_flush(int *fd)
{
    char path[PATH_MAX];
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 1};
    snprintf(path, sizeof path, "%s/LOCK", dir);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(fcntl(*fd, F_OFD_SETLK, &l), 0);
}

/* Where each durable record of the log stands. */
static void note_records(void)
{
    int fd = open(origin, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char **names = scratch_names(origin, ".wal");
    for (char **p = names; *p != NULL; p++) {
        struct wal_segment *seg = NULL;
        struct wal_view rec;
        uint32_t number, at = WAL_FIRST;
        ck_assert(wal_parse_name(*p, &number));
        if (wal_open(fd, NULL, number, false, &seg) != SHALE_OK) {
            continue;
        }
        for (; wal_read(seg, at, &rec) == SHALE_OK; at = rec.end) {
            struct logged *l = &logged[logged_count++];
            ck_assert_uint_le(logged_count, LOGGED);
            snprintf(l->file, sizeof l->file, "%s", *p);
            l->from = at;
            l->to = at + (uint32_t)sizeof(struct wal_record) + (uint32_t)rec.payload.size;
        }
        wal_unref(seg);
    }
    scratch_names_free(names);
    close(fd);
}

static void setup(void)
{
    shale_options o = small_options();
    int fd;
    dir = scratch_dir("rot");
    origin = scratch_name("origin");
    shale_db *db = open_with(dir, &o);
    for (unsigned i = 0; i < KEYS; i++) {
        change(db, i, 1, 0);
    }
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    for (unsigned i = 0; i < KEYS; i += 3) {
        change(db, i, 2, 0);
    }
    assert_ok(shale_flush(db));
    assert_ok(shale_set_timeout(db, 0));
    lock_flush(&fd);
    for (unsigned i = 0; i < LOGGED; i++) {
        change(db, i * 17, 3, SHALE_SYNC);
        if (i == LOGGED / 2) {
            assert_status(shale_flush(db), SHALE_BUSY); /* sealed, and stays so */
        }
    }
    ck_assert_int_eq(scratch_copy(dir, origin), 0);
    close(fd);
    assert_ok(shale_close(db));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/STATE", origin);
    ck_assert_int_eq(unlink(path), 0);
    note_records();
    ck_assert_uint_eq(logged_count, LOGGED);
    for (unsigned i = 0; i < LOGGED; i++) {
        logged[i].key = i * 17;
    }
}

/* ---- damage ---- */

struct damage {
    char file[64];
    unsigned char *whole; /* as it was */
    size_t size;
    uint64_t from, to; /* bytes that are other ones now, or are gone */
    bool cut;
    char what[128];
};

static void damage_begin(struct damage *d, const char *file)
{
    memset(d, 0, sizeof *d);
    snprintf(d->file, sizeof d->file, "%s", file);
    ck_assert_int_eq(scratch_read(origin, file, &d->whole, &d->size), 0);
}

static void damage_write(const struct damage *d, const unsigned char *bytes, size_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", origin, d->file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(
        pwrite(fd, bytes + d->from, (size_t)(d->to < size ? d->to : size) - d->from, (off_t)d->from),
        (ssize_t)((d->to < size ? d->to : size) - d->from));
    close(fd);
}

static void flip(struct damage *d, uint64_t bit)
{
    d->from = bit / 8;
    d->to = d->from + 1;
    unsigned char *copy = malloc(d->size + 1);
    memcpy(copy, d->whole, d->size);
    copy[d->from] = (unsigned char)(copy[d->from] ^ 1u << bit % 8);
    snprintf(d->what, sizeof d->what, "%s: bit %llu of byte %llu flipped", d->file,
             (unsigned long long)bit % 8, (unsigned long long)d->from);
    damage_write(d, copy, d->size);
    free(copy);
}

/* false: they were zeros before. */
static bool zero(struct damage *d, uint64_t at, uint64_t n)
{
    d->from = at - at % n;
    d->to = d->from + n < d->size ? d->from + n : d->size;
    unsigned char *copy = malloc(d->size + 1);
    memcpy(copy, d->whole, d->size);
    memset(copy + d->from, 0, d->to - d->from);
    bool other = memcmp(copy + d->from, d->whole + d->from, d->to - d->from) != 0;
    snprintf(d->what, sizeof d->what, "%s: bytes %llu to %llu zeroed", d->file, (unsigned long long)d->from,
             (unsigned long long)d->to);
    damage_write(d, copy, d->size);
    free(copy);
    return other;
}

static void cut_off(struct damage *d, uint64_t keep)
{
    d->from = keep;
    d->to = d->size;
    d->cut = true;
    snprintf(d->what, sizeof d->what, "%s: cut to %llu of %zu bytes", d->file, (unsigned long long)keep,
             d->size);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", origin, d->file);
    ck_assert_int_eq(truncate(path, (off_t)keep), 0);
}

static void undo(struct damage *d)
{
    damage_write(d, d->whole, d->size);
    d->cut = false;
}

#endif
