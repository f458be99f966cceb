/* test_scale.c - hazard 40: as many processes, opens, bytes and entries as anybody will use. */
#include "lib/lib.h"

#include <sys/statvfs.h>

static char *dir;
static struct board *board;

static void setup(void)
{
    dir = scratch_dir("scale");
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(dir);
    dir = NULL;
}

/* Defaults, but not synced: what is measured here is size, not the disk. */
static shale_db *open_default(void)
{
    shale_options o;
    shale_options_init(&o);
    o.durable = SHALE_DURABLE_OFF;
    return open_with(dir, &o);
}

START_TEST(h40_64_writers_and_64_readers)
{
    enum { WRITERS = 64, ALL = 128, GROUPS = 8 };
    static struct agent crowd[ALL];
    unsigned commits = test_times(20, 1000), reads = test_times(4, 200);
    for (unsigned i = 0; i < ALL; i++) {
        agent_start(&crowd[i], i);
        agent_tell(&crowd[i], "open %s", dir);
    }
    for (unsigned i = 0; i < ALL; i++) {
        agent_done(&crowd[i]);
    }
    ck_assert_str_eq(agent_must(&crowd[0], "stat handles"), "128");
    for (unsigned i = 0; i < ALL; i++) {
        if (i < WRITERS) {
            agent_tell(&crowd[i], "write-groups %u 1 txn ops=%u flush=13", i % GROUPS, commits);
        } else {
            agent_tell(&crowd[i], "read-groups %u ops=%u", GROUPS, reads);
        }
    }
    for (unsigned i = 0; i < ALL; i++) {
        agent_done(&crowd[i]);
    }
    agents_sound(board, ALL);
    uint64_t acknowledged = 0;
    for (unsigned i = 0; i < GROUPS; i++) {
        acknowledged += atomic_load(&board->group[i].acknowledged);
    }
    ck_assert_uint_eq(acknowledged, (uint64_t)WRITERS * commits); /* every turn was a commit of its own */
    agent_must(&crowd[0], "check-groups %u", GROUPS);
    agent_must(&crowd[0], "verify");
    for (unsigned i = 0; i < ALL; i++) {
        agent_quit(&crowd[i]);
    }
}
END_TEST

/* By four processes at once, half of them while nobody else is connected, so warm. */
START_TEST(h40_ten_thousand_opens_and_closes)
{
    enum { PROCESSES = 4 };
    static struct agent opener[PROCESSES];
    unsigned each = 10000 / 2 / PROCESSES;
    shale_db *db = open_small(dir);
    for (unsigned i = 0; i < PROCESSES; i++) {
        agent_start(&opener[i], i);
        agent_tell(&opener[i], "open-groups %s 4 group=%u ops=%u", dir, i, each);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        agent_done(&opener[i]);
    }
    ck_assert_uint_eq(STAT(db, handles), 1);
    uint64_t commits = STAT(db, commits);
    assert_ok(shale_close(db));
    for (unsigned i = 0; i < each * PROCESSES; i++) {
        db = open_small(dir);
        if (i % 10 == 0) {
            put(db, "alone", "1");
            commits++;
        }
        assert_ok(shale_close(db));
    }
    db = open_small(dir);
    ck_assert_uint_eq(STAT(db, handles), 1);
    ck_assert_uint_eq(STAT(db, commits), commits); /* all warm: else the counters would begin anew */
    del(db, "alone");
    assert_ok(shale_close(db));
    agent_must(&opener[0], "open %s", dir);
    agent_must(&opener[0], "check-groups 4");
    agent_must(&opener[0], "verify");
    for (unsigned i = 0; i < PROCESSES; i++) {
        agent_quit(&opener[i]);
    }
}
END_TEST

static void fill(unsigned char *p, size_t size)
{
    uint64_t seed = 40;
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t word = prng_next(&seed);
        memcpy(p + i, &word, 8);
    }
}

static void expect_bytes(shale_db *db, const char *key, const unsigned char *value, size_t size)
{
    shale_value v = {0};
    assert_ok(shale_get(db, NULL, key, strlen(key), &v));
    ck_assert_uint_eq(v.size, size);
    ck_assert_int_eq(memcmp(v.data, value, size), 0);
    shale_value_release(&v);
}

