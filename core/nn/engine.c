/* The engine: owns the blocks of memory, checks a batch, runs the steps of the graph, updates the
 * weights.
 *
 * Threads: the caller and the pool's workers inside an operation; nothing runs between calls.
 * The subtle rule: everything an operation may read beyond its tensors is in mm_pass, prepared by
 * prepare_batch before the first step.
 */
#include "core/nn/engine.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/nn/graph.h"
#include "core/nn/ops.h"
#include "core/nn/pool.h"

#include <math.h>
#include <string.h>

enum {
    SPAN_ELEMENTS =
        1 << 15, // of one work item of the optimizer: three reads and four writes stay in cache
    SHARED_ALIGNMENT = 64
};

// A piece of one tensor in the flat block.
typedef struct span {
    int64_t offset;
    int64_t count;
    int32_t tensor;
} span;

struct mm_engine {
    mm_model *model;
    mm_engine_options options;
    const mm_backend *backend;
    mm_model_table table;
    mm_graph *graph;
    mm_pool *pool;
    void *blocks[MM_CLASS_COUNT]; // PARAM is the model's
    void *rope_cos;
    void *rope_sin;
    int32_t *positions;
    mm_query_block *query_blocks;
    char *shared;
    char *thread_scratch;
    mm_op_need need; // sizes of the two above
    span *spans;
    double *span_squares;
    int32_t n_spans;
};

// What mm_engine_new allocates, in bytes.
typedef struct engine_sizes {
    int64_t rope_positions;
    int64_t max_query_blocks;
    int64_t n_spans;
    mm_op_need need;
    size_t thread_total;
    size_t total;
} engine_sizes;

static int64_t spans_of(const mm_model_table *table)
{
    int64_t n = 0;
    for (int32_t i = 0; i < table->n_tensors; i++)
        n += (table->tensors[i].count + SPAN_ELEMENTS - 1) / SPAN_ELEMENTS;
    return n;
}

static size_t round_bytes(size_t bytes)
{
    return (bytes + SHARED_ALIGNMENT - 1) / SHARED_ALIGNMENT * SHARED_ALIGNMENT;
}

static mm_op_need scratch_of(const mm_graph *graph, const mm_backend *backend)
{
    mm_op_need most = {0};
    for (int32_t i = 0; i < graph->n_ops; i++) {
        const mm_op_need need =
            backend->ops[graph->ops[i].kind].need(&graph->ops[i].attr, graph->max_tokens);
        if (need.shared_bytes > most.shared_bytes) most.shared_bytes = need.shared_bytes;
        if (need.thread_bytes > most.thread_bytes) most.thread_bytes = need.thread_bytes;
    }
    most.shared_bytes = round_bytes(most.shared_bytes);
    most.thread_bytes = round_bytes(most.thread_bytes);
    return most;
}

static engine_sizes sizes_of(const mm_graph *graph, const mm_model_config *config,
                             const mm_model_table *table, const mm_backend *backend,
                             const mm_engine_options *options)
{
    engine_sizes sizes = {0};
    const int64_t positions = config->max_position_embeddings;
    sizes.rope_positions = positions < options->max_tokens ? positions : options->max_tokens;
    sizes.max_query_blocks = options->max_tokens / MM_OP_QUERY_BLOCK + options->max_segments;
    sizes.n_spans = spans_of(table);
    sizes.need = scratch_of(graph, backend);
    sizes.thread_total = (size_t)options->threads * sizes.need.thread_bytes;
    size_t elements = (size_t)(sizes.rope_positions * config->head_dim);
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++)
        elements += (size_t)graph->elements[cls];
    sizes.total = elements * backend->element_bytes + sizes.need.shared_bytes + sizes.thread_total +
                  (size_t)options->max_tokens * sizeof(int32_t) +
                  (size_t)sizes.max_query_blocks * sizeof(mm_query_block) +
                  (size_t)sizes.n_spans * (sizeof(span) + sizeof(double));
    return sizes;
}

