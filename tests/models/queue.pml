/* queue.pml - the lock queue: numbers, tickets, turns, skip_below, the short way, time limits, locks that are kept between two
 * acquisitions; kill and stop anywhere. (libdb/lockq/queue.c, pass.c, keep.c, libdb/db/keep.c; sequentially consistent memory; GETLK and SETLK are atomic, as in the kernel.)
 *
 * Run pan with -E: the end is looked at by Watch(), because the dead end where they died.
 *
 * N processes take the lock R times each. Checked: two never hold it; first in, first out among those that run (by turns); and
 * nobody is stuck: a sleeper looks again when it is woken, or by its timer, but only where that look would change something,
 * so that processes which nobody lets go on are found by Watch().
 *
 *   -DHELD      process 0 begins with the lock           -DR0=n -DR2=n  how often processes 0 and 2 take it
 *   -DTURN      locks are taken for a turn            -DNOTIMER  no timers but that of a turn: the wakes
 *   -DKEEP      locks may be kept for the next acquisition; each process has a keeper, which may give them up at any time
 *   -DKILLS=k -DSTOPS=s -DGIVEUPS=g  how often                   alone must do (only with KILLS=0, STOPS=0)
 *
 * Seeded bugs, each of which must be found:
 *   -DDROP_I6           a number counts without its ticket          -DNO_SECOND_LOOK   served == next is not looked at again
 *   -DNO_WAKE           who frees the lock wakes nobody             -DNO_PASS          stopped waiters are not passed (rule 5)
 *   -DNO_LOWER          who was skipped does not lower skip_below   -DHASTY            rule 5 without waiting: runners are skipped
 *   -DSILENT_GIVEUP     who gives up wakes nobody                   -DLOCK_BY_NUMBER   served decides, not the kernel's lock
 *   -DBACKOFF_SILENT    who gives the lock back wakes nobody
 *   -DNO_KEEPER         who does nothing keeps the lock             -DKEEPER_SILENT    the keeper wakes nobody
 *   -DKEEP_STALE        who freed a kept lock believes it kept
 */
#define N 3 /* the macros over all processes are written out */
#ifndef R
#define R 1
#endif
#ifndef R0
#define R0 R /* times that process 0 takes it */
#endif
#ifndef R2
#define R2 R /* and process 2 */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef GIVEUPS
#define GIVEUPS 0
#endif
#define NONE 255
#define NUMBERS (2 * N * R + 2 * R0)

byte kills = KILLS, stops = STOPS, giveups = GIVEUPS;
byte next, served, skip_below;        /* struct lockq_slot */
byte lock = NONE;                     /* the kernel's: who holds the bytes */
byte ticket[N];                       /* the kernel's: number whose byte is locked; 0: none */
byte owner = NONE;                    /* of the turn */
bool turn_on;                         /* before turn_end */
bool woken[NUMBERS];                  /* wake word of a number: changed since its waiter loaded it */
bool dead[N], stopped[N], frozen[N];  /* frozen: stopped for ever */
bool done[N], in_crit[N];
bool kept[N];                         /* behind the gate of the handle, which its keeper passes too */
bool in_place[N];                     /* ghost: has a ticket and has not been skipped, or has taken its place back */
byte inside;

#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define LIVE(j, from, to) (ticket[j] != 0 && ticket[j] >= (from) && ticket[j] <= (to))
#define ANY_LIVE(from, to) (LIVE(0, from, to) || LIVE(1, from, to) || LIVE(2, from, to))
#define ALL_STOPPED(from, to) (ST(0, from, to) && ST(1, from, to) && ST(2, from, to))
#define RUNS(j) (ticket[j] > served && !stopped[j])
#define ST(j, from, to) (!LIVE(j, from, to) || stopped[j])

/* lockq_ticket_first, wake_next */
inline wake_next()
{
    atomic {
        from = MAX(served, skip_below) + 1;
        to = next;
        if
        :: from > to -> from = served + 1
        :: else
        fi
    }
    atomic {
        if
        :: from <= to ->
            do
            :: from < to && !ANY_LIVE(from, from) -> from++
            :: else -> break
            od;
            woken[from] = 1
        :: else
        fi;
        from = 0;
        to = 0
    }
}

#define IN_RANGE(n) ANY_LIVE(MAX(served, skip_below) + 1, (n) - 1)
#ifdef DROP_I6
#define BEFORE_ME(f, n) ((f) < (n))
#define HEAD(n) (MAX(served, skip_below) + 1 >= (n))
#else
#define BEFORE_ME(f, n) ANY_LIVE(f, (n) - 1)
#define HEAD(n) (!IN_RANGE(n))
#endif
#ifdef TURN
#define TURN_OF_ANOTHER (owner != NONE && owner != me && turn_on)
#else
#define TURN_OF_ANOTHER false
#endif
#ifdef NOTIMER
#define TIMER(n) false
#else
#define TIMER(n) (HEAD(n) || (skip_below >= (n)))
#endif
#ifdef HASTY
#define PASSABLE(n) true
#else
#define PASSABLE(n) ALL_STOPPED(MAX(served, skip_below) + 1, (n) - 1)
#endif
#ifdef LOCK_BY_NUMBER
#define CAN_LOCK true
#else
#define CAN_LOCK (lock == NONE)
#endif

