/* Durable commits: group commit across processes with an fdatasync that fails, and the death of the syncer anywhere.
 *
 *   P    db_commit (append, publish), then db_sync: SYNC, sync_attempt, wal_sync of each segment, synced_lsn; db_panic
 *   WB   the kernel's own write-back
 *
 * What Linux promises, and all of it: a write-back that fails leaves the pages clean and their bytes off the disk. The
 * inode remembers the error (errseq); each descriptor that was open before hears of it once, one that is opened
 * later hears of it only if nobody has heard yet.
 *
 * Checked: when a durable commit is acknowledged, it and every record before it is on the disk.
 *
 * Bounds: records 0..NR-1, those from ROT on in the second segment; NP processes, KILLS deaths, FAILS failing write-backs.
 * BYPASS: a waiter may sync without SYNC (its holder may be stopped). KERNEL: the kernel writes back by itself.
 * THREADS: the processes are threads of one handle, which share its descriptors (with KILLS=0).
 *
 * Seeded bugs, each of which must be found:
 *   NO_ATTEMPT       sync_attempt is not raised: the next process does not know that a dead one may have swallowed the error
 *   NO_REWRITE       a range attempted and not confirmed is not written again by who opened the segment after the attempt
 *   NO_SECOND_LOOK   panic is not looked at again after SYNC was had (the descriptor has told another thread already)
 *   SYNCED_FIRST     synced_lsn is stored before fdatasync has returned
 *   END_TOO_LATE     wal_end is read after fdatasync instead of before
 *   ONE_SEGMENT      only the active segment is synced
 *   BYPASS_UNGUARDED who goes past a slow holder of SYNC does so without the handle's mutex: the kernel may have told
 *                    another thread, through the same descriptor, which has not raised panic yet
 */
#define NR 3
#ifndef ROT
#define ROT 1
#endif
#ifndef NP
#define NP 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef FAILS
#define FAILS 1
#endif
#define SEGMENT(r) ((r) >= ROT)
#define NOBODY 255
#ifdef THREADS
#define HANDLE(me) 0
#else
#define HANDLE(me) me
#endif

byte kills = KILLS, fails = FAILS;

bool dirty[NR];             /* the page of record i: to be written back */
bool disk[NR];              /* its bytes are on the disk; writing the same bytes again does not take them away */
byte error[2];              /* errseq of the two files */
bool heard[2];
byte sampled[NP * 2];       /* errseq as each descriptor saw it last */
bool suspect[NP * 2];       /* the descriptor was opened while an attempt was unconfirmed */

byte wal_end, synced_lsn, sync_attempt;  /* in records */
bool panic;
bool lock_write;
byte lock_sync = NOBODY;    /* the byte of SYNC */
bool mutex_sync[NP];        /* in front of it, of each handle [I-2b] */

/* One step, after which the process may be dead. */
#define STEP(x) atomic { x; if :: kills > 0 -> kills--; \
    LEAVE_SYNC; \
    if :: writing -> lock_write = 0; writing = 0 :: else fi; goto again :: skip fi }
#define LEAVE_SYNC \
    if :: lock_sync == me -> lock_sync = NOBODY :: else fi; \
    if :: syncing -> mutex_sync[HANDLE(me)] = 0; syncing = 0 :: else fi

/* db_mem_get: the descriptors of both segments, and whether an attempt was open after they were. */
inline open_segments() {
    atomic {
        sampled[HANDLE(me) * 2] = (heard[0] -> error[0] : 0);
        sampled[HANDLE(me) * 2 + 1] = (heard[1] -> error[1] : 0);
        suspect[HANDLE(me) * 2] = (sync_attempt > synced_lsn);
        suspect[HANDLE(me) * 2 + 1] = (sync_attempt > synced_lsn)
    }
}

inline write_back(s, bad) {
    d_step {
        i = 0; any = 0;
        do
        :: i < NR ->
            if
            :: dirty[i] && SEGMENT(i) == s -> dirty[i] = 0; disk[i] = disk[i] || !bad; any = 1
            :: else
            fi;
            i++
        :: else -> break
        od;
        if :: any && bad -> error[s]++; heard[s] = 0 :: else fi;
        i = 0; any = 0
    }
}

