/* report.c - what a benchmark found: a table for people; json.c has the same for programs. */
#include "agent.h"

#include <inttypes.h>
#include <stdio.h>

double rate_of(const struct result *r)
{
    return r->seconds > 0 ? (double)r->ops / r->seconds : 0;
}

/* Together: what all did in the time of the slowest. */
static void add_up(const struct job *job, const struct result *results, struct totals *t)
{
    struct result *all = &t->all;
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        double rate = rate_of(r);
        all->ops += r->ops;
        all->commits += r->commits;
        all->missing += r->missing;
        all->wrong += r->wrong;
        all->busy += r->busy;
        all->put_bytes += r->put_bytes;
        all->got_bytes += r->got_bytes;
        all->io_read += r->io_read;
        all->io_written += r->io_written;
        all->anon_kib += r->anon_kib - (r->anon_before_kib < r->anon_kib ? r->anon_before_kib : r->anon_kib);
        all->peak_kib = r->peak_kib > all->peak_kib ? r->peak_kib : all->peak_kib;
        all->seconds = r->seconds > all->seconds ? r->seconds : all->seconds;
        t->fastest = rate > t->fastest ? rate : t->fastest;
        t->slowest = i == 0 || rate < t->slowest ? rate : t->slowest;
        histogram_merge(&all->latency, &r->latency);
        for (size_t side = 0; side < SIDES; side++) {
            all->parts[side].ops += r->parts[side].ops;
            histogram_merge(&all->parts[side].latency, &r->parts[side].latency);
        }
    }
    t->rate = rate_of(all);
}

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

double mean_us(const struct histogram *h)
{
    return h->count != 0 ? us(h->sum) / (double)h->count : 0;
}

static double mib(double bytes)
{
    return bytes / (1 << 20);
}

uint64_t bytes_written(const struct job *job, const struct totals *t, const struct around *a)
{
    return job->device ? a->device_after - a->device_before : t->all.io_written;
}

static void row(const char *name, int64_t pid, double rate, const struct histogram *h)
{
    printf("%-8s %8" PRId64 " %12.0f %10.2f %10.2f %10.2f %10.2f %10.2f %12.2f", name, pid, rate, mean_us(h),
           us(histogram_at(h, 0.5)), us(histogram_at(h, 0.9)), us(histogram_at(h, 0.99)),
           us(histogram_at(h, 0.999)), us(h->max));
}

static void table(const struct job *job, const struct result *results, const struct totals *t)
{
    static const char *const names[SIDES] = {[READS] = "reads", [WRITES] = "writes"};
    const struct result *all = &t->all;
    char name[16];
    printf("%s %s: %" PRIu64 " keys of %zu bytes, values of %zu, batch %" PRIu64
           ", sync %s, %u processes x %u threads\n",
           job->driver->name, job->mode, job->keys, job->key_bytes, job->value_bytes, job->batch, job->sync,
           job->processes, job->threads);
    printf("%-8s %8s %12s %10s %10s %10s %10s %10s %12s %8s %8s %9s\n", "process", "pid", "ops/s", "mean us",
           "p50 us", "p90 us", "p99 us", "p99.9 us", "longest us", "flushes", "compact", "anon MiB");
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        snprintf(name, sizeof name, "%u", i + 1);
        row(name, r->pid, rate_of(r), &r->latency);
        printf(" %8" PRIu64 " %8" PRIu64 " %9.1f\n", r->flushes, r->compactions,
               ((double)r->anon_kib - (double)r->anon_before_kib) / 1024);
    }
    for (size_t side = 0; side < SIDES && all->parts[READS].ops != 0 && all->parts[WRITES].ops != 0; side++) {
        row(names[side], 0, (double)all->parts[side].ops / all->seconds, &all->parts[side].latency);
        putchar('\n');
    }
    row("all", 0, t->rate, &all->latency);
    printf("\n%" PRIu64 " operations in %.2f s; slowest/fastest %.3f", all->ops, all->seconds,
           t->fastest > 0 ? t->slowest / t->fastest : 0);
    printf("; missing %" PRIu64 "%s, wrong %" PRIu64 "%s\n", all->missing,
           job->check || job->workload->shape == VERIFY ? "" : " (values not checked)", all->wrong,
           job->workload->shape == SCAN || job->workload->shape == VERIFY ? "; times are of 1,024 entries"
                                                                          : "");
}

static void log_lines(const struct totals *t, const struct around *a)
{
    const shale_stats *before = &a->before, *after = &a->after;
    uint64_t fsyncs = after->fsyncs - before->fsyncs;
    if (t->all.busy != 0) {
        printf("lock: not had at once %" PRIu64 " times\n", t->all.busy);
    }
    if (a->stats && t->all.commits != 0) {
        printf("log: %" PRIu64 " commits, %" PRIu64
               " fdatasyncs (%.3f a commit); longest wait for the write lock %.3f ms"
               " since the shared state began\n",
               t->all.commits, fsyncs, (double)fsyncs / (double)t->all.commits,
               (double)after->queue_wait_max_us / 1000);
        printf("tables: %" PRIu64 " flushes, %" PRIu64 " compactions, %" PRIu64
               " stalls of %.3f s together\n",
               after->flushes - before->flushes, after->compactions - before->compactions,
               after->stalls - before->stalls, (double)(after->stall_us - before->stall_us) / 1e6);
    }
}

/* Amplification: bytes moved for each byte of keys and values that was put, got or is there. */
static void usage_lines(const struct job *job, const struct totals *t, const struct around *a)
{
    const struct result *all = &t->all;
    double live = (double)job->keys * (double)(job->key_bytes + job->value_bytes);
    if (all->put_bytes != 0) {
        double written = (double)bytes_written(job, t, a);
        printf("%s: %.1f MiB written, %.2f for each byte put\n", job->device ? "device" : "storage",
               mib(written), written / (double)all->put_bytes);
    }
    if (all->got_bytes != 0) {
        printf("storage: %.1f MiB read, %.2f for each byte got\n", mib((double)all->io_read),
               (double)all->io_read / (double)all->got_bytes);
    }
    printf("space: %.1f MiB, %.2f for each byte of %" PRIu64
           " entries; memory: %.1f MiB private, at most %.1f "
           "resident in a process\n",
           mib((double)a->disk), (double)a->disk / live, job->keys, (double)all->anon_kib / 1024,
           (double)all->peak_kib / 1024);
}

static void floor_line(const struct job *job, const struct totals *t, const struct histogram *floor)
{
    const struct histogram *h = &t->all.latency;
    if (floor->count == 0) {
        return;
    }
    printf("floor: append + fdatasync of as many bytes: mean %.1f us, p50 %.1f us, p99 %.1f us",
           mean_us(floor), us(histogram_at(floor, 0.5)), us(histogram_at(floor, 0.99)));
    if (t->all.commits != 0 && job->processes * job->threads == 1) {
        printf("; a commit takes %.2f times the mean, %.2f times the p50", mean_us(h) / mean_us(floor),
               us(histogram_at(h, 0.5)) / us(histogram_at(floor, 0.5)));
    }
    putchar('\n');
}

void report_bench(const struct job *job, const struct result *results, const struct around *around)
{
    static struct totals t;
    t = (struct totals){0};
    add_up(job, results, &t);
    if (job->json) {
        report_json(job, results, &t, around);
    } else {
        table(job, results, &t);
        log_lines(&t, around);
        usage_lines(job, &t, around);
        floor_line(job, &t, &around->floor);
    }
}
