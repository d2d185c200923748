/* For check_transformers.py: exports a model with seeded weights and prints, as one JSON object,
 * what the engine and the tokenizer make of fixed inputs.
 *
 * Usage: hf_tool PRESET TOKENIZER OUT, where TOKENIZER is a file, a folder, or "train";
 *        hf_tool compare A B, which imports two folders and fails unless they are bit-equal.
 */
#include "core/base/json.h"
#include "core/base/rng.h"
#include "core/io/hf.h"
#include "core/nn/engine.h"
#include "core/nn/generate.h"
#include "core/text/chat.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS = 90, SEGMENTS = 4, PROMPT = 12, NEW_TOKENS = 48, TRAINED_VOCAB = 500 };
static const int32_t BOUNDS[SEGMENTS + 1] = {0, 1, 30, 32, TOKENS};

static const char *const TEXTS[] = {
    "Hello, world! It's 2024's 3rd test: don't  stop.\n\n  Indented\tline ",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "<|im_start|>user\nhi<|im_end|>\n<think>\n\n</think>",
    "naïve café — 𝒳 🙂👩‍👩‍👧 \xEF\xBB\xBF x² ½ ٣",
    " ",
    "a\r\n\r\nb   c",
};

/* Spread widely, so that the most likely token is so by more than rounding. */
static void draw_weights(mm_model *model)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    for (int32_t i = 0; i < count; i++) {
        mm_rng rng;
        mm_rng_init(&rng, 7, MM_RNG_TEST, (uint64_t)i);
        const bool is_norm = tensors[i].init == MM_INIT_ONE;
        for (int64_t k = 0; k < tensors[i].count; k++)
            ((float *)tensors[i].data)[k] =
                (float)((is_norm ? 1 : 0) + (is_norm ? 0.2 : 0.1) * mm_rng_normal(&rng));
    }
}

static mm_status train_tokenizer(mm_tokenizer **out, mm_err *err)
{
    mm_bpe_trainer *trainer = NULL;
    mm_status status = MM_OK;
    MM_TRY(mm_bpe_trainer_new(&trainer, TRAINED_VOCAB, err));
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        MM_GO(mm_bpe_trainer_feed(trainer, TEXTS[i], strlen(TEXTS[i]), err));
    MM_GO(mm_bpe_trainer_finish(trainer, out, NULL, NULL, err));
done:
    mm_bpe_trainer_free(trainer);
    return status;
}

static mm_status make_model(const char *preset, int32_t vocab_size, mm_model **out, mm_err *err)
{
    mm_model_config config;
    MM_TRY(mm_model_config_preset(&config, preset, err));
    config.vocab_size = vocab_size;
    config.hidden_size = 128;
    config.num_hidden_layers = 3;
    config.head_dim = 24;
    config.intermediate_size = 0;
    config.tie_word_embeddings = config.qk_norm;
    MM_TRY(mm_model_config_resolve(&config, err));
    MM_TRY(mm_model_new(out, &config, MM_F32, err));
    draw_weights(*out);
    return MM_OK;
}

static void add_ids(mm_str *out, const char *name, const int32_t *ids, int64_t count)
{
    mm_str_addf(out, "\"%s\":[", name);
    for (int64_t i = 0; i < count; i++)
        mm_str_addf(out, i ? ",%d" : "%d", ids[i]);
    mm_str_add(out, "],");
}

static mm_status add_loss(mm_str *out, mm_model *model, const int32_t *tokens, mm_err *err)
{
    int32_t labels[TOKENS];
    mm_engine *engine = NULL;
    mm_status status = MM_OK;
    mm_loss loss;
    for (int32_t s = 0; s < SEGMENTS; s++)
        for (int32_t t = BOUNDS[s]; t < BOUNDS[s + 1]; t++)
            labels[t] = t + 1 < BOUNDS[s + 1] ? tokens[t + 1] : MM_LABEL_IGNORE;
    const mm_batch batch = {.n_tokens = TOKENS,
                            .n_segments = SEGMENTS,
                            .tokens = tokens,
                            .labels = labels,
                            .segments = BOUNDS,
                            .n_labels = TOKENS - SEGMENTS};
    const mm_engine_options options = {.max_tokens = TOKENS};
    MM_GO(mm_engine_new(&engine, model, &options, err));
    MM_GO(mm_engine_eval(engine, &batch, &loss, err));
    mm_str_add(out, "\"loss\":");
    mm_json_add_number(out, loss.sum / (double)loss.count);
    mm_str_add_char(out, ',');
done:
    mm_engine_free(engine);
    return status;
}

typedef struct id_list {
    int32_t ids[NEW_TOKENS];
    int32_t count;
} id_list;

static bool keep_id(void *context, int32_t id)
{
    id_list *list = context;
    list->ids[list->count++] = id;
    return true;
}

