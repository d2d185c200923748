/* RMSNorm, and QK-norm with rotary positions. Contracts: core/nn/ops.h.
 *
 * RMSNorm (Zhang and Sennrich, 2019): y = w x r with r = 1 / sqrt(mean(x^2) + eps). With g = w dy:
 * dx = r g - x r^3 mean(g x), dw = sum over rows of dy x r.
 * Rotary positions (Su et al., 2021) in the half-split form: element i pairs with i + D/2.
 */
#include "core/nn/kernels/ops.h"

static real inverse_rms(real sum_squares, int64_t n, double eps)
{
    return 1 / real_sqrt(sum_squares / (real)n + (real)eps);
}

// One row of the backward formula; dw, unless it is NULL, collects the row's part of the weight
// gradient. x and dx have one type, dy the other's.
static inline __attribute__((always_inline)) void norm_row_backward(void *dx, bool add, real *dw,
                                                                    const void *dy, const void *x,
                                                                    const real *w, real r,
                                                                    int64_t n, bool x_is_real)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL) {
        const vec d = row_load(dy, i, n - i, !x_is_real);
        const vec v = row_load(x, i, n - i, x_is_real);
        sum += d * v * vec_load_n(w + i, n - i, 0);
        if (dw) vec_store_n(dw + i, vec_load_n(dw + i, n - i, 0) + d * v * r, n - i);
    }
    const real pull = vec_sum(sum) * r * r * r / (real)n;
    for (int64_t i = 0; i < n; i += VL) {
        const vec g = row_load(dy, i, n - i, !x_is_real) * vec_load_n(w + i, n - i, 0);
        vec d = g * r - row_load(x, i, n - i, x_is_real) * pull;
        if (add) d += row_load(dx, i, n - i, x_is_real);
        row_store(dx, i, d, n - i, x_is_real);
    }
}

static void rmsnorm_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t C = args->attr->n_in;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    const real *w = args->param[0];
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *x = (const real *)args->in[0] + t * C;
        if (args->in[1]) { // the stream takes in its new part first
            const act *u = (const act *)args->in[1] + t * C;
            real *s = (real *)args->out[2] + t * C;
            for (int64_t i = 0; i < C; i += VL)
                vec_store_n(s + i, vec_load_n(x + i, C - i, 0) + act_load_n(u + i, C - i), C - i);
            x = s;
        }
        const real r = inverse_rms(dot_of(x, x, C), C, args->attr->eps);
        ((real *)args->out[1])[t] = r;
        act *y = (act *)args->out[0] + t * C;
        for (int64_t i = 0; i < C; i += VL)
            act_store_n(y + i, vec_load_n(x + i, C - i, 0) * r * vec_load_n(w + i, C - i, 0),
                        C - i);
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
    const real *x = args->in[1] ? args->out[2] : args->in[0];
    const real *rstd = args->out[1];
    real *dw = NULL;
    if (args->d_param[0]) {
        dw = (real *)(void *)args->pass->work.shared + item * C;
        memset(dw, 0, (size_t)C * sizeof(real));
    }
    for (int64_t t = rows.begin; t < rows.end; t++)
        norm_row_backward((real *)args->d_in[0] + t * C, args->d_in_add[0], dw,
                          (const act *)args->d_out + t * C, x + t * C, args->param[0], rstd[t], C,
                          true);
}

void MM_KERNEL(rmsnorm_backward)(const mm_op_args *args)
{
    const int64_t items = row_items(args->pass->batch->n_tokens);
    mm_pool_run(args->pass->work.pool, items, rmsnorm_backward_item, (void *)args);
    if (!args->d_param[0]) return;
    add_parts(args->d_param[0], (const real *)(const void *)args->pass->work.shared, items,
              args->attr->n_in);
}

mm_op_need MM_KERNEL(rmsnorm_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    return (mm_op_need){.shared_bytes =
                            (size_t)(row_items(max_tokens) * attr->n_in) * sizeof(real)};
}

void MM_KERNEL(add_rmsnorm_forward)(const mm_op_args *args) { MM_KERNEL(rmsnorm_forward)(args); }

void MM_KERNEL(add_rmsnorm_backward)(const mm_op_args *args)
{
    MM_ASSERT(args->d_in[1] == args->d_in[0]);
    MM_KERNEL(rmsnorm_backward)(args);
}

