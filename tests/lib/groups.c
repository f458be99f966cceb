#include "groups.h"

#include <stdarg.h>
#include <stdio.h>

#define VALUE_MAX 4096

struct group_value {
    uint64_t counter;
    uint32_t group, key;
};

static size_t group_key(unsigned group, unsigned key, char out[32])
{
    return (size_t)snprintf(out, 32, "k%u/group-%03u", key, group);
}

/* Group and key of a key's name; false: not one of ours. */
static bool group_parse(const void *name, size_t size, unsigned *group, unsigned *key)
{
    char text[32], again[32];
    if (size >= sizeof text) {
        return false;
    }
    memcpy(text, name, size);
    text[size] = '\0';
    return sscanf(text, "k%u/group-%u", key, group) == 2 && *key < GROUP_KEYS && *group < BOARD_GROUPS &&
           group_key(*group, *key, again) == size && memcmp(again, text, size) == 0;
}

static bool deletes(uint64_t c)
{
    return c % 8 == 7;
}

static size_t group_value(unsigned group, unsigned key, uint64_t c, unsigned char out[VALUE_MAX])
{
    struct group_value head = {c, group, key};
    uint64_t seed = c * 1000003 + group * 8191 + key;
    size_t size = sizeof head + (c % 32 == 5 ? 3000 : prng_next(&seed) % 200);
    memcpy(out, &head, sizeof head);
    for (size_t i = sizeof head; i < size; i++) {
        out[i] = (unsigned char)((i & 1) != 0 ? 'x' : prng_next(&seed));
    }
    return size;
}

_Thread_local int groups_status;

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

static int wrong_status(char err[GROUPS_ERR], const char *what, int status)
{
    wrong(err, "%s: %s: %s", what, shale_errname(status), shale_errmsg());
    groups_status = status;
    return -1;
}

/* ---- writing ---- */

int groups_fill(shale_batch *batch, unsigned group, uint64_t c)
{
    unsigned char value[VALUE_MAX];
    char name[32];
    int rc = SHALE_OK;
    for (unsigned k = 0; k < GROUP_KEYS && rc == SHALE_OK; k++) {
        size_t keylen = group_key(group, k, name);
        if (k > 0 && deletes(c)) {
            rc = shale_batch_delete(batch, name, keylen);
        } else {
            rc = shale_batch_put(batch, name, keylen, value, group_value(group, k, c, value));
        }
    }
    return rc;
}

int groups_write(shale_db *db, struct board *b, unsigned group, unsigned flags, char err[GROUPS_ERR])
{
    struct board_group *g = &b->group[group];
    shale_batch *batch = NULL;
    uint64_t c = atomic_load(&g->started) + 1;
    int rc = shale_batch_create(&batch);
    if (rc == SHALE_OK) {
        rc = groups_fill(batch, group, c);
    }
    if (rc == SHALE_OK) {
        atomic_store(&g->started, c);
        rc = shale_write(db, batch, flags);
    }
    if (rc == SHALE_OK) {
        board_raise(&g->acknowledged, c);
    }
    shale_batch_destroy(batch);
    return rc == SHALE_OK ? 0 : wrong_status(err, "shale_write", rc);
}

