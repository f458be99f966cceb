/* test_bad_input.c - directories and files that are not what they should be: each a clear error that names
 * the file, or a correct recovery; never a crash, never a wiped database.
 *
 * Every case works on its own copy of one closed database, which has two levels of tables and records in the
 * log. The accidents are done to it in an agent's absence, and the database is opened by agents: a crash is
 * theirs.
 */
#include "lib/lib.h"
#include "version/manifest.h"

#include <signal.h>
#include <sys/stat.h>

enum { TABLED = 400, LOGGED = 50 };

static char *dir;
static struct board *board;
static struct agent agent;

static void setup(void)
{
    dir = scratch_dir("bad");
    board = proc_board();
    agent_start(&agent, 0);
    agent_must(&agent, "open %s", dir);
    agent_must(&agent, "fill a 0 %d 200", TABLED / 2);
    agent_must(&agent, "compact");
    agent_must(&agent, "fill b 0 %d 200", TABLED / 2);
    agent_must(&agent, "flush");
    agent_must(&agent, "fill c 0 %d 200", LOGGED);
    agent_must(&agent, "close");
}

static void teardown(void)
{
    agent_quit(&agent);
    board_close(board);
    free(dir);
}

static const char *only(const char *suffix)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(dir, suffix);
    ck_assert_msg(names[0] != NULL, "no %s", suffix);
    snprintf(name, sizeof name, "%s", names[0]);
    scratch_names_free(names);
    return name;
}

static const char *manifest(void)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(dir, "");
    name[0] = '\0';
    for (char **p = names; *p != NULL; p++) {
        if (strncmp(*p, "MANIFEST-", 9) == 0) {
            snprintf(name, sizeof name, "%s", *p);
        }
    }
    scratch_names_free(names);
    ck_assert_str_ne(name, "");
    return name;
}

static uint64_t size_of(const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static void lose(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_msg(unlink(path) == 0, "%s", name);
}

static void cut(const char *name, uint64_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(truncate(path, (off_t)size), 0);
}

/* The names, and the sizes of what is durable: what a refused open must leave alone. */
static char *inventory(void)
{
    static const char *const durable[] = {".sst", ".wal", "CURRENT"};
    struct buf text = {0};
    for (size_t i = 0; i < BASE_COUNT(durable); i++) {
        char **names = scratch_names(dir, durable[i]);
        for (char **p = names; *p != NULL; p++) {
            assert_ok(buf_printf(&text, "%s %llu\n", *p, (unsigned long long)size_of(*p)));
        }
        scratch_names_free(names);
    }
    assert_ok(buf_append(&text, "", 1));
    return (char *)text.data;
}

/* The open is refused with one of two statuses, the text names `what`, and nothing durable is touched. */
static void refused(const char *status, const char *or_status, const char *what)
{
    char *before = inventory();
    const char *text = agent_ask(&agent, "open %s", dir);
    ck_assert_msg(strncmp(text, status, strlen(status)) == 0 ||
                      strncmp(text, or_status, strlen(or_status)) == 0,
                  "%s instead of %s", text, status);
    ck_assert_msg(strstr(text, what) != NULL, "\"%s\" does not name %s", text, what);
    char *after = inventory();
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
}

static void sound(unsigned entries)
{
    agent_must(&agent, "open %s", dir);
    ck_assert_int_eq(atoi(agent_must(&agent, "scan")), (int)entries);
    agent_must(&agent, "verify");
    agent_must(&agent, "put new 1");
    agent_must(&agent, "close");
    agent_must(&agent, "open %s readonly=1", dir);
    ck_assert_str_eq(agent_must(&agent, "get new"), "1");
    agent_must(&agent, "close");
}

/* Nobody was connected, but the state is taken for lost: a cold open. */
static void forget_state(void)
{
    lose("STATE");
}

/* ---- the directory ---- */

START_TEST(directory_is_a_file)
{
    char *file = scratch_name("file");
    ck_assert_int_eq(scratch_write(scratch_root(), strrchr(file, '/') + 1, "hello", 5), 0);
    const char *text = agent_ask(&agent, "open %s", file);
    ck_assert_msg(strncmp(text, "SHALE_INVALID", 13) == 0 && strstr(text, "directory") != NULL, "%s", text);
    ck_assert(strstr(text, file) != NULL);
    text = agent_ask(&agent, "open %s readonly=1", file);
    ck_assert_msg(strncmp(text, "SHALE_INVALID", 13) == 0, "%s", text);
    free(file);
}
END_TEST

START_TEST(parent_directory_is_missing)
{
    char *none = scratch_name("none");
    const char *text = agent_ask(&agent, "open %s/below", none);
    ck_assert_msg(strncmp(text, "ok", 2) != 0 && strstr(text, none) != NULL, "%s", text);
    free(none);
}
END_TEST

/* Root may do anything: the agent gives root up. */
START_TEST(without_permission)
{
    struct agent nobody = {0};
    uid_t uid = getuid() == 0 ? 65534 : 0;
    ck_assert_int_eq(chmod(dir, 0000), 0);
    agent_start_as(&nobody, 1, uid);
    const char *text = agent_ask(&nobody, "open %s", dir);
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0 && strstr(text, dir) != NULL, "%s", text);
    text = agent_ask(&nobody, "open %s/new", scratch_root()); /* may not make one either */
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0, "%s", text);
    agent_quit(&nobody);
    ck_assert_int_eq(chmod(dir, 0700), 0);
    sound(TABLED + LOGGED);
}
END_TEST

