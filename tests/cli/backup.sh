#!/bin/sh
# checkpoint and repair.
. "$(dirname "$0")/lib.sh"

# Tables on two levels, and records in the log.
fill() {
    "$AGENT" fill db --keys 20000 -o memtable_bytes=1M >/dev/null
    shale compact db -q
    shale put db beta 2
    shale put db alpha 1
    shale del db beta
}

table_in() { # DIR: its first table
    for table in "$1"/*.sst; do return; done
}
checkpoint_is_a_database_of_its_own() {
    fill
    shale scan db >before
    shale checkpoint db new | grep -q '^checkpoint: new: [1-9][0-9]* bytes'
    shale put db later 1
    shale scan new | cmp - before
    shale verify new -q
    shale put new own 1
    status 1 shale get -q db own
    status 1 shale get -q new later
    shale compact db -q
    table_in db
    rm "$table"
    shale verify new -q
    same '' "$(shale checkpoint -q new third)"
}

checkpoint_to_another_file_system_is_a_copy() {
    there=$(mktemp -d /dev/shm/shale-cli.XXXXXX)
    trap 'rm -rf "$there"' EXIT
    fill
    shale scan db >before
    shale checkpoint db "$there/new" --progress 2>err
    grep -q 'checkpoint: ' err
    shale scan "$there/new" | cmp - before
    shale verify "$there/new" -q
    table_in "$there/new"
    same 1 "$(stat -c %h "$table")"
    same 1 "$(stat -c %h db/"${table##*/}")"
}

target_must_be_missing_or_empty() {
    shale put db a 1
    mkdir empty full
    echo mine >full/file
    status 73 shale checkpoint db full
    message db 'not empty'
    same mine "$(cat full/file)"
    shale checkpoint -q db empty
    same 1 "$(shale get empty a)"
    status 73 shale checkpoint db db
    status 66 shale checkpoint nothing new
    status 64 shale checkpoint db
    status 64 shale repair db
    status 64 shale repair db new
    status 73 shale repair db --into full
    status 66 shale repair nothing --into new
    same no "$([ -e new ] && echo made || echo no)"
}

# The command stops in the middle: nobody reads its progress line, and the pipe is full.
interrupted() { # COMMAND...
    mkfifo pipe
    (
        head -c 65536 /dev/zero >&2
        exec "$@" --progress
    ) 2>pipe &
    child=$!
    exec 9<pipe
    while [ ! -d new ]; do sleep 0.01; done
    kill -TERM "$child"
    exec 9<&-
    got=0
    wait "$child" || got=$?
    rm pipe
    same 143 "$got"
    same no "$([ -e new ] && echo made || echo no)"
}

interrupted_checkpoint_leaves_nothing() {
    fill
    interrupted "$SHALE" checkpoint db new
    shale checkpoint -q db new
    shale verify -q new
}

interrupted_repair_leaves_nothing() {
    fill
    interrupted "$SHALE" repair db --into new
    shale repair -q db --into new
    shale verify -q new
}

repair_of_a_sound_database_loses_nothing() {
    fill
    shale scan db >before
    find db -type f ! -name STATE -exec sha256sum {} + | sort >sums
    shale repair db --into new | grep -q '^repaired: nothing is lost'
    find db -type f ! -name STATE -exec sha256sum {} + | sort | cmp - sums
    shale scan new | cmp - before
    shale verify -q new
}

repair_says_what_is_lost_and_saves_the_rest() {
    fill
    shale scan db >before
    table_in db
    printf XXXXXXXX | dd of="$table" bs=1 seek=5000 conv=notrunc status=none
    status 65 shale verify -q db
    message db "${table##*/}"
    find db -type f ! -name STATE -exec sha256sum {} + | sort >sums
    status 65 shale repair db --into new
    grep -q "^shale: db: .*${table##*/}: block at [0-9]*: checksum mismatch" err
    tail -n 1 err | grep -q '^shale: db: repair: [1-9][0-9]* losse*s*; everything else is in new'
    find db -type f ! -name STATE -exec sha256sum {} + | sort | cmp - sums
    shale verify -q new
    shale scan new >after
    [ "$(wc -l <after)" -gt 19000 ]
    [ "$(wc -l <after)" -lt "$(wc -l <before)" ]
    comm -13 before after >invented
    same 0 "$(wc -l <invented)"
}

repair_keeps_out_of_a_database_in_use() {
    shale put db a 1
    "$LOCKD" run db -- "$SHALE" put db b 2
    "$AGENT" mixed db --keys 1000 --seconds 30 >agent.out 2>&1 &
    agent=$!
    trap 'kill "$agent" 2>/dev/null; wait "$agent" || true' EXIT
    while [ "$(shale who db | wc -l)" -eq 0 ]; do sleep 0.1; done
    status 75 shale repair db --into new
    message db 'have it open'
}

run checkpoint_is_a_database_of_its_own
if [ -d /dev/shm ] && [ -w /dev/shm ] && [ "$(stat -c %d /dev/shm)" != "$(stat -c %d .)" ]; then
    run checkpoint_to_another_file_system_is_a_copy
else
    skip checkpoint_to_another_file_system_is_a_copy 'a second file system at /dev/shm'
fi
run target_must_be_missing_or_empty
run interrupted_checkpoint_leaves_nothing
run interrupted_repair_leaves_nothing
run repair_of_a_sound_database_loses_nothing
run repair_says_what_is_lost_and_saves_the_rest
run repair_keeps_out_of_a_database_in_use
finish
