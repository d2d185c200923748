/* The parser: walks argv once, with the tables of the globals and, from the command word on, those
 * of the command. Values are checked here, so that a command never sees a malformed one. */
#include "runner/args.h"

#include "core/base/nearest.h"

#include "runner/config.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LETTERS = 64 }; // more than there are letters for short options

const mm_option mm_global_options[] = {
    {.name = "db",
     .type = MM_OPTION_PATH,
     .value = "PATH",
     .help = "database (else $MMRUN_DB, else ./mmrun.db)"},
    {.name = "json", .help = "machine-readable output, see docs/json.md"},
    {.name = "quiet", .aliases = "q", .help = "no talk on stderr but warnings and errors"},
    {.name = "progress",
     .type = MM_OPTION_CHOICE,
     .value = "MODE",
     .choices = "auto,bar,plain,json,none",
     .help = "how a long command shows where it is"},
    {.name = "color",
     .aliases = "colour",
     .type = MM_OPTION_CHOICE,
     .value = "WHEN",
     .choices = "auto,always,never",
     .help = "colour (auto honours NO_COLOR and TERM)"},
    {.name = "version", .aliases = "V", .help = "print the version"},
    {.name = "help", .aliases = "h", .help = "help on a command"},
    {0},
};

typedef struct given {
    const mm_option *option;
    const char *value; /* NULL for flags */
} given;

struct mm_args {
    const mm_command *commands;
    const mm_command *command;
    const char *family;
    given *given;
    size_t n_given;
    const char **values; /* values of all options, those of one option side by side */
    const char **words;  /* positional arguments */
    size_t n_words;
    const mm_option *tables[MM_TABLES_MAX + 1]; /* the globals first */
    size_t n_tables;
};

bool mm_list_next(const char **at, const char **item, size_t *length)
{
    if (!*at || !**at) return false;
    *item = *at;
    const char *comma = strchr(*at, ',');
    *length = comma ? (size_t)(comma - *at) : strlen(*at);
    *at = comma ? comma + 1 : *at + *length;
    return true;
}

size_t mm_command_tables(const mm_command *command, const mm_option *tables[MM_TABLES_MAX])
{
    size_t n = 0;
    if (!command) return 0;
    for (size_t i = 0; i < MM_OPTION_GROUPS_MAX && command->options[i]; i++)
        tables[n++] = command->options[i];
    if (command->config_stage) tables[n++] = mm_config_options(command->config_stage);
    return n;
}

const mm_command *mm_command_find(const mm_command *commands, const char *name)
{
    for (const mm_command *command = commands; command->name; command++)
        if (strcmp(command->name, name) == 0) return command;
    return NULL;
}

/* ---- names ------------------------------------------------------------------------------------
 */

static bool is_same_name(const char *a, size_t a_length, const char *b, size_t b_length)
{
    if (a_length != b_length) return false;
    for (size_t i = 0; i < a_length; i++) {
        const char x = a[i] == '_' ? '-' : a[i];
        const char y = b[i] == '_' ? '-' : b[i];
        if (x != y) return false;
    }
    return true;
}

static bool is_named(const mm_option *option, const char *name, size_t length)
{
    if (is_same_name(option->name, strlen(option->name), name, length)) return true;
    const char *at = option->aliases;
    const char *alias;
    size_t alias_length;
    while (mm_list_next(&at, &alias, &alias_length))
        if (is_same_name(alias, alias_length, name, length)) return true;
    return false;
}

/* No two options of a command share a name; a test sees to it. */
static const mm_option *option_find(const mm_args *args, const char *name, size_t length)
{
    for (size_t t = 0; t < args->n_tables; t++)
        for (const mm_option *option = args->tables[t]; option->name; option++)
            if (is_named(option, name, length)) return option;
    return NULL;
}

static void offer_options(const mm_args *args, mm_nearest *nearest)
{
    for (size_t t = 0; t < args->n_tables; t++)
        for (const mm_option *option = args->tables[t]; option->name; option++) {
            mm_nearest_offer(nearest, option->name, strlen(option->name));
            const char *at = option->aliases;
            const char *alias;
            size_t length;
            while (mm_list_next(&at, &alias, &length))
                if (length > 1) mm_nearest_offer(nearest, alias, length);
        }
}

