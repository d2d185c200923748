/* Training steps timed op by op beside the roofline of the machine.
 *
 * The steps are those of a run: packed documents, forward, backward, clipping, AdamW. One warm-up
 * step touches all memory first. Times of ops are means over the counted steps; rates of steps are
 * medians, because what disturbs a step only ever makes it longer. */
#include "runner/bench.h"

#include "core/base/clock.h"
#include "runner/environment.h"
#include "runner/train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OPS_MAX = 64 };

// One kind of operation beside the roofline of the probes.
typedef struct bench_op {
    mm_op_profile profile; // of the mean step
    double share;          // of the step's time
    double ceiling_share;  // least time the probes allow / time taken; over 1: out of caches
    bool is_memory_bound;  // by the roofline
} bench_op;

typedef struct bench_run {
    mm_model_config shape;
    mm_dtype dtype;
    mm_engine_options options;
    int64_t accum;
    mm_adamw adamw;
    mm_model *model;
    mm_engine *engine;
    mm_batcher *batcher;
    mm_data_position position;
    int32_t rounds;
    double *seconds; // of each counted step
    double *rates;   // tokens per second of each
    int64_t tokens;  // of all counted steps
    double loss;     // of the last step
    int64_t memory_bytes;
    int64_t rss_bytes;
} bench_run;

double mm_bench_median(double *values, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const double moving = values[i];
        size_t k = i;
        for (; k > 0 && values[k - 1] > moving; k--)
            values[k] = values[k - 1];
        values[k] = moving;
    }
    if (n == 0) return (double)NAN;
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static mm_status open_run(bench_run *run, const mm_corpus *corpus, mm_config *config, mm_err *err)
{
    mm_batcher *val = NULL;
    const int32_t seq_len = (int32_t)mm_config_int(config, "max_seq_len");
    run->dtype = mm_config_dtype(config);
    run->accum = mm_config_int(config, "accumulation_steps");
    run->adamw = mm_train_adamw(config);
    run->options =
        (mm_engine_options){.max_tokens = (int32_t)mm_config_int(config, "batch_size") * seq_len,
                            .threads = (int32_t)mm_config_int(config, "threads"),
                            .training = true,
                            .bf16 = run->dtype == MM_BF16,
                            .seed = (uint64_t)mm_config_int(config, "seed")};
    MM_TRY(mm_config_model(config, mm_tokenizer_vocab(corpus->tokenizer), &run->shape, err));
    MM_TRY(mm_corpus_batchers(corpus, config, &run->batcher, &val, err));
    mm_batcher_free(val);
    run->memory_bytes = mm_engine_bytes(&run->shape, run->dtype, &run->options) +
                        mm_model_config_params(&run->shape) * (int64_t)sizeof(float);
    MM_TRY(mm_model_new(&run->model, &run->shape, MM_F32, err));
    mm_model_init(run->model, run->options.seed);
    MM_TRY(mm_engine_new(&run->engine, run->model, &run->options, err));
    run->seconds = mm_calloc((size_t)run->rounds, sizeof *run->seconds);
    run->rates = mm_calloc((size_t)run->rounds, sizeof *run->rates);
    if (!run->seconds || !run->rates) return MM_FAIL(err, MM_ENOMEM, "no memory for the times");
    return MM_OK;
}

static void drop_run(bench_run *run)
{
    mm_engine_free(run->engine);
    mm_model_free(run->model);
    mm_batcher_free(run->batcher);
    mm_free(run->seconds);
    mm_free(run->rates);
}

