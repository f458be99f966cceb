/* build.c - writing a table, once, front to back.
 *
 *   add -> block -> (lz4) -> 2 MiB buffer -> pwrite, write-back started
 *   finish: filter, index, sums, properties, footer; surplus space cut, fsync, rename
 *
 * [I-17] The file is NNN.sst.tmp until it is whole and on disk, and byte 0 of it is locked by its writer. A
 * killed writer leaves the .tmp with the lock free: an orphan, which anybody who can lock it may unlink.
 * That is also why the writer, once it has the lock, looks whether the file still has its name: between
 * creating and locking, a sweeper may have taken it for an orphan.
 *
 * Space is allocated 4 MiB ahead, so that the file lies in few extents and a full device shows early, and
 * write-back starts every 2 MiB, so that neither the final fsync nor the kernel's dirty-page throttling
 * stops anybody for long. Each write is one aligned 2 MiB of the file, but for the last: a kernel that can
 * then keeps it as one huge page, which a mapping reaches with one entry of the page table instead of 512.
 * A reader that jumps about in the file spends a fifth of its time on the misses of the others.
 *
 * A block's separator is known only when the first key of the next block is: so one finished block's last
 * key waits.
 */
#include "table/block.h"
#include "table/filter.h"
#include "table/index.h"

#include <lz4.h>
#include <stdlib.h>

#define BUILD_CHUNK   ((size_t)2 << 20)
#define BUILD_AHEAD   (UINT64_C(4) << 20)
#define BUILD_RETRIES 16
/* A bigger block stays raw: it holds one huge value, and a reader can use that in place instead of
 * unpacking it whole. */
#define BUILD_LZ4_MAX (64u << 20)
#define BUILD_KEEP    (4u << 20) /* a buffer that a big value made larger is given back */

struct table_builder {
    int dirfd, fd;
    bool named; /* the .tmp is ours to remove */
    int status; /* of the first call that did not work: the rest return it too */
    uint64_t number;
    struct table_options options;
    char tmp[TABLE_NAME_SIZE];
    void *lz4_state;

    struct block_builder block;
    struct index_builder index;
    struct buf hashes;             /* u64 a key, for the filter */
    struct buf raw, packed;        /* a finished block, and compressed */
    struct buf last_key;           /* of the finished block whose separator is not yet known */
    struct index_entry last_block; /* that block */
    bool pending;

    struct buf out;   /* bytes not yet written, of the file from written on */
    uint64_t written; /* by pwrite */
    uint64_t allocated;
    struct table_info info;
};

static void builder_free(struct table_builder *b)
{
    if (b->named) {
        (void)os_unlink(b->dirfd, b->tmp);
    }
    os_close(&b->fd);
    block_builder_release(&b->block);
    index_builder_release(&b->index);
    buf_release(&b->hashes);
    buf_release(&b->raw);
    buf_release(&b->packed);
    buf_release(&b->last_key);
    buf_release(&b->out);
    table_info_release(&b->info);
    free(b->lz4_state);
    free(b);
}

/* Does the name still lead to the file that is open? SHALE_BUSY: no. */
static int check_name(const struct table_builder *b)
{
    struct stat mine, named;
    int rc = os_stat(b->fd, &mine);
    if (rc == SHALE_OK) {
        rc = os_stat_at(b->dirfd, b->tmp, &named);
    }
    if (rc != SHALE_OK) {
        return rc == SHALE_NOTFOUND ? SHALE_BUSY : err_wrap(rc, "%s", b->tmp);
    }
    return mine.st_dev == named.st_dev && mine.st_ino == named.st_ino ? SHALE_OK : SHALE_BUSY;
}

/* SHALE_BUSY: somebody takes, or took, the .tmp for an orphan. Where something else is wrong an orphan may
 * be left: its lock is free, the next sweep takes it. */
