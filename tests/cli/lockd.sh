#!/bin/sh
# lockd: run, wait and status.
# shellcheck disable=SC2016 # the quoted scripts are CMD's to expand
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/lockd_lib.sh"

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

# Each option by its letter and by its name, where it shows.
long_names_are_those_of_flock() {
    mkdir d
    for options in '-n' '--nonblock' '-w 0.05' '--timeout 0.05' '--timeout=0.05' '-w 0'; do
        hold_until_let_go d:job
        # shellcheck disable=SC2086
        status 75 lockd run $options d:job -- true
        # shellcheck disable=SC2086
        status 9 lockd run $options -E 9 d:job -- true
        # shellcheck disable=SC2086
        status 0 lockd run $options --conflict-exit-code 0 --quiet d:job -- touch ran
        same '' "$(cat err)"
        # shellcheck disable=SC2086
        status 75 lockd run $options --exclusive d:job -- true
        # shellcheck disable=SC2086
        status 75 lockd run $options --shared d:job -- true
        let_go
    done
    [ ! -e ran ]
    for options in -s --shared '-x -s'; do
        hold_until_let_go -s d:job
        # shellcheck disable=SC2086
        status 0 lockd run -n $options d:job -- true
        status 75 lockd run -n -x d:job -- true
        let_go
    done
    hold_until_let_go --label nightly --name job d
    shows '^job: held by .*, label "nightly"$' d
    let_go
    status 0 lockd run --verbose d -- true
    grep -q '^lockd: d: had, number [0-9]*$' err
    same 5 "$(lockd run --command 'echo 5' d)"
    same '' "$(lockd run --close d -- sh -c 'echo $SHALE_LOCK_FD')"
    lockd run --no-fork -l x d -- "$LOCKD" status d | grep -q '^the write lock: held by'
}

a_string_is_for_the_shell() {
    mkdir d
    same 'a  b' "$(lockd run -c "echo 'a  b'" d:job)"
    same after "$(lockd run d:job -c 'echo after')" # as with flock
    same after "$(lockd run d:job --command 'echo after')"
    status 3 lockd run -c 'exit 3' d
    lockd run -c '"$LOCKD" status d' d:job | grep -q 'label ""$LOCKD" status d"$'
}

without_a_fork_lockd_becomes_cmd() {
    mkdir d
    mkfifo go
    "$LOCKD" run -F d:job -- sh -c 'echo $$ >pid; read -r x <go' &
    pid=$!
    await test -s pid
    same "$pid" "$(cat pid)"
    status 75 lockd run -n d:job -- true
    echo >go
    wait "$pid"
    status 0 lockd run -n d:job -- true
    same 75 "$(lockd run -F d:job -- sh -c '"$LOCKD" run d:job -- true 2>/dev/null || echo $?')"
    shale put db k before
    lockd run -F db -- "$SHALE" put db k after
    same after "$(shale get db k)"
}

wait_returns_when_it_is_free() {
    mkdir d
    status 0 lockd wait d
    status 0 lockd wait -n d:job
    hold_until_let_go -l mine d:job
    status 75 lockd wait -n d:job
    grep -q '^lockd: d: busy: the lock "job" is held by .*label "mine"$' err
    status 75 lockd wait --timeout 0.05 d:job
    status 9 lockd wait -q -w 0.05 -E 9 -N job d
    same '' "$(cat err)"
    status 0 lockd wait -n d
    { lockd wait d:job && : >freed; } &
    await shows 'waiter 1' d:job
    [ ! -e freed ]
    let_go
    await test -e freed
    wait
    hold_until_let_go -s d
    status 75 lockd wait -n d # frozen is not free
    let_go
    status 75 lockd run d:job -- "$LOCKD" wait d:job # it would wait for itself
    grep -q 'an ancestor of this process' err
}

names_follow_the_last_colon_behind_the_last_slash() {
    mkdir -p a:b/c d
    lockd run a:b/c:x -- "$LOCKD" status a:b/c | grep -q '^x: held by lockd'
    lockd run ./d -- "$LOCKD" status d | grep -q '^the write lock: held by lockd'
    lockd run a:b/ -- "$LOCKD" status a:b/ | grep -q '^the write lock: held by lockd'
    lockd run -N a/b:c a:b -- "$LOCKD" status -N a/b:c a:b | grep -q '^a/b:c: held by lockd'
}

