/* record.c - the holder record: who holds a lock, for people.
 *
 * Every acquirer stores it, queued or not, so it must be cheap: an owner that comes again (its token stands
 * there) stores the number and the time, two relaxed stores; only another owner writes its identity.
 *
 *   number = 0, identity, time  --release-->  number        reader: number, copy, number again: the same, or
 * not whole
 *
 * A record is believed only while the lock is seen held: the exclusive one (record 0) while the lock's bytes
 * are seen locked exclusively; a shared one while its own byte of LOCK is seen locked, which the holder locks
 * through the open file that holds the lock: it goes with it. No decision rests on a record, or on a pid
 * [I-2]. */
#include "lockq/queue.h"

#include <stdio.h>
#include <time.h>

#define RELAXED memory_order_relaxed
#define ACQUIRE memory_order_acquire /* of every field: number must be read last */

static uint64_t record_byte(struct lockq *q, const struct lockq_slot *slot, unsigned i)
{
    return LOCKQ_BYTE_RECORD + (uint64_t)lockq_slot_index(q, slot) * LOCKQ_RECORDS + i;
}

/* ---- text as words ---- */

/* How much of text fits in most bytes; never half a character. */
static size_t fitting(const char *text, size_t most)
{
    size_t size = text != NULL ? strnlen(text, most) : 0;
    while (text != NULL && text[size] != '\0' && size > 0 && ((unsigned char)text[size] & 0xc0) == 0x80) {
        size--;
    }
    return size;
}

static void store_text(_Atomic uint64_t *words, size_t count, const char *text)
{
    size_t size = fitting(text, count * 8);
    for (size_t i = 0; i < count; i++) {
        uint64_t word = 0;
        if (size > i * 8) {
            size_t n = size - i * 8 < 8 ? size - i * 8 : 8;
            memcpy(&word, text + i * 8, n);
        }
        atomic_store_explicit(&words[i], word, RELAXED);
    }
}

/* What is printed came from another process: control characters would reach a terminal. */
static void load_text(const _Atomic uint64_t *words, size_t count, char *text)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t word = atomic_load_explicit(&words[i], ACQUIRE);
        memcpy(text + i * 8, &word, 8);
    }
    text[count * 8] = '\0';
    text_tame(text);
}

/* ---- storing ---- */

static uint64_t token_of(const struct lockq *q, const struct lockq_lock *lock)
{
    uint64_t token = q->token ^ (uint64_t)lock->owner_pid ^ (lock->exclusive ? 0 : UINT64_C(1) << 63);
    return lock->label == NULL ? token : token ^ XXH3_64bits(lock->label, strlen(lock->label));
}

static void store_identity(const struct lockq_lock *lock, struct lockq_record *r)
{
    struct lockq_who who;
    lockq_who_self(lock, 0, &who);
    atomic_store_explicit(&r->pid, (uint64_t)who.pid, RELAXED);
    atomic_store_explicit(&r->start_time, who.start_time, RELAXED);
    atomic_store_explicit(&r->pid_ns, who.pid_ns, RELAXED);
    atomic_store_explicit(&r->flags, who.shared ? LOCKQ_RECORD_SHARED : 0, RELAXED);
    store_text(r->program, BASE_COUNT(r->program), who.program);
    store_text(r->label, BASE_COUNT(r->label), lock->label);
}

static void store(struct lockq *q, const struct lockq_lock *lock, struct lockq_record *r, uint64_t since,
                  uint64_t number)
{
    uint64_t token = token_of(q, lock);
    atomic_store_explicit(&r->number, 0, RELAXED);
    if (BASE_UNLIKELY(atomic_load_explicit(&r->token, RELAXED) != token)) {
        (void)atomic_exchange_explicit(&r->number, 0, memory_order_acq_rel); /* before the identity changes */
        store_identity(lock, r);
        os_mark(OS_MARK_QUEUE);
        atomic_store_explicit(&r->token, token, RELAXED);
    }
    os_mark(OS_MARK_QUEUE);
    atomic_store_explicit(&r->since, since, memory_order_release); /* behind the 0 */
    atomic_store_explicit(&r->number, number, memory_order_release);
}

/* A shared holder's record: the first whose byte can be had. Its holder before may have died without a word.
 */
static unsigned claim_shared(struct lockq *q, const struct lockq_lock *lock)
{
    for (unsigned i = 0; i < LOCKQ_RECORDS; i++) {
        if (os_lock_try(lock->fd, record_byte(q, lock->slot, i), 1, true) == SHALE_OK) {
            return i;
        }
    }
    return LOCKQ_RECORDS; /* more holders than records: unlisted */
}

