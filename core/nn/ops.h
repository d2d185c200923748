/* The coarse operations of the graph and the table that implements them for one backend.
 *
 * Internal to core/nn. An operation is called with one mm_op_args: which tensors play which role is
 * the contract below. Shapes: T tokens, C width, V vocabulary, H query heads, K key-value heads, D
 * head width, F feed-forward width; all row-major. Operations return nothing: shapes are asserted
 * when the graph is planned. Backward functions ADD to d_param (gradients of several micro-batches
 * add up) and to d_in[i] when d_in_add[i], else overwrite it. A d_param that is NULL is of a frozen
 * parameter and not wanted.
 *
 *   kind         in                 param             out                          backward reads
 *   EMBED        (pass->tokens)     w (V,C)           y* (T,C)                     -
 *   RMSNORM      x* (T,C)           w (C)             y (T,C), rstd* (T)           x, w, rstd
 *   ADD_RMSNORM  x*, u (T,C)        w (C)             y (T,C), rstd* (T), s* (T,C) s, w, rstd
 *   LINEAR       x (T,n_in)         w (n_out,n_in)    y (T,n_out)                  x, w
 *   LORA         x (T,n_in), y      a (R,n_in), b (n,R) y, h (T,R)                 x, h, a, b
 *   QKNORM_ROPE  x (T,(H+2K)D)      wq (D), wk (D)    y (T,(H+2K)D), rstd* (T,H+K) x, w, rstd
 *   ATTENTION    x (T,(H+2K)D)      -                 y (T,HD), lse* (T,H)         x, y, lse
 *   SWIGLU       gate|up (T,2F)     -                 y (T,F)                      x
 *   DROPOUT      x (T,C)            -                 y (T,C)                      -
 *   HEAD_CE      h (T,C)            w (V,C)           (pass->loss)                 h, w
 *
 * Tensors with a star and all parameters are in `real`, the others in `act`, which differ in the
 * bf16 builds: the residual stream and its gradient keep full precision. A gradient has the type of
 * its tensor, but for two: x and y of a DROPOUT may both be of the residual stream (attr.is_real),
 * and the d_out of a LINEAR, LORA or DROPOUT whose result enters the stream is the stream's
 * gradient itself (args.d_out_is_real).
 *
 * ADD_RMSNORM: s = x + u is the residual stream, y its RMSNorm; in backward the gradients of x, u
 * and s are one memory, d_in[0], to which the norm's gradient is added. LORA adds an adapter's part
 * to columns [first, first + count) of the result of a LINEAR (T,n_out) in place: out[0] is in[1],
 * and so are their gradients; d_in[0] may be NULL. A LINEAR whose w is frozen does not read x in
 * backward. QKNORM_ROPE copies the value heads; without QK-norm it has no parameters, no rstd and
 * reads nothing in backward. HEAD_CE computes the loss in both directions: backward replaces
 * forward when training, so that the logits of a row block are turned into gradients while they are
 * in cache and never kept; only a pass in two parts (engine.h) runs both.
 */
#ifndef MM_NN_OPS_H
#define MM_NN_OPS_H

#include "core/nn/engine.h"
#include "core/nn/pool.h"

typedef enum mm_op_kind {
    MM_OP_EMBED = 0,
    MM_OP_RMSNORM,
    MM_OP_ADD_RMSNORM,
    MM_OP_LINEAR,
    MM_OP_LORA,
    MM_OP_QKNORM_ROPE,
    MM_OP_ATTENTION,
    MM_OP_SWIGLU,
    MM_OP_DROPOUT,
    MM_OP_HEAD_CE,
    MM_OP_COUNT
} mm_op_kind;

enum {
    MM_OP_MAX_IN = 2,
    MM_OP_MAX_OUT = 3,
    MM_OP_MAX_PARAM = 2,
    MM_OP_MAX_TOKENS = 1 << 20, /* bounds of the dropout counter, see kernels/ops.h */
    MM_OP_MAX_HEADS = 256,
    MM_OP_MAX_COLUMNS = 1 << 22,
    MM_OP_ROW_BLOCK = 64, /* rows of one work item of the row-wise operations */
    MM_OP_MAX_QUERY_BLOCK = 256
};

/* What does not change between batches. */
typedef struct mm_op_attr {
    int64_t n_in;  /* columns of in[0] */
    int64_t n_out; /* columns of out[0]; V for HEAD_CE */
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    bool qk_norm;
    bool is_real; /* DROPOUT of the residual stream */
    int32_t rank; /* LORA, with the four below it */
    int64_t first;
    int64_t count;
    double scale;
    double eps;
    double dropout; /* probability to drop */
    uint32_t site;  /* which dropout of the model: part of the counter */
} mm_op_attr;

/* Scratch memory. Contents do not survive an operation. */
typedef struct mm_workspace {
    mm_pool *pool; /* NULL: the caller works alone */
    char *shared;
    char *thread; /* thread i owns thread + i * thread_bytes */
    size_t thread_bytes;
} mm_workspace;

/* Bytes of scratch an operation needs at most. */
typedef struct mm_op_need {
    size_t shared_bytes;
    size_t thread_bytes;
} mm_op_need;

/* mm_backend.query_block neighbouring queries of one segment; fewer in its last block only. */
typedef struct mm_query_block {
    int32_t segment_begin;
    int32_t begin;
    int32_t end;
} mm_query_block;

/* The head of a teacher whose pass has come as far as its hidden state: HEAD_CE's backward learns
 * from its logits beside the labels. */
typedef struct mm_op_teacher {
    const struct mm_op_args *head; /* arguments of the teacher's own HEAD_CE forward */
    double alpha;
    double temperature;
    double divergence; /* in/out: adds T² KL(teacher || student) of each label */
} mm_op_teacher;