static mm_status add_greedy(mm_str *out, const mm_model *model, const int32_t *tokens, mm_err *err)
{
    mm_generator *generator = NULL;
    mm_status status = MM_OK;
    mm_generation result;
    id_list list = {0};
    mm_sampling sampling = mm_sampling_default();
    sampling.temperature = 0;
    sampling.max_new_tokens = NEW_TOKENS;
    MM_GO(mm_generator_new(&generator, model, PROMPT + NEW_TOKENS, 0, err));
    MM_GO(mm_generate(generator, tokens, PROMPT, &sampling, keep_id, &list, &result, err));
    add_ids(out, "prompt", tokens, PROMPT);
    add_ids(out, "greedy", list.ids, list.count);
done:
    mm_generator_free(generator);
    return status;
}

static mm_status add_texts(mm_str *out, const mm_tokenizer *tokenizer, mm_err *err)
{
    mm_str_add(out, "\"texts\":[");
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        mm_ids ids = {0};
        MM_TRY(
            mm_tokenizer_encode(tokenizer, TEXTS[i], strlen(TEXTS[i]), MM_ADDED_PARSE, &ids, err));
        mm_str_add(out, i ? ",{" : "{");
        add_ids(out, "ids", ids.data, (int64_t)ids.count);
        mm_str_add(out, "\"text\":");
        mm_json_add_string(out, TEXTS[i], strlen(TEXTS[i]));
        mm_str_add_char(out, '}');
        mm_ids_drop(&ids);
    }
    mm_str_add(out, "],");
    return MM_OK;
}

static mm_status add_chat(mm_str *out, mm_err *err)
{
    const mm_message messages[] = {{.role = "system", .content = "Be brief."},
                                   {.role = "user", .content = "2+2?"},
                                   {.role = "assistant", .content = "4"},
                                   {.role = "user", .content = "再加一？"}};
    const mm_conversation conversation = {messages, sizeof messages / sizeof *messages, NULL};
    const mm_chat_options options = {.generation_prompt = true};
    mm_str text = {0};
    mm_status status = mm_chat_render(&conversation, &options, &text, err);
    mm_str_add(out, "\"chat\":");
    mm_json_add_string(out, mm_str_text(&text), text.length);
    mm_str_drop(&text);
    return status;
}

static mm_status run(const char *preset, const char *words, const char *dir, mm_str *out,
                     mm_err *err)
{
    mm_status status = MM_OK;
    mm_tokenizer *tokenizer = NULL;
    mm_model *model = NULL;
    int32_t tokens[TOKENS];
    if (strcmp(words, "train") == 0)
        MM_GO(train_tokenizer(&tokenizer, err));
    else
        MM_GO(mm_tokenizer_load(&tokenizer, words, err));
    MM_GO(make_model(preset, mm_tokenizer_vocab(tokenizer), &model, err));
    MM_GO(mm_hf_export(dir, model, tokenizer, NULL, false, err));
    mm_rng rng;
    mm_rng_init(&rng, 3, MM_RNG_TEST, 0);
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)mm_rng_below(&rng, (uint32_t)mm_tokenizer_vocab(tokenizer));
    mm_str_add_char(out, '{');
    add_ids(out, "tokens", tokens, TOKENS);
    add_ids(out, "bounds", BOUNDS, SEGMENTS + 1);
    MM_GO(add_loss(out, model, tokens, err));
    MM_GO(add_greedy(out, model, tokens, err));
    MM_GO(add_texts(out, tokenizer, err));
    MM_GO(add_chat(out, err));
    mm_str_add_char(out, '}');
    MM_GO(mm_str_check(out, err));
done:
    mm_model_free(model);
    mm_tokenizer_free(tokenizer);
    return status;
}

static mm_status compare(const char *left_dir, const char *right_dir, mm_err *err)
{
    mm_status status = MM_OK;
    mm_model *models[2] = {0};
    mm_tokenizer *tokenizers[2] = {0};
    MM_GO(mm_hf_import(left_dir, &models[0], &tokenizers[0], err));
    MM_GO(mm_hf_import(right_dir, &models[1], &tokenizers[1], err));
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(models[0], &tensors);
    for (int32_t i = 0; i < count && status == MM_OK; i++) {
        const mm_tensor *other = mm_model_find(models[1], tensors[i].name);
        if (!other || other->count != tensors[i].count ||
            memcmp(other->data, tensors[i].data, (size_t)other->count * sizeof(float)) != 0)
            status = MM_FAIL(err, MM_ECORRUPT, "tensor %s differs", tensors[i].name);
    }
done:
    for (int i = 0; i < 2; i++) {
        mm_tokenizer_free(tokenizers[i]);
        mm_model_free(models[i]);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: hf_tool PRESET TOKENIZER|train OUT | hf_tool compare A B\n");
        return 2;
    }
    mm_err err = {0};
    mm_str out = {0};
    const mm_status status = strcmp(argv[1], "compare") == 0
                                 ? compare(argv[2], argv[3], &err)
                                 : run(argv[1], argv[2], argv[3], &out, &err);
    if (status == MM_OK)
        puts(mm_str_text(&out));
    else
        fprintf(stderr, "hf_tool: %s\n", err.message);
    mm_str_drop(&out);
    return status == MM_OK ? 0 : 1;
}
