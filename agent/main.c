/* main.c - shale-agent MODE DIR [OPTION...]: modes, and what is measured around a benchmark. */
#include "agent.h"
#include "os/os.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

int complain(const struct job *job, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "shale-agent: %s: ", job->dir != NULL ? job->dir : job->mode);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

int complain_library(const struct job *job, int status, const char *what)
{
    const char *why = shale_errmsg();
    int code = err_exit_status(status);
    return complain(job, code != 0 ? code : EX_SOFTWARE, "%s: %s", what,
                    why[0] != '\0' ? why : shale_strerror(status));
}

/* ---- benchmarks ---- */

static int take_stats(const struct job *job, shale_db *db, shale_stats *s)
{
    *s = (shale_stats){.size = sizeof *s};
    int status = shale_stat(db, s);
    return status == SHALE_OK ? 0 : complain_library(job, status, "statistics");
}

/* Of shale the parent keeps the database open, too: it makes it, and the counters are read through its
 * handle. It has no threads and does nothing in between. Not where each operation is to find the database as
 * nobody has it open. */
static int open_parent(const struct job *job, shale_db **db)
{
    shale_options o = *job->options;
    o.threads = 0;
    if (job->driver != &driver_shale || job->workload->shape == ONE_SHOT) {
        return 0;
    }
    int status = shale_open(job->dir, &o, db);
    return status == SHALE_OK ? 0 : complain_library(job, status, "cannot open");
}

/* Half of the floor before, half behind: the machine's mood changes. */
static int measure_before(const struct job *job, shale_db *db, struct around *a)
{
    int status = job->floor ? floor_measure(job, 1000, &a->floor) : 0;
    a->device_before = job->device ? device_written(job->dir) : 0;
    a->stats = db != NULL;
    return status == 0 && db != NULL ? take_stats(job, db, &a->before) : status;
}

static int measure_after(const struct job *job, shale_db *db, struct around *a)
{
    int status = db != NULL ? take_stats(job, db, &a->after) : 0;
    a->device_after = job->device ? device_written(job->dir) : 0;
    a->disk = disk_bytes(job->dir);
    return status == 0 && job->floor ? floor_measure(job, 1000, &a->floor) : status;
}

/* Wrong values, or keys that a verification did not find. */
static int judge(const struct job *job, const struct result *results)
{
    for (unsigned i = 0; i < job->processes; i++) {
        bool all_there = job->workload->shape != VERIFY || results[i].missing == 0;
        if (results[i].wrong != 0 || !all_there) {
            return EX_DATAERR;
        }
    }
    return 0;
}

static int run_bench(const struct job *job)
{
    struct result *results = calloc(job->processes, sizeof *results);
    struct around *around = calloc(1, sizeof *around);
    shale_db *db = NULL;
    int status = results == NULL || around == NULL ? EX_OSERR : open_parent(job, &db);
    if (status == 0) {
        status = measure_before(job, db, around);
    }
    if (status == 0) {
        status = proc_run(job, results, &around->series);
    }
    if (status == 0) {
        status = measure_after(job, db, around);
    }
    if (status == 0) {
        report_bench(job, results, around);
        status = judge(job, results);
    }
    int closed = shale_close(db);
    if (closed != SHALE_OK && status == 0) {
        status = complain_library(job, closed, "close");
    }
    if (around != NULL) {
        free(around->series.ops);
    }
    free(results);
    free(around);
    return status;
}

static int bench_main(const struct job *job)
{
    return job->worker >= 0 ? worker_main(job) : run_bench(job);
}

/* ---- modes ---- */

static const struct mode {
    const char *name;
    int (*run)(const struct job *job);
    const char *help;
} modes[] = {
    {"open", floor_opens, "open + get + close, --ops times (1000), in one process"},
    {"feed", feed_main, "write the stanzas of --input, part --part I/N, in small batches"},
    {"watch", watch_main, "read and check stanzas until SIGTERM"},
    {"compare", compare_main, "compare every record with --input, byte for byte"},
};

void modes_help(void)
{
    for (size_t i = 0; i < BASE_COUNT(modes); i++) {
        printf("  %-16s %s\n", modes[i].name, modes[i].help);
    }
}

static int run_mode(struct job *job)
{
    job->workload = workload_find(job->mode);
    int status = options_complete(job);
    if (status != 0 || job->workload != NULL) {
        return status != 0 ? status : bench_main(job);
    }
    for (size_t i = 0; i < BASE_COUNT(modes); i++) {
        if (strcmp(modes[i].name, job->mode) == 0) {
            return modes[i].run(job);
        }
    }
    return usage("no such mode", job->mode);
}

int main(int argc, char **argv)
{
    struct job job = {.argv = argv, .argc = argc, .mode = "shale-agent", .worker = -1};
    bool done = false;
    signal(SIGPIPE, SIG_IGN);
    if (shale_options_create(&job.options) != SHALE_OK) {
        return complain_library(&job, SHALE_NOMEM, "options");
    }
    /* The workers get these arguments as they are: getopt may reorder its own copy of the list only. */
    char **copy = calloc((size_t)argc + 1, sizeof *copy);
    if (copy == NULL) {
        shale_options_destroy(job.options);
        return EX_OSERR;
    }
    memcpy(copy, argv, (size_t)argc * sizeof *copy);
    job.argv = copy;
    int status = options_parse(&job, argc, argv, &done);
    if (status == 0 && !done) {
        status = run_mode(&job);
    }
    if (job.worker < 0 && fclose(stdout) != 0 && status == 0) {
        status = EX_IOERR;
    }
    shale_options_destroy(job.options);
    free(copy);
    return status;
}
