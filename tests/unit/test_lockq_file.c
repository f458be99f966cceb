/* test_lockq_file.c - the lock-queue file and the metadata: made, damaged, replaced, full. */
#include "lockq_side.h"

/* ---- the file ---- */

START_TEST(h2_files_of_older_boots_are_removed_and_their_numbers_exceeded)
{
    struct side a;
    side_open(&a);
    const uint64_t high = UINT64_C(1) << 61;
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    give(&a);
    struct lockq_header *h = a.q->header;
    h->base = high;
    /* As if it had been made before a reboot. */
    int queue_dir = -1;
    ck_assert_int_eq(os_open(dir, "queue", O_RDONLY | O_DIRECTORY, 0, &queue_dir), SHALE_OK);
    ck_assert_int_eq(os_rename(queue_dir, a.q->queue_name, "00c0ffee.queue"), SHALE_OK);
    int fd = -1;
    ck_assert_int_eq(os_open(queue_dir, "00c0ffee.mdb", O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    os_close(&fd);
    side_close(&a);
    side_open(&a);
    struct stat st;
    ck_assert_int_eq(os_stat_at(queue_dir, "00c0ffee.queue", &st), SHALE_NOTFOUND);
    ck_assert_int_eq(os_stat_at(queue_dir, "00c0ffee.mdb", &st), SHALE_NOTFOUND);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_uint_gt(a.claim.number, high + 1);
    give(&a);
    os_close(&queue_dir);
    side_close(&a);
}
END_TEST

START_TEST(h2_a_garbled_file_is_replaced)
{
    struct side a, b;
    side_open(&a);
    garble(a.q->queue_name, 0, 64);
    side_open(&b);
    ck_assert_ptr_nonnull(b.lock.slot); /* in order again, though not with a */
    struct stat mine, named;
    ck_assert_int_eq(os_stat(b.q->probe, &mine), SHALE_OK);
    ck_assert_int_eq(os_stat_at(b.q->queue_dir, b.q->queue_name, &named), SHALE_OK);
    ck_assert_uint_eq(mine.st_ino, named.st_ino);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 10), SHALE_BUSY);
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(a_file_of_another_size_is_replaced_and_a_directory_in_its_place_is_survived)
{
    struct side a;
    char where[64];
    side_open(&a);
    (void)snprintf(where, sizeof where, "queue/%s", a.q->queue_name);
    side_close(&a);
    int fd = -1;
    ck_assert_int_eq(os_open(dir, where, O_RDWR, 0, &fd), SHALE_OK);
    ck_assert_int_eq(os_truncate(fd, 100), SHALE_OK);
    os_close(&fd);
    side_open(&a);
    ck_assert_ptr_nonnull(a.lock.slot);
    side_close(&a);
    ck_assert_int_eq(os_unlink(dir, where), SHALE_OK);
    ck_assert_int_eq(os_make_dir_at(dir, where, 0700), SHALE_OK);
    side_open(&a);
    ck_assert_ptr_null(a.lock.slot);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_uint_eq(a.claim.number, 0);
    give(&a);
    side_close(&a);
}
END_TEST

/* Order is lost then; exclusion, progress and time limits are not. */
START_TEST(h5_noise_in_the_file_costs_order_only)
{
    struct side a, b;
    side_open(&a), side_open(&b);
    a.lock.turn_ns = b.lock.turn_ns = 250000;
    for (int round = 0; round < 30; round++) {
        garble(a.q->queue_name, LOCKQ_HEADER_SIZE, round % 2 == 0 ? sizeof(struct lockq_slot) : 192);
        ck_assert_int_eq(take(&a, LOCKQ_QUEUE, 20000), SHALE_OK);
        garble(a.q->queue_name, LOCKQ_HEADER_SIZE, 192);
        ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 5), SHALE_BUSY);
        give(&a);
        ck_assert(is_free(&a));
        ck_assert_int_eq(take(&b, round % 3 == 0 ? LOCKQ_BACKOFF : LOCKQ_QUEUE, 20000), SHALE_OK);
        give(&b);
    }
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(when_all_slots_are_taken_a_lock_works_unordered)
{
    struct side a;
    char name[32];
    side_open(&a);
    for (unsigned i = 0; i < LOCKQ_SLOTS - 1; i++) {
        (void)snprintf(name, sizeof name, "lock-%u", i);
        struct lockq_slot *slot = lockq_slot(a.q, name);
        ck_assert_ptr_nonnull(slot);
        ck_assert_ptr_eq(slot, lockq_slot(a.q, name));
        ck_assert_uint_eq(atomic_load(&slot->next), 0);
        atomic_store(&slot->next, 1); /* nobody else has it */
        atomic_store(&slot->served, 1);
    }
    side_close(&a);
    struct side b;
    side_open_named(&a, "one too many"), side_open_named(&b, "one too many");
    ck_assert_ptr_null(a.lock.slot);
    ck_assert_int_eq(take(&a, LOCKQ_QUEUE, -1), SHALE_OK);
    ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 10), SHALE_BUSY);
    assert_told("busy: the lock \"one too many\" is held by another process");
    give(&a);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(the_file_takes_little_room)
{
    struct side a;
    struct stat st;
    side_open(&a);
    ck_assert_int_eq(os_stat(a.q->probe, &st), SHALE_OK);
    ck_assert_int_le(st.st_blocks * 512, 32768);
    side_close(&a);
}
END_TEST

