# shellcheck shell=bash
# What the scripts share. Sourced; changes to the root of the source tree.
#
# A step is a command with a name; its output goes to build/logs/NAME.log. Test cases are counted from what the
# programs print: Check's `100%: Checks: 12, Failures: 0, Errors: 0`, and lines `ok NAME`, `not ok NAME` and
# `skip NAME: needs WHAT`. A skip whose need this machine meets is a failure: nothing is left out silently.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
logs=$root/build/logs
passed=0 failed=0 skipped=0
mkdir -p "$logs"

# seconds_since START: with one decimal; START is an $EPOCHREALTIME.
seconds_since() {
    awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'
}

# source_files PATTERN...: the tracked files that match.
source_files() {
    git -C "$root" ls-files -- "$@"
}

# is_met NEED: does this machine have what a test says it lacks?
is_met() {
    case $1 in
        root) [ "$(id -u)" -eq 0 ] ;;
        non-root) [ "$(id -u)" -ne 0 ] ;;
        userns) unshare -Ur true 2>/dev/null ;;
        tmpfs) [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] ;;
        long) [ -n "${SHALE_TEST_LONG-}" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# count LOG: adds the cases that a log tells of to the totals; status 1 if one of them did not pass.
count() {
    local ok bad line need
    read -r ok bad < <(LC_ALL=C awk '
        match($0, /Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/) {
            split(substr($0, RSTART, RLENGTH), n, /[^0-9]+/)
            bad += n[3] + n[4]; ok += n[2] - n[3] - n[4]; next
        }
        /^ok / { ok++ }
        /^not ok / { bad++ }
        END { print ok + 0, bad + 0 }' "$1")
    while read -r line; do
        need=$(sed -n 's/.*needs \([A-Za-z0-9_-]*\).*/\1/p' <<<"$line")
        if [ -n "$need" ] && is_met "$need"; then
            echo "FAILED ${line#skip } (but $need is here)"
            bad=$((bad + 1))
        else
            echo "$line"
            skipped=$((skipped + 1))
        fi
    done < <(grep -a '^skip ' "$1" || true)
    passed=$((passed + ok))
    failed=$((failed + bad))
    cases=$((ok + bad))
    [ "$bad" -eq 0 ]
}

# step NAME COMMAND...: runs it, prints one line, and what matters of the log if it failed; counts what it printed.
step() {
    local name=$1 start=$EPOCHREALTIME log=$logs/$1.log status=0 counted=0
    shift
    "$@" >"$log" 2>&1 </dev/null || status=$?
    count "$log" || counted=1
    if [ "$status" -eq 0 ] && [ "$counted" -eq 0 ]; then
        echo "ok $name $(seconds_since "$start") s, $cases cases" | sed 's/, 0 cases//'
        return 0
    fi
    echo "FAILED $name $(seconds_since "$start") s, status $status: $log"
    grep -aE '^(not ok|FAIL:|ERROR:)|:[EF]:|: (error|warning):' "$log" | tail -n 15 || tail -n 15 "$log"
    if [ "$counted" -eq 0 ]; then
        failed=$((failed + 1))
    fi
    return 1
}

# try NAME COMMAND...: as step, and the script goes on.
try() {
    step "$@" || true
}

summary() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
