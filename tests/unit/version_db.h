/* version_db.h - databases for the tests of commits, whose content follows from one number, the generation:
 * generation g has made tables 1..g and keeps the last two, in L0. So whatever a process finds tells which
 * commit it is from, and that it is whole.
 */
#ifndef TESTS_VERSION_DB_H
#define TESTS_VERSION_DB_H

#include "version_lib.h"

static inline void next_edit(const struct version *v, struct version_edit *e)
{
    uint64_t n = v->next_table;
    *e = (struct version_edit){.has_oldest = true, .has_last_seq = true};
    e->oldest = (uint32_t)n;
    e->last_seq = n;
    if (n > 2) {
        must(version_edit_remove(e, 0, n - 2) == SHALE_OK);
    }
    add_table(e, 0, n, "a", "z");
}

/* Which generation v is; exits when it is none. */
static inline uint64_t generation_of(const struct version *v)
{
    uint64_t g = v->next_table - 1;
    const struct version_level *l = &v->level[0];
    bool right = l->count == (g < 2 ? g : 2) && v->last_seq == g && v->oldest == (g < 1 ? 1 : g);
    for (uint32_t i = 0; i < l->count; i++) {
        right = right && l->tables[i]->info.number == g - i;
    }
    if (!right || version_check(v) != SHALE_OK) {
        char *text = printed(v);
        (void)fprintf(stderr, "a version that nobody committed:\n%s", text);
        exit(90);
    }
    return g;
}

struct lib {
    struct place place;
    struct state_map map;
    struct version_log log;
};

static inline void lib_attach(struct lib *l, bool create)
{
    struct stat lock;
    int fd = -1;
    must(os_open(l->place.dirfd, "LOCK", O_RDWR | O_CREAT, 0600, &fd) == SHALE_OK);
    must(os_stat(fd, &lock) == SHALE_OK);
    os_close(&fd);
    must(state_map(l->place.dirfd, true, create, 0600, &l->map) == SHALE_OK);
    if (create) {
        state_begin(&l->map, &lock, lib_uuid);
        struct version *v = empty_version();
        uint64_t length;
        must(manifest_create(l->place.dirfd, 1, v, 0600, &length) == SHALE_OK);
        state_store_tuple(l->map.state, 1, length, 1);
        state_ready(&l->map);
        version_unref(v);
    }
    must(state_check(&l->map, &lock) == SHALE_OK);
    l->log =
        (struct version_log){.dirfd = l->place.dirfd, .state = l->map.state, .mode = 0600, .roll_bytes = 600};
}

static inline void lib_make(struct lib *l)
{
    place_make(&l->place);
    lib_attach(l, true);
}

static inline void lib_remove(struct lib *l)
{
    state_unmap(&l->map);
    place_remove(&l->place);
}

/* Loads what the tuple names, at any time. *g: its generation; false: it was gone, and the epoch had moved.
 */
static inline bool read_published(const struct lib *l, uint64_t *g)
{
    struct state_view t, again;
    struct version *v;
    state_load_tuple(l->map.state, &t);
    int st = manifest_load(l->place.dirfd, t.manifest, t.length, &v);
    state_load_tuple(l->map.state, &again);
    if (st == SHALE_NOTFOUND && again.epoch != t.epoch) {
        return false;
    }
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "load: %d %s\n", st, shale_errmsg());
        exit(82);
    }
    *g = generation_of(v);
    if (v->oldest != t.oldest) {
        (void)fprintf(stderr, "a mixed tuple\n");
        exit(83);
    }
    version_unref(v);
    return true;
}

/* What a cold open finds. */
static inline uint64_t read_cold(const struct lib *l)
{
    uint64_t number = 0;
    struct version *v = NULL;
    int st = current_read(l->place.dirfd, &number);
    st = st == SHALE_OK ? manifest_load(l->place.dirfd, number, UINT64_MAX, &v) : st;
    if (st != SHALE_OK) {
        (void)fprintf(stderr, "cold: %d %s\n", st, shale_errmsg());
        exit(84);
    }
    uint64_t g = generation_of(v);
    version_unref(v);
    return g;
}

static inline uint64_t generation_now(const struct lib *l)
{
    uint64_t g;
    must(read_published(l, &g));
    return g;
}

#endif
