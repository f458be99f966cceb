/* state.h - STATE: the boot-scoped shared memory of a database, mapped by every handle.
 *
 * Nothing in it is needed after a reboot [I-1]. The first line never changes its place, whatever the layout.
 * All shared words are C11 atomics. Grouped by the lock under which they are written. A cache line that
 * readers poll is written by nobody else.
 *
 * The version tuple has two slots; epoch e's slot is e & 1. [I-8] Under MANIFEST: release fence, fill the
 * other slot with relaxed stores, store epoch + 1 (release). A process killed between leaves the old tuple
 * current.
 */
#ifndef VERSION_STATE_H
#define VERSION_STATE_H

#include "os/os.h"

#define VERSION_LEVELS 7

#define STATE_NAME    "STATE"
#define STATE_MAGIC   UINT64_C(0x31657473656c6873) /* "shleste1", little-endian */
#define STATE_LAYOUT  4
#define STATE_ROWS    256
#define STATE_MEM_DIR 256

/* Counters of a handle (in its row) and of the whole database (rows plus what closed handles left). One line
 * each: name, kind (SUM or MAX), meaning. */
#define STATE_COUNTERS(X)                                                                                    \
    X(puts, SUM, "entries put")                                                                              \
    X(deletes, SUM, "entries deleted")                                                                       \
    X(gets, SUM, "point reads")                                                                              \
    X(gets_found, SUM, "point reads that found a value")                                                     \
    X(seeks, SUM, "iterator positionings")                                                                   \
    X(commits, SUM, "commits published")                                                                     \
    X(durable_commits, SUM, "commits that were synced before they returned")                                 \
    X(write_bytes, SUM, "log bytes appended")                                                                \
    X(fsyncs, SUM, "fdatasyncs of the log")                                                                  \
    X(stalls, SUM, "writes that waited for flush or compaction")                                             \
    X(stall_us, SUM, "microseconds they waited")                                                             \
    X(rotations, SUM, "memtables sealed")                                                                    \
    X(repairs, SUM, "half-done commits of killed processes finished or wiped")                               \
    X(prepared, SUM, "log segments made ready")                                                              \
    X(recycled, SUM, "of these, from a retired one")                                                         \
    X(flushes, SUM, "memtables written to level 0")                                                          \
    X(flush_bytes, SUM, "bytes of tables they made")                                                         \
    X(compactions, SUM, "compactions, trivial moves included")                                               \
    X(trivial_moves, SUM, "tables moved a level down without rewriting")                                     \
    X(compact_read_bytes, SUM, "bytes that compactions read")                                                \
    X(compact_write_bytes, SUM, "bytes that compactions wrote")                                              \
    X(adoptions, SUM, "changes of the current view")                                                         \
    X(queue_waits, SUM, "waits for the write lock")                                                          \
    X(queue_wait_us, SUM, "microseconds of them")                                                            \
    X(queue_wait_max_us, MAX, "the longest")

struct state_counters {
#define X(name, kind, text) _Atomic uint64_t name;
    STATE_COUNTERS(X)
#undef X
};

struct state_tuple {
    _Atomic uint64_t manifest; /* number */
    _Atomic uint64_t length;   /* bytes of it that count */
    _Atomic uint64_t oldest;   /* oldest memtable that is not yet in a table */
};

/* A read-write handle of any process. Believed only while its byte of LIVE is locked. */
struct state_row {
    BASE_ALIGNED(64) _Atomic uint64_t pid;
    _Atomic uint64_t pid_ns, start_time;     /* 0 until the handle's second call or first write */
    _Atomic uint64_t since;                  /* CLOCK_REALTIME ns, for people */
    _Atomic uint64_t view_epoch, view_since; /* of the cached view; view_since: CLOCK_REALTIME ns */
    _Atomic uint64_t done, total;            /* bytes of the work under way */
    char program[32];
    char doing[64]; /* text, always NUL-terminated within; may be read torn */
    struct state_counters counters;
};

struct state {
    /* for ever at these places */
    _Atomic uint64_t magic; /* stored last when STATE is initialised */
    uint32_t layout;
    uint32_t page_size;
    _Atomic uint64_t generation; /* odd while STATE is being initialised */
    unsigned char uuid[16];      /* of the database */
    unsigned char boot[16];      /* of the boot that made it */

    /* identity, written when it is initialised, under OPEN */
    BASE_ALIGNED(64) uint64_t lock_dev;
    uint64_t lock_ino, state_dev, state_ino;
    _Atomic uint64_t clean;    /* under OPEN: 1 when the last closer left everything in order, so that an open
                                  needs no recovery */
    uint64_t mem_dev, mem_ino; /* of the directory that mem_dir names; 0: not made yet, or there is none */

    /* under MANIFEST */
    BASE_ALIGNED(64) _Atomic uint64_t epoch;
    BASE_ALIGNED(64) struct state_tuple tuple[2];
    _Atomic uint64_t
        bad_manifest; /* number of a manifest whose fdatasync failed or may have: never appended to again */

    /* under WRITE */
    BASE_ALIGNED(64) _Atomic uint64_t wal_end; /* LSN: its upper half names the active segment */
    _Atomic uint64_t visible_seq;
    _Atomic uint64_t calm_seq; /* of the last commit by a handle whose own limits let it write */
    BASE_ALIGNED(64) _Atomic uint64_t in_flight; /* LSN where a record is being appended; 0: none */

