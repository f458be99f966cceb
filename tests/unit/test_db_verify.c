/* test_db_verify.c - verify finds whatever is wrong in a durable file, says where, goes on behind it, and is
 * never wrong itself. */
#include "db_copy.h"

#include "mem/filter.h"

static char *dir;
static shale_db *db;

static char told[8192];
static unsigned findings;

static void take_line(void *ctx, int level, const char *line)
{
    (void)ctx;
    if (level == 0) {
        findings++;
        size_t n = strlen(told);
        snprintf(told + n, sizeof told - n, "%s\n", line);
    }
}

static shale_db *open_told(void)
{
    shale_options o = small_options();
    o.log = take_line;
    return open_with(dir, &o);
}

static void setup(void)
{
    dir = scratch_dir("verify");
    db = open_told();
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    free(dir);
}

/* A table in a deep level, one in level 0, and a few records in the log. */
static void fill_little(void)
{
    copy_write(db, 1, 0, 120);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    copy_write(db, 2, 50, 90);
    assert_ok(shale_flush(db));
    put(db, "marker", "find me");
    put(db, "last", "1");
}

static void find(const char *what)
{
    told[0] = '\0';
    findings = 0;
    int rc = shale_verify(db, NULL, NULL);
    ck_assert_msg(rc == SHALE_CORRUPT || rc == SHALE_MISMATCH, "%s: %s", what, shale_errname(rc));
    assert_told(what);
    ck_assert_uint_ge(findings, 1);
}

/* Each byte in turn, from from to to, in steps. */
static void find_each(const char *name, size_t from, size_t to, size_t step)
{
    for (size_t at = from; at < to; at += step) {
        ck_assert_int_eq(scratch_flip_bit(dir, name, at * 8 + at % 8), 0);
        find(name);
        ck_assert_int_eq(scratch_flip_bit(dir, name, at * 8 + at % 8), 0);
    }
    assert_ok(shale_verify(db, NULL, NULL));
}

static size_t size_of(const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(stat(path, &st), 0);
    return (size_t)st.st_size;
}

static const char *manifest(void)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(dir, "");
    name[0] = '\0';
    for (char **p = names; *p != NULL; p++) {
        if (strncmp(*p, "MANIFEST-", 9) == 0) {
            snprintf(name, sizeof name, "%s", *p);
        }
    }
    scratch_names_free(names);
    return name;
}

/* Where in the file the bytes stand. */
static size_t place_of(const char *name, const char *bytes)
{
    unsigned char *data = NULL, *at;
    size_t size = 0;
    ck_assert_int_eq(scratch_read(dir, name, &data, &size), 0);
    at = memmem(data, size, bytes, strlen(bytes));
    ck_assert_msg(at != NULL, "%s is not in %s", bytes, name);
    size_t place = (size_t)(at - data);
    free(data);
    return place;
}

static const char *log_name(void)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(dir, ".wal");
    name[0] = '\0';
    for (char **p = names; *p != NULL; p++) {
        unsigned char *data = NULL;
        size_t size = 0;
        ck_assert_int_eq(scratch_read(dir, *p, &data, &size), 0);
        if (memmem(data, size, "find me", 7) != NULL) {
            snprintf(name, sizeof name, "%s", *p);
        }
        free(data);
    }
    scratch_names_free(names);
    ck_assert_str_ne(name, "");
    return name;
}

START_TEST(sound_database_is_found_sound_in_every_state)
{
    assert_ok(shale_verify(db, NULL, NULL)); /* empty */
    put(db, "a", "1");
    assert_ok(shale_verify(db, NULL, NULL));
    copy_fill(db);
    assert_ok(shale_verify(db, NULL, NULL));
    shale_options o = small_options();
    o.readonly = true;
    shale_db *r = open_with(dir, &o);
    assert_ok(shale_verify(r, NULL, NULL));
    assert_ok(shale_close(r));
    assert_ok(shale_close(db));
    copy_lose(dir, "STATE");
    r = open_with(dir, &o); /* replays privately */
    assert_ok(shale_verify(r, NULL, NULL));
    assert_ok(shale_close(r));
    db = open_told(); /* cold */
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
    db = open_told(); /* warm */
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_verify(db, NULL, NULL));
    assert_status(shale_verify(NULL, NULL, NULL), SHALE_INVALID);
    ck_assert_uint_eq(findings, 0);
}
END_TEST

START_TEST(h38_any_byte_of_a_table)
{
    fill_little();
    char **names = scratch_names(dir, ".sst");
    ck_assert_ptr_nonnull(names[0]);
    for (char **p = names; *p != NULL; p++) {
        find_each(*p, 0, size_of(*p), test_times(23, 1));
    }
    scratch_names_free(names);
}
END_TEST

START_TEST(h38_any_byte_of_the_manifest_and_of_current)
{
    fill_little();
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%s", manifest());
    find_each("CURRENT", 0, size_of("CURRENT"), 1);
    find_each(name, 0, size_of(name), test_times(3, 1));
}
END_TEST

