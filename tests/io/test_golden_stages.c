/* SFT, LoRA, DPO and distillation against an independent implementation: fixtures written by
 * scripts/make_golden_stages.py from the formulas, with PyTorch and transformers. Each case trains
 * five steps of two micro-batches; loss and its parts, every gradient of the first step and the
 * parameters at the end agree within a relative L2 distance of 1e-5 in fp32, tensor by tensor. */
#include "tests/io/golden.h"

#include "core/nn/lora.h"
#include "core/nn/preference.h"
#include "core/nn/schedule.h"

enum { STEPS = 5, MICRO_BATCHES = 2, ROWS = 4, PAIRS = MICRO_BATCHES * ROWS / 2 };

/* SETTINGS of the script, in its order. */
enum { BETA, LABEL_SMOOTHING, GAMMA, IS_MEAN, ALPHA, TEMPERATURE, RANK };

typedef struct stage_case {
    golden fixture;
    mm_model *model;
    mm_engine *engine;
    mm_teacher teacher;                             // of a distillation
    mm_preference preference;                       // of a dpo
    double reference[STEPS * MICRO_BATCHES * ROWS]; // computed here, by row
    double worst[4];                                // of loss, grad_norm and what else is compared
} stage_case;

static double setting(const golden *g, int which) { return golden_number(g, "settings", which); }

static mm_engine *engine_of(mm_model *model, bool training)
{
    mm_engine *engine = NULL;
    const mm_engine_options options = {
        .max_tokens = GOLDEN_MAX_LENGTH, .threads = 2, .training = training};
    CHECK_OK(mm_engine_new(&engine, model, &options, err));
    return engine;
}

/* The model with adapters in place of *model, with its values. */
static void add_adapters(mm_model **model, const golden *g, const char *targets)
{
    mm_model *adapted = NULL;
    mm_model_config config = *mm_model_config_of(*model);
    config.lora_rank = (int32_t)setting(g, RANK);
    config.lora_alpha = setting(g, ALPHA);
    CHECK_OK(mm_lora_targets_parse(targets, &config.lora_targets, err));
    CHECK_OK(mm_model_config_resolve(&config, err));
    CHECK_OK(mm_model_new(&adapted, &config, MM_F32, err));
    mm_model_init(adapted, 1);
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(*model, &tensors);
    for (int32_t t = 0; t < count; t++) {
        const mm_tensor *frozen = mm_model_find(adapted, tensors[t].name);
        assert_non_null(frozen);
        assert_int_equal(frozen->count, tensors[t].count);
        memcpy(frozen->data, tensors[t].data, (size_t)tensors[t].count * sizeof(float));
    }
    mm_model_free(*model);
    *model = adapted;
}

/* Opens a case; `targets` of a LoRA, else NULL. */
static stage_case case_open(const char *name, const char *folder, const char *targets)
{
    char path[128];
    snprintf(path, sizeof path, "stages/%s.safetensors", name);
    stage_case c = {.fixture = golden_open(name, path)};
    snprintf(path, sizeof path, "stages/%s", folder);
    c.model = golden_model(path);
    if (targets) add_adapters(&c.model, &c.fixture, targets);
    c.engine = engine_of(c.model, true);
    return c;
}

static void case_close(stage_case *c)
{
    mm_engine_free(c->engine);
    mm_model_free(c->model);
    golden_close(&c->fixture);
}

/* Moves every tensor that trains to where the fixture starts. */
static void move_to_start(stage_case *c)
{
    const mm_tensor *tensors;
    const int32_t count = mm_model_tensors(c->model, &tensors);
    for (int32_t t = 0; t < count; t++)
        if (tensors[t].trains)
            golden_copy(&c->fixture, "start/", tensors[t].name, tensors[t].data, tensors[t].count);
    mm_engine_reload(c->engine);
}

static void check_number(stage_case *c, const char *what, int step, double found, int worst)
{
    golden_check_number(&c->fixture, what, step, found, &c->worst[worst]);
}

/* Adds the gradients of a step and checks its loss. */
typedef void (*objective)(stage_case *c, int step, golden_batch batches[MICRO_BATCHES]);

static int64_t labels_of(const golden_batch *batches)
{
    int64_t count = 0;
    for (int i = 0; i < MICRO_BATCHES; i++)
        count += batches[i].batch.n_labels;
    return count;
}

static uint64_t micro_step_of(int step, int micro)
{
    return (uint64_t)(step * MICRO_BATCHES + micro);
}

static void learn_labels(stage_case *c, int step, golden_batch *batches)
{
    const double labels = (double)labels_of(batches);
    double sum = 0;
    for (int i = 0; i < MICRO_BATCHES; i++) {
        mm_loss loss;
        CHECK_OK(mm_engine_backward(c->engine, &batches[i].batch, 1.0 / labels,
                                    micro_step_of(step, i), &loss, err));
        assert_int_equal(loss.count, batches[i].batch.n_labels);
        sum += loss.sum;
    }
    check_number(c, "loss", step, sum / labels, 0);
}

