/* From a reference (RUN, RUN@STEP, RUN@best) to a model with its tokenizer in memory; and the way
 * back, tensors and tokenizer as the store takes them. A run that trained adapters is a model with
 * adapters. */
#ifndef MM_RUNNER_LOAD_H
#define MM_RUNNER_LOAD_H

#include "core/text/tokenizer.h"
#include "runner/config.h"
#include "store/query.h"

typedef struct mm_loaded {
    mm_arena arena; /* holds the strings of `run` and `checkpoint` */
    mm_run_info run;
    mm_checkpoint_info checkpoint;
    mm_config *config;
    mm_tokenizer *tokenizer;
    mm_model *model;
} mm_loaded;

/* Weights verified chunk by chunk. The caller drops it in every case. */
MM_NODISCARD mm_status mm_load_run(mm_loaded *out, mm_store *store, const char *reference,
                                   mm_err *err);
/* The same with adapters merged into the weights: a model without adapters. */
MM_NODISCARD mm_status mm_load_merged(mm_loaded *out, mm_store *store, const char *reference,
                                      mm_err *err);
void mm_loaded_drop(mm_loaded *loaded);
/* What to compute in: `wish` ("fp32", "bf16") or, where it is NULL, as the run was trained. */
mm_dtype mm_loaded_dtype(const mm_loaded *loaded, const char *wish);

/* Value of a run's parameter that is not a hyperparameter ("tokenizer_hash", "prompts"); NULL when
 * absent. */
const char *mm_param_find(const mm_param *params, size_t count, const char *name);
/* The tokenizer kept in the database under this hash. */
MM_NODISCARD mm_status mm_load_tokenizer(mm_tokenizer **out, mm_store *store, const char *hash,
                                         mm_err *err);
/* Keeps it there; once for each hash. */
MM_NODISCARD mm_status mm_save_tokenizer(mm_store *store, const mm_tokenizer *tokenizer,
                                         mm_err *err);
/* A tensor, or its moments at `data`, as a part of a checkpoint. `name` and `data` are borrowed. */
mm_blob mm_blob_of(const mm_tensor *tensor, const char *name, const float *data);
/* Records a finished run whose only checkpoint, at step 0, is this model. `base_id`: a checkpoint
 * whose arrays the tensors that do not train are; 0: none. */
MM_NODISCARD mm_status mm_save_run(mm_store *store, const mm_run_new *run, const mm_model *model,
                                   const mm_tokenizer *tokenizer, int64_t base_id, int64_t *run_id,
                                   mm_err *err);
/* Fills the model from a checkpoint, after comparing names, shapes, digests and state with its own
 * digest. Adapters of the checkpoint come into a model without adapters merged into the weights;
 * adapters of a model that the checkpoint lacks stay as they are. A tensor of the base that the
 * checkpoint lacks, or adapters of another form, are errors. */
MM_NODISCARD mm_status mm_load_weights(mm_model *model, mm_store *store,
                                       const mm_checkpoint_info *checkpoint, mm_err *err);
/* Merges the adapters of another run (`--lora RUN`) into the weights of a loaded one; several
 * follow one another. Another shape, another tokenizer or another base are refused with the list of
 * the differences; `any_base` allows the last. */
MM_NODISCARD mm_status mm_load_adapter(mm_loaded *loaded, mm_store *store, const char *reference,
                                       bool any_base, mm_err *err);

/* What commands that use a model share: --lora, --any-base, --dtype, --threads. */
extern const mm_option mm_load_options[];
/* mm_load_run with the adapters that --lora names, one after the other. */
MM_NODISCARD mm_status mm_load_run_as_asked(mm_loaded *out, mm_store *store, const char *reference,
                                            const mm_args *args, mm_err *err);

#endif
