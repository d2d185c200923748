/* Passes: checks a batch and runs the steps of the graph over it.
 *
 * The subtle rules: everything an operation may read beyond its tensors is in mm_pass, prepared by
 * prepare_batch before the first step. In bf16 the products run on packed copies of the weights,
 * which are made again before the first pass after a change. What a forward in two parts keeps lies
 * where every other pass writes: `pending` says whose activations those are.
 */
#include "core/nn/engine_parts.h"

#include "core/base/clock.h"

#include <math.h>
#include <string.h>

// The batch comes from data: every bound is checked before a kernel indexes with it.
static mm_status check_batch(const mm_engine *engine, const mm_batch *batch, mm_err *err)
{
    const int32_t V = mm_model_config_of(engine->model)->vocab_size;
    const int64_t longest = mm_model_config_of(engine->model)->max_position_embeddings;
    if (batch->n_tokens < 1 || batch->n_tokens > engine->options.max_tokens)
        return MM_FAIL(err, MM_ELIMIT, "batch of %d tokens: expected 1 to %d", (int)batch->n_tokens,
                       (int)engine->options.max_tokens);
    if (batch->n_segments < 1 || batch->n_segments > engine->options.max_segments)
        return MM_FAIL(err, MM_ELIMIT, "batch of %d segments: expected 1 to %d",
                       (int)batch->n_segments, (int)engine->options.max_segments);
    const int32_t *bounds = batch->segments;
    if (bounds[0] != 0 || bounds[batch->n_segments] != batch->n_tokens)
        return MM_FAIL(err, MM_EFORMAT, "segments run from %d to %d: expected 0 to %d",
                       (int)bounds[0], (int)bounds[batch->n_segments], (int)batch->n_tokens);
    for (int32_t s = 0; s < batch->n_segments; s++) {
        if (bounds[s + 1] <= bounds[s])
            return MM_FAIL(err, MM_EFORMAT,
                           "segment %d runs from %d to %d: expected a rising bound", (int)s,
                           (int)bounds[s], (int)bounds[s + 1]);
        if (bounds[s + 1] - bounds[s] > longest)
            return MM_FAIL(err, MM_ELIMIT,
                           "segment %d has %d tokens: the model has positions for %lld", (int)s,
                           (int)(bounds[s + 1] - bounds[s]), (long long)longest);
    }
    for (int32_t t = 0; t < batch->n_tokens; t++) {
        if (batch->tokens[t] < 0 || batch->tokens[t] >= V)
            return MM_FAIL(err, MM_EFORMAT, "token %d of the batch is %d: expected 0 to %d", (int)t,
                           (int)batch->tokens[t], (int)V - 1);
        const int32_t label = batch->labels[t];
        if (label != MM_LABEL_IGNORE && (label < 0 || label >= V))
            return MM_FAIL(err, MM_EFORMAT,
                           "label %d of the batch is %d: expected 0 to %d, or %d for none", (int)t,
                           (int)label, (int)V - 1, MM_LABEL_IGNORE);
    }
    return MM_OK;
}

static const void *packed_of(const mm_engine *engine, int32_t op)
{
    if (mm_engine_packed_bytes(engine->graph, engine->backend, op) == 0) return NULL;
    return engine->packed + engine->packed_at[op];
}

static void pack_weights(mm_engine *engine, const mm_workspace *work)
{
    if (!engine->packed || engine->is_packed) return;
    const int64_t start_ns = mm_mono_ns();
    for (int32_t i = 0; i < engine->graph->n_ops; i++) {
        const mm_graph_op *op = &engine->graph->ops[i];
        if (mm_engine_packed_bytes(engine->graph, engine->backend, i) == 0) continue;
        engine->backend->pack_weight(work, mm_engine_data(engine, op->param[0]), op->attr.n_in,
                                     op->attr.n_out, engine->graph->is_training,
                                     engine->packed + engine->packed_at[i]);
    }
    engine->is_packed = true;
    const double n = (double)engine->table.n_elements;
    mm_profile_add(engine->profile, "pack", "update", false, mm_mono_ns() - start_ns, 0,
                   n * 2 * (double)(engine->backend->real_bytes + engine->backend->act_bytes));
}

