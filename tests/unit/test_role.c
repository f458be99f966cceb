/* test_role.c - role locks: between handles, between threads that share one, between processes; and the audit
 * that watches them in debug builds. */
#include "lock_agent.h"

#include <sys/resource.h>

static struct os_roles roles;

static void setup_roles(void)
{
    setup();
    ck_assert_int_eq(os_roles_init(&roles, lock_a), SHALE_OK);
    lock_a = -1;
}

static void teardown_roles(void)
{
    os_audit_clean("the end of the test");
    os_roles_release(&roles);
    teardown();
}

static struct os_wait ms(int64_t n)
{
    return os_wait_ms(n, NULL);
}

START_TEST(a_role_is_its_bytes_and_no_others)
{
    static const struct {
        uint64_t first, bytes;
    } rows[] = {
#define X(name, first, bytes, rank, text) {first, bytes},
        OS_ROLES(X)
#undef X
    };
    struct os_wait wait = ms(-1);
    for (unsigned i = 0; i < OS_ROLE_COUNT; i++) {
        ck_assert_int_eq(os_role_lock(&roles, (enum os_role)i, &wait, NULL), SHALE_OK);
        os_audit_held((enum os_role)i);
        for (uint64_t byte = 0; byte < 32; byte++) {
            bool inside = byte >= rows[i].first && byte < rows[i].first + rows[i].bytes;
            ck_assert_int_eq(taken(lock_b, byte, 1, false), inside);
        }
        os_role_unlock(&roles, (enum os_role)i);
        ck_assert(!taken(lock_b, 0, 0, true));
    }
    ck_assert_str_eq(os_role_name(OS_ROLE_MANIFEST), "MANIFEST");
}
END_TEST

struct contest {
    unsigned rounds;
    uint64_t counter; /* no atomic: the role guards it, and a thread sanitizer watches */
};

static void *contend(void *ctx)
{
    struct contest *c = ctx;
    for (unsigned i = 0; i < c->rounds; i++) {
        struct os_wait wait = ms(-1);
        if (i % 3 == 0) {
            while (os_role_try(&roles, OS_ROLE_MANIFEST) == SHALE_BUSY) {
                os_yield();
            }
        } else if (os_role_lock(&roles, OS_ROLE_MANIFEST, &wait, NULL) != SHALE_OK) {
            return ctx;
        }
        c->counter++;
        os_nap(i % 8 == 0 ? 20000 : 0); /* so that the others meet a taken mutex */
        os_role_unlock(&roles, OS_ROLE_MANIFEST);
    }
    return NULL;
}

START_TEST(threads_that_share_an_open_file_exclude_each_other)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    struct contest c = {400, 0};
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(os_thread_start(&threads[i], contend, &c, "contender-with-a-long-name"), SHALE_OK);
    }
    for (int i = 0; i < THREADS; i++) {
        os_thread_join(threads[i]);
    }
    ck_assert_uint_eq(c.counter, THREADS * c.rounds);
}
END_TEST

START_TEST(a_role_is_not_had_twice_and_says_so)
{
    struct os_roles other;
    struct os_wait wait = ms(5), once = ms(0);
    _Atomic uint32_t word = 0;
    ck_assert_int_eq(os_roles_init(&other, lock_b), SHALE_OK);
    lock_b = -1;
    ck_assert_int_eq(os_role_try(&roles, OS_ROLE_FLUSH), SHALE_OK);
    err_clear();
    ck_assert_int_eq(os_role_try(&other, OS_ROLE_FLUSH), SHALE_BUSY);
    ck_assert_int_eq(os_role_try(&roles, OS_ROLE_FLUSH), SHALE_BUSY);
    ck_assert_str_eq(shale_errmsg(), "");
    os_role_unlock(&roles, OS_ROLE_FLUSH);
    ck_assert_int_eq(os_role_try(&other, OS_ROLE_FLUSH), SHALE_OK);
    os_role_unlock(&other, OS_ROLE_FLUSH);
    int fd = open_lock();
    ck_assert_int_eq(os_lock_try(fd, 5, 1, true), SHALE_OK);
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_FLUSH, &wait, NULL), SHALE_BUSY);
    ck_assert_ptr_nonnull(strstr(shale_errmsg(), "FLUSH"));
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_FLUSH, &wait, &word), SHALE_BUSY);
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_FLUSH, &once, NULL), SHALE_BUSY);
    os_close(&fd);
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_FLUSH, &once, NULL), SHALE_OK); /* nothing was kept */
    os_role_unlock(&roles, OS_ROLE_FLUSH);
    os_roles_release(&other);
}
END_TEST

