/* usage.c - what a process or a directory takes, by the kernel's own count. 0 where it does not tell. */
#include "agent.h"

#include <ftw.h>
#include <sys/stat.h>

/* The number behind the name in a file of lines "name: number". */
static uint64_t line_of(const char *file, const char *name)
{
    char line[256];
    unsigned long long v = 0;
    size_t n = strlen(name);
    FILE *f = fopen(file, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, name, n) == 0 && line[n] == ':' && sscanf(line + n + 1, "%llu", &v) == 1) {
            break;
        }
    }
    if (f != NULL) {
        fclose(f);
    }
    return v;
}

uint64_t memory_anonymous_kib(void)
{
    return line_of("/proc/self/smaps_rollup", "Anonymous");
}

uint64_t memory_peak_kib(void)
{
    return line_of("/proc/self/status", "VmHWM");
}

/* A page counts as written when it is made dirty first, by a write or in a mapping; one that a file took
 * along when it was cut or unlinked counts back. Children that have ended are counted. */
void io_bytes(uint64_t *read, uint64_t *written)
{
    uint64_t back = line_of("/proc/self/io", "cancelled_write_bytes");
    *read = line_of("/proc/self/io", "read_bytes");
    *written = line_of("/proc/self/io", "write_bytes");
    *written -= back < *written ? back : *written;
}

static uint64_t sum;

static int add_file(const char *name, const struct stat *st, int type, struct FTW *at)
{
    (void)name;
    (void)at;
    sum += type == FTW_F ? (uint64_t)st->st_blocks * 512 : 0;
    return 0;
}

uint64_t disk_bytes(const char *dir)
{
    sum = 0;
    nftw(dir, add_file, 16, FTW_PHYS);
    return sum;
}
