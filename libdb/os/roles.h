/* roles.h - the table of the role locks: byte offsets of the file LOCK.
 * rank orders the waits: who holds a role may wait only for one of a higher rank; 0 means that the role is
 * only ever tried, or waited for under a bound of its own. */
#ifndef OS_ROLES_H
#define OS_ROLES_H

/*        name      first  bytes rank  meaning */
#define OS_ROLES(X)                                                                                          \
    X(OPEN, 0, 1, 2, "held while a handle opens or recovers")                                                \
    X(WRITE, 1, 2, 1, "to append to the log and the active memtable")                                        \
    X(NESTED, 2, 1, 1, "by a writer under a lent WRITE")                                                     \
    X(MANIFEST, 3, 1, 4, "to append to the manifest and move the epoch")                                     \
    X(SYNC, 4, 1, 5, "around fdatasync of the log")                                                          \
    X(FLUSH, 5, 1, 3, "to write sealed memtables to level 0")                                                \
    X(PREPARE, 6, 1, 0, "to make the next segment ready")                                                    \
    X(QGATE, 7, 1, 0, "around every call into the queue's metadata")

#define OS_BYTE_WRITE   1  /* WRITE lent to children is this byte alone */
#define OS_BYTE_NESTED  2  /* and this one serialises those who write under it */
#define OS_BYTE_COMPACT 16 /* + level: a compaction holds the bytes from its input to its output level */
#define OS_BYTE_NAMED   (UINT64_C(1) << 32) /* + 62-bit hash of the name: the user's own locks */

/* Byte offsets of the file LIVE. */
#define OS_LIVE_BYTE 0  /* shared, for the life of every read-write handle */
#define OS_LIVE_SLOT 64 /* + row: exclusive, the handle's row in the shared state */

#endif
