/* Sample answers: prompt in, text out, recorded. */
#include "runner/sample.h"

#include "runner/dialogue.h"

#include <string.h>

enum {
    ROWS_MAX = 32,              // answered at a time: products gain little from more
    CACHE_BYTES_MAX = 256 << 20 // of all rows
};

const mm_option mm_sample_options[] = {
    {.name = "max-new-tokens",
     .aliases = "max_tokens",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1000000,
     .help = "length of an answer (256)"},
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
    {0},
};

mm_sampling mm_sample_sampling_of(const mm_args *args)
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

static const mm_chat_options ANSWER = {.generation_prompt = true};

mm_sample_style mm_sample_style_of(const char *stage)
{
    return strcmp(stage, "pretrain") == 0 || strcmp(stage, "import") == 0 ? MM_SAMPLE_TEXT
                                                                          : MM_SAMPLE_CHAT;
}

mm_status mm_sample_generator(mm_generator **out, const mm_model *model, size_t n_prompts,
                              int32_t max_tokens, int32_t threads, mm_dtype dtype, mm_err *err)
{
    mm_generator_options options = {
        .max_tokens = max_tokens, .threads = threads, .bf16 = dtype == MM_BF16};
    const int64_t fitting =
        CACHE_BYTES_MAX / mm_generator_row_bytes(mm_model_config_of(model), &options);
    options.rows = n_prompts < ROWS_MAX ? (int32_t)n_prompts : ROWS_MAX;
    if (options.rows > fitting) options.rows = (int32_t)fitting;
    return mm_generator_new_batch(out, model, &options, err);
}

typedef struct answer {
    const mm_tokenizer *tokenizer;
    mm_decode_stream stream;
    mm_str *text;
    bool (*on_text)(void *context, const char *piece, size_t bytes);
    void *context;
    mm_status status;
    mm_err *err;
} answer;

static bool hand_on(answer *a, size_t before)
{
    const size_t fresh = a->text->length - before;
    if (fresh == 0 || !a->on_text) return true;
    return a->on_text(a->context, mm_str_text(a->text) + before, fresh);
}

static bool take_token(void *context, int32_t id)
{
    answer *a = context;
    const size_t before = a->text->length;
    a->status = mm_decode_stream_push(&a->stream, a->tokenizer, id, true, a->text, a->err);
    return a->status == MM_OK && hand_on(a, before);
}

static mm_status end_answer(answer *a)
{
    MM_TRY(a->status);
    const size_t before = a->text->length;
    mm_decode_stream_end(&a->stream, a->text);
    hand_on(a, before);
    return mm_str_check(a->text, a->err);
}

// Appends the ids of a prompt, with room for at least one new token; the end of a long prompt
// matters most. Returns how many it added.
static mm_status add_prompt(mm_ids *ids, const mm_tokenizer *tokenizer, mm_sample_style style,
                            const char *prompt, int32_t max_tokens, int32_t *count, mm_err *err)
{
    const size_t begin = ids->count;
    const int32_t most = max_tokens - 1;
    if (style == MM_SAMPLE_CHAT) {
        const mm_message question = {.role = "user", .content = prompt};
        const mm_conversation chat = {.messages = &question, .count = 1};
        MM_TRY(mm_dialogue_ids(tokenizer, &chat, &ANSWER, most, ids, NULL, err));
    } else {
        MM_TRY(mm_text_ids(tokenizer, prompt, most, ids, NULL, err));
    }
    *count = (int32_t)(ids->count - begin);
    return MM_OK;
}

mm_sampling mm_sample_sampling(const mm_sampling *sampling, const mm_tokenizer *tokenizer)
{
    mm_sampling how = *sampling;
    // A model may have more rows than its tokenizer has tokens.
    how.n_ids = mm_tokenizer_vocab(tokenizer);
    how.n_stop_ids = 0;
    if (mm_tokenizer_eos(tokenizer) >= 0)
        how.stop_ids[how.n_stop_ids++] = mm_tokenizer_eos(tokenizer);
    return how;
}

mm_status mm_sample_ids(mm_generator *generator, const mm_tokenizer *tokenizer, const mm_ids *ids,
                        const mm_sampling *sampling,
                        bool (*on_text)(void *context, const char *piece, size_t bytes),
                        void *context, mm_str *text, mm_generation *out, mm_err *err)
{
    answer a = {
        .tokenizer = tokenizer, .text = text, .on_text = on_text, .context = context, .err = err};
    const mm_sampling how = mm_sample_sampling(sampling, tokenizer);
    MM_ASSERT(ids->count <= INT32_MAX);
    MM_TRY(mm_generate(generator, ids->data, (int32_t)ids->count, &how, take_token, &a, out, err));
    return end_answer(&a);
}

