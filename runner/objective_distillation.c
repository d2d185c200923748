/* Learning from a teacher: alpha * cross entropy + (1 - alpha) * T² KL(teacher || student).
 *
 * The teacher is a recorded run, its adapters merged, in an engine of its own that computes in the
 * student's dtype; both see the same micro-batches, so nothing of the teacher is stored. */
#include "runner/load.h"
#include "runner/train.h"
#include "runner/train_parts.h"

typedef struct teaching {
    mm_loaded loaded;
    mm_teacher teacher;
} teaching;

static void close_teacher(mm_session *s)
{
    teaching *t = s->objective_state;
    if (!t) return;
    mm_engine_free(t->teacher.engine);
    mm_loaded_drop(&t->loaded);
    mm_free(t);
    s->objective_state = NULL;
}

static mm_status load_teacher(mm_session *s, teaching *t, mm_err *err)
{
    if (!s->teacher) return MM_FAIL(err, MM_ENOTFOUND, "the run has no teacher on record");
    const mm_status status = mm_load_run(&t->loaded, s->store, s->teacher, err);
    if (status != MM_OK) mm_err_context(err, "teacher %s", s->teacher);
    return status;
}

static mm_status open_teacher(mm_session *s, mm_err *err)
{
    teaching *t = mm_calloc(1, sizeof *t);
    if (!t) return MM_FAIL(err, MM_ENOMEM, "no memory for a teacher");
    s->objective_state = t;
    MM_TRY(load_teacher(s, t, err));
    const mm_engine_options options = mm_train_engine(s->config, s->train, s->val, false);
    MM_TRY(mm_engine_new(&t->teacher.engine, t->loaded.model, &options, err));
    t->teacher.alpha = mm_config_real(s->config, "distill_alpha");
    t->teacher.temperature = mm_config_real(s->config, "distill_temperature");
    return MM_OK;
}

static mm_status backward(mm_session *s, const mm_batch *batch, double scale, double *sums,
                          mm_err *err)
{
    const teaching *t = s->objective_state;
    const double alpha = t->teacher.alpha;
    mm_distill_loss loss;
    MM_TRY(mm_engine_distill(s->engine, &t->teacher, batch, scale, s->at.micro_step, &loss, err));
    sums[0] = alpha * loss.cross_entropy + (1 - alpha) * loss.divergence;
    sums[1] = loss.cross_entropy;
    sums[2] = loss.divergence;
    return MM_OK;
}

const mm_objective mm_objective_distillation = {.series = {"distill/ce", "distill/kl"},
                                                .open = open_teacher,
                                                .close = close_teacher,
                                                .backward = backward,
                                                .evaluate = mm_session_score_language};
