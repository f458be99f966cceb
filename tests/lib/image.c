/* image.c - what may be found after the power is back: see power.h. */
#include "power.h"

#include "version/state.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

struct content {
    unsigned char *old, *now; /* as long as the longer one, zeros behind the end */
    size_t old_size, now_size;
    uint32_t *dirty; /* pages that differ */
    unsigned dirty_count;
    bool wanted; /* some name may lead to it */
};

struct cached {
    char name[PATH_MAX];
    unsigned char *bytes;
    size_t size;
};

struct power_capture {
    struct content file[POWER_FILES];
    uint32_t file_count;
    struct power_name base[POWER_LIVE]; /* names that are durable */
    struct power_op *op;                /* changes that are not */
    uint32_t op_count;
    struct cached cache[64];
    unsigned cache_count;
};

static void broken(const char *what)
{
    fprintf(stderr, "image: %s: %s\n", what, strerror(errno));
    abort();
}

/* ---- names ---- */

static void set_name(struct power_name *names, const char *name, uint32_t file)
{
    struct power_name *place = NULL;
    for (unsigned i = 0; i < POWER_LIVE; i++) {
        if (strcmp(names[i].name, name) == 0) {
            place = &names[i];
            break;
        }
        place = place == NULL && names[i].name[0] == '\0' ? &names[i] : place;
    }
    if (place == NULL) {
        errno = ENOSPC;
        broken("too many names");
    }
    snprintf(place->name, sizeof place->name, "%s", name);
    place->file = file;
}

static void drop_name(struct power_name *names, const char *name, uint32_t file)
{
    for (unsigned i = 0; i < POWER_LIVE; i++) {
        if (strcmp(names[i].name, name) == 0 && names[i].file == file) {
            names[i].name[0] = '\0';
        }
    }
}

/* As the file system would find it: what a change that did not happen would have made is not there. */
static void apply(struct power_name *names, const struct power_op *op)
{
    if (op->from[0] != '\0') {
        drop_name(names, op->from, op->file);
    }
    if (op->to[0] != '\0') {
        set_name(names, op->to, op->file);
    }
}

/* ---- capture ---- */

static void read_into(const char *path, unsigned char **bytes, size_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || (*bytes = malloc((size_t)st.st_size + 1)) == NULL) {
        broken(path);
    }
    ssize_t got = pread(fd, *bytes, (size_t)st.st_size, 0);
    *size = got > 0 ? (size_t)got : 0;
    (void)close(fd);
}

static void take_cached(struct power_capture *c, const char *dir, const char *name)
{
    char path[PATH_MAX];
    if (c->cache_count < BASE_COUNT(c->cache) && snprintf(path, sizeof path, "%s/%s", dir, name) < PATH_MAX) {
        struct cached *m = &c->cache[c->cache_count++];
        snprintf(m->name, sizeof m->name, "%s", name);
        read_into(path, &m->bytes, &m->size);
    }
}

static void take_now(struct power_capture *c, const struct power *p, const char *name, uint64_t ino)
{
    char path[PATH_MAX];
    for (uint32_t i = c->file_count; i-- > 0;) {
        if (p->file[i].ino == ino && c->file[i].wanted && c->file[i].now == NULL &&
            snprintf(path, sizeof path, "%s/%s", p->dir, name) < PATH_MAX) {
            read_into(path, &c->file[i].now, &c->file[i].now_size);
            return;
        }
    }
}