static const char *help_words(const mm_args *args)
{
    return args->command ? args->command->name : args->family ? args->family : "";
}

static mm_status unknown_option(const mm_args *args, const char *typed, size_t length, mm_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < 63 ? length : 63), typed);
    char stages[64];
    if (args->command && args->command->config_stage &&
        mm_config_stages_of(name, stages, sizeof stages) > 0)
        return MM_FAIL(err, MM_EUSAGE, "`mmrun %s` has no --%s: it belongs to %s",
                       args->command->name, name, stages);
    mm_nearest nearest = {.wanted = name};
    offer_options(args, &nearest);
    const char *dashes = length == 1 ? "-" : "--";
    if (mm_nearest_found(&nearest)) {
        char best[64];
        snprintf(best, sizeof best, "%.*s", (int)nearest.best_length, nearest.best);
        for (char *c = best; *c; c++)
            if (*c == '_') *c = '-';
        return MM_FAIL(err, MM_EUSAGE, "unknown option %s%s; did you mean --%s?", dashes, name,
                       best);
    }
    if (!args->command && !args->family)
        return MM_FAIL(err, MM_EUSAGE,
                       "unknown global option %s%s\noptions of a command stand after it: "
                       "mmrun COMMAND %s%s",
                       dashes, name, dashes, name);
    return MM_FAIL(err, MM_EUSAGE, "unknown option %s%s of `mmrun %s`\n`mmrun help %s` lists them",
                   dashes, name, help_words(args), help_words(args));
}

/* ---- values -----------------------------------------------------------------------------------
 */

/* "--learning-rate": how messages spell an option, in `out`. */
static void option_text(const mm_option *option, char out[64])
{
    snprintf(out, 64, "--%s", option->name);
    for (char *c = out; *c; c++)
        if (*c == '_') *c = '-';
}

static mm_status check_choice(const mm_option *option, const char *name, const char *value,
                              mm_err *err)
{
    mm_nearest nearest = {.wanted = value};
    mm_str listed = {0};
    const char *at = option->choices;
    const char *item;
    size_t length;
    bool is_found = false;
    while (mm_list_next(&at, &item, &length)) {
        if (strlen(value) == length && memcmp(value, item, length) == 0) is_found = true;
        mm_nearest_offer(&nearest, item, length);
        if (listed.length > 0) mm_str_add(&listed, ", ");
        mm_str_add_bytes(&listed, item, length);
    }
    mm_status status = MM_OK;
    if (!is_found && mm_nearest_found(&nearest))
        status = MM_FAIL(err, MM_EUSAGE, "%s must be one of %s, found '%s'; did you mean %.*s?",
                         name, mm_str_text(&listed), value, (int)nearest.best_length, nearest.best);
    else if (!is_found)
        status = MM_FAIL(err, MM_EUSAGE, "%s must be one of %s, found '%s'", name,
                         mm_str_text(&listed), value);
    mm_str_drop(&listed);
    return status;
}

static mm_status check_bounds(const mm_option *option, const char *name, const char *value,
                              double number, mm_err *err)
{
    if (option->min >= option->max || (number >= option->min && number <= option->max))
        return MM_OK;
    // A bound nobody would reach on purpose says nothing to the reader.
    const bool is_open = option->max >= 1e15;
    if (is_open)
        return MM_FAIL(err, MM_EUSAGE, "%s must be at least %.15g, found %s", name, option->min,
                       value);
    return MM_FAIL(err, MM_EUSAGE, "%s must be between %.15g and %.15g, found %s", name,
                   option->min, option->max, value);
}

static mm_status check_one(const mm_option *option, const char *name, const char *value,
                           mm_err *err)
{
    if (option->type == MM_OPTION_CHOICE) return check_choice(option, name, value, err);
    if (option->type != MM_OPTION_INT && option->type != MM_OPTION_REAL) return MM_OK;
    char *end = NULL;
    errno = 0;
    double number;
    if (option->type == MM_OPTION_INT) {
        const long long integer = strtoll(value, &end, 10);
        number = (double)integer;
    } else {
        number = strtod(value, &end);
        if (!isfinite(number)) end = NULL;
    }
    const char *kind = option->type == MM_OPTION_INT ? "a whole number" : "a number";
    if (!end || end == value || *end || *value == ' ')
        return MM_FAIL(err, MM_EUSAGE, "%s must be %s, found '%s'", name, kind, value);
    if (errno == ERANGE && option->type == MM_OPTION_INT)
        return MM_FAIL(err, MM_EUSAGE, "%s is too large: %s", name, value);
    return check_bounds(option, name, value, number, err);
}

