#include "actor.h"

#include "lib/scratch.h"

#include <shale/lockq.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define BATCH_MOST 32

static struct board *board_of(const struct hand *h)
{
    return h->actor->self->board;
}

static unsigned some_flags(struct hand *h)
{
    uint64_t d = hand_dice(h, 30);
    h->nowait = d == 7;
    return d < 3 ? SHALE_SYNC : d < 6 ? SHALE_NOSYNC : d == 7 ? SHALE_NOWAIT : 0u;
}

/* A commit that took from then until now. */
static int committed(struct hand *h, int rc, int64_t from, unsigned flags)
{
    struct stage *s = h->actor->stage;
    if (rc == 0) {
        board_raise(&s->longest_ns, (uint64_t)(os_now() - from));
        stage_count(s, STAGE_commits);
        atomic_fetch_add(&s->actor[h->actor->self->id].commits, 1);
        if ((flags & SHALE_SYNC) != 0) {
            stage_count(s, STAGE_synced);
        }
    }
    return rc;
}

/* ---- commits ---- */

static int write_group(struct hand *h)
{
    unsigned flags = some_flags(h);
    int64_t from = os_now();
    return committed(h, groups_write(h->actor->db, board_of(h), h->ring.ring, flags, h->err), from, flags);
}

static int write_ring(struct hand *h)
{
    unsigned flags = some_flags(h), n = 1 + (unsigned)hand_dice(h, hand_dice(h, 20) == 0 ? 200 : BATCH_MOST);
    int64_t from = os_now();
    return committed(h, ring_write(h->actor->db, h->actor->stage, &h->ring, n, flags, h->err), from, flags);
}

static int write_solo(struct hand *h)
{
    unsigned flags = some_flags(h);
    int64_t from = os_now();
    return committed(h, ring_write_solo(h->actor->db, h->actor->stage, h->ring.ring, flags, h->err), from,
                     flags);
}

static int write_shared(struct hand *h)
{
    unsigned flags = some_flags(h);
    unsigned group = STAGE_RINGS + (unsigned)hand_dice(h, STAGE_GROUPS - STAGE_RINGS);
    int64_t from = os_now();
    return committed(h, groups_write_txn(h->actor->db, board_of(h), group, flags, h->err), from, flags);
}

static int add_to_counter(struct hand *h)
{
    unsigned flags = some_flags(h), counter = (unsigned)hand_dice(h, BOARD_COUNTERS);
    int64_t from = os_now();
    return committed(h, counters_add(h->actor->db, board_of(h), counter, flags, h->err), from, flags);
}

/* ---- reading ---- */

static int read_groups(struct hand *h)
{
    /* whole scans are slow: seldom */
    enum groups_how how = (enum groups_how)hand_dice(h, hand_dice(h, 4) == 0 ? GROUPS_HOW_COUNT : 2);
    stage_count(h->actor->stage, STAGE_reads);
    return groups_check(h->actor->db, board_of(h), STAGE_GROUPS, how, h->err);
}

static int read_ring(struct hand *h)
{
    struct stage_bounds bounds;
    shale_snapshot *snap = NULL;
    stage_count(h->actor->stage, STAGE_reads);
    ring_note_low(h->actor->stage, &bounds);
    int rc = shale_snapshot_create(h->actor->db, &snap);
    if (rc != SHALE_OK) {
        return hand_refused(h, "shale_snapshot_create", rc);
    }
    ring_note_high(h->actor->stage, &bounds);
    rc = ring_read(h->actor->db, snap, (unsigned)hand_dice(h, STAGE_RINGS),
                   (enum ring_how)hand_dice(h, RING_HOW_COUNT), &bounds, &h->seed, h->err);
    shale_snapshot_release(snap);
    return rc;
}

static int read_single_keys(struct hand *h)
{
    stage_count(h->actor->stage, STAGE_reads);
    int rc = counters_check(h->actor->db, board_of(h), BOARD_COUNTERS, h->err);
    for (unsigned i = 0; i < STAGE_RINGS && rc == 0; i++) {
        rc = ring_read_solo(h->actor->db, h->actor->stage, i, h->err);
    }
    return rc;
}

