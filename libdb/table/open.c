/* open.c - opening a table: the footer with pread, then the mapping and what stands behind the data.
 *
 * Properties and the sums of filter and index are verified here; filter, index and data blocks wait until
 * somebody wants them. Where no mapping can be had (map count exhausted) all that is behind the data is
 * read into memory and verified, the descriptor stays open, and data blocks are read with pread, through
 * the cache.
 */
#include "table/read.h"

#include <stdlib.h>

static int damaged_file(const struct table *t, const char *what)
{
    return err_set(SHALE_CORRUPT, "%s: %s", t->name, what);
}

static int read_exactly(const struct table *t, int fd, void *buf, size_t size, uint64_t offset)
{
    size_t got;
    int rc = os_pread(fd, buf, size, offset, &got);
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", t->name);
    }
    return got == size ? SHALE_OK : damaged_file(t, "the file ends early");
}

static int check_size(struct table *t, const struct stat *st, uint64_t size)
{
    t->size = (uint64_t)st->st_size;
    t->dev = st->st_dev;
    t->ino = st->st_ino;
    t->owner = st->st_uid;
    if (size != 0 && size != t->size) {
        return err_set(SHALE_CORRUPT, "%s: %llu bytes long, should be %llu", t->name,
                       (unsigned long long)t->size, (unsigned long long)size);
    }
    return t->size >= sizeof(struct table_footer) ? SHALE_OK : damaged_file(t, "too short for a table");
}

static int check_footer(struct table *t, int fd)
{
    struct table_footer *f = &t->footer;
    int rc = read_exactly(t, fd, f, sizeof *f, t->size - sizeof *f);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (f->magic != TABLE_MAGIC || f->checksum != table_footer_checksum(f)) {
        return damaged_file(t, f->magic != TABLE_MAGIC ? "no table: wrong magic number in the footer"
                                                       : "footer: checksum mismatch");
    }
    if (f->format != TABLE_FORMAT || (f->incompat & ~TABLE_INCOMPAT) != 0) {
        return err_set(SHALE_MISMATCH,
                       "%s: format %u with features %#llx; this library reads "
                       "format %u, features %#llx",
                       t->name, f->format, (unsigned long long)f->incompat, TABLE_FORMAT,
                       (unsigned long long)TABLE_INCOMPAT);
    }
    if (f->number != t->number) {
        return err_set(SHALE_CORRUPT, "%s: the file is table %llu", t->name, (unsigned long long)f->number);
    }
    if (f->file_size != t->size || !table_layout(f, t->size, &t->at)) {
        return damaged_file(t, "footer: sizes do not add up");
    }
    return SHALE_OK;
}

/* The mapping, or else the file's end in memory; a table must be readable even when a process has too many
 * mappings. */
static int take_end(struct table *t, int *fd)
{
    size_t size = (size_t)(t->size - t->footer.data_size);
    void *map;
    if (os_map(*fd, (size_t)t->size, false, &map) == SHALE_OK) {
        t->map = map;
        t->end = t->map + t->footer.data_size;
        int rc = faults_init(&t->faults, t->map, t->size, os_told_resident(t->dirfd, t->name, t->owner));
        if (rc == SHALE_OK) {
            rc = faults_need(&t->faults, t->at.sums, t->size);
        }
        return rc == SHALE_OK ? rc : err_wrap(rc, "%s: properties", t->name);
    }
    err_clear();
    t->fd = *fd;
    *fd = -1;
    t->end = base_alloc(size);
    return t->end != NULL ? read_exactly(t, t->fd, t->end, size, t->footer.data_size) : SHALE_NOMEM;
}

static int check_section(const struct table *t, uint64_t offset, uint64_t size, enum table_kind kind,
                         const char *what)
{
    int rc =
        table_unseal(t->end + (offset - t->footer.data_size), size, size, kind, TABLE_RAW, t->number, offset);
    return rc == SHALE_OK ? rc : err_wrap(rc, "%s: %s at %llu", t->name, what, (unsigned long long)offset);
}

/* Bits for the tail's pages; without a mapping all of them are verified now. */
static int open_tail(struct table *t)
{
    size_t words = ((size_t)t->at.pages + 63) / 64;
    t->tail = (struct table_tail){.bytes = t->end,
                                  .from = t->footer.data_size,
                                  .to = t->at.sums,
                                  .sums = t->end + (t->at.sums - t->footer.data_size),
                                  .ready = base_calloc(words, sizeof *t->tail.ready),
                                  .faults = &t->faults,
                                  .verify = t->verify,
                                  .number = t->number,
                                  .name = t->name};
    int rc = t->tail.ready != NULL ? SHALE_OK : SHALE_NOMEM;
    for (uint64_t i = 0; t->map == NULL && rc == SHALE_OK && i < t->at.pages; i++) {
        rc = tail_check(&t->tail, i);
    }
    return rc;
}

