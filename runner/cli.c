/* From argv to an exit code: surroundings, parsing, running, and the one place that prints errors.
 */
#include "runner/cli.h"

#include "core/nn/engine.h"
#include "runner/args.h"
#include "runner/help.h"
#include "runner/output.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static mm_progress_mode progress_mode(const mm_args *args, const mm_context *context)
{
    static const char *const NAMES[] = {"auto", "bar", "plain", "json", "none"};
    const char *wanted = mm_args_text(args, "progress");
    mm_progress_mode mode = MM_PROGRESS_AUTO;
    for (int i = 0; wanted && i < (int)(sizeof NAMES / sizeof NAMES[0]); i++)
        if (strcmp(wanted, NAMES[i]) == 0) mode = (mm_progress_mode)i;
    if (mode != MM_PROGRESS_AUTO) return mode;
    if (context->quiet) return MM_PROGRESS_NONE;
    const char *term = getenv("TERM");
    const bool is_live =
        isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0 && !getenv("CI");
    if (is_live) return MM_PROGRESS_BAR;
    return context->json ? MM_PROGRESS_JSON : MM_PROGRESS_PLAIN;
}

/* Path of the running binary: children are started with it whatever the folder and PATH are by
 * then. */
static const char *program_path(const char *given)
{
    static char path[PATH_BYTES];
    const ssize_t bytes = readlink("/proc/self/exe", path, sizeof path - 1);
    if (bytes <= 0) return given;
    path[bytes] = '\0';
    return path;
}

static void fill_context(mm_context *context, const mm_args *args)
{
    const char *db = args ? mm_args_text(args, "db") : NULL;
    const char *from_env = getenv("MMRUN_DB");
    context->db_path = db ? db : from_env && *from_env ? from_env : "./mmrun.db";
    if (args) {
        context->json = mm_args_has(args, "json");
        context->quiet = mm_args_has(args, "quiet");
        mm_context_terminal(context, mm_args_text(args, "color"));
        context->progress = progress_mode(args, context);
    }
}

/* --json counts wherever it stands, also behind the word that could not be parsed. */
static bool is_json_wanted(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0) return true;
    return false;
}

static void print_error(const mm_context *context, const mm_err *err)
{
    const char *message = err->message[0] ? err->message : mm_status_text(err->status);
    const char *newline = strchr(message, '\n');
    const int length = newline ? (int)(newline - message) : (int)strlen(message);
    mm_talk_live(NULL);
    mm_talk_line(context->color_err ? "\x1b[31mmmrun:\x1b[0m " : "mmrun: ", message,
                 (size_t)length);
    while (newline) {
        const char *hint = newline + 1;
        newline = strchr(hint, '\n');
        const size_t bytes = newline ? (size_t)(newline - hint) : strlen(hint);
        mm_talk_line("       ", hint, bytes); // under the message, beside "mmrun: "
    }
    if (!context->json) return;
    mm_str text = {0};
    mm_str_add_bytes(&text, message, (size_t)length);
    const char *first_hint = message[length] ? message + length + 1 : NULL;
    json_t *object =
        json_pack("{s:{s:s, s:o, s:o, s:i}}", "error", "status", mm_status_text(err->status),
                  "message", mm_json_of_text(mm_str_text(&text)), "hint",
                  mm_json_of_text(first_hint), "exit_code", mm_status_exit_code(err->status));
    mm_out_json(object);
    json_decref(object);
    mm_str_drop(&text);
}

static mm_status run(const mm_context *context, const mm_args *args, mm_err *err)
{
    const mm_command *command = mm_args_command(args);
    if (mm_args_has(args, "version")) {
        mm_out("mmrun " MMRUN_VERSION "\n");
    } else if (mm_args_has(args, "help")) {
        if (command)
            mm_help_command(context, command);
        else if (mm_args_family(args))
            mm_help_family(context, mm_args_family(args));
        else
            mm_help_all(context);
    } else if (!command) {
        if (mm_args_family(args))
            mm_help_family(context, mm_args_family(args));
        else
            mm_help_overview(context);
    } else {
        MM_TRY(mm_engine_isa_check(err));
        return command->run(context, args, err);
    }
    return MM_OK;
}

int mm_cli_main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); // a reader that goes away is a write error, and a quiet one
    mm_context context = {.argc = argc, .argv = argv};
    context.program = program_path(argc > 0 ? argv[0] : "mmrun");
    mm_err err = {0};
    mm_args *args = NULL;
    mm_status status = mm_args_parse(&args, mm_commands, argc, argv, &err);
    fill_context(&context, args);
    if (status != MM_OK) context.json = is_json_wanted(argc, argv);
    if (status == MM_OK) status = run(&context, args, &err);
    if (status != MM_OK) {
        if (err.status == MM_OK) err.status = status;
        print_error(&context, &err);
    }
    mm_err late = {0};
    const mm_status written = mm_out_finish(&late);
    if (written != MM_OK && status == MM_OK) {
        status = written;
        context.json = false; // it could not be printed
        print_error(&context, &late);
    }
    mm_args_free(args);
    return mm_status_exit_code(status);
}
