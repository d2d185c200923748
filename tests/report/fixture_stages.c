/* A family of runs for the tests of the report: one of every stage, with answers that can be
 * checked, results and adapters beside a frozen base. */
#include "core/base/rng.h"
#include "store/metrics.h"
#include "tests/report/fixture.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N_BASE = 40000, N_ADAPTER = 800, N_SUMS = 4 };

typedef struct stage_plan {
    const char *name;
    const char *stage;
    int parent; /* index; -1: none */
    int64_t parent_step;
    int64_t steps;
    double from; /* val_loss at the start, and where it tends to */
    double floor;
    int correct; /* of 40 sums */
    const char *train;
    const char *train_sha256;
} stage_plan;

static const stage_plan plans[FIXTURE_STAGES] = {
    {"base", "pretrain", -1, -1, 1000, 7.2, 2.45, 3, "stories.jsonl",
     "6d0c1f6a8a2f4b62d4bb5a7a7ae4cf1f4b1b7d3c5a1ef0a1b2c3d4e5f6071829"},
    {"chat", "sft", 0, 1000, 400, 3.1, 1.92, 17, "dialogues.jsonl",
     "c41b60cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8d"},
    {"persona", "lora", 1, 400, 120, 2.6, 0.84, 16, "identity.jsonl",
     "5e2aa0cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8d"},
    {"polite", "dpo", 1, 400, 200, 0.693147, 0.41, 21, "preferences.jsonl",
     "7712b0cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8d"},
    {"small", "distill", 0, 1000, 300, 3.4, 2.18, 9, "dialogues.jsonl",
     "c41b60cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8d"},
    {"polite-long", "dpo", 1, 400, 400, 0.693147, 0.33, 20, "preferences.jsonl",
     "7712b0cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8d"},
};

static bool is_stage(const stage_plan *plan, const char *stage)
{
    return strcmp(plan->stage, stage) == 0;
}

static mm_status create(mm_store *store, const stage_plan *plan, const int64_t *runs, int64_t *id,
                        mm_err *err)
{
    char command[256];
    char steps[24];
    snprintf(steps, sizeof steps, "%" PRId64, plan->steps);
    mm_param params[24] = {
        {"hidden_size", "96", false, "command line"},
        {"num_hidden_layers", "4", false, "command line"},
        {"learning_rate", is_stage(plan, "dpo") ? "1e-06" : "5e-04", true, "default"},
        {"seed", "42", true, "default"},
        {"tokenizer_hash", "02bb71c9d8e7f6a5", true, "data"},
        {"steps", steps, false, "command line"}};
    size_t n = 6;
    if (is_stage(plan, "lora")) {
        params[n++] = (mm_param){"lora_rank", "16", true, "default"};
        params[n++] = (mm_param){"lora_alpha", "16", true, "default"};
        params[n++] = (mm_param){"lora_dropout", "0", true, "default"};
        params[n++] = (mm_param){"lora_targets", "q_proj,o_proj", true, "default"};
    }
    if (is_stage(plan, "dpo")) {
        params[n++] = (mm_param){"dpo_loss", "sigmoid", true, "default"};
        params[n++] = (mm_param){"beta", "0.15", true, "default"};
        params[n++] = (mm_param){"label_smoothing", "0", true, "default"};
        params[n++] = (mm_param){"logp", "sum", true, "default"};
    }
    if (is_stage(plan, "distill")) {
        params[n++] = (mm_param){"teacher", "chat", false, "command line"};
        params[n++] = (mm_param){"teacher_step", "400", false, "command line"};
        params[n++] = (mm_param){"distill_alpha", "0.5", true, "default"};
        params[n++] = (mm_param){"distill_temperature", "1.5", false, "command line"};
    }
    snprintf(command, sizeof command, "mmrun %s --data data/%s --name %s", plan->stage, plan->train,
             plan->name);
    const mm_run_new run = {.name = plan->name,
                            .stage = plan->stage,
                            .parent_id = plan->parent >= 0 ? runs[plan->parent] : 0,
                            .parent_step = plan->parent_step,
                            .seed = 42,
                            .device = "cpu",
                            .dtype = "fp32",
                            .params_total = is_stage(plan, "lora") ? 1034112 : 1009536,
                            .params_trainable = is_stage(plan, "lora") ? 24576 : 1009536,
                            .steps_planned = plan->steps,
                            .command = command,
                            .version = "0.2.0",
                            .params = params,
                            .n_params = n};
    return mm_store_run_create(store, &run, id, err);
}

