/* bench_table.c - how fast tables are built and read: one thread, keys of 16 bytes, values of 100 that
 * compress by half. Processor time, so that what else the machine does counts little. bench_table [entries]
 * [directory]; prints a line a figure. */
#include "table/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEY_SIZE   16u
#define VALUE_SIZE 100u

struct bench {
    int dir;
    uint64_t entries;
    uint64_t number; /* of the next table */
    struct cache *cache;
    struct table_counters counters;
};

static void require(int rc, const char *what)
{
    if (rc != SHALE_OK) {
        (void)fprintf(stderr, "bench_table: %s: %s: %s\n", what, shale_strerror(rc), shale_errmsg());
        exit(EXIT_FAILURE);
    }
}

/* Processor time: what a busy machine does beside does not count. */
static int64_t cpu_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double seconds_since(int64_t start)
{
    return (double)(cpu_now() - start) / 1e9;
}

static struct slice make_key(uint64_t i, char key[KEY_SIZE + 1])
{
    (void)snprintf(key, KEY_SIZE + 1, "%016llx", (unsigned long long)(i * 37));
    return slice_make(key, KEY_SIZE);
}

static void make_value(uint64_t i, unsigned char value[VALUE_SIZE])
{
    uint64_t state = i;
    for (size_t k = 0; k < VALUE_SIZE / 2; k++) {
        value[k] = (unsigned char)prng_next(&state);
    }
    memset(value + VALUE_SIZE / 2, 'a' + (int)(i % 16), VALUE_SIZE / 2);
}

static struct table *build(struct bench *b, bool lz4)
{
    struct table_options o = {.block_bytes = 4096, .bloom_bits = 10, .lz4 = lz4, .mode = 0600};
    struct table_builder *builder;
    struct table_info info;
    struct table *t;
    uint64_t number = b->number++;
    unsigned char value[VALUE_SIZE];
    char key[KEY_SIZE + 1];
    int64_t making = cpu_now();
    for (uint64_t i = 0; i < b->entries; i++) {
        (void)make_key(i, key);
        make_value(i, value);
    }
    making = cpu_now() - making;

    int64_t start = cpu_now(), begun = os_now();
    require(table_build_start(b->dir, number, &o, &builder), "start");
    for (uint64_t i = 0; i < b->entries; i++) {
        make_value(i, value);
        require(table_build_add(builder, make_key(i, key), i + 1, TABLE_PUT, slice_make(value, VALUE_SIZE)),
                "add");
    }
    double added = (double)(cpu_now() - start - making) / 1e9;
    require(table_build_finish(builder, &info), "finish");
    double all = (double)(os_now() - begun - making) / 1e9;
    double mb = (double)info.raw_bytes / 1e6;
    printf("build %-3s      %7.0f MB/s; %5.0f MB/s by the clock, with the fsync; %.1f of %.1f MB\n",
           lz4 ? "lz4" : "raw", mb / added, mb / all, (double)info.size / 1e6, mb);
    start = cpu_now();
    require(table_open(b->dir, number, info.size, b->cache, true, &t), "open");
    printf("open           %7.0f us\n", seconds_since(start) * 1e6);
    table_info_release(&info);
    return t;
}

static void get(struct bench *b, struct table *t, const char *what, bool present)
{
    uint64_t state = 42, found = 0, n = 1000000;
    int64_t start = cpu_now();
    for (uint64_t i = 0; i < n; i++) {
        char text[KEY_SIZE + 1];
        struct slice key = make_key(prng_next(&state) % b->entries, text);
        struct table_hit hit;
        struct table_pin pin = {NULL, NULL};
        text[KEY_SIZE - 1] = present ? text[KEY_SIZE - 1] : 'x';
        int rc = table_get(t, key, key_hash(key), &b->counters, &hit, &pin);
        if (rc == SHALE_OK) {
            found++;
            table_pin_release(&pin);
        } else if (rc != SHALE_NOTFOUND) {
            require(rc, "get");
        }
    }
    double each = seconds_since(start) / (double)n * 1e9;
    start = cpu_now();
    uint64_t sink = 0;
    for (uint64_t i = 0; i < n; i++) {
        char text[KEY_SIZE + 1];
        sink += (uint64_t)make_key(prng_next(&state) % b->entries, text).data[KEY_SIZE - 1];
    }
    double making = seconds_since(start) / (double)n * 1e9;
    printf("%-14s %7.0f ns a get (key making, %.0f ns, taken off), %llu of %llu found%s\n", what,
           each - making, making, (unsigned long long)found, (unsigned long long)n, sink == 0 ? " " : "");
}

static void scan(struct bench *b, struct table *t, const char *what, bool forward, bool fill, bool sequential)
{
    struct table_iter it;
    uint64_t n = 0, sum = 0;
    int64_t start = cpu_now();
    table_iter_init(&it, t, &b->counters);
    it.fill_cache = fill;
    it.sequential = sequential;
    int rc = forward ? table_iter_first(&it) : table_iter_last(&it);
    while (rc == SHALE_OK) {
        sum += it.key.data[it.key.size - 1] + it.value.data[0];
        n++;
        rc = forward ? table_iter_next(&it) : table_iter_prev(&it);
    }
    table_iter_release(&it);
    if (rc != SHALE_NOTFOUND || n != b->entries || sum == 0) {
        require(rc == SHALE_NOTFOUND ? SHALE_CORRUPT : rc, what);
    }
    printf("%-26s %6.1f M entries/s\n", what, (double)n / seconds_since(start) / 1e6);
}

static void verify(struct table *t)
{
    int64_t start = cpu_now();
    require(table_verify(t, NULL, NULL), "verify");
    printf("verify         %7.0f MB/s of the file\n",
           (double)table_properties(t)->size / seconds_since(start) / 1e6);
}

static void run(struct bench *b, bool lz4)
{
    struct table *t = build(b, lz4);
    scan(b, t, "first scan", true, false, false);
    scan(b, t, "scan", true, false, false);
    scan(b, t, "scan through the cache", true, true, false);
    scan(b, t, "scan, cached", true, true, false);
    scan(b, t, "scan backward", false, false, false);
    scan(b, t, "scan, sequential mode", true, false, true);
    get(b, t, "get", true);
    get(b, t, "get, cached", true);
    get(b, t, "get, missing", false);
    verify(t);
    char name[TABLE_NAME_SIZE];
    table_name(table_number(t), name);
    require(os_unlink(b->dir, name), "unlink");
    table_unref(t);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/bench-table-XXXXXX";
    bool own = argc < 3;
    struct bench b = {.entries = argc > 1 ? strtoull(argv[1], NULL, 10) : 2000000, .number = 1};
    if (own && mkdtemp(dir) == NULL) {
        perror("mkdtemp");
        return EXIT_FAILURE;
    }
    require(os_open_dir(own ? dir : argv[2], &b.dir), "directory");
    b.cache = cache_ref((size_t)1 << 30);
    run(&b, false);
    run(&b, true);
    cache_unref(b.cache);
    os_close(&b.dir);
    if (own) {
        (void)rmdir(dir);
    }
    return EXIT_SUCCESS;
}
