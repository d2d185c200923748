/* The engine from outside: the same bits for any number of threads, packing, the optimizer's
 * formula, refused batches, no allocation per step, and learning. Runs once per instruction set
 * (CMakeLists.txt). */
#include "tests/nn/fixture.h"

#include "core/nn/ops.h"

#include <math.h>

enum { MAX_TOKENS = 200 };

static const int32_t LENGTHS[] = {90, 1, 37, 60, 0};

static mm_engine *new_engine(mm_model *model, int32_t threads, bool training)
{
    mm_engine *engine = NULL;
    const mm_engine_options options = {.max_tokens = MAX_TOKENS,
                                       .max_segments = 8,
                                       .threads = threads,
                                       .training = training,
                                       .seed = 3};
    CHECK_OK(mm_engine_new(&engine, model, &options, failure));
    return engine;
}

static double eval(mm_engine *engine, const mm_batch *batch)
{
    mm_loss loss;
    CHECK_OK(mm_engine_eval(engine, batch, &loss, failure));
    assert_int_equal(loss.count, batch->n_labels);
    return loss.sum;
}

static mm_adamw adamw_of(int64_t step)
{
    return (mm_adamw){.learning_rate = 0.01,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8,
                      .weight_decay = 0.1,
                      .grad_clip = 1.0,
                      .step = step};
}

// Three steps of two micro-batches; returns the last loss and leaves the weights in the model.
static double train(mm_model *model, int32_t threads)
{
    mm_engine *engine = new_engine(model, threads, true);
    fixture_batch data;
    mm_loss loss = {0};
    for (int64_t step = 1; step <= 3; step++) {
        for (uint64_t micro = 0; micro < 2; micro++) {
            fixture_batch_fill(&data, LENGTHS, mm_model_config_of(model)->vocab_size, micro);
            CHECK_OK(mm_engine_backward(engine, &data.batch, 1.0 / 300, (uint64_t)step * 2 + micro,
                                        &loss, failure));
        }
        const mm_adamw adamw = adamw_of(step);
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
        assert_true(norm > 0);
    }
    mm_engine_free(engine);
    return loss.sum;
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    mm_model_config configs[] = {fixture_v3(), fixture_v2()};
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        configs[i].dropout = 0.1;
        mm_model *one = fixture_model(&configs[i], MM_F32, 1);
        const double loss = train(one, 1);
        int64_t n;
        const void *weights = mm_model_data(one, &n);
        for (int32_t threads = 2; threads <= 3; threads++) {
            mm_model *other = fixture_model(&configs[i], MM_F32, 1);
            assert_true(train(other, threads) == loss);
            assert_memory_equal(mm_model_data(other, NULL), weights, (size_t)n * sizeof(float));
            mm_model_free(other);
        }
        mm_model_free(one);
    }
}

static void test_packed_segments_equal_separate_batches(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    const int32_t V = config.vocab_size;
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 2, false);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, V, 6);
    float *packed = mm_alloc((size_t)(MAX_TOKENS * V) * sizeof(float));
    float *single = mm_alloc((size_t)(MAX_TOKENS * V) * sizeof(float));
    assert_true(packed && single);
    CHECK_OK(mm_engine_logits(engine, &data.batch, packed, failure));
    const double together = eval(engine, &data.batch);
    double apart = 0;
    for (int32_t s = 0; s < data.batch.n_segments; s++) {
        const int32_t begin = data.segments[s];
        const int32_t n = data.segments[s + 1] - begin;
        const int32_t bounds[] = {0, n};
        mm_batch batch = {.n_tokens = n,
                          .n_segments = 1,
                          .tokens = data.tokens + begin,
                          .labels = data.labels + begin,
                          .segments = bounds,
                          .n_labels = 0};
        for (int32_t t = 0; t < n; t++)
            batch.n_labels += batch.labels[t] != MM_LABEL_IGNORE;
        apart += eval(engine, &batch);
        CHECK_OK(mm_engine_logits(engine, &batch, single, failure));
        for (int32_t i = 0; i < n * V; i++)
            if (!(fabsf(single[i] - packed[begin * V + i]) <= 2e-5f))
                fail_msg("segment %d differs", (int)s);
    }
    assert_true(fabs(together - apart) < 1e-5 * together);
    mm_free(single);
    mm_free(packed);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_loss_is_the_cross_entropy_of_the_logits(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v2();
    const int32_t V = config.vocab_size;
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 1, true);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, V, 6);
    float *logits = mm_alloc((size_t)(MAX_TOKENS * V) * sizeof(float));
    assert_non_null(logits);
    CHECK_OK(mm_engine_logits(engine, &data.batch, logits, failure));
    double expected = 0;
    for (int32_t t = 0; t < data.batch.n_tokens; t++) {
        if (data.labels[t] == MM_LABEL_IGNORE) continue;
        double sum = 0;
        for (int32_t v = 0; v < V; v++)
            sum += exp((double)logits[t * V + v]);
        expected += log(sum) - (double)logits[t * V + data.labels[t]];
    }
    const double loss = eval(engine, &data.batch);
    assert_true(fabs(loss - expected) < 1e-5 * expected);
    mm_loss trained;
    CHECK_OK(mm_engine_backward(engine, &data.batch, 1, 0, &trained,
                                failure)); // no dropout in this model
    assert_true(trained.sum == loss);
    mm_free(logits);
    mm_engine_free(engine);
    mm_model_free(model);
}

