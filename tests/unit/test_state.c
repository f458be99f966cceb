/* test_state.c - STATE: whoever finds it can tell what it is, whatever happened to it; and the tuple in it is
 * never mixed.
 *
 * The program runs itself as the processes it needs: test_state --agent DIR COMMAND [N].
 */
#include "version_lib.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

/* ---- a directory with LOCK and STATE ---- */

struct lib {
    struct place place;
    struct stat lock;
    struct state_map map;
};

static void lib_open(struct lib *l)
{
    int fd = -1;
    place_open(&l->place);
    must(os_open(l->place.dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &fd) == SHALE_OK);
    must(os_stat(fd, &l->lock) == SHALE_OK);
    os_close(&fd);
}

static void lib_make(struct lib *l)
{
    *l = (struct lib){0};
    tempdir_make(l->place.path);
    lib_open(l);
    must(state_map(l->place.dirfd, true, true, 0600, &l->map) == SHALE_OK);
}

static void lib_init(struct lib *l)
{
    state_begin(&l->map, &l->lock, lib_uuid);
    state_ready(&l->map);
}

static void lib_remove(struct lib *l)
{
    state_unmap(&l->map);
    place_remove(&l->place);
}

/* ---- agents ---- */

static unsigned marks_left;

static void count_mark(enum os_mark mark)
{
    if ((mark == OS_MARK_OPEN || mark == OS_MARK_MANIFEST) && marks_left > 0 && --marks_left == 0) {
        (void)raise(SIGKILL);
    }
}

/* Tuples whose parts follow from the epoch that they get. */
static void store_next(struct state *s)
{
    uint64_t e = atomic_load(&s->epoch) + 1;
    state_store_tuple(s, e * 3 + 1, e * 5 + 2, (uint32_t)(e * 7 + 3));
}

static bool right_tuple(const struct state_view *t)
{
    return t->manifest == t->epoch * 3 + 1 && t->length == t->epoch * 5 + 2 &&
           t->oldest == (uint32_t)(t->epoch * 7 + 3);
}

/* Exit status 1: a mixed tuple, or one from the past. reads: how often it looked, for the parent. */
static int agent_read(const struct state *s, _Atomic uint64_t *reads)
{
    uint64_t last = 0;
    while (getppid() != 1) {
        for (int i = 0; i < 1000; i++) {
            struct state_view t;
            state_load_tuple(s, &t);
            if (!right_tuple(&t) || t.epoch < last) {
                return 1;
            }
            last = t.epoch;
        }
        atomic_fetch_add(reads, 1000);
    }
    return 0;
}

static int agent(char **argv)
{
    struct lib l = {0};
    (void)snprintf(l.place.path, sizeof l.place.path, "%s", argv[0]);
    lib_open(&l);
    must(state_map(l.place.dirfd, true, true, 0600, &l.map) == SHALE_OK);
    marks_left = argv[2] != NULL ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    os_mark_hook = count_mark;
    if (strcmp(argv[1], "init") == 0) {
        lib_init(&l);
    } else if (strcmp(argv[1], "store") == 0) {
        store_next(l.map.state);
    } else if (strcmp(argv[1], "read") == 0) {
        return agent_read(l.map.state, &l.map.state->durable_group);
    } else {
        while (getppid() != 1) {
            store_next(l.map.state);
        }
    }
    return 0;
}

static pid_t start(const struct lib *l, const char *command, unsigned n)
{
    char number[16];
    (void)snprintf(number, sizeof number, "%u", n);
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/proc/self/exe", "test_state", "--agent", l->place.path, command, number, (char *)NULL);
        _exit(99);
    }
    ck_assert_int_gt(pid, 0);
    return pid;
}

