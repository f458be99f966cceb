/* test_lockq.c - the rules of the lock queue: order, tickets, stopped waiters, turns, sharing. */
#include "lockq_side.h"

#include <sys/syscall.h>
#include <unistd.h>

/* ---- the short way ---- */

START_TEST(an_uncontended_lock_is_two_system_calls)
{
    struct side a;
    side_open(&a);
    a.lock.turn_ns = 250000;
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    give(&a);
    memset(calls, 0, sizeof calls);
    os_door_hook = count_calls;
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    give(&a);
    os_door_hook = NULL;
    uint64_t all = 0;
    for (int i = 0; i < OS_OP_COUNT; i++) {
        all += calls[i];
    }
    ck_assert_uint_eq(calls[OS_OP_LOCK], 1);
    ck_assert_uint_eq(calls[OS_OP_UNLOCK], 1);
    ck_assert_uint_eq(all, 2);
    side_close(&a);
}
END_TEST

START_TEST(a_held_lock_is_busy_and_its_holder_is_named)
{
    struct side a, b;
    char pid[32];
    side_open(&a), side_open(&b);
    a.lock.label = "nightly";
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
    (void)snprintf(pid, sizeof pid, "(pid %d)", (int)getpid());
    assert_told("busy: the write lock is held by ");
    assert_told(os_self()->program);
    assert_told(pid);
    assert_told("label \"nightly\"");
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 0), SHALE_BUSY);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 5), SHALE_BUSY);
    ck_assert_int_eq(take(&b, LOCKQ_BACKOFF, 5), SHALE_BUSY);
    give(&a);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_OK);
    give(&b);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(a_turn_that_nobody_takes_over_is_overdue)
{
    struct side a;
    side_open(&a);
    struct lockq_slot *slot = a.lock.slot;
    uint64_t now = (uint64_t)os_now();
    atomic_store(&slot->turn_end, now - 1000000);
    ck_assert(!lockq_overdue(&a.lock)); /* nobody waits */
    uint64_t next = atomic_fetch_add(&slot->next, 1);
    ck_assert(lockq_overdue(&a.lock));
    atomic_store(&slot->turn_end, now + 1000000000);
    ck_assert(!lockq_overdue(&a.lock)); /* the turn lasts */
    atomic_store(&slot->turn_end, 0);
    ck_assert(!lockq_overdue(&a.lock)); /* there is none */
    atomic_store(&slot->turn_end, now + UINT64_C(5000000000000));
    ck_assert(!lockq_overdue(&a.lock)); /* another one's clock */
    atomic_store(&slot->next, next);
    side_close(&a);
}
END_TEST

static struct side *freed_side;

static int free_before_the_look(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    if (op == OS_OP_TESTLOCK && freed_side != NULL) {
        struct side *s = freed_side;
        freed_side = NULL;
        give(s);
    }
    return 0;
}

START_TEST(a_holder_that_has_just_gone_is_named_too)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    a.lock.label = "nightly";
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    freed_side = &a;
    os_door_hook = free_before_the_look;
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
    ck_assert_ptr_null(freed_side);
    assert_told("busy: the write lock was freed just now by ");
    assert_told("label \"nightly\"");
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(a_label_is_cut_between_characters_and_control_characters_do_not_reach_the_terminal)
{
    struct side a, b;
    char label[200] = "\033[2J";
    side_open(&a), side_open(&b);
    for (size_t i = strlen(label); i + 3 < sizeof label; i += 2) {
        memcpy(label + i, "\xc3\xa9", 3);
    }
    a.lock.label = label;
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
    assert_told("?[2J\xc3\xa9");
    assert_told("\xc3\xa9\""); /* whole to the last */
    ck_assert_ptr_null(strchr(shale_errmsg(), '\033'));
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(fencing_numbers_grow_with_every_acquisition_and_over_a_lost_file)
{
    struct side a, b;
    uint64_t last = 0;
    side_open(&a), side_open(&b);
    for (int i = 0; i < 20; i++) {
        struct side *s = i % 3 == 0 ? &a : &b;
        ck_assert_int_eq(take(s, LOCKQ_QUEUE, -1), SHALE_OK);
        ck_assert_uint_gt(s->claim.number, last);
        last = s->claim.number;
        give(s);
    }
    ck_assert_int_eq(os_unlink(a.q->queue_dir, a.q->queue_name), SHALE_OK);
    side_close(&b);
    side_open(&b);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_uint_gt(b.claim.number, last);
    give(&b);
    side_close(&a), side_close(&b);
}
END_TEST

/* ---- tickets ---- */

START_TEST(a_newcomer_never_passes_a_live_ticket)
{
    struct side a, b;
    uint64_t n;
    side_open(&a), side_open(&b);
    struct lockq_ticket *t = stand(&a, &n);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
    assert_told("is waited for by others");
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 0), SHALE_BUSY);
    ck_assert_int_eq(take(&b, LOCKQ_BACKOFF, 20), SHALE_BUSY); /* before anybody counts as stopped */
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 20), SHALE_BUSY);
    leave(&a, t, n);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_OK);
    give(&b);
    side_close(&a), side_close(&b);
}
END_TEST

