#include "stage.h"

#include <stdio.h>

const char *const stage_count_names[STAGE_COUNT] = {
#define X(n) #n,
    STAGE_COUNTS(X)
#undef X
};

struct stage *stage_map(const char *path, bool make)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0 || (make && ftruncate(fd, sizeof(struct stage)) != 0)) {
        perror(path);
        return NULL;
    }
    void *p = mmap(NULL, sizeof(struct stage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

void stage_unmap(struct stage *s)
{
    munmap(s, sizeof *s);
}

void stage_count(struct stage *s, enum stage_count what)
{
    atomic_fetch_add_explicit(&s->count[what], 1, memory_order_relaxed);
}

void stage_copy_path(const char *dir, const struct stage_copy *copy, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s-copy-%llu", dir, (unsigned long long)copy->serial);
    if (n >= PATH_MAX) {
        path[0] = '\0'; /* refused wherever it is used */
    }
}
