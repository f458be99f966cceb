#include "stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define RING_KEYS  3000u
#define RING_STEP  1237u /* has no divisor in common with RING_KEYS: one round meets each key once */
#define RING_MOST  200   /* operations of a batch */
#define VALUE_MAX  (300u << 10)
#define KEY_SIZE   32
#define RING_TRIES 60 /* keys read by get */

struct ring_value {
    uint64_t op;
    uint32_t ring, key;
};

static int wrong(char err[GROUPS_ERR], const char *fmt, ...) BASE_PRINTF(2, 3);
static int wrong(char err[GROUPS_ERR], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, GROUPS_ERR, fmt, ap);
    va_end(ap);
    groups_status = SHALE_OK;
    return -1;
}

static int refused(char err[GROUPS_ERR], const char *what, int status)
{
    wrong(err, "%s: %s: %s", what, shale_errname(status), shale_errmsg());
    groups_status = status;
    return -1;
}

static size_t key_name(unsigned ring, unsigned key, char out[KEY_SIZE])
{
    return (size_t)snprintf(out, KEY_SIZE, "bulk/%02u/%06u", ring, key);
}

static size_t head_name(unsigned ring, const char *what, char out[KEY_SIZE])
{
    return (size_t)snprintf(out, KEY_SIZE, "bulk/%02u/%s", ring, what);
}

static unsigned key_of(uint64_t op)
{
    return (unsigned)(op * RING_STEP % RING_KEYS);
}

static bool deletes(uint64_t op)
{
    return op % 16 >= 13;
}

static uint32_t first_op[RING_KEYS]; /* of each key: 1..RING_KEYS */

static void fill_first_op(void)
{
    for (uint32_t op = 1; op <= RING_KEYS; op++) {
        first_op[key_of(op)] = op;
    }
}

/* The last operation up to c that is about a key; 0: none was. */
static uint64_t last_op(unsigned key, uint64_t c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_first_op);
    return c < first_op[key] ? 0 : first_op[key] + (c - first_op[key]) / RING_KEYS * RING_KEYS;
}

static size_t value_size(uint64_t op)
{
    uint64_t seed = op;
    size_t small = sizeof(struct ring_value) + prng_next(&seed) % 400;
    return op % 4001 == 0 ? VALUE_MAX - small : op % 97 == 0 ? 5000 + small : small;
}

static void fill_value(unsigned ring, uint64_t op, unsigned char *out, size_t size)
{
    struct ring_value head = {op, ring, key_of(op)};
    uint64_t seed = op * 64 + ring, word = 0;
    memcpy(out, &head, sizeof head);
    for (size_t i = sizeof head; i < size; i++) {
        if (i % 16 == 0) {
            word = prng_next(&seed);
        }
        out[i] = (unsigned char)(i % 16 < 8 ? word >> i % 8 * 8 : 'y');
    }
}

/* ---- writing ---- */

static int read_head(shale_db *db, const shale_snapshot *snap, unsigned ring, uint64_t *c)
{
    char name[KEY_SIZE];
    size_t got = 0;
    int rc = shale_get_copy(db, snap, name, head_name(ring, "head", name), c, sizeof *c, &got);
    if (rc == SHALE_NOTFOUND) {
        *c = 0;
        return SHALE_OK;
    }
    return rc;
}

/* Operations [from, to], and the head. */
static int fill_batch(shale_batch *batch, unsigned ring, uint64_t from, uint64_t to, unsigned char *value)
{
    char name[KEY_SIZE];
    int rc = shale_batch_put(batch, name, head_name(ring, "head", name), &to, sizeof to);
    for (uint64_t op = from; op <= to && rc == SHALE_OK; op++) {
        size_t keylen = key_name(ring, key_of(op), name);
        if (deletes(op)) {
            rc = shale_batch_delete(batch, name, keylen);
        } else {
            fill_value(ring, op, value, value_size(op));
            rc = shale_batch_put(batch, name, keylen, value, value_size(op));
        }
    }
    return rc;
}

/* In a transaction, without a write: the commit of a killed one may be in the log and not yet visible. The
 * next who gets the write lock decides its fate; whoever only reads before that may see the old head, and go
 * on from there after the commit has appeared. */
static int find_head(shale_db *db, struct stage *s, struct ring_hand *hand, unsigned flags,
                     char err[GROUPS_ERR])
{
    uint64_t low = atomic_load(&s->ring[hand->ring].acknowledged), c = 0;
    char name[KEY_SIZE];
    shale_value value = {0};
    shale_txn *txn = NULL;
    int rc = shale_txn_begin(db, flags, -1, &txn);
    if (rc != SHALE_OK) {
        return refused(err, "shale_txn_begin", rc);
    }
    rc = shale_txn_get(txn, name, head_name(hand->ring, "head", name), &value);
    if (rc == SHALE_OK && value.size == sizeof c) {
        memcpy(&c, value.data, sizeof c);
    }
    shale_value_release(&value);
    shale_txn_abort(txn);
    if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
        return refused(err, "shale_txn_get", rc);
    }
    if (c < low || c > atomic_load(&s->ring[hand->ring].started)) {
        return wrong(err, "ring %u: its next writer finds %llu, acknowledged %llu, started %llu", hand->ring,
                     (unsigned long long)c, (unsigned long long)low,
                     (unsigned long long)atomic_load(&s->ring[hand->ring].started));
    }
    hand->at = c;
    hand->known = true;
    return 0;
}

