/* report.c - what a benchmark found: a table for people, one JSON object for programs. */
#include "agent.h"

#include <inttypes.h>
#include <stdio.h>

struct totals {
    uint64_t ops, commits, missing, wrong;
    double rate, slowest, fastest, seconds;
    struct histogram latency;
};

static double rate_of(const struct result *r)
{
    return r->seconds > 0 ? (double)r->ops / r->seconds : 0;
}

/* Together: what all did in the time of the slowest. */
static void add_up(const struct job *job, const struct result *results, struct totals *t)
{
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        double rate = rate_of(r);
        t->ops += r->ops;
        t->commits += r->commits;
        t->missing += r->missing;
        t->wrong += r->wrong;
        t->seconds = r->seconds > t->seconds ? r->seconds : t->seconds;
        t->fastest = rate > t->fastest ? rate : t->fastest;
        t->slowest = i == 0 || rate < t->slowest ? rate : t->slowest;
        histogram_merge(&t->latency, &r->latency);
    }
    t->rate = t->seconds > 0 ? (double)t->ops / t->seconds : 0;
}

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static double mean_us(const struct histogram *h)
{
    return h->count != 0 ? us(h->sum) / (double)h->count : 0;
}

static void row(const char *name, int64_t pid, double rate, const struct histogram *h)
{
    printf("%-8s %8" PRId64 " %12.0f %10.2f %10.2f %10.2f %10.2f %12.2f", name, pid, rate, mean_us(h),
           us(histogram_at(h, 0.5)), us(histogram_at(h, 0.99)), us(histogram_at(h, 0.999)), us(h->max));
}

static void table(const struct job *job, const struct result *results, const struct totals *t)
{
    char name[16];
    printf("%s: %" PRIu64 " keys of %zu bytes, values of %zu, batch %" PRIu64
           ", sync %s, %u processes x %u threads\n",
           job->mode, job->keys, job->key_bytes, job->value_bytes, job->batch, job->sync, job->processes,
           job->threads);
    printf("%-8s %8s %12s %10s %10s %10s %10s %12s %8s %8s %9s\n", "process", "pid", "ops/s", "mean us",
           "p50 us", "p99 us", "p99.9 us", "longest us", "flushes", "compact", "anon MiB");
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        snprintf(name, sizeof name, "%u", i + 1);
        row(name, r->pid, rate_of(r), &r->latency);
        printf(" %8" PRIu64 " %8" PRIu64 " %9.1f\n", r->flushes, r->compactions,
               ((double)r->anon_kib - (double)r->anon_before_kib) / 1024);
    }
    row("all", 0, t->rate, &t->latency);
    printf("\n%" PRIu64 " operations in %.2f s; slowest/fastest %.3f", t->ops, t->seconds,
           t->fastest > 0 ? t->slowest / t->fastest : 0);
    printf("; missing %" PRIu64 "%s, wrong %" PRIu64 "%s\n", t->missing,
           job->check || strcmp(job->mode, "verify") == 0 ? "" : " (values not checked)", t->wrong,
           strcmp(job->mode, "scan") == 0 || strcmp(job->mode, "verify") == 0 ? "; times are of 1,024 entries"
                                                                              : "");
}

static double put_bytes(const struct job *job, const struct around *a)
{
    return (double)(a->after.puts - a->before.puts) * (double)(job->key_bytes + job->value_bytes);
}

