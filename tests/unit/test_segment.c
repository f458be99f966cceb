/* test_segment.c - log segments as files: their names, their headers, how they are made and recycled, and
 * what kills and system calls that go wrong leave behind. */
#include "logkit.h"

#include <stddef.h>

static void read_header(const char *name, struct wal_header *h)
{
    size_t got;
    int fd = -1;
    assert_ok(os_open(kit_dirfd, name, O_RDONLY, 0, &fd));
    assert_ok(os_pread(fd, h, sizeof *h, 0, &got));
    ck_assert_uint_eq(got, sizeof *h);
    os_close(&fd);
}

/* ---- names ---- */

START_TEST(names_have_one_form)
{
    char name[WAL_NAME_SIZE];
    uint32_t n = 77;
    wal_name(12, name);
    ck_assert_str_eq(name, "000012.wal");
    wal_name(UINT32_MAX, name);
    ck_assert_str_eq(name, "4294967295.wal");
    ck_assert(wal_parse_name("000012.wal", &n) && n == 12);
    ck_assert(wal_parse_name("4294967295.wal", &n) && n == UINT32_MAX);
    ck_assert(wal_parse_tmp_name("000012.wal.tmp-0123456789abcdef", "wal", &n) && n == 12);
    ck_assert(wal_parse_kind("000012.mem", "mem", &n) && n == 12);
    n = 77;
    static const char *const others[] = {
        "",          "12.wal",     "0000012.wal", "000012.mem",     "000012.walx",
        "000012wal", " 00012.wal", "-00012.wal",  "00001a.wal",     "000012.wal.tmp",
        "000012",    "000012.",    ".wal",        "4294967296.wal", "99999999999999999999999.wal"};
    for (size_t i = 0; i < BASE_COUNT(others); i++) {
        ck_assert_msg(!wal_parse_name(others[i], &n), "%s", others[i]);
    }
    static const char *const not_tmp[] = {"000012.wal",
                                          "000012.wal.tmp-",
                                          "000012.wal.tmp-0123456789abcde",
                                          "000012.wal.tmp-0123456789abcdeg",
                                          "000012.wal.tmp-0123456789abcdef0",
                                          "000012.mem.tmp-0123456789abcdef",
                                          "000012.wal.tmp-0123456789ABCDEF"};
    for (size_t i = 0; i < BASE_COUNT(not_tmp); i++) {
        ck_assert_msg(!wal_parse_tmp_name(not_tmp[i], "wal", &n), "%s", not_tmp[i]);
    }
    ck_assert_uint_eq(n, 77);
}
END_TEST

/* ---- segments ---- */

START_TEST(new_segment_is_whole)
{
    struct wal_view rec;
    struct stat st;
    struct wal_segment *seg = make_and_open(7, 300 * 1024 + 1);
    ck_assert_uint_eq(seg->number, 7);
    ck_assert_uint_eq(seg->size, 304 * 1024);
    assert_ok(os_stat(seg->fd, &st));
    ck_assert_uint_eq((uint64_t)st.st_size, seg->size);
    ck_assert_uint_ge((uint64_t)st.st_blocks * 512, seg->size);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    ck_assert_int_eq(wal_read(seg, WAL_FIRST, &rec), SHALE_NOTFOUND);
    ck_assert_uint_eq(names_there().files, 1);
    ck_assert_int_eq(wal_make(kit_dirfd, kit_uuid, 7, WAL_MIN_SIZE, 0600, 0), SHALE_EXISTS);
    ck_assert_int_eq(wal_make(kit_dirfd, kit_uuid, 8, WAL_MAX_SIZE + 1, 0600, 0), SHALE_TOOBIG);
    wal_unref(wal_ref(seg));
    wal_unref(seg);
    wal_unref(NULL);
    ck_assert_uint_eq(names_there().files, 1);
}
END_TEST

START_TEST(salts_differ)
{
    struct wal_segment *a = make_and_open(1, WAL_MIN_SIZE), *b = make_and_open(2, WAL_MIN_SIZE);
    ck_assert_uint_ne(a->salt, b->salt);
    wal_unref(a);
    wal_unref(b);
}
END_TEST

