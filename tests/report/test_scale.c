/* Scales, ticks, paths and the numbers on them. */
#include "report/fmt.h"
#include "report/scale.h"
#include "report/svg.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_near(double found, double expected)
{
    const double size = fmax(fabs(expected), 1);
    if (!(fabs(found - expected) <= 1e-9 * size))
        fail_msg("found %.12g, expected %.12g", found, expected);
}

static void test_map(void **state)
{
    (void)state;
    const mm_scale linear = {.low = 2, .high = 4, .from = 100, .to = 0};
    assert_near(mm_scale_map(&linear, 2), 100);
    assert_near(mm_scale_map(&linear, 3.5), 25);
    assert_near(mm_scale_map(&linear, 5), -50);
    const mm_scale logarithmic = {.low = 1, .high = 100, .from = 0, .to = 10, .is_log = true};
    assert_near(mm_scale_map(&logarithmic, 10), 5);
    assert_true(mm_scale_map(&logarithmic, 0) < -1e5);
    assert_true(mm_scale_map(&logarithmic, -3) < -1e5);
}

static void check_ticks(double low, double high, size_t wanted, size_t n, const double *expected)
{
    double ticks[MM_TICKS_MAX];
    double spacing;
    const size_t count = mm_ticks_linear(low, high, wanted, ticks, &spacing);
    assert_int_equal(count, n);
    for (size_t i = 0; i < n; i++)
        assert_near(ticks[i], expected[i]);
}

static void test_linear_ticks(void **state)
{
    (void)state;
    check_ticks(0, 10, 5, 6, (double[]){0, 2, 4, 6, 8, 10});
    check_ticks(0.13, 0.98, 4, 3, (double[]){0.25, 0.5, 0.75});
    check_ticks(-1, 1, 4, 5, (double[]){-1, -0.5, 0, 0.5, 1});
    check_ticks(1, 1, 5, 0, NULL);
    check_ticks(2, 1, 5, 0, NULL);
    check_ticks(0, (double)INFINITY, 5, 0, NULL);
    check_ticks((double)NAN, 1, 5, 0, NULL);
    // Whatever the range: not too many, inside, ascending, and at least two.
    for (int exponent = -12; exponent <= 12; exponent++) {
        for (int mantissa = 1; mantissa < 100; mantissa += 3) {
            double ticks[MM_TICKS_MAX];
            double spacing;
            const double high = mantissa * pow(10, exponent);
            const double low = -high / 3;
            const size_t count = mm_ticks_linear(low, high, 5, ticks, &spacing);
            assert_in_range(count, 2, 8);
            for (size_t i = 0; i < count; i++) {
                assert_true(ticks[i] >= low - spacing * 1e-6 && ticks[i] <= high + spacing * 1e-6);
                if (i > 0) assert_near((ticks[i] - ticks[i - 1]) / spacing, 1);
            }
        }
    }
}

static void test_log_ticks(void **state)
{
    (void)state;
    double ticks[MM_TICKS_MAX];
    assert_int_equal(mm_ticks_log(0.9, 110, ticks), 7);
    const double expected[] = {1, 2, 5, 10, 20, 50, 100};
    for (size_t i = 0; i < 7; i++)
        assert_near(ticks[i], expected[i]);
    assert_int_equal(mm_ticks_log(0, 10, ticks), 0);
    assert_int_equal(mm_ticks_log(-1, 10, ticks), 0);
    const size_t count = mm_ticks_log(1e-20, 1e20, ticks);
    assert_in_range(count, 4, 9);
}

static void test_fit_keeps_a_spike_from_flattening(void **state)
{
    (void)state;
    double values[200];
    for (int i = 0; i < 200; i++)
        values[i] = 2 + 0.01 * (i % 100);
    values[77] = 1e9;
    values[78] = (double)NAN;
    values[79] = -(double)INFINITY;
    mm_scale scale;
    mm_scale_fit(&scale, values, 200, 0);
    assert_true(scale.low > 1 && scale.low < 2);
    assert_true(scale.high > 3 && scale.high < 6);

    double few[] = {1, 2, 1e9}; // too few to call one an outlier
    mm_scale_fit(&scale, few, 3, 0);
    assert_true(scale.high > 1e9);
}

static void test_fit_edges(void **state)
{
    (void)state;
    mm_scale scale;
    mm_scale_fit(&scale, NULL, 0, 0);
    assert_near(scale.low, 0);
    assert_near(scale.high, 1);
    double nothing[] = {(double)NAN, (double)INFINITY};
    mm_scale_fit(&scale, nothing, 2, 100);
    assert_near(scale.high, 1);
    double constant[] = {5, 5, 5};
    mm_scale_fit(&scale, constant, 3, 0);
    assert_true(scale.low < 5 && scale.high > 5);
    double zeros[] = {0, 0};
    mm_scale_fit(&scale, zeros, 2, 100);
    assert_true(scale.low < 0 && scale.high > 0);
    double rate[] = {0, 3, 5e-1};
    mm_scale_fit(&scale, rate, 3, 0);
    assert_near(scale.low, 0);
    double wide[100];
    for (int i = 0; i < 100; i++)
        wide[i] = pow(10, i / 10.0);
    mm_scale_fit(&scale, wide, 100, 300);
    assert_true(scale.is_log && scale.low > 0 && scale.low < scale.high);
}