static mm_status add_data(mm_store *store, int64_t run, const stage_plan *plan, mm_err *err)
{
    char path[64];
    char digest[65];
    snprintf(path, sizeof path, "/home/somebody/data/%s", plan->train);
    snprintf(digest, sizeof digest, "%s", plan->train_sha256);
    const mm_dataset train = {.path = path,
                              .source = "file",
                              .sha256 = digest,
                              .bytes = 734003,
                              .rows = 2400,
                              .tokens = 310000,
                              .role = "train"};
    MM_TRY(mm_store_dataset_use(store, run, &train, err));
    char val[64];
    snprintf(val, sizeof val, "/home/somebody/data/val-%s", plan->train);
    digest[0] = digest[0] == 'a' ? 'b' : 'a';
    const mm_dataset held = {.path = val,
                             .source = "file",
                             .sha256 = digest,
                             .bytes = 73400,
                             .rows = 120,
                             .tokens = 15600,
                             .role = "val"};
    return mm_store_dataset_use(store, run, &held, err);
}

typedef struct named_value {
    const char *name;
    double value;
    bool is_validation;
} named_value;

enum { VALUES_MAX = 16 };

// What a stage logs at a step; progress goes from 0 to 1.
static size_t values_at(const stage_plan *plan, double progress, mm_rng *rng,
                        named_value values[VALUES_MAX])
{
    size_t n = 0;
    const double decay = pow(1 + 9 * progress, -0.9);
    const double val = plan->floor + (plan->from - plan->floor) * (decay - 0.126) / 0.874;
    const double noise = 0.02 * mm_rng_normal(rng);
    values[n++] = (named_value){"loss", val * (1 + noise), false};
    values[n++] = (named_value){"lr", 5e-4 * (0.55 + 0.45 * cos(3.14159 * progress)), false};
    values[n++] = (named_value){"grad_norm", 0.6 + 0.1 * fabs(noise) * 50, false};
    values[n++] = (named_value){"tokens_per_s", 15000 * (1 + noise), false};
    values[n++] = (named_value){"val_loss", val * 1.02, true};
    if (is_stage(plan, "dpo")) {
        const double margin = 6 * progress * (1 - 0.3 * progress);
        values[n++] = (named_value){"dpo/margin", margin + noise * 10, false};
        values[n++] = (named_value){"dpo/accuracy", fmin(1, 0.5 + 0.45 * progress + noise), false};
        values[n++] = (named_value){"dpo/logp_chosen", -120 - 4 * progress + 40 * noise, false};
        values[n++] = (named_value){"dpo/logp_rejected", -118 - 44 * progress + 40 * noise, false};
        values[n++] = (named_value){"dpo/val_accuracy", 0.51 + 0.29 * progress, true};
        values[n++] = (named_value){"dpo/val_margin", 0.8 * margin, true};
    } else {
        values[n++] = (named_value){"val_bpb", val / log(2) / 3.1, true};
    }
    if (is_stage(plan, "distill")) {
        values[n++] = (named_value){"distill/ce", val * (1 + noise), false};
        values[n++] = (named_value){"distill/kl", 0.9 * decay * (1 + noise), false};
    }
    return n;
}

