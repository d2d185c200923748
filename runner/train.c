/* The training loop, read top-down at the end of the file: open everything a run needs, walk its
 * steps, settle its status. One step is: take the micro-batches, forward and backward each,
 * optimizer, metrics; now and then an evaluation and a checkpoint.
 *
 * Loss and gradient are means over all labels of the step, however it is cut into micro-batches
 * (MiniMind takes the mean of the micro-batches' means, which weighs short ones more).
 *
 * The subtle rule: a checkpoint is handed to the saver only after the metrics up to its step are
 * committed, so that whatever a resumed run starts from, the points before it are there. */
#include "runner/train.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/nn/engine.h"
#include "core/nn/schedule.h"
#include "runner/environment.h"
#include "runner/load.h"
#include "runner/sample.h"
#include "runner/score.h"
#include "runner/signals.h"
#include "store/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLAIN_LINES = 20 };

// Where a run stands; everything a checkpoint has to remember besides the arrays.
typedef struct place {
    int64_t step; // finished optimizer steps
    mm_data_position data;
    uint64_t micro_step;
    int64_t tokens;
} place;

typedef struct series {
    int32_t loss;
    int32_t lr;
    int32_t grad_norm;
    int32_t tokens;
    int32_t tokens_per_s;
    int32_t step_ms;
    int32_t mem_bytes;
    int32_t val_loss;
    int32_t val_bpb;
    int32_t perplexity;
} series;

// Copies of the micro-batches of one step: all labels must be counted before the first backward.
typedef struct step_batches {
    int32_t count;
    int32_t capacity;
    mm_batch *batch;
    int32_t *ints; // tokens, labels, segments of every micro-batch
    size_t ints_each;
    int64_t n_labels;
} step_batches;

typedef struct session {
    const mm_context *context;
    mm_store *store;
    const mm_corpus *corpus;
    int64_t run_id;
    mm_arena arena;
    mm_run_info run;
    mm_config *config;
    const json_t *prompts; // array
    json_t *prompts_owned;
    mm_model *model;
    mm_engine *engine;
    mm_generator *generator;
    mm_batcher *train;
    mm_batcher *val;
    mm_claim *claim;
    mm_metrics *metrics;
    mm_saver *saver;
    mm_progress *progress;
    series series;
    mm_dtype dtype;
    const char *isa_before; // of the attempt before, NULL: there was none
    step_batches batches;
    place at;
    int64_t steps;
    mm_lr_schedule schedule;
    mm_adamw adamw;
    double last_loss;
    double last_val_loss;
    double seconds_per_step; // moving average
    double tokens_per_s;     // moving average
} session;

// ---- arrays of a checkpoint ------------------------------------------------------------------

enum { PARTS = 3 };
static const char *const PART_PREFIX[PARTS] = {"", "adam.m/", "adam.v/"};

static void *part_base(const session *s, int part)
{
    if (part == 1) return mm_engine_moment1(s->engine);
    if (part == 2) return mm_engine_moment2(s->engine);
    return mm_model_data(s->model, NULL);
}

// Names live in the arena; data points into model and engine.
static mm_status list_blobs(session *s, mm_arena *arena, mm_blob **out, size_t *count, mm_err *err)
{
    const mm_tensor *tensors = NULL;
    const int32_t n = mm_model_tensors(s->model, &tensors);
    mm_blob *blobs = mm_arena_alloc(arena, (size_t)n * PARTS * sizeof *blobs);
    if (!blobs) return MM_FAIL(err, MM_ENOMEM, "no memory to list the checkpoint");
    *out = blobs;
    *count = 0;
    for (int part = 0; part < PARTS; part++) {
        for (int32_t i = 0; i < n; i++) {
            char name[128];
            snprintf(name, sizeof name, "%s%s", PART_PREFIX[part], tensors[i].name);
            const char *kept = mm_arena_strdup(arena, name);
            if (!kept) return MM_FAIL(err, MM_ENOMEM, "no memory to list the checkpoint");
            const float *data = (const float *)part_base(s, part) + tensors[i].offset;
            blobs[(*count)++] = mm_blob_of(&tensors[i], kept, data);
        }
    }
    return MM_OK;
}

