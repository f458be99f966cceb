/* iter.h - what an iterator is; txn.c makes its own over a view and what the transaction has written. */
#ifndef DB_ITER_H
#define DB_ITER_H

#include "db/db.h"

struct shale_iter {
    shale_db *db;
    struct db_view *view;
    struct db_merge *merge;
    void *overlay; /* NULL: none */
    void (*overlay_release)(void *overlay);
    struct buf lower, upper; /* inclusive; exclusive, where bounded */
    uint64_t upper_head;
    bool bounded, keys_only;
    bool positioned, valid;
    int status;
    const struct db_entry *entry;
};

/* Takes the view's reference and overlay->ctx over, also on failure. */
int db_iter_make(shale_db *db, struct db_view *view, uint64_t seq, const struct db_run *overlay,
                 void (*overlay_release)(void *), const shale_iter_options *options, shale_iter **it);

#endif
