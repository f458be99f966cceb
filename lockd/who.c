/* who.c - a holder or a waiter, and a lock, in words. */
#include "lockd.h"

#include <time.h>

int who_append(struct buf *text, const shale_ticket *t)
{
    char clock[16] = "?";
    struct tm tm;
    time_t seconds = (time_t)(t->since_ns / 1000000000u);
    if (t->pid == 0) {
        return buf_printf(text, "another process"); /* too new a waiter, or one that left no record */
    }
    if (localtime_r(&seconds, &tm) != NULL) {
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    }
    uint64_t now = os_wall();
    const char *state = t->stopped                                       ? " (stopped)"
                        : os_has_ended(t->pid, t->pid_ns, t->start_time) ? " (ended)"
                                                                         : "";
    int rc = buf_printf(text, "%s (pid %lld)%s since %s (%.1f s)", t->program, (long long)t->pid, state,
                        clock, now > t->since_ns ? (double)(now - t->since_ns) / 1e9 : 0.0);
    if (rc == SHALE_OK && t->label[0] != '\0') {
        rc = buf_printf(text, ", label \"%s\"", t->label);
    }
    return rc;
}

int lock_append(struct buf *text, const char *name)
{
    return name == NULL || name[0] == '\0' ? buf_printf(text, "the write lock")
                                           : buf_printf(text, "the lock \"%s\"", name);
}
