/* The training loop, read top-down at the end of the file: open everything a run needs, walk its
 * steps, settle its status. One step is: count what its micro-batches hold, let the objective add
 * their gradients, optimizer, metrics; now and then an evaluation and a checkpoint.
 *
 * Loss and gradient are means over all labels (or pairs) of the step, however it is cut into
 * micro-batches. MiniMind takes the mean of the micro-batches' means, which weighs short ones more;
 * `--compat minimind` does so too, where the micro-batches are its own (padded rows). */
#include "runner/train.h"

#include "core/base/clock.h"
#include "core/base/json.h"
#include "runner/environment.h"
#include "runner/load.h"
#include "runner/sample.h"
#include "runner/signals.h"
#include "runner/train_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLAIN_LINES = 20 };

// ---- opening -----------------------------------------------------------------------------------

// Read before the claim opens an attempt of its own.
static mm_status read_isa(mm_session *s, mm_err *err)
{
    mm_env *env = NULL;
    size_t n = 0;
    MM_TRY(mm_store_environment(s->store, s->run_id, &s->arena, &env, &n, err));
    for (size_t i = 0; i < n; i++)
        if (strcmp(env[i].key, "isa") == 0) s->isa_before = env[i].value;
    return MM_OK;
}

static mm_status open_record(mm_session *s, mm_err *err)
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
        MM_TRY(mm_json_parse(prompts, strlen(prompts), "prompts of the run", &s->prompts, err));
    s->teacher = mm_param_find(params, n, "teacher");
    s->objective = mm_objective_of(s->run.stage);
    return mm_corpus_verify(s->corpus, s->store, s->run_id, err);
}

// MiniMind sets the rate of every micro-batch, so that a step has that of its last one.
static mm_status count_micro_batches(mm_session *s, int64_t *total, mm_err *err)
{
    const int64_t accum = mm_config_int(s->config, "accumulation_steps");
    int64_t batches = 0;
    int64_t steps = 0;
    MM_TRY(mm_batcher_epoch_batches(s->train, 0, &batches, err));
    MM_TRY(mm_batcher_epoch_steps(s->train, 0, &steps, err));
    const int64_t rest = s->steps % steps * accum;
    *total = s->steps / steps * batches + (rest < batches ? rest : batches);
    return MM_OK;
}

static mm_status open_schedule(mm_session *s, mm_err *err)
{
    s->steps = mm_config_int(s->config, "steps");
    s->schedule = (mm_lr_schedule){.learning_rate = mm_config_real(s->config, "learning_rate"),
                                   .warmup_steps = mm_config_int(s->config, "warmup_steps"),
                                   .total_steps = s->steps};
    MM_TRY(mm_lr_kind_parse(mm_config_text(s->config, "lr_schedule"), &s->schedule.kind, err));
    s->adamw = mm_train_adamw(s->config);
    s->is_padded = !s->objective->is_of_pairs && !mm_config_bool(s->config, "pack");
    s->is_mean_of_means =
        s->is_padded && strcmp(mm_config_text(s->config, "compat"), "minimind") == 0;
    if (!s->is_mean_of_means) return MM_OK;
    s->schedule.warmup_steps *= mm_config_int(s->config, "accumulation_steps");
    return count_micro_batches(s, &s->schedule.total_steps, err);
}

static mm_status open_engine(mm_session *s, mm_err *err)
{
    mm_model_config shape;
    MM_TRY(mm_corpus_batchers(s->corpus, s->config, &s->train, &s->val, err));
    const mm_engine_options options = mm_train_engine(s->config, s->train, s->val, true);
    MM_TRY(mm_config_model(s->config, mm_tokenizer_vocab(s->corpus->tokenizer), &shape, err));
    MM_TRY(mm_model_new(&s->model, &shape, MM_F32, err));
    MM_TRY(mm_engine_new(&s->engine, s->model, &options, err));
    const int64_t gen_tokens = mm_config_int(s->config, "gen_tokens");
    const int64_t room = mm_config_int(s->config, "max_seq_len") + gen_tokens;
    const size_t n_prompts = json_array_size(s->prompts);
    if (n_prompts > 0 && gen_tokens > 0)
        MM_TRY(mm_sample_generator(&s->generator, s->model, n_prompts, (int32_t)room,
                                   options.threads, s->dtype, err));
    return s->objective->open ? s->objective->open(s, err) : MM_OK;
}

