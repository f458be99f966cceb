#!/bin/sh
# What doc/security.md promises: modes, planted files, a reader beside a writer, set-user-id programs.
. "$(dirname "$0")/lib.sh"

nobody=65534
# made MASK MODE FILES LOCKS DIRECTORY
made() {
    rm -rf db copy saved
    (
        umask "$1"
        "$AGENT" fill db --keys 3000 -o memtable_bytes=256K -o mode="$2" >/dev/null
        shale put db -o mode="$2" a 1
        shale compact db -q -o mode="$2"
        shale checkpoint db copy -q -o mode="$2"
        shale put copy -o mode="$2" b 2
        shale repair db --into saved -q -o mode="$2"
        shale put saved -o mode="$2" b 2
    )
    for dir in db copy saved; do
        same "$3" "$(find "$dir" -maxdepth 1 -type f ! -name LOCK ! -name LIVE -printf '%m\n' | sort -u | paste -sd ' ' -)"
        same "$4" "$(find "$dir" -type f \( -name LOCK -o -name LIVE -o -path '*/queue/*' \) -printf '%m\n' | sort -u | paste -sd ' ' -)"
        same "$5" "$(stat -c %a "$dir")"
    done
}

every_file_has_the_mode_of_the_option_whatever_the_umask() {
    made 022 0600 600 600 700
    made 000 0600 600 600 700
    made 077 0664 664 660 775
    made 000 0644 644 600 755
}

# refused NAME: with something else than a file under that name nothing is opened, in bounded time
refused() {
    got=0
    timeout 20 "$SHALE" put db --wait 2 key value 2>err || got=$?
    if [ "$got" -eq 0 ] || [ "$got" -eq 124 ]; then
        echo "$1: status $got"
        return 1
    fi
    timeout 20 "$SHALE" get db -o readonly=1 --wait 2 a >out 2>>err || true
}

names() { (cd db && find . -type f -name '[A-Z0-9]*' ! -name '*.mem' | sed 's,^\./,,' | sort); }

links_are_not_followed() {
    shale put db a 1
    cp -a db sound
    echo precious >victim
    chmod 600 victim
    for name in $(names); do
        case $name in queue/*) continue ;; esac
        rm -f "db/$name"
        ln -s "$PWD/victim" "db/$name"
        refused "$name"
        same precious "$(cat victim)"
        same 600 "$(stat -c %a victim)"
        rm -rf db
        cp -a sound db
    done
    rm -rf db/queue
    mkdir elsewhere
    ln -s "$PWD/elsewhere" db/queue
    timeout 20 "$SHALE" put db --wait 2 b 2 2>err || true
    same '' "$(ls elsewhere)"
}

# A name that is to be made next, or one that is made for a moment.
links_in_the_way_of_new_files_are_not_followed() {
    shale put db a 1
    for name in 000002.wal 000003.wal 000001.sst.tmp 000002.sst.tmp 000003.sst.tmp CURRENT.tmp MANIFEST-000002 000002.mem; do
        [ -e "db/$name" ] || ln -s "$PWD/victim" "db/$name"
    done
    timeout 20 "$AGENT" fill db --keys 3000 -o memtable_bytes=256K >/dev/null 2>&1 || true
    timeout 20 "$SHALE" compact db -q --wait 2 2>err || true
    same no "$([ -e victim ] && echo made || echo no)"
    find db -type l -delete
    shale put db b 2
    same 1 "$(shale get db a)"
    shale verify -q db
}

pipes_and_devices_hang_nobody() {
    shale put db a 1
    cp -a db sound
    for name in $(names); do
        case $name in queue/*) continue ;; esac
        rm -f "db/$name"
        mkfifo "db/$name"
        refused "$name"
        rm -rf db
        cp -a sound db
        if [ "$(id -u)" -eq 0 ] && mknod probe c 1 5 2>/dev/null; then
            rm -f "db/$name" probe
            mknod "db/$name" c 1 5
            refused "$name"
            rm -rf db
            cp -a sound db
        fi
    done
    mkfifo db/000099.sst db/000009.wal db/MANIFEST-000077 db/000050.sst.tmp
    timeout 20 "$SHALE" put db --wait 5 b 2 2>err || true
    timeout 20 "$SHALE" get db -o readonly=1 a >out 2>err || true
    timeout 20 "$SHALE" repair db --into new -q 2>err || true
}

foreign_files_stay() {
    shale put db a 1
    echo mine >db/notes.txt
    mkdir db/folder
    rm -f db/STATE
    shale put db b 2
    shale compact db -q
    same mine "$(cat db/notes.txt)"
    [ -d db/folder ]
}

as_nobody() { setpriv --reuid "$nobody" --regid "$nobody" --clear-groups -- "$@"; }

a_user_who_may_only_read_reads() {
    chmod 755 "$tmp" .
    "$AGENT" fill db --keys 3000 -o memtable_bytes=256K -o mode=0644 >/dev/null
    shale put db -o mode=0644 a 1
    status 77 as_nobody "$SHALE" put db b 2
    same 1 "$(as_nobody "$SHALE" get db a)"
    as_nobody "$SHALE" verify -q db
    for name in db/LOCK db/LIVE db/queue/*; do
        same no "$(as_nobody test -r "$name" && echo readable || echo no)"
    done
}

# It runs as nobody whatever its caller's user is: what the caller says in the environment does not count.
environment_is_ignored_where_privileges_are_gained() {
    chmod 755 "$tmp" .
    mkdir db
    chown "$nobody" db
    cp "$SHALE" gained
    chown "$nobody" gained
    chmod 4755 gained
    ./gained put db a 1
    same "$nobody" "$(stat -c %u db/CURRENT)"
    status 64 env SHALE_LOCK_FD=nonsense "$SHALE" put db a 2
    SHALE_LOCK_FD=nonsense ./gained put db a 3
    same 3 "$(SHALE_LOCK_FD=9:1:1 LOCKD_HELD=x ./gained get db a)"
}

run every_file_has_the_mode_of_the_option_whatever_the_umask
run links_are_not_followed
run links_in_the_way_of_new_files_are_not_followed
run pipes_and_devices_hang_nobody
run foreign_files_stay
if [ "$(id -u)" -ne 0 ]; then
    skip a_user_who_may_only_read_reads 'root, to become another user'
    skip environment_is_ignored_where_privileges_are_gained 'root, to make a set-user-id program'
else
    run_with setpriv a_user_who_may_only_read_reads
    if findmnt -n -o OPTIONS -T "$tmp" 2>/dev/null | grep -qw nosuid; then
        skip environment_is_ignored_where_privileges_are_gained 'a file system without nosuid'
    elif ! grep -aq __asan_init "$SHALE"; then # its leak checker may not trace a program that gains privileges
        run environment_is_ignored_where_privileges_are_gained
    fi
fi
finish
