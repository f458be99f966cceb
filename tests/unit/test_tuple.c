/* test_tuple.c - typed keys: the published examples of the encoding, each function of the interface, damaged
 * bytes. */
#include "base/base.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

static shale_tuple *t;

static void setup(void)
{
    ck_assert_int_eq(shale_tuple_create(&t), SHALE_OK);
}

static void teardown(void)
{
    shale_tuple_destroy(t);
}

/* "1c7f ff" to bytes. */
static size_t unhex(const char *hex, unsigned char *to)
{
    size_t n = 0;
    for (unsigned v; *hex != '\0'; hex += 2) {
        hex += strspn(hex, " ");
        ck_assert_int_eq(sscanf(hex, "%2x", &v), 1);
        to[n++] = (unsigned char)v;
    }
    return n;
}

static const char *hex_of(const void *data, size_t len)
{
    static char hex[4096];
    ck_assert_uint_lt(len, sizeof hex / 2);
    hex[0] = '\0';
    for (size_t i = 0; i < len; i++) {
        (void)sprintf(hex + 2 * i, "%02x", ((const unsigned char *)data)[i]);
    }
    return hex;
}

static const char *packed(void)
{
    size_t len;
    const void *data = shale_tuple_data(t, &len);
    ck_assert_ptr_nonnull(data);
    return hex_of(data, len);
}

