/* mmrun chat: talk with a model, turn by turn. Questions are lines of standard input; answers go to
 * standard output as they come, everything else to standard error. */
#include "runner/chat_parts.h"
#include "runner/commands.h"
#include "runner/lines.h"
#include "runner/output.h"
#include "runner/signals.h"

#include "core/base/utf8.h"

#include <string.h>
#include <unistd.h>

static const char TASK[] = "chat"; // of its rows among the generations

const mm_option mm_chat_options_table[] = {
    {.name = "system", .type = MM_OPTION_TEXT, .value = "TEXT", .help = "system turn"},
    {.name = "think",
     .aliases = "open_thinking",
     .type = MM_OPTION_FLAG,
     .help = "let the model think before it answers"},
    {.name = "history",
     .aliases = "historys",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1000000,
     .help = "earlier exchanges the model is shown (all that fit)"},
    {.name = "record",
     .type = MM_OPTION_FLAG,
     .help = "keep every exchange in the database, among the generations of the run"},
    {0},
};

/* ---- one exchange ------------------------------------------------------------------------------
 */

static void set_dim(mm_chat *chat, bool is_dim)
{
    if (chat->is_dim == is_dim) return;
    chat->is_dim = is_dim;
    if (!is_dim) mm_out("\n\n"); // between the thoughts and the answer
    mm_out_color(chat->context, is_dim ? MM_COLOR_DIM : MM_COLOR_NONE);
}

static bool stream_out(void *context, const char *piece, size_t bytes, bool is_reasoning)
{
    mm_chat *chat = context;
    if (!chat->context->json && (!is_reasoning || chat->shows_reasoning)) {
        mm_str shown = {0};
        set_dim(chat, is_reasoning);
        mm_utf8_add_printable(&shown, piece, bytes);
        mm_out_text(&shown);
        mm_out_flush();
        mm_str_drop(&shown);
    }
    return !mm_signals_interrupted() && !mm_out_failed();
}

static double rate_of(const mm_generation *generation)
{
    return generation->decode_s > 0 ? generation->n_tokens / generation->decode_s : 0;
}

static void print_json(const mm_chat *chat, const char *question, const mm_reply *reply)
{
    const mm_generation *done = &reply->generation;
    json_t *out = json_object();
    json_object_set_new(out, "run_id", json_integer(chat->loaded->run.id));
    json_object_set_new(out, "run", mm_json_of_text(chat->loaded->run.name));
    json_object_set_new(out, "step", json_integer(chat->loaded->checkpoint.step));
    json_object_set_new(out, "turn",
                        json_integer((json_int_t)mm_chat_session_count(chat->session)));
    json_object_set_new(out, "prompt", json_string(question));
    json_object_set_new(out, "text", json_string(reply->exchange ? reply->exchange->answer : ""));
    json_object_set_new(out, "reasoning",
                        mm_json_of_text(reply->exchange ? reply->exchange->reasoning : NULL));
    json_object_set_new(out, "tokens", json_integer(done->n_tokens));
    json_object_set_new(out, "finish_reason", json_string(mm_finish_text(done->finish)));
    json_object_set_new(out, "prompt_tokens", json_integer(reply->prompt_tokens));
    json_object_set_new(out, "kept_tokens", json_integer(done->n_kept));
    json_object_set_new(out, "forgotten", json_integer((json_int_t)reply->n_forgotten));
    json_object_set_new(out, "logprob", mm_json_of_real(done->logprob_sum));
    json_object_set_new(out, "tokens_per_s", mm_json_of_real(rate_of(done)));
    mm_out_json(out);
    json_decref(out);
}

static mm_status record(const mm_chat *chat, const mm_reply *reply, mm_err *err)
{
    const mm_exchange *exchange = reply->exchange;
    mm_generation_row row =
        mm_sample_row(exchange->question, exchange->answer, &chat->sampling, &reply->generation);
    row.run_id = chat->loaded->run.id;
    row.step = chat->loaded->checkpoint.step;
    row.prompt_idx = (int32_t)mm_chat_session_count(chat->session) - 1;
    row.task = TASK;
    return mm_store_generation_add(chat->store, &row, err);
}

