/* test_mem.c - the memtable against a plain model: keys, versions, snapshots, walks, room. */
#include "logkit.h"

#include "mem/arena.h"

#define SEQ_MAX (UINT64_MAX >> 8)

/* A segment, its index, and where the next record goes. */
struct pair {
    struct wal_segment *seg;
    struct mem_index *mem;
    uint32_t at;
    uint64_t seq;
};

static struct pair pair_make(uint64_t size, bool private)
{
    struct pair p = {.seg = make_and_open(1, size), .at = WAL_FIRST, .seq = 1};
    if (private) {
        assert_ok(mem_open_private(p.seg, &p.mem));
    } else {
        assert_ok(mem_make(kit_dirfd, p.seg, 0600));
        assert_ok(mem_open(kit_dirfd, p.seg, true, &p.mem));
    }
    return p;
}

static void pair_release(struct pair *p)
{
    assert_ok(mem_check(p->mem));
    mem_unref(p->mem);
    wal_unref(p->seg);
}

/* A commit of one entry; value NULL: a delete. */
static void pair_put(struct pair *p, struct slice key, struct slice value)
{
    struct wal_view rec;
    uint32_t end = append_one(p->seg, p->at, p->seq, key, value, false);
    assert_ok(wal_read(p->seg, p->at, &rec));
    assert_ok(mem_insert_record(p->mem, &rec));
    p->at = end;
    p->seq++;
}

static void expect(const struct pair *p, struct slice key, uint64_t seq, const char *value)
{
    struct mem_hit hit;
    int rc = mem_get(p->mem, key, seq, &hit);
    if (value == NULL) {
        ck_assert_int_eq(rc, SHALE_NOTFOUND);
        return;
    }
    ck_assert_msg(rc == SHALE_OK, "%d: %s", rc, shale_errmsg());
    ck_assert(hit.type == WAL_PUT && hit.seq <= seq && slice_equal(hit.value, text(value)));
}

START_TEST(empty_index_has_nothing)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct mem_iter it;
    mem_iter_init(&it, p.mem, SEQ_MAX);
    expect(&p, text("k"), SEQ_MAX, NULL);
    expect(&p, text(""), SEQ_MAX, NULL);
    ck_assert_int_eq(mem_iter_first(&it), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_last(&it), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_seek(&it, text("")), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_seek_for_prev(&it, text("z")), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_next(&it), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_prev(&it), SHALE_NOTFOUND);
    ck_assert_uint_eq(mem_entries(p.mem) + mem_keys(p.mem), 0);
    pair_release(&p);
}
END_TEST

START_TEST(one_entry_is_seen_from_its_sequence_number_on)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct mem_iter it;
    p.seq = 9;
    pair_put(&p, text("only"), text("one"));
    expect(&p, text("only"), 8, NULL);
    expect(&p, text("only"), 9, "one");
    expect(&p, text("onl"), 9, NULL);
    expect(&p, text("only "), 9, NULL);
    mem_iter_init(&it, p.mem, 9);
    assert_ok(mem_iter_last(&it));
    ck_assert(slice_equal(it.key, text("only")) && slice_equal(it.value, text("one")));
    ck_assert(it.entry_seq == 9 && it.type == WAL_PUT &&
              it.entry_offset == WAL_FIRST + sizeof(struct wal_record));
    ck_assert_int_eq(mem_iter_next(&it), SHALE_NOTFOUND);
    ck_assert_uint_eq(it.node, 0);
    assert_ok(mem_iter_seek(&it, text("one")));
    ck_assert_int_eq(mem_iter_prev(&it), SHALE_NOTFOUND);
    mem_iter_init(&it, p.mem, 8);
    ck_assert_int_eq(mem_iter_first(&it), SHALE_NOTFOUND);
    ck_assert_int_eq(mem_iter_last(&it), SHALE_NOTFOUND);
    pair_release(&p);
}
END_TEST

