/* What the parts of the training loop share: the run while it is being trained. train.c opens it,
 * walks its steps and settles it; train_state.c saves and restores it; train_eval.c scores it and
 * lets it answer; the objective (objective.h) says what it learns.
 */
#ifndef MM_RUNNER_TRAIN_PARTS_H
#define MM_RUNNER_TRAIN_PARTS_H

#include "core/nn/engine.h"
#include "core/nn/generate.h"
#include "core/nn/schedule.h"
#include "runner/corpus.h"
#include "runner/objective.h"
#include "runner/progress.h"
#include "store/checkpoint.h"
#include "store/metrics.h"
#include "store/query.h"

/* Where a run stands; everything a checkpoint has to remember besides the arrays. */
typedef struct mm_place {
    int64_t step;          /* finished optimizer steps */
    mm_data_position data; /* of the next micro-batch */
    uint64_t micro_step;   /* micro-batches learned from so far */
    int64_t tokens;
} mm_place;

/* Handles of the metrics that every stage has. */
typedef struct mm_series_ids {
    int32_t loss;
    int32_t lr;
    int32_t grad_norm;
    int32_t tokens;
    int32_t tokens_per_s;
    int32_t step_ms;
    int32_t mem_bytes;
    int32_t of_objective[MM_OBJECTIVE_VALUES]; /* in the order of mm_objective.series */
} mm_series_ids;

typedef struct mm_session {
    const mm_context *context;
    mm_store *store;
    const mm_corpus *corpus;
    int64_t run_id;
    mm_arena arena;
    mm_run_info run;
    mm_config *config;
    json_t *prompts;     /* array */
    const char *teacher; /* "ID@STEP", NULL: none */
    mm_model *model;
    mm_engine *engine;
    mm_generator *generator; /* NULL: no prompts */
    mm_batcher *train;
    mm_batcher *val; /* NULL: nothing is held out */
    mm_claim *claim;
    mm_metrics *metrics;
    mm_saver *saver;
    mm_progress *progress;
    mm_series_ids series;
    mm_dtype dtype;
    const char *isa_before; /* of the attempt before, NULL: there was none */
    const mm_objective *objective;
    void *objective_state;
    bool needs_start; /* set by the objective's `open`: its `prepare` is to be called */
    mm_place at;
    int64_t steps;
    bool is_padded;        /* batches have pads */
    bool is_mean_of_means; /* micro-batches weigh the same, as in MiniMind */
    mm_lr_schedule schedule;
    mm_adamw adamw;
    bool has_told_empty_step;
    mm_checkpoint_info restored; /* checkpoint the run went on from; id 0: it began afresh */
    int64_t base_id;             /* checkpoint with the frozen tensors, 0: none */
    double last_loss;
    double last_val_loss;
    double seconds_per_step; /* moving average */
    double tokens_per_s;     /* moving average */
} mm_session;

/* ---- train_state.c ---------------------------------------------------------------------------
 */

/* Hands a checkpoint to the saver, after the metrics up to its step are committed. */
MM_NODISCARD mm_status mm_session_save(mm_session *s, double val_loss, mm_err *err);
/* Fills model, moments and place from the newest checkpoint that verifies, or as they are before
 * the first step. Sets `restored`. */
MM_NODISCARD mm_status mm_session_restore(mm_session *s, mm_err *err);
/* Where the objective needs it and there are steps left: calls its `prepare` with the weights that
 * the run started from in the model, and puts the present ones back. */
MM_NODISCARD mm_status mm_session_prepare(mm_session *s, mm_err *err);

/* ---- train_eval.c ----------------------------------------------------------------------------
 */

/* Answers the prompts, then scores what is held out. */
MM_NODISCARD mm_status mm_session_evaluate(mm_session *s, mm_err *err);
/* Cross entropy of what is held out, in nats and in bits per byte: the scores of a stage that
 * models language. */
MM_NODISCARD mm_status mm_session_score_language(mm_session *s, mm_err *err);
/* Logs a value of an evaluation. */
MM_NODISCARD mm_status mm_session_log(mm_session *s, const char *name, double value, mm_err *err);

#endif
