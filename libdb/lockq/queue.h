/* queue.h - inside the lock queue: the mapped lock-queue file, tickets, holder records, metadata. Only the
 * files of this folder include it; the interface is lockq.h, the picture stands at the top of queue.c.
 *
 * Everything in the mapped file is other processes' word: it is read with atomic loads, and whatever it says
 * can at most cost order or time. Exclusion never depends on it. */
#ifndef LOCKQ_QUEUE_H
#define LOCKQ_QUEUE_H

#include "lockq/lockq.h"

#define LOCKQ_SLOTS   1024 /* locks that a directory can have in order; slot 0 is the write lock */
#define LOCKQ_WORDS   64   /* wake words a lock (wake.c) */
#define LOCKQ_RECORDS 8    /* shared holders that are listed by name */
#define LOCKQ_NAME    255

#define LOCKQ_NUMBER_BITS 48 /* a ticket's byte in the lock-queue file is slot << 48 | number */
#define LOCKQ_NUMBER_END  (UINT64_C(1) << LOCKQ_NUMBER_BITS)

/* A shared holder's record counts only while its byte of LOCK, locked through the same open file as the lock
 * itself, is seen locked: above every named lock's byte. */
#define LOCKQ_BYTE_RECORD (UINT64_C(3) << 61)

/* ---- the file queue/BOOT.queue (qfile.c) ---- */

/* Who holds a lock, for people. number is 0 while the rest is being filled in, and when there is nobody. */
struct lockq_record {
    _Atomic uint64_t number; /* fencing number of the acquisition */
    _Atomic uint64_t token;  /* whose identity stands below: an owner that comes again leaves it as it is */
    _Atomic uint64_t pid, start_time, pid_ns;
    _Atomic uint64_t since; /* CLOCK_REALTIME, ns */
    _Atomic uint64_t flags; /* LOCKQ_RECORD_ */
    _Atomic uint64_t program[4];
    _Atomic uint64_t label[8];
    uint64_t spare;
};
#define LOCKQ_RECORD_SHARED 1u
_Static_assert(sizeof(struct lockq_record) == 160, "doc/locking-queue says 160");

struct lockq_slot {
    /* Written by everybody who queues. */
    BASE_ALIGNED(BASE_CACHELINE) _Atomic uint64_t next; /* the last number that was given out */
    _Atomic uint32_t wanted; /* how often it was not to be had at once; a keeper sleeps on it (keep.c) */
    /* Written at a hand-over. */
    BASE_ALIGNED(BASE_CACHELINE)
    _Atomic uint64_t served;     /* every number up to this has had its turn or is gone; only grows */
    _Atomic uint64_t skip_below; /* numbers up to this are stopped processes': they hold nobody up */
    _Atomic uint64_t asked;      /* how often somebody asked who runs (pass.c) */
    _Atomic uint64_t answered;   /* the lowest number that did, since: asked << 48 | number */
    BASE_ALIGNED(BASE_CACHELINE) _Atomic uint64_t owner; /* of the turn; 0: none */
    _Atomic uint64_t turn_end;                           /* CLOCK_MONOTONIC, ns */
    _Atomic uint32_t kept; /* a hint: held between two commits, wake its keeper (keep.c) */
    /* Written by the holder. */
    BASE_ALIGNED(BASE_CACHELINE) _Atomic uint64_t acquisitions;
    _Atomic uint64_t waits, timeouts, reaped, skipped, wait_ns_total, wait_ns_max;
    _Atomic uint32_t name_size; /* stored last; 0: not yet written, or the write lock */
    BASE_ALIGNED(BASE_CACHELINE) _Atomic uint32_t word[LOCKQ_WORDS];
    char name[LOCKQ_NAME + 1];
    struct lockq_record record[LOCKQ_RECORDS]; /* [0]: the exclusive holder */
};
_Static_assert(sizeof(struct lockq_slot) == 2048, "doc/locking-queue says 2048");

