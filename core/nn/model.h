/* The decoder: its configuration, its tensors, their initial values.
 *
 * MiniMind's v3 is Qwen3-shaped (QK-norm, tied embedding), v2 is Llama-shaped. A model owns one
 * flat block of parameters; every tensor is a view into it. The table of tensors is the one
 * description that initialisation, weight decay, checkpoints, parameter counts and export read.
 * Names are Hugging Face's ("model.layers.0.self_attn.q_proj.weight"), shapes are [out, in],
 * row-major.
 */
#ifndef MM_NN_MODEL_H
#define MM_NN_MODEL_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* F64 exists for gradient checks. BF16 is a way to compute: products and activations in bfloat16,
 * sums, the residual stream, weights and moments in float; a model's own values are F32 or F64. */
typedef enum mm_dtype { MM_F32 = 0, MM_F64 = 1, MM_BF16 = 2 } mm_dtype;

typedef struct mm_model_config {
    char preset[16]; /* "v3", "v2-small", "v2", or "custom" after an import */
    int32_t vocab_size;
    int32_t hidden_size;
    int32_t num_hidden_layers;
    int32_t num_attention_heads;
    int32_t num_key_value_heads;
    int32_t head_dim;          /* 0: hidden_size / num_attention_heads */
    int32_t intermediate_size; /* 0: by the preset's rule */
    int32_t max_position_embeddings;
    double rope_theta;
    double rms_norm_eps;
    double dropout; /* probability; embedding, attention weights, attention output, and FFN output
                       if ffn_dropout */
    bool tie_word_embeddings;
    bool qk_norm;
    bool ffn_dropout; /* v2 only */
    /* Adapters (core/nn/lora.h); rank 0: none, and every tensor trains. */
    int32_t lora_rank;
    double lora_alpha;
    double lora_dropout; /* of what enters the adapters */
    uint32_t lora_targets;
} mm_model_config;

/* Presets v3, v2-small, v2 (docs/minimind.md). An unknown name is MM_ECONFIG listing the known
 * ones. */
MM_NODISCARD mm_status mm_model_config_preset(mm_model_config *out, const char *preset,
                                              mm_err *err);
/* Fills what is 0 by the preset's rules and checks everything; the message names the flag (--heads
 * 7 does not divide --hidden 512 …). Call before mm_model_new. */
MM_NODISCARD mm_status mm_model_config_resolve(mm_model_config *config, mm_err *err);
/* All values, tied embedding counted once, and those of them that train: all, or the adapters'. */
int64_t mm_model_config_params(const mm_model_config *config);
int64_t mm_model_config_trainable(const mm_model_config *config);

typedef enum mm_init { MM_INIT_NORMAL_02 = 0, MM_INIT_ONE = 1, MM_INIT_ZERO = 2 } mm_init;

typedef struct mm_tensor {
    char name[96];
    int32_t ndim;
    int64_t shape[4];
    int64_t count;
    int64_t offset; /* in elements, from the start of the block */
    mm_init init;
    bool decays; /* weight decay applies */
    bool trains; /* false: the base below adapters */
    void *data;  /* float or double, by the model's dtype */
} mm_tensor;

typedef struct mm_model mm_model;

MM_NODISCARD mm_status mm_model_new(mm_model **out, const mm_model_config *config, mm_dtype dtype,
                                    mm_err *err);
void mm_model_free(mm_model *model);
/* Draws every tensor from (seed, tensor index): same seed, same weights, whatever the threads. */
void mm_model_init(mm_model *model, uint64_t seed);

const mm_model_config *mm_model_config_of(const mm_model *model);
mm_dtype mm_model_dtype(const mm_model *model);
/* The table, borrowed for the model's life; in the order of Hugging Face's state_dict, tied head
 * left out. */
int32_t mm_model_tensors(const mm_model *model, const mm_tensor **tensors);
/* NULL when there is none. */
const mm_tensor *mm_model_find(const mm_model *model, const char *name);
/* The flat block of mm_model_config_params() elements (tensors may be padded apart: use offsets).
 */
void *mm_model_data(mm_model *model, int64_t *elements);
/* Offset of the first element that trains: 0, or where the adapters begin. All behind it train. */
int64_t mm_model_first_trained(const mm_model *model);

#ifdef __cplusplus
}
#endif
#endif
