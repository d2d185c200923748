/* The table of tensors over one flat block, and their initial values.
 *
 * Tensors lie one behind the other without gaps, in the order of Hugging Face's state_dict. The
 * graph relies on neighbours: query, key and value projections are one matrix to it, and so are
 * gate and up. Adapters lie behind the whole base: a base draws the same values with and without
 * them, and what trains is one piece.
 */
#include "core/nn/model.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/nn/lora.h"
#include "core/nn/model_table.h"
#include "core/nn/pool.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    INIT_CHUNK = 1 << 14,   // values of one work item; a multiple of 4
    TENSORS_PER_LAYER = 11, // at most, without adapters
    TENSORS_OUTSIDE = 3     // embedding, last norm, head
};
static const double INIT_STD = 0.02;
static const double TWO_PI = 6.283185307179586;

struct mm_model {
    mm_model_config config;
    mm_dtype dtype;
    mm_model_table table;
    void *data;
};

__attribute__((format(printf, 5, 6))) static void
append(mm_model_table *table, mm_init init, int64_t rows, int64_t cols, const char *format, ...)
{
    mm_tensor *tensor = &table->tensors[table->n_tensors++];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(tensor->name, sizeof tensor->name, format, args);
    va_end(args);
    MM_ASSERT(length > 0 && (size_t)length < sizeof tensor->name);
    tensor->ndim = cols > 0 ? 2 : 1;
    tensor->shape[0] = rows;
    tensor->shape[1] = cols;
    tensor->count = cols > 0 ? rows * cols : rows;
    tensor->offset = table->n_elements;
    tensor->init = init;
    tensor->decays = tensor->ndim == 2 && strstr(tensor->name, "embed_tokens") == NULL;
    table->n_elements += tensor->count;
}

static void append_layer(mm_model_table *table, const mm_model_config *config, int layer)
{
    const int64_t H = config->hidden_size;
    const int64_t D = config->head_dim;
    const int64_t q_width = config->num_attention_heads * D;
    const int64_t kv_width = config->num_key_value_heads * D;
    const int64_t F = config->intermediate_size;
    append(table, MM_INIT_NORMAL_02, q_width, H, "model.layers.%d.self_attn.q_proj.weight", layer);
    append(table, MM_INIT_NORMAL_02, kv_width, H, "model.layers.%d.self_attn.k_proj.weight", layer);
    append(table, MM_INIT_NORMAL_02, kv_width, H, "model.layers.%d.self_attn.v_proj.weight", layer);
    append(table, MM_INIT_NORMAL_02, H, q_width, "model.layers.%d.self_attn.o_proj.weight", layer);
    if (config->qk_norm) {
        append(table, MM_INIT_ONE, D, 0, "model.layers.%d.self_attn.q_norm.weight", layer);
        append(table, MM_INIT_ONE, D, 0, "model.layers.%d.self_attn.k_norm.weight", layer);
    }
    append(table, MM_INIT_NORMAL_02, F, H, "model.layers.%d.mlp.gate_proj.weight", layer);
    append(table, MM_INIT_NORMAL_02, F, H, "model.layers.%d.mlp.up_proj.weight", layer);
    append(table, MM_INIT_NORMAL_02, H, F, "model.layers.%d.mlp.down_proj.weight", layer);
    append(table, MM_INIT_ONE, H, 0, "model.layers.%d.input_layernorm.weight", layer);
    append(table, MM_INIT_ONE, H, 0, "model.layers.%d.post_attention_layernorm.weight", layer);
}

static void append_adapters(mm_model_table *table, const mm_model_config *config, int layer)
{
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++) {
        if (!(config->lora_targets & 1u << i)) continue;
        const mm_lora_dims dims = mm_lora_target_dims(config, i);
        const char *part = mm_lora_target_part(i);
        append(table, MM_INIT_NORMAL_02, config->lora_rank, dims.n_in,
               "model.layers.%d.%s.lora_A.weight", layer, part);
        append(table, MM_INIT_ZERO, dims.n_out, config->lora_rank,
               "model.layers.%d.%s.lora_B.weight", layer, part);
    }
}

mm_status mm_model_table_new(mm_model_table *table, const mm_model_config *config, mm_err *err)
{
    MM_ASSERT(config->head_dim > 0 && config->intermediate_size > 0); // resolved
    *table = (mm_model_table){0};
    const size_t per_layer = TENSORS_PER_LAYER + (config->lora_rank > 0 ? 2 * MM_LORA_TARGETS : 0);
    const size_t capacity = (size_t)config->num_hidden_layers * per_layer + TENSORS_OUTSIDE;
    table->tensors = mm_calloc(capacity, sizeof *table->tensors);
    if (!table->tensors) return MM_FAIL(err, MM_ENOMEM, "table of %zu tensors", capacity);
    const int64_t V = config->vocab_size;
    const int64_t H = config->hidden_size;
    append(table, MM_INIT_NORMAL_02, V, H, "model.embed_tokens.weight");
    for (int32_t layer = 0; layer < config->num_hidden_layers; layer++)
        append_layer(table, config, layer);
    append(table, MM_INIT_ONE, H, 0, "model.norm.weight");
    if (!config->tie_word_embeddings) append(table, MM_INIT_NORMAL_02, V, H, "lm_head.weight");
    const int32_t n_base = table->n_tensors;
    table->first_trained = config->lora_rank > 0 ? table->n_elements : 0;
    for (int32_t layer = 0; layer < config->num_hidden_layers && config->lora_rank > 0; layer++)
        append_adapters(table, config, layer);
    for (int32_t i = 0; i < table->n_tensors; i++)
        table->tensors[i].trains = config->lora_rank == 0 || i >= n_base;
    MM_ASSERT((size_t)table->n_tensors <= capacity);
    MM_ASSERT(table->n_elements == mm_model_config_params(config));
    return MM_OK;
}