int ring_write(shale_db *db, struct stage *s, struct ring_hand *hand, unsigned count, unsigned flags,
               char err[GROUPS_ERR])
{
    shale_batch *batch = NULL;
    unsigned char *value = malloc(VALUE_MAX);
    int rc = value == NULL ? SHALE_NOMEM : shale_batch_create(&batch);
    if (rc == SHALE_OK && !hand->known && find_head(db, s, hand, flags, err) != 0) {
        shale_batch_destroy(batch);
        free(value);
        return -1;
    }
    uint64_t to = hand->at + (count < RING_MOST ? count : RING_MOST);
    if (rc == SHALE_OK) {
        rc = fill_batch(batch, hand->ring, hand->at + 1, to, value);
    }
    if (rc == SHALE_OK) {
        board_raise(&s->ring[hand->ring].started, to);
        rc = shale_write(db, batch, flags);
    }
    hand->known = rc == SHALE_OK; /* a commit of unknown fate is looked up */
    if (rc == SHALE_OK) {
        board_raise(&s->ring[hand->ring].acknowledged, to);
        hand->at = to;
    }
    shale_batch_destroy(batch);
    free(value);
    return rc == SHALE_OK ? 0 : refused(err, "shale_write", rc);
}

int ring_write_solo(shale_db *db, struct stage *s, unsigned ring, unsigned flags, char err[GROUPS_ERR])
{
    char name[KEY_SIZE];
    size_t keylen = head_name(ring, "solo", name);
    uint64_t c = atomic_load(&s->solo[ring].started) + 1;
    atomic_store(&s->solo[ring].started, c);
    int rc =
        c % 8 == 7 ? shale_delete(db, name, keylen, flags) : shale_put(db, name, keylen, &c, sizeof c, flags);
    if (rc != SHALE_OK) {
        return refused(err, c % 8 == 7 ? "shale_delete" : "shale_put", rc);
    }
    board_raise(&s->solo[ring].acknowledged, c);
    return 0;
}

/* ---- reading ---- */

void ring_note_low(struct stage *s, struct stage_bounds *bounds)
{
    for (unsigned i = 0; i < STAGE_RINGS; i++) {
        bounds->ring_low[i] = atomic_load(&s->ring[i].acknowledged);
    }
}

void ring_note_high(struct stage *s, struct stage_bounds *bounds)
{
    for (unsigned i = 0; i < STAGE_RINGS; i++) {
        bounds->ring_high[i] = atomic_load(&s->ring[i].started);
    }
}

struct ring_view {
    unsigned ring;
    uint64_t c;
    unsigned char *expected; /* VALUE_MAX bytes */
    char *err;
};

/* What stands under a key (data NULL: nothing) is what the first c operations leave there. */
static int judge_key(const struct ring_view *v, unsigned key, const void *data, size_t size)
{
    uint64_t op = last_op(key, v->c);
    bool there = op != 0 && !deletes(op);
    struct ring_value head = {0};
    if (data != NULL && size >= sizeof head) {
        memcpy(&head, data, sizeof head);
    }
    if (there != (data != NULL)) {
        return wrong(v->err, "ring %u key %u: operation %llu of %llu %s it, but it is %s (%llu's)", v->ring,
                     key, (unsigned long long)op, (unsigned long long)v->c, there ? "put" : "deleted",
                     there ? "lost" : "there", (unsigned long long)head.op);
    }
    if (!there) {
        return 0;
    }
    fill_value(v->ring, op, v->expected, value_size(op));
    if (size != value_size(op) || memcmp(data, v->expected, size) != 0) {
        return wrong(v->err,
                     "ring %u key %u at %llu: operation %llu's value was expected, found %llu's, %zu bytes",
                     v->ring, key, (unsigned long long)v->c, (unsigned long long)op,
                     (unsigned long long)head.op, size);
    }
    return 0;
}

static int judge_gap(const struct ring_view *v, unsigned from, unsigned to)
{
    int rc = 0;
    for (unsigned key = from; key < to && rc == 0; key++) {
        rc = judge_key(v, key, NULL, 0);
    }
    return rc;
}

