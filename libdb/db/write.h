/* write.h - inside the write path: what a commit does under WRITE (write.c), for those who lead it there
 * (group.c) or hold WRITE anyway. */
#ifndef DB_WRITE_H
#define DB_WRITE_H

#include "db/db.h"

/* What keeps a record from being appended right now. */
enum write_blocked { WRITE_FREE, WRITE_STALLS, WRITE_PREPARE, WRITE_MAP };

/* Log bytes, or as many of the index, that a record needs in an empty segment. */
uint64_t write_need_of(uint32_t length, uint32_t count);
/* Under WRITE. Room for a record in the active memtable, sealing it if need be; *why tells what stands in the
 * way. sealed_limit 0: whatever the number of sealed ones (a transaction). may_open: a segment may be mapped
 * here. */
int write_make_room(shale_db *db, uint32_t length, uint32_t count, unsigned sealed_limit, bool may_open,
                    enum write_blocked *why);
/* Under WRITE, where room was made: appends the record, indexes and publishes it. */
int write_append(shale_db *db, struct slice payload, uint32_t count, bool through_file);
/* WRITE is released. Tells those who sleep on changes, and those who do the work. */
void write_published(shale_db *db, uint64_t bytes, unsigned durable, bool rotated);
/* Last of all: what a handle without threads owes. */
void write_synced(shale_db *db);

#endif
