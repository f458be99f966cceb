/* power.h - a model of what a disk holds when the power goes.
 *
 * The recorder (power.c) runs in every process that works on the database. It is told of each system call at
 * the door (os/os.h), and keeps in memory that all share:
 *
 *   - of each file, the bytes as they stood when the last successful fsync or fdatasync of it began. What was
 *     stored before that is on the disk; what came later may be or not, whichever way it was stored (write or
 *     mapping): it is found by comparing the file as it is with that copy.
 *   - of the directory, every creation, rename, link and unlink in their order, and how many of them came
 *     before the last successful fsync of the directory began. An fsync of a file makes its bytes durable,
 *     not its name.
 *
 *   - a sync that went wrong leaves the pages that it should have written clean in memory, and old or new on
 *     the disk: no later sync writes them, unless they were written to in between.
 *
 * The image maker (image.c) takes both at one moment, while everybody is stopped, and builds from them what
 * could be found after the power is back, as often as asked, each time another possibility:
 *
 *   - each 4 KiB page that was not synced is the old one or the new one, or a mixture of their 512-byte
 *     sectors; what was never synced is zeros or new. A file whose size changed has the old, the new or one
 *     between.
 *   - of the names' changes that were not synced any subset happened: none, all, the first few, or each with
 *     an even chance. A rename happens whole or not at all.
 *   - STATE, the indices and the lock queue, which need not survive, are missing, stale or garbage; or as
 *     after a real reboot: on the same inodes, of another boot.
 *
 * Not modelled: a file system that shows another file's old blocks in one that grew (ext4's data=writeback),
 * and a disk that loses what it was told to flush.
 */
#ifndef TESTS_LIB_POWER_H
#define TESTS_LIB_POWER_H

#include "os/os.h"

#include <limits.h>

#define POWER_FILES   4096
#define POWER_OPS     16384
#define POWER_LIVE    256
#define POWER_WRITERS 4
#define POWER_NAME    48
#define POWER_PAGE    4096u
#define POWER_SECTOR  512u
#define POWER_LOST    512u /* pages of a file that a sync can lose */

struct power_file {
    uint64_t ino;                  /* 0: it has no name any more */
    _Atomic uint64_t durable_size; /* of STORE/ID.durable */
    _Atomic uint64_t frozen_size;  /* STORE/ID.frozen: as it was when its last name was taken away; + 1 */
    uint64_t stamp;                /* when the sync began that made it durable; 0: never synced */
    uint32_t failures; /* STORE/ID.failed: as it was when a sync of it went wrong; and its pages, */
    uint64_t lost[POWER_LOST / 64]; /* a bit each, that no sync will write before they are written to */
};

enum power_kind { POWER_CREATE, POWER_RENAME, POWER_UNLINK };
struct power_op {
    uint32_t kind, file;
    char from[POWER_NAME], to[POWER_NAME]; /* to: what is created, or the new name */
};

struct power_name {
    uint32_t file;
    char name[POWER_NAME]; /* "": none */
};

/* What a writer did: the oracle. Counters of commits; durable is raised when the library has promised it. */
struct power_writer {
    _Atomic uint64_t started, acknowledged, durable;
};

struct power {
    pthread_mutex_t mutex; /* held across each change of a name and its entry here */
    uint64_t dev, ino;     /* of the directory */
    _Atomic uint64_t clock;
    _Atomic uint32_t file_count, op_count, op_durable;
    _Atomic uint64_t syncs, dir_syncs, failed;
    struct power_name live[POWER_LIVE];
    struct power_writer writer[POWER_WRITERS];
    char dir[PATH_MAX], store[PATH_MAX];
    struct power_op op[POWER_OPS];
    struct power_file file[POWER_FILES];
};

/* ---- power.c ---- */

/* A recorder for dir, whatever is in it being durable; its file and its store lie under path. */
struct power *power_make(const char *path, const char *dir);
struct power *power_open(const char *path); /* NULL: errno */
void power_close(struct power *p);
/* From now on this process records: what the two hooks of the door call. power_before: 0, or the errno that a
 * sync is to report, of a failure that this process was not told of yet. */
void power_join(struct power *p);
int power_before(enum os_op op, int fd, const char *name, uint64_t offset, const size_t *length);
void power_after(enum os_op op, int fd, const char *name, const char *to, int64_t result);
/* Instead of the call: a sync that is made to go wrong. */
void power_failed_sync(int fd);
/* Not the database: what is in memory only, by its name. */
bool power_is_cache(const char *name);

/* ---- image.c ---- */

struct power_capture;
enum power_names {
    POWER_NAMES_NONE,
    POWER_NAMES_ALL,
    POWER_NAMES_FIRST,
    POWER_NAMES_SOME,
    POWER_NAMES_COUNT
};
enum power_pages {
    POWER_PAGES_OLD,
    POWER_PAGES_NEW,
    POWER_PAGES_HALF,
    POWER_PAGES_FEW_OLD,
    POWER_PAGES_FEW_NEW,
    POWER_PAGES_TORN,
    POWER_PAGES_COUNT
};
enum power_cache {
    POWER_CACHE_GONE,
    POWER_CACHE_STALE,
    POWER_CACHE_NOISE,
    POWER_CACHE_REBOOT,
    POWER_CACHE_COUNT
};
struct power_mood {
    enum power_names names;
    enum power_pages pages;
    enum power_cache cache;
};
struct power_mood power_mood(uint64_t *seed);

/* Everybody who records is stopped or dead. */
struct power_capture *power_capture(struct power *p);
void power_release(struct power_capture *c);
/* What is uncertain in it: bytes of pages, and changes of names. */
void power_uncertain(const struct power_capture *c, unsigned *pages, unsigned *names);
/* Builds one possibility in dir, which is made. 0, or -1 with errno. */
int power_image(const struct power_capture *c, struct power_mood mood, uint64_t seed, const char *dir);

#endif
