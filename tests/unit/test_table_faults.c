/* test_table_faults.c - damaged files, failing calls: an error that names the place, never a crash or a
 * wrong value. */
#include "unit/table_fixture.h"

#define FEW 40u /* rows: a file of a few kilobytes, whose every byte can be tried */

static struct table_rows rows;
static struct table_info info;
static struct buf image; /* of the table as it was built */

static void build_image(bool lz4, unsigned bloom_bits)
{
    struct table_options o = {.block_bytes = 512, .bloom_bits = bloom_bits, .lz4 = lz4, .mode = 0600};
    table_rows_make(&rows, TABLE_STYLE_PREFIX, FEW, 11);
    ok(table_rows_build(&rows, dir, NUMBER, &o, &info));
    ok(os_read_file(dir, "000034.sst", 1u << 20, &image));
    ck_assert_uint_eq(image.size, info.size);
}

static void release_image(void)
{
    table_rows_release(&rows);
    table_info_release(&info);
    buf_release(&image);
}

/* The table's file anew, under a new inode, with these bytes. */
static void put_file(const unsigned char *bytes, size_t size)
{
    int fd;
    ok(os_unlink(dir, "000034.sst"));
    ok(os_open(dir, "000034.sst", O_RDWR | O_CREAT | O_EXCL, 0600, &fd));
    ok(os_pwrite(fd, bytes, size, 0));
    os_close(&fd);
}

static bool told(const char *what)
{
    return strstr(shale_errmsg(), what) != NULL;
}

/* A value that is found is the right one. */
static int get_row(struct table *t, const struct table_row *r)
{
    struct table_hit hit;
    struct table_pin pin;
    int rc = table_get(t, r->key, key_hash(r->key), NULL, &hit, &pin);
    if (rc == SHALE_OK) {
        ck_assert(hit.seq == r->seq && hit.type == r->type && slice_equal(hit.value, r->value));
        table_pin_release(&pin);
    }
    return rc;
}

/* Reads all rows in all ways. Whatever is returned as found must be right; an error must be CORRUPT and
 * name the file. Returns how many reads ended in an error. */
static size_t read_contained(struct table *t)
{
    struct table_iter it;
    size_t errors = 0;
    for (size_t i = 0; i < rows.count; i++) {
        int rc = get_row(t, &rows.row[i]);
        if (rc != SHALE_OK) {
            ck_assert_int_eq(rc, SHALE_CORRUPT);
            ck_assert_msg(told("000034.sst: block at ") || told("000034.sst: index page at "), "%s",
                          shale_errmsg());
            errors++;
        }
    }
    table_iter_init(&it, t, NULL);
    for (int way = 0; way < 2; way++) {
        int rc = way == 0 ? table_iter_first(&it) : table_iter_last(&it);
        for (size_t n = 0; rc == SHALE_OK; n++) {
            const struct table_row *r = &rows.row[way == 0 ? n : rows.count - 1 - n];
            ck_assert(n < rows.count && slice_equal(it.key, r->key) && slice_equal(it.value, r->value));
            rc = way == 0 ? table_iter_next(&it) : table_iter_prev(&it);
        }
        ck_assert(rc == SHALE_NOTFOUND || (rc == SHALE_CORRUPT && told("000034.sst: ")));
        errors += rc == SHALE_CORRUPT;
    }
    table_iter_release(&it);
    return errors;
}

START_TEST(h38_flipped_bit_anywhere_is_found_and_contained)
{
    size_t at_open = 0, at_read = 0;
    build_image((_i & 1) != 0, 10);
    os_door_hook = (_i & 2) != 0 ? no_maps : NULL;
    for (size_t at = 0; at < image.size; at++) {
        struct table *t;
        image.data[at] ^= (unsigned char)(1u << at % 8);
        put_file(image.data, image.size);
        image.data[at] ^= (unsigned char)(1u << at % 8);
        int rc = table_open(dir, NUMBER, info.size, NULL, true, &t);
        if (rc != SHALE_OK) {
            ck_assert_msg(rc == SHALE_CORRUPT && told("000034.sst: "), "byte %zu: %s", at, shale_errmsg());
            at_open++;
            continue;
        }
        size_t errors = read_contained(t);
        ck_assert_msg(errors != 0, "byte %zu is missed by every read", at);
        ck_assert_msg(table_verify(t, NULL, NULL) == SHALE_CORRUPT, "byte %zu", at);
        ck_assert_msg(told("000034.sst: block at ") || told("000034.sst: index page at "), "%s",
                      shale_errmsg());
        at_read++;
        table_unref(t);
    }
    ck_assert(at_open > 0 && at_read > at_open);
    put_file(image.data, image.size);
    struct table *t;
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    ck_assert_uint_eq(read_contained(t), 0);
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    release_image();
}
END_TEST

