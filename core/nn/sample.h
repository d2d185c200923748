/* Choosing the next token from logits, in MiniMind's order (docs/minimind.md). Internal to core/nn.
 *
 * Everything is decided by the scores and the ids, ties by the smaller id; nothing is allocated
 * after mm_sampler_new.
 */
#ifndef MM_NN_SAMPLE_H
#define MM_NN_SAMPLE_H

#include "core/nn/generate.h"

typedef struct mm_sampler mm_sampler;

typedef struct mm_choice {
    int32_t id;
    double logprob; /* under the unmodified logits (temperature 1), to about 1e-6 */
} mm_choice;

MM_NODISCARD mm_status mm_sampler_new(mm_sampler **out, int32_t vocab_size, mm_err *err);
void mm_sampler_free(mm_sampler *sampler);
/* Forgets the row that the repetition penalty looks at. */
void mm_sampler_reset(mm_sampler *sampler);
/* Adds an id, in [0, vocab), to that row. */
void mm_sampler_see(mm_sampler *sampler, int32_t id);
/* MM_EUSAGE naming the option that is out of bounds. */
MM_NODISCARD mm_status mm_sampling_check(const mm_sampling *sampling, mm_err *err);
/* `position` (of the token to come, in the row) and the seed decide the draw. Logits (V) that are
 * not finite are MM_ENAN. */
MM_NODISCARD mm_status mm_sampler_draw(mm_sampler *sampler, const float *logits,
                                       const mm_sampling *sampling, int64_t position,
                                       mm_choice *out, mm_err *err);

#endif