/* h27: may read, may not write. */
START_TEST(h27_readable_but_not_writable)
{
    struct agent nobody = {0};
    uid_t uid = getuid() == 0 ? 65534 : 0;
    char path[PATH_MAX], **names = scratch_names(dir, "");
    for (char **p = names; *p != NULL; p++) {
        bool lock = strcmp(*p, "LOCK") == 0 || strcmp(*p, "LIVE") == 0 || strcmp(*p, "queue") == 0;
        snprintf(path, sizeof path, "%s/%s", dir, *p);
        ck_assert_int_eq(chmod(path, lock ? 0700 : 0444), 0);
    }
    scratch_names_free(names);
    ck_assert_int_eq(chmod(dir, 0555), 0);
    agent_start_as(&nobody, 1, uid);
    const char *text = agent_ask(&nobody, "open %s", dir);
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0, "%s", text);
    agent_must(&nobody, "open %s readonly=1", dir);
    ck_assert_int_eq(atoi(agent_must(&nobody, "scan")), TABLED + LOGGED);
    agent_must(&agent, "open %s", dir); /* and a writer that is root is not disturbed by it */
    agent_must(&agent, "put new 1");
    agent_must(&agent, "close");
    agent_quit(&nobody);
    ck_assert_int_eq(chmod(dir, 0700), 0);
}
END_TEST

START_TEST(not_a_database)
{
    char *other = scratch_dir("other");
    ck_assert_int_eq(scratch_write(other, "notes.txt", "hello", 5), 0);
    const char *text = agent_ask(&agent, "open %s create=0", other);
    ck_assert_msg(strncmp(text, "SHALE_NODB", 10) == 0 && strstr(text, other) != NULL, "%s", text);
    char **names = scratch_names(other, "");
    ck_assert_str_eq(names[0], "notes.txt");
    ck_assert_ptr_null(names[1]);
    scratch_names_free(names);
    free(other);
}
END_TEST

/* ---- CURRENT and the manifest ---- */

START_TEST(current_missing_is_not_an_empty_database)
{
    unsigned char *text;
    size_t size;
    ck_assert_int_eq(scratch_read(dir, "CURRENT", &text, &size), 0);
    lose("CURRENT");
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    forget_state();
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    const char *said = agent_ask(&agent, "open %s readonly=1", dir);
    ck_assert_msg(strncmp(said, "SHALE_CORRUPT", 13) == 0, "%s", said);
    ck_assert_int_eq(scratch_write(dir, "CURRENT", text, size), 0);
    free(text);
    sound(TABLED + LOGGED);
}
END_TEST

START_TEST(current_garbled)
{
    static const char *const texts[] = {"", "MANIFEST-", "MANIFEST-999999 0123456789abcdef\n", "\0\0\0\0",
                                        "MANIFEST-000001\n"};
    unsigned char *text;
    size_t size;
    ck_assert_int_eq(scratch_read(dir, "CURRENT", &text, &size), 0);
    for (size_t i = 0; i < BASE_COUNT(texts); i++) {
        ck_assert_int_eq(scratch_write(dir, "CURRENT", texts[i], i == 3 ? 4 : strlen(texts[i])), 0);
        refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    }
    for (uint64_t bit = 0; bit < size * 8; bit += 5) {
        ck_assert_int_eq(scratch_write(dir, "CURRENT", text, size), 0);
        ck_assert_int_eq(scratch_flip_bit(dir, "CURRENT", bit), 0);
        refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    }
    ck_assert_int_eq(scratch_write(dir, "CURRENT", text, size), 0);
    free(text);
    sound(TABLED + LOGGED);
}
END_TEST

