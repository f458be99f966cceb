/* oracle.h - an ordered map with versions, slow and obvious: what the database is compared with.
 *
 * A sorted array of keys; behind each key the list of its versions, oldest first. Every change gets the next
 * tick; reading "at" a tick sees what had been done up to it, so a snapshot of the oracle is a number.
 * Nothing is ever dropped, and nothing here is shared between processes.
 */
#ifndef TESTS_LIB_ORACLE_H
#define TESTS_LIB_ORACLE_H

#include "base/base.h"

struct oracle_version {
    uint64_t tick;
    bool deleted;
    struct buf value;
};
struct oracle_key {
    struct buf key;
    struct oracle_version *versions;
    size_t count, cap;
};
struct oracle {
    struct oracle_key *keys; /* sorted */
    size_t count, cap;
    uint64_t tick; /* of the last change */
};

void oracle_release(struct oracle *o);
void oracle_put(struct oracle *o, struct slice key, struct slice value);
void oracle_delete(struct oracle *o, struct slice key);
/* As if nothing had been done since the tick. */
void oracle_undo(struct oracle *o, uint64_t at);
/* The value at a tick; false: none. */
bool oracle_get(const struct oracle *o, uint64_t at, struct slice key, struct slice *value);
size_t oracle_count(const struct oracle *o, uint64_t at);

/* A position is an index into keys, or ORACLE_END. Each gives the first position in its direction that exists
 * at the tick and lies within [lower, upper); a bound with NULL data is none. */
#define ORACLE_END SIZE_MAX
struct oracle_range {
    uint64_t at;
    struct slice lower, upper;
};
size_t oracle_seek(const struct oracle *o, const struct oracle_range *r, struct slice key); /* first >= key */
size_t oracle_seek_for_prev(const struct oracle *o, const struct oracle_range *r,
                            struct slice key); /* last <= key */
size_t oracle_first(const struct oracle *o, const struct oracle_range *r);
size_t oracle_last(const struct oracle *o, const struct oracle_range *r);
size_t oracle_next(const struct oracle *o, const struct oracle_range *r, size_t pos);
size_t oracle_prev(const struct oracle *o, const struct oracle_range *r, size_t pos);

/* The smallest key above every key that begins with prefix, appended to out; false: there is none. */
bool oracle_prefix_end(struct slice prefix, struct buf *out);

#endif
