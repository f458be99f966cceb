/* iter.c - walking through the keys, from any process, while the writer goes on.
 *
 * An iterator remembers where in a leaf it found its key, as of then. While the leaf has not been split the
 * entries that it named are there still, and are gone through without a search; others may have come between
 * them, but none that the iterator's sequence number may see. After a split, and at the leaf's end, the place
 * is searched by the key: to the right of it from the leaf itself; to the left from the root, for a leaf
 * knows only what follows it. (By the key also where the next leaf is entered: while a split is not finished,
 * that has entries that this one has as well.)
 *
 * As in read.c, what counts is the log: a walk goes on only while keys ascend, or descend, so that noise
 * cannot make it go round in circles.
 */
#include "mem/arena.h"

#define AHEAD 4u /* entries whose records and bytes in the log are fetched before they are looked at */

void mem_iter_init(struct mem_iter *it, const struct mem_index *m, uint64_t seq)
{
    *it = (struct mem_iter){.mem = m, .seq = seq};
}

static int invalidate(struct mem_iter *it, int rc)
{
    it->record = 0;
    return rc;
}

static int damaged(const struct mem_index *m, uint32_t ref)
{
    return mem_damaged(m, "links or log offsets out of bounds, met", (uint64_t)ref * MEM_UNIT);
}

/* Puts the iterator on the record, if its snapshot may see the key. SHALE_NOTFOUND: it may not. */
static int settle(struct mem_iter *it, const struct mem_spot *at)
{
    const struct mem_index *m = it->mem;
    const struct mem_record *r = mem_record_at(m, at->ref);
    struct wal_entry e;
    uint64_t seq;
    uint32_t entry;
    if (r == NULL) {
        return mem_damaged(m, "record out of bounds", (uint64_t)at->ref * MEM_UNIT);
    }
    int rc = mem_chain_find(m, r, it->seq, &seq, &entry);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!mem_entry_at(m, entry, &e)) {
        return mem_damaged(m, "log offset out of bounds", (uint64_t)at->ref * MEM_UNIT);
    }
    it->record = at->ref;
    it->key = e.key;
    it->value = e.value;
    it->type = e.type;
    it->entry_seq = seq;
    it->entry_offset = entry;
    it->node = at->node;
    it->splits = at->splits;
    it->perm = at->perm;
    it->pos = at->pos;
    return SHALE_OK;
}

static struct mem_spot spot_of(const struct mem_iter *it)
{
    return (struct mem_spot){
        .node = it->node, .splits = it->splits, .perm = it->perm, .pos = it->pos, .ref = it->record};
}

/* The key of a record that the snapshot may not see. */
static int key_of(const struct mem_index *m, uint32_t ref, struct slice *key)
{
    const struct mem_record *r = mem_record_at(m, ref);
    struct wal_entry e;
    if (r == NULL || !mem_entry_at(m, r->entry, &e)) {
        return damaged(m, ref);
    }
    *key = e.key;
    return SHALE_OK;
}

/* Has no slot been freed since? Whatever was read from the node before counts then. */
static bool unchanged(const struct mem_node *n, const struct mem_spot *at)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&n->splits, memory_order_relaxed) == at->splits;
}

/* The record in place pos of a node, and its bytes in the log. Past the last place: of the leaf behind it.
 * What is read may be of any age: nothing but a hint comes of it. */
static void prefetch(const struct mem_index *m, const struct mem_node *n, uint64_t perm, unsigned pos)
{
    if (pos >= mem_count(perm)) {
        pos -= mem_count(perm);
        n = mem_node_at(m, mem_next(n));
        perm = n != NULL ? atomic_load_explicit(&n->perm, memory_order_relaxed) : 0;
    }
    if (pos < mem_count(perm)) {
        unsigned slot = mem_slot(perm, pos);
        uintptr_t entry =
            (uintptr_t)m->seg->map + atomic_load_explicit(&n->entries[slot], memory_order_relaxed);
        mem_prefetch(m, atomic_load_explicit(&n->refs[slot], memory_order_relaxed));
        BASE_PREFETCH((const void *)entry);
        BASE_PREFETCH((const void *)(entry + BASE_CACHELINE));
    }
}

