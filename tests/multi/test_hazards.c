/* test_hazards.c - other processes stopped, killed or late at one chosen place; numbers are those of the list
 * of hazards. */
#include "lib/lib.h"

#include <signal.h>

enum { MAX = 8 };

static char *dir;
static struct board *board;
static struct agent a, b, c;

static void setup(void)
{
    dir = scratch_dir("hazards");
    board = proc_board();
}

static void teardown(void)
{
    board_close(board);
    free(dir);
}

static void start(struct agent *x, unsigned id, const char *options)
{
    agent_start(x, id);
    agent_must(x, "open %s %s", dir, options);
}

static void park(struct agent *x, const char *mark, unsigned n, const char *command)
{
    agent_must(x, "park-at %s %u", mark, n);
    agent_tell(x, "%s", command);
    ck_assert_msg(agent_parked(x, 20000), "%s: %s was not reached", command, mark);
}

static void check_afresh(const char *key, const char *value)
{
    struct agent fresh = {0};
    agent_start(&fresh, MAX);
    agent_must(&fresh, "open %s", dir);
    ck_assert_str_eq(agent_must(&fresh, "get %s", key), value);
    agent_must(&fresh, "verify");
    agent_quit(&fresh);
}

START_TEST(h10_stopped_holder_is_named_and_not_robbed)
{
    char pid[32];
    start(&a, 0, "");
    start(&b, 1, "");
    agent_must(&a, "txn begin");
    agent_must(&a, "txn put k a");
    agent_stop(&a);
    agent_must(&b, "timeout 100");
    const char *text = agent_ask(&b, "put k b");
    snprintf(pid, sizeof pid, "pid %d", (int)a.pid);
    ck_assert_msg(strncmp(text, "SHALE_BUSY", 10) == 0, "%s", text);
    ck_assert_msg(strstr(text, pid) != NULL, "%s does not name %s", text, pid);
    ck_assert_msg(strstr(text, "stopped") != NULL, "%s does not say that it is stopped", text);
    ck_assert_str_eq(agent_ask(&b, "get k"), "SHALE_NOTFOUND "); /* reading goes on */
    agent_signal(&a, SIGCONT);
    agent_must(&a, "txn commit");
    ck_assert_str_eq(agent_must(&b, "get k"), "a");
    agent_must(&b, "put k b");
    agent_quit(&a);
    agent_quit(&b);
}
END_TEST

START_TEST(h10_stopped_reader_harms_nobody)
{
    start(&a, 0, "");
    start(&b, 1, "");
    agent_must(&a, "fill old 0 200 500");
    agent_must(&b, "snapshot 0");
    agent_must(&b, "iter open snapshot=0");
    agent_must(&b, "iter first");
    agent_stop(&b);
    agent_must(&a, "fill old 0 200 400");
    agent_must(&a, "fill new 0 1000 700"); /* several memtables */
    agent_must(&a, "flush");
    agent_must(&a, "compact");
    agent_must(&a, "fill newer 0 1000 700");
    agent_must(&a, "compact");
    agent_must(&a, "verify");
    agent_signal(&b, SIGCONT);
    ck_assert_str_eq(agent_must(&b, "iter next"), "old00000001"); /* its view is what it was */
    ck_assert_str_eq(agent_must(&b, "scan snapshot=0"), "200");
    ck_assert_str_eq(agent_must(&b, "scan"), "2200");
    agent_quit(&a);
    agent_quit(&b);
}
END_TEST

START_TEST(h10_stopped_waiter_is_passed_by)
{
    start(&a, 0, "");
    start(&b, 1, "");
    start(&c, 2, "");
    agent_must(&a, "txn begin");
    agent_tell(&b, "put k b"); /* queues */
    os_nap(50000000);
    agent_stop(&b);
    agent_tell(&c, "put k c"); /* behind it */
    os_nap(20000000);
    agent_must(&a, "txn abort");
    agent_done(&c);
    agent_signal(&b, SIGCONT);
    agent_done(&b);
    agent_quit(&a);
    agent_quit(&b);
    agent_quit(&c);
}
END_TEST