START_TEST(files_are_readable_only_where_they_are_writable)
{
    struct lockq *q;
    struct stat st;
    ck_assert_int_eq(lockq_open(dir, path, 0664, &q), SHALE_OK);
    ck_assert_int_eq(os_stat(q->probe, &st), SHALE_OK);
    ck_assert_uint_eq(st.st_mode & 0777u, 0660);
    ck_assert_int_eq(os_stat(q->queue_dir, &st), SHALE_OK);
    ck_assert_uint_eq(st.st_mode & 0777u, 0770);
    lockq_close(q);
}
END_TEST

/* Every call fails once at every place; what is given back is the lock or an error, never a hang, never a
 * leak. */
START_TEST(h23_every_system_call_may_fail)
{
    static const struct {
        enum os_op op;
        int err;
    } faults[] = {{OS_OP_OPEN, EMFILE},  {OS_OP_ALLOCATE, ENOSPC}, {OS_OP_TRUNCATE, ENOSPC},
                  {OS_OP_WRITE, ENOSPC}, {OS_OP_LINK, ENOSPC},     {OS_OP_MKDIR, ENOSPC},
                  {OS_OP_MAP, ENOMEM},   {OS_OP_LOCK, ENOLCK},     {OS_OP_TESTLOCK, EINVAL},
                  {OS_OP_STAT, EIO},     {OS_OP_READ, EIO},        {OS_OP_LIST, EIO}};
    for (size_t i = 0; i < BASE_COUNT(faults); i++) {
        for (int64_t after = 0; after < 12; after++) {
            struct side a, b;
            char here[32];
            (void)snprintf(here, sizeof here, "d-%zu-%d", i, (int)after);
            ck_assert_int_eq(os_make_dir_at(dir, here, 0700), SHALE_OK);
            int outer = dir;
            ck_assert_int_eq(os_open(outer, here, O_RDONLY | O_DIRECTORY, 0, &dir), SHALE_OK);
            side_open(&b);
            a = (struct side){.fd = open_lock_file()};
            fail_op = (int)faults[i].op, fail_errno = faults[i].err, fail_after = after;
            os_door_hook = count_calls;
            ck_assert_int_eq(lockq_open(dir, path, 0600, &a.q), SHALE_OK);
            a.lock = b.lock;
            a.lock.slot = lockq_slot(a.q, NULL);
            a.lock.fd = a.fd;
            if (a.lock.slot != NULL) {
                atomic_fetch_add(&a.lock.slot->next, 1); /* by way of the queue */
            }
            int rc = take(&a, LOCKQ_QUEUE, 300);
            os_door_hook = NULL;
            if (rc == SHALE_OK) {
                ck_assert_int_eq(take(&b, LOCKQ_ONCE, -1), SHALE_BUSY);
                give(&a);
            }
            ck_assert_int_eq(take(&b, LOCKQ_QUEUE, 20000), SHALE_OK);
            give(&b);
            side_close(&a), side_close(&b);
            os_close(&dir);
            dir = outer;
        }
    }
}
END_TEST

/* ---- metadata ---- */

static size_t rows_of(struct side *s, struct lockq_meta_row *first)
{
    struct lockq_meta_row *rows;
    size_t count;
    lockq_meta_rows(s->q, &rows, &count);
    if (count > 0 && first != NULL) {
        *first = rows[0];
    }
    free(rows);
    return count;
}

