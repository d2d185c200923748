/* `mmrun completion SHELL`: completion scripts, written from the tables of commands and options.
 *
 * Names of runs are asked of the program itself (`mmrun runs --names`) when the key is pressed. */
#include "runner/args.h"
#include "runner/commands.h"

#include <string.h>

/* Names in the tables are ours: letters, digits, dashes and underscores. */
static void out_dashed(const char *name)
{
    for (; *name; name++)
        mm_out("%c", *name == '_' ? '-' : *name);
}

/* Whether the command's arguments are runs. */
static bool takes_runs(const mm_command *command)
{
    return command->usage &&
           (strncmp(command->usage, "RUN", 3) == 0 || strncmp(command->usage, "[RUN", 4) == 0);
}

static void out_options(const mm_command *command)
{
    const mm_option *tables[MM_TABLES_MAX + 1];
    size_t n = mm_command_tables(command, tables);
    tables[n++] = mm_global_options;
    for (size_t t = 0; t < n; t++)
        for (const mm_option *option = tables[t]; option->name; option++) {
            mm_out(" --");
            out_dashed(option->name);
        }
}

/* First words ("data") or second words of a family ("check synth show"), each once. */
static void out_words(const char *family, size_t length)
{
    const char *last = "";
    size_t last_length = 0;
    for (const mm_command *command = mm_commands; command->name; command++) {
        const char *word = command->name;
        if (family) {
            if (strncmp(word, family, length) != 0 || word[length] != ' ') continue;
            word += length + 1;
        }
        const size_t word_length = strcspn(word, " ");
        // Families stand together in the table.
        if (word_length == last_length && memcmp(word, last, word_length) == 0) continue;
        last = word;
        last_length = word_length;
        mm_out(" %.*s", (int)word_length, word);
    }
}

static bool is_family_start(const mm_command *command)
{
    const size_t length = strcspn(command->name, " ");
    if (!command->name[length]) return false;
    if (command == mm_commands) return true;
    return strncmp(command[-1].name, command->name, length + 1) != 0;
}

static void out_bash_options(bool two_words)
{
    for (const mm_command *command = mm_commands; command->name; command++) {
        if ((strchr(command->name, ' ') != NULL) != two_words) continue;
        mm_out("    '%s%s'*)\n        options='", command->name, two_words ? "" : " ");
        out_options(command);
        mm_out("'\n");
        if (takes_runs(command)) mm_out("        runs=yes\n");
        if (strcmp(command->name, "completion") == 0) mm_out("        words='bash zsh fish'\n");
        mm_out("        ;;\n");
    }
}

static void out_bash(void)
{
    mm_out("# Completion of mmrun for bash: source <(mmrun completion bash)\n"
           "_mmrun() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} first= second= options= words= runs= name i\n"
           "    COMPREPLY=()\n"
           "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
           "        case ${COMP_WORDS[i]} in\n"
           "        --db | --progress | --color) ((i++)) ;;\n"
           "        -*) ;;\n"
           "        *) if [[ -z $first ]]; then first=${COMP_WORDS[i]}\n"
           "           elif [[ -z $second ]]; then second=${COMP_WORDS[i]}; fi ;;\n"
           "        esac\n"
           "    done\n"
           "    case $first in\n"
           "    '') words='");
    out_words(NULL, 0);
    mm_out("' ;;\n");
    for (const mm_command *command = mm_commands; command->name; command++) {
        const char *space = strchr(command->name, ' ');
        if (!space) continue;
        if (!is_family_start(command)) continue;
        const size_t length = (size_t)(space - command->name);
        mm_out("    %.*s) [[ -z $second ]] && words='", (int)length, command->name);
        out_words(command->name, length);
        mm_out("' ;;\n");
    }
    mm_out("    esac\n"
           "    case \"$first $second\" in\n");
    // The first pattern that fits counts: "bench train" stands before "bench".
    out_bash_options(true);
    out_bash_options(false);
    // compgen -W expands its words as the shell would, so names of runs, which come out of a file,
    // do not go through it.
    mm_out("    esac\n"
           "    if [[ $word == -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
           "    elif [[ -n $runs ]]; then\n"
           "        while IFS= read -r name; do\n"
           "            [[ $name == \"$word\"* ]] && COMPREPLY+=(\"$(printf '%%q' \"$name\")\")\n"
           "        done < <(echo last; mmrun runs --names 2>/dev/null)\n"
           "    elif [[ -n $words ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "    fi\n"
           "}\n"
           "complete -o default -F _mmrun mmrun\n");
}

