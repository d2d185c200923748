/* The static graph: the decoder as a list of coarse operations over planned memory.
 *
 * Built once for (model configuration, token budget, training or not). The forward list is appended
 * by the model's description in graph_decoder.c; the backward list is derived from it. One table
 * describes every tensor; memory is planned once, and activations whose lives do not overlap share
 * it. Internal to core/nn. Immutable after building.
 */
#ifndef MM_NN_GRAPH_H
#define MM_NN_GRAPH_H

#include "core/nn/model_table.h"
#include "core/nn/ops.h"

typedef enum mm_class {
    MM_CLASS_PARAM = 0,  /* views into the model's block */
    MM_CLASS_GRAD,       /* same layout as the parameters that train */
    MM_CLASS_STATE,      /* first moments, then second moments, same layout each */
    MM_CLASS_ACTIVATION, /* forward values and their gradients, reused by liveness */
    MM_CLASS_COUNT
} mm_class;

enum { MM_NONE = -1 };

typedef struct mm_graph_tensor {
    char name[48];
    mm_class cls;
    int64_t rows; /* the token budget for activations */
    int64_t cols;
    int64_t offset;  /* from the start of the class's block: bytes for activations, else elements */
    bool is_real;    /* in `real`, else in `act` (ops.h); of a gradient: what its memory holds */
    int32_t grad;    /* its gradient, MM_NONE if there is none */
    int32_t storage; /* the tensor whose memory it shares; itself normally */
    bool needs_grad; /* something that trains lies before it */
    int32_t first;   /* steps between which the contents matter */
    int32_t last;
} mm_graph_tensor;

typedef struct mm_graph_op {
    mm_op_kind kind;
    mm_op_attr attr;
    int32_t in[MM_OP_MAX_IN];
    int32_t out[MM_OP_MAX_OUT];
    int32_t param[MM_OP_MAX_PARAM];
} mm_graph_op;

typedef enum mm_step_kind {
    MM_STEP_FORWARD = 0,
    MM_STEP_BACKWARD,
    MM_STEP_AGAIN /* forward once more, into another tensor, for a backward that reads it */
} mm_step_kind;

typedef struct mm_graph_step {
    int32_t op;
    mm_step_kind kind;
    int32_t again; /* AGAIN: stands for out[0]; BACKWARD: for in[0]; else MM_NONE */
    bool d_in_add[MM_OP_MAX_IN];
} mm_graph_step;

typedef struct mm_graph {
    mm_graph_tensor *tensors;
    int32_t n_tensors;
    int32_t tensor_capacity;
    mm_graph_op *ops;
    int32_t n_ops;
    int32_t op_capacity;
    mm_graph_step *steps; /* forward steps 0..n_ops-1, then backward and again */
    int32_t n_steps;
    int64_t elements[MM_CLASS_COUNT]; /* size of each class's block; bytes for activations */
    int64_t max_tokens;
    size_t real_bytes;
    size_t act_bytes;
    int32_t hidden; /* tensor that enters the head */
    bool is_training;
} mm_graph;

typedef struct mm_graph_options {
    int64_t max_tokens;
    size_t real_bytes; /* of the backend */
    size_t act_bytes;
    bool is_training;
    bool no_reuse; /* every activation gets its own memory: to test the planner */
    bool keep_all; /* nothing is made again in backward */
} mm_graph_options;

/* `table` is of the same resolved configuration. */
MM_NODISCARD mm_status mm_graph_new(mm_graph **out, const mm_model_config *config,
                                    const mm_model_table *table, const mm_graph_options *options,
                                    mm_err *err);
void mm_graph_free(mm_graph *graph);

/* Building blocks of mm_graph_new, in the order it uses them (graph_decoder.c calls the first two).
 */
int32_t mm_graph_tensor_add(mm_graph *graph, const char *name, mm_class cls, int64_t rows,
                            int64_t cols, int64_t offset, bool is_real);
void mm_graph_op_add(mm_graph *graph, const mm_graph_op *op);
/* Appends the decoder's forward list. */
void mm_graph_decoder_build(mm_graph *graph, const mm_model_config *config,
                            const mm_model_table *table);

#endif
