/* test_db_durable.c - what is on disk, and when: the order of syncs as the system calls show it, and what is
 * there again when something of it was lost. */
#include "db/db.h"
#include "lib/lib.h"

static char *dir;
static struct board *board;
static struct agent a, b, c;

static void setup(void)
{
    dir = scratch_dir("durable");
    board = proc_board();
}

static void teardown(void)
{
    os_door_hook = NULL;
    board_close(board);
    free(dir);
}

/* ---- everything that a commit names is on disk before the commit ---- */

#define MOST 256

/* What a power loss could take, as the calls so far have left it. */
static struct {
    char dirty[MOST][32]; /* files written and not synced, by name */
    bool table_names, new_current;
    unsigned edits, tables, currents, logs_removed, tables_removed;
} disk;

static bool file_name(int fd, char name[32])
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) {
        return false;
    }
    path[n] = '\0';
    const char *base = strrchr(path, '/');
    snprintf(name, 32, "%.31s", base != NULL ? base + 1 : path);
    return true;
}

static char *find_dirty(const char *name)
{
    for (unsigned i = 0; i < MOST; i++) {
        if (strcmp(disk.dirty[i], name) == 0) {
            return disk.dirty[i];
        }
    }
    return NULL;
}

static bool any_dirty(const char *prefix)
{
    for (unsigned i = 0; i < MOST; i++) {
        if (disk.dirty[i][0] != '\0' && strncmp(disk.dirty[i], prefix, strlen(prefix)) == 0) {
            return true;
        }
    }
    return false;
}

static bool ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static void see_write(const char *name, uint64_t offset)
{
    if (strncmp(name, "MANIFEST-", 9) == 0 && offset != 0) { /* an edit: from here on it may be found */
        ck_assert_msg(!disk.table_names, "an edit, and the names of its tables are not on disk");
        disk.edits++;
    }
    bool boot_scoped = strstr(name, ".mem") != NULL; /* nobody needs it after a power loss */
    if (!boot_scoped && find_dirty(name) == NULL) {
        char *free_place = find_dirty("");
        ck_assert_ptr_nonnull(free_place);
        snprintf(free_place, 32, "%s", name);
    }
}

static void see_rename(const char *from)
{
    ck_assert_msg(find_dirty(from) == NULL, "%s is renamed, and its bytes are not on disk", from);
    if (ends(from, ".sst.tmp")) {
        disk.table_names = true;
        disk.tables++;
    } else if (strncmp(from, "CURRENT.tmp", 11) == 0) {
        ck_assert_msg(!disk.table_names, "CURRENT, and the names of the tables are not on disk");
        ck_assert_msg(!any_dirty("MANIFEST-"), "CURRENT, and the manifest that it names is not on disk");
        disk.new_current = true;
        disk.currents++;
    }
}

/* What an edit has put out of use goes only when the edit is on disk. */
static void see_unlink(const char *name)
{
    bool log = ends(name, ".wal"), table = ends(name, ".sst");
    if (log || table) {
        ck_assert_msg(!any_dirty("MANIFEST-") && !disk.new_current, "%s goes before the edit is on disk",
                      name);
        disk.logs_removed += log;
        disk.tables_removed += table;
    }
}

static int look(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    char of_fd[32];
    (void)length;
    if (op == OS_OP_WRITE && file_name(fd, of_fd)) {
        see_write(of_fd, offset);
    } else if ((op == OS_OP_FSYNC || op == OS_OP_FDATASYNC) && file_name(fd, of_fd)) {
        char *place = find_dirty(of_fd);
        if (place != NULL) {
            place[0] = '\0';
        }
    } else if (op == OS_OP_SYNCDIR) {
        disk.table_names = disk.new_current = false;
    } else if (op == OS_OP_RENAME) {
        see_rename(name);
    } else if (op == OS_OP_UNLINK) {
        see_unlink(name);
    }
    return 0;
}

static void fill(shale_db *db, unsigned from, unsigned count)
{
    char key[16], value[300];
    memset(value, 'v', sizeof value);
    for (unsigned i = from; i < from + count; i++) {
        snprintf(key, sizeof key, "%06u", i);
        assert_ok(shale_put(db, key, 6, value, sizeof value, 0));
    }
}

START_TEST(h37_what_a_commit_names_is_on_disk_before_it)
{
    char path[PATH_MAX];
    os_door_hook = look;
    shale_db *db = open_small(dir);
    for (unsigned round = 0; round < 6; round++) {
        fill(db, round * 500, 1500);
        assert_ok(shale_flush(db));
        if (round % 2 == 1) {
            assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
        }
    }
    fill(db, 0, 100); /* for a recovery */
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    db = open_small(dir);
    ck_assert_uint_eq(count_entries(db, NULL), 4000);
    assert_ok(shale_close(db));
    ck_assert_uint_gt(disk.edits, 6); /* all of it was seen */
    ck_assert_uint_gt(disk.tables, 8);
    ck_assert_uint_ge(disk.currents, 2);
    ck_assert_uint_gt(disk.logs_removed, 4);
    ck_assert_uint_gt(disk.tables_removed, 4);
}
END_TEST

/* ---- a syncer that died with the kernel's report ---- */

static uint64_t log_written; /* bytes, through descriptors of log segments */

static int count_log_writes(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    char of_fd[32];
    (void)name, (void)offset;
    if (op == OS_OP_WRITE && file_name(fd, of_fd) && ends(of_fd, ".wal")) {
        log_written += *length;
    }
    return 0;
}

