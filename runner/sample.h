/* Sample answers: prompt in, text out, recorded. */
#ifndef MM_RUNNER_SAMPLE_H
#define MM_RUNNER_SAMPLE_H

#include "core/nn/generate.h"
#include "core/text/tokenizer.h"
#include "runner/cli.h"
#include "store/store.h"

/* How an answer is drawn, for the tables of commands; ended by a zeroed row. */
extern const mm_option mm_sample_options[];
/* What the command line says of it, --max-new-tokens too; defaults where it is silent. */
mm_sampling mm_sample_sampling_of(const mm_args *args);
/* The same for a model with this tokenizer: which ids are text, and which ends an answer. */
mm_sampling mm_sample_sampling(const mm_sampling *sampling, const mm_tokenizer *tokenizer);

/* A generator that answers up to `n_prompts` prompts at a time: as many rows as pay, and as fit
 * into a moderate amount of memory. `max_tokens` holds prompt and answer. */
MM_NODISCARD mm_status mm_sample_generator(mm_generator **out, const mm_model *model,
                                           size_t n_prompts, int32_t max_tokens, int32_t threads,
                                           mm_dtype dtype, mm_err *err);

/* What a prompt becomes: text to be continued ([bos] + prompt), or a user's turn in the chat
 * template with the opening of an answer. */
typedef enum mm_sample_style { MM_SAMPLE_TEXT = 0, MM_SAMPLE_CHAT } mm_sample_style;
/* As models of a stage were taught: "pretrain" continues text, sft, lora, dpo, distill … answer. */
mm_sample_style mm_sample_style_of(const char *stage);

/* Answers one prompt of ids (runner/dialogue.h). on_text (may be NULL) gets each piece of complete
 * characters and may return false to stop. The answer is appended to `text` (valid UTF-8). */
MM_NODISCARD mm_status mm_sample_ids(mm_generator *generator, const mm_tokenizer *tokenizer,
                                     const mm_ids *ids, const mm_sampling *sampling,
                                     bool (*on_text)(void *context, const char *piece,
                                                     size_t bytes),
                                     void *context, mm_str *text, mm_generation *out, mm_err *err);

typedef struct mm_sample {
    const char *prompt; /* borrowed */
    mm_str text;        /* the answer; the caller drops it */
    mm_generation generation;
} mm_sample;

/* Answers prompts in one batch, with the texts that each would get alone. A prompt too long for the
 * generator's max_tokens is shortened. */
MM_NODISCARD mm_status mm_sample_texts(mm_generator *generator, int32_t max_tokens,
                                       const mm_tokenizer *tokenizer, mm_sample_style style,
                                       mm_sample *samples, size_t n_samples,
                                       const mm_sampling *sampling, mm_err *err);
/* The same from ids that are made already; the prompts of the samples are not read. on_token (may
 * be NULL) is called for every token and may return false to end that prompt's answer. */
MM_NODISCARD mm_status mm_sample_prompts(mm_generator *generator, const mm_tokenizer *tokenizer,
                                         const mm_prompt *prompts, mm_sample *samples,
                                         size_t n_samples, const mm_sampling *sampling,
                                         bool (*on_token)(void *context, int32_t prompt_idx),
                                         void *context, mm_err *err);
/* An answer as a row of the generations; its run, step and task are the caller's. Borrows both
 * texts. */
mm_generation_row mm_sample_row(const char *prompt, const char *text, const mm_sampling *sampling,
                                const mm_generation *generation);
/* Adds a row to the generations of a run. */
MM_NODISCARD mm_status mm_sample_record(mm_store *store, int64_t run_id, int64_t step,
                                        int32_t prompt_idx, const char *prompt, const mm_str *text,
                                        const mm_sampling *sampling,
                                        const mm_generation *generation, mm_err *err);

#endif
