/* check.c - is the whole structure as it should be? For tests, for `verify`, and for gdb.
 *
 * One walk along level 0, on which every node must be met, keys ascending. The higher levels are walked
 * beside it: each waits at its next node until the walk comes by, and must have come to its end with the
 * walk. A node may miss from a higher level, though it is tall enough: its writer was killed between two
 * links [I-16].
 */
#include "mem/arena.h"

struct check {
    const struct mem_index *mem;
    uint64_t end; /* of the arena, in units */
    uint32_t waiting[MEM_LEVELS];
    struct slice last; /* the key of the node before */
};

static int check_key(const struct check *c, uint32_t ref, uint32_t entry, struct slice want)
{
    struct wal_entry e;
    if (!mem_entry_at(c->mem, entry, &e)) {
        return mem_damaged(c->mem, "log offset out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    if (!slice_equal(e.key, want)) {
        return mem_damaged(c->mem, "version of another key", (uint64_t)ref * MEM_UNIT);
    }
    return SHALE_OK;
}

/* 0 is the version in the node; one that cannot be there is found when the walk comes to it. */
static uint32_t depth_of(const struct mem_index *m, uint32_t ref)
{
    const struct mem_version *v = mem_version_at(m, ref);
    return v != NULL ? v->depth : 0;
}

static uint32_t jump_of(const struct mem_index *m, uint32_t ref)
{
    const struct mem_version *v = mem_version_at(m, ref);
    return v != NULL ? v->jump : 0;
}

static uint64_t seq_of(const struct mem_index *m, const struct mem_node *n, uint32_t ref)
{
    return ref != 0 ? mem_version_at(m, ref)->seq : n->seq_height >> 8;
}

/* The jump that a version in front of `prev` must have (chain.c): that is what makes chains short to search.
 */
static uint32_t jump_over(const struct mem_index *m, uint32_t prev)
{
    uint32_t jump = jump_of(m, prev), twice = jump_of(m, jump);
    bool equal = depth_of(m, prev) - depth_of(m, jump) == depth_of(m, jump) - depth_of(m, twice);
    return prev == 0 || equal ? twice : prev;
}

static bool older_ref(const struct check *c, uint32_t ref, uint32_t below)
{
    return ref == 0 || (ref < below && mem_version_at(c->mem, ref) != NULL);
}

static int check_chain(const struct check *c, const struct mem_node *n, struct slice key)
{
    const struct mem_index *m = c->mem;
    uint32_t ref = atomic_load_explicit(&n->versions, memory_order_acquire);
    uint32_t below = (uint32_t)c->end;
    while (ref != 0) {
        const struct mem_version *v = older_ref(c, ref, below) ? mem_version_at(m, ref) : NULL;
        if (v == NULL || !older_ref(c, v->prev, ref)) {
            return mem_damaged(m, "version with references out of bounds", (uint64_t)ref * MEM_UNIT);
        }
        if (v->depth != depth_of(m, v->prev) + 1 || v->seq <= seq_of(m, n, v->prev)) {
            return mem_damaged(m, "version out of order", (uint64_t)ref * MEM_UNIT);
        }
        if (v->jump != jump_over(m, v->prev)) {
            return mem_damaged(m, "version that jumps to the wrong place", (uint64_t)ref * MEM_UNIT);
        }
        int rc = check_key(c, ref, v->entry, key);
        if (rc != SHALE_OK) {
            return rc;
        }
        below = ref;
        ref = v->prev;
    }
    return SHALE_OK;
}

static int check_node(struct check *c, uint32_t ref)
{
    const struct mem_index *m = c->mem;
    const struct mem_node *n = mem_node_at(m, ref);
    struct wal_entry e;
    if (n == NULL || ref >= c->end) {
        return mem_damaged(m, "link out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    if (!mem_entry_at(m, n->entry, &e)) {
        return mem_damaged(m, "log offset out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    struct mem_key key = mem_key_make(e.key);
    if (key.head[0] != n->head[0] || key.head[1] != n->head[1]) {
        return mem_damaged(m, "head of another key", (uint64_t)ref * MEM_UNIT);
    }
    if (c->last.data != NULL && slice_compare(c->last, e.key) >= 0) {
        return mem_damaged(m, "keys out of order", (uint64_t)ref * MEM_UNIT);
    }
    unsigned height = (unsigned)(n->seq_height & 0xff);
    if (height < 1 || height > MEM_LEVELS) {
        return mem_damaged(m, "tower of no possible height", (uint64_t)ref * MEM_UNIT);
    }
    c->last = e.key;
    for (unsigned level = 0; level < MEM_LEVELS; level++) {
        if (c->waiting[level] != ref) {
            continue;
        }
        if (level >= height) {
            return mem_damaged(m, "link above the tower", (uint64_t)ref * MEM_UNIT);
        }
        c->waiting[level] = mem_next(m, ref, level);
    }
    return check_chain(c, n, e.key);
}

int mem_check(const struct mem_index *m)
{
    struct check c = {.mem = m};
    uint64_t steps = m->size / sizeof(struct mem_node);
    c.end = atomic_load_explicit(&mem_header(m)->end, memory_order_acquire);
    if (c.end < MEM_FIRST / MEM_UNIT || c.end * MEM_UNIT > m->size) {
        return mem_damaged(m, "end of the arena", c.end * MEM_UNIT);
    }
    for (unsigned level = 0; level < MEM_LEVELS; level++) {
        c.waiting[level] = mem_next(m, MEM_HEAD, level);
    }
    while (c.waiting[0] != 0) {
        if (steps-- == 0) {
            return mem_damaged(m, "links in a circle", (uint64_t)c.waiting[0] * MEM_UNIT);
        }
        int rc = check_node(&c, c.waiting[0]);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    for (unsigned level = 1; level < MEM_LEVELS; level++) {
        if (c.waiting[level] != 0) {
            return mem_damaged(m, "node that level 0 does not have", (uint64_t)c.waiting[level] * MEM_UNIT);
        }
    }
    return SHALE_OK;
}