/* true: it killed itself at mark n; false: it finished before. */
static bool killed(const struct lib *l, const char *command, unsigned n)
{
    int status;
    pid_t pid = start(l, command, n);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

/* ---- initialising ---- */

START_TEST(h1_whoever_comes_after_a_dead_initialiser_sees_that_it_is_not_ready)
{
    struct lib l;
    unsigned n, unready = 0;
    lib_make(&l);
    for (n = 1;; n++) {
        lib_init(&l); /* from ready ... */
        ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_OK);
        uint64_t before = atomic_load(&l.map.state->generation);
        atomic_store(&l.map.state->wal_end, 77);
        if (!killed(&l, "init", n)) {
            break;
        }
        /* ... the parent's mapping, as a reader's, is still good, and shows what happened. */
        uint64_t now = atomic_load(&l.map.state->generation);
        ck_assert_uint_ne(now, before);
        int st = state_check(&l.map, &l.lock);
        ck_assert(st == SHALE_NOTFOUND || (st == SHALE_OK && (now & 1) == 0));
        unready += st == SHALE_NOTFOUND;
        ck_assert(st != SHALE_OK || atomic_load(&l.map.state->wal_end) == 0);
        /* Dead twice at the same place, then done by a third. */
        ck_assert(killed(&l, "init", n));
        ck_assert(!killed(&l, "init", 0));
        ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_OK);
        ck_assert_uint_gt(atomic_load(&l.map.state->generation), before);
        ck_assert_uint_eq(atomic_load(&l.map.state->wal_end), 0);
    }
    ck_assert_uint_ge(unready, 4);
    lib_remove(&l);
}
END_TEST

static void noise(void *at, size_t size, uint64_t seed)
{
    unsigned char *p = at;
    for (size_t i = 0; i < size; i++) {
        p[i] = (unsigned char)prng_next(&seed);
    }
}

START_TEST(h22_nothing_is_left_from_an_older_generation)
{
    struct lib l;
    static const unsigned char zeros[64];
    lib_make(&l);
    noise(l.map.state, sizeof *l.map.state, 1);
    ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_NOTFOUND);
    lib_init(&l);
    ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_OK);
    const unsigned char *p = (const unsigned char *)l.map.state;
    for (size_t at = offsetof(struct state, clean); at < sizeof *l.map.state; at += 8) {
        ck_assert_msg(memcmp(p + at, zeros, 8) == 0, "byte %zu", at);
    }
    lib_remove(&l);
}
END_TEST

START_TEST(any_bytes_at_all_are_told_from_a_state_and_harm_nobody)
{
    struct lib l;
    lib_make(&l);
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct state_totals totals;
        struct state_view t;
        noise(l.map.state, sizeof *l.map.state, seed);
        if (seed % 3 != 0) { /* far enough to be looked at more closely */
            atomic_store(&l.map.state->magic, STATE_MAGIC);
            atomic_store(&l.map.state->generation, 4);
        }
        if (seed % 3 == 2) {
            os_boot_id(l.map.state->boot);
        }
        ck_assert_int_eq(state_check(&l.map, &l.lock), seed % 3 == 2 ? SHALE_MISMATCH : SHALE_NOTFOUND);
        state_load_tuple(l.map.state, &t);
        state_sum(l.map.state, &totals);
        state_row_claim(l.map.state, (unsigned)(seed % STATE_ROWS));
    }
    lib_remove(&l);
}
END_TEST

START_TEST(h2_a_state_of_another_boot_or_directory_is_not_believed)
{
    struct lib l, copy;
    lib_make(&l);
    lib_make(&copy);
    lib_init(&l);
    memcpy(copy.map.state, l.map.state, sizeof *l.map.state); /* as cp -a of the directory does */
    ck_assert_int_eq(state_check(&copy.map, &copy.lock), SHALE_NOTFOUND);
    ck_assert_int_eq(state_check(&copy.map, &l.lock), SHALE_NOTFOUND); /* only STATE was copied */
    ck_assert_int_eq(state_check(&l.map, &copy.lock), SHALE_NOTFOUND); /* only LOCK is another */
    struct state *s = l.map.state;
    struct {
        void *at;
        size_t size;
        int status;
    } parts[] = {{&s->magic, 8, SHALE_NOTFOUND},     {&s->layout, 4, SHALE_MISMATCH},
                 {&s->page_size, 4, SHALE_MISMATCH}, {&s->generation, 1, SHALE_NOTFOUND},
                 {s->boot, 16, SHALE_NOTFOUND},      {&s->lock_dev, 8, SHALE_NOTFOUND},
                 {&s->lock_ino, 8, SHALE_NOTFOUND},  {&s->state_dev, 8, SHALE_NOTFOUND},
                 {&s->state_ino, 8, SHALE_NOTFOUND}};
    for (size_t i = 0; i < BASE_COUNT(parts); i++) {
        unsigned char *p = parts[i].at;
        for (size_t b = 0; b < parts[i].size; b++) {
            p[b] ^= 1;
            ck_assert_int_eq(state_check(&l.map, &l.lock), parts[i].status);
            p[b] ^= 1;
        }
    }
    ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_OK);
    lib_remove(&copy);
    lib_remove(&l);
}
END_TEST

