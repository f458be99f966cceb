/* test_db_open.c - the public API: opening, closing, destroying, options, several handles, read-only handles.
 */
#include "lib/lib.h"

#include <dirent.h>
#include <sys/stat.h>

static char *dir;
static unsigned recoveries; /* marks that were passed */

static void count_recoveries(enum os_mark mark)
{
    recoveries += mark == OS_MARK_RECOVER;
}

static void setup(void)
{
    dir = scratch_name("open");
}

static void teardown(void)
{
    os_mark_hook = NULL;
    os_door_hook = NULL;
    free(dir);
}

static void assert_nothing_open(uint64_t files, uint64_t mapped)
{
    ck_assert_uint_eq(os_open_files(), files);
    ck_assert_uint_eq(os_mapped_bytes(), mapped);
}

START_TEST(create_close_and_open_again)
{
    uint64_t files = os_open_files(), mapped = os_mapped_bytes();
    shale_db *db = open_small(dir);
    struct stat st;
    ck_assert_int_eq(stat(dir, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    put(db, "k", "v");
    assert_ok(shale_close(db));
    db = open_small(dir);
    expect(db, NULL, "k", "v");
    assert_ok(shale_close(db));
    assert_nothing_open(files, mapped);
}
END_TEST

START_TEST(reopen_is_warm_and_survives_a_lost_state)
{
    os_mark_hook = count_recoveries;
    for (int cold = 0; cold < 2; cold++) {
        for (int round = 0; round < 4; round++) {
            recoveries = 0;
            shale_db *db = open_small(dir);
            bool was_lost = cold != 0 ? round != 0 : round == 0;
            ck_assert_msg((recoveries != 0) == was_lost, "round %d, %d: %u", cold, round, recoveries);
            char key[32];
            for (int i = 0; i < round; i++) {
                snprintf(key, sizeof key, "%d-%d", cold, i);
                expect(db, NULL, key, "v");
            }
            snprintf(key, sizeof key, "%d-%d", cold, round);
            put(db, key, "v");
            assert_ok(shale_close(db));
            if (cold != 0) {
                char path[PATH_MAX];
                snprintf(path, sizeof path, "%s/STATE", dir);
                ck_assert_int_eq(unlink(path), 0);
            }
        }
    }
}
END_TEST

static struct stat parent;
static unsigned parent_syncs;

static int count_parent_syncs(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    struct stat st;
    (void)name, (void)offset, (void)length;
    parent_syncs += op == OS_OP_SYNCDIR && fstat(fd, &st) == 0 && st.st_ino == parent.st_ino;
    return 0;
}

/* What was committed durably into a new database must be found after a power loss: so must the database. */
START_TEST(new_directory_is_durable_in_its_parent)
{
    ck_assert_int_eq(stat(scratch_root(), &parent), 0);
    parent_syncs = 0;
    os_door_hook = count_parent_syncs;
    shale_db *db = open_small(dir);
    ck_assert_uint_ge(parent_syncs, 1);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(defaults_and_null_options_work)
{
    shale_db *db = NULL;
    assert_ok(shale_open(dir, NULL, &db));
    put(db, "k", "v");
    expect(db, NULL, "k", "v");
    assert_ok(shale_close(db));
    assert_ok(shale_close(NULL));
}
END_TEST

START_TEST(missing_database_is_nodb_when_not_to_be_created)
{
    shale_options o = small_options();
    shale_db *db = (shale_db *)&o;
    struct stat st;
    o.create = false;
    assert_status(shale_open(dir, &o, &db), SHALE_NODB);
    ck_assert_ptr_null(db);
    assert_told(dir);
    ck_assert_int_ne(stat(dir, &st), 0);
    ck_assert_int_eq(mkdir(dir, 0755), 0);
    assert_status(shale_open(dir, &o, &db), SHALE_NODB);
    char **names = scratch_names(dir, "");
    ck_assert_ptr_null(names[0]); /* nothing was made */
    scratch_names_free(names);
    o.create = true;
    o.readonly = true;
    assert_status(shale_open(dir, &o, &db), SHALE_NODB);
    names = scratch_names(dir, "");
    ck_assert_ptr_null(names[0]);
    scratch_names_free(names);
}
END_TEST

START_TEST(error_if_exists_refuses_closed_and_open_databases)
{
    shale_options o = small_options();
    shale_db *db = NULL, *second = NULL;
    o.error_if_exists = true;
    db = open_with(dir, &o);
    assert_status(shale_open(dir, &o, &second), SHALE_EXISTS);
    assert_ok(shale_close(db));
    assert_status(shale_open(dir, &o, &second), SHALE_EXISTS);
    ck_assert_ptr_null(second);
}
END_TEST

START_TEST(arguments_out_of_range_are_invalid)
{
    shale_options o = small_options();
    shale_db *db = NULL;
    assert_status(shale_open(NULL, &o, &db), SHALE_INVALID);
    assert_status(shale_open("", &o, &db), SHALE_INVALID);
    assert_status(shale_open(dir, &o, NULL), SHALE_INVALID);
    o.block_bytes = 3;
    assert_status(shale_open(dir, &o, &db), SHALE_INVALID);
    assert_told("block_bytes");
    o = small_options();
    o.durable = 3;
    assert_status(shale_open(dir, &o, &db), SHALE_INVALID);
    assert_told("durable");
    o = small_options();
    o.l0_stop = o.l0_compact;
    assert_status(shale_open(dir, &o, &db), SHALE_INVALID);
    struct stat st;
    ck_assert_int_ne(stat(dir, &st), 0); /* nothing was made */
}
END_TEST

START_TEST(older_callers_options_struct_is_understood)
{
    shale_options o;
    shale_db *db = NULL;
    size_t old = offsetof(shale_options, wait);
    memset(&o, 0xaa, sizeof o);
    shale_options_init_sized(&o, old);
    ck_assert_uint_eq(o.size, old);
    ck_assert_int_eq(((unsigned char *)&o)[old], 0xaa);
    assert_ok(shale_open(dir, &o, &db));
    put(db, "k", "v");
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(destroy_leaves_only_the_lock_files)
{
    shale_db *db = open_small(dir);
    put(db, "k", "v");
    assert_ok(shale_flush(db));
    assert_status(shale_destroy(dir), SHALE_BUSY);
    expect(db, NULL, "k", "v");
    assert_ok(shale_close(db));
    assert_ok(shale_destroy(dir));
    char **names = scratch_names(dir, "");
    for (char **p = names; *p != NULL; p++) {
        ck_assert_msg(strcmp(*p, "LOCK") == 0 || strcmp(*p, "LIVE") == 0 || strcmp(*p, "queue") == 0,
                      "left: %s", *p);
    }
    scratch_names_free(names);
    shale_options o = small_options();
    o.create = false;
    assert_status(shale_open(dir, &o, &db), SHALE_NODB);
    db = open_small(dir);
    expect(db, NULL, "k", NULL);
    assert_ok(shale_close(db));
    char *none = scratch_name("none");
    assert_status(shale_destroy(none), SHALE_NODB);
    free(none);
}
END_TEST

START_TEST(h4_handles_of_one_process_share_the_database)
{
    char *link = scratch_name("symlink");
    shale_db *a = open_small(dir), *b = open_small(dir);
    ck_assert_int_eq(symlink(dir, link), 0);
    shale_db *c = open_small(link);
    put(a, "k", "1");
    expect(b, NULL, "k", "1");
    put(c, "k", "2");
    expect(a, NULL, "k", "2");
    for (int i = 0; i < 600; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        put(i % 3 == 0 ? a : i % 3 == 1 ? b : c, key, key);
        if (i % 100 == 99) {
            assert_ok(shale_flush(i % 200 == 199 ? a : b));
        }
    }
    ck_assert_uint_eq(STAT(a, handles), 3);
    assert_ok(shale_close(a));
    ck_assert_uint_eq(count_entries(b, NULL), 601);
    ck_assert_uint_eq(count_entries(c, NULL), 601);
    assert_ok(shale_close(c));
    assert_ok(shale_close(b));
    free(link);
}
END_TEST

START_TEST(calls_after_close_are_invalid)
{
    shale_db *db = open_small(dir);
    shale_snapshot *snap = NULL;
    shale_iter *it = NULL, *second = NULL;
    shale_value v = {0}, mine = {0};
    put(db, "a", "1");
    put(db, "b", "2");
    assert_ok(shale_snapshot_create(db, &snap));
    assert_ok(shale_iter_create(db, NULL, NULL, &it));
    assert_ok(shale_iter_first(it));
    assert_ok(shale_get(db, NULL, "a", 1, &mine));
    assert_ok(shale_close(db));
    assert_status(shale_iter_next(it), SHALE_INVALID);
    assert_status(shale_iter_first(it), SHALE_INVALID);
    assert_status(shale_iter_seek(it, "a", 1), SHALE_INVALID);
    ck_assert(!shale_iter_valid(it));
    shale_iter_destroy(it);
    db = open_small(dir);
    assert_status(shale_get(db, snap, "a", 1, &v), SHALE_INVALID); /* another handle's snapshot */
    assert_status(shale_iter_create(db, snap, NULL, &second), SHALE_INVALID);
    ck_assert_ptr_null(second);
    shale_snapshot_release(snap);
    ck_assert_mem_eq(mine.data, "1", 1);
    shale_value_release(&mine);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(transaction_open_at_close_is_aborted)
{
    shale_db *db = open_small(dir), *other = open_small(dir);
    shale_txn *t = NULL;
    shale_value v = {0};
    assert_ok(shale_txn_begin(db, 0, -1, &t));
    assert_ok(shale_txn_put(t, "k", 1, "v", 1));
    assert_ok(shale_close(db));
    assert_ok(shale_put(other, "after", 5, "1", 1, SHALE_NOWAIT)); /* the write lock is free */
    expect(other, NULL, "k", NULL);
    assert_status(shale_txn_get(t, "k", 1, &v), SHALE_INVALID);
    assert_status(shale_txn_put(t, "k", 1, "w", 1), SHALE_INVALID);
    assert_status(shale_txn_commit(t), SHALE_INVALID); /* frees it */
    expect(other, NULL, "k", NULL);
    assert_ok(shale_close(other));
}
END_TEST

START_TEST(h27_readonly_handle_reads_and_writes_nothing)
{
    shale_options o = small_options();
    shale_db *w = open_small(dir), *r = NULL;
    put(w, "k", "1");
    o.readonly = true;
    r = open_with(dir, &o);
    expect(r, NULL, "k", "1");
    put(w, "k", "2");
    expect(r, NULL, "k", "2"); /* follows a living writer */
    assert_status(shale_put(r, "k", 1, "x", 1, 0), SHALE_READONLY);
    assert_status(shale_delete(r, "k", 1, 0), SHALE_READONLY);
    assert_status(shale_flush(r), SHALE_READONLY);
    shale_txn *t = NULL;
    assert_status(shale_txn_begin(r, 0, -1, &t), SHALE_READONLY);
    assert_ok(shale_flush(w));
    put(w, "l", "3");
    expect(r, NULL, "l", "3");
    ck_assert_uint_eq(count_entries(r, NULL), 2);
    assert_ok(shale_close(w));
    expect(r, NULL, "l", "3"); /* the writer went */
    w = open_small(dir);
    put(w, "m", "4");
    expect(r, NULL, "m", "4"); /* and came again */
    assert_ok(shale_close(w));
    assert_ok(shale_close(r));
}
END_TEST

/* A read-only handle has no maintenance threads, whatever its options ask for, and may store nothing in
 * STATE: what it gives up it frees itself. */
START_TEST(h27_readonly_handle_with_threads_follows_rotation_and_flush)
{
    shale_options o = small_options();
    uint64_t files = os_open_files(), mapped = os_mapped_bytes();
    shale_db *w = open_small(dir), *r = NULL;
    put(w, "k", "0");
    o.readonly = true;
    o.threads = 2;
    r = open_with(dir, &o);
    for (int round = 1; round <= 40; round++) {
        char value[16];
        snprintf(value, sizeof value, "%d", round);
        put(w, "k", value);
        assert_ok(shale_flush(w)); /* the memtable that the reader maps is retired */
        expect(r, NULL, "k", value);
        ck_assert_uint_le(os_mapped_bytes() - mapped, 32 << 20);
    }
    assert_ok(shale_close(w));
    expect(r, NULL, "k", "40");
    assert_ok(shale_close(r));
    assert_nothing_open(files, mapped);
}
END_TEST

static unsigned count_threads(void)
{
    unsigned n = 0;
    DIR *tasks = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(tasks);
    for (const struct dirent *e = readdir(tasks); e != NULL; e = readdir(tasks)) {
        n += e->d_name[0] != '.';
    }
    ck_assert_int_eq(closedir(tasks), 0);
    return n;
}

static shale_db *open_threads(unsigned threads, int durable)
{
    shale_options o = small_options();
    o.threads = threads;
    o.durable = durable;
    return open_with(dir, &o);
}

/* Who comes for one operation does not pay for threads. */
START_TEST(threads_start_with_the_second_call)
{
    unsigned before = count_threads();
    shale_db *db = open_threads(2, SHALE_DURABLE_COMMIT);
    put(db, "k", "1");
    ck_assert_uint_eq(count_threads(), before);
    expect(db, NULL, "k", "1");
    ck_assert_uint_eq(count_threads(), before + 2);
    assert_ok(shale_close(db));
    ck_assert_uint_eq(count_threads(), before);
    db = open_threads(0, SHALE_DURABLE_COMMIT);
    for (int i = 0; i < 3; i++) {
        expect(db, NULL, "k", "1");
    }
    ck_assert_uint_eq(count_threads(), before);
    assert_ok(shale_close(db));
}
END_TEST

/* An operation that leaves work behind leaves somebody to do it: a debt to sync, a segment to make. */
START_TEST(threads_start_with_the_first_work)
{
    unsigned before = count_threads();
    shale_db *db = open_threads(1, SHALE_DURABLE_INTERVAL);
    put(db, "k", "1");
    ck_assert_uint_eq(count_threads(), before + 1);
    assert_ok(shale_close(db));

    db = open_threads(1, SHALE_DURABLE_OFF);
    assert_status(shale_wait_change(db, UINT64_MAX, 10, NULL), SHALE_BUSY);
    ck_assert_uint_eq(count_threads(), before + 1);
    assert_ok(shale_close(db));

    assert_ok(shale_destroy(dir));
    char value[60000];
    shale_batch *b;
    memset(value, 'v', sizeof value);
    assert_ok(shale_batch_create(&b));
    for (char key = 'a'; key < 'd'; key++) {
        assert_ok(shale_batch_put(b, &key, 1, value, sizeof value));
    }
    db = open_threads(1, SHALE_DURABLE_OFF);
    assert_ok(shale_write(db, b, 0));
    shale_batch_destroy(b);
    ck_assert_uint_eq(count_threads(), before + 1);
    assert_ok(shale_close(db));
}
END_TEST

/* The last step of initialising STATE is its magic number: who replays privately just before it must notice.
 */
START_TEST(h27_readonly_handle_notices_that_state_became_usable)
{
    char path[PATH_MAX];
    uint64_t magic, none = 0;
    shale_db *db = open_small(dir), *reader;
    put(db, "a", "1");
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, &magic, sizeof magic, 0), sizeof magic);
    ck_assert_int_eq(pwrite(fd, &none, sizeof none, 0), sizeof none);
    shale_options o = small_options();
    o.readonly = true;
    assert_ok(shale_open(dir, &o, &reader));
    expect(reader, NULL, "a", "1");
    ck_assert_int_eq(pwrite(fd, &magic, sizeof magic, 0), sizeof magic);
    db = open_small(dir);
    put(db, "a", "2");
    expect(reader, NULL, "a", "2");
    assert_ok(shale_close(db));
    assert_ok(shale_close(reader));
    ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(h27_readonly_handle_replays_privately_without_state)
{
    shale_options o = small_options();
    shale_db *db = open_small(dir);
    char path[PATH_MAX];
    put(db, "table", "1");
    assert_ok(shale_flush(db));
    put(db, "log", "2");
    del(db, "table");
    assert_ok(shale_close(db));
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    char **before = scratch_names(dir, "");
    o.readonly = true;
    db = open_with(dir, &o);
    expect(db, NULL, "log", "2");
    expect(db, NULL, "table", NULL);
    ck_assert_uint_eq(count_entries(db, NULL), 1);
    assert_ok(shale_close(db));
    char **after = scratch_names(dir, "");
    for (size_t i = 0; before[i] != NULL || after[i] != NULL; i++) {
        ck_assert(before[i] != NULL && after[i] != NULL);
        ck_assert_str_eq(before[i], after[i]); /* it made and removed nothing */
    }
    scratch_names_free(before);
    scratch_names_free(after);
}
END_TEST

START_TEST(h29_stored_options_win_over_the_callers)
{
    shale_options o = small_options();
    o.block_bytes = 2048;
    o.bloom_bits = 0;
    shale_db *a = open_with(dir, &o);
    o.block_bytes = 512;
    o.bloom_bits = 20;
    o.compression = SHALE_COMPRESS_NONE;
    o.level_ratio = 10;
    o.memtable_bytes = 1 << 20;
    shale_db *b = open_with(dir, &o);
    for (int i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%05d", i);
        put(i % 2 == 0 ? a : b, key, "some value, so that there is something to write");
        if (i % 500 == 499) {
            assert_ok(shale_flush(i % 1000 == 999 ? a : b));
        }
    }
    assert_ok(shale_compact_range(b, NULL, 0, NULL, 0, NULL, NULL));
    ck_assert_uint_eq(count_entries(a, NULL), 2000);
    assert_ok(shale_verify(a, NULL, NULL));
    assert_ok(shale_close(a));
    assert_ok(shale_close(b));
}
END_TEST

START_TEST(h18_more_handles_than_rows)
{
    enum { N = 270 };
    static shale_db *db[N];
    for (int i = 0; i < N; i++) {
        db[i] = open_small(dir);
    }
    for (int i = 0; i < N; i++) {
        char key[16];
        snprintf(key, sizeof key, "%03d", i);
        put(db[i], key, key);
    }
    ck_assert_uint_eq(count_entries(db[N - 1], NULL), N);
    for (int i = 0; i < N; i++) {
        assert_ok(shale_close(db[i]));
    }
    db[0] = open_small(dir);
    ck_assert_uint_eq(STAT(db[0], handles), 1);
    ck_assert_uint_eq(count_entries(db[0], NULL), N);
    assert_ok(shale_close(db[0]));
}
END_TEST

START_TEST(files_get_the_mode_that_was_asked_for)
{
    shale_options o = small_options();
    struct stat st;
    char path[PATH_MAX];
    o.mode = 0640;
    shale_db *db = open_with(dir, &o);
    put(db, "k", "v");
    assert_ok(shale_flush(db));
    assert_ok(shale_close(db));
    ck_assert_int_eq(stat(dir, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0750);
    char **names = scratch_names(dir, "");
    for (char **p = names; *p != NULL; p++) {
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        ck_assert_int_eq(stat(path, &st), 0);
        bool lock = strcmp(*p, "LOCK") == 0 || strcmp(*p, "LIVE") == 0;
        if (S_ISREG(st.st_mode)) {
            ck_assert_msg((st.st_mode & 0777) == (lock ? 0600u : 0640u), "%s: mode %o", *p,
                          st.st_mode & 0777u);
        }
    }
    scratch_names_free(names);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_open");
    TCase *t = tcase_create("open");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, create_close_and_open_again);
    tcase_add_test(t, new_directory_is_durable_in_its_parent);
    tcase_add_test(t, reopen_is_warm_and_survives_a_lost_state);
    tcase_add_test(t, defaults_and_null_options_work);
    tcase_add_test(t, missing_database_is_nodb_when_not_to_be_created);
    tcase_add_test(t, error_if_exists_refuses_closed_and_open_databases);
    tcase_add_test(t, arguments_out_of_range_are_invalid);
    tcase_add_test(t, older_callers_options_struct_is_understood);
    tcase_add_test(t, destroy_leaves_only_the_lock_files);
    tcase_add_test(t, h4_handles_of_one_process_share_the_database);
    tcase_add_test(t, calls_after_close_are_invalid);
    tcase_add_test(t, transaction_open_at_close_is_aborted);
    tcase_add_test(t, h27_readonly_handle_reads_and_writes_nothing);
    tcase_add_test(t, h27_readonly_handle_with_threads_follows_rotation_and_flush);
    tcase_add_test(t, threads_start_with_the_second_call);
    tcase_add_test(t, threads_start_with_the_first_work);
    tcase_add_test(t, h27_readonly_handle_notices_that_state_became_usable);
    tcase_add_test(t, h27_readonly_handle_replays_privately_without_state);
    tcase_add_test(t, h29_stored_options_win_over_the_callers);
    tcase_add_test(t, h18_more_handles_than_rows);
    tcase_add_test(t, files_get_the_mode_that_was_asked_for);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
