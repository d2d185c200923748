/* The training engine: a static graph over planned memory, forward, backward, AdamW.
 *
 * An engine is built once for (model, token budget) and allocates nothing afterwards. Gradients of
 * several micro-batches add up until mm_engine_step. All reductions have a fixed order that does
 * not depend on the number of threads: same inputs, same bits. One engine belongs to one thread at
 * a time; it runs its own worker threads. Formulas stand beside the operations in kernels/.
 */
#ifndef MM_NN_ENGINE_H
#define MM_NN_ENGINE_H

#include "core/nn/batch.h"
#include "core/nn/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_engine mm_engine;

typedef struct mm_engine_options {
    int32_t max_tokens;   /* largest mm_batch.n_tokens */
    int32_t max_segments; /* largest mm_batch.n_segments; 0 = max_tokens */
    int32_t threads;      /* 0 = all processors available to the process */
    bool training;        /* false: forward only, no gradients, no optimizer state */
    bool bf16;            /* compute as MM_BF16; the model's values are F32 */
    bool keep_all;        /* keep what backward could make again: more memory, the same bits */
    uint64_t seed;        /* keys dropout */
} mm_engine_options;

typedef struct mm_loss {
    double sum;    /* summed cross entropy in nats over the counted labels */
    int64_t count; /* labels counted */
} mm_loss;

typedef struct mm_adamw {
    double learning_rate;
    double beta1; /* 0.9 */
    double beta2; /* 0.999 in MiniMind */
    double eps;   /* 1e-8 */
    double weight_decay;
    double grad_clip; /* total L2 norm; 0 = no clipping */
    int64_t step;     /* 1-based optimizer step, for bias correction */
    bool
        decay_all; /* MiniMind decays norms and embeddings too; false: only tensors with `decays` */
} mm_adamw;

/* Keeps a borrowed pointer to `model`, which must outlive the engine. */
MM_NODISCARD mm_status mm_engine_new(mm_engine **out, mm_model *model,
                                     const mm_engine_options *options, mm_err *err);
void mm_engine_free(mm_engine *engine);
/* Bytes one mm_engine_new would take with `dtype` as the model's or MM_BF16, for the estimate
 * before a run. */
int64_t mm_engine_bytes(const mm_model_config *config, mm_dtype dtype,
                        const mm_engine_options *options);

/* Loss without dropout, nothing kept. Token ids outside the vocabulary are MM_EFORMAT. */
MM_NODISCARD mm_status mm_engine_eval(mm_engine *engine, const mm_batch *batch, mm_loss *loss,
                                      mm_err *err);
/* Forward and backward: adds loss_scale * d(loss.sum)/d(parameter) to the gradients. `micro_step`
 * (unique over the run) keys the dropout. Pass loss_scale = 1 / (labels of all micro-batches of the
 * step). A loss that is not finite is handed back as it is; mm_engine_step then refuses the
 * gradients. */
MM_NODISCARD mm_status mm_engine_backward(mm_engine *engine, const mm_batch *batch,
                                          double loss_scale, uint64_t micro_step, mm_loss *loss,
                                          mm_err *err);
/* The two halves of a backward pass whose weights depend on the log-probabilities (preferences,
 * policies). Forward, with dropout, keeps what backward needs until the next pass; logprobs (T)
 * gets the log-probability of each label, 0 where it is ignored; NULL: not wanted. Backward adds
 * -loss_scale * sum over t of weights[t] * d(logprobs[t])/d(parameter) to the gradients; it must
 * follow a forward of the same batch. */
MM_NODISCARD mm_status mm_engine_forward(mm_engine *engine, const mm_batch *batch,
                                         uint64_t micro_step, double *logprobs, mm_loss *loss,
                                         mm_err *err);
MM_NODISCARD mm_status mm_engine_backward_weighted(mm_engine *engine, const mm_batch *batch,
                                                   const double *weights, double loss_scale,
                                                   uint64_t micro_step, mm_err *err);
/* Log-probabilities of the labels without dropout, nothing kept; 0 where a label is ignored. A
 * row's are the same bits in any batch. */
MM_NODISCARD mm_status mm_engine_logprobs(mm_engine *engine, const mm_batch *batch,
                                          double *logprobs, mm_err *err);