static mm_status check_value(const mm_option *option, const char *value, mm_err *err)
{
    char name[64];
    option_text(option, name);
    const bool is_text = option->type == MM_OPTION_TEXT || option->type == MM_OPTION_PATH;
    if (!*value && !is_text) return MM_FAIL(err, MM_EUSAGE, "%s needs a value", name);
    return check_one(option, name, value, err);
}

/* ---- walking argv -----------------------------------------------------------------------------
 */

typedef struct arg_walk {
    mm_args *args;
    int argc;
    char *const *argv;
    int at;
    const mm_option *open; /* repeating option that may take further words */
} arg_walk;

static void keep(mm_args *args, const mm_option *option, const char *value)
{
    // The arrays were made for argc entries: one argv word gives at most one of each.
    args->given[args->n_given++] = (given){.option = option, .value = value};
}

/* A word that looks like an option is no value, unless it is a negative number or "-". */
static bool is_value_word(const char *word)
{
    if (word[0] != '-' || word[1] == '\0') return true;
    return (word[1] >= '0' && word[1] <= '9') || word[1] == '.';
}

static mm_status take_value(arg_walk *walk, const mm_option *option, const char *attached,
                            mm_err *err)
{
    char name[64];
    option_text(option, name);
    if (option->type == MM_OPTION_FLAG) {
        if (attached)
            return MM_FAIL(err, MM_EUSAGE, "%s takes no value, found '%s'", name, attached);
        keep(walk->args, option, NULL);
        return MM_OK;
    }
    const char *value = attached;
    if (!value) {
        const char *what = option->value ? option->value : "VALUE";
        if (walk->at + 1 >= walk->argc)
            return MM_FAIL(err, MM_EUSAGE, "%s needs a value: %s %s", name, name, what);
        value = walk->argv[++walk->at];
        if (!is_value_word(value))
            return MM_FAIL(err, MM_EUSAGE,
                           "%s needs a value (%s), found '%s'\n"
                           "write %s=%s when that is the value",
                           name, what, value, name, value);
    }
    MM_TRY(check_value(option, value, err));
    keep(walk->args, option, value);
    const bool takes_words = walk->args->command && walk->args->command->args_max == 0;
    if (option->repeats && takes_words) walk->open = option;
    return MM_OK;
}

static mm_status take_long(arg_walk *walk, const char *word, mm_err *err)
{
    const char *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) : strlen(word);
    const mm_option *option = length > 1 ? option_find(walk->args, word, length) : NULL;
    if (!option) return unknown_option(walk->args, word, length, err);
    return take_value(walk, option, equals ? equals + 1 : NULL, err);
}

/* "-qo FILE", "-oFILE". */
static mm_status take_short(arg_walk *walk, const char *letters, mm_err *err)
{
    for (; *letters; letters++) {
        const mm_option *option = option_find(walk->args, letters, 1);
        if (!option) return unknown_option(walk->args, letters, 1, err);
        if (option->type != MM_OPTION_FLAG)
            return take_value(walk, option, letters[1] ? letters + 1 : NULL, err);
        // Flags in one word may be more than argv has words: keep each only once.
        bool is_given = false;
        for (size_t i = 0; i < walk->args->n_given; i++)
            is_given |= walk->args->given[i].option == option;
        if (!is_given) MM_TRY(take_value(walk, option, NULL, err));
    }
    return MM_OK;
}

static void set_command(mm_args *args, const mm_command *command)
{
    args->command = command;
    const mm_option *tables[MM_TABLES_MAX];
    const size_t n = mm_command_tables(command, tables);
    for (size_t i = 0; i < n; i++)
        args->tables[args->n_tables++] = tables[i];
}

