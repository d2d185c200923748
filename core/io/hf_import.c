/* Import of a Hugging Face folder: config.json, then weights by name, then the tokenizer.
 *
 * The weights must be exactly the tensors of the model: one missing, one too many or one of another
 * shape is an error that names it. The memory that is allocated is bounded by the size of the
 * weight files, not by what config.json claims.
 */
#include "core/io/hf.h"

#include "core/base/json.h"
#include "core/io/safetensors.h"

#include <stdio.h>
#include <string.h>

enum { INDEX_BYTES_MAX = 64 << 20, SHARDS_MAX = 1024, NAMES_SHOWN = 3 };

static const char HEAD[] = "lm_head.weight";
static const char EMBEDDING[] = "model.embed_tokens.weight";

typedef struct weight_files {
    mm_safetensors *files[SHARDS_MAX];
    char *names[SHARDS_MAX]; // file names within the folder
    size_t count;
} weight_files;

static void weight_files_close(weight_files *weights)
{
    for (size_t i = 0; i < weights->count; i++) {
        mm_safetensors_close(weights->files[i]);
        mm_free(weights->names[i]);
    }
    weights->count = 0;
}

static const mm_safetensor *weight_find(const weight_files *weights, const char *name)
{
    for (size_t i = 0; i < weights->count; i++) {
        const mm_safetensor *tensor = mm_safetensors_find(weights->files[i], name);
        if (tensor) return tensor;
    }
    return NULL;
}

static size_t weight_count(const weight_files *weights)
{
    size_t count = 0;
    for (size_t i = 0; i < weights->count; i++)
        count += mm_safetensors_count(weights->files[i]);
    return count;
}

static mm_status weight_file_add(weight_files *weights, const char *dir, const char *name,
                                 mm_err *err)
{
    if (weights->count == SHARDS_MAX)
        return MM_FAIL(err, MM_ELIMIT, "%s: more than %d weight files", dir, SHARDS_MAX);
    mm_status status = MM_OK;
    char *path = NULL;
    char *copy = mm_strdup(name);
    mm_safetensors *file = NULL;
    if (!copy) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", dir);
    MM_GO(mm_path_join(&path, dir, name, err));
    MM_GO(mm_safetensors_open(&file, path, err));
    weights->files[weights->count] = file;
    weights->names[weights->count] = copy;
    weights->count++;
    copy = NULL;
done:
    mm_free(copy);
    mm_free(path);
    return status;
}

/* A shard is a plain file name: the index must not lead out of the folder. */
static bool is_shard_name(const char *name)
{
    static const char ending[] = ".safetensors";
    const size_t length = strlen(name);
    return length > sizeof ending - 1 && length <= 255 && !strchr(name, '/') && name[0] != '.' &&
           strcmp(name + length - (sizeof ending - 1), ending) == 0;
}

/* Opens the shard of one entry of the weight map unless it is open; the tensor must be in it. */
static mm_status shard_entry(weight_files *weights, const char *dir, const char *index_path,
                             const char *tensor, const char *shard, mm_err *err)
{
    if (!shard || !is_shard_name(shard))
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: \"weight_map\": \"%.96s\" must name a .safetensors file of the folder",
                       index_path, tensor);
    size_t at = 0;
    while (at < weights->count && strcmp(weights->names[at], shard) != 0)
        at++;
    if (at == weights->count) MM_TRY(weight_file_add(weights, dir, shard, err));
    if (!mm_safetensors_find(weights->files[at], tensor))
        return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%.96s\" is not in %s", index_path, tensor,
                       shard);
    return MM_OK;
}

