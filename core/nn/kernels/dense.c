/* Embedding, linear and SwiGLU. Contracts: core/nn/ops.h. */
#include "core/nn/kernels/ops.h"

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

/* Packed weights pay where a product takes no longer than packing: in the bf16 builds. */
size_t op_packed_bytes(int64_t n_in, int64_t n_out, bool is_training)
{
    return gemm_packed_b_bytes(n_in, n_out) + (is_training ? gemm_packed_b_bytes(n_out, n_in) : 0);
}

void op_pack_weight(const mm_workspace *work, const void *w, int64_t n_in, int64_t n_out,
                    bool is_training, void *out)
{
    op_gemm_pack(work, out, n_in, n_out, (matrix){w, 1, n_in, true});
    if (is_training)
        op_gemm_pack(work, (char *)out + gemm_packed_b_bytes(n_in, n_out), n_out, n_in,
                     (matrix){w, n_in, 1, true});
}

void op_gemm_weight(const mm_workspace *work, int64_t m, int64_t n_in, int64_t n_out, matrix a,
                    const void *packed, target c)
{
    op_gemm_weights(work, m, a, &(packed_b){packed, n_in, n_out}, c);
}

/* y = x w^T */
void op_weight_forward(const mm_op_args *args, int64_t m, matrix x, target y)
{
    const mm_workspace *work = &args->pass->work;
    const int64_t K = args->attr->n_in;
    const int64_t N = args->attr->n_out;
    if (args->packed) {
        op_gemm_weight(work, m, K, N, x, args->packed, y);
    } else {
        op_gemm(work, m, N, K, x, (matrix){args->param[0], 1, K, true}, y);
    }
}

/* dx = dy w */
void op_weight_backward(const mm_op_args *args, int64_t m, matrix dy, target dx)
{
    const mm_workspace *work = &args->pass->work;
    const int64_t K = args->attr->n_in;
    const int64_t N = args->attr->n_out;
    if (args->packed) {
        const char *packed = (const char *)args->packed + gemm_packed_b_bytes(K, N);
        op_gemm_weight(work, m, N, K, dy, packed, dx);
    } else {
        op_gemm(work, m, K, N, dy, (matrix){args->param[0], K, 1, true}, dx);
    }
}

void MM_KERNEL(linear_forward)(const mm_op_args *args)
{
    op_weight_forward(args, args->pass->batch->n_tokens,
                      (matrix){args->in[0], args->attr->n_in, 1, false},
                      (target){args->out[0], args->attr->n_out, false, false});
}

/* dx (+)= dy w, dw += dy^T x unless w is frozen */
void MM_KERNEL(linear_backward)(const mm_op_args *args)
{
    const int64_t T = args->pass->batch->n_tokens;
    const int64_t K = args->attr->n_in;
    const int64_t N = args->attr->n_out;
    const bool is_real = args->d_out_is_real;
    op_weight_backward(args, T, (matrix){args->d_out, N, 1, is_real},
                       (target){args->d_in[0], K, false, args->d_in_add[0]});
    if (!args->d_param[0]) return;
    op_gemm(&args->pass->work, N, K, T, (matrix){args->d_out, 1, N, is_real},
            (matrix){args->in[0], K, 1, false}, (target){args->d_param[0], K, true, true});
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
        const act *gate = (const act *)args->in[0] + t * 2 * F;
        const act *up = gate + F;
        act *y = (act *)args->out[0] + t * F;
        for (int64_t i = 0; i < F; i += VL) {
            const vec g = act_load_n(gate + i, F - i);
            const vec u = act_load_n(up + i, F - i);
            act_store_n(y + i, g / (1 + vec_exp(-g)) * u, F - i);
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
        const act *gate = (const act *)args->in[0] + t * 2 * F;
        const act *up = gate + F;
        const act *dy = (const act *)args->d_out + t * F;
        act *d_gate = (act *)args->d_in[0] + t * 2 * F;
        act *d_up = d_gate + F;
        for (int64_t i = 0; i < F; i += VL) {
            const int64_t left = F - i;
            const vec g = act_load_n(gate + i, left);
            const vec u = act_load_n(up + i, left);
            const vec d = act_load_n(dy + i, left);
            const vec s = 1 / (1 + vec_exp(-g));
            act_store_n(d_gate + i, d * u * s * (1 + g * (1 - s)), left);
            act_store_n(d_up + i, d * g * s, left);
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
