/* Passes in two parts, log-probabilities and distillation from outside: the bits of the plain pass,
 * of every packing and of any number of threads; what is refused. Gradients against differences:
 * test_grad_objectives.c. Runs once per instruction set (CMakeLists.txt). */
#include "tests/nn/fixture.h"

#include <math.h>

enum { MAX_TOKENS = 512, MICRO_STEP = 7 };

// More labels than the head takes at once.
static const int32_t LENGTHS[] = {90, 1, 237, 160, 0};

typedef struct subject {
    mm_model *model;
    mm_engine *engine;
} subject;

static subject subject_of(const mm_model_config *config, uint64_t seed,
                          const mm_engine_options *options)
{
    subject made = {fixture_model(config, MM_F32, seed), NULL};
    mm_engine_options own = *options;
    if (own.max_tokens == 0) own.max_tokens = MAX_TOKENS;
    own.seed = 3;
    CHECK_OK(mm_engine_new(&made.engine, made.model, &own, failure));
    return made;
}

static void subject_drop(subject *made)
{
    mm_engine_free(made->engine);
    mm_model_free(made->model);
}

static size_t grad_bytes(const subject *made)
{
    int64_t n;
    mm_model_data(made->model, &n);
    return (size_t)n * sizeof(float);
}

static float *grads_copy(const subject *made)
{
    float *copy = mm_alloc(grad_bytes(made));
    assert_non_null(copy);
    memcpy(copy, mm_engine_grads(made->engine), grad_bytes(made));
    return copy;
}

static void check_grads_zero(const subject *made)
{
    const float *grads = mm_engine_grads(made->engine);
    for (size_t i = 0; i < grad_bytes(made) / sizeof(float); i++)
        assert_true(grads[i] == 0);
}

static mm_model_config with_dropout(mm_model_config config)
{
    config.dropout = 0.1;
    return config;
}

static void check_two_parts(const mm_model_config *config, bool bf16)
{
    const mm_engine_options options = {.threads = 2, .training = true, .bf16 = bf16};
    subject whole = subject_of(config, 1, &options);
    subject parts = subject_of(config, 1, &options);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config->vocab_size, 6);
    mm_loss expected;
    mm_loss found;
    double logprobs[MAX_TOKENS];
    double ones[MAX_TOKENS];
    for (int i = 0; i < MAX_TOKENS; i++)
        ones[i] = 1;
    CHECK_OK(mm_engine_backward(whole.engine, &data.batch, 0.01, MICRO_STEP, &expected, failure));
    CHECK_OK(mm_engine_forward(parts.engine, &data.batch, MICRO_STEP, logprobs, &found, failure));
    assert_memory_equal(&found, &expected, sizeof found);
    check_grads_zero(&parts);
    double sum = 0;
    for (int32_t t = 0; t < data.batch.n_tokens; t++) {
        assert_true(data.labels[t] == MM_LABEL_IGNORE ? logprobs[t] == 0 : logprobs[t] < 0);
        sum -= logprobs[t];
    }
    assert_true(fabs(sum / found.sum - 1) < 1e-12);
    CHECK_OK(
        mm_engine_backward_weighted(parts.engine, &data.batch, ones, 0.01, MICRO_STEP, failure));
    assert_memory_equal(mm_engine_grads(parts.engine), mm_engine_grads(whole.engine),
                        grad_bytes(&whole));
    subject_drop(&parts);
    subject_drop(&whole);
}

static void test_weights_of_one_are_the_plain_pass(void **state)
{
    (void)state;
    const mm_model_config configs[] = {with_dropout(fixture_v3()), with_dropout(fixture_v2())};
    for (int i = 0; i < 2; i++)
        for (int bf16 = 0; bf16 < 2; bf16++)
            check_two_parts(&configs[i], bf16 == 1);
}

