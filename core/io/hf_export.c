/* Export of a model as a Hugging Face folder that needs no remote code.
 *
 * The settings are written in the spellings of transformers 4 and 5 ("rope_theta" and
 * "rope_parameters", "torch_dtype" and "dtype"), because third parties read one or the other.
 * "layer_types" is left out on purpose: transformers 5 derives it, and skips its own conversion of
 * old settings when it is there. config.json is written last: a folder without it is not a model,
 * so that an interrupted export is never mistaken for one.
 */
#include "core/io/hf.h"

#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/io/folder.h"
#include "core/io/safetensors.h"
#include "core/nn/generate.h"
#include "core/text/chat.h"

#include <stdio.h>
#include <string.h>

/* A number that Python reads as a float: 1000000.0, not 1000000. */
static void add_float(mm_str *out, double value)
{
    const size_t from = out->length;
    mm_json_add_number(out, value);
    if (out->status == MM_OK && !strpbrk(out->data + from, ".e")) mm_str_add(out, ".0");
}

static void add_id(mm_str *out, const char *key, int32_t id)
{
    if (id < 0)
        mm_str_addf(out, "  \"%s\": null,\n", key);
    else
        mm_str_addf(out, "  \"%s\": %d,\n", key, id);
}

static void add_special_ids(mm_str *out, const mm_tokenizer *tokenizer)
{
    add_id(out, "bos_token_id", tokenizer ? mm_tokenizer_bos(tokenizer) : -1);
    add_id(out, "eos_token_id", tokenizer ? mm_tokenizer_eos(tokenizer) : -1);
    add_id(out, "pad_token_id", tokenizer ? mm_tokenizer_pad(tokenizer) : -1);
}

