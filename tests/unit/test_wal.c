/* test_wal.c - records of the log: what comes back, and what noise, tears, older bytes and kills must not
 * pass for. */
#include "logkit.h"

/* ---- records ---- */

START_TEST(records_come_back)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 100, 4040, 4096, 70000, 65535, 8 << 20};
    struct wal_segment *seg = make_and_open(1, 32 << 20);
    struct wal_view rec;
    struct wal_entry e;
    unsigned char *bytes = base_alloc((8 << 20) + 8);
    ck_assert_ptr_nonnull(bytes);
    uint64_t state = 1, seq = 10;
    for (size_t i = 0; i < 8 << 20; i += 8) {
        put_u64(bytes + i, prng_next(&state));
    }
    uint32_t at = WAL_FIRST;
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        size_t keylen = sizes[i] < 65535 ? sizes[i] : 65535;
        for (int through_file = 0; through_file < 2; through_file++) {
            struct slice key = slice_make(bytes, keylen), value = slice_make(bytes + 3, sizes[i]);
            uint32_t pos = 0, end = append_one(seg, at, seq, key, value, through_file != 0);
            assert_ok(wal_read(seg, at, &rec));
            ck_assert_uint_eq(rec.end, end);
            ck_assert_uint_eq(rec.end % 8, 0);
            ck_assert_uint_eq(rec.first_seq, seq++);
            ck_assert_uint_eq(rec.count, 1);
            assert_ok(wal_next_entry(rec.payload, &pos, &e));
            ck_assert(e.type == WAL_PUT && e.offset == 0 && slice_equal(e.key, key) &&
                      slice_equal(e.value, value));
            ck_assert_ptr_nonnull(e.value.data);
            ck_assert_int_eq(wal_next_entry(rec.payload, &pos, &e), SHALE_NOTFOUND);
            at = end;
        }
    }
    ck_assert_int_eq(wal_read(seg, at, &rec), SHALE_NOTFOUND);
    free(bytes);
    wal_unref(seg);
}
END_TEST

START_TEST(batch_keeps_its_order)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct buf payload = {0};
    struct wal_record header;
    struct wal_view rec;
    struct wal_entry e;
    char key[16];
    uint32_t pos = 0;
    for (int i = 0; i < 500; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        assert_ok(wal_add_entry(&payload, i % 3 == 0 ? WAL_DELETE : WAL_PUT, text(key), text("value")));
    }
    wal_seal(seg, WAL_FIRST, 500, 1, payload.data, (uint32_t)payload.size, &header);
    assert_ok(wal_append(seg, WAL_FIRST, &header, payload.data, false));
    assert_ok(wal_read(seg, WAL_FIRST, &rec));
    for (int i = 0; i < 500; i++) {
        uint32_t before = pos;
        (void)snprintf(key, sizeof key, "k%d", i);
        assert_ok(wal_next_entry(rec.payload, &pos, &e));
        ck_assert_uint_eq(e.offset, before);
        ck_assert_int_eq(e.type, i % 3 == 0 ? WAL_DELETE : WAL_PUT);
        ck_assert(slice_equal(e.key, text(key)));
        ck_assert_uint_eq(e.value.size, i % 3 == 0 ? 0 : 5);
    }
    ck_assert_int_eq(wal_next_entry(rec.payload, &pos, &e), SHALE_NOTFOUND);
    buf_release(&payload);
    wal_unref(seg);
}
END_TEST

