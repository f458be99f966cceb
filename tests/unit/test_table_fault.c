/* test_table_fault.c - faulting a table in: few calls where it lies in the page cache, nothing that nobody
 * asked for where it does not, and a bad page stands in nobody else's way. */
#include "unit/table_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STRETCHES 4u
#define SIZE      (STRETCHES * FAULT_STRETCH - 100)

static struct table_faults faults;
static int file = -1;
static unsigned calls, bad_call;  /* since the last look; which of them fails */
static uint64_t bad_from, bad_to; /* calls that begin there, or a page before, fail */

static int count_calls(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)length;
    if (op != OS_OP_ADVISE) {
        return 0;
    }
    if (++calls == bad_call) {
        return EIO;
    }
    return offset < bad_to && offset + 4096 > bad_from ? EIO : 0;
}

/* Calls since the last look. */
static unsigned made(void)
{
    unsigned n = calls;
    calls = 0;
    return n;
}

static void map_file(void)
{
    static unsigned char bytes[SIZE];
    void *map;
    setup();
    memset(bytes, 'x', sizeof bytes);
    ok(os_open(dir, "file", O_RDWR | O_CREAT, 0600, &file));
    ok(os_pwrite(file, bytes, sizeof bytes, 0));
    ok(os_map(file, SIZE, false, &map));
    ok(faults_init(&faults, map, SIZE, true));
    calls = bad_call = 0;
    bad_from = bad_to = 0;
    os_door_hook = count_calls;
}

static void unmap_file(void)
{
    os_door_hook = NULL;
    faults_release(&faults);
    os_unmap(faults.map, SIZE);
    os_close(&file);
    teardown();
}

START_TEST(stretch_in_the_page_cache_is_faulted_in_once)
{
    ok(faults_need(&faults, 5000, 9000)); /* the first time: only that */
    ck_assert_uint_eq(made(), 1);
    ok(faults_need(&faults, 20000, 24000)); /* look, and all of it */
    ck_assert_uint_eq(made(), 2);
    for (uint64_t at = 0; at < FAULT_STRETCH; at += 1000) {
        ok(faults_need(&faults, at, at + 1000 < FAULT_STRETCH ? at + 1000 : FAULT_STRETCH));
    }
    ck_assert_uint_eq(made(), 0);
    ok(faults_need(&faults, FAULT_STRETCH - 1, FAULT_STRETCH + 1)); /* and in the next one */
    ck_assert_uint_eq(made(), 1);
    ok(faults_need(&faults, SIZE - 1, SIZE)); /* the last one is shorter */
    ok(faults_need(&faults, SIZE - 100, SIZE));
    ck_assert_uint_eq(made(), 3);
    ok(faults_need(&faults, 0, SIZE));
    ck_assert_uint_eq(made(), 3); /* two of the second, one of the third */
}
END_TEST

START_TEST(who_is_not_told_asks_for_what_it_needs)
{
    faults.told = false;
    for (unsigned i = 0; i < 5; i++) {
        ok(faults_need(&faults, 5000, 9000));
        ck_assert_uint_eq(made(), 1);
    }
}
END_TEST

/* Somebody else's file, that we may only read: mincore would say of every page that it is there. */
START_TEST(only_who_may_know_is_told)
{
    ck_assert(os_told_resident(dir, "file", geteuid()));
    ck_assert_int_eq(fchmod(file, 0600), 0);
    ck_assert(os_told_resident(dir, "file", geteuid() + 1)); /* who may write it */
    ck_assert_int_eq(fchmod(file, 0444), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && seteuid(12345) != 0) {
            _exit(0); /* a container that has no such user */
        }
        _exit(os_told_resident(dir, "file", geteuid() + 1) ? 1 : 0);
    }
    int state = -1;
    ck_assert_int_eq(waitpid(pid, &state, 0), pid);
    ck_assert_int_eq(state, 0);
}
END_TEST

