/* mmrun sweep: the grid over comma lists, one arm after the other, each in a process of its own.
 *
 * The rows of the database are the whole state: all arms are recorded as `queued` before the first
 * one starts, a worker is `mmrun resume RUN`, and resuming a sweep means running what is not
 * finished. */
#include "runner/child.h"
#include "runner/commands.h"
#include "runner/lineage.h"
#include "runner/signals.h"
#include "runner/train.h"

#include "core/base/clock.h"
#include "core/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AXES_MAX = 8, VALUES_MAX = 64, ARMS_MAX = 4096, NAME_BYTES = 160, SYNTH_STEPS = 200 };

const mm_option mm_sweep_options[] = {
    {.name = "stage",
     .type = MM_OPTION_CHOICE,
     .value = "NAME",
     .choices = "pretrain,sft,lora,dpo,distill",
     .group = "Sweep",
     .help = "stage of the arms [pretrain]"},
    {.name = "from",
     .type = MM_OPTION_TEXT,
     .value = "RUN[@STEP]",
     .group = "Sweep",
     .help = "every arm starts from the weights of this run; none: fresh ones"},
    {.name = "teacher",
     .type = MM_OPTION_TEXT,
     .value = "RUN[@STEP]",
     .group = "Sweep",
     .help = "the run that teaches (--stage distill)"},
    {.name = "seeds",
     .type = MM_OPTION_TEXT,
     .value = "LIST",
     .group = "Sweep",
     .help = "every arm with each of these seeds"},
    {.name = "search",
     .type = MM_OPTION_CHOICE,
     .value = "NAME",
     .choices = "grid",
     .group = "Sweep",
     .help = "how the space is searched"},
    {.name = "resume",
     .type = MM_OPTION_TEXT,
     .value = "SWEEP",
     .group = "Sweep",
     .help = "run what is not finished of this sweep (id, name or `last`)"},
    {.name = "name",
     .type = MM_OPTION_TEXT,
     .value = "NAME",
     .group = "Sweep",
     .help = "name of the sweep"},
    {0},
};

typedef struct axis {
    const char *flag; // as on the command line: names of arms stay short
    const char *name; // database name
    size_t n;
    char *value[VALUES_MAX];
} axis;

typedef struct arm {
    mm_config *config;
    mm_train_plan plan;
    char name[NAME_BYTES];
} arm;

typedef struct sweep {
    const mm_context *context;
    mm_arena arena;
    mm_store *store;
    mm_lineage lineage;
    mm_corpus corpus;
    mm_config *base;
    axis axes[AXES_MAX];
    size_t n_axes;
    arm *arms;
    size_t n_arms;
} sweep;

// ---- the grid
// --------------------------------------------------------------------------------------

static mm_status add_axis(sweep *s, const char *flag, const char *list, mm_err *err)
{
    if (s->n_axes == AXES_MAX)
        return MM_FAIL(err, MM_EUSAGE, "--%s: at most %d hyperparameters can be swept at once",
                       flag, AXES_MAX);
    axis *a = &s->axes[s->n_axes];
    a->flag = flag;
    MM_ASSERT(mm_config_known(s->base, flag, &a->name));
    for (const char *at = list;; at++) {
        const size_t length = strcspn(at, ",");
        if (length == 0)
            return MM_FAIL(err, MM_EUSAGE, "--%s: empty value in the list '%s'", flag, list);
        if (a->n == VALUES_MAX)
            return MM_FAIL(err, MM_EUSAGE, "--%s: at most %d values, found more", flag, VALUES_MAX);
        a->value[a->n] = mm_arena_strndup(&s->arena, at, length);
        if (!a->value[a->n++]) return MM_FAIL(err, MM_ENOMEM, "no memory for the grid");
        at += length;
        if (*at == '\0') break;
    }
    s->n_axes++;
    return MM_OK;
}

static mm_status find_axes(sweep *s, const mm_args *args, mm_err *err)
{
    const char *flag;
    for (size_t i = 0; (flag = mm_config_flag(s->base, i)) != NULL; i++) {
        const char *value = mm_args_text(args, flag);
        if (value && strchr(value, ',')) MM_TRY(add_axis(s, flag, value, err));
    }
    const char *seeds = mm_args_text(args, "seeds");
    if (seeds && mm_args_has(args, "seed"))
        return MM_FAIL(err, MM_EUSAGE, "--seed and --seeds cannot be given together");
    if (seeds) MM_TRY(add_axis(s, "seed", seeds, err));
    if (s->n_axes == 0)
        return MM_FAIL(
            err, MM_EUSAGE,
            "nothing to sweep: no hyperparameter has a comma list\nmmrun sweep --hidden 64,96");
    return MM_OK;
}

