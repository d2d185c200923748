/* Losses over pairs of answers: values by their formulas, derivatives against central differences,
 * the ends of their ranges. */
#include "tests/nn/fixture.h"

#include "core/nn/preference.h"

#include <math.h>

static const mm_pair PAIRS[] = {
    {-40.25, -61.5, -44.0, -58.75, 20, 31}, // the policy prefers the chosen answer
    {-61.5, -40.25, -55.0, -41.0, 31, 20},  // the rejected one
    {-3.0, -3.5, -3.1, -3.3, 1, 2},
    {-12.0, -700.0, -10.0, -500.0, 5, 300},
};
enum { N_PAIRS = sizeof PAIRS / sizeof PAIRS[0] };

static double loss_at(const mm_preference *preference, const mm_pair *pair, double d_chosen,
                      double d_rejected)
{
    mm_pair moved = *pair;
    moved.chosen += d_chosen;
    moved.rejected += d_rejected;
    return mm_preference_loss(preference, &moved).loss;
}

static void check_slopes(const mm_preference *preference, const mm_pair *pair)
{
    const double h = 1e-4;
    const mm_pair_loss found = mm_preference_loss(preference, pair);
    const double chosen =
        (loss_at(preference, pair, h, 0) - loss_at(preference, pair, -h, 0)) / (2 * h);
    const double rejected =
        (loss_at(preference, pair, 0, h) - loss_at(preference, pair, 0, -h)) / (2 * h);
    const double size = fmax(1e-3, fabs(found.loss)); // of the rounding of the difference
    if (!(fabs(chosen - found.d_chosen) < 1e-8 * size &&
          fabs(rejected - found.d_rejected) < 1e-8 * size))
        fail_msg("kind %d: slopes %.12g %.12g, differences %.12g %.12g", (int)preference->kind,
                 found.d_chosen, found.d_rejected, chosen, rejected);
    assert_true(isfinite(found.margin));
}

static void test_slopes_match_differences(void **state)
{
    (void)state;
    int32_t n = 0;
    for (int kind = MM_PREFERENCE_SIGMOID; kind <= MM_PREFERENCE_SIMPO; kind++)
        for (int mean = 0; mean < 2; mean++)
            for (int smoothed = 0; smoothed < 2; smoothed++)
                for (int i = 0; i < N_PAIRS; i++) {
                    const mm_preference preference = {.kind = (mm_preference_kind)kind,
                                                      .mean = mean == 1,
                                                      .beta = mean ? 2.0 : 0.1,
                                                      .label_smoothing = smoothed ? 0.2 : 0,
                                                      .gamma = 0.5};
                    check_slopes(&preference, &PAIRS[i]);
                    n++;
                }
    assert_int_equal(n, 4 * 2 * 2 * N_PAIRS);
}

// The first step of every run: nothing is preferred yet.
static void test_the_reference_itself_gives_ln_2(void **state)
{
    (void)state;
    const mm_pair pair = {-40.25, -61.5, -40.25, -61.5, 20, 31};
    mm_preference preference = {.beta = 0.1};
    mm_pair_loss found = mm_preference_loss(&preference, &pair);
    assert_true(fabs(found.loss - log(2.0)) < 1e-15);
    assert_true(found.margin == 0);
    assert_true(found.d_chosen == -0.05 && found.d_rejected == 0.05);
    preference.mean = true;
    found = mm_preference_loss(&preference, &pair);
    assert_true(fabs(found.loss - log(2.0)) < 1e-15);
    assert_true(found.d_chosen == -0.05 * (1.0 / 20) && found.d_rejected == 0.05 * (1.0 / 31));
    preference = (mm_preference){.beta = 0.1, .label_smoothing = 0.5};
    found = mm_preference_loss(&preference, &pair);
    assert_true(fabs(found.loss - log(2.0)) < 1e-15 && found.d_chosen == 0);
    preference = (mm_preference){.kind = MM_PREFERENCE_IPO, .beta = 0.1};
    found = mm_preference_loss(&preference, &pair);
    assert_true(fabs(found.loss - 25) < 1e-12 && fabs(found.d_chosen + 10) < 1e-12);
    preference.kind = MM_PREFERENCE_HINGE;
    found = mm_preference_loss(&preference, &pair);
    assert_true(found.loss == 1 && found.d_chosen == -0.1 && found.d_rejected == 0.1);
}

static void test_values_are_those_of_the_formulas(void **state)
{
    (void)state;
    // D = (-40.25 + 61.5) - (-44 + 58.75) = 6.5
    mm_preference preference = {.beta = 0.2};
    mm_pair_loss found = mm_preference_loss(&preference, &PAIRS[0]);
    assert_true(fabs(found.loss - log(1 + exp(-1.3))) < 1e-15);
    assert_true(fabs(found.margin - 1.3) < 1e-15);
    preference.label_smoothing = 0.1;
    found = mm_preference_loss(&preference, &PAIRS[0]);
    assert_true(fabs(found.loss - 0.9 * log(1 + exp(-1.3)) - 0.1 * log(1 + exp(1.3))) < 1e-15);
    preference = (mm_preference){.kind = MM_PREFERENCE_IPO, .beta = 0.2};
    assert_true(fabs(mm_preference_loss(&preference, &PAIRS[0]).loss - 16) < 1e-12);
    preference = (mm_preference){.kind = MM_PREFERENCE_HINGE, .beta = 0.1};
    assert_true(fabs(mm_preference_loss(&preference, &PAIRS[0]).loss - 0.35) < 1e-15);
    preference = (mm_preference){.kind = MM_PREFERENCE_SIMPO, .beta = 2, .gamma = 0.5};
    const double x = 2 * (-40.25 / 20 + 61.5 / 31);
    found = mm_preference_loss(&preference, &PAIRS[0]);
    assert_true(fabs(found.loss - log(1 + exp(0.5 - x))) < 1e-15);
    assert_true(fabs(found.margin - x) < 1e-15);
}

