/* The commands inside a dialogue: "/temp 0.5", "/save talk.jsonl" … */
#include "runner/chat_parts.h"
#include "runner/output.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_command {
    const char *name;
    const char *argument; // NULL: none; in brackets: may be left out
    const char *help;
    mm_status (*run)(mm_chat *chat, const char *argument, mm_err *err);
} chat_command;

static mm_status run_reset(mm_chat *chat, const char *argument, mm_err *err)
{
    (void)argument;
    (void)err;
    mm_chat_session_reset(chat->session);
    mm_say(chat->context, "The conversation begins anew.");
    return MM_OK;
}

static mm_status run_system(mm_chat *chat, const char *argument, mm_err *err)
{
    MM_TRY(mm_chat_session_set_system(chat->session, argument, err));
    mm_say(chat->context, *argument ? "The system turn is set." : "There is no system turn now.");
    return MM_OK;
}

// A number within the bounds of the option of the same name.
static mm_status parse_number(const char *option, const char *text, double *out, mm_err *err)
{
    const mm_option *row = mm_sample_options;
    while (strcmp(row->name, option) != 0)
        row++;
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    while (end != text && (*end == ' ' || *end == '\t'))
        end++;
    const bool is_number = end != text && *end == '\0' && errno == 0 && isfinite(value);
    const bool is_whole = row->type != MM_OPTION_INT || !(fabs(value - floor(value)) > 0);
    if (!is_number || !is_whole || value < row->min || value > row->max)
        return MM_FAIL(err, MM_EUSAGE, "expected %s from %g to %g, found '%s'",
                       row->type == MM_OPTION_INT ? "a whole number" : "a number", row->min,
                       row->max, text);
    *out = value;
    return MM_OK;
}

static mm_status run_temp(mm_chat *chat, const char *argument, mm_err *err)
{
    MM_TRY(parse_number("temperature", argument, &chat->sampling.temperature, err));
    mm_say(chat->context, "temperature %g", chat->sampling.temperature);
    return MM_OK;
}

static mm_status run_top_p(mm_chat *chat, const char *argument, mm_err *err)
{
    MM_TRY(parse_number("top-p", argument, &chat->sampling.top_p, err));
    mm_say(chat->context, "top-p %g", chat->sampling.top_p);
    return MM_OK;
}

static mm_status run_top_k(mm_chat *chat, const char *argument, mm_err *err)
{
    double value = 0;
    MM_TRY(parse_number("top-k", argument, &value, err));
    chat->sampling.top_k = (int32_t)value;
    mm_say(chat->context, "top-k %d", chat->sampling.top_k);
    return MM_OK;
}

static mm_status run_seed(mm_chat *chat, const char *argument, mm_err *err)
{
    double value = 0;
    MM_TRY(parse_number("seed", argument, &value, err));
    chat->sampling.seed = (uint64_t)value;
    mm_say(chat->context, "seed %llu", (unsigned long long)chat->sampling.seed);
    return MM_OK;
}

static mm_status run_think(mm_chat *chat, const char *argument, mm_err *err)
{
    const bool on = strcmp(argument, "on") == 0;
    if (!on && strcmp(argument, "off") != 0)
        return MM_FAIL(err, MM_EUSAGE, "expected on or off, found '%s'", argument);
    chat->thinks = on;
    mm_say(chat->context, "thinking %s", argument);
    return MM_OK;
}

static mm_status run_regenerate(mm_chat *chat, const char *argument, mm_err *err)
{
    (void)argument;
    char *question = mm_chat_session_take_back(chat->session);
    if (!question) return MM_FAIL(err, MM_EUSAGE, "nothing was asked yet");
    chat->sampling.seed++; // the same one would draw the same answer
    const mm_status status = mm_chat_ask(chat, question, err);
    mm_free(question);
    return status;
}

// Adds a line to a file; what is there stays.
static mm_status append_line(const char *path, mm_str *line, mm_err *err)
{
    mm_file_map map = {0};
    mm_file_appender appender = {0};
    mm_str whole = {0};
    mm_status status = MM_OK;
    if (mm_file_exists(path)) MM_GO(mm_file_map_open(&map, path, err));
    const size_t bytes = map.bytes;
    if (bytes > 0 && map.data[bytes - 1] != '\n') mm_str_add_char(&whole, '\n');
    mm_file_map_drop(&map);
    mm_str_add_bytes(&whole, mm_str_text(line), line->length);
    mm_str_add_char(&whole, '\n');
    MM_GO(mm_str_check(line, err));
    MM_GO(mm_str_check(&whole, err));
    MM_GO(mm_file_appender_open(&appender, path, bytes, err));
    MM_GO(mm_file_appender_add(&appender, whole.data, whole.length, err));
done:
    mm_file_appender_drop(&appender);
    mm_file_map_drop(&map);
    mm_str_drop(&whole);
    return status;
}

