/* test_version.c - versions, edits, and the readers of tables that versions share. */
#include "version_model.h"

#include <stdlib.h>

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
    for (int what = 0; what < 7; what++) {
        switch (what) {
        case 0: ck_assert_int_eq(version_edit_remove(&e, 2, 3), SHALE_OK); break;
        case 1: add_table(&e, 1, 4, "c", "e"); break;
        case 2: add_table(&e, 2, 3, "x", "y"); break;
        case 3: e.has_oldest = true, e.oldest = 4; break;
        case 4: e.has_last_seq = true, e.last_seq = 8; break;
        case 5: add_table(&e, 1, 4, "d", "e"); break; /* they share one key */
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
    TCase *objects = tcase_create("objects");
    tcase_set_timeout(objects, 60);
    tcase_add_test(objects, applied_edits_equal_the_model);
    tcase_add_test(objects, overlap_finds_exactly_the_tables_that_meet_a_range);
    tcase_add_test(objects, an_edit_that_contradicts_its_base_is_refused);
    tcase_add_test(objects, threads_that_open_a_table_get_one_reader_and_later_versions_share_it);
    suite_add_tcase(s, objects);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
