/* bench_mem.c - nanoseconds for each insert, get and step of the memtable.
 *
 *   bench_mem [ENTRIES...]     default: 100000 450000
 *
 * The record is written to the log beforehand, so that only the index is measured. Keys have 16 bytes: random
 * ones, ascending ones, and decimal ones, whose first 8 bytes are nearly all the same. Every figure is CPU
 * time, the best of three rounds.
 */
#include "mem/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEY    16u
#define VALUE  100u
#define ROUNDS 3

enum shape { RANDOM, ASCENDING, DECIMAL, SHAPES };
static const char *const shape_names[SHAPES] = {"random", "ascending", "decimal"};

static void must(int rc, const char *what)
{
    if (rc != SHALE_OK) {
        (void)fprintf(stderr, "bench_mem: %s: %s\n", what, shale_errmsg());
        exit(71);
    }
}

static void make_key(enum shape shape, uint64_t i, unsigned char key[KEY + 1])
{
    uint64_t state = i * 7919 + 1;
    uint64_t r = prng_next(&state);
    if (shape == DECIMAL) {
        (void)snprintf((char *)key, KEY + 1, "%016llu", (unsigned long long)(r % 100000000));
        return;
    }
    put_u64(key, shape == RANDOM ? r : __builtin_bswap64(i));
    put_u64(key + 8, prng_next(&state));
}

struct bench {
    int dirfd;
    uint64_t count;
    struct wal_segment *seg;
    struct mem_index *mem;
    uint32_t *offsets;
};

static void append_all(struct bench *b, enum shape shape)
{
    static const unsigned char value[VALUE];
    uint32_t at = WAL_FIRST;
    for (uint64_t i = 0; i < b->count; i++) {
        unsigned char key[KEY + 1];
        struct buf payload = {0};
        struct wal_record header;
        make_key(shape, i, key);
        must(wal_add_entry(&payload, WAL_PUT, slice_make(key, KEY), slice_make(value, VALUE)), "entry");
        wal_seal(b->seg, at, 1, i + 1, payload.data, (uint32_t)payload.size, &header);
        must(wal_append(b->seg, at, &header, payload.data, false), "append");
        b->offsets[i] = at + (uint32_t)sizeof header;
        at += (uint32_t)wal_record_size(payload.size);
        buf_release(&payload);
    }
}

/* This thread's own CPU time: what others do to a shared machine shows in the caches only. */
static int64_t cpu_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double each(int64_t start, uint64_t count)
{
    return (double)(cpu_now() - start) / (double)count;
}

static double run_inserts(struct bench *b, enum shape shape)
{
    int64_t start = cpu_now();
    for (uint64_t i = 0; i < b->count; i++) {
        unsigned char key[KEY + 1];
        make_key(shape, i, key);
        must(mem_insert(b->mem, slice_make(key, KEY), i + 1, b->offsets[i]), "insert");
    }
    return each(start, b->count);
}

static double run_gets(struct bench *b, enum shape shape)
{
    uint64_t state = 99;
    int64_t start = cpu_now();
    for (uint64_t i = 0; i < b->count; i++) {
        unsigned char key[KEY + 1];
        struct mem_hit hit;
        make_key(shape, prng_next(&state) % b->count, key);
        must(mem_get(b->mem, slice_make(key, KEY), UINT64_MAX >> 8, &hit), "get");
    }
    return each(start, b->count);
}

static double run_overwrites(struct bench *b, enum shape shape)
{
    uint64_t state = 5, count = b->count / 4;
    int64_t start = cpu_now();
    for (uint64_t i = 0; i < count; i++) {
        unsigned char key[KEY + 1];
        uint64_t which = prng_next(&state) % b->count;
        make_key(shape, which, key);
        must(mem_insert(b->mem, slice_make(key, KEY), b->count + i + 1, b->offsets[which]), "overwrite");
    }
    return each(start, count);
}

static double run_walk(struct bench *b, bool backward)
{
    struct mem_iter it;
    uint64_t n = 0;
    int64_t start = cpu_now();
    mem_iter_init(&it, b->mem, UINT64_MAX >> 8);
    int rc = backward ? mem_iter_last(&it) : mem_iter_first(&it);
    for (; rc == SHALE_OK; n++) {
        rc = backward ? mem_iter_prev(&it) : mem_iter_next(&it);
    }
    return each(start, n);
}

static void round_of(struct bench *b, enum shape shape, double best[5])
{
    unsigned char uuid[16] = {0};
    uint64_t size = align_up(WAL_FIRST + b->count * 144 + 4096, 4096);
    must(wal_make(b->dirfd, uuid, 1, size, 0600, 0), "make");
    must(wal_open(b->dirfd, uuid, 1, true, &b->seg), "open");
    append_all(b, shape);
    must(mem_make(b->dirfd, b->seg, 0600), "make index");
    must(mem_open(b->dirfd, b->seg, true, &b->mem), "open index");
    double now[5] = {run_inserts(b, shape), run_gets(b, shape), run_walk(b, false), run_walk(b, true),
                     run_overwrites(b, shape)};
    for (int i = 0; i < 5; i++) {
        best[i] = best[i] == 0 || now[i] < best[i] ? now[i] : best[i];
    }
    mem_unref(b->mem);
    wal_unref(b->seg);
    must(os_unlink(b->dirfd, "000001.wal"), "unlink");
    must(os_unlink(b->dirfd, "000001.mem"), "unlink");
}

static void run(int dirfd, uint64_t count)
{
    struct bench b = {.dirfd = dirfd, .count = count, .offsets = base_calloc(count, sizeof(uint32_t))};
    if (b.offsets == NULL) {
        must(SHALE_NOMEM, "offsets");
    }
    for (enum shape shape = RANDOM; shape < SHAPES; shape++) {
        double best[5] = {0};
        for (int i = 0; i < ROUNDS; i++) {
            round_of(&b, shape, best);
        }
        (void)printf("%8llu %-10s insert %6.0f  get %6.0f  next %5.0f  prev %6.0f  overwrite %6.0f  ns\n",
                     (unsigned long long)count, shape_names[shape], best[0], best[1], best[2], best[3],
                     best[4]);
    }
    free(b.offsets);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/bench_mem.XXXXXX";
    int dirfd = -1;
    if (mkdtemp(dir) == NULL) {
        perror("bench_mem: mkdtemp");
        return 71;
    }
    must(os_open_dir(dir, &dirfd), "directory");
    for (int i = 1; i < argc; i++) {
        run(dirfd, strtoull(argv[i], NULL, 10));
    }
    if (argc < 2) {
        run(dirfd, 100000);
        run(dirfd, 450000);
    }
    os_close(&dirfd);
    (void)rmdir(dir);
    return 0;
}