static void test_a_row_has_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const mm_engine_options options = {.threads = 2, .bf16 = bf16 == 1};
        subject made = subject_of(&config, 1, &options);
        fixture_batch data;
        fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
        double packed[MAX_TOKENS];
        double alone[MAX_TOKENS];
        CHECK_OK(mm_engine_logprobs(made.engine, &data.batch, packed, failure));
        for (int32_t s = 0; s < data.batch.n_segments; s++) {
            const int32_t begin = data.segments[s];
            const int32_t n = data.segments[s + 1] - begin;
            const int32_t bounds[] = {0, n};
            const mm_batch batch = {.n_tokens = n,
                                    .n_segments = 1,
                                    .tokens = data.tokens + begin,
                                    .labels = data.labels + begin,
                                    .segments = bounds};
            CHECK_OK(mm_engine_logprobs(made.engine, &batch, alone, failure));
            assert_memory_equal(alone, packed + begin, (size_t)n * sizeof(double));
        }
        subject_drop(&made);
    }
}

// The documents of a batch in another order: the same outputs in that order, bit for bit.
static void test_another_order_permutes_the_outputs(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const mm_engine_options options = {.threads = 2, .bf16 = bf16 != 0};
        subject made = subject_of(&config, 1, &options);
        fixture_batch data;
        fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
        const int32_t n = data.batch.n_segments;
        int32_t tokens[MAX_TOKENS];
        int32_t labels[MAX_TOKENS];
        int32_t bounds[sizeof LENGTHS / sizeof LENGTHS[0] + 1] = {0};
        double expected[MAX_TOKENS];
        double found[MAX_TOKENS];
        for (int32_t s = 0; s < n; s++) {
            const int32_t from = data.segments[n - 1 - s];
            const int32_t count = data.segments[n - s] - from;
            memcpy(tokens + bounds[s], data.tokens + from, (size_t)count * sizeof *tokens);
            memcpy(labels + bounds[s], data.labels + from, (size_t)count * sizeof *labels);
            bounds[s + 1] = bounds[s] + count;
        }
        const mm_batch turned = {.n_tokens = data.batch.n_tokens,
                                 .n_segments = n,
                                 .tokens = tokens,
                                 .labels = labels,
                                 .segments = bounds};
        CHECK_OK(mm_engine_logprobs(made.engine, &data.batch, expected, failure));
        CHECK_OK(mm_engine_logprobs(made.engine, &turned, found, failure));
        for (int32_t s = 0; s < n; s++)
            assert_memory_equal(found + bounds[s], expected + data.segments[n - 1 - s],
                                (size_t)(bounds[s + 1] - bounds[s]) * sizeof *found);
        subject_drop(&made);
    }
}

static void test_logprobs_are_those_of_the_logits(void **state)
{
    (void)state;
    const mm_model_config config = with_dropout(fixture_v2());
    const mm_engine_options options = {.threads = 1, .training = true};
    subject made = subject_of(&config, 1, &options);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    double found[MAX_TOKENS];
    float *logits = mm_alloc((size_t)(MAX_TOKENS * config.vocab_size) * sizeof(float));
    assert_non_null(logits);
    CHECK_OK(mm_engine_logprobs(made.engine, &data.batch, found, failure));
    CHECK_OK(mm_engine_logits(made.engine, &data.batch, logits, failure));
    for (int32_t t = 0; t < data.batch.n_tokens; t++) {
        const float *row = logits + t * config.vocab_size;
        double sum = 0;
        for (int32_t v = 0; v < config.vocab_size; v++)
            sum += exp((double)row[v]);
        const double expected =
            data.labels[t] == MM_LABEL_IGNORE ? 0 : (double)row[data.labels[t]] - log(sum);
        assert_true(fabs(found[t] - expected) < 2e-6);
    }
    mm_free(logits);
    subject_drop(&made);
}

