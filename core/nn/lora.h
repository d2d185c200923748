/* Low-rank adapters: y = W x + (alpha / rank) B A x beside frozen weights. Hu et al., "LoRA:
 * Low-Rank Adaptation of Large Language Models", 2021.
 *
 * The adapters are tensors of the model, behind the base: A (rank, n_in) drawn from N(0, 0.02²), B
 * (n_out, rank) zero, named as peft names them ("….q_proj.lora_A.weight",
 * "….q_proj.lora_B.weight"). MiniMind's default is rank 16 on every square linear (q_proj and
 * o_proj) without scaling, which is alpha = rank.
 */
#ifndef MM_NN_LORA_H
#define MM_NN_LORA_H

#include "core/base/mem.h"
#include "core/nn/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bits of mm_model_config.lora_targets. */
enum {
    MM_LORA_Q_PROJ = 1 << 0,
    MM_LORA_K_PROJ = 1 << 1,
    MM_LORA_V_PROJ = 1 << 2,
    MM_LORA_O_PROJ = 1 << 3,
    MM_LORA_GATE_PROJ = 1 << 4,
    MM_LORA_UP_PROJ = 1 << 5,
    MM_LORA_DOWN_PROJ = 1 << 6,
    MM_LORA_ALL = (1 << 7) - 1
};
enum { MM_LORA_TARGETS = 7 };

/* Name of the i-th bit's weight: "q_proj", and with its place in a layer: "self_attn.q_proj". */
const char *mm_lora_target_name(int32_t target);
const char *mm_lora_target_part(int32_t target);
typedef struct mm_lora_dims {
    int64_t n_in;
    int64_t n_out;
} mm_lora_dims;
/* Sizes of that weight in a resolved configuration. */
mm_lora_dims mm_lora_target_dims(const mm_model_config *config, int32_t target);
/* True for "….lora_A.weight" and "….lora_B.weight". */
bool mm_lora_is_adapter(const char *name);

/* "q_proj,o_proj" (any order, '+' parts them too) or "all". Unknown is MM_ECONFIG listing the known
 * ones. */
MM_NODISCARD mm_status mm_lora_targets_parse(const char *text, uint32_t *targets, mm_err *err);
/* Appends "q_proj+o_proj", or "all". */
void mm_lora_targets_text(uint32_t targets, mm_str *out);

/* w (n_out, n_in) += scale b a, with a (rank, n_in) and b (n_out, rank): an adapter from
 * elsewhere. */
void mm_lora_add(float *w, mm_lora_dims dims, const float *a, const float *b, int64_t rank,
                 double scale);
/* out (n_out, n_in) = W + (alpha / rank) B A of the weight `name`, W alone where it has no adapter.
 * Of fp32 models, both. */
void mm_lora_merged(const mm_model *model, const char *name, float *out);
/* Adds every adapter to its weight and makes B zero: the same function, up to rounding. */
void mm_lora_merge(mm_model *model);

#ifdef __cplusplus
}
#endif
#endif