START_TEST(manifest_missing)
{
    char name[64];
    snprintf(name, sizeof name, "%s", manifest());
    lose(name);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
    forget_state();
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
}
END_TEST

/* h38: every bit of the manifest's part that is in use is covered. Where it cannot be told from a torn tail,
 * an older version is a correct recovery as long as no acknowledged entry is lost: what the lost edits held
 * must still be found. */
START_TEST(h38_manifest_bits_flipped)
{
    char name[64];
    unsigned char *bytes;
    size_t size;
    unsigned refusals = 0;
    snprintf(name, sizeof name, "%s", manifest());
    ck_assert_int_eq(scratch_read(dir, name, &bytes, &size), 0);
    forget_state();
    char *origin = scratch_name("origin");
    ck_assert_int_eq(scratch_copy(dir, origin), 0);
    for (uint64_t bit = 0; bit < size * 8; bit += 101) {
        ck_assert_int_eq(scratch_remove(dir), 0);
        ck_assert_int_eq(scratch_copy(origin, dir), 0);
        ck_assert_int_eq(scratch_flip_bit(dir, name, bit), 0);
        const char *text = agent_ask(&agent, "open %s", dir);
        if (strncmp(text, "ok", 2) == 0) {
            ck_assert_msg(atoi(agent_must(&agent, "scan")) == TABLED + LOGGED,
                          "bit %llu: entries were lost in silence", (unsigned long long)bit);
            agent_must(&agent, "close");
        } else {
            refusals++;
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 || strncmp(text, "SHALE_MISMATCH", 14) == 0,
                          "bit %llu: %s", (unsigned long long)bit, text);
            ck_assert_msg(strstr(text, "MANIFEST-") != NULL || strstr(text, ".wal") != NULL, "bit %llu: %s",
                          (unsigned long long)bit, text);
        }
    }
    ck_assert_uint_gt(refusals, 0);
    free(bytes);
    free(origin);
}
END_TEST

START_TEST(manifest_emptied_or_noise)
{
    char name[64];
    snprintf(name, sizeof name, "%s", manifest());
    uint64_t size = size_of(name);
    forget_state();
    ck_assert_int_eq(scratch_noise(dir, name, 0, size, 3), 0);
    refused("SHALE_CORRUPT", "SHALE_MISMATCH", name);
    cut(name, 10);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
    cut(name, 0);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
}
END_TEST

/* ---- tables ---- */

START_TEST(table_missing)
{
    char name[64];
    snprintf(name, sizeof name, "%s", only(".sst"));
    lose(name);
    const char *text = agent_ask(&agent, "open %s", dir);
    if (strncmp(text, "ok", 2) == 0) { /* contained: found by who needs it */
        text = agent_ask(&agent, "scan");
        ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
        ck_assert_msg(strstr(text, name) != NULL, "%s does not name %s", text, name);
        text = agent_ask(&agent, "verify");
        ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
        agent_must(&agent, "close");
    } else {
        ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
    }
}
END_TEST

/* h38: found by verify, named, contained: other keys are read. */
START_TEST(h38_table_bits_flipped)
{
    char name[64], path[PATH_MAX];
    unsigned char *bytes;
    size_t size;
    snprintf(name, sizeof name, "%s", only(".sst"));
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(scratch_read(dir, name, &bytes, &size), 0);
    uint64_t seed = 3;
    for (int i = 0; i < 60; i++) {
        uint64_t bit = prng_next(&seed) % (size * 8);
        ck_assert_int_eq(scratch_flip_bit(dir, name, bit), 0);
        const char *text = agent_ask(&agent, "open %s", dir);
        if (strncmp(text, "ok", 2) == 0) {
            ck_assert_int_eq(strncmp(agent_must(&agent, "get c00000001"), "c00000001c", 10), 0);
            text = agent_ask(&agent, "verify");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "bit %llu of %s: %s",
                          (unsigned long long)bit, name, text);
            ck_assert_msg(strstr(text, name) != NULL, "%s does not name %s", text, name);
            text = agent_ask(&agent, "scan");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 || atoi(text + 3) == TABLED + LOGGED, "%s",
                          text);
            agent_must(&agent, "close");
        } else {
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
        }
        ck_assert_int_eq(scratch_flip_bit(dir, name, bit), 0);
    }
    free(bytes);
    sound(TABLED + LOGGED);
}
END_TEST

