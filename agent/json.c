/* json.c - the report as one JSON object. Counters of the library are there only if it is the store; times
 * are in microseconds.
 */
#include "agent.h"

#include <inttypes.h>
#include <stdio.h>

static double us(uint64_t ns)
{
    return (double)ns / 1000;
}

static void latency(const struct histogram *h)
{
    printf("\"mean_us\":%.3f,\"p50_us\":%.3f,\"p90_us\":%.3f,\"p99_us\":%.3f,\"p999_us\":%.3f,\"longest_us\":"
           "%.3f",
           mean_us(h), us(histogram_at(h, 0.5)), us(histogram_at(h, 0.9)), us(histogram_at(h, 0.99)),
           us(histogram_at(h, 0.999)), us(h->max));
}

static void workers(const struct job *job, const struct result *results)
{
    printf("\"workers\":[");
    for (unsigned i = 0; i < job->processes; i++) {
        const struct result *r = &results[i];
        printf("%s{\"pid\":%" PRId64 ",\"ops\":%" PRIu64 ",\"ops_per_s\":%.1f,", i != 0 ? "," : "", r->pid,
               r->ops, rate_of(r));
        latency(&r->latency);
        printf(",\"flushes\":%" PRIu64 ",\"compactions\":%" PRIu64 ",\"anon_kib\":%" PRIu64
               ",\"anon_before_kib\":%" PRIu64 ",\"peak_kib\":%" PRIu64 "}",
               r->flushes, r->compactions, r->anon_kib, r->anon_before_kib, r->peak_kib);
    }
    printf("],");
}

/* The counts of a histogram's buckets that are not empty: [largest of the bucket, how many]. */
static void distribution(const struct histogram *h)
{
    bool first = true;
    printf(",\"histogram_us\":[");
    for (size_t b = 0; b < HISTOGRAM_BUCKETS; b++) {
        if (h->buckets[b] != 0) {
            printf("%s[%.3f,%" PRIu64 "]", first ? "" : ",", us(histogram_top(b)), h->buckets[b]);
            first = false;
        }
    }
    putchar(']');
}

static void part(const char *name, const struct totals *t, enum side side)
{
    const struct part *p = &t->all.parts[side];
    if (p->ops != 0) {
        printf(",\"%s\":{\"ops\":%" PRIu64 ",\"ops_per_s\":%.1f,", name, p->ops,
               t->all.seconds > 0 ? (double)p->ops / t->all.seconds : 0);
        latency(&p->latency);
        distribution(&p->latency);
        putchar('}');
    }
}

/* What was done in each tick. */
static void series(const struct series *s)
{
    printf(",\"tick_s\":%.3f,\"series\":[", BOARD_TICK_NS / 1e9);
    for (size_t i = 1; i < s->ticks; i++) {
        const uint64_t *then = &s->ops[(i - 1) * SIDES], *now = then + SIDES;
        printf("%s[%" PRIu64 ",%" PRIu64 "]", i != 1 ? "," : "", now[READS] - then[READS],
               now[WRITES] - then[WRITES]);
    }
    putchar(']');
}

static void library(const struct around *a)
{
    const shale_stats *before = &a->before, *after = &a->after;
    if (a->stats) {
        printf(",\"fsyncs\":%" PRIu64 ",\"flushes\":%" PRIu64 ",\"compactions\":%" PRIu64
               ",\"stalls\":%" PRIu64 ",\"stall_us\":%" PRIu64 ",\"queue_wait_max_us\":%" PRIu64,
               after->fsyncs - before->fsyncs, after->flushes - before->flushes,
               after->compactions - before->compactions, after->stalls - before->stalls,
               after->stall_us - before->stall_us, after->queue_wait_max_us);
    }
}

static void amplification(const struct job *job, const struct totals *t, const struct around *a)
{
    const struct result *all = &t->all;
    double live = (double)job->keys * (double)(job->key_bytes + job->value_bytes);
    printf(",\"put_bytes\":%" PRIu64 ",\"got_bytes\":%" PRIu64 ",\"written_bytes\":%" PRIu64
           ",\"read_bytes\":%" PRIu64 ",\"disk_bytes\":%" PRIu64 ",\"space_amplification\":%.4f",
           all->put_bytes, all->got_bytes, bytes_written(job, t, a), all->io_read, a->disk,
           (double)a->disk / live);
    if (all->put_bytes != 0) {
        printf(",\"write_amplification\":%.4f", (double)bytes_written(job, t, a) / (double)all->put_bytes);
    }
    if (all->got_bytes != 0) {
        printf(",\"read_amplification\":%.4f", (double)all->io_read / (double)all->got_bytes);
    }
    if (job->device) {
        printf(",\"device_bytes\":%" PRIu64, a->device_after - a->device_before);
    }
    printf(",\"anon_kib\":%" PRIu64 ",\"peak_kib\":%" PRIu64, all->anon_kib, all->peak_kib);
}

void report_json(const struct job *job, const struct result *results, const struct totals *t,
                 const struct around *a)
{
    const struct result *all = &t->all;
    printf("{\"driver\":\"%s\",\"mode\":\"%s\",\"keys\":%" PRIu64
           ",\"key_bytes\":%zu,\"value_bytes\":%zu,\"batch\":%" PRIu64
           ",\"sync\":\"%s\",\"processes\":%u,\"threads\":%u,",
           job->driver->name, job->mode, job->keys, job->key_bytes, job->value_bytes, job->batch, job->sync,
           job->processes, job->threads);
    workers(job, results);
    printf("\"ops\":%" PRIu64 ",\"seconds\":%.6f,\"ops_per_s\":%.1f,\"slowest_to_fastest\":%.4f,", all->ops,
           all->seconds, t->rate, t->fastest > 0 ? t->slowest / t->fastest : 0);
    latency(&all->latency);
    printf(",\"commits\":%" PRIu64 ",\"busy\":%" PRIu64 ",\"missing\":%" PRIu64 ",\"wrong\":%" PRIu64,
           all->commits, all->busy, all->missing, all->wrong);
    library(a);
    amplification(job, t, a);
    part("reads", t, READS);
    part("writes", t, WRITES);
    series(&a->series);
    if (a->floor.count != 0) {
        printf(",\"floor\":{");
        latency(&a->floor);
        putchar('}');
    }
    printf("}\n");
}
