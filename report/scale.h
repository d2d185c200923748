/* Scales of a chart: from data to position, and where the ticks go. */
#ifndef MM_REPORT_SCALE_H
#define MM_REPORT_SCALE_H

#include <stdbool.h>
#include <stddef.h>

enum { MM_TICKS_MAX = 16 };

typedef struct mm_scale {
    double low; /* data; low < high; both positive when is_log */
    double high;
    double from; /* position of low */
    double to;   /* position of high */
    bool is_log;
} mm_scale;

/* Position of a value; values outside go outside. A non-positive value on a log scale goes to -1e6
 * beyond `from`. */
double mm_scale_map(const mm_scale *scale, double value);
bool mm_scale_contains(const mm_scale *scale, double value);

/* Round numbers (1, 2, 2.5, 5 × 10^k) inside [low, high], about `wanted` of them. Returns how many;
 * *spacing is their distance. */
size_t mm_ticks_linear(double low, double high, size_t wanted, double ticks[MM_TICKS_MAX],
                       double *spacing);
/* Powers of ten inside [low, high], with 2 and 5 between them when there are few, thinned when
 * there are many. */
size_t mm_ticks_log(double low, double high, double ticks[MM_TICKS_MAX]);

/* The range to draw for these values (finite ones count; the array is sorted in place), so that one
 * spike does not flatten the rest: values further than 0.6 times the middle 96 % beyond it are cut
 * off. Padded, and extended to zero when zero is near. Sets low, high and, when the values span
 * more than `log_ratio` (0: never) and are positive, is_log. Without values: 0 to 1. */
void mm_scale_fit(mm_scale *scale, double *values, size_t count, double log_ratio);

#endif
