/* db.h - the database: what a handle is, and how its parts call each other.
 *
 *   put  group.c: write group -> WRITE in its turn (lock.c) -> write.c: append, index, publish -> sync.c
 *   get  read.c: view.c gives (view, seq) without a lock or a system call -> memtables, L0, one table a level
 *   work work.c: flush.c (sealed memtables to L0), compact.c (levels), segment.c (next segment), by whoever
 * gets the lock open open.c: create, attach, warm; recover.c: cold
 *
 * Orders of locks [I-3]: WRITE, OPEN, FLUSH, MANIFEST, SYNC. Nobody waits for WRITE while holding another
 * role. Process-private mutexes are leaves unless said: group_mutex and mems_mutex are never held over a
 * wait; adopt_mutex may be held over file reads.
 */
#ifndef DB_DB_H
#define DB_DB_H

#include "base/options.h"
#include "lockq/lockq.h"
#include "mem/filter.h"
#include "os/os.h"
#include "table/table.h"
#include "version/version.h"
#include "wal/wal.h"

#define DB_MAX_KEY     65535u
#define DB_MAX_VALUE   (256u << 20)
#define DB_MAX_BATCH   (UINT64_C(1) << 30)
#define DB_MAX_HAZARDS 512
#define DB_CALLS_ALONE 2                 /* that a handle makes before its threads start */
#define DB_MAX_MEMS    80                /* sealed (at most 64 and a few) and active */
#define DB_MOST_SEALED (DB_MAX_MEMS - 4) /* whatever a handle's own limit */

/* What a private replay depends on. */
struct db_seen {
    ino_t state_ino; /* 0: there was none */
    bool mapped;     /* by this handle: then these two are its words */
    uint64_t magic, generation;
    uint64_t manifest, length;
};

/* An immutable picture of the database: a version and the memtables over it. (view, seq) is a snapshot [I-9];
 * it is pinned by its mappings alone [I-10]. */
struct db_view {
    _Atomic uint32_t refs;
    struct shale_db *db;             /* in whose list it stands; NULL: in none */
    struct db_view *older, **linked; /* under db->views_mutex */
    struct db_view *next_given_up;   /* under db->adopt_mutex */
    unsigned born;                   /* os_fork_generation(): a forked child leaves the list alone */
    uint64_t generation, epoch;
    uint32_t active;     /* number of mem[0] */
    bool private_replay; /* of a read-only handle without a living STATE */
    uint64_t private_seq;
    struct db_seen seen; /* of a private replay: before it began */
    _Atomic bool pinned; /* every table of the version is open */
    struct version *version;
    unsigned mem_count;
    struct mem_index *mem[]; /* newest first */
};

/* A thread's place in a handle: the view it is reading from (so that it is not released), and counters that
 * it need not share. */
struct db_hazard {
    BASE_ALIGNED(128) _Atomic(struct db_view *) view;
    _Atomic uint64_t gets, gets_found;
    _Atomic uint64_t gets_folded, found_folded; /* what the row has of them */
};

#define DB_NEAR_HAZARDS 8u
#define DB_NEAR_SIZE    (DB_NEAR_HAZARDS * sizeof(struct db_hazard))
#define DB_FAR_SIZE     ((DB_MAX_HAZARDS - DB_NEAR_HAZARDS) * sizeof(struct db_hazard))

/* A memtable that this handle maps. suspect: LSNs that an earlier syncer attempted and did not confirm before
 * this handle opened the segment; rewritten before its first fdatasync (the kernel reports an error to open
 * descriptors once). */
struct db_mem {
    struct mem_index *mem;
    uint64_t suspect_from, suspect_to;
};

struct db_writer; /* group.c */

/* WRITE kept between two commits (keep.c). Written under the gate of WRITE. */
struct db_keep {
    _Atomic bool kept;
    bool running;             /* there is a keeper */
    unsigned streak;          /* commits that came soon after the one before */
    uint32_t wanted;          /* as last seen */
    int64_t last, not_before; /* when a commit was last seen; nothing is kept until then */
    _Atomic uint32_t resumed; /* commits that found it kept: the keeper sees whether anybody commits */
    /* not under the gate */
    _Atomic uint32_t phase;  /* of the keeper's life */
    _Atomic uint32_t asleep; /* it sleeps on this word, and will not look by itself */
    _Atomic bool stopping;
    pthread_t thread;
};