static mm_status run_save(mm_chat *chat, const char *argument, mm_err *err)
{
    const size_t turns = mm_chat_session_count(chat->session);
    if (turns == 0) return MM_FAIL(err, MM_EUSAGE, "nothing was said yet");
    mm_str line = {0};
    json_t *row = mm_chat_session_row(chat->session);
    if (!row) return MM_FAIL(err, MM_ENOMEM, "no memory for the conversation");
    mm_json_write(row, &line);
    json_decref(row);
    const mm_status status = append_line(argument, &line, err);
    mm_str_drop(&line);
    if (status == MM_OK)
        mm_say(chat->context,
               "%s: a row with %zu exchange%s was added; `mmrun sft --data` reads it.", argument,
               turns, turns == 1 ? "" : "s");
    return status;
}

static mm_status run_help(mm_chat *chat, const char *argument, mm_err *err);

static mm_status run_quit(mm_chat *chat, const char *argument, mm_err *err)
{
    (void)argument;
    (void)err;
    chat->is_over = true;
    return MM_OK;
}

static const chat_command COMMANDS[] = {
    {"reset", NULL, "begin anew; the system turn stays", run_reset},
    {"system", "[TEXT]", "set the system turn; without a text take it away", run_system},
    {"regenerate", NULL, "another answer to the last question, with the next seed", run_regenerate},
    {"think", "on|off", "let the model think before it answers", run_think},
    {"temp", "X", "temperature of the draws; 0 is greedy", run_temp},
    {"top-p", "X", "share of the likeliest tokens that may be drawn; 1 is off", run_top_p},
    {"top-k", "N", "number of the likeliest tokens that may be drawn; 0 is off", run_top_k},
    {"seed", "N", "seed of the draws", run_seed},
    {"save", "FILE", "add the conversation to a file that sft reads", run_save},
    {"help", NULL, "this list", run_help},
    {"quit", NULL, "leave; Ctrl-D does too", run_quit},
};
enum { N_COMMANDS = sizeof COMMANDS / sizeof COMMANDS[0] };

static mm_status run_help(mm_chat *chat, const char *argument, mm_err *err)
{
    (void)argument;
    (void)err;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        char call[40];
        snprintf(call, sizeof call, "/%s %s", COMMANDS[i].name,
                 COMMANDS[i].argument ? COMMANDS[i].argument : "");
        mm_warn(chat->context, "  %-16s %s", call, COMMANDS[i].help);
    }
    mm_warn(chat->context, "  %-16s %s", "\\", "at the end of a line: the question goes on");
    mm_warn(chat->context, "  %-16s %s", "Ctrl-C", "stops the answer");
    return MM_OK;
}

static mm_status unknown(const char *name, size_t length, mm_err *err)
{
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)(length < sizeof word ? length : sizeof word - 1),
             name);
    mm_nearest nearest = {.wanted = word};
    for (size_t i = 0; i < N_COMMANDS; i++)
        mm_nearest_offer(&nearest, COMMANDS[i].name, strlen(COMMANDS[i].name));
    const bool is_near = mm_nearest_found(&nearest);
    return MM_FAIL(err, MM_EUSAGE,
                   "there is no command '/%s'%s%s%s\n/help lists them; a blank in front makes the "
                   "line a question",
                   word, is_near ? ", did you mean '/" : "", is_near ? nearest.best : "",
                   is_near ? "'?" : "");
}

mm_status mm_chat_command(mm_chat *chat, const char *line, mm_err *err)
{
    const char *name = line + 1;
    const size_t length = strcspn(name, " \t");
    const char *argument = name + length;
    while (*argument == ' ' || *argument == '\t')
        argument++;
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const chat_command *command = &COMMANDS[i];
        if (strlen(command->name) != length || strncmp(command->name, name, length) != 0) continue;
        const bool takes = command->argument != NULL;
        const bool needs = takes && command->argument[0] != '[';
        if (takes ? needs && !*argument : *argument)
            return MM_FAIL(err, MM_EUSAGE, "/%s: expected %s, found '%s'", command->name,
                           takes ? command->argument : "nothing", argument);
        const mm_status status = command->run(chat, argument, err);
        if (status != MM_OK) mm_err_context(err, "/%s", command->name);
        return status;
    }
    return unknown(name, length, err);
}
