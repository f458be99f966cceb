#include "oracle.h"

#include <stdlib.h>

static void set(struct buf *b, struct slice s)
{
    if (buf_set(b, s.data, s.size) != SHALE_OK) {
        abort();
    }
}

static void *grow(void *p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) {
        return p;
    }
    *cap = need < 8 ? 8 : need * 2;
    p = realloc(p, *cap * size);
    if (p == NULL) {
        abort();
    }
    return p;
}

void oracle_release(struct oracle *o)
{
    for (size_t i = 0; i < o->count; i++) {
        for (size_t j = 0; j < o->keys[i].count; j++) {
            buf_release(&o->keys[i].versions[j].value);
        }
        free(o->keys[i].versions);
        buf_release(&o->keys[i].key);
    }
    free(o->keys);
    *o = (struct oracle){0};
}

/* Index of the first key >= key. */
static size_t lower_bound(const struct oracle *o, struct slice key)
{
    size_t lo = 0, hi = o->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (slice_compare(buf_slice(&o->keys[mid].key), key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static void change(struct oracle *o, struct slice key, bool deleted, struct slice value)
{
    size_t i = lower_bound(o, key);
    if (i == o->count || !slice_equal(buf_slice(&o->keys[i].key), key)) {
        o->keys = grow(o->keys, &o->cap, o->count + 1, sizeof *o->keys);
        memmove(&o->keys[i + 1], &o->keys[i], (o->count - i) * sizeof *o->keys);
        o->count++;
        o->keys[i] = (struct oracle_key){0};
        set(&o->keys[i].key, key);
    }
    struct oracle_key *k = &o->keys[i];
    k->versions = grow(k->versions, &k->cap, k->count + 1, sizeof *k->versions);
    struct oracle_version *v = &k->versions[k->count++];
    *v = (struct oracle_version){.tick = ++o->tick, .deleted = deleted};
    set(&v->value, value);
}

void oracle_put(struct oracle *o, struct slice key, struct slice value)
{
    change(o, key, false, value);
}

void oracle_delete(struct oracle *o, struct slice key)
{
    change(o, key, true, slice_make("", 0));
}

void oracle_undo(struct oracle *o, uint64_t at)
{
    for (size_t i = 0; i < o->count; i++) {
        struct oracle_key *k = &o->keys[i];
        while (k->count != 0 && k->versions[k->count - 1].tick > at) {
            buf_release(&k->versions[--k->count].value);
        }
    }
    o->tick = at;
}

static const struct oracle_version *version_at(const struct oracle_key *k, uint64_t at)
{
    for (size_t i = k->count; i-- > 0;) {
        if (k->versions[i].tick <= at) {
            return &k->versions[i];
        }
    }
    return NULL;
}

static bool exists(const struct oracle_key *k, uint64_t at)
{
    const struct oracle_version *v = version_at(k, at);
    return v != NULL && !v->deleted;
}

bool oracle_get(const struct oracle *o, uint64_t at, struct slice key, struct slice *value)
{
    size_t i = lower_bound(o, key);
    if (i == o->count || !slice_equal(buf_slice(&o->keys[i].key), key) || !exists(&o->keys[i], at)) {
        return false;
    }
    *value = buf_slice(&version_at(&o->keys[i], at)->value);
    return true;
}

size_t oracle_count(const struct oracle *o, uint64_t at)
{
    size_t n = 0;
    for (size_t i = 0; i < o->count; i++) {
        n += exists(&o->keys[i], at);
    }
    return n;
}

/* From i upwards. */
static size_t scan_up(const struct oracle *o, const struct oracle_range *r, size_t i)
{
    for (; i < o->count; i++) {
        struct slice key = buf_slice(&o->keys[i].key);
        if (r->upper.data != NULL && slice_compare(key, r->upper) >= 0) {
            return ORACLE_END;
        }
        if ((r->lower.data == NULL || slice_compare(key, r->lower) >= 0) && exists(&o->keys[i], r->at)) {
            return i;
        }
    }
    return ORACLE_END;
}

/* From below i downwards. */
static size_t scan_down(const struct oracle *o, const struct oracle_range *r, size_t i)
{
    while (i-- > 0) {
        struct slice key = buf_slice(&o->keys[i].key);
        if (r->lower.data != NULL && slice_compare(key, r->lower) < 0) {
            return ORACLE_END;
        }
        if ((r->upper.data == NULL || slice_compare(key, r->upper) < 0) && exists(&o->keys[i], r->at)) {
            return i;
        }
    }
    return ORACLE_END;
}

size_t oracle_seek(const struct oracle *o, const struct oracle_range *r, struct slice key)
{
    return scan_up(o, r, lower_bound(o, key));
}

size_t oracle_seek_for_prev(const struct oracle *o, const struct oracle_range *r, struct slice key)
{
    size_t i = lower_bound(o, key);
    bool equal = i < o->count && slice_equal(buf_slice(&o->keys[i].key), key);
    return scan_down(o, r, equal ? i + 1 : i);
}

size_t oracle_first(const struct oracle *o, const struct oracle_range *r)
{
    return scan_up(o, r, 0);
}

size_t oracle_last(const struct oracle *o, const struct oracle_range *r)
{
    return scan_down(o, r, o->count);
}

size_t oracle_next(const struct oracle *o, const struct oracle_range *r, size_t pos)
{
    return scan_up(o, r, pos + 1);
}

size_t oracle_prev(const struct oracle *o, const struct oracle_range *r, size_t pos)
{
    return scan_down(o, r, pos);
}

bool oracle_prefix_end(struct slice prefix, struct buf *out)
{
    while (prefix.size > 0 && prefix.data[prefix.size - 1] == 0xff) {
        prefix.size--;
    }
    if (prefix.size == 0) {
        return false;
    }
    set(out, prefix);
    out->data[out->size - 1]++;
    return true;
}
