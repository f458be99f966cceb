#include "scratch.h"

#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[PATH_MAX];
static unsigned made;

int scratch_root_make(const char *program)
{
    const char *tmp = getenv("TMPDIR");
    const char *base = strrchr(program, '/');
    snprintf(root, sizeof root, "%s/%s-XXXXXX", tmp != NULL && *tmp != '\0' ? tmp : "/tmp",
             base != NULL ? base + 1 : program);
    if (mkdtemp(root) == NULL) {
        perror(root);
        root[0] = '\0';
        return -1;
    }
    return chmod(root, 0755); /* tests that give up their privileges still find their way */
}

void scratch_root_remove(void)
{
    if (root[0] == '\0') {
        return;
    }
    if (getenv("SHALE_TEST_KEEP") != NULL) {
        fprintf(stderr, "kept: %s\n", root);
    } else {
        scratch_remove(root);
    }
    root[0] = '\0';
}

const char *scratch_root(void)
{
    return root;
}

char *scratch_name(const char *name)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s-%d-%u", root, name, (int)getpid(), made++) < 0) {
        abort();
    }
    return path;
}

char *scratch_dir(const char *name)
{
    char *path = scratch_name(name);
    if (mkdir(path, 0755) != 0) {
        perror(path);
        abort();
    }
    return path;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

int scratch_remove(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : -1;
    }
    return nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int copy_file(int from_dir, int to_dir, const char *name, const struct stat *st)
{
    static unsigned char chunk[1 << 16];
    int in = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
    int out = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st->st_mode & 0777);
    ssize_t n = -1;
    while (in >= 0 && out >= 0 && (n = read(in, chunk, sizeof chunk)) > 0) {
        if (write(out, chunk, (size_t)n) != n) {
            n = -1;
            break;
        }
    }
    if (in >= 0) {
        close(in);
    }
    if (out >= 0) {
        close(out);
    }
    return n == 0 ? 0 : -1;
}

static int copy_tree(int from_dir, int to_dir, int depth)
{
    DIR *d = fdopendir(dup(from_dir));
    int rc = d == NULL ? -1 : 0;
    struct dirent *e;
    while (rc == 0 && (e = readdir(d)) != NULL) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (fstatat(from_dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            rc = errno == ENOENT ? 0 : -1; /* a living database unlinks files while it is copied */
        } else if (S_ISREG(st.st_mode)) {
            rc = copy_file(from_dir, to_dir, e->d_name, &st);
        } else if (S_ISDIR(st.st_mode) && depth < 4) {
            rc = mkdirat(to_dir, e->d_name, st.st_mode & 0777);
            int f = openat(from_dir, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            int t = openat(to_dir, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            rc = rc == 0 && f >= 0 && t >= 0 ? copy_tree(f, t, depth + 1) : -1;
            close(f);
            close(t);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    return rc;
}

int scratch_copy(const char *from, const char *to)
{
    if (mkdir(to, 0755) != 0) {
        return -1;
    }
    int f = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC), t = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = f >= 0 && t >= 0 ? copy_tree(f, t, 0) : -1;
    close(f);
    close(t);
    return rc;
}

static uint64_t disk_sum;
static int add_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path, (void)type, (void)ftw;
    disk_sum += (uint64_t)st->st_blocks * 512;
    return 0;
}

uint64_t scratch_disk_bytes(const char *dir)
{
    disk_sum = 0;
    nftw(dir, add_one, 16, FTW_PHYS);
    return disk_sum;
}

static int open_in(const char *dir, const char *name, int flags)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return open(path, flags | O_CLOEXEC, 0600);
}

int scratch_read(const char *dir, const char *name, unsigned char **data, size_t *size)
{
    struct stat st;
    int fd = open_in(dir, name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        close(fd);
        return -1;
    }
    *data = malloc((size_t)st.st_size + 1);
    ssize_t n = *data != NULL ? read(fd, *data, (size_t)st.st_size) : -1;
    close(fd);
    *size = n > 0 ? (size_t)n : 0;
    return n == st.st_size ? 0 : -1;
}

int scratch_write(const char *dir, const char *name, const void *data, size_t size)
{
    int fd = open_in(dir, name, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0) {
        return -1;
    }
    ssize_t n = write(fd, data, size);
    return close(fd) == 0 && n == (ssize_t)size ? 0 : -1;
}

int scratch_flip_bit(const char *dir, const char *name, uint64_t bit)
{
    unsigned char c;
    int fd = open_in(dir, name, O_RDWR);
    int rc = fd >= 0 && pread(fd, &c, 1, (off_t)(bit / 8)) == 1 ? 0 : -1;
    if (rc == 0) {
        c = (unsigned char)(c ^ (1u << (bit % 8)));
        rc = pwrite(fd, &c, 1, (off_t)(bit / 8)) == 1 ? 0 : -1;
    }
    close(fd);
    return rc;
}

int scratch_noise(const char *dir, const char *name, uint64_t from, uint64_t size, uint64_t seed)
{
    int rc = 0, fd = open_in(dir, name, O_RDWR);
    if (fd < 0) {
        return -1;
    }
    for (uint64_t i = 0; i < size && rc == 0; i += 8) {
        uint64_t word = prng_next(&seed);
        size_t n = size - i < 8 ? (size_t)(size - i) : 8;
        rc = pwrite(fd, &word, n, (off_t)(from + i)) == (ssize_t)n ? 0 : -1;
    }
    close(fd);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

char **scratch_names(const char *dir, const char *suffix)
{
    size_t n = 0, cap = 16, tail = strlen(suffix);
    char **names = calloc(cap, sizeof *names);
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d != NULL && names != NULL && (e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name);
        if (e->d_name[0] == '.' || len < tail || strcmp(e->d_name + len - tail, suffix) != 0) {
            continue;
        }
        if (n + 1 == cap) {
            cap *= 2;
            names = realloc(names, cap * sizeof *names);
        }
        names[n++] = strdup(e->d_name);
        names[n] = NULL;
    }
    if (d != NULL) {
        closedir(d);
    }
    if (names == NULL) {
        abort();
    }
    qsort(names, n, sizeof *names, by_name);
    return names;
}

void scratch_names_free(char **names)
{
    for (char **p = names; *p != NULL; p++) {
        free(*p);
    }
    free(names);
}
