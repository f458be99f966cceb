/* device.c - bytes written to the block device under a directory, by the kernel's own count: everybody's, so
 * the machine should be quiet. */
#include "agent.h"
#include "os/os.h"

#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* The directory, or the one that it is going to be made in. */
static int open_near(const char *dir, int *fd)
{
    int rc = os_open_dir(dir, fd);
    if (rc != SHALE_OK) {
        char *copy = strdup(dir);
        rc = copy != NULL ? os_open_dir(dirname(copy), fd) : SHALE_NOMEM;
        free(copy);
    }
    return rc;
}

/* Behind everything that is still in the page cache. 0: the directory isn't on a block device that tells
 * (tmpfs). */
uint64_t device_written(const char *dir)
{
    struct stat st;
    char name[64];
    unsigned long long sectors = 0;
    int fd = -1;
    if (open_near(dir, &fd) != SHALE_OK || os_stat(fd, &st) != SHALE_OK || syncfs(fd) != 0) {
        os_close(&fd);
        return 0;
    }
    os_close(&fd);
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
    FILE *f = fopen(name, "re");
    /* The seventh number: sectors of 512 bytes, whatever the device's own size of sector is. */
    if (f != NULL && fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors) != 1) {
        sectors = 0;
    }
    if (f != NULL) {
        fclose(f);
    }
    return sectors * 512;
}
