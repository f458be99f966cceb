/* driver_rocksdb.c - RocksDB by its C interface. The handle is the session's, too: it may be used by all
 * threads. */
#include "driver.h"

#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

struct store {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *tables;
    rocksdb_cache_t *cache;
    rocksdb_writeoptions_t *write;
    rocksdb_readoptions_t *read;
};

struct session {
    struct store *store;
    rocksdb_writebatch_t *batch;
    rocksdb_pinnableslice_t *value;
    rocksdb_iterator_t *it;
};

static int rocks_error(char *text, const char *what)
{
    if (text == NULL) {
        return SHALE_OK;
    }
    err_set(SHALE_IO, "rocksdb: %s: %s", what, text);
    rocksdb_free(text);
    return SHALE_IO;
}

static int close_rocks(void *db)
{
    struct store *s = db;
    if (s == NULL) {
        return SHALE_OK;
    }
    if (s->db != NULL) {
        rocksdb_close(s->db);
    }
    rocksdb_readoptions_destroy(s->read);
    rocksdb_writeoptions_destroy(s->write);
    rocksdb_options_destroy(s->options);
    rocksdb_block_based_options_destroy(s->tables);
    rocksdb_cache_destroy(s->cache);
    free(s);
    return SHALE_OK;
}

static void set_options(struct store *s, bool durable)
{
    rocksdb_block_based_options_set_block_cache(s->tables, s->cache);
    /* The tables own the filter from here on. */
    rocksdb_block_based_options_set_filter_policy(s->tables,
                                                  rocksdb_filterpolicy_create_bloom_full(DRIVER_BLOOM_BITS));
    rocksdb_options_set_block_based_table_factory(s->options, s->tables);
    rocksdb_options_set_create_if_missing(s->options, 1);
    rocksdb_options_set_write_buffer_size(s->options, DRIVER_BUFFER_BYTES);
    rocksdb_options_set_max_write_buffer_number(s->options, 4);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(s->options, 1);
    rocksdb_options_set_compression(s->options, rocksdb_lz4_compression);
    rocksdb_writeoptions_set_sync(s->write, durable);
}

static int open_rocks(const struct driver_config *config, void **db)
{
    struct store *s = base_calloc(1, sizeof *s);
    char *text = NULL;
    if (s == NULL) {
        return SHALE_NOMEM;
    }
    s->options = rocksdb_options_create();
    s->tables = rocksdb_block_based_options_create();
    s->cache = rocksdb_cache_create_lru(DRIVER_CACHE_BYTES);
    s->write = rocksdb_writeoptions_create();
    s->read = rocksdb_readoptions_create();
    set_options(s, config->durable);
    s->db = rocksdb_open(s->options, config->dir, &text);
    int status = rocks_error(text, "open");
    if (status != SHALE_OK) {
        close_rocks(s);
        return status;
    }
    *db = s;
    return SHALE_OK;
}

static void drop_value(struct session *s)
{
    if (s->value != NULL) {
        rocksdb_pinnableslice_destroy(s->value);
        s->value = NULL;
    }
}

static void iterate_end(void *session)
{
    struct session *s = session;
    if (s->it != NULL) {
        rocksdb_iter_destroy(s->it);
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
    s->batch = rocksdb_writebatch_create();
    *session = s;
    return SHALE_OK;
}

static void detach(void *session)
{
    struct session *s = session;
    if (s != NULL) {
        drop_value(s);
        iterate_end(s);
        rocksdb_writebatch_destroy(s->batch);
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
    rocksdb_put(s->store->db, s->store->write, text_of(key), key.size, text_of(value), value.size, &text);
    return rocks_error(text, "put");
}

static int del(void *session, struct slice key)
{
    struct session *s = session;
    char *text = NULL;
    rocksdb_delete(s->store->db, s->store->write, text_of(key), key.size, &text);
    return rocks_error(text, "delete");
}

static int batch(void *session, const struct entry *entries, size_t n)
{
    struct session *s = session;
    char *text = NULL;
    rocksdb_writebatch_clear(s->batch);
    for (size_t i = 0; i < n; i++) {
        rocksdb_writebatch_put(s->batch, text_of(entries[i].key), entries[i].key.size,
                               text_of(entries[i].value), entries[i].value.size);
    }
    rocksdb_write(s->store->db, s->store->write, s->batch, &text);
    return rocks_error(text, "write");
}

static int get(void *session, struct slice key, struct slice *value)
{
    struct session *s = session;
    char *text = NULL;
    drop_value(s);
    s->value = rocksdb_get_pinned(s->store->db, s->store->read, text_of(key), key.size, &text);
    if (s->value == NULL) {
        return text != NULL ? rocks_error(text, "get") : SHALE_NOTFOUND;
    }
    value->data = (const unsigned char *)rocksdb_pinnableslice_value(s->value, &value->size);
    return SHALE_OK;
}

static int iterate(void *session)
{
    struct session *s = session;
    s->it = rocksdb_create_iterator(s->store->db, s->store->read);
    return SHALE_OK;
}

static int move(void *session, enum driver_move how, struct slice key, struct entry *at)
{
    struct session *s = session;
    char *text = NULL;
    switch (how) {
    case MOVE_FIRST: rocksdb_iter_seek_to_first(s->it); break;
    case MOVE_LAST: rocksdb_iter_seek_to_last(s->it); break;
    case MOVE_SEEK: rocksdb_iter_seek(s->it, text_of(key), key.size); break;
    case MOVE_NEXT: rocksdb_iter_next(s->it); break;
    case MOVE_PREV: rocksdb_iter_prev(s->it); break;
    }
    if (!rocksdb_iter_valid(s->it)) {
        rocksdb_iter_get_error(s->it, &text);
        return text != NULL ? rocks_error(text, "iterate") : SHALE_NOTFOUND;
    }
    at->key.data = (const unsigned char *)rocksdb_iter_key(s->it, &at->key.size);
    at->value.data = (const unsigned char *)rocksdb_iter_value(s->it, &at->value.size);
    return SHALE_OK;
}

static int compact(void *session)
{
    struct session *s = session;
    rocksdb_compact_range(s->store->db, NULL, 0, NULL, 0);
    return SHALE_OK;
}

static void version(char *text, size_t size)
{
    snprintf(text, size, "%s", AGENT_ROCKSDB); /* its header for the version is C++ */
}

const struct driver driver_rocksdb = {
    .name = "rocksdb",
    .can = DRIVER_THREADS | DRIVER_ORDER,
    .open = open_rocks,
    .close = close_rocks,
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