struct lockq_header {
    struct lockq_ident {
        char magic[8];
        uint32_t layout, slots;
        unsigned char boot_id[16];
    } ident;
    uint64_t base; /* fencing numbers start above it */
    /* Under QGATE: what queue/BOOT.mdb looked like after the last transaction. A file that looks otherwise
     * was damaged, or its writer died in the middle: it is discarded, LMDB never sees it. */
    _Atomic uint64_t meta_size, meta_sum;
    uint64_t spare;
    BASE_ALIGNED(BASE_CACHELINE) _Atomic uint64_t key[LOCKQ_SLOTS]; /* hash of the slot's name; 0: free */
};
#define LOCKQ_HEADER_SIZE 12288u /* whole pages: the slots begin behind it */
#define LOCKQ_FILE_SIZE   (LOCKQ_HEADER_SIZE + (size_t)LOCKQ_SLOTS * sizeof(struct lockq_slot))
_Static_assert(sizeof(struct lockq_header) <= LOCKQ_HEADER_SIZE, "the header fits before the slots");
_Static_assert(sizeof(struct lockq_ident) == 32, "compared as bytes");

struct lockq_meta; /* meta.c */

/* A ticket's open file. An OFD lock belongs to the open file, so every ticket that is out has one of its own;
 * idle ones are kept for the next. Under the module's mutex (ticket.c). */
struct lockq_ticket {
    int fd;
    struct lockq_ticket *next_idle, *next;
};

struct lockq {
    int dirfd; /* borrowed */
    char *path;
    unsigned mode;
    int queue_dir;
    unsigned char boot_id[16];
    char queue_name[24], meta_name[24]; /* of this boot: "00112233.queue", "00112233.mdb" */
    int probe; /* an open file of BOOT.queue that never holds a lock: GETLK through it sees everybody */
    struct lockq_header *header; /* the mapping; NULL: no lock-queue file, everything is unordered */
    struct lockq_slot *slots;
    _Atomic uint64_t allocated[LOCKQ_SLOTS / 64]; /* slots whose space is known to be there */
    _Atomic bool forked;
    uint64_t token;      /* says whose identity a record carries */
    int64_t wall_offset; /* CLOCK_REALTIME - CLOCK_MONOTONIC when the handle was opened */
    /* Under the module's mutex. */
    struct lockq_ticket *tickets, *idle;
    unsigned idle_count;
    struct lockq *next_open;
    struct lockq_meta *meta; /* NULL until a waiter has waited long */
};

/* Permissions of a file on which a mere reader could stop writers: readable only where it is writable. */
static inline unsigned lockq_file_mode(unsigned mode)
{
    return (mode & 0222u) | ((mode & 0222u) << 1);
}
/* Makes or opens queue/BOOT.queue and maps it; leaves q->header NULL where that cannot be done. */
void lockq_file_open(struct lockq *q);
void lockq_file_close(struct lockq *q);
static inline unsigned lockq_slot_index(const struct lockq *q, const struct lockq_slot *slot)
{
    return (unsigned)(slot - q->slots);
}
/* The slot at index if somebody uses it, its space checked; NULL otherwise. */
struct lockq_slot *lockq_slot_used(struct lockq *q, unsigned index);
/* First byte of a lock in LOCK, and how many. */
uint64_t lockq_named_byte(const char *name, size_t size);

/* ---- tickets (ticket.c) ---- */

/* The module's mutex: tickets, the list of open handles, the metadata's environments. Held for instants. */
void lockq_enter(void);
void lockq_leave(void);
void lockq_register(struct lockq *q);
void lockq_unregister(struct lockq *q);
/* Locks the byte of number through an open file of its own. [I-6] */
int lockq_ticket_take(struct lockq *q, unsigned slot, uint64_t number, struct lockq_ticket **ticket);
void lockq_ticket_free(struct lockq *q, unsigned slot, uint64_t number, struct lockq_ticket *ticket);
/* Is any ticket from..to alive? A test that cannot be made says yes: waiting is safe. */
bool lockq_ticket_alive(struct lockq *q, unsigned slot, uint64_t from, uint64_t to);
/* The lowest live ticket in from..to; 0: none. */
uint64_t lockq_ticket_first(struct lockq *q, unsigned slot, uint64_t from, uint64_t to);

