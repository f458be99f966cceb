#include "lib.h"

#include <signal.h>

int test_run(int argc, char **argv, Suite *(*suite)(void))
{
    if (argc > 1 && strcmp(argv[1], AGENT_ARGUMENT) == 0) {
        return agent_main(argc, argv);
    }
    signal(SIGPIPE, SIG_IGN);
    if (scratch_root_make(argv[0]) != 0) {
        return 99;
    }
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    scratch_root_remove();
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

unsigned test_times(unsigned n, unsigned n_long)
{
    const char *s = getenv("SHALE_TEST_LONG");
    return s != NULL && *s != '\0' && *s != '0' ? n_long : n;
}

uint64_t test_seed(uint64_t seed)
{
    const char *s = getenv("SHALE_TEST_SEED");
    return s != NULL ? strtoull(s, NULL, 0) : seed;
}

shale_options small_options(void)
{
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    o.memtable_bytes = 64 << 10;
    o.target_table_bytes = 64 << 10;
    o.level_ratio = 4;
    o.block_bytes = 1024;
    o.durable = SHALE_DURABLE_OFF;
    return o;
}

shale_db *open_with(const char *dir, const shale_options *o)
{
    shale_db *db = NULL;
    assert_ok(shale_open(dir, o, &db));
    ck_assert_ptr_nonnull(db);
    return db;
}

shale_db *open_small(const char *dir)
{
    shale_options o = small_options();
    return open_with(dir, &o);
}

void put(shale_db *db, const char *key, const char *value)
{
    assert_ok(shale_put(db, key, strlen(key), value, strlen(value), 0));
}

void del(shale_db *db, const char *key)
{
    assert_ok(shale_delete(db, key, strlen(key), 0));
}

void expect(shale_db *db, const shale_snapshot *snap, const char *key, const char *value)
{
    shale_value v = {0};
    int rc = shale_get(db, snap, key, strlen(key), &v);
    if (value == NULL) {
        ck_assert_msg(rc == SHALE_NOTFOUND, "get %s: %s: %s", key, shale_errname(rc),
                      rc == SHALE_OK ? "it is there" : shale_errmsg());
        return;
    }
    ck_assert_msg(rc == SHALE_OK, "get %s: %s: %s", key, shale_errname(rc), shale_errmsg());
    ck_assert_msg(v.size == strlen(value) && memcmp(v.data, value, v.size) == 0,
                  "get %s: \"%.*s\" instead of \"%s\"", key, (int)v.size, (const char *)v.data, value);
    shale_value_release(&v);
}

uint64_t stat_of(shale_db *db, size_t offset)
{
    shale_stats s = {.size = sizeof s};
    uint64_t v;
    assert_ok(shale_stat(db, &s));
    memcpy(&v, (const char *)&s + offset, sizeof v);
    return v;
}

static size_t count_one_way(shale_iter *it, bool back)
{
    size_t n = 0;
    int rc = back ? shale_iter_last(it) : shale_iter_first(it);
    for (; rc == SHALE_OK; rc = back ? shale_iter_prev(it) : shale_iter_next(it)) {
        n++;
    }
    assert_status(rc, SHALE_NOTFOUND);
    return n;
}

size_t count_entries(shale_db *db, const shale_snapshot *snap)
{
    shale_iter *it = NULL;
    assert_ok(shale_iter_create(db, snap, NULL, &it));
    size_t n = count_one_way(it, false);
    ck_assert_uint_eq(count_one_way(it, true), n);
    shale_iter_destroy(it);
    return n;
}
