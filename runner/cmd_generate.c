/* mmrun generate: let a model answer or write on from a prompt, streaming, which is recorded; or
 * answer a file of prompts into a file of conversations. */
#include "runner/answers.h"
#include "runner/commands.h"
#include "runner/dialogue.h"
#include "runner/load.h"
#include "runner/sample.h"
#include "runner/signals.h"

#include "core/base/utf8.h"

#include <inttypes.h>
#include <string.h>

enum { PROMPT_BYTES = 1 << 20 };

const mm_option mm_generate_options[] = {
    {.name = "system",
     .type = MM_OPTION_TEXT,
     .value = "TEXT",
     .help = "a system turn in front; the prompt is then a turn of a chat"},
    {.name = "think",
     .type = MM_OPTION_CHOICE,
     .value = "on|off",
     .choices = "on,off",
     .help = "on: the answer begins with an open think block; the prompt is a turn of a chat"},
    {.name = "raw",
     .help = "continue the prompt as it is, whatever the run was taught (runs of pretrain do)"},
    {.name = "prompts",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .group = "A file of prompts",
     .help = "answer all of FILE: lines of text, or JSONL of prompts or conversations"},
    {.name = "out",
     .aliases = "o,output",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .group = "A file of prompts",
     .help = "where the conversations go; answers that are there already are kept"},
    {.name = "limit",
     .aliases = "n",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1e12,
     .group = "A file of prompts",
     .help = "the first N prompts (all)"},
    {.name = "rows",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1024,
     .group = "A file of prompts",
     .help = "at most N answered at a time (as many as pay)"},
    {.name = "record",
     .group = "A file of prompts",
     .help = "keep the answers among the run's in the database too"},
    {0},
};

static bool stream_out(void *context, const char *piece, size_t bytes)
{
    const mm_context *where = context;
    if (!where->json) {
        mm_str shown = {0};
        mm_utf8_add_printable(&shown, piece, bytes);
        mm_out_text(&shown);
        mm_out_flush();
        mm_str_drop(&shown);
    }
    return mm_signals_stop() == 0;
}

static void print_json(const mm_loaded *loaded, const char *prompt, const mm_str *text,
                       const mm_generation *done)
{
    json_t *out = json_pack(
        "{s:I,s:s,s:I,s:s,s:s,s:i,s:s,s:o,s:o}", "run_id", (json_int_t)loaded->run.id, "run",
        loaded->run.name, "step", (json_int_t)loaded->checkpoint.step, "prompt", prompt, "text",
        mm_str_text(text), "tokens", done->n_tokens, "finish_reason", mm_finish_text(done->finish),
        "logprob", mm_json_of_real(done->logprob_sum), "tokens_per_s",
        mm_json_of_real(done->decode_s > 0 ? done->n_tokens / done->decode_s : 0.0));
    mm_out_json(out);
    json_decref(out);
}

static mm_status style_of(const mm_args *args, const mm_loaded *loaded, mm_sample_style *style,
                          mm_err *err)
{
    const bool is_raw = mm_args_has(args, "raw");
    const bool is_chat = mm_args_has(args, "system") || mm_args_has(args, "think");
    if (is_raw && is_chat)
        return MM_FAIL(err, MM_EUSAGE, "--raw: text that is continued has no %s",
                       mm_args_has(args, "system") ? "--system turn" : "--think block");
    *style = mm_sample_style_of(loaded->run.stage);
    if (is_raw) *style = MM_SAMPLE_TEXT;
    if (is_chat) *style = MM_SAMPLE_CHAT;
    return MM_OK;
}

static bool opens_thinking(const mm_args *args)
{
    const char *think = mm_args_text(args, "think");
    return think && strcmp(think, "on") == 0;
}

/* Positions for a prompt and the answer on top of it: prompts longer than the trained context are
 * shortened. */
