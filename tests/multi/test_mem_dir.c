/* test_mem_dir.c - the indices in a directory of their own (option mem_dir): who makes it, who uses it, who
 * takes it away, and what happens where it is not to be seen, gone, or full. */
#include "lib/lib.h"
#include "db/db.h"

#include <sys/stat.h>

static char *dir, *mems; /* the database; what mem_dir says */
static struct board *board;
static struct agent a, b, c;

static void setup(void)
{
    dir = scratch_name("db");
    mems = scratch_dir("mems");
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(mems);
    free(dir);
}

static void start(struct agent *x, unsigned id, const char *options)
{
    agent_start(x, id);
    agent_must(x, "open %s %s", dir, options);
}

static const char *option(void)
{
    static char text[PATH_MAX];
    snprintf(text, sizeof text, "mem_dir=%s", mems);
    return text;
}

static unsigned count(const char *where, const char *suffix)
{
    unsigned n = 0;
    char **names = scratch_names(where, suffix);
    for (; names[n] != NULL; n++) {
    }
    scratch_names_free(names);
    return n;
}

/* The one directory that stands in mems; a copy, which stays good until the next but one. */
static const char *the_directory(void)
{
    static char path[2][PATH_MAX];
    static unsigned turn;
    turn ^= 1;
    char **names = scratch_names(mems, "");
    ck_assert_msg(names[0] != NULL && names[1] == NULL, "%u directories in mem_dir", count(mems, ""));
    ck_assert_int_eq(strncmp(names[0], "shale-", 6), 0);
    ck_assert_int_lt(snprintf(path[turn], sizeof path[turn], "%s/%s", mems, names[0]), PATH_MAX);
    scratch_names_free(names);
    return path[turn];
}

static void assert_answer(const char *answer, const char *status, const char *what)
{
    ck_assert_msg(strncmp(answer, status, strlen(status)) == 0 && strstr(answer, what) != NULL,
                  "\"%s\" instead of %s with \"%s\"", answer, status, what);
}

/* ---- life ---- */