/* [I-6] */
START_TEST(a_number_without_its_ticket_stands_for_nobody)
{
    struct side a;
    static const enum lockq_how hows[] = {LOCKQ_ONCE, LOCKQ_BACKOFF, LOCKQ_QUEUE};
    side_open(&a);
    for (size_t i = 0; i < BASE_COUNT(hows); i++) {
        atomic_fetch_add(&a.lock.slot->next, 3);
        ck_assert_int_eq(take(&a, hows[i], 5000), SHALE_OK);
        give(&a);
        ck_assert_uint_eq(atomic_load(&a.lock.slot->served), next_of(&a)); /* the short way is open again */
    }
    ck_assert_uint_ge(a.lock.slot->reaped, 3);
    side_close(&a);
}
END_TEST

START_TEST(a_waiter_that_gives_up_leaves_no_ticket)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    int64_t began = os_now();
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 30), SHALE_BUSY);
    ck_assert_int_ge(os_now() - began, 30 * MS);
    ck_assert(!lockq_ticket_alive(a.q, 0, 1, next_of(&a)));
    ck_assert_uint_ge(a.lock.slot->timeouts, 1);
    give(&a);
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_OK);
    give(&b);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(an_interrupt_ends_the_wait)
{
    struct side a, b;
    _Atomic uint32_t interrupts = 0;
    side_open(&a), side_open(&b);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    static const enum lockq_how hows[] = {LOCKQ_BACKOFF, LOCKQ_QUEUE};
    for (size_t i = 0; i < BASE_COUNT(hows); i++) {
        struct os_wait wait = os_wait_ms(-1, &interrupts);
        atomic_fetch_add(&interrupts, 1);
        ck_assert_int_eq(lockq_take(b.q, &b.lock, hows[i], &wait, &b.claim), SHALE_CANCELLED);
    }
    ck_assert(!lockq_ticket_alive(a.q, 0, 1, next_of(&a)));
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(the_first_live_ticket_is_found_among_thousands_of_dead_numbers)
{
    struct side a;
    uint64_t n, m;
    side_open(&a);
    atomic_fetch_add(&a.lock.slot->next, 5000);
    struct lockq_ticket *t = stand(&a, &n);
    atomic_fetch_add(&a.lock.slot->next, 5000);
    struct lockq_ticket *u = stand(&a, &m);
    ck_assert_uint_eq(n, 5001);
    ck_assert_uint_eq(lockq_ticket_first(a.q, 0, 1, m), n);
    ck_assert_uint_eq(lockq_ticket_first(a.q, 0, n + 1, m), m);
    leave(&a, t, n), leave(&a, u, m);
    ck_assert_uint_eq(lockq_ticket_first(a.q, 0, 1, m), 0);
    side_close(&a);
}
END_TEST

/* Rule 5, with a ticket whose owner does nothing, as a stopped process. */
START_TEST(h10_a_waiter_that_does_not_run_is_passed)
{
    struct side a, b;
    uint64_t n;
    side_open(&a), side_open(&b);
    struct lockq_ticket *t = stand(&a, &n);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 20000), SHALE_OK);
    ck_assert_uint_ge(b.claim.waited_ns, 40 * MS); /* not before it was looked for, and asked */
    ck_assert_uint_eq(b.lock.slot->skipped, 1);
    ck_assert_uint_ge(atomic_load(&b.lock.slot->served), b.claim.ticket);
    give(&b);
    /* It is behind `served` now: nobody waits for it any more. */
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_OK);
    give(&b);
    leave(&a, t, n);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(h10_a_waiter_that_was_skipped_and_runs_has_its_place_back)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    struct lockq_slot *slot = a.lock.slot;
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    atomic_store(&slot->skip_below, 50); /* all numbers below 51 were skipped */
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 20), SHALE_BUSY);
    ck_assert_uint_eq(atomic_load(&slot->skip_below), 0); /* number 1 took its place back */
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