// float and double models of the same values: every gradient agrees to float accuracy.
static void test_float_agrees_with_double(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    config.dropout = 0.1;
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    mm_model *models[2];
    mm_engine *engines[2];
    mm_loss losses[2];
    for (int i = 0; i < 2; i++) {
        models[i] = fixture_model(&config, i == 0 ? MM_F32 : MM_F64, 1);
        engines[i] = new_engine(models[i], 1, true);
        CHECK_OK(mm_engine_backward(engines[i], &data.batch, 0.01, 2, &losses[i], failure));
    }
    assert_true(fabs(losses[0].sum / losses[1].sum - 1) < 1e-5);
    const float *found = mm_engine_grads(engines[0]);
    const double *expected = mm_engine_grads(engines[1]);
    const mm_tensor *tensors;
    const int32_t n = mm_model_tensors(models[0], &tensors);
    for (int32_t i = 0; i < n; i++) {
        double error = 0;
        double size = 0;
        for (int64_t at = tensors[i].offset; at < tensors[i].offset + tensors[i].count; at++) {
            error += pow((double)found[at] - expected[at], 2);
            size += pow(expected[at], 2);
        }
        if (!(sqrt(error / size) < 1e-5))
            fail_msg("%s: relative error %.3g", tensors[i].name, sqrt(error / size));
    }
    for (int i = 0; i < 2; i++) {
        mm_engine_free(engines[i]);
        mm_model_free(models[i]);
    }
}

