/* Adapters: beside a frozen base, merged into it, and alone in what a step changes. Gradients are
 * checked in test_grad_ops.c and test_grad_model.c. Runs once per instruction set (CMakeLists.txt).
 */
#include "tests/nn/fixture.h"

#include "core/nn/generate.h"
#include "core/nn/lora.h"

#include <math.h>

enum { MAX_TOKENS = 200, MAX_PROFILE = 64 };

static const int32_t LENGTHS[] = {90, 1, 37, 60, 0};

static mm_model_config with_adapters(mm_model_config config, uint32_t targets)
{
    config.lora_rank = 3;
    config.lora_alpha = 5;
    config.lora_targets = targets;
    CHECK_OK(mm_model_config_resolve(&config, failure));
    return config;
}

static mm_engine *new_engine(mm_model *model, const mm_engine_options *wish)
{
    mm_engine *engine = NULL;
    mm_engine_options options = *wish;
    options.max_tokens = MAX_TOKENS;
    options.max_segments = 8;
    options.seed = 3;
    CHECK_OK(mm_engine_new(&engine, model, &options, failure));
    return engine;
}

static float *logits_of(mm_model *model, bool bf16)
{
    const int32_t V = mm_model_config_of(model)->vocab_size;
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, V, 7);
    float *logits = mm_alloc((size_t)(data.batch.n_tokens * V) * sizeof *logits);
    assert_non_null(logits);
    mm_engine *engine = new_engine(model, &(mm_engine_options){.threads = 1, .bf16 = bf16});
    CHECK_OK(mm_engine_logits(engine, &data.batch, logits, failure));
    mm_engine_free(engine);
    return logits;
}

static int64_t n_logits(const mm_model *model)
{
    int64_t n = 0;
    for (int i = 0; LENGTHS[i] > 0; i++)
        n += LENGTHS[i];
    return n * mm_model_config_of(model)->vocab_size;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double difference = 0;
    double size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i], 2);
    }
    return sqrt(difference / size);
}

static void test_targets_have_names(void **state)
{
    (void)state;
    uint32_t targets = 0;
    mm_err err = {0};
    mm_str text = {0};
    CHECK_OK(mm_lora_targets_parse("o_proj,q_proj", &targets, failure));
    assert_int_equal(targets, MM_LORA_Q_PROJ | MM_LORA_O_PROJ);
    mm_lora_targets_text(targets, &text);
    assert_string_equal(mm_str_text(&text), "q_proj+o_proj");
    CHECK_OK(mm_lora_targets_parse("gate_proj+up_proj", &targets, failure));
    assert_int_equal(targets, MM_LORA_GATE_PROJ | MM_LORA_UP_PROJ);
    CHECK_OK(mm_lora_targets_parse("all", &targets, failure));
    assert_int_equal(targets, MM_LORA_ALL);
    mm_str_clear(&text);
    mm_lora_targets_text(targets, &text);
    assert_string_equal(mm_str_text(&text), "all");
    mm_str_drop(&text);
    static const char *const BAD[] = {"", "q_proj,", "q_pro", "q_proj,embed_tokens", "q_proj k"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        assert_int_equal(mm_lora_targets_parse(BAD[i], &targets, &err), MM_ECONFIG);
        assert_non_null(strstr(err.message, "down_proj"));
    }
}

static void test_sizes_are_those_of_the_original(void **state)
{
    (void)state;
    mm_model_config config;
    CHECK_OK(mm_model_config_preset(&config, "v3", failure));
    CHECK_OK(mm_model_config_resolve(&config, failure));
    const int64_t base = mm_model_config_params(&config);
    assert_int_equal(mm_model_config_trainable(&config), base);
    const double full = mm_model_flops_per_token(&config, 512);
    config.lora_rank = 16;
    config.lora_targets = MM_LORA_Q_PROJ | MM_LORA_O_PROJ;
    CHECK_OK(mm_model_config_resolve(&config, failure));
    assert_true(config.lora_alpha == 16); // scale 1
    assert_int_equal(mm_model_config_trainable(&config), 393216);
    assert_int_equal(mm_model_config_params(&config), base + 393216);
    assert_true(mm_model_flops_per_token(&config, 512) < 0.75 * full);
    const mm_engine_options options = {.max_tokens = 512, .threads = 2, .training = true};
    mm_model_config plain = config;
    plain.lora_rank = 0;
    assert_true(mm_engine_bytes(&config, MM_F32, &options) <
                mm_engine_bytes(&plain, MM_F32, &options) - 11 * base); // three arrays of floats
}