static int take_hold(struct hand *h, struct held *held)
{
    struct actor *a = h->actor;
    groups_note_low(board_of(h), &held->bounds.groups, STAGE_GROUPS);
    ring_note_low(a->stage, &held->bounds);
    int rc = shale_snapshot_create(a->db, &held->snap);
    if (rc != SHALE_OK) {
        return hand_refused(h, "shale_snapshot_create", rc);
    }
    groups_note_high(board_of(h), &held->bounds.groups, STAGE_GROUPS);
    ring_note_high(a->stage, &held->bounds);
    stage_count(a->stage, STAGE_holds);
    return groups_read(a->db, board_of(h), held->snap, STAGE_GROUPS, GROUPS_GET, &held->bounds.groups,
                       h->err);
}

/* A snapshot is held over many other deeds, and shows each time what it showed the first time. */
static int hold_snapshot(struct hand *h)
{
    struct actor *a = h->actor;
    struct held *held = &h->held[hand_dice(h, ACTOR_HELD)];
    if (held->snap == NULL) {
        return take_hold(h, held);
    }
    stage_count(a->stage, STAGE_rereads);
    enum groups_how how = (enum groups_how)hand_dice(h, hand_dice(h, 4) == 0 ? GROUPS_VIEW : 2);
    int rc = groups_read(a->db, board_of(h), held->snap, STAGE_GROUPS, how, &held->bounds.groups, h->err);
    if (rc == 0) {
        rc = ring_read(a->db, held->snap, (unsigned)hand_dice(h, STAGE_RINGS),
                       (enum ring_how)hand_dice(h, RING_HOW_COUNT), &held->bounds, &h->seed, h->err);
    }
    if (hand_dice(h, 10) == 0) {
        shale_snapshot_release(held->snap);
        held->snap = NULL;
    }
    return rc;
}

/* ---- the database's own work ---- */

static int flush(struct hand *h)
{
    stage_count(h->actor->stage, STAGE_flushes_asked);
    return hand_refused(h, "shale_flush", shale_flush(h->actor->db));
}

static int work(struct hand *h)
{
    uint64_t done;
    return hand_refused(h, "shale_work",
                        shale_work(h->actor->db, SHALE_WORK_FLUSH | SHALE_WORK_COMPACT,
                                   hand_dice(h, 2) == 0 ? 0 : 1 << 20, &done));
}

static int compact_range(struct hand *h)
{
    char low[16], high[16];
    unsigned ring = (unsigned)hand_dice(h, STAGE_RINGS);
    bool all = hand_dice(h, 3) == 0;
    size_t lowlen = (size_t)snprintf(low, sizeof low, "bulk/%02u", ring);
    size_t highlen = (size_t)snprintf(high, sizeof high, "bulk/%02u", ring + 1 + (unsigned)hand_dice(h, 8));
    stage_count(h->actor->stage, STAGE_ranges_compacted);
    return hand_refused(h, "shale_compact_range",
                        shale_compact_range(h->actor->db, all ? NULL : low, all ? 0 : lowlen,
                                            all ? NULL : high, all ? 0 : highlen, actor_progress, h->actor));
}

static int sync_all(struct hand *h)
{
    return hand_refused(h, "shale_sync", shale_sync(h->actor->db));
}

static int verify(struct hand *h)
{
    stage_count(h->actor->stage, STAGE_verifies);
    return hand_refused(h, "shale_verify", shale_verify(h->actor->db, actor_progress, h->actor));
}

/* ---- checkpoints ---- */

static struct stage_copy *claim_copy(struct hand *h, bool made, uint32_t word)
{
    unsigned start = (unsigned)hand_dice(h, STAGE_COPIES);
    for (unsigned i = 0; i < STAGE_COPIES; i++) {
        struct stage_copy *copy = &h->actor->stage->copy[(start + i) % STAGE_COPIES];
        uint32_t old = atomic_load(&copy->word);
        if ((old & 0xff) == (made ? COPY_MADE : COPY_FREE) &&
            atomic_compare_exchange_strong(&copy->word, &old, word)) {
            return copy;
        }
    }
    return NULL;
}