struct shale_db {
    /* set at open, constant after */
    shale_options options;
    char *path; /* for messages */
    int dirfd;
    int mem_dirfd; /* where the indices are: dirfd, unless STATE names a mem_dir. Read-only: under adopt_mutex
                    */
    uint64_t mem_generation; /* read-only: of the STATE for which mem_dirfd was opened */
    int live_fd, fresh_fd;   /* LIVE; an open file of LOCK that never holds anything (tests of lent locks) */
    dev_t lock_dev;
    ino_t lock_ino;
    bool readonly;
    bool write_in_place;        /* mapped stores are safe on this file system */
    _Atomic bool forked;        /* set in a forked child: the locks are the parent's */
    struct shale_db *next_open; /* all handles of the process, for fork (open.c) */
    uint64_t owner;             /* random, never 0: who has a turn */
    unsigned char uuid[VERSION_UUID_SIZE];
    struct os_roles roles;
    struct state_map state_map;
    _Atomic(struct state *) state; /* NULL: read-only and there is no usable one (yet) */
    struct state_row *row;         /* ours, or &own_row */
    struct state_row *own_row;
    int row_index;          /* -1: unlisted */
    _Atomic bool told_self; /* row says all of who we are */
    struct lockq *lockq;
    struct lockq_slot *write_slot;
    struct cache *cache;
    struct table_counters table_counters;
    enum lockq_lent lent; /* WRITE is held by an ancestor: write under NESTED */
    int lent_fd;

    _Atomic uint32_t refs; /* the user's handle, and every snapshot, iterator, value that lives on */
    _Atomic bool closed;
    _Atomic uint32_t interrupts;
    _Atomic int64_t timeout_ms;

    /* views: current is replaced under adopt_mutex; read through hazards */
    _Atomic(struct db_view *) current;
    pthread_mutex_t adopt_mutex;
    struct db_view *retired[16]; /* replaced, perhaps still in a hazard */
    unsigned retired_count;
    struct db_view *given_up; /* replaced and in no hazard: to be released */
    unsigned given_up_count;
    struct db_hazard *near_hazards;          /* of the first DB_NEAR_HAZARDS thread numbers */
    _Atomic(struct db_hazard *) far_hazards; /* of the others; NULL until one of them reads */
    pthread_mutex_t views_mutex;
    struct db_view *views; /* all that anybody still holds: snapshots, iterators, values */

    /* memtables mapped by this handle, by number, under mems_mutex */
    pthread_mutex_t mems_mutex;
    struct db_mem mems[DB_MAX_MEMS];
    unsigned mem_count;
    struct mem_index *_Atomic garbage; /* given up, not freed yet; of any thread */
    _Atomic unsigned garbage_count;
    _Atomic bool garbage_told; /* a maintenance thread knows of all of it */

    /* the write group, under group_mutex; the rest of this block under WRITE */
    pthread_mutex_t group_mutex;
    struct db_writer *group_head, *group_tail;
    struct mem_index *active; /* a reference: the segment that was active when we last wrote */
    struct lockq_lock write_lock;
    struct lockq_claim claim;
    struct db_keep keep;
    _Atomic uint32_t compacting_all;       /* calls that are about to compact all of it: leave it to them */
    _Atomic uint64_t prepare_at;           /* LSN from which the next segment is due */
    _Atomic uint64_t prepare_told;         /* LSN from which it is worth telling again */
    _Atomic uint64_t delay_debt, delay_ns; /* growing delays: ns slept off, ns a KiB */
    _Atomic uint64_t calm_epoch, calm_active; /* when nothing stalled, as last looked at */
    _Atomic uint64_t owed_lsn;                /* the end of this handle's last interval commit */

    /* open write transactions, under group_mutex */
    struct shale_txn *txns;

    /* read-only: under adopt_mutex */
    struct state_map old_states[8]; /* replaced files of STATE, mapped until close */
    unsigned old_state_count;

    /* maintenance threads; under threads_mutex until they are stopped */
    pthread_mutex_t threads_mutex;
    pthread_t *threads;
    unsigned thread_count;
    _Atomic uint32_t calls_alone; /* so many calls more are made before they start; 0: they have. Also
                                     without threads: until then its row does not say all of who it is */
    _Atomic uint32_t stopping;
    pthread_mutex_t compact_mutex; /* who picks next */
    uint64_t compact_cursor[VERSION_LEVELS];
    int64_t last_sweep;
};

/* ---- handle.c: checks at the door of every public call ---- */

