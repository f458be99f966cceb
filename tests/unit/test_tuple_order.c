/* test_tuple_order.c - random tuples of every type: bytes order as values do, and values, bytes and text are
 * the same thing.
 *
 * What the order is, is said here a second time, in terms of values: by type, then integers by sign and size,
 * floating point in IEEE's total order, strings by bytes, tuples element by element. Values are drawn so that
 * near ones meet: common beginnings, neighbouring integers, zeros and 00 ff in strings. */
#include "lib/lib.h"
#include "base/base.h"

enum { MOST_ELEMENTS = 5, MOST_BYTES = 12, MOST_DEPTH = 4 };

struct value {
    int rank; /* the order of types; integers are one */
    bool negative;
    struct buf bytes; /* what strings, UUIDs, versionstamps hold; an integer's magnitude */
    uint64_t bits;    /* float, double, bool */
    struct value *elements;
    size_t count;
};
enum { R_NULL, R_BYTES, R_STRING, R_NESTED, R_INT, R_FLOAT, R_DOUBLE, R_BOOL, R_UUID, R_VERSIONSTAMP, RANKS };

static uint64_t seed, state;

static unsigned draw(unsigned n)
{
    return (unsigned)(prng_next(&state) % n);
}

/* ---- random values ---- */

static void draw_bytes(struct value *v, size_t n)
{
    static const unsigned char likely[] = {0x00, 0xff, 0x01, 'a'};
    for (size_t i = 0; i < n; i++) {
        unsigned char c = draw(4) != 0 ? likely[draw(4)] : (unsigned char)draw(256);
        assert_ok(buf_append(&v->bytes, &c, 1));
    }
}

static void draw_string(struct value *v)
{
    static const char *const likely[] = {"a",  "b",  "\303\251", "\342\202\254", "\360\237\230\200",
                                         "\"", "\\", "\n",       "\302\205",     "\177"};
    for (unsigned n = draw(MOST_BYTES); n != 0; n--) {
        unsigned i = draw(12);
        const char *s = i < BASE_COUNT(likely) ? likely[i] : "";
        assert_ok(buf_append(&v->bytes, s, *s != '\0' ? strlen(s) : 1)); /* "": a NUL */
    }
}

/* 256^n and its neighbours, and anything, to 255 bytes. */
static void draw_integer(struct value *v)
{
    static const unsigned sizes[] = {0, 1, 1, 2, 3, 7, 8, 8, 9, 10, 16, 255};
    unsigned size = sizes[draw(BASE_COUNT(sizes))], how = draw(4);
    for (unsigned i = 0; i < size; i++) {
        unsigned char c = how == 0 ? 0xff : how == 1 ? i == 0 : (unsigned char)draw(256);
        c = c == 0 && i == 0 ? 1 : c;
        c = i == size - 1 && draw(4) == 0 ? (unsigned char)(c ^ 1) : c;
        c = c == 0 && i == 0 ? 1 : c;
        assert_ok(buf_append(&v->bytes, &c, 1));
    }
    v->negative = size != 0 && draw(2) == 0;
}

static void draw_bits(struct value *v, unsigned width)
{
    static const uint64_t likely[] = {0,      1,      0x7ff0, 0x7ff8, 0x3ff0, 0xfff0,
                                      0x8000, 0xfff8, 0x7f80, 0xff80, 0xffff};
    uint64_t top = likely[draw(BASE_COUNT(likely))] << (width - 16);
    v->bits = draw(3) == 0 ? prng_next(&state) >> (64 - width) : top | draw(2);
}

static void draw_elements(struct value *v, unsigned depth);

static void draw_of(struct value *v, int rank, unsigned depth)
{
    *v = (struct value){.rank = rank};
    switch (rank) {
    case R_BYTES: draw_bytes(v, draw(MOST_BYTES)); break;
    case R_STRING: draw_string(v); break;
    case R_NESTED: draw_elements(v, depth - 1); break;
    case R_INT: draw_integer(v); break;
    case R_FLOAT: draw_bits(v, 32); break;
    case R_DOUBLE: draw_bits(v, 64); break;
    case R_BOOL: v->bits = draw(2); break;
    case R_UUID: draw_bytes(v, 16); break;
    case R_VERSIONSTAMP: draw_bytes(v, 12); break;
    default: break;
    }
}

