/* Generation with a key-value cache. See generate.h.
 *
 * The row of ids is fed in blocks: a block of several ids goes through matrix products, a single id
 * through matrix-vector products; both use the operations of the training graph for everything
 * else, so that a formula exists once. Work is cut by shapes, never by threads: the same row gives
 * the same logits with any number of threads. All memory is taken by mm_generator_new.
 */
#include "core/nn/generate.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/nn/decode.h"
#include "core/nn/sample.h"

#include <stdio.h>

enum {
    PREFILL_BLOCK = 192, // ids per block: as many as the matrix kernel keeps in cache
    MAX_POSITIONS = 1 << 24
};

typedef struct layer_weights {
    const float *input_norm; /* (C) */
    const float *q_proj;     /* (HD, C) */
    const float *k_proj;     /* (KD, C) */
    const float *v_proj;     /* (KD, C) */
    const float *o_proj;     /* (C, HD) */
    const float *q_norm;     /* (D), NULL without QK-norm */
    const float *k_norm;     /* (D) */
    const float *post_norm;  /* (C) */
    const float *gate_proj;  /* (F, C) */
    const float *up_proj;    /* (F, C) */
    const float *down_proj;  /* (C, F) */
    float *keys;             /* cache, see decode.h */
    float *values;
} layer_weights;

struct mm_generator {
    mm_model_config config;
    const mm_backend *backend;
    const mm_decode_kernels *kernels;
    mm_pool *pool;
    mm_sampler *sampler;
    mm_pass pass;
    mm_batch batch;
    int32_t max_tokens;
    int32_t n_tokens; /* positions in the cache */
    int64_t capacity; /* max_tokens rounded up to whole key tiles */
    layer_weights *layers;
    const float *embedding; /* (V, C) */
    const float *final_norm;
    const float *head; /* (V, C), the embedding when tied */
    char *memory;      /* one block that all below point into */
    int32_t positions[PREFILL_BLOCK];
    float *rope_cos; /* (max_tokens, D/2) */
    float *rope_sin;
    float *x;       /* (block, C) residual stream */
    float *h;       /* (block, C) normalised */
    float *rstd;    /* (block, H+K) or (block) */
    float *qkv;     /* (block, (H+2K)D) */
    float *rotated; /* the same after QK-norm and RoPE */
    float *mixed;   /* (block, HD) */
    float *gate_up; /* (block, 2F) */
    float *ffn;     /* (block, F) */
    float *logits;  /* (V) of the last id fed */
};

const char *mm_finish_text(mm_finish finish)
{
    static const char *const texts[] = {"stop", "length", "canceled"};
    return finish <= MM_FINISH_CANCELED ? texts[finish] : "unknown";
}

static const float *weight_named(const mm_model *model, const char *name)
{
    const mm_tensor *tensor = mm_model_find(model, name);
    MM_ASSERT(tensor);
    return tensor->data;
}

static const float *layer_weight(const mm_model *model, int32_t layer, const char *part)
{
    char name[sizeof((mm_tensor *)0)->name];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
    return weight_named(model, name);
}

static void find_weights(mm_generator *generator, const mm_model *model)
{
    const mm_model_config *config = &generator->config;
    for (int32_t i = 0; i < config->num_hidden_layers; i++) {
        layer_weights *layer = &generator->layers[i];
        layer->input_norm = layer_weight(model, i, "input_layernorm");
        layer->q_proj = layer_weight(model, i, "self_attn.q_proj");
        layer->k_proj = layer_weight(model, i, "self_attn.k_proj");
        layer->v_proj = layer_weight(model, i, "self_attn.v_proj");
        layer->o_proj = layer_weight(model, i, "self_attn.o_proj");
        if (config->qk_norm) {
            layer->q_norm = layer_weight(model, i, "self_attn.q_norm");
            layer->k_norm = layer_weight(model, i, "self_attn.k_norm");
        }
        layer->post_norm = layer_weight(model, i, "post_attention_layernorm");
        layer->gate_proj = layer_weight(model, i, "mlp.gate_proj");
        layer->up_proj = layer_weight(model, i, "mlp.up_proj");
        layer->down_proj = layer_weight(model, i, "mlp.down_proj");
    }
    generator->embedding = weight_named(model, "model.embed_tokens.weight");
    generator->final_norm = weight_named(model, "model.norm.weight");
    generator->head =
        config->tie_word_embeddings ? generator->embedding : weight_named(model, "lm_head.weight");
}

