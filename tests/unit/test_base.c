/* test_base.c - errors, buffers, integers in byte order, and options by name. */
#include "base/errors.h"
#include "base/options.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- errors ---- */

START_TEST(every_status_has_a_name_a_text_and_an_exit_status)
{
    for (int status = 0; status >= -18; status--) {
        ck_assert_int_eq(strncmp(shale_errname(status), "SHALE_", 6), 0);
        ck_assert_str_ne(shale_errname(status), "SHALE_?");
        ck_assert_str_ne(shale_strerror(status), "unknown status");
    }
    ck_assert_str_eq(shale_errname(SHALE_CORRUPT), "SHALE_CORRUPT");
    ck_assert_str_eq(shale_strerror(SHALE_CORRUPT), "corrupt data");
    ck_assert_int_eq(err_exit_status(SHALE_OK), 0);
    ck_assert_int_eq(err_exit_status(SHALE_NOTFOUND), 1);
    ck_assert_int_eq(err_exit_status(SHALE_BUSY), 75);
}
END_TEST

START_TEST(an_unknown_status_is_named_as_such)
{
    ck_assert_str_eq(shale_errname(12345), "SHALE_?");
    ck_assert_str_eq(shale_strerror(-12345), "unknown status");
    ck_assert_int_eq(err_exit_status(-12345), 70);
}
END_TEST

START_TEST(the_version_is_the_headers)
{
    char want[32];
    (void)snprintf(want, sizeof want, "%d.%d.%d", SHALE_VERSION_MAJOR, SHALE_VERSION_MINOR,
                   SHALE_VERSION_PATCH);
    ck_assert_str_eq(shale_version(), want);
}
END_TEST

START_TEST(errors_gain_context_in_front)
{
    err_clear();
    ck_assert_str_eq(shale_errmsg(), "");
    ck_assert_int_eq(err_set(SHALE_CORRUPT, "block at %d: checksum", 4096), SHALE_CORRUPT);
    ck_assert_int_eq(err_wrap(SHALE_CORRUPT, "%06d.sst", 12), SHALE_CORRUPT);
    ck_assert_str_eq(shale_errmsg(), "000012.sst: block at 4096: checksum");
    err_clear();
    (void)err_wrap(SHALE_IO, "alone");
    ck_assert_str_eq(shale_errmsg(), "alone");
}
END_TEST

START_TEST(an_error_may_quote_the_one_before)
{
    (void)err_set(SHALE_IO, "inner");
    (void)err_set(SHALE_IO, "outer (%s)", shale_errmsg());
    ck_assert_str_eq(shale_errmsg(), "outer (inner)");
}
END_TEST

START_TEST(long_errors_are_cut_at_the_end)
{
    char text[5000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    (void)err_set(SHALE_IO, "%s", text);
    size_t length = strlen(shale_errmsg());
    ck_assert_uint_gt(length, 500);
    (void)err_wrap(SHALE_IO, "front");
    ck_assert_uint_eq(strlen(shale_errmsg()), length);
    ck_assert_int_eq(strncmp(shale_errmsg(), "front: xxx", 10), 0);
}
END_TEST

START_TEST(system_errors_become_statuses)
{
    static const struct {
        int err, status;
    } rows[] = {{ENOSPC, SHALE_NOSPC}, {EDQUOT, SHALE_NOSPC}, {ENOMEM, SHALE_NOMEM}, {EACCES, SHALE_PERM},
                {EPERM, SHALE_PERM},   {EROFS, SHALE_PERM},   {EIO, SHALE_IO},       {EMFILE, SHALE_IO}};
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        char want[200];
        errno = rows[i].err;
        ck_assert_int_eq(err_sys("%s: open", "file"), rows[i].status);
        ck_assert_int_eq(errno, rows[i].err);
        (void)snprintf(want, sizeof want, "file: open: %s", strerror(rows[i].err));
        ck_assert_str_eq(shale_errmsg(), want);
    }
}
END_TEST

static void *another_thread(void *ctx)
{
    bool *empty = ctx;
    *empty = shale_errmsg()[0] == '\0';
    (void)err_set(SHALE_IO, "theirs");
    return NULL;
}

