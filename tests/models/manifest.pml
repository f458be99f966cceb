/* Edits of the manifest, its roll and the sweep, against the death of whoever commits, a failing fdatasync and power loss.
 *
 *   P      version_begin, version_commit (append, roll), db_sweep: all under MANIFEST
 *   Power  loss of power at any moment, and the cold open that reads CURRENT and the manifest
 *
 * A version is a set of edits. An edit's tables exist from its attempt on, until a sweep finds them in no version, or its own
 * process is told for sure that it is not there: then they are dropped.
 *
 * Files: a manifest has a whole record (a set) and CAP edits, each a page of its own, and a name; CURRENT is one word. Each page that is
 * dirty, and each change of the directory that is not synced, is there after power loss or is not. A write-back that fails leaves pages
 * clean, and any of them off the disk; it is told once, to who has called fdatasync, and he may die before he tells.
 *
 * Checked: what the cold open finds has every edit that was published, and none that was dropped; CURRENT's manifest is there.
 *
 * Seeded bugs, each of which must be found:
 *   APPEND_UNSYNCED  the tuple is stored before fdatasync
 *   NO_CUT           a dead process's tail is left where it is
 *   CUT_UNSYNCED     it is cut, and the cut is not synced
 *   CUT_TRUSTED      the manifest is not distrusted while it is cut: who cuts it may die before fdatasync, or having heard that it
 *                    failed, and the next one finds nothing to cut
 *   TRUST_BAD        a manifest whose fdatasync failed is used on
 *   RENAME_FIRST     CURRENT is renamed before the new manifest is synced
 *   NO_SETTLE        a dead process's roll is published without the directory being synced
 *   UNDO_ROLL        it is passed over instead: the old manifest is used on
 */
#define NM 4
#define CAP 2
#ifndef NE
#define NE 3
#endif
#ifndef KILLS
#define KILLS 2
#endif
#ifndef FAILS
#define FAILS 1
#endif
#define SET(e) (1 << (e))

byte kills = KILLS, fails = FAILS;
bool off;                   /* the power has gone */
bool lock;                  /* MANIFEST */

byte current, current_disk;
bool name[NM], name_disk[NM];
byte whole[NM], whole_disk[NM];
bool whole_dirty[NM];
byte edit[NM * CAP], edit_disk[NM * CAP];   /* number + 1; 0: none */
bool edit_dirty[NM * CAP];

byte tuple_manifest, tuple_length;
byte bad;                   /* bad_manifest + 1; 0: none */

byte attempts;              /* edits tried so far */
byte published, dropped;    /* ghosts: sets */

#define STEP(x) atomic { \
    if :: off -> goto done :: else fi; \
    x; \
    if :: kills > 0 -> kills--; lock = 0; goto again :: skip fi }

inline sync_directory() { d_step {
    current_disk = current;
    i = 0;
    do :: i < NM -> name_disk[i] = name[i]; i++ :: else -> i = 0; break od
} }

/* fdatasync of manifest m; failed: as told. */
inline sync_file(m) {
    failed = 0;
    if :: fails > 0 -> fails--; failed = 1 :: skip fi;
    if
    :: whole_dirty[m] ->
        if :: whole_disk[m] = whole[m] :: failed -> skip fi;
        whole_dirty[m] = 0
    :: else
    fi;
    i = m * CAP;
    do
    :: i < (m + 1) * CAP ->
        if
        :: edit_dirty[i] ->
            if :: edit_disk[i] = edit[i] :: failed -> skip fi;
            edit_dirty[i] = 0
        :: else
        fi;
        i++
    :: else -> i = 0; break
    od
}

/* The edits of manifest m up to `length`, or to its end: set and length. */
inline load(m, most) { d_step {
    set = whole[m];
    length = 0;
    do
    :: length < CAP && length < most && edit[m * CAP + length] != 0 ->
        set = set | SET(edit[m * CAP + length] - 1);
        length++
    :: else -> break
    od
} }