static struct lockq_slot *answered_slot;
static uint64_t answered_number;

/* As one that runs, and looks often. */
static int answer(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)op, (void)fd, (void)name, (void)offset, (void)length;
    uint64_t round = atomic_load(&answered_slot->asked) & UINT16_MAX;
    atomic_store(&answered_slot->answered, round << LOCKQ_NUMBER_BITS | answered_number);
    return 0;
}

START_TEST(h10_a_waiter_that_runs_is_not_passed_with_a_stopped_one)
{
    struct side a, b;
    struct lockq_ticket *t[2];
    uint64_t n[2];
    side_open(&a), side_open(&b);
    struct lockq_slot *slot = a.lock.slot;
    t[0] = stand(&a, &n[0]);
    t[1] = stand(&a, &n[1]);
    answered_slot = slot;
    answered_number = n[1];
    os_door_hook = answer;
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 1000), SHALE_BUSY);
    os_door_hook = NULL; /* its slot is unmapped soon */
    ck_assert_uint_gt(atomic_load(&slot->asked), 0);
    ck_assert_uint_eq(atomic_load(&slot->skip_below), n[0]);
    leave(&a, t[0], n[0]), leave(&a, t[1], n[1]);
    side_close(&a), side_close(&b);
}
END_TEST

/* ---- turns ---- */

START_TEST(until_its_turn_is_over_only_the_owner_takes_the_lock_again)
{
    struct side a, b;
    uint64_t n;
    side_open(&a), side_open(&b);
    a.lock.turn_ns = 3600 * 1000 * MS;
    struct lockq_slot *slot = a.lock.slot;
    atomic_fetch_add(&slot->next, 1); /* so that it goes by way of the queue, where turns begin */
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    give(&a);
    struct lockq_ticket *t = stand(&b, &n);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_OK);
        give(&a);
    }
    ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
    lockq_end_turn(a.q, &a.lock);
    ck_assert_uint_eq(atomic_load(&slot->owner), 0);
    ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_BUSY);
    leave(&b, t, n);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(an_owner_whose_turn_is_over_gives_it_up_on_the_way_in_and_on_the_way_out)
{
    struct side a, b;
    uint64_t n;
    side_open(&a), side_open(&b);
    struct lockq_slot *slot = a.lock.slot;
    a.lock.turn_ns = 3600 * 1000 * MS;
    for (int out = 0; out < 2; out++) {
        atomic_fetch_add(&slot->next, 1);
        ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
        if (out == 0) {
            give(&a);
        }
        struct lockq_ticket *t = stand(&b, &n);
        atomic_store(&slot->turn_end, (uint64_t)os_now() - 1);
        uint32_t before = atomic_load(&slot->word[n % LOCKQ_WORDS]);
        if (out == 0) {
            ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_BUSY);
        } else {
            give(&a);
        }
        ck_assert_uint_eq(atomic_load(&slot->owner), 0);
        ck_assert_uint_ne(atomic_load(&slot->word[n % LOCKQ_WORDS]), before); /* the head was woken */
        leave(&b, t, n);
    }
    side_close(&a), side_close(&b);
}
END_TEST

/* Another time namespace's clock, or noise: the owner is dead and its turn seems to last for ever. */
START_TEST(h9_nobody_waits_long_for_a_turn_whatever_its_end_says)
{
    struct side a;
    static const uint64_t ends[] = {UINT64_MAX / 2 - 1, UINT64_MAX, UINT64_MAX / 2 + 1, 0};
    side_open(&a);
    for (size_t i = 0; i < BASE_COUNT(ends); i++) {
        atomic_fetch_add(&a.lock.slot->next, 1);
        atomic_store(&a.lock.slot->owner, 4711);
        atomic_store(&a.lock.slot->turn_end, ends[i]);
        ck_assert_int_eq(take(&a, LOCKQ_QUEUE, 10000), SHALE_OK);
        give(&a);
    }
    side_close(&a);
}
END_TEST

/* ---- what happens between two steps: done by the hook at the marks ---- */

