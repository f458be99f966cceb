/* workload.c - the benchmarks' loops. A lane is one thread of one process; it has its own random numbers,
 * counters and histogram, so that lanes share nothing but the database.
 *
 * Every operation is timed from the end of the one before it: one look at the clock each. Where several puts
 * go in one batch, the commit is what is timed and each put is counted.
 */
#include "agent.h"
#include "os/os.h"

#include <stdlib.h>

struct lane {
    const struct job *job;
    shale_db *db;
    uint64_t index, lanes, random;
    int64_t end; /* by the clock; OS_NEVER: by the number of operations */
    struct result r;
    shale_batch *batch;
    unsigned char *key, *value;
    pthread_t thread;
};

/* ---- one operation ---- */

/* batch puts in one commit: of key numbers from next(lane, i). */
static int put_step(struct lane *l, uint64_t i, uint64_t n, bool fresh)
{
    const struct job *job = l->job;
    uint64_t first = l->index * job->keys / l->lanes;
    int status = SHALE_OK;
    for (uint64_t k = 0; k < n && status == SHALE_OK; k++) {
        uint64_t number = fresh ? first + i + k : prng_next(&l->random) % job->keys;
        if (fresh && !job->sequential) {
            number = permute(number, job->keys, job->seed);
        }
        key_make(l->key, job->key_bytes, number);
        value_make(l->value, job->value_bytes, number, l->index << 48 | (l->r.ops + k));
        if (n == 1) {
            status = shale_put(l->db, l->key, job->key_bytes, l->value, job->value_bytes, 0);
        } else {
            status = shale_batch_put(l->batch, l->key, job->key_bytes, l->value, job->value_bytes);
        }
    }
    if (status == SHALE_OK && n != 1) {
        status = shale_write(l->db, l->batch, 0);
        shale_batch_clear(l->batch);
    }
    l->r.commits += status == SHALE_OK;
    return status;
}

static int get_step(struct lane *l)
{
    const struct job *job = l->job;
    uint64_t number = prng_next(&l->random) % job->keys;
    shale_value val = {0};
    key_make(l->key, job->key_bytes, number);
    int status = shale_get(l->db, NULL, l->key, job->key_bytes, &val);
    if (status == SHALE_NOTFOUND) {
        l->r.missing++;
        return SHALE_OK;
    }
    if (status == SHALE_OK && job->check && !value_check(val.data, val.size, number, job->value_bytes)) {
        l->r.wrong++;
    }
    shale_value_release(&val);
    return status;
}

/* ---- loops ---- */

static int64_t note(struct lane *l, int64_t since, uint64_t ops)
{
    int64_t now = os_now();
    histogram_add(&l->r.latency, (uint64_t)(now - since));
    l->r.ops += ops;
    return now;
}

static int point_loop(struct lane *l, bool fresh, unsigned read_percent)
{
    const struct job *job = l->job;
    uint64_t total = fresh ? job->keys : job->ops;
    uint64_t share = (l->index + 1) * total / l->lanes - l->index * total / l->lanes;
    bool timed = l->end != OS_NEVER && !fresh;
    int status = SHALE_OK;
    for (int64_t now = os_now(); status == SHALE_OK && (timed || l->r.ops < share) && now < l->end;) {
        uint64_t n = 1;
        if (read_percent != 0 && prng_next(&l->random) % 100 < read_percent) {
            status = get_step(l);
        } else {
            n = !timed && share - l->r.ops < job->batch ? share - l->r.ops : job->batch;
            status = put_step(l, l->r.ops, n, fresh);
        }
        now = note(l, now, n);
    }
    return status;
}

