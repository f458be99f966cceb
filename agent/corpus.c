/* corpus.c - real input: a file of stanzas, as Debian's package indices are. A stanza is a run of lines that
 * are not empty; its key is its fields Package and Version with a slash between, its value the whole stanza
 * as it stands. Where a key comes twice (a package in two archives), the first stands.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>

static int read_file(const char *name, struct buf *out)
{
    FILE *f = fopen(name, "re");
    size_t n = 1;
    int status = f != NULL ? SHALE_OK : err_sys("%s", name);
    while (status == SHALE_OK && n != 0) {
        status = buf_reserve(out, 1 << 20);
        n = status == SHALE_OK ? fread(out->data + out->size, 1, 1 << 20, f) : 0;
        out->size += n;
    }
    if (status == SHALE_OK && ferror(f)) {
        status = err_sys("%s", name);
    }
    if (f != NULL) {
        fclose(f);
    }
    return status;
}

static struct slice record_key(const struct record *r)
{
    return slice_make(r->key, r->keylen);
}

/* By key; of equal ones the first in the file. */
static int compare_records(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    int c = slice_compare(record_key(x), record_key(y));
    return c != 0 ? c : (x->val > y->val) - (x->val < y->val);
}

/* The line of a stanza that begins with name, behind it. */
static struct slice field(const struct record *r, const char *name)
{
    const unsigned char *p = r->val, *end = p + r->vallen;
    size_t n = strlen(name);
    while (p < end) {
        const unsigned char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop != NULL ? stop : end;
        if ((size_t)(stop - p) > n && memcmp(p, name, n) == 0) {
            return slice_make(p + n, (size_t)(stop - p) - n);
        }
        p = stop + 1;
    }
    return slice_make(p, 0);
}

/* Cuts the next stanza off, its last newline included. */
static bool next_stanza(const unsigned char **at, const unsigned char *end, struct record *r)
{
    const unsigned char *p = *at;
    while (p < end && *p == '\n') {
        p++;
    }
    const unsigned char *stop = p < end ? memmem(p, (size_t)(end - p), "\n\n", 2) : NULL;
    stop = stop != NULL ? stop + 1 : end;
    *r = (struct record){.val = p, .vallen = (size_t)(stop - p)};
    *at = stop;
    return r->vallen != 0;
}

static int add_record(struct corpus *c, struct record *r, size_t *cap, unsigned char **keys)
{
    struct slice package = field(r, "Package: "), version = field(r, "Version: ");
    if (package.size == 0 || version.size == 0) {
        return SHALE_OK;
    }
    if (c->count == *cap) {
        size_t more = *cap != 0 ? 2 * *cap : 4096;
        struct record *records = base_realloc(c->records, more * sizeof *records);
        if (records == NULL) {
            return SHALE_NOMEM;
        }
        c->records = records;
        *cap = more;
    }
    r->key = *keys;
    r->keylen = package.size + 1 + version.size;
    memcpy(*keys, package.data, package.size);
    (*keys)[package.size] = '/';
    memcpy(*keys + package.size + 1, version.data, version.size);
    *keys += r->keylen;
    c->records[c->count++] = *r;
    return SHALE_OK;
}

static void drop_repeats(struct corpus *c)
{
    size_t n = 0;
    qsort(c->records, c->count, sizeof *c->records, compare_records);
    for (size_t i = 0; i < c->count; i++) {
        if (n == 0 || !slice_equal(record_key(&c->records[n - 1]), record_key(&c->records[i]))) {
            c->records[n++] = c->records[i];
            c->bytes += c->records[i].keylen + c->records[i].vallen;
        }
    }
    c->count = n;
}

int corpus_read(struct corpus *c, const char *file)
{
    struct buf in = {0};
    struct record r;
    size_t cap = 0;
    int status = read_file(file, &in);
    c->file = in.data;
    /* A key is made of bytes of its stanza and a slash in place of a field's name: it all fits in as much
     * again. */
    c->keys = status == SHALE_OK ? base_alloc(in.size + 1) : NULL;
    if (c->keys == NULL) {
        fprintf(stderr, "shale-agent: %s\n", shale_errmsg());
        return EX_NOINPUT;
    }
    unsigned char *keys = c->keys;
    for (const unsigned char *at = in.data; status == SHALE_OK && next_stanza(&at, in.data + in.size, &r);) {
        status = add_record(c, &r, &cap, &keys);
    }
    if (status != SHALE_OK || c->count == 0) {
        fprintf(stderr, "shale-agent: %s: %s\n", file,
                status != SHALE_OK ? shale_errmsg() : "no stanzas in it");
        return status != SHALE_OK ? EX_OSERR : EX_DATAERR;
    }
    drop_repeats(c);
    return 0;
}

void corpus_release(struct corpus *c)
{
    free(c->records);
    free(c->keys);
    free(c->file);
    *c = (struct corpus){0};
}

size_t corpus_seek(const struct corpus *c, const void *key, size_t keylen)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (slice_compare(record_key(&c->records[middle]), slice_make(key, keylen)) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct record *corpus_find(const struct corpus *c, const void *key, size_t keylen)
{
    size_t i = corpus_seek(c, key, keylen);
    bool found = i < c->count && slice_equal(record_key(&c->records[i]), slice_make(key, keylen));
    return found ? &c->records[i] : NULL;
}