static void test_hinge_is_flat_from_its_kink_on(void **state)
{
    (void)state;
    const mm_preference preference = {.kind = MM_PREFERENCE_HINGE, .beta = 0.5};
    mm_pair pair = {.chosen = -8, .rejected = -10, .chosen_tokens = 3, .rejected_tokens = 4};
    mm_pair_loss found = mm_preference_loss(&preference, &pair); // beta D is 1
    assert_true(found.loss == 0 && found.d_chosen == 0 && found.d_rejected == 0);
    pair.chosen -= 1e-9;
    found = mm_preference_loss(&preference, &pair);
    assert_true(found.loss > 0 && found.d_chosen == -0.5 && found.d_rejected == 0.5);
}

static void test_simpo_has_no_reference(void **state)
{
    (void)state;
    const mm_preference preference = {.kind = MM_PREFERENCE_SIMPO, .beta = 2, .gamma = 1};
    mm_pair pair = PAIRS[1];
    const mm_pair_loss expected = mm_preference_loss(&preference, &pair);
    pair.reference_chosen = (double)NAN;
    pair.reference_rejected = 1e9;
    const mm_pair_loss found = mm_preference_loss(&preference, &pair);
    assert_memory_equal(&found, &expected, sizeof found);
}

static void test_far_apart_answers_stay_finite(void **state)
{
    (void)state;
    for (int kind = MM_PREFERENCE_SIGMOID; kind <= MM_PREFERENCE_SIMPO; kind++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const mm_preference preference = {
                .kind = (mm_preference_kind)kind, .beta = 10, .label_smoothing = 0.1, .gamma = 1};
            const mm_pair pair = {.chosen = sign * 1e7,
                                  .rejected = -sign * 1e7,
                                  .chosen_tokens = 1,
                                  .rejected_tokens = 1};
            const mm_pair_loss found = mm_preference_loss(&preference, &pair);
            assert_true(isfinite(found.loss) && found.loss >= 0);
            assert_true(isfinite(found.d_chosen) && found.d_chosen == -found.d_rejected);
        }
    const mm_preference sigmoid = {.beta = 10};
    const mm_pair lost = {.chosen = -1e7, .chosen_tokens = 1, .rejected_tokens = 1};
    assert_true(mm_preference_loss(&sigmoid, &lost).loss == 1e8);
    assert_true(mm_preference_loss(&sigmoid, &lost).d_chosen == -10);
    const mm_pair broken = {.chosen = (double)NAN, .chosen_tokens = 1, .rejected_tokens = 1};
    for (int kind = MM_PREFERENCE_SIGMOID; kind <= MM_PREFERENCE_SIMPO; kind++) {
        const mm_preference preference = {.kind = (mm_preference_kind)kind, .beta = 1};
        assert_true(isnan(mm_preference_loss(&preference, &broken).loss));
    }
}

static void test_an_answer_without_learned_tokens_pulls_nowhere(void **state)
{
    (void)state;
    const mm_preference preference = {.mean = true, .beta = 1};
    const mm_pair pair = {.chosen = -6, .reference_chosen = -6, .chosen_tokens = 3};
    const mm_pair_loss found = mm_preference_loss(&preference, &pair);
    assert_true(fabs(found.loss - log(2.0)) < 1e-15);
    assert_true(found.d_rejected == 0 && found.d_chosen < 0);
}

static void test_kinds_are_known_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"sigmoid", "ipo", "hinge", "simpo"};
    for (int i = 0; i < 4; i++) {
        mm_preference_kind kind = MM_PREFERENCE_SIGMOID;
        CHECK_OK(mm_preference_kind_parse(names[i], &kind, failure));
        assert_int_equal(kind, i);
    }
    mm_preference_kind kind;
    mm_err err = {0};
    assert_int_equal(mm_preference_kind_parse("kto", &kind, &err), MM_ECONFIG);
    assert_non_null(strstr(err.message, "\"kto\": expected one of sigmoid,ipo,hinge,simpo"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slopes_match_differences),
        cmocka_unit_test(test_the_reference_itself_gives_ln_2),
        cmocka_unit_test(test_values_are_those_of_the_formulas),
        cmocka_unit_test(test_hinge_is_flat_from_its_kink_on),
        cmocka_unit_test(test_simpo_has_no_reference),
        cmocka_unit_test(test_far_apart_answers_stay_finite),
        cmocka_unit_test(test_an_answer_without_learned_tokens_pulls_nowhere),
        cmocka_unit_test(test_kinds_are_known_by_name),
    };
    return cmocka_run_group_tests_name("nn/preference", tests, NULL, NULL);
}
