/* options.c - the command line. A workload's own settings hold where nothing else is said. */
#include "agent.h"

#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    F_PROCESSES = 256,
    F_THREADS,
    F_OPS,
    F_SECONDS,
    F_RATE,
    F_KEYS,
    F_KEY_BYTES,
    F_VALUE_BYTES,
    F_COMPRESSIBLE,
    F_NEXTS,
    F_BATCH,
    F_DRIVER,
    F_DRIVERS,
    F_DISTRIBUTION,
    F_WAIT,
    F_SYNC,
    F_SEED,
    F_READ,
    F_CHECK,
    F_DEVICE,
    F_SEQUENTIAL,
    F_JSON,
    F_LIVE,
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
    {"compressible", 1, NULL, F_COMPRESSIBLE},
    {"device", 0, NULL, F_DEVICE},
    {"distribution", 1, NULL, F_DISTRIBUTION},
    {"driver", 1, NULL, F_DRIVER},
    {"drivers", 0, NULL, F_DRIVERS},
    {"duration", 1, NULL, F_SECONDS},
    {"except", 1, NULL, F_EXCEPT},
    {"floor", 0, NULL, F_FLOOR},
    {"help", 0, NULL, 'h'},
    {"input", 1, NULL, F_INPUT},
    {"json", 0, NULL, F_JSON},
    {"key-bytes", 1, NULL, F_KEY_BYTES},
    {"key-size", 1, NULL, F_KEY_BYTES},
    {"keys", 1, NULL, F_KEYS},
    {"live", 0, NULL, F_LIVE},
    {"nexts", 1, NULL, F_NEXTS},
    {"ops", 1, NULL, F_OPS},
    {"option", 1, NULL, 'o'},
    {"part", 1, NULL, F_PART},
    {"processes", 1, NULL, F_PROCESSES},
    {"procs", 1, NULL, F_PROCESSES},
    {"progress-file", 1, NULL, F_PROGRESS},
    {"rate", 1, NULL, F_RATE},
    {"read-percent", 1, NULL, F_READ},
    {"report", 1, NULL, F_REPORT},
    {"rounds", 0, NULL, F_ROUNDS},
    {"seconds", 1, NULL, F_SECONDS},
    {"seed", 1, NULL, F_SEED},
    {"sequential", 0, NULL, F_SEQUENTIAL},
    {"sync", 1, NULL, F_SYNC},
    {"threads", 1, NULL, F_THREADS},
    {"value-bytes", 1, NULL, F_VALUE_BYTES},
    {"value-size", 1, NULL, F_VALUE_BYTES},
    {"version", 0, NULL, 'V'},
    {"wait", 1, NULL, F_WAIT},
    {"worker", 1, NULL, F_WORKER},
    {NULL, 0, NULL, 0},
};