START_TEST(keys_of_every_length_keep_their_order)
{
    /* Pairs that the inline 16 bytes do not tell apart, the empty key, the longest key. */
    static unsigned char longest[65535];
    struct pair p = pair_make(32 << 20, false);
    memset(longest, 'b', sizeof longest);
    const struct slice keys[] = {slice_make("", 0),
                                 slice_make("\0", 1),
                                 slice_make("\0\0", 2),
                                 slice_make("a", 1),
                                 slice_make("a\0", 2),
                                 slice_make("a\0\0\0\0\0\0\0", 8),
                                 slice_make("a\0\0\0\0\0\0\0\0", 9),
                                 slice_make("aaaaaaaa", 8),
                                 slice_make("aaaaaaaa\0", 9),
                                 slice_make("aaaaaaaaa", 9),
                                 slice_make("aaaaaaaaaaaaaaaa", 16),
                                 slice_make("aaaaaaaaaaaaaaaa\0", 17),
                                 slice_make("aaaaaaaaaaaaaaaab", 17),
                                 slice_make(longest, 65534),
                                 slice_make(longest, 65535),
                                 slice_make("\xff", 1),
                                 slice_make("\xff\xff", 2)};
    static const unsigned order[] = {13, 2, 16, 0, 7, 11, 4, 9, 14, 1, 5, 15, 3, 12, 8, 6, 10};
    struct mem_iter it;
    ck_assert_uint_eq(BASE_COUNT(keys), BASE_COUNT(order));
    for (size_t i = 0; i < BASE_COUNT(order); i++) {
        pair_put(&p, keys[order[i]], keys[order[i]]);
    }
    mem_iter_init(&it, p.mem, SEQ_MAX);
    assert_ok(mem_iter_first(&it));
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        struct mem_hit hit;
        ck_assert(slice_equal(it.key, keys[i]) && slice_equal(it.value, keys[i]));
        ck_assert_ptr_nonnull(it.value.data);
        assert_ok(mem_get(p.mem, keys[i], SEQ_MAX, &hit));
        ck_assert(slice_equal(hit.value, keys[i]));
        ck_assert_int_eq(mem_iter_next(&it), i + 1 < BASE_COUNT(keys) ? SHALE_OK : SHALE_NOTFOUND);
    }
    ck_assert_uint_eq(mem_keys(p.mem), BASE_COUNT(keys));
    pair_release(&p);
}
END_TEST

START_TEST(big_value_is_in_the_log_only)
{
    struct pair p = pair_make(32 << 20, false);
    unsigned char *value = base_alloc(8 << 20);
    struct mem_hit hit;
    ck_assert_ptr_nonnull(value);
    memset(value, 'v', 8 << 20);
    uint64_t used = mem_used(p.mem);
    pair_put(&p, text("big"), slice_make(value, 8 << 20));
    assert_ok(mem_get(p.mem, text("big"), SEQ_MAX, &hit));
    ck_assert(slice_equal(hit.value, slice_make(value, 8 << 20)));
    ck_assert(hit.value.data > p.seg->map && hit.value.data < p.seg->map + p.seg->size);
    ck_assert_uint_le(mem_used(p.mem) - used, mem_need(1));
    free(value);
    pair_release(&p);
}
END_TEST

/* ---- versions ---- */

START_TEST(overwrite_replaces_the_current_version)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct mem_hit hit;
    pair_put(&p, text("k"), text("first"));
    pair_put(&p, text("k"), text("second"));
    pair_put(&p, text("k"), slice_make(NULL, 0));
    pair_put(&p, text("k"), text(""));
    ck_assert_uint_eq(mem_keys(p.mem), 1);
    ck_assert_uint_eq(mem_entries(p.mem), 4);
    expect(&p, text("k"), 0, NULL);
    expect(&p, text("k"), 1, "first");
    expect(&p, text("k"), 2, "second");
    assert_ok(mem_get(p.mem, text("k"), 3, &hit));
    ck_assert(hit.type == WAL_DELETE && hit.seq == 3 && hit.value.size == 0);
    expect(&p, text("k"), 4, "");
    pair_release(&p);
}
END_TEST

/* Steps that a search for seq takes along the chain, as the reader takes them. */
static unsigned hops(const struct mem_index *m, const struct mem_node *n, uint64_t seq)
{
    uint32_t ref = atomic_load(&n->versions);
    unsigned steps = 0;
    while (ref != 0 && mem_version_at(m, ref)->seq > seq) {
        const struct mem_version *v = mem_version_at(m, ref);
        const struct mem_version *far = mem_version_at(m, v->jump);
        ref = far != NULL && far->seq > seq ? v->jump : v->prev;
        steps++;
    }
    return steps;
}

