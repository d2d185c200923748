/* Generation: which ids go through the decoder next, and what is drawn. See generate.h.
 *
 * A pass holds the next id of every row that is being answered and, as far as there is room, pieces
 * of the prompts that rows have taken from the queue. Rows draw in parallel; what comes of it is
 * settled in the order of the pass.
 */
#include "core/nn/generate.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/nn/decoder.h"
#include "core/nn/sample.h"

#include <string.h>

typedef struct row_state {
    mm_sampler *sampler;
    int32_t n_tokens; // ids in the cache
    int32_t *ids;     // these, where a prompt may go on behind them; else NULL
    // While a prompt is answered:
    const mm_prompt *prompt; // NULL: the row is free
    int32_t prompt_idx;
    int32_t limit; // of new tokens
    mm_choice choice;
    mm_status status; // of the draw
    int64_t start_ns;
    int64_t prefill_ns; // when the prompt was through
} row_state;

struct mm_generator {
    mm_decoder *decoder;
    int32_t vocab;
    int32_t max_tokens;
    int32_t n_rows;
    row_state *rows;
    mm_span *spans;   // of a pass, one per row at most
    int32_t *ids;     // of a pass
    int32_t *drawing; // rows that the logits of a pass belong to
};

const char *mm_finish_text(mm_finish finish)
{
    static const char *const texts[] = {"stop", "length", "canceled"};
    return finish <= MM_FINISH_CANCELED ? texts[finish] : "unknown";
}

mm_status mm_generator_new_batch(mm_generator **out, const mm_model *model,
                                 const mm_generator_options *options, mm_err *err)
{
    *out = NULL;
    mm_generator *generator = mm_calloc(1, sizeof *generator);
    if (!generator) return MM_FAIL(err, MM_ENOMEM, "generator");
    mm_status status = MM_OK;
    generator->vocab = mm_model_config_of(model)->vocab_size;
    generator->max_tokens = options->max_tokens;
    MM_GO(mm_decoder_new(&generator->decoder, model, options, err));
    const int32_t n_rows = options->rows > 0 ? options->rows : 1;
    const size_t n_ids = (size_t)mm_decoder_capacity(generator->decoder);
    generator->rows = mm_calloc((size_t)n_rows, sizeof *generator->rows);
    generator->spans = mm_calloc((size_t)n_rows, sizeof *generator->spans);
    generator->ids = mm_calloc(n_ids, sizeof *generator->ids);
    generator->drawing = mm_calloc((size_t)n_rows, sizeof *generator->drawing);
    if (!generator->rows || !generator->spans || !generator->ids || !generator->drawing) {
        status = MM_FAIL(err, MM_ENOMEM, "generator of %d rows", n_rows);
        goto done;
    }
    generator->n_rows = n_rows;
    for (int32_t i = 0; i < n_rows; i++) {
        row_state *row = &generator->rows[i];
        MM_GO(mm_sampler_new(&row->sampler, generator->vocab, err));
        if (!options->keeps_prefix) continue;
        row->ids = mm_calloc((size_t)options->max_tokens, sizeof *row->ids);
        if (row->ids) continue;
        status = MM_FAIL(err, MM_ENOMEM, "row of %d ids", options->max_tokens);
        goto done;
    }
    *out = generator;
    generator = NULL;
done:
    mm_generator_free(generator);
    return status;
}

mm_status mm_generator_new(mm_generator **out, const mm_model *model, int32_t max_tokens,
                           int32_t threads, mm_err *err)
{
    const mm_generator_options options = {.max_tokens = max_tokens, .threads = threads};
    return mm_generator_new_batch(out, model, &options, err);
}

void mm_generator_free(mm_generator *generator)
{
    if (!generator) return;
    for (int32_t i = 0; i < generator->n_rows; i++) {
        mm_sampler_free(generator->rows[i].sampler);
        mm_free(generator->rows[i].ids);
    }
    mm_free(generator->drawing);
    mm_free(generator->ids);
    mm_free(generator->spans);
    mm_free(generator->rows);
    mm_decoder_free(generator->decoder);
    mm_free(generator);
}