void lockq_record_store(struct lockq *q, const struct lockq_lock *lock, uint64_t since,
                        struct lockq_claim *claim)
{
    struct lockq_slot *slot = lock->slot;
    uint64_t count;
    claim->record = 0;
    if (BASE_LIKELY(lock->exclusive)) {
        /* Nobody else counts while the lock is held exclusively. */
        count = atomic_load_explicit(&slot->acquisitions, RELAXED) + 1;
        atomic_store_explicit(&slot->acquisitions, count, RELAXED);
    } else {
        count = atomic_fetch_add_explicit(&slot->acquisitions, 1, RELAXED) + 1;
        claim->record = claim_shared(q, lock);
    }
    claim->number = q->header->base + count;
    if (claim->record < LOCKQ_RECORDS) {
        store(q, lock, &slot->record[claim->record], since, claim->number);
    }
}

void lockq_record_clear(struct lockq *q, const struct lockq_lock *lock, const struct lockq_claim *claim)
{
    if (claim->record < LOCKQ_RECORDS) {
        atomic_store_explicit(&lock->slot->record[claim->record].number, 0, memory_order_release);
        if (!lock->exclusive) {
            (void)os_unlock(lock->fd, record_byte(q, lock->slot, claim->record), 1);
        }
    }
}

/* ---- reading ---- */

static bool load(const struct lockq_record *r, struct lockq_who *who)
{
    for (int tries = 0; tries < 3; tries++) {
        who->number = atomic_load_explicit(&r->number, ACQUIRE);
        who->pid = (int64_t)atomic_load_explicit(&r->pid, ACQUIRE);
        who->start_time = atomic_load_explicit(&r->start_time, ACQUIRE);
        who->pid_ns = atomic_load_explicit(&r->pid_ns, ACQUIRE);
        who->since = atomic_load_explicit(&r->since, ACQUIRE);
        who->shared = (atomic_load_explicit(&r->flags, ACQUIRE) & LOCKQ_RECORD_SHARED) != 0;
        load_text(r->program, BASE_COUNT(r->program), who->program);
        load_text(r->label, BASE_COUNT(r->label), who->label);
        if (who->number != 0 && atomic_load_explicit(&r->number, ACQUIRE) == who->number) {
            return true;
        }
    }
    return false;
}

/* Does another open file than fd lock these bytes (shared: in any way; else: exclusively)? */
static bool locked(int fd, uint64_t start, uint64_t length, bool exclusively)
{
    bool taken = false;
    return os_lock_test(fd, start, length, !exclusively, &taken) == SHALE_OK && taken;
}

enum lockq_state lockq_record_read(struct lockq *q, const struct lockq_lock *lock, struct lockq_who *who,
                                   unsigned *count)
{
    struct lockq_slot *slot = lock->slot;
    *count = 0;
    if (!locked(lock->fd, lock->start, lock->length, false)) {
        return LOCKQ_FREE;
    }
    if (locked(lock->fd, lock->start, lock->length, true)) {
        /* Held shared when the record was read would be somebody else's; look again. */
        if (slot != NULL && load(&slot->record[0], &who[0]) && !who[0].shared) {
            *count = 1;
        }
        return LOCKQ_EXCLUSIVE;
    }
    for (unsigned i = 0; slot != NULL && i < LOCKQ_RECORDS; i++) {
        if (locked(lock->fd, record_byte(q, slot, i), 1, true) && load(&slot->record[i], &who[*count])) {
            *count += who[*count].shared;
        }
    }
    return LOCKQ_SHARED;
}

unsigned lockq_record_find(struct lockq *q, const struct lockq_lock *lock, int fresh_fd)
{
    if (lock->exclusive) {
        return 0;
    }
    for (unsigned i = 0; i < LOCKQ_RECORDS; i++) {
        uint64_t byte = record_byte(q, lock->slot, i);
        if (locked(fresh_fd, byte, 1, true) && !locked(lock->fd, byte, 1, true)) {
            return i;
        }
    }
    return LOCKQ_RECORDS;
}

/* The process that another one acquires for (a script, for its helper). */
static void identity_of(int64_t pid, struct os_identity *id)
{
    char path[64];
    char text[1024];
    size_t got = 0;
    int fd = -1;
    unsigned long long start = 0;
    *id = (struct os_identity){.pid = pid, .pid_ns = os_self()->pid_ns};
    (void)snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    if (os_open(AT_FDCWD, path, O_RDONLY, 0, &fd) == SHALE_OK) {
        (void)os_pread(fd, text, sizeof text - 1, 0, &got);
        os_close(&fd);
    }
    text[got] = '\0';
    /* pid (name) state ... start_time is field 22; the name may hold anything. */
    const char *name = strchr(text, '(');
    char *end = strrchr(text, ')');
    if (name == NULL || end == NULL || end < name) {
        return;
    }
    (void)sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                 &start);
    *end = '\0';
    (void)snprintf(id->program, sizeof id->program, "%.*s", (int)sizeof id->program - 1, name + 1);
    id->start_time = start;
}

