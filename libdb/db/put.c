/* put.c - the public writes: checks at the door, then one commit. */
#include "db/db.h"

#include <stdlib.h>

int db_check_flags(unsigned flags)
{
    if ((flags & ~(unsigned)(SHALE_SYNC | SHALE_NOSYNC | SHALE_NOWAIT)) != 0 ||
        (flags & (SHALE_SYNC | SHALE_NOSYNC)) == (SHALE_SYNC | SHALE_NOSYNC)) {
        return err_set(SHALE_INVALID,
                       "flags 0x%x: SHALE_SYNC or SHALE_NOSYNC, and SHALE_NOWAIT, are possible", flags);
    }
    return SHALE_OK;
}

static int commit_entry(shale_db *db, uint8_t type, struct slice key, struct slice value, unsigned flags)
{
    unsigned char small[1024];
    size_t most = 1 + 2 * VARINT32_MAX + key.size + value.size;
    unsigned char *p = most <= sizeof small ? small : base_alloc(most);
    if (p == NULL) {
        return SHALE_NOMEM;
    }
    unsigned char *e = p;
    *e++ = type;
    e = varint_put(e, key.size);
    if (type == WAL_PUT) {
        e = varint_put(e, value.size);
    }
    if (key.size != 0) {
        memcpy(e, key.data, key.size);
    }
    e += key.size;
    if (value.size != 0) {
        memcpy(e, value.data, value.size);
    }
    e += value.size;
    int rc = db_commit(db, slice_make(p, (size_t)(e - p)), 1, flags);
    if (p != small) {
        free(p);
    }
    return rc;
}

static int write_entry(shale_db *db, uint8_t type, struct slice key, struct slice value, unsigned flags)
{
    int rc = db_check_write(db);
    if (rc == SHALE_OK) {
        rc = db_check_flags(flags);
    }
    if (rc == SHALE_OK) {
        rc = db_check_entry(key.size, key.data, value.size, value.data);
    }
    if (rc == SHALE_OK) {
        rc = commit_entry(db, type, key, value, flags);
    }
    return rc;
}

int shale_put(shale_db *db, const void *key, size_t keylen, const void *val, size_t vallen, unsigned flags)
{
    int rc = write_entry(db, WAL_PUT, slice_make(key, keylen), slice_make(val, vallen), flags);
    if (rc == SHALE_OK) {
        DB_COUNT(db, puts, 1);
    }
    return rc;
}

int shale_delete(shale_db *db, const void *key, size_t keylen, unsigned flags)
{
    int rc = write_entry(db, WAL_DELETE, slice_make(key, keylen), slice_make(NULL, 0), flags);
    if (rc == SHALE_OK) {
        DB_COUNT(db, deletes, 1);
    }
    return rc;
}

int shale_write(shale_db *db, const shale_batch *batch, unsigned flags)
{
    int rc = db_check_write(db);
    if (rc == SHALE_OK) {
        rc = batch == NULL ? err_set(SHALE_INVALID, "the batch is NULL") : db_check_flags(flags);
    }
    if (rc != SHALE_OK || batch->count == 0) {
        return rc;
    }
    rc = db_commit(db, buf_slice(&batch->payload), batch->count, flags);
    if (rc == SHALE_OK) {
        DB_COUNT(db, puts, batch->count - batch->deletes);
        DB_COUNT(db, deletes, batch->deletes);
    }
    return rc;
}
