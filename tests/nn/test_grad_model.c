/* Gradients of whole tiny models against central differences of the loss, in double precision.
 *
 * Every parameter is probed. With step h the difference quotient (-f(2h) + 8f(h) - 8f(-h) + f(-2h))
 * / 12h has an error of order h^4; with h = 1e-3 and values of order 1 both that and the rounding
 * are near 1e-12, so that 1e-6 relative to the largest gradient of the tensor is a sharp test.
 */
#include "tests/nn/fixture.h"

#include "core/nn/lora.h"

#include <math.h>

static const double STEP = 1e-3;
static const double TOLERANCE = 1e-6;

typedef struct grad_case {
    mm_model *model;
    mm_engine *engine;
    fixture_batch batch;
    uint64_t micro_step;
    double scale;
} grad_case;

// The engine applies dropout only in backward, so the loss is read there; gradients are cleared by
// the caller.
static double loss_of(grad_case *grad)
{
    mm_loss loss;
    CHECK_OK(mm_engine_backward(grad->engine, &grad->batch.batch, grad->scale, grad->micro_step,
                                &loss, failure));
    return loss.sum * grad->scale;
}

static double difference_quotient(grad_case *grad, double *value)
{
    static const double weights[] = {1, -8, 8, -1}; // at -2h, -h, h, 2h
    static const double at[] = {-2, -1, 1, 2};
    const double kept = *value;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *value = kept + at[i] * STEP;
        sum += weights[i] * loss_of(grad);
    }
    *value = kept;
    return sum / (12 * STEP);
}

static void check_tensor(grad_case *grad, const mm_tensor *tensor, const double *gradient)
{
    double *values = tensor->data;
    double largest = 0;
    double worst = 0;
    for (int64_t i = 0; i < tensor->count; i++) {
        const double expected = difference_quotient(grad, &values[i]);
        largest = fmax(largest, fabs(expected));
        worst = fmax(worst, fabs(expected - gradient[i]));
    }
    if (!(largest > 0)) fail_msg("%s: no gradient at all", tensor->name);
    if (!(worst <= TOLERANCE * largest))
        fail_msg("%s: off by %.3g, largest %.3g", tensor->name, worst, largest);
}

static void check_model(const mm_model_config *config, double dropout)
{
    grad_case grad = {.micro_step = 5, .scale = 0.125};
    mm_model_config own = *config;
    own.dropout = dropout;
    grad.model = fixture_model(&own, MM_F64, 1);
    fixture_batch_fill(&grad.batch, (const int32_t[]){5, 1, 9, 0}, own.vocab_size, 2);
    const mm_engine_options options = {.max_tokens = 16, .threads = 1, .training = true, .seed = 3};
    CHECK_OK(mm_engine_new(&grad.engine, grad.model, &options, failure));

    const int64_t n = mm_model_config_trainable(&own);
    const int64_t first = mm_model_first_trained(grad.model);
    loss_of(&grad);
    double *gradient = mm_alloc((size_t)n * sizeof(double));
    assert_non_null(gradient);
    memcpy(gradient, mm_engine_grads(grad.engine), (size_t)n * sizeof(double));
    const mm_tensor *tensors;
    const int32_t n_tensors = mm_model_tensors(grad.model, &tensors);
    for (int32_t i = 0; i < n_tensors; i++)
        if (tensors[i].trains)
            check_tensor(&grad, &tensors[i], gradient + tensors[i].offset - first);
    mm_free(gradient);
    mm_engine_free(grad.engine);
    mm_model_free(grad.model);
}

// Small enough to probe every value of every tensor.
static mm_model_config tiny_v3(void)
{
    mm_model_config config = fixture_v3();
    config.vocab_size = 19;
    config.hidden_size = 10;
    config.head_dim = 4; // heads are wider together than the hidden state
    config.intermediate_size = 11;
    return config;
}

static void test_v3_gradients_match_differences(void **state)
{
    (void)state;
    const mm_model_config config = tiny_v3();
    check_model(&config, 0);
}

static void test_v2_gradients_match_differences(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v2();
    check_model(&config, 0);
}

static void test_gradients_with_dropout_match_differences(void **state)
{
    (void)state;
    const mm_model_config v3 = tiny_v3();
    check_model(&v3, 0.2);
    const mm_model_config v2 = fixture_v2();
    check_model(&v2, 0.3);
}

static mm_model_config with_adapters(mm_model_config config, uint32_t targets)
{
    config.lora_rank = 2;
    config.lora_alpha = 3;
    config.lora_targets = targets;
    return config;
}

// Each weight alone: what lies below the first adapter has no backward, and must not be missed.
static void test_gradients_of_each_adapter_match_differences(void **state)
{
    (void)state;
    for (int32_t i = 0; i < MM_LORA_TARGETS; i++) {
        const mm_model_config v3 = with_adapters(tiny_v3(), 1u << i);
        check_model(&v3, 0);
        const mm_model_config v2 = with_adapters(fixture_v2(), 1u << i);
        check_model(&v2, 0);
    }
}

static void test_gradients_of_all_adapters_match_differences(void **state)
{
    (void)state;
    mm_model_config config = with_adapters(tiny_v3(), MM_LORA_ALL);
    check_model(&config, 0);
    config.lora_dropout = 0.25;
    check_model(&config, 0.2);
    config = with_adapters(fixture_v2(), MM_LORA_ALL);
    config.lora_dropout = 0.4;
    check_model(&config, 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v3_gradients_match_differences),
        cmocka_unit_test(test_v2_gradients_match_differences),
        cmocka_unit_test(test_gradients_with_dropout_match_differences),
        cmocka_unit_test(test_gradients_of_each_adapter_match_differences),
        cmocka_unit_test(test_gradients_of_all_adapters_match_differences),
    };
    return cmocka_run_group_tests_name("nn/grad_model", tests, NULL, NULL);
}
