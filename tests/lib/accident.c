#include "accident.h"

#include <sys/stat.h>

struct accident scene;

void scene_make(void)
{
    scene.dir = scratch_dir("bad");
    scene.board = proc_board();
    agent_start(&scene.agent, 0);
    agent_must(&scene.agent, "open %s", scene.dir);
    agent_must(&scene.agent, "fill a 0 %d 200", TABLED / 2);
    agent_must(&scene.agent, "compact");
    agent_must(&scene.agent, "fill b 0 %d 200", TABLED / 2);
    agent_must(&scene.agent, "flush");
    agent_must(&scene.agent, "fill c 0 %d 200", LOGGED);
    agent_must(&scene.agent, "close");
}

void scene_clear(void)
{
    agent_quit(&scene.agent);
    board_close(scene.board);
    free(scene.dir);
}

const char *first_file(const char *suffix)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(scene.dir, suffix);
    ck_assert_msg(names[0] != NULL, "no %s", suffix);
    snprintf(name, sizeof name, "%s", names[0]);
    scratch_names_free(names);
    return name;
}

const char *manifest_file(void)
{
    static char name[NAME_MAX + 1];
    char **names = scratch_names(scene.dir, "");
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

uint64_t file_size(const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", scene.dir, name);
    ck_assert_int_eq(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

void lose(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", scene.dir, name);
    ck_assert_msg(unlink(path) == 0, "%s", name);
}

void cut(const char *name, uint64_t size)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", scene.dir, name);
    ck_assert_int_eq(truncate(path, (off_t)size), 0);
}

/* The names, and the sizes of what is durable: what a refused open must leave alone. */
static char *inventory(void)
{
    static const char *const durable[] = {".sst", ".wal", "CURRENT"};
    struct buf text = {0};
    for (size_t i = 0; i < BASE_COUNT(durable); i++) {
        char **names = scratch_names(scene.dir, durable[i]);
        for (char **p = names; *p != NULL; p++) {
            assert_ok(buf_printf(&text, "%s %llu\n", *p, (unsigned long long)file_size(*p)));
        }
        scratch_names_free(names);
    }
    assert_ok(buf_append(&text, "", 1));
    return (char *)text.data;
}

void refused(const char *status, const char *or_status, const char *what)
{
    char *before = inventory();
    const char *text = agent_ask(&scene.agent, "open %s", scene.dir);
    ck_assert_msg(strncmp(text, status, strlen(status)) == 0 ||
                      strncmp(text, or_status, strlen(or_status)) == 0,
                  "%s instead of %s", text, status);
    ck_assert_msg(strstr(text, what) != NULL, "\"%s\" does not name %s", text, what);
    char *after = inventory();
    ck_assert_str_eq(before, after);
    free(before);
    free(after);
}

void sound(unsigned entries)
{
    agent_must(&scene.agent, "open %s", scene.dir);
    ck_assert_int_eq(atoi(agent_must(&scene.agent, "scan")), (int)entries);
    agent_must(&scene.agent, "verify");
    agent_must(&scene.agent, "put new 1");
    agent_must(&scene.agent, "close");
    agent_must(&scene.agent, "open %s readonly=1", scene.dir);
    ck_assert_str_eq(agent_must(&scene.agent, "get new"), "1");
    agent_must(&scene.agent, "close");
}

void lose_state(void)
{
    lose("STATE");
}