/* Where a walk upwards comes into a leaf: the next entries, and the leaf behind it. */
static void prefetch_leaf(const struct mem_index *m, const struct mem_spot *at)
{
    const struct mem_node *n = mem_node_at(m, at->node);
    const struct mem_node *right = mem_node_at(m, mem_next(n));
    if (right != NULL) {
        mem_prefetch_node(right);
    }
    for (unsigned i = 0; i <= AHEAD; i++) {
        prefetch(m, n, at->perm, at->pos + i);
    }
}

/* ---- upwards ---- */

/* To the next entry of the same leaf, and which leaf is to be searched if that cannot be told: this one, or
 * the one behind it (0: there is none). */
static bool step_right(const struct mem_index *m, struct mem_spot *at, uint32_t *from)
{
    const struct mem_node *n = mem_node_at(m, at->node);
    unsigned pos = at->pos + 1, count = mem_count(at->perm);
    uint32_t right = mem_next(n), ref = pos < count ? mem_ref_at(n, at->perm, pos) : 0;
    *from = at->node;
    if (BASE_LIKELY(unchanged(n, at))) {
        if (BASE_LIKELY(pos < count)) {
            at->pos = pos;
            at->ref = ref;
            prefetch(m, n, at->perm, pos + AHEAD);
            return true;
        }
        *from = right;
    }
    return false;
}

/* From the entry at *at, whose key it is, to the next one. SHALE_NOTFOUND: there is none. */
static int step_up(const struct mem_index *m, struct mem_spot *at, struct slice key)
{
    struct mem_search s;
    uint32_t from;
    if (BASE_LIKELY(step_right(m, at, &from))) {
        return SHALE_OK;
    }
    mem_search_start(&s, m, key);
    while (from != 0 && s.steps-- != 0) {
        mem_find(&s, from, 0, false, at);
        if (s.damaged) {
            return damaged(m, at->node);
        }
        if (!at->equal && at->ref != 0) {
            prefetch_leaf(m, at);
            return SHALE_OK;
        }
        at->pos -= !at->equal; /* behind the leaf's last entry */
        if (step_right(m, at, &from)) {
            return SHALE_OK;
        }
    }
    return from == 0 ? SHALE_NOTFOUND : mem_damaged(m, "links in a circle", (uint64_t)at->node * MEM_UNIT);
}

/* Goes up from the entry at *at, itself included, to the first one that is visible. */
static int forward(struct mem_iter *it, struct mem_spot *at)
{
    uint64_t steps = it->mem->size / sizeof(struct mem_record);
    for (;;) {
        struct slice key;
        int rc = settle(it, at);
        if (rc != SHALE_NOTFOUND) {
            return rc == SHALE_OK ? rc : invalidate(it, rc);
        }
        if (steps-- == 0) {
            return invalidate(it, mem_damaged(it->mem, "links in a circle", (uint64_t)at->node * MEM_UNIT));
        }
        rc = key_of(it->mem, at->ref, &key);
        if (rc == SHALE_OK) {
            rc = step_up(it->mem, at, key);
        }
        if (rc != SHALE_OK) {
            return invalidate(it, rc);
        }
    }
}

int mem_iter_seek(struct mem_iter *it, struct slice key)
{
    struct mem_search s;
    struct mem_spot at;
    int rc = SHALE_OK;
    mem_search_start(&s, it->mem, key);
    mem_find(&s, 0, 0, false, &at);
    if (s.damaged) {
        return invalidate(it, damaged(it->mem, at.node));
    }
    if (at.node == 0) {
        return invalidate(it, SHALE_NOTFOUND);
    }
    if (at.ref == 0) {
        at.pos--; /* behind the leaf's last entry */
        rc = step_up(it->mem, &at, key);
    } else {
        prefetch_leaf(it->mem, &at);
    }
    return rc == SHALE_OK ? forward(it, &at) : invalidate(it, rc);
}

int mem_iter_first(struct mem_iter *it)
{
    return mem_iter_seek(it, slice_make(NULL, 0));
}

int mem_iter_next(struct mem_iter *it)
{
    if (it->record == 0) {
        return SHALE_NOTFOUND;
    }
    struct slice old = it->key;
    struct mem_spot at = spot_of(it);
    int rc = step_up(it->mem, &at, old);
    rc = rc == SHALE_OK ? forward(it, &at) : invalidate(it, rc);
    if (rc == SHALE_OK && slice_compare(it->key, old) <= 0) {
        return invalidate(it, mem_damaged(it->mem, "keys out of order", (uint64_t)it->node * MEM_UNIT));
    }
    return rc;
}

