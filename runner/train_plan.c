/* What a run will be, before it starts: number of steps, cost, and its record in the database. */
#include "runner/train.h"

#include "core/base/file.h"
#include "core/nn/generate.h"
#include "runner/environment.h"
#include "runner/load.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { EVALUATIONS = 10, PROBE_MS = 40, SEEN_BATCHES = 64 };

// Share of the measured multiply-add peak that a whole step reaches; only the estimate uses it. The
// faster the products, the larger the part of everything else: with matrix tiles memory decides.
static const double EXPECTED_SHARE = 0.6;
static const double EXPECTED_SHARE_TILES = 0.3;

// What a step of the first epoch holds on average; later epochs differ a little.
typedef struct step_mean {
    double steps; // of an epoch
    double labels;
    double tokens; // that go through the model, pads too
} step_mean;

static mm_status measure_steps(mm_batcher *train, step_mean *out, mm_err *err)
{
    int64_t steps = 0;
    int64_t batches = 0;
    int64_t tokens = 0;
    int64_t seen = 0;
    mm_data_position position = {0};
    const double labels = (double)mm_batcher_labels(train);
    if (labels < 1) return MM_FAIL(err, MM_EFORMAT, "no token to learn: every row is empty");
    MM_TRY(mm_batcher_epoch_steps(train, 0, &steps, err));
    MM_TRY(mm_batcher_epoch_batches(train, 0, &batches, err));
    for (; position.epoch == 0 && seen < SEEN_BATCHES; seen++) {
        const mm_batch *batch = NULL;
        MM_TRY(mm_batcher_get(train, &position, &batch, err));
        tokens += batch->n_tokens;
    }
    const double n = (double)steps;
    const double per_batch = (double)tokens / (double)seen;
    *out = (step_mean){.steps = n, .labels = labels / n, .tokens = per_batch * (double)batches / n};
    return MM_OK;
}

static mm_status steps_by_epochs(mm_batcher *train, const mm_config *config, int64_t *steps,
                                 mm_err *err)
{
    const int64_t epochs = mm_config_int(config, "epochs");
    *steps = 0;
    for (int64_t epoch = 0; epoch < epochs; epoch++) {
        int64_t of_epoch = 0;
        MM_TRY(mm_batcher_epoch_steps(train, epoch, &of_epoch, err));
        *steps += of_epoch;
    }
    return MM_OK;
}

static mm_status decide_steps(mm_batcher *train, const step_mean *mean, mm_config *config,
                              mm_train_plan *plan, mm_err *err)
{
    const char *decides = NULL;
    MM_TRY(mm_config_length(config, &decides, err));
    if (strcmp(decides, "steps") == 0)
        plan->steps = mm_config_int(config, "steps");
    else if (strcmp(decides, "tokens") == 0)
        plan->steps = (int64_t)ceil((double)mm_config_int(config, "tokens") / mean->labels);
    else
        MM_TRY(steps_by_epochs(train, config, &plan->steps, err));
    plan->tokens = (int64_t)((double)plan->steps * mean->labels);
    if (mm_config_int(config, "warmup_steps") > plan->steps)
        return MM_FAIL(err, MM_ECONFIG, "--warmup: %lld steps are more than the run's %lld",
                       (long long)mm_config_int(config, "warmup_steps"), (long long)plan->steps);
    mm_config_decide(config, "steps", (double)plan->steps);
    const int64_t interval = plan->steps >= EVALUATIONS ? plan->steps / EVALUATIONS : 1;
    mm_config_decide(config, "eval_interval", (double)interval);
    mm_config_decide(config, "save_interval", mm_config_real(config, "eval_interval"));
    return MM_OK;
}

static mm_status check_supported(const mm_config *config, mm_err *err)
{
    if (strcmp(mm_config_text(config, "device"), "cpu") != 0)
        return MM_FAIL(err, MM_ECONFIG,
                       "--device cuda: this build has no CUDA backend; use --device cpu");
    return MM_OK;
}

mm_engine_options mm_train_engine(mm_config *config, const mm_batcher *train, const mm_batcher *val,
                                  bool training)
{
    mm_engine_options options = {.max_tokens = mm_batcher_max_tokens(train),
                                 .max_segments = mm_batcher_max_segments(train),
                                 .threads = (int32_t)mm_config_int(config, "threads"),
                                 .training = training,
                                 .bf16 = mm_config_dtype(config) == MM_BF16,
                                 .seed = (uint64_t)mm_config_int(config, "seed")};
    if (!val) return options;
    const int32_t tokens = mm_batcher_max_tokens(val);
    const int32_t segments = mm_batcher_max_segments(val);
    if (tokens > options.max_tokens) options.max_tokens = tokens;
    if (segments > options.max_segments) options.max_segments = segments;
    return options;
}

// A forward pass alone is a third of what a token costs where every weight is trained.
static double forward_flops(const mm_model_config *shape, int32_t seq_len)
{
    mm_model_config plain = *shape;
    plain.lora_rank = 0;
    return mm_model_flops_per_token(&plain, seq_len) / 3;
}

// Sample answers: a copy of the weights, and caches of a few rows.
static int64_t generator_bytes(const mm_config *config, const mm_train_plan *plan)
{
    const int64_t gen_tokens = mm_config_int(config, "gen_tokens");
    const mm_generator_options options = {
        .max_tokens = (int32_t)(mm_config_int(config, "max_seq_len") + gen_tokens),
        .bf16 = plan->dtype == MM_BF16};
    if (gen_tokens == 0) return 0;
    return plan->params * (plan->dtype == MM_BF16 ? 2 : 4) +
           MM_TRAIN_PROMPTS * mm_generator_row_bytes(&plan->shape, &options);
}