static void log_lines(const struct job *job, const struct totals *t, const struct around *a)
{
    const shale_stats *before = &a->before, *after = &a->after;
    const struct histogram *floor = &a->floor;
    uint64_t fsyncs = after->fsyncs - before->fsyncs;
    if (t->commits != 0) {
        printf("log: %" PRIu64 " commits, %" PRIu64
               " fdatasyncs (%.3f a commit); longest wait for the write lock %.3f ms"
               " since the shared state began\n",
               t->commits, fsyncs, (double)fsyncs / (double)t->commits,
               (double)after->queue_wait_max_us / 1000);
        printf("tables: %" PRIu64 " flushes, %" PRIu64 " compactions, %" PRIu64
               " stalls of %.3f s together\n",
               after->flushes - before->flushes, after->compactions - before->compactions,
               after->stalls - before->stalls, (double)(after->stall_us - before->stall_us) / 1e6);
    }
    if (job->device && put_bytes(job, a) > 0) {
        double device = (double)(a->device_after - a->device_before);
        printf("device: %.1f MiB written, %.2f for each byte put\n", device / (1 << 20),
               device / put_bytes(job, a));
    }
    if (floor->count != 0) {
        printf("floor: append + fdatasync of as many bytes: mean %.1f us, p50 %.1f us, p99 %.1f us",
               mean_us(floor), us(histogram_at(floor, 0.5)), us(histogram_at(floor, 0.99)));
        if (t->commits != 0 && job->processes * job->threads == 1) {
            printf("; a commit takes %.2f times the mean, %.2f times the p50",
                   mean_us(&t->latency) / mean_us(floor),
                   us(histogram_at(&t->latency, 0.5)) / us(histogram_at(floor, 0.5)));
        }
        putchar('\n');
    }
}

static void latency_json(const struct histogram *h)
{
    printf("\"mean_us\":%.3f,\"p50_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"longest_us\":%.3f",
           mean_us(h), us(histogram_at(h, 0.5)), us(histogram_at(h, 0.99)), us(histogram_at(h, 0.999)),
           us(h->max));
}

static void json(const struct job *job, const struct result *results, const struct totals *t,
                 const struct around *a)
{
    const shale_stats *before = &a->before, *after = &a->after;
    const struct histogram *floor = &a->floor;
    printf("{\"mode\":\"%s\",\"keys\":%" PRIu64 ",\"key_bytes\":%zu,\"value_bytes\":%zu,\"batch\":%" PRIu64
           ",\"sync\":\"%s\",\"processes\":%u,\"threads\":%u,\"workers\":[",
           job->mode, job->keys, job->key_bytes, job->value_bytes, job->batch, job->sync, job->processes,
           job->threads);
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        printf("%s{\"pid\":%" PRId64 ",\"ops\":%" PRIu64 ",\"ops_per_s\":%.1f,", i != 0 ? "," : "", r->pid,
               r->ops, rate_of(r));
        latency_json(&r->latency);
        printf(",\"flushes\":%" PRIu64 ",\"compactions\":%" PRIu64 ",\"anon_kib\":%" PRIu64
               ",\"anon_before_kib\":%" PRIu64 "}",
               r->flushes, r->compactions, r->anon_kib, r->anon_before_kib);
    }
    printf("],\"ops\":%" PRIu64 ",\"seconds\":%.3f,\"ops_per_s\":%.1f,\"slowest_to_fastest\":%.4f,", t->ops,
           t->seconds, t->rate, t->fastest > 0 ? t->slowest / t->fastest : 0);
    latency_json(&t->latency);
    printf(",\"commits\":%" PRIu64 ",\"fsyncs\":%" PRIu64 ",\"flushes\":%" PRIu64 ",\"compactions\":%" PRIu64
           ",\"stalls\":%" PRIu64 ",\"stall_us\":%" PRIu64 ",\"queue_wait_max_us\":%" PRIu64
           ",\"missing\":%" PRIu64 ",\"wrong\":%" PRIu64,
           t->commits, after->fsyncs - before->fsyncs, after->flushes - before->flushes,
           after->compactions - before->compactions, after->stalls - before->stalls,
           after->stall_us - before->stall_us, after->queue_wait_max_us, t->missing, t->wrong);
    if (job->device) {
        printf(",\"device_bytes\":%" PRIu64 ",\"put_bytes\":%.0f", a->device_after - a->device_before,
               put_bytes(job, a));
    }
    if (floor->count != 0) {
        printf(",\"floor\":{");
        latency_json(floor);
        putchar('}');
    }
    printf("}\n");
}

void report_bench(const struct job *job, const struct result *results, const struct around *around)
{
    static struct totals t;
    t = (struct totals){0};
    add_up(job, results, &t);
    if (job->json) {
        json(job, results, &t, around);
    } else {
        table(job, results, &t);
        log_lines(job, &t, around);
    }
}
