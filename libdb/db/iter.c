/* iter.c - iterators: a merge over a view, within bounds, without tombstones.
 *
 * The iterator pins its view with every table of it open: what it shows never changes, and whatever is
 * flushed or compacted meanwhile, its files stay readable [I-10]. A prefix is a pair of bounds like any
 * other.
 */
#include "db/iter.h"

#include <stdlib.h>

/* ---- bounds ---- */

/* The first key behind all keys that begin with prefix; empty when there is none (only 0xff bytes). */
static int prefix_end(struct slice prefix, struct buf *end)
{
    size_t n = prefix.size;
    while (n > 0 && prefix.data[n - 1] == 0xff) {
        n--;
    }
    int rc = buf_set(end, prefix.data, n);
    if (rc == SHALE_OK && n > 0) {
        end->data[n - 1]++;
    }
    return rc;
}

static int set_bounds(shale_iter *it, const shale_iter_options *o)
{
    struct slice lower = slice_make(o->lower, o->lowerlen), prefix = slice_make(o->prefix, o->prefixlen);
    struct buf end = {0};
    int rc = prefix_end(prefix, &end);
    if (rc == SHALE_OK) {
        rc = buf_set(&it->lower, lower.data, lower.size);
    }
    if (rc == SHALE_OK && slice_compare(prefix, lower) > 0) {
        rc = buf_set(&it->lower, prefix.data, prefix.size);
    }
    it->bounded = o->upper != NULL;
    if (rc == SHALE_OK && it->bounded) {
        rc = buf_set(&it->upper, o->upper, o->upperlen);
    }
    if (rc == SHALE_OK && end.size != 0 &&
        (!it->bounded || slice_compare(buf_slice(&end), buf_slice(&it->upper)) < 0)) {
        it->bounded = true;
        rc = buf_set(&it->upper, end.data, end.size);
    }
    it->upper_head = it->bounded ? key_head(buf_slice(&it->upper)) : UINT64_MAX;
    buf_release(&end);
    return rc;
}

static int check_options(const shale_iter_options *in, shale_iter_options *out)
{
    shale_iter_options_init_sized(out, sizeof *out);
    if (in != NULL) {
        size_t n = in->size < sizeof *out ? in->size : sizeof *out;
        if (in->size < sizeof in->size) {
            return err_set(SHALE_INVALID,
                           "shale_iter_options.size is %zu: call shale_iter_options_init first", in->size);
        }
        memcpy(out, in, n);
    }
    if ((out->lower == NULL && out->lowerlen != 0) || (out->upper == NULL && out->upperlen != 0) ||
        (out->prefix == NULL && out->prefixlen != 0)) {
        return err_set(SHALE_INVALID, "shale_iter_options: a bound of non-zero length has no data");
    }
    return SHALE_OK;
}

void shale_iter_options_init_sized(shale_iter_options *options, size_t size)
{
    if (options != NULL) {
        memset(options, 0, size);
        if (size >= sizeof options->size) {
            options->size = size;
        }
    }
}

/* ---- making and ending ---- */

int db_iter_make(shale_db *db, struct db_view *view, uint64_t seq, const struct db_run *overlay,
                 void (*overlay_release)(void *), const shale_iter_options *options, shale_iter **out)
{
    shale_iter_options o;
    int rc = check_options(options, &o);
    shale_iter *it = rc == SHALE_OK ? base_calloc(1, sizeof *it) : NULL;
    if (it == NULL) {
        db_view_unref(view);
        if (overlay != NULL) {
            overlay_release(overlay->ctx);
        }
        return rc == SHALE_OK ? SHALE_NOMEM : rc;
    }
    it->db = db_ref(db);
    it->view = view;
    it->keys_only = o.keys_only;
    it->status = SHALE_OK;
    if (overlay != NULL) {
        it->overlay = overlay->ctx;
        it->overlay_release = overlay_release;
    }
    rc = set_bounds(it, &o);
    if (rc == SHALE_OK) {
        struct db_merge_options mo = {.fill_cache = !o.no_fill_cache};
        rc = db_merge_view(db, view, seq, overlay, &mo, &it->merge);
    }
    if (rc != SHALE_OK) {
        shale_iter_destroy(it);
        return rc;
    }
    *out = it;
    return SHALE_OK;
}