START_TEST(old_snapshot_finds_its_version_in_a_long_chain)
{
    struct pair p = pair_make(8 << 20, false);
    const uint64_t n = 20000;
    char value[24];
    pair_put(&p, text("a neighbour"), text("x"));
    for (uint64_t i = 2; i <= n; i++) {
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)i);
        pair_put(&p, text("counter"), text(value));
    }
    const struct mem_node *node = mem_node_at(p.mem, mem_next(p.mem, mem_next(p.mem, MEM_HEAD, 0), 0));
    for (uint64_t seq = 0; seq <= n + 1; seq++) {
        uint64_t want = seq <= n ? seq : n;
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)want);
        expect(&p, text("counter"), seq, want < 2 ? NULL : value);
        ck_assert_uint_le(hops(p.mem, node, seq), 45); /* 3 log2 of 20,000 */
    }
    ck_assert_uint_eq(mem_keys(p.mem), 2);
    pair_release(&p);
}
END_TEST

START_TEST(inserting_again_changes_nothing)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct buf payload = {0};
    struct wal_record header;
    struct wal_view rec;
    char key[16];
    for (int i = 0; i < 300; i++) { /* keys come more than once in the batch */
        (void)snprintf(key, sizeof key, "k%d", i % 70);
        assert_ok(wal_add_entry(&payload, i % 7 == 0 ? WAL_DELETE : WAL_PUT, text(key), text("value")));
    }
    wal_seal(p.seg, p.at, 300, 1, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(p.seg, p.at, &header, payload.data, false));
    assert_ok(wal_read(p.seg, p.at, &rec));
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert_uint_eq(mem_entries(p.mem), 300);
    ck_assert_uint_eq(mem_keys(p.mem), 70);
    uint64_t used = mem_used(p.mem), sum = checksum(p.mem->arena, p.mem->size, 0);
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert_uint_eq(mem_used(p.mem), used);
    ck_assert_uint_eq(checksum(p.mem->arena, p.mem->size, 0), sum);
    buf_release(&payload);
    pair_release(&p);
}
END_TEST

START_TEST(older_version_out_of_order_is_refused)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    uint32_t first = p.at + (uint32_t)sizeof(struct wal_record);
    pair_put(&p, text("k"), text("1"));
    p.seq = 5;
    pair_put(&p, text("k"), text("5"));
    uint64_t used = mem_used(p.mem);
    ck_assert_int_eq(mem_insert(p.mem, text("k"), 3, first), SHALE_CORRUPT);
    ck_assert_int_eq(mem_insert(p.mem, text("k"), 0, first), SHALE_CORRUPT);
    ck_assert_int_eq(mem_insert(p.mem, text("k"), SEQ_MAX + 1, first), SHALE_INVALID);
    ck_assert_int_eq(mem_insert(p.mem, text("k"), 6, 0), SHALE_INVALID);
    ck_assert_int_eq(mem_insert(p.mem, text("k"), 6, (uint32_t)p.seg->size), SHALE_INVALID);
    ck_assert_uint_eq(mem_used(p.mem), used);
    pair_release(&p);
}
END_TEST

/* ---- the model ---- */

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

/* ---- room ---- */

START_TEST(promised_room_is_enough)
{
    /* Batches of 50 new keys as long as their room is promised: every one fits, to the very end. */
    for (uint64_t round = 0; round < 4; round++) {
        struct pair p = pair_make(WAL_MIN_SIZE, false);
        uint64_t state = round, batches = 0;
        while (mem_room(p.mem) >= mem_need(50)) {
            struct buf payload = {0};
            struct wal_record header;
            struct wal_view rec;
            for (int i = 0; i < 50; i++) {
                uint64_t key = prng_next(&state);
                assert_ok(wal_add_entry(&payload, WAL_DELETE, slice_make(&key, 8), slice_make(NULL, 0)));
            }
            wal_seal(p.seg, p.at, 50, p.seq, payload.data, (uint32_t)payload.size, &header);
            assert_ok(wal_append(p.seg, p.at, &header, payload.data, false));
            assert_ok(wal_read(p.seg, p.at, &rec));
            assert_ok(mem_insert_record(p.mem, &rec));
            p.at = rec.end;
            p.seq += 50;
            batches++;
            buf_release(&payload);
        }
        ck_assert_uint_ge(batches, 110);
        pair_release(&p);
        assert_ok(os_unlink(kit_dirfd, "000001.wal"));
        assert_ok(os_unlink(kit_dirfd, "000001.mem"));
    }
}
END_TEST