// One micro-batch with a weight for every label, one with a teacher.
static float *train_both(const mm_model_config *config, int32_t threads, bool bf16)
{
    const mm_model_config wide = fixture_v3();
    const mm_engine_options options = {.threads = threads, .training = true, .bf16 = bf16};
    const mm_engine_options forward_only = {.threads = threads, .bf16 = bf16};
    subject student = subject_of(config, 1, &options);
    subject other = subject_of(&wide, 2, &forward_only);
    const mm_teacher teacher = {other.engine, 0.3, 1.5};
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config->vocab_size, 6);
    double weights[MAX_TOKENS];
    for (int i = 0; i < MAX_TOKENS; i++)
        weights[i] = i % 5 == 1 ? 0 : cos(i);
    mm_loss loss;
    mm_distill_loss distilled;
    CHECK_OK(mm_engine_forward(student.engine, &data.batch, 1, NULL, &loss, failure));
    CHECK_OK(mm_engine_backward_weighted(student.engine, &data.batch, weights, 0.01, 1, failure));
    CHECK_OK(
        mm_engine_distill(student.engine, &teacher, &data.batch, 0.01, 2, &distilled, failure));
    assert_true(distilled.divergence > 0 && distilled.count == data.batch.n_labels);
    float *grads = grads_copy(&student);
    subject_drop(&other);
    subject_drop(&student);
    return grads;
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    const mm_model_config config = with_dropout(fixture_v2());
    for (int bf16 = 0; bf16 < 2; bf16++) {
        float *one = train_both(&config, 1, bf16 == 1);
        for (int32_t threads = 2; threads <= 3; threads++) {
            float *more = train_both(&config, threads, bf16 == 1);
            assert_memory_equal(more, one, (size_t)mm_model_config_params(&config) * sizeof(float));
            mm_free(more);
        }
        mm_free(one);
    }
}

static void test_weights_of_zero_give_no_gradient(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    const mm_engine_options options = {.threads = 2, .training = true};
    subject made = subject_of(&config, 1, &options);
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    const double zeros[MAX_TOKENS] = {0};
    mm_loss loss;
    CHECK_OK(mm_engine_forward(made.engine, &data.batch, 0, NULL, &loss, failure));
    CHECK_OK(mm_engine_backward_weighted(made.engine, &data.batch, zeros, 1, 0, failure));
    check_grads_zero(&made);
    subject_drop(&made);
}

static void test_an_equal_teacher_teaches_nothing(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    for (int bf16 = 0; bf16 < 2; bf16++) {
        const mm_engine_options options = {.threads = 2, .training = true, .bf16 = bf16 == 1};
        const mm_engine_options forward_only = {.threads = 1, .bf16 = bf16 == 1};
        subject student = subject_of(&config, 1, &options);
        subject equal = subject_of(&config, 1, &forward_only);
        fixture_batch data;
        fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
        static const double temperatures[] = {1, 1.5, 4};
        for (int i = 0; i < 3; i++) {
            const mm_teacher teacher = {equal.engine, 0, temperatures[i]};
            mm_distill_loss loss;
            CHECK_OK(
                mm_engine_distill(student.engine, &teacher, &data.batch, 1, 0, &loss, failure));
            assert_true(loss.divergence == 0);
            assert_true(loss.cross_entropy > 0);
            check_grads_zero(&student);
        }
        subject_drop(&equal);
        subject_drop(&student);
    }
}

static double distance(const float *a, const float *b, size_t n)
{
    double error = 0;
    double size = 0;
    for (size_t i = 0; i < n; i++) {
        error += pow((double)a[i] - (double)b[i], 2);
        size += pow((double)b[i], 2);
    }
    return sqrt(error / size);
}

// Labels alone: the same sums and, up to rounding, the same gradients as without a teacher.
static void test_a_teacher_without_a_share_is_cross_entropy(void **state)
{
    (void)state;
    const mm_model_config config = with_dropout(fixture_v3());
    const mm_model_config other = fixture_v3();
    const mm_engine_options options = {.threads = 2, .training = true};
    const mm_engine_options forward_only = {.threads = 2};
    subject plain = subject_of(&config, 1, &options);
    subject student = subject_of(&config, 1, &options);
    subject source = subject_of(&other, 2, &forward_only);
    const mm_teacher teacher = {source.engine, 1, 2};
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    mm_loss expected;
    mm_distill_loss found;
    CHECK_OK(mm_engine_backward(plain.engine, &data.batch, 0.01, 4, &expected, failure));
    CHECK_OK(mm_engine_distill(student.engine, &teacher, &data.batch, 0.01, 4, &found, failure));
    assert_true(fabs(found.cross_entropy / expected.sum - 1) < 1e-7);
    assert_int_equal(found.count, expected.count);
    assert_true(distance(mm_engine_grads(student.engine), mm_engine_grads(plain.engine),
                         grad_bytes(&plain) / sizeof(float)) < 1e-6);
    subject_drop(&source);
    subject_drop(&student);
    subject_drop(&plain);
}

