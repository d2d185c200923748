/* Weights of a checkpoint, and adapters of other runs, into a model. See load.h.
 *
 * The subtle rule: an adapter is a difference to the one base it was trained on. Its run's
 * checkpoint names the base's arrays too, so that the digests say whether another base is the same.
 */
#include "core/nn/lora.h"
#include "runner/load.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a checkpoint holds. */
typedef struct contents {
    mm_arena arena;
    mm_blob *blobs;
    size_t n;
    bool has_adapters;
} contents;

static mm_status contents_open(contents *out, mm_store *store, int64_t checkpoint_id, mm_err *err)
{
    *out = (contents){0};
    MM_TRY(mm_checkpoint_blobs(store, checkpoint_id, &out->arena, &out->blobs, &out->n, err));
    for (size_t i = 0; i < out->n; i++)
        out->has_adapters = out->has_adapters || mm_lora_is_adapter(out->blobs[i].name);
    return MM_OK;
}

static const mm_blob *find_blob(const contents *from, const char *name)
{
    for (size_t i = 0; i < from->n; i++)
        if (strcmp(from->blobs[i].name, name) == 0) return &from->blobs[i];
    return NULL;
}

/* ---- adapters that are merged -----------------------------------------------------------------
 */

/* alpha of the run; its rank is read from the arrays. */
static mm_status alpha_of(mm_store *store, int64_t run_id, double *alpha, mm_err *err)
{
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n = 0;
    mm_status status = MM_OK;
    MM_GO(mm_store_params(store, run_id, &arena, &params, &n, err));
    const char *text = mm_param_find(params, n, "lora_alpha");
    *alpha = text ? strtod(text, NULL) : 0;
    if (!(*alpha > 0))
        status =
            MM_FAIL(err, MM_ECORRUPT, "run %" PRId64 " has adapters, but no lora_alpha", run_id);
done:
    mm_arena_drop(&arena);
    return status;
}

/* "model.….lora_A.weight", not its moments. */
static bool is_first_array(const mm_blob *blob)
{
    return strncmp(blob->name, "model.", strlen("model.")) == 0 &&
           strstr(blob->name, ".lora_A.weight") && blob->ndim == 2;
}

/* One adapter of a checkpoint, read into memory, and the weight it belongs to. */
typedef struct stored_adapter {
    const mm_tensor *weight;
    int64_t rank;
    float *a;
    float *b;
} stored_adapter;

static void adapter_drop(stored_adapter *part)
{
    mm_free(part->a);
    mm_free(part->b);
}

/* `a` is its first array, "STEM.lora_A.weight". */
static mm_status adapter_read(stored_adapter *out, const mm_model *model, mm_store *store,
                              int64_t checkpoint_id, const contents *from, const mm_blob *a,
                              mm_err *err)
{
    char name[sizeof((mm_tensor *)0)->name];
    const int stem = (int)(strstr(a->name, ".lora_A.weight") - a->name);
    *out = (stored_adapter){.rank = a->shape[0]};
    snprintf(name, sizeof name, "%.*s.weight", stem, a->name);
    out->weight = mm_model_find(model, name);
    if (!out->weight)
        return MM_FAIL(err, MM_EFORMAT, "%s: the model has no weight %s", a->name, name);
    snprintf(name, sizeof name, "%.*s.lora_B.weight", stem, a->name);
    const mm_blob *b = find_blob(from, name);
    const int64_t *shape = out->weight->shape;
    const bool fits = b && a->ndim == 2 && b->ndim == 2 && out->rank > 0 &&
                      a->shape[1] == shape[1] && b->shape[0] == shape[0] &&
                      b->shape[1] == out->rank;
    if (!fits)
        return MM_FAIL(err, MM_EFORMAT, "%s and %s do not fit a weight of %" PRId64 " x %" PRId64,
                       a->name, name, shape[0], shape[1]);
    const size_t a_bytes = (size_t)(out->rank * shape[1]) * sizeof(float);
    const size_t b_bytes = (size_t)(shape[0] * out->rank) * sizeof(float);
    out->a = mm_alloc(a_bytes);
    out->b = mm_alloc(b_bytes);
    if (!out->a || !out->b) return MM_FAIL(err, MM_ENOMEM, "out of memory for an adapter");
    MM_TRY(mm_checkpoint_read(store, checkpoint_id, a->name, out->a, a_bytes, err));
    return mm_checkpoint_read(store, checkpoint_id, b->name, out->b, b_bytes, err);
}

