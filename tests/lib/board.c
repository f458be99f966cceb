#include "board.h"

#include <stdio.h>

static struct board *map(const char *path, int flags)
{
    int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0 || ((flags & O_CREAT) != 0 && ftruncate(fd, sizeof(struct board)) != 0)) {
        perror(path);
        return NULL;
    }
    void *p = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

struct board *board_make(const char *path)
{
    return map(path, O_CREAT | O_EXCL);
}

struct board *board_open(const char *path)
{
    return map(path, 0);
}

void board_close(struct board *b)
{
    munmap(b, sizeof *b);
}
