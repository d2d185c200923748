/* Tests of core/base/rng.h: Philox4x32-10 against the published answers, independence of the parts
 * of the key, and the statistics of the derived numbers. Everything here is deterministic: a
 * statistic that passes once passes always, the bounds only show that the numbers are sane. */
#include "core/base/rng.h"
#include "tests/base/check.h"

#include <math.h>

static void test_known_answers(void **state)
{
    (void)state;
    // The three answers for philox4x32-10 published with Random123. A counter word 3 of step alone
    // needs purpose 0, which no purpose of ours uses.
    static const struct {
        uint32_t counter[4];
        uint32_t key[2];
        uint32_t out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint64_t seed = (uint64_t)rows[i].key[1] << 32 | rows[i].key[0];
        const uint64_t element = (uint64_t)rows[i].counter[1] << 32 | rows[i].counter[0];
        const uint64_t step = (uint64_t)rows[i].counter[3] << 32 | rows[i].counter[2];
        uint32_t out[4];
        mm_philox(seed, 0, step, element, out);
        for (int k = 0; k < 4; k++)
            CHECK_ROW(out[k] == rows[i].out[k], 10 * i + (size_t)k);
    }
}

static void test_every_part_of_the_key_matters(void **state)
{
    (void)state;
    uint32_t base[4];
    mm_philox(42, MM_RNG_TEST, 7, 9, base);
    for (int bit = 0; bit < 64; bit++) {
        uint32_t out[3][4];
        mm_philox(42 ^ 1ull << bit, MM_RNG_TEST, 7, 9, out[0]);
        mm_philox(42, MM_RNG_TEST, 7 ^ 1ull << bit, 9, out[1]);
        mm_philox(42, MM_RNG_TEST, 7, 9 ^ 1ull << bit, out[2]);
        for (int part = 0; part < 3; part++) {
            int changed = 0;
            for (int k = 0; k < 4; k++)
                changed += __builtin_popcount(out[part][k] ^ base[k]);
            // 64 of 128 bits on average, standard deviation 5.7.
            CHECK_ROW(changed > 34 && changed < 94, part * 100 + bit);
        }
    }
    for (uint32_t purpose = MM_RNG_INIT; purpose < MM_RNG_TEST; purpose++) {
        uint32_t out[4];
        mm_philox(42, purpose, 7, 9, out);
        CHECK_ROW(memcmp(out, base, sizeof base) != 0, purpose);
    }
}

static void test_cursor_walks_the_elements(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 5, MM_RNG_TEST, 3);
    for (uint64_t element = 0; element < 10; element++) {
        uint32_t block[4];
        mm_philox(5, MM_RNG_TEST, 3, element, block);
        for (int k = 0; k < 4; k++)
            CHECK_ROW(mm_rng_u32(&rng) == block[k], element);
    }
    // Two cursors of the same key agree, whatever was drawn elsewhere in between.
    mm_rng one;
    mm_rng two;
    mm_rng_init(&one, 1, MM_RNG_SAMPLE, 8);
    mm_rng_init(&two, 1, MM_RNG_SAMPLE, 8);
    for (int i = 0; i < 100; i++) {
        const double first = mm_rng_normal(&one);
        (void)mm_rng_uniform(&rng);
        const double second = mm_rng_normal(&two);
        CHECK_ROW(memcmp(&first, &second, sizeof first) == 0, i);
    }
}

enum { DRAWS = 200000 };

static void test_uniform(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 1, MM_RNG_TEST, 0);
    enum { BINS = 64 };
    int bins[BINS] = {0};
    double sum = 0;
    double lag = 0;
    double last = 0;
    for (int i = 0; i < DRAWS; i++) {
        const double u = mm_rng_uniform(&rng);
        CHECK_ROW(u >= 0 && u < 1, i);
        bins[(int)(u * BINS)]++;
        sum += u;
        lag += (u - 0.5) * (last - 0.5);
        last = u;
    }
    // Standard error of the mean: sqrt(1/12/n); five of them.
    assert_true(fabs(sum / DRAWS - 0.5) < 5 * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(lag / DRAWS) < 5.0 / 12 / sqrt(DRAWS));
    double chi2 = 0;
    for (int i = 0; i < BINS; i++)
        chi2 += pow(bins[i] - (double)DRAWS / BINS, 2) / ((double)DRAWS / BINS);
    // 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert_true(chi2 > 25 && chi2 < 120);
}

static void test_uniform_uses_53_bits(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 2, MM_RNG_TEST, 0);
    uint64_t ones = 0;
    uint64_t zeros = 0;
    for (int i = 0; i < 1000; i++) {
        const double scaled = mm_rng_uniform(&rng) * 0x1p53;
        const uint64_t whole = (uint64_t)scaled;
        assert_true((double)whole >= scaled && (double)whole <= scaled); // an integer
        ones |= whole;
        zeros |= ~whole;
    }
    const uint64_t all = ((uint64_t)1 << 53) - 1;
    assert_true(ones == all && (zeros & all) == all);
}

static void test_below(void **state)
{
    (void)state;
    static const uint32_t bounds[] = {1, 2, 3, 7, 10, 100, 1u << 16, 3u << 30, UINT32_MAX};
    for (size_t row = 0; row < sizeof bounds / sizeof bounds[0]; row++) {
        const uint32_t n = bounds[row];
        mm_rng rng;
        mm_rng_init(&rng, row, MM_RNG_TEST, 1);
        double sum = 0;
        uint32_t low_third = 0;
        for (int i = 0; i < DRAWS / 4; i++) {
            const uint32_t value = mm_rng_below(&rng, n);
            CHECK_ROW(value < n, row);
            sum += value;
            low_third += value < n / 3;
        }
        const double count = DRAWS / 4;
        const double width = n;
        const double error = 5 * sqrt((width * width - 1) / 12 / count);
        CHECK_ROW(fabs(sum / count - (width - 1) / 2) <= error + 1e-9, row);
        // A plain multiply-shift of 32 bits without rejection would miss this for 3 * 2^30.
        const double share = (double)(n / 3) / width;
        CHECK_ROW(fabs(low_third / count - share) <= 5 * sqrt(share * (1 - share) / count), row);
    }
}

static void test_normal(void **state)
{
    (void)state;
    mm_rng rng;
    mm_rng_init(&rng, 3, MM_RNG_TEST, 0);
    double moments[5] = {0};
    int beyond_2 = 0;
    for (int i = 0; i < DRAWS; i++) {
        const double z = mm_rng_normal(&rng);
        CHECK_ROW(isfinite(z) && fabs(z) < 9, i); // 53 bits cannot give more than 8.6
        for (int k = 1; k <= 4; k++)
            moments[k] += pow(z, k) / DRAWS;
        beyond_2 += fabs(z) > 2;
    }
    // Standard errors of the moments: sqrt of 1, 2, 15, 96 over n; five of each.
    assert_true(fabs(moments[1]) < 5 * sqrt(1.0 / DRAWS));
    assert_true(fabs(moments[2] - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(moments[3]) < 5 * sqrt(15.0 / DRAWS));
    assert_true(fabs(moments[4] - 3) < 5 * sqrt(96.0 / DRAWS));
    const double share = 0.0455003;
    assert_true(fabs((double)beyond_2 / DRAWS - share) < 5 * sqrt(share * (1 - share) / DRAWS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_every_part_of_the_key_matters),
        cmocka_unit_test(test_cursor_walks_the_elements),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_uniform_uses_53_bits),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_normal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
