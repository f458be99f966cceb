/* tail.c - verifying the pages of filter and index: see tail.h. */
#include "table/tail.h"

struct tail_range tail_range(uint64_t from, uint64_t to, uint64_t page)
{
    uint64_t at = (from / TABLE_PAGE + page) * TABLE_PAGE;
    return (struct tail_range){at < from ? from : at, at + TABLE_PAGE < to ? at + TABLE_PAGE : to};
}

uint64_t tail_sum(const unsigned char *page, struct tail_range range, uint64_t number)
{
    return checksum(page, range.end - range.begin, checksum_seed(number, range.begin));
}

int tail_check(const struct table_tail *t, uint64_t page)
{
    struct tail_range r = tail_range(t->from, t->to, page);
    int rc = t->faults != NULL ? faults_need(t->faults, r.begin, r.end) : SHALE_OK;
    if (rc == SHALE_OK && t->verify &&
        tail_sum(t->bytes + (r.begin - t->from), r, t->number) != get_u64(t->sums + page * 8)) {
        rc = err_set(SHALE_CORRUPT, "checksum mismatch");
    }
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s: index page at %llu", t->name, (unsigned long long)r.begin);
    }
    atomic_fetch_or_explicit(&t->ready[page / 64], UINT64_C(1) << page % 64, memory_order_relaxed);
    return SHALE_OK;
}

int tail_need_slow(const struct table_tail *t, uint64_t first, uint64_t last)
{
    int rc = SHALE_OK;
    for (uint64_t i = first; rc == SHALE_OK && i <= last; i++) {
        if ((atomic_load_explicit(&t->ready[i / 64], memory_order_relaxed) >> i % 64 & 1) == 0) {
            rc = tail_check(t, i);
        }
    }
    return rc;
}
