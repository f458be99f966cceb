/* stretch.c - reading a table from front to back, for compaction and verify.
 *
 * 1 MiB at a time with pread, through a descriptor of its own: a compaction reads each byte once, and must
 * not push out what readers use. Pages that were read once are the first to leave the page cache; read
 * through the mapping they would be this process's own mapped pages. Nothing is dropped behind:
 * doc/decisions/0015.
 *
 * Each block is verified again, whatever was verified before: compaction writes the bytes under a fresh
 * checksum, and rot must not get one.
 *
 * A table that was unlinked meanwhile has no descriptor to be had any more; its mapping serves then.
 */
#include "table/read.h"

#define STRETCH_SIZE (UINT64_C(1) << 20)

/* Only if the name still leads to the file that is mapped. */
static void stretch_open(const struct table *t, struct table_stretch *s)
{
    struct stat st;
    s->asked = true;
    if (os_open(t->dirfd, t->name, O_RDONLY, 0, &s->fd) != SHALE_OK) {
        s->fd = -1;
    } else if (os_stat(s->fd, &st) != SHALE_OK || st.st_dev != t->dev || st.st_ino != t->ino) {
        os_close(&s->fd);
    }
}

static int stretch_fd(const struct table *t, const struct table_stretch *s)
{
    return t->fd >= 0 ? t->fd : s->fd;
}

int stretch_read(struct table *t, struct table_stretch *s, uint64_t offset, uint64_t size,
                 const unsigned char **p)
{
    if (!s->asked && t->fd < 0) {
        stretch_open(t, s);
    }
    int fd = stretch_fd(t, s);
    if (fd < 0) {
        int rc = os_map_populate_read(t->map, (size_t)offset, (size_t)size);
        *p = t->map + offset;
        return rc;
    }
    if (offset < s->offset || offset + size > s->offset + s->bytes.size) {
        uint64_t want = size > STRETCH_SIZE ? size : STRETCH_SIZE;
        want = want > t->size - offset ? t->size - offset : want;
        size_t got = 0;
        s->bytes.size = 0;
        int rc = buf_reserve(&s->bytes, (size_t)want);
        if (rc == SHALE_OK) {
            rc = os_pread(fd, s->bytes.data, (size_t)want, offset, &got);
        }
        if (rc != SHALE_OK) {
            return rc;
        }
        s->offset = offset;
        s->bytes.size = got;
        if (got < size) {
            return err_set(SHALE_CORRUPT, "the file ends early");
        }
    }
    *p = s->bytes.data + (offset - s->offset);
    return SHALE_OK;
}

int stretch_load_block(struct table *t, struct table_stretch *s, const struct index_entry *e,
                       struct table_block *parts, struct table_pin *pin)
{
    const unsigned char *stored;
    struct cache_block *b = NULL;
    int rc = stretch_read(t, s, e->offset, (uint64_t)e->stored + sizeof(struct table_trailer), &stored);
    if (rc == SHALE_OK) {
        rc = table_unseal(stored, e->stored, e->raw, TABLE_DATA, table_packing_of(e), t->number, e->offset);
    }
    if (rc != SHALE_OK) {
        return table_wrap(t, e->offset, rc);
    }
    if (table_packing_of(e) == TABLE_LZ4) {
        rc = table_unpack(t, e, stored, &b);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    if (!block_open(parts, b != NULL ? b->data : stored, e->raw)) {
        if (b != NULL) {
            cache_block_release(b);
        }
        return table_damaged(t, e->offset, "malformed");
    }
    *pin = (struct table_pin){b, cache_block_release};
    return SHALE_OK;
}

void stretch_release(struct table_stretch *s)
{
    buf_release(&s->bytes);
    os_close(&s->fd);
}
