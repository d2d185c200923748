/* The rules of the verdict, on runs made by hand. */
#include "report/page.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { RUNS_MAX = 8 };

/* Runs under judgement, with one parameter each ("hidden_size") and a seed. */
typedef struct verdict_bench {
    mm_page_run runs[RUNS_MAX];
    mm_param params[RUNS_MAX][2];
    mm_dataset datasets[RUNS_MAX][2];
    mm_series_info series[RUNS_MAX][2];
    size_t n;
    mm_arena arena;
    mm_verdict verdict;
} verdict_bench;

static mm_page_run *add(verdict_bench *bench, const char *name, const char *hidden,
                        const char *seed, double val_loss)
{
    const size_t i = bench->n++;
    mm_page_run *run = &bench->runs[i];
    bench->params[i][0] = (mm_param){.name = "hidden_size", .value = hidden, .origin = "sweep"};
    bench->params[i][1] = (mm_param){.name = "seed", .value = seed, .origin = "sweep"};
    *run = (mm_page_run){.label = name,
                         .params = bench->params[i],
                         .n_params = 2,
                         .datasets = bench->datasets[i],
                         .n_datasets = 2,
                         .series = bench->series[i],
                         .tokenizer = "aa",
                         .bpb = (double)NAN,
                         .perplexity = exp(val_loss)};
    bench->datasets[i][0] = (mm_dataset){.role = "train", .sha256 = "11"};
    bench->datasets[i][1] = (mm_dataset){.role = "val", .sha256 = "22"};
    run->info = (mm_run_info){.id = (int64_t)i + 1,
                              .name = name,
                              .stage = "pretrain",
                              .status = "finished",
                              .steps = 600,
                              .steps_planned = 600,
                              .final_loss = val_loss - 0.1,
                              .best_val_loss = val_loss,
                              .duration_s = 61};
    return run;
}

static void judge(verdict_bench *bench)
{
    mm_setting *settings;
    size_t count;
    assert_int_equal(
        mm_settings_collect(bench->runs, bench->n, &bench->arena, &settings, &count, NULL), MM_OK);
    assert_int_equal(mm_verdict_make(bench->runs, bench->n, settings, count, &bench->arena,
                                     &bench->verdict, NULL),
                     MM_OK);
}

static bool says(const verdict_bench *bench, const char *lead, const char *text)
{
    for (size_t i = 0; i < bench->verdict.count; i++) {
        const mm_remark *remark = &bench->verdict.remarks[i];
        const bool has_lead = !lead || (remark->lead && strcmp(remark->lead, lead) == 0);
        if (has_lead && strstr(remark->text, text)) return true;
    }
    return false;
}

static void finish(verdict_bench *bench) { mm_arena_drop(&bench->arena); }

static void test_best_by_validation(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "base", "64", "1", 2.5);
    add(&bench, "wide", "96", "1", 2.0);
    add(&bench, "middle", "80", "1", 2.1);
    bench.runs[0].info.final_loss = 0.1; // overfitted: the training loss does not decide
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 1);
    assert_int_equal(bench.runs[0].rank, 3);
    assert_int_equal(bench.runs[1].rank, 1);
    assert_int_equal(bench.runs[2].rank, 2);
    assert_true(says(&bench, "wide", "lowest validation loss: 2, 0.1 (4.8 %) below middle"));
    assert_true(
        says(&bench, "Against the baseline", "base, the first run shown: 0.5 lower (20 %)"));
    assert_true(says(&bench, "One seed per configuration:", "no spread is known"));
    finish(&bench);
}

static void test_final_loss_when_no_validation(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a", "64", "1", 2.5);
    add(&bench, "b", "96", "1", 2.4);
    bench.runs[0].info.best_val_loss = (double)NAN;
    bench.runs[0].info.final_loss = 1.5;
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 0);
    assert_string_equal(bench.verdict.metric, "loss");
    assert_true(
        says(&bench, "No validation loss for all runs:", "ranked by the last training loss"));
    finish(&bench);
}

