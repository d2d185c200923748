/* Computing in bfloat16 against computing in fp32: the loss and every gradient within the rules of
 * bfloat16's 8 bits, the same bits for any number of threads, and copies of weights that follow the
 * weights. Runs once per instruction set (CMakeLists.txt). */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_TOKENS = 400 };

static const int32_t LENGTHS[] = {190, 1, 64, 37, 65, 0};

static mm_model_config wide(bool is_v3)
{
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, is_v3 ? "v3" : "v2-small", failure));
    config.vocab_size = 500;
    config.hidden_size = 128;
    config.num_hidden_layers = 3;
    config.num_attention_heads = 4;
    config.num_key_value_heads = 2;
    config.intermediate_size = 200; // not a multiple of a register tile
    CHECK_OK(mm_model_config_resolve(&config, failure));
    return config;
}

static mm_engine_options options_of(bool bf16, int32_t threads)
{
    return (mm_engine_options){.max_tokens = MAX_TOKENS,
                               .max_segments = 8,
                               .threads = threads,
                               .training = true,
                               .bf16 = bf16,
                               .seed = 3};
}

static mm_engine *new_engine(mm_model *model, bool bf16, int32_t threads)
{
    mm_engine *engine = NULL;
    const mm_engine_options options = options_of(bf16, threads);
    CHECK_OK(mm_engine_new(&engine, model, &options, failure));
    return engine;
}

static double backward(mm_engine *engine, const mm_model *model)
{
    fixture_batch data;
    mm_loss loss = {0};
    fixture_batch_fill(&data, LENGTHS, mm_model_config_of(model)->vocab_size, 8);
    CHECK_OK(mm_engine_backward(engine, &data.batch, 1.0 / (double)data.batch.n_labels, 1, &loss,
                                failure));
    assert_int_equal(loss.count, data.batch.n_labels);
    return loss.sum / (double)loss.count;
}

// Relative L2 error at most 2e-2, cosine at least 0.9995, norms within 1 %.
static void compare_tensor(const mm_tensor *tensor, const float *exact, const float *rounded)
{
    double error = 0;
    double norm = 0;
    double other = 0;
    double product = 0;
    for (int64_t i = 0; i < tensor->count; i++) {
        const double a = (double)exact[tensor->offset + i];
        const double b = (double)rounded[tensor->offset + i];
        error += (a - b) * (a - b);
        norm += a * a;
        other += b * b;
        product += a * b;
    }
    const double relative = sqrt(error / norm);
    const double cosine = product / sqrt(norm * other);
    if (!(relative <= 2e-2 && cosine >= 0.9995 && fabs(sqrt(other / norm) - 1) <= 0.01))
        fail_msg("%s: relative error %.4f, cosine %.6f, norm ratio %.4f", tensor->name, relative,
                 cosine, sqrt(other / norm));
}

static void test_gradients_are_those_of_fp32(void **state)
{
    (void)state;
    for (int is_v3 = 0; is_v3 < 2; is_v3++) {
        const mm_model_config config = wide(is_v3);
        mm_model *model = NULL;
        CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
        mm_model_init(model, 5);
        mm_engine *exact = new_engine(model, false, 1);
        mm_engine *rounded = new_engine(model, true, 2);
        const double loss = backward(exact, model);
        const double loss_bf16 = backward(rounded, model);
        print_message("%s: loss %.6f in fp32, %.6f in bf16 on %s\n", config.preset, loss, loss_bf16,
                      mm_engine_isa(MM_BF16));
        assert_true(fabs(loss - loss_bf16) <= 1e-3);
        const mm_tensor *tensors;
        const int32_t n = mm_model_tensors(model, &tensors);
        for (int32_t i = 0; i < n; i++)
            compare_tensor(&tensors[i], mm_engine_grads(exact), mm_engine_grads(rounded));
        mm_engine_free(rounded);
        mm_engine_free(exact);
        mm_model_free(model);
    }
}

// Two steps with dropout; leaves the weights in the model.
static double train(mm_model *model, int32_t threads)
{
    mm_engine *engine = new_engine(model, true, threads);
    double loss = 0;
    for (int64_t step = 1; step <= 2; step++) {
        loss = backward(engine, model);
        const mm_adamw adamw = {1e-2, 0.9, 0.999, 1e-8, 0.1, 1.0, step, true};
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
    }
    mm_engine_free(engine);
    return loss;
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    mm_model_config config = wide(true);
    config.dropout = 0.1;
    float *first = NULL;
    double first_loss = 0;
    for (int32_t threads = 1; threads <= 3; threads++) {
        mm_model *model = NULL;
        CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
        mm_model_init(model, 5);
        const double loss = train(model, threads);
        int64_t n;
        const void *weights = mm_model_data(model, &n);
        if (!first) {
            first = mm_alloc((size_t)n * sizeof *first);
            assert_non_null(first);
            memcpy(first, weights, (size_t)n * sizeof *first);
            first_loss = loss;
        }
        assert_true(loss == first_loss);
        assert_memory_equal(weights, first, (size_t)n * sizeof *first);
        mm_model_free(model);
    }
    mm_free(first);
}

static void test_packed_copies_follow_the_weights(void **state)
{
    (void)state;
    const mm_model_config config = wide(false);
    mm_model *model = NULL;
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    mm_model_init(model, 5);
    mm_engine *engine = new_engine(model, true, 1);
    const double before = backward(engine, model);
    mm_model_init(model, 6);
    mm_engine_reload(engine);
    mm_engine_zero_grad(engine);
    const double reloaded = backward(engine, model);
    assert_true(reloaded != before);
    mm_engine *fresh = new_engine(model, true, 1);
    assert_true(backward(fresh, model) == reloaded);
    const mm_adamw adamw = {1e-2, 0.9, 0.999, 1e-8, 0.1, 1.0, 1, true};
    double norm;
    CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
    assert_true(backward(engine, model) < reloaded);
    mm_engine_free(fresh);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_what_is_made_again_is_the_same(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        mm_model_config config = wide(variant & 1);
        config.dropout = 0.1;
        mm_model *model = NULL;
        CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
        mm_model_init(model, 5);
        mm_engine_options options = options_of(variant & 2, 2);
        mm_engine *saving = NULL;
        mm_engine *keeping = NULL;
        CHECK_OK(mm_engine_new(&saving, model, &options, failure));
        const mm_dtype dtype = options.bf16 ? MM_BF16 : MM_F32;
        const int64_t saved = mm_engine_bytes(&config, dtype, &options);
        options.keep_all = true;
        CHECK_OK(mm_engine_new(&keeping, model, &options, failure));
        assert_true(saved < mm_engine_bytes(&config, dtype, &options));
        assert_true(backward(saving, model) == backward(keeping, model));
        int64_t n;
        mm_model_data(model, &n);
        assert_memory_equal(mm_engine_grads(saving), mm_engine_grads(keeping),
                            (size_t)n * sizeof(float));
        mm_engine_free(keeping);
        mm_engine_free(saving);
        mm_model_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_are_those_of_fp32),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_packed_copies_follow_the_weights),
        cmocka_unit_test(test_what_is_made_again_is_the_same),
    };
    return cmocka_run_group_tests_name("nn/bf16", tests, NULL, NULL);
}