static int create_locked(struct table_builder *b)
{
    int rc = os_open(b->dirfd, b->tmp, O_RDWR | O_CREAT | O_EXCL, b->options.mode, &b->fd);
    if (rc != SHALE_OK) {
        return rc;
    }
    rc = os_lock_try(b->fd, 0, 1, true);
    if (rc == SHALE_OK) {
        rc = check_name(b);
    } else if (rc != SHALE_BUSY) {
        rc = err_wrap(rc, "%s", b->tmp);
    }
    b->named = rc == SHALE_OK;
    if (rc != SHALE_OK) {
        os_close(&b->fd);
    }
    return rc;
}

/* A name that is there from the start is an error: numbers are never reused. Later it may be the one that a
 * sweeper is about to unlink. */
static int create(struct table_builder *b)
{
    int rc = create_locked(b);
    for (int tries = 1; rc == SHALE_BUSY && tries < BUILD_RETRIES; tries++) {
        os_nap(1000000);
        rc = create_locked(b);
        rc = rc == SHALE_EXISTS ? SHALE_BUSY : rc;
    }
    if (rc == SHALE_EXISTS) {
        return err_set(rc, "%s: exists already", b->tmp);
    }
    return rc == SHALE_BUSY ? err_set(SHALE_IO, "%s: removed by another as soon as it was made", b->tmp) : rc;
}

int table_build_start(int dirfd, uint64_t number, const struct table_options *options,
                      struct table_builder **out)
{
    struct table_builder *b = base_calloc(1, sizeof *b);
    if (b == NULL) {
        return SHALE_NOMEM;
    }
    b->dirfd = dirfd;
    b->fd = -1;
    b->number = b->info.number = number;
    b->options = *options;
    b->info.min_seq = UINT64_MAX;
    table_tmp_name(number, b->tmp);
    int rc = SHALE_OK;
    if (options->lz4) {
        b->lz4_state = base_alloc((size_t)LZ4_sizeofState());
        rc = b->lz4_state == NULL ? SHALE_NOMEM : SHALE_OK;
    }
    if (rc == SHALE_OK) {
        rc = buf_reserve(&b->out, BUILD_CHUNK);
    }
    if (rc == SHALE_OK) {
        rc = create(b);
    }
    if (rc != SHALE_OK) {
        builder_free(b);
        return rc;
    }
    *out = b;
    return SHALE_OK;
}

/* ---- output ---- */

static int write_through(struct table_builder *b, const unsigned char *p, size_t size)
{
    uint64_t end = b->written + size;
    int rc = SHALE_OK;
    if (end > b->allocated) {
        uint64_t until = align_up(end, BUILD_AHEAD);
        rc = os_allocate(b->fd, b->allocated, until - b->allocated);
        if (rc == SHALE_NOSPC) {
            (void)os_truncate(b->fd, b->allocated); /* some systems keep what they had got so far */
            until = end;                            /* it may be all that is still to come */
            rc = os_allocate(b->fd, b->allocated, until - b->allocated);
        }
        b->allocated = rc == SHALE_OK ? until : b->allocated;
    }
    if (rc == SHALE_OK) {
        rc = os_pwrite(b->fd, p, size, b->written);
    }
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", b->tmp);
    }
    (void)os_start_writeback(b->fd, b->written, size);
    b->written = end;
    return SHALE_OK;
}

static int flush_out(struct table_builder *b)
{
    int rc = b->out.size != 0 ? write_through(b, b->out.data, b->out.size) : SHALE_OK;
    if (rc == SHALE_OK) {
        b->out.size = 0;
    }
    return rc;
}

/* Through the buffer, which is written when it is full; of something larger whole chunks go straight to the
 * file. */
static int put_bytes(struct table_builder *b, const void *p, size_t size)
{
    const unsigned char *from = p;
    int rc = SHALE_OK;
    while (rc == SHALE_OK && size > 0) {
        size_t n = BUILD_CHUNK - b->out.size < size ? BUILD_CHUNK - b->out.size : size;
        if (n == BUILD_CHUNK) {
            n = size - size % BUILD_CHUNK;
            rc = write_through(b, from, n);
        } else {
            rc = buf_append(&b->out, from, n);
            if (rc == SHALE_OK && b->out.size == BUILD_CHUNK) {
                rc = flush_out(b);
            }
        }
        from += n;
        size -= n;
    }
    return rc;
}