static int make_copy(struct hand *h)
{
    struct actor *a = h->actor;
    struct stage_copy *copy = claim_copy(h, false, COPY_WORD(COPY_MAKING, a->self->id));
    char path[PATH_MAX];
    if (copy == NULL) {
        return 0;
    }
    atomic_store(&copy->torn, 0);
    copy->serial = atomic_fetch_add(&a->stage->serial, 1);
    stage_copy_path(a->dir, copy, path);
    groups_note_low(board_of(h), &copy->bounds.groups, STAGE_GROUPS);
    ring_note_low(a->stage, &copy->bounds);
    int rc = shale_checkpoint(a->db, path, actor_progress, a);
    if (rc != SHALE_OK) {
        hand_refused(h, "shale_checkpoint", rc);
        (void)scratch_remove(path);
        atomic_store(&copy->word, COPY_FREE);
        return -1;
    }
    groups_note_high(board_of(h), &copy->bounds.groups, STAGE_GROUPS);
    ring_note_high(a->stage, &copy->bounds);
    stage_count(a->stage, STAGE_copies);
    atomic_store(&copy->word, COPY_MADE);
    return 0;
}

static int check_opened_copy(struct hand *h, shale_db *db, struct stage_copy *copy, bool readonly)
{
    struct actor *a = h->actor;
    struct stage_bounds bounds = copy->bounds;
    if (atomic_load(&copy->torn) != 0) {
        groups_note_high(board_of(h), &bounds.groups, STAGE_GROUPS);
        ring_note_high(a->stage, &bounds);
    }
    int rc = groups_read(db, board_of(h), NULL, STAGE_GROUPS, (enum groups_how)hand_dice(h, GROUPS_VIEW),
                         &bounds.groups, h->err);
    for (unsigned i = 0; i < STAGE_RINGS && rc == 0; i++) {
        rc = ring_read(db, NULL, i, (enum ring_how)hand_dice(h, RING_HOW_COUNT), &bounds, &h->seed, h->err);
        (void)actor_progress(a, 0, 0);
    }
    if (rc == 0 && hand_dice(h, 2) == 0) {
        rc = hand_refused(h, "shale_verify of a checkpoint", shale_verify(db, actor_progress, a));
    }
    if (rc == 0 && !readonly && hand_dice(h, 2) == 0) {
        rc = hand_refused(h, "shale_put in a checkpoint", shale_put(db, "counter/copy", 12, "1", 1, 0));
    }
    return rc;
}

/* 1: it is to be tried again later. */
static int check_copy_at(struct hand *h, struct stage_copy *copy, const char *path)
{
    shale_options o;
    shale_db *db = NULL;
    shale_options_init(&o);
    o.create = false;
    o.threads = 0;
    o.readonly = hand_dice(h, 2) == 0;
    o.durable = SHALE_DURABLE_OFF;
    int rc = shale_open(path, &o, &db);
    if (rc != SHALE_OK) {
        if (actor_excuses(h->actor, rc)) {
            return 1;
        }
        return atomic_load(&copy->torn) != 0 ? 0 : hand_refused(h, "shale_open of a checkpoint", rc);
    }
    int bad = check_opened_copy(h, db, copy, o.readonly), status = groups_status;
    rc = shale_close(db);
    if (bad == 0) {
        return hand_refused(h, "shale_close of a checkpoint", rc);
    }
    groups_status = status;
    return status != SHALE_OK && actor_excuses(h->actor, status) ? 1 : -1;
}

static int check_copy(struct hand *h)
{
    struct actor *a = h->actor;
    struct stage_copy *copy = claim_copy(h, true, COPY_WORD(COPY_CHECKING, a->self->id));
    char path[PATH_MAX];
    if (copy == NULL) {
        return 0;
    }
    stage_copy_path(a->dir, copy, path);
    int rc = check_copy_at(h, copy, path);
    if (rc != 0) {
        atomic_store(&copy->word, COPY_MADE);
        return rc > 0 ? 0 : rc;
    }
    stage_count(a->stage, STAGE_copies_checked);
    atomic_store(&copy->word, COPY_WORD(COPY_REMOVING, a->self->id));
    (void)scratch_remove(path);
    atomic_store(&copy->word, COPY_FREE);
    return 0;
}

