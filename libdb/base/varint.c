/* varint.c - decoding LEB128 of up to 64 bits from bytes that nobody vouches for. */
#include "base/base.h"

const unsigned char *varint_get64(const unsigned char *p, const unsigned char *end, uint64_t *v)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
        uint64_t byte = *p++;
        if (shift == 63 && byte > 1) {
            return NULL; /* the tenth byte has room for bit 63 only */
        }
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *v = value;
            return p;
        }
    }
    return NULL;
}
