/* test_mem_shared.c - the memtable as a file that processes share: made, replaced; writers that
 * are killed between any two stores, readers that go on meanwhile. */
#include "logkit.h"

#include "mem/arena.h"

#include <signal.h>

/* ---- the file ---- */

START_TEST(names_have_one_form)
{
    char name[MEM_NAME_SIZE];
    uint32_t n = 0;
    mem_name(12, name);
    ck_assert_str_eq(name, "000012.mem");
    ck_assert(mem_parse_name(name, &n) && n == 12);
    ck_assert(mem_parse_tmp_name("4294967295.mem.tmp-0123456789abcdef", &n) && n == UINT32_MAX);
    ck_assert(!mem_parse_name("000012.wal", &n) &&
              !mem_parse_tmp_name("000012.wal.tmp-0123456789abcdef", &n));
}
END_TEST

static ino_t inode_of(const char *name)
{
    struct stat st;
    assert_ok(os_stat_at(kit_dirfd, name, &st));
    return st.st_ino;
}

START_TEST(own_index_stays_and_a_leftover_is_replaced)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct mem_index *mem = NULL;
    struct stat st;
    ck_assert_int_eq(mem_open(kit_dirfd, seg, true, &mem), SHALE_NOTFOUND);
    assert_ok(mem_make(kit_dirfd, seg, 0640));
    assert_ok(os_stat_at(kit_dirfd, "000001.mem", &st));
    ck_assert_uint_eq((uint64_t)st.st_size, seg->size + mem_filter_size(seg->size));
    ck_assert_uint_eq(st.st_mode & 0777, 0640);
    ck_assert_int_eq(mem_make(kit_dirfd, seg, 0600), SHALE_EXISTS);
    ck_assert_uint_eq(inode_of("000001.mem"), st.st_ino);
    wal_unref(seg);
    /* Another segment of that number: the index is not its own. */
    assert_ok(os_unlink(kit_dirfd, "000001.wal"));
    seg = make_and_open(1, WAL_MIN_SIZE);
    ck_assert_int_eq(mem_open(kit_dirfd, seg, true, &mem), SHALE_NOTFOUND);
    assert_ok(mem_make(kit_dirfd, seg, 0600));
    ck_assert_uint_ne(inode_of("000001.mem"), st.st_ino);
    assert_ok(mem_open(kit_dirfd, seg, true, &mem));
    wal_unref(seg);
    ck_assert_uint_eq(names_there().files, 2);
    mem_unref(mem_ref(mem));
    mem_unref(mem);
    mem_unref(NULL);
}
END_TEST

START_TEST(leftover_that_another_removes_is_waited_for_briefly)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    int fd = -1;
    assert_ok(os_open(kit_dirfd, "000001.mem", O_RDWR | O_CREAT, 0600, &fd));
    assert_ok(os_lock_try(fd, 0, 1, true));
    ck_assert_int_eq(mem_make(kit_dirfd, seg, 0600), SHALE_BUSY);
    assert_told("000001.mem");
    ck_assert_uint_eq(names_there().tmps, 0);
    os_close(&fd);
    assert_ok(mem_make(kit_dirfd, seg, 0600));
    wal_unref(seg);
}
END_TEST

START_TEST(damaged_header_is_no_index)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    struct mem_index *mem = NULL;
    for (size_t at = 0; at < offsetof(struct mem_header, zero); at++) {
        assert_ok(mem_make(kit_dirfd, seg, 0600));
        assert_ok(mem_open(kit_dirfd, seg, true, &mem));
        unsigned char c = mem->arena[at] ^ 0x10;
        mem_unref(mem);
        write_at("000001.mem", &c, 1, at);
        ck_assert_int_eq(mem_open(kit_dirfd, seg, true, &mem), SHALE_NOTFOUND);
    }
    static const uint64_t sizes[] = {0, 87, 4096, WAL_MIN_SIZE, WAL_MIN_SIZE + 2 * 4096};
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        int fd = -1;
        assert_ok(mem_make(kit_dirfd, seg, 0600));
        assert_ok(os_open(kit_dirfd, "000001.mem", O_RDWR, 0, &fd));
        assert_ok(os_truncate(fd, sizes[i]));
        os_close(&fd);
        ck_assert_int_eq(mem_open(kit_dirfd, seg, false, &mem), SHALE_NOTFOUND);
    }
    wal_unref(seg);
}
END_TEST

