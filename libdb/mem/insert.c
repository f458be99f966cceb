/* insert.c - the one writer's side.
 *
 * [I-16] In running order, for a new key: raise `end`; fill in node and tower; link it at level 0 with a
 * release store; then at the higher levels, going up. For a key that is there: raise `end`; fill in a
 * version; make it the node's newest with a release store. Killed anywhere:
 *
 *   before the first link    the bytes are lost, nothing else: the next writer begins at `end`
 *   between two links        the key is there; the missing links only make it a little slower to find
 *
 * and the entry that was not linked is inserted by Repair, who inserts the whole record once more: what is
 * there already is recognised by key and sequence number, and changes nothing.
 *
 * The splice remembers the last place, level by level: ascending keys go there without a search. The writer
 * may be another process every time, so a splice counts only while `end` is what it left: nobody changes a
 * link without having raised `end` first.
 */
#include "mem/insert.h"

#include <stdlib.h>

struct mem_splice {
    uint32_t end; /* of the arena when this was true; 0: never */
    uint32_t prev[MEM_LEVELS], next[MEM_LEVELS];
};

struct mem_splice *mem_splice_make(void)
{
    return base_calloc(1, sizeof(struct mem_splice));
}

#define NODE_SIZE_MAX (sizeof(struct mem_node) + align_up(4 * MEM_LEVELS, MEM_UNIT))
#define NODE_SIZE_MIN (sizeof(struct mem_node) + MEM_UNIT)

/* The end's reference must itself pass mem_node_at, so the last unit is never used up. */
static uint64_t room_of(const struct mem_index *m, uint32_t end)
{
    uint64_t used = (uint64_t)end * MEM_UNIT;
    return used < m->size - MEM_UNIT ? m->size - MEM_UNIT - used : 0;
}

uint64_t mem_room(const struct mem_index *m)
{
    return room_of(m, atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed));
}

uint64_t mem_need(uint64_t count)
{
    /* A tower of one or two links takes one unit, 15 of 16 are; the mean node has 40.6 bytes. */
    return count * (NODE_SIZE_MIN + 2) + 2 * NODE_SIZE_MAX;
}

uint64_t mem_used(const struct mem_index *m)
{
    uint64_t end = (uint64_t)atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed) * MEM_UNIT;
    return end < m->size ? end : m->size;
}

/* Takes `size` bytes, a multiple of the unit, from the arena; 0: no room, or the end is nonsense. */
static uint32_t take(struct mem_index *m, uint64_t size)
{
    struct mem_header *h = mem_header(m);
    uint32_t end = atomic_load_explicit(&h->end, memory_order_relaxed);
    if (end < MEM_FIRST / MEM_UNIT || room_of(m, end) < size) {
        return 0;
    }
    atomic_store_explicit(&h->end, end + (uint32_t)(size / MEM_UNIT), memory_order_relaxed);
    /* Before anything is filled in, also for the compiler: a killed writer's stores are all there, in program
     * order. */
    atomic_signal_fence(memory_order_seq_cst);
    os_mark(OS_MARK_INSERT);
    return end;
}

static int no_room(const struct mem_index *m)
{
    uint32_t end = atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed);
    if (end < MEM_FIRST / MEM_UNIT || (uint64_t)end * MEM_UNIT > m->size) {
        return mem_damaged(m, "end of the arena", (uint64_t)end * MEM_UNIT);
    }
    return err_set(SHALE_NOMEM, "%06u.mem: no room for an entry, %llu of %llu bytes used", m->seg->number,
                   (unsigned long long)end * MEM_UNIT, (unsigned long long)m->size);
}

/* One in four of each level goes on to the next: from a hash, so that it depends on neither process nor
 * history. */
static unsigned tower_height(const struct mem_index *m, uint64_t seq)
{
    uint64_t h = checksum_seed(m->seg->salt, seq);
    unsigned height = 1;
    while (height < MEM_LEVELS && (h & 3) == 0) {
        h >>= 2;
        height++;
    }
    return height;
}

