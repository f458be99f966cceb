/* test_open_close.c - what an open that fails leaves behind, and what a close owes to others' commits. */
#include "lib/lib.h"

#include <unistd.h>

static char *dir;
static struct board *board;
static struct agent a, b;

static void setup(void)
{
    dir = scratch_dir("open_close");
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(dir);
}

/* ---- an open that fails ---- */

static int lock_fd = -1, live_fd = -1;
static bool looking, held_behind_open;
static unsigned looks;

/* Nobody holds OPEN (byte 0 of LOCK): then nobody may hold LIVE exclusively, since the next opener does not
 * wait for it. */
static int look_at_live(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    bool opening = true, taken = false;
    (void)fd, (void)name, (void)offset, (void)length;
    if (op != OS_OP_CLOSE || looking) {
        return 0;
    }
    looking = true; /* the tests below pass this door, too */
    assert_ok(os_lock_test(lock_fd, 0, 1, true, &opening));
    if (!opening) {
        assert_ok(os_lock_test(live_fd, OS_LIVE_BYTE, 1, false, &taken));
        held_behind_open = held_behind_open || taken;
        looks++;
    }
    looking = false;
    return 0;
}

START_TEST(a_failed_open_stands_in_nobodys_way)
{
    char path[PATH_MAX];
    int dirfd = -1;
    shale_db *db = open_small(dir);
    put(db, "k", "v");
    assert_ok(shale_close(db));
    char **manifests = scratch_names(dir, "");
    for (char **p = manifests; *p != NULL; p++) {
        if (strncmp(*p, "MANIFEST-", 9) == 0) {
            ck_assert_int_eq(scratch_noise(dir, *p, 0, 64, 7), 0);
        }
    }
    scratch_names_free(manifests);
    snprintf(path, sizeof path, "%s/STATE", dir);
    ck_assert_int_eq(unlink(path), 0);
    assert_ok(os_open_dir(dir, &dirfd));
    assert_ok(os_open(dirfd, "LOCK", O_RDWR, 0, &lock_fd));
    assert_ok(os_open(dirfd, "LIVE", O_RDWR, 0, &live_fd));
    os_door_hook = look_at_live;
    int rc = shale_open(dir, NULL, &db);
    os_door_hook = NULL;
    ck_assert_int_eq(rc, SHALE_CORRUPT);
    ck_assert_uint_gt(looks, 0);
    ck_assert(!held_behind_open);
    os_close(&lock_fd);
    os_close(&live_fd);
    os_close(&dirfd);
}
END_TEST

/* ---- what interval commits owe ---- */

static void start_interval(struct agent *x, unsigned id, unsigned threads)
{
    agent_start(x, id);
    agent_must(x, "open %s durable=interval sync_interval_ms=20 threads=%u", dir, threads);
}

/* a's commit is due, and b is about to pay for it. */
static void park_the_payer(unsigned a_threads)
{
    start_interval(&b, 1, 0);
    start_interval(&a, 0, a_threads);
    agent_must(&b, "put first 1 sync");
    agent_must(&b, "park-at SYNC 1");
    agent_must(&a, "put k v");
    os_nap(30000000);
    agent_tell(&b, "work");
}

START_TEST(close_returns_when_its_interval_commits_are_durable_whoever_is_paying)
{
    shale_db *db = open_small(dir);
    park_the_payer(0);
    ck_assert(agent_parked(&b, 20000));
    uint64_t seq = STAT(db, seq);
    ck_assert_uint_lt(STAT(db, synced_seq), seq);
    agent_must(&a, "close");
    ck_assert_uint_ge(STAT(db, synced_seq), seq);
    agent_unpark(&b);
    agent_done(&b);
    agent_quit(&a);
    agent_quit(&b);
    assert_ok(shale_close(db));
}
END_TEST

/* The debt has left with the one who took it over. */
START_TEST(an_idle_handle_notes_its_commits_again_when_the_payer_was_killed)
{
    shale_db *db = open_small(dir);
    park_the_payer(0);
    ck_assert(agent_parked(&b, 20000));
    agent_kill(&b);
    uint64_t seq = STAT(db, seq);
    ck_assert_uint_lt(STAT(db, synced_seq), seq);
    for (int i = 0; i < 1000 && STAT(db, synced_seq) < seq; i++) {
        agent_must(&a, "work"); /* its own next calls; a maintenance thread does the same by itself */
        os_nap(1000000);
    }
    ck_assert_uint_ge(STAT(db, synced_seq), seq);
    agent_quit(&a);
    assert_ok(shale_close(db));
}
END_TEST

