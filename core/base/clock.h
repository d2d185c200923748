/* Time: UTC wall clock for records, monotonic clock for durations. */
#ifndef MM_BASE_CLOCK_H
#define MM_BASE_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MM_TIME_ISO_BYTES = 32 };

int64_t mm_now_ms(void);  /* milliseconds since 1970-01-01 UTC */
int64_t mm_mono_ns(void); /* nanoseconds of a clock that never jumps */
/* ISO 8601 with milliseconds, "2026-11-21T01:02:03.004Z". */
void mm_time_iso(int64_t epoch_ms, char out[MM_TIME_ISO_BYTES]);
/* "4m12s", "1h03m", "12.3s", "45ms": for people. */
void mm_duration_text(double seconds, char out[MM_TIME_ISO_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