static mm_status open_series(mm_session *s, mm_err *err)
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
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        MM_TRY(mm_metrics_series(s->metrics, all[i].name, all[i].handle, err));
    for (size_t i = 0; s->objective->series[i]; i++)
        MM_TRY(mm_metrics_series(s->metrics, s->objective->series[i], &s->series.of_objective[i],
                                 err));
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
static mm_status note_other_kernels(mm_session *s, mm_err *err)
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

static mm_status open_record_writers(mm_session *s, mm_err *err)
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

static mm_status session_open(mm_session *s, mm_err *err)
{
    MM_TRY(open_record(s, err));
    MM_TRY(open_engine(s, err));
    MM_TRY(open_schedule(s, err));
    MM_TRY(mm_session_restore(s, err));
    mm_engine_reload(s->engine);
    MM_TRY(open_record_writers(s, err));
    return mm_session_prepare(s, err);
}

static void session_drop(mm_session *s)
{
    mm_progress_end(s->progress);
    mm_claim_drop(s->claim);
    if (s->objective && s->objective->close) s->objective->close(s);
    mm_generator_free(s->generator);
    mm_engine_free(s->engine);
    mm_model_free(s->model);
    mm_batcher_free(s->train);
    mm_batcher_free(s->val);
    mm_config_free(s->config);
    json_decref(s->prompts);
    mm_arena_drop(&s->arena);
}

// ---- one step
// ------------------------------------------------------------------------------------

// A step before it is learned from, and what became of it.
typedef struct step {
    mm_data_position end; // where the next step begins
    int64_t batches;
    int64_t items; // labels or pairs, whatever the loss is a mean over
    int64_t labels;
    int64_t tokens;                     // without pads
    double values[MM_OBJECTIVE_VALUES]; // means: the loss, then what the objective logs
    double grad_norm;
} step;

static int64_t items_of(const mm_session *s, const mm_batch *batch)
{
    return s->objective->is_of_pairs ? batch->n_segments / 2 : batch->n_labels;
}

static int64_t count_tokens(const mm_session *s, const mm_batch *batch)
{
    if (!s->is_padded) return batch->n_tokens;
    const int32_t pad = mm_tokenizer_pad(s->corpus->tokenizer);
    int64_t n = 0;
    for (int32_t t = 0; t < batch->n_tokens; t++)
        n += batch->tokens[t] != (pad >= 0 ? pad : 0);
    return n;
}

// All labels of a step must be known before the first backward. Batches are functions of their
// position, so they are made twice rather than kept.
static mm_status count_step(mm_session *s, step *out, mm_err *err)
{
    const mm_batch *batch = NULL;
    *out = (step){.end = s->at.data, .grad_norm = (double)NAN};
    do {
        MM_TRY(mm_batcher_get(s->train, &out->end, &batch, err));
        out->batches++;
        out->items += items_of(s, batch);
        out->labels += batch->n_labels;
        out->tokens += count_tokens(s, batch);
    } while (!batch->ends_step);
    return MM_OK;
}

// Gradients and means of a step's micro-batches.
static mm_status learn(mm_session *s, step *now, mm_err *err)
{
    const double accum = (double)mm_config_int(s->config, "accumulation_steps");
    for (int64_t i = 0; i < now->batches; i++) {
        const mm_batch *batch = NULL;
        double sums[MM_OBJECTIVE_VALUES] = {0};
        MM_TRY(mm_batcher_get(s->train, &s->at.data, &batch, err));
        const double n = (double)items_of(s, batch);
        // MiniMind divides the rest at the end of an epoch by the full accumulation too.
        const double scale = 1 / (s->is_mean_of_means ? accum * n : (double)now->items);
        if (n > 0) MM_TRY(s->objective->backward(s, batch, scale, sums, err));
        for (size_t v = 0; v < MM_OBJECTIVE_VALUES && n > 0; v++)
            now->values[v] += s->is_mean_of_means ? sums[v] / n : sums[v];
        s->at.micro_step++;
    }
    const double count = (double)(s->is_mean_of_means ? now->batches : now->items);
    for (size_t v = 0; v < MM_OBJECTIVE_VALUES; v++)
        now->values[v] /= count;
    return MM_OK;
}

// Nothing to learn: the step passes without an update.
static mm_status pass_over(mm_session *s, const step *now, mm_err *err)
{
    s->at.data = now->end;
    s->at.micro_step += (uint64_t)now->batches;
    if (s->has_told_empty_step) return MM_OK;
    s->has_told_empty_step = true;
    char message[128];
    snprintf(message, sizeof message,
             "step %" PRId64 " has no label to learn from: its weights stay as they were",
             s->at.step);
    mm_warn(s->context, "%s: %s.", s->run.name, message);
    return mm_store_event(s->store, s->run_id, "warn", "no_labels", message, err);
}

