/* watch.c - readers of real input: one that checks while others write, one that compares everything; see
 * feed.h. */
#include "feed.h"
#include "os/os.h"

#include <stdlib.h>

struct watcher {
    struct session s;
    uint32_t *seen; /* a record: 0 not yet; 1 as it is; 1 + N round N; ROUND_LAST as it is behind a round */
    uint64_t random;
    uint64_t gets, groups, scans;
    shale_value *vals;
    const void **keys;
    size_t *keylens;
    int *status;
};

/* 1: the stanza as it is; 1 + N: of round N; 0: neither. */
static uint32_t rank_of(const struct record *r, const void *data, size_t size)
{
    const unsigned char *p = data;
    static const char head[] = "round ";
    uint64_t round = 0;
    size_t at = sizeof head - 1;
    if (size == r->vallen && memcmp(p, r->val, size) == 0) {
        return 1;
    }
    if (size < r->vallen + at || memcmp(p, head, at) != 0) {
        return 0;
    }
    while (at < size && p[at] >= '0' && p[at] <= '9' && round < ROUND_LAST / 16) {
        round = round * 10 + (uint64_t)(p[at++] - '0');
    }
    bool good = at < size && p[at] == '\n' && size - at - 1 == r->vallen &&
                memcmp(p + at + 1, r->val, r->vallen) == 0;
    return good && round != 0 ? (uint32_t)round + 1 : 0;
}

static int wrong(struct watcher *w, const struct record *r, const char *what)
{
    w->s.r.wrong++;
    return complain(w->s.job, EX_DATAERR, "%.*s: %s", (int)r->keylen, (const char *)r->key, what);
}

/* What was read of record i now, against what was read of it before. */
static int advance(struct watcher *w, size_t i, int status, const shale_value *val, uint32_t *rank)
{
    const struct record *r = &w->s.corpus.records[i];
    *rank = 0;
    if (status == SHALE_NOTFOUND) {
        return w->seen[i] != 0 ? wrong(w, r, "was there and is gone") : 0;
    }
    if (status != SHALE_OK) {
        return complain_library(w->s.job, status, "cannot read");
    }
    *rank = rank_of(r, val->data, val->size);
    if (*rank == 0) {
        return wrong(w, r, "has another value than any that was written");
    }
    if (*rank != 1 && *rank < w->seen[i]) {
        return wrong(w, r, "went back to an older value");
    }
    w->seen[i] = *rank == 1 && w->seen[i] > 1 ? ROUND_LAST : *rank;
    return 0;
}

static int watch_point(struct watcher *w)
{
    size_t i = prng_next(&w->random) % w->s.corpus.count;
    const struct record *r = &w->s.corpus.records[i];
    shale_value val = {0};
    uint32_t rank;
    int64_t start = os_now();
    int status = shale_get(w->s.db, NULL, r->key, r->keylen, &val);
    session_note(&w->s, start, 1);
    w->gets++;
    int result = advance(w, i, status, &val, &rank);
    shale_value_release(&val);
    return result;
}

/* One group in one snapshot: all of it, from one commit, or nothing. */
static int watch_group(struct watcher *w)
{
    size_t first, n = group_size(&w->s, prng_next(&w->random) % group_count(&w->s), &first);
    uint32_t rank0 = 0, rank;
    int result = 0;
    for (size_t i = 0; i < n; i++) {
        w->keys[i] = w->s.corpus.records[first + i].key;
        w->keylens[i] = w->s.corpus.records[first + i].keylen;
    }
    int64_t start = os_now();
    int status = shale_multi_get(w->s.db, NULL, n, w->keys, w->keylens, w->vals, w->status);
    if (status != SHALE_OK) {
        return complain_library(w->s.job, status, "cannot read");
    }
    session_note(&w->s, start, n);
    w->groups++;
    for (size_t i = 0; i < n; i++) {
        if (result == 0) {
            result = advance(w, first + i, w->status[i], &w->vals[i], &rank);
            rank0 = i == 0 ? rank : rank0;
            if (result == 0 && rank != rank0) {
                result = wrong(w, &w->s.corpus.records[first + i], "a batch is only partly there");
            }
        }
        shale_value_release(&w->vals[i]);
    }
    return result;
}

/* All versions of one package: the keys must be those of the input, and none that was seen may be missing. */
static int watch_prefix(struct watcher *w)
{
    const struct corpus *c = &w->s.corpus;
    const struct record *r = &c->records[prng_next(&w->random) % c->count];
    const unsigned char *slash = memrchr(r->key, '/', r->keylen);
    shale_iter_options o;
    shale_iter *it = NULL;
    int result = 0;
    shale_iter_options_init(&o);
    o.prefix = r->key;
    o.prefixlen = (size_t)(slash - r->key) + 1;
    size_t at = corpus_seek(c, o.prefix, o.prefixlen), entries = 0;
    int64_t start = os_now();
    int status = shale_iter_create(w->s.db, NULL, &o, &it);
    for (status = status == SHALE_OK ? shale_iter_first(it) : status; status == SHALE_OK && result == 0;
         entries++) {
        shale_value val = {0};
        uint32_t rank;
        size_t keylen;
        const void *key = shale_iter_key(it, &keylen);
        const struct record *found = corpus_find(c, key, keylen);
        if (found == NULL) {
            result = complain(w->s.job, EX_DATAERR, "%.*s: a key that was never written", (int)keylen,
                              (const char *)key);
            break;
        }
        for (; result == 0 && &c->records[at] < found; at++) {
            result = advance(w, at, SHALE_NOTFOUND, &val, &rank);
        }
        val.data = shale_iter_value(it, &val.size);
        result = result == 0 ? advance(w, at++, SHALE_OK, &val, &rank) : result;
        status = shale_iter_next(it);
    }
    session_note(&w->s, start, entries);
    w->scans++;
    shale_iter_destroy(it);
    return result != 0 || status == SHALE_NOTFOUND ? result
                                                   : complain_library(w->s.job, status, "cannot scan");
}