START_TEST(table_cut_short)
{
    char name[64];
    snprintf(name, sizeof name, "%s", only(".sst"));
    uint64_t size = size_of(name);
    for (uint64_t keep = 0; keep < size; keep += size / 7 + 1) {
        cut(name, keep);
        const char *text = agent_ask(&agent, "open %s", dir);
        if (strncmp(text, "ok", 2) == 0) {
            text = agent_ask(&agent, "verify");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
            text = agent_ask(&agent, "scan");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
            agent_must(&agent, "close");
        } else {
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
        }
        break; /* a shorter file cannot be made longer again in place */
    }
}
END_TEST

/* ---- the log ---- */

START_TEST(segment_missing)
{
    char **names = scratch_names(dir, ".wal");
    forget_state();
    char name[64];
    snprintf(name, sizeof name, "%s", names[0]);
    scratch_names_free(names);
    lose(name);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
}
END_TEST

/* A torn or rotten record ends the log: what is there afterwards is a prefix of the commits. */
START_TEST(h38_segment_bits_flipped)
{
    char name[64];
    char *origin = scratch_name("origin");
    forget_state();
    snprintf(name, sizeof name, "%s", only(".wal"));
    ck_assert_int_eq(scratch_copy(dir, origin), 0);
    unsigned prefixes = 0;
    uint64_t seed = 9;
    for (int i = 0; i < 60; i++) {
        /* the header, and where the records are */
        uint64_t byte = i < 12 ? prng_next(&seed) % 64 : 4096 + prng_next(&seed) % (LOGGED * 240);
        ck_assert_int_eq(scratch_remove(dir), 0);
        ck_assert_int_eq(scratch_copy(origin, dir), 0);
        ck_assert_int_eq(scratch_flip_bit(dir, name, byte * 8 + prng_next(&seed) % 8), 0);
        const char *text = agent_ask(&agent, "open %s", dir);
        if (strncmp(text, "ok", 2) != 0) {
            ck_assert_msg(
                (strncmp(text, "SHALE_CORRUPT", 13) == 0 || strncmp(text, "SHALE_MISMATCH", 14) == 0) &&
                    strstr(text, name) != NULL,
                "%s", text);
            continue;
        }
        int n = atoi(agent_must(&agent, "scan"));
        ck_assert_int_ge(n, TABLED);
        ck_assert_int_le(n, TABLED + LOGGED);
        if (n > TABLED && n < TABLED + LOGGED) {
            char key[32];
            snprintf(key, sizeof key, "c%08d", n - TABLED - 1);
            agent_must(&agent, "get %s", key);
            snprintf(key, sizeof key, "c%08d", n - TABLED);
            ck_assert_str_eq(agent_ask(&agent, "get %s", key), "SHALE_NOTFOUND ");
            prefixes++;
        }
        agent_must(&agent, "close");
    }
    ck_assert_uint_gt(prefixes, 5);
    free(origin);
}
END_TEST

START_TEST(segment_cut_or_noise)
{
    char name[64];
    snprintf(name, sizeof name, "%s", only(".wal"));
    uint64_t size = size_of(name);
    forget_state();
    ck_assert_int_eq(scratch_noise(dir, name, 4096 + 3000, size - 4096 - 3000, 5), 0);
    agent_must(&agent, "open %s", dir);
    int n = atoi(agent_must(&agent, "scan"));
    ck_assert_int_gt(n, TABLED);
    ck_assert_int_lt(n, TABLED + LOGGED);
    agent_must(&agent, "close");
}
END_TEST

START_TEST(segment_header_noise)
{
    char name[64];
    snprintf(name, sizeof name, "%s", only(".wal"));
    forget_state();
    ck_assert_int_eq(scratch_noise(dir, name, 0, 64, 5), 0);
    refused("SHALE_CORRUPT", "SHALE_MISMATCH", name);
    cut(name, 0);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
}
END_TEST

/* ---- shared memory: needed by nobody [I-1] ---- */