static mm_status make_arm(sweep *s, size_t index, arm *a, mm_err *err)
{
    size_t rest = index;
    size_t used = 0;
    MM_TRY(mm_config_copy(&a->config, s->base, err));
    // The last axis turns fastest, as in nested loops.
    size_t chosen[AXES_MAX];
    for (size_t k = s->n_axes; k-- > 0;) {
        chosen[k] = rest % s->axes[k].n;
        rest /= s->axes[k].n;
    }
    for (size_t k = 0; k < s->n_axes; k++) {
        const char *value = s->axes[k].value[chosen[k]];
        MM_TRY(mm_config_set(a->config, s->axes[k].name, value, "sweep", err));
        const int added = snprintf(a->name + used, sizeof a->name - used, "%s%s=%s", k ? "," : "",
                                   s->axes[k].flag, mm_config_text(a->config, s->axes[k].name));
        used += (size_t)added;
        if (used >= sizeof a->name)
            return MM_FAIL(err, MM_ELIMIT, "the name of arm %zu is too long", index + 1);
    }
    mm_status status = mm_lineage_check(&s->lineage, a->config, err);
    if (status == MM_OK) status = mm_train_plan_make(&s->corpus, a->config, &a->plan, err);
    if (status == MM_OK)
        status = mm_train_plan_add_teacher(&a->plan, a->config, &s->lineage.teacher, err);
    if (status != MM_OK) {
        mm_err_context(err, "arm %zu (%s)", index + 1, a->name);
        return status;
    }
    return mm_train_plan_check(&a->plan, s->context->db_path, err);
}

static void estimate(sweep *s)
{
    double rates[MM_BF16 + 1] = {0}; // by dtype, measured when first needed
    for (size_t i = 0; i < s->n_arms; i++) {
        mm_train_plan *plan = &s->arms[i].plan;
        double *rate = &rates[plan->dtype];
        if (!(*rate > 0)) *rate = mm_train_plan_rate(s->base, plan->dtype);
        if (*rate > 0) plan->seconds = plan->flops / *rate;
    }
}

static mm_status make_arms(sweep *s, mm_err *err)
{
    size_t n = 1;
    for (size_t k = 0; k < s->n_axes; k++) {
        n *= s->axes[k].n;
        if (n > ARMS_MAX) return MM_FAIL(err, MM_EUSAGE, "the grid has over %d arms", ARMS_MAX);
    }
    s->arms = mm_calloc(n, sizeof *s->arms);
    if (!s->arms) return MM_FAIL(err, MM_ENOMEM, "no memory for the grid");
    s->n_arms = n;
    size_t n_possible = 0;
    for (size_t i = 0; i < n; i++) {
        arm *a = &s->arms[n_possible];
        mm_err why = {0};
        const mm_status status = make_arm(s, i, a, &why);
        if (status == MM_OK) {
            n_possible++;
            continue;
        }
        // A grid may hold combinations that no model has; the others are what was asked for.
        if (status == MM_ECONFIG && (n_possible > 0 || i + 1 < n)) {
            mm_warn(s->context, "Left out: %s", why.message);
            mm_config_free(a->config);
            *a = (arm){0};
            continue;
        }
        if (err) *err = why;
        return status;
    }
    s->n_arms = n = n_possible;
    for (size_t i = 1; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(s->arms[i].name, s->arms[k].name) == 0)
                return MM_FAIL(err, MM_EUSAGE, "arms %zu and %zu are the same: %s", k + 1, i + 1,
                               s->arms[i].name);
    estimate(s);
    return MM_OK;
}

// ---- plan and record
// ---------------------------------------------------------------------------------

// ", bf16 on amx"; nothing where the type is swept over, since the names of the arms say it.
static void type_text(const sweep *s, char *out, size_t bytes)
{
    const mm_dtype dtype = s->arms[0].plan.dtype;
    out[0] = '\0';
    for (size_t i = 1; i < s->n_arms; i++)
        if (s->arms[i].plan.dtype != dtype) return;
    snprintf(out, bytes, ", %s on %s", dtype == MM_BF16 ? "bf16" : "fp32", mm_engine_isa(dtype));
}

