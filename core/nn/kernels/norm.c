/* RMSNorm, and QK-norm with rotary positions. Contracts: core/nn/ops.h.
 *
 * RMSNorm (Zhang and Sennrich, 2019): y = w x r with r = 1 / sqrt(mean(x^2) + eps). With g = w dy:
 * dx = r g - x r^3 mean(g x), dw = sum over rows of dy x r.
 * Rotary positions (Su et al., 2021) in the half-split form: element i pairs with i + D/2.
 */
#include "core/nn/kernels/ops.h"

static real inverse_rms(const real *x, int64_t n, double eps)
{
    return 1 / real_sqrt(dot_of(x, x, n) / (real)n + (real)eps);
}

static void scale_row(real *y, const real *x, const real *w, real r, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL)
        vec_store_n(y + i, vec_load_n(x + i, n - i, 0) * r * vec_load_n(w + i, n - i, 0), n - i);
}

// One row of the backward formula; dw collects the row's part of the weight gradient.
static void norm_row_backward(real *dx, bool add, real *dw, const real *dy, const real *x,
                              const real *w, real r, int64_t n)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL) {
        const vec d = vec_load_n(dy + i, n - i, 0);
        const vec v = vec_load_n(x + i, n - i, 0);
        sum += d * v * vec_load_n(w + i, n - i, 0);
        vec_store_n(dw + i, vec_load_n(dw + i, n - i, 0) + d * v * r, n - i);
    }
    const real pull = vec_sum(sum) * r * r * r / (real)n;
    for (int64_t i = 0; i < n; i += VL) {
        const vec g = vec_load_n(dy + i, n - i, 0) * vec_load_n(w + i, n - i, 0);
        vec d = g * r - vec_load_n(x + i, n - i, 0) * pull;
        if (add) d += vec_load_n(dx + i, n - i, 0);
        vec_store_n(dx + i, d, n - i);
    }
}

static void rmsnorm_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t C = args->attr->n_in;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    real *rstd = args->out[1];
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *x = (const real *)args->in[0] + t * C;
        rstd[t] = inverse_rms(x, C, args->attr->eps);
        scale_row((real *)args->out[0] + t * C, x, args->param[0], rstd[t], C);
    }
}

void MM_KERNEL(rmsnorm_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), rmsnorm_forward_item,
                (void *)args);
}

static void rmsnorm_backward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t C = args->attr->n_in;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    const real *rstd = args->out[1];
    real *dw = (real *)(void *)args->pass->work.shared + item * C;
    memset(dw, 0, (size_t)C * sizeof(real));
    for (int64_t t = rows.begin; t < rows.end; t++)
        norm_row_backward((real *)args->d_in[0] + t * C, args->d_in_add[0], dw,
                          (const real *)args->d_out + t * C, (const real *)args->in[0] + t * C,
                          args->param[0], rstd[t], C);
}

void MM_KERNEL(rmsnorm_backward)(const mm_op_args *args)
{
    const int64_t items = row_items(args->pass->batch->n_tokens);
    mm_pool_run(args->pass->work.pool, items, rmsnorm_backward_item, (void *)args);
    add_parts(args->d_param[0], (const real *)(const void *)args->pass->work.shared, items,
              args->attr->n_in);
}

mm_op_need MM_KERNEL(rmsnorm_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    return (mm_op_need){.shared_bytes =
                            (size_t)(row_items(max_tokens) * attr->n_in) * sizeof(real)};
}

// x rotated by the angles of one position; sign -1 rotates back. y may be x.
static void rotate(real *y, const real *x, const real *cosine, const real *sine, real sign,
                   int64_t half)
{
    for (int64_t i = 0; i < half; i += VL) {
        const int64_t left = half - i;
        const vec c = vec_load_n(cosine + i, left, 0);
        const vec s = vec_load_n(sine + i, left, 0) * sign;
        const vec a = vec_load_n(x + i, left, 0);
        const vec b = vec_load_n(x + half + i, left, 0);
        vec_store_n(y + i, a * c - b * s, left);
        vec_store_n(y + half + i, b * c + a * s, left);
    }
}

