#include "ledger.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VALUE_MAX 4096

/* The head comes first. */
static const struct {
    char letter;
    unsigned length;
} rings[LEDGER_ENTRIES] = {{'h', 1}, {'a', 37}, {'m', 17}, {'z', 5}};

struct head {
    uint64_t c;
    uint32_t writer, ring;
};

static int wrong(char err[LEDGER_ERR], const char *fmt, ...) BASE_PRINTF(2, 3);
static int wrong(char err[LEDGER_ERR], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, LEDGER_ERR, fmt, ap);
    va_end(ap);
    return -1;
}

static int wrong_status(char err[LEDGER_ERR], const char *what, int status)
{
    return wrong(err, "%s: %s: %s", what, shale_errname(status), shale_errmsg());
}

/* ---- content ---- */

static size_t make_key(unsigned writer, unsigned ring, uint64_t c, char out[32])
{
    return (size_t)snprintf(out, 32, "%c/%u/%03u", rings[ring].letter, writer,
                            (unsigned)(c % rings[ring].length));
}

static bool deletes(unsigned ring, uint64_t c)
{
    return ring == 1 && c % 8 == 7;
}

static size_t make_value(unsigned writer, unsigned ring, uint64_t c, unsigned char out[VALUE_MAX])
{
    struct head head = {c, writer, ring};
    uint64_t seed = c * 1000003 + writer * 8191 + ring;
    size_t size = sizeof head + (ring == 2 && c % 16 == 5 ? 3500 : 20 + prng_next(&seed) % 400);
    memcpy(out, &head, sizeof head);
    for (size_t i = sizeof head; i < size; i++) {
        out[i] = (unsigned char)((i & 1) != 0 ? 'x' : prng_next(&seed));
    }
    return size;
}

/* The commit that wrote the place of a ring last, when there were `count`; 0: none. */
static uint64_t last_at(unsigned ring, uint64_t count, uint64_t place)
{
    uint64_t length = rings[ring].length, back = (count + length - place) % length;
    return back < count ? count - back : 0;
}

/* ---- writing ---- */

static int write_batch(shale_db *db, unsigned writer, uint64_t c, unsigned flags)
{
    unsigned char value[VALUE_MAX];
    char key[32];
    shale_batch *batch = NULL;
    int rc = shale_batch_create(&batch);
    for (unsigned r = 0; r < LEDGER_ENTRIES && rc == SHALE_OK; r++) {
        size_t n = make_key(writer, r, c, key);
        rc = deletes(r, c) ? shale_batch_delete(batch, key, n)
                           : shale_batch_put(batch, key, n, value, make_value(writer, r, c, value));
    }
    if (rc == SHALE_OK) {
        rc = shale_write(db, batch, flags);
    }
    shale_batch_destroy(batch);
    return rc;
}

static int write_txn(shale_db *db, unsigned writer, uint64_t c, unsigned flags)
{
    unsigned char value[VALUE_MAX];
    char key[32];
    shale_txn *txn = NULL;
    int rc = shale_txn_begin(db, flags, -1, &txn);
    for (unsigned r = 0; r < LEDGER_ENTRIES && rc == SHALE_OK; r++) {
        size_t n = make_key(writer, r, c, key);
        rc = deletes(r, c) ? shale_txn_delete(txn, key, n)
                           : shale_txn_put(txn, key, n, value, make_value(writer, r, c, value));
    }
    if (rc == SHALE_OK) {
        return shale_txn_commit(txn);
    }
    shale_txn_abort(txn);
    return rc;
}

int ledger_write(shale_db *db, unsigned writer, uint64_t c, unsigned flags, bool txn, char err[LEDGER_ERR])
{
    int rc = txn ? write_txn(db, writer, c, flags) : write_batch(db, writer, c, flags);
    if (rc != SHALE_OK) {
        (void)wrong_status(err, txn ? "a transaction" : "shale_write", rc);
    }
    return rc;
}

/* ---- reading ---- */

