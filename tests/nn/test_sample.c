/* Sampling against a plain rendering of MiniMind's order (docs/minimind.md) that sorts everything.
 */
#include "tests/nn/fixture.h"

#include "core/nn/sample.h"

#include <math.h>
#include <stdlib.h>

enum { VOCAB = 61, CASES = 4000 };

typedef struct ranked {
    double score;
    double probability;
    int32_t id;
} ranked;

static int by_rank(const void *a, const void *b)
{
    const ranked *left = a;
    const ranked *right = b;
    if (left->score > right->score) return -1;
    if (left->score < right->score) return 1;
    return left->id - right->id;
}

static void to_probabilities(ranked *rows, int32_t count)
{
    double sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += exp(rows[i].score - rows[0].score);
    for (int32_t i = 0; i < count; i++)
        rows[i].probability = exp(rows[i].score - rows[0].score) / sum;
}

/* What stays after temperature, penalty, top-k and top-p, best first; returns how many. */
static int32_t plain_candidates(const float *logits, const bool *seen, const mm_sampling *sampling,
                                ranked *rows)
{
    int32_t count = VOCAB;
    for (int32_t i = 0; i < VOCAB; i++) {
        double score = (double)logits[i] / sampling->temperature;
        if (seen[i]) {
            if (score < 0)
                score *= sampling->repetition_penalty;
            else
                score /= sampling->repetition_penalty;
        }
        rows[i] = (ranked){.score = (double)(float)score, .id = i};
    }
    qsort(rows, VOCAB, sizeof *rows, by_rank);
    if (sampling->top_k > 0 && sampling->top_k < VOCAB) {
        count = sampling->top_k;
        while (count < VOCAB && rows[count].score >= rows[sampling->top_k - 1].score)
            count++;
    }
    to_probabilities(rows, count);
    double before = 0;
    int32_t kept = 0;
    while (kept < count && (kept == 0 || before <= sampling->top_p))
        before += rows[kept++].probability;
    to_probabilities(rows, kept);
    return kept;
}

static bool contains(const ranked *rows, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (rows[i].id == id) return true;
    return false;
}

/* Logits on a coarse grid, so that ties are common. */
static void draw_case(mm_rng *rng, float *logits, bool *seen, mm_sampling *sampling)
{
    static const int32_t top_ks[] = {0, 1, 2, 5, 20, VOCAB - 1, VOCAB, VOCAB + 9};
    static const double top_ps[] = {1, 0.999, 0.85, 0.5, 0.1, 1e-9};
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)((int)mm_rng_below(rng, 17) - 8) * 0.5f;
        seen[i] = mm_rng_below(rng, 3) == 0;
    }
    *sampling = (mm_sampling){.temperature = 0.25 + mm_rng_uniform(rng),
                              .top_p = top_ps[mm_rng_below(rng, 6)],
                              .top_k = top_ks[mm_rng_below(rng, 8)],
                              .repetition_penalty = 0.8 + mm_rng_uniform(rng),
                              .seed = mm_rng_u32(rng)};
}

static mm_sampler *sampler_of(const bool *seen)
{
    mm_sampler *sampler = NULL;
    CHECK_OK(mm_sampler_new(&sampler, VOCAB, failure));
    for (int32_t i = 0; seen && i < VOCAB; i++)
        if (seen[i]) mm_sampler_see(sampler, i);
    return sampler;
}

static void test_every_draw_is_a_candidate_of_the_plain_order(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 3, MM_RNG_TEST, 0);
    int32_t cut_cases = 0;
    for (int i = 0; i < CASES; i++) {
        float logits[VOCAB];
        bool seen[VOCAB];
        ranked rows[VOCAB];
        mm_sampling sampling;
        mm_choice choice;
        draw_case(&rng, logits, seen, &sampling);
        mm_sampler *sampler = sampler_of(seen);
        const int32_t kept = plain_candidates(logits, seen, &sampling, rows);
        CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, i, &choice, failure));
        if (!contains(rows, kept, choice.id))
            fail_msg("case %d: id %d is not among the %d candidates", i, choice.id, kept);
        cut_cases += kept < VOCAB;
        mm_sampler_free(sampler);
    }
    assert_true(cut_cases > CASES / 4);
}