static void show_plan(const sweep *s)
{
    double total = 0;
    char params[24];
    char tokens[24];
    char memory[24];
    char seconds[MM_TIME_ISO_BYTES];
    char type[40];
    type_text(s, type, sizeof type);
    mm_say(s->context, "Plan: %zu arms, one after the other%s.", s->n_arms, type);
    for (size_t i = 0; i < s->n_arms; i++) {
        const mm_train_plan *plan = &s->arms[i].plan;
        mm_count_text((double)plan->params, params);
        mm_count_text((double)plan->tokens, tokens);
        mm_bytes_text((double)plan->memory_bytes, memory);
        mm_duration_text(plan->seconds, seconds);
        mm_say(s->context,
               "  %-32s %7s parameters  %5" PRId64 " steps  %6s tokens  %8s memory  about %s",
               s->arms[i].name, params, plan->steps, tokens, memory, seconds);
        total += plan->seconds;
    }
    mm_duration_text(total, seconds);
    mm_say(s->context, "About %s in all.", seconds);
}

static mm_status space_text(const sweep *s, mm_str *out, mm_err *err)
{
    mm_str_add_char(out, '{');
    for (size_t k = 0; k < s->n_axes; k++) {
        if (k) mm_str_add_char(out, ',');
        mm_json_add_string(out, s->axes[k].name, strlen(s->axes[k].name));
        mm_str_add(out, ":[");
        for (size_t i = 0; i < s->axes[k].n; i++) {
            if (i) mm_str_add_char(out, ',');
            mm_json_add_string(out, s->axes[k].value[i], strlen(s->axes[k].value[i]));
        }
        mm_str_add_char(out, ']');
    }
    mm_str_add_char(out, '}');
    return mm_str_check(out, err);
}

static void add_option(mm_str *out, const char *option, const char *value)
{
    if (!value) return;
    mm_str_add(out, option);
    mm_shell_add(out, value);
}

// The command that would train this arm alone.
static mm_status arm_command(const sweep *s, const arm *a, const mm_args *args, mm_str *out,
                             mm_err *err)
{
    mm_str_clear(out);
    mm_str_addf(out, "mmrun %s", mm_config_stage(s->base));
    mm_lineage_add_flags(&s->lineage, out);
    for (size_t i = 0; i < s->corpus.n_train; i++)
        add_option(out, " --data ", s->corpus.train_path[i]);
    add_option(out, " --val ", s->corpus.val_path);
    add_option(out, " --tokenizer ", mm_args_text(args, "tokenizer"));
    size_t n = 0;
    const char *const *prompts = mm_args_list(args, "prompt", &n);
    for (size_t i = 0; i < n; i++)
        add_option(out, " --prompt ", prompts[i]);
    mm_config_add_flags(a->config, out);
    return mm_str_check(out, err);
}

static mm_status record(sweep *s, const mm_args *args, int64_t *sweep_id, mm_err *err)
{
    mm_status status = MM_OK;
    mm_str space = {0};
    mm_str command = {0};
    mm_sweep info;
    MM_GO(space_text(s, &space, err));
    MM_GO(mm_lineage_command(&s->lineage, s->context, &command, err));
    MM_GO(mm_store_open(&s->store, s->context->db_path, MM_STORE_CREATE, err));
    const mm_sweep row = {.name = mm_args_text(args, "name"),
                          .stage = mm_config_stage(s->base),
                          .search = "grid",
                          .space = mm_str_text(&space),
                          .status = "queued",
                          .objective = "val_loss",
                          .command = mm_str_text(&command)};
    // All or nothing: no arm may be missing, or refused, once the sweep is there.
    MM_GO(mm_store_begin(s->store, err));
    MM_GO(mm_store_sweep_create(s->store, &row, sweep_id, err));
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, *sweep_id);
    MM_GO(mm_store_sweep(s->store, id, &s->arena, &info, err));
    for (size_t i = 0; i < s->n_arms; i++) {
        arm *a = &s->arms[i];
        char name[NAME_BYTES * 2];
        int64_t run_id = 0;
        snprintf(name, sizeof name, "%s/%s", info.name, a->name);
        MM_GO(arm_command(s, a, args, &command, err));
        mm_run_request request = {.stage = mm_config_stage(s->base),
                                  .name = name,
                                  .parent_id = s->lineage.from.run_id,
                                  .parent_step = s->lineage.from.step,
                                  .teacher_id = s->lineage.teacher.run_id,
                                  .teacher_step = s->lineage.teacher.step,
                                  .command = mm_str_text(&command),
                                  .notes = mm_args_text(args, "note"),
                                  .sweep_id = *sweep_id};
        request.tags = mm_args_list(args, "tag", &request.n_tags);
        request.prompts = mm_args_list(args, "prompt", &request.n_prompts);
        MM_GO(mm_train_create(s->store, &s->corpus, a->config, &a->plan, &request, &run_id, err));
    }
    MM_GO(mm_store_commit(s->store, err));