struct death {
    const char *mark;
    unsigned n;
    const char *command; /* of the victim, which has begun with put k old */
    const char *either;  /* k afterwards: old, or this */
};
/* Which of the two is a question of how far it had come; never anything else, and others write at once. */
static const struct death deaths[] = {
    {"APPEND", 1, "put k new", "new"},
    {"APPEND", 2, "put k new", "new"},
    {"INSERT", 1, "put k new", "new"},
    {"PUBLISH", 1, "put k new", "new"},
    {"UNLOCK", 1, "put k new", "new"},
    {"APPEND", 1, "batch put:k:new put:l:new del:m", "new"},
    {"INSERT", 5, "batch put:k:new put:l:new del:m", "new"},
};

START_TEST(h11_h12_h13_writer_killed_in_a_commit)
{
    const struct death *d = &deaths[_i];
    start(&a, 0, "");
    start(&b, 1, "");
    agent_must(&a, "put k old");
    agent_must(&a, "put l old");
    agent_must(&a, "put m old");
    agent_must(&a, "park-at %s %u", d->mark, d->n);
    agent_tell(&a, "%s", d->command);
    if (!agent_parked(&a, 3000)) { /* so many marks are not on this path: the command must have been done */
        agent_done(&a);
    }
    char before[32];
    snprintf(before, sizeof before, "%s", agent_must(&b, "get k"));
    ck_assert_msg(strcmp(before, "old") == 0 || strcmp(before, d->either) == 0, "k is %s", before);
    agent_kill(&a);
    agent_must(&b, "put after 1"); /* repairs what there is to repair */
    const char *after = agent_must(&b, "get k");
    ck_assert_msg(strcmp(after, "old") == 0 || strcmp(after, d->either) == 0, "k is %s", after);
    ck_assert(strcmp(before, "old") == 0 || strcmp(after, before) == 0); /* what was seen stays */
    if (strncmp(d->command, "batch", 5) == 0) {                          /* all or nothing */
        bool new = strcmp(agent_must(&b, "get k"), "new") == 0;
        ck_assert_str_eq(agent_must(&b, "get l"), new ? "new" : "old");
        ck_assert_str_eq(agent_ask(&b, "get m"), new ? "SHALE_NOTFOUND " : "ok old");
    }
    char k[32];
    snprintf(k, sizeof k, "%s", agent_must(&b, "get k"));
    check_afresh("k", k);
    agent_kill(&b);
    check_afresh("k", k);
    check_afresh("after", "1");
}
END_TEST

/* The place is where a process stands while it is killed; the others then do the same work. */
static const struct death works[] = {
    {"ROTATE", 1, "flush", NULL},     {"PREPARE", 1, "flush", NULL},   {"FLUSH", 1, "flush", NULL},
    {"FLUSH", 2, "flush", NULL},      {"MANIFEST", 1, "flush", NULL},  {"MANIFEST", 2, "flush", NULL},
    {"MANIFEST", 3, "flush", NULL},   {"COMPACT", 1, "compact", NULL}, {"COMPACT", 2, "compact", NULL},
    {"MANIFEST", 1, "compact", NULL},
};

