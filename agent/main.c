/* main.c - shale-agent MODE DIR [OPTION...]: options and modes. */
#include "agent.h"
#include "os/os.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
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

/* The parent keeps the database open too: it makes it, and the counters are read through its handle. It has
 * no threads and does nothing in between. */
static int open_parent(const struct job *job, shale_db **db)
{
    shale_options o = *job->options;
    o.threads = 0;
    int status = shale_open(job->dir, &o, db);
    return status == SHALE_OK ? 0 : complain_library(job, status, "cannot open");
}

/* Half of the floor before, half behind: the machine's mood changes. */
static int measure_before(const struct job *job, shale_db *db, struct around *a)
{
    int status = job->floor ? floor_measure(job, 1000, &a->floor) : 0;
    a->device_before = job->device ? device_written(job->dir) : 0;
    return status == 0 ? take_stats(job, db, &a->before) : status;
}

static int measure_after(const struct job *job, shale_db *db, struct around *a)
{
    int status = take_stats(job, db, &a->after);
    a->device_after = job->device ? device_written(job->dir) : 0;
    return status == 0 && job->floor ? floor_measure(job, 1000, &a->floor) : status;
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
        status = proc_run(job, results);
    }
    if (status == 0) {
        status = measure_after(job, db, around);
    }
    if (status == 0) {
        report_bench(job, results, around);
    }
    for (unsigned i = 0; status == 0 && i < job->processes; i++) {
        bool all_there = strcmp(job->mode, "verify") != 0 || results[i].missing == 0;
        status = results[i].wrong != 0 || !all_there ? EX_DATAERR : 0;
    }
    int closed = shale_close(db);
    if (closed != SHALE_OK && status == 0) {
        status = complain_library(job, closed, "close");
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
    {"fill", bench_main, "put every key once, in random order (--sequential: in order)"},
    {"overwrite", bench_main, "put random keys that are there"},
    {"read", bench_main, "get random keys"},
    {"mixed", bench_main, "get and put random keys (--read-percent, 50)"},
    {"scan", bench_main, "read all entries in order"},
    {"verify", bench_main, "scan once, check each value, count the keys"},
    {"open", floor_opens, "open + get + close, --ops times (1000)"},
    {"feed", feed_main, "write the stanzas of --input, part --part I/N, in small batches"},
    {"watch", watch_main, "read and check stanzas until SIGTERM"},
    {"compare", compare_main, "compare every record with --input, byte for byte"},
};
#define MODES (sizeof modes / sizeof modes[0])

enum {
    F_PROCESSES = 256,
    F_THREADS,
    F_OPS,
    F_SECONDS,
    F_KEYS,
    F_KEY_BYTES,
    F_VALUE_BYTES,
    F_BATCH,
    F_SYNC,
    F_SEED,
    F_READ,
    F_CHECK,
    F_DEVICE,
    F_SEQUENTIAL,
    F_JSON,
    F_FLOOR,
    F_WORKER,
    F_INPUT,
    F_PART,
    F_PROGRESS,
    F_REPORT,
    F_EXCEPT,
    F_ROUNDS
};
static const struct option longs[] = {
    {"batch", 1, NULL, F_BATCH},
    {"check", 0, NULL, F_CHECK},
    {"device", 0, NULL, F_DEVICE},
    {"except", 1, NULL, F_EXCEPT},
    {"floor", 0, NULL, F_FLOOR},
    {"help", 0, NULL, 'h'},
    {"input", 1, NULL, F_INPUT},
    {"json", 0, NULL, F_JSON},
    {"key-bytes", 1, NULL, F_KEY_BYTES},
    {"keys", 1, NULL, F_KEYS},
    {"ops", 1, NULL, F_OPS},
    {"option", 1, NULL, 'o'},
    {"part", 1, NULL, F_PART},
    {"processes", 1, NULL, F_PROCESSES},
    {"progress-file", 1, NULL, F_PROGRESS},
    {"read-percent", 1, NULL, F_READ},
    {"report", 1, NULL, F_REPORT},
    {"rounds", 0, NULL, F_ROUNDS},
    {"seconds", 1, NULL, F_SECONDS},
    {"seed", 1, NULL, F_SEED},
    {"sequential", 0, NULL, F_SEQUENTIAL},
    {"sync", 1, NULL, F_SYNC},
    {"threads", 1, NULL, F_THREADS},
    {"value-bytes", 1, NULL, F_VALUE_BYTES},
    {"version", 0, NULL, 'V'},
    {"worker", 1, NULL, F_WORKER},
    {NULL, 0, NULL, 0},
};

