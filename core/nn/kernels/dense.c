/* Embedding, linear, SwiGLU, residual addition and dropout. Contracts: core/nn/ops.h. */
#include "core/nn/kernels/ops.h"

#include "core/base/rng.h"

enum { EMBED_COLUMNS = 64 }; // columns of one work item of the embedding's backward

static const mm_op_need NO_NEED = {0};

static void embed_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const mm_batch *batch = args->pass->batch;
    const int64_t C = args->attr->n_out;
    const real *w = args->param[0]; /* (V,C) */
    real *y = args->out[0];         /* (T,C) */
    const row_range rows = rows_of(item, batch->n_tokens);
    for (int64_t t = rows.begin; t < rows.end; t++)
        memcpy(y + t * C, w + batch->tokens[t] * C, (size_t)C * sizeof(real));
}

void MM_KERNEL(embed_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), embed_forward_item,
                (void *)args);
}

// A token may stand in many rows: work is cut by columns, so that each sum has one owner and one
// order.
static void embed_backward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const mm_batch *batch = args->pass->batch;
    const int64_t C = args->attr->n_out;
    const real *dy = args->d_out;
    real *dw = args->d_param[0];
    const int64_t begin = item * EMBED_COLUMNS;
    const int64_t end = least(begin + EMBED_COLUMNS, C);
    for (int64_t t = 0; t < batch->n_tokens; t++) {
        real *restrict out = dw + batch->tokens[t] * C;
        const real *restrict from = dy + t * C;
        for (int64_t c = begin; c < end; c++)
            out[c] += from[c];
    }
}

void MM_KERNEL(embed_backward)(const mm_op_args *args)
{
    const int64_t items = (args->attr->n_out + EMBED_COLUMNS - 1) / EMBED_COLUMNS;
    mm_pool_run(args->pass->work.pool, items, embed_backward_item, (void *)args);
}

mm_op_need MM_KERNEL(embed_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)attr;
    (void)max_tokens;
    return NO_NEED;
}

/* y = x w^T */
void MM_KERNEL(linear_forward)(const mm_op_args *args)
{
    const int64_t T = args->pass->batch->n_tokens;
    const int64_t K = args->attr->n_in;
    const int64_t N = args->attr->n_out;
    op_gemm(&args->pass->work, T, N, K, (matrix){args->in[0], K, 1}, (matrix){args->param[0], 1, K},
            args->out[0], N, false);
}

/* dx (+)= dy w, dw += dy^T x */
void MM_KERNEL(linear_backward)(const mm_op_args *args)
{
    const int64_t T = args->pass->batch->n_tokens;
    const int64_t K = args->attr->n_in;
    const int64_t N = args->attr->n_out;
    op_gemm(&args->pass->work, T, K, N, (matrix){args->d_out, N, 1}, (matrix){args->param[0], K, 1},
            args->d_in[0], K, args->d_in_add[0]);
    op_gemm(&args->pass->work, N, K, T, (matrix){args->d_out, 1, N}, (matrix){args->in[0], K, 1},
            args->d_param[0], K, true);
}

mm_op_need MM_KERNEL(linear_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)attr;
    (void)max_tokens;
    return op_gemm_need();
}

/* y = silu(gate) up, silu(g) = g / (1 + e^-g). Shazeer, "GLU Variants Improve Transformer", 2020.
 */
static void swiglu_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t F = args->attr->n_out;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *gate = (const real *)args->in[0] + t * 2 * F;
        const real *up = gate + F;
        real *y = (real *)args->out[0] + t * F;
        for (int64_t i = 0; i < F; i += VL) {
            const vec g = vec_load_n(gate + i, F - i, 0);
            const vec u = vec_load_n(up + i, F - i, 0);
            vec_store_n(y + i, g / (1 + vec_exp(-g)) * u, F - i);
        }
    }
}

void MM_KERNEL(swiglu_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), swiglu_forward_item,
                (void *)args);
}

static void swiglu_backward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t F = args->attr->n_out;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    MM_ASSERT(!args->d_in_add[0]);
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *gate = (const real *)args->in[0] + t * 2 * F;
        const real *up = gate + F;
        const real *dy = (const real *)args->d_out + t * F;
        real *d_gate = (real *)args->d_in[0] + t * 2 * F;
        real *d_up = d_gate + F;
        for (int64_t i = 0; i < F; i += VL) {
            const int64_t left = F - i;
            const vec g = vec_load_n(gate + i, left, 0);
            const vec u = vec_load_n(up + i, left, 0);
            const vec d = vec_load_n(dy + i, left, 0);
            const vec s = 1 / (1 + vec_exp(-g));
            vec_store_n(d_gate + i, d * u * s * (1 + g * (1 - s)), left);
            vec_store_n(d_up + i, d * g * s, left);
        }
    }
}

