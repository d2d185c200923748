/* The state of a run: arrays and place into checkpoints and back.
 *
 * The subtle rules: a checkpoint is handed to the saver only after the metrics up to its step are
 * committed, so that whatever a resumed run starts from, the points before it are there. And the
 * frozen base below adapters is never written again: each checkpoint names the arrays of the one
 * that the run started from. */
#include "core/base/json.h"
#include "runner/load.h"
#include "runner/train.h"
#include "runner/train_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

// Weights, then the moments of those that train.
enum { PARTS = 3 };
static const char *const PART_PREFIX[PARTS] = {"", "adam.m/", "adam.v/"};

// Where a tensor's values of a part are; NULL: it has none.
static float *part_of(const mm_session *s, int part, const mm_tensor *tensor)
{
    if (part == 0) return tensor->data;
    if (!tensor->trains) return NULL;
    float *moment = part == 1 ? mm_engine_moment1(s->engine) : mm_engine_moment2(s->engine);
    return moment + (tensor->offset - mm_model_first_trained(s->model));
}

// Names live in the arena; data points into model and engine.
static mm_status list_blobs(const mm_session *s, mm_arena *arena, mm_blob **out, size_t *count,
                            mm_err *err)
{
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(s->model, &tensors);
    mm_blob *blobs = mm_arena_alloc(arena, (size_t)n * PARTS * sizeof *blobs);
    if (!blobs) return MM_FAIL(err, MM_ENOMEM, "no memory to list the checkpoint");
    *out = blobs;
    *count = 0;
    for (int part = 0; part < PARTS; part++) {
        for (int32_t i = 0; i < n; i++) {
            const float *data = part_of(s, part, &tensors[i]);
            if (!data) continue;
            char name[128];
            snprintf(name, sizeof name, "%s%s", PART_PREFIX[part], tensors[i].name);
            const char *kept = mm_arena_strdup(arena, name);
            if (!kept) return MM_FAIL(err, MM_ENOMEM, "no memory to list the checkpoint");
            mm_blob *blob = &blobs[(*count)++];
            *blob = mm_blob_of(&tensors[i], kept, data);
            blob->is_frozen = !tensors[i].trains;
        }
    }
    return MM_OK;
}

mm_status mm_session_save(mm_session *s, double val_loss, mm_err *err)
{
    mm_arena arena = {0};
    mm_status status = MM_OK;
    mm_blob *blobs = NULL;
    size_t n_blobs = 0;
    char state[256];
    snprintf(state, sizeof state,
             "{\"step\":%" PRId64 ",\"epoch\":%" PRId64 ",\"micro_batch\":%" PRId64
             ",\"micro_step\":%" PRIu64 ",\"tokens\":%" PRId64 "}",
             s->at.step, s->at.data.epoch, s->at.data.micro_batch, s->at.micro_step, s->at.tokens);
    MM_GO(list_blobs(s, &arena, &blobs, &n_blobs, err));
    const mm_checkpoint_new checkpoint = {.run_id = s->run_id,
                                          .step = s->at.step,
                                          .kind = "full",
                                          .state = state,
                                          .val_loss = val_loss,
                                          .is_final = s->at.step == s->steps,
                                          .blobs = blobs,
                                          .n_blobs = n_blobs,
                                          .base_id = s->base_id};
    MM_GO(mm_metrics_flush(s->metrics, err));
    MM_GO(mm_saver_submit(s->saver, &checkpoint, err));
done:
    mm_arena_drop(&arena);
    return status;
}

static mm_status read_place(const char *text, mm_place *out, mm_err *err)
{
    json_t *state = NULL;
    MM_TRY(mm_json_parse(text, strlen(text), "state of the checkpoint", &state, err));
    const json_t *step = json_object_get(state, "step");
    const json_t *epoch = json_object_get(state, "epoch");
    const json_t *micro_batch = json_object_get(state, "micro_batch");
    const json_t *micro_step = json_object_get(state, "micro_step");
    const json_t *tokens = json_object_get(state, "tokens");
    const bool complete = json_is_integer(step) && json_is_integer(epoch) &&
                          json_is_integer(micro_batch) && json_is_integer(micro_step) &&
                          json_is_integer(tokens);
    if (complete)
        *out = (mm_place){.step = json_integer_value(step),
                          .data = {.epoch = json_integer_value(epoch),
                                   .micro_batch = json_integer_value(micro_batch)},
                          .micro_step = (uint64_t)json_integer_value(micro_step),
                          .tokens = json_integer_value(tokens)};
    json_decref(state);
    return complete ? MM_OK
                    : MM_FAIL(err, MM_ECORRUPT, "state of the checkpoint is incomplete: %s", text);
}

