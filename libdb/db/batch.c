/* batch.c - a batch is the payload of a log record in the making: entries exactly as the log has them. */
#include "db/db.h"

#include <stdlib.h>

int db_check_entry(size_t keylen, const void *key, size_t vallen, const void *val)
{
    if ((key == NULL && keylen != 0) || (val == NULL && vallen != 0)) {
        return err_set(SHALE_INVALID, "a key or value of non-zero length has no data");
    }
    if (keylen > DB_MAX_KEY) {
        return err_set(SHALE_TOOBIG, "the key is %zu bytes long: at most %u are possible", keylen,
                       DB_MAX_KEY);
    }
    if (vallen > DB_MAX_VALUE) {
        return err_set(SHALE_TOOBIG, "the value is %zu bytes long: at most %u are possible", vallen,
                       DB_MAX_VALUE);
    }
    return SHALE_OK;
}

int shale_batch_create(shale_batch **batch)
{
    if (batch == NULL) {
        return err_set(SHALE_INVALID, "shale_batch_create: no place for the batch");
    }
    *batch = base_calloc(1, sizeof **batch);
    return *batch == NULL ? SHALE_NOMEM : SHALE_OK;
}

void shale_batch_destroy(shale_batch *batch)
{
    if (batch != NULL) {
        buf_release(&batch->payload);
        free(batch);
    }
}

void shale_batch_clear(shale_batch *batch)
{
    if (batch != NULL) {
        batch->payload.size = 0;
        batch->count = 0;
        batch->deletes = 0;
    }
}

size_t shale_batch_count(const shale_batch *batch)
{
    return batch == NULL ? 0 : batch->count;
}

int db_check_room(uint64_t size, uint64_t count, uint64_t bytes, uint64_t entries)
{
    bytes += entries * (1 + 2 * VARINT32_MAX);
    if (size + bytes > DB_MAX_BATCH) {
        return err_set(SHALE_TOOBIG, "the batch would be %llu bytes long: at most %llu are possible",
                       (unsigned long long)(size + bytes), (unsigned long long)DB_MAX_BATCH);
    }
    if (count + entries > WAL_MAX_ENTRIES) {
        return err_set(SHALE_TOOBIG, "the batch would have %llu entries: at most %u are possible",
                       (unsigned long long)(count + entries), WAL_MAX_ENTRIES);
    }
    return SHALE_OK;
}

static int batch_add(shale_batch *batch, uint8_t type, const void *key, size_t keylen, const void *val,
                     size_t vallen)
{
    int rc = batch == NULL ? err_set(SHALE_INVALID, "the batch is NULL")
                           : db_check_entry(keylen, key, vallen, val);
    if (rc == SHALE_OK) {
        rc = db_check_room(batch->payload.size, batch->count, keylen + vallen, 1);
    }
    if (rc == SHALE_OK) {
        rc = wal_add_entry(&batch->payload, type, slice_make(key, keylen), slice_make(val, vallen));
    }
    if (rc == SHALE_OK) {
        batch->count++;
        batch->deletes += type == WAL_DELETE;
    }
    return rc;
}

int shale_batch_put(shale_batch *batch, const void *key, size_t keylen, const void *val, size_t vallen)
{
    return batch_add(batch, WAL_PUT, key, keylen, val, vallen);
}

int shale_batch_delete(shale_batch *batch, const void *key, size_t keylen)
{
    return batch_add(batch, WAL_DELETE, key, keylen, NULL, 0);
}

int shale_batch_append(shale_batch *batch, const shale_batch *other)
{
    if (batch == NULL || other == NULL) {
        return err_set(SHALE_INVALID, "shale_batch_append: a batch is NULL");
    }
    int rc = db_check_room(batch->payload.size, batch->count, other->payload.size, other->count);
    if (rc == SHALE_OK) {
        /* reserved first: the two may be the same batch */
        rc = buf_reserve(&batch->payload, other->payload.size);
    }
    if (rc == SHALE_OK) {
        rc = buf_append(&batch->payload, other->payload.data, other->payload.size);
    }
    if (rc == SHALE_OK) {
        batch->count += other->count;
        batch->deletes += other->deletes;
    }
    return rc;
}

int shale_batch_iterate(const shale_batch *batch,
                        int (*put)(void *ctx, const void *key, size_t keylen, const void *val, size_t vallen),
                        int (*del)(void *ctx, const void *key, size_t keylen), void *ctx)
{
    if (batch == NULL) {
        return err_set(SHALE_INVALID, "the batch is NULL");
    }
    uint32_t pos = 0;
    struct wal_entry e;
    int rc;
    while ((rc = wal_next_entry(buf_slice(&batch->payload), &pos, &e)) == SHALE_OK) {
        int stop = 0;
        if (e.type == WAL_PUT && put != NULL) {
            stop = put(ctx, e.key.data, e.key.size, e.value.data, e.value.size);
        } else if (e.type == WAL_DELETE && del != NULL) {
            stop = del(ctx, e.key.data, e.key.size);
        }
        if (stop != 0) {
            return stop;
        }
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}
