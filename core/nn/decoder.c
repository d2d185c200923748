/* The forward pass over key-value caches. See decoder.h.
 *
 * Work is cut by shapes, never by threads. In the last layer only the positions whose logits are
 * wanted go on after attention.
 */
#include "core/nn/decoder.h"

#include "core/base/mem.h"
#include "core/nn/lora.h"

#include <stdio.h>
#include <string.h>

enum {
    PASS_TOKENS = 256, // ids of one pass: whole row blocks, and enough for the matrix kernel
    MAX_POSITIONS = 1 << 24,
    LINE = 64
};

typedef struct packed_weight {
    const mm_tensor *source; // the first of the weights that lie side by side
    void *packed;
    int64_t n_in;
    int64_t n_out;
} packed_weight;

typedef struct layer_weights {
    const void *input_norm; // (C)
    const void *q_norm;     // (D), NULL without QK-norm
    const void *k_norm;     // (D)
    const void *post_norm;  // (C)
    packed_weight qkv;      // ((H+2K)D, C)
    packed_weight o_proj;   // (C, HD)
    packed_weight gate_up;  // (2F, C)
    packed_weight down;     // (C, F)
    void *keys;             // caches, see decode.h
    void *values;
} layer_weights;

struct mm_decoder {
    mm_model_config config;
    const mm_model *model;
    const mm_backend *backend;
    mm_pool *pool;
    mm_pass pass;
    mm_batch batch;
    int32_t max_tokens;
    int32_t n_rows;
    int32_t capacity; // ids of one pass
    int64_t cache_positions;
    char *memory; // one block that all below point into
    layer_weights *layers;
    const void *embedding; // (V, C)
    const void *final_norm;
    packed_weight head; // (V, C)
    float *merged;      // weights with their adapters, one after the other; NULL: none
    mm_cache_block *blocks;
    int32_t *positions;
    void *rope_cos; // (max_tokens, D/2)
    void *rope_sin;
    void *x;       // (T, C) residual stream, real
    void *h;       // (T, C) normalised
    void *update;  // (T, C) what the stream takes in next
    void *rstd;    // (T, H+K), real
    void *qkv;     // (T, (H+2K)D)
    void *rotated; // the same after QK-norm and RoPE
    void *heads;   // (T, HD)
    void *gate_up; // (T, 2F)
    void *ffn;     // (T, F)
    void *logits;  // (rows, V), real
};

static const mm_tensor *tensor_named(const mm_model *model, const char *name)
{
    const mm_tensor *tensor = mm_model_find(model, name);
    MM_ASSERT(tensor);
    return tensor;
}

static const mm_tensor *layer_tensor(const mm_model *model, int32_t layer, const char *part)
{
    char name[sizeof((mm_tensor *)0)->name];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
    return tensor_named(model, name);
}

