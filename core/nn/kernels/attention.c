/* Causal grouped-query attention over packed segments. Contract: core/nn/ops.h.
 *
 * A block of queries meets all keys of its segment up to its own last row: the scores of that strip
 * are one matrix product, the softmax runs along rows, the result is a second product. The strip
 * (at most QUERY_BLOCK x segment) stays in cache; the full square is never made. Keys and
 * values are packed once per block and serve all query heads of their group.
 *
 * p_j = exp(scale s_j - lse), o = sum_j m_j p_j v_j with the dropout factors m_j. Backward,
 * recomputing p: dp_j = m_j (do . v_j), ds_j = scale p_j (dp_j - do . o), which holds with dropout
 * too because sum_j p_j dp_j = do . o.
 */
#include "core/nn/kernels/ops.h"

typedef struct attention_dims {
    int64_t H, K, D;
    int64_t group; /* query heads per key-value head */
    int64_t width; /* columns of the query|key|value rows */
    real scale;
} attention_dims;

static attention_dims dims_of(const mm_op_attr *attr)
{
    const int64_t D = attr->head_dim;
    return (attention_dims){.H = attr->heads,
                            .K = attr->kv_heads,
                            .D = D,
                            .group = attr->heads / attr->kv_heads,
                            .width = (attr->heads + 2 * attr->kv_heads) * D,
                            .scale = (real)(1.0 / sqrt((double)D))};
}

// Hands out consecutive pieces of a thread's scratch.
static void *take(char **scratch, size_t bytes)
{
    enum { LINE = 64 };
    void *piece = *scratch;
    *scratch += round_up((int64_t)bytes, LINE);
    return piece;
}

static real *take_reals(char **scratch, int64_t count)
{
    return take(scratch, (size_t)count * sizeof(real));
}

static char *scratch_of(const mm_workspace *work, int32_t thread)
{
    return work->thread + (size_t)thread * work->thread_bytes;
}

// Softmax of scale * s[0, valid); zeros up to the next `n`. Returns log(sum(exp(scale s))). Both
// ends of s are padded to whole vectors.
static real softmax_row(real *s, real scale, int64_t valid, int64_t n)
{
    vec highest = vec_set(MINUS_INFINITY);
    for (int64_t j = 0; j < valid; j += VL) {
        const vec v = vec_load_n(s + j, valid - j, MINUS_INFINITY);
        vec_store(s + j, v);
        highest = vec_max(highest, v);
    }
    const real top = vec_highest(highest) * scale;
    vec sums = {0};
    for (int64_t j = 0; j < valid; j += VL) {
        const vec e = vec_exp(vec_load(s + j) * scale - top);
        vec_store(s + j, e);
        sums += e;
    }
    const real sum = vec_sum(sums);
    const real inverse = 1 / sum;
    for (int64_t j = 0; j < valid; j += VL)
        vec_store(s + j, vec_load(s + j) * inverse);
    for (int64_t j = valid; j < n; j++)
        s[j] = 0;
    return top + real_log(sum);
}

static void attention_forward_item(void *context, int64_t item, int32_t thread)
{
    const mm_op_args *args = context;
    const attention_dims dims = dims_of(args->attr);
    const mm_query_block block = args->pass->query_blocks[item / dims.K];
    const int64_t kv = item % dims.K;
    const int64_t D = dims.D;
    const int64_t rows = block.end - block.begin;
    const int64_t n = block.end - block.segment_begin; // keys
    const int64_t stride = round_up(n, VL);
    const bool drop = args->pass->dropout_on && args->attr->dropout > 0;

    const act *x = args->in[0];
    const act *keys = x + block.segment_begin * dims.width + (dims.H + kv) * D;
    const act *values = keys + dims.K * D;
    char *scratch = scratch_of(&args->pass->work, thread);
    void *packing = take(&scratch, gemm_packed_a_bytes());
    real *scores = take_reals(&scratch, QUERY_BLOCK * stride);
    real *mask = take_reals(&scratch, stride);
    const packed_b k = gemm_pack_b(take(&scratch, gemm_packed_b_bytes(D, n)), D, n,
                                   (matrix){keys, 1, dims.width, false});
    const packed_b v = gemm_pack_b(take(&scratch, gemm_packed_b_bytes(n, D)), n, D,
                                   (matrix){values, dims.width, 1, false});

    for (int64_t h = kv * dims.group; h < (kv + 1) * dims.group; h++) {
        const act *q = x + block.begin * dims.width + h * D;
        gemm_packed(packing, rows, n, D, (matrix){q, dims.width, 1, false}, &k,
                    (target){scores, stride, true, false});
        for (int64_t i = 0; i < rows; i++) {
            const int64_t t = block.begin + i;
            const int64_t valid = t - block.segment_begin + 1;
            real *p = scores + i * stride;
            ((real *)args->out[1])[t * dims.H + h] = softmax_row(p, dims.scale, valid, n);
            if (!drop) continue;
            op_dropout_row(args->pass, args->attr, t * dims.H + h, mask, valid);
            for (int64_t j = 0; j < valid; j++)
                p[j] *= mask[j];
        }
        act *out = (act *)args->out[0] + block.begin * dims.H * D + h * D;
        gemm_packed(packing, rows, D, n, (matrix){scores, stride, 1, true}, &v,
                    (target){out, dims.H * D, false, false});
    }
}

