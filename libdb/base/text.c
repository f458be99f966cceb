/* text.c - numbers into names, and foreign text made harmless.
 *
 * A process that opens a database, reads a key and is gone makes half a dozen file names; printf, which
 * nothing else on that way needs, costs it more than the system calls that open them: its pages must be
 * faulted in, and take another page of the stack. */
#include "base/base.h"

static char *put_digits(char *to, uint64_t v, unsigned digits, unsigned base)
{
    char reversed[20]; /* digits of 2^64 - 1 */
    unsigned n = 0;
    do {
        reversed[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v != 0);
    for (; digits > n; digits--) {
        *to++ = '0';
    }
    while (n > 0) {
        *to++ = reversed[--n];
    }
    *to = '\0';
    return to;
}

char *digits_decimal(char *to, uint64_t v, unsigned digits)
{
    return put_digits(to, v, digits, 10);
}

char *digits_hex(char *to, uint64_t v, unsigned digits)
{
    return put_digits(to, v, digits, 16);
}

void text_tame(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c != '\0'; c++) {
        if (*c < ' ' || *c == 0x7f) {
            *c = '?';
        } else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) {
            *c = *(c + 1) = '?';
        }
    }
}
