/* test_table.c - tables: what was built is what is read, in every mode; cache, filter, files while they are
 * written. */
#include "lib/slow.h"
#include "unit/table_fixture.h"

#include <signal.h>
#include <sys/wait.h>

static void check_row(const struct table_iter *it, const struct table_row *r)
{
    ck_assert(it->valid);
    ck_assert(slice_equal(it->key, r->key));
    ck_assert(slice_equal(it->value, r->value));
    ck_assert_uint_eq(it->seq, r->seq);
    ck_assert_uint_eq(it->type, r->type);
}

static void check_at(const struct table_iter *it, int rc, const struct table_rows *rows, size_t i)
{
    if (i < rows->count) {
        ck_assert_int_eq(rc, SHALE_OK);
        check_row(it, &rows->row[i]);
    } else {
        ck_assert_int_eq(rc, SHALE_NOTFOUND);
        ck_assert(!it->valid);
    }
}

static void check_get(struct table *t, const struct table_rows *rows, struct slice key)
{
    size_t i = table_rows_find(rows, key);
    bool there = i < rows->count && slice_equal(rows->row[i].key, key);
    struct table_hit hit;
    struct table_pin pin = {NULL, NULL};
    int rc = table_get(t, key, key_hash(key), NULL, &hit, &pin);
    ck_assert_int_eq(rc, there ? SHALE_OK : SHALE_NOTFOUND);
    if (there) {
        ck_assert(slice_equal(hit.value, rows->row[i].value));
        ck_assert_uint_eq(hit.seq, rows->row[i].seq);
        ck_assert_uint_eq(hit.type, rows->row[i].type);
        table_pin_release(&pin);
    }
    ck_assert_ptr_null(pin.object);
}

/* Around key: the entry at or behind it, the one at or before it. */
static void check_seek(struct table_iter *it, const struct table_rows *rows, struct slice key)
{
    size_t i = table_rows_find(rows, key);
    bool there = i < rows->count && slice_equal(rows->row[i].key, key);
    check_at(it, table_iter_seek(it, key), rows, i);
    check_at(it, table_iter_seek_for_prev(it, key), rows, there ? i : i - 1);
}

/* A key itself, its successor, and what it becomes when its last byte is one less, or gone. */
static void check_neighbours(struct table *t, struct table_iter *it, const struct table_rows *rows,
                             struct slice key)
{
    unsigned char near[300];
    ck_assert_uint_lt(key.size, sizeof near);
    memcpy(near, key.data, key.size);
    near[key.size] = 0;
    check_get(t, rows, key);
    check_seek(it, rows, key);
    check_get(t, rows, slice_make(near, key.size + 1));
    check_seek(it, rows, slice_make(near, key.size + 1));
    if (key.size != 0) {
        check_get(t, rows, slice_make(near, key.size - 1));
        check_seek(it, rows, slice_make(near, key.size - 1));
        near[key.size - 1]--;
        check_seek(it, rows, slice_make(near, key.size));
    }
}

static void check_walks(struct table_iter *it, const struct table_rows *rows)
{
    int rc = table_iter_first(it);
    for (size_t i = 0; i <= rows->count; i++) {
        check_at(it, rc, rows, i);
        rc = table_iter_next(it);
    }
    rc = table_iter_last(it);
    for (size_t i = rows->count; i-- > 0;) {
        check_at(it, rc, rows, i);
        rc = table_iter_prev(it);
    }
    ck_assert_int_eq(rc, SHALE_NOTFOUND);
}

/* ---- round trips ---- */

/* One of every option, as digits of the loop's number. */
struct variant {
    struct table_options options;
    enum table_style style;
    size_t cache_bytes;
    bool mapped, fill_cache, sequential;
};
#define VARIANTS (3 * 2 * 3 * 3 * 2)

