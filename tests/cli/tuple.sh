#!/bin/sh
# Typed keys: --tuple in get, put, del, scan and compact; and what doc/data-model.md says of bytes and order.
. "$(dirname "$0")/lib.sh"
source_dir=${abs_top_srcdir:?}
model=$source_dir/doc/data-model.md

keys() { shale scan db --tuple --keys-only "$@"; }

# The rows of the table of examples: the text, a tab, the bytes without blanks.
rows() {
    awk -F'`' '/^## / { on = $0 == "## Examples" } on && /^\| `\(/ { gsub(" ", "", $4); print $2 "\t" $4 }' "$model"
}

documented_examples_are_true() {
    rows >wanted
    [ "$(wc -l <wanted)" -gt 50 ]
    sort -R wanted >shuffled
    while IFS='	' read -r tuple bytes; do
        shale put -o durable=off db --tuple -- "$tuple" "$bytes"
    done <shuffled
    shale scan db --tuple | diff wanted -
    cut -f2 wanted >bytes
    shale scan db --hex --keys-only | diff bytes -
}

put_get_and_delete() {
    shale put db --tuple '("user", 42)' v
    same v "$(shale get db -t '("user",42,)')"
    same 76 "$(shale get db --hex 027573657200152a)"
    status 1 shale get db -t '("user", 43)'
    message db 'no such key: ("user", 43)'
    status 1 shale get db '("user", 42)'
    shale put db -t '()' empty
    same empty "$(shale get db '')"
    shale del db -t '("user", 42)' '()'
    same '' "$(shale scan db)"
}

wrong_tuples_are_refused_before_anything_is_made() {
    status 64 shale put db -t '("user" 42)' v
    grep -q 'byte 8: a comma or ) must follow' err
    status 64 shale put db -t user v
    grep -q 'begins with (' err
    status 64 shale put db -t 'x"0"' v
    [ ! -e db ]
    status 64 shale dump db -t
    status 64 shale stat db --tuple
}

fill() {
    for tuple in '("a")' '("a", null)' '("a", 1)' '("a", 1, "x")' '("a", 2)' '("a", 10)' '("a", -1)' '("a\u0000")' \
        '("a\u0000", 1)' '("ab")' '("b")' '(b"a")' '(("a"))'; do
        shale put -o durable=off db -t "$tuple" "$tuple"
    done
}

a_prefix_is_a_tuple_and_all_that_extend_it() {
    fill
    printf '%s\n' '("a")' '("a", null)' '("a", -1)' '("a", 1)' '("a", 1, "x")' '("a", 2)' '("a", 10)' >wanted
    keys --prefix '("a")' | diff wanted -
    tac wanted >reversed
    keys --prefix '("a")' --reverse | diff reversed -
    same '("a", 1)
("a", 1, "x")' "$(keys --prefix '("a", 1)')"
    same 13 "$(keys --prefix '()' | wc -l)"
    same '' "$(keys --prefix '("c")')"
}

a_prefix_and_bounds_together() {
    fill
    same '("a", 1)
("a", 1, "x")
("a", 2)' "$(keys --prefix '("a")' --from '("a", 0)' --to '("a", 10)')"
    same '("a", 2)
("a", 10)' "$(keys --prefix '("a")' --from '("a", 2)' --to '("b")')"
    same '("a", 10)' "$(keys --prefix '("a")' --from '("a", 3)')"
    same '' "$(keys --prefix '("a")' --to '("a")')"
    same '("a", 1)
("a", 1, "x")' "$(keys --from '("a", 1)' --to '("a", 2)')"
}

# What is printed for a key that is no tuple is taken for it.
other_keys_are_bytes() {
    shale put db -t '(1)' tuple
    shale put db plain bytes
    shale put --hex db ff00 fe
    same '(1)	tuple
x"706c61696e"	bytes
x"ff00"	\xfe' "$(shale scan -t db)"
    same bytes "$(shale get -t db 'x"706c61696e"')"
    same 'x"ff00"' "$(keys --prefix 'x"ff"')"
    shale del -t db 'x"ff00"' 'x"706c61696e"'
    same '(1)' "$(keys)"
}

values_are_not_touched() {
    shale put -t db '("k")' '(1)'
    printf '("k")	%s\n' '(1)' >wanted
    shale scan -t db | diff wanted -
    shale put -t -x db '("k")' 00ff
    same '00ff' "$(shale get -t -x db '("k")')"
    same '("k")	00ff' "$(shale scan -t -x db)"
    printf 'a\0b' | shale put -t db '("k", 2)' -
    same 610062 "$(shale get -t -x db '("k", 2)')"
    printf '\002k\000' | shale get -t -x db - >got
    same 00ff "$(cat got)"
}

a_record_is_one_line_and_no_control_sequence() {
    shale put -t db "(\"a	b
c\", b\"\\x1b[2J\", \"$(printf '\033[2J')\")" v
    printf '%s\t%s\n' '("a\tb\nc", b"\x1b[2J", "\u001b[2J")' v >wanted
    shale scan -t db | diff wanted -
}

# shellcheck disable=SC2016
json_holds_the_text() {
    shale put -t db '("a\"b", b"\x00")' v
    same '("a\"b", b"\x00")=v' "$(shale scan -t db --json | jq -r '.key + "=" + .value')"
    same '("a\"b", b"\x00")=v' "$(shale get -t db '("a\"b",b"\x00")' --json | jq -r '.key + "=" + .value')"
}

compact_takes_tuples() {
    shale put -t db '(1)' v
    shale compact -q -t db --from '(0)' --to '(2)'
    status 64 shale compact -q -t db --from '('
    same '(1)' "$(keys)"
}

run documented_examples_are_true
run put_get_and_delete
run wrong_tuples_are_refused_before_anything_is_made
run a_prefix_is_a_tuple_and_all_that_extend_it
run a_prefix_and_bounds_together
run other_keys_are_bytes
run values_are_not_touched
run a_record_is_one_line_and_no_control_sequence
run_with jq json_holds_the_text
run compact_takes_tuples
finish
