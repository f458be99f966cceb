/* test_lock.c - byte-range locks, waits and wakes, identity and threads: between open files, threads and
 * processes. */
#include "lock_agent.h"

#include <sys/time.h>

/* ---- byte ranges ---- */

START_TEST(two_open_files_exclude_each_other)
{
    ck_assert_int_eq(os_lock_try(lock_a, 10, 2, true), SHALE_OK);
    err_clear();
    ck_assert_int_eq(os_lock_try(lock_b, 11, 1, true), SHALE_BUSY);
    ck_assert_int_eq(os_lock_try(lock_b, 11, 1, false), SHALE_BUSY);
    ck_assert_str_eq(shale_errmsg(), "");
    ck_assert_int_eq(os_lock_try(lock_b, 12, 1, true), SHALE_OK);
    ck_assert(taken(lock_b, 0, 100, true));
    ck_assert(!taken(lock_a, 10, 2, true)); /* never its own */
    ck_assert_int_eq(os_unlock(lock_a, 10, 1), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_b, 10, 1, true), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_b, 11, 1, true), SHALE_BUSY);
}
END_TEST

START_TEST(shared_locks_share_and_convert)
{
    ck_assert_int_eq(os_lock_try(lock_a, 0, 1, false), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_b, 0, 1, false), SHALE_OK);
    ck_assert(taken(lock_a, 0, 1, true) && !taken(lock_a, 0, 1, false));
    ck_assert_int_eq(os_lock_try(lock_a, 0, 1, true), SHALE_BUSY);
    ck_assert_int_eq(os_unlock(lock_b, 0, 1), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_a, 0, 1, true), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_a, 0, 1, false), SHALE_OK);
    ck_assert_int_eq(os_lock_try(lock_b, 0, 1, false), SHALE_OK);
}
END_TEST

START_TEST(h5_a_stray_open_and_close_drops_nothing)
{
    ck_assert_int_eq(os_lock_try(lock_a, 0, 1, true), SHALE_OK);
    int stray = open_lock();
    os_close(&stray);
    ck_assert(taken(lock_b, 0, 1, true));
    os_close(&lock_a);
    ck_assert(!taken(lock_b, 0, 1, true));
}
END_TEST

START_TEST(bytes_far_out_can_be_locked)
{
    uint64_t far = (UINT64_C(1) << 62) + 12345;
    ck_assert_int_eq(os_lock_try(lock_a, far, 1, true), SHALE_OK);
    ck_assert(taken(lock_b, far, 1, false));
    ck_assert(!taken(lock_b, far + 1, 1, true));
}
END_TEST

START_TEST(a_killed_process_releases_its_locks)
{
    struct agent a;
    agent_start(&a);
    ck_assert_int_eq(agent_ask(&a, 'x'), '+');
    ck_assert(taken(lock_a, 6, 1, false));
    ck_assert_int_eq(os_lock_try(lock_a, 5, 1, true), SHALE_BUSY);
    agent_end(&a, SIGKILL);
    ck_assert_int_eq(os_lock_try(lock_a, 5, 2, true), SHALE_OK);
}
END_TEST

START_TEST(processes_share_and_exclude)
{
    struct agent a, b;
    agent_start(&a);
    agent_start(&b);
    ck_assert_int_eq(agent_ask(&a, 's'), '+');
    ck_assert_int_eq(agent_ask(&b, 's'), '+');
    ck_assert_int_eq(agent_ask(&b, 'x'), '-');
    ck_assert_int_eq(agent_ask(&a, 'u'), '+');
    ck_assert_int_eq(agent_ask(&b, 'x'), '+');
    ck_assert_int_eq(agent_ask(&a, 's'), '-');
    agent_end(&a, 0);
    agent_end(&b, 0);
}
END_TEST

/* ---- waits ---- */

static _Atomic uint32_t interrupts;

START_TEST(a_deadline_ends_a_sleep)
{
    _Atomic uint32_t word = 3;
    for (int with_word = 0; with_word < 2; with_word++) {
        struct os_wait patient = os_wait_ms(60000, &interrupts);
        int64_t start = os_now();
        ck_assert_int_eq(os_sleep(&patient, with_word ? &word : NULL, 3, 10 * MS), SHALE_OK);
        ck_assert_int_ge(os_now() - start, 10 * MS);
        start = os_now();
        struct os_wait wait = os_wait_ms(30, &interrupts);
        ck_assert_int_eq(os_sleep(&wait, with_word ? &word : NULL, 3, 60000 * MS), SHALE_BUSY);
        ck_assert_int_ge(os_now() - start, 30 * MS);
    }
    struct os_wait once = os_wait_ms(0, NULL);
    ck_assert_int_eq(os_sleep(&once, &word, 3, OS_NEVER), SHALE_BUSY);
    struct os_wait forever = os_wait_ms(-1, NULL);
    ck_assert_int_eq(forever.deadline, OS_NEVER);
    ck_assert_int_eq(os_wait_ms(INT64_MAX, NULL).deadline, OS_NEVER);
    ck_assert_int_eq(os_sleep(&forever, &word, 4, OS_NEVER), SHALE_OK); /* it changed before */
    ck_assert_int_eq(os_sleep(&forever, &word, 3, 0), SHALE_OK);
}
END_TEST

