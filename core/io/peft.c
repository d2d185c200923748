/* Adapters as `peft` keeps them. See peft.h.
 *
 * The subtle rule: peft's scale is lora_alpha / r, or with "use_rslora" lora_alpha / sqrt(r), which
 * import turns into the alpha that gives the same scale.
 */
#include "core/io/peft.h"

#include "core/base/json.h"
#include "core/io/folder.h"
#include "core/io/safetensors.h"
#include "core/nn/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 1 << 20, RANK_MAX = 1 << 16, NAME_BYTES = 128 };

static const char WEIGHTS[] = "adapter_model.safetensors";
static const char CONFIG[] = "adapter_config.json";
static const char PREFIX[] = "base_model.model."; // before the names of the base

bool mm_peft_is_folder(const char *dir)
{
    char *path = NULL;
    if (mm_path_join(&path, dir, CONFIG, NULL) != MM_OK) return false;
    const bool is_there = mm_file_exists(path);
    mm_free(path);
    return is_there;
}

/* ---- export -----------------------------------------------------------------------------------
 */

static mm_status write_config(const char *dir, const mm_model_config *config, const char *base,
                              mm_err *err)
{
    mm_str text = {0};
    json_t *targets = json_array();
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++)
        if (config->lora_targets & 1u << i)
            json_array_append_new(targets, json_string(mm_lora_target_name(i)));
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:i, s:f, s:f, s:o, s:s, s:b, s:b, s:b, s:b}", "peft_type",
                  "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base, "r",
                  (int)config->lora_rank, "lora_alpha", config->lora_alpha, "lora_dropout",
                  config->lora_dropout, "target_modules", targets, "bias", "none", "fan_in_fan_out",
                  0, "use_rslora", 0, "use_dora", 0, "inference_mode", 1);
    if (!root) return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %s", dir, CONFIG);
    mm_json_write(root, &text);
    mm_str_add_char(&text, '\n');
    json_decref(root);
    return mm_folder_write(dir, CONFIG, &text, err);
}

static mm_status write_weights(const char *dir, const mm_model *model, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    size_t n = 0;
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    mm_safetensor *weights = mm_calloc((size_t)count, sizeof *weights);
    char(*names)[NAME_BYTES] = mm_calloc((size_t)count, sizeof *names);
    if (!weights || !names) {
        status = MM_FAIL(err, MM_ENOMEM, "%s: no memory for %d tensors", dir, count);
        goto done;
    }
    for (int32_t i = 0; i < count; i++) {
        if (!mm_lora_is_adapter(tensors[i].name)) continue;
        snprintf(names[n], sizeof names[n], "%s%s", PREFIX, tensors[i].name);
        weights[n] = (mm_safetensor){.name = names[n],
                                     .dtype = "F32",
                                     .ndim = tensors[i].ndim,
                                     .data = tensors[i].data,
                                     .bytes = (size_t)tensors[i].count * sizeof(float)};
        memcpy(weights[n++].shape, tensors[i].shape, sizeof tensors[i].shape);
    }
    MM_GO(mm_path_join(&path, dir, WEIGHTS, err));
    MM_GO(mm_safetensors_write(path, weights, n, err));
done:
    mm_free(path);
    mm_free(names);
    mm_free(weights);
    return status;
}

mm_status mm_peft_export(const char *dir, const mm_model *model, const char *base, bool overwrite,
                         mm_err *err)
{
    MM_ASSERT(mm_model_dtype(model) == MM_F32);
    const mm_model_config *config = mm_model_config_of(model);
    if (config->lora_rank == 0)
        return MM_FAIL(err, MM_EUSAGE, "%s: the model has no adapters", dir);
    MM_TRY(mm_folder_prepare(dir, CONFIG, overwrite, err));
    MM_TRY(write_weights(dir, model, err));
    return write_config(dir, config, base, err); // last: without it the folder is none
}

/* ---- import: the settings ---------------------------------------------------------------------
 */

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* What changes the function that adapters and base compute. */
static mm_status refuse_others(const json_t *root, const char *path, mm_err *err)
{
    static const char *const OFF[] = {
        "use_dora",          "fan_in_fan_out",  "rank_pattern",
        "alpha_pattern",     "modules_to_save", "layers_to_transform",
        "layers_pattern",    "exclude_modules", "layer_replication",
        "lora_bias",         "megatron_config", "trainable_token_indices",
        "target_parameters", "use_qalora",      "alora_invocation_tokens",
        "arrow_config"};
    // These begin with another base than the model's own weights.
    static const char *const BASES[] = {"pissa", "olora", "loftq", "corda", "lora_ga"};
    if (!is_text(json_object_get(root, "peft_type"), "LORA"))
        return MM_FAIL(err, MM_EFORMAT, "%s: \"peft_type\": expected \"LORA\"", path);
    const json_t *bias = json_object_get(root, "bias");
    if (bias && !is_text(bias, "none"))
        return MM_FAIL(err, MM_EFORMAT, "%s: \"bias\": expected \"none\"", path);
    for (size_t i = 0; i < sizeof OFF / sizeof OFF[0]; i++)
        if (!is_off(json_object_get(root, OFF[i])))
            return MM_FAIL(err, MM_EFORMAT, "%s: \"%s\" is not supported", path, OFF[i]);
    const char *init = json_string_value(json_object_get(root, "init_lora_weights"));
    for (size_t i = 0; init && i < sizeof BASES / sizeof BASES[0]; i++)
        if (strncmp(init, BASES[i], strlen(BASES[i])) == 0)
            return MM_FAIL(err, MM_EFORMAT,
                           "%s: \"init_lora_weights\": \"%.32s\" changes the base; convert the "
                           "adapters to plain ones with peft",
                           path, init);
    return MM_OK;
}