static void learn_from_teacher(stage_case *c, int step, golden_batch *batches)
{
    const double labels = (double)labels_of(batches);
    double entropy = 0;
    double divergence = 0;
    for (int i = 0; i < MICRO_BATCHES; i++) {
        mm_distill_loss loss;
        CHECK_OK(mm_engine_distill(c->engine, &c->teacher, &batches[i].batch, 1.0 / labels,
                                   micro_step_of(step, i), &loss, err));
        assert_int_equal(loss.count, batches[i].batch.n_labels);
        entropy += loss.cross_entropy / labels;
        divergence += loss.divergence / labels;
    }
    check_number(c, "ce", step, entropy, 2);
    check_number(c, "kl", step, divergence, 3);
    const double alpha = c->teacher.alpha;
    check_number(c, "loss", step, alpha * entropy + (1 - alpha) * divergence, 0);
}

/* Sums over the rows of a batch. */
static void sum_rows(const mm_batch *batch, const double *logprobs, double *sums, int64_t *tokens)
{
    for (int32_t s = 0; s < batch->n_segments; s++) {
        sums[s] = 0;
        tokens[s] = 0;
        for (int32_t t = batch->segments[s]; t < batch->segments[s + 1]; t++) {
            sums[s] += logprobs[t];
            tokens[s] += batch->labels[t] != MM_LABEL_IGNORE;
        }
    }
}

/* The derivative of a row's log-probability on each of its labels. */
static void weigh_row(const mm_batch *batch, int32_t row, double derivative, double *weights)
{
    // Backward adds -scale * weight * d(logprob).
    for (int32_t t = batch->segments[row]; t < batch->segments[row + 1]; t++)
        weights[t] = batch->labels[t] == MM_LABEL_IGNORE ? 0 : -derivative;
}

typedef struct pair_sums {
    double loss;
    double margin;
    double chosen;
    double rejected;
} pair_sums;

static void learn_batch_of_pairs(stage_case *c, int micro_step, const mm_batch *batch,
                                 pair_sums *sums)
{
    double logprobs[GOLDEN_MAX_LENGTH];
    double weights[GOLDEN_MAX_LENGTH];
    double rows[ROWS];
    int64_t tokens[ROWS];
    const double *reference = c->reference + micro_step * ROWS;
    CHECK_OK(
        mm_engine_forward(c->engine, batch, (uint64_t)micro_step, logprobs, &(mm_loss){0}, err));
    sum_rows(batch, logprobs, rows, tokens);
    for (int32_t r = 0; r < ROWS; r += 2) {
        const mm_pair pair = {rows[r],          rows[r + 1], reference[r],
                              reference[r + 1], tokens[r],   tokens[r + 1]};
        const mm_pair_loss found = mm_preference_loss(&c->preference, &pair);
        weigh_row(batch, r, found.d_chosen, weights);
        weigh_row(batch, r + 1, found.d_rejected, weights);
        sums->loss += found.loss / PAIRS;
        sums->margin += found.margin / PAIRS;
        sums->chosen += pair.chosen / PAIRS;
        sums->rejected += pair.rejected / PAIRS;
    }
    CHECK_OK(mm_engine_backward_weighted(c->engine, batch, weights, 1.0 / PAIRS,
                                         (uint64_t)micro_step, err));
}

static void learn_pairs(stage_case *c, int step, golden_batch *batches)
{
    pair_sums sums = {0};
    for (int i = 0; i < MICRO_BATCHES; i++)
        learn_batch_of_pairs(c, step * MICRO_BATCHES + i, &batches[i].batch, &sums);
    check_number(c, "loss", step, sums.loss, 0);
    golden_check_gap(&c->fixture, "margin", step, sums.margin, &c->worst[2]);
    check_number(c, "chosen", step, sums.chosen, 3);
    check_number(c, "rejected", step, sums.rejected, 3);
}

static void update(stage_case *c, int step)
{
    const mm_lr_schedule schedule = {
        .kind = MM_LR_COSINE, .learning_rate = 5e-4, .total_steps = STEPS};
    double grad_norm;
    const mm_adamw adamw = {.learning_rate = mm_lr_at(&schedule, step + 1),
                            .beta1 = 0.9,
                            .beta2 = 0.999,
                            .eps = 1e-8,
                            .weight_decay = 0.01,
                            .grad_clip = 1.0,
                            .step = step + 1,
                            .decay_all = true};
    CHECK_OK(mm_engine_step(c->engine, &adamw, &grad_norm, err));
    check_number(c, "lr", step, adamw.learning_rate, 1);
    check_number(c, "grad_norm", step, grad_norm, 1);
}

