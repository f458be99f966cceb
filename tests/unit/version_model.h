/* version_model.h - what a version should hold after random edits: L0 as a list, the other levels as slots.
 */
#ifndef TESTS_VERSION_MODEL_H
#define TESTS_VERSION_MODEL_H

#include "version_lib.h"

#define SLOTS  12
#define L0_MAX 6

struct model {
    uint64_t l0[L0_MAX]; /* newest first */
    unsigned l0_count;
    uint64_t slot[VERSION_LEVELS][SLOTS]; /* number of the table there, or 0 */
    uint64_t next, seq;
    uint32_t oldest;
};

static inline void slot_keys(unsigned slot, char lo[16], char hi[16])
{
    (void)snprintf(lo, 16, "key%08u-a", slot); /* the first 8 bytes do not decide */
    (void)snprintf(hi, 16, "key%08u-z", slot);
}

static inline void model_flush(struct model *m, struct version_edit *e)
{
    memmove(m->l0 + 1, m->l0, m->l0_count * sizeof m->l0[0]);
    m->l0[0] = m->next;
    m->l0_count++;
    add_table(e, 0, m->next++, "a", "z");
    e->has_oldest = e->has_last_seq = true;
    e->oldest = ++m->oldest;
    e->last_seq = m->seq += 10;
}

/* A random step from `level` down. */
static inline void model_compact(struct model *m, struct version_edit *e, unsigned level, uint64_t *rng)
{
    char lo[16], hi[16];
    unsigned slot = (unsigned)(prng_next(rng) % SLOTS);
    uint64_t *from = level == 0 ? NULL : &m->slot[level][slot], *to = &m->slot[level + 1][slot];
    bool move = level > 0 && *from != 0 && *to == 0;
    if (level > 0 && *from == 0) {
        return;
    }
    slot_keys(slot, lo, hi);
    for (unsigned i = 0; level == 0 && i < m->l0_count; i++) {
        ck_assert_int_eq(version_edit_remove(e, 0, m->l0[i]), SHALE_OK);
    }
    m->l0_count = level == 0 ? 0 : m->l0_count;
    if (level > 0) {
        ck_assert_int_eq(version_edit_remove(e, level, *from), SHALE_OK);
    }
    if (*to != 0) {
        ck_assert_int_eq(version_edit_remove(e, level + 1, *to), SHALE_OK);
    }
    *to = move ? *from : m->next++;
    add_table(e, level + 1, *to, lo, hi);
    if (level > 0) {
        *from = 0;
    }
}

static inline void model_step(struct model *m, struct version_edit *e, uint64_t *rng)
{
    *e = (struct version_edit){0};
    if (m->l0_count == L0_MAX) {
        model_compact(m, e, 0, rng);
    } else if (prng_next(rng) % 2 == 0) {
        model_flush(m, e);
    } else {
        model_compact(m, e, (unsigned)(prng_next(rng) % (VERSION_LEVELS - 1)), rng);
    }
}

static inline void model_compare(const struct model *m, const struct version *v)
{
    char lo[16], hi[16];
    ck_assert_int_eq(version_check(v), SHALE_OK);
    ck_assert_uint_eq(v->level[0].count, m->l0_count);
    for (unsigned i = 0; i < m->l0_count; i++) {
        ck_assert_uint_eq(v->level[0].tables[i]->info.number, m->l0[i]);
    }
    for (unsigned level = 1; level < VERSION_LEVELS; level++) {
        uint32_t count = 0;
        uint64_t bytes = 0;
        for (unsigned s = 0; s < SLOTS; s++) {
            slot_keys(s, lo, hi);
            hi[strlen(hi) - 1] = 'm'; /* within */
            struct version_table *vt = version_find(v, level, slice_make(hi, strlen(hi)));
            ck_assert_uint_eq(vt != NULL ? vt->info.number : 0, m->slot[level][s]);
            count += m->slot[level][s] != 0;
            bytes += m->slot[level][s] != 0 ? 1000 + m->slot[level][s] : 0;
        }
        ck_assert_uint_eq(v->level[level].count, count);
        ck_assert_uint_eq(v->level[level].bytes, bytes);
    }
    ck_assert_uint_eq(v->oldest, m->oldest);
    ck_assert_uint_eq(v->last_seq, m->seq);
    ck_assert_uint_eq(v->next_table, m->next);
}

#endif
