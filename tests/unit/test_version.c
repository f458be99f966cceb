/* test_version.c - versions, edits, manifests and CURRENT: what is written is what is read, and what is
 * damaged is said. */
#include "version_lib.h"

#include <stdlib.h>

/* ---- a model: L0 as a list, the other levels as slots ---- */

#define SLOTS  12
#define L0_MAX 6

struct model {
    uint64_t l0[L0_MAX]; /* newest first */
    unsigned l0_count;
    uint64_t slot[VERSION_LEVELS][SLOTS]; /* number of the table there, or 0 */
    uint64_t next, seq;
    uint32_t oldest;
};

static void slot_keys(unsigned slot, char lo[16], char hi[16])
{
    (void)snprintf(lo, 16, "key%08u-a", slot); /* the first 8 bytes do not decide */
    (void)snprintf(hi, 16, "key%08u-z", slot);
}

static void model_flush(struct model *m, struct version_edit *e)
{
    memmove(m->l0 + 1, m->l0, m->l0_count * sizeof m->l0[0]);
    m->l0[0] = m->next;
    m->l0_count++;
    add_table(e, 0, m->next++, "a", "z");
    e->has_oldest = e->has_last_seq = true;
    e->oldest = ++m->oldest;
    e->last_seq = m->seq += 10;
}

/* A random step from `level` down. */
static void model_compact(struct model *m, struct version_edit *e, unsigned level, uint64_t *rng)
{
    char lo[16], hi[16];
    unsigned slot = (unsigned)(prng_next(rng) % SLOTS);
    uint64_t *from = level == 0 ? NULL : &m->slot[level][slot], *to = &m->slot[level + 1][slot];
    bool move = level > 0 && *from != 0 && *to == 0;
    if (level > 0 && *from == 0) {
        return;
    }
    slot_keys(slot, lo, hi);
    for (unsigned i = 0; level == 0 && i < m->l0_count; i++) {
        ck_assert_int_eq(version_edit_remove(e, 0, m->l0[i]), SHALE_OK);
    }
    m->l0_count = level == 0 ? 0 : m->l0_count;
    if (level > 0) {
        ck_assert_int_eq(version_edit_remove(e, level, *from), SHALE_OK);
    }
    if (*to != 0) {
        ck_assert_int_eq(version_edit_remove(e, level + 1, *to), SHALE_OK);
    }
    *to = move ? *from : m->next++;
    add_table(e, level + 1, *to, lo, hi);
    if (level > 0) {
        *from = 0;
    }
}

static void model_step(struct model *m, struct version_edit *e, uint64_t *rng)
{
    *e = (struct version_edit){0};
    if (m->l0_count == L0_MAX) {
        model_compact(m, e, 0, rng);
    } else if (prng_next(rng) % 2 == 0) {
        model_flush(m, e);
    } else {
        model_compact(m, e, (unsigned)(prng_next(rng) % (VERSION_LEVELS - 1)), rng);
    }
}

static void model_compare(const struct model *m, const struct version *v)
{
    char lo[16], hi[16];
    ck_assert_int_eq(version_check(v), SHALE_OK);
    ck_assert_uint_eq(v->level[0].count, m->l0_count);
    for (unsigned i = 0; i < m->l0_count; i++) {
        ck_assert_uint_eq(v->level[0].tables[i]->info.number, m->l0[i]);
    }
    for (unsigned level = 1; level < VERSION_LEVELS; level++) {
        uint32_t count = 0;
        uint64_t bytes = 0;
        for (unsigned s = 0; s < SLOTS; s++) {
            slot_keys(s, lo, hi);
            hi[strlen(hi) - 1] = 'm'; /* within */
            struct version_table *vt = version_find(v, level, slice_make(hi, strlen(hi)));
            ck_assert_uint_eq(vt != NULL ? vt->info.number : 0, m->slot[level][s]);
            count += m->slot[level][s] != 0;
            bytes += m->slot[level][s] != 0 ? 1000 + m->slot[level][s] : 0;
        }
        ck_assert_uint_eq(v->level[level].count, count);
        ck_assert_uint_eq(v->level[level].bytes, bytes);
    }
    ck_assert_uint_eq(v->oldest, m->oldest);
    ck_assert_uint_eq(v->last_seq, m->seq);
    ck_assert_uint_eq(v->next_table, m->next);
}