/* ---- the file ---- */

static void resize(const struct lib *l, uint64_t size)
{
    int fd;
    ck_assert_int_eq(os_open(l->place.dirfd, STATE_NAME, O_RDWR, 0, &fd), SHALE_OK);
    ck_assert_int_eq(os_truncate(fd, size), SHALE_OK);
    os_close(&fd);
}

START_TEST(h28_a_file_of_another_layout_is_refused_and_replaced_only_on_demand)
{
    struct lib l;
    struct state_map m = {0};
    struct stat before, after;
    lib_make(&l);
    lib_init(&l);
    l.map.state->layout = STATE_LAYOUT + 1;
    ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_MISMATCH);
    ck_errmsg_has("STATE");
    state_unmap(&l.map);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &before), SHALE_OK);
    resize(&l, 8192);
    ck_assert_int_eq(state_map(l.place.dirfd, true, false, 0, &m), SHALE_MISMATCH);
    ck_errmsg_has("layout 4");
    ck_assert_ptr_null(m.state);
    resize(&l, 0);
    ck_assert_int_eq(state_map(l.place.dirfd, false, false, 0, &m), SHALE_NOTFOUND);
    resize(&l, 100); /* zeros */
    ck_assert_int_eq(state_map(l.place.dirfd, false, false, 0, &m), SHALE_NOTFOUND);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &after), SHALE_OK);
    ck_assert_uint_eq(before.st_ino, after.st_ino);
    ck_assert_int_eq(state_map(l.place.dirfd, true, true, 0640, &l.map), SHALE_OK);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &after), SHALE_OK);
    ck_assert_uint_eq((uint64_t)after.st_size, STATE_SIZE);
    ck_assert_uint_eq(after.st_mode & 07777, 0640);
    ck_assert_int_eq(state_check(&l.map, &l.lock), SHALE_NOTFOUND);
    lib_remove(&l);
}
END_TEST

START_TEST(the_file_is_made_whole_and_kept_where_it_fits)
{
    struct lib l;
    struct state_map m = {0};
    struct stat sb, again;
    lib_make(&l);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &sb), SHALE_OK);
    ck_assert_uint_ge((uint64_t)sb.st_blocks * 512, STATE_SIZE);
    lib_init(&l);
    ck_assert_int_eq(state_map(l.place.dirfd, true, true, 0600, &m), SHALE_OK);
    ck_assert_int_eq(state_check(&m, &l.lock), SHALE_OK);
    state_unmap(&m);
    ck_assert_ptr_null(m.state);
    state_unmap(&m);
    ck_assert_int_eq(state_map(l.place.dirfd, false, false, 0, &m), SHALE_OK);
    ck_assert_int_eq(state_check(&m, &l.lock), SHALE_OK);
    ck_assert_uint_eq(m.ino, sb.st_ino);
    state_unmap(&m);
    /* with holes, as a copy may have */
    resize(&l, 0);
    resize(&l, STATE_SIZE);
    ck_assert_int_eq(state_map(l.place.dirfd, true, true, 0600, &m), SHALE_OK);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &again), SHALE_OK);
    ck_assert_uint_eq(again.st_ino, sb.st_ino);
    ck_assert_uint_ge((uint64_t)again.st_blocks * 512, STATE_SIZE);
    state_unmap(&m);
    ck_assert_int_eq(os_unlink(l.place.dirfd, STATE_NAME), SHALE_OK);
    ck_assert_int_eq(state_map(l.place.dirfd, true, false, 0, &m), SHALE_NOTFOUND);
    lib_remove(&l);
}
END_TEST