void mm_engine_reload(mm_engine *engine)
{
    engine->is_packed = false;
    engine->pending = (mm_engine_pending){0};
}

static mm_status prepare_batch(mm_engine *engine, const mm_batch *batch, mm_pass *pass, mm_err *err)
{
    MM_TRY(check_batch(engine, batch, err));
    engine->pending = (mm_engine_pending){0};
    const int32_t width = engine->backend->query_block;
    int64_t n_blocks = 0;
    for (int32_t s = 0; s < batch->n_segments; s++) {
        const int32_t begin = batch->segments[s];
        const int32_t end = batch->segments[s + 1];
        for (int32_t t = begin; t < end; t++)
            engine->positions[t] = t - begin;
        for (int32_t t = begin; t < end; t += width)
            engine->query_blocks[n_blocks++] =
                (mm_query_block){begin, t, end - t < width ? end : t + width};
    }
    pass->batch = batch;
    pass->positions = engine->positions;
    pass->query_blocks = engine->query_blocks;
    pass->n_query_blocks = n_blocks;
    pass->rope_cos = engine->rope_cos;
    pass->rope_sin = engine->rope_sin;
    pass->seed = engine->options.seed;
    pass->work = (mm_workspace){engine->pool, engine->shared, engine->thread_scratch,
                                engine->need.thread_bytes};
    pack_weights(engine, &pass->work);
    return MM_OK;
}

static void *grad_of(const mm_engine *engine, int32_t tensor)
{
    return tensor == MM_NONE ? NULL : mm_engine_data(engine, engine->graph->tensors[tensor].grad);
}

static mm_op_args forward_args(const mm_engine *engine, const mm_pass *pass, int32_t index)
{
    const mm_graph_op *op = &engine->graph->ops[index];
    mm_op_args args = {.pass = pass, .attr = &op->attr, .packed = packed_of(engine, index)};
    for (int i = 0; i < MM_OP_MAX_IN; i++)
        args.in[i] = mm_engine_data(engine, op->in[i]);
    for (int i = 0; i < MM_OP_MAX_OUT; i++)
        args.out[i] = mm_engine_data(engine, op->out[i]);
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        args.param[i] = mm_engine_data(engine, op->param[i]);
    return args;
}

static mm_op_args backward_args(const mm_engine *engine, const mm_pass *pass,
                                const mm_graph_step *step)
{
    const mm_graph_op *op = &engine->graph->ops[step->op];
    mm_op_args args = forward_args(engine, pass, step->op);
    if (step->again != MM_NONE) args.in[0] = mm_engine_data(engine, step->again);
    if (op->out[0] != MM_NONE) {
        const int32_t d_out = engine->graph->tensors[op->out[0]].grad;
        args.d_out = mm_engine_data(engine, d_out);
        args.d_out_is_real = engine->graph->tensors[d_out].is_real;
    }
    for (int i = 0; i < MM_OP_MAX_IN; i++) {
        args.d_in[i] = grad_of(engine, op->in[i]);
        args.d_in_add[i] = step->d_in_add[i];
    }
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        args.d_param[i] = grad_of(engine, op->param[i]);
    return args;
}

// A sum that was added up in forward is there: only its norm is made again.
static mm_op_args again_args(const mm_engine *engine, const mm_pass *pass,
                             const mm_graph_step *step)
{
    mm_op_args args = forward_args(engine, pass, step->op);
    args.out[0] = mm_engine_data(engine, step->again);
    if (engine->graph->ops[step->op].kind == MM_OP_ADD_RMSNORM) {
        args.in[0] = args.out[2];
        args.in[1] = NULL;
    }
    return args;
}