// One call of mm_sample_prompts.
typedef struct answer_batch {
    answer *answers;
    bool (*on_token)(void *context, int32_t prompt_idx);
    void *context;
} answer_batch;

static bool take_batch_token(void *context, int32_t prompt_idx, int32_t id, double logprob)
{
    (void)logprob;
    const answer_batch *batch = context;
    return take_token(&batch->answers[prompt_idx], id) &&
           (!batch->on_token || batch->on_token(batch->context, prompt_idx));
}

mm_status mm_sample_prompts(mm_generator *generator, const mm_tokenizer *tokenizer,
                            const mm_prompt *prompts, mm_sample *samples, size_t n_samples,
                            const mm_sampling *sampling,
                            bool (*on_token)(void *context, int32_t prompt_idx), void *context,
                            mm_err *err)
{
    mm_status status = MM_OK;
    const mm_sampling how = mm_sample_sampling(sampling, tokenizer);
    answer_batch batch = {.on_token = on_token, .context = context};
    batch.answers = mm_calloc(n_samples + 1, sizeof *batch.answers);
    mm_generation *generations = mm_calloc(n_samples + 1, sizeof *generations);
    if (!batch.answers || !generations) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for %zu prompts", n_samples);
        goto done;
    }
    for (size_t i = 0; i < n_samples; i++)
        batch.answers[i] = (answer){.tokenizer = tokenizer, .text = &samples[i].text, .err = err};
    MM_GO(mm_generate_batch(generator, prompts, (int32_t)n_samples, &how, take_batch_token, &batch,
                            generations, err));
    for (size_t i = 0; i < n_samples; i++) {
        samples[i].generation = generations[i];
        MM_GO(end_answer(&batch.answers[i]));
    }
done:
    mm_free(generations);
    mm_free(batch.answers);
    return status;
}

mm_status mm_sample_texts(mm_generator *generator, int32_t max_tokens,
                          const mm_tokenizer *tokenizer, mm_sample_style style, mm_sample *samples,
                          size_t n_samples, const mm_sampling *sampling, mm_err *err)
{
    mm_status status = MM_OK;
    mm_ids ids = {0};
    mm_prompt *prompts = mm_calloc(n_samples + 1, sizeof *prompts);
    if (!prompts) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for %zu prompts", n_samples);
        goto done;
    }
    for (size_t i = 0; i < n_samples; i++) {
        prompts[i].seed = sampling->seed;
        MM_GO(add_prompt(&ids, tokenizer, style, samples[i].prompt, max_tokens, &prompts[i].count,
                         err));
    }
    const int32_t *at = ids.data; // which moved while it grew
    for (size_t i = 0; i < n_samples; at += prompts[i].count, i++)
        prompts[i].ids = at;
    MM_GO(mm_sample_prompts(generator, tokenizer, prompts, samples, n_samples, sampling, NULL, NULL,
                            err));
done:
    mm_free(prompts);
    mm_ids_drop(&ids);
    return status;
}

mm_generation_row mm_sample_row(const char *prompt, const char *text, const mm_sampling *sampling,
                                const mm_generation *generation)
{
    return (mm_generation_row){
        .prompt = prompt,
        .text = text,
        .tokens = generation->n_tokens,
        .finish_reason = mm_finish_text(generation->finish),
        .temperature = sampling->temperature,
        .top_p = sampling->top_p,
        .top_k = sampling->top_k,
        .seed = sampling->seed,
        .tokens_per_s = generation->decode_s > 0 ? generation->n_tokens / generation->decode_s : 0,
        .is_correct = -1,
    };
}

mm_status mm_sample_record(mm_store *store, int64_t run_id, int64_t step, int32_t prompt_idx,
                           const char *prompt, const mm_str *text, const mm_sampling *sampling,
                           const mm_generation *generation, mm_err *err)
{
    mm_generation_row row = mm_sample_row(prompt, mm_str_text(text), sampling, generation);
    row.run_id = run_id;
    row.step = step;
    row.prompt_idx = prompt_idx;
    return mm_store_generation_add(store, &row, err);
}