static void out_zsh(void)
{
    // zsh runs bash's completion functions; one script is one thing to keep right.
    mm_out("#compdef mmrun\n"
           "# Completion of mmrun for zsh: source <(mmrun completion zsh)\n"
           "autoload -U +X compinit && compinit\n"
           "autoload -U +X bashcompinit && bashcompinit\n");
    out_bash();
}

/* Text in single quotes of fish. */
static void out_fish_text(const char *text)
{
    mm_out("'");
    for (; *text; text++)
        mm_out("%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
    mm_out("'");
}

static void out_fish_option(const mm_option *option, const char *condition)
{
    mm_out("complete -c mmrun -n \"%s\" -l ", condition);
    out_dashed(option->name);
    if (option->type != MM_OPTION_FLAG) mm_out(option->type == MM_OPTION_PATH ? " -r" : " -x");
    if (option->choices) {
        mm_out(" -a '");
        const char *at = option->choices;
        const char *item;
        size_t length;
        while (mm_list_next(&at, &item, &length))
            mm_out("%.*s ", (int)length, item);
        mm_out("'");
    }
    if (option->help) {
        mm_out(" -d ");
        out_fish_text(option->help);
    }
    mm_out("\n");
}

/* "bench" before "bench train". */
static bool is_shorter(const mm_command *command, const char *name)
{
    const size_t length = strlen(command->name);
    return strncmp(command->name, name, length) == 0 && name[length] == ' ';
}

static void out_fish(void)
{
    mm_out("# Completion of mmrun for fish: mmrun completion fish | source\n");
    for (const mm_option *option = mm_global_options; option->name; option++)
        out_fish_option(option, "true");
    for (const mm_command *command = mm_commands; command->name; command++) {
        const char *space = strchr(command->name, ' ');
        const int length = space ? (int)(space - command->name) : (int)strlen(command->name);
        const char *second = space ? space + 1 : "";
        const bool is_shown = command > mm_commands && is_shorter(command - 1, command->name);
        if (!space || (is_family_start(command) && !is_shown)) {
            mm_out("complete -c mmrun -f -n __fish_use_subcommand -a %.*s", length, command->name);
            if (!space) {
                mm_out(" -d ");
                out_fish_text(command->summary);
            }
            mm_out("\n");
        }
        mm_str text = {0};
        mm_str_addf(&text, "__fish_seen_subcommand_from %.*s", length, command->name);
        if (space) {
            mm_out("complete -c mmrun -f -n \"%s\" -a %s -d ", mm_str_text(&text), second);
            out_fish_text(command->summary);
            mm_out("\n");
            mm_str_addf(&text, "; and __fish_seen_subcommand_from %s", second);
        }
        if (takes_runs(command))
            mm_out("complete -c mmrun -f -n \"%s\" -a \"last (mmrun runs --names "
                   "2>/dev/null)\"\n",
                   mm_str_text(&text));
        const mm_option *tables[MM_TABLES_MAX];
        const size_t n = mm_command_tables(command, tables);
        for (size_t t = 0; t < n; t++)
            for (const mm_option *option = tables[t]; option->name; option++)
                out_fish_option(option, mm_str_text(&text));
        mm_str_drop(&text);
    }
}

mm_status mm_cmd_completion(const mm_context *context, const mm_args *args, mm_err *err)
{
    (void)context;
    const char *shell = mm_args_at(args, 0);
    if (strcmp(shell, "bash") == 0)
        out_bash();
    else if (strcmp(shell, "zsh") == 0)
        out_zsh();
    else if (strcmp(shell, "fish") == 0)
        out_fish();
    else
        return MM_FAIL(err, MM_EUSAGE, "bash, zsh or fish is expected, found '%s'", shell);
    return MM_OK;
}
