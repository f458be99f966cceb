/* fuzz_table.c - any bytes as a table file: opened, read in all ways, verified. Checksums are forged first
 * for half of the inputs, else nothing would ever come past them.
 *
 * Built with -fsanitize=fuzzer it is a fuzzer; with -DFUZZ_MAIN a program that runs the files it is given, or
 * makes seeds: fuzz_table --seeds DIRECTORY. */
#include "lib/tables.h"

#include <stdio.h>
#include <stdlib.h>

#define NUMBER 7u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int rc, const char *what)
{
    if (rc != SHALE_OK) {
        (void)fprintf(stderr, "fuzz_table: %s: %s\n", what, shale_errmsg());
        abort();
    }
}

static char scratch[4096];

static void remove_scratch(void)
{
    (void)rmdir(scratch);
}

static int scratch_dirfd(void)
{
    static int dir = -1;
    if (dir < 0) {
        const char *tmp = getenv("TMPDIR");
        (void)snprintf(scratch, sizeof scratch, "%s/fuzz-table-XXXXXX", tmp != NULL ? tmp : "/dev/shm");
        if (mkdtemp(scratch) == NULL || atexit(remove_scratch) != 0) {
            perror(scratch);
            abort();
        }
        require(os_open_dir(scratch, &dir), "directory");
    }
    return dir;
}

static void write_table(int dir, const unsigned char *bytes, size_t size)
{
    char name[TABLE_NAME_SIZE];
    int fd;
    table_name(NUMBER, name);
    require(os_unlink(dir, name), "unlink");
    require(os_open(dir, name, O_RDWR | O_CREAT | O_EXCL, 0600, &fd), "create");
    require(os_pwrite(fd, bytes, size, 0), "write");
    os_close(&fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int dir = scratch_dirfd();
    if (size < 1) {
        return 0;
    }
    uint8_t how = data[size - 1]; /* part of the footer's checksum: free to say how where that is forged */
    unsigned char *bytes = malloc(size + 1);
    if (bytes == NULL) {
        return 0;
    }
    memcpy(bytes, data, size);
    if ((how & 1) == 0) {
        table_forge(bytes, size, NUMBER);
    }
    write_table(dir, bytes, size);
    free(bytes);
    struct cache *cache = (how & 2) != 0 ? cache_ref(1u << 20) : NULL;
    struct table *t;
    if (table_open(dir, NUMBER, 0, cache, (how & 4) == 0, &t) == SHALE_OK) {
        (void)table_exercise(t, how);
        table_unref(t);
    }
    cache_unref(cache);
    char name[TABLE_NAME_SIZE];
    table_name(NUMBER, name);
    (void)os_unlink(dir, name);
    return 0;
}

#ifdef FUZZ_MAIN
static int make_seeds(const char *path)
{
    int dir;
    require(os_open_dir(path, &dir), path);
    for (unsigned i = 0; i < TABLE_STYLES * 2; i++) {
        struct table_options o = {
            .block_bytes = 256, .bloom_bits = i % 3 * 5, .lz4 = i % 2 == 0, .mode = 0600};
        struct table_rows rows;
        struct table_info info;
        table_rows_make(&rows, i / 2, 20, i);
        require(table_rows_build(&rows, dir, i, &o, &info), "build");
        table_info_release(&info);
        table_rows_release(&rows);
    }
    os_close(&dir);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        return make_seeds(argv[2]);
    }
    for (int i = 1; i < argc; i++) {
        struct buf bytes = {NULL, 0, 0};
        require(os_read_file(AT_FDCWD, argv[i], 64u << 20, &bytes), argv[i]);
        (void)LLVMFuzzerTestOneInput(bytes.data, bytes.size);
        buf_release(&bytes);
    }
    return EXIT_SUCCESS;
}
#endif
