/* Tests of core/base/number.h: where a unit begins, how many digits are shown. */
#include "core/base/number.h"
#include "tests/base/check.h"

#include <math.h>

static void writes_counts(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{0, "0"},         {7, "7"},          {999, "999"},      {999.4, "999"},
                {1000, "1.00k"},  {1234, "1.23k"},   {12345, "12.3k"},  {123456, "123k"},
                {999499, "999k"}, {999500, "1.00M"}, {1.23e6, "1.23M"}, {63912192, "63.9M"},
                {2.5e9, "2.50G"}, {0.5, "0.50"},     {-1500, "-1.50k"}, {1e18, "1000P"},
                {9.996, "10.0"},  {(double)NAN, "-"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_count_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

static void writes_bytes(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{0, "0 B"},
                {1023, "1023 B"},
                {1024, "1.0 KiB"},
                {1536, "1.5 KiB"},
                {1048575, "1.0 MiB"},
                {200.0 * 1048576, "200 MiB"},
                {1.5 * 1073741824.0, "1.5 GiB"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_bytes_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

static void writes_reals(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } ROWS[] = {{2.3144, "2.314"},  {6.19998, "6.200"},  {0.4742, "0.4742"},
                {12.345, "12.35"},  {387.06, "387.1"},   {1234.4, "1234"},
                {5e-4, "0.0005"},   {4.1e-5, "4.1e-05"}, {1e6, "1e+06"},
                {-2.5, "-2.500"},   {(double)NAN, "-"},  {(double)INFINITY, "inf"},
                {9.99996, "10.00"}, {999.96, "1000"},    {0, "0"}};
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char text[MM_NUMBER_BYTES];
        mm_real_text(ROWS[i].value, text);
        if (strcmp(text, ROWS[i].text) != 0)
            fail_msg("%.15g: expected %s, found %s", ROWS[i].value, ROWS[i].text, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_counts),
        cmocka_unit_test(writes_bytes),
        cmocka_unit_test(writes_reals),
    };
    return cmocka_run_group_tests_name("base/number", tests, NULL, NULL);
}
