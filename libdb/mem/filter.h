/* filter.h - which keys a memtable cannot hold: the same blocked bloom filter as a table's (table/filter.h),
 * but one that grows while others read it.
 *
 * Most keys that are read are not in the memtable, and a look through the tree for nothing costs several
 * misses of the cache; the filter costs one. Its lines stand behind the arena, a 64th of the segment's size:
 * 16 bits a key where an entry takes 128 bytes of the log, fewer for smaller entries, never a wrong "no".
 *
 * [I-16] The bits of a key are set before its entry is put in, and each time that it is inserted,
 * whatever is there already: so a repair sets those that a killed writer did not come to. Who reads by a
 * sequence number that was published after the insert sees them.
 */
#ifndef MEM_FILTER_H
#define MEM_FILTER_H

#include "mem/mem.h"
#include "table/filter.h"

#define MEM_FILTER_PROBES 6u
#define MEM_PAGE          4096u

/* For a segment of that size; whole pages, at least one. */
static inline uint64_t mem_filter_size(uint64_t segment)
{
    uint64_t size = align_up(segment / 64, MEM_PAGE);
    return size > 0 ? size : MEM_PAGE;
}
static inline uint64_t mem_filter_offset(uint64_t arena)
{
    return align_up(arena, MEM_PAGE);
}

static inline _Atomic uint64_t *mem_filter_line(const struct mem_index *m, uint64_t hash)
{
    return m->filter + filter_line(hash, m->filter_lines) * (FILTER_LINE / sizeof(uint64_t));
}

/* Caller holds WRITE: only stores need to be seen by others, so each word is written by a plain one. */
static inline void mem_filter_add(struct mem_index *m, uint64_t hash)
{
    _Atomic uint64_t *line = mem_filter_line(m, hash);
    uint64_t bits = filter_bits(hash, 0);
    for (unsigned i = 0; i < MEM_FILTER_PROBES; i++, bits <<= 9) {
        _Atomic uint64_t *word = line + (bits >> 61);
        uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
        uint64_t set = old | UINT64_C(1) << (bits >> 55 & 63);
        if (set != old) {
            atomic_store_explicit(word, set, memory_order_relaxed);
        }
    }
}

/* false: it holds no version of a key with this hash that could be visible to the caller. */
static inline bool mem_may_hold(const struct mem_index *m, uint64_t hash)
{
    const _Atomic uint64_t *line = mem_filter_line(m, hash);
    uint64_t bits = filter_bits(hash, 0), found = 1;
    for (unsigned i = 0; i < MEM_FILTER_PROBES; i++, bits <<= 9) {
        found &= atomic_load_explicit(line + (bits >> 61), memory_order_relaxed) >> (bits >> 55 & 63);
    }
    return found != 0;
}

static inline void mem_filter_prefetch(const struct mem_index *m, uint64_t hash)
{
    __builtin_prefetch((const void *)(uintptr_t)mem_filter_line(m, hash));
}

#endif