static void interrupt(int number)
{
    (void)number;
    atomic_fetch_add(&interrupts, 1);
}

static void alarm_in(int64_t ns, int64_t again, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    struct itimerval timer = {{0, again / 1000}, {0, ns / 1000}};
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

START_TEST(an_interrupt_ends_every_wait)
{
    _Atomic uint32_t word = 0;
    struct os_roles waiter;
    ck_assert_int_eq(os_roles_init(&waiter, lock_b), SHALE_OK);
    lock_b = -1;
    ck_assert_int_eq(os_lock_try(lock_a, 4, 1, true), SHALE_OK);
    for (int how = 0; how < 4; how++) {
        struct os_wait wait = os_wait_ms(-1, &interrupts);
        alarm_in(20 * MS, 0, interrupt);
        int rc = how == 0   ? os_sleep(&wait, &word, 0, OS_NEVER)
                 : how == 1 ? os_sleep(&wait, NULL, 0, OS_NEVER)
                 : how == 2 ? os_role_lock(&waiter, OS_ROLE_SYNC, &wait, NULL)
                            : os_role_lock(&waiter, OS_ROLE_SYNC, &wait, &word);
        ck_assert_int_eq(rc, SHALE_CANCELLED);
    }
    os_audit_clean("end");
    os_roles_release(&waiter);
}
END_TEST

static void *interrupt_later(void *ctx)
{
    os_nap(20 * MS);
    atomic_fetch_add(&interrupts, 1); /* wakes nobody: the sleeper has to look */
    return ctx;
}

START_TEST(an_interrupt_by_another_thread_is_noticed)
{
    _Atomic uint32_t word = 0;
    pthread_t thread;
    struct os_wait wait = os_wait_ms(-1, &interrupts);
    int64_t start = os_now();
    ck_assert_int_eq(os_thread_start(&thread, interrupt_later, NULL, "interrupter"), SHALE_OK);
    ck_assert_int_eq(os_sleep(&wait, &word, 0, 20000 * MS), SHALE_CANCELLED);
    ck_assert_int_lt(os_now() - start, 19000 * MS); /* not by its own bound of 20 s */
    os_thread_join(thread);
}
END_TEST

static void ignore(int number)
{
    (void)number;
}

START_TEST(h36_signals_do_not_end_a_wait)
{
    _Atomic uint32_t word = 0;
    alarm_in(MS, MS, ignore);
    for (int with_word = 0; with_word < 2; with_word++) {
        struct os_wait wait = os_wait_ms(-1, &interrupts);
        int64_t start = os_now();
        ck_assert_int_eq(os_sleep(&wait, with_word ? &word : NULL, 0, 40 * MS), SHALE_OK);
        ck_assert_int_ge(os_now() - start, 40 * MS);
    }
    alarm_in(0, 0, ignore);
}
END_TEST

START_TEST(a_wake_reaches_another_process)
{
    struct agent a;
    void *map;
    int words = -1;
    ck_assert_int_eq(os_open(dir, "words", O_RDWR | O_CREAT, 0600, &words), SHALE_OK);
    ck_assert_int_eq(os_allocate(words, 0, 4096), SHALE_OK);
    ck_assert_int_eq(os_map(words, 4096, true, &map), SHALE_OK);
    _Atomic uint32_t *word = map;
    agent_start(&a);
    agent_tell(&a, 'z');
    while (atomic_load(word + 1) == 0) {
        os_yield();
    }
    int64_t start = os_now();
    os_wake_all(word);
    ck_assert_int_eq(agent_answer(&a), '+');
    ck_assert_int_lt(os_now() - start, 19000 * MS); /* not by its own bound of 20 s */
    ck_assert_uint_eq(atomic_load(word), 1);
    agent_end(&a, 0);
    os_unmap(map, 4096);
    os_close(&words);
}
END_TEST

/* ---- identity and threads ---- */

START_TEST(we_know_who_we_are)
{
    const struct os_identity *me = os_self();
    ck_assert_int_eq(me->pid, getpid());
    ck_assert_ptr_eq(os_self(), me);
    ck_assert_uint_ne(me->start_time, 0);
    ck_assert_uint_ne(me->pid_ns, 0);
    ck_assert_int_eq(strncmp(me->program, program_invocation_short_name, 15), 0);
    unsigned char boot[16], again[16], zero[16] = {0};
    os_boot_id(boot), os_boot_id(again);
    ck_assert_mem_eq(boot, again, 16);
    ck_assert_mem_ne(boot, zero, 16);
    uint64_t a = 0, b = 0;
    os_random(&a, sizeof a), os_random(&b, sizeof b);
    ck_assert_uint_ne(a, b);
    ck_assert_uint_ge(os_cpus(), 1);
    ck_assert_uint_eq(os_page_size() & (os_page_size() - 1), 0);
    ck_assert_uint_gt(os_wall(), UINT64_C(1600000000) * 1000000000);
}
END_TEST

START_TEST(a_forked_child_has_an_identity_of_its_own)
{
    int status;
    const struct os_identity *parent = os_self();
    pid_t child = fork();
    if (child == 0) {
        _exit(os_self()->pid == getpid() && parent->pid == getppid() ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

START_TEST(a_stopped_process_is_seen_as_such)
{
    struct agent a;
    int status;
    uint64_t ns = os_self()->pid_ns;
    agent_start(&a);
    ck_assert_int_eq(agent_ask(&a, 'x'), '+');
    ck_assert(!os_is_stopped(a.pid, ns, 0));
    ck_assert_int_eq(kill(a.pid, SIGSTOP), 0);
    ck_assert_int_eq(waitpid(a.pid, &status, WUNTRACED), a.pid);
    ck_assert(os_is_stopped(a.pid, ns, 0));
    ck_assert(!os_is_stopped(a.pid, ns, 1)); /* another process that had the number once */
    ck_assert(!os_is_stopped(a.pid, ns + 1, 0));
    ck_assert(!os_is_stopped(-1, ns, 0));
    ck_assert(!os_has_ended(a.pid, ns, 0));
    ck_assert(os_has_ended(a.pid, ns, 1));
    ck_assert(!os_has_ended(a.pid, ns + 1, 1)); /* another namespace's number */
    agent_end(&a, SIGKILL);
    ck_assert(!os_is_stopped(a.pid, ns, 0));
    ck_assert(os_has_ended(a.pid, ns, 0));
    ck_assert(!os_has_ended(INT64_C(1) << 40, ns, 0));
}
END_TEST

static void *look_at_signals(void *ctx)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, ctx);
    return NULL;
}

START_TEST(our_threads_take_no_signals)
{
    pthread_t thread;
    sigset_t theirs, before, after;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    ck_assert_int_eq(os_thread_start(&thread, look_at_signals, &theirs, "t"), SHALE_OK);
    os_thread_join(thread);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    ck_assert(sigismember(&theirs, SIGTERM) == 1 && sigismember(&theirs, SIGALRM) == 1);
    ck_assert(sigismember(&theirs, SIGSEGV) == 0);
    ck_assert_int_eq(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}
END_TEST

static Suite *lock_suite(void)
{
    Suite *suite = suite_create("lock");
    TCase *bytes = tcase_create("bytes and waits"), *who = tcase_create("identity");
    suite_add_tcase(suite, bytes);
    suite_add_tcase(suite, who);
    tcase_add_checked_fixture(bytes, setup, teardown);
    tcase_add_checked_fixture(who, setup, teardown);
    tcase_set_timeout(bytes, 60);
    tcase_set_timeout(who, 60);
    tcase_add_test(bytes, two_open_files_exclude_each_other);
    tcase_add_test(bytes, shared_locks_share_and_convert);
    tcase_add_test(bytes, h5_a_stray_open_and_close_drops_nothing);
    tcase_add_test(bytes, bytes_far_out_can_be_locked);
    tcase_add_test(bytes, a_killed_process_releases_its_locks);
    tcase_add_test(bytes, processes_share_and_exclude);
    tcase_add_test(bytes, a_deadline_ends_a_sleep);
    tcase_add_test(bytes, an_interrupt_ends_every_wait);
    tcase_add_test(bytes, an_interrupt_by_another_thread_is_noticed);
    tcase_add_test(bytes, h36_signals_do_not_end_a_wait);
    tcase_add_test(bytes, a_wake_reaches_another_process);
    tcase_add_test(who, we_know_who_we_are);
    tcase_add_test(who, a_forked_child_has_an_identity_of_its_own);
    tcase_add_test(who, a_stopped_process_is_seen_as_such);
    tcase_add_test(who, our_threads_take_no_signals);
    return suite;
}

int main(int argc, char **argv)
{
    return lock_test_main(argc, argv, lock_suite);
}
