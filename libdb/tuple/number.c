/* number.c - numbers in decimal: magnitudes of any length, and the shortest text of a float or double.
 *
 * The C library prints and reads floating point by the program's locale; a key's text must not depend on
 * that, so the calling thread is in the C locale meanwhile. */
#include "tuple/tuple.h"

#include <float.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- integers ---- */

#define LIMB_DIGITS 9
#define LIMB        1000000000u
/* 2.41 decimal digits a byte */
#define LIMBS (TUPLE_INT_MAX * 241 / 100 / LIMB_DIGITS + 1)

int tuple_put_decimal(struct buf *out, const unsigned char *magnitude, size_t len)
{
    uint32_t limbs[LIMBS] = {0}; /* the lowest first */
    size_t used = 1;
    for (size_t i = 0; i < len; i++) {
        uint64_t carry = magnitude[i];
        for (size_t k = 0; k < used; k++) {
            carry += (uint64_t)limbs[k] << 8;
            limbs[k] = (uint32_t)(carry % LIMB);
            carry /= LIMB;
        }
        if (carry != 0 && used < LIMBS) {
            limbs[used++] = (uint32_t)carry;
        }
    }
    int rc = buf_printf(out, "%u", limbs[used - 1]);
    while (rc == SHALE_OK && --used != 0) {
        rc = buf_printf(out, "%09u", limbs[used - 1]);
    }
    return rc;
}

bool tuple_from_decimal(const char *digits, size_t n, unsigned char magnitude[TUPLE_INT_MAX], size_t *len)
{
    unsigned char low_first[TUPLE_INT_MAX];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned carry = (unsigned)(digits[i] - '0');
        for (size_t k = 0; k < used; k++) {
            carry += low_first[k] * 10u;
            low_first[k] = (unsigned char)carry;
            carry >>= 8;
        }
        if (carry != 0 && used == sizeof low_first) {
            return false;
        }
        if (carry != 0) {
            low_first[used++] = (unsigned char)carry;
        }
    }
    for (size_t k = 0; k < used; k++) {
        magnitude[k] = low_first[used - 1 - k];
    }
    *len = used;
    return true;
}

/* ---- floating point ---- */

/* The thread's locale before, for leave_c_locale; 0 where there is no memory. */
static locale_t enter_c_locale(locale_t *c)
{
    *c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (*c == (locale_t)0) {
        (void)err_set(SHALE_NOMEM, "cannot make the C locale, in which numbers are read and printed");
        return (locale_t)0;
    }
    return uselocale(*c);
}

static void leave_c_locale(locale_t before, locale_t c)
{
    (void)uselocale(before);
    freelocale(c);
}

#define NAN32 UINT32_C(0x7fc00000)
#define NAN64 UINT64_C(0x7ff8000000000000)

int tuple_put_float(struct buf *out, uint32_t bits)
{
    float v;
    char text[40];
    memcpy(&v, &bits, sizeof v);
    const char *sign = bits >> 31 != 0 ? "-" : "";
    if (v != v) {
        return (bits | UINT32_C(1) << 31) == (NAN32 | UINT32_C(1) << 31) ? buf_printf(out, "%snanf", sign)
                                                                         : buf_printf(out, "nan:%08x", bits);
    }
    locale_t c, before = enter_c_locale(&c);
    if (before == (locale_t)0) {
        return SHALE_NOMEM;
    }
    for (int digits = 1; digits <= FLT_DECIMAL_DIG; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) {
            break;
        }
    }
    leave_c_locale(before, c);
    return buf_printf(out, "%sf", text);
}

int tuple_put_double(struct buf *out, uint64_t bits)
{
    double v;
    char text[40];
    memcpy(&v, &bits, sizeof v);
    const char *sign = bits >> 63 != 0 ? "-" : "";
    if (v != v) {
        return (bits | UINT64_C(1) << 63) == (NAN64 | UINT64_C(1) << 63)
                   ? buf_printf(out, "%snand", sign)
                   : buf_printf(out, "nan:%016llx", (unsigned long long)bits);
    }
    locale_t c, before = enter_c_locale(&c);
    if (before == (locale_t)0) {
        return SHALE_NOMEM;
    }
    for (int digits = 1; digits <= DBL_DECIMAL_DIG; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    leave_c_locale(before, c);
    return buf_printf(out, "%sd", text);
}

int tuple_get_double(const char *text, double *v)
{
    locale_t c, before = enter_c_locale(&c);
    if (before == (locale_t)0) {
        return SHALE_NOMEM;
    }
    *v = strtod(text, NULL);
    leave_c_locale(before, c);
    return SHALE_OK;
}

int tuple_get_float(const char *text, float *v)
{
    locale_t c, before = enter_c_locale(&c);
    if (before == (locale_t)0) {
        return SHALE_NOMEM;
    }
    *v = strtof(text, NULL);
    leave_c_locale(before, c);
    return SHALE_OK;
}