static bool is_family(const mm_command *commands, const char *word)
{
    const size_t length = strlen(word);
    for (const mm_command *command = commands; command->name; command++)
        if (strncmp(command->name, word, length) == 0 && command->name[length] == ' ') return true;
    return false;
}

/* "mmrun data check" and "mmrun db check": the commands whose second word this is. */
static void add_second_words(const mm_command *commands, const char *word, size_t length,
                             mm_str *out)
{
    for (const mm_command *command = commands; command->name; command++) {
        const char *space = strchr(command->name, ' ');
        if (!space || strlen(space + 1) != length || memcmp(space + 1, word, length) != 0) continue;
        mm_str_addf(out, "%s`mmrun %s`", out->length > 0 ? " or " : "", command->name);
    }
}

static mm_status unknown_command(const mm_args *args, const char *typed, mm_err *err)
{
    mm_nearest nearest = {.wanted = typed};
    for (const mm_command *command = args->commands; command->name; command++) {
        mm_nearest_offer(&nearest, command->name, strlen(command->name));
        const char *space = strchr(command->name, ' ');
        if (space) mm_nearest_offer(&nearest, command->name, (size_t)(space - command->name));
        if (space && !args->family) mm_nearest_offer(&nearest, space + 1, strlen(space + 1));
    }
    if (!mm_nearest_found(&nearest))
        return MM_FAIL(err, MM_EUSAGE, "there is no command '%s'\n`mmrun help%s%s` lists them",
                       typed, args->family ? " " : "", args->family ? args->family : "");
    mm_str meant = {0};
    if (!args->family) add_second_words(args->commands, nearest.best, nearest.best_length, &meant);
    if (meant.length == 0)
        mm_str_addf(&meant, "`mmrun %.*s`", (int)nearest.best_length, nearest.best);
    const mm_status status = MM_FAIL(err, MM_EUSAGE, "there is no command '%s'; did you mean %s?",
                                     typed, mm_str_text(&meant));
    mm_str_drop(&meant);
    return status;
}

static mm_status take_command_word(mm_args *args, const char *word, mm_err *err)
{
    if (!args->family) {
        const mm_command *command = mm_command_find(args->commands, word);
        if (command) {
            set_command(args, command);
        } else if (is_family(args->commands, word)) {
            args->family = word;
        } else {
            return unknown_command(args, word, err);
        }
        return MM_OK;
    }
    char name[128];
    snprintf(name, sizeof name, "%s %s", args->family, word);
    const mm_command *command = mm_command_find(args->commands, name);
    if (!command) return unknown_command(args, name, err);
    args->family = NULL;
    set_command(args, command);
    return MM_OK;
}

static bool is_global(const mm_option *option)
{
    for (const mm_option *row = mm_global_options; row->name; row++)
        if (row == option) return true;
    return false;
}

/* Whether the command may go on to a longer one, as "bench" to "bench train": nothing of the
 * shorter one may be given yet. */
static bool may_grow(const mm_args *args)
{
    if (args->n_words > 0 || !is_family(args->commands, args->command->name)) return false;
    for (size_t i = 0; i < args->n_given; i++)
        if (!is_global(args->given[i].option)) return false;
    return true;
}

static mm_status take_word(arg_walk *walk, const char *word, mm_err *err)
{
    mm_args *args = walk->args;
    if (!args->command) return take_command_word(args, word, err);
    if (may_grow(args)) {
        args->family = args->command->name;
        args->command = NULL;
        args->n_tables = 1; // the global options stay
        return take_command_word(args, word, err);
    }
    if (walk->open) {
        MM_TRY(check_value(walk->open, word, err));
        keep(args, walk->open, word);
        return MM_OK;
    }
    args->words[args->n_words++] = word;
    return MM_OK;
}

static mm_status check_count(const mm_args *args, mm_err *err)
{
    const mm_command *command = args->command;
    if (!command || mm_args_has(args, "help") || mm_args_has(args, "version")) return MM_OK;
    const char *usage = command->usage ? command->usage : "";
    if (args->n_words < command->args_min)
        return MM_FAIL(err, MM_EUSAGE, "`mmrun %s` needs %s\nusage: mmrun %s %s [options]",
                       command->name, usage, command->name, usage);
    if (args->n_words > command->args_max)
        return MM_FAIL(
            err, MM_EUSAGE, "`mmrun %s` takes %s, found '%s'\nusage: mmrun %s%s%s [options]",
            command->name, command->args_max == 0 ? "no argument" : "no further argument",
            args->words[command->args_max], command->name, *usage ? " " : "", usage);
    return MM_OK;
}