void mm_model_table_drop(mm_model_table *table)
{
    mm_free(table->tensors);
    *table = (mm_model_table){0};
}

const mm_tensor *mm_model_table_find(const mm_model_table *table, const char *name)
{
    for (int32_t i = 0; i < table->n_tensors; i++)
        if (strcmp(table->tensors[i].name, name) == 0) return &table->tensors[i];
    return NULL;
}

static size_t element_bytes(mm_dtype dtype)
{
    return dtype == MM_F64 ? sizeof(double) : sizeof(float);
}

mm_status mm_model_new(mm_model **out, const mm_model_config *config, mm_dtype dtype, mm_err *err)
{
    mm_status status = MM_OK;
    *out = NULL;
    mm_model *model = mm_calloc(1, sizeof *model);
    if (!model) return MM_FAIL(err, MM_ENOMEM, "model");
    model->config = *config;
    model->dtype = dtype;
    MM_GO(mm_model_config_resolve(&model->config, err));
    MM_GO(mm_model_table_new(&model->table, &model->config, err));
    size_t bytes;
    if (!mm_mul_ok((size_t)model->table.n_elements, element_bytes(dtype), &bytes)) {
        status =
            MM_FAIL(err, MM_ELIMIT, "model of %lld parameters", (long long)model->table.n_elements);
        goto done;
    }
    model->data = mm_alloc_aligned(bytes);
    if (!model->data) {
        status = MM_FAIL(err, MM_ENOMEM, "model of %lld parameters: no memory for %zu MB",
                         (long long)model->table.n_elements, bytes >> 20);
        goto done;
    }
    for (int32_t i = 0; i < model->table.n_tensors; i++) {
        mm_tensor *tensor = &model->table.tensors[i];
        tensor->data = (char *)model->data + (size_t)tensor->offset * element_bytes(dtype);
    }
    *out = model;
    model = NULL;
done:
    mm_model_free(model);
    return status;
}

void mm_model_free(mm_model *model)
{
    if (!model) return;
    mm_free(model->data);
    mm_model_table_drop(&model->table);
    mm_free(model);
}

typedef struct init_job {
    const mm_tensor *tensor;
    uint64_t seed;
    uint64_t index;
    mm_dtype dtype;
} init_job;

static void put(const init_job *job, int64_t at, double value)
{
    if (at >= job->tensor->count) return;
    if (job->dtype == MM_F64) {
        ((double *)job->tensor->data)[at] = value;
    } else {
        ((float *)job->tensor->data)[at] = (float)value;
    }
}

// Four values from one counter: Box-Muller on two pairs of 32-bit numbers, element number / 4 as
// counter.
static void init_normal_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const init_job *job = context;
    const int64_t begin = item * INIT_CHUNK;
    const int64_t end =
        begin + INIT_CHUNK < job->tensor->count ? begin + INIT_CHUNK : job->tensor->count;
    for (int64_t i = begin; i < end; i += 4) {
        uint32_t bits[4];
        mm_philox(job->seed, MM_RNG_INIT, job->index, (uint64_t)i / 4, bits);
        for (int pair = 0; pair < 2; pair++) {
            const double u = ((double)bits[2 * pair] + 1.0) * 0x1p-32; // in (0, 1]
            const double angle = TWO_PI * (double)bits[2 * pair + 1] * 0x1p-32;
            const double radius = INIT_STD * sqrt(-2.0 * log(u));
            put(job, i + 2 * pair, radius * cos(angle));
            put(job, i + 2 * pair + 1, radius * sin(angle));
        }
    }
}

void mm_model_init(mm_model *model, uint64_t seed)
{
    // Without threads it takes longer and gives the same values.
    mm_pool *pool = NULL;
    if (mm_pool_new(&pool, 0, NULL) != MM_OK) pool = NULL;
    for (int32_t i = 0; i < model->table.n_tensors; i++) {
        const mm_tensor *tensor = &model->table.tensors[i];
        init_job job = {tensor, seed, (uint64_t)i, model->dtype};
        if (tensor->init == MM_INIT_NORMAL_02) {
            mm_pool_run(pool, (tensor->count + INIT_CHUNK - 1) / INIT_CHUNK, init_normal_item,
                        &job);
            continue;
        }
        for (int64_t at = 0; at < tensor->count; at++)
            put(&job, at, tensor->init == MM_INIT_ONE ? 1.0 : 0.0);
    }
    mm_pool_free(pool);
}

const mm_model_config *mm_model_config_of(const mm_model *model) { return &model->config; }

mm_dtype mm_model_dtype(const mm_model *model) { return model->dtype; }

int32_t mm_model_tensors(const mm_model *model, const mm_tensor **tensors)
{
    *tensors = model->table.tensors;
    return model->table.n_tensors;
}

const mm_tensor *mm_model_find(const mm_model *model, const char *name)
{
    return mm_model_table_find(&model->table, name);
}

void *mm_model_data(mm_model *model, int64_t *elements)
{
    if (elements) *elements = model->table.n_elements;
    return model->data;
}

int64_t mm_model_first_trained(const mm_model *model) { return model->table.first_trained; }
