/* manifest.c - reading manifests: a whole one from the start, or the edits behind a version that is there
 * already.
 *
 * Readers take no lock: they read up to the length of the tuple in STATE, which was synced before it was
 * published. Without a tuple (after a reboot) everything whole counts, up to a torn append.
 */
#include "version/manifest.h"

#define NAME_PREFIX "MANIFEST-"

_Static_assert(MANIFEST_NAME_SIZE > sizeof NAME_PREFIX + 20, "every number fits");

void manifest_name(uint64_t number, char name[MANIFEST_NAME_SIZE])
{
    (void)digits_decimal(stpcpy(name, NAME_PREFIX), number, 6);
}

bool manifest_parse_name(const char *name, uint64_t *number)
{
    char again[MANIFEST_NAME_SIZE];
    uint64_t n = 0;
    if (strncmp(name, NAME_PREFIX, sizeof NAME_PREFIX - 1) != 0) {
        return false;
    }
    for (const char *p = name + sizeof NAME_PREFIX - 1; *p >= '0' && *p <= '9' && n < UINT64_MAX / 10 - 1;
         p++) {
        n = n * 10 + (uint64_t)(*p - '0');
    }
    manifest_name(n, again); /* the exact form only: no signs, no missing or superfluous zeros */
    if (strcmp(name, again) != 0) {
        return false;
    }
    *number = n;
    return true;
}

/* Adds what the record says to v. The first one, and only that, must be a whole version. */
static int take_record(struct version *v, const struct manifest_view *rec)
{
    struct manifest_content c = {0};
    int st = manifest_parse(rec->payload, rec->kind, &c);
    bool first = v->base_length == 0;
    if (st == SHALE_OK && (rec->kind == MANIFEST_WHOLE) != first) {
        st = err_set(SHALE_CORRUPT, "a record of kind %u does not belong here", rec->kind);
    }
    if (st == SHALE_OK && first) {
        v->options = c.options;
        v->next_table = c.next_table;
        v->base_length = rec->end;
    }
    if (st == SHALE_OK) {
        st = version_change(v, &c.edit);
    }
    if (st == SHALE_OK) {
        v->length = rec->end;
    }
    manifest_content_release(&c);
    return st;
}

/* Reads on from v->length: to `length` exactly, or for UINT64_MAX to where whole records end. */
static int take_records(struct manifest_reader *r, struct version *v, uint64_t length)
{
    bool exact = length != UINT64_MAX, torn = false;
    uint64_t limit = exact ? length : r->size;
    int st = SHALE_OK;
    while (v->length < limit && st == SHALE_OK && !torn) {
        struct manifest_view rec;
        uint64_t at = v->length;
        st = manifest_reader_record(r, at, limit, &rec);
        if (st == SHALE_OK) {
            st = take_record(v, &rec);
        } else if (st == SHALE_NOTFOUND) {
            st = exact || v->base_length == 0 ? SHALE_OK : manifest_reader_torn(r, at, &torn);
            if (st == SHALE_OK && !torn) {
                st = err_set(SHALE_CORRUPT, "it is incomplete, or its checksum does not match");
            }
        }
        if (st != SHALE_OK) {
            return err_wrap(st, "record at %llu", (unsigned long long)at);
        }
    }
    if (v->base_length == 0) {
        return err_set(SHALE_CORRUPT, "there is no version in it");
    }
    return version_seal(v);
}

static int check_length(const struct manifest_reader *r, uint64_t length)
{
    if (length == UINT64_MAX || length <= r->size) {
        return SHALE_OK;
    }
    return err_set(SHALE_CORRUPT, "%llu bytes, and %llu were published", (unsigned long long)r->size,
                   (unsigned long long)length);
}

/* A version without content yet, as the header says. */
static int start_version(const struct manifest_header *h, struct version **v)
{
    static const struct version_options none;
    int st = version_create(h->uuid, &none, 0, v);
    if (st == SHALE_OK) {
        (*v)->manifest = h->number;
        (*v)->length = sizeof *h;
        (*v)->compat = h->compat;
        (*v)->ro_compat = h->ro_compat;
    }
    return st;
}

int manifest_load(int dirfd, uint64_t number, uint64_t length, struct version **out)
{
    struct manifest_reader r;
    struct manifest_header h;
    struct version *v = NULL;
    int st = manifest_reader_open(&r, dirfd, number);
    if (st != SHALE_OK) {
        return st;
    }
    st = check_length(&r, length);
    if (st == SHALE_OK) {
        st = manifest_reader_header(&r, &h);
    }
    if (st == SHALE_OK) {
        st = start_version(&h, &v);
    }
    if (st == SHALE_OK) {
        st = take_records(&r, v, length);
    }
    if (st == SHALE_OK) {
        *out = v;
        v = NULL;
    } else {
        st = err_wrap(st, "%s", r.name);
    }
    version_unref(v);
    manifest_reader_release(&r);
    return st;
}

int manifest_advance(int dirfd, const struct version *base, uint64_t length, struct version **out)
{
    struct manifest_reader r;
    struct manifest_header h;
    struct version *v = NULL;
    int st = manifest_reader_open(&r, dirfd, base->manifest);
    if (st != SHALE_OK) {
        return st;
    }
    st = check_length(&r, length);
    if (st == SHALE_OK && length < base->length) {
        st = err_set(SHALE_CORRUPT, "cannot go back from %llu to %llu", (unsigned long long)base->length,
                     (unsigned long long)length);
    }
    if (st == SHALE_OK) {
        st = manifest_reader_header(&r, &h);
    }
    if (st == SHALE_OK && memcmp(h.uuid, base->uuid, sizeof h.uuid) != 0) {
        st = err_set(SHALE_CORRUPT, "it belongs to another database");
    }
    if (st == SHALE_OK) {
        st = version_clone(base, &v);
    }
    if (st == SHALE_OK) {
        st = take_records(&r, v, length);
    }
    if (st == SHALE_OK) {
        *out = v;
        v = NULL;
    } else {
        st = err_wrap(st, "%s", r.name);
    }
    version_unref(v);
    manifest_reader_release(&r);
    return st;
}
