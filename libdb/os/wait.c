/* wait.c - the one wait: until a word in shared memory changes, a wake, a bound, a deadline or an interrupt.
 *
 * A wake is only ever a hint: a waker may be killed between changing what is waited for and waking, so every
 * caller bounds each sleep (max_ns) and looks again. Interrupts are a counter that a signal handler may
 * raise; the sleeper is not woken by it, so an interruptible sleep goes in slices. */
#include "os/call.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>

#define WAIT_SLICE_NS 50000000 /* interrupts are noticed within this */

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

int64_t os_now(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

uint64_t os_wall(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void os_nap(int64_t ns)
{
    os_audit_slow("sleeping");
    struct timespec left = timespec_of(ns > 0 ? ns : 0);
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

void os_yield(void)
{
    (void)sched_yield();
}

struct os_wait os_wait_ms(int64_t timeout_ms, const _Atomic uint32_t *interrupts)
{
    struct os_wait wait = {OS_NEVER, interrupts, 0};
    if (interrupts != NULL) {
        wait.seen = atomic_load_explicit(interrupts, memory_order_acquire);
    }
    if (timeout_ms >= 0) {
        int64_t now = os_now();
        bool fits = timeout_ms < (OS_NEVER - now) / 1000000;
        wait.deadline = timeout_ms == 0 ? 0 : fits ? now + timeout_ms * 1000000 : OS_NEVER;
    }
    return wait;
}

static bool interrupted(const struct os_wait *wait)
{
    return wait->interrupts != NULL &&
           atomic_load_explicit(wait->interrupts, memory_order_acquire) != wait->seen;
}

enum slept { SLEPT_WHOLE, SLEPT_SIGNAL, SLEPT_WOKEN };

/* One slice, until the clock says `until`. No PRIVATE flag: the word is keyed by its file and offset, so that
 * other processes' wakes reach us at whatever address they map it. */
static enum slept sleep_slice(const struct os_word *word, uint32_t value, int64_t until)
{
    struct timespec ts = timespec_of(until);
    int err;
    if (word != NULL) {
        err =
            syscall(SYS_futex, word->word, FUTEX_WAIT_BITSET, value, &ts, NULL, word->bits) == 0 ? 0 : errno;
    } else {
        err = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR ? EINTR : ETIMEDOUT;
    }
    return err == ETIMEDOUT ? SLEPT_WHOLE : err == EINTR ? SLEPT_SIGNAL : SLEPT_WOKEN;
}

int os_sleep_bits(const struct os_wait *wait, const struct os_word *word, uint32_t value, int64_t max_ns)
{
    os_audit_slow("sleeping");
    int64_t now = os_now();
    int64_t end = max_ns < OS_NEVER - now ? now + max_ns : OS_NEVER;
    for (;;) {
        if (interrupted(wait)) {
            return err_set(SHALE_CANCELLED, "interrupted");
        }
        if (wait->deadline != OS_NEVER && now >= wait->deadline) {
            return SHALE_BUSY;
        }
        if (now >= end) {
            return SHALE_OK;
        }
        int64_t until = wait->deadline < end ? wait->deadline : end;
        if (until - now > WAIT_SLICE_NS && wait->interrupts != NULL) {
            until = now + WAIT_SLICE_NS;
        }
        if (sleep_slice(word, value, until) == SLEPT_WOKEN) {
            return SHALE_OK;
        }
        now = os_now();
    }
}

int os_sleep(const struct os_wait *wait, _Atomic uint32_t *word, uint32_t value, int64_t max_ns)
{
    const struct os_word any = {word, FUTEX_BITSET_MATCH_ANY};
    return os_sleep_bits(wait, word != NULL ? &any : NULL, value, max_ns);
}

void os_wake_bits(const struct os_word *word)
{
    atomic_fetch_add_explicit(word->word, 1, memory_order_release);
    (void)syscall(SYS_futex, word->word, FUTEX_WAKE_BITSET, INT32_MAX, NULL, NULL, word->bits);
}

void os_wake(_Atomic uint32_t *word, int count)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}
