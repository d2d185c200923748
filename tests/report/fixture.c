/* Databases for the tests of the report. */
#include "tests/report/fixture.h"

#include "core/base/rng.h"
#include "store/metrics.h"

#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One run of the demonstration. */
typedef struct run_plan {
    const char *name;
    int hidden;
    double lr;
    uint64_t seed;
    int64_t steps_planned;
    int64_t steps;   /* reached before `end` */
    const char *end; /* "finished", "stopped", "failed"; "killed": dies, then is resumed */
    double floor;    /* where the loss tends to */
    bool has_nan;
    bool is_child;
} run_plan;

static const run_plan plans[FIXTURE_RUNS] = {
    {"width-64", 64, 1e-3, 1, 1200, 1200, "finished", 2.62, false, false},
    {"width-96", 96, 1e-3, 1, 1200, 1200, "finished", 2.41, false, false},
    {"width-64-fast", 64, 3e-3, 1, 1200, 1200, "finished", 2.55, false, false},
    {"width-96-fast", 96, 3e-3, 1, 1200, 1200, "killed", 2.37, false, false},
    {"width-96-fast-b", 96, 3e-3, 2, 1200, 1200, "finished", 2.38, false, false},
    {"width-96-hot", 96, 3e-2, 1, 1200, 540, "failed", 3.9, true, false},
    {"width-64-early", 64, 1e-3, 3, 1200, 400, "stopped", 2.62, false, false},
    {"诗-continued", 96, 5e-4, 1, 600, 600, "finished", 2.21, false, true},
};

typedef struct run_curve {
    const run_plan *plan;
    mm_metrics *metrics;
    int32_t loss;
    int32_t val_loss;
    int32_t val_bpb;
    int32_t lr;
    int32_t grad_norm;
    int32_t rate;
    int32_t tokens;
    int32_t step_ms;
    mm_rng rng;
} run_curve;