/* ---- the place ---- */

/* Where does the splice still surround the key, from which level on? MEM_LEVELS: nowhere. A key that is met
 * on the way: *node. */
static unsigned splice_level(struct mem_search *s, const struct mem_splice *p, uint32_t *node)
{
    bool above = false, below = false; /* known on this level: then on all higher ones too */
    for (unsigned level = 0; level < MEM_LEVELS; level++) {
        for (int side = 0; side < 2; side++) {
            uint32_t ref = side == 0 ? p->prev[level] : p->next[level];
            bool *known = side == 0 ? &above : &below;
            if (*known || ref == (side == 0 ? MEM_HEAD : 0)) {
                *known = true;
                continue;
            }
            const struct mem_node *n = mem_node_at(s->mem, ref);
            int c = n == NULL ? (s->damaged = true, 0) : mem_compare(s, n);
            if (c == 0) {
                *node = ref;
                return level;
            }
            *known = side == 0 ? c < 0 : c > 0;
            if (!*known) {
                break;
            }
        }
        if (above && below) {
            return level;
        }
    }
    return MEM_LEVELS;
}

/* Fills in the splice below `level`. Returns the key's node, if it is there. */
static uint32_t splice_search(struct mem_search *s, struct mem_splice *p, unsigned level)
{
    const struct mem_index *m = s->mem;
    uint32_t x = level < MEM_LEVELS ? p->prev[level] : MEM_HEAD;
    uint32_t greater = level < MEM_LEVELS ? p->next[level] : 0;
    while (level-- > 0) {
        uint32_t next;
        for (; (next = mem_next(m, x, level)) != greater; x = next) {
            const struct mem_node *n = mem_node_at(m, next);
            if (BASE_UNLIKELY(n == NULL || s->steps-- == 0)) {
                s->damaged = true;
                return 0;
            }
            int c = mem_compare(s, n);
            if (c == 0) {
                return next;
            }
            if (c > 0) {
                greater = next;
                break;
            }
        }
        p->prev[level] = x;
        p->next[level] = greater;
    }
    return 0;
}

/* The key's node, or 0 and the splice is its place. */
static uint32_t find_place(struct mem_search *s, struct mem_splice *p)
{
    uint32_t end = atomic_load_explicit(&mem_header(s->mem)->end, memory_order_relaxed);
    uint32_t node = 0;
    unsigned level = MEM_LEVELS;
    if (p->end == end) {
        level = splice_level(s, p, &node);
        if (node != 0) {
            return node;
        }
    }
    p->end = 0; /* until the search has come to its end */
    if (!s->damaged) {
        node = splice_search(s, p, level);
    }
    if (node == 0 && !s->damaged) {
        p->end = end;
    }
    return node;
}

/* ---- the two ways to insert ---- */

static int push_version(struct mem_index *m, struct mem_node *n, uint64_t seq, uint32_t entry)
{
    uint64_t newest;
    uint32_t at;
    int rc = mem_chain_find(m, n, seq, &newest, &at);
    if (rc == SHALE_OK && newest == seq) {
        return SHALE_OK;
    }
    if (rc == SHALE_CORRUPT) {
        return rc;
    }
    struct mem_version v = {.seq = seq, .entry = entry};
    rc = mem_chain_prepare(m, n, &v);
    if (rc != SHALE_OK) {
        return rc;
    }
    const struct mem_version *front = v.prev != 0 ? mem_version_at(m, v.prev) : NULL;
    if (seq <= (front != NULL ? front->seq : n->seq_height >> 8)) {
        return mem_damaged(m, "newer version of the key", entry);
    }
    uint32_t ref = take(m, sizeof v);
    if (ref == 0) {
        return no_room(m);
    }
    *mem_version_at(m, ref) = v;
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&n->versions, ref, memory_order_release);
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