/* The call succeeds and appends these bytes, to an empty tuple. */
#define assert_packs(call, hex)                                                                              \
    do {                                                                                                     \
        shale_tuple_clear(t);                                                                                \
        ck_assert_msg((call) == SHALE_OK, "%s: %s", #call, shale_errmsg());                                  \
        ck_assert_str_eq(packed(), (hex));                                                                   \
    } while (0)
#define assert_refused(call, told)                                                                           \
    do {                                                                                                     \
        size_t before_ = strlen(packed());                                                                   \
        ck_assert_int_eq((call), SHALE_INVALID);                                                             \
        ck_assert_msg(strstr(shale_errmsg(), (told)) != NULL, "%s: %s", #call, shale_errmsg());              \
        ck_assert_uint_eq(strlen(packed()), before_);                                                        \
    } while (0)

/* ---- the published examples ---- */

/* Of FoundationDB's specification of the tuple layer, and of its Java binding's serialisation tests. */
static const struct {
    const char *text, *hex;
} published[] = {
    {"(b\"foo\\x00bar\")", "01666f6f00ff62617200"},
    {"(\"F\303\224O\\u0000bar\")", "0246c3944f00ff62617200"},
    {"((b\"foo\\x00bar\", null, ()))", "0501666f6f00ff6261720000ff050000"},
    {"(())", "0500"},
    {"(-5551212)", "11ab4b93"},
    {"(-42f)", "203dd7ffff"},
    {"()", ""},
    {"(null)", "00"},
    {"(0)", "14"},
    {"(1)", "1501"},
    {"(-1)", "13fe"},
    {"(255)", "15ff"},
    {"(-255)", "1300"},
    {"(256)", "160100"},
    {"(-256)", "12feff"},
    {"(65536)", "17010000"},
    {"(-65536)", "11feffff"},
    {"(9223372036854775807)", "1c7fffffffffffffff"},
    {"(9223372036854775808)", "1c8000000000000000"},
    {"(18446744073709551615)", "1cffffffffffffffff"},
    {"(18446744073709551616)", "1d09010000000000000000"},
    {"(-4294967295)", "1000000000"},
    {"(-9223372036854775806)", "0c8000000000000001"},
    {"(-9223372036854775807)", "0c8000000000000000"},
    {"(-9223372036854775808)", "0c7fffffffffffffff"},
    {"(-9223372036854775809)", "0c7ffffffffffffffe"},
    {"(-18446744073709551615)", "0c0000000000000000"},
    {"(-18446744073709551616)", "0bf6feffffffffffffffff"},
    {"(3.14f)", "20c048f5c3"},
    {"(-3.14f)", "203fb70a3c"},
    {"(3.14d)", "21c0091eb851eb851f"},
    {"(-3.14d)", "213ff6e147ae147ae0"},
    {"(0f)", "2080000000"},
    {"(-0f)", "207fffffff"},
    {"(0d)", "218000000000000000"},
    {"(-0d)", "217fffffffffffffff"},
    {"(inff)", "20ff800000"},
    {"(-inff)", "20007fffff"},
    {"(infd)", "21fff0000000000000"},
    {"(-infd)", "21000fffffffffffff"},
    {"(nan:7fffffff)", "20ffffffff"},
    {"(nan:7fffffffffffffff)", "21ffffffffffffffff"},
    {"(nan:ffffffff)", "2000000000"},
    {"(nan:ffffffffffffffff)", "210000000000000000"},
    {"(b\"\")", "0100"},
    {"(b\"\\x01\\x02\\x03\")", "0101020300"},
    {"(b\"\\x00\\x00\\x00\\x04\")", "0100ff00ff00ff0400"},
    {"(\"\")", "0200"},
    {"(\"hello\")", "0268656c6c6f00"},
    {"(\"\344\270\255\346\226\207\")", "02e4b8ade6968700"},
    {"(\"\360\237\224\245\")", "02f09f94a500"},
    {"(\"\364\217\277\277\")", "02f48fbfbf00"},
    {"((null))", "0500ff00"},
    {"((null, \"hello\"))", "0500ff0268656c6c6f0000"},
    {"((null, \"hell\\u0000\"))", "0500ff0268656c6c00ff0000"},
    {"((null), \"hello\")", "0500ff000268656c6c6f00"},
    {"((null), \"hello\", b\"\\x01\\x00\", b\"\")", "0500ff000268656c6c6f00010100ff000100"},
    {"(uuid\"ffffffff-ba5e-ba11-0000-00005ca1ab1e\")", "30ffffffffba5eba11000000005ca1ab1e"},
    {"(false)", "26"},
    {"(true)", "27"},
    {"(versionstamp\"aabbccddeeff000102030000\")", "33aabbccddeeff000102030000"},
    {"(versionstamp\"0102030405060708090a0291\")", "330102030405060708090a0291"},
};

START_TEST(published_examples_are_packed_and_read)
{
    unsigned char bytes[64];
    char text[256];
    size_t need, n = unhex(published[_i].hex, bytes);
    ck_assert_int_eq(shale_tuple_parse(published[_i].text, t, NULL), SHALE_OK);
    ck_assert_str_eq(packed(), published[_i].hex);
    ck_assert_int_eq(shale_tuple_format(bytes, n, text, sizeof text, &need), SHALE_OK);
    ck_assert_str_eq(text, published[_i].text);
    ck_assert_uint_eq(need, strlen(text));
}
END_TEST

/* Each was refused by the published binding's tests of malformed bytes. */
static const char *const malformed[] = {
    "01deadc0de",
    "01dead00ffc0de",
    "0268656c6c6f",
    "0268656c00ff6c6f",
    "0275746608 8000",
    "0275746608c00100",
    "0275746610eda0bd00",
    "0275746610edb4a500",
    "0275746610eda0bdedb4a500",
    "050268656c6c6f00",
    "050268656c6c6f0000ff02746865726500",
    "1601",
    "1201",
    "1d090102030405060708",
    "0bf60102030405060708",
    "20010203",
    "2101020304050607",
    "300102030405060708090a0b0c0d0e",
    "330102030405060708090a0b",
    "ff",
    /* and of our own: codes that are no types, more bytes than an integer needs, an end of what is not open
     */
    "03",
    "04",
    "0a",
    "1e",
    "1f",
    "22",
    "25",
    "28",
    "32",
    "34",
    "40",
    "fe",
    "00ff",
    "1500",
    "13ff",
    "160001",
    "12ffff",
    "1c00ffffffffffffff",
    "1d",
    "0b",
    "1d00",
    "0bff",
    "1d0101",
    "1d0801ffffffffffffff",
    "1d0900ffffffffffffffff",
    "0bf6ff0000000000000000",
    "05",
    "0505",
    "050500",
    "0500ff",
    "01",
    "02",
    "0100ff",
    "02c08000",
    "02f490808000",
    "02e2820000",
    "14141414ff",
};

START_TEST(malformed_bytes_are_refused_and_named)
{
    unsigned char bytes[64];
    char text[256] = "as before";
    size_t need = 7, n = unhex(malformed[_i], bytes);
    shale_tuple_reader *r;
    ck_assert_int_eq(shale_tuple_format(bytes, n, text, sizeof text, &need), SHALE_CORRUPT);
    ck_assert_str_eq(text, "as before");
    ck_assert_uint_eq(need, 0);
    ck_assert_msg(strstr(shale_errmsg(), ": byte ") != NULL, "%s", shale_errmsg());
    ck_assert_int_eq(shale_tuple_reader_create(bytes, n, &r), SHALE_OK);
    shale_element e = {.size = sizeof e};
    int rc;
    while ((rc = shale_tuple_read(r, &e)) == SHALE_OK) {
    }
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    char told[512];
    (void)snprintf(told, sizeof told, "%s", shale_errmsg());
    ck_assert_int_eq(shale_tuple_read(r, &e), SHALE_CORRUPT); /* nothing moved, nothing was changed */
    ck_assert_str_eq(shale_errmsg(), told);
    shale_tuple_reader_destroy(r);
}
END_TEST

/* FoundationDB's Python binding writes just these two so. */
START_TEST(the_two_long_forms_that_are_about_are_read)
{
    unsigned char bytes[16];
    char text[64];
    size_t n = unhex("1d08ffffffffffffffff", bytes);
    ck_assert_int_eq(shale_tuple_format(bytes, n, text, sizeof text, NULL), SHALE_OK);
    ck_assert_str_eq(text, "(18446744073709551615)");
    n = unhex("0bf70000000000000000", bytes);
    ck_assert_int_eq(shale_tuple_format(bytes, n, text, sizeof text, NULL), SHALE_OK);
    ck_assert_str_eq(text, "(-18446744073709551615)");
}
END_TEST

/* ---- packing ---- */

START_TEST(every_function_packs_its_type)
{
    static const uint8_t sixteen[16] = {0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    assert_packs(shale_tuple_null(t), "00");
    assert_packs(shale_tuple_bytes(t, "a\0b", 3), "016100ff6200");
    assert_packs(shale_tuple_bytes(t, "", 0), "0100");
    assert_packs(shale_tuple_bytes(t, NULL, 0), "0100");
    assert_packs(shale_tuple_bytes(t, "\0\377\0", 3), "0100ffff00ff00");
    assert_packs(shale_tuple_string(t, "\303\251\0", 3), "02c3a900ff00");
    assert_packs(shale_tuple_int(t, INT64_MIN), "0c7fffffffffffffff");
    assert_packs(shale_tuple_int(t, -1), "13fe");
    assert_packs(shale_tuple_int(t, 0), "14");
    assert_packs(shale_tuple_int(t, INT64_MAX), "1c7fffffffffffffff");
    assert_packs(shale_tuple_uint(t, UINT64_MAX), "1cffffffffffffffff");
    assert_packs(shale_tuple_uint(t, 256), "160100");
    assert_packs(shale_tuple_float(t, -42.0f), "203dd7ffff");
    assert_packs(shale_tuple_double(t, 3.14), "21c0091eb851eb851f");
    assert_packs(shale_tuple_bool(t, false), "26");
    assert_packs(shale_tuple_bool(t, true), "27");
    assert_packs(shale_tuple_uuid(t, sixteen), "30ff0102030405060708090a0b0c0d0e0f");
    assert_packs(shale_tuple_versionstamp(t, sixteen), "33ff0102030405060708090a0b");
}
END_TEST

START_TEST(a_big_integer_is_packed_like_a_small_one)
{
    unsigned char most[256];
    assert_packs(shale_tuple_bigint(t, false, NULL, 0), "14");
    assert_packs(shale_tuple_bigint(t, true, "\0\0", 2), "14");
    assert_packs(shale_tuple_bigint(t, false, "\0\0\052", 3), "152a");
    assert_packs(shale_tuple_bigint(t, true, "\0\001\0", 3), "12feff");
    assert_packs(shale_tuple_bigint(t, false, "\377\377\377\377\377\377\377\377", 8), "1cffffffffffffffff");
    assert_packs(shale_tuple_bigint(t, true, "\377\377\377\377\377\377\377\377", 8), "0c0000000000000000");
    assert_packs(shale_tuple_bigint(t, false, "\001\0\0\0\0\0\0\0\0", 9), "1d09010000000000000000");
    assert_packs(shale_tuple_bigint(t, true, "\001\0\0\0\0\0\0\0\0", 9), "0bf6feffffffffffffffff");
    memset(most, 0xff, sizeof most);
    shale_tuple_clear(t);
    ck_assert_int_eq(shale_tuple_bigint(t, true, most, 255), SHALE_OK);
    ck_assert_int_eq(strncmp(packed(), "0b000000", 8), 0);
    ck_assert_uint_eq(strlen(packed()), 2 * 257);
    assert_refused(shale_tuple_bigint(t, false, most, 256), "255");
    most[0] = 0;
    ck_assert_int_eq(shale_tuple_bigint(t, false, most, 256), SHALE_OK);
}
END_TEST

START_TEST(elements_stand_in_a_row)
{
    ck_assert_int_eq(shale_tuple_string(t, "user", 4), SHALE_OK);
    ck_assert_int_eq(shale_tuple_begin(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_null(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_begin(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_end(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_end(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_null(t), SHALE_OK);
    ck_assert_str_eq(packed(), "027573657200"
                               "05"
                               "00ff"
                               "0500"
                               "00"
                               "00");
    shale_tuple_clear(t);
    ck_assert_str_eq(packed(), "");
}
END_TEST

START_TEST(an_open_nested_tuple_is_no_key)
{
    size_t len = 9, lo = 0, hi = 0;
    assert_refused(shale_tuple_end(t), "shale_tuple_begin");
    ck_assert_int_eq(shale_tuple_begin(t), SHALE_OK);
    ck_assert_ptr_null(shale_tuple_data(t, &len));
    ck_assert_uint_eq(len, 0);
    ck_assert_msg(strstr(shale_errmsg(), "shale_tuple_end") != NULL, "%s", shale_errmsg());
    ck_assert_int_eq(shale_tuple_range(t, NULL, &lo, NULL, &hi), SHALE_INVALID);
    shale_tuple_clear(t);
    ck_assert_ptr_nonnull(shale_tuple_data(t, &len));
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
    size_t len = 0;
    shale_tuple_reader *r = NULL;
    shale_element e = {.size = 0};
    char text[8];
    assert_refused(shale_tuple_string(t, "\300\200", 2), "UTF-8");
    assert_refused(shale_tuple_string(t, "\355\240\200", 3), "UTF-8");
    assert_refused(shale_tuple_string(t, "\303", 1), "UTF-8");
    assert_refused(shale_tuple_string(t, NULL, 1), "no data");
    assert_refused(shale_tuple_bytes(t, NULL, 1), "no data");
    assert_refused(shale_tuple_bigint(t, false, NULL, 1), "no data");
    assert_refused(shale_tuple_uuid(t, NULL), "no data");
    assert_refused(shale_tuple_versionstamp(t, NULL), "no data");
    assert_refused(shale_tuple_create(NULL), "no place");
    assert_refused(shale_tuple_int(NULL, 1), "NULL");
    assert_refused(shale_tuple_null(NULL), "NULL");
    assert_refused(shale_tuple_begin(NULL), "NULL");
    assert_refused(shale_tuple_end(NULL), "NULL");
    assert_refused(shale_tuple_range(t, NULL, NULL, NULL, &len), "capacities");
    assert_refused(shale_tuple_reader_create(NULL, 1, &r), "no data");
    assert_refused(shale_tuple_reader_create("", 0, NULL), "no place");
    assert_refused(shale_tuple_parse(NULL, t, NULL), "NULL");
    assert_refused(shale_tuple_parse("()", NULL, NULL), "NULL");
    assert_refused(shale_tuple_format(NULL, 1, text, sizeof text, NULL), "no bytes");
    assert_refused(shale_tuple_format("", 0, NULL, 1, NULL), "no place");
    ck_assert_int_eq(shale_tuple_reader_create("\024", 1, &r), SHALE_OK);
    assert_refused(shale_tuple_read(r, &e), "size");
    assert_refused(shale_tuple_read(NULL, &e), "size");
    ck_assert_ptr_null(shale_tuple_data(NULL, &len));
    shale_tuple_reader_destroy(r);
    shale_tuple_reader_destroy(NULL);
    shale_tuple_destroy(NULL);
    shale_tuple_clear(NULL);
}
END_TEST

/* ---- ranges ---- */

/* Is the text's tuple in the range of t? */
static bool in_range(const char *text)
{
    unsigned char lo[64], hi[64];
    size_t lolen = sizeof lo, hilen = sizeof hi, len;
    shale_tuple *u;
    ck_assert_int_eq(shale_tuple_range(t, lo, &lolen, hi, &hilen), SHALE_OK);
    ck_assert_int_eq(shale_tuple_create(&u), SHALE_OK);
    ck_assert_int_eq(shale_tuple_parse(text, u, NULL), SHALE_OK);
    struct slice key = slice_make(shale_tuple_data(u, &len), 0);
    key.size = len;
    bool in = slice_compare(key, slice_make(lo, lolen)) >= 0 && slice_compare(key, slice_make(hi, hilen)) < 0;
    shale_tuple_destroy(u);
    return in;
}

START_TEST(a_range_holds_all_that_extend_the_tuple_and_nothing_else)
{
    ck_assert_int_eq(shale_tuple_parse("(\"a\")", t, NULL), SHALE_OK);
    static const char *const inside[] = {
        "(\"a\", null)", "(\"a\", b\"\")", "(\"a\", -99999999999999999999999)",
        "(\"a\", versionstamp\"ffffffffffffffffffffffff\")", "(\"a\", (1), 2, 3)"};
    static const char *const outside[] = {
        "()",          "(\"a\")",     "(\"\")",  "(\"a\\u0000\")", "(\"a\\u0000\", 1)",
        "(\"ab\", 1)", "(b\"a\", 1)", "(\"b\")", "((\"a\"), 1)"};
    for (size_t i = 0; i < BASE_COUNT(inside); i++) {
        ck_assert_msg(in_range(inside[i]), "%s", inside[i]);
    }
    for (size_t i = 0; i < BASE_COUNT(outside); i++) {
        ck_assert_msg(!in_range(outside[i]), "%s", outside[i]);
    }
}
END_TEST

START_TEST(a_range_tells_the_room_that_it_needs)
{
    unsigned char lo[8] = "before", hi[8] = "before";
    size_t lolen = 0, hilen = 0;
    ck_assert_int_eq(shale_tuple_int(t, 7), SHALE_OK);
    ck_assert_int_eq(shale_tuple_range(t, NULL, &lolen, NULL, &hilen), SHALE_TOOBIG);
    ck_assert_uint_eq(lolen, 3);
    ck_assert_uint_eq(hilen, 3);
    hilen = 2;
    ck_assert_int_eq(shale_tuple_range(t, lo, &lolen, hi, &hilen), SHALE_TOOBIG);
    ck_assert_str_eq((char *)lo, "before");
    ck_assert_str_eq((char *)hi, "before");
    ck_assert_int_eq(shale_tuple_range(t, lo, &lolen, hi, &hilen), SHALE_OK);
    ck_assert_str_eq(hex_of(lo, lolen), "150700");
    ck_assert_str_eq(hex_of(hi, hilen), "1507ff");
}
END_TEST

/* ---- reading ---- */

START_TEST(an_older_callers_element_is_not_written_beyond)
{
    unsigned char room[sizeof(shale_element) + 8];
    shale_tuple_reader *r;
    size_t small = offsetof(shale_element, as) + sizeof(int64_t);
    memset(room, 0x5a, sizeof room);
    memcpy(room, &small, sizeof small);
    ck_assert_int_eq(shale_tuple_reader_create("\025\052", 2, &r), SHALE_OK);
    shale_element e;
    ck_assert_int_eq(shale_tuple_read(r, (shale_element *)(void *)room), SHALE_OK);
    memcpy(&e, room, sizeof e);
    ck_assert_uint_eq(e.size, small);
    ck_assert_int_eq(e.type, SHALE_TYPE_INT);
    ck_assert_int_eq(e.as.i, 42);
    for (size_t i = small; i < sizeof room; i++) {
        ck_assert_uint_eq(room[i], 0x5a);
    }
    ck_assert_int_eq(shale_tuple_read(r, (shale_element *)(void *)room), SHALE_NOTFOUND);
    shale_tuple_reader_destroy(r);
}
END_TEST

START_TEST(what_elements_point_to_stays_until_the_reader_goes)
{
    char text[] = "(b\"a\\x00b\", \"c\\u0000\", (null, (null)), -340282366920938463463374607431768211456)";
    size_t len;
    shale_tuple_reader *r;
    shale_element e[4];
    ck_assert_int_eq(shale_tuple_parse(text, t, NULL), SHALE_OK);
    const void *data = shale_tuple_data(t, &len);
    ck_assert_int_eq(shale_tuple_reader_create(data, len, &r), SHALE_OK);
    shale_tuple_clear(t);
    for (int i = 0; i < 4; i++) {
        e[i].size = sizeof e[i];
        ck_assert_int_eq(shale_tuple_read(r, &e[i]), SHALE_OK);
    }
    ck_assert_int_eq(shale_tuple_read(r, &e[0]), SHALE_NOTFOUND);
    ck_assert_str_eq(hex_of(e[0].data, e[0].len), "610062");
    ck_assert_str_eq(hex_of(e[1].data, e[1].len), "6300");
    ck_assert_str_eq(hex_of(e[2].data, e[2].len), "00"
                                                  "0500ff00"); /* a tuple by itself: (null, (null)) */
    ck_assert(e[3].negative);
    ck_assert_str_eq(hex_of(e[3].data, e[3].len), "0100000000000000000000000000000000");
    shale_tuple_reader_destroy(r);
}
END_TEST

START_TEST(nesting_costs_no_stack)
{
    size_t depth = 200000, need, error_at;
    char *text = malloc(2 * depth + 3);
    ck_assert_ptr_nonnull(text);
    memset(text, 0, 2 * depth + 3);
    memset(text, '(', depth + 1);
    ck_assert_int_eq(shale_tuple_parse(text, t, &error_at), SHALE_INVALID);
    ck_assert_uint_eq(error_at, depth + 1);
    memset(text + depth + 1, ')', depth + 1);
    text[2 * depth + 2] = '\0';
    ck_assert_int_eq(shale_tuple_parse(text, t, NULL), SHALE_OK);
    size_t len;
    const void *data = shale_tuple_data(t, &len);
    ck_assert_uint_eq(len, 2 * depth);
    ck_assert_int_eq(shale_tuple_format(data, len, NULL, 0, &need), SHALE_TOOBIG);
    ck_assert_uint_eq(need, 2 * depth + 2);
    shale_tuple_reader *r;
    shale_element e = {.size = sizeof e};
    ck_assert_int_eq(shale_tuple_reader_create(data, len, &r), SHALE_OK);
    ck_assert_int_eq(shale_tuple_read(r, &e), SHALE_OK);
    ck_assert_int_eq(e.type, SHALE_TYPE_NESTED);
    ck_assert_uint_eq(e.len, len - 2);
    ck_assert_int_eq(shale_tuple_read(r, &e), SHALE_NOTFOUND);
    shale_tuple_reader_destroy(r);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tuple");
    TCase *bytes = tcase_create("bytes"), *calls = tcase_create("calls");
    tcase_set_timeout(bytes, 60);
    tcase_set_timeout(calls, 60);
    suite_add_tcase(suite, bytes);
    suite_add_tcase(suite, calls);
    tcase_add_checked_fixture(bytes, setup, teardown);
    tcase_add_checked_fixture(calls, setup, teardown);
    tcase_add_loop_test(bytes, published_examples_are_packed_and_read, 0, (int)BASE_COUNT(published));
    tcase_add_loop_test(bytes, malformed_bytes_are_refused_and_named, 0, (int)BASE_COUNT(malformed));
    tcase_add_test(bytes, the_two_long_forms_that_are_about_are_read);
    tcase_add_test(bytes, every_function_packs_its_type);
    tcase_add_test(bytes, a_big_integer_is_packed_like_a_small_one);
    tcase_add_test(calls, elements_stand_in_a_row);
    tcase_add_test(calls, an_open_nested_tuple_is_no_key);
    tcase_add_test(calls, arguments_that_make_no_sense_are_refused);
    tcase_add_test(calls, a_range_holds_all_that_extend_the_tuple_and_nothing_else);
    tcase_add_test(calls, a_range_tells_the_room_that_it_needs);
    tcase_add_test(calls, an_older_callers_element_is_not_written_beyond);
    tcase_add_test(calls, what_elements_point_to_stays_until_the_reader_goes);
    tcase_add_test(calls, nesting_costs_no_stack);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