/* A whole scan; stretches of 1,024 entries are timed. *entries: how many there were. */
static int scan_once(struct lane *l, bool check, uint64_t *entries)
{
    shale_iter *it = NULL;
    int64_t now = os_now();
    int status = shale_iter_range(l->db, NULL, NULL, 0, NULL, 0, SHALE_NO_FILL_CACHE, &it);
    *entries = 0;
    for (status = status == SHALE_OK ? shale_iter_first(it) : status; status == SHALE_OK;
         status = shale_iter_next(it)) {
        size_t keylen, vallen;
        const void *key = shale_iter_key(it, &keylen), *val = shale_iter_value(it, &vallen);
        uint64_t number;
        if (check &&
            (!key_parse(key, keylen, &number) || !value_check(val, vallen, number, l->job->value_bytes))) {
            l->r.wrong++;
        }
        if (++*entries % 1024 == 0) {
            now = note(l, now, 1024);
            if (now >= l->end) {
                break;
            }
        }
    }
    l->r.ops += *entries % 1024;
    shale_iter_destroy(it);
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

static int run_mode(struct lane *l)
{
    const char *mode = l->job->mode;
    if (strcmp(mode, "fill") == 0) {
        return point_loop(l, true, 0);
    }
    if (strcmp(mode, "overwrite") == 0) {
        return point_loop(l, false, 0);
    }
    if (strcmp(mode, "read") == 0) {
        return point_loop(l, false, 100);
    }
    if (strcmp(mode, "mixed") == 0) {
        return point_loop(l, false, l->job->read_percent);
    }
    return strcmp(mode, "scan") == 0 ? scan_loop(l) : verify_once(l);
}

static void *lane_main(void *ctx)
{
    struct lane *l = ctx;
    int64_t start = os_now();
    l->end = l->job->seconds > 0 ? start + (int64_t)(l->job->seconds * 1e9) : OS_NEVER;
    int status = run_mode(l);
    l->r.seconds = (double)(os_now() - start) / 1e9;
    if (status != SHALE_OK) {
        result_error(&l->r, status, l->job->mode);
    }
    return NULL;
}

/* ---- a worker: its lanes ---- */

static bool lane_init(struct lane *l, const struct job *job, shale_db *db, unsigned thread)
{
    l->job = job;
    l->db = db;
    l->lanes = (uint64_t)job->processes * job->threads;
    l->index = (uint64_t)job->worker * job->threads + thread;
    l->random = checksum_seed(job->seed, l->index);
    l->key = malloc(job->key_bytes);
    l->value = malloc(job->value_bytes);
    return l->key != NULL && l->value != NULL && shale_batch_create(&l->batch) == SHALE_OK;
}

static void lane_release(struct lane *l)
{
    free(l->key);
    free(l->value);
    shale_batch_destroy(l->batch);
}

static void add_lane(struct result *r, const struct result *lane)
{
    r->ops += lane->ops;
    r->commits += lane->commits;
    r->missing += lane->missing;
    r->wrong += lane->wrong;
    r->seconds = lane->seconds > r->seconds ? lane->seconds : r->seconds;
    histogram_merge(&r->latency, &lane->latency);
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

int workload_run(const struct job *job, struct result *r)
{
    shale_db *db = NULL;
    struct lane *lanes = calloc(job->threads, sizeof *lanes);
    bool ready = lanes != NULL;
    r->pid = getpid();
    r->anon_before_kib = memory_anonymous_kib();
    for (unsigned i = 0; ready && i < job->threads; i++) {
        ready = lane_init(&lanes[i], job, NULL, i);
    }
    int status = ready ? shale_open(job->dir, job->options, &db) : SHALE_NOMEM;
    if (status != SHALE_OK) {
        result_error(r, status, "open");
        goto out;
    }
    for (unsigned i = 0; i < job->threads; i++) {
        lanes[i].db = db;
    }
    if (wait_for_start(r)) {
        run_lanes(lanes, job->threads, r);
    }
    own_counters(db, &r->flushes, &r->compactions);
    r->anon_kib = memory_anonymous_kib();
    status = shale_close(db);
    if (status != SHALE_OK && r->status == 0) {
        result_error(r, status, "close");
    }
out:
    for (unsigned i = 0; lanes != NULL && i < job->threads; i++) {
        lane_release(&lanes[i]);
    }
    free(lanes);
    return r->status;
}