static void qknorm_rope_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const mm_op_attr *attr = args->attr;
    const int64_t D = attr->head_dim;
    const int64_t rotated = attr->heads + attr->kv_heads;
    const int64_t width = (rotated + attr->kv_heads) * D;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *x = (const real *)args->in[0] + t * width;
        real *y = (real *)args->out[0] + t * width;
        const int64_t angle = args->pass->positions[t] * (D / 2);
        for (int64_t h = 0; h < rotated; h++) {
            const real *from = x + h * D;
            if (attr->qk_norm) {
                const real r = inverse_rms(from, D, attr->eps);
                ((real *)args->out[1])[t * rotated + h] = r;
                scale_row(y + h * D, from, args->param[h < attr->heads ? 0 : 1], r, D);
                from = y + h * D;
            }
            rotate(y + h * D, from, (const real *)args->pass->rope_cos + angle,
                   (const real *)args->pass->rope_sin + angle, 1, D / 2);
        }
        memcpy(y + rotated * D, x + rotated * D, (size_t)(attr->kv_heads * D) * sizeof(real));
    }
}

void MM_KERNEL(qknorm_rope_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens),
                qknorm_rope_forward_item, (void *)args);
}

static void qknorm_rope_backward_item(void *context, int64_t item, int32_t thread)
{
    const mm_op_args *args = context;
    const mm_op_attr *attr = args->attr;
    const mm_workspace *work = &args->pass->work;
    const int64_t D = attr->head_dim;
    const int64_t rotated = attr->heads + attr->kv_heads;
    const int64_t width = (rotated + attr->kv_heads) * D;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    real *unrotated =
        (real *)(void *)(work->thread + (size_t)thread * work->thread_bytes); /* (D) */
    real *dw = (real *)(void *)work->shared + item * 2 * D;                   /* query, key */
    if (attr->qk_norm) memset(dw, 0, (size_t)(2 * D) * sizeof(real));
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *dy = (const real *)args->d_out + t * width;
        real *dx = (real *)args->d_in[0] + t * width;
        const int64_t angle = args->pass->positions[t] * (D / 2);
        for (int64_t h = 0; h < rotated; h++) {
            real *to = attr->qk_norm ? unrotated : dx + h * D;
            rotate(to, dy + h * D, (const real *)args->pass->rope_cos + angle,
                   (const real *)args->pass->rope_sin + angle, -1, D / 2);
            if (!attr->qk_norm) continue;
            const int side = h < attr->heads ? 0 : 1;
            norm_row_backward(dx + h * D, false, dw + side * D, unrotated,
                              (const real *)args->in[0] + t * width + h * D, args->param[side],
                              ((const real *)args->out[1])[t * rotated + h], D);
        }
        memcpy(dx + rotated * D, dy + rotated * D, (size_t)(attr->kv_heads * D) * sizeof(real));
    }
}

void MM_KERNEL(qknorm_rope_backward)(const mm_op_args *args)
{
    const int64_t items = row_items(args->pass->batch->n_tokens);
    MM_ASSERT(!args->d_in_add[0]);
    mm_pool_run(args->pass->work.pool, items, qknorm_rope_backward_item, (void *)args);
    if (!args->attr->qk_norm) return;
    const int64_t D = args->attr->head_dim;
    const real *parts = (const real *)(const void *)args->pass->work.shared;
    for (int64_t item = 0; item < items; item++) {
        add_parts(args->d_param[0], parts + item * 2 * D, 1, D);
        add_parts(args->d_param[1], parts + item * 2 * D + D, 1, D);
    }
}

mm_op_need MM_KERNEL(qknorm_rope_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    const size_t head_bytes = (size_t)attr->head_dim * sizeof(real);
    return (mm_op_need){.shared_bytes = (size_t)row_items(max_tokens) * 2 * head_bytes,
                        .thread_bytes = head_bytes};
}

/* Angle of pair i at position p: p theta^(-2i/D). Frequencies and angles are rounded to `real`
 * before the cosine, as the published fp32 models round them. */
void op_rope_tables(void *cos_table, void *sin_table, int64_t positions, int32_t head_dim,
                    double theta)
{
    const int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        const real exponent = (real)(2 * i) / (real)head_dim;
        const real power = (real)pow(theta, (double)exponent);
        const real frequency = 1 / power;
        for (int64_t p = 0; p < positions; p++) {
            const real angle = (real)p * frequency;
            ((real *)cos_table)[p * half + i] = (real)cos((double)angle);
            ((real *)sin_table)[p * half + i] = (real)sin((double)angle);
        }
    }
}
