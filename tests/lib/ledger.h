/* ledger.h - a workload whose whole content follows from one number a writer: how many commits it made.
 *
 * Commit c of a writer changes LEDGER_ENTRIES keys of its own: its head, which carries c, and one key out of
 * each of some rings of different lengths; each eighth commit deletes one of them. So the content after any
 * number of commits of each writer can be computed, and what is not exactly such a content is wrong. All
 * commits have the same number of entries: the database's sequence number tells how many commits it holds,
 * and when the writers' heads add up to that, no commit is missing between others, whoever made them.
 *
 * The functions return 0, or -1 with the reason in err: they also run in agents.
 */
#ifndef TESTS_LIB_LEDGER_H
#define TESTS_LIB_LEDGER_H

#include "os/os.h"

#include <shale.h>

#define LEDGER_WRITERS 4
#define LEDGER_ENTRIES 4
#define LEDGER_ERR     512

/* Commit c, in one batch or one transaction. Its status. */
int ledger_write(shale_db *db, unsigned writer, uint64_t c, unsigned flags, bool txn, char err[LEDGER_ERR]);
/* How many commits of the writer there are. */
int ledger_count(shale_db *db, unsigned writer, uint64_t *c, char err[LEDGER_ERR]);
/* The whole content, compared; how many commits of each writer there are. */
int ledger_check(shale_db *db, uint64_t counts[LEDGER_WRITERS], char err[LEDGER_ERR]);

#endif