static mm_status open_curve(run_curve *curve, const run_plan *plan, mm_claim *claim, mm_err *err)
{
    *curve = (run_curve){.plan = plan};
    mm_rng_init(&curve->rng, plan->seed * 100 + (uint64_t)plan->hidden, MM_RNG_TEST, 0);
    MM_TRY(mm_metrics_open(&curve->metrics, claim, err));
    const struct {
        const char *name;
        int32_t *series;
    } names[] = {{"loss", &curve->loss},           {"val_loss", &curve->val_loss},
                 {"val_bpb", &curve->val_bpb},     {"lr", &curve->lr},
                 {"grad_norm", &curve->grad_norm}, {"tokens_per_s", &curve->rate},
                 {"tokens", &curve->tokens},       {"step_ms", &curve->step_ms}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        MM_TRY(mm_metrics_series(curve->metrics, names[i].name, names[i].series, err));
    return MM_OK;
}

static double true_loss(const run_plan *plan, int64_t step)
{
    const double start = plan->is_child ? 2.75 : 7.4;
    return plan->floor + (start - plan->floor) * pow(1 + (double)step / 18, -0.72);
}

static void log_step(run_curve *curve, int64_t step)
{
    const run_plan *plan = curve->plan;
    mm_metrics *metrics = curve->metrics;
    const double noise = mm_rng_normal(&curve->rng);
    double loss = true_loss(plan, step) * (1 + 0.018 * noise);
    double norm = 0.55 + 2.4 * exp(-(double)step / 60) + 0.09 * fabs(mm_rng_normal(&curve->rng));
    if (plan->has_nan && step > 420) loss += exp((double)(step - 420) / 22);
    if (plan->has_nan && step > 420) norm *= exp((double)(step - 420) / 30);
    if (plan->has_nan && step > 520) loss = norm = (double)NAN;
    if (plan->hidden == 96 && step == 700) norm = 41.5; // one spike, to be kept by any thinning
    const double progress = (double)step / (double)plan->steps_planned;
    const double lr = plan->lr * (0.1 + 0.45 * (1 + cos(3.14159265358979 * progress)));
    const double rate = (plan->hidden == 64 ? 21500 : 14800) *
                        (1 + 0.02 * mm_rng_normal(&curve->rng)) * (step % 200 == 0 ? 0.55 : 1);
    mm_metric_log(metrics, curve->loss, step, loss);
    mm_metric_log(metrics, curve->lr, step, lr);
    mm_metric_log(metrics, curve->grad_norm, step, norm);
    mm_metric_log(metrics, curve->rate, step, rate);
    mm_metric_log(metrics, curve->tokens, step, (double)step * 4096);
    mm_metric_log(metrics, curve->step_ms, step, 4096e3 / rate);
    if (step % 50 != 0) return;
    const double val = plan->has_nan && step > 520 ? (double)NAN : true_loss(plan, step) * 1.012;
    mm_metric_log(metrics, curve->val_loss, step, val);
    mm_metric_log(metrics, curve->val_bpb, step, val / log(2) / 3.1);
}

static const char *answer_at(size_t prompt, int64_t step, int64_t steps, bool is_wide)
{
    const double progress = (double)step / (double)steps;
    static const char *const stories[] = {
        "the the and of to the a in in and the of",
        "Once upon a time there was a little fox in the wood. The fox was was a fox and said the "
        "fox.",
        "Once upon a time there was a little fox who lived at the edge of the wood. One morning it "
        "found a red lantern under the old oak. “Whose light is this?” asked the fox, and carried "
        "it home, so that nobody would be afraid of the dark."};
    static const char *const poems[] = {
        "的的月月不不人人", "明月山中月，山中明月人。\n山中山月月，明月不知人。",
        "明月松间照，清泉石上流。\n竹喧归浣女，莲动下渔舟。\n随意春芳歇，王孙自可留。"};
    static const char *const sums[] = {"1 1 1 1 1 1", "17 + 25 = 32", "17 + 25 = 42"};
    const size_t at = progress < 0.2 ? 0 : progress < (is_wide ? 0.6 : 0.9) ? 1 : 2;
    return prompt == 0 ? stories[at] : prompt == 1 ? poems[at] : sums[at];
}

static mm_status add_answers(mm_store *store, int64_t run, const run_plan *plan, int64_t step,
                             mm_err *err)
{
    static const char *const prompts[] = {"Once upon a time", "写一首关于山中明月的诗",
                                          "17 + 25 ="};
    for (int32_t i = 0; i < 3; i++) {
        const mm_generation_row row = {
            .run_id = run,
            .step = step,
            .prompt_idx = i,
            .prompt = prompts[i],
            .text = answer_at((size_t)i, step, plan->steps_planned, plan->hidden == 96),
            .tokens = 12 + step % 37,
            .finish_reason = step < 400 ? "length" : "stop",
            .temperature = 0.8,
            .top_p = 0.9,
            .top_k = 40,
            .seed = 7,
            .tokens_per_s = 310};
        MM_TRY(mm_store_generation_add(store, &row, err));
    }
    return MM_OK;
}

static mm_status add_surroundings(mm_store *store, int64_t run, mm_err *err)
{
    static const mm_env env[] = {{"cpu", "Example CPU at 2.1 GHz"},
                                 {"cores", "2"},
                                 {"threads", "2"},
                                 {"isa", "AVX-512 AMX-BF16"},
                                 {"os", "Debian GNU/Linux 12"},
                                 {"sqlite", "3.40.1"},
                                 {"cwd", "/home/somebody/experiments"},
                                 {"ram_bytes", "8223490048"}};
    for (size_t i = 0; i < sizeof env / sizeof *env; i++)
        MM_TRY(mm_store_env(store, run, env[i].key, env[i].value, err));
    const mm_dataset sets[] = {
        {.path = "/home/somebody/data/stories.jsonl",
         .source = "synth",
         .sha256 = "6d0c1f6a8a2f4b62d4bb5a7a7ae4cf1f4b1b7d3c5a1ef0a1b2c3d4e5f6071829",
         .bytes = 18874368,
         .rows = 41200,
         .tokens = 4915200,
         .role = "train"},
        {.path = "/home/somebody/data/stories-val.jsonl",
         .source = "synth",
         .sha256 = "9a31b60cf1d5b1f05e4f7a8c6f20ce88b2345d61c7e89fa0b1c2d3e4f5a6b7c8",
         .bytes = 393216,
         .rows = 860,
         .tokens = 102400,
         .role = "val"},
        {.path = "/home/somebody/data/tokenizer.json",
         .source = "file",
         .sha256 = "02bb71c9d8e7f6a5b4c3d2e1f00918273645546372819faebdcc0b1a29384756",
         .bytes = 441344,
         .role = "tokenizer"}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        MM_TRY(mm_store_dataset_use(store, run, &sets[i], err));
    return MM_OK;
}

static mm_status create_run(mm_store *store, const run_plan *plan, int64_t sweep_id, int64_t parent,
                            int64_t *id, mm_err *err)
{
    char hidden[16];
    char rate[24];
    char seed[24];
    char ffn[16];
    char command[256];
    snprintf(hidden, sizeof hidden, "%d", plan->hidden);
    snprintf(ffn, sizeof ffn, "%d", plan->hidden * 8 / 3);
    snprintf(rate, sizeof rate, "%g", plan->lr);
    snprintf(seed, sizeof seed, "%" PRIu64, plan->seed);
    snprintf(command, sizeof command,
             "mmrun pretrain --data data/stories.jsonl --hidden %d --lr %g --steps %" PRId64
             " --seed %" PRIu64 " --name %s",
             plan->hidden, plan->lr, plan->steps_planned, plan->seed, plan->name);
    const mm_param params[] = {
        {"preset", "v3", true, "default"},
        {"hidden_size", hidden, false, plan->is_child ? "parent" : "sweep"},
        {"num_hidden_layers", "4", false, "command line"},
        {"num_attention_heads", "8", true, "preset"},
        {"num_key_value_heads", "4", true, "preset"},
        {"intermediate_size", ffn, true, "preset"},
        {"vocab_size", "6400", true, "preset"},
        {"max_seq_len", "256", false, "command line"},
        {"learning_rate", rate, false, plan->is_child ? "command line" : "sweep"},
        {"lr_schedule", "cosine", true, "default"},
        {"warmup_steps", "0", true, "default"},
        {"batch_size", "16", true, "default"},
        {"accumulation_steps", "1", true, "default"},
        {"weight_decay", "0.01", true, "default"},
        {"grad_clip", "1", true, "default"},
        {"dtype", "fp32", true, "default"},
        {"seed", seed, plan->seed == 1, plan->seed == 1 ? "default" : "sweep"}};
    static const char *const tags[] = {"demo", "bilingual"};
    const mm_run_new run = {.name = plan->name,
                            .stage = "pretrain",
                            .parent_id = parent,
                            .parent_step = parent > 0 ? 1200 : -1,
                            .sweep_id = plan->is_child ? 0 : sweep_id,
                            .seed = plan->seed,
                            .device = "cpu",
                            .dtype = "fp32",
                            .params_total = plan->hidden == 64 ? 606144 : 1009536,
                            .params_trainable = plan->hidden == 64 ? 606144 : 1009536,
                            .steps_planned = plan->steps_planned,
                            .command = command,
                            .version = "0.1.0",
                            .git_commit = "4f2c9d1e0b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d",
                            .notes = plan->is_child ? "Longer on the same data, lower rate." : NULL,
                            .tags = plan->is_child ? tags : NULL,
                            .n_tags = plan->is_child ? 2 : 0,
                            .params = params,
                            .n_params = sizeof params / sizeof *params};
    return mm_store_run_create(store, &run, id, err);
}

// Steps (from, to], with answers now and then.
static mm_status train(mm_store *store, int64_t run, mm_claim *claim, const run_plan *plan,
                       int64_t from, int64_t to, bool close, mm_err *err)
{
    run_curve curve;
    MM_TRY(open_curve(&curve, plan, claim, err));
    for (int64_t step = from + 1; step <= to; step++) {
        log_step(&curve, step);
        if (step % 200 == 0) MM_TRY(add_answers(store, run, plan, step, err));
    }
    MM_TRY(mm_metrics_flush(curve.metrics, err));
    (void)close;
    return mm_metrics_close(curve.metrics, err);
}

static mm_status make_run(const char *path, const run_plan *plan, int64_t sweep_id, int64_t parent,
                          int64_t *id, mm_err *err)
{
    mm_store *store = NULL;
    mm_claim *claim = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&store, path, MM_STORE_WRITE, err));
    MM_GO(create_run(store, plan, sweep_id, parent, id, err));
    MM_GO(mm_run_claim(&claim, store, *id, -1, err));
    MM_GO(add_surroundings(store, *id, err));
    if (strcmp(plan->end, "killed") == 0) {
        MM_GO(train(store, *id, claim, plan, 0, 760, false, err));
        mm_claim_drop(claim); // as a process that dies leaves it
        claim = NULL;
        mm_store_close(store);
        store = NULL;
        MM_GO(mm_store_open(&store, path, MM_STORE_WRITE, err));
        MM_GO(mm_run_claim(&claim, store, *id, 700, err));
        MM_GO(mm_store_event(store, *id, "info", "resume", "resumed from step 700", err));
        MM_GO(add_surroundings(store, *id, err));
        MM_GO(train(store, *id, claim, plan, 700, plan->steps, true, err));
    } else {
        MM_GO(train(store, *id, claim, plan, 0, plan->steps, true, err));
    }
    if (plan->has_nan)
        MM_GO(mm_store_event(store, *id, "error", "nan",
                             "loss is not finite at step 521; state kept in "
                             "/home/somebody/experiments/mmrun.db",
                             err));
    const char *end = strcmp(plan->end, "killed") == 0 ? "finished" : plan->end;
    status = mm_run_end(claim, end, plan->has_nan ? "loss is not finite at step 521" : NULL, err);
    claim = NULL;
done:
    mm_claim_drop(claim);
    mm_store_close(store);
    return status;
}

