/* error.c - the calling thread's error text, and the strings of the error table.
 *
 * The text lives in thread-local memory of fixed size: describing a failure never allocates, so it also works
 * when memory is what failed. A text that is too long is cut at its end; err_wrap puts the context in front,
 * where it is never cut. */
#include "base/base.h"
#include "base/errors.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define X(name, code, exit_status, text)                                                                     \
    _Static_assert(SHALE_##name == (code), "shale.h and errors.h differ");
BASE_ERRORS(X)
#undef X

#define ERROR_TEXT_MAX 2048

static _Thread_local char error_text[ERROR_TEXT_MAX];

struct error_row {
    int code;
    int exit_status;
    const char *name;
    const char *text;
};

static const struct error_row error_rows[] = {
#define X(name, code, exit_status, text) {code, exit_status, "SHALE_" #name, text},
    BASE_ERRORS(X)
#undef X
};

static const struct error_row *error_find(int status)
{
    for (size_t i = 0; i < BASE_COUNT(error_rows); i++) {
        if (error_rows[i].code == status) {
            return &error_rows[i];
        }
    }
    return NULL;
}

const char *shale_version(void)
{
#define ERROR_STR_(x) #x
#define ERROR_STR(x)  ERROR_STR_(x)
    return ERROR_STR(SHALE_VERSION_MAJOR) "." ERROR_STR(SHALE_VERSION_MINOR) "." ERROR_STR(
        SHALE_VERSION_PATCH);
}

const char *shale_strerror(int status)
{
    const struct error_row *row = error_find(status);
    return row != NULL ? row->text : "unknown status";
}

const char *shale_errname(int status)
{
    const struct error_row *row = error_find(status);
    return row != NULL ? row->name : "SHALE_?";
}

const char *shale_errmsg(void)
{
    return error_text;
}

int err_exit_status(int status)
{
    const struct error_row *row = error_find(status);
    return row != NULL ? row->exit_status : 70;
}

void err_clear(void)
{
    error_text[0] = '\0';
}

/* Formats into the text, which the arguments may point into: hence the detour. tail goes behind it. */
BASE_PRINTF(1, 0)
static void error_format(const char *fmt, va_list ap, const char *separator, const char *tail)
{
    char line[ERROR_TEXT_MAX];
    int n = vsnprintf(line, sizeof line, fmt, ap);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    (void)snprintf(line + used, sizeof line - used, "%s%s", separator, tail);
    memcpy(error_text, line, sizeof line);
}

int err_set(int status, const char *fmt, ...)
{
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    error_format(fmt, ap, "", "");
    va_end(ap);
    errno = saved;
    return status;
}

int err_sys(const char *fmt, ...)
{
    int saved = errno;
    char reason[128];
    (void)snprintf(reason, sizeof reason, "%m"); /* strerror is not safe with threads everywhere */
    va_list ap;
    va_start(ap, fmt);
    error_format(fmt, ap, ": ", reason);
    va_end(ap);
    errno = saved;
    return err_from_errno(saved);
}

int err_wrap(int status, const char *fmt, ...)
{
    int saved = errno;
    char tail[ERROR_TEXT_MAX];
    memcpy(tail, error_text, sizeof tail);
    va_list ap;
    va_start(ap, fmt);
    error_format(fmt, ap, tail[0] != '\0' ? ": " : "", tail);
    va_end(ap);
    errno = saved;
    return status;
}

int err_from_errno(int err)
{
    switch (err) {
    case ENOSPC:
    case EDQUOT: return SHALE_NOSPC;
    case ENOMEM: return SHALE_NOMEM;
    case EACCES:
    case EPERM:
    case EROFS: return SHALE_PERM;
    default: return SHALE_IO;
    }
}
