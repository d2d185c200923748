/* What a run will be, before it starts: number of steps, cost, and its record in the database. */
#include "runner/train.h"

#include "core/base/file.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "core/nn/engine.h"
#include "runner/environment.h"
#include "runner/load.h"

#include <math.h>
#include <string.h>

enum { EVALUATIONS = 10, PROMPTS = 3, PROMPT_TOKENS = 10, PROBE_MS = 40 };

// Share of the measured multiply-add peak that a whole step reaches; only the estimate uses it. The
// faster the products, the larger the part of everything else: with matrix tiles memory decides.
static const double EXPECTED_SHARE = 0.6;
static const double EXPECTED_SHARE_TILES = 0.3;

static mm_status steps_by_epochs(mm_batcher *train, const mm_config *config, int64_t *steps,
                                 mm_err *err)
{
    const int64_t accum = mm_config_int(config, "accumulation_steps");
    const int64_t epochs = mm_config_int(config, "epochs");
    *steps = 0;
    for (int64_t epoch = 0; epoch < epochs; epoch++) {
        int64_t batches = 0;
        MM_TRY(mm_batcher_epoch_batches(train, epoch, &batches, err));
        // The rest at the end of an epoch is a step too.
        *steps += (batches + accum - 1) / accum;
    }
    return MM_OK;
}

// Steps are not full everywhere (padding, ends of epochs): the average of an epoch decides.
static mm_status steps_by_tokens(mm_batcher *train, const mm_config *config, mm_train_plan *plan,
                                 mm_err *err)
{
    const int64_t accum = mm_config_int(config, "accumulation_steps");
    const double labels = (double)mm_batcher_labels(train);
    int64_t batches = 0;
    MM_TRY(mm_batcher_epoch_batches(train, 0, &batches, err));
    if (labels < 1) return MM_FAIL(err, MM_EFORMAT, "no token to learn: every row is empty");
    const int64_t per_epoch = (batches + accum - 1) / accum;
    plan->tokens = mm_config_int(config, "tokens");
    plan->steps = (int64_t)ceil((double)plan->tokens / labels * (double)per_epoch);
    return MM_OK;
}

static mm_status decide_steps(mm_batcher *train, mm_config *config, mm_train_plan *plan,
                              mm_err *err)
{
    const int64_t per_step = mm_config_int(config, "batch_size") *
                             mm_config_int(config, "max_seq_len") *
                             mm_config_int(config, "accumulation_steps");
    const int64_t labels = mm_batcher_labels(train);
    const char *decides = NULL;
    MM_TRY(mm_config_length(config, &decides, err));
    if (strcmp(decides, "steps") == 0) {
        plan->steps = mm_config_int(config, "steps");
        // A step never takes more than an epoch.
        plan->tokens = plan->steps * (per_step < labels ? per_step : labels);
    } else if (strcmp(decides, "tokens") == 0) {
        MM_TRY(steps_by_tokens(train, config, plan, err));
    } else {
        MM_TRY(steps_by_epochs(train, config, &plan->steps, err));
        plan->tokens = labels * mm_config_int(config, "epochs");
    }
    if (mm_config_int(config, "warmup_steps") > plan->steps)
        return MM_FAIL(err, MM_ECONFIG, "--warmup: %lld steps are more than the run's %lld",
                       (long long)mm_config_int(config, "warmup_steps"), (long long)plan->steps);
    mm_config_decide(config, "steps", plan->steps);
    const int64_t interval = plan->steps >= EVALUATIONS ? plan->steps / EVALUATIONS : 1;
    mm_config_decide(config, "eval_interval", interval);
    mm_config_decide(config, "save_interval", mm_config_int(config, "eval_interval"));
    return MM_OK;
}

static mm_status check_supported(const mm_config *config, mm_err *err)
{
    if (strcmp(mm_config_text(config, "device"), "cpu") != 0)
        return MM_FAIL(err, MM_ECONFIG,
                       "--device cuda: this build has no CUDA backend; use --device cpu");
    return MM_OK;
}

