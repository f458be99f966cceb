#!/bin/sh
# scripts/bench and scripts/plot: that each row of the table is measured and told. No time is judged here.
abs_top_srcdir=${abs_top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
. "$(dirname "$0")/lib.sh"

bench() { "$abs_top_srcdir/scripts/bench" "$@"; }

the_quick_form_fills_in_every_row() {
    bench --quick --drivers shale,lmdb --work work --output out >log
    grep -qF "$PWD/out/performance.md" log
    grep '^| row ' out/performance.md | grep -q '| shale | lmdb |$'
    # 46 rows; in each a value for both stores, and for those with a target whether it is met
    sed -n '/^| row /,/^$/p' out/performance.md | sed '1,2d; /^$/d' >rows
    same 46 "$(wc -l <rows)"
    same 0 "$(grep -cF '| - |' rows)"
    same 34 "$(grep -cE '\| (yes|no) \|' rows)"
    grep -q '^    shale-agent mp-write-sync DIR --procs 8 --duration' out/performance.md
    grep -q '^| lmdb | [0-9.]* |' out/performance.md
    [ ! -e work/db ]
}

growth_is_told_with_every_figure() {
    "$abs_top_srcdir/scripts/bench-growth" --peer lmdb --small 500 --large 5000 --huge 6000 --seconds 0.05 --work work --output growth.md >log
    sed -n '/^| --- /,/^$/p' growth.md | sed '/^| --- /d; /^$/d' >rows
    same 19 "$(wc -l <rows)"
    same 0 "$(grep -cE '\|  *\||\| (-|null|nan) \|' rows)"
    same 15 "$(awk -F '|' 'NF == 8' rows | wc -l)"
    same 0 "$(sed -n 's/^| keys missing or wrong | //p' rows | grep -c '[1-9]')"
    [ ! -e work/db ]
}

# Medians, ratios and targets by hand.
the_table_is_what_the_values_say() {
    sed -n '/^table() {/,/^}/p' "$abs_top_srcdir/scripts/bench" >table.sh
    {
        printf '1\tshale\t%s\n' 300 100 250
        printf '1\tlmdb\t%s\n' 90 110 100
        printf '1\tleveldb\t%s\n' 50 120 125
        printf '2\tshale\t%s\n' 4
        printf '2\tleveldb\t%s\n' 2
        printf '3\tshale\t%s\n' 11000
        printf '3\tfloor\t%s\n' 12000
        printf '4\tshale\t%s\n' 9
    } >values
    bash -c 'drivers=shale,lmdb,leveldb
        metrics=("a|x|v|+|best|2.0" "b|x|v|-|leveldb|1.0" "c|x|v|+|floor|0.85" "d|x|v|-|alone|10")
        . ./table.sh; table <values' >got
    cat >wanted <<END
| row | ratio | target | met | shale | lmdb | leveldb |
| --- | ---: | ---: | --- | ---: | ---: | ---: |
| a | 2.08 | 2.0 | yes | 250 | 100 | 120 |
| b | 0.50 | 1.0 (leveldb) | no | 4.00 | - | 2.00 |
| c | 0.92 | 0.85 (floor) | yes | 11 k | - | - |
| d |  | at most 10 | yes | 9.00 | - | - |
END
    diff wanted got
}

pictures_are_drawn() {
    "$AGENT" mixed db --keys 1000 --duration 0.6 --json >one.json
    "$AGENT" readrandom db --keys 1000 --json >two.json
    "$abs_top_srcdir/scripts/plot" --title a picture one.json two.json
    for name in throughput latency; do
        same 'PNG' "$(head -c 4 "picture-$name.png" | tail -c 3)"
    done
}

run_with jq the_quick_form_fills_in_every_row
run_with jq growth_is_told_with_every_figure
run the_table_is_what_the_values_say
run_with gnuplot pictures_are_drawn
finish