static void show(mm_session *s, const step *now, bool is_log_step)
{
    const int64_t left = s->steps - s->at.step;
    const int64_t every = s->steps > PLAIN_LINES ? s->steps / PLAIN_LINES : 1;
    const mm_progress_train line = {.step = s->at.step,
                                    .total = s->steps,
                                    .loss = s->last_loss,
                                    .val_loss = s->last_val_loss,
                                    .lr = s->adamw.learning_rate,
                                    .grad_norm = now->grad_norm,
                                    .tokens_per_s = s->tokens_per_s,
                                    .tokens = s->at.tokens,
                                    .mem_bytes = mm_memory_used(),
                                    .eta_s = (double)left * s->seconds_per_step};
    const bool is_line = s->at.step % every == 0 || s->at.step == 1 || left == 0;
    mm_progress_step(s->progress, &line, is_log_step && is_line);
}

static void log_step(mm_session *s, const step *now, double seconds)
{
    const mm_series_ids *id = &s->series;
    const int64_t at = s->at.step;
    if (now->items > 0) {
        mm_metric_log(s->metrics, id->loss, at, now->values[0]);
        for (size_t i = 0; s->objective->series[i]; i++)
            mm_metric_log(s->metrics, id->of_objective[i], at, now->values[i + 1]);
        mm_metric_log(s->metrics, id->grad_norm, at, now->grad_norm);
    }
    mm_metric_log(s->metrics, id->lr, at, s->adamw.learning_rate);
    mm_metric_log(s->metrics, id->tokens, at, (double)s->at.tokens);
    mm_metric_log(s->metrics, id->tokens_per_s, at, (double)now->tokens / seconds);
    mm_metric_log(s->metrics, id->step_ms, at, seconds * 1e3);
    mm_metric_log(s->metrics, id->mem_bytes, at, (double)mm_memory_used());
}

static mm_status update(mm_session *s, step *now, mm_err *err)
{
    s->last_loss = now->values[0];
    if (isfinite(s->last_loss)) return mm_engine_step(s->engine, &s->adamw, &now->grad_norm, err);
    return MM_FAIL(err, MM_ENAN, "step %" PRId64 ": the loss is not finite (%s)", s->at.step,
                   isnan(s->last_loss) ? "nan" : "inf");
}

static mm_status train_step(mm_session *s, mm_err *err)
{
    const int64_t start = mm_mono_ns();
    mm_status status = MM_OK;
    step now;
    MM_TRY(count_step(s, &now, err));
    s->at.step++;
    s->adamw.step = s->at.step;
    if (now.items > 0)
        MM_TRY(learn(s, &now, err));
    else
        MM_TRY(pass_over(s, &now, err));
    s->at.tokens += now.labels;
    s->adamw.learning_rate =
        mm_lr_at(&s->schedule, s->is_mean_of_means ? (int64_t)s->at.micro_step : s->at.step);
    if (now.items > 0) status = update(s, &now, err);
    const double seconds = (double)(mm_mono_ns() - start) / 1e9;
    const double weight = s->seconds_per_step > 0 ? 0.1 : 1.0;
    s->seconds_per_step += weight * (seconds - s->seconds_per_step);
    s->tokens_per_s += weight * ((double)now.tokens / seconds - s->tokens_per_s);
    const bool is_log_step = s->at.step % mm_config_int(s->config, "log_interval") == 0 ||
                             s->at.step == s->steps || status != MM_OK;
    if (is_log_step) log_step(s, &now, seconds);
    show(s, &now, is_log_step);
    return status;
}

static bool is_due(const mm_session *s, const char *interval)
{
    const int64_t every = mm_config_int(s->config, interval);
    return s->at.step == s->steps || (every > 0 && s->at.step % every == 0);
}

static mm_status train_steps(mm_session *s, mm_err *err)
{
    while (s->at.step < s->steps) {
        double val_loss = (double)NAN;
        MM_TRY(train_step(s, err));
        if (is_due(s, "eval_interval")) {
            MM_TRY(mm_session_evaluate(s, err));
            val_loss = s->last_val_loss;
        }
        const bool is_stopped = mm_signals_stop() != 0 && s->at.step < s->steps;
        if (is_stopped || is_due(s, "save_interval")) MM_TRY(mm_session_save(s, val_loss, err));
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

static void tell_cost(const mm_session *s)
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
static mm_status settle(mm_session *s, mm_status status, mm_err *err)
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
    mm_session s = {.context = context,
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
