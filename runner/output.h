/* The two streams: data on stdout, talk on stderr with one live line at its end.
 *
 * Whoever writes talk (a message, a warning, the final error) goes through here, so that the live
 * line of a progress display is taken away first and drawn again below. Thread-safe.
 */
#ifndef MM_RUNNER_OUTPUT_H
#define MM_RUNNER_OUTPUT_H

#include "runner/cli.h"

/* Text with control characters made visible and a newline, as one write. `prefix` (our own, such as
 * a coloured "mmrun: ") is written as it is. */
void mm_talk_line(const char *prefix, const char *text, size_t length);
/* Text as it is asked for input after: made visible, without a newline. */
void mm_talk_prompt(const char *text);
/* As mm_say, dim where there is colour: figures beside what is being read. */
void mm_say_dim(const mm_context *context, const char *format, ...) MM_PRINTF(2, 3);
/* Shows `line` (already printable, cut to the terminal by the caller) as the live line, in place of
 * the last one; NULL takes it away. */
void mm_talk_live(const char *line);
/* Columns of the terminal on stderr; 80 when it does not say. Asked each time: windows are resized.
 */
int mm_talk_columns(void);

/* What the environment says of the locale, the first of LC_ALL, LC_CTYPE and LANG that is set, as
 * in the C library; "" when none is. */
const char *mm_locale_name(void);
bool mm_locale_is_utf8(void);

/* Escape sequence of a colour, "" when `on` is false. */
const char *mm_color_code(bool on, mm_color color);
/* Fills the fields of the context that describe the terminals, from the wishes of the command line
 * (color: "auto", "always", "never"; NULL is auto) and the environment. */
void mm_context_terminal(mm_context *context, const char *color);

/* Flushes stdout. MM_EIO names the reason, unless the reader has gone away (EPIPE). MM_ENOMEM when
 * something could not be put together. */
MM_NODISCARD mm_status mm_out_finish(mm_err *err);
/* Remembers that output is incomplete for lack of memory. */
void mm_out_lost(void);

#endif