mm_status fixture_demo(const char *path, int64_t runs[FIXTURE_RUNS], int64_t *sweep_id, mm_err *err)
{
    mm_store *store = NULL;
    MM_TRY(mm_store_open(&store, path, MM_STORE_CREATE, err));
    const mm_sweep sweep = {
        .name = "width-and-rate",
        .stage = "pretrain",
        .search = "grid",
        .space = "{\"hidden_size\":[64,96],\"learning_rate\":[0.001,0.003,0.03],\"seed\":[1,2,3]}",
        .status = "running",
        .objective = "val_loss",
        .command = "mmrun sweep --hidden 64,96 --lr 1e-3,3e-3,3e-2 --seeds 1,2,3"};
    mm_status status = MM_OK;
    MM_GO(mm_store_sweep_create(store, &sweep, sweep_id, err));
    for (size_t i = 0; i < FIXTURE_RUNS; i++)
        MM_GO(make_run(path, &plans[i], *sweep_id, plans[i].is_child ? runs[3] : 0, &runs[i], err));
    mm_sweep_claim *claim = NULL;
    MM_GO(mm_sweep_claim_take(&claim, store, *sweep_id, err));
    status = mm_sweep_end(claim, store, "finished", err);
done:
    mm_store_close(store);
    return status;
}