/* The counter in a value of the group's first key; 0: there is none yet. */
static int txn_counter(shale_txn *txn, unsigned group, uint64_t *c)
{
    char name[32];
    shale_value v = {0};
    int rc = shale_txn_get(txn, name, group_key(group, 0, name), &v);
    *c = 0;
    if (rc == SHALE_OK && v.size >= sizeof *c) {
        memcpy(c, v.data, sizeof *c);
    }
    shale_value_release(&v);
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

static int txn_fill(shale_txn *txn, unsigned group, uint64_t c)
{
    unsigned char value[VALUE_MAX];
    char name[32];
    int rc = SHALE_OK;
    for (unsigned k = 0; k < GROUP_KEYS && rc == SHALE_OK; k++) {
        size_t keylen = group_key(group, k, name);
        if (k > 0 && deletes(c)) {
            rc = shale_txn_delete(txn, name, keylen);
        } else {
            rc = shale_txn_put(txn, name, keylen, value, group_value(group, k, c, value));
        }
    }
    return rc;
}

int groups_write_txn(shale_db *db, struct board *b, unsigned group, unsigned flags, char err[GROUPS_ERR])
{
    struct board_group *g = &b->group[group];
    shale_txn *txn = NULL;
    uint64_t low = atomic_load(&g->acknowledged), c;
    int rc = shale_txn_begin(db, flags, -1, &txn);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_txn_begin", rc);
    }
    rc = txn_counter(txn, group, &c);
    if (rc != SHALE_OK) {
        shale_txn_abort(txn);
        return wrong_status(err, "shale_txn_get", rc);
    }
    if (c < low || c > atomic_load(&g->started)) {
        shale_txn_abort(txn);
        return wrong(err, "group %u: a transaction read %llu, acknowledged %llu, started %llu", group,
                     (unsigned long long)c, (unsigned long long)low,
                     (unsigned long long)atomic_load(&g->started));
    }
    c++;
    board_raise(&g->started, c);
    rc = txn_fill(txn, group, c);
    if (rc != SHALE_OK) {
        shale_txn_abort(txn);
        return wrong_status(err, "shale_txn_put", rc);
    }
    rc = shale_txn_commit(txn);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_txn_commit", rc);
    }
    board_raise(&g->acknowledged, c);
    return 0;
}

/* ---- checking ---- */

struct group_state {
    uint64_t low, high; /* counters that are possible */
    uint64_t counter;   /* of the first key; 0: none */
    unsigned present;   /* bits of the keys that were found */
    uint64_t found[GROUP_KEYS];
};

static int take_value(struct group_state *s, unsigned group, unsigned key, const void *data, size_t size,
                      char err[GROUPS_ERR])
{
    unsigned char expected[VALUE_MAX];
    struct group_value head;
    if (size < sizeof head) {
        return wrong(err, "group %u key %u: a value of %zu bytes was never written", group, key, size);
    }
    memcpy(&head, data, sizeof head);
    size_t want = group_value(group, key, head.counter, expected);
    if (want != size || memcmp(expected, data, size) != 0) {
        return wrong(err, "group %u key %u: a value that was never written (counter %llu, %zu bytes)", group,
                     key, (unsigned long long)head.counter, size);
    }
    if ((s->present >> key & 1) != 0) {
        return wrong(err, "group %u key %u: there twice", group, key);
    }
    s->present |= 1u << key;
    s->found[key] = head.counter;
    return 0;
}

static int judge(const struct group_state *s, unsigned group, struct board_group *g, char err[GROUPS_ERR])
{
    uint64_t c = (s->present & 1) != 0 ? s->found[0] : 0;
    unsigned expected = c == 0 ? 0 : deletes(c) ? 1 : (1u << GROUP_KEYS) - 1;
    if (s->present != expected) {
        return wrong(err, "group %u: torn: counter %llu, but keys %#x", group, (unsigned long long)c,
                     s->present);
    }
    for (unsigned k = 0; k < GROUP_KEYS; k++) {
        if ((s->present >> k & 1) != 0 && s->found[k] != c) {
            return wrong(err, "group %u: torn: key 0 has %llu, key %u has %llu", group, (unsigned long long)c,
                         k, (unsigned long long)s->found[k]);
        }
    }
    if (c < s->low) {
        return wrong(err, "group %u: lost: %llu, but %llu was acknowledged or seen before", group,
                     (unsigned long long)c, (unsigned long long)s->low);
    }
    if (c > s->high) {
        return wrong(err, "group %u: invented: %llu, but only %llu was started", group, (unsigned long long)c,
                     (unsigned long long)s->high);
    }
    board_raise(&g->seen, c);
    return 0;
}

static int check_by_get(shale_db *db, const shale_snapshot *snap, struct group_state *s, unsigned n,
                        char err[GROUPS_ERR])
{
    for (unsigned i = 0; i < n * GROUP_KEYS; i++) {
        unsigned group = i / GROUP_KEYS, key = i % GROUP_KEYS;
        char name[32];
        shale_value v = {0};
        int rc = shale_get(db, snap, name, group_key(group, key, name), &v);
        if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
            return wrong_status(err, "shale_get", rc);
        }
        int bad = rc == SHALE_OK ? take_value(&s[group], group, key, v.data, v.size, err) : 0;
        shale_value_release(&v);
        if (bad != 0) {
            return bad;
        }
    }
    return 0;
}

