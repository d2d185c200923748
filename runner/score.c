/* Scoring held-out text: loss, perplexity, bits per byte. The sum over batches is in a fixed order
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