/* What is noted is never more than what was said, and at most twice as far back. */
START_TEST(what_was_durable_is_noted_rounded_down)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_record header;
    struct wal_view rec;
    struct buf payload = {0};
    assert_ok(wal_add_entry(&payload, WAL_PUT, text("key"), text("value")));
    for (uint32_t at = WAL_FIRST; at < WAL_FIRST + 40000; at += 4000) {
        for (uint32_t durable = WAL_FIRST; durable <= at; durable += 56) {
            uint64_t noted = wal_note_durable(7, wal_lsn(1, at), wal_lsn(1, durable));
            wal_seal(seg, at, 1, noted, payload.data, (uint32_t)payload.size, &header);
            assert_ok(wal_append(seg, at, &header, payload.data, false));
            assert_ok(wal_read(seg, at, &rec));
            ck_assert_uint_eq(rec.first_seq, 7);
            ck_assert(rec.durable <= durable && rec.durable >= WAL_FIRST);
            ck_assert(at - rec.durable <= 8 || at - rec.durable < 2 * (at - durable));
        }
        wal_seal(seg, at, 1, 7, payload.data, (uint32_t)payload.size, &header);
        assert_ok(wal_append(seg, at, &header, payload.data, false));
        assert_ok(wal_read(seg, at, &rec));
        ck_assert_uint_eq(rec.durable, 0);
    }
    ck_assert_uint_eq(wal_note_durable(7, wal_lsn(2, WAL_FIRST), wal_lsn(1, WAL_FIRST)), 7);
    ck_assert_int_eq(wal_find(seg, WAL_FIRST, 0, 10, &rec), SHALE_NOTFOUND);
    buf_release(&payload);
    wal_unref(seg);
}
END_TEST

START_TEST(segment_is_used_to_its_last_byte)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    unsigned char *payload = base_calloc(1, WAL_MIN_SIZE);
    struct wal_record header;
    struct wal_view rec;
    uint32_t length = WAL_MIN_SIZE - WAL_FIRST - (uint32_t)sizeof header;
    for (int through_file = 0; through_file < 2; through_file++) {
        wal_seal(seg, WAL_FIRST, 1, 5, payload, length, &header);
        assert_ok(wal_append(seg, WAL_FIRST, &header, payload, through_file != 0));
        assert_ok(wal_read(seg, WAL_FIRST, &rec));
        ck_assert_uint_eq(rec.end, seg->size);
        ck_assert_int_eq(wal_read(seg, rec.end, &rec), SHALE_NOTFOUND);
        wal_seal(seg, WAL_FIRST + 8, 1, 5, payload, length, &header);
        ck_assert_int_eq(wal_append(seg, WAL_FIRST + 8, &header, payload, through_file != 0), SHALE_INVALID);
    }
    for (uint32_t left = 0; left < 32; left++) {
        ck_assert_int_eq(wal_read(seg, (uint32_t)seg->size - left, &rec), SHALE_NOTFOUND);
    }
    ck_assert_int_eq(wal_read(seg, 0, &rec), SHALE_NOTFOUND);
    ck_assert_int_eq(wal_read(seg, UINT32_MAX, &rec), SHALE_NOTFOUND);
    ck_assert_int_eq(wal_read(seg, UINT32_MAX - 7, &rec), SHALE_NOTFOUND);
    free(payload);
    wal_unref(seg);
}
END_TEST

START_TEST(wiped_record_is_none)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_view rec;
    uint32_t end = append_one(seg, WAL_FIRST, 1, text("a"), text("1"), false);
    (void)append_one(seg, end, 2, text("b"), text("2"), false);
    assert_ok(wal_wipe(seg, WAL_FIRST));
    ck_assert_int_eq(wal_read(seg, WAL_FIRST, &rec), SHALE_NOTFOUND);
    assert_ok(wal_read(seg, end, &rec));
    assert_ok(wal_sync(seg));
    wal_unref(seg);
}
END_TEST

START_TEST(read_only_segment_refuses_writes)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE), *reader = NULL;
    struct wal_record header;
    (void)append_one(seg, WAL_FIRST, 1, text("a"), text("1"), true);
    assert_ok(wal_open(kit_dirfd, kit_uuid, 1, false, &reader));
    struct wal_view rec;
    assert_ok(wal_read(reader, WAL_FIRST, &rec));
    wal_seal(reader, WAL_FIRST, 1, 1, "xy", 2, &header);
    ck_assert_int_eq(wal_append(reader, WAL_FIRST, &header, "xy", false), SHALE_INVALID);
    ck_assert_int_eq(wal_wipe(reader, WAL_FIRST), SHALE_INVALID);
    ck_assert_int_eq(wal_sync(reader), SHALE_INVALID);
    ck_assert_int_eq(wal_rewrite(reader, WAL_FIRST, rec.end), SHALE_INVALID);
    wal_unref(reader);
    wal_unref(seg);
}
END_TEST

