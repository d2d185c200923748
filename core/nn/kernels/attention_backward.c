/* Causal grouped-query attention over packed segments, backward. Contract: core/nn/ops.h.
 *
 * Recomputing p_j = exp(scale s_j - lse), with the dropout factors m_j: dp_j = m_j (do . v_j),
 * ds_j = scale p_j (dp_j - do . o), which holds with dropout too because sum_j p_j dp_j = do . o;
 * dq = sum_j ds_j k_j, and over queries dk_j = sum ds_j q, dv_j = sum m_j p_j do.
 *
 * The square of a segment is cut into blocks of QUERY_BLOCK queries by as many keys. All blocks on
 * one diagonal have queries of their own and keys of their own, so that they run at the same time
 * while dq, dk and dv are summed in one place and in one order, diagonal by diagonal: any number of
 * threads gives the same bits, and a single long segment keeps many of them busy.
 */
#include "core/nn/kernels/attention.h"

typedef struct backward_block {
    mm_query_block queries;
    bool is_last; /* of its segment */
} backward_block;

typedef struct backward_job {
    const mm_op_args *args;
    attention_dims dims;
    bool drop;
    int64_t diagonal; /* which block of keys back from that of the queries */
    backward_block *blocks;
    real *pulls; /* (T,H): do . o, from the first diagonal for the others */
    real *sums;  /* (T, width): the gradient, in d_in[0] where that is in `real` */
} backward_job;

// One block of queries against one block of keys, for the heads of one key-value head.
typedef struct backward_tile {
    const backward_job *job;
    int64_t segment;   /* its first token */
    int64_t key;       /* token of the first key */
    packed_b k_by_dim; /* (D, keys) */
    packed_b v_by_dim; /* (D, keys) */
    packed_b k_by_key; /* (keys, D) */
    void *packing;
    void *panel; /* packed (rows, D) */
    real *p;     /* (ATTENTION_ROWS, QUERY_BLOCK): scores, then weights */
    real *ds;    /* the same: do . v, then gradients of scores */
    real *mask;  /* (QUERY_BLOCK) */
} backward_tile;

static real act_dot(const act *a, const act *b, int64_t n)
{
    vec sum = {0};
    for (int64_t i = 0; i < n; i += VL)
        sum += act_load_n(a + i, n - i) * act_load_n(b + i, n - i);
    return vec_sum(sum);
}

static inline void backward_vector(const backward_tile *tile, int64_t j, real *p, real *ds,
                                   real lse, real pull, ivec lanes)
{
    const real scale = tile->job->dims.scale;
    const vec e = attention_exp2(vec_load(p + j) * tile->job->dims.scale_2 - lse);
    vec kept = e;
    vec d = vec_load(ds + j);
    if (tile->job->drop) {
        const vec m = vec_load(tile->mask + j);
        kept *= m;
        d *= m;
    }
    d = e * (d - pull) * scale;
    act_store((act *)p + j, (vec)((ivec)kept & lanes));
    act_store((act *)ds + j, (vec)((ivec)d & lanes));
}

// Turns scores into m p and the products do . v into ds, in place, for query row t.
static void backward_row(const backward_tile *tile, int64_t t, int64_t h, real *p, real *ds,
                         int64_t n)
{
    const backward_job *job = tile->job;
    const mm_op_args *args = job->args;
    const int64_t valid = least(n, t - tile->key + 1);
    const int64_t at = t * job->dims.H + h;
    const int64_t D = job->dims.D;
    if (job->diagonal == 0)
        job->pulls[at] =
            act_dot((const act *)args->d_out + at * D, (const act *)args->out[0] + at * D, D);
    const real pull = job->pulls[at];
    const real lse = ((const real *)args->out[1])[at] * (real)ATTENTION_LOG2_E;
    if (job->drop)
        op_dropout_row(args->pass, args->attr, at, tile->key - tile->segment, tile->mask, valid);
    const ivec all = attention_lanes_below(VL);
    int64_t j = 0;
    for (; j + VL <= valid; j += VL)
        backward_vector(tile, j, p, ds, lse, pull, all);
    if (j < valid) {
        backward_vector(tile, j, p, ds, lse, pull, attention_lanes_below(valid - j));
        j += VL;
    }
    for (; j < n; j += VL) {
        act_store((act *)p + j, vec_set(0));
        act_store((act *)ds + j, vec_set(0));
    }
}

