/* The engine against an independent implementation: fixtures written by scripts/make_golden.py with
 * PyTorch and transformers. Logits, loss, every gradient and ten AdamW steps agree within a
 * relative L2 distance of 1e-5 in fp32, tensor by tensor. */
#include "tests/io/golden.h"

#include "core/nn/schedule.h"

enum { STEPS = 10 };

typedef struct trainee {
    golden fixture;
    mm_model *model;
    mm_engine *engine;
} trainee;

static trainee trainee_open(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/reference.safetensors", name);
    trainee t = {.fixture = golden_open(name, path), .model = golden_model(name)};
    const mm_engine_options options = {
        .max_tokens = GOLDEN_MAX_LENGTH, .threads = 2, .training = true};
    CHECK_OK(mm_engine_new(&t.engine, t.model, &options, err));
    return t;
}

static void trainee_close(trainee *t)
{
    mm_engine_free(t->engine);
    mm_model_free(t->model);
    golden_close(&t->fixture);
}

static void each_fixture(void (*check)(trainee *t))
{
    static const char *const folders[] = {"qwen3", "llama"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        trainee t = trainee_open(folders[i]);
        check(&t);
        trainee_close(&t);
    }
}

static void check_logits_and_loss(trainee *t)
{
    golden_batch b;
    mm_loss loss;
    double worst_logits = 0;
    double worst_loss = 0;
    golden_batch_read(&t->fixture, 0, &b);
    const int64_t count = (int64_t)b.batch.n_tokens * mm_model_config_of(t->model)->vocab_size;
    float *logits = mm_alloc_aligned((size_t)count * sizeof *logits);
    assert_non_null(logits);
    CHECK_OK(mm_engine_logits(t->engine, &b.batch, logits, err));
    golden_check(&t->fixture, "", "logits", logits, NULL, count, GOLDEN_LIMIT, &worst_logits);
    mm_free(logits);
    CHECK_OK(mm_engine_eval(t->engine, &b.batch, &loss, err));
    assert_int_equal(loss.count, b.batch.n_labels);
    golden_check_number(&t->fixture, "loss", 0, loss.sum / (double)loss.count, &worst_loss);
    print_message("%s: logits %.2e, loss %.2e\n", t->fixture.name, worst_logits, worst_loss);
}

static void test_logits_and_loss_equal_pytorch(void **state)
{
    (void)state;
    each_fixture(check_logits_and_loss);
}

static void check_gradients(trainee *t)
{
    golden_batch b;
    mm_loss loss;
    golden_batch_read(&t->fixture, 0, &b);
    CHECK_OK(
        mm_engine_backward(t->engine, &b.batch, 1.0 / (double)b.batch.n_labels, 0, &loss, err));
    golden_check_grads(&t->fixture, t->model, t->engine);
}

static void test_every_gradient_equals_pytorch(void **state)
{
    (void)state;
    each_fixture(check_gradients);
}

/* The ten steps with MiniMind's optimizer; losses, norms and rates on the way are compared too. */
static void check_training(trainee *t)
{
    const golden *g = &t->fixture;
    const mm_lr_schedule schedule = {
        .kind = MM_LR_COSINE, .learning_rate = 5e-4, .total_steps = STEPS};
    double worst[3] = {0};
    float *before = golden_snapshot(t->model);
    for (int step = 0; step < STEPS; step++) {
        golden_batch b;
        mm_loss loss;
        double grad_norm;
        golden_batch_read(g, step, &b);
        CHECK_OK(mm_engine_backward(t->engine, &b.batch, 1.0 / (double)b.batch.n_labels,
                                    (uint64_t)step, &loss, err));
        const mm_adamw adamw = {.learning_rate = mm_lr_at(&schedule, step + 1),
                                .beta1 = 0.9,
                                .beta2 = 0.999,
                                .eps = 1e-8,
                                .weight_decay = 0.01,
                                .grad_clip = golden_number(g, "grad_clip", 0),
                                .step = step + 1,
                                .decay_all = true};
        CHECK_OK(mm_engine_step(t->engine, &adamw, &grad_norm, err));
        golden_check_number(g, "lr", step, adamw.learning_rate, &worst[0]);
        golden_check_number(g, "loss", step, loss.sum / (double)loss.count, &worst[1]);
        golden_check_number(g, "grad_norm", step, grad_norm, &worst[2]);
    }
    print_message("%s: over ten steps: lr %.2e, loss %.2e, grad_norm %.2e\n", g->name, worst[0],
                  worst[1], worst[2]);
    golden_check_final(g, t->model, before);
    mm_free(before);
}

static void test_ten_adamw_steps_equal_pytorch(void **state)
{
    (void)state;
    each_fixture(check_training);
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
