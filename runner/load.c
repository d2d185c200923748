/* From a reference to a model with its tokenizer in memory. */
#include "runner/load.h"

#include <math.h>
#include <string.h>

const char *mm_param_find(const mm_param *params, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(params[i].name, name) == 0) return params[i].value;
    return NULL;
}

mm_status mm_load_tokenizer(mm_tokenizer **out, mm_store *store, const char *hash, mm_err *err)
{
    mm_str json = {0};
    mm_str settings = {0};
    mm_status status = MM_OK;
    *out = NULL;
    MM_GO(mm_store_tokenizer_get(store, hash, &json, &settings, err));
    MM_GO(mm_tokenizer_parse(out, mm_str_text(&json), json.length, mm_str_text(&settings),
                             settings.length, "tokenizer of the run", err));
done:
    mm_str_drop(&json);
    mm_str_drop(&settings);
    return status;
}

mm_status mm_save_tokenizer(mm_store *store, const mm_tokenizer *tokenizer, mm_err *err)
{
    mm_str json = {0};
    mm_str settings = {0};
    mm_status status = MM_OK;
    MM_GO(mm_tokenizer_json(tokenizer, &json, err));
    MM_GO(mm_tokenizer_config_json(tokenizer, &settings, err));
    MM_GO(mm_store_tokenizer_put(store, mm_tokenizer_hash(tokenizer), mm_str_text(&json),
                                 json.length, mm_str_text(&settings), settings.length, err));
done:
    mm_str_drop(&settings);
    mm_str_drop(&json);
    return status;
}

mm_blob mm_blob_of(const mm_tensor *tensor, const char *name, const float *data)
{
    mm_blob blob = {.name = name,
                    .dtype = "F32",
                    .element_bytes = sizeof(float),
                    .ndim = tensor->ndim,
                    .data = data,
                    .bytes = (size_t)tensor->count * sizeof(float)};
    memcpy(blob.shape, tensor->shape, sizeof blob.shape);
    return blob;
}

static mm_status write_weights(mm_store *store, int64_t run_id, const mm_model *model,
                               int64_t base_id, mm_err *err)
{
    mm_arena arena = {0};
    mm_status status = MM_OK;
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(model, &tensors);
    mm_blob *blobs = mm_arena_alloc(&arena, (size_t)n * sizeof *blobs);
    if (!blobs) return MM_FAIL(err, MM_ENOMEM, "out of memory for %d tensors", (int)n);
    for (int32_t i = 0; i < n; i++) {
        blobs[i] = mm_blob_of(&tensors[i], tensors[i].name, tensors[i].data);
        blobs[i].is_frozen = base_id > 0 && !tensors[i].trains;
    }
    const mm_checkpoint_new checkpoint = {.run_id = run_id,
                                          .step = 0,
                                          .kind = "weights",
                                          .state = "{}",
                                          .val_loss = (double)NAN,
                                          .is_final = true,
                                          .blobs = blobs,
                                          .n_blobs = (size_t)n,
                                          .base_id = base_id};
    int64_t id = 0;
    status = mm_checkpoint_write(store, &checkpoint, &id, err);
    mm_arena_drop(&arena);
    return status;
}

mm_status mm_save_run(mm_store *store, const mm_run_new *run, const mm_model *model,
                      const mm_tokenizer *tokenizer, int64_t base_id, int64_t *run_id, mm_err *err)
{
    mm_claim *claim = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_save_tokenizer(store, tokenizer, err));
    MM_GO(mm_store_run_create(store, run, run_id, err));
    MM_GO(mm_run_claim(&claim, store, *run_id, -1, err));
    MM_GO(write_weights(store, *run_id, model, base_id, err));
    mm_claim *ending = claim;
    claim = NULL; // freed by ending it, in every case
    MM_GO(mm_run_end(ending, "finished", NULL, err));
done:
    if (claim) {
        const mm_status ended = mm_run_end(claim, "failed", err ? err->message : NULL, NULL);
        (void)ended; // the first failure is the one to report
    }
    return status;
}

static mm_status load_parts(mm_loaded *out, mm_store *store, const char *reference, bool merged,
                            mm_err *err)
{
    mm_run_ref ref;
    mm_param *params = NULL;
    size_t n_params = 0;
    MM_TRY(mm_store_resolve(store, reference, &ref, err));
    MM_TRY(mm_store_run(store, ref.run_id, &out->arena, &out->run, err));
    MM_TRY(mm_store_resolve_checkpoint(store, &ref, &out->arena, &out->checkpoint, err));
    MM_TRY(mm_store_params(store, ref.run_id, &out->arena, &params, &n_params, err));
    const char *hash = mm_param_find(params, n_params, "tokenizer_hash");
    if (!hash)
        return MM_FAIL(err, MM_ENOTFOUND, "run '%s' has no tokenizer on record", out->run.name);
    MM_TRY(mm_config_new(&out->config, out->run.stage, err));
    MM_TRY(mm_config_from_params(out->config, params, n_params, NULL, err));
    MM_TRY(mm_load_tokenizer(&out->tokenizer, store, hash, err));
    mm_model_config shape;
    MM_TRY(mm_config_model(out->config, mm_tokenizer_vocab(out->tokenizer), &shape, err));
    if (merged) shape.lora_rank = 0;
    MM_TRY(mm_model_new(&out->model, &shape, MM_F32, err));
    return mm_load_weights(out->model, store, &out->checkpoint, err);
}

mm_status mm_load_run(mm_loaded *out, mm_store *store, const char *reference, mm_err *err)
{
    *out = (mm_loaded){0};
    return load_parts(out, store, reference, false, err);
}

mm_status mm_load_merged(mm_loaded *out, mm_store *store, const char *reference, mm_err *err)
{
    *out = (mm_loaded){0};
    return load_parts(out, store, reference, true, err);
}

void mm_loaded_drop(mm_loaded *loaded)
{
    if (!loaded) return;
    mm_model_free(loaded->model);
    mm_tokenizer_free(loaded->tokenizer);
    mm_config_free(loaded->config);
    mm_arena_drop(&loaded->arena);
    *loaded = (mm_loaded){0};
}

mm_dtype mm_loaded_dtype(const mm_loaded *loaded, const char *wish)
{
    const char *dtype = wish ? wish : loaded->run.dtype;
    return dtype && strcmp(dtype, "bf16") == 0 ? MM_BF16 : MM_F32;
}

const mm_option mm_load_options[] = {
    {.name = "lora",
     .type = MM_OPTION_TEXT,
     .value = "RUN",
     .repeats = true,
     .group = "Model",
     .help = "with the adapters of that run on top; several follow one another"},
    {.name = "any-base",
     .type = MM_OPTION_FLAG,
     .group = "Model",
     .help = "take adapters that were trained on another base"},
    {.name = "dtype",
     .type = MM_OPTION_CHOICE,
     .value = "fp32|bf16",
     .choices = "fp32,bf16",
     .group = "Model",
     .help = "precision of products and activations (the run's)"},
    {.name = "threads",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 0,
     .max = 1024,
     .group = "Model",
     .help = "worker threads (all)"},
    {0},
};

mm_status mm_load_run_as_asked(mm_loaded *out, mm_store *store, const char *reference,
                               const mm_args *args, mm_err *err)
{
    size_t n = 0;
    const char *const *adapters = mm_args_list(args, "lora", &n);
    MM_TRY(mm_load_run(out, store, reference, err));
    for (size_t i = 0; i < n; i++)
        MM_TRY(mm_load_adapter(out, store, adapters[i], mm_args_has(args, "any-base"), err));
    return MM_OK;
}
