/* lockq.h - the ordered lock queue: first-in-first-out locks between processes and threads, kept in a
 * directory.
 *
 * fcntl gives safety and says who is alive; the numbers in the lock-queue file give order; a futex gives
 * speed; LMDB describes. Only the first is trusted [I-5]. The picture, the rules and the invariants [I-6]
 * [I-7] stand at the top of queue.c. The public face is shale/lockq.h; this header is what the database
 * itself uses.
 *
 * A struct lockq is one handle's door to the queue of one directory; threads may share it. The caller keeps
 * threads that share a descriptor apart (struct os_roles does for the write lock).
 */
#ifndef LOCKQ_LOCKQ_H
#define LOCKQ_LOCKQ_H

#include "os/os.h"
#include <shale/lockq.h>

struct lockq;
struct lockq_slot; /* a lock's row in the mapped lock-queue file */

/* dirfd is borrowed and must stay open; path is for messages (copied). Makes queue/ and its files; a
 * lock-queue file that cannot be made or is garbled is not an error: locks then work unordered. */
int lockq_open(int dirfd, const char *path, unsigned mode, struct lockq **q);
void lockq_close(struct lockq *q);

/* The row of a lock (name NULL: the write lock), found or made. NULL when the table is full or lost:
 * unordered. */
struct lockq_slot *lockq_slot(struct lockq *q, const char *name);

enum lockq_how { LOCKQ_QUEUE, LOCKQ_BACKOFF, LOCKQ_ONCE };

/* One lock as somebody is about to take it. */
struct lockq_lock {
    struct lockq_slot *slot; /* NULL: unordered */
    const char *name;        /* NULL: the write lock */
    int fd;                  /* the open file of LOCK that will hold it */
    uint64_t start, length;  /* its bytes */
    bool exclusive;
    int64_t turn_ns;   /* 0: one acquisition a turn; else the turn's length */
    uint64_t owner;    /* who has turns: a random number of the handle, never 0 */
    const char *label; /* for people; may be NULL */
    int64_t owner_pid; /* whom to name as the holder; 0: this process */
};

/* Out: the fencing number (0 when unordered), whether it had to wait and how long. */
struct lockq_claim {
    uint64_t number;
    uint64_t ticket;
    uint64_t waited_ns;
    int64_t since; /* os_now() when it was had */
    bool waited;
    unsigned record; /* which holder record */
};

/* Takes the lock in its turn. SHALE_BUSY: the deadline passed, or how is LOCKQ_ONCE and it is not free or
 * others wait (a newcomer never passes a live ticket [I-7]); the text names the holder. SHALE_CANCELLED.
 * Caller holds the handle's mutex for the lock. */
int lockq_take(struct lockq *q, const struct lockq_lock *lock, enum lockq_how how, const struct os_wait *wait,
               struct lockq_claim *claim);
/* Frees it and, if the turn is over and somebody waits, wakes the next. */
void lockq_free(struct lockq *q, const struct lockq_lock *lock, const struct lockq_claim *claim);
/* The turn's owner is about to wait for something else (sync, stall), not holding the lock: gives the turn up
 * now. Cheap when there is no turn. */
void lockq_end_turn(struct lockq *q, const struct lockq_lock *lock);
/* SHALE_BUSY with the text that names the holder, as an open file sees it that does not hold the lock itself.
 */
int lockq_busy(struct lockq *q, const struct lockq_lock *lock);
/* Has the one whose turn it is been woken, and does not run yet? Long work then yields. A hint. */
bool lockq_overdue(const struct lockq_lock *lock);

/* shale_lockq_acquire_fd, and the fencing number (0 when unordered). */
int lockq_acquire_fd(shale_lockq *q, const char *name, int mode, int64_t timeout_ms, const char *label,
                     int fd, int64_t owner_pid, uint64_t *number);

/* ---- keeping the bytes between two commits (keep.c tells when, and what it costs the others) ---- */

/* May the holder keep them? NOBODY: nobody waits; TURN: others do, but the holder's turn lasts. Never where
 * the lock is unordered. *now is set where the clock was read, which is only done in a turn. */
enum lockq_keep { LOCKQ_KEEP_NOT, LOCKQ_KEEP_NOBODY, LOCKQ_KEEP_TURN };
enum lockq_keep lockq_may_keep(const struct lockq_lock *lock, int64_t *now);
/* Grows whenever somebody finds the lock taken. */
uint32_t lockq_wanted(const struct lockq_lock *lock);
/* Holder only: tells those who wait that there is a keeper to be woken, or no more. */
void lockq_note_kept(const struct lockq_lock *lock, bool kept);
/* The keeper's sleep: until somebody wants it (wanted != value), or max_ns. */
void lockq_keeper_sleep(const struct lockq_lock *lock, uint32_t value, int64_t max_ns);

/* ---- what this thread holds over several calls (holds.c): a transaction, a shale_held of the write lock
 * ---- */

void lockq_thread_hold(dev_t dev, ino_t ino); /* device and inode of LOCK */
void lockq_thread_drop(dev_t dev, ino_t ino);
bool lockq_thread_holds(dev_t dev, ino_t ino);

/* ---- lent locks (lent.c): WRITE held by an ancestor through an inherited descriptor ---- */

enum lockq_lent {
    LOCKQ_LENT_NONE,
    LOCKQ_LENT_WRITE,
    LOCKQ_LENT_FROZEN /* an ancestor holds WRITE shared: writes fail at once */
};
/* Looks at lock_fd (-1: none), else at SHALE_LOCK_FD, for a descriptor of this directory's LOCK. fresh_fd: an
 * open file of LOCK that holds nothing of bytes 1-2 itself; it says which directory, and sees what others
 * hold. *fd is the descriptor, or -1. SHALE_INVALID: an entry that is not of the form, that names this file
 * but does not hold, or a descriptor that is not open. The environment is ignored in set-user-id programs. */
int lockq_find_lent(int fresh_fd, int lock_fd, enum lockq_lent *kind, int *fd);
/* Does fd (still) hold byte 1 exclusively? fresh_fd: another open file of LOCK. */
int lockq_lent_holds(int fresh_fd, int fd, bool *holds);

#endif