static void reset_row(row_state *row)
{
    row->n_tokens = 0;
    mm_sampler_reset(row->sampler);
}

void mm_generator_reload(mm_generator *generator)
{
    mm_decoder_reload(generator->decoder);
    for (int32_t i = 0; i < generator->n_rows; i++)
        reset_row(&generator->rows[i]); // what other weights made of them
}

void mm_generator_reset(mm_generator *generator) { reset_row(&generator->rows[0]); }

int32_t mm_generator_rows(const mm_generator *generator) { return generator->n_rows; }

int32_t mm_generator_tokens(const mm_generator *generator) { return generator->rows[0].n_tokens; }

static mm_status check_ids(const mm_generator *generator, const int32_t *ids, int32_t count,
                           mm_err *err)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= generator->vocab)
            return MM_FAIL(err, MM_EFORMAT, "token %d has id %d, the vocabulary has %d", i, ids[i],
                           generator->vocab);
    return MM_OK;
}

/* The row takes in ids that the decoder has run. */
static void take_ids(row_state *row, const int32_t *ids, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        mm_sampler_see(row->sampler, ids[i]);
    if (row->ids) memcpy(row->ids + row->n_tokens, ids, (size_t)count * sizeof *ids);
    row->n_tokens += count;
}

mm_status mm_generator_feed(mm_generator *generator, const int32_t *ids, int32_t count,
                            const float **logits, mm_err *err)
{
    row_state *row = &generator->rows[0];
    const int32_t room = generator->max_tokens - row->n_tokens;
    const int32_t capacity = mm_decoder_capacity(generator->decoder);
    if (count < 1) return MM_FAIL(err, MM_EUSAGE, "expected at least 1 token, found %d", count);
    if (count > room)
        return MM_FAIL(err, MM_ELIMIT, "%d tokens do not fit: %d of %d positions are free", count,
                       room, generator->max_tokens);
    MM_TRY(check_ids(generator, ids, count, err));
    for (int32_t at = 0; at < count;) {
        const int32_t piece = count - at < capacity ? count - at : capacity;
        const mm_span span = {
            .first = row->n_tokens, .count = piece, .wants_logits = at + piece == count};
        *logits = mm_decoder_run(generator->decoder, &span, 1, ids + at);
        take_ids(row, ids + at, piece);
        at += piece;
    }
    return MM_OK;
}

/* One call of mm_generate_batch. */
typedef struct answering {
    mm_generator *generator;
    const mm_prompt *prompts;
    int32_t n_prompts;
    int32_t n_taken; // prompts that rows have taken
    const mm_sampling *sampling;
    mm_batch_token_fn on_token;
    void *context;
    mm_generation *out;
    int32_t n_spans;
    const float *logits; // of the pass
} answering;

/* Ids that prompt and row begin with alike; the last one of a prompt is always run, for its logits.
 */
static int32_t shared_ids(const row_state *row, const mm_prompt *prompt)
{
    int32_t n = 0;
    while (row->ids && n < row->n_tokens && n < prompt->count - 1 && row->ids[n] == prompt->ids[n])
        n++;
    return n;
}

/* Gives a free row the next prompt. */
static void take_prompt(answering *a, row_state *row)
{
    const int32_t idx = a->n_taken++;
    const int32_t n_kept = shared_ids(row, &a->prompts[idx]);
    reset_row(row);
    take_ids(row, a->prompts[idx].ids, n_kept);
    a->out[idx].n_kept = n_kept;
    row->prompt = &a->prompts[idx];
    row->prompt_idx = idx;
    const int32_t room = a->generator->max_tokens - row->prompt->count;
    row->limit = a->sampling->max_new_tokens < room ? a->sampling->max_new_tokens : room;
    row->start_ns = mm_mono_ns();
}

