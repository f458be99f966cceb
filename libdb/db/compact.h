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
    struct version_table *const *upper; /* L0: all, newest first; else tables that follow each other */
    uint32_t upper_count;
    const struct version
        *between; /* not NULL: all tables of its levels between from and to are inputs, too */
    struct version_table *const *lower;
    uint32_t lower_count;
    uint64_t bytes;
    bool whole;              /* asked for by hand: it does not end early */
    shale_progress progress; /* NULL: only the closing of the handle cancels */
    void *progress_ctx;
    uint64_t progress_before, progress_total;
};
/* L0 has come half way from where it is compacted to where writers stall. */
bool db_level0_urgent(const shale_db *db, const struct version *v);
/* The same, of the newest version. */
bool db_level0_presses(shale_db *db);
/* Does somebody, by another wish than `own`, ask that these levels are left to him? (range.c) */
bool db_wished_for(const shale_db *db, unsigned level, unsigned to, uint64_t own);
/* from 0: all of L0. Else the best of tables [first, first + count) of the level. The level is not empty. */
void db_compaction_pick(const struct version *v, unsigned from, unsigned to, uint32_t first, uint32_t count,
                        struct compaction *c);
/* The same, but from level 1 on the first of them, and as many behind it as make, with what they overlap
 * below, `most` bytes or little more: a table below that spans two of them is rewritten once. */
void db_compaction_pick_run(const struct version *v, unsigned from, unsigned to, uint32_t first,
                            uint32_t count, uint64_t most, struct compaction *c);
/* Half of its tables: of L0 the older ones, which may go down without the newer; false: there is only one. */
bool db_compaction_halve(const struct version *v, struct compaction *c);
/* All tables of all levels down to `to`, which is none that L0 would be compacted into anyway. */
void db_compaction_pick_all(const struct version *v, unsigned to, struct compaction *c);
#ifdef SHALE_DEBUG
extern uint64_t db_pack_above; /* bytes of keys and values; else a sixteenth of the memory */
extern int64_t db_close_wait_ns;
#endif
uint64_t db_tables_bytes(struct version_table *const *tables, uint32_t count); /* of their files */
/* Caller holds the COMPACT bytes from..to, and took view after that [I-18]. c says afterwards what the inputs
 * were: fewer than picked, where it ended early for the sake of L0. */
int db_compaction_run(shale_db *db, struct db_view *view, struct compaction *c);

#endif
