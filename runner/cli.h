/* The command line: one table per command drives parsing, help, error texts and completion.
 *
 * Hyperparameters are not written twice: their options are generated from the table in config.c.
 * stdout is data, stderr is talk. A command returns a status; only main.c turns it into an exit
 * code.
 */
#ifndef MM_RUNNER_CLI_H
#define MM_RUNNER_CLI_H

#include "core/base/mem.h"

#include <jansson.h>

typedef enum mm_option_type {
    MM_OPTION_FLAG = 0, /* no value */
    MM_OPTION_TEXT,
    MM_OPTION_INT,
    MM_OPTION_REAL,
    MM_OPTION_CHOICE, /* one of `choices` */
    MM_OPTION_PATH
} mm_option_type;

typedef struct mm_option {
    const char *name;    /* "data": --data; dashes and underscores are the same */
    const char *aliases; /* "data_path,file" or NULL */
    mm_option_type type;
    const char *value; /* shown in help: "FILE"; NULL for flags */
    const char *help;
    const char *group;   /* help heading; NULL = "Options" */
    const char *choices; /* "cosine,constant" */
    double min;          /* bounds of INT and REAL, checked when min < max */
    double max;
    bool repeats; /* may be given several times (also "a b" after one: --data A --data B) */
} mm_option;

/* Parsed arguments; strings are borrowed from argv or live as long as the mm_args. */
typedef struct mm_args mm_args;

/* Last value given, or NULL. `name` as in the table. */
const char *mm_args_text(const mm_args *args, const char *name);
/* All values in order; *count 0 when not given. */
const char *const *mm_args_list(const mm_args *args, const char *name, size_t *count);
bool mm_args_has(const mm_args *args, const char *name);
int64_t mm_args_int(const mm_args *args, const char *name, int64_t otherwise);
double mm_args_real(const mm_args *args, const char *name, double otherwise);
size_t mm_args_count(const mm_args *args);                 /* positional arguments */
const char *mm_args_at(const mm_args *args, size_t index); /* NULL beyond the end */

typedef enum mm_progress_mode {
    MM_PROGRESS_AUTO = 0,
    MM_PROGRESS_BAR,
    MM_PROGRESS_PLAIN,
    MM_PROGRESS_JSON,
    MM_PROGRESS_NONE
} mm_progress_mode;

/* Global options and the process' surroundings, the same for every command. */
typedef struct mm_context {
    const char *db_path; /* --db, $MMRUN_DB, ./mmrun.db */
    bool json;
    bool quiet;
    mm_progress_mode progress;
    bool color_out; /* colour on stdout, stderr */
    bool color_err;
    int argc; /* as given, for the record of the command line */
    char **argv;
    const char *program; /* path of the running binary, for children */
} mm_context;

typedef mm_status (*mm_command_fn)(const mm_context *context, const mm_args *args, mm_err *err);

enum { MM_OPTION_GROUPS_MAX = 4 };
typedef struct mm_command {
    const char *name;    /* "pretrain", or two words: "data synth" */
    const char *group;   /* heading in the list of commands */
    const char *summary; /* one line */
    const char *usage;   /* positional part: "RUN [RUN...]" */
    const char *details; /* paragraphs and examples after the options; may be NULL */
    const mm_option *options[MM_OPTION_GROUPS_MAX]; /* tables, each ended by a zeroed row */
    size_t args_min;
    size_t args_max; /* SIZE_MAX: any */
    mm_command_fn run;
} mm_command;

/* Ended by a zeroed row; in commands.c. */
extern const mm_command mm_commands[];

/* Parses and runs. Prints help and errors (or a JSON error object with --json); returns the exit
 * code. */
int mm_cli_main(int argc, char **argv);

/* Talk on stderr, silenced by --quiet: "mmrun: ..." is not added. One line per call, newline added.
 * Control characters in it are made visible. */
void mm_say(const mm_context *context, const char *format, ...) MM_PRINTF(2, 3);
/* Warnings are not silenced. */
void mm_warn(const mm_context *context, const char *format, ...) MM_PRINTF(2, 3);
/* Data on stdout: text as it is made by the command; write errors surface at the end as MM_EIO
 * (EPIPE is silent). */
void mm_out(const char *format, ...) MM_PRINTF(1, 2);
void mm_out_text(const mm_str *text);
void mm_out_json(const json_t *value); /* one line per value */

/* A plain table for people: columns aligned by display width (CJK counts two), numbers
 * right-aligned. */
typedef struct mm_table mm_table;
MM_NODISCARD mm_status mm_table_new(mm_table **out, const char *const *headers, size_t n,
                                    mm_err *err);
void mm_table_cell(mm_table *table, const char *format, ...)
    MM_PRINTF(2, 3);                                             /* fills rows left to right */
void mm_table_print(mm_table *table, const mm_context *context); /* and frees */

/* "1.23M", "4.5k", "1.2 GiB": for people. */
void mm_count_text(double value, char out[24]);
void mm_bytes_text(double bytes, char out[24]);

#endif
