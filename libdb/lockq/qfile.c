/* qfile.c - the lock-queue file, queue/BOOT.queue: made, checked, mapped; a row (slot) for every lock.
 *
 * BOOT is the first eight hex digits of the boot id: nothing in here means anything after a reboot [I-1], and
 * a file of an older boot is not even looked at, except for its fencing numbers, which the new ones must
 * exceed.
 *
 *   temporary file, written whole  --link-->  BOOT.queue        EEXIST: another process won, its file is ours
 * too
 *
 * Whoever links removes the files of older boots. A file that does not verify is unlinked by whoever holds a
 * lock on that very file and sees that it still has the name: so a slow process never unlinks the good file
 * that replaced it.
 *
 * The file is sparse: the header and the write lock's slot are allocated when it is made, any other slot
 * before it is first touched, so that a full device is an error here and never a SIGBUS. It is never
 * truncated and never moved.
 *
 * When any of this does not work out there is no file, every lock works unordered, and that is all. */
#include "lockq/queue.h"

#include <stdio.h>
#include <stdlib.h>

#define QFILE_LAYOUT 1u
static const char qfile_magic[8] = {'s', 'h', 'a', 'l', 'e', 'Q', 'U', 'E'};

/* Held on a damaged file by the one that unlinks it; above every ticket's byte. */
#define QFILE_BYTE_UNLINK (UINT64_C(1) << 62)

static void set_names(struct lockq *q)
{
    os_boot_id(q->boot_id);
    uint64_t boot = __builtin_bswap32(get_u32(q->boot_id));
    (void)strcpy(digits_hex(q->queue_name, boot, 8), ".queue");
    (void)strcpy(digits_hex(q->meta_name, boot, 8), ".mdb");
}

static struct lockq_ident own_ident(const struct lockq *q)
{
    struct lockq_ident id = {.layout = QFILE_LAYOUT, .slots = LOCKQ_SLOTS};
    memcpy(id.magic, qfile_magic, sizeof id.magic);
    memcpy(id.boot_id, q->boot_id, sizeof id.boot_id);
    return id;
}

/* ---- older boots ---- */

struct older {
    struct lockq *q;
    uint64_t base;
    bool remove;
};

/* Does name begin with another boot's eight digits? */
static bool of_older_boot(const struct lockq *q, const char *name)
{
    return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && strncmp(name, q->queue_name, 9) != 0;
}

/* The highest fencing number that the file may have given out. */
static uint64_t highest_number(struct lockq *q, const char *name)
{
    uint64_t highest = 0;
    int fd = -1;
    struct lockq_header *h = base_alloc(sizeof *h);
    struct lockq_slot *slot = base_alloc(sizeof *slot);
    size_t got = 0;
    if (h == NULL || slot == NULL || os_open(q->queue_dir, name, O_RDONLY, 0, &fd) != SHALE_OK ||
        os_pread(fd, h, sizeof *h, 0, &got) != SHALE_OK || got < sizeof *h ||
        memcmp(h->ident.magic, qfile_magic, sizeof qfile_magic) != 0 || h->ident.layout != QFILE_LAYOUT) {
        goto out;
    }
    for (unsigned i = 0; i < LOCKQ_SLOTS; i++) {
        uint64_t at = LOCKQ_HEADER_SIZE + (uint64_t)i * sizeof *slot;
        if ((i == 0 || h->key[i] != 0) && os_pread(fd, slot, sizeof *slot, at, &got) == SHALE_OK &&
            got == sizeof *slot && slot->acquisitions > highest) {
            highest = slot->acquisitions;
        }
    }
    /* Noise must not push the numbers to the end of their range. */
    highest = h->base < UINT64_MAX / 4 && highest < UINT64_MAX / 4 ? h->base + highest : 0;
out:
    os_close(&fd);
    free(slot);
    free(h);
    return highest;
}