START_TEST(applied_edits_equal_the_model)
{
    struct model m = {.next = 1, .oldest = 1};
    struct version *v = empty_version(), *next = NULL;
    uint64_t rng = 7;
    for (int i = 0; i < 3000; i++) {
        struct version_edit e;
        model_step(&m, &e, &rng);
        ck_assert_int_eq(version_apply(v, &e, &next), SHALE_OK);
        version_edit_release(&e);
        version_unref(v);
        v = next;
        model_compare(&m, v);
    }
    version_unref(v);
}
END_TEST

START_TEST(overlap_finds_exactly_the_tables_that_meet_a_range)
{
    struct version *v = empty_version(), *next;
    struct version_edit e = {0};
    const char *bounds[] = {"b", "d", "f", "h", "j", "l"};
    for (unsigned i = 0; i < 6; i += 2) {
        add_table(&e, 1, i + 1, bounds[i], bounds[i + 1]);
    }
    ck_assert_int_eq(version_apply(v, &e, &next), SHALE_OK);
    for (int lo = 'a' - 1; lo <= 'm'; lo++) {
        for (int hi = lo; hi <= 'm' + 1; hi++) {
            char a = (char)lo, b = (char)hi;
            /* below 'a' and above 'm' stand for no bound */
            struct slice from = lo < 'a' ? slice_make(NULL, 0) : slice_make(&a, 1);
            struct slice to = hi > 'm' ? slice_make(NULL, 0) : slice_make(&b, 1);
            uint32_t first, count, want_first = 0, want = 0;
            for (uint32_t i = 0; i < 3; i++) {
                bool before = lo >= 'a' && bounds[2 * i + 1][0] < lo,
                     behind = hi <= 'm' && bounds[2 * i][0] > hi;
                want_first += before;
                want += !before && !behind;
            }
            if (hi < 'a') {
                continue; /* a range from no bound to below everything cannot be said */
            }
            version_overlap(next, 1, from, to, &first, &count);
            ck_assert_uint_eq(count, want);
            ck_assert_uint_eq(first, want_first);
        }
    }
    version_edit_release(&e);
    version_unref(next);
    version_unref(v);
}
END_TEST

START_TEST(an_edit_that_contradicts_its_base_is_refused)
{
    struct version *v = empty_version(), *one = NULL, *none = NULL;
    struct version_edit e = {.has_oldest = true, .oldest = 5, .has_last_seq = true, .last_seq = 9};
    add_table(&e, 1, 3, "b", "d");
    ck_assert_int_eq(version_apply(v, &e, &one), SHALE_OK);
    version_edit_release(&e);
    for (int what = 0; what < 6; what++) {
        switch (what) {
        case 0: ck_assert_int_eq(version_edit_remove(&e, 2, 3), SHALE_OK); break;
        case 1: add_table(&e, 1, 4, "c", "e"); break;
        case 2: add_table(&e, 2, 3, "x", "y"); break;
        case 3: e.has_oldest = true, e.oldest = 4; break;
        case 4: e.has_last_seq = true, e.last_seq = 8; break;
        default: add_table(&e, 1, 4, "z", "y"); break;
        }
        ck_assert_int_eq(version_apply(one, &e, &none), SHALE_CORRUPT);
        ck_assert_ptr_null(none);
        ck_assert_str_ne(shale_errmsg(), "");
        version_edit_release(&e);
    }
    version_unref(one);
    version_unref(v);
}
END_TEST

/* ---- the manifest file ---- */

/* Appends e to the manifest of v as a commit would, without STATE. */
static struct version *append_edit(const struct place *p, struct version *v, const struct version_edit *e)
{
    char name[MANIFEST_NAME_SIZE];
    struct buf record = {0};
    struct version *next;
    size_t at;
    int fd;
    ck_assert_int_eq(version_apply(v, e, &next), SHALE_OK);
    ck_assert_int_eq(manifest_begin_record(&record, &at), SHALE_OK);
    ck_assert_int_eq(manifest_put_edit(&record, e), SHALE_OK);
    ck_assert_int_eq(manifest_seal_record(&record, at, MANIFEST_EDIT, v->manifest, v->length), SHALE_OK);
    manifest_name(v->manifest, name);
    ck_assert_int_eq(os_open(p->dirfd, name, O_RDWR, 0, &fd), SHALE_OK);
    ck_assert_int_eq(os_pwrite(fd, record.data, record.size, v->length), SHALE_OK);
    os_close(&fd);
    next->length = v->length + record.size;
    buf_release(&record);
    version_unref(v);
    return next;
}

