/* Publishing commits and taking views, against rotation, flush, retirement and recycling of segments, and against the
 * death of the writer and of the flusher between any two steps. Memory is sequentially consistent here; a comment at
 * each C function says which fence makes it so.
 *
 *   Writer   db_write_repair, the rotation and the append of write.c
 *   Worker   db_flush_one, version_commit (state_store_tuple), db_retire, db_prepare (wal_make)
 *   Reader   db_view_enter, db_adopt, db_mem_get (wal_open)
 *
 * A process that is killed starts again as a new one; the kernel has dropped its locks.
 *
 * Checked: every sequence number stands in the log once [I-12]; a view that was taken holds every entry up to its
 * sequence number [I-9], and still does when it is read later [I-10] [I-11]; a file that is not there means that the epoch has
 * moved, never damage.
 *
 * Bounds: CAP records fill a segment, NSEG segments, KILLS deaths; one view is taken and read twice.
 *
 * Seeded bugs, each of which must be found:
 *   REPAIR_AT_END         repair parses the record at wal_end instead of at in_flight
 *   NO_EPOCH_RECHECK      neither state_load_tuple nor db_view_enter loads the epoch again
 *   NO_ACTIVE_RECHECK     db_view_enter does not look at the active segment again
 *   RECYCLE_UNLOCKED      wal_make reuses a segment without the exclusive lock on its file
 *   EPOCH_FIRST           state_store_tuple stores the epoch before the slot
 *   RETIRE_FIRST          db_flush_one retires the segment before the epoch has moved
 *   VISIBLE_FIRST         visible_seq is stored before the entry is in the index
 */
#ifndef CAP
#define CAP 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define NSEG 3
#define MAXSEQ (NSEG * CAP)
#define NONE 7
#define TORN 255

byte kills = KILLS;

/* Files: segment n has the name name[n], of an inode. An inode carries a number in its header, CAP records, and
 * bits for those that its index links. */
byte name[NSEG] = NONE;
byte header[NSEG];
byte sharers[NSEG];
bool exclusive[NSEG];
byte record[MAXSEQ];
bool linked[MAXSEQ];

/* STATE */
byte epoch;
byte slot_oldest[2], slot_tables[2];
byte end_seg, end_off;      /* wal_end: one word */
byte visible;
byte flight_seg = NONE, flight_off; /* in_flight: one word */
byte ready;

bool lock_write, lock_flush, lock_manifest;
byte table_last[NSEG];      /* table n holds everything up to this sequence number */
byte used[MAXSEQ + 1];      /* how often a sequence number was written to the log */

#define OLDEST slot_oldest[epoch & 1]

/* One step, after which the process may be dead. */
#define STEP(x) atomic { x; if :: kills > 0 -> kills--; DIE; goto again :: skip fi }

#define DIE lock_write = 0
proctype Writer() {
    byte ino, s;
again:
    do
    :: visible == MAXSEQ -> break
    :: else ->
        STEP(!lock_write -> lock_write = 1);                            /* db_write_lock */

        /* db_write_repair */
        if
        :: flight_seg != NONE ->
#ifdef REPAIR_AT_END
            ino = name[end_seg] * CAP + end_off;
            if :: end_off == CAP -> s = 0 :: else -> s = record[ino] fi;
#else
            ino = name[flight_seg] * CAP + flight_off;
            s = record[ino];
#endif
            if
            :: s != 0 && s != TORN ->
                STEP(linked[ino] = 1);                                  /* mem_insert_record */
                STEP(end_seg = flight_seg; end_off = flight_off + 1);
                STEP(if :: s > visible -> visible = s :: else fi)
            :: else ->
#ifndef REPAIR_AT_END
                STEP(record[ino] = 0);                                  /* wal_wipe */
                STEP(end_seg = flight_seg; end_off = flight_off)
#endif
            fi;
            STEP(flight_seg = NONE)
        :: else
        fi;

        /* rotation: one store */
        if
        :: end_off == CAP ->
            if
            :: ready > end_seg && visible < MAXSEQ -> STEP(end_seg = end_seg + 1; end_off = 0)
            :: else -> STEP(lock_write = 0); goto again                 /* release, prepare, queue again */
            fi
        :: else
        fi;

        /* append, index, publish */
        ino = name[end_seg] * CAP + end_off; s = visible + 1;
        STEP(flight_seg = end_seg; flight_off = end_off);
        STEP(record[ino] = TORN);                                       /* wal_append */
        STEP(record[ino] = s; used[s]++; assert(used[s] == 1));
#ifdef VISIBLE_FIRST
        STEP(visible = s);
#endif
        STEP(linked[ino] = 1);                                          /* mem_insert: release store of the bottom link */
        STEP(end_seg = flight_seg; end_off = flight_off + 1);
#ifndef VISIBLE_FIRST
        STEP(visible = s);                                              /* release store */
#endif
        STEP(flight_seg = NONE);
        STEP(lock_write = 0; ino = 0; s = 0)                            /* db_write_unlock */
    od
}
#undef DIE

#define DIE lock_flush = 0; \
            if :: manifest -> lock_manifest = 0; manifest = 0 :: else fi; \
            if :: mine != NONE -> exclusive[mine] = 0; mine = NONE :: else fi

inline retire(n) {
    STEP(name[n] = NONE)                                                /* db_retire: os_unlink */
}

