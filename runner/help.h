/* Help texts on stdout, all made from the tables of commands and options. */
#ifndef MM_RUNNER_HELP_H
#define MM_RUNNER_HELP_H

#include "runner/cli.h"

/* `mmrun` alone: what it is and where to start. */
void mm_help_overview(const mm_context *context);
/* `mmrun help`: every command, by purpose. */
void mm_help_all(const mm_context *context);
/* `mmrun data`: the commands that begin with this word. */
void mm_help_family(const mm_context *context, const char *family);
/* `mmrun help pretrain`: usage, details, options by group. */
void mm_help_command(const mm_context *context, const mm_command *command);

/* Text on stdout, wrapped at blanks in a column that begins at `left`; `at` columns of the first
 * line are already filled. Line breaks of the text stay. Ends with a newline. */
void mm_out_wrapped(const mm_context *context, const char *text, int left, int at);

#endif