static mm_status step(bench_run *run, double *seconds, int64_t *tokens, mm_err *err)
{
    double grad_norm = 0;
    double sum = 0;
    int64_t count = 0;
    *tokens = 0;
    const int64_t start = mm_mono_ns();
    for (int64_t i = 0; i < run->accum; i++) {
        const mm_batch *batch = NULL;
        mm_loss loss;
        MM_TRY(mm_batcher_get(run->batcher, &run->position, &batch, err));
        const double labels = (double)(batch->n_labels > 0 ? batch->n_labels : 1);
        MM_TRY(mm_engine_backward(run->engine, batch, 1.0 / (labels * (double)run->accum),
                                  (uint64_t)run->adamw.step, &loss, err));
        *tokens += batch->n_tokens;
        sum += loss.sum;
        count += loss.count;
    }
    run->adamw.step++;
    MM_TRY(mm_engine_step(run->engine, &run->adamw, &grad_norm, err));
    *seconds = (double)(mm_mono_ns() - start) * 1e-9;
    run->loss = count > 0 ? sum / (double)count : (double)NAN;
    return MM_OK;
}

static mm_status measure(bench_run *run, mm_err *err)
{
    double seconds = 0;
    int64_t tokens = 0;
    MM_TRY(step(run, &seconds, &tokens, err));
    mm_engine_profile_start(run->engine);
    for (int32_t i = 0; i < run->rounds; i++) {
        MM_TRY(step(run, &run->seconds[i], &tokens, err));
        run->rates[i] = (double)tokens / run->seconds[i];
        run->tokens += tokens;
    }
    run->rss_bytes = mm_memory_peak();
    return MM_OK;
}

// Source: Williams, Waterman and Patterson, "Roofline", 2009: an operation takes at least the
// longer of its work at the peak and its traffic at the bandwidth.
static void set_ceiling(bench_op *op, double step_seconds, double peak_flops, double read_bytes)
{
    const double compute = peak_flops > 0 ? op->profile.flops / peak_flops : 0;
    const double memory = read_bytes > 0 ? op->profile.bytes / read_bytes : 0;
    op->is_memory_bound = memory > compute;
    op->ceiling_share =
        op->profile.seconds > 0 ? fmax(compute, memory) / op->profile.seconds : (double)NAN;
    op->share = step_seconds > 0 ? op->profile.seconds / step_seconds : (double)NAN;
}

// Ops of the mean step, slowest first.
static size_t take_ops(const bench_run *run, const mm_bench_probe *probe, bench_op *ops)
{
    mm_op_profile profile[OPS_MAX];
    int32_t n = mm_engine_profile(run->engine, profile, OPS_MAX);
    if (n > OPS_MAX) n = OPS_MAX;
    double total = 0;
    for (int32_t i = 0; i < run->rounds; i++)
        total += run->seconds[i];
    const double per_step = 1.0 / run->rounds;
    for (int32_t i = 0; i < n; i++) {
        bench_op op = {.profile = profile[i]};
        op.profile.calls /= run->rounds;
        op.profile.seconds *= per_step;
        op.profile.flops *= per_step;
        op.profile.bytes *= per_step;
        set_ceiling(&op, total * per_step, mm_bench_probe_peak(probe, run->dtype),
                    probe->read_bytes);
        int32_t k = i;
        for (; k > 0 && ops[k - 1].profile.seconds < op.profile.seconds; k--)
            ops[k] = ops[k - 1];
        ops[k] = op;
    }
    return (size_t)n;
}

static const char *direction_of(const bench_op *op)
{
    if (strcmp(op->profile.kind, "update") == 0) return "update";
    return op->profile.is_backward ? "backward" : "forward";
}