// What the run takes, once its steps are known.
static void add_costs(const mm_config *config, const step_mean *mean, mm_train_plan *plan)
{
    const int64_t trained = mm_model_config_trainable(&plan->shape);
    const double read = (double)plan->steps * mean->tokens;
    // Weights and two moments of what trains; the saver holds a copy while it writes.
    plan->checkpoint_bytes = trained * 3 * (int64_t)sizeof(float);
    plan->memory_bytes = mm_engine_bytes(&plan->shape, plan->dtype, &plan->engine) +
                         plan->params * (int64_t)sizeof(float) + plan->checkpoint_bytes +
                         generator_bytes(config, plan);
    plan->tokens_read = (int64_t)read;
    const int32_t seq_len = (int32_t)mm_config_int(config, "max_seq_len");
    plan->flops = mm_model_flops_per_token(&plan->shape, seq_len) * read;
    // The starting model scores every answer once, before the first step.
    const bool has_reference = strcmp(mm_config_stage(config), "dpo") == 0 &&
                               strcmp(mm_config_text(config, "dpo_loss"), "simpo") != 0;
    if (has_reference)
        plan->flops +=
            forward_flops(&plan->shape, seq_len) * fmin(read, mean->steps * mean->tokens);
}

mm_status mm_train_plan_make(const mm_corpus *corpus, mm_config *config, mm_train_plan *plan,
                             mm_err *err)
{
    mm_status status = MM_OK;
    mm_batcher *train = NULL;
    mm_batcher *val = NULL;
    step_mean mean = {0};
    *plan = (mm_train_plan){.seconds = (double)NAN};
    MM_TRY(check_supported(config, err));
    plan->dtype = mm_config_dtype(config);
    MM_TRY(mm_config_model(config, mm_tokenizer_vocab(corpus->tokenizer), &plan->shape, err));
    mm_corpus_decide(corpus, config);
    MM_GO(mm_corpus_batchers(corpus, config, &train, &val, err));
    MM_GO(measure_steps(train, &mean, err));
    MM_GO(decide_steps(train, &mean, config, plan, err));
    plan->val_rows = val ? mm_batcher_documents(val) : 0;
    plan->params = mm_model_config_params(&plan->shape);
    plan->engine = mm_train_engine(config, train, val, true);
    add_costs(config, &mean, plan);
done:
    mm_batcher_free(train);
    mm_batcher_free(val);
    return status;
}

mm_status mm_train_plan_add_teacher(mm_train_plan *plan, const mm_config *config,
                                    const mm_parent *teacher, mm_err *err)
{
    if (teacher->run_id == 0) return MM_OK;
    mm_model_config shape;
    mm_config *its = NULL;
    mm_status status = MM_OK;
    mm_engine_options options = plan->engine;
    options.training = false;
    MM_GO(mm_config_new(&its, "pretrain", err));
    MM_GO(mm_config_from_params(its, teacher->params, teacher->n_params, NULL, err));
    MM_GO(mm_config_model(its, plan->shape.vocab_size, &shape, err));
    plan->memory_bytes += mm_engine_bytes(&shape, plan->dtype, &options) +
                          mm_model_config_params(&shape) * (int64_t)sizeof(float);
    plan->flops += forward_flops(&shape, (int32_t)mm_config_int(config, "max_seq_len")) *
                   (double)plan->tokens_read;
done:
    mm_config_free(its);
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

enum { FACTS = 5 };

// Texts that the facts of a run point to.
typedef struct fact_texts {
    char val_rows[24];
    char teacher[48];
    char teacher_step[24];
} fact_texts;

// What the record of a run holds beside its hyperparameters; returns how many there are.
static size_t list_facts(fact_texts *texts, const mm_corpus *corpus, const mm_train_plan *plan,
                         const mm_run_request *request, const char *prompts, mm_param out[FACTS])
{
    const bool is_own = corpus->tokenizer_is_trained;
    const bool is_open = request->n_prompts == 0;
    size_t n = 0;
    snprintf(texts->val_rows, sizeof texts->val_rows, "%" PRId64, plan->val_rows);
    out[n++] = (mm_param){"tokenizer_hash", mm_tokenizer_hash(corpus->tokenizer), is_own,
                          is_own ? "data" : "command line"};
    out[n++] = (mm_param){"prompts", prompts, is_open, is_open ? "data" : "command line"};
    out[n++] = (mm_param){"val_rows", texts->val_rows, true, "data"};
    if (!request->teacher_id) return n;
    snprintf(texts->teacher, sizeof texts->teacher, "%" PRId64 "@%" PRId64, request->teacher_id,
             request->teacher_step);
    snprintf(texts->teacher_step, sizeof texts->teacher_step, "%" PRId64, request->teacher_step);
    out[n++] = (mm_param){"teacher", texts->teacher, false, "command line"};
    out[n++] = (mm_param){"teacher_step", texts->teacher_step, false, "command line"};
    return n;
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
    fact_texts facts;
    MM_GO(mm_train_prompts(corpus, config, request, &prompts, err));
    MM_GO(mm_config_params(config, &arena, &known, &n, err));
    mm_param *params = mm_arena_alloc(&arena, (n + FACTS) * sizeof *params);
    if (!params) {
        status = MM_FAIL(err, MM_ENOMEM, "no memory for the run's record");
        goto done;
    }
    memcpy(params, known, n * sizeof *params);
    n += list_facts(&facts, corpus, plan, request, mm_str_text(&prompts), params + n);
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
                            .params_trainable = mm_model_config_trainable(&plan->shape),
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
