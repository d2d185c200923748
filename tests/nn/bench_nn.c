/* Speed of the matrix kernel and of training steps beside the measured multiply-add peak.
 *
 *   nn_bench gemm [THREADS]   the products of a layer, and 1024 x 768 x 2048
 *   nn_bench step [THREADS]   tokens/s of whole steps for a small model and v2-small
 *
 * Not a test: on a shared machine only the ratio to the probe taken beside it means something. Each
 * line is the fastest of several runs; the probe brackets them.
 */
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/nn/engine.h"
#include "core/nn/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBE_MS = 200, RUNS = 7 };

static void check(mm_status status, const mm_err *err)
{
    if (status == MM_OK) return;
    fprintf(stderr, "%s\n", err->message);
    exit(1);
}

typedef struct product {
    const char *name;
    int64_t m, n, k;
    bool a_transposed, b_transposed;
} product;

static double gemm_seconds(const mm_backend *backend, const mm_workspace *work, const product *p,
                           float *a, float *b, float *c)
{
    const mm_matrix left =
        p->a_transposed ? (mm_matrix){a, 1, p->m, false} : (mm_matrix){a, p->k, 1, false};
    const mm_matrix right =
        p->b_transposed ? (mm_matrix){b, 1, p->k, false} : (mm_matrix){b, p->n, 1, false};
    double best = 1e9;
    for (int run = 0; run < RUNS; run++) {
        const int64_t start = mm_mono_ns();
        backend->gemm(work, p->m, p->n, p->k, left, right,
                      (mm_target){c, p->n, true, p->a_transposed});
        const double seconds = (double)(mm_mono_ns() - start) * 1e-9;
        if (seconds < best) best = seconds;
    }
    return best;
}

static void bench_gemm(int32_t threads)
{
    static const product products[] = {
        {"NN 1024x768x2048", 1024, 2048, 768, false, false},
        {"NT 1024x768x2048", 1024, 2048, 768, false, true},
        {"qkv fwd", 4096, 768, 512, false, true},
        {"qkv dx", 4096, 512, 768, false, false},
        {"qkv dw", 768, 512, 4096, true, false},
        {"gate_up fwd", 4096, 2816, 512, false, true},
        {"gate_up dx", 4096, 512, 2816, false, false},
        {"gate_up dw", 2816, 512, 4096, true, false},
        {"down fwd", 4096, 512, 1408, false, true},
        {"head fwd", 384, 6400, 512, false, true},
        {"head dx", 384, 512, 6400, false, false},
        {"head dw", 6400, 512, 384, true, false},
    };
    const mm_backend *backend = mm_backend_of(MM_F32);
    mm_err err = {0};
    mm_pool *pool = NULL;
    check(mm_pool_new(&pool, threads, &err), &err);
    const size_t count = 4096 * 6400;
    float *a = mm_alloc_aligned(count * sizeof(float));
    float *b = mm_alloc_aligned(count * sizeof(float));
    float *c = mm_alloc_aligned(count * sizeof(float));
    mm_workspace work = {.pool = pool, .thread_bytes = backend->gemm_need().thread_bytes};
    work.thread = mm_alloc_aligned(work.thread_bytes * (size_t)mm_pool_threads(pool));
    if (!a || !b || !c || !work.thread) exit(1);
    for (size_t i = 0; i < count; i++)
        a[i] = b[i] = (float)(i % 7) * 0.1f;
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++) {
        const product *p = &products[i];
        double peak = mm_engine_probe_flops(MM_F32, threads, PROBE_MS);
        const double seconds = gemm_seconds(backend, &work, p, a, b, c);
        const double after = mm_engine_probe_flops(MM_F32, threads, PROBE_MS);
        if (after > peak) peak = after;
        const double flops = 2.0 * (double)(p->m * p->n * p->k) / seconds;
        printf("%-8s %dt %-18s %7.1f GFLOP/s  probe %6.1f  %4.1f %%\n", backend->isa,
               (int)mm_pool_threads(pool), p->name, flops * 1e-9, peak * 1e-9, 100 * flops / peak);
    }
    mm_free(work.thread);
    mm_free(c);
    mm_free(b);
    mm_free(a);
    mm_pool_free(pool);
}