/* ---- holder records (record.c) ---- */

struct lockq_who {
    uint64_t number, since, pid_ns, start_time;
    int64_t pid;
    bool shared;
    char program[32 + 1], label[64 + 1];
};
/* Fills claim->record and claim->number. Caller holds the lock. */
void lockq_record_store(struct lockq *q, const struct lockq_lock *lock, uint64_t since,
                        struct lockq_claim *claim);
void lockq_record_clear(struct lockq *q, const struct lockq_lock *lock, const struct lockq_claim *claim);
/* The record that the lock's descriptor stands for, when the claim is not at hand. */
unsigned lockq_record_find(struct lockq *q, const struct lockq_lock *lock, int fresh_fd);
/* How the lock is held by others than fd, and by whom: 0..LOCKQ_RECORDS holders whose record was whole. fd:
 * an open file of LOCK. */
enum lockq_state { LOCKQ_FREE, LOCKQ_SHARED, LOCKQ_EXCLUSIVE };
enum lockq_state lockq_record_read(struct lockq *q, const struct lockq_lock *lock, struct lockq_who *who,
                                   unsigned *count);
/* Describes the caller as a holder or waiter. */
void lockq_who_self(const struct lockq_lock *lock, uint64_t since, struct lockq_who *who);

/* ---- metadata (meta.c) ---- */

/* Describes a waiter. Best effort: bounded by 1 ms, and nothing depends on it. false: the gate was taken. */
bool lockq_meta_put(struct lockq *q, unsigned slot, uint64_t number, const struct lockq_who *who);
struct lockq_meta_row {
    unsigned slot;
    uint64_t number;
    struct lockq_who who;
};
/* All rows, to be freed by the caller; *count is 0 when they cannot be had. */
void lockq_meta_rows(struct lockq *q, struct lockq_meta_row **rows, size_t *count);
void lockq_meta_release(struct lockq *q);
void lockq_meta_forked(void); /* in a forked child: forgets every environment */

/* ---- for the module's own use (api.c, lent.c) ---- */

/* Does the calling thread hold the lock at that byte of that LOCK through shale_lockq_acquire? */
bool lockq_thread_acquired(dev_t dev, ino_t ino, uint64_t byte);
void lockq_holds_forked(void);   /* in a forked child: closes what the parent holds, and what it could */
void lockq_threads_forked(void); /* in a forked child: forgets which of the parent's threads hold */
/* Is the named lock at that byte held, in any mode, through a descriptor that LOCKD_HELD names? */
bool lockq_find_named(int fresh_fd, uint64_t byte, int *fd);

/* name "": the write lock; NULL: every lock. fresh_fd: an open file of LOCK that holds nothing. (list.c) */
int lockq_list(struct lockq *q, int fresh_fd, const char *name, int (*fn)(void *ctx, const shale_ticket *t),
               void *ctx);
void lockq_stat(struct lockq *q, const char *name, shale_lock_stats *out);

/* ---- inside queue.c, for the tests ---- */
#ifdef SHALE_DEBUG
/* What the calling thread does as a waiter: its ticket is locked; it is about to look; its ticket is freed.
 */
enum lockq_step { LOCKQ_STEP_TICKET, LOCKQ_STEP_LOOK, LOCKQ_STEP_LEFT };
extern void (*lockq_step_hook)(const struct lockq_slot *slot, enum lockq_step step, uint64_t number);
#define lockq_step(slot, step, number)                                                                       \
    (lockq_step_hook != NULL ? lockq_step_hook((slot), LOCKQ_STEP_##step, (number)) : (void)0)
#else
#define lockq_step(slot, step, number) ((void)0)
#endif
void lockq_slot_print(const struct lockq *q, unsigned index); /* to stderr; callable from gdb */

#endif
