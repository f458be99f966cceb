/* test_bad_input.c - directories and durable files that are not what they should be: each a clear error that
 * names the file, or a correct recovery; never a crash, never a wiped database.
 */
#include "lib/accident.h"
#include "version/manifest.h"

#include <sys/stat.h>

/* ---- the directory ---- */

START_TEST(directory_is_a_file)
{
    char *file = scratch_name("file");
    ck_assert_int_eq(scratch_write(scratch_root(), strrchr(file, '/') + 1, "hello", 5), 0);
    const char *text = agent_ask(&scene.agent, "open %s", file);
    ck_assert_msg(strncmp(text, "SHALE_INVALID", 13) == 0 && strstr(text, "directory") != NULL, "%s", text);
    ck_assert(strstr(text, file) != NULL);
    text = agent_ask(&scene.agent, "open %s readonly=1", file);
    ck_assert_msg(strncmp(text, "SHALE_INVALID", 13) == 0, "%s", text);
    free(file);
}
END_TEST

START_TEST(parent_directory_is_missing)
{
    char *none = scratch_name("none");
    const char *text = agent_ask(&scene.agent, "open %s/below", none);
    ck_assert_msg(strncmp(text, "ok", 2) != 0 && strstr(text, none) != NULL, "%s", text);
    free(none);
}
END_TEST

/* Root may do anything: the agent gives root up. */
START_TEST(without_permission)
{
    struct agent nobody = {0};
    uid_t uid = getuid() == 0 ? 65534 : 0;
    ck_assert_int_eq(chmod(scene.dir, 0000), 0);
    agent_start_as(&nobody, 1, uid);
    const char *text = agent_ask(&nobody, "open %s", scene.dir);
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0 && strstr(text, scene.dir) != NULL, "%s", text);
    text = agent_ask(&nobody, "open %s/new", scratch_root()); /* may not make one either */
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0, "%s", text);
    agent_quit(&nobody);
    ck_assert_int_eq(chmod(scene.dir, 0700), 0);
    sound(TABLED + LOGGED);
}
END_TEST

/* h27: may read, may not write. */
START_TEST(h27_readable_but_not_writable)
{
    struct agent nobody = {0};
    uid_t uid = getuid() == 0 ? 65534 : 0;
    char path[PATH_MAX], **names = scratch_names(scene.dir, "");
    for (char **p = names; *p != NULL; p++) {
        bool lock = strcmp(*p, "LOCK") == 0 || strcmp(*p, "LIVE") == 0 || strcmp(*p, "queue") == 0;
        snprintf(path, sizeof path, "%s/%s", scene.dir, *p);
        ck_assert_int_eq(chmod(path, lock ? 0700 : 0444), 0);
    }
    scratch_names_free(names);
    ck_assert_int_eq(chmod(scene.dir, 0555), 0);
    agent_start_as(&nobody, 1, uid);
    const char *text = agent_ask(&nobody, "open %s", scene.dir);
    ck_assert_msg(strncmp(text, "SHALE_PERM", 10) == 0, "%s", text);
    agent_must(&nobody, "open %s readonly=1", scene.dir);
    ck_assert_int_eq(atoi(agent_must(&nobody, "scan")), TABLED + LOGGED);
    agent_must(&scene.agent, "open %s", scene.dir); /* and a writer that is root is not disturbed by it */
    agent_must(&scene.agent, "put new 1");
    agent_must(&scene.agent, "close");
    agent_quit(&nobody);
    ck_assert_int_eq(chmod(scene.dir, 0700), 0);
}
END_TEST

/* h27: a STATE that it may not map tells it nothing, neither that a writer lives nor that none does. */
START_TEST(h27_state_may_not_be_read)
{
    struct agent nobody = {0};
    uid_t uid = getuid() == 0 ? 65534 : 0;
    char path[PATH_MAX], **names = scratch_names(scene.dir, "");
    for (char **p = names; *p != NULL; p++) {
        snprintf(path, sizeof path, "%s/%s", scene.dir, *p);
        ck_assert_int_eq(chmod(path, strcmp(*p, "STATE") == 0 ? 0 : 0755), 0);
    }
    scratch_names_free(names);
    ck_assert_int_eq(chmod(scene.dir, 0755), 0);
    agent_start_as(&nobody, 1, uid);
    agent_must(&nobody, "open %s readonly=1", scene.dir);
    ck_assert_int_eq(atoi(agent_must(&nobody, "scan")), TABLED + LOGGED);
    agent_must(&scene.agent, "open %s mode=0644", scene.dir);
    for (unsigned i = 0; i < 3; i++) {
        agent_must(&scene.agent, "put new %u", i);
        ck_assert_int_eq(atoi(agent_must(&nobody, "get new")), (int)i);
        agent_must(&scene.agent, "flush");
        ck_assert_int_eq(atoi(agent_must(&nobody, "get new")), (int)i);
    }
    agent_must(&scene.agent, "close");
    agent_quit(&nobody);
    ck_assert_int_eq(chmod(scene.dir, 0700), 0);
}
END_TEST

