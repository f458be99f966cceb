#!/bin/sh
# shale-agent: that it does the work it reports, and finds what is wrong.
. "$(dirname "$0")/lib.sh"

agent() { "$AGENT" "$@"; }

fill_puts_every_key_once() {
    agent fill db --keys 5000 --processes 3 --threads 2 --json >out
    jq -e '.ops == 5000 and .commits == 5000 and .wrong == 0 and (.workers | length) == 3' out
    same 5000 "$(shale scan db --keys-only | wc -l)"
    same 0000000000000000 "$(shale scan db --keys-only --limit 1)"
    same 0000000000004999 "$(shale scan db --keys-only --limit 1 --reverse)"
    agent verify db --keys 5000 >/dev/null
    status 65 agent verify db --keys 5001 >/dev/null
}

batches_are_counted_as_commits() {
    agent fill db --keys 1000 --batch 100 --sync commit --json >out
    jq -e '.ops == 1000 and .commits == 10 and .fsyncs >= 1 and .fsyncs <= 20' out
}

a_foreign_value_is_wrong() {
    agent fill db --keys 100 >/dev/null
    agent read db --keys 100 --ops 1000 --check >/dev/null
    shale get -n db 0000000000000007 >value
    shale put db 0000000000000008 - <value
    status 65 agent verify db --keys 100 >/dev/null
    status 65 agent read db --keys 100 --ops 5000 --check >/dev/null
    agent overwrite db --keys 100 --ops 5000 >/dev/null
    agent verify db --keys 100 >/dev/null
}

modes_run() {
    agent fill db --keys 2000 --sequential >/dev/null
    agent mixed db --keys 2000 --ops 2000 --processes 2 >/dev/null
    agent scan db --keys 2000 --json | jq -e '.ops == 2000'
    agent read db --keys 4000 --ops 4000 --json | jq -e '.missing > 1500 and .missing < 2500'
    agent open db --ops 20 --json | jq -e '.warm_p50_us > 0 and .attached_p50_us > 0'
    agent fill other --keys 100 --floor --sync commit --json | jq -e '.floor.mean_us > 0'
    agent overwrite db --keys 2000 --seconds 0.2 --json | jq -e '.seconds >= 0.2 and .ops > 0'
}

real_input_is_written_watched_and_compared() {
    seq 3000 | awk '{ print "Package: p" int($1 / 3) "\nVersion: " $1 "\nText: line " $1 "\n" }' >input
    agent feed db --input input --part 1/2 --progress-file one >/dev/null &
    one=$!
    agent feed db --input input --part 2/2 >/dev/null
    wait "$one"
    agent watch db --input input --seconds 0.3 >/dev/null
    agent compare db --input input >/dev/null
    shale put db 'p1/3' other
    status 65 agent compare db --input input >/dev/null
    status 65 agent watch db --input input --seconds 5 >/dev/null
    # the first writer has noted all its commits: it doesn't write again, the second does
    agent feed db --input input --part 1/2 --progress-file one >/dev/null
    agent feed db --input input --part 2/2 >/dev/null
    agent feed db --input input --part 1/2 >/dev/null
    agent compare db --input input >/dev/null
    shale put db zzz extra
    status 65 agent compare db --input input >/dev/null
    agent compare db --input input --except zzz >/dev/null
    shale del db 'p1/3'
    status 65 agent compare db --input input --except zzz >/dev/null
}

usage_and_missing_directory() {
    status 64 agent
    status 64 agent fill
    status 64 agent nonsense db
    status 64 agent fill db --keys x
    status 64 agent fill db --value-bytes 10
    status 64 agent feed db --part 3/2
    agent --help | grep -q '^usage: shale-agent'
}

run_with jq fill_puts_every_key_once
run_with jq batches_are_counted_as_commits
run a_foreign_value_is_wrong
run_with jq modes_run
run real_input_is_written_watched_and_compared
run usage_and_missing_directory
finish
