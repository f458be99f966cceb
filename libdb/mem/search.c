/* search.c - finding a key's place, in a tree that another process is changing.
 *
 * In a node: how many heads are less than the key's is counted over all slots, without a branch and without
 * regard to the order of the slots. Slots without an entry hold all ones and do not count. The count is only
 * a guess, though: the writer may be filling a slot that no permutation names yet, or a killed one left it
 * so. So the neighbours that the permutation gives the guess are looked at, and where they do not surround
 * the key, the entries are gone through in their order. The log is read only where 16 bytes are alike.
 *
 * [I-16] A slot that the permutation names does not change, until a split takes it away: the split shortens
 * the permutation, raises `splits`, and only then may the slot be filled anew (insert.h). So whatever was
 * read by a permutation counts if `splits`, loaded before the permutation, is the same afterwards; else the
 * node is looked at again. It cannot happen for ever: between two splits of a node it is given at least six
 * entries.
 *
 * From node to node: a child is gone to that may have been split since, and whose parent may not know yet, or
 * never will (the writer was killed). Then the key is behind the child's last entry and not below the right
 * neighbour's least key, and the search goes there (Lehman, Yao, "Efficient locking for concurrent operations
 * on B-trees", TODS 1981). Entries only move to the right, so this always finds the place.
 *
 * What a reader sees may be of a while ago; that is harmless, since
 *
 *   - what it finds in a leaf is the key's record, which both halves of a split name, and which never moves:
 *     all versions are there, whichever half it was found in;
 *   - a key that it must find was put in before the sequence number was published that it reads by: it sees
 *     the permutation that named the key, or a later one, and of the splits that came before no less than the
 *     writer did.
 *
 * The bytes may be anything. Every reference is checked before it is followed, every slot number is one that
 * there is, levels go down by one, and steps to the right and repeated looks are counted.
 */
#include "mem/arena.h"

int mem_damaged(const struct mem_index *m, const char *what, uint64_t where)
{
    return err_set(SHALE_CORRUPT, "%06u.mem: %s at %llu", m->seg->number, what, (unsigned long long)where);
}

void mem_search_start(struct mem_search *s, const struct mem_index *m, struct slice key)
{
    s->mem = m;
    s->key = mem_key_make(key);
    s->steps = m->size / sizeof(struct mem_node);
    s->damaged = false;
    s->hopped = 0;
}

static uint64_t head_at(const struct mem_node *n, unsigned half, unsigned slot)
{
    return atomic_load_explicit(&n->head[half][slot], memory_order_relaxed);
}

static bool less(const struct mem_node *n, unsigned slot, const uint64_t head[2])
{
    uint64_t high = head_at(n, 0, slot);
    return high < head[0] || (high == head[0] && head_at(n, 1, slot) < head[1]);
}

static bool alike(const struct mem_node *n, unsigned slot, const uint64_t head[2])
{
    return head_at(n, 0, slot) == head[0] && head_at(n, 1, slot) == head[1];
}

/* The key of the entry in the log against the searched one. */
static int compare_tails(struct mem_search *s, const struct mem_node *n, unsigned slot)
{
    struct wal_entry e;
    if (!mem_entry_at(s->mem, atomic_load_explicit(&n->entries[slot], memory_order_relaxed), &e)) {
        s->damaged = true;
        return 1;
    }
    return slice_compare(e.key, s->key.bytes);
}

int mem_compare_low(struct mem_search *s, const struct mem_node *n)
{
    if (less(n, 0, s->key.head)) {
        return -1;
    }
    return alike(n, 0, s->key.head) ? compare_tails(s, n, 0) : 1;
}

/* ---- in a node ---- */

/* How many first halves of all slots are less. */
static unsigned rank_high(const struct mem_node *n, uint64_t high)
{
    unsigned rank = 0;
#pragma GCC unroll 15
    for (unsigned i = 0; i < MEM_WIDTH; i++) {
        rank += head_at(n, 0, i) < high;
    }
    return rank;
}

