/* Numbers for people: short, with a unit, never more digits than help. */
#include "core/base/number.h"

#include <math.h>
#include <stdio.h>

/* Three significant digits: 1.23, 12.3, 123. */
static void short_text(double value, const char *unit, char out[MM_NUMBER_BYTES])
{
    const double size = fabs(value);
    const int decimals = size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
    snprintf(out, MM_NUMBER_BYTES, "%.*f%s", decimals, value, unit);
}

void mm_count_text(double value, char out[MM_NUMBER_BYTES])
{
    static const char *const UNITS[] = {"", "k", "M", "G", "T", "P"};
    enum { N_UNITS = sizeof UNITS / sizeof UNITS[0] };
    if (!isfinite(value)) {
        mm_real_text(value, out);
        return;
    }
    int unit = 0;
    // 999.6 would round to "1000": the bound is where the next unit's text begins.
    while (fabs(value) >= 999.5 && unit + 1 < N_UNITS) {
        value /= 1000;
        unit++;
    }
    if (unit == 0 && fabs(value - round(value)) < 1e-9)
        snprintf(out, MM_NUMBER_BYTES, "%.0f", value);
    else
        short_text(value, UNITS[unit], out);
}

void mm_bytes_text(double bytes, char out[MM_NUMBER_BYTES])
{
    static const char *const UNITS[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
    enum { N_UNITS = sizeof UNITS / sizeof UNITS[0] };
    if (!isfinite(bytes)) {
        mm_real_text(bytes, out);
        return;
    }
    int unit = 0;
    while (fabs(bytes) >= 1023.5 && unit + 1 < N_UNITS) {
        bytes /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(out, MM_NUMBER_BYTES, "%.0f B", bytes);
    else
        snprintf(out, MM_NUMBER_BYTES, "%.*f%s", fabs(bytes) < 99.95 ? 1 : 0, bytes, UNITS[unit]);
}

void mm_real_text(double value, char out[MM_NUMBER_BYTES])
{
    const double size = fabs(value);
    if (isnan(value))
        snprintf(out, MM_NUMBER_BYTES, "-");
    else if (isinf(value))
        snprintf(out, MM_NUMBER_BYTES, value > 0 ? "inf" : "-inf");
    else if (size >= 999.95 && size < 1e6)
        snprintf(out, MM_NUMBER_BYTES, "%.0f", value);
    else if (size < 0.0009 || size >= 1e6)
        snprintf(out, MM_NUMBER_BYTES, "%.4g", value);
    else // trailing zeros stay, so that a column of losses lines up at the point
        snprintf(out, MM_NUMBER_BYTES, "%.*f",
                 size < 0.99995  ? 4
                 : size < 9.9995 ? 3
                 : size < 99.995 ? 2
                                 : 1,
                 value);
}
