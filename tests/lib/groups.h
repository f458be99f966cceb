/* groups.h - the workload whose every reader can tell whether a commit was torn, lost or invented.
 *
 * A group is GROUP_KEYS keys, far apart in key order. Every commit writes the whole group in one batch, with
 * the next counter in all its values (each eighth batch deletes all keys but the first). So in any one
 * snapshot a group must be whole: one counter everywhere. The board says which counters are possible: not
 * below what was acknowledged, or seen by anybody, before the snapshot was made; not above what was started
 * when it had been made.
 *
 * The functions return 0, or -1 with the reason in err: they also run in agents, where no test can be ended.
 */
#ifndef TESTS_LIB_GROUPS_H
#define TESTS_LIB_GROUPS_H

#include "board.h"

#define GROUP_KEYS 8
#define GROUPS_ERR 512

enum groups_how { GROUPS_GET, GROUPS_MULTI, GROUPS_SCAN, GROUPS_SCAN_BACK, GROUPS_VIEW, GROUPS_HOW_COUNT };

/* The status of the library's call that made one of these return -1; SHALE_OK: the data are wrong. */
extern _Thread_local int groups_status;

/* One batch with counter c. */
int groups_fill(shale_batch *batch, unsigned group, uint64_t c);
/* The next counter of a group that only this process writes. */
int groups_write(shale_db *db, struct board *b, unsigned group, unsigned flags, char err[GROUPS_ERR]);
/* Reads the group in a transaction, and writes it with the next counter: any number of processes may do that.
 */
int groups_write_txn(shale_db *db, struct board *b, unsigned group, unsigned flags, char err[GROUPS_ERR]);
/* All groups [0, n) in one snapshot (GROUPS_VIEW: in an iterator's own view). */
int groups_check(shale_db *db, struct board *b, unsigned n, enum groups_how how, char err[GROUPS_ERR]);
/* The same in parts, for views that are held or stored: low, then the view, then high. groups_read narrows
 * the bounds to what it found. */
struct groups_bounds {
    uint64_t low[BOARD_GROUPS], high[BOARD_GROUPS];
};
void groups_note_low(struct board *b, struct groups_bounds *bounds, unsigned n);
void groups_note_high(struct board *b, struct groups_bounds *bounds, unsigned n);
int groups_read(shale_db *db, struct board *b, const shale_snapshot *snap, unsigned n, enum groups_how how,
                struct groups_bounds *bounds, char err[GROUPS_ERR]);

/* Counters: each transaction reads, adds one, writes. */
int counters_add(shale_db *db, struct board *b, unsigned counter, unsigned flags, char err[GROUPS_ERR]);
int counters_check(shale_db *db, struct board *b, unsigned n, char err[GROUPS_ERR]);

#endif