static mm_status load_checkpoint(mm_session *s, const mm_checkpoint_info *info, mm_err *err)
{
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(s->model, &tensors);
    mm_place at = {0};
    MM_TRY(read_place(info->state ? info->state : "", &at, err));
    MM_TRY(mm_load_weights(s->model, s->store, info, err));
    for (int part = 1; part < PARTS; part++) {
        for (int32_t i = 0; i < n; i++) {
            float *into = part_of(s, part, &tensors[i]);
            if (!into) continue;
            char name[128];
            snprintf(name, sizeof name, "%s%s", PART_PREFIX[part], tensors[i].name);
            MM_TRY(mm_checkpoint_read(s->store, info->id, name, into,
                                      (size_t)tensors[i].count * sizeof(float), err));
        }
    }
    s->at = at;
    s->restored = *info;
    return MM_OK;
}

// The checkpoint the run starts from; id 0: it starts from drawn weights.
static mm_status find_start(mm_session *s, mm_checkpoint_info *out, mm_err *err)
{
    *out = (mm_checkpoint_info){0};
    if (s->run.parent_step < 0) return MM_OK;
    // The record keeps the step when the run it belongs to is removed.
    if (s->run.parent_id == 0) return MM_FAIL(err, MM_ENOTFOUND, "the run it started from is gone");
    const mm_run_ref ref = {
        .run_id = s->run.parent_id, .at = MM_AT_STEP, .step = s->run.parent_step, .has_at = true};
    return mm_store_resolve_checkpoint(s->store, &ref, &s->arena, out, err);
}

// Weights as they are before the first step: drawn, or the parent's; adapters begin at nothing.
static mm_status load_start(mm_session *s, mm_err *err)
{
    mm_checkpoint_info start;
    MM_TRY(find_start(s, &start, err));
    mm_model_init(s->model, s->run.seed);
    if (start.id == 0) return MM_OK;
    return mm_load_weights(s->model, s->store, &start, err);
}

static mm_status start_fresh(mm_session *s, mm_err *err)
{
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(s->model, &tensors);
    for (int part = 1; part < PARTS; part++) {
        for (int32_t i = 0; i < n; i++) {
            float *into = part_of(s, part, &tensors[i]);
            if (into) memset(into, 0, (size_t)tensors[i].count * sizeof(float));
        }
    }
    s->at = (mm_place){0};
    s->restored = (mm_checkpoint_info){0};
    return load_start(s, err);
}

// The newest checkpoint that verifies; a damaged one is reported and the one before it taken.
static mm_status restore_newest(mm_session *s, mm_err *err)
{
    mm_checkpoint_info *list = NULL;
    size_t n = 0;
    MM_TRY(mm_checkpoint_list(s->store, s->run_id, &s->arena, &list, &n, err));
    while (n > 0) {
        const mm_checkpoint_info *info = &list[--n];
        if (strcmp(info->kind, "full") != 0) continue;
        mm_err why = {0};
        const mm_status status = load_checkpoint(s, info, &why);
        if (status == MM_OK) return MM_OK;
        // Whatever is wrong with the data of this one, the one before may be whole.
        if (status != MM_ECORRUPT && status != MM_EFORMAT && status != MM_ENOTFOUND) {
            if (err) *err = why;
            return status;
        }
        mm_warn(s->context,
                "Checkpoint of step %" PRId64 " is damaged (%s); trying the one before.",
                info->step, why.message);
        MM_TRY(mm_store_event(s->store, s->run_id, "warn", "corrupt", why.message, err));
    }
    return start_fresh(s, err);
}

mm_status mm_session_restore(mm_session *s, mm_err *err)
{
    mm_err why = {0};
    mm_checkpoint_info start = {0};
    MM_TRY(restore_newest(s, err));
    const bool has_start = find_start(s, &start, &why) == MM_OK;
    // Said before the run is claimed: it stays as it is.
    if (!has_start && s->needs_start && s->at.step < s->steps)
        return MM_FAIL(err, MM_ENOTFOUND,
                       "%s needs the weights the run started from: %.512s\n"
                       "`mmrun %s --from %s …` begins another run where this one is",
                       s->run.stage, why.message, s->run.stage,
                       mm_shell_text(&s->arena, s->run.name));
    if (mm_model_first_trained(s->model) == 0) return MM_OK;
    // Where the parent is gone, the run's own checkpoint has the same base.
    s->base_id = has_start && start.id ? start.id : s->restored.id;
    return MM_OK;
}

mm_status mm_session_prepare(mm_session *s, mm_err *err)
{
    if (!s->needs_start || s->at.step >= s->steps) return MM_OK;
    // What was started afresh has these weights already.
    if (s->restored.id == 0) return s->objective->prepare(s, err);
    MM_TRY(load_start(s, err));
    mm_engine_reload(s->engine);
    MM_TRY(s->objective->prepare(s, err));
    MM_TRY(mm_load_weights(s->model, s->store, &s->restored, err));
    mm_engine_reload(s->engine);
    return MM_OK;
}