static const char *const shared[] = {"STATE", ".mem"};

static void each_shared(const char *suffix, void (*hurt)(const char *name))
{
    char **names = scratch_names(dir, suffix);
    for (char **p = names; *p != NULL; p++) {
        hurt(*p);
    }
    scratch_names_free(names);
}

static void cut_to_nothing(const char *name)
{
    cut(name, 0);
}

static void cut_in_half(const char *name)
{
    cut(name, size_of(name) / 2);
}

static void fill_with_noise(const char *name)
{
    ck_assert_int_eq(scratch_noise(dir, name, 0, size_of(name), 17), 0);
}

static void fill_behind_the_head(const char *name)
{
    ck_assert_int_eq(scratch_noise(dir, name, 64, size_of(name) - 64, 17), 0);
}

static void fill_with_zeros(const char *name)
{
    uint64_t size = size_of(name);
    cut(name, 0);
    cut(name, size);
}

static void (*const injuries[])(const char *name) = {
    lose, cut_to_nothing, cut_in_half, fill_with_noise, fill_behind_the_head, fill_with_zeros};

/* A copy has other inodes and is not believed anyway; here the database itself is hurt. What is wrong deep in
 * an index may only show when it is read: then the text names the file, and without shared memory everything
 * is there. */
static void hurt_in_place(const char *suffix, bool both, void (*hurt)(const char *name))
{
    each_shared(suffix, hurt);
    if (both) {
        each_shared(shared[1], hurt);
    }
    agent_must(&agent, "open %s", dir);
    const char *text = agent_ask(&agent, "scan");
    bool refused_it = strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, ".mem") != NULL;
    ck_assert_msg(refused_it || strncmp(text, "ok", 2) == 0, "%s", text);
    ck_assert(refused_it || atoi(text + 3) == TABLED + LOGGED);
    agent_must(&agent, "close");
    if (refused_it) {
        forget_state();
        agent_must(&agent, "open %s", dir);
        ck_assert_int_eq(atoi(agent_must(&agent, "scan")), TABLED + LOGGED);
        agent_must(&agent, "close");
    }
}

START_TEST(h2_shared_memory_lost_or_garbled_while_nobody_is_connected)
{
    void (*hurt)(const char *name) = injuries[_i % (int)BASE_COUNT(injuries)];
    for (size_t which = 0; which < 3; which++) { /* STATE, the indices, both */
        char *copy = scratch_name("copy"), *was = dir;
        ck_assert_int_eq(scratch_copy(dir, copy), 0);
        dir = copy;
        for (size_t i = 0; i < BASE_COUNT(shared); i++) {
            if (which == 2 || which == i) {
                each_shared(shared[i], hurt);
            }
        }
        sound(TABLED + LOGGED);
        dir = was;
        hurt_in_place(shared[which % 2], which == 2, hurt);
        free(copy);
    }
}
END_TEST

START_TEST(queue_lost_or_garbled_while_nobody_is_connected)
{
    char queue[PATH_MAX], *was = dir;
    snprintf(queue, sizeof queue, "%s/queue", dir);
    for (size_t i = 0; i < BASE_COUNT(injuries); i++) {
        dir = queue;
        each_shared(".queue", injuries[i]);
        each_shared(".mdb", injuries[i]);
        dir = was;
        agent_must(&agent, "open %s", dir);
        agent_must(&agent, "put k v%zu", i);
        agent_must(&agent, "close");
    }
    ck_assert_int_eq(scratch_remove(queue), 0);
    sound(TABLED + LOGGED + 1);
}
END_TEST

/* h2: copied while it was open; the copy holds at least what was flushed, and is whole. */
START_TEST(h2_directory_copied_while_open)
{
    char *copy = scratch_name("copy");
    agent_must(&agent, "open %s", dir);
    agent_must(&agent, "fill d 0 20 200");
    ck_assert_int_eq(scratch_copy(dir, copy), 0);
    agent_must(&agent, "put k original");
    agent_must(&agent, "use 1");
    agent_must(&agent, "open %s", copy);
    ck_assert_int_eq(atoi(agent_must(&agent, "scan")), TABLED + LOGGED + 20);
    agent_must(&agent, "put k copy");
    agent_must(&agent, "close");
    agent_must(&agent, "use 0");
    ck_assert_str_eq(agent_must(&agent, "get k"), "original");
    agent_must(&agent, "close");
    free(copy);
}
END_TEST