static uint64_t written_from, written_to;
static unsigned writes;

static int watch_writes(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name;
    if (op == OS_OP_WRITE) {
        ck_assert(writes == 0 || offset == written_to);
        written_from = writes == 0 ? offset : written_from;
        written_to = offset + *length;
        writes++;
    }
    return 0;
}

START_TEST(rewrite_covers_its_range_and_changes_nothing)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    static unsigned char value[100000];
    struct wal_view rec;
    uint64_t state = 3;
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] = (unsigned char)prng_next(&state);
    }
    uint32_t end = append_one(seg, WAL_FIRST, 1, text("k"), slice_make(value, sizeof value), false);
    os_door_hook = watch_writes;
    assert_ok(wal_rewrite(seg, WAL_FIRST, end));
    os_door_hook = NULL;
    ck_assert_uint_eq(written_from, WAL_FIRST);
    ck_assert_uint_eq(written_to, end);
    assert_ok(wal_read(seg, WAL_FIRST, &rec));
    assert_ok(wal_rewrite(seg, end, end));
    wal_unref(seg);
}
END_TEST

/* ---- what must not verify ---- */

START_TEST(h38_flipped_bit_in_a_record_is_found)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_view rec;
    append_one(seg, WAL_FIRST, 1, text("some key"), text("and its value"), false);
    assert_ok(wal_read(seg, WAL_FIRST, &rec));
    size_t bits = 8 * (sizeof(struct wal_record) + rec.payload.size);
    for (size_t bit = 0; bit < bits; bit++) {
        unsigned char *p = seg->map + WAL_FIRST + bit / 8;
        *p ^= (unsigned char)(1u << bit % 8);
        ck_assert_int_eq(wal_read(seg, WAL_FIRST, &rec), SHALE_NOTFOUND);
        *p ^= (unsigned char)(1u << bit % 8);
    }
    assert_ok(wal_read(seg, WAL_FIRST, &rec));
    wal_unref(seg);
}
END_TEST

START_TEST(record_verifies_only_in_its_place)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE), *other = make_and_open(2, WAL_MIN_SIZE);
    struct wal_view rec;
    append_one(seg, WAL_FIRST, 1, text("some key"), text("and its value"), false);
    memcpy(seg->map + WAL_FIRST + 1024, seg->map + WAL_FIRST, 128);
    memcpy(other->map + WAL_FIRST, seg->map + WAL_FIRST, 128);
    ck_assert_int_eq(wal_read(seg, WAL_FIRST + 1024, &rec), SHALE_NOTFOUND);
    ck_assert_int_eq(wal_read(other, WAL_FIRST, &rec), SHALE_NOTFOUND);
    /* the number counts as well as the salt */
    other->salt = seg->salt;
    ck_assert_int_eq(wal_read(other, WAL_FIRST, &rec), SHALE_NOTFOUND);
    other->number = seg->number;
    assert_ok(wal_read(other, WAL_FIRST, &rec));
    other->salt ^= 1;
    ck_assert_int_eq(wal_read(other, WAL_FIRST, &rec), SHALE_NOTFOUND);
    wal_unref(seg);
    wal_unref(other);
}
END_TEST

START_TEST(noise_never_verifies)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_view rec;
    uint64_t state = 11;
    for (int round = 0; round < 4; round++) {
        for (uint32_t at = WAL_FIRST; at < seg->size; at += 8) {
            /* plausible lengths and counts in some rounds, or the bounds alone would refuse them all */
            uint64_t r = prng_next(&state);
            put_u64(seg->map + at, round == 0 ? r : r & 0x0000003f0000ffff);
        }
        for (uint32_t at = WAL_FIRST; at < seg->size; at++) {
            ck_assert_int_eq(wal_read(seg, at, &rec), SHALE_NOTFOUND);
        }
    }
    wal_unref(seg);
}
END_TEST

