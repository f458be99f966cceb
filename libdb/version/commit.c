/* commit.c - from one version to the next, with a kill possible after every step.
 *
 * Three things say what the database is made of: the manifest's bytes, CURRENT, and the tuple in STATE. A
 * commit moves them in this order, and whoever comes next under MANIFEST sees from the first difference how
 * far a killed one got [I-18b]:
 *
 *   append an edit           file longer than the tuple's length    begin cuts it and syncs the cut,
 *   fdatasync                the same                               distrusting the manifest meanwhile
 *   tuple, epoch             done
 *
 *   roll: new manifest       CURRENT names the old one              a leftover; its number is used again
 *   CURRENT renamed          CURRENT names another than the tuple   begin syncs it and publishes it
 *   tuple, epoch             done; the old file may be left         manifest_sweep
 *
 * An edit that is cut was never published, so nobody has acted on it. An edit that is in a renamed manifest
 * may be found after a power loss, so it is published, not undone.
 *
 * A manifest whose fdatasync failed may hold pages that the kernel counts as clean and the disk does not
 * have; it is not synced again, nor appended to: its content as published goes into a new one [I-13].
 */
#include "version/manifest.h"

/* Whoever opens the database reads the manifest from the start, a microsecond for 400 bytes. Rolling it costs
 * a few syncs, of which each edit has one or more of its own for its tables. */
#ifdef SHALE_DEBUG
uint64_t version_roll_bytes = UINT64_C(8) << 10;
#else
static const uint64_t version_roll_bytes = UINT64_C(8) << 10;
#endif
#define ROLL_FACTOR 2

static bool manifest_bad(const struct version_log *log, uint64_t number)
{
    return atomic_load_explicit(&log->state->bad_manifest, memory_order_relaxed) >= number;
}

static void distrust(struct version_log *log, uint64_t number)
{
    state_raise(&log->state->bad_manifest, number);
}

static void unlink_manifest(struct version_log *log, uint64_t number)
{
    char name[MANIFEST_NAME_SIZE];
    manifest_name(number, name);
    (void)os_unlink(log->dirfd, name); /* one that stays is swept */
    os_mark(OS_MARK_MANIFEST);
}

/* Writes v, which nobody else has yet, into a manifest of its own, publishes it and removes the one it
 * replaces. */
static int roll(struct version_log *log, struct version *v, bool *unknown)
{
    uint64_t length, replaced = v->manifest, number = v->manifest + 1;
    int st = manifest_install(log->dirfd, number, v, log->mode, &length, unknown);
    if (st != SHALE_OK) {
        if (*unknown) {
            distrust(log, number);
        }
        return st;
    }
    *unknown = false;
    v->manifest = number;
    v->length = v->base_length = length;
    state_store_tuple(log->state, v->manifest, v->length, v->oldest);
    atomic_store_explicit(&log->state->bad_manifest, 0,
                          memory_order_relaxed); /* it is not the live one any more */
    unlink_manifest(log, replaced);
    return SHALE_OK;
}

/* ---- begin: make the manifest right ---- */

/* Cuts what a dead process left behind `length`, durably, before anything is appended there or removed. Until
 * the cut is synced the manifest is distrusted: were this process killed between, or having been told alone
 * that the sync failed, the next one would find nothing to cut, and sweep tables that the tail names. */
static int cut_tail(struct version_log *log, int fd, uint64_t number, uint64_t length)
{
    struct stat sb;
    int st = os_stat(fd, &sb);
    if (st != SHALE_OK || (uint64_t)sb.st_size <= length) {
        return st;
    }
    distrust(log, number);
    os_mark(OS_MARK_MANIFEST);
    st = os_truncate(fd, length);
    os_mark(OS_MARK_MANIFEST);
    if (st == SHALE_OK) {
        st = os_fdatasync(fd);
        os_mark(OS_MARK_MANIFEST);
    }
    if (st == SHALE_OK) {
        atomic_store_explicit(&log->state->bad_manifest, 0, memory_order_relaxed);
    }
    return st;
}

