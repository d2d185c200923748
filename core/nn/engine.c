/* The engine: owns the blocks of memory, checks a batch, runs the steps of the graph, updates the
 * weights.
 *
 * Threads: the caller and the pool's workers inside an operation; nothing runs between calls.
 * The subtle rules: everything an operation may read beyond its tensors is in mm_pass, prepared by
 * prepare_batch before the first step. In bf16 the products run on packed copies of the weights,
 * which are made again before the first pass after a change.
 */
#include "core/nn/engine.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/nn/graph.h"
#include "core/nn/ops.h"
#include "core/nn/pool.h"
#include "core/nn/profile.h"

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
    char *packed;                 // weights in the order of the matrix kernel, NULL in fp32
    size_t *packed_at;            // by operation, where its weight begins
    bool is_packed;               // the copies are of the present weights
    mm_profile *profile;          // NULL until asked for
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
    size_t packed;
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

static size_t block_bytes(const mm_graph *graph, const mm_backend *backend, mm_class cls)
{
    return (size_t)graph->elements[cls] * (cls == MM_CLASS_ACTIVATION ? 1 : backend->real_bytes);
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

// Of the packed copy of an operation's weight. In fp32 packing within a product costs little beside
// the product, and the copies would cost twice the memory.
static size_t packed_bytes(const mm_graph *graph, const mm_backend *backend, int32_t index)
{
    const mm_graph_op *op = &graph->ops[index];
    if (backend->dtype != MM_BF16) return 0;
    if (op->kind != MM_OP_LINEAR && op->kind != MM_OP_HEAD_CE) return 0;
    return backend->packed_bytes(op->attr.n_in, op->attr.n_out, graph->is_training);
}

static engine_sizes sizes_of(const mm_graph *graph, const mm_model_config *config,
                             const mm_model_table *table, const mm_backend *backend,
                             const mm_engine_options *options)
{
    engine_sizes sizes = {0};
    const int64_t positions = config->max_position_embeddings;
    sizes.rope_positions = positions < options->max_tokens ? positions : options->max_tokens;
    sizes.max_query_blocks = options->max_tokens / backend->query_block + options->max_segments;
    sizes.n_spans = spans_of(table);
    sizes.need = scratch_of(graph, backend);
    sizes.thread_total = (size_t)options->threads * sizes.need.thread_bytes;
    for (int32_t i = 0; i < graph->n_ops; i++)
        sizes.packed += packed_bytes(graph, backend, i);
    size_t total = (size_t)(sizes.rope_positions * config->head_dim) * backend->real_bytes;
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++)
        total += block_bytes(graph, backend, (mm_class)cls);
    sizes.total = total + sizes.packed + sizes.need.shared_bytes + sizes.thread_total +
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

static mm_status allocate_packed(mm_engine *engine, const engine_sizes *sizes, mm_err *err)
{
    if (sizes->packed == 0) return MM_OK;
    void *block = NULL;
    MM_TRY(allocate(&block, sizes->packed, "packed weights", err));
    engine->packed = block;
    const int32_t n = engine->graph->n_ops;
    MM_TRY(allocate(&block, (size_t)n * sizeof(size_t), "packed weights", err));
    engine->packed_at = block;
    size_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        engine->packed_at[i] = at;
        at += packed_bytes(engine->graph, engine->backend, i);
    }
    return MM_OK;
}

static mm_status allocate_all(mm_engine *engine, const engine_sizes *sizes,
                              const mm_model_config *config, mm_err *err)
{
    static const char *const NAMES[MM_CLASS_COUNT] = {"parameters", "gradients", "optimizer state",
                                                      "activations"};
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++) {
        const size_t bytes = block_bytes(engine->graph, engine->backend, (mm_class)cls);
        if (bytes > 0) MM_TRY(allocate(&engine->blocks[cls], bytes, NAMES[cls], err));
    }
    engine->blocks[MM_CLASS_PARAM] = mm_model_data(engine->model, NULL);
    const size_t table_bytes =
        (size_t)(sizes->rope_positions * (config->head_dim / 2)) * engine->backend->real_bytes;
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
    return allocate_packed(engine, sizes, err);
}

