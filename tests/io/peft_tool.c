/* For check_peft.py: adapters with seeded weights out of the engine, and adapters of peft into it.
 *
 * Usage: peft_tool export PRESET RANK TARGETS OUT: writes OUT/base and OUT/merged (model folders),
 *            OUT/adapters (of peft), OUT/logits.f32 (of base and adapters), and prints the tokens
 *            and their documents as one JSON object;
 *        peft_tool logits BASE ADAPTERS FILE: writes the logits that the two give together.
 */
#include "core/base/file.h"
#include "core/base/rng.h"
#include "core/io/hf.h"
#include "core/io/peft.h"
#include "core/nn/engine.h"
#include "core/nn/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 60, SEGMENTS = 3, VOCAB = 97 };
static const int32_t BOUNDS[SEGMENTS + 1] = {0, 25, 27, TOKENS};

static void fill_tokens(int32_t *tokens)
{
    mm_rng rng;
    mm_rng_init(&rng, 11, MM_RNG_TEST, 1);
    for (int32_t t = 0; t < TOKENS; t++)
        tokens[t] = (int32_t)mm_rng_below(&rng, VOCAB);
}

/* Large enough everywhere for a wrong transposition or scale to show. */
static void draw_weights(mm_model *model)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(model, &tensors);
    for (int32_t i = 0; i < count; i++) {
        mm_rng rng;
        mm_rng_init(&rng, 7, MM_RNG_TEST, (uint64_t)i);
        const double mean = tensors[i].init == MM_INIT_ONE ? 1 : 0;
        for (int64_t k = 0; k < tensors[i].count; k++)
            ((float *)tensors[i].data)[k] = (float)(mean + 0.1 * mm_rng_normal(&rng));
    }
}

static mm_status write_logits(const char *path, mm_model *model, mm_err *err)
{
    static float logits[TOKENS * VOCAB];
    int32_t tokens[TOKENS];
    mm_engine *engine = NULL;
    fill_tokens(tokens);
    const mm_batch batch = {.n_tokens = TOKENS,
                            .n_segments = SEGMENTS,
                            .tokens = tokens,
                            .labels = tokens,
                            .segments = BOUNDS,
                            .n_labels = TOKENS};
    MM_TRY(mm_engine_new(&engine, model, &(mm_engine_options){.max_tokens = TOKENS}, err));
    mm_status status = mm_engine_logits(engine, &batch, logits, err);
    if (status == MM_OK) status = mm_file_write_atomic(path, logits, sizeof logits, err);
    mm_engine_free(engine);
    return status;
}

/* The model without its adapters, merged or as they found it. */
static mm_status write_plain(const char *dir, const mm_model *model, bool merged, mm_err *err)
{
    mm_model *plain = NULL;
    mm_model_config config = *mm_model_config_of(model);
    config.lora_rank = 0;
    MM_TRY(mm_model_new(&plain, &config, MM_F32, err));
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(plain, &tensors);
    for (int32_t i = 0; i < count; i++) {
        const mm_tensor *from = mm_model_find(model, tensors[i].name);
        if (merged)
            mm_lora_merged(model, from->name, tensors[i].data);
        else
            memcpy(tensors[i].data, from->data, (size_t)from->count * sizeof(float));
    }
    const mm_status status = mm_hf_export(dir, plain, NULL, NULL, false, err);
    mm_model_free(plain);
    return status;
}

static mm_status write_all(char **args, mm_err *err)
{
    char path[4][512];
    static const char *const NAMES[] = {"base", "merged", "adapters", "logits.f32"};
    int32_t tokens[TOKENS];
    mm_model *model = NULL;
    mm_model_config config;
    mm_status status = MM_OK;
    for (int i = 0; i < 4; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", args[3], NAMES[i]);
    MM_TRY(mm_model_config_preset(&config, args[0], err));
    config.vocab_size = VOCAB;
    config.hidden_size = 48;
    config.num_hidden_layers = 3;
    config.head_dim = 8;
    config.intermediate_size = 0;
    config.tie_word_embeddings = config.qk_norm;
    config.lora_rank = (int32_t)strtol(args[1], NULL, 10);
    config.lora_alpha = 1.5 * config.lora_rank;
    MM_TRY(mm_lora_targets_parse(args[2], &config.lora_targets, err));
    MM_TRY(mm_model_new(&model, &config, MM_F32, err));
    draw_weights(model);
    MM_GO(mm_dir_make(args[3], err));
    MM_GO(write_plain(path[0], model, false, err));
    MM_GO(write_plain(path[1], model, true, err));
    MM_GO(mm_peft_export(path[2], model, path[0], false, err));
    MM_GO(write_logits(path[3], model, err));
    fill_tokens(tokens);
    for (int32_t t = 0; t < TOKENS; t++)
        printf("%s%d", t ? "," : "{\"tokens\":[", tokens[t]);
    for (int32_t s = 0; s <= SEGMENTS; s++)
        printf("%s%d", s ? "," : "],\"bounds\":[", BOUNDS[s]);
    printf("]}\n");
done:
    mm_model_free(model);
    return status;
}

static mm_status read_all(char **args, mm_err *err)
{
    mm_model *base = NULL;
    mm_model *model = NULL;
    mm_tokenizer *tokenizer = NULL;
    int64_t n = 0;
    mm_status status = MM_OK;
    MM_TRY(mm_hf_import(args[0], &base, &tokenizer, err));
    mm_model_config config = *mm_model_config_of(base);
    MM_GO(mm_peft_config_read(args[1], &config, err));
    MM_GO(mm_model_new(&model, &config, MM_F32, err));
    const void *values = mm_model_data(base, &n);
    memcpy(mm_model_data(model, NULL), values, (size_t)n * sizeof(float));
    MM_GO(mm_peft_import(args[1], model, err));
    MM_GO(write_logits(args[2], model, err));
done:
    mm_tokenizer_free(tokenizer);
    mm_model_free(model);
    mm_model_free(base);
    return status;
}

int main(int argc, char **argv)
{
    mm_err err = {0};
    mm_status status = MM_EUSAGE;
    if (argc == 6 && strcmp(argv[1], "export") == 0) status = write_all(argv + 2, &err);
    if (argc == 5 && strcmp(argv[1], "logits") == 0) status = read_all(argv + 2, &err);
    if (status != MM_OK) fprintf(stderr, "peft_tool: %s\n", err.message);
    return status == MM_OK ? 0 : 1;
}