/* ---- locks ---- */

static int inside_lock(struct hand *h, struct stage_lock *lock, uint64_t number)
{
    struct stage *s = h->actor->stage;
    uint32_t before = atomic_exchange(&lock->inside, h->actor->self->id + 1);
    uint64_t last = atomic_load(&lock->number);
    if (before != 0 && atomic_load(&s->actor[before - 1].doomed) == 0) {
        return hand_wrong(h, "named lock: had while actor %u had it", before - 1);
    }
    if (number == 0 && actor_excuses(h->actor, SHALE_NOSPC)) {
        number = last; /* no room for the queue: unordered, and said so */
    } else if (number <= last) {
        return hand_wrong(h, "named lock: number %llu after %llu", (unsigned long long)number,
                          (unsigned long long)last);
    }
    atomic_store(&lock->number, number);
    if (hand_dice(h, 3) == 0) {
        os_nap((int64_t)hand_dice(h, 2000000));
    }
    atomic_store(&lock->inside, 0);
    return 0;
}

static int named_lock(struct hand *h)
{
    char name[32];
    unsigned i = (unsigned)hand_dice(h, STAGE_LOCKS);
    shale_held *held = NULL;
    snprintf(name, sizeof name, "torture-%u", i);
    int rc = shale_lockq_acquire(h->actor->locks, name, SHALE_LOCK_EXCLUSIVE,
                                 hand_dice(h, 4) == 0 ? 5 : 30000, "actor", &held);
    if (rc != SHALE_OK) {
        return hand_refused(h, "shale_lockq_acquire", rc);
    }
    stage_count(h->actor->stage, STAGE_named_locks);
    int bad = inside_lock(h, &h->actor->stage->lock[i], shale_lockq_number(held));
    rc = shale_lockq_release(held);
    return bad != 0 ? bad : hand_refused(h, "shale_lockq_release", rc);
}

/* The database's write lock, as lockd takes it. */
static int write_lock(struct hand *h)
{
    shale_held *held = NULL;
    int rc = shale_lockq_acquire(h->actor->locks, NULL, SHALE_LOCK_EXCLUSIVE, 2000, "actor", &held);
    if (rc != SHALE_OK) {
        return hand_refused(h, "shale_lockq_acquire", rc);
    }
    stage_count(h->actor->stage, STAGE_write_locks);
    os_nap((int64_t)hand_dice(h, 1000000));
    return hand_refused(h, "shale_lockq_release", shale_lockq_release(held));
}

/* ---- looking, waiting, forking ---- */

static int count_peer(void *ctx, const shale_peer *peer)
{
    unsigned *n = ctx;
    *n += peer->program != NULL && peer->doing != NULL;
    return 0;
}

static int look(struct hand *h)
{
    static const char *const properties[] = {"counters",  "levels",         "log",
                                             "memtables", "unlinked-bytes", "uuid"};
    struct actor *a = h->actor;
    char text[8192];
    unsigned peers = 0;
    uint64_t bytes;
    shale_stats stats = {.size = sizeof stats};
    int rc = hand_refused(h, "shale_stat", shale_stat(a->db, &stats));
    if (rc == 0) {
        board_raise(&a->stage->flushes, stats.flushes);
        board_raise(&a->stage->compactions, stats.compactions);
        rc = hand_refused(h, "shale_who", shale_who(a->db, count_peer, &peers));
    }
    if (rc == 0) {
        rc = hand_refused(
            h, "shale_property",
            shale_property(a->db, properties[hand_dice(h, BASE_COUNT(properties))], text, sizeof text, NULL));
    }
    if (rc == 0) {
        rc = hand_refused(h, "shale_approximate_size",
                          shale_approximate_size(a->db, "bulk/03", 7, "bulk/09", 7, &bytes));
    }
    return rc;
}

static int wait_for_change(struct hand *h)
{
    shale_stats stats = {.size = sizeof stats};
    uint64_t now;
    int rc = shale_stat(h->actor->db, &stats);
    return hand_refused(h, "shale_wait_change",
                        rc != SHALE_OK ? rc : shale_wait_change(h->actor->db, stats.seq, 20, &now));
}

