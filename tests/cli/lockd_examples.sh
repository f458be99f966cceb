#!/bin/sh
# Every example of lockd(1), as it stands in the page: each block behind a comment `example: NAME` is a script, and the
# case example_NAME runs it. The last case sees that none is left out.
# shellcheck disable=SC2016 # the quoted scripts are for others to expand
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
. "$here/lockd_lib.sh"

page=$here/../../doc/lockd.1

# The programs by the names that the page calls them.
mkdir "$tmp/bin"
ln -s "$LOCKD" "$tmp/bin/lockd"
ln -s "$SHALE" "$tmp/bin/shale"
PATH=$tmp/bin:$PATH
export PATH

# example NAME: its text, as a reader of the page sees it.
example() {
    sed -n "/^\.\\\\\" example: $1\$/,/^\.Ed\$/p" "$page" |
        sed -e '/^\./d' -e 's/\\-/-/g' -e 's/\\(dq/"/g' -e 's/\\e/\\/g'
}

# The line of a crontab: five fields, then the command.
example_cron() {
    mkdir app
    cat >sync <<'EOF'
#!/bin/sh
echo began >>log
read -r x <go
EOF
    chmod +x sync
    mkfifo go
    example cron | sed 's/^\([^ ]* *\)\{5\}//' >job
    grep -q '^lockd run' job
    sh job &
    await test -s log
    status 0 sh job # the second run: quiet, and nothing was run
    same '' "$(cat err)"
    same 1 "$(wc -l <log)"
    echo >go
    wait
    sh job & # the first is over: again
    await sh -c '[ "$(wc -l <log)" -eq 2 ]'
    echo >go
    wait
}

# One leads after the other; orders that carry the first one's number are refused as soon as the second has given one.
example_leader_and_fence() {
    mkdir app
    cat >lead <<'EOF'
#!/bin/sh
echo "$1" >>terms
if mkfifo go.old 2>/dev/null; then
    read -r x <go.old
fi
EOF
    chmod +x lead
    example leader >candidate
    example fence >order
    sh candidate &
    first=$!
    await test -p go.old
    sh candidate &
    second=$!
    await shows 'waiter 1: .*label "candidate"' app:leader
    old=$(sed -n 1p terms)
    number=$old order=one sh order
    echo >go.old
    wait "$first"
    wait "$second"
    same 2 "$(wc -l <terms)"
    new=$(sed -n 2p terms)
    [ "$new" -gt "$old" ]
    export number order
    number=$new order=two
    sh order
    number=$old order=late
    status 1 sh order
    same 'one two' "$(paste -s -d ' ' app/orders)"
}

example_counter() {
    shale put db visits 0
    example counter >count
    for _ in 1 2 3; do
        for _ in 1 2 3 4 5; do
            sh count
        done &
    done
    wait
    same 15 "$(shale get db visits)"
}

example_descriptor() {
    shale put db visits 0
    example descriptor >count
    example counter >other # both ways at once
    for script in count other count; do
        for _ in 1 2 3 4 5; do
            sh "$script"
        done &
    done
    wait
    same 15 "$(shale get db visits)"
}

# `shale verify`, in the middle of the window, is made to try a write as well.
example_window() {
    shale put db k before
    mkdir bin
    cat >bin/shale <<'EOF'
#!/bin/sh
if [ "$1" = verify ]; then
    status=0
    "$SHALE" put --wait 0.1 db k within 2>refused || status=$?
    echo "$status" >inside
fi
exec "$SHALE" "$@"
EOF
    chmod +x bin/shale
    example window >script
    (PATH=$PWD/bin:$PATH && sh script)
    same 75 "$(cat inside)"
    grep -q 'held by sh (pid [0-9]*) since .*label "maintenance"' refused
    same before "$(shale get db k)"
    shale load copy <db.dump
    same before "$(shale get copy k)"
    shale put --wait 5 db k after
    same after "$(shale get db k)"
}

example_status() {
    mkdir db
    hold_until_let_go -l mine db
    example status >show
    sh show | grep -q '^the write lock: held by lockd (pid [0-9]*) since ..:..:.. ([0-9.]* s), label "mine"$'
    let_go
}

every_example_of_the_page_is_run() {
    sed -n 's/^\.\\" example: //p' "$page" | sort >there
    sort >tested <<'EOF'
counter
cron
descriptor
fence
leader
status
window
EOF
    cmp there tested
    # and there is no other block
    same "$(wc -l <there)" "$(grep -c '^\.Bd -literal' "$page")"
    while read -r name; do
        [ -n "$(example "$name")" ]
    done <there
}

for name in example_cron example_leader_and_fence example_counter example_descriptor example_window example_status \
    every_example_of_the_page_is_run; do
    run "$name"
done
finish
