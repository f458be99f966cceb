#!/bin/sh
# shale-agent: that it does the work it reports, and finds what is wrong.
. "$(dirname "$0")/lib.sh"

agent() { "$AGENT" "$@"; }

# holds EXPRESSION FILE...: of the JSON in each file.
holds() {
    expression=$1
    shift
    for file; do
        if [ ! -s "$file" ] || ! jq -e "$expression" "$file" >/dev/null; then
            same "$file: $expression" "$(cut -c 1-2000 "$file")"
        fi
    done
}

fill_puts_every_key_once() {
    agent fill db --keys 5000 --processes 3 --threads 2 --json >out
    holds '.ops == 5000 and .commits == 5000 and .wrong == 0 and (.workers | length) == 3' out
    same 5000 "$(shale scan db --keys-only | wc -l)"
    same 0000000000000000 "$(shale scan db --keys-only --limit 1)"
    same 0000000000004999 "$(shale scan db --keys-only --limit 1 --reverse)"
    agent verify db --keys 5000 >/dev/null
    status 65 agent verify db --keys 5001 >/dev/null
}

batches_are_counted_as_commits() {
    agent fill db --keys 1000 --batch 100 --sync commit --json >out
    holds '.ops == 1000 and .commits == 10 and .fsyncs >= 1 and .fsyncs <= 20' out
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
    agent scan db --keys 2000 --json >out
    holds '.ops == 2000' out
    agent read db --keys 4000 --ops 4000 --json >out
    holds '.missing > 1500 and .missing < 2500' out
    agent open db --ops 20 --json >out
    holds '.warm_p50_us > 0 and .attached_p50_us > 0' out
    agent fill other --keys 100 --floor --sync commit --json >out
    holds '.floor.mean_us > 0' out
    agent overwrite db --keys 2000 --seconds 0.2 --json >out
    holds '.seconds >= 0.2 and .ops > 0' out
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

# of an answer in JSON
get() { jq -r "$1" "$2"; }

every_workload_does_what_it_says() {
    for workload in fillseq fillbatch overwrite readrandom readmissing readseq readreverse seekrandom readwhilewriting mixed \
        mp-write mp-read mp-mixed fillrandom ycsb-a ycsb-b ycsb-c ycsb-f one-shot compact; do
        agent "$workload" db --keys 300 --check --json >"$workload.out"
        holds '.wrong == 0 and .seconds > 0 and .ops > 0 and .longest_us >= .p50_us' "$workload.out"
    done
    holds '.commits == 3 and .batch == 100' fillbatch.out
    holds '.missing == 300 and .got_bytes == 0' readmissing.out
    holds '.ops == 300 and .got_bytes == 300 * 116' readreverse.out
    holds '.ops == 300 and .got_bytes > 300 * 10 * 116 and .got_bytes <= 300 * 11 * 116' seekrandom.out
    holds '.reads.ops >= 150 and .writes.ops > 0 and .reads.ops + .writes.ops == .ops' readwhilewriting.out mp-mixed.out
    holds '.processes == 4 and (.workers | length) == 4' mp-write.out mp-read.out mp-mixed.out
    holds '.reads.ops + .writes.ops == 300 and .writes.ops > 90 and .writes.ops < 210' ycsb-a.out
    holds '.missing == 0' readrandom.out ycsb-a.out ycsb-b.out ycsb-c.out ycsb-f.out
    holds '.ops == 3 and .sync == "commit"' one-shot.out
    agent verify db --keys 300 >/dev/null
    # inserts come behind, and are what is read
    agent ycsb-d db --keys 300 --ops 2000 --check --json >d
    agent ycsb-e db --keys 300 --ops 500 --check --json >e
    holds '.wrong == 0' d e
    same "$((300 + $(get .writes.ops d)))" "$(shale scan db --keys-only | wc -l)"
    agent fillsync other --keys 500 --json >out
    holds '.ops == 5 and .sync == "commit" and .fsyncs >= 1' out
    agent deleterandom db --keys 300 --ops 5000 >/dev/null
    same 0 "$(shale scan db --keys-only --upper 0000000000000300 | wc -l)"
}

# Which keys are put shows how they are drawn: into nothing, as many puts as there are keys.
keys_are_drawn_as_asked() {
    for distribution in uniform zipfian latest; do
        agent overwrite "$distribution" --keys 4000 --distribution "$distribution" >/dev/null
        shale scan "$distribution" --keys-only >"$distribution.keys"
    done
    [ "$(wc -l <uniform.keys)" -gt 2300 ] && [ "$(wc -l <uniform.keys)" -lt 2750 ] # 63.2 % of them
    [ "$(wc -l <zipfian.keys)" -lt 1900 ] && [ "$(wc -l <latest.keys)" -lt 1900 ]
    # the latest are next to each other, the popular ones anywhere
    [ "$(tail -n 20 latest.keys | head -n 1)" = 0000000000003980 ]
    [ "$(tail -n 20 zipfian.keys | head -n 1)" != 0000000000003980 ]
    agent overwrite again --keys 4000 --distribution zipfian >/dev/null
    shale scan again --keys-only | cmp - zipfian.keys
    agent overwrite another --keys 4000 --distribution zipfian --seed 2 >/dev/null
    shale scan another --keys-only >another.keys
    ! cmp -s another.keys zipfian.keys
}

# Everything was due at once: the last operation has waited for all before it.
an_operation_is_timed_from_when_it_was_due() {
    agent fillrandom db --keys 5000 --rate 900000000 --json >out
    holds '.longest_us >= .seconds * 1e6 * 0.9 and .p50_us > .seconds * 1e6 * 0.1' out
    agent readrandom db --keys 5000 --ops 100 --rate 500 --threads 2 --json >out
    holds '.ops == 100 and .seconds >= 0.19' out
}

histograms_and_series_hold_all_operations() {
    agent mixed db --keys 1000 --processes 2 --json >out
    holds '([.reads.histogram_us[][1]] | add) == .reads.ops and ([.writes.histogram_us[][1]] | add) == .writes.ops' out
    holds '([.series[][0]] | add) == .reads.ops and ([.series[][1]] | add) == .writes.ops' out
    holds '.disk_bytes > 0 and .space_amplification > 0 and .put_bytes == .writes.ops * 116 and .peak_kib > 0' out
    agent mixed db --keys 1000 --live 2>err >/dev/null
    grep -q 'shale mixed: .* operations; reads ' err
}

who_does_not_wait_asks_again() {
    agent mp-write db --keys 2000 --wait none --json >out
    holds '.ops == 2000 and .busy >= 0' out
    agent mp-write db --keys 2000 --wait backoff --json >out
    holds '.ops == 2000 and .busy == 0' out
    agent verify db --keys 1 >/dev/null
}

# Each store that is built in keeps what it is given, also between two processes where it can.
every_driver_keeps_what_it_is_given() {
    agent --drivers >drivers
    grep -q '^shale	' drivers && grep -q '^lmdb	' drivers && grep -q '^lmdb-writemap	' drivers
    cut -f 1 drivers | while read -r driver; do
        echo "$driver"
        agent fillbatch "$driver" --keys 400 --batch 50 --driver "$driver" --json >out
        holds '.ops == 400 and .commits == 8' out
        agent overwrite "$driver" --keys 400 --ops 20 --sync commit --driver "$driver" --json >out
        holds '.ops == 20' out
        agent readrandom "$driver" --keys 400 --check --driver "$driver" --json >out
        holds '.missing == 0 and .wrong == 0' out
        agent readmissing "$driver" --keys 400 --driver "$driver" --json >out
        holds '.missing == 400 and .wrong == 0' out
        agent one-shot "$driver" --keys 400 --check --driver "$driver" --json >out
        holds '.ops == 4 and .missing == 0' out
        for workload in verify readreverse seekrandom mp-mixed readwhilewriting; do
            status=0
            agent "$workload" "$driver" --keys 400 --check --driver "$driver" --json >out || status=$?
            [ "$status" -eq 69 ] || holds '.wrong == 0 and .missing == 0 and .ops >= 200' out
        done
        agent deleterandom "$driver" --keys 400 --ops 4000 --driver "$driver" >/dev/null
        agent readrandom "$driver" --keys 400 --driver "$driver" --json >out
        holds '.missing == 400' out
    done
}

# ... whichever it is: the one that writes goes on only for those that read.
a_worker_that_dies_ends_the_run() {
    agent fill db --keys 1000 >/dev/null
    for victim in 1 2; do
        timeout 60 "$AGENT" mp-mixed db --keys 1000 --ops 1000000M --procs 3 >out 2>err &
        run=$!
        parent=
        for _ in $(seq 600); do
            [ -n "$parent" ] || parent=$(pgrep -P "$run" || true)
            if [ -n "$parent" ] && [ "$(pgrep -cP "$parent")" -eq 3 ]; then break; fi
            sleep 0.05
        done
        kill -KILL "$(pgrep -P "$parent" | sed -n "${victim}p")"
        status=0
        wait "$run" || status=$?
        same 70 "$status"
        grep -q "process $victim: killed by signal 9" err
    done
}

what_a_store_cannot_do_is_said() {
    status 69 agent fill db --driver lmdb --sync interval
    grep -q 'lmdb: syncs each commit or none' err
    status 64 agent fill db --driver nonsense
    status 64 agent readwhilewriting db --threads 1
    for driver in rocksdb leveldb; do
        if agent --drivers | grep -q "^$driver	"; then
            status 69 agent mp-read db --driver "$driver"
            grep -q "$driver: one process at a time" err
        fi
    done
    [ ! -e db ]
}

# Of a database that is not there yet: since the run began, and not since the machine did.
device_bytes_are_the_runs_own() {
    agent fillrandom new --driver lmdb --keys 1000 --device --json >run.json
    same true "$(get '.device_bytes < 1e9' run.json)"
}

usage_and_missing_directory() {
    status 64 agent
    status 64 agent fill
    status 64 agent nonsense db
    status 64 agent fill db --keys x
    status 64 agent fill db --value-bytes 10
    status 64 agent feed db --part 3/2
    status 64 agent fill db --rate 0
    status 64 agent fill db --distribution nonsense
    status 64 agent fill db --wait nonsense
    agent --help | grep -q '^usage: shale-agent'
}

run_with jq fill_puts_every_key_once
run_with jq batches_are_counted_as_commits
run a_foreign_value_is_wrong
run_with jq modes_run
run real_input_is_written_watched_and_compared
run_with jq every_workload_does_what_it_says
run keys_are_drawn_as_asked
run_with jq an_operation_is_timed_from_when_it_was_due
run_with jq histograms_and_series_hold_all_operations
run_with jq who_does_not_wait_asks_again
run_with jq every_driver_keeps_what_it_is_given
run_with pgrep a_worker_that_dies_ends_the_run
run what_a_store_cannot_do_is_said
run_with jq device_bytes_are_the_runs_own
run usage_and_missing_directory
finish
