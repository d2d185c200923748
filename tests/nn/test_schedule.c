/* Learning-rate schedules at their ends, in the middle, with warm-up, and against a published log
 * line. */
#include "tests/nn/fixture.h"

#include "core/nn/schedule.h"

#include <math.h>

static void check(const mm_lr_schedule *schedule, int64_t step, double expected)
{
    const double found = mm_lr_at(schedule, step);
    if (!(fabs(found - expected) <= 1e-12 * fabs(expected) + 1e-18))
        fail_msg("step %lld: %.12g, expected %.12g", (long long)step, found, expected);
}

static void test_cosine_falls_from_the_rate_to_a_tenth(void **state)
{
    (void)state;
    const mm_lr_schedule schedule = {MM_LR_COSINE, 2.0, 0, 4};
    const double root = sqrt(0.5);
    check(&schedule, 1, 2 * (0.1 + 0.45 * (1 + root)));
    check(&schedule, 2, 2 * 0.55);
    check(&schedule, 3, 2 * (0.1 + 0.45 * (1 - root)));
    check(&schedule, 4, 2 * 0.1);
    check(&schedule, 9, 2 * 0.1); // beyond the plan
}

static void test_second_cosine_matches_the_published_log(void **state)
{
    (void)state;
    // MiniMind v2 printed lr 0.000058426724 at micro-step index 40500 of 44160 with rate 5e-4.
    const mm_lr_schedule schedule = {MM_LR_COSINE_V2, 5e-4, 0, 44160};
    assert_true(fabs(mm_lr_at(&schedule, 40501) - 0.000058426724) < 5e-13);
    check(&schedule, 1, 1.1 * 5e-4);
}

static void test_constant_and_linear(void **state)
{
    (void)state;
    const mm_lr_schedule constant = {MM_LR_CONSTANT, 0.5, 0, 10};
    check(&constant, 1, 0.5);
    check(&constant, 10, 0.5);
    const mm_lr_schedule linear = {MM_LR_LINEAR, 1.0, 0, 4};
    check(&linear, 1, 1.0);
    check(&linear, 3, 0.5);
    check(&linear, 4, 0.25);
}

static void test_warmup_comes_first(void **state)
{
    (void)state;
    const mm_lr_schedule schedule = {MM_LR_COSINE, 1.0, 4, 8};
    check(&schedule, 1, 0.25);
    check(&schedule, 4, 1.0);
    check(&schedule, 6, 0.55);
    check(&schedule, 8, 0.1);
    const mm_lr_schedule all_warmup = {MM_LR_LINEAR, 1.0, 4, 4};
    check(&all_warmup, 4, 1.0);
}

static void test_names(void **state)
{
    (void)state;
    mm_lr_kind kind;
    mm_err err = {0};
    CHECK_OK(mm_lr_kind_parse("cosine-v2", &kind, failure));
    assert_int_equal(kind, MM_LR_COSINE_V2);
    CHECK_OK(mm_lr_kind_parse("linear", &kind, failure));
    assert_int_equal(kind, MM_LR_LINEAR);
    assert_int_equal(mm_lr_kind_parse("cosin", &kind, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "--lr-schedule cosin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cosine_falls_from_the_rate_to_a_tenth),
        cmocka_unit_test(test_second_cosine_matches_the_published_log),
        cmocka_unit_test(test_constant_and_linear),
        cmocka_unit_test(test_warmup_comes_first),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("nn/schedule", tests, NULL, NULL);
}