static void test_pen(void **state)
{
    (void)state;
    mm_str out = {0};
    mm_pen pen = {.out = &out};
    mm_pen_move(&pen, 10, 20.04);
    mm_pen_line(&pen, 10.3, 19.5);
    mm_pen_line(&pen, 12, 25);
    mm_pen_close(&pen);
    mm_pen_move(&pen, 1, -1e30);
    assert_string_equal(mm_str_text(&out), "M10 20l.3-.5 1.7 5.5zM1-3000");
    // A thousand relative steps end where an absolute one would.
    mm_str_clear(&out);
    mm_pen_move(&pen, 0, 0);
    for (int i = 1; i <= 1000; i++)
        mm_pen_line(&pen, i * 0.137, 0);
    assert_int_equal(pen.x, 1370);
    mm_str_drop(&out);
}

static void test_smooth(void **state)
{
    (void)state;
    const mm_bucket buckets[] = {
        {.n = 1, .mean = 4}, {.n = 0, .mean = 99}, {.n = 1, .mean = 4}, {.n = 1, .mean = 0}};
    double average[4];
    mm_smooth(buckets, 4, 0.9, average);
    assert_near(average[0], 4); // bias-corrected: no start at zero
    assert_true(isnan(average[1]));
    assert_near(average[2], 4);
    assert_near(average[3], 4 * (0.09 + 0.081) / (0.1 + 0.09 + 0.081));
    mm_smooth(buckets, 4, 0, average);
    assert_near(average[3], 0);
}

static void test_numbers(void **state)
{
    (void)state;
    char text[MM_FMT_BYTES];
    static const struct {
        double value;
        const char *expected;
    } cases[] = {
        {2.31449, "2.314"}, {0.0005, "0.0005"}, {1.2e-5, "1.2e-05"},
        {600, "600"},       {21504.4, "21504"}, {1234567, "1,234,567"},
        {-3.5, "-3.500"},   {0, "0"},           {1e300, "1e+300"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_fmt_number(cases[i].value, text);
        assert_string_equal(text, cases[i].expected);
    }
    mm_fmt_number((double)NAN, text);
    assert_string_equal(text, "NaN");
    mm_fmt_number(-(double)INFINITY, text);
    assert_string_equal(text, "-inf");
    mm_fmt_count(-1234567, text);
    assert_string_equal(text, "-1,234,567");
    mm_fmt_count(INT64_MIN, text);
    assert_string_equal(text, "-9,223,372,036,854,775,808");
    mm_fmt_time(1795222923004, text);
    assert_string_equal(text, "2026-11-21 01:02:03 UTC");
    mm_fmt_time(0, text);
    assert_string_equal(text, "–");
}

static void test_tick_labels(void **state)
{
    (void)state;
    char text[MM_FMT_BYTES];
    static const struct {
        double value;
        double spacing;
        const char *expected;
    } cases[] = {
        {2.5, 0.5, "2.5"},         {3, 0.5, "3.0"},      {0.0002, 0.0002, "0.0002"},
        {1e-17, 0.5, "0"},         {15000, 5000, "15k"}, {12500, 2500, "12.5k"},
        {2000000, 500000, "2.0M"}, {200, 200, "200"},    {1e18, 1e17, "1e+18"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mm_fmt_tick(cases[i].value, cases[i].spacing, text);
        assert_string_equal(text, cases[i].expected);
    }
}

static void test_private(void **state)
{
    (void)state;
    mm_arena arena = {0};
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"/home/me/data/train.jsonl", "…/train.jsonl"},
        {"data/train.jsonl", "data/train.jsonl"},
        {"cannot write /var/x/y.db: disk full", "cannot write …/y.db: disk full"},
        {"--data=/a/b/c,/d/e", "--data=…/c,…/e"},
        {"'/a b/c'", "'…/a b/c'"},
        {"/home/me/", "…/me/"},
        {"1/2 and // and / and </b>", "1/2 and // and / and </b>"},
        {"on box7 it ran", "on [host] it ran"},
        {"https://example.org/a", "https://example.org/a"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(mm_fmt_private(&arena, cases[i].text, "box7"), cases[i].expected);
    assert_null(mm_fmt_private(&arena, NULL, "box7"));
    assert_string_equal(mm_fmt_private(&arena, "box7", NULL), "box7");
    mm_arena_drop(&arena);
}

static void test_fit_text(void **state)
{
    (void)state;
    mm_arena arena = {0};
    assert_string_equal(mm_fmt_fit(&arena, "short", 5), "short");
    assert_string_equal(mm_fmt_fit(&arena, "a longer name", 6), "a lon…");
    assert_string_equal(mm_fmt_fit(&arena, "明月松间照", 6), "明月…");
    assert_string_equal(mm_fmt_language("明月"), "zh");
    assert_string_equal(mm_fmt_language("月の光"), "ja");
    assert_string_equal(mm_fmt_language("한국"), "ko");
    assert_null(mm_fmt_language("moon, lune"));
    mm_arena_drop(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_linear_ticks),
        cmocka_unit_test(test_log_ticks),
        cmocka_unit_test(test_fit_keeps_a_spike_from_flattening),
        cmocka_unit_test(test_fit_edges),
        cmocka_unit_test(test_pen),
        cmocka_unit_test(test_smooth),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_tick_labels),
        cmocka_unit_test(test_private),
        cmocka_unit_test(test_fit_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
