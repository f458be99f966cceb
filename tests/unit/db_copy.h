/* db_copy.h - what the tests of checkpoint and repair share: a database with entries everywhere, and the
 * comparison of two directories and of two databases. */
#ifndef TESTS_UNIT_DB_COPY_H
#define TESTS_UNIT_DB_COPY_H

#include "lib/lib.h"

#include <sys/stat.h>

/* Entry i of a round; every seventh is deleted. */
static inline void copy_write(shale_db *db, unsigned round, unsigned from, unsigned to)
{
    char key[16], value[160];
    for (unsigned i = from; i < to; i++) {
        snprintf(key, sizeof key, "key%06u", i);
        int n = snprintf(value, sizeof value, "round %u of %u, and so on: %0100u", round, i, i * 7919);
        if ((i + round) % 7 == 0) {
            del(db, key);
        } else {
            assert_ok(shale_put(db, key, strlen(key), value, (size_t)n, 0));
        }
    }
}

/* Deep levels, level 0, the log. */
static inline void copy_fill(shale_db *db)
{
    copy_write(db, 1, 0, 1500);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    copy_write(db, 2, 500, 1000);
    assert_ok(shale_flush(db));
    copy_write(db, 3, 900, 1100);
    put(db, "", "of the empty key");
    put(db, "empty", "");
}

/* Every entry of both, in order. snap is of a. */
static inline void copy_same(shale_db *a, const shale_snapshot *snap, shale_db *b)
{
    shale_iter *x = NULL, *y = NULL;
    size_t xn, yn;
    assert_ok(shale_iter_create(a, snap, NULL, &x));
    assert_ok(shale_iter_create(b, NULL, NULL, &y));
    int rx = shale_iter_first(x), ry = shale_iter_first(y);
    while (rx == SHALE_OK && ry == SHALE_OK) {
        const char *k = shale_iter_key(x, &xn), *other = shale_iter_key(y, &yn);
        ck_assert_msg(xn == yn && memcmp(k, other, xn) == 0, "\"%.*s\" and \"%.*s\"", (int)xn, k, (int)yn,
                      other);
        const char *v = shale_iter_value(x, &xn), *w = shale_iter_value(y, &yn);
        ck_assert_msg(xn == yn && memcmp(v, w, xn) == 0, "\"%.*s\" and \"%.*s\"", (int)xn, v, (int)yn, w);
        rx = shale_iter_next(x);
        ry = shale_iter_next(y);
    }
    assert_status(rx, SHALE_NOTFOUND);
    assert_status(ry, SHALE_NOTFOUND);
    shale_iter_destroy(x);
    shale_iter_destroy(y);
}

/* Names and bytes of all files, as one checksum. */
static inline uint64_t copy_fingerprint(const char *dir)
{
    char **names = scratch_names(dir, "");
    uint64_t sum = 1;
    for (char **p = names; *p != NULL; p++) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        ck_assert_int_eq(stat(path, &st), 0);
        sum = checksum(*p, strlen(*p), sum + (uint64_t)st.st_ino);
        if (S_ISREG(st.st_mode)) {
            unsigned char *data = NULL;
            size_t size = 0;
            ck_assert_int_eq(scratch_read(dir, *p, &data, &size), 0);
            sum = checksum(data, size, sum);
            free(data);
        }
    }
    scratch_names_free(names);
    return sum;
}

static inline unsigned copy_count(const char *dir, const char *suffix)
{
    char **names = scratch_names(dir, suffix);
    unsigned n = 0;
    while (names[n] != NULL) {
        n++;
    }
    scratch_names_free(names);
    return n;
}

static inline void copy_lose(const char *dir, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_msg(unlink(path) == 0, "%s", path);
}

#endif
