/* Speed of the matrix kernels, in fp32 and bf16, beside the measured multiply-add peaks: the
 * products of a layer of v2-small, and 1024 x 768 x 2048. Usage: nn_bench_gemm [THREADS]
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

typedef enum product_kind {
    PLAIN,  /* both operands packed within the product */
    WEIGHT, /* the right one packed before, as a step packs its weights once: x w^T, dy w */
    REDUCE  /* the left one transposed, added to fp32: dw += dy^T x */
} product_kind;

typedef struct product {
    const char *name;
    product_kind kind;
    int64_t m, n, k;
} product;

static const product PRODUCTS[] = {
    {"1024x768x2048", PLAIN, 1024, 2048, 768}, {"qkv fwd", WEIGHT, 4096, 768, 512},
    {"qkv dx", WEIGHT, 4096, 512, 768},        {"qkv dw", REDUCE, 768, 512, 4096},
    {"gate_up fwd", WEIGHT, 4096, 2816, 512},  {"gate_up dx", WEIGHT, 4096, 512, 2816},
    {"gate_up dw", REDUCE, 2816, 512, 4096},   {"down fwd", WEIGHT, 4096, 512, 1408},
    {"down dx", WEIGHT, 4096, 1408, 512},      {"down dw", REDUCE, 512, 1408, 4096},
    {"head fwd", WEIGHT, 384, 6400, 512},      {"head dx", WEIGHT, 384, 512, 6400},
    {"head dw", REDUCE, 6400, 512, 384},       {"4 tokens", WEIGHT, 4, 2816, 512},
    {"1 token", WEIGHT, 1, 2816, 512},
};

/* Operands large enough for every product, in either type. */
typedef struct operands {
    void *a;
    void *b;
    void *c;
    void *packed;
} operands;

// Seconds of one run. A result of WEIGHT is an activation, but for the logits of the head.
static double gemm_seconds(const mm_backend *backend, const mm_workspace *work, const product *p,
                           const operands *data)
{
    const bool packs = backend->packed_bytes(p->k, p->n, false) > 0;
    const bool is_real = p->kind == REDUCE || strcmp(p->name, "head fwd") == 0;
    const mm_target c = {data->c, p->n, is_real, p->kind == REDUCE};
    const mm_matrix a = p->kind == REDUCE ? (mm_matrix){data->a, 1, p->m, false}
                                          : (mm_matrix){data->a, p->k, 1, false};
    const mm_matrix b = p->kind == WEIGHT ? (mm_matrix){data->b, 1, p->k, true}
                                          : (mm_matrix){data->b, p->n, 1, false};
    if (p->kind == WEIGHT && packs)
        backend->pack_weight(work, data->b, p->k, p->n, false, data->packed);
    const int64_t start = mm_mono_ns();
    if (p->kind == WEIGHT && packs) {
        backend->gemm_weight(work, p->m, p->k, p->n, a, data->packed, c);
    } else {
        backend->gemm(work, p->m, p->n, p->k, a, b, c);
    }
    return (double)(mm_mono_ns() - start) * 1e-9;
}

static void bench_product(const mm_backend *backend, const mm_workspace *work, const product *p,
                          const operands *data)
{
    const int32_t threads = mm_pool_threads(work->pool);
    double peak = 0;
    double seconds = 1e9;
    for (int run = 0; run < RUNS; run++) { // product and probe in turn
        const double probe = mm_engine_probe_flops(backend->dtype, threads, PROBE_MS / RUNS);
        if (probe > peak) peak = probe;
        for (int again = 0; again < 3; again++) {
            const double taken = gemm_seconds(backend, work, p, data);
            if (taken < seconds) seconds = taken;
        }
    }
    const double flops = 2.0 * (double)(p->m * p->n * p->k) / seconds;
    printf("%-10s %dt %-14s %8.3f ms %7.1f GFLOP/s  probe %6.1f  %4.1f %%\n", backend->isa,
           (int)threads, p->name, seconds * 1e3, flops * 1e-9, peak * 1e-9, 100 * flops / peak);
}

static void bench_gemm(int32_t threads)
{
    mm_err err = {0};
    mm_pool *pool = NULL;
    check(mm_pool_new(&pool, threads, &err), &err);
    const size_t count = 4096 * 6400;
    operands data;
    void **const blocks[] = {&data.a, &data.b, &data.c, &data.packed};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        float *block = mm_alloc_aligned(count * sizeof(float));
        if (!block) exit(1);
        for (size_t at = 0; at < count; at++) // two bfloat16 or one float, of moderate size
            block[at] = (float)(at % 7) * 0.1f + 0.1f;
        *blocks[i] = block;
    }
    const mm_backend *backends[] = {mm_backend_of(MM_F32), mm_backend_of(MM_BF16)};
    for (int i = 0; i < 2; i++) {
        mm_workspace work = {.pool = pool, .thread_bytes = backends[i]->gemm_need().thread_bytes};
        work.thread = mm_alloc_aligned(work.thread_bytes * (size_t)mm_pool_threads(pool));
        if (!work.thread) exit(1);
        for (size_t p = 0; p < sizeof PRODUCTS / sizeof PRODUCTS[0]; p++)
            bench_product(backends[i], &work, &PRODUCTS[p], &data);
        mm_free(work.thread);
    }
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        mm_free(*blocks[i]);
    mm_pool_free(pool);
}

int main(int argc, char **argv)
{
    bench_gemm(argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 0);
    return 0;
}