START_TEST(reader_may_not_insert)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE), *reader = NULL;
    struct mem_index *mem = NULL, *seen = NULL;
    struct mem_hit hit;
    append_one(seg, WAL_FIRST, 1, text("k"), text("v"), true);
    assert_ok(mem_make(kit_dirfd, seg, 0600));
    assert_ok(mem_open(kit_dirfd, seg, true, &mem));
    assert_ok(wal_open(kit_dirfd, kit_uuid, 1, false, &reader));
    assert_ok(mem_open(kit_dirfd, reader, false, &seen));
    assert_ok(mem_insert(mem, text("k"), 1, WAL_FIRST + 24));
    assert_ok(mem_get(seen, text("k"), 1, &hit));
    ck_assert_int_eq(mem_insert(seen, text("k"), 2, WAL_FIRST + 24), SHALE_INVALID);
    wal_unref(reader);
    wal_unref(seg);
    mem_unref(seen);
    mem_unref(mem);
}
END_TEST

START_TEST(h23_full_device_at_any_call_leaves_no_trace)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    bool broke = true;
    for (unsigned n = 0; broke; n++) {
        struct mem_index *mem = NULL;
        uint64_t files = os_open_files(), mapped = os_mapped_bytes();
        kit_break_call(n, ENOSPC);
        int rc = mem_make(kit_dirfd, seg, 0600);
        rc = rc == SHALE_OK ? mem_open(kit_dirfd, seg, true, &mem) : rc;
        broke = kit_mend();
        ck_assert_int_eq(rc, broke ? SHALE_NOSPC : SHALE_OK);
        ck_assert(!broke || strstr(shale_errmsg(), "000001.mem") != NULL);
        mem_unref(mem);
        ck_assert_uint_eq(os_open_files(), files);
        ck_assert_uint_eq(os_mapped_bytes(), mapped);
        ck_assert_uint_eq(names_there().tmps, 0);
        assert_ok(os_unlink(kit_dirfd, "000001.mem"));
        ck_assert(broke || n >= 8);
    }
    wal_unref(seg);
}
END_TEST

/* ---- killed writers, living readers ---- */

#define LOG_RECORDS 3000u
#define LOG_BATCH   3u

/* What the processes share besides the index. */
struct board {
    _Atomic uint64_t published; /* the last sequence number whose record is in the index as a whole */
    _Atomic uint32_t stop;
    _Atomic uint64_t reads;
};

/* NULL: it cannot be had. (No assertion of Check's: agents come here, too.) */
static struct board *map_board(void)
{
    void *map = NULL;
    int fd = -1;
    if (os_open(kit_dirfd, "board", O_RDWR, 0600, &fd) == SHALE_OK) {
        (void)os_map(fd, 4096, true, &map);
    }
    os_close(&fd);
    return map;
}

/* Entry `seq` of the log: new keys all over, keys that are overwritten again and again, ascending ones. */
static struct slice log_key(uint64_t seq, char buf[32])
{
    uint64_t state = seq, r = prng_next(&state);
    if (seq % 3 == 0) {
        (void)snprintf(buf, 32, "hot %llu", (unsigned long long)r % 11);
    } else if (seq % 3 == 1) {
        (void)snprintf(buf, 32, "%016llx", (unsigned long long)r);
    } else {
        (void)snprintf(buf, 32, "up %08llu", (unsigned long long)seq);
    }
    return text(buf);
}

static void write_log(struct wal_segment *seg)
{
    uint32_t at = WAL_FIRST;
    for (uint64_t i = 0; i < LOG_RECORDS; i++) {
        struct buf payload = {0};
        struct wal_record header;
        char key[32];
        uint64_t first = i * LOG_BATCH + 1;
        for (uint64_t seq = first; seq < first + LOG_BATCH; seq++) {
            assert_ok(wal_add_entry(&payload, WAL_PUT, log_key(seq, key), slice_make(&seq, sizeof seq)));
        }
        wal_seal(seg, at, LOG_BATCH, first, payload.data, (uint32_t)payload.size, &header);
        assert_ok(wal_append(seg, at, &header, payload.data, true));
        at += (uint32_t)wal_record_size(payload.size);
        buf_release(&payload);
    }
}

