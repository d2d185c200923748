/* `mmrun runs`: the list of runs. */
#include "core/base/clock.h"
#include "runner/commands.h"

const mm_option mm_runs_options[] = {
    {.name = "status",
     .type = MM_OPTION_CHOICE,
     .value = "STATUS",
     .choices = "queued,running,finished,stopped,failed,killed,pruned",
     .help = "only runs in this state"},
    {.name = "stage", .type = MM_OPTION_TEXT, .value = "STAGE", .help = "only runs of this stage"},
    {.name = "tag", .type = MM_OPTION_TEXT, .value = "TAG", .help = "only runs with this tag"},
    {.name = "sweep",
     .type = MM_OPTION_TEXT,
     .value = "SWEEP",
     .help = "only runs of this sweep (id, name or `last`)"},
    {.name = "limit",
     .aliases = "n",
     .type = MM_OPTION_INT,
     .value = "N",
     .min = 1,
     .max = 1e9,
     .help = "only the newest N"},
    {.name = "names", .help = "print nothing but names, one a line"},
    {0},
};

enum { COLUMN_STAGE = 2, COLUMN_STEP = 4, COLUMN_PARAMS = 7, COLUMN_RATE, COLUMN_TIME, COLUMN_AGE };

static mm_status print_table(const mm_context *context, const mm_run_info *runs, size_t count,
                             mm_err *err)
{
    static const char *const HEADERS[] = {"ID",  "NAME",   "STAGE", "STATUS", "STEP", "LOSS",
                                          "VAL", "PARAMS", "TOK/S", "TIME",   "AGE"};
    mm_table *table = NULL;
    MM_TRY(mm_table_new(&table, HEADERS, sizeof HEADERS / sizeof HEADERS[0], err));
    mm_table_drops(table, COLUMN_AGE, 5);
    mm_table_drops(table, COLUMN_RATE, 4);
    mm_table_drops(table, COLUMN_PARAMS, 3);
    mm_table_drops(table, COLUMN_STAGE, 2);
    mm_table_drops(table, COLUMN_TIME, 1);
    const int64_t now = mm_now_ms();
    for (size_t i = 0; i < count; i++) {
        const mm_run_info *run = &runs[i];
        char text[MM_NUMBER_BYTES];
        char duration[MM_TIME_ISO_BYTES];
        mm_table_cell(table, "%lld", (long long)run->id);
        mm_table_cell(table, "%s", run->name);
        mm_table_cell(table, "%s", run->stage);
        mm_table_cell(table, "%s", run->status);
        mm_table_color(table, mm_status_color(run->status));
        if (run->steps_planned > 0)
            mm_table_cell(table, "%lld/%lld", (long long)run->steps, (long long)run->steps_planned);
        else
            mm_table_cell(table, "%lld", (long long)run->steps);
        mm_real_text(run->final_loss, text);
        mm_table_cell(table, "%s", text);
        mm_real_text(run->best_val_loss, text);
        mm_table_cell(table, "%s", text);
        mm_count_text((double)run->params_total, text);
        mm_table_cell(table, "%s", run->params_total > 0 ? text : "-");
        mm_count_text(run->tokens_per_s, text);
        mm_table_cell(table, "%s", text);
        mm_duration_text(run->duration_s, duration);
        mm_table_cell(table, "%s", run->started_ms > 0 ? duration : "-");
        mm_age_text(run->created_ms, now, text);
        mm_table_cell(table, "%s", text);
    }
    mm_table_print(table, context);
    return MM_OK;
}

static void print_json(const mm_run_info *runs, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, mm_json_of_run(&runs[i]));
    mm_out_json(list);
    json_decref(list);
}

mm_status mm_cmd_runs(const mm_context *context, const mm_args *args, mm_err *err)
{
    mm_store *store = NULL;
    mm_arena arena = {0};
    mm_run_info *runs = NULL;
    size_t count = 0;
    mm_status status = MM_OK;
    mm_run_filter filter = {.status = mm_args_text(args, "status"),
                            .stage = mm_args_text(args, "stage"),
                            .tag = mm_args_text(args, "tag"),
                            .limit = mm_args_int(args, "limit", 0)};
    const char *sweep = mm_args_text(args, "sweep");
    MM_GO(mm_context_store(context, MM_STORE_READ, &store, err));
    if (sweep) {
        mm_sweep found;
        MM_GO(mm_store_sweep(store, sweep, &arena, &found, err));
        filter.sweep_id = found.id;
    }
    MM_GO(mm_store_runs(store, &filter, &arena, &runs, &count, err));
    if (context->json) {
        print_json(runs, count);
    } else if (mm_args_has(args, "names")) {
        for (size_t i = 0; i < count; i++)
            mm_out("%s\n", runs[i].name);
    } else if (count > 0) {
        MM_GO(print_table(context, runs, count, err));
    } else {
        const bool is_filtered = filter.status || filter.stage || filter.tag || filter.sweep_id > 0;
        mm_say(context, is_filtered ? "No run fits." : "No runs yet. Start with `mmrun demo`.");
    }
done:
    mm_arena_drop(&arena);
    mm_store_close(store);
    return status;
}