/* Changes one field of a valid header, with a checksum that fits. */
static int open_changed(const struct wal_header *good, size_t at, uint64_t value, size_t size)
{
    struct wal_segment *seg = NULL;
    struct wal_header h = *good;
    memcpy((unsigned char *)&h + at, &value, size);
    h.checksum = checksum(&h, offsetof(struct wal_header, checksum), WAL_MAGIC);
    write_at("000001.wal", &h, sizeof h, 0);
    int rc = wal_open(kit_dirfd, kit_uuid, 1, true, &seg);
    ck_assert_ptr_null(seg);
    return rc;
}

START_TEST(header_is_judged)
{
    struct wal_segment *seg = NULL;
    struct wal_header good;
    ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, true, &seg), SHALE_NOTFOUND);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
    read_header("000001.wal", &good);
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, format), 2, 4), SHALE_MISMATCH);
    assert_told("format 2");
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, incompat), 4, 8), SHALE_MISMATCH);
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, uuid), 4, 8), SHALE_MISMATCH);
    assert_told("another database");
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, number), 2, 4), SHALE_NOTFOUND);
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, magic), 2, 8), SHALE_CORRUPT);
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, size), 2 * WAL_MIN_SIZE, 8),
                     SHALE_CORRUPT);
    assert_told("000001.wal");
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, size), 4097, 8), SHALE_CORRUPT);
    ck_assert_int_eq(open_changed(&good, offsetof(struct wal_header, size), 0, 8), SHALE_CORRUPT);
    write_at("000001.wal", &good, sizeof good, 0);
    assert_ok(wal_open(kit_dirfd, NULL, 1, false, &seg));
    wal_unref(seg);
}
END_TEST

START_TEST(h38_flipped_bit_in_the_header_is_found)
{
    struct wal_header good;
    assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
    read_header("000001.wal", &good);
    for (unsigned bit = 0; bit < 8 * sizeof good; bit++) {
        struct wal_segment *seg = NULL;
        struct wal_header h = good;
        ((unsigned char *)&h)[bit / 8] ^= (unsigned char)(1u << bit % 8);
        write_at("000001.wal", &h, sizeof h, 0);
        ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, true, &seg), SHALE_CORRUPT);
    }
}
END_TEST

START_TEST(short_file_is_damage_not_a_signal)
{
    struct wal_segment *seg = NULL;
    static const uint64_t sizes[] = {0, 1, 63, 64, 4096, WAL_MIN_SIZE - 1};
    assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
    for (size_t i = BASE_COUNT(sizes); i-- > 0;) {
        int fd = -1;
        assert_ok(os_open(kit_dirfd, "000001.wal", O_RDWR, 0, &fd));
        assert_ok(os_truncate(fd, sizes[i]));
        os_close(&fd);
        ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, true, &seg), SHALE_CORRUPT);
    }
}
END_TEST

/* ---- making and recycling ---- */

START_TEST(recycling_gives_a_fresh_salt_to_the_same_file)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    uint64_t salt = seg->salt;
    ino_t ino = seg->ino;
    wal_unref(seg);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE / 2 + 4096, 0600, 1));
    assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &seg));
    ck_assert_uint_eq(seg->ino, ino);
    ck_assert_uint_ne(seg->salt, salt);
    ck_assert_uint_eq(seg->size, WAL_MIN_SIZE);
    ck_assert_uint_eq(names_there().files, 1);
    wal_unref(seg);
}
END_TEST

