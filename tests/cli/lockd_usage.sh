#!/bin/sh
# lockd: its command line and its exit statuses.
# shellcheck disable=SC2016 # the quoted scripts are CMD's to expand
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/lockd_lib.sh"

exit_status_is_the_commands() {
    mkdir d
    status 0 lockd run d -- true
    status 7 lockd run d -- sh -c 'exit 7'
    status 137 lockd run d -- sh -c 'kill -9 $$'
    status 127 lockd run d -- ./nosuch
    : >file
    status 126 lockd run d -- ./file
    status 127 lockd run -F d -- ./nosuch
    status 126 lockd run -F d:job -- ./file
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
    status 64 lockd run -N '' d -- true
    status 64 lockd run -N "$(printf %0256d 0)" d -- true
    status 64 lockd run '' -- true
    status 64 lockd run :job -- true
    status 64 lockd run -c
    status 64 lockd run -c 'true' d -- true
    status 64 lockd run -F -o d -- true
    status 64 lockd run -q=3 d -- true
    status 64 lockd run --quiet=3 d -- true
    status 64 lockd run --timeout
    status 64 lockd run -w -1 d -- true
    status 64 lockd run -w nan d -- true
    status 64 lockd run --for 1 d -- true
    status 64 lockd status
    status 64 lockd status d d
    status 64 lockd status --watch 0 d
    status 64 lockd status -n d
    status 64 lockd wait
    status 64 lockd wait d d
    status 64 lockd wait -s d
    same '' "$(ls d)"
    grep -q '^lockd: wait: there is no option -s (lockd --help)$' err
    for command in '' run lock unlock hold drop status wait path; do
        # shellcheck disable=SC2086
        lockd $command --help | grep -q '^usage: lockd run'
    done
    same --help "$(lockd run d -- sh -c 'echo "$1"' sh --help)"
    lockd --version | grep -q '^lockd [0-9]'
}

help_page_and_completions_name_the_same() {
    lockd --help | grep -oE -- '--[a-z][a-z-]+' | sort -u >help
    [ "$(wc -l <help)" -ge 17 ]
    while read -r option; do
        grep -q -- "$(echo "$option" | sed 's/^-/Fl /; s/-/\\\\-/g')" "$here/../../doc/lockd.1" || echo "$option: not in the page"
        grep -q -- "$option" "$here/../../completions/lockd.bash" || echo "$option: not in the completions"
    done <help >missing
    same '' "$(cat missing)"
    for command in $(lockd --help | sed -n 's/^[ usage:]* lockd \([a-z]*\).*/\1/p'); do
        grep -q "^\.Cm $command\$" "$here/../../doc/lockd.1"
        grep -q "[' ]$command " "$here/../../completions/lockd.bash"
    done
}

status_of_no_directory_and_no_permission() {
    mkdir d
    status 66 lockd wait nodir
    status 66 lockd path nodir
    status 66 lockd drop nodir 1
    status 1 lockd drop d 1 # nobody has ever locked there
    same '' "$(ls d)"
    status 74 lockd status d >/dev/full
    status 74 lockd path d >/dev/full
    status 78 lockd run /proc -- true
    grep -q '^lockd: /proc: ' err
    chmod 755 . .. "$tmp"
    chmod 0 d/LOCK
    mkdir fresh
    chmod 555 fresh
    cp "$LOCKD" tool
    chmod 755 tool
    : >err
    chmod 666 err
    status 77 as_other ./tool run fresh -- true
    status 77 as_other ./tool run d -- true
    chmod 755 fresh
}

as_other() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
    else
        "$@"
    fi
}

no_process_left_is_71() {
    mkdir d
    cp "$LOCKD" tool
    : >err
    chmod 777 . .. "$tmp" tool d err
    # a leak check at the end would want a process of its own
    status 71 as_other env ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" prlimit --nproc=0 ./tool run d:job -- true
    grep -q '^lockd: fork: ' err
    status 0 as_other ./tool run -n d:job -- true
}

