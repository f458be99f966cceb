/* fault.h - faulting a mapped table in, so that an I/O error is a status and not a signal.
 *
 * What is read for the first time is faulted in by MADV_POPULATE_READ, a system call. If it were called for
 * each block, a process that begins to read a table which lies in the page cache would call it tens of
 * thousands of times, to no end but the page table entries. So the file is divided into stretches. From the
 * second time on that something in a stretch is wanted it is faulted in with one call, if all of it is in the
 * page cache (mincore). The first time it is not, since a process that wants one key is sooner done with one
 * page. Where the file is not in the page cache nothing is read that nobody asked for.
 *
 * That a stretch was there is believed for a second: what is used for the first time after that may have left
 * the page cache meanwhile, and the device may not give it back.
 *
 * mincore tells the truth only to who owns the file or may write it, and says "all" to everybody else: those
 * go block by block.
 */
#ifndef TABLE_FAULT_H
#define TABLE_FAULT_H

#include "os/os.h"

#define FAULT_STRETCH   ((uint64_t)256 << 10)
#define FAULT_BELIEF_NS INT64_C(1000000000)

struct table_faults {
    unsigned char *map; /* of the whole file; NULL: nothing needs to be faulted in */
    uint64_t size;
    bool told; /* mincore tells us the truth */
    /* A word a stretch: 0, nothing of it was wanted yet; 1, something was; else until when it is believed to
     * be there (CLOCK_MONOTONIC). relaxed: they guard no memory that this process wrote. */
    _Atomic int64_t *stretches;
};

int faults_init(struct table_faults *f, unsigned char *map, uint64_t size, bool told);
void faults_release(struct table_faults *f);
/* Bytes [from, to) of the file, from < to <= size, are about to be read. SHALE_IO with a text. */
int faults_need(const struct table_faults *f, uint64_t from, uint64_t to);

#endif
