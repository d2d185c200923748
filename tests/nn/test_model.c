/* Presets and their exact sizes, what the checks say, the table of tensors, initial values. */
#include "tests/nn/fixture.h"

#include <math.h>

static mm_model_config preset(const char *name)
{
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, name, failure));
    return config;
}

static void test_presets_have_the_published_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *preset;
        int32_t hidden; // 0: the preset's
        int32_t layers;
        int64_t params;
        int32_t ffn;
    } rows[] = {
        {"v3", 0, 0, 63912192, 2432},       {"v3", 512, 0, 30025216, 1664},
        {"v3", 256, 4, 4983296, 832},       {"v3", 128, 2, 1262272, 448},
        {"v2-small", 0, 0, 25829888, 1408}, {"v2", 0, 0, 104030976, 2048},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mm_model_config config = preset(rows[i].preset);
        if (rows[i].hidden) config.hidden_size = rows[i].hidden;
        if (rows[i].layers) config.num_hidden_layers = rows[i].layers;
        CHECK_OK(mm_model_config_resolve(&config, failure));
        assert_int_equal(mm_model_config_params(&config), rows[i].params);
        assert_int_equal(config.intermediate_size, rows[i].ffn);
    }
    assert_int_equal(preset("v3").head_dim, 0);
}

static void test_messages_name_the_flag(void **state)
{
    (void)state;
    mm_err err = {0};
    mm_model_config config;
    assert_int_equal(mm_model_config_preset(&config, "v9", &err), MM_ECONFIG);
    assert_string_equal(err.message, "--preset v9: expected v3, v2-small or v2");

    config = preset("v3");
    config.hidden_size = 512;
    config.num_attention_heads = 7;
    config.num_key_value_heads = 7;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_string_equal(err.message, "--heads 7 does not divide --hidden 512");

    config = preset("v3");
    config.num_key_value_heads = 3;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_string_equal(err.message, "--kv-heads 3 does not divide --heads 8");

    config = preset("v3");
    config.hidden_size = 8 * 33;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "head width 33 is odd"));

    config = preset("v3");
    config.num_hidden_layers = 0;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "--layers 0"));

    config = preset("v3");
    config.dropout = 1;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "--dropout 1"));

    config = preset("v3");
    config.dropout = (double)NAN;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);

    config = preset("v3");
    config.vocab_size = -5;
    assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "--vocab -5"));
}

static void test_table_is_the_state_dict(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    mm_model *model = NULL;
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    const mm_tensor *tensors;
    const int32_t n = mm_model_tensors(model, &tensors);
    assert_int_equal(n, 1 + 2 * 11 + 1);
    int64_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(tensors[i].offset, at);
        assert_ptr_equal(tensors[i].data, (float *)mm_model_data(model, NULL) + at);
        assert_int_equal(tensors[i].decays, tensors[i].ndim == 2 && i != 0);
        at += tensors[i].count;
    }
    assert_int_equal(at, mm_model_config_params(&config));
    assert_string_equal(tensors[0].name, "model.embed_tokens.weight");
    assert_string_equal(tensors[5].name, "model.layers.0.self_attn.q_norm.weight");
    assert_string_equal(tensors[n - 1].name, "model.norm.weight");
    const mm_tensor *k = mm_model_find(model, "model.layers.1.self_attn.k_proj.weight");
    assert_non_null(k);
    assert_int_equal(k->shape[0], 2 * 6);
    assert_int_equal(k->shape[1], 24);
    assert_null(mm_model_find(model, "lm_head.weight"));
    mm_model_free(model);
    mm_model_free(NULL);

    config = fixture_v2();
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    assert_non_null(mm_model_find(model, "lm_head.weight"));
    assert_null(mm_model_find(model, "model.layers.0.self_attn.q_norm.weight"));
    mm_model_free(model);
}

static void test_initial_values_are_normal(void **state)
{
    (void)state;
    mm_model_config config = preset("v3");
    config.hidden_size = 128;
    config.num_hidden_layers = 1;
    mm_model *model = NULL;
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    mm_model_init(model, 42);
    const mm_tensor *embed = mm_model_find(model, "model.embed_tokens.weight");
    const float *values = embed->data;
    double sum = 0;
    double squares = 0;
    double fourth = 0;
    for (int64_t i = 0; i < embed->count; i++) {
        const double x = (double)values[i] / 0.02;
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    const double n = (double)embed->count; // 819,200: standard errors 0.0011, 0.0016, 0.011
    assert_true(fabs(sum / n) < 0.006);
    assert_true(fabs(squares / n - 1) < 0.008);
    assert_true(fabs(fourth / n - 3) < 0.06);
    const mm_tensor *norm = mm_model_find(model, "model.norm.weight");
    for (int64_t i = 0; i < norm->count; i++)
        assert_true(((float *)norm->data)[i] == 1.0f);
    mm_model_free(model);
}

static void test_seed_decides_the_values(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_model *models[3] = {0};
    int64_t n = 0;
    static const uint64_t seeds[] = {7, 7, 8};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(mm_model_new(&models[i], &config, MM_F32, failure));
        mm_model_init(models[i], seeds[i]);
    }
    const float *first = mm_model_data(models[0], &n);
    assert_memory_equal(first, mm_model_data(models[1], NULL), (size_t)n * sizeof(float));
    assert_memory_not_equal(first, mm_model_data(models[2], NULL), (size_t)n * sizeof(float));
    // Two matrices of one model differ, and so do neighbours.
    const float *q = mm_model_find(models[0], "model.layers.0.self_attn.q_proj.weight")->data;
    const float *o = mm_model_find(models[0], "model.layers.1.self_attn.q_proj.weight")->data;
    assert_memory_not_equal(q, o, 16 * sizeof(float));
    assert_memory_not_equal(q, q + 4, 4 * sizeof(float));
    for (int i = 0; i < 3; i++)
        mm_model_free(models[i]);
}

static void test_operations_per_token(void **state)
{
    (void)state;
    // The published table for 512 tokens: 167.5, 402.3 and 661.9 million.
    static const char *const names[] = {"v2-small", "v3", "v2"};
    static const double expected[] = {167.5e6, 402.3e6, 661.9e6};
    for (int i = 0; i < 3; i++) {
        mm_model_config config = preset(names[i]);
        CHECK_OK(mm_model_config_resolve(&config, failure));
        assert_true(fabs(mm_model_flops_per_token(&config, 512) / expected[i] - 1) < 0.001);
    }
}

static void test_failed_allocations_are_reported(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    for (uint64_t nth = 1; nth <= 3; nth++) {
        mm_err err = {0};
        mm_model *model = NULL;
        mm_alloc_fail_at(nth);
        const mm_status status = mm_model_new(&model, &config, MM_F32, &err);
        mm_alloc_fail_at(0);
        assert_int_equal(status, MM_ENOMEM);
        assert_null(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets_have_the_published_sizes),
        cmocka_unit_test(test_messages_name_the_flag),
        cmocka_unit_test(test_table_is_the_state_dict),
        cmocka_unit_test(test_initial_values_are_normal),
        cmocka_unit_test(test_seed_decides_the_values),
        cmocka_unit_test(test_operations_per_token),
        cmocka_unit_test(test_failed_allocations_are_reported),
    };
    return cmocka_run_group_tests_name("nn/model", tests, NULL, NULL);
}
