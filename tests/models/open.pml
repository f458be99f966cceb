/* Opening after everybody died and after power loss, with segments made ready by whoever: nothing that was
 * acknowledged as durable is ever missing.
 *
 *   Client   shale_open: attach while somebody lives, else db_recover (cold); db_prepare (wal_make); db_commit with db_sync
 *   Power    loss of power: any subset of the unsynced pages and directory entries survives
 *
 * A process may die after any step; when nobody lives the next opener is cold. STATE is not needed after a reboot [I-1]: power loss
 * clears it. The manifest's edits are taken as atomic and durable when committed: the model is about segments.
 *
 * Pages: what a failed write-back leaves clean in the page cache reads well until the power goes, and no later fdatasync
 * writes it. The failure is told to the descriptors of that time only.
 *
 * Checked: what a cold open finds is a prefix of the commits that holds every acknowledged one [I-14]; the oldest
 * segment that the manifest names is there.
 *
 * Seeded bugs, each of which must be found:
 *   READY_FIRST      `ready` is raised before the directory is synced
 *   TRUST_NAME       who finds a segment's name but a lower `ready` raises it without syncing the directory
 *   APPEND_FOUND     a cold open goes on in the last segment that it found instead of writing all to tables [I-19]
 *   ACTIVATE_FOUND   a cold open makes a prepared segment that it found the active one
 *   EDIT_FIRST       the edit that names the new oldest segment is committed before that segment is durable
 *   UNLINK_FIRST     replayed segments are removed before the edit is committed
 *   TABLE_UNSYNCED   the edit names a table that was not synced
 */
#ifndef CAP
#define CAP 2
#endif
#define NSEG 5
#ifndef MAXREC
#define MAXREC 2
#endif
#ifndef CLIENTS
#define CLIENTS 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef FAILS
#define FAILS 1
#endif
#ifndef CUTS
#define CUTS 1
#endif

byte kills = KILLS, fails = FAILS, cuts = CUTS;
byte boot;                  /* power losses so far: ends every process of before */
byte alive;                 /* shared holders of LIVE */

/* Segments: their names in the directory and on the disk; records in the page cache and on the disk. */
bool name[NSEG], name_disk[NSEG];
byte cache[NSEG * CAP], disk[NSEG * CAP];   /* sequence number; 0: none */
bool dirty[NSEG * CAP];
byte table, table_disk;     /* the tables hold everything up to here: as read now, and on the disk */
byte edit_oldest, edit_table; /* the manifest */

/* STATE: act, the active segment, is the upper half of wal_end */
byte act, offset, visible, ready;
bool panic;
bool lock_open, lock_write;

byte acknowledged;          /* ghost: durable commits up to here were acknowledged */

/* One step, after which the process may be dead. It checks first whether the power has gone. */
#define STEP(x) atomic { \
    if :: boot != my_boot -> goto again :: else fi; \
    x; \
    if :: kills > 0 -> kills--; LEAVE; goto again :: skip fi }
#define LOCK(lock, mine) atomic { \
    boot != my_boot || !lock -> if :: boot != my_boot -> goto again :: else -> lock = 1; mine = 1 fi }
#define LEAVE \
    if :: live -> alive--; live = 0 :: else fi; \
    if :: opening -> lock_open = 0; opening = 0 :: else fi; \
    if :: writing -> lock_write = 0; writing = 0 :: else fi

inline sync_directory() {
    d_step {
        i = 0;
        do :: i < NSEG -> name_disk[i] = name[i]; i++ :: else -> i = 0; break od
    }
}

inline unlink_all_but(kept) {
    d_step {
        i = 0;
        do :: i < NSEG -> name[i] = (i == kept); i++ :: else -> i = 0; break od
    }
}

/* Replay of what is found: segment by segment from the oldest, up to the first gap. */
inline replay() { d_step {
    assert(name[edit_oldest]);
    assert(table >= edit_table);
    last = edit_table;
    n = edit_oldest;
    i = n * CAP;
    do
    :: i < NSEG * CAP && name[i / CAP] ->
        n = i / CAP;
        if
        :: cache[i] == last + 1 -> last++; i++
        :: cache[i] == 0 -> i = (n + 1) * CAP       /* the segment ends here; the next one has to continue */
        :: else -> break
        fi
    :: else -> break
    od;
    assert(last >= acknowledged);
    n = NSEG - 1;
    do :: !name[n] -> n-- :: else -> break od;      /* n: the highest segment that was found */
    i = 0
} }

inline init_state(segment, used) {
    act = segment; offset = used; visible = last; ready = segment; panic = 0
}

