/* estimate.c - how many keys lie in a range, without counting them.
 *
 * One node in four reaches each next level, whatever its key: the nodes of a level are a random sample of
 * all. So a level is counted that has enough of the range's nodes, and each stands for 4^level keys.
 */
#include "mem/arena.h"

#define SAMPLE 256u /* makes an error of a sixteenth likely, and twice that rare */

/* The nodes of a level from behind `at` on whose keys are below end (unbounded: to the level's end). */
static uint64_t count_level(struct mem_search *end, bool bounded, uint32_t at, unsigned level)
{
    const struct mem_index *m = end->mem;
    uint64_t n = 0;
    while ((at = mem_next(m, at, level)) != 0) {
        const struct mem_node *node = mem_node_at(m, at);
        if (node == NULL || end->steps-- == 0) {
            end->damaged = true;
            break;
        }
        if (bounded && mem_compare(end, node) >= 0) {
            break;
        }
        n++;
    }
    return n;
}

/* The last node of a level, from x on, whose key is less than the searched one. */
static uint32_t last_before(struct mem_search *s, uint32_t x, unsigned level)
{
    const struct mem_index *m = s->mem;
    for (uint32_t next; (next = mem_next(m, x, level)) != 0; x = next) {
        const struct mem_node *node = mem_node_at(m, next);
        if (node == NULL || s->steps-- == 0) {
            s->damaged = true;
            break;
        }
        if (mem_compare(s, node) >= 0) {
            break;
        }
    }
    return x;
}

uint64_t mem_keys_between(const struct mem_index *m, struct slice lo, struct slice hi)
{
    struct mem_search from, end;
    uint32_t x = MEM_HEAD;
    uint64_t n = 0;
    mem_search_start(&from, m, lo);
    mem_search_start(&end, m, hi);
    for (unsigned level = MEM_LEVELS; level-- > 0 && !from.damaged && !end.damaged;) {
        x = last_before(&from, x, level);
        n = count_level(&end, hi.data != NULL, x, level) << 2 * level;
        if (n >> 2 * level >= SAMPLE) {
            break;
        }
    }
    return n;
}