START_TEST(h15_killed_in_flush_compaction_manifest_rotation)
{
    const struct death *d = &works[_i];
    start(&a, 0, "l0_compact=90 l0_stop=100");
    start(&b, 1, "l0_compact=90 l0_stop=100");
    agent_must(&a, "fill x 0 300 300");
    agent_must(&a, "flush");
    agent_must(&a, "fill x 100 300 300");
    if (strcmp(d->command, "compact") == 0) {
        agent_must(&a, "flush");
    }
    agent_must(&a, "park-at %s %u", d->mark, d->n);
    agent_tell(&a, "%s", d->command);
    bool parked = agent_parked(&a, 3000);
    if (!parked) {
        agent_done(&a);
    }
    if (strcmp(d->mark, "ROTATE") == 0) { /* which is done under WRITE */
        agent_kill(&a);
        agent_must(&b, "put k beside");
    } else {
        agent_must(&b, "put k beside"); /* the work stops no writer */
        agent_kill(&a);
    }
    ck_assert_str_eq(agent_must(&b, "get k"), "beside");
    agent_must(&b, "%s", d->command);
    agent_must(&b, "compact");
    ck_assert_str_eq(agent_must(&b, "scan"), "401");
    agent_must(&b, "verify");
    agent_kill(&b);
    check_afresh("k", "beside");
}
END_TEST

START_TEST(h20_garbage_collection_spares_unfinished_output)
{
    start(&a, 0, "l0_compact=90 l0_stop=100");
    start(&b, 1, "l0_compact=90 l0_stop=100");
    for (int i = 0; i < 3; i++) {
        agent_must(&a, "fill x %d 200 300", i * 100);
        agent_must(&a, "flush");
    }
    park(&a, "COMPACT", 1, "compact");
    agent_must(&b, "fill y 0 300 300");
    agent_must(&b, "flush");
    agent_must(&b, "work");
    agent_must(&b, "put k 1");
    start(&c, 2, ""); /* an opener sweeps too, if it may */
    agent_quit(&c);
    agent_unpark(&a);
    agent_done(&a);
    ck_assert_str_eq(agent_must(&a, "scan"), "701");
    agent_must(&b, "compact");
    ck_assert_str_eq(agent_must(&b, "scan"), "701");
    agent_must(&b, "verify");
    agent_quit(&a);
    agent_quit(&b);
}
END_TEST

/* Of level 0, and of sealed memtables. */
static const struct limit {
    const char *mark, *command, *high, *low;
} limits[] = {
    {"COMPACT", "compact", "l0_compact=90 l0_stop=100", "l0_compact=2 l0_stop=3"},
    {"FLUSH", "flush", "max_sealed=8 memtable_bytes=65536", "max_sealed=1 memtable_bytes=65536"},
};

/* Nothing gets below its limit as long as the work is at a standstill; the others need not mind. */
START_TEST(who_has_lower_limits_gets_on_beside_others)
{
    const struct limit *l = &limits[_i];
    start(&a, 0, l->high);
    start(&c, 2, l->high);
    for (int i = 0; i < 5 && _i == 0; i++) {
        agent_must(&a, "fill x %d 10 300", i * 10);
        agent_must(&a, "flush");
    }
    agent_must(&a, "put k 1");
    park(&c, l->mark, 1, l->command);
    if (_i != 0) {
        agent_must(&a, "fill y 0 1000 300");
    }
    start(&b, 1, l->low);
    agent_must(&b, "timeout 1500");
    ck_assert_int_eq(strncmp(agent_ask(&b, "put k 2"), "SHALE_BUSY", 10), 0); /* nobody gets on: it waits */
    agent_must(&b, "timeout -1");
    agent_tell(&b, "put k 3");
    const char *text = NULL;
    for (int i = 0; i < 1000 && text == NULL; i++) {
        agent_must(&a, "put z %d", i);
        text = agent_wait(&b, 20);
    }
    ck_assert_msg(text != NULL, "it waits while others write");
    ck_assert_msg(strncmp(text, "ok", 2) == 0, "%s", text);
    ck_assert_str_eq(agent_must(&a, "get k"), "3");
    agent_unpark(&c);
    agent_done(&c);
    agent_quit(&a);
    agent_quit(&b);
    agent_quit(&c);
}
END_TEST

