/* lockq_side.h - tests of the lock queue inside one process: two handles of one process are as good as two
 * processes, their locks lie in different open files. What needs real processes is in
 * tests/multi/test_lockq_multi.c. */
#ifndef TESTS_LOCKQ_SIDE_H
#define TESTS_LOCKQ_SIDE_H

#include "lockq/waiter.h"
#include "tempdir.h"

#include <check.h>

#define MS INT64_C(1000000)

static char path[TEMPDIR_MAX];
static int dir = -1;

/* One handle, as the database has it: a queue, an open file of LOCK, the write lock. */
struct side {
    struct lockq *q;
    int fd;
    struct lockq_lock lock;
    struct lockq_claim claim;
};

static inline int open_lock_file(void)
{
    int fd = -1;
    ck_assert_int_eq(os_open(dir, "LOCK", O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    return fd;
}

static inline void side_open_named(struct side *s, const char *name)
{
    *s = (struct side){.fd = open_lock_file()};
    ck_assert_int_eq(lockq_open(dir, path, 0600, &s->q), SHALE_OK);
    uint64_t owner = 1;
    os_random(&owner, sizeof owner);
    s->lock =
        (struct lockq_lock){.slot = lockq_slot(s->q, name),
                            .name = name,
                            .fd = s->fd,
                            .start = name == NULL ? OS_BYTE_WRITE : lockq_named_byte(name, strlen(name)),
                            .length = name == NULL ? 2 : 1,
                            .exclusive = true,
                            .owner = owner | 1};
}

static inline void side_open(struct side *s)
{
    side_open_named(s, NULL);
}

static inline void side_close(struct side *s)
{
    lockq_close(s->q);
    os_close(&s->fd);
}

static inline int take(struct side *s, enum lockq_how how, int64_t ms)
{
    struct os_wait wait = os_wait_ms(ms, NULL);
    return lockq_take(s->q, &s->lock, how, &wait, &s->claim);
}

static inline void give(struct side *s)
{
    lockq_free(s->q, &s->lock, &s->claim);
}

static inline uint64_t next_of(const struct side *s)
{
    return atomic_load(&s->lock.slot->next);
}

/* A waiter that only stands in the queue. */
static inline struct lockq_ticket *stand(struct side *s, uint64_t *number)
{
    struct lockq_ticket *t = NULL;
    *number = atomic_fetch_add(&s->lock.slot->next, 1) + 1;
    ck_assert_int_eq(lockq_ticket_take(s->q, lockq_slot_index(s->q, s->lock.slot), *number, &t), SHALE_OK);
    return t;
}

static inline void leave(struct side *s, struct lockq_ticket *t, uint64_t number)
{
    lockq_ticket_free(s->q, lockq_slot_index(s->q, s->lock.slot), number, t);
}

static uint64_t calls[OS_OP_COUNT];
static int fail_op = -1, fail_errno;
static int64_t fail_after;

static inline int count_calls(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    calls[op]++;
    return (int)op == fail_op && fail_after-- <= 0 ? fail_errno : 0;
}

static inline void setup(void)
{
    tempdir_make(path);
    ck_assert_int_eq(os_open_dir(path, &dir), SHALE_OK);
    fail_op = -1;
}

static inline void teardown(void)
{
    os_door_hook = NULL;
    os_close(&dir);
    ck_assert_uint_eq(os_open_files(), 0);
    ck_assert_uint_eq(os_mapped_bytes(), 0);
    tempdir_remove(path);
    (void)unsetenv("SHALE_LOCK_FD");
    (void)unsetenv("LOCKD_HELD");
}

static inline bool is_free(struct side *s)
{
    bool taken = true;
    ck_assert_int_eq(os_lock_test(s->fd, s->lock.start, s->lock.length, true, &taken), SHALE_OK);
    return !taken;
}

#define assert_told(what)                                                                                    \
    ck_assert_msg(strstr(shale_errmsg(), what) != NULL, "\"%s\" does not say %s", shale_errmsg(), what)

static inline void garble(const char *name, uint64_t offset, size_t size)
{
    char where[64];
    unsigned char noise[4096];
    int fd = -1;
    (void)snprintf(where, sizeof where, "queue/%s", name);
    ck_assert_int_eq(os_open(dir, where, O_RDWR, 0, &fd), SHALE_OK);
    for (size_t done = 0; done < size; done += sizeof noise) {
        os_random(noise, sizeof noise);
        size_t n = size - done < sizeof noise ? size - done : sizeof noise;
        ck_assert_int_eq(os_pwrite(fd, noise, n, offset + done), SHALE_OK);
    }
    os_close(&fd);
}

static inline int run_suite(const char *name, const TTest *const *tests)
{
    char root[TEMPDIR_MAX];
    tempdir_root(root);
    (void)unsetenv("SHALE_LOCK_FD");
    Suite *s = suite_create(name);
    TCase *c = tcase_create(name);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    for (; *tests != NULL; tests++) {
        tcase_add_test(c, *tests);
    }
    suite_add_tcase(s, c);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int bad = srunner_ntests_failed(runner);
    srunner_free(runner);
    tempdir_remove(root);
    return bad == 0 ? 0 : 1;
}

#endif
