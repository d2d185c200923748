/* Help: the overview, one command in full, the list of a family, all from the tables. */
#include "core/base/width.h"
#include "runner/args.h"
#include "runner/commands.h"
#include "runner/config.h"
#include "runner/help.h"

#include <stdio.h>
#include <string.h>

enum { LEFT_MAX = 30, WIDTH_MAX = 100 };

void mm_out_wrapped(const mm_context *context, const char *text, int left, int at)
{
    int width = context->columns > 0 ? context->columns : 80;
    if (width > WIDTH_MAX) width = WIDTH_MAX;
    if (width < left + 20) width = left + 20;
    if (at < left) mm_out("%*s", left - at, "");
    int column = left;
    size_t blanks = 0; // before the next word, not written yet: a line has none at its end
    while (*text) {
        const size_t bytes = strcspn(text, " \n");
        const int columns = mm_text_width(text, bytes);
        if (column > left && column + (int)blanks + columns > width) {
            mm_out("\n%*s", left, "");
            column = left;
            blanks = 0;
        }
        if (bytes > 0) {
            mm_out("%*s%.*s", (int)blanks, "", (int)bytes, text);
            column += (int)blanks + columns;
            blanks = 0;
            text += bytes;
        } else if (*text == '\n') {
            if (!text[1]) break; // the newline below ends the text
            mm_out("\n%*s", left, "");
            column = left;
            blanks = 0;
            text++;
        } else {
            // Several blanks in a row are an indent or an alignment of the author's.
            blanks = strspn(text, " ");
            text += blanks;
        }
    }
    mm_out("\n");
}

static void out_heading(const mm_context *context, const char *text)
{
    mm_out("\n");
    mm_out_color(context, MM_COLOR_BOLD);
    mm_out("%s", text);
    mm_out_color(context, MM_COLOR_NONE);
    mm_out("\n");
}

static void add_dashed(mm_str *out, const char *name, size_t length)
{
    for (size_t i = 0; i < length; i++)
        mm_str_add_char(out, name[i] == '_' ? '-' : name[i]);
}

/* "  -o, --output FILE" */
static void add_option_left(mm_str *out, const mm_option *option)
{
    const char *at = option->aliases;
    const char *alias;
    size_t length;
    char letter = '\0';
    while (mm_list_next(&at, &alias, &length))
        if (length == 1) letter = alias[0];
    if (letter)
        mm_str_addf(out, "  -%c, ", letter);
    else
        mm_str_add(out, "      ");
    mm_str_add(out, "--");
    add_dashed(out, option->name, strlen(option->name));
    if (option->type != MM_OPTION_FLAG)
        mm_str_addf(out, " %s%s", option->value ? option->value : "VALUE",
                    option->repeats ? "..." : "");
}

static void add_option_right(mm_str *out, const mm_option *option)
{
    mm_str_add(out, option->help ? option->help : "");
    // "fp32|bf16" beside the name says it already.
    const bool is_said = option->value && strchr(option->value, '|');
    if (option->choices && !is_said) {
        mm_str_add(out, out->length > 0 ? ": " : "");
        const char *separator = "";
        const char *at = option->choices;
        const char *item;
        size_t length;
        while (mm_list_next(&at, &item, &length)) {
            mm_str_add(out, separator);
            mm_str_add_bytes(out, item, length);
            separator = ", ";
        }
    }
}

/* "[16]" behind the help of a hyperparameter. */
static void add_default(mm_str *out, const mm_config *config, const mm_option *option)
{
    const char *canonical = NULL;
    if (!config || !mm_config_known(config, option->name, &canonical)) return;
    const char *value = mm_config_text(config, canonical);
    if (*value) mm_str_addf(out, " [%s]", value);
}

/* `defaults` is NULL for options that are no hyperparameters. */
static void out_option(const mm_context *context, const mm_option *option,
                       const mm_config *defaults)
{
    mm_str left = {0};
    mm_str right = {0};
    add_option_left(&left, option);
    add_option_right(&right, option);
    add_default(&right, defaults, option);
    int at = mm_text_width(mm_str_text(&left), left.length);
    mm_out("%s", mm_str_text(&left));
    if (at + 2 > LEFT_MAX) {
        mm_out("\n");
        at = 0;
    }
    mm_out_wrapped(context, mm_str_text(&right), LEFT_MAX, at);
    mm_str_drop(&right);
    mm_str_drop(&left);
}

static const char *group_of(const mm_option *option)
{
    return option->group ? option->group : "Options";
}

/* Whether `group` was the heading of an option before (table, row). */
static bool is_group_done(const mm_option *const *tables, size_t table, size_t row,
                          const char *group)
{
    for (size_t t = 0; t <= table; t++)
        for (size_t i = 0; tables[t][i].name && (t < table || i < row); i++)
            if (strcmp(group_of(&tables[t][i]), group) == 0) return true;
    return false;
}

/* The hyperparameters, of which `defaults` has the values, are the last table. */
static void out_group(const mm_context *context, const mm_option *const *tables, size_t n,
                      const char *group, const mm_config *defaults)
{
    out_heading(context, group);
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; tables[t][i].name; i++)
            if (strcmp(group_of(&tables[t][i]), group) == 0)
                out_option(context, &tables[t][i], t + 1 == n ? defaults : NULL);
}

static void out_command_line(const mm_context *context, const mm_command *command, int left)
{
    mm_out("  ");
    mm_out_color(context, MM_COLOR_CYAN);
    mm_out("%s", command->name);
    mm_out_color(context, MM_COLOR_NONE);
    mm_out_wrapped(context, command->summary, left, 2 + (int)strlen(command->name));
}

