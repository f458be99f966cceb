/* read.c - looking up and walking, from any process, while the writer goes on.
 *
 * A reader has a sequence number and takes of each key the newest version that is not newer; a key whose
 * versions are all newer is not there for it. What it finds is in the log: the index only says where. So a
 * hit is believed only when the log's entry really carries the key, and a walk only while keys ascend: noise
 * in the index can hide entries, it cannot invent any, and it cannot make a walk go round in circles.
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
    struct wal_entry e;
    uint64_t found;
    uint32_t before, entry;
    bool equal;
    mem_search_start(&s, m, key);
    uint32_t ref = mem_search_run(&s, false, &equal, &before);
    if (BASE_UNLIKELY(s.damaged)) {
        return mem_damaged(m, "links or log offsets out of bounds, met", (uint64_t)ref * MEM_UNIT);
    }
    if (!equal) {
        return SHALE_NOTFOUND;
    }
    int rc = mem_chain_find(m, mem_node_at(m, ref), seq, &found, &entry);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!mem_entry_at(m, entry, &e) || !slice_equal(e.key, key)) {
        return mem_damaged(m, "version of another key", (uint64_t)ref * MEM_UNIT);
    }
    *hit = (struct mem_hit){found, e.type, e.value};
    return SHALE_OK;
}

/* ---- iterator ---- */

void mem_iter_init(struct mem_iter *it, const struct mem_index *m, uint64_t seq)
{
    *it = (struct mem_iter){.mem = m, .seq = seq};
}

static int invalidate(struct mem_iter *it, int rc)
{
    it->node = 0;
    return rc;
}

/* Puts the iterator on the node, if its snapshot may see the key. SHALE_NOTFOUND: it may not. */
static int settle(struct mem_iter *it, uint32_t ref)
{
    const struct mem_index *m = it->mem;
    const struct mem_node *n = mem_node_at(m, ref);
    struct wal_entry e;
    uint64_t seq;
    uint32_t entry;
    if (n == NULL) {
        return mem_damaged(m, "link out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    int rc = mem_chain_find(m, n, it->seq, &seq, &entry);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!mem_entry_at(m, entry, &e)) {
        return mem_damaged(m, "log offset out of bounds", (uint64_t)ref * MEM_UNIT);
    }
    it->node = ref;
    it->key = e.key;
    it->value = e.value;
    it->type = e.type;
    it->entry_seq = seq;
    it->entry_offset = entry;
    return SHALE_OK;
}

/* Goes forward from the node `ref`, itself included, to the first one that is visible. */
static int forward(struct mem_iter *it, uint32_t ref)
{
    uint64_t steps = it->mem->size / sizeof(struct mem_node);
    while (ref != 0) {
        int rc = settle(it, ref);
        if (rc != SHALE_NOTFOUND) {
            return rc == SHALE_OK ? rc : invalidate(it, rc);
        }
        if (steps-- == 0) {
            return invalidate(it, mem_damaged(it->mem, "links in a circle", (uint64_t)ref * MEM_UNIT));
        }
        ref = mem_next(it->mem, ref, 0);
    }
    return invalidate(it, SHALE_NOTFOUND);
}

/* The last node with a lesser key, or MEM_HEAD. */
static int node_before(const struct mem_iter *it, struct slice key, uint32_t *before)
{
    struct mem_search s;
    bool equal;
    mem_search_start(&s, it->mem, key);
    (void)mem_search_run(&s, true, &equal, before);
    return s.damaged ? mem_damaged(it->mem, "links or log offsets out of bounds", 0) : SHALE_OK;
}

/* Goes back from the node `ref`, itself included, to the first one that is visible. A node knows only what
 * follows it: the one before it is searched from the top. */
static int backward(struct mem_iter *it, uint32_t ref)
{
    uint64_t steps = it->mem->size / sizeof(struct mem_node);
    while (ref != MEM_HEAD) {
        struct wal_entry e;
        int rc = settle(it, ref);
        if (rc != SHALE_NOTFOUND) {
            return rc == SHALE_OK ? rc : invalidate(it, rc);
        }
        if (steps-- == 0 || !mem_entry_at(it->mem, mem_node_at(it->mem, ref)->entry, &e)) {
            return invalidate(
                it, mem_damaged(it->mem, "links or log offsets out of bounds", (uint64_t)ref * MEM_UNIT));
        }
        rc = node_before(it, e.key, &ref);
        if (rc != SHALE_OK) {
            return invalidate(it, rc);
        }
    }
    return invalidate(it, SHALE_NOTFOUND);
}

int mem_iter_first(struct mem_iter *it)
{
    return forward(it, mem_next(it->mem, MEM_HEAD, 0));
}

int mem_iter_last(struct mem_iter *it)
{
    struct mem_search s;
    mem_search_start(&s, it->mem, slice_make(NULL, 0));
    uint32_t last = mem_search_last(&s);
    return s.damaged ? invalidate(it, mem_damaged(it->mem, "links out of bounds", 0)) : backward(it, last);
}

/* at_or_before: go to the last <= key, else to the first >= key. */
static int seek(struct mem_iter *it, struct slice key, bool at_or_before)
{
    struct mem_search s;
    bool equal;
    uint32_t before;
    mem_search_start(&s, it->mem, key);
    uint32_t ref = mem_search_run(&s, false, &equal, &before);
    if (s.damaged) {
        return invalidate(it, mem_damaged(it->mem, "links or log offsets out of bounds", 0));
    }
    return at_or_before ? backward(it, equal ? ref : before) : forward(it, ref);
}

int mem_iter_seek(struct mem_iter *it, struct slice key)
{
    return seek(it, key, false);
}

int mem_iter_seek_for_prev(struct mem_iter *it, struct slice key)
{
    return seek(it, key, true);
}

int mem_iter_next(struct mem_iter *it)
{
    if (it->node == 0) {
        return SHALE_NOTFOUND;
    }
    struct slice old = it->key;
    int rc = forward(it, mem_next(it->mem, it->node, 0));
    if (rc == SHALE_OK && slice_compare(it->key, old) <= 0) {
        return invalidate(it, mem_damaged(it->mem, "keys out of order", (uint64_t)it->node * MEM_UNIT));
    }
    return rc;
}

int mem_iter_prev(struct mem_iter *it)
{
    uint32_t before;
    if (it->node == 0) {
        return SHALE_NOTFOUND;
    }
    struct slice old = it->key;
    int rc = node_before(it, old, &before);
    if (rc != SHALE_OK) {
        return invalidate(it, rc);
    }
    rc = backward(it, before);
    if (rc == SHALE_OK && slice_compare(it->key, old) >= 0) {
        return invalidate(it, mem_damaged(it->mem, "keys out of order", (uint64_t)it->node * MEM_UNIT));
    }
    return rc;
}

uint64_t mem_iter_versions(const struct mem_iter *it)
{
    const struct mem_node *n = mem_node_at(it->mem, it->node);
    const struct mem_version *v =
        n == NULL ? NULL : mem_version_at(it->mem, atomic_load_explicit(&n->versions, memory_order_acquire));
    return v != NULL ? v->depth + UINT64_C(1) : n != NULL;
}