int db_check(shale_db *db);               /* SHALE_INVALID closed or NULL, SHALE_FORKED */
int db_check_write(shale_db *db);         /* and SHALE_READONLY */
int db_check_removed(const shale_db *db); /* SHALE_IO: the directory was removed under the handle */
shale_db *db_ref(shale_db *db);
void db_unref(shale_db *db);          /* the last one frees the memory */
struct os_wait db_wait(shale_db *db); /* the handle's time-out, from now; interruptible */
struct os_wait db_wait_ms(shale_db *db, int64_t timeout_ms);
#define DB_COUNT(db, name, n)                                                                                \
    atomic_fetch_add_explicit(&(db)->row->counters.name, (uint64_t)(n), memory_order_relaxed)
void db_log(shale_db *db, int level, const char *fmt, ...)
    BASE_PRINTF(3, 4);                                               /* level: 0 error, 1 warning, 2 note */
void db_doing(shale_db *db, const char *fmt, ...) BASE_PRINTF(2, 3); /* what `who` shows; "" when idle */
void db_progress(shale_db *db, uint64_t done, uint64_t total);

/* ---- view.c ---- */

/* Pins the current view for this thread, adopting what moved; *seq: everything up to it is in the view. */
struct db_guard {
    struct db_view *view;
    struct db_hazard *hazard; /* NULL: the view is held by a reference */
};
int db_view_enter(shale_db *db, struct db_guard *g, uint64_t *seq);
void db_view_leave(shale_db *db, struct db_guard *g);
unsigned db_hazards_top(void); /* those at and above were never used */
/* Of the thread with that number; NULL: no thread ever read that is not among the first. */
BASE_INLINE struct db_hazard *db_hazard(const shale_db *db, unsigned number)
{
    if (BASE_LIKELY(number < DB_NEAR_HAZARDS)) {
        return &db->near_hazards[number];
    }
    struct db_hazard *far = atomic_load_explicit(&db->far_hazards, memory_order_acquire);
    return far != NULL ? &far[number - DB_NEAR_HAZARDS] : NULL;
}
/* The same as a counted reference, for snapshots, iterators, flush, compaction. */
int db_view_get(shale_db *db, struct db_view **view, uint64_t *seq);
struct db_view *db_view_ref(struct db_view *view);
void db_view_link(shale_db *db, struct db_view *view); /* a new one, into the handle's list */
void db_view_unref(struct db_view *view);
/* Opens every table of the view, so that it stays readable whatever is unlinked later. SHALE_NOTFOUND (no
 * text): a table is gone, take another view. */
int db_view_pin(shale_db *db, struct db_view *view);
/* Makes the current view the newest. */
int db_adopt(shale_db *db);
void db_drop_stale_view(shale_db *db); /* the maintenance thread's: an idle handle must not keep old files */
void db_views_free(shale_db *db, unsigned most); /* releases what was replaced, if that is more than most */
void db_views_release(shale_db *db);             /* at close */

static inline uint32_t db_active(const struct state *s)
{
    return wal_lsn_number(atomic_load_explicit(&s->wal_end, memory_order_acquire));
}

/* ---- read.c ---- */

struct db_hit {
    uint8_t type;
    struct slice value;
    struct table_pin pin; /* of a cached block; empty: the view keeps the bytes */
    struct table *table;  /* where it came from; NULL: a memtable */
};
/* The newest entry with sequence number <= seq; SHALE_NOTFOUND also for a tombstone. SHALE_NOTFOUND with
 * *gone: a table was unlinked, the view is stale. */
int db_view_lookup(shale_db *db, struct db_view *view, uint64_t seq, struct slice key, struct db_hit *hit,
                   bool *gone);
/* A value of the caller's: a copy of a small one, else pinned; hit's pin is taken over. */
int db_value_make(shale_db *db, struct db_view *view, struct db_hit *hit, shale_value *val);
int db_value_copy(struct slice from, shale_value *val);
struct shale_snapshot {
    shale_db *db;
    struct db_view *view;
    uint64_t seq;
};
/* The (view, seq) that a call with this snapshot (NULL: now) reads, pinned as a reference. Checks closed and
 * forked. */
int db_snapshot_view(shale_db *db, const shale_snapshot *snap, struct db_view **view, uint64_t *seq);

/* ---- batch.c ---- */

struct shale_batch {
    struct buf payload; /* entries as in the log */
    uint32_t count, deletes;
};

