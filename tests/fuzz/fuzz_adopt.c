/* fuzz_adopt.c - arbitrary bytes in the files that a process adopts from others: STATE, the index of a
 * memtable, the lock queue and its metadata, CURRENT.
 *
 * The input is a list of changes to these files of a small database, made
 *
 *   while nobody is connected    nothing in shared memory is needed [I-1]: whatever was changed, the database
 * opens, holds what it held, and can be written in CURRENT                   the database opens and holds
 * what it held, or there is an error and nothing is changed under a handle that is open  for the queue: order
 * may be lost, no more. For STATE and the index: any error, wrong answers too, but no crash and no call
 * without an end. What was in the log before is there again when the shared memory is lost, if STATE was left
 * alone
 *
 * STATE's word `clean` is left alone while nobody is connected: the checksum in it is what tells, and
 * libFuzzer could write the right one.
 */
#include "../lib/scratch.h"
#include "fuzz.h"
#include "version/version.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

enum { ENTRIES = 48, PATIENCE_MS = 5000, IMPATIENCE_MS = 3 };

static char dir[PATH_MAX];

#define ok(e) fuzz_must((e) == SHALE_OK)

static shale_db *opened(int *rc)
{
    shale_db *db = NULL;
    shale_options o;
    shale_options_init(&o);
    o.threads = 0;
    o.durable = SHALE_DURABLE_OFF;
    o.memtable_bytes = 256 << 10;
    o.block_bytes = 512;
    o.timeout_ms = PATIENCE_MS;
    *rc = shale_open(dir, &o, &db);
    return db;
}

/* Half of it in a table, half in the log. */
static shale_db *make(void)
{
    int rc;
    shale_db *db = opened(&rc);
    ok(rc);
    for (unsigned i = 0; i < ENTRIES; i++) {
        char key[16], value[100];
        int k = snprintf(key, sizeof key, "key%04u", i * 7 % ENTRIES);
        memset(value, 'a' + (int)(i * 7 % ENTRIES % 26), sizeof value);
        ok(shale_put(db, key, (size_t)k, value, 10 + i * 7 % ENTRIES, 0));
        if (i == ENTRIES / 2) {
            ok(shale_flush(db));
        }
    }
    ok(shale_sync(db));
    return db;
}

/* All entries are there, as they were put. */
static bool whole(shale_db *db)
{
    shale_iter *it = NULL;
    unsigned n = 0;
    int rc = shale_iter_create(db, NULL, NULL, &it);
    for (rc = rc == SHALE_OK ? shale_iter_first(it) : rc; rc == SHALE_OK; rc = shale_iter_next(it)) {
        size_t keylen, vallen;
        const char *key = shale_iter_key(it, &keylen), *value = shale_iter_value(it, &vallen);
        char want[16];
        if (keylen != 7 || key[0] != 'k') {
            continue; /* put since */
        }
        (void)snprintf(want, sizeof want, "key%04u", n);
        if (memcmp(key, want, 7) != 0 || vallen != 10 + n || value[0] != (char)('a' + n % 26) ||
            value[vallen - 1] != value[0]) {
            break;
        }
        n++;
    }
    shale_iter_destroy(it);
    return rc == SHALE_NOTFOUND && n == ENTRIES;
}

/* ---- changes ---- */

enum { STATE_FILE, MEM_FILE, QUEUE_FILE, MDB_FILE, FILES };

/* The name of a file of that sort, or none. */
static bool name_of(uint32_t sort, char *name, size_t size)
{
    static const char *const where[FILES] = {"", "", "/queue", "/queue"};
    static const char *const suffix[FILES] = {"STATE", ".mem", ".queue", ".mdb"};
    char folder[PATH_MAX + 8];
    (void)snprintf(folder, sizeof folder, "%s%s", dir, where[sort]);
    char **names = scratch_names(folder, suffix[sort]);
    bool found = names[0] != NULL;
    if (found) {
        (void)snprintf(name, size, "%s/%s", folder, names[0]);
    }
    scratch_names_free(names);
    return found;
}

/* Overwrites bytes of one file, whose size stays; alone: it may also be cut, or go. */
static uint32_t change(struct fuzz_input *in, bool alone)
{
    char name[PATH_MAX + 300];
    uint32_t what = fuzz_byte(in), sort = what % FILES, fd_size;
    struct stat st;
    int fd = -1;
    if (!name_of(sort, name, sizeof name) || os_open(AT_FDCWD, name, O_RDWR, 0, &fd) != SHALE_OK) {
        return sort;
    }
    ok(os_stat(fd, &st));
    fd_size = (uint32_t)st.st_size;
    if (alone && what >= 240) {
        ok(os_truncate(fd, fuzz_below(in, fd_size + 1)));
    } else if (alone && what >= 230) {
        ok(os_unlink(AT_FDCWD, name));
    } else if (fd_size != 0) {
        uint32_t at = fuzz_below(in, what < 120 ? 1024 : fd_size), n = 1 + fuzz_byte(in) % 24;
        struct slice bytes = fuzz_bytes(in, n < fd_size - at ? n : fd_size - at);
        const uint32_t clean = offsetof(struct state, clean);
        if (sort != STATE_FILE || !alone || at >= clean + 8 || at + bytes.size <= clean) {
            ok(bytes.size == 0 ? SHALE_OK : os_pwrite(fd, bytes.data, bytes.size, at));
        }
    }
    os_close(&fd);
    return sort;
}