static void bench_step(const char *name, mm_model_config config, int32_t rows, int32_t row_tokens,
                       int32_t threads)
{
    mm_err err = {0};
    mm_model *model = NULL;
    mm_engine *engine = NULL;
    check(mm_model_config_resolve(&config, &err), &err);
    check(mm_model_new(&model, &config, MM_F32, &err), &err);
    mm_model_init(model, 1);
    const int32_t T = rows * row_tokens;
    const mm_engine_options options = {
        .max_tokens = T, .max_segments = rows, .threads = threads, .training = true};
    check(mm_engine_new(&engine, model, &options, &err), &err);
    int32_t *tokens = mm_calloc((size_t)T * 2 + (size_t)rows + 1, sizeof *tokens);
    if (!tokens) exit(1);
    int32_t *labels = tokens + T;
    int32_t *segments = labels + T;
    for (int32_t t = 0; t < T; t++) {
        tokens[t] = (int32_t)((uint32_t)t * 2654435761u >> 16) % config.vocab_size;
        labels[t] = (tokens[t] * 7 + 3) % config.vocab_size;
    }
    for (int32_t s = 0; s <= rows; s++)
        segments[s] = s * row_tokens;
    const mm_batch batch = {T, rows, tokens, labels, segments, T};
    double best = 1e9;
    double best_update = 1e9;
    mm_loss loss = {0};
    const double peak = mm_engine_probe_flops(MM_F32, threads, PROBE_MS);
    for (int run = 0; run < 4; run++) {
        const mm_adamw adamw = {1e-3, 0.9, 0.999, 1e-8, 0.01, 1.0, run + 1, true};
        double norm;
        const int64_t start = mm_mono_ns();
        check(mm_engine_backward(engine, &batch, 1.0 / T, (uint64_t)run, &loss, &err), &err);
        const int64_t middle = mm_mono_ns();
        check(mm_engine_step(engine, &adamw, &norm, &err), &err);
        const int64_t end = mm_mono_ns();
        if ((double)(end - start) * 1e-9 < best) best = (double)(end - start) * 1e-9;
        if ((double)(end - middle) * 1e-9 < best_update)
            best_update = (double)(end - middle) * 1e-9;
    }
    const double after = mm_engine_probe_flops(MM_F32, threads, PROBE_MS);
    const double flops = mm_model_flops_per_token(&config, row_tokens) * T / best;
    printf("%-8s %dt %-22s %dx%d: %8.0f tokens/s  step %.3f s (update %.3f s)  %5.1f GFLOP/s  "
           "probe %5.1f  %4.1f %%  "
           "memory %lld MB  loss %.4f\n",
           mm_engine_isa(MM_F32), (int)mm_engine_threads(engine), name, (int)rows, (int)row_tokens,
           T / best, best, best_update, flops * 1e-9, (peak > after ? peak : after) * 1e-9,
           100 * flops / (peak > after ? peak : after),
           (long long)(mm_engine_bytes(&config, MM_F32, &options) >> 20),
           loss.sum / (double)loss.count);
    mm_free(tokens);
    mm_engine_free(engine);
    mm_model_free(model);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "gemm";
    const int32_t threads = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 0;
    mm_err err = {0};
    if (strcmp(what, "gemm") == 0) {
        bench_gemm(threads);
        return 0;
    }
    mm_model_config small;
    check(mm_model_config_preset(&small, "v3", &err), &err);
    small.hidden_size = 256;
    small.num_hidden_layers = 4;
    bench_step("v3 256 x 4", small, 8, 512, threads);
    mm_model_config v2_small;
    check(mm_model_config_preset(&v2_small, "v2-small", &err), &err);
    bench_step("v2-small", v2_small, 8, 512, threads);
    return 0;
}