/* Hands out pieces of one block: run once without memory to measure, once with it. */
typedef struct carver {
    char *memory; /* NULL while measuring */
    size_t bytes;
    bool is_ok; /* no size has overflowed */
} carver;

static void *carve(carver *from, int64_t rows, int64_t columns, size_t element_bytes)
{
    enum { ALIGN = 64 };
    size_t bytes;
    const bool is_ok = mm_mul_ok((size_t)rows, (size_t)columns, &bytes) &&
                       mm_mul_ok(bytes, element_bytes, &bytes) &&
                       mm_add_ok(bytes, ALIGN - 1, &bytes);
    const size_t at = from->bytes;
    bytes -= bytes % ALIGN;
    from->is_ok = from->is_ok && is_ok && mm_add_ok(from->bytes, bytes, &from->bytes);
    return from->memory && from->is_ok ? from->memory + at : NULL;
}

static float *carve_floats(carver *from, int64_t rows, int64_t columns)
{
    return carve(from, rows, columns, sizeof(float));
}

static void lay_out(mm_generator *generator, carver *from)
{
    const mm_model_config *config = &generator->config;
    const int64_t C = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t H = config->num_attention_heads;
    const int64_t K = config->num_key_value_heads;
    const int64_t F = config->intermediate_size;
    const int64_t block = PREFILL_BLOCK;
    const int32_t threads = mm_pool_threads(generator->pool);
    const size_t gemm_bytes = generator->backend->gemm_need().thread_bytes;
    const size_t cache_bytes = generator->kernels->cache_need(generator->capacity).thread_bytes;
    mm_workspace *work = &generator->pass.work;
    work->thread_bytes = ((gemm_bytes > cache_bytes ? gemm_bytes : cache_bytes) + 63) / 64 * 64;
    work->thread = carve(from, threads, (int64_t)work->thread_bytes, 1);
    generator->layers = carve(from, config->num_hidden_layers, 1, sizeof *generator->layers);
    generator->rope_cos = carve_floats(from, generator->max_tokens, D / 2);
    generator->rope_sin = carve_floats(from, generator->max_tokens, D / 2);
    generator->x = carve_floats(from, block, C);
    generator->h = carve_floats(from, block, C);
    generator->rstd = carve_floats(from, block, H + K);
    generator->qkv = carve_floats(from, block, (H + 2 * K) * D);
    generator->rotated = carve_floats(from, block, (H + 2 * K) * D);
    generator->mixed = carve_floats(from, block, H * D);
    generator->gate_up = carve_floats(from, block, 2 * F);
    generator->ffn = carve_floats(from, block, F);
    generator->logits = carve_floats(from, 1, config->vocab_size);
    for (int32_t i = 0; i < config->num_hidden_layers; i++) {
        float *keys = carve_floats(from, generator->capacity, K * D);
        float *values = carve_floats(from, generator->capacity, K * D);
        if (!generator->layers) continue;
        generator->layers[i].keys = keys;
        generator->layers[i].values = values;
    }
}

static mm_status take_memory(mm_generator *generator, mm_err *err)
{
    carver from = {.is_ok = true};
    lay_out(generator, &from);
    if (from.is_ok) generator->memory = mm_alloc_aligned(from.bytes);
    if (!generator->memory)
        return MM_FAIL(err, MM_ENOMEM, "a cache of %d positions takes %zu bytes",
                       generator->max_tokens, from.bytes);
    from = (carver){.memory = generator->memory, .is_ok = true};
    lay_out(generator, &from);
    return MM_OK;
}