static uint32_t changes(struct fuzz_input *in, bool alone)
{
    uint32_t sorts = 0;
    for (unsigned n = 0; n < 32 && fuzz_left(in) != 0; n++) {
        sorts |= 1u << change(in, alone);
    }
    return sorts;
}

/* ---- what follows ---- */

/* Everything that looks at what was changed; what it says does not matter. */
static void use(shale_db *db)
{
    shale_value v = {0};
    shale_stats s = {.size = sizeof s};
    shale_txn *t = NULL;
    char text[4096];
    (void)shale_set_timeout(db, IMPATIENCE_MS);
    (void)shale_get(db, NULL, "key0005", 7, &v);
    shale_value_release(&v);
    (void)whole(db);
    for (unsigned i = 0; i < 4; i++) {
        (void)shale_put(db, &"wxyz"[i], 1, "new", 3, i == 1 ? SHALE_SYNC : 0);
    }
    if (shale_txn_begin(db, 0, IMPATIENCE_MS, &t) == SHALE_OK) {
        (void)shale_txn_put(t, "txn", 3, "new", 3);
        (void)shale_txn_commit(t);
    }
    (void)shale_stat(db, &s);
    (void)shale_property(db, "counters", text, sizeof text, NULL);
    (void)shale_property(db, "memtables", text, sizeof text, NULL);
    (void)shale_flush(db);
    (void)shale_work(db, SHALE_WORK_FLUSH | SHALE_WORK_COMPACT, 0, NULL);
    (void)shale_put(db, "x", 1, "again", 5, 0);
    (void)shale_delete(db, "w", 1, 0);
    (void)whole(db);
}

static void lose_shared_memory(void)
{
    char name[PATH_MAX + 300];
    for (uint32_t sort = STATE_FILE; sort <= MEM_FILE; sort++) {
        while (name_of(sort, name, sizeof name)) {
            fuzz_must(unlink(name) == 0);
        }
    }
}

static void check_writable(void)
{
    int rc;
    shale_db *db = opened(&rc);
    ok(rc);
    fuzz_must(whole(db));
    ok(shale_put(db, "new", 3, "v", 1, SHALE_SYNC));
    ok(shale_flush(db));
    fuzz_must(whole(db));
    ok(shale_close(db));
}

static void nobody_connected(struct fuzz_input *in)
{
    ok(shale_close(make()));
    (void)changes(in, true);
    check_writable();
    check_writable();
}

static void in_current(struct fuzz_input *in)
{
    unsigned char *was;
    size_t size;
    int rc;
    ok(shale_close(make()));
    struct slice now = fuzz_bytes(in, 64);
    fuzz_must(scratch_read(dir, CURRENT_NAME, &was, &size) == 0);
    fuzz_must(scratch_write(dir, CURRENT_NAME, now.data, now.size) == 0);
    shale_db *db = opened(&rc);
    fuzz_must(rc != SHALE_OK || whole(db));
    fuzz_must(rc == SHALE_OK || rc == SHALE_CORRUPT || rc == SHALE_MISMATCH);
    if (rc == SHALE_OK) {
        ok(shale_close(db));
    } else {
        fuzz_must(scratch_write(dir, CURRENT_NAME, was, size) == 0);
    }
    free(was);
    check_writable();
}

static void under_a_handle(struct fuzz_input *in)
{
    int rc;
    shale_db *first = make();
    uint32_t sorts = changes(in, false);
    shale_db *second = opened(&rc);
    bool queue_only = (sorts & ~(1u << QUEUE_FILE | 1u << MDB_FILE)) == 0;
    fuzz_must(!queue_only || rc == SHALE_OK);
    if (second != NULL) {
        use(second);
        fuzz_must(!queue_only || whole(second));
    }
    use(first);
    fuzz_must(!queue_only || whole(first));
    (void)shale_close(second);
    (void)shale_close(first);
    if ((sorts & 1u << STATE_FILE) == 0) {
        lose_shared_memory();
        check_writable();
    }
}

/* Shared memory may ask for a segment of a gigabyte, and may be right. */
static void limit_files(void)
{
    const struct rlimit most = {64u << 20, 64u << 20};
    fuzz_must(setrlimit(RLIMIT_FSIZE, &most) == 0 && signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    if (dir[0] == '\0') {
        limit_files();
    }
    (void)snprintf(dir, sizeof dir, "%s/db", fuzz_dir());
    switch (fuzz_byte(&in) % 4) {
    case 0: nobody_connected(&in); break;
    case 1: in_current(&in); break;
    default: under_a_handle(&in); break;
    }
    fuzz_must(scratch_remove(dir) == 0);
    return 0;
}
