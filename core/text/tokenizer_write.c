/* Writing tokenizer.json and tokenizer_config.json.
 *
 * What was read is kept and comes back byte for byte. A trained tokenizer is written in MiniMind's
 * form, laid out as Hugging Face tokenizers lays it out (two spaces of indent).
 */
#include "core/text/tokenizer_internal.h"

#include "core/base/file.h"

#include <string.h>

enum { MODEL_MAX_LENGTH = 131072 };

const mm_reserved mm_reserved_tokens[MM_RESERVED_TOKENS] = {
    {"<|endoftext|>", true},        {"<|im_start|>", true},       {"<|im_end|>", true},
    {"<|object_ref_start|>", true}, {"<|object_ref_end|>", true}, {"<|box_start|>", true},
    {"<|box_end|>", true},          {"<|quad_start|>", true},     {"<|quad_end|>", true},
    {"<|vision_start|>", true},     {"<|vision_end|>", true},     {"<|vision_pad|>", true},
    {"<|image_pad|>", true},        {"<|video_pad|>", true},      {"<|audio_start|>", true},
    {"<|audio_end|>", true},        {"<|audio_pad|>", true},      {"<tts_pad>", true},
    {"<tts_text_bos>", true},       {"<tts_text_eod>", true},     {"<tts_text_bos_single>", true},
    {"<tool_call>", false},         {"</tool_call>", false},      {"<tool_response>", false},
    {"</tool_response>", false},    {"<think>", false},           {"</think>", false},
    {"<|buffer1|>", false},         {"<|buffer2|>", false},       {"<|buffer3|>", false},
    {"<|buffer4|>", false},         {"<|buffer5|>", false},       {"<|buffer6|>", false},
    {"<|buffer7|>", false},         {"<|buffer8|>", false},       {"<|buffer9|>", false},
};

static const char *bool_text(bool value) { return value ? "true" : "false"; }

static void add_string(mm_str *out, const char *text)
{
    mm_text_add_json_string(out, text, strlen(text));
}

/* The token of this id as a JSON string. */
static void add_token(mm_str *out, const mm_trained *trained, mm_str *scratch, int32_t id)
{
    mm_str_clear(scratch);
    if (id < MM_RESERVED_TOKENS) {
        mm_str_add(scratch, mm_reserved_tokens[id].text);
    } else if (id < MM_RESERVED_TOKENS + MM_BYTE_SYMBOLS) {
        mm_byte_symbols_add(scratch, &(char){(char)mm_byte_of_order(id - MM_RESERVED_TOKENS)}, 1);
    } else {
        const size_t at = (size_t)(id - MM_RESERVED_TOKENS - MM_BYTE_SYMBOLS);
        MM_ASSERT(at < trained->n_tokens);
        mm_byte_symbols_add(scratch, trained->tokens[at], trained->token_bytes[at]);
    }
    if (scratch->status != MM_OK && out->status == MM_OK) out->status = scratch->status;
    add_string(out, mm_str_text(scratch));
}

static void add_reserved(mm_str *out)
{
    mm_str_add(out, "  \"added_tokens\": [\n");
    for (int id = 0; id < MM_RESERVED_TOKENS; id++) {
        const mm_reserved *token = &mm_reserved_tokens[id];
        mm_str_addf(out, "    {\n      \"id\": %d,\n      \"content\": \"%s\",\n", id, token->text);
        mm_str_add(out, "      \"single_word\": false,\n      \"lstrip\": false,\n"
                        "      \"rstrip\": false,\n      \"normalized\": false,\n");
        mm_str_addf(out, "      \"special\": %s\n    }%s\n", bool_text(token->is_special),
                    id + 1 < MM_RESERVED_TOKENS ? "," : "");
    }
    mm_str_add(out, "  ],\n");
}

