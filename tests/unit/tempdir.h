/* tempdir.h - a fresh directory under $TMPDIR or /tmp, and its removal with all that is in it. */
#ifndef TESTS_TEMPDIR_H
#define TESTS_TEMPDIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TEMPDIR_MAX 512

static inline int tempdir_drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)ftw;
    return type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path);
}

/* path is a PATH[TEMPDIR_MAX]; exits where it cannot be made: no test can go on without. */
static inline void tempdir_make(char *path)
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(path, TEMPDIR_MAX, "%s/shale-test-XXXXXX",
                   base != NULL && base[0] != '\0' ? base : "/tmp");
    if (mkdtemp(path) == NULL) {
        perror(path);
        exit(99);
    }
}

/* For main: the directories of all its tests go into this one, so that those of tests that died go with it.
 */
static inline void tempdir_root(char *path)
{
    tempdir_make(path);
    (void)setenv("TMPDIR", path, 1);
}

static inline void tempdir_remove(const char *path)
{
    (void)nftw(path, tempdir_drop, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