done:
    mm_store_abort(s->store);
    mm_str_drop(&space);
    mm_str_drop(&command);
    return status;
}

// ---- running
// ---------------------------------------------------------------------------------------------

static mm_status run_arm(const mm_context *context, const mm_run_info *run, const char *cache,
                         int *code, mm_err *err)
{
    char id[24];
    pid_t pid = 0;
    snprintf(id, sizeof id, "%" PRId64, run->id);
    const char *arguments[12] = {"--db", context->db_path, "resume", id};
    size_t n = 4;
    if (context->quiet) arguments[n++] = "--quiet";
    if (cache) {
        arguments[n++] = "--cache";
        arguments[n++] = cache;
    }
    arguments[n] = NULL;
    MM_TRY(mm_child_start(context, arguments, MM_CHILD_TO_STDERR, &pid, err));
    return mm_child_wait(pid, code, err);
}

static mm_status list_arms(const mm_context *context, int64_t sweep_id, mm_arena *arena,
                           mm_run_info **runs, size_t *n, mm_err *err)
{
    // A store is open only while it is read: children write, and a reader that lingers keeps the
    // log from shrinking.
    mm_store *store = NULL;
    const mm_run_filter filter = {.sweep_id = sweep_id};
    MM_TRY(mm_store_open(&store, context->db_path, MM_STORE_WRITE, err));
    const mm_status status = mm_store_runs(store, &filter, arena, runs, n, err);
    mm_store_close(store);
    return status;
}

static mm_status take_claim(const mm_context *context, int64_t sweep_id, mm_sweep_claim **claim,
                            mm_err *err)
{
    mm_store *store = NULL;
    MM_TRY(mm_store_open(&store, context->db_path, MM_STORE_WRITE, err));
    const mm_status status = mm_sweep_claim_take(claim, store, sweep_id, err);
    mm_store_close(store);
    return status;
}

static mm_status end_claim(const mm_context *context, mm_sweep_claim *claim, const char *text,
                           mm_err *err)
{
    mm_store *store = NULL;
    mm_status status = mm_store_open(&store, context->db_path, MM_STORE_WRITE, err);
    if (status == MM_OK)
        status = mm_sweep_end(claim, store, text, err);
    else
        mm_sweep_claim_drop(claim);
    mm_store_close(store);
    return status;
}

static mm_status run_arms(const mm_context *context, int64_t sweep_id, const char *name,
                          const char *cache, mm_err *err)
{
    mm_arena arena = {0};
    mm_run_info *runs = NULL;
    size_t n = 0;
    size_t failed = 0;
    mm_sweep_claim *claim = NULL;
    mm_status status = MM_OK;
    mm_signals_install();
    MM_GO(take_claim(context, sweep_id, &claim, err));
    MM_GO(list_arms(context, sweep_id, &arena, &runs, &n, err));
    for (size_t i = 0; i < n && mm_signals_stop() == 0; i++) {
        int code = 0;
        if (strcmp(runs[i].status, "finished") == 0 || strcmp(runs[i].status, "pruned") == 0)
            continue;
        mm_say(context, "Arm %zu of %zu: %s", i + 1, n, runs[i].name);
        MM_GO(run_arm(context, &runs[i], cache, &code, err));
        if (code == 0 || mm_signals_stop() != 0) continue;
        failed++;
        mm_warn(context, "%s ended with exit code %d; going on with the next arm.", runs[i].name,
                code);
    }
    const bool is_stopped = mm_signals_stop() != 0;
    const char *mmrun = mm_shell_mmrun(&arena, context);
    const char *quoted = mm_shell_text(&arena, name);
    MM_GO(end_claim(context, claim, is_stopped ? "stopped" : "finished", err));
    claim = NULL;
    if (is_stopped)
        status = MM_FAIL(err, MM_ECANCELED,
                         "sweep '%s' was stopped; what is done is kept\n%s sweep --resume %s", name,
                         mmrun, quoted);
    else if (failed > 0)
        status = MM_FAIL(err, MM_EIO,
                         "%zu of %zu arms of sweep '%s' failed\n%s sweep --resume %s tries them "
                         "again",
                         failed, n, name, mmrun, quoted);
done:
    mm_sweep_claim_drop(claim);
    mm_arena_drop(&arena);
    return status;
}