/* db_recover, under OPEN with LIVE held exclusively */
inline recover() {
    atomic { if :: boot != my_boot -> goto again :: else fi; replay() }
#ifdef APPEND_FOUND
    if
    :: last > edit_table ->
        atomic {
            if :: boot != my_boot -> goto again :: else fi;
            n = NSEG * CAP - 1;
            do :: cache[n] != last || !name[n / CAP] -> n-- :: else -> break od;
            init_state(n / CAP, n % CAP + 1)
        }
        goto recovered
    :: else
    fi;
#endif
    STEP(table = last);                                                 /* db_write_mem_table: renamed */
#ifndef TABLE_UNSYNCED
    STEP(table_disk = last);                                            /* and synced, file and directory */
#endif
    if
#ifdef ACTIVATE_FOUND
    :: n > edit_oldest && cache[n * CAP] == 0 -> skip
#endif
    :: n + 1 == NSEG -> STEP(LEAVE); goto done                          /* the model's bound */
    :: n + 1 < NSEG ->
        n++;
        STEP(name[n] = 1);                                              /* wal_make */
#ifndef EDIT_FIRST
        STEP(sync_directory());
#endif
    fi;
#ifdef UNLINK_FIRST
    STEP(unlink_all_but(n));
#endif
    STEP(edit_oldest = n; edit_table = last);                           /* version_commit */
#ifdef EDIT_FIRST
    STEP(sync_directory());
#endif
#ifndef UNLINK_FIRST
    STEP(unlink_all_but(n));
#endif
    STEP(init_state(n, 0))                                              /* state_ready */
}

/* db_prepare of segment n, by anybody: PREPARE only avoids double work, so here it does not exist */
inline prepare() {
    if
    :: !name[n] -> STEP(name[n] = 1)                                    /* wal_make: the file is synced, then named */
#ifdef TRUST_NAME
        ;
        STEP(sync_directory())
#endif
    :: name[n] -> skip                                                  /* somebody named it, and may be dead */
    fi;
#ifdef READY_FIRST
    STEP(if :: ready < n -> ready = n :: else fi);
#endif
#ifndef TRUST_NAME
    STEP(sync_directory());
#endif
    STEP(if :: ready < n -> ready = n :: else fi)
}

inline write_back(bad) {
    d_step {
        i = 0;
        do
        :: i < NSEG * CAP ->
            disk[i] = (dirty[i] && !bad -> cache[i] : disk[i]);
            dirty[i] = 0;
            i++
        :: else -> i = 0; break
        od
    }
}

/* fdatasync of every segment: what was dirty is on the disk, or is lost and clean. The directory is not synced. */
inline sync_log() {
    STEP(
        if
        :: panic -> skip
        :: !panic ->
            write_back(0);
            acknowledged = (mine > acknowledged -> mine : acknowledged)
        :: !panic && fails > 0 ->
            fails--;
            panic = 1;
            write_back(1)
        fi
    )
}

proctype Client() {
    byte my_boot, last, mine, n, i;
    bool live = 1, opening, writing;
    goto working;                               /* the first ones have attached: alive counts them */
again:
    atomic { my_boot = boot; live = 0; opening = 0; writing = 0; last = 0; mine = 0; n = 0; i = 0 }
    LOCK(lock_open, opening);
    if
    :: alive == 0 -> recover()
    :: else
    fi;
recovered:
    STEP(alive++; live = 1);
    STEP(lock_open = 0; opening = 0; last = 0; n = 0);
working:
    do
    :: panic || visible == MAXREC -> break                              /* shale_close */
    :: atomic { !panic && ready == act && ready + 1 < NSEG -> n = ready + 1 }
        prepare()
    :: !panic && visible < MAXREC ->                                    /* db_commit */
        LOCK(lock_write, writing);
        if
        :: panic || visible == MAXREC || (offset == CAP && ready == act) ->
            STEP(lock_write = 0; writing = 0);
            if :: ready + 1 >= NSEG -> break :: else fi
        :: else ->
            STEP(if :: offset == CAP -> act++; offset = 0 :: else fi);
            STEP(cache[act * CAP + offset] = visible + 1; dirty[act * CAP + offset] = 1;
                 offset++; visible++; mine = visible);
            STEP(lock_write = 0; writing = 0);
            if :: sync_log() :: skip fi
        fi
    od;
    STEP(LEAVE);
    goto resting;
done:
    skip;
resting:
end_resting:
    boot != my_boot -> goto again               /* somebody looks after the power was gone, whoever had ended */
}

proctype Power() {
    byte i;
    atomic {
        cuts > 0 -> cuts--;
        boot++; alive = 0; lock_open = 0; lock_write = 0;
        act = 0; offset = 0; visible = 0; ready = 0; panic = 0;
        do
        :: i < NSEG * CAP ->
            if :: dirty[i] -> disk[i] = cache[i] :: skip fi;
            dirty[i] = 0; cache[i] = disk[i];
            i++
        :: else -> i = 0; break
        od;
        do
        :: i < NSEG ->
            if :: name_disk[i] != name[i] -> name_disk[i] = name[i] :: skip fi;
            name[i] = name_disk[i];
            i++
        :: else -> i = 0; break
        od;
        table = table_disk
    }
}

init {
    byte n;
    atomic {
        name[0] = 1; name_disk[0] = 1;
        alive = CLIENTS;
        do :: n < CLIENTS -> run Client(); n++ :: else -> break od;
        run Power()
    }
}