# What is printed must not land in a file of ours that got the number of a closed stream.
nothing_is_printed_into_a_file_of_ours() {
    mkdir d
    lockd run d:job -- true
    for command in 'status d' 'status --json d' 'path d' "hold --for $$ d:kept" 'run d:job -- missing'; do
        for closed in '<&- >&-' '>&- 2>&-' '<&- 2>&-' '<&- >&- 2>&-'; do
            got=0
            (eval "\"$LOCKD\" $command $closed") || got=$?
            case $command,$closed in
                run*) same 127 "$got" ;;
                hold*'<&- 2>&-') same 0 "$got" && lockd drop d:kept "$(number_of d:kept)" ;;
                *'<&- 2>&-') same 0 "$got" ;;
                *) same 74 "$got" ;;
            esac
            same 0 "$(stat -c %s d/LOCK)"
            lockd run -n d:kept -- true
        done
    done
    # CMD finds them closed as well
    lockd run d:job -- sh -c '[ ! -e /proc/self/fd/0 ]' <&-
}
number_of() { lockd status --json "$1" | sed -n 's/^{"holder":true.*"number":\([0-9]*\),.*/\1/p'; }

# Whoever read stderr has gone: CMD runs all the same, under the lock, with SIGPIPE as it should be.
nobody_to_tell_is_no_reason_to_end() {
    mkdir d
    mkfifo pipe
    exec 8<>pipe
    exec 9>pipe
    exec 8>&-
    got=0
    "$LOCKD" run -v d:job -- sh -c ': >ran; kill -PIPE $$' 2>&9 || got=$?
    exec 9>&-
    same 141 "$got"
    [ -e ran ]
}

# What another process says must not reach a terminal as a control sequence, or as a line of its own.
control_characters_are_not_printed() {
    mkdir d
    name=$(printf 'a\033[2J\nb\302\233c')
    label=$(printf 'l\033[31m\nfake: held by nobody\302\2331m')
    hold_until_let_go -l "$label" "d:$name"
    "$LOCKD" run -l "$label" "d:$name" -- true &
    await shows 'waiter 1: lockd.*fake' d
    lockd status d >text
    status 75 lockd run -n "d:$name" -- true
    cat err >>text
    same 4 "$(wc -l <text)"
    same '' "$(LC_ALL=C tr -d '\n -~' <text)"
    let_go
    wait
}

# Half a character where a label was cut, a surrogate, an overlong form: JSON is UTF-8, whatever was given.
json_is_utf8_whatever_the_label() {
    mkdir d
    long=$(printf 'x%.0s' 1 2 3 4 5 6 7 8 9)$(printf '\303\244%.0s' 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0)
    for label in "$long" "$(printf '\355\240\200')" "$(printf '\340\200\257')" "$(printf '\364\220\200\200')"; do
        hold_until_let_go -l "$label" d:job
        "$LOCKD" run -l "$label" d:job -- true &
        await shows 'waiter 1: lockd' d:job
        lockd status --json d:job >json
        same 3 "$(wc -l <json)"
        iconv -f UTF-8 -t UTF-16 json >/dev/null
        let_go
        wait
    done
    lockd run -l "$long" d:job -- "$LOCKD" status --json d:job | grep -q 'ä"}'
}

# A file system without room for another inode.
no_space_is_73() {
    cat >script <<'EOF'
mkdir small && mount -t tmpfs -o nr_inodes=1 tmpfs small || exit 99
"$LOCKD" run small -- true
EOF
    status 73 unshare -Urm sh script
}

for name in exit_status_is_the_commands usage_errors_are_64 help_page_and_completions_name_the_same \
    status_of_no_directory_and_no_permission no_process_left_is_71 nothing_is_printed_into_a_file_of_ours nobody_to_tell_is_no_reason_to_end \
    control_characters_are_not_printed json_is_utf8_whatever_the_label; do
    run "$name"
done
if unshare -Urm true 2>/dev/null; then run no_space_is_73; else skip no_space_is_73 'mounts of its own (unshare -Urm)'; fi
finish