static int visit_older(void *ctx, const char *name)
{
    struct older *o = ctx;
    if (!of_older_boot(o->q, name)) {
        return 0;
    }
    if (o->remove) {
        (void)os_unlink(o->q->queue_dir, name);
    } else if (strcmp(name + 8, ".queue") == 0) {
        uint64_t n = highest_number(o->q, name);
        o->base = n > o->base ? n : o->base;
    }
    return 0;
}

/* ---- making it ---- */

static int fill_new(struct lockq *q, int fd)
{
    struct lockq_header *h = base_calloc(1, sizeof *h);
    if (h == NULL) {
        return SHALE_NOMEM;
    }
    struct older older = {.q = q, .base = os_wall()};
    (void)os_list(q->queue_dir, visit_older, &older);
    h->ident = own_ident(q);
    h->base = older.base;
    int rc = os_truncate(fd, LOCKQ_FILE_SIZE);
    if (rc == SHALE_OK) {
        rc = os_allocate(fd, 0, LOCKQ_HEADER_SIZE + sizeof(struct lockq_slot));
    }
    if (rc == SHALE_OK) {
        rc = os_pwrite(fd, h, sizeof *h, 0);
    }
    free(h);
    return rc;
}

static int make_new(struct lockq *q)
{
    uint64_t salt;
    char temp[64];
    int fd = -1;
    os_random(&salt, sizeof salt);
    (void)snprintf(temp, sizeof temp, "%.8s.tmp.%016llx", q->queue_name, (unsigned long long)salt);
    int rc = os_open(q->queue_dir, temp, O_RDWR | O_CREAT | O_EXCL, lockq_file_mode(q->mode), &fd);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = fill_new(q, fd);
    if (rc == SHALE_OK) {
        rc = os_link(q->queue_dir, temp, q->queue_dir, q->queue_name);
    }
    if (rc == SHALE_OK) {
        struct older older = {.q = q, .remove = true};
        (void)os_list(q->queue_dir, visit_older, &older);
    }
    os_close(&fd);
    (void)os_unlink(q->queue_dir, temp);
    return rc == SHALE_EXISTS ? SHALE_OK : rc;
}

/* ---- opening it ---- */

/* SHALE_CORRUPT: not a lock-queue file of this boot and layout. */
static int check_file(const struct lockq *q, int fd, const struct stat *st)
{
    const struct lockq_ident own = own_ident(q);
    struct lockq_ident id; /* the whole header would be two pages of the stack */
    size_t got;
    if (st->st_size != (off_t)LOCKQ_FILE_SIZE) {
        return SHALE_CORRUPT;
    }
    int rc = os_pread(fd, &id, sizeof id, 0, &got);
    if (rc != SHALE_OK) {
        return rc;
    }
    return got == sizeof id && memcmp(&id, &own, sizeof id) == 0 ? SHALE_OK : SHALE_CORRUPT;
}

/* Unlinks the damaged file that fd is, unless another process is at it or has replaced it. */
static int unlink_damaged(struct lockq *q, int fd)
{
    struct stat there, mine;
    int rc = os_lock_try(fd, QFILE_BYTE_UNLINK, 1, true);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_stat(fd, &mine);
    if (rc == SHALE_OK) {
        rc = os_stat_at(q->queue_dir, q->queue_name, &there);
    }
    if (rc == SHALE_OK && there.st_dev == mine.st_dev && there.st_ino == mine.st_ino) {
        rc = os_unlink(q->queue_dir, q->queue_name);
    }
    return rc == SHALE_NOTFOUND ? SHALE_OK : rc;
}

static int open_once(struct lockq *q, int *fd)
{
    struct stat st;
    int rc = os_open_stat(q->queue_dir, q->queue_name, O_RDWR, 0, fd, &st);
    if (rc == SHALE_NOTFOUND) {
        rc = make_new(q);
        if (rc == SHALE_OK) {
            rc = os_open_stat(q->queue_dir, q->queue_name, O_RDWR, 0, fd, &st);
        }
    }
    return rc == SHALE_OK ? check_file(q, *fd, &st) : rc;
}

