/* tail.h - what stands behind the data: filter and index, verified piece by piece when they are first used.
 *
 * In a table of 64 MiB they are 1.3 MiB, in one of 4 GiB 80 MiB. Faulting all that in and verifying it at
 * open would cost a process that wants one key far more than the key (140 us instead of 15 for 64 MiB). So
 * each page of the file from the end of the data to the end of the index has a checksum of its own; the
 * array of these, one part in 512, is what open verifies. A bit a page remembers what was verified; whoever
 * reads from the tail asks tail_need first, which costs a bit test.
 *
 * Without a mapping the whole tail is read and verified at open: there, memory is filled, not pages faulted
 * in.
 */
#ifndef TABLE_TAIL_H
#define TABLE_TAIL_H

#include "table/fault.h"
#include "table/format.h"

struct table_tail {
    const unsigned char *bytes; /* of the file, from `from` on */
    uint64_t from, to;          /* the end of the data, the end of the index */
    const unsigned char *sums;
    _Atomic uint64_t *ready;           /* a bit a page */
    const struct table_faults *faults; /* NULL: bytes are in memory */
    bool verify;
    uint64_t number;
    const char *name;
};

static inline uint64_t tail_page(const struct table_tail *t, uint64_t offset)
{
    return offset / TABLE_PAGE - t->from / TABLE_PAGE;
}
/* Where page i of a tail [from, to) lies in the file: whole pages of the file, cut at both ends of the
 * tail. */
struct tail_range {
    uint64_t begin, end;
};
struct tail_range tail_range(uint64_t from, uint64_t to, uint64_t page);
/* The checksum of a page, of its bytes. */
uint64_t tail_sum(const unsigned char *page, struct tail_range range, uint64_t number);
/* Faults in and verifies page i. */
int tail_check(const struct table_tail *t, uint64_t page);
int tail_need_slow(const struct table_tail *t, uint64_t first, uint64_t last);

/* [p, p + size) of the tail is about to be read; size > 0. SHALE_OK, or SHALE_CORRUPT, SHALE_IO with a text
 * that names the place. relaxed: the bits guard no memory that this process wrote; the file does not
 * change. */
static inline int tail_need(const struct table_tail *t, const unsigned char *p, size_t size)
{
    uint64_t at = t->from + (uint64_t)(p - t->bytes);
    uint64_t first = tail_page(t, at), last = tail_page(t, at + size - 1);
    uint64_t a = atomic_load_explicit(&t->ready[first / 64], memory_order_relaxed) >> first % 64;
    uint64_t b = atomic_load_explicit(&t->ready[last / 64], memory_order_relaxed) >> last % 64;
    return BASE_LIKELY((a & b & 1) != 0 && last - first <= 1) ? SHALE_OK : tail_need_slow(t, first, last);
}

#endif