status_shows_holders_and_waiters() {
    mkdir d
    same 'nobody holds or waits' "$(lockd status d | head -n 1)"
    mkfifo go
    lockd run -l first d:job -- sh -c 'read -r x <go' &
    await shows 'label "first"' d
    lockd run -l second d:job -- true &
    await shows 'waiter 1: lockd .*label "second"' d
    lockd status d:job | grep -q '^job: held by lockd (pid [0-9]*) since'
    lockd status --json d >json
    same 3 "$(wc -l <json)"
    grep -q '"holder":true,"exclusive":true,"stopped":false,.*"lock":"job","program":"lockd","label":"first"}$' json
    grep -q '"holder":false,.*"label":"second"}$' json
    grep -q '^{"lock":"job","totals":{"acquisitions":1,"waits":[0-9]*,"timeouts":0,' json
    lockd run d -- "$LOCKD" status d >both # a lock after the other, each with its totals
    same 'the write lock: held|the write lock: 1|job: held|job: waiter|job: 1' \
        "$(sed 's/^\([^:]*: [^ ]*\).*/\1/' both | paste -s -d '|')"
    echo >go
    wait
    same 'nobody holds or waits' "$(lockd status d | head -n 1)"
    lockd status d:job | grep -q '^job: 2 acquisitions, [0-9]* waits (mean [0-9.]* s, longest [0-9.]* s), 0 timeouts, '
    command -v python3 >/dev/null || return 0
    python3 -c 'import json, sys; [json.loads(line) for line in sys.stdin]' <json
}

