/* map.c - mappings, and faulting pages in so that an I/O error is a status and not a signal. */
#include "os/call.h"

#include <sys/uio.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define LET_GO_STEP ((size_t)2 << 20)

static _Atomic uint64_t mapped_bytes;

uint64_t os_mapped_bytes(void)
{
    return atomic_load_explicit(&mapped_bytes, memory_order_relaxed);
}

static int map_any(int fd, size_t size, int protection, int flags, void **map)
{
    void *got = MAP_FAILED;
    int rc;
    OS_CALL(rc, OS_OP_MAP, fd, NULL, 0, &size,
            (got = mmap(NULL, size, protection, flags, fd, 0)) == MAP_FAILED ? -1 : 0);
    if (rc != 0) {
        return err_sys("map %zu bytes", size);
    }
    atomic_fetch_add_explicit(&mapped_bytes, size, memory_order_relaxed);
    *map = got;
    return SHALE_OK;
}

int os_map(int fd, size_t size, bool writable, void **map)
{
    return map_any(fd, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, map);
}

int os_map_anonymous(size_t size, void **map)
{
    return map_any(-1, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, map);
}

void os_unmap(void *map, size_t size)
{
    if (map == NULL) {
        return;
    }
    (void)os_door(OS_OP_UNMAP, -1, NULL, 0, &size);
    (void)munmap(map, size);
    atomic_fetch_sub_explicit(&mapped_bytes, size, memory_order_relaxed);
}

void os_map_let_go(void *map, size_t size)
{
    for (size_t at = 0; at < size; at += LET_GO_STEP) {
        (void)madvise((char *)map + at, size - at < LET_GO_STEP ? size - at : LET_GO_STEP, MADV_DONTNEED);
        os_yield();
    }
}

void os_map_dontfork(void *map, size_t size)
{
    (void)madvise(map, size, MADV_DONTFORK);
}

void os_map_sequential(void *map, size_t size)
{
    (void)madvise(map, size, MADV_SEQUENTIAL);
}

void os_map_random(void *map, size_t size)
{
    (void)madvise(map, size, MADV_RANDOM);
}

/* Kernels before 5.14: the kernel reads one byte of every page for us, and reports EFAULT where we would be
 * shot. */
static int touch_read(const char *page, size_t size)
{
    size_t step = os_page_size();
    while (size > 0) {
        char sink;
        struct iovec local = {&sink, 1};
        struct iovec remote = {(void *)(uintptr_t)page, 1};
        ssize_t n;
        do {
            n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
        } while (n < 0 && errno == EINTR);
        if (n < 0) {
            return -1;
        }
        page += step;
        size -= size < step ? size : step;
    }
    return 0;
}

/* The same for writing. The space was allocated before the file was mapped, so the stores cannot miss it. */
static int touch_write(char *page, size_t size)
{
    size_t step = os_page_size();
    while (size > 0) {
        atomic_fetch_or_explicit((_Atomic char *)page, 0, memory_order_relaxed);
        page += step;
        size -= size < step ? size : step;
    }
    return 0;
}

static int populate(void *map, size_t offset, size_t size, bool writing)
{
    size_t start = offset & ~(os_page_size() - 1);
    char *page = (char *)map + start;
    size_t length = size + (offset - start);
    int rc;
    if (length == 0) {
        return SHALE_OK;
    }
    OS_CALL(rc, OS_OP_ADVISE, -1, NULL, offset, NULL,
            madvise(page, length, writing ? MADV_POPULATE_WRITE : MADV_POPULATE_READ));
    if (rc != 0 && errno == EINVAL) {
        rc = writing ? touch_write(page, length) : touch_read(page, length);
    }
    if (rc != 0 && errno == EFAULT) {
        errno = EIO; /* that is what EFAULT stands for here */
    }
    return rc == 0 ? SHALE_OK : err_sys("fault in %zu mapped bytes at %zu", size, offset);
}

int os_map_populate_read(void *map, size_t offset, size_t size)
{
    return populate(map, offset, size, false);
}

#define RESIDENT_PAGES 64u /* asked about at once */

bool os_map_resident(void *map, size_t offset, size_t size)
{
    unsigned char pages[RESIDENT_PAGES];
    while (size > 0) {
        size_t length = size < RESIDENT_PAGES * os_page_size() ? size : RESIDENT_PAGES * os_page_size();
        int rc;
        OS_CALL(rc, OS_OP_ADVISE, -1, NULL, offset, NULL, mincore((char *)map + offset, length, pages));
        for (size_t i = 0; rc == 0 && i * os_page_size() < length; i++) {
            rc = (pages[i] & 1) != 0 ? 0 : -1;
        }
        if (rc != 0) {
            return false;
        }
        offset += length;
        size -= length;
    }
    return true;
}

bool os_told_resident(int dirfd, const char *name, uid_t owner)
{
    int rc;
    if (owner == geteuid()) {
        return true;
    }
    OS_CALL(rc, OS_OP_STAT, dirfd, name, 0, NULL, faccessat(dirfd, name, W_OK, AT_EACCESS));
    return rc == 0;
}

int os_map_populate_write(void *map, size_t offset, size_t size)
{
    return populate(map, offset, size, true);
}
