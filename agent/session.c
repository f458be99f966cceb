/* session.c - the frame around a writer or a reader of real input: input, database, signals, report. See
 * feed.h. */
#include "feed.h"
#include "os/os.h"

#include <inttypes.h>
#include <signal.h>

static volatile sig_atomic_t asked_to_stop;

static void on_signal(int sig)
{
    (void)sig;
    asked_to_stop = 1;
}

bool session_over(const struct session *s)
{
    return asked_to_stop || (s->job->seconds > 0 && os_now() - s->start > (int64_t)(s->job->seconds * 1e9));
}

void session_note(struct session *s, int64_t since, uint64_t n)
{
    histogram_add(&s->r.latency, (uint64_t)(os_now() - since));
    s->r.ops += n;
}

int session_open(struct session *s, const struct job *job)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1};
    s->job = job;
    for (size_t i = 0; i < BASE_COUNT(signals); i++) {
        sigaction(signals[i], &(struct sigaction){.sa_handler = on_signal}, NULL);
    }
    if (job->input == NULL) {
        return complain(job, EX_USAGE, "%s needs --input FILE", job->mode);
    }
    int status = corpus_read(&s->corpus, job->input);
    if (status == 0) {
        int opened = shale_open(job->dir, job->options, &s->db);
        status = opened != SHALE_OK ? complain_library(job, opened, "cannot open") : 0;
    }
    s->start = os_now();
    return status;
}

/* role, pid, records, commits or reads, a second, longest of them in us, flushes, compactions; tabs between.
 */
static int report_line(struct session *s, const char *role)
{
    const struct result *r = &s->r;
    FILE *f = s->job->report != NULL ? fopen(s->job->report, "ae") : stdout;
    if (f == NULL) {
        return complain(s->job, EX_CANTCREAT, "%s: cannot write the report", s->job->report);
    }
    fprintf(f, "%s\t%lld\t%" PRIu64 "\t%" PRIu64 "\t%.0f\t%.1f\t%" PRIu64 "\t%" PRIu64 "\n", role,
            (long long)getpid(), r->ops, r->latency.count,
            r->seconds > 0 ? (double)r->latency.count / r->seconds : 0, (double)r->latency.max / 1000,
            r->flushes, r->compactions);
    bool written = f == stdout ? fflush(f) == 0 : fclose(f) == 0;
    return written ? 0 : complain(s->job, EX_IOERR, "cannot write the report");
}

int session_close(struct session *s, int status, const char *role)
{
    s->r.seconds = (double)(os_now() - s->start) / 1e9;
    if (s->db != NULL) {
        own_counters(s->db, &s->r.flushes, &s->r.compactions);
    }
    int closed = shale_close(s->db);
    if (closed != SHALE_OK && status == 0) {
        status = complain_library(s->job, closed, "close");
    }
    corpus_release(&s->corpus);
    return status == 0 ? report_line(s, role) : status;
}
