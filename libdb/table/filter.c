/* filter.c - building the blocked bloom filter: see filter.h. */
#include "table/filter.h"
#include "table/format.h"

_Static_assert(FILTER_LINE == TABLE_ALIGN, "a filter's line is a cache line of the mapping");

bool filter_open(struct table_filter *f, const unsigned char *data, uint64_t size, uint32_t probes)
{
    *f = (struct table_filter){NULL, 0, 0};
    if (size == 0) {
        return probes == 0;
    }
    if (size % FILTER_LINE != 0 || size / FILTER_LINE > UINT32_MAX || probes == 0 ||
        probes > FILTER_MAX_PROBES) {
        return false;
    }
    *f = (struct table_filter){data, (uint32_t)(size / FILTER_LINE), probes};
    return true;
}

/* ln 2 times the bits a key is best for a plain filter; a blocked one is served a little better by fewer. */
uint32_t filter_probes(unsigned bits_a_key)
{
    uint32_t probes = bits_a_key * 6 / 10;
    return bits_a_key == 0 ? 0 : probes == 0 ? 1 : probes > FILTER_MAX_PROBES ? FILTER_MAX_PROBES : probes;
}

int filter_build(const uint64_t *hashes, size_t n, unsigned bits_a_key, struct buf *out)
{
    uint64_t lines = ((uint64_t)n * bits_a_key + FILTER_LINE * 8 - 1) / (FILTER_LINE * 8);
    lines = lines == 0 ? 1 : lines;
    if (lines > UINT32_MAX / FILTER_LINE) {
        return err_set(SHALE_TOOBIG, "too many keys for one table's filter");
    }
    int rc = buf_reserve(out, lines * FILTER_LINE);
    if (rc != SHALE_OK) {
        return rc;
    }
    unsigned char *first = out->data + out->size;
    out->size += lines * FILTER_LINE;
    memset(first, 0, lines * FILTER_LINE);
    uint32_t probes = filter_probes(bits_a_key);
    for (size_t k = 0; k < n; k++) {
        unsigned char *line = first + filter_line(hashes[k], (uint32_t)lines) * FILTER_LINE;
        uint64_t bits = 0;
        for (uint32_t i = 0; i < probes; i++) {
            bits = i % 7 == 0 ? filter_bits(hashes[k], i) : bits << 9;
            unsigned char *word = line + (bits >> 61) * 8;
            put_u64(word, get_u64(word) | UINT64_C(1) << (bits >> 55 & 63));
        }
    }
    return SHALE_OK;
}