static int check_by_multi_get(shale_db *db, const shale_snapshot *snap, struct group_state *s, unsigned n,
                              char err[GROUPS_ERR])
{
    char names[GROUP_KEYS][32];
    const void *keys[GROUP_KEYS];
    size_t lens[GROUP_KEYS];
    shale_value vals[GROUP_KEYS];
    int status[GROUP_KEYS], bad = 0;
    for (unsigned group = 0; group < n && bad == 0; group++) {
        for (unsigned k = 0; k < GROUP_KEYS; k++) {
            lens[k] = group_key(group, k, names[k]);
            keys[k] = names[k];
        }
        int rc = shale_multi_get(db, snap, GROUP_KEYS, keys, lens, vals, status);
        if (rc != SHALE_OK) {
            return wrong_status(err, "shale_multi_get", rc);
        }
        for (unsigned k = 0; k < GROUP_KEYS; k++) {
            if (status[k] != SHALE_OK && status[k] != SHALE_NOTFOUND) {
                bad = wrong_status(err, "shale_multi_get", status[k]);
            } else if (status[k] == SHALE_OK && bad == 0) {
                bad = take_value(&s[group], group, k, vals[k].data, vals[k].size, err);
            }
            shale_value_release(&vals[k]);
        }
    }
    return bad;
}

static int scan(shale_iter *it, bool back, struct group_state *s, unsigned n, char err[GROUPS_ERR])
{
    char last[32] = "";
    size_t last_size = 0, size, vsize;
    int rc = back ? shale_iter_last(it) : shale_iter_first(it);
    for (; rc == SHALE_OK; rc = back ? shale_iter_prev(it) : shale_iter_next(it)) {
        unsigned group, key;
        const void *name = shale_iter_key(it, &size);
        if (!group_parse(name, size, &group, &key)) {
            if ((size > 8 && memcmp(name, "counter/", 8) == 0) ||
                (size > 5 && memcmp(name, "bulk/", 5) == 0)) {
                continue;
            }
            return wrong(err, "a key that was never written: %.*s", (int)size, (const char *)name);
        }
        int order = slice_compare(slice_make(name, size), slice_make(last, last_size));
        if (last_size != 0 && (back ? order >= 0 : order <= 0)) {
            return wrong(err, "out of order: %.*s after %s", (int)size, (const char *)name, last);
        }
        memcpy(last, name, size);
        last_size = size;
        const void *value = shale_iter_value(it, &vsize);
        if (group < n && take_value(&s[group], group, key, value, vsize, err) != 0) {
            return -1;
        }
    }
    return rc == SHALE_NOTFOUND ? 0 : wrong_status(err, back ? "shale_iter_prev" : "shale_iter_next", rc);
}

static int check_by_scan(shale_db *db, const shale_snapshot *snap, bool back, struct group_state *s,
                         unsigned n, char err[GROUPS_ERR])
{
    shale_iter *it = NULL;
    int rc = shale_iter_create(db, snap, NULL, &it);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_iter_create", rc);
    }
    rc = scan(it, back, s, n, err);
    shale_iter_destroy(it);
    return rc;
}

void groups_note_low(struct board *b, struct groups_bounds *bounds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t acknowledged = atomic_load(&b->group[i].acknowledged), seen = atomic_load(&b->group[i].seen);
        bounds->low[i] = acknowledged > seen ? acknowledged : seen;
    }
}

void groups_note_high(struct board *b, struct groups_bounds *bounds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        bounds->high[i] = atomic_load(&b->group[i].started);
    }
}

static int read_all(shale_db *db, const shale_snapshot *snap, struct group_state *s, unsigned n,
                    enum groups_how how, char err[GROUPS_ERR])
{
    memset(s, 0, n * sizeof *s);
    switch (how) {
    case GROUPS_GET: return check_by_get(db, snap, s, n, err);
    case GROUPS_MULTI: return check_by_multi_get(db, snap, s, n, err);
    default: return check_by_scan(db, snap, how == GROUPS_SCAN_BACK, s, n, err);
    }
}

