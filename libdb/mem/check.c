/* check.c - is the whole structure as it should be? For tests, for `verify`, and for gdb.
 *
 * Each level is walked from its leftmost node to the right, keys ascending; beside it the level below, on
 * which every child must be met, in this order. A node may miss from the level above: its writer was killed
 * before it told the parent. What the right half of an unfinished split has counts there, not in the left
 * half [I-16].
 */
#include "mem/arena.h"

struct check {
    const struct mem_index *mem;
    uint64_t end; /* of the arena, in units */
    uint64_t steps;
    uint32_t splitting;
    unsigned level;
    uint32_t below;    /* on the level below: the node that was met last; 0: none */
    struct slice last; /* the key of the entry before */
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

/* 0 is the version in the record; one that cannot be there is found when the walk comes to it. */
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

static uint64_t seq_of(const struct mem_index *m, const struct mem_record *r, uint32_t ref)
{
    return ref != 0 ? mem_version_at(m, ref)->seq : r->seq;
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

static int check_chain(const struct check *c, const struct mem_record *r, struct slice key)
{
    const struct mem_index *m = c->mem;
    uint32_t ref = atomic_load_explicit(&r->versions, memory_order_acquire);
    uint32_t below = (uint32_t)c->end;
    while (ref != 0) {
        const struct mem_version *v = older_ref(c, ref, below) ? mem_version_at(m, ref) : NULL;
        if (v == NULL || !older_ref(c, v->prev, ref)) {
            return mem_damaged(m, "version with references out of bounds", (uint64_t)ref * MEM_UNIT);
        }
        if (v->depth != depth_of(m, v->prev) + 1 || v->seq <= seq_of(m, r, v->prev)) {
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

/* The node, if it can be one and lies below the end of the arena. */
static const struct mem_node *node_at(const struct check *c, uint32_t ref, unsigned level)
{
    const struct mem_node *n = mem_node_at(c->mem, ref);
    return n != NULL && ref + sizeof *n / MEM_UNIT <= c->end && mem_level(n) == level ? n : NULL;
}

static int check_record(const struct check *c, uint32_t ref, uint32_t entry, struct slice key)
{
    const struct mem_record *r = mem_record_at(c->mem, ref);
    if (r == NULL || ref >= c->end) {
        return mem_damaged(c->mem, "record out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    if (r->entry != entry) {
        return mem_damaged(c->mem, "record of another entry", (uint64_t)ref * MEM_UNIT);
    }
    if (!mem_may_hold(c->mem, key_hash(key))) {
        return mem_damaged(c->mem, "record that the filter does not know", (uint64_t)ref * MEM_UNIT);
    }
    return check_chain(c, r, key);
}

/* The child must be on the level below, at or to the right of the one before, and begin with the separator.
 */
static int check_child(struct check *c, uint32_t ref, const struct mem_node *n, unsigned slot, bool leftmost)
{
    const struct mem_node *child = node_at(c, ref, c->level - 1);
    if (child == NULL) {
        return mem_damaged(c->mem, "child out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    if (!leftmost && (atomic_load(&child->entries[0]) != atomic_load(&n->entries[slot]) ||
                      atomic_load(&child->head[0][0]) != atomic_load(&n->head[0][slot]) ||
                      atomic_load(&child->head[1][0]) != atomic_load(&n->head[1][slot]))) {
        return mem_damaged(c->mem, "child that begins with another key", (uint64_t)ref * MEM_UNIT);
    }
    while (c->below != ref) {
        const struct mem_node *b = c->below != 0 && !leftmost ? node_at(c, c->below, c->level - 1) : NULL;
        if (c->below == 0 && leftmost) {
            c->below = ref;
            break;
        }
        if (b == NULL || c->steps-- == 0) {
            return mem_damaged(c->mem, "child that its level does not have", (uint64_t)ref * MEM_UNIT);
        }
        c->below = mem_next(b);
    }
    return SHALE_OK;
}

static int check_entry(struct check *c, uint32_t ref, const struct mem_node *n, unsigned slot, bool leftmost)
{
    struct wal_entry e;
    uint32_t to = atomic_load(&n->refs[slot]), entry = atomic_load(&n->entries[slot]);
    if (leftmost) {
        return check_child(c, to, n, slot, true);
    }
    if (!mem_entry_at(c->mem, entry, &e)) {
        return mem_damaged(c->mem, "log offset out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    struct mem_key key = mem_key_make(e.key);
    if (key.head[0] != atomic_load(&n->head[0][slot]) || key.head[1] != atomic_load(&n->head[1][slot])) {
        return mem_damaged(c->mem, "head of another key", (uint64_t)ref * MEM_UNIT);
    }
    if (c->last.data != NULL && slice_compare(c->last, e.key) >= 0) {
        return mem_damaged(c->mem, "keys out of order", (uint64_t)ref * MEM_UNIT);
    }
    c->last = e.key;
    return c->level == 0 ? check_record(c, to, entry, e.key) : check_child(c, to, n, slot, false);
}

static int check_node(struct check *c, uint32_t ref, const struct mem_node *n, bool leftmost)
{
    uint64_t perm = atomic_load(&n->perm);
    unsigned count = mem_count(perm), seen = 0;
    uint32_t right = mem_next(n);
    const struct mem_node *r = right != 0 ? mem_node_at(c->mem, right) : NULL;
    for (unsigned pos = 0; pos < MEM_WIDTH; pos++) {
        seen |= 1u << (perm >> (4 * pos + 4) & 15);
    }
    if (count == 0 || seen != (1u << MEM_WIDTH) - 1 || (!leftmost && mem_slot(perm, 0) != 0)) {
        return mem_damaged(c->mem, "order of a node's slots", (uint64_t)ref * MEM_UNIT);
    }
    for (unsigned pos = 0; pos < count; pos++) {
        unsigned slot = mem_slot(perm, pos);
        if (ref == c->splitting && r != NULL && atomic_load(&n->refs[slot]) == atomic_load(&r->refs[0])) {
            break;
        }
        int rc = check_entry(c, ref, n, slot, leftmost && pos == 0 && c->level != 0);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    return SHALE_OK;
}

static int check_level(struct check *c, uint32_t first)
{
    c->below = 0;
    c->last = slice_make(NULL, 0);
    for (uint32_t ref = first; ref != 0;) {
        const struct mem_node *n = node_at(c, ref, c->level);
        if (n == NULL) {
            return mem_damaged(c->mem, "node out of bounds", (uint64_t)ref * MEM_UNIT);
        }
        if (c->steps-- == 0) {
            return mem_damaged(c->mem, "links in a circle", (uint64_t)ref * MEM_UNIT);
        }
        int rc = check_node(c, ref, n, ref == first);
        if (rc != SHALE_OK) {
            return rc;
        }
        ref = mem_next(n);
    }
    return SHALE_OK;
}

int mem_check(const struct mem_index *m)
{
    struct check c = {.mem = m, .steps = 2 * m->size / sizeof(struct mem_node)};
    c.end = atomic_load_explicit(&mem_header(m)->end, memory_order_acquire);
    c.splitting = atomic_load_explicit(&mem_header(m)->splitting, memory_order_acquire);
    if (c.end < MEM_FIRST / MEM_UNIT || c.end * MEM_UNIT > m->size) {
        return mem_damaged(m, "end of the arena", c.end * MEM_UNIT);
    }
    uint32_t first = mem_root(m);
    const struct mem_node *n = first != 0 ? mem_node_at(m, first) : NULL;
    c.level = n != NULL ? mem_level(n) : 0;
    if (first != 0 && (n == NULL || c.level >= MEM_LEVELS)) {
        return mem_damaged(m, "root", (uint64_t)first * MEM_UNIT);
    }
    while (first != 0) {
        int rc = check_level(&c, first);
        if (rc != SHALE_OK || c.level == 0) {
            return rc;
        }
        n = mem_node_at(m, first);
        first = mem_ref_at(n, atomic_load(&n->perm), 0);
        c.level--;
    }
    return SHALE_OK;
}
