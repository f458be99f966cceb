# shellcheck shell=sh
# What the tests of lockd share. Sourced behind lib.sh.
unset SHALE_LOCK_FD LOCKD_HELD LOCKD_NUMBER

# A case that goes wrong in the middle leaves its holders and waiters behind: those with their directory in ours.
leave_nobody() {
    for cwd in /proc/[0-9]*/cwd; do
        case $(readlink "$cwd" 2>/dev/null) in
            "${tmp:?}"/*)
                pid=${cwd#/proc/}
                kill -9 "${pid%/cwd}" 2>/dev/null || :
                ;;
        esac
    done
}
trap 'leave_nobody; clean_up' EXIT

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
# shows TEXT TARGET, hides TEXT TARGET: in the status, or not.
shows() { lockd status "$2" | grep -q "$1"; }
hides() { ! shows "$1" "$2"; }
gone() { ! kill -0 "$1"; }

# keeper DIR: the process in the background that keeps DIR/LOCK open. Nobody else has it open.
keeper() {
    lock=$(readlink -f "$1/LOCK")
    for fd in /proc/[0-9]*/fd/*; do
        if [ "$(readlink "$fd" 2>/dev/null)" = "$lock" ]; then
            fd=${fd#/proc/}
            echo "${fd%%/*}"
            return
        fi
    done
    return 1
}

# A holder of its own: takes TARGET (with more options before it) and keeps it until let_go; its pid is in holder.
hold_until_let_go() {
    rm -f go held
    mkfifo go
    "$LOCKD" run "$@" -- sh -c ': >held; read -r x <go' &
    holder=$!
    await test -e held
}
let_go() {
    echo >go
    wait "$holder" || :
}
