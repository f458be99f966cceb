/* split.c - entries into nodes: into a free slot, or by way of a new node (the order of the stores:
 * insert.h).
 */
#include "mem/insert.h"

/* As many entries in slots 0, 1, 2 ..., and all other slots free. */
static uint64_t perm_of(unsigned count)
{
    return UINT64_C(0xedcba98765432100) | count;
}

/* The first free slot, put in as the pos-th. */
static uint64_t perm_insert(uint64_t perm, unsigned pos)
{
    unsigned count = mem_count(perm);
    uint64_t slots = perm >> 4, slot = slots >> 4 * count & 15;
    uint64_t below = slots & ((UINT64_C(1) << 4 * pos) - 1);
    uint64_t from = slots & ((UINT64_C(1) << 4 * count) - 1) & ~((UINT64_C(1) << 4 * pos) - 1);
    uint64_t behind = count + 1 < MEM_WIDTH ? slots >> 4 * (count + 1) << 4 * (count + 1) : 0;
    return (below | slot << 4 * pos | from << 4 | behind) << 4 | (count + 1);
}

static void fill_slot(struct mem_node *n, unsigned slot, const struct mem_entry *e)
{
    atomic_store_explicit(&n->head[0][slot], e->head[0], memory_order_relaxed);
    atomic_store_explicit(&n->head[1][slot], e->head[1], memory_order_relaxed);
    atomic_store_explicit(&n->refs[slot], e->ref, memory_order_relaxed);
    atomic_store_explicit(&n->entries[slot], e->entry, memory_order_relaxed);
}

static void free_slot(struct mem_node *n, unsigned slot)
{
    atomic_store_explicit(&n->head[0][slot], UINT64_MAX, memory_order_relaxed);
    atomic_store_explicit(&n->head[1][slot], UINT64_MAX, memory_order_relaxed);
}

static struct mem_entry entry_of(const struct mem_node *n, unsigned slot)
{
    return (struct mem_entry){{atomic_load_explicit(&n->head[0][slot], memory_order_relaxed),
                               atomic_load_explicit(&n->head[1][slot], memory_order_relaxed)},
                              atomic_load_explicit(&n->refs[slot], memory_order_relaxed),
                              atomic_load_explicit(&n->entries[slot], memory_order_relaxed)};
}

int mem_put_slot(struct mem_index *m, const struct mem_spot *at, const struct mem_entry *e)
{
    struct mem_node *n = mem_node_at(m, at->node);
    unsigned count = mem_count(at->perm);
    if (at->pos > count || count >= MEM_WIDTH) {
        return mem_damaged(m, "split node that is full", (uint64_t)at->node * MEM_UNIT);
    }
    fill_slot(n, mem_slot(at->perm, count), e);
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&n->perm, perm_insert(at->perm, at->pos), memory_order_release);
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

/* ---- new nodes ---- */

/* A node without entries, that nobody knows yet. */
static int make_empty(struct mem_index *m, unsigned level, uint32_t *ref)
{
    *ref = mem_take(m, sizeof(struct mem_node), BASE_CACHELINE);
    if (*ref == 0) {
        return mem_no_room(m);
    }
    struct mem_node *n = mem_node_at(m, *ref);
    atomic_store_explicit(&n->level, level, memory_order_relaxed);
    n->zero = 0;
    atomic_store_explicit(&n->splits, 0, memory_order_relaxed);
    atomic_store_explicit(&n->next, 0, memory_order_relaxed);
    atomic_store_explicit(&n->perm, perm_of(0), memory_order_relaxed);
    for (unsigned slot = 0; slot < MEM_WIDTH; slot++) {
        fill_slot(n, slot, &(struct mem_entry){{UINT64_MAX, UINT64_MAX}, 0, 0});
    }
    return SHALE_OK;
}

int mem_make_node(struct mem_index *m, unsigned level, const struct mem_entry *e, uint32_t *ref)
{
    int rc = make_empty(m, level, ref);
    if (rc == SHALE_OK) {
        fill_slot(mem_node_at(m, *ref), 0, e);
        atomic_store_explicit(&mem_node_at(m, *ref)->perm, perm_of(1), memory_order_relaxed);
        os_mark(OS_MARK_INSERT);
    }
    return rc;
}

static int make_root(struct mem_index *m, unsigned level, uint32_t old, const struct mem_entry *e)
{
    uint32_t root;
    int rc = make_empty(m, level, &root);
    if (rc != SHALE_OK) {
        return rc;
    }
    struct mem_node *n = mem_node_at(m, root);
    fill_slot(n, 0, &(struct mem_entry){{0, 0}, old, 0});
    fill_slot(n, 1, e);
    atomic_store_explicit(&n->perm, perm_of(2), memory_order_relaxed);
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&mem_header(m)->root, root, memory_order_release);
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

/* ---- splits ---- */

