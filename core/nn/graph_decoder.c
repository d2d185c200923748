/* The decoder as a list of operations: pre-norm, grouped-query attention, SwiGLU, no biases.
 *
 *   x = embedding (dropout)
 *   per layer: x += dropout(o_proj(attention(rope(qk_norm(qkv(norm(x)))))))
 *              x += down(silu(gate(norm(x))) up(norm(x)))   (v2: dropout)
 *   head: cross entropy of norm(x) against the labels
 *
 * With adapters, every linear layer is followed by those of its weights, in place.
 */
#include "core/nn/graph.h"

#include "core/nn/lora.h"

#include <stdio.h>

// Dropout of adapters has numbers of its own: with and without them, all other places draw the same
// masks. MiniMind's layers have three others each.
enum { LORA_FIRST_SITE = 1 << 13 };

typedef struct builder {
    mm_graph *graph;
    const mm_model_config *config;
    const mm_model_table *table;
    int layer; // MM_NONE outside the layers
    uint32_t next_site;
} builder;

static void full_name(const builder *build, const char *name, char *out, size_t bytes)
{
    if (build->layer == MM_NONE) {
        snprintf(out, bytes, "model.%s.weight", name);
    } else {
        snprintf(out, bytes, "model.layers.%d.%s.weight", build->layer, name);
    }
}

// The parameter `rows` x cols that starts at the tensor of this name; neighbours may be joined.
static int32_t param(builder *build, const char *name, int64_t rows, int64_t cols)
{
    char full[96];
    full_name(build, name, full, sizeof full);
    const mm_tensor *tensor = mm_model_table_find(build->table, full);
    MM_ASSERT(tensor);
    for (int32_t i = 0; i < build->graph->n_tensors; i++) {
        const mm_graph_tensor *known = &build->graph->tensors[i];
        if (known->cls == MM_CLASS_PARAM && known->offset == tensor->offset) return i;
    }
    return mm_graph_tensor_add(build->graph, full + sizeof "model", MM_CLASS_PARAM, rows, cols,
                               tensor->offset, true);
}

static int32_t value(builder *build, const char *name, int64_t cols, bool is_real)
{
    char full[48];
    if (build->layer == MM_NONE) {
        snprintf(full, sizeof full, "%s", name);
    } else {
        snprintf(full, sizeof full, "%d.%s", build->layer, name);
    }
    return mm_graph_tensor_add(build->graph, full, MM_CLASS_ACTIVATION, build->graph->max_tokens,
                               cols, 0, is_real);
}

static int32_t activation(builder *build, const char *name, int64_t cols)
{
    return value(build, name, cols, false);
}

static mm_graph_op new_op(mm_op_kind kind, int64_t n_in, int64_t n_out)
{
    return (mm_graph_op){.kind = kind,
                         .attr = {.n_in = n_in, .n_out = n_out},
                         .in = {MM_NONE, MM_NONE},
                         .out = {MM_NONE, MM_NONE, MM_NONE},
                         .param = {MM_NONE, MM_NONE}};
}

