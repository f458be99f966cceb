#!/bin/sh
# lockd: locks that scripts keep themselves: lock, unlock, path; hold, drop.
# shellcheck disable=SC2016 # the quoted scripts are for others to expand
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/lockd_lib.sh"

free() { lockd run -n "$1" -- true 2>/dev/null; }
taken() { ! free "$1"; }

# ---- on a descriptor of the script's ----

usage_errors_are_64() {
    mkdir d
    exec 9<>"$(lockd path d)"
    for command in lock unlock; do
        status 64 lockd "$command"
        status 64 lockd "$command" d
        status 64 lockd "$command" d:job
        status 64 lockd "$command" d nine
        status 64 lockd "$command" d 9x
        status 64 lockd "$command" d -1
        status 64 lockd "$command" d 9 9
        status 64 lockd "$command" --json d 9
    done
    status 64 lockd lock -o d 9
    status 64 lockd unlock -n d 9
    status 64 lockd path
    status 64 lockd path d d
    status 64 lockd path -n d
    for command in hold drop; do
        status 64 lockd "$command"
        status 64 lockd "$command" --nosuch d
    done
    status 64 lockd hold d
    status 64 lockd hold --for d
    status 64 lockd hold --for me d
    status 64 lockd hold --for 0 d
    status 64 lockd hold --for $$ d d
    status 64 lockd drop d
    status 64 lockd drop d one
    status 64 lockd drop d -1
    status 64 lockd drop d 1 1
    free d
}

a_descriptor_holds_until_unlocked() {
    mkdir d
    for target in d d:job; do
        exec 9<>"$(lockd path d)"
        status 0 lockd lock "$target" 9
        taken "$target"
        status 0 lockd unlock "$target" 9
        free "$target"
        status 0 lockd lock "$target" 9
        taken "$target"
        exec 9>&- # closing frees as well
        free "$target"
    done
}

a_bad_descriptor_is_65_with_the_remedy() {
    mkdir d other
    status 65 lockd lock d 9
    same 'lockd: d: descriptor 9 is not open (open it with exec 9<>d/LOCK)' "$(cat err)"
    # Numbers that lockd itself could get are not its to lock.
    for fd in 3 4 5 6 7 8 10 11 12; do
        status 65 lockd lock d "$fd"
        status 65 lockd unlock d "$fd"
    done
    exec 9<>"$(lockd path other)"
    status 65 lockd lock d 9
    grep -q 'descriptor 9 is another file (open it with exec 9<>d/LOCK)$' err
    exec 9<"$(lockd path d)"
    status 65 lockd lock d:job 9
    grep -q 'descriptor 9 is not open for reading and writing (open it with exec 9<>d/LOCK)$' err
    exec 9<>d/LOCK
    status 65 lockd unlock d 9
    same 'lockd: d: descriptor 9 does not hold the lock' "$(cat err)"
    free d
}

the_caller_is_the_holder() {
    mkdir d
    sh -c 'echo $$ >pid; exec 9<>"$("$LOCKD" path d)"; "$LOCKD" lock -l mine d:job 9; "$LOCKD" status d >shown'
    grep -q "^job: held by sh (pid $(cat pid)) since .*label \"mine\"\$" shown
    free d:job
    sh -c 'echo $$ >pid; "$LOCKD" hold -l mine --for $$ d >/dev/null; "$LOCKD" status d >shown'
    grep -q "^the write lock: held by sh (pid $(cat pid)) since .*label \"mine\"\$" shown
}

lock_waits_and_gives_up_like_run() {
    mkdir d
    exec 9<>"$(lockd path d)"
    hold_until_let_go -l theirs d:job
    status 75 lockd lock -n d:job 9
    grep -q '^lockd: d: busy: the lock "job" is held by lockd .*label "theirs"$' err
    status 9 lockd lock -w 0.05 -E 9 -q d:job 9
    same '' "$(cat err)"
    status 0 lockd lock -E 0 -w 0.05 -q -N job d 9
    status 65 lockd unlock d:job 9 # it was not had
    status 75 lockd lock -s -n d:job 9
    "$LOCKD" lock -v d:job 9 2>said &
    locker=$!
    await shows 'waiter 1: sh .*' d:job
    let_go
    wait "$locker"
    grep -q '^lockd: d: had, number [0-9]*$' said
    taken d:job
    status 75 lockd lock d:job 9
    grep -q 'descriptor 9 holds the lock already' err
    lockd unlock d:job 9
    status 0 lockd lock -s d:job 9
    status 0 lockd run -n -s d:job -- true
    status 75 lockd run -n d:job -- true
    lockd unlock -N job d 9
    free d:job
}

