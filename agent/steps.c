/* steps.c - one operation of a lane, on any store. */
#include "agent.h"

#include <sched.h>

#define SCAN_MOST 100 /* of YCSB's workload E */

/* ---- which key ---- */

/* So many keys there are by now. */
static uint64_t key_count(const struct lane *l)
{
    return l->job->keys + atomic_load_explicit(&l->board->inserted, memory_order_relaxed);
}

static uint64_t choose(struct lane *l)
{
    const struct job *job = l->job;
    uint64_t z;
    switch (job->distribution) {
    case ZIPFIAN: /* the popular ones are spread over all keys */
        return permute(zipf_next(&l->zipf, &l->random), job->keys, job->seed);
    case LATEST: z = key_count(l) - 1; return z - zipf_next(&l->zipf, &l->random);
    case UNIFORM: break;
    }
    return prng_next(&l->random) % job->keys;
}

static struct slice key_in(const struct lane *l, uint64_t k)
{
    return l->entries[k].key;
}

/* Writes the k-th key and value of the lane's space. */
static void make_entry(struct lane *l, uint64_t k, uint64_t number)
{
    const struct job *job = l->job;
    unsigned char *key = l->space + k * (job->key_bytes + job->value_bytes), *value = key + job->key_bytes;
    key_make(key, job->key_bytes, number);
    value_make(value, job->value_bytes, number, l->index << 48 | (l->r.ops + k));
}

/* ---- reading ---- */

static void saw(struct lane *l, struct slice value)
{
    l->touched ^= value.size >= 8 ? get_u64(value.data) : value.size;
    l->r.got_bytes += l->job->key_bytes + value.size;
}

static int get_number(struct lane *l, uint64_t number)
{
    const struct job *job = l->job;
    bool absent = (job->workload->flags & W_ABSENT) != 0;
    struct slice value;
    (absent ? key_make_absent : key_make)(l->space, job->key_bytes, number);
    int status = l->driver->get(l->session, key_in(l, 0), &value);
    if (status == SHALE_NOTFOUND) {
        l->r.missing++;
        return SHALE_OK;
    }
    if (status == SHALE_OK) {
        saw(l, value);
        l->r.wrong +=
            absent || (job->check && !value_check(value.data, value.size, number, job->value_bytes));
    }
    return status;
}

static int step_get(struct lane *l, uint64_t *done)
{
    (void)done;
    return get_number(l, choose(l));
}

/* An entry that a move came to: behind the one before it, and whole. */
static void check_entry(struct lane *l, const struct entry *e, uint64_t least, uint64_t *number)
{
    bool good = key_parse(e->key.data, e->key.size, number) && *number >= least;
    l->r.wrong += !good || !value_check(e->value.data, e->value.size, *number, l->job->value_bytes);
}

/* Finds a key and reads on from it: n entries, that one counted. */
static int walk(struct lane *l, uint64_t from, uint64_t n, uint64_t *done)
{
    struct entry e;
    uint64_t number = from;
    key_make(l->space, l->job->key_bytes, from);
    int status = l->driver->iterate(l->session);
    if (status != SHALE_OK) {
        return status;
    }
    status = l->driver->move(l->session, MOVE_SEEK, key_in(l, 0), &e);
    for (*done = 0; status == SHALE_OK;) {
        saw(l, e.value);
        if (l->job->check) {
            check_entry(l, &e, number + (*done != 0), &number);
        }
        if (++*done == n) {
            break;
        }
        status = l->driver->move(l->session, MOVE_NEXT, key_in(l, 0), &e);
    }
    l->driver->iterate_end(l->session);
    return status == SHALE_NOTFOUND ? SHALE_OK : status;
}

/* A seek counts once, however many entries are read behind it. */
static int step_seek(struct lane *l, uint64_t *done)
{
    int status = walk(l, choose(l), l->job->nexts + 1, done);
    *done = 1;
    return status;
}

static int step_scan(struct lane *l, uint64_t *done)
{
    uint64_t length = 1 + prng_next(&l->random) % SCAN_MOST;
    int status = walk(l, choose(l), length, done);
    *done = 1;
    return status;
}

/* ---- writing ---- */

/* With --wait none the lock was not had and nothing was written: this is the client that asks again. */
static bool again(struct lane *l, int status)
{
    if (status != SHALE_BUSY || l->job->wait != WAIT_NONE) {
        return false;
    }
    l->r.busy++;
    sched_yield();
    return true;
}

static int commit(struct lane *l, uint64_t n)
{
    const struct job *job = l->job;
    int status;
    do {
        status = n == 1 ? l->driver->put(l->session, l->entries[0].key, l->entries[0].value)
                        : l->driver->batch(l->session, l->entries, n);
    } while (again(l, status));
    if (status == SHALE_OK) {
        l->r.commits++;
        l->r.put_bytes += n * (job->key_bytes + job->value_bytes);
    }
    return status;
}

static int step_put(struct lane *l, uint64_t *done)
{
    *done = l->job->batch;
    for (uint64_t k = 0; k < *done; k++) {
        make_entry(l, k, choose(l));
    }
    return commit(l, *done);
}

/* Behind all keys that are there. */
static int step_insert(struct lane *l, uint64_t *done)
{
    (void)done;
    uint64_t n = atomic_fetch_add_explicit(&l->board->inserted, 1, memory_order_relaxed);
    make_entry(l, 0, l->job->keys + n);
    return commit(l, 1);
}

static int step_rmw(struct lane *l, uint64_t *done)
{
    (void)done;
    uint64_t number = choose(l);
    int status = get_number(l, number);
    if (status == SHALE_OK) {
        make_entry(l, 0, number);
        status = commit(l, 1);
    }
    return status;
}

static int step_delete(struct lane *l, uint64_t *done)
{
    (void)done;
    key_make(l->space, l->job->key_bytes, choose(l));
    int status;
    do {
        status = l->driver->del(l->session, key_in(l, 0));
    } while (again(l, status));
    if (status == SHALE_OK) {
        l->r.commits++;
        l->r.put_bytes += l->job->key_bytes;
    }
    return status;
}

int step_fill(struct lane *l, uint64_t i, uint64_t n)
{
    const struct job *job = l->job;
    uint64_t first = l->index * job->keys / l->lanes;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t number = first + i + k;
        make_entry(l, k, job->sequential ? number : permute(number, job->keys, job->seed));
    }
    return commit(l, n);
}

int step_run(struct lane *l, enum op op, uint64_t *done)
{
    static int (*const steps[OPS])(struct lane *, uint64_t *) = {
        [OP_GET] = step_get,   [OP_PUT] = step_put, [OP_INSERT] = step_insert, [OP_SCAN] = step_scan,
        [OP_SEEK] = step_seek, [OP_RMW] = step_rmw, [OP_DELETE] = step_delete,
    };
    *done = 1;
    return steps[op](l, done);
}