mm_status fixture_bulk(const char *path, size_t n_runs, int64_t n_steps, size_t n_metrics,
                       int64_t *runs, mm_err *err)
{
    static const char *const names[] = {"loss",         "val_loss", "lr",      "grad_norm",
                                        "tokens_per_s", "step_ms",  "val_bpb", "mem_bytes"};
    mm_store *store = NULL;
    mm_claim *claim = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_open(&store, path, MM_STORE_CREATE, err));
    for (size_t i = 0; i < n_runs; i++) {
        run_plan plan = plans[i % 3];
        char name[32];
        snprintf(name, sizeof name, "bulk-%03zu", i);
        plan.name = name;
        plan.seed = i + 1;
        plan.lr = 1e-4 * (double)(i + 1);
        plan.floor += 0.003 * (double)i;
        MM_GO(create_run(store, &plan, 0, 0, &runs[i], err));
        MM_GO(mm_run_claim(&claim, store, runs[i], -1, err));
        mm_metrics *metrics = NULL;
        MM_GO(mm_metrics_open(&metrics, claim, err));
        int32_t series[8] = {0};
        for (size_t j = 0; j < n_metrics; j++)
            MM_GO(mm_metrics_series(metrics, names[j], &series[j], err));
        mm_rng rng;
        mm_rng_init(&rng, plan.seed, MM_RNG_TEST, 1);
        for (int64_t step = 1; step <= n_steps; step++)
            for (size_t j = 0; j < n_metrics; j++)
                mm_metric_log(metrics, series[j], step,
                              true_loss(&plan, step) + 0.05 * mm_rng_uniform(&rng));
        MM_GO(mm_metrics_close(metrics, err));
        status = mm_run_end(claim, "finished", NULL, err);
        claim = NULL;
        if (status != MM_OK) goto done;
    }
