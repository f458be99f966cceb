/* salvage.c - one sorted run out of whatever could be read.
 *
 * Sources are tables and replayed segments, in any number and of any age: nothing is known about which level
 * a table was in. So the newest entry of a key is told by its sequence number alone: a heap by (key, sequence
 * number descending) gives it first, and the others of that key are passed over. All of the database goes
 * through it, so a tombstone has nothing left to hide and is dropped.
 *
 * A block that cannot be read is skipped and told; the rest of its table goes on.
 */
#include "db/salvage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK_EVERY     1024 /* entries between calls of progress */
#define SEQUENTIAL_MOST 200  /* sources that read ahead: each has a descriptor and a buffer */
#define ANY_SEQ         ((UINT64_C(1) << 56) - 1)

struct salvage_source {
    struct mem_index *mem; /* NULL: a table */
    struct mem_iter in_mem;
    struct table_iter in_table;
    uint64_t head; /* of entry.key */
    struct db_entry entry;
};

void salvage_lost(struct salvage *s, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    s->losses++;
    if (s->options.log == NULL) {
        return;
    }
    va_start(ap, fmt);
    int n = snprintf(line, sizeof line, "%s: ", s->from);
    if (n > 0 && (size_t)n < sizeof line) {
        (void)vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    }
    va_end(ap);
    s->options.log(s->options.log_ctx, 1, line);
}

bool salvage_is_damage(int rc)
{
    return rc == SHALE_CORRUPT || rc == SHALE_IO;
}

bool salvage_can_open(const struct salvage *s, const char *name)
{
    int fd = -1;
    bool can = os_open(s->dirfd, name, O_RDONLY, 0, &fd) == SHALE_OK;
    os_close(&fd);
    return can;
}

/* ---- sources ---- */

/* The array moves when it grows: nothing points into it before salvage_run. */
static struct salvage_source *add_source(struct salvage *s)
{
    if (s->count == s->cap) {
        size_t cap = s->cap == 0 ? 64 : 2 * s->cap;
        struct salvage_source *more = base_realloc(s->sources, cap * sizeof *more);
        if (more == NULL) {
            return NULL;
        }
        s->sources = more;
        s->cap = cap;
    }
    struct salvage_source *src = &s->sources[s->count++];
    memset(src, 0, sizeof *src);
    return src;
}

int salvage_add_table(struct salvage *s, uint64_t number)
{
    struct table *t = NULL;
    char text[256], name[TABLE_NAME_SIZE];
    table_name(number, name);
    int rc = table_open(s->dirfd, number, 0, NULL, true, &t);
    (void)snprintf(text, sizeof text, "%s", rc == SHALE_OK ? "" : shale_errmsg());
    if (rc == SHALE_NOTFOUND) {
        salvage_lost(s, "%s is missing", name);
        return SHALE_OK;
    }
    if (salvage_is_damage(rc) && salvage_can_open(s, name)) {
        salvage_lost(s, "the whole table is lost: %s", text);
        return SHALE_OK;
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    const struct table_info *info = table_properties(t);
    struct salvage_source *src = add_source(s);
    if (src != NULL) {
        table_iter_init(&src->in_table, t, NULL);
        s->total += info->raw_bytes;
        s->max_seq = info->max_seq > s->max_seq ? info->max_seq : s->max_seq;
    }
    table_unref(t);
    return src != NULL ? SHALE_OK : SHALE_NOMEM;
}

int salvage_add_mem(struct salvage *s, struct mem_index *mem, uint64_t bytes)
{
    struct salvage_source *src = add_source(s);
    if (src == NULL) {
        mem_unref(mem);
        return SHALE_NOMEM;
    }
    src->mem = mem;
    s->total += bytes;
    return SHALE_OK;
}

void salvage_release(struct salvage *s)
{
    for (size_t i = 0; i < s->count; i++) {
        table_iter_release(&s->sources[i].in_table);
        mem_unref(s->sources[i].mem);
    }
    table_build_abandon(s->builder);
    version_edit_release(&s->edit);
    buf_release(&s->last);
    free(s->heap);
    free(s->sources);
}

/* ---- moving ---- */

static int move_mem(struct salvage_source *src, bool first)
{
    struct mem_iter *it = &src->in_mem;
    if (first) {
        mem_iter_init(it, src->mem, ANY_SEQ);
    }
    int rc = first ? mem_iter_first(it) : mem_iter_next(it);
    if (rc == SHALE_OK) {
        src->entry = (struct db_entry){it->key, it->value, it->entry_seq, it->type};
    }
    return rc;
}

/* Over blocks that cannot be read. */
static int move_table(struct salvage *s, struct salvage_source *src, bool first)
{
    struct table_iter *it = &src->in_table;
    int rc = first ? table_iter_first(it) : table_iter_next(it);
    while (salvage_is_damage(rc)) {
        salvage_lost(s, "a block is lost: %s", shale_errmsg());
        rc = table_iter_skip(it);
    }
    if (rc == SHALE_OK) {
        src->entry = (struct db_entry){it->key, it->value, it->seq, it->type};
    }
    return rc;
}

static int source_move(struct salvage *s, struct salvage_source *src, bool first)
{
    int rc = src->mem != NULL ? move_mem(src, first) : move_table(s, src, first);
    if (rc == SHALE_OK) {
        src->head = key_head(src->entry.key);
    }
    return rc;
}

/* ---- the heap ---- */

static bool before(const struct salvage_source *a, const struct salvage_source *b)
{
    if (a->head != b->head) {
        return a->head < b->head;
    }
    int c = slice_compare(a->entry.key, b->entry.key);
    return c != 0 ? c < 0 : a->entry.seq > b->entry.seq;
}

static void sift_down(struct salvage *s, size_t i)
{
    struct salvage_source *src = s->heap[i];
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid >= s->live) {
            break;
        }
        if (kid + 1 < s->live && before(s->heap[kid + 1], s->heap[kid])) {
            kid++;
        }
        if (!before(s->heap[kid], src)) {
            break;
        }
        s->heap[i] = s->heap[kid];
        i = kid;
    }
    s->heap[i] = src;
}

