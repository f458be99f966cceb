/* floor.c - what the machine itself costs, measured in the same directory and the same run: appending as many
 * bytes as a commit logs to a file whose space is allocated, and fdatasync; and what a one-shot visit to a
 * database costs.
 */
#include "agent.h"
#include "os/os.h"

#include <stdlib.h>

/* About what the log adds to keys and values: a header a commit, type and lengths an entry. */
#define COMMIT_OVERHEAD 32
#define ENTRY_OVERHEAD  4

int floor_measure(const struct job *job, unsigned rounds, struct histogram *h)
{
    size_t size = COMMIT_OVERHEAD + job->batch * (ENTRY_OVERHEAD + job->key_bytes + job->value_bytes);
    unsigned char *data = malloc(size);
    char name[48];
    int dir = -1, fd = -1, status = data != NULL ? os_open_dir(job->dir, &dir) : SHALE_NOMEM;
    if (status != SHALE_OK) {
        goto out;
    }
    value_make(data, size, 1, 2);
    snprintf(name, sizeof name, ".floor-%lld", (long long)getpid());
    status = os_open(dir, name, O_RDWR | O_CREAT | O_EXCL, 0600, &fd);
    if (status == SHALE_OK) {
        status = os_unlink(dir, name);
    }
    if (status == SHALE_OK) {
        status = os_allocate(fd, 0, (uint64_t)size * rounds);
    }
    if (status == SHALE_OK) {
        status = os_fsync(fd);
    }
    for (unsigned i = 0; i < rounds && status == SHALE_OK; i++) {
        int64_t start = os_now();
        status = os_pwrite(fd, data, size, (uint64_t)size * i);
        if (status == SHALE_OK) {
            status = os_fdatasync(fd);
        }
        histogram_add(h, (uint64_t)(os_now() - start));
    }
out:
    os_close(&fd);
    os_close(&dir);
    free(data);
    return status == SHALE_OK ? 0 : complain_library(job, status, "floor");
}

/* open + get of one key + close, rounds times. */
static int visits(const struct job *job, unsigned rounds, struct histogram *h)
{
    unsigned char *key = malloc(job->key_bytes);
    int status = key != NULL ? SHALE_OK : SHALE_NOMEM;
    for (unsigned i = 0; i < rounds && status == SHALE_OK; i++) {
        shale_db *db = NULL;
        shale_value val = {0};
        key_make(key, job->key_bytes, i % job->keys);
        int64_t start = os_now();
        status = shale_open(job->dir, job->options, &db);
        if (status == SHALE_OK) {
            status = shale_get(db, NULL, key, job->key_bytes, &val);
            status = status == SHALE_NOTFOUND ? SHALE_OK : status;
            shale_value_release(&val);
        }
        int closed = shale_close(db);
        status = status == SHALE_OK ? closed : status;
        histogram_add(h, (uint64_t)(os_now() - start));
    }
    free(key);
    return status;
}

static void print_visits(const char *name, const struct histogram *h)
{
    printf("%-40s p50 %8.1f us   p99 %8.1f us   longest %8.1f us\n", name,
           (double)histogram_at(h, 0.5) / 1000, (double)histogram_at(h, 0.99) / 1000, (double)h->max / 1000);
}

int floor_opens(const struct job *job)
{
    unsigned rounds = job->ops != 0 && job->ops < 1000000 ? (unsigned)job->ops : 1000;
    struct histogram *warm = calloc(2, sizeof *warm), *attached = warm + 1;
    shale_db *db = NULL;
    struct histogram first = {0};
    int status = warm != NULL ? visits(job, 1, &first) : SHALE_NOMEM; /* recovers, if that is needed */
    if (status == SHALE_OK) {
        status = visits(job, rounds, warm);
    }
    if (status == SHALE_OK) {
        status = shale_open(job->dir, job->options, &db);
    }
    if (status == SHALE_OK) {
        status = visits(job, rounds, attached);
    }
    int closed = shale_close(db);
    status = status == SHALE_OK ? closed : status;
    if (status != SHALE_OK) {
        free(warm);
        return complain_library(job, status, "open");
    }
    if (job->json) {
        printf("{\"mode\":\"open\",\"visits\":%u,\"warm_p50_us\":%.3f,\"warm_p99_us\":%.3f,\"attached_p50_"
               "us\":%.3f,"
               "\"attached_p99_us\":%.3f}\n",
               rounds, (double)histogram_at(warm, 0.5) / 1000, (double)histogram_at(warm, 0.99) / 1000,
               (double)histogram_at(attached, 0.5) / 1000, (double)histogram_at(attached, 0.99) / 1000);
    } else {
        printf("open: %u times open + get + close, threads=%u\n", rounds, job->options->threads);
        print_visits("nobody else connected (warm)", warm);
        print_visits("while another handle is open (attach)", attached);
    }
    free(warm);
    return 0;
}
