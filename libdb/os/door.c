/* door.c - the names of what passes the door, and the hooks that test builds set. */
#include "os/os.h"

static const char *const op_names[] = {
#define X(n) #n,
    OS_OPS(X)
#undef X
};

static const char *const mark_names[] = {
#define X(n) #n,
    OS_MARKS(X)
#undef X
};

#ifdef SHALE_DEBUG
void (*os_point_hook)(const struct os_point *const *point);

/* The linker's names for the ends of the section; weak: a program may be linked without any point. */
#define LINKER(name) __asm__(name) __attribute__((weak, visibility("hidden")))
extern const struct os_point *const os_points_begin[] LINKER("__start_os_points");
extern const struct os_point *const os_points_end[] LINKER("__stop_os_points");

const struct os_point *const *os_points(size_t *count)
{
    /* cppcheck-suppress comparePointers */
    *count = (size_t)(os_points_end - os_points_begin);
    return os_points_begin;
}
#endif

const char *os_op_name(enum os_op op)
{
    return (unsigned)op < OS_OP_COUNT ? op_names[op] : "?";
}

const char *os_mark_name(enum os_mark mark)
{
    return (unsigned)mark < OS_MARK_COUNT ? mark_names[mark] : "?";
}

#ifdef SHALE_DEBUG
int (*os_door_hook)(enum os_op op, int fd, const char *name, uint64_t offset, size_t *length);
void (*os_mark_hook)(enum os_mark mark);
void (*os_done_hook)(enum os_op op, int fd, const char *name, const char *to, int64_t result);
#endif