/* ---- downwards ---- */

/* To the entry before, in the same leaf. */
static bool step_left(const struct mem_index *m, struct mem_spot *at)
{
    if (at->node == 0 || at->pos == 0) {
        return false;
    }
    const struct mem_node *n = mem_node_at(m, at->node);
    uint32_t ref = mem_ref_at(n, at->perm, at->pos - 1);
    if (!unchanged(n, at)) {
        return false;
    }
    at->pos--;
    at->ref = ref;
    if (at->pos >= AHEAD) {
        prefetch(m, n, at->perm, at->pos - AHEAD);
    }
    return true;
}

/* From the place *at to the entry before it; if that is not to be had there, to the last one below the key
 * (NULL: the last of all). SHALE_NOTFOUND: there is none. */
static int step_down(const struct mem_index *m, struct mem_spot *at, const struct slice *key)
{
    struct mem_search s;
    if (BASE_LIKELY(step_left(m, at))) {
        return SHALE_OK;
    }
    mem_search_start(&s, m, key != NULL ? *key : slice_make(NULL, 0));
    while (s.steps-- != 0) {
        if (key != NULL) {
            mem_find(&s, 0, 0, true, at);
        } else {
            mem_find_last(&s, at);
        }
        if (s.damaged) {
            return damaged(m, at->node);
        }
        if (at->node == 0 || at->pos == 0) {
            return SHALE_NOTFOUND;
        }
        if (step_left(m, at)) {
            return SHALE_OK;
        }
    }
    return mem_damaged(m, "links in a circle", (uint64_t)at->node * MEM_UNIT);
}

/* Goes down from the entry at *at, itself included, to the first one that is visible. */
static int backward(struct mem_iter *it, struct mem_spot *at)
{
    uint64_t steps = it->mem->size / sizeof(struct mem_record);
    for (;;) {
        struct slice key;
        int rc = settle(it, at);
        if (rc != SHALE_NOTFOUND) {
            return rc == SHALE_OK ? rc : invalidate(it, rc);
        }
        if (steps-- == 0) {
            return invalidate(it, mem_damaged(it->mem, "links in a circle", (uint64_t)at->node * MEM_UNIT));
        }
        rc = key_of(it->mem, at->ref, &key);
        if (rc == SHALE_OK) {
            rc = step_down(it->mem, at, &key);
        }
        if (rc != SHALE_OK) {
            return invalidate(it, rc);
        }
    }
}

int mem_iter_last(struct mem_iter *it)
{
    struct mem_spot at = {0};
    int rc = step_down(it->mem, &at, NULL);
    return rc == SHALE_OK ? backward(it, &at) : invalidate(it, rc);
}

int mem_iter_seek_for_prev(struct mem_iter *it, struct slice key)
{
    struct mem_search s;
    struct mem_spot at;
    int rc = SHALE_OK;
    mem_search_start(&s, it->mem, key);
    mem_find(&s, 0, 0, false, &at);
    if (s.damaged) {
        return invalidate(it, damaged(it->mem, at.node));
    }
    if (!at.equal) {
        rc = step_down(it->mem, &at, &key);
    }
    return rc == SHALE_OK ? backward(it, &at) : invalidate(it, rc);
}

int mem_iter_prev(struct mem_iter *it)
{
    if (it->record == 0) {
        return SHALE_NOTFOUND;
    }
    struct slice old = it->key;
    struct mem_spot at = spot_of(it);
    int rc = step_down(it->mem, &at, &old);
    rc = rc == SHALE_OK ? backward(it, &at) : invalidate(it, rc);
    if (rc == SHALE_OK && slice_compare(it->key, old) >= 0) {
        return invalidate(it, mem_damaged(it->mem, "keys out of order", (uint64_t)it->node * MEM_UNIT));
    }
    return rc;
}

uint64_t mem_iter_versions(const struct mem_iter *it)
{
    const struct mem_record *r = it->record != 0 ? mem_record_at(it->mem, it->record) : NULL;
    const struct mem_version *v =
        r == NULL ? NULL : mem_version_at(it->mem, atomic_load_explicit(&r->versions, memory_order_acquire));
    return v != NULL ? v->depth + UINT64_C(1) : r != NULL;
}
