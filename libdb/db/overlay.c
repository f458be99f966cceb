/* overlay.c - see overlay.h. The index is a skiplist (Pugh, 1990) with p = 1/4; nodes never move and are
 * freed together. */
#include "db/overlay.h"

#include <stdlib.h>

#define MAX_HEIGHT 12

struct node {
    uint64_t head;      /* of the key */
    size_t entry;       /* offset of its newest entry in the payload */
    struct node *owned; /* all nodes, to free */
    struct node *next[];
};

struct overlay {
    unsigned refs;
    uint32_t count;
    struct buf payload;
    uint64_t random;
    struct node *all;
    unsigned height;
    struct node *first[MAX_HEIGHT];
};

int overlay_create(struct overlay **out)
{
    struct overlay *o = base_calloc(1, sizeof *o);
    if (o == NULL) {
        return SHALE_NOMEM;
    }
    o->refs = 1;
    o->height = 1;
    *out = o;
    return SHALE_OK;
}

struct overlay *overlay_ref(struct overlay *o)
{
    o->refs++;
    return o;
}

void overlay_unref(struct overlay *o)
{
    if (o == NULL || --o->refs != 0) {
        return;
    }
    while (o->all != NULL) {
        struct node *n = o->all;
        o->all = n->owned;
        free(n);
    }
    buf_release(&o->payload);
    free(o);
}

struct slice overlay_payload(const struct overlay *o)
{
    return buf_slice(&o->payload);
}

uint32_t overlay_count(const struct overlay *o)
{
    return o->count;
}

static struct wal_entry entry_of(const struct overlay *o, const struct node *n)
{
    struct wal_entry e = {0};
    (void)wal_decode_entry(o->payload.data + n->entry, o->payload.data + o->payload.size, &e);
    return e;
}

static int compare(const struct overlay *o, const struct node *n, uint64_t head, struct slice key)
{
    if (n->head != head) {
        return n->head < head ? -1 : 1;
    }
    return slice_compare(entry_of(o, n).key, key);
}

static struct node **link_of(struct overlay *o, struct node *n, unsigned level)
{
    return n == NULL ? &o->first[level] : &n->next[level];
}

/* The last node before key (NULL: none), at every level where links is not NULL. */
static struct node *find_before(struct overlay *o, struct slice key, struct node **links)
{
    uint64_t head = key_head(key);
    struct node *at = NULL;
    for (unsigned l = o->height; l-- > 0;) {
        struct node *n;
        while ((n = *link_of(o, at, l)) != NULL && compare(o, n, head, key) < 0) {
            at = n;
        }
        if (links != NULL) {
            links[l] = at;
        }
    }
    return at;
}

static struct node *find_from(struct overlay *o, struct slice key)
{
    return *link_of(o, find_before(o, key, NULL), 0);
}

static unsigned random_height(struct overlay *o)
{
    uint64_t r = prng_next(&o->random);
    unsigned h = 1;
    while (h < MAX_HEIGHT && (r & 3) == 0) {
        h++;
        r >>= 2;
    }
    return h;
}

int overlay_add(struct overlay *o, uint8_t type, struct slice key, struct slice value)
{
    size_t entry = o->payload.size;
    int rc = wal_add_entry(&o->payload, type, key, value);
    if (rc != SHALE_OK) {
        return rc;
    }
    struct wal_entry added = {0};
    (void)wal_decode_entry(o->payload.data + entry, o->payload.data + o->payload.size, &added);
    struct node *before[MAX_HEIGHT] = {0};
    struct node *at = find_before(o, added.key, before);
    struct node *n = *link_of(o, at, 0);
    o->count++;
    if (n != NULL && compare(o, n, key_head(added.key), added.key) == 0) {
        n->entry = entry;
        return SHALE_OK;
    }
    unsigned height = random_height(o);
    n = base_calloc(1, sizeof *n + height * sizeof n->next[0]);
    if (n == NULL) {
        o->payload.size = entry;
        o->count--;
        return SHALE_NOMEM;
    }
    n->head = key_head(added.key);
    n->entry = entry;
    n->owned = o->all;
    o->all = n;
    o->height = height > o->height ? height : o->height;
    for (unsigned l = 0; l < height; l++) {
        struct node **link = link_of(o, before[l], l);
        n->next[l] = *link;
        *link = n;
    }
    return SHALE_OK;
}

int overlay_get(const struct overlay *o, struct slice key, struct wal_entry *e)
{
    uint64_t head = key_head(key);
    const struct node *at = NULL, *n = NULL;
    for (unsigned l = o->height; l-- > 0;) {
        while ((n = at == NULL ? o->first[l] : at->next[l]) != NULL && compare(o, n, head, key) < 0) {
            at = n;
        }
    }
    if (n == NULL || compare(o, n, head, key) != 0) {
        return SHALE_NOTFOUND;
    }
    *e = entry_of(o, n);
    return SHALE_OK;
}

/* ---- a run: copies, since the payload moves when it grows ---- */

struct run_ctx {
    struct overlay *o;
    struct buf key, value;
};

static int show(struct run_ctx *r, const struct node *n, struct db_entry *entry)
{
    if (n == NULL) {
        return SHALE_NOTFOUND;
    }
    struct wal_entry e = entry_of(r->o, n);
    int rc = buf_set(&r->key, e.key.data, e.key.size);
    if (rc == SHALE_OK) {
        rc = buf_set(&r->value, e.value.data, e.value.size);
    }
    if (rc == SHALE_OK) {
        *entry = (struct db_entry){buf_slice(&r->key), buf_slice(&r->value), UINT64_MAX, e.type};
    }
    return rc;
}

static int run_first(void *ctx, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    return show(r, r->o->first[0], entry);
}

static int run_last(void *ctx, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    struct node *at = NULL, *n;
    for (unsigned l = r->o->height; l-- > 0;) {
        while ((n = *link_of(r->o, at, l)) != NULL) {
            at = n;
        }
    }
    return show(r, at, entry);
}

static int run_seek(void *ctx, struct slice key, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    return show(r, find_from(r->o, key), entry);
}

static int run_seek_for_prev(void *ctx, struct slice key, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    struct node *before = find_before(r->o, key, NULL);
    struct node *n = *link_of(r->o, before, 0);
    return show(r, n != NULL && compare(r->o, n, key_head(key), key) == 0 ? n : before, entry);
}

/* By key, not by node: the current one may be an entry that was added since. */
static int run_next(void *ctx, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    struct node *n = find_from(r->o, buf_slice(&r->key));
    if (n != NULL && compare(r->o, n, key_head(buf_slice(&r->key)), buf_slice(&r->key)) == 0) {
        n = n->next[0];
    }
    return show(r, n, entry);
}

static int run_prev(void *ctx, struct db_entry *entry)
{
    struct run_ctx *r = ctx;
    return show(r, find_before(r->o, buf_slice(&r->key), NULL), entry);
}

int overlay_run(struct overlay *o, struct db_run *run)
{
    struct run_ctx *r = base_calloc(1, sizeof *r);
    if (r == NULL) {
        return SHALE_NOMEM;
    }
    r->o = overlay_ref(o);
    *run = (struct db_run){r, run_first, run_last, run_seek, run_seek_for_prev, run_next, run_prev};
    return SHALE_OK;
}

void overlay_run_release(void *ctx)
{
    struct run_ctx *r = ctx;
    overlay_unref(r->o);
    buf_release(&r->key);
    buf_release(&r->value);
    free(r);
}