static void test_unfinished_is_never_ranked(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "done", "64", "1", 2.5);
    add(&bench, "dead", "96", "1", 1.0)->info.status = "killed";
    bench.runs[1].info.steps = 180;
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 0);
    assert_int_equal(bench.runs[1].rank, 0);
    assert_true(says(&bench, "Not finished, not ranked:", "dead (killed at step 180)"));
    assert_true(says(&bench, "done", "finished 600 steps in 1m01s with a validation loss of 2.5"));
    finish(&bench);
}

static void test_nothing_finished(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a", "64", "1", 2.5)->info.status = "running";
    judge(&bench);
    assert_true(bench.verdict.best_idx == SIZE_MAX);
    assert_true(says(&bench, NULL, "No run has finished yet"));
    finish(&bench);
}

static void test_seeds_give_a_spread(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a1", "64", "1", 2.50);
    add(&bench, "a2", "64", "2", 2.60);
    add(&bench, "b1", "96", "1", 2.40);
    add(&bench, "b2", "96", "2", 2.55);
    judge(&bench);
    assert_true(
        says(&bench, "Best configuration:", "mean 2.475 over 2 seeds (range 2.400 to 2.550)"));
    assert_true(says(&bench, "Next configuration:", "mean 2.550 over 2 seeds"));
    assert_true(says(&bench, "Not distinguishable:", "overlap"));
    assert_false(says(&bench, "One seed per configuration:", ""));
    finish(&bench);

    bench = (verdict_bench){0};
    add(&bench, "a1", "64", "1", 2.90);
    add(&bench, "a2", "64", "2", 2.92);
    add(&bench, "b1", "96", "1", 2.40);
    add(&bench, "b2", "96", "2", 2.41);
    judge(&bench);
    assert_false(says(&bench, "Not distinguishable:", ""));
    finish(&bench);
}

static void test_interval_from_four_seeds_on(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    static const char *const seeds[] = {"1", "2", "3", "4"};
    static const double losses[] = {2.0, 2.1, 2.2, 2.3};
    for (size_t i = 0; i < 4; i++)
        add(&bench, seeds[i], "64", seeds[i], losses[i]);
    judge(&bench);
    // Mean 2.15, s = 0.129099, t(3) = 3.182: half width 0.205397.
    assert_true(says(
        &bench, "Best configuration:", "mean 2.150 over 4 seeds (95 % interval 1.945 to 2.355)"));
    finish(&bench);
}

static void test_warnings(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a", "64", "1", 2.5);
    add(&bench, "b", "96", "1", 2.4);
    bench.datasets[1][1].sha256 = "33";
    judge(&bench);
    assert_true(bench.verdict.best_idx == SIZE_MAX && !bench.verdict.metric);
    assert_true(says(&bench, NULL, "No best run can be named: they were scored on different"));
    finish(&bench);

    bench = (verdict_bench){0};
    add(&bench, "a", "64", "1", 2.5);
    add(&bench, "b", "96", "1", 2.4);
    bench.datasets[1][0].sha256 = "33";
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 1);
    assert_true(says(&bench, "Different training data:", ""));
    finish(&bench);

    // Rows held out of other training files are other text.
    bench = (verdict_bench){0};
    add(&bench, "a", "64", "1", 2.5)->n_datasets = 1;
    add(&bench, "b", "96", "1", 2.4)->n_datasets = 1;
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 1);
    bench.datasets[1][0].sha256 = "33";
    judge(&bench);
    assert_true(bench.verdict.best_idx == SIZE_MAX);
    finish(&bench);

    // The same files in another order are the same.
    bench = (verdict_bench){0};
    for (size_t i = 0; i < 2; i++) {
        add(&bench, "a", i ? "96" : "64", "1", 2.5 - (double)i);
        bench.datasets[i][i].sha256 = "33";
        bench.datasets[i][0].role = bench.datasets[i][1].role = "val";
        bench.datasets[i][1 - i].sha256 = "44";
    }
    judge(&bench);
    assert_int_equal(bench.verdict.best_id, 2);
    finish(&bench);
}