void MM_KERNEL(attention_forward)(const mm_op_args *args)
{
    mm_pool_run(args->pass->work.pool, args->pass->n_query_blocks * args->attr->kv_heads,
                attention_forward_item, (void *)args);
}

// What the blocks of one (segment, key-value head) share in backward.
typedef struct backward_strip {
    const mm_op_args *args;
    attention_dims dims;
    int64_t begin; /* of the segment */
    int64_t stride;
    packed_b k_by_dim; /* (D, keys) */
    packed_b v_by_dim; /* (D, keys) */
    packed_b k_by_key; /* (keys, D) */
    void *packing;
    void *panel; /* packed (rows, D) */
    real *p;     /* (rows, keys) */
    real *ds;    /* (rows, keys) */
    real *mask;
    bool drop;
} backward_strip;

static real act_dot(const act *a, const act *b, int64_t n)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL)
        sum += act_load_n(a + i, n - i) * act_load_n(b + i, n - i);
    return vec_sum(sum);
}

// Turns scores into m p and the products do.v into ds, in place, for query row t.
static void backward_row(const backward_strip *strip, int64_t t, int64_t h, real *p, real *ds,
                         int64_t n)
{
    const mm_op_args *args = strip->args;
    const attention_dims *dims = &strip->dims;
    const int64_t valid = t - strip->begin + 1;
    const int64_t at = (t * dims->H + h) * dims->D;
    const real pull =
        act_dot((const act *)args->d_out + at, (const act *)args->out[0] + at, dims->D);
    const real lse = ((const real *)args->out[1])[t * dims->H + h];
    if (strip->drop) op_dropout_row(args->pass, args->attr, t * dims->H + h, strip->mask, valid);
    for (int64_t j = 0; j < valid; j += VL) {
        const vec e = vec_exp(vec_load(p + j) * dims->scale - lse);
        vec kept = e;
        vec d = vec_load(ds + j);
        if (strip->drop) {
            const vec m = vec_load(strip->mask + j);
            kept *= m;
            d *= m;
        }
        vec_store(p + j, kept);
        vec_store(ds + j, e * (d - pull) * dims->scale);
    }
    for (int64_t j = valid; j < n; j++)
        p[j] = ds[j] = 0;
}

static void backward_block(const backward_strip *strip, int64_t first, int64_t rows, int64_t h,
                           act *dx_keys)
{
    const attention_dims *dims = &strip->dims;
    const int64_t D = dims->D;
    const int64_t n = first + rows - strip->begin; // keys
    const act *q = (const act *)strip->args->in[0] + first * dims->width + h * D;
    const act *dout = (const act *)strip->args->d_out + first * dims->H * D + h * D;
    act *dq = (act *)strip->args->d_in[0] + first * dims->width + h * D;
    act *dx_values = dx_keys + dims->K * D;

    gemm_packed(strip->packing, rows, n, D, (matrix){q, dims->width, 1, false}, &strip->k_by_dim,
                (target){strip->p, strip->stride, true, false});
    gemm_packed(strip->packing, rows, n, D, (matrix){dout, dims->H * D, 1, false}, &strip->v_by_dim,
                (target){strip->ds, strip->stride, true, false});
    for (int64_t i = 0; i < rows; i++)
        backward_row(strip, first + i, h, strip->p + i * strip->stride,
                     strip->ds + i * strip->stride, n);

    gemm_packed(strip->packing, rows, D, n, (matrix){strip->ds, strip->stride, 1, true},
                &strip->k_by_key, (target){dq, dims->width, false, false});
    packed_b right = gemm_pack_b(strip->panel, rows, D, (matrix){dout, dims->H * D, 1, false});
    gemm_packed(strip->packing, n, D, rows, (matrix){strip->p, 1, strip->stride, true}, &right,
                (target){dx_values, dims->width, false, true});
    right = gemm_pack_b(strip->panel, rows, D, (matrix){q, dims->width, 1, false});
    gemm_packed(strip->packing, n, D, rows, (matrix){strip->ds, 1, strip->stride, true}, &right,
                (target){dx_keys, dims->width, false, true});
}

