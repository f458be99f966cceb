/* test_rot.c - any bit of any durable file flipped, any piece of it zeroed, any length cut off: found, named,
 * never served as data; and repair saves what is not in the damaged piece.
 *
 * One small database with everything in it: raw and packed tables on several levels, deletes, an empty key
 * and an empty value, a value larger than a block, a manifest with edits, two log segments whose every record
 * was durable. Damage is done in place and undone; between the two a read-only handle, a cold open and repair
 * must each cope. What no checksum covers (zeros between header and records, padding, the log behind its end)
 * must not matter. In the normal mode places are random, in the long mode every byte of every file is hit.
 */
#include "crash/rot.h"

/* ---- what may be seen ---- */

static struct {
    unsigned done, refused, met, tail, harmless, cold_refused, cold_sound, repaired, lost;
} counts;

#define sound(e, d, ...)                                                                                     \
    do {                                                                                                     \
        if (!(e)) {                                                                                          \
            char text_[600];                                                                                 \
            snprintf(text_, sizeof text_, __VA_ARGS__);                                                      \
            ck_abort_msg("%s: %s (%s)", (d)->what, text_, #e);                                               \
        }                                                                                                    \
    } while (0)

static bool is_name(const struct damage *d, const char *prefix)
{
    return strncmp(d->file, prefix, strlen(prefix)) == 0;
}

static bool is_durable(const char *name)
{
    return strstr(name, ".sst") != NULL || strstr(name, ".wal") != NULL ||
           strncmp(name, "MANIFEST", 8) == 0 || strcmp(name, "CURRENT") == 0;
}

/* The text names the file; where the manifest lost its end, also what the older version misses. */
static bool named(const struct damage *d, const char *text)
{
    bool version = is_name(d, "MANIFEST") || is_name(d, "CURRENT");
    return strstr(text, d->file) != NULL ||
           (version && (strstr(text, ".sst") != NULL || strstr(text, ".wal") != NULL));
}

static bool is_damage(int rc)
{
    return rc == SHALE_CORRUPT || rc == SHALE_MISMATCH;
}

static bool hits(const struct damage *d, const struct logged *l)
{
    return strcmp(l->file, d->file) == 0 && d->from < l->to && d->to > l->from;
}

/* Is there a checksum over any of the damaged bytes? */
static bool covered(const struct damage *d)
{
    if (strstr(d->file, ".wal") == NULL) {
        return true;
    }
    if (d->from < sizeof(struct wal_header) || d->cut) {
        return true;
    }
    for (unsigned i = 0; i < logged_count; i++) {
        if (hits(d, &logged[i])) {
            return true;
        }
    }
    return false;
}

/* Damage up to the very end of the log has no witness behind it: it looks like a torn append. */
static bool in_tail(const struct damage *d, unsigned key)
{
    bool behind = false;
    for (unsigned i = 0; i < logged_count; i++) {
        behind = behind || hits(d, &logged[i]);
        if (behind && logged[i].key == key) {
            return hits(d, &logged[LOGGED - 1]);
        }
    }
    return false;
}

static bool same_value(unsigned i, const shale_value *v, const char *want)
{
    size_t size = i % 97 == 5 ? BIG : 24 + i % 50;
    return want[0] != '\0' && v->size == size && strcmp(v->data, want) == 0;
}

enum seen { RIGHT, MISSED, OLDER };

/* Compares one key. A status that is damage is not looked at here. */
static enum seen look(const struct damage *d, unsigned i, int rc, const shale_value *v)
{
    if (rc == SHALE_NOTFOUND) {
        return is.value[i][0] == '\0' ? RIGHT : MISSED;
    }
    sound(rc == SHALE_OK, d, "key %u: %s", i, shale_errmsg());
    if (same_value(i, v, is.value[i])) {
        return RIGHT;
    }
    bool older = false;
    for (unsigned r = 0; r < is.rounds[i]; r++) {
        older = older || same_value(i, v, is.older[i][r]);
    }
    sound(older, d, "key %u: a value that was never written", i);
    return OLDER;
}

static void read_all_keys(struct damage *d, shale_db *db, unsigned *met, unsigned *tail)
{
    char key[24];
    for (unsigned i = 0; i < KEYS; i++) {
        shale_value v = {0};
        size_t n = key_of(i, key);
        int rc = shale_get(db, NULL, key, n, &v);
        if (is_damage(rc)) {
            sound(named(d, shale_errmsg()), d, "key %u: %s", i, shale_errmsg());
            ++*met;
            continue;
        }
        bool right = look(d, i, rc, &v) == RIGHT;
        sound(right || in_tail(d, i), d, "key %u is wrong", i);
        *tail += !right;
        shale_value_release(&v);
    }
}

/* A scan shows what is there until it meets the damage. */
static void scan_all(const struct damage *d, shale_db *db, bool backward, unsigned met, unsigned tail)
{
    shale_iter *it = NULL;
    unsigned n = 0, want = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        want += is.value[i][0] != '\0';
    }
    int rc = shale_iter_create(db, NULL, NULL, &it);
    if (rc == SHALE_OK) {
        rc = backward ? shale_iter_last(it) : shale_iter_first(it);
    }
    for (; rc == SHALE_OK; rc = backward ? shale_iter_prev(it) : shale_iter_next(it)) {
        n++;
    }
    if (rc == SHALE_NOTFOUND) {
        sound(n + tail >= want && n <= want + tail, d, "%u entries of %u", n, want);
        bool filter = strstr(d->file, ".sst") != NULL; /* scans do not look at it */
        sound(met == 0 || filter, d, "a scan went by what %u gets could not read", met);
    } else {
        sound(is_damage(rc) && named(d, shale_errmsg()), d, "scan: %s", shale_errmsg());
    }
    shale_iter_destroy(it);
}