/* 256 MiB is the most that a value may have: in the log, in a table, and after a recovery. */
START_TEST(h40_a_value_of_the_largest_size)
{
    size_t size = (size_t)256 << 20;
    struct statvfs fs;
    ck_assert_int_eq(statvfs(dir, &fs), 0);
    if ((uint64_t)fs.f_bavail * fs.f_frsize <
        8 * (uint64_t)size) { /* log, index, tables, each more than once */
        printf("skip h40_a_value_of_the_largest_size: less than 2 GiB free under %s\n", dir);
        return;
    }
    unsigned char *value = malloc(size + 1);
    char path[PATH_MAX];
    ck_assert_ptr_nonnull(value);
    fill(value, size);
    value[size] = 0;
    shale_db *db = open_default();
    put(db, "before", "1");
    assert_status(shale_put(db, "large", 5, value, size + 1, 0), SHALE_TOOBIG);
    expect(db, NULL, "large", NULL);
    assert_ok(shale_put(db, "large", 5, value, size, 0));
    put(db, "behind", "2");
    expect_bytes(db, "large", value, size);
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    db = open_default(); /* from the log, into a table */
    expect_bytes(db, "large", value, size);
    expect(db, NULL, "before", "1");
    expect(db, NULL, "behind", "2");
    del(db, "large");
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    expect(db, NULL, "large", NULL);
    ck_assert_uint_eq(count_entries(db, NULL), 2);
    assert_ok(shale_close(db));
    ck_assert_uint_lt(scratch_disk_bytes(dir), size); /* its space is given back */
    free(value);
}
END_TEST

START_TEST(h40_keys_of_the_largest_size)
{
    enum { SIZE = 65535, KEYS = 40 };
    static unsigned char key[SIZE + 1];
    shale_db *db = open_default();
    shale_value v = {0};
    memset(key, 'k', sizeof key);
    assert_status(shale_put(db, key, SIZE + 1, "v", 1, 0), SHALE_TOOBIG);
    for (unsigned i = 0; i < KEYS; i++) { /* they differ in the last byte only */
        key[SIZE - 1] = (unsigned char)i;
        assert_ok(shale_put(db, key, SIZE, key + SIZE - 1, 1, 0));
    }
    for (int round = 0; round < 3; round++) { /* memtable, L0, a lower level */
        for (unsigned i = 0; i < KEYS; i++) {
            key[SIZE - 1] = (unsigned char)i;
            assert_ok(shale_get(db, NULL, key, SIZE, &v));
            ck_assert_uint_eq(v.size, 1);
            ck_assert_uint_eq(*(const unsigned char *)v.data, i);
            shale_value_release(&v);
        }
        key[SIZE - 1] = KEYS;
        assert_status(shale_get(db, NULL, key, SIZE, &v), SHALE_NOTFOUND);
        ck_assert_uint_eq(count_entries(db, NULL), KEYS);
        if (round == 0) {
            assert_ok(shale_flush(db));
        } else {
            assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
        }
    }
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(h40_a_batch_of_a_million)
{
    enum { ENTRIES = 1000000 };
    shale_batch *batch = NULL;
    shale_db *db = open_default();
    char key[16], path[PATH_MAX];
    assert_ok(shale_batch_create(&batch));
    for (unsigned i = 0; i < ENTRIES; i++) {
        snprintf(key, sizeof key, "%07u", (unsigned)(i * UINT64_C(7919) % ENTRIES)); /* every number once */
        assert_ok(shale_batch_put(batch, key, 7, key, 7));
    }
    put(db, "0", "before");
    assert_ok(shale_write(db, batch, 0));
    shale_batch_destroy(batch);
    ck_assert_uint_eq(STAT(db, seq), ENTRIES + 1);
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0); /* all of it comes back from the log */
    db = open_default();
    ck_assert_uint_eq(STAT(db, seq), ENTRIES + 1);
    ck_assert_uint_eq(count_entries(db, NULL), ENTRIES + 1);
    expect(db, NULL, "0654321", "0654321");
    assert_ok(shale_close(db));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("scale");
    TCase *t = tcase_create("scale");
    tcase_set_timeout(t, test_times(300, 3600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h40_64_writers_and_64_readers);
    tcase_add_test(t, h40_ten_thousand_opens_and_closes);
    tcase_add_test(t, h40_a_value_of_the_largest_size);
    tcase_add_test(t, h40_keys_of_the_largest_size);
    tcase_add_test(t, h40_a_batch_of_a_million);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
