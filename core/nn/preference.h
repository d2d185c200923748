/* Losses over pairs of answers: from log-probabilities to a loss and its derivatives. Pure
 * functions; the engine turns the derivatives into gradients (mm_engine_backward_weighted).
 *
 * With p and r the policy's and the reference's log-probability of an answer (a sum over its
 * learned tokens, or their mean), D = (p_chosen - p_rejected) - (r_chosen - r_rejected):
 *
 *   sigmoid  -(1 - e) log s(beta D) - e log s(-beta D), e the label smoothing. At e = 0:
 *            Rafailov et al., "Direct Preference Optimization", 2023, equation 7
 *   ipo      (D - 1 / (2 beta))²; Azar et al., "A General Theoretical Paradigm to Understand
 *            Learning from Human Preferences", 2023
 *   hinge    max(0, 1 - beta D); Zhao et al., "SLiC-HF", 2023
 *   simpo    -log s(beta (p_chosen - p_rejected) - gamma) of means, without a reference; Meng et
 *            al., "SimPO", 2024
 */
#ifndef MM_NN_PREFERENCE_H
#define MM_NN_PREFERENCE_H

#include "core/base/err.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mm_preference_kind {
    MM_PREFERENCE_SIGMOID = 0,
    MM_PREFERENCE_IPO,
    MM_PREFERENCE_HINGE,
    MM_PREFERENCE_SIMPO
} mm_preference_kind;

/* The names in their order, as the choices of an option. */
#define MM_PREFERENCE_KINDS "sigmoid,ipo,hinge,simpo"
MM_NODISCARD mm_status mm_preference_kind_parse(const char *name, mm_preference_kind *out,
                                                mm_err *err);

typedef struct mm_preference {
    mm_preference_kind kind;
    bool mean; /* of an answer's tokens instead of their sum; simpo always */
    double beta;
    double label_smoothing; /* of sigmoid */
    double gamma;           /* of simpo */
} mm_preference;

/* Summed log-probabilities over the learned tokens of each answer, and how many those are. */
typedef struct mm_pair {
    double chosen;
    double rejected;
    double reference_chosen; /* without use for simpo */
    double reference_rejected;
    int64_t chosen_tokens;
    int64_t rejected_tokens;
} mm_pair;

typedef struct mm_pair_loss {
    double loss;
    double margin;   /* difference of the implicit rewards: beta D, for simpo without the gamma */
    double d_chosen; /* d(loss) / d(summed log-probability of the chosen answer) */
    double d_rejected;
} mm_pair_loss;

/* Finite for every log-probability a model can give. The mean of an answer without learned tokens
 * is 0, and so is its derivative. */
mm_pair_loss mm_preference_loss(const mm_preference *preference, const mm_pair *pair);

#ifdef __cplusplus
}
#endif
#endif
