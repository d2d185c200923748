/* Generation: prompts in blocks, key-value caches, sampling; one row of ids or many at once.
 *
 * Sampling order is MiniMind's (docs/minimind.md): temperature, repetition penalty over all ids of
 * the row, top-k, top-p (the token that crosses p stays), draw. Numbers are counter-based: (seed,
 * position) decides a draw.
 *
 * What is guaranteed: the logits of a row depend on the model, on the row's ids and on the build of
 * the kernels (mm_engine_isa) alone. They are the same bit for bit with any number of threads or
 * rows, whatever the other rows hold, and however the ids were cut into blocks on their way in. So
 * the same prompt, seed and options give the same tokens and log-probabilities alone or in a batch.
 *
 * A generator keeps copies of the weights in the order of the matrix kernel, so that every product,
 * of one row or of many, reads each weight once and in order. It belongs to one thread at a time.
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
    double logprob_sum;  /* of the chosen tokens, a stop id included, under the unmodified model
                            (temperature 1) */
    int32_t stop_id;     /* that ended the row, -1 without one */
    double stop_logprob; /* of the stop id, 0 without one */
    int32_t n_kept;      /* ids of the prompt that were in the row already (keeps_prefix) */
    double prefill_s;    /* from the first block that holds a part of the prompt to its logits */
    double decode_s;     /* from there to the end of the row */
} mm_generation;

/* Called for every token; returning false stops (MM_FINISH_CANCELED). */
typedef bool (*mm_token_fn)(void *context, int32_t id);

enum { MM_GENERATOR_MAX_ROWS = 1024 };

typedef struct mm_generator_options {
    int32_t max_tokens; /* positions of each row: prompt + answer */
    int32_t rows;       /* rows that are decoded together; 0 = 1 */
    int32_t threads;    /* 0 = all processors available to the process */
    bool bf16;          /* compute as MM_BF16, weights and caches in bfloat16 */
    /* A prompt that begins with the ids its row holds already goes on behind them, which changes
     * only the time: for conversations that grow. */
    bool keeps_prefix;
} mm_generator_options;

/* Bytes that each row's caches take. */
int64_t mm_generator_row_bytes(const mm_model_config *config, const mm_generator_options *options);
/* Keeps a borrowed pointer to the model, whose values are F32. All memory is taken here. */
MM_NODISCARD mm_status mm_generator_new_batch(mm_generator **out, const mm_model *model,
                                              const mm_generator_options *options, mm_err *err);
/* The same for one row in fp32. */
MM_NODISCARD mm_status mm_generator_new(mm_generator **out, const mm_model *model,
                                        int32_t max_tokens, int32_t threads, mm_err *err);
void mm_generator_free(mm_generator *generator);
int32_t mm_generator_rows(const mm_generator *generator);
/* Must follow every change of the model's values: the generator works on copies of them. */
void mm_generator_reload(mm_generator *generator);

/* The steps mm_generate is made of, for scoring and for conversations that go on. They work on the
 * generator's first row of ids: reset empties it, feed appends `count` ids and hands out the logits
 * (V) that follow the last one, borrowed until the next call. Ids outside the vocabulary are
 * MM_EFORMAT, too many MM_ELIMIT; both leave the row as it was. */
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

typedef struct mm_prompt {
    const int32_t *ids;
    int32_t count;
    uint64_t seed; /* of its draws, instead of sampling->seed */
} mm_prompt;

/* Called for every token, rows in turn, in order within a prompt. `logprob` is that of the token
 * under the unmodified model (temperature 1). Returning false ends this prompt alone
 * (MM_FINISH_CANCELED). */
typedef bool (*mm_batch_token_fn)(void *context, int32_t prompt_idx, int32_t id, double logprob);

/* Answers all prompts, as many at a time as the generator has rows; a row that is done takes the
 * next prompt that waits. out[i] is the end of prompt i. What mm_generate refuses is refused for
 * every prompt before work begins, the message naming the prompt. After an error out[i] holds what
 * was done. */
MM_NODISCARD mm_status mm_generate_batch(mm_generator *generator, const mm_prompt *prompts,
                                         int32_t n_prompts, const mm_sampling *sampling,
                                         mm_batch_token_fn on_token, void *context,
                                         mm_generation *out, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
