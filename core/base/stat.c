/* Statistics of shares. */
#include "core/base/stat.h"

#include "core/base/err.h"

#include <math.h>

mm_interval mm_wilson_interval(int64_t correct, int64_t n)
{
    MM_ASSERT(n >= 0 && correct >= 0 && correct <= n);
    if (n == 0) return (mm_interval){(double)NAN, (double)NAN};
    const double z = 1.959963984540054; // quantile of the normal distribution at 0.975
    const double count = (double)n;
    const double share = (double)correct / count;
    const double center = share + z * z / (2 * count);
    const double width = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count));
    const double scale = 1 + z * z / count;
    // At the ends of the scale the formula gives the end itself, but for rounding.
    const double low = correct == 0 ? 0 : (center - width) / scale;
    const double high = correct == n ? 1 : (center + width) / scale;
    return (mm_interval){low, high};
}
