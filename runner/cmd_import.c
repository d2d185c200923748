/* `mmrun import DIR`: a Hugging Face folder becomes a run with one checkpoint, so that eval,
 * generate and export work on it as on a run of our own. A folder of adapters becomes a lora run on
 * the base that --base names. */
#include "core/io/hf.h"
#include "core/io/peft.h"
#include "core/nn/lora.h"
#include "runner/commands.h"
#include "runner/config.h"
#include "runner/load.h"
#include "runner/train.h"

#include <stdio.h>
#include <string.h>

const mm_option mm_import_options[] = {
    {.name = "name", .type = MM_OPTION_TEXT, .value = "NAME", .help = "name of the run"},
    {.name = "tokenizer",
     .type = MM_OPTION_PATH,
     .value = "PATH",
     .help = "tokenizer, when the folder has none"},
    {.name = "base",
     .type = MM_OPTION_TEXT,
     .value = "RUN",
     .help = "run that the folder's adapters were trained on"},
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

/* The folder's contents, in memory. */
typedef struct imported {
    mm_model *model;
    mm_tokenizer *tokenizer;
    mm_config *config;
    mm_param *params;
    size_t n_params;
    mm_arena arena;
    mm_loaded base;  /* of adapters */
    int64_t base_id; /* checkpoint that holds the base as it is */
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
                        const imported *in, int64_t *run_id, mm_err *err)
{
    mm_str command = {0};
    const mm_model_config *shape = mm_model_config_of(in->model);
    const bool is_base = shape->lora_rank == 0;
    mm_status status = MM_OK;
    MM_GO(mm_command_text(context, &command, err));
    const mm_run_new run = {.name = mm_args_text(args, "name"),
                            .stage = is_base ? "import" : "lora",
                            .parent_id = in->base.run.id,
                            .parent_step = is_base ? -1 : in->base.checkpoint.step,
                            .device = "cpu",
                            .dtype = is_base ? "fp32" : in->base.run.dtype,
                            .params_total = mm_model_config_params(shape),
                            .params_trainable = mm_model_config_trainable(shape),
                            .command = mm_str_text(&command),
                            .version = MMRUN_VERSION,
                            .notes = mm_args_text(args, "note"),
                            .params = in->params,
                            .n_params = in->n_params};
    MM_GO(mm_save_run(store, &run, in->model, in->tokenizer, in->base_id, run_id, err));
done:
    mm_str_drop(&command);
    return status;
}

/* ---- adapters ----------------------------------------------------------------------------------
 */

/* The shape of the base and what the folder says of the adapters, as parameters of a lora run. */
static mm_status adapter_params(mm_store *store, imported *in, const mm_model_config *shape,
                                mm_err *err)
{
    char text[32];
    mm_str targets = {0};
    mm_param *params = NULL;
    mm_param *all = NULL;
    size_t n = 0;
    size_t n_all = 0;
    mm_status status = MM_OK;
    MM_GO(mm_store_params(store, in->base.run.id, &in->arena, &params, &n, err));
    MM_GO(mm_config_new(&in->config, "lora", err));
    MM_GO(mm_config_shape_from_params(in->config, params, n, err));
    snprintf(text, sizeof text, "%d", (int)shape->lora_rank);
    MM_GO(mm_config_set(in->config, "lora_rank", text, "import", err));
    snprintf(text, sizeof text, "%.17g", shape->lora_alpha);
    MM_GO(mm_config_set(in->config, "lora_alpha", text, "import", err));
    mm_lora_targets_text(shape->lora_targets, &targets);
    MM_GO(mm_config_set(in->config, "lora_targets", mm_str_text(&targets), "import", err));
    MM_GO(mm_config_params(in->config, &in->arena, &all, &n_all, err));
    in->params = mm_arena_alloc(&in->arena, (n_all + 1) * sizeof *in->params);
    if (!in->params) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory");
        goto done;
    }
    for (size_t i = 0; i < n_all; i++)
        if (strcmp(all[i].origin, "parent") == 0 || strcmp(all[i].origin, "import") == 0)
            in->params[in->n_params++] = all[i];
    in->params[in->n_params++] = (mm_param){
        .name = "tokenizer_hash", .value = mm_tokenizer_hash(in->tokenizer), .origin = "parent"};
done:
    mm_str_drop(&targets);
    return status;
}

/* The model of the base run with the folder's adapters. */
static mm_status read_adapters(const mm_args *args, mm_store *store, imported *in, mm_err *err)
{
    const char *dir = mm_args_at(args, 0);
    int64_t n = 0;
    MM_TRY(mm_load_merged(&in->base, store, mm_args_text(args, "base"), err));
    mm_model_config shape = *mm_model_config_of(in->base.model);
    MM_TRY(mm_peft_config_read(dir, &shape, err));
    MM_TRY(mm_model_new(&in->model, &shape, MM_F32, err));
    const void *base = mm_model_data(in->base.model, &n);
    memcpy(mm_model_data(in->model, NULL), base, (size_t)n * sizeof(float));
    MM_TRY(mm_peft_import(dir, in->model, err));
    in->tokenizer = in->base.tokenizer;
    in->base.tokenizer = NULL;
    // A base that was merged here for the first time is nowhere else.
    if (mm_config_int(in->base.config, "lora_rank") == 0) in->base_id = in->base.checkpoint.id;
    return adapter_params(store, in, &shape, err);
}

/* What of the two a folder is, and whether the options fit. */
static mm_status check_folder(const mm_args *args, bool *is_adapters, mm_err *err)
{
    const char *dir = mm_args_at(args, 0);
    *is_adapters = mm_peft_is_folder(dir);
    if (*is_adapters && !mm_args_has(args, "base"))
        return MM_FAIL(err, MM_EUSAGE,
                       "%s holds adapters, which are nothing without the weights they were trained "
                       "on\nname the run with --base RUN",
                       dir);
    if (!*is_adapters && mm_args_has(args, "base"))
        return MM_FAIL(err, MM_EUSAGE, "--base: %s holds no adapters (no adapter_config.json)",
                       dir);
    if (*is_adapters && mm_args_has(args, "tokenizer"))
        return MM_FAIL(err, MM_EUSAGE, "--tokenizer: adapters have that of their base");
    return MM_OK;
}

mm_status mm_cmd_import(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    imported in = {0};
    int64_t run_id = 0;
    mm_run_info run;
    mm_status status = MM_OK;
    bool is_adapters = false;
    MM_GO(check_folder(args, &is_adapters, err));
    if (!is_adapters) MM_GO(read_folder(context, args, &in, err));
    MM_GO(mm_context_store(context, is_adapters ? MM_STORE_WRITE : MM_STORE_CREATE, &store, err));
    if (is_adapters) MM_GO(read_adapters(args, store, &in, err));
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
    mm_loaded_drop(&in.base);
    mm_config_free(in.config);
    mm_tokenizer_free(in.tokenizer);
    mm_model_free(in.model);
    mm_arena_drop(&in.arena);
    return status;
}
