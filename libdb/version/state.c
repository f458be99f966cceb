/* state.c - STATE: making it, mapping it, telling whether it is to be believed.
 *
 * STATE is shared memory with a name. Whoever opens the database finds one of
 *   nothing, or zeros                    nobody has used it since the boot, or its maker died early
 *   magic 0, or generation odd           somebody died while initialising it [h1]
 *   another boot, device, inode          it outlived a reboot, or the directory was copied [h2]
 *   another layout or page size          another library made it, and may be using it [h28]
 *   itself                               attach
 * Only the last is believed, and all but the last but one are made anew by whoever holds OPEN and LIVE.
 * Initialising happens in place and never changes the file's size: read-only handles, who hold no lock, may
 * have it mapped, and a mapping that loses its pages kills. They see the odd generation and look elsewhere.
 *
 * Nothing in here is trusted further than this check goes: numbers that lead to files are checked against the
 * files.
 */
#include "version/state.h"

#define LINE 64 /* bytes of the part whose places are fixed for ever */

/* doc/format names these places. */
_Static_assert(offsetof(struct state, layout) == 8 && offsetof(struct state, page_size) == 12, "doc/format");
_Static_assert(offsetof(struct state, uuid) == 24 && offsetof(struct state, boot) == 40, "doc/format");
_Static_assert(offsetof(struct state, lock_dev) == 64 && offsetof(struct state, clean) == 96, "doc/format");
_Static_assert(offsetof(struct state, mem_dev) == 104 && offsetof(struct state, mem_dir) == 99392,
               "doc/format");
_Static_assert(offsetof(struct state, epoch) == 128 && offsetof(struct state, tuple) == 192, "doc/format");
_Static_assert(offsetof(struct state, bad_manifest) == 240 && offsetof(struct state, wal_end) == 256,
               "doc/format");
_Static_assert(offsetof(struct state, in_flight) == 320 && offsetof(struct state, sync_attempt) == 384,
               "doc/format");
_Static_assert(offsetof(struct state, durable_published) == 448, "doc/format");
_Static_assert(offsetof(struct state, ready) == 512 && offsetof(struct state, work) == 576, "doc/format");
_Static_assert(offsetof(struct state, change) == 640 && offsetof(struct state, sync_word) == 704,
               "doc/format");
_Static_assert(offsetof(struct state, room) == 768 && offsetof(struct state, wish) == 776 &&
                   offsetof(struct state, closed) == 832,
               "doc/format");
_Static_assert(offsetof(struct state, rows) % LINE == 0 && sizeof(struct state_row) % LINE == 0,
               "a row is nobody else's");
_Static_assert(sizeof(struct state_tuple) == 24, "doc/format");
_Static_assert(sizeof(struct state_counters) == 200 && sizeof(struct state) == 99648, "doc/format");
_Static_assert(offsetof(struct state, rows) == 1088 && sizeof(struct state_row) == 384, "doc/format");
_Static_assert(offsetof(struct state_row, program) == 64 && offsetof(struct state_row, counters) == 160,
               "doc/format");

/* ---- the file ---- */

/* A file that is shorter than our layout: what is it? Only its first line can be looked at. */
static int judge_short(int fd, uint64_t size)
{
    unsigned char line[LINE], boot[16];
    size_t got;
    int st = os_pread(fd, line, sizeof line, 0, &got);
    if (st != SHALE_OK) {
        return st;
    }
    os_boot_id(boot);
    if (got < sizeof line || get_u64(line + offsetof(struct state, magic)) != STATE_MAGIC ||
        memcmp(line + offsetof(struct state, boot), boot, sizeof boot) != 0) {
        return SHALE_NOTFOUND;
    }
    return err_set(SHALE_MISMATCH,
                   STATE_NAME ": layout %u, %llu bytes; this library's layout %u needs %llu (close the other "
                              "programs that use the database, or use the same version)",
                   get_u32(line + offsetof(struct state, layout)), (unsigned long long)size, STATE_LAYOUT,
                   (unsigned long long)STATE_SIZE);
}

/* Space for all of it is there before it is mapped: a store into a hole of a full file system is a signal,
 * not an error. */
static int make_file(int dirfd, unsigned mode, int *fd, struct stat *sb)
{
    int st = os_open_stat(dirfd, STATE_NAME, O_RDWR | O_CREAT | O_EXCL, mode, fd, sb);
    if (st != SHALE_OK) {
        return st == SHALE_EXISTS ? err_set(st, STATE_NAME ": appeared while it was being made") : st;
    }
    st = os_allocate(*fd, 0, STATE_SIZE);
    if (st != SHALE_OK) {
        os_close(fd);
        (void)os_unlink(dirfd, STATE_NAME);
    }
    return st;
}