static mm_status merge_stored(mm_model *model, mm_store *store,
                              const mm_checkpoint_info *checkpoint, const contents *from,
                              mm_err *err)
{
    double alpha = 0;
    MM_TRY(alpha_of(store, checkpoint->run_id, &alpha, err));
    for (size_t i = 0; i < from->n; i++) {
        if (!is_first_array(&from->blobs[i])) continue;
        stored_adapter part;
        const mm_status status =
            adapter_read(&part, model, store, checkpoint->id, from, &from->blobs[i], err);
        if (status == MM_OK)
            mm_lora_add(
                part.weight->data,
                (mm_lora_dims){.n_in = part.weight->shape[1], .n_out = part.weight->shape[0]},
                part.a, part.b, part.rank, alpha / (double)part.rank);
        adapter_drop(&part);
        MM_TRY(status);
    }
    return MM_OK;
}

/* ---- a checkpoint into a model ----------------------------------------------------------------
 */

static mm_status read_tensor(const mm_tensor *tensor, mm_store *store,
                             const mm_checkpoint_info *checkpoint, const contents *from,
                             mm_err *err)
{
    const mm_blob *blob = find_blob(from, tensor->name);
    const size_t bytes = (size_t)tensor->count * sizeof(float);
    if (!blob && mm_lora_is_adapter(tensor->name) && !from->has_adapters) return MM_OK;
    if (!blob)
        return MM_FAIL(err, MM_ENOTFOUND,
                       "the checkpoint of run %" PRId64 " at step %" PRId64 " has no %s",
                       checkpoint->run_id, checkpoint->step, tensor->name);
    bool is_equal = blob->ndim == tensor->ndim && blob->bytes == bytes;
    for (int32_t d = 0; d < tensor->ndim; d++)
        is_equal = is_equal && blob->shape[d] == tensor->shape[d];
    if (!is_equal)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s of run %" PRId64 " at step %" PRId64 " is %" PRId64 " x %" PRId64
                       ": expected %" PRId64 " x %" PRId64,
                       tensor->name, checkpoint->run_id, checkpoint->step, blob->shape[0],
                       blob->ndim > 1 ? blob->shape[1] : 1, tensor->shape[0],
                       tensor->ndim > 1 ? tensor->shape[1] : 1);
    return mm_checkpoint_read(store, checkpoint->id, tensor->name, tensor->data, bytes, err);
}

/* Adapters that the model has no place for would be left behind in silence, and those that count
 * more or less often there would be another function. */
static mm_status check_adapters(const mm_model *model, mm_store *store,
                                const mm_checkpoint_info *checkpoint, const contents *from,
                                mm_err *err)
{
    const mm_model_config *config = mm_model_config_of(model);
    double alpha = 0;
    int64_t rank = 0;
    bool fits = true;
    if (!from->has_adapters) return MM_OK;
    MM_TRY(alpha_of(store, checkpoint->run_id, &alpha, err));
    for (size_t i = 0; i < from->n; i++) {
        const mm_blob *blob = &from->blobs[i];
        if (!is_first_array(blob)) continue;
        rank = blob->shape[0];
        fits = fits && rank == config->lora_rank && mm_model_find(model, blob->name);
    }
    if (fits && fabs(alpha - config->lora_alpha) <= 1e-9 * alpha) return MM_OK;
    return MM_FAIL(err, MM_EUSAGE,
                   "run %" PRId64 " has adapters of another form (rank %" PRId64
                   ", alpha %g); go on with the same --rank, --alpha and --targets, or on the "
                   "weights that `mmrun merge` makes of it",
                   checkpoint->run_id, rank, alpha);
}

mm_status mm_load_weights(mm_model *model, mm_store *store, const mm_checkpoint_info *checkpoint,
                          mm_err *err)
{
    contents from;
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(model, &tensors);
    const bool is_merged = mm_model_first_trained(model) == 0;
    mm_status status = MM_OK;
    MM_GO(contents_open(&from, store, checkpoint->id, err));
    if (!is_merged) MM_GO(check_adapters(model, store, checkpoint, &from, err));
    for (int32_t i = 0; i < n; i++)
        MM_GO(read_tensor(&tensors[i], store, checkpoint, &from, err));
    if (is_merged && from.has_adapters) MM_GO(merge_stored(model, store, checkpoint, &from, err));
done:
    mm_arena_drop(&from.arena);
    return status;
}

/* ---- adapters of another run ------------------------------------------------------------------
 */

/* Another run, as far as its adapters are concerned. */
typedef struct adapter_run {
    mm_arena arena;
    mm_run_info run;
    mm_checkpoint_info checkpoint;
    mm_param *params;
    size_t n_params;
    contents from;
} adapter_run;

static void adapter_run_drop(adapter_run *other)
{
    mm_arena_drop(&other->from.arena);
    mm_arena_drop(&other->arena);
}

