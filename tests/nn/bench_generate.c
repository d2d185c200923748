/* Not a test: prints the speed of generation, best of the rounds for each figure. Bandwidth counts
 * the bytes of all weights once per step. Usage: nn_bench_generate [THREADS] [ROUNDS] [HIDDEN_SIZE]
 */
#include "core/nn/engine.h"
#include "core/nn/generate.h"

#include <stdio.h>
#include <stdlib.h>

enum { PROMPT = 512, SHORT_PROMPT = 64, NEW_TOKENS = 64, MAX_ROWS = 32 };

typedef struct bench_size {
    const char *preset;
    int32_t hidden_size;
    int32_t layers;
} bench_size;

static const bench_size SIZES[] = {{"v3", 256, 4}, {"v2-small", 512, 8}, {"v3", 768, 8}};
static const int32_t ROWS[] = {1, 8, MAX_ROWS};

/* All rows start together: the time of decoding is that of the row whose prompt came last. */
static mm_status measure(mm_generator *generator, int32_t rows, int32_t n_prompt, int32_t rounds,
                         double *prefill_s, double *decode_s, mm_err *err)
{
    static int32_t ids[MAX_ROWS][PROMPT];
    mm_prompt prompts[MAX_ROWS];
    mm_generation results[MAX_ROWS];
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = NEW_TOKENS;
    sampling.n_stop_ids = 0;
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t at = 0; at < n_prompt; at++)
            ids[i][at] = 36 + (at * 7919 + i * 31) % 6000;
        prompts[i] = (mm_prompt){ids[i], n_prompt, (uint64_t)i};
    }
    *prefill_s = *decode_s = 1e9;
    for (int32_t round = 0; round < rounds; round++) {
        MM_TRY(mm_generate_batch(generator, prompts, rows, &sampling, NULL, NULL, results, err));
        const mm_generation *last = &results[rows - 1];
        if (last->prefill_s < *prefill_s) *prefill_s = last->prefill_s;
        if (last->decode_s < *decode_s) *decode_s = last->decode_s;
    }
    return MM_OK;
}

static mm_status bench(const mm_model *model, bool bf16, int32_t threads, int32_t rounds,
                       mm_err *err)
{
    mm_status status = MM_OK;
    mm_generator *generator = NULL;
    const int64_t params = mm_model_config_params(mm_model_config_of(model));
    printf("  %s ", bf16 ? "bf16" : "fp32");
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        const mm_generator_options options = {
            .max_tokens = PROMPT + NEW_TOKENS, .rows = ROWS[i], .threads = threads, .bf16 = bf16};
        const int32_t n_prompt = ROWS[i] == 1 ? PROMPT : SHORT_PROMPT;
        double prefill_s = 0;
        double decode_s = 0;
        mm_generator_free(generator);
        MM_GO(mm_generator_new_batch(&generator, model, &options, err));
        MM_GO(measure(generator, ROWS[i], n_prompt, rounds, &prefill_s, &decode_s, err));
        // The token drawn first comes from the prompt.
        const double steps = (NEW_TOKENS - 1) / decode_s;
        if (ROWS[i] == 1) printf("prefill %7.0f/s  decode", PROMPT / prefill_s);
        printf("  x%d %8.1f/s %5.1f GB/s", ROWS[i], steps * ROWS[i],
               steps * (bf16 ? 2e-9 : 4e-9) * (double)params);
        fflush(stdout);
    }
    printf("\n");
done:
    mm_generator_free(generator);
    return status;
}

static mm_status bench_sizes(int32_t threads, int32_t rounds, int32_t only, mm_err *err)
{
    mm_status status = MM_OK;
    mm_model *model = NULL;
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
        mm_model_config config;
        if (only > 0 && SIZES[i].hidden_size != only) continue;
        MM_GO(mm_model_config_preset(&config, SIZES[i].preset, err));
        config.hidden_size = SIZES[i].hidden_size;
        config.num_hidden_layers = SIZES[i].layers;
        MM_GO(mm_model_config_resolve(&config, err));
        mm_model_free(model);
        MM_GO(mm_model_new(&model, &config, MM_F32, err));
        mm_model_init(model, 1);
        printf("%s %d x %d, %lld parameters, tokens per second\n", SIZES[i].preset,
               SIZES[i].hidden_size, SIZES[i].layers, (long long)mm_model_config_params(&config));
        MM_GO(bench(model, false, threads, rounds, err));
        MM_GO(bench(model, true, threads, rounds, err));
    }
done:
    mm_model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    const int32_t threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 0;
    const int32_t rounds = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 5;
    const int32_t only = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 0;
    mm_err err = {0};
    printf("fp32 %s, bf16 %s, threads %d\n", mm_engine_isa(MM_F32), mm_engine_isa(MM_BF16),
           threads);
    if (bench_sizes(threads, rounds, only, &err) == MM_OK) return 0;
    fprintf(stderr, "nn_bench_generate: %s\n", err.message);
    return 1;
}
