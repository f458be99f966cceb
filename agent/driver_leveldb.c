/* driver_leveldb.c - LevelDB by its C interface. */
#include "driver.h"

#include <leveldb/c.h>
#include <stdio.h>
#include <stdlib.h>

#define OPEN_FILES 5000 /* none is closed for want of room while tables are small */

struct store {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    leveldb_writeoptions_t *write;
    leveldb_readoptions_t *read;
};

struct session {
    struct store *store;
    leveldb_writebatch_t *batch;
    char *value;
    leveldb_iterator_t *it;
};

static int level_error(char *text, const char *what)
{
    if (text == NULL) {
        return SHALE_OK;
    }
    err_set(SHALE_IO, "leveldb: %s: %s", what, text);
    leveldb_free(text);
    return SHALE_IO;
}

static int close_level(void *db)
{
    struct store *s = db;
    if (s == NULL) {
        return SHALE_OK;
    }
    if (s->db != NULL) {
        leveldb_close(s->db);
    }
    leveldb_readoptions_destroy(s->read);
    leveldb_writeoptions_destroy(s->write);
    leveldb_options_destroy(s->options);
    leveldb_filterpolicy_destroy(s->filter);
    leveldb_cache_destroy(s->cache);
    free(s);
    return SHALE_OK;
}

static int open_level(const struct driver_config *config, void **db)
{
    struct store *s = base_calloc(1, sizeof *s);
    char *text = NULL;
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    s->options = leveldb_options_create();
    s->cache = leveldb_cache_create_lru(DRIVER_CACHE_BYTES);
    s->filter = leveldb_filterpolicy_create_bloom(DRIVER_BLOOM_BITS);
    s->write = leveldb_writeoptions_create();
    s->read = leveldb_readoptions_create();
    leveldb_options_set_create_if_missing(s->options, 1);
    leveldb_options_set_write_buffer_size(s->options, DRIVER_BUFFER_BYTES);
    leveldb_options_set_cache(s->options, s->cache);
    leveldb_options_set_filter_policy(s->options, s->filter);
    leveldb_options_set_max_open_files(s->options, OPEN_FILES);
    leveldb_options_set_compression(s->options, leveldb_snappy_compression);
    leveldb_writeoptions_set_sync(s->write, config->durable);
    s->db = leveldb_open(s->options, config->dir, &text);
    int status = level_error(text, "open");
    if (status != SHALE_OK) {
        close_level(s);
        return status;
    }
    *db = s;
    return SHALE_OK;
}

static void drop_value(struct session *s)
{
    if (s->value != NULL) {
        leveldb_free(s->value);
        s->value = NULL;
    }
}

static void iterate_end(void *session)
{
    struct session *s = session;
    if (s->it != NULL) {
        leveldb_iter_destroy(s->it);
        s->it = NULL;
    }
}

static int attach(void *db, void **session)
{
    struct session *s = base_calloc(1, sizeof *s);
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    s->store = db;
    s->batch = leveldb_writebatch_create();
    *session = s;
    return SHALE_OK;
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        drop_value(s);
        iterate_end(s);
        leveldb_writebatch_destroy(s->batch);
        free(s);
    }
}

static const char *text_of(struct slice s)
{
    return (const char *)s.data;
}

static int put(void *session, struct slice key, struct slice value)
{
    struct session *s = session;
    char *text = NULL;
    leveldb_put(s->store->db, s->store->write, text_of(key), key.size, text_of(value), value.size, &text);
    return level_error(text, "put");
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    char *text = NULL;
    leveldb_delete(s->store->db, s->store->write, text_of(key), key.size, &text);
    return level_error(text, "delete");
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    char *text = NULL;
    leveldb_writebatch_clear(s->batch);
    for (size_t i = 0; i < n; i++) {
        leveldb_writebatch_put(s->batch, text_of(entries[i].key), entries[i].key.size,
                               text_of(entries[i].value), entries[i].value.size);
    }
    leveldb_write(s->store->db, s->store->write, s->batch, &text);
    return level_error(text, "write");
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    char *text = NULL;
    size_t size = 0;
    drop_value(s);
    s->value = leveldb_get(s->store->db, s->store->read, text_of(key), key.size, &size, &text);
    if (s->value == NULL) {
        return text != NULL ? level_error(text, "get") : SHALE_NOTFOUND;
    }
    *value = slice_make(s->value, size);
    return SHALE_OK;
}

static int iterate(void *session)
{
    struct session *s = session;
    s->it = leveldb_create_iterator(s->store->db, s->store->read);
    return SHALE_OK;
}

static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    struct session *s = session;
    char *text = NULL;
    switch (how) {
    case MOVE_FIRST: leveldb_iter_seek_to_first(s->it); break;
    case MOVE_LAST: leveldb_iter_seek_to_last(s->it); break;
    case MOVE_SEEK: leveldb_iter_seek(s->it, text_of(key), key.size); break;
    case MOVE_NEXT: leveldb_iter_next(s->it); break;
    case MOVE_PREV: leveldb_iter_prev(s->it); break;
    }
    if (!leveldb_iter_valid(s->it)) {
        leveldb_iter_get_error(s->it, &text);
        return text != NULL ? level_error(text, "iterate") : SHALE_NOTFOUND;
    }
    at->key.data = (const unsigned char *)leveldb_iter_key(s->it, &at->key.size);
    at->value.data = (const unsigned char *)leveldb_iter_value(s->it, &at->value.size);
    return SHALE_OK;
}

static int compact(void *session)
{
    struct session *s = session;
    leveldb_compact_range(s->store->db, NULL, 0, NULL, 0);
    return SHALE_OK;
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%d.%d", leveldb_major_version(), leveldb_minor_version());
}

const struct driver driver_leveldb = {
    .name = "leveldb",
    .can = DRIVER_THREADS | DRIVER_ORDER,
    .open = open_level,
    .close = close_level,
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