static void check_training(stage_case *c, objective learn)
{
    float *before = golden_snapshot(c->model);
    for (int step = 0; step < STEPS; step++) {
        golden_batch batches[MICRO_BATCHES];
        for (int i = 0; i < MICRO_BATCHES; i++)
            golden_batch_read(&c->fixture, step * MICRO_BATCHES + i, &batches[i]);
        learn(c, step, batches);
        if (step == 0) golden_check_grads(&c->fixture, c->model, c->engine);
        update(c, step);
    }
    print_message("%s: over %d steps: loss %.2e, grad_norm %.2e, parts %.2e and %.2e\n",
                  c->fixture.name, STEPS, c->worst[0], c->worst[1], c->worst[2], c->worst[3]);
    golden_check_final(&c->fixture, c->model, before);
    mm_free(before);
}

static void test_sft_equals_pytorch(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"sft_v3", "v3"}, {"sft_v2", "v2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage_case c = case_open(cases[i][0], cases[i][1], NULL);
        check_training(&c, learn_labels);
        case_close(&c);
    }
}

/* Adapters beside the weights and merged into them give the logits of the fixture. */
static void check_adapted_logits(stage_case *c)
{
    golden_batch b;
    double worst = 0;
    golden_batch_read(&c->fixture, 0, &b);
    const int64_t count = (int64_t)b.batch.n_tokens * mm_model_config_of(c->model)->vocab_size;
    float *logits = mm_alloc_aligned((size_t)count * sizeof *logits);
    assert_non_null(logits);
    for (int is_merged = 0; is_merged < 2; is_merged++) {
        if (is_merged) {
            mm_lora_merge(c->model);
            mm_engine_reload(c->engine);
        }
        CHECK_OK(mm_engine_logits(c->engine, &b.batch, logits, err));
        golden_check(&c->fixture, "", "logits", logits, NULL, count, GOLDEN_LIMIT, &worst);
    }
    print_message("%s: logits beside the weights and merged %.2e\n", c->fixture.name, worst);
    mm_free(logits);
}

static void test_lora_equals_pytorch(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"lora_qo_v3", "v3", "q_proj,o_proj"},
                                           {"lora_all_v3", "v3", "all"},
                                           {"lora_all_v2", "v2", "all"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage_case c = case_open(cases[i][0], cases[i][1], cases[i][2]);
        move_to_start(&c);
        check_training(&c, learn_labels);
        check_adapted_logits(&c);
        case_close(&c);
    }
}

/* What the reference, the model as it stands, gives every row; compared with the fixture's. */
static void compute_reference(stage_case *c)
{
    int64_t tokens[ROWS];
    for (int i = 0; i < STEPS * MICRO_BATCHES; i++) {
        golden_batch b;
        double logprobs[GOLDEN_MAX_LENGTH];
        golden_batch_read(&c->fixture, i, &b);
        assert_int_equal(b.batch.n_segments, ROWS);
        CHECK_OK(mm_engine_logprobs(c->engine, &b.batch, logprobs, err));
        sum_rows(&b.batch, logprobs, c->reference + i * ROWS, tokens);
        for (int r = i * ROWS; r < (i + 1) * ROWS; r++)
            check_number(c, "reference", r, c->reference[r], 2);
    }
}

static void test_dpo_equals_pytorch(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"dpo_sigmoid_v3", "v3", "sigmoid"},
                                           {"dpo_smoothed_v2", "v2", "sigmoid"},
                                           {"dpo_ipo_v2", "v2", "ipo"},
                                           {"dpo_hinge_v2", "v2", "hinge"},
                                           {"dpo_simpo_v2", "v2", "simpo"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        stage_case c = case_open(cases[i][0], cases[i][1], NULL);
        const golden *g = &c.fixture;
        c.preference = (mm_preference){.mean = setting(g, IS_MEAN) > 0,
                                       .beta = setting(g, BETA),
                                       .label_smoothing = setting(g, LABEL_SMOOTHING),
                                       .gamma = setting(g, GAMMA)};
        CHECK_OK(mm_preference_kind_parse(cases[i][2], &c.preference.kind, err));
        compute_reference(&c);
        move_to_start(&c);
        check_training(&c, learn_pairs);
        case_close(&c);
    }
}

static void test_distillation_equals_pytorch(void **state)
{
    (void)state;
    // The teacher has another shape, and four tokens more than the student.
    stage_case c = case_open("distill_v3", "v3", NULL);
    mm_model *teacher = golden_model("stages/v2");
    c.teacher = (mm_teacher){.engine = engine_of(teacher, false),
                             .alpha = setting(&c.fixture, ALPHA),
                             .temperature = setting(&c.fixture, TEMPERATURE)};
    check_training(&c, learn_from_teacher);
    mm_engine_free(c.teacher.engine);
    mm_model_free(teacher);
    case_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sft_equals_pytorch),
        cmocka_unit_test(test_lora_equals_pytorch),
        cmocka_unit_test(test_dpo_equals_pytorch),
        cmocka_unit_test(test_distillation_equals_pytorch),
    };
    return cmocka_run_group_tests_name("io/golden_stages", tests, NULL, NULL);
}