START_TEST(a_role_falls_to_the_next_when_its_holder_is_killed)
{
    struct agent a;
    struct os_wait wait = ms(20000);
    agent_start(&a);
    ck_assert_int_eq(os_role_try(&roles, OS_ROLE_FLUSH), SHALE_OK);
    agent_tell(&a, 'w');
    os_role_unlock(&roles, OS_ROLE_FLUSH);
    ck_assert_int_eq(agent_answer(&a), '+');
    ck_assert_int_eq(os_role_try(&roles, OS_ROLE_FLUSH), SHALE_BUSY);
    agent_end(&a, SIGKILL);
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_FLUSH, &wait, NULL), SHALE_OK);
    os_role_unlock(&roles, OS_ROLE_FLUSH);
}
END_TEST

static void *claim_write(void *ctx)
{
    struct os_wait wait = ms(10);
    int *rc = ctx;
    *rc = os_role_claim(&roles, OS_ROLE_WRITE, &wait);
    return NULL;
}

START_TEST(a_claim_is_the_mutex_alone)
{
    pthread_t thread;
    int rc = SHALE_OK;
    struct os_wait wait = ms(0);
    ck_assert_int_eq(os_role_claim(&roles, OS_ROLE_WRITE, &wait), SHALE_OK);
    ck_assert(!taken(lock_b, 0, 0, true));
    ck_assert_int_eq(os_thread_start(&thread, claim_write, &rc, "other"), SHALE_OK);
    os_thread_join(thread);
    ck_assert_int_eq(rc, SHALE_BUSY);
    os_role_unclaim(&roles, OS_ROLE_WRITE);
}
END_TEST

START_TEST(compactions_of_disjoint_levels_go_side_by_side)
{
    struct os_roles other;
    ck_assert_int_eq(os_roles_init(&other, lock_b), SHALE_OK);
    lock_b = -1;
    ck_assert_int_eq(os_compact_try(&roles, 2, 3), SHALE_OK);
    ck_assert_int_eq(os_compact_try(&other, 3, 4), SHALE_BUSY);
    ck_assert_int_eq(os_compact_try(&roles, 1, 2),
                     SHALE_BUSY); /* the same open file: the kernel would say yes */
    ck_assert_int_eq(os_compact_try(&other, 0, 1), SHALE_OK);
    ck_assert_int_eq(os_compact_try(&roles, 4, 5), SHALE_OK);
    os_compact_unlock(&roles, 2, 3);
    ck_assert_int_eq(os_compact_try(&other, 2, 3), SHALE_OK);
    ck_assert_int_eq(os_compact_try(&roles, 0, 7), SHALE_BUSY);
    os_compact_unlock(&other, 2, 3);
    os_compact_unlock(&other, 0, 1);
    os_compact_unlock(&roles, 4, 5);
    ck_assert_int_eq(os_compact_try(&roles, 0, 7), SHALE_OK);
    ck_assert_int_eq(os_compact_try(&other, 6, 7), SHALE_BUSY);
    os_compact_unlock(&roles, 0, 7);
    ck_assert_int_eq(os_compact_try(&roles, 3, 2), SHALE_INVALID);
    ck_assert_int_eq(os_compact_try(&roles, 7, 8), SHALE_INVALID);
    os_roles_release(&other);
}
END_TEST

/* ---- the audit ---- */

static struct os_wait no_wait;

static void do_wait_backwards(void)
{
    (void)os_role_lock(&roles, OS_ROLE_SYNC, &no_wait, NULL);
    (void)os_role_lock(&roles, OS_ROLE_FLUSH, &no_wait, NULL);
}
static void do_wait_for_the_same(void)
{
    struct os_roles other;
    (void)os_roles_init(&other, lock_b);
    (void)os_role_lock(&roles, OS_ROLE_SYNC, &no_wait, NULL);
    (void)os_role_lock(&other, OS_ROLE_SYNC, &no_wait, NULL);
}
static void do_wait_for_write(void)
{
    (void)os_role_try(&roles, OS_ROLE_PREPARE);
    (void)os_role_claim(&roles, OS_ROLE_WRITE, &no_wait);
}
static void do_wait_under_write(void)
{
    (void)os_role_lock(&roles, OS_ROLE_WRITE, &no_wait, NULL);
    (void)os_role_lock(&roles, OS_ROLE_MANIFEST, &no_wait, NULL);
}
static void do_sync_under_write(void)
{
    (void)os_role_lock(&roles, OS_ROLE_WRITE, &no_wait, NULL);
    (void)os_fdatasync(lock_b);
}
static void do_sleep_under_claimed_bytes(void)
{
    (void)os_role_claim(&roles, OS_ROLE_NESTED, &no_wait);
    (void)os_lock_try(roles.fd, OS_BYTE_NESTED, 1, true); /* as the lock queue does */
    os_nap(1);
}
static void do_unlock_twice(void)
{
    (void)os_role_try(&roles, OS_ROLE_FLUSH);
    os_role_unlock(&roles, OS_ROLE_FLUSH);
    os_role_unlock(&roles, OS_ROLE_FLUSH);
}
static void do_leave_behind(void)
{
    (void)os_compact_try(&roles, 1, 2);
    os_audit_clean("the end of a call");
}
static void do_assert_held(void)
{
    (void)os_role_claim(&roles, OS_ROLE_WRITE, &no_wait); /* the mutex is not enough */
    os_audit_held(OS_ROLE_WRITE);
}