static int link_node(struct mem_index *m, struct mem_splice *p, const struct mem_key *key, uint64_t seq,
                     uint32_t entry, uint64_t keep)
{
    unsigned height = tower_height(m, seq);
    uint64_t room = mem_room(m), tower = align_up(4 * height, MEM_UNIT);
    if (room < keep + sizeof(struct mem_node) + tower) {
        height = 1;
        tower = MEM_UNIT;
    }
    uint32_t base = take(m, sizeof(struct mem_node) + tower);
    if (base == 0) {
        return no_room(m);
    }
    uint32_t ref = base + (uint32_t)(tower / MEM_UNIT);
    struct mem_node *n = mem_node_at(m, ref);
    n->head[0] = key->head[0];
    n->head[1] = key->head[1];
    n->seq_height = seq << 8 | height;
    n->entry = entry;
    atomic_store_explicit(&n->versions, 0, memory_order_relaxed);
    for (unsigned level = 0; level < height; level++) {
        atomic_store_explicit(mem_link(m, ref, level), p->next[level], memory_order_relaxed);
    }
    for (unsigned level = 0; level < height; level++) {
        os_mark(OS_MARK_INSERT);
        atomic_store_explicit(mem_link(m, p->prev[level], level), ref, memory_order_release);
        p->prev[level] = ref;
    }
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

static void count(_Atomic uint64_t *counter)
{
    /* One writer: no need for an atomic addition. */
    uint64_t v = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, v + 1, memory_order_relaxed);
}

/* keep: room that must be left over for what follows. */
static int insert(struct mem_index *m, struct slice key, uint64_t seq, uint32_t entry, uint64_t keep)
{
    struct mem_search s;
    struct mem_splice *p = m->splice;
    if (!m->writable || entry < WAL_FIRST || entry >= m->seg->size || seq >> 56 != 0) {
        return err_set(SHALE_INVALID, "%06u.mem: insert of sequence number %llu, log offset %u",
                       m->seg->number, (unsigned long long)seq, entry);
    }
    mem_search_start(&s, m, key);
    uint32_t node = find_place(&s, p);
    if (s.damaged) {
        p->end = 0;
        return mem_damaged(m, "links or log offsets out of bounds, found for the entry", entry);
    }
    uint64_t before = mem_room(m);
    bool valid = p->end != 0;
    p->end = 0;
    int rc = node != 0 ? push_version(m, mem_node_at(m, node), seq, entry)
                       : link_node(m, p, &s.key, seq, entry, keep);
    if (rc != SHALE_OK) {
        return rc;
    }
    p->end = valid ? atomic_load_explicit(&mem_header(m)->end, memory_order_relaxed) : 0;
    if (mem_room(m) != before) {
        count(&mem_header(m)->entries);
        if (node == 0) {
            os_mark(OS_MARK_INSERT);
            count(&mem_header(m)->keys);
        }
    }
    return SHALE_OK;
}

int mem_insert(struct mem_index *m, struct slice key, uint64_t seq, uint32_t wal_offset)
{
    return insert(m, key, seq, wal_offset, 0);
}

int mem_insert_record(struct mem_index *m, const struct wal_view *rec)
{
    struct wal_entry e;
    uint32_t pos = 0, i = 0;
    int rc;
    while ((rc = wal_next_entry(rec->payload, &pos, &e)) == SHALE_OK && i < rec->count) {
        uint32_t at = rec->offset + (uint32_t)sizeof(struct wal_record) + e.offset;
        i++;
        rc = insert(m, e.key, rec->first_seq + i - 1, at, (rec->count - i) * (uint64_t)NODE_SIZE_MIN);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    if (rc != SHALE_NOTFOUND || i != rec->count) {
        return err_set(SHALE_CORRUPT, "%06u.wal: record at %u: entries do not match their count",
                       m->seg->number, rec->offset);
    }
    return SHALE_OK;
}
