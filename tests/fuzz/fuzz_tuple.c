/* fuzz_tuple.c - any bytes as a packed tuple, and as the text of one.
 *
 * Bytes: an error, or a tuple that reads element by element to its end, whose text is packed as the same
 * bytes again. Text: an error within it, or a tuple whose own text means the same.
 */
#include "fuzz.h"

/* The text of packed bytes, or NULL where they are none. */
static char *text_of(const void *packed, size_t len)
{
    size_t need = 0;
    int rc = shale_tuple_format(packed, len, NULL, 0, &need);
    if (rc == SHALE_CORRUPT) {
        return NULL;
    }
    fuzz_must(rc == SHALE_TOOBIG);
    char *text = malloc(need + 1);
    fuzz_must(text != NULL && shale_tuple_format(packed, len, text, need + 1, NULL) == SHALE_OK &&
              strlen(text) == need);
    return text;
}

static shale_tuple *parsed(const char *text)
{
    shale_tuple *t = NULL;
    fuzz_must(shale_tuple_create(&t) == SHALE_OK && shale_tuple_parse(text, t, NULL) == SHALE_OK);
    return t;
}

/* Every element, and every nested one to some depth; whether all were well. */
static bool read_all(const void *packed, size_t len, unsigned depth)
{
    shale_tuple_reader *r = NULL;
    shale_element e = {.size = sizeof e};
    fuzz_must(shale_tuple_reader_create(packed, len, &r) == SHALE_OK);
    int rc;
    while ((rc = shale_tuple_read(r, &e)) == SHALE_OK) {
        fuzz_must(e.type >= SHALE_TYPE_NULL && e.type <= SHALE_TYPE_VERSIONSTAMP && e.len <= len);
        if (e.type == SHALE_TYPE_NESTED && depth != 0) {
            fuzz_must(read_all(e.data, e.len, depth - 1)); /* the outer reader has checked it */
        }
    }
    fuzz_must(rc == SHALE_NOTFOUND || rc == SHALE_CORRUPT);
    shale_tuple_reader_destroy(r);
    return rc == SHALE_NOTFOUND;
}

/* The two encodings that are read and not written. */
static bool has_long_form(const void *packed, size_t len)
{
    return memmem(packed, len, "\035\010\377\377\377\377\377\377\377\377", 10) != NULL ||
           memmem(packed, len, "\013\367\0\0\0\0\0\0\0\0", 10) != NULL;
}

static void as_bytes(const uint8_t *data, size_t size)
{
    char *text = text_of(data, size);
    fuzz_must(read_all(data, size, 16) == (text != NULL));
    if (text != NULL) {
        size_t len;
        shale_tuple *t = parsed(text);
        const void *again = shale_tuple_data(t, &len);
        fuzz_must((len == size && (size == 0 || memcmp(again, data, size) == 0)) ||
                  has_long_form(data, size));
        shale_tuple_destroy(t);
        free(text);
    }
}

static void as_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    size_t at = SIZE_MAX, len, again;
    shale_tuple *t = NULL;
    fuzz_must(text != NULL && shale_tuple_create(&t) == SHALE_OK);
    if (size != 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    if (shale_tuple_parse(text, t, &at) == SHALE_OK) {
        const void *packed = shale_tuple_data(t, &len);
        char *printed = text_of(packed, len);
        fuzz_must(printed != NULL && read_all(packed, len, 16));
        shale_tuple *u = parsed(printed);
        const void *same = shale_tuple_data(u, &again);
        fuzz_must(again == len && memcmp(same, packed, len) == 0);
        shale_tuple_destroy(u);
        free(printed);
    } else {
        fuzz_must(at <= size);
    }
    shale_tuple_destroy(t);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_bytes(data, size);
    as_text(data, size);
    return 0;
}
