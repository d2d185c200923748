/* Dropout: the masks, drawn several at a time, and the operation. Contract: core/nn/ops.h.
 *
 * A factor is a pure function of where it stands, through the generator of core/base/rng.h,
 * Philox4x32-10. Here its rounds run in the lanes of a vector, one counter per lane of 64 bits, of
 * which the lower 32 count: that is what processors multiply to 64 bits. The numbers are those of
 * mm_philox (tests/nn/test_dropout.c).
 */
#include "core/base/rng.h"
#include "core/nn/kernels/ops.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef uint64_t draw_lanes __attribute__((vector_size(MM_VECTOR_BYTES)));

enum {
    LANES = MM_VECTOR_BYTES / (int)sizeof(uint64_t),
    CHAINS = 2, /* independent vectors, to hide the latency of a round */
    COUNTERS = LANES * CHAINS,
    DRAWS = 4 * COUNTERS,
    ROUNDS = 10
};

// The lower halves of the lanes times a factor.
static inline draw_lanes times(draw_lanes a, uint32_t factor)
{
#if defined(__x86_64__) && MM_VECTOR_BYTES == 64
    return (draw_lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((int64_t)factor));
#elif defined(__x86_64__) && MM_VECTOR_BYTES == 32
    return (draw_lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((int64_t)factor));
#elif defined(__x86_64__)
    return (draw_lanes)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((int64_t)factor));
#elif defined(__aarch64__)
    return (draw_lanes)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(factor));
#else
    return (a & UINT32_MAX) * factor;
#endif
}

#if MM_VECTOR_BYTES == 64
#define PAIRS_LOW(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif MM_VECTOR_BYTES == 32
#define PAIRS_LOW(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#else
#define PAIRS_LOW(a, b)  __builtin_shufflevector(a, b, 0, 2)
#define PAIRS_HIGH(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif

// The numbers of counters element, element + 1, ...: four each, in order.
static void draw(const mm_pass *pass, uint64_t element, uint32_t out[DRAWS])
{
    // Multipliers and key increments as in core/base/rng.c. Upper halves of lanes hold anything.
    const uint32_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
    const uint32_t increment[2] = {0x9E3779B9u, 0xBB67AE85u};
    const uint64_t step = pass->micro_step;
    draw_lanes lane = {0};
    for (int i = 0; i < LANES; i++)
        lane[i] = (uint64_t)i;
    draw_lanes c[CHAINS][4];
    for (int chain = 0; chain < CHAINS; chain++) {
        c[chain][0] = lane + (element + (uint64_t)(chain * LANES));
        c[chain][1] = (draw_lanes){0} + (element >> 32);
        c[chain][2] = (draw_lanes){0} + step;
        c[chain][3] = (draw_lanes){0} + ((step >> 32) ^ (uint64_t)MM_RNG_DROPOUT << 24);
    }
    uint32_t k0 = (uint32_t)pass->seed;
    uint32_t k1 = (uint32_t)(pass->seed >> 32);
    for (int round = 0; round < ROUNDS; round++, k0 += increment[0], k1 += increment[1]) {
        for (int chain = 0; chain < CHAINS; chain++) {
            draw_lanes *x = c[chain];
            const draw_lanes p0 = times(x[0], multiplier[0]);
            const draw_lanes p1 = times(x[2], multiplier[1]);
            x[0] = (p1 >> 32) ^ x[1] ^ k0;
            x[2] = (p0 >> 32) ^ x[3] ^ k1;
            x[1] = p1;
            x[3] = p0;
        }
    }
    for (int chain = 0; chain < CHAINS; chain++) {
        const draw_lanes a = (c[chain][0] & UINT32_MAX) | c[chain][1] << 32;
        const draw_lanes b = (c[chain][2] & UINT32_MAX) | c[chain][3] << 32;
        const draw_lanes in_order[2] = {PAIRS_LOW(a, b), PAIRS_HIGH(a, b)};
        memcpy(out + chain * 4 * LANES, in_order, sizeof in_order);
    }
}

void op_dropout_row(const mm_pass *pass, const mm_op_attr *attr, int64_t row, int64_t first,
                    real *out, int64_t n)
{
    const double threshold = attr->dropout * 0x1p32;
    const real kept = (real)(1.0 / (1.0 - attr->dropout));
    const uint64_t base = (uint64_t)attr->site << 48 | (uint64_t)row << 20;
    // An integer is below the threshold where it is below the next integer.
    const uint64_t limit = (uint64_t)ceil(threshold);
    if (limit == 0) { // nothing is dropped
        for (int64_t i = 0; i < n; i++)
            out[i] = kept;
        return;
    }
    const uint32_t highest = (uint32_t)(limit - 1);
    MM_ASSERT(first % 4 == 0);
    for (int64_t i = 0; i < n; i += DRAWS) {
        uint32_t bits[DRAWS];
        draw(pass, base | (uint64_t)(first + i) / 4, bits);
        if (n - i >= DRAWS) {
            for (int64_t j = 0; j < DRAWS; j++)
                out[i + j] = bits[j] <= highest ? 0 : kept;
        } else {
            for (int64_t j = 0; j < n - i; j++)
                out[i + j] = bits[j] <= highest ? 0 : kept;
        }
    }
}

typedef struct dropout_job {
    const mm_op_args *args;
    matrix from;
    target to;
} dropout_job;

static void dropout_item(void *context, int64_t item, int32_t thread)
{
    const dropout_job *job = context;
    const mm_pass *pass = job->args->pass;
    const int64_t C = job->args->attr->n_out;
    real *mask = (real *)(void *)(pass->work.thread + (size_t)thread * pass->work.thread_bytes);
    const row_range rows = rows_of(item, pass->batch->n_tokens);
    for (int64_t i = 0; !pass->dropout_on && i < C; i++)
        mask[i] = 1;
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const matrix from = gemm_from(job->from, t, 0);
        const target to = gemm_at(job->to, t, 0);
        if (pass->dropout_on) op_dropout_row(pass, job->args->attr, t, 0, mask, C);
        for (int64_t i = 0; i < C; i += VL) {
            vec v = row_load(from.data, i, C - i, from.is_real) * vec_load_n(mask + i, C - i, 0);
            if (to.add) v += row_load(to.data, i, C - i, to.is_real);
            row_store(to.data, i, v, C - i, to.is_real);
        }
    }
}

void MM_KERNEL(dropout_forward)(const mm_op_args *args)
{
    const int64_t C = args->attr->n_out;
    const bool is_real = args->attr->is_real;
    dropout_job job = {args, {args->in[0], C, 1, is_real}, {args->out[0], C, is_real, false}};
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), dropout_item, &job);
}

void MM_KERNEL(dropout_backward)(const mm_op_args *args)
{
    const int64_t C = args->attr->n_out;
    dropout_job job = {args,
                       {args->d_out, C, 1, args->d_out_is_real},
                       {args->d_in[0], C, args->attr->is_real, args->d_in_add[0]}};
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), dropout_item, &job);
}

mm_op_need MM_KERNEL(dropout_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)max_tokens;
    return (mm_op_need){.thread_bytes = (size_t)attr->n_out * sizeof(real)};
}
