/* The engine's memory: what it allocates, and how much that is.
 *
 * Threads: the caller and the pool's workers inside an operation; nothing runs between calls.
 */
#include "core/nn/engine_parts.h"

#include "core/base/mem.h"

#include <string.h>

enum {
    SPAN_ELEMENTS =
        1 << 15, // of one work item of the optimizer: three reads and four writes stay in cache
    SHARED_ALIGNMENT = 64
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
        if (table->tensors[i].trains)
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

size_t mm_engine_packed_bytes(const mm_graph *graph, const mm_backend *backend, int32_t index)
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
        sizes.packed += mm_engine_packed_bytes(graph, backend, i);
    size_t total = (size_t)(sizes.rope_positions * config->head_dim) * backend->real_bytes;
    for (int cls = MM_CLASS_GRAD; cls < MM_CLASS_COUNT; cls++)
        total += block_bytes(graph, backend, (mm_class)cls);
    sizes.total = total + sizes.packed + sizes.need.shared_bytes + sizes.thread_total +
                  (size_t)options->max_tokens * sizeof(int32_t) +
                  (size_t)sizes.max_query_blocks * sizeof(mm_query_block) +
                  (size_t)sizes.n_spans * (sizeof(mm_engine_span) + sizeof(double));
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
        if (!tensor->trains) continue;
        for (int64_t at = 0; at < tensor->count; at += SPAN_ELEMENTS) {
            const int64_t left = tensor->count - at;
            engine->spans[engine->n_spans++] = (mm_engine_span){
                tensor->offset + at, left < SPAN_ELEMENTS ? left : SPAN_ELEMENTS, i};
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
        at += mm_engine_packed_bytes(engine->graph, engine->backend, i);
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
    MM_TRY(allocate(&block, (size_t)sizes->n_spans * sizeof(mm_engine_span), "spans", err));
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

void *mm_engine_data(const mm_engine *engine, int32_t tensor)
{
    if (tensor == MM_NONE) return NULL;
    const mm_graph_tensor *entry = &engine->graph->tensors[tensor];
    const size_t unit = entry->cls == MM_CLASS_ACTIVATION ? 1 : engine->backend->real_bytes;
    return (char *)engine->blocks[entry->cls] + (size_t)entry->offset * unit;
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