static void test_step_is_adamw(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v2();
    mm_model *model = fixture_model(&config, MM_F64, 1);
    mm_engine *engine = new_engine(model, 2, true);
    int64_t n;
    double *p = mm_model_data(model, &n);
    double *g = mm_engine_grads(engine);
    double *expected = mm_alloc((size_t)n * 3 * sizeof(double));
    assert_non_null(expected);
    double *m = expected + n;
    double *v = m + n;
    memset(m, 0, (size_t)n * 2 * sizeof(double));
    memcpy(expected, p, (size_t)n * sizeof(double));
    const mm_tensor *tensors;
    const int32_t n_tensors = mm_model_tensors(model, &tensors);
    for (int64_t step = 1; step <= 3; step++) {
        mm_adamw adamw = adamw_of(step);
        adamw.decay_all = step == 3;
        double squares = 0;
        for (int64_t i = 0; i < n; i++) {
            g[i] =
                sin((double)(i * step)) * (step == 2 ? 1e-4 : 1.0); // step 2 stays below the clip
            squares += g[i] * g[i];
        }
        const double clip = fmin(1.0, 1.0 / (sqrt(squares) + 1e-6));
        assert_true(step == 2 ? clip == 1.0 : clip < 0.1);
        for (int32_t k = 0; k < n_tensors; k++) {
            for (int64_t i = tensors[k].offset; i < tensors[k].offset + tensors[k].count; i++) {
                const double grad = g[i] * clip;
                m[i] = 0.9 * m[i] + 0.1 * grad;
                v[i] = 0.999 * v[i] + 0.001 * grad * grad;
                if (tensors[k].decays || adamw.decay_all) expected[i] *= 1 - 0.01 * 0.1;
                const double mean = m[i] / (1 - pow(0.9, (double)step));
                const double root = sqrt(v[i] / (1 - pow(0.999, (double)step)));
                expected[i] -= 0.01 * mean / (root + 1e-8);
            }
        }
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
        assert_true(fabs(norm / sqrt(squares) - 1) < 1e-12);
        for (int64_t i = 0; i < n; i++) {
            assert_true(fabs(p[i] - expected[i]) < 1e-12);
            assert_true(g[i] == 0);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabs(((double *)mm_engine_moment1(engine))[i] - m[i]) < 1e-14);
        assert_true(fabs(((double *)mm_engine_moment2(engine))[i] - v[i]) < 1e-14);
    }
    mm_free(expected);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_not_a_number_changes_nothing_and_is_named(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 2, true);
    int64_t n;
    const float *weights = mm_model_data(model, &n);
    float *before = mm_alloc((size_t)n * sizeof(float));
    assert_non_null(before);
    memcpy(before, weights, (size_t)n * sizeof(float));
    const mm_tensor *tensor = mm_model_find(model, "model.layers.1.mlp.down_proj.weight");
    ((float *)mm_engine_grads(engine))[tensor->offset + 5] = (float)INFINITY;
    ((float *)mm_engine_grads(engine))[n - 1] = NAN;
    const mm_adamw adamw = adamw_of(1);
    double norm = 0;
    mm_err err = {0};
    assert_int_equal(mm_engine_step(engine, &adamw, &norm, &err), MM_ENAN);
    assert_non_null(strstr(err.message, "model.layers.1.mlp.down_proj.weight"));
    assert_true(!isfinite(norm));
    assert_memory_equal(before, weights, (size_t)n * sizeof(float));
    mm_engine_zero_grad(engine);
    CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
    assert_true(norm == 0);
    mm_free(before);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void check_refused(mm_engine *engine, const mm_batch *batch, mm_status status,
                          const char *part)
{
    mm_err err = {0};
    mm_loss loss;
    assert_int_equal(mm_engine_eval(engine, batch, &loss, &err), status);
    if (!strstr(err.message, part)) fail_msg("message \"%s\" lacks \"%s\"", err.message, part);
}

static void test_bad_batches_are_refused(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    config.max_position_embeddings = 80;
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 1, false);
    static const int32_t lengths[] = {4, 6, 0};
    fixture_batch data;
    fixture_batch_fill(&data, lengths, config.vocab_size, 6);
    eval(engine, &data.batch);
    data.tokens[3] = config.vocab_size;
    check_refused(engine, &data.batch, MM_EFORMAT, "token 3 of the batch is 37: expected 0 to 36");
    data.tokens[3] = -1;
    check_refused(engine, &data.batch, MM_EFORMAT, "token 3 of the batch is -1");
    data.tokens[3] = 0;
    data.labels[7] = -7;
    check_refused(engine, &data.batch, MM_EFORMAT, "label 7 of the batch is -7");
    data.labels[7] = MM_LABEL_IGNORE;
    data.segments[1] = 0;
    check_refused(engine, &data.batch, MM_EFORMAT, "segment 0 runs from 0 to 0");
    data.segments[1] = 4;
    data.batch.n_tokens = 9;
    check_refused(engine, &data.batch, MM_EFORMAT, "segments run from 0 to 10: expected 0 to 9");
    data.batch.n_tokens = MAX_TOKENS + 1;
    check_refused(engine, &data.batch, MM_ELIMIT, "batch of 201 tokens: expected 1 to 200");
    data.batch.n_tokens = 10;
    data.batch.n_segments = 0;
    check_refused(engine, &data.batch, MM_ELIMIT, "batch of 0 segments");
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    check_refused(engine, &data.batch, MM_ELIMIT,
                  "segment 0 has 90 tokens: the model has positions for 80");
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_ignored_labels_alone_give_zero(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 2, true);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    for (int32_t t = 0; t < data.batch.n_tokens; t++)
        data.labels[t] = MM_LABEL_IGNORE;
    mm_loss loss;
    CHECK_OK(mm_engine_backward(engine, &data.batch, 1, 0, &loss, failure));
    assert_true(loss.sum == 0 && loss.count == 0);
    int64_t n;
    mm_model_data(model, &n);
    for (int64_t i = 0; i < n; i++)
        assert_true(((float *)mm_engine_grads(engine))[i] == 0);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_a_step_allocates_nothing(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    config.dropout = 0.1;
    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 2, true);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    const uint64_t before = mm_alloc_count();
    for (int64_t step = 1; step <= 2; step++) {
        mm_loss loss;
        CHECK_OK(mm_engine_backward(engine, &data.batch, 1, (uint64_t)step, &loss, failure));
        const mm_adamw adamw = adamw_of(step);
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
        eval(engine, &data.batch);
    }
    assert_int_equal(mm_alloc_count(), before);
    mm_engine_free(engine);
    mm_model_free(model);
}