#if KILLS + STOPS > 0
proctype P(byte me) provided(!dead[me] && !stopped[me])
#else
proctype P(byte me)
#endif
{
    byte left = (me == 0 -> R0 : (me == 2 -> R2 : R)), n, s, k, f, from, to;
    bool in_turn, passed;
    bit before[N]; /* ghost: ran in its place before me when I looked */

#ifdef HELD
    if
    :: me == 0 -> goto crit
    :: else
    fi;
#endif
again:
    if
    :: left == 0 -> goto gone
    :: else
    fi;
#ifdef KEEP
    if /* db_keep_resume */
    :: atomic { kept[me] -> kept[me] = false };
        if
        :: atomic { served == next -> goto crit }
#ifdef TURN
        :: atomic { served != next && owner == me && turn_on -> goto crit }
        :: atomic { served != next && !(owner == me && turn_on) -> lock = NONE; owner = (owner == me -> NONE : owner) };
#else
        :: atomic { served != next -> lock = NONE };
#endif
            wake_next();
            goto enqueue
        fi
    :: atomic { !kept[me] -> skip }
    fi;
#endif
    /* take_at_once */
    in_turn = false;
    if
    :: atomic { served == next -> skip }
#ifdef TURN
    :: atomic { served != next && owner == me && turn_on -> in_turn = true }
    :: atomic { served != next && owner == me && !turn_on -> owner = NONE } wake_next(); goto enqueue
    :: atomic { served != next && owner != me -> goto enqueue }
#else
    :: atomic { served != next -> goto enqueue }
#endif
    fi;
    if
    :: atomic { CAN_LOCK -> lock = me;
           passed = RUNS(0) || RUNS(1) || RUNS(2) }
    :: atomic { !CAN_LOCK -> goto enqueue }
    fi;
#ifndef NO_SECOND_LOOK
    if
    :: atomic { in_turn || served == next -> skip }
    :: atomic { !in_turn && served != next -> lock = NONE };
#ifndef BACKOFF_SILENT
        wake_next();
#endif
        goto enqueue
    fi;
#endif
    atomic { assert(in_turn || !passed); passed = false } /* [I-7] */
    goto crit;

enqueue: /* take_in_queue */
    atomic { next++; n = next }
    atomic { ticket[me] = n; in_place[me] = true }

look: /* wait_for_turn: the word is loaded first; is_head; look */
    woken[n] = 0;
#ifndef NO_LOWER
    atomic {
        if
        :: skip_below >= n -> skip_below = n - 1 /* take_place_back */
        :: else
        fi;
        in_place[me] = true
    }
#else
    in_place[me] = true;
#endif
    atomic {
        s = served;
        k = skip_below;
        f = 0;
        do
        :: f < N -> before[f] = (f != me && LIVE(f, s + 1, n - 1) && in_place[f] && !stopped[f]); f++
        :: else -> break
        od;
        f = MAX(s, k) + 1
    }
    if
    :: n <= s
    :: atomic { n > s && BEFORE_ME(f, n) -> f = 0;
           if
           :: n <= served -> goto requeue
           :: else -> goto sleep
           fi }
    :: atomic { n > s && !BEFORE_ME(f, n) ->
           if
           :: k <= s -> served = MAX(served, n - 1)
           :: else
           fi }
    fi;
    f = 0;
    if
    :: atomic { TURN_OF_ANOTHER ->
           if
           :: n <= served -> goto requeue
           :: else -> goto sleep_for_turn
           fi }
    :: atomic { !TURN_OF_ANOTHER -> skip }
    fi;
    if
    :: atomic { CAN_LOCK -> lock = me;
           f = 0;
           do
           :: f < N -> assert(!(before[f] && LIVE(f, 1, n - 1) && in_place[f] && !stopped[f])); before[f] = 0; f++ /* [I-7] */
           :: else -> break
           od;
           f = 0; s = 0; k = 0 }
    :: atomic { !CAN_LOCK ->
           if
           :: n <= served -> goto requeue
           :: else -> goto sleep
           fi }
    fi;
    served = MAX(served, n);
#ifdef TURN
    atomic { owner = me; turn_on = true }
#endif
    atomic { ticket[me] = 0; in_place[me] = false; woken[n] = false; n = 0 }
#ifdef TURN
    if
    :: served != next -> wake_next()
    :: else
    fi;
#endif
    goto crit;

requeue: /* overtaken: a new number */
    atomic { ticket[me] = 0; in_place[me] = false; woken[n] = false; n = 0; s = 0; k = 0 }
    goto enqueue;

sleep_for_turn: /* until turn_end and a little more */
    atomic { s = 0; k = 0 }
    if
    :: woken[n]
    :: atomic { !TURN_OF_ANOTHER -> skip }
    fi;
    goto look;

sleep:
    atomic { s = 0; k = 0; before[0] = 0; before[1] = 0; before[2] = 0 }
    if
    :: atomic { woken[n] -> skip }
    :: atomic { TIMER(n) && lock == NONE && !TURN_OF_ANOTHER -> skip }
#ifndef NO_PASS
    :: atomic { lock == NONE && !HEAD(n) && PASSABLE(n) -> /* lockq_pass_stopped: none of them answered */
           skip_below = MAX(skip_below, n - 1);
           f = 0;
           do
           :: f < N -> in_place[f] = in_place[f] && !(LIVE(f, 1, n - 1) && stopped[f]); f++
           :: else -> break
           od;
           f = 0 }
#endif
    :: atomic { giveups > 0 -> giveups--; goto giveup }
    :: atomic { lock != NONE && frozen[lock] -> goto giveup } /* a stopped holder is never robbed */
    fi;
    goto look;

giveup: /* take_in_queue, the time limit */
    atomic { ticket[me] = 0; in_place[me] = false; woken[n] = false; n = 0 }
#ifndef SILENT_GIVEUP
    wake_next();
#endif
    left--;
    goto again;

crit:
    atomic { inside++; in_crit[me] = true; assert(inside == 1) } /* [I-5] */
    atomic { inside--; in_crit[me] = false }
#ifdef KEEP
    if /* db_keep */
    :: atomic { served == next -> kept[me] = true; goto freed }
#ifdef TURN
    :: atomic { served != next && owner == me && turn_on -> kept[me] = true; goto freed }
#endif
#ifdef KEEP_STALE
    :: kept[me] = true
#endif
    :: skip
    fi;
#endif
    lock = NONE;
    if
    :: atomic { served == next -> skip }
    :: atomic { served != next ->
           if
#ifdef TURN
           :: owner == me && turn_on -> goto freed
           :: owner == me && !turn_on -> owner = NONE
           :: owner != me
#else
           :: true
#endif
           fi };
#ifndef NO_WAKE
        wake_next()
#endif
    fi;
freed:
    left--;
    goto again;

gone:
    done[me] = true
}