// RMSNorm of the residual stream *x, after `update` (MM_NONE at the start) is added to it.
static int32_t norm(builder *build, const char *weight, const char *name, int32_t *x,
                    int32_t update)
{
    const int64_t C = build->config->hidden_size;
    mm_graph_op op = new_op(update == MM_NONE ? MM_OP_RMSNORM : MM_OP_ADD_RMSNORM, C, C);
    op.attr.eps = build->config->rms_norm_eps;
    op.in[0] = *x;
    op.param[0] = param(build, weight, C, 1);
    op.out[0] = activation(build, name, C);
    op.out[1] = value(build, "rstd", 1, true);
    if (update != MM_NONE) {
        op.in[1] = update;
        op.out[2] = *x = value(build, "stream", C, true);
    }
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

static int32_t linear(builder *build, const char *weight, const char *name, int32_t x, int64_t n_in,
                      int64_t n_out)
{
    mm_graph_op op = new_op(MM_OP_LINEAR, n_in, n_out);
    op.in[0] = x;
    op.param[0] = param(build, weight, n_out, n_in);
    op.out[0] = activation(build, name, n_out);
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

// Adds the adapter of a target to `y`, of which the columns [first, first + n_out) are the result
// of its weight for the input `x`; returns the sum, or `y` where there is no such adapter.
static int32_t adapter(builder *build, uint32_t target, int32_t x, int32_t y, int64_t first)
{
    const mm_model_config *config = build->config;
    if (config->lora_rank == 0 || !(config->lora_targets & target)) return y;
    int32_t i = 0;
    while (1u << i != target)
        i++;
    const mm_lora_dims dims = mm_lora_target_dims(config, i);
    const int64_t rank = config->lora_rank;
    char name[32];
    mm_graph_op op = new_op(MM_OP_LORA, dims.n_in, build->graph->tensors[y].cols);
    op.attr.rank = config->lora_rank;
    op.attr.first = first;
    op.attr.count = dims.n_out;
    op.attr.scale = config->lora_alpha / config->lora_rank;
    op.attr.dropout = config->lora_dropout;
    op.attr.site = (uint32_t)(LORA_FIRST_SITE + build->layer * MM_LORA_TARGETS + i);
    op.in[0] = x;
    op.in[1] = y;
    snprintf(name, sizeof name, "%s.lora_A", mm_lora_target_part(i));
    op.param[0] = param(build, name, rank, dims.n_in);
    snprintf(name, sizeof name, "%s.lora_B", mm_lora_target_part(i));
    op.param[1] = param(build, name, dims.n_out, rank);
    snprintf(name, sizeof name, "%s.lora", mm_lora_target_name(i));
    op.out[0] = activation(build, name, op.attr.n_out);
    build->graph->tensors[op.out[0]].storage = build->graph->tensors[y].storage;
    snprintf(name, sizeof name, "%s.low", mm_lora_target_name(i));
    op.out[1] = activation(build, name, rank);
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

static int32_t dropout(builder *build, const char *name, int32_t x)
{
    // Every place keeps its number, whether it drops or not.
    const uint32_t site = build->next_site++;
    if (build->config->dropout <= 0) return x;
    mm_graph_op op = new_op(MM_OP_DROPOUT, build->config->hidden_size, build->config->hidden_size);
    op.attr.dropout = build->config->dropout;
    op.attr.site = site;
    op.attr.is_real = build->graph->tensors[x].is_real;
    op.in[0] = x;
    op.out[0] = value(build, name, build->config->hidden_size, op.attr.is_real);
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

// qkv (T,(H+2K)D) to the heads' output (T,HD).
static int32_t attention(builder *build, int32_t qkv)
{
    const mm_model_config *config = build->config;
    const int64_t D = config->head_dim;
    const int64_t rotated = config->num_attention_heads + config->num_key_value_heads;
    const int64_t width = (rotated + config->num_key_value_heads) * D;
    mm_graph_op rope = new_op(MM_OP_QKNORM_ROPE, width, width);
    rope.attr.heads = config->num_attention_heads;
    rope.attr.kv_heads = config->num_key_value_heads;
    rope.attr.head_dim = config->head_dim;
    rope.attr.qk_norm = config->qk_norm;
    rope.attr.eps = config->rms_norm_eps;
    rope.in[0] = qkv;
    rope.out[0] = activation(build, "rope", width);
    if (config->qk_norm) {
        rope.param[0] = param(build, "self_attn.q_norm", D, 1);
        rope.param[1] = param(build, "self_attn.k_norm", D, 1);
        rope.out[1] = value(build, "qk_rstd", rotated, true);
    }
    mm_graph_op_add(build->graph, &rope);

    mm_graph_op op = new_op(MM_OP_ATTENTION, width, config->num_attention_heads * D);
    op.attr = rope.attr;
    op.attr.n_out = config->num_attention_heads * D;
    op.attr.dropout = config->dropout;
    op.attr.site = build->next_site++;
    op.in[0] = rope.out[0];
    op.out[0] = activation(build, "heads", op.attr.n_out);
    op.out[1] = value(build, "lse", config->num_attention_heads, true);
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

static int32_t swiglu(builder *build, int32_t gate_up)
{
    const int64_t F = build->config->intermediate_size;
    mm_graph_op op = new_op(MM_OP_SWIGLU, 2 * F, F);
    op.in[0] = gate_up;
    op.out[0] = activation(build, "swiglu", F);
    mm_graph_op_add(build->graph, &op);
    return op.out[0];
}

// Adds `update`, the result of the layer before, to the stream *x; returns this layer's result.
static int32_t decoder_layer(builder *build, int32_t *x, int32_t update)
{
    const mm_model_config *config = build->config;
    const int64_t C = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t q_width = config->num_attention_heads * D;
    const int64_t kv_width = config->num_key_value_heads * D;
    const int64_t F = config->intermediate_size;
    int32_t h = norm(build, "input_layernorm", "norm1", x, update);
    int32_t y = linear(build, "self_attn.q_proj", "qkv", h, C,
                       q_width + 2 * kv_width); // query, key and value lie side by side
    y = adapter(build, MM_LORA_Q_PROJ, h, y, 0);
    y = adapter(build, MM_LORA_K_PROJ, h, y, q_width);
    y = adapter(build, MM_LORA_V_PROJ, h, y, q_width + kv_width);
    h = attention(build, y);
    y = linear(build, "self_attn.o_proj", "attn", h, q_width, C);
    y = adapter(build, MM_LORA_O_PROJ, h, y, 0);
    y = dropout(build, "attn_drop", y);
    h = norm(build, "post_attention_layernorm", "norm2", x, y);
    y = linear(build, "mlp.gate_proj", "gate_up", h, C, 2 * F); // gate and up lie side by side
    y = adapter(build, MM_LORA_GATE_PROJ, h, y, 0);
    y = adapter(build, MM_LORA_UP_PROJ, h, y, F);
    h = swiglu(build, y);
    y = linear(build, "mlp.down_proj", "ffn", h, F, C);
    y = adapter(build, MM_LORA_DOWN_PROJ, h, y, 0);
    return config->ffn_dropout ? dropout(build, "ffn_drop", y) : y;
}

void mm_graph_decoder_build(mm_graph *graph, const mm_model_config *config,
                            const mm_model_table *table)
{
    builder build = {graph, config, table, MM_NONE, 0};
    const int64_t V = config->vocab_size;
    const int64_t C = config->hidden_size;
    mm_graph_op embed = new_op(MM_OP_EMBED, V, C);
    embed.param[0] = param(&build, "embed_tokens", V, C);
    embed.out[0] = value(&build, "embed", C, true);
    mm_graph_op_add(graph, &embed);
    int32_t x = dropout(&build, "embed_drop", embed.out[0]);
    int32_t update = MM_NONE;
    for (build.layer = 0; build.layer < config->num_hidden_layers; build.layer++)
        update = decoder_layer(&build, &x, update);
    build.layer = MM_NONE;
    graph->hidden = norm(&build, "norm", "hidden", &x, update);

    mm_graph_op head = new_op(MM_OP_HEAD_CE, C, V);
    head.in[0] = graph->hidden;
    head.param[0] = embed.param[0];
    if (!config->tie_word_embeddings) {
        const mm_tensor *tensor = mm_model_table_find(table, "lm_head.weight");
        MM_ASSERT(tensor);
        head.param[0] = mm_graph_tensor_add(graph, "lm_head.weight", MM_CLASS_PARAM, V, C,
                                            tensor->offset, true);
    }
    mm_graph_op_add(graph, &head);
}
