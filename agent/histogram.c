/* histogram.c - see agent.h. Values below 32 have a bucket each; above, each power of two is cut in 32. */
#include "agent.h"

static size_t bucket_of(uint64_t v)
{
    if (v < 32) {
        return (size_t)v;
    }
    unsigned shift = 63 - (unsigned)__builtin_clzll(v) - 5; /* v >> shift is 32..63 */
    size_t b = (size_t)shift * 32 + (size_t)(v >> shift);
    return b < HISTOGRAM_BUCKETS ? b : HISTOGRAM_BUCKETS - 1;
}

uint64_t histogram_top(size_t b)
{
    if (b < 64) {
        return b;
    }
    unsigned shift = (unsigned)(b / 32) - 1;
    return ((uint64_t)(b % 32 + 33) << shift) - 1;
}

void histogram_add(struct histogram *h, uint64_t v)
{
    h->count++;
    h->sum += v;
    h->max = v > h->max ? v : h->max;
    h->buckets[bucket_of(v)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    into->max = from->max > into->max ? from->max : into->max;
    for (size_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
        into->buckets[b] += from->buckets[b];
    }
}

uint64_t histogram_at(const struct histogram *h, double fraction)
{
    uint64_t wanted = (uint64_t)((double)h->count * fraction), seen = 0;
    for (size_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
        seen += h->buckets[b];
        if (seen > wanted) {
            uint64_t top = histogram_top(b);
            return top < h->max ? top : h->max;
        }
    }
    return h->max;
}