void MM_KERNEL(swiglu_backward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), swiglu_backward_item,
                (void *)args);
}

mm_op_need MM_KERNEL(swiglu_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)attr;
    (void)max_tokens;
    return NO_NEED;
}

static void add_forward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t C = args->attr->n_out;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    const real *restrict a = (const real *)args->in[0] + rows.begin * C;
    const real *restrict b = (const real *)args->in[1] + rows.begin * C;
    real *restrict y = (real *)args->out[0] + rows.begin * C;
    for (int64_t i = 0; i < (rows.end - rows.begin) * C; i++)
        y[i] = a[i] + b[i];
}

void MM_KERNEL(add_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), add_forward_item,
                (void *)args);
}

// An input gradient that shares the memory of d_out is there already.
static void add_backward_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const mm_op_args *args = context;
    const int64_t C = args->attr->n_out;
    const row_range rows = rows_of(item, args->pass->batch->n_tokens);
    const int64_t n = (rows.end - rows.begin) * C;
    const real *dy = (const real *)args->d_out + rows.begin * C;
    for (int side = 0; side < 2; side++) {
        if (args->d_in[side] == args->d_out) continue;
        real *restrict dx = (real *)args->d_in[side] + rows.begin * C;
        if (!args->d_in_add[side]) {
            memcpy(dx, dy, (size_t)n * sizeof(real));
            continue;
        }
        for (int64_t i = 0; i < n; i++)
            dx[i] += dy[i];
    }
}

void MM_KERNEL(add_backward)(const mm_op_args *args)
{
    if (args->d_in[0] == args->d_out && args->d_in[1] == args->d_out) return;
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), add_backward_item,
                (void *)args);
}

mm_op_need MM_KERNEL(add_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)attr;
    (void)max_tokens;
    return NO_NEED;
}

void op_dropout_row(const mm_pass *pass, const mm_op_attr *attr, int64_t row, real *out, int64_t n)
{
    const double threshold = attr->dropout * 0x1p32;
    const real kept = (real)(1.0 / (1.0 - attr->dropout));
    const uint64_t base = (uint64_t)attr->site << 48 | (uint64_t)row << 20;
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t bits[4];
        mm_philox(pass->seed, MM_RNG_DROPOUT, pass->micro_step, base | (uint64_t)i / 4, bits);
        for (int64_t j = 0; j < least(4, n - i); j++)
            out[i + j] = bits[j] < threshold ? 0 : kept;
    }
}

typedef struct dropout_job {
    const mm_op_args *args;
    const real *from;
    real *to;
    bool add;
} dropout_job;

static void dropout_item(void *context, int64_t item, int32_t thread)
{
    const dropout_job *job = context;
    const mm_pass *pass = job->args->pass;
    const int64_t C = job->args->attr->n_out;
    real *mask = (real *)(void *)(pass->work.thread + (size_t)thread * pass->work.thread_bytes);
    const row_range rows = rows_of(item, pass->batch->n_tokens);
    for (int64_t t = rows.begin; t < rows.end; t++) {
        const real *from = job->from + t * C;
        real *to = job->to + t * C;
        op_dropout_row(pass, job->args->attr, t, mask, C);
        for (int64_t i = 0; i < C; i++)
            to[i] = job->add ? to[i] + from[i] * mask[i] : from[i] * mask[i];
    }
}

static void dropout_run(dropout_job job)
{
    const mm_pass *pass = job.args->pass;
    if (!pass->dropout_on) {
        MM_ASSERT(!job.add);
        const size_t bytes = (size_t)(pass->batch->n_tokens * job.args->attr->n_out) * sizeof(real);
        memcpy(job.to, job.from, bytes);
        return;
    }
    mm_pool_run(pass->work.pool, row_items(pass->batch->n_tokens), dropout_item, &job);
}

void MM_KERNEL(dropout_forward)(const mm_op_args *args)
{
    dropout_run((dropout_job){args, args->in[0], args->out[0], false});
}

void MM_KERNEL(dropout_backward)(const mm_op_args *args)
{
    dropout_run((dropout_job){args, args->d_out, args->d_in[0], args->d_in_add[0]});
}

mm_op_need MM_KERNEL(dropout_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    (void)max_tokens;
    return (mm_op_need){.thread_bytes = (size_t)attr->n_out * sizeof(real)};
}
