/* test_mem_splits.c - the memtable's writer killed at every mark of every kind of split, and upon other
 * kills.
 *
 * A kill is a jump out of the mark: what was stored is stored, what was not is not, and the next writer is
 * another opening of the file, which remembers nothing. (Other processes that are really killed, beside
 * readers: test_mem_shared.c.)
 */
#include "lib/slow.h"
#include "logkit.h"

#include "mem/arena.h"

#include <setjmp.h>

static jmp_buf killed;
static unsigned marks_met, marks_left;

static void jump_at_mark(enum os_mark mark)
{
    (void)mark;
    marks_met++;
    if (marks_left-- == 0) {
        longjmp(killed, 1);
    }
}

/* False: it was killed at that mark. */
static bool insert_until(struct mem_index *m, struct slice key, uint64_t seq, uint32_t entry, unsigned mark)
{
    marks_left = mark;
    marks_met = 0;
    os_mark_hook = jump_at_mark;
    if (setjmp(killed) != 0) {
        os_mark_hook = NULL;
        return false;
    }
    assert_ok(mem_insert(m, key, seq, entry));
    os_mark_hook = NULL;
    return true;
}

enum { SPLIT_KEYS = 1800 };
enum order { RANDOMLY, UPWARDS, DOWNWARDS, BETWEEN, ORDERS };

struct splits {
    struct wal_segment *seg;
    struct mem_index *m;
    enum order order;
    uint32_t entries[SPLIT_KEYS]; /* where they are in the log */
};

/* Many are alike in their first 16 bytes. */
static struct slice split_key(enum order order, unsigned i, char buf[48])
{
    uint64_t state = i + 1, r = prng_next(&state);
    unsigned n = order == UPWARDS ? i : order == DOWNWARDS ? SPLIT_KEYS - i : (unsigned)(r % 100000);
    if (order == BETWEEN) { /* both ends grow towards the middle */
        n = i % 2 == 0 ? i : 2 * SPLIT_KEYS - i;
    }
    (void)snprintf(buf, 48, "%s%06u.%04u", order == RANDOMLY ? "" : "behind one prefix ", n, i);
    return text(buf);
}

static struct splits splits_make(enum order order)
{
    struct splits s = {.seg = make_and_open(1, 512 << 10), .order = order};
    uint32_t at = WAL_FIRST;
    char buf[48];
    for (unsigned i = 0; i < SPLIT_KEYS; i++) {
        s.entries[i] = at + (uint32_t)sizeof(struct wal_record);
        at = append_one(s.seg, at, i + 1, split_key(order, i, buf), text("v"), false);
    }
    assert_ok(mem_make(kit_dirfd, s.seg, 0600));
    assert_ok(mem_open(kit_dirfd, s.seg, true, &s.m));
    return s;
}

/* Just these keys are there, by a walk both ways, and by get: each, or some. */
static void expect_keys(const struct splits *s, unsigned n, unsigned each)
{
    struct mem_iter it;
    struct mem_hit hit;
    char buf[48];
    assert_ok(mem_check(s->m));
    for (unsigned i = n % each; i < n; i += each) {
        assert_ok(mem_get(s->m, split_key(s->order, i, buf), n, &hit));
        ck_assert_uint_eq(hit.seq, i + 1);
    }
    mem_iter_init(&it, s->m, n);
    unsigned seen = 0;
    for (int rc = mem_iter_first(&it); rc != SHALE_NOTFOUND; rc = mem_iter_next(&it), seen++) {
        assert_ok(rc);
    }
    ck_assert_uint_eq(seen, n);
    for (int rc = mem_iter_last(&it); rc != SHALE_NOTFOUND; rc = mem_iter_prev(&it), seen--) {
        assert_ok(rc);
    }
    ck_assert_uint_eq(seen, 0);
}

static void splits_release(struct splits *s)
{
    expect_keys(s, SPLIT_KEYS, 1);
    mem_unref(s->m);
    wal_unref(s->seg);
    assert_ok(os_unlink(kit_dirfd, "000001.wal"));
    assert_ok(os_unlink(kit_dirfd, "000001.mem"));
}

/* An index as it was: the arena, the filter, and what this opening remembers. */
struct moment {
    unsigned char *arena, *filter;
    uint64_t size; /* what is used, and what an insert can use */
    uint32_t path[MEM_LEVELS];
};

static struct moment moment_take(const struct mem_index *m)
{
    struct moment t = {.size = mem_used(m) + 16 * sizeof(struct mem_node)};
    ck_assert_uint_le(t.size, m->size);
    t.arena = base_alloc(t.size);
    ck_assert_ptr_nonnull(t.arena);
    memcpy(t.arena, m->arena, t.size);
    t.filter = base_alloc(m->filter_lines * FILTER_LINE);
    ck_assert_ptr_nonnull(t.filter);
    memcpy(t.filter, m->arena + mem_filter_offset(m->size), m->filter_lines * FILTER_LINE);
    memcpy(t.path, m->path, sizeof t.path);
    return t;
}

static void go_back(struct mem_index *m, const struct moment *t)
{
    memcpy(m->arena, t->arena, t->size);
    memcpy(m->arena + mem_filter_offset(m->size), t->filter, m->filter_lines * FILTER_LINE);
    memcpy(m->path, t->path, sizeof t->path);
}

