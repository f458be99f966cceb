/* test_lockq_api.c - lent locks and the public interface. */
#include "lockq_side.h"

/* ---- lent locks ---- */

static enum lockq_lent find(int fresh, int lock_fd, int *fd, int want)
{
    enum lockq_lent kind = LOCKQ_LENT_NONE;
    *fd = -7;
    int rc = lockq_find_lent(fresh, lock_fd, &kind, fd);
    ck_assert_msg(rc == want, "%s: %s", shale_errname(rc), shale_errmsg());
    return kind;
}

#define set_list(...)                                                                                        \
    do {                                                                                                     \
        char text_[200];                                                                                     \
        (void)snprintf(text_, sizeof text_, __VA_ARGS__);                                                    \
        (void)setenv("SHALE_LOCK_FD", text_, 1);                                                             \
    } while (0)

START_TEST(a_lent_lock_is_found_by_its_descriptor)
{
    int fresh = open_lock_file(), lent = open_lock_file(), found;
    struct stat st;
    ck_assert_int_eq(os_stat(fresh, &st), SHALE_OK);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_NONE);
    ck_assert_int_eq(found, -1);
    set_list("%d", lent);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_NONE); /* holds nothing yet */
    set_list("%d:%llu:%llu", lent, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_INVALID), LOCKQ_LENT_NONE); /* but the long form says so */
    ck_assert_int_eq(os_lock_try(lent, OS_BYTE_WRITE, 1, true), SHALE_OK);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_WRITE);
    ck_assert_int_eq(found, lent);
    set_list("%d:%llu:%llu,%d", lent, (unsigned long long)st.st_dev + 1, (unsigned long long)st.st_ino,
             lent); /* another database's first */
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_WRITE);
    (void)unsetenv("SHALE_LOCK_FD");
    ck_assert_int_eq(find(fresh, lent, &found, SHALE_OK), LOCKQ_LENT_WRITE);
    bool holds = false;
    ck_assert_int_eq(lockq_lent_holds(fresh, lent, &holds), SHALE_OK);
    ck_assert(holds);
    ck_assert_int_eq(os_unlock(lent, OS_BYTE_WRITE, 1), SHALE_OK);
    ck_assert_int_eq(lockq_lent_holds(fresh, lent, &holds), SHALE_OK);
    ck_assert(!holds);
    ck_assert_int_eq(find(fresh, lent, &found, SHALE_INVALID), LOCKQ_LENT_NONE);
    os_close(&fresh), os_close(&lent);
}
END_TEST

START_TEST(a_lock_that_another_holds_is_not_lent_and_a_shared_one_is_a_freeze)
{
    int fresh = open_lock_file(), lent = open_lock_file(), other = open_lock_file(), found;
    set_list("%d", lent);
    ck_assert_int_eq(os_lock_try(other, OS_BYTE_WRITE, 2, true), SHALE_OK);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_NONE);
    ck_assert_int_eq(os_unlock(other, OS_BYTE_WRITE, 2), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lent, OS_BYTE_WRITE, 1, false), SHALE_OK);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_FROZEN);
    ck_assert_int_eq(os_lock_try(other, OS_BYTE_WRITE, 1, false), SHALE_OK);
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_FROZEN);
    os_close(&fresh), os_close(&lent), os_close(&other);
}
END_TEST