static void test_continued_run_is_named(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "fresh", "64", "1", 2.5);
    add(&bench, "child", "96", "1", 2.4)->info.parent_id = 77;
    judge(&bench);
    assert_true(says(&bench, "Not all start from nothing:", "child continued another run"));
    bench.runs[0].info.parent_id = 77;
    judge(&bench);
    assert_false(says(&bench, "Not all start from nothing:", ""));
    finish(&bench);
}

static void test_different_tokenizers(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a", "64", "1", 2.5);
    add(&bench, "b", "96", "1", 2.4)->tokenizer = "bb";
    judge(&bench);
    assert_true(bench.verdict.best_idx == SIZE_MAX);
    assert_true(says(&bench, NULL, "No best run can be named"));
    finish(&bench);

    bench = (verdict_bench){0};
    add(&bench, "a", "64", "1", 2.5)->bpb = 1.1; // worse per token, better per byte
    add(&bench, "b", "96", "1", 2.4)->bpb = 1.2;
    bench.runs[1].tokenizer = "bb";
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 0);
    assert_string_equal(bench.verdict.metric, "val_bpb");
    finish(&bench);
}

static void test_different_lengths(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "long", "64", "1", 2.0);
    add(&bench, "short", "96", "1", 2.2)->info.steps = 300;
    mm_bucket long_curve[] = {{.step_first = 300, .step_last = 300, .n = 1, .mean = 2.4},
                              {.step_first = 600, .step_last = 600, .n = 1, .mean = 2.0}};
    mm_bucket short_curve[] = {{.step_first = 300, .step_last = 300, .n = 1, .mean = 2.2}};
    bench.runs[0].val_curve = long_curve;
    bench.runs[0].n_val = 2;
    bench.runs[1].val_curve = short_curve;
    bench.runs[1].n_val = 1;
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 0);
    assert_true(says(&bench, "Different lengths:",
                     "Up to the common step 300, short leads with a validation loss of 2.200"));
    finish(&bench);
}

static void test_diverged_run_does_not_stop_the_ranking(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "fine", "64", "1", 2.5);
    add(&bench, "ok", "80", "1", 2.6);
    add(&bench, "nan", "96", "1", (double)NAN);
    bench.series[2][0] = (mm_series_info){.name = "loss", .n = 10, .n_bad = 3};
    bench.runs[2].n_series = 1;
    judge(&bench);
    assert_int_equal(bench.verdict.best_idx, 0);
    assert_int_equal(bench.runs[2].rank, 0);
    assert_true(says(&bench, "Values that are not finite", "nan"));
    finish(&bench);
}

static void test_overfitting(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "over", "64", "1", 2.0);
    bench.series[0][0] = (mm_series_info){
        .name = "val_loss", .n = 8, .min = 2.0, .min_step = 200, .last = 2.2, .max = 4};
    bench.runs[0].n_series = 1;
    judge(&bench);
    assert_true(says(&bench, "Validation loss rose again", "over"));
    finish(&bench);
}

static void test_stages_apart(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "base", "64", "1", 2.5);
    add(&bench, "tuned", "64", "1", 0.5)->info.stage = "sft";
    judge(&bench);
    assert_true(says(&bench, "base", "finished 600 steps"));
    assert_true(says(&bench, "tuned", "finished 600 steps"));
    assert_string_equal(bench.verdict.remarks[bench.verdict.count - 1].stage, "sft");
    finish(&bench);
}

static void test_settings(void **state)
{
    (void)state;
    verdict_bench bench = {0};
    add(&bench, "a", "64", "1", 2.5);
    add(&bench, "b", "96", "1", 2.4)->n_params = 1; // no seed recorded
    bench.runs[0].info.params_total = 1000;
    bench.runs[1].info.params_total = 1000;
    mm_setting *settings;
    size_t count;
    assert_int_equal(mm_settings_collect(bench.runs, 2, &bench.arena, &settings, &count, NULL),
                     MM_OK);
    assert_int_equal(count, 3);
    assert_string_equal(settings[0].name, "hidden_size");
    assert_true(settings[0].differs);
    assert_string_equal(mm_setting_value(&settings[0], 1), "96");
    assert_true(settings[1].differs);
    assert_null(mm_setting_value(&settings[1], 1));
    assert_true(settings[2].is_derived && !settings[2].differs);
    finish(&bench);
}

