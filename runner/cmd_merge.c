/* `mmrun merge RUN`: the weights and adapters of a run as one full set of weights, in a run of its
 * own. */
#include "core/nn/lora.h"
#include "runner/commands.h"
#include "runner/config.h"
#include "runner/load.h"
#include "runner/train.h"

#include <inttypes.h>
#include <string.h>

const mm_option mm_merge_options[] = {
    {.name = "name", .type = MM_OPTION_TEXT, .value = "NAME", .help = "name of the new run"},
    {.name = "note", .type = MM_OPTION_TEXT, .value = "TEXT", .help = "a remark for the record"},
    {0},
};

/* What the new run is on record with: the shape of the old one, and nothing of its training. */
static mm_status shape_params(mm_store *store, const mm_loaded *loaded, mm_arena *arena,
                              mm_param **out, size_t *count, mm_err *err)
{
    mm_param *params = NULL;
    mm_param *all = NULL;
    size_t n = 0;
    size_t n_all = 0;
    mm_config *config = NULL;
    mm_status status = MM_OK;
    MM_GO(mm_store_params(store, loaded->run.id, arena, &params, &n, err));
    MM_GO(mm_config_new(&config, "merge", err));
    MM_GO(mm_config_shape_from_params(config, params, n, err));
    MM_GO(mm_config_params(config, arena, &all, &n_all, err));
    *out = mm_arena_alloc(arena, (n_all + 1) * sizeof **out);
    if (!*out) {
        status = MM_FAIL(err, MM_ENOMEM, "out of memory");
        goto done;
    }
    for (size_t i = 0; i < n_all; i++)
        if (strcmp(all[i].origin, "parent") == 0) (*out)[(*count)++] = all[i];
    (*out)[(*count)++] = (mm_param){.name = "tokenizer_hash",
                                    .value = mm_tokenizer_hash(loaded->tokenizer),
                                    .origin = "parent"};
done:
    mm_config_free(config);
    return status;
}

/* With the run by name and step: what `last` meant when it was merged. */
static void add_command(mm_str *out, const mm_args *args, const mm_loaded *loaded)
{
    static const char *const OPTIONS[] = {"name", "note"};
    mm_str_add(out, "mmrun merge ");
    mm_shell_add(out, loaded->run.name);
    mm_str_addf(out, "@%" PRId64, loaded->checkpoint.step);
    for (size_t i = 0; i < sizeof OPTIONS / sizeof OPTIONS[0]; i++) {
        const char *value = mm_args_text(args, OPTIONS[i]);
        if (!value) continue;
        mm_str_addf(out, " --%s ", OPTIONS[i]);
        mm_shell_add(out, value);
    }
}

static mm_status record(mm_store *store, const mm_args *args, const mm_loaded *loaded,
                        mm_arena *arena, int64_t *run_id, mm_err *err)
{
    mm_str command = {0};
    mm_str event = {0};
    mm_param *params = NULL;
    size_t n_params = 0;
    const int64_t n = mm_model_config_params(mm_model_config_of(loaded->model));
    mm_status status = MM_OK;
    add_command(&command, args, loaded);
    mm_str_addf(&event, "adapters of rank %" PRId64 " on ",
                mm_config_int(loaded->config, "lora_rank"));
    mm_str_add(&event, mm_config_text(loaded->config, "lora_targets"));
    mm_str_addf(&event, " of %s at step %" PRId64 " were merged", loaded->run.name,
                loaded->checkpoint.step);
    MM_GO(mm_str_check(&command, err));
    MM_GO(mm_str_check(&event, err));
    MM_GO(shape_params(store, loaded, arena, &params, &n_params, err));
    const mm_run_new run = {.name = mm_args_text(args, "name"),
                            .stage = "merge",
                            .parent_id = loaded->run.id,
                            .parent_step = loaded->checkpoint.step,
                            .seed = loaded->run.seed,
                            .device = "cpu",
                            .dtype = loaded->run.dtype,
                            .params_total = n,
                            .params_trainable = n,
                            .command = mm_str_text(&command),
                            .version = MMRUN_VERSION,
                            .notes = mm_args_text(args, "note"),
                            .params = params,
                            .n_params = n_params};
    MM_GO(mm_save_run(store, &run, loaded->model, loaded->tokenizer, 0, run_id, err));
    MM_GO(mm_store_event(store, *run_id, "info", "merge", mm_str_text(&event), err));
done:
    mm_str_drop(&event);
    mm_str_drop(&command);
    return status;
}

mm_status mm_cmd_merge(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_loaded loaded = {0};
    mm_arena arena = {0};
    mm_run_info run;
    int64_t run_id = 0;
    mm_status status = MM_OK;
    MM_GO(mm_context_store(context, MM_STORE_WRITE, &store, err));
    if (mm_args_has(args, "name"))
        MM_GO(mm_store_run_name_check(store, mm_args_text(args, "name"), err));
    MM_GO(mm_load_merged(&loaded, store, mm_args_at(args, 0), err));
    if (mm_config_int(loaded.config, "lora_rank") == 0) {
        status = MM_FAIL(err, MM_EUSAGE, "run '%s' is a %s run without adapters: nothing to merge",
                         loaded.run.name, loaded.run.stage);
        goto done;
    }
    MM_GO(record(store, args, &loaded, &arena, &run_id, err));
    MM_GO(mm_store_run(store, run_id, &arena, &run, err));
    mm_say(context, "%s: %" PRId64 " parameters, the adapters of %s@%" PRId64 " merged into them",
           run.name, run.params_total, loaded.run.name, loaded.checkpoint.step);
    if (context->json) {
        json_t *object = json_pack("{s:o}", "run", mm_json_of_run(&run));
        mm_out_json(object);
        json_decref(object);
    } else {
        mm_out("%s\n", run.name);
    }
done:
    mm_store_close(store);
    mm_loaded_drop(&loaded);
    mm_arena_drop(&arena);
    return status;
}
