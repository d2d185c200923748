/* Gradients of the objectives beyond plain cross entropy against differences of their losses, in
 * double precision and through whole tiny models: weighted labels, a teacher, preferences. The
 * quotient and its error: test_grad_model.c.
 */
#include "tests/nn/fixture.h"

#include "core/nn/preference.h"

#include <math.h>

enum { MAX_TOKENS = 32, MICRO_STEP = 5 };
static const double STEP = 2e-4; // embeddings thinned by dropout bend too much for 1e-3
static const double TOLERANCE = 1e-6;
static const double SCALE = 0.125;

typedef struct objective {
    mm_model *model;
    mm_engine *engine;
    fixture_batch data;
    double weights[MAX_TOKENS];
    mm_teacher teacher;
    mm_model *teacher_model;
    mm_preference preference;
    double (*loss)(struct objective *self);
    int64_t stride; // every how many values are probed
} objective;

static mm_engine *engine_of(mm_model *model, bool training)
{
    mm_engine *engine = NULL;
    const mm_engine_options options = {
        .max_tokens = MAX_TOKENS, .threads = 1, .training = training, .seed = 3};
    CHECK_OK(mm_engine_new(&engine, model, &options, failure));
    return engine;
}

static mm_model_config tiny_v3(double dropout)
{
    mm_model_config config = fixture_v3();
    config.vocab_size = 19;
    config.hidden_size = 10;
    config.head_dim = 4;
    config.intermediate_size = 11;
    config.dropout = dropout;
    return config;
}

static void objective_init(objective *self, const mm_model_config *config, int64_t stride)
{
    *self = (objective){.stride = stride};
    self->model = fixture_model(config, MM_F64, 1);
    self->engine = engine_of(self->model, true);
    fixture_batch_fill(&self->data, (const int32_t[]){5, 1, 9, 6, 0}, config->vocab_size, 2);
}

static void objective_drop(objective *self)
{
    mm_engine_free(self->teacher.engine);
    mm_model_free(self->teacher_model);
    mm_engine_free(self->engine);
    mm_model_free(self->model);
}

static double difference_quotient(objective *self, double *value)
{
    static const double weights[] = {1, -8, 8, -1}; // at -2h, -h, h, 2h
    static const double at[] = {-2, -1, 1, 2};
    const double kept = *value;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *value = kept + at[i] * STEP;
        sum += weights[i] * self->loss(self);
    }
    *value = kept;
    return sum / (12 * STEP);
}

// The gradients of `engine` are those of self->loss.
static void check_gradients(objective *self)
{
    int64_t n;
    mm_model_data(self->model, &n);
    double *gradient = mm_alloc((size_t)n * sizeof(double));
    assert_non_null(gradient);
    memcpy(gradient, mm_engine_grads(self->engine), (size_t)n * sizeof(double));
    const mm_tensor *tensors;
    const int32_t n_tensors = mm_model_tensors(self->model, &tensors);
    for (int32_t i = 0; i < n_tensors; i++) {
        double largest = 0;
        double worst = 0;
        for (int64_t at = 0; at < tensors[i].count; at += self->stride) {
            const double expected = difference_quotient(self, (double *)tensors[i].data + at);
            largest = fmax(largest, fabs(expected));
            worst = fmax(worst, fabs(expected - gradient[tensors[i].offset + at]));
        }
        if (!(largest > 0)) fail_msg("%s: no gradient at all", tensors[i].name);
        if (!(worst <= TOLERANCE * largest))
            fail_msg("%s: off by %.3g, largest %.3g", tensors[i].name, worst, largest);
    }
    mm_free(gradient);
}

static double weighted_loss(objective *self)
{
    double logprobs[MAX_TOKENS];
    mm_loss loss;
    CHECK_OK(
        mm_engine_forward(self->engine, &self->data.batch, MICRO_STEP, logprobs, &loss, failure));
    double sum = 0;
    for (int32_t t = 0; t < self->data.batch.n_tokens; t++)
        sum -= self->weights[t] * logprobs[t];
    return SCALE * sum;
}

static void check_weighted(const mm_model_config *config)
{
    objective self;
    objective_init(&self, config, 1);
    self.loss = weighted_loss;
    for (int32_t t = 0; t < self.data.batch.n_tokens; t++) // of both signs, and none
        self.weights[t] = t % 7 == 2 ? 0 : sin(t + 1.0);
    weighted_loss(&self);
    CHECK_OK(mm_engine_backward_weighted(self.engine, &self.data.batch, self.weights, SCALE,
                                         MICRO_STEP, failure));
    check_gradients(&self);
    objective_drop(&self);
}

static void test_weighted_labels(void **state)
{
    (void)state;
    const mm_model_config v3 = tiny_v3(0.2);
    check_weighted(&v3);
    mm_model_config v2 = fixture_v2();
    v2.dropout = 0.3;
    check_weighted(&v2);
}

// Log-probabilities of all tokens of row t of `logits` (T, stride), of which V count.
static void log_softmax(const double *logits, int32_t V, double temperature, double *out)
{
    double sum = 0;
    for (int32_t v = 0; v < V; v++)
        sum += exp(logits[v] / temperature);
    for (int32_t v = 0; v < V; v++)
        out[v] = logits[v] / temperature - log(sum);
}

