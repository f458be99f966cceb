/* current.c - making a manifest the live one.
 *
 *   MANIFEST-000006 written, synced; directory synced     a leftover if its writer dies here: nobody names it
 *   CURRENT.tmp-RANDOM written, synced                    a leftover too
 *   renamed to CURRENT                                    from here on a cold open finds the new one
 *   directory synced                                      ... also after power loss
 *
 * CURRENT is one line, `MANIFEST-000005 0123456789abcdef`, the hexadecimal number being the name's checksum.
 * It names the manifest that a cold open reads, and tells who comes after a killed process how far that one
 * got.
 */
#include "version/manifest.h"

#define LINE_SIZE  64
#define TMP_PREFIX CURRENT_NAME ".tmp-"

_Static_assert(LINE_SIZE >= MANIFEST_NAME_SIZE + sizeof " 0123456789abcdef\n", "every line fits");

static void current_line(uint64_t number, char line[LINE_SIZE])
{
    manifest_name(number, line);
    size_t size = strlen(line);
    uint64_t sum = checksum(line, size, manifest_seed(number, 0));
    line[size] = ' ';
    (void)strcpy(digits_hex(line + size + 1, sum, 16), "\n");
}

int current_read(int dirfd, uint64_t *manifest)
{
    char name[MANIFEST_NAME_SIZE] = "", line[LINE_SIZE];
    struct buf text = {0};
    uint64_t number = 0;
    int st = os_read_file(dirfd, CURRENT_NAME, LINE_SIZE, &text);
    if (st != SHALE_OK && st != SHALE_CORRUPT) {
        buf_release(&text);
        return st == SHALE_NOTFOUND ? SHALE_NODB : st;
    }
    const unsigned char *blank = text.size != 0 ? memchr(text.data, ' ', text.size) : NULL;
    if (blank != NULL && (size_t)(blank - text.data) < sizeof name) {
        memcpy(name, text.data, (size_t)(blank - text.data));
    }
    bool good = st == SHALE_OK && manifest_parse_name(name, &number);
    if (good) {
        current_line(number, line);
        good = slice_equal(buf_slice(&text), slice_make(line, strlen(line)));
    }
    buf_release(&text);
    if (!good) {
        return err_set(SHALE_CORRUPT,
                       CURRENT_NAME ": garbled: it does not name a manifest (put it back from a copy, or "
                                    "salvage the tables into a new directory with repair)");
    }
    *manifest = number;
    return SHALE_OK;
}

/* A new file with that content, on disk on return; removed again when it cannot be. */
static int write_file(int dirfd, const char *name, const void *data, size_t size, unsigned mode)
{
    int fd = -1;
    int st = os_open(dirfd, name, O_RDWR | O_CREAT | O_EXCL, mode, &fd);
    if (st == SHALE_EXISTS) {
        return err_set(SHALE_IO, "%s: appeared while it was being made", name);
    }
    if (st != SHALE_OK) {
        return err_wrap(st, "%s", name);
    }
    st = os_pwrite(fd, data, size, 0);
    os_mark(OS_MARK_MANIFEST);
    if (st == SHALE_OK) {
        st = os_fsync(fd);
    }
    os_mark(OS_MARK_MANIFEST);
    os_close(&fd);
    if (st != SHALE_OK) {
        st = err_wrap(st, "%s", name);
        (void)os_unlink(dirfd, name);
    }
    return st;
}

/* *named: the rename may have happened. */
static int write_current(int dirfd, uint64_t number, unsigned mode, bool *named)
{
    char line[LINE_SIZE], tmp[LINE_SIZE];
    uint64_t suffix;
    os_random(&suffix, sizeof suffix);
    (void)digits_hex(stpcpy(tmp, TMP_PREFIX), suffix, 16);
    current_line(number, line);
    int st = write_file(dirfd, tmp, line, strlen(line), mode);
    if (st != SHALE_OK) {
        return st;
    }
    st = os_rename(dirfd, tmp, CURRENT_NAME);
    if (st != SHALE_OK) {
        (void)os_unlink(dirfd, tmp);
        return st;
    }
    *named = true;
    os_mark(OS_MARK_MANIFEST);
    st = os_sync_dir(dirfd);
    os_mark(OS_MARK_MANIFEST);
    return st;
}

/* The whole file: header and first record. */
static int make_content(uint64_t number, const struct version *v, struct buf *out)
{
    struct manifest_header h;
    size_t at = 0;
    manifest_make_header(v, number, &h);
    int st = buf_append(out, &h, sizeof h);
    if (st == SHALE_OK) {
        st = manifest_begin_record(out, &at);
    }
    if (st == SHALE_OK) {
        st = manifest_put_version(out, v);
    }
    return st != SHALE_OK ? st : manifest_seal_record(out, at, MANIFEST_WHOLE, number, sizeof h);
}

/* Removes what a dead process left under the number that is to be used. */
static int make_way(int dirfd, uint64_t number, const char *name)
{
    uint64_t live = 0;
    int st = current_read(dirfd, &live);
    if (st == SHALE_OK && live == number) {
        return err_set(SHALE_EXISTS, "%s: is the live manifest", name);
    }
    return st == SHALE_OK || st == SHALE_NODB ? os_unlink(dirfd, name) : st;
}

int manifest_install(int dirfd, uint64_t number, const struct version *v, unsigned mode, uint64_t *length,
                     bool *named)
{
    char name[MANIFEST_NAME_SIZE];
    struct buf content = {0};
    bool made = false;
    *named = false;
    manifest_name(number, name);
    int st = make_way(dirfd, number, name);
    if (st == SHALE_OK) {
        st = make_content(number, v, &content);
    }
    if (st == SHALE_OK) {
        st = write_file(dirfd, name, content.data, content.size, mode);
        made = st == SHALE_OK;
    }
    if (st == SHALE_OK) {
        st = os_sync_dir(dirfd);
        os_mark(OS_MARK_MANIFEST);
    }
    if (st == SHALE_OK) {
        st = write_current(dirfd, number, mode, named);
    }
    if (st == SHALE_OK) {
        *length = content.size;
    } else if (made && !*named) {
        (void)os_unlink(dirfd, name);
    }
    buf_release(&content);
    return st;
}

int manifest_create(int dirfd, uint64_t number, const struct version *v, unsigned mode, uint64_t *length)
{
    bool named;
    return manifest_install(dirfd, number, v, mode, length, &named);
}

/* ---- what killed processes left ---- */

struct sweep {
    int dirfd;
    uint64_t keep;
};

static int sweep_name(void *ctx, const char *name)
{
    const struct sweep *s = ctx;
    uint64_t number;
    bool stale = manifest_parse_name(name, &number) ? number != s->keep
                                                    : strncmp(name, TMP_PREFIX, sizeof TMP_PREFIX - 1) == 0;
    return stale ? os_unlink(s->dirfd, name) : SHALE_OK;
}

int manifest_sweep(int dirfd, uint64_t keep)
{
    struct sweep s = {dirfd, keep};
    return os_list(dirfd, sweep_name, &s);
}
