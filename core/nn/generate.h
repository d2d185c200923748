/* Generation: prefill, KV cache, sampling, one token at a time.
 *
 * Sampling order is MiniMind's (docs/minimind.md): temperature, repetition penalty over all ids of
 * the row, top-k, top-p (the token that crosses p stays), draw. Numbers are counter-based: (seed,
 * position) decides a draw. A generator belongs to one thread at a time.
 */
#ifndef MM_NN_GENERATE_H
#define MM_NN_GENERATE_H

#include "core/nn/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_generator mm_generator;

typedef struct mm_sampling {
    double temperature;        /* 0 = greedy */
    double top_p;              /* 1 = off */
    int32_t top_k;             /* 0 = off */
    double repetition_penalty; /* 1 = off */
    int32_t max_new_tokens;
    uint64_t seed;
    int32_t stop_ids[4]; /* generation ends after one of these; it is not handed on */
    int32_t n_stop_ids;
    int32_t n_ids; /* ids from here on are never drawn: rows without a token; 0: none */
} mm_sampling;

/* {0.85, 0.85, 50, 1.0, 256, seed 42, stop at 2}: MiniMind's defaults but for the length. */
mm_sampling mm_sampling_default(void);

typedef enum mm_finish { MM_FINISH_STOP = 0, MM_FINISH_LENGTH, MM_FINISH_CANCELED } mm_finish;
const char *mm_finish_text(mm_finish finish); /* "stop", "length", "canceled" */

typedef struct mm_generation {
    int32_t n_tokens; /* handed to on_token */
    mm_finish finish;
    double logprob_sum; /* of the chosen tokens, a stop id included, under the unmodified model
                           (temperature 1) */
    double prefill_s;
    double decode_s;
} mm_generation;

/* Called for every token; returning false stops (MM_FINISH_CANCELED). */
typedef bool (*mm_token_fn)(void *context, int32_t id);

/* The cache holds max_tokens positions (prompt + answer). Keeps a borrowed pointer to the model
 * (fp32). */
MM_NODISCARD mm_status mm_generator_new(mm_generator **out, const mm_model *model,
                                        int32_t max_tokens, int32_t threads, mm_err *err);
void mm_generator_free(mm_generator *generator);

/* The steps mm_generate is made of, for scoring and for conversations that go on. A generator holds
 * one row of ids: reset empties it, feed appends `count` ids and hands out the logits (V) that
 * follow the last one, borrowed until the next call. Ids outside the vocabulary are MM_EFORMAT, too
 * many MM_ELIMIT; both leave the row as it was. */
void mm_generator_reset(mm_generator *generator);
MM_NODISCARD mm_status mm_generator_feed(mm_generator *generator, const int32_t *ids, int32_t count,
                                         const float **logits, mm_err *err);
/* Ids in the row. */
int32_t mm_generator_tokens(const mm_generator *generator);

/* Starts anew with this prompt. A prompt that leaves no room is MM_ELIMIT; a prompt of 0 tokens is
 * MM_EUSAGE. */
MM_NODISCARD mm_status mm_generate(mm_generator *generator, const int32_t *prompt, int32_t n_prompt,
                                   const mm_sampling *sampling, mm_token_fn on_token, void *context,
                                   mm_generation *out, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
