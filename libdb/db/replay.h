/* replay.h - what the log holds behind the tables: for recover.c. */
#ifndef DB_REPLAY_H
#define DB_REPLAY_H

#include "db/db.h"

struct replay {
    uint64_t last_seq; /* of everything replayed so far */
    uint32_t next;     /* segment after the last that was looked at */
    bool gap;
    uint32_t stop_segment, stop_offset; /* where no record continues it */
};
static inline struct replay replay_start(const struct version *v)
{
    return (struct replay){
        .last_seq = v->last_seq, .next = v->oldest, .stop_segment = v->oldest, .stop_offset = WAL_FIRST};
}

/* The next segment, replayed into a private index. *mem NULL: there is none, or a gap ended it. */
int replay_next(shale_db *db, const struct version *v, struct replay *r, struct mem_index **mem);
/* At the end: SHALE_CORRUPT where the log does not end with a torn append, but is damaged. */
int replay_check(shale_db *db, const struct replay *r);

#endif
