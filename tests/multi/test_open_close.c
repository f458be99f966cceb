/* test_open_close.c - what an open that fails leaves behind. */
#include "lib/lib.h"

static char *dir;

static void setup(void)
{
    dir = scratch_dir("open_close");
}

static void teardown(void)
{
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

static Suite *suite(void)
{
    Suite *s = suite_create("open_close");
    TCase *t = tcase_create("open_close");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_failed_open_stands_in_nobodys_way);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
