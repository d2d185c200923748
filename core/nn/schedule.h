/* Learning-rate schedules, pure functions of the optimizer step. */
#ifndef MM_NN_SCHEDULE_H
#define MM_NN_SCHEDULE_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_lr_kind {
    MM_LR_COSINE =
        0, /* lr·(0.1 + 0.45·(1 + cos(πt/T))), t from 1: MiniMind v3 (docs/minimind.md) */
    MM_LR_COSINE_V2, /* lr/10 + lr/2·(1 + cos(πt/T)), t from 0: MiniMind v2, starts at 1.1·lr */
    MM_LR_CONSTANT,
    MM_LR_LINEAR /* from lr to 0 */
} mm_lr_kind;

typedef struct mm_lr_schedule {
    mm_lr_kind kind;
    double learning_rate;
    int64_t warmup_steps; /* linear from lr/warmup to lr; the schedule then runs over the remaining
                             steps */
    int64_t total_steps;
} mm_lr_schedule;

/* "cosine", "cosine-v2", "constant", "linear". */
MM_NODISCARD mm_status mm_lr_kind_parse(const char *name, mm_lr_kind *out, mm_err *err);
/* Rate of the 1-based optimizer step. */
double mm_lr_at(const mm_lr_schedule *schedule, int64_t step);

#ifdef __cplusplus
}
#endif
#endif