/* Takes away from the node what its right neighbour has of it. */
static int shorten(struct mem_index *m, struct mem_node *n)
{
    struct mem_header *h = mem_header(m);
    uint32_t right = mem_next(n);
    struct mem_node *r = right != 0 ? mem_node_at(m, right) : NULL;
    if (r == NULL && right != 0) {
        return mem_damaged(m, "split node", (uint64_t)right * MEM_UNIT);
    }
    uint64_t perm = atomic_load_explicit(&n->perm, memory_order_relaxed);
    unsigned keep = 0, count = mem_count(perm);
    uint32_t first = r != NULL ? atomic_load_explicit(&r->refs[0], memory_order_relaxed) : 0;
    while (keep < count && mem_ref_at(n, perm, keep) != first) {
        keep++;
    }
    atomic_store_explicit(&n->perm, (perm & ~UINT64_C(15)) | keep, memory_order_release);
    os_mark(OS_MARK_INSERT);
    uint32_t splits = atomic_load_explicit(&n->splits, memory_order_relaxed);
    atomic_store_explicit(&n->splits, splits + 1, memory_order_release);
    atomic_thread_fence(memory_order_release); /* before any slot changes */
    os_mark(OS_MARK_INSERT);
    for (unsigned pos = keep; pos < MEM_WIDTH; pos++) {
        free_slot(n, mem_slot(perm, pos));
    }
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&h->splitting, 0, memory_order_release);
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

int mem_finish_split(struct mem_index *m)
{
    uint32_t ref = atomic_load_explicit(&mem_header(m)->splitting, memory_order_relaxed);
    struct mem_node *n = ref != 0 ? mem_node_at(m, ref) : NULL;
    if (n == NULL) {
        return ref == 0 ? SHALE_OK : mem_damaged(m, "split node", (uint64_t)ref * MEM_UNIT);
    }
    return shorten(m, n);
}

/* Splits a full node, so that `keep` entries stay. */
static int split(struct mem_index *m, uint32_t left, unsigned keep, uint32_t *right)
{
    struct mem_node *n = mem_node_at(m, left);
    uint64_t perm = atomic_load_explicit(&n->perm, memory_order_relaxed);
    int rc = make_empty(m, mem_level(n), right);
    if (rc != SHALE_OK) {
        return rc;
    }
    struct mem_node *r = mem_node_at(m, *right);
    for (unsigned pos = keep; pos < MEM_WIDTH; pos++) {
        struct mem_entry e = entry_of(n, mem_slot(perm, pos));
        fill_slot(r, pos - keep, &e);
    }
    atomic_store_explicit(&r->perm, perm_of(MEM_WIDTH - keep), memory_order_relaxed);
    atomic_store_explicit(&r->next, mem_next(n), memory_order_relaxed);
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&mem_header(m)->splitting, left, memory_order_release);
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&n->next, *right, memory_order_release);
    os_mark(OS_MARK_INSERT);
    return shorten(m, n);
}

int mem_put_full(struct mem_index *m, struct mem_spot *at, const struct mem_entry *e, uint32_t *right)
{
    struct mem_node *n = mem_node_at(m, at->node);
    if (at->pos == MEM_WIDTH && mem_next(n) == 0) {
        int rc = mem_make_node(m, mem_level(n), e, right);
        if (rc == SHALE_OK) {
            atomic_store_explicit(&n->next, *right, memory_order_release);
            os_mark(OS_MARK_INSERT);
            at->node = *right;
        }
        return rc;
    }
    /* With the new one each half has eight, or nine and seven: what is alike must not be parted from the
     * right half's least. */
    unsigned keep = at->pos <= MEM_WIDTH / 2 + 1 ? MEM_WIDTH / 2 : MEM_WIDTH / 2 + 1;
    int rc = split(m, at->node, keep, right);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (at->pos > keep) {
        at->node = *right;
        at->pos -= keep;
    }
    at->perm = atomic_load_explicit(&mem_node_at(m, at->node)->perm, memory_order_relaxed);
    return mem_put_slot(m, at, e);
}

/* ---- parents ---- */

/* One level: *more is the node that came to be there, 0: none did. */
static int tell_parent(struct mem_index *m, unsigned level, uint32_t node, uint32_t *more)
{
    struct mem_search s;
    struct mem_spot at;
    struct wal_entry log;
    uint32_t root = mem_root(m);
    const struct mem_node *n = mem_node_at(m, node), *top = mem_node_at(m, root);
    if (level >= MEM_LEVELS) {
        return SHALE_OK;
    }
    if (n == NULL || top == NULL) {
        return mem_damaged(m, "node out of bounds", (uint64_t)(n == NULL ? node : root) * MEM_UNIT);
    }
    struct mem_entry e = entry_of(n, 0);
    e.ref = node;
    if (mem_level(top) + 1 == level) {
        return make_root(m, level, root, &e);
    }
    if (!mem_entry_at(m, e.entry, &log)) {
        return mem_damaged(m, "log offset out of bounds", (uint64_t)node * MEM_UNIT);
    }
    mem_search_start(&s, m, log.key);
    mem_find(&s, m->path[level], level, false, &at);
    if (s.damaged) {
        return mem_damaged(m, "links or log offsets out of bounds, found above the node",
                           (uint64_t)node * MEM_UNIT);
    }
    if (at.ref == node) {
        return SHALE_OK;
    }
    int rc = mem_count(at.perm) == MEM_WIDTH ? mem_put_full(m, &at, &e, more) : mem_put_slot(m, &at, &e);
    m->path[level] = at.node;
    return rc;
}

int mem_tell_parents(struct mem_index *m, unsigned level, uint32_t node)
{
    int rc = SHALE_OK;
    while (rc == SHALE_OK && node != 0) {
        uint32_t more = 0;
        level++;
        rc = tell_parent(m, level, node, &more);
        node = more;
    }
    return rc == SHALE_NOMEM ? SHALE_OK : rc;
}