static mm_status save(session *s, double val_loss, mm_err *err)
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
                                          .n_blobs = n_blobs};
    MM_GO(mm_metrics_flush(s->metrics, err));
    MM_GO(mm_saver_submit(s->saver, &checkpoint, err));
done:
    mm_arena_drop(&arena);
    return status;
}

static mm_status read_state(const char *text, place *out, mm_err *err)
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
        *out = (place){.step = json_integer_value(step),
                       .data = {.epoch = json_integer_value(epoch),
                                .micro_batch = json_integer_value(micro_batch)},
                       .micro_step = (uint64_t)json_integer_value(micro_step),
                       .tokens = json_integer_value(tokens)};
    json_decref(state);
    return complete ? MM_OK
                    : MM_FAIL(err, MM_ECORRUPT, "state of the checkpoint is incomplete: %s", text);
}

static mm_status load_checkpoint(session *s, const mm_checkpoint_info *info, mm_err *err)
{
    mm_arena arena = {0};
    mm_status status = MM_OK;
    mm_blob *blobs = NULL;
    size_t n_blobs = 0;
    place at = {0};
    MM_GO(mm_load_verify(s->store, info->id, err));
    MM_GO(read_state(info->state ? info->state : "", &at, err));
    MM_GO(list_blobs(s, &arena, &blobs, &n_blobs, err));
    for (int part = 0; part < PARTS; part++) {
        for (size_t i = 0; i < n_blobs / PARTS; i++) {
            const mm_blob *blob = &blobs[(size_t)part * (n_blobs / PARTS) + i];
            const mm_tensor *tensors = NULL;
            mm_model_tensors(s->model, &tensors);
            float *into = (float *)part_base(s, part) + tensors[i].offset;
            MM_GO(mm_checkpoint_read(s->store, info->id, blob->name, into, blob->bytes, err));
        }
    }
    s->at = at;
done:
    mm_arena_drop(&arena);
    return status;
}

// Step 0: drawn weights, or those of the checkpoint the run starts from; moments zero.
static mm_status start_fresh(session *s, mm_err *err)
{
    int64_t elements = 0;
    mm_model_data(s->model, &elements);
    for (int part = 1; part < PARTS; part++)
        memset(part_base(s, part), 0, (size_t)elements * sizeof(float));
    s->at = (place){0};
    mm_model_init(s->model, s->run.seed);
    if (s->run.parent_id == 0) return MM_OK;
    const mm_run_ref ref = {
        .run_id = s->run.parent_id, .at = MM_AT_STEP, .step = s->run.parent_step, .has_at = true};
    mm_checkpoint_info info;
    MM_TRY(mm_store_resolve_checkpoint(s->store, &ref, &s->arena, &info, err));
    return mm_load_weights(s->model, s->store, &info, err);
}

// The newest checkpoint that verifies; a damaged one is reported and the one before it taken.
static mm_status restore(session *s, mm_err *err)
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

// ---- opening -----------------------------------------------------------------------------------

// Read before the claim opens an attempt of its own.
static mm_status read_isa(session *s, mm_err *err)
{
    mm_env *env = NULL;
    size_t n = 0;
    MM_TRY(mm_store_environment(s->store, s->run_id, &s->arena, &env, &n, err));
    for (size_t i = 0; i < n; i++)
        if (strcmp(env[i].key, "isa") == 0) s->isa_before = env[i].value;
    return MM_OK;
}

static mm_status open_record(session *s, mm_err *err)
{
    mm_param *params = NULL;
    size_t n = 0;
    MM_TRY(mm_store_run(s->store, s->run_id, &s->arena, &s->run, err));
    MM_TRY(mm_store_params(s->store, s->run_id, &s->arena, &params, &n, err));
    MM_TRY(mm_config_new(&s->config, s->run.stage, err));
    MM_TRY(mm_config_from_params(s->config, params, n, NULL, err));
    s->dtype = mm_config_dtype(s->config);
    MM_TRY(read_isa(s, err));
    const char *prompts = mm_param_find(params, n, "prompts");
    if (prompts)
        MM_TRY(
            mm_json_parse(prompts, strlen(prompts), "prompts of the run", &s->prompts_owned, err));
    s->prompts = s->prompts_owned;
    return mm_corpus_verify(s->corpus, s->store, s->run_id, err);
}

