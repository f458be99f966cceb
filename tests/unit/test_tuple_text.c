/* test_tuple_text.c - the text form of typed keys: what may be written, what is printed, and what an error
 * says. */
#include "base/base.h"

#include <check.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static shale_tuple *t;

static void setup(void)
{
    ck_assert_int_eq(shale_tuple_create(&t), SHALE_OK);
}

static void teardown(void)
{
    shale_tuple_destroy(t);
}

static const char *print(void)
{
    static char text[4096];
    size_t len;
    const void *data = shale_tuple_data(t, &len);
    ck_assert_ptr_nonnull(data);
    ck_assert_msg(shale_tuple_format(data, len, text, sizeof text, NULL) == SHALE_OK, "%s", shale_errmsg());
    return text;
}

/* ---- what may be written, and how it is printed ---- */

static const struct {
    const char *written, *printed;
} forms[] = {
    {"(\"user\", 42, true, null, b\"\\x00ff\", 1.5d)", "(\"user\", 42, true, null, b\"\\x00ff\", 1.5d)"},
    {" \t\n( 1 ,2,\r\n3 , ) ", "(1, 2, 3)"},
    {"()", "()"},
    {"((),(()),)", "((), (()))"},
    {"(null,(null,(null)))", "(null, (null, (null)))"},
    {"(-0)", "(0)"},
    {"(1.5)", "(1.5d)"},
    {"(-0.0)", "(-0d)"},
    {"(1e3, 1E+3, 1e-3, 25e-1f)", "(1000d, 1000d, 0.001d, 2.5f)"},
    {"(1d, 1f, 10.0)", "(1d, 1f, 10d)"},
    {"(0.1f, 0.1d)", "(0.1f, 0.1d)"},
    {"(16777217f, 1e6f, 1e5f)", "(16777216f, 1e+06f, 100000f)"},
    {"(123456789012345.0, 1e14, 1e15)", "(123456789012345d, 100000000000000d, 1e+15d)"},
    {"(5e-324, 1.7976931348623157e308)", "(5e-324d, 1.7976931348623157e+308d)"},
    {"(1e-999)", "(0d)"},
    {"(inf, -inf, inff, -inff)", "(infd, -infd, inff, -inff)"},
    {"(nan, -nan, nanf, -nanf)", "(nand, -nand, nanf, -nanf)"},
    {"(nan:7fc00000, nan:FFF8000000000000)", "(nanf, -nand)"},
    {"(nan:7f800001, nan:fff0000000000001)", "(nan:7f800001, nan:fff0000000000001)"},
    {"(\"\\b\\f\\n\\r\\t\\/\\\\\\\"\")", "(\"\\u0008\\u000c\\n\\r\\t/\\\\\\\"\")"},
    {"(\"\\u00e9\\u20AC\\ud83d\\ude00\")", "(\"\303\251\342\202\254\360\237\230\200\")"},
    {"(\"\033\177\302\200\302\237\302\240\")", "(\"\\u001b\\u007f\\u0080\\u009f\302\240\")"},
    {"(\"a\nb\")", "(\"a\\nb\")"},
    {"(b\"\\n\\r\\t\\\"\\\\\\xFF~\\x7f\")", "(b\"\\x0a\\x0d\\x09\\\"\\\\\\xff~\\x7f\")"},
    {"(b\"\\x00\\xff\\x00\")", "(b\"\\x00\\xff\\x00\")"},
    {"(uuid\"01234567-89AB-cdef-0123-456789abcdef\")", "(uuid\"01234567-89ab-cdef-0123-456789abcdef\")"},
    {"(340282366920938463463374607431768211456)", "(340282366920938463463374607431768211456)"},
    {"(-1000000000000000000000000000000000000)", "(-1000000000000000000000000000000000000)"},
};