/* A dead process renamed CURRENT, and may not have synced the name. */
static int settle_roll(struct version_log *log, int fd, const struct version *v)
{
    int st = os_fsync(fd);
    if (st == SHALE_OK) {
        st = os_sync_dir(log->dirfd);
    }
    if (st != SHALE_OK) {
        distrust(log, v->manifest);
    }
    os_mark(OS_MARK_MANIFEST);
    return st;
}

static int make_right(struct version_log *log, const struct version *v, uint64_t published)
{
    char name[MANIFEST_NAME_SIZE];
    int fd = -1;
    manifest_name(v->manifest, name);
    int st = os_open(log->dirfd, name, O_RDWR, 0, &fd);
    if (st == SHALE_OK) {
        st = cut_tail(log, fd, v->manifest, v->length);
    }
    if (st == SHALE_OK && v->manifest != published) {
        st = settle_roll(log, fd, v);
        if (st == SHALE_OK) {
            state_store_tuple(log->state, v->manifest, v->length, v->oldest);
            unlink_manifest(log, published);
        }
    }
    os_close(&fd);
    return st == SHALE_OK || st == SHALE_NOTFOUND ? st : err_wrap(st, "%s", name);
}

/* A bad manifest's content, as far as it was published, goes into a new one. */
static int renew(struct version_log *log, struct version **v, uint64_t published)
{
    struct version *copy;
    bool unknown;
    uint64_t bad = (*v)->manifest;
    int st = version_clone(*v, &copy);
    if (st != SHALE_OK) {
        return st;
    }
    st = version_seal(copy);
    if (st == SHALE_OK) {
        st = roll(log, copy, &unknown);
    }
    if (st != SHALE_OK) {
        version_unref(copy);
        return st;
    }
    if (published != bad) {
        unlink_manifest(log, published);
    }
    version_unref(*v);
    *v = copy;
    return SHALE_OK;
}

/* What the manifest that CURRENT names holds: up to the tuple's length if the tuple names it too, else whole.
 */
static int load(struct version_log *log, struct version *known, const struct state_view *t, uint64_t named,
                struct version **out)
{
    bool same = named == t->manifest;
    int st = SHALE_OK;
    struct version *v = NULL;
    if (same && known != NULL && known->manifest == named && known->length == t->length) {
        v = version_ref(known);
    } else if (same && known != NULL && known->manifest == named && known->length < t->length) {
        st = manifest_advance(log->dirfd, known, t->length, &v);
    } else {
        st = manifest_load(log->dirfd, named, same ? t->length : UINT64_MAX, &v);
        if (st == SHALE_OK && known != NULL) {
            version_share(v, known);
        }
    }
    if (st == SHALE_OK && same && v->oldest != t->oldest) {
        st = err_set(SHALE_CORRUPT, STATE_NAME " says that the oldest memtable is %u, and the manifest %u",
                     t->oldest, v->oldest);
    }
    if (st != SHALE_OK) {
        version_unref(v);
        return st;
    }
    *out = v;
    return SHALE_OK;
}

static int begin(struct version_log *log, struct version *known, struct version **v)
{
    struct state_view t;
    uint64_t named = 0;
    state_load_tuple(log->state, &t);
    int st = current_read(log->dirfd, &named);
    if (st == SHALE_NODB) {
        return err_set(SHALE_CORRUPT, CURRENT_NAME ": is gone, and the database is open");
    }
    if (st == SHALE_OK && named < t.manifest) {
        st = err_set(SHALE_CORRUPT, CURRENT_NAME ": names manifest %llu, and %llu was published",
                     (unsigned long long)named, (unsigned long long)t.manifest);
    }
    if (st == SHALE_OK) {
        st = load(log, known, &t, named, v);
    }
    if (st == SHALE_OK) {
        st = version_check_writable(*v);
    }
    if (st == SHALE_OK) {
        st = manifest_bad(log, named) ? renew(log, v, t.manifest) : make_right(log, *v, t.manifest);
    }
    if (st == SHALE_NOTFOUND) {
        st = err_set(SHALE_CORRUPT, CURRENT_NAME ": names manifest %llu, which is missing",
                     (unsigned long long)named);
    }
    return st;
}

