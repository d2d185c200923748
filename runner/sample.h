/* Sample answers: prompt in, text out, recorded. */
#ifndef MM_RUNNER_SAMPLE_H
#define MM_RUNNER_SAMPLE_H

#include "core/nn/generate.h"
#include "core/text/tokenizer.h"
#include "store/store.h"

/* Pretrained models continue text: [bos] + prompt. on_text (may be NULL) gets each piece of
 * complete characters and may return false to stop. The answer is appended to `text` (valid UTF-8).
 * A prompt too long for the context keeps its end. */
MM_NODISCARD mm_status mm_sample_text(mm_generator *generator, int32_t context_tokens,
                                      const mm_tokenizer *tokenizer, const char *prompt,
                                      const mm_sampling *sampling,
                                      bool (*on_text)(void *context, const char *piece,
                                                      size_t bytes),
                                      void *context, mm_str *text, mm_generation *out, mm_err *err);
/* Adds a row to the generations of a run. */
MM_NODISCARD mm_status mm_sample_record(mm_store *store, int64_t run_id, int64_t step,
                                        int32_t prompt_idx, const char *prompt, const mm_str *text,
                                        const mm_sampling *sampling,
                                        const mm_generation *generation, mm_err *err);

#endif
