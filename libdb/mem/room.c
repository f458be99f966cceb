/* room.c - how much the arena has, how much is needed, and taking it.
 *
 * How many nodes can `count` entries make, of keys that may be the worst? A node but the last of its level
 * has at least 7 entries: a split leaves 7 at least, and what is appended to only when it is full has 15. So
 * a level of n entries has at most 1 + n/7 nodes; it has at least n/15 already. And an entry makes at most
 * one node. The nodes of a level are the entries of the next one.
 */
#include "mem/insert.h"

/* A node, and what is skipped to align it. */
#define NODE_ROOM (sizeof(struct mem_node) + BASE_CACHELINE - MEM_UNIT)
/* What killed writers may have taken for nothing, and parents that have not been told yet. */
#define SPARE (16 * NODE_ROOM)

/* The end's reference must itself pass mem_version_at. */
static uint64_t room_of(const struct mem_index *m, uint32_t end)
{
    uint64_t used = (uint64_t)end * MEM_UNIT;
    return used < m->size - MEM_UNIT ? m->size - MEM_UNIT - used : 0;
}

uint64_t mem_room(const struct mem_index *m)
{
    return room_of(m, atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed));
}

uint64_t mem_used(const struct mem_index *m)
{
    uint64_t end = (uint64_t)atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed) * MEM_UNIT;
    return end < m->size ? end : m->size;
}

/* For `count` entries beside so many keys. */
static uint64_t need(uint64_t keys, uint64_t count)
{
    uint64_t bytes = SPARE + MEM_UNIT + count * sizeof(struct mem_version);
    for (unsigned level = 0; level < MEM_LEVELS; level++) {
        uint64_t nodes = 1 + count / MEM_FEWEST + keys / MEM_FEWEST - keys / MEM_WIDTH;
        nodes = nodes < count ? nodes : count;
        bytes += nodes * NODE_ROOM;
        if (keys + count <= MEM_WIDTH) {
            break;
        }
        keys = 1 + keys / MEM_FEWEST;
        count = nodes;
    }
    return bytes;
}

uint64_t mem_need(uint64_t count)
{
    return need(0, count);
}

bool mem_fits(const struct mem_index *m, uint64_t count)
{
    /* A key has a record, and its share of a node. The counter is not asked: a killed writer leaves it
     * behind.
     */
    uint64_t used = mem_used(m), each = sizeof(struct mem_record) + sizeof(struct mem_node) / MEM_WIDTH;
    uint64_t keys = used > MEM_FIRST ? (used - MEM_FIRST) / each : 0;
    return need(keys, count) <= mem_room(m);
}

uint32_t mem_take(struct mem_index *m, uint64_t size, uint64_t align)
{
    struct mem_header *h = mem_header(m);
    uint32_t end = atomic_load_explicit(&h->end, memory_order_relaxed);
    uint64_t at = align_up((uint64_t)end * MEM_UNIT, align), skipped = at - (uint64_t)end * MEM_UNIT;
    if (end < MEM_FIRST / MEM_UNIT || room_of(m, end) < size + skipped) {
        return 0;
    }
    atomic_store_explicit(&h->end, (uint32_t)((at + size) / MEM_UNIT), memory_order_relaxed);
    /* Before anything is filled in, also for the compiler: a killed writer's stores are all there, in program
     * order. */
    atomic_signal_fence(memory_order_seq_cst);
    os_mark(OS_MARK_INSERT);
    return (uint32_t)(at / MEM_UNIT);
}

int mem_no_room(const struct mem_index *m)
{
    uint32_t end = atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed);
    if (end < MEM_FIRST / MEM_UNIT || (uint64_t)end * MEM_UNIT > m->size) {
        return mem_damaged(m, "end of the arena", (uint64_t)end * MEM_UNIT);
    }
    return err_set(SHALE_NOMEM, "%06u.mem: no room for an entry, %llu of %llu bytes used", m->seg->number,
                   (unsigned long long)end * MEM_UNIT, (unsigned long long)m->size);
}