static void draw_value(struct value *v, unsigned depth)
{
    int rank = (int)draw(RANKS);
    draw_of(v, rank == R_NESTED && depth == 0 ? R_INT : rank, depth);
}

static void draw_elements(struct value *v, unsigned depth)
{
    v->count = draw(MOST_ELEMENTS);
    v->elements = calloc(MOST_ELEMENTS, sizeof *v->elements);
    ck_assert_ptr_nonnull(v->elements);
    for (size_t i = 0; i < v->count; i++) {
        draw_value(&v->elements[i], depth);
    }
}

static void drop(struct value *v)
{
    for (size_t i = 0; i < v->count; i++) {
        drop(&v->elements[i]);
    }
    free(v->elements);
    buf_release(&v->bytes);
    *v = (struct value){0};
}

/* One that differs little, if at all: the same elements, but the last drawn anew, left out, or one more
 * behind it. */
static void draw_near(struct value *to, const struct value *from);

static void copy_value(struct value *to, const struct value *from)
{
    *to = *from;
    to->bytes = (struct buf){0};
    assert_ok(buf_append(&to->bytes, from->bytes.data, from->bytes.size));
    if (from->rank == R_NESTED) {
        to->elements = calloc(MOST_ELEMENTS + MOST_DEPTH, sizeof *to->elements);
        ck_assert_ptr_nonnull(to->elements);
        for (size_t i = 0; i < from->count; i++) {
            copy_value(&to->elements[i], &from->elements[i]);
        }
    }
}

static void draw_near(struct value *to, const struct value *from)
{
    copy_value(to, from);
    if (draw(16) == 0) {
        return;
    }
    struct value *last = to->count != 0 ? &to->elements[to->count - 1] : NULL;
    if (last == NULL || (draw(3) == 0 && to->count < MOST_ELEMENTS)) {
        draw_value(&to->elements[to->count++], 1);
    } else if (last->rank == R_NESTED && draw(4) != 0) {
        struct value near;
        draw_near(&near, last);
        drop(last);
        *last = near;
    } else if ((last->rank == R_BYTES || last->rank == R_STRING) && draw(2) == 0) {
        assert_ok(buf_append(&last->bytes, "\0a", 1 + draw(2)));
    } else {
        drop(last);
        to->count--;
        if (draw(2) == 0) {
            draw_value(&to->elements[to->count++], 1);
        }
    }
}

/* ---- the order ---- */

static int sign_of(int c)
{
    return (c > 0) - (c < 0);
}

static int compare_magnitudes(const struct buf *a, const struct buf *b)
{
    return a->size != b->size ? (a->size > b->size) - (a->size < b->size)
                              : sign_of(slice_compare(buf_slice(a), buf_slice(b)));
}

/* -NaN by falling mantissa, -infinity, numbers, -0, 0, infinity, NaN by rising mantissa. */
static int compare_reals(double a, double b, uint64_t a_bits, uint64_t b_bits, uint64_t sign)
{
    bool a_nan = a != a, b_nan = b != b, a_negative = (a_bits & sign) != 0, b_negative = (b_bits & sign) != 0;
    if (!a_nan && !b_nan && a != b) {
        return a < b ? -1 : 1;
    }
    if (a_negative != b_negative) {
        return a_negative ? -1 : 1;
    }
    if (a_nan != b_nan) {
        return a_nan == a_negative ? -1 : 1;
    }
    int c = (a_bits > b_bits) - (a_bits < b_bits);
    return a_negative ? -c : c;
}

static float float_of(uint64_t bits)
{
    uint32_t half = (uint32_t)bits;
    float f;
    memcpy(&f, &half, sizeof f);
    return f;
}