static mm_status resolve_options(mm_engine_options *options, mm_err *err)
{
    if (options->max_tokens < 1 || options->max_tokens > MM_OP_MAX_TOKENS)
        return MM_FAIL(err, MM_ECONFIG, "tokens per batch %d: expected 1 to %d",
                       (int)options->max_tokens, MM_OP_MAX_TOKENS);
    if (options->max_segments < 0 || options->max_segments > options->max_tokens)
        return MM_FAIL(err, MM_ECONFIG,
                       "segments per batch %d: expected 0 to the %d tokens of a batch",
                       (int)options->max_segments, (int)options->max_tokens);
    if (options->max_segments == 0) options->max_segments = options->max_tokens;
    if (options->threads == 0) options->threads = mm_cpu_count();
    return MM_OK;
}

static mm_status allocate(void **out, size_t bytes, const char *what, mm_err *err)
{
    *out = mm_alloc_aligned(bytes);
    if (*out) return MM_OK;
    return MM_FAIL(err, MM_ENOMEM, "%s: no memory for %zu MB", what, bytes >> 20);
}

static void fill_spans(mm_engine *engine)
{
    for (int32_t i = 0; i < engine->table.n_tensors; i++) {
        const mm_tensor *tensor = &engine->table.tensors[i];
        for (int64_t at = 0; at < tensor->count; at += SPAN_ELEMENTS) {
            const int64_t left = tensor->count - at;
            engine->spans[engine->n_spans++] =
                (span){tensor->offset + at, left < SPAN_ELEMENTS ? left : SPAN_ELEMENTS, i};
        }
    }
}

static mm_status allocate_all(mm_engine *engine, const engine_sizes *sizes,
                              const mm_model_config *config, mm_err *err)
{
    static const char *const NAMES[MM_CLASS_COUNT] = {"parameters", "gradients", "optimizer state",
                                                      "activations"};
    const size_t element = engine->backend->element_bytes;
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++) {
        const size_t bytes = (size_t)engine->graph->elements[cls] * element;
        if (bytes > 0) MM_TRY(allocate(&engine->blocks[cls], bytes, NAMES[cls], err));
    }
    engine->blocks[MM_CLASS_PARAM] = mm_model_data(engine->model, NULL);
    const size_t table_bytes = (size_t)(sizes->rope_positions * (config->head_dim / 2)) * element;
    MM_TRY(allocate(&engine->rope_cos, table_bytes, "rotary table", err));
    MM_TRY(allocate(&engine->rope_sin, table_bytes, "rotary table", err));
    void *block = NULL;
    MM_TRY(
        allocate(&block, (size_t)engine->options.max_tokens * sizeof(int32_t), "positions", err));
    engine->positions = block;
    MM_TRY(allocate(&block, (size_t)sizes->max_query_blocks * sizeof(mm_query_block),
                    "query blocks", err));
    engine->query_blocks = block;
    MM_TRY(allocate(&block, sizes->need.shared_bytes, "scratch", err));
    engine->shared = block;
    MM_TRY(allocate(&block, sizes->thread_total, "scratch of the threads", err));
    engine->thread_scratch = block;
    MM_TRY(allocate(&block, (size_t)sizes->n_spans * sizeof(span), "spans", err));
    engine->spans = block;
    MM_TRY(allocate(&block, (size_t)sizes->n_spans * sizeof(double), "spans", err));
    engine->span_squares = block;
    engine->need = sizes->need;
    return MM_OK;
}