int shale_iter_create(shale_db *db, const shale_snapshot *snap, const shale_iter_options *options,
                      shale_iter **it)
{
    if (it == NULL) {
        return err_set(SHALE_INVALID, "shale_iter_create: no place for the iterator");
    }
    *it = NULL;
    struct db_view *view;
    uint64_t seq;
    int rc = db_snapshot_view(db, snap, &view, &seq);
    return rc != SHALE_OK ? rc : db_iter_make(db, view, seq, NULL, NULL, options, it);
}

int shale_iter_range(shale_db *db, const shale_snapshot *snap, const void *lo, size_t lolen, const void *hi,
                     size_t hilen, unsigned flags, shale_iter **it)
{
    shale_iter_options o;
    if ((flags & ~(unsigned)(SHALE_KEYS_ONLY | SHALE_NO_FILL_CACHE)) != 0) {
        return err_set(SHALE_INVALID,
                       "shale_iter_range: flags 0x%x: SHALE_KEYS_ONLY and SHALE_NO_FILL_CACHE are possible",
                       flags);
    }
    shale_iter_options_init(&o);
    o.lower = lo;
    o.lowerlen = lolen;
    o.upper = hi;
    o.upperlen = hilen;
    o.keys_only = (flags & SHALE_KEYS_ONLY) != 0;
    o.no_fill_cache = (flags & SHALE_NO_FILL_CACHE) != 0;
    return shale_iter_create(db, snap, &o, it);
}

void shale_iter_destroy(shale_iter *it)
{
    if (it == NULL) {
        return;
    }
    db_merge_release(it->merge);
    if (it->overlay != NULL) {
        it->overlay_release(it->overlay);
    }
    db_view_unref(it->view);
    db_unref(it->db);
    buf_release(&it->lower);
    buf_release(&it->upper);
    free(it);
}

/* ---- moving ---- */

static int check_iter(shale_iter *it)
{
    if (it == NULL) {
        return err_set(SHALE_INVALID, "the iterator is NULL");
    }
    int rc = db_check(it->db);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        it->valid = false;
        it->status = rc;
    }
    return rc;
}

/* The merge has moved, with this result: on to the next entry that is shown, or the end. */
static int arrive(shale_iter *it, int rc, bool forward)
{
    it->positioned = true;
    while (rc == SHALE_OK) {
        const struct db_entry *e = db_merge_entry(it->merge);
        if (forward) {
            if (it->bounded &&
                (key_head(e->key) > it->upper_head || slice_compare(e->key, buf_slice(&it->upper)) >= 0)) {
                rc = SHALE_NOTFOUND;
                break;
            }
        } else if (it->lower.size != 0 && slice_compare(e->key, buf_slice(&it->lower)) < 0) {
            rc = SHALE_NOTFOUND;
            break;
        }
        if (e->type == TABLE_PUT) {
            it->entry = e;
            it->valid = true;
            it->status = SHALE_OK;
            return SHALE_OK;
        }
        rc = forward ? db_merge_next(it->merge) : db_merge_prev(it->merge);
    }
    it->valid = false;
    it->status = rc == SHALE_NOTFOUND ? SHALE_OK : rc;
    return rc;
}

static int begin_seek(shale_iter *it)
{
    int rc = check_iter(it);
    if (rc == SHALE_OK) {
        DB_COUNT(it->db, seeks, 1);
        it->valid = false;
    }
    return rc;
}

int shale_iter_first(shale_iter *it)
{
    int rc = begin_seek(it);
    if (rc != SHALE_OK) {
        return rc;
    }
    return arrive(
        it, it->lower.size != 0 ? db_merge_seek(it->merge, buf_slice(&it->lower)) : db_merge_first(it->merge),
        true);
}