START_TEST(unfit_old_segment_is_left_alone)
{
    static const unsigned char stranger[16] = "another id";
    struct wal_segment *seg = make_and_open(1, 4 * WAL_MIN_SIZE);
    ino_t ino = seg->ino;
    wal_unref(seg);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));      /* too large */
    assert_ok(wal_make(kit_dirfd, kit_uuid, 3, 8 * WAL_MIN_SIZE, 0600, 1));  /* too small */
    assert_ok(wal_make(kit_dirfd, stranger, 4, 4 * WAL_MIN_SIZE, 0600, 1));  /* of another database */
    assert_ok(wal_make(kit_dirfd, kit_uuid, 5, 4 * WAL_MIN_SIZE, 0600, 99)); /* not there */
    assert_ok(os_rename(kit_dirfd, "000005.wal", "000006.wal"));
    assert_ok(wal_make(kit_dirfd, kit_uuid, 7, 4 * WAL_MIN_SIZE, 0600,
                       6)); /* carries another number than its name */
    assert_ok(wal_open(kit_dirfd, kit_uuid, 1, true, &seg));
    ck_assert_uint_eq(seg->ino, ino);
    wal_unref(seg);
    ck_assert_uint_eq(names_there().files, 6);
}
END_TEST

START_TEST(h21_recycler_is_refused_while_a_reader_maps)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    ino_t old = seg->ino;
    wal_unref(seg);
    struct agent a =
        agent_start("map", "0"); /* read-only: its descriptor is closed, the mapping holds the lock */
    agent_expect(&a, 'y');
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &seg));
    ck_assert_uint_ne(seg->ino, old);
    wal_unref(seg);
    ck_assert_int_eq(agent_end(&a), 0);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 3, WAL_MIN_SIZE, 0600, 1));
    assert_ok(wal_open(kit_dirfd, kit_uuid, 3, true, &seg));
    ck_assert_uint_eq(seg->ino, old);
    wal_unref(seg);
}
END_TEST

START_TEST(h21_own_mapping_refuses_the_recycler_too)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE), *next = NULL;
    struct wal_view rec;
    append_one(seg, WAL_FIRST, 1, text("k"), text("v"), false);
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &next));
    ck_assert_uint_ne(next->ino, seg->ino);
    assert_ok(wal_read(seg, WAL_FIRST, &rec));
    wal_unref(next);
    wal_unref(seg);
}
END_TEST

START_TEST(h21_opener_that_comes_late_is_told)
{
    struct wal_segment *seg = make_and_open(1, WAL_MIN_SIZE);
    int fd = -1;
    wal_unref(seg);
    /* A recycler at work: it holds the byte. */
    assert_ok(os_open(kit_dirfd, "000001.wal", O_RDWR, 0, &fd));
    assert_ok(os_lock_try(fd, 0, 1, true));
    ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, false, &seg), SHALE_NOTFOUND);
    os_close(&fd);
    /* One that is done: the file that was opened under the old name carries another number. */
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    assert_ok(os_link(kit_dirfd, "000002.wal", kit_dirfd, "000001.wal"));
    ck_assert_int_eq(wal_open(kit_dirfd, kit_uuid, 1, false, &seg), SHALE_NOTFOUND);
}
END_TEST

static unsigned opened_while_made;

static void open_as_soon_as_it_is_named(enum os_mark mark)
{
    struct wal_segment *seg = NULL;
    struct stat st;
    (void)mark;
    if (os_stat_at(kit_dirfd, "000002.wal", &st) == SHALE_OK) {
        assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &seg));
        wal_unref(seg);
        opened_while_made++;
    }
}

START_TEST(segment_can_be_opened_as_soon_as_it_has_its_name)
{
    assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
    os_mark_hook = open_as_soon_as_it_is_named;
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    ck_assert_uint_ge(opened_while_made, 1);
    assert_ok(os_unlink(kit_dirfd, "000002.wal"));
    opened_while_made = 0;
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 0));
    os_mark_hook = NULL;
    ck_assert_uint_ge(opened_while_made, 1);
}
END_TEST

static char order[64];

static int note_order(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    const char *letter = op == OS_OP_ALLOCATE  ? "a"
                         : op == OS_OP_WRITE   ? "w"
                         : op == OS_OP_FSYNC   ? "f"
                         : op == OS_OP_RENAME  ? "r"
                         : op == OS_OP_SYNCDIR ? "d"
                                               : "";
    strncat(order, letter, sizeof order - strlen(order) - 1);
    return 0;
}