static struct version *create_manifest(const struct place *p, uint64_t number, struct version *v)
{
    uint64_t length;
    ck_assert_int_eq(manifest_create(p->dirfd, number, v, 0600, &length), SHALE_OK);
    v->manifest = number;
    v->length = v->base_length = length;
    return v;
}

static void ck_same(const struct version *a, const struct version *b)
{
    char *x = printed(a), *y = printed(b);
    ck_assert_str_eq(x, y);
    ck_assert_int_eq(memcmp(&a->options, &b->options, sizeof a->options), 0);
    ck_assert_uint_eq(a->base_length, b->base_length);
    free(x);
    free(y);
}

#define STEPS 60

START_TEST(load_and_advance_equal_apply)
{
    struct place p;
    struct model m = {.next = 1, .oldest = 1};
    struct version *at[STEPS + 1], *v;
    uint64_t rng = 11;
    place_make(&p);
    at[0] = version_ref(create_manifest(&p, 5, empty_version()));
    for (int i = 1; i <= STEPS; i++) {
        struct version_edit e;
        model_step(&m, &e, &rng);
        at[i] = version_ref(append_edit(&p, at[i - 1], &e));
        version_edit_release(&e);
    }
    for (int i = 0; i <= STEPS; i++) {
        ck_assert_int_eq(manifest_load(p.dirfd, 5, at[i]->length, &v), SHALE_OK);
        ck_same(v, at[i]);
        version_unref(v);
        int from = (int)(prng_next(&rng) % (uint64_t)(i + 1));
        ck_assert_int_eq(manifest_advance(p.dirfd, at[from], at[i]->length, &v), SHALE_OK);
        ck_same(v, at[i]);
        version_unref(v);
    }
    ck_assert_int_eq(manifest_load(p.dirfd, 5, UINT64_MAX, &v), SHALE_OK);
    ck_same(v, at[STEPS]);
    /* A whole version says the same as its edits did. */
    version_unref(create_manifest(&p, 6, version_ref(v)));
    version_unref(v);
    ck_assert_int_eq(manifest_load(p.dirfd, 6, UINT64_MAX, &v), SHALE_OK);
    model_compare(&m, v);
    version_unref(v);
    for (int i = 0; i <= STEPS; i++) {
        version_unref(at[i]);
    }
    version_unref(at[STEPS]);
    place_remove(&p);
}
END_TEST

