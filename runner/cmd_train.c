/* mmrun pretrain, sft, lora, dpo, distill and resume: record a run, train it, say how it went. One
 * path for all of them; what differs is in the configuration and the objective. */
#include "runner/commands.h"
#include "runner/lineage.h"
#include "runner/load.h"
#include "runner/train.h"

#include "core/base/clock.h"
#include "core/base/file.h"
#include "core/base/json.h"
#include "core/nn/engine.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

// Some seconds of work on any machine of today.
static const double LONG_FLOPS = 2e11;
// Below this the learning rates of the fine-tuning stages are far too small (decision 29).
static const int64_t SMALL_PARAMS = 20000000;

const mm_option mm_resume_options[] = {
    {.name = "data",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .repeats = true,
     .help = "where the training files are now, if they were moved"},
    {.name = "val",
     .type = MM_OPTION_PATH,
     .value = "FILE",
     .help = "where the held-out file is now"},
    {.name = "cache", .type = MM_OPTION_PATH, .value = "DIR", .help = "folder of the token caches"},
    {0},
};

static void say_plan(const mm_context *context, const mm_config *config, const mm_train_plan *plan)
{
    char params[24];
    char tokens[24];
    char memory[24];
    char time[MM_TIME_ISO_BYTES];
    mm_count_text((double)plan->params, params);
    mm_count_text((double)plan->tokens, tokens);
    mm_bytes_text((double)plan->memory_bytes, memory);
    mm_duration_text(plan->seconds, time);
    if (plan->shape.lora_rank > 0) {
        char trained[24];
        const int64_t n = mm_model_config_trainable(&plan->shape);
        mm_count_text((double)n, trained);
        mm_say(context, "Adapters of rank %d on %s: %s parameters are trained, %.2g %% of all.",
               plan->shape.lora_rank, mm_config_text(config, "lora_targets"), trained,
               100.0 * (double)n / (double)plan->params);
    }
    mm_say(context,
           "%s parameters, %" PRId64 " steps, about %s tokens, %s of memory%s%s%s, %s on %s.",
           params, plan->steps, tokens, memory, isfinite(plan->seconds) ? ", about " : "",
           isfinite(plan->seconds) ? time : "", isfinite(plan->seconds) ? " on this machine" : "",
           plan->dtype == MM_BF16 ? "bf16" : "fp32", mm_engine_isa(plan->dtype));
    if (plan->dtype == MM_BF16 && mm_engine_best_dtype() != MM_BF16)
        mm_say(context, "No kernels here are fast in bf16; --dtype fp32 takes less time.");
    if (strcmp(mm_config_stage(config), "pretrain") != 0 && plan->params < SMALL_PARAMS &&
        !mm_config_is_set(config, "learning_rate"))
        mm_say(context,
               "--lr %s is the recipe's for 64M parameters; a model of %s mostly wants ten to a "
               "hundred times as much.",
               mm_config_text(config, "learning_rate"), params);
    if (plan->val_rows == 0)
        mm_warn(context,
                "Nothing is held out, so there will be no val_loss; --val FILE names rows.");
}

static mm_status print_config(const mm_context *context, const mm_config *config,
                              const mm_train_plan *plan, mm_err *err)
{
    mm_arena arena = {0};
    mm_param *params = NULL;
    size_t n = 0;
    mm_status status = MM_OK;
    MM_GO(mm_config_params(config, &arena, &params, &n, err));
    if (context->json) {
        json_t *all = json_object();
        for (size_t i = 0; i < n; i++)
            json_object_set_new(
                all, params[i].name,
                json_pack("{s:s,s:s}", "value", params[i].value, "origin", params[i].origin));
        json_t *top = json_pack(
            "{s:o,s:I,s:I,s:I,s:I}", "config", all, "params", (json_int_t)plan->params,
            "params_trainable", (json_int_t)mm_model_config_trainable(&plan->shape), "tokens",
            (json_int_t)plan->tokens, "memory_bytes", (json_int_t)plan->memory_bytes);
        if (isfinite(plan->seconds)) json_object_set_new(top, "seconds", json_real(plan->seconds));
        mm_out_json(top);
        json_decref(top);
    } else {
        for (size_t i = 0; i < n; i++)
            mm_out("%-24s %-16s %s\n", params[i].name, params[i].value, params[i].origin);
    }
done:
    mm_arena_drop(&arena);
    return status;
}