static int help(void)
{
    printf("usage: shale-agent MODE DIR [OPTION...]\nEmulates client activity on a shale database.\n\n");
    for (size_t i = 0; i < MODES; i++) {
        printf("  %-10s %s\n", modes[i].name, modes[i].help);
    }
    printf(
        "\nBenchmarks: --processes P  --threads T  --ops N (together) | --seconds S  --keys N  --key-bytes "
        "16\n"
        "  --value-bytes 100  --batch N  --sync commit|interval|off  --seed N  --read-percent 50  "
        "--sequential\n"
        "  --check (values)  --floor (append + fdatasync beside it)\n"
        "  --device (bytes written to it)  --json  -o NAME=VALUE (the library's)\n"
        "Real input: --input FILE  --part I/N  --batch 8  --rounds (overwrite until SIGUSR1)  --seconds S\n"
        "  --progress-file FILE (goes on where it stopped)  --report FILE  --except KEY\n"
        "Exit status: 0; 65 wrong or missing values; else as shale(1).\n");
    return 0;
}

static bool parse_count(const char *s, uint64_t least, uint64_t most, uint64_t *out)
{
    char *end;
    if (*s < '0' || *s > '9') {
        return false;
    }
    unsigned long long v = strtoull(s, &end, 10);
    uint64_t unit = *end == 'k' ? 1000 : *end == 'M' ? 1000000 : 1;
    end += unit != 1;
    *out = v * unit;
    return *end == '\0' && v <= most / unit && *out >= least;
}

static int usage(const char *what, const char *arg)
{
    fprintf(stderr, "shale-agent: %s: %s (shale-agent --help)\n", arg, what);
    return EX_USAGE;
}

static int set_option(struct job *job, const char *arg)
{
    const char *equals = strchr(arg, '=');
    char name[64];
    if (equals == NULL || (size_t)(equals - arg) >= sizeof name) {
        return usage("-o takes NAME=VALUE", arg);
    }
    memcpy(name, arg, (size_t)(equals - arg));
    name[equals - arg] = '\0';
    return shale_options_set(job->options, name, equals + 1) == SHALE_OK ? 0 : usage(shale_errmsg(), arg);
}

static int set_part(struct job *job, const char *arg)
{
    char tail;
    if (sscanf(arg, "%u/%u%c", &job->part, &job->parts, &tail) != 2 || job->part == 0 ||
        job->part > job->parts) {
        return usage("--part takes I/N", arg);
    }
    return 0;
}

static int set_number(struct job *job, int code, const char *arg)
{
    uint64_t v;
    bool ok = true;
    switch (code) {
    case F_PROCESSES: ok = parse_count(arg, 1, 1024, &v), job->processes = (unsigned)v; break;
    case F_THREADS: ok = parse_count(arg, 1, 1024, &v), job->threads = (unsigned)v; break;
    case F_OPS: ok = parse_count(arg, 1, UINT64_MAX / 2048, &job->ops); break;
    case F_KEYS: ok = parse_count(arg, 1, UINT64_C(1) << 40, &job->keys); break;
    case F_KEY_BYTES: ok = parse_count(arg, 8, 65535, &v), job->key_bytes = (size_t)v; break;
    case F_VALUE_BYTES:
        ok = parse_count(arg, VALUE_LEAST, 256 << 20, &v), job->value_bytes = (size_t)v;
        break;
    case F_BATCH: ok = parse_count(arg, 1, 1000000, &job->batch); break;
    case F_SEED: ok = parse_count(arg, 0, UINT64_MAX, &job->seed); break;
    case F_READ: ok = parse_count(arg, 0, 100, &v), job->read_percent = (unsigned)v; break;
    case F_WORKER: ok = parse_count(arg, 0, 1023, &v), job->worker = (int)v; break;
    default: return usage("no such option, or its argument is missing", arg);
    }
    return ok ? 0 : usage("not a number, or out of range", arg);
}

