/* agent.h - shale-agent emulates the activity of clients: benchmarks, and writers and readers that check each
 * other.
 *
 *   main.c       options; which mode          proc.c       worker processes: start together, collect results
 *   workload.c   the benchmarks' loops        values.c     keys and values that can be checked
 *   report.c     tables and JSON              histogram.c  latencies
 *   floor.c      bare append + fdatasync, and the cost of opening, measured beside
 *   device.c     bytes written to the device
 *   corpus.c     real input: stanzas          feed.c       its writers, readers and the comparison
 *
 * A benchmark of P processes and T threads has P x T lanes. Every worker is a process of its own (fork and
 * exec of this program with --worker), opens the database, says that it is ready, and starts when all are.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "base/base.h"

#include <shale.h>
#include <stdio.h>
#include <sysexits.h>

/* ---- histogram.c: counts by size, 32 steps an octave: about 3 % exact ---- */

#define HISTOGRAM_BUCKETS (60 * 32)
struct histogram {
    uint64_t count, sum, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *h, uint64_t v);
void histogram_merge(struct histogram *into, const struct histogram *from);
uint64_t histogram_at(const struct histogram *h, double fraction); /* 0.5: the median */

/* ---- jobs and results ---- */

struct job {
    char **argv; /* of the program, for the workers */
    int argc;
    const char *mode, *dir, *sync;
    unsigned processes, threads;
    int worker; /* -1: this is the parent */
    uint64_t ops, keys, seed, batch;
    double seconds;
    size_t key_bytes, value_bytes;
    unsigned read_percent;
    bool check, sequential, json, floor, device;
    shale_options *options;
    /* feed, watch, compare */
    const char *input, *progress_file, *report, *except;
    unsigned part, parts;
    bool rounds;
};

struct result {
    bool ready; /* it came as far as the start */
    int status; /* exit status; text says why */
    char text[256];
    int64_t pid;
    uint64_t ops, commits, missing, wrong;
    double seconds;
    uint64_t flushes, compactions;
    uint64_t anon_before_kib, anon_kib; /* private memory before opening, and at the end */
    struct histogram latency;           /* ns; of a commit, a get, or a stretch of a scan */
};

/* Fills text and status from the library's error; returns the exit status. */
int result_error(struct result *r, int status, const char *what);

/* ---- values.c ---- */

/* The key with this number: decimal digits, padded with zeros to size bytes (8 at least). */
void key_make(unsigned char *key, size_t size, uint64_t number);
/* A value says which key it belongs to and who wrote it when (counter), under a checksum; about half of it
 * compresses. */
#define VALUE_LEAST 24
void value_make(unsigned char *value, size_t size, uint64_t number, uint64_t counter);
bool value_check(const void *value, size_t size, uint64_t number, size_t expected);
/* The number in a key made by key_make. */
bool key_parse(const void *key, size_t size, uint64_t *number);
/* Position i of a random order of 0..n-1. */
uint64_t permute(uint64_t i, uint64_t n, uint64_t seed);

/* ---- the benchmarks ---- */

int workload_run(const struct job *job, struct result *r);   /* in a worker */
int proc_run(const struct job *job, struct result *results); /* in the parent: all workers */
int worker_main(const struct job *job);
uint64_t memory_anonymous_kib(void);
/* Flushes and compactions of this process's handles so far. */
void own_counters(shale_db *db, uint64_t *flushes, uint64_t *compactions);

int floor_measure(const struct job *job, unsigned rounds, struct histogram *h);
int floor_opens(const struct job *job);
uint64_t device_written(const char *dir);

/* What was measured around a run. */
struct around {
    shale_stats before, after;
    struct histogram floor;
    uint64_t device_before, device_after; /* bytes; 0: not measured */
};
void report_bench(const struct job *job, const struct result *results, const struct around *around);

/* ---- real input ---- */

struct record {
    const unsigned char *key, *val;
    size_t keylen, vallen;
};
struct corpus {
    struct record *records; /* by key, each key once */
    size_t count;
    uint64_t bytes; /* of keys and values */
    unsigned char *file, *keys;
};
int corpus_read(struct corpus *c, const char *file); /* exit status; reports */
void corpus_release(struct corpus *c);
/* The record with this key, or NULL. */
const struct record *corpus_find(const struct corpus *c, const void *key, size_t keylen);
/* The first record whose key is not less. */
size_t corpus_seek(const struct corpus *c, const void *key, size_t keylen);

int feed_main(const struct job *job);    /* a writer */
int watch_main(const struct job *job);   /* a reader that checks */
int compare_main(const struct job *job); /* every record, byte for byte */

/* "shale-agent: DIR: ..." on stderr; returns status. */
int complain(const struct job *job, int status, const char *fmt, ...) BASE_PRINTF(3, 4);
int complain_library(const struct job *job, int status, const char *what);

#endif
