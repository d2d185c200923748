/* Reading the store: runs, hyperparameters, curves, generations and the rest, for commands and the
 * report.
 *
 * Results are arrays in the caller's arena. Missing text is NULL, a missing number NaN or 0 as
 * said.
 */
#ifndef MM_STORE_QUERY_H
#define MM_STORE_QUERY_H

#include "store/checkpoint.h"
#include "store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The columns of the `runs` view. status is honest: a run whose process is gone reads `killed`. */
typedef struct mm_run_info {
    int64_t id;
    const char *name;
    const char *stage;
    const char *status;
    int64_t parent_id;   /* 0: none */
    int64_t parent_step; /* -1: none */
    int64_t sweep_id;    /* 0: none */
    uint64_t seed;
    const char *device;
    const char *dtype;
    int64_t params_total;
    int64_t params_trainable;
    int64_t steps; /* last logged step */
    int64_t steps_planned;
    int64_t tokens;
    double final_loss;    /* NaN: none */
    double best_val_loss; /* NaN: none */
    double tokens_per_s;  /* NaN: none */
    int64_t created_ms;
    int64_t started_ms; /* 0: not yet */
    int64_t ended_ms;   /* 0: not yet */
    double duration_s;  /* summed over attempts */
    const char *error;
    const char *command;
    const char *host;
    const char *version;
    const char *git_commit;
    const char *notes;
    const char *tags; /* comma-separated */
} mm_run_info;

typedef struct mm_run_filter {
    int64_t sweep_id;   /* 0: any */
    const char *status; /* NULL: any */
    const char *stage;
    const char *tag;
    int64_t limit; /* 0: all; newest first are kept, order is by id */
} mm_run_filter;

MM_NODISCARD mm_status mm_store_runs(mm_store *store, const mm_run_filter *filter, mm_arena *arena,
                                     mm_run_info **out, size_t *count, mm_err *err);
MM_NODISCARD mm_status mm_store_run(mm_store *store, int64_t run_id, mm_arena *arena,
                                    mm_run_info *out, mm_err *err);

/* RUN, RUN@STEP, RUN@best, RUN@final, where RUN is an id, a unique name or `last`. */
typedef enum mm_at { MM_AT_FINAL = 0, MM_AT_BEST, MM_AT_STEP } mm_at;
typedef struct mm_run_ref {
    int64_t run_id;
    mm_at at;
    int64_t step; /* for MM_AT_STEP */
    bool has_at;  /* an @ was written */
} mm_run_ref;
/* Not found lists near names. */
MM_NODISCARD mm_status mm_store_resolve(mm_store *store, const char *text, mm_run_ref *out,
                                        mm_err *err);
/* The checkpoint a reference means; MM_ENOTFOUND lists the steps there are. FINAL is the newest
 * complete one. */
MM_NODISCARD mm_status mm_store_resolve_checkpoint(mm_store *store, const mm_run_ref *ref,
                                                   mm_arena *arena, mm_checkpoint_info *out,
                                                   mm_err *err);

MM_NODISCARD mm_status mm_store_params(mm_store *store, int64_t run_id, mm_arena *arena,
                                       mm_param **out, size_t *count, mm_err *err);

typedef struct mm_series_info {
    const char *name;
    int64_t n;
    int64_t n_bad;          /* NaN or infinite */
    int64_t first_bad_step; /* -1: none */
    int64_t first_step;
    int64_t last_step;
    double first;
    double last;
    double min;
    int64_t min_step;
    double max;
    int64_t max_step;
    double mean;
} mm_series_info;
MM_NODISCARD mm_status mm_store_series(mm_store *store, int64_t run_id, mm_arena *arena,
                                       mm_series_info **out, size_t *count, mm_err *err);

/* A curve in at most max_buckets buckets of equal numbers of steps; spikes survive in min and max.
 * Raw points where there are few enough (then n == 1). Buckets hold finite values; n_bad counts the
 * others. */
typedef struct mm_bucket {
    int64_t step_first;
    int64_t step_last;
    int64_t n;
    int64_t n_bad;
    double min;
    double max;
    double mean;
    int64_t time_ms; /* since the run's start, of the last point */
} mm_bucket;
MM_NODISCARD mm_status mm_store_curve(mm_store *store, int64_t run_id, const char *name,
                                      size_t max_buckets, mm_arena *arena, mm_bucket **out,
                                      size_t *count, mm_err *err);

MM_NODISCARD mm_status mm_store_generations(mm_store *store, int64_t run_id, mm_arena *arena,
                                            mm_generation_row **out, size_t *count, mm_err *err);
MM_NODISCARD mm_status mm_store_datasets(mm_store *store, int64_t run_id, mm_arena *arena,
                                         mm_dataset **out, size_t *count, mm_err *err);

typedef struct mm_event {
    int64_t run_id;
    int64_t time_ms;
    const char *level;
    const char *kind;
    const char *message;
} mm_event;
MM_NODISCARD mm_status mm_store_events(mm_store *store, int64_t run_id, mm_arena *arena,
                                       mm_event **out, size_t *count, mm_err *err);

typedef struct mm_env {
    const char *key;
    const char *value;
} mm_env;
/* Of the newest attempt. */
MM_NODISCARD mm_status mm_store_environment(mm_store *store, int64_t run_id, mm_arena *arena,
                                            mm_env **out, size_t *count, mm_err *err);

/* Process starts of a run: resumes are visible here. */
typedef struct mm_attempt {
    int32_t number;
    int64_t from_step;
    int64_t started_ms;
    int64_t ended_ms;  /* 0: running or killed */
    const char *ended; /* "finished", "killed", … NULL while running */
} mm_attempt;
MM_NODISCARD mm_status mm_store_attempts(mm_store *store, int64_t run_id, mm_arena *arena,
                                         mm_attempt **out, size_t *count, mm_err *err);

/* Points that a run logged twice, because it was resumed from before them, and how many of them
 * came out different to the last bit. Only what the seed decides is compared: not times, rates and
 * memory. */
typedef struct mm_recomputed {
    int64_t points;
    int64_t different;
} mm_recomputed;
MM_NODISCARD mm_status mm_store_recomputed(mm_store *store, int64_t run_id, mm_recomputed *out,
                                           mm_err *err);

/* Evaluation results of a run, oldest first. One done again, of the same step, task, metric and
 * data, replaces the one before. */
MM_NODISCARD mm_status mm_store_results(mm_store *store, int64_t run_id, mm_arena *arena,
                                        mm_result **out, size_t *count, mm_err *err);
/* A sweep by id or unique name or `last`. */
MM_NODISCARD mm_status mm_store_sweep(mm_store *store, const char *text, mm_arena *arena,
                                      mm_sweep *out, mm_err *err);

#ifdef __cplusplus
}
#endif
#endif