static mm_status open_sharded(weight_files *weights, const char *dir, const char *index_path,
                              mm_err *err)
{
    mm_status status = MM_OK;
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    MM_GO(mm_file_read(index_path, INDEX_BYTES_MAX, &text, &bytes, err));
    MM_GO(mm_json_parse(text, bytes, index_path, &root, err));
    json_t *map = json_object_get(root, "weight_map");
    if (json_object_size(map) == 0) {
        status = MM_FAIL(err, MM_EFORMAT, "%s: \"weight_map\" is missing or empty", index_path);
        goto done;
    }
    const char *name;
    json_t *shard;
    json_object_foreach(map, name, shard)
        MM_GO(shard_entry(weights, dir, index_path, name, json_string_value(shard), err));
    // Every entry is in its shard; equal counts mean that no shard holds a tensor besides.
    if (weight_count(weights) != json_object_size(map))
        status =
            MM_FAIL(err, MM_EFORMAT, "%s: the shards hold %zu tensors, \"weight_map\" lists %zu",
                    index_path, weight_count(weights), json_object_size(map));
done:
    if (root) json_decref(root);
    mm_free(text);
    return status;
}

static mm_status open_weights(weight_files *weights, const char *dir, mm_err *err)
{
    mm_status status = MM_OK;
    char *single = NULL;
    char *index = NULL;
    MM_GO(mm_path_join(&single, dir, "model.safetensors", err));
    MM_GO(mm_path_join(&index, dir, "model.safetensors.index.json", err));
    if (mm_file_exists(single))
        status = weight_file_add(weights, dir, "model.safetensors", err);
    else if (mm_file_exists(index))
        status = open_sharded(weights, dir, index, err);
    else
        status = MM_FAIL(err, MM_ENOTFOUND,
                         "%s: neither model.safetensors nor model.safetensors.index.json "
                         "(pickle files such as pytorch_model.bin are not read)",
                         dir);
done:
    mm_free(index);
    mm_free(single);
    return status;
}

/* A value takes at least two bytes in a file, so a config that asks for more than the files can
 * hold is wrong, and nothing large was allocated to find that out. */
static mm_status check_size(const weight_files *weights, const mm_model_config *config,
                            const char *dir, mm_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < weights->count; i++)
        for (size_t k = 0; k < mm_safetensors_count(weights->files[i]); k++)
            bytes += mm_safetensors_at(weights->files[i], k)->bytes;
    const int64_t params = mm_model_config_params(config);
    if (params <= 0 || (uint64_t)params > bytes / 2)
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: config.json describes %lld parameters, the weight files hold only %zu "
                       "bytes",
                       dir, (long long)params, bytes);
    return MM_OK;
}

static void shape_text(char *out, size_t size, int32_t ndim, const int64_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int32_t i = 0; i < ndim && used < size; i++)
        used +=
            (size_t)snprintf(out + used, size - used, i ? ", %lld" : "%lld", (long long)shape[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

static mm_status load_tensor(const mm_tensor *tensor, const mm_safetensor *weight, const char *dir,
                             mm_err *err)
{
    bool is_equal = weight->ndim == tensor->ndim;
    for (int32_t i = 0; i < tensor->ndim && is_equal; i++)
        is_equal = weight->shape[i] == tensor->shape[i];
    if (!is_equal) {
        char expected[96];
        char found[192];
        shape_text(expected, sizeof expected, tensor->ndim, tensor->shape);
        shape_text(found, sizeof found, weight->ndim, weight->shape);
        return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\": expected shape %s, found %s", dir,
                       tensor->name, expected, found);
    }
    const mm_status status = mm_safetensor_to_f32(weight, tensor->data, tensor->count, err);
    if (status != MM_OK) mm_err_context(err, "%s", dir);
    return status;
}

/* Fails when a tensor of the model is in no file, naming the first few. */
static mm_status check_missing(const weight_files *weights, const mm_model *model, const char *dir,
                               mm_err *err)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    int32_t missing = 0;
    char names[(NAMES_SHOWN + 1) * sizeof tensors->name] = "";
    size_t used = 0;
    for (int32_t i = 0; i < count; i++) {
        if (weight_find(weights, tensors[i].name)) continue;
        if (missing < NAMES_SHOWN)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", missing ? ", " : "",
                                     tensors[i].name);
        missing++;
    }
    if (missing == 0) return MM_OK;
    return MM_FAIL(err, MM_EFORMAT, "%s: %d of %d tensors are missing from the weights: %s%s", dir,
                   missing, count, names, missing > NAMES_SHOWN ? ", …" : "");
}

