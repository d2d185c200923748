/* Errors: status texts, message formatting, assertion failure. No state, safe from any thread. */
#include "core/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int exit_code;
} STATUSES[] = {
#define X(name, text, code) {text, code},
    MM_STATUS_LIST(X)
#undef X
};

const char *mm_status_text(mm_status status)
{
    return status < MM_STATUS_COUNT ? STATUSES[status].text : "unknown status";
}

int mm_status_exit_code(mm_status status)
{
    return status < MM_STATUS_COUNT ? STATUSES[status].exit_code : 1;
}

mm_status mm_err_set(mm_err *err, mm_status status, const char *file, int line, const char *format,
                     ...)
{
    MM_ASSERT(status != MM_OK);
    if (!err) return status;
    err->status = status;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return status;
}

static mm_status status_of_errno(int number)
{
    if (number == ENOSPC || number == EDQUOT || number == EFBIG) return MM_ENOSPC;
    if (number == ENOMEM) return MM_ENOMEM;
    if (number == ENOENT) return MM_ENOTFOUND;
    return MM_EIO;
}

mm_status mm_err_set_errno(mm_err *err, const char *file, int line, const char *format, ...)
{
    const int number = errno;
    const mm_status status = status_of_errno(number);
    if (!err) return status;
    err->status = status;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (used < 0) used = 0;
    if ((size_t)used < sizeof err->message) {
        char reason[128];
        // GNU strerror_r returns the text, which may or may not stand in the buffer.
        const char *text = strerror_r(number, reason, sizeof reason);
        snprintf(err->message + used, sizeof err->message - (size_t)used, ": %s", text);
    }
    return status;
}

void mm_err_context(mm_err *err, const char *format, ...)
{
    if (!err) return;
    char old[MM_ERR_MESSAGE_BYTES];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (used < 0) used = 0;
    if ((size_t)used < sizeof err->message)
        snprintf(err->message + used, sizeof err->message - (size_t)used, ": %s", old);
}

void mm_assert_fail(const char *expr, const char *file, int line)
{
    fprintf(stderr, "mmrun: internal error: %s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