void lockq_file_open(struct lockq *q)
{
    void *map = NULL;
    int fd = -1;
    int rc = SHALE_CORRUPT;
    set_names(q);
    for (int tries = 0; tries < 3 && rc != SHALE_OK; tries++) {
        rc = open_once(q, &fd);
        if (rc == SHALE_CORRUPT) {
            (void)unlink_damaged(q, fd);
        }
        if (rc != SHALE_OK) {
            os_close(&fd);
        }
    }
    if (rc == SHALE_OK) {
        rc = os_map(fd, LOCKQ_FILE_SIZE, true, &map);
    }
    if (rc != SHALE_OK) {
        os_close(&fd);
        return;
    }
    q->probe = fd;
    q->header = map;
    q->slots = (struct lockq_slot *)(void *)((char *)map + LOCKQ_HEADER_SIZE);
    atomic_store_explicit(&q->allocated[0], 1, memory_order_relaxed);
}

void lockq_file_close(struct lockq *q)
{
    if (q->header != NULL) {
        os_unmap(q->header, LOCKQ_FILE_SIZE);
        q->header = NULL;
        q->slots = NULL;
    }
    os_close(&q->probe);
}

/* ---- slots ---- */

static uint64_t name_hash(const char *name, size_t size)
{
    return XXH3_64bits(name, size) >> 2;
}

uint64_t lockq_named_byte(const char *name, size_t size)
{
    return OS_BYTE_NAMED + name_hash(name, size);
}

/* Is the slot's space there? A hole must not be touched: on a full device that is a SIGBUS. */
static bool slot_ready(struct lockq *q, unsigned index)
{
    _Atomic uint64_t *bits = &q->allocated[index / 64];
    uint64_t bit = UINT64_C(1) << (index % 64);
    if ((atomic_load_explicit(bits, memory_order_relaxed) & bit) != 0) {
        return true;
    }
    uint64_t at = LOCKQ_HEADER_SIZE + (uint64_t)index * sizeof(struct lockq_slot);
    if (os_allocate(q->probe, at, sizeof(struct lockq_slot)) != SHALE_OK) {
        return false;
    }
    atomic_fetch_or_explicit(bits, bit, memory_order_relaxed);
    return true;
}

/* The name is there for people. Whoever uses the slot writes it if nobody has yet; all write the same. */
static void write_name(struct lockq_slot *slot, const char *name, size_t size)
{
    if (atomic_load_explicit(&slot->name_size, memory_order_acquire) == 0) {
        memcpy(slot->name, name, size);
        atomic_store_explicit(&slot->name_size, (uint32_t)size, memory_order_release);
    }
}

struct lockq_slot *lockq_slot_used(struct lockq *q, unsigned index)
{
    if (q->header == NULL || index >= LOCKQ_SLOTS) {
        return NULL;
    }
    if (index != 0 && atomic_load_explicit(&q->header->key[index], memory_order_acquire) == 0) {
        return NULL;
    }
    return slot_ready(q, index) ? &q->slots[index] : NULL;
}

struct lockq_slot *lockq_slot(struct lockq *q, const char *name)
{
    if (q->header == NULL) {
        return NULL;
    }
    if (name == NULL) {
        return &q->slots[0];
    }
    size_t size = strnlen(name, LOCKQ_NAME);
    uint64_t hash = name_hash(name, size);
    uint64_t key = hash + 1; /* never 0 */
    for (unsigned i = 0; i < LOCKQ_SLOTS - 1; i++) {
        unsigned index = 1 + (unsigned)((hash + i) % (LOCKQ_SLOTS - 1));
        uint64_t found = 0;
        if (atomic_compare_exchange_strong(&q->header->key[index], &found, key) || found == key) {
            if (!slot_ready(q, index)) {
                return NULL;
            }
            write_name(&q->slots[index], name, size);
            return &q->slots[index];
        }
    }
    return NULL;
}