static void put_row(struct side *s, uint64_t number)
{
    struct lockq_who who;
    s->lock.label = "waiting";
    lockq_who_self(&s->lock, 12345, &who);
    lockq_meta_put(s->q, 0, number, &who);
}

START_TEST(a_described_waiter_is_seen_by_all_handles)
{
    struct side a, b;
    struct lockq_meta_row row;
    side_open(&a), side_open(&b);
    put_row(&a, 7);
    ck_assert_uint_eq(rows_of(&b, &row), 1);
    ck_assert_ptr_eq(a.q->meta, b.q->meta); /* LMDB is opened once a process */
    ck_assert_uint_eq(row.number, 7);
    ck_assert_int_eq(row.who.pid, getpid());
    ck_assert_str_eq(row.who.label, "waiting");
    ck_assert_str_eq(row.who.program, os_self()->program);
    put_row(&b, 8); /* sweeps 7, which is nobody's ticket */
    ck_assert_uint_eq(rows_of(&a, &row), 1);
    ck_assert_uint_eq(row.number, 8);
    side_close(&a), side_close(&b);
}
END_TEST

START_TEST(damaged_metadata_is_thrown_away)
{
    struct side a;
    struct stat st;
    char where[64];
    side_open(&a);
    (void)snprintf(where, sizeof where, "queue/%s", a.q->meta_name);
    for (uint64_t at = 0; at < 3; at++) {
        for (uint64_t n = 30; n > 0; n--) {
            put_row(&a, n);
        }
        ck_assert_uint_eq(rows_of(&a, NULL), 30);
        garble(a.q->meta_name, at * 4096 + at * 700, 1024);
        ck_assert_uint_eq(rows_of(&a, NULL), 0);
    }
    put_row(&a, 1);
    ck_assert_int_eq(os_unlink(dir, where), SHALE_OK);
    ck_assert_uint_eq(rows_of(&a, NULL), 0);
    put_row(&a, 1);
    int fd = -1;
    ck_assert_int_eq(os_open(dir, where, O_RDWR, 0, &fd), SHALE_OK);
    ck_assert_int_eq(os_truncate(fd, 100), SHALE_OK);
    os_close(&fd);
    ck_assert_uint_eq(rows_of(&a, NULL), 0);
    put_row(&a, 1);
    ck_assert_uint_eq(rows_of(&a, NULL), 1);
    ck_assert_int_eq(os_stat_at(dir, where, &st), SHALE_OK);
    side_close(&a);
}
END_TEST

START_TEST(full_metadata_is_thrown_away)
{
    struct side a;
    size_t most = 0;
    bool emptied = false;
    side_open(&a);
    for (uint64_t n = 9000; n > 0 && !emptied; n--) { /* downwards: the sweep leaves them */
        put_row(&a, n);
        if (n % 250 == 0) {
            size_t rows = rows_of(&a, NULL);
            emptied = rows < most;
            most = rows;
        }
    }
    ck_assert(emptied);
    ck_assert_uint_gt(most, 0);
    side_close(&a);
}
END_TEST

START_TEST(a_gate_that_is_held_is_not_waited_for)
{
    struct side a;
    side_open(&a);
    put_row(&a, 1);
    int fd = open_lock_file();
    ck_assert_int_eq(os_lock_try(fd, 7, 1, true), SHALE_OK);
    put_row(&a, 2);
    ck_assert_uint_eq(rows_of(&a, NULL), 0); /* could not be had */
    os_close(&fd);
    ck_assert_uint_eq(rows_of(&a, NULL), 1); /* 2 was not written */
    side_close(&a);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {
        h2_files_of_older_boots_are_removed_and_their_numbers_exceeded,
        h2_a_garbled_file_is_replaced,
        a_file_of_another_size_is_replaced_and_a_directory_in_its_place_is_survived,
        h5_noise_in_the_file_costs_order_only,
        when_all_slots_are_taken_a_lock_works_unordered,
        the_file_takes_little_room,
        files_are_readable_only_where_they_are_writable,
        h23_every_system_call_may_fail,
        a_described_waiter_is_seen_by_all_handles,
        damaged_metadata_is_thrown_away,
        full_metadata_is_thrown_away,
        a_gate_that_is_held_is_not_waited_for,
        NULL,
    };
    return run_suite("lockq_file", tests);
}