// A run that is stopped in its reference pass or sooner has no checkpoint: nothing says it has.
static mm_status tell_stopped(const mm_context *context, mm_store *store, const mm_run_info *run,
                              mm_arena *arena, mm_err *err)
{
    mm_checkpoint_info *list = NULL;
    size_t n = 0;
    const char *mmrun = mm_shell_mmrun(arena, context);
    const char *name = mm_shell_text(arena, run->name);
    MM_TRY(mm_checkpoint_list(store, run->id, arena, &list, &n, err));
    if (n == 0)
        return MM_FAIL(err, MM_ECANCELED,
                       "run '%s' was stopped before its first checkpoint\n"
                       "%s resume %s begins it again",
                       run->name, mmrun, name);
    return MM_FAIL(err, MM_ECANCELED,
                   "run '%s' was stopped after step %" PRId64 " of %" PRId64
                   " with a valid checkpoint\n%s resume %s",
                   run->name, run->steps, run->steps_planned, mmrun, name);
}

// How a run went, as data on stdout and in words on stderr.
static mm_status tell(const mm_context *context, mm_store *store, int64_t run_id, mm_status trained,
                      mm_err *err)
{
    mm_arena arena = {0};
    mm_run_info run;
    mm_err late = {0};
    char seconds[MM_TIME_ISO_BYTES];
    mm_status status = mm_store_run(store, run_id, &arena, &run, &late);
    if (status != MM_OK) goto done;
    if (trained == MM_ECANCELED) {
        trained = tell_stopped(context, store, &run, &arena, err);
        goto done;
    }
    if (trained == MM_ENAN && err) {
        const mm_err why = *err;
        trained = MM_FAIL(err, MM_ENAN, "run '%s': %.512s\na lower --lr, --warmup or --clip helps",
                          run.name, why.message);
        goto done;
    }
    if (trained != MM_OK) {
        if (err && strncmp(err->message, "run '", 5) != 0)
            mm_err_context(err, "run '%s'", run.name);
        goto done;
    }
    mm_duration_text(run.duration_s, seconds);
    if (isfinite(run.best_val_loss))
        mm_say(context, "%s finished in %s: best val_loss %.4f, last loss %.4f.", run.name, seconds,
               run.best_val_loss, run.final_loss);
    else
        mm_say(context, "%s finished in %s: last loss %.4f.", run.name, seconds, run.final_loss);
    const char *mmrun = mm_shell_mmrun(&arena, context);
    const char *name = mm_shell_text(&arena, run.name);
    if (strcmp(run.stage, "pretrain") == 0)
        mm_say(context, "Next: %s report %s · %s generate %s \"…\" · %s sft --from %s", mmrun, name,
               mmrun, name, mmrun, name);
    else
        mm_say(context, "Next: %s report %s · %s chat %s · %s show %s", mmrun, name, mmrun, name,
               mmrun, name);
    if (context->json) {
        json_t *out = json_pack("{s:I,s:s,s:s,s:I,s:I,s:f}", "id", (json_int_t)run.id, "name",
                                run.name, "status", run.status, "steps", (json_int_t)run.steps,
                                "tokens", (json_int_t)run.tokens, "final_loss", run.final_loss);
        if (isfinite(run.best_val_loss))
            json_object_set_new(out, "best_val_loss", json_real(run.best_val_loss));
        mm_out_json(out);
        json_decref(out);
    } else {
        mm_out("%s\n", run.name);
    }
done:
    mm_arena_drop(&arena);
    return trained;
}

// What would refuse the record is said before hours of reading: name and place of the database.
static mm_status check_record(const mm_context *context, const char *name, mm_err *err)
{
    mm_store *store = NULL;
    mm_status status = MM_OK;
    if (mm_file_exists(context->db_path)) {
        // An empty file is what a kill leaves of a database that was just being made.
        MM_TRY(mm_store_open(&store, context->db_path, MM_STORE_CREATE, err));
    } else {
        MM_TRY(mm_dir_check_writable_of(context->db_path, err));
    }
    if (name) status = mm_store_run_name_check(store, name, err);
    mm_store_close(store);
    return status;
}