static void test_impossible_adapters_are_refused(void **state)
{
    (void)state;
    const mm_model_config good = with_adapters(fixture_v3(), MM_LORA_ALL);
    const struct {
        int32_t rank;
        double alpha;
        double dropout;
        uint32_t targets;
        const char *says;
    } bad[] = {
        {-1, 1, 0, MM_LORA_ALL, "--rank -1"},
        {13, 1, 0, MM_LORA_ALL, "k_proj"},
        {25, 1, 0, MM_LORA_Q_PROJ, "1 to 24"},
        {2, -1, 0, MM_LORA_ALL, "--alpha"},
        {2, (double)NAN, 0, MM_LORA_ALL, "--alpha"},
        {2, 1, 0.95, MM_LORA_ALL, "0.9"},
        {2, 1, (double)NAN, MM_LORA_ALL, "0.9"},
        {2, 1, 0, 0, "--targets"},
        {2, 1, 0, 1 << 7, "--targets"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        mm_model_config config = good;
        mm_err err = {0};
        config.lora_rank = bad[i].rank;
        config.lora_alpha = bad[i].alpha;
        config.lora_dropout = bad[i].dropout;
        config.lora_targets = bad[i].targets;
        assert_int_equal(mm_model_config_resolve(&config, &err), MM_ECONFIG);
        if (!strstr(err.message, bad[i].says)) fail_msg("%s", err.message);
    }
}

static void test_a_base_is_the_same_with_and_without(void **state)
{
    (void)state;
    const mm_model_config plain = fixture_v2();
    const mm_model_config config = with_adapters(plain, MM_LORA_V_PROJ | MM_LORA_UP_PROJ);
    mm_model *base = NULL;
    mm_model *model = NULL;
    int64_t n = 0;
    int64_t n_all = 0;
    CHECK_OK(mm_model_new(&base, &plain, MM_F32, failure));
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    mm_model_init(base, 5);
    mm_model_init(model, 5);
    const void *expected = mm_model_data(base, &n);
    assert_memory_equal(mm_model_data(model, &n_all), expected, (size_t)n * sizeof(float));
    assert_int_equal(n, mm_model_first_trained(model));
    assert_int_equal(n_all - n, mm_model_config_trainable(&config));
    assert_int_equal(mm_model_first_trained(base), 0);
    const mm_tensor *a = mm_model_find(model, "model.layers.1.mlp.up_proj.lora_A.weight");
    const mm_tensor *b = mm_model_find(model, "model.layers.1.mlp.up_proj.lora_B.weight");
    assert_true(a && b && a->trains && b->trains && a->shape[0] == 3 && b->shape[1] == 3);
    assert_false(mm_model_find(model, "model.layers.1.mlp.up_proj.weight")->trains);
    double squares = 0;
    for (int64_t i = 0; i < a->count; i++)
        squares += pow((double)((const float *)a->data)[i], 2);
    assert_in_range((int64_t)(1e6 * sqrt(squares / (double)a->count)), 13000, 27000); // 0.02
    for (int64_t i = 0; i < b->count; i++)
        assert_true(((const float *)b->data)[i] == 0.0f);
    mm_model_free(base);
    mm_model_free(model);
}

static void test_new_adapters_change_no_bit(void **state)
{
    (void)state;
    const mm_model_config configs[] = {fixture_v3(), fixture_v2()};
    for (int i = 0; i < 4; i++) {
        const mm_model_config config = with_adapters(configs[i % 2], MM_LORA_ALL);
        mm_model *base = NULL;
        mm_model *model = NULL;
        CHECK_OK(mm_model_new(&base, &configs[i % 2], MM_F32, failure));
        CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
        mm_model_init(base, 5);
        mm_model_init(model, 5);
        float *expected = logits_of(base, i / 2);
        float *logits = logits_of(model, i / 2);
        assert_memory_equal(logits, expected, (size_t)n_logits(model) * sizeof *logits);
        mm_free(expected);
        mm_free(logits);
        mm_model_free(base);
        mm_model_free(model);
    }
}

static void test_merged_equals_unmerged(void **state)
{
    (void)state;
    static const double BOUNDS[] = {2e-6, 3e-2}; // fp32, bf16: a few roundings
    for (int i = 0; i < 4; i++) {
        const bool bf16 = i / 2;
        const mm_model_config config =
            with_adapters(i % 2 ? fixture_v2() : fixture_v3(), MM_LORA_ALL);
        mm_model *model = fixture_model(&config, MM_F32, 9);
        const char *name = "model.layers.0.self_attn.v_proj.weight";
        const mm_tensor *weight = mm_model_find(model, name);
        float *merged = mm_alloc((size_t)weight->count * sizeof *merged);
        assert_non_null(merged);
        mm_lora_merged(model, name, merged);
        float *before = logits_of(model, bf16);
        mm_lora_merge(model);
        assert_memory_equal(merged, weight->data, (size_t)weight->count * sizeof *merged);
        float *after = logits_of(model, bf16);
        const double apart = distance(after, before, n_logits(model));
        if (!(apart > 0 && apart < BOUNDS[bf16])) fail_msg("logits are %.3g apart", apart);
        mm_free(merged);
        mm_free(before);
        mm_free(after);
        mm_model_free(model);
    }
}

// Three steps of two micro-batches each; the weights are left in the model, which is handed back.
static mm_model *trained(const mm_model_config *config, const mm_engine_options *options,
                         int64_t *packings)
{
    mm_model *model = fixture_model(config, MM_F32, 1);
    mm_engine *engine = new_engine(model, options);
    mm_op_profile profile[MAX_PROFILE];
    fixture_batch data;
    mm_loss loss;
    mm_engine_profile_start(engine);
    for (int64_t step = 1; step <= 3; step++) {
        for (uint64_t micro = 0; micro < 2; micro++) {
            fixture_batch_fill(&data, LENGTHS, config->vocab_size, micro);
            CHECK_OK(mm_engine_backward(engine, &data.batch, 1.0 / 300, (uint64_t)step * 2 + micro,
                                        &loss, failure));
        }
        const mm_adamw adamw = {.learning_rate = 0.01,
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.1,
                                .grad_clip = 1.0,
                                .step = step};
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
        assert_true(norm > 0);
    }
    const int32_t n = mm_engine_profile(engine, profile, MAX_PROFILE);
    *packings = 0;
    for (int32_t i = 0; i < n && i < MAX_PROFILE; i++)
        if (strcmp(profile[i].name, "pack") == 0) *packings = profile[i].calls;
    mm_engine_free(engine);
    return model;
}

static void test_steps_change_adapters_alone_and_do_not_depend_on_how(void **state)
{
    (void)state;
    const mm_engine_options ways[] = {
        {.threads = 1, .training = true},
        {.threads = 3, .training = true},
        {.threads = 2, .training = true, .keep_all = true},
    };
    for (int i = 0; i < 4; i++) {
        mm_model_config config = with_adapters(i % 2 ? fixture_v2() : fixture_v3(),
                                               i % 2 ? MM_LORA_ALL : MM_LORA_O_PROJ);
        config.dropout = 0.1;
        config.lora_dropout = 0.2;
        mm_model *start = fixture_model(&config, MM_F32, 1);
        mm_model *first = NULL;
        int64_t n = 0;
        mm_model_data(start, &n);
        const size_t base_bytes = (size_t)mm_model_first_trained(start) * sizeof(float);
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            mm_engine_options options = ways[w];
            int64_t packings = 0;
            options.bf16 = i / 2;
            mm_model *model = trained(&config, &options, &packings);
            assert_memory_equal(mm_model_data(model, NULL), mm_model_data(start, NULL), base_bytes);
            const mm_tensor *tensors;
            const int32_t n_tensors = mm_model_tensors(model, &tensors);
            for (int32_t t = 0; t < n_tensors; t++) {
                const void *before = mm_model_find(start, tensors[t].name)->data;
                const size_t bytes = (size_t)tensors[t].count * sizeof(float);
                assert_int_equal(memcmp(tensors[t].data, before, bytes) != 0, tensors[t].trains);
            }
            assert_int_equal(packings, i / 2); // a frozen weight is packed once
            if (first) {
                assert_memory_equal(mm_model_data(model, NULL), mm_model_data(first, NULL),
                                    (size_t)n * sizeof(float));
                mm_model_free(model);
            } else {
                first = model;
            }
        }
        mm_model_free(start);
        mm_model_free(first);
    }
}

