#!/bin/sh
# get, put and del.
. "$(dirname "$0")/lib.sh"

put_then_get() {
    shale put db key value
    same value "$(shale get db key)"
    same 'value.' "$(shale get db key -n; echo .)"
    shale put db key other
    same other "$(shale get db key)"
}

values_are_any_bytes() {
    head -c 100000 /dev/urandom >bytes
    shale put db key - <bytes
    shale get -n db key >got
    cmp bytes got
    shale put db empty ''
    same . "$(shale get -n db empty; echo .)"
    printf 'a\0b' | shale put db nul -
    same 610062 "$(shale get db 6e756c --hex)"
}

key_from_stdin() {
    printf 'a\nb' | shale put db - value
    same 'value' "$(printf 'a\nb' | shale get db -)"
    status 64 shale put db - - </dev/null
    printf 'a\nb' | shale del db -
    status 1 shale get -q db "$(printf 'a\nb')"
}

hexadecimal_in_and_out() {
    shale put --hex db 00ff 0102
    same 0102 "$(shale get --hex db 00FF)"
    status 64 shale get --hex db 0
    status 64 shale get --hex db zz
}

empty_key() {
    shale put db '' value
    same value "$(shale get db '')"
}

missing_key_is_status_1() {
    shale put db a 1
    status 1 shale get db b
    message db 'no such key: b'
    status 1 shale get -q db b
    same '' "$(cat err)"
    same 1 "$(shale get -q db b a || true)"
    status 1 shale get -q db a b
}

deleting_a_missing_key_is_fine() {
    shale put db a 1
    shale put db b 2
    shale del db b c
    status 1 shale get -q db b
    same 1 "$(shale get db a)"
}

# shellcheck disable=SC2016
json_values() {
    shale put db 'a"b' 'line
two'
    same 'a"b=line
two' "$(shale get db 'a"b' --json | jq -r '.key + "=" + .value')"
    shale put --hex db ff fe
    same '/w==/g==' "$(shale get db "$(printf '\377')" --json | jq -r '.key.b64 + .value.b64')"
}

values_behind_a_double_dash() {
    shale put db -- temperature -5
    same -5 "$(shale get db temperature)"
    status 64 shale put db temperature -5
}

run put_then_get
run values_are_any_bytes
run key_from_stdin
run hexadecimal_in_and_out
run empty_key
run missing_key_is_status_1
run deleting_a_missing_key_is_fine
run_with jq json_values
run values_behind_a_double_dash
finish
