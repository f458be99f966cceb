/* fuzz_table.c - any bytes as a table file: opened, read in all ways, verified. Checksums are forged first
 * for half of the inputs, else nothing would ever come past them. */
#include "lib/tables.h"

#include "fuzz.h"

#define NUMBER 7u

static void write_table(int dir, const unsigned char *bytes, size_t size)
{
    char name[TABLE_NAME_SIZE];
    int fd;
    table_name(NUMBER, name);
    fuzz_must(os_unlink(dir, name) == SHALE_OK);
    fuzz_must(os_open(dir, name, O_RDWR | O_CREAT | O_EXCL, 0600, &fd) == SHALE_OK);
    fuzz_must(os_pwrite(fd, bytes, size, 0) == SHALE_OK);
    os_close(&fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int dir = fuzz_dirfd();
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