mm_status mm_engine_new(mm_engine **out, mm_model *model, const mm_engine_options *options,
                        mm_err *err)
{
    mm_status status = MM_OK;
    *out = NULL;
    const mm_model_config *config = mm_model_config_of(model);
    mm_engine *engine = mm_calloc(1, sizeof *engine);
    if (!engine) return MM_FAIL(err, MM_ENOMEM, "engine");
    engine->model = model;
    engine->options = *options;
    engine->backend = mm_backend_of(mm_model_dtype(model));
    MM_GO(resolve_options(&engine->options, err));
    MM_GO(mm_model_table_new(&engine->table, config, err));
    const mm_graph_options graph_options = {.max_tokens = engine->options.max_tokens,
                                            .is_training = engine->options.training};
    MM_GO(mm_graph_new(&engine->graph, config, &engine->table, &graph_options, err));
    MM_GO(mm_pool_new(&engine->pool, engine->options.threads, err));
    const engine_sizes sizes =
        sizes_of(engine->graph, config, &engine->table, engine->backend, &engine->options);
    MM_GO(allocate_all(engine, &sizes, config, err));
    engine->backend->rope_tables(engine->rope_cos, engine->rope_sin, sizes.rope_positions,
                                 config->head_dim, config->rope_theta);
    fill_spans(engine);
    *out = engine;
    engine = NULL;
done:
    mm_engine_free(engine);
    return status;
}

void mm_engine_free(mm_engine *engine)
{
    if (!engine) return;
    mm_pool_free(engine->pool);
    mm_free(engine->span_squares);
    mm_free(engine->spans);
    mm_free(engine->thread_scratch);
    mm_free(engine->shared);
    mm_free(engine->query_blocks);
    mm_free(engine->positions);
    mm_free(engine->rope_sin);
    mm_free(engine->rope_cos);
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++)
        mm_free(engine->blocks[cls]);
    mm_graph_free(engine->graph);
    mm_model_table_drop(&engine->table);
    mm_free(engine);
}

int64_t mm_engine_bytes(const mm_model_config *config, mm_dtype dtype,
                        const mm_engine_options *options)
{
    int64_t bytes = -1;
    mm_model_config resolved = *config;
    mm_engine_options all = *options;
    mm_model_table table = {0};
    mm_graph *graph = NULL;
    if (mm_model_config_resolve(&resolved, NULL) != MM_OK) return -1;
    if (resolve_options(&all, NULL) != MM_OK) return -1;
    const mm_graph_options graph_options = {.max_tokens = all.max_tokens,
                                            .is_training = all.training};
    if (mm_model_table_new(&table, &resolved, NULL) == MM_OK &&
        mm_graph_new(&graph, &resolved, &table, &graph_options, NULL) == MM_OK)
        bytes = (int64_t)sizes_of(graph, &resolved, &table, mm_backend_of(dtype), &all).total;
    mm_graph_free(graph);
    mm_model_table_drop(&table);
    return bytes;
}

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