START_TEST(not_a_database)
{
    char *other = scratch_dir("other");
    ck_assert_int_eq(scratch_write(other, "notes.txt", "hello", 5), 0);
    const char *text = agent_ask(&scene.agent, "open %s create=0", other);
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
    ck_assert_int_eq(scratch_read(scene.dir, "CURRENT", &text, &size), 0);
    lose("CURRENT");
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    lose_state();
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    const char *said = agent_ask(&scene.agent, "open %s readonly=1", scene.dir);
    ck_assert_msg(strncmp(said, "SHALE_CORRUPT", 13) == 0, "%s", said);
    ck_assert_int_eq(scratch_write(scene.dir, "CURRENT", text, size), 0);
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
    ck_assert_int_eq(scratch_read(scene.dir, "CURRENT", &text, &size), 0);
    for (size_t i = 0; i < BASE_COUNT(texts); i++) {
        ck_assert_int_eq(scratch_write(scene.dir, "CURRENT", texts[i], i == 3 ? 4 : strlen(texts[i])), 0);
        refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    }
    for (uint64_t bit = 0; bit < size * 8; bit += 5) {
        ck_assert_int_eq(scratch_write(scene.dir, "CURRENT", text, size), 0);
        ck_assert_int_eq(scratch_flip_bit(scene.dir, "CURRENT", bit), 0);
        refused("SHALE_CORRUPT", "SHALE_CORRUPT", "CURRENT");
    }
    ck_assert_int_eq(scratch_write(scene.dir, "CURRENT", text, size), 0);
    free(text);
    sound(TABLED + LOGGED);
}
END_TEST

