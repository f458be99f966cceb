#!/bin/sh
# lockd: run and status.
# shellcheck disable=SC2016 # the quoted scripts are CMD's to expand
. "$(dirname "$0")/lib.sh"
unset SHALE_LOCK_FD LOCKD_HELD LOCKD_NUMBER

lockd() { "$LOCKD" "$@"; }

# await COMMAND...: until it succeeds, 20 s at most.
await() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 1000 ]
        sleep 0.02
    done
}
shows() { lockd status "$2" | grep -q "$1"; }

exit_status_is_the_commands() {
    mkdir d
    status 0 lockd run d -- true
    status 7 lockd run d -- sh -c 'exit 7'
    status 137 lockd run d -- sh -c 'kill -9 $$'
    status 127 lockd run d -- ./nosuch
    : >file
    status 126 lockd run d -- ./file
    status 66 lockd run nodir -- true
    status 66 lockd status nodir
    status 64 lockd run file -- true
}

usage_errors_are_64() {
    mkdir d
    status 64 lockd
    status 64 lockd walk d
    status 64 lockd run
    status 64 lockd run d
    status 64 lockd run d --
    status 64 lockd run -w soon d -- true
    status 64 lockd run -E 256 d -- true
    status 64 lockd run --nosuch d -- true
    status 64 lockd run d: -- true
    status 64 lockd status
    status 64 lockd status d d
    lockd --help | grep -q '^usage: lockd run'
    lockd --version | grep -q '^lockd [0-9]'
}

a_held_lock_is_a_conflict() {
    mkdir d
    lockd run -l nightly d:job -- sh -c '
        status=0
        unset LOCKD_HELD
        "$LOCKD" run -n d:job -- true 2>err || status=$?
        echo "$status" >n
        status=0
        "$LOCKD" run -w 0.1 -E 9 d:job -- true 2>/dev/null || status=$?
        echo "$status" >w
        "$LOCKD" run -q -n d:job -- true 2>quiet || :
        "$LOCKD" run -n d:other -- touch other'
    same 75 "$(cat n)"
    same 9 "$(cat w)"
    grep -q '^lockd: d: busy: the lock "job" is held by lockd (pid [0-9]*) since ..:..:.. ([0-9.]* s), label "nightly"$' err
    same '' "$(cat quiet)"
    [ -e other ]
}

names_follow_the_last_colon_behind_the_last_slash() {
    mkdir -p a:b/c d
    lockd run a:b/c:x -- "$LOCKD" status a:b/c | grep -q '^x: held by lockd'
    lockd run ./d -- "$LOCKD" status d | grep -q '^the write lock: held by lockd'
}

status_shows_holders_and_waiters() {
    mkdir d
    same 'nobody holds or waits' "$(lockd status d)"
    mkfifo go
    lockd run -l first d:job -- sh -c 'read -r x <go' &
    await shows 'label "first"' d
    lockd run -l second d:job -- true &
    await shows 'waiter 1: lockd .*label "second"' d
    lockd status d:job | grep -q '^job: held by lockd (pid [0-9]*) since'
    lockd status --json d >json
    same 2 "$(wc -l <json)"
    grep -q '"holder":true,"exclusive":true,"stopped":false,.*"lock":"job","program":"lockd","label":"first"}$' json
    grep -q '"holder":false,.*"label":"second"}$' json
    echo >go
    wait
    same 'nobody holds or waits' "$(lockd status d)"
}

sharers_share() {
    mkdir d
    lockd run -s d:job -- sh -c '
        unset LOCKD_HELD
        "$LOCKD" run -s -n d:job -- "$LOCKD" status d:job >shown
        "$LOCKD" run -n d:job -- true || echo $? >refused'
    same 2 "$(grep -c 'held shared by lockd' shown)"
    same 75 "$(cat refused)"
}

fencing_numbers_grow() {
    mkdir d
    a=$(lockd run d:job -- sh -c 'echo $LOCKD_NUMBER')
    b=$(lockd run d:job -- sh -c 'echo $LOCKD_NUMBER')
    [ "$a" -gt 0 ]
    [ "$b" -gt "$a" ]
}

nesting() {
    mkdir d e
    same inner "$(lockd run d -- "$LOCKD" run d -- echo inner)"
    same inner "$(lockd run d -- "$LOCKD" run e -- "$LOCKD" run d -- echo inner)" # two databases at once
    status 75 lockd run -s d -- "$LOCKD" run -w 5 d -- true # would wait for its own ancestor
    grep -q 'an ancestor of this process' err
    status 75 lockd run d:job -- "$LOCKD" run d:job -- true
    grep -q 'an ancestor of this process has it: .*job' err
}

a_counter_is_exact() {
    mkdir d
    echo 0 >counter
    for i in 1 2 3 4; do
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            lockd run d:counter -- sh -c 'n=$(cat counter); echo $((n + 1)) >counter'
        done &
    done
    wait
    same 40 "$(cat counter)"
}

the_lock_ends_with_cmd_whatever_it_leaves_behind() {
    mkdir d
    lockd run d -- sh -c 'sleep 60 >/dev/null 2>&1 & echo $! >pid'
    status 0 lockd run -n d -- true
    kill "$(cat pid)"
}