static int help(void)
{
    printf("usage: shale-agent MODE DIR [OPTION...]\n"
           "Emulates client activity on a shale database, or on another store (--driver).\n\nWorkloads:\n");
    workload_help();
    printf("\nOther modes:\n");
    modes_help();
    printf(
        "\n  --driver NAME (--drivers lists them)  --procs P  --threads T  --ops N (together) | --duration "
        "S\n"
        "  --rate N (operations a second that are due, together)  --keys N  --key-size 16  --value-size 100\n"
        "  --compressible 50 (percent)  --batch N  --sync commit|interval|off  --wait queue|backoff|none\n"
        "  --distribution uniform|zipfian|latest  --read-percent 50  --nexts 10  --sequential  --seed N\n"
        "  --check (values)  --floor (append + fdatasync beside it)  --device (bytes written to it)\n"
        "  --json  --live (a line while it runs, as on a terminal)  -o NAME=VALUE (the library's)\n"
        "Real input: --input FILE  --part I/N  --batch 8  --rounds (overwrite until SIGUSR1)  --seconds S\n"
        "  --progress-file FILE (goes on where it stopped)  --report FILE  --except KEY\n"
        "Exit status: 0; 65 wrong or missing values; 69 the store cannot do that; else as shale(1).\n");
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

int usage(const char *what, const char *arg)
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

static int set_distribution(struct job *job, const char *arg)
{
    static const char *const names[] = {[UNIFORM] = "uniform", [ZIPFIAN] = "zipfian", [LATEST] = "latest"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        if (strcmp(names[i], arg) == 0) {
            job->distribution = (enum distribution)i;
            job->distribution_set = true;
            return 0;
        }
    }
    return usage("--distribution takes uniform, zipfian or latest", arg);
}

static int set_driver(struct job *job, const char *arg)
{
    job->driver = driver_find(arg);
    return job->driver != NULL ? 0 : usage("not built in (shale-agent --drivers)", arg);
}

static int set_wait(struct job *job, const char *arg)
{
    job->wait = strcmp(arg, "none") == 0 ? WAIT_NONE : WAIT_DEFAULT;
    return shale_options_set(job->options, "wait", arg) == SHALE_OK ? 0 : usage(shale_errmsg(), arg);
}

static int set_positive(double *out, const char *arg)
{
    char *end;
    *out = strtod(arg, &end);
    return end != arg && *end == '\0' && *out > 0 && *out < 1e9 ? 0 : usage("not a number above 0", arg);
}

static int set_number(struct job *job, int code, const char *arg)
{
    uint64_t v = 0;
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
    case F_COMPRESSIBLE: ok = parse_count(arg, 0, 100, &v), job->compressible = (unsigned)v; break;
    case F_NEXTS: ok = parse_count(arg, 0, 1000000, &v), job->nexts = (unsigned)v; break;
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
    switch (code) {
    case F_CHECK: job->check = true; return 0;
    case F_DEVICE: job->device = true; return 0;
    case F_SEQUENTIAL: job->sequential = true; return 0;
    case F_JSON: job->json = true; return 0;
    case F_LIVE: job->live = true; return 0;
    case F_FLOOR: job->floor = true; return 0;
    case F_ROUNDS: job->rounds = true; return 0;
    case F_INPUT: job->input = arg; return 0;
    case F_PROGRESS: job->progress_file = arg; return 0;
    case F_REPORT: job->report = arg; return 0;
    case F_EXCEPT: job->except = arg; return 0;
    case F_PART: return set_part(job, arg);
    case F_DISTRIBUTION: return set_distribution(job, arg);
    case F_DRIVER: return set_driver(job, arg);
    case F_WAIT: return set_wait(job, arg);
    case 'o': return set_option(job, arg);
    case F_SECONDS: return set_positive(&job->seconds, arg);
    case F_RATE: return set_positive(&job->rate, arg);
    case F_SYNC:
        job->sync = arg;
        return shale_options_set(job->options, "durable", arg) == SHALE_OK ? 0 : usage(shale_errmsg(), arg);
    default: return set_number(job, code, arg);
    }
}

int options_parse(struct job *job, int argc, char **argv, bool *done)
{
    int code, status = 0;
    job->keys = 100000;
    job->seed = 1;
    job->key_bytes = 16;
    job->value_bytes = 100;
    job->read_percent = job->compressible = 50;
    job->nexts = 10;
    job->part = job->parts = 1;
    job->driver = &driver_shale;
    while (status == 0 && (code = getopt_long(argc, argv, "ho:V", longs, NULL)) != -1) {
        if (code == 'h' || code == 'V' || code == F_DRIVERS) {
            *done = true;
            if (code == F_DRIVERS) {
                driver_list();
                return 0;
            }
            return code == 'h' ? help() : printf("shale-agent %s\n", shale_version()) < 0;
        }
        status = code == '?' ? EX_USAGE : set_flag(job, code, optarg);
    }
    if (status == 0 && argc - optind != 2) {
        status = usage("takes MODE and DIR", argc > optind ? argv[optind] : "shale-agent");
    }
    if (status == 0) {
        job->mode = argv[optind];
        job->dir = argv[optind + 1];
    }
    return status;
}

/* Operations of what ends by the clock; lanes share it out without overflow. */
#define ENDLESS (UINT64_C(1) << 40)

static unsigned first_set(unsigned a, unsigned b)
{
    return a != 0 ? a : b != 0 ? b : 1;
}

/* A store that cannot do what the workload needs is told apart from one that did it badly. */
static int check_driver(const struct job *job)
{
    unsigned can = job->driver->can;
    const char *name = job->driver->name;
    if (job->processes > 1 && (can & DRIVER_PROCESSES) == 0) {
        return complain(job, EX_UNAVAILABLE, "%s: one process at a time", name);
    }
    if (job->threads > 1 && (can & DRIVER_THREADS) == 0) {
        return complain(job, EX_UNAVAILABLE, "%s: one thread in a process", name);
    }
    if ((can & DRIVER_ORDER) == 0 && workload_needs_order(job->workload)) {
        return complain(job, EX_UNAVAILABLE, "%s: keeps no order", name);
    }
    if (job->driver != &driver_shale && strcmp(job->sync, "interval") == 0) {
        return complain(job, EX_UNAVAILABLE, "%s: syncs each commit or none", name);
    }
    return 0;
}

int options_complete(struct job *job)
{
    static const struct workload none;
    const struct workload *w = job->workload != NULL ? job->workload : &none;
    if (job->sync == NULL) {
        job->sync = (w->flags & W_DURABLE) != 0 ? "commit" : "off";
        shale_options_set(job->options, "durable", job->sync);
    }
    job->processes = first_set(job->processes, w->processes);
    job->threads = first_set(job->threads, w->threads);
    job->batch = job->batch != 0 ? job->batch : first_set(0, w->batch);
    job->sequential = job->sequential || (w->flags & W_SEQUENTIAL) != 0;
    job->distribution = job->distribution_set ? job->distribution : w->distribution;
    if (job->ops == 0 && job->workload != NULL) {
        uint64_t few = (w->flags & W_FEW) != 0 ? (job->keys + 99) / 100 : job->keys;
        job->ops = job->seconds > 0 && w->shape != FILL ? ENDLESS : few;
    }
    job->live = job->worker < 0 && (job->live || (!job->json && isatty(STDERR_FILENO)));
    values_init(job->compressible);
    if ((w->flags & W_ONE_WRITER) != 0 && job->processes * job->threads < 2) {
        return usage("needs a writer and a reader: two processes or threads", job->mode);
    }
    return job->workload != NULL ? check_driver(job) : 0;
}
