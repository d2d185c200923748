/* What a run is asked at each evaluation: prompts of the command line, or some of its own data. */
#include "runner/train.h"

#include "core/base/json.h"
#include "core/base/utf8.h"
#include "runner/sample.h"

#include <string.h>

enum { OPENING_TOKENS = 10, QUESTION_CHARACTERS = 80, QUESTION_BATCHES = 32 };

static const char TURN_BEGIN[] = "<|im_start|>user\n";
static const char TURN_END[] = "<|im_end|>";

// Keeps the text as a prompt if there is any of it.
static mm_status keep(mm_str *text, json_t *prompts, mm_err *err)
{
    MM_TRY(mm_str_check(text, err));
    // Whole characters: a cut inside one leaves bytes that are no text.
    text->length = mm_utf8_valid(mm_str_text(text), text->length);
    if (text->length == 0) return MM_OK;
    json_t *prompt = json_stringn(mm_str_text(text), text->length);
    if (!prompt || json_array_append_new(prompts, prompt) != 0)
        return MM_FAIL(err, MM_ENOMEM, "no memory for the prompts");
    return MM_OK;
}

// The opening of a text, one line of it.
static mm_status add_opening(const mm_corpus *corpus, const mm_batch *batch, int32_t segment,
                             json_t *prompts, mm_err *err)
{
    mm_str text = {0};
    mm_status status = MM_OK;
    const int32_t first = batch->segments[segment];
    const int32_t half = (batch->segments[segment + 1] - first) / 2;
    const int32_t take = half < OPENING_TOKENS ? half : OPENING_TOKENS;
    if (half < 2) return MM_OK;
    MM_GO(mm_tokenizer_decode(corpus->tokenizer, batch->tokens + first, (size_t)take, true, &text,
                              err));
    text.length = strcspn(mm_str_text(&text), "\n");
    MM_GO(keep(&text, prompts, err));
done:
    mm_str_drop(&text);
    return status;
}

// Bytes of the first so many characters.
static size_t characters(const char *text, size_t bytes, size_t most)
{
    size_t at = 0;
    for (; at < bytes && most > 0; most--)
        for (at++; at < bytes && ((unsigned char)text[at] & 0xc0) == 0x80;)
            at++;
    return at;
}

// The first question of a conversation, where it is short and of one line; of any length if `any`,
// cut to that.
static mm_status add_question(const mm_corpus *corpus, const mm_batch *batch, int32_t segment,
                              bool any, json_t *prompts, mm_err *err)
{
    mm_str text = {0};
    mm_status status = MM_OK;
    const int32_t first = batch->segments[segment];
    const size_t count = (size_t)(batch->segments[segment + 1] - first);
    MM_GO(mm_tokenizer_decode(corpus->tokenizer, batch->tokens + first, count, false, &text, err));
    const char *begin = strstr(mm_str_text(&text), TURN_BEGIN);
    if (!begin) goto done;
    begin += strlen(TURN_BEGIN);
    const char *end = strstr(begin, TURN_END);
    if (!end) goto done;
    const size_t bytes = (size_t)(end - begin);
    const size_t line = strcspn(begin, "\n");
    const size_t fits = characters(begin, line < bytes ? line : bytes, QUESTION_CHARACTERS);
    if (fits < bytes && !any) goto done;
    mm_str question = {0};
    mm_str_add_bytes(&question, begin, fits);
    status = keep(&question, prompts, err);
    mm_str_drop(&question);
done:
    mm_str_drop(&text);
    return status;
}

static mm_status add_from(const mm_corpus *corpus, mm_batcher *batcher, bool is_chat, bool any,
                          json_t *prompts, mm_err *err)
{
    mm_data_position at = {0};
    const int64_t most = is_chat ? QUESTION_BATCHES : 1;
    for (int64_t n = 0; n < most && at.epoch == 0; n++) {
        const mm_batch *batch = NULL;
        MM_TRY(mm_batcher_get(batcher, &at, &batch, err));
        for (int32_t i = 0; i < batch->n_segments; i++) {
            if (json_array_size(prompts) == MM_TRAIN_PROMPTS) return MM_OK;
            // The sides of a pair have the same question.
            const bool is_second = i > 0 && batch->rows && batch->rows[i] == batch->rows[i - 1];
            if (is_chat && !is_second)
                MM_TRY(add_question(corpus, batch, i, any, prompts, err));
            else if (!is_chat)
                MM_TRY(add_opening(corpus, batch, i, prompts, err));
        }
    }
    return MM_OK;
}

static mm_status add_defaults(const mm_corpus *corpus, const mm_config *config, json_t *prompts,
                              mm_err *err)
{
    mm_status status = MM_OK;
    mm_batcher *train = NULL;
    mm_batcher *val = NULL;
    const bool is_chat = mm_sample_style_of(mm_config_stage(config)) == MM_SAMPLE_CHAT;
    MM_GO(mm_corpus_batchers(corpus, config, &train, &val, err));
    MM_GO(add_from(corpus, val ? val : train, is_chat, false, prompts, err));
    if (is_chat && json_array_size(prompts) == 0)
        MM_GO(add_from(corpus, val ? val : train, is_chat, true, prompts, err));
done:
    mm_batcher_free(train);
    mm_batcher_free(val);
    return status;
}

mm_status mm_train_prompts(const mm_corpus *corpus, const mm_config *config,
                           const mm_run_request *request, mm_str *out, mm_err *err)
{
    json_t *prompts = json_array();
    mm_status status = MM_OK;
    if (!prompts) return MM_FAIL(err, MM_ENOMEM, "no memory for the prompts");
    for (size_t i = 0; i < request->n_prompts; i++) {
        if (json_array_append_new(prompts, json_string(request->prompts[i])) == 0) continue;
        status = MM_FAIL(err, MM_EFORMAT, "--prompt %zu is not valid UTF-8", i + 1);
        goto done;
    }
    if (request->n_prompts == 0) MM_GO(add_defaults(corpus, config, prompts, err));
    mm_json_write(prompts, out);
    MM_GO(mm_str_check(out, err));
done:
    json_decref(prompts);
    return status;
}