static int by_result(const mm_run_info *a, const mm_run_info *b)
{
    // Unfinished and unscored runs come last, in the order they were made.
    const bool has_a = strcmp(a->status, "finished") == 0 && isfinite(a->best_val_loss);
    const bool has_b = strcmp(b->status, "finished") == 0 && isfinite(b->best_val_loss);
    if (has_a != has_b) return has_a ? -1 : 1;
    if (has_a && a->best_val_loss < b->best_val_loss) return -1;
    if (has_a && a->best_val_loss > b->best_val_loss) return 1;
    return a->id < b->id ? -1 : 1;
}

static void sort_runs(mm_run_info *runs, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        const mm_run_info moving = runs[i];
        size_t k = i;
        for (; k > 0 && by_result(&moving, &runs[k - 1]) < 0; k--)
            runs[k] = runs[k - 1];
        runs[k] = moving;
    }
}

static mm_status print_leaderboard(const mm_context *context, int64_t sweep_id, const char *name,
                                   mm_err *err)
{
    static const char *const HEADERS[] = {"rank", "run",        "status",   "val_loss",
                                          "loss", "parameters", "tokens/s", "time"};
    mm_arena arena = {0};
    mm_run_info *runs = NULL;
    size_t n = 0;
    mm_table *table = NULL;
    char text[24];
    char seconds[MM_TIME_ISO_BYTES];
    mm_status status = MM_OK;
    MM_GO(list_arms(context, sweep_id, &arena, &runs, &n, err));
    sort_runs(runs, n);
    if (context->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++) {
            json_t *row = json_pack("{s:I,s:s,s:s}", "id", (json_int_t)runs[i].id, "name",
                                    runs[i].name, "status", runs[i].status);
            const bool is_ranked = strcmp(runs[i].status, "finished") == 0;
            json_object_set_new(row, "rank",
                                is_ranked ? json_integer((json_int_t)i + 1) : json_null());
            json_object_set_new(row, "val_loss",
                                isfinite(runs[i].best_val_loss) ? json_real(runs[i].best_val_loss)
                                                                : json_null());
            json_array_append_new(list, row);
        }
        json_t *top = json_pack("{s:I,s:s,s:o}", "sweep_id", (json_int_t)sweep_id, "name", name,
                                "runs", list);
        mm_out_json(top);
        json_decref(top);
        goto done;
    }
    MM_GO(mm_table_new(&table, HEADERS, sizeof HEADERS / sizeof HEADERS[0], err));
    for (size_t i = 0; i < n; i++) {
        const bool is_done = strcmp(runs[i].status, "finished") == 0;
        mm_table_cell(table, is_done ? "%zu" : "-", i + 1);
        mm_table_cell(table, "%s", runs[i].name);
        mm_table_cell(table, "%s", runs[i].status);
        mm_table_cell(table, isfinite(runs[i].best_val_loss) ? "%.4f" : "-", runs[i].best_val_loss);
        mm_table_cell(table, isfinite(runs[i].final_loss) ? "%.4f" : "-", runs[i].final_loss);
        mm_count_text((double)runs[i].params_total, text);
        mm_table_cell(table, "%s", text);
        mm_count_text(isfinite(runs[i].tokens_per_s) ? runs[i].tokens_per_s : 0, text);
        mm_table_cell(table, "%s", text);
        mm_duration_text(runs[i].duration_s, seconds);
        mm_table_cell(table, "%s", seconds);
    }
    mm_table_print(table, context);
    mm_say(context, "Next: %s report --sweep %s", mm_shell_mmrun(&arena, context),
           mm_shell_text(&arena, name));
