/* agent.h - shale-agent emulates the activity of clients: benchmarks, and writers and readers that check each
 * other.
 *
 *   main.c       modes                        options.c    the command line
 *   workloads.c  the list of workloads        workload.c   what a worker and its lanes do
 *   steps.c      single operations            keys.c       which key is next: uniform, zipfian, latest
 *   oneshot.c    a process an operation       driver.h     shale and its peers behind one interface
 *   proc.c       worker processes: start together, collect results
 *   board.c      how far each lane is, in memory that all share; the live line
 *   values.c     keys and values that can be checked
 *   report.c     the table                    json.c       the same for programs
 *   usage.c      memory, bytes moved, space   histogram.c  latencies
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
#include "driver.h"

#include <pthread.h>
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
uint64_t histogram_top(size_t bucket);                             /* the largest value that falls into it */

/* ---- workloads.c ---- */

enum op { OP_GET, OP_PUT, OP_INSERT, OP_SCAN, OP_SEEK, OP_RMW, OP_DELETE, OPS };
enum distribution { UNIFORM, ZIPFIAN, LATEST };
enum shape {
    MIX,      /* operations by their percentages, on keys that the distribution chooses */
    FILL,     /* every key once */
    SCAN,     /* all entries, up or down */
    VERIFY,   /* one scan that checks and counts */
    COMPACT,  /* what the store can do to make reading quick */
    ONE_SHOT, /* a process for each operation: open, get or put, close */
};
enum {
    W_DURABLE = 1u << 0,    /* --sync commit, unless another is asked for */
    W_SEQUENTIAL = 1u << 1, /* FILL: in order of the keys */
    W_REVERSE = 1u << 2,    /* SCAN */
    W_ABSENT = 1u << 3,     /* gets of keys that lie between those that are there */
    W_ONE_WRITER = 1u << 4, /* the first lane overwrites until the others have read enough */
    W_PERCENT = 1u << 5,    /* gets: --read-percent, the rest are puts */
    W_FEW = 1u << 6,        /* a hundredth of the operations */
};

struct workload {
    const char *name, *alias; /* NULL: none */
    enum shape shape;
    unsigned char percent[OPS];
    enum distribution distribution;
    unsigned flags, processes, threads, batch; /* 0: 1 */
    const char *help;
};
const struct workload *workload_find(const char *name);
void workload_help(void);
/* It iterates, which a hash cannot. */
bool workload_needs_order(const struct workload *w);

/* ---- jobs and results ---- */

enum wait_for_lock { WAIT_DEFAULT, WAIT_NONE };

struct job {
    char **argv; /* of the program, for the workers */
    int argc;
    const char *mode, *dir, *sync;   /* sync NULL: the workload's */
    const struct workload *workload; /* NULL: another mode */
    const struct driver *driver;
    unsigned processes, threads; /* 0: the workload's */
    int worker;                  /* -1: this is the parent */
    uint64_t ops, keys, seed, batch;
    double seconds, rate; /* rate: operations a second that are due, of all lanes; 0: as fast as it goes */
    size_t key_bytes, value_bytes;
    unsigned read_percent, compressible, nexts;
    enum distribution distribution;
    bool distribution_set, check, sequential, json, floor, device, live;
    enum wait_for_lock wait;
    shale_options *options;
    /* feed, watch, compare */
    const char *input, *progress_file, *report, *except;
    unsigned part, parts;
    bool rounds;
};

enum side { READS, WRITES, SIDES };

struct part {
    uint64_t ops;
    struct histogram latency; /* ns; of a commit, a get, a seek, or a stretch of a scan */
};

struct result {
    bool ready; /* it came as far as the start */
    int status; /* exit status; text says why */
    char text[256];
    int64_t pid;
    uint64_t ops, commits, missing, wrong, busy;
    uint64_t put_bytes, got_bytes; /* of keys and values */
    double seconds;
    uint64_t flushes, compactions;
    uint64_t anon_before_kib, anon_kib; /* private memory before opening, and at the end */
    uint64_t peak_kib;                  /* the most that was resident, mappings of files included */
    uint64_t io_read, io_written;       /* bytes that this process made the kernel move to and from storage */
    struct part parts[SIDES];
    struct histogram latency; /* of everything */
};

/* Fills in text and status from the library's error; returns the exit status. */
int result_error(struct result *r, int status, const char *what);

/* ---- values.c ---- */

/* The key with this number: decimal digits, padded with zeros to size bytes (8 at least). */
void key_make(unsigned char *key, size_t size, uint64_t number);
/* A key between this one and the one before it, that no workload ever puts. */
void key_make_absent(unsigned char *key, size_t size, uint64_t number);
/* A value says which key it belongs to and who wrote it when (counter), under a checksum; of its filler so
 * many percent compress (values_init, before the first). */