START_TEST(an_entry_that_cannot_be_is_an_error)
{
    int fresh = open_lock_file(), other, found;
    struct stat st;
    ck_assert_int_eq(os_stat(fresh, &st), SHALE_OK);
    static const char *const bad[] = {"x",     "1:2", "1:2:3:4", "-1", "99999999999999",
                                      "1:2:x", ":",   "1:2:3,y", " 1"};
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        (void)setenv("SHALE_LOCK_FD", bad[i], 1);
        (void)find(fresh, -1, &found, SHALE_INVALID);
        assert_told("SHALE_LOCK_FD");
    }
    set_list("%d", 900); /* not open */
    (void)find(fresh, -1, &found, SHALE_INVALID);
    assert_told("900");
    set_list("%d:%llu:%llu", 900, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    (void)find(fresh, -1, &found, SHALE_INVALID);
    set_list("%d:%llu:%llu", 900, (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino + 1); /* another database's: no concern of ours */
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_NONE);
    ck_assert_int_eq(os_open(dir, "other", O_RDWR | O_CREAT, 0600, &other), SHALE_OK);
    set_list("%d,,%d", other, other); /* a descriptor of another file */
    ck_assert_int_eq(find(fresh, -1, &found, SHALE_OK), LOCKQ_LENT_NONE);
    set_list("%d:%llu:%llu", other, (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    (void)find(fresh, -1, &found, SHALE_INVALID);
    (void)find(fresh, other, &found, SHALE_INVALID);
    os_close(&fresh), os_close(&other);
}
END_TEST

/* ---- the public interface ---- */

static shale_lockq *public_open(void)
{
    shale_lockq *q = NULL;
    ck_assert_msg(shale_lockq_open(path, 0600, &q) == SHALE_OK, "%s", shale_errmsg());
    return q;
}

static void *acquire_in_thread(void *ctx)
{
    shale_lockq *q = ctx;
    shale_held *held = NULL;
    int rc = shale_lockq_acquire(q, "job", SHALE_LOCK_EXCLUSIVE, 0, NULL, &held);
    ck_assert_ptr_null(held);
    return (void *)(intptr_t)rc;
}

static void *release_in_thread(void *ctx)
{
    return (void *)(intptr_t)shale_lockq_release(ctx);
}

static int in_thread(void *(*run)(void *), void *ctx)
{
    pthread_t thread;
    void *rc;
    ck_assert_int_eq(pthread_create(&thread, NULL, run, ctx), 0);
    ck_assert_int_eq(pthread_join(thread, &rc), 0);
    return (int)(intptr_t)rc;
}

START_TEST(a_thread_that_holds_a_lock_is_told_so_and_others_wait)
{
    shale_lockq *q = public_open();
    shale_held *held = NULL, *again = NULL;
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_EXCLUSIVE, -1, "label", &held), SHALE_OK);
    ck_assert_uint_gt(shale_lockq_number(held), 0);
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_EXCLUSIVE, -1, NULL, &again), SHALE_INUSE);
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_SHARED, -1, NULL, &again), SHALE_INUSE);
    ck_assert_int_eq(in_thread(acquire_in_thread, q), SHALE_BUSY);
    ck_assert_int_eq(shale_lockq_acquire(q, "other", SHALE_LOCK_SHARED, 0, NULL, &again), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release(again), SHALE_OK);
    ck_assert_int_eq(in_thread(release_in_thread, held), SHALE_OK); /* any thread may */
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_SHARED, 0, NULL, &held), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release(held), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release(NULL), SHALE_OK);
    shale_lockq_close(q);
    shale_lockq_close(NULL);
}
END_TEST

START_TEST(the_write_lock_is_known_to_be_held_by_this_thread)
{
    shale_lockq *q = public_open();
    shale_held *held = NULL, *again = NULL;
    int fd = open_lock_file();
    struct stat st;
    ck_assert_int_eq(os_stat(fd, &st), SHALE_OK);
    ck_assert(!lockq_thread_holds(st.st_dev, st.st_ino));
    ck_assert_int_eq(shale_lockq_acquire(q, NULL, SHALE_LOCK_EXCLUSIVE, -1, NULL, &held), SHALE_OK);
    ck_assert(lockq_thread_holds(st.st_dev, st.st_ino));
    ck_assert_int_eq(os_lock_try(fd, OS_BYTE_WRITE, 1, true), SHALE_BUSY);
    ck_assert_int_eq(os_lock_try(fd, OS_BYTE_NESTED, 1, true), SHALE_BUSY);
    ck_assert_int_eq(shale_lockq_release(held), SHALE_OK);
    ck_assert(!lockq_thread_holds(st.st_dev, st.st_ino));
    lockq_thread_hold(st.st_dev, st.st_ino); /* a transaction */
    ck_assert_int_eq(shale_lockq_acquire(q, NULL, SHALE_LOCK_EXCLUSIVE, -1, NULL, &again), SHALE_INUSE);
    lockq_thread_drop(st.st_dev, st.st_ino);
    os_close(&fd);
    shale_lockq_close(q);
}
END_TEST

