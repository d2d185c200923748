/* The language-model head fused with its loss. Contract: core/nn/ops.h.
 *
 * HEAD_ROWS rows at a time: logits = h w^T, then along each row loss = log(sum(exp(z))) - z[label]
 * and, in backward, dz = scale (softmax(z) - onehot), which is turned at once into dh = dz w and dw
 * += dz^T h. The logits are in `real`; dz takes their memory, in `act`: row i never reaches beyond
 * the end of row i of the logits, and a row is read before it is written. A row whose label is
 * ignored has neither loss nor gradient and takes part in no product, nor has in backward one whose
 * weight is 0.
 *
 * With a teacher, whose logits t of the same rows come out of its own hidden state in its own
 * scratch, p = softmax(z / T), q = softmax(t / T):
 *   loss = alpha cross entropy + (1 - alpha) T² sum(q log(q / p))
 *   dz = scale (alpha (softmax(z) - onehot) + (1 - alpha) T (p - q))
 * Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015. Of a teacher with
 * more tokens than the student only the student's count.
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
    int32_t *rows;        /* (HEAD_ROWS) positions in the batch, of those with a label */
    double *loss;         /* (HEAD_ROWS) */
    act *h;               /* (HEAD_ROWS, C) */
    act *dh;              /* (HEAD_ROWS, C) */
    real *logits;         /* (HEAD_ROWS, V) */
    double *divergence;   /* (HEAD_ROWS), with a teacher only, as the next two */
    act *teacher_h;       /* (HEAD_ROWS, teacher's C), in the teacher's scratch */
    real *teacher_logits; /* (HEAD_ROWS, teacher's V), likewise */
} head_job;

static real highest_of(const real *z, int64_t V)
{
    vec highest = vec_set(MINUS_INFINITY);
    for (int64_t j = 0; j < V; j += VL)
        highest = vec_max(highest, vec_load_n(z + j, V - j, MINUS_INFINITY));
    return vec_highest(highest);
}

// dz may be the memory of z.
static double cross_entropy_row(real *z, act *dz, int64_t V, int32_t label, bool backward,
                                real scale)
{
    const real top = highest_of(z, V);
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

// What turns the exponentials of one row into its gradient.
typedef struct distill_factors {
    real top;
    real per_temperature;
    real ce;    /* scale alpha / sum(exp(z - top)) */
    real kl;    /* scale (1 - alpha) T / sum(exp((z - top) / T)) */
    real ratio; /* sum(exp((z - top) / T)) over the same of the teacher */
} distill_factors;

// `e` is exp((t - top of t) / T). Equal exponentials and a ratio of 1 cancel to 0, however the
// compiler contracts: equal models have no divergence and no gradient of it.
static vec distill_gradient(const distill_factors *f, vec z, vec e)
{
    const vec plain = vec_exp(z - f->top);
    const vec soft = vec_exp((z - f->top) * f->per_temperature);
    return plain * f->ce + (soft - e * f->ratio) * f->kl;
}

// dz may be the memory of z; t is overwritten. Returns the cross entropy.
static double distill_row(real *z, act *dz, real *t, int64_t V, int32_t label,
                          const mm_op_teacher *teacher, double scale, double *divergence)
{
    const real top = highest_of(z, V);
    const real teacher_top = highest_of(t, V);
    const real per_temperature = (real)(1 / teacher->temperature);
    vec plain_sums = {0};
    vec soft_sums = {0};
    vec teacher_sums = {0};
    vec products = {0}; // exp((t - top of t) / T) times T times the difference of the exponents
    for (int64_t j = 0; j < V; j += VL) {
        const vec own = vec_load_n(z + j, V - j, MINUS_INFINITY) - top;
        const vec other = vec_load_n(t + j, V - j, MINUS_INFINITY) - teacher_top;
        const vec e = vec_exp(other * per_temperature);
        plain_sums += vec_exp(own);
        soft_sums += vec_exp(own * per_temperature);
        teacher_sums += e;
        // Beyond the row and where the teacher gives 0, the difference may not be a number.
        products += vec_select(e > 0, e * (other - own), (vec){0});
        vec_store_n(t + j, e, V - j);
    }
    const real plain_sum = vec_sum(plain_sums);
    const real soft_sum = vec_sum(soft_sums);
    const real teacher_sum = vec_sum(teacher_sums);
    const double T = teacher->temperature;
    *divergence = T * (double)vec_sum(products) / (double)teacher_sum +
                  T * T * (log((double)soft_sum) - log((double)teacher_sum));
    const double loss = log((double)plain_sum) + (double)top - (double)z[label];
    const distill_factors factors = {
        .top = top,
        .per_temperature = per_temperature,
        .ce = (real)(scale * teacher->alpha / (double)plain_sum),
        .kl = (real)(scale * (1 - teacher->alpha) * T / (double)soft_sum),
        .ratio = soft_sum / teacher_sum,
    };
    const vec at_label = distill_gradient(&factors, vec_set(z[label]), vec_set(t[label])) -
                         (real)(scale * teacher->alpha);
    for (int64_t j = 0; j < V; j += VL) {
        const vec d =
            distill_gradient(&factors, vec_load_n(z + j, V - j, 0), vec_load_n(t + j, V - j, 0));
        act_store_n(dz + j, d, V - j);
    }
    act_store_n(dz + label, at_label, 1);
    return loss;
}

static void head_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const head_job *job = context;
    const mm_pass *pass = job->args->pass;
    const int64_t V = job->args->attr->n_out;
    for (int64_t i = item * CE_ROWS; i < least((item + 1) * CE_ROWS, job->n_rows); i++) {
        real *z = job->logits + i * V;
        act *dz = (act *)(void *)z;
        const int32_t row = job->rows[i];
        const int32_t label = pass->batch->labels[row];
        const double scale = pass->loss_scale * (pass->weights ? pass->weights[row] : 1);
        if (job->backward && pass->teacher) {
            real *t = job->teacher_logits + i * pass->teacher->head->attr->n_out;
            job->loss[i] =
                distill_row(z, dz, t, V, label, pass->teacher, scale, &job->divergence[i]);
        } else {
            job->loss[i] = cross_entropy_row(z, dz, V, label, job->backward, (real)scale);
        }
    }
}

