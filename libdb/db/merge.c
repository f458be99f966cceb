/* merge.c - one ordered run out of many: the heart of iterators and of compaction.
 *
 * Children are runs, newest first: memtables, L0 tables, levels (tables that follow each other). Each child
 * holds a key at most once; where several hold it, the newest child's entry wins and the others' are passed
 * over. The children stand in a binary heap by (key, age); a key's first 16 bytes are kept as two integers,
 * so most comparisons touch no key bytes.
 *
 * Before the winner moves on, the children that stand at the same key are moved: they are the next in the
 * heap. Turning round repositions every child at the current key: rare, and simpler than keeping both
 * directions in order.
 */
#include "db/compact.h"

#include <stdlib.h>

enum child_kind { CHILD_MEM, CHILD_LEVEL, CHILD_FOREIGN };

/* Tables that follow each other; an L0 table is a level of one. */
struct level_run {
    struct version_table *const *tables;
    uint32_t count, at;
    bool open;
    struct table_iter it;
};

struct child {
    enum child_kind kind;
    unsigned age;     /* 0: the newest */
    uint64_t head[2]; /* of entry.key */
    struct db_entry entry;
    union {
        struct mem_iter mem;
        struct level_run level;
        struct db_run foreign;
    } run;
};

struct db_merge {
    shale_db *db;
    struct db_merge_options options;
    unsigned count, live; /* children; of these in the heap */
    bool backward;
    int error;       /* sticks */
    struct buf turn; /* the key at which the direction changes */
    struct child **heap;
    struct child children[];
};

/* ---- a level ---- */

static int level_open(struct db_merge *m, struct level_run *l, uint32_t at)
{
    struct table *t;
    if (l->open && l->at == at) {
        return SHALE_OK;
    }
    if (l->open) {
        table_iter_release(&l->it);
        l->open = false;
    }
    int rc =
        version_table_open(l->tables[at], m->db->dirfd, m->db->cache, m->db->options.verify_checksums, &t);
    if (rc == SHALE_NOTFOUND) {
        return err_set(SHALE_CORRUPT, "%s: table %llu is missing", m->db->path,
                       (unsigned long long)l->tables[at]->info.number);
    }
    if (rc == SHALE_OK) {
        table_iter_init(&l->it, t, &m->db->table_counters);
        l->it.fill_cache = m->options.fill_cache;
        l->it.sequential = m->options.sequential;
        l->open = true;
        l->at = at;
    }
    return rc;
}

