/* workloads.c - the list of workloads: LevelDB's and RocksDB's db_bench, the six of YCSB (B. Cooper et al.,
 * "Benchmarking cloud serving systems with YCSB", SoCC 2010), and sets for several processes.
 *
 * db_bench's fillrandom draws keys with repetition; here every key comes once, so that readers know what must
 * be there.
 */
#include "agent.h"

#include <stdio.h>

#define PERCENT(...)                                                                                         \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

static const struct workload workloads[] = {
    {"fillseq", NULL, FILL, PERCENT(0), UNIFORM, W_SEQUENTIAL, 0, 0, 0, "put every key once, in order"},
    {"fillrandom", "fill", FILL, PERCENT(0), UNIFORM, 0, 0, 0, 0, "put every key once, in random order"},
    {"fillsync", NULL, FILL, PERCENT(0), UNIFORM, W_DURABLE | W_FEW, 0, 0, 0,
     "the same, each put durable; a hundredth of the keys"},
    {"fillbatch", NULL, FILL, PERCENT(0), UNIFORM, 0, 0, 0, 100, "the same, 100 puts a commit"},
    {"overwrite", NULL, MIX, PERCENT([OP_PUT] = 100), UNIFORM, 0, 0, 0, 0, "put random keys that are there"},
    {"readrandom", "read", MIX, PERCENT([OP_GET] = 100), UNIFORM, 0, 0, 0, 0, "get random keys"},
    {"readmissing", NULL, MIX, PERCENT([OP_GET] = 100), UNIFORM, W_ABSENT, 0, 0, 0,
     "get keys that are not there"},
    {"readseq", "scan", SCAN, PERCENT(0), UNIFORM, 0, 0, 0, 0, "read all entries in order"},
    {"readreverse", NULL, SCAN, PERCENT(0), UNIFORM, W_REVERSE, 0, 0, 0, "read all entries from the last"},
    {"seekrandom", NULL, MIX, PERCENT([OP_SEEK] = 100), UNIFORM, 0, 0, 0, 0,
     "find a random key and read the next 10 (--nexts)"},
    {"deleterandom", NULL, MIX, PERCENT([OP_DELETE] = 100), UNIFORM, 0, 0, 0, 0, "delete random keys"},
    {"readwhilewriting", NULL, MIX, PERCENT([OP_GET] = 100), UNIFORM, W_ONE_WRITER, 0, 2, 0,
     "one thread overwrites while the others get"},
    {"mixed", NULL, MIX, PERCENT(0), UNIFORM, W_PERCENT, 0, 0, 0, "get and put random keys (--read-percent)"},
    {"ycsb-a", NULL, MIX, PERCENT([OP_GET] = 50, [OP_PUT] = 50), ZIPFIAN, 0, 0, 0, 0, "half gets, half puts"},
    {"ycsb-b", NULL, MIX, PERCENT([OP_GET] = 95, [OP_PUT] = 5), ZIPFIAN, 0, 0, 0, 0, "95 % gets, 5 % puts"},
    {"ycsb-c", NULL, MIX, PERCENT([OP_GET] = 100), ZIPFIAN, 0, 0, 0, 0, "gets"},
    {"ycsb-d", NULL, MIX, PERCENT([OP_GET] = 95, [OP_INSERT] = 5), LATEST, 0, 0, 0, 0,
     "gets of what was inserted last, 5 % inserts"},
    {"ycsb-e", NULL, MIX, PERCENT([OP_SCAN] = 95, [OP_INSERT] = 5), ZIPFIAN, 0, 0, 0, 0,
     "scans of 1 to 100 entries, 5 % inserts"},
    {"ycsb-f", NULL, MIX, PERCENT([OP_GET] = 50, [OP_RMW] = 50), ZIPFIAN, 0, 0, 0, 0,
     "half gets, half a get and a put of the same key"},
    {"mp-write", NULL, MIX, PERCENT([OP_PUT] = 100), UNIFORM, 0, 4, 0, 0, "4 processes put"},
    {"mp-write-sync", NULL, MIX, PERCENT([OP_PUT] = 100), UNIFORM, W_DURABLE | W_FEW, 4, 0, 0,
     "4 processes put, each put durable"},
    {"mp-read", NULL, MIX, PERCENT([OP_GET] = 100), UNIFORM, 0, 4, 0, 0, "4 processes get"},
    {"mp-mixed", NULL, MIX, PERCENT([OP_GET] = 100), UNIFORM, W_ONE_WRITER, 4, 0, 0,
     "one process overwrites while 3 get"},
    {"one-shot", NULL, ONE_SHOT, PERCENT(0), UNIFORM, W_DURABLE | W_PERCENT | W_FEW, 0, 0, 0,
     "a process an operation: open, get or durable put, close"},
    {"compact", NULL, COMPACT, PERCENT(0), UNIFORM, 0, 0, 0, 0, "bring all entries to their last level"},
    {"verify", NULL, VERIFY, PERCENT(0), UNIFORM, 0, 0, 0, 0, "scan once, check each value, count the keys"},
};

const struct workload *workload_find(const char *name)
{
    for (size_t i = 0; i < BASE_COUNT(workloads); i++) {
        const struct workload *w = &workloads[i];
        if (strcmp(w->name, name) == 0 || (w->alias != NULL && strcmp(w->alias, name) == 0)) {
            return w;
        }
    }
    return NULL;
}

void workload_help(void)
{
    for (size_t i = 0; i < BASE_COUNT(workloads); i++) {
        const struct workload *w = &workloads[i];
        printf("  %-16s %s%s%s%s\n", w->name, w->help, w->alias != NULL ? " (also: " : "",
               w->alias != NULL ? w->alias : "", w->alias != NULL ? ")" : "");
    }
}

bool workload_needs_order(const struct workload *w)
{
    return w->shape == SCAN || w->shape == VERIFY || w->percent[OP_SCAN] != 0 || w->percent[OP_SEEK] != 0;
}