/* Walks the ring's keys; what lies between two that are there was judged to be rightly absent. */
static int scan(const struct ring_view *v, shale_iter *it, bool back)
{
    unsigned edge = back ? RING_KEYS : 0; /* keys on that side of it are judged */
    size_t size, vsize;
    int bad = 0, rc = back ? shale_iter_last(it) : shale_iter_first(it);
    for (; rc == SHALE_OK && bad == 0; rc = back ? shale_iter_prev(it) : shale_iter_next(it)) {
        char name[KEY_SIZE] = "";
        const void *key = shale_iter_key(it, &size), *value = shale_iter_value(it, &vsize);
        memcpy(name, key, size < sizeof name ? size : sizeof name - 1);
        if (size != 14 || name[8] < '0' || name[8] > '9') { /* head or solo */
            continue;
        }
        unsigned k = (unsigned)strtoul(name + 8, NULL, 10);
        if (k >= RING_KEYS || (back ? k >= edge : k < edge)) {
            return wrong(v->err, "ring %u: key %s out of order or never written", v->ring, name);
        }
        bad = back ? judge_gap(v, k + 1, edge) : judge_gap(v, edge, k);
        bad = bad == 0 ? judge_key(v, k, value, vsize) : bad;
        edge = back ? k : k + 1;
    }
    if (bad == 0 && rc == SHALE_NOTFOUND) {
        bad = back ? judge_gap(v, 0, edge) : judge_gap(v, edge, RING_KEYS);
    } else if (bad == 0) {
        bad = refused(v->err, back ? "shale_iter_prev" : "shale_iter_next", rc);
    }
    return bad;
}

static int read_by_scan(shale_db *db, const shale_snapshot *snap, const struct ring_view *v, bool back)
{
    char prefix[KEY_SIZE];
    shale_iter *it = NULL;
    shale_iter_options o;
    shale_iter_options_init(&o);
    o.prefix = prefix;
    o.prefixlen = (size_t)snprintf(prefix, sizeof prefix, "bulk/%02u/", v->ring);
    int rc = shale_iter_create(db, snap, &o, &it);
    if (rc != SHALE_OK) {
        return refused(v->err, "shale_iter_create", rc);
    }
    rc = scan(v, it, back);
    shale_iter_destroy(it);
    return rc;
}

static int read_by_get(shale_db *db, const shale_snapshot *snap, const struct ring_view *v, uint64_t *seed)
{
    int bad = 0;
    for (unsigned i = 0; i < RING_TRIES && bad == 0; i++) {
        unsigned key = (unsigned)(prng_next(seed) % RING_KEYS);
        char name[KEY_SIZE];
        shale_value value = {0};
        int rc = shale_get(db, snap, name, key_name(v->ring, key, name), &value);
        if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
            return refused(v->err, "shale_get", rc);
        }
        bad = judge_key(v, key, rc == SHALE_OK ? value.data : NULL, value.size);
        shale_value_release(&value);
    }
    return bad;
}

int ring_read(shale_db *db, const shale_snapshot *snap, unsigned ring, enum ring_how how,
              struct stage_bounds *bounds, uint64_t *seed, char err[GROUPS_ERR])
{
    struct ring_view v = {.ring = ring, .err = err};
    int rc = read_head(db, snap, ring, &v.c);
    if (rc != SHALE_OK) {
        return refused(err, "shale_get_copy", rc);
    }
    if (v.c < bounds->ring_low[ring] || v.c > bounds->ring_high[ring]) {
        return wrong(err, "ring %u: %s: %llu, but acknowledged %llu and started %llu", ring,
                     v.c < bounds->ring_low[ring] ? "lost" : "invented", (unsigned long long)v.c,
                     (unsigned long long)bounds->ring_low[ring], (unsigned long long)bounds->ring_high[ring]);
    }
    v.expected = malloc(VALUE_MAX);
    if (v.expected == NULL) {
        return wrong(err, "no memory");
    }
    rc =
        how == RING_GET ? read_by_get(db, snap, &v, seed) : read_by_scan(db, snap, &v, how == RING_SCAN_BACK);
    free(v.expected);
    if (rc == 0) {
        bounds->ring_low[ring] = bounds->ring_high[ring] = v.c;
    }
    return rc;
}

int ring_read_solo(shale_db *db, struct stage *s, unsigned ring, char err[GROUPS_ERR])
{
    uint64_t low = atomic_load(&s->solo[ring].acknowledged), c = 0;
    char name[KEY_SIZE];
    size_t got = 0;
    int rc = shale_get_copy(db, NULL, name, head_name(ring, "solo", name), &c, sizeof c, &got);
    if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
        return refused(err, "shale_get_copy", rc);
    }
    uint64_t high = atomic_load(&s->solo[ring].started);
    if (rc == SHALE_NOTFOUND && low != 0) {
        c = low + (7 + 8 - low % 8) % 8; /* the next deletion, if there was one */
    }
    if (c < low || c > high) {
        return wrong(err, "key %s: %llu, but acknowledged %llu and started %llu", name, (unsigned long long)c,
                     (unsigned long long)low, (unsigned long long)high);
    }
    return 0;
}
