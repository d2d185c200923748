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
    // A folder where a file is expected, or the other way round: the user named the wrong thing.
    if (number == EISDIR || number == ENOTDIR) return MM_EUSAGE;
    return MM_EIO;
}

// Appends at `used`, cut where the message ends: a long message loses its tail, never its NUL.
static void append(mm_err *err, int used, const char *text)
{
    const size_t start = used < 0 ? 0 : (size_t)used;
    if (start >= sizeof err->message) return;
    const size_t room = sizeof err->message - 1 - start;
    const size_t length = strlen(text);
    const size_t kept = length < room ? length : room;
    memcpy(err->message + start, text, kept);
    err->message[start + kept] = '\0';
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
    const int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    char reason[128];
    // GNU strerror_r returns the text, which may or may not stand in the buffer.
    const char *text = strerror_r(number, reason, sizeof reason);
    append(err, used, ": ");
    append(err, used + 2, text);
    return status;
}

void mm_err_context(mm_err *err, const char *format, ...)
{
    if (!err) return;
    char old[MM_ERR_MESSAGE_BYTES];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    const int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    append(err, used, ": ");
    append(err, used + 2, old);
}

void mm_assert_fail(const char *expr, const char *file, int line)
{
    fprintf(stderr, "mmrun: internal error: %s:%d: assertion failed: %s\n", file, line, expr);
    abort();
}