mm_status mm_chat_ask(mm_chat *chat, const char *question, mm_err *err)
{
    mm_reply reply;
    const mm_status status = mm_chat_session_ask(chat->session, question, &chat->sampling,
                                                 chat->thinks, stream_out, chat, &reply, err);
    const mm_generation *done = &reply.generation;
    if (chat->is_dim) mm_out_color(chat->context, MM_COLOR_NONE);
    chat->is_dim = false;
    if (chat->context->json && status == MM_OK) print_json(chat, question, &reply);
    if (!chat->context->json && (status == MM_OK || done->n_tokens > 0)) mm_out("\n");
    mm_out_flush();
    MM_TRY(status);
    if (reply.n_forgotten > 0)
        mm_say(chat->context,
               "The context is full: the oldest %zu exchange%s no longer shown to the model.",
               reply.n_forgotten, reply.n_forgotten == 1 ? " is" : "s are");
    mm_say_dim(chat->context, "%d tokens, %s, %.0f tokens/s", done->n_tokens,
               mm_finish_text(done->finish), rate_of(done));
    return chat->store && reply.exchange ? record(chat, &reply, err) : MM_OK;
}

/* ---- the dialogue ------------------------------------------------------------------------------
 */

// A mistake of somebody who types is said and forgotten; in a script it ends the program.
static mm_status forgive(const mm_chat *chat, mm_status status, int64_t line, mm_err *err)
{
    const bool is_mistake = status == MM_EUSAGE || status == MM_EFORMAT || status == MM_ELIMIT ||
                            status == MM_EIO || status == MM_ENOTFOUND || status == MM_ENOSPC;
    if (status == MM_OK || !chat->is_terminal || !is_mistake) {
        if (status != MM_OK && strncmp(err->message, "input line", 10) != 0)
            mm_err_context(err, "input line %lld", (long long)line);
        return status;
    }
    mm_warn(chat->context, "%s", err->message);
    return MM_OK;
}

static mm_status handle_line(mm_chat *chat, const char *line, mm_err *err)
{
    if (line[strspn(line, " \t")] == '\0') return MM_OK;
    if (line[0] == '/') return mm_chat_command(chat, line, err);
    return mm_chat_ask(chat, line, err);
}

// A question of several lines: on a terminal a backslash at the end of one goes on.
static bool goes_on(const mm_chat *chat, mm_str *question, const char *line)
{
    const size_t length = strlen(line);
    const bool is_open = chat->is_terminal && length > 0 && line[length - 1] == '\\';
    mm_str_add_bytes(question, line, is_open ? length - 1 : length);
    if (is_open) mm_str_add_char(question, '\n');
    return is_open;
}

static void show_prompt(const mm_chat *chat, bool goes_on_from_above)
{
    if (chat->is_terminal && isatty(STDERR_FILENO))
        mm_talk_prompt(goes_on_from_above ? "… " : "> ");
}

// A signal came instead of a line. The second interrupt in a row leaves.
static mm_status interrupted(mm_chat *chat, int *n_interrupts, mm_err *err)
{
    mm_signals_take_interrupt();
    if (mm_signals_stop() || !chat->is_terminal)
        return MM_FAIL(err, MM_ECANCELED, "stopped by a signal");
    if (++*n_interrupts > 1) {
        chat->is_over = true;
        mm_warn(chat->context, "%s", "");
    } else {
        mm_warn(chat->context, "\nCtrl-C again or Ctrl-D leaves, /help says what else there is.");
    }
    return MM_OK;
}

static mm_status converse(mm_chat *chat, mm_lines *lines, mm_err *err)
{
    mm_str question = {0};
    int n_interrupts = 0;
    mm_status status = MM_OK;
    while (!chat->is_over && !mm_out_failed()) {
        const char *line = NULL;
        mm_line_event event = MM_LINE_END;
        show_prompt(chat, question.length > 0);
        status = mm_lines_next(lines, &line, &event, err);
        if (status == MM_OK && event == MM_LINE_END) break;
        if (status == MM_OK && event == MM_LINE_INTERRUPTED) {
            mm_str_clear(&question);
            MM_GO(interrupted(chat, &n_interrupts, err));
            continue;
        }
        n_interrupts = 0;
        if (status == MM_OK) {
            if (goes_on(chat, &question, line)) continue;
            MM_GO(mm_str_check(&question, err));
            status = handle_line(chat, mm_str_text(&question), err);
        }
        mm_str_clear(&question);
        MM_GO(forgive(chat, status, lines->number, err));
        // What interrupted an answer has done its work; a script it ends.
        if (mm_signals_stop() || (mm_signals_interrupted() && !chat->is_terminal))
            MM_GO(interrupted(chat, &n_interrupts, err));
        mm_signals_take_interrupt();
    }
    if (chat->is_terminal && !chat->is_over) mm_talk_prompt("\n");
done:
    mm_str_drop(&question);
    return status;
}