/* Inserts what is not published yet, beginning with a record that the one before may have left half done. */
static int write_on(struct mem_index *m, struct board *b)
{
    struct wal_view rec;
    uint64_t done = atomic_load(&b->published);
    uint32_t at = WAL_FIRST;
    while (wal_read(m->seg, at, &rec) == SHALE_OK) {
        at = rec.end;
        if (rec.first_seq + 2 * LOG_BATCH <= done) {
            continue; /* some that are whole are inserted again, too */
        }
        if (mem_insert_record(m, &rec) != SHALE_OK) {
            return 11;
        }
        uint64_t last = rec.first_seq + rec.count - 1;
        if (last > atomic_load_explicit(&b->published, memory_order_relaxed)) {
            atomic_store_explicit(&b->published, last, memory_order_release);
        }
    }
    return 0;
}

/* Is the newest version of seq's key, as of seq, seq itself? */
static bool found(const struct mem_index *m, uint64_t seq)
{
    struct mem_hit hit;
    char key[32];
    return mem_may_hold(m, key_hash(log_key(seq, key))) &&
           mem_get(m, log_key(seq, key), seq, &hit) == SHALE_OK && hit.seq == seq &&
           hit.value.size == sizeof seq && get_u64(hit.value.data) == seq;
}

/* How many keys the first entries of the log have. */
static uint64_t log_keys(uint64_t seq)
{
    uint64_t n = seq - seq / 3;
    uint32_t hot = 0;
    for (uint64_t i = 3; i <= seq; i += 3) {
        uint64_t state = i;
        hot |= 1u << prng_next(&state) % 11;
    }
    return n + (uint64_t)__builtin_popcount(hot);
}

/* All keys that a snapshot may see, and no others, in order. */
static bool walk_is_sound(const struct mem_index *m, uint64_t seq, bool down)
{
    struct mem_iter it;
    uint64_t newest = 0, n = 0;
    int rc;
    mem_iter_init(&it, m, seq);
    for (rc = down ? mem_iter_last(&it) : mem_iter_first(&it); rc == SHALE_OK;
         rc = down ? mem_iter_prev(&it) : mem_iter_next(&it)) {
        char key[32];
        if (it.entry_seq > seq || !slice_equal(it.key, log_key(it.entry_seq, key))) {
            return false;
        }
        newest = it.entry_seq > newest ? it.entry_seq : newest;
        n++;
    }
    return rc == SHALE_NOTFOUND && newest == seq && n == log_keys(seq);
}

static int read_on(const struct mem_index *m, struct board *b, uint64_t seed)
{
    for (uint64_t n = 0; atomic_load(&b->stop) == 0; n++) {
        uint64_t seq = atomic_load_explicit(&b->published, memory_order_acquire);
        uint64_t probe = seq == 0 ? 0 : 1 + prng_next(&seed) % seq;
        if (probe != 0 && !found(m, probe)) {
            return 21;
        }
        if (n % 512 == 0 && !walk_is_sound(m, seq, n % 1024 == 0)) {
            return 22;
        }
        atomic_fetch_add_explicit(&b->reads, 1, memory_order_relaxed);
    }
    return 0;
}

static int agent(const char *what, const char *argument)
{
    bool writer = strcmp(what, "write") == 0;
    struct wal_segment *seg = NULL;
    struct mem_index *m = NULL;
    struct board *b = map_board();
    int result = 10;
    if (b != NULL && wal_open(kit_dirfd, kit_uuid, 1, writer, &seg) == SHALE_OK &&
        mem_open(kit_dirfd, seg, writer, &m) == SHALE_OK) {
        unsigned n = (unsigned)strtoul(argument, NULL, 10);
        if (writer) {
            kit_die_at(n);
        }
        result = writer ? write_on(m, b) : read_on(m, b, n);
    }
    mem_unref(m);
    wal_unref(seg);
    os_unmap(b, 4096);
    return result;
}

static struct mem_index *shared_index(struct board **b)
{
    struct wal_segment *seg = make_and_open(1, 1 << 20);
    struct mem_index *m = NULL;
    int fd = -1;
    write_log(seg);
    assert_ok(mem_make(kit_dirfd, seg, 0600));
    assert_ok(mem_open(kit_dirfd, seg, true, &m));
    wal_unref(seg);
    assert_ok(os_open(kit_dirfd, "board", O_RDWR | O_CREAT, 0600, &fd));
    assert_ok(os_allocate(fd, 0, 4096));
    os_close(&fd);
    *b = map_board();
    ck_assert_ptr_nonnull(*b);
    return m;
}