static bool is_decoding(const row_state *row)
{
    return row->prompt && row->n_tokens >= row->prompt->count;
}

/* Chooses what goes through the decoder next: ids drawn first, pieces of prompts after them.
 * Nothing to do is no span. */
static void plan_pass(answering *a)
{
    mm_generator *generator = a->generator;
    const int32_t capacity = mm_decoder_capacity(generator->decoder);
    int32_t n = 0;
    a->n_spans = 0;
    for (int32_t i = 0; i < generator->n_rows; i++) {
        const row_state *row = &generator->rows[i];
        if (!is_decoding(row)) continue;
        generator->spans[a->n_spans++] = (mm_span){i, row->n_tokens, 1, true};
        generator->ids[n++] = row->choice.id;
    }
    for (int32_t i = 0; i < generator->n_rows && n < capacity; i++) {
        row_state *row = &generator->rows[i];
        if (is_decoding(row)) continue;
        if (!row->prompt && a->n_taken == a->n_prompts) continue;
        if (!row->prompt) take_prompt(a, row);
        const int32_t left = row->prompt->count - row->n_tokens;
        const int32_t piece = left < capacity - n ? left : capacity - n;
        generator->spans[a->n_spans++] = (mm_span){i, row->n_tokens, piece, piece == left};
        for (int32_t at = 0; at < piece; at++)
            generator->ids[n++] = row->prompt->ids[row->n_tokens + at];
    }
}

/* The pass; returns how many rows have logits. */
static int32_t run_pass(answering *a)
{
    mm_generator *generator = a->generator;
    a->logits = mm_decoder_run(generator->decoder, generator->spans, a->n_spans, generator->ids);
    int32_t n_drawing = 0;
    int32_t at = 0;
    for (int32_t i = 0; i < a->n_spans; i++) {
        const mm_span *span = &generator->spans[i];
        take_ids(&generator->rows[span->row], generator->ids + at, span->count);
        at += span->count;
        if (span->wants_logits) generator->drawing[n_drawing++] = span->row;
    }
    return n_drawing;
}

static mm_status draw(const answering *a, int64_t item, mm_err *err)
{
    row_state *row = &a->generator->rows[a->generator->drawing[item]];
    mm_sampling sampling = *a->sampling;
    sampling.seed = row->prompt->seed;
    return mm_sampler_draw(row->sampler, a->logits + item * a->generator->vocab, &sampling,
                           row->n_tokens, &row->choice, err);
}

static void draw_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const answering *a = context;
    row_state *row = &a->generator->rows[a->generator->drawing[item]];
    if (row->limit > 0) row->status = draw(a, item, NULL);
}

static bool is_stop(const mm_sampling *sampling, int32_t id)
{
    for (int32_t i = 0; i < sampling->n_stop_ids; i++)
        if (sampling->stop_ids[i] == id) return true;
    return false;
}

/* Counts and hands on what a row has drawn; returns whether the row goes on. */
static bool settle(const answering *a, const row_state *row)
{
    mm_generation *out = &a->out[row->prompt_idx];
    const mm_choice *choice = &row->choice;
    out->finish = MM_FINISH_LENGTH;
    if (row->limit == 0) return false;
    out->logprob_sum += choice->logprob;
    if (is_stop(a->sampling, choice->id)) {
        out->finish = MM_FINISH_STOP;
        out->stop_id = choice->id;
        out->stop_logprob = choice->logprob;
        return false;
    }
    out->n_tokens++;
    if (a->on_token && !a->on_token(a->context, row->prompt_idx, choice->id, choice->logprob)) {
        out->finish = MM_FINISH_CANCELED;
        return false;
    }
    return out->n_tokens < row->limit;
}