/* ---- the command -------------------------------------------------------------------------------
 */

// Tokens of a prompt with its answer: the context of training and an answer on top of it.
static mm_status room_of(const mm_loaded *loaded, int32_t max_new_tokens, int32_t *room,
                         mm_err *err)
{
    const int32_t limit = mm_model_config_of(loaded->model)->max_position_embeddings;
    const int32_t trained = (int32_t)mm_config_int(loaded->config, "max_seq_len");
    if (max_new_tokens >= limit)
        return MM_FAIL(err, MM_EUSAGE,
                       "--max-new-tokens: the model takes %d tokens in all, found %d", limit,
                       max_new_tokens);
    *room = max_new_tokens < limit - trained ? trained + max_new_tokens : limit;
    return MM_OK;
}

static void greet(const mm_chat *chat, mm_sample_style style)
{
    const mm_run_info *run = &chat->loaded->run;
    if (style == MM_SAMPLE_TEXT)
        mm_say(chat->context,
               "%s has learned to continue text and was not taught to converse: each line is "
               "continued.\n`mmrun sft --from %s --data FILE` teaches it.",
               run->name, run->name);
    if (!chat->is_terminal) return;
    mm_say(chat->context, "%s at step %lld (%s). /help lists commands, Ctrl-D leaves.", run->name,
           (long long)chat->loaded->checkpoint.step, run->stage);
}

static mm_status open_session(mm_chat *chat, const mm_args *args, mm_err *err)
{
    const mm_loaded *loaded = chat->loaded;
    const bool is_pretrained =
        strcmp(loaded->run.stage, "pretrain") == 0 && !mm_args_has(args, "lora");
    const char *system = mm_args_text(args, "system");
    mm_chat_session_options options = {.style = is_pretrained ? MM_SAMPLE_TEXT : MM_SAMPLE_CHAT,
                                       .history = mm_args_int(args, "history", -1),
                                       .threads = (int32_t)mm_args_int(args, "threads", 0),
                                       .dtype =
                                           mm_loaded_dtype(loaded, mm_args_text(args, "dtype"))};
    MM_TRY(room_of(loaded, chat->sampling.max_new_tokens, &options.max_tokens, err));
    MM_TRY(mm_chat_session_new(&chat->session, loaded->model, loaded->tokenizer, &options, err));
    if (system) MM_TRY(mm_chat_session_set_system(chat->session, system, err));
    greet(chat, options.style);
    return MM_OK;
}

mm_status mm_cmd_chat(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_loaded loaded = {0};
    mm_lines lines = {0};
    mm_status status = MM_OK;
    const bool records = mm_args_has(args, "record");
    mm_chat chat = {.context = context,
                    .loaded = &loaded,
                    .sampling = mm_sample_sampling_of(args),
                    .thinks = mm_args_has(args, "think"),
                    .is_terminal = isatty(STDIN_FILENO),
                    .shows_reasoning = context->columns > 0};
    MM_GO(mm_context_store(context, records ? MM_STORE_WRITE : MM_STORE_READ, &store, err));
    MM_GO(mm_load_run_as_asked(&loaded, store, mm_args_at(args, 0), args, err));
    if (records) chat.store = store;
    MM_GO(open_session(&chat, args, err));
    MM_GO(mm_signals_install_dialogue(&lines.wake_fd, err));
    MM_GO(converse(&chat, &lines, err));
done:
    mm_lines_drop(&lines);
    mm_chat_session_free(chat.session);
    mm_loaded_drop(&loaded);
    mm_store_close(store);
    return status;
}
