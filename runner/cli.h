/* The command line: one table per command drives parsing, help, error texts and completion.
 *
 * Hyperparameters are not written twice: their options are generated from the table in config.c.
 * stdout is data, stderr is talk. A command returns a status; only main.c turns it into an exit
 * code.
 */
#ifndef MM_RUNNER_CLI_H
#define MM_RUNNER_CLI_H

#include "core/base/mem.h"
#include "core/base/number.h"

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
    const char *aliases; /* "data_path,file" or NULL; one letter is a short option: "o" is -o */
    mm_option_type type;
    const char *value; /* shown in help: "FILE"; NULL for flags */
    const char *help;
    const char *group;   /* help heading; NULL = "Options" */
    const char *choices; /* "cosine,constant" */
    double min;          /* bounds of INT and REAL, checked when min < max */
    double max;
    bool repeats; /* may be given several times: --data A --data B. A command without positional
                     arguments also takes --data A B */
} mm_option;

/* Parsed arguments; strings are borrowed from argv. Values are already checked against type, bounds
 * and choices. A name the command does not have counts as not given, so that code shared by several
 * commands may ask. */
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
    bool utf8_out; /* box and block characters may be used on stdout, stderr */
    bool utf8_err;
    int columns; /* width of the terminal on stdout; 0: not a terminal */
    int argc;    /* as given, for the record of the command line */
    char **argv;
    const char *program; /* path of the running binary, for children */
} mm_context;

/* A command that fails says why in `err`. What stands after the first newline of the message is a
 * hint: the next step, printed on lines of its own ("no such run 'x'\nmmrun runs lists them"). */
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
    /* Also takes the hyperparameters of this stage, "" of every stage, NULL none. Their table is
     * made by mm_config_options() at run time and so cannot stand in a static initialiser: parser,
     * help and completion add it as the last table. Their values are text here (a sweep takes comma
     * lists); mm_config_set checks them. */
    const char *config_stage;
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

/* Data on stdout. Write errors surface at the end of the program as MM_EIO (EPIPE is silent); a
 * long command stops early when mm_out_failed(). mm_out makes control characters visible (newline
 * and tab stay), so that nothing from a file or a model steers the terminal; colour goes through
 * mm_out_color. mm_out_text writes the bytes as they are, for output that must be exact. */
void mm_out(const char *format, ...) MM_PRINTF(1, 2);
void mm_out_text(const mm_str *text);
void mm_out_json(const json_t *value); /* one line per value; numbers in their shortest form */
void mm_out_flush(void);
bool mm_out_failed(void);

typedef enum mm_color {
    MM_COLOR_NONE = 0, /* back to normal */
    MM_COLOR_BOLD,
    MM_COLOR_DIM,
    MM_COLOR_RED,
    MM_COLOR_GREEN,
    MM_COLOR_YELLOW,
    MM_COLOR_CYAN
} mm_color;
void mm_out_color(const mm_context *context, mm_color color); /* nothing when colour is off */

/* Values for --json: invalid UTF-8 becomes U+FFFD, NULL and NaN become null, an infinity the text
 * "Infinity". New references. */
json_t *mm_json_of_text(const char *text);
json_t *mm_json_of_real(double value);
json_t *mm_json_of_time(int64_t epoch_ms); /* ISO 8601; 0 is null */

/* A plain table for people: columns aligned by display width (CJK counts two), numbers
 * right-aligned. */
typedef struct mm_table mm_table;
MM_NODISCARD mm_status mm_table_new(mm_table **out, const char *const *headers, size_t n,
                                    mm_err *err);
void mm_table_cell(mm_table *table, const char *format, ...)
    MM_PRINTF(2, 3);                                  /* fills rows left to right */
void mm_table_color(mm_table *table, mm_color color); /* of the last cell */
/* On a terminal that is too narrow columns with rank > 0 are left out, highest rank first; then the
 * widest column is cut with an ellipsis. */
void mm_table_drops(mm_table *table, size_t column, int rank);
void mm_table_indent(mm_table *table, int columns); /* blanks in front of every line */
/* Prints and frees. Out of memory prints nothing and surfaces at the end, as a write error does. */
void mm_table_print(mm_table *table, const mm_context *context);

#endif