static enum os_op bad_op;

static int refuse(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length)
{
    (void)fd, (void)name, (void)offset, (void)length;
    return op == bad_op ? ENOSPC : 0;
}

START_TEST(h23_without_space_there_is_an_error_and_no_file)
{
    struct lib l;
    struct stat sb;
    struct state_map m = {0};
    lib_make(&l);
    state_unmap(&l.map);
    ck_assert_int_eq(os_unlink(l.place.dirfd, STATE_NAME), SHALE_OK);
    bad_op = OS_OP_ALLOCATE;
    os_door_hook = refuse;
    int st = state_map(l.place.dirfd, true, true, 0600, &m);
    os_door_hook = NULL;
    ck_assert_int_eq(st, SHALE_NOSPC);
    ck_errmsg_has("STATE");
    ck_assert_ptr_null(m.state);
    ck_assert_int_eq(os_stat_at(l.place.dirfd, STATE_NAME, &sb), SHALE_NOTFOUND);
    lib_remove(&l);
}
END_TEST

/* ---- the tuple ---- */

START_TEST(a_writer_killed_between_two_words_leaves_the_old_tuple)
{
    struct lib l;
    struct state_view t, was;
    unsigned n;
    lib_make(&l);
    lib_init(&l);
    store_next(l.map.state);
    for (n = 1;; n++) {
        state_load_tuple(l.map.state, &was);
        bool dead = killed(&l, "store", n);
        state_load_tuple(l.map.state, &t);
        ck_assert(right_tuple(&t));
        ck_assert(t.epoch == was.epoch || t.epoch == was.epoch + 1);
        if (!dead) {
            break;
        }
    }
    ck_assert_uint_ge(n, 4);
    lib_remove(&l);
}
END_TEST

START_TEST(readers_never_see_a_mixed_tuple_whoever_is_killed)
{
    struct lib l;
    uint64_t rng = 3;
    lib_make(&l);
    lib_init(&l);
    store_next(l.map.state);
    pid_t readers[2] = {start(&l, "read", 0), start(&l, "read", 0)};
    for (int i = 0; i < 60; i++) {
        int status;
        uint64_t before = atomic_load(&l.map.state->epoch);
        pid_t writer = start(&l, "loop", 0);
        while (atomic_load(&l.map.state->epoch) == before) { /* until it runs */
            os_nap(200000);
        }
        os_nap((int64_t)(prng_next(&rng) % 3000000));
        (void)kill(writer, SIGKILL);
        ck_assert_int_eq(waitpid(writer, &status, 0), writer);
        ck_assert(WIFSIGNALED(status));
    }
    for (int i = 0; i < 2; i++) {
        int status;
        ck_assert_int_eq(waitpid(readers[i], &status, WNOHANG), 0); /* found nothing wrong so far */
        (void)kill(readers[i], SIGKILL);
        (void)waitpid(readers[i], &status, 0);
    }
    ck_assert_uint_gt(atomic_load(&l.map.state->epoch), 1000);
    ck_assert_uint_gt(atomic_load(&l.map.state->durable_group), 1000);
    lib_remove(&l);
}
END_TEST

/* ---- rows, counters, words ---- */

START_TEST(a_row_that_is_claimed_anew_leaves_its_counts_behind)
{
    struct lib l;
    struct state_totals t;
    lib_make(&l);
    lib_init(&l);
    struct state *s = l.map.state;
    for (unsigned row = 0; row < STATE_ROWS; row += 5) {
        atomic_store(&s->rows[row].counters.puts, row + 1);
        atomic_store(&s->rows[row].counters.queue_wait_max_us, row + 1);
        s->rows[row].doing[0] = 'x';
    }
    uint64_t sum = 0;
    for (unsigned row = 0; row < STATE_ROWS; row += 5) {
        sum += row + 1;
    }
    for (unsigned round = 0; round < 2; round++) {
        state_sum(s, &t);
        ck_assert_uint_eq(t.puts, sum);
        ck_assert_uint_eq(t.queue_wait_max_us, 256);
        for (unsigned row = 0; row < STATE_ROWS; row++) {
            state_row_claim(s, row);
            ck_assert_uint_eq(atomic_load(&s->rows[row].counters.puts), 0);
        }
    }
    ck_assert_uint_eq(atomic_load(&s->closed.puts), sum);
    const struct state_row *r = &s->rows[STATE_ROWS - 1];
    ck_assert_uint_eq(atomic_load(&r->pid), (uint64_t)getpid());
    ck_assert_str_eq(r->program, os_self()->program);
    ck_assert_str_eq(r->doing, "");
    ck_assert_uint_ne(atomic_load(&r->since), 0);
    lib_remove(&l);
}
END_TEST

