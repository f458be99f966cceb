#!/bin/sh
# stat, who, verify, compact, and the progress line.
. "$(dirname "$0")/lib.sh"

fill() { "$AGENT" fill db --keys 20000 -o memtable_bytes=1M >/dev/null; }

stat_counts() {
    fill
    same 'keys, roughly' "$(shale stat db | head -n 1 | cut -c 1-13)"
    shale stat db --json >stat.json
    jq -e '.seq >= 20000 and .keys_estimate > 10000 and .keys_estimate < 40000' stat.json
    jq -e '(.levels | length) == 8 and .disk_bytes > 1000000 and .handles <= 1' stat.json
}

ten_records_take_less_than_two_mib() {
    for i in 1 2 3 4 5 6 7 8 9 10; do
        shale put db "key $i" "value $i"
    done
    [ "$(du -sk db | cut -f1)" -lt 2048 ]
}

who_names_those_who_have_it_open() {
    shale put db a 1
    same '' "$(shale who db)"
    "$AGENT" mixed db --keys 1000 --seconds 30 >agent.out 2>&1 &
    agent=$!
    trap 'kill "$agent" 2>/dev/null; wait "$agent" || true' EXIT
    for _ in $(seq 100); do
        shale who db --json >who.json
        [ "$(wc -l <who.json)" -lt 2 ] || break
        sleep 0.1
    done
    same '"shale-agent"' "$(jq .program who.json | sort -u)"
    shale who db | head -n 1 | grep -q '^ *PID PROGRAM'
    same 2 "$(shale who db | grep -c shale-agent)"
}

verify_says_what_it_checked() {
    fill
    shale verify db | grep -q '^no damage: [1-9][0-9]* bytes checked'
    same '' "$(shale verify -q db)"
}

compact_leaves_every_record() {
    fill
    shale scan db >before
    shale compact db | grep -q '^compacted: '
    shale scan db | cmp - before
    shale compact db --from 0000000000001000 --to 0000000000002000 -q
    shale scan db | cmp - before
    "$AGENT" verify db --keys 20000 >/dev/null
}

progress_only_on_request_without_a_terminal() {
    fill
    shale verify db 2>err
    same '' "$(cat err)"
    shale verify db --progress 2>err
    grep -q 'verify: ' err
}

help_names_every_command() {
    for command in get put del scan load dump stat who verify compact checkpoint repair; do
        shale --help | grep -q "^  $command "
        shale "$command" --help | grep -q "^usage: shale $command DIR"
    done
    shale --version | grep -q '^shale [0-9]'
}

run_with jq stat_counts
run ten_records_take_less_than_two_mib
run_with jq who_names_those_who_have_it_open
run verify_says_what_it_checked
run compact_leaves_every_record
run progress_only_on_request_without_a_terminal
run help_names_every_command
finish
