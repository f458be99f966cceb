/* fuzz_manifest.c - manifests, CURRENT and STATE made of arbitrary bytes.
 *
 * The first byte chooses: the bytes as a manifest file as they are; as records that are given right
 * checksums, so that what is behind them is reached; as CURRENT; as STATE. What loads must be sound, print,
 * and survive being written whole.
 */
#include "version/manifest.h"

#include "fuzz.h"

static int dirfd = -1;

static void put_file(const char *name, const void *data, size_t size)
{
    int fd = -1;
    fuzz_must(os_open(dirfd, name, O_RDWR | O_CREAT, 0600, &fd) == SHALE_OK);
    fuzz_must(os_truncate(fd, 0) == SHALE_OK);
    fuzz_must(size == 0 || os_pwrite(fd, data, size, 0) == SHALE_OK);
    os_close(&fd);
}

static char *printed(const struct version *v)
{
    struct buf out = {0};
    fuzz_must(version_print(v, &out) == SHALE_OK && buf_append(&out, "", 1) == SHALE_OK);
    char *end = strchr((char *)out.data, '\n'); /* the first line begins with the file's name and length */
    char *comma = strchr((char *)out.data, ',');
    fuzz_must(end != NULL && comma != NULL && comma < end);
    char *text = strdup(comma);
    buf_release(&out);
    fuzz_must(text != NULL);
    return text;
}

/* Written whole and read back it is the same. */
static void round_trip(struct version *v)
{
    struct version *again = NULL;
    uint64_t length;
    (void)os_unlink(dirfd, CURRENT_NAME);
    fuzz_must(manifest_create(dirfd, 2, v, 0600, &length) == SHALE_OK);
    fuzz_must(manifest_load(dirfd, 2, length, &again) == SHALE_OK);
    char *a = printed(v), *b = printed(again);
    fuzz_must(strcmp(a, b) == 0);
    free(a);
    free(b);
    version_unref(again);
}

static void load(uint64_t length)
{
    struct version *v = NULL;
    int st = manifest_load(dirfd, 1, length, &v);
    fuzz_must(st == SHALE_OK || st == SHALE_CORRUPT || st == SHALE_MISMATCH);
    if (st == SHALE_OK) {
        uint32_t first, count;
        fuzz_must(version_check(v) == SHALE_OK);
        for (unsigned level = 0; level < VERSION_LEVELS; level++) {
            version_overlap(v, level, slice_make("k", 1), slice_make("m", 1), &first, &count);
            fuzz_must(first <= v->level[level].count && count <= v->level[level].count - first);
            (void)(level > 0 ? version_find(v, level, slice_make("key", 3)) : NULL);
        }
        round_trip(v);
    }
    version_unref(v);
}

/* Sound header, then records of the bytes: {length 12 bits, kind 4 bits, payload}. based: a sound first
 * record too. */
static void forge(const uint8_t *data, size_t size, bool based)
{
    struct version empty = {.uuid = "0123456789abcde", .oldest = 1, .next_table = 1};
    struct manifest_header h;
    struct buf file = {0};
    empty.options = (struct version_options){4096, 1 << 20, 10, SHALE_COMPRESS_LZ4, 10, "bytes"};
    manifest_make_header(&empty, 1, &h);
    fuzz_must(buf_append(&file, &h, sizeof h) == SHALE_OK);
    if (based) {
        size_t at;
        fuzz_must(manifest_begin_record(&file, &at) == SHALE_OK &&
                  manifest_put_version(&file, &empty) == SHALE_OK);
        fuzz_must(manifest_seal_record(&file, at, MANIFEST_WHOLE, 1, sizeof h) == SHALE_OK);
    }
    while (size >= 3) {
        size_t at, offset = file.size, length = (size_t)data[0] | ((size_t)(data[1] & 15) << 8);
        uint32_t kind = data[1] >> 4;
        length = length < size - 2 ? length : size - 2;
        fuzz_must(manifest_begin_record(&file, &at) == SHALE_OK);
        fuzz_must(buf_append(&file, data + 2, length) == SHALE_OK);
        fuzz_must(manifest_seal_record(&file, at, kind, 1, offset) == SHALE_OK);
        data += 2 + length;
        size -= 2 + length;
    }
    put_file("MANIFEST-000001", file.data, file.size);
    load(file.size);
    load(UINT64_MAX);
    buf_release(&file);
}

static void look_at_state(const uint8_t *data, size_t size)
{
    static struct state s;
    struct state_map m = {.state = &s, .writable = true, .dev = 1, .ino = 2};
    struct stat lock = {.st_ino = 3};
    struct state_view t;
    struct state_totals totals;
    memset(&s, 0, sizeof s);
    memcpy(&s, data, size < sizeof s ? size : sizeof s);
    int st = state_check(&m, &lock);
    fuzz_must(st == SHALE_OK || st == SHALE_NOTFOUND || st == SHALE_MISMATCH);
    state_load_tuple(&s, &t);
    state_sum(&s, &totals);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t number;
    dirfd = fuzz_dirfd();
    if (size == 0) {
        return 0;
    }
    data++;
    size--;
    switch (data[-1] % 5) {
    case 0:
        put_file("MANIFEST-000001", data, size);
        load(size);
        load(UINT64_MAX);
        break;
    case 1: forge(data, size, false); break;
    case 2:
        put_file(CURRENT_NAME, data, size);
        (void)current_read(dirfd, &number);
        break;
    case 3: forge(data, size, true); break;
    default: look_at_state(data, size); break;
    }
    return 0;
}
