/* Which weights can have adapters, and the merge. See lora.h.
 *
 * The subtle rule: a merge sums B A first and adds the sum to the weight once, so that a small
 * update of a large weight loses no more than one rounding.
 */
#include "core/nn/lora.h"

#include <stdio.h>
#include <string.h>

static const char *const PARTS[MM_LORA_TARGETS] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

const char *mm_lora_target_part(int32_t target)
{
    MM_ASSERT(target >= 0 && target < MM_LORA_TARGETS);
    return PARTS[target];
}

const char *mm_lora_target_name(int32_t target)
{
    return strchr(mm_lora_target_part(target), '.') + 1;
}

mm_lora_dims mm_lora_target_dims(const mm_model_config *config, int32_t target)
{
    const int64_t C = config->hidden_size;
    const int64_t q_width = (int64_t)config->num_attention_heads * config->head_dim;
    const int64_t kv_width = (int64_t)config->num_key_value_heads * config->head_dim;
    const int64_t F = config->intermediate_size;
    switch (1u << target) {
    case MM_LORA_Q_PROJ:
        return (mm_lora_dims){C, q_width};
    case MM_LORA_K_PROJ:
    case MM_LORA_V_PROJ:
        return (mm_lora_dims){C, kv_width};
    case MM_LORA_O_PROJ:
        return (mm_lora_dims){q_width, C};
    case MM_LORA_GATE_PROJ:
    case MM_LORA_UP_PROJ:
        return (mm_lora_dims){C, F};
    default:
        MM_ASSERT(1u << target == MM_LORA_DOWN_PROJ);
        return (mm_lora_dims){F, C};
    }
}

bool mm_lora_is_adapter(const char *name)
{
    return strstr(name, ".lora_A.weight") || strstr(name, ".lora_B.weight");
}

/* ---- the names of targets ---------------------------------------------------------------------
 */

static uint32_t target_named(const char *name, size_t length)
{
    if (length == 3 && strncmp(name, "all", length) == 0) return MM_LORA_ALL;
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++) {
        const char *known = mm_lora_target_name(i);
        if (strlen(known) == length && strncmp(known, name, length) == 0) return 1u << i;
    }
    return 0;
}

mm_status mm_lora_targets_parse(const char *text, uint32_t *targets, mm_err *err)
{
    uint32_t found = 0;
    for (const char *at = text;; at++) {
        const size_t length = strcspn(at, ",+");
        const uint32_t bits = target_named(at, length);
        if (bits == 0)
            return MM_FAIL(err, MM_ECONFIG,
                           "'%.*s' is no linear layer: expected all, or some of q_proj, k_proj, "
                           "v_proj, o_proj, gate_proj, up_proj, down_proj",
                           length < 40 ? (int)length : 40, at);
        found |= bits;
        at += length;
        if (*at == '\0') break;
    }
    *targets = found;
    return MM_OK;
}

void mm_lora_targets_text(uint32_t targets, mm_str *out)
{
    if (targets == MM_LORA_ALL) {
        mm_str_add(out, "all");
        return;
    }
    const char *between = "";
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++) {
        if (!(targets & 1u << i)) continue;
        mm_str_addf(out, "%s%s", between, mm_lora_target_name(i));
        between = "+";
    }
}

/* ---- the merge --------------------------------------------------------------------------------
 */

/* A weight and its adapter. */
typedef struct adapter {
    const mm_tensor *weight; /* (n_out, n_in) */
    const mm_tensor *a;      /* (rank, n_in) */
    const mm_tensor *b;      /* (n_out, rank) */
} adapter;

// The adapter of the weight called `name` ("….weight"); false when it has none.
static bool find_adapter(const mm_model *model, const char *name, adapter *out)
{
    char full[sizeof((mm_tensor *)0)->name];
    const int stem = (int)(strlen(name) - strlen(".weight"));
    out->weight = mm_model_find(model, name);
    MM_ASSERT(out->weight && stem > 0);
    snprintf(full, sizeof full, "%.*s.lora_A.weight", stem, name);
    out->a = mm_model_find(model, full);
    snprintf(full, sizeof full, "%.*s.lora_B.weight", stem, name);
    out->b = mm_model_find(model, full);
    MM_ASSERT((out->a == NULL) == (out->b == NULL));
    return out->a != NULL;
}

void mm_lora_add(float *w, mm_lora_dims dims, const float *a, const float *b, int64_t rank,
                 double scale)
{
    enum { COLUMNS = 256 };
    float sums[COLUMNS];
    const int64_t n_in = dims.n_in;
    for (int64_t i = 0; i < dims.n_out; i++) {
        for (int64_t first = 0; first < n_in; first += COLUMNS) {
            const int64_t n = n_in - first < COLUMNS ? n_in - first : COLUMNS;
            memset(sums, 0, sizeof sums);
            for (int64_t r = 0; r < rank; r++) {
                const float factor = b[i * rank + r];
                const float *row = a + r * n_in + first;
                for (int64_t j = 0; j < n; j++)
                    sums[j] += factor * row[j];
            }
            for (int64_t j = 0; j < n; j++)
                w[i * n_in + first + j] += (float)scale * sums[j];
        }
    }
}

static void add_adapter(const mm_model *model, const adapter *part, float *w)
{
    const mm_model_config *config = mm_model_config_of(model);
    const mm_lora_dims dims = {.n_in = part->weight->shape[1], .n_out = part->weight->shape[0]};
    mm_lora_add(w, dims, part->a->data, part->b->data, config->lora_rank,
                config->lora_alpha / config->lora_rank);
}

void mm_lora_merged(const mm_model *model, const char *name, float *out)
{
    adapter part;
    MM_ASSERT(mm_model_dtype(model) == MM_F32);
    const bool has_adapter = find_adapter(model, name, &part);
    memcpy(out, part.weight->data, (size_t)part.weight->count * sizeof *out);
    if (has_adapter) add_adapter(model, &part, out);
}

void mm_lora_merge(mm_model *model)
{
    const mm_tensor *tensors;
    const int32_t n = mm_model_tensors(model, &tensors);
    MM_ASSERT(mm_model_dtype(model) == MM_F32);
    for (int32_t i = 0; i < n && !mm_lora_is_adapter(tensors[i].name); i++) {
        adapter part;
        if (!find_adapter(model, tensors[i].name, &part)) continue;
        add_adapter(model, &part, tensors[i].data);
        memset(part.b->data, 0, (size_t)part.b->count * sizeof(float));
    }
}