done:
    mm_claim_drop(claim);
    mm_store_close(store);
    return status;
}

const char *const fixture_payloads[FIXTURE_PAYLOADS] = {
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "\"><script>window.pwned=1</script>",
    "'><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<img src=\"x\" onerror=\"window.pwned=1\">",
    "<svg onload=window.pwned=1>",
    "<svg/onload=window.pwned=1>",
    "<svg><script>window.pwned=1</script></svg>",
    "<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>",
    "<svg><set attributeName=onmouseover to=window.pwned=1>",
    "</svg><script>window.pwned=1</script>",
    "</title><script>window.pwned=1</script>",
    "</desc></svg><img src=x onerror=window.pwned=1>",
    "</style><script>window.pwned=1</script>",
    "<style>@import 'http://203.0.113.1/x.css'</style>",
    "<style>*{background:url(http://203.0.113.1/x)}</style>",
    "<link rel=stylesheet href=http://203.0.113.1/x.css>",
    "<link rel=preload as=image href=http://203.0.113.1/x>",
    "<meta http-equiv=refresh content=\"0;url=http://203.0.113.1/\">",
    "<base href=http://203.0.113.1/>",
    "<iframe src=javascript:window.pwned=1></iframe>",
    "<iframe srcdoc=\"<script>parent.pwned=1</script>\"></iframe>",
    "<object data=\"data:text/html,<script>window.pwned=1</script>\"></object>",
    "<embed src=javascript:window.pwned=1>",
    "<a href=javascript:window.pwned=1>click</a>",
    "<a href=\"data:text/html,<script>1</script>\">click</a>",
    "javascript:window.pwned=1",
    "data:text/html,<script>window.pwned=1</script>",
    "<form action=http://203.0.113.1/><input type=submit></form>",
    "<input autofocus onfocus=window.pwned=1>",
    "<body onload=window.pwned=1>",
    "<video><source onerror=window.pwned=1></video>",
    "<audio src=x onerror=window.pwned=1>",
    "<details open ontoggle=window.pwned=1>",
    "<marquee onstart=window.pwned=1>",
    "<math><mtext></table></math><img src=x onerror=window.pwned=1>",
    "<table><td><script>window.pwned=1</script>",
    "<template><script>window.pwned=1</script></template>",
    "<noscript><p title=\"</noscript><img src=x onerror=window.pwned=1>\">",
    "<!--<script>window.pwned=1</script>-->",
    "--><script>window.pwned=1</script><!--",
    "]]><script>window.pwned=1</script>",
    "<![CDATA[<script>window.pwned=1</script>]]>",
    "\" onmouseover=\"window.pwned=1",
    "' onmouseover='window.pwned=1",
    "` onmouseover=`window.pwned=1",
    "x\" autofocus onfocus=\"window.pwned=1\" y=\"",
    "x=\" style=\"background:url(http://203.0.113.1/)",
    "&lt;script&gt;window.pwned=1&lt;/script&gt;",
    "&#60;script&#62;window.pwned=1&#60;/script&#62;",
    "&quot;&gt;&lt;img src=x onerror=window.pwned=1&gt;",
    "\\u003cscript\\u003ewindow.pwned=1\\u003c/script\\u003e",
    "\\x3cscript\\x3ewindow.pwned=1\\x3c/script\\x3e",
    "\";window.pwned=1;//",
    "'};window.pwned=1;//",
    "${window.pwned=1}",
    "{{constructor.constructor('window.pwned=1')()}}",
    "<scr\xE2\x80\xA8ipt>window.pwned=1</scr\xE2\x80\xA9ipt>",
    "<ScRiPt\t>window.pwned=1</sCrIpT\t>",
};