/* Counts of many draws against the plain probabilities: chi-square far below a wrong law's. */
static void check_frequencies(const float *logits, const bool *seen, const mm_sampling *sampling)
{
    enum { DRAWS = 40000 };
    static int32_t counts[VOCAB];
    ranked rows[VOCAB];
    mm_sampler *sampler = sampler_of(seen);
    const int32_t kept = plain_candidates(logits, seen, sampling, rows);
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < DRAWS; i++) {
        mm_choice choice;
        CHECK_OK(mm_sampler_draw(sampler, logits, sampling, i, &choice, failure));
        counts[choice.id]++;
    }
    double chi_square = 0;
    for (int32_t i = 0; i < kept; i++) {
        const double expected = rows[i].probability * DRAWS;
        const double difference = counts[rows[i].id] - expected;
        if (expected > 5) chi_square += difference * difference / expected;
    }
    // Mean kept-1, spread sqrt(2(kept-1)): six spreads away is one case in 10^8 or so.
    const double freedom = kept > 1 ? kept - 1 : 1;
    if (chi_square > freedom + 6 * sqrt(2 * freedom))
        fail_msg("chi-square %.1f with %d candidates", chi_square, kept);
    mm_sampler_free(sampler);
}

static void test_draws_follow_the_plain_probabilities(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 4, MM_RNG_TEST, 0);
    for (int i = 0; i < 12; i++) {
        float logits[VOCAB];
        bool seen[VOCAB];
        mm_sampling sampling;
        draw_case(&rng, logits, seen, &sampling);
        if (i < 3) { // nothing cut
            sampling.top_k = 0;
            sampling.top_p = 1;
        }
        check_frequencies(logits, seen, &sampling);
    }
}

static void test_greedy_takes_the_best_and_the_smaller_id(void **state)
{
    (void)state;
    float logits[VOCAB] = {[5] = 2, [9] = 3, [30] = 3, [31] = -1};
    mm_sampling sampling = {.top_p = 0.5, .top_k = 3, .repetition_penalty = 1};
    mm_sampler *sampler = sampler_of(NULL);
    mm_choice choice;
    CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, 0, &choice, failure));
    assert_int_equal(choice.id, 9);
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i]);
    assert_true(fabs(choice.logprob - (3 - log(sum))) < 1e-6);
    sampling.repetition_penalty = 2; // 3/2 < 2 once both have been seen
    mm_sampler_see(sampler, 9);
    CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, 1, &choice, failure));
    assert_int_equal(choice.id, 30);
    mm_sampler_see(sampler, 30);
    mm_sampler_see(sampler, 30); // seen twice counts once
    CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, 2, &choice, failure));
    assert_int_equal(choice.id, 5);
    assert_true(fabs(choice.logprob - (2 - log(sum))) < 1e-6); // of the unmodified logits
    mm_sampler_reset(sampler);
    CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, 3, &choice, failure));
    assert_int_equal(choice.id, 9);
    mm_sampler_free(sampler);
}

static void test_seed_and_position_decide_a_draw(void **state)
{
    (void)state;
    const float logits[VOCAB] = {0}; // all equal
    mm_sampling sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 8};
    mm_sampler *a = sampler_of(NULL);
    mm_sampler *b = sampler_of(NULL);
    int same_position = 0;
    int same_seed = 0;
    for (int i = 0; i < 200; i++) {
        mm_choice first;
        mm_choice second;
        sampling.seed = 8;
        CHECK_OK(mm_sampler_draw(a, logits, &sampling, i, &first, failure));
        CHECK_OK(mm_sampler_draw(b, logits, &sampling, i, &second, failure));
        assert_int_equal(first.id, second.id);
        CHECK_OK(mm_sampler_draw(b, logits, &sampling, i + 1, &second, failure));
        same_seed += first.id == second.id;
        sampling.seed = 9;
        CHECK_OK(mm_sampler_draw(b, logits, &sampling, i, &second, failure));
        same_position += first.id == second.id;
    }
    assert_true(same_seed < 20 && same_position < 20); // 200/61 expected by chance
    mm_sampler_free(a);
    mm_sampler_free(b);
}

