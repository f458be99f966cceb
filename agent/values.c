/* values.c - keys and values that any reader can check.
 *
 *     0  number of the key       8  counter       16  XXH3 of all the rest, seeded with the number       24
 * filler
 *
 * The filler is cut from a pool that was made once: pieces of 64 bytes, part random, part one text over and
 * over, so that making a value costs little beside putting it. A value found under another key, half written,
 * or mixed from two writes doesn't verify.
 */
#include "agent.h"

#include <stdio.h>

#define POOL_BYTES  (1 << 20)
#define PIECE_BYTES 64

static unsigned char pool[POOL_BYTES];

void key_make(unsigned char *key, size_t size, uint64_t number)
{
    for (size_t i = size; i-- > 0;) {
        key[i] = (unsigned char)('0' + number % 10);
        number /= 10;
    }
}

void key_make_absent(unsigned char *key, size_t size, uint64_t number)
{
    key_make(key, size, number);
    key[size - 1] = '.'; /* before all digits */
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

void values_init(unsigned compressible)
{
    static const char phrase[] = "the quick brown fox jumps over the lazy dog and runs into the wood ";
    size_t random = PIECE_BYTES * (100 - compressible) / 100;
    uint64_t state = 1;
    for (size_t i = 0; i < POOL_BYTES; i++) {
        size_t at = i % PIECE_BYTES;
        pool[i] = at < random ? (unsigned char)prng_next(&state) : (unsigned char)phrase[at];
    }
}

static uint64_t value_sum(const unsigned char *value, size_t size, uint64_t number)
{
    return checksum(value + VALUE_LEAST, size - VALUE_LEAST,
                    checksum_seed(number, get_u64(value + 8)) ^ size);
}

void value_make(unsigned char *value, size_t size, uint64_t number, uint64_t counter)
{
    size_t at = VALUE_LEAST, from = checksum_seed(number, counter) % (POOL_BYTES / 2);
    put_u64(value, number);
    put_u64(value + 8, counter);
    while (at < size) {
        size_t n = size - at < POOL_BYTES / 2 ? size - at : POOL_BYTES / 2;
        memcpy(value + at, pool + from, n);
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
