#!/bin/sh
# The library exports what the public headers declare, the symbol map says so, and nothing else gets out.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
source_dir=${abs_top_srcdir:?}

map=$source_dir/libdb/libshale.map

# What the installed headers declare.
declared() {
    for header in include/shale.h include/shale/lockq.h include/shale/tuple.h; do
        ${CC:-cc} -E -P -I "$source_dir/include" "$source_dir/$header"
    done | grep -oE '\bshale_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u
}

mapped() {
    sed -n 's/^ *\(shale_[a-z0-9_]*\);$/\1/p' "$map"
}

left_out() {
    sed -n 's/^# Declared, but not in this release: //p' "$map" | tr ' ' '\n'
}

map_is_sorted_and_unique() {
    same "$(mapped)" "$(mapped | sort -u)"
}

map_names_what_the_headers_declare() {
    same "$(declared)" "$({ mapped; left_out; } | sort -u)"
}

# Without a shared library (--disable-shared) the archive must at least define them all.
library_defines_what_the_map_names() {
    mapped >wanted
    if [ -e "$abs_top_builddir/.libs/libshale.so" ]; then
        nm -D --defined-only "$abs_top_builddir/.libs/libshale.so" | awk '$2 != "A" { print $3 }' |
            sed 's/@.*//' | sort >got
    else
        nm -g --defined-only "$abs_top_builddir/.libs/libshale.a" | awk '$2 == "T" { print $3 }' |
            grep -xFf wanted | sort >got
    fi
    diff wanted got
}

run map_is_sorted_and_unique
run map_names_what_the_headers_declare
run library_defines_what_the_map_names
finish
