/* Not a test: prints the speed of generation. Best of five for each figure; bandwidth counts the
 * bytes of all weights once per token. Usage: nn_bench_generate [THREADS] */
#include "core/nn/engine.h"
#include "core/nn/generate.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 384, NEW_TOKENS = 128, ROUNDS = 5 };

typedef struct bench_row {
    const char *preset;
    int32_t hidden_size;
    int32_t layers;
} bench_row;

static const bench_row ROWS[] = {{"v3", 256, 4}, {"v2-small", 512, 8}, {"v3", 768, 8}};

static mm_status bench(const bench_row *row, int32_t threads, mm_err *err)
{
    mm_status status = MM_OK;
    mm_model *model = NULL;
    mm_generator *generator = NULL;
    mm_model_config config;
    int32_t prompt[PROMPT];
    mm_generation best = {.prefill_s = 1e9, .decode_s = 1e9};
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = NEW_TOKENS;
    sampling.n_stop_ids = 0;
    MM_GO(mm_model_config_preset(&config, row->preset, err));
    config.hidden_size = row->hidden_size;
    config.num_hidden_layers = row->layers;
    MM_GO(mm_model_config_resolve(&config, err));
    MM_GO(mm_model_new(&model, &config, MM_F32, err));
    mm_model_init(model, 1);
    MM_GO(mm_generator_new(&generator, model, PROMPT + NEW_TOKENS, threads, err));
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (i * 7919 + 13) % config.vocab_size;
    for (int round = 0; round < ROUNDS; round++) {
        mm_generation result;
        MM_GO(mm_generate(generator, prompt, PROMPT, &sampling, NULL, NULL, &result, err));
        if (result.prefill_s < best.prefill_s) best.prefill_s = result.prefill_s;
        if (result.decode_s < best.decode_s) best.decode_s = result.decode_s;
    }
    // The token sampled first comes from the prefill.
    const double rate = (NEW_TOKENS - 1) / best.decode_s;
    const double bytes = 4.0 * (double)mm_model_config_params(&config);
    printf("%-8s %4d x %-2d %11lld parameters  prefill %7.0f tokens/s  decode %6.1f tokens/s  "
           "%5.1f GB/s\n",
           row->preset, row->hidden_size, row->layers, (long long)mm_model_config_params(&config),
           PROMPT / best.prefill_s, rate, rate * bytes * 1e-9);
done:
    mm_generator_free(generator);
    mm_model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    const int32_t threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 0;
    mm_err err = {0};
    printf("isa %s, threads %d\n", mm_engine_isa(MM_F32), threads);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        if (bench(&ROWS[i], threads, &err) == MM_OK) continue;
        fprintf(stderr, "nn_bench_generate: %s\n", err.message);
        return 1;
    }
    return 0;
}
