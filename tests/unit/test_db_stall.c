/* test_db_stall.c - writers beside a level 0 that is full, while nobody can compact it: by whose limits they
 * wait [I-15]. */
#include "lib/lib.h"

enum { WRITERS = 60, FLUSH_BYTE = 5 };

static char *dir;
static shale_db *low, *high;
static int busy_fd; /* holds the lock of every compaction */
static _Atomic unsigned commits, over;

static shale_db *opened(unsigned l0_stop, unsigned max_sealed)
{
    shale_options o = small_options();
    o.threads = 0;
    o.durable = SHALE_DURABLE_OFF;
    o.l0_compact = 2;
    o.l0_stop = l0_stop;
    o.max_sealed = max_sealed;
    return open_with(dir, &o);
}

static void hold(int fd, uint64_t byte, uint64_t count)
{
    assert_ok(os_lock_try(fd, byte, count, true));
}

static void setup(void)
{
    char path[PATH_MAX];
    dir = scratch_dir("stall");
    high = opened(1000, 60);
    low = opened(4, 1);
    snprintf(path, sizeof path, "%s/LOCK", dir);
    busy_fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(busy_fd, 0);
    atomic_store(&commits, 0);
    atomic_store(&over, 0);
}

static void teardown(void)
{
    assert_ok(shale_close(low));
    assert_ok(shale_close(high));
    ck_assert_int_eq(close(busy_fd), 0);
    free(dir);
}

static void fill_level_0(void)
{
    hold(busy_fd, OS_BYTE_COMPACT, OS_COMPACT_LEVELS);
    for (int i = 0; i < 5; i++) {
        put(high, "k", "v");
        assert_ok(shale_flush(high));
    }
}

static void *write_on(void *ctx)
{
    uint64_t seed = (uint64_t)(uintptr_t)ctx + 1;
    char key[16];
    while (atomic_load(&over) == 0) {
        os_nap((int64_t)(prng_next(&seed) % 500000000));
        snprintf(key, sizeof key, "%08x", (unsigned)prng_next(&seed));
        if (shale_put(low, key, 8, "v", 1, 0) != SHALE_OK) {
            abort();
        }
        atomic_fetch_add(&commits, 1);
    }
    return NULL;
}

/* Who was let by for being overtaken overtakes nobody: else sixty would let each other by for ever. */
START_TEST(stalled_writers_do_not_let_each_other_by)
{
    pthread_t writers[WRITERS];
    fill_level_0();
    for (uintptr_t i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_create(&writers[i], NULL, write_on, (void *)i), 0);
    }
    os_nap(1500000000);
    ck_assert_uint_eq(atomic_load(&commits), 0); /* nobody goes on, nobody is overtaken */
    for (int i = 0; i < 1000 && atomic_load(&commits) < 5 * WRITERS; i++) {
        put(high, "k", "v");
        os_nap(20000000);
    }
    ck_assert_uint_ge(atomic_load(&commits), 5 * WRITERS); /* they get on beside one with a higher limit */
    os_nap(2000000000); /* which is gone now; whom it let by has committed */
    unsigned before = atomic_load(&commits);
    os_nap(2000000000);
    ck_assert_uint_eq(atomic_load(&commits), before);
    atomic_store(&over, 1);
    assert_ok(os_unlock(busy_fd, OS_BYTE_COMPACT, OS_COMPACT_LEVELS));
    for (unsigned i = 0; i < WRITERS; i++) {
        ck_assert_int_eq(pthread_join(writers[i], NULL), 0);
    }
}
END_TEST

static void *put_large(void *ctx)
{
    size_t size = *(size_t *)ctx;
    char *value = calloc(size, 1);
    if (value == NULL || shale_put(low, "large", 5, value, size, 0) != SHALE_OK) {
        abort();
    }
    free(value);
    atomic_store(&over, 1);
    return NULL;
}

/* Values that fit a segment, and one that needs a segment of its own: then the memtable has to be sealed,
 * past the writer's own limit. */
START_TEST(who_may_seal_less_gets_on_beside_those_who_may_more)
{
    static size_t sizes[] = {100, 40000, 1000000};
    pthread_t writer;
    char value[5000] = "";
    hold(busy_fd, FLUSH_BYTE, 1);
    for (int i = 0; i < 60; i++) { /* several sealed ones */
        assert_ok(shale_put(high, "k", 1, value, sizeof value, 0));
    }
    ck_assert_int_eq(pthread_create(&writer, NULL, put_large, &sizes[_i]), 0);
    for (int i = 0; i < 1000 && atomic_load(&over) == 0; i++) {
        assert_ok(shale_put(high, "k", 1, value, 100, 0));
        os_nap(20000000);
    }
    ck_assert_uint_eq(atomic_load(&over), 1);
    ck_assert_int_eq(pthread_join(writer, NULL), 0);
    assert_ok(os_unlock(busy_fd, FLUSH_BYTE, 1));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_stall");
    TCase *t = tcase_create("stall");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, stalled_writers_do_not_let_each_other_by);
    tcase_add_loop_test(t, who_may_seal_less_gets_on_beside_those_who_may_more, 0, 3);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