static struct side *meanwhile_side;
static struct lockq_ticket *meanwhile_ticket;
static uint64_t meanwhile_number;

static void queue_meanwhile(enum os_mark mark)
{
    (void)mark;
    os_mark_hook = NULL;
    meanwhile_ticket = stand(meanwhile_side, &meanwhile_number);
}

static void serve_meanwhile(enum os_mark mark)
{
    (void)mark;
    os_mark_hook = NULL;
    atomic_store(&meanwhile_side->lock.slot->served, 1);
}

START_TEST(who_queues_while_the_lock_is_being_taken_is_not_passed)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    meanwhile_side = &b;
    os_mark_hook = queue_meanwhile; /* the bytes are had, served == next was looked at */
    ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_BUSY);
    ck_assert_ptr_null(os_mark_hook);
    ck_assert(is_free(&b));
    ck_assert_uint_ne(atomic_load(&b.lock.slot->word[meanwhile_number % LOCKQ_WORDS]), 0); /* and was woken */
    leave(&b, meanwhile_ticket, meanwhile_number);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(who_is_overtaken_between_number_and_ticket_takes_a_new_number)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    meanwhile_side = &a;
    os_mark_hook = serve_meanwhile; /* b has number 1 and no ticket yet */
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 30), SHALE_BUSY);
    ck_assert_ptr_null(os_mark_hook);
    ck_assert_uint_eq(next_of(&a), 2);
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(no_owner_believes_a_turn_longer_than_its_own)
{
    struct side a, b;
    uint64_t n;
    side_open(&a), side_open(&b);
    a.lock.turn_ns = 3600 * 1000 * MS;
    struct lockq_ticket *t = stand(&b, &n);
    atomic_store(&a.lock.slot->owner, a.lock.owner);
    atomic_store(&a.lock.slot->turn_end, (uint64_t)os_now() + 2 * (uint64_t)a.lock.turn_ns);
    ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_BUSY);
    ck_assert_uint_eq(atomic_load(&a.lock.slot->owner), 0);
    leave(&b, t, n);
    side_close(&a), side_close(&b);
}
END_TEST

/* ---- wakes ---- */

/* Sleepers whose tickets share a wake word: their numbers are 64 apart. */
#define SLEEPERS 16
static struct lockq_slot *sleepers_slot;
static _Atomic bool awake[SLEEPERS];
static _Atomic long thread_id[SLEEPERS]; /* about to sleep */

static void *sleeper(void *ctx)
{
    size_t i = (size_t)((_Atomic bool *)ctx - awake);
    struct os_word word = lockq_word(sleepers_slot, 1 + i * LOCKQ_WORDS);
    struct os_wait wait = os_wait_forever();
    uint32_t value = atomic_load(word.word);
    atomic_store(&thread_id[i], syscall(SYS_gettid));
    (void)os_sleep_bits(&wait, &word, value, 60000 * MS);
    atomic_store(&awake[i], true);
    return NULL;
}

/* Another's wake changes the word: who is not asleep by then would not sleep at all. */
static bool is_asleep(size_t i)
{
    char stat[64], line[512];
    snprintf(stat, sizeof stat, "/proc/self/task/%ld/stat", atomic_load(&thread_id[i]));
    FILE *f = fopen(stat, "re");
    const char *text = f != NULL ? fgets(line, sizeof line, f) : NULL;
    const char *state = text != NULL ? strstr(text, ") ") : NULL;
    if (f != NULL) {
        fclose(f);
    }
    return state != NULL && state[2] == 'S';
}

static unsigned count_awake(void)
{
    unsigned n = 0;
    for (size_t i = 0; i < SLEEPERS; i++) {
        n += atomic_load(&awake[i]);
    }
    return n;
}

START_TEST(h33_a_wake_reaches_the_one_that_is_meant_and_not_the_crowd)
{
    struct side a;
    pthread_t thread[SLEEPERS];
    side_open(&a);
    sleepers_slot = a.lock.slot;
    for (size_t i = 0; i < SLEEPERS; i++) {
        ck_assert_int_eq(os_thread_start(&thread[i], sleeper, &awake[i], "sleeper"), SHALE_OK);
    }
    for (size_t i = 0; i < SLEEPERS; i++) {
        while (!is_asleep(i)) {
            os_nap(MS);
        }
    }
    for (size_t i = SLEEPERS; i-- > 0;) {
        lockq_wake_one(sleepers_slot, 1 + i * LOCKQ_WORDS);
        while (!atomic_load(&awake[i])) {
            os_nap(MS);
        }
        os_nap(2 * MS);
        ck_assert_uint_eq(count_awake(), SLEEPERS - i);
        os_thread_join(thread[i]);
    }
    side_close(&a);
}
END_TEST

