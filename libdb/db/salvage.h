/* salvage.h - between repair.c (what is there) and salvage.c (merging it into new tables). */
#ifndef DB_SALVAGE_H
#define DB_SALVAGE_H

#include "db/db.h"

struct salvage_source;

/* Zero-valid but for the descriptors and options. */
struct salvage {
    const char *from, *path; /* the damaged directory and the new one, for messages */
    int dirfd, into;
    shale_options options; /* of the caller: mode, log */
    struct version_options shape;
    shale_progress progress;
    void *ctx;
    uint64_t done, total; /* bytes of keys and values */

    struct salvage_source *sources;
    size_t count, cap;
    struct salvage_source **heap;
    size_t live;

    uint64_t max_seq;         /* of everything that was found */
    struct version_edit edit; /* adds the new tables */
    uint64_t next_table;
    struct table_builder *builder;
    struct buf last; /* the key that was dealt with last */
    bool any;
    uint64_t entries, losses;
};

/* A line for options.log: something is lost. */
void salvage_lost(struct salvage *s, const char *fmt, ...) BASE_PRINTF(2, 3);
/* Is that status damage of one file, so that the others can be read on? */
bool salvage_is_damage(int rc);
/* Or is it the process that has too many files open? Then nothing is lost yet. */
bool salvage_can_open(const struct salvage *s, const char *name);
/* Both take the entries in. A table that cannot be opened is lost, and SHALE_OK. */
int salvage_add_table(struct salvage *s, uint64_t number);
int salvage_add_mem(struct salvage *s, struct mem_index *mem, uint64_t bytes); /* takes the reference over */
/* Merges all sources into tables of the lowest level, durable but for their names. */
int salvage_run(struct salvage *s);
void salvage_release(struct salvage *s); /* but not the descriptors */

#endif
