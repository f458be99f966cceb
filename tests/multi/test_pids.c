/* test_pids.c - hazard 8: pids come again. No lock, no row, no place in the queue and no word that is shown
 * to people may go over to the process that has a dead one's pid. */
#include "lib/lib.h"
#include "db/db.h"
#include "lockq/queue.h"

#include <linux/sched.h>
#include <sched.h>
#include <shale/lockq.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *dir;
static struct board *board;
static struct agent a, b;
static shale_db *db;

static void setup(void)
{
    dir = scratch_dir("pids");
    board = proc_board();
    db = open_small(dir);
}

static void teardown(void)
{
    assert_ok(shale_close(db));
    board_close(board);
    free(dir);
}

static void start(struct agent *x, unsigned id)
{
    agent_start(x, id);
    agent_must(x, "open %s", dir);
}

/* A process of that pid (0: any), which is stopped. 0: there may be none (who asks may not choose, or another
 * has just got it). */
static pid_t stopped_process(pid_t wanted)
{
    struct clone_args args = {.exit_signal = SIGCHLD,
                              .set_tid = wanted != 0 ? (uint64_t)(uintptr_t)&wanted : 0,
                              .set_tid_size = wanted != 0};
    int status;
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) {
        printf("skip h8: a process of a chosen pid: %s\n", strerror(errno));
        return 0;
    }
    if (pid == 0) {
        for (;;) {
            (void)syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP); /* not getpid(): it may remember */
        }
    }
    ck_assert_int_eq(waitpid((pid_t)pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status));
    return (pid_t)pid;
}

static void end(pid_t pid)
{
    if (pid != 0) {
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    }
}

static int count_peer(void *ctx, const shale_peer *peer)
{
    ck_assert_int_eq(peer->pid, getpid());
    ++*(unsigned *)ctx;
    return 0;
}

static int count_ticket(void *ctx, const shale_ticket *t)
{
    (void)t;
    ++*(unsigned *)ctx;
    return 0;
}

static void assert_alone(void)
{
    unsigned peers = 0, tickets = 0;
    assert_ok(shale_who(db, count_peer, &peers));
    ck_assert_uint_eq(peers, 1);
    ck_assert_uint_eq(STAT(db, handles), 1);
    assert_ok(lockq_list(db->lockq, db->fresh_fd, NULL, count_ticket, &tickets));
    ck_assert_uint_eq(tickets, 0);
}

START_TEST(h8_whoever_has_a_dead_ones_pid_holds_nothing)
{
    pid_t holder = 0, waiter = 0;
    start(&a, 0);
    start(&b, 1);
    agent_must(&a, "txn begin");
    agent_must(&a, "txn put k a");
    agent_tell(&b, "put k b");
    while (agent_wait(&b, 50) == NULL && atomic_load(&db->write_slot->next) == 0) {
    }
    os_nap(50000000); /* so that it describes itself in the queue's metadata */
    pid_t pids[] = {a.pid, b.pid};
    agent_kill(&a);
    agent_kill(&b);
    holder = stopped_process(pids[0]);
    waiter = stopped_process(pids[1]);
    assert_alone();
    assert_ok(shale_put(db, "k", 1, "c", 1, SHALE_NOWAIT)); /* nobody is before us */
    expect(db, NULL, "k", "c");
    assert_alone();
    end(holder);
    end(waiter);
}
END_TEST

/* Tells the holder's process by its record. */
static void forge_record(int64_t pid, uint64_t start_time)
{
    struct lockq_record *r = &db->write_slot->record[0];
    atomic_store(&r->pid, (uint64_t)pid);
    atomic_store(&r->start_time, start_time);
}

static uint64_t start_time_of(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long long start = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    fclose(f);
    const char *p = strrchr(line, ')');
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &start),
        1);
    return start;
}

static void assert_busy(bool stopped)
{
    assert_ok(shale_set_timeout(db, 30));
    assert_status(shale_put(db, "k", 1, "d", 1, 0), SHALE_BUSY);
    ck_assert_msg((strstr(shale_errmsg(), "stopped") != NULL) == stopped, "%s", shale_errmsg());
}

/* The holder that a record names is gone, and lives on in whoever has its descriptor; its pid is another's,
 * who is stopped. That one is not the holder. */
START_TEST(h8_a_stopped_process_of_another_start_time_is_not_the_holder)
{
    start(&a, 0);
    agent_must(&a, "txn begin");
    pid_t other = stopped_process(0);
    ck_assert_int_ne(other, 0);
    uint64_t born = start_time_of(other);
    assert_busy(false);
    forge_record(other, born);
    assert_busy(true);
    forge_record(other, born - 1);
    assert_busy(false);
    end(other);
    agent_must(&a, "txn abort");
    agent_quit(&a);
    assert_ok(shale_put(db, "k", 1, "e", 1, 0));
}
END_TEST

/* A record is no lock: one that names a living process stops nobody, and is believed by nobody. */
START_TEST(h8_a_record_of_a_living_process_does_not_hold)
{
    forge_record(getppid(), start_time_of(getppid()));
    atomic_store(&db->write_slot->record[0].number, 77);
    assert_alone();
    assert_ok(shale_put(db, "k", 1, "v", 1, SHALE_NOWAIT));
    /* the same for a row of STATE: the pid is alive, and the row's byte is nobody's */
    struct state_row *row = &db->state->rows[db->row_index + 1];
    atomic_store(&row->pid, (uint64_t)getppid());
    atomic_store(&row->start_time, start_time_of(getppid()));
    assert_alone();
    start(&a, 0); /* takes that very row */
    ck_assert_int_eq((int64_t)atomic_load(&row->pid), a.pid);
    agent_quit(&a);
    assert_alone();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("pids");
    TCase *t = tcase_create("pids");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, h8_whoever_has_a_dead_ones_pid_holds_nothing);
    tcase_add_test(t, h8_a_stopped_process_of_another_start_time_is_not_the_holder);
    tcase_add_test(t, h8_a_record_of_a_living_process_does_not_hold);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