static int idle(struct hand *h)
{
    os_nap((int64_t)hand_dice(h, 30000000));
    return 0;
}

static int fork_once(struct hand *h)
{
    int status = 0;
    stage_count(h->actor->stage, STAGE_forks);
    pid_t child = fork();
    if (child == 0) {
        _exit(shale_put(h->actor->db, "k", 1, "v", 1, 0) == SHALE_FORKED ? 0 : 1);
    }
    if (child < 0) {
        return hand_wrong(h, "fork: no process");
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status == 0 ? 0 : hand_wrong(h, "a forked child's put ended with %#x", (unsigned)status);
}

static int interrupt(struct hand *h)
{
    atomic_store(&h->actor->interrupted, true);
    shale_interrupt(h->actor->db);
    return 0;
}

/* ---- faults ---- */

/* For this process alone the disk is full for a moment. */
static int pretend_full(struct hand *h)
{
    struct actor *a = h->actor;
    int64_t until = os_now() + (int64_t)hand_dice(h, 1500) * 1000000;
    if (h->index != 0 || atomic_load(&a->shut_until) != 0) {
        return 0;
    }
    stage_excuse(&a->stage->full_until, until + STAGE_GRACE_NS);
    atomic_store(&a->fault_until, until + STAGE_GRACE_NS); /* what it can neither write nor wipe is a panic */
    atomic_store(&a->shut_until, until);
    agent_door_shut(hand_dice(h, 2) == 0 ? OS_OP_ALLOCATE : OS_OP_WRITE, 1 + (int64_t)hand_dice(h, 20),
                    ENOSPC, true);
    return 0;
}

/* A sync that is to come fails. */
static int break_sync(struct hand *h)
{
    struct actor *a = h->actor;
    int64_t until = os_now() + 2000000000;
    if (h->index != 0 || atomic_load(&a->shut_until) != 0) {
        return 0;
    }
    stage_excuse(&a->stage->panic_until, until + STAGE_GRACE_NS);
    atomic_store(&a->fault_until, until + STAGE_GRACE_NS);
    atomic_store(&a->shut_until, until);
    agent_door_shut(OS_OP_FDATASYNC, 1 + (int64_t)hand_dice(h, 4), EIO, false);
    return 0;
}

const struct deed deeds[] = {
    {"write-group", 100, DEED_WRITES | DEED_RING, write_group},
    {"write-ring", 300, DEED_WRITES | DEED_RING, write_ring},
    {"write-solo", 60, DEED_WRITES | DEED_RING, write_solo},
    {"write-shared", 80, DEED_WRITES, write_shared},
    {"add-to-counter", 80, DEED_WRITES, add_to_counter},
    {"read-groups", 30, 0, read_groups},
    {"read-ring", 40, 0, read_ring},
    {"read-single-keys", 40, 0, read_single_keys},
    {"hold-snapshot", 12, 0, hold_snapshot},
    {"flush", 4, DEED_WRITES | DEED_MAY_BUSY, flush},
    {"work", 10, DEED_WRITES | DEED_MAY_BUSY, work},
    {"compact-range", 1, DEED_WRITES | DEED_MAY_BUSY, compact_range},
    {"sync", 6, DEED_WRITES, sync_all},
    {"verify", 1, 0, verify},
    {"make-copy", 2, DEED_WRITES, make_copy},
    {"check-copy", 6, 0, check_copy},
    {"named-lock", 20, DEED_MAY_BUSY, named_lock},
    {"write-lock", 3, DEED_MAY_BUSY, write_lock},
    {"look", 20, 0, look},
    {"wait-for-change", 4, DEED_MAY_BUSY, wait_for_change},
    {"idle", 6, 0, idle},
    {"fork", 1, DEED_WRITES, fork_once},
    {"interrupt", 1, DEED_THREADS, interrupt},
    {"pretend-full", 3, DEED_WRITES | DEED_FULL, pretend_full},
    {"break-sync", 2, DEED_WRITES | DEED_BREAKS, break_sync},
    {NULL, 0, 0, NULL},
};

const char *stage_doing(uint32_t doing)
{
    return doing == 0 || doing > BASE_COUNT(deeds) - 1 ? "-" : deeds[doing - 1].name;
}