static mm_status prepare_batch(mm_engine *engine, const mm_batch *batch, mm_pass *pass, mm_err *err)
{
    MM_TRY(check_batch(engine, batch, err));
    int64_t n_blocks = 0;
    for (int32_t s = 0; s < batch->n_segments; s++) {
        const int32_t begin = batch->segments[s];
        const int32_t end = batch->segments[s + 1];
        for (int32_t t = begin; t < end; t++)
            engine->positions[t] = t - begin;
        for (int32_t t = begin; t < end; t += MM_OP_QUERY_BLOCK)
            engine->query_blocks[n_blocks++] = (mm_query_block){
                begin, t, end - t < MM_OP_QUERY_BLOCK ? end : t + MM_OP_QUERY_BLOCK};
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
    return MM_OK;
}

static void *data_of(const mm_engine *engine, int32_t tensor)
{
    if (tensor == MM_NONE) return NULL;
    const mm_graph_tensor *entry = &engine->graph->tensors[tensor];
    return (char *)engine->blocks[entry->cls] +
           (size_t)entry->offset * engine->backend->element_bytes;
}

static void *grad_of(const mm_engine *engine, int32_t tensor)
{
    return tensor == MM_NONE ? NULL : data_of(engine, engine->graph->tensors[tensor].grad);
}

static void run_step(const mm_engine *engine, const mm_pass *pass, int32_t index)
{
    const mm_graph_step *step = &engine->graph->steps[index];
    const mm_graph_op *op = &engine->graph->ops[step->op];
    mm_op_args args = {.pass = pass, .attr = &op->attr};
    for (int i = 0; i < MM_OP_MAX_IN; i++)
        args.in[i] = data_of(engine, op->in[i]);
    for (int i = 0; i < MM_OP_MAX_OUT; i++)
        args.out[i] = data_of(engine, op->out[i]);
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        args.param[i] = data_of(engine, op->param[i]);
    const mm_op_slot *slot = &engine->backend->ops[op->kind];
    if (!step->is_backward) {
        slot->forward(&args);
        return;
    }
    args.d_out = grad_of(engine, op->out[0]);
    for (int i = 0; i < MM_OP_MAX_IN; i++) {
        args.d_in[i] = grad_of(engine, op->in[i]);
        args.d_in_add[i] = step->d_in_add[i];
    }
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        args.d_param[i] = grad_of(engine, op->param[i]);
    slot->backward(&args);
}

mm_status mm_engine_eval(mm_engine *engine, const mm_batch *batch, mm_loss *loss, mm_err *err)
{
    mm_pass pass = {.loss = loss};
    *loss = (mm_loss){0};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    for (int32_t s = 0; s < engine->graph->n_ops; s++)
        run_step(engine, &pass, s);
    return MM_OK;
}

mm_status mm_engine_backward(mm_engine *engine, const mm_batch *batch, double loss_scale,
                             uint64_t micro_step, mm_loss *loss, mm_err *err)
{
    MM_ASSERT(engine->options.training);
    mm_pass pass = {
        .loss = loss, .loss_scale = loss_scale, .micro_step = micro_step, .dropout_on = true};
    *loss = (mm_loss){0};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    // The head's backward computes the loss too: its forward is the one step left out.
    for (int32_t s = 0; s < engine->graph->n_steps; s++)
        if (s != engine->graph->n_ops - 1) run_step(engine, &pass, s);
    return MM_OK;
}

mm_status mm_engine_logits(mm_engine *engine, const mm_batch *batch, void *out, mm_err *err)
{
    mm_pass pass = {0};
    MM_TRY(prepare_batch(engine, batch, &pass, err));
    const mm_graph_op *head = &engine->graph->ops[engine->graph->n_ops - 1];
    for (int32_t s = 0; s < engine->graph->n_ops - 1; s++)
        run_step(engine, &pass, s);
    const mm_op_args args = {.pass = &pass,
                             .attr = &head->attr,
                             .in = {data_of(engine, head->in[0])},
                             .param = {data_of(engine, head->param[0])},
                             .out = {out}};
    engine->backend->ops[MM_OP_LINEAR].forward(&args);
    return MM_OK;
}

static char *element(const mm_engine *engine, mm_class cls, int64_t index)
{
    return (char *)engine->blocks[cls] + (size_t)index * engine->backend->element_bytes;
}

static void squares_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    mm_engine *engine = context;
    const span *piece = &engine->spans[item];
    engine->span_squares[item] =
        engine->backend->sum_squares(element(engine, MM_CLASS_GRAD, piece->offset), piece->count);
}

typedef struct adamw_job {
    mm_engine *engine;
    mm_adamw_factors decayed;
    mm_adamw_factors kept; // for tensors without decay
} adamw_job;

static void adamw_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const adamw_job *job = context;
    const mm_engine *engine = job->engine;
    const span *piece = &engine->spans[item];
    const mm_adamw_factors *factors =
        engine->table.tensors[piece->tensor].decays ? &job->decayed : &job->kept;
    engine->backend->adamw(
        element(engine, MM_CLASS_PARAM, piece->offset),
        element(engine, MM_CLASS_GRAD, piece->offset),
        element(engine, MM_CLASS_STATE, piece->offset),
        element(engine, MM_CLASS_STATE, engine->table.n_elements + piece->offset), piece->count,
        factors);
}

