/* The update: norm of the gradients, clipping, AdamW. */
#include "core/nn/engine_parts.h"

#include "core/base/clock.h"

#include <math.h>
#include <string.h>

static char *element(const mm_engine *engine, mm_class cls, int64_t index)
{
    return (char *)engine->blocks[cls] + (size_t)index * engine->backend->real_bytes;
}

// Gradients and moments begin with the first tensor that trains.
static int64_t trained(const mm_engine *engine, int64_t offset)
{
    return offset - engine->table.first_trained;
}

static double n_trained(const mm_engine *engine)
{
    return (double)engine->graph->elements[MM_CLASS_GRAD];
}

static void squares_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    mm_engine *engine = context;
    const mm_engine_span *piece = &engine->spans[item];
    engine->span_squares[item] = engine->backend->sum_squares(
        element(engine, MM_CLASS_GRAD, trained(engine, piece->offset)), piece->count);
}

typedef struct adamw_job {
    mm_engine *engine;
    mm_adamw_factors decayed;
    mm_adamw_factors kept; // for tensors without decay
} adamw_job;

static void adamw_item(void *context, int64_t item, int32_t thread)
{
    (void)thread;
    const adamw_job *job = context;
    const mm_engine *engine = job->engine;
    const mm_engine_span *piece = &engine->spans[item];
    const mm_adamw_factors *factors =
        engine->table.tensors[piece->tensor].decays ? &job->decayed : &job->kept;
    const int64_t at = trained(engine, piece->offset);
    engine->backend->adamw(
        element(engine, MM_CLASS_PARAM, piece->offset), element(engine, MM_CLASS_GRAD, at),
        element(engine, MM_CLASS_STATE, at),
        element(engine, MM_CLASS_STATE, engine->graph->elements[MM_CLASS_GRAD] + at), piece->count,
        factors);
}

// Norm of all gradients; piece by piece in table order, whatever the threads.
static mm_status gradient_norm(mm_engine *engine, double *norm, mm_err *err)
{
    const int64_t start_ns = mm_mono_ns();
    mm_pool_run(engine->pool, engine->n_spans, squares_item, engine);
    mm_profile_add(engine->profile, "grad_norm", "update", false, mm_mono_ns() - start_ns, 0,
                   n_trained(engine) * (double)engine->backend->real_bytes);
    double sum = 0;
    for (int32_t i = 0; i < engine->n_spans; i++) {
        if (!isfinite(engine->span_squares[i])) {
            *norm = engine->span_squares[i];
            return MM_FAIL(err, MM_ENAN,
                           "gradient of %s is not finite; the weights are left as they were",
                           engine->table.tensors[engine->spans[i].tensor].name);
        }
        sum += engine->span_squares[i];
    }
    *norm = sqrt(sum);
    return MM_OK;
}

mm_status mm_engine_step(mm_engine *engine, const mm_adamw *adamw, double *grad_norm, mm_err *err)
{
    MM_ASSERT(engine->options.training && adamw->step >= 1);
    MM_TRY(gradient_norm(engine, grad_norm, err));
    double clip = 1;
    if (adamw->grad_clip > 0) clip = fmin(1.0, adamw->grad_clip / (*grad_norm + 1e-6));
    const double t = (double)adamw->step;
    adamw_job job = {.engine = engine,
                     .decayed = {.grad_scale = clip,
                                 .keep = 1.0 - adamw->learning_rate * adamw->weight_decay,
                                 .step_size = adamw->learning_rate / (1.0 - pow(adamw->beta1, t)),
                                 .beta1 = adamw->beta1,
                                 .beta2 = adamw->beta2,
                                 .root_correction = 1.0 / sqrt(1.0 - pow(adamw->beta2, t)),
                                 .eps = adamw->eps}};
    job.kept = job.decayed;
    if (!adamw->decay_all) job.kept.keep = 1.0;
    const int64_t start_ns = mm_mono_ns();
    mm_pool_run(engine->pool, engine->n_spans, adamw_item, &job);
    // Adapters are not packed: the copies of their base stay good.
    const bool is_packed = engine->is_packed && engine->table.first_trained > 0;
    mm_engine_reload(engine);
    engine->is_packed = is_packed;
    enum { READ_AND_WRITTEN = 8 }; // weight, gradient and two moments, each way
    mm_profile_add(engine->profile, "adamw", "update", false, mm_mono_ns() - start_ns, 0,
                   n_trained(engine) * READ_AND_WRITTEN * (double)engine->backend->real_bytes);
    return MM_OK;
}

void mm_engine_zero_grad(mm_engine *engine)
{
    MM_ASSERT(engine->options.training);
    memset(engine->blocks[MM_CLASS_GRAD], 0,
           (size_t)engine->graph->elements[MM_CLASS_GRAD] * engine->backend->real_bytes);
}

void *mm_engine_grads(mm_engine *engine) { return engine->blocks[MM_CLASS_GRAD]; }

void *mm_engine_moment1(mm_engine *engine) { return engine->blocks[MM_CLASS_STATE]; }

void *mm_engine_moment2(mm_engine *engine)
{
    return engine->options.training
               ? element(engine, MM_CLASS_STATE, engine->graph->elements[MM_CLASS_GRAD])
               : NULL;
}
