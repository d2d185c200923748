/* Which objective a stage has, and the one most stages have: modelling language. */
#include "runner/objective.h"

#include "runner/train_parts.h"

#include <string.h>

static mm_status backward_language(mm_session *s, const mm_batch *batch, double scale, double *sums,
                                   mm_err *err)
{
    mm_loss loss;
    MM_TRY(mm_engine_backward(s->engine, batch, scale, s->at.micro_step, &loss, err));
    sums[0] = loss.sum;
    return MM_OK;
}

static const mm_objective LANGUAGE = {.backward = backward_language,
                                      .evaluate = mm_session_score_language};

const mm_objective *mm_objective_of(const char *stage)
{
    if (strcmp(stage, "dpo") == 0) return &mm_objective_preference;
    if (strcmp(stage, "distill") == 0) return &mm_objective_distillation;
    return &LANGUAGE;
}