START_TEST(truncated_file_is_refused)
{
    build_image(true, 10);
    for (size_t size = 0; size < image.size; size++) {
        struct table *t;
        put_file(image.data, size);
        ck_assert_int_eq(table_open(dir, NUMBER, info.size, NULL, true, &t), SHALE_CORRUPT);
        ck_assert(told("should be"));
        ck_assert_int_eq(table_open(dir, NUMBER, 0, NULL, true, &t), SHALE_CORRUPT);
        ck_assert(told("000034.sst: "));
    }
    release_image();
}
END_TEST

START_TEST(file_that_is_cut_while_open_is_an_error)
{
    struct table *t;
    int fd;
    build_image(false, 0);
    os_door_hook = no_maps;
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    ok(os_open(dir, "000034.sst", O_RDWR, 0, &fd));
    ok(os_truncate(fd, 100));
    os_close(&fd);
    ck_assert_uint_gt(read_contained(t), rows.count);
    ck_assert(told("the file ends early"));
    ck_assert_int_eq(table_verify(t, NULL, NULL), SHALE_CORRUPT);
    table_unref(t);
    release_image();
}
END_TEST

START_TEST(renamed_file_is_refused)
{
    struct table *t;
    build_image(false, 10);
    ok(os_rename(dir, "000034.sst", "000035.sst"));
    ck_assert_int_eq(table_open(dir, 35, info.size, NULL, true, &t), SHALE_CORRUPT);
    ck_assert(told("000035.sst: the file is table 34"));
    ck_assert_int_eq(table_open(dir, NUMBER, info.size, NULL, true, &t), SHALE_NOTFOUND);
    release_image();
}
END_TEST

/* One entry a block, all blocks equally long. */
static void build_even(uint64_t number)
{
    struct table_options o = {.block_bytes = 64, .bloom_bits = 10, .lz4 = false, .mode = 0600};
    struct table_builder *b;
    struct table_info built;
    ok(table_build_start(dir, number, &o, &b));
    for (unsigned i = 0; i < 10; i++) {
        char key[8], value[101];
        (void)snprintf(key, sizeof key, "key%u", i);
        (void)snprintf(value, sizeof value, "%0100llu", (unsigned long long)(number * 1000 + i));
        ok(table_build_add(b, text(key), i + 1, TABLE_PUT, text(value)));
    }
    ok(table_build_finish(b, &built));
    table_info_release(&built);
}

/* A block of the same table from another place, or of another table from the same place, with its own good
 * checksum, is not taken for the one that is meant. */
START_TEST(block_of_another_place_or_table_is_found)
{
    struct table *t;
    struct buf other = {NULL, 0, 0};
    struct index_entry first, second;
    struct table_hit hit;
    struct table_pin pin;
    build_even(NUMBER);
    build_even(NUMBER + 1);
    ok(os_read_file(dir, "000034.sst", 1u << 20, &image));
    ok(os_read_file(dir, "000035.sst", 1u << 20, &other));
    ok(table_open(dir, NUMBER, 0, NULL, true, &t));
    ok(index_at(&t->index, 0, &first));
    ok(index_at(&t->index, 1, &second));
    ck_assert_uint_eq(first.stored, second.stored);
    table_unref(t);
    size_t size = first.stored + sizeof(struct table_trailer);
    const unsigned char *from = _i == 0 ? image.data + second.offset : other.data + first.offset;
    memcpy(image.data + first.offset, from, size);
    put_file(image.data, image.size);
    ok(table_open(dir, NUMBER, 0, NULL, true, &t));
    ck_assert_int_eq(table_get(t, text("key0"), key_hash(text("key0")), NULL, &hit, &pin), SHALE_CORRUPT);
    ck_assert(told("000034.sst: block at 0: checksum mismatch"));
    ok(table_get(t, text("key1"), key_hash(text("key1")), NULL, &hit, &pin));
    table_pin_release(&pin);
    table_unref(t);
    buf_release(&other);
    buf_release(&image);
}
END_TEST