// Norm of all gradients; piece by piece in table order, whatever the threads.
static mm_status gradient_norm(mm_engine *engine, double *norm, mm_err *err)
{
    mm_pool_run(engine->pool, engine->n_spans, squares_item, engine);
    double sum = 0;
    for (int32_t i = 0; i < engine->n_spans; i++) {
        if (!isfinite(engine->span_squares[i])) {
            *norm = engine->span_squares[i];
            return MM_FAIL(err, MM_ENAN,
                           "gradient of %s is not finite; the weights are left as they were",
                           engine->table.tensors[engine->spans[i].tensor].name);
        }
        sum += engine->span_squares[i];
    }
    *norm = sqrt(sum);
    return MM_OK;
}

mm_status mm_engine_step(mm_engine *engine, const mm_adamw *adamw, double *grad_norm, mm_err *err)
{
    MM_ASSERT(engine->options.training && adamw->step >= 1);
    MM_TRY(gradient_norm(engine, grad_norm, err));
    double clip = 1;
    if (adamw->grad_clip > 0) clip = fmin(1.0, adamw->grad_clip / (*grad_norm + 1e-6));
    const double t = (double)adamw->step;
    adamw_job job = {.engine = engine,
                     .decayed = {.grad_scale = clip,
                                 .keep = 1.0 - adamw->learning_rate * adamw->weight_decay,
                                 .step_size = adamw->learning_rate / (1.0 - pow(adamw->beta1, t)),
                                 .beta1 = adamw->beta1,
                                 .beta2 = adamw->beta2,
                                 .root_correction = 1.0 / sqrt(1.0 - pow(adamw->beta2, t)),
                                 .eps = adamw->eps}};
    job.kept = job.decayed;
    if (!adamw->decay_all) job.kept.keep = 1.0;
    mm_pool_run(engine->pool, engine->n_spans, adamw_item, &job);
    return MM_OK;
}

void mm_engine_zero_grad(mm_engine *engine)
{
    MM_ASSERT(engine->options.training);
    memset(engine->blocks[MM_CLASS_GRAD], 0,
           (size_t)engine->graph->elements[MM_CLASS_GRAD] * engine->backend->element_bytes);
}

void *mm_engine_grads(mm_engine *engine) { return engine->blocks[MM_CLASS_GRAD]; }

void *mm_engine_moment1(mm_engine *engine) { return engine->blocks[MM_CLASS_STATE]; }

void *mm_engine_moment2(mm_engine *engine)
{
    return engine->options.training ? element(engine, MM_CLASS_STATE, engine->table.n_elements)
                                    : NULL;
}

int32_t mm_engine_threads(const mm_engine *engine) { return mm_pool_threads(engine->pool); }

typedef struct probe_job {
    const mm_backend *backend;
    int64_t end_ns;
    double *operations; // by thread
} probe_job;

static void probe_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    enum { ROUNDS = 20000 };
    const probe_job *job = context;
    while (mm_mono_ns() < job->end_ns)
        job->operations[item] += job->backend->peak(ROUNDS);
}

double mm_engine_probe_flops(int32_t threads, int32_t ms)
{
    enum { MAX_THREADS = 1024 };
    double operations[MAX_THREADS] = {0};
    mm_pool *pool = NULL;
    if (mm_pool_new(&pool, threads, NULL) != MM_OK) return 0;
    // One item per thread: a worker that is late leaves its item to another only after the end,
    // which adds nothing.
    const int32_t n = mm_pool_threads(pool);
    probe_job job = {mm_backend_of(MM_F32), 0, operations};
    const int64_t start_ns = mm_mono_ns();
    job.end_ns = start_ns + (int64_t)ms * 1000000;
    mm_pool_run(pool, n, probe_item, &job);
    const double seconds = (double)(mm_mono_ns() - start_ns) * 1e-9;
    mm_pool_free(pool);
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += operations[i];
    return sum / seconds;
}
