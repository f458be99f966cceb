/* test_mem.c - the memtable in one process: keys, versions, snapshots, room. */
#include "logkit.h"

#include "mem/arena.h"

START_TEST(empty_index_has_nothing)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct mem_iter it;
    mem_iter_init(&it, p.mem, SEQ_MAX);
    pair_expect(&p, text("k"), SEQ_MAX, NULL);
    pair_expect(&p, text(""), SEQ_MAX, NULL);
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
    pair_expect(&p, text("only"), 8, NULL);
    pair_expect(&p, text("only"), 9, "one");
    pair_expect(&p, text("onl"), 9, NULL);
    pair_expect(&p, text("only "), 9, NULL);
    mem_iter_init(&it, p.mem, 9);
    assert_ok(mem_iter_last(&it));
    ck_assert(slice_equal(it.key, text("only")) && slice_equal(it.value, text("one")));
    ck_assert(it.entry_seq == 9 && it.type == WAL_PUT &&
              it.entry_offset == WAL_FIRST + sizeof(struct wal_record));
    ck_assert_int_eq(mem_iter_next(&it), SHALE_NOTFOUND);
    ck_assert_uint_eq(it.record, 0);
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
    pair_expect(&p, text("k"), 0, NULL);
    pair_expect(&p, text("k"), 1, "first");
    pair_expect(&p, text("k"), 2, "second");
    assert_ok(mem_get(p.mem, text("k"), 3, &hit));
    ck_assert(hit.type == WAL_DELETE && hit.seq == 3 && hit.value.size == 0);
    pair_expect(&p, text("k"), 4, "");
    pair_release(&p);
}
END_TEST

static const struct mem_record *record_of(const struct mem_index *m, struct slice key)
{
    struct mem_iter it;
    mem_iter_init(&it, m, SEQ_MAX);
    assert_ok(mem_iter_seek(&it, key));
    ck_assert(slice_equal(it.key, key));
    return mem_record_at(m, it.record);
}

/* Steps that a search for seq takes along the chain, as the reader takes them. */
static unsigned hops(const struct mem_index *m, const struct mem_record *r, uint64_t seq)
{
    uint32_t ref = atomic_load(&r->versions);
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
    const struct mem_record *record = record_of(p.mem, text("counter"));
    for (uint64_t seq = 0; seq <= n + 1; seq++) {
        uint64_t want = seq <= n ? seq : n;
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)want);
        pair_expect(&p, text("counter"), seq, want < 2 ? NULL : value);
        ck_assert_uint_le(hops(p.mem, record, seq), 45); /* 3 log2 of 20,000 */
    }
    ck_assert_uint_eq(mem_keys(p.mem), 2);
    pair_release(&p);
}
END_TEST

START_TEST(old_snapshot_looks_at_few_versions)
{
    /* All versions but those on the way are made noise: whoever looked at one of them would be led astray. */
    struct pair p = pair_make(8 << 20, false);
    for (uint64_t i = 1; i <= 5000; i++) {
        pair_put(&p, text("counter"), i == 2 ? text("old") : text("new"));
    }
    const struct mem_record *record = record_of(p.mem, text("counter"));
    bool *kept = base_calloc(p.mem->size / MEM_UNIT, sizeof *kept);
    ck_assert_ptr_nonnull(kept);
    uint32_t newest = atomic_load(&record->versions), before = 0;
    for (uint32_t ref = newest; ref != 0;) {
        const struct mem_version *v = mem_version_at(p.mem, ref), *far = mem_version_at(p.mem, v->jump);
        kept[ref] = kept[v->jump] = true;
        ref = v->seq <= 2 ? 0 : far != NULL && far->seq > 2 ? v->jump : v->prev;
    }
    unsigned spoilt = 0;
    for (uint32_t ref = newest; ref != 0; ref = before) {
        struct mem_version *v = mem_version_at(p.mem, ref);
        before = v->prev;
        if (!kept[ref]) {
            memset(v, 0xff, sizeof *v);
            spoilt++;
        }
    }
    ck_assert_uint_ge(spoilt, 4900);
    pair_expect(&p, text("counter"), 2, "old");
    free(kept);
    mem_unref(p.mem);
    wal_unref(p.seg);
}
END_TEST