void mm_trained_json(const mm_trained *trained, mm_str *out)
{
    mm_str scratch;
    mm_str_init(&scratch, 0);
    mm_str_add(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    add_reserved(out);
    mm_str_add(out,
               "  \"normalizer\": null,\n  \"pre_tokenizer\": {\n    \"type\": \"ByteLevel\",\n"
               "    \"add_prefix_space\": false,\n    \"trim_offsets\": true,\n"
               "    \"use_regex\": true\n  },\n  \"post_processor\": null,\n"
               "  \"decoder\": {\n    \"type\": \"ByteLevel\",\n"
               "    \"add_prefix_space\": true,\n    \"trim_offsets\": true,\n"
               "    \"use_regex\": true\n  },\n"
               "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
               "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
               "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
               "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
               "    \"vocab\": {\n");
    const int32_t n_tokens = MM_RESERVED_TOKENS + MM_BYTE_SYMBOLS + (int32_t)trained->n_tokens;
    for (int32_t id = 0; id < n_tokens; id++) {
        mm_str_add(out, "      ");
        add_token(out, trained, &scratch, id);
        mm_str_addf(out, ": %d%s\n", id, id + 1 < n_tokens ? "," : "");
    }
    mm_str_add(out,
               trained->n_merges > 0 ? "    },\n    \"merges\": [\n" : "    },\n    \"merges\": [");
    for (size_t i = 0; i < trained->n_merges; i++) {
        mm_str_add(out, "      [\n        ");
        add_token(out, trained, &scratch, trained->merges[i][0]);
        mm_str_add(out, ",\n        ");
        add_token(out, trained, &scratch, trained->merges[i][1]);
        mm_str_add(out, i + 1 < trained->n_merges ? "\n      ],\n" : "\n      ]\n    ");
    }
    mm_str_add(out, "]\n  }\n}");
    mm_str_drop(&scratch);
}

static void add_named(mm_str *out, const mm_tokenizer *tokenizer, const char *name, int32_t id)
{
    if (id < 0) return;
    mm_str_addf(out, "    \"%s\": ", name);
    add_string(out, tokenizer->tokens[id].text);
    mm_str_add(out, ",\n");
}

void mm_tokenizer_config_write(const mm_tokenizer *tokenizer, const char *chat_template,
                               mm_str *out)
{
    mm_str_add(out, "{\n    \"add_bos_token\": false,\n    \"add_eos_token\": false,\n"
                    "    \"add_prefix_space\": false,\n    \"added_tokens_decoder\": {");
    bool is_first = true;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const mm_token *token = &tokenizer->tokens[id];
        if (!token->is_added) continue;
        mm_str_addf(out, "%s\n        \"%d\": {\n            \"content\": ", is_first ? "" : ",",
                    id);
        is_first = false;
        add_string(out, token->text);
        mm_str_addf(out,
                    ",\n            \"lstrip\": false,\n            \"normalized\": %s,\n"
                    "            \"rstrip\": false,\n            \"single_word\": false,\n"
                    "            \"special\": %s\n        }",
                    bool_text(token->is_normalized), bool_text(token->is_special));
    }
    mm_str_add(out, is_first ? "},\n" : "\n    },\n");
    mm_str_add(out, "    \"additional_special_tokens\": [");
    is_first = true;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        if (!tokenizer->tokens[id].is_special || id == tokenizer->pad) continue;
        mm_str_add(out, is_first ? "\n        " : ",\n        ");
        is_first = false;
        add_string(out, tokenizer->tokens[id].text);
    }
    mm_str_add(out, is_first ? "],\n" : "\n    ],\n");
    add_named(out, tokenizer, "bos_token", tokenizer->bos);
    add_named(out, tokenizer, "eos_token", tokenizer->eos);
    add_named(out, tokenizer, "pad_token", tokenizer->pad);
    add_named(out, tokenizer, "unk_token", tokenizer->pad);
    mm_str_addf(out,
                "    \"clean_up_tokenization_spaces\": false,\n    \"model_max_length\": %d,\n",
                MODEL_MAX_LENGTH);
    if (chat_template) {
        mm_str_add(out, "    \"chat_template\": ");
        add_string(out, chat_template);
        mm_str_add(out, ",\n");
    }
    mm_str_add(out, "    \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

mm_status mm_tokenizer_json(const mm_tokenizer *tokenizer, mm_str *out, mm_err *err)
{
    mm_str_add_bytes(out, tokenizer->json, tokenizer->json_bytes);
    return mm_str_check(out, err);
}

mm_status mm_tokenizer_config_json(const mm_tokenizer *tokenizer, mm_str *out, mm_err *err)
{
    if (tokenizer->config)
        mm_str_add_bytes(out, tokenizer->config, tokenizer->config_bytes);
    else
        mm_tokenizer_config_write(tokenizer, tokenizer->chat_template, out);
    return mm_str_check(out, err);
}

mm_status mm_tokenizer_save(const mm_tokenizer *tokenizer, const char *dir, mm_err *err)
{
    mm_status status = MM_OK;
    char *json_path = NULL;
    char *config_path = NULL;
    mm_str config;
    mm_str_init(&config, 0);
    MM_GO(mm_dir_make(dir, err));
    MM_GO(mm_path_join(&json_path, dir, "tokenizer.json", err));
    MM_GO(mm_path_join(&config_path, dir, "tokenizer_config.json", err));
    MM_GO(mm_file_write_atomic(json_path, tokenizer->json, tokenizer->json_bytes, err));
    MM_GO(mm_tokenizer_config_json(tokenizer, &config, err));
    MM_GO(mm_file_write_atomic(config_path, mm_str_text(&config), config.length, err));
done:
    mm_str_drop(&config);
    mm_free(config_path);
    mm_free(json_path);
    return status;
}
