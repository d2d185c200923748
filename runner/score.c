/* Scoring held-out rows. The sum over batches is in a fixed order
 * and in double, so the same model and text give the same number. */
#include "runner/score.h"

#include <math.h>

mm_status mm_score_batches(mm_engine *engine, mm_batcher *batcher, const mm_tokenizer *tokenizer,
                           mm_progress *progress, mm_score *out, mm_err *err)
{
    int64_t n = 0;
    *out = (mm_score){0};
    MM_TRY(mm_batcher_epoch_batches(batcher, 0, &n, err));
    double sum = 0;
    bool is_number = true;
    mm_data_position position = {0};
    for (int64_t i = 0; i < n; i++) {
        const mm_batch *batch = NULL;
        mm_loss loss;
        MM_TRY(mm_batcher_get(batcher, &position, &batch, err));
        MM_TRY(mm_engine_eval(engine, batch, &loss, err));
        sum += loss.sum;
        is_number &= !isnan(loss.sum);
        out->tokens += loss.count;
        out->bytes += mm_batch_label_bytes(batch, tokenizer);
        mm_progress_count(progress, (uint64_t)i + 1, (uint64_t)n, "batches");
    }
    if (out->tokens == 0) return MM_FAIL(err, MM_EFORMAT, "no token to score: every row is empty");
    // One NaN, whatever its sign bit: it is shown and stored.
    if (!is_number) sum = (double)NAN;
    out->loss = sum / (double)out->tokens;
    out->perplexity = exp(out->loss);
    // Source: bits per byte = nats / (ln 2 · bytes), comparable across tokenizers.
    out->bits_per_byte = out->bytes > 0 ? sum / (M_LN2 * (double)out->bytes) : (double)NAN;
    return MM_OK;
}

// Sum over a segment; ignored labels have 0.
static double segment_sum(const mm_batch *batch, int32_t segment, const double *logprobs,
                          int64_t *labels)
{
    double sum = 0;
    for (int32_t t = batch->segments[segment]; t < batch->segments[segment + 1]; t++) {
        sum += logprobs[t];
        *labels += batch->labels[t] != MM_LABEL_IGNORE;
    }
    return sum;
}

static mm_pair pair_of(const mm_batch *batch, int32_t i, const double *policy,
                       const double *reference)
{
    mm_pair pair = {0};
    int64_t unused = 0;
    pair.chosen = segment_sum(batch, 2 * i, policy, &pair.chosen_tokens);
    pair.rejected = segment_sum(batch, 2 * i + 1, policy, &pair.rejected_tokens);
    if (!reference) return pair;
    pair.reference_chosen = segment_sum(batch, 2 * i, reference, &unused);
    pair.reference_rejected = segment_sum(batch, 2 * i + 1, reference, &unused);
    return pair;
}

// An answer's log-probability over the reference's, as the loss compares it.
static double gain_of(const mm_preference *preference, double policy, double reference,
                      int64_t tokens)
{
    const bool is_mean = preference->mean || preference->kind == MM_PREFERENCE_SIMPO;
    const double gain = policy - (preference->kind == MM_PREFERENCE_SIMPO ? 0 : reference);
    return is_mean && tokens > 0 ? gain / (double)tokens : gain;
}

static void add_pair(const mm_preference *preference, const mm_pair *pair, mm_pair_score *out)
{
    const double margin =
        gain_of(preference, pair->chosen, pair->reference_chosen, pair->chosen_tokens) -
        gain_of(preference, pair->rejected, pair->reference_rejected, pair->rejected_tokens);
    out->loss += mm_preference_loss(preference, pair).loss;
    out->margin += margin;
    out->pairs++;
    out->correct += margin > 0; // a tie is no preference
    out->tokens += pair->chosen_tokens + pair->rejected_tokens;
}

mm_status mm_score_pairs(mm_engine *engine, mm_engine *reference, mm_batcher *batcher,
                         const mm_preference *preference, mm_progress *progress, mm_pair_score *out,
                         mm_err *err)
{
    const size_t most = (size_t)mm_batcher_max_tokens(batcher);
    mm_status status = MM_OK;
    int64_t n = 0;
    mm_data_position position = {0};
    *out = (mm_pair_score){0};
    double *ours = mm_calloc(most, sizeof *ours);
    double *theirs = mm_calloc(most, sizeof *theirs);
    if (!ours || !theirs) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for pairs of %zu tokens", most);
        goto done;
    }
    MM_GO(mm_batcher_epoch_batches(batcher, 0, &n, err));
    for (int64_t i = 0; i < n; i++) {
        const mm_batch *batch = NULL;
        MM_GO(mm_batcher_get(batcher, &position, &batch, err));
        MM_GO(mm_engine_logprobs(engine, batch, ours, err));
        if (reference) MM_GO(mm_engine_logprobs(reference, batch, theirs, err));
        for (int32_t k = 0; k < batch->n_segments / 2; k++) {
            const mm_pair pair = pair_of(batch, k, ours, reference ? theirs : NULL);
            add_pair(preference, &pair, out);
        }
        mm_progress_count(progress, (uint64_t)i + 1, (uint64_t)n, "batches");
    }
    const bool has_loss = reference || preference->kind == MM_PREFERENCE_SIMPO;
    out->loss = has_loss ? out->loss / (double)out->pairs : (double)NAN;
    out->margin /= (double)out->pairs;
done:
    mm_free(theirs);
    mm_free(ours);
    return status;
}
