/* open.c - a handle's door to the queue of one directory: made, closed, printed.
 *
 * Nothing in here can stop a program: a queue/ that cannot be made leaves a handle whose locks are unordered.
 */
#include "lockq/queue.h"

#include <stdio.h>
#include <stdlib.h>

static int open_files(struct lockq *q)
{
    unsigned dir_mode = lockq_file_mode(q->mode);
    dir_mode |= (dir_mode & 0444u) >> 2;
    int rc = os_open(q->dirfd, "queue", O_RDONLY | O_DIRECTORY, 0, &q->queue_dir);
    if (rc == SHALE_NOTFOUND) {
        rc = os_make_dir_at(q->dirfd, "queue", dir_mode);
        if (rc == SHALE_OK) {
            rc = os_open(q->dirfd, "queue", O_RDONLY | O_DIRECTORY, 0, &q->queue_dir);
        }
    }
    if (rc == SHALE_OK) {
        lockq_file_open(q);
    }
    return rc;
}

int lockq_open(int dirfd, const char *path, unsigned mode, struct lockq **out)
{
    struct lockq *q = base_calloc(1, sizeof *q);
    if (q == NULL) {
        return SHALE_NOMEM;
    }
    q->dirfd = dirfd;
    q->mode = mode;
    q->queue_dir = -1;
    q->probe = -1;
    q->wall_offset = (int64_t)os_wall() - os_now();
    os_random(&q->token, sizeof q->token);
    q->path = base_strdup(path);
    if (q->path == NULL) {
        free(q);
        return SHALE_NOMEM;
    }
    (void)open_files(q); /* without it: unordered */
    lockq_register(q);
    *out = q;
    return SHALE_OK;
}

void lockq_close(struct lockq *q)
{
    if (q == NULL) {
        return;
    }
    lockq_unregister(q);
    lockq_meta_release(q);
    lockq_file_close(q);
    os_close(&q->queue_dir);
    free(q->path);
    free(q);
}

void lockq_slot_print(const struct lockq *q, unsigned index)
{
    const struct lockq_slot *s = &q->slots[index];
    (void)fprintf(
        stderr, "slot %u: next %llu served %llu skip_below %llu owner %llx turn_end %llu acquisitions %llu\n",
        index, (unsigned long long)s->next, (unsigned long long)s->served, (unsigned long long)s->skip_below,
        (unsigned long long)s->owner, (unsigned long long)s->turn_end, (unsigned long long)s->acquisitions);
}
