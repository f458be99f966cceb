/* levels.c - what to compact next: scores, targets, picks. Leveled compaction as in RocksDB's "dynamic level
 * bytes".
 *
 * The bottom level holds nearly everything; each level above it may hold a level_ratio-th of the one below,
 * counted from the bottom up, so that space amplification stays near 1 + 1/ratio. Levels above the first that
 * has a share of its own (the base level) stay empty, and L0 is compacted into the base level: a small
 * database has one level, and a key is found in one table.
 *
 * A level's score is its bytes over its target; L0's is its tables over l0_compact, and it comes first of all
 * when it nears l0_stop. From 1 on a compaction is wanted. In L1 and below, the table with the least overlap
 * below goes first.
 */
#include "db/compact.h"

static uint64_t base_bytes(const shale_db *db)
{
    return 4 * (uint64_t)db->options.target_table_bytes;
}

void db_level_targets(const shale_db *db, const struct version *v, struct level_targets *t)
{
    unsigned bottom = VERSION_LEVELS - 1;
    uint64_t most = 0;
    for (unsigned l = 1; l < VERSION_LEVELS; l++) {
        most = v->level[l].bytes > most ? v->level[l].bytes : most;
    }
    *t = (struct level_targets){.base = bottom};
    uint64_t share = most > base_bytes(db) ? most : base_bytes(db);
    t->bytes[bottom] = share;
    while (share > base_bytes(db) && t->base > 1) {
        share /= db->options.level_ratio;
        t->base--;
        t->bytes[t->base] = share > base_bytes(db) / db->options.level_ratio
                                ? share
                                : base_bytes(db) / db->options.level_ratio;
    }
    for (unsigned l = 1; l < t->base; l++) {
        if (v->level[l].count != 0) {
            t->base = l; /* what an earlier, larger database left up there must be merged with, not passed */
        }
    }
}

bool db_level0_urgent(const shale_db *db, const struct version *v)
{
    return v->level[0].count >= (db->options.l0_compact + db->options.l0_stop) / 2;
}

static double level_score(const shale_db *db, const struct version *v, const struct level_targets *t,
                          unsigned l)
{
    if (l == 0) {
        double score = (double)v->level[0].count / db->options.l0_compact;
        return db_level0_urgent(db, v) ? score + 1000 : score;
    }
    if (v->level[l].count == 0) {
        return 0;
    }
    return t->bytes[l] == 0 ? 1.5 : (double)v->level[l].bytes / (double)t->bytes[l];
}

/* Levels in order of score, highest first; returns how many want compaction. */
unsigned db_levels_wanted(const shale_db *db, const struct version *v, unsigned order[VERSION_LEVELS])
{
    struct level_targets t;
    double scores[VERSION_LEVELS];
    unsigned n = 0;
    db_level_targets(db, v, &t);
    for (unsigned l = 0; l + 1 < VERSION_LEVELS; l++) {
        double score = level_score(db, v, &t, l);
        if (score < 1 || (l == 0 && v->level[0].count == 0)) {
            continue;
        }
        unsigned at = n++;
        while (at > 0 && scores[at - 1] < score) {
            scores[at] = scores[at - 1];
            order[at] = order[at - 1];
            at--;
        }
        scores[at] = score;
        order[at] = l;
    }
    return n;
}

unsigned db_level_output(const shale_db *db, const struct version *v, unsigned level)
{
    struct level_targets t;
    db_level_targets(db, v, &t);
    return level == 0 ? t.base : level + 1;
}

/* ---- picking ---- */

static void key_range(struct version_table *const *tables, uint32_t count, struct slice *lo, struct slice *hi)
{
    *lo = buf_slice(&tables[0]->info.smallest);
    *hi = buf_slice(&tables[0]->info.largest);
    for (uint32_t i = 1; i < count; i++) {
        struct slice a = buf_slice(&tables[i]->info.smallest), b = buf_slice(&tables[i]->info.largest);
        *lo = slice_compare(a, *lo) < 0 ? a : *lo;
        *hi = slice_compare(b, *hi) > 0 ? b : *hi;
    }
}

uint64_t db_tables_bytes(struct version_table *const *tables, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += tables[i]->info.size;
    }
    return sum;
}

static void set_lower(const struct version *v, struct compaction *c)
{
    struct slice lo, hi;
    uint32_t first, count;
    key_range(c->upper, c->upper_count, &lo, &hi);
    version_overlap(v, c->to, lo, hi, &first, &count);
    c->lower = count != 0 ? &v->level[c->to].tables[first] : NULL;
    c->lower_count = count;
    c->bytes = db_tables_bytes(c->upper, c->upper_count) + db_tables_bytes(c->lower, c->lower_count);
}

/* The table of level l (from index `from` to `until`) with the least to rewrite below, for its size. */
static uint32_t least_overlap(const struct version *v, unsigned l, uint32_t from, uint32_t until)
{
    uint32_t best = from;
    double best_cost = 0;
    for (uint32_t i = from; i < until; i++) {
        struct version_table *t = v->level[l].tables[i];
        uint32_t first, count;
        version_overlap(v, l + 1, buf_slice(&t->info.smallest), buf_slice(&t->info.largest), &first, &count);
        double cost =
            (double)db_tables_bytes(&v->level[l + 1].tables[first], count) / (double)(t->info.size + 1);
        if (i == from || cost < best_cost) {
            best = i;
            best_cost = cost;
        }
    }
    return best;
}

void db_compaction_pick(const struct version *v, unsigned from, unsigned to, uint32_t first, uint32_t count,
                        struct compaction *c)
{
    *c = (struct compaction){.from = from, .to = to};
    if (from == 0) {
        c->upper = v->level[0].tables;
        c->upper_count = v->level[0].count;
    } else {
        c->upper = &v->level[from].tables[least_overlap(v, from, first, first + count)];
        c->upper_count = 1;
    }
    set_lower(v, c);
}

void db_compaction_pick_run(const struct version *v, unsigned from, unsigned to, uint32_t first,
                            uint32_t count, uint64_t most, struct compaction *c)
{
    db_compaction_pick(v, from, to, first, from == 0 ? count : 1, c);
    c->whole = true;
    if (from == 0 || c->lower_count == 0) { /* without anything to merge with it is moved, by itself */
        return;
    }
    while (c->upper_count < count && c->bytes < most) {
        c->upper_count++;
        set_lower(v, c);
    }
}

void db_compaction_pick_all(const struct version *v, unsigned to, struct compaction *c)
{
    *c = (struct compaction){.to = to,
                             .upper = v->level[0].tables,
                             .upper_count = v->level[0].count,
                             .lower = v->level[to].tables,
                             .lower_count = v->level[to].count,
                             .between = v,
                             .whole = true};
    for (unsigned l = 0; l <= to; l++) {
        c->bytes += v->level[l].bytes;
    }
}

bool db_compaction_halve(const struct version *v, struct compaction *c)
{
    if (c->upper_count < 2) {
        return false;
    }
    c->upper += c->from == 0 ? (c->upper_count + 1) / 2 : 0;
    c->upper_count /= 2;
    set_lower(v, c);
    return true;
}