static mm_status open_engine(session *s, mm_err *err)
{
    mm_model_config shape;
    const int32_t seq_len = (int32_t)mm_config_int(s->config, "max_seq_len");
    const int32_t threads = (int32_t)mm_config_int(s->config, "threads");
    const mm_engine_options options = {
        .max_tokens = (int32_t)mm_config_int(s->config, "batch_size") * seq_len,
        .threads = threads,
        .training = true,
        .bf16 = s->dtype == MM_BF16,
        .seed = s->run.seed};
    MM_TRY(mm_config_model(s->config, mm_tokenizer_vocab(s->corpus->tokenizer), &shape, err));
    MM_TRY(mm_model_new(&s->model, &shape, MM_F32, err));
    MM_TRY(mm_engine_new(&s->engine, s->model, &options, err));
    const int64_t gen_tokens = mm_config_int(s->config, "gen_tokens");
    const size_t n_prompts = json_array_size(s->prompts);
    if (n_prompts > 0 && gen_tokens > 0)
        MM_TRY(mm_sample_generator(&s->generator, s->model, n_prompts,
                                   seq_len + (int32_t)gen_tokens, threads,
                                   mm_config_dtype(s->config), err));
    MM_TRY(mm_corpus_batchers(s->corpus, s->config, &s->train, &s->val, err));
    s->steps = mm_config_int(s->config, "steps");
    s->schedule = (mm_lr_schedule){.learning_rate = mm_config_real(s->config, "learning_rate"),
                                   .warmup_steps = mm_config_int(s->config, "warmup_steps"),
                                   .total_steps = s->steps};
    MM_TRY(mm_lr_kind_parse(mm_config_text(s->config, "lr_schedule"), &s->schedule.kind, err));
    s->adamw = mm_train_adamw(s->config);
    return MM_OK;
}

static mm_status open_batches(session *s, mm_err *err)
{
    const int64_t accum = mm_config_int(s->config, "accumulation_steps");
    const size_t tokens = (size_t)mm_config_int(s->config, "batch_size") *
                          (size_t)mm_config_int(s->config, "max_seq_len");
    s->batches.capacity = (int32_t)accum;
    s->batches.ints_each = 3 * tokens + 1;
    s->batches.batch = mm_calloc((size_t)accum, sizeof *s->batches.batch);
    s->batches.ints = mm_calloc((size_t)accum * s->batches.ints_each, sizeof *s->batches.ints);
    if (!s->batches.batch || !s->batches.ints)
        return MM_FAIL(err, MM_ENOMEM, "no memory for %" PRId64 " micro-batches of %zu tokens",
                       accum, tokens);
    return MM_OK;
}