/* Opens what is there, as far as it can be used. */
static int open_file(int dirfd, bool writable, bool create, int *fd, struct stat *sb)
{
    int st = os_open_stat(dirfd, STATE_NAME, writable ? O_RDWR : O_RDONLY, 0, fd, sb);
    if (st != SHALE_OK) {
        return st;
    }
    if (create && (uint64_t)sb->st_size != STATE_SIZE) {
        st = os_unlink(dirfd, STATE_NAME);
        st = st != SHALE_OK ? st : SHALE_NOTFOUND;
    } else if (create) {
        st = os_allocate(*fd, 0, STATE_SIZE); /* a copy of it may have holes */
    } else if ((uint64_t)sb->st_size < STATE_SIZE) {
        st = judge_short(*fd, (uint64_t)sb->st_size);
    }
    if (st != SHALE_OK) {
        os_close(fd);
    }
    return st;
}

int state_map(int dirfd, bool writable, bool create, unsigned mode, struct state_map *out)
{
    struct stat sb;
    void *map;
    int fd = -1;
    int st = open_file(dirfd, writable, create, &fd, &sb);
    if (st == SHALE_NOTFOUND && create) {
        st = make_file(dirfd, mode, &fd, &sb);
    }
    if (st != SHALE_OK) {
        return st == SHALE_NOTFOUND ? st : err_wrap(st, STATE_NAME);
    }
    st = os_map(fd, STATE_SIZE, writable, &map);
    os_close(&fd);
    if (st != SHALE_OK) {
        return err_wrap(st, STATE_NAME);
    }
    *out = (struct state_map){.state = map, .writable = writable, .dev = sb.st_dev, .ino = sb.st_ino};
    return SHALE_OK;
}

void state_unmap(struct state_map *m)
{
    if (m->state != NULL) {
        os_unmap(m->state, STATE_SIZE);
        m->state = NULL;
    }
}

/* ---- is it to be believed? ---- */

static bool is_of_here(const struct state_map *m, const struct stat *lock)
{
    const struct state *s = m->state;
    return s->lock_dev == (uint64_t)lock->st_dev && s->lock_ino == (uint64_t)lock->st_ino &&
           s->state_dev == (uint64_t)m->dev && s->state_ino == (uint64_t)m->ino;
}

int state_check(const struct state_map *m, const struct stat *lock)
{
    const struct state *s = m->state;
    unsigned char boot[16];
    /* acquire: pairs with state_ready, so that what follows is what it had written */
    if (atomic_load_explicit(&s->magic, memory_order_acquire) != STATE_MAGIC ||
        (atomic_load_explicit(&s->generation, memory_order_acquire) & 1) != 0) {
        return SHALE_NOTFOUND;
    }
    os_boot_id(boot);
    if (memcmp(s->boot, boot, sizeof boot) != 0) {
        return SHALE_NOTFOUND;
    }
    if (s->layout != STATE_LAYOUT || s->page_size != os_page_size()) {
        return err_set(SHALE_MISMATCH,
                       STATE_NAME ": layout %u with pages of %u bytes; this library has layout %u and %zu "
                                  "(close the other programs that use the database, or use the same version)",
                       s->layout, s->page_size, STATE_LAYOUT, os_page_size());
    }
    return is_of_here(m, lock) ? SHALE_OK : SHALE_NOTFOUND;
}

bool state_is_own(const struct state_map *m, const struct stat *lock)
{
    return m->state->layout == STATE_LAYOUT && is_of_here(m, lock);
}

/* ---- initialising ---- */

/* Read-only handles may be reading: whole words, so that they see old or zero, and never a mixture. */
static void zero_words(void *from, void *to)
{
    typedef uint64_t __attribute__((may_alias)) word;
    for (word *w = from; w < (word *)to; w++) {
        __atomic_store_n(w, 0, __ATOMIC_RELAXED);
    }
}

void state_begin(struct state_map *m, const struct stat *lock, const unsigned char uuid[16])
{
    struct state *s = m->state;
    uint64_t generation = atomic_load_explicit(&s->generation, memory_order_relaxed);
    atomic_store_explicit(&s->magic, 0, memory_order_relaxed);
    /* Odd already: a dead initialiser's number, which nobody ever believed. */
    atomic_store_explicit(&s->generation, generation | 1, memory_order_relaxed);
    /* Whoever sees any of the stores below sees the odd generation when he looks again. */
    atomic_thread_fence(memory_order_release);
    os_mark(OS_MARK_OPEN);
    zero_words((unsigned char *)s + LINE, (unsigned char *)s + sizeof *s);
    os_mark(OS_MARK_OPEN);
    s->layout = STATE_LAYOUT;
    s->page_size = (uint32_t)os_page_size();
    memcpy(s->uuid, uuid, sizeof s->uuid);
    os_boot_id(s->boot);
    s->lock_dev = (uint64_t)lock->st_dev;
    s->lock_ino = (uint64_t)lock->st_ino;
    s->state_dev = (uint64_t)m->dev;
    s->state_ino = (uint64_t)m->ino;
    os_mark(OS_MARK_OPEN);
}

