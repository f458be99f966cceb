/* driver_shale.c - shale itself. A value that fits is copied into the session's buffer, which costs less than
 * an allocation; from the first larger one on, values are pinned. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>

struct session {
    shale_db *db;
    shale_batch *batch;
    shale_iter *it;
    shale_value value; /* given out by the last get, where it did not fit into copy */
    unsigned char copy[4096];
};

static int open_shale(const struct driver_config *config, void **db)
{
    shale_db *opened = NULL;
    int status = shale_open(config->dir, config->options, &opened);
    if (status == SHALE_OK) {
        *db = opened;
    }
    return status;
}

static int close_shale(void *db)
{
    return shale_close(db);
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        shale_iter_destroy(s->it);
        shale_value_release(&s->value);
        shale_batch_destroy(s->batch);
        free(s);
    }
}

static int attach(void *db, void **session)
{
    struct session *s = base_calloc(1, sizeof *s);
    int status = s != NULL ? shale_batch_create(&s->batch) : SHALE_NOMEM;
    if (status != SHALE_OK) {
        detach(s);
        return status;
    }
    s->db = db;
    *session = s;
    return SHALE_OK;
}

static int put(void *session, struct slice key, struct slice value)
{
    struct session *s = session;
    return shale_put(s->db, key.data, key.size, value.data, value.size, 0);
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    return shale_delete(s->db, key.data, key.size, 0);
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    size_t size = 0;
    bool large = s->value.data != NULL;
    shale_value_release(&s->value);
    int status = large ? SHALE_TOOBIG
                       : shale_get_copy(s->db, NULL, key.data, key.size, s->copy, sizeof s->copy, &size);
    if (status == SHALE_OK) {
        *value = slice_make(s->copy, size);
    }
    if (status != SHALE_TOOBIG) {
        return status;
    }
    status = shale_get(s->db, NULL, key.data, key.size, &s->value);
    if (status == SHALE_OK) {
        *value = slice_make(s->value.data, s->value.size);
    }
    return status;
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    int status = SHALE_OK;
    shale_batch_clear(s->batch);
    for (size_t i = 0; i < n && status == SHALE_OK; i++) {
        status = shale_batch_put(s->batch, entries[i].key.data, entries[i].key.size, entries[i].value.data,
                                 entries[i].value.size);
    }
    return status == SHALE_OK ? shale_write(s->db, s->batch, 0) : status;
}

static int iterate(void *session)
{
    struct session *s = session;
    return shale_iter_range(s->db, NULL, NULL, 0, NULL, 0, SHALE_NO_FILL_CACHE, &s->it);
}

static void iterate_end(void *session)
{
    struct session *s = session;
    shale_iter_destroy(s->it);
    s->it = NULL;
}

static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    struct session *s = session;
    int status = SHALE_INVALID;
    switch (how) {
    case MOVE_FIRST: status = shale_iter_first(s->it); break;
    case MOVE_LAST: status = shale_iter_last(s->it); break;
    case MOVE_SEEK: status = shale_iter_seek(s->it, key.data, key.size); break;
    case MOVE_NEXT: status = shale_iter_next(s->it); break;
    case MOVE_PREV: status = shale_iter_prev(s->it); break;
    }
    if (status == SHALE_OK) {
        at->key.data = shale_iter_key(s->it, &at->key.size);
        at->value.data = shale_iter_value(s->it, &at->value.size);
    }
    return status;
}

static int compact(void *session)
{
    struct session *s = session;
    return shale_compact_range(s->db, NULL, 0, NULL, 0, NULL, NULL);
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%s", shale_version());
}

const struct driver driver_shale = {
    .name = "shale",
    .can = DRIVER_PROCESSES | DRIVER_THREADS | DRIVER_ORDER,
    .open = open_shale,
    .close = close_shale,
    .attach = attach,
    .detach = detach,
    .put = put,
    .del = del,
    .get = get,
    .batch = batch,
    .iterate = iterate,
    .move = move,
    .iterate_end = iterate_end,
    .compact = compact,
    .version = version,
};