static int set_flag(struct job *job, int code, const char *arg)
{
    char *end;
    switch (code) {
    case F_CHECK: job->check = true; return 0;
    case F_DEVICE: job->device = true; return 0;
    case F_SEQUENTIAL: job->sequential = true; return 0;
    case F_JSON: job->json = true; return 0;
    case F_FLOOR: job->floor = true; return 0;
    case F_ROUNDS: job->rounds = true; return 0;
    case F_INPUT: job->input = arg; return 0;
    case F_PROGRESS: job->progress_file = arg; return 0;
    case F_REPORT: job->report = arg; return 0;
    case F_EXCEPT: job->except = arg; return 0;
    case F_PART: return set_part(job, arg);
    case 'o': return set_option(job, arg);
    case F_SECONDS:
        job->seconds = strtod(arg, &end);
        return *end == '\0' && job->seconds > 0 && job->seconds < 1e9 ? 0
                                                                      : usage("--seconds takes seconds", arg);
    case F_SYNC:
        job->sync = arg;
        return shale_options_set(job->options, "durable", arg) == SHALE_OK ? 0 : usage(shale_errmsg(), arg);
    default: return set_number(job, code, arg);
    }
}

static int run_mode(struct job *job, int argc, char **argv)
{
    if (argc - optind != 2) {
        return usage("takes MODE and DIR", argc > optind ? argv[optind] : "shale-agent");
    }
    job->mode = argv[optind];
    job->dir = argv[optind + 1];
    job->ops = job->ops != 0 || strcmp(job->mode, "open") == 0 ? job->ops : job->keys;
    for (size_t i = 0; i < MODES; i++) {
        if (strcmp(modes[i].name, job->mode) == 0) {
            return modes[i].run(job);
        }
    }
    return usage("no such mode", job->mode);
}

int main(int argc, char **argv)
{
    struct job job = {.argv = argv,
                      .argc = argc,
                      .mode = "shale-agent",
                      .sync = "off",
                      .processes = 1,
                      .threads = 1,
                      .worker = -1,
                      .keys = 100000,
                      .seed = 1,
                      .batch = 1,
                      .key_bytes = 16,
                      .value_bytes = 100,
                      .read_percent = 50,
                      .part = 1,
                      .parts = 1};
    int code, status = 0;
    signal(SIGPIPE, SIG_IGN);
    if (shale_options_create(&job.options) != SHALE_OK ||
        shale_options_set(job.options, "durable", "off") != SHALE_OK) {
        return complain_library(&job, SHALE_NOMEM, "options");
    }
    /* The workers get these arguments as they are: getopt may reorder its own copy of the list only. */
    char **copy = calloc((size_t)argc + 1, sizeof *copy);
    job.argv = copy;
    if (copy == NULL) {
        return EX_OSERR;
    }
    memcpy(copy, argv, (size_t)argc * sizeof *copy);
    while (status == 0 && (code = getopt_long(argc, argv, "ho:V", longs, NULL)) != -1) {
        if (code == 'h' || code == 'V') {
            status = code == 'h' ? help() : printf("shale-agent %s\n", shale_version()) < 0;
            goto out;
        }
        status = code == '?' ? EX_USAGE : set_flag(&job, code, optarg);
    }
    status = status != 0 ? status : run_mode(&job, argc, argv);
    if (job.worker < 0 && fclose(stdout) != 0 && status == 0) {
        status = EX_IOERR;
    }
out:
    shale_options_destroy(job.options);
    free(copy);
    return status;
}