static void write_manifest(const struct place *p, uint64_t number, const unsigned char *data, size_t size)
{
    char name[MANIFEST_NAME_SIZE];
    int fd;
    manifest_name(number, name);
    ck_assert_int_eq(os_open(p->dirfd, name, O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    ck_assert_int_eq(os_truncate(fd, 0), SHALE_OK);
    ck_assert_int_eq(os_pwrite(fd, data, size, 0), SHALE_OK);
    os_close(&fd);
}

/* A manifest of three records: its bytes, and the versions after each. wide: the last record fills several
 * sectors. */
static void small_manifest(const struct place *p, bool wide, struct buf *bytes, struct version *at[3])
{
    char name[MANIFEST_NAME_SIZE];
    char keys[2000];
    memset(keys, 'k', sizeof keys);
    keys[wide ? sizeof keys - 1 : 20] = '\0';
    at[0] = create_manifest(p, 7, empty_version());
    for (unsigned i = 1; i < 3; i++) {
        struct version_edit e = {.has_last_seq = true, .last_seq = i};
        add_table(&e, 0, i, i == 2 ? keys : "a", "z");
        at[i] = append_edit(p, version_ref(at[i - 1]), &e);
        version_edit_release(&e);
    }
    manifest_name(7, name);
    ck_assert_int_eq(os_read_file(p->dirfd, name, 1 << 20, bytes), SHALE_OK);
    ck_assert_uint_eq(bytes->size, at[2]->length);
}

START_TEST(h36_a_manifest_torn_at_any_byte_loads_up_to_its_last_whole_record)
{
    struct place p;
    struct buf bytes = {0};
    struct version *at[3], *v = NULL;
    place_make(&p);
    small_manifest(&p, false, &bytes, at);
    for (size_t size = 0; size <= bytes.size; size++) {
        write_manifest(&p, 7, bytes.data, size);
        int st = manifest_load(p.dirfd, 7, UINT64_MAX, &v);
        if (size < at[0]->length) { /* synced whole before anything named it */
            ck_assert_int_eq(st, SHALE_CORRUPT);
            ck_errmsg_has("MANIFEST-000007");
            continue;
        }
        ck_assert_int_eq(st, SHALE_OK);
        ck_same(v, at[(size >= at[1]->length) + (size >= at[2]->length)]);
        version_unref(v);
        v = NULL;
        if (size < bytes.size) {
            ck_assert_int_eq(manifest_load(p.dirfd, 7, bytes.size, &v), SHALE_CORRUPT);
            ck_assert_int_eq(manifest_advance(p.dirfd, at[0], bytes.size, &v), SHALE_CORRUPT);
            ck_assert_ptr_null(v);
        }
    }
    for (int i = 0; i < 3; i++) {
        version_unref(at[i]);
    }
    buf_release(&bytes);
    place_remove(&p);
}
END_TEST

START_TEST(h36_a_sector_that_never_reached_the_disk_is_a_torn_tail)
{
    struct place p;
    struct buf bytes = {0};
    struct version *at[3], *v;
    place_make(&p);
    small_manifest(&p, true, &bytes, at);
    unsigned cases = 0;
    for (uint64_t sector = at[1]->length / 512; sector * 512 < at[2]->length; sector++, cases++) {
        struct buf torn = {0};
        ck_assert_int_eq(buf_set(&torn, bytes.data, bytes.size), SHALE_OK);
        uint64_t from = sector * 512 > at[1]->length ? sector * 512 : at[1]->length;
        uint64_t to = (sector + 1) * 512 < at[2]->length ? (sector + 1) * 512 : at[2]->length;
        memset(torn.data + from, 0, to - from);
        write_manifest(&p, 7, torn.data, torn.size);
        ck_assert_int_eq(manifest_load(p.dirfd, 7, UINT64_MAX, &v), SHALE_OK);
        ck_same(v, at[1]);
        version_unref(v);
        buf_release(&torn);
    }
    ck_assert_uint_ge(cases, 4);
    for (int i = 0; i < 3; i++) {
        version_unref(at[i]);
    }
    buf_release(&bytes);
    place_remove(&p);
}
END_TEST

START_TEST(h38_a_flipped_bit_anywhere_in_a_manifest_is_found)
{
    struct place p;
    struct buf bytes = {0};
    struct version *at[3], *v = NULL;
    place_make(&p);
    small_manifest(&p, false, &bytes, at);
    size_t length_at = at[1]->length + offsetof(struct manifest_record, length);
    for (size_t i = 0; i < bytes.size * 8; i++) {
        bytes.data[i / 8] ^= (unsigned char)(1 << i % 8);
        write_manifest(&p, 7, bytes.data, bytes.size);
        bytes.data[i / 8] ^= (unsigned char)(1 << i % 8);
        ck_assert_int_eq(manifest_load(p.dirfd, 7, bytes.size, &v), SHALE_CORRUPT);
        ck_errmsg_has("MANIFEST-000007");
        int st = manifest_load(p.dirfd, 7, UINT64_MAX, &v);
        if (st == SHALE_OK) { /* a length beyond the end looks as a cut append does */
            ck_assert_uint_ge(i / 8, length_at);
            ck_assert_uint_lt(i / 8, length_at + 4);
            ck_same(v, at[1]);
            version_unref(v);
            v = NULL;
        } else {
            ck_assert_int_eq(st, SHALE_CORRUPT);
        }
    }
    for (int i = 0; i < 3; i++) {
        version_unref(at[i]);
    }
    buf_release(&bytes);
    place_remove(&p);
}
END_TEST

START_TEST(a_manifest_under_another_name_or_of_another_database_is_refused)
{
    struct place p;
    struct buf bytes = {0};
    struct version *at[3], *v = NULL;
    place_make(&p);
    small_manifest(&p, false, &bytes, at);
    write_manifest(&p, 8, bytes.data, bytes.size);
    ck_assert_int_eq(manifest_load(p.dirfd, 8, UINT64_MAX, &v), SHALE_CORRUPT);
    ck_errmsg_has("MANIFEST-000008");
    ck_assert_int_eq(manifest_load(p.dirfd, 9, UINT64_MAX, &v), SHALE_NOTFOUND);
    at[0]->uuid[3] ^= 1;
    ck_assert_int_eq(manifest_advance(p.dirfd, at[0], bytes.size, &v), SHALE_CORRUPT);
    ck_errmsg_has("another database");
    for (int i = 0; i < 3; i++) {
        version_unref(at[i]);
    }
    buf_release(&bytes);
    place_remove(&p);
}
END_TEST

/* ---- newer versions ---- */

/* Loads the bytes after the header and the record at `record` (0: none) were changed and sealed again. */
static int load_changed(const struct place *p, struct buf *bytes, size_t record)
{
    struct version *v = NULL;
    put_u64(bytes->data + 56, checksum(bytes->data, 56, manifest_seed(7, 0)));
    if (record != 0) {
        size_t total =
            sizeof(struct manifest_record) + (size_t)align_up(get_u32(bytes->data + record + 8), 8);
        put_u64(bytes->data + record,
                checksum(bytes->data + record + 8, total - 8, manifest_seed(7, record)));
    }
    write_manifest(p, 7, bytes->data, bytes->size);
    int st = manifest_load(p->dirfd, 7, bytes->size, &v);
    ck_assert_int_eq(st == SHALE_OK, v != NULL);
    if (v != NULL) {
        ck_assert_int_eq(version_check_writable(v), v->ro_compat == 0 ? SHALE_OK : SHALE_MISMATCH);
    }
    version_unref(v);
    return st;
}

START_TEST(h28_what_a_newer_version_wrote_is_refused_by_name_and_left_alone)
{
    struct place p;
    struct buf bytes = {0};
    struct version *at[3];
    place_make(&p);
    small_manifest(&p, false, &bytes, at);
    size_t last = at[1]->length, payload = last + sizeof(struct manifest_record);
    struct {
        size_t at;
        unsigned char value;
        size_t record;
        int status;
        const char *text;
    } cases[] = {
        {offsetof(struct manifest_header, format), 2, 0, SHALE_MISMATCH, "format 2"},
        {offsetof(struct manifest_header, incompat), 4, 0, SHALE_MISMATCH, "0x4"},
        {offsetof(struct manifest_header, ro_compat), 8, 0, SHALE_OK, NULL},
        {offsetof(struct manifest_header, compat), 8, 0, SHALE_OK, NULL},
        {last + offsetof(struct manifest_record, kind), 77, last, SHALE_MISMATCH, "kind 77"},
        {last + offsetof(struct manifest_record, kind), MANIFEST_WHOLE, last, SHALE_CORRUPT, "record at"},
        {payload, 99, last, SHALE_MISMATCH, "field 99"},
        {payload + 1, 0xff, last, SHALE_CORRUPT, "field"},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        struct buf changed = {0};
        ck_assert_int_eq(buf_set(&changed, bytes.data, bytes.size), SHALE_OK);
        changed.data[cases[i].at] = cases[i].value;
        if (cases[i].value == 0xff) { /* a number without end */
            memset(changed.data + cases[i].at, 0xff, changed.size - cases[i].at);
        }
        ck_assert_int_eq(load_changed(&p, &changed, cases[i].record), cases[i].status);
        if (cases[i].text != NULL) {
            ck_errmsg_has("MANIFEST-000007");
            ck_errmsg_has(cases[i].text);
        }
        buf_release(&changed);
    }
    for (int i = 0; i < 3; i++) {
        version_unref(at[i]);
    }
    buf_release(&bytes);
    place_remove(&p);
}
END_TEST

/* ---- CURRENT ---- */

START_TEST(current_names_the_manifest_or_says_what_to_do)
{
    struct place p;
    struct buf line = {0};
    uint64_t number = 0;
    int fd;
    place_make(&p);
    ck_assert_int_eq(current_read(p.dirfd, &number), SHALE_NODB);
    version_unref(create_manifest(&p, 123, empty_version()));
    ck_assert_int_eq(current_read(p.dirfd, &number), SHALE_OK);
    ck_assert_uint_eq(number, 123);
    ck_assert_int_eq(os_read_file(p.dirfd, CURRENT_NAME, 100, &line), SHALE_OK);
    ck_assert_int_eq(os_open(p.dirfd, CURRENT_NAME, O_RDWR, 0, &fd), SHALE_OK);
    for (size_t i = 0; i < line.size * 8; i++) {
        line.data[i / 8] ^= (unsigned char)(1 << i % 8);
        ck_assert_int_eq(os_pwrite(fd, line.data, line.size, 0), SHALE_OK);
        line.data[i / 8] ^= (unsigned char)(1 << i % 8);
        ck_assert_int_eq(current_read(p.dirfd, &number), SHALE_CORRUPT);
    }
    ck_errmsg_has("CURRENT");
    ck_errmsg_has("repair");
    for (size_t size = 0; size <= 200; size++) { /* cut short, or grown */
        ck_assert_int_eq(os_pwrite(fd, line.data, line.size, 0), SHALE_OK);
        ck_assert_int_eq(os_truncate(fd, size), SHALE_OK);
        ck_assert_int_eq(current_read(p.dirfd, &number), size == line.size ? SHALE_OK : SHALE_CORRUPT);
    }
    os_close(&fd);
    buf_release(&line);
    place_remove(&p);
}
END_TEST

START_TEST(the_live_manifest_is_never_made_anew_and_leftovers_are_swept)
{
    struct place p;
    struct version *v = empty_version();
    struct stat sb;
    uint64_t length, number;
    bool more;
    place_make(&p);
    ck_assert_int_eq(manifest_create(p.dirfd, 5, v, 0640, &length), SHALE_OK);
    ck_assert_int_eq(os_stat_at(p.dirfd, "MANIFEST-000005", &sb), SHALE_OK);
    ck_assert_uint_eq(sb.st_mode & 07777, 0640);
    ck_assert_uint_eq((uint64_t)sb.st_size, length);
    ck_assert_int_eq(manifest_create(p.dirfd, 5, v, 0600, &length), SHALE_EXISTS);
    write_manifest(&p, 6, (const unsigned char *)"leftover", 8);
    write_manifest(&p, 4, (const unsigned char *)"leftover", 8);
    ck_assert_int_eq(manifest_create(p.dirfd, 6, v, 0600, &length), SHALE_OK);
    ck_assert_int_eq(current_read(p.dirfd, &number), SHALE_OK);
    ck_assert_uint_eq(number, 6);
    int fd;
    ck_assert_int_eq(os_open(p.dirfd, "CURRENT.tmp-0123", O_RDWR | O_CREAT, 0600, &fd), SHALE_OK);
    os_close(&fd);
    ck_assert_int_eq(manifest_sweep(p.dirfd, 6), SHALE_OK);
    const char *gone[] = {"MANIFEST-000004", "MANIFEST-000005", "CURRENT.tmp-0123"};
    for (size_t i = 0; i < BASE_COUNT(gone); i++) {
        ck_assert_int_eq(os_stat_at(p.dirfd, gone[i], &sb), SHALE_NOTFOUND);
    }
    more = manifest_parse_name("MANIFEST-6", &number) || manifest_parse_name("MANIFEST-0000006", &number) ||
           manifest_parse_name("MANIFEST-000006x", &number) ||
           manifest_parse_name("MANIFEST-+00006", &number);
    ck_assert(!more);
    ck_assert(manifest_parse_name("MANIFEST-12345678", &number));
    ck_assert_uint_eq(number, 12345678);
    version_unref(v);
    place_remove(&p);
}
END_TEST

/* ---- readers of tables ---- */

static uint64_t build_table(const struct place *p, uint64_t number, struct table_info *info)
{
    struct table_builder *b;
    struct table_options o = {.block_bytes = 4096, .bloom_bits = 10, .lz4 = false, .mode = 0600};
    ck_assert_int_eq(table_build_start(p->dirfd, number, &o, &b), SHALE_OK);
    ck_assert_int_eq(table_build_add(b, slice_make("key", 3), 1, TABLE_PUT, slice_make("value", 5)),
                     SHALE_OK);
    ck_assert_int_eq(table_build_finish(b, info), SHALE_OK);
    return info->size;
}

struct opener {
    const struct place *place;
    struct version_table *vt;
    struct table *got;
    pthread_t thread;
};

static void *open_it(void *ctx)
{
    struct opener *o = ctx;
    ck_assert_int_eq(version_table_open(o->vt, o->place->dirfd, NULL, true, &o->got), SHALE_OK);
    return NULL;
}

START_TEST(threads_that_open_a_table_get_one_reader_and_later_versions_share_it)
{
    struct place p;
    struct table_info info = {0};
    struct version_edit e = {0};
    struct version *v = empty_version(), *next, *loaded;
    struct opener o[4];
    struct table *t = NULL;
    place_make(&p);
    (void)build_table(&p, 3, &info);
    ck_assert_int_eq(version_edit_add(&e, 1, &info), SHALE_OK);
    add_table(&e, 0, 4, "a", "b");
    ck_assert_int_eq(version_apply(v, &e, &next), SHALE_OK);
    version_edit_release(&e);
    for (int i = 0; i < 4; i++) {
        o[i] = (struct opener){.place = &p, .vt = next->level[1].tables[0]};
        ck_assert_int_eq(os_thread_start(&o[i].thread, open_it, &o[i], "open"), SHALE_OK);
    }
    for (int i = 0; i < 4; i++) {
        os_thread_join(o[i].thread);
        ck_assert_ptr_nonnull(o[i].got);
        ck_assert_ptr_eq(o[i].got, o[0].got);
    }
    ck_assert_int_eq(version_table_open(next->level[0].tables[0], p.dirfd, NULL, true, &t), SHALE_NOTFOUND);
    ck_assert_ptr_null(t);
    /* through a manifest that was read anew, and through a trivial move */
    version_unref(create_manifest(&p, 2, version_ref(next)));
    ck_assert_int_eq(manifest_load(p.dirfd, 2, UINT64_MAX, &loaded), SHALE_OK);
    version_share(loaded, next);
    ck_assert_ptr_eq(loaded->level[1].tables[0], next->level[1].tables[0]);
    version_unref(next);
    ck_assert_int_eq(version_edit_remove(&e, 1, 3), SHALE_OK);
    ck_assert_int_eq(buf_set(&info.smallest, "key", 3), SHALE_OK);
    ck_assert_int_eq(buf_set(&info.largest, "key", 3), SHALE_OK);
    info.number = 3;
    info.size = loaded->level[1].tables[0]->info.size;
    ck_assert_int_eq(version_edit_add(&e, 2, &info), SHALE_OK);
    ck_assert_int_eq(version_apply(loaded, &e, &next), SHALE_OK);
    version_unref(loaded);
    ck_assert_ptr_eq(atomic_load(&next->level[2].tables[0]->reader), o[0].got);
    version_edit_release(&e);
    version_unref(next);
    version_unref(v);
    place_remove(&p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("version");
    TCase *objects = tcase_create("objects"), *file = tcase_create("manifest");
    tcase_set_timeout(objects, 60);
    tcase_set_timeout(file, 60);
    tcase_add_test(objects, applied_edits_equal_the_model);
    tcase_add_test(objects, overlap_finds_exactly_the_tables_that_meet_a_range);
    tcase_add_test(objects, an_edit_that_contradicts_its_base_is_refused);
    tcase_add_test(objects, threads_that_open_a_table_get_one_reader_and_later_versions_share_it);
    tcase_add_test(file, load_and_advance_equal_apply);
    tcase_add_test(file, h36_a_manifest_torn_at_any_byte_loads_up_to_its_last_whole_record);
    tcase_add_test(file, h36_a_sector_that_never_reached_the_disk_is_a_torn_tail);
    tcase_add_test(file, h38_a_flipped_bit_anywhere_in_a_manifest_is_found);
    tcase_add_test(file, a_manifest_under_another_name_or_of_another_database_is_refused);
    tcase_add_test(file, h28_what_a_newer_version_wrote_is_refused_by_name_and_left_alone);
    tcase_add_test(file, current_names_the_manifest_or_says_what_to_do);
    tcase_add_test(file, the_live_manifest_is_never_made_anew_and_leftovers_are_swept);
    suite_add_tcase(s, objects);
    suite_add_tcase(s, file);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
