/* cmd_dump.c - dump and load: the whole database as text.
 *
 * load stores batches of about a thousand records. A batch is whole or not there; the load as a whole is not
 * one step: what stands before a damaged line stays. Without --durable the batches are synced once, at the
 * end, before load says that all is well.
 */
#include "dumpfile.h"
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BATCH_RECORDS 1000
#define BATCH_BYTES   (1u << 20)

/* ---- dump ---- */

static int dump_records(struct tool *t, shale_iter *it, struct progress *p, uint64_t total)
{
    struct text scratch = {0};
    uint64_t bytes = 0, records = 0;
    int status = shale_iter_first(it);
    while (status == SHALE_OK && !ferror(stdout) && !tool_interrupted()) {
        size_t keylen, vallen;
        const void *key = shale_iter_key(it, &keylen);
        const void *val = shale_iter_value(it, &vallen);
        dump_write_item(stdout, t->print, key, keylen, &scratch);
        dump_write_item(stdout, t->print, val, vallen, &scratch);
        bytes += keylen + vallen;
        if (++records % 1024 == 0) {
            progress_show(p, bytes, total > bytes ? total : 0, records);
        }
        status = shale_iter_next(it);
    }
    text_release(&scratch);
    return status == SHALE_NOTFOUND ? SHALE_OK : status;
}

/* mdb_load makes the map as large as this says. LMDB's pages are half full at worst. */
static uint64_t lmdb_mapsize(shale_db *db)
{
    uint64_t bytes = 0;
    if (shale_approximate_size(db, NULL, 0, NULL, 0, &bytes) != SHALE_OK) {
        bytes = 0;
    }
    return (4 * bytes + (UINT64_C(64) << 20)) & ~(uint64_t)0xfffff;
}

int cmd_dump(struct tool *t)
{
    shale_iter *it = NULL;
    shale_iter_options o;
    shale_stats stats = {.size = sizeof stats};
    struct progress p;
    int result = tool_open(t, TOOL_READ, "0");
    if (result != 0) {
        return result;
    }
    shale_iter_options_init(&o);
    o.no_fill_cache = true;
    progress_start(&p, "dump", t->progress);
    int status = shale_stat(t->db, &stats);
    if (status == SHALE_OK) {
        status = shale_iter_create(t->db, NULL, &o, &it);
    }
    if (status == SHALE_OK) {
        dump_write_header(stdout, t->print, t->mapsize ? lmdb_mapsize(t->db) : 0);
        status = dump_records(t, it, &p, stats.disk_bytes);
    }
    progress_end(&p);
    if (status != SHALE_OK) {
        result = tool_report(t, status,
                             "cannot read"); /* and no DATA=END: the dump says itself that it is not whole */
    } else if (!tool_interrupted()) {
        dump_write_end(stdout);
    }
    shale_iter_destroy(it);
    return tool_close(t, result);
}

/* ---- load ---- */

struct load {
    struct tool *t;
    struct dump_reader in;
    struct progress progress;
    shale_batch *batch;
    uint64_t total, batch_bytes, records;
    struct text key, val;
};

static int store_batch(struct load *l)
{
    uint64_t n = shale_batch_count(l->batch);
    int status =
        n != 0 ? shale_write(l->t->db, l->batch, l->t->durable ? SHALE_SYNC : SHALE_NOSYNC) : SHALE_OK;
    if (status != SHALE_OK) {
        return tool_report(l->t, status, "cannot write");
    }
    l->records += n;
    l->batch_bytes = 0;
    shale_batch_clear(l->batch);
    progress_show(&l->progress, l->in.bytes, l->total, l->records);
    return 0;
}

static int explain_input(struct load *l, int got)
{
    progress_end(&l->progress);
    if (got == DUMP_IO) {
        return tool_complain(l->t, EX_IOERR, "cannot read the input: %s", strerror(errno));
    }
    return tool_complain(l->t, EX_DATAERR, "line %llu: %s (the %llu records before it are stored)",
                         (unsigned long long)l->in.line, l->in.error, (unsigned long long)l->records);
}

static int load_records(struct load *l)
{
    char where[32];
    int got = DUMP_MORE, result = 0;
    while (result == 0 && !tool_interrupted() &&
           (got = dump_read_pair(&l->in, &l->key, &l->val)) == DUMP_MORE) {
        int status = shale_batch_put(l->batch, l->key.data, l->key.size, l->val.data, l->val.size);
        if (status != SHALE_OK) {
            progress_end(&l->progress);
            snprintf(where, sizeof where, "line %llu", (unsigned long long)l->in.line);
            result = tool_report(l->t, status, where);
            break;
        }
        l->batch_bytes += l->key.size + l->val.size;
        if (shale_batch_count(l->batch) >= BATCH_RECORDS || l->batch_bytes >= BATCH_BYTES) {
            result = store_batch(l);
        }
    }
    if (result == 0 && !tool_interrupted()) {
        result = store_batch(l); /* also before damage: what could be read is kept */
    }
    return result == 0 && got < DUMP_END ? explain_input(l, got) : result;
}

static int load_file(struct load *l)
{
    struct tool *t = l->t;
    struct stat st;
    int got = dump_read_header(&l->in); /* before a database is made */
    if (got != DUMP_MORE) {
        return explain_input(l, got);
    }
    l->total = fstat(fileno(l->in.file), &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    int result = tool_open(t, TOOL_WRITE, "1");
    if (result != 0) {
        return result;
    }
    result = load_records(l);
    progress_end(&l->progress);
    int status = l->records != 0 ? shale_sync(t->db) : SHALE_OK;
    if (status != SHALE_OK) {
        int code = tool_report(t, status, "cannot sync");
        result = result == 0 ? code : result;
    }
    return tool_close(t, result);
}

int cmd_load(struct tool *t)
{
    struct load l = {.t = t, .in.file = stdin};
    const char *name = t->nargs > 0 && strcmp(t->args[0], "-") != 0 ? t->args[0] : NULL;
    if (name != NULL && (l.in.file = fopen(name, "re")) == NULL) {
        return tool_complain(t, EX_NOINPUT, "%s: %s", name, strerror(errno));
    }
    if (shale_batch_create(&l.batch) != SHALE_OK) {
        return tool_report(t, SHALE_NOMEM, "batch");
    }
    progress_start(&l.progress, "load", t->progress);
    int result = load_file(&l);
    if (name != NULL) {
        fclose(l.in.file);
    }
    shale_batch_destroy(l.batch);
    dump_reader_release(&l.in);
    text_release(&l.key);
    text_release(&l.val);
    return result;
}