/* wal_rewrite: the same bytes, dirty again. */
inline rewrite(s) {
    d_step {
        i = synced_lsn;
        do
        :: i < upto -> if :: SEGMENT(i) == s -> dirty[i] = 1 :: else fi; i++
        :: else -> i = 0; break
        od;
        suspect[HANDLE(me) * 2 + s] = 0
    }
}

proctype P(byte me) {
    byte mine, upto, s, i;
    bool writing, syncing, any, bad;
again:
    mine = 0; upto = 0; s = 0; bad = 0;
    open_segments();
    do
    :: panic || wal_end == NR -> goto done
    :: else ->
        STEP(!lock_write -> lock_write = 1; writing = 1);               /* db_write_lock */
        if
        :: panic || wal_end == NR -> STEP(lock_write = 0; writing = 0); goto done
        :: else
        fi;
        STEP(dirty[wal_end] = 1; wal_end++; mine = wal_end);         /* append and publish */
        STEP(lock_write = 0; writing = 0);

        do                                                              /* db_sync */
        :: synced_lsn >= mine -> break
        :: else ->
            if                                                          /* sync_in_turn */
            :: STEP(!mutex_sync[HANDLE(me)] && lock_sync == NOBODY -> lock_sync = me;
                    mutex_sync[HANDLE(me)] = 1; syncing = 1)
#ifdef BYPASS
#ifdef BYPASS_UNGUARDED
            :: STEP(lock_sync != NOBODY -> skip)
#else
            :: STEP(!mutex_sync[HANDLE(me)] && lock_sync != NOBODY -> mutex_sync[HANDLE(me)] = 1; syncing = 1)
#endif
#endif
            fi;
#ifndef NO_SECOND_LOOK
            if :: panic -> goto broken :: else fi;
#endif
            if :: synced_lsn >= mine -> goto release :: else fi;
            upto = wal_end;
#ifdef ONE_SEGMENT
            s = SEGMENT(upto - 1);
#else
            s = SEGMENT(synced_lsn);
#endif
#ifndef NO_ATTEMPT
            STEP(if :: upto > sync_attempt -> sync_attempt = upto :: else fi);
#endif
#ifdef SYNCED_FIRST
            STEP(if :: upto > synced_lsn -> synced_lsn = upto :: else fi);
#endif
            do
            :: s > SEGMENT(upto - 1) -> break
            :: else ->
#ifndef NO_REWRITE
                if :: suspect[HANDLE(me) * 2 + s] -> rewrite(s) :: else fi;
#endif
                atomic {                                                /* wal_sync */
                    if :: fails > 0 -> fails--; bad = 1 :: bad = 0 fi;
                    write_back(s, bad);
                    bad = (sampled[HANDLE(me) * 2 + s] != error[s]);
                    if :: bad -> sampled[HANDLE(me) * 2 + s] = error[s]; heard[s] = 1 :: else fi
                }
                STEP(skip);                                             /* having heard, before anybody is told */
                if :: bad -> STEP(panic = 1); goto broken :: else fi;
                s++
            od;
#ifdef END_TOO_LATE
            upto = wal_end;
#endif
            STEP(if :: upto > synced_lsn -> synced_lsn = upto :: else fi);
release:
            skip;
            STEP(LEAVE_SYNC)
        od;

        /* acknowledged */
        atomic {
            i = 0;
            do
            :: i < mine -> assert(disk[i]); i++
            :: else -> i = 0; break
            od
        }
    od;
broken:
    skip;
    STEP(LEAVE_SYNC);
done:
    skip
}

proctype WB() {
    byte i;
    bool any;
    do
    :: wal_end < NR -> if :: write_back(0, 0) :: write_back(1, 0) fi
    :: atomic { fails > 0 -> fails--; if :: write_back(0, 1) :: write_back(1, 1) fi }
    :: wal_end == NR -> break
    od
}

init {
    byte n;
    atomic {
        do :: n < NP -> run P(n); n++ :: else -> break od;
#ifdef KERNEL
        run WB()
#endif
    }
}
