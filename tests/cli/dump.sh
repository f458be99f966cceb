#!/bin/sh
# dump and load, alone and with the tools of LMDB and Berkeley DB.
. "$(dirname "$0")/lib.sh"

# Binary and empty values, odd bytes, a big one.
fill() {
    shale put "$1" key value
    shale put "$1" empty ''
    shale put "$1" 'back\slash' "\\\\"
    shale put --hex "$1" 000102ff 00ff0a0d5c
    head -c 100000 /dev/urandom | shale put "$1" big -
}
header() { printf 'VERSION=3\nformat=%s\ntype=btree\nHEADER=END\n' "$1"; }

dump_and_load_again() {
    fill db
    shale dump db >d.txt
    shale load copy d.txt
    shale dump copy | cmp - d.txt
    same 'HEADER=END' "$(sed -n 4p d.txt)"
    same 'DATA=END' "$(tail -n 1 d.txt)"
    shale dump --print db >print
    shale load from_print <print
    shale dump from_print | cmp - d.txt
}

load_adds_and_replaces() {
    shale put db a old
    shale put db b kept
    { header print; printf ' a\n new\nDATA=END\n'; } | shale load db --durable
    same new "$(shale get db a)"
    same kept "$(shale get db b)"
}

mdb_tools_read_and_write_it() {
    fill db
    mkdir lmdb lmdb2
    shale dump --mapsize db >d.txt
    mdb_load -f d.txt lmdb
    mdb_dump lmdb >theirs
    shale load copy theirs
    shale dump --mapsize copy | cmp - d.txt
    shale dump --print --mapsize db | mdb_load lmdb2
    mdb_dump lmdb2 | cmp - theirs
}

db_tools_read_and_write_it() {
    fill db
    shale dump db >d.txt
    db_load -f d.txt their.db
    db_dump their.db | shale load copy
    shale dump copy | cmp - d.txt
    db_dump -p their.db | shale load from_print
    shale dump from_print | cmp - d.txt
    shale dump -p db | db_load their2.db
    db_dump their2.db | shale load copy2
    shale dump copy2 | cmp - d.txt
}

other_header_lines_mean_nothing() {
    printf 'VERSION=3\nformat=bytevalue\ndatabase=main\ntype=btree\nmapsize=1048576\nmaxreaders=126\nduplicates=0\ndb_pagesize=4096\nHEADER=END\n 61\n 62\nDATA=END\n' |
        shale load db
    same b "$(shale get db a)"
}

# malformed LINE INPUT: status 65, and the message names the line
malformed() {
    printf %b "$2" >input
    status 65 shale load db <input
    message db "line $1: "
}

damaged_input_is_named_by_its_line() {
    malformed 0 ''
    malformed 1 'garbage\n'
    malformed 1 'VERSION=4\n'
    malformed 2 'VERSION=3\nformat=base64\n'
    malformed 2 'VERSION=3\ntype=recno\n'
    malformed 3 'VERSION=3\nformat=print\nnonsense\n'
    malformed 2 'VERSION=3\nformat=print\n'
    same no "$([ -e db ] && echo made || echo no)"
    head=$(header bytevalue)
    malformed 5 "$head\n61\n"
    malformed 5 "$head\n 6\n"
    malformed 5 "$head\n 6g\n"
    malformed 5 "$head\n 61\n"
    malformed 6 "$head\n 61\nDATA=END\n"
    malformed 6 "$head\n 61\n 62\n"
    malformed 8 "$head\n 61\n 62\nDATA=END\nVERSION=3\n"
    malformed 5 "$(header print)\n a\\\\x\n b\nDATA=END\n"
    malformed 7 "VERSION=3\nformat=print\nduplicates=1\nHEADER=END\n a\n 1\n a\n 2\nDATA=END\n"
}

what_stands_before_the_damage_stays() {
    { header print; printf ' a\n 1\n b\n 2\n c\nDATA=END\n'; } >input
    status 65 shale load db input
    message db '2 records'
    same 2 "$(shale get db b)"
}

a_dump_that_was_cut_is_not_taken_for_whole() {
    fill db
    shale dump db | head -c 1000 >short
    status 65 shale load copy short
}

missing_input_file() {
    status 66 shale load db nothing
    same no "$([ -e db ] && echo made || echo no)"
}

keys_and_values_beyond_the_limits() {
    { header print; printf ' '; head -c 65536 /dev/zero | tr '\0' k; printf '\n v\nDATA=END\n'; } >input
    status 64 shale load db input
}

run dump_and_load_again
run load_adds_and_replaces
run_with mdb_load mdb_tools_read_and_write_it
run_with db_load db_tools_read_and_write_it
run other_header_lines_mean_nothing
run damaged_input_is_named_by_its_line
run what_stands_before_the_damage_stays
run a_dump_that_was_cut_is_not_taken_for_whole
run missing_input_file
run keys_and_values_beyond_the_limits
finish