static mm_status read_targets(const json_t *value, const char *path, uint32_t *targets, mm_err *err)
{
    size_t index;
    const json_t *entry;
    *targets = 0;
    if (is_text(value, "all-linear")) {
        *targets = MM_LORA_ALL;
        return MM_OK;
    }
    json_array_foreach(value, index, entry)
    {
        const char *name = json_string_value(entry);
        const char *dot = name ? strrchr(name, '.') : NULL; // "self_attn.q_proj" is q_proj
        uint32_t one = 0;
        if (!name || strchr(name, ',') || strchr(name, '+') ||
            mm_lora_targets_parse(dot ? dot + 1 : name, &one, NULL) != MM_OK || one == MM_LORA_ALL)
            return MM_FAIL(err, MM_EFORMAT,
                           "%s: \"target_modules\": \"%.40s\" is none of the layers that can have "
                           "adapters",
                           path, name ? name : "");
        *targets |= one;
    }
    if (*targets == 0)
        return MM_FAIL(err, MM_EFORMAT, "%s: \"target_modules\": expected a list of layers", path);
    return MM_OK;
}

static mm_status read_numbers(const json_t *root, const char *path, mm_model_config *shape,
                              mm_err *err)
{
    const json_t *rank = json_object_get(root, "r");
    const json_t *alpha = json_object_get(root, "lora_alpha");
    const json_int_t r = json_integer_value(rank);
    if (!json_is_integer(rank) || r < 1 || r > RANK_MAX)
        return MM_FAIL(err, MM_EFORMAT, "%s: \"r\": expected an integer from 1 to %d", path,
                       RANK_MAX);
    if (!json_is_number(alpha) || !(json_number_value(alpha) > 0))
        return MM_FAIL(err, MM_EFORMAT, "%s: \"lora_alpha\": expected a number above 0", path);
    shape->lora_rank = (int32_t)r;
    shape->lora_alpha = json_number_value(alpha);
    if (json_is_true(json_object_get(root, "use_rslora"))) shape->lora_alpha *= sqrt((double)r);
    shape->lora_dropout = 0; // of its training, which is over
    return MM_OK;
}

mm_status mm_peft_config_read(const char *dir, mm_model_config *shape, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    MM_GO(mm_path_join(&path, dir, CONFIG, err));
    MM_GO(mm_file_read(path, CONFIG_BYTES_MAX, &text, &bytes, err));
    MM_GO(mm_json_parse(text, bytes, path, &root, err));
    MM_GO(refuse_others(root, path, err));
    MM_GO(read_numbers(root, path, shape, err));
    MM_GO(read_targets(json_object_get(root, "target_modules"), path, &shape->lora_targets, err));
    status = mm_model_config_resolve(shape, err);
    if (status != MM_OK) mm_err_context(err, "%s", path);
done:
    json_decref(root);
    mm_free(text);
    mm_free(path);
    return status;
}

/* ---- import: the weights ----------------------------------------------------------------------
 */

static mm_status read_adapter(const mm_safetensors *file, const mm_tensor *tensor, const char *path,
                              mm_err *err)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", PREFIX, tensor->name);
    const mm_safetensor *found = mm_safetensors_find(file, name);
    if (!found) return MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%s\" is missing", path, name);
    if (found->ndim != 2 || found->shape[0] != tensor->shape[0] ||
        found->shape[1] != tensor->shape[1])
        return MM_FAIL(err, MM_EFORMAT,
                       "%s: tensor \"%s\": expected %lld x %lld, which the base and \"r\" ask for",
                       path, name, (long long)tensor->shape[0], (long long)tensor->shape[1]);
    const mm_status status = mm_safetensor_to_f32(found, tensor->data, tensor->count, err);
    if (status != MM_OK) mm_err_context(err, "%s", path);
    return status;
}

mm_status mm_peft_import(const char *dir, mm_model *model, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    mm_safetensors *file = NULL;
    size_t n_adapters = 0;
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    MM_GO(mm_path_join(&path, dir, WEIGHTS, err));
    if (!mm_file_exists(path)) {
        status = MM_FAIL(err, MM_ENOTFOUND, "%s: no such file (pickle files are not read)", path);
        goto done;
    }
    MM_GO(mm_safetensors_open(&file, path, err));
    for (int32_t i = 0; i < count; i++) {
        if (!mm_lora_is_adapter(tensors[i].name)) continue;
        MM_GO(read_adapter(file, &tensors[i], path, err));
        n_adapters++;
    }
    for (size_t i = 0; i < mm_safetensors_count(file) && mm_safetensors_count(file) != n_adapters;
         i++) {
        const char *name = mm_safetensors_at(file, i)->name;
        const bool is_ours = strncmp(name, PREFIX, sizeof PREFIX - 1) == 0 &&
                             mm_lora_is_adapter(name) &&
                             mm_model_find(model, name + sizeof PREFIX - 1);
        if (!is_ours) {
            status = MM_FAIL(err, MM_EFORMAT, "%s: tensor \"%.96s\" has no place in the base", path,
                             name);
            goto done;
        }
    }
done:
    mm_safetensors_close(file);
    mm_free(path);
    return status;
}