// Counting up modulo 17 in every segment: a tiny model learns the successor within a few steps.
static void test_ten_steps_learn_a_real_task(void **state)
{
    (void)state;
    mm_model_config config = fixture_v3();
    config.vocab_size = 17;
    mm_model *model = NULL;
    CHECK_OK(mm_model_new(&model, &config, MM_F32, failure));
    mm_model_init(model, 5);
    mm_engine *engine = new_engine(model, 0, true);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    for (int32_t t = 0; t < data.batch.n_tokens; t++) {
        data.tokens[t] = t % 17;
        data.labels[t] = (t + 1) % 17;
    }
    data.batch.n_labels = data.batch.n_tokens;
    const double first = eval(engine, &data.batch) / (double)data.batch.n_labels;
    assert_true(fabs(first - log(17.0)) < 0.2);
    for (int64_t step = 1; step <= 10; step++) {
        mm_loss loss;
        CHECK_OK(
            mm_engine_backward(engine, &data.batch, 1.0 / data.batch.n_tokens, 0, &loss, failure));
        mm_adamw adamw = adamw_of(step);
        adamw.learning_rate = 0.02;
        double norm;
        CHECK_OK(mm_engine_step(engine, &adamw, &norm, failure));
    }
    const double last = eval(engine, &data.batch) / (double)data.batch.n_labels;
    if (!(last < 0.25 * first)) fail_msg("loss went from %.4f to %.4f only", first, last);
    mm_engine_free(engine);
    mm_model_free(model);
}

static void test_estimates_and_accessors(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_engine_options options = {.max_tokens = 64, .threads = 1, .training = true};
    const int64_t training = mm_engine_bytes(&config, MM_F32, &options);
    options.training = false;
    const int64_t forward = mm_engine_bytes(&config, MM_F32, &options);
    assert_true(forward > 0 && training - forward >= 3 * 4 * mm_model_config_params(&config));
    options.max_tokens = 0;
    assert_int_equal(mm_engine_bytes(&config, MM_F32, &options), -1);

    mm_model *model = fixture_model(&config, MM_F32, 1);
    mm_engine *engine = new_engine(model, 2, false);
    assert_null(mm_engine_grads(engine));
    assert_null(mm_engine_moment1(engine));
    assert_null(mm_engine_moment2(engine));
    assert_int_equal(mm_engine_threads(engine), 2);
    mm_engine_free(engine);
    mm_engine_free(NULL);
    mm_model_free(model);
    assert_true(mm_engine_probe_flops(MM_F32, 1, 5) > 1e6);
    const char *wish = getenv("MMRUN_ISA");
    if (wish && strcmp(wish, "generic") == 0) assert_string_equal(mm_engine_isa(MM_F32), "generic");
}

static void test_failed_allocations_are_reported(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    mm_model *model = fixture_model(&config, MM_F32, 1);
    const mm_engine_options options = {.max_tokens = 16, .threads = 2, .training = true};
    for (uint64_t nth = 1;; nth++) {
        mm_err err = {0};
        mm_engine *engine = NULL;
        mm_alloc_fail_at(nth);
        const mm_status status = mm_engine_new(&engine, model, &options, &err);
        mm_alloc_fail_at(0);
        mm_engine_free(engine);
        if (status == MM_OK) {
            assert_true(nth > 10);
            break;
        }
        assert_int_equal(status, MM_ENOMEM);
        assert_null(engine);
    }
    mm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_packed_segments_equal_separate_batches),
        cmocka_unit_test(test_loss_is_the_cross_entropy_of_the_logits),
        cmocka_unit_test(test_float_agrees_with_double),
        cmocka_unit_test(test_step_is_adamw),
        cmocka_unit_test(test_not_a_number_changes_nothing_and_is_named),
        cmocka_unit_test(test_bad_batches_are_refused),
        cmocka_unit_test(test_ignored_labels_alone_give_zero),
        cmocka_unit_test(test_a_step_allocates_nothing),
        cmocka_unit_test(test_ten_steps_learn_a_real_task),
        cmocka_unit_test(test_estimates_and_accessors),
        cmocka_unit_test(test_failed_allocations_are_reported),
    };
    return cmocka_run_group_tests_name("nn/engine", tests, NULL, NULL);
}
