/* The language-model head fused with cross entropy. Contract: core/nn/ops.h.
 *
 * HEAD_ROWS rows at a time: logits = h w^T, then along each row loss = log(sum(exp(z))) - z[label]
 * and, in backward, dz = scale (softmax(z) - onehot) in place, which is turned at once into dh = dz
 * w and dw += dz^T h. A row whose label is ignored has neither loss nor gradient.
 */
#include "core/nn/kernels/ops.h"

enum {
    HEAD_ROWS = GEMM_MC,
    CE_ROWS = 8 // rows of one work item of the softmax
};

typedef struct head_job {
    const mm_op_args *args;
    int64_t first; /* row of the block */
    int64_t rows;
    bool backward;
    real *logits; /* (rows, V) */
    double *loss; /* (rows) */
} head_job;

static double cross_entropy_row(real *z, int64_t V, int32_t label, bool backward, real scale)
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
        for (int64_t j = 0; j < V; j += VL)
            vec_store_n(z + j, vec_load_n(z + j, V - j, 0) * factor, V - j);
        z[label] -= scale;
    }
    return log((double)sum) + (double)top - picked;
}

static void head_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const head_job *job = context;
    const int64_t V = job->args->attr->n_out;
    const int32_t *labels = job->args->pass->batch->labels + job->first;
    for (int64_t i = item * CE_ROWS; i < least((item + 1) * CE_ROWS, job->rows); i++) {
        real *z = job->logits + i * V;
        if (labels[i] == MM_LABEL_IGNORE) {
            job->loss[i] = 0;
            if (job->backward) memset(z, 0, (size_t)V * sizeof(real));
            continue;
        }
        job->loss[i] =
            cross_entropy_row(z, V, labels[i], job->backward, (real)job->args->pass->loss_scale);
    }
}

static int64_t labels_in(const int32_t *labels, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += labels[i] != MM_LABEL_IGNORE;
    return count;
}

static void head_block(head_job job)
{
    const mm_op_args *args = job.args;
    const mm_workspace *work = &args->pass->work;
    const int64_t C = args->attr->n_in;
    const int64_t V = args->attr->n_out;
    const real *h = (const real *)args->in[0] + job.first * C;
    real *dh = job.backward ? (real *)args->d_in[0] + job.first * C : NULL;
    const int64_t counted = labels_in(args->pass->batch->labels + job.first, job.rows);
    if (counted == 0) {
        if (dh) memset(dh, 0, (size_t)(job.rows * C) * sizeof(real));
        return;
    }
    op_gemm(work, job.rows, V, C, (matrix){h, C, 1}, (matrix){args->param[0], 1, C}, job.logits, V,
            false);
    mm_pool_run(work->pool, (job.rows + CE_ROWS - 1) / CE_ROWS, head_item, &job);
    for (int64_t i = 0; i < job.rows; i++)
        args->pass->loss->sum += job.loss[i];
    args->pass->loss->count += counted;
    if (!job.backward) return;
    op_gemm(work, job.rows, C, V, (matrix){job.logits, V, 1}, (matrix){args->param[0], C, 1}, dh, C,
            false);
    op_gemm(work, V, C, job.rows, (matrix){job.logits, 1, V}, (matrix){h, C, 1}, args->d_param[0],
            C, true);
}

static void head_run(const mm_op_args *args, bool backward)
{
    const int64_t T = args->pass->batch->n_tokens;
    MM_ASSERT(!backward || !args->d_in_add[0]);
    double *loss = (double *)(void *)args->pass->work.shared;
    real *logits = (real *)(void *)(loss + HEAD_ROWS);
    for (int64_t first = 0; first < T; first += HEAD_ROWS)
        head_block((head_job){args, first, least(HEAD_ROWS, T - first), backward, logits, loss});
}

void MM_KERNEL(head_ce_forward)(const mm_op_args *args) { head_run(args, false); }

void MM_KERNEL(head_ce_backward)(const mm_op_args *args) { head_run(args, true); }

mm_op_need MM_KERNEL(head_ce_need)(const mm_op_attr *attr, int64_t max_tokens)
{
    const int64_t rows = least(HEAD_ROWS, max_tokens);
    mm_op_need need = op_gemm_need();
    need.shared_bytes = HEAD_ROWS * sizeof(double) + (size_t)(rows * attr->n_out) * sizeof(real);
    return need;
}