done:
    mm_arena_drop(&arena);
    return status;
}

// ---- the command
// -------------------------------------------------------------------------------------------

// Some hyperparameters change what the loss measures: then its order says nothing.
static void warn_of_scale(const sweep *s)
{
    static const char *const SCALES[] = {"beta", "dpo_loss", "label_smoothing", "logp",
                                         "simpo_gamma"};
    for (size_t k = 0; k < s->n_axes; k++)
        for (size_t i = 0; i < sizeof SCALES / sizeof SCALES[0]; i++)
            if (strcmp(s->axes[k].name, SCALES[i]) == 0)
                mm_warn(s->context,
                        "Arms with another --%s have losses on another scale: compare their "
                        "dpo/val_accuracy.",
                        s->axes[k].flag);
}

static mm_status prepare(sweep *s, const mm_args *args, mm_err *err)
{
    const char *stage = mm_args_text(args, "stage");
    MM_TRY(mm_lineage_configure(&s->lineage, s->context, args, stage ? stage : "pretrain", true,
                                &s->base, err));
    const char *hash = s->lineage.tokenizer_hash;
    mm_corpus_spec spec = {.val = mm_args_text(args, "val"),
                           .tokenizer = hash ? NULL : mm_args_text(args, "tokenizer"),
                           .tokenizer_hash = hash,
                           .cache_dir = mm_args_text(args, "cache")};
    spec.train = mm_args_list(args, "data", &spec.n_train);
    MM_TRY(find_axes(s, args, err));
    MM_TRY(mm_corpus_open(&s->corpus, s->context, s->lineage.store, &spec, s->base, err));
    // With nothing said about data or length, a comparison that fits into a coffee break.
    const bool has_length =
        mm_args_has(args, "steps") || mm_args_has(args, "tokens") || mm_args_has(args, "epochs");
    if (s->corpus.is_synthetic && !has_length) mm_config_decide(s->base, "steps", SYNTH_STEPS);
    MM_TRY(make_arms(s, err));
    show_plan(s);
    warn_of_scale(s);
    return MM_OK;
}

static void drop(sweep *s)
{
    for (size_t i = 0; i < s->n_arms; i++)
        mm_config_free(s->arms[i].config);
    mm_free(s->arms);
    mm_config_free(s->base);
    mm_corpus_close(&s->corpus);
    mm_store_close(s->store);
    mm_lineage_drop(&s->lineage);
    s->arms = NULL;
    s->n_arms = 0;
    s->base = NULL;
    s->store = NULL;
}

static mm_status find_sweep(sweep *s, const char *text, mm_sweep *out, mm_err *err)
{
    mm_store *store = NULL;
    MM_TRY(mm_context_store(s->context, MM_STORE_WRITE, &store, err));
    const mm_status status = mm_store_sweep(store, text, &s->arena, out, err);
    mm_store_close(store);
    return status;
}

mm_status mm_cmd_sweep(const mm_context *context, const mm_args *args, mm_err *err)
{
    sweep s = {.context = context};
    mm_sweep info = {0};
    mm_status status = MM_OK;
    const char *resumed = mm_args_text(args, "resume");
    if (!resumed) {
        char id[24];
        int64_t sweep_id = 0;
        MM_GO(prepare(&s, args, err));
        if (mm_args_has(args, "dry-run")) goto done;
        MM_GO(record(&s, args, &sweep_id, err));
        // Arms are processes of their own; what the plan needed is given back before they start.
        drop(&s);
        snprintf(id, sizeof id, "%" PRId64, sweep_id);
        MM_GO(find_sweep(&s, id, &info, err));
    } else {
        MM_GO(find_sweep(&s, resumed, &info, err));
    }
    status = run_arms(context, info.id, info.name, mm_args_text(args, "cache"), err);
    if (status == MM_OK || status == MM_EIO) {
        mm_err late = {0};
        const mm_status printed = print_leaderboard(context, info.id, info.name, &late);
        if (status == MM_OK && printed != MM_OK) {
            status = printed;
            if (err) *err = late;
        }
    }
done:
    drop(&s);
    mm_arena_drop(&s.arena);
    return status;
}