static mm_status room_of(const mm_loaded *loaded, const mm_sampling *sampling, int32_t *room,
                         mm_err *err)
{
    const int32_t context_tokens = (int32_t)mm_config_int(loaded->config, "max_seq_len");
    const int32_t limit = mm_model_config_of(loaded->model)->max_position_embeddings;
    if (sampling->max_new_tokens >= limit)
        return MM_FAIL(err, MM_EUSAGE,
                       "--max-new-tokens: the model takes %d tokens in all, found %d", limit,
                       sampling->max_new_tokens);
    const bool fits = sampling->max_new_tokens < limit - context_tokens;
    *room = fits ? context_tokens + sampling->max_new_tokens : limit;
    return MM_OK;
}

static mm_status prompt_ids(const mm_args *args, const mm_loaded *loaded, const char *prompt,
                            int32_t most, mm_ids *ids, mm_sample_style *style, mm_err *err)
{
    MM_TRY(style_of(args, loaded, style, err));
    if (*style == MM_SAMPLE_TEXT)
        return mm_text_ids(loaded->tokenizer, prompt, most, ids, NULL, err);
    const char *system = mm_args_text(args, "system");
    const mm_message turns[] = {{.role = "system", .content = system ? system : ""},
                                {.role = "user", .content = prompt}};
    const mm_conversation chat = {.messages = system ? turns : turns + 1, .count = system ? 2 : 1};
    const mm_chat_options options = {.open_thinking = opens_thinking(args)};
    return mm_dialogue_ids(loaded->tokenizer, &chat, &options, most, ids, NULL, err);
}

static mm_status answer_one(const mm_context *context, const mm_args *args, mm_store *store,
                            const mm_loaded *loaded, const char *prompt, mm_err *err)
{
    mm_status status = MM_OK;
    mm_generator *generator = NULL;
    mm_generation generation = {0};
    mm_sample_style style = MM_SAMPLE_TEXT;
    mm_ids ids = {0};
    mm_str text = {0};
    int32_t room = 0;
    const mm_sampling sampling = mm_sample_sampling_of(args);
    MM_GO(room_of(loaded, &sampling, &room, err));
    MM_GO(prompt_ids(args, loaded, prompt, room - 1, &ids, &style, err));
    MM_GO(mm_sample_generator(&generator, loaded->model, 1, room,
                              (int32_t)mm_args_int(args, "threads", 0),
                              mm_loaded_dtype(loaded, mm_args_text(args, "dtype")), err));
    mm_signals_install();
    if (!context->json && style == MM_SAMPLE_TEXT) mm_out("%s", prompt);
    MM_GO(mm_sample_ids(generator, loaded->tokenizer, &ids, &sampling, stream_out,
                        (void *)(uintptr_t)context, &text, &generation, err));
    if (context->json)
        print_json(loaded, prompt, &text, &generation);
    else
        mm_out("\n");
    if (store)
        MM_GO(mm_sample_record(store, loaded->run.id, loaded->checkpoint.step, 0, prompt, &text,
                               &sampling, &generation, err));
    mm_say(context, "%d tokens, %s, %.0f tokens/s", generation.n_tokens,
           mm_finish_text(generation.finish),
           generation.decode_s > 0 ? generation.n_tokens / generation.decode_s : 0.0);
done:
    mm_str_drop(&text);
    mm_ids_drop(&ids);
    mm_generator_free(generator);
    return status;
}

static void print_answers(const mm_context *context, const mm_loaded *loaded, const char *path,
                          const mm_answers *done, int32_t max_new_tokens)
{
    const double rate = done->seconds > 0 ? (double)done->tokens / done->seconds : 0;
    if (context->json) {
        json_t *out =
            json_pack("{s:I,s:s,s:I,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "run_id",
                      (json_int_t)loaded->run.id, "run", loaded->run.name, "step",
                      (json_int_t)loaded->checkpoint.step, "out", path, "prompts",
                      (json_int_t)done->total, "kept", (json_int_t)done->kept, "written",
                      (json_int_t)done->written, "tokens", (json_int_t)done->tokens, "cut",
                      (json_int_t)done->cut, "empty", (json_int_t)done->empty, "shortened",
                      (json_int_t)done->shortened, "tokens_per_s", mm_json_of_real(rate));
        mm_out_json(out);
        json_decref(out);
        return;
    }
    mm_out("%s\n", path);
    mm_say(context, "%" PRId64 " answers, %" PRId64 " tokens, %.0f tokens/s", done->written,
           done->tokens, rate);
    if (done->cut > 0)
        mm_say(context, "%" PRId64 " answers were cut at %d tokens (--max-new-tokens)", done->cut,
               (int)max_new_tokens);
    if (done->empty > 0) mm_say(context, "%" PRId64 " answers are empty", done->empty);
    if (done->shortened > 0)
        mm_say(context, "%" PRId64 " prompts were longer than the model's context and shortened",
               done->shortened);
}