static mm_status record_and_train(const mm_context *context, const mm_args *args,
                                  mm_lineage *lineage, const mm_corpus *corpus, mm_config *config,
                                  const mm_train_plan *plan, mm_err *err)
{
    mm_str command = {0};
    mm_status status = MM_OK;
    int64_t run_id = 0;
    mm_run_request request = {.stage = mm_config_stage(config),
                              .name = mm_args_text(args, "name"),
                              .notes = mm_args_text(args, "note"),
                              .parent_id = lineage->from.run_id,
                              .parent_step = lineage->from.step,
                              .teacher_id = lineage->teacher.run_id,
                              .teacher_step = lineage->teacher.step};
    request.tags = mm_args_list(args, "tag", &request.n_tags);
    request.prompts = mm_args_list(args, "prompt", &request.n_prompts);
    MM_GO(mm_train_plan_check(plan, context->db_path, err));
    MM_GO(mm_lineage_command(lineage, context, &command, err));
    request.command = mm_str_text(&command);
    mm_store **store = &lineage->store;
    if (!*store) MM_GO(mm_store_open(store, context->db_path, MM_STORE_CREATE, err));
    MM_GO(mm_store_begin(*store, err));
    MM_GO(mm_train_create(*store, corpus, config, plan, &request, &run_id, err));
    MM_GO(mm_store_commit(*store, err));
    MM_GO(tell(context, *store, run_id, mm_train_run(context, *store, corpus, run_id, err), err));
done:
    mm_store_abort(lineage->store);
    mm_str_drop(&command);
    return status;
}

// A command line made for MiniMind's trainer runs; what means nothing here is said.
static mm_status check_without_effect(const mm_context *context, const mm_args *args, mm_err *err)
{
    const mm_option *const tables[] = {mm_distill_options, mm_without_effect_options};
    if (mm_args_int(args, "use-moe", 0) != 0)
        return MM_FAIL(err, MM_ECONFIG, "--use-moe: mixtures of experts are not there yet; use 0");
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const mm_option *row = tables[t]; row->name; row++)
            if (row->group == mm_without_effect && mm_args_has(args, row->name))
                mm_warn(context, "--%s has no effect: %s.", row->name, row->help);
    return MM_OK;
}

static mm_status train_stage(const mm_context *context, const mm_args *args, const char *stage,
                             mm_err *err)
{
    mm_status status = MM_OK;
    mm_lineage lineage = {0};
    mm_config *config = NULL;
    mm_corpus corpus = {0};
    mm_train_plan plan;
    const bool is_dry = mm_args_has(args, "dry-run");
    MM_GO(check_without_effect(context, args, err));
    MM_GO(mm_lineage_configure(&lineage, context, args, stage, false, &config, err));
    mm_corpus_spec spec = {.val = mm_args_text(args, "val"),
                           .tokenizer =
                               lineage.tokenizer_hash ? NULL : mm_args_text(args, "tokenizer"),
                           .tokenizer_hash = lineage.tokenizer_hash,
                           .cache_dir = mm_args_text(args, "cache")};
    spec.train = mm_args_list(args, "data", &spec.n_train);
    if (!is_dry) MM_GO(check_record(context, mm_args_text(args, "name"), err));
    MM_GO(mm_corpus_open(&corpus, context, lineage.store, &spec, config, err));
    MM_GO(mm_train_plan_make(&corpus, config, &plan, err));
    MM_GO(mm_train_plan_add_teacher(&plan, config, &lineage.teacher, err));
    MM_GO(mm_lineage_check(&lineage, config, err)); // the vocabulary is known now
    MM_GO(mm_corpus_say_left_out(&corpus, context, config, err));
    // What is over in a moment needs no estimate, and is not held up by one.
    if (plan.flops > LONG_FLOPS) plan.seconds = plan.flops / mm_train_plan_rate(config, plan.dtype);
    say_plan(context, config, &plan);
    if (is_dry)
        MM_GO(print_config(context, config, &plan, err));
    else
        MM_GO(record_and_train(context, args, &lineage, &corpus, config, &plan, err));
done:
    mm_corpus_close(&corpus);
    mm_config_free(config);
    mm_lineage_drop(&lineage);
    return status;
}