/* manifest_install and what follows it; e: the edit that goes with it, NE for none */
inline roll(e) {
    if :: manifest + 1 == NM -> STEP(lock = 0); goto done :: else fi;   /* the model's bound */
    STEP(whole[manifest + 1] = (e < NE -> set | SET(e) : set); whole_dirty[manifest + 1] = 1; name[manifest + 1] = 1;
         edit[(manifest + 1) * CAP] = 0; edit[(manifest + 1) * CAP + 1] = 0);
#ifndef RENAME_FIRST
    STEP(sync_file(manifest + 1));
    if
    :: failed -> STEP(name[manifest + 1] = 0; if :: e < NE -> dropped = dropped | SET(e) :: else fi; lock = 0); goto again
    :: else
    fi;
    STEP(sync_directory());
#endif
    STEP(current = manifest + 1);
    STEP(sync_directory());
#ifdef RENAME_FIRST
    STEP(sync_file(manifest + 1));
#endif
    manifest++;
    STEP(tuple_manifest = manifest; tuple_length = 0; published = published | whole[manifest]);
    STEP(bad = 0);
    STEP(name[manifest - 1] = 0);
    set = whole[manifest];
    length = 0
}

inline begin() {
#ifdef UNDO_ROLL
    manifest = tuple_manifest;
#else
    manifest = current;
#endif
    if :: manifest == tuple_manifest -> load(manifest, tuple_length) :: else -> load(manifest, CAP) fi;
    if
#ifndef TRUST_BAD
    :: bad > manifest -> roll(NE)                                       /* renew */
#endif
#ifdef TRUST_BAD
    :: true ->
#else
    :: else ->                                                          /* make_right */
#endif
#ifndef NO_CUT
        if
        :: length < CAP && edit[manifest * CAP + length] != 0 ->
#ifndef CUT_TRUSTED
            STEP(bad = manifest + 1);
#endif
            STEP(i = length;
                 do
                 :: i < CAP -> edit_dirty[manifest * CAP + i] = edit[manifest * CAP + i] != 0; edit[manifest * CAP + i] = 0; i++
                 :: else -> i = 0; break
                 od);
#ifndef CUT_UNSYNCED
            STEP(sync_file(manifest));
            if :: failed -> STEP(bad = manifest + 1); STEP(lock = 0); goto again :: else fi;
#endif
            STEP(bad = 0)
        :: else
        fi;
#endif
        if
        :: manifest != tuple_manifest ->
#ifndef NO_SETTLE
            STEP(sync_directory());
#endif
            STEP(tuple_manifest = manifest; tuple_length = length; published = published | set);
            STEP(name[manifest - 1] = 0)
        :: else
        fi
    fi
}

inline append(e) {
    STEP(edit[manifest * CAP + length] = e + 1; edit_dirty[manifest * CAP + length] = 1);
#ifdef APPEND_UNSYNCED
    STEP(tuple_length = length + 1; published = published | SET(e));
#endif
    STEP(sync_file(manifest));
    if :: failed -> STEP(bad = manifest + 1); STEP(lock = 0); goto again :: else fi;  /* unknown: its tables stay */
#ifndef APPEND_UNSYNCED
    STEP(tuple_length = length + 1; published = published | SET(e));
#endif
    skip
}

/* FLUSH and all of COMPACT are held, too: nobody is about to commit. */
inline sweep() {
    STEP(dropped = dropped | ((SET(attempts) - 1) & (set ^ 255)))
}

proctype P() {
    byte manifest, length, set, i, e;
    bool failed;
again:
    manifest = 0; length = 0; set = 0; failed = 0; e = 0;
    do
    :: atomic { off -> goto done }
    :: atomic { !off && attempts == NE -> goto done }
    :: atomic { !off && attempts < NE && !lock -> lock = 1 };
        begin();
        if
        :: sweep()
        :: attempts < NE ->
            STEP(e = attempts; attempts++);
            if :: length == CAP -> roll(e) :: else -> append(e) fi
        fi;
        STEP(lock = 0)
    od;
done:
    skip
}

/* Any page that is dirty, any change of the directory that is not synced, is on the disk or is not. */
proctype Power() {
    byte m, i, set;
    atomic {
        off = 1;
        if :: m = current :: m = current_disk fi;
        if :: name[m] :: name_disk[m] :: else -> assert(false) fi;
        if :: name[m] != name_disk[m] -> if :: skip :: assert(false) fi :: else fi;
        if :: whole_dirty[m] -> if :: set = whole[m] :: set = whole_disk[m] fi :: else -> set = whole_disk[m] fi;
        i = m * CAP;
        do
        :: i < (m + 1) * CAP ->
            if :: edit_dirty[i] -> if :: edit_disk[i] = edit[i] :: skip fi :: else fi;
            if :: edit_disk[i] == 0 -> break :: else -> set = set | SET(edit_disk[i] - 1); i++ fi
        :: else -> break
        od;
        assert((set & published) == published);
        assert((set & dropped) == 0)
    }
}

init {
    atomic {
        name[0] = 1; name_disk[0] = 1;
        run P(); run P();
        run Power()
    }
}