/* How many have the same first half, and a lesser second one. */
static unsigned rank_low(const struct mem_node *n, const uint64_t head[2])
{
    unsigned rank = 0;
#pragma GCC unroll 15
    for (unsigned i = 0; i < MEM_WIDTH; i++) {
        /* no && : nothing to be predicted */
        rank += (unsigned)(head_at(n, 0, i) == head[0]) & (unsigned)(head_at(n, 1, i) < head[1]);
    }
    return rank;
}

/* How many of the entries have a lesser head, one by one. */
static unsigned count_below(const struct mem_node *n, uint64_t perm, const uint64_t head[2])
{
    unsigned pos = 0;
    while (pos < mem_count(perm) && less(n, mem_slot(perm, pos), head)) {
        pos++;
    }
    return pos;
}

/* The same, by a guess. */
static unsigned entries_below(const struct mem_node *n, uint64_t perm, const uint64_t head[2])
{
    unsigned count = mem_count(perm), pos = rank_high(n, head[0]);
    if (pos < count) {
        unsigned slot = mem_slot(perm, pos);
        uint64_t high = head_at(n, 0, slot);
        if (high == head[0] && head_at(n, 1, slot) < head[1]) {
            pos += rank_low(n, head);
            if (pos < count && less(n, mem_slot(perm, pos), head)) {
                return count_below(n, perm, head);
            }
        } else if (BASE_UNLIKELY(high < head[0])) {
            return count_below(n, perm, head);
        }
    }
    if (BASE_LIKELY(pos <= count && (pos == 0 || less(n, mem_slot(perm, pos - 1), head)))) {
        return pos;
    }
    return count_below(n, perm, head);
}

/* From `pos` on: the first entry >= the key, among those with the key's head. */
static unsigned break_tie(struct mem_search *s, const struct mem_node *n, uint64_t perm, unsigned pos,
                          bool *equal)
{
    unsigned count = mem_count(perm), end = pos;
    while (end < count && alike(n, mem_slot(perm, end), s->key.head)) {
        end++;
    }
    while (pos < end) {
        unsigned middle = pos + (end - pos) / 2;
        int c = compare_tails(s, n, mem_slot(perm, middle));
        if (c == 0) {
            *equal = true;
            return middle;
        }
        if (c < 0) {
            pos = middle + 1;
        } else {
            end = middle;
        }
    }
    return pos;
}

static void look_once(struct mem_search *s, const struct mem_node *n, bool inner, bool strict,
                      struct mem_spot *at)
{
    const uint64_t perm = at->perm;
    unsigned count = mem_count(perm), pos = entries_below(n, perm, s->key.head);
    bool equal = false;
    if (pos < inner) {
        pos = inner; /* whatever the first separator says, what is below the second is there */
    }
    if (pos < count) {
        unsigned slot = mem_slot(perm, pos);
        if (alike(n, slot, s->key.head)) {
            if (!inner) { /* the record comes while the log is asked whether the key is this one */
                mem_prefetch(s->mem, atomic_load_explicit(&n->refs[slot], memory_order_relaxed));
            }
            pos = break_tie(s, n, perm, pos, &equal);
        }
    }
    at->pos = pos;
    at->equal = equal;
    if (inner) {
        at->ref = mem_ref_at(n, perm, pos - !(equal && !strict));
    } else {
        at->ref = pos < count ? mem_ref_at(n, perm, pos) : 0;
    }
}

/* One of the steps that are many only where noise leads round in circles. */
static bool step(struct mem_search *s)
{
    if (s->steps == 0) {
        s->damaged = true;
        return false;
    }
    s->steps--;
    return true;
}

