/* Multiple choice by summed log-probability: which of the options a model holds for the likeliest
 * continuation of the question.
 *
 * LETTER asks for a letter after a prompt that lists the options; TEXT asks for an option's own
 * words after the question alone. A question with Chinese characters has a Chinese prompt. Rows of
 * different questions share a pass; a row's log-probability does not depend on the others.
 */
#ifndef MM_RUNNER_QUIZ_SCORE_H
#define MM_RUNNER_QUIZ_SCORE_H

#include "core/nn/engine.h"
#include "runner/progress.h"
#include "runner/quiz.h"
#include "runner/sample.h"

typedef enum mm_quiz_mode { MM_QUIZ_LETTER = 0, MM_QUIZ_TEXT } mm_quiz_mode;

enum { MM_QUIZ_STARTS = MM_QUIZ_OPTIONS_MAX + 2, MM_QUIZ_SHOTS_MAX = 100 };

typedef struct mm_quiz_how {
    mm_quiz_mode mode;
    mm_sample_style style; /* MM_SAMPLE_CHAT: a user asks, the option begins the answer */
    const mm_quiz *dev;    /* answered examples go in front, of the question's subject if it has
                              some there; NULL: none */
    int32_t shots;         /* how many */
    int32_t max_tokens;    /* of a prompt with an option */
} mm_quiz_how;

/* The rows of a quiz as ids. Zero-initialise; drop is idempotent. */
typedef struct mm_quiz_rows {
    const mm_quiz *quiz; /* borrowed */
    mm_ids ids;          /* per question its options, then the prompt */
    size_t *starts;      /* (count, MM_QUIZ_STARTS) where each option, the prompt, and what follows
                            it begin in `ids` */
    int32_t longest;     /* ids of the longest row */
    int64_t n_shortened; /* prompts that lost examples for want of room */
    int64_t n_cut;       /* prompts that lost their beginning */
} mm_quiz_rows;

MM_NODISCARD mm_status mm_quiz_rows_make(mm_quiz_rows *out, const mm_tokenizer *tokenizer,
                                         const mm_quiz *quiz, const mm_quiz_how *how, mm_err *err);
void mm_quiz_rows_drop(mm_quiz_rows *rows);

/* What a model chose for each question, and by log-probability per byte of the option's text. */
typedef struct mm_pick {
    int32_t option;
    int32_t option_norm;
} mm_pick;

/* picks (count). `max_tokens` is the engine's and at least rows->longest - 1. progress may be NULL.
 * A log-probability that is no number is no choice: -1. */
MM_NODISCARD mm_status mm_quiz_score(const mm_quiz_rows *rows, mm_engine *engine,
                                     int32_t max_tokens, mm_progress *progress, mm_pick *picks,
                                     mm_err *err);

#endif