static mm_status write_config(const char *dir, const mm_model_config *config,
                              const mm_tokenizer *tokenizer, mm_err *err)
{
    mm_str out = {0};
    mm_str_addf(&out, "{\n  \"architectures\": [\"%s\"],\n",
                config->qk_norm ? "Qwen3ForCausalLM" : "LlamaForCausalLM");
    mm_str_addf(&out, "  \"model_type\": \"%s\",\n", config->qk_norm ? "qwen3" : "llama");
    mm_str_addf(&out, "  \"vocab_size\": %d,\n", config->vocab_size);
    mm_str_addf(&out, "  \"hidden_size\": %d,\n", config->hidden_size);
    mm_str_addf(&out, "  \"intermediate_size\": %d,\n", config->intermediate_size);
    mm_str_addf(&out, "  \"num_hidden_layers\": %d,\n", config->num_hidden_layers);
    mm_str_addf(&out, "  \"num_attention_heads\": %d,\n", config->num_attention_heads);
    mm_str_addf(&out, "  \"num_key_value_heads\": %d,\n", config->num_key_value_heads);
    mm_str_addf(&out, "  \"head_dim\": %d,\n", config->head_dim);
    mm_str_addf(&out, "  \"max_position_embeddings\": %d,\n", config->max_position_embeddings);
    mm_str_add(&out, "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": ");
    add_float(&out, config->rms_norm_eps);
    mm_str_add(&out, ",\n  \"rope_theta\": ");
    add_float(&out, config->rope_theta);
    mm_str_add(&out, ",\n  \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": ");
    add_float(&out, config->rope_theta);
    mm_str_add(&out, "},\n  \"rope_scaling\": null,\n");
    mm_str_add(&out, "  \"attention_bias\": false,\n  \"attention_dropout\": 0.0,\n");
    if (config->qk_norm)
        mm_str_add(&out, "  \"use_sliding_window\": false,\n  \"sliding_window\": null,\n");
    else
        mm_str_add(&out, "  \"mlp_bias\": false,\n");
    mm_str_addf(&out, "  \"tie_word_embeddings\": %s,\n",
                config->tie_word_embeddings ? "true" : "false");
    add_special_ids(&out, tokenizer);
    mm_str_add(&out, "  \"initializer_range\": 0.02,\n  \"use_cache\": true,\n"
                     "  \"torch_dtype\": \"float32\",\n  \"dtype\": \"float32\"\n}\n");
    return mm_folder_write(dir, "config.json", &out, err);
}

static mm_status write_generation_config(const char *dir, const mm_tokenizer *tokenizer,
                                         mm_err *err)
{
    const mm_sampling sampling = mm_sampling_default();
    mm_str out = {0};
    mm_str_add(&out, "{\n");
    add_special_ids(&out, tokenizer);
    mm_str_add(&out, "  \"do_sample\": true,\n  \"temperature\": ");
    add_float(&out, sampling.temperature);
    mm_str_add(&out, ",\n  \"top_p\": ");
    add_float(&out, sampling.top_p);
    mm_str_addf(&out, ",\n  \"top_k\": %d,\n  \"max_new_tokens\": %d\n}\n", sampling.top_k,
                sampling.max_new_tokens);
    return mm_folder_write(dir, "generation_config.json", &out, err);
}

static mm_status write_weights(const char *dir, const mm_model *model, mm_err *err)
{
    mm_status status = MM_OK;
    char *path = NULL;
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    mm_safetensor *weights = mm_calloc((size_t)count, sizeof *weights);
    if (!weights) return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %d tensors", dir, count);
    for (int32_t i = 0; i < count; i++) {
        weights[i] = (mm_safetensor){.name = tensors[i].name,
                                     .dtype = "F32",
                                     .ndim = tensors[i].ndim,
                                     .data = tensors[i].data,
                                     .bytes = (size_t)tensors[i].count * sizeof(float)};
        memcpy(weights[i].shape, tensors[i].shape, sizeof tensors[i].shape);
    }
    MM_GO(mm_path_join(&path, dir, "model.safetensors", err));
    MM_GO(mm_safetensors_write(path, weights, (size_t)count, err));
done:
    mm_free(path);
    mm_free(weights);
    return status;
}

/* The card: a name goes in as one line of printable text without Markdown's code mark. */
static void add_name(mm_str *out, const char *name)
{
    const size_t from = out->length;
    mm_utf8_add_printable(out, name, strlen(name));
    for (size_t i = from; i < out->length; i++)
        if (strchr("`\n\r\t", out->data[i])) out->data[i] = ' ';
}

static mm_status write_card(const char *dir, const mm_model_config *config,
                            const mm_hf_provenance *provenance, mm_err *err)
{
    mm_str out = {0};
    if (provenance && provenance->card) {
        mm_str_add(&out, provenance->card);
        return mm_folder_write(dir, "README.md", &out, err);
    }
    mm_str_add(&out, "---\nlicense: unknown\nlibrary_name: transformers\n"
                     "pipeline_tag: text-generation\ntags:\n- mmrun\n---\n\n# ");
    if (provenance && provenance->run_name) {
        mm_str_add(&out, "`");
        add_name(&out, provenance->run_name);
        mm_str_add(&out, "`\n\n");
    } else {
        mm_str_add(&out, "Language model\n\n");
    }
    mm_str_addf(&out,
                "A language model of %lld parameters (%s shape: %d layers, width %d, %d query and "
                "%d key-value heads), trained with mmrun, in fp32.\n\n",
                (long long)mm_model_config_params(config), config->qk_norm ? "Qwen3" : "Llama",
                config->num_hidden_layers, config->hidden_size, config->num_attention_heads,
                config->num_key_value_heads);
    mm_str_add(&out, "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
                     "model = AutoModelForCausalLM.from_pretrained(\".\")\n"
                     "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n\n");
    mm_str_addf(&out, "Positions go up to %d; the texts it was trained on may be shorter.\n",
                config->max_position_embeddings);
    if (provenance && provenance->json)
        mm_str_add(&out, "Where it comes from is in `mmrun_run.json`.\n");
    return mm_folder_write(dir, "README.md", &out, err);
}

static mm_status write_tokenizer(const char *dir, const mm_tokenizer *tokenizer, mm_err *err)
{
    mm_str template = {0};
    MM_TRY(mm_tokenizer_save(tokenizer, dir, err));
    mm_str_add(&template, mm_chat_template_jinja());
    return mm_folder_write(dir, "chat_template.jinja", &template, err);
}

mm_status mm_hf_export(const char *dir, const mm_model *model, const mm_tokenizer *tokenizer,
                       const mm_hf_provenance *provenance, bool overwrite, mm_err *err)
{
    const mm_model_config *config = mm_model_config_of(model);
    if (mm_model_dtype(model) != MM_F32)
        return MM_FAIL(err, MM_EUSAGE, "%s: only fp32 models are exported", dir);
    if (tokenizer && mm_tokenizer_vocab(tokenizer) > config->vocab_size)
        return MM_FAIL(err, MM_ECONFIG, "%s: the tokenizer has %d ids, the model only %d", dir,
                       mm_tokenizer_vocab(tokenizer), config->vocab_size);
    if (config->lora_rank > 0)
        return MM_FAIL(err, MM_EUSAGE, "%s: adapters are merged before a model is exported", dir);
    MM_TRY(mm_folder_prepare(dir, "config.json", overwrite, err));
    if (overwrite) MM_TRY(mm_folder_remove(dir, "mmrun_run.json", err));
    MM_TRY(write_weights(dir, model, err));
    if (tokenizer) MM_TRY(write_tokenizer(dir, tokenizer, err));
    MM_TRY(write_generation_config(dir, tokenizer, err));
    MM_TRY(write_card(dir, config, provenance, err));
    if (provenance && provenance->json) {
        mm_str text = {0};
        mm_str_add(&text, provenance->json);
        MM_TRY(mm_folder_write(dir, "mmrun_run.json", &text, err));
    }
    return write_config(dir, config, tokenizer, err);
}