/* What all operations of one pass over a batch share. */
typedef struct mm_pass {
    const mm_batch *batch;
    const int32_t *positions;           /* (T) within the segment */
    const mm_query_block *query_blocks; /* in order, never across segments */
    int64_t n_query_blocks;
    const void *rope_cos; /* (positions, D/2) */
    const void *rope_sin;
    bool dropout_on;
    uint64_t seed;
    uint64_t micro_step;
    double loss_scale;
    mm_loss *loss;
    double *logprobs;       /* (T) HEAD_CE puts those of the counted labels there; or NULL */
    const double *weights;  /* (T) factors of the labels in HEAD_CE's backward; NULL: all 1 */
    mm_op_teacher *teacher; /* of HEAD_CE's backward; or NULL */
    mm_workspace work;
} mm_pass;

typedef struct mm_op_args {
    const mm_pass *pass;
    const mm_op_attr *attr;
    const void *in[MM_OP_MAX_IN];
    void *out[MM_OP_MAX_OUT];
    const void *param[MM_OP_MAX_PARAM];
    /* What mm_backend.pack_weight made of param[0]; NULL: packed within each product. */
    const void *packed;
    /* backward only */
    const void *d_out;
    bool d_out_is_real;
    void *d_in[MM_OP_MAX_IN];
    bool d_in_add[MM_OP_MAX_IN];
    void *d_param[MM_OP_MAX_PARAM];
} mm_op_args;

typedef void (*mm_op_fn)(const mm_op_args *args);
typedef mm_op_need (*mm_op_need_fn)(const mm_op_attr *attr, int64_t max_tokens);

typedef struct mm_op_slot {
    mm_op_fn forward;
    mm_op_fn backward;
    mm_op_need_fn need;
} mm_op_slot;

/* A matrix as first element and strides in elements: element (i,j) is data[i*row_stride +
 * j*col_stride]. A transposed matrix is the same data with the strides exchanged. */
typedef struct mm_matrix {
    const void *data;
    int64_t row_stride;
    int64_t col_stride;
    bool is_real; /* in `real`, else in `act`; the same where the build has one type */
} mm_matrix;

/* Where a product goes: rows `stride` elements apart. */
typedef struct mm_target {
    void *data;
    int64_t stride;
    bool is_real;
    bool add; /* add to what is there */
} mm_target;

/* One AdamW update of `n` neighbouring values; factors are precomputed by the engine. */
typedef struct mm_adamw_factors {
    double grad_scale; /* clip factor */
    double keep;       /* 1 - lr * weight_decay, or 1 */
    double step_size;  /* lr / (1 - beta1^t) */
    double beta1;
    double beta2;
    double root_correction; /* 1 / sqrt(1 - beta2^t) */
    double eps;
} mm_adamw_factors;

/* Everything one build of the kernels offers. No slot is NULL (tests/nn/test_ops.c). */
typedef struct mm_backend {
    const char *isa;
    mm_dtype dtype;
    size_t real_bytes;   /* of one `real` */
    size_t act_bytes;    /* of one `act` */
    int32_t query_block; /* query rows attended together */
    mm_op_slot ops[MM_OP_COUNT];
    /* c (m,n) (+)= a (m,k) b (k,n). The order of summation depends on k alone. Scratch: gemm_need.
     */
    void (*gemm)(const mm_workspace *work, int64_t m, int64_t n, int64_t k, mm_matrix a,
                 mm_matrix b, mm_target c);
    mm_op_need (*gemm_need)(void);
    /* A weight w (n_out,n_in), in `real`, in the order of the matrix kernel: for forward (x w^T)
     * and, when training, behind it for backward (dy w). `out` is aligned to a cache line. */
    size_t (*packed_bytes)(int64_t n_in, int64_t n_out, bool is_training);
    void (*pack_weight)(const mm_workspace *work, const void *w, int64_t n_in, int64_t n_out,
                        bool is_training, void *out);
    /* c (m,n_out) (+)= a (m,n_in) w^T with a packed weight; m may be 1. */
    void (*gemm_weight)(const mm_workspace *work, int64_t m, int64_t n_in, int64_t n_out,
                        mm_matrix a, const void *packed, mm_target c);
    /* Fills (positions, D/2) tables in the build's own precision, as the published models do. */
    void (*rope_tables)(void *cos_table, void *sin_table, int64_t positions, int32_t head_dim,
                        double theta);
    double (*sum_squares)(const void *values, int64_t n);
    void (*adamw)(void *p, void *g, void *m, void *v, int64_t n, const mm_adamw_factors *factors);
    /* Runs `rounds` rounds of independent multiply-adds (bf16: of the instruction that the matrix
     * kernel uses) in registers; returns the operations done. */
    double (*peak)(int64_t rounds);
    const struct mm_decode_kernels *decode; /* one token at a time: core/nn/decode.h */
} mm_backend;

/* Backend for a dtype: the best instruction set of this processor, or the one MMRUN_ISA asks for if
 * it is lower. Chosen once per process. */
const mm_backend *mm_backend_of(mm_dtype dtype);
/* All builds this processor can run, best first; for tests. Returns how many. */
int32_t mm_backends(const mm_backend **out, int32_t capacity);

/* The static description of an operation, the same for all backends. */
typedef struct mm_op_info {
    const char *name;
    int32_t n_in;
    int32_t n_out;
    bool reads_in;  /* backward reads in[0] */
    bool reads_out; /* backward reads out[0] */
    bool reads_aux; /* backward reads out[1] */
    bool reads_sum; /* backward reads out[2] */
} mm_op_info;
const mm_op_info *mm_op_info_of(mm_op_kind kind);

#endif