// The formulas as they stand in the paper, on the logits of both models.
static mm_distill_loss plain_distillation(const objective *self)
{
    enum { MAX_VOCAB = 32 };
    const mm_batch *batch = &self->data.batch;
    const int32_t V = mm_model_config_of(self->model)->vocab_size;
    const int32_t teacher_V = mm_model_config_of(self->teacher_model)->vocab_size;
    const double T = self->teacher.temperature;
    double student[MAX_TOKENS * MAX_VOCAB];
    double teacher[MAX_TOKENS * MAX_VOCAB];
    assert_true(teacher_V <= MAX_VOCAB);
    CHECK_OK(mm_engine_logits(self->engine, batch, student, failure));
    CHECK_OK(mm_engine_logits(self->teacher.engine, batch, teacher, failure));
    mm_distill_loss loss = {0};
    for (int32_t t = 0; t < batch->n_tokens; t++) {
        double p[MAX_VOCAB] = {0};
        double q[MAX_VOCAB] = {0};
        if (batch->labels[t] == MM_LABEL_IGNORE) continue;
        log_softmax(student + t * V, V, 1, p);
        loss.cross_entropy -= p[batch->labels[t]];
        log_softmax(student + t * V, V, T, p);
        log_softmax(teacher + t * teacher_V, V, T, q);
        for (int32_t v = 0; v < V; v++)
            loss.divergence += T * T * exp(q[v]) * (q[v] - p[v]);
        loss.count++;
    }
    return loss;
}

static mm_distill_loss distill(objective *self)
{
    mm_distill_loss loss;
    CHECK_OK(mm_engine_distill(self->engine, &self->teacher, &self->data.batch, SCALE, MICRO_STEP,
                               &loss, failure));
    return loss;
}

static double distill_loss(objective *self)
{
    const mm_distill_loss loss = distill(self);
    const double alpha = self->teacher.alpha;
    return SCALE * (alpha * loss.cross_entropy + (1 - alpha) * loss.divergence);
}

static void check_distillation(const mm_model_config *teacher, double alpha, double temperature)
{
    objective self;
    const mm_model_config student = tiny_v3(0);
    objective_init(&self, &student, 5);
    self.loss = distill_loss;
    self.teacher_model = fixture_model(teacher, MM_F64, 9);
    self.teacher = (mm_teacher){engine_of(self.teacher_model, false), alpha, temperature};
    const mm_distill_loss found = distill(&self);
    const mm_distill_loss expected = plain_distillation(&self);
    assert_int_equal(found.count, expected.count);
    assert_true(fabs(found.cross_entropy / expected.cross_entropy - 1) < 1e-12);
    if (!(fabs(found.divergence / expected.divergence - 1) < 1e-12))
        fail_msg("divergence %.15g, by the formula %.15g", found.divergence, expected.divergence);
    check_gradients(&self);
    objective_drop(&self);
}

static void test_a_teacher_of_another_shape(void **state)
{
    (void)state;
    mm_model_config same = tiny_v3(0);
    mm_model_config wide = fixture_v2();
    wide.vocab_size = same.vocab_size;
    wide.num_hidden_layers = 3;
    mm_model_config more_tokens = fixture_v2(); // 29 for the student's 19
    static const double alphas[] = {0, 0.5, 1};
    static const double temperatures[] = {1, 1.5};
    for (int a = 0; a < 3; a++)
        for (int t = 0; t < 2; t++) {
            check_distillation(&same, alphas[a], temperatures[t]);
            check_distillation(&wide, alphas[a], temperatures[t]);
            check_distillation(&more_tokens, alphas[a], temperatures[t]);
        }
}

// Segment 2 is the chosen answer, segment 3 the rejected one.
static mm_pair pair_of(const objective *self, const double *logprobs)
{
    mm_pair pair = {.reference_chosen = -30, .reference_rejected = -21};
    for (int32_t t = self->data.segments[2]; t < self->data.segments[4]; t++) {
        const bool is_chosen = t < self->data.segments[3];
        *(is_chosen ? &pair.chosen : &pair.rejected) += logprobs[t];
        *(is_chosen ? &pair.chosen_tokens : &pair.rejected_tokens) +=
            self->data.labels[t] != MM_LABEL_IGNORE;
    }
    return pair;
}

static mm_pair_loss preference_of(objective *self)
{
    double logprobs[MAX_TOKENS];
    mm_loss loss;
    CHECK_OK(
        mm_engine_forward(self->engine, &self->data.batch, MICRO_STEP, logprobs, &loss, failure));
    const mm_pair pair = pair_of(self, logprobs);
    return mm_preference_loss(&self->preference, &pair);
}

static double preference_loss(objective *self) { return preference_of(self).loss; }

static void test_preferences_between_two_packed_answers(void **state)
{
    (void)state;
    for (int kind = MM_PREFERENCE_SIGMOID; kind <= MM_PREFERENCE_SIMPO; kind++) {
        objective self;
        const mm_model_config config = tiny_v3(0.1);
        objective_init(&self, &config, 5);
        self.loss = preference_loss;
        self.preference = (mm_preference){.kind = (mm_preference_kind)kind,
                                          .mean = kind == MM_PREFERENCE_IPO,
                                          .beta = 0.1,
                                          .label_smoothing = 0.1,
                                          .gamma = 0.5};
        const mm_pair_loss at = preference_of(&self);
        for (int32_t t = self.data.segments[2]; t < self.data.segments[4]; t++)
            self.weights[t] = t < self.data.segments[3] ? -at.d_chosen : -at.d_rejected;
        assert_true(at.d_chosen < 0);
        CHECK_OK(mm_engine_backward_weighted(self.engine, &self.data.batch, self.weights, 1,
                                             MICRO_STEP, failure));
        check_gradients(&self);
        objective_drop(&self);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighted_labels),
        cmocka_unit_test(test_a_teacher_of_another_shape),
        cmocka_unit_test(test_preferences_between_two_packed_answers),
    };
    return cmocka_run_group_tests_name("nn/grad_objectives", tests, NULL, NULL);
}