START_TEST(the_text_is_the_threads_own)
{
    pthread_t thread;
    bool empty = false;
    (void)err_set(SHALE_IO, "mine");
    ck_assert_int_eq(pthread_create(&thread, NULL, another_thread, &empty), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert(empty);
    ck_assert_str_eq(shale_errmsg(), "mine");
}
END_TEST

/* ---- integers, slices, buffers ---- */

START_TEST(varints_round_trip)
{
    for (unsigned shift = 0; shift < 64; shift++) {
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t v = (UINT64_C(1) << shift) + (uint64_t)delta, back = ~v;
            unsigned char bytes[VARINT64_MAX];
            unsigned char *end = varint_put(bytes, v);
            ck_assert_uint_eq((size_t)(end - bytes), varint_size(v));
            ck_assert_ptr_eq(varint_get64(bytes, end, &back), end);
            ck_assert_uint_eq(back, v);
            ck_assert_ptr_null(varint_get64(bytes, end - 1, &back)); /* ends early */
            uint32_t narrow = 7;
            const unsigned char *got = varint_get32(bytes, end, &narrow);
            ck_assert_ptr_eq(got, v <= UINT32_MAX ? end : NULL);
            ck_assert_uint_eq(narrow, v <= UINT32_MAX ? (uint32_t)v : 7);
        }
    }
}
END_TEST

START_TEST(varints_of_more_than_64_bits_are_refused)
{
    unsigned char bytes[12];
    uint64_t v = 5;
    memset(bytes, 0xff, sizeof bytes);
    ck_assert_ptr_null(varint_get64(bytes, bytes + sizeof bytes, &v));
    bytes[9] = 0x02;
    ck_assert_ptr_null(varint_get64(bytes, bytes + sizeof bytes, &v));
    ck_assert_uint_eq(v, 5);
    bytes[9] = 0x01;
    ck_assert_ptr_eq(varint_get64(bytes, bytes + sizeof bytes, &v), bytes + 10);
    ck_assert_uint_eq(v, UINT64_MAX);
}
END_TEST

START_TEST(varints_of_arbitrary_bytes_stay_inside)
{
    uint64_t random = 42;
    for (int round = 0; round < 20000; round++) {
        size_t size = prng_next(&random) % 14;
        unsigned char *bytes = malloc(size + 1); /* of its own, so that a sanitizer sees a step outside */
        for (size_t i = 0; i < size; i++) {
            bytes[i] = (unsigned char)(prng_next(&random) | (prng_next(&random) % 4 != 0 ? 0x80 : 0));
        }
        uint64_t v;
        uint32_t w;
        const unsigned char *p = varint_get64(bytes, bytes + size, &v);
        ck_assert(p == NULL || (p > bytes && p <= bytes + size && p[-1] < 0x80));
        const unsigned char *q = varint_get32(bytes, bytes + size, &w);
        ck_assert(q == NULL || (q == p && v == w));
        free(bytes);
    }
}
END_TEST

START_TEST(slices_order_as_unsigned_bytes)
{
    static const char *const ordered[] = {"", "a", "a\x01", "ab", "b", "\x7f", "\x80", "\xff", "\xff\xff"};
    for (size_t i = 0; i < BASE_COUNT(ordered); i++) {
        for (size_t j = 0; j < BASE_COUNT(ordered); j++) {
            struct slice a = slice_make(ordered[i], strlen(ordered[i]));
            struct slice b = slice_make(ordered[j], strlen(ordered[j]));
            int c = slice_compare(a, b);
            ck_assert_int_eq((c > 0) - (c < 0), (i > j) - (i < j));
            ck_assert_int_eq(slice_equal(a, b), i == j);
            ck_assert(key_head(a) == key_head(b) || (key_head(a) < key_head(b)) == (i < j));
        }
    }
}
END_TEST

START_TEST(a_checksum_names_its_place)
{
    uint64_t here = checksum("data", 4, checksum_seed(12, 4096));
    ck_assert_uint_eq(here, checksum("data", 4, checksum_seed(12, 4096)));
    ck_assert_uint_ne(here, checksum("data", 4, checksum_seed(13, 4096)));
    ck_assert_uint_ne(here, checksum("data", 4, checksum_seed(12, 8192)));
    ck_assert_uint_ne(here, checksum("dbta", 4, checksum_seed(12, 4096)));
}
END_TEST