int watch_main(const struct job *job)
{
    static struct watcher w;
    int status = session_open(&w.s, job);
    w.random = checksum_seed(job->seed, (uint64_t)getpid());
    w.seen = calloc(w.s.corpus.count + 1, sizeof *w.seen);
    w.vals = calloc(job->batch, sizeof *w.vals);
    w.keys = calloc(job->batch, sizeof *w.keys);
    w.keylens = calloc(job->batch, sizeof *w.keylens);
    w.status = calloc(job->batch, sizeof *w.status);
    if (w.seen == NULL || w.vals == NULL || w.keys == NULL || w.keylens == NULL || w.status == NULL) {
        status = EX_OSERR;
    }
    while (status == 0 && !session_over(&w.s)) {
        uint64_t dice = prng_next(&w.random) % 10;
        status = dice < 6 ? watch_point(&w) : dice < 8 ? watch_group(&w) : watch_prefix(&w);
    }
    free(w.seen);
    free(w.vals);
    free(w.keys);
    free(w.keylens);
    free(w.status);
    return session_close(&w.s, status, "reader");
}

/* ---- compare ---- */

static bool is_excepted(const struct job *job, const void *key, size_t keylen)
{
    return job->except != NULL && strlen(job->except) == keylen && memcmp(job->except, key, keylen) == 0;
}

/* The scan and the input side by side; every difference is counted, the first ten are told. */
static int compare_scan(struct session *s, shale_iter *it)
{
    uint64_t different = 0;
    size_t i = 0;
    int status = shale_iter_first(it);
    while (status == SHALE_OK || (status == SHALE_NOTFOUND && i < s->corpus.count)) {
        size_t keylen = 0, vallen = 0;
        const void *key = status == SHALE_OK ? shale_iter_key(it, &keylen) : NULL;
        const struct record *r = i < s->corpus.count ? &s->corpus.records[i] : NULL;
        int order = key == NULL ? 1
                    : r == NULL ? -1
                                : slice_compare(slice_make(key, keylen), slice_make(r->key, r->keylen));
        const char *what = order > 0                          ? "is missing"
                           : is_excepted(s->job, key, keylen) ? NULL
                                                              : "was never written";
        if (order == 0) {
            const void *val = shale_iter_value(it, &vallen);
            what = vallen == r->vallen && memcmp(val, r->val, vallen) == 0 ? NULL : "has another value";
        }
        if (what != NULL && different++ < 10) {
            complain(s->job, EX_DATAERR, "%.*s: %s", order > 0 ? (int)r->keylen : (int)keylen,
                     order > 0 ? (const char *)r->key : (const char *)key, what);
        }
        i += order >= 0;
        status = order <= 0 ? shale_iter_next(it) : status;
    }
    s->r.wrong += different;
    return status == SHALE_NOTFOUND ? SHALE_OK : status;
}

static int compare_points(struct session *s)
{
    int status = SHALE_OK;
    for (size_t i = 0; i < s->corpus.count && (status == SHALE_OK || status == SHALE_NOTFOUND); i++) {
        const struct record *r = &s->corpus.records[i];
        shale_value val = {0};
        int64_t start = os_now();
        status = shale_get(s->db, NULL, r->key, r->keylen, &val);
        session_note(s, start, 1);
        bool same = status == SHALE_OK && val.size == r->vallen && memcmp(val.data, r->val, val.size) == 0;
        s->r.wrong += !same;
        shale_value_release(&val);
    }
    return status == SHALE_NOTFOUND ? SHALE_OK : status;
}

int compare_main(const struct job *job)
{
    static struct session s;
    shale_iter *it = NULL;
    int status = session_open(&s, job);
    if (status == 0) {
        int done = shale_iter_range(s.db, NULL, NULL, 0, NULL, 0, SHALE_NO_FILL_CACHE, &it);
        done = done == SHALE_OK ? compare_scan(&s, it) : done;
        shale_iter_destroy(it);
        done = done == SHALE_OK ? compare_points(&s) : done;
        status = done != SHALE_OK ? complain_library(job, done, "cannot read") : 0;
    }
    if (status == 0 && s.r.wrong != 0) {
        status = complain(job, EX_DATAERR, "%llu differences", (unsigned long long)s.r.wrong);
    }
    if (status == 0 && job->report == NULL) {
        printf("%zu records, %llu bytes: all as in %s\n", s.corpus.count, (unsigned long long)s.corpus.bytes,
               job->input);
    }
    return session_close(&s, status, "compare");
}
