/* Tests of core/base/stat.h: published intervals, what defines one, the ends of the scale. */
#include "core/base/stat.h"
#include "tests/base/check.h"

#include <math.h>

/* Source: Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I,
 * method 3, to four digits. */
static void gives_the_published_intervals(void **state)
{
    (void)state;
    static const struct {
        int64_t correct;
        int64_t n;
        double low;
        double high;
    } ROWS[] = {{81, 263, 0.2553, 0.3662},
                {15, 148, 0.0624, 0.1605},
                {0, 20, 0, 0.1611},
                {1, 29, 0.0061, 0.1718}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        const mm_interval found = mm_wilson_interval(ROWS[i].correct, ROWS[i].n);
        if (fabs(found.low - ROWS[i].low) > 5e-5 || fabs(found.high - ROWS[i].high) > 5e-5)
            fail_msg("%lld of %lld: expected %.4f to %.4f, found %.6f to %.6f",
                     (long long)ROWS[i].correct, (long long)ROWS[i].n, ROWS[i].low, ROWS[i].high,
                     found.low, found.high);
    }
}

/* A bound is the share p whose own deviation reaches the observed one: |s - p| = z sqrt(p(1-p)/n).
 */
static void bounds_are_where_the_test_turns(void **state)
{
    (void)state;
    const double z = 1.959963984540054;
    for (int64_t n = 1; n < 3000; n = n * 3 + 1) {
        for (int64_t correct = 0; correct <= n; correct += 1 + n / 7) {
            const mm_interval found = mm_wilson_interval(correct, n);
            const double share = (double)correct / (double)n;
            assert_true(found.low >= 0 && found.low <= share);
            assert_true(found.high <= 1 && found.high >= share);
            assert_true(found.high > found.low);
            const double bounds[] = {found.low, found.high};
            for (size_t i = 0; i < 2; i++) {
                const double p = bounds[i];
                assert_true(fabs(fabs(share - p) - z * sqrt(p * (1 - p) / (double)n)) < 1e-12);
            }
            // Right and wrong exchanged, the interval is turned around.
            const mm_interval other = mm_wilson_interval(n - correct, n);
            assert_true(fabs(other.low - (1 - found.high)) < 1e-12);
        }
    }
}

static void knows_nothing_without_questions(void **state)
{
    (void)state;
    const mm_interval found = mm_wilson_interval(0, 0);
    assert_true(isnan(found.low) && isnan(found.high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_intervals),
        cmocka_unit_test(bounds_are_where_the_test_turns),
        cmocka_unit_test(knows_nothing_without_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