/* MANIFEST is held from the edit to the epoch. state_store_tuple: release fence, relaxed slot, release epoch. */
inline commit_edit(n) {
    STEP(!lock_manifest -> lock_manifest = 1; manifest = 1);
#ifdef EPOCH_FIRST
    STEP(epoch++);
    STEP(slot_tables[epoch & 1] = n + 1);
    STEP(slot_oldest[epoch & 1] = n + 1);
#else
    STEP(slot_tables[(epoch + 1) & 1] = n + 1);
    STEP(slot_oldest[(epoch + 1) & 1] = n + 1);
    STEP(epoch++);
#endif
    STEP(lock_manifest = 0; manifest = 0)
}

proctype Worker() {
    byte n, i, mine = NONE, spare = NONE;
    bool manifest;
again:
    spare = NONE;
    do
    :: visible == MAXSEQ && OLDEST == NSEG - 1 -> break
    :: OLDEST < end_seg ->                                              /* db_flush_one */
        STEP(!lock_flush -> lock_flush = 1);
        n = OLDEST;
        if
        :: n < end_seg ->
            STEP(table_last[n] = record[name[n] * CAP + CAP - 1]);      /* db_write_mem_table */
#ifdef RETIRE_FIRST
            retire(n);
#endif
            commit_edit(n);
#ifndef RETIRE_FIRST
            if :: retire(n) :: spare = n fi
#endif
        :: else
        fi;
        STEP(lock_flush = 0; n = 0)
    :: ready == end_seg && ready + 1 < NSEG ->                          /* db_prepare */
        n = ready + 1;
        if
        :: spare == NONE -> i = n                                       /* a new file */
        :: spare != NONE && name[spare] != NONE ->
            i = name[spare];
#ifdef RECYCLE_UNLOCKED
            exclusive[i] = 1; mine = i;
#else
            atomic {
                if
                :: sharers[i] == 0 -> exclusive[i] = 1; mine = i        /* os_lock_try on the file */
                :: else -> name[spare] = NONE; i = n
                fi
            }
#endif
            if :: mine != NONE -> STEP(name[spare] = NONE) :: else fi   /* renamed to the temporary name */
        fi;
        spare = NONE;
        STEP(header[i] = n;                                             /* and a salt: older records are none */
             record[i * CAP] = 0; linked[i * CAP] = 0;
             record[i * CAP + CAP - 1] = 0; linked[i * CAP + CAP - 1] = 0);
        STEP(if :: name[n] == NONE -> name[n] = i :: else fi);          /* RENAME_NOREPLACE */
        STEP(if :: mine != NONE -> exclusive[mine] = 0; mine = NONE :: else fi);
        STEP(if :: ready < n -> ready = n :: else fi; n = 0; i = 0)
    od
}
#undef DIE

inline drop_view() {
    atomic {
        k = 0;
        do
        :: k < NSEG -> if :: map[k] != NONE -> sharers[map[k]]--; map[k] = NONE :: else fi; k++
        :: else -> k = 0; break
        od
    }
}

/* Everything up to s is in the tables of the view or in a memtable that it maps. */
inline read_view() {
    d_step {
        q = 1;
        do
        :: q <= s ->
            found = (tables > 0 && q <= table_last[tables - 1]);
            k = 0;
            do
            :: k < NSEG * CAP ->
                if
                :: map[k / CAP] != NONE && linked[map[k / CAP] * CAP + k % CAP] && record[map[k / CAP] * CAP + k % CAP] == q ->
                    found = 1
                :: else
                fi;
                k++
            :: else -> break
            od;
            assert(found);
            q++
        :: else -> break
        od;
        q = 0; k = 0; found = 0
    }
}

proctype Reader() {
    byte e, oldest, tables, a, s, k, q, ino, map[NSEG] = NONE;
    bool found;
retry:
    e = epoch;                                                          /* acquire */
    tables = slot_tables[e & 1];
    oldest = slot_oldest[e & 1];
    a = end_seg;
#ifndef NO_EPOCH_RECHECK
    if :: epoch != e -> goto retry :: else fi;                          /* state_load_tuple: acquire fence, epoch again */
#endif
    k = oldest;
    do                                                                  /* db_adopt */
    :: k <= a ->
        ino = name[k];                                                  /* wal_open */
        if
        :: atomic { ino != NONE && !exclusive[ino] -> sharers[ino]++; map[k] = ino }
        :: atomic { ino == NONE || exclusive[ino] -> goto gone }
        fi;
        if :: header[ino] != k -> goto gone :: else fi;
        k++
    :: else -> break
    od;
    s = visible;                                                        /* acquire */
#ifndef NO_ACTIVE_RECHECK
    if :: end_seg != a -> drop_view(); goto retry :: else fi;
#endif
#ifndef NO_EPOCH_RECHECK
    if :: epoch != e -> drop_view(); goto retry :: else fi;
#endif
    read_view();
    read_view();
    drop_view();
    goto done;
gone:
#ifdef NO_EPOCH_RECHECK
    skip;
#else
    assert(epoch != e);                                                 /* else SHALE_CORRUPT */
#endif
    drop_view();
    goto retry;
done:
    skip
}

init {
    atomic { name[0] = 0; name[1] = 1; header[1] = 1; ready = 1; run Writer(); run Worker(); run Reader() }
}
