/* `mmrun import DIR`: a Hugging Face folder becomes a run with one checkpoint, so that eval,
 * generate and export work on it as on a run of our own. */
#include "core/io/hf.h"
#include "runner/commands.h"
#include "runner/config.h"
#include "runner/load.h"
#include "runner/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const mm_option mm_import_options[] = {
    {.name = "name", .type = MM_OPTION_TEXT, .value = "NAME", .help = "name of the run"},
    {.name = "tokenizer",
     .type = MM_OPTION_PATH,
     .value = "PATH",
     .help = "tokenizer, when the folder has none"},
    {.name = "note", .type = MM_OPTION_TEXT, .value = "TEXT", .help = "where it comes from"},
    {0},
};

enum { MODEL_PARAMS = 13, MODEL_SIZES = 8 };

/* The shape as hyperparameters with the origin "import", checked by reading them back: what the
 * configuration cannot say must not be lost in silence. */
static mm_status shape_params(const mm_model_config *shape, mm_config *config, mm_arena *arena,
                              mm_param **out, size_t *count, mm_err *err)
{
    char values[MODEL_PARAMS][40];
    static const char *const NAMES[MODEL_PARAMS] = {"preset",
                                                    "hidden_size",
                                                    "num_hidden_layers",
                                                    "num_attention_heads",
                                                    "num_key_value_heads",
                                                    "head_dim",
                                                    "intermediate_size",
                                                    "vocab_size",
                                                    "max_position_embeddings",
                                                    "rope_theta",
                                                    "rms_norm_eps",
                                                    "tie_word_embeddings",
                                                    "qk_norm"};
    const int32_t sizes[] = {shape->hidden_size,
                             shape->num_hidden_layers,
                             shape->num_attention_heads,
                             shape->num_key_value_heads,
                             shape->head_dim,
                             shape->intermediate_size,
                             shape->vocab_size,
                             shape->max_position_embeddings};
    snprintf(values[0], sizeof values[0], "%s", shape->qk_norm ? "v3" : "v2");
    for (int i = 0; i < MODEL_SIZES; i++)
        snprintf(values[1 + i], sizeof values[0], "%d", (int)sizes[i]);
    snprintf(values[9], sizeof values[0], "%.17g", shape->rope_theta);
    snprintf(values[10], sizeof values[0], "%.17g", shape->rms_norm_eps);
    snprintf(values[11], sizeof values[0], "%s", shape->tie_word_embeddings ? "true" : "false");
    snprintf(values[12], sizeof values[0], "%s", shape->qk_norm ? "true" : "false");
    for (int i = 0; i < MODEL_PARAMS; i++)
        MM_TRY(mm_config_set(config, NAMES[i], values[i], "import", err));
    mm_model_config again;
    MM_TRY(mm_config_model(config, 0, &again, err));
    if (mm_model_config_params(&again) != mm_model_config_params(shape))
        return MM_FAIL(
            err, MM_ECONFIG, "the folder's model has %lld parameters, the shape read from it %lld",
            (long long)mm_model_config_params(shape), (long long)mm_model_config_params(&again));
    mm_param *all = NULL;
    size_t n_all = 0;
    MM_TRY(mm_config_params(config, arena, &all, &n_all, err));
    // How it was trained is not known: only what was read from the folder goes on record.
    size_t n = 0;
    for (size_t i = 0; i < n_all; i++)
        if (strcmp(all[i].origin, "import") == 0) all[n++] = all[i];
    *out = all;
    *count = n;
    return MM_OK;
}

static mm_status write_weights(mm_store *store, int64_t run_id, const mm_model *model,
                               mm_arena *arena, mm_err *err)
{
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(model, &tensors);
    mm_blob *blobs = mm_arena_alloc(arena, (size_t)n * sizeof *blobs);
    if (!blobs) return MM_FAIL(err, MM_ENOMEM, "out of memory for %d tensors", (int)n);
    for (int32_t i = 0; i < n; i++)
        blobs[i] = mm_blob_of(&tensors[i], tensors[i].name, tensors[i].data);
    const mm_checkpoint_new checkpoint = {.run_id = run_id,
                                          .step = 0,
                                          .kind = "weights",
                                          .state = "{}",
                                          .val_loss = (double)NAN,
                                          .is_final = true,
                                          .blobs = blobs,
                                          .n_blobs = (size_t)n};
    int64_t id = 0;
    return mm_checkpoint_write(store, &checkpoint, &id, err);
}

