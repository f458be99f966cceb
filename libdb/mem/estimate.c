/* estimate.c - how many keys lie in a range, without counting them.
 *
 * The entries of a level between two keys are counted by walking from node to node. From the root down, until
 * a level has enough of them; how many keys each stands for is told by samples of what is below.
 */
#include "mem/arena.h"

#define ENOUGH 256u

struct range {
    const struct mem_index *mem;
    struct mem_search lo, hi;
    bool bounded;
};

/* How many keys lie below a node: as many as if all its children were like the one in the middle. */
static uint64_t keys_below(struct range *r, uint32_t ref, unsigned level)
{
    uint64_t keys = 1;
    for (;;) {
        const struct mem_node *n = mem_node_at(r->mem, ref);
        if (n == NULL || mem_level(n) != level) {
            r->lo.damaged = true;
            return 0;
        }
        uint64_t perm = atomic_load_explicit(&n->perm, memory_order_acquire);
        keys *= mem_count(perm);
        if (level-- == 0) {
            return keys;
        }
        ref = mem_ref_at(n, perm, mem_count(perm) / 2 % MEM_WIDTH);
    }
}

/* The range's entries on a level. *keys: about how many keys they stand for. */
static uint64_t count_level(struct range *r, unsigned level, uint64_t *keys)
{
    struct mem_spot at, end = {0};
    uint64_t entries = 0, samples = 0, below = 0;
    mem_find(&r->lo, 0, level, false, &at);
    if (r->bounded) {
        mem_find(&r->hi, 0, level, false, &end);
    }
    for (unsigned from = at.pos; at.node != 0; from = 0) {
        const struct mem_node *n = mem_node_at(r->mem, at.node);
        if (n == NULL || r->lo.damaged || r->hi.damaged || r->lo.steps-- == 0) {
            r->lo.damaged = true;
            return 0;
        }
        uint64_t perm = atomic_load_explicit(&n->perm, memory_order_acquire);
        unsigned to = at.node == end.node ? end.pos : mem_count(perm);
        entries += to > from ? to - from : 0;
        if (level != 0) {
            below += keys_below(r, mem_ref_at(n, perm, mem_count(perm) / 2 % MEM_WIDTH), level - 1);
            samples++;
        }
        at.node = at.node == end.node ? 0 : mem_next(n);
    }
    *keys = samples != 0 ? entries * below / samples : entries;
    return entries;
}

uint64_t mem_keys_between(const struct mem_index *m, struct slice lo, struct slice hi)
{
    struct range r = {.mem = m, .bounded = hi.data != NULL};
    const struct mem_node *root = mem_node_at(m, mem_root(m));
    uint64_t keys = 0;
    if (root == NULL || mem_level(root) >= MEM_LEVELS || (r.bounded && slice_compare(lo, hi) >= 0)) {
        return 0;
    }
    mem_search_start(&r.lo, m, lo);
    mem_search_start(&r.hi, m, hi);
    for (unsigned level = mem_level(root) + 1; level-- > 0 && !r.lo.damaged;) {
        if (count_level(&r, level, &keys) >= ENOUGH) {
            break;
        }
    }
    return keys;
}
