/* What the starting model gave each answer: summed log-probabilities, kept by the answer itself.
 *
 * An answer is the tokens of a segment with their labels; however it is drawn, cut or batched, the
 * same tokens have the same log-probability, to the bit. A table belongs to one thread.
 */
#ifndef MM_RUNNER_REFERENCE_H
#define MM_RUNNER_REFERENCE_H

#include "core/data/batch.h"
#include "core/nn/engine.h"

typedef struct mm_reference mm_reference;

/* For micro-batches of up to so many tokens. */
MM_NODISCARD mm_status mm_reference_new(mm_reference **out, int32_t max_tokens,
                                        int32_t max_segments, mm_err *err);
void mm_reference_free(mm_reference *reference);

/* Makes known all segments of a micro-batch. Those that are new wait until they fill one;
 * mm_reference_flush scores the rest. */
MM_NODISCARD mm_status mm_reference_add(mm_reference *reference, mm_engine *engine,
                                        const mm_batch *batch, mm_err *err);
MM_NODISCARD mm_status mm_reference_flush(mm_reference *reference, mm_engine *engine, mm_err *err);
/* Log-probability of a segment that was made known. One that was not is MM_ENOTFOUND. */
MM_NODISCARD mm_status mm_reference_find(const mm_reference *reference, const mm_batch *batch,
                                         int32_t segment, double *logprob, mm_err *err);

/* Sum of the log-probabilities (T) over a segment, and how many labels it has. */
double mm_segment_sum(const mm_batch *batch, int32_t segment, const double *logprobs,
                      int64_t *labels);

#endif