static void run_step(const mm_engine *engine, const mm_pass *pass, int32_t index)
{
    const mm_graph_step *step = &engine->graph->steps[index];
    const mm_op_slot *slot = &engine->backend->ops[engine->graph->ops[step->op].kind];
    const int64_t start_ns = engine->profile ? mm_mono_ns() : 0;
    if (step->kind == MM_STEP_BACKWARD) {
        const mm_op_args args = backward_args(engine, pass, step);
        slot->backward(&args);
    } else {
        const mm_op_args args = step->kind == MM_STEP_AGAIN ? again_args(engine, pass, step)
                                                            : forward_args(engine, pass, step->op);
        slot->forward(&args);
    }
    if (engine->profile)
        mm_profile_step(engine->profile, engine->graph, step, pass->batch, mm_mono_ns() - start_ns);
}

static void run_steps(const mm_engine *engine, const mm_pass *pass, int32_t begin, int32_t end)
{
    for (int32_t s = begin; s < end; s++)
        run_step(engine, pass, s);
}

// Every step but the forward of the head, which its backward does too.
static void run_both_ways(const mm_engine *engine, const mm_pass *pass)
{
    run_steps(engine, pass, 0, engine->graph->n_ops - 1);
    run_steps(engine, pass, engine->graph->n_ops, engine->graph->n_steps);
}

// The whole forward. `pass` holds what the caller wants of it.
static mm_status run_forward(mm_engine *engine, const mm_batch *batch, mm_pass *pass, mm_err *err)
{
    *pass->loss = (mm_loss){0};
    MM_TRY(prepare_batch(engine, batch, pass, err));
    if (pass->logprobs) memset(pass->logprobs, 0, (size_t)batch->n_tokens * sizeof(double));
    run_steps(engine, pass, 0, engine->graph->n_ops);
    return MM_OK;
}

mm_status mm_engine_eval(mm_engine *engine, const mm_batch *batch, mm_loss *loss, mm_err *err)
{
    mm_pass pass = {.loss = loss};
    return run_forward(engine, batch, &pass, err);
}

mm_status mm_engine_logprobs(mm_engine *engine, const mm_batch *batch, double *logprobs,
                             mm_err *err)
{
    mm_loss loss;
    mm_pass pass = {.loss = &loss, .logprobs = logprobs};
    return run_forward(engine, batch, &pass, err);
}

mm_status mm_engine_backward(mm_engine *engine, const mm_batch *batch, double loss_scale,
                             uint64_t micro_step, mm_loss *loss, mm_err *err)
{
    MM_ASSERT(engine->options.training);
    mm_pass pass = {
        .loss = loss, .loss_scale = loss_scale, .micro_step = micro_step, .dropout_on = true};
    *loss = (mm_loss){0};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    run_both_ways(engine, &pass);
    return MM_OK;
}

mm_status mm_engine_forward(mm_engine *engine, const mm_batch *batch, uint64_t micro_step,
                            double *logprobs, mm_loss *loss, mm_err *err)
{
    MM_ASSERT(engine->options.training);
    mm_pass pass = {
        .loss = loss, .logprobs = logprobs, .micro_step = micro_step, .dropout_on = true};
    MM_TRY(run_forward(engine, batch, &pass, err));
    engine->pending = (mm_engine_pending){batch->tokens, batch->n_tokens, micro_step};
    return MM_OK;
}

mm_status mm_engine_backward_weighted(mm_engine *engine, const mm_batch *batch,
                                      const double *weights, double loss_scale, uint64_t micro_step,
                                      mm_err *err)
{
    MM_ASSERT(engine->options.training);
    const mm_engine_pending pending = engine->pending;
    if (!pending.tokens || pending.tokens != batch->tokens || pending.n_tokens != batch->n_tokens ||
        pending.micro_step != micro_step)
        return MM_FAIL(err, MM_EUSAGE,
                       "weighted backward of %d tokens, micro-step %llu: expected the forward of "
                       "the same batch just before it",
                       (int)batch->n_tokens, (unsigned long long)micro_step);
    mm_loss loss = {0};
    mm_pass pass = {.loss = &loss,
                    .weights = weights,
                    .loss_scale = loss_scale,
                    .micro_step = micro_step,
                    .dropout_on = true};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    run_steps(engine, &pass, engine->graph->n_ops, engine->graph->n_steps);
    return MM_OK;
}