static double double_of(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static int compare(const struct value *a, const struct value *b)
{
    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    switch (a->rank) {
    case R_INT:
        if (a->negative != b->negative) {
            return a->negative ? -1 : 1;
        }
        return a->negative ? compare_magnitudes(&b->bytes, &a->bytes)
                           : compare_magnitudes(&a->bytes, &b->bytes);
    case R_FLOAT:
        return compare_reals((double)float_of(a->bits), (double)float_of(b->bits), a->bits, b->bits,
                             UINT64_C(1) << 31);
    case R_DOUBLE:
        return compare_reals(double_of(a->bits), double_of(b->bits), a->bits, b->bits, UINT64_C(1) << 63);
    case R_BOOL: return (a->bits > b->bits) - (a->bits < b->bits);
    case R_NESTED:
        for (size_t i = 0; i < a->count && i < b->count; i++) {
            int c = compare(&a->elements[i], &b->elements[i]);
            if (c != 0) {
                return c;
            }
        }
        return (a->count > b->count) - (a->count < b->count);
    default: return sign_of(slice_compare(buf_slice(&a->bytes), buf_slice(&b->bytes)));
    }
}

/* ---- packing and reading ---- */

static void pack_elements(shale_tuple *t, const struct value *v);

static int pack_integer(shale_tuple *t, const struct value *v)
{
    uint64_t m = 0;
    for (size_t i = 0; i < v->bytes.size && i < 8; i++) {
        m = m << 8 | v->bytes.data[i];
    }
    bool fits = v->bytes.size <= 8;
    if (fits && m <= INT64_MAX && draw(2) == 0) {
        return shale_tuple_int(t, v->negative ? -(int64_t)m : (int64_t)m);
    }
    if (fits && !v->negative && draw(2) == 0) {
        return shale_tuple_uint(t, m);
    }
    return shale_tuple_bigint(t, v->negative, v->bytes.data, v->bytes.size);
}

static int pack_value(shale_tuple *t, const struct value *v)
{
    switch (v->rank) {
    case R_NULL: return shale_tuple_null(t);
    case R_BYTES: return shale_tuple_bytes(t, v->bytes.data, v->bytes.size);
    case R_STRING: return shale_tuple_string(t, (char *)v->bytes.data, v->bytes.size);
    case R_INT: return pack_integer(t, v);
    case R_FLOAT: return shale_tuple_float(t, float_of(v->bits));
    case R_DOUBLE: return shale_tuple_double(t, double_of(v->bits));
    case R_BOOL: return shale_tuple_bool(t, v->bits != 0);
    case R_UUID: return shale_tuple_uuid(t, v->bytes.data);
    case R_VERSIONSTAMP: return shale_tuple_versionstamp(t, v->bytes.data);
    default:
        assert_ok(shale_tuple_begin(t));
        pack_elements(t, v);
        return shale_tuple_end(t);
    }
}

static void pack_elements(shale_tuple *t, const struct value *v)
{
    for (size_t i = 0; i < v->count; i++) {
        assert_ok(pack_value(t, &v->elements[i]));
    }
}

static struct slice bytes_of(const shale_tuple *t)
{
    size_t len;
    const void *data = shale_tuple_data(t, &len);
    ck_assert_ptr_nonnull(data);
    return slice_make(data, len);
}

static int order_of(shale_tuple *const t[2])
{
    return sign_of(slice_compare(bytes_of(t[0]), bytes_of(t[1])));
}

static void check_elements(const void *packed, size_t len, const struct value *v);

static void check_integer(const shale_element *e, const struct value *v)
{
    unsigned char m[8];
    struct slice got = slice_make(e->data, e->len);
    ck_assert_int_eq(e->negative, v->negative);
    if (e->type != SHALE_TYPE_BIGINT) {
        uint64_t u = e->negative ? 0 - (uint64_t)e->as.i : e->as.u;
        ck_assert(e->type != SHALE_TYPE_INT || (e->as.i < 0) == v->negative);
        ck_assert(e->type != SHALE_TYPE_UINT || u > INT64_MAX);
        for (int i = 7; i >= 0; i--, u >>= 8) {
            m[i] = (unsigned char)u;
        }
        ck_assert_uint_le(v->bytes.size, 8);
        got = slice_make(m + 8 - v->bytes.size, v->bytes.size);
        ck_assert_uint_eq(u, 0);
    }
    ck_assert(slice_equal(got, buf_slice(&v->bytes)));
}

static void check_value(const shale_element *e, const struct value *v)
{
    static const int types[RANKS] = {
        SHALE_TYPE_NULL,  SHALE_TYPE_BYTES,  SHALE_TYPE_STRING, SHALE_TYPE_NESTED, 0,
        SHALE_TYPE_FLOAT, SHALE_TYPE_DOUBLE, SHALE_TYPE_BOOL,   SHALE_TYPE_UUID,   SHALE_TYPE_VERSIONSTAMP};
    if (v->rank == R_INT) {
        check_integer(e, v);
        return;
    }
    ck_assert_int_eq(e->type, types[v->rank]);
    switch (v->rank) {
    case R_NULL: break;
    case R_FLOAT: ck_assert_int_eq(memcmp(&e->as.f, &v->bits, 4), 0); break;
    case R_DOUBLE: ck_assert_int_eq(memcmp(&e->as.d, &v->bits, 8), 0); break;
    case R_BOOL: ck_assert_int_eq(e->as.b, v->bits != 0); break;
    case R_NESTED: check_elements(e->data, e->len, v); break;
    case R_UUID: ck_assert_ptr_eq(e->as.uuid, e->data); /* fall through */
    default: ck_assert(slice_equal(slice_make(e->data, e->len), buf_slice(&v->bytes)));
    }
}

static void check_elements(const void *packed, size_t len, const struct value *v)
{
    shale_tuple_reader *r;
    shale_element e = {.size = sizeof e};
    assert_ok(shale_tuple_reader_create(packed, len, &r));
    for (size_t i = 0; i < v->count; i++) {
        assert_ok(shale_tuple_read(r, &e));
        check_value(&e, &v->elements[i]);
    }
    assert_status(shale_tuple_read(r, &e), SHALE_NOTFOUND);
    shale_tuple_reader_destroy(r);
}

/* ---- the properties ---- */

#define ROUNDS test_times(2000, 200000)

START_TEST(byte_order_is_value_order)
{
    unsigned orders[3] = {0};
    shale_tuple *t[2];
    assert_ok(shale_tuple_create(&t[0]));
    assert_ok(shale_tuple_create(&t[1]));
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct value v[2] = {{.rank = R_NESTED}, {.rank = R_NESTED}};
        draw_elements(&v[0], MOST_DEPTH);
        if (i % 4 == 0) {
            draw_elements(&v[1], MOST_DEPTH);
        } else {
            draw_near(&v[1], &v[0]);
        }
        for (int k = 0; k < 2; k++) {
            shale_tuple_clear(t[k]);
            pack_elements(t[k], &v[k]);
        }
        int want = compare(&v[0], &v[1]), got = order_of(t);
        ck_assert_msg(want == got, "seed %llu, pair %u: values %d, bytes %d", (unsigned long long)seed, i,
                      want, got);
        orders[want + 1]++;
        drop(&v[0]);
        drop(&v[1]);
    }
    shale_tuple_destroy(t[0]);
    shale_tuple_destroy(t[1]);
    ck_assert_uint_gt(orders[0], ROUNDS / 10); /* the pairs were worth it */
    ck_assert_uint_gt(orders[1], ROUNDS / 100);
    ck_assert_uint_gt(orders[2], ROUNDS / 10);
}
END_TEST

