/* The adapter of a frozen linear layer. Contract: core/nn/ops.h.
 *
 *   h = s drop(x) A^T, y += h B^T          Hu et al., "LoRA: Low-Rank Adaptation of Large Language
 *   dB += dy^T h, dh = s dy B              Models", 2021
 *   dA += dh^T drop(x), dx (+)= drop(dh A)
 *
 * with the columns of y and dy that belong to the adapted weight. dy is handed on as it is: what
 * was added to y does not depend on y. The masks are drawn again in backward.
 */
#include "core/nn/kernels/ops.h"

// The dropped input and, when that has done its work, its gradient before dropout.
typedef struct lora_scratch {
    act *wide; /* (T, n_in) */
    act *low;  /* (T, rank), dh */
} lora_scratch;

static lora_scratch scratch_of(const mm_op_attr *attr, char *memory, int64_t rows, size_t *bytes)
{
    enum { LINE = 64 };
    const int64_t wide =
        attr->dropout > 0 ? round_up(rows * attr->n_in * (int64_t)sizeof(act), LINE) : 0;
    const int64_t low = round_up(rows * attr->rank * (int64_t)sizeof(act), LINE);
    *bytes = (size_t)(wide + low);
    if (!memory) return (lora_scratch){0};
    return (lora_scratch){(act *)(void *)memory, (act *)(void *)(memory + wide)};
}

typedef struct mask_job {
    const mm_op_args *args;
    const act *from; /* (T, n_in) */
    act *to;
    bool add;
} mask_job;

// to (+)= mask from
static void mask_item(void *context, int64_t item, int32_t thread)
{
    const mask_job *job = context;
    const mm_pass *pass = job->args->pass;
    const int64_t n = job->args->attr->n_in;
    real *mask = (real *)(void *)(pass->work.thread + (size_t)thread * pass->work.thread_bytes);
    const row_range rows = rows_of(item, pass->batch->n_tokens);
    for (int64_t t = rows.begin; t < rows.end; t++) {
        op_dropout_row(pass, job->args->attr, t, 0, mask, n);
        const act *from = job->from + t * n;
        act *to = job->to + t * n;
        for (int64_t i = 0; i < n; i += VL) {
            vec v = act_load_n(from + i, n - i) * vec_load_n(mask + i, n - i, 0);
            if (job->add) v += act_load_n(to + i, n - i);
            act_store_n(to + i, v, n - i);
        }
    }
}

static void apply_mask(const mm_op_args *args, const act *from, act *to, bool add)
{
    mask_job job = {args, from, to, add};
    mm_pool_run(args->pass->work.pool, row_items(args->pass->batch->n_tokens), mask_item, &job);
}

static bool is_dropped(const mm_op_args *args)
{
    return args->pass->dropout_on && args->attr->dropout > 0;
}

// What enters A.
static matrix input_of(const mm_op_args *args, const lora_scratch *scratch)
{
    const int64_t n_in = args->attr->n_in;
    if (!is_dropped(args)) return (matrix){args->in[0], n_in, 1, false};
    apply_mask(args, args->in[0], scratch->wide, false);
    return (matrix){scratch->wide, n_in, 1, false};
}

static void scale_values(const mm_op_args *args, act *values, int64_t n)
{
    const real scale = (real)args->attr->scale;
    if (args->attr->scale == 1.0) return; // the usual case, exactly
    for (int64_t i = 0; i < n; i += VL)
        act_store_n(values + i, act_load_n(values + i, n - i) * scale, n - i);
}

void MM_KERNEL(lora_forward)(const mm_op_args *args)
{
    const mm_op_attr *attr = args->attr;
    const mm_workspace *work = &args->pass->work;
    const int64_t T = args->pass->batch->n_tokens;
    const int64_t K = attr->n_in;
    const int64_t R = attr->rank;
    act *h = args->out[1]; /* (T, rank) */
    size_t bytes;
    const lora_scratch scratch = scratch_of(attr, work->shared, T, &bytes);
    MM_ASSERT(args->out[0] == args->in[1]);
    op_gemm(work, T, R, K, input_of(args, &scratch), (matrix){args->param[0], 1, K, true},
            (target){h, R, false, false});
    scale_values(args, h, T * R);
    op_gemm(work, T, attr->count, R, (matrix){h, R, 1, false}, (matrix){args->param[1], 1, R, true},
            gemm_at((target){args->out[0], attr->n_out, false, true}, 0, attr->first));
}

void MM_KERNEL(lora_backward)(const mm_op_args *args)
{
    const mm_op_attr *attr = args->attr;
    const mm_workspace *work = &args->pass->work;
    const int64_t T = args->pass->batch->n_tokens;
    const int64_t K = attr->n_in;
    const int64_t N = attr->count;
    const int64_t R = attr->rank;
    size_t bytes;
    const lora_scratch scratch = scratch_of(attr, work->shared, T, &bytes);
    const matrix dy =
        gemm_from((matrix){args->d_out, attr->n_out, 1, args->d_out_is_real}, 0, attr->first);
    const matrix dy_turned = {dy.data, 1, attr->n_out, dy.is_real};
    const matrix dh = {scratch.low, R, 1, false};
    op_gemm(work, N, R, T, dy_turned, (matrix){args->out[1], R, 1, false},
            (target){args->d_param[1], R, true, true});
    op_gemm(work, T, R, N, dy, (matrix){args->param[1], R, 1, true},
            (target){scratch.low, R, false, false});
    scale_values(args, scratch.low, T * R);
    op_gemm(work, R, K, T, (matrix){scratch.low, 1, R, false}, input_of(args, &scratch),
            (target){args->d_param[0], K, true, true});
    if (!args->d_in[0]) return; // nothing below trains
    const matrix a = {args->param[0], K, 1, true};
    if (!is_dropped(args)) {
        op_gemm(work, T, K, R, dh, a, (target){args->d_in[0], K, false, args->d_in_add[0]});
        return;
    }
    op_gemm(work, T, K, R, dh, a, (target){scratch.wide, K, false, false});
    apply_mask(args, scratch.wide, args->d_in[0], args->d_in_add[0]);
}

mm_op_need MM_KERNEL(lora_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    mm_op_need need = op_gemm_need();
    const size_t mask_bytes = (size_t)attr->n_in * sizeof(real);
    if (need.thread_bytes < mask_bytes) need.thread_bytes = mask_bytes;
    scratch_of(attr, NULL, max_tokens, &need.shared_bytes);
    return need;
}