mm_status mm_cmd_pretrain(const mm_context *context, const mm_args *args, mm_err *err)
{
    return train_stage(context, args, "pretrain", err);
}

mm_status mm_cmd_sft(const mm_context *context, const mm_args *args, mm_err *err)
{
    return train_stage(context, args, "sft", err);
}

mm_status mm_cmd_lora(const mm_context *context, const mm_args *args, mm_err *err)
{
    return train_stage(context, args, "lora", err);
}

mm_status mm_cmd_dpo(const mm_context *context, const mm_args *args, mm_err *err)
{
    return train_stage(context, args, "dpo", err);
}

mm_status mm_cmd_distill(const mm_context *context, const mm_args *args, mm_err *err)
{
    return train_stage(context, args, "distill", err);
}

// The files a run was started with, from its record, unless the command line says where they are
// now.
static mm_status resume_spec(const mm_args *args, mm_store *store, int64_t run_id, mm_arena *arena,
                             mm_corpus_spec *spec, mm_config *config, mm_err *err)
{
    mm_param *params = NULL;
    size_t n_params = 0;
    mm_dataset *datasets = NULL;
    size_t n = 0;
    MM_TRY(mm_store_params(store, run_id, arena, &params, &n_params, err));
    MM_TRY(mm_config_from_params(config, params, n_params, NULL, err));
    MM_TRY(mm_store_datasets(store, run_id, arena, &datasets, &n, err));
    spec->tokenizer_hash = mm_param_find(params, n_params, "tokenizer_hash");
    spec->cache_dir = mm_args_text(args, "cache");
    spec->val = mm_args_text(args, "val");
    spec->train = mm_args_list(args, "data", &spec->n_train);
    const char **paths = mm_arena_alloc(arena, (n + 1) * sizeof *paths);
    if (!paths) return MM_FAIL(err, MM_ENOMEM, "no memory for the list of files");
    size_t n_paths = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(datasets[i].role, "train") == 0) paths[n_paths++] = datasets[i].path;
        if (strcmp(datasets[i].role, "val") == 0 && !spec->val) spec->val = datasets[i].path;
    }
    if (spec->n_train == 0) {
        spec->train = paths;
        spec->n_train = n_paths;
    }
    if (spec->n_train == 0 || !spec->tokenizer_hash)
        return MM_FAIL(err, MM_EUSAGE,
                       "run %" PRId64 " has no training data on record: it cannot be resumed",
                       run_id);
    return MM_OK;
}

mm_status mm_cmd_resume(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_status status = MM_OK;
    mm_arena arena = {0};
    mm_store *store = NULL;
    mm_config *config = NULL;
    mm_corpus corpus = {0};
    mm_corpus_spec spec = {0};
    mm_run_info run;
    int64_t run_id = 0;
    MM_GO(mm_context_store(context, MM_STORE_WRITE, &store, err));
    MM_GO(mm_store_resolve_run(store, mm_args_at(args, 0), &run_id, err));
    MM_GO(mm_store_run(store, run_id, &arena, &run, err));
    MM_GO(mm_config_new(&config, run.stage, err));
    if (strcmp(run.status, "finished") == 0) {
        status = MM_FAIL(err, MM_EUSAGE,
                         "run '%s' is finished (%" PRId64
                         " steps): nothing to resume\nmmrun %s --from %s … starts "
                         "a new run from its weights",
                         run.name, run.steps, mm_config_stage(config), run.name);
        goto done;
    }
    MM_GO(resume_spec(args, store, run_id, &arena, &spec, config, err));
    status = mm_corpus_open(&corpus, context, store, &spec, config, err);
    if (status == MM_ENOTFOUND && err && !strchr(err->message, '\n')) {
        const mm_err why = *err;
        status =
            MM_FAIL(err, MM_ENOTFOUND,
                    "%.512s\n%s resume %s --data FILE goes on with a file that was moved",
                    why.message, mm_shell_mmrun(&arena, context), mm_shell_text(&arena, run.name));
    }
    if (status != MM_OK) goto done;
    MM_GO(tell(context, store, run_id, mm_train_run(context, store, &corpus, run_id, err), err));
done:
    mm_corpus_close(&corpus);
    mm_config_free(config);
    mm_store_close(store);
    mm_arena_drop(&arena);
    return status;
}
