/* call.h - how this folder makes a system call: through the door, and again after EINTR. */
#ifndef OS_CALL_H
#define OS_CALL_H

#include "os/os.h"

/* rc = call, or -1 with the errno that the door's hook chose. */
#define OS_CALL(rc, op, fd, name, offset, length, call)                                                      \
    OS_CALL_TO(rc, op, fd, name, NULL, offset, length, call)
#define OS_CALL_TO(rc, op, fd, name, to, offset, length, call)                                               \
    do {                                                                                                     \
        int door_errno_ = os_door(op, fd, name, offset, length);                                             \
        if (door_errno_ != 0) {                                                                              \
            errno = door_errno_;                                                                             \
            (rc) = -1;                                                                                       \
        } else {                                                                                             \
            (rc) = (call);                                                                                   \
            os_done(op, fd, name, to, (int64_t)(rc));                                                        \
        }                                                                                                    \
    } while ((rc) == -1 && errno == EINTR)

/* Reads a small text file of /proc by its path into buf, always terminated; false when it cannot be had. */
bool os_proc_read(const char *path, char *buf, size_t cap);

#ifdef SHALE_DEBUG
/* What the lock audit is told: a role's mutex taken and given back (compaction: OS_ROLE_COUNT + its first
 * level); the bytes behind it locked and unlocked, by whoever does it (the lock queue locks WRITE's through
 * os_lock_try). */
void os_audit_push(const struct os_roles *r, unsigned role, int fd);
void os_audit_pop(const struct os_roles *r, unsigned role);
void os_audit_bytes(int fd, uint64_t start, uint64_t length, bool locked);
void os_audit_forget(const struct os_roles *r);
#else
#define os_audit_push(r, role, fd)                ((void)0)
#define os_audit_pop(r, role)                     ((void)0)
#define os_audit_bytes(fd, start, length, locked) ((void)0)
#define os_audit_forget(r)                        ((void)0)
#endif

#endif
