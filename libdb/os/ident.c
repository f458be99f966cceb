/* ident.c - who we are, on which boot of which machine, and random bytes.
 *
 * Pids, start times and namespaces are for people to read: no lock and no decision rests on them [I-2]. */
#include "os/call.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/random.h>

bool os_proc_read(const char *path, char *buf, size_t cap)
{
    ssize_t n = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        do {
            n = read(fd, buf, cap - 1);
        } while (n < 0 && errno == EINTR);
        (void)close(fd);
    }
    buf[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* Fields 3, 20 and 22 of a stat line. */
struct proc_stat {
    char state;
    long threads;
    uint64_t start_time;
};

/* What stands behind so many blanks; NULL: there are fewer. */
static const char *skip_fields(const char *p, unsigned blanks)
{
    for (; p != NULL && blanks > 0; blanks--) {
        p = strchr(p, ' ');
        p = p == NULL ? NULL : p + 1;
    }
    return p;
}

/* The name in field 2 may hold blanks and parentheses, so the count starts behind the last one. */
static bool parse_stat(const char *line, struct proc_stat *s)
{
    const char *p = strrchr(line, ')');
    const char *state = skip_fields(p, 1), *threads = skip_fields(p, 18), *start = skip_fields(p, 20);
    if (start == NULL || *start < '0' || *start > '9') {
        return false;
    }
    *s = (struct proc_stat){*state, strtol(threads, NULL, 10), strtoull(start, NULL, 10)};
    return true;
}

static uint64_t own_pid_ns(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* The first thread has the process's name; asked for it, the kernel opens no file. */
static bool own_name(int64_t pid, char *name, size_t cap)
{
    if (gettid() == pid && cap >= 16) {
        memset(name, 0, cap);
        return prctl(PR_GET_NAME, name) == 0;
    }
    return os_proc_read("/proc/self/comm", name, cap);
}

int64_t os_pid(void)
{
    return getpid();
}

void os_self_brief(struct os_identity *id)
{
    char line[64];
    *id = (struct os_identity){.pid = os_pid()};
    if (own_name(id->pid, line, sizeof line)) {
        for (size_t i = 0; i < sizeof id->program - 1 && line[i] != '\0' && line[i] != '\n'; i++) {
            id->program[i] = line[i];
        }
    }
}

static void read_self(struct os_identity *id)
{
    char line[1024];
    struct proc_stat mine;
    os_self_brief(id);
    id->pid_ns = own_pid_ns();
    if (os_proc_read("/proc/self/stat", line, sizeof line) && parse_stat(line, &mine)) {
        id->start_time = mine.start_time;
    }
}

/* What was read once stays valid for whoever still points to it: a forked child puts its own in front. No
 * lock, because the child may have been forked while another thread held it. */
struct self {
    struct os_identity id;
    struct self *older;
};

const struct os_identity *os_self(void)
{
    static _Atomic(struct self *) newest;
    static struct os_identity fallback; /* out of memory: nothing is known */
    struct self *mine = NULL;
    struct self *now = atomic_load_explicit(&newest, memory_order_acquire);
    while (now == NULL || now->id.pid != getpid()) {
        if (mine == NULL) {
            mine = base_alloc_refused() ? NULL : malloc(sizeof *mine);
            if (mine == NULL) {
                return &fallback;
            }
            read_self(&mine->id);
        }
        mine->older = now;
        if (atomic_compare_exchange_strong_explicit(&newest, &now, mine, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            return &mine->id;
        }
    }
    free(mine);
    return &now->id;
}

static bool parse_boot_id(const char *text, unsigned char got[16])
{
    unsigned digits = 0;
    for (const char *p = text; *p != '\0' && digits < 32; p++) {
        const char *hex = "0123456789abcdef", *at = strchr(hex, *p | 0x20);
        if (at != NULL) {
            unsigned nibble = (unsigned)(at - hex);
            got[digits / 2] = (unsigned char)(digits % 2 == 0 ? nibble << 4 : got[digits / 2] | nibble);
            digits++;
        }
    }
    return digits == 32;
}

/* A process does not outlive its boot: read once. Two threads that read at once store the same. */
void os_boot_id(unsigned char id[16])
{
    static _Atomic uint64_t known[2];
    static _Atomic bool read;
    char text[64];
    unsigned char got[16] = {0};
    if (atomic_load_explicit(&read, memory_order_acquire)) {
        put_u64(got, atomic_load_explicit(&known[0], memory_order_relaxed));
        put_u64(got + 8, atomic_load_explicit(&known[1], memory_order_relaxed));
    } else if (!os_proc_read("/proc/sys/kernel/random/boot_id", text, sizeof text) ||
               !parse_boot_id(text, got)) {
        memset(got, 0, sizeof got);
    } else {
        atomic_store_explicit(&known[0], get_u64(got), memory_order_relaxed);
        atomic_store_explicit(&known[1], get_u64(got + 8), memory_order_relaxed);
        atomic_store_explicit(&read, true, memory_order_release);
    }
    memcpy(id, got, sizeof got);
}

static bool look_at(int64_t pid, uint64_t pid_ns, struct proc_stat *s)
{
    char path[64], line[1024];
    if (pid <= 0 || pid_ns != os_self()->pid_ns) {
        return false; /* the number means another process here */
    }
    (void)snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    return os_proc_read(path, line, sizeof line) && parse_stat(line, s);
}

static bool same_process(const struct proc_stat *s, uint64_t start_time)
{
    return start_time == 0 || s->start_time == start_time;
}

/* Nobody may be let see it in /proc; a process whose first thread has ended is a zombie with more threads. */
bool os_has_ended(int64_t pid, uint64_t pid_ns, uint64_t start_time)
{
    struct proc_stat s;
    if (pid <= 0 || pid > INT32_MAX || pid_ns != os_self()->pid_ns) {
        return false;
    }
    if (!look_at(pid, pid_ns, &s)) {
        return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
    }
    return !same_process(&s, start_time) || (s.state == 'Z' && s.threads <= 1);
}

bool os_is_stopped(int64_t pid, uint64_t pid_ns, uint64_t start_time)
{
    struct proc_stat s;
    return look_at(pid, pid_ns, &s) && same_process(&s, start_time) && (s.state == 'T' || s.state == 't');
}

/* Before the kernel's pool is ready, or where the call is filtered, clock, pid and an address must do: what
 * is asked for here are salts and identities, not keys. */
void os_random(void *buf, size_t size)
{
    unsigned char *p = buf;
    while (size > 0) {
        ssize_t n = getrandom(p, size, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        p += n;
        size -= (size_t)n;
    }
    uint64_t state =
        size > 0 ? os_wall() ^ (uint64_t)os_now() << 20 ^ (uint64_t)getpid() << 44 ^ (uintptr_t)&state : 0;
    for (; size > 0; size--) {
        *p++ = (unsigned char)prng_next(&state);
    }
}

size_t os_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

uint64_t os_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? (uint64_t)pages * os_page_size() : 0;
}

unsigned os_cpus(void)
{
    cpu_set_t set;
    int n =
        sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}
