/* workload.c - the benchmarks' loops. A lane is one thread of one process; it has its own random numbers,
 * counters, histograms and session, so that lanes share nothing but the database and the board.
 *
 * Closed loop: an operation is timed from the end of the one before it, one look at the clock each. Open loop
 * (--rate): operations are due at fixed times whatever the store does, and are timed from when they were due;
 * so an operation that had to wait behind a slow one counts its wait. Where several puts go in one batch, the
 * commit is what is timed and each put is counted.
 */
#include "agent.h"
#include "os/os.h"

#include <stdlib.h>
#include <time.h>

#define SCAN_STRETCH 1024
#define LEAVE_NS     1000000000

int64_t lane_note(struct lane *l, enum side side, int64_t since, uint64_t n)
{
    int64_t now = os_now();
    struct part *part = &l->r.parts[side];
    histogram_add(&part->latency, (uint64_t)(now - since));
    part->ops += n;
    l->r.ops += n;
    atomic_store_explicit(&l->board->lanes[l->index].ops[side], part->ops, memory_order_relaxed);
    return now;
}

uint64_t lane_share(const struct lane *l, uint64_t total)
{
    return (l->index + 1) * total / l->lanes - l->index * total / l->lanes;
}

/* ---- loops ---- */

/* When the i-th operation of this lane begins, or was to begin; not one that is due behind the end. */
static int64_t due(const struct lane *l, uint64_t i, int64_t now)
{
    if (l->job->rate <= 0) {
        return now;
    }
    int64_t at = l->start + (int64_t)((double)(i * l->lanes + l->index) * 1e9 / l->job->rate);
    if (at > now && at < l->end) {
        struct timespec until = {at / 1000000000, at % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    return at;
}

/* The time is up, or another worker has failed; so many operations were done. */
static bool over(const struct lane *l, uint64_t done, int64_t now)
{
    return done != 0 && (now >= l->end || atomic_load_explicit(&l->board->stop, memory_order_relaxed));
}

static enum op choose_op(struct lane *l)
{
    const struct workload *w = l->job->workload;
    unsigned at = (unsigned)(prng_next(&l->random) % 100), op = 0;
    if ((w->flags & W_PERCENT) != 0) {
        return at < l->job->read_percent ? OP_GET : OP_PUT;
    }
    while (op < OP_DELETE && at >= w->percent[op]) {
        at -= w->percent[op++];
    }
    return (enum op)op;
}

static int mix_loop(struct lane *l)
{
    uint64_t share = lane_share(l, l->job->ops), done = 0;
    int status = SHALE_OK;
    int64_t now = os_now();
    for (uint64_t i = 0; status == SHALE_OK && l->r.ops < share && !over(l, i, now); i++) {
        int64_t since = due(l, i, now);
        enum op op = choose_op(l);
        if (over(l, i, since)) {
            break;
        }
        status = step_run(l, op, &done);
        bool reads = op == OP_GET || op == OP_SCAN || op == OP_SEEK;
        now = status == SHALE_OK ? lane_note(l, reads ? READS : WRITES, since, done) : now;
    }
    return status;
}

/* The one that overwrites until the others are done. */
static int writer_loop(struct lane *l)
{
    uint64_t done = 0;
    int status = SHALE_OK;
    int64_t now = os_now();
    bool reading = true;
    for (uint64_t i = 0; status == SHALE_OK && reading && !over(l, i, now); i++) {
        int64_t since = due(l, i, now);
        if (over(l, i, since)) {
            break;
        }
        status = step_run(l, OP_PUT, &done);
        now = status == SHALE_OK ? lane_note(l, WRITES, since, done) : now;
        reading = atomic_load_explicit(&l->board->reading, memory_order_relaxed) != 0;
    }
    return status;
}

static int one_writer_loop(struct lane *l)
{
    if (l->index == 0) {
        return writer_loop(l);
    }
    int status = mix_loop(l);
    atomic_fetch_sub_explicit(&l->board->reading, 1, memory_order_relaxed);
    return status;
}

static int fill_loop(struct lane *l)
{
    const struct job *job = l->job;
    uint64_t share = lane_share(l, job->ops < job->keys ? job->ops : job->keys);
    int status = SHALE_OK;
    int64_t now = os_now();
    for (uint64_t i = 0; status == SHALE_OK && l->r.ops < share && !over(l, i, now); i++) {
        uint64_t n = share - l->r.ops < job->batch ? share - l->r.ops : job->batch;
        int64_t since = due(l, i, now);
        if (over(l, i, since)) {
            break;
        }
        status = step_fill(l, l->r.ops, n);
        now = status == SHALE_OK ? lane_note(l, WRITES, since, n) : now;
    }
    return status;
}

static void check_scanned(struct lane *l, const struct entry *e)
{
    uint64_t number;
    if (!key_parse(e->key.data, e->key.size, &number) ||
        !value_check(e->value.data, e->value.size, number, l->job->value_bytes)) {
        l->r.wrong++;
    }
}

/* A whole scan; stretches of 1,024 entries are timed. *entries: how many there were. */
static int scan_once(struct lane *l, bool check, uint64_t *entries)
{
    bool reverse = (l->job->workload->flags & W_REVERSE) != 0;
    struct slice none = slice_make("", 0);
    struct entry e;
    int64_t now = os_now();
    int status = l->driver->iterate(l->session);
    *entries = 0;
    if (status != SHALE_OK) {
        return status;
    }
    for (status = l->driver->move(l->session, reverse ? MOVE_LAST : MOVE_FIRST, none, &e); status == SHALE_OK;
         status = l->driver->move(l->session, reverse ? MOVE_PREV : MOVE_NEXT, none, &e)) {
        l->touched ^= e.value.size != 0 ? e.value.data[0] : 0;
        l->r.got_bytes += e.key.size + e.value.size;
        if (check) {
            check_scanned(l, &e);
        }
        if (++*entries % SCAN_STRETCH == 0) {
            now = lane_note(l, READS, now, SCAN_STRETCH);
            if (over(l, *entries, now)) {
                break;
            }
        }
    }
    l->r.ops += *entries % SCAN_STRETCH;
    l->r.parts[READS].ops += *entries % SCAN_STRETCH;
    l->driver->iterate_end(l->session);
    return status == SHALE_NOTFOUND ? SHALE_OK : status;
}

static int scan_loop(struct lane *l)
{
    bool timed = l->end != OS_NEVER;
    uint64_t entries;
    int status = SHALE_OK;
    do {
        status = scan_once(l, l->job->check, &entries);
    } while (status == SHALE_OK && timed && os_now() < l->end && entries != 0);
    return status;
}

static int verify_once(struct lane *l)
{
    uint64_t entries;
    int status = scan_once(l, true, &entries);
    if (status == SHALE_OK && entries < l->job->keys) {
        l->r.missing = l->job->keys - entries;
    }
    return status;
}

static int compact_once(struct lane *l)
{
    int64_t since = os_now();
    int status = l->index == 0 && l->driver->compact != NULL ? l->driver->compact(l->session) : SHALE_OK;
    if (status == SHALE_OK) {
        lane_note(l, WRITES, since, 1);
    }
    return status;
}

static int run_workload(struct lane *l)
{
    const struct workload *w = l->job->workload;
    switch (w->shape) {
    case MIX: return (w->flags & W_ONE_WRITER) != 0 ? one_writer_loop(l) : mix_loop(l);
    case FILL: return fill_loop(l);
    case SCAN: return scan_loop(l);
    case VERIFY: return verify_once(l);
    case COMPACT: return compact_once(l);
    case ONE_SHOT: break;
    }
    return oneshot_loop(l);
}

static void *lane_main(void *ctx)
{
    struct lane *l = ctx;
    l->start = os_now();
    l->end = l->job->seconds > 0 ? l->start + (int64_t)(l->job->seconds * 1e9) : OS_NEVER;
    int status = run_workload(l);
    l->r.seconds = (double)(os_now() - l->start) / 1e9;
    for (size_t side = 0; side < SIDES; side++) {
        histogram_merge(&l->r.latency, &l->r.parts[side].latency);
    }
    if (status != SHALE_OK) {
        result_error(&l->r, status, l->job->mode);
    }
    return NULL;
}

/* ---- a worker: its lanes ---- */

static bool lane_init(struct lane *l, const struct job *job, unsigned thread)
{
    size_t entry = job->key_bytes + job->value_bytes;
    l->job = job;
    l->driver = job->driver;
    l->lanes = (uint64_t)job->processes * job->threads;
    l->index = (uint64_t)job->worker * job->threads + thread;
    l->random = checksum_seed(job->seed, l->index);
    l->space = calloc(job->batch, entry);
    l->entries = calloc(job->batch, sizeof *l->entries);
    if (l->space == NULL || l->entries == NULL) {
        return false;
    }
    for (uint64_t k = 0; k < job->batch; k++) {
        l->entries[k].key = slice_make(l->space + k * entry, job->key_bytes);
        l->entries[k].value = slice_make(l->space + k * entry + job->key_bytes, job->value_bytes);
    }
    return true;
}

static void lane_release(struct lane *l)
{
    if (l->session != NULL) {
        l->driver->detach(l->session);
    }
    free(l->space);
    free(l->entries);
}

static void add_lane(struct result *r, const struct result *lane)
{
    r->ops += lane->ops;
    r->commits += lane->commits;
    r->missing += lane->missing;
    r->wrong += lane->wrong;
    r->busy += lane->busy;
    r->put_bytes += lane->put_bytes;
    r->got_bytes += lane->got_bytes;
    r->seconds = lane->seconds > r->seconds ? lane->seconds : r->seconds;
    histogram_merge(&r->latency, &lane->latency);
    for (size_t side = 0; side < SIDES; side++) {
        r->parts[side].ops += lane->parts[side].ops;
        histogram_merge(&r->parts[side].latency, &lane->parts[side].latency);
    }
    if (lane->status != 0 && r->status == 0) {
        r->status = lane->status;
        memcpy(r->text, lane->text, sizeof r->text);
    }
}

/* The parent answers with a byte when all workers are ready. */
static bool wait_for_start(struct result *r)
{
    char c = 'r';
    r->ready = true;
    return write(STDOUT_FILENO, &c, 1) == 1 && read(STDIN_FILENO, &c, 1) == 1;
}

static void run_lanes(struct lane *lanes, unsigned n, struct result *r)
{
    unsigned started = 0;
    while (started < n && r->status == 0) {
        if (os_thread_start(&lanes[started].thread, lane_main, &lanes[started], "lane") != SHALE_OK) {
            result_error(r, SHALE_NOMEM, "thread");
            break;
        }
        started++;
    }
    for (unsigned i = 0; i < started; i++) {
        os_thread_join(lanes[i].thread);
        add_lane(r, &lanes[i].r);
    }
}

/* Those that run for a time leave together: what closing costs is no part of anybody's operations. Not longer
 * than a while: one may have been killed. */
static void wait_for_others(const struct job *job, struct board *board)
{
    int64_t until = os_now() + LEAVE_NS;
    atomic_fetch_add_explicit(&board->through, 1, memory_order_relaxed);
    while (job->seconds > 0 && atomic_load_explicit(&board->through, memory_order_relaxed) < job->processes &&
           !atomic_load_explicit(&board->stop, memory_order_relaxed) && os_now() < until) {
        os_nap(1000000);
    }
}

static int open_lanes(const struct job *job, struct lane *lanes, void **db)
{
    const struct driver_config config = {job->dir, strcmp(job->sync, "commit") == 0, job->options};
    int status = job->driver->open(&config, db);
    for (unsigned i = 0; i < job->threads && status == SHALE_OK; i++) {
        status = job->driver->attach(*db, &lanes[i].session);
    }
    return status;
}

/* The board's file, where the parent left it. */
static int prepare_lanes(const struct job *job, struct lane *lanes)
{
    struct board *board = NULL;
    struct zipf zipf = {0};
    int status = board_attach(job, BOARD_FD, &board);
    close(BOARD_FD);
    if (status == SHALE_OK && job->distribution != UNIFORM) {
        zipf_init(&zipf, job->keys);
    }
    for (unsigned i = 0; status == SHALE_OK && i < job->threads; i++) {
        lanes[i].board = board;
        lanes[i].zipf = zipf;
        status = lane_init(&lanes[i], job, i) ? SHALE_OK : SHALE_NOMEM;
    }
    return status;
}

static void close_lanes(const struct job *job, struct lane *lanes, void *db, struct result *r)
{
    struct board *board = lanes[0].board;
    if (db != NULL && job->driver == &driver_shale) {
        own_counters(db, &r->flushes, &r->compactions);
    }
    r->anon_kib = memory_anonymous_kib();
    r->peak_kib = memory_peak_kib();
    for (unsigned i = 0; i < job->threads; i++) {
        lane_release(&lanes[i]);
    }
    int status = db != NULL ? job->driver->close(db) : SHALE_OK;
    if (status != SHALE_OK && r->status == 0) {
        result_error(r, status, "close");
    }
    io_bytes(&r->io_read, &r->io_written);
    board_detach(job, board);
}

int workload_run(const struct job *job, struct result *r)
{
    void *db = NULL;
    struct lane *lanes = calloc(job->threads, sizeof *lanes);
    r->pid = getpid();
    r->anon_before_kib = memory_anonymous_kib();
    if (lanes == NULL) {
        return result_error(r, SHALE_NOMEM, "start");
    }
    int status = prepare_lanes(job, lanes);
    if (status == SHALE_OK && job->workload->shape != ONE_SHOT) {
        status = open_lanes(job, lanes, &db);
    }
    if (status != SHALE_OK) {
        result_error(r, status, "open");
    } else if (wait_for_start(r)) {
        run_lanes(lanes, job->threads, r);
        wait_for_others(job, lanes[0].board);
    }
    close_lanes(job, lanes, db, r);
    free(lanes);
    return r->status;
}
