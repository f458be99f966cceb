# Macros of shale's own configure.ac.

# SHALE_TRY_FLAGS(VARIABLE, FLAGS, [compile|link]): appends to VARIABLE those that the compiler takes silently.
AC_DEFUN([SHALE_TRY_FLAGS], [
    shale_save_cflags=$CFLAGS
    for shale_flag in $2; do
        AC_MSG_CHECKING([whether $CC takes $shale_flag])
        CFLAGS="$shale_save_cflags -Werror $shale_flag"
        m4_if([$3], [link], [AC_LINK_IFELSE], [AC_COMPILE_IFELSE])([AC_LANG_PROGRAM([], [])],
            [AC_MSG_RESULT([yes])
             $1="$$1 $shale_flag"],
            [AC_MSG_RESULT([no])])
    done
    CFLAGS=$shale_save_cflags
])

# C libraries before glibc 2.34 keep threads in a library of their own.
AC_DEFUN([SHALE_SEARCH_THREADS], [
    AC_SEARCH_LIBS([pthread_mutex_clocklock], [pthread], [],
        [AC_MSG_ERROR([pthread_mutex_clocklock not found: glibc 2.30 or later is needed])])
])

AC_DEFUN([SHALE_WARNINGS], [
    WARN_CFLAGS=
    SHALE_TRY_FLAGS([WARN_CFLAGS], [-Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
        -Wmissing-prototypes -Wvla -Wpointer-arith -Wcast-qual -Wwrite-strings -Wundef -Wformat=2], [compile])
    AC_SUBST([WARN_CFLAGS])
])

# --enable-sanitize=LIST: a list of -fsanitize= names. `fuzzer` instruments everything for libFuzzer and links its
# main into the fuzz programs only.
AC_DEFUN([SHALE_SANITIZE], [
    AC_ARG_ENABLE([sanitize],
        [AS_HELP_STRING([--enable-sanitize=LIST], [address,undefined or thread; fuzzer too, with clang])],
        [], [enable_sanitize=no])
    SANITIZE_CFLAGS= FUZZ_LDFLAGS=
    AS_IF([test "$enable_sanitize" != no], [
        shale_list=`AS_ECHO(["$enable_sanitize"]) | sed 's/\bfuzzer\b/fuzzer-no-link/'`
        SANITIZE_CFLAGS="-fsanitize=$shale_list -fno-omit-frame-pointer"
        AS_CASE([,$enable_sanitize,], [*,undefined,*],
            [SANITIZE_CFLAGS="$SANITIZE_CFLAGS -fno-sanitize-recover=undefined"])
        AS_CASE([,$enable_sanitize,], [*,fuzzer,*], [FUZZ_LDFLAGS=-fsanitize=fuzzer])
        shale_save_cflags=$CFLAGS
        CFLAGS="$CFLAGS $SANITIZE_CFLAGS"
        AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [],
            [AC_MSG_ERROR([$CC cannot build with $SANITIZE_CFLAGS])])
        CFLAGS=$shale_save_cflags])
    AC_SUBST([SANITIZE_CFLAGS])
    AC_SUBST([FUZZ_LDFLAGS])
    AM_CONDITIONAL([FUZZER], [test -n "$FUZZ_LDFLAGS"])
])

# Sanitizers replace what these flags do, and _FORTIFY_SOURCE only warns when nothing is optimised.
AC_DEFUN([SHALE_HARDEN], [
    HARDEN_CPPFLAGS= HARDEN_CFLAGS= HARDEN_LDFLAGS=
    AS_IF([test "$enable_sanitize" = no], [
        AS_CASE([" $CPPFLAGS $CFLAGS "],
            [*_FORTIFY_SOURCE*], [],
            [*' -O0 '*], [],
            [*' -O'*], [HARDEN_CPPFLAGS=-D_FORTIFY_SOURCE=2])
        SHALE_TRY_FLAGS([HARDEN_CFLAGS],
            [-fstack-protector-strong -fstack-clash-protection -fcf-protection], [compile])
        SHALE_TRY_FLAGS([HARDEN_LDFLAGS], [-Wl,-z,relro -Wl,-z,now], [link])])
    AC_SUBST([HARDEN_CPPFLAGS])
    AC_SUBST([HARDEN_CFLAGS])
    AC_SUBST([HARDEN_LDFLAGS])
])

# SHALE_PEER(NAME, HEADER, LIBRARY, FUNCTION, [pkg-config package]): a driver of shale-agent for this store, if it is here.
# AGENT_NAME is its version, by pkg-config, in quotes; without that 1.
AC_DEFUN([SHALE_PEER], [
    shale_peer=no
    AS_IF([test "$with_peers" != no], [
        AC_CHECK_HEADER([$2], [
            AC_CHECK_LIB([$3], [$4], [shale_peer=yes])])])
    AS_IF([test "$shale_peer" = yes], [
        shale_peer_version=1
        m4_ifval([$5], [shale_peer_version='\"'`$PKG_CONFIG --modversion $5 2>/dev/null || echo unknown`'\"'])
        PEER_CPPFLAGS="$PEER_CPPFLAGS -DAGENT_$1=$shale_peer_version"
        PEER_LIBS="$PEER_LIBS -l$3"
        shale_peers="$shale_peers m4_tolower([$1])"])
    AM_CONDITIONAL([PEER_$1], [test "$shale_peer" = yes])
])

# --without-peers: shale-agent drives shale and LMDB only, and needs no other library.
AC_DEFUN([SHALE_PEERS], [
    AC_ARG_WITH([peers], [AS_HELP_STRING([--without-peers], [shale-agent without drivers of other stores])],
        [], [with_peers=check])
    PEER_CPPFLAGS= PEER_LIBS= shale_peers=
    SHALE_PEER([ROCKSDB], [rocksdb/c.h], [rocksdb], [rocksdb_get_pinned], [rocksdb])
    SHALE_PEER([LEVELDB], [leveldb/c.h], [leveldb], [leveldb_open])
    SHALE_PEER([SQLITE], [sqlite3.h], [sqlite3], [sqlite3_prepare_v3])
    SHALE_PEER([BDB], [db.h], [db], [db_env_create])
    SHALE_PEER([TDB], [tdb.h], [tdb], [tdb_parse_record], [tdb])
    AC_SUBST([PEER_CPPFLAGS])
    AC_SUBST([PEER_LIBS])
])