START_TEST(a_buffer_grows_and_keeps_its_bytes)
{
    struct buf b = {NULL, 0, 0};
    for (unsigned i = 0; i < 5000; i++) {
        unsigned char byte = (unsigned char)(i * 7);
        ck_assert_int_eq(buf_append(&b, &byte, 1), SHALE_OK);
    }
    ck_assert_uint_eq(b.size, 5000);
    for (unsigned i = 0; i < 5000; i++) {
        ck_assert_uint_eq(b.data[i], (unsigned char)(i * 7));
    }
    ck_assert_int_eq(buf_set(&b, "abc", 3), SHALE_OK);
    ck_assert_int_eq(buf_printf(&b, "-%d-%s", 42, "x"), SHALE_OK);
    ck_assert_uint_eq(b.size, 8);
    ck_assert_mem_eq(b.data, "abc-42-x", 8);
    ck_assert_int_eq(buf_append(&b, NULL, 0), SHALE_OK);
    ck_assert(slice_equal(buf_slice(&b), slice_make("abc-42-x", 8)));
    buf_release(&b);
    ck_assert_ptr_null(b.data);
    buf_release(&b);
}
END_TEST

START_TEST(a_buffer_that_cannot_grow_is_untouched)
{
    struct buf b = {NULL, 0, 0};
    ck_assert_int_eq(buf_set(&b, "abc", 3), SHALE_OK);
    struct buf before = b;
    ck_assert_int_eq(buf_reserve(&b, SIZE_MAX - 1), SHALE_NOMEM);
    ck_assert_str_ne(shale_errmsg(), "");
    ck_assert_mem_eq(&b, &before, sizeof b);
    buf_release(&b);
}
END_TEST

START_TEST(allocations_of_nothing_are_something)
{
    void *p = base_alloc(0), *q = base_calloc(0, 8), *r = base_realloc(NULL, 0);
    char *s = base_strdup("text");
    ck_assert(p != NULL && q != NULL && r != NULL);
    ck_assert_str_eq(s, "text");
    free(p), free(q), free(r), free(s);
}
END_TEST

/* ---- options ---- */

START_TEST(options_have_their_defaults)
{
    shale_options o;
    shale_options_init(&o);
    ck_assert_uint_eq(o.size, sizeof o);
    ck_assert(o.create && !o.error_if_exists && !o.readonly && o.verify_checksums);
    ck_assert_uint_eq(o.mode, 0600);
    ck_assert_int_eq(o.durable, SHALE_DURABLE_COMMIT);
    ck_assert_int_eq(o.wait, SHALE_WAIT_QUEUE);
    ck_assert_int_eq(o.timeout_ms, -1);
    ck_assert_int_eq(o.lock_fd, -1);
    ck_assert_uint_eq(o.memtable_bytes, 64u << 20);
    ck_assert_uint_eq(o.cache_bytes, 256u << 20);
    ck_assert_int_eq(o.compression, SHALE_COMPRESS_LZ4);
    ck_assert_uint_eq(o.l0_stop, 20);
    ck_assert(o.log == NULL && o.log_ctx == NULL);
    shale_options checked;
    ck_assert_int_eq(options_check(&o, &checked), SHALE_OK);
    ck_assert_mem_eq(&checked.durable, &o.durable, sizeof o - offsetof(shale_options, durable));
}
END_TEST

START_TEST(the_library_writes_no_more_than_the_callers_size)
{
    for (size_t size = 0; size <= sizeof(shale_options) + 16; size++) {
        unsigned char room[sizeof(shale_options) + 64] BASE_ALIGNED(16);
        memset(room, 0xa5, sizeof room);
        shale_options_init_sized((shale_options *)room, size);
        for (size_t i = size; i < sizeof room; i++) {
            ck_assert_uint_eq(room[i], 0xa5);
        }
        shale_options out;
        if (size >= sizeof(size_t)) {
            ck_assert_uint_eq(((shale_options *)room)->size, size);
            ck_assert_int_eq(options_check((shale_options *)room, &out), SHALE_OK);
            ck_assert_uint_eq(out.level_ratio, 10);
        }
    }
}
END_TEST

START_TEST(an_older_callers_options_are_completed_with_defaults)
{
    shale_options o, out;
    shale_options_init(&o);
    o.durable = SHALE_DURABLE_OFF;
    o.threads = 9;
    o.size = offsetof(shale_options, threads);
    ck_assert_int_eq(options_check(&o, &out), SHALE_OK);
    ck_assert_int_eq(out.durable, SHALE_DURABLE_OFF);
    ck_assert_uint_eq(out.threads, 1);
    ck_assert_uint_eq(out.size, sizeof out);
    ck_assert_int_eq(shale_options_set(&o, "threads", "3"), SHALE_INVALID);
    ck_assert_uint_eq(o.threads, 9);
}
END_TEST

