/* Sample answers: prompt in, text out, recorded. */
#include "runner/sample.h"

#include <string.h>

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

mm_status mm_sample_text(mm_generator *generator, int32_t context_tokens,
                         const mm_tokenizer *tokenizer, const char *prompt,
                         const mm_sampling *sampling,
                         bool (*on_text)(void *context, const char *piece, size_t bytes),
                         void *context, mm_str *text, mm_generation *out, mm_err *err)
{
    mm_status status = MM_OK;
    mm_ids ids = {0};
    answer a = {
        .tokenizer = tokenizer, .text = text, .on_text = on_text, .context = context, .err = err};
    mm_sampling how = *sampling;
    if (mm_tokenizer_bos(tokenizer) >= 0) MM_GO(mm_ids_add(&ids, mm_tokenizer_bos(tokenizer), err));
    MM_GO(mm_tokenizer_encode(tokenizer, prompt, strlen(prompt), MM_ADDED_AS_TEXT, &ids, err));
    if (ids.count == 0) {
        status =
            MM_FAIL(err, MM_EUSAGE, "the prompt is empty and the tokenizer has no begin token");
        goto done;
    }
    // Room for at least one new token; the end of a long prompt matters most.
    const size_t most = (size_t)context_tokens - 1;
    const size_t skip = ids.count > most ? ids.count - most : 0;
    const int32_t n_prompt = (int32_t)(ids.count - skip);
    if (how.max_new_tokens > context_tokens - n_prompt)
        how.max_new_tokens = context_tokens - n_prompt;
    // A model may have more rows than its tokenizer has tokens.
    how.n_ids = mm_tokenizer_vocab(tokenizer);
    how.n_stop_ids = 0;
    if (mm_tokenizer_eos(tokenizer) >= 0)
        how.stop_ids[how.n_stop_ids++] = mm_tokenizer_eos(tokenizer);
    MM_GO(mm_generate(generator, ids.data + skip, n_prompt, &how, take_token, &a, out, err));
    MM_GO(a.status);
    const size_t before = text->length;
    mm_decode_stream_end(&a.stream, text);
    hand_on(&a, before);
    MM_GO(mm_str_check(text, err));
done:
    mm_ids_drop(&ids);
    return status;
}

mm_status mm_sample_record(mm_store *store, int64_t run_id, int64_t step, int32_t prompt_idx,
                           const char *prompt, const mm_str *text, const mm_sampling *sampling,
                           const mm_generation *generation, mm_err *err)
{
    const mm_generation_row row = {
        .run_id = run_id,
        .step = step,
        .prompt_idx = prompt_idx,
        .prompt = prompt,
        .text = mm_str_text(text),
        .tokens = generation->n_tokens,
        .finish_reason = mm_finish_text(generation->finish),
        .temperature = sampling->temperature,
        .top_p = sampling->top_p,
        .top_k = sampling->top_k,
        .seed = sampling->seed,
        .tokens_per_s = generation->decode_s > 0 ? generation->n_tokens / generation->decode_s : 0,
    };
    return mm_store_generation_add(store, &row, err);
}
