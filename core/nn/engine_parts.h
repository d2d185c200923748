/* The engine's own state, shared by the three files that are the engine: engine.c owns the memory,
 * engine_pass.c runs batches through the graph, engine_update.c changes the weights. Internal to
 * core/nn. */
#ifndef MM_NN_ENGINE_PARTS_H
#define MM_NN_ENGINE_PARTS_H

#include "core/nn/engine.h"
#include "core/nn/graph.h"
#include "core/nn/ops.h"
#include "core/nn/pool.h"
#include "core/nn/profile.h"

/* A piece of one tensor that trains. */
typedef struct mm_engine_span {
    int64_t offset; /* in the model's block */
    int64_t count;
    int32_t tensor;
} mm_engine_span;

/* The forward in two parts whose activations are kept; no tokens: none. */
typedef struct mm_engine_pending {
    const int32_t *tokens;
    int32_t n_tokens;
    uint64_t micro_step;
} mm_engine_pending;

struct mm_engine {
    mm_model *model;
    mm_engine_options options;
    const mm_backend *backend;
    mm_model_table table;
    mm_graph *graph;
    mm_pool *pool;
    void *blocks[MM_CLASS_COUNT]; /* PARAM is the model's */
    char *packed;                 /* weights in the order of the matrix kernel, NULL in fp32 */
    size_t *packed_at;            /* by operation, where its weight begins */
    bool is_packed;               /* the copies are of the present weights */
    mm_profile *profile;          /* NULL until asked for */
    void *rope_cos;
    void *rope_sin;
    int32_t *positions;
    mm_query_block *query_blocks;
    char *shared;
    char *thread_scratch;
    mm_op_need need; /* sizes of the two above */
    mm_engine_span *spans;
    double *span_squares;
    int32_t n_spans;
    mm_engine_pending pending;
};

/* First byte of a tensor's memory, NULL for MM_NONE. */
void *mm_engine_data(const mm_engine *engine, int32_t tensor);
/* Bytes of the packed copy of an operation's weight, 0 where there is none. In fp32 packing within
 * a product costs little beside the product, and the copies would cost twice the memory. */
size_t mm_engine_packed_bytes(const mm_graph *graph, const mm_backend *backend, int32_t index);

#endif
