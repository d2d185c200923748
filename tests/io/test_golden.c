/* The engine against an independent implementation: fixtures written by scripts/make_golden.py with
 * PyTorch and transformers. Logits, loss, every gradient and ten AdamW steps agree within a
 * relative L2 distance of 1e-5 in fp32, tensor by tensor. */
#include "tests/base/check.h"

#include "core/io/hf.h"
#include "core/io/safetensors.h"
#include "core/nn/engine.h"
#include "core/nn/schedule.h"

#include <math.h>

enum { STEPS = 10, MAX_LENGTH = 256 };
static const double LIMIT = 1e-5;
// Of what ten steps changed, not of the tensor. The change is a few thousandths of a norm weight
// near 1, so that rounding the weight alone gives 1e-4.
static const double CHANGE_LIMIT = 1e-3;

static const char *const FOLDERS[] = {"qwen3", "llama"};
enum { N_FOLDERS = sizeof FOLDERS / sizeof *FOLDERS };

typedef struct golden {
    const char *name;
    mm_model *model;
    mm_engine *engine;
    mm_safetensors *reference;
} golden;

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        mm_err check_err_ = {0};                                                                   \
        mm_err *err = &check_err_;                                                                 \
        if ((call) != MM_OK) fail_msg("%s", check_err_.message);                                   \
    } while (0)

static golden golden_open(const char *name)
{
    golden g = {.name = name};
    char path[512];
    mm_tokenizer *tokenizer = NULL;
    snprintf(path, sizeof path, "%s/golden/%s", MM_TEST_DATA, name);
    CHECK_OK(mm_hf_import(path, &g.model, &tokenizer, err));
    assert_null(tokenizer);
    snprintf(path, sizeof path, "%s/golden/%s/reference.safetensors", MM_TEST_DATA, name);
    CHECK_OK(mm_safetensors_open(&g.reference, path, err));
    const mm_engine_options options = {.max_tokens = MAX_LENGTH, .threads = 2, .training = true};
    CHECK_OK(mm_engine_new(&g.engine, g.model, &options, err));
    return g;
}

static void golden_close(golden *g)
{
    mm_engine_free(g->engine);
    mm_model_free(g->model);
    mm_safetensors_close(g->reference);
}

/* A tensor of the reference; its bytes may be unaligned, so that they are copied out. */
static const mm_safetensor *reference_of(const golden *g, const char *prefix, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const mm_safetensor *tensor = mm_safetensors_find(g->reference, full);
    if (!tensor) fail_msg("%s: the fixture has no \"%s\"", g->name, full);
    return tensor;
}

static double number_of(const golden *g, const char *name, int index)
{
    const mm_safetensor *tensor = reference_of(g, "", name);
    double value;
    assert_string_equal(tensor->dtype, "F64");
    assert_true((size_t)index < tensor->bytes / sizeof value);
    memcpy(&value, (const char *)tensor->data + (size_t)index * sizeof value, sizeof value);
    return value;
}

typedef struct golden_batch {
    mm_batch batch;
    int32_t tokens[MAX_LENGTH];
    int32_t labels[MAX_LENGTH];
    int32_t segments[MAX_LENGTH];
} golden_batch;

/* Row `step` of an I32 matrix; returns its length. */
static int32_t copy_row(const golden *g, const char *name, int step, int32_t *out)
{
    const mm_safetensor *tensor = reference_of(g, "", name);
    assert_string_equal(tensor->dtype, "I32");
    assert_int_equal(tensor->ndim, 2);
    assert_true(step < tensor->shape[0] && tensor->shape[1] <= MAX_LENGTH);
    const size_t bytes = (size_t)tensor->shape[1] * sizeof *out;
    memcpy(out, (const char *)tensor->data + (size_t)step * bytes, bytes);
    return (int32_t)tensor->shape[1];
}

static void batch_of(const golden *g, int step, golden_batch *out)
{
    const int32_t n = copy_row(g, "tokens", step, out->tokens);
    assert_int_equal(copy_row(g, "labels", step, out->labels), n);
    const int32_t bounds = copy_row(g, "segments", step, out->segments);
    int64_t n_labels = 0;
    for (int32_t i = 0; i < n; i++)
        n_labels += out->labels[i] != MM_LABEL_IGNORE;
    out->batch = (mm_batch){.n_tokens = n,
                            .n_segments = bounds - 1,
                            .tokens = out->tokens,
                            .labels = out->labels,
                            .segments = out->segments,
                            .n_labels = n_labels};
}