interrupted_while_it_waits_lock_leaves_the_queue() {
    mkdir d
    exec 9<>"$(lockd path d)"
    hold_until_let_go d:job
    "$LOCKD" lock d:job 9 &
    locker=$!
    await shows 'waiter 1' d:job
    kill -TERM "$locker"
    wait "$locker" || same 143 $?
    hides waiter d:job
    let_go
    free d:job
}

heirs_keep_the_descriptors_lock() {
    mkdir d
    sh -c 'exec 9<>"$("$LOCKD" path d)"; "$LOCKD" lock d:job 9; sleep 60 >/dev/null 2>&1 & echo $! >heir; kill -9 $$' || :
    taken d:job
    kill -9 "$(cat heir)"
    status 0 lockd run -w 20 d:job -- true
}

path_makes_the_file_for_those_who_may_write() {
    mkdir -p d a:b
    same d/LOCK "$(umask 0; lockd path d)"
    same a:b/LOCK "$(lockd path a:b)"
    same a:b/LOCK "$(lockd path a:b/)"
    same 600 "$(stat -c %a d/LOCK)"
}

programs_write_under_a_descriptor() {
    shale put db n 1
    exec 9<>"$(lockd path db)"
    lockd lock db 9
    export SHALE_LOCK_FD=9
    shale put db n 2
    same inner "$(lockd run -n db -- echo inner)"
    status 75 env -u SHALE_LOCK_FD "$SHALE" put --wait 0.05 db n 3
    lockd unlock db 9
    unset SHALE_LOCK_FD
    same 2 "$(shale get db n)"
    shale put --wait 5 db n 4
}

# ---- in the background ----

a_hold_lasts_until_it_is_dropped() {
    mkdir d
    for target in d d:job; do
        number=$(lockd hold --for $$ "$target")
        [ "$number" -gt 0 ]
        taken "$target"
        status 1 lockd drop "$target" $((number + 1))
        grep -q "^lockd: d: no hold has the number $((number + 1))\$" err
        status 1 lockd drop d:other "$number"
        taken "$target"
        status 0 lockd drop "$target" "$number"
        free "$target"
        status 1 lockd drop "$target" "$number"
        next=$(lockd hold --for $$ "$target")
        [ "$next" -gt "$number" ]
        status 0 lockd drop "$target" "$next"
    done
    number=$(lockd hold --for $$ -N job d)
    taken d:job
    lockd drop -N job d "$number"
    free d:job
    await test -z "$(find d/queue -name '*hold*')"
}

a_hold_ends_with_its_process() {
    mkdir d
    sh -c '"$LOCKD" hold --for $$ d:job >number; "$LOCKD" run -n d:job -- true 2>/dev/null || echo $? >inside'
    same 75 "$(cat inside)"
    status 0 lockd run -w 20 d:job -- true
    status 1 lockd drop d:job "$(cat number)"
    sh -c '"$LOCKD" hold --for $$ d:job >number; kill -9 $$' || :
    status 0 lockd run -w 20 d:job -- true
}

for_a_process_that_is_not_there() {
    mkdir d
    true &
    ended=$!
    wait
    status 64 lockd hold --for "$ended" d
    grep -q "there is no process $ended" err
    free d
    # Or that ends while it is waited for the lock: the queue is left.
    hold_until_let_go d:job
    sleep 60 &
    process=$!
    "$LOCKD" hold --for "$process" d:job >number 2>said &
    waiter=$!
    await shows 'waiter 1: sleep' d:job
    kill "$process"
    wait "$waiter" || same 75 $?
    grep -q "process $process has ended" said
    same '' "$(cat number)"
    hides waiter d:job
    let_go
}

shared_holds_are_dropped_one_by_one() {
    mkdir d
    a=$(lockd hold -s --for $$ d:job)
    b=$(lockd hold -s --for $$ d:job)
    [ "$a" != "$b" ]
    same 2 "$(lockd status d:job | grep -c "held shared by sh (pid $$)")"
    lockd drop d:job "$a"
    taken d:job
    same 1 "$(lockd status d:job | grep -c 'held shared')"
    status 0 lockd run -n -s d:job -- true
    lockd drop d:job "$b"
    free d:job
}

hold_gives_up_like_run() {
    mkdir d
    hold_until_let_go -l theirs d:job
    status 75 lockd hold -n --for $$ d:job
    grep -q 'held by lockd .*label "theirs"$' err
    status 9 lockd hold -w 0.05 -E 9 -q --for $$ d:job
    same '' "$(cat err)"
    status 0 lockd hold -n -E 0 -q --for $$ d:job >number
    same '' "$(cat number)"
    "$LOCKD" hold --for $$ d:job >number &
    waiter=$!
    await shows 'waiter 1: sh' d:job
    kill -TERM "$waiter"
    wait "$waiter" || same 143 $?
    hides waiter d:job
    let_go
    lockd hold -v --for $$ d:job 2>said >number
    same "lockd: d: had, number $(cat number)" "$(cat said)"
    lockd drop d:job "$(cat number)"
}