// Query, key and value projections lie side by side in the model, as gate and up do.
static void find_weights(mm_decoder *decoder)
{
    const mm_model *model = decoder->model;
    const mm_model_config *config = &decoder->config;
    for (int32_t i = 0; i < config->num_hidden_layers; i++) {
        layer_weights *layer = &decoder->layers[i];
        layer->input_norm = layer_tensor(model, i, "input_layernorm")->data;
        layer->qkv.source = layer_tensor(model, i, "self_attn.q_proj");
        layer->o_proj.source = layer_tensor(model, i, "self_attn.o_proj");
        if (config->qk_norm) {
            layer->q_norm = layer_tensor(model, i, "self_attn.q_norm")->data;
            layer->k_norm = layer_tensor(model, i, "self_attn.k_norm")->data;
        }
        layer->post_norm = layer_tensor(model, i, "post_attention_layernorm")->data;
        layer->gate_up.source = layer_tensor(model, i, "mlp.gate_proj");
        layer->down.source = layer_tensor(model, i, "mlp.down_proj");
    }
    decoder->head.source = tensor_named(
        model, config->tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    decoder->embedding = tensor_named(model, "model.embed_tokens.weight")->data;
    decoder->final_norm = tensor_named(model, "model.norm.weight")->data;
}

/* Hands out pieces of one block: run once without memory to measure, once with it. */
typedef struct carver {
    char *memory; // NULL while measuring
    size_t bytes;
    bool is_ok; // no size has overflowed
} carver;

static void *carve(carver *from, int64_t rows, int64_t columns, size_t element_bytes)
{
    size_t bytes;
    const bool is_ok = mm_mul_ok((size_t)rows, (size_t)columns, &bytes) &&
                       mm_mul_ok(bytes, element_bytes, &bytes) &&
                       mm_add_ok(bytes, LINE - 1, &bytes);
    const size_t at = from->bytes;
    bytes -= bytes % LINE;
    from->is_ok = from->is_ok && is_ok && mm_add_ok(from->bytes, bytes, &from->bytes);
    return from->memory && from->is_ok ? from->memory + at : NULL;
}

static packed_weight carve_weight(const mm_decoder *decoder, carver *from, int64_t n_in,
                                  int64_t n_out)
{
    const size_t bytes = decoder->backend->packed_bytes(n_in, n_out, false);
    return (packed_weight){NULL, carve(from, 1, (int64_t)bytes, 1), n_in, n_out};
}

static void lay_out_layer(const mm_decoder *decoder, carver *from, layer_weights *layer)
{
    const mm_model_config *config = &decoder->config;
    const int64_t C = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t K = config->num_key_value_heads;
    const int64_t HD = config->num_attention_heads * D;
    const int64_t F = config->intermediate_size;
    const size_t act_bytes = decoder->backend->act_bytes;
    const layer_weights placed = {
        .qkv = carve_weight(decoder, from, C, HD + 2 * K * D),
        .o_proj = carve_weight(decoder, from, HD, C),
        .gate_up = carve_weight(decoder, from, C, 2 * F),
        .down = carve_weight(decoder, from, F, C),
        .keys = carve(from, decoder->n_rows, decoder->cache_positions * K * D, act_bytes),
        .values = carve(from, decoder->n_rows, decoder->cache_positions * K * D, act_bytes)};
    if (layer) *layer = placed;
}

static void lay_out(mm_decoder *decoder, carver *from)
{
    const mm_model_config *config = &decoder->config;
    const int64_t C = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t H = config->num_attention_heads;
    const int64_t K = config->num_key_value_heads;
    const int64_t F = config->intermediate_size;
    const int64_t T = decoder->capacity;
    const size_t real_bytes = decoder->backend->real_bytes;
    const size_t act_bytes = decoder->backend->act_bytes;
    const size_t gemm_bytes = decoder->backend->gemm_need().thread_bytes;
    const size_t cache_bytes =
        decoder->backend->decode->cache_need(decoder->cache_positions, config->head_dim)
            .thread_bytes;
    mm_workspace *work = &decoder->pass.work;
    work->thread_bytes = gemm_bytes > cache_bytes ? gemm_bytes : cache_bytes;
    work->thread_bytes = (work->thread_bytes + LINE - 1) / LINE * LINE;
    work->thread = carve(from, mm_pool_threads(decoder->pool), (int64_t)work->thread_bytes, 1);
    decoder->layers = carve(from, config->num_hidden_layers, 1, sizeof *decoder->layers);
    decoder->blocks = carve(from, T, 1, sizeof *decoder->blocks);
    decoder->positions = carve(from, T, 1, sizeof *decoder->positions);
    decoder->rope_cos = carve(from, decoder->max_tokens, D / 2, real_bytes);
    decoder->rope_sin = carve(from, decoder->max_tokens, D / 2, real_bytes);
    decoder->x = carve(from, T, C, real_bytes);
    decoder->h = carve(from, T, C, act_bytes);
    decoder->update = carve(from, T, C, act_bytes);
    decoder->rstd = carve(from, T, H + K, real_bytes);
    decoder->qkv = carve(from, T, (H + 2 * K) * D, act_bytes);
    decoder->rotated = carve(from, T, (H + 2 * K) * D, act_bytes);
    decoder->heads = carve(from, T, H * D, act_bytes);
    decoder->gate_up = carve(from, T, 2 * F, act_bytes);
    decoder->ffn = carve(from, T, F, act_bytes);
    decoder->logits = carve(from, decoder->n_rows, config->vocab_size, real_bytes);
    decoder->head = carve_weight(decoder, from, C, config->vocab_size);
    if (config->lora_rank > 0) {
        const int64_t widest = (H + 2 * K) * D > 2 * F ? (H + 2 * K) * D : 2 * F;
        decoder->merged = carve(from, widest, C, sizeof *decoder->merged);
    }
    for (int32_t i = 0; i < config->num_hidden_layers; i++)
        lay_out_layer(decoder, from, decoder->layers ? &decoder->layers[i] : NULL);
}

static mm_status take_memory(mm_decoder *decoder, mm_err *err)
{
    carver from = {.is_ok = true};
    lay_out(decoder, &from);
    if (from.is_ok) decoder->memory = mm_alloc_aligned(from.bytes);
    if (!decoder->memory)
        return MM_FAIL(err, MM_ENOMEM, "%d rows of %d positions take %zu bytes", decoder->n_rows,
                       decoder->max_tokens, from.bytes);
    from = (carver){.memory = decoder->memory, .is_ok = true};
    lay_out(decoder, &from);
    return MM_OK;
}

static mm_status check_options(const mm_model *model, const mm_generator_options *options,
                               mm_err *err)
{
    const int32_t limit = mm_model_config_of(model)->max_position_embeddings;
    if (mm_model_dtype(model) != MM_F32)
        return MM_FAIL(err, MM_EUSAGE, "text is generated from fp32 models only");
    if (options->max_tokens < 2 || options->max_tokens > MAX_POSITIONS ||
        options->max_tokens > limit)
        return MM_FAIL(err, MM_ELIMIT,
                       "a cache of %d positions: expected 2 to %d, the model's limit",
                       options->max_tokens, limit);
    if (options->rows < 0 || options->rows > MM_GENERATOR_MAX_ROWS)
        return MM_FAIL(err, MM_ELIMIT, "%d rows: expected 1 to %d", options->rows,
                       MM_GENERATOR_MAX_ROWS);
    return MM_OK;
}

static int64_t cache_positions_of(const mm_generator_options *options)
{
    return ((int64_t)options->max_tokens + MM_KEY_TILE - 1) / MM_KEY_TILE * MM_KEY_TILE;
}

int64_t mm_generator_row_bytes(const mm_model_config *config, const mm_generator_options *options)
{
    const mm_backend *backend = mm_backend_of(options->bf16 ? MM_BF16 : MM_F32);
    const int64_t values = 2 * (int64_t)config->num_key_value_heads * config->head_dim;
    return config->num_hidden_layers * cache_positions_of(options) * values *
           (int64_t)backend->act_bytes;
}

mm_status mm_decoder_new(mm_decoder **out, const mm_model *model,
                         const mm_generator_options *options, mm_err *err)
{
    *out = NULL;
    MM_TRY(check_options(model, options, err));
    mm_decoder *decoder = mm_calloc(1, sizeof *decoder);
    if (!decoder) return MM_FAIL(err, MM_ENOMEM, "decoder");
    mm_status status = MM_OK;
    decoder->config = *mm_model_config_of(model);
    decoder->model = model;
    decoder->backend = mm_backend_of(options->bf16 ? MM_BF16 : MM_F32);
    MM_ASSERT(decoder->backend->real_bytes == sizeof(float));
    decoder->max_tokens = options->max_tokens;
    decoder->n_rows = options->rows > 0 ? options->rows : 1;
    decoder->capacity = decoder->n_rows > PASS_TOKENS ? decoder->n_rows : PASS_TOKENS;
    decoder->cache_positions = cache_positions_of(options);
    MM_GO(mm_pool_new(&decoder->pool, options->threads, err));
    MM_GO(take_memory(decoder, err));
    find_weights(decoder);
    decoder->backend->rope_tables(decoder->rope_cos, decoder->rope_sin, decoder->max_tokens,
                                  decoder->config.head_dim, decoder->config.rope_theta);
    decoder->pass.batch = &decoder->batch;
    decoder->pass.positions = decoder->positions;
    decoder->pass.rope_cos = decoder->rope_cos;
    decoder->pass.rope_sin = decoder->rope_sin;
    decoder->pass.work.pool = decoder->pool;
    mm_decoder_reload(decoder);
    *out = decoder;
    decoder = NULL;
done:
    mm_decoder_free(decoder);
    return status;
}

void mm_decoder_free(mm_decoder *decoder)
{
    if (!decoder) return;
    mm_free(decoder->memory);
    mm_pool_free(decoder->pool);
    mm_free(decoder);
}

// The weight as it stands in the model, or with its adapters added.
static const void *values_of(const mm_decoder *decoder, const packed_weight *weight)
{
    if (!decoder->merged || weight == &decoder->head) return weight->source->data;
    int64_t rows = 0;
    for (const mm_tensor *part = weight->source; rows < weight->n_out; part++) {
        mm_lora_merged(decoder->model, part->name, decoder->merged + rows * weight->n_in);
        rows += part->shape[0];
    }
    MM_ASSERT(rows == weight->n_out);
    return decoder->merged;
}

static void pack(const mm_decoder *decoder, const packed_weight *weight)
{
    decoder->backend->pack_weight(&decoder->pass.work, values_of(decoder, weight), weight->n_in,
                                  weight->n_out, false, weight->packed);
}

void mm_decoder_reload(mm_decoder *decoder)
{
    for (int32_t i = 0; i < decoder->config.num_hidden_layers; i++) {
        const layer_weights *layer = &decoder->layers[i];
        pack(decoder, &layer->qkv);
        pack(decoder, &layer->o_proj);
        pack(decoder, &layer->gate_up);
        pack(decoder, &layer->down);
    }
    pack(decoder, &decoder->head);
}

int32_t mm_decoder_capacity(const mm_decoder *decoder) { return decoder->capacity; }
mm_pool *mm_decoder_pool(const mm_decoder *decoder) { return decoder->pool; }

static void run_op(mm_decoder *decoder, mm_op_kind kind, const mm_op_attr *attr,
                   const mm_op_args *args)
{
    mm_op_args full = *args;
    full.pass = &decoder->pass;
    full.attr = attr;
    decoder->backend->ops[kind].forward(&full);
}

/* h = RMSNorm(x) with weight w; the stream x takes in the update first, if there is one. */
static void normalize(mm_decoder *decoder, const void *w, bool has_update)
{
    const int64_t C = decoder->config.hidden_size;
    const mm_op_attr attr = {.n_in = C, .n_out = C, .eps = decoder->config.rms_norm_eps};
    run_op(decoder, has_update ? MM_OP_ADD_RMSNORM : MM_OP_RMSNORM, &attr,
           &(mm_op_args){.in = {decoder->x, has_update ? decoder->update : NULL},
                         .param = {w},
                         .out = {decoder->h, decoder->rstd, decoder->x}});
}

/* y (T, n_out) = x (T, n_in) w^T */
static void project(mm_decoder *decoder, const packed_weight *weight, const void *x, void *y,
                    bool y_is_real)
{
    decoder->backend->gemm_weight(&decoder->pass.work, decoder->batch.n_tokens, weight->n_in,
                                  weight->n_out, (mm_matrix){x, weight->n_in, 1, false},
                                  weight->packed, (mm_target){y, weight->n_out, y_is_real, false});
}

/* heads = attention(h) over the caches, which take in the keys and values of the pass. */
static void attend(mm_decoder *decoder, const layer_weights *layer, int64_t n_blocks)
{
    const mm_model_config *config = &decoder->config;
    const int64_t D = config->head_dim;
    const int64_t width = (config->num_attention_heads + 2 * config->num_key_value_heads) * D;
    const mm_op_attr attr = {.n_in = width,
                             .n_out = width,
                             .heads = config->num_attention_heads,
                             .kv_heads = config->num_key_value_heads,
                             .head_dim = config->head_dim,
                             .qk_norm = config->qk_norm,
                             .eps = config->rms_norm_eps};
    project(decoder, &layer->qkv, decoder->h, decoder->qkv, false);
    run_op(decoder, MM_OP_QKNORM_ROPE, &attr,
           &(mm_op_args){.in = {decoder->qkv},
                         .param = {layer->q_norm, layer->k_norm},
                         .out = {decoder->rotated, decoder->rstd}});
    const mm_cache_args cache = {.work = &decoder->pass.work,
                                 .x = decoder->rotated,
                                 .out = decoder->heads,
                                 .keys = layer->keys,
                                 .values = layer->values,
                                 .row_stride =
                                     decoder->cache_positions * config->num_key_value_heads * D,
                                 .capacity = decoder->cache_positions,
                                 .blocks = decoder->blocks,
                                 .n_blocks = n_blocks,
                                 .heads = config->num_attention_heads,
                                 .kv_heads = config->num_key_value_heads,
                                 .head_dim = config->head_dim};
    decoder->backend->decode->cache_put(&cache);
    decoder->backend->decode->cache_attend(&cache);
}

/* update = down(silu(gate(h)) up(h)) */
static void feed_forward(mm_decoder *decoder, const layer_weights *layer)
{
    const int64_t F = decoder->config.intermediate_size;
    const mm_op_attr attr = {.n_in = 2 * F, .n_out = F};
    project(decoder, &layer->gate_up, decoder->h, decoder->gate_up, false);
    run_op(decoder, MM_OP_SWIGLU, &attr,
           &(mm_op_args){.in = {decoder->gate_up}, .out = {decoder->ffn}});
    project(decoder, &layer->down, decoder->ffn, decoder->update, false);
}

/* Positions of all ids, and the blocks they are attended in; returns the number of blocks. */
static int64_t place_spans(mm_decoder *decoder, const mm_span *spans, int32_t n_spans,
                           const int32_t *ids)
{
    int64_t n_blocks = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < n_spans; i++) {
        const mm_span *span = &spans[i];
        MM_ASSERT(span->row >= 0 && span->row < decoder->n_rows);
        MM_ASSERT(span->count > 0 && n + span->count <= decoder->capacity);
        MM_ASSERT(span->first >= 0 && span->first + span->count <= decoder->max_tokens);
        for (int32_t at = 0; at < span->count; at += MM_CACHE_BLOCK) {
            const int32_t left = span->count - at;
            decoder->blocks[n_blocks++] = (mm_cache_block){
                span->row, span->first + at, n + at, left < MM_CACHE_BLOCK ? left : MM_CACHE_BLOCK};
        }
        for (int32_t at = 0; at < span->count; at++)
            decoder->positions[n + at] = span->first + at;
        n += span->count;
    }
    decoder->batch = (mm_batch){.n_tokens = n, .tokens = ids};
    return n_blocks;
}