START_TEST(an_ancestor_that_holds_the_lock_is_not_waited_for)
{
    shale_lockq *q = public_open();
    shale_held *held = NULL;
    int fd = open_lock_file();
    char text[32];
    (void)snprintf(text, sizeof text, "%d", fd);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_EXCLUSIVE, -1, NULL, fd, 0), SHALE_OK);
    (void)setenv("SHALE_LOCK_FD", text, 1);
    ck_assert_int_eq(shale_lockq_acquire(q, NULL, SHALE_LOCK_EXCLUSIVE, -1, NULL, &held), SHALE_INUSE);
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fd), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, "job", SHALE_LOCK_EXCLUSIVE, -1, "outer", fd, 0), SHALE_OK);
    (void)setenv("LOCKD_HELD", text, 1);
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_EXCLUSIVE, -1, NULL, &held), SHALE_INUSE);
    assert_told("outer");
    ck_assert_int_eq(shale_lockq_release_fd(q, "job", fd), SHALE_OK);
    os_close(&fd);
    shale_lockq_close(q);
}
END_TEST

START_TEST(a_lock_on_the_callers_descriptor_lives_with_that_descriptor)
{
    shale_lockq *q = public_open();
    int fd = open_lock_file(), fresh = open_lock_file(), other = -1;
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_EXCLUSIVE, 0, "mine", fd, 0), SHALE_OK);
    ck_assert_int_eq(os_lock_try(fresh, OS_BYTE_WRITE, 1, true), SHALE_BUSY);
    ck_assert_int_eq(os_lock_try(fresh, OS_BYTE_NESTED, 1, true), SHALE_OK); /* byte 1 alone is lent */
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_EXCLUSIVE, 0, NULL, fd, 0), SHALE_INUSE);
    shale_lockq_close(q);
    ck_assert_int_eq(os_lock_try(fresh, OS_BYTE_WRITE, 1, true), SHALE_BUSY);
    q = public_open();
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fresh), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fd), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fd), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_SHARED, 0, NULL, fd, 0), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_SHARED, 0, NULL, fresh, 0), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fd), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release_fd(q, NULL, fresh), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_EXCLUSIVE, 0, NULL, 900, 0), SHALE_INVALID);
    assert_told("exec 900<>DIR/LOCK");
    ck_assert_int_eq(os_open(dir, "LOCK", O_RDONLY, 0, &other), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire_fd(q, NULL, SHALE_LOCK_EXCLUSIVE, 0, NULL, other, 0), SHALE_INVALID);
    os_close(&other), os_close(&fd), os_close(&fresh);
    shale_lockq_close(q);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
    shale_lockq *q = NULL;
    shale_held *held = NULL;
    char longest[LOCKQ_NAME + 2];
    ck_assert_int_eq(shale_lockq_open("/nonexistent/place", 0600, &q), SHALE_NODB);
    ck_assert_int_eq(shale_lockq_open("/proc/self/comm", 0600, &q), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_open(NULL, 0600, &q), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_open(path, 07777, &q), SHALE_INVALID);
    ck_assert_ptr_null(q);
    q = public_open();
    memset(longest, 'n', sizeof longest);
    longest[LOCKQ_NAME + 1] = '\0';
    ck_assert_int_eq(shale_lockq_acquire(q, longest, SHALE_LOCK_EXCLUSIVE, 0, NULL, &held), SHALE_INVALID);
    longest[LOCKQ_NAME] = '\0';
    ck_assert_int_eq(shale_lockq_acquire(q, longest, SHALE_LOCK_EXCLUSIVE, 0, NULL, &held), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release(held), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire(q, "", SHALE_LOCK_EXCLUSIVE, 0, NULL, &held), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_acquire(q, "n", 3, 0, NULL, &held), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_acquire(q, "n", SHALE_LOCK_SHARED, -2, NULL, &held), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_list(q, NULL, NULL, NULL), SHALE_INVALID);
    ck_assert_int_eq(shale_lockq_stat(q, NULL, NULL), SHALE_INVALID);
    shale_lockq_close(q);
}
END_TEST

