/* table_fixture.h - what the test programs of tables begin with: a fresh directory a test, and a table in it.
 */
#ifndef TESTS_UNIT_TABLE_FIXTURE_H
#define TESTS_UNIT_TABLE_FIXTURE_H

#include "lib/scratch.h"
#include "lib/tables.h"

#include "table/read.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define NUMBER 34u
#define ok(e)                                                                                                \
    do {                                                                                                     \
        int rc_ = (e);                                                                                       \
        ck_assert_msg(rc_ == SHALE_OK, "%s: %s: %s", #e, shale_errname(rc_), shale_errmsg());                \
    } while (0)

static char *dir_path;
static int dir = -1;
static const struct table_options plain = {.block_bytes = 4096, .bloom_bits = 10, .lz4 = false, .mode = 0600};

static void setup(void)
{
    dir_path = scratch_dir("table");
    ok(os_open_dir(dir_path, &dir));
}

static void teardown(void)
{
    os_door_hook = NULL;
    os_close(&dir);
    ck_assert_int_eq(scratch_remove(dir_path), 0);
    free(dir_path);
}

static inline struct slice text(const char *s)
{
    return slice_make(s, strlen(s));
}

static inline bool exists(const char *name)
{
    struct stat st;
    return os_stat_at(dir, name, &st) == SHALE_OK;
}

static inline struct table *make(const struct table_rows *rows, const struct table_options *o,
                                 struct cache *cache)
{
    struct table_info info;
    struct table *t;
    ok(table_rows_build(rows, dir, NUMBER, o, &info));
    ok(table_open(dir, NUMBER, info.size, cache, true, &t));
    table_info_release(&info);
    return t;
}

/* Every mapping is refused: the table is read with pread. */
static inline int no_maps(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    return op == OS_OP_MAP ? ENOMEM : 0;
}

/* The body of main: the whole suite in a scratch directory that is gone afterwards, whatever the tests did.
 */
static inline int run_suite(const char *program, Suite *suite)
{
    if (scratch_root_make(program) != 0) {
        perror(program);
        return EXIT_FAILURE;
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    scratch_root_remove();
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