START_TEST(h38_any_byte_of_the_logs_header_and_records)
{
    fill_little();
    const char *name = log_name();
    find_each(name, 0, 64, 1);
    size_t at = place_of(name, "markerfind me");
    find_each(name, at - 27, at + 13, 1); /* the record's header, type and lengths, key, value */
}
END_TEST

START_TEST(lost_file_is_named)
{
    char name[NAME_MAX + 1], path[PATH_MAX], aside[PATH_MAX];
    fill_little();
    if (_i == 0) {
        char **names = scratch_names(dir, ".sst");
        snprintf(name, sizeof name, "%s", names[0]);
        scratch_names_free(names);
        assert_ok(shale_close(db)); /* a table that is mapped is not missed */
    } else {
        snprintf(name, sizeof name, "%s", _i == 1 ? "CURRENT" : _i == 2 ? manifest() : log_name());
    }
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(aside, sizeof aside, "%s/aside", dir);
    ck_assert_int_eq(rename(path, aside), 0);
    if (_i == 0) {
        db = open_told();
    }
    find(name);
    ck_assert_int_eq(rename(aside, path), 0);
    assert_ok(shale_verify(db, NULL, NULL));
}
END_TEST

START_TEST(it_goes_on_behind_the_first_damage)
{
    fill_little();
    char **names = scratch_names(dir, ".sst");
    ck_assert_ptr_nonnull(names[1]);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(scratch_flip_bit(dir, names[i], 800), 0);
    }
    const char *log = log_name();
    ck_assert_int_eq(scratch_flip_bit(dir, log, place_of(log, "find me") * 8), 0);
    find("(and 2 more)");
    ck_assert_uint_eq(findings, 3);
    ck_assert_msg(strstr(told, names[0]) != NULL && strstr(told, names[1]) != NULL &&
                      strstr(told, log) != NULL,
                  "%s", told);
    scratch_names_free(names);
}
END_TEST

START_TEST(damaged_index_is_found)
{
    fill_little();
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s.mem", (int)strcspn(log_name(), "."), log_name());
    ck_assert_int_eq(scratch_noise(dir, name, 4096, 64, 3), 0);
    find(name);
}
END_TEST

/* A get would miss what an iterator shows. */
START_TEST(h38_damaged_filter_of_a_memtable_is_found)
{
    fill_little();
    char name[NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s.mem", (int)strcspn(log_name(), "."), log_name());
    size_t filter = mem_filter_offset(size_of(log_name()));
    ck_assert_int_eq(scratch_noise(dir, name, filter, size_of(name) - filter, 3), 0);
    find(name);
}
END_TEST

struct progress {
    int calls, cancel_at;
};

static int watch(void *ctx, uint64_t done, uint64_t total)
{
    struct progress *p = ctx;
    ck_assert_uint_le(done, total);
    return ++p->calls == p->cancel_at;
}

START_TEST(it_can_be_cancelled_anywhere)
{
    struct progress p = {0};
    fill_little();
    assert_ok(shale_verify(db, watch, &p));
    int calls = p.calls;
    ck_assert_int_gt(calls, 10);
    for (int at = 1; at < calls; at++) { /* the last call says that it is done */
        p = (struct progress){.cancel_at = at};
        assert_status(shale_verify(db, watch, &p), SHALE_CANCELLED);
        ck_assert_int_eq(p.calls, at);
    }
}
END_TEST

enum { WRITERS = 2, GROUPS = 4 };

START_TEST(it_finds_nothing_wrong_beside_writers)
{
    struct agent agent[WRITERS];
    struct board *board = proc_board();
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_start(&agent[i], i);
        agent_must(&agent[i], "open %s threads=1", dir);
        agent_tell(&agent[i], "write-groups %u %u flush=17 compact=61", i * GROUPS, GROUPS);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_progress(&agent[i], 20, 20000);
    }
    for (unsigned round = 0; round < test_times(100, 5000); round++) {
        assert_ok(shale_verify(db, NULL, NULL));
    }
    atomic_store(&board->stop, 1);
    for (unsigned i = 0; i < WRITERS; i++) {
        agent_done(&agent[i]);
        agent_quit(&agent[i]);
    }
    agents_sound(board, WRITERS);
    ck_assert_msg(findings == 0, "%s", told);
    board_close(board);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("db_verify");
    TCase *t = tcase_create("verify");
    tcase_set_timeout(t, test_times(60, 600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, sound_database_is_found_sound_in_every_state);
    tcase_add_test(t, h38_any_byte_of_a_table);
    tcase_add_test(t, h38_any_byte_of_the_manifest_and_of_current);
    tcase_add_test(t, h38_any_byte_of_the_logs_header_and_records);
    tcase_add_loop_test(t, lost_file_is_named, 0, 4);
    tcase_add_test(t, it_goes_on_behind_the_first_damage);
    tcase_add_test(t, damaged_index_is_found);
    tcase_add_test(t, h38_damaged_filter_of_a_memtable_is_found);
    tcase_add_test(t, it_can_be_cancelled_anywhere);
    tcase_add_test(t, it_finds_nothing_wrong_beside_writers);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