static void *raise_it(void *ctx)
{
    static _Atomic uint64_t next;
    for (int i = 0; i < 20000; i++) {
        uint64_t value = atomic_fetch_add(&next, 1);
        state_raise(ctx, value);
        ck_assert_uint_ge(atomic_load((_Atomic uint64_t *)ctx), value);
    }
    return NULL;
}

START_TEST(a_raised_word_never_goes_down)
{
    _Atomic uint64_t word = 0;
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(os_thread_start(&threads[i], raise_it, &word, "raise"), SHALE_OK);
    }
    for (int i = 0; i < 3; i++) {
        os_thread_join(threads[i]);
    }
    ck_assert_uint_eq(atomic_load(&word), 59999);
    state_raise(&word, 5);
    ck_assert_uint_eq(atomic_load(&word), 59999);
}
END_TEST

#define SLEEPER_ROUNDS 20000u

struct sleeper {
    struct state *s;
    _Atomic uint32_t rounds;
};

static void *sleep_on_change(void *ctx)
{
    struct sleeper *sl = ctx;
    struct os_wait wait = os_wait_forever();
    for (uint32_t seen = 0; seen < SLEEPER_ROUNDS; seen++) {
        while (atomic_load(&sl->s->change) <= seen) {
            atomic_store(&sl->s->change_asleep, 1);
            if (atomic_load(&sl->s->change) <= seen) {
                (void)os_sleep(&wait, &sl->s->change, seen, OS_NEVER);
            }
        }
        atomic_store(&sl->rounds, seen + 1);
    }
    return NULL;
}

START_TEST(h17_a_sleeper_is_woken_by_every_change)
{
    struct lib l;
    struct sleeper sl = {0};
    pthread_t thread;
    lib_make(&l);
    lib_init(&l);
    sl.s = l.map.state;
    ck_assert_int_eq(os_thread_start(&thread, sleep_on_change, &sl, "sleeper"), SHALE_OK);
    for (uint32_t i = 0; i < SLEEPER_ROUNDS; i++) {
        state_wake(&sl.s->change, &sl.s->change_asleep);
        while (atomic_load(&sl.rounds) <= i) { /* a wake that is missed hangs here, until the time limit */
            os_yield();
        }
    }
    os_thread_join(thread);
    lib_remove(&l);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "--agent") == 0) {
        return agent(argv + 2);
    }
    Suite *s = suite_create("state");
    TCase *t = tcase_create("state");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, h1_whoever_comes_after_a_dead_initialiser_sees_that_it_is_not_ready);
    tcase_add_test(t, h22_nothing_is_left_from_an_older_generation);
    tcase_add_test(t, any_bytes_at_all_are_told_from_a_state_and_harm_nobody);
    tcase_add_test(t, h2_a_state_of_another_boot_or_directory_is_not_believed);
    tcase_add_test(t, h28_a_file_of_another_layout_is_refused_and_replaced_only_on_demand);
    tcase_add_test(t, the_file_is_made_whole_and_kept_where_it_fits);
    tcase_add_test(t, h23_without_space_there_is_an_error_and_no_file);
    tcase_add_test(t, a_writer_killed_between_two_words_leaves_the_old_tuple);
    tcase_add_test(t, readers_never_see_a_mixed_tuple_whoever_is_killed);
    tcase_add_test(t, a_row_that_is_claimed_anew_leaves_its_counts_behind);
    tcase_add_test(t, a_raised_word_never_goes_down);
    tcase_add_test(t, h17_a_sleeper_is_woken_by_every_change);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