struct seen {
    unsigned holders, waiters;
    bool in_order;
    char names[256];
    uint64_t last;
};

static int see(void *ctx, const shale_ticket *t)
{
    struct seen *s = ctx;
    ck_assert_uint_eq(t->size, sizeof *t);
    ck_assert(!t->stopped);
    if (t->holder) {
        s->holders++;
    } else {
        s->in_order &= t->number > s->last;
        s->last = t->number;
        s->waiters++;
    }
    size_t used = strlen(s->names);
    (void)snprintf(s->names + used, sizeof s->names - used, "[%s]", t->name);
    return 0;
}

static int see_one(void *ctx, const shale_ticket *t)
{
    (void)t;
    return ++*(int *)ctx;
}

START_TEST(holders_and_waiters_are_listed_in_order)
{
    shale_lockq *q = public_open();
    shale_held *job = NULL, *write_lock = NULL;
    struct side a;
    uint64_t n[3];
    struct lockq_ticket *t[3];
    int calls_made = 0;
    ck_assert_int_eq(shale_lockq_acquire(q, "job", SHALE_LOCK_EXCLUSIVE, 0, NULL, &job), SHALE_OK);
    ck_assert_int_eq(shale_lockq_acquire(q, NULL, SHALE_LOCK_EXCLUSIVE, 0, NULL, &write_lock), SHALE_OK);
    side_open_named(&a, "job");
    for (int i = 0; i < 3; i++) {
        t[i] = stand(&a, &n[i]);
    }
    struct seen s = {.in_order = true};
    ck_assert_int_eq(shale_lockq_list(q, NULL, see, &s), SHALE_OK);
    ck_assert_uint_eq(s.holders, 2);
    ck_assert_uint_eq(s.waiters, 3);
    ck_assert(s.in_order);
    ck_assert_str_eq(s.names, "[][job][job][job][job]");
    s = (struct seen){.in_order = true};
    ck_assert_int_eq(shale_lockq_list(q, "", see, &s), SHALE_OK);
    ck_assert_uint_eq(s.holders, 1);
    ck_assert_uint_eq(s.waiters, 0);
    ck_assert_int_eq(shale_lockq_list(q, NULL, see_one, &calls_made), 1); /* it may end it */
    for (int i = 0; i < 3; i++) {
        leave(&a, t[i], n[i]);
    }
    side_close(&a);
    shale_lock_stats stats = {.size = sizeof stats};
    ck_assert_int_eq(shale_lockq_stat(q, "job", &stats), SHALE_OK);
    ck_assert_uint_eq(stats.acquisitions, 1);
    memset(&stats, 0x5a, sizeof stats);
    stats.size = offsetof(shale_lock_stats, waits); /* an older caller's struct */
    ck_assert_int_eq(shale_lockq_stat(q, "job", &stats), SHALE_OK);
    ck_assert_uint_eq(stats.acquisitions, 1);
    ck_assert_uint_eq(stats.waits, UINT64_C(0x5a5a5a5a5a5a5a5a));
    ck_assert_int_eq(shale_lockq_release(job), SHALE_OK);
    ck_assert_int_eq(shale_lockq_release(write_lock), SHALE_OK);
    shale_lockq_close(q);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        a_lent_lock_is_found_by_its_descriptor,
        a_lock_that_another_holds_is_not_lent_and_a_shared_one_is_a_freeze,
        an_entry_that_cannot_be_is_an_error,
        a_thread_that_holds_a_lock_is_told_so_and_others_wait,
        the_write_lock_is_known_to_be_held_by_this_thread,
        an_ancestor_that_holds_the_lock_is_not_waited_for,
        a_lock_on_the_callers_descriptor_lives_with_that_descriptor,
        bad_arguments_are_refused,
        holders_and_waiters_are_listed_in_order,
        NULL,
    };
    return run_suite("lockq_api", tests);
}