static double rate_of(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

static json_t *json_of_op(const bench_op *op)
{
    const mm_op_profile *p = &op->profile;
    return json_pack("{s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:s}", "op", p->name, "kind",
                     p->kind, "direction", direction_of(op), "calls", (json_int_t)p->calls,
                     "seconds", mm_json_of_real(p->seconds), "gflops",
                     mm_json_of_real(rate_of(p->flops, p->seconds) * 1e-9), "gbs",
                     mm_json_of_real(rate_of(p->bytes, p->seconds) * 1e-9), "share",
                     mm_json_of_real(op->share), "ceiling_share",
                     mm_json_of_real(op->ceiling_share), "bound",
                     op->is_memory_bound ? "memory" : "compute");
}

typedef struct bench_result {
    double tokens_per_s;
    double flops_per_token;
    double gflops;
    double share_of_peak;
} bench_result;

static bench_result result_of(const bench_run *run, mm_config *config, const mm_bench_probe *probe)
{
    bench_result result = {.tokens_per_s = mm_bench_median(run->rates, (size_t)run->rounds)};
    result.flops_per_token =
        mm_model_flops_per_token(&run->shape, (int32_t)mm_config_int(config, "max_seq_len"));
    const double flops = result.tokens_per_s * result.flops_per_token;
    result.gflops = flops * 1e-9;
    result.share_of_peak = flops / mm_bench_probe_peak(probe, run->dtype);
    return result;
}

static json_t *json_of_run(const bench_run *run, const bench_result *result, const bench_op *ops,
                           size_t n)
{
    json_t *seconds = json_array();
    json_t *list = json_array();
    for (int32_t i = 0; i < run->rounds; i++)
        json_array_append_new(seconds, mm_json_of_real(run->seconds[i]));
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_of_op(&ops[i]));
    return json_pack("{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o, s:o}", "params",
                     (json_int_t)mm_model_config_params(&run->shape), "tokens",
                     (json_int_t)(run->tokens / run->rounds), "seconds", seconds, "tokens_per_s",
                     mm_json_of_real(result->tokens_per_s), "flops_per_token",
                     mm_json_of_real(result->flops_per_token), "gflops",
                     mm_json_of_real(result->gflops), "share_of_peak",
                     mm_json_of_real(result->share_of_peak), "memory_bytes",
                     (json_int_t)run->memory_bytes, "peak_rss_bytes", (json_int_t)run->rss_bytes,
                     "loss", mm_json_of_real(run->loss), "ops", list);
}

// "████▌", or "####" where there are no block characters.
static void bar_text(const mm_context *context, double share, char out[64])
{
    enum { CELLS = 16 };
    static const char *const PARTS[] = {"",
                                        "\xE2\x96\x8F",
                                        "\xE2\x96\x8E",
                                        "\xE2\x96\x8D",
                                        "\xE2\x96\x8C",
                                        "\xE2\x96\x8B",
                                        "\xE2\x96\x8A",
                                        "\xE2\x96\x89"};
    const double cells = fmin(fmax(share, 0), 1) * CELLS;
    const int whole = (int)cells;
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < whole; i++)
        used +=
            (size_t)snprintf(out + used, 64 - used, "%s", context->utf8_out ? "\xE2\x96\x88" : "#");
    if (context->utf8_out) snprintf(out + used, 64 - used, "%s", PARTS[(int)((cells - whole) * 8)]);
}

static mm_status print_ops(const mm_context *context, const bench_op *ops, size_t n, mm_err *err)
{
    static const char *const HEADERS[] = {
        "OP",      "KIND", "DIRECTION", "MS",      "SHARE",
        "GFLOP/S", "GB/S", "BOUND BY",  "CEILING", "SHARE OF THE STEP"};
    enum { N_HEADERS = sizeof HEADERS / sizeof HEADERS[0] };
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, N_HEADERS, err));
    for (size_t i = 0; i < n; i++) {
        const bench_op *op = &ops[i];
        const mm_op_profile *p = &op->profile;
        char bar[64];
        bar_text(context, op->share / ops[0].share, bar);
        mm_table_cell(table, "%s", p->name);
        mm_table_cell(table, "%s", p->kind);
        mm_table_cell(table, "%s", direction_of(op));
        mm_table_cell(table, "%.2f", p->seconds * 1e3);
        mm_table_cell(table, "%.1f%%", op->share * 100);
        if (p->flops > 0)
            mm_table_cell(table, "%.1f", p->flops / p->seconds * 1e-9);
        else
            mm_table_cell(table, "-");
        mm_table_cell(table, "%.1f", rate_of(p->bytes, p->seconds) * 1e-9);
        mm_table_cell(table, "%s", op->is_memory_bound ? "memory" : "compute");
        mm_table_cell(table, "%.0f%%", op->ceiling_share * 100);
        mm_table_cell(table, "%s", bar);
    }
    mm_table_drops(table, 9, 4);
    mm_table_drops(table, 1, 3);
    mm_table_drops(table, 6, 2);
    mm_table_drops(table, 7, 1);
    mm_table_print(table, context);
    return MM_OK;
}