static void test_logits_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    mm_sampling sampling = mm_sampling_default();
    mm_sampler *sampler = sampler_of(NULL);
    static const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        for (int at = 0; at < VOCAB; at += 30) {
            float logits[VOCAB] = {0};
            mm_choice choice;
            mm_err err = {0};
            logits[at] = bad[i];
            assert_int_equal(mm_sampler_draw(sampler, logits, &sampling, 7, &choice, &err),
                             MM_ENAN);
            assert_non_null(strstr(err.message, "position 7"));
        }
    }
    // Minus infinity forbids an id.
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i == 17 ? 0 : -INFINITY;
    sampling.top_k = 0;
    for (int i = 0; i < 50; i++) {
        mm_choice choice;
        sampling.top_p = i % 2 ? 1 : 0.9;
        CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, i, &choice, failure));
        assert_int_equal(choice.id, 17);
    }
    mm_sampler_free(sampler);
}

static void test_ids_without_a_token_are_never_drawn(void **state)
{
    enum { ALLOWED = 20 };
    (void)state;
    mm_sampler *sampler = sampler_of(NULL);
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i < ALLOWED ? 0 : 30;
    static const int32_t TOP_K[] = {0, 5, VOCAB - 1};
    for (int i = 0; i < 300; i++) {
        mm_choice choice;
        const mm_sampling sampling = {.temperature = i % 10 == 0 ? 0 : 1,
                                      .top_p = i % 2 ? 1 : 0.9,
                                      .top_k = TOP_K[i % 3],
                                      .repetition_penalty = 1,
                                      .n_ids = ALLOWED};
        CHECK_OK(mm_sampler_draw(sampler, logits, &sampling, i, &choice, failure));
        assert_in_range(choice.id, 0, ALLOWED - 1);
    }
    mm_sampler_free(sampler);
}

static void test_settings_out_of_bounds_are_named(void **state)
{
    (void)state;
    static const struct {
        mm_sampling sampling;
        const char *name; /* NULL: fine */
    } rows[] = {
        {{.temperature = 0, .top_p = 1, .repetition_penalty = 1}, NULL},
        {{.temperature = -1, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.temperature = 1e-30, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.temperature = (double)NAN, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.temperature = 1, .top_p = 0, .repetition_penalty = 1}, "top_p"},
        {{.temperature = 1, .top_p = 1.01, .repetition_penalty = 1}, "top_p"},
        {{.temperature = 1, .top_p = 1, .top_k = -1, .repetition_penalty = 1}, "top_k"},
        {{.temperature = 1, .top_p = 1, .repetition_penalty = 0}, "repetition_penalty"},
        {{.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = -1},
         "max_new_tokens"},
        {{.temperature = 1, .top_p = 1, .repetition_penalty = 1, .n_stop_ids = 5}, "stop ids"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mm_err err = {0};
        const mm_status status = mm_sampling_check(&rows[i].sampling, &err);
        assert_int_equal(status, rows[i].name ? MM_EUSAGE : MM_OK);
        if (rows[i].name) assert_non_null(strstr(err.message, rows[i].name));
    }
    const mm_sampling usual = mm_sampling_default();
    assert_int_equal(mm_sampling_check(&usual, NULL), MM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_draw_is_a_candidate_of_the_plain_order),
        cmocka_unit_test(test_draws_follow_the_plain_probabilities),
        cmocka_unit_test(test_greedy_takes_the_best_and_the_smaller_id),
        cmocka_unit_test(test_seed_and_position_decide_a_draw),
        cmocka_unit_test(test_logits_that_are_not_finite_are_refused),
        cmocka_unit_test(test_ids_without_a_token_are_never_drawn),
        cmocka_unit_test(test_settings_out_of_bounds_are_named),
    };
    return cmocka_run_group_tests_name("nn/sample", tests, NULL, NULL);
}
