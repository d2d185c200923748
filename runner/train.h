/* The training loop: one run from its record in the database to its last checkpoint.
 *
 * A run is first recorded (mm_train_create), then trained (mm_train_run). A new run, a sweep's arm
 * and a resumed run are the same call: what is already there (checkpoints) decides where it starts.
 */
#ifndef MM_RUNNER_TRAIN_H
#define MM_RUNNER_TRAIN_H

#include "core/nn/engine.h"
#include "runner/corpus.h"
#include "runner/lineage.h"
#include "store/query.h"

typedef struct mm_run_request {
    const char *stage;
    const char *name;    /* NULL: made by the store */
    const char *command; /* that reproduces it */
    const char *notes;
    const char *const *tags;
    size_t n_tags;
    int64_t sweep_id;
    int64_t parent_id;          /* start from this run's weights; 0: fresh ones */
    int64_t parent_step;        /* of its checkpoint */
    int64_t teacher_id;         /* distill: the run that teaches; 0: none */
    int64_t teacher_step;       /* of its checkpoint */
    const char *const *prompts; /* answered at each evaluation; none: taken from held-out text */
    size_t n_prompts;
} mm_run_request;

/* What a run will cost, known before it starts. */
typedef struct mm_train_plan {
    mm_model_config shape;
    mm_dtype dtype;
    int64_t params;
    int64_t steps;
    int64_t tokens;      /* learned, about */
    int64_t tokens_read; /* with questions and pads, about */
    mm_engine_options engine;
    int64_t memory_bytes; /* about */
    int64_t checkpoint_bytes;
    double flops;     /* operations of the whole run */
    double seconds;   /* about, on this machine; NaN: not estimated */
    int64_t val_rows; /* held-out rows that are scored at each evaluation */
} mm_train_plan;

/* Decides what is still open (steps, intervals) and stores it in the configuration. Leaves
 * `seconds` open. */
MM_NODISCARD mm_status mm_train_plan_make(const mm_corpus *corpus, mm_config *config,
                                          mm_train_plan *plan, mm_err *err);
/* Adds what the teacher costs, if there is one. */
MM_NODISCARD mm_status mm_train_plan_add_teacher(mm_train_plan *plan, const mm_config *config,
                                                 const mm_parent *teacher, mm_err *err);
/* Operations per second that training in `dtype` reaches on this machine, about; measured for 40
 * ms. */
double mm_train_plan_rate(const mm_config *config, mm_dtype dtype);
/* The same from a peak that is known. */
double mm_train_rate_of_peak(mm_dtype dtype, double peak_flops);
/* An engine for the batches of both; `val` may be NULL. `training`: as in mm_engine_options. */
mm_engine_options mm_train_engine(mm_config *config, const mm_batcher *train, const mm_batcher *val,
                                  bool training);
/* What the configuration says of the optimizer; learning rate and step are the caller's. */
mm_adamw mm_train_adamw(const mm_config *config);
/* Too little memory is MM_ENOMEM, too little disk for two checkpoints MM_ENOSPC, naming both
 * numbers. */
MM_NODISCARD mm_status mm_train_plan_check(const mm_train_plan *plan, const char *db_path,
                                           mm_err *err);

enum { MM_TRAIN_PROMPTS = 3 };
/* JSON array of the prompts that a run answers: those of the request, or some of what is held out:
 * openings of texts, questions of conversations. Appended. */
MM_NODISCARD mm_status mm_train_prompts(const mm_corpus *corpus, const mm_config *config,
                                        const mm_run_request *request, mm_str *out, mm_err *err);
/* Records a run with status `queued`: everything a later process needs to train it. */
MM_NODISCARD mm_status mm_train_create(mm_store *store, const mm_corpus *corpus, mm_config *config,
                                       const mm_train_plan *plan, const mm_run_request *request,
                                       int64_t *run_id, mm_err *err);
/* Trains a recorded run, from its newest intact checkpoint if there is one. MM_ECANCELED: stopped
 * by a signal with a valid checkpoint. The run's status is settled in every case in which the
 * process survives. */
MM_NODISCARD mm_status mm_train_run(const mm_context *context, mm_store *store,
                                    const mm_corpus *corpus, int64_t run_id, mm_err *err);

/* One word as a shell reads it back, quoted where that is needed. */
void mm_shell_add(mm_str *out, const char *word);
/* The same as a text of the arena. */
const char *mm_shell_text(mm_arena *arena, const char *word);
/* "mmrun", with --db where the database is not the usual one: what a proposed command begins with.
 */
const char *mm_shell_mmrun(mm_arena *arena, const mm_context *context);
/* The command line as one shell-quoted text, for the record. */
MM_NODISCARD mm_status mm_command_text(const mm_context *context, mm_str *out, mm_err *err);

#endif