static mm_status answer_file(const mm_context *context, const mm_args *args, mm_store *store,
                             const mm_loaded *loaded, mm_err *err)
{
    mm_answers done;
    mm_answers_request request = {
        .prompts_path = mm_args_text(args, "prompts"),
        .out_path = mm_args_text(args, "out"),
        .system = mm_args_text(args, "system"),
        .limit = mm_args_int(args, "limit", 0),
        .rows = (int32_t)mm_args_int(args, "rows", 0),
        .threads = (int32_t)mm_args_int(args, "threads", 0),
        .dtype = mm_loaded_dtype(loaded, mm_args_text(args, "dtype")),
        .open_thinking = opens_thinking(args),
        .sampling = mm_sample_sampling_of(args),
        .store = mm_args_has(args, "record") ? store : NULL,
    };
    MM_TRY(style_of(args, loaded, &request.style, err));
    MM_TRY(room_of(loaded, &request.sampling, &request.room, err));
    mm_signals_install();
    MM_TRY(mm_answers_write(context, loaded, &request, &done, err));
    print_answers(context, loaded, request.out_path, &done, request.sampling.max_new_tokens);
    return MM_OK;
}

static mm_status check_usage(const mm_args *args, mm_err *err)
{
    static const char *const OF_A_FILE[] = {"out", "limit", "rows", "record"};
    const bool is_file = mm_args_has(args, "prompts");
    if (is_file && mm_args_at(args, 1))
        return MM_FAIL(err, MM_EUSAGE, "--prompts: PROMPT \"%.40s\" beside a file of prompts",
                       mm_args_at(args, 1));
    if (is_file && !mm_args_has(args, "out"))
        return MM_FAIL(err, MM_EUSAGE, "--prompts: -o FILE says where the answers go");
    for (size_t i = 0; !is_file && i < sizeof OF_A_FILE / sizeof OF_A_FILE[0]; i++)
        if (mm_args_has(args, OF_A_FILE[i]))
            return MM_FAIL(err, MM_EUSAGE, "--%s: only with --prompts FILE", OF_A_FILE[i]);
    return MM_OK;
}

mm_status mm_cmd_generate(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_loaded loaded = {0};
    char *typed = NULL;
    size_t typed_bytes = 0;
    mm_status status = MM_OK;
    MM_GO(check_usage(args, err));
    const bool is_file = mm_args_has(args, "prompts");
    const char *prompt = mm_args_at(args, 1);
    if (!is_file && (!prompt || strcmp(prompt, "-") == 0)) {
        MM_GO(mm_input_read("-", PROMPT_BYTES, &typed, &typed_bytes, err));
        typed[strcspn(typed, "\n")] = '\0';
        prompt = typed;
    }
    bool records = false;
    if (!is_file)
        MM_GO(mm_context_store_to_record(context, &store, &records, err));
    else
        MM_GO(mm_context_store(
            context, mm_args_has(args, "record") ? MM_STORE_WRITE : MM_STORE_READ, &store, err));
    MM_GO(mm_load_run_as_asked(&loaded, store, mm_args_at(args, 0), args, err));
    status = is_file ? answer_file(context, args, store, &loaded, err)
                     : answer_one(context, args, records ? store : NULL, &loaded, prompt, err);
done:
    mm_free(typed);
    mm_loaded_drop(&loaded);
    mm_store_close(store);
    return status;
}
