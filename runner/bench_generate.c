/* Prefill and decode of a model with drawn weights. What is said does not change what it costs, so
 * the prompts are drawn too, and rows go on to their full length.
 *
 * Prefill ends when every row has its first token; what comes after is decode, so a row that began
 * to decode while others were still filled in counts for neither. */
#include "runner/bench.h"

#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/nn/generate.h"

typedef struct decode_run {
    mm_model_config shape;
    mm_model *model;
    mm_generator *generator;
    int32_t *ids;
    mm_prompt *prompts;
    mm_generation *answers;
    double *seconds; // of each counted round
    double *prefill; // tokens per second of each
    double *decode;
} decode_run;

static mm_status open_run(decode_run *run, mm_config *config, const mm_bench_decode *size,
                          mm_err *err)
{
    const size_t rows = (size_t)size->rows;
    const size_t rounds = (size_t)size->rounds;
    const mm_generator_options options = {.max_tokens = size->prompt_tokens + size->new_tokens,
                                          .rows = size->rows,
                                          .threads = (int32_t)mm_config_int(config, "threads"),
                                          .bf16 = mm_config_dtype(config) == MM_BF16};
    MM_TRY(mm_config_model(config, 0, &run->shape, err));
    MM_TRY(mm_model_new(&run->model, &run->shape, MM_F32, err));
    mm_model_init(run->model, (uint64_t)mm_config_int(config, "seed"));
    MM_TRY(mm_generator_new_batch(&run->generator, run->model, &options, err));
    run->ids = mm_calloc(rows * (size_t)size->prompt_tokens, sizeof *run->ids);
    run->prompts = mm_calloc(rows, sizeof *run->prompts);
    run->answers = mm_calloc(rows, sizeof *run->answers);
    run->seconds = mm_calloc(rounds, sizeof *run->seconds);
    run->prefill = mm_calloc(rounds, sizeof *run->prefill);
    run->decode = mm_calloc(rounds, sizeof *run->decode);
    if (!run->ids || !run->prompts || !run->answers || !run->seconds || !run->prefill ||
        !run->decode)
        return MM_FAIL(err, MM_ENOMEM, "no memory for %d prompts", (int)size->rows);
    const uint64_t seed = (uint64_t)mm_config_int(config, "seed");
    mm_rng rng;
    mm_rng_init(&rng, seed, MM_RNG_TEST, 0);
    for (size_t i = 0; i < rows * (size_t)size->prompt_tokens; i++)
        run->ids[i] = (int32_t)mm_rng_below(&rng, (uint32_t)run->shape.vocab_size);
    for (size_t i = 0; i < rows; i++)
        run->prompts[i] = (mm_prompt){.ids = run->ids + i * (size_t)size->prompt_tokens,
                                      .count = size->prompt_tokens,
                                      .seed = seed + i};
    return MM_OK;
}

static void drop_run(decode_run *run)
{
    mm_generator_free(run->generator);
    mm_model_free(run->model);
    mm_free(run->ids);
    mm_free(run->prompts);
    mm_free(run->answers);
    mm_free(run->seconds);
    mm_free(run->prefill);
    mm_free(run->decode);
}

typedef struct clock_tap {
    int32_t rows;
    int32_t begun;   // rows that have a token
    int64_t full_ns; // when the last of them got it
    int64_t after;   // tokens since
    bool *has_token; // by prompt
} clock_tap;

static bool on_token(void *context, int32_t prompt_idx, int32_t id, double logprob)
{
    (void)id;
    (void)logprob;
    clock_tap *tap = context;
    if (tap->begun == tap->rows) {
        tap->after++;
    } else if (!tap->has_token[prompt_idx]) {
        tap->has_token[prompt_idx] = true;
        tap->begun++;
        if (tap->begun == tap->rows) tap->full_ns = mm_mono_ns();
    }
    return true;
}

static mm_status round_of(decode_run *run, const mm_bench_decode *size, int32_t index, mm_err *err)
{
    mm_sampling sampling = {
        .temperature = 0, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = size->new_tokens};
    clock_tap tap = {.rows = size->rows};
    tap.has_token = mm_calloc((size_t)size->rows, sizeof *tap.has_token);
    if (!tap.has_token) return MM_FAIL(err, MM_ENOMEM, "no memory for %d rows", (int)size->rows);
    const int64_t start = mm_mono_ns();
    const mm_status status = mm_generate_batch(run->generator, run->prompts, size->rows, &sampling,
                                               on_token, &tap, run->answers, err);
    const int64_t end = mm_mono_ns();
    mm_free(tap.has_token);
    MM_TRY(status);
    MM_ASSERT(tap.begun == size->rows);
    if (index < 0) return MM_OK; // the warm-up
    run->seconds[index] = (double)(end - start) * 1e-9;
    const double prompts = (double)size->rows * size->prompt_tokens;
    run->prefill[index] = prompts / ((double)(tap.full_ns - start) * 1e-9);
    run->decode[index] = (double)tap.after / ((double)(end - tap.full_ns) * 1e-9);
    return MM_OK;
}

static json_t *json_of_run(const decode_run *run, const mm_bench_decode *size, double prefill,
                           double decode)
{
    json_t *seconds = json_array();
    for (int32_t i = 0; i < size->rounds; i++)
        json_array_append_new(seconds, mm_json_of_real(run->seconds[i]));
    return json_pack("{s:I, s:i, s:i, s:i, s:o, s:o, s:o}", "params",
                     (json_int_t)mm_model_config_params(&run->shape), "rows", (int)size->rows,
                     "prompt_tokens", (int)size->prompt_tokens, "new_tokens", (int)size->new_tokens,
                     "prefill_tokens_per_s", mm_json_of_real(prefill), "decode_tokens_per_s",
                     mm_json_of_real(decode), "seconds", seconds);
}

mm_status mm_bench_generate(const mm_context *context, mm_config *config,
                            const mm_bench_decode *size, mm_bench_probe *probe, json_t **json,
                            mm_err *err)
{
    decode_run run = {.model = NULL};
    mm_status status = MM_OK;
    MM_GO(open_run(&run, config, size, err));
    mm_say(context, "Generating: 1 round to warm up and %d of %d x (%d + %d) tokens.",
           (int)size->rounds, (int)size->rows, (int)size->prompt_tokens, (int)size->new_tokens);
    for (int32_t i = -1; i < size->rounds; i++)
        MM_GO(round_of(&run, size, i, err));
    mm_bench_probe_flops(probe);
    mm_bench_probe_memory(probe);
    const size_t rounds = (size_t)size->rounds;
    const double prefill = mm_bench_median(run.prefill, rounds);
    const double decode = mm_bench_median(run.decode, rounds);
    if (json) {
        *json = json_of_run(&run, size, prefill, decode);
        goto done;
    }
    char params[MM_NUMBER_BYTES];
    mm_count_text((double)mm_model_config_params(&run.shape), params);
    mm_out("\nGeneration, %s parameters (%d x %d), %d row%s:\n", params, (int)run.shape.hidden_size,
           (int)run.shape.num_hidden_layers, (int)size->rows, size->rows == 1 ? "" : "s");
    mm_out("  prefill %.0f tokens/s, decode %.0f tokens/s in all, median of %d rounds\n", prefill,
           decode, (int)size->rounds);
done:
    drop_run(&run);
    return status;
}