static struct variant variant(int n)
{
    static const size_t blocks[] = {256, 4096, 200000}, caches[] = {0, 64 << 10, 64 << 20};
    struct variant v = {.options = plain};
    v.options.block_bytes = blocks[n % 3];
    v.options.lz4 = n / 3 % 2 != 0;
    v.style = (enum table_style)(n / 6 % 3);
    v.cache_bytes = caches[n / 18 % 3];
    v.mapped = n / 54 % 2 == 0;
    v.options.bloom_bits = (unsigned)n % 4 * 8;
    v.fill_cache = n % 2 == 0;
    v.sequential = n % 5 == 0;
    return v;
}

START_TEST(what_was_built_is_read)
{
    struct variant v = variant(_i * TEST_SLOW);
    struct table_rows rows;
    struct table_iter it;
    table_rows_make(&rows, v.style, 300, (uint64_t)_i);
    os_door_hook = v.mapped ? NULL : no_maps;
    struct cache *cache = cache_ref(v.cache_bytes);
    struct table *t = make(&rows, &v.options, cache);
    ck_assert_int_eq(t->map != NULL, v.mapped);
    table_iter_init(&it, t, NULL);
    it.fill_cache = v.fill_cache;
    it.sequential = v.sequential;
    check_walks(&it, &rows);
    for (size_t i = 0; i < rows.count; i++) {
        check_neighbours(t, &it, &rows, rows.row[i].key);
    }
    check_seek(&it, &rows, slice_make(NULL, 0));
    check_get(t, &rows, slice_make(NULL, 0));
    check_seek(&it, &rows, slice_make("\377\377\377\377\377\377\377\377\377\377\377\377\377", 13));
    check_get(t, &rows, slice_make("\377\377\377\377\377\377\377\377\377\377\377\377\377", 13));
    ok(table_verify(t, NULL, NULL));
    table_iter_release(&it);
    table_unref(t);
    ck_assert_uint_eq(cache_used(cache), 0);
    cache_unref(cache);
    table_rows_release(&rows);
    ck_assert_uint_eq(os_mapped_bytes(), 0);
}
END_TEST

START_TEST(iterator_turns_anywhere)
{
    struct table_options o = plain;
    struct table_rows rows;
    struct table_iter it;
    uint64_t state = 5;
    o.block_bytes = 300;
    o.lz4 = true;
    table_rows_make(&rows, TABLE_STYLE_MIXED, 400, 9);
    struct table *t = make(&rows, &o, NULL);
    table_iter_init(&it, t, NULL);
    size_t at = rows.count / 2;
    check_at(&it, table_iter_seek(&it, rows.row[at].key), &rows, at);
    for (int i = 0; i < 20000; i++) {
        bool forward = at == 0 || (at + 1 < rows.count && prng_next(&state) % 2 == 0);
        at = forward ? at + 1 : at - 1;
        check_at(&it, forward ? table_iter_next(&it) : table_iter_prev(&it), &rows, at);
    }
    ok(table_iter_last(&it));
    ck_assert_int_eq(table_iter_next(&it), SHALE_NOTFOUND);
    ck_assert_int_eq(table_iter_next(&it), SHALE_NOTFOUND); /* no longer anywhere */
    ck_assert_int_eq(table_iter_prev(&it), SHALE_NOTFOUND);
    table_iter_release(&it);
    table_unref(t);
    table_rows_release(&rows);
}
END_TEST