START_TEST(h21_mapped_segment_is_not_recycled)
{
    start(&a, 0, "");
    start(&b, 1, "");
    agent_must(&a, "fill old 0 50 300");
    agent_must(&b, "snapshot 0"); /* maps the segment */
    for (int round = 0; round < 6; round++) {
        agent_must(&a, "fill new 0 400 300");
        agent_must(&a, "flush");
    }
    ck_assert_str_eq(agent_must(&b, "scan snapshot=0"), "50");
    ck_assert_str_eq(agent_must(&b, "get old00000007 snapshot=0"), agent_must(&a, "get old00000007"));
    agent_must(&b, "release 0");
    for (int round = 0; round < 6; round++) {
        agent_must(&a, "fill new 0 400 300");
        agent_must(&a, "flush");
    }
    ck_assert_str_eq(agent_must(&b, "scan"), "450");
    agent_quit(&a);
    agent_quit(&b);
}
END_TEST

START_TEST(h31_views_do_not_move_under_two_writers)
{
    start(&a, 0, "threads=1");
    start(&b, 1, "threads=1");
    start(&c, 2, "threads=1");
    agent_tell(&a, "write-groups 0 4 flush=11 compact=31");
    agent_tell(&b, "write-groups 4 4 flush=13 compact=37");
    agent_tell(&c, "read-groups 8");
    for (unsigned i = 0; i < test_times(100, 3000); i++) {
        os_nap(10000000);
        agents_sound(board, 3);
    }
    agent_progress(&c, 5, 20000);
    atomic_store(&board->stop, 1);
    agent_done(&a);
    agent_done(&b);
    agent_done(&c);
    agent_quit(&a);
    agent_quit(&b);
    agent_quit(&c);
}
END_TEST

/* An opener killed while it makes the shared state: the next one starts over. */
/* A reader that began to look while a writer recovered, and looked on when the writer was done: whatever call
 * it was late at, it must not believe its own picture beside a living writer. */
START_TEST(h27_readonly_looks_while_a_recovery_ends)
{
    start(&a, 0, "");
    agent_must(&a, "put k 0");
    start(&c, 2, "readonly=1");
    bool late = true;
    for (unsigned n = 1; late; n++) {
        ck_assert_uint_lt(n, 200);
        agent_kill(&a);
        agent_start(&a, 0);
        char command[PATH_MAX + 16];
        snprintf(command, sizeof command, "open %s", dir);
        park(&a, "RECOVER", 4, command);
        agent_must(&c, "call-at %u park", n);
        agent_tell(&c, "get k");
        late = agent_parked(&c, 20000);
        agent_unpark(&a);
        agent_done(&a);
        agent_unpark(&c);
        ck_assert_int_eq(atoi(agent_done(&c)), (int)n - 1);
        agent_must(&c, "errno-off");
        agent_must(&a, "put k %u", n);
        ck_assert_int_eq(atoi(agent_must(&c, "get k")), (int)n);
    }
    agent_quit(&a);
    agent_quit(&c);
}
END_TEST

START_TEST(h1_opener_killed_while_it_makes_the_state)
{
    static const char *const marks[] = {"OPEN", "RECOVER", "SLOT", "PREPARE"};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/STATE", dir);
    start(&b, 1, "");
    agent_must(&b, "fill x 0 100 300");
    agent_must(&b, "flush");
    agent_must(&b, "put k v");
    agent_quit(&b);
    unsigned reached = 0;
    for (size_t i = 0; i < BASE_COUNT(marks); i++) {
        for (unsigned n = 1; n <= 6; n++) {
            unlink(path);
            agent_start(&a, 0);
            agent_must(&a, "park-at %s %u", marks[i], n);
            agent_tell(&a, "open %s", dir);
            int tries = 0;
            while (!agent_parked(&a, 5) && agent_wait(&a, 5) == NULL) {
                ck_assert_int_lt(++tries, 1000);
            }
            reached += atomic_load(&board->agent[0].parked) != 0;
            agent_kill(&a);
            check_afresh("k", "v");
        }
    }
    ck_assert_uint_ge(reached, 6);
}
END_TEST

