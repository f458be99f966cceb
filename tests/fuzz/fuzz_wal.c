/* fuzz_wal.c - any bytes as a segment's content, any bytes as a payload, any bytes as an index.
 *
 * The input's first byte says which. A segment of bytes must be walked without a read out of bounds; a record
 * among them whose checksum is made to fit must be taken apart, and indexed, just as safely; an index of
 * bytes must give misses or SHALE_CORRUPT.
 */
#include "mem/mem.h"

#include "fuzz.h"

#define SIZE (64u << 10)

/* A segment in plain memory, which ends where the mapping would: a sanitizer sees every byte beyond. Its salt
 * depends on every byte: a fuzzer that sees what a checksum is compared with, and writes it there, has not
 * sealed anything. */
static struct wal_segment segment_of(const uint8_t *data, size_t size)
{
    struct wal_segment seg = {
        .refs = 1, .number = 3, .salt = checksum(data, size, 99), .size = SIZE, .fd = -1, .writable = true};
    seg.map = calloc(1, SIZE);
    if (seg.map == NULL) {
        abort();
    }
    memcpy(seg.map + WAL_FIRST, data, size < SIZE - WAL_FIRST ? size : SIZE - WAL_FIRST);
    return seg;
}

static void walk(const struct wal_segment *seg)
{
    struct wal_view rec;
    for (uint32_t at = 0; at < SIZE; at += 4) {
        if (wal_read(seg, at, &rec) == SHALE_OK) {
            abort(); /* nobody has ever sealed it */
        }
    }
}

/* Gives the first record the checksum that it lacks. */
static void forge(struct wal_segment *seg, struct mem_index *mem)
{
    struct wal_record h;
    struct wal_view rec;
    struct wal_entry e;
    uint32_t pos = 0;
    memcpy(&h, seg->map + WAL_FIRST, sizeof h);
    h.length %= SIZE - WAL_FIRST - (uint32_t)sizeof h;
    h.count %= 4096;
    wal_seal(seg, WAL_FIRST, h.count, h.first_seq, seg->map + WAL_FIRST + sizeof h, h.length, &h);
    memcpy(seg->map + WAL_FIRST, &h, sizeof h);
    if (wal_read(seg, WAL_FIRST, &rec) != SHALE_OK) {
        return;
    }
    while (wal_next_entry(rec.payload, &pos, &e) == SHALE_OK) {
    }
    if (mem_insert_record(mem, &rec) == SHALE_OK && mem_insert_record(mem, &rec) != SHALE_OK) {
        abort(); /* once more changes nothing */
    }
    if (mem_check(mem) != SHALE_OK) {
        abort();
    }
}

static void use(struct mem_index *mem, struct slice key)
{
    struct mem_iter it;
    struct mem_hit hit;
    (void)mem_get(mem, key, key.size, &hit);
    (void)mem_check(mem);
    mem_iter_init(&it, mem, UINT64_MAX >> 8);
    for (int rc = mem_iter_first(&it); rc == SHALE_OK;) {
        rc = mem_iter_next(&it);
    }
    for (int rc = mem_iter_last(&it); rc == SHALE_OK;) {
        rc = mem_iter_prev(&it);
    }
    (void)mem_iter_seek(&it, key);
    (void)mem_iter_seek_for_prev(&it, key);
    (void)mem_insert(mem, key, 1 + key.size, WAL_FIRST);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mem_index *mem = NULL;
    if (size == 0) {
        return 0;
    }
    struct wal_segment seg = segment_of(data + 1, size - 1);
    if (mem_open_private(&seg, &mem) != SHALE_OK) {
        abort();
    }
    if (data[0] % 3 == 0) {
        walk(&seg);
    } else if (data[0] % 3 == 1) {
        forge(&seg, mem);
    } else {
        size_t n = size - 1 < SIZE ? size - 1 : SIZE;
        memcpy(mem->arena + 64, data + 1, n); /* behind the fixed part of its header */
        use(mem, slice_make(data + 1, n / 2 < 65535 ? n / 2 : 65535));
    }
    mem_unref(mem);
    free(seg.map);
    return 0;
}
