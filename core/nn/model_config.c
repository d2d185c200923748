/* Configuration of the decoder: presets, derived sizes, checks. Messages name the flag. */
#include "core/nn/model.h"

#include "core/nn/lora.h"
#include "core/nn/ops.h"

#include <math.h>
#include <string.h>

enum {
    VOCAB_MAX = MM_OP_MAX_COLUMNS,
    HIDDEN_MAX = 1 << 16,
    LAYERS_MAX = 1 << 10,
    HEAD_DIM_MAX = 1 << 10,
    FFN_MAX = 1 << 18,
    POSITIONS_MAX = MM_OP_MAX_TOKENS,
    FFN_UNIT = 64
};
static const double LORA_DROPOUT_MAX = 0.9;

static const mm_model_config PRESETS[] = {
    {.preset = "v3",
     .vocab_size = 6400,
     .hidden_size = 768,
     .num_hidden_layers = 8,
     .num_attention_heads = 8,
     .num_key_value_heads = 4,
     .max_position_embeddings = 32768,
     .rope_theta = 1e6,
     .rms_norm_eps = 1e-6,
     .tie_word_embeddings = true,
     .qk_norm = true},
    {.preset = "v2-small",
     .vocab_size = 6400,
     .hidden_size = 512,
     .num_hidden_layers = 8,
     .num_attention_heads = 8,
     .num_key_value_heads = 2,
     .max_position_embeddings = 32768,
     .rope_theta = 1e6,
     .rms_norm_eps = 1e-5,
     .tie_word_embeddings = true,
     .ffn_dropout = true},
    {.preset = "v2",
     .vocab_size = 6400,
     .hidden_size = 768,
     .num_hidden_layers = 16,
     .num_attention_heads = 8,
     .num_key_value_heads = 2,
     .max_position_embeddings = 32768,
     .rope_theta = 1e6,
     .rms_norm_eps = 1e-5,
     .tie_word_embeddings = true,
     .ffn_dropout = true},
};
enum { N_PRESETS = sizeof PRESETS / sizeof PRESETS[0] };

static const mm_model_config *preset_of(const char *name)
{
    for (int i = 0; i < N_PRESETS; i++)
        if (strcmp(PRESETS[i].preset, name) == 0) return &PRESETS[i];
    return NULL;
}

mm_status mm_model_config_preset(mm_model_config *out, const char *preset, mm_err *err)
{
    const mm_model_config *found = preset_of(preset);
    if (!found) return MM_FAIL(err, MM_ECONFIG, "--preset %s: expected v3, v2-small or v2", preset);
    *out = *found;
    return MM_OK;
}

// v3: 64 ceil(pi H / 64); v2: 64 ceil(int(8H/3) / 64).
static int32_t feed_forward_size(const mm_model_config *config)
{
    const int32_t H = config->hidden_size;
    if (strncmp(config->preset, "v2", 2) == 0)
        return (8 * H / 3 + FFN_UNIT - 1) / FFN_UNIT * FFN_UNIT;
    return (int32_t)ceil((double)H * 3.14159265358979323846 / FFN_UNIT) * FFN_UNIT;
}

static mm_status check_range(const char *flag, int64_t value, int64_t lowest, int64_t highest,
                             mm_err *err)
{
    if (value >= lowest && value <= highest) return MM_OK;
    return MM_FAIL(err, MM_ECONFIG, "%s %lld: expected %lld to %lld", flag, (long long)value,
                   (long long)lowest, (long long)highest);
}

static mm_status check_sizes(const mm_model_config *config, mm_err *err)
{
    MM_TRY(check_range("--vocab", config->vocab_size, 1, VOCAB_MAX, err));
    MM_TRY(check_range("--hidden", config->hidden_size, 1, HIDDEN_MAX, err));
    MM_TRY(check_range("--layers", config->num_hidden_layers, 1, LAYERS_MAX, err));
    MM_TRY(check_range("--heads", config->num_attention_heads, 1, MM_OP_MAX_HEADS, err));
    MM_TRY(check_range("--kv-heads", config->num_key_value_heads, 0, config->num_attention_heads,
                       err));
    MM_TRY(check_range("--head-dim", config->head_dim, 0, HEAD_DIM_MAX, err));
    MM_TRY(check_range("--ffn", config->intermediate_size, 0, FFN_MAX, err));
    return check_range("max_position_embeddings", config->max_position_embeddings, 1, POSITIONS_MAX,
                       err);
}

static mm_status check_reals(const mm_model_config *config, mm_err *err)
{
    if (!(config->dropout >= 0 && config->dropout < 1))
        return MM_FAIL(err, MM_ECONFIG, "--dropout %g: expected 0 or more and less than 1",
                       config->dropout);
    if (!(config->rope_theta > 0 && isfinite(config->rope_theta)))
        return MM_FAIL(err, MM_ECONFIG, "rope_theta %g: expected more than 0", config->rope_theta);
    if (!(config->rms_norm_eps > 0 && isfinite(config->rms_norm_eps)))
        return MM_FAIL(err, MM_ECONFIG, "rms_norm_eps %g: expected more than 0",
                       config->rms_norm_eps);
    return MM_OK;
}

