/* compact.h - between levels.c (what to compact) and compact.c (doing it). */
#ifndef DB_COMPACT_H
#define DB_COMPACT_H

#include "db/db.h"

struct level_targets {
    uint64_t bytes[VERSION_LEVELS]; /* 0: should be empty */
    unsigned base;                  /* where L0 goes */
};
void db_level_targets(const shale_db *db, const struct version *v, struct level_targets *t);
unsigned db_levels_wanted(const shale_db *db, const struct version *v, unsigned order[VERSION_LEVELS]);
unsigned db_level_output(const shale_db *db, const struct version *v, unsigned level);

/* Inputs, in the version that they were picked from (whose reference the caller holds). */
struct compaction {
    unsigned from, to;
    struct version_table *const *upper; /* L0: all, newest first; else one table */
    uint32_t upper_count;
    struct version_table *const *lower;
    uint32_t lower_count;
    uint64_t bytes;
    shale_progress progress; /* NULL: only the closing of the handle cancels */
    void *progress_ctx;
    uint64_t progress_before, progress_total;
};
/* from 0: all of L0. Else the best of tables [first, first + count) of the level. The level is not empty. */
void db_compaction_pick(const struct version *v, unsigned from, unsigned to, uint32_t first, uint32_t count,
                        struct compaction *c);
/* Of L0 only the older half, which may go down without the newer one; false: there is only one table. */
bool db_compaction_halve(const struct version *v, struct compaction *c);
#ifdef SHALE_DEBUG
extern uint64_t db_pack_above; /* bytes of keys and values; else a quarter of the memory */
#endif
/* Caller holds the COMPACT bytes from..to, and took view after that [I-18]. */
int db_compaction_run(shale_db *db, struct db_view *view, struct compaction *c);

#endif