mm_status mm_generator_new(mm_generator **out, const mm_model *model, int32_t max_tokens,
                           int32_t threads, mm_err *err)
{
    *out = NULL;
    const mm_model_config *config = mm_model_config_of(model);
    if (mm_model_dtype(model) != MM_F32)
        return MM_FAIL(err, MM_EUSAGE, "text is generated from fp32 models only");
    if (max_tokens < 2 || max_tokens > MAX_POSITIONS ||
        max_tokens > config->max_position_embeddings)
        return MM_FAIL(err, MM_ELIMIT,
                       "a cache of %d positions: expected 2 to %d, the model's limit", max_tokens,
                       config->max_position_embeddings);
    mm_generator *generator = mm_calloc(1, sizeof *generator);
    if (!generator) return MM_FAIL(err, MM_ENOMEM, "generator");
    mm_status status = MM_OK;
    generator->config = *config;
    generator->backend = mm_backend_of(MM_F32);
    generator->kernels = generator->backend->decode;
    generator->max_tokens = max_tokens;
    generator->capacity = ((int64_t)max_tokens + MM_KEY_TILE - 1) / MM_KEY_TILE * MM_KEY_TILE;
    MM_GO(mm_pool_new(&generator->pool, threads, err));
    MM_GO(mm_sampler_new(&generator->sampler, config->vocab_size, err));
    MM_GO(take_memory(generator, err));
    find_weights(generator, model);
    generator->backend->rope_tables(generator->rope_cos, generator->rope_sin, max_tokens,
                                    config->head_dim, config->rope_theta);
    generator->pass.batch = &generator->batch;
    generator->pass.positions = generator->positions;
    generator->pass.rope_cos = generator->rope_cos;
    generator->pass.rope_sin = generator->rope_sin;
    generator->pass.work.pool = generator->pool;
    *out = generator;
    generator = NULL;
done:
    mm_generator_free(generator);
    return status;
}

void mm_generator_free(mm_generator *generator)
{
    if (!generator) return;
    mm_free(generator->memory);
    mm_sampler_free(generator->sampler);
    mm_pool_free(generator->pool);
    mm_free(generator);
}

void mm_generator_reset(mm_generator *generator)
{
    generator->n_tokens = 0;
    mm_sampler_reset(generator->sampler);
}

int32_t mm_generator_tokens(const mm_generator *generator) { return generator->n_tokens; }

static void run_op(mm_generator *generator, mm_op_kind kind, const mm_op_attr *attr,
                   const mm_op_args *args)
{
    mm_op_args full = *args;
    full.pass = &generator->pass;
    full.attr = attr;
    generator->backend->ops[kind].forward(&full);
}

/* y (T,C) = RMSNorm(x (T,C)) with weight w. */
static void normalize(mm_generator *generator, float *y, const float *x, const float *w)
{
    const mm_op_attr attr = {.n_in = generator->config.hidden_size,
                             .n_out = generator->config.hidden_size,
                             .eps = generator->config.rms_norm_eps};
    run_op(generator, MM_OP_RMSNORM, &attr,
           &(mm_op_args){.in = {x}, .param = {w}, .out = {y, generator->rstd}});
}

/* For every row: each part's y (+)= w x. `stride` is that of the rows of y. */
static void project(mm_generator *generator, const float *x, int64_t n_in,
                    const mm_matvec_part *parts, int32_t n_parts, int64_t stride)
{
    const mm_workspace *work = &generator->pass.work;
    const int64_t rows = generator->batch.n_tokens;
    if (rows == 1) {
        generator->kernels->matvec(work, n_in, x, parts, n_parts);
        return;
    }
    for (int32_t i = 0; i < n_parts; i++)
        generator->backend->gemm(work, rows, parts[i].n_out, n_in, (mm_matrix){x, n_in, 1, true},
                                 (mm_matrix){parts[i].w, 1, n_in, true},
                                 (mm_target){parts[i].y, stride, true, parts[i].add});
}