START_TEST(keys_and_values_at_their_limits)
{
    static const size_t key_sizes[] = {0, 1, 65534, 65535}, value_sizes[] = {0, 20 << 20, 1, 5000};
    unsigned char *key = calloc(1, 65536), *value = malloc(20 << 20);
    struct table_options o = plain;
    struct table_builder *b;
    struct table_info info;
    struct table *t;
    ck_assert(key != NULL && value != NULL);
    memset(value, 'v', 20 << 20);
    o.lz4 = _i != 0;
    ok(table_build_start(dir, NUMBER, &o, &b));
    for (size_t i = 0; i < BASE_COUNT(key_sizes); i++) {
        ok(table_build_add(b, slice_make(key, key_sizes[i]), i + 1, TABLE_PUT,
                           slice_make(value, value_sizes[i])));
    }
    ok(table_build_finish(b, &info));
    ck_assert_uint_eq(info.largest.size, 65535);
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    for (size_t i = 0; i < BASE_COUNT(key_sizes); i++) {
        struct slice k = slice_make(key, key_sizes[i]);
        struct table_hit hit;
        struct table_pin pin;
        ok(table_get(t, k, key_hash(k), NULL, &hit, &pin));
        ck_assert(slice_equal(hit.value, slice_make(value, value_sizes[i])));
        ck_assert_ptr_nonnull(hit.value.data);
        table_pin_release(&pin);
    }
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    table_info_release(&info);
    free(key);
    free(value);
}
END_TEST

/* Its only separator has no bytes. */
START_TEST(the_empty_key_alone_is_a_table)
{
    struct table_builder *b;
    struct table_info info;
    struct table *t;
    struct table_hit hit;
    struct table_pin pin;
    struct slice empty = slice_make("", 0);
    ok(table_build_start(dir, NUMBER, &plain, &b));
    ok(table_build_add(b, empty, 1, TABLE_PUT, slice_make("v", 1)));
    ok(table_build_finish(b, &info));
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    ok(table_get(t, empty, key_hash(empty), NULL, &hit, &pin));
    ck_assert(slice_equal(hit.value, slice_make("v", 1)));
    table_pin_release(&pin);
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    table_info_release(&info);
}
END_TEST

START_TEST(info_tells_what_is_in_it)
{
    struct table_rows rows;
    struct table_info info;
    struct table *t;
    uint64_t deletes = 0, raw = 0, before = 0;
    table_rows_make(&rows, TABLE_STYLE_PREFIX, 500, 3);
    ok(table_rows_build(&rows, dir, NUMBER, &plain, &info));
    for (size_t i = 0; i < rows.count; i++) {
        deletes += rows.row[i].type == TABLE_DELETE;
        raw += rows.row[i].key.size + rows.row[i].value.size;
        ck_assert(rows.row[i].seq >= info.min_seq && rows.row[i].seq <= info.max_seq);
    }
    ok(table_open(dir, NUMBER, 0, NULL, true, &t));
    const struct table_info *kept = table_properties(t);
    ck_assert(info.number == NUMBER && info.entries == rows.count && info.deletes == deletes &&
              info.raw_bytes == raw);
    ck_assert(kept->number == NUMBER && kept->size == info.size && kept->entries == info.entries &&
              kept->deletes == deletes && kept->raw_bytes == raw && kept->min_seq == info.min_seq &&
              kept->max_seq == info.max_seq);
    ck_assert(slice_equal(buf_slice(&kept->smallest), rows.row[0].key));
    ck_assert(slice_equal(buf_slice(&kept->largest), rows.row[rows.count - 1].key));
    ck_assert(slice_equal(buf_slice(&info.largest), rows.row[rows.count - 1].key));
    for (size_t i = 0; i < rows.count; i++) {
        uint64_t at = table_offset_of(t, rows.row[i].key);
        ck_assert(at >= before && at < info.size);
        before = at;
    }
    ck_assert_uint_gt(before, 0);
    table_unref(t);
    table_info_release(&info);
    table_rows_release(&rows);
}
END_TEST

/* ---- the builder ---- */

