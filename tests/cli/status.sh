#!/bin/sh
# Exit statuses and messages, for every way to go wrong that can be had from outside.
. "$(dirname "$0")/lib.sh"

usage_is_64() {
    status 64 shale
    status 64 shale nonsense db
    status 64 shale get
    status 64 shale get db
    status 64 shale put db key
    status 64 shale put db key value more
    status 64 shale scan db --no-newline
    status 64 shale scan db --nonsense
    status 64 shale scan db --limit -1
    status 64 shale scan db --limit 1x
    status 64 shale scan db --limit
    status 64 shale get db key --wait soon
    status 64 shale get db key --wait -1
    status 64 shale get db key --hex --json
    status 64 shale get db key -o nonsense=1
    status 64 shale get db key -o threads
    status 64 shale get db key -o threads=many
    same no "$([ -e db ] && echo made || echo no)"
}

no_database_is_66() {
    for command in 'get db key' 'del db key' 'scan db' 'dump db' 'stat db' 'who db' 'verify db' 'compact db'; do
        # shellcheck disable=SC2086
        status 66 shale $command
        message db '(put and load make one)'
    done
    same no "$([ -e db ] && echo made || echo no)"
    mkdir db
    status 66 shale get db key
}

a_file_is_no_directory() {
    echo text >db
    status 64 shale put db key value
    status 64 shale get db key
    same text "$(cat db)"
}

cannot_create_is_73() {
    status 73 shale put nowhere/db key value
    message nowhere/db 'cannot create: '
    status 73 shale put /proc/shale key value
}

too_long_a_key_is_64() {
    shale put db a 1
    head -c 65536 /dev/zero | tr '\0' k >key
    status 64 shale put db - value <key
    status 1 shale get -q db - <key
    head -c 65535 key | shale put db - value
    same value "$(head -c 65535 key | shale get db -)"
}

# flip FILE OFFSET: another byte there
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf %b "\\0$(printf %o $((byte ^ 85)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

damaged_table_is_65() {
    "$AGENT" fill db --keys 5000 >/dev/null
    shale compact -q db
    table=$(find db -name '*.sst' -size +8k | head -n 1)
    [ -n "$table" ]
    flip "$table" 5000
    status 65 shale verify db
    message db "${table#db/}"
    status 65 shale scan db >/dev/null
    message db "${table#db/}"
    status 65 shale dump db >out
    [ "$(tail -n 1 out)" != DATA=END ]
}

damaged_manifest_is_65() {
    shale put db a 1
    for file in db/MANIFEST-*; do
        printf garbagegarbagegarbagegarbage | dd of="$file" conv=notrunc 2>/dev/null
    done
    rm -f db/STATE
    status 65 shale get db a
    status 65 shale put db a 2
}

lost_current_is_65_and_nothing_is_wiped() {
    "$AGENT" fill db --keys 5000 >/dev/null
    shale compact -q db
    find db -name '*.sst' | sort >before
    rm -f db/CURRENT db/STATE
    status 65 shale put db a 1
    status 65 shale get db a
    find db -name '*.sst' | sort | cmp - before
}

busy_is_75_and_names_the_holder() {
    shale put db a 1
    mkfifo go
    "$LOCKD" run db -- sh -c 'echo held >ready; read -r line <go' &
    holder=$!
    until [ -s ready ]; do sleep 0.05; done
    status 75 shale put db a 2 --wait 0.1
    message db lockd
    same 1 "$(shale get db a --wait 0.1)"
    echo >go
    wait "$holder"
    shale put db a 3 --wait 5
    same 3 "$(shale get db a)"
}

write_inside_lockd_run() {
    shale put db n 1
    for _ in 1 2 3 4; do
        # shellcheck disable=SC2016
        "$LOCKD" run db -- sh -c 'n=$("$SHALE" get db n) && "$SHALE" put db n $((n + 1))' &
    done
    wait
    same 5 "$(shale get db n)"
}

# As root, permission is tried as another user, with a copy of the program that this user can reach.
as_other() {
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
    else
        "$@"
    fi
}

no_permission_is_77() {
    shale put db a 1
    cp "$SHALE" tool
    chmod 755 . tool "$tmp"
    chmod 0 db
    : >err && chmod 666 err
    status 77 as_other ./tool get db a
    message db 'ermission'
    status 77 as_other ./tool put db a 2
    chmod 700 db
}

# Files that may be read, in a directory that may not be written: reading works without a lock, writing is refused.
reading_needs_read_permission_only() {
    shale put db a 1
    cp "$SHALE" tool
    chmod 755 . tool "$tmp" db
    chmod 444 db/* 2>/dev/null || true
    chmod 755 db/queue 2>/dev/null || true
    chmod a-w db
    : >err && chmod 666 err
    same 1 "$(as_other ./tool get db a)"
    same 'a	1' "$(as_other ./tool scan db)"
    status 77 as_other ./tool put db a 2
    chmod -R u+w db
}

output_that_cannot_be_written_is_74() {
    "$AGENT" fill db --keys 20000 >/dev/null
    status 74 shale scan db >/dev/full
    status 74 shale get db 0000000000000001 >/dev/full
    status 74 shale dump db >/dev/full
    status 74 shale stat db >/dev/full
}

a_reader_that_goes_away_ends_it_quietly() {
    "$AGENT" fill db --keys 50000 >/dev/null
    { got=0; shale scan db 2>err || got=$?; echo "$got" >code; } | head -n 1 >/dev/null
    same 74 "$(cat code)"
    same '' "$(cat err)"
}

an_interrupt_closes_the_database_and_passes_on() {
    "$AGENT" fill db --keys 50000 >/dev/null
    mkfifo pipe
    shale scan db >pipe 2>err &
    scanner=$!
    exec 3<pipe
    read -r line <&3
    kill -TERM "$scanner"
    cat <&3 >/dev/null
    got=0
    wait "$scanner" || got=$?
    same 143 "$got"
    same '' "$(cat err)"
    same "$line" "$(shale scan db --limit 1)"
}

run usage_is_64
run no_database_is_66
run a_file_is_no_directory
run cannot_create_is_73
run too_long_a_key_is_64
run damaged_table_is_65
run damaged_manifest_is_65
run lost_current_is_65_and_nothing_is_wiped
run busy_is_75_and_names_the_holder
run write_inside_lockd_run
run no_permission_is_77
run reading_needs_read_permission_only
run output_that_cannot_be_written_is_74
run a_reader_that_goes_away_ends_it_quietly
run an_interrupt_closes_the_database_and_passes_on
finish