/* Puts the entries of one option side by side, in the order given, and copies the values out. */
static void group(mm_args *args)
{
    for (size_t i = 0; i < args->n_given; i++) {
        size_t last = i; // position behind the last earlier entry of the same option
        for (size_t j = i; j-- > 0;)
            if (args->given[j].option == args->given[i].option) {
                last = j + 1;
                break;
            }
        const given moved = args->given[i];
        memmove(&args->given[last + 1], &args->given[last], (i - last) * sizeof moved);
        args->given[last] = moved;
    }
    for (size_t i = 0; i < args->n_given; i++)
        args->values[i] = args->given[i].value;
}

static mm_status walk_all(arg_walk *walk, mm_err *err)
{
    bool is_ended = false; // "--" was seen
    for (walk->at = 1; walk->at < walk->argc; walk->at++) {
        const char *word = walk->argv[walk->at];
        if (!is_ended && strcmp(word, "--") == 0) {
            is_ended = true;
            walk->open = NULL;
        } else if (is_ended || word[0] != '-' || word[1] == '\0') {
            MM_TRY(take_word(walk, word, err));
        } else {
            walk->open = NULL;
            if (word[1] == '-')
                MM_TRY(take_long(walk, word + 2, err));
            else
                MM_TRY(take_short(walk, word + 1, err));
        }
    }
    return check_count(walk->args, err);
}

mm_status mm_args_parse(mm_args **out, const mm_command *commands, int argc, char *const *argv,
                        mm_err *err)
{
    const size_t room = (size_t)argc + LETTERS; // flags may share a word: "-qh"
    mm_args *args = mm_calloc(1, sizeof *args);
    *out = args;
    if (!args) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    args->commands = commands;
    args->tables[args->n_tables++] = mm_global_options;
    args->given = mm_calloc(room, sizeof *args->given);
    args->values = mm_calloc(room, sizeof *args->values);
    args->words = mm_calloc(room, sizeof *args->words);
    if (!args->given || !args->values || !args->words)
        return MM_FAIL(err, MM_ENOMEM, "out of memory");
    arg_walk walk = {.args = args, .argc = argc, .argv = argv};
    const mm_status status = walk_all(&walk, err);
    group(args);
    return status;
}

void mm_args_free(mm_args *args)
{
    if (!args) return;
    mm_free(args->words);
    mm_free(args->values);
    mm_free(args->given);
    mm_free(args);
}

const mm_command *mm_args_command(const mm_args *args) { return args->command; }

const char *mm_args_family(const mm_args *args) { return args->family; }

const char *const *mm_args_list(const mm_args *args, const char *name, size_t *count)
{
    *count = 0;
    size_t first = 0;
    for (size_t i = 0; i < args->n_given; i++)
        if (is_same_name(args->given[i].option->name, strlen(args->given[i].option->name), name,
                         strlen(name))) {
            if (*count == 0) first = i;
            (*count)++;
        }
    return *count > 0 ? &args->values[first] : NULL;
}

const char *mm_args_text(const mm_args *args, const char *name)
{
    size_t count;
    const char *const *values = mm_args_list(args, name, &count);
    return count > 0 ? values[count - 1] : NULL;
}

bool mm_args_has(const mm_args *args, const char *name)
{
    size_t count;
    (void)mm_args_list(args, name, &count);
    return count > 0;
}

int64_t mm_args_int(const mm_args *args, const char *name, int64_t otherwise)
{
    const char *text = mm_args_text(args, name);
    return text ? strtoll(text, NULL, 10) : otherwise;
}

double mm_args_real(const mm_args *args, const char *name, double otherwise)
{
    const char *text = mm_args_text(args, name);
    return text ? strtod(text, NULL) : otherwise;
}

size_t mm_args_count(const mm_args *args) { return args->n_words; }

const char *mm_args_at(const mm_args *args, size_t index)
{
    return index < args->n_words ? args->words[index] : NULL;
}