START_TEST(a_maintenance_thread_pays_after_the_payer_was_killed)
{
    shale_db *db = open_small(dir);
    start_interval(&a, 0, 1);
    agent_must(&a, "put first 1 sync");
    agent_must(&a, "park-at SYNC 1"); /* its own thread, which holds SYNC and has taken the debt over */
    agent_must(&a, "put k v");
    ck_assert(agent_parked(&a, 20000));
    start_interval(&b, 1, 1);
    agent_must(&b, "put l v");
    agent_kill(&a);
    uint64_t seq = STAT(db, seq);
    for (int i = 0; i < 10000 && STAT(db, synced_seq) < seq; i++) {
        os_nap(1000000);
    }
    ck_assert_uint_ge(STAT(db, synced_seq), seq);
    agent_quit(&b);
    assert_ok(shale_close(db));
}
END_TEST

/* ---- an open while another makes the database ---- */

static const char *const meeting[] = {"create=1", "create=0", "readonly=1"};

/* One opens, and stands still before its n-th system call, while another makes the database and writes; n
 * from 1 until there is no such call. What is half made, or was not there a moment ago, is not damage. */
START_TEST(an_open_meets_the_making_of_the_database)
{
    bool over = false;
    unsigned met = 0;
    for (unsigned n = 1; !over; n++) {
        char *place = scratch_dir("meeting");
        agent_start(&a, 0);
        agent_start(&b, 1);
        agent_must(&a, "call-at %u park", n);
        agent_tell(&a, "open %s %s", place, meeting[_i]);
        over = !agent_parked(&a, 20000);
        if (!over) {
            const char *made = agent_ask(&b, "open %s timeout_ms=0", place);
            if (strcmp(made, "ok") == 0) {
                agent_must(&b, "put k v");
                met++;
            } else {
                ck_assert_msg(strncmp(made, "SHALE_BUSY", 10) == 0, "%s", made);
            }
            agent_unpark(&a);
        }
        const char *text = agent_wait(&a, 20000);
        ck_assert_msg(text != NULL &&
                          (strcmp(text, "ok") == 0 || (_i != 0 && strncmp(text, "SHALE_NODB", 10) == 0)),
                      "call %u: %s", n, text != NULL ? text : "no answer");
        agent_kill(&a);
        agent_kill(&b);
        free(place);
    }
    ck_assert_uint_ge(met, 3);
}
END_TEST

/* ---- lock files ---- */

/* Each bit of _i is one of them. */
static const char *const seeming[] = {"LOCK", "LIVE", "CURRENT"};

START_TEST(a_directory_that_looks_like_a_database_is_left_alone)
{
    shale_options o = small_options();
    shale_db *db;
    unsigned count = 0;
    o.create = false;
    for (int i = 0; i < 3; i++) {
        if ((_i >> i & 1) != 0) {
            ck_assert_int_eq(scratch_write(dir, seeming[i], "", 0), 0);
            count++;
        }
    }
    assert_status(shale_open(dir, &o, &db), (_i & 4) != 0 ? SHALE_CORRUPT : SHALE_NODB);
    char **left = scratch_names(dir, "");
    for (char **p = left; *p != NULL; p++, count--) {
        bool known = false;
        for (int i = 0; i < 3; i++) {
            known = known || ((_i >> i & 1) != 0 && strcmp(*p, seeming[i]) == 0);
        }
        ck_assert_msg(known, "made: %s", *p);
    }
    ck_assert_uint_eq(count, 0);
    scratch_names_free(left);
}
END_TEST

START_TEST(lock_files_that_are_missing_are_made_again)
{
    char path[PATH_MAX];
    shale_options o = small_options();
    shale_db *db = open_small(dir);
    put(db, "k", "v");
    assert_ok(shale_close(db));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, seeming[i]);
        ck_assert_int_eq((_i >> i & 1) != 0 ? unlink(path) : 0, 0);
    }
    o.create = false;
    for (int round = 0; round < 2; round++) {
        db = open_with(dir, &o);
        expect(db, NULL, "k", "v");
        assert_ok(shale_close(db));
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("open_close");
    TCase *t = tcase_create("open_close");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_failed_open_stands_in_nobodys_way);
    tcase_add_test(t, close_returns_when_its_interval_commits_are_durable_whoever_is_paying);
    tcase_add_test(t, an_idle_handle_notes_its_commits_again_when_the_payer_was_killed);
    tcase_add_test(t, a_maintenance_thread_pays_after_the_payer_was_killed);
    tcase_add_loop_test(t, an_open_meets_the_making_of_the_database, 0, (int)BASE_COUNT(meeting));
    tcase_add_loop_test(t, a_directory_that_looks_like_a_database_is_left_alone, 0, 7);
    tcase_add_loop_test(t, lock_files_that_are_missing_are_made_again, 1, 4);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