START_TEST(a_newer_callers_unknown_wishes_are_refused)
{
    struct {
        shale_options known;
        uint64_t newer;
    } o;
    shale_options out;
    shale_options_init_sized(&o.known, sizeof o);
    ck_assert_int_eq(options_check(&o.known, &out), SHALE_OK);
    o.newer = 1;
    ck_assert_int_eq(options_check(&o.known, &out), SHALE_INVALID);
}
END_TEST

START_TEST(uninitialised_options_are_refused)
{
    shale_options o, out;
    memset(&o, 0, sizeof o);
    ck_assert_int_eq(options_check(&o, &out), SHALE_INVALID);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "shale_options_init"));
    ck_assert_int_eq(options_check(NULL, &out), SHALE_OK);
    ck_assert_uint_eq(out.block_bytes, 4096);
}
END_TEST

static const struct {
    const char *name, *value;
    int64_t want;
} good[] = {
    {"memtable_bytes", "65536", 65536},
    {"memtable_bytes", "64K", 65536},
    {"memtable_bytes", "64KiB", 65536},
    {"memtable_bytes", "1g", 1 << 30},
    {"cache_bytes", "0", 0},
    {"target_table_bytes", "4GiB", INT64_C(4) << 30},
    {"timeout_ms", "-1", -1},
    {"timeout_ms", "1500", 1500},
    {"timeout_ms", "2s", 2000},
    {"timeout_ms", "3min", 180000},
    {"sync_interval_ms", "10ms", 10},
    {"mode", "0640", 0640},
    {"mode", "600", 0600},
    {"durable", "off", SHALE_DURABLE_OFF},
    {"durable", "Interval", SHALE_DURABLE_INTERVAL},
    {"wait", "backoff", SHALE_WAIT_BACKOFF},
    {"compression", "none", SHALE_COMPRESS_NONE},
    {"readonly", "yes", 1},
    {"readonly", "on", 1},
    {"create", "false", 0},
    {"verify_checksums", "0", 0},
    {"lock_fd", "7", 7},
    {"threads", "0", 0},
    {"bloom_bits", "32", 32},
};

