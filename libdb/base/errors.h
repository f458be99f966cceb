/* errors.h - the one table of error statuses: name, code, exit status of a program that ends with it, text.
 * Strings, documentation and the command-line tools' exit statuses all come from here. */
#ifndef BASE_ERRORS_H
#define BASE_ERRORS_H

#define BASE_ERRORS(X)                                                                                       \
    X(OK, 0, 0, "success")                                                                                   \
    X(NOTFOUND, -1, 1, "not found")                                                                          \
    X(BUSY, -2, 75, "locked by another")                                                                     \
    X(INVALID, -3, 64, "invalid argument")                                                                   \
    X(CORRUPT, -4, 65, "corrupt data")                                                                       \
    X(IO, -5, 74, "input/output error")                                                                      \
    X(NOSPC, -6, 73, "no space left on the device")                                                          \
    X(NOMEM, -7, 71, "out of memory")                                                                        \
    X(READONLY, -8, 77, "the handle is read-only")                                                           \
    X(EXISTS, -9, 73, "the database exists already")                                                         \
    X(NODB, -10, 66, "no database there")                                                                    \
    X(MISMATCH, -11, 78, "incompatible version")                                                             \
    X(FORKED, -12, 70, "the handle belongs to the parent process")                                           \
    X(PANIC, -13, 74, "a durable write failed")                                                              \
    X(UNSUPPORTED, -14, 78, "unsupported file system or machine")                                            \
    X(TOOBIG, -15, 64, "too big")                                                                            \
    X(CANCELLED, -16, 75, "cancelled")                                                                       \
    X(PERM, -17, 77, "permission denied")                                                                    \
    X(INUSE, -18, 75, "this thread holds the lock already")

#endif