without_handing_over_cmd_has_no_descriptor() {
    mkdir d
    same '' "$(lockd run -o d -- sh -c 'echo $SHALE_LOCK_FD')"
    lockd run -o d -- sh -c 'readlink /proc/self/fd/* || :' >fds
    status 1 grep -q LOCK fds
    lockd run d -- sh -c 'readlink /proc/self/fd/* || :' >fds
    grep -q LOCK fds
}

# Killed, it takes nothing from CMD: the lock lasts until CMD ends.
h7_killed_lockd_leaves_the_lock_with_cmd() {
    mkdir d
    mkfifo go
    "$LOCKD" run d:job -- sh -c 'echo $$ >pid; read -r x <go' &
    helper=$!
    await test -s pid
    kill -9 "$helper"
    wait "$helper" || :
    status 75 lockd run -n d:job -- true
    echo >go
    await lockd run -n d:job -- true
}

signals_reach_cmd() {
    mkdir d
    for signal in TERM HUP USR1 USR2; do
        rm -f ready
        "$LOCKD" run d -- sh -c 'trap "echo $1 >got; exit 3" "$1"; : >ready; while :; do sleep 0.02; done' sh "$signal" &
        helper=$!
        await test -e ready
        kill -s "$signal" "$helper"
        result=0
        wait "$helper" || result=$?
        same 3 "$result"
        same "$signal" "$(cat got)"
    done
}

# Bits 31 and 32 are the C library's own signals: nobody can set them back through it.
cmd_has_the_default_dispositions() {
    mkdir d
    got=$(trap '' TERM HUP USR1; lockd run d -- sed -n 's/^Sig\(Ign\|Blk\):[[:space:]]*//p' /proc/self/status)
    same 2 "$(echo "$got" | wc -l)"
    for mask in $got; do
        same 0 $((0x$mask & ~0x180000000))
    done
}

interrupted_while_it_waits_lockd_leaves_the_queue() {
    mkdir d
    mkfifo go
    "$LOCKD" run d:job -- sh -c 'read -r x <go' &
    await shows 'held by lockd' d:job
    "$LOCKD" run d:job -- touch ran &
    helper=$!
    await shows 'waiter 1' d:job
    kill -TERM "$helper"
    result=0
    wait "$helper" || result=$?
    same 143 "$result"
    same 0 "$(lockd status d:job | grep -c waiter || :)"
    echo >go
    wait
    [ ! -e ran ]
}

h10_a_stopped_holder_is_named() {
    mkdir d
    "$LOCKD" run d:job -- sleep 60 &
    helper=$!
    await shows 'held by lockd' d:job
    kill -STOP "$helper"
    await shows '(stopped)' d:job
    status 75 lockd run -w 0.1 d:job -- true
    grep -q "(pid $helper) (stopped) since" err
    kill -CONT "$helper"
    kill -TERM "$helper"
    wait "$helper" || :
    status 0 lockd run -n d:job -- true
}

verbose_says_what_is_waited_for() {
    mkdir d
    mkfifo go
    lockd run d:job -- sh -c 'read -r x <go' &
    await shows 'held by lockd' d:job
    lockd run -v d:job -- true 2>said &
    await grep -q 'waiting: busy: the lock "job" is held by lockd' said
    echo >go
    wait
    grep -q '^lockd: d: had, number [0-9]*$' said
}

programs_under_the_lock_write() {
    shale put db counter 0
    for i in 1 2 3; do
        for _ in 1 2 3 4 5; do
            lockd run db -- sh -c 'n=$("$SHALE" get db counter); "$SHALE" put db counter $((n + 1))'
        done &
    done
    wait
    same 15 "$(shale get db counter)"
}

siblings_under_one_lock_exclude_each_other() {
    shale put db k 0
    lockd run db -- sh -c 'for i in 1 2 3 4 5 6 7 8; do "$SHALE" put db "k$i" "$i" & done; wait'
    for i in 1 2 3 4 5 6 7 8; do
        same "$i" "$(shale get db "k$i")"
    done
}

others_wait_while_the_write_lock_is_lent() {
    shale put db k before
    lockd run -l backup db -- sh -c '
        "$SHALE" put db k inside
        status=0
        env -u SHALE_LOCK_FD "$SHALE" put --wait 0.1 db k outside 2>err || status=$?
        echo "$status" >result'
    same 75 "$(cat result)"
    grep -q 'busy: the write lock is held by lockd .*label "backup"' err
    same inside "$(shale get db k)"
}

a_shared_hold_freezes_writes() {
    shale put db k before
    status 75 lockd run -s db -- "$SHALE" put db k after
    same before "$(lockd run -s db -- "$SHALE" get db k)"
}

for name in exit_status_is_the_commands usage_errors_are_64 a_held_lock_is_a_conflict \
    names_follow_the_last_colon_behind_the_last_slash status_shows_holders_and_waiters sharers_share \
    fencing_numbers_grow nesting a_counter_is_exact the_lock_ends_with_cmd_whatever_it_leaves_behind \
    without_handing_over_cmd_has_no_descriptor h7_killed_lockd_leaves_the_lock_with_cmd signals_reach_cmd \
    cmd_has_the_default_dispositions interrupted_while_it_waits_lockd_leaves_the_queue h10_a_stopped_holder_is_named \
    verbose_says_what_is_waited_for programs_under_the_lock_write siblings_under_one_lock_exclude_each_other \
    others_wait_while_the_write_lock_is_lent a_shared_hold_freezes_writes; do
    run "$name"
done
finish