int version_begin(struct version_log *log, struct version *known, struct version **current)
{
    struct version *v = NULL;
    int st = begin(log, known, &v);
    if (st != SHALE_OK) {
        version_unref(v);
        return st;
    }
    *current = v;
    return SHALE_OK;
}

/* ---- commit ---- */

/* Writes the record behind the manifest's end and syncs it. Where that fails the file is as before, or it is
 * distrusted. */
static int append_record(struct version_log *log, const struct version *current, const struct buf *record,
                         bool *unknown)
{
    char name[MANIFEST_NAME_SIZE];
    int fd = -1;
    manifest_name(current->manifest, name);
    os_mark(OS_MARK_MANIFEST);
    int st = os_open(log->dirfd, name, O_RDWR, 0, &fd);
    if (st != SHALE_OK) {
        return st == SHALE_NOTFOUND ? err_set(SHALE_CORRUPT, "%s: is gone", name) : err_wrap(st, "%s", name);
    }
    st = os_pwrite(fd, record->data, record->size, current->length);
    os_mark(OS_MARK_MANIFEST);
    if (st != SHALE_OK) {
        int cut = os_truncate(fd, current->length);
        *unknown = cut != SHALE_OK;
        st = cut != SHALE_OK ? cut : st;
    } else {
        st = os_fdatasync(fd);
        *unknown = st != SHALE_OK;
    }
    os_mark(OS_MARK_MANIFEST);
    if (*unknown) {
        distrust(log, current->manifest);
    }
    os_close(&fd);
    return st == SHALE_OK ? st : err_wrap(st, "%s", name);
}

static int append(struct version_log *log, const struct version *current, const struct version_edit *e,
                  struct version *v, bool *unknown)
{
    struct buf record = {0};
    size_t at = 0;
    int st = manifest_begin_record(&record, &at);
    if (st == SHALE_OK) {
        st = manifest_put_edit(&record, e);
    }
    if (st == SHALE_OK) {
        st = manifest_seal_record(&record, at, MANIFEST_EDIT, current->manifest, current->length);
    }
    if (st == SHALE_OK) {
        st = append_record(log, current, &record, unknown);
    }
    if (st == SHALE_OK) {
        v->length = current->length + record.size;
        state_store_tuple(log->state, v->manifest, v->length, v->oldest);
    }
    buf_release(&record);
    return st;
}

/* Nobody may have committed since begin, and begin must have been called. */
static int check_current(const struct version_log *log, const struct version *current)
{
    struct state_view t;
    state_load_tuple(log->state, &t);
    if (t.manifest != current->manifest || t.length != current->length) {
        return err_set(SHALE_INVALID, "an edit of manifest %llu at %llu, and %llu at %llu is current",
                       (unsigned long long)current->manifest, (unsigned long long)current->length,
                       (unsigned long long)t.manifest, (unsigned long long)t.length);
    }
    return version_check_writable(current);
}

static bool is_long(const struct version_log *log, const struct version *v)
{
    uint64_t limit = log->roll_bytes != 0 ? log->roll_bytes : version_roll_bytes;
    return v->length > limit && v->length > ROLL_FACTOR * v->base_length;
}

int version_commit(struct version_log *log, struct version *current, const struct version_edit *e,
                   struct version **next, bool *unknown)
{
    struct version *v = NULL;
    bool bad = manifest_bad(log, current->manifest);
    *unknown = false;
    int st = check_current(log, current);
    if (st == SHALE_OK) {
        st = version_apply(current, e, &v);
    }
    if (st == SHALE_OK) {
        bool rolling = bad || is_long(log, current);
        st = rolling ? roll(log, v, unknown) : append(log, current, e, v, unknown);
        if (rolling && !bad && st == SHALE_NOSPC && !*unknown) {
            st = append(log, current, e, v, unknown); /* a few bytes may still fit, and what it frees helps */
        }
    }
    if (st != SHALE_OK) {
        version_unref(v);
        return st;
    }
    *next = v;
    return SHALE_OK;
}