/* The last entry before `upper`, which is not part of the range. */
static int last_before_upper(shale_iter *it)
{
    int rc = db_merge_seek_for_prev(it->merge, buf_slice(&it->upper));
    if (rc == SHALE_OK && slice_equal(db_merge_entry(it->merge)->key, buf_slice(&it->upper))) {
        rc = db_merge_prev(it->merge);
    }
    return arrive(it, rc, false);
}

int shale_iter_last(shale_iter *it)
{
    int rc = begin_seek(it);
    if (rc != SHALE_OK) {
        return rc;
    }
    return it->bounded ? last_before_upper(it) : arrive(it, db_merge_last(it->merge), false);
}

int shale_iter_seek(shale_iter *it, const void *key, size_t keylen)
{
    int rc = begin_seek(it);
    if (rc == SHALE_OK && key == NULL && keylen != 0) {
        rc = err_set(SHALE_INVALID, "a key of non-zero length has no data");
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct slice k = slice_make(key, keylen);
    k = slice_compare(k, buf_slice(&it->lower)) < 0 ? buf_slice(&it->lower) : k;
    return arrive(it, db_merge_seek(it->merge, k), true);
}

int shale_iter_seek_for_prev(shale_iter *it, const void *key, size_t keylen)
{
    int rc = begin_seek(it);
    if (rc == SHALE_OK && key == NULL && keylen != 0) {
        rc = err_set(SHALE_INVALID, "a key of non-zero length has no data");
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    struct slice k = slice_make(key, keylen);
    if (it->bounded && slice_compare(k, buf_slice(&it->upper)) >= 0) {
        return last_before_upper(it);
    }
    return arrive(it, db_merge_seek_for_prev(it->merge, k), false);
}

static inline int move(shale_iter *it, bool forward)
{
    int rc = check_iter(it);
    if (BASE_UNLIKELY(rc != SHALE_OK)) {
        return rc;
    }
    if (BASE_UNLIKELY(!it->valid)) {
        if (!it->positioned) {
            return err_set(SHALE_INVALID,
                           "the iterator stands nowhere yet: call first, last or seek before next or prev");
        }
        return it->status != SHALE_OK ? it->status : SHALE_NOTFOUND;
    }
    rc = forward ? db_merge_next(it->merge) : db_merge_prev(it->merge);
    bool unbounded = forward ? !it->bounded : it->lower.size == 0;
    if (BASE_LIKELY(rc == SHALE_OK && unbounded)) { /* nearly always shown: what arrive would find */
        it->entry = db_merge_entry(it->merge);
        if (BASE_LIKELY(it->entry->type == TABLE_PUT)) {
            return SHALE_OK;
        }
    }
    return arrive(it, rc, forward);
}

int shale_iter_next(shale_iter *it)
{
    return move(it, true);
}

int shale_iter_prev(shale_iter *it)
{
    return move(it, false);
}

bool shale_iter_valid(const shale_iter *it)
{
    return it != NULL && it->valid;
}

static const void *bytes_of(const shale_iter *it, bool value, size_t *len)
{
    static const unsigned char nothing[1];
    struct slice s = {nothing, 0};
    if (it != NULL && it->valid && !(value && it->keys_only)) {
        s = value ? it->entry->value : it->entry->key;
    }
    if (len != NULL) {
        *len = s.size;
    }
    return s.data != NULL ? s.data : nothing;
}

const void *shale_iter_key(const shale_iter *it, size_t *len)
{
    return bytes_of(it, false, len);
}

const void *shale_iter_value(const shale_iter *it, size_t *len)
{
    return bytes_of(it, true, len);
}

int shale_iter_status(const shale_iter *it)
{
    return it == NULL ? err_set(SHALE_INVALID, "the iterator is NULL") : it->status;
}