static mm_status open_series(session *s, mm_err *err)
{
    const struct {
        const char *name;
        int32_t *handle;
    } all[] = {
        {"loss", &s->series.loss},
        {"lr", &s->series.lr},
        {"grad_norm", &s->series.grad_norm},
        {"tokens", &s->series.tokens},
        {"tokens_per_s", &s->series.tokens_per_s},
        {"step_ms", &s->series.step_ms},
        {"mem_bytes", &s->series.mem_bytes},
        {"val_loss", &s->series.val_loss},
        {"val_bpb", &s->series.val_bpb},
        {"perplexity", &s->series.perplexity},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        MM_TRY(mm_metrics_series(s->metrics, all[i].name, all[i].handle, err));
    return MM_OK;
}

typedef struct env_target {
    mm_store *store;
    int64_t run_id;
    mm_status status;
    mm_err *err;
} env_target;

static void record_env(void *context, const char *key, const char *value)
{
    env_target *to = context;
    if (to->status == MM_OK) to->status = mm_store_env(to->store, to->run_id, key, value, to->err);
}

// Other kernels add in another order: the run goes on well, but not bit for bit.
static mm_status note_other_kernels(session *s, mm_err *err)
{
    const char *isa = mm_engine_isa(s->dtype);
    if (!s->isa_before || strcmp(s->isa_before, isa) == 0) return MM_OK;
    char message[192];
    snprintf(message, sizeof message,
             "the attempt before ran on the %.32s kernels, this one runs on %.32s: the numbers may "
             "differ in their last bits",
             s->isa_before, isa);
    mm_warn(s->context, "%s: %s.", s->run.name, message);
    return mm_store_event(s->store, s->run_id, "warn", "isa", message, err);
}

static mm_status open_record_writers(session *s, mm_err *err)
{
    // A fresh run has nothing to rewind; anything else goes back to where its checkpoint stands.
    const bool is_resumed = strcmp(s->run.status, "queued") != 0;
    MM_TRY(mm_run_claim(&s->claim, s->store, s->run_id, is_resumed ? s->at.step : -1, err));
    MM_TRY(mm_metrics_open(&s->metrics, s->claim, err));
    MM_TRY(open_series(s, err));
    MM_TRY(mm_saver_open(&s->saver, mm_store_path(s->store),
                         (int32_t)mm_config_int(s->config, "keep_checkpoints"), err));
    env_target to = {.store = s->store, .run_id = s->run_id, .err = err};
    mm_environment(record_env, &to);
    char threads[16];
    snprintf(threads, sizeof threads, "%d", mm_engine_threads(s->engine));
    record_env(&to, "threads", threads);
    record_env(&to, "isa", mm_engine_isa(s->dtype));
    MM_TRY(to.status);
    MM_TRY(note_other_kernels(s, err));
    if (is_resumed)
        mm_say(s->context, "%s: resumed at step %" PRId64 " of %" PRId64 ".", s->run.name,
               s->at.step, s->steps);
    return mm_progress_new(&s->progress, s->context, s->run.name, err);
}

static mm_status session_open(session *s, mm_err *err)
{
    MM_TRY(open_record(s, err));
    MM_TRY(open_engine(s, err));
    MM_TRY(open_batches(s, err));
    MM_TRY(restore(s, err));
    mm_engine_reload(s->engine);
    return open_record_writers(s, err);
}

static void session_drop(session *s)
{
    mm_progress_end(s->progress);
    mm_claim_drop(s->claim);
    mm_free(s->batches.batch);
    mm_free(s->batches.ints);
    mm_generator_free(s->generator);
    mm_engine_free(s->engine);
    mm_model_free(s->model);
    mm_batcher_free(s->train);
    mm_batcher_free(s->val);
    mm_config_free(s->config);
    json_decref(s->prompts_owned);
    mm_arena_drop(&s->arena);
}

// ---- evaluation
// ----------------------------------------------------------------------------------

static mm_status answer_prompts(session *s, mm_err *err)
{
    if (!s->generator) return MM_OK;
    mm_sampling sampling = mm_sampling_default();
    sampling.max_new_tokens = (int32_t)mm_config_int(s->config, "gen_tokens");
    sampling.seed = s->run.seed;
    const int32_t room = (int32_t)mm_config_int(s->config, "max_seq_len") + sampling.max_new_tokens;
    const size_t n = json_array_size(s->prompts);
    mm_sample *samples = mm_calloc(n, sizeof *samples);
    if (!samples) return MM_FAIL(err, MM_ENOMEM, "no memory for %zu prompts", n);
    mm_status status = MM_OK;
    for (size_t i = 0; i < n; i++) {
        const char *prompt = json_string_value(json_array_get(s->prompts, i));
        samples[i].prompt = prompt ? prompt : "";
    }
    mm_generator_reload(s->generator);
    MM_GO(mm_sample_texts(s->generator, room, s->corpus->tokenizer,
                          mm_sample_style_of(s->run.stage), samples, n, &sampling, err));
    for (size_t i = 0; i < n; i++)
        MM_GO(mm_sample_record(s->store, s->run_id, s->at.step, (int32_t)i, samples[i].prompt,
                               &samples[i].text, &sampling, &samples[i].generation, err));
done:
    for (size_t i = 0; i < n; i++)
        mm_str_drop(&samples[i].text);
    mm_free(samples);
    return status;
}

static mm_status evaluate(session *s, mm_err *err)
{
    mm_score score;
    MM_TRY(answer_prompts(s, err));
    if (!s->val) return MM_OK;
    MM_TRY(mm_score_batches(s->engine, s->val, s->corpus->tokenizer, NULL, &score, err));
    mm_metric_log(s->metrics, s->series.val_loss, s->at.step, score.loss);
    mm_metric_log(s->metrics, s->series.val_bpb, s->at.step, score.bits_per_byte);
    mm_metric_log(s->metrics, s->series.perplexity, s->at.step, score.perplexity);
    s->last_val_loss = score.loss;
    mm_progress_line(s->progress,
                     "%s step %" PRId64 ": val_loss %.4f, %.3f bits per byte, perplexity %.*g",
                     s->run.name, s->at.step, score.loss, score.bits_per_byte,
                     score.perplexity < 1e4 ? 6 : 3, score.perplexity);
    return MM_OK;
}

// ---- one step
// ------------------------------------------------------------------------------------

// Steps end with the epoch: its rest is a step of fewer micro-batches.
static mm_status take_batches(session *s, mm_err *err)
{
    step_batches *b = &s->batches;
    b->count = 0;
    b->n_labels = 0;
    const int64_t epoch = s->at.data.epoch;
    while (b->count < b->capacity && s->at.data.epoch == epoch) {
        const mm_batch *batch = NULL;
        MM_TRY(mm_batcher_get(s->train, &s->at.data, &batch, err));
        int32_t *ints = b->ints + (size_t)b->count * b->ints_each;
        const size_t n = (size_t)batch->n_tokens;
        MM_ASSERT(2 * n + (size_t)batch->n_segments + 1 <= b->ints_each);
        memcpy(ints, batch->tokens, n * sizeof *ints);
        memcpy(ints + n, batch->labels, n * sizeof *ints);
        memcpy(ints + 2 * n, batch->segments, ((size_t)batch->n_segments + 1) * sizeof *ints);
        mm_batch *copy = &b->batch[b->count++];
        *copy = *batch;
        copy->tokens = ints;
        copy->labels = ints + n;
        copy->segments = ints + 2 * n;
        b->n_labels += batch->n_labels;
    }
    return MM_OK;
}

static void show(session *s, double lr, double grad_norm, bool is_log_step)
{
    const int64_t left = s->steps - s->at.step;
    const int64_t every = s->steps > PLAIN_LINES ? s->steps / PLAIN_LINES : 1;
    const mm_progress_train now = {.step = s->at.step,
                                   .total = s->steps,
                                   .loss = s->last_loss,
                                   .val_loss = s->last_val_loss,
                                   .lr = lr,
                                   .grad_norm = grad_norm,
                                   .tokens_per_s = s->tokens_per_s,
                                   .tokens = s->at.tokens,
                                   .mem_bytes = mm_memory_used(),
                                   .eta_s = (double)left * s->seconds_per_step};
    const bool is_line = s->at.step % every == 0 || s->at.step == 1 || left == 0;
    mm_progress_step(s->progress, &now, is_log_step && is_line);
}

static void log_step(session *s, double lr, double grad_norm, double seconds, int64_t tokens)
{
    const series *id = &s->series;
    const int64_t step = s->at.step;
    mm_metric_log(s->metrics, id->loss, step, s->last_loss);
    mm_metric_log(s->metrics, id->lr, step, lr);
    mm_metric_log(s->metrics, id->grad_norm, step, grad_norm);
    mm_metric_log(s->metrics, id->tokens, step, (double)s->at.tokens);
    mm_metric_log(s->metrics, id->tokens_per_s, step, (double)tokens / seconds);
    mm_metric_log(s->metrics, id->step_ms, step, seconds * 1e3);
    mm_metric_log(s->metrics, id->mem_bytes, step, (double)mm_memory_used());
}

static mm_status train_step(session *s, mm_err *err)
{
    const int64_t start = mm_mono_ns();
    double sum = 0;
    double grad_norm = (double)NAN;
    MM_TRY(take_batches(s, err));
    const int64_t labels = s->batches.n_labels;
    s->at.step++;
    s->adamw.step = s->at.step;
    s->adamw.learning_rate = mm_lr_at(&s->schedule, s->at.step);
    for (int32_t i = 0; labels > 0 && i < s->batches.count; i++) {
        mm_loss loss;
        MM_TRY(mm_engine_backward(s->engine, &s->batches.batch[i], 1.0 / (double)labels,
                                  s->at.micro_step++, &loss, err));
        sum += loss.sum;
    }
    s->at.tokens += labels;
    s->last_loss = labels > 0 ? sum / (double)labels : (double)NAN;
    mm_status status = MM_OK;
    if (!isfinite(s->last_loss))
        status = MM_FAIL(err, MM_ENAN, "step %" PRId64 ": the loss is not finite (%s)", s->at.step,
                         isnan(s->last_loss) ? "nan" : "inf");
    else
        status = mm_engine_step(s->engine, &s->adamw, &grad_norm, err);
    const double seconds = (double)(mm_mono_ns() - start) / 1e9;
    const double weight = s->seconds_per_step > 0 ? 0.1 : 1.0;
    s->seconds_per_step += weight * (seconds - s->seconds_per_step);
    s->tokens_per_s += weight * ((double)labels / seconds - s->tokens_per_s);
    const bool is_log_step = s->at.step % mm_config_int(s->config, "log_interval") == 0 ||
                             s->at.step == s->steps || status != MM_OK;
    if (is_log_step) log_step(s, s->adamw.learning_rate, grad_norm, seconds, labels);
    show(s, s->adamw.learning_rate, grad_norm, is_log_step);
    return status;
}

static bool is_due(const session *s, const char *interval)
{
    const int64_t every = mm_config_int(s->config, interval);
    return s->at.step == s->steps || (every > 0 && s->at.step % every == 0);
}

static mm_status train_steps(session *s, mm_err *err)
{
    while (s->at.step < s->steps) {
        double val_loss = (double)NAN;
        MM_TRY(train_step(s, err));
        if (is_due(s, "eval_interval")) {
            MM_TRY(evaluate(s, err));
            val_loss = s->last_val_loss;
        }
        const bool is_stopped = mm_signals_stop() != 0 && s->at.step < s->steps;
        if (is_stopped || is_due(s, "save_interval")) MM_TRY(save(s, val_loss, err));
        MM_TRY(mm_metrics_status(s->metrics, err));
        if (!is_stopped) continue;
        MM_TRY(mm_saver_wait(s->saver, err));
        return MM_FAIL(err, MM_ECANCELED, "stopped by signal %d after step %" PRId64,
                       mm_signals_stop(), s->at.step);
    }
    return mm_saver_wait(s->saver, err);
}

// ---- settling
// --------------------------------------------------------------------------------------

// The first failure is the one that is told.
static mm_status first_of(mm_status status, mm_status late, const mm_err *why, mm_err *err)
{
    if (status != MM_OK || late == MM_OK) return status;
    if (err) *err = *why;
    return late;
}

static void tell_cost(const session *s)
{
    double stall = 0;
    double writing = 0;
    int64_t bytes = 0;
    mm_saver_stats(s->saver, &stall, &writing, &bytes);
    if (bytes > 0)
        mm_say(s->context,
               "Checkpoints: %.1f MB written in %.1f s beside the training, which waited %.2f s.",
               (double)bytes / 1e6, writing, stall);
}

// Closes the writers and writes the final status.
static mm_status settle(session *s, mm_status status, mm_err *err)
{
    mm_err why = {0};
    mm_progress_end(s->progress);
    s->progress = NULL;
    if (s->saver && status == MM_OK) tell_cost(s);
    status = first_of(status, mm_saver_close(s->saver, &why), &why, err);
    status = first_of(status, mm_metrics_close(s->metrics, &why), &why, err);
    s->saver = NULL;
    s->metrics = NULL;
    if (!s->claim) return status;
    const char *reason = status == MM_OK || status == MM_ECANCELED || !err ? NULL : err->message;
    if (status == MM_ENAN && reason)
        status = first_of(status, mm_store_event(s->store, s->run_id, "error", "nan", reason, &why),
                          &why, err);
    const char *end = status == MM_OK ? "finished" : status == MM_ECANCELED ? "stopped" : "failed";
    status = first_of(status, mm_run_end(s->claim, end, reason, &why), &why, err);
    s->claim = NULL;
    return status;
}

mm_status mm_train_run(const mm_context *context, mm_store *store, const mm_corpus *corpus,
                       int64_t run_id, mm_err *err)
{
    session s = {.context = context,
                 .store = store,
                 .corpus = corpus,
                 .run_id = run_id,
                 .last_loss = (double)NAN,
                 .last_val_loss = (double)NAN};
    mm_signals_install();
    mm_status status = session_open(&s, err);
    if (status == MM_OK) status = train_steps(&s, err);
    status = settle(&s, status, err);
    session_drop(&s);
    return status;
}