static void settle_row(const answering *a, row_state *row)
{
    mm_generation *out = &a->out[row->prompt_idx];
    const bool goes_on = settle(a, row);
    out->decode_s = (double)(mm_mono_ns() - row->prefill_ns) * 1e-9;
    if (!goes_on) row->prompt = NULL;
}

/* All prompts have been checked. */
static mm_status answer(answering *a, mm_err *err)
{
    mm_generator *generator = a->generator;
    for (int32_t i = 0; i < generator->n_rows; i++)
        generator->rows[i].prompt = NULL;
    for (int32_t i = 0; i < a->n_prompts; i++)
        a->out[i] = (mm_generation){.finish = MM_FINISH_CANCELED, .stop_id = -1};
    for (plan_pass(a); a->n_spans > 0; plan_pass(a)) {
        const int32_t n_drawing = run_pass(a);
        const int64_t now_ns = mm_mono_ns();
        mm_pool_run(mm_decoder_pool(generator->decoder), n_drawing, draw_item, a);
        for (int32_t i = 0; i < n_drawing; i++) {
            row_state *row = &generator->rows[generator->drawing[i]];
            if (row->n_tokens == row->prompt->count) {
                row->prefill_ns = now_ns;
                a->out[row->prompt_idx].prefill_s = (double)(now_ns - row->start_ns) * 1e-9;
            }
            if (row->status != MM_OK) return draw(a, i, err); // once more, for the message
            settle_row(a, row);
        }
    }
    return MM_OK;
}

static mm_status check_prompt(const mm_generator *generator, const mm_prompt *prompt, mm_err *err)
{
    if (prompt->count < 1)
        return MM_FAIL(err, MM_EUSAGE, "the prompt is empty: nothing to continue");
    if (prompt->count >= generator->max_tokens)
        return MM_FAIL(err, MM_ELIMIT, "a prompt of %d tokens leaves no room in %d positions",
                       prompt->count, generator->max_tokens);
    return check_ids(generator, prompt->ids, prompt->count, err);
}

mm_status mm_generate_batch(mm_generator *generator, const mm_prompt *prompts, int32_t n_prompts,
                            const mm_sampling *sampling, mm_batch_token_fn on_token, void *context,
                            mm_generation *out, mm_err *err)
{
    MM_TRY(mm_sampling_check(sampling, err));
    for (int32_t i = 0; i < n_prompts; i++) {
        const mm_status status = check_prompt(generator, &prompts[i], err);
        if (status == MM_OK) continue;
        mm_err_context(err, "prompt %d", i);
        return status;
    }
    answering a = {.generator = generator,
                   .prompts = prompts,
                   .n_prompts = n_prompts,
                   .sampling = sampling,
                   .on_token = on_token,
                   .context = context,
                   .out = out};
    return answer(&a, err);
}

/* mm_generate's callback behind that of the batch. */
typedef struct single_listener {
    mm_token_fn on_token;
    void *context;
} single_listener;

static bool hand_to_single(void *context, int32_t prompt_idx, int32_t id, double logprob)
{
    (void)prompt_idx;
    (void)logprob;
    const single_listener *listener = context;
    return listener->on_token(listener->context, id);
}

mm_status mm_generate(mm_generator *generator, const int32_t *prompt, int32_t n_prompt,
                      const mm_sampling *sampling, mm_token_fn on_token, void *context,
                      mm_generation *out, mm_err *err)
{
    *out = (mm_generation){.stop_id = -1};
    const mm_prompt only = {prompt, n_prompt, sampling->seed};
    MM_TRY(mm_sampling_check(sampling, err));
    MM_TRY(check_prompt(generator, &only, err));
    single_listener listener = {on_token, context};
    answering a = {.generator = generator,
                   .prompts = &only,
                   .n_prompts = 1,
                   .sampling = sampling,
                   .on_token = on_token ? hand_to_single : NULL,
                   .context = &listener,
                   .out = out};
    return answer(&a, err);
}