void lockq_who_self(const struct lockq_lock *lock, uint64_t since, struct lockq_who *who)
{
    struct os_identity id = *os_self();
    if (lock->owner_pid != 0) {
        identity_of(lock->owner_pid, &id);
    }
    *who = (struct lockq_who){.since = since,
                              .pid_ns = id.pid_ns,
                              .start_time = id.start_time,
                              .pid = id.pid,
                              .shared = !lock->exclusive};
    (void)snprintf(who->program, sizeof who->program, "%.*s", (int)sizeof id.program, id.program);
    if (lock->label != NULL) {
        size_t size = fitting(lock->label, sizeof who->label - 1);
        (void)snprintf(who->label, sizeof who->label, "%.*s", (int)size, lock->label);
    }
}

/* ---- the text ---- */

static int append_holder(struct buf *text, const struct lockq_who *who)
{
    char clock[16] = "?";
    time_t seconds = (time_t)(who->since / 1000000000u);
    struct tm tm;
    if (localtime_r(&seconds, &tm) != NULL) {
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    }
    uint64_t now = os_wall();
    double held = now > who->since ? (double)(now - who->since) / 1e9 : 0.0;
    const char *state = os_is_stopped(who->pid, who->pid_ns, who->start_time)  ? " (stopped)"
                        : os_has_ended(who->pid, who->pid_ns, who->start_time) ? " (ended)"
                                                                               : "";
    int rc = buf_printf(text, "%s (pid %lld)%s since %s (%.1f s)", who->program, (long long)who->pid, state,
                        clock, held);
    if (rc == SHALE_OK && who->label[0] != '\0') {
        rc = buf_printf(text, ", label \"%s\"", who->label);
    }
    return rc;
}

/* Whose record stands there though the lock has just been freed: it was in the way. */
static bool load_last(const struct lockq_slot *slot, struct lockq_who *who)
{
    (void)load(&slot->record[0], who); /* false: the number is cleared, the rest stands */
    return who->program[0] != '\0';
}

/* A holder that has the lock but not yet said so, says so in a moment. */
static enum lockq_state read_patiently(struct lockq *q, const struct lockq_lock *lock, struct lockq_who *who,
                                       unsigned *count)
{
    enum lockq_state state = lockq_record_read(q, lock, who, count);
    for (int i = 0; i < 8 && lock->slot != NULL && state != LOCKQ_FREE && *count == 0; i++) {
        os_yield();
        state = lockq_record_read(q, lock, who, count);
    }
    return state;
}

static const char *busy_verb(struct lockq *q, const struct lockq_lock *lock, enum lockq_state state,
                             struct lockq_who *who, unsigned *count)
{
    struct lockq_slot *slot = lock->slot;
    if (state != LOCKQ_FREE) {
        return state == LOCKQ_SHARED ? "is held shared by " : "is held by ";
    }
    if (slot == NULL || lockq_ticket_alive(q, lockq_slot_index(q, slot), atomic_load(&slot->served) + 1,
                                           atomic_load(&slot->next))) {
        return "is waited for by others";
    }
    *count = load_last(slot, who) ? 1 : 0;
    return "was freed just now by ";
}

static int busy_text(struct lockq *q, const struct lockq_lock *lock, struct buf *text)
{
    struct lockq_who who[LOCKQ_RECORDS];
    unsigned count;
    enum lockq_state state = read_patiently(q, lock, who, &count);
    const char *verb = busy_verb(q, lock, state, who, &count);
    int rc = lock->name == NULL ? buf_printf(text, "busy: the write lock %s", verb)
                                : buf_printf(text, "busy: the lock \"%s\" %s", lock->name, verb);
    for (unsigned i = 0; rc == SHALE_OK && i < count; i++) {
        rc = i == 0 ? SHALE_OK : buf_printf(text, "; ");
        if (rc == SHALE_OK) {
            rc = append_holder(text, &who[i]);
        }
    }
    if (rc == SHALE_OK && count == 0 && verb[strlen(verb) - 1] == ' ') {
        rc = buf_printf(text, "another process");
    }
    return rc;
}

int lockq_busy(struct lockq *q, const struct lockq_lock *lock)
{
    struct buf text = {0};
    int rc = busy_text(q, lock, &text);
    rc = err_set(SHALE_BUSY, "%.*s", rc == SHALE_OK ? (int)text.size : 4,
                 rc == SHALE_OK ? (const char *)text.data : "busy");
    buf_release(&text);
    return rc;
}