/* The commands of two words that begin with this one. */
static void out_members(const mm_context *context, const char *family)
{
    const size_t length = strlen(family);
    bool is_first = true;
    for (const mm_command *command = mm_commands; command->name; command++) {
        if (strncmp(command->name, family, length) != 0 || command->name[length] != ' ') continue;
        if (is_first) mm_out("\n");
        is_first = false;
        out_command_line(context, command, 21);
    }
}

void mm_help_command(const mm_context *context, const mm_command *command)
{
    const mm_option *tables[MM_TABLES_MAX];
    const size_t n = mm_command_tables(command, tables);
    mm_out("usage: mmrun %s%s%s%s\n\n", command->name, command->usage ? " " : "",
           command->usage ? command->usage : "", n > 0 ? " [options]" : "");
    mm_out_wrapped(context, command->summary, 0, 0);
    if (command->details) {
        mm_out("\n");
        mm_out_wrapped(context, command->details, 0, 0);
    }
    out_members(context, command->name);
    mm_config *defaults = NULL;
    // Without memory for them the help stands without its defaults.
    const char *stage = command->config_stage;
    if (stage && mm_config_new(&defaults, *stage ? stage : "pretrain", NULL) != MM_OK)
        defaults = NULL;
    // What is only accepted stands behind what does something.
    bool has_idle = false;
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; tables[t][i].name; i++) {
            const char *group = group_of(&tables[t][i]);
            const bool is_idle = group == mm_without_effect;
            has_idle |= is_idle;
            if (!is_idle && !is_group_done(tables, t, i, group))
                out_group(context, tables, n, group, defaults);
        }
    if (has_idle) out_group(context, tables, n, mm_without_effect, NULL);
    mm_config_free(defaults);
    out_heading(context, "Everywhere");
    for (const mm_option *option = mm_global_options; option->name; option++)
        out_option(context, option, NULL);
}

void mm_help_family(const mm_context *context, const char *family)
{
    mm_out("usage: mmrun %s COMMAND\n", family);
    out_members(context, family);
    mm_out("\n`mmrun help %s COMMAND` shows the options of one of them.\n", family);
}

void mm_help_all(const mm_context *context)
{
    mm_out("usage: mmrun [--db PATH] COMMAND [options] [arguments]\n\n");
    mm_out_wrapped(context,
                   "Trains small language models from scratch and keeps every run - curves, "
                   "checkpoints, samples - in one SQLite file.",
                   0, 0);
    const char *group = NULL;
    for (const mm_command *command = mm_commands; command->name; command++) {
        if (!group || strcmp(group, command->group) != 0) out_heading(context, command->group);
        group = command->group;
        out_command_line(context, command, 21);
    }
    mm_out("\n`mmrun help COMMAND` shows the options of one of them.\n");
}

void mm_help_overview(const mm_context *context)
{
    static const char *const LINES[][2] = {
        {"mmrun demo", "the whole pipeline on self-made data, offline, in two minutes"},
        {"mmrun pretrain --data FILE", "train a model from scratch on your text"},
        {"mmrun sft --from last", "teach it to answer; then `lora`, `dpo`, `distill`"},
        {"mmrun sweep --hidden 64,96", "try several settings and compare them"},
        {"mmrun runs", "what was trained; `show`, `compare` and `report` look closer"},
        {"mmrun generate last \"Once\"", "let the newest model write; `chat` talks with it"},
        {"mmrun doctor", "check this machine"},
        {"mmrun help", "all commands"},
    };
    mm_out_color(context, MM_COLOR_BOLD);
    mm_out("mmrun");
    mm_out_color(context, MM_COLOR_NONE);
    mm_out(" " MMRUN_VERSION " - train small language models from scratch, and keep every run\n\n");
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++) {
        mm_out("  ");
        mm_out_color(context, i == 0 ? MM_COLOR_GREEN : MM_COLOR_CYAN);
        mm_out("%s", LINES[i][0]);
        mm_out_color(context, MM_COLOR_NONE);
        mm_out_wrapped(context, LINES[i][1], 31, 2 + (int)strlen(LINES[i][0]));
    }
    mm_out("\nEverything is kept in %s", context->db_path);
    mm_out(" (--db PATH or $MMRUN_DB chooses another file).\n");
}

mm_status mm_cmd_help(const mm_context *context, const mm_args *args, mm_err *err)
{
    if (mm_args_count(args) == 0) {
        mm_help_all(context);
        return MM_OK;
    }
    char name[128];
    const char *second = mm_args_at(args, 1);
    snprintf(name, sizeof name, "%s%s%s", mm_args_at(args, 0), second ? " " : "",
             second ? second : "");
    const mm_command *command = mm_command_find(mm_commands, name);
    if (command) {
        mm_help_command(context, command);
        return MM_OK;
    }
    // Parsed as a command line of its own, a misspelt name gets its suggestion.
    const char *words[] = {"mmrun", mm_args_at(args, 0), second ? second : "--help", "--help"};
    mm_args *parsed = NULL;
    const mm_status status =
        mm_args_parse(&parsed, mm_commands, 4, (char *const *)(uintptr_t)words, err);
    if (status == MM_OK && mm_args_family(parsed))
        mm_help_family(context, mm_args_family(parsed));
    else if (status == MM_OK && mm_args_command(parsed))
        mm_help_command(context, mm_args_command(parsed));
    mm_args_free(parsed);
    return status;
}