/* A tied model may carry a second copy of the embedding as its head, as MiniMind's own files do. */
static bool is_tied_copy(const weight_files *weights, const mm_model *model,
                         const mm_safetensor *weight)
{
    if (!mm_model_config_of(model)->tie_word_embeddings || strcmp(weight->name, HEAD) != 0)
        return false;
    const mm_safetensor *embedding = weight_find(weights, EMBEDDING);
    return embedding && strcmp(embedding->dtype, weight->dtype) == 0 &&
           embedding->bytes == weight->bytes &&
           memcmp(embedding->data, weight->data, weight->bytes) == 0;
}

static mm_status check_extra(const weight_files *weights, const mm_model *model, const char *dir,
                             mm_err *err)
{
    for (size_t i = 0; i < weights->count; i++) {
        for (size_t k = 0; k < mm_safetensors_count(weights->files[i]); k++) {
            const mm_safetensor *weight = mm_safetensors_at(weights->files[i], k);
            if (mm_model_find(model, weight->name) || is_tied_copy(weights, model, weight))
                continue;
            if (strcmp(weight->name, HEAD) == 0)
                return MM_FAIL(err, MM_EFORMAT,
                               "%s: \"tie_word_embeddings\" is true, but %s differs from %s", dir,
                               HEAD, EMBEDDING);
            return MM_FAIL(err, MM_EFORMAT,
                           "%s: tensor \"%.96s\" has no place in this model (the engine has no "
                           "biases, experts or adapters)",
                           dir, weight->name);
        }
    }
    return MM_OK;
}

static mm_status load_weights(const char *dir, const mm_model_config *config, mm_model **out,
                              mm_err *err)
{
    mm_status status = MM_OK;
    mm_model *model = NULL;
    weight_files *weights = mm_calloc(1, sizeof *weights);
    if (!weights) return MM_FAIL(err, MM_ENOMEM, "%s: no memory", dir);
    MM_GO(open_weights(weights, dir, err));
    MM_GO(check_size(weights, config, dir, err));
    MM_GO(mm_model_new(&model, config, MM_F32, err));
    MM_GO(check_missing(weights, model, dir, err));
    MM_GO(check_extra(weights, model, dir, err));
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    for (int32_t i = 0; i < count; i++)
        MM_GO(load_tensor(&tensors[i], weight_find(weights, tensors[i].name), dir, err));
    *out = model;
    model = NULL;
done:
    mm_model_free(model);
    weight_files_close(weights);
    mm_free(weights);
    return status;
}

static mm_status load_tokenizer(const char *dir, const mm_model_config *config, mm_tokenizer **out,
                                mm_err *err)
{
    char *path = NULL;
    MM_TRY(mm_path_join(&path, dir, "tokenizer.json", err));
    const bool is_there = mm_file_exists(path);
    mm_free(path);
    if (!is_there) return MM_OK;
    MM_TRY(mm_tokenizer_load(out, dir, err));
    if (mm_tokenizer_vocab(*out) <= config->vocab_size) return MM_OK;
    const int32_t found = mm_tokenizer_vocab(*out);
    mm_tokenizer_free(*out);
    *out = NULL;
    return MM_FAIL(err, MM_ECONFIG, "%s: the tokenizer has %d ids, the model only %d", dir, found,
                   config->vocab_size);
}

mm_status mm_hf_import(const char *dir, mm_model **model, mm_tokenizer **tokenizer, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    mm_model_config config;
    mm_tokenizer *words = NULL;
    *model = NULL;
    *tokenizer = NULL;
    MM_GO(mm_path_join(&path, dir, "config.json", err));
    MM_GO(mm_hf_config_read(path, &config, err));
    MM_GO(load_tokenizer(dir, &config, &words, err));
    MM_GO(load_weights(dir, &config, model, err));
    *tokenizer = words;
    words = NULL;
done:
    mm_tokenizer_free(words);
    mm_free(path);
    return status;
}