int ledger_count(shale_db *db, unsigned writer, uint64_t *c, char err[LEDGER_ERR])
{
    char key[32];
    shale_value v = {0};
    int rc = shale_get(db, NULL, key, make_key(writer, 0, 0, key), &v);
    *c = 0;
    if (rc == SHALE_OK && v.size >= sizeof *c) {
        memcpy(c, v.data, sizeof *c);
    }
    shale_value_release(&v);
    return rc == SHALE_OK || rc == SHALE_NOTFOUND ? 0 : wrong_status(err, "shale_get", rc);
}

/* One entry that the scan met. */
static int check_entry(const shale_iter *it, const uint64_t counts[LEDGER_WRITERS], char err[LEDGER_ERR])
{
    unsigned char value[VALUE_MAX];
    char text[32], again[32];
    unsigned writer = 0, place = 0, ring = 0;
    char letter = 0;
    size_t n, size;
    const char *key = shale_iter_key(it, &n);
    const void *data = shale_iter_value(it, &size);
    snprintf(text, sizeof text, "%.*s", (int)n, key);
    if (sscanf(text, "%c/%u/%u", &letter, &writer, &place) != 3 || writer >= LEDGER_WRITERS) {
        return wrong(err, "the key \"%s\" is nobody's", text);
    }
    while (ring < LEDGER_ENTRIES - 1 && rings[ring].letter != letter) {
        ring++;
    }
    uint64_t c = last_at(ring, counts[writer], place);
    if (make_key(writer, ring, place, again) != n || memcmp(again, key, n) != 0 || c == 0 ||
        deletes(ring, c)) {
        return wrong(err, "%s is there after %llu commits", text, (unsigned long long)counts[writer]);
    }
    if (make_value(writer, ring, c, value) != size || memcmp(value, data, size) != 0) {
        struct head head = {0};
        memcpy(&head, data, size < sizeof head ? size : sizeof head);
        return wrong(err, "%s is not of commit %llu but of %llu, after %llu commits", text,
                     (unsigned long long)c, (unsigned long long)head.c, (unsigned long long)counts[writer]);
    }
    return 0;
}

static size_t entries_of(uint64_t count)
{
    size_t n = 0;
    for (unsigned r = 0; r < LEDGER_ENTRIES; r++) {
        for (unsigned place = 0; place < rings[r].length; place++) {
            uint64_t c = last_at(r, count, place);
            n += c != 0 && !deletes(r, c);
        }
    }
    return n;
}

static int check_entries(shale_db *db, const uint64_t counts[LEDGER_WRITERS], char err[LEDGER_ERR])
{
    size_t seen = 0, expected = 0;
    shale_iter *it = NULL;
    int bad = 0, rc = shale_iter_create(db, NULL, NULL, &it);
    if (rc == SHALE_OK) {
        for (rc = shale_iter_first(it); rc == SHALE_OK && bad == 0; rc = shale_iter_next(it)) {
            bad = check_entry(it, counts, err);
            seen++;
        }
    }
    shale_iter_destroy(it);
    for (unsigned w = 0; w < LEDGER_WRITERS; w++) {
        expected += entries_of(counts[w]);
    }
    if (bad == 0 && rc != SHALE_NOTFOUND) {
        return wrong_status(err, "a scan", rc);
    }
    return bad != 0 || seen == expected ? bad : wrong(err, "%zu entries instead of %zu", seen, expected);
}

int ledger_check(shale_db *db, uint64_t counts[LEDGER_WRITERS], char err[LEDGER_ERR])
{
    uint64_t all = 0;
    shale_snapshot *snap = NULL;
    for (unsigned w = 0; w < LEDGER_WRITERS; w++) {
        if (ledger_count(db, w, &counts[w], err) != 0) {
            return -1;
        }
        all += counts[w];
    }
    int rc = shale_snapshot_create(db, &snap);
    if (rc != SHALE_OK) {
        return wrong_status(err, "shale_snapshot_create", rc);
    }
    uint64_t seq = shale_snapshot_seq(snap);
    shale_snapshot_release(snap);
    if (seq != all * LEDGER_ENTRIES) {
        return wrong(err, "the sequence number is %llu, and there are %llu commits of %d entries",
                     (unsigned long long)seq, (unsigned long long)all, LEDGER_ENTRIES);
    }
    return check_entries(db, counts, err);
}