START_TEST(malformed_entries_are_refused)
{
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"\x01", 1},                                          /* a put without lengths */
        {"\x02", 1},                                          /* a delete without one */
        {"\x02\x01", 2},                                      /* its key is missing */
        {"\x01\x01\x01k", 4},                                 /* the value is missing */
        {"\x03\x01k", 3},                                     /* no such type */
        {"\x00\x00", 2},                                      /* nor this one */
        {"\x02\xff\xff\xff\xff\xff\xff", 7},                  /* a length that does not end */
        {"\x02\xff\xff\xff\xff\x1f", 6},                      /* a length of more than 32 bits */
        {"\x01\xff\xff\xff\xff\x0f\xff\xff\xff\xff\x0f", 11}, /* lengths that add up to more than 32 bits */
    };
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        struct wal_entry e = {.type = 99};
        uint32_t pos = 0;
        ck_assert_int_eq(wal_next_entry(slice_make(bad[i].bytes, bad[i].size), &pos, &e), SHALE_CORRUPT);
        ck_assert(pos == 0 && e.type == 99);
    }
}
END_TEST

START_TEST(payload_has_a_limit)
{
    struct buf payload = {.size = UINT32_MAX - 8192};
    ck_assert_int_eq(wal_add_entry(&payload, WAL_PUT, text("key"), slice_make("", 5000)), SHALE_TOOBIG);
    ck_assert_uint_eq(payload.size, UINT32_MAX - 8192);
}
END_TEST

/* ---- torn ---- */

static uint32_t fill_with_equal_records(struct wal_segment *seg, uint32_t n, uint64_t seq, const char *value)
{
    uint32_t at = WAL_FIRST;
    for (uint32_t i = 0; i < n; i++) {
        at = append_one(seg, at, seq + i, text("key"), text(value), false);
    }
    return at;
}

START_TEST(h36_torn_tail_hides_older_bytes_behind_it)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_view rec;
    (void)fill_with_equal_records(seg, 100, 1, "old value");
    wal_unref(seg);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, true, &seg), SHALE_NOTFOUND);
    assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &seg));
    ck_assert_mem_ne(seg->map + WAL_FIRST, "\0\0\0\0\0\0\0", 8); /* the old bytes are still there */
    for (uint32_t at = WAL_FIRST; at < seg->size; at += 8) {
        ck_assert_int_eq(wal_read(seg, at, &rec), SHALE_NOTFOUND);
    }
    /* Records of the very same sizes: an old one, whole, stands exactly where the next is expected. */
    uint32_t end = fill_with_equal_records(seg, 10, 101, "new value");
    uint32_t at = WAL_FIRST, n = 0;
    for (; wal_read(seg, at, &rec) == SHALE_OK; at = rec.end) {
        ck_assert_uint_eq(rec.first_seq, 101 + n++);
    }
    ck_assert(at == end && n == 10);
    /* The last one is torn: half of its payload never came. The log ends before it. */
    uint32_t last = WAL_FIRST + 9 * (end - WAL_FIRST) / 10;
    memset(seg->map + end - 8, 'x', 8);
    ck_assert_int_eq(wal_read(seg, last, &rec), SHALE_NOTFOUND);
    wal_unref(seg);
}
END_TEST

/* Kills a process at every mark of an append: what it leaves is the whole record or none. */
static void kill_in_append(const char *how)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_view rec;
    unsigned kills = 0, whole = 0;
    char n[16];
    for (unsigned mark = 0;; mark++) {
        assert_ok(wal_wipe(seg, WAL_FIRST));
        (void)snprintf(n, sizeof n, "%u", mark);
        struct agent a = agent_start(how, n);
        int status = agent_end(&a);
        int rc = wal_read(seg, WAL_FIRST, &rec);
        if (WIFEXITED(status)) {
            ck_assert_int_eq(WEXITSTATUS(status), 0);
            ck_assert_int_eq(rc, SHALE_OK);
            break;
        }
        kills++;
        whole += rc == SHALE_OK;
        ck_assert(rc == SHALE_OK || rc == SHALE_NOTFOUND);
    }
    ck_assert_uint_ge(kills, 2);
    ck_assert_uint_lt(whole, kills);
    wal_unref(seg);
}

