#!/bin/sh
# lockd on a terminal: what it says there, and what the terminal's keys do.
# shellcheck disable=SC2016 # the quoted scripts are for others to expand
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/lockd_lib.sh"

# on_terminal SCRIPT: sh -c SCRIPT with a terminal of its own; what it shows goes to the file shown, and standard input to
# its keyboard. (A shell's background has the keys' signals ignored, a terminal has not. script asks SHELL which sh.)
on_terminal() {
    env --default-signal=INT,QUIT SHELL=/bin/sh script -q -e -f -c "$1" shown >/dev/null
}
# A keyboard that stays open: what is written to descriptor 7 is typed.
keyboard() {
    rm -f keys
    mkfifo keys
    exec 7<>keys
}

who_waits_is_told_for_whom_and_how_many_are_ahead() {
    mkdir d
    keyboard
    hold_until_let_go -l theirs d:job
    "$LOCKD" run d:job -- true &
    await shows 'waiter 1' d:job
    on_terminal '"$LOCKD" run d:job -- true' <keys &
    await grep -q '^lockd: d: waiting for the lock "job", held by lockd (pid [0-9]*) since .*, label "theirs"; 1 ahead in the queue.$' shown
    let_go
    wait
}

quiet_on_a_terminal_too() {
    mkdir d
    keyboard
    hold_until_let_go d:job
    status 75 on_terminal '"$LOCKD" run -q -w 1.5 d:job -- true' <keys
    status 1 grep lockd: shown
    status 75 on_terminal '"$LOCKD" run -w 1.5 d:job -- true' <keys
    same 2 "$(grep -c '^lockd: d: ' shown)" # who is waited for; and that it was not had
    let_go
}

# What is not on a terminal says nothing before the end.
without_a_terminal_nothing_is_told() {
    mkdir d
    hold_until_let_go d:job
    status 75 lockd run -w 1.5 d:job -- true
    same 1 "$(wc -l <err)"
    let_go
}

# By the terminal (SI_KERNEL is 128), and not once more by lockd (SI_USER is 0). A shell would see two as one.
keys_reach_cmd_once() {
    mkdir d
    keyboard
    cat >cmd <<'EOF'
import os, signal, sys
keys = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}
signal.pthread_sigmask(signal.SIG_BLOCK, keys)
open("ready", "w").close()
while not os.path.exists("end"):
    info = signal.sigtimedwait(keys, 0.02)
    if info:
        with open("got", "a") as got:
            got.write("%s %d\n" % (signal.Signals(info.si_signo).name, info.si_code))
sys.exit(5)
EOF
    on_terminal 'exec "$LOCKD" run d:job -- python3 cmd' <keys &
    terminal=$!
    await test -e ready
    printf '\003' >&7
    await grep INT got
    printf '\034' >&7
    await grep QUIT got
    printf '\032' >&7
    await grep TSTP got
    sleep 0.2
    : >end
    result=0
    wait "$terminal" || result=$?
    same 5 "$result"
    same 'SIGINT 128, SIGQUIT 128, SIGTSTP 128' "$(paste -s -d , got | sed 's/,/, /g')"
}

interrupted_by_a_key_it_leaves_the_queue() {
    mkdir d
    keyboard
    hold_until_let_go d:job
    on_terminal 'trap : INT; "$LOCKD" run d:job -- touch ran; echo $? >result' <keys &
    terminal=$!
    await shows 'waiter 1' d:job
    printf '\003' >&7
    wait "$terminal" || :
    same 130 "$(cat result)"
    hides waiter d:job
    let_go
    [ ! -e ran ]
}

# The terminal ends, what holds stays.
a_hold_lets_go_of_the_terminal() {
    mkdir d
    keyboard
    sleep 60 &
    process=$!
    export process
    on_terminal 'number=$("$LOCKD" hold --for "$process" d:job); echo "$number" >number' <keys
    status 75 lockd run -n d:job -- true
    status 0 lockd drop d:job "$(cat number)"
    kill "$process"
}

for name in who_waits_is_told_for_whom_and_how_many_are_ahead quiet_on_a_terminal_too \
    interrupted_by_a_key_it_leaves_the_queue a_hold_lets_go_of_the_terminal; do
    run_with script "$name"
done
if command -v script >/dev/null; then
    run_with python3 keys_reach_cmd_once
else
    skip keys_reach_cmd_once script
fi
run without_a_terminal_nothing_is_told
finish