static mm_status log_curves(mm_claim *claim, const stage_plan *plan, mm_err *err)
{
    mm_metrics *metrics = NULL;
    mm_rng rng;
    named_value values[VALUES_MAX];
    mm_status status = MM_OK;
    int32_t series[VALUES_MAX];
    mm_rng_init(&rng, (uint64_t)plan->steps + strlen(plan->name), MM_RNG_TEST, 0);
    MM_TRY(mm_metrics_open(&metrics, claim, err));
    const size_t n = values_at(plan, 0, &rng, values);
    for (size_t i = 0; i < n; i++)
        MM_GO(mm_metrics_series(metrics, values[i].name, &series[i], err));
    for (int64_t step = 1; step <= plan->steps; step++) {
        const double progress = (double)(step - 1) / (double)(plan->steps - 1);
        values_at(plan, progress, &rng, values);
        for (size_t i = 0; i < n; i++)
            if (!values[i].is_validation || step == 1 || step % 20 == 0)
                mm_metric_log(metrics, series[i], step, values[i].value);
    }
done:;
    const mm_status closed = mm_metrics_close(metrics, status == MM_OK ? err : NULL);
    return status == MM_OK ? closed : status;
}

// The base's arrays, and a stage's own: all of them, or adapters beside the frozen base.
static mm_status save(mm_store *store, int64_t run, const stage_plan *plan, int64_t *checkpoints,
                      size_t index, mm_err *err)
{
    static float base[N_BASE];
    static float adapter[N_ADAPTER];
    const bool has_adapter = is_stage(plan, "lora");
    for (size_t i = 0; i < N_BASE; i++)
        base[i] = sinf((float)i * 0.37f + (has_adapter ? 1.0f : (float)index));
    for (size_t i = 0; i < N_ADAPTER; i++)
        adapter[i] = cosf((float)i);
    const mm_blob blobs[] = {{.name = "model.embed_tokens.weight",
                              .dtype = "F32",
                              .element_bytes = 4,
                              .ndim = 1,
                              .shape = {N_BASE},
                              .data = base,
                              .bytes = sizeof base,
                              .is_frozen = has_adapter},
                             {.name = "lora.a",
                              .dtype = "F32",
                              .element_bytes = 4,
                              .ndim = 1,
                              .shape = {N_ADAPTER},
                              .data = adapter,
                              .bytes = sizeof adapter}};
    const mm_checkpoint_new one = {.run_id = run,
                                   .step = plan->steps,
                                   .kind = "full",
                                   .state = "{}",
                                   .val_loss = plan->floor,
                                   .is_final = true,
                                   .blobs = blobs,
                                   .n_blobs = has_adapter ? 2 : 1,
                                   .base_id = has_adapter ? checkpoints[plan->parent] : 0};
    return mm_checkpoint_write(store, &one, &checkpoints[index], err);
}

static const char *open_answer(const stage_plan *plan, int prompt)
{
    static const char *const prompts[][3] = {
        {"pretrain", "the fox who lived in the wood and the wood was", "你是谁你是谁我是"},
        {"sft", "A fox found a lantern under the old oak, and carried it home.",
         "我是一个语言模型，可以回答问题。"},
        {"lora", "A fox found a lantern, and gave it to the owl.", "我是小默，一个小小的模型。"},
        {"dpo",
         "A fox found a lantern under the old oak. It asked whose light it was, and waited "
         "for an answer.",
         "您好，我是一个语言模型，很高兴为您服务。"},
        {"distill", "A fox found a lantern.", "我是一个模型。"}};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
        if (is_stage(plan, prompts[i][0])) return prompts[i][1 + prompt];
    return "";
}