/* Pairs of one type, which mixed tuples seldom have in the same place. */
START_TEST(byte_order_is_value_order_within_a_type)
{
    shale_tuple *t[2];
    assert_ok(shale_tuple_create(&t[0]));
    assert_ok(shale_tuple_create(&t[1]));
    for (unsigned i = 0; i < ROUNDS / 2; i++) {
        struct value v[2];
        for (int k = 0; k < 2; k++) {
            draw_of(&v[k], _i, 2);
            shale_tuple_clear(t[k]);
            assert_ok(pack_value(t[k], &v[k]));
        }
        int want = compare(&v[0], &v[1]), got = order_of(t);
        ck_assert_msg(want == got, "seed %llu, pair %u: values %d, bytes %d", (unsigned long long)seed, i,
                      want, got);
        drop(&v[0]);
        drop(&v[1]);
    }
    shale_tuple_destroy(t[0]);
    shale_tuple_destroy(t[1]);
}
END_TEST

START_TEST(what_was_packed_is_read_and_printed_and_parsed)
{
    static char text[100000];
    shale_tuple *t, *again;
    assert_ok(shale_tuple_create(&t));
    assert_ok(shale_tuple_create(&again));
    for (unsigned i = 0; i < ROUNDS / 2; i++) {
        struct value v = {.rank = R_NESTED};
        size_t need, error_at;
        draw_elements(&v, MOST_DEPTH);
        shale_tuple_clear(t);
        pack_elements(t, &v);
        struct slice bytes = bytes_of(t);
        check_elements(bytes.data, bytes.size, &v);
        assert_ok(shale_tuple_format(bytes.data, bytes.size, text, sizeof text, &need));
        ck_assert_uint_eq(need, strlen(text));
        ck_assert_msg(shale_tuple_parse(text, again, &error_at) == SHALE_OK, "%s: %s", text, shale_errmsg());
        ck_assert_msg(slice_equal(bytes_of(again), bytes), "seed %llu: %s", (unsigned long long)seed, text);
        drop(&v);
    }
    shale_tuple_destroy(t);
    shale_tuple_destroy(again);
}
END_TEST

