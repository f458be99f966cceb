#!/bin/sh
# The benchmark of locks runs, and nobody's lock lets two in. Its figures are not judged here.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
bench_locks=${abs_top_srcdir:?}/scripts/bench-locks
export BENCH_LOCKS="$abs_top_builddir/tests/bench/bench_locks"

every_lock_is_measured_and_exclusive() {
    "$bench_locks" --quick --output "$PWD/result" >out
    for lock in queue-turns queue backoff fcntl flock robust-mutex; do
        same 2 "$(grep -c "^$lock  *[28] .*  exclusive$" result.txt)"
    done
    same 4 "$(grep -c '^uncontended ' result.txt)"
    same 3 "$(grep -c '^target ' out)"
    ! grep -q BROKEN out
}

sqlite_is_measured_where_it_is_installed() {
    "$BENCH_LOCKS" -s 0.1 -p 2 sqlite-busy >out
    grep -q '^sqlite-busy  *2 .*  exclusive$' out
}

a_picture_is_drawn() {
    "$bench_locks" --seconds 0.05 --processes 1,2 --output "$PWD/result" >out
    grep -q "^picture: $PWD/result.png$" out
    file=$(head -c 4 result.png | tail -c 3)
    same PNG "$file"
}

wrong_options_are_refused() {
    status 64 "$bench_locks" --fast
    grep -q '^usage: ' err
    status 64 "$BENCH_LOCKS" -p 0
}

if [ -x "$BENCH_LOCKS" ]; then
    run every_lock_is_measured_and_exclusive
    run_with gnuplot a_picture_is_drawn
    if [ -f /usr/include/sqlite3.h ]; then
        run sqlite_is_measured_where_it_is_installed
    else
        skip sqlite_is_measured_where_it_is_installed sqlite3.h
    fi
    run wrong_options_are_refused
else
    echo "not ok the benchmark is not built ($BENCH_LOCKS)"
    exit 1
fi
finish