START_TEST(what_is_written_is_printed_in_one_form)
{
    ck_assert_msg(shale_tuple_parse(forms[_i].written, t, NULL) == SHALE_OK, "%s: %s", forms[_i].written,
                  shale_errmsg());
    ck_assert_str_eq(print(), forms[_i].printed);
    ck_assert_int_eq(shale_tuple_parse(forms[_i].printed, t, NULL), SHALE_OK);
    ck_assert_str_eq(print(), forms[_i].printed);
}
END_TEST

/* ---- errors ---- */

static const struct {
    const char *written;
    size_t at;
    const char *told;
} errors[] = {
    {"", 0, "begins with ("},
    {"user", 0, "begins with ("},
    {"  \"user\"", 2, "begins with ("},
    {"(", 1, "a ) is missing"},
    {"(1", 2, "a ) is missing"},
    {"((1)", 4, "a ) is missing"},
    {"(1))", 3, "nothing may follow"},
    {"(1) x", 4, "nothing may follow"},
    {"(,)", 1, "an element is expected"},
    {"(1,,2)", 3, "an element is expected"},
    {"(1 2)", 3, "a comma or )"},
    {"(\"a\"\"b\")", 4, "a comma or )"},
    {"(user)", 1, "\"text\""},
    {"(True)", 1, "an element is expected"},
    {"(\"a)", 1, "never closed"},
    {"(b\"a)", 2, "never closed"},
    {"(\"a\\", 3, "\\uXXXX"},
    {"(\"a\\x41\")", 3, "b\"\\xHH\""},
    {"(\"\\u12g4\")", 2, "four hexadecimal digits"},
    {"(\"\\ud83d\")", 2, "surrogate"},
    {"(\"\\ude00\\ud83d\")", 2, "surrogate"},
    {"(\"\\ud83d\\u0041\")", 2, "surrogate"},
    {"(\"ab\377\")", 1, "b\"\\xHH\""},
    {"(b\"\\u0041\")", 3, "\\xHH"},
    {"(b\"\\x4\")", 3, "\\xHH"},
    {"(b\"\\b\")", 3, "\\xHH"},
    {"(b\"\303\251\")", 3, "\\xHH"},
    {"(007)", 1, "does not begin with 0"},
    {"(-01.5)", 1, "does not begin with 0"},
    {"(0x10)", 2, "belong to a number"},
    {"(1.)", 2, "belong to a number"},
    {"(1e)", 2, "belong to a number"},
    {"(1.5x)", 4, "belong to a number"},
    {"(12ab)", 3, "belong to a number"},
    {"(-)", 1, "a number is written"},
    {"(1e999)", 1, "infd"},
    {"(-1e39f)", 1, "inff"},
    {"(nan:12)", 1, "8 hexadecimal digits"},
    {"(nan:7f800000)", 1, "not the bits of a NaN"},
    {"(nan:3ff0000000000000)", 1, "not the bits of a NaN"},
    {"(uuid\"0123456789abcdef0123456789abcdef\")", 14, "8-4-4-4-12|uuid\"01234567-"},
    {"(uuid\"01234567-89ab-cdef-0123-456789abcdeg\")", 40, "32 hexadecimal digits"},
    {"(uuid\"01234567-89ab-cdef-0123-456789abcdef0\")", 42, "closes it here"},
    {"(versionstamp\"00\")", 16, "24 hexadecimal digits"},
};

START_TEST(errors_name_the_place_and_what_to_write)
{
    size_t at = SIZE_MAX;
    char place[32];
    ck_assert_int_eq(shale_tuple_parse("(\"as\", (\"before\"))", t, &at), SHALE_OK);
    ck_assert_uint_eq(at, SIZE_MAX);
    ck_assert_msg(shale_tuple_parse(errors[_i].written, t, &at) == SHALE_INVALID, "%s", errors[_i].written);
    ck_assert_msg(at == errors[_i].at, "%s: at %zu: %s", errors[_i].written, at, shale_errmsg());
    (void)snprintf(place, sizeof place, ": byte %zu: ", at);
    ck_assert_msg(strstr(shale_errmsg(), place) != NULL, "%s", shale_errmsg());
    const char *told =
        strrchr(errors[_i].told, '|') != NULL ? strrchr(errors[_i].told, '|') + 1 : errors[_i].told;
    ck_assert_msg(strstr(shale_errmsg(), told) != NULL, "%s: %s", errors[_i].written, shale_errmsg());
    ck_assert_str_eq(print(), "(\"as\", (\"before\"))");
}
END_TEST