START_TEST(h28_unknown_format_is_a_mismatch)
{
    struct table *t;
    struct table_footer f;
    build_image(false, 10);
    unsigned char *at = image.data + image.size - sizeof f;
    for (int i = 0; i < 4; i++) {
        memcpy(&f, image.data + info.size - sizeof f, sizeof f);
        f.incompat = i == 0 ? 1 : i == 1 ? UINT64_C(1) << 63 : 0;
        f.format = i == 2 ? TABLE_FORMAT + 1 : TABLE_FORMAT;
        f.compat = f.readonly_compat = i == 3 ? UINT64_MAX : 0;
        f.checksum = table_footer_checksum(&f);
        struct table_footer was;
        memcpy(&was, at, sizeof was);
        memcpy(at, &f, sizeof f);
        put_file(image.data, image.size);
        memcpy(at, &was, sizeof was);
        int rc = table_open(dir, NUMBER, info.size, NULL, true, &t);
        ck_assert_int_eq(rc, i < 3 ? SHALE_MISMATCH : SHALE_OK);
        if (rc == SHALE_OK) {
            table_unref(t);
        }
    }
    release_image();
}
END_TEST

/* ---- forged checksums: the structure is all that is left to check ---- */

START_TEST(noise_under_good_checksums_does_no_harm)
{
    uint64_t state = 77 + (uint64_t)_i;
    size_t opened = 0, refused = 0;
    build_image(_i % 2 != 0, _i % 3 == 0 ? 10 : 0);
    unsigned char *bytes = malloc(image.size);
    ck_assert_ptr_nonnull(bytes);
    for (int round = 0; round < 300; round++) {
        struct table *t;
        memcpy(bytes, image.data, image.size);
        uint64_t changes = 1 + prng_next(&state) % 3;
        for (uint64_t i = 0; i < changes; i++) {
            static const unsigned char likely[] = {0, 1, 0x7f, 0x80, 0xff, 4};
            uint64_t r = prng_next(&state);
            bytes[prng_next(&state) % image.size] =
                r % 2 != 0 ? likely[r / 2 % sizeof likely] : (unsigned char)(r >> 8);
        }
        table_forge(bytes, image.size, NUMBER);
        put_file(bytes, image.size);
        if (table_open(dir, NUMBER, 0, NULL, true, &t) == SHALE_OK) {
            int rc = table_exercise(t, (uint64_t)round);
            ck_assert_msg(rc == SHALE_OK || rc == SHALE_CORRUPT, "%s", shale_errmsg());
            refused += rc == SHALE_CORRUPT;
            opened++;
            table_unref(t);
        }
    }
    ck_assert(opened > 100 && refused > 50);
    free(bytes);
    release_image();
}
END_TEST

/* Everything agrees about the block's size, but the packed bytes: what is missing would be memory that nobody
 * wrote. */
START_TEST(block_that_unpacks_to_another_size_is_refused)
{
    struct table *t;
    struct index_entry e;
    build_image(true, 0);
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    ok(index_at(&t->index, 0, &e));
    table_unref(t);
    ck_assert_uint_lt(e.stored, e.raw);
    unsigned char *place = memmem(image.data, image.size, &e, sizeof e);
    ck_assert_ptr_nonnull(place);
    e.raw += 8;
    memcpy(place, &e, sizeof e);
    table_forge(image.data, image.size, NUMBER);
    put_file(image.data, image.size);
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    ck_assert_int_eq(get_row(t, &rows.row[0]), SHALE_CORRUPT);
    ck_assert_msg(told("does not unpack"), "%s", shale_errmsg());
    table_unref(t);
    release_image();
}
END_TEST

/* ---- damage stays where it is ---- */

static unsigned advises;
static int count_advises(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    advises += op == OS_OP_ADVISE;
    return 0;
}

static struct table *open_large(void)
{
    struct table *t;
    struct table_options o = {.block_bytes = 256, .bloom_bits = 10, .mode = 0600};
    table_rows_make(&rows, TABLE_STYLE_BINARY, 20000, 21);
    ok(table_rows_build(&rows, dir, NUMBER, &o, &info));
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    return t;
}