/* The kernel tells of a failed write-back once. Who opens a segment while an attempt is not known to have
 * succeeded makes its pages dirty again before it believes its own sync. */
START_TEST(h24_what_a_dead_syncer_attempted_is_written_again)
{
    agent_start(&a, 0);
    agent_must(&a, "open %s", dir);
    agent_start(&b, 1);
    agent_must(&b, "open %s", dir);
    agent_must(&a, "fill x 0 50 300");
    agent_must(&a, "park-at SYNC 1");
    agent_tell(&a, "sync");
    ck_assert(agent_parked(&a, 20000));
    agent_kill(&a);
    os_door_hook = count_log_writes;
    shale_db *db = open_small(dir);
    assert_ok(shale_sync(db));
    ck_assert_uint_ge(log_written, 50 * 300);
    ck_assert_uint_eq(STAT(db, synced_seq), 50);
    uint64_t before = log_written;
    put(db, "k", "v");
    assert_ok(shale_sync(db));
    ck_assert_uint_lt(log_written - before, 300); /* once is enough */
    assert_ok(shale_close(db));
    agent_quit(&b);
}
END_TEST

/* ---- a hole in the log ---- */

static size_t count_prefix(shale_db *db, size_t *all)
{
    char key[16];
    shale_value v = {0};
    *all = count_entries(db, NULL);
    for (unsigned i = 0;; i++) {
        snprintf(key, sizeof key, "x%08u", i);
        int rc = shale_get(db, NULL, key, 9, &v);
        if (rc == SHALE_NOTFOUND) {
            return i;
        }
        assert_ok(rc);
        shale_value_release(&v);
    }
}

/* A lost page of one segment ends the log there: what the next segments hold does not follow on what is left.
 */
START_TEST(h37_behind_a_hole_in_the_log_nothing_comes_back)
{
    agent_start(&a, 0);
    agent_must(&a, "open %s max_sealed=8", dir);
    agent_start(&b, 1);
    agent_must(&b, "open %s max_sealed=8", dir);
    agent_must(&a, "fill x 0 100 300");
    agent_must(&b, "park-at FLUSH 1");
    agent_tell(&b, "flush"); /* holds FLUSH: all that follows stays in the log */
    ck_assert(agent_parked(&b, 20000));
    agent_must(&a, "fill x 100 1400 700");
    agent_must(&a, "sync");
    agent_kill(&a);
    agent_kill(&b);
    char **logs = scratch_names(dir, ".wal");
    ck_assert(logs[0] != NULL && logs[1] != NULL && logs[2] != NULL);
    ck_assert_int_eq(scratch_noise(dir, logs[1], 102400, 4096, 37), 0);
    scratch_names_free(logs);
    size_t all;
    shale_db *db = open_small(dir);
    size_t prefix = count_prefix(db, &all);
    ck_assert_uint_eq(all, prefix);
    ck_assert_uint_gt(prefix, 100);
    ck_assert_uint_lt(prefix, 400);
    put(db, "y", "the log goes on");
    assert_ok(shale_close(db));
    agent_start(&c, 2);
    agent_must(&c, "open %s", dir);
    ck_assert_int_eq(atoi(agent_must(&c, "scan")), (int)prefix + 1);
    agent_must(&c, "verify");
    agent_quit(&c);
}
END_TEST

/* ---- what is being made ---- */

START_TEST(h20_sweep_spares_a_table_that_its_writer_has_locked)
{
    static const char name[] = "000900.sst.tmp";
    struct stat st;
    int fd = -1;
    shale_db *db = open_small(dir);
    assert_ok(os_open(db->dirfd, name, O_RDWR | O_CREAT | O_EXCL, 0600, &fd));
    assert_ok(os_lock_try(fd, 0, 1, true));
    assert_ok(db_sweep(db));
    assert_ok(os_stat_at(db->dirfd, name, &st));
    os_close(&fd); /* its writer is dead */
    assert_ok(db_sweep(db));
    ck_assert_int_eq(os_stat_at(db->dirfd, name, &st), SHALE_NOTFOUND);
    assert_ok(shale_close(db));
}
END_TEST

/* ---- what is kept ---- */

/* Puts through three rotations, each flushed in the call that sealed. */
static uint64_t kept_segments(unsigned flags)
{
    static const char value[8000];
    shale_options o = small_options();
    o.memtable_bytes = 262144; /* no segment is smaller */
    shale_db *db = open_with(dir, &o);
    for (unsigned i = 0; i < 120; i++) {
        assert_ok(shale_put(db, &i, sizeof i, value, sizeof value, flags));
    }
    ck_assert_uint_ge(STAT(db, flushes), 2);
    uint64_t kept = atomic_load(&db->state->spare) + atomic_load(&db->row->counters.recycled);
    assert_ok(shale_close(db));
    return kept;
}

/* The pages of one that was not are dirty, and the fsync of its new header would write them all. */
START_TEST(only_a_segment_that_was_synced_is_recycled)
{
    ck_assert_uint_eq(kept_segments(SHALE_NOSYNC), 0);
    assert_ok(shale_destroy(dir));
    ck_assert_uint_gt(kept_segments(SHALE_SYNC), 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_durable");
    TCase *t = tcase_create("durable");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h37_what_a_commit_names_is_on_disk_before_it);
    tcase_add_test(t, h24_what_a_dead_syncer_attempted_is_written_again);
    tcase_add_test(t, h37_behind_a_hole_in_the_log_nothing_comes_back);
    tcase_add_test(t, h20_sweep_spares_a_table_that_its_writer_has_locked);
    tcase_add_test(t, only_a_segment_that_was_synced_is_recycled);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