/* ---- shared ---- */

START_TEST(sharers_share_and_an_exclusive_waiter_is_not_starved_by_later_ones)
{
    struct side a, b, c;
    uint64_t n;
    side_open_named(&a, "s"), side_open_named(&b, "s"), side_open_named(&c, "s");
    a.lock.exclusive = b.lock.exclusive = false;
    a.lock.label = "first";
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_uint_gt(b.claim.number, a.claim.number);
    ck_assert_int_eq(take(&c, LOCKQ_QUEUE, 10), SHALE_BUSY);
    assert_told("is held shared by ");
    assert_told("label \"first\"");
    give(&b);
    struct lockq_ticket *t = stand(&c, &n);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 20),
                     SHALE_BUSY); /* the lock could be shared, but c stands there */
    leave(&c, t, n);
    give(&a);
    ck_assert_int_eq(take(&c, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&a, LOCKQ_ONCE, -1), SHALE_BUSY);
    give(&c);
    side_close(&a), side_close(&b), side_close(&c);
}
END_TEST

START_TEST(more_sharers_than_records_share_unlisted)
{
    enum { SHARERS = LOCKQ_RECORDS + 3 };
    struct side s[SHARERS];
    struct lockq_who who[LOCKQ_RECORDS];
    unsigned count = 0;
    for (int i = 0; i < SHARERS; i++) {
        side_open_named(&s[i], "s");
        s[i].lock.exclusive = false;
        ck_assert_int_eq(take(&s[i], LOCKQ_QUEUE, -1), SHALE_OK);
    }
    struct lockq_lock seen = s[0].lock;
    seen.fd = open_lock_file();
    ck_assert_int_eq(lockq_record_read(s[0].q, &seen, who, &count), LOCKQ_SHARED);
    ck_assert_uint_eq(count, LOCKQ_RECORDS);
    os_close(&s[2].fd); /* as when it is killed: its record goes with it */
    ck_assert_int_eq(lockq_record_read(s[0].q, &seen, who, &count), LOCKQ_SHARED);
    ck_assert_uint_eq(count, LOCKQ_RECORDS - 1);
    os_close(&seen.fd);
    for (int i = 0; i < SHARERS; i++) {
        if (i != 2) {
            give(&s[i]);
        }
        side_close(&s[i]);
    }
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        an_uncontended_lock_is_two_system_calls,
        a_turn_that_nobody_takes_over_is_overdue,
        a_held_lock_is_busy_and_its_holder_is_named,
        a_holder_that_has_just_gone_is_named_too,
        a_label_is_cut_between_characters_and_control_characters_do_not_reach_the_terminal,
        fencing_numbers_grow_with_every_acquisition_and_over_a_lost_file,
        a_newcomer_never_passes_a_live_ticket,
        a_number_without_its_ticket_stands_for_nobody,
        a_waiter_that_gives_up_leaves_no_ticket,
        an_interrupt_ends_the_wait,
        the_first_live_ticket_is_found_among_thousands_of_dead_numbers,
        h10_a_waiter_that_does_not_run_is_passed,
        h10_a_waiter_that_was_skipped_and_runs_has_its_place_back,
        h10_a_waiter_that_runs_is_not_passed_with_a_stopped_one,
        until_its_turn_is_over_only_the_owner_takes_the_lock_again,
        an_owner_whose_turn_is_over_gives_it_up_on_the_way_in_and_on_the_way_out,
        h9_nobody_waits_long_for_a_turn_whatever_its_end_says,
        who_queues_while_the_lock_is_being_taken_is_not_passed,
        who_is_overtaken_between_number_and_ticket_takes_a_new_number,
        no_owner_believes_a_turn_longer_than_its_own,
        h33_a_wake_reaches_the_one_that_is_meant_and_not_the_crowd,
        sharers_share_and_an_exclusive_waiter_is_not_starved_by_later_ones,
        more_sharers_than_records_share_unlisted,
        NULL,
    };
    return run_suite("lockq", tests);
}