START_TEST(open_and_one_get_look_at_a_few_pages)
{
    advises = 0;
    os_door_hook = count_advises;
    struct table *t = open_large();
    ck_assert_uint_gt(t->at.pages, 100);
    ok(get_row(t, &rows.row[rows.count / 2]));
    ck_assert_uint_le(advises, 12);
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    release_image();
}
END_TEST

/* One byte of the index is wrong: what its page says nothing about is read as ever. */
START_TEST(h38_damaged_index_page_stops_only_its_own_keys)
{
    struct table *t = open_large();
    uint64_t last_entry =
        (uint64_t)(t->index.entries - t->map) + (t->index.count - 1) * sizeof(struct index_entry);
    table_unref(t);
    ck_assert_int_eq(scratch_flip_bit(dir_path, "000034.sst", last_entry * 8), 0);
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    size_t good = 0, bad = 0;
    for (size_t i = 0; i < rows.count; i++) {
        int rc = get_row(t, &rows.row[i]);
        ck_assert(rc == SHALE_OK || (rc == SHALE_CORRUPT && told("000034.sst: index page at ")));
        good += rc == SHALE_OK;
        bad += rc == SHALE_CORRUPT;
    }
    ck_assert(good > rows.count * 9 / 10 && bad > 0);
    table_unref(t);
    release_image();
}
END_TEST

/* ---- failing calls ---- */

static enum os_op refused_op;
static int refused_errno;
static unsigned calls, refused_call;

static int refuse_nth(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op != refused_op || ++calls < refused_call) {
        return 0;
    }
    /* a full device stays full: who then asks for less is refused as well */
    return calls == refused_call || op == OS_OP_ALLOCATE ? refused_errno : 0;
}

static void refuse_at(enum os_op op, unsigned call, int err)
{
    refused_op = op;
    refused_call = call;
    refused_errno = err;
    calls = 0;
    os_door_hook = refuse_nth;
}

static int refuse_first_page(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)length;
    return op == OS_OP_ADVISE && offset == 0 ? EIO : 0;
}

START_TEST(read_error_is_an_error_and_passes)
{
    struct table *t;
    bool mapped = _i == 0;
    if (mapped) {
        t = open_large(); /* a small one is faulted in with its properties */
        os_door_hook = refuse_first_page;
    } else {
        build_image(false, 0);
        os_door_hook = no_maps;
        ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
        refuse_at(OS_OP_READ, 1, EIO);
    }
    ck_assert_int_eq(get_row(t, &rows.row[0]), SHALE_IO);
    ck_assert_msg(told("000034.sst: block at 0: "), "%s", shale_errmsg());
    os_door_hook = NULL;
    ok(get_row(t, &rows.row[0])); /* it was not remembered */
    refuse_at(OS_OP_READ, 1, EIO);
    ck_assert_int_eq(table_verify(t, NULL, NULL), SHALE_IO);
    ck_assert_msg(told("000034.sst: block at 0: "), "%s", shale_errmsg());
    ok(table_verify(t, NULL, NULL));
    table_unref(t);
    release_image();
}
END_TEST

START_TEST(open_that_meets_an_error_leaves_nothing_open)
{
    static const enum os_op ops[] = {OS_OP_OPEN, OS_OP_STAT, OS_OP_READ, OS_OP_ADVISE};
    struct table *t = NULL;
    build_image(true, 10);
    uint64_t files = os_open_files(), mapped = os_mapped_bytes();
    for (size_t i = 0; i < BASE_COUNT(ops); i++) {
        refuse_at(ops[i], 1, EIO);
        ck_assert_int_eq(table_open(dir, NUMBER, info.size, NULL, true, &t), SHALE_IO);
        ck_assert_ptr_null(t);
        ck_assert_uint_eq(calls, 1);
        ck_assert_uint_eq(os_open_files(), files);
        ck_assert_uint_eq(os_mapped_bytes(), mapped);
    }
    release_image();
}
END_TEST

static int refuse_first_allocation(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    return op == OS_OP_ALLOCATE && ++calls == 1 ? ENOSPC : 0;
}

/* It asks for megabytes ahead of what it writes. */
START_TEST(h23_room_for_what_is_written_will_do)
{
    table_rows_make(&rows, TABLE_STYLE_BINARY, 100, 2);
    calls = 0;
    os_door_hook = refuse_first_allocation;
    int rc = table_rows_build(&rows, dir, NUMBER, &plain, &info);
    os_door_hook = NULL;
    ok(rc);
    ck_assert_uint_eq(calls, 2);
    table_info_release(&info);
    table_rows_release(&rows);
    memset(&info, 0, sizeof info);
}
END_TEST