static mm_status adapter_run_open(adapter_run *out, mm_store *store, const char *reference,
                                  mm_err *err)
{
    mm_run_ref ref;
    const mm_status status = mm_store_resolve(store, reference, &ref, err);
    if (status != MM_OK) {
        mm_err_context(err, "--lora %s", reference);
        return status;
    }
    MM_TRY(mm_store_run(store, ref.run_id, &out->arena, &out->run, err));
    MM_TRY(mm_store_resolve_checkpoint(store, &ref, &out->arena, &out->checkpoint, err));
    MM_TRY(mm_store_params(store, ref.run_id, &out->arena, &out->params, &out->n_params, err));
    MM_TRY(contents_open(&out->from, store, out->checkpoint.id, err));
    if (!out->from.has_adapters)
        return MM_FAIL(err, MM_EUSAGE,
                       "--lora %s: run '%s' is a %s run without adapters; expected one of `mmrun "
                       "lora`",
                       reference, out->run.name, out->run.stage);
    return MM_OK;
}

static void add_difference(mm_str *out, const char *what, const char *has, const char *expected)
{
    mm_str_addf(out, "\n  %s %s, here %s", what, has, expected);
}

static void compare_shapes(const adapter_run *other, const mm_config *config, mm_str *out)
{
    static const char *const NAMES[] = {
        "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim",    "intermediate_size", "vocab_size",          "tie_word_embeddings",
        "qk_norm",     "rope_theta",        "rms_norm_eps"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        const char *has = mm_param_find(other->params, other->n_params, NAMES[i]);
        const char *expected = mm_config_text(config, NAMES[i]);
        if (has && *expected && strcmp(has, expected) != 0)
            add_difference(out, NAMES[i], has, expected);
    }
}

/* The base below the adapters against the weights that the loaded run came with. */
static mm_status compare_bases(const adapter_run *other, const mm_loaded *loaded, mm_store *store,
                               mm_str *out, mm_err *err)
{
    contents here;
    int64_t n = 0;
    int64_t n_different = 0;
    mm_status status = MM_OK;
    MM_GO(contents_open(&here, store, loaded->checkpoint.id, err));
    for (size_t i = 0; i < other->from.n; i++) {
        const mm_blob *base = &other->from.blobs[i];
        const mm_tensor *tensor = mm_model_find(loaded->model, base->name);
        if (!tensor || mm_lora_is_adapter(base->name)) continue;
        const mm_blob *same = find_blob(&here, base->name);
        n++;
        n_different += !same || memcmp(base->sha256, same->sha256, MM_SHA256_BYTES) != 0;
    }
    if (n_different > 0)
        mm_str_addf(out,
                    "\n  another base: %" PRId64 " of %" PRId64 " weights differ (--any-base adds "
                    "the adapters all the same)",
                    n_different, n);
done:
    mm_arena_drop(&here.arena);
    return status;
}

static mm_status check_fit(const adapter_run *other, const mm_loaded *loaded, mm_store *store,
                           bool any_base, mm_err *err)
{
    enum { HASH_SHOWN = 12 };
    mm_str differences = {0};
    char hashes[2][HASH_SHOWN + 1];
    mm_status status = MM_OK;
    compare_shapes(other, loaded->config, &differences);
    const bool has_shape = differences.length == 0;
    const char *hash = mm_param_find(other->params, other->n_params, "tokenizer_hash");
    snprintf(hashes[0], sizeof hashes[0], "%s", hash ? hash : "unknown");
    snprintf(hashes[1], sizeof hashes[1], "%s", mm_tokenizer_hash(loaded->tokenizer));
    if (!hash || strcmp(hash, mm_tokenizer_hash(loaded->tokenizer)) != 0)
        add_difference(&differences, "tokenizer", hashes[0], hashes[1]);
    if (has_shape && !any_base) MM_GO(compare_bases(other, loaded, store, &differences, err));
    if (differences.length > 0)
        status = MM_FAIL(err, MM_EUSAGE, "the adapters of '%s' do not fit '%s':%s", other->run.name,
                         loaded->run.name, mm_str_text(&differences));
done:
    mm_str_drop(&differences);
    return status;
}

mm_status mm_load_adapter(mm_loaded *loaded, mm_store *store, const char *reference, bool any_base,
                          mm_err *err)
{
    adapter_run other = {0};
    mm_status status = MM_OK;
    MM_GO(adapter_run_open(&other, store, reference, err));
    MM_GO(check_fit(&other, loaded, store, any_base, err));
    MM_GO(merge_stored(loaded->model, store, &other.checkpoint, &other.from, err));
done:
    adapter_run_drop(&other);
    return status;
}
