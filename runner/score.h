/* Scoring held-out text: loss, perplexity, bits per byte. */
#ifndef MM_RUNNER_SCORE_H
#define MM_RUNNER_SCORE_H

#include "core/data/batch.h"
#include "core/nn/engine.h"
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

#endif
