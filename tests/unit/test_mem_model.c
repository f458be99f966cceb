/* test_mem_model.c - the memtable against a plain model: random writes, snapshots, walks and seeks in both
 * directions. */
#include "logkit.h"

#define MODEL_KEYS  199
#define MODEL_STEPS 6000

struct event {
    unsigned key;
    uint64_t seq;
    bool put;
};

/* Keys of different lengths, in the order of their numbers. Many share their first 16 bytes and more. */
static struct slice model_key(unsigned i, char buf[64])
{
    (void)snprintf(buf, 64, "%s%03u%.*s",
                   i < 60    ? ""
                   : i < 130 ? "key"
                             : "one long common prefix ",
                   i, (int)(i % 9), "xxxxxxxxx");
    return text(buf);
}

/* The newest event of the key that a snapshot may see; NULL: none. */
static const struct event *model_find(const struct event *events, size_t n, unsigned key, uint64_t seq)
{
    while (n-- > 0) {
        if (events[n].key == key && events[n].seq <= seq) {
            return &events[n];
        }
    }
    return NULL;
}

static void expect_event(const struct mem_iter *it, const struct event *e)
{
    char key[64];
    ck_assert(slice_equal(it->key, model_key(e->key, key)));
    ck_assert(it->entry_seq == e->seq && it->type == (e->put ? WAL_PUT : WAL_DELETE));
    ck_assert_uint_eq(it->value.size, e->put ? e->seq % 50 : 0);
}

static void check_walks(const struct pair *p, const struct event *events, size_t n, uint64_t seq)
{
    const struct event *seen[MODEL_KEYS];
    unsigned count = 0;
    struct mem_iter it;
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        seen[count] = model_find(events, n, k, seq);
        count += seen[count] != NULL;
    }
    mem_iter_init(&it, p->mem, seq);
    int rc = mem_iter_first(&it);
    for (unsigned i = 0; i < count; i++, rc = mem_iter_next(&it)) {
        assert_ok(rc);
        expect_event(&it, seen[i]);
    }
    ck_assert_int_eq(rc, SHALE_NOTFOUND);
    rc = mem_iter_last(&it);
    for (unsigned i = count; i-- > 0; rc = mem_iter_prev(&it)) {
        assert_ok(rc);
        expect_event(&it, seen[i]);
    }
    ck_assert_int_eq(rc, SHALE_NOTFOUND);
}

static void check_seeks(const struct pair *p, const struct event *events, size_t n, uint64_t seq,
                        unsigned from)
{
    char buf[64];
    struct mem_iter it;
    unsigned up = from, down = from;
    while (up < MODEL_KEYS && model_find(events, n, up, seq) == NULL) {
        up++;
    }
    while (down != UINT32_MAX && model_find(events, n, down, seq) == NULL) {
        down--;
    }
    mem_iter_init(&it, p->mem, seq);
    int rc = mem_iter_seek(&it, model_key(from, buf));
    ck_assert_int_eq(rc, up < MODEL_KEYS ? SHALE_OK : SHALE_NOTFOUND);
    if (rc == SHALE_OK) {
        expect_event(&it, model_find(events, n, up, seq));
    }
    rc = mem_iter_seek_for_prev(&it, model_key(from, buf));
    ck_assert_int_eq(rc, down != UINT32_MAX ? SHALE_OK : SHALE_NOTFOUND);
    if (rc == SHALE_OK) {
        expect_event(&it, model_find(events, n, down, seq));
    }
}

static void run_model(uint64_t seed, bool private)
{
    static struct event events[MODEL_STEPS];
    static const char bytes[50];
    struct pair p = pair_make(4 << 20, private);
    uint64_t state = seed;
    char buf[64];
    for (size_t n = 0; n < MODEL_STEPS; n++) {
        /* runs of ascending keys beside random ones; gaps in the sequence numbers */
        uint64_t r = prng_next(&state);
        unsigned key =
            n > 0 && r % 4 == 0 ? (events[n - 1].key + 1) % MODEL_KEYS : (unsigned)(r >> 8) % MODEL_KEYS;
        p.seq += r % 3;
        events[n] = (struct event){key, p.seq, r % 5 != 0};
        pair_put(&p, model_key(key, buf), slice_make(events[n].put ? bytes : NULL, p.seq % 50));
        uint64_t seq = prng_next(&state) % (p.seq + 2);
        unsigned probe = (unsigned)prng_next(&state) % MODEL_KEYS;
        struct mem_hit hit;
        int rc = mem_get(p.mem, model_key(probe, buf), seq, &hit);
        const struct event *e = model_find(events, n + 1, probe, seq);
        ck_assert_int_eq(rc, e != NULL ? SHALE_OK : SHALE_NOTFOUND);
        ck_assert(e == NULL || (hit.seq == e->seq && hit.type == (e->put ? WAL_PUT : WAL_DELETE)));
        if (n % 16 == 0) {
            check_seeks(&p, events, n + 1, seq, probe);
        }
        if (n % 500 == 0) {
            check_walks(&p, events, n + 1, seq);
            check_walks(&p, events, n + 1, SEQ_MAX);
            assert_ok(mem_check(p.mem));
        }
    }
    ck_assert_uint_eq(mem_entries(p.mem), MODEL_STEPS);
    ck_assert_uint_eq(mem_keys(p.mem), MODEL_KEYS);
    pair_release(&p);
}

