/* test_mem_noise.c - the memtable's file filled with noise, changed word by word, linked in circles. */
#include "lib/slow.h"
#include "logkit.h"

#include "mem/arena.h"

#define NOISE_KEYS 500u

static struct slice noise_key(uint64_t i, char buf[32])
{
    (void)snprintf(buf, 32, "the key of number %03llu", (unsigned long long)i % NOISE_KEYS);
    return text(buf);
}

static uint32_t noise_offset(const struct wal_segment *seg, uint64_t i)
{
    struct wal_view rec;
    uint32_t at = WAL_FIRST;
    assert_ok(wal_read(seg, at, &rec));
    return WAL_FIRST + (uint32_t)i * (rec.end - WAL_FIRST) + (uint32_t)sizeof(struct wal_record);
}

/* Everything that can be done with an index, on one that may be anything: no crash, no end without end, and
 * whatever is found is in the log under its key. */
static void use_all(struct mem_index *m, uint64_t *state)
{
    char buf[32];
    struct mem_iter it;
    struct mem_hit hit;
    for (uint64_t i = 0; i < NOISE_KEYS; i += 7) {
        if (mem_get(m, noise_key(i, buf), SEQ_MAX, &hit) == SHALE_OK) {
            ck_assert(slice_equal(hit.value, noise_key(i, buf)));
        }
        (void)mem_get(m, noise_key(i, buf), prng_next(state) % 1000, &hit);
    }
    uint64_t steps = 0;
    mem_iter_init(&it, m, SEQ_MAX);
    for (int rc = mem_iter_first(&it); rc == SHALE_OK; rc = mem_iter_next(&it)) {
        ck_assert(it.type == WAL_PUT || it.type == WAL_DELETE);
        ck_assert_uint_le(steps++, m->seg->size);
    }
    steps = 0;
    for (int rc = mem_iter_last(&it); rc == SHALE_OK; rc = mem_iter_prev(&it)) {
        ck_assert_uint_le(steps++, m->seg->size);
    }
    (void)mem_iter_seek(&it, noise_key(prng_next(state), buf));
    (void)mem_iter_seek_for_prev(&it, noise_key(prng_next(state), buf));
    (void)mem_check(m);
    (void)mem_room(m);
    for (int i = 0; i < 20; i++) {
        uint64_t k = prng_next(state) % NOISE_KEYS;
        (void)mem_insert(m, noise_key(k, buf), 1000 + prng_next(state) % 1000, noise_offset(m->seg, k));
    }
}

static struct mem_index *index_for_noise(void)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct mem_index *m = NULL;
    char buf[32];
    uint32_t at = WAL_FIRST;
    assert_ok(mem_make(kit_dirfd, seg, 0600));
    assert_ok(mem_open(kit_dirfd, seg, true, &m));
    for (uint64_t i = 0; i < NOISE_KEYS; i++) {
        at = append_one(seg, at, i + 1, noise_key(i, buf), noise_key(i, buf), false);
    }
    for (uint64_t i = 0; i < 2 * NOISE_KEYS; i++) {
        uint64_t k = i % NOISE_KEYS;
        assert_ok(mem_insert(m, noise_key(k, buf), i + 1, noise_offset(seg, k)));
    }
    assert_ok(mem_check(m));
    wal_unref(seg);
    return m;
}

START_TEST(noise_in_the_whole_arena_is_survived)
{
    struct mem_index *m = index_for_noise();
    uint64_t state = 7;
    for (unsigned round = 0; round < 12; round++) {
        for (uint64_t at = 64; at < m->size; at += 8) {
            /* wide open, then references that are in bounds, then log offsets that are */
            uint64_t r = prng_next(&state);
            uint64_t mask = round % 3 == 0   ? UINT64_MAX
                            : round % 3 == 1 ? 0x00007fff00007fff
                                             : 0x0000ffff00007fff;
            put_u64(m->arena + at, r & mask);
        }
        use_all(m, &state);
    }
    mem_unref(m);
}
END_TEST