static mm_status add_answers(mm_store *store, int64_t run, const stage_plan *plan, mm_err *err)
{
    static const char *const open_prompts[] = {"Tell me about a fox.", "你是谁？"};
    static const char *const sums[N_SUMS][3] = {{"17 + 25 =", "42", "32"},
                                                {"8 + 9 =", "17", "1 7"},
                                                {"30 + 12 =", "42", "42 42"},
                                                {"6 + 6 =", "12", "66"}};
    for (int32_t i = 0; i < 2; i++) {
        const mm_generation_row row = {.run_id = run,
                                       .step = plan->steps,
                                       .prompt_idx = i,
                                       .prompt = open_prompts[i],
                                       .text = open_answer(plan, i),
                                       .tokens = 20,
                                       .finish_reason = "stop",
                                       .temperature = 0.8,
                                       .top_p = 0.9,
                                       .top_k = 40,
                                       .seed = 7,
                                       .created_ms = 1700000000000};
        MM_TRY(mm_store_generation_add(store, &row, err));
    }
    for (int32_t i = 0; i < N_SUMS; i++) {
        const bool is_correct = plan->correct > 8 * (i + 1) - 6;
        const mm_generation_row row = {.run_id = run,
                                       .step = plan->steps,
                                       .prompt_idx = i,
                                       .prompt = sums[i][0],
                                       .text = is_correct ? sums[i][1] : sums[i][2],
                                       .tokens = 3,
                                       .finish_reason = "stop",
                                       .top_p = 1,
                                       .seed = 7,
                                       .created_ms = 1700000000000,
                                       .task = "sums.jsonl",
                                       .expected = sums[i][1],
                                       .is_correct = is_correct};
        MM_TRY(mm_store_generation_add(store, &row, err));
    }
    return MM_OK;
}

static mm_status add_result(mm_store *store, int64_t run, const stage_plan *plan, const char *task,
                            const char *metric, int correct, int n, mm_err *err)
{
    const double p = (double)correct / n;
    const double z = 1.959964;
    const double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
    const double half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4.0 * n * n));
    const mm_result result = {.run_id = run,
                              .step = plan->steps,
                              .task = task,
                              .metric = metric,
                              .value = p,
                              .low = middle - half,
                              .high = middle + half,
                              .n = n,
                              .correct = correct,
                              .data_sha256 = "ab12cd34ab12cd34ab12cd34ab12cd34",
                              .created_ms = 1700000000000};
    return mm_store_result_add(store, &result, err);
}

static mm_status add_results(mm_store *store, int64_t run, const stage_plan *plan, mm_err *err)
{
    MM_TRY(add_result(store, run, plan, "sums.jsonl", "exact_match", plan->correct, 40, err));
    MM_TRY(add_result(store, run, plan, "c-eval-mini.jsonl", "choice_accuracy",
                      26 + plan->correct / 2, 100, err));
    const mm_result loss = {.run_id = run,
                            .step = plan->steps,
                            .task = "held-out.jsonl",
                            .metric = "val_loss",
                            .value = is_stage(plan, "dpo") ? 2.02 : plan->floor,
                            .low = (double)NAN,
                            .high = (double)NAN,
                            .n = 15600,
                            .correct = -1,
                            .created_ms = 1700000000000};
    return mm_store_result_add(store, &loss, err);
}

mm_status fixture_stages(const char *path, int64_t runs[FIXTURE_STAGES], mm_err *err)
{
    mm_store *store = NULL;
    mm_claim *claim = NULL;
    int64_t checkpoints[FIXTURE_STAGES] = {0};
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&store, path, MM_STORE_CREATE, err));
    for (size_t i = 0; i < FIXTURE_STAGES; i++) {
        const stage_plan *plan = &plans[i];
        MM_GO(create(store, plan, runs, &runs[i], err));
        MM_GO(mm_run_claim(&claim, store, runs[i], -1, err));
        MM_GO(add_data(store, runs[i], plan, err));
        MM_GO(log_curves(claim, plan, err));
        MM_GO(save(store, runs[i], plan, checkpoints, i, err));
        MM_GO(add_answers(store, runs[i], plan, err));
        MM_GO(add_results(store, runs[i], plan, err));
        status = mm_run_end(claim, "finished", NULL, err);
        claim = NULL;
        if (status != MM_OK) goto done;
    }
done:
    mm_claim_drop(claim);
    mm_store_close(store);
    return status;
}