static const float *fed(mm_generator *generator, const int32_t *ids, int32_t n)
{
    const float *logits = NULL;
    mm_generator_reset(generator);
    CHECK_OK(mm_generator_feed(generator, ids, n, &logits, failure));
    return logits;
}

static void test_generation_takes_the_adapters_in(void **state)
{
    (void)state;
    static const int32_t IDS[] = {3, 17, 5, 11, 2, 28, 9};
    enum { N_IDS = sizeof IDS / sizeof IDS[0] };
    const mm_model_config config = with_adapters(fixture_v2(), MM_LORA_ALL);
    mm_model *model = fixture_model(&config, MM_F32, 9);
    mm_model *merged = fixture_model(&config, MM_F32, 9);
    mm_lora_merge(merged);
    mm_generator *generator = NULL;
    mm_generator *expected = NULL;
    const size_t bytes = (size_t)config.vocab_size * sizeof(float);
    CHECK_OK(mm_generator_new(&generator, model, 32, 1, failure));
    CHECK_OK(mm_generator_new(&expected, merged, 32, 1, failure));
    assert_memory_equal(fed(generator, IDS, N_IDS), fed(expected, IDS, N_IDS), bytes);
    const mm_tensor *b = mm_model_find(model, "model.layers.1.mlp.down_proj.lora_B.weight");
    memset(b->data, 0, (size_t)b->count * sizeof(float));
    mm_generator_reload(generator);
    assert_true(memcmp(fed(generator, IDS, N_IDS), fed(expected, IDS, N_IDS), bytes) != 0);
    mm_generator_free(generator);
    mm_generator_free(expected);
    mm_model_free(model);
    mm_model_free(merged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_have_names),
        cmocka_unit_test(test_sizes_are_those_of_the_original),
        cmocka_unit_test(test_impossible_adapters_are_refused),
        cmocka_unit_test(test_a_base_is_the_same_with_and_without),
        cmocka_unit_test(test_new_adapters_change_no_bit),
        cmocka_unit_test(test_merged_equals_unmerged),
        cmocka_unit_test(test_steps_change_adapters_alone_and_do_not_depend_on_how),
        cmocka_unit_test(test_generation_takes_the_adapters_in),
    };
    return cmocka_run_group_tests_name("nn/lora", tests, NULL, NULL);
}
