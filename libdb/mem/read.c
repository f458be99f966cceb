/* read.c - looking up, from any process, while the writer goes on.
 *
 * A reader has a sequence number and takes of each key the newest version that is not newer; a key whose
 * versions are all newer is not there for it. What it finds is in the log: the index only says where. So a
 * hit is believed only when the log's entry really carries the key: noise in the index can hide entries, it
 * cannot invent any.
 */
#include "mem/arena.h"

uint64_t mem_entries(const struct mem_index *m)
{
    return atomic_load_explicit(&mem_header(m)->entries, memory_order_relaxed);
}

uint64_t mem_keys(const struct mem_index *m)
{
    return atomic_load_explicit(&mem_header(m)->keys, memory_order_relaxed);
}

int mem_get(const struct mem_index *m, struct slice key, uint64_t seq, struct mem_hit *hit)
{
    struct mem_search s;
    struct mem_spot at;
    struct wal_entry e;
    uint64_t found;
    uint32_t entry;
    mem_search_start(&s, m, key);
    mem_find(&s, 0, 0, false, &at);
    if (BASE_UNLIKELY(s.damaged)) {
        return mem_damaged(m, "links or log offsets out of bounds, met", (uint64_t)at.node * MEM_UNIT);
    }
    if (!at.equal) {
        return SHALE_NOTFOUND;
    }
    const struct mem_record *r = mem_record_at(m, at.ref);
    if (r == NULL) {
        return mem_damaged(m, "record out of bounds", (uint64_t)at.ref * MEM_UNIT);
    }
    int rc = mem_chain_find(m, r, seq, &found, &entry);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!mem_entry_at(m, entry, &e) || !slice_equal(e.key, key)) {
        return mem_damaged(m, "version of another key", (uint64_t)at.ref * MEM_UNIT);
    }
    *hit = (struct mem_hit){found, e.type, e.value};
    return SHALE_OK;
}