START_TEST(wrong_entries_are_refused)
{
    static const struct {
        const char *key;
        uint64_t seq;
        uint8_t type;
        const char *value;
        size_t key_size, value_size;
        int status;
    } wrong[] = {
        {"b", 2, TABLE_PUT, "", 1, 0, SHALE_INVALID},
        {"a", 2, TABLE_PUT, "", 1, 0, SHALE_INVALID},
        {"c", 2, TABLE_DELETE, "x", 1, 1, SHALE_INVALID},
        {"c", 2, 3, "", 1, 0, SHALE_INVALID},
        {"c", UINT64_C(1) << 56, TABLE_PUT, "", 1, 0, SHALE_INVALID},
        {"c", 2, TABLE_PUT, "", 65536, 0, SHALE_TOOBIG},
        {"c", 2, TABLE_PUT, "", 1, (256u << 20) + 1, SHALE_TOOBIG},
    };
    for (size_t i = 0; i < BASE_COUNT(wrong); i++) {
        struct table_builder *b;
        struct table_info info;
        ok(table_build_start(dir, NUMBER, &plain, &b));
        ok(table_build_add(b, text("b"), 1, TABLE_PUT, text("1")));
        ck_assert_int_eq(table_build_add(b, slice_make(wrong[i].key, wrong[i].key_size), wrong[i].seq,
                                         wrong[i].type, slice_make(wrong[i].value, wrong[i].value_size)),
                         wrong[i].status);
        ck_assert_int_eq(table_build_finish(b, &info), wrong[i].status);
        ck_assert(!exists("000034.sst.tmp") && !exists("000034.sst"));
    }
}
END_TEST

START_TEST(a_table_has_its_name_only_when_it_is_whole)
{
    struct table_builder *b, *second;
    struct table_info info;
    ok(table_build_start(dir, NUMBER, &plain, &b));
    ck_assert(exists("000034.sst.tmp") && !exists("000034.sst"));
    ck_assert_int_eq(table_build_start(dir, NUMBER, &plain, &second), SHALE_EXISTS);
    ok(table_build_add(b, text("k"), 1, TABLE_PUT, text("v")));
    ck_assert_uint_eq(table_build_entries(b), 1);
    ok(table_build_finish(b, &info));
    ck_assert(!exists("000034.sst.tmp") && exists("000034.sst"));
    table_info_release(&info);

    ok(table_build_start(dir, NUMBER, &plain, &b)); /* the number is taken: found out at the end */
    ok(table_build_add(b, text("k"), 1, TABLE_PUT, text("w")));
    ck_assert_int_eq(table_build_finish(b, &info), SHALE_EXISTS);
    ck_assert(!exists("000034.sst.tmp"));

    ok(table_build_start(dir, NUMBER + 1, &plain, &b));
    ck_assert_int_eq(table_build_finish(b, &info), SHALE_INVALID); /* empty */
    ok(table_build_start(dir, NUMBER + 1, &plain, &b));
    table_build_abandon(b);
    table_build_abandon(NULL);
    ck_assert(!exists("000035.sst.tmp") && !exists("000035.sst"));
}
END_TEST

START_TEST(space_that_was_allocated_ahead_is_given_back)
{
    struct table_rows rows;
    struct table_info info;
    struct stat st;
    table_rows_make(&rows, TABLE_STYLE_BINARY, 3000, 1);
    ok(table_rows_build(&rows, dir, NUMBER, &plain, &info));
    ok(os_stat_at(dir, "000034.sst", &st));
    ck_assert_uint_eq((uint64_t)st.st_size, info.size);
    ck_assert_uint_gt(info.size, 1u << 20);
    ck_assert_uint_le((uint64_t)st.st_blocks * 512, info.size + (64u << 10));
    table_info_release(&info);
    table_rows_release(&rows);
}
END_TEST

/* The other process: begins a table, says so, and waits to be killed. */
static int write_for_ever(const char *path)
{
    struct table_builder *b;
    (void)alarm(60); /* should the test itself end early */
    if (os_open_dir(path, &dir) != SHALE_OK || table_build_start(dir, NUMBER, &plain, &b) != SHALE_OK ||
        table_build_add(b, text("k"), 1, TABLE_PUT, text("v")) != SHALE_OK || write(1, "!", 1) != 1) {
        return EXIT_FAILURE;
    }
    for (;;) {
        (void)pause();
    }
}