START_TEST(indices_lie_where_the_option_says_and_nowhere_else)
{
    struct stat st;
    start(&a, 0, option());
    start(&b, 1, "");
    agent_must(&a, "put k a");
    ck_assert_str_eq(agent_must(&b, "get k"), "a");
    agent_must(&b, "fill b 0 4000 100"); /* several rotations, by one whose own option says nothing */
    agent_must(&a, "fill a 0 4000 100");
    ck_assert_str_eq(agent_must(&b, "scan"), "8001");
    ck_assert_uint_eq(count(dir, ".mem"), 0);
    ck_assert_uint_ge(count(the_directory(), ".mem"), 1);
    ck_assert_uint_le(count(the_directory(), ".mem"), 6); /* retired ones go */
    ck_assert_int_eq(stat(the_directory(), &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0700);
    agent_kill(&a);
    agent_must(&b, "put k b");
    agent_must(&b, "verify");
    agent_quit(&b);
}
END_TEST

START_TEST(a_warm_open_keeps_the_directory_whatever_it_asks_for)
{
    static const char *const asks[] = {"", "mem_dir=/nowhere", "readonly=1"};
    start(&a, 0, option());
    agent_must(&a, "put k v");
    agent_quit(&a);
    const char *before = the_directory();
    for (size_t i = 0; i < BASE_COUNT(asks); i++) {
        start(&a, 0, asks[i]);
        ck_assert_str_eq(agent_must(&a, "get k"), "v");
        agent_quit(&a);
        ck_assert_str_eq(the_directory(), before);
        ck_assert_uint_eq(count(dir, ".mem"), 0);
    }
}
END_TEST

START_TEST(the_next_life_takes_the_old_directory_away)
{
    for (int round = 0; round < 3; round++) {
        start(&a, 0, option());
        agent_must(&a, "fill r%d- 0 1000 100", round);
        const char *mine = the_directory();
        agent_kill(&a);
        ck_assert_str_eq(the_directory(), mine);
    }
    start(&a, 0, ""); /* and does without one */
    ck_assert_str_eq(agent_must(&a, "scan"), "3000");
    ck_assert_uint_eq(count(mems, ""), 0);
    ck_assert_uint_ge(count(dir, ".mem"), 1);
    agent_quit(&a);
    start(&a, 0, option()); /* asked for where there is none and nobody minds: from now on */
    ck_assert_str_eq(agent_must(&a, "scan"), "3000");
    ck_assert_uint_eq(count(dir, ".mem"), 0);
    ck_assert_uint_ge(count(the_directory(), ".mem"), 1);
    agent_quit(&a);
}
END_TEST

START_TEST(destroying_the_database_leaves_nothing)
{
    start(&a, 0, option());
    agent_must(&a, "fill k 0 3000 100");
    agent_kill(&a);
    ck_assert_uint_ge(count(the_directory(), ".mem"), 1);
    assert_ok(shale_destroy(dir));
    ck_assert_uint_eq(count(mems, ""), 0);
}
END_TEST

START_TEST(a_copy_of_the_database_takes_nothing_from_the_original)
{
    char *copy = scratch_name("copy"), name[PATH_MAX];
    start(&a, 0, option());
    agent_must(&a, "put k v");
    snprintf(name, sizeof name, "%s", the_directory());
    ck_assert_int_eq(scratch_copy(dir, copy), 0);
    shale_db *db = open_small(copy);
    expect(db, NULL, "k", "v");
    put(db, "k", "copy");
    assert_ok(shale_close(db));
    ck_assert_uint_ge(count(copy, ".mem"), 1);
    assert_ok(shale_destroy(copy));
    ck_assert_int_eq(scratch_remove(copy), 0);
    ck_assert_int_eq(scratch_copy(dir, copy), 0);
    assert_ok(shale_destroy(copy)); /* with the STATE that names the original's */
    ck_assert_str_eq(the_directory(), name);
    ck_assert_uint_ge(count(name, ".mem"), 1);
    start(&b, 1, "");
    ck_assert_str_eq(agent_must(&b, "get k"), "v");
    agent_quit(&b);
    agent_quit(&a);
    free(copy);
}
END_TEST

START_TEST(a_reader_follows_from_one_life_to_the_next)
{
    start(&a, 0, option());
    agent_must(&a, "put k 1");
    start(&b, 1, "readonly=1");
    ck_assert_str_eq(agent_must(&b, "get k"), "1");
    for (int round = 2; round < 6; round++) {
        agent_kill(&a);
        start(&a, 0, round % 2 == 0 ? option() : "");
        agent_must(&a, "put k %d", round);
        ck_assert_int_eq(atoi(agent_must(&b, "get k")), round);
    }
    agent_quit(&b);
    agent_quit(&a);
}
END_TEST

/* ---- killed, or failing, while it is being made or removed ---- */

/* Every place of an open that has an old directory to take away and a new one to make. */
START_TEST(whoever_dies_while_opening_leaves_nothing_that_is_not_found)
{
    unsigned n = 1;
    for (bool died = true; died; n++) {
        start(&a, 0, option());
        agent_must(&a, "put k v");
        agent_kill(&a);
        agent_start(&a, 0);
        agent_must(&a, "die-at %s %u", _i == 0 ? "RECOVER" : "OPEN", n);
        agent_tell(&a, "open %s %s", dir, option());
        died = agent_last_words(&a) == NULL;
        if (died) {
            agent_reap(&a);
            ck_assert_uint_le(count(mems, ""), 1);
        } else {
            agent_quit(&a);
        }
        start(&a, 0, option());
        ck_assert_str_eq(agent_must(&a, "get k"), "v");
        (void)the_directory();
        ck_assert_uint_eq(count(dir, ".mem"), 0);
        agent_kill(&a);
    }
    ck_assert_uint_ge(n, _i == 0 ? 12 : 6);
    assert_ok(shale_destroy(dir));
    ck_assert_uint_eq(count(mems, ""), 0);
}
END_TEST

START_TEST(an_open_that_fails_leaves_no_directory)
{
    static const char *const calls[] = {"MKDIR", "OPEN", "ALLOCATE", "LIST", "UNLINK"};
    unsigned failed = 0;
    for (size_t i = 0; i < BASE_COUNT(calls); i++) {
        for (unsigned n = 1;; n++) {
            start(&a, 0, option());
            agent_must(&a, "put k v");
            agent_kill(&a);
            agent_start(&a, 0);
            agent_must(&a, "errno-at %s %u %d", calls[i], n, ENOSPC);
            const char *answer = agent_ask(&a, "open %s %s", dir, option());
            bool opened = strncmp(answer, "ok", 2) == 0;
            bool hit = atoi(agent_must(&a, "errno-off")) != 0;
            failed += !opened;
            ck_assert_msg(count(mems, "") <= 1, "%s %u: %s", calls[i], n, answer);
            agent_kill(&a);
            if (!hit) {
                break;
            }
        }
    }
    ck_assert_uint_ge(failed, 15);
    start(&a, 0, "");
    ck_assert_str_eq(agent_must(&a, "get k"), "v");
    ck_assert_uint_eq(count(mems, ""), 0);
    agent_quit(&a);
}
END_TEST

START_TEST(a_directory_that_cannot_be_used_is_refused_by_its_name)
{
    char text[PATH_MAX];
    struct stat st;
    agent_start(&a, 0);
    assert_answer(agent_ask(&a, "open %s mem_dir=shm", dir), "SHALE_INVALID", "absolute");
    memset(text, 'x', 300);
    text[300] = '\0';
    assert_answer(agent_ask(&a, "open %s mem_dir=/%s", dir, text), "SHALE_INVALID", "absolute");
    ck_assert_int_ne(stat(dir, &st), 0);
    assert_answer(agent_ask(&a, "open %s mem_dir=/no/where", dir), "SHALE_INVALID", "/no/where");
    assert_answer(agent_ask(&a, "open %s mem_dir=/proc/self/exe", dir), "SHALE_INVALID", "/proc/self/exe");
    agent_must(&a, "open %s", dir);
    agent_must(&a, "put k v");
    agent_quit(&a);
}
END_TEST

/* ---- not to be seen ---- */

/* Another one of the same name: what a process with other mounts would find there. */
START_TEST(another_directory_in_its_place_is_not_taken_for_it)
{
    char away[PATH_MAX], name[PATH_MAX];
    start(&a, 0, option());
    agent_must(&a, "put k v");
    snprintf(name, sizeof name, "%s", the_directory());
    snprintf(away, sizeof away, "%s-away", mems);
    for (int gone = 0; gone < 2; gone++) {
        ck_assert_int_eq(rename(name, away), 0);
        ck_assert_int_eq(gone ? 0 : mkdir(name, 0700), 0);
        agent_start(&b, 1);
        assert_answer(agent_ask(&b, "open %s", dir), "SHALE_MISMATCH", name);
        assert_answer(agent_ask(&b, "open %s readonly=1", dir), "SHALE_MISMATCH", name);
        agent_must(&a, "put k %d", gone);
        ck_assert_int_eq(gone ? 0 : rmdir(name), 0);
        ck_assert_int_eq(rename(away, name), 0);
        agent_must(&b, "open %s", dir);
        ck_assert_int_eq(atoi(agent_must(&b, "get k")), gone);
        agent_quit(&b);
    }
    agent_quit(&a);
}
END_TEST

/* The agent's own mount stands over mem_dir from now on; false: it may not mount. */
static bool cover(struct agent *x, const char *size)
{
    const char *answer = agent_ask(x, "cover %s %s", mems, size);
    if (strncmp(answer, "ok", 2) != 0) {
        printf("skip: a mount namespace of its own: %s\n", answer);
        return false;
    }
    return true;
}

START_TEST(a_process_with_other_mounts_is_refused_and_recovers_when_alone)
{
    start(&a, 0, option());
    agent_must(&a, "put k v");
    const char *name = the_directory();
    agent_start(&b, 1);
    if (cover(&b, "1m")) {
        assert_answer(agent_ask(&b, "open %s %s", dir, option()), "SHALE_MISMATCH", name);
        assert_answer(agent_ask(&b, "open %s readonly=1", dir), "SHALE_MISMATCH", "mount namespace");
        agent_quit(&a);
        agent_must(&b, "open %s %s", dir, option());
        ck_assert_str_eq(agent_must(&b, "get k"), "v");
        agent_start(&a, 0);
        assert_answer(agent_ask(&a, "open %s", dir), "SHALE_MISMATCH", "mount namespace");
    }
    agent_quit(&b);
    agent_kill(&a);
}
END_TEST

START_TEST(removed_under_its_users_it_costs_them_the_next_rotation_and_nothing_else)
{
    start(&a, 0, option());
    start(&b, 1, "");
    agent_must(&a, "fill a 0 150 100"); /* too few for the next segment to be there */
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s", the_directory());
    ck_assert_int_eq(scratch_remove(name), 0);
    ck_assert_str_eq(agent_must(&b, "scan"), "150");
    agent_must(&b, "fill b 0 10 100");
    assert_answer(agent_ask(&a, "fill c 0 20000 100"), "SHALE_IO", name);
    ck_assert_int_ge(atoi(agent_must(&b, "scan")), 160);
    ck_assert_ptr_nonnull(strstr(agent_must(&a, "get a00000149"), "a00000149a00000149"));
    agent_start(&c, 2);
    assert_answer(agent_ask(&c, "open %s", dir), "SHALE_MISMATCH", name);
    agent_quit(&c);
    agent_kill(&a);
    agent_kill(&b);
    ck_assert_uint_eq(count(mems, ""), 0);
    start(&a, 0, option());
    ck_assert_int_ge(atoi(agent_must(&a, "scan")), 160);
    agent_must(&a, "verify");
    agent_must(&a, "fill d 0 4000 100");
    (void)the_directory();
    agent_quit(&a);
}
END_TEST

START_TEST(a_lost_index_is_named_and_a_new_life_makes_it_anew)
{
    char path[PATH_MAX];
    start(&a, 0, option());
    agent_must(&a, "put k v");
    char **names = scratch_names(the_directory(), ".mem");
    for (char **p = names; *p != NULL; p++) {
        snprintf(path, sizeof path, "%s/%s", the_directory(), *p);
        ck_assert_int_eq(unlink(path), 0);
    }
    agent_start(&b, 1);
    assert_answer(agent_ask(&b, "open %s", dir), "SHALE_CORRUPT", names[0]);
    scratch_names_free(names);
    agent_must(&a, "put l w");
    agent_quit(&a);
    agent_must(&b, "open %s %s", dir, option());
    ck_assert_str_eq(agent_must(&b, "get k"), "v");
    ck_assert_str_eq(agent_must(&b, "get l"), "w");
    agent_quit(&b);
}
END_TEST

/* ---- full ---- */

START_TEST(a_full_one_stops_writers_until_there_is_room)
{
    agent_start(&a, 0);
    if (cover(&a, "300k")) { /* the first index fits, the second does not */
        agent_must(&a, "open %s %s", dir, option());
        agent_must(&a, "put k v");
        assert_answer(agent_ask(&a, "fill f 0 20000 100"), "SHALE_NOSPC", mems);
        ck_assert_str_eq(agent_must(&a, "get k"), "v");
        uint64_t there = strtoull(agent_must(&a, "scan"), NULL, 10);
        agent_must(&a, "cover %s 8m", mems);
        agent_must(&a, "fill g 0 5000 100");
        ck_assert_uint_eq(strtoull(agent_must(&a, "scan"), NULL, 10), there + 5000);
        agent_must(&a, "verify");
    }
    agent_quit(&a);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("mem_dir");
    TCase *life = tcase_create("life"), *making = tcase_create("making"), *gone = tcase_create("gone");
    suite_add_tcase(s, life);
    suite_add_tcase(s, making);
    suite_add_tcase(s, gone);
    tcase_add_checked_fixture(life, setup, teardown);
    tcase_add_checked_fixture(making, setup, teardown);
    tcase_add_checked_fixture(gone, setup, teardown);
    tcase_set_timeout(life, 120);
    tcase_set_timeout(making, 120);
    tcase_set_timeout(gone, 120);
    tcase_add_test(life, indices_lie_where_the_option_says_and_nowhere_else);
    tcase_add_test(life, a_warm_open_keeps_the_directory_whatever_it_asks_for);
    tcase_add_test(life, the_next_life_takes_the_old_directory_away);
    tcase_add_test(life, destroying_the_database_leaves_nothing);
    tcase_add_test(life, a_copy_of_the_database_takes_nothing_from_the_original);
    tcase_add_test(life, a_reader_follows_from_one_life_to_the_next);
    tcase_add_loop_test(making, whoever_dies_while_opening_leaves_nothing_that_is_not_found, 0, 2);
    tcase_add_test(making, an_open_that_fails_leaves_no_directory);
    tcase_add_test(making, a_directory_that_cannot_be_used_is_refused_by_its_name);
    tcase_add_test(gone, another_directory_in_its_place_is_not_taken_for_it);
    tcase_add_test(gone, a_process_with_other_mounts_is_refused_and_recovers_when_alone);
    tcase_add_test(gone, removed_under_its_users_it_costs_them_the_next_rotation_and_nothing_else);
    tcase_add_test(gone, a_lost_index_is_named_and_a_new_life_makes_it_anew);
    tcase_add_test(gone, a_full_one_stops_writers_until_there_is_room);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