// The rows that pulls are made of, which nothing else reads, are asked for before the products that
// come first: one by one they would be waited for.
static void prefetch_out(const backward_job *job, int64_t first, int64_t rows, int64_t h)
{
    const int64_t D = job->dims.D;
    for (int64_t t = first; t < first + rows; t++) {
        const char *row =
            (const char *)((const act *)job->args->out[0] + (t * job->dims.H + h) * D);
        for (int64_t at = 0; at < D * (int64_t)sizeof(act); at += ATTENTION_LINE)
            __builtin_prefetch(row + at);
    }
}

static void backward_rows(const backward_tile *tile, int64_t first, int64_t rows, int64_t n,
                          int64_t h)
{
    const backward_job *job = tile->job;
    const mm_op_args *args = job->args;
    const attention_dims *dims = &job->dims;
    const int64_t D = dims->D;
    const int64_t kv = h / dims->group;
    const matrix q = attention_acts(args->in[0], dims->width, first, h * D);
    const matrix dout = attention_acts(args->d_out, dims->H * D, first, h * D);
    if (job->diagonal == 0) prefetch_out(job, first, rows, h);
    gemm_packed(tile->packing, rows, n, D, q, &tile->k_by_dim,
                (target){tile->p, QUERY_BLOCK, true, false});
    gemm_packed(tile->packing, rows, n, D, dout, &tile->v_by_dim,
                (target){tile->ds, QUERY_BLOCK, true, false});
    for (int64_t i = 0; i < rows; i++)
        backward_row(tile, first + i, h, tile->p + i * QUERY_BLOCK, tile->ds + i * QUERY_BLOCK, n);

    const matrix p = attention_acts(tile->p, QUERY_BLOCK * ACTS_PER_REAL, 0, 0);
    const matrix ds = attention_acts(tile->ds, QUERY_BLOCK * ACTS_PER_REAL, 0, 0);
    real *dq = job->sums + first * dims->width + h * D;
    real *dk = job->sums + tile->key * dims->width + (dims->H + kv) * D;
    gemm_packed(tile->packing, rows, D, n, ds, &tile->k_by_key,
                (target){dq, dims->width, true, job->diagonal > 0});
    packed_b right = gemm_pack_b(tile->panel, rows, D, dout);
    gemm_packed(tile->packing, n, D, rows, attention_transposed(p), &right,
                (target){dk + dims->K * D, dims->width, true, true});
    right = gemm_pack_b(tile->panel, rows, D, q);
    gemm_packed(tile->packing, n, D, rows, attention_transposed(ds), &right,
                (target){dk, dims->width, true, true});
}

// What a sum comes to in d_in[0], once its last term is in.
static void round_sums(const backward_job *job, int64_t first, int64_t rows, int64_t column,
                       int64_t n)
{
#if MM_KERNEL_BF16
    for (int64_t t = first; t < first + rows; t++) {
        const int64_t at = t * job->dims.width + column;
        act *out = (act *)job->args->d_in[0] + at;
        for (int64_t i = 0; i < n; i += VL)
            act_store_n(out + i, vec_load_n(job->sums + at + i, n - i, 0), n - i);
    }
#else
    (void)job;
    (void)first;
    (void)rows;
    (void)column;
    (void)n;
#endif
}

static void zero_sums(const backward_job *job, int64_t first, int64_t rows, int64_t column)
{
    for (int64_t t = first; t < first + rows; t++)
        memset(job->sums + t * job->dims.width + column, 0, (size_t)job->dims.D * sizeof(real));
}

static backward_tile tile_of(const backward_job *job, const backward_block *block, int64_t kv,
                             int32_t thread)
{
    const attention_dims *dims = &job->dims;
    const mm_workspace *work = &job->args->pass->work;
    const int64_t D = dims->D;
    const int64_t n = QUERY_BLOCK;
    char *scratch = work->thread + (size_t)thread * work->thread_bytes;
    backward_tile tile = {.job = job,
                          .segment = block->queries.segment_begin,
                          .key = block->queries.begin - job->diagonal * QUERY_BLOCK};
    tile.packing = attention_take(&scratch, gemm_packed_a_bytes());
    tile.panel = attention_take(&scratch, gemm_packed_b_bytes(ATTENTION_ROWS, D));
    tile.p = attention_take_reals(&scratch, ATTENTION_ROWS * n);
    tile.ds = attention_take_reals(&scratch, ATTENTION_ROWS * n);
    tile.mask = attention_take_reals(&scratch, n);
    void *k_by_dim = attention_take(&scratch, gemm_packed_b_bytes(D, n));
    void *v_by_dim = attention_take(&scratch, gemm_packed_b_bytes(D, n));
    void *k_by_key = attention_take(&scratch, gemm_packed_b_bytes(n, D));
    const int64_t n_keys = least(n, block->queries.end - tile.key);
    const matrix k = attention_acts(job->args->in[0], dims->width, tile.key, (dims->H + kv) * D);
    const matrix v = gemm_from(k, 0, dims->K * D);
    tile.k_by_dim = gemm_pack_b(k_by_dim, D, n_keys, attention_transposed(k));
    tile.v_by_dim = gemm_pack_b(v_by_dim, D, n_keys, attention_transposed(v));
    tile.k_by_key = gemm_pack_b(k_by_key, n_keys, D, k);
    return tile;
}