static uint64_t position(const struct table_builder *b)
{
    return b->written + b->out.size;
}

/* One block with its trailer; bytes has the room for it. */
static int put_block(struct table_builder *b, struct buf *bytes, size_t raw_size, enum table_kind kind,
                     enum table_packing packing)
{
    table_seal(bytes->data, bytes->size, raw_size, kind, packing, b->number, position(b));
    return put_bytes(b, bytes->data, bytes->size + sizeof(struct table_trailer));
}

/* ---- blocks ---- */

/* Packs raw into packed. false: not worth it, it would not save an eighth. */
static bool pack(struct table_builder *b)
{
    size_t room = b->raw.size - b->raw.size / 8;
    if (b->lz4_state == NULL || b->raw.size > BUILD_LZ4_MAX || room == 0 ||
        buf_reserve(&b->packed, room + sizeof(struct table_trailer)) != SHALE_OK) {
        return false;
    }
    int n = LZ4_compress_fast_extState(b->lz4_state, (const char *)b->raw.data, (char *)b->packed.data,
                                       (int)b->raw.size, (int)room, 1);
    b->packed.size = n > 0 ? (size_t)n : 0;
    return n > 0;
}

static void give_back(struct buf *b)
{
    if (b->cap > BUILD_KEEP) {
        buf_release(b);
    }
    b->size = 0;
}

/* The separator of the block that waits can be made now. next NULL: it was the last one. */
static int settle_pending(struct table_builder *b, const struct slice *next)
{
    if (!b->pending) {
        return SHALE_OK;
    }
    b->pending = false;
    return index_add(&b->index, b->last_block, buf_slice(&b->last_key), next);
}

