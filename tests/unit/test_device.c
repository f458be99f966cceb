/* test_device.c - what small durable commits cost on the device, by the kernel's own count of sectors.
 *
 * A page cache with large folios marks all of one dirty for a single store through a mapping: an fdatasync of
 * a hundred bytes may then write a megabyte. The count is the whole device's, so others on the machine add to
 * it: the smallest of several rounds counts. */
#include "lib/lib.h"

#include <sys/sysmacros.h>

#define COMMITS    300
#define ROUNDS     100   /* until one is good: others may write a lot, but hardly all the time */
#define MOST_BYTES 12288 /* a commit; one page of the log is 4096 */

static char *dir;
static shale_db *db;

static void setup(void)
{
    dir = scratch_name("device");
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    db = NULL;
    free(dir);
}

/* threads: 0 flushes in the call that sealed, after its sync. */
static void open_durable(uint64_t memtable_bytes, unsigned threads)
{
    shale_options o;
    shale_options_init(&o);
    o.memtable_bytes = memtable_bytes;
    o.threads = threads;
    o.durable = SHALE_DURABLE_COMMIT;
    assert_ok(shale_open(dir, &o, &db));
}

/* Bytes written to the device under the directory; false: it is on none that tells. */
static bool device_bytes(uint64_t *bytes)
{
    char name[64];
    struct stat st;
    unsigned long long sectors = 0;
    ck_assert_int_eq(stat(dir, &st), 0);
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
    FILE *f = fopen(name, "re");
    bool told = f != NULL && fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors) == 1;
    if (f != NULL) {
        fclose(f);
    }
    *bytes = sectors * 512; /* whatever the device's own sectors are */
    return told;
}

/* Everything that is dirty yet goes out first: it is none of the commits'. */
static void settle(void)
{
    int fd = -1;
    assert_ok(os_open_dir(dir, &fd));
    ck_assert_int_eq(syncfs(fd), 0);
    os_close(&fd);
}

static void put_small(unsigned i)
{
    char key[32], value[100];
    snprintf(key, sizeof key, "small%08u", i);
    memset(value, 'a' + (int)(i % 26), sizeof value);
    assert_ok(shale_put(db, key, strlen(key), value, sizeof value, SHALE_SYNC));
}

static void assert_few_bytes_a_commit(void)
{
    uint64_t least = UINT64_MAX, before, after;
    for (unsigned round = 0; round < ROUNDS && least > MOST_BYTES; round++) {
        settle();
        if (!device_bytes(&before)) {
            printf("skip h32: %s is on no block device that counts what is written\n", dir);
            return;
        }
        for (unsigned i = 0; i < COMMITS; i++) {
            put_small(i);
        }
        ck_assert(device_bytes(&after));
        uint64_t each = (after - before) / COMMITS;
        least = each < least ? each : least;
        os_nap(least > MOST_BYTES ? 50000000 : 0);
    }
    printf("%llu bytes reach the device for each durable commit\n", (unsigned long long)least);
    ck_assert_uint_ge(least, 512); /* else it counts something else */
    ck_assert_uint_le(least, MOST_BYTES);
}

static void put_unsynced(unsigned count, size_t size)
{
    char key[32];
    char *value = malloc(size);
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', size);
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof key, "big%08u", i);
        assert_ok(shale_put(db, key, strlen(key), value, size, SHALE_NOSYNC));
    }
    free(value);
}

/* The commits go behind what was stored through the mapping, in the same segment. */
START_TEST(h32_commits_behind_mapped_stores_write_few_bytes)
{
    open_durable(64 << 20, 1);
    put_unsynced(5000, 1000);
    assert_few_bytes_a_commit();
}
END_TEST

/* The segment that the commits go to was written in large pieces in its life before: its pages are cached as
 * they were then. */
START_TEST(h32_commits_in_a_recycled_segment_write_few_bytes)
{
    static char value[500 << 10];
    open_durable(2 << 20, 0);
    for (unsigned i = 0; i < 40; i++) {
        assert_ok(shale_put(db, "large", 5, value, sizeof value, SHALE_SYNC));
    }
    char text[4096];
    size_t need = 0;
    assert_ok(shale_property(db, "counters", text, sizeof text, &need));
    const char *recycled = strstr(text, "recycled ");
    ck_assert_msg(recycled != NULL && atoi(recycled + 9) > 0, "no segment was recycled: %s", text);
    assert_few_bytes_a_commit();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("device");
    TCase *t = tcase_create("device");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h32_commits_behind_mapped_stores_write_few_bytes);
    tcase_add_test(t, h32_commits_in_a_recycled_segment_write_few_bytes);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