static void readers_cope(struct damage *d)
{
    shale_options o = small_options();
    shale_db *db = NULL;
    unsigned met = 0, tail = 0;
    o.readonly = true;
    int rc = shale_open(origin, &o, &db);
    if (rc != SHALE_OK) {
        sound(is_damage(rc) && named(d, shale_errmsg()), d, "open: %s", shale_errmsg());
        sound(covered(d), d, "refused for nothing: %s", shale_errmsg());
        counts.refused++;
        return;
    }
    read_all_keys(d, db, &met, &tail);
    scan_all(d, db, false, met, tail);
    scan_all(d, db, true, met, tail);
    rc = shale_verify(db, NULL, NULL);
    if (rc != SHALE_OK) {
        sound(is_damage(rc) && named(d, shale_errmsg()), d, "verify: %s", shale_errmsg());
        counts.met++;
    } else {
        sound(met == 0, d, "verify found nothing");
        sound(tail != 0 || !covered(d), d, "nobody found it");
        counts.tail += tail != 0;
        counts.harmless += tail == 0;
    }
    assert_ok(shale_close(db));
}

/* ---- a cold open that may write ---- */

static uint64_t fingerprint(const char *where)
{
    char **names = scratch_names(where, "");
    uint64_t sum = 1;
    for (char **p = names; *p != NULL; p++) {
        unsigned char *data = NULL;
        size_t size = 0;
        if (is_durable(*p)) {
            ck_assert_int_eq(scratch_read(where, *p, &data, &size), 0);
            sum = checksum(*p, strlen(*p), checksum(data, size, sum));
            free(data);
        }
    }
    scratch_names_free(names);
    return sum;
}

static void recovery_copes(struct damage *d)
{
    shale_options o = small_options();
    shale_db *db = NULL;
    char *copy = scratch_name("cold");
    unsigned met = 0, tail = 0;
    ck_assert_int_eq(scratch_copy(origin, copy), 0);
    uint64_t before = fingerprint(copy);
    o.create = false;
    int rc = shale_open(copy, &o, &db);
    if (rc != SHALE_OK) {
        sound(is_damage(rc) && named(d, shale_errmsg()), d, "cold open: %s", shale_errmsg());
        sound(fingerprint(copy) == before, d, "a refused open changed something");
        counts.cold_refused++;
    } else {
        read_all_keys(d, db, &met, &tail);
        sound(met == 0 || !is_name(d, "MANIFEST"), d, "a new manifest was made over a lost edit");
        rc = shale_verify(db, NULL, NULL);
        sound(met == 0 || is_damage(rc), d, "verify found nothing after recovery");
        assert_ok(shale_close(db));
        counts.cold_sound++;
    }
    scratch_remove(copy);
    free(copy);
}