static void test_a_batch_without_labels_changes_nothing(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    const mm_engine_options options = {.threads = 2, .training = true};
    const mm_engine_options forward_only = {.threads = 1};
    subject made = subject_of(&config, 1, &options);
    subject source = subject_of(&config, 2, &forward_only);
    const mm_teacher teacher = {source.engine, 0.5, 1};
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    for (int32_t t = 0; t < data.batch.n_tokens; t++)
        data.labels[t] = MM_LABEL_IGNORE;
    mm_loss loss = {1, 1};
    double logprobs[MAX_TOKENS];
    double weights[MAX_TOKENS];
    for (int i = 0; i < MAX_TOKENS; i++)
        weights[i] = logprobs[i] = (double)NAN; // must be neither read nor left
    CHECK_OK(mm_engine_forward(made.engine, &data.batch, 0, logprobs, &loss, failure));
    assert_true(loss.sum == 0 && loss.count == 0);
    CHECK_OK(mm_engine_backward_weighted(made.engine, &data.batch, weights, 1, 0, failure));
    check_grads_zero(&made);
    for (int32_t t = 0; t < data.batch.n_tokens; t++)
        assert_true(logprobs[t] == 0);
    mm_distill_loss distilled = {1, 1, 1};
    CHECK_OK(mm_engine_distill(made.engine, &teacher, &data.batch, 1, 0, &distilled, failure));
    assert_true(distilled.cross_entropy == 0 && distilled.divergence == 0);
    assert_int_equal(distilled.count, 0);
    check_grads_zero(&made);
    subject_drop(&source);
    subject_drop(&made);
}

static void check_no_forward(const subject *made, const mm_batch *batch, uint64_t micro_step)
{
    static const double weights[MAX_TOKENS] = {1};
    mm_err err = {0};
    assert_int_equal(mm_engine_backward_weighted(made->engine, batch, weights, 1, micro_step, &err),
                     MM_EUSAGE);
    assert_non_null(strstr(err.message, "expected the forward of the same batch"));
    check_grads_zero(made);
}

static void test_the_second_part_needs_the_first(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    const mm_engine_options options = {.threads = 1, .training = true};
    subject made = subject_of(&config, 1, &options);
    fixture_batch data;
    fixture_batch other;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    fixture_batch_fill(&other, LENGTHS, config.vocab_size, 7);
    const double ones[MAX_TOKENS] = {1};
    const mm_adamw adamw = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .step = 1};
    mm_loss loss;
    double norm;
    check_no_forward(&made, &data.batch, 1);
    for (int i = 0; i < 5; i++) {
        CHECK_OK(mm_engine_forward(made.engine, &data.batch, 1, NULL, &loss, failure));
        if (i == 0) CHECK_OK(mm_engine_eval(made.engine, &data.batch, &loss, failure));
        if (i == 1) CHECK_OK(mm_engine_step(made.engine, &adamw, &norm, failure));
        if (i == 2) mm_engine_reload(made.engine);
        check_no_forward(&made, i == 3 ? &other.batch : &data.batch, i == 4 ? 2 : 1);
    }
    CHECK_OK(mm_engine_forward(made.engine, &data.batch, 1, NULL, &loss, failure));
    CHECK_OK(mm_engine_backward_weighted(made.engine, &data.batch, ones, 1, 1, failure));
    mm_engine_zero_grad(made.engine);
    check_no_forward(&made, &data.batch, 1); // each forward serves once
    subject_drop(&made);
}

static void check_teacher_refused(const subject *student, const mm_teacher *teacher,
                                  mm_status status, const char *part)
{
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, mm_model_config_of(student->model)->vocab_size, 6);
    mm_distill_loss loss;
    mm_err err = {0};
    assert_int_equal(mm_engine_distill(student->engine, teacher, &data.batch, 1, 0, &loss, &err),
                     status);
    if (!strstr(err.message, part)) fail_msg("message \"%s\" lacks \"%s\"", err.message, part);
    check_grads_zero(student);
}