/* Hands out the payloads one after the other, so that each lands in several places. */
typedef struct payload_feeder {
    size_t next;
} payload_feeder;

static const char *feed(payload_feeder *feeder)
{
    return fixture_payloads[feeder->next++ % FIXTURE_PAYLOADS];
}

static mm_status hostile_records(mm_store *store, int64_t run, payload_feeder *feeder, mm_err *err)
{
    for (int i = 0; i < FIXTURE_PAYLOADS / 2; i++) {
        char step[16];
        snprintf(step, sizeof step, "%d", i);
        MM_TRY(mm_store_event(store, run, "info", feed(feeder), feed(feeder), err));
        MM_TRY(mm_store_env(store, run, feed(feeder), feed(feeder), err));
        const mm_generation_row row = {.run_id = run,
                                       .step = i % 3,
                                       .prompt_idx = i / 3,
                                       .prompt = feed(feeder),
                                       .text = feed(feeder),
                                       .tokens = 3,
                                       .finish_reason = "stop",
                                       .task = i % 2 ? feed(feeder) : NULL,
                                       .expected = feed(feeder),
                                       .is_correct = i % 3 - 1};
        MM_TRY(mm_store_generation_add(store, &row, err));
        const mm_result result = {.run_id = run,
                                  .step = i,
                                  .task = feed(feeder),
                                  .metric = feed(feeder),
                                  .value = 0.5,
                                  .low = 0.25,
                                  .high = 0.75,
                                  .n = 8,
                                  .correct = 4,
                                  .data_sha256 = feed(feeder)};
        MM_TRY(mm_store_result_add(store, &result, err));
    }
    for (int i = 0; i < FIXTURE_PAYLOADS; i++)
        MM_TRY(mm_store_run_note(store, run, fixture_payloads[i], err));
    char digest[65];
    for (int i = 0; i < 6; i++) {
        snprintf(digest, sizeof digest, "%064x", (unsigned)(i + 1 + (int)run * 100));
        const mm_dataset dataset = {.path = feed(feeder),
                                    .source = feed(feeder),
                                    .sha256 = digest,
                                    .bytes = 10,
                                    .rows = 1,
                                    .tokens = 1,
                                    .role = i == 0   ? "train"
                                            : i == 1 ? "val"
                                                     : "tokenizer"};
        MM_TRY(mm_store_dataset_use(store, run, &dataset, err));
    }
    return MM_OK;
}

