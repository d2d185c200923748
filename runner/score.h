/* Scoring held-out rows: loss, perplexity, bits per byte of text, and preferences of pairs. */
#ifndef MM_RUNNER_SCORE_H
#define MM_RUNNER_SCORE_H

#include "core/data/batch.h"
#include "core/nn/engine.h"
#include "core/nn/preference.h"
#include "runner/progress.h"

typedef struct mm_score {
    double loss; /* nats per token */
    double perplexity;
    double bits_per_byte;
    int64_t tokens; /* predicted */
    int64_t bytes;  /* of text they stand for */
} mm_score;

/* One pass over the batcher's first epoch. progress may be NULL. */
MM_NODISCARD mm_status mm_score_batches(mm_engine *engine, mm_batcher *batcher,
                                        const mm_tokenizer *tokenizer, mm_progress *progress,
                                        mm_score *out, mm_err *err);

typedef struct mm_pair_score {
    double loss;   /* mean over the pairs; NaN where the loss needs a reference and has none */
    double margin; /* mean of (p_chosen - p_rejected) - (r_chosen - r_rejected) in nats */
    int64_t pairs;
    int64_t correct; /* pairs whose margin is above 0 */
    int64_t tokens;  /* learned ones of both sides */
} mm_pair_score;

/* The same for a batcher of pairs. `reference` is an engine of the reference's model for batches of
 * this size, NULL: none, its log-probabilities count as 0. */
MM_NODISCARD mm_status mm_score_pairs(mm_engine *engine, mm_engine *reference, mm_batcher *batcher,
                                      const mm_preference *preference, mm_progress *progress,
                                      mm_pair_score *out, mm_err *err);

#endif
