/* insert.c - the one writer's side (insert.h): an entry is a new key's record, or a version of one that is
 * there.
 *
 * Where the last insert went is tried first: ascending keys, and those that are close to each other, need no
 * search from the root; nor do the parents that are told of what a split brought. A node stays a node of its
 * level, and its least key stays its least key: so it does not matter how old the memory of them is, nor who
 * has inserted since. What was split off is found to the right of them.
 */
#include "mem/insert.h"

/* ---- the place ---- */

static uint64_t high_at(const struct mem_node *n, uint64_t perm, unsigned pos)
{
    return atomic_load_explicit(&n->head[0][mem_slot(perm, pos)], memory_order_relaxed);
}

/* Is the key's place between two entries of this leaf, or behind the last of all? Then *at says where. */
static bool is_in(struct mem_search *s, uint32_t leaf, struct mem_spot *at)
{
    const struct mem_node *n = mem_node_at(s->mem, leaf);
    uint64_t perm = atomic_load_explicit(&n->perm, memory_order_relaxed), high = s->key.head[0];
    unsigned count = mem_count(perm);
    bool last = mem_next(n) == 0;
    if (count == 0 || high < high_at(n, perm, 0)) {
        return false;
    }
    if (high > high_at(n, perm, count - 1)) {
        *at = (struct mem_spot){.node = leaf, .perm = perm, .pos = count};
        return last;
    }
    mem_look(s, leaf, at);
    return !s->damaged && (at->pos > 0 || at->equal) && (at->pos < count || last);
}

/* The key's place in its leaf. */
static int find_place(struct mem_index *m, struct mem_search *s, struct mem_spot *at)
{
    if (m->path[0] != 0 && is_in(s, m->path[0], at)) {
        return SHALE_OK;
    }
    memset(s->path, 0, sizeof s->path);
    for (bool told = false;; told = true) {
        s->damaged = false;
        s->hopped = 0;
        mem_find(s, 0, 0, false, at);
        if (s->damaged) {
            return mem_damaged(m, "links or log offsets out of bounds, met", (uint64_t)at->node * MEM_UNIT);
        }
        memcpy(m->path, s->path, sizeof m->path);
        if (s->hopped == 0 || told) {
            return SHALE_OK;
        }
        /* A killed writer told no parent: done now, from the lowest level up. */
        unsigned level = (unsigned)__builtin_ctz(s->hopped);
        int rc = mem_tell_parents(m, level, s->path[level]);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
}

/* ---- the two ways to insert ---- */

/* *done: it was not there yet. */
static int push_version(struct mem_index *m, uint32_t record, uint64_t seq, uint32_t entry, bool *done)
{
    struct mem_record *r = mem_record_at(m, record);
    uint64_t newest;
    uint32_t at;
    if (r == NULL) {
        return mem_damaged(m, "record out of bounds", (uint64_t)record * MEM_UNIT);
    }
    int rc = mem_chain_find(m, r, seq, &newest, &at);
    if (rc == SHALE_OK && newest == seq) {
        return SHALE_OK;
    }
    if (rc == SHALE_CORRUPT) {
        return rc;
    }
    struct mem_version v = {.seq = seq, .entry = entry};
    rc = mem_chain_prepare(m, r, &v);
    if (rc != SHALE_OK) {
        return rc;
    }
    const struct mem_version *front = v.prev != 0 ? mem_version_at(m, v.prev) : NULL;
    if (seq <= (front != NULL ? front->seq : r->seq)) {
        return mem_damaged(m, "newer version of the key", entry);
    }
    uint32_t ref = mem_take(m, sizeof v, MEM_UNIT);
    if (ref == 0) {
        return mem_no_room(m);
    }
    *mem_version_at(m, ref) = v;
    os_mark(OS_MARK_INSERT);
    atomic_store_explicit(&r->versions, ref, memory_order_release);
    os_mark(OS_MARK_INSERT);
    *done = true;
    return SHALE_OK;
}

static int make_record(struct mem_index *m, uint64_t seq, uint32_t entry, uint32_t *ref)
{
    *ref = mem_take(m, sizeof(struct mem_record), MEM_UNIT);
    if (*ref == 0) {
        return mem_no_room(m);
    }
    struct mem_record *r = mem_record_at(m, *ref);
    r->seq = seq;
    r->entry = entry;
    atomic_store_explicit(&r->versions, 0, memory_order_relaxed);
    os_mark(OS_MARK_INSERT);
    return SHALE_OK;
}

/* The index has no node yet: its first leaf. */
static int plant(struct mem_index *m, const struct mem_entry *e)
{
    uint32_t root;
    int rc = mem_make_node(m, 0, e, &root);
    if (rc == SHALE_OK) {
        atomic_store_explicit(&mem_header(m)->root, root, memory_order_release);
        os_mark(OS_MARK_INSERT);
        m->path[0] = root;
    }
    return rc;
}

static int add_key(struct mem_index *m, const struct mem_search *s, struct mem_spot *at, uint64_t seq,
                   uint32_t entry)
{
    struct mem_entry e = {.head = {s->key.head[0], s->key.head[1]}, .entry = entry};
    int rc = make_record(m, seq, entry, &e.ref);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (at->node == 0) {
        return plant(m, &e);
    }
    if (mem_count(at->perm) < MEM_WIDTH) {
        return mem_put_slot(m, at, &e);
    }
    uint32_t right;
    rc = mem_put_full(m, at, &e, &right);
    if (rc != SHALE_OK) {
        return rc;
    }
    m->path[0] = at->node;
    return mem_tell_parents(m, 0, right);
}

static void count(_Atomic uint64_t *counter)
{
    /* One writer: no need for an atomic addition. */
    uint64_t v = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, v + 1, memory_order_relaxed);
}

int mem_insert(struct mem_index *m, struct slice key, uint64_t seq, uint32_t entry)
{
    struct mem_search s;
    struct mem_spot at;
    bool done = false;
    if (!m->writable || entry < WAL_FIRST || entry >= m->seg->size || seq >> 56 != 0) {
        return err_set(SHALE_INVALID, "%06u.mem: insert of sequence number %llu, log offset %u",
                       m->seg->number, (unsigned long long)seq, entry);
    }
    int rc = mem_finish_split(m);
    if (rc != SHALE_OK) {
        return rc;
    }
    uint64_t hash = key_hash(key);
    mem_filter_prefetch(m, hash);
    mem_search_start(&s, m, key);
    rc = find_place(m, &s, &at);
    if (rc != SHALE_OK) {
        return rc;
    }
    mem_filter_add(m, hash);
    os_mark(OS_MARK_INSERT);
    if (at.equal) {
        rc = push_version(m, at.ref, seq, entry, &done);
    } else {
        rc = add_key(m, &s, &at, seq, entry);
        done = rc == SHALE_OK;
    }
    if (done) {
        count(&mem_header(m)->entries);
        os_mark(OS_MARK_INSERT);
        if (!at.equal) {
            count(&mem_header(m)->keys);
        }
    }
    return rc;
}

int mem_insert_record(struct mem_index *m, const struct wal_view *rec)
{
    struct wal_entry e;
    uint32_t pos = 0, i = 0;
    int rc;
    while ((rc = wal_next_entry(rec->payload, &pos, &e)) == SHALE_OK && i < rec->count) {
        uint32_t at = rec->offset + (uint32_t)sizeof(struct wal_record) + e.offset;
        i++;
        rc = mem_insert(m, e.key, rec->first_seq + i - 1, at);
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