static int finish_block(struct table_builder *b)
{
    struct slice first = block_first_key(&b->block), last = block_last_key(&b->block);
    int rc = settle_pending(b, &first);
    if (rc == SHALE_OK) {
        rc = buf_set(&b->last_key, last.data, last.size);
    }
    if (rc == SHALE_OK) {
        rc = block_finish(&b->block, &b->raw);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    bool packed = pack(b);
    struct buf *bytes = packed ? &b->packed : &b->raw;
    b->last_block = (struct index_entry){position(b), (uint32_t)bytes->size, (uint32_t)b->raw.size};
    rc = put_block(b, bytes, b->raw.size, TABLE_DATA, packed ? TABLE_LZ4 : TABLE_RAW);
    b->pending = true;
    give_back(&b->raw);
    give_back(&b->packed);
    give_back(&b->block.bytes);
    return rc;
}

static int check_entry(const struct table_builder *b, struct slice key, uint64_t seq, uint8_t type,
                       struct slice value)
{
    if (key.size > TABLE_MAX_KEY || value.size > TABLE_MAX_VALUE) {
        return err_set(SHALE_TOOBIG, "%s: key of %zu, value of %zu bytes", b->tmp, key.size, value.size);
    }
    if (seq > TABLE_MAX_SEQ || (type != TABLE_PUT && (type != TABLE_DELETE || value.size != 0))) {
        return err_set(SHALE_INVALID, "%s: not an entry: sequence number %llu, type %u", b->tmp,
                       (unsigned long long)seq, type);
    }
    if (b->info.entries == 0) {
        return SHALE_OK;
    }
    struct slice last = b->block.count != 0 ? block_last_key(&b->block) : buf_slice(&b->last_key);
    return slice_compare(last, key) < 0 ? SHALE_OK : err_set(SHALE_INVALID, "%s: keys out of order", b->tmp);
}

static int add(struct table_builder *b, struct slice key, uint64_t seq, uint8_t type, struct slice value)
{
    int rc = check_entry(b, key, seq, type, value);
    if (rc == SHALE_OK && b->block.count != 0 &&
        b->block.size + block_entry_size(key, value) + BLOCK_HEADER > b->options.block_bytes) {
        rc = finish_block(b);
    }
    if (rc == SHALE_OK && b->options.bloom_bits != 0) {
        uint64_t hash = key_hash(key);
        rc = buf_append(&b->hashes, &hash, sizeof hash);
    }
    if (rc == SHALE_OK && b->info.entries == 0) {
        rc = buf_set(&b->info.smallest, key.data, key.size);
    }
    if (rc == SHALE_OK) {
        rc = block_add(&b->block, key, seq, type, value);
    }
    if (rc == SHALE_OK) {
        b->info.entries++;
        b->info.deletes += type == TABLE_DELETE;
        b->info.raw_bytes += key.size + value.size;
        b->info.min_seq = seq < b->info.min_seq ? seq : b->info.min_seq;
        b->info.max_seq = seq > b->info.max_seq ? seq : b->info.max_seq;
    }
    return rc;
}

int table_build_add(struct table_builder *b, struct slice key, uint64_t seq, uint8_t type, struct slice value)
{
    if (b->status == SHALE_OK) {
        b->status = add(b, key, seq, type, value);
    }
    return b->status;
}

uint64_t table_build_size(const struct table_builder *b)
{
    return position(b) + b->block.size + b->hashes.size / sizeof(uint64_t) * b->options.bloom_bits / 8 +
           b->index.entries.size + b->index.separators.size;
}

uint64_t table_build_entries(const struct table_builder *b)
{
    return b->info.entries;
}

/* ---- the end of the file ---- */

static int pad(struct buf *tail, uint64_t from)
{
    static const unsigned char zeros[TABLE_ALIGN];
    uint64_t at = from + tail->size;
    return buf_append(tail, zeros, (size_t)(align_up(at, TABLE_ALIGN) - at));
}

/* Filter and index behind the data, as they will lie in the file from f->data_size on. */
static int build_tail(const struct table_builder *b, struct table_footer *f, struct buf *tail)
{
    const uint64_t *hashes = (const uint64_t *)(const void *)b->hashes.data; /* from malloc: aligned */
    unsigned bits = b->options.bloom_bits;
    int rc = pad(tail, f->data_size);
    size_t from = tail->size;
    if (rc == SHALE_OK && bits != 0) {
        rc = filter_build(hashes, b->hashes.size / sizeof *hashes, bits, tail);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    f->filter_probes = filter_probes(bits);
    f->filter_size = tail->size - from;
    rc = pad(tail, f->data_size);
    from = tail->size;
    if (rc == SHALE_OK) {
        rc = index_finish(&b->index, tail);
    }
    f->index_size = tail->size - from;
    return rc;
}

/* A checksum for each page of the tail. */
static int build_sums(const struct table_builder *b, const struct table_footer *f, const struct buf *tail,
                      struct buf *sums)
{
    uint64_t from = f->data_size, to = from + tail->size;
    uint64_t pages = (to + TABLE_PAGE - 1) / TABLE_PAGE - from / TABLE_PAGE;
    sums->size = 0;
    int rc = buf_reserve(sums, pages * 8 + sizeof(struct table_trailer));
    if (rc != SHALE_OK) {
        return rc;
    }
    for (uint64_t i = 0; i < pages; i++) {
        struct tail_range r = tail_range(from, to, i);
        put_u64(sums->data + i * 8, tail_sum(tail->data + (r.begin - from), r, b->number));
    }
    sums->size = pages * 8;
    return SHALE_OK;
}

static int put_filter_and_index(struct table_builder *b, struct table_footer *f)
{
    struct buf tail = {NULL, 0, 0};
    int rc = build_tail(b, f, &tail);
    if (rc == SHALE_OK) {
        rc = build_sums(b, f, &tail, &b->raw);
    }
    if (rc == SHALE_OK) {
        rc = put_bytes(b, tail.data, tail.size);
    }
    if (rc == SHALE_OK) {
        rc = put_block(b, &b->raw, b->raw.size, TABLE_SUMS, TABLE_RAW);
    }
    buf_release(&tail);
    return rc;
}

static int put_properties(struct table_builder *b, struct table_footer *f)
{
    static const char creator[] = "shale";
    const char *version = shale_version();
    const struct table_info *info = &b->info;
    struct table_fixed_properties p = {.entries = info->entries,
                                       .deletes = info->deletes,
                                       .min_seq = info->min_seq,
                                       .max_seq = info->max_seq,
                                       .raw_bytes = info->raw_bytes,
                                       .block_bytes = b->options.block_bytes,
                                       .bloom_bits = b->options.bloom_bits,
                                       .smallest_size = (uint32_t)info->smallest.size,
                                       .largest_size = (uint32_t)info->largest.size,
                                       .creator_size = (uint32_t)(sizeof creator + strlen(version))};
    b->raw.size = 0;
    int rc = buf_append(&b->raw, &p, sizeof p);
    if (rc == SHALE_OK) {
        rc = buf_append(&b->raw, info->smallest.data, info->smallest.size);
    }
    if (rc == SHALE_OK) {
        rc = buf_append(&b->raw, info->largest.data, info->largest.size);
    }
    if (rc == SHALE_OK) {
        rc = buf_printf(&b->raw, "%s %s", creator, version);
    }
    if (rc == SHALE_OK) {
        rc = buf_reserve(&b->raw, sizeof(struct table_trailer));
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    f->properties_size = b->raw.size;
    return put_block(b, &b->raw, b->raw.size, TABLE_PROPERTIES, TABLE_RAW);
}

/* Everything behind the data blocks. */
static int put_tail(struct table_builder *b)
{
    struct table_footer f = {.magic = TABLE_MAGIC, .format = TABLE_FORMAT, .number = b->number};
    f.data_size = position(b);
    int rc = put_filter_and_index(b, &f);
    if (rc == SHALE_OK) {
        rc = put_properties(b, &f);
    }
    if (rc != SHALE_OK) {
        return rc;
    }
    f.file_size = b->info.size = position(b) + sizeof f;
    f.checksum = table_footer_checksum(&f);
    rc = put_bytes(b, &f, sizeof f);
    return rc == SHALE_OK ? flush_out(b) : rc;
}

static int finish_blocks(struct table_builder *b)
{
    if (b->status != SHALE_OK) {
        return b->status;
    }
    if (b->info.entries == 0) {
        return err_set(SHALE_INVALID, "%s: a table without entries", b->tmp);
    }
    struct slice last = block_last_key(&b->block); /* add() never leaves the open block empty */
    int rc = buf_set(&b->info.largest, last.data, last.size);
    if (rc == SHALE_OK) {
        rc = finish_block(b);
    }
    return rc == SHALE_OK ? settle_pending(b, NULL) : rc;
}

/* The surplus space goes before the fsync, which thus makes the final size durable too. */
static int settle_file(struct table_builder *b)
{
    char name[TABLE_NAME_SIZE];
    table_name(b->number, name);
    int rc = b->allocated > b->info.size ? os_truncate(b->fd, b->info.size) : SHALE_OK;
    if (rc == SHALE_OK) {
        rc = os_fsync(b->fd);
    }
    if (rc != SHALE_OK) {
        return err_wrap(rc, "%s", b->tmp);
    }
    rc = os_rename_noreplace(b->dirfd, b->tmp, name);
    rc = rc == SHALE_EXISTS ? err_set(rc, "%s: exists already", name) : rc;
    b->named = rc != SHALE_OK;
    return rc;
}

int table_build_finish(struct table_builder *b, struct table_info *info)
{
    int rc = finish_blocks(b);
    if (rc == SHALE_OK) {
        rc = put_tail(b);
    }
    if (rc == SHALE_OK) {
        rc = settle_file(b);
    }
    if (rc == SHALE_OK) {
        *info = b->info;
        memset(&b->info.smallest, 0, sizeof b->info.smallest);
        memset(&b->info.largest, 0, sizeof b->info.largest);
    }
    builder_free(b);
    return rc;
}

void table_build_abandon(struct table_builder *b)
{
    if (b != NULL) {
        builder_free(b);
    }
}
