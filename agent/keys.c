/* keys.c - which key is next.
 *
 * The zipfian generator is that of J. Gray, P. Sundaresan, S. Englert, K. Baclawski and P. Weinberger,
 * "Quickly generating billion-record synthetic databases", SIGMOD 1994, with the exponent that YCSB uses:
 * item i is drawn in proportion to 1 / (i + 1)^0.99, in constant time once zeta is known.
 */
#include "agent.h"

#include <math.h>

#define THETA       0.99
#define EXACT_TERMS 1000000

/* The sum of 1 / i^THETA, 1 <= i <= n; the far end by its integral, which is exact to more digits than
 * matter. */
static double zeta_of(uint64_t n)
{
    double sum = 0;
    uint64_t exact = n < EXACT_TERMS ? n : EXACT_TERMS;
    for (uint64_t i = exact; i > 0; i--) {
        sum += pow((double)i, -THETA);
    }
    if (n > exact) {
        sum += (pow((double)n + 0.5, 1 - THETA) - pow((double)exact + 0.5, 1 - THETA)) / (1 - THETA);
    }
    return sum;
}

void zipf_init(struct zipf *z, uint64_t n)
{
    z->n = n;
    z->zeta = zeta_of(n);
    z->second = 1 + pow(0.5, THETA);
    z->alpha = 1 / (1 - THETA);
    z->eta = n > 2 ? (1 - pow(2 / (double)n, 1 - THETA)) / (1 - z->second / z->zeta) : 0;
}

uint64_t zipf_next(const struct zipf *z, uint64_t *random)
{
    double u = (double)(prng_next(random) >> 11) * 0x1p-53, uz = u * z->zeta;
    if (uz < 1 || z->n < 2) {
        return 0;
    }
    if (uz < z->second || z->n < 3) {
        return 1;
    }
    uint64_t i = (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1, z->alpha));
    return i < z->n ? i : z->n - 1;
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
