#!/bin/sh
# scan: order, bounds, forms.
. "$(dirname "$0")/lib.sh"

fill() {
    for key in b ab a abc B c; do
        shale put db "$key" "v$key"
    done
}
keys() { shale scan db --keys-only "$@" | tr '\n' ' '; }

order_is_by_bytes() {
    fill
    same 'B a ab abc b c ' "$(keys)"
    same 'c b abc ab a B ' "$(keys --reverse)"
    same "a	va" "$(shale scan db --from a --limit 1)"
}

bounds_and_prefix() {
    fill
    same 'a ab abc ' "$(keys --prefix a)"
    same 'abc ab a ' "$(keys --prefix a -r)"
    same 'ab abc b ' "$(keys --from ab --to c)"
    same 'b abc ab ' "$(keys --from ab --to c --reverse)"
    same 'ab abc ' "$(keys --prefix a --from aa)"
    same 'B a ' "$(keys --limit 2)"
    same 'c ' "$(keys --limit 1 --reverse)"
    same '' "$(keys --limit 0)"
    same '' "$(keys --prefix x)"
    same '' "$(keys --from c --to a)"
    same '62 63 ' "$(keys --hex --from 62)"
}

one_record_a_line() {
    printf 'a\tb\nc\\d\001\377\303\251' >bytes
    shale put db "$(printf 'k\tk')" - <bytes
    same 'k\tk	a\tb\nc\\d\x01\xff'"$(printf '\303\251')" "$(shale scan db)"
    same '6b096b	6109620a635c6401ffc3a9' "$(shale scan db --hex)"
}

control_characters_never_reach_the_terminal() {
    printf '\033[2J\302\233\177' | shale put db k -
    same 'k	\x1b[2J\xc2\x9b\x7f' "$(shale scan db)"
}

json_lines() {
    fill
    printf '\000\001"\\/\177' | shale put db odd -
    printf '\355\240\200' | shale put db surrogate -
    printf '\300\200' | shale put db overlong -
    printf '\364\220\200\200' | shale put db beyond -
    same 10 "$(shale scan db --json | jq -c . | wc -l)"
    same '["beyond","overlong","surrogate"]' "$(shale scan db --json | jq -s -c '[.[] | select(.value | type == "object") | .key]')"
    same '[0,1,34,92,47,127]' "$(shale scan db --json | jq -c 'select(.key == "odd") | .value | explode')"
    same '{"key":"a"}' "$(shale scan db --json --keys-only --prefix a --limit 1)"
}

a_hundred_thousand_in_order() {
    seq -w 0 99999 >numbers
    awk 'BEGIN { print "VERSION=3\nformat=print\ntype=btree\nHEADER=END" } { print " " $0 "\n v" $0 } END { print "DATA=END" }' numbers |
        shale load db
    shale scan db --keys-only | cmp - numbers
    shale scan db --keys-only --reverse >reverse
    tac numbers | cmp - reverse
    same 1000 "$(shale scan db --prefix 42 | wc -l)"
}

run order_is_by_bytes
run bounds_and_prefix
run one_record_a_line
run control_characters_never_reach_the_terminal
run_with jq json_lines
run a_hundred_thousand_in_order
finish