// Where the most time would be won, were it at its ceiling.
static void print_bottleneck(const bench_op *ops, size_t n)
{
    const bench_op *worst = NULL;
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        const double lost = ops[i].profile.seconds * (1 - ops[i].ceiling_share);
        if (!(lost > most)) continue;
        most = lost;
        worst = &ops[i];
    }
    if (!worst) return;
    mm_out("\nNext bottleneck: %s %s, %.1f ms of the step above its %s ceiling.\n",
           worst->profile.name, direction_of(worst), most * 1e3,
           worst->is_memory_bound ? "memory" : "compute");
}

static mm_status print_run(const mm_context *context, const bench_run *run,
                           const bench_result *result, const bench_op *ops, size_t n, mm_err *err)
{
    char params[MM_NUMBER_BYTES];
    char memory[MM_NUMBER_BYTES];
    char rss[MM_NUMBER_BYTES];
    mm_count_text((double)mm_model_config_params(&run->shape), params);
    mm_bytes_text((double)run->memory_bytes, memory);
    mm_bytes_text((double)run->rss_bytes, rss);
    mm_out("\nTraining, %s parameters (%d x %d), %" PRId64 " tokens a step:\n", params,
           (int)run->shape.hidden_size, (int)run->shape.num_hidden_layers,
           run->tokens / run->rounds);
    mm_out("  %.0f tokens/s, median of %d steps; %.1f GFLOP/s, %.0f%% of the %s peak\n",
           result->tokens_per_s, (int)run->rounds, result->gflops, result->share_of_peak * 100,
           run->dtype == MM_BF16 ? "bf16" : "fp32");
    mm_out("  %s of memory planned, %s resident at most; loss %.4f\n\n", memory, rss, run->loss);
    MM_TRY(print_ops(context, ops, n, err));
    print_bottleneck(ops, n);
    return MM_OK;
}

static void say_estimate(const mm_context *context, const bench_run *run, mm_config *config,
                         const mm_bench_probe *probe)
{
    char time[MM_TIME_ISO_BYTES];
    const double rate = mm_train_rate_of_peak(run->dtype, mm_bench_probe_peak(probe, run->dtype));
    const int32_t seq_len = (int32_t)mm_config_int(config, "max_seq_len");
    const double tokens = (double)run->options.max_tokens * (double)run->accum;
    const double flops = mm_model_flops_per_token(&run->shape, seq_len) * tokens;
    mm_duration_text(flops * (run->rounds + 1) / rate, time);
    mm_say(context, "Training: 1 step to warm up and %d of %.0f tokens, about %s.",
           (int)run->rounds, tokens, time);
}

mm_status mm_bench_train(const mm_context *context, const mm_corpus *corpus, mm_config *config,
                         int32_t rounds, mm_bench_probe *probe, json_t **json, mm_err *err)
{
    bench_run run = {.rounds = rounds};
    bench_op ops[OPS_MAX];
    mm_status status = MM_OK;
    MM_GO(open_run(&run, corpus, config, err));
    say_estimate(context, &run, config, probe);
    MM_GO(measure(&run, err));
    // Only now: its memory would count as the steps'.
    mm_bench_probe_flops(probe);
    mm_bench_probe_memory(probe);
    const bench_result result = result_of(&run, config, probe);
    const size_t n = take_ops(&run, probe, ops);
    if (json)
        *json = json_of_run(&run, &result, ops, n);
    else
        MM_GO(print_run(context, &run, &result, ops, n, err));
done:
    drop_run(&run);
    return status;
}
