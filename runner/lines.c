/* Lines of standard input. What is read ahead is kept here, never in a FILE: so waiting for the
 * next byte can be waiting for a signal too. */
#include "runner/lines.h"

#include "core/base/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Takes the first `length` bytes of what is held, and `skip` more, as the line. */
static void cut_line(mm_lines *lines, size_t length, size_t skip)
{
    mm_str *held = &lines->held;
    mm_str_clear(&lines->line);
    mm_str_add_bytes(&lines->line, held->data, length);
    held->length -= length + skip;
    memmove(held->data, held->data + length + skip, held->length + 1); // with the NUL
    lines->number++;
}

static mm_status check_line(const mm_lines *lines, mm_err *err)
{
    const mm_str *line = &lines->line;
    MM_TRY(mm_str_check(line, err));
    if (line->length > MM_LINE_BYTES_MAX)
        return MM_FAIL(err, MM_ELIMIT, "input line %" PRId64 ": more than %d bytes", lines->number,
                       MM_LINE_BYTES_MAX);
    const size_t valid = mm_utf8_valid(mm_str_text(line), line->length);
    if (valid != line->length)
        return MM_FAIL(err, MM_EFORMAT, "input line %" PRId64 ": not valid UTF-8 at byte %zu",
                       lines->number, valid);
    if (strlen(mm_str_text(line)) != line->length)
        return MM_FAIL(err, MM_EFORMAT, "input line %" PRId64 ": a NUL byte", lines->number);
    return MM_OK;
}

/* A whole line of what is held, or the rest at the end; false: more is needed. */
static bool take_line(mm_lines *lines)
{
    const mm_str *held = &lines->held;
    const char *newline = held->length > 0 ? memchr(held->data, '\n', held->length) : NULL;
    if (!newline && !(lines->is_at_end && held->length > 0)) return false;
    const size_t length = newline ? (size_t)(newline - held->data) : held->length;
    const size_t skip = newline ? 1 : 0;
    cut_line(lines, length, skip);
    while (lines->line.length > 0 && lines->line.data[lines->line.length - 1] == '\r')
        lines->line.data[--lines->line.length] = '\0';
    return true;
}

/* A line without an end: only its beginning is kept, enough to refuse it. */
static void forget_excess(mm_lines *lines)
{
    mm_str *held = &lines->held;
    if (held->length <= 2 * (size_t)MM_LINE_BYTES_MAX) return;
    held->length = MM_LINE_BYTES_MAX + 1;
    held->data[held->length] = '\0';
}

static mm_status wait_for_input(const mm_lines *lines, mm_line_event *event, mm_err *err)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                           {.fd = lines->wake_fd, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0) {
        if (errno != EINTR) return MM_FAIL_ERRNO(err, "cannot wait for standard input");
    }
    *event = fds[1].revents != 0 ? MM_LINE_INTERRUPTED : MM_LINE_READ;
    return MM_OK;
}

static mm_status read_more(mm_lines *lines, mm_err *err)
{
    char bytes[16384];
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return MM_OK;
    if (n < 0) return MM_FAIL_ERRNO(err, "cannot read standard input");
    if (n == 0) lines->is_at_end = true;
    mm_str_add_bytes(&lines->held, bytes, (size_t)n);
    if (n > 0 && !memchr(bytes, '\n', (size_t)n)) forget_excess(lines);
    return mm_str_check(&lines->held, err);
}

mm_status mm_lines_next(mm_lines *lines, const char **line, mm_line_event *event, mm_err *err)
{
    *line = NULL;
    for (;;) {
        if (take_line(lines)) {
            *event = MM_LINE_READ;
            *line = mm_str_text(&lines->line);
            return check_line(lines, err);
        }
        if (lines->is_at_end) {
            *event = MM_LINE_END;
            return MM_OK;
        }
        MM_TRY(wait_for_input(lines, event, err));
        if (*event == MM_LINE_INTERRUPTED) {
            mm_str_clear(&lines->held); // a line that was begun
            return MM_OK;
        }
        MM_TRY(read_more(lines, err));
    }
}

void mm_lines_drop(mm_lines *lines)
{
    mm_str_drop(&lines->held);
    mm_str_drop(&lines->line);
}
