/* AdamW, the gradient norm, and the probe of the multiply-add peak. */
#include "core/nn/kernels/ops.h"

double op_sum_squares(const void *values, int64_t n)
{
    // Squares are summed in double: a float cannot hold the square of every float.
    enum { PARTS = 8 };
    const real *x = values;
    double parts[PARTS] = {0};
    int64_t i = 0;
    for (; i + PARTS <= n; i += PARTS)
        for (int p = 0; p < PARTS; p++)
            parts[p] += (double)x[i + p] * (double)x[i + p];
    for (; i < n; i++)
        parts[0] += (double)x[i] * (double)x[i];
    return ((parts[0] + parts[4]) + (parts[2] + parts[6])) +
           ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

/* Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2, in one pass
 * over memory: p is decayed first, the gradient is clipped on the way in and zeroed on the way out.
 */
void op_adamw(void *params, void *grads, void *moments1, void *moments2, int64_t n,
              const mm_adamw_factors *factors)
{
    real *restrict p = params;
    real *restrict g = grads;
    real *restrict m = moments1;
    real *restrict v = moments2;
    const real grad_scale = (real)factors->grad_scale;
    const real keep = (real)factors->keep;
    const real step_size = (real)factors->step_size;
    const real beta1 = (real)factors->beta1;
    const real rest1 = (real)(1.0 - factors->beta1);
    const real beta2 = (real)factors->beta2;
    const real rest2 = (real)(1.0 - factors->beta2);
    const real root_correction = (real)factors->root_correction;
    const real eps = (real)factors->eps;
    for (int64_t i = 0; i < n; i++) {
        const real grad = g[i] * grad_scale;
        const real mean = beta1 * m[i] + rest1 * grad;
        const real square = beta2 * v[i] + rest2 * (grad * grad);
        m[i] = mean;
        v[i] = square;
        p[i] = p[i] * keep - step_size * (mean / (real_sqrt(square) * root_correction + eps));
        g[i] = 0;
    }
}

#if !MM_KERNEL_PAIRS /* else in gemm_pairs.c, with the instruction for pairs */
double op_peak(int64_t rounds)
{
    // Enough independent sums to hide the latency of the multiply-add, few enough to stay in
    // registers.
    enum { SUMS = 12 };
    vec sums[SUMS];
    for (int s = 0; s < SUMS; s++)
        sums[s] = vec_set((real)s);
    volatile real seed = (real)0.999;
    const vec factor = vec_set(seed);
    for (int64_t round = 0; round < rounds; round++)
        for (int s = 0; s < SUMS; s++)
            sums[s] = sums[s] * factor + factor;
    vec total = {0};
    for (int s = 0; s < SUMS; s++)
        total += sums[s];
    seed = vec_sum(total); // the result is used, so the loop stays
    return 2.0 * SUMS * VL * (double)rounds;
}
#endif
