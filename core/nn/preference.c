/* Losses over pairs of answers. See preference.h. */
#include "core/nn/preference.h"

#include <math.h>
#include <string.h>

mm_status mm_preference_kind_parse(const char *name, mm_preference_kind *out, mm_err *err)
{
    static const char *const NAMES[] = {[MM_PREFERENCE_SIGMOID] = "sigmoid",
                                        [MM_PREFERENCE_IPO] = "ipo",
                                        [MM_PREFERENCE_HINGE] = "hinge",
                                        [MM_PREFERENCE_SIMPO] = "simpo"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(name, NAMES[i]) != 0) continue;
        *out = (mm_preference_kind)i;
        return MM_OK;
    }
    return MM_FAIL(err, MM_ECONFIG, "preference loss \"%.32s\": expected one of %s", name,
                   MM_PREFERENCE_KINDS);
}

// 1 / (1 + e^-x); the exponential never overflows.
static double sigmoid(double x)
{
    const double e = exp(-fabs(x));
    return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

// log(1 / (1 + e^-x)), exact to rounding at both ends.
static double log_sigmoid(double x) { return fmin(x, 0) - log1p(exp(-fabs(x))); }

// A loss of the difference that the kind compares, and its derivative.
typedef struct curve {
    double loss;
    double slope;
} curve;

static curve curve_of(const mm_preference *preference, double difference)
{
    const double beta = preference->beta;
    const double smoothing = preference->label_smoothing;
    const double x = beta * difference;
    switch (preference->kind) {
    case MM_PREFERENCE_IPO: {
        const double miss = difference - 1 / (2 * beta);
        return (curve){miss * miss, 2 * miss};
    }
    case MM_PREFERENCE_HINGE: // at the kink the pair is apart far enough
        return x >= 1 ? (curve){0, 0} : (curve){1 - x, -beta};
    case MM_PREFERENCE_SIMPO: {
        const double beyond = x - preference->gamma;
        return (curve){-log_sigmoid(beyond), -beta * sigmoid(-beyond)};
    }
    case MM_PREFERENCE_SIGMOID:
    default:
        return (curve){-(1 - smoothing) * log_sigmoid(x) - smoothing * log_sigmoid(-x),
                       beta * (smoothing * sigmoid(x) - (1 - smoothing) * sigmoid(-x))};
    }
}

// What one token of an answer counts: 1 in a sum, its share in a mean, nothing where none is
// learned.
static double share_of(bool mean, int64_t tokens)
{
    if (!mean) return 1;
    return tokens > 0 ? 1 / (double)tokens : 0;
}

mm_pair_loss mm_preference_loss(const mm_preference *preference, const mm_pair *pair)
{
    const bool is_simpo = preference->kind == MM_PREFERENCE_SIMPO;
    const bool mean = preference->mean || is_simpo;
    const double chosen_share = share_of(mean, pair->chosen_tokens);
    const double rejected_share = share_of(mean, pair->rejected_tokens);
    double chosen = pair->chosen * chosen_share;
    double rejected = pair->rejected * rejected_share;
    if (!is_simpo) {
        chosen -= pair->reference_chosen * chosen_share;
        rejected -= pair->reference_rejected * rejected_share;
    }
    const double difference = chosen - rejected;
    const curve at = curve_of(preference, difference);
    return (mm_pair_loss){.loss = at.loss,
                          .margin = preference->beta * difference,
                          .d_chosen = at.slope * chosen_share,
                          .d_rejected = -at.slope * rejected_share};
}