/* The same, of one state of the node. */
static inline void look(struct mem_search *s, const struct mem_node *n, bool inner, bool strict,
                        struct mem_spot *at)
{
    const bool damaged = s->damaged;
    for (;;) {
        at->splits = atomic_load_explicit(&n->splits, memory_order_acquire);
        at->perm = atomic_load_explicit(&n->perm, memory_order_acquire);
        look_once(s, n, inner, strict, at);
        atomic_thread_fence(memory_order_acquire);
        if (BASE_LIKELY(atomic_load_explicit(&n->splits, memory_order_relaxed) == at->splits)) {
            return;
        }
        s->damaged = damaged;
        if (!step(s)) {
            return;
        }
    }
}

void mem_look(struct mem_search *s, uint32_t node, struct mem_spot *at)
{
    const struct mem_node *n = mem_node_at(s->mem, node);
    at->node = node;
    if (n == NULL) {
        s->damaged = true;
        return;
    }
    look(s, n, mem_level(n) != 0, false, at);
}

/* ---- from node to node ---- */

/* The node there, if it is of this level; NULL: damaged. */
static inline const struct mem_node *enter(struct mem_search *s, uint32_t ref, unsigned level)
{
    const struct mem_node *n = mem_node_at(s->mem, ref);
    if (BASE_LIKELY(n != NULL)) {
        mem_prefetch_node(n);
        if (BASE_LIKELY(mem_level(n) == level)) {
            return n;
        }
    }
    s->damaged = true;
    return NULL;
}

/* The right neighbour, if the key belongs there, or farther on. NULL: it does not. */
static const struct mem_node *hop(struct mem_search *s, const struct mem_node *n, unsigned level, bool strict,
                                  uint32_t *ref)
{
    uint32_t right = mem_next(n);
    const struct mem_node *r = right != 0 ? enter(s, right, level) : NULL;
    if (r == NULL) {
        return NULL;
    }
    int c = mem_compare_low(s, r);
    if (s->damaged || (strict ? c >= 0 : c > 0) || !step(s)) {
        return NULL;
    }
    s->hopped |= 1u << level;
    *ref = right;
    return r;
}

void mem_find(struct mem_search *s, uint32_t from, unsigned to, bool strict, struct mem_spot *at)
{
    uint32_t ref = from != 0 ? from : mem_root(s->mem);
    *at = (struct mem_spot){.node = ref};
    if (ref == 0) {
        return;
    }
    const struct mem_node *n = mem_node_at(s->mem, ref);
    unsigned level = n != NULL ? mem_level(n) : MEM_LEVELS;
    if (BASE_UNLIKELY(level >= MEM_LEVELS || level < to)) {
        s->damaged = true;
        return;
    }
    for (;;) {
        s->path[level] = ref;
        look(s, n, level != 0, strict, at);
        at->node = ref;
        if (at->pos >= mem_count(at->perm) && !s->damaged) {
            const struct mem_node *right = hop(s, n, level, strict, &ref);
            if (right != NULL) {
                n = right;
                continue;
            }
        }
        if (BASE_UNLIKELY(s->damaged)) {
            return;
        }
        if (level == to) {
            return;
        }
        ref = at->ref;
        n = enter(s, ref, --level);
        if (BASE_UNLIKELY(n == NULL)) {
            return;
        }
    }
}

void mem_find_last(struct mem_search *s, struct mem_spot *at)
{
    uint32_t ref = mem_root(s->mem);
    *at = (struct mem_spot){.node = ref};
    if (ref == 0) {
        return;
    }
    const struct mem_node *n = mem_node_at(s->mem, ref);
    unsigned level = n != NULL ? mem_level(n) : MEM_LEVELS;
    s->damaged |= level >= MEM_LEVELS;
    while (!s->damaged && step(s)) {
        at->node = ref;
        at->splits = atomic_load_explicit(&n->splits, memory_order_acquire);
        at->perm = atomic_load_explicit(&n->perm, memory_order_acquire);
        at->pos = mem_count(at->perm);
        ref = mem_next(n);
        if (ref == 0) {
            if (level == 0) {
                return;
            }
            ref = mem_ref_at(n, at->perm, at->pos != 0 ? at->pos - 1 : 0);
            level--;
        }
        n = enter(s, ref, level);
    }
}