/* A process is killed, or stopped, between any two of its steps; the kernel drops the locks of a dead one. */
#define KILL(j)                                                                                              \
    d_step {                                                                                                 \
        kills > 0 && !dead[j] && !done[j] && !frozen[j] -> kills--;                                          \
        dead[j] = true;                                                                                      \
        ticket[j] = 0;                                                                                       \
        in_place[j] = false;                                                                                 \
        kept[j] = false;                                                                                     \
        lock = (lock == j -> NONE : lock);                                                                   \
        inside = inside - in_crit[j];                                                                        \
        in_crit[j] = false                                                                                   \
    }
#define STOP(j, for_ever)                                                                                    \
    d_step {                                                                                                 \
        stops > 0 && !dead[j] && !done[j] && !stopped[j] -> stops--;                                         \
        stopped[j] = true;                                                                                   \
        frozen[j] = for_ever                                                                                 \
    }
proctype Killer()
{
end_killer:
    do
    :: KILL(0)
    :: KILL(1)
    :: KILL(2)
    :: STOP(0, false)
    :: STOP(1, false)
    :: STOP(2, false)
    :: STOP(0, true)
    :: STOP(1, true)
    :: STOP(2, true)
    :: d_step { stopped[0] && !frozen[0] -> stopped[0] = false }
    :: d_step { stopped[1] && !frozen[1] -> stopped[1] = false }
    :: d_step { stopped[2] && !frozen[2] -> stopped[2] = false }
    od
}

#ifdef KEEP
/* libdb/db/keep.c: keeper, db_keep_end */
#if KILLS + STOPS > 0
proctype Keeper(byte me) provided(!dead[me] && !stopped[me])
#else
proctype Keeper(byte me)
#endif
{
    byte from, to;
end_keeper:
    do
    :: atomic { kept[me] -> kept[me] = false; lock = (lock == me -> NONE : lock) };
        if
        :: atomic { served == next -> skip }
        :: atomic { served != next ->
               if
#ifdef TURN
               :: owner == me && turn_on -> goto end_keeper
               :: owner == me && !turn_on -> owner = NONE
               :: owner != me
#else
               :: true
#endif
               fi };
#ifndef KEEPER_SILENT
            wake_next()
#endif
        fi
    od
}
#endif

/* When nobody can do anything any more, everybody has had the lock, or given up, or is dead or frozen. */
#define ENDED(j) (done[j] || dead[j] || frozen[j])
proctype Watch()
{
    timeout -> assert(ENDED(0) && ENDED(1) && ENDED(2))
}

#ifdef TURN
/* turn_end passes whenever it likes. */
proctype Clock()
{
end_clock:
    do
    :: atomic { turn_on -> turn_on = false }
    od
}
#endif

init
{
    atomic {
        byte i = 0;
#ifdef HELD
        lock = 0;
#ifdef TURN
        owner = 0;
        turn_on = true;
#endif
#endif
        do
        :: i < N -> run P(i); i++
        :: else -> break
        od;
#if defined(KEEP) && !defined(NO_KEEPER)
        run Keeper(0);
        run Keeper(1);
        run Keeper(2);
#endif
#if KILLS + STOPS > 0
        run Killer();
#endif
#ifdef TURN
        run Clock();
#endif
        run Watch()
    }
}
