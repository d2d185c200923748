/* Answers to a file of prompts, as a file of conversations: training data out of a model
 * (black-box distillation), or material to judge.
 *
 * Row i of the output is prompt i with its answer. Rows are flushed in pieces; a command that was
 * killed goes on with the same call, after checking that the rows there belong to the prompts.
 */
#ifndef MM_RUNNER_ANSWERS_H
#define MM_RUNNER_ANSWERS_H

#include "runner/load.h"
#include "runner/sample.h"

typedef struct mm_answers_request {
    const char *prompts_path;
    const char *out_path;
    const char *system; /* goes in front of conversations without a system turn; NULL: none */
    int64_t limit;      /* prompts; 0: all */
    int32_t rows;       /* answered at a time; 0: as many as pay */
    int32_t threads;
    mm_dtype dtype;
    mm_sample_style style; /* MM_SAMPLE_TEXT: the last words of a prompt are continued */
    bool open_thinking;
    /* Each prompt draws with a seed of its own, made of this one and its number: an answer does not
     * depend on the others. */
    mm_sampling sampling;
    int32_t room;    /* ids of prompt and answer together */
    mm_store *store; /* gets every answer among the generations of the run; NULL: none */
} mm_answers_request;

typedef struct mm_answers {
    int64_t total;     /* prompts */
    int64_t kept;      /* rows that were there already */
    int64_t written;   /* rows of this call */
    int64_t tokens;    /* of these, as the next three */
    int64_t cut;       /* answers that ended at max_new_tokens */
    int64_t empty;     /* answers without a token */
    int64_t shortened; /* prompts that lost turns or words for want of room */
    double seconds;
} mm_answers;

/* MM_ECANCELED: stopped by a signal; what was complete is written. */
MM_NODISCARD mm_status mm_answers_write(const mm_context *context, const mm_loaded *loaded,
                                        const mm_answers_request *request, mm_answers *out,
                                        mm_err *err);

#endif