/* |found - expected| / |expected - base|, in L2; base NULL is zero. */
static double distance(const float *found, const float *expected, const float *base, int64_t count)
{
    double difference = 0;
    double size = 0;
    for (int64_t i = 0; i < count; i++) {
        const double d = (double)found[i] - (double)expected[i];
        const double e = (double)expected[i] - (base ? (double)base[i] : 0);
        difference += d * d;
        size += e * e;
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

/* Compares with a tensor of the reference; keeps the largest distance in *worst. */
static void check_tensor(const golden *g, const char *prefix, const char *name, const float *found,
                         const float *base, int64_t count, double limit, double *worst)
{
    float *expected = mm_alloc_aligned((size_t)count * sizeof *expected);
    assert_non_null(expected);
    CHECK_OK(mm_safetensor_to_f32(reference_of(g, prefix, name), expected, count, err));
    const double found_distance = distance(found, expected, base, count);
    mm_free(expected);
    if (!(found_distance <= limit))
        fail_msg("%s: %s%s: relative distance %.3g, at most %.3g allowed", g->name, prefix, name,
                 found_distance, limit);
    if (found_distance > *worst) *worst = found_distance;
}

static void check_number(const golden *g, const char *what, int step, double found, double *worst)
{
    const double expected = number_of(g, what, step);
    const double relative = fabs(found - expected) / fabs(expected);
    if (!(relative <= LIMIT))
        fail_msg("%s: %s of step %d: expected %.9g, found %.9g", g->name, what, step + 1, expected,
                 found);
    if (relative > *worst) *worst = relative;
}

static void check_logits_and_loss(const golden *g)
{
    golden_batch b;
    mm_loss loss;
    double worst_logits = 0;
    double worst_loss = 0;
    batch_of(g, 0, &b);
    const int64_t count = (int64_t)b.batch.n_tokens * mm_model_config_of(g->model)->vocab_size;
    float *logits = mm_alloc_aligned((size_t)count * sizeof *logits);
    assert_non_null(logits);
    CHECK_OK(mm_engine_logits(g->engine, &b.batch, logits, err));
    check_tensor(g, "", "logits", logits, NULL, count, LIMIT, &worst_logits);
    mm_free(logits);
    CHECK_OK(mm_engine_eval(g->engine, &b.batch, &loss, err));
    assert_int_equal(loss.count, b.batch.n_labels);
    check_number(g, "loss", 0, loss.sum / (double)loss.count, &worst_loss);
    print_message("%s: logits %.2e, loss %.2e\n", g->name, worst_logits, worst_loss);
}

static void test_logits_and_loss_equal_pytorch(void **state)
{
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        golden g = golden_open(FOLDERS[i]);
        check_logits_and_loss(&g);
        golden_close(&g);
    }
}

static void test_every_gradient_equals_pytorch(void **state)
{
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        golden g = golden_open(FOLDERS[i]);
        golden_batch b;
        mm_loss loss;
        double worst = 0;
        batch_of(&g, 0, &b);
        CHECK_OK(
            mm_engine_backward(g.engine, &b.batch, 1.0 / (double)b.batch.n_labels, 0, &loss, err));
        const float *grads = mm_engine_grads(g.engine);
        const mm_tensor *tensors;
        const int32_t count = mm_model_tensors(g.model, &tensors);
        for (int32_t t = 0; t < count; t++)
            check_tensor(&g, "grad/", tensors[t].name, grads + tensors[t].offset, NULL,
                         tensors[t].count, LIMIT, &worst);
        print_message("%s: worst of %d gradients %.2e\n", g.name, count, worst);
        golden_close(&g);
    }
}

/* The ten steps with MiniMind's optimizer; losses, norms and rates on the way are compared too. */
static void train(const golden *g)
{
    const mm_lr_schedule schedule = {
        .kind = MM_LR_COSINE, .learning_rate = 5e-4, .total_steps = STEPS};
    double worst[3] = {0};
    for (int step = 0; step < STEPS; step++) {
        golden_batch b;
        mm_loss loss;
        double grad_norm;
        batch_of(g, step, &b);
        CHECK_OK(mm_engine_backward(g->engine, &b.batch, 1.0 / (double)b.batch.n_labels,
                                    (uint64_t)step, &loss, err));
        const mm_adamw adamw = {.learning_rate = mm_lr_at(&schedule, step + 1),
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.01,
                                .grad_clip = number_of(g, "grad_clip", 0),
                                .step = step + 1,
                                .decay_all = true};
        CHECK_OK(mm_engine_step(g->engine, &adamw, &grad_norm, err));
        check_number(g, "lr", step, adamw.learning_rate, &worst[0]);
        check_number(g, "loss", step, loss.sum / (double)loss.count, &worst[1]);
        check_number(g, "grad_norm", step, grad_norm, &worst[2]);
    }
    print_message("%s: over ten steps: lr %.2e, loss %.2e, grad_norm %.2e\n", g->name, worst[0],
                  worst[1], worst[2]);
}

static void test_ten_adamw_steps_equal_pytorch(void **state)
{
    (void)state;
    for (int i = 0; i < N_FOLDERS; i++) {
        golden g = golden_open(FOLDERS[i]);
        int64_t elements;
        double worst = 0;
        double worst_change = 0;
        const float *data = mm_model_data(g.model, &elements);
        float *before = mm_alloc_aligned((size_t)elements * sizeof *before);
        assert_non_null(before);
        memcpy(before, data, (size_t)elements * sizeof *before);
        train(&g);
        const mm_tensor *tensors;
        const int32_t count = mm_model_tensors(g.model, &tensors);
        for (int32_t t = 0; t < count; t++) {
            const mm_tensor *tensor = &tensors[t];
            check_tensor(&g, "final/", tensor->name, tensor->data, NULL, tensor->count, LIMIT,
                         &worst);
            check_tensor(&g, "final/", tensor->name, tensor->data, before + tensor->offset,
                         tensor->count, CHANGE_LIMIT, &worst_change);
        }
        print_message("%s: parameters after ten steps %.2e, of their change %.2e\n", g.name, worst,
                      worst_change);
        mm_free(before);
        golden_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_and_loss_equal_pytorch),
        cmocka_unit_test(test_every_gradient_equals_pytorch),
        cmocka_unit_test(test_ten_adamw_steps_equal_pytorch),
    };
    return cmocka_run_group_tests_name("io/golden", tests, NULL, NULL);
}
