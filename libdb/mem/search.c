/* search.c - finding a key's place.
 *
 * The usual descent: along a level while the next node's key is less, then one level down. Two things make it
 * cheap. The node that stopped a level is known to be too great, so a lower level that leads to the same node
 * stops without looking at it. And the key's first 16 bytes stand in the node: the log is read only where
 * they are equal.
 *
 * The bytes may be anything. Every reference is checked before it is followed, and a descent has no more
 * steps than the file can hold nodes.
 */
#include "mem/arena.h"

int mem_damaged(const struct mem_index *m, const char *what, uint64_t where)
{
    return err_set(SHALE_CORRUPT, "%06u.mem: %s at %llu", m->seg->number, what, (unsigned long long)where);
}

void mem_search_start(struct mem_search *s, const struct mem_index *m, struct slice key)
{
    *s = (struct mem_search){.mem = m, .key = mem_key_make(key), .steps = m->size / sizeof(struct mem_node)};
}

int mem_compare_tails(struct mem_search *s, const struct mem_node *n)
{
    struct wal_entry e;
    if (!mem_entry_at(s->mem, n->entry, &e)) {
        s->damaged = true;
        return 1;
    }
    return slice_compare(e.key, s->key.bytes);
}

uint32_t mem_search_run(struct mem_search *s, bool exact, bool *equal, uint32_t *before)
{
    const struct mem_index *m = s->mem;
    uint32_t x = MEM_HEAD, greater = 0;
    *equal = false;
    for (unsigned level = MEM_LEVELS; level-- > 0;) {
        for (uint32_t next; (next = mem_next(m, x, level)) != greater; x = next) {
            const struct mem_node *n = mem_node_at(m, next);
            if (BASE_UNLIKELY(n == NULL || s->steps-- == 0)) {
                s->damaged = true;
                return 0;
            }
            /* Where this level ends here, the next one goes on there: let it come while the keys are
             * compared. */
            mem_prefetch(m, mem_next(m, x, level != 0 ? level - 1 : 0));
            int c = mem_compare(s, n);
            if (c >= 0) {
                greater = next;
                *equal = c == 0;
                break;
            }
        }
        if (*equal && !exact) {
            break;
        }
    }
    *before = x;
    return greater;
}

uint32_t mem_search_last(struct mem_search *s)
{
    const struct mem_index *m = s->mem;
    uint32_t x = MEM_HEAD;
    for (unsigned level = MEM_LEVELS; level-- > 0;) {
        for (uint32_t next; (next = mem_next(m, x, level)) != 0; x = next) {
            if (mem_node_at(m, next) == NULL || s->steps-- == 0) {
                s->damaged = true;
                return MEM_HEAD;
            }
        }
    }
    return x;
}