static void take_directory(struct power_capture *c, const struct power *p, const char *sub)
{
    char path[PATH_MAX], name[PATH_MAX];
    struct dirent *e;
    if (snprintf(path, sizeof path, "%s/%s", p->dir, sub) >= PATH_MAX) {
        return;
    }
    DIR *d = opendir(path);
    while (d != NULL && (e = readdir(d)) != NULL) {
        struct stat st;
        if (snprintf(name, sizeof name, "%s%s", sub, e->d_name) >= PATH_MAX ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (power_is_cache(name)) {
            take_cached(c, p->dir, name);
        } else {
            take_now(c, p, name, st.st_ino);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
}

static void resize(unsigned char **bytes, size_t from, size_t to)
{
    unsigned char *more = realloc(*bytes, to + 1);
    if (more == NULL) {
        broken("memory");
    }
    memset(more + from, 0, to - from);
    *bytes = more;
}

static void compare(struct content *f)
{
    size_t size = align_up(f->old_size > f->now_size ? f->old_size : f->now_size, POWER_PAGE);
    resize(&f->old, f->old_size, size);
    resize(&f->now, f->now_size, size);
    f->dirty = malloc((size / POWER_PAGE + 1) * sizeof *f->dirty);
    if (f->dirty == NULL) {
        broken("memory");
    }
    for (size_t at = 0; at < size; at += POWER_PAGE) {
        if (memcmp(f->old + at, f->now + at, POWER_PAGE) != 0) {
            f->dirty[f->dirty_count++] = (uint32_t)(at / POWER_PAGE);
        }
    }
}

/* The durable copy; and what the file was like at the end, where it has no name any more. */
static void take_stored(struct power_capture *c, const struct power *p, uint32_t i)
{
    char durable[PATH_MAX], frozen[PATH_MAX];
    struct content *f = &c->file[i];
    uint64_t was = atomic_load(&p->file[i].frozen_size);
    if (snprintf(durable, sizeof durable, "%s/%u.durable", p->store, i) >= PATH_MAX ||
        snprintf(frozen, sizeof frozen, "%s/%u.frozen", p->store, i) >= PATH_MAX) {
        return;
    }
    if (!f->wanted) { /* for good: nothing that is still to come can bring it back */
        (void)unlink(durable);
        (void)unlink(frozen);
        return;
    }
    if (p->file[i].stamp != 0) {
        size_t size = (size_t)atomic_load(&p->file[i].durable_size), got;
        read_into(durable, &f->old, &got);
        if (got < size) {
            resize(&f->old, got, size);
        }
        f->old_size = size;
    }
    if (f->now == NULL && was != 0) {
        read_into(frozen, &f->now, &f->now_size);
    } else if (f->now == NULL) { /* replaced by a rename: as it was synced */
        resize(&f->now, 0, f->old_size);
        if (f->old_size != 0) {
            memcpy(f->now, f->old, f->old_size);
        }
        f->now_size = f->old_size;
    }
    compare(f);
}

struct power_capture *power_capture(struct power *p)
{
    struct power_capture *c = calloc(1, sizeof *c);
    if (c == NULL) {
        broken("memory");
    }
    uint32_t count = atomic_load(&p->op_count), durable = atomic_load(&p->op_durable);
    c->file_count = atomic_load(&p->file_count);
    for (uint32_t i = 0; i < durable; i++) {
        apply(c->base, &p->op[i]);
    }
    c->op = p->op + durable;
    c->op_count = count - durable;
    for (unsigned i = 0; i < POWER_LIVE; i++) {
        if (c->base[i].name[0] != '\0') {
            c->file[c->base[i].file].wanted = true;
        }
    }
    for (uint32_t i = 0; i < c->op_count; i++) {
        c->file[c->op[i].file].wanted = true;
    }
    for (uint32_t i = 0; i < c->file_count; i++) { /* a change under way is about to name it */
        c->file[i].wanted = c->file[i].wanted || p->file[i].ino != 0;
    }
    take_directory(c, p, "");
    take_directory(c, p, "queue/");
    for (uint32_t i = 0; i < c->file_count; i++) {
        take_stored(c, p, i);
    }
    return c;
}

void power_release(struct power_capture *c)
{
    for (uint32_t i = 0; i < c->file_count; i++) {
        free(c->file[i].old);
        free(c->file[i].now);
        free(c->file[i].dirty);
    }
    for (unsigned i = 0; i < c->cache_count; i++) {
        free(c->cache[i].bytes);
    }
    free(c);
}

void power_uncertain(const struct power_capture *c, unsigned *pages, unsigned *names)
{
    *pages = 0;
    *names = c->op_count;
    for (uint32_t i = 0; i < c->file_count; i++) {
        *pages += c->file[i].dirty_count;
    }
}

/* ---- building ---- */

struct power_mood power_mood(uint64_t *seed)
{
    uint64_t r = prng_next(seed);
    struct power_mood m = {(enum power_names)(r % POWER_NAMES_COUNT),
                           (enum power_pages)(r / 16 % POWER_PAGES_COUNT), POWER_CACHE_GONE};
    if (r / 256 % 4 == 0) {
        m.cache = (enum power_cache)(r / 4096 % POWER_CACHE_COUNT);
    }
    return m;
}

static bool chance(uint64_t *seed, unsigned of_64)
{
    return prng_next(seed) / 256 % 64 < of_64;
}

static void choose_page(const struct content *f, size_t at, enum power_pages how, unsigned char *out,
                        uint64_t *seed)
{
    static const unsigned of_64[POWER_PAGES_COUNT] = {0, 64, 32, 60, 4, 32};
    if (how != POWER_PAGES_TORN || chance(seed, 40)) {
        memcpy(out + at, (chance(seed, of_64[how]) ? f->now : f->old) + at, POWER_PAGE);
        return;
    }
    for (size_t i = at; i < at + POWER_PAGE; i += POWER_SECTOR) {
        memcpy(out + i, (chance(seed, 32) ? f->now : f->old) + i, POWER_SECTOR);
    }
}

static size_t choose_size(const struct content *f, uint64_t *seed)
{
    size_t low = f->old_size < f->now_size ? f->old_size : f->now_size;
    size_t high = f->old_size < f->now_size ? f->now_size : f->old_size;
    uint64_t r = prng_next(seed);
    switch (r % 3) {
    case 0: return f->old_size;
    case 1: return f->now_size;
    default: return low + (size_t)(r / 8 % (high - low + 1));
    }
}

static int write_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -1;
    }
    ssize_t n = write(fd, bytes, size);
    return close(fd) == 0 && n == (ssize_t)size ? 0 : -1;
}

static int build_file(const struct content *f, enum power_pages how, uint64_t *seed, const char *path)
{
    size_t size = align_up(f->old_size > f->now_size ? f->old_size : f->now_size, POWER_PAGE);
    if (chance(seed, 16)) { /* not every file fares the same */
        how = (enum power_pages)(prng_next(seed) % POWER_PAGES_COUNT);
    }
    unsigned char *bytes = malloc(size + 1);
    if (bytes == NULL) {
        return -1;
    }
    memcpy(bytes, f->old, size);
    for (unsigned i = 0; i < f->dirty_count; i++) {
        choose_page(f, (size_t)f->dirty[i] * POWER_PAGE, how, bytes, seed);
    }
    int rc = write_file(path, bytes, choose_size(f, seed));
    free(bytes);
    return rc;
}

static void choose_names(const struct power_capture *c, enum power_names how, uint64_t *seed,
                         struct power_name names[POWER_LIVE])
{
    uint32_t first = c->op_count != 0 ? (uint32_t)(prng_next(seed) % (c->op_count + 1)) : 0;
    memcpy(names, c->base, sizeof c->base);
    for (uint32_t i = 0; i < c->op_count; i++) {
        bool happened = how == POWER_NAMES_ALL || (how == POWER_NAMES_FIRST && i < first) ||
                        (how == POWER_NAMES_SOME && chance(seed, 32));
        if (happened) {
            apply(names, &c->op[i]);
        }
    }
}

/* As after a real reboot: STATE says that it belongs here, but of another boot. */
static int forge_identity(const char *dir, const char *state)
{
    struct stat lock, self;
    char path[PATH_MAX];
    int fd = open(state, O_RDWR | O_CLOEXEC), rc = -1;
    if (snprintf(path, sizeof path, "%s/LOCK", dir) < PATH_MAX && write_file(path, "", 0) == 0 &&
        stat(path, &lock) == 0 && fd >= 0 && fstat(fd, &self) == 0) {
        uint64_t identity[4] = {lock.st_dev, lock.st_ino, self.st_dev, self.st_ino};
        unsigned char boot[16];
        rc = pwrite(fd, identity, sizeof identity, offsetof(struct state, lock_dev)) == sizeof identity &&
                     pread(fd, boot, sizeof boot, offsetof(struct state, boot)) == sizeof boot
                 ? 0
                 : -1;
        boot[7] ^= 0x10;
        rc = rc == 0 && pwrite(fd, boot, sizeof boot, offsetof(struct state, boot)) == sizeof boot ? 0 : -1;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return rc;
}

static int build_cache(const struct power_capture *c, enum power_cache how, uint64_t *seed, const char *dir)
{
    char path[PATH_MAX];
    int rc = 0;
    if (how == POWER_CACHE_GONE) {
        return 0;
    }
    if (snprintf(path, sizeof path, "%s/queue", dir) >= PATH_MAX || mkdir(path, 0700) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < c->cache_count && rc == 0; i++) {
        const struct cached *m = &c->cache[i];
        if (how == POWER_CACHE_NOISE && chance(seed, 16)) {
            continue;
        }
        rc = snprintf(path, sizeof path, "%s/%s", dir, m->name) < PATH_MAX
                 ? write_file(path, m->bytes, m->size)
                 : -1;
        if (rc == 0 && how == POWER_CACHE_NOISE && m->size != 0) {
            uint64_t noise[512];
            for (unsigned k = 0; k < BASE_COUNT(noise); k++) {
                noise[k] = prng_next(seed);
            }
            rc = write_file(path, noise, m->size < sizeof noise ? m->size : sizeof noise);
        }
        if (rc == 0 && how == POWER_CACHE_REBOOT && strcmp(m->name, STATE_NAME) == 0) {
            rc = forge_identity(dir, path);
        }
    }
    return rc;
}

int power_image(const struct power_capture *c, struct power_mood mood, uint64_t seed, const char *dir)
{
    static struct power_name names[POWER_LIVE];
    static char first[POWER_FILES][POWER_NAME]; /* of a file's names */
    char path[PATH_MAX], other[PATH_MAX];
    int rc = mkdir(dir, 0700);
    memset(first, 0, sizeof first);
    choose_names(c, mood.names, &seed, names);
    for (unsigned i = 0; i < POWER_LIVE && rc == 0; i++) {
        const struct power_name *n = &names[i];
        if (n->name[0] == '\0') {
            continue;
        }
        if (snprintf(path, sizeof path, "%s/%s", dir, n->name) >= PATH_MAX ||
            snprintf(other, sizeof other, "%s/%s", dir, first[n->file]) >= PATH_MAX) {
            return -1;
        }
        if (first[n->file][0] != '\0') {
            rc = link(other, path);
        } else {
            rc = build_file(&c->file[n->file], mood.pages, &seed, path);
            memcpy(first[n->file], n->name, sizeof n->name);
        }
    }
    return rc == 0 ? build_cache(c, mood.cache, &seed, dir) : rc;
}