/* ---- stages ------------------------------------------------------------------------------------
 */

/* A dpo run whose curves went from `first` to `last`. */
typedef struct preference_bench {
    verdict_bench bench;
    mm_param params[2][6];
    mm_series_info series[2][6];
} preference_bench;

static mm_page_run *add_preference(preference_bench *made, const char *name, const char *beta,
                                   double val_loss, double accuracy)
{
    const size_t i = made->bench.n;
    mm_page_run *run = add(&made->bench, name, "64", "1", val_loss);
    const mm_param params[6] = {{.name = "hidden_size", .value = "64", .origin = "preset"},
                                {.name = "seed", .value = "1", .origin = "default"},
                                {.name = "dpo_loss", .value = "sigmoid", .origin = "default"},
                                {.name = "beta", .value = beta, .origin = "command line"},
                                {.name = "val_rows", .value = "100", .origin = "default"},
                                {.name = "lora_rank", .value = "0", .origin = "default"}};
    const mm_series_info series[6] = {
        {.name = "loss", .n = 200, .first_step = 1, .first = 0.6931, .last = val_loss, .max = 0.7},
        {.name = "val_loss", .n = 20, .first = 0.693, .last = val_loss, .min = val_loss},
        {.name = "dpo/val_margin", .n = 20, .first = 0.0, .last = 2.5},
        {.name = "dpo/val_accuracy", .n = 20, .first = 0.5, .last = accuracy},
        {.name = "dpo/logp_chosen", .n = 200, .first = -100, .last = -110},
        {.name = "dpo/logp_rejected", .n = 200, .first = -100, .last = -140}};
    memcpy(made->params[i], params, sizeof params);
    memcpy(made->series[i], series, sizeof series);
    run->params = made->params[i];
    run->n_params = 6;
    run->series = made->series[i];
    run->n_series = 6;
    run->info.stage = "dpo";
    made->bench.datasets[i][1].rows = 400;
    return run;
}

static void test_a_preference_loss_is_no_cross_entropy(void **state)
{
    (void)state;
    preference_bench made = {0};
    add_preference(&made, "polite", "0.15", 0.45, 0.82);
    judge(&made.bench);
    const verdict_bench *bench = &made.bench;
    assert_string_equal(bench->verdict.metric, "val_loss");
    assert_true(says(bench, "polite", "held-out preference loss of 0.45"));
    assert_true(says(bench, "Best validation", "a preference loss of 0.45"));
    assert_false(says(bench, NULL, "perplexity"));
    assert_true(says(bench, "First loss", "0.6931, as it must be"));
    assert_true(says(bench, "First loss", "ln 2 = 0.6931"));
    assert_true(says(bench, "Held-out margin", "grew from 0 to 2.5"));
    // 82 of the 100 pairs that are scored: Wilson's interval.
    assert_true(says(bench, "Held-out accuracy",
                     "from 50.0 to 82.0 % of 100 pairs (95 % interval 73.3 to 88.3 %)"));
    assert_false(says(bench, "Adapters", ""));
    finish(&made.bench);
}

static void test_what_stands_against_a_preference_run(void **state)
{
    (void)state;
    preference_bench made = {0};
    add_preference(&made, "polite", "0.15", 0.69, 0.55);
    made.series[0][0].first = 0.41; // not the same model as the reference
    made.series[0][2].last = -0.3;
    judge(&made.bench);
    assert_true(says(&made.bench, "First loss", "0.41, where ln 2 = 0.6931 was expected"));
    assert_true(says(&made.bench, "Held-out margin", "did not grow: it went from 0 to -0.3"));
    assert_true(says(&made.bench, "Held-out accuracy", "which chance alone explains"));
    finish(&made.bench);
    // Scored before the first step all pairs are ties, which is neither right nor a start at 0 %.
    preference_bench tied = {0};
    add_preference(&tied, "polite", "0.15", 0.69, 0.52);
    tied.series[0][3].first = 0;
    judge(&tied.bench);
    assert_true(says(&tied.bench, "Held-out accuracy", "went from ties to 52.0 %"));
    assert_true(says(&tied.bench, "Held-out accuracy", "which chance alone explains"));
    finish(&tied.bench);
    // A hinge starts at 1, and ipo at 1 / (4 beta^2).
    preference_bench other = {0};
    add_preference(&other, "ipo", "0.5", 0.4, 0.8);
    other.params[0][2].value = "ipo";
    other.series[0][0].first = 1.0;
    judge(&other.bench);
    assert_true(says(&other.bench, "First loss", "1, as it must be"));
    finish(&other.bench);
}