mm_status mm_train_plan_make(const mm_corpus *corpus, mm_config *config, mm_train_plan *plan,
                             mm_err *err)
{
    mm_status status = MM_OK;
    mm_batcher *train = NULL;
    mm_batcher *val = NULL;
    *plan = (mm_train_plan){.seconds = (double)NAN};
    MM_TRY(check_supported(config, err));
    plan->dtype = mm_config_dtype(config);
    MM_TRY(mm_config_model(config, mm_tokenizer_vocab(corpus->tokenizer), &plan->shape, err));
    MM_GO(mm_corpus_batchers(corpus, config, &train, &val, err));
    MM_GO(decide_steps(train, config, plan, err));
    plan->has_val = val != NULL;
    plan->params = mm_model_config_params(&plan->shape);
    const int32_t seq_len = (int32_t)mm_config_int(config, "max_seq_len");
    const mm_engine_options options = {
        .max_tokens = (int32_t)mm_config_int(config, "batch_size") * seq_len,
        .threads = (int32_t)mm_config_int(config, "threads"),
        .training = true,
        .bf16 = plan->dtype == MM_BF16,
    };
    // Weights and two moments; the saver holds a copy while it writes.
    plan->checkpoint_bytes = plan->params * 3 * (int64_t)sizeof(float);
    plan->memory_bytes = mm_engine_bytes(&plan->shape, plan->dtype, &options) +
                         plan->params * (int64_t)sizeof(float) + plan->checkpoint_bytes;
    plan->flops = mm_model_flops_per_token(&plan->shape, seq_len) * (double)plan->tokens;
done:
    mm_batcher_free(train);
    mm_batcher_free(val);
    return status;
}

double mm_train_rate_of_peak(mm_dtype dtype, double peak_flops)
{
    const bool has_tiles = strcmp(mm_engine_isa(dtype), "amx") == 0;
    return peak_flops * (has_tiles ? EXPECTED_SHARE_TILES : EXPECTED_SHARE);
}

double mm_train_plan_rate(const mm_config *config, mm_dtype dtype)
{
    const int32_t threads = (int32_t)mm_config_int(config, "threads");
    return mm_train_rate_of_peak(dtype, mm_engine_probe_flops(dtype, threads, PROBE_MS));
}

mm_status mm_train_plan_check(const mm_train_plan *plan, const char *db_path, mm_err *err)
{
    char need[24];
    char have[24];
    mm_bytes_text((double)plan->memory_bytes, need);
    const int64_t memory = mm_memory_available();
    if (memory > 0 && plan->memory_bytes > memory) {
        mm_bytes_text((double)memory, have);
        return MM_FAIL(
            err, MM_ENOMEM,
            "training needs about %s of memory, %s are free; lower --batch, --seq-len or --hidden",
            need, have);
    }
    char *folder = mm_path_folder(db_path);
    const uint64_t disk = folder ? mm_disk_free(folder) : 0;
    mm_free(folder);
    const uint64_t wanted = 2 * (uint64_t)plan->checkpoint_bytes;
    if (disk > 0 && wanted > disk) {
        mm_bytes_text((double)wanted, need);
        mm_bytes_text((double)disk, have);
        return MM_FAIL(err, MM_ENOSPC, "%s: two checkpoints take about %s of disk, %s are free",
                       db_path, need, have);
    }
    return MM_OK;
}

mm_adamw mm_train_adamw(const mm_config *config)
{
    return (mm_adamw){.learning_rate = mm_config_real(config, "learning_rate"),
                      .beta1 = mm_config_real(config, "beta1"),
                      .beta2 = mm_config_real(config, "beta2"),
                      .eps = mm_config_real(config, "adam_eps"),
                      .weight_decay = mm_config_real(config, "weight_decay"),
                      .grad_clip = mm_config_real(config, "grad_clip"),
                      .decay_all = mm_config_bool(config, "decay_all")};
}

void mm_shell_add(mm_str *out, const char *word)
{
    const bool plain =
        *word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_-+=./,:@%") == strlen(word);
    if (plain) {
        mm_str_add(out, word);
        return;
    }
    // Inside single quotes only the quote itself is special to a shell.
    mm_str_add_char(out, '\'');
    for (const char *at = word; *at; at++) {
        if (*at == '\'')
            mm_str_add(out, "'\\''");
        else
            mm_str_add_char(out, *at);
    }
    mm_str_add_char(out, '\'');
}

const char *mm_shell_text(mm_arena *arena, const char *word)
{
    mm_str quoted = {0};
    mm_shell_add(&quoted, word);
    const char *text = mm_arena_strdup(arena, mm_str_text(&quoted));
    mm_str_drop(&quoted);
    return text ? text : word;
}

const char *mm_shell_mmrun(mm_arena *arena, const mm_context *context)
{
    mm_str text = {0};
    mm_str_add(&text, "mmrun");
    if (strcmp(context->db_path, "./mmrun.db") != 0) {
        mm_str_add(&text, " --db ");
        mm_shell_add(&text, context->db_path);
    }
    const char *kept = mm_arena_strdup(arena, mm_str_text(&text));
    mm_str_drop(&text);
    return kept ? kept : "mmrun";
}

mm_status mm_command_text(const mm_context *context, mm_str *out, mm_err *err)
{
    mm_str_add(out, "mmrun");
    for (int i = 1; i < context->argc; i++) {
        mm_str_add_char(out, ' ');
        mm_shell_add(out, context->argv[i]);
    }
    return mm_str_check(out, err);
}