static void moment_free(struct moment *t)
{
    free(t->arena);
    free(t->filter);
}

/* Inserts key i, killed at each mark in turn; after each kill another does it. */
static void kill_at_every_mark(const struct splits *s, unsigned i)
{
    char buf[48];
    struct slice key = split_key(s->order, i, buf);
    struct moment before = moment_take(s->m);
    bool lived = false;
    for (unsigned mark = 0; !lived; mark++) {
        struct mem_index *other = NULL;
        assert_ok(mem_open(kit_dirfd, s->seg, true, &other));
        go_back(s->m, &before);
        lived = insert_until(s->m, key, i + 1, s->entries[i], mark);
        if (!lived) {
            struct mem_hit hit;
            expect_keys(s, i, 8);
            assert_ok(mem_insert(other, key, i + 1, s->entries[i]));
            assert_ok(mem_insert(other, key, i + 1, s->entries[i]));
            ck_assert_uint_eq(mem_header(s->m)->splitting, 0);
            assert_ok(mem_get(s->m, key, i + 1, &hit));
            ck_assert(mem_may_hold(s->m, key_hash(key)));
            assert_ok(mem_check(s->m));
        }
        mem_unref(other);
    }
    moment_free(&before);
}

static void every_mark_of_every_split(enum order order)
{
    unsigned splits = 0, roots = 0, inner = 0, most = 0;
    struct splits s = splits_make(order);
    for (unsigned i = 0; i < SPLIT_KEYS; i++) {
        char buf[48];
        uint64_t end = mem_header(s.m)->end;
        unsigned levels = mem_root(s.m) != 0 ? mem_level(mem_node_at(s.m, mem_root(s.m))) : 0;
        struct moment before = moment_take(s.m);
        ck_assert(insert_until(s.m, split_key(s.order, i, buf), i + 1, s.entries[i], UINT32_MAX));
        uint64_t nodes = (mem_header(s.m)->end - end) * MEM_UNIT / sizeof(struct mem_node);
        bool grown = mem_level(mem_node_at(s.m, mem_root(s.m))) != levels;
        /* every one that makes the tree higher or splits a node above the leaves; of the others some */
        if (grown || (nodes >= 2 && inner % TEST_SLOW == 0) || (nodes == 1 && i % (64 * TEST_SLOW) == 0) ||
            i < 40 / TEST_SLOW) {
            go_back(s.m, &before);
            kill_at_every_mark(&s, i);
            most = marks_met > most ? marks_met : most;
        }
        splits += nodes >= 1;
        inner += nodes >= 2 && !grown;
        roots += grown;
        moment_free(&before);
    }
    ck_assert_uint_ge(splits, SPLIT_KEYS / MEM_WIDTH);
    ck_assert_uint_ge(inner, 5);
    ck_assert_uint_ge(roots, 2);
    ck_assert_uint_ge(most, 12);
    splits_release(&s);
}

START_TEST(h13_every_mark_of_every_split)
{
    for (enum order order = RANDOMLY; order < ORDERS; order++) {
        every_mark_of_every_split(order);
    }
}
END_TEST

static void kills_upon_kills(enum order order)
{
    struct splits s = splits_make(order);
    uint64_t state = (uint64_t)order;
    unsigned kills = 0;
    for (unsigned i = 0; i < SPLIT_KEYS; i++) {
        char buf[48];
        struct slice key = split_key(s.order, i, buf);
        while (!insert_until(s.m, key, i + 1, s.entries[i], prng_next(&state) % 16)) {
            kills++;
            if (kills % 64 == 0) {
                expect_keys(&s, i, 8);
            }
            mem_unref(s.m);
            assert_ok(mem_open(kit_dirfd, s.seg, true, &s.m));
        }
    }
    ck_assert_uint_ge(kills, SPLIT_KEYS / 3);
    expect_keys(&s, SPLIT_KEYS, 1);
    /* What is left untold is found by the next who looks there. */
    for (unsigned i = 0; i < SPLIT_KEYS; i++) {
        struct mem_search search;
        struct mem_spot at;
        char buf[48];
        for (unsigned level = 0; level < MEM_LEVELS; level++) {
            s.m->path[0] = 0; /* else it is looked for in the last one only */
            assert_ok(mem_insert(s.m, split_key(s.order, i, buf), i + 1, s.entries[i]));
        }
        mem_search_start(&search, s.m, split_key(s.order, i, buf));
        mem_find(&search, 0, 0, false, &at);
        ck_assert(at.equal && search.hopped == 0);
    }
    splits_release(&s);
}

START_TEST(h13_kills_upon_kills)
{
    /* Nobody comes to an end: each is killed a few marks on, and another goes on with what is there. Parents
     * that were not told are told by those who come by. */
    for (enum order order = RANDOMLY; order < ORDERS; order++) {
        kills_upon_kills(order);
    }
}
END_TEST

static int no_agent(const char *what, const char *argument)
{
    (void)what, (void)argument;
    return 1;
}

static Suite *make_suite(void)
{
    Suite *s = suite_create("mem, splits");
    const TTest *const splits[] = {h13_every_mark_of_every_split, h13_kills_upon_kills};
    kit_add(s, "splits", splits, BASE_COUNT(splits));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, no_agent);
}