static void test_preference_losses_of_other_settings_are_not_compared(void **state)
{
    (void)state;
    preference_bench made = {0};
    add_preference(&made, "mild", "0.05", 0.60, 0.85);
    add_preference(&made, "sharp", "0.5", 0.30, 0.75);
    judge(&made.bench);
    assert_string_equal(made.bench.verdict.metric, "dpo/val_accuracy");
    assert_int_equal(made.bench.verdict.best_idx, 0); // fewer pairs the wrong way round
    assert_true(says(&made.bench, "Held-out margin", "(mild)"));
    finish(&made.bench);
    preference_bench alike = {0};
    add_preference(&alike, "mild", "0.1", 0.60, 0.85);
    add_preference(&alike, "sharp", "0.1", 0.30, 0.75);
    alike.bench.runs[0].info.parent_id = 7;
    alike.bench.runs[1].info.parent_id = 8;
    judge(&alike.bench);
    assert_string_equal(alike.bench.verdict.metric, "val_loss");
    assert_int_equal(alike.bench.verdict.best_idx, 1);
    assert_true(says(&alike.bench, "Different starting points:", "different models"));
    finish(&alike.bench);
    preference_bench blind = {0};
    add_preference(&blind, "mild", "0.05", 0.60, 0.85);
    add_preference(&blind, "sharp", "0.5", 0.30, (double)NAN);
    judge(&blind.bench);
    assert_null(blind.bench.verdict.metric);
    assert_true(says(&blind.bench, NULL, "preference losses are of different kinds"));
    finish(&blind.bench);
}

static void test_adapters_and_teachers(void **state)
{
    (void)state;
    preference_bench made = {0};
    mm_page_run *run = add_preference(&made, "persona", "0", 1.2, (double)NAN);
    run->info.stage = "lora";
    run->info.params_total = 64000000;
    run->info.params_trainable = 393216;
    made.params[0][5].value = "16";
    made.series[0][2] = (mm_series_info){.name = "distill/kl", .n = 9, .first = 0.9, .last = 0.2};
    judge(&made.bench);
    assert_true(says(&made.bench, "Adapters",
                     "of rank 16: 393k of 64.0M parameters were trained (0.61 %)"));
    assert_true(says(&made.bench, "Distance to the teacher", "went from 0.9 to 0.2"));
    assert_true(says(&made.bench, "Best validation", "perplexity 3.32"));
    assert_false(says(&made.bench, "First loss", ""));
    finish(&made.bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_by_validation),
        cmocka_unit_test(test_final_loss_when_no_validation),
        cmocka_unit_test(test_unfinished_is_never_ranked),
        cmocka_unit_test(test_nothing_finished),
        cmocka_unit_test(test_seeds_give_a_spread),
        cmocka_unit_test(test_interval_from_four_seeds_on),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_continued_run_is_named),
        cmocka_unit_test(test_different_tokenizers),
        cmocka_unit_test(test_different_lengths),
        cmocka_unit_test(test_diverged_run_does_not_stop_the_ranking),
        cmocka_unit_test(test_overfitting),
        cmocka_unit_test(test_stages_apart),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_a_preference_loss_is_no_cross_entropy),
        cmocka_unit_test(test_what_stands_against_a_preference_run),
        cmocka_unit_test(test_preference_losses_of_other_settings_are_not_compared),
        cmocka_unit_test(test_adapters_and_teachers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
