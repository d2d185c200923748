/* What the parts of `mmrun eval` share: a run that is being evaluated, and its results. */
#ifndef MM_RUNNER_EVAL_PARTS_H
#define MM_RUNNER_EVAL_PARTS_H

#include "runner/load.h"
#include "runner/sample.h"

enum { MM_EVAL_RESULTS_MAX = 4096 };

typedef struct mm_eval {
    const mm_context *context;
    const mm_args *args;
    mm_store *store;
    bool records; /* results and answers go into the database */
    mm_loaded loaded;
    mm_arena arena;     /* of the results' strings */
    mm_result *results; /* in the order they came */
    size_t n_results;
    json_t *json; /* object of the run */
} mm_eval;

/* Keeps a result for the table and --json, and records it. `result` needs no run; its strings are
 * copied. */
MM_NODISCARD mm_status mm_eval_add(mm_eval *eval, const mm_result *result, mm_err *err);
/* A share with its interval. */
MM_NODISCARD mm_status mm_eval_add_share(mm_eval *eval, const char *task, const char *metric,
                                         int64_t correct, int64_t n, const char *sha256,
                                         mm_err *err);
/* Name of a file's results: without its folders. Borrowed from `path`. */
const char *mm_eval_task(const char *path);
/* --style, or how the run's stage was taught. */
mm_sample_style mm_eval_style(const mm_eval *eval);
mm_dtype mm_eval_dtype(const mm_eval *eval);
/* --on-bad-row skip. */
bool mm_eval_skips_bad(const mm_eval *eval);

/* Held-out text, --data, preference pairs. */
MM_NODISCARD mm_status mm_eval_loss(mm_eval *eval, mm_err *err);
/* --choices. */
MM_NODISCARD mm_status mm_eval_choices(mm_eval *eval, mm_err *err);
/* --prompts. */
MM_NODISCARD mm_status mm_eval_prompts(mm_eval *eval, mm_err *err);

#endif