/* x += o_proj(attention(RMSNorm(x))) */
static void attend(mm_generator *generator, const layer_weights *layer)
{
    const mm_model_config *config = &generator->config;
    const int64_t C = config->hidden_size;
    const int64_t HD = (int64_t)config->num_attention_heads * config->head_dim;
    const int64_t KD = (int64_t)config->num_key_value_heads * config->head_dim;
    const mm_op_attr attr = {.n_in = HD + 2 * KD,
                             .n_out = HD + 2 * KD,
                             .heads = config->num_attention_heads,
                             .kv_heads = config->num_key_value_heads,
                             .head_dim = config->head_dim,
                             .qk_norm = config->qk_norm,
                             .eps = config->rms_norm_eps};
    normalize(generator, generator->h, generator->x, layer->input_norm);
    const mm_matvec_part qkv[] = {{layer->q_proj, generator->qkv, HD, false},
                                  {layer->k_proj, generator->qkv + HD, KD, false},
                                  {layer->v_proj, generator->qkv + HD + KD, KD, false}};
    project(generator, generator->h, C, qkv, 3, HD + 2 * KD);
    run_op(generator, MM_OP_QKNORM_ROPE, &attr,
           &(mm_op_args){.in = {generator->qkv},
                         .param = {layer->q_norm, layer->k_norm},
                         .out = {generator->rotated, generator->rstd}});
    const mm_cache_args cache = {.work = &generator->pass.work,
                                 .x = generator->rotated,
                                 .out = generator->mixed,
                                 .keys = layer->keys,
                                 .values = layer->values,
                                 .capacity = generator->capacity,
                                 .n = generator->batch.n_tokens,
                                 .first = generator->n_tokens,
                                 .heads = config->num_attention_heads,
                                 .kv_heads = config->num_key_value_heads,
                                 .head_dim = config->head_dim};
    generator->kernels->cache_put(&cache);
    generator->kernels->cache_attend(&cache);
    project(generator, generator->mixed, HD,
            &(mm_matvec_part){layer->o_proj, generator->x, C, true}, 1, C);
}

/* x += down(silu(gate(h)) up(h)), h = RMSNorm(x) */
static void feed_forward(mm_generator *generator, const layer_weights *layer)
{
    const int64_t C = generator->config.hidden_size;
    const int64_t F = generator->config.intermediate_size;
    const mm_op_attr attr = {.n_in = 2 * F, .n_out = F};
    normalize(generator, generator->h, generator->x, layer->post_norm);
    const mm_matvec_part gate_up[] = {{layer->gate_proj, generator->gate_up, F, false},
                                      {layer->up_proj, generator->gate_up + F, F, false}};
    project(generator, generator->h, C, gate_up, 2, 2 * F);
    run_op(generator, MM_OP_SWIGLU, &attr,
           &(mm_op_args){.in = {generator->gate_up}, .out = {generator->ffn}});
    project(generator, generator->ffn, F,
            &(mm_matvec_part){layer->down_proj, generator->x, C, true}, 1, C);
}

/* One block of at most PREFILL_BLOCK ids through all layers. */
static void feed_block(mm_generator *generator, const int32_t *ids, int32_t count)
{
    const mm_op_attr attr = {.n_out = generator->config.hidden_size};
    generator->batch = (mm_batch){.n_tokens = count, .tokens = ids};
    for (int32_t i = 0; i < count; i++)
        generator->positions[i] = generator->n_tokens + i;
    run_op(generator, MM_OP_EMBED, &attr,
           &(mm_op_args){.param = {generator->embedding}, .out = {generator->x}});
    for (int32_t i = 0; i < generator->config.num_hidden_layers; i++) {
        attend(generator, &generator->layers[i]);
        feed_forward(generator, &generator->layers[i]);
    }
    generator->n_tokens += count;
}

