/* config.json of a Hugging Face folder, read: the keys that decide what the network computes.
 *
 * The rule of this file: a setting that would make transformers compute something the engine does
 * not is refused by its name; a setting that changes nothing is skipped. Numbers are bounded before
 * anything is allocated from them. Missing keys take the default of transformers' own class.
 */
#include "core/io/hf.h"

#include "core/base/file.h"
#include "core/base/json.h"

#include <math.h>
#include <string.h>

enum {
    CONFIG_BYTES_MAX = 1 << 20,
    VOCAB_MAX = 1 << 22,
    WIDTH_MAX = 1 << 16,
    LAYERS_MAX = 1 << 10,
    HEADS_MAX = 1 << 10,
    HEAD_DIM_MAX = 1 << 12,
    FFN_MAX = 1 << 20,
    POSITIONS_MAX = 1 << 30,
    REQUIRED = -1
};

/* The first failure sticks; later reads do nothing, so that the keys can be read one per line. */
typedef struct config_reader {
    const char *path;
    const json_t *root;
    mm_err *err;
    mm_status status;
} config_reader;

static bool is_given(const json_t *value) { return value && !json_is_null(value); }

static int32_t read_int(config_reader *reader, const char *key, int32_t missing, int32_t highest)
{
    const json_t *value = json_object_get(reader->root, key);
    if (reader->status != MM_OK) return 0;
    if (!is_given(value)) {
        if (missing == REQUIRED)
            reader->status =
                MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" is missing", reader->path, key);
        return missing;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > highest) {
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" must be an integer from 1 to %d",
                    reader->path, key, highest);
        return 0;
    }
    return (int32_t)number;
}

static bool read_bool(config_reader *reader, const char *key, bool missing)
{
    const json_t *value = json_object_get(reader->root, key);
    if (reader->status != MM_OK || !is_given(value)) return missing;
    if (!json_is_boolean(value))
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" must be true or false", reader->path, key);
    return json_is_true(value);
}

/* A positive finite number of `object`; `missing` when it is absent. */
static double read_number(config_reader *reader, const json_t *object, const char *key,
                          double missing)
{
    const json_t *value = json_object_get(object, key);
    if (reader->status != MM_OK || !is_given(value)) return missing;
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number > 0) || !isfinite(number))
        reader->status = MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" must be a number above 0",
                                 reader->path, key);
    return number;
}

static void refuse_true(config_reader *reader, const char *key)
{
    if (read_bool(reader, key, false) && reader->status == MM_OK)
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" is true; the engine has no such thing",
                    reader->path, key);
}

static void refuse_given(config_reader *reader, const char *key)
{
    if (is_given(json_object_get(reader->root, key)) && reader->status == MM_OK)
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" is set; the engine has no such thing",
                    reader->path, key);
}

/* model_type decides the class; architectures, when given, must agree. Sets qk_norm. */
static void read_architecture(config_reader *reader, mm_model_config *out)
{
    const char *type = json_string_value(json_object_get(reader->root, "model_type"));
    const bool is_qwen3 = type && strcmp(type, "qwen3") == 0;
    if (!is_qwen3 && (!type || strcmp(type, "llama") != 0)) {
        reader->status = MM_FAIL(reader->err, MM_EFORMAT,
                                 "%s: \"model_type\" must be \"qwen3\" or \"llama\", found "
                                 "\"%.64s\"",
                                 reader->path, type ? type : "");
        return;
    }
    const char *wanted = is_qwen3 ? "Qwen3ForCausalLM" : "LlamaForCausalLM";
    const json_t *list = json_object_get(reader->root, "architectures");
    const char *found = json_string_value(json_array_get(list, 0));
    if (is_given(list) && (json_array_size(list) != 1 || !found || strcmp(found, wanted) != 0))
        reader->status = MM_FAIL(reader->err, MM_EFORMAT,
                                 "%s: \"architectures\" must be [\"%s\"], found "
                                 "\"%.64s\"",
                                 reader->path, wanted, found ? found : "");
    out->qk_norm = is_qwen3;
}

/* One of the records that may describe RoPE: "rope_scaling" (transformers 4) or "rope_parameters"
 * (5). Only the plain kind is accepted. Returns its theta, or `theta` when it has none. */
static double read_rope_record(config_reader *reader, const char *name, double theta)
{
    const json_t *record = json_object_get(reader->root, name);
    if (reader->status != MM_OK || !is_given(record)) return theta;
    static const char *const kinds[] = {"rope_type", "type"};
    for (int i = 0; i < 2; i++) {
        const json_t *kind = json_object_get(record, kinds[i]);
        const char *text = json_string_value(kind);
        if (!is_given(kind) || (text && strcmp(text, "default") == 0)) continue;
        reader->status = MM_FAIL(reader->err, MM_EFORMAT,
                                 "%s: \"%s\": RoPE scaling \"%.64s\" is not supported, only "
                                 "\"default\"",
                                 reader->path, name, text ? text : "");
        return theta;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)record, key, value)
    {
        const bool known = strcmp(key, "rope_type") == 0 || strcmp(key, "type") == 0 ||
                           strcmp(key, "rope_theta") == 0;
        const bool is_whole = strcmp(key, "partial_rotary_factor") == 0 &&
                              !(fabs(json_number_value(value) - 1.0) > 0);
        if (known || is_whole || json_is_null(value)) continue;
        reader->status = MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\": \"%.64s\" is not supported",
                                 reader->path, name, key);
        return theta;
    }
    if (!json_is_object(record)) {
        reader->status = MM_FAIL(reader->err, MM_EFORMAT, "%s: \"%s\" must be an object or null",
                                 reader->path, name);
        return theta;
    }
    const double found = read_number(reader, record, "rope_theta", theta);
    if (theta > 0 && fabs(found - theta) > 0 && reader->status == MM_OK)
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT,
                    "%s: \"rope_theta\" is given twice and differs: %g and %g (in \"%s\")",
                    reader->path, theta, found, name);
    return found;
}