/* ---- repair ---- */

static unsigned losses;

static void note_line(void *ctx, int level, const char *line)
{
    (void)ctx, (void)line;
    losses += level <= 1;
}

/* May what repair has of the key be missing, or older? A damaged block loses its keys, a damaged record its
 * own, a damaged salt those of its segment. */
static bool may_lose(const struct damage *d, shale_db *damaged, unsigned key)
{
    char name[24];
    shale_value v = {0};
    size_t n = key_of(key, name);
    if (strstr(d->file, ".wal") != NULL) {
        bool salt = d->from < 24 && d->to > 16;
        for (unsigned i = 0; i < logged_count; i++) {
            if (logged[i].key == key &&
                (hits(d, &logged[i]) || (salt && strcmp(logged[i].file, d->file) == 0))) {
                return true;
            }
        }
        return false;
    }
    int rc =
        damaged != NULL && strstr(d->file, ".sst") != NULL ? shale_get(damaged, NULL, name, n, &v) : SHALE_OK;
    shale_value_release(&v);
    return is_damage(rc);
}

static void compare_repaired(struct damage *d, shale_db *db, shale_db *damaged)
{
    char key[24];
    for (unsigned i = 0; i < KEYS; i++) {
        shale_value v = {0};
        size_t n = key_of(i, key);
        int rc = shale_get(db, NULL, key, n, &v);
        if (look(d, i, rc, &v) != RIGHT) {
            sound(may_lose(d, damaged, i), d, "key %u is not in the damaged piece, and is lost", i);
            counts.lost++;
            sound(losses != 0 || in_tail(d, i), d, "key %u was lost in silence", i);
        }
        shale_value_release(&v);
    }
}

static void repair_copes(struct damage *d)
{
    shale_options o = small_options();
    shale_db *db = NULL, *damaged = NULL;
    char *into = scratch_name("repaired");
    uint64_t before = fingerprint(origin);
    o.log = note_line;
    losses = 0;
    int rc = shale_repair(origin, into, &o, NULL, NULL);
    sound(rc == SHALE_OK, d, "repair: %s", shale_errmsg());
    sound(fingerprint(origin) == before, d, "repair changed the damaged directory");
    o = small_options();
    o.readonly = true;
    rc = shale_open(into, &o, &db);
    sound(rc == SHALE_OK, d, "what was repaired: %s", shale_errmsg());
    if (shale_open(origin, &o, &damaged) != SHALE_OK) {
        damaged = NULL;
    }
    compare_repaired(d, db, damaged);
    assert_ok(shale_verify(db, NULL, NULL));
    assert_ok(shale_close(db));
    if (damaged != NULL) {
        assert_ok(shale_close(damaged));
    }
    counts.repaired++;
    scratch_remove(into);
    free(into);
}

/* ---- where it is done ---- */

static char **durable_files(void)
{
    char **names = scratch_names(origin, ""), **to = names;
    for (char **p = names; *p != NULL; p++) {
        if (is_durable(*p)) {
            *to++ = *p;
        } else {
            free(*p);
        }
    }
    *to = NULL;
    return names;
}

static uint64_t pick(uint64_t *seed, const struct damage *d)
{
    uint64_t at = prng_next(seed) % d->size;
    if (strstr(d->file, ".wal") != NULL && prng_next(seed) % 8 != 0) {
        const struct logged *l = &logged[prng_next(seed) % logged_count];
        at = prng_next(seed) % 8 == 0 ? at % 64 : l->from + at % (l->to - l->from);
    }
    return at;
}

static void tell(const char *what)
{
    printf(
        "%s: %u damages: %u opens refused, %u found by verify, %u end of the log, %u in no checksum; cold: "
        "%u refused, %u sound; repaired %u, keys lost %u\n",
        what, counts.done, counts.refused, counts.met, counts.tail, counts.harmless, counts.cold_refused,
        counts.cold_sound, counts.repaired, counts.lost);
    fflush(stdout);
}