START_TEST(header_is_durable_before_the_name_and_the_name_before_the_return)
{
    os_door_hook = note_order;
    assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
    ck_assert_str_eq(order, "awfrd");
    order[0] = '\0';
    assert_ok(wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1));
    ck_assert_str_eq(order, "rwfrd");
    os_door_hook = NULL;
}
END_TEST

/* Kills a maker of segment 2 at every mark; whatever it left, the next maker succeeds and orphans can be
 * swept. */
static void kill_in_making(const char *how)
{
    struct wal_segment *seg = NULL;
    unsigned kills = 0, orphans = 0, done = 0;
    char n[16];
    for (unsigned mark = 0; done == 0; mark++) {
        assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
        (void)snprintf(n, sizeof n, "%u", mark);
        struct agent a = agent_start(how, n);
        int status = agent_end(&a);
        ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        kills += WIFSIGNALED(status);
        done = WIFEXITED(status);
        orphans += names_there().tmps;
        int rc = wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, 1);
        ck_assert_msg(rc == SHALE_OK || rc == SHALE_EXISTS, "%s", shale_errmsg());
        assert_ok(wal_open(kit_dirfd, kit_uuid, 2, true, &seg));
        (void)append_one(seg, WAL_FIRST, 1, text("k"), text("v"), true);
        wal_unref(seg);
        sweep_all();
        assert_ok(os_unlink(kit_dirfd, "000001.wal"));
        assert_ok(os_unlink(kit_dirfd, "000002.wal"));
        ck_assert_uint_eq(names_there().files, 0);
    }
    ck_assert_uint_ge(kills, 3);
    ck_assert_uint_ge(orphans, 1);
}

START_TEST(h15_maker_killed_anywhere_is_followed_by_another)
{
    kill_in_making("make");
}
END_TEST

START_TEST(h15_recycler_killed_anywhere_is_followed_by_another)
{
    kill_in_making("recycle");
}
END_TEST

START_TEST(h20_sweeper_spares_what_is_being_made)
{
    char name[WAL_TMP_NAME_SIZE];
    int fd = -1;
    assert_ok(wal_create_tmp(kit_dirfd, 5, "wal", 0600, name, &fd));
    ck_assert_int_eq(wal_sweep_tmp(kit_dirfd, name), SHALE_BUSY);
    ck_assert_uint_eq(names_there().tmps, 1);
    os_close(&fd);
    assert_ok(wal_sweep_tmp(kit_dirfd, name));
    ck_assert_uint_eq(names_there().files, 0);
    assert_ok(wal_sweep_tmp(kit_dirfd, name));
}
END_TEST

static char swept_name[WAL_TMP_NAME_SIZE];
static unsigned opened_meanwhile;

/* The sweeper is about to unlink: it holds whatever it locks. */
static int open_while_swept(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_UNLINK) {
        int other = -1;
        os_door_hook = NULL;
        assert_ok(os_open(kit_dirfd, swept_name, O_RDWR, 0, &other));
        assert_ok(os_lock_try(other, 0, 1, false));
        os_close(&other);
        opened_meanwhile++;
    }
    return 0;
}

/* It opened the file when that was an orphan, or so it seemed, and locks it when it is a segment in use: no
 * reader may be turned away by that. */
START_TEST(h20_late_sweeper_hinders_no_opener)
{
    int fd = -1;
    opened_meanwhile = 0;
    assert_ok(wal_create_tmp(kit_dirfd, 5, "wal", 0600, swept_name, &fd));
    os_close(&fd);
    os_door_hook = open_while_swept;
    assert_ok(wal_sweep_tmp(kit_dirfd, swept_name));
    os_door_hook = NULL;
    ck_assert_uint_eq(opened_meanwhile, 1);
}
END_TEST

/* ---- system calls that fail ---- */