/* What was there a second ago may have left since, and the device may not give it back. */
START_TEST(stretch_is_not_believed_in_for_ever)
{
    ok(faults_need(&faults, 5000, 9000));
    ok(faults_need(&faults, 5000, 9000));
    ck_assert_uint_eq(made(), 3);
    atomic_store(&faults.stretches[0], os_now() + FAULT_BELIEF_NS / 2);
    ok(faults_need(&faults, 20000, 24000));
    ck_assert_uint_eq(made(), 0);
    atomic_store(&faults.stretches[0], os_now() - 1);
    ok(faults_need(&faults, 30000, 34000));
    ck_assert_uint_eq(made(), 2);
    int64_t until = atomic_load(&faults.stretches[0]);
    ck_assert_int_gt(until, os_now());
    ck_assert_int_le(until, os_now() + 2 * INT64_C(1000000000));
    atomic_store(&faults.stretches[0], os_now() - 1);
    bad_call = 1;
    bad_from = 20000;
    bad_to = 24000;
    ck_assert_int_eq(faults_need(&faults, 20000, 24000), SHALE_IO);
}
END_TEST

START_TEST(what_is_not_in_the_page_cache_is_not_read_unasked)
{
    ck_assert(os_map_resident(faults.map, 0, SIZE));
    ck_assert_int_eq(fdatasync(file), 0);
    ck_assert_int_eq(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    if (os_map_resident(faults.map, 2 * FAULT_STRETCH + FAULT_STRETCH / 2, 4096)) {
        return; /* a file system in memory, or a page that somebody holds */
    }
    os_map_random(faults.map, SIZE); /* else the kernel reads ahead by itself */
    calls = 0;
    for (unsigned i = 1; i < 4; i++) {
        ok(faults_need(&faults, 2 * FAULT_STRETCH + 8192 * i, 2 * FAULT_STRETCH + 8192 * i + 100));
        ck_assert_uint_eq(made(), i == 1 ? 1 : 2); /* from the second on it looks */
    }
    ck_assert(!os_map_resident(faults.map, 2 * FAULT_STRETCH + FAULT_STRETCH / 2, 4096));
    ck_assert(os_map_resident(faults.map, 2 * FAULT_STRETCH + 8192, 4096));
}
END_TEST

START_TEST(bad_page_stands_in_nobody_elses_way)
{
    ok(faults_need(&faults, 5000, 9000));
    ck_assert_uint_eq(made(), 1);
    bad_call = 2; /* it is there; all of it cannot be had; what is needed can */
    err_clear();
    ok(faults_need(&faults, 20000, 24000));
    ck_assert_uint_eq(made(), 3);
    ck_assert_str_eq(shale_errmsg(), "");
    bad_call = 0;
    bad_from = 0;
    bad_to = 24000;
    ck_assert_int_eq(faults_need(&faults, 20000, 24000), SHALE_IO);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "fault in"));
}
END_TEST

/* A table that is read in no order, all of it: not a call for each of its blocks. */
START_TEST(table_in_the_page_cache_costs_few_calls)
{
    struct table_options o = {.block_bytes = 1024, .bloom_bits = 10, .mode = 0600};
    struct table_rows rows;
    struct table_info info;
    struct table *t;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 20000, 21);
    ok(table_rows_build(&rows, dir, NUMBER, &o, &info));
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    unsigned stretches = (unsigned)(info.size / FAULT_STRETCH) + 1;
    ck_assert_uint_gt(t->index.count, 20 * stretches);
    calls = 0;
    for (size_t i = 0; i < rows.count; i++) {
        const struct table_row *r = &rows.row[i * 7919 % rows.count];
        struct table_hit hit;
        struct table_pin pin;
        ok(table_get(t, r->key, key_hash(r->key), NULL, &hit, &pin));
        ck_assert(slice_equal(hit.value, r->value));
        table_pin_release(&pin);
    }
    ck_assert_uint_le(made(), 5 * stretches);
    table_unref(t);
    table_info_release(&info);
    table_rows_release(&rows);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table_fault");
    TCase *c = tcase_create("stretches");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, map_file, unmap_file);
    tcase_add_test(c, stretch_in_the_page_cache_is_faulted_in_once);
    tcase_add_test(c, who_is_not_told_asks_for_what_it_needs);
    tcase_add_test(c, only_who_may_know_is_told);
    tcase_add_test(c, stretch_is_not_believed_in_for_ever);
    tcase_add_test(c, what_is_not_in_the_page_cache_is_not_read_unasked);
    tcase_add_test(c, bad_page_stands_in_nobody_elses_way);
    tcase_add_test(c, table_in_the_page_cache_costs_few_calls);
    suite_add_tcase(suite, c);
    return run_suite("test_table_fault", suite);
}