static mm_graph_options graph_options_of(const mm_engine_options *options,
                                         const mm_backend *backend)
{
    return (mm_graph_options){.max_tokens = options->max_tokens,
                              .real_bytes = backend->real_bytes,
                              .act_bytes = backend->act_bytes,
                              .is_training = options->training,
                              .keep_all = options->keep_all};
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
    MM_ASSERT(!options->bf16 || mm_model_dtype(model) == MM_F32);
    engine->backend = mm_backend_of(options->bf16 ? MM_BF16 : mm_model_dtype(model));
    MM_GO(resolve_options(&engine->options, err));
    MM_GO(mm_model_table_new(&engine->table, config, err));
    const mm_graph_options graph_options = graph_options_of(&engine->options, engine->backend);
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
    mm_free(engine->profile);
    mm_free(engine->packed_at);
    mm_free(engine->packed);
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
    const mm_backend *backend = mm_backend_of(dtype);
    const mm_graph_options graph_options = graph_options_of(&all, backend);
    if (mm_model_table_new(&table, &resolved, NULL) == MM_OK &&
        mm_graph_new(&graph, &resolved, &table, &graph_options, NULL) == MM_OK)
        bytes = (int64_t)sizes_of(graph, &resolved, &table, backend, &all).total;
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

static void *data_of(const mm_engine *engine, int32_t tensor)
{
    if (tensor == MM_NONE) return NULL;
    const mm_graph_tensor *entry = &engine->graph->tensors[tensor];
    const size_t unit = entry->cls == MM_CLASS_ACTIVATION ? 1 : engine->backend->real_bytes;
    return (char *)engine->blocks[entry->cls] + (size_t)entry->offset * unit;
}

static const void *packed_of(const mm_engine *engine, int32_t op)
{
    if (packed_bytes(engine->graph, engine->backend, op) == 0) return NULL;
    return engine->packed + engine->packed_at[op];
}

static void pack_weights(mm_engine *engine, const mm_workspace *work)
{
    if (!engine->packed || engine->is_packed) return;
    const int64_t start_ns = mm_mono_ns();
    for (int32_t i = 0; i < engine->graph->n_ops; i++) {
        const mm_graph_op *op = &engine->graph->ops[i];
        if (packed_bytes(engine->graph, engine->backend, i) == 0) continue;
        engine->backend->pack_weight(work, data_of(engine, op->param[0]), op->attr.n_in,
                                     op->attr.n_out, engine->graph->is_training,
                                     engine->packed + engine->packed_at[i]);
    }
    engine->is_packed = true;
    const double n = (double)engine->table.n_elements;
    mm_profile_add(engine->profile, "pack", "update", false, mm_mono_ns() - start_ns, 0,
                   n * 2 * (double)(engine->backend->real_bytes + engine->backend->act_bytes));
}

void mm_engine_reload(mm_engine *engine) { engine->is_packed = false; }

static mm_status prepare_batch(mm_engine *engine, const mm_batch *batch, mm_pass *pass, mm_err *err)
{
    MM_TRY(check_batch(engine, batch, err));
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
    return tensor == MM_NONE ? NULL : data_of(engine, engine->graph->tensors[tensor].grad);
}

static mm_op_args forward_args(const mm_engine *engine, const mm_pass *pass, int32_t index)
{
    const mm_graph_op *op = &engine->graph->ops[index];
    mm_op_args args = {.pass = pass, .attr = &op->attr, .packed = packed_of(engine, index)};
    for (int i = 0; i < MM_OP_MAX_IN; i++)
        args.in[i] = data_of(engine, op->in[i]);
    for (int i = 0; i < MM_OP_MAX_OUT; i++)
        args.out[i] = data_of(engine, op->out[i]);
    for (int i = 0; i < MM_OP_MAX_PARAM; i++)
        args.param[i] = data_of(engine, op->param[i]);
    return args;
}

static mm_op_args backward_args(const mm_engine *engine, const mm_pass *pass,
                                const mm_graph_step *step)
{
    const mm_graph_op *op = &engine->graph->ops[step->op];
    mm_op_args args = forward_args(engine, pass, step->op);
    if (step->again != MM_NONE) args.in[0] = data_of(engine, step->again);
    if (op->out[0] != MM_NONE) {
        const int32_t d_out = engine->graph->tensors[op->out[0]].grad;
        args.d_out = data_of(engine, d_out);
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
    args.out[0] = data_of(engine, step->again);
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
    const int64_t C = head->attr.n_in;
    const int64_t V = head->attr.n_out;
    const mm_backend *backend = engine->backend;
    const mm_matrix hidden = {data_of(engine, head->in[0]), C, 1, false};
    const mm_target logits = {out, V, true, false};
    const void *packed = packed_of(engine, engine->graph->n_ops - 1);
    if (packed) {
        backend->gemm_weight(&pass.work, batch->n_tokens, C, V, hidden, packed, logits);
    } else {
        backend->gemm(&pass.work, batch->n_tokens, V, C, hidden,
                      (mm_matrix){data_of(engine, head->param[0]), 1, C, true}, logits);
    }
    return MM_OK;
}

static char *element(const mm_engine *engine, mm_class cls, int64_t index)
{
    return (char *)engine->blocks[cls] + (size_t)index * engine->backend->real_bytes;
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
    const int64_t start_ns = mm_mono_ns();
    mm_pool_run(engine->pool, engine->n_spans, squares_item, engine);
    mm_profile_add(engine->profile, "grad_norm", "update", false, mm_mono_ns() - start_ns, 0,
                   (double)engine->table.n_elements * (double)engine->backend->real_bytes);
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
    const int64_t start_ns = mm_mono_ns();
    mm_pool_run(engine->pool, engine->n_spans, adamw_item, &job);
    engine->is_packed = false;
    enum { READ_AND_WRITTEN = 8 }; // weight, gradient and two moments, each way
    mm_profile_add(engine->profile, "adamw", "update", false, mm_mono_ns() - start_ns, 0,
                   (double)engine->table.n_elements * READ_AND_WRITTEN *
                       (double)engine->backend->real_bytes);
    return MM_OK;
}

void mm_engine_zero_grad(mm_engine *engine)
{
    MM_ASSERT(engine->options.training);
    memset(engine->blocks[MM_CLASS_GRAD], 0,
           (size_t)engine->graph->elements[MM_CLASS_GRAD] * engine->backend->real_bytes);
}

void *mm_engine_grads(mm_engine *engine) { return engine->blocks[MM_CLASS_GRAD]; }

void *mm_engine_moment1(mm_engine *engine) { return engine->blocks[MM_CLASS_STATE]; }

void *mm_engine_moment2(mm_engine *engine)
{
    return engine->options.training ? element(engine, MM_CLASS_STATE, engine->table.n_elements)
                                    : NULL;
}

int32_t mm_engine_threads(const mm_engine *engine) { return mm_pool_threads(engine->pool); }

void mm_engine_profile_start(mm_engine *engine)
{
    if (!engine->profile) engine->profile = mm_profile_new();
    mm_profile_clear(engine->profile);
}

int32_t mm_engine_profile(const mm_engine *engine, mm_op_profile *out, int32_t capacity)
{
    return mm_profile_copy(engine->profile, out, capacity);
}