static void read_rope(config_reader *reader, mm_model_config *out)
{
    double theta = read_number(reader, reader->root, "rope_theta", 0);
    theta = read_rope_record(reader, "rope_scaling", theta);
    theta = read_rope_record(reader, "rope_parameters", theta);
    const double rotated = read_number(reader, reader->root, "partial_rotary_factor", 1);
    if (reader->status == MM_OK && fabs(rotated - 1) > 0)
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"partial_rotary_factor\" must be 1, found %g",
                    reader->path, rotated);
    out->rope_theta = theta > 0 ? theta : 10000.0;
}

/* Everything that would change the arithmetic in a way the engine does not know. */
static void refuse_unsupported(config_reader *reader)
{
    refuse_true(reader, "attention_bias");
    refuse_true(reader, "mlp_bias");
    refuse_true(reader, "use_sliding_window");
    refuse_given(reader, "quantization_config");
    refuse_given(reader, "compression_config");
    const json_t *window = json_object_get(reader->root, "use_sliding_window");
    // Without the switch a window applies wherever the class knows one.
    if (!json_is_false(window)) refuse_given(reader, "sliding_window");
    const json_t *types = json_object_get(reader->root, "layer_types");
    for (size_t i = 0; i < json_array_size(types) && reader->status == MM_OK; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0)
            reader->status = MM_FAIL(reader->err, MM_EFORMAT,
                                     "%s: \"layer_types\"[%zu] must be \"full_attention\", found "
                                     "\"%.64s\"",
                                     reader->path, i, type ? type : "");
    }
    const json_t *activation = json_object_get(reader->root, "hidden_act");
    const char *name = json_string_value(activation);
    if (reader->status == MM_OK && is_given(activation) && (!name || strcmp(name, "silu") != 0))
        reader->status =
            MM_FAIL(reader->err, MM_EFORMAT, "%s: \"hidden_act\" must be \"silu\", found \"%.64s\"",
                    reader->path, name ? name : "");
}

static mm_status read_config(config_reader *reader, mm_model_config *out)
{
    *out = (mm_model_config){.preset = "custom"};
    read_architecture(reader, out);
    refuse_unsupported(reader);
    out->vocab_size = read_int(reader, "vocab_size", REQUIRED, VOCAB_MAX);
    out->hidden_size = read_int(reader, "hidden_size", REQUIRED, WIDTH_MAX);
    out->intermediate_size = read_int(reader, "intermediate_size", REQUIRED, FFN_MAX);
    out->num_hidden_layers = read_int(reader, "num_hidden_layers", REQUIRED, LAYERS_MAX);
    out->num_attention_heads = read_int(reader, "num_attention_heads", REQUIRED, HEADS_MAX);
    out->num_key_value_heads =
        read_int(reader, "num_key_value_heads", out->num_attention_heads, HEADS_MAX);
    if (reader->status != MM_OK) return reader->status;
    out->head_dim =
        read_int(reader, "head_dim",
                 out->qk_norm ? 128 : out->hidden_size / out->num_attention_heads, HEAD_DIM_MAX);
    out->max_position_embeddings =
        read_int(reader, "max_position_embeddings", out->qk_norm ? 32768 : 2048, POSITIONS_MAX);
    out->rms_norm_eps = read_number(reader, reader->root, "rms_norm_eps", 1e-6);
    out->tie_word_embeddings = read_bool(reader, "tie_word_embeddings", false);
    read_rope(reader, out);
    return reader->status;
}

mm_status mm_hf_config_read(const char *path, mm_model_config *out, mm_err *err)
{
    mm_status status = MM_OK;
    char *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    MM_GO(mm_file_read(path, CONFIG_BYTES_MAX, &text, &bytes, err));
    MM_GO(mm_json_parse(text, bytes, path, &root, err));
    if (!json_is_object(root)) {
        status = MM_FAIL(err, MM_EFORMAT, "%s: expected a JSON object", path);
        goto done;
    }
    config_reader reader = {.path = path, .root = root, .err = err};
    MM_GO(read_config(&reader, out));
    status = mm_model_config_resolve(out, err);
    if (status != MM_OK) mm_err_context(err, "%s", path);
done:
    if (root) json_decref(root);
    mm_free(text);
    return status;
}