static void attention_backward_item(void *context, int64_t item, int32_t thread)
{
    const backward_job *job = context;
    const attention_dims *dims = &job->dims;
    const backward_block *block = job->blocks + item / dims->K;
    const int64_t kv = item % dims->K;
    const int64_t begin = block->queries.begin;
    const int64_t end = block->queries.end;
    const backward_tile tile = tile_of(job, block, kv, thread);
    const int64_t n_keys = tile.k_by_key.k;
    const int64_t key_column = (dims->H + kv) * dims->D;
    const int64_t value_column = key_column + dims->K * dims->D;
    if (job->diagonal == 0) {
        zero_sums(job, tile.key, n_keys, key_column);
        zero_sums(job, tile.key, n_keys, value_column);
    }
    for (int64_t h = kv * dims->group; h < (kv + 1) * dims->group; h++)
        for (int64_t first = begin; first < end; first += ATTENTION_ROWS) {
            const int64_t rows = least(ATTENTION_ROWS, end - first);
            backward_rows(&tile, first, rows, least(n_keys, first + rows - tile.key), h);
        }
    if (tile.key == tile.segment)
        round_sums(job, begin, end - begin, kv * dims->group * dims->D, dims->group * dims->D);
    if (block->is_last) {
        round_sums(job, tile.key, n_keys, key_column, dims->D);
        round_sums(job, tile.key, n_keys, value_column, dims->D);
    }
}

static int64_t list_blocks(const mm_pass *pass, backward_block *out)
{
    const int64_t n = pass->n_query_blocks;
    for (int64_t i = 0; i < n; i++) {
        const mm_query_block *block = pass->query_blocks + i;
        out[i] = (backward_block){*block, i + 1 == n || block[1].begin == block[1].segment_begin};
    }
    return n;
}

// Keeps the blocks that have a block of keys on `diagonal`.
static int64_t keep_blocks(backward_block *blocks, int64_t n, int64_t diagonal)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        const mm_query_block *queries = &blocks[i].queries;
        if (queries->begin - diagonal * QUERY_BLOCK >= queries->segment_begin)
            blocks[kept++] = blocks[i];
    }
    return kept;
}

void MM_KERNEL(attention_backward)(const mm_op_args *args)
{
    MM_ASSERT(!args->d_in_add[0]);
    const mm_pass *pass = args->pass;
    const int64_t T = pass->batch->n_tokens;
    backward_job job = {.args = args, .dims = attention_dims_of(args->attr)};
    char *shared = pass->work.shared;
    job.drop = pass->dropout_on && args->attr->dropout > 0;
    job.blocks = attention_take(&shared, (size_t)pass->n_query_blocks * sizeof(backward_block));
    job.pulls = attention_take_reals(&shared, T * job.dims.H);
    job.sums = MM_KERNEL_BF16 ? (real *)(void *)shared : args->d_in[0];
    int64_t n = list_blocks(pass, job.blocks);
    for (; n > 0; n = keep_blocks(job.blocks, n, ++job.diagonal))
        mm_pool_run(pass->work.pool, n * job.dims.K, attention_backward_item, &job);
}

mm_op_need MM_KERNEL(attention_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    enum { SHARED_PIECES = 3, PIECES = 8 };
    const attention_dims dims = attention_dims_of(attr);
    const int64_t D = dims.D;
    const int64_t n = QUERY_BLOCK;
    // Every token may be a segment and a block of its own.
    const size_t shared =
        (size_t)max_tokens * (sizeof(backward_block) + (size_t)dims.H * sizeof(real) +
                              (MM_KERNEL_BF16 ? (size_t)dims.width : 0) * sizeof(real)) +
        SHARED_PIECES * ATTENTION_LINE;
    const size_t thread = (size_t)(2 * ATTENTION_ROWS * n + n) * sizeof(real) +
                          gemm_packed_a_bytes() + gemm_packed_b_bytes(ATTENTION_ROWS, D) +
                          2 * gemm_packed_b_bytes(D, n) + gemm_packed_b_bytes(n, D) +
                          PIECES * ATTENTION_LINE;
    const size_t forward = op_attention_forward_bytes(attr);
    return (mm_op_need){.shared_bytes = shared,
                        .thread_bytes = thread > forward ? thread : forward};
}