START_TEST(h38_changed_words_in_the_arena_are_survived)
{
    struct mem_index *m = index_for_noise();
    uint64_t state = 8, size = mem_used(m);
    unsigned char *good = base_alloc(m->size);
    ck_assert_ptr_nonnull(good);
    memcpy(good, m->arena, m->size);
    for (unsigned round = 0; round < 300 / TEST_SLOW; round++) {
        memcpy(m->arena, good, m->size);
        for (unsigned i = 0; i < 1 + round % 40; i++) {
            uint64_t r = prng_next(&state), at = 64 + (r >> 16) % (size - 64) / 4 * 4;
            uint32_t word = get_u32(m->arena + at);
            /* another reference of this very arena, a flipped bit, anything */
            word = r % 3 == 0   ? get_u32(m->arena + 4096 + (r >> 40) % 2000 * 4)
                   : r % 3 == 1 ? word ^ 1u << r % 32
                                : (uint32_t)r;
            put_u32(m->arena + at, word);
        }
        use_all(m, &state);
    }
    free(good);
    mem_unref(m);
}
END_TEST

/* The leftmost node of a level. */
static uint32_t leftmost(const struct mem_index *m, unsigned level)
{
    uint32_t ref = mem_root(m);
    for (const struct mem_node *n; mem_level(n = mem_node_at(m, ref)) != level;) {
        ref = mem_ref_at(n, atomic_load(&n->perm), 0);
    }
    return ref;
}

START_TEST(noise_in_every_word_of_a_node_is_survived)
{
    /* On each level a node in the middle; and the writer's words in the header. */
    struct mem_index *m = index_for_noise();
    uint64_t state = 9;
    unsigned char *good = base_alloc(m->size);
    ck_assert_ptr_nonnull(good);
    memcpy(good, m->arena, m->size);
    unsigned top = mem_level(mem_node_at(m, mem_root(m)));
    ck_assert_uint_ge(top, 2);
    for (unsigned level = 0; level <= top + 1; level++) {
        uint32_t root = mem_root(m), leaf = leftmost(m, 0);
        uint32_t ref = level <= top ? leftmost(m, level) : MEM_UNIT;
        if (level < top) {
            ref = mem_next(mem_node_at(m, ref));
        }
        uint64_t size = level <= top ? sizeof(struct mem_node) : 72;
        for (uint64_t at = 0; at < size; at += 4 * TEST_SLOW) {
            unsigned char *word = m->arena + (uint64_t)ref * MEM_UNIT + at;
            const uint32_t values[] = {0,    1,   UINT32_MAX, get_u32(word) ^ (1u << at % 32),
                                       root, ref, leaf,       mem_next(mem_node_at(m, leaf))};
            for (size_t i = 0; i < BASE_COUNT(values); i++) {
                put_u32(word, values[i]);
                use_all(m, &state);
                memcpy(m->arena, good, m->size);
            }
        }
    }
    free(good);
    mem_unref(m);
}
END_TEST

START_TEST(circle_of_links_is_noticed)
{
    /* The second leaf's neighbour is the first: whoever looks for what lies behind the second goes round. */
    struct mem_index *m = index_for_noise();
    struct mem_iter it;
    struct mem_hit hit;
    char buf[32];
    uint32_t first = leftmost(m, 0), second = mem_next(mem_node_at(m, first));
    atomic_store(&mem_node_at(m, second)->next, second);
    atomic_store(&mem_header(m)->root, first);
    ck_assert_int_eq(mem_get(m, noise_key(NOISE_KEYS - 1, buf), SEQ_MAX, &hit), SHALE_CORRUPT);
    ck_assert_int_eq(mem_check(m), SHALE_CORRUPT);
    mem_iter_init(&it, m, SEQ_MAX);
    ck_assert_int_eq(mem_iter_last(&it), SHALE_CORRUPT);
    int rc = mem_iter_first(&it);
    for (unsigned i = 0; rc == SHALE_OK; i++, rc = mem_iter_next(&it)) {
        ck_assert_uint_le(i, 2 * MEM_WIDTH);
    }
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    mem_iter_init(&it, m, 0); /* to whom nothing is visible */
    ck_assert_int_eq(mem_iter_first(&it), SHALE_CORRUPT);
    mem_unref(m);
}
END_TEST

static int no_agent(const char *what, const char *argument)
{
    (void)what, (void)argument;
    return 1;
}

static Suite *make_suite(void)
{
    Suite *s = suite_create("mem, noise");
    const TTest *const noise[] = {noise_in_the_whole_arena_is_survived,
                                  h38_changed_words_in_the_arena_are_survived,
                                  noise_in_every_word_of_a_node_is_survived, circle_of_links_is_noticed};
    kit_add(s, "noise", noise, BASE_COUNT(noise));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, no_agent);
}
