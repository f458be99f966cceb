/* copy.c - the bytes of an open table into another file, for a checkpoint on another file system.
 *
 * They come from the open table, not from its name: what is open stays readable when a compaction has taken
 * the name away. Nothing is verified: a copy of damage is damage, its checksums show it, and the rest is
 * worth having.
 */
#include "table/read.h"

#define COPY_PIECE (UINT64_C(1) << 20)

int table_copy(struct table *t, int fd, int (*progress)(void *ctx, uint64_t bytes), void *ctx)
{
    struct table_stretch stretch = {.fd = -1};
    int rc = SHALE_OK;
    for (uint64_t at = 0; rc == SHALE_OK && at < t->size;) {
        uint64_t n = t->size - at < COPY_PIECE ? t->size - at : COPY_PIECE;
        const unsigned char *bytes;
        rc = stretch_read(t, &stretch, at, n, &bytes);
        rc = rc == SHALE_OK ? os_pwrite(fd, bytes, (size_t)n, at) : rc;
        if (rc != SHALE_OK) {
            rc = table_wrap(t, at, rc);
        } else if (progress != NULL && progress(ctx, n) != 0) {
            rc = err_set(SHALE_CANCELLED, "%s: the copy was cancelled", t->name);
        }
        at += n;
    }
    stretch_release(&stretch);
    return rc == SHALE_OK ? os_fsync(fd) : rc;
}