mm_op_need MM_KERNEL(add_rmsnorm_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    return MM_KERNEL(rmsnorm_need)(attr, max_tokens);
}

// One head's x, scaled by r w where w is there, then rotated by the angles of its position.
static inline void rotate_forward(act *y, const act *x, const real *w, real r, const real *cosine,
                                  const real *sine, int64_t half)
{
    for (int64_t i = 0; i < half; i += VL) {
        const int64_t left = half - i;
        const vec c = vec_load_n(cosine + i, left, 0);
        const vec s = vec_load_n(sine + i, left, 0);
        vec a = act_load_n(x + i, left);
        vec b = act_load_n(x + half + i, left);
        if (w) {
            a *= r * vec_load_n(w + i, left, 0);
            b *= r * vec_load_n(w + half + i, left, 0);
        }
        act_store_n(y + i, a * c - b * s, left);
        act_store_n(y + half + i, b * c + a * s, left);
    }
}

// Rotates back; y is a row of `real` or of `act`.
static inline void rotate_backward(void *y, const act *x, const real *cosine, const real *sine,
                                   int64_t half, bool is_real)
{
    for (int64_t i = 0; i < half; i += VL) {
        const int64_t left = half - i;
        const vec c = vec_load_n(cosine + i, left, 0);
        const vec s = vec_load_n(sine + i, left, 0);
        const vec a = act_load_n(x + i, left);
        const vec b = act_load_n(x + half + i, left);
        row_store(y, i, a * c + b * s, left, is_real);
        row_store(y, half + i, b * c - a * s, left, is_real);
    }
}

static real head_inverse_rms(const act *x, int64_t n, double eps)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL) {
        const vec v = act_load_n(x + i, n - i);
        sum += v * v;
    }
    return inverse_rms(vec_sum(sum), n, eps);
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
        const act *x = (const act *)args->in[0] + t * width;
        act *y = (act *)args->out[0] + t * width;
        const int64_t angle = args->pass->positions[t] * (D / 2);
        for (int64_t h = 0; h < rotated; h++) {
            const real *w = NULL;
            real r = 1;
            if (attr->qk_norm) {
                w = args->param[h < attr->heads ? 0 : 1];
                r = head_inverse_rms(x + h * D, D, attr->eps);
                ((real *)args->out[1])[t * rotated + h] = r;
            }
            rotate_forward(y + h * D, x + h * D, w, r, (const real *)args->pass->rope_cos + angle,
                           (const real *)args->pass->rope_sin + angle, D / 2);
        }
        memcpy(y + rotated * D, x + rotated * D, (size_t)(attr->kv_heads * D) * sizeof(act));
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
    real *dw = NULL;                                                          /* query, key */
    if (args->d_param[0]) {
        dw = (real *)(void *)work->shared + item * 2 * D;
        memset(dw, 0, (size_t)(2 * D) * sizeof(real));
    }
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const act *dy = (const act *)args->d_out + t * width;
        act *dx = (act *)args->d_in[0] + t * width;
        const real *cosine =
            (const real *)args->pass->rope_cos + args->pass->positions[t] * (D / 2);
        const real *sine = (const real *)args->pass->rope_sin + args->pass->positions[t] * (D / 2);
        for (int64_t h = 0; h < rotated; h++) {
            if (!attr->qk_norm) {
                rotate_backward(dx + h * D, dy + h * D, cosine, sine, D / 2, false);
                continue;
            }
            rotate_backward(unrotated, dy + h * D, cosine, sine, D / 2, true);
            const int side = h < attr->heads ? 0 : 1;
            norm_row_backward(dx + h * D, false, dw ? dw + side * D : NULL, unrotated,
                              (const act *)args->in[0] + t * width + h * D, args->param[side],
                              ((const real *)args->out[1])[t * rotated + h], D, false);
        }
        memcpy(dx + rotated * D, dy + rotated * D, (size_t)(attr->kv_heads * D) * sizeof(act));
    }
}

void MM_KERNEL(qknorm_rope_backward)(const mm_op_args *args)
{
    const int64_t items = row_items(args->pass->batch->n_tokens);
    MM_ASSERT(!args->d_in_add[0]);
    mm_pool_run(args->pass->work.pool, items, qknorm_rope_backward_item, (void *)args);
    if (!args->attr->qk_norm || !args->d_param[0]) return;
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
