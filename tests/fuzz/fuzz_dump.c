/* fuzz_dump.c - arbitrary bytes as a dump: an error or records, never a crash; and what was read is written
 * and read again the same, in both formats. */
#include "../../tools/dumpfile.h"
#include "fuzz.h"

static FILE *open_bytes(const void *data, size_t size)
{
    /* Reading mode: the buffer isn't written to. */
    FILE *f = size != 0 ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;
    return f;
}

static void check_again(bool print, const struct text *key, const struct text *val)
{
    struct text scratch = {0}, key2 = {0}, val2 = {0};
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);
    dump_write_header(f, print, print ? 1 << 20 : 0);
    dump_write_item(f, print, key->data, key->size, &scratch);
    dump_write_item(f, print, val->data, val->size, &scratch);
    dump_write_end(f);
    fclose(f);
    struct dump_reader r = {.file = open_bytes(out, size)};
    if (dump_read_header(&r) != DUMP_MORE || dump_read_pair(&r, &key2, &val2) != DUMP_MORE ||
        key2.size != key->size || val2.size != val->size ||
        (key->size != 0 && memcmp(key2.data, key->data, key->size) != 0) ||
        (val->size != 0 && memcmp(val2.data, val->data, val->size) != 0) ||
        dump_read_pair(&r, &key2, &val2) != DUMP_END) {
        abort();
    }
    fclose(r.file);
    dump_reader_release(&r);
    text_release(&scratch);
    text_release(&key2);
    text_release(&val2);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dump_reader r = {.file = open_bytes(data, size)};
    struct text key = {0}, val = {0}, text = {0};
    if (r.file == NULL) {
        return 0;
    }
    int got = dump_read_header(&r);
    for (int n = 0; got == DUMP_MORE && n < 64; n++) {
        got = dump_read_pair(&r, &key, &val);
        if (got == DUMP_MORE) {
            check_again(n % 2 == 0, &key, &val);
        }
    }
    if (got == DUMP_BAD && r.error[0] == '\0') {
        abort();
    }
    text_json(&text, data, size);
    text_escape(&text, data, size);
    text_release(&text);
    text_release(&key);
    text_release(&val);
    dump_reader_release(&r);
    fclose(r.file);
    return 0;
}