static void test_a_teacher_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    const mm_model_config config = fixture_v3();
    const mm_model_config fewer_tokens = fixture_v2();
    mm_model_config shorter = config;
    shorter.max_position_embeddings = 100;
    const mm_engine_options options = {.threads = 1, .training = true};
    const mm_engine_options forward_only = {.threads = 1};
    const mm_engine_options narrow = {.threads = 1, .max_tokens = 300};
    const mm_engine_options in_bf16 = {.threads = 1, .bf16 = true};
    subject student = subject_of(&config, 1, &options);
    subject good = subject_of(&config, 2, &forward_only);
    subject others[] = {subject_of(&fewer_tokens, 2, &forward_only),
                        subject_of(&shorter, 2, &forward_only), subject_of(&config, 2, &narrow),
                        subject_of(&config, 2, &in_bf16)};
    static const struct {
        mm_status status;
        const char *part;
    } refusals[] = {
        {MM_EUSAGE, "teacher has a vocabulary of 29: expected at least the 37 of the student"},
        {MM_ELIMIT, "teacher: segment 2 has 237 tokens: the model has positions for 100"},
        {MM_ELIMIT, "teacher: batch of 488 tokens: expected 1 to 300"},
        {MM_EUSAGE, "teacher computes in bf16: expected fp32"}};
    for (int i = 0; i < 4; i++) {
        const mm_teacher teacher = {others[i].engine, 0.5, 1};
        check_teacher_refused(&student, &teacher, refusals[i].status, refusals[i].part);
        subject_drop(&others[i]);
    }
    const mm_teacher cold = {good.engine, 0.5, 0};
    check_teacher_refused(&student, &cold, MM_ECONFIG, "temperature 0: expected more than 0");
    const mm_teacher greedy = {good.engine, 1.5, 1};
    check_teacher_refused(&student, &greedy, MM_ECONFIG, "1.5: expected 0 to 1");
    subject_drop(&good);
    subject_drop(&student);
}

static void test_no_pass_allocates(void **state)
{
    (void)state;
    const mm_model_config config = with_dropout(fixture_v2());
    const mm_engine_options options = {.threads = 2, .training = true};
    subject made = subject_of(&config, 1, &options);
    subject source = subject_of(&config, 2, &options);
    const mm_teacher teacher = {source.engine, 0.5, 1};
    fixture_batch data;
    fixture_batch_fill(&data, LENGTHS, config.vocab_size, 6);
    const double ones[MAX_TOKENS] = {1};
    double logprobs[MAX_TOKENS];
    mm_loss loss;
    mm_distill_loss distilled;
    const uint64_t before = mm_alloc_count();
    CHECK_OK(mm_engine_forward(made.engine, &data.batch, 1, logprobs, &loss, failure));
    CHECK_OK(mm_engine_backward_weighted(made.engine, &data.batch, ones, 1, 1, failure));
    CHECK_OK(mm_engine_logprobs(made.engine, &data.batch, logprobs, failure));
    CHECK_OK(mm_engine_distill(made.engine, &teacher, &data.batch, 1, 2, &distilled, failure));
    assert_int_equal(mm_alloc_count(), before);
    subject_drop(&source);
    subject_drop(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_of_one_are_the_plain_pass),
        cmocka_unit_test(test_a_row_has_the_same_bits_in_any_batch),
        cmocka_unit_test(test_another_order_permutes_the_outputs),
        cmocka_unit_test(test_logprobs_are_those_of_the_logits),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_weights_of_zero_give_no_gradient),
        cmocka_unit_test(test_an_equal_teacher_teaches_nothing),
        cmocka_unit_test(test_a_teacher_without_a_share_is_cross_entropy),
        cmocka_unit_test(test_a_batch_without_labels_changes_nothing),
        cmocka_unit_test(test_the_second_part_needs_the_first),
        cmocka_unit_test(test_a_teacher_that_does_not_fit_is_refused),
        cmocka_unit_test(test_no_pass_allocates),
    };
    return cmocka_run_group_tests_name("nn/objectives", tests, NULL, NULL);
}