/* h2, h22: STATE as another boot left it. */
START_TEST(h2_h22_state_of_another_boot)
{
    enum { BOOT = 40 }; /* offset: magic 8, layout 4, page size 4, generation 8, uuid 16 */
    ck_assert_int_eq(scratch_noise(dir, "STATE", BOOT, 16, 4), 0);
    ck_assert_int_eq(scratch_noise(dir, "STATE", 128, 1024, 4), 0);
    sound(TABLED + LOGGED);
}
END_TEST

/* h28: shared memory of another layout, in use or not, is not written to. */
START_TEST(h28_state_of_another_layout)
{
    uint32_t layout = 77;
    unsigned char *bytes;
    size_t size;
    ck_assert_int_eq(scratch_read(dir, "STATE", &bytes, &size), 0);
    memcpy(bytes + 8, &layout, sizeof layout);
    ck_assert_int_eq(scratch_write(dir, "STATE", bytes, size), 0);
    free(bytes);
    const char *text = agent_ask(&agent, "open %s", dir);
    if (strncmp(text, "ok", 2) == 0) { /* nobody was connected: made anew */
        ck_assert_int_eq(atoi(agent_must(&agent, "scan")), TABLED + LOGGED);
        agent_must(&agent, "close");
    } else {
        ck_assert_msg(strncmp(text, "SHALE_MISMATCH", 14) == 0 && strstr(text, "STATE") != NULL, "%s", text);
    }
}
END_TEST

/* h28: a feature that this library does not know, in a file that is otherwise in order. */
START_TEST(h28_manifest_of_a_newer_format)
{
    char name[64];
    unsigned char *bytes;
    size_t size;
    struct manifest_header h, newer;
    snprintf(name, sizeof name, "%s", manifest());
    ck_assert_int_eq(scratch_read(dir, name, &bytes, &size), 0);
    memcpy(&h, bytes, sizeof h);
    for (int i = 0; i < 2; i++) {
        newer = h;
        newer.format += i == 0;
        newer.incompat |= (uint64_t)i << 63;
        newer.checksum =
            checksum(&newer, offsetof(struct manifest_header, checksum), manifest_seed(h.number, 0));
        memcpy(bytes, &newer, sizeof newer);
        ck_assert_int_eq(scratch_write(dir, name, bytes, size), 0);
        refused("SHALE_MISMATCH", "SHALE_MISMATCH", name);
        const char *text = agent_ask(&agent, "open %s readonly=1", dir);
        ck_assert_msg(strncmp(text, "SHALE_MISMATCH", 14) == 0, "%s", text);
    }
    forget_state();
    refused("SHALE_MISMATCH", "SHALE_MISMATCH", name);
    memcpy(bytes, &h, sizeof h);
    ck_assert_int_eq(scratch_write(dir, name, bytes, size), 0);
    free(bytes);
    sound(TABLED + LOGGED);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("bad_input");
    TCase *t = tcase_create("bad_input");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, directory_is_a_file);
    tcase_add_test(t, parent_directory_is_missing);
    tcase_add_test(t, without_permission);
    tcase_add_test(t, h27_readable_but_not_writable);
    tcase_add_test(t, not_a_database);
    tcase_add_test(t, current_missing_is_not_an_empty_database);
    tcase_add_test(t, current_garbled);
    tcase_add_test(t, manifest_missing);
    tcase_add_test(t, h38_manifest_bits_flipped);
    tcase_add_test(t, manifest_emptied_or_noise);
    tcase_add_test(t, table_missing);
    tcase_add_test(t, h38_table_bits_flipped);
    tcase_add_test(t, table_cut_short);
    tcase_add_test(t, segment_missing);
    tcase_add_test(t, h38_segment_bits_flipped);
    tcase_add_test(t, segment_cut_or_noise);
    tcase_add_test(t, segment_header_noise);
    tcase_add_loop_test(t, h2_shared_memory_lost_or_garbled_while_nobody_is_connected, 0,
                        (int)BASE_COUNT(injuries));
    tcase_add_test(t, queue_lost_or_garbled_while_nobody_is_connected);
    tcase_add_test(t, h2_directory_copied_while_open);
    tcase_add_test(t, h2_h22_state_of_another_boot);
    tcase_add_test(t, h28_state_of_another_layout);
    tcase_add_test(t, h28_manifest_of_a_newer_format);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