static int open_sections(struct table *t)
{
    const struct table_footer *f = &t->footer;
    const unsigned char *filter = t->end + (t->at.filter - f->data_size);
    int rc = check_section(t, t->at.sums, t->at.pages * 8, TABLE_SUMS, "sums");
    if (rc == SHALE_OK) {
        rc = check_section(t, t->at.properties, f->properties_size, TABLE_PROPERTIES, "properties");
    }
    if (rc == SHALE_OK) {
        rc = open_tail(t);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    if (!filter_open(&t->filter, filter, f->filter_size, f->filter_probes)) {
        return damaged_file(t, "filter: malformed");
    }
    return index_open(&t->index, &t->tail, t->end + (t->at.index - f->data_size), f->index_size);
}

static int open_properties(struct table *t)
{
    const unsigned char *p = t->end + (t->at.properties - t->footer.data_size);
    struct table_fixed_properties f;
    if (t->footer.properties_size < sizeof f) {
        return damaged_file(t, "properties: malformed");
    }
    memcpy(&f, p, sizeof f);
    if (sizeof f + (uint64_t)f.smallest_size + f.largest_size + f.creator_size != t->footer.properties_size ||
        f.smallest_size > TABLE_MAX_KEY || f.largest_size > TABLE_MAX_KEY || f.entries == 0 ||
        f.deletes > f.entries || f.min_seq > f.max_seq || f.max_seq > TABLE_MAX_SEQ) {
        return damaged_file(t, "properties: malformed");
    }
    t->info = (struct table_info){.number = t->number,
                                  .size = t->size,
                                  .entries = f.entries,
                                  .deletes = f.deletes,
                                  .min_seq = f.min_seq,
                                  .max_seq = f.max_seq,
                                  .raw_bytes = f.raw_bytes};
    p += sizeof f;
    int rc = buf_set(&t->info.smallest, p, f.smallest_size);
    if (rc == SHALE_OK) {
        rc = buf_set(&t->info.largest, p + f.smallest_size, f.largest_size);
    }
    return rc;
}

static int make_bits(struct table *t)
{
    size_t words = ((size_t)t->index.count + 63) / 64;
    t->seen = base_calloc(words * 2, sizeof *t->seen);
    if (t->seen == NULL) {
        return SHALE_NOMEM;
    }
    t->cached = t->seen + words;
    return SHALE_OK;
}

int table_open(int dirfd, uint64_t number, uint64_t size, struct cache *cache, bool verify,
               struct table **out)
{
    struct table *t = base_calloc(1, sizeof *t);
    if (t == NULL) {
        return SHALE_NOMEM;
    }
    atomic_init(&t->refs, 1);
    table_name(number, t->name);
    t->number = number;
    t->verify = verify;
    t->dirfd = dirfd;
    t->cache = cache;
    t->cache_id = cache_table_id();
    t->fd = -1;

    struct stat st;
    int fd = -1;
    int rc = os_open_stat(dirfd, t->name, O_RDONLY, 0, &fd, &st);
    if (rc == SHALE_OK) {
        rc = check_size(t, &st, size);
    }
    if (rc == SHALE_OK) {
        rc = check_footer(t, fd);
    }
    if (rc == SHALE_OK) {
        rc = take_end(t, &fd);
    }
    if (rc == SHALE_OK) {
        rc = open_sections(t);
    }
    if (rc == SHALE_OK) {
        rc = open_properties(t);
    }
    if (rc == SHALE_OK) {
        rc = make_bits(t);
    }
    os_close(&fd);
    if (rc != SHALE_OK) {
        table_unref(t);
        return rc;
    }
    *out = t;
    return SHALE_OK;
}

struct table *table_ref(struct table *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

/* Only the blocks that this table put into the cache are looked for there: their bits say which. */
static void drop_cached(struct table *t)
{
    if (t->cache == NULL || t->seen == NULL || !cache_usable(t->cache)) {
        return;
    }
    for (uint32_t i = 0; i < t->index.count; i++) {
        uint64_t word = atomic_load_explicit(&t->cached[i / 64], memory_order_relaxed);
        struct index_entry e;
        if (word == 0) {
            i |= 63;
        } else if ((word >> i % 64 & 1) != 0 && index_at(&t->index, i, &e) == SHALE_OK) {
            cache_remove(t->cache, t->cache_id, e.offset);
        }
    }
}

void table_unref(struct table *t)
{
    /* release: my reads are over; acquire: so are all others', before the mapping goes. */
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    drop_cached(t);
    if (t->map != NULL) {
        os_unmap(t->map, (size_t)t->size);
    } else {
        free(t->end);
    }
    os_close(&t->fd);
    faults_release(&t->faults);
    free(t->seen);
    free(t->tail.ready);
    table_info_release(&t->info);
    free(t);
}

uint64_t table_number(const struct table *t)
{
    return t->number;
}

const struct table_info *table_properties(const struct table *t)
{
    return &t->info;
}