START_TEST(manifest_missing)
{
    char name[64];
    snprintf(name, sizeof name, "%s", manifest_file());
    lose(name);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
    lose_state();
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
    snprintf(name, sizeof name, "%s", manifest_file());
    ck_assert_int_eq(scratch_read(scene.dir, name, &bytes, &size), 0);
    lose_state();
    char *origin = scratch_name("origin");
    ck_assert_int_eq(scratch_copy(scene.dir, origin), 0);
    for (uint64_t bit = 0; bit < size * 8; bit += 101) {
        ck_assert_int_eq(scratch_remove(scene.dir), 0);
        ck_assert_int_eq(scratch_copy(origin, scene.dir), 0);
        ck_assert_int_eq(scratch_flip_bit(scene.dir, name, bit), 0);
        const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
        if (strncmp(text, "ok", 2) == 0) {
            ck_assert_msg(atoi(agent_must(&scene.agent, "scan")) == TABLED + LOGGED,
                          "bit %llu: entries were lost in silence", (unsigned long long)bit);
            agent_must(&scene.agent, "close");
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
    snprintf(name, sizeof name, "%s", manifest_file());
    uint64_t size = file_size(name);
    lose_state();
    ck_assert_int_eq(scratch_noise(scene.dir, name, 0, size, 3), 0);
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
    snprintf(name, sizeof name, "%s", first_file(".sst"));
    lose(name);
    const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
    if (strncmp(text, "ok", 2) == 0) { /* contained: found by who needs it */
        text = agent_ask(&scene.agent, "scan");
        ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
        ck_assert_msg(strstr(text, name) != NULL, "%s does not name %s", text, name);
        text = agent_ask(&scene.agent, "verify");
        ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
        agent_must(&scene.agent, "close");
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
    snprintf(name, sizeof name, "%s", first_file(".sst"));
    snprintf(path, sizeof path, "%s/%s", scene.dir, name);
    ck_assert_int_eq(scratch_read(scene.dir, name, &bytes, &size), 0);
    uint64_t seed = 3;
    for (int i = 0; i < 60; i++) {
        uint64_t bit = prng_next(&seed) % (size * 8);
        ck_assert_int_eq(scratch_flip_bit(scene.dir, name, bit), 0);
        const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
        if (strncmp(text, "ok", 2) == 0) {
            ck_assert_int_eq(strncmp(agent_must(&scene.agent, "get c00000001"), "c00000001c", 10), 0);
            text = agent_ask(&scene.agent, "verify");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "bit %llu of %s: %s",
                          (unsigned long long)bit, name, text);
            ck_assert_msg(strstr(text, name) != NULL, "%s does not name %s", text, name);
            text = agent_ask(&scene.agent, "scan");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 || atoi(text + 3) == TABLED + LOGGED, "%s",
                          text);
            agent_must(&scene.agent, "close");
        } else {
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
        }
        ck_assert_int_eq(scratch_flip_bit(scene.dir, name, bit), 0);
    }
    free(bytes);
    sound(TABLED + LOGGED);
}
END_TEST

START_TEST(table_cut_short)
{
    char name[64];
    snprintf(name, sizeof name, "%s", first_file(".sst"));
    uint64_t size = file_size(name);
    for (uint64_t keep = 0; keep < size; keep += size / 7 + 1) {
        cut(name, keep);
        const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
        if (strncmp(text, "ok", 2) == 0) {
            text = agent_ask(&scene.agent, "verify");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0 && strstr(text, name) != NULL, "%s", text);
            text = agent_ask(&scene.agent, "scan");
            ck_assert_msg(strncmp(text, "SHALE_CORRUPT", 13) == 0, "%s", text);
            agent_must(&scene.agent, "close");
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
    char **names = scratch_names(scene.dir, ".wal");
    lose_state();
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
    lose_state();
    snprintf(name, sizeof name, "%s", first_file(".wal"));
    ck_assert_int_eq(scratch_copy(scene.dir, origin), 0);
    unsigned prefixes = 0;
    uint64_t seed = 9;
    for (int i = 0; i < 60; i++) {
        /* the header, and where the records are */
        uint64_t byte = i < 12 ? prng_next(&seed) % 64 : 4096 + prng_next(&seed) % (LOGGED * 240);
        ck_assert_int_eq(scratch_remove(scene.dir), 0);
        ck_assert_int_eq(scratch_copy(origin, scene.dir), 0);
        ck_assert_int_eq(scratch_flip_bit(scene.dir, name, byte * 8 + prng_next(&seed) % 8), 0);
        const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
        if (strncmp(text, "ok", 2) != 0) {
            ck_assert_msg(
                (strncmp(text, "SHALE_CORRUPT", 13) == 0 || strncmp(text, "SHALE_MISMATCH", 14) == 0) &&
                    strstr(text, name) != NULL,
                "%s", text);
            continue;
        }
        int n = atoi(agent_must(&scene.agent, "scan"));
        ck_assert_int_ge(n, TABLED);
        ck_assert_int_le(n, TABLED + LOGGED);
        if (n > TABLED && n < TABLED + LOGGED) {
            char key[32];
            snprintf(key, sizeof key, "c%08d", n - TABLED - 1);
            agent_must(&scene.agent, "get %s", key);
            snprintf(key, sizeof key, "c%08d", n - TABLED);
            ck_assert_str_eq(agent_ask(&scene.agent, "get %s", key), "SHALE_NOTFOUND ");
            prefixes++;
        }
        agent_must(&scene.agent, "close");
    }
    ck_assert_uint_gt(prefixes, 5);
    free(origin);
}
END_TEST

START_TEST(segment_cut_or_noise)
{
    char name[64];
    snprintf(name, sizeof name, "%s", first_file(".wal"));
    uint64_t size = file_size(name);
    lose_state();
    ck_assert_int_eq(scratch_noise(scene.dir, name, 4096 + 3000, size - 4096 - 3000, 5), 0);
    agent_must(&scene.agent, "open %s", scene.dir);
    int n = atoi(agent_must(&scene.agent, "scan"));
    ck_assert_int_gt(n, TABLED);
    ck_assert_int_lt(n, TABLED + LOGGED);
    agent_must(&scene.agent, "close");
}
END_TEST

START_TEST(segment_header_noise)
{
    char name[64];
    snprintf(name, sizeof name, "%s", first_file(".wal"));
    lose_state();
    ck_assert_int_eq(scratch_noise(scene.dir, name, 0, 64, 5), 0);
    refused("SHALE_CORRUPT", "SHALE_MISMATCH", name);
    cut(name, 0);
    refused("SHALE_CORRUPT", "SHALE_CORRUPT", name);
}
END_TEST

/* h28: a feature that this library does not know, in a file that is otherwise in order. */
START_TEST(h28_manifest_of_a_newer_format)
{
    char name[64];
    unsigned char *bytes;
    size_t size;
    struct manifest_header h, newer;
    snprintf(name, sizeof name, "%s", manifest_file());
    ck_assert_int_eq(scratch_read(scene.dir, name, &bytes, &size), 0);
    memcpy(&h, bytes, sizeof h);
    for (int i = 0; i < 2; i++) {
        newer = h;
        newer.format += i == 0;
        newer.incompat |= (uint64_t)i << 63;
        newer.checksum =
            checksum(&newer, offsetof(struct manifest_header, checksum), manifest_seed(h.number, 0));
        memcpy(bytes, &newer, sizeof newer);
        ck_assert_int_eq(scratch_write(scene.dir, name, bytes, size), 0);
        refused("SHALE_MISMATCH", "SHALE_MISMATCH", name);
        const char *text = agent_ask(&scene.agent, "open %s readonly=1", scene.dir);
        ck_assert_msg(strncmp(text, "SHALE_MISMATCH", 14) == 0, "%s", text);
    }
    lose_state();
    refused("SHALE_MISMATCH", "SHALE_MISMATCH", name);
    memcpy(bytes, &h, sizeof h);
    ck_assert_int_eq(scratch_write(scene.dir, name, bytes, size), 0);
    free(bytes);
    sound(TABLED + LOGGED);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("bad_input");
    TCase *t = tcase_create("bad_input");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, scene_make, scene_clear);
    tcase_add_test(t, directory_is_a_file);
    tcase_add_test(t, parent_directory_is_missing);
    tcase_add_test(t, without_permission);
    tcase_add_test(t, h27_readable_but_not_writable);
    tcase_add_test(t, h27_state_may_not_be_read);
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
    tcase_add_test(t, h28_manifest_of_a_newer_format);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