static int judge_all(struct board *b, struct group_state *s, const struct groups_bounds *bounds, unsigned n,
                     char err[GROUPS_ERR])
{
    int rc = 0;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        s[i].low = bounds->low[i];
        s[i].high = bounds->high[i];
        rc = judge(&s[i], i, &b->group[i], err);
    }
    return rc;
}

int groups_read(shale_db *db, struct board *b, const shale_snapshot *snap, unsigned n, enum groups_how how,
                struct groups_bounds *bounds, char err[GROUPS_ERR])
{
    struct group_state s[BOARD_GROUPS];
    int rc = read_all(db, snap, s, n, how, err);
    if (rc == 0) {
        rc = judge_all(b, s, bounds, n, err);
    }
    for (unsigned i = 0; i < n && rc == 0; i++) {
        bounds->low[i] = bounds->high[i] = (s[i].present & 1) != 0 ? s[i].found[0] : 0;
    }
    return rc;
}

int groups_check(shale_db *db, struct board *b, unsigned n, enum groups_how how, char err[GROUPS_ERR])
{
    struct groups_bounds bounds;
    shale_snapshot *snap = NULL;
    groups_note_low(b, &bounds, n);
    if (how == GROUPS_VIEW) {
        struct group_state s[BOARD_GROUPS];
        int rc = read_all(db, NULL, s, n, how, err);
        groups_note_high(b, &bounds, n);
        return rc == 0 ? judge_all(b, s, &bounds, n, err) : rc;
    }
    int rc = shale_snapshot_create(db, &snap);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_snapshot_create", rc);
    }
    groups_note_high(b, &bounds, n);
    rc = groups_read(db, b, snap, n, how, &bounds, err);
    shale_snapshot_release(snap);
    return rc;
}

/* ---- counters ---- */

static size_t counter_key(unsigned counter, char out[32])
{
    return (size_t)snprintf(out, 32, "counter/%u", counter);
}

int counters_add(shale_db *db, struct board *b, unsigned counter, unsigned flags, char err[GROUPS_ERR])
{
    struct board_group *g = &b->counter[counter];
    char name[32];
    size_t keylen = counter_key(counter, name);
    shale_txn *txn = NULL;
    shale_value v = {0};
    uint64_t c = 0;
    int rc = shale_txn_begin(db, flags, -1, &txn);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_txn_begin", rc);
    }
    rc = shale_txn_get(txn, name, keylen, &v);
    if (rc == SHALE_OK && v.size == sizeof c) {
        memcpy(&c, v.data, sizeof c);
    }
    shale_value_release(&v);
    c++;
    board_raise(&g->started, c);
    if (rc == SHALE_OK || rc == SHALE_NOTFOUND) {
        rc = shale_txn_put(txn, name, keylen, &c, sizeof c);
    }
    if (rc != SHALE_OK) {
        shale_txn_abort(txn);
        return wrong_status(err, "counter", rc);
    }
    rc = shale_txn_commit(txn);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_txn_commit", rc);
    }
    atomic_fetch_add(&g->acknowledged, 1); /* every commit is one increment: none may be lost */
    return 0;
}

int counters_check(shale_db *db, struct board *b, unsigned n, char err[GROUPS_ERR])
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t low = atomic_load(&b->counter[i].acknowledged), c = 0;
        char name[32];
        size_t got = 0;
        int rc = shale_get_copy(db, NULL, name, counter_key(i, name), &c, sizeof c, &got);
        if (rc != SHALE_OK && rc != SHALE_NOTFOUND) {
            return wrong_status(err, "shale_get_copy", rc);
        }
        uint64_t high = atomic_load(&b->counter[i].started);
        if ((rc == SHALE_OK && got != sizeof c) || c < low || c > high) {
            return wrong(err, "counter %u: %llu, but acknowledged %llu and started %llu", i,
                         (unsigned long long)c, (unsigned long long)low, (unsigned long long)high);
        }
    }
    return 0;
}