void state_ready(struct state_map *m)
{
    struct state *s = m->state;
    uint64_t generation = atomic_load_explicit(&s->generation, memory_order_relaxed);
    atomic_store_explicit(&s->generation, generation + 1, memory_order_release);
    os_mark(OS_MARK_OPEN);
    atomic_store_explicit(&s->magic, STATE_MAGIC, memory_order_release);
    os_mark(OS_MARK_OPEN);
}

/* ---- the version tuple [I-8] ---- */

void state_load_tuple(const struct state *s, struct state_view *out)
{
    struct state_view v;
    uint64_t again;
    do {
        v.epoch = atomic_load_explicit(&s->epoch, memory_order_acquire);
        const struct state_tuple *t = &s->tuple[v.epoch & 1];
        v.manifest = atomic_load_explicit(&t->manifest, memory_order_relaxed);
        v.length = atomic_load_explicit(&t->length, memory_order_relaxed);
        v.oldest = (uint32_t)atomic_load_explicit(&t->oldest, memory_order_relaxed);
        /* Pairs with the writer's release fence: who read a word of the next but one tuple sees the epoch
         * moved. */
        atomic_thread_fence(memory_order_acquire);
        again = atomic_load_explicit(&s->epoch, memory_order_relaxed);
    } while (again != v.epoch);
    *out = v;
}

void state_store_tuple(struct state *s, uint64_t manifest, uint64_t length, uint32_t oldest)
{
    uint64_t epoch = atomic_load_explicit(&s->epoch, memory_order_relaxed) + 1;
    struct state_tuple *t = &s->tuple[epoch & 1];
    /* The slot was current until the epoch moved last: nobody may see it change and the epoch not yet moved.
     */
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&t->manifest, manifest, memory_order_relaxed);
    os_mark(OS_MARK_MANIFEST);
    atomic_store_explicit(&t->length, length, memory_order_relaxed);
    os_mark(OS_MARK_MANIFEST);
    atomic_store_explicit(&t->oldest, oldest, memory_order_relaxed);
    os_mark(OS_MARK_MANIFEST);
    atomic_store_explicit(&s->epoch, epoch, memory_order_release);
    os_mark(OS_MARK_MANIFEST);
}

/* ---- rows and counters ---- */

static void fold_SUM(_Atomic uint64_t *total, uint64_t value)
{
    atomic_fetch_add_explicit(total, value, memory_order_relaxed);
}

static void fold_MAX(_Atomic uint64_t *total, uint64_t value)
{
    state_raise(total, value);
}

/* Each counter is taken out before it is put in: a kill between loses one, it never counts one twice. */
static void fold_counters(struct state_counters *row, struct state_counters *total)
{
#define X(name, kind, text)                                                                                  \
    fold_##kind(&total->name, atomic_exchange_explicit(&row->name, 0, memory_order_relaxed));
    STATE_COUNTERS(X)
#undef X
}

void state_row_claim(struct state *s, unsigned row)
{
    struct state_row *r = &s->rows[row];
    struct os_identity self;
    os_self_brief(&self);
    fold_counters(&r->counters, &s->closed);
    os_mark(OS_MARK_SLOT);
    atomic_store_explicit(&r->view_epoch, 0, memory_order_relaxed);
    atomic_store_explicit(&r->view_since, 0, memory_order_relaxed);
    atomic_store_explicit(&r->done, 0, memory_order_relaxed);
    atomic_store_explicit(&r->total, 0, memory_order_relaxed);
    memset(r->doing, 0, sizeof r->doing);
    memset(r->program, 0, sizeof r->program);
    memcpy(r->program, self.program, strnlen(self.program, sizeof r->program - 1));
    atomic_store_explicit(&r->pid_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&r->start_time, 0, memory_order_relaxed);
    atomic_store_explicit(&r->since, os_wall(), memory_order_relaxed);
    os_mark(OS_MARK_SLOT);
    atomic_store_explicit(&r->pid, (uint64_t)self.pid, memory_order_release);
    os_mark(OS_MARK_SLOT);
}

void state_row_tell(struct state_row *r)
{
    const struct os_identity *self = os_self();
    atomic_store_explicit(&r->pid_ns, self->pid_ns, memory_order_relaxed);
    atomic_store_explicit(&r->start_time, self->start_time, memory_order_relaxed);
}

static void add_SUM(uint64_t *total, uint64_t value)
{
    *total += value;
}

static void add_MAX(uint64_t *total, uint64_t value)
{
    *total = *total > value ? *total : value;
}

static void add_counters(const struct state_counters *c, struct state_totals *out)
{
#define X(name, kind, text) add_##kind(&out->name, atomic_load_explicit(&c->name, memory_order_relaxed));
    STATE_COUNTERS(X)
#undef X
}

void state_sum(const struct state *s, struct state_totals *out)
{
    struct state_totals t = {0};
    add_counters(&s->closed, &t);
    for (unsigned i = 0; i < STATE_ROWS; i++) {
        add_counters(&s->rows[i].counters, &t);
    }
    *out = t;
}