static int heap_fill(struct salvage *s)
{
    s->heap = base_calloc(s->count + 1, sizeof(struct salvage_source *));
    if (s->heap == NULL) {
        return SHALE_NOMEM;
    }
    for (size_t i = 0; i < s->count; i++) {
        s->sources[i].in_table.sequential = s->count <= SEQUENTIAL_MOST;
        int rc = source_move(s, &s->sources[i], true);
        if (rc == SHALE_OK) {
            s->heap[s->live++] = &s->sources[i];
        } else if (rc != SHALE_NOTFOUND) {
            return rc;
        }
    }
    for (size_t i = s->live / 2; i-- > 0;) {
        sift_down(s, i);
    }
    return SHALE_OK;
}

static int heap_next(struct salvage *s)
{
    int rc = source_move(s, s->heap[0], false);
    if (rc == SHALE_NOTFOUND) {
        s->heap[0] = s->heap[--s->live];
        rc = SHALE_OK;
    }
    if (rc == SHALE_OK && s->live > 1) {
        sift_down(s, 0);
    }
    return rc;
}

/* ---- new tables ---- */

static int output_finish(struct salvage *s)
{
    struct table_info info = {0};
    if (s->builder == NULL) {
        return SHALE_OK;
    }
    int rc = table_build_finish(s->builder, &info);
    s->builder = NULL;
    if (rc == SHALE_OK) {
        rc = version_edit_add(&s->edit, VERSION_LEVELS - 1, &info);
    }
    table_info_release(&info);
    return rc;
}

static int output_add(struct salvage *s, const struct db_entry *e)
{
    struct table_options o = {.block_bytes = (size_t)s->shape.block_bytes,
                              .bloom_bits = s->shape.bloom_bits,
                              .lz4 = s->shape.compression == SHALE_COMPRESS_LZ4,
                              .mode = s->options.mode};
    bool full = s->builder != NULL && table_build_size(s->builder) >= s->shape.target_table_bytes;
    int rc = full ? output_finish(s) : SHALE_OK;
    if (rc == SHALE_OK && s->builder == NULL) {
        rc = table_build_start(s->into, s->next_table++, &o, &s->builder);
    }
    s->entries++;
    return rc == SHALE_OK ? table_build_add(s->builder, e->key, e->seq, e->type, e->value) : rc;
}

/* The newest of its key, unless that key is done. A table whose checksums are right and whose keys are not in
 * order (made by something else) loses those that come too late. */
static int take(struct salvage *s, const struct db_entry *e)
{
    int order = s->any ? slice_compare(e->key, buf_slice(&s->last)) : 1;
    if (order < 0) {
        salvage_lost(s, "a key that is out of order is lost");
    }
    if (order <= 0) {
        return SHALE_OK;
    }
    s->any = true;
    int rc = buf_set(&s->last, e->key.data, e->key.size);
    return rc == SHALE_OK && e->type == TABLE_PUT ? output_add(s, e) : rc;
}

static int tell(struct salvage *s)
{
    uint64_t done = s->done < s->total ? s->done : s->total;
    if (s->progress != NULL && s->progress(s->ctx, done, s->total) != 0) {
        return err_set(SHALE_CANCELLED, "%s: repair cancelled", s->from);
    }
    return SHALE_OK;
}

int salvage_run(struct salvage *s)
{
    uint64_t looked = 0;
    s->next_table = s->next_table == 0 ? 1 : s->next_table;
    int rc = heap_fill(s);
    if (rc == SHALE_OK) {
        rc = tell(s);
    }
    while (rc == SHALE_OK && s->live != 0) {
        const struct db_entry *e = &s->heap[0]->entry;
        s->done += e->key.size + e->value.size;
        rc = take(s, e);
        if (rc == SHALE_OK && ++looked % CHECK_EVERY == 0) {
            rc = tell(s);
        }
        if (rc == SHALE_OK) {
            rc = heap_next(s);
        }
    }
    s->done = rc == SHALE_OK ? s->total : s->done;
    if (rc == SHALE_OK) {
        rc = output_finish(s);
    }
    return rc == SHALE_OK ? tell(s) : rc;
}