// One segment and key-value head: the sums over queries of dk and dv have one owner and one order.
static void attention_backward_item(void *context, int64_t item, int32_t thread)
{
    const mm_op_args *args = context;
    const attention_dims dims = dims_of(args->attr);
    const int32_t *segment = args->pass->batch->segments + item / dims.K;
    const int64_t kv = item % dims.K;
    const int64_t n = segment[1] - segment[0];
    const act *keys = (const act *)args->in[0] + segment[0] * dims.width + (dims.H + kv) * dims.D;
    const act *values = keys + dims.K * dims.D;
    act *dx_keys = (act *)args->d_in[0] + segment[0] * dims.width + (dims.H + kv) * dims.D;
    char *scratch = scratch_of(&args->pass->work, thread);
    backward_strip strip = {
        .args = args, .dims = dims, .begin = segment[0], .stride = round_up(n, VL)};
    strip.drop = args->pass->dropout_on && args->attr->dropout > 0;
    strip.packing = take(&scratch, gemm_packed_a_bytes());
    strip.panel = take(&scratch, gemm_packed_b_bytes(QUERY_BLOCK, dims.D));
    strip.p = take_reals(&scratch, QUERY_BLOCK * strip.stride);
    strip.ds = take_reals(&scratch, QUERY_BLOCK * strip.stride);
    strip.mask = take_reals(&scratch, strip.stride);
    void *packed = take(&scratch, gemm_packed_b_bytes(dims.D, n));
    strip.k_by_dim = gemm_pack_b(packed, dims.D, n, (matrix){keys, 1, dims.width, false});
    packed = take(&scratch, gemm_packed_b_bytes(dims.D, n));
    strip.v_by_dim = gemm_pack_b(packed, dims.D, n, (matrix){values, 1, dims.width, false});
    packed = take(&scratch, gemm_packed_b_bytes(n, dims.D));
    strip.k_by_key = gemm_pack_b(packed, n, dims.D, (matrix){keys, dims.width, 1, false});

    for (int64_t j = 0; j < n; j++) {
        memset(dx_keys + j * dims.width, 0, (size_t)dims.D * sizeof(act));
        memset(dx_keys + j * dims.width + dims.K * dims.D, 0, (size_t)dims.D * sizeof(act));
    }
    for (int64_t first = segment[0]; first < segment[1]; first += QUERY_BLOCK)
        for (int64_t h = kv * dims.group; h < (kv + 1) * dims.group; h++)
            backward_block(&strip, first, least(QUERY_BLOCK, segment[1] - first), h, dx_keys);
}

void MM_KERNEL(attention_backward)(const mm_op_args *args)
{
    MM_ASSERT(!args->d_in_add[0]);
    mm_pool_run(args->pass->work.pool,
                (int64_t)args->pass->batch->n_segments * args->attr->kv_heads,
                attention_backward_item, (void *)args);
}

mm_op_need MM_KERNEL(attention_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    // Sized for one segment that fills the budget, in backward, which takes the most.
    enum { LINE = 64, PIECES = 9 };
    const int64_t D = attr->head_dim;
    const int64_t stride = round_up(max_tokens, VL);
    const int64_t reals = 2 * QUERY_BLOCK * stride + stride;
    return (mm_op_need){.thread_bytes = (size_t)reals * sizeof(real) + gemm_packed_a_bytes() +
                                        gemm_packed_b_bytes(QUERY_BLOCK, D) +
                                        2 * gemm_packed_b_bytes(D, max_tokens) +
                                        gemm_packed_b_bytes(max_tokens, D) + PIECES * LINE};
}