// Prompts of their own data: the openings of the first held-out documents.
static mm_status default_prompts(const mm_corpus *corpus, const mm_config *config, json_t *prompts,
                                 mm_err *err)
{
    mm_status status = MM_OK;
    mm_batcher *train = NULL;
    mm_batcher *val = NULL;
    mm_str text = {0};
    MM_GO(mm_corpus_batchers(corpus, config, &train, &val, err));
    const mm_batch *batch = NULL;
    mm_data_position position = {0};
    MM_GO(mm_batcher_get(val ? val : train, &position, &batch, err));
    for (int32_t s = 0; s < batch->n_segments && json_array_size(prompts) < PROMPTS; s++) {
        const int32_t first = batch->segments[s];
        const int32_t length = batch->segments[s + 1] - first;
        if (length < 4) continue;
        const int32_t take = length / 2 < PROMPT_TOKENS ? length / 2 : PROMPT_TOKENS;
        mm_str_clear(&text);
        MM_GO(mm_tokenizer_decode(corpus->tokenizer, batch->tokens + first, (size_t)take, true,
                                  &text, err));
        MM_GO(mm_str_check(&text, err));
        // One line, whole characters: a cut inside one leaves bytes that are no text.
        text.length = strcspn(mm_str_text(&text), "\n");
        text.length = mm_utf8_valid(mm_str_text(&text), text.length);
        if (text.length == 0) continue;
        json_t *prompt = json_stringn(mm_str_text(&text), text.length);
        if (prompt) json_array_append_new(prompts, prompt);
    }
done:
    mm_str_drop(&text);
    mm_batcher_free(train);
    mm_batcher_free(val);
    return status;
}

static mm_status prompts_text(const mm_corpus *corpus, const mm_config *config,
                              const mm_run_request *request, mm_str *out, mm_err *err)
{
    json_t *prompts = json_array();
    mm_status status = MM_OK;
    if (!prompts) return MM_FAIL(err, MM_ENOMEM, "no memory for the prompts");
    for (size_t i = 0; i < request->n_prompts; i++) {
        if (json_array_append_new(prompts, json_string(request->prompts[i])) == 0) continue;
        status = MM_FAIL(err, MM_EFORMAT, "--prompt %zu is not valid UTF-8", i + 1);
        goto done;
    }
    if (request->n_prompts == 0) MM_GO(default_prompts(corpus, config, prompts, err));
    mm_json_write(prompts, out);
    MM_GO(mm_str_check(out, err));
done:
    json_decref(prompts);
    return status;
}

mm_status mm_train_create(mm_store *store, const mm_corpus *corpus, mm_config *config,
                          const mm_train_plan *plan, const mm_run_request *request, int64_t *run_id,
                          mm_err *err)
{
    mm_status status = MM_OK;
    mm_arena arena = {0};
    mm_str prompts = {0};
    mm_param *known = NULL;
    size_t n = 0;
    char commit[41];
    MM_GO(prompts_text(corpus, config, request, &prompts, err));
    MM_GO(mm_config_params(config, &arena, &known, &n, err));
    mm_param *params = mm_arena_alloc(&arena, (n + 2) * sizeof *params);
    if (!params) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for the run's record");
        goto done;
    }
    memcpy(params, known, n * sizeof *params);
    params[n++] = (mm_param){.name = "tokenizer_hash",
                             .value = mm_tokenizer_hash(corpus->tokenizer),
                             .is_default = corpus->tokenizer_is_trained,
                             .origin = corpus->tokenizer_is_trained ? "data" : "command line"};
    params[n++] = (mm_param){.name = "prompts",
                             .value = mm_str_text(&prompts),
                             .is_default = request->n_prompts == 0,
                             .origin = request->n_prompts == 0 ? "data" : "command line"};
    MM_GO(mm_save_tokenizer(store, corpus->tokenizer, err));
    mm_git_commit(commit);
    const mm_run_new run = {.name = request->name,
                            .stage = request->stage,
                            .parent_id = request->parent_id,
                            .parent_step = request->parent_id ? request->parent_step : -1,
                            .sweep_id = request->sweep_id,
                            .seed = (uint64_t)mm_config_int(config, "seed"),
                            .device = mm_config_text(config, "device"),
                            .dtype = mm_config_text(config, "dtype"),
                            .params_total = plan->params,
                            .params_trainable = plan->params,
                            .steps_planned = plan->steps,
                            .command = request->command,
                            .version = MMRUN_VERSION,
                            .git_commit = commit[0] ? commit : NULL,
                            .notes = request->notes,
                            .tags = request->tags,
                            .n_tags = request->n_tags,
                            .params = params,
                            .n_params = n};
    MM_GO(mm_store_run_create(store, &run, run_id, err));
    MM_GO(mm_corpus_record(corpus, store, *run_id, err));
done:
    mm_str_drop(&prompts);
    mm_arena_drop(&arena);
    return status;
}
