/* Statistics of shares: how far a count of right answers can be trusted. */
#ifndef MM_BASE_STAT_H
#define MM_BASE_STAT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mm_interval {
    double low;
    double high;
} mm_interval;

/* The 95 % score interval of a share, `correct` of `n`; Wilson, "Probable Inference, the Law of
 * Succession, and Statistical Inference", 1927. It stays within 0 and 1 and has a width also where
 * all or none are right. n = 0: both NaN. */
mm_interval mm_wilson_interval(int64_t correct, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
