/* Lines of standard input as they come, from a terminal or a pipe, while signals may interrupt. */
#ifndef MM_RUNNER_LINES_H
#define MM_RUNNER_LINES_H

#include "core/base/mem.h"

enum { MM_LINE_BYTES_MAX = 1 << 20 };

typedef enum mm_line_event {
    MM_LINE_READ = 0,
    MM_LINE_END,        /* of the input */
    MM_LINE_INTERRUPTED /* a signal came first (signals.h) */
} mm_line_event;

/* Zero-initialise but for wake_fd; drop is idempotent. One reader per process. */
typedef struct mm_lines {
    int wake_fd;    /* of mm_signals_install_dialogue */
    mm_str held;    /* bytes read and not handed out */
    mm_str line;    /* the last line */
    int64_t number; /* of the last line, from 1 */
    bool is_at_end;
} mm_lines;

/* Waits for a line. `*line` has no line end, is valid UTF-8 without NUL, and is borrowed until the
 * next call. A line that is not is MM_EFORMAT naming its number, one over MM_LINE_BYTES_MAX
 * MM_ELIMIT; the next call goes on behind it. */
MM_NODISCARD mm_status mm_lines_next(mm_lines *lines, const char **line, mm_line_event *event,
                                     mm_err *err);
void mm_lines_drop(mm_lines *lines);

#endif