#define VALUE_LEAST 24
void values_init(unsigned compressible);
void value_make(unsigned char *value, size_t size, uint64_t number, uint64_t counter);
bool value_check(const void *value, size_t size, uint64_t number, size_t expected);
/* The number in a key made by key_make. */
bool key_parse(const void *key, size_t size, uint64_t *number);

/* ---- keys.c ---- */

/* Position i of a random order of 0..n-1. */
uint64_t permute(uint64_t i, uint64_t n, uint64_t seed);
struct zipf {
    uint64_t n;
    double zeta, alpha, eta, second;
};
void zipf_init(struct zipf *z, uint64_t n);
/* 0 most often, then 1, ... of 0..n-1. */
uint64_t zipf_next(const struct zipf *z, uint64_t *random);

/* ---- board.c ---- */

struct board_lane {
    _Atomic uint64_t ops[SIDES] BASE_ALIGNED(BASE_CACHELINE); /* written by the lane, read by the parent */
};
struct board {
    _Atomic uint64_t inserted; /* keys behind those that were there */
    _Atomic uint64_t reading;  /* lanes that still read, where one writes until they are done */
    _Atomic uint64_t through;  /* processes whose lanes have ended */
    _Atomic bool stop;         /* one has failed: nobody needs the rest */
    struct board_lane lanes[];
};
#define BOARD_FD 3 /* in a worker, at its start */
/* What the parent saw, a tick apart. */
#define BOARD_TICK_NS 250000000
struct series {
    uint64_t *ops; /* SIDES a tick: done so far */
    size_t ticks, cap;
};
int board_create(const struct job *job, int *fd, struct board **board);
int board_attach(const struct job *job, int fd, struct board **board);
void board_detach(const struct job *job, struct board *board);
void board_tick(const struct job *job, const struct board *board, struct series *series);
void board_line_end(const struct job *job);

/* ---- the benchmarks ---- */

struct lane {
    const struct job *job;
    const struct driver *driver;
    void *session;
    struct board *board;
    uint64_t index, lanes, random;
    int64_t start, end; /* by the clock; OS_NEVER: by the number of operations */
    uint64_t touched;   /* makes sure that values are read */
    struct zipf zipf;
    struct result r;
    unsigned char *space; /* of batch keys and values */
    struct entry *entries;
    pthread_t thread;
};

/* steps.c: one operation; *done: how many entries it put or read. */
int step_run(struct lane *l, enum op op, uint64_t *done);
/* n puts in one commit, from position i of the lane's share of a fill. */
int step_fill(struct lane *l, uint64_t i, uint64_t n);
/* Notes an operation of n entries that began (or was due) at since; returns the time. */
int64_t lane_note(struct lane *l, enum side side, int64_t since, uint64_t n);
uint64_t lane_share(const struct lane *l, uint64_t total);

/* oneshot.c */
int oneshot_loop(struct lane *l);

int workload_run(const struct job *job, struct result *r); /* in a worker */
/* In the parent: all workers. */
int proc_run(const struct job *job, struct result *results, struct series *series);
int worker_main(const struct job *job);
/* Flushes and compactions of this process's handles so far. */
void own_counters(shale_db *db, uint64_t *flushes, uint64_t *compactions);

int floor_measure(const struct job *job, unsigned rounds, struct histogram *h);
int floor_opens(const struct job *job);
uint64_t device_written(const char *dir);

/* usage.c */
uint64_t memory_anonymous_kib(void);
uint64_t memory_peak_kib(void);
void io_bytes(uint64_t *read, uint64_t *written);
uint64_t disk_bytes(const char *dir);

/* ---- reports ---- */

/* What was measured around a run. */
struct around {
    bool stats; /* before and after are filled in: the store is shale */
    shale_stats before, after;
    struct histogram floor;
    uint64_t device_before, device_after; /* bytes; 0: not measured */
    uint64_t disk;                        /* what the database takes */
    struct series series;
};
struct totals {
    struct result all; /* sums; seconds and peak: the most */
    double rate, slowest, fastest;
};
double rate_of(const struct result *r);
double mean_us(const struct histogram *h);
/* Bytes that went to storage, by the block device's count if that was asked for. */
uint64_t bytes_written(const struct job *job, const struct totals *t, const struct around *a);
void report_bench(const struct job *job, const struct result *results, const struct around *around);
void report_json(const struct job *job, const struct result *results, const struct totals *t,
                 const struct around *a);

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

/* ---- options.c ---- */

/* 0, and the job is filled in; else an exit status. *done: --help and the like. */
int options_parse(struct job *job, int argc, char **argv, bool *done);
/* What was left open: the workload's own. */
int options_complete(struct job *job);
int usage(const char *what, const char *arg);
/* main.c: what --help prints of the modes. */
void modes_help(void);

#endif