static void gather(act *out, const void *from, const int32_t *rows, int64_t n, int64_t C)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(out + i * C, (const act *)from + rows[i] * C, (size_t)C * sizeof(act));
}

static void teacher_block(const head_job *job)
{
    const mm_op_args *args = job->args->pass->teacher->head;
    const int64_t C = args->attr->n_in;
    gather(job->teacher_h, args->in[0], job->rows, job->n_rows, C);
    op_weight_forward(args, job->n_rows, (matrix){job->teacher_h, C, 1, false},
                      (target){job->teacher_logits, args->attr->n_out, true, false});
}

static void add_losses(const head_job *job)
{
    const mm_pass *pass = job->args->pass;
    for (int64_t i = 0; i < job->n_rows; i++) {
        pass->loss->sum += job->loss[i];
        if (pass->logprobs) pass->logprobs[job->rows[i]] = -job->loss[i];
        if (job->backward && pass->teacher) pass->teacher->divergence += job->divergence[i];
    }
    pass->loss->count += job->n_rows;
}

static void head_block(const head_job *job)
{
    const mm_op_args *args = job->args;
    const mm_workspace *work = &args->pass->work;
    const int64_t C = args->attr->n_in;
    const int64_t V = args->attr->n_out;
    const int64_t n = job->n_rows;
    gather(job->h, args->in[0], job->rows, n, C);
    op_weight_forward(args, n, (matrix){job->h, C, 1, false},
                      (target){job->logits, V, true, false});
    if (job->backward && args->pass->teacher) teacher_block(job);
    mm_pool_run(work->pool, (n + CE_ROWS - 1) / CE_ROWS, head_item, (void *)(uintptr_t)job);
    add_losses(job);
    if (!job->backward) return;
    const int64_t stride = V * (int64_t)(sizeof(real) / sizeof(act));
    op_weight_backward(args, n, (matrix){job->logits, stride, 1, false},
                       (target){job->dh, C, false, false});
    if (args->d_param[0]) // NULL: frozen
        op_gemm(work, V, C, n, (matrix){job->logits, 1, stride, false},
                (matrix){job->h, C, 1, false}, (target){args->d_param[0], C, true, true});
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
    job.divergence = take(memory, used, max_rows * (int64_t)sizeof(double));
    job.h = take(memory, used, max_rows * row_bytes);
    job.dh = take(memory, used, max_rows * row_bytes);
    job.logits = take(memory, used, max_rows * args->attr->n_out * (int64_t)sizeof(real));
    return job;
}

// The teacher's engine planned this memory for its own head.
static void borrow_teacher(head_job *job, const mm_op_args *teacher, int64_t max_rows)
{
    size_t used = 0;
    const head_job own = job_of(teacher, teacher->pass->work.shared, &used, max_rows, false);
    job->teacher_h = own.h;
    job->teacher_logits = own.logits;
}

static void head_run(const mm_op_args *args, bool backward)
{
    const mm_pass *pass = args->pass;
    const mm_batch *batch = pass->batch;
    const int64_t max_rows = least(HEAD_ROWS, batch->n_tokens);
    MM_ASSERT(!backward || !args->d_in_add[0]);
    size_t used = 0;
    head_job job = job_of(args, pass->work.shared, &used, max_rows, backward);
    if (backward && pass->teacher) borrow_teacher(&job, pass->teacher->head, max_rows);
    for (int32_t t = 0; t < batch->n_tokens; t++) {
        const bool is_idle = backward && pass->weights && pass->weights[t] == 0;
        if (batch->labels[t] != MM_LABEL_IGNORE && !is_idle) {
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
