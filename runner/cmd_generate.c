/* mmrun generate: let a model write on from a prompt, streaming; the answer is recorded. */
#include "runner/commands.h"
#include "runner/load.h"
#include "runner/sample.h"
#include "runner/signals.h"

#include "core/base/utf8.h"

#include <string.h>

enum { PROMPT_BYTES = 1 << 20 };

const mm_option mm_generate_options[] = {
    {.name = "max-new-tokens",
     .aliases = "max_tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1000000,
     .help = "length of the answer (256)"},
    {.name = "temperature",
     .type = MM_OPTION_REAL,
     .value = "X",
     .min = 0,
     .max = 100,
     .help = "0: greedy (0.85)"},
    {.name = "top-p",
     .type = MM_OPTION_REAL,
     .value = "X",
     .min = 0.0001,
     .max = 1,
     .help = "1: off (0.85)"},
    {.name = "top-k",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1000000,
     .help = "0: off (50)"},
    {.name = "repetition-penalty",
     .type = MM_OPTION_REAL,
     .value = "X",
     .min = 0.01,
     .max = 100,
     .help = "1: off (1)"},
    {.name = "seed",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 9e15,
     .help = "seed of the draws (42)"},
    {.name = "dtype",
     .type = MM_OPTION_CHOICE,
     .value = "fp32|bf16",
     .choices = "fp32,bf16",
     .help = "precision of products and activations (the run's)"},
    {.name = "threads",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1024,
     .help = "worker threads (all)"},
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

static mm_sampling sampling_of(const mm_args *args)
{
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = (int32_t)mm_args_int(args, "max-new-tokens", sampling.max_new_tokens);
    sampling.temperature = mm_args_real(args, "temperature", sampling.temperature);
    sampling.top_p = mm_args_real(args, "top-p", sampling.top_p);
    sampling.top_k = (int32_t)mm_args_int(args, "top-k", sampling.top_k);
    sampling.repetition_penalty =
        mm_args_real(args, "repetition-penalty", sampling.repetition_penalty);
    sampling.seed = (uint64_t)mm_args_int(args, "seed", (int64_t)sampling.seed);
    return sampling;
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

mm_status mm_cmd_generate(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_loaded loaded = {0};
    mm_generator *generator = NULL;
    mm_generation generation = {0};
    mm_str text = {0};
    char *prompt = NULL;
    size_t prompt_bytes = 0;
    mm_status status = MM_OK;
    mm_sampling sampling = sampling_of(args);
    const char *given = mm_args_at(args, 1);
    if (!given || strcmp(given, "-") == 0) {
        MM_GO(mm_input_read("-", PROMPT_BYTES, &prompt, &prompt_bytes, err));
        prompt[strcspn(prompt, "\n")] = '\0';
        given = prompt;
    }
    MM_GO(mm_context_store(context, MM_STORE_WRITE, &store, err));
    MM_GO(mm_load_run(&loaded, store, mm_args_at(args, 0), err));
    // Prompts longer than the trained context keep their end; the answer comes on top of it.
    const int32_t context_tokens = (int32_t)mm_config_int(loaded.config, "max_seq_len");
    const int32_t limit = mm_model_config_of(loaded.model)->max_position_embeddings;
    if (sampling.max_new_tokens >= limit) {
        status =
            MM_FAIL(err, MM_EUSAGE, "--max-new-tokens: the model takes %d tokens in all, found %d",
                    limit, sampling.max_new_tokens);
        goto done;
    }
    const bool fits = sampling.max_new_tokens < limit - context_tokens;
    const int32_t room = fits ? context_tokens + sampling.max_new_tokens : limit;
    MM_GO(mm_sample_generator(&generator, loaded.model, 1, room,
                              (int32_t)mm_args_int(args, "threads", 0),
                              mm_loaded_dtype(&loaded, mm_args_text(args, "dtype")), err));
    mm_signals_install();
    if (!context->json) mm_out("%s", given);
    MM_GO(mm_sample_text(generator, room, loaded.tokenizer, mm_sample_style_of(loaded.run.stage),
                         given, &sampling, stream_out, (void *)(uintptr_t)context, &text,
                         &generation, err));
    if (context->json)
        print_json(&loaded, given, &text, &generation);
    else
        mm_out("\n");
    MM_GO(mm_sample_record(store, loaded.run.id, loaded.checkpoint.step, 0, given, &text, &sampling,
                           &generation, err));
    mm_say(context, "%d tokens, %s, %.0f tokens/s", generation.n_tokens,
           mm_finish_text(generation.finish),
           generation.decode_s > 0 ? generation.n_tokens / generation.decode_s : 0.0);
done:
    mm_str_drop(&text);
    mm_free(prompt);
    mm_generator_free(generator);
    mm_loaded_drop(&loaded);
    mm_store_close(store);
    return status;
}
