/* overlay.h - what a transaction has written: the payload of its record to be, and an ordered index over it.
 *
 * A skiplist in the transaction's own memory: the newest entry of each key. Reference counted: iterators of
 * the transaction keep it when the transaction ends. One thread at a time.
 */
#ifndef DB_OVERLAY_H
#define DB_OVERLAY_H

#include "db/db.h"

struct overlay;
int overlay_create(struct overlay **o);
struct overlay *overlay_ref(struct overlay *o);
void overlay_unref(struct overlay *o); /* NULL is fine */
int overlay_add(struct overlay *o, uint8_t type, struct slice key, struct slice value);
/* The key's newest entry; the bytes are valid until the next add. SHALE_NOTFOUND (no text). */
int overlay_get(const struct overlay *o, struct slice key, struct wal_entry *e);
struct slice overlay_payload(const struct overlay *o);
uint32_t overlay_count(const struct overlay *o);
/* A run over it for db_merge_view, with a reference of its own, which overlay_run_release drops. It sees
 * later adds. */
int overlay_run(struct overlay *o, struct db_run *run);
void overlay_run_release(void *ctx);

#endif