/* May a batch of size bytes and count entries grow by so much? TOOBIG */
int db_check_room(uint64_t size, uint64_t count, uint64_t bytes, uint64_t entries);
int db_check_entry(size_t keylen, const void *key, size_t vallen, const void *val); /* INVALID, TOOBIG */

/* ---- lock.c: WRITE, or NESTED under a lent WRITE ---- */

int db_write_lock(shale_db *db, const struct os_wait *wait,
                  enum lockq_how how); /* BUSY names the holder; INUSE */
int db_write_busy(shale_db *db);       /* SHALE_BUSY with the text that names who holds WRITE */
void db_write_unlock(shale_db *db);
void db_write_end_turn(shale_db *db); /* about to wait for something else, WRITE not held */
int db_write_repair(shale_db *db);    /* [I-12] holder of WRITE only */
/* As db_write_unlock, by a commit that goes on to wait for nothing: the bytes may stay locked for the next.
 */
void db_write_unlock_keeping(shale_db *db);

/* ---- keep.c: WRITE kept between two commits ---- */

bool db_keep_resume(shale_db *db); /* behind the gate: is it kept, and may it be used? Else it is free now */
void db_keep_had(shale_db *db);    /* behind the gate: WRITE was taken anew */
void db_keep_over(shale_db *db);   /* holder: the bytes are about to be freed */
bool db_keep(shale_db *db);        /* holder: false, nothing was kept */
void db_keep_end(shale_db *db);    /* frees what is kept; the gate is not held */
void db_keep_start_due(shale_db *db); /* starts the keeper where it would be of use; WRITE is not held */
void db_keep_stop(shale_db *db);      /* at close */

/* ---- group.c, write.c ---- */

/* One commit: payload with count entries. flags: SHALE_SYNC, SHALE_NOSYNC, SHALE_NOWAIT. */
int db_commit(shale_db *db, struct slice payload, uint32_t count, unsigned flags);
/* The same by who holds WRITE already (a transaction): no stall, may prepare under WRITE. *lsn: the end of
 * the record, for db_sync. */
int db_commit_locked(shale_db *db, struct slice payload, uint32_t count, bool through_file, uint64_t *lsn);
/* Seals the active memtable if it holds anything, or is suspect after a failed sync. Takes and releases
 * WRITE. */
int db_seal(shale_db *db, const struct os_wait *wait);
/* The active memtable, if it is empty and WRITE is free. SHALE_BUSY (no text): else, or the next is not
 * ready. */
int db_seal_empty(shale_db *db);
bool db_wants_sync(const shale_db *db, unsigned flags);
int db_check_flags(unsigned flags);
/* After WRITE was released: wakes sleepers, syncs a durable commit up to lsn, does what a handle without
 * threads owes. */
int db_published(shale_db *db, uint64_t lsn, uint64_t bytes, bool durable, bool rotated);

/* ---- mems.c ---- */

/* The memtable of that number, opened once a handle. SHALE_NOTFOUND (no text): it is not there any more. A
 * reference. */
int db_mem_get(shale_db *db, uint32_t number, struct mem_index **mem);
struct mem_index *db_mem_cached(shale_db *db, uint32_t number); /* NULL: not opened yet. A reference. */
void db_mem_unref(shale_db *db, struct mem_index *mem);         /* quick; db NULL: freed at once */
void db_mems_prune(shale_db *db, uint32_t oldest);              /* forgets those below */
/* What was given up. gently: others get to run in between. */
void db_mems_free(shale_db *db, bool gently);
void db_mems_free_soon(
    shale_db *db); /* the same, by a maintenance thread if there is one. No lock is held. */
/* ---- segment.c ---- */

int db_prepare(shale_db *db, uint64_t need, const struct os_wait *wait); /* until ready > active */
/* Everything is in tables: the log need not keep the size that writing has given it. */
void db_log_rest(shale_db *db);
/* From where on the next is due, for a handle that has not written to the active one: only who writes knows
 * otherwise. */
void db_prepare_know(shale_db *db);
bool db_prepare_due(const shale_db *db); /* the active one is full enough and none is ready */
void db_retire(shale_db *db, uint32_t from, uint32_t to); /* segments [from, to) after the epoch moved */

/* ---- sync.c ---- */

int db_sync(shale_db *db, uint64_t lsn, bool durable_commit, const struct os_wait *wait);
void db_owe_sync(shale_db *db);          /* an interval commit was published */
int db_sync_due(shale_db *db, bool now); /* what interval commits owe */
int db_panic(shale_db *db);              /* SHALE_PANIC with its text while in panic, else SHALE_OK */