/* Wherever a text is cut, it is an error at that place or before, and nothing beyond is read. */
START_TEST(a_text_that_is_cut_anywhere_is_an_error)
{
    static const char whole[] =
        "(\"u\\u00e9\\ud83d\\ude00\", b\"\\x00\", -12.5e+3f, nan:7fc00001, true, (null), "
        "uuid\"01234567-89ab-cdef-0123-456789abcdef\", versionstamp\"000102030405060708090a0b\")";
    ck_assert_int_eq(shale_tuple_parse(whole, t, NULL), SHALE_OK);
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        char *text = malloc(n + 1);
        size_t at = SIZE_MAX;
        ck_assert_ptr_nonnull(text);
        memcpy(text, whole, n);
        text[n] = '\0';
        ck_assert_int_eq(shale_tuple_parse(text, t, &at), SHALE_INVALID);
        ck_assert_uint_le(at, n);
        free(text);
    }
}
END_TEST

START_TEST(a_text_replaces_what_was_there)
{
    ck_assert_int_eq(shale_tuple_begin(t), SHALE_OK);
    ck_assert_int_eq(shale_tuple_parse("(1)", t, NULL), SHALE_OK);
    ck_assert_str_eq(print(), "(1)");
}
END_TEST

/* ---- sizes ---- */

START_TEST(a_short_buffer_is_not_written_and_the_room_told)
{
    char text[8] = "before";
    size_t need;
    ck_assert_int_eq(shale_tuple_format("\025\052", 2, text, 4, &need), SHALE_TOOBIG);
    ck_assert_uint_eq(need, 4);
    ck_assert_str_eq(text, "before");
    ck_assert_int_eq(shale_tuple_format("\025\052", 2, NULL, 0, &need), SHALE_TOOBIG);
    ck_assert_uint_eq(need, 4);
    ck_assert_int_eq(shale_tuple_format("\025\052", 2, text, 5, NULL), SHALE_OK);
    ck_assert_str_eq(text, "(42)");
}
END_TEST

/* 256^255 - 1 has 615 digits. */
START_TEST(integers_end_at_255_bytes)
{
    unsigned char most[255];
    char text[700];
    size_t at;
    memset(most, 0xff, sizeof most);
    ck_assert_int_eq(shale_tuple_bigint(t, true, most, sizeof most), SHALE_OK);
    (void)snprintf(text, sizeof text, "%s", print());
    ck_assert_uint_eq(strlen(text), 615 + 3);
    shale_tuple_clear(t);
    ck_assert_int_eq(shale_tuple_parse(text, t, NULL), SHALE_OK);
    ck_assert_str_eq(print(), text);
    ck_assert_int_eq(text[616], '5'); /* odd: one more is no carry into the digit before */
    text[616] = '6';
    ck_assert_int_eq(shale_tuple_parse(text, t, &at), SHALE_INVALID);
    ck_assert_uint_eq(at, 1);
    ck_assert_msg(strstr(shale_errmsg(), "255 bytes") != NULL, "%s", shale_errmsg());
}
END_TEST

/* 10^n and its neighbours, against decimal arithmetic on the digits themselves. */
START_TEST(powers_of_ten_are_what_they_are)
{
    char text[128];
    for (int n = 18; n < 45; n++) {
        (void)snprintf(text, sizeof text, "(-1%0*d, 1%0*d)", n, 0, n, 7);
        ck_assert_int_eq(shale_tuple_parse(text, t, NULL), SHALE_OK);
        ck_assert_str_eq(print(), text);
    }
}
END_TEST

