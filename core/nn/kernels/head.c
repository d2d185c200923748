/* The language-model head fused with cross entropy. Contract: core/nn/ops.h.
 *
 * HEAD_ROWS rows at a time: logits = h w^T, then along each row loss = log(sum(exp(z))) - z[label]
 * and, in backward, dz = scale (softmax(z) - onehot), which is turned at once into dh = dz w and dw
 * += dz^T h. The logits are in `real`; dz takes their memory, in `act`: row i never reaches beyond
 * the end of row i of the logits, and a row is read before it is written. A row whose label is
 * ignored has neither loss nor gradient and takes part in no product.
 */
#include "core/nn/kernels/ops.h"

enum {
    HEAD_ROWS = 384,
    CE_ROWS = 8 // rows of one work item of the softmax
};

typedef struct head_job {
    const mm_op_args *args;
    bool backward;
    int64_t n_rows;
    int32_t *rows; /* (HEAD_ROWS) positions in the batch, of those with a label */
    double *loss;  /* (HEAD_ROWS) */
    act *h;        /* (HEAD_ROWS, C) */
    act *dh;       /* (HEAD_ROWS, C) */
    real *logits;  /* (HEAD_ROWS, V) */
} head_job;

// dz may be the memory of z.
static double cross_entropy_row(real *z, act *dz, int64_t V, int32_t label, bool backward,
                                real scale)
{
    vec highest = vec_set(MINUS_INFINITY);
    for (int64_t j = 0; j < V; j += VL)
        highest = vec_max(highest, vec_load_n(z + j, V - j, MINUS_INFINITY));
    const real top = vec_highest(highest);
    vec sums = {0};
    const double picked = (double)z[label];
    for (int64_t j = 0; j < V; j += VL) {
        const vec e = vec_exp(vec_load_n(z + j, V - j, MINUS_INFINITY) - top);
        sums += e;
        if (backward) vec_store_n(z + j, e, V - j);
    }
    const real sum = vec_sum(sums);
    if (backward) {
        const real factor = scale / sum;
        z[label] -= sum;
        for (int64_t j = 0; j < V; j += VL)
            act_store_n(dz + j, vec_load_n(z + j, V - j, 0) * factor, V - j);
    }
    return log((double)sum) + (double)top - picked;
}

static void head_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const head_job *job = context;
    const int64_t V = job->args->attr->n_out;
    for (int64_t i = item * CE_ROWS; i < least((item + 1) * CE_ROWS, job->n_rows); i++) {
        real *z = job->logits + i * V;
        const int32_t label = job->args->pass->batch->labels[job->rows[i]];
        job->loss[i] = cross_entropy_row(z, (act *)(void *)z, V, label, job->backward,
                                         (real)job->args->pass->loss_scale);
    }
}

static void head_block(const head_job *job)
{
    const mm_op_args *args = job->args;
    const mm_workspace *work = &args->pass->work;
    const int64_t C = args->attr->n_in;
    const int64_t V = args->attr->n_out;
    const int64_t n = job->n_rows;
    for (int64_t i = 0; i < n; i++)
        memcpy(job->h + i * C, (const act *)args->in[0] + job->rows[i] * C,
               (size_t)C * sizeof(act));
    op_weight_forward(args, n, (matrix){job->h, C, 1, false},
                      (target){job->logits, V, true, false});
    mm_pool_run(work->pool, (n + CE_ROWS - 1) / CE_ROWS, head_item, (void *)(uintptr_t)job);
    for (int64_t i = 0; i < n; i++)
        args->pass->loss->sum += job->loss[i];
    args->pass->loss->count += n;
    if (!job->backward) return;
    const int64_t stride = V * (int64_t)(sizeof(real) / sizeof(act));
    op_weight_backward(args, n, (matrix){job->logits, stride, 1, false},
                       (target){job->dh, C, false, false});
    op_gemm(work, V, C, n, (matrix){job->logits, 1, stride, false}, (matrix){job->h, C, 1, false},
            (target){args->d_param[0], C, true, true});
    for (int64_t i = 0; i < n; i++)
        memcpy((act *)args->d_in[0] + job->rows[i] * C, job->dh + i * C, (size_t)C * sizeof(act));
}

// Hands out the next piece of a block of memory; without memory it only counts.
static void *take(char *memory, size_t *used, int64_t bytes)
{
    enum { LINE = 64 };
    void *piece = memory ? memory + *used : NULL;
    *used += (size_t)round_up(bytes, LINE);
    return piece;
}

static head_job job_of(const mm_op_args *args, char *memory, size_t *used, int64_t max_rows,
                       bool backward)
{
    const int64_t row_bytes = args->attr->n_in * (int64_t)sizeof(act);
    head_job job = {.args = args, .backward = backward};
    job.rows = take(memory, used, max_rows * (int64_t)sizeof(int32_t));
    job.loss = take(memory, used, max_rows * (int64_t)sizeof(double));
    job.h = take(memory, used, max_rows * row_bytes);
    job.dh = take(memory, used, max_rows * row_bytes);
    job.logits = take(memory, used, max_rows * args->attr->n_out * (int64_t)sizeof(real));
    return job;
}

static void head_run(const mm_op_args *args, bool backward)
{
    const mm_batch *batch = args->pass->batch;
    MM_ASSERT(!backward || !args->d_in_add[0]);
    size_t used = 0;
    head_job job =
        job_of(args, args->pass->work.shared, &used, least(HEAD_ROWS, batch->n_tokens), backward);
    for (int32_t t = 0; t < batch->n_tokens; t++) {
        if (batch->labels[t] != MM_LABEL_IGNORE) {
            job.rows[job.n_rows++] = t;
        } else if (backward) {
            memset((act *)args->d_in[0] + t * args->attr->n_in, 0,
                   (size_t)args->attr->n_in * sizeof(act));
        }
        if (job.n_rows < HEAD_ROWS && (job.n_rows == 0 || t + 1 < batch->n_tokens)) continue;
        head_block(&job);
        job.n_rows = 0;
    }
}

void MM_KERNEL(head_ce_forward)(const mm_op_args *args) { head_run(args, false); }

void MM_KERNEL(head_ce_backward)(const mm_op_args *args) { head_run(args, true); }

mm_op_need MM_KERNEL(head_ce_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    const mm_op_args args = {.attr = attr};
    mm_op_need need = op_gemm_need();
    job_of(&args, NULL, &need.shared_bytes, least(HEAD_ROWS, max_tokens), true);
    return need;
}
