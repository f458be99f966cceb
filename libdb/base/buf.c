/* buf.c - the growing buffer, and allocation that describes its failure. */
#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void *alloc_check(void *p, size_t n, size_t size)
{
    if (BASE_UNLIKELY(p == NULL)) {
        (void)err_set(SHALE_NOMEM, "cannot allocate %zu x %zu bytes", n, size);
    }
    return p;
}

#ifdef SHALE_DEBUG
bool (*base_alloc_hook)(void);
#endif

/* A size of 0 gets one byte: NULL always means failure. */
void *base_alloc(size_t size)
{
    return alloc_check(base_alloc_refused() ? NULL : malloc(size != 0 ? size : 1), 1, size);
}

void *base_alloc_aligned(size_t alignment, size_t size)
{
    size_t rounded = (size_t)align_up(size, alignment);
    return alloc_check(base_alloc_refused() ? NULL : aligned_alloc(alignment, rounded), 1, size);
}

void *base_calloc(size_t n, size_t size)
{
    void *p = base_alloc_refused() ? NULL : n != 0 && size != 0 ? calloc(n, size) : calloc(1, 1);
    return alloc_check(p, n, size);
}

void *base_realloc(void *p, size_t size)
{
    return alloc_check(base_alloc_refused() ? NULL : realloc(p, size != 0 ? size : 1), 1, size);
}

char *base_strdup(const char *s)
{
    size_t size = strlen(s) + 1;
    char *copy = base_alloc(size);
    if (copy != NULL) {
        memcpy(copy, s, size);
    }
    return copy;
}

void buf_release(struct buf *b)
{
    free(b->data);
    *b = (struct buf){NULL, 0, 0};
}

int buf_reserve(struct buf *b, size_t more)
{
    if (BASE_LIKELY(more <= b->cap - b->size)) {
        return SHALE_OK;
    }
    if (more > PTRDIFF_MAX - b->size) {
        return err_set(SHALE_NOMEM, "cannot grow a buffer of %zu bytes by %zu", b->size, more);
    }
    size_t need = b->size + more;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need) {
        cap = cap > PTRDIFF_MAX / 2 ? need : cap * 2;
    }
    unsigned char *data = base_realloc(b->data, cap);
    if (data == NULL) {
        return SHALE_NOMEM;
    }
    b->data = data;
    b->cap = cap;
    return SHALE_OK;
}

int buf_append(struct buf *b, const void *data, size_t size)
{
    int rc = buf_reserve(b, size);
    if (rc == SHALE_OK && size != 0) {
        memcpy(b->data + b->size, data, size);
        b->size += size;
    }
    return rc;
}

int buf_set(struct buf *b, const void *data, size_t size)
{
    if (size > b->cap) {
        int rc = buf_reserve(b, size - b->size);
        if (rc != SHALE_OK) {
            return rc;
        }
    }
    if (size != 0) {
        memmove(b->data, data, size); /* may be a part of the buffer itself, as long as it need not grow */
    }
    b->size = size;
    return SHALE_OK;
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return err_set(SHALE_INVALID, "cannot format \"%s\"", fmt);
    }
    int rc = buf_reserve(b, (size_t)n + 1);
    if (rc == SHALE_OK) {
        va_start(ap, fmt);
        (void)vsnprintf((char *)b->data + b->size, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->size += (size_t)n;
    }
    return rc;
}