static mm_status hostile_run(mm_store *store, int64_t sweep_id, payload_feeder *feeder,
                             size_t number, int64_t parent, int64_t *id, mm_err *err)
{
    mm_param params[FIXTURE_PAYLOADS + 4] = {
        [FIXTURE_PAYLOADS] = {"teacher", fixture_payloads[0], false, fixture_payloads[1]},
        {"lora_rank", fixture_payloads[2], false, fixture_payloads[3]},
        {"lora_alpha", fixture_payloads[4], false, fixture_payloads[5]},
        {"lora_targets", fixture_payloads[6], false, fixture_payloads[7]}};
    for (size_t i = 0; i < FIXTURE_PAYLOADS; i++)
        params[i] = (mm_param){.name = fixture_payloads[i],
                               .value = fixture_payloads[(i + number) % FIXTURE_PAYLOADS],
                               .is_default = false,
                               .origin = "command line"};
    const char *tags[] = {"tag", "<b>tag</b>"};
    const mm_run_new run = {.name = number == 0 ? fixture_payloads[0] : fixture_payloads[6],
                            .stage = number == 0 ? "pretrain" : fixture_payloads[8],
                            .parent_id = parent,
                            .parent_step = parent > 0 ? 60 : -1,
                            .sweep_id = sweep_id,
                            .device = "cpu",
                            .dtype = "fp32",
                            .params_total = 1000,
                            .steps_planned = 60,
                            .command = feed(feeder),
                            .version = feed(feeder),
                            .git_commit = feed(feeder),
                            .notes = feed(feeder),
                            .tags = tags,
                            .n_tags = 2,
                            .params = params,
                            .n_params = FIXTURE_PAYLOADS + 4};
    mm_claim *claim = NULL;
    mm_metrics *metrics = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_run_create(store, &run, id, err));
    MM_GO(mm_run_claim(&claim, store, *id, -1, err));
    MM_GO(hostile_records(store, *id, feeder, err));
    MM_GO(mm_metrics_open(&metrics, claim, err));
    static const char *const names[] = {"loss", "val_loss", "x/<script>window.pwned=1</script>",
                                        "\"><img src=x onerror=window.pwned=1>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t series;
        MM_GO(mm_metrics_series(metrics, names[i], &series, err));
        for (int64_t step = 1; step <= 60; step++)
            mm_metric_log(metrics, series, step, 3.0 - 0.01 * (double)step + 0.1 * (double)number);
    }
    status = mm_metrics_close(metrics, err);
    if (status != MM_OK) goto done;
    status = mm_run_end(claim, "finished", number == 1 ? fixture_payloads[4] : NULL, err);
    claim = NULL;
done:
    mm_claim_drop(claim);
    return status;
}

mm_status fixture_hostile(const char *path, int64_t runs[2], int64_t *sweep_id, mm_err *err)
{
    mm_store *store = NULL;
    MM_TRY(mm_store_open(&store, path, MM_STORE_CREATE, err));
    payload_feeder feeder = {0};
    const mm_sweep sweep = {.name = fixture_payloads[2],
                            .stage = "pretrain",
                            .search = fixture_payloads[3],
                            .space = "{\"<script>window.pwned=1</script>\":[1,2]}",
                            .status = "finished",
                            .objective = "val_loss",
                            .command = fixture_payloads[5]};
    mm_status status = MM_OK;
    MM_GO(mm_store_sweep_create(store, &sweep, sweep_id, err));
    for (size_t i = 0; i < 2; i++)
        MM_GO(hostile_run(store, *sweep_id, &feeder, i, i > 0 ? runs[0] : 0, &runs[i], err));
done:
    mm_store_close(store);
    return status;
}

char *fixture_folder(void)
{
    const char *base = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/mmrun-report-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(path) ? mm_strdup(path) : NULL;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void fixture_remove(char *folder)
{
    if (folder) nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    mm_free(folder);
}
