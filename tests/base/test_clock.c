/* Tests of core/base/clock.h: UTC formatting at its edges whatever the time zone, durations for
 * people, and a monotonic clock that moves forward. */
#include "core/base/clock.h"
#include "tests/base/check.h"

#include <math.h>
#include <time.h>

static void test_iso(void **state)
{
    (void)state;
    static const struct {
        int64_t epoch_ms;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {-1, "1969-12-31T23:59:59.999Z"},
        {-1000, "1969-12-31T23:59:59.000Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {1735689599999, "2024-12-31T23:59:59.999Z"},
        {1795222923004, "2026-11-21T01:02:03.004Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "292278994-08-17T07:12:55.807Z"},
        {INT64_MIN, "-292275055-05-16T16:47:04.192Z"},
    };
    static const char *const zones[] = {"UTC", "Asia/Shanghai", "PST8PDT"};
    for (size_t zone = 0; zone < 3; zone++) {
        setenv("TZ", zones[zone], 1);
        tzset();
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            char text[MM_TIME_ISO_BYTES];
            mm_time_iso(rows[i].epoch_ms, text);
            if (strcmp(text, rows[i].text) != 0) fail_msg("row %zu: %s", i, text);
        }
    }
}

static void test_duration(void **state)
{
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } rows[] = {
        {0, "0ms"},         {0.0004, "0ms"},         {0.045, "45ms"},
        {0.9994, "999ms"},  {0.9996, "1.0s"},        {1, "1.0s"},
        {12.34, "12.3s"},   {59.94, "59.9s"},        {59.96, "1m00s"},
        {60, "1m00s"},      {252, "4m12s"},          {3599.9, "59m59s"},
        {3600, "1h00m"},    {3780, "1h03m"},         {359999, "99h59m"},
        {360000, "4 days"}, {8640000, "100 days"},   {-1, "?"},
        {(double)NAN, "?"}, {(double)INFINITY, "?"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[MM_TIME_ISO_BYTES];
        mm_duration_text(rows[i].seconds, text);
        if (strcmp(text, rows[i].text) != 0) fail_msg("row %zu: %s", i, text);
    }
}

static void test_clocks_move(void **state)
{
    (void)state;
    const int64_t wall = mm_now_ms();
    const int64_t start = mm_mono_ns();
    assert_true(wall > 1700000000000); // after 2023: milliseconds, not seconds
    int64_t last = start;
    for (int i = 0; i < 1000; i++) {
        const int64_t now = mm_mono_ns();
        CHECK_ROW(now >= last, i);
        last = now;
    }
    const struct timespec pause = {.tv_nsec = 5000000};
    nanosleep(&pause, NULL);
    const int64_t passed = mm_mono_ns() - start;
    assert_true(passed >= 5000000); // nanoseconds
    assert_true(passed < 60 * (int64_t)1000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_iso),
        cmocka_unit_test(test_duration),
        cmocka_unit_test(test_clocks_move),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