START_TEST(h1_others_wait_for_the_initialiser)
{
    char path[PATH_MAX];
    start(&a, 0, "");
    agent_must(&a, "put k v");
    agent_quit(&a);
    snprintf(path, sizeof path, "%s/STATE", dir);
    unlink(path);
    agent_start(&a, 0);
    char command[PATH_MAX + 16];
    snprintf(command, sizeof command, "open %s", dir);
    park(&a, "RECOVER", 1, command);
    agent_start(&b, 1);
    const char *text = agent_ask(&b, "open %s timeout_ms=50", dir);
    ck_assert_msg(strncmp(text, "SHALE_BUSY", 10) == 0, "%s", text);
    agent_tell(&b, "open %s", dir);
    ck_assert_ptr_null(agent_wait(&b, 50));
    agent_kill(&a);
    agent_done(&b);
    ck_assert_str_eq(agent_must(&b, "get k"), "v");
    agent_quit(&b);
}
END_TEST

START_TEST(h19_killed_while_claiming_a_row_or_queueing)
{
    start(&b, 1, "");
    agent_must(&b, "put k v");
    for (unsigned n = 1; n <= 2; n++) {
        agent_start(&a, 0);
        agent_must(&a, "park-at SLOT %u", n);
        agent_tell(&a, "open %s", dir);
        if (!agent_parked(&a, 500)) {
            agent_done(&a);
        }
        agent_kill(&a);
        ck_assert_str_eq(agent_must(&b, "stat handles"), "1");
    }
    for (unsigned n = 1; n <= 4; n++) {
        start(&a, 0, "");
        agent_must(&b, "txn begin");
        agent_must(&a, "park-at QUEUE %u", n);
        agent_tell(&a, "put k a%u", n);
        bool parked = agent_parked(&a, 300);
        ck_assert(parked || n > 1);
        agent_kill(&a);
        agent_must(&b, "txn commit");
        agent_must(&b, "put k b%u", n);
    }
    agent_quit(&b);
    check_afresh("k", "b4");
}
END_TEST

START_TEST(stalled_writer_does_the_work_of_a_killed_flusher)
{
    start(&a, 0, "max_sealed=1");
    start(&b, 1, "max_sealed=1");
    agent_must(&a, "fill x 0 100 500");
    park(&a, "FLUSH", 1, "flush");
    agent_tell(&b, "fill y 0 3000 700"); /* stalls: sealed memtables, and FLUSH is held */
    ck_assert_ptr_null(agent_wait(&b, 300));
    agent_kill(&a);
    agent_done(&b);
    ck_assert_str_eq(agent_must(&b, "scan"), "3100");
    agent_quit(&b);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("hazards");
    TCase *t = tcase_create("hazards");
    tcase_set_timeout(t, test_times(240, 3600));
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h10_stopped_holder_is_named_and_not_robbed);
    tcase_add_test(t, h10_stopped_reader_harms_nobody);
    tcase_add_test(t, h10_stopped_waiter_is_passed_by);
    tcase_add_loop_test(t, h11_h12_h13_writer_killed_in_a_commit, 0, (int)BASE_COUNT(deaths));
    tcase_add_loop_test(t, h15_killed_in_flush_compaction_manifest_rotation, 0, (int)BASE_COUNT(works));
    tcase_add_test(t, h20_garbage_collection_spares_unfinished_output);
    tcase_add_loop_test(t, who_has_lower_limits_gets_on_beside_others, 0, (int)BASE_COUNT(limits));
    tcase_add_test(t, h21_mapped_segment_is_not_recycled);
    tcase_add_test(t, h31_views_do_not_move_under_two_writers);
    tcase_add_test(t, h27_readonly_looks_while_a_recovery_ends);
    tcase_add_test(t, h1_opener_killed_while_it_makes_the_state);
    tcase_add_test(t, h1_others_wait_for_the_initialiser);
    tcase_add_test(t, h19_killed_while_claiming_a_row_or_queueing);
    tcase_add_test(t, stalled_writer_does_the_work_of_a_killed_flusher);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
