/* Hugging Face folders: what is exported comes back bit for bit, what the engine cannot compute is
 * refused by name, and hostile folders are clean errors. */
#include "tests/base/check.h"

#include "core/base/json.h"
#include "core/base/rng.h"
#include "core/io/hf.h"
#include "core/io/safetensors.h"

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        mm_err failure_ = {0};                                                                     \
        mm_err *failure = &failure_;                                                               \
        if ((call) != MM_OK) fail_msg("%s", failure_.message);                                     \
    } while (0)

enum { PATH_BYTES = 600, MAX_TENSORS = 64 };
static const char QWEN3[] = MM_TEST_DATA "/golden/qwen3";
static const char LLAMA[] = MM_TEST_DATA "/golden/llama";

typedef struct path {
    char text[PATH_BYTES];
} path;

static path path_of(const char *dir, const char *name)
{
    path out;
    const int length = snprintf(out.text, sizeof out.text, "%s/%s", dir, name);
    assert_true(length > 0 && length < PATH_BYTES);
    return out;
}

/* For use within one expression. */
#define in_dir(dir, name) (path_of((dir), (name)).text)

static void write_file(const char *dir, const char *name, const void *data, size_t bytes)
{
    // Some file systems flush a file that is emptied and written anew; there are thousands of
    // cases.
    unlink(in_dir(dir, name));
    FILE *file = fopen(in_dir(dir, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static char *read_text(const char *dir, const char *name)
{
    char *text = NULL;
    size_t bytes;
    CHECK_OK(mm_file_read(in_dir(dir, name), 1 << 24, &text, &bytes, failure));
    return text;
}

static void copy_file(const char *from, const char *to, const char *name)
{
    char *data = NULL;
    size_t bytes;
    CHECK_OK(mm_file_read(in_dir(from, name), 1 << 24, &data, &bytes, failure));
    write_file(to, name, data, bytes);
    mm_free(data);
}

static json_t *read_json(const char *dir, const char *name)
{
    char *text = read_text(dir, name);
    json_t *value = NULL;
    CHECK_OK(mm_json_parse(text, strlen(text), name, &value, failure));
    mm_free(text);
    return value;
}

static void write_json(const char *dir, const char *name, json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    assert_non_null(text);
    write_file(dir, name, text, strlen(text));
    free(text);
}

static mm_model *random_model(const mm_model_config *wanted)
{
    mm_model_config config = *wanted;
    mm_model *model = NULL;
    CHECK_OK(mm_model_config_resolve(&config, failure));
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    for (int32_t i = 0; i < count; i++) {
        mm_rng rng;
        mm_rng_init(&rng, 1, MM_RNG_TEST, (uint64_t)i);
        for (int64_t k = 0; k < tensors[i].count; k++)
            ((float *)tensors[i].data)[k] = (float)mm_rng_normal(&rng);
    }
    return model;
}

static mm_model *small_model(const char *preset, int32_t vocab_size, bool tie)
{
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, preset, failure));
    config.vocab_size = vocab_size;
    config.hidden_size = 32;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.intermediate_size = 24;
    config.head_dim = 6; // not hidden_size / heads
    config.tie_word_embeddings = tie;
    config.max_position_embeddings = 777;
    return random_model(&config);
}

static mm_tokenizer *small_tokenizer(int32_t vocab_size)
{
    static const char text[] = "the cat sat on the mat; the cat ate. 春眠不觉晓，处处闻啼鸟。";
    mm_bpe_trainer *trainer = NULL;
    mm_tokenizer *tokenizer = NULL;
    CHECK_OK(mm_bpe_trainer_new(&trainer, vocab_size, failure));
    CHECK_OK(mm_bpe_trainer_feed(trainer, text, strlen(text), failure));
    CHECK_OK(mm_bpe_trainer_finish(trainer, &tokenizer, NULL, NULL, failure));
    mm_bpe_trainer_free(trainer);
    return tokenizer;
}

static void check_same_model(const mm_model *a, const mm_model *b)
{
    mm_model_config left = *mm_model_config_of(a);
    mm_model_config right = *mm_model_config_of(b);
    assert_int_equal(left.vocab_size, right.vocab_size);
    assert_int_equal(left.hidden_size, right.hidden_size);
    assert_int_equal(left.num_hidden_layers, right.num_hidden_layers);
    assert_int_equal(left.num_attention_heads, right.num_attention_heads);
    assert_int_equal(left.num_key_value_heads, right.num_key_value_heads);
    assert_int_equal(left.head_dim, right.head_dim);
    assert_int_equal(left.intermediate_size, right.intermediate_size);
    assert_int_equal(left.max_position_embeddings, right.max_position_embeddings);
    assert_memory_equal(&left.rope_theta, &right.rope_theta, sizeof(double));
    assert_memory_equal(&left.rms_norm_eps, &right.rms_norm_eps, sizeof(double));
    assert_int_equal(left.tie_word_embeddings, right.tie_word_embeddings);
    assert_int_equal(left.qk_norm, right.qk_norm);
    const mm_tensor *tensors;
    const mm_tensor *others;
    const int32_t count = mm_model_tensors(a, &tensors);
    assert_int_equal(mm_model_tensors(b, &others), count);
    for (int32_t i = 0; i < count; i++) {
        assert_string_equal(tensors[i].name, others[i].name);
        assert_int_equal(tensors[i].count, others[i].count);
        assert_memory_equal(tensors[i].data, others[i].data,
                            (size_t)tensors[i].count * sizeof(float));
    }
}

static void test_export_and_import_are_bit_equal(void **state)
{
    static const struct {
        const char *preset;
        bool tie;
    } rows[] = {{"v3", true}, {"v3", false}, {"v2-small", true}, {"v2", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mm_model *model = small_model(rows[i].preset, 330, rows[i].tie);
        mm_tokenizer *tokenizer = small_tokenizer(320);
        mm_model *back = NULL;
        mm_tokenizer *tokenizer_back = NULL;
        const path out = path_of(*state, i % 2 ? "odd" : "even");
        const char *dir = out.text;
        CHECK_OK(mm_hf_export(dir, model, tokenizer, NULL, i >= 2, failure));
        CHECK_OK(mm_hf_import(dir, &back, &tokenizer_back, failure));
        check_same_model(model, back);
        assert_non_null(tokenizer_back);
        assert_string_equal(mm_tokenizer_hash(tokenizer), mm_tokenizer_hash(tokenizer_back));
        assert_int_equal(mm_tokenizer_eos(tokenizer), mm_tokenizer_eos(tokenizer_back));
        assert_int_equal(count_entries(dir), 7);
        mm_tokenizer_free(tokenizer_back);
        mm_tokenizer_free(tokenizer);
        mm_model_free(back);
        mm_model_free(model);
    }
}

/* The spellings of both major versions of transformers, and what must not be there. */
static void test_the_settings_are_written_in_both_spellings(void **state)
{
    const path out = path_of(*state, "out");
    const char *dir = out.text;
    mm_model *model = small_model("v3", 330, true);
    mm_tokenizer *tokenizer = small_tokenizer(320);
    CHECK_OK(mm_hf_export(dir, model, tokenizer, NULL, false, failure));
    json_t *config = read_json(dir, "config.json");
    static const char *const texts[][2] = {{"model_type", "qwen3"},
                                           {"torch_dtype", "float32"},
                                           {"dtype", "float32"},
                                           {"hidden_act", "silu"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(json_string_value(json_object_get(config, texts[i][0])), texts[i][1]);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
        "Qwen3ForCausalLM");
    // Floats, not integers: strict readers tell them apart.
    assert_true(json_is_real(json_object_get(config, "rope_theta")));
    const json_t *rope = json_object_get(config, "rope_parameters");
    assert_true(json_is_real(json_object_get(rope, "rope_theta")));
    assert_string_equal(json_string_value(json_object_get(rope, "rope_type")), "default");
    assert_int_equal(json_integer_value(json_object_get(config, "head_dim")), 6);
    assert_int_equal(json_integer_value(json_object_get(config, "bos_token_id")), 1);
    assert_int_equal(json_integer_value(json_object_get(config, "eos_token_id")), 2);
    assert_int_equal(json_integer_value(json_object_get(config, "pad_token_id")), 0);
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    assert_true(json_is_false(json_object_get(config, "use_sliding_window")));
    assert_true(json_is_null(json_object_get(config, "rope_scaling")));
    assert_null(json_object_get(config, "layer_types"));
    json_decref(config);
    json_t *generation = read_json(dir, "generation_config.json");
    assert_int_equal(json_integer_value(json_object_get(generation, "eos_token_id")), 2);
    assert_true(json_is_true(json_object_get(generation, "do_sample")));
    json_decref(generation);
    mm_safetensors *weights = NULL;
    CHECK_OK(mm_safetensors_open(&weights, in_dir(dir, "model.safetensors"), failure));
    assert_null(mm_safetensors_find(weights, "lm_head.weight")); // tied: left out
    mm_safetensors_close(weights);
    mm_tokenizer_free(tokenizer);
    mm_model_free(model);
}

static void test_an_existing_folder_is_not_overwritten_unasked(void **state)
{
    const path out = path_of(*state, "out");
    const char *dir = out.text;
    mm_model *model = small_model("v3", 330, true);
    mm_err err = {0};
    const mm_hf_provenance provenance = {.run_name = "a `b`\n# c", .json = "{\"run\": 1}"};
    CHECK_OK(mm_dir_make(dir, failure));
    CHECK_OK(mm_hf_export(dir, model, NULL, &provenance, false, failure)); // empty: fine
    assert_true(mm_file_exists(in_dir(dir, "mmrun_run.json")));
    assert_false(mm_file_exists(in_dir(dir, "tokenizer.json")));
    char *card = read_text(dir, "README.md");
    assert_int_equal(strncmp(card, "---\n", 4), 0);
    assert_non_null(strstr(card, "\n# `a  b  # c`\n"));
    mm_free(card);
    assert_int_equal(mm_hf_export(dir, model, NULL, NULL, false, &err), MM_EEXISTS);
    check_message(&err, "not empty");
    CHECK_OK(mm_hf_export(dir, model, NULL, NULL, true, failure));
    assert_false(mm_file_exists(in_dir(dir, "mmrun_run.json"))); // of the export before
    write_file(*state, "file", "x", 1);
    assert_int_equal(mm_hf_export(in_dir(*state, "file"), model, NULL, NULL, true, &err),
                     MM_EEXISTS);
    check_message(&err, "not a folder");
    mm_tokenizer *tokenizer = small_tokenizer(334);
    assert_int_equal(mm_hf_export(dir, model, tokenizer, NULL, true, &err), MM_ECONFIG);
    check_message(&err, "334 ids, the model only 330");
    mm_tokenizer_free(tokenizer);
    mm_model_free(model);
}

typedef struct config_row {
    const char *key;
    const char *value;   /* JSON; NULL: the key is removed */
    const char *message; /* part of the error; NULL: accepted */
} config_row;

static const config_row CONFIG_ROWS[] = {
    {"model_type", "\"mistral\"", "\"model_type\" must be"},
    {"model_type", "\"qwen3_moe\"", "found \"qwen3_moe\""},
    {"model_type", NULL, "\"model_type\" must be"},
    {"architectures", "[\"Qwen3ForSequenceClassification\"]", "Qwen3ForSequenceClassification"},
    {"architectures", "[]", "\"architectures\""},
    {"architectures", NULL, NULL},
    {"vocab_size", NULL, "\"vocab_size\" is missing"},
    {"vocab_size", "0", "\"vocab_size\" must be"},
    {"vocab_size", "\"97\"", "\"vocab_size\" must be"},
    {"vocab_size", "97.0", "\"vocab_size\" must be"},
    {"vocab_size", "9223372036854775807", "\"vocab_size\" must be"},
    {"hidden_size", "-64", "\"hidden_size\" must be"},
    {"num_hidden_layers", "100000", "\"num_hidden_layers\" must be"},
    {"num_key_value_heads", "3", "does not divide"},
    {"head_dim", "15", "odd"},
    {"hidden_act", "\"gelu\"", "\"hidden_act\" must be \"silu\""},
    {"attention_bias", "true", "\"attention_bias\" is true"},
    {"attention_bias", "1", "\"attention_bias\" must be true or false"},
    {"use_sliding_window", "true", "\"use_sliding_window\" is true"},
    {"quantization_config", "{\"bits\":4}", "\"quantization_config\" is set"},
    {"layer_types", "[\"full_attention\",\"sliding_attention\"]", "\"layer_types\"[1]"},
    {"layer_types", NULL, NULL},
    {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":16}", "RoPE scaling \"yarn\""},
    {"rope_scaling", "{\"type\":\"linear\",\"factor\":2}", "RoPE scaling \"linear\""},
    {"rope_scaling", "{\"factor\":2}", "\"factor\" is not supported"},
    {"rope_scaling", "{\"rope_type\":\"default\"}", NULL},
    {"rope_scaling", "7", "must be an object or null"},
    {"rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":10000.0}", "given twice"},
    {"rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":1000000.0}", NULL},
    {"rope_parameters", "{\"full_attention\":{\"rope_theta\":1.0}}", "\"full_attention\""},
    {"rope_parameters", "{\"rope_theta\":-1}", "above 0"},
    {"partial_rotary_factor", "0.5", "\"partial_rotary_factor\" must be 1"},
    {"rms_norm_eps", "0", "above 0"},
    {"rms_norm_eps", "\"1e-6\"", "above 0"},
    {"tie_word_embeddings", "\"yes\"", "must be true or false"},
    {"head_dim", "18", "expected shape [72, 64], found [64, 64]"},
    {"intermediate_size", "95", "expected shape [95, 64], found [96, 64]"},
    {"num_hidden_layers", "3", "11 of 35 tensors are missing"},
    {"num_hidden_layers", "1", "\"model.layers.1."},
    {"tie_word_embeddings", "false",
     "1 of 25 tensors are missing from the weights: lm_head.weight"},
    {"vocab_size", "4000000", "the weight files hold only"},
    {"intermediate_size", "200000", "the weight files hold only"},
};

static void test_what_the_engine_cannot_compute_is_refused(void **state)
{
    copy_file(QWEN3, *state, "model.safetensors");
    for (size_t i = 0; i < sizeof CONFIG_ROWS / sizeof *CONFIG_ROWS; i++) {
        const config_row *row = &CONFIG_ROWS[i];
        json_t *config = read_json(QWEN3, "config.json");
        mm_model *model = NULL;
        mm_tokenizer *tokenizer = NULL;
        mm_err err = {0};
        if (row->value)
            json_object_set_new(config, row->key, json_loads(row->value, JSON_DECODE_ANY, NULL));
        else
            json_object_del(config, row->key);
        write_json(*state, "config.json", config);
        json_decref(config);
        const mm_status status = mm_hf_import(*state, &model, &tokenizer, &err);
        if (!row->message && status != MM_OK) fail_msg("row %zu: refused: %s", i, err.message);
        if (row->message && status == MM_OK) fail_msg("row %zu: accepted", i);
        if (row->message && !strstr(err.message, row->message))
            fail_msg("row %zu: \"%s\" does not contain \"%s\"", i, err.message, row->message);
        CHECK_ROW(!tokenizer && (status == MM_OK) == (model != NULL), i);
        mm_model_free(model);
    }
}

/* transformers 5 writes "rope_parameters" and "dtype" only. */
static void test_settings_of_transformers_5_alone_are_enough(void **state)
{
    json_t *config = read_json(LLAMA, "config.json");
    json_object_del(config, "rope_theta");
    json_object_del(config, "rope_scaling");
    json_object_set_new(config, "rope_parameters",
                        json_pack("{s:s,s:f}", "rope_type", "default", "rope_theta", 5e5));
    write_json(*state, "config.json", config);
    json_decref(config);
    mm_model_config read;
    CHECK_OK(mm_hf_config_read(in_dir(*state, "config.json"), &read, failure));
    assert_true(read.rope_theta > 499999 && read.rope_theta < 500001);
    assert_false(read.qk_norm);
    assert_false(read.tie_word_embeddings);
    assert_int_equal(read.head_dim, 12);
    assert_string_equal(read.preset, "custom");
}

typedef struct tensor_list {
    mm_safetensors *file;
    mm_safetensor tensors[MAX_TENSORS];
    size_t count;
} tensor_list;

/* The tensors of the Qwen3 fixture with its config in `dir`, to be changed and written. */
static tensor_list fixture_tensors(const char *dir)
{
    tensor_list list = {0};
    copy_file(QWEN3, dir, "config.json");
    CHECK_OK(mm_safetensors_open(&list.file, in_dir(QWEN3, "model.safetensors"), failure));
    list.count = mm_safetensors_count(list.file);
    assert_true(list.count + 2 <= MAX_TENSORS);
    for (size_t i = 0; i < list.count; i++)
        list.tensors[i] = *mm_safetensors_at(list.file, i);
    return list;
}

static size_t index_of(const tensor_list *list, const char *name)
{
    size_t i = 0;
    while (i < list->count && strcmp(list->tensors[i].name, name) != 0)
        i++;
    assert_true(i < list->count);
    return i;
}

static void write_list(const char *dir, const char *name, const tensor_list *list, size_t begin,
                       size_t end)
{
    CHECK_OK(mm_safetensors_write(in_dir(dir, name), list->tensors + begin, end - begin, failure));
}

/* Imports `dir`; NULL when it fails, with the message in err. */
static mm_model *import_of(const char *dir, mm_err *err)
{
    mm_model *model = NULL;
    mm_tokenizer *tokenizer = NULL;
    *err = (mm_err){0};
    if (mm_hf_import(dir, &model, &tokenizer, err) != MM_OK) assert_null(model);
    assert_null(tokenizer);
    return model;
}

static mm_model *golden_model(void)
{
    mm_err err;
    mm_model *model = import_of(QWEN3, &err);
    if (!model) fail_msg("%s", err.message);
    return model;
}

static void test_tensors_that_do_not_fit_are_named(void **state)
{
    static const float values[64 * 64] = {0};
    const char *const bias = "model.layers.0.self_attn.q_proj.bias";
    const char *const gate = "model.layers.1.mlp.gate_proj.weight";
    const char *const norm = "model.norm.weight";
    mm_err err;
    tensor_list list = fixture_tensors(*state);
    list.tensors[list.count] = (mm_safetensor){
        .name = bias, .dtype = "F32", .ndim = 1, .shape = {64}, .data = values, .bytes = 256};
    write_list(*state, "model.safetensors", &list, 0, list.count + 1);
    assert_null(import_of(*state, &err));
    check_message(&err, bias);
    // Transposed: same bytes, other shape.
    mm_safetensor *tensor = &list.tensors[index_of(&list, gate)];
    tensor->shape[0] = 64;
    tensor->shape[1] = 96;
    write_list(*state, "model.safetensors", &list, 0, list.count);
    assert_null(import_of(*state, &err));
    check_message(&err, gate);
    check_message(&err, "expected shape [96, 64], found [64, 96]");
    tensor->shape[0] = 96;
    tensor->shape[1] = 64;
    // Another type of the same length.
    tensor = &list.tensors[index_of(&list, norm)];
    tensor->dtype = "I32";
    write_list(*state, "model.safetensors", &list, 0, list.count);
    assert_null(import_of(*state, &err));
    check_message(&err, norm);
    check_message(&err, "found I32");
    tensor->dtype = "F32";
    // One left out: the others move up.
    list.tensors[index_of(&list, norm)] = list.tensors[list.count - 1];
    write_list(*state, "model.safetensors", &list, 0, list.count - 1);
    assert_null(import_of(*state, &err));
    check_message(&err, "1 of 24 tensors are missing from the weights: model.norm.weight");
    mm_safetensors_close(list.file);
}

static void test_a_tied_head_may_be_a_copy_and_nothing_else(void **state)
{
    mm_err err;
    tensor_list list = fixture_tensors(*state);
    mm_model *expected = golden_model();
    mm_safetensor *head = &list.tensors[list.count];
    *head = list.tensors[index_of(&list, "model.embed_tokens.weight")];
    head->name = "lm_head.weight";
    write_list(*state, "model.safetensors", &list, 0, list.count + 1);
    mm_model *model = import_of(*state, &err);
    if (!model) fail_msg("%s", err.message);
    check_same_model(model, expected);
    mm_model_free(model);
    float *changed = mm_alloc(head->bytes);
    memcpy(changed, head->data, head->bytes);
    changed[5] += 1;
    head->data = changed;
    write_list(*state, "model.safetensors", &list, 0, list.count + 1);
    assert_null(import_of(*state, &err));
    check_message(&err, "lm_head.weight differs");
    mm_free(changed);
    mm_model_free(expected);
    mm_safetensors_close(list.file);
}

/* The upper half of a float is a bfloat16: exact when the lower half is zero. */
static void test_bfloat16_weights_are_widened(void **state)
{
    mm_err err;
    tensor_list list = fixture_tensors(*state);
    mm_model *expected = golden_model();
    uint16_t *halves[MAX_TENSORS];
    for (size_t i = 0; i < list.count; i++) {
        mm_safetensor *tensor = &list.tensors[i];
        const size_t count = tensor->bytes / sizeof(float);
        halves[i] = mm_alloc(count * sizeof(uint16_t));
        float *exact = mm_model_find(expected, tensor->name)->data;
        for (size_t k = 0; k < count; k++) {
            uint32_t bits;
            memcpy(&bits, (const char *)tensor->data + 4 * k, 4);
            halves[i][k] = (uint16_t)(bits >> 16);
            bits &= 0xFFFF0000u;
            memcpy(&exact[k], &bits, 4);
        }
        tensor->dtype = "BF16";
        tensor->data = halves[i];
        tensor->bytes = count * sizeof(uint16_t);
    }
    write_list(*state, "model.safetensors", &list, 0, list.count);
    mm_model *model = import_of(*state, &err);
    if (!model) fail_msg("%s", err.message);
    check_same_model(model, expected);
    mm_model_free(model);
    mm_model_free(expected);
    for (size_t i = 0; i < list.count; i++)
        mm_free(halves[i]);
    mm_safetensors_close(list.file);
}

/* Two shards, the first `split` tensors in the first; the index lists `listed` of them. */
static json_t *write_shards(const char *dir, const tensor_list *list, size_t split)
{
    write_list(dir, "model-1.safetensors", list, 0, split);
    write_list(dir, "model-2.safetensors", list, split, list->count);
    json_t *map = json_object();
    for (size_t i = 0; i < list->count; i++)
        json_object_set_new(map, list->tensors[i].name,
                            json_string(i < split ? "model-1.safetensors" : "model-2.safetensors"));
    return json_pack("{s:{s:i},s:o}", "metadata", "total_size", 1, "weight_map", map);
}

static void test_sharded_weights_are_joined_by_their_index(void **state)
{
    const char *const name = "model.safetensors.index.json";
    static const struct {
        const char *tensor;
        const char *shard; /* NULL: removed from the index */
        const char *message;
    } rows[] = {
        {"model.norm.weight", "../model-1.safetensors", "must name a .safetensors file"},
        {"model.norm.weight", "/etc/passwd", "must name a .safetensors file"},
        {"model.norm.weight", ".safetensors", "must name a .safetensors file"},
        {"model.norm.weight", "pytorch_model.bin", "must name a .safetensors file"},
        {"model.norm.weight", "model-3.safetensors", "model-3.safetensors"},
        {"nothing.weight", "model-1.safetensors", "\"nothing.weight\" is not in"},
        {"model.norm.weight", NULL, "\"weight_map\" lists 23"},
    };
    mm_err err;
    tensor_list list = fixture_tensors(*state);
    json_t *index = write_shards(*state, &list, 9);
    write_json(*state, name, index);
    mm_model *model = import_of(*state, &err);
    if (!model) fail_msg("%s", err.message);
    mm_model *expected = golden_model();
    check_same_model(model, expected);
    mm_model_free(expected);
    mm_model_free(model);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *changed = json_deep_copy(index);
        json_t *map = json_object_get(changed, "weight_map");
        if (rows[i].shard)
            json_object_set_new(map, rows[i].tensor, json_string(rows[i].shard));
        else
            json_object_del(map, rows[i].tensor);
        write_json(*state, name, changed);
        json_decref(changed);
        CHECK_ROW(!import_of(*state, &err), i);
        if (!strstr(err.message, rows[i].message))
            fail_msg("row %zu: \"%s\" does not contain \"%s\"", i, err.message, rows[i].message);
    }
    write_file(*state, name, "{\"weight_map\":{}}", 17);
    assert_null(import_of(*state, &err));
    check_message(&err, "missing or empty");
    json_decref(index);
    mm_safetensors_close(list.file);
}

static void test_folders_without_what_is_needed_say_so(void **state)
{
    mm_err err;
    assert_null(import_of(*state, &err));
    check_message(&err, "config.json");
    copy_file(QWEN3, *state, "config.json");
    write_file(*state, "pytorch_model.bin", "x", 1);
    assert_null(import_of(*state, &err));
    check_message(&err, "pytorch_model.bin");
    copy_file(QWEN3, *state, "model.safetensors");
    write_file(*state, "tokenizer.json", "{}", 2);
    assert_null(import_of(*state, &err));
    check_message(&err, "tokenizer.json");
    mm_tokenizer *tokenizer = small_tokenizer(300);
    CHECK_OK(mm_tokenizer_save(tokenizer, *state, failure));
    mm_tokenizer_free(tokenizer);
    assert_null(import_of(*state, &err));
    check_message(&err, "300 ids, the model only 97");
}

/* A config.json cut anywhere, or with any byte replaced, is an error or a model, never a crash. */
static void test_damaged_settings_are_clean_errors(void **state)
{
    copy_file(QWEN3, *state, "model.safetensors");
    char *text = read_text(QWEN3, "config.json");
    const size_t length = strlen(text);
    mm_err err;
    for (size_t at = 0; at < length - 2; at++) { // without the last brace
        write_file(*state, "config.json", text, at);
        CHECK_ROW(!import_of(*state, &err) && err.message[0], at);
    }
    for (size_t at = 0; at < length; at++) {
        static const char values[] = {'9', '-', '"', '\0', '\xff'};
        for (size_t v = 0; v < sizeof values; v++) {
            const char kept = text[at];
            text[at] = values[v];
            write_file(*state, "config.json", text, length);
            mm_model *model = import_of(*state, &err);
            CHECK_ROW(model || err.message[0], at);
            mm_model_free(model);
            text[at] = kept;
        }
    }
    mm_free(text);
}

static void test_running_out_of_memory_is_clean(void **state)
{
    mm_model *model = golden_model();
    const mm_hf_provenance provenance = {.run_name = "run", .json = "{}"};
    mm_tokenizer *none = NULL;
    for (uint64_t nth = 1;; nth++) {
        mm_model *back = NULL;
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_hf_import(QWEN3, &back, &none, &err);
        mm_alloc_fail_at(0);
        if (status == MM_OK) {
            assert_true(nth > 10);
            mm_model_free(back);
            break;
        }
        CHECK_ROW(status == MM_ENOMEM && !back, nth);
    }
    for (uint64_t nth = 1;; nth++) {
        mm_err err = {0};
        mm_alloc_fail_at(nth);
        const mm_status status = mm_hf_export(*state, model, NULL, &provenance, true, &err);
        mm_alloc_fail_at(0);
        if (status == MM_OK) {
            assert_true(nth > 10);
            break;
        }
        CHECK_ROW(status == MM_ENOMEM, nth);
        // Once config.json is there, all the rest is: only the last flush can have failed.
        if (mm_file_exists(in_dir(*state, "config.json"))) {
            mm_model *back = import_of(*state, &err);
            CHECK_ROW(back, nth);
            check_same_model(model, back);
            mm_model_free(back);
        }
    }
    assert_int_equal(count_entries(*state), 5); // no temporary file is left
    mm_model_free(model);
}

#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, temp_dir_make, temp_dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIR(test_export_and_import_are_bit_equal),
        WITH_DIR(test_the_settings_are_written_in_both_spellings),
        WITH_DIR(test_an_existing_folder_is_not_overwritten_unasked),
        WITH_DIR(test_what_the_engine_cannot_compute_is_refused),
        WITH_DIR(test_settings_of_transformers_5_alone_are_enough),
        WITH_DIR(test_tensors_that_do_not_fit_are_named),
        WITH_DIR(test_a_tied_head_may_be_a_copy_and_nothing_else),
        WITH_DIR(test_bfloat16_weights_are_widened),
        WITH_DIR(test_sharded_weights_are_joined_by_their_index),
        WITH_DIR(test_folders_without_what_is_needed_say_so),
        WITH_DIR(test_damaged_settings_are_clean_errors),
        WITH_DIR(test_running_out_of_memory_is_clean),
    };
    return cmocka_run_group_tests_name("io/hf", tests, NULL, NULL);
}