START_TEST(full_index_says_so_and_stays_whole)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    int rc = SHALE_OK;
    uint64_t key = 0, inserted = 0;
    for (; rc == SHALE_OK; inserted += rc == SHALE_OK) {
        uint32_t at = p.at;
        key += UINT64_C(0x9e3779b97f4a7c15);
        p.at = append_one(p.seg, at, p.seq, slice_make(&key, 8), slice_make(NULL, 0), false);
        bool promised = mem_room(p.mem) >= mem_need(1);
        rc = mem_insert(p.mem, slice_make(&key, 8), p.seq++, at + (uint32_t)sizeof(struct wal_record));
        ck_assert(rc == SHALE_OK || (rc == SHALE_NOMEM && !promised));
    }
    assert_told("000001.mem");
    ck_assert_uint_eq(mem_entries(p.mem), inserted);
    ck_assert_uint_le(mem_used(p.mem), p.mem->size);
    pair_release(&p);
}
END_TEST

START_TEST(private_index_holds_whatever_the_segment_holds)
{
    /* The worst: a batch of the shortest entries that there are, one key over and over. */
    struct pair p = pair_make(WAL_MIN_SIZE, true);
    struct buf payload = {0};
    struct wal_record header;
    struct wal_view rec;
    uint32_t n = (WAL_MIN_SIZE - WAL_FIRST - (uint32_t)sizeof header) / 2;
    for (uint32_t i = 0; i < n; i++) {
        assert_ok(wal_add_entry(&payload, WAL_DELETE, text(""), text("")));
    }
    wal_seal(p.seg, p.at, n, 1, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(p.seg, p.at, &header, payload.data, false));
    assert_ok(wal_read(p.seg, p.at, &rec));
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert_uint_eq(mem_entries(p.mem), n);
    buf_release(&payload);
    pair_release(&p);
}
END_TEST

START_TEST(batch_that_is_not_what_its_header_says_is_refused)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct wal_record header;
    struct wal_view rec;
    static const char two[] = "\x02\x01"
                              "a"
                              "\x02\x01"
                              "b";
    for (uint32_t count = 1; count <= 3; count += 2) {
        wal_seal(p.seg, p.at, count, 1, two, 6, &header);
        assert_ok(wal_append(p.seg, p.at, &header, two, false));
        ck_assert_int_eq(wal_read(p.seg, p.at, &rec), SHALE_OK);
        ck_assert_int_eq(mem_insert_record(p.mem, &rec), SHALE_CORRUPT);
    }
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
    Suite *s = suite_create("mem");
    const TTest *const keys[] = {empty_index_has_nothing, one_entry_is_seen_from_its_sequence_number_on,
                                 keys_of_every_length_keep_their_order, big_value_is_in_the_log_only};
    const TTest *const versions[] = {overwrite_replaces_the_current_version,
                                     old_snapshot_finds_its_version_in_a_long_chain,
                                     inserting_again_changes_nothing, older_version_out_of_order_is_refused};
    const TTest *const model[] = {shared_index_agrees_with_the_model, private_index_agrees_with_the_model};
    const TTest *const room[] = {promised_room_is_enough, full_index_says_so_and_stays_whole,
                                 private_index_holds_whatever_the_segment_holds,
                                 batch_that_is_not_what_its_header_says_is_refused};
    kit_add(s, "keys", keys, BASE_COUNT(keys));
    kit_add(s, "versions", versions, BASE_COUNT(versions));
    kit_add(s, "model", model, BASE_COUNT(model));
    kit_add(s, "room", room, BASE_COUNT(room));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, no_agent);
}