static mm_status check_teacher(const mm_engine *engine, const mm_teacher *teacher, mm_err *err)
{
    static const char *const NAMES[] = {[MM_F32] = "fp32", [MM_F64] = "fp64", [MM_BF16] = "bf16"};
    MM_ASSERT(teacher->engine != engine);
    const int32_t V = mm_model_config_of(engine->model)->vocab_size;
    const int32_t teacher_V = mm_model_config_of(teacher->engine->model)->vocab_size;
    if (teacher->engine->backend != engine->backend)
        return MM_FAIL(err, MM_EUSAGE, "teacher computes in %s: expected %s as the student",
                       NAMES[teacher->engine->backend->dtype], NAMES[engine->backend->dtype]);
    if (teacher_V < V)
        return MM_FAIL(err, MM_EUSAGE,
                       "teacher has a vocabulary of %d: expected at least the %d "
                       "of the student",
                       (int)teacher_V, (int)V);
    if (!(teacher->alpha >= 0 && teacher->alpha <= 1))
        return MM_FAIL(err, MM_ECONFIG, "share of the cross entropy %g: expected 0 to 1",
                       teacher->alpha);
    if (!(teacher->temperature > 0 && isfinite(teacher->temperature)))
        return MM_FAIL(err, MM_ECONFIG, "temperature %g: expected more than 0",
                       teacher->temperature);
    return MM_OK;
}

mm_status mm_engine_distill(mm_engine *engine, const mm_teacher *teacher, const mm_batch *batch,
                            double loss_scale, uint64_t micro_step, mm_distill_loss *loss,
                            mm_err *err)
{
    MM_ASSERT(engine->options.training);
    mm_engine *other = teacher->engine;
    mm_pass other_pass = {0};
    mm_loss cross_entropy = {0};
    *loss = (mm_distill_loss){0};
    MM_TRY(check_teacher(engine, teacher, err));
    const int32_t other_head = other->graph->n_ops - 1;
    mm_op_teacher source = {.alpha = teacher->alpha, .temperature = teacher->temperature};
    mm_pass pass = {.loss = &cross_entropy,
                    .teacher = &source,
                    .loss_scale = loss_scale,
                    .micro_step = micro_step,
                    .dropout_on = true};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    const mm_status status = prepare_batch(other, batch, &other_pass, err);
    if (status != MM_OK) {
        mm_err_context(err, "teacher");
        return status;
    }
    run_steps(other, &other_pass, 0, other_head);
    const mm_op_args head = forward_args(other, &other_pass, other_head);
    source.head = &head;
    run_both_ways(engine, &pass);
    *loss = (mm_distill_loss){cross_entropy.sum, source.divergence, cross_entropy.count};
    return MM_OK;
}

mm_status mm_engine_logits(mm_engine *engine, const mm_batch *batch, void *out, mm_err *err)
{
    mm_pass pass = {0};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    const mm_graph_op *head = &engine->graph->ops[engine->graph->n_ops - 1];
    for (int32_t s = 0; s < engine->graph->n_ops - 1; s++)
        run_step(engine, &pass, s);
    const int64_t C = head->attr.n_in;
    const int64_t V = head->attr.n_out;
    const mm_backend *backend = engine->backend;
    const mm_matrix hidden = {mm_engine_data(engine, head->in[0]), C, 1, false};
    const mm_target logits = {out, V, true, false};
    const void *packed = packed_of(engine, engine->graph->n_ops - 1);
    if (packed) {
        backend->gemm_weight(&pass.work, batch->n_tokens, C, V, hidden, packed, logits);
    } else {
        backend->gemm(&pass.work, batch->n_tokens, V, C, hidden,
                      (mm_matrix){mm_engine_data(engine, head->param[0]), 1, C, true}, logits);
    }
    return MM_OK;
}
