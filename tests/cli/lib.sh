# shellcheck shell=sh
# What the tests of the programs share. Sourced by a script; makes a fresh directory, goes there, removes it at the end.
#
# A case is a function, named after the behaviour; `run NAME` calls it and prints `ok NAME` or `not ok NAME` and what it
# wrote. In a case every command counts (set -e), and a wrong result says what it is.
set -eu

abs_top_builddir=${abs_top_builddir:-$(cd "$(dirname "$0")/../.." && pwd)}
SHALE=${SHALE:-$abs_top_builddir/tools/shale}
LOCKD=${LOCKD:-$abs_top_builddir/lockd/lockd}
AGENT=${AGENT:-$abs_top_builddir/agent/shale-agent}
export SHALE LOCKD AGENT

tmp=$(mktemp -d "${TMPDIR:-/tmp}/shale-cli.XXXXXX")
# What was just killed may take a moment to go; who still writes after that was left behind by a case.
clean_up() {
    chmod -R u+rwX "$tmp" 2>/dev/null || true
    rm -rf "$tmp" 2>/dev/null || { sleep 1 && rm -rf "$tmp"; } || {
        echo "not ok clean_up: somebody still writes in $tmp"
        exit 1
    }
}
trap clean_up EXIT
cd "$tmp"
not_ok=0

shale() { "$SHALE" "$@"; }

# Each case in a directory of its own. The subshell stands outside any condition, or set -e would not hold in it.
run() {
    mkdir "$tmp/$1"
    set +e
    (
        set -e
        cd "$tmp/$1"
        "$1"
    ) >"$tmp/$1.log" 2>&1
    result=$?
    set -e
    if [ "$result" -eq 0 ]; then
        echo "ok $1"
    else
        echo "not ok $1"
        sed 's/^/# /' "$tmp/$1.log"
        not_ok=1
    fi
}

skip() { # NAME NEED
    echo "skip $1: needs $2"
}

# run_with NEED NAME: skips the case where the command is missing.
run_with() {
    if command -v "$1" >/dev/null; then run "$2"; else skip "$2" "$1"; fi
}

finish() { exit "$not_ok"; }

same() { # WANTED GOT
    [ "$1" = "$2" ] || {
        printf 'wanted: %s\ngot:    %s\n' "$1" "$2"
        return 1
    }
}

# status N COMMAND...: the command's exit status is N; stdout passes, stderr goes to the file err (and on).
status() {
    wanted=$1
    shift
    got=0
    "$@" 2>err || got=$?
    cat err >&2
    same "status $wanted" "status $got"
}

# The message on stderr: one line that begins "shale: DIR: " and holds the text.
message() { # DIR TEXT
    same 1 "$(wc -l <err)"
    case $(cat err) in
        "shale: $1: "*"$2"*) ;;
        *) same "shale: $1: ...$2..." "$(cat err)" ;;
    esac
}
