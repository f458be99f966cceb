/* test_bad_memory.c - shared memory and the queue's files lost, cut, garbled or copied while nobody is
 * connected: nothing in them is needed by anybody [I-1].
 */
#include "lib/accident.h"

static const char *const shared[] = {"STATE", ".mem"};

static void each_shared(const char *suffix, void (*hurt)(const char *name))
{
    char **names = scratch_names(scene.dir, suffix);
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
    cut(name, file_size(name) / 2);
}

static void fill_with_noise(const char *name)
{
    ck_assert_int_eq(scratch_noise(scene.dir, name, 0, file_size(name), 17), 0);
}

static void fill_behind_the_head(const char *name)
{
    ck_assert_int_eq(scratch_noise(scene.dir, name, 64, file_size(name) - 64, 17), 0);
}

static void fill_with_zeros(const char *name)
{
    uint64_t size = file_size(name);
    cut(name, 0);
    cut(name, size);
}

static void (*const injuries[])(const char *name) = {
    lose, cut_to_nothing, cut_in_half, fill_with_noise, fill_behind_the_head, fill_with_zeros};

/* A copy has other inodes and is not believed anyway; here the database itself is hurt. The checksum that the
 * last closer left in STATE does not fit any more. */
static void hurt_in_place(const char *suffix, bool both, void (*hurt)(const char *name))
{
    each_shared(suffix, hurt);
    if (both) {
        each_shared(shared[1], hurt);
    }
    agent_must(&scene.agent, "open %s", scene.dir);
    ck_assert_int_eq(atoi(agent_must(&scene.agent, "scan")), TABLED + LOGGED);
    agent_must(&scene.agent, "close");
}

START_TEST(h2_shared_memory_lost_or_garbled_while_nobody_is_connected)
{
    void (*hurt)(const char *name) = injuries[_i % (int)BASE_COUNT(injuries)];
    for (size_t which = 0; which < 3; which++) { /* STATE, the indices, both */
        char *copy = scratch_name("copy"), *was = scene.dir;
        ck_assert_int_eq(scratch_copy(scene.dir, copy), 0);
        scene.dir = copy;
        for (size_t i = 0; i < BASE_COUNT(shared); i++) {
            if (which == 2 || which == i) {
                each_shared(shared[i], hurt);
            }
        }
        sound(TABLED + LOGGED);
        scene.dir = was;
        hurt_in_place(shared[which % 2], which == 2, hurt);
        free(copy);
    }
}
END_TEST

/* One byte, anywhere that matters: a warm open would serve what the byte says. */
START_TEST(h2_one_byte_of_shared_memory_changed_while_nobody_is_connected)
{
    for (unsigned round = 0; round < 12; round++) {
        char **names = scratch_names(scene.dir, round % 2 == 0 ? "STATE" : ".mem");
        uint64_t from = round % 2 == 0 ? 64 : 4096, to = round % 2 == 0 ? 576 : 8192;
        uint64_t at = from + (to - from) / 12 * round;
        ck_assert_ptr_nonnull(names[0]);
        ck_assert_int_eq(scratch_noise(scene.dir, names[0], at, 1, round), 0);
        scratch_names_free(names);
        agent_must(&scene.agent, "open %s", scene.dir);
        ck_assert_int_eq(atoi(agent_must(&scene.agent, "scan")), TABLED + LOGGED);
        agent_must(&scene.agent, "close");
    }
}
END_TEST

START_TEST(queue_lost_or_garbled_while_nobody_is_connected)
{
    char queue[PATH_MAX], *was = scene.dir;
    snprintf(queue, sizeof queue, "%s/queue", scene.dir);
    for (size_t i = 0; i < BASE_COUNT(injuries); i++) {
        scene.dir = queue;
        each_shared(".queue", injuries[i]);
        each_shared(".mdb", injuries[i]);
        scene.dir = was;
        agent_must(&scene.agent, "open %s", scene.dir);
        agent_must(&scene.agent, "put k v%zu", i);
        agent_must(&scene.agent, "close");
    }
    ck_assert_int_eq(scratch_remove(queue), 0);
    sound(TABLED + LOGGED + 1);
}
END_TEST

/* h2: copied while it was open; the copy holds at least what was flushed, and is whole. */
START_TEST(h2_directory_copied_while_open)
{
    char *copy = scratch_name("copy");
    agent_must(&scene.agent, "open %s", scene.dir);
    agent_must(&scene.agent, "fill d 0 20 200");
    ck_assert_int_eq(scratch_copy(scene.dir, copy), 0);
    agent_must(&scene.agent, "put k original");
    agent_must(&scene.agent, "use 1");
    agent_must(&scene.agent, "open %s", copy);
    ck_assert_int_eq(atoi(agent_must(&scene.agent, "scan")), TABLED + LOGGED + 20);
    agent_must(&scene.agent, "put k copy");
    agent_must(&scene.agent, "close");
    agent_must(&scene.agent, "use 0");
    ck_assert_str_eq(agent_must(&scene.agent, "get k"), "original");
    agent_must(&scene.agent, "close");
    free(copy);
}
END_TEST

/* h2, h22: STATE as another boot left it. */
START_TEST(h2_h22_state_of_another_boot)
{
    enum { BOOT = 40 }; /* offset: magic 8, layout 4, page size 4, generation 8, uuid 16 */
    ck_assert_int_eq(scratch_noise(scene.dir, "STATE", BOOT, 16, 4), 0);
    ck_assert_int_eq(scratch_noise(scene.dir, "STATE", 128, 1024, 4), 0);
    sound(TABLED + LOGGED);
}
END_TEST

/* h28: shared memory of another layout, in use or not, is not written to. */
START_TEST(h28_state_of_another_layout)
{
    uint32_t layout = 77;
    unsigned char *bytes;
    size_t size;
    ck_assert_int_eq(scratch_read(scene.dir, "STATE", &bytes, &size), 0);
    memcpy(bytes + 8, &layout, sizeof layout);
    ck_assert_int_eq(scratch_write(scene.dir, "STATE", bytes, size), 0);
    free(bytes);
    const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
    if (strncmp(text, "ok", 2) == 0) { /* nobody was connected: made anew */
        ck_assert_int_eq(atoi(agent_must(&scene.agent, "scan")), TABLED + LOGGED);
        agent_must(&scene.agent, "close");
    } else {
        ck_assert_msg(strncmp(text, "SHALE_MISMATCH", 14) == 0 && strstr(text, "STATE") != NULL, "%s", text);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("bad_memory");
    TCase *t = tcase_create("bad_memory");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, scene_make, scene_clear);
    tcase_add_loop_test(t, h2_shared_memory_lost_or_garbled_while_nobody_is_connected, 0,
                        (int)BASE_COUNT(injuries));
    tcase_add_test(t, h2_one_byte_of_shared_memory_changed_while_nobody_is_connected);
    tcase_add_test(t, queue_lost_or_garbled_while_nobody_is_connected);
    tcase_add_test(t, h2_directory_copied_while_open);
    tcase_add_test(t, h2_h22_state_of_another_boot);
    tcase_add_test(t, h28_state_of_another_layout);
    suite_add_tcase(s, t);
    return s;
}

int main(int argc, char **argv)
{
    return test_run(argc, argv, suite);
}