static void (*const violations[])(void) = {
    do_wait_backwards,   do_wait_for_the_same, do_wait_for_write,
    do_wait_under_write, do_sync_under_write,  do_sleep_under_claimed_bytes,
    do_unlock_twice,     do_leave_behind,      do_assert_held};

START_TEST(h35_the_audit_aborts_on_every_violation)
{
    int status;
    no_wait = ms(0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(2); /* the list of locks is for people */
        violations[_i]();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGABRT);
}
END_TEST

START_TEST(the_audit_lets_the_protocols_pass)
{
    struct os_wait wait = ms(-1);
    static const enum os_role in_order[] = {OS_ROLE_OPEN, OS_ROLE_FLUSH, OS_ROLE_MANIFEST, OS_ROLE_SYNC};
    ck_assert_int_eq(os_compact_try(&roles, 0, 7), SHALE_OK);
    for (size_t i = 0; i < BASE_COUNT(in_order); i++) {
        ck_assert_int_eq(os_role_lock(&roles, in_order[i], &wait, NULL), SHALE_OK);
    }
    ck_assert_int_eq(os_fdatasync(lock_b), SHALE_OK);
    for (size_t i = 0; i < BASE_COUNT(in_order); i++) {
        os_role_unlock(&roles, in_order[i]);
    }
    os_compact_unlock(&roles, 0, 7);
    ck_assert_int_eq(os_role_claim(&roles, OS_ROLE_WRITE, &wait), SHALE_OK);
    os_nap(1000); /* in the queue, with the mutex alone */
    ck_assert_int_eq(os_lock_try(roles.fd, OS_BYTE_WRITE, 2, true), SHALE_OK);
    os_audit_held(OS_ROLE_WRITE);
    ck_assert_int_eq(os_unlock(roles.fd, OS_BYTE_WRITE, 2), SHALE_OK);
    os_nap(1000);
    os_role_unclaim(&roles, OS_ROLE_WRITE);
    os_audit_clean("end");
}
END_TEST

START_TEST(a_transaction_keeps_the_write_lock_between_calls)
{
    struct os_wait wait = ms(-1);
    ck_assert_int_eq(os_role_lock(&roles, OS_ROLE_WRITE, &wait, NULL), SHALE_OK);
    os_audit_exempt(1);
    os_audit_clean("begin");
    os_audit_held(OS_ROLE_WRITE);
    os_nap(1000);
    os_audit_exempt(-1);
    os_role_unlock(&roles, OS_ROLE_WRITE);
}
END_TEST

static Suite *role_suite(void)
{
    Suite *suite = suite_create("role");
    TCase *role = tcase_create("roles");
    suite_add_tcase(suite, role);
    tcase_add_checked_fixture(role, setup_roles, teardown_roles);
    tcase_set_timeout(role, 60);
    tcase_add_test(role, a_role_is_its_bytes_and_no_others);
    tcase_add_test(role, threads_that_share_an_open_file_exclude_each_other);
    tcase_add_test(role, a_role_is_not_had_twice_and_says_so);
    tcase_add_test(role, a_role_falls_to_the_next_when_its_holder_is_killed);
    tcase_add_test(role, a_claim_is_the_mutex_alone);
    tcase_add_test(role, compactions_of_disjoint_levels_go_side_by_side);
    tcase_add_loop_test(role, h35_the_audit_aborts_on_every_violation, 0, (int)BASE_COUNT(violations));
    tcase_add_test(role, the_audit_lets_the_protocols_pass);
    tcase_add_test(role, a_transaction_keeps_the_write_lock_between_calls);
    return suite;
}

int main(int argc, char **argv)
{
    return lock_test_main(argc, argv, role_suite);
}