static pid_t start_writer(void)
{
    int pipes[2];
    char byte;
    ck_assert_int_eq(pipe(pipes), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        (void)dup2(pipes[1], 1);
        (void)execl("/proc/self/exe", "test_table", "--write", dir_path, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    (void)close(pipes[1]);
    ck_assert_int_eq(read(pipes[0], &byte, 1), 1);
    (void)close(pipes[0]);
    return pid;
}

START_TEST(h20_unfinished_table_is_locked_until_its_writer_dies)
{
    int fd;
    pid_t pid = start_writer();
    ok(os_open(dir, "000034.sst.tmp", O_RDWR, 0, &fd));
    ck_assert_int_eq(os_lock_try(fd, 0, 1, true), SHALE_BUSY);
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ok(os_lock_try(fd, 0, 1, true)); /* an orphan now */
    ok(os_unlink(dir, "000034.sst.tmp"));
    os_close(&fd);
}
END_TEST

/* A sweeper that is quicker than the builder's lock: takes the new file for an orphan, once. */
static int sweeps;
static int sweep_once(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_LOCK && sweeps == 0) {
        sweeps++;
        return unlinkat(dir, "000034.sst.tmp", 0) == 0 ? 0 : EIO;
    }
    return 0;
}

START_TEST(h20_builder_starts_again_when_swept)
{
    struct table_builder *b;
    struct table_info info;
    os_door_hook = sweep_once;
    ok(table_build_start(dir, NUMBER, &plain, &b));
    ck_assert_int_eq(sweeps, 1);
    ck_assert(exists("000034.sst.tmp"));
    ok(table_build_add(b, text("k"), 1, TABLE_PUT, text("v")));
    ok(table_build_finish(b, &info));
    ck_assert(exists("000034.sst"));
    table_info_release(&info);
}
END_TEST

START_TEST(names_are_parsed_in_their_exact_form_only)
{
    static const char *const wrong[] = {"34.sst",
                                        "000034",
                                        "000034.sst.",
                                        "000034.sst.tmpx",
                                        "0000034.sst",
                                        ".sst",
                                        "-00034.sst",
                                        "000034.SST",
                                        "000034.sst.tmp2",
                                        " 000034.sst",
                                        "000034.wal",
                                        "",
                                        "99999999999999999999.sst",
                                        "x.sst",
                                        "00034a.sst"};
    static const uint64_t numbers[] = {0, 34, 999999, 1000000, UINT64_MAX};
    uint64_t n;
    bool tmp;
    for (size_t i = 0; i < BASE_COUNT(wrong); i++) {
        ck_assert_msg(!table_parse_name(wrong[i], &n, &tmp), "%s", wrong[i]);
    }
    for (size_t i = 0; i < BASE_COUNT(numbers); i++) {
        char name[TABLE_NAME_SIZE];
        table_name(numbers[i], name);
        ck_assert(table_parse_name(name, &n, &tmp) && n == numbers[i] && !tmp);
        table_tmp_name(numbers[i], name);
        ck_assert(table_parse_name(name, &n, &tmp) && n == numbers[i] && tmp);
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        return write_for_ever(argv[2]);
    }
    Suite *suite = suite_create("table");
    TCase *c = tcase_create("table");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, what_was_built_is_read, 0, VARIANTS / TEST_SLOW);
    tcase_add_test(c, iterator_turns_anywhere);
    tcase_add_loop_test(c, keys_and_values_at_their_limits, 0, 2);
    tcase_add_test(c, the_empty_key_alone_is_a_table);
    tcase_add_test(c, info_tells_what_is_in_it);
    tcase_add_test(c, wrong_entries_are_refused);
    tcase_add_test(c, a_table_has_its_name_only_when_it_is_whole);
    tcase_add_test(c, space_that_was_allocated_ahead_is_given_back);
    tcase_add_test(c, h20_unfinished_table_is_locked_until_its_writer_dies);
    tcase_add_test(c, h20_builder_starts_again_when_swept);
    tcase_add_test(c, names_are_parsed_in_their_exact_form_only);
    suite_add_tcase(suite, c);
    return run_suite("test_table", suite);
}