static int64_t value_of(const shale_options *o, const char *name)
{
#define X(field, kind, value, min, max, meaning)                                                             \
    if (strcmp(name, #field) == 0) {                                                                         \
        return (int64_t) _Generic(o->field, char * : 0, const char * : 0, default : o->field);               \
    }
    BASE_OPTIONS(X)
#undef X
    return INT64_MIN;
}

START_TEST(options_are_set_by_name)
{
    shale_options *o, checked;
    ck_assert_int_eq(shale_options_create(&o), SHALE_OK);
    ck_assert_int_eq(shale_options_set(o, good[_i].name, good[_i].value), SHALE_OK);
    ck_assert_int_eq(value_of(o, good[_i].name), good[_i].want);
    ck_assert_int_eq(options_check(o, &checked), SHALE_OK);
    shale_options_destroy(o);
    shale_options_destroy(NULL);
}
END_TEST

static const struct {
    const char *name, *value, *text;
} bad[] = {
    {"memtable_bytes", "63K", "64 KiB to 2 GiB"},
    {"memtable_bytes", "9223372036854775807G", "64 KiB to 2 GiB"},
    {"memtable_bytes", "99999999999999999999", "64 KiB to 2 GiB"},
    {"memtable_bytes", "-1", "64 KiB to 2 GiB"},
    {"memtable_bytes", "64 apples", "64 KiB to 2 GiB"},
    {"memtable_bytes", "", "64 KiB to 2 GiB"},
    {"threads", "65", "0 to 64"},
    {"threads", "1K", "0 to 64"},
    {"durable", "sometimes", "commit, interval, off"},
    {"durable", "16", "commit, interval, off"},
    {"wait", "", "queue, backoff, none"},
    {"readonly", "2", "0, 1, false, true"},
    {"mode", "0999", "0600 to 0777"},
    {"mode", "0444", "0600 to 0777"},
    {"mode", "0710000", "0600 to 0777"},
    {"memtable_byte", "64M", "did you mean memtable_bytes?"},
    {"Threads", "1", "did you mean threads?"},
    {"banana", "1", "allowed: create, error_if_exists"},
    {"log", "1", "no option \"log\""},
    {"size", "1", "no option \"size\""},
    {"a_name_that_is_much_longer_than_any_option_can_ever_be", "1", "allowed: create"},
};

START_TEST(control_characters_do_not_reach_a_terminal)
{
    char text[] = "a\033[2J\nb\x7f c\xc2\x9b"
                  "1m \xc3\xa4 \xc2\xa0 \xc2";
    text_tame(text);
    ck_assert_str_eq(text, "a?[2J?b? c??1m \xc3\xa4 \xc2\xa0 \xc2");
}
END_TEST

START_TEST(numbers_in_names_are_as_printf_has_them)
{
    static const uint64_t numbers[] = {0, 1, 9, 10, 12, 99999, 999999, 1000000, UINT32_MAX, UINT64_MAX};
    static const unsigned digits[] = {0, 1, 6, 8, 16, 20};
    for (size_t i = 0; i < BASE_COUNT(numbers) * BASE_COUNT(digits); i++) {
        unsigned long long v = numbers[i / BASE_COUNT(digits)];
        unsigned n = digits[i % BASE_COUNT(digits)];
        char text[32], want[32];
        memset(text, '?', sizeof text);
        char *end = digits_decimal(text, v, n);
        (void)snprintf(want, sizeof want, "%0*llu", (int)n, v);
        ck_assert_str_eq(text, want);
        ck_assert_ptr_eq(end, text + strlen(want));
        ck_assert_int_eq(end[1], '?');
        end = digits_hex(text, v, n);
        (void)snprintf(want, sizeof want, "%0*llx", (int)n, v);
        ck_assert_str_eq(text, want);
        ck_assert_ptr_eq(end, text + strlen(want));
    }
}
END_TEST

START_TEST(wrong_names_and_values_tell_what_is_allowed)
{
    shale_options o, before;
    memset(&o, 0, sizeof o);
    shale_options_init(&o);
    before = o;
    ck_assert_int_eq(shale_options_set(&o, bad[_i].name, bad[_i].value), SHALE_INVALID);
    ck_assert_msg(strstr(shale_errmsg(), bad[_i].text) != NULL, "%s", shale_errmsg());
    ck_assert_mem_eq(&o, &before, sizeof o);
}
END_TEST

START_TEST(null_arguments_are_refused)
{
    shale_options o;
    shale_options_init(&o);
    shale_options_init_sized(NULL, sizeof o);
    ck_assert_int_eq(shale_options_set(NULL, "mode", "0600"), SHALE_INVALID);
    ck_assert_int_eq(shale_options_set(&o, NULL, "0600"), SHALE_INVALID);
    ck_assert_int_eq(shale_options_set(&o, "mode", NULL), SHALE_INVALID);
    ck_assert_int_eq(shale_options_create(NULL), SHALE_INVALID);
}
END_TEST

/* Puts the value into the field, whatever it is, and expects that the check names the field. */
#define REFUSED(field, value)                                                                                \
    do {                                                                                                     \
        shale_options o_, out_;                                                                              \
        shale_options_init(&o_);                                                                             \
        memset(&out_, 0xee, sizeof out_);                                                                    \
        o_.field = value;                                                                                    \
        ck_assert_int_eq(options_check(&o_, &out_), SHALE_INVALID);                                          \
        ck_assert_msg(strstr(shale_errmsg(), #field) != NULL, "%s", shale_errmsg());                         \
        ck_assert_uint_eq(out_.size, (size_t)0xeeeeeeeeeeeeeeee);                                            \
    } while (0)

START_TEST(every_field_is_range_checked)
{
    REFUSED(mode, 0400);
    REFUSED(mode, 01600);
    REFUSED(durable, 0);
    REFUSED(durable, SHALE_DURABLE_OFF + 1);
    REFUSED(wait, SHALE_DURABLE_OFF);
    REFUSED(compression, -1);
    REFUSED(sync_interval_ms, 0);
    REFUSED(sync_interval_ms, 3600001);
    REFUSED(timeout_ms, -2);
    REFUSED(timeout_ms, INT64_MAX);
    REFUSED(lock_fd, -2);
    REFUSED(threads, 65);
    REFUSED(threads, UINT32_MAX);
    REFUSED(memtable_bytes, 65535);
    REFUSED(memtable_bytes, SIZE_MAX);
    REFUSED(max_sealed, 0);
    REFUSED(block_bytes, 255);
    REFUSED(bloom_bits, 33);
    REFUSED(cache_bytes, ((size_t)1 << 46) + 1);
    REFUSED(target_table_bytes, 0);
    REFUSED(level_ratio, 1);
    REFUSED(l0_compact, 0);
    REFUSED(l0_stop, 1001);
    REFUSED(l0_stop, 4); /* not more than l0_compact */
}
END_TEST

START_TEST(a_bool_that_is_neither_is_refused)
{
    shale_options o, out;
    shale_options_init(&o);
    unsigned char garbage = 7;
    memcpy((char *)&o + offsetof(shale_options, readonly), &garbage, 1);
    ck_assert_int_eq(options_check(&o, &out), SHALE_INVALID);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "readonly"));
}
END_TEST

static int try_default(void *ctx, const struct option_text *text)
{
    shale_options o, fresh;
    int *count = ctx;
    (*count)++;
    shale_options_init(&o);
    shale_options_init(&fresh);
    char value[32], *out = value;
    for (const char *p = text->value; *p != '\0'; p++) { /* "64 MiB" is printed for people */
        if (*p != ' ') {
            *out++ = *p;
        }
    }
    *out = '\0';
    ck_assert_int_eq(shale_options_set(&o, text->name, value), SHALE_OK);
    ck_assert_int_eq(value_of(&o, text->name), value_of(&fresh, text->name));
    ck_assert_str_ne(text->meaning, "");
    ck_assert_str_ne(text->allowed, "");
    return *count == 1000;
}

static int stop_at_once(void *ctx, const struct option_text *text)
{
    (void)ctx;
    return text->name[0] == 'c' ? 42 : 0;
}

START_TEST(the_printed_defaults_can_be_set)
{
    int count = 0;
    ck_assert_int_eq(options_each(try_default, &count), 0);
    ck_assert_int_eq(count, 22);
    ck_assert_int_eq(options_each(stop_at_once, NULL), 42);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *errors = tcase_create("errors"), *bytes = tcase_create("bytes"),
          *options = tcase_create("options");
    tcase_set_timeout(errors, 60);
    tcase_set_timeout(bytes, 60);
    tcase_set_timeout(options, 60);
    suite_add_tcase(suite, errors);
    suite_add_tcase(suite, bytes);
    suite_add_tcase(suite, options);
    tcase_add_test(errors, every_status_has_a_name_a_text_and_an_exit_status);
    tcase_add_test(errors, an_unknown_status_is_named_as_such);
    tcase_add_test(errors, the_version_is_the_headers);
    tcase_add_test(errors, errors_gain_context_in_front);
    tcase_add_test(errors, an_error_may_quote_the_one_before);
    tcase_add_test(errors, long_errors_are_cut_at_the_end);
    tcase_add_test(errors, system_errors_become_statuses);
    tcase_add_test(errors, the_text_is_the_threads_own);
    tcase_add_test(bytes, varints_round_trip);
    tcase_add_test(bytes, varints_of_more_than_64_bits_are_refused);
    tcase_add_test(bytes, varints_of_arbitrary_bytes_stay_inside);
    tcase_add_test(bytes, slices_order_as_unsigned_bytes);
    tcase_add_test(bytes, a_checksum_names_its_place);
    tcase_add_test(bytes, a_buffer_grows_and_keeps_its_bytes);
    tcase_add_test(bytes, a_buffer_that_cannot_grow_is_untouched);
    tcase_add_test(bytes, control_characters_do_not_reach_a_terminal);
    tcase_add_test(bytes, numbers_in_names_are_as_printf_has_them);
    tcase_add_test(bytes, allocations_of_nothing_are_something);
    tcase_add_test(options, options_have_their_defaults);
    tcase_add_test(options, the_library_writes_no_more_than_the_callers_size);
    tcase_add_test(options, an_older_callers_options_are_completed_with_defaults);
    tcase_add_test(options, a_newer_callers_unknown_wishes_are_refused);
    tcase_add_test(options, uninitialised_options_are_refused);
    tcase_add_loop_test(options, options_are_set_by_name, 0, (int)BASE_COUNT(good));
    tcase_add_loop_test(options, wrong_names_and_values_tell_what_is_allowed, 0, (int)BASE_COUNT(bad));
    tcase_add_test(options, null_arguments_are_refused);
    tcase_add_test(options, every_field_is_range_checked);
    tcase_add_test(options, a_bool_that_is_neither_is_refused);
    tcase_add_test(options, the_printed_defaults_can_be_set);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