    /* sync: only grow, by compare-and-swap; panic the same */
    BASE_ALIGNED(64) _Atomic uint64_t sync_attempt;
    _Atomic uint64_t synced_lsn;
    _Atomic uint64_t synced_seq; /* about: what stats show */
    _Atomic uint64_t
        sync_due;           /* CLOCK_MONOTONIC ns when some interval commit wants its sync; 0: nothing owed */
    _Atomic uint64_t panic; /* newest segment of a failed attempt; writes refuse while panic >= oldest */
    _Atomic uint64_t sync_slowest;                       /* ns, of recent syncs; decays */
    BASE_ALIGNED(64) _Atomic uint64_t durable_published; /* durable commits ever published ... */
    _Atomic uint64_t durable_synced;                     /* ... and how many of them the last sync covered */
    _Atomic uint64_t durable_group; /* what the next group is expected to have, in sixteenths */

    /* segments: ready and need only grow (need: until served) */
    BASE_ALIGNED(64) _Atomic uint64_t ready; /* highest segment that is ready */
    _Atomic uint64_t need;                   /* bytes that a large record waits for; 0: none */
    _Atomic uint64_t spare;                  /* number of a retired segment kept to be recycled; 0: none */
    _Atomic uint64_t next_table;             /* next table number to hand out */
    _Atomic uint64_t no_space; /* CLOCK_MONOTONIC ns of the last ENOSPC of background work; 0: none since */

    /* wake words; *_asleep is set by who goes to sleep and cleared by who wakes */
    BASE_ALIGNED(64) _Atomic uint32_t work;
    _Atomic uint32_t work_asleep;
    BASE_ALIGNED(64) _Atomic uint32_t change;
    _Atomic uint32_t change_asleep;
    BASE_ALIGNED(64) _Atomic uint32_t sync_word;
    _Atomic uint32_t sync_asleep;
    BASE_ALIGNED(64)
    _Atomic uint32_t room; /* moved when flush or compaction made room: stalled writers sleep on it */
    _Atomic uint32_t room_asleep;
    _Atomic uint64_t wish[VERSION_LEVELS]; /* CLOCK_MONOTONIC ns until which somebody asks that level L is not
                                              compacted of itself */

    BASE_ALIGNED(64) struct state_counters closed; /* what handles that are gone have counted */
    BASE_ALIGNED(64) struct state_row rows[STATE_ROWS];

    /* identity, too: where the indices are; "": beside the log */
    char mem_dir[STATE_MEM_DIR];
};
_Static_assert(offsetof(struct state, magic) == 0 && offsetof(struct state, generation) == 16, "for ever");
#define STATE_SIZE align_up(sizeof(struct state), 4096)

/* Raises *word to value, never lowers it. */
static inline void state_raise(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed);
    while (old < value && !atomic_compare_exchange_weak_explicit(word, &old, value, memory_order_acq_rel,
                                                                 memory_order_relaxed)) {
    }
}
/* Tells sleepers on a word that something changed; no system call when nobody sleeps. The flag is cleared
 * before the word changes: a sleeper that sets it after that has either seen the change, and then means the
 * next one, for which the flag must stay; or it has not, and then the second look sees the flag. */
static inline void state_wake(_Atomic uint32_t *word, _Atomic uint32_t *asleep)
{
    bool wake = atomic_load_explicit(asleep, memory_order_seq_cst) != 0 &&
                atomic_exchange_explicit(asleep, 0, memory_order_seq_cst) != 0;
    atomic_fetch_add_explicit(word, 1, memory_order_seq_cst);
    if (wake || atomic_load_explicit(asleep, memory_order_seq_cst) != 0) {
        os_wake(word, INT32_MAX);
    }
}

/* ---- mapping it (state.c) ---- */

struct state_map {
    struct state *state;
    bool writable;
    dev_t dev;
    ino_t ino;
};
/* Maps STATE. create: makes a file of STATE_SIZE zero bytes when there is none (or one of another size that
 * nobody uses: unlinked first; caller holds OPEN and LIVE exclusively). SHALE_NOTFOUND (no text): missing.
 * SHALE_MISMATCH: too small for what its layout says. */
int state_map(int dirfd, bool writable, bool create, unsigned mode, struct state_map *out);
void state_unmap(struct state_map *m);
/* Magic, layout, boot and identity are right (device and inode of STATE and of LOCK)?
 * SHALE_OK; SHALE_NOTFOUND (no text): not initialised, or of another boot or directory; SHALE_MISMATCH:
 * another layout or page size (of this boot: whoever holds LIVE exclusively may initialise it anew all the
 * same). Any bytes at all may stand there. */
int state_check(const struct state_map *m, const struct stat *lock);
/* Was it made for this very directory, in whatever boot, and be it half made or half dead? */
bool state_is_own(const struct state_map *m, const struct stat *lock);
/* First half of initialising, under OPEN with LIVE held exclusively: generation odd, everything zero,
 * identity. */
void state_begin(struct state_map *m, const struct stat *lock, const unsigned char uuid[16]);
/* Second half: generation even, magic last. */
void state_ready(struct state_map *m);

struct state_view { /* a tuple as it was read */
    uint64_t epoch, manifest, length;
    uint32_t oldest;
};
/* The current tuple, consistent (retries while the epoch moves). */
void state_load_tuple(const struct state *s, struct state_view *out);
/* [I-8]. Caller holds MANIFEST (or initialises). */
void state_store_tuple(struct state *s, uint64_t manifest, uint64_t length, uint32_t oldest);

/* Row i as a fresh owner: folds what the former owner left into `closed`, zeroes, fills in pid and program.
 * Caller holds its byte of LIVE. */
void state_row_claim(struct state *s, unsigned row);
/* Adds what has to be looked up in /proc: namespace and start time. Any thread of the owner, any number of
 * times. */
void state_row_tell(struct state_row *r);
/* Sums (or maxes) rows and closed; bad indices cannot happen. */
struct state_totals {
#define X(name, kind, text) uint64_t name;
    STATE_COUNTERS(X)
#undef X
};
void state_sum(const struct state *s, struct state_totals *out);

#endif