/* As many as a segment of this size holds, of 128 bytes each: 16 bits a key. */
START_TEST(filter_knows_every_key_and_few_others)
{
    struct pair p = pair_make(1 << 20, false);
    const uint64_t n = (1 << 20) / 128;
    uint64_t wrong = 0;
    ck_assert_uint_eq(p.mem->filter_lines * FILTER_LINE, 16384);
    for (uint64_t i = 0; i < n / 2; i++) {
        uint64_t key = i * 2;
        ck_assert(i != 0 || !mem_may_hold(p.mem, key_hash(slice_make(&key, 8))));
        pair_put(&p, slice_make(&key, 8), i % 9 == 0 ? slice_make(NULL, 0) : text("a value"));
    }
    for (uint64_t key = 0; key < n; key++) {
        bool may = mem_may_hold(p.mem, key_hash(slice_make(&key, 8)));
        ck_assert(may || key % 2 != 0);
        wrong += may && key % 2 != 0;
    }
    ck_assert_uint_le(wrong, n / 2 / 100);
    pair_release(&p);
}
END_TEST

/* A writer may be killed before it has set them all, and what it left is inserted again. */
START_TEST(h13_inserting_again_completes_the_filter)
{
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    struct wal_view rec;
    uint32_t at = p.at;
    pair_put(&p, text("key"), text("value"));
    assert_ok(mem_check(p.mem));
    assert_ok(wal_read(p.seg, at, &rec));
    memset(p.mem->arena + mem_filter_offset(p.mem->size), 0, mem_filter_size(p.seg->size));
    ck_assert(!mem_may_hold(p.mem, key_hash(text("key"))));
    ck_assert_int_eq(mem_check(p.mem), SHALE_CORRUPT);
    assert_told("filter");
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert(mem_may_hold(p.mem, key_hash(text("key"))));
    ck_assert_uint_eq(mem_entries(p.mem), 1);
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
    uint64_t used = mem_used(p.mem), sum = checksum(p.mem->arena, p.mem->mapped, 0);
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert_uint_eq(mem_used(p.mem), used);
    ck_assert_uint_eq(checksum(p.mem->arena, p.mem->mapped, 0), sum);
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

/* ---- room ---- */

/* A commit of many deletes. */
static void put_batch(struct pair *p, const uint64_t *keys, unsigned n)
{
    struct buf payload = {0};
    struct wal_record header;
    struct wal_view rec;
    for (unsigned i = 0; i < n; i++) {
        uint64_t key = __builtin_bswap64(keys[i]);
        assert_ok(wal_add_entry(&payload, WAL_DELETE, slice_make(&key, 8), slice_make(NULL, 0)));
    }
    wal_seal(p->seg, p->at, n, p->seq, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(p->seg, p->at, &header, payload.data, false));
    assert_ok(wal_read(p->seg, p->at, &rec));
    assert_ok(mem_insert_record(p->mem, &rec));
    p->at = rec.end;
    p->seq += n;
    buf_release(&payload);
}

static void unlink_pair(struct pair *p)
{
    pair_release(p);
    assert_ok(os_unlink(kit_dirfd, "000001.wal"));
    assert_ok(os_unlink(kit_dirfd, "000001.mem"));
}

START_TEST(promised_room_is_enough)
{
    /* Batches of new keys as long as their room is promised: every one fits, to the very end. Random keys,
     * and keys that descend, whose splits leave few in a node. */
    static const unsigned batch[] = {1, 2, 7, 50, 300};
    for (unsigned round = 0; round < 2 * BASE_COUNT(batch); round++) {
        unsigned n = batch[round / 2];
        struct pair p = pair_make(WAL_MIN_SIZE, false);
        uint64_t state = round, count = 0;
        while (mem_fits(p.mem, n)) {
            uint64_t keys[300];
            for (unsigned i = 0; i < n; i++, count++) {
                keys[i] = round % 2 == 0 ? prng_next(&state) : UINT64_MAX - count;
            }
            put_batch(&p, keys, n);
        }
        ck_assert_uint_ge(count, n == 1 ? 3400 : n <= 50 ? 2500 : 1500);
        ck_assert_uint_eq(mem_keys(p.mem), count);
        unlink_pair(&p);
    }
}
END_TEST

START_TEST(promised_room_is_enough_where_all_nodes_are_full)
{
    /* Ascending keys leave full nodes, on every level: then each key of a batch splits another leaf, and the
     * leaves' parents are split as well. */
    static const unsigned batch[] = {1, 7, 50, 150};
    for (unsigned round = 0; round < BASE_COUNT(batch); round++) {
        struct pair p = pair_make(WAL_MIN_SIZE, false);
        unsigned n = batch[round];
        uint64_t keys[150], count = 0;
        for (; mem_fits(p.mem, n + 20); count++) {
            put_batch(&p, &(uint64_t){count << 32}, 1);
        }
        ck_assert_uint_ge(count, n * MEM_WIDTH);
        for (unsigned i = 0; i < n; i++) {
            keys[i] = ((uint64_t)i * MEM_WIDTH << 32) + 1;
        }
        uint64_t used = mem_used(p.mem);
        ck_assert(mem_fits(p.mem, n));
        put_batch(&p, keys, n);
        ck_assert_uint_ge(mem_used(p.mem) - used, n * (sizeof(struct mem_node) + sizeof(struct mem_record)));
        ck_assert_uint_eq(mem_keys(p.mem), count + n);
        unlink_pair(&p);
    }
}
END_TEST

START_TEST(room_is_promised_for_what_an_empty_index_is_made_for)
{
    static const uint64_t counts[] = {1, 10, 1000, 3000};
    for (size_t i = 0; i < BASE_COUNT(counts); i++) {
        uint64_t size = align_up(MEM_FIRST + mem_need(counts[i]), 4096);
        struct pair p = pair_make(size > WAL_MIN_SIZE ? size : WAL_MIN_SIZE, false);
        ck_assert(mem_fits(p.mem, counts[i]));
        ck_assert(!mem_fits(p.mem, p.mem->size / 24));
        unlink_pair(&p);
    }
    ck_assert_uint_lt(mem_need(10), WAL_MIN_SIZE / 8);
}
END_TEST

START_TEST(parents_are_not_told_where_room_is_scarce)
{
    /* Full leaves, and just as much room as keys and leaves take: the tree grows no levels, but is whole. */
    struct pair p = pair_make(WAL_MIN_SIZE, false);
    uint64_t state = 12, key, spare;
    for (unsigned i = 0; i < 15; i++) {
        key = prng_next(&state);
        put_batch(&p, &key, 1);
    }
    const struct mem_node *first = mem_node_at(p.mem, mem_root(p.mem));
    spare = mem_room(p.mem) - sizeof(struct mem_record) - sizeof(struct mem_node) - BASE_CACHELINE;
    atomic_fetch_add(&mem_header(p.mem)->end, (uint32_t)(spare / MEM_UNIT));
    key = prng_next(&state);
    put_batch(&p, &key, 1);
    ck_assert_uint_lt(mem_room(p.mem), sizeof(struct mem_node));
    ck_assert_ptr_eq(mem_node_at(p.mem, mem_root(p.mem)), first);
    ck_assert_uint_ne(mem_next(first), 0);
    assert_ok(mem_check(p.mem));
    state = 12;
    for (unsigned i = 0; i < 16; i++) {
        struct mem_hit hit;
        key = __builtin_bswap64(prng_next(&state));
        assert_ok(mem_get(p.mem, slice_make(&key, 8), SEQ_MAX, &hit));
        ck_assert_uint_eq(hit.seq, i + 1);
    }
    pair_release(&p);
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
        bool promised = mem_fits(p.mem, 1);
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

START_TEST(private_index_holds_every_key_of_two_bytes)
{
    /* In an order that splits every node and fills none: downwards. */
    struct pair p = pair_make(WAL_MIN_SIZE, true);
    struct buf payload = {0};
    struct wal_record header;
    struct wal_view rec;
    uint32_t n = (WAL_MIN_SIZE - WAL_FIRST - (uint32_t)sizeof header) / 4;
    for (uint32_t i = 0; i < n; i++) {
        unsigned char key[2] = {(unsigned char)((n - i) >> 8), (unsigned char)(n - i)};
        assert_ok(wal_add_entry(&payload, WAL_DELETE, slice_make(key, 2), text("")));
    }
    wal_seal(p.seg, p.at, n, 1, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(p.seg, p.at, &header, payload.data, false));
    assert_ok(wal_read(p.seg, p.at, &rec));
    assert_ok(mem_insert_record(p.mem, &rec));
    ck_assert_uint_eq(mem_keys(p.mem), n);
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
                                     old_snapshot_looks_at_few_versions, inserting_again_changes_nothing,
                                     older_version_out_of_order_is_refused};
    const TTest *const filter[] = {filter_knows_every_key_and_few_others,
                                   h13_inserting_again_completes_the_filter};
    const TTest *const room[] = {promised_room_is_enough,
                                 promised_room_is_enough_where_all_nodes_are_full,
                                 room_is_promised_for_what_an_empty_index_is_made_for,
                                 parents_are_not_told_where_room_is_scarce,
                                 full_index_says_so_and_stays_whole,
                                 private_index_holds_whatever_the_segment_holds,
                                 private_index_holds_every_key_of_two_bytes,
                                 batch_that_is_not_what_its_header_says_is_refused};
    kit_add(s, "keys", keys, BASE_COUNT(keys));
    kit_add(s, "versions", versions, BASE_COUNT(versions));
    kit_add(s, "filter", filter, BASE_COUNT(filter));
    kit_add(s, "room", room, BASE_COUNT(room));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, no_agent);
}