# Other locks of the script, and its pipes, end with the script.
the_keeper_has_nothing_of_the_scripts() {
    mkdir d
    sh -c 'exec 8>pipe 9<>"$("$LOCKD" path d)"; "$LOCKD" lock d:mine 9; "$LOCKD" hold --for $PPID d:kept >number' &
    script=$!
    wait "$script"
    taken d:kept
    free d:mine
    pid=$(keeper d)
    same /dev/null "$(readlink "/proc/$pid/fd/0")"
    same /dev/null "$(readlink "/proc/$pid/fd/2")"
    readlink "/proc/$pid/fd/"* >fds
    status 1 grep pipe fds
    same / "$(readlink "/proc/$pid/cwd")"
    same 0 "$(awk '{ print $7 }' "/proc/$pid/stat")" # no terminal
    same "$pid" "$(awk '{ print $6 }' "/proc/$pid/stat")" # a session of its own
    lockd drop d:kept "$(cat number)"
    await gone "$pid"
}

h7_a_killed_keeper_frees_the_lock() {
    mkdir d
    for signal in KILL TERM; do
        number=$(lockd hold --for $$ d:job)
        kill -s "$signal" "$(keeper d)"
        status 0 lockd run -w 20 d:job -- true
        status 1 lockd drop d:job "$number"
        same '' "$(find d/queue -name '*hold*')"
    done
}

a_stopped_keeper_is_not_waited_for_for_ever() {
    mkdir d
    number=$(lockd hold --for $$ d:job)
    pid=$(keeper d)
    kill -STOP "$pid"
    status 75 lockd drop d:job "$number"
    grep -q 'is it stopped' err
    kill -CONT "$pid"
    status 0 lockd run -w 20 d:job -- true
}

a_hold_that_cannot_tell_its_number_lets_go() {
    mkdir d
    status 74 lockd hold --for $$ d:job >/dev/full
    free d:job
    { lockd hold --for $$ d:job || echo $? >result; } | :
    case $(cat result 2>/dev/null) in
        74) free d:job ;;
        *) lockd wait -n d:job || kill "$(keeper d)" ;; # it wrote before the reader went away
    esac
}

# Without /dev/null there is nothing to put in the terminal's place.
a_keeper_that_cannot_start_is_71() {
    mkdir d
    echo 'mount -t tmpfs tmpfs /dev || exit 99; exec "$LOCKD" hold --for $$ d:job' >script
    status 71 unshare -Urm sh script >number
    same '' "$(cat number)"
    grep -q 'did not start' err
    free d:job
    same '' "$(find d/queue -name '*hold*')"
}

# Another PID namespace, where the keeper has another number, or none.
h9_drop_from_another_namespace() {
    mkdir d
    number=$(lockd hold --for $$ d:job)
    unshare -Ur --pid --fork --mount-proc "$LOCKD" drop d:job "$number"
    free d:job
}

a_hold_is_not_inherited() {
    shale put db k before
    number=$(lockd hold -l window --for $$ db)
    status 75 shale put --wait 0.05 db k within
    grep -q 'held by sh .*label "window"' err
    same before "$(shale get db k)"
    lockd drop db "$number"
    number=$(lockd hold -s --for $$ db) # a freeze
    status 75 shale put --wait 0.05 db k within
    lockd drop db "$number"
    shale put --wait 5 db k after
    status 75 lockd run db -- "$LOCKD" hold --for $$ db # an ancestor has it
}

for name in usage_errors_are_64 a_descriptor_holds_until_unlocked a_bad_descriptor_is_65_with_the_remedy \
    the_caller_is_the_holder lock_waits_and_gives_up_like_run interrupted_while_it_waits_lock_leaves_the_queue \
    heirs_keep_the_descriptors_lock path_makes_the_file_for_those_who_may_write programs_write_under_a_descriptor \
    a_hold_lasts_until_it_is_dropped a_hold_ends_with_its_process for_a_process_that_is_not_there \
    shared_holds_are_dropped_one_by_one hold_gives_up_like_run the_keeper_has_nothing_of_the_scripts \
    h7_a_killed_keeper_frees_the_lock a_stopped_keeper_is_not_waited_for_for_ever \
    a_hold_that_cannot_tell_its_number_lets_go a_hold_is_not_inherited; do
    run "$name"
done
if unshare -Urm true 2>/dev/null; then
    run a_keeper_that_cannot_start_is_71
else
    skip a_keeper_that_cannot_start_is_71 'mounts of its own (unshare -Urm)'
fi
if unshare -Ur --pid --fork --mount-proc true 2>/dev/null; then
    run h9_drop_from_another_namespace
else
    skip h9_drop_from_another_namespace 'namespaces of its own (unshare -Ur --pid)'
fi
finish