/* The folder's contents, in memory. */
typedef struct imported {
    mm_model *model;
    mm_tokenizer *tokenizer;
    mm_config *config;
    mm_param *params;
    size_t n_params;
    mm_arena arena;
} imported;

static mm_status read_folder(const mm_context *context, const mm_args *args, imported *in,
                             mm_err *err)
{
    const char *dir = mm_args_at(args, 0);
    const char *tokenizer = mm_args_text(args, "tokenizer");
    MM_TRY(mm_hf_import(dir, &in->model, &in->tokenizer, err));
    if (tokenizer) {
        mm_tokenizer_free(in->tokenizer);
        in->tokenizer = NULL;
        MM_TRY(mm_context_tokenizer(context, tokenizer, &in->tokenizer, err));
    }
    if (!in->tokenizer)
        return MM_FAIL(err, MM_ENOTFOUND,
                       "%s holds no tokenizer.json\nname one with --tokenizer PATH", dir);
    const mm_model_config *shape = mm_model_config_of(in->model);
    if (mm_tokenizer_vocab(in->tokenizer) > shape->vocab_size)
        return MM_FAIL(err, MM_ECONFIG, "the tokenizer has %d tokens, the model of %s only %d",
                       (int)mm_tokenizer_vocab(in->tokenizer), dir, (int)shape->vocab_size);
    MM_TRY(mm_config_new(&in->config, "pretrain", err));
    MM_TRY(shape_params(shape, in->config, &in->arena, &in->params, &in->n_params, err));
    mm_param *params = mm_arena_alloc(&in->arena, (in->n_params + 1) * sizeof *params);
    if (!params) return MM_FAIL(err, MM_ENOMEM, "out of memory");
    memcpy(params, in->params, in->n_params * sizeof *params);
    params[in->n_params++] = (mm_param){
        .name = "tokenizer_hash", .value = mm_tokenizer_hash(in->tokenizer), .origin = "import"};
    in->params = params;
    return MM_OK;
}

static mm_status record(const mm_context *context, const mm_args *args, mm_store *store,
                        imported *in, int64_t *run_id, mm_err *err)
{
    mm_str command = {0};
    mm_claim *claim = NULL;
    const int64_t n = mm_model_config_params(mm_model_config_of(in->model));
    mm_status status = MM_OK;
    MM_GO(mm_command_text(context, &command, err));
    const mm_run_new run = {.name = mm_args_text(args, "name"),
                            .stage = "import",
                            .parent_step = -1,
                            .device = "cpu",
                            .dtype = "fp32",
                            .params_total = n,
                            .params_trainable = n,
                            .command = mm_str_text(&command),
                            .version = MMRUN_VERSION,
                            .notes = mm_args_text(args, "note"),
                            .params = in->params,
                            .n_params = in->n_params};
    MM_GO(mm_save_tokenizer(store, in->tokenizer, err));
    MM_GO(mm_store_run_create(store, &run, run_id, err));
    MM_GO(mm_run_claim(&claim, store, *run_id, -1, err));
    MM_GO(write_weights(store, *run_id, in->model, &in->arena, err));
    mm_claim *ending = claim;
    claim = NULL; // freed by ending it, in every case
    MM_GO(mm_run_end(ending, "finished", NULL, err));
done:
    if (claim) {
        const mm_status ended = mm_run_end(claim, "failed", err ? err->message : NULL, NULL);
        (void)ended; // the first failure is the one to report
    }
    mm_str_drop(&command);
    return status;
}

mm_status mm_cmd_import(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    imported in = {0};
    int64_t run_id = 0;
    mm_run_info run;
    mm_status status = MM_OK;
    MM_GO(read_folder(context, args, &in, err));
    MM_GO(mm_context_store(context, MM_STORE_CREATE, &store, err));
    MM_GO(record(context, args, store, &in, &run_id, err));
    MM_GO(mm_store_run(store, run_id, &in.arena, &run, err));
    mm_say(context, "%s: %lld parameters. Try `mmrun generate %s \"...\"`", run.name,
           (long long)run.params_total, run.name);
    if (context->json) {
        json_t *object = json_pack("{s:o}", "run", mm_json_of_run(&run));
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", run.name);
    }
done:
    mm_store_close(store);
    mm_config_free(in.config);
    mm_tokenizer_free(in.tokenizer);
    mm_model_free(in.model);
    mm_arena_drop(&in.arena);
    return status;
}
