/* The parser of the command line: argv against the tables of a command.
 *
 * Global options may stand before or after the command, options and arguments in any order. Every
 * message names the option, what was expected and what was found, and carries a hint after a
 * newline.
 */
#ifndef MM_RUNNER_ARGS_H
#define MM_RUNNER_ARGS_H

#include "runner/cli.h"

/* Options that every command takes; ended by a zeroed row. */
extern const mm_option mm_global_options[];

/* Parses argv[1..]. On failure *out is still set (to be freed), and knows the command as far as it
 * was recognised and the global options seen so far. */
MM_NODISCARD mm_status mm_args_parse(mm_args **out, const mm_command *commands, int argc,
                                     char *const *argv, mm_err *err);
void mm_args_free(mm_args *args);
/* NULL: no command word. */
const mm_command *mm_args_command(const mm_args *args);
/* The first word of a two-word command that stands alone ("data"), or NULL. */
const char *mm_args_family(const mm_args *args);

/* All tables of a command, hyperparameters last; at most MM_TABLES_MAX, returns their number.
 * `command` may be NULL. The globals are not among them. */
enum { MM_TABLES_MAX = MM_OPTION_GROUPS_MAX + 1 };
size_t mm_command_tables(const mm_command *command, const mm_option *tables[MM_TABLES_MAX]);
/* Command by its name; a one-word part of a two-word name does not match. NULL: none. */
const mm_command *mm_command_find(const mm_command *commands, const char *name);

/* Iterates over the entries of a comma list: *at starts as the list and is moved on; false at the
 * end. */
bool mm_list_next(const char **at, const char **item, size_t *length);

#endif