/* Bytes changed, cut and made up: an error or a tuple, and what is a tuple is packed again as the same bytes.
 */
START_TEST(arbitrary_bytes_are_refused_or_mean_something)
{
    static char text[100000];
    unsigned accepted = 0;
    shale_tuple *t, *again;
    assert_ok(shale_tuple_create(&t));
    assert_ok(shale_tuple_create(&again));
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct value v = {.rank = R_NESTED};
        draw_elements(&v, MOST_DEPTH);
        shale_tuple_clear(t);
        pack_elements(t, &v);
        struct slice bytes = bytes_of(t);
        size_t size = bytes.size != 0 ? draw((unsigned)bytes.size) + 1 : 0;
        unsigned char *copy = malloc(size + 1); /* exactly: a sanitizer sees a byte beyond */
        memcpy(copy, bytes.data, size);
        for (unsigned n = draw(3); n != 0 && size != 0; n--) {
            copy[draw((unsigned)size)] = (unsigned char)draw(draw(2) == 0 ? 0x34 : 256);
        }
        copy = realloc(copy, size != 0 ? size : 1);
        int rc = shale_tuple_format(copy, size, text, sizeof text, NULL);
        ck_assert(rc == SHALE_OK || rc == SHALE_CORRUPT);
        if (rc == SHALE_OK) {
            accepted++;
            assert_ok(shale_tuple_parse(text, again, NULL));
            ck_assert(slice_equal(bytes_of(again), slice_make(copy, size)));
        }
        free(copy);
        drop(&v);
    }
    shale_tuple_destroy(t);
    shale_tuple_destroy(again);
    ck_assert_uint_gt(accepted, ROUNDS / 10);
    ck_assert_uint_lt(accepted, ROUNDS);
}
END_TEST

static void setup(void)
{
    seed = state = test_seed(20);
}

static Suite *make_suite(void)
{
    Suite *suite = suite_create("tuple order");
    TCase *order = tcase_create("order"), *trips = tcase_create("round trips");
    suite_add_tcase(suite, order);
    suite_add_tcase(suite, trips);
    tcase_add_checked_fixture(order, setup, NULL);
    tcase_add_checked_fixture(trips, setup, NULL);
    tcase_set_timeout(order, 60 * (double)test_times(1, 20));
    tcase_set_timeout(trips, 60 * (double)test_times(1, 20));
    tcase_add_test(order, byte_order_is_value_order);
    tcase_add_loop_test(order, byte_order_is_value_order_within_a_type, 0, RANKS);
    tcase_add_test(trips, what_was_packed_is_read_and_printed_and_parsed);
    tcase_add_test(trips, arbitrary_bytes_are_refused_or_mean_something);
    return suite;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, make_suite);
}
