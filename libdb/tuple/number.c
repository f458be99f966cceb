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

/* The shortest of the forms of v, in "C", with as many digits as tell it from its neighbours: tried by
 * reading it again. Numbers that are whole in their digits are written whole, 100 and not 1e+02. */
static void shortest(char *text, size_t size, double v, bool single)
{
    int most = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG, whole = single ? FLT_DIG : DBL_DIG, digits = 0;
    do {
        digits++;
        (void)snprintf(text, size, "%.*g", digits, v);
    } while (digits < most && (single ? (double)strtof(text, NULL) : strtod(text, NULL)) != v);
    const char *exponent = strstr(text, "e+");
    int wanted = exponent != NULL ? atoi(exponent + 2) + 1 : 0;
    if (wanted > digits && wanted <= whole) {
        (void)snprintf(text, size, "%.*g", wanted, v);
    }
}

static int put_real(struct buf *out, double v, bool single)
{
    char text[40];
    locale_t c, before = enter_c_locale(&c);
    if (before == (locale_t)0) {
        return SHALE_NOMEM;
    }
    shortest(text, sizeof text, v, single);
    leave_c_locale(before, c);
    return buf_printf(out, "%s%c", text, single ? 'f' : 'd');
}

#define NAN32  UINT32_C(0x7fc00000)
#define SIGN32 (UINT32_C(1) << 31)
#define NAN64  UINT64_C(0x7ff8000000000000)
#define SIGN64 (UINT64_C(1) << 63)

int tuple_put_float(struct buf *out, uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    if (v == v) {
        return put_real(out, (double)v, true);
    }
    if ((bits & ~SIGN32) == NAN32) {
        return buf_printf(out, "%snanf", (bits & SIGN32) != 0 ? "-" : "");
    }
    return buf_printf(out, "nan:%08x", bits);
}

int tuple_put_double(struct buf *out, uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    if (v == v) {
        return put_real(out, v, false);
    }
    if ((bits & ~SIGN64) == NAN64) {
        return buf_printf(out, "%snand", (bits & SIGN64) != 0 ? "-" : "");
    }
    return buf_printf(out, "nan:%016llx", (unsigned long long)bits);
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