/* Every float of a sample, and every power of two, is printed so that it is read back. */
START_TEST(reals_are_printed_short_and_read_back)
{
    uint64_t state = 1;
    for (int i = 0; i < 3000; i++) {
        uint64_t bits = i < 2046 ? (uint64_t)(i + 1) << 52 : prng_next(&state);
        uint32_t bits32 = i < 254 ? (uint32_t)(i + 1) << 23 : (uint32_t)prng_next(&state);
        double d;
        float f;
        char text[200];
        memcpy(&d, &bits, sizeof d);
        memcpy(&f, &bits32, sizeof f);
        shale_tuple_clear(t);
        ck_assert_int_eq(shale_tuple_double(t, d), SHALE_OK);
        ck_assert_int_eq(shale_tuple_float(t, f), SHALE_OK);
        size_t len, again;
        unsigned char packed[16];
        const void *data = shale_tuple_data(t, &len);
        ck_assert_uint_le(len, sizeof packed);
        memcpy(packed, data, len);
        (void)snprintf(text, sizeof text, "%s", print());
        ck_assert_uint_le(strlen(text), 45);
        ck_assert_int_eq(shale_tuple_parse(text, t, NULL), SHALE_OK);
        data = shale_tuple_data(t, &again);
        ck_assert_msg(again == len && memcmp(packed, data, len) == 0, "%s", text);
    }
}
END_TEST

/* ---- the program's locale ---- */

static char locale_dir[64];

/* A locale whose decimal point is a comma, made for the purpose; false: this machine cannot make one. */
static bool make_comma_locale(void)
{
    char command[256];
    (void)snprintf(locale_dir, sizeof locale_dir, "%s/shale-locale.XXXXXX", "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(locale_dir));
    (void)snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1",
                   locale_dir);
    int made = system(command);
    ck_assert_int_eq(setenv("LOCPATH", locale_dir, 1), 0);
    return made == 0 && setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
}

START_TEST(the_locale_changes_nothing)
{
    char command[128], comma[16];
    bool made = make_comma_locale();
    if (made) {
        (void)snprintf(comma, sizeof comma, "%.1f", 1.5);
        ck_assert_str_eq(comma, "1,5");
        ck_assert_int_eq(shale_tuple_parse("(1.5, 2.25f, 1,5)", t, NULL), SHALE_OK);
        ck_assert_str_eq(print(), "(1.5d, 2.25f, 1, 5)");
        (void)snprintf(comma, sizeof comma, "%.1f", 1.5);
        ck_assert_str_eq(comma, "1,5"); /* and it is left as it was */
    } else {
        printf("skip the_locale_changes_nothing: needs localedef\n");
    }
    (void)setlocale(LC_ALL, "C");
    (void)snprintf(command, sizeof command, "rm -r %s", locale_dir);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tuple text");
    TCase *text = tcase_create("text"), *limits = tcase_create("limits");
    suite_add_tcase(suite, text);
    suite_add_tcase(suite, limits);
    tcase_add_checked_fixture(text, setup, teardown);
    tcase_add_checked_fixture(limits, setup, teardown);
    tcase_set_timeout(text, 60);
    tcase_set_timeout(limits, 60);
    tcase_add_loop_test(text, what_is_written_is_printed_in_one_form, 0, (int)BASE_COUNT(forms));
    tcase_add_loop_test(text, errors_name_the_place_and_what_to_write, 0, (int)BASE_COUNT(errors));
    tcase_add_test(text, a_text_that_is_cut_anywhere_is_an_error);
    tcase_add_test(text, a_text_replaces_what_was_there);
    tcase_add_test(limits, a_short_buffer_is_not_written_and_the_room_told);
    tcase_add_test(limits, integers_end_at_255_bytes);
    tcase_add_test(limits, powers_of_ten_are_what_they_are);
    tcase_add_test(limits, reals_are_printed_short_and_read_back);
    tcase_add_test(limits, the_locale_changes_nothing);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