/* Lets the n-th call go wrong for n = 0, 1, ... until the function gets through. */
static void break_every_call(int error, int expected, uint32_t recycle)
{
    for (unsigned n = 0;; n++) {
        struct wal_segment *seg = NULL;
        uint64_t files = os_open_files(), mapped = os_mapped_bytes();
        assert_ok(wal_make(kit_dirfd, kit_uuid, 1, WAL_MIN_SIZE, 0600, 0));
        kit_break_call(n, error);
        int rc = wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, recycle);
        if (rc == SHALE_OK) {
            rc = wal_open(kit_dirfd, kit_uuid, 2, true, &seg);
        }
        bool done = !kit_mend();
        ck_assert_uint_eq(names_there().tmps, 0);
        /* an old segment that cannot be had is no error: a new one is made */
        ck_assert_msg(rc == SHALE_OK || rc == expected, "call %u: %d: %s", n, rc, shale_errmsg());
        ck_assert_msg(rc != SHALE_OK || seg != NULL, "call %u", n);
        ck_assert_msg(rc == SHALE_OK || shale_errmsg()[0] != '\0', "call %u: no text", n);
        wal_unref(seg);
        ck_assert_uint_eq(os_open_files(), files);
        ck_assert_uint_eq(os_mapped_bytes(), mapped);
        assert_ok(os_unlink(kit_dirfd, "000001.wal"));
        assert_ok(os_unlink(kit_dirfd, "000002.wal"));
        if (done) {
            ck_assert_uint_ge(n, 8);
            break;
        }
    }
}

START_TEST(h23_full_device_at_any_call_leaves_no_trace)
{
    break_every_call(ENOSPC, SHALE_NOSPC, 0);
    break_every_call(ENOSPC, SHALE_NOSPC, 1);
}
END_TEST

START_TEST(error_at_any_call_leaves_no_trace)
{
    break_every_call(EIO, SHALE_IO, 0);
    break_every_call(EIO, SHALE_IO, 1);
}
END_TEST

static int agent(const char *what, const char *argument)
{
    struct wal_segment *seg = NULL;
    char c = 'y';
    if (strcmp(what, "map") == 0) { /* maps segment 1 read-only, says so, waits to be told to end */
        if (wal_open(kit_dirfd, kit_uuid, 1, false, &seg) != SHALE_OK || write(1, &c, 1) != 1) {
            return 2;
        }
        int rc = read(0, &c, 1) == 0 ? 0 : 3;
        wal_unref(seg);
        return rc;
    }
    kit_die_at((unsigned)strtoul(argument, NULL, 10));
    uint32_t recycle = strcmp(what, "recycle") == 0 ? 1 : 0;
    return wal_make(kit_dirfd, kit_uuid, 2, WAL_MIN_SIZE, 0600, recycle) == SHALE_OK ? 0 : 4;
}

static Suite *make_suite(void)
{
    Suite *s = suite_create("segment");
    const TTest *const files[] = {names_have_one_form,
                                  new_segment_is_whole,
                                  salts_differ,
                                  header_is_judged,
                                  h38_flipped_bit_in_the_header_is_found,
                                  short_file_is_damage_not_a_signal};
    const TTest *const making[] = {recycling_gives_a_fresh_salt_to_the_same_file,
                                   unfit_old_segment_is_left_alone,
                                   h21_recycler_is_refused_while_a_reader_maps,
                                   h21_own_mapping_refuses_the_recycler_too,
                                   h21_opener_that_comes_late_is_told,
                                   segment_can_be_opened_as_soon_as_it_has_its_name,
                                   header_is_durable_before_the_name_and_the_name_before_the_return,
                                   h15_maker_killed_anywhere_is_followed_by_another,
                                   h15_recycler_killed_anywhere_is_followed_by_another,
                                   h20_sweeper_spares_what_is_being_made,
                                   h20_late_sweeper_hinders_no_opener};
    const TTest *const broken[] = {h23_full_device_at_any_call_leaves_no_trace,
                                   error_at_any_call_leaves_no_trace};
    kit_add(s, "files", files, BASE_COUNT(files));
    kit_add(s, "making", making, BASE_COUNT(making));
    kit_add(s, "broken", broken, BASE_COUNT(broken));
    return s;
}

int main(int argc, char **argv)
{
    return kit_main(argc, argv, make_suite, agent);
}