/* Each damage of one kind in every file, n times, or in all places. */
static void each(void (*cope)(struct damage *d), unsigned n, uint64_t seed0)
{
    uint64_t seed = test_seed(seed0);
    char **names = durable_files();
    printf("seed %llu\n", (unsigned long long)seed);
    for (char **p = names; *p != NULL; p++) {
        struct damage d;
        damage_begin(&d, *p);
        for (unsigned i = 0; i < n; i++) {
            uint64_t at = pick(&seed, &d);
            bool other = true;
            switch (i % 4) {
            case 0:
            case 1: flip(&d, at * 8 + prng_next(&seed) % 8); break;
            case 2: other = zero(&d, at, i % 8 == 2 ? 512 : 4096); break;
            default: cut_off(&d, at); break;
            }
            if (other) {
                counts.done++;
                cope(&d);
            }
            undo(&d);
        }
        free(d.whole);
    }
    scratch_names_free(names);
}

START_TEST(h38_rot_is_found_and_never_served)
{
    each(readers_cope, test_times(60, 1000), 4711);
    tell("readers");
    ck_assert_uint_ge(counts.done, 200);
    ck_assert_uint_ge(counts.refused, 20);
    ck_assert_uint_ge(counts.met, 20);
}
END_TEST

/* The long mode's: one bit of each byte that counts. */
START_TEST(h38_no_byte_rots_unseen)
{
    uint64_t seed = test_seed(12);
    char **names = durable_files();
    printf("seed %llu\n", (unsigned long long)seed);
    for (char **p = names; *p != NULL; p++) {
        struct damage d;
        damage_begin(&d, *p);
        for (uint64_t at = 0; at < d.size; at++) {
            d.from = at;
            d.to = at + 1;
            if (covered(&d)) {
                flip(&d, at * 8 + prng_next(&seed) % 8);
                counts.done++;
                readers_cope(&d);
                undo(&d);
            }
        }
        free(d.whole);
    }
    scratch_names_free(names);
    tell("every byte");
    ck_assert_uint_ge(counts.done, 40000);
}
END_TEST

START_TEST(h38_recovery_from_rot_loses_nothing_in_silence)
{
    each(recovery_copes, test_times(8, 200), 815);
    tell("recovery");
    ck_assert_uint_ge(counts.cold_refused, 8);
    ck_assert_uint_ge(counts.cold_sound, 8);
}
END_TEST

START_TEST(h38_repair_saves_what_is_not_in_the_damaged_piece)
{
    each(repair_copes, test_times(12, 300), 333);
    tell("repair");
    ck_assert_uint_ge(counts.repaired, 40);
    ck_assert_uint_ge(counts.lost, 1);
}
END_TEST

/* The edit is gone that put new tables in the place of old ones, and the old ones are, too. */
START_TEST(h38_manifest_that_lost_a_compaction)
{
    shale_db *db = open_small(dir);
    assert_ok(shale_compact_range(db, NULL, 0, NULL, 0, NULL, NULL));
    assert_ok(shale_close(db));
    free(origin);
    origin = scratch_name("compacted");
    ck_assert_int_eq(scratch_copy(dir, origin), 0);
    char path[PATH_MAX], **names = durable_files();
    snprintf(path, sizeof path, "%s/STATE", origin);
    ck_assert_int_eq(unlink(path), 0);
    logged_count = 0;
    for (char **p = names; *p != NULL; p++) {
        struct damage d;
        damage_begin(&d, *p);
        for (uint64_t keep = is_name(&d, "MANIFEST") ? 64 : d.size; keep < d.size; keep += 20) {
            cut_off(&d, keep);
            recovery_copes(&d);
            repair_copes(&d);
            undo(&d);
        }
        free(d.whole);
    }
    scratch_names_free(names);
    tell("lost end");
    ck_assert_uint_ge(counts.cold_refused, 1);
    ck_assert_uint_eq(counts.lost, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("rot");
    TCase *t = tcase_create("rot");
    tcase_set_timeout(t, test_times(120, 3600));
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, h38_rot_is_found_and_never_served);
    if (test_times(0, 1) != 0) {
        tcase_add_test(t, h38_no_byte_rots_unseen);
    }
    tcase_add_test(t, h38_recovery_from_rot_loses_nothing_in_silence);
    tcase_add_test(t, h38_manifest_that_lost_a_compaction);
    tcase_add_test(t, h38_repair_saves_what_is_not_in_the_damaged_piece);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
