/* Learning-rate schedules; MiniMind's two cosines differ in their ends and in where they count
 * from. */
#include "core/nn/schedule.h"

#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

static const char *const KIND_NAMES[] = {
    [MM_LR_COSINE] = "cosine",
    [MM_LR_COSINE_V2] = "cosine-v2",
    [MM_LR_CONSTANT] = "constant",
    [MM_LR_LINEAR] = "linear",
};

mm_status mm_lr_kind_parse(const char *name, mm_lr_kind *out, mm_err *err)
{
    for (size_t i = 0; i < sizeof KIND_NAMES / sizeof KIND_NAMES[0]; i++) {
        if (strcmp(name, KIND_NAMES[i]) == 0) {
            *out = (mm_lr_kind)i;
            return MM_OK;
        }
    }
    return MM_FAIL(err, MM_ECONFIG,
                   "--lr-schedule %s: expected cosine, cosine-v2, constant or linear", name);
}

double mm_lr_at(const mm_lr_schedule *schedule, int64_t step)
{
    const double lr = schedule->learning_rate;
    const int64_t warmup = schedule->warmup_steps;
    if (step <= warmup) return lr * (double)step / (double)warmup;
    const int64_t remaining = schedule->total_steps - warmup;
    const double total = remaining > 0 ? (double)remaining : 1.0;
    // Steps beyond the planned end keep the last rate.
    const double t = fmin((double)(step - warmup), total);
    switch (schedule->kind) {
    case MM_LR_COSINE:
        return lr * (0.1 + 0.45 * (1.0 + cos(PI * t / total)));
    case MM_LR_COSINE_V2:
        return lr / 10.0 + lr / 2.0 * (1.0 + cos(PI * (t - 1.0) / total));
    case MM_LR_LINEAR:
        return lr * (1.0 - (t - 1.0) / total);
    case MM_LR_CONSTANT:
        break;
    }
    return lr;
}