/* ---- flush.c, compact.c, work.c, sweep.c ---- */

/* Long work lets a writer run who was woken and is kept waiting: asked after every 16 KiB or 128 entries. */
struct db_breath {
    const shale_db *db;
    uint32_t due;
};
static inline void db_breathe(struct db_breath *b, size_t bytes)
{
    b->due += (uint32_t)(bytes < 16384 ? bytes : 16384) + 128;
    if (b->due >= 16384) {
        b->due = 0;
        if (lockq_overdue(&b->db->write_lock)) {
            os_yield();
        }
    }
}

/* Caller holds FLUSH. Writes the oldest sealed memtable to L0. SHALE_NOTFOUND (no text): none is sealed, or
 * others did it, or what a failed sync has lost can only be dropped after db_seal. */
int db_flush_one(shale_db *db);
/* The table of what a memtable holds up to seq, each record verified first; a number from STATE. The
 * directory is not synced. */
int db_write_mem_table(shale_db *db, struct mem_index *mem, uint64_t seq, struct table_info *info);
/* MANIFEST, then the edit; frees what it removed. next may be NULL. *unknown as version_commit. */
int db_commit_edit(shale_db *db, struct version_edit *e,
                   int (*still)(void *ctx, const struct version *current), void *ctx, bool *unknown);
void db_drop_outputs(shale_db *db, const struct version_edit *e); /* unlinks the tables that e adds */
/* The most urgent compaction whose bytes can be had; SHALE_NOTFOUND (no text): nothing to do; SHALE_BUSY (no
 * text): others do it. */
int db_compact_one(shale_db *db, uint64_t *bytes);
/* One unit of whatever is due (prepare, sync, flush, compaction). SHALE_NOTFOUND: nothing. */
int db_work_one(shale_db *db, unsigned what, uint64_t *bytes);
/* After work that returned rc. SHALE_NOSPC: what is done in the background rests for a while; and the text
 * names the database. */
int db_full(shale_db *db, int rc);
int db_work_inline(shale_db *db); /* threads=0, after a commit that sealed */
int db_stall(shale_db *db,
             const struct os_wait *wait); /* waits and helps while writers must stall; not under WRITE */
/* The same by who found no room to rotate. *over (or NULL): it need not wait, since others with higher limits
 * go on. */
int db_stall_rotation(shale_db *db, const struct os_wait *wait, bool *over);
/* By its own limits this handle has nothing to wait for, as far as it has looked. */
bool db_is_calm(shale_db *db);
void db_delay(shale_db *db, uint64_t bytes); /* growing delays before a stall */
void db_threads_begin(shale_db *db);         /* where they have not: from now on there is work for them */
void db_threads_look(shale_db *db);          /* a commit was made: is there any? */
void db_threads_call(shale_db *db);          /* a call came, and they have not begun */
void db_threads_stop(shale_db *db);
void db_wake_work(shale_db *db);
int db_sweep(shale_db *db); /* removes orphans, if all locks can be had at once */
/* Removes what no version names; LIVE is held exclusively or all of FLUSH, COMPACT, MANIFEST are. */
int db_sweep_locked(shale_db *db, const struct version *v, uint64_t below_table, bool cold);

/* ---- txn.c ---- */

void db_txn_abort_all(shale_db *db); /* at close */

/* ---- open.c, recover.c ---- */

/* No CURRENT was seen: SHALE_CORRUPT when a table or a segment with a record is there all the same;
 * SHALE_EXISTS (no text) when another process has made the database meanwhile. */
int db_check_empty(shale_db *db);

int db_recover(shale_db *db); /* cold, with OPEN and LIVE held exclusively; STATE mapped */
/* A read-only handle: attaches to a STATE that is in order (*view NULL), else replays the log into a view of
 * its own. */
int db_replay_private(shale_db *db, struct db_view **view);
/* Is it another version, or another STATE, than when the replay began? */
bool db_replay_moved(shale_db *db, const struct db_view *view);
/* Does the view hold everything that has been committed? */
bool db_replay_still_good(shale_db *db, const struct db_view *view);

/* ---- clean.c ---- */

/* OPEN and, exclusively, LIVE are held. true: db->state_map holds a STATE that is as good as a living one. */
bool db_is_warm(shale_db *db, uint64_t manifest);
/* At close: the last one out leaves STATE clean, everything synced, unless a commit is half done or a sync
 * has failed. */
