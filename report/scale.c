/* Scales of a chart. */
#include "report/scale.h"

#include <math.h>
#include <stdlib.h>

double mm_scale_map(const mm_scale *scale, double value)
{
    double part;
    if (!scale->is_log) {
        part = (value - scale->low) / (scale->high - scale->low);
    } else if (value > 0) {
        part = log(value / scale->low) / log(scale->high / scale->low);
    } else {
        return scale->from + (scale->from > scale->to ? 1e6 : -1e6);
    }
    return scale->from + part * (scale->to - scale->from);
}

bool mm_scale_contains(const mm_scale *scale, double value)
{
    return value >= scale->low && value <= scale->high;
}

size_t mm_ticks_linear(double low, double high, size_t wanted, double ticks[MM_TICKS_MAX],
                       double *spacing)
{
    *spacing = 0;
    if (!(high > low) || !isfinite(high - low) || wanted == 0) return 0;
    static const double steps[] = {1, 2, 2.5, 5, 10};
    const double rough = (high - low) / (double)wanted;
    const double power = pow(10, floor(log10(rough)));
    double step = 10 * power;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i] * power >= rough * (1 - 1e-9)) {
            step = steps[i] * power;
            break;
        }
    }
    size_t count = 0;
    // Each tick is a multiple of the step: adding the step up would collect rounding errors.
    const double first = ceil(low / step - 1e-9);
    while (count < MM_TICKS_MAX) {
        const double tick = (first + (double)count) * step;
        if (tick > high + step * 1e-9) break;
        ticks[count++] = tick;
    }
    *spacing = step;
    return count;
}

size_t mm_ticks_log(double low, double high, double ticks[MM_TICKS_MAX])
{
    if (!(low > 0) || !(high > low) || !isfinite(high)) return 0;
    const int first = (int)floor(log10(low) + 1e-9);
    const int last = (int)floor(log10(high) + 1e-9);
    const double decades = log10(high / low);
    const int stride = (int)fmax(ceil(decades / 7), 1);
    static const double parts[] = {1, 2, 5};
    const size_t n_parts = decades <= 3 ? 3 : 1;
    size_t count = 0;
    for (int power = first; power <= last; power += stride) {
        for (size_t i = 0; i < n_parts && count < MM_TICKS_MAX; i++) {
            const double tick = parts[i] * pow(10, power);
            if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks[count++] = tick;
        }
    }
    return count;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

void mm_scale_fit(mm_scale *scale, double *values, size_t count, double log_ratio)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) values[n++] = values[i];
    scale->low = 0;
    scale->high = 1;
    scale->is_log = false;
    if (n == 0) return;
    qsort(values, n, sizeof *values, by_value);
    const double p02 = values[(n - 1) * 2 / 100];
    const double p98 = values[(n - 1) * 98 / 100];
    const double reach = 0.6 * (p98 - p02);
    double low = values[0];
    double high = values[n - 1];
    if (low > 0 && log_ratio > 0 && p98 / p02 > log_ratio) {
        scale->is_log = true;
        scale->low = fmax(low, p02 / 10) / 1.1;
        scale->high = fmin(high, p98 * 10) * 1.1;
        return;
    }
    if (reach > 0 && n >= 20) {
        low = fmax(low, p02 - reach);
        high = fmin(high, p98 + reach);
    }
    if (high - low <= fabs(high) * 1e-12) { // a constant
        const double half = high == 0 ? 1 : fabs(high) * 0.05;
        scale->low = low - half;
        scale->high = high + half;
        return;
    }
    const double pad = (high - low) * 0.04;
    const bool touches_zero = low >= 0 && low < high * 0.2;
    scale->low = touches_zero ? 0 : low - pad;
    scale->high = high + pad;
}