/* Moves the rows of the last ids of the spans that want logits to the front. */
static void keep_wanted(const mm_span *spans, int32_t n_spans, void *values, size_t row_bytes)
{
    char *rows = values;
    int32_t kept = 0;
    int32_t end = 0;
    for (int32_t i = 0; i < n_spans; i++) {
        end += spans[i].count;
        if (!spans[i].wants_logits) continue;
        memmove(rows + (size_t)kept * row_bytes, rows + (size_t)(end - 1) * row_bytes, row_bytes);
        kept++;
    }
}

const float *mm_decoder_run(mm_decoder *decoder, const mm_span *spans, int32_t n_spans,
                            const int32_t *ids)
{
    const mm_model_config *config = &decoder->config;
    const size_t act_bytes = decoder->backend->act_bytes;
    const size_t C = (size_t)config->hidden_size;
    const size_t HD = (size_t)config->num_attention_heads * (size_t)config->head_dim;
    const mm_op_attr attr = {.n_out = config->hidden_size};
    const int64_t n_blocks = place_spans(decoder, spans, n_spans, ids);
    int32_t n_wanted = 0;
    for (int32_t i = 0; i < n_spans; i++)
        n_wanted += spans[i].wants_logits;
    run_op(decoder, MM_OP_EMBED, &attr,
           &(mm_op_args){.param = {decoder->embedding}, .out = {decoder->x}});
    for (int32_t i = 0; i < config->num_hidden_layers; i++) {
        const layer_weights *layer = &decoder->layers[i];
        normalize(decoder, layer->input_norm, i > 0);
        attend(decoder, layer, n_blocks);
        if (i + 1 == config->num_hidden_layers) {
            keep_wanted(spans, n_spans, decoder->x, C * decoder->backend->real_bytes);
            keep_wanted(spans, n_spans, decoder->heads, HD * act_bytes);
            decoder->batch.n_tokens = n_wanted;
            if (n_wanted == 0) return NULL;
        }
        project(decoder, &layer->o_proj, decoder->heads, decoder->update, false);
        normalize(decoder, layer->post_norm, true);
        feed_forward(decoder, layer);
    }
    normalize(decoder, decoder->final_norm, true);
    project(decoder, &decoder->head, decoder->h, decoder->logits, true);
    return decoder->logits;
}
