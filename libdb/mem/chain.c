/* chain.c - the versions of one key, newest first.
 *
 *      record.versions -> v4 -> v3 -> v2 -> v1 -> (the first version, in the record)
 *      depth            4     3     2     1      0
 *
 * A reader takes the first one that its snapshot may see. A counter that is overwritten a million times has a
 * chain of a million, and an old snapshot needs the far end: so each version has a second pointer, further
 * back, chosen so that any older one is reached in O(log n) steps while adding one costs O(1) and changes
 * nothing that is there already: skew-binary jump pointers, E. W. Myers, "An applicative random-access
 * stack", Information Processing Letters 17 (1983). A new version jumps as far as its predecessor's jump does
 * twice over, if those two jumps are equally long; else just to its predecessor.
 *
 * An older version has a lower reference and a lesser depth; a chain that says otherwise is damaged.
 */
#include "mem/arena.h"

/* An older version as seen from another: reference 0 is the one in the record. */
struct older {
    uint64_t seq;
    uint32_t ref, depth, jump;
};

/* False: damaged. below: the reference that it must stay under. */
static bool look(const struct mem_index *m, const struct mem_record *r, uint32_t ref, uint32_t below,
                 struct older *o)
{
    if (ref == 0) {
        *o = (struct older){.seq = r->seq};
        return true;
    }
    const struct mem_version *v = ref < below ? mem_version_at(m, ref) : NULL;
    if (v == NULL || v->depth == 0) {
        return false;
    }
    *o = (struct older){v->seq, ref, v->depth, v->jump};
    return true;
}

int mem_chain_find(const struct mem_index *m, const struct mem_record *r, uint64_t seq, uint64_t *found,
                   uint32_t *entry)
{
    uint32_t ref = atomic_load_explicit(&r->versions, memory_order_acquire);
    uint32_t below = UINT32_MAX;
    while (ref != 0) {
        const struct mem_version *v = ref < below ? mem_version_at(m, ref) : NULL;
        if (BASE_UNLIKELY(v == NULL)) {
            return mem_damaged(m, "chain of versions", (uint64_t)ref * MEM_UNIT);
        }
        if (v->seq <= seq) {
            *found = v->seq;
            *entry = v->entry;
            return SHALE_OK;
        }
        /* The jump is worth taking when all that it leaves out is too new as well. */
        struct older far;
        if (!look(m, r, v->jump, ref, &far)) {
            return mem_damaged(m, "jump of a version", (uint64_t)ref * MEM_UNIT);
        }
        below = ref;
        ref = far.seq > seq ? far.ref : v->prev;
        if (ref == 0 && far.ref == 0 && far.seq > seq) {
            return SHALE_NOTFOUND;
        }
    }
    uint64_t first = r->seq;
    if (first > seq) {
        return SHALE_NOTFOUND;
    }
    *found = first;
    *entry = r->entry;
    return SHALE_OK;
}

int mem_chain_prepare(const struct mem_index *m, const struct mem_record *r, struct mem_version *v)
{
    struct older newest, jump, twice;
    uint32_t ref = atomic_load_explicit(&r->versions, memory_order_relaxed);
    if (!look(m, r, ref, UINT32_MAX, &newest)) {
        return mem_damaged(m, "chain of versions", (uint64_t)ref * MEM_UNIT);
    }
    v->prev = ref;
    v->depth = newest.depth + 1;
    v->jump = ref;
    if (ref == 0) {
        return SHALE_OK;
    }
    if (!look(m, r, newest.jump, ref, &jump) || !look(m, r, jump.jump, jump.ref, &twice)) {
        return mem_damaged(m, "jump of a version", (uint64_t)ref * MEM_UNIT);
    }
    if (newest.depth - jump.depth == jump.depth - twice.depth) {
        v->jump = jump.jump;
    }
    return SHALE_OK;
}