// Of resolved sizes. Scale 1 where no alpha is given.
static mm_status resolve_adapters(mm_model_config *config, mm_err *err)
{
    if (config->lora_rank == 0) {
        config->lora_alpha = 0;
        config->lora_dropout = 0;
        config->lora_targets = 0;
        return MM_OK;
    }
    if (config->lora_targets == 0 || config->lora_targets & ~(uint32_t)MM_LORA_ALL)
        return MM_FAIL(err, MM_ECONFIG, "--targets: expected at least one linear layer, or all");
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++) {
        if (!(config->lora_targets & 1u << i)) continue;
        const mm_lora_dims dims = mm_lora_target_dims(config, i);
        const int64_t highest = dims.n_in < dims.n_out ? dims.n_in : dims.n_out;
        if (config->lora_rank < 0 || config->lora_rank > highest)
            return MM_FAIL(err, MM_ECONFIG, "--rank %d: expected 1 to %lld, the size of %s",
                           (int)config->lora_rank, (long long)highest, mm_lora_target_name(i));
    }
    if (config->lora_alpha == 0) config->lora_alpha = config->lora_rank;
    if (!(config->lora_alpha > 0 && isfinite(config->lora_alpha)))
        return MM_FAIL(err, MM_ECONFIG, "--alpha %g: expected more than 0", config->lora_alpha);
    if (!(config->lora_dropout >= 0 && config->lora_dropout <= LORA_DROPOUT_MAX))
        return MM_FAIL(err, MM_ECONFIG, "dropout %g of adapters: expected 0 to %g",
                       config->lora_dropout, LORA_DROPOUT_MAX);
    return MM_OK;
}

mm_status mm_model_config_resolve(mm_model_config *config, mm_err *err)
{
    MM_TRY(check_sizes(config, err));
    MM_TRY(check_reals(config, err));
    const int heads = config->num_attention_heads;
    if (config->num_key_value_heads == 0) config->num_key_value_heads = heads;
    if (heads % config->num_key_value_heads != 0)
        return MM_FAIL(err, MM_ECONFIG, "--kv-heads %d does not divide --heads %d",
                       (int)config->num_key_value_heads, heads);
    if (config->head_dim == 0) {
        if (config->hidden_size % heads != 0)
            return MM_FAIL(err, MM_ECONFIG, "--heads %d does not divide --hidden %d", heads,
                           (int)config->hidden_size);
        config->head_dim = config->hidden_size / heads;
        MM_TRY(check_range("--hidden / --heads", config->head_dim, 1, HEAD_DIM_MAX, err));
    }
    if (config->head_dim % 2 != 0)
        return MM_FAIL(
            err, MM_ECONFIG,
            "--hidden %d with --heads %d: head width %d is odd, rotary positions need pairs",
            (int)config->hidden_size, heads, (int)config->head_dim);
    if (config->intermediate_size == 0) config->intermediate_size = feed_forward_size(config);
    return resolve_adapters(config, err);
}

static int64_t adapter_params(const mm_model_config *config)
{
    int64_t n = 0;
    for (int32_t i = 0; i < MM_LORA_TARGETS && config->lora_rank > 0; i++) {
        const mm_lora_dims dims = mm_lora_target_dims(config, i);
        if (config->lora_targets & 1u << i) n += config->lora_rank * (dims.n_in + dims.n_out);
    }
    return config->num_hidden_layers * n;
}

int64_t mm_model_config_trainable(const mm_model_config *config)
{
    return config->lora_rank > 0 ? adapter_params(config) : mm_model_config_params(config);
}

int64_t mm_model_config_params(const mm_model_config *config)
{
    const int64_t H = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t q_heads = config->num_attention_heads;
    const int64_t kv_heads = config->num_key_value_heads;
    const int64_t attention =
        2 * H * q_heads * D + 2 * H * kv_heads * D + (config->qk_norm ? 2 * D : 0);
    const int64_t layer = attention + 3 * H * config->intermediate_size + 2 * H;
    const int64_t embeddings =
        (config->tie_word_embeddings ? 1 : 2) * (int64_t)config->vocab_size * H;
    return config->num_hidden_layers * layer + embeddings + H + adapter_params(config);
}

double mm_model_flops_per_token(const mm_model_config *config, int32_t seq_len)
{
    // Two operations per multiply-add, backward = 2 x forward; causal attention at half the square.
    // A frozen weight has no gradient: its backward = forward.
    const double H = config->hidden_size;
    const double q_width = (double)config->num_attention_heads * config->head_dim;
    const double kv_width = (double)config->num_key_value_heads * config->head_dim;
    const double weights = 2 * H * q_width + 2 * H * kv_width + 3 * H * config->intermediate_size;
    const double attention = 2 * q_width * (seq_len / 2.0); // scores and values, multiply-adds
    const double products = config->num_hidden_layers * weights + H * config->vocab_size;
    const double adapters = (double)adapter_params(config);
    return (config->lora_rank > 0 ? 4 : 6) * products +
           6 * (config->num_hidden_layers * attention + adapters);
}