/* What a student learns from; Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural
 * Network", 2015. The teacher's engine computes in the student's dtype; a teacher with more tokens
 * is cut to the student's. */
typedef struct mm_teacher {
    mm_engine *engine; /* of another model, or of an equal one; not the student's own */
    double alpha;      /* share of the cross entropy */
    double temperature;
} mm_teacher;

typedef struct mm_distill_loss {
    double cross_entropy; /* summed over the counted labels, in nats */
    double divergence;    /* T² KL(teacher || student) at temperature T, summed likewise */
    int64_t count;
} mm_distill_loss;

/* As mm_engine_backward, for alpha * cross entropy + (1 - alpha) * divergence. */
MM_NODISCARD mm_status mm_engine_distill(mm_engine *engine, const mm_teacher *teacher,
                                         const mm_batch *batch, double loss_scale,
                                         uint64_t micro_step, mm_distill_loss *loss, mm_err *err);
/* Clips, applies AdamW (decoupled decay p ← p·(1 − lr·wd) first; clip factor clip/(norm+1e-6), at
 * most 1), zeroes the gradients. *grad_norm is the norm before clipping. A norm that is not finite
 * changes nothing and is MM_ENAN naming the first tensor. */
MM_NODISCARD mm_status mm_engine_step(mm_engine *engine, const mm_adamw *adamw, double *grad_norm,
                                      mm_err *err);
void mm_engine_zero_grad(mm_engine *engine);

/* Must follow every change of the model's values other than by mm_engine_step: products may run on
 * copies of the weights. */
void mm_engine_reload(mm_engine *engine);

/* Logits (T, V) of a batch in the model's dtype, for tests and scoring; `out` holds n_tokens *
 * vocab_size. */
MM_NODISCARD mm_status mm_engine_logits(mm_engine *engine, const mm_batch *batch, void *out,
                                        mm_err *err);

/* Flat views of the tensors that train, in the layout of mm_model_data from mm_model_first_trained
 * on, for checkpoints and tests. NULL when not training. */
void *mm_engine_grads(mm_engine *engine);
void *mm_engine_moment1(mm_engine *engine);
void *mm_engine_moment2(mm_engine *engine);
int32_t mm_engine_threads(const mm_engine *engine);

/* Build of the kernels that computes in `dtype` ("amx", "avx512bf16", "avx512", "avx2", "generic"),
 * chosen once per process; MMRUN_ISA overrides it downwards. Part of the run record: other kernels,
 * other bits. */
const char *mm_engine_isa(mm_dtype dtype);
/* MM_BF16 where the processor has matrix instructions for it that beat its fp32, else MM_F32. */
mm_dtype mm_engine_best_dtype(void);
/* MM_ECONFIG naming the known builds when MMRUN_ISA names none of them. */
MM_NODISCARD mm_status mm_engine_isa_check(mm_err *err);

/* Where the time of an engine's passes and updates went since mm_engine_profile_start. Operations
 * of all layers with the same name are one entry. */
typedef struct mm_op_profile {
    char name[24];    /* of the result: "qkv", "gate_up", "head", "adamw" … */
    const char *kind; /* "linear", "attention" …, "update" */
    bool is_backward;
    int64_t calls;
    double seconds;
    double flops; /* multiply-adds counted twice; 0 for element-wise work */
    double bytes; /* read and written at least once, as if caches were empty */
} mm_op_profile;
void mm_engine_profile_start(mm_engine *engine);
/* Copies up to `capacity` entries in order of first use; returns how many there are. */
int32_t mm_engine_profile(const mm_engine *engine, mm_op_profile *out, int32_t capacity);

/* Floating-point operations of forward + backward for one token at context length `seq_len`
 * (docs/minimind.md). */
double mm_model_flops_per_token(const mm_model_config *config, int32_t seq_len);
/* Measured peak over `threads` threads in FLOP/s of the multiply-adds that the matrix kernel of
 * `dtype` runs on; takes about `ms` milliseconds. */
double mm_engine_probe_flops(mm_dtype dtype, int32_t threads, int32_t ms);
/* Measured rate of reading memory far larger than the caches, in bytes/s. 0: no memory for it. */
double mm_engine_probe_bandwidth(int32_t threads, int32_t ms);

#ifdef __cplusplus
}
#endif
#endif