status_watches() {
    mkdir d
    "$LOCKD" status --watch 0.01 d >seen &
    watcher=$!
    await sh -c '[ "$(grep -c ^nobody seen)" -ge 3 ]'
    lockd run -l shown d:job -- sh -c 'until grep -q "label .shown" seen; do sleep 0.02; done'
    kill "$watcher"
    wait "$watcher" || same 143 $?
    lockd status --json --watch 0.01 d:job | head -n 2 | grep -c '^{"lock":"job","totals"' >count # it ends with its reader
    same 2 "$(cat count)"
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
    status 75 lockd run -l mine d:job -- "$LOCKD" run d:job -- true
    grep -q 'an ancestor of this process has it: busy: the lock "job" is held by lockd (pid [0-9]*) since .*label "mine"' err
    status 75 lockd run -l far d:job -- "$LOCKD" run e:job -- "$LOCKD" run -s d:job -- true
    grep -q 'label "far"' err
    same inner "$(lockd run d:job -- "$LOCKD" run d:other -- "$LOCKD" run d -- echo inner)"
    same inner "$(lockd run d -- "$LOCKD" run -s d -- echo inner)"
    same inner "$(lockd run -s d -- "$LOCKD" run -s d -- echo inner)"
    # the number is that of the lock that was asked for last
    lockd run d -- sh -c 'echo $LOCKD_NUMBER; "$LOCKD" run e -- "$LOCKD" run d -- sh -c "echo \$LOCKD_NUMBER"' >numbers
    same 1 "$(sort -u numbers | wc -l)"
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

# Killed, CMD leaves nothing; what it started in the background keeps running, without the lock.
h7_killed_cmd_frees_the_lock() {
    mkdir d
    mkfifo go
    status 137 lockd run d:job -- sh -c 'sleep 60 >/dev/null 2>&1 & echo $! >pid; kill -9 $$'
    status 0 lockd run -n d:job -- true
    kill -0 "$(cat pid)"
    kill "$(cat pid)"
}

# lockd and CMD killed: the last heir has it.
h7_killed_lockd_leaves_the_lock_with_the_last_heir() {
    mkdir d
    "$LOCKD" run d:job -- sh -c 'sleep 60 >/dev/null 2>&1 & echo $! >heir; echo $$ >cmd; wait' &
    helper=$!
    await test -s cmd
    kill -9 "$helper"
    wait "$helper" || :
    status 75 lockd run -n d:job -- true
    grep -q "is held by lockd (pid $helper) (ended) since" err
    shows "held by lockd (pid $helper) (ended) since" d:job
    kill -9 "$(cat cmd)"
    await gone "$(cat cmd)"
    status 75 lockd run -n d:job -- true
    kill -9 "$(cat heir)"
    status 0 lockd run -w 20 d:job -- true
}

# With -o nobody inherits: the lock ends with lockd, and CMD does not.
h7_killed_lockd_that_kept_the_lock_to_itself() {
    mkdir d
    "$LOCKD" run -o d:job -- sh -c 'echo $$ >cmd; sleep 60' &
    helper=$!
    await test -s cmd
    status 75 lockd run -n d:job -- true
    kill -9 "$helper"
    wait "$helper" || :
    status 0 lockd run -w 20 d:job -- true
    kill "$(cat cmd)"
}

# A daemon that CMD leaves behind under the write lock does not write any more.
a_daemon_left_behind_does_not_write() {
    shale put db k before
    mkfifo go
    lockd run db -- sh -c '{ read -r x; status=0; "$SHALE" put db k late 2>err || status=$?; echo $status >result; } <go &'
    echo >go
    await test -s result
    same 64 "$(cat result)"
    grep -q 'does not hold the write lock any more' err
    same before "$(shale get db k)"
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

# Stopped and let go on, both of them. (timeout gives them a process group that somebody could let go on: in an orphaned
# one the kernel stops nobody.)
stop_and_continue_are_passed_on() {
    mkdir d
    timeout 60 "$LOCKD" run d -- sh -c 'echo $PPID >helper; echo $$ >pid; exec sleep 60' &
    group=$!
    await test -s pid
    helper=$(cat helper)
    cmd=$(cat pid)
    await grep -q sleep "/proc/$cmd/comm"
    kill -TSTP "$helper"
    await grep -q '^State:.*stopped' "/proc/$cmd/status"
    await grep -q '^State:.*stopped' "/proc/$helper/status"
    kill -CONT "$helper"
    await grep -q '^State:.*sleeping' "/proc/$cmd/status"
    await grep -q '^State:.*sleeping' "/proc/$helper/status"
    kill -TERM "$helper"
    result=0
    wait "$group" || result=$?
    same 143 "$result"
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
    hides waiter d:job
    (trap '' HUP && exec "$LOCKD" run -w 20 d:job -- touch had) & # as under nohup
    helper=$!
    await shows 'waiter 1' d:job
    kill -HUP "$helper"
    shows 'waiter 1' d:job
    echo >go
    wait "$helper"
    [ ! -e ran ]
    [ -e had ]
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
    await grep -q '^lockd: d: waiting for the lock "job", held by lockd (pid [0-9]*) since .*; 0 ahead in the queue$' said
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

# The message comes after ten seconds: it has been waiting in the background since the tests began.
begin_long_holds() {
    mkdir long
    cd long
    mkdir named quiet
    "$SHALE" put db k 0
    for target in named:job db quiet; do
        set -- "$target"
        [ "$target" != quiet ] || set -- -q "$target"
        "$LOCKD" run "$@" -- sh -c 'while [ -d ../long ] && [ ! -e end ]; do sleep 0.1; done' 2>"said.${target%:*}" &
        await shows 'held by' "$target"
        "$LOCKD" run -w 60 "$target" -- true 2>/dev/null &
    done
    cd ..
}
after_ten_seconds_it_says_that_writers_wait() {
    cd ../long
    await grep -q '^lockd: db: has held the write lock for 1[0-9] s; 1 wait for it$' said.db
    sleep 1
    : >end
    wait
    same 1 "$(wc -l <said.db)"
    same '' "$(cat said.named said.quiet)"
}

# Deleted, or never possible: the queue costs order and names, not exclusion.
without_a_queue_locks_still_exclude() {
    mkdir d
    : >d/queue
    lockd run d:job -- sh -c '
        unset LOCKD_HELD
        echo "[$LOCKD_NUMBER]" >number
        "$LOCKD" run -n d:job -- true 2>/dev/null || echo $? >refused
        "$LOCKD" run -n d:other -- "$LOCKD" run -n d -- true && : >had'
    same '[]' "$(cat number)"
    same 75 "$(cat refused)"
    [ -e had ]
    status 78 lockd status d
    same 'lockd: d: there is no usable lock-queue file' "$(cat err)"
    status 78 lockd hold --for $$ d:job
    status 0 lockd run -n d:job -- true
}

two_databases_at_once() {
    shale put one k before
    shale put two k before
    lockd run one -- "$LOCKD" run two -- sh -c '"$SHALE" put one k 1 && "$SHALE" put two k 2 &&
        "$SHALE" scan one | "$SHALE" put two copy - && ! env -u SHALE_LOCK_FD "$SHALE" put --wait 0.05 one k 3 2>/dev/null'
    same '1 2' "$(shale get one k) $(shale get two k)"
    same "$(shale scan one)" "$(shale get two copy)"
}

begin_long_holds
for name in long_names_are_those_of_flock a_string_is_for_the_shell without_a_fork_lockd_becomes_cmd \
    a_held_lock_is_a_conflict wait_returns_when_it_is_free names_follow_the_last_colon_behind_the_last_slash \
    status_shows_holders_and_waiters status_watches sharers_share fencing_numbers_grow nesting a_counter_is_exact \
    the_lock_ends_with_cmd_whatever_it_leaves_behind without_handing_over_cmd_has_no_descriptor \
    h7_killed_cmd_frees_the_lock h7_killed_lockd_leaves_the_lock_with_cmd \
    h7_killed_lockd_leaves_the_lock_with_the_last_heir h7_killed_lockd_that_kept_the_lock_to_itself \
    a_daemon_left_behind_does_not_write signals_reach_cmd stop_and_continue_are_passed_on \
    cmd_has_the_default_dispositions interrupted_while_it_waits_lockd_leaves_the_queue h10_a_stopped_holder_is_named \
    verbose_says_what_is_waited_for programs_under_the_lock_write siblings_under_one_lock_exclude_each_other \
    others_wait_while_the_write_lock_is_lent a_shared_hold_freezes_writes two_databases_at_once \
    without_a_queue_locks_still_exclude; do
    run "$name"
done
run after_ten_seconds_it_says_that_writers_wait
finish