static void expect_all(const struct mem_index *m)
{
    assert_ok(mem_check(m));
    for (uint64_t seq = 1; seq <= (uint64_t)LOG_RECORDS * LOG_BATCH; seq++) {
        ck_assert_msg(found(m, seq), "sequence number %llu", (unsigned long long)seq);
    }
    ck_assert(walk_is_sound(m, (uint64_t)LOG_RECORDS * LOG_BATCH, false));
    ck_assert(walk_is_sound(m, (uint64_t)LOG_RECORDS * LOG_BATCH, true));
}

START_TEST(h13_writer_killed_between_two_stores_is_followed_by_another)
{
    struct board *b;
    struct mem_index *m = shared_index(&b);
    uint64_t state = 4, kills = 0;
    char n[16];
    struct agent readers[2] = {agent_start("read", "1"), agent_start("read", "2")};
    for (int status = SIGKILL; status != 0; kills++) {
        /* short lives first: every place within the first inserts is hit */
        uint64_t marks = kills < 40 ? kills : prng_next(&state) % 400;
        (void)snprintf(n, sizeof n, "%llu", (unsigned long long)marks);
        struct agent a = agent_start("write", n);
        status = agent_end(&a);
        ck_assert(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        if (status != 0) {
            assert_ok(mem_check(m)); /* nobody is writing now */
        }
    }
    atomic_store(&b->stop, 1);
    ck_assert_int_eq(agent_end(&readers[0]), 0);
    ck_assert_int_eq(agent_end(&readers[1]), 0);
    ck_assert_uint_ge(kills, 50);
    ck_assert_uint_gt(atomic_load(&b->reads), kills);
    expect_all(m);
    os_unmap(b, 4096);
    mem_unref(m);
}
END_TEST

START_TEST(h13_every_mark_of_one_insert)
{
    /* The parent inserts, too, between the kills: its memory of the last place must not be trusted then. */
    struct board *b;
    struct mem_index *m = shared_index(&b);
    struct wal_view rec;
    uint32_t at = WAL_FIRST;
    char n[16];
    for (unsigned mark = 0; mark < 60; mark++) {
        assert_ok(wal_read(m->seg, at, &rec));
        assert_ok(mem_insert_record(m, &rec));
        atomic_store(&b->published, rec.first_seq + rec.count - 1);
        at = rec.end;
        (void)snprintf(n, sizeof n, "%u", mark);
        struct agent a = agent_start("write", n);
        ck_assert(WIFSIGNALED(agent_end(&a)));
        assert_ok(mem_check(m));
        while (rec.first_seq < atomic_load(&b->published)) {
            assert_ok(wal_read(m->seg, at, &rec));
            assert_ok(mem_insert_record(m, &rec));
            at = rec.end;
        }
    }
    ck_assert_int_eq(write_on(m, b), 0);
    expect_all(m);
    os_unmap(b, 4096);
    mem_unref(m);
}
END_TEST

/* ---- threads ---- */

struct crew {
    struct mem_index *m;
    struct board *b;
    int result;
};

static void *reading_thread(void *ctx)
{
    struct crew *c = ctx;
    c->result = read_on(c->m, c->b, 5);
    return NULL;
}

START_TEST(threads_read_while_one_inserts)
{
    struct board *b;
    struct mem_index *m = shared_index(&b);
    struct crew crew[2] = {{m, b, -1}, {m, b, -1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_ok(os_thread_start(&threads[i], reading_thread, &crew[i], "reader"));
    }
    ck_assert_int_eq(write_on(m, b), 0);
    atomic_store(&b->stop, 1);
    for (int i = 0; i < 2; i++) {
        os_thread_join(threads[i]);
        ck_assert_int_eq(crew[i].result, 0);
    }
    expect_all(m);
    os_unmap(b, 4096);
    mem_unref(m);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *s = suite_create("mem, shared");
    const TTest *const files[] = {names_have_one_form,
                                  own_index_stays_and_a_leftover_is_replaced,
                                  leftover_that_another_removes_is_waited_for_briefly,
                                  damaged_header_is_no_index,
                                  reader_may_not_insert,
                                  h23_full_device_at_any_call_leaves_no_trace};
    const TTest *const killed[] = {h13_writer_killed_between_two_stores_is_followed_by_another,
                                   h13_every_mark_of_one_insert};
    const TTest *const threads[] = {threads_read_while_one_inserts};
    kit_add(s, "files", files, BASE_COUNT(files));
    kit_add(s, "killed", killed, BASE_COUNT(killed));
    kit_add(s, "threads", threads, BASE_COUNT(threads));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, agent);
}
