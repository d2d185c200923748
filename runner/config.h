/* Hyperparameters: one table is the flags, the database names, the defaults, the bounds and the
 * help.
 *
 * Order of precedence: preset < stage defaults < parent run < config file < command line < sweep
 * arm. Every value keeps its origin.
 */
#ifndef MM_RUNNER_CONFIG_H
#define MM_RUNNER_CONFIG_H

#include "core/nn/model.h"
#include "runner/cli.h"
#include "store/store.h"

/* Options of a stage, generated from the table (ended by a zeroed row); "" is every stage's, where
 * options of one flag are one. Static. */
const mm_option *mm_config_options(const char *stage);
/* Files, names and eval prompts of a training command that are not hyperparameters. */
extern const mm_option mm_train_options[];

typedef struct mm_config mm_config;

/* All defaults of a stage: "pretrain", "sft", "lora", "dpo", "distill"; an "import" or a "merge" is
 * read as a "pretrain". */
MM_NODISCARD mm_status mm_config_new(mm_config **out, const char *stage, mm_err *err);
void mm_config_free(mm_config *config);
const char *mm_config_stage(const mm_config *config); /* static */
MM_NODISCARD mm_status mm_config_copy(mm_config **out, const mm_config *from, mm_err *err);
/* Sets by flag or database name, checked against type and bounds. Unknown names suggest the
 * nearest, those of other stages say which. "compat" = "minimind" exchanges the defaults. */
MM_NODISCARD mm_status mm_config_set(mm_config *config, const char *name, const char *value,
                                     const char *origin, mm_err *err);
/* Takes over what the command line gives; comma lists are refused unless `lists` (sweeps), which
 * are then left out. */
MM_NODISCARD mm_status mm_config_from_args(mm_config *config, const mm_args *args, bool lists,
                                           mm_err *err);
/* key=value lines (TOML subset: comments, strings, numbers, booleans); unknown keys are errors
 * naming file and line. */
MM_NODISCARD mm_status mm_config_from_file(mm_config *config, const char *path, mm_err *err);
/* From a run's stored parameters (resume). */
MM_NODISCARD mm_status mm_config_from_params(mm_config *config, const mm_param *params,
                                             size_t count, const char *origin, mm_err *err);

/* Values by database name, which must exist in the table. What the stage does not have reads as 0,
 * false, "". */
int64_t mm_config_int(const mm_config *config, const char *name);
double mm_config_real(const mm_config *config, const char *name);
bool mm_config_bool(const mm_config *config, const char *name);
const char *mm_config_text(const mm_config *config, const char *name);
bool mm_config_is_set(const mm_config *config, const char *name); /* by more than a default */

/* Which of "steps", "tokens" and "epochs" says how long to train; the others lose their values. Two
 * chosen in the same place are MM_EUSAGE. */
MM_NODISCARD mm_status mm_config_length(mm_config *config, const char **decides, mm_err *err);
/* Fills in what was left open ("steps", "eval_interval") with what the data decided; origin "data".
 */
void mm_config_decide(mm_config *config, const char *name, double value);

/* What products and activations are computed in. Left open it becomes what is fastest on this
 * processor, which is stored back (origin "processor"): a record never says "automatic". */
mm_dtype mm_config_dtype(mm_config *config);

/* The model this configuration describes, adapters included; vocab_size filled in by the caller's
 * tokenizer when 0. Stores the resolved sizes back (origin "preset"), so that the record is
 * complete. Values that do not go together are MM_ECONFIG. */
MM_NODISCARD mm_status mm_config_model(mm_config *config, int32_t vocab_size, mm_model_config *out,
                                       mm_err *err);
/* The record for the database; the array lives in the arena. */
MM_NODISCARD mm_status mm_config_params(const mm_config *config, mm_arena *arena, mm_param **out,
                                        size_t *count, mm_err *err);
/* " --flag value" for everything that somebody chose, so that the command rebuilds this
 * configuration. */
void mm_config_add_flags(const mm_config *config, mm_str *out);
/* Takes the shape of the model and its dtype (not the training settings) from a run's parameters;
 * origin "parent". */
MM_NODISCARD mm_status mm_config_shape_from_params(mm_config *config, const mm_param *params,
                                                   size_t count, mm_err *err);
/* The k-th flag of the configuration's stage, NULL at the end: for walking them all. */
const char *mm_config_flag(const mm_config *config, size_t k);
/* True when `name` is a hyperparameter of the stage (flag or database name); *canonical is the
 * database name. */
bool mm_config_known(const mm_config *config, const char *name, const char **canonical);
/* "sft, lora, distill": the stages that have a hyperparameter of this name, and how many. */
size_t mm_config_stages_of(const char *name, char *out, size_t bytes);

#endif