START_TEST(h23_full_device_while_building_leaves_no_file)
{
    static const struct {
        enum os_op op;
        int err, status;
    } cases[] = {
        {OS_OP_OPEN, ENOSPC, SHALE_NOSPC},     {OS_OP_LOCK, EIO, SHALE_IO},
        {OS_OP_ALLOCATE, ENOSPC, SHALE_NOSPC}, {OS_OP_WRITE, ENOSPC, SHALE_NOSPC},
        {OS_OP_TRUNCATE, EIO, SHALE_IO},       {OS_OP_FSYNC, EIO, SHALE_IO},
        {OS_OP_RENAME, ENOSPC, SHALE_NOSPC},
    };
    table_rows_make(&rows, TABLE_STYLE_BINARY, 6000,
                    2); /* some megabytes: allocations and writes along the way */
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        for (unsigned nth = 1;; nth++) {
            ck_assert_uint_lt(nth, 100);
            refuse_at(cases[i].op, nth, cases[i].err);
            int rc = table_rows_build(&rows, dir, NUMBER, &plain, &info);
            os_door_hook = NULL;
            if (calls < nth) { /* no such call any more: it went through */
                ck_assert_uint_gt(nth, 1);
                ok(rc);
                table_info_release(&info);
                ok(os_unlink(dir, "000034.sst"));
                break;
            }
            ck_assert_int_eq(rc, cases[i].status);
            ck_assert_msg(told("000034.sst.tmp: "), "%s", shale_errmsg());
            ck_assert(!exists("000034.sst"));
            ck_assert_msg(!exists("000034.sst.tmp") || cases[i].op == OS_OP_LOCK, "%s",
                          os_op_name(cases[i].op));
            ok(os_unlink(dir, "000034.sst.tmp")); /* an orphan, where even the lock did not work */
        }
    }
    table_rows_release(&rows);
    memset(&info, 0, sizeof info);
    ck_assert_uint_eq(os_open_files(), 1); /* the directory */
}
END_TEST

/* *ctx UINT64_MAX: stop at once. */
static int count_bytes(void *ctx, uint64_t bytes)
{
    uint64_t *seen = ctx;
    if (*seen == UINT64_MAX) {
        return 1;
    }
    *seen += bytes;
    return 0;
}

START_TEST(verification_can_be_cancelled)
{
    struct table *t;
    build_image(false, 0);
    ok(table_open(dir, NUMBER, info.size, NULL, true, &t));
    uint64_t seen = 0;
    ok(table_verify(t, count_bytes, &seen));
    ck_assert_uint_eq(seen, info.size); /* every byte was reported once */
    seen = UINT64_MAX;
    ck_assert_int_eq(table_verify(t, count_bytes, &seen), SHALE_CANCELLED);
    table_unref(t);
    release_image();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("table_faults");
    TCase *c = tcase_create("faults");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, h38_flipped_bit_anywhere_is_found_and_contained, 0, 4);
    tcase_add_test(c, truncated_file_is_refused);
    tcase_add_test(c, file_that_is_cut_while_open_is_an_error);
    tcase_add_test(c, renamed_file_is_refused);
    tcase_add_loop_test(c, block_of_another_place_or_table_is_found, 0, 2);
    tcase_add_test(c, h28_unknown_format_is_a_mismatch);
    tcase_add_loop_test(c, noise_under_good_checksums_does_no_harm, 0, 6);
    tcase_add_test(c, block_that_unpacks_to_another_size_is_refused);
    tcase_add_test(c, open_and_one_get_look_at_a_few_pages);
    tcase_add_test(c, h38_damaged_index_page_stops_only_its_own_keys);
    tcase_add_loop_test(c, read_error_is_an_error_and_passes, 0, 2);
    tcase_add_test(c, open_that_meets_an_error_leaves_nothing_open);
    tcase_add_test(c, h23_room_for_what_is_written_will_do);
    tcase_add_test(c, h23_full_device_while_building_leaves_no_file);
    tcase_add_test(c, verification_can_be_cancelled);
    suite_add_tcase(suite, c);
    return run_suite("test_table_faults", suite);
}
