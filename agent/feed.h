/* feed.h - what the writers, readers and the comparison of real input share.
 *
 * The records, sorted by key, are cut into groups of --batch neighbours. A group is always written whole, in
 * one commit, by the writer whose part it is. The first writing stores each stanza as it is; round N of
 * overwriting stores "round N\n" in front of it; a last round stores the stanza as it is again. So whoever
 * reads can tell
 *   - a value that isn't this key's, byte for byte,
 *   - a key that was there and is gone, or a round that comes before one that was seen,
 *   - a group that isn't whole in one snapshot.
 */
#ifndef AGENT_FEED_H
#define AGENT_FEED_H

#include "agent.h"

#define ROUND_LAST UINT32_MAX /* as it is, again */

struct session {
    const struct job *job;
    struct corpus corpus;
    shale_db *db;
    struct result r;
    int64_t start;
};
int session_open(struct session *s, const struct job *job);
/* Prints the line of the report; keeps the first bad status. */
int session_close(struct session *s, int status, const char *role);
/* A signal asked to stop, or --seconds are over. */
bool session_over(const struct session *s);
/* One timed operation of n records. */
void session_note(struct session *s, int64_t since, uint64_t n);

static inline size_t group_count(const struct session *s)
{
    return (s->corpus.count + s->job->batch - 1) / s->job->batch;
}
/* The records first..first+n-1. */
static inline size_t group_size(const struct session *s, size_t group, size_t *first)
{
    *first = group * s->job->batch;
    return s->corpus.count - *first < s->job->batch ? s->corpus.count - *first : s->job->batch;
}

#endif