START_TEST(shared_index_agrees_with_the_model)
{
    run_model(1, false);
    assert_ok(os_unlink(kit_dirfd, "000001.wal"));
    assert_ok(os_unlink(kit_dirfd, "000001.mem"));
    run_model(2, false);
}
END_TEST

START_TEST(private_index_agrees_with_the_model)
{
    run_model(3, true);
}
END_TEST

START_TEST(writers_take_turns_on_one_index)
{
    /* Two openings of the same file, as of two processes: what one remembers of its last place is stale after
     * the other has inserted. Ascending keys, and keys around the last one. */
    struct pair p = pair_make(4 << 20, false), q = p;
    uint64_t state = 6, keys = 0;
    char key[32];
    assert_ok(mem_open(kit_dirfd, p.seg, true, &q.mem));
    for (uint64_t i = 0; i < 4000; i++) {
        struct pair *turn = prng_next(&state) % 2 == 0 ? &p : &q;
        (void)snprintf(key, sizeof key, "%08llu", (unsigned long long)(i % 4 == 3 ? i * 10 - 15 : i * 10));
        pair_put(turn, text(key), text(key));
        p.at = q.at = turn->at;
        p.seq = q.seq = turn->seq;
        keys++;
        ck_assert_uint_eq(mem_keys(p.mem), keys);
    }
    for (uint64_t i = 0; i < 4000; i++) {
        (void)snprintf(key, sizeof key, "%08llu", (unsigned long long)(i % 4 == 3 ? i * 10 - 15 : i * 10));
        pair_expect(&q, text(key), SEQ_MAX, key);
    }
    assert_ok(mem_check(q.mem));
    mem_unref(q.mem);
    pair_release(&p);
}
END_TEST

START_TEST(walk_goes_on_while_keys_come_in)
{
    /* A snapshot of keys that are multiples of 1000, walked to and fro; around the place where the walk is
     * keys come in between, so that the leaf is split under it, and its slots are used again. */
    enum { WALKED = 300, STEPS = 2500 };
    struct pair p = pair_make(4 << 20, false);
    struct mem_iter it;
    uint64_t state = 11;
    char key[32];
    for (unsigned i = 0; i < WALKED; i++) {
        (void)snprintf(key, sizeof key, "%08u", (i * 7 % WALKED) * 1000);
        pair_put(&p, text(key), text("walked"));
    }
    mem_iter_init(&it, p.mem, p.seq - 1);
    assert_ok(mem_iter_first(&it));
    for (unsigned step = 0, at = 0; step < STEPS; step++) {
        (void)snprintf(key, sizeof key, "%08u", at * 1000);
        ck_assert_msg(slice_equal(it.key, text(key)), "%.*s, not %s", (int)it.key.size,
                      (const char *)it.key.data, key);
        for (unsigned n = (unsigned)prng_next(&state) % 6; n > 0; n--) {
            unsigned near = at * 1000 + 4000 - (unsigned)prng_next(&state) % 8000;
            (void)snprintf(key, sizeof key, "%08u", near < 10000000 ? near | 1 : 1);
            pair_put(&p, text(key), text("new"));
        }
        bool up = at == 0 || (at < WALKED - 1 && (prng_next(&state) % 8 != 0) == (step / 400 % 2 == 0));
        assert_ok(up ? mem_iter_next(&it) : mem_iter_prev(&it));
        at += up ? 1 : UINT32_MAX;
    }
    ck_assert_uint_ge(mem_keys(p.mem), 10 * WALKED);
    pair_release(&p);
}
END_TEST

static int no_agent(const char *what, const char *argument)
{
    (void)what, (void)argument;
    return 1;
}

static Suite *make_suite(void)
{
    Suite *s = suite_create("mem, model");
    const TTest *const model[] = {shared_index_agrees_with_the_model, private_index_agrees_with_the_model,
                                  writers_take_turns_on_one_index, walk_goes_on_while_keys_come_in};
    kit_add(s, "model", model, BASE_COUNT(model));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, no_agent);
}
