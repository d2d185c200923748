/* Time: UTC wall clock for records, monotonic clock for durations. */
#include "core/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

int64_t mm_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t mm_mono_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void mm_time_iso(int64_t epoch_ms, char out[MM_TIME_ISO_BYTES])
{
    int64_t seconds = epoch_ms / 1000;
    int64_t millis = epoch_ms % 1000;
    if (millis < 0) {
        millis += 1000;
        seconds -= 1;
    }
    const time_t when = (time_t)seconds;
    struct tm parts;
    gmtime_r(&when, &parts);
    char day[26]; // enough for any year that 64 bits of milliseconds can name
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out, MM_TIME_ISO_BYTES, "%s.%03dZ", day, (int)millis);
}

void mm_duration_text(double seconds, char out[MM_TIME_ISO_BYTES])
{
    // Each bound is where the rounded text would show the next unit ("60.0s").
    if (!(seconds >= 0) || isinf(seconds)) {
        snprintf(out, MM_TIME_ISO_BYTES, "?");
    } else if (seconds < 0.9995) {
        snprintf(out, MM_TIME_ISO_BYTES, "%.0fms", seconds * 1e3);
    } else if (seconds < 59.95) {
        snprintf(out, MM_TIME_ISO_BYTES, "%.1fs", seconds);
    } else if (seconds < 3600) {
        const int whole = seconds < 60 ? 60 : (int)seconds;
        snprintf(out, MM_TIME_ISO_BYTES, "%dm%02ds", whole / 60, whole % 60);
    } else if (seconds < 360000) {
        const int minutes = (int)(seconds / 60);
        snprintf(out, MM_TIME_ISO_BYTES, "%dh%02dm", minutes / 60, minutes % 60);
    } else {
        snprintf(out, MM_TIME_ISO_BYTES, "%.0f days", seconds / 86400);
    }
}
