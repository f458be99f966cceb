/* values.c - keys and values that any reader can check.
 *
 *     0  number of the key       8  counter       16  XXH3 of all the rest, seeded with the number       24
 * filler
 *
 * The filler is random up to the middle of the value and one text over and over from there, so that a value
 * compresses to about half. A value found under another key, half written, or mixed from two writes doesn't
 * verify.
 */
#include "agent.h"

#include <stdio.h>

void key_make(unsigned char *key, size_t size, uint64_t number)
{
    for (size_t i = size; i-- > 0;) {
        key[i] = (unsigned char)('0' + number % 10);
        number /= 10;
    }
}

bool key_parse(const void *key, size_t size, uint64_t *number)
{
    const unsigned char *p = key;
    uint64_t n = 0;
    for (size_t i = 0; i < size; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
        n = n * 10 + (uint64_t)(p[i] - '0');
    }
    *number = n;
    return true;
}

static uint64_t value_sum(const unsigned char *value, size_t size, uint64_t number)
{
    return checksum(value + VALUE_LEAST, size - VALUE_LEAST,
                    checksum_seed(number, get_u64(value + 8)) ^ size);
}

void value_make(unsigned char *value, size_t size, uint64_t number, uint64_t counter)
{
    static const char phrase[32] = "the quick brown fox jumps over ";
    uint64_t state = checksum_seed(number, counter);
    size_t at = VALUE_LEAST;
    put_u64(value, number);
    put_u64(value + 8, counter);
    while (at < size / 2) {
        uint64_t word = prng_next(&state);
        size_t n = size - at < 8 ? size - at : 8;
        memcpy(value + at, &word, n);
        at += n;
    }
    while (at < size) {
        size_t n = size - at < sizeof phrase ? size - at : sizeof phrase;
        memcpy(value + at, phrase, n);
        at += n;
    }
    put_u64(value + 16, value_sum(value, size, number));
}

bool value_check(const void *value, size_t size, uint64_t number, size_t expected)
{
    const unsigned char *p = value;
    return size == expected && size >= VALUE_LEAST && get_u64(p) == number &&
           get_u64(p + 16) == value_sum(p, size, number);
}

/* A Feistel network over the next power of four, walked until it lands below n: a bijection, with no table.
 */
uint64_t permute(uint64_t i, uint64_t n, uint64_t seed)
{
    if (n < 2) {
        return i;
    }
    unsigned half = (unsigned)(64 - __builtin_clzll(n - 1) + 1) / 2;
    uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t next = left ^ (checksum_seed(right, seed + round) & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
