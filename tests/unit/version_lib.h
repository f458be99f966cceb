/* version_lib.h - what the tests of version/ share: a directory, made-up tables, and databases whose content
 * follows from one number. */
#ifndef TESTS_VERSION_LIB_H
#define TESTS_VERSION_LIB_H

#include "tempdir.h"
#include "version/manifest.h"

#include <check.h>

/* Like an assertion, and good for processes that are no tests too: Check's only work inside one. */
#define must(c)                                                                                              \
    do {                                                                                                     \
        if (!(c)) {                                                                                          \
            (void)fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #c, shale_errmsg());       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static const struct version_options lib_options = {.block_bytes = 4096,
                                                   .target_table_bytes = 1 << 20,
                                                   .bloom_bits = 10,
                                                   .compression = SHALE_COMPRESS_LZ4,
                                                   .level_ratio = 10,
                                                   .comparator = "bytes"};
static const unsigned char lib_uuid[16] = "sixteen bytes...";

struct place {
    char path[TEMPDIR_MAX];
    int dirfd;
};

static inline void place_open(struct place *p)
{
    must(os_open_dir(p->path, &p->dirfd) == SHALE_OK);
}

static inline void place_make(struct place *p)
{
    tempdir_make(p->path);
    place_open(p);
}

static inline void place_remove(struct place *p)
{
    os_close(&p->dirfd);
    tempdir_remove(p->path);
}

static inline void add_table(struct version_edit *e, unsigned level, uint64_t number, const char *smallest,
                             const char *largest)
{
    struct table_info info = {.number = number,
                              .size = 1000 + number,
                              .entries = 10,
                              .deletes = 1,
                              .min_seq = number,
                              .max_seq = number + 9,
                              .raw_bytes = 900};
    must(buf_set(&info.smallest, smallest, strlen(smallest)) == SHALE_OK);
    must(buf_set(&info.largest, largest, strlen(largest)) == SHALE_OK);
    must(version_edit_add(e, level, &info) == SHALE_OK);
}

static inline struct version *empty_version(void)
{
    struct version *v = NULL;
    must(version_create(lib_uuid, &lib_options, 1, &v) == SHALE_OK);
    return v;
}

/* The caller frees it. */
static inline char *printed(const struct version *v)
{
    struct buf out = {0};
    must(version_print(v, &out) == SHALE_OK);
    must(buf_append(&out, "", 1) == SHALE_OK);
    return (char *)out.data;
}

/* v in a manifest of its own; the same v. */
static inline struct version *create_manifest(const struct place *p, uint64_t number, struct version *v)
{
    uint64_t length;
    must(manifest_create(p->dirfd, number, v, 0600, &length) == SHALE_OK);
    v->manifest = number;
    v->length = v->base_length = length;
    return v;
}

/* Does errmsg name what it should? */
#define ck_errmsg_has(text) ck_assert_msg(strstr(shale_errmsg(), text) != NULL, "message: %s", shale_errmsg())

#endif
