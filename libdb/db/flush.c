/* flush.c - sealed memtables become tables of L0; and the one way in which an edit is committed.
 *
 * FLUSH, then: the oldest sealed memtable of the view; its records verified in the log, in order, so that rot
 * does not get a fresh checksum; a table with the newest entry of each key; the edit {+ table, oldest + 1};
 * then the segment is retired. [I-17] The table is fsynced, renamed and its directory synced before an edit
 * names it.
 *
 * After a failed fdatasync of the log (panic) the same steps are the cure [I-13]: at the first record that
 * does not verify the flush stops, and what follows in the suspect segments is dropped, all of it by one
 * edit: what stays is a prefix of the commits. The edit's last sequence number is the last one that was
 * handed out for what is dropped, so that the log goes on behind it without a gap [I-14].
 */
#include "db/db.h"

#define FLUSH_LOOK_NS 2000000

/* The last sequence number up to which seg's records verify, and how many entries they have. first: of the
 * first record; 0: none. */
static int verify_records(const shale_db *db, const struct wal_segment *seg, uint64_t *first, uint64_t *last,
                          uint64_t *entries)
{
    struct wal_view rec;
    struct db_breath breath = {.db = db};
    uint32_t offset = WAL_FIRST;
    int rc;
    *first = *last = *entries = 0;
    while ((rc = wal_read(seg, offset, &rec)) == SHALE_OK) {
        if (*last != 0 && rec.first_seq != *last + 1) {
            break;
        }
        *first = *first == 0 ? rec.first_seq : *first;
        *last = rec.first_seq + rec.count - 1;
        *entries += rec.count;
        db_breathe(&breath, rec.end - offset);
        offset = rec.end;
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

/* entries: what the log has; 0: not known. An index that leads to fewer was damaged, and a table made from it
 * would lose the rest for ever: the log still has it. */
static int build_table(const shale_db *db, struct mem_index *mem, uint64_t seq, uint64_t entries,
                       struct table_builder *b)
{
    struct mem_iter it;
    struct db_breath breath = {.db = db};
    uint64_t found = 0;
    mem_iter_init(&it, mem, seq);
    int rc = mem_iter_first(&it);
    while (rc == SHALE_OK) {
        rc = table_build_add(b, it.key, it.entry_seq, it.type, it.value);
        if (rc != SHALE_OK) {
            return rc;
        }
        os_mark(OS_MARK_FLUSH);
        db_breathe(&breath, it.key.size + it.value.size);
        found += mem_iter_versions(&it);
        rc = mem_iter_next(&it);
    }
    if (rc == SHALE_NOTFOUND && entries != 0 && found != entries) {
        return err_set(SHALE_CORRUPT,
                       "%s: %06u.mem: it leads to %llu entries, the log has %llu: nothing was written to a "
                       "table; end all processes that use the database, and open it again",
                       db->path, mem->seg->number, (unsigned long long)found, (unsigned long long)entries);
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

static int write_mem_table(shale_db *db, struct mem_index *mem, uint64_t seq, uint64_t entries,
                           struct table_info *info)
{
    struct table_options o = {.block_bytes = db->options.block_bytes,
                              .bloom_bits = db->options.bloom_bits,
                              .lz4 = false,
                              .mode = db->options.mode};
    uint64_t number = atomic_fetch_add(&db->state_map.state->next_table, 1);
    struct table_builder *b = NULL;
    int rc = table_build_start(db->dirfd, number, &o, &b);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = build_table(db, mem, seq, entries, b);
    if (rc != SHALE_OK) {
        table_build_abandon(b);
        return rc;
    }
    return table_build_finish(b, info);
}

int db_write_mem_table(shale_db *db, struct mem_index *mem, uint64_t seq, struct table_info *info)
{
    return write_mem_table(db, mem, seq, 0, info);
}

/* ---- committing an edit ---- */

static void unlink_tables(shale_db *db, const struct version_edit *e)
{
    for (size_t i = 0; i < e->removed_count; i++) {
        char name[TABLE_NAME_SIZE];
        bool moved = false;
        for (size_t j = 0; j < e->added_count; j++) {
            moved = moved || e->added[j].info.number == e->removed[i].number;
        }
        if (!moved) {
            table_name(e->removed[i].number, name);
            (void)os_unlink(db->dirfd, name); /* what can't be removed now, the next sweep removes */
        }
    }
}

int db_commit_edit(shale_db *db, struct version_edit *e,
                   int (*still)(void *ctx, const struct version *current), void *ctx, bool *unknown)
{
    struct version_log log = {.dirfd = db->dirfd, .state = db->state, .mode = db->options.mode};
    struct os_wait forever = os_wait_forever();
    struct version *current = NULL, *next = NULL;
    struct db_view *view = NULL;
    uint64_t seq;
    *unknown = false;
    int rc = db_view_get(db, &view, &seq);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_role_lock(&db->roles, OS_ROLE_MANIFEST, &forever, NULL);
    if (rc != SHALE_OK) {
        db_view_unref(view);
        return rc;
    }
    os_mark(OS_MARK_MANIFEST);
    rc = version_begin(&log, view->version, &current);
    if (rc == SHALE_OK) {
        rc = still(ctx, current);
    }
    if (rc == SHALE_OK) {
        rc = version_commit(&log, current, e, &next, unknown);
    }
    os_mark(OS_MARK_MANIFEST);
    os_role_unlock(&db->roles, OS_ROLE_MANIFEST);
    version_unref(current);
    version_unref(next);
    db_view_unref(view);
    if (rc == SHALE_OK) {
        unlink_tables(db, e);
        atomic_store_explicit(&db->state->no_space, 0, memory_order_relaxed);
        state_wake(&db->state->room, &db->state->room_asleep);
        db_wake_work(db);
    } else if (rc == SHALE_NOSPC) {
        atomic_store_explicit(&db->state->no_space, (uint64_t)os_now(), memory_order_relaxed);
    }
    return rc;
}

/* ---- flushing ---- */

static int still_oldest(void *ctx, const struct version *current)
{
    return current->oldest == *(uint32_t *)ctx ? SHALE_OK : SHALE_NOTFOUND;
}

static bool in_panic(const shale_db *db, uint32_t number)
{
    return atomic_load_explicit(&db->state->panic, memory_order_acquire) >= number;
}

/* What a flush of the oldest memtable does. */
struct flush {
    uint32_t number, until; /* memtables [number, until) are done with */
    uint64_t seq;           /* entries up to here go to the table; 0: none */
    uint64_t last_seq;      /* everything up to here has been dealt with; 0: as before */
    uint64_t entries;       /* that the index must lead to; 0: a suspect one, it may lead to more */
};

/* The last sequence number of the memtables before `number`, which are sealed. visible_seq is read before the
 * first record of `number` is looked for: where there is none yet, none of its entries is visible. */
static uint64_t last_before(shale_db *db, const struct db_view *view, uint32_t number)
{
    struct wal_view rec;
    uint64_t visible = atomic_load_explicit(&db->state->visible_seq, memory_order_acquire);
    for (uint32_t n = number; n <= view->active; n++) { /* one may have been sealed empty */
        if (wal_read(view->mem[view->active - n]->seg, WAL_FIRST, &rec) == SHALE_OK) {
            return rec.first_seq - 1;
        }
    }
    return visible;
}

/* f->seq: up to where the suspect memtable verifies. SHALE_NOTFOUND (no text): not before the newest suspect
 * one is sealed, too. */
static int plan_drop(shale_db *db, const struct db_view *view, struct flush *f)
{
    uint64_t panic = atomic_load_explicit(&db->state->panic, memory_order_acquire);
    if (view->active <= panic) {
        return SHALE_NOTFOUND;
    }
    f->until = (uint32_t)panic + 1;
    f->last_seq = last_before(db, view, f->until);
    db_log(db, 0, "%s: log segments %u to %u: entries %llu to %llu were lost by a failed fdatasync", db->path,
           f->number, f->until - 1, (unsigned long long)(f->seq != 0 ? f->seq : view->version->last_seq) + 1,
           (unsigned long long)f->last_seq);
    return SHALE_OK;
}

/* All of the memtable may be written, unless it is suspect. */
static int plan(shale_db *db, const struct db_view *view, struct mem_index *mem, struct flush *f)
{
    uint64_t first, last, entries;
    *f = (struct flush){.number = mem->seg->number, .until = mem->seg->number + 1};
    int rc = verify_records(db, mem->seg, &first, &last, &entries);
    if (rc != SHALE_OK) {
        return rc;
    }
    /* not ==: a writer killed between linking an entry and counting it leaves the index one short */
    bool whole = entries >= mem_entries(mem), follows = first == 0 || first == view->version->last_seq + 1;
    f->seq = follows ? last : 0;
    f->last_seq = f->seq;
    f->entries = in_panic(db, f->number) ? 0 : entries;
    if (whole && follows) {
        return SHALE_OK;
    }
    if (in_panic(db, f->number)) {
        return plan_drop(db, view, f);
    }
    return err_set(
        SHALE_CORRUPT,
        "%s: log segment %u: only %llu of %llu entries verify: the rest was not written to a table; "
        "restore from a backup, or salvage with repair",
        db->path, f->number, (unsigned long long)entries, (unsigned long long)mem_entries(mem));
}

static int write_planned(shale_db *db, struct mem_index *mem, const struct flush *f,
                         struct version_edit *edit, uint64_t *bytes)
{
    struct table_info info = {0};
    int rc = SHALE_OK;
    if (f->seq != 0) {
        rc = write_mem_table(db, mem, f->seq, f->entries, &info);
        *bytes = info.size;
        if (rc == SHALE_OK) {
            rc = version_edit_add(edit, 0, &info);
        }
        if (rc == SHALE_OK) {
            rc = os_sync_dir(db->dirfd);
        }
    }
    edit->has_last_seq = f->last_seq != 0;
    edit->last_seq = f->last_seq;
    edit->has_oldest = true;
    edit->oldest = f->until;
    table_info_release(&info);
    return rc;
}

static int flush_mem(shale_db *db, const struct db_view *view, struct mem_index *mem)
{
    struct version_edit edit = {0};
    struct flush f;
    uint64_t bytes = 0;
    bool unknown = false;
    os_mark(OS_MARK_FLUSH);
    int rc = plan(db, view, mem, &f);
    if (rc == SHALE_OK) {
        rc = write_planned(db, mem, &f, &edit, &bytes);
    }
    if (rc == SHALE_OK) {
        os_mark(OS_MARK_FLUSH);
        rc = db_commit_edit(db, &edit, still_oldest, &f.number, &unknown);
    }
    if (rc == SHALE_OK) {
        DB_COUNT(db, flushes, f.seq != 0);
        DB_COUNT(db, flush_bytes, bytes);
        db_retire(db, f.number, f.until);
    } else if (!unknown) {
        db_drop_outputs(db, &edit);
    }
    version_edit_release(&edit);
    return rc;
}

void db_drop_outputs(shale_db *db, const struct version_edit *e)
{
    for (size_t i = 0; i < e->added_count; i++) {
        char name[TABLE_NAME_SIZE];
        table_name(e->added[i].info.number, name);
        (void)os_unlink(db->dirfd, name);
    }
}

int db_flush_one(shale_db *db)
{
    struct db_view *view;
    uint64_t seq;
    int rc = db_view_get(db, &view, &seq);
    if (rc != SHALE_OK) {
        return rc;
    }
    if (view->mem_count < 2) {
        rc = SHALE_NOTFOUND;
    } else {
        struct mem_index *mem = view->mem[view->mem_count - 1];
        db_doing(db, "flushing memtable %u", mem->seg->number);
        rc = flush_mem(db, view, mem);
        db_doing(db, "%s", "");
    }
    db_view_unref(view);
    return db_full(db, rc);
}

/* FLUSH is taken. What its holder writes may be just what we want written: so we need not have the lock, only
 * look again. Its holder may be killed, and then wakes nobody. */
static int wait_for_room(shale_db *db, const struct os_wait *wait)
{
    struct state *s = db->state;
    uint32_t word = atomic_load_explicit(&s->room, memory_order_acquire);
    atomic_store_explicit(&s->room_asleep, 1, memory_order_seq_cst);
    int rc = os_sleep(wait, &s->room, word, FLUSH_LOOK_NS);
    if (rc == SHALE_BUSY) {
        return err_set(rc, "%s: busy: another process is flushing", db->path);
    }
    return rc == SHALE_OK ? rc : err_set(rc, "%s: interrupted while another process was flushing", db->path);
}

/* Memtables below until, by whom ever. */
static int flush_sealed(shale_db *db, uint32_t until, const struct os_wait *wait)
{
    int rc = SHALE_OK;
    while (rc == SHALE_OK) {
        struct state_view tuple;
        state_load_tuple(db->state, &tuple);
        if (tuple.oldest >= until) {
            break;
        }
        rc = os_role_try(&db->roles, OS_ROLE_FLUSH);
        if (rc == SHALE_BUSY) {
            rc = wait_for_room(db, wait);
            continue;
        }
        if (rc != SHALE_OK) {
            return rc;
        }
        rc = db_flush_one(db);
        os_role_unlock(&db->roles, OS_ROLE_FLUSH);
        if (rc ==
            SHALE_NOTFOUND) { /* others did it; or else a sync has failed just now, in a newer segment */
            rc = db_panic(db) == SHALE_OK ? SHALE_OK : db_seal(db, wait);
            until = rc == SHALE_OK && db_panic(db) != SHALE_OK ? db_active(db->state) : until;
        }
    }
    return rc;
}

/* Everything that was visible when it was called is in tables on return. */
int shale_flush(shale_db *db)
{
    int rc = db_check_write(db);
    if (rc != SHALE_OK) {
        return rc;
    }
    struct os_wait wait = db_wait(db);
    rc = db_seal(db, &wait);
    if (rc == SHALE_NOSPC && flush_sealed(db, db_active(db->state), &wait) == SHALE_OK) {
        rc = db_seal(db, &wait); /* what the flush of the others has freed is what the next segment lacked */
    }
    return rc == SHALE_OK ? flush_sealed(db, db_active(db->state), &wait) : rc;
}