/* The first table that ends at or behind key; count when there is none. */
static uint32_t level_find(const struct level_run *l, struct slice key)
{
    uint32_t lo = 0, hi = l->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (slice_compare(buf_slice(&l->tables[mid]->info.largest), key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static int level_edge(struct db_merge *m, struct level_run *l, uint32_t at, bool last)
{
    int rc = level_open(m, l, at);
    if (rc == SHALE_OK) {
        rc = last ? table_iter_last(&l->it) : table_iter_first(&l->it);
    }
    return rc;
}

/* Behind the end of a table stands the next one. */
static int level_onward(struct db_merge *m, struct level_run *l, int rc)
{
    while (rc == SHALE_NOTFOUND && l->at + 1 < l->count) {
        rc = level_edge(m, l, l->at + 1, false);
    }
    return rc;
}

static int level_back(struct db_merge *m, struct level_run *l, int rc)
{
    while (rc == SHALE_NOTFOUND && l->at > 0) {
        rc = level_edge(m, l, l->at - 1, true);
    }
    return rc;
}

static int level_seek(struct db_merge *m, struct level_run *l, struct slice key)
{
    uint32_t at = level_find(l, key);
    if (at == l->count) {
        return SHALE_NOTFOUND;
    }
    int rc = level_open(m, l, at);
    return level_onward(m, l, rc == SHALE_OK ? table_iter_seek(&l->it, key) : rc);
}

static int level_seek_for_prev(struct db_merge *m, struct level_run *l, struct slice key)
{
    uint32_t at = level_find(l, key);
    at = at == l->count ? at - 1 : at;
    int rc = level_open(m, l, at);
    return level_back(m, l, rc == SHALE_OK ? table_iter_seek_for_prev(&l->it, key) : rc);
}

/* ---- a child ---- */

enum move { MOVE_FIRST, MOVE_LAST, MOVE_SEEK, MOVE_SEEK_BACK, MOVE_NEXT, MOVE_PREV };

static int move_mem(struct mem_iter *it, enum move move, struct slice key)
{
    switch (move) {
    case MOVE_FIRST: return mem_iter_first(it);
    case MOVE_LAST: return mem_iter_last(it);
    case MOVE_SEEK: return mem_iter_seek(it, key);
    case MOVE_SEEK_BACK: return mem_iter_seek_for_prev(it, key);
    case MOVE_NEXT: return mem_iter_next(it);
    default: return mem_iter_prev(it);
    }
}

static int position_level(struct db_merge *m, struct level_run *l, enum move move, struct slice key)
{
    switch (move) {
    case MOVE_FIRST: return level_onward(m, l, level_edge(m, l, 0, false));
    case MOVE_LAST: return level_back(m, l, level_edge(m, l, l->count - 1, true));
    case MOVE_SEEK: return level_seek(m, l, key);
    default: return level_seek_for_prev(m, l, key);
    }
}

BASE_INLINE int move_level(struct db_merge *m, struct level_run *l, enum move move, struct slice key)
{
    if (move == MOVE_NEXT) {
        int rc = table_iter_next(&l->it);
        return BASE_LIKELY(rc != SHALE_NOTFOUND) ? rc : level_onward(m, l, rc);
    }
    if (move == MOVE_PREV) {
        int rc = table_iter_prev(&l->it);
        return BASE_LIKELY(rc != SHALE_NOTFOUND) ? rc : level_back(m, l, rc);
    }
    return position_level(m, l, move, key);
}

static int move_foreign(struct db_run *run, enum move move, struct slice key, struct db_entry *entry)
{
    switch (move) {
    case MOVE_FIRST: return run->first(run->ctx, entry);
    case MOVE_LAST: return run->last(run->ctx, entry);
    case MOVE_SEEK: return run->seek(run->ctx, key, entry);
    case MOVE_SEEK_BACK: return run->seek_for_prev(run->ctx, key, entry);
    case MOVE_NEXT: return run->next(run->ctx, entry);
    default: return run->prev(run->ctx, entry);
    }
}

BASE_INLINE int child_move(struct db_merge *m, struct child *c, enum move move, struct slice key)
{
    int rc;
    if (c->kind == CHILD_LEVEL) {
        rc = move_level(m, &c->run.level, move, key);
        const struct table_iter *it = &c->run.level.it;
        if (rc == SHALE_OK) {
            c->entry = (struct db_entry){it->key, it->value, it->seq, it->type};
        }
    } else if (c->kind == CHILD_MEM) {
        rc = move_mem(&c->run.mem, move, key);
        const struct mem_iter *it = &c->run.mem;
        if (rc == SHALE_OK) {
            c->entry = (struct db_entry){it->key, it->value, it->entry_seq, it->type};
        }
    } else {
        rc = move_foreign(&c->run.foreign, move, key, &c->entry);
    }
    if (rc == SHALE_OK) {
        c->head[0] = key_head(c->entry.key);
        c->head[1] = key_second_head(c->entry.key);
    }
    return rc;
}

/* ---- the heap ---- */

static int compare_keys(const struct child *a, const struct child *b)
{
    if (a->head[0] != b->head[0]) {
        return a->head[0] < b->head[0] ? -1 : 1;
    }
    if (a->head[1] != b->head[1]) {
        return a->head[1] < b->head[1] ? -1 : 1;
    }
    size_t of_a = a->entry.key.size, of_b = b->entry.key.size;
    if (of_a <= sizeof a->head && of_b <= sizeof b->head) { /* alike, but for zeros at the end */
        return (of_a > of_b) - (of_a < of_b);
    }
    return slice_compare(a->entry.key, b->entry.key);
}

static bool before(const struct db_merge *m, const struct child *a, const struct child *b)
{
    int c = compare_keys(a, b);
    if (c == 0) {
        return a->age < b->age;
    }
    return m->backward ? c > 0 : c < 0;
}

static void sift_down(struct db_merge *m, unsigned i)
{
    struct child *c = m->heap[i];
    for (;;) {
        unsigned kid = 2 * i + 1;
        if (kid >= m->live) {
            break;
        }
        if (kid + 1 < m->live && before(m, m->heap[kid + 1], m->heap[kid])) {
            kid++;
        }
        if (!before(m, m->heap[kid], c)) {
            break;
        }
        m->heap[i] = m->heap[kid];
        i = kid;
    }
    m->heap[i] = c;
}

/* The child at place i has moved, with this result. */
static int settle(struct db_merge *m, unsigned i, int rc)
{
    if (rc == SHALE_NOTFOUND) {
        m->heap[i] = m->heap[--m->live];
        if (i >= m->live) {
            return SHALE_OK;
        }
    } else if (rc != SHALE_OK) {
        m->error = rc;
        m->live = 0;
        return rc;
    }
    sift_down(m, i);
    return SHALE_OK;
}

static int state_of(const struct db_merge *m)
{
    return m->error != SHALE_OK ? m->error : m->live != 0 ? SHALE_OK : SHALE_NOTFOUND;
}

static int position(struct db_merge *m, enum move move, struct slice key)
{
    m->backward = move == MOVE_LAST || move == MOVE_SEEK_BACK;
    m->live = 0;
    m->error = SHALE_OK;
    for (unsigned i = 0; i < m->count; i++) {
        int rc = child_move(m, &m->children[i], move, key);
        if (rc == SHALE_OK) {
            m->heap[m->live++] = &m->children[i];
        } else if (rc != SHALE_NOTFOUND) {
            m->error = rc;
            m->live = 0;
            return rc;
        }
    }
    for (unsigned i = m->live / 2; i-- > 0;) {
        sift_down(m, i);
    }
    return state_of(m);
}

/* The winner alone, when no other child stands at its key. next: the place of the one behind it, 0 when there
 * is none: mostly the winner is still before that one, and stays where it is. */
BASE_INLINE int step_winner(struct db_merge *m, enum move move, unsigned next)
{
    struct child *w = m->heap[0];
    int rc = child_move(m, w, move, (struct slice){0});
    if (BASE_LIKELY(rc == SHALE_OK)) {
        if (next != 0 && before(m, m->heap[next], w)) {
            sift_down(m, 0);
        }
        return SHALE_OK;
    }
    rc = settle(m, 0, rc);
    return rc != SHALE_OK ? rc : state_of(m);
}

/* Moves every child off the winner's key: the others first, while its key can still be compared with. */
BASE_INLINE int step(struct db_merge *m, enum move move)
{
    struct child *w = m->heap[0];
    while (m->live > 1) {
        unsigned i = m->live > 2 && before(m, m->heap[2], m->heap[1]) ? 2 : 1;
        if (compare_keys(m->heap[i], w) != 0) {
            return step_winner(m, move, i);
        }
        int rc = settle(m, i, child_move(m, m->heap[i], move, (struct slice){0}));
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    return step_winner(m, move, 0);
}

static int turn(struct db_merge *m, enum move seek, enum move move)
{
    int rc = buf_set(&m->turn, m->heap[0]->entry.key.data, m->heap[0]->entry.key.size);
    if (rc == SHALE_OK) {
        rc = position(m, seek,
                      buf_slice(&m->turn)); /* stands at the same key again, now in the other direction */
    }
    return rc == SHALE_OK ? step(m, move) : rc;
}

int db_merge_first(struct db_merge *m)
{
    return position(m, MOVE_FIRST, (struct slice){0});
}

int db_merge_last(struct db_merge *m)
{
    return position(m, MOVE_LAST, (struct slice){0});
}

int db_merge_seek(struct db_merge *m, struct slice key)
{
    return position(m, MOVE_SEEK, key);
}

int db_merge_seek_for_prev(struct db_merge *m, struct slice key)
{
    return position(m, MOVE_SEEK_BACK, key);
}

int db_merge_next(struct db_merge *m)
{
    if (m->live == 0) {
        return state_of(m);
    }
    return BASE_LIKELY(!m->backward) ? step(m, MOVE_NEXT) : turn(m, MOVE_SEEK, MOVE_NEXT);
}

int db_merge_prev(struct db_merge *m)
{
    if (m->live == 0) {
        return state_of(m);
    }
    return BASE_LIKELY(m->backward) ? step(m, MOVE_PREV) : turn(m, MOVE_SEEK_BACK, MOVE_PREV);
}

const struct db_entry *db_merge_entry(const struct db_merge *m)
{
    return &m->heap[0]->entry;
}

/* ---- making one ---- */

/* One piece of memory, no larger than it must be: an iterator may be made for every seek. */
static struct db_merge *merge_alloc(shale_db *db, unsigned most, const struct db_merge_options *o)
{
    struct db_merge *m = base_alloc(sizeof *m + most * (sizeof m->children[0] + sizeof m->heap[0]));
    if (m != NULL) {
        *m = (struct db_merge){.db = db, .options = *o, .heap = (struct child **)(void *)&m->children[most]};
    }
    return m;
}

static struct child *child_add(struct db_merge *m, enum child_kind kind)
{
    struct child *c = &m->children[m->count];
    c->kind = kind;
    c->age = m->count++;
    c->run.level.open = false;
    return c;
}

static void child_add_tables(struct db_merge *m, struct version_table *const *tables, uint32_t count)
{
    if (count != 0) {
        struct child *c = child_add(m, CHILD_LEVEL);
        c->run.level.tables = tables;
        c->run.level.count = count;
    }
}

int db_merge_view(shale_db *db, struct db_view *view, uint64_t seq, const struct db_run *overlay,
                  const struct db_merge_options *o, struct db_merge **out)
{
    const struct version_level *l0 = &view->version->level[0];
    unsigned levels = 0;
    for (unsigned l = 1; l < VERSION_LEVELS; l++) {
        levels += view->version->level[l].count != 0;
    }
    struct db_merge *m = merge_alloc(db, (overlay != NULL) + view->mem_count + l0->count + levels, o);
    if (m == NULL) {
        return SHALE_NOMEM;
    }
    if (overlay != NULL) {
        child_add(m, CHILD_FOREIGN)->run.foreign = *overlay;
    }
    for (unsigned i = 0; i < view->mem_count; i++) {
        mem_iter_init(&child_add(m, CHILD_MEM)->run.mem, view->mem[i], seq);
    }
    for (uint32_t i = 0; i < l0->count; i++) {
        child_add_tables(m, &l0->tables[i], 1);
    }
    for (unsigned l = 1; l < VERSION_LEVELS; l++) {
        child_add_tables(m, view->version->level[l].tables, view->version->level[l].count);
    }
    *out = m;
    return SHALE_OK;
}

int db_merge_tables(shale_db *db, const struct compaction *c, const struct db_merge_options *o,
                    struct db_merge **out)
{
    uint32_t runs = c->from == 0 ? c->upper_count : 1; /* only L0's tables overlap each other */
    struct db_merge *m = merge_alloc(db, runs + c->to - c->from, o);
    if (m == NULL) {
        return SHALE_NOMEM;
    }
    for (uint32_t i = 0; i < runs; i++) {
        child_add_tables(m, &c->upper[i], c->from == 0 ? 1 : c->upper_count);
    }
    for (unsigned l = c->from + 1; c->between != NULL && l < c->to; l++) {
        child_add_tables(m, c->between->level[l].tables, c->between->level[l].count);
    }
    child_add_tables(m, c->lower, c->lower_count);
    *out = m;
    return SHALE_OK;
}

void db_merge_release(struct db_merge *m)
{
    if (m == NULL) {
        return;
    }
    for (unsigned i = 0; i < m->count; i++) {
        if (m->children[i].kind == CHILD_LEVEL && m->children[i].run.level.open) {
            table_iter_release(&m->children[i].run.level.it);
        }
    }
    buf_release(&m->turn);
    free(m);
}