START_TEST(writer_killed_in_a_mapped_append_leaves_all_or_nothing)
{
    kill_in_append("mapped");
}
END_TEST

START_TEST(writer_killed_in_a_written_append_leaves_all_or_nothing)
{
    kill_in_append("written");
}
END_TEST

static int writes_go_wrong(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    return op == OS_OP_WRITE || op == OS_OP_FDATASYNC ? EIO : 0;
}

START_TEST(append_that_goes_wrong_publishes_nothing)
{
    static unsigned char value[20000];
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct wal_record header;
    struct wal_view rec;
    for (size_t size = 10; size <= sizeof value; size += sizeof value - 10) {
        wal_seal(seg, WAL_FIRST, 1, 1, value, (uint32_t)size, &header);
        os_door_hook = writes_go_wrong;
        ck_assert_int_eq(wal_append(seg, WAL_FIRST, &header, value, true), SHALE_IO);
        assert_told("000001.wal");
        ck_assert_int_eq(wal_wipe(seg, WAL_FIRST), SHALE_IO);
        ck_assert_int_eq(wal_sync(seg), SHALE_IO);
        ck_assert_int_eq(wal_rewrite(seg, WAL_FIRST, WAL_FIRST + 8), SHALE_IO);
        os_door_hook = NULL;
        ck_assert_int_eq(wal_read(seg, WAL_FIRST, &rec), SHALE_NOTFOUND);
    }
    wal_unref(seg);
}
END_TEST

/* Appends a record of 1000 bytes at WAL_FIRST of segment 1, as if at the mark that it is told to die at. */
static int agent(const char *what, const char *argument)
{
    static const unsigned char value[1000] = {'v'};
    struct wal_segment *seg = NULL;
    struct buf payload = {0};
    struct wal_record header;
    kit_die_at((unsigned)strtoul(argument, NULL, 10));
    int rc = wal_open(kit_dirfd, kit_uuid, 1, true, &seg);
    if (rc == SHALE_OK) {
        rc = wal_add_entry(&payload, WAL_PUT, text("torn"), slice_make(value, sizeof value));
    }
    if (rc == SHALE_OK) {
        wal_seal(seg, WAL_FIRST, 1, 1, payload.data, (uint32_t)payload.size, &header);
        rc = wal_append(seg, WAL_FIRST, &header, payload.data, strcmp(what, "written") == 0);
    }
    buf_release(&payload);
    wal_unref(seg);
    return rc == SHALE_OK ? 0 : 6;
}

static Suite *make_suite(void)
{
    Suite *s = suite_create("wal");
    const TTest *const records[] = {records_come_back,
                                    batch_keeps_its_order,
                                    what_was_durable_is_noted_rounded_down,
                                    segment_is_used_to_its_last_byte,
                                    wiped_record_is_none,
                                    read_only_segment_refuses_writes,
                                    rewrite_covers_its_range_and_changes_nothing,
                                    append_that_goes_wrong_publishes_nothing};
    const TTest *const refused[] = {h38_flipped_bit_in_a_record_is_found, record_verifies_only_in_its_place,
                                    noise_never_verifies, malformed_entries_are_refused, payload_has_a_limit};
    const TTest *const torn[] = {h36_torn_tail_hides_older_bytes_behind_it,
                                 writer_killed_in_a_mapped_append_leaves_all_or_nothing,
                                 writer_killed_in_a_written_append_leaves_all_or_nothing};
    kit_add(s, "records", records, BASE_COUNT(records));
    kit_add(s, "refused", refused, BASE_COUNT(refused));
    kit_add(s, "torn", torn, BASE_COUNT(torn));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, agent);
}
