/* test_manifest.c - manifests and CURRENT: what is written is what is read, and what is damaged is said. */
#include "version_model.h"

#include <stdlib.h>

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

/* The example in doc/format. Another library of this format reads what this one writes only while these bytes
 * stand. */
START_TEST(the_bytes_are_those_of_the_documented_format)
{
    static const char current[] = "MANIFEST-000005 a1a96b3efb6eab36\n";
    static const unsigned char manifest[] = {
        0x73, 0x68, 0x6c, 0x65, 0x6d, 0x61, 0x6e, 0x31, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xee, 0xf1, 0x14, 0x7b,
        0xf5, 0x84, 0xcf, 0xdf, 0x9b, 0xfe, 0x33, 0xb8, 0xda, 0x3e, 0x2e, 0x72, 0x16, 0x00, 0x00,
        0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x80, 0x20, 0x80, 0x80, 0x80, 0x20, 0x0a, 0x01, 0x0a,
        0x05, 0x62, 0x79, 0x74, 0x65, 0x73, 0x02, 0x01, 0x03, 0x00, 0x04, 0x01, 0x00, 0x00};
    static const unsigned char no_uuid[16];
    struct version_options options = lib_options;
    struct version *v;
    struct buf bytes = {0};
    struct place p;
    uint64_t length;
    place_make(&p);
    options.target_table_bytes = 64 << 20;
    ck_assert_int_eq(version_create(no_uuid, &options, 1, &v), SHALE_OK);
    ck_assert_int_eq(manifest_create(p.dirfd, 5, v, 0600, &length), SHALE_OK);
    ck_assert_int_eq(os_read_file(p.dirfd, "MANIFEST-000005", 1000, &bytes), SHALE_OK);
    ck_assert(slice_equal(buf_slice(&bytes), slice_make(manifest, sizeof manifest)));
    buf_release(&bytes);
    ck_assert_int_eq(os_read_file(p.dirfd, CURRENT_NAME, 1000, &bytes), SHALE_OK);
    ck_assert(slice_equal(buf_slice(&bytes), slice_make(current, sizeof current - 1)));
    buf_release(&bytes);
    version_unref(v);
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

int main(void)
{
    Suite *s = suite_create("manifest");
    TCase *file = tcase_create("manifest");
    tcase_set_timeout(file, 60);
    tcase_add_test(file, load_and_advance_equal_apply);
    tcase_add_test(file, h36_a_manifest_torn_at_any_byte_loads_up_to_its_last_whole_record);
    tcase_add_test(file, h36_a_sector_that_never_reached_the_disk_is_a_torn_tail);
    tcase_add_test(file, h38_a_flipped_bit_anywhere_in_a_manifest_is_found);
    tcase_add_test(file, a_manifest_under_another_name_or_of_another_database_is_refused);
    tcase_add_test(file, h28_what_a_newer_version_wrote_is_refused_by_name_and_left_alone);
    tcase_add_test(file, the_bytes_are_those_of_the_documented_format);
    tcase_add_test(file, current_names_the_manifest_or_says_what_to_do);
    tcase_add_test(file, the_live_manifest_is_never_made_anew_and_leftovers_are_swept);
    suite_add_tcase(s, file);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