int db_mark_clean(shale_db *db);

/* ---- memdir.c: the directory of the indices ---- */

/* Opens the one that STATE names; none: dirfd. SHALE_MISMATCH: this process sees none there, or another. */
int db_mem_dir_open(shale_db *db, const struct state *s);
void db_mem_dir_close(shale_db *db);
/* The handle asks for one, and STATE has none. */
bool db_mem_dir_wanted(const shale_db *db, const struct state *s);
void db_mem_dir_tell(shale_db *db);       /* a line in the log where it is elsewhere than asked for */
int db_check_mem_dir(const shale_db *db); /* SHALE_IO: it was removed under the handle */
int db_mem_make(shale_db *db, const struct wal_segment *seg); /* as mem_make; NOSPC names the directory */
/* SHALE_IO, SHALE_CORRUPT: the segments are there, but not the indices of all of them. */
int db_check_mems(const shale_db *db, uint32_t from, uint32_t to);
/* In a cold open, between state_begin and state_ready: makes the one that the option asks for. */
int db_mem_dir_make(shale_db *db, struct state *s);
void db_mem_dir_drop(shale_db *db, struct state *s); /* that open did not get to its end */
/* OPEN and, exclusively, LIVE are held: what STATE names goes, if it is this directory's own STATE. */
int db_mem_dir_remove(const struct state_map *m, const struct stat *lock);

/* ---- target.c: a directory in which a whole database is made ---- */

struct db_target {
    const char *path; /* the caller's */
    int fd;           /* -1: none */
    bool made;        /* it was missing before */
};
/* Makes it, or takes one that is empty: else SHALE_EXISTS. */
int db_target_make(const char *path, unsigned mode, struct db_target *t);
int db_target_sync(const char *path);      /* so that its name is on disk */
void db_target_clear(struct db_target *t); /* takes away what a failed attempt has put there, and closes */
/* Who may search a directory is who may read it. */
static inline unsigned db_dir_mode(unsigned mode)
{
    return mode | ((mode & 0444u) >> 2);
}

/* ---- stat.c ---- */

void db_fold_counters(shale_db *db); /* threads' own counters into the row */

/* ---- merge.c: one ordered run out of many ---- */

struct db_entry {
    struct slice key, value;
    uint64_t seq;
    uint8_t type;
};
/* A run that is neither memtable nor table: what a transaction has written. Every key once. The moves fill in
 * *entry (valid until the next move) and return SHALE_OK, SHALE_NOTFOUND or an error. */
struct db_run {
    void *ctx;
    int (*first)(void *ctx, struct db_entry *entry);
    int (*last)(void *ctx, struct db_entry *entry);
    int (*seek)(void *ctx, struct slice key, struct db_entry *entry);
    int (*seek_for_prev)(void *ctx, struct slice key, struct db_entry *entry);
    int (*next)(void *ctx, struct db_entry *entry);
    int (*prev)(void *ctx, struct db_entry *entry);
};
struct db_merge;
struct db_merge_options {
    bool fill_cache, sequential;
};
/* Runs of a view, newest first: the overlay (or NULL), memtables up to seq, L0 tables, levels. Holds no
 * reference: the caller keeps the view. */
int db_merge_view(shale_db *db, struct db_view *view, uint64_t seq, const struct db_run *overlay,
                  const struct db_merge_options *o, struct db_merge **m);
struct compaction;
/* Runs of a compaction: L0 tables (newest first) or tables of one level, all of the levels between if it says
 * so, and those of the level where it ends. */
int db_merge_tables(shale_db *db, const struct compaction *c, const struct db_merge_options *o,
                    struct db_merge **m);
void db_merge_release(struct db_merge *m); /* NULL is fine */
/* Every key once, its newest entry, tombstones included. SHALE_OK: standing at an entry (valid until the next
 * move); SHALE_NOTFOUND: past the end; an error sticks until the next positioning. */
int db_merge_first(struct db_merge *m);
int db_merge_last(struct db_merge *m);
int db_merge_seek(struct db_merge *m, struct slice key);
int db_merge_seek_for_prev(struct db_merge *m, struct slice key);
int db_merge_next(struct db_merge *m);
int db_merge_prev(struct db_merge *m);
const struct db_entry *db_merge_entry(const struct db_merge *m);

#endif
