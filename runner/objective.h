/* What a stage learns: a loss over micro-batches with its gradient, what it logs, how it is scored
 * on held-out rows. The training loop is the same for all (docs/decisions/0030).
 *
 *   language     pretrain, sft, lora: cross entropy of the labels
 *   preference   dpo: a loss over pairs of answers, beside the model the run started from
 *   distillation distill: cross entropy and divergence from a teacher
 */
#ifndef MM_RUNNER_OBJECTIVE_H
#define MM_RUNNER_OBJECTIVE_H

#include "core/nn/batch.h"
#include "runner/config.h"

typedef struct mm_session mm_session; /* train_parts.h */

enum { MM_OBJECTIVE_VALUES = 8 };

typedef struct mm_objective {
    /* A step is a mean over pairs of segments instead of labels. */
    bool is_of_pairs;
    /* Metrics of each step besides the loss, ended by NULL. */
    const char *series[MM_OBJECTIVE_VALUES];
    /* Takes what it needs besides the session's engine into objective_state; NULL: nothing. */
    mm_status (*open)(mm_session *s, mm_err *err);
    void (*close)(mm_session *s);
    /* Where `open` has set needs_start: called once before the first step of a process, with the
     * weights the run started from in model and engine. */
    mm_status (*prepare)(mm_session *s, mm_err *err);
    /* Adds scale * d(sum of the loss)/d(parameter) of a micro-batch to the gradients. sums[0] gets
     * the sum of the loss over labels or pairs, the rest those of `series`. */
    mm_status (*backward)(mm_session *s, const mm_batch *batch, double scale, double *sums,
                          mm_err *err);
    /* Scores what is held out (there is some): logs its metrics, sets last_val_loss. */
    mm_status (*evaluate)(mm_session *s, mm_err *err);
} mm_objective;

extern const mm_objective mm_objective_preference;
extern const mm_objective mm_objective_distillation;

/* The objective of a stage. Static. */
const mm_objective *mm_objective_of(const char *stage);

#endif