mm_status mm_generator_feed(mm_generator *generator, const int32_t *ids, int32_t count,
                            const float **logits, mm_err *err)
{
    const int32_t room = generator->max_tokens - generator->n_tokens;
    if (count < 1) return MM_FAIL(err, MM_EUSAGE, "expected at least 1 token, found %d", count);
    if (count > room)
        return MM_FAIL(err, MM_ELIMIT, "%d tokens do not fit: %d of %d positions are free", count,
                       room, generator->max_tokens);
    for (int32_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= generator->config.vocab_size)
            return MM_FAIL(err, MM_EFORMAT, "token %d has id %d, the vocabulary has %d", i, ids[i],
                           generator->config.vocab_size);
    int32_t block = 0;
    for (int32_t at = 0; at < count; at += block) {
        block = count - at < PREFILL_BLOCK ? count - at : PREFILL_BLOCK;
        feed_block(generator, ids + at, block);
    }
    for (int32_t i = 0; i < count; i++)
        mm_sampler_see(generator->sampler, ids[i]);
    // Only the last row needs the vocabulary.
    const int64_t C = generator->config.hidden_size;
    generator->batch.n_tokens = 1;
    normalize(generator, generator->h, generator->x + (block - 1) * C, generator->final_norm);
    project(
        generator, generator->h, C,
        &(mm_matvec_part){generator->head, generator->logits, generator->config.vocab_size, false},
        1, generator->config.vocab_size);
    *logits = generator->logits;
    return MM_OK;
}

static bool is_stop(const mm_sampling *sampling, int32_t id)
{
    for (int32_t i = 0; i < sampling->n_stop_ids; i++)
        if (sampling->stop_ids[i] == id) return true;
    return false;
}

/* Draws until a stop id, the limit, or the callback's refusal. */
static mm_status decode(mm_generator *generator, const float *logits, int32_t limit,
                        const mm_sampling *sampling, mm_token_fn on_token, void *context,
                        mm_generation *out, mm_err *err)
{
    out->finish = MM_FINISH_LENGTH;
    while (out->n_tokens < limit) {
        mm_choice choice;
        MM_TRY(mm_sampler_draw(generator->sampler, logits, sampling, generator->n_tokens, &choice,
                               err));
        out->logprob_sum += choice.logprob;
        if (is_stop(sampling, choice.id)) {
            out->finish = MM_FINISH_STOP;
            break;
        }
        out->n_tokens++;
        if (on_token && !on_token(context, choice.id)) {
            out->finish = MM_FINISH_CANCELED;
            break;
        }
        // The last token of a full length needs no further logits.
        if (out->n_tokens < limit)
            MM_TRY(mm_generator_feed(generator, &choice.id, 1, &logits, err));
    }
    return MM_OK;
}

mm_status mm_generate(mm_generator *generator, const int32_t *prompt, int32_t n_prompt,
                      const mm_sampling *sampling, mm_token_fn on_token, void *context,
                      mm_generation *out, mm_err *err)
{
    *out = (mm_generation){0};
    MM_TRY(mm_sampling_check(sampling, err));
    if (n_prompt < 1) return MM_FAIL(err, MM_EUSAGE, "the prompt is empty: nothing to continue");
    if (n_prompt >= generator->max_tokens)
        return MM_FAIL(err, MM_ELIMIT, "a prompt of %d tokens leaves no room in %d positions",
                       n_prompt, generator->max_tokens);
    const int32_t room = generator->max_tokens - n_prompt;
    const int32_t limit = sampling->max_new_tokens < room ? sampling->max_new_tokens : room;
    const float *logits;
    mm_generator_reset(generator);
    const int64_t start_ns = mm_mono_ns();
    MM_TRY(mm_generator_feed(generator, prompt, n_prompt, &logits, err));
    const int64_t prefill_ns = mm_mono_ns();
    const mm_status status =
        decode(generator, logits, limit, sampling, on_token, context, out, err);
    out->prefill_s = (double)(prefill_ns - start_ns) * 1e-9;
    out->decode_s = (double)(mm_mono_ns() - prefill_ns) * 1e-9;
    return status;
}
